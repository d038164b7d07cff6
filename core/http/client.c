/* The upstream side's connections: CONNECTING -> IDLE <-> BUSY -> DEAD. Whoever sees DEAD after a callback touches the
 * connection no more; its memory is the owner's to free in on_closed. */
#include "http/client.h"

#include <errno.h>
#include <sys/socket.h>

#define CLIENT_MAGIC 0x636c6e74u

enum { CONNECTING, IDLE, BUSY, DEAD };

static struct claw_client *client_of(struct claw_stream *s)
{
    struct claw_client *c = s->arg;
    CLAW_ASSERT(c->magic == CLIENT_MAGIC);
    return c;
}

static void die(struct claw_client *c, bool reset)
{
    if (c->state == DEAD) return;
    c->state = DEAD;
    claw_timer_stop(c->stream.loop, &c->timer);
    if (reset) claw_stream_abort(&c->stream);
    else claw_stream_close(&c->stream);
}

static void fail(struct claw_client *c, int code, const char *text)
{
    die(c, true);
    c->on->on_fail(c, code, text);
}

/* ---- parser events ------------------------------------------------------------------------------------------- */

static int on_head(struct claw_h1 *p, struct claw_head *h)
{
    struct claw_client *c = p->arg;
    c->head_seen = true;
    claw_timer_start(c->stream.loop, &c->timer, c->stall_ms);
    c->on->on_head(c, h);
    return c->state == BUSY ? 0 : CLAW_ECANCELED;
}

static int on_body(struct claw_h1 *p, const char *data, size_t n)
{
    struct claw_client *c = p->arg;
    c->on->on_body(c, data, n);
    return c->state == BUSY ? 0 : CLAW_ECANCELED;
}

static int on_done(struct claw_h1 *p) { return 0; }

static const struct claw_h1_events parser_events = {on_head, on_body, on_done};

static void complete(struct claw_client *c, bool reusable)
{
    claw_timer_stop(c->stream.loop, &c->timer);
    c->state = IDLE;
    c->on->on_done(c, reusable);
}

/* Some servers say so when they close a connection that was idle for too long. */
static bool is_farewell(const char *data, size_t n) { return n >= 12 && memcmp(data, "HTTP/1.", 7) == 0 && memcmp(data + 8, " 408", 4) == 0; }

/* ---- stream events ------------------------------------------------------------------------------------------- */

static void on_stream_read(struct claw_stream *s, const char *data, size_t n)
{
    struct claw_client *c = client_of(s);
    if (c->state == IDLE) { /* nothing was asked: whatever this is, it must not answer the next request */
        c->stray = !is_farewell(data, n);
        die(c, true);
        c->on_idle_end(c);
        return;
    }
    if (c->state != BUSY) return;
    if (c->reused && !c->any_byte && c->turn == s->loop->turn) {
        /* These bytes were there before the request was: they end the answer before it, and answer nothing (RFC 9112 9.3). */
        c->stray = true;
        fail(c, CLAW_EUPSTREAM_EOF, "the upstream sent bytes behind its last answer");
        return;
    }
    c->last_ms = claw_loop_now_ms(s->loop);
    c->any_byte = true;
    c->bytes_in += n;
    size_t used = 0;
    int rc = claw_h1_feed(&c->parser, data, n, &used);
    if (c->state != BUSY) return;
    if (rc < 0) {
        fail(c, CLAW_EBAD_RESPONSE, claw_h1_error(&c->parser));
        return;
    }
    if (claw_h1_complete(&c->parser)) {
        c->stray = used < n;
        complete(c, used == n && c->parser.head->keep_alive && claw_stream_queued(s) == 0 && !c->sending);
    } else {
        c->on->on_batch(c);
    }
}

static void on_stream_end(struct claw_stream *s, int code)
{
    struct claw_client *c = client_of(s);
    if (c->state == IDLE) {
        die(c, false);
        c->on_idle_end(c);
        return;
    }
    if (c->state != BUSY) return;
    c->gone = true;
    int rc = claw_h1_finish(&c->parser);
    if (c->state != BUSY) return;
    if (code == CLAW_OK && rc == 0 && c->head_seen) complete(c, false);
    else fail(c, CLAW_EUPSTREAM_EOF, code == CLAW_OK ? claw_err_text(CLAW_EUPSTREAM_EOF) : claw_stream_error(s));
}

static void on_stream_drain(struct claw_stream *s)
{
    struct claw_client *c = client_of(s);
    c->last_ms = claw_loop_now_ms(s->loop);
    if (c->state == BUSY) c->on->on_drain(c);
}

static void on_stream_open(struct claw_stream *s, int code)
{
    struct claw_client *c = client_of(s);
    if (c->state != CONNECTING) return;
    claw_timer_stop(s->loop, &c->timer);
    if (code != 0) {
        die(c, true);
        c->on_open(c, code, claw_stream_error(s));
        return;
    }
    c->state = IDLE;
    c->on_open(c, 0, "");
}

static void on_stream_close(struct claw_stream *s)
{
    struct claw_client *c = client_of(s);
    c->magic = 0;
    c->on_closed(c);
}

