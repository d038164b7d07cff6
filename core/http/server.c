/* The client side's connections. States of one:
 *
 *   IDLE --first byte--> HEAD --head--> BODY --done--> FLIGHT --answer's end--> IDLE
 *     any --malformed--> FLIGHT (refused: what else comes is thrown away) --answer's end--> LINGER
 *     answer's end with a body unread, or close_after --> LINGER --the client's FIN, or time--> DEAD
 *
 * LINGER sends FIN first and reads on for a while, so that a reset does not eat the answer (RFC 9112 9.6).
 */
#include "http/server.h"

#include "base/cursor.h"

#include <stdlib.h>
#include <sys/socket.h>

#define SERVER_MAGIC 0x73727672u
#define CONN_MAGIC 0x636f6e6eu
#define PIPELINED_MAX (64u << 10)
#define LINGER_MS 2000u
#define LINGER_BYTES (1u << 20)
#define SLICES_MAX 12u
#define STARVING_MS 50u
#define ENDING_MS 500u
#define WATCH_MS 50u

enum { IDLE, HEAD, BODY, FLIGHT, LINGER, DEAD };

static void take(struct claw_conn *c, const char *data, size_t n);

static struct claw_conn *conn_of(struct claw_stream *s)
{
    struct claw_conn *c = s->arg;
    CLAW_ASSERT(c->magic == CONN_MAGIC);
    return c;
}

static void arm(struct claw_conn *c, unsigned ms)
{
    claw_timer_start(c->server->loop, &c->timer, ms);
}

static void die(struct claw_conn *c, bool reset)
{
    if (c->state == DEAD) return;
    c->state = DEAD;
    claw_timer_stop(c->server->loop, &c->timer);
    claw_timer_stop(c->server->loop, &c->watch);
    if (reset) claw_stream_abort(&c->stream);
    else claw_stream_close(&c->stream);
}

/* The client cannot be served any more: tell the request's owner, once. */
static void gone(struct claw_conn *c, int code)
{
    void *request = c->request;
    die(c, true);
    if (request) {
        c->server->on->on_gone(c, code);
        c->request = NULL;
    }
}

/* The client does not take what was sent, for now. */
static void stall(struct claw_conn *c)
{
    if (c->stalled || c->state == DEAD) return;
    c->stalled = true;
    c->timer_bytes = uv_stream_get_write_queue_size((uv_stream_t *)&c->stream.tcp);
    arm(c, c->server->limits.send_timeout_ms);
}

/* Has the client taken what was sent so far? */
static bool taken(struct claw_conn *c)
{
    if (claw_stream_flush(&c->stream) == CLAW_EAGAIN) stall(c);
    return !c->stalled;
}

/* Who is not read from would not be seen to leave. */
static void stop_reading(struct claw_conn *c)
{
    claw_stream_pause(&c->stream);
    if (!claw_timer_running(&c->watch)) claw_timer_start(c->server->loop, &c->watch, WATCH_MS);
}

static void on_watch_due(struct claw_timer *t)
{
    struct claw_conn *c = t->arg;
    if (!c->stream.paused) return;
    if (c->request && claw_stream_left(&c->stream)) gone(c, CLAW_ECLIENT_GONE);
    else claw_timer_start(c->server->loop, t, WATCH_MS);
}

static void linger(struct claw_conn *c)
{
    bool all = taken(c);
    c->state = LINGER;
    c->lingered = 0;
    claw_buf_clear(&c->pipelined);
    claw_stream_shutdown(&c->stream);
    claw_stream_resume(&c->stream);
    if (all) arm(c, LINGER_MS);
}

static void again_run(struct claw_deferred *d);

static void answer_ended(struct claw_conn *c)
{
    c->request = NULL;
    c->served++;
    if (c->close_after || !c->body_done) {
        linger(c);
        return;
    }
    c->state = IDLE;
    if (!c->stalled) arm(c, c->server->limits.idle_timeout_ms);
    if (claw_buf_size(&c->pipelined)) claw_loop_defer(c->server->loop, &c->again, again_run);
    else if (c->stream.paused) claw_stream_resume(&c->stream); /* its body was not wanted any more */
}

