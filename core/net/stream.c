#include "net/stream_part.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAGIC 0x73747265u
#define BUFS_MAX 16u
#define SMALL_BYTES 2048u

/* What to do at the end of the turn. */
enum { LATER_FAIL = 1, LATER_PUMP = 2, LATER_BROKEN = 4 };

/* One uv_write and its bytes. The queue is a circle; s->queue is its newest, whose next is the oldest. */
struct claw_stream_write {
    uv_write_t req;
    struct claw_stream_write *next;
    size_t n;
    char data[];
};

static void on_later(struct claw_deferred *d);

static void later(struct claw_stream *s, uint8_t due)
{
    s->due |= due;
    claw_loop_defer(s->loop, &s->later, on_later);
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static void on_turn(struct claw_lane_ticket *t)
{
    struct claw_stream *s = (struct claw_stream *)((char *)t - offsetof(struct claw_stream, reading));

    s->its_turn = true;
    claw_stream_set_reading(s);
}

/* Without a buffer libuv reads nothing; what the socket has stays there. */
static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct claw_stream *s = (struct claw_stream *)h;
    size_t n = 0;
    bool now = s->its_turn;
    s->its_turn = false;
    if (!now && claw_lane_wait_read(s->loop, &s->loop->reads, &s->reading, on_turn)) {
        *buf = uv_buf_init(NULL, 0);
        return;
    }
    char *room = s->on_room && !s->tls ? s->on_room(s, &n) : NULL;
    *buf = room ? uv_buf_init(room, (unsigned)n) : uv_buf_init(s->loop->read_buf, CLAW_LOOP_READ_BYTES);
    if (s->loop->slow && s->loop->slow < buf->len) buf->len = s->loop->slow;
}

/* libuv (1.44: uv__stream_io) says UV_EOF for a hang-up behind a short read, also when it was a reset: the
 * socket's own error tells the two apart. */
static int socket_error(const struct claw_stream *s)
{
    int err = 0;
    socklen_t n = sizeof err;
    uv_os_fd_t fd;

    if (uv_fileno((const uv_handle_t *)&s->tcp, &fd) != 0) return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) != 0) return 0;
    return err ? uv_translate_sys_error(err) : 0;
}

static void on_wire_end(struct claw_stream *s, int status)
{
    uv_read_stop((uv_stream_t *)&s->tcp);
    if (status == UV_EOF) {
        int err = socket_error(s);
        if (err) status = err;
    }
    if (s->state == CLAW_STREAM_HANDSHAKING) {
        const char *why = status == UV_EOF ? "the peer closed during the TLS handshake" : uv_strerror(status);
        claw_stream_failed(s, CLAW_ETLS, why);
    } else if (status != UV_EOF) {
        claw_stream_ended(s, CLAW_EUPSTREAM_EOF, uv_strerror(status));
    } else if (s->broken) { /* the failed write took the socket's error; the FIN that is left to see is none */
        claw_stream_ended(s, CLAW_EUPSTREAM_EOF, s->error);
    } else if (s->tls) {
        claw_stream_ended(s, CLAW_EUPSTREAM_EOF, "the peer closed without close_notify");
    } else {
        claw_stream_ended(s, CLAW_OK, NULL);
    }
}

static void on_wire(uv_stream_t *h, ssize_t n, const uv_buf_t *buf)
{
    struct claw_stream *s = (struct claw_stream *)h;

    CLAW_ASSERT(s->magic == MAGIC);
    if (s->reading.lane) claw_stream_set_reading(s);
    if (n == 0 || s->reading.lane || s->ended || s->state >= CLAW_STREAM_FAILED) return;
    if (n < 0)
        on_wire_end(s, (int)n);
    else if (s->tls)
        claw_stream_tls_feed(s, buf->base, (size_t)n);
    else
        s->on->on_read(s, buf->base, (size_t)n);
}

void claw_stream_set_reading(struct claw_stream *s)
{
    bool want = !s->ended && !s->reading.lane && ((s->state == CLAW_STREAM_OPEN && !s->paused) ||
                              (s->state == CLAW_STREAM_HANDSHAKING && !claw_stream_tls_waits(s)));

    if (s->state >= CLAW_STREAM_CLOSING) return;
    if (want)
        uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_wire); /* UV_EALREADY is as good */
    else
        uv_read_stop((uv_stream_t *)&s->tcp);
}

void claw_stream_ended(struct claw_stream *s, int code, const char *why)
{
    if (s->ended || s->state != CLAW_STREAM_OPEN) return;
    s->ended = true;
    if (why) s->error = why;
    claw_stream_set_reading(s);
    s->on->on_end(s, code);
}

