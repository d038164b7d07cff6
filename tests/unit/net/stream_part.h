/* stream: two ends of a connection and what happened to them, plain or over TLS. */
#ifndef CLAW_TEST_STREAM_PART_H
#define CLAW_TEST_STREAM_PART_H

#include "net/stream.h"

#include "unit/net/certs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const files[] = {"ca", "good", "old", NULL};
static struct claw_loop loop;
static struct claw_tls_server *tls_server;

/* One end of a connection and what happened to it. */
struct end {
    struct claw_stream s;
    int opens, open_code, ends, end_code, drains, fulls, closes, reads;
    char *got;
    size_t got_n;
    bool used;
    enum { NOWHERE, IN_OPEN, IN_READ, IN_END, IN_DRAIN } close_in, pause_in;
    bool abort;
    const char *greeting; /* written in on_open */
};

static inline void react(struct end *e, int where)
{
    if (e->pause_in == (unsigned)where) claw_stream_pause(&e->s);
    if (e->close_in != (unsigned)where) return;
    claw_stream_pause(&e->s);
    claw_stream_resume(&e->s); /* leaves something for the end of the turn, behind the close */
    if (e->abort)
        claw_stream_abort(&e->s);
    else
        claw_stream_close(&e->s);
    claw_stream_close(&e->s); /* once more does nothing */
    assert_int_equal(e->closes, 0);
}

static inline struct end *end_of(struct claw_stream *s) { return s->arg; }

static inline void on_open(struct claw_stream *s, int code)
{
    struct end *e = end_of(s);
    assert_int_equal(e->closes, 0);
    e->opens++;
    e->open_code = code;
    if (code == 0 && e->greeting) {
        uv_buf_t b = uv_buf_init((char *)e->greeting, (unsigned)strlen(e->greeting));
        assert_int_equal(claw_stream_write(s, &b, 1), 0);
    }
    react(e, IN_OPEN);
}

static inline void on_read(struct claw_stream *s, const char *data, size_t n)
{
    struct end *e = end_of(s);
    assert_true(e->opens == 1 && e->ends == 0 && e->closes == 0 && n > 0);
    assert_false(s->paused);
    assert_true(s->state == 3);
    e->reads++;
    e->got = realloc(e->got, e->got_n + n);
    memcpy(e->got + e->got_n, data, n);
    e->got_n += n;
    react(e, IN_READ);
}

static inline void on_end(struct claw_stream *s, int code)
{
    struct end *e = end_of(s);
    assert_true(e->opens == 1 && e->ends == 0 && e->closes == 0);
    e->ends++;
    e->end_code = code;
    react(e, IN_END);
}

static inline void on_drain(struct claw_stream *s)
{
    struct end *e = end_of(s);
    assert_int_equal(e->closes, 0);
    e->drains++;
    react(e, IN_DRAIN);
}

static inline void on_close(struct claw_stream *s)
{
    struct end *e = end_of(s);
    e->closes++;
    memset(s, 0xdd, sizeof *s); /* the memory is ours again */
}

static inline void on_full(struct claw_stream *s) { end_of(s)->fulls++; }

static const struct claw_stream_events events = {on_open, on_read, on_end, on_drain, on_close, on_full};

static inline void on_shut_handle(uv_handle_t *h) { free(h); }

/* A listener that accepts into `next`. */
static uv_tcp_t *listener;
static struct sockaddr_in address;
static struct end *next;
static bool next_tls;

static inline void on_connection(uv_stream_t *l, int status)
{
    assert_int_equal(status, 0);
    assert_non_null(next);
    struct end *e = next;
    next = NULL;
    e->used = true;
    assert_int_equal(claw_stream_accept(&e->s, &loop, l, next_tls ? tls_server : NULL, &events, e), 0);
    if (!next_tls) assert_int_equal(e->opens, 1);
}

static inline void listen_start(void)
{
    int n = sizeof address;

    listener = malloc(sizeof *listener);
    uv_tcp_init(&loop.uv, listener);
    uv_ip4_addr("127.0.0.1", 0, &address);
    assert_int_equal(uv_tcp_bind(listener, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)listener, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(listener, (struct sockaddr *)&address, &n), 0);
}

static inline int start(void **state)
{
    assert_int_equal(claw_loop_init(&loop), 0);
    listen_start();
    return 0;
}

/* Every test ends with every handle closed. */
static inline int stop(void **state)
{
    uv_close((uv_handle_t *)listener, on_shut_handle);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    return 0;
}

#define UNTIL(cond) \
    while (!(cond)) claw_loop_turn(&loop, true)

static inline void connect_end(struct end *e, struct claw_tls_client *c, const char *name)
{
    e->used = true;
    int rc = claw_stream_connect(&e->s, &loop, (struct sockaddr *)&address, c, claw_str_of(name), &events, e);
    assert_int_equal(rc, 0);
    assert_int_equal(e->opens, 0);
}

static inline void pair_open(struct end *a, struct end *b, struct claw_tls_client *c)
{
    next = b;
    next_tls = c != NULL;
    connect_end(a, c, "api.example.com");
    UNTIL(a->opens && b->opens);
    if (a->open_code != 0) fail_msg("%s", claw_stream_error(&a->s));
    assert_int_equal(b->open_code, 0);
}

static inline void end_close(struct end *e)
{
    if (!e->used) return;
    if (!e->closes) {
        claw_stream_close(&e->s);
        UNTIL(e->closes);
    }
    assert_int_equal(e->closes, 1);
    free(e->got);
    *e = (struct end){0};
}

static inline int write_z(struct end *e, const char *z)
{
    uv_buf_t b = uv_buf_init((char *)z, (unsigned)strlen(z));
    return claw_stream_write(&e->s, &b, 1);
}

static inline void assert_got(const struct end *e, const char *z)
{
    assert_int_equal(e->got_n, strlen(z));
    assert_memory_equal(e->got, z, e->got_n);
}

static inline struct claw_tls_client *client_new(void)
{
    struct claw_tls_client *c;
    char err[256];

    assert_int_equal(claw_tls_client_new(certs_path("ca.pem"), true, &c, err, sizeof err), 0);
    return c;
}

/* A plain socket on the other side, for what a stream does not do by itself. */
static inline int raw_connect(struct end *b, bool tls)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    next = b;
    next_tls = tls;
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    UNTIL(!next);
    return fd;
}

static inline void raw_reset(int fd)
{
    struct linger now = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static inline int start_group(void **state)
{
    char err[256];

    certs_start();
    certs_add(&(struct certs_spec){.file = "good", .cn = "good", .dns = "api.example.com"});
    return claw_tls_server_new(certs_path("good.pem"), certs_path("good.key"), NULL, &tls_server, err, sizeof err);
}

static inline int stop_group(void **state)
{
    claw_tls_server_unref(tls_server);
    certs_remove(files);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

#endif