static void refuse(struct claw_conn *c, int code, const char *text)
{
    if (c->replied) { /* the answer is under way; its request turned out to be broken */
        gone(c, CLAW_ECLIENT_GONE);
        return;
    }
    c->close_after = true;
    c->refused = true;
    c->state = FLIGHT;
    claw_timer_stop(c->server->loop, &c->timer);
    c->server->on->on_refused(c, code, text);
}

/* ---- parser events ------------------------------------------------------------------------------------------ */

static int on_head(struct claw_h1 *p, struct claw_head *h)
{
    struct claw_conn *c = p->arg;
    c->state = BODY;
    claw_timer_stop(c->server->loop, &c->timer);
    c->http10 = h->minor == 0;
    c->head_only = claw_str_eqz(h->method, "HEAD");
    if (!h->keep_alive) c->close_after = true;
    c->body_left = h->content_length > 0 ? h->content_length : 0;
    c->server->on->on_head(c, h);
    if (c->state == DEAD || c->refused) return CLAW_ECANCELED;
    return 0;
}

static int on_body(struct claw_h1 *p, const char *data, size_t n)
{
    struct claw_conn *c = p->arg;
    if (c->body_left) c->body_left -= (int64_t)n;
    if (c->request) c->server->on->on_body(c, data, n);
    return c->state == DEAD || c->refused ? CLAW_ECANCELED : 0;
}

static int on_done(struct claw_h1 *p)
{
    struct claw_conn *c = p->arg;
    c->body_done = true;
    if (c->state == LINGER) return 0; /* answered in on_head: FIN has left, its timer runs */
    c->state = FLIGHT;
    claw_timer_stop(c->server->loop, &c->timer);
    if (c->request) c->server->on->on_done(c);
    return c->state == DEAD ? CLAW_ECANCELED : 0;
}

static const struct claw_h1_events parser_events = {on_head, on_body, on_done};

/* ---- bytes in ----------------------------------------------------------------------------------------------- */

static bool begin(struct claw_conn *c)
{
    c->body_done = c->replied = c->chunked = c->refused = c->head_only = c->http10 = c->held = false;
    c->head = (struct claw_str){NULL, 0};
    c->left = 0;
    c->bytes_in = c->bytes_out = 0;
    struct claw_arena *arena = c->server->on->on_begin(c);
    if (!arena) {
        die(c, true);
        return false;
    }
    claw_h1_begin(&c->parser, arena, false);
    c->state = HEAD;
    return true;
}

static void wait_in_line(struct claw_conn *c, const char *data, size_t n)
{
    if (claw_buf_add(&c->pipelined, data, n) != 0) {
        /* More than is kept for a client that does not wait for answers: it is served no further. */
        gone(c, CLAW_ECLIENT_GONE);
        return;
    }
    if (claw_buf_size(&c->pipelined) >= PIPELINED_MAX) stop_reading(c);
}

static void take(struct claw_conn *c, const char *data, size_t n)
{
    if (c->state == IDLE && !begin(c)) return;
    size_t used = 0;
    int rc = claw_h1_feed(&c->parser, data, n, &used);
    c->bytes_in += used;
    if (c->state == DEAD || c->state == LINGER || rc == CLAW_ECANCELED) return; /* LINGER: answered in on_head or on_body */
    if (rc < 0) {
        refuse(c, rc, claw_h1_error(&c->parser));
        return;
    }
    if (c->state == HEAD && !claw_timer_running(&c->timer)) arm(c, c->server->limits.header_timeout_ms);
    if (c->state == BODY && !claw_timer_running(&c->timer)) {
        c->timer_bytes = c->bytes_in;
        arm(c, c->server->limits.body_timeout_ms);
    }
    if (used < n) wait_in_line(c, data + used, n - used);
    if (used < n && c->state == IDLE) claw_loop_defer(c->server->loop, &c->again, again_run);
}

/* The next pipelined request, when the answer before it has left. */
static void again_run(struct claw_deferred *d)
{
    struct claw_conn *c = (struct claw_conn *)((char *)d - offsetof(struct claw_conn, again));
    if (c->state != IDLE || !taken(c) || claw_buf_size(&c->pipelined) == 0) return;
    claw_timer_stop(c->server->loop, &c->timer);
    struct claw_buf waiting = c->pipelined;
    claw_buf_init(&c->pipelined, CLAW_LOOP_READ_BYTES + PIPELINED_MAX);
    struct claw_str s = claw_buf_str(&waiting);
    take(c, s.ptr, s.len);
    claw_buf_fini(&waiting);
    if (c->state != DEAD && claw_buf_size(&c->pipelined) < PIPELINED_MAX) claw_stream_resume(&c->stream);
}

