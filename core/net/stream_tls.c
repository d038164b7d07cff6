#include "net/offload.h"
#include "net/stream_part.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A small write of several pieces (head and body) becomes one record, not one a piece. */
#define GATHER_BYTES 4096u
/* Room for a flight of a handshake: made by the loop, who sends it and frees it, so that no thread of the pool does (offload.h). */
#define FLIGHT_BYTES 8192u

/* Between claw_offload_start and on_worked the engine is the pool's: reading is stopped, nothing here touches it. What the
 * handshake allocates is the pool's from beginning to end. */
struct claw_stream_tls {
    struct claw_tls *engine;
    struct claw_stream *stream;
    struct claw_offload work;
    struct claw_lane_ticket turn;
    int rc;
    bool busy;
    atomic_bool given_up; /* closed meanwhile */
};

static void on_work(struct claw_offload *work);
static void on_worked(struct claw_offload *work);

int claw_stream_tls_new(struct claw_stream *s, struct claw_tls_server *server, struct claw_tls_client *client,
                        struct claw_str server_name)
{
    struct claw_stream_tls *t = calloc(1, sizeof *t);

    if (!t) return CLAW_ENOMEM;
    int rc = claw_tls_new(server, client, server_name, &t->engine);
    if (rc != 0) {
        free(t);
        return rc;
    }
    t->stream = s;
    t->work.run = on_work;
    t->work.done = on_worked;
    s->tls = t;
    return 0;
}

static struct claw_stream_tls *tls_of(struct claw_offload *work)
{
    return (struct claw_stream_tls *)((char *)work - offsetof(struct claw_stream_tls, work));
}

static void on_end(struct claw_offload *work) { claw_tls_end(tls_of(work)->engine); }

static void on_ended(struct claw_offload *work)
{
    struct claw_stream_tls *t = tls_of(work);

    claw_tls_free(t->engine);
    free(t);
}

void claw_stream_tls_free(struct claw_stream *s)
{
    struct claw_stream_tls *t = s->tls;

    if (!t) return;
    CLAW_ASSERT(!t->busy);
    s->tls = NULL;
    s->error = NULL; /* may have been the engine's */
    t->work = (struct claw_offload){.run = on_end, .done = on_ended, .light = true};
    if (!claw_tls_started(t->engine) || claw_offload_start(s->loop, &t->work) != 0) on_ended(&t->work);
}

bool claw_stream_tls_busy(const struct claw_stream *s) { return s->tls && s->tls->busy; }

bool claw_stream_tls_waits(const struct claw_stream *s) { return s->tls && (s->tls->busy || s->tls->turn.lane); }

bool claw_stream_tls_resumed(const struct claw_stream *s)
{
    return s->tls && !s->tls->busy && claw_tls_resumed(s->tls->engine);
}

/* What the engine made goes to the socket. */
static int flush(struct claw_stream *s)
{
    struct claw_buf *out = claw_tls_out(s->tls->engine);
    struct claw_str all = claw_buf_str(out);
    uv_buf_t buf = uv_buf_init((char *)all.ptr, (unsigned)all.len);
    int rc = claw_stream_send(s, &buf, all.len ? 1 : 0);

    claw_buf_fini(out); /* sent or copied; most connections wait much longer than they write */
    return rc;
}

static void after_handshake(struct claw_stream *s, int rc)
{
    int sent = flush(s);

    if (rc != 0 && rc != CLAW_EAGAIN)
        claw_stream_failed(s, rc, claw_tls_error(s->tls->engine));
    else if (sent != 0 && sent != CLAW_EAGAIN)
        claw_stream_failed(s, CLAW_ETLS, s->error);
    else if (rc == 0)
        claw_stream_opened(s);
    else
        claw_stream_set_reading(s);
}

static void on_work(struct claw_offload *work)
{
    struct claw_stream_tls *t = tls_of(work);

    if (atomic_load_explicit(&t->given_up, memory_order_relaxed)) t->rc = CLAW_ECANCELED;
    else t->rc = claw_tls_handshake(t->engine);
}

static void on_turn(struct claw_lane_ticket *ticket)
{
    struct claw_stream_tls *t = (struct claw_stream_tls *)((char *)ticket - offsetof(struct claw_stream_tls, turn));

    if (t->stream->state == CLAW_STREAM_HANDSHAKING) after_handshake(t->stream, t->rc);
}