void claw_stream_pause(struct claw_stream *s)
{
    s->paused = true;
    if (s->state == CLAW_STREAM_OPEN) claw_stream_set_reading(s);
}

/* Under TLS decrypted bytes may wait. They are handed up from the end of the turn, not from here: the caller may
 * be inside another stream's callback, which still looks at the shared buffer. */
void claw_stream_resume(struct claw_stream *s)
{
    s->paused = false;
    if (s->state != CLAW_STREAM_OPEN) return;
    if (s->tls)
        later(s, LATER_PUMP);
    else
        claw_stream_set_reading(s);
}

bool claw_stream_left(const struct claw_stream *s)
{
    struct pollfd p = {.events = POLLRDHUP};

    return uv_fileno((const uv_handle_t *)&s->tcp, &p.fd) == 0 && poll(&p, 1, 0) == 1;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* Data that came in before the failure is still to be read, and the read side then sees the end by itself.
 * Where nobody reads, or the end was told already, the user must not wait for on_drain for ever. */
static void write_failed(struct claw_stream *s, int status)
{
    bool waited = s->want_drain;

    s->broken = true;
    s->want_drain = false;
    s->error = uv_strerror(status);
    if (s->state != CLAW_STREAM_OPEN) return;
    if (s->ended) {
        if (waited && s->on->on_drain) s->on->on_drain(s);
    } else if (s->paused || (status != UV_EPIPE && status != UV_ECONNRESET && status != UV_ETIMEDOUT)) {
        claw_stream_ended(s, CLAW_EUPSTREAM_EOF, s->error);
    }
}

void claw_stream_broke(struct claw_stream *s) { later(s, LATER_BROKEN); }

static void on_written(uv_write_t *req, int status)
{
    struct claw_stream *s = req->data;
    struct claw_stream_write *w = s->queue->next;

    CLAW_ASSERT(&w->req == req); /* libuv completes writes in order */
    if (w == s->queue)
        s->queue = NULL;
    else
        s->queue->next = w->next;
    s->queued -= w->n;
    free(w);
    if (s->state >= CLAW_STREAM_CLOSING) return;
    if (status < 0) {
        if (!s->broken) write_failed(s, status);
    } else if (!s->queue && s->want_drain) {
        s->want_drain = false;
        if (s->on->on_drain) s->on->on_drain(s);
    }
}

static int queue_add(struct claw_stream *s, const uv_buf_t *bufs, unsigned n, size_t total, size_t skip)
{
    struct claw_stream_write *w = malloc(sizeof *w + total - skip);

    if (!w) return CLAW_ENOMEM;
    w->n = 0;
    for (unsigned i = 0; i < n; i++) {
        size_t gone = skip < bufs[i].len ? skip : bufs[i].len;
        if (bufs[i].len > gone) memcpy(w->data + w->n, bufs[i].base + gone, bufs[i].len - gone);
        w->n += bufs[i].len - gone;
        skip -= gone;
    }
    uv_buf_t all = uv_buf_init(w->data, (unsigned)w->n);
    w->req.data = s;
    if (uv_write(&w->req, (uv_stream_t *)&s->tcp, &all, 1, on_written) != 0) {
        free(w);
        return CLAW_EIO;
    }
    w->next = s->queue ? s->queue->next : w;
    if (s->queue) s->queue->next = w;
    s->queue = w;
    s->queued += w->n;
    return 0;
}

/* What the kernel takes at once; < 0: libuv's code. */
static int send_at_once(struct claw_stream *s, const uv_buf_t *bufs, unsigned n, size_t total)
{
    uv_buf_t bit = bufs[0];
    char small[SMALL_BYTES], *to = small;

    if (s->loop->slow) {
        if (s->loop->slow < bit.len) bit.len = s->loop->slow;
    } else if (n > 1 && total <= sizeof small) { /* a few bytes in pieces cost the kernel more than the copy does us */
        for (unsigned i = 0; i < n; i++) {
            if (bufs[i].len) memcpy(to, bufs[i].base, bufs[i].len);
            to += bufs[i].len;
        }
        bit = uv_buf_init(small, (unsigned)total);
    } else if (n > 1) {
        return uv_try_write((uv_stream_t *)&s->tcp, bufs, n);
    }
    return uv_try_write((uv_stream_t *)&s->tcp, &bit, 1);
}

int claw_stream_send(struct claw_stream *s, const uv_buf_t *bufs, unsigned n)
{
    size_t total = 0, sent = 0;

    claw_stream_soon_send(s);
    if (s->broken) return CLAW_EIO;
    for (unsigned i = 0; i < n; i++) total += bufs[i].len;
    if (total > INT32_MAX) return CLAW_EINVAL;
    if (total > 0 && !s->queue) {
        int rc = send_at_once(s, bufs, n, total);
        if (rc < 0 && rc != UV_EAGAIN) {
            s->broken = true;
            s->fault = rc;
            s->error = uv_strerror(rc);
            return CLAW_EIO;
        }
        if (rc > 0) sent = (size_t)rc;
    }
    if (sent < total && queue_add(s, bufs, n, total, sent) != 0) {
        s->broken = true;
        s->fault = UV_ENOMEM;
        s->error = claw_err_text(CLAW_ENOMEM);
        return CLAW_EIO;
    }
    return s->queue ? CLAW_EAGAIN : 0;
}

int claw_stream_write(struct claw_stream *s, const uv_buf_t *bufs, unsigned n)
{
    CLAW_ASSERT(s->magic == MAGIC && n <= BUFS_MAX);
    if (s->state >= CLAW_STREAM_FAILED) return CLAW_EIO;
    if (s->state != CLAW_STREAM_OPEN || s->shut) return CLAW_EINVAL;
    int rc = s->tls ? claw_stream_tls_write(s, bufs, n) : claw_stream_send(s, bufs, n);
    if (rc == CLAW_EAGAIN) s->want_drain = true;
    return rc;
}

static void on_shut(uv_shutdown_t *req, int status) { free(req); }

void claw_stream_shutdown(struct claw_stream *s)
{
    if (s->state != CLAW_STREAM_OPEN || s->shut) return;
    claw_stream_soon_send(s);
    if (s->tls) claw_stream_tls_shutdown(s);
    s->shut = true;
    uv_shutdown_t *req = malloc(sizeof *req);
    if (!req || uv_shutdown(req, (uv_stream_t *)&s->tcp, on_shut) != 0) free(req);
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

void claw_stream_opened(struct claw_stream *s)
{
    s->state = CLAW_STREAM_OPEN;
    s->on->on_open(s, 0);
    if (s->state != CLAW_STREAM_OPEN) return;
    if (s->tls)
        claw_stream_tls_pump(s); /* the first data may have come in one piece with the handshake's end */
    else
        claw_stream_set_reading(s);
}

void claw_stream_failed(struct claw_stream *s, int code, const char *why)
{
    if (s->state >= CLAW_STREAM_FAILED) return;
    s->state = CLAW_STREAM_FAILED;
    s->error = why;
    claw_stream_set_reading(s);
    s->on->on_open(s, code);
}

static void on_turned_away(uv_handle_t *h) { free(h); }

/* A connection that cannot be taken must still leave the listener, or libuv never looks at it again. */
static void turn_away(struct claw_loop *l, uv_stream_t *listener)
{
    uv_tcp_t *tcp = malloc(sizeof *tcp);

    if (!tcp) return;
    if (uv_tcp_init(&l->uv, tcp) != 0) {
        free(tcp);
        return;
    }
    (void)!uv_accept(listener, (uv_stream_t *)tcp);
    uv_close((uv_handle_t *)tcp, on_turned_away);
}

int claw_stream_accept(struct claw_stream *s, struct claw_loop *l, uv_stream_t *listener, struct claw_tls_server *tls,
                       const struct claw_stream_events *on, void *arg)
{
    /* Nothing waits: found out before the handle is known to libuv, which could only be taken back by a close. */
    if (listener->accepted_fd == -1) return CLAW_EAGAIN;
    *s = (struct claw_stream){.loop = l, .on = on, .arg = arg};
    int rc = tls ? claw_stream_tls_new(s, tls, NULL, CLAW_STR("")) : 0;
    if (rc != 0) {
        turn_away(l, listener);
        return rc;
    }
    rc = uv_tcp_init(&l->uv, &s->tcp);
    CLAW_ASSERT(rc == 0); /* no socket yet: nothing that can fail */
    uv_tcp_nodelay(&s->tcp, 1);
    rc = uv_accept(listener, (uv_stream_t *)&s->tcp);
    CLAW_ASSERT(rc == 0);
    s->magic = MAGIC;
    if (!tls) {
        claw_stream_opened(s);
        return 0;
    }
    s->state = CLAW_STREAM_HANDSHAKING;
    claw_stream_set_reading(s);
    return 0;
}

static void on_connected(uv_connect_t *req, int status)
{
    struct claw_stream *s = req->data;

    free(req);
    if (s->state != CLAW_STREAM_CONNECTING) return;
    if (status != 0) {
        claw_stream_failed(s, CLAW_ECONNECT, uv_strerror(status));
        return;
    }
    uv_tcp_nodelay(&s->tcp, 1);
    if (!s->tls) {
        claw_stream_opened(s);
        return;
    }
    s->state = CLAW_STREAM_HANDSHAKING;
    claw_stream_tls_drive(s);
}

int claw_stream_connect(struct claw_stream *s, struct claw_loop *l, const struct sockaddr *to,
                        struct claw_tls_client *tls, struct claw_str server_name, const struct claw_stream_events *on,
                        void *arg)
{
    uv_connect_t *req = malloc(sizeof *req);
    int rc = CLAW_ENOMEM;

    *s = (struct claw_stream){.loop = l, .on = on, .arg = arg};
    if (!req) return CLAW_ENOMEM;
    if (tls && (rc = claw_stream_tls_new(s, NULL, tls, server_name)) != 0) goto fail;
    if (uv_tcp_init(&l->uv, &s->tcp) != 0) {
        rc = CLAW_EIO;
        goto fail;
    }
    s->magic = MAGIC;
    s->state = CLAW_STREAM_CONNECTING;
    req->data = s;
    rc = uv_tcp_connect(req, &s->tcp, to, on_connected);
    if (rc != 0) { /* the handle is libuv's until it is closed: told like every other failed connect */
        free(req);
        s->error = uv_strerror(rc);
        later(s, LATER_FAIL);
    }
    return 0;

fail:
    claw_stream_tls_free(s);
    free(req);
    return rc;
}

/* ---- closing ---------------------------------------------------------------------------------------------- */

void claw_stream_finish(struct claw_stream *s)
{
    if (s->state != CLAW_STREAM_CLOSED || s->later.pending || claw_stream_tls_busy(s)) return;
    CLAW_ASSERT(s->magic == MAGIC && !s->queue);
    claw_stream_tls_free(s);
    s->magic = 0;
    s->on->on_close(s);
}

static void on_later(struct claw_deferred *d)
{
    struct claw_stream *s = (struct claw_stream *)((char *)d - offsetof(struct claw_stream, later));
    uint8_t due = s->due;

    s->due = 0;
    if (s->state == CLAW_STREAM_CLOSED) {
        claw_stream_finish(s); /* s is gone */
        return;
    }
    if ((due & LATER_FAIL) && s->state == CLAW_STREAM_CONNECTING)
        claw_stream_failed(s, CLAW_ECONNECT, s->error);
    else if ((due & LATER_PUMP) && s->state == CLAW_STREAM_OPEN)
        claw_stream_tls_pump(s);
    if ((due & LATER_BROKEN) && s->state == CLAW_STREAM_OPEN) write_failed(s, s->fault);
}

static void on_closed(uv_handle_t *h)
{
    struct claw_stream *s = (struct claw_stream *)h;

    s->state = CLAW_STREAM_CLOSED;
    claw_stream_finish(s);
}

static void on_closing(struct claw_lane_ticket *t)
{
    struct claw_stream *s = (struct claw_stream *)((char *)t - offsetof(struct claw_stream, closing));

    uv_close((uv_handle_t *)&s->tcp, on_closed);
}

void claw_stream_close(struct claw_stream *s)
{
    CLAW_ASSERT(s->magic == MAGIC);
    if (s->state >= CLAW_STREAM_CLOSING) return;
    claw_stream_soon_send(s);
    s->state = CLAW_STREAM_CLOSING;
    claw_lane_leave(s->loop, &s->reading);
    claw_stream_tls_cancel(s);
    if (claw_lane_wait(s->loop, &s->loop->closes, &s->closing, on_closing))
        uv_read_stop((uv_stream_t *)&s->tcp);
    else
        uv_close((uv_handle_t *)&s->tcp, on_closed);
}

/* Not uv_tcp_close_reset: it refuses while a shutdown is under way. */
void claw_stream_abort(struct claw_stream *s)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    uv_os_fd_t fd;

    CLAW_ASSERT(s->magic == MAGIC);
    if (s->state >= CLAW_STREAM_CLOSING) return;
    claw_stream_soon_send(s);
    if (uv_fileno((uv_handle_t *)&s->tcp, &fd) == 0) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    claw_stream_close(s);
}

const char *claw_stream_error(const struct claw_stream *s) { return s->error ? s->error : "no error"; }

bool claw_stream_resumed(const struct claw_stream *s) { return claw_stream_tls_resumed(s); }