static void on_stream_read(struct claw_stream *s, const char *data, size_t n)
{
    struct claw_conn *c = conn_of(s);
    switch (c->state) {
    case IDLE:
        if (c->stalled || claw_buf_size(&c->pipelined)) {
            wait_in_line(c, data, n);
            return;
        }
        claw_timer_stop(c->server->loop, &c->timer);
        take(c, data, n);
        return;
    case HEAD:
    case BODY: take(c, data, n); return;
    case FLIGHT:
        if (!c->refused) wait_in_line(c, data, n);
        return;
    case LINGER:
        c->lingered += n;
        if (c->lingered > LINGER_BYTES) die(c, true);
        return;
    default: return;
    }
}

#define ROOM_MIN 8192 /* a first read; and a body's rest that is worth reading straight into its place */
static char *on_stream_room(struct claw_stream *s, size_t *n)
{
    struct claw_conn *c = conn_of(s);
    if (!c->server->on_room) return NULL;
    if (c->state == IDLE || c->state == HEAD) { /* the head and a small body; the rest of a large one goes to its place */
        *n = ROOM_MIN;
        return c->server->loop->read_buf;
    }
    if (c->state != BODY || c->body_left < ROOM_MIN || !c->request) return NULL;
    *n = (size_t)c->body_left + 1; /* a read that fills its room makes libuv read again, for nothing */
    return c->server->on_room(c, n);
}

static void on_stream_end(struct claw_stream *s, int code)
{
    struct claw_conn *c = conn_of(s);
    if (c->request) gone(c, CLAW_ECLIENT_GONE);
    else die(c, false);
}

static void on_stream_full(struct claw_stream *s) { stall(conn_of(s)); }

static void on_stream_drain(struct claw_stream *s)
{
    struct claw_conn *c = conn_of(s);
    if (!c->stalled) return; /* a 100 Continue that had to wait */
    c->stalled = false;
    claw_timer_stop(c->server->loop, &c->timer);
    if (c->state == LINGER) {
        arm(c, LINGER_MS);
    } else if (c->state == IDLE) {
        bool last = c->close_after && claw_buf_size(&c->pipelined) == 0; /* draining began meanwhile */
        if (last) {
            linger(c);
            return;
        }
        arm(c, c->server->limits.idle_timeout_ms);
        if (claw_buf_size(&c->pipelined)) claw_loop_defer(c->server->loop, &c->again, again_run);
    } else if (c->request) {
        if (c->state == BODY) { /* the timer was the answer's */
            c->timer_bytes = c->bytes_in;
            arm(c, c->server->limits.body_timeout_ms);
        }
        c->server->on->on_drain(c);
    }
}

/* One timer a connection; what it means follows from the state. */
static void on_due(struct claw_timer *t)
{
    struct claw_conn *c = t->arg;
    const struct claw_server_limits *l = &c->server->limits;
    if (c->stalled) {
        size_t queued = uv_stream_get_write_queue_size((uv_stream_t *)&c->stream.tcp);
        if (queued < c->timer_bytes) {
            c->timer_bytes = queued;
            arm(c, l->send_timeout_ms);
        } else {
            gone(c, CLAW_ESEND_STALL);
        }
        return;
    }
    switch (c->state) {
    case HEAD: refuse(c, CLAW_EHEAD_TIMEOUT, claw_err_text(CLAW_EHEAD_TIMEOUT)); return;
    case BODY:
        if (!c->held && c->bytes_in - c->timer_bytes < (uint64_t)l->body_timeout_ms * 1024 / 1000) {
            refuse(c, CLAW_EBODY_TIMEOUT, claw_err_text(CLAW_EBODY_TIMEOUT));
        } else {
            c->held = c->stream.paused;
            c->timer_bytes = c->bytes_in;
            arm(c, l->body_timeout_ms);
        }
        return;
    default: die(c, false); return;
    }
}

/* ---- bytes out ---------------------------------------------------------------------------------------------- */