static const struct claw_stream_events stream_events = {
    on_stream_open, on_stream_read, on_stream_end, on_stream_drain, on_stream_close, NULL,
};

static size_t unsent(const struct claw_client *c) { return uv_stream_get_write_queue_size((const uv_stream_t *)&c->stream.tcp); }

/* Does it take what it is sent, as far as there is something to take? */
static bool takes(struct claw_client *c)
{
    size_t queued = unsent(c), before = c->seen_queued;
    bool moved = c->last_ms > c->seen_ms;
    c->seen_queued = queued;
    c->seen_ms = c->last_ms;
    return queued == 0 || queued < before || moved;
}

/* The timer is not moved with every byte: when it fires it looks how long the last one is ago. */
static void on_due(struct claw_timer *t)
{
    struct claw_client *c = t->arg;
    if (c->state == CONNECTING) {
        die(c, true);
        c->on_open(c, CLAW_ECONNECT_TIMEOUT, claw_err_text(CLAW_ECONNECT_TIMEOUT));
        return;
    }
    if (c->state != BUSY) return;
    if (c->sending) {
        if (takes(c)) claw_timer_start(c->stream.loop, t, c->stall_ms);
        else fail(c, CLAW_ESTALL, "the upstream stopped taking the request");
        return;
    }
    if (!c->head_seen) {
        fail(c, CLAW_EFIRST_BYTE_TIMEOUT, claw_err_text(CLAW_EFIRST_BYTE_TIMEOUT));
        return;
    }
    uint64_t now = claw_loop_now_ms(c->stream.loop);
    uint64_t quiet = c->stream.paused ? 0 : now - c->last_ms;
    if (quiet >= c->stall_ms) fail(c, CLAW_ESTALL, claw_err_text(CLAW_ESTALL));
    else claw_timer_start(c->stream.loop, t, c->stall_ms - quiet);
}

/* ---- what the owner and the exchange's user call --------------------------------------------------------------- */

int claw_client_connect(struct claw_client *c, struct claw_loop *l, const struct sockaddr *to,
                        struct claw_tls_client *tls, struct claw_str server_name, unsigned connect_ms)
{
    c->magic = CLIENT_MAGIC;
    c->state = CONNECTING;
    c->any_byte = c->head_seen = c->gone = c->reused = c->stray = false;
    claw_timer_init(&c->timer, on_due, c);
    claw_h1_init(&c->parser, CLAW_H1_RESPONSE, &claw_h1_defaults, &parser_events, c);
    int rc = claw_stream_connect(&c->stream, l, to, tls, server_name, &stream_events, c);
    if (rc == 0) claw_timer_start(l, &c->timer, connect_ms);
    return rc;
}

bool claw_client_still(struct claw_client *c)
{
    uv_os_fd_t fd;
    char byte;
    if (c->stream.loop->polling || uv_fileno((uv_handle_t *)&c->stream.tcp, &fd) != 0) return true;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

void claw_client_exchange(struct claw_client *c, struct claw_arena *arena, bool no_body, unsigned first_byte_ms,
                          unsigned stall_ms, const struct claw_client_events *on, void *arg)
{
    CLAW_ASSERT(c->magic == CLIENT_MAGIC && c->state == IDLE);
    c->state = BUSY;
    c->on = on;
    c->arg = arg;
    c->any_byte = c->head_seen = c->sending = false;
    c->bytes_in = 0;
    c->turn = c->stream.loop->turn;
    c->first_byte_ms = first_byte_ms;
    c->stall_ms = stall_ms;
    c->last_ms = claw_loop_now_ms(c->stream.loop);
    claw_h1_begin(&c->parser, arena, no_body);
    claw_timer_start(c->stream.loop, &c->timer, first_byte_ms);
}

int claw_client_write(struct claw_client *c, const uv_buf_t *bufs, unsigned n)
{
    CLAW_ASSERT(c->magic == CLIENT_MAGIC);
    if (c->state != BUSY) return 0;
    return claw_stream_write_soon(&c->stream, bufs, n) == CLAW_EAGAIN ? CLAW_EAGAIN : 0;
}

void claw_client_sends(struct claw_client *c)
{
    c->sending = true;
    c->seen_ms = c->last_ms;
    c->seen_queued = SIZE_MAX;
    claw_timer_start(c->stream.loop, &c->timer, c->stall_ms);
}

void claw_client_sent(struct claw_client *c)
{
    if (c->state != BUSY || !c->sending) return;
    c->sending = false;
    c->last_ms = claw_loop_now_ms(c->stream.loop);
    claw_timer_start(c->stream.loop, &c->timer, c->head_seen ? c->stall_ms : c->first_byte_ms);
}

void claw_client_pause(struct claw_client *c) { claw_stream_pause(&c->stream); }

void claw_client_resume(struct claw_client *c)
{
    c->last_ms = claw_loop_now_ms(c->stream.loop);
    claw_stream_resume(&c->stream);
}

void claw_client_cancel(struct claw_client *c) { die(c, true); }
void claw_client_close(struct claw_client *c) { die(c, false); }
