/* server: one request at a time, its framing, and every way a connection ends. */
#include "http/server.h"

#include "peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct claw_loop loop;
static struct claw_server *server;
static uint16_t port;

/* What the user above the server does, and what it saw. */
static struct {
    void (*on_head)(struct claw_conn *c, struct claw_head *h);
    void (*on_done)(struct claw_conn *c);
    void (*on_refused)(struct claw_conn *c, int code);
    void (*on_drain)(struct claw_conn *c);
    struct claw_conn *conn; /* of the last request */
    struct claw_buf log;    /* "begin head body done …" */
    struct claw_buf body;
    int gone_code;
    unsigned gone, begun, drains, empties;
} app;

struct request {
    struct claw_arena arena;
    struct claw_deferred last;
};

static void free_run(struct claw_deferred *d)
{
    struct request *r = (struct request *)((char *)d - offsetof(struct request, last));
    claw_arena_reset(&r->arena);
    free(r);
}

static void note(const char *what)
{
    assert_int_equal(claw_buf_add_fmt(&app.log, "%s%s", claw_buf_size(&app.log) ? " " : "", what), 0);
}

static struct claw_arena *on_begin(struct claw_conn *c)
{
    struct request *r = calloc(1, sizeof *r);
    assert_null(c->request);
    claw_arena_init(&r->arena, NULL, 0, 1 << 20);
    c->request = r;
    app.conn = c;
    app.begun++;
    note("begin");
    return &r->arena;
}

static void on_head(struct claw_conn *c, struct claw_head *h)
{
    note("head");
    if (app.on_head) app.on_head(c, h);
}

static void on_body(struct claw_conn *c, const char *data, size_t n)
{
    assert_int_equal(claw_buf_add(&app.body, data, n), 0);
}

static void on_done(struct claw_conn *c)
{
    note("done");
    if (app.on_done) app.on_done(c);
}

static void on_refused(struct claw_conn *c, int code, const char *text)
{
    note(claw_err_name(code));
    assert_true(text && *text);
    if (app.on_refused) app.on_refused(c, code);
}

static void forget(struct request *r) { claw_loop_defer(&loop, &r->last, free_run); }

static void on_gone(struct claw_conn *c, int code)
{
    note("gone");
    app.gone++;
    app.gone_code = code;
    forget(c->request);
}

static void on_drain(struct claw_conn *c)
{
    app.drains++;
    if (app.on_drain) app.on_drain(c);
}

static const struct claw_server_events events = {on_begin, on_head, on_body, on_done, on_refused, on_gone, on_drain};

#define IDLE_MS 75000u
#define HEADER_MS 10000u
#define BODY_MS 30000u
#define SEND_MS 20000u
#define LINGER_MS 2000u /* server.c */

static int open_server(void **state)
{
    struct claw_server_limits limits = {
        .h1 = claw_h1_defaults, .idle_timeout_ms = IDLE_MS, .header_timeout_ms = HEADER_MS, .body_timeout_ms = BODY_MS, .send_timeout_ms = SEND_MS,
    };
    const char *why;
    memset(&app, 0, sizeof app);
    claw_buf_init(&app.log, 0);
    claw_buf_init(&app.body, 0);
    if (claw_loop_init(&loop) != 0) return -1;
    server = calloc(1, sizeof *server);
    limits.h1.body_bytes = 1 << 20;
    if (claw_server_listen(server, &loop, "127.0.0.1", 0, &limits, &events, NULL, &why) != 0) return -1;
    port = claw_server_port(server);
    return 0;
}

static void on_empty(struct claw_server *s) { app.empties++; }

static int close_server(void **state)
{
    claw_server_abort(server);
    if (!server->draining) claw_server_drain(server, on_empty);
    UNTIL(&loop, app.empties > 0 && !server->listening && server->open == 0);
    for (int i = 0; i < 3; i++) claw_loop_turn(&loop, false);
    int rc = claw_loop_fini(&loop, true);
    claw_buf_fini(&app.log);
    claw_buf_fini(&app.body);
    free(server);
    return rc;
}

static void settle(void)
{
    for (int i = 0; i < 10; i++) claw_loop_turn(&loop, false);
}