static bool without_body(int status) { return status == 204 || status == 304; }

void claw_conn_reply(struct claw_conn *c, int status, struct claw_str head, int64_t length)
{
    CLAW_ASSERT(c->magic == CONN_MAGIC && !c->replied && status >= 200);
    c->replied = true;
    c->head = head;
    if (c->server->draining || !c->body_done) c->close_after = true;
    if (without_body(status)) {
        c->head_only = true;
        c->left = -2;
        return;
    }
    c->left = length;
    if (length < 0 && c->http10) c->close_after = true;
    c->chunked = length < 0 && !c->http10 && !c->head_only;
}

/* content-length, transfer-encoding, connection and the empty line, into at least 96 bytes. */
static size_t framing(const struct claw_conn *c, char *to)
{
    char *at = to;
    if (c->chunked) {
        at = CLAW_CURSOR_PUT(at, "transfer-encoding: chunked\r\n");
    } else if (c->left >= 0) {
        at = CLAW_CURSOR_PUT(claw_cursor_number(CLAW_CURSOR_PUT(at, "content-length: "), (uint64_t)c->left), "\r\n");
    }
    if (c->close_after) at = CLAW_CURSOR_PUT(at, "connection: close\r\n");
    else if (c->http10) at = CLAW_CURSOR_PUT(at, "connection: keep-alive\r\n");
    return (size_t)(CLAW_CURSOR_PUT(at, "\r\n") - to);
}

int claw_conn_send(struct claw_conn *c, const uv_buf_t *bufs, unsigned n, bool end)
{
    CLAW_ASSERT(c->magic == CONN_MAGIC && c->replied && n <= SLICES_MAX);
    if (c->state == DEAD) return CLAW_ECLIENT_GONE;
    uv_buf_t out[SLICES_MAX + 4];
    unsigned k = 0;
    char tail[96], line[24];
    size_t body = 0;
    if (c->head.ptr) {
        out[k++] = uv_buf_init((char *)c->head.ptr, (unsigned)c->head.len);
        out[k++] = uv_buf_init(tail, (unsigned)framing(c, tail));
        c->head.ptr = NULL;
    }
    if (!c->head_only)
        for (unsigned i = 0; i < n; i++) body += bufs[i].len;
    if (body && c->chunked) out[k++] = uv_buf_init(line, (unsigned)claw_h1_chunk_line(line, body));
    if (body)
        for (unsigned i = 0; i < n; i++) out[k++] = bufs[i];
    if (c->chunked && end) {
        static const char last[] = "\r\n0\r\n\r\n";
        out[k++] = uv_buf_init((char *)last + (body ? 0 : 2), body ? 7 : 5);
    } else if (c->chunked && body) {
        out[k++] = uv_buf_init("\r\n", 2);
    }
    if (!c->head_only && !c->chunked && c->left >= 0) {
        CLAW_ASSERT((int64_t)body <= c->left);
        c->left -= (int64_t)body;
        if (end && c->left > 0) { /* short: a client must not take it for complete */
            claw_conn_abort(c);
            return CLAW_ECLIENT_GONE;
        }
    }
    c->bytes_out += body;
    int rc = 0;
    bool last = end && (c->close_after || !c->body_done);
    if (k) rc = last ? claw_stream_write(&c->stream, out, k) : claw_stream_write_soon(&c->stream, out, k);
    if (rc < 0 && rc != CLAW_EAGAIN) {
        if (end) claw_conn_abort(c);
        return CLAW_ECLIENT_GONE;
    }
    if (rc == CLAW_EAGAIN) stall(c);
    if (end) answer_ended(c);
    return rc;
}

void claw_conn_cut(struct claw_conn *c)
{
    c->request = NULL;
    c->close_after = true;
    if (c->state == DEAD) return;
    if (c->chunked || c->left > 0) linger(c);
    else die(c, true);
}

void claw_conn_abort(struct claw_conn *c)
{
    c->request = NULL;
    die(c, true);
}

void claw_conn_continue(struct claw_conn *c)
{
    uv_buf_t b = uv_buf_init("HTTP/1.1 100 Continue\r\n\r\n", 25);
    if (c->state != BODY || c->http10 || c->replied) return;
    int rc = claw_stream_write(&c->stream, &b, 1);
    (void)rc; /* a broken connection shows by its end */
}