static void on_worked(struct claw_offload *work)
{
    struct claw_stream_tls *t = tls_of(work);
    struct claw_stream *s = t->stream;

    t->busy = false;
    if (s->state == CLAW_STREAM_CLOSED)
        claw_stream_finish(s);
    else if (s->state == CLAW_STREAM_HANDSHAKING && !claw_lane_wait(s->loop, &s->loop->handshakes, &t->turn, on_turn))
        after_handshake(s, t->rc);
}

void claw_stream_tls_drive(struct claw_stream *s)
{
    struct claw_stream_tls *t = s->tls;

    CLAW_ASSERT(!t->busy && !t->turn.lane);
    if (!claw_tls_lacks_bytes(t->engine)) {
        t->work.light = !claw_tls_heavy(t->engine);
        (void)!claw_buf_reserve(claw_tls_out(t->engine), FLIGHT_BYTES); /* without it the engine says that there is no memory */
        if (claw_offload_start(s->loop, &t->work) == 0) {
            t->busy = true;
            claw_stream_set_reading(s);
            return;
        }
    }
    after_handshake(s, claw_tls_handshake(t->engine));
}

void claw_stream_tls_cancel(struct claw_stream *s)
{
    if (!s->tls) return;
    if (s->tls->busy) atomic_store_explicit(&s->tls->given_up, true, memory_order_relaxed);
    claw_lane_leave(s->loop, &s->tls->turn);
}

void claw_stream_tls_feed(struct claw_stream *s, const char *data, size_t n)
{
    int rc = claw_tls_feed(s->tls->engine, data, n);

    if (rc != 0 && s->state == CLAW_STREAM_HANDSHAKING)
        claw_stream_failed(s, CLAW_ETLS, claw_err_text(rc));
    else if (rc != 0)
        claw_stream_ended(s, CLAW_EUPSTREAM_EOF, claw_err_text(rc));
    else if (s->state == CLAW_STREAM_HANDSHAKING)
        claw_stream_tls_drive(s);
    else
        claw_stream_tls_pump(s);
}

void claw_stream_tls_pump(struct claw_stream *s)
{
    struct claw_tls *engine = s->tls->engine;
    char *plain = s->loop->plain_buf;

    while (s->state == CLAW_STREAM_OPEN && !s->paused && !s->ended) {
        ptrdiff_t n = claw_tls_read(engine, plain, CLAW_LOOP_READ_BYTES);
        if (n == CLAW_EAGAIN) break;
        if (n > 0)
            s->on->on_read(s, plain, (size_t)n);
        else if (n == 0)
            claw_stream_ended(s, CLAW_OK, NULL);
        else
            claw_stream_ended(s, CLAW_EUPSTREAM_EOF, claw_tls_error(engine));
    }
    if (s->state != CLAW_STREAM_OPEN) return;
    if (claw_buf_size(claw_tls_out(engine)) > 0) (void)!flush(s); /* an alert; a failure shows on the next use */
    claw_stream_set_reading(s);
}

int claw_stream_tls_write(struct claw_stream *s, const uv_buf_t *bufs, unsigned n)
{
    struct claw_tls *engine = s->tls->engine;
    char gather[GATHER_BYTES];
    size_t total = 0, at = 0;
    int rc = 0;

    if (s->broken) return CLAW_EIO;
    for (unsigned i = 0; i < n; i++) total += bufs[i].len;
    if (n > 1 && total <= sizeof gather) {
        for (unsigned i = 0; i < n; i++) {
            if (bufs[i].len) memcpy(gather + at, bufs[i].base, bufs[i].len);
            at += bufs[i].len;
        }
        rc = claw_tls_write(engine, gather, total);
    } else {
        for (unsigned i = 0; i < n && rc == 0; i++) rc = claw_tls_write(engine, bufs[i].base, bufs[i].len);
    }
    if (rc != 0) { /* a part may be encrypted: the record sequence has a hole now */
        s->broken = true;
        s->error = rc == CLAW_ENOMEM ? claw_err_text(rc) : claw_tls_error(engine);
        return CLAW_EIO;
    }
    return flush(s);
}

void claw_stream_tls_shutdown(struct claw_stream *s)
{
    if (s->broken || claw_tls_shutdown(s->tls->engine) != 0) return;
    (void)!flush(s); /* the FIN follows in any case */
}