static void assert_log(const char *z)
{
    struct claw_str s = claw_buf_str(&app.log);
    char *text = strndup(s.ptr, s.len);
    assert_string_equal(text, z);
    free(text);
    claw_buf_clear(&app.log);
}

/* Send the head alone or with all of a body, and the end; the request is over then. */
static void reply(struct claw_conn *c, int status, const char *head, int64_t length, const char *body)
{
    uv_buf_t b = uv_buf_init((char *)body, (unsigned)strlen(body));
    struct request *r = c->request;
    claw_conn_reply(c, status, claw_str_of(head), length);
    int rc = claw_conn_send(c, &b, *body ? 1 : 0, true);
    assert_true(rc == 0 || rc == CLAW_EAGAIN || rc == CLAW_ECLIENT_GONE);
    forget(r);
}

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define GET "GET / HTTP/1.1\r\nhost: a\r\n\r\n"

static void say_ok(struct claw_conn *c) { reply(c, 200, OK_HEAD, 2, "ok"); }
static void say_chunked(struct claw_conn *c) { reply(c, 200, OK_HEAD, -1, "ok"); }
static void say_nothing(struct claw_conn *c) { reply(c, 204, "HTTP/1.1 204 No Content\r\n", 7, "ignored"); }
static void say_status(struct claw_conn *c, int code) { reply(c, 400, "HTTP/1.1 400 Bad Request\r\n", 3, "bad"); }

static void assert_in(struct peer *p, const char *z)
{
    UNTIL(&loop, claw_buf_size(&p->in) >= strlen(z) || p->ended);
    struct claw_str s = claw_buf_str(&p->in);
    char *text = strndup(s.ptr, s.len);
    assert_string_equal(text, z);
    free(text);
    claw_buf_clear(&p->in);
}

/* ---- requests ------------------------------------------------------------------------------------------------- */