void claw_conn_pause(struct claw_conn *c)
{
    c->held = true;
    stop_reading(c);
}

void claw_conn_resume(struct claw_conn *c)
{
    if (claw_buf_size(&c->pipelined) < PIPELINED_MAX) claw_stream_resume(&c->stream);
}

/* ---- connections' beginning and end -------------------------------------------------------------------------- */

static void accept_waiting(struct claw_server *s);

static void on_stream_open(struct claw_stream *s, int code)
{
    struct claw_conn *c = conn_of(s);
    if (code != 0) {
        die(c, true);
        return;
    }
    arm(c, c->server->limits.idle_timeout_ms);
}

static void free_run(struct claw_deferred *d)
{
    free((char *)d - offsetof(struct claw_conn, again));
}

static void on_stream_close(struct claw_stream *s)
{
    struct claw_conn *c = conn_of(s);
    struct claw_server *server = c->server;
    if (c->prev) c->prev->next = c->next;
    else server->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    server->open--;
    if (server->total) (*server->total)--;
    claw_buf_fini(&c->pipelined);
    c->magic = 0;
    if (c->again.pending) c->again.run = free_run; /* the end of this turn still holds it */
    else free(c);
    if (server->starved && server->listening && !server->draining) accept_waiting(server);
    if (server->open == 0) claw_timer_stop(server->loop, &server->ending);
    if (server->draining && !server->listening && server->open == 0 && server->on_empty) server->on_empty(server);
}

static const struct claw_stream_events stream_events = {
    on_stream_open, on_stream_read, on_stream_end, on_stream_drain, on_stream_close, on_stream_full,
};

static void peer_of(struct claw_conn *c)
{
    struct sockaddr_storage a;
    int len = sizeof a;
    if (uv_tcp_getpeername(&c->stream.tcp, (struct sockaddr *)&a, &len) != 0) return;
    if (a.ss_family == AF_INET) uv_ip4_name((struct sockaddr_in *)&a, c->peer, sizeof c->peer);
    else if (a.ss_family == AF_INET6) uv_ip6_name((struct sockaddr_in6 *)&a, c->peer, sizeof c->peer);
    if (strncmp(c->peer, "::ffff:", 7) == 0 && strchr(c->peer, '.')) memmove(c->peer, c->peer + 7, strlen(c->peer + 7) + 1);
}

static void accept_waiting(struct claw_server *s)
{
    if (s->total && *s->total >= s->max_total) {
        s->starved = true;
        claw_timer_start(s->loop, &s->starving, STARVING_MS);
        return;
    }
    s->starved = false;
    struct claw_conn *c = calloc(1, sizeof *c);
    if (!c) {
        s->starved = true;
        claw_timer_start(s->loop, &s->starving, STARVING_MS);
        return;
    }
    c->magic = CONN_MAGIC;
    c->server = s;
    claw_timer_init(&c->timer, on_due, c);
    claw_timer_init(&c->watch, on_watch_due, c);
    claw_buf_init(&c->pipelined, CLAW_LOOP_READ_BYTES + PIPELINED_MAX);
    claw_h1_init(&c->parser, CLAW_H1_REQUEST, &s->limits.h1, &parser_events, c);
    c->next = s->conns;
    if (s->conns) s->conns->prev = c;
    s->conns = c;
    s->open++;
    if (s->total) (*s->total)++;
    int rc = claw_stream_accept(&c->stream, s->loop, (uv_stream_t *)&s->listener, s->tls, &stream_events, c);
    if (rc != 0) {
        s->conns = c->next;
        if (s->conns) s->conns->prev = NULL;
        s->open--;
        if (s->total) (*s->total)--;
        free(c);
        return;
    }
    c->stream.on_room = on_stream_room;
    peer_of(c);
    if (s->tls) arm(c, s->limits.header_timeout_ms);
}

static void on_accepts(struct claw_lane_ticket *t)
{
    accept_waiting((struct claw_server *)((char *)t - offsetof(struct claw_server, accepting)));
}

/* libuv tells of no other connection until this one is taken. */
static void on_connection(uv_stream_t *h, int status)
{
    struct claw_server *s = h->data;
    CLAW_ASSERT(s->magic == SERVER_MAGIC);
    if (status == 0 && !s->accepting.lane && !claw_lane_wait(s->loop, &s->accepts, &s->accepting, on_accepts)) accept_waiting(s);
}

static void on_starving_due(struct claw_timer *t)
{
    struct claw_server *s = t->arg;
    if (s->starved && s->listening && !s->draining) accept_waiting(s);
}

static void on_ending_due(struct claw_timer *t) { claw_server_abort(t->arg); }

/* ---- the listener -------------------------------------------------------------------------------------------- */

static void on_listener_closed(uv_handle_t *h)
{
    struct claw_server *s = h->data;
    s->listening = false;
    if (s->open == 0 && s->on_empty) s->on_empty(s);
}

static int bind_socket(struct claw_server *s, const char *address, uint16_t port)
{
    struct sockaddr_storage a;
    bool six = strchr(address, ':') != NULL;
    int rc = six ? uv_ip6_addr(address, port, (struct sockaddr_in6 *)&a) : uv_ip4_addr(address, port, (struct sockaddr_in *)&a);
    if (rc == 0) rc = uv_tcp_init_ex(&s->loop->uv, &s->listener, six ? AF_INET6 : AF_INET);
    if (rc != 0) return rc;
    s->listener.data = s;
    s->listening = true;
    uv_os_fd_t fd;
    int on = 1;
    rc = uv_fileno((uv_handle_t *)&s->listener, &fd);
    if (rc == 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) rc = UV_EINVAL;
    if (rc == 0) rc = uv_tcp_bind(&s->listener, (struct sockaddr *)&a, 0);
    if (rc == 0) rc = uv_listen((uv_stream_t *)&s->listener, 4096, on_connection);
    return rc;
}

int claw_server_listen(struct claw_server *s, struct claw_loop *l, const char *address, uint16_t port,
                       const struct claw_server_limits *limits, const struct claw_server_events *on, void *arg,
                       const char **why)
{
    s->magic = SERVER_MAGIC;
    s->loop = l;
    s->on = on;
    s->arg = arg;
    s->limits = *limits;
    s->conns = NULL;
    s->open = 0;
    s->listening = s->draining = s->starved = false;
    s->on_empty = NULL;
    claw_timer_init(&s->starving, on_starving_due, s);
    claw_timer_init(&s->ending, on_ending_due, s);
    s->accepts = (struct claw_lane){0};
    s->accepting = (struct claw_lane_ticket){0};
    int rc = bind_socket(s, address, port);
    if (rc == 0) return 0;
    *why = uv_strerror(rc);
    if (s->listening) uv_close((uv_handle_t *)&s->listener, on_listener_closed);
    return CLAW_EIO;
}

uint16_t claw_server_port(const struct claw_server *s)
{
    struct sockaddr_storage a;
    int len = sizeof a;
    if (uv_tcp_getsockname(&s->listener, (struct sockaddr *)&a, &len) != 0) return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
}

void claw_server_set(struct claw_server *s, const struct claw_server_limits *limits, struct claw_tls_server *tls)
{
    s->limits = *limits;
    struct claw_tls_server *old = s->tls;
    s->tls = tls ? claw_tls_server_ref(tls) : NULL;
    if (old) claw_tls_server_unref(old);
}

void claw_server_drain(struct claw_server *s, void (*on_empty)(struct claw_server *s))
{
    s->draining = true;
    s->on_empty = on_empty;
    claw_timer_stop(s->loop, &s->starving);
    claw_lane_leave(s->loop, &s->accepting);
    for (struct claw_conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        c->close_after = true;
        if (c->state == IDLE && taken(c) && !c->again.pending) die(c, false);
    }
    if (s->listening) uv_close((uv_handle_t *)&s->listener, on_listener_closed);
    else if (s->open == 0 && on_empty) on_empty(s);
}

void claw_server_end(struct claw_server *s)
{
    bool again = claw_timer_running(&s->ending);
    for (struct claw_conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (again || c->state != LINGER) gone(c, CLAW_ECLIENT_GONE);
    }
    if (!again && s->open) claw_timer_start(s->loop, &s->ending, ENDING_MS);
}

void claw_server_abort(struct claw_server *s)
{
    for (struct claw_conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        gone(c, CLAW_ECLIENT_GONE);
    }
}