static void framing_fits_the_request(void **state)
{
    static const struct { void (*on_done)(struct claw_conn *); const char *request, *answer; bool closes; } rows[] = {
        {say_ok, GET, OK_HEAD "content-length: 2\r\n\r\nok", false},
        {say_chunked, GET, OK_HEAD "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
        {say_nothing, GET, "HTTP/1.1 204 No Content\r\n\r\n", false},
        {say_ok, "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", OK_HEAD "content-length: 2\r\n\r\n", false},
        {say_chunked, "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", OK_HEAD "\r\n", false},
        {say_ok, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", OK_HEAD "content-length: 2\r\nconnection: close\r\n\r\nok", true},
        {say_ok, "GET / HTTP/1.0\r\nhost: a\r\n\r\n", OK_HEAD "content-length: 2\r\nconnection: close\r\n\r\nok", true},
        {say_ok, "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", OK_HEAD "content-length: 2\r\nconnection: keep-alive\r\n\r\nok", false},
        {say_chunked, "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", OK_HEAD "connection: close\r\n\r\nok", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peer p;
        app.on_done = rows[i].on_done;
        peer_dial(&p, &loop, port);
        peer_say(&p, rows[i].request);
        assert_in(&p, rows[i].answer);
        if (rows[i].closes) UNTIL(&loop, p.ended);
        settle();
        assert_int_equal(p.ended, rows[i].closes);
        if (rows[i].closes) assert_int_equal(p.end_code, CLAW_OK);
        assert_log("begin head done");
        peer_fini(&p, &loop);
    }
    assert_int_equal(app.gone, 0);
}

static void requests_may_be_split_anywhere(void **state)
{
    static const char text[] = "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" GET;
    struct peer p;
    app.on_done = say_ok;
    peer_dial(&p, &loop, port);
    for (size_t at = 1; at < sizeof text - 1; at++) {
        peer_send(&p, text, at);
        settle();
        peer_send(&p, text + at, sizeof text - 1 - at);
        assert_in(&p, OK_HEAD "content-length: 2\r\n\r\nok" OK_HEAD "content-length: 2\r\n\r\nok");
        assert_log("begin head done begin head done");
        assert_int_equal(claw_buf_size(&app.body), 3);
        claw_buf_clear(&app.body);
    }
    assert_int_equal(server->open, 1);
    peer_fini(&p, &loop);
}

static struct claw_conn *held;
static void hold(struct claw_conn *c) { held = c; }

static void pipelined_requests_wait_their_turn(void **state)
{
    enum { N = 8000 }; /* more than waits at once */
    struct peer p;
    app.on_done = hold;
    peer_dial(&p, &loop, port);
    for (int i = 0; i < N; i++) peer_say(&p, GET);
    UNTIL(&loop, app.begun == 1);
    settle();
    assert_int_equal(app.begun, 1); /* the others wait for the answer */
    assert_true(claw_buf_size(&held->pipelined) <= (128 << 10));
    app.on_done = say_ok;
    say_ok(held);
    size_t one = strlen(OK_HEAD "content-length: 2\r\n\r\nok");
    UNTIL(&loop, claw_buf_size(&p.in) >= N * one);
    settle();
    assert_int_equal(claw_buf_size(&p.in), N * one);
    assert_int_equal(app.begun, N);
    peer_fini(&p, &loop);
}

static void go_on(struct claw_conn *c, struct claw_head *h)
{
    if (h->expect_continue) claw_conn_continue(c);
}

static void expectations_are_answered(void **state)
{
    struct peer p;
    app.on_head = go_on;
    app.on_done = say_ok;
    peer_dial(&p, &loop, port);
    peer_say(&p, "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n");
    assert_in(&p, "HTTP/1.1 100 Continue\r\n\r\n");
    peer_say(&p, "x");
    assert_in(&p, OK_HEAD "content-length: 2\r\n\r\nok");
    peer_fini(&p, &loop);
}

static void what_is_no_request_is_refused(void **state)
{
    static const struct { const char *request, *log; } rows[] = {
        {"GET / HTTP/1.1\r\n\r\n", "begin EBAD_REQUEST"},
        {"GET / HTTP/2.0\r\nhost: a\r\n\r\n", "begin EVERSION"},
        {"\x16\x03\x01", "begin EBAD_REQUEST"},
        {"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n", "begin EBODY_TOO_LARGE"},
        {"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "begin head EBAD_REQUEST"},
    };
    app.on_refused = say_status;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peer p;
        peer_dial(&p, &loop, port);
        peer_say(&p, rows[i].request);
        assert_in(&p, "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad");
        UNTIL(&loop, p.ended);
        assert_int_equal(p.end_code, CLAW_OK); /* FIN first: a reset could eat the answer */
        assert_log(rows[i].log);
        peer_fini(&p, &loop);
    }
    assert_int_equal(app.gone, 0);
}

static void say_early(struct claw_conn *c, struct claw_head *h) { say_status(c, 0); }

/* The answer came before the body was read: FIN, read on a while, then close, whether or not the client does. */
static void early_answers_end_the_connection(void **state)
{
    static const char *const requests[] = {
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n", /* its body comes later */
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",   /* its body came with it */
    };
    app.on_head = say_early;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        struct peer p;
        char *body = calloc(1, 100000);
        peer_dial(&p, &loop, port);
        peer_say(&p, requests[i]);
        if (i == 0) peer_send(&p, body, 100000);
        UNTIL(&loop, p.ended);
        assert_int_equal(p.end_code, CLAW_OK);
        assert_true(peer_ends(&p, "\r\n\r\nbad"));
        assert_int_equal(server->open, 1);
        for (unsigned ms = 0; ms <= LINGER_MS; ms += 100) claw_loop_advance(&loop, 100);
        settle();
        assert_int_equal(server->open, 0);
        peer_fini(&p, &loop);
        free(body);
    }
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

static void silence_has_bounds(void **state)
{
    static const struct { const char *sent; unsigned ms; const char *log; bool answered; } rows[] = {
        {"", IDLE_MS, "", false},
        {GET, IDLE_MS, "begin head done", true},
        {"GET / HT", HEADER_MS, "begin EHEAD_TIMEOUT", true},
        {"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nab", BODY_MS, "begin head EBODY_TIMEOUT", true},
    };
    app.on_done = say_ok;
    app.on_refused = say_status;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peer p;
        peer_dial(&p, &loop, port);
        peer_say(&p, rows[i].sent);
        UNTIL(&loop, server->open == 1 && (!*rows[i].sent || app.conn));
        settle();
        claw_loop_advance(&loop, rows[i].ms - 2 * CLAW_LOOP_TICK_MS);
        settle();
        assert_false(p.ended);
        claw_loop_advance(&loop, 4 * CLAW_LOOP_TICK_MS);
        UNTIL(&loop, p.ended);
        assert_int_equal(claw_buf_size(&p.in) > 0, rows[i].answered);
        assert_log(rows[i].log);
        peer_fini(&p, &loop);
        app.conn = NULL;
        UNTIL(&loop, server->open == 0);
    }
}

/* A byte now and then does not keep a head alive. */
static void a_slow_head_ends(void **state)
{
    struct peer p;
    app.on_refused = say_status;
    peer_dial(&p, &loop, port);
    peer_say(&p, "GET / HTTP/1.1\r\nx: ");
    UNTIL(&loop, app.begun);
    for (unsigned ms = 0; ms < HEADER_MS + 1000 && !p.ended; ms += 1000) {
        peer_say(&p, "y");
        settle();
        claw_loop_advance(&loop, 1000);
        settle();
    }
    assert_true(p.ended);
    assert_log("begin EHEAD_TIMEOUT");
    peer_fini(&p, &loop);
}

static void pause_first(struct claw_conn *c, struct claw_head *h) { if (app.begun == 1) claw_conn_pause(c); }

#define POST_9 "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"

/* A body that nobody takes is not late; when it is taken again its time begins anew. */
static void a_body_that_is_not_taken_has_time(void **state)
{
    struct peer p;
    app.on_head = pause_first;
    app.on_refused = say_status;
    peer_dial(&p, &loop, port);
    peer_say(&p, POST_9);
    UNTIL(&loop, app.conn);
    peer_say(&p, "123");
    for (int i = 0; i < 4; i++) {
        claw_loop_advance(&loop, BODY_MS);
        settle();
    }
    assert_log("begin head");
    assert_int_equal(claw_buf_size(&app.body), 0);
    claw_conn_resume(app.conn);
    UNTIL(&loop, claw_buf_size(&app.body) == 3);
    for (int i = 0; i < 3; i++) {
        claw_loop_advance(&loop, BODY_MS);
        settle();
    }
    UNTIL(&loop, p.ended);
    assert_log("EBODY_TIMEOUT");
    peer_fini(&p, &loop);
}

/* An answer that comes while its body waits, all of it: the next request is read. */
static void an_answer_goes_on_with_the_connection(void **state)
{
    struct peer p;
    app.on_head = pause_first;
    peer_dial(&p, &loop, port);
    peer_say(&p, POST_9 "123456789");
    UNTIL(&loop, app.conn && app.conn->body_done); /* it was read with the head */
    assert_true(app.conn->stream.paused);
    say_ok(app.conn);
    app.on_done = say_ok;
    peer_say(&p, GET);
    assert_in(&p, OK_HEAD "content-length: 2\r\n\r\nok" OK_HEAD "content-length: 2\r\n\r\nok");
    peer_fini(&p, &loop);
}

/* ---- clients that leave, clients that do not read ---------------------------------------------------------------- */

static void who_leaves_is_noticed_once(void **state)
{
    struct peer p;
    app.on_done = hold;
    peer_dial(&p, &loop, port);
    peer_say(&p, GET);
    UNTIL(&loop, app.begun);
    settle();
    peer_fini(&p, &loop);
    UNTIL(&loop, app.gone);
    assert_int_equal(app.gone_code, CLAW_ECLIENT_GONE);
    settle();
    assert_log("begin head done gone");
    assert_int_equal(server->open, 0);
    peer_dial(&p, &loop, port); /* in the midst of a head */
    peer_say(&p, "GET /");
    UNTIL(&loop, app.begun == 2);
    peer_fini(&p, &loop);
    UNTIL(&loop, app.gone == 2);
    peer_dial(&p, &loop, port); /* before any byte: nobody's business */
    settle();
    peer_fini(&p, &loop);
    UNTIL(&loop, server->open == 0);
    assert_int_equal(app.gone, 2);
}

static char block[256 << 10];
static size_t sent_bytes;

/* Send until the socket is full. */
static void pour(struct claw_conn *c)
{
    uv_buf_t b = uv_buf_init(block, sizeof block);
    int rc = 0;
    if (!c->replied) claw_conn_reply(c, 200, CLAW_STR(OK_HEAD), 64 << 20);
    while (rc == 0 && sent_bytes < (64u << 20)) {
        sent_bytes += sizeof block;
        struct request *r = c->request;
        rc = claw_conn_send(c, &b, 1, sent_bytes == (64u << 20));
        assert_true(rc == 0 || rc == CLAW_EAGAIN);
        if (sent_bytes == (64u << 20)) forget(r);
    }
}

static void a_full_socket_is_waited_for(void **state)
{
    struct peer p;
    app.on_done = app.on_drain = pour;
    sent_bytes = 0;
    peer_dial(&p, &loop, port);
    claw_stream_pause(&p.stream);
    peer_say(&p, GET);
    UNTIL(&loop, sent_bytes > 0);
    settle();
    size_t before = sent_bytes;
    settle();
    assert_int_equal(sent_bytes, before);
    assert_true(before < (64u << 20));
    claw_stream_resume(&p.stream);
    UNTIL(&loop, claw_buf_size(&p.in) == (64u << 20) + strlen(OK_HEAD "content-length: 67108864\r\n\r\n"));
    assert_true(app.drains > 0);
    assert_int_equal(app.gone, 0);
    peer_say(&p, GET); /* and the connection goes on */
    app.on_done = say_ok;
    UNTIL(&loop, peer_ends(&p, "\r\n\r\nok"));
    peer_fini(&p, &loop);
}

static void who_does_not_read_is_let_go(void **state)
{
    struct peer p;
    app.on_done = pour;
    sent_bytes = 0;
    peer_dial(&p, &loop, port);
    claw_stream_pause(&p.stream);
    peer_say(&p, GET);
    UNTIL(&loop, sent_bytes > 0);
    settle();
    claw_loop_advance(&loop, SEND_MS - 1000);
    settle();
    assert_int_equal(app.gone, 0);
    for (int i = 0; i < 3; i++) {
        claw_loop_advance(&loop, SEND_MS);
        settle();
    }
    assert_int_equal(app.gone, 1);
    assert_int_equal(app.gone_code, CLAW_ESEND_STALL);
    assert_int_equal(server->open, 0);
    peer_fini(&p, &loop);
}

#define LAST_BYTES (32u << 20)

static void say_the_last(struct claw_conn *c)
{
    struct request *r = c->request;
    char *large = calloc(1, LAST_BYTES);
    uv_buf_t b = uv_buf_init(large, LAST_BYTES);
    claw_conn_reply(c, 200, CLAW_STR(OK_HEAD), LAST_BYTES);
    assert_int_equal(claw_conn_send(c, &b, 1, true), CLAW_EAGAIN);
    forget(r);
    free(large);
}

/* The connection ends with this answer: as long as the client takes some of it within each send timeout, it gets all. */
static void a_slow_reader_of_the_last_answer_gets_it_whole(void **state)
{
    struct peer p;
    app.on_done = say_the_last;
    peer_dial(&p, &loop, port);
    claw_stream_pause(&p.stream);
    peer_say(&p, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    UNTIL(&loop, app.begun == 1);
    settle();
    while (!p.ended) {
        size_t before = claw_buf_size(&p.in);
        claw_stream_resume(&p.stream);
        UNTIL(&loop, p.ended || claw_buf_size(&p.in) > before + (6u << 20));
        claw_stream_pause(&p.stream);
        settle();
        claw_loop_advance(&loop, SEND_MS + 1000);
        settle();
    }
    assert_int_equal(p.end_code, CLAW_OK);
    assert_true(claw_buf_size(&p.in) > LAST_BYTES);
    peer_fini(&p, &loop);
    UNTIL(&loop, server->open == 0);
}

/* ---- answers that are not completed -------------------------------------------------------------------------------- */

static void cut(struct claw_conn *c, int64_t length)
{
    uv_buf_t b = uv_buf_init("abc", 3);
    claw_conn_reply(c, 200, CLAW_STR(OK_HEAD), length);
    assert_int_equal(claw_conn_send(c, &b, 1, false), 0);
    forget(c->request);
    claw_conn_cut(c);
}
static void cut_chunked(struct claw_conn *c) { cut(c, -1); }
static void cut_counted(struct claw_conn *c) { cut(c, 5); }
/* Its user counts wrongly. */
static void end_short(struct claw_conn *c)
{
    uv_buf_t b = uv_buf_init("abc", 3);
    struct request *r = c->request;
    claw_conn_reply(c, 200, CLAW_STR(OK_HEAD), 5);
    assert_int_equal(claw_conn_send(c, &b, 1, true), CLAW_ECLIENT_GONE);
    forget(r);
}
static void abort_it(struct claw_conn *c)
{
    forget(c->request);
    claw_conn_abort(c);
}

static void no_cut_answer_looks_complete(void **state)
{
    static const struct { void (*on_done)(struct claw_conn *); const char *request, *end; int code; } rows[] = {
        {cut_chunked, GET, "3\r\nabc\r\n", CLAW_OK},
        {cut_counted, GET, "content-length: 5\r\n\r\nabc", CLAW_OK},
        {cut_chunked, "GET / HTTP/1.0\r\nhost: a\r\n\r\n", NULL, CLAW_EUPSTREAM_EOF}, /* there FIN is the end */
        {end_short, GET, NULL, CLAW_EUPSTREAM_EOF},
        {abort_it, GET, "", CLAW_EUPSTREAM_EOF},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peer p;
        app.on_done = rows[i].on_done;
        peer_dial(&p, &loop, port);
        peer_say(&p, rows[i].request);
        UNTIL(&loop, p.ended);
        assert_int_equal(p.end_code, rows[i].code);
        if (rows[i].end) assert_true(peer_ends(&p, rows[i].end));
        peer_fini(&p, &loop);
    }
    assert_int_equal(app.gone, 0); /* its user knew */
}

/* ---- the listener ---------------------------------------------------------------------------------------------------- */

static void connections_are_counted(void **state)
{
    struct peer p[3];
    static _Atomic int64_t total;
    total = 0;
    app.on_done = say_ok;
    server->total = &total;
    server->max_total = 2;
    for (int i = 0; i < 3; i++) {
        peer_dial(&p[i], &loop, port); /* the kernel takes the third; nobody serves it */
        peer_say(&p[i], GET);
    }
    UNTIL(&loop, claw_buf_size(&p[0].in) && claw_buf_size(&p[1].in));
    settle();
    assert_int_equal(total, 2);
    assert_int_equal(claw_buf_size(&p[2].in), 0);
    peer_fini(&p[0], &loop);
    UNTIL(&loop, peer_ends(&p[2], "ok")); /* a place is free */
    assert_int_equal(total, 2);
    peer_fini(&p[1], &loop);
    peer_fini(&p[2], &loop);
    UNTIL(&loop, total == 0);
}

static void draining_lets_answers_end(void **state)
{
    struct peer idle, busy;
    app.on_done = hold;
    peer_dial(&idle, &loop, port);
    peer_dial(&busy, &loop, port);
    peer_say(&busy, GET);
    UNTIL(&loop, app.begun == 1 && server->open == 2);
    claw_server_drain(server, on_empty);
    UNTIL(&loop, idle.ended);
    settle();
    assert_int_equal(app.empties, 0);
    assert_false(busy.ended);
    say_ok(held);
    UNTIL(&loop, busy.ended);
    assert_in(&busy, OK_HEAD "content-length: 2\r\nconnection: close\r\n\r\nok");
    peer_fini(&busy, &loop);
    UNTIL(&loop, app.empties);
    settle();
    assert_int_equal(app.empties, 1);
    peer_fini(&idle, &loop);
}

static void draining_without_connections_ends_too(void **state)
{
    claw_server_drain(server, on_empty);
    UNTIL(&loop, app.empties);
    settle();
    assert_int_equal(app.empties, 1);
}

/* Drained and aborted in one turn: the last connection closes while the listener still does. */
static void empty_is_told_once_and_last(void **state)
{
    struct peer p;
    app.on_done = hold;
    peer_dial(&p, &loop, port);
    peer_say(&p, GET);
    UNTIL(&loop, app.begun);
    claw_server_drain(server, on_empty);
    claw_server_abort(server);
    while (!app.empties) claw_loop_turn(&loop, true);
    assert_false(server->listening);
    settle();
    assert_int_equal(app.empties, 1);
    assert_int_equal(app.gone, 1);
    peer_fini(&p, &loop);
}

/* At the end an answer that was sent has a moment to leave, whether or not its client closes; who has none is cut at once. */
static void what_was_sent_may_leave(void **state)
{
    for (int again = 0; again < 2; again++) {
        struct peer told, untold;
        app.on_head = say_early;
        peer_dial(&told, &loop, port);
        peer_say(&told, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n");
        UNTIL(&loop, told.ended);
        app.on_head = NULL;
        app.on_done = hold;
        app.begun = app.gone = 0;
        peer_dial(&untold, &loop, port);
        peer_say(&untold, GET);
        UNTIL(&loop, app.begun);
        claw_server_end(server);
        assert_int_equal(app.gone, 1);
        UNTIL(&loop, untold.ended);
        assert_int_equal(server->open, 1);
        if (again) claw_server_end(server);
        else claw_loop_advance(&loop, 600);
        UNTIL(&loop, server->open == 0);
        assert_true(peer_ends(&told, "\r\n\r\nbad"));
        peer_fini(&told, &loop);
        peer_fini(&untold, &loop);
    }
}

#define MANY (5 * CLAW_LANE_A_TURN + 8)

/* By sockets that do not need the loop: the kernel has them all before the server sees one. */
static void dial_many(int *fds)
{
    struct sockaddr_in to;
    assert_int_equal(uv_ip4_addr("127.0.0.1", port, &to), 0);
    for (unsigned i = 0; i < MANY; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&to, sizeof to), 0);
    }
}

static void many_are_taken_in_turns(void **state)
{
    int fds[MANY];
    dial_many(fds);
    uint64_t start = loop.turn;
    while (server->open < MANY) {
        claw_loop_turn(&loop, true);
        assert_true(server->open <= CLAW_LANE_A_TURN * (loop.turn - start + 1));
    }
    for (unsigned i = 0; i < MANY; i++) assert_int_equal(send(fds[i], GET, strlen(GET), 0), strlen(GET));
    app.on_done = say_ok;
    UNTIL(&loop, app.begun == MANY);
    for (unsigned i = 0; i < MANY; i++) close(fds[i]);
    UNTIL(&loop, server->open == 0);
}

static void draining_while_some_wait_to_be_taken(void **state)
{
    int fds[MANY];
    dial_many(fds);
    UNTIL(&loop, server->open > 0);
    assert_non_null(server->accepting.lane);
    claw_server_drain(server, on_empty);
    assert_null(server->accepting.lane);
    UNTIL(&loop, app.empties);
    assert_int_equal(app.empties, 1);
    for (unsigned i = 0; i < MANY; i++) close(fds[i]);
}

static void two_may_share_a_port(void **state)
{
    struct claw_server *other = calloc(1, sizeof *other);
    const char *why = "";
    assert_int_equal(claw_server_listen(other, &loop, "127.0.0.1", port, &server->limits, &events, NULL, &why), 0);
    claw_server_drain(other, on_empty);
    UNTIL(&loop, app.empties);
    free(other);
    app.empties = 0;
    other = calloc(1, sizeof *other);
    assert_int_equal(claw_server_listen(other, &loop, "not an address", 1, &server->limits, &events, NULL, &why), CLAW_EIO);
    assert_true(*why);
    settle();
    free(other);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_server, close_server)

int main(void)
{
    alarm(PEER_ALARM_S);
    const struct CMUnitTest tests[] = {
        TEST(framing_fits_the_request),
        TEST(requests_may_be_split_anywhere),
        TEST(pipelined_requests_wait_their_turn),
        TEST(expectations_are_answered),
        TEST(what_is_no_request_is_refused),
        TEST(early_answers_end_the_connection),
        TEST(silence_has_bounds),
        TEST(a_slow_head_ends),
        TEST(a_body_that_is_not_taken_has_time),
        TEST(an_answer_goes_on_with_the_connection),
        TEST(who_leaves_is_noticed_once),
        TEST(a_full_socket_is_waited_for),
        TEST(who_does_not_read_is_let_go), TEST(a_slow_reader_of_the_last_answer_gets_it_whole),
        TEST(no_cut_answer_looks_complete),
        TEST(connections_are_counted),
        TEST(draining_lets_answers_end),
        TEST(draining_without_connections_ends_too),
        TEST(empty_is_told_once_and_last),
        TEST(two_may_share_a_port),
        TEST(many_are_taken_in_turns),
        TEST(draining_while_some_wait_to_be_taken),
        TEST(what_was_sent_may_leave),
    };
    return cmocka_run_group_tests_name("http/server", tests, NULL, NULL);
}
