#include "net/offload.h"
#include "net/stream.h"

#include "unit/net/certs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const files[] = {"ca", "good", "old", NULL};
static struct claw_loop loop;
static struct claw_tls_server *tls_server;

/* One end of a connection and what happened to it. */
struct end {
    struct claw_stream s;
    int opens, open_code, ends, end_code, drains, closes, reads;
    char *got;
    size_t got_n;
    bool used;
    enum { NOWHERE, IN_OPEN, IN_READ, IN_END, IN_DRAIN } close_in, pause_in;
    bool abort;
    const char *greeting; /* written in on_open */
};

static void react(struct end *e, int where)
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

static struct end *end_of(struct claw_stream *s) { return s->arg; }

static void on_open(struct claw_stream *s, int code)
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

static void on_read(struct claw_stream *s, const char *data, size_t n)
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

static void on_end(struct claw_stream *s, int code)
{
    struct end *e = end_of(s);
    assert_true(e->opens == 1 && e->ends == 0 && e->closes == 0);
    e->ends++;
    e->end_code = code;
    react(e, IN_END);
}

static void on_drain(struct claw_stream *s)
{
    struct end *e = end_of(s);
    assert_int_equal(e->closes, 0);
    e->drains++;
    react(e, IN_DRAIN);
}

static void on_close(struct claw_stream *s)
{
    struct end *e = end_of(s);
    e->closes++;
    memset(s, 0xdd, sizeof *s); /* the memory is ours again */
}

static const struct claw_stream_events events = {on_open, on_read, on_end, on_drain, on_close};

static void on_shut_handle(uv_handle_t *h) { free(h); }

/* A listener that accepts into `next`. */
static uv_tcp_t *listener;
static struct sockaddr_in address;
static struct end *next;
static bool next_tls;

static void on_connection(uv_stream_t *l, int status)
{
    assert_int_equal(status, 0);
    assert_non_null(next);
    struct end *e = next;
    next = NULL;
    e->used = true;
    assert_int_equal(claw_stream_accept(&e->s, &loop, l, next_tls ? tls_server : NULL, &events, e), 0);
    if (!next_tls) assert_int_equal(e->opens, 1);
}

static void listen_start(void)
{
    int n = sizeof address;

    listener = malloc(sizeof *listener);
    uv_tcp_init(&loop.uv, listener);
    uv_ip4_addr("127.0.0.1", 0, &address);
    assert_int_equal(uv_tcp_bind(listener, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)listener, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(listener, (struct sockaddr *)&address, &n), 0);
}

static int start(void **state)
{
    assert_int_equal(claw_loop_init(&loop), 0);
    listen_start();
    return 0;
}

/* Every test ends with every handle closed. */
static int stop(void **state)
{
    uv_close((uv_handle_t *)listener, on_shut_handle);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    return 0;
}

#define UNTIL(cond) \
    while (!(cond)) claw_loop_turn(&loop, true)

static void connect_end(struct end *e, struct claw_tls_client *c, const char *name)
{
    e->used = true;
    int rc = claw_stream_connect(&e->s, &loop, (struct sockaddr *)&address, c, claw_str_of(name), &events, e);
    assert_int_equal(rc, 0);
    assert_int_equal(e->opens, 0);
}

static void pair_open(struct end *a, struct end *b, struct claw_tls_client *c)
{
    next = b;
    next_tls = c != NULL;
    connect_end(a, c, "api.example.com");
    UNTIL(a->opens && b->opens);
    if (a->open_code != 0) fail_msg("%s", claw_stream_error(&a->s));
    assert_int_equal(b->open_code, 0);
}

static void end_close(struct end *e)
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

static int write_z(struct end *e, const char *z)
{
    uv_buf_t b = uv_buf_init((char *)z, (unsigned)strlen(z));
    return claw_stream_write(&e->s, &b, 1);
}

static void assert_got(const struct end *e, const char *z)
{
    assert_int_equal(e->got_n, strlen(z));
    assert_memory_equal(e->got, z, e->got_n);
}

static struct claw_tls_client *client_new(void)
{
    struct claw_tls_client *c;
    char err[256];

    assert_int_equal(claw_tls_client_new(certs_path("ca.pem"), true, &c, err, sizeof err), 0);
    return c;
}

/* A plain socket on the other side, for what a stream does not do by itself. */
static int raw_connect(struct end *b, bool tls)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    next = b;
    next_tls = tls;
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    UNTIL(!next);
    return fd;
}

static void raw_reset(int fd)
{
    struct linger now = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

/* ---- both kinds ------------------------------------------------------------------------------------------- */

static void talk(struct claw_tls_client *c)
{
    struct end a = {0}, b = {0};
    uv_buf_t parts[3] = {uv_buf_init((char *)"one ", 4), uv_buf_init(NULL, 0), uv_buf_init((char *)"two", 3)};

    pair_open(&a, &b, c);
    assert_int_equal(claw_stream_write(&a.s, parts, 3), 0);
    UNTIL(b.got_n == 7);
    assert_got(&b, "one two");
    assert_int_equal(write_z(&b, "back"), 0);
    UNTIL(a.got_n == 4);
    claw_stream_shutdown(&a.s);
    claw_stream_shutdown(&a.s);
    assert_int_equal(write_z(&a, "late"), CLAW_EINVAL);
    UNTIL(b.ends);
    assert_int_equal(b.end_code, CLAW_OK);
    assert_int_equal(a.ends, 0);
    assert_int_equal(write_z(&b, "!"), 0); /* half closed: the other way is open */
    UNTIL(a.got_n == 5);
    assert_got(&a, "back!");
    claw_stream_shutdown(&b.s);
    UNTIL(a.ends);
    assert_int_equal(a.end_code, CLAW_OK);
    end_close(&a);
    end_close(&b);
}

static void plain_talk(void **state) { talk(NULL); }

static void tls_talk(void **state)
{
    struct claw_tls_client *c = client_new();
    uint64_t all, resumed;

    for (int i = 0; i < 3; i++) {
        uint64_t before = claw_offload_started();
        talk(c);
        uint64_t pooled = claw_offload_started() - before;
        if (i == 0) /* the client once or more, as its bytes come in; the server's two flights */
            assert_true(pooled >= 3);
        else /* a resumed handshake is light work, but for the server's look at the ticket */
            assert_int_equal(pooled, 1);
    }
    claw_tls_client_counts(c, &all, &resumed);
    assert_int_equal(all, 3);
    assert_int_equal(resumed, 2);
    claw_tls_client_unref(c);
}

/* The reader is paused: writes go on until CLAW_EAGAIN, then no more; on_drain comes once all is sent. */
static void backpressure(struct claw_tls_client *c)
{
    enum { CHUNK = 50000 };
    struct end a = {0}, b = {.pause_in = IN_OPEN};
    static char chunk[CHUNK];
    size_t sent = 0;
    int rc = 0;

    for (unsigned i = 0; i < CHUNK; i++) chunk[i] = (char)(i * 7);
    pair_open(&a, &b, c);
    while (rc == 0) {
        uv_buf_t buf = uv_buf_init(chunk, CHUNK);
        rc = claw_stream_write(&a.s, &buf, 1);
        sent += CHUNK;
        assert_true(sent < 64u << 20);
    }
    assert_int_equal(rc, CLAW_EAGAIN);
    size_t queued = claw_stream_queued(&a.s);
    assert_true(queued > 0 && queued <= CHUNK + 1000);
    assert_int_equal(write_z(&a, "tail"), CLAW_EAGAIN); /* goes behind what waits */
    assert_true(claw_stream_queued(&a.s) >= queued + 4);
    claw_stream_shutdown(&a.s); /* after everything */
    for (int i = 0; i < 5; i++) claw_loop_turn(&loop, false);
    assert_int_equal(b.reads, 0);
    assert_int_equal(a.drains, 0);
    b.pause_in = NOWHERE;
    claw_stream_resume(&b.s);
    UNTIL(b.ends);
    assert_int_equal(b.end_code, CLAW_OK);
    assert_int_equal(a.drains, 1);
    assert_int_equal(claw_stream_queued(&a.s), 0);
    assert_int_equal(b.got_n, sent + 4);
    for (size_t i = 0; i < sent; i += 997) assert_int_equal((unsigned char)b.got[i], (unsigned char)(i % CHUNK * 7));
    assert_memory_equal(b.got + sent, "tail", 4);
    end_close(&a);
    end_close(&b);
}

static void plain_backpressure(void **state) { backpressure(NULL); }

static void tls_backpressure(void **state)
{
    struct claw_tls_client *c = client_new();
    backpressure(c);
    claw_tls_client_unref(c);
}

/* Paused in the first on_read: nothing more comes until resume, and nothing is lost. Under TLS several records
 * were decrypted or wait in the engine. */
static void pausing(struct claw_tls_client *c)
{
    struct end a = {0}, b = {.pause_in = IN_READ};
    static char big[200000];
    uv_buf_t buf = uv_buf_init(big, sizeof big);

    for (size_t i = 0; i < sizeof big; i++) big[i] = (char)(i ^ (i >> 9));
    pair_open(&a, &b, c);
    assert_true(claw_stream_write(&a.s, &buf, 1) <= 0);
    int turns = 0;
    while (b.got_n < sizeof big) {
        UNTIL(b.reads > 0);
        int reads = b.reads;
        assert_int_equal(reads, 1);
        for (int i = 0; i < 3; i++) claw_loop_turn(&loop, false);
        assert_int_equal(b.reads, reads);
        b.reads = 0;
        claw_stream_resume(&b.s);
        claw_stream_pause(&b.s); /* thinking again: still paused */
        for (int i = 0; i < 3; i++) claw_loop_turn(&loop, false);
        assert_int_equal(b.reads, 0);
        claw_stream_resume(&b.s);
        assert_int_equal(b.reads, 0); /* never from within resume */
        assert_true(turns++ < 1000);
    }
    assert_memory_equal(b.got, big, sizeof big);
    claw_stream_shutdown(&a.s);
    UNTIL(b.ends);
    assert_int_equal(b.end_code, CLAW_OK);
    end_close(&a);
    end_close(&b);
}

static void plain_pausing(void **state) { pausing(NULL); }

static void tls_pausing(void **state)
{
    struct claw_tls_client *c = client_new();
    pausing(c);
    claw_tls_client_unref(c);
}

/* Close or abort within each callback; no other callback may come after it. */
static void close_everywhere(struct claw_tls_client *c)
{
    for (int where = IN_OPEN; where <= IN_DRAIN; where++) {
        for (int how = 0; how < 4; how++) {
            struct end a = {0}, b = {0}, *closer = how & 1 ? &a : &b, *other = how & 1 ? &b : &a;
            static char big[8u << 20];
            closer->close_in = (unsigned)where;
            closer->abort = how & 2;
            next = &b;
            next_tls = c != NULL;
            connect_end(&a, c, "api.example.com");
            while (!closer->closes) {
                if (where == IN_READ && other->opens && other->got_n == 0 && closer->opens) {
                    (void)!write_z(other, "data");
                } else if (where == IN_END && other->opens && closer->opens) {
                    claw_stream_shutdown(&other->s);
                } else if (where == IN_DRAIN && closer->opens && claw_stream_queued(&closer->s) == 0) {
                    uv_buf_t buf = uv_buf_init(big, sizeof big);
                    (void)!claw_stream_write(&closer->s, &buf, 1);
                }
                claw_loop_turn(&loop, true);
            }
            assert_int_equal(closer->closes, 1);
            UNTIL(next == NULL);
            if (other->used) UNTIL(other->ends || (other->opens && other->open_code));
            if (closer->abort && where != IN_OPEN) assert_int_equal(other->end_code, CLAW_EUPSTREAM_EOF);
            end_close(&a);
            end_close(&b);
        }
    }
}

static void plain_close_everywhere(void **state) { close_everywhere(NULL); }

static void tls_close_everywhere(void **state)
{
    struct claw_tls_client *c = client_new();
    close_everywhere(c);
    claw_tls_client_unref(c);
}

/* ---- plain ------------------------------------------------------------------------------------------------ */

static void reset_is_no_clean_end(void **state)
{
    struct end b = {0};

    int fd = raw_connect(&b, false);
    assert_int_equal(send(fd, "part", 4, 0), 4);
    UNTIL(b.got_n == 4);
    raw_reset(fd);
    UNTIL(b.ends);
    assert_int_equal(b.end_code, CLAW_EUPSTREAM_EOF);
    assert_string_equal(claw_stream_error(&b.s), "connection reset by peer");
    end_close(&b);

    fd = raw_connect(&b, false);
    close(fd);
    UNTIL(b.ends);
    assert_int_equal(b.end_code, CLAW_OK);
    end_close(&b);
}

/* Data and reset are met in one wake-up: libuv calls that an EOF. */
static void reset_behind_data(void **state)
{
    struct end b = {0};

    int fd = raw_connect(&b, false);
    claw_stream_pause(&b.s);
    assert_int_equal(send(fd, "part", 4, 0), 4);
    raw_reset(fd);
    claw_stream_resume(&b.s);
    UNTIL(b.ends);
    assert_int_equal(b.end_code, CLAW_EUPSTREAM_EOF);
    end_close(&b);
}

/* The write meets the reset first and takes the socket's error; what is read then looks like a FIN. */
static void a_write_that_meets_the_reset(void **state)
{
    struct end b = {.pause_in = IN_OPEN};

    int fd = raw_connect(&b, false);
    raw_reset(fd);
    int rc = 0;
    for (int i = 0; i < 1000 && rc == 0; i++) rc = write_z(&b, "x");
    assert_int_equal(rc, CLAW_EIO);
    assert_int_equal(write_z(&b, "x"), CLAW_EIO);
    assert_int_equal(b.ends, 0);
    b.pause_in = NOWHERE;
    claw_stream_resume(&b.s);
    UNTIL(b.ends);
    assert_int_equal(b.end_code, CLAW_EUPSTREAM_EOF);
    end_close(&b);
}

/* What is queued fails while the user waits for on_drain: told, whether it reads, is paused, or had the end. */
static void a_queue_that_meets_the_reset(void **state)
{
    static char big[8u << 20];

    for (int how = 0; how < 3; how++) {
        struct end b = {0};
        uv_buf_t buf = uv_buf_init(big, sizeof big);
        int fd = raw_connect(&b, false);
        if (how == 2) {
            shutdown(fd, SHUT_WR);
            UNTIL(b.ends);
        }
        assert_int_equal(claw_stream_write(&b.s, &buf, 1), CLAW_EAGAIN);
        if (how == 1) claw_stream_pause(&b.s);
        raw_reset(fd);
        UNTIL(how == 2 ? b.drains : b.ends);
        if (how < 2) assert_int_equal(b.end_code, CLAW_EUPSTREAM_EOF);
        assert_int_equal(write_z(&b, "x"), CLAW_EIO);
        end_close(&b);
    }
}

static void abort_resets(void **state)
{
    for (int shut = 0; shut < 2; shut++) {
        struct end b = {0};
        char c;
        int fd = raw_connect(&b, false);
        if (shut) {
            static char big[8u << 20]; /* the shutdown waits for the queue, the abort does not */
            uv_buf_t buf = uv_buf_init(big, sizeof big);
            assert_int_equal(claw_stream_write(&b.s, &buf, 1), CLAW_EAGAIN);
            claw_stream_shutdown(&b.s);
        }
        claw_stream_abort(&b.s);
        UNTIL(b.closes);
        ssize_t n;
        while ((n = recv(fd, &c, 1, 0)) > 0) continue;
        assert_int_equal(n, -1);
        assert_int_equal(errno, ECONNRESET);
        close(fd);
        end_close(&b);
    }
}

static int write_soon_z(struct end *e, const char *z)
{
    uv_buf_t b[2] = {uv_buf_init((char *)z, 1), uv_buf_init((char *)z + 1, (unsigned)strlen(z) - 1)};
    return claw_stream_write_soon(&e->s, b, 2);
}

static bool has_come(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Small writes leave at the end of the turn, or before whatever else is done to the stream. */
static void soon_is_the_turns_end(void **state)
{
    struct end a = {0}, b = {0};
    char got[8];

    int fd = raw_connect(&b, false);
    assert_int_equal(write_soon_z(&b, "one"), 0);
    assert_int_equal(claw_stream_queued(&b.s), 3);
    assert_false(has_come(fd));
    claw_loop_turn(&loop, false);
    assert_int_equal(claw_stream_queued(&b.s), 0);
    assert_int_equal(recv(fd, got, sizeof got, 0), 3);
    assert_memory_equal(got, "one", 3);
    assert_int_equal(write_soon_z(&b, "two"), 0);
    assert_int_equal(write_z(&b, "3"), 0); /* both at once, the loop was not asked */
    assert_int_equal(recv(fd, got, 4, MSG_WAITALL), 4);
    assert_memory_equal(got, "two3", 4);
    assert_int_equal(write_soon_z(&b, "45"), 0);
    assert_int_equal(write_soon_z(&b, "67"), 0);
    assert_int_equal(recv(fd, got, 4, MSG_WAITALL), 4);
    assert_memory_equal(got, "4567", 4);
    assert_int_equal(write_soon_z(&b, "lost"), 0);
    claw_stream_abort(&b.s);
    end_close(&b);
    close(fd);

    for (int shut = 0; shut < 2; shut++) {
        pair_open(&a, &b, NULL);
        assert_int_equal(write_soon_z(&a, "last"), 0);
        if (shut) claw_stream_shutdown(&a.s);
        else claw_stream_close(&a.s);
        assert_int_equal(claw_stream_queued(&a.s), 0);
        UNTIL(b.ends);
        assert_int_equal(b.end_code, CLAW_OK);
        assert_got(&b, "last");
        end_close(&a);
        end_close(&b);
    }
}

static void soon_is_bounded(void **state)
{
    enum { N = CLAW_LOOP_SOON_MAX };
    static struct end e[N + 1];
    static char large[CLAW_LOOP_SOON_BYTES + 1];
    uv_buf_t b = uv_buf_init(large, sizeof large);
    int fds[N + 1];
    char c;

    memset(e, 0, sizeof e);
    for (unsigned i = 0; i <= N; i++) fds[i] = raw_connect(&e[i], false);
    for (unsigned i = 0; i < N; i++) assert_int_equal(write_soon_z(&e[i], "ab"), 0);
    for (unsigned i = 0; i < N; i++) assert_false(has_come(fds[i]));
    claw_stream_close(&e[1].s);
    assert_int_equal(write_soon_z(&e[N], "ab"), 0);
    assert_false(has_come(fds[N]));
    for (unsigned i = 0; i < N; i++) assert_int_equal(recv(fds[i], &c, 1, 0), 1); /* they made room, in this turn */
    claw_loop_turn(&loop, false);
    assert_int_equal(recv(fds[N], &c, 1, 0), 1);
    assert_true(claw_stream_write_soon(&e[0].s, &b, 1) <= 0); /* too large to wait */
    assert_int_equal(recv(fds[0], &c, 1, 0), 1);
    for (unsigned i = 0; i <= N; i++) {
        end_close(&e[i]);
        close(fds[i]);
    }
}

static void soon_and_backpressure(void **state)
{
    static char part[CLAW_LOOP_SOON_BYTES], got[65536];
    struct end b = {0};
    uv_buf_t buf = uv_buf_init(part, sizeof part);
    size_t sent = 0, come = 0;
    int rc = 0, fd = raw_connect(&b, false);

    for (unsigned i = 0; i < sizeof part; i++) part[i] = (char)(i * 7);
    while (rc == 0) {
        rc = claw_stream_write_soon(&b.s, &buf, 1);
        sent += sizeof part;
        assert_true(sent < 64u << 20);
        claw_loop_turn(&loop, false);
    }
    assert_int_equal(rc, CLAW_EAGAIN);
    assert_true(claw_stream_queued(&b.s) <= 2 * sizeof part); /* what the turn's end could not send, and what came then */
    assert_int_equal(b.drains, 0);
    while (come < sent) {
        ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++) assert_int_equal(got[i], part[(come + (size_t)i) % sizeof part]);
        if (n > 0) come += (size_t)n;
        else claw_loop_turn(&loop, false);
    }
    UNTIL(b.drains);
    assert_int_equal(b.drains, 1);
    assert_int_equal(claw_stream_queued(&b.s), 0);
    end_close(&b);
    close(fd);
}

/* As with a queue that fails: told whether it reads or is paused; who had the end already learns by the next write. */
static void soon_meets_the_reset(void **state)
{
    for (int how = 0; how < 3; how++) {
        struct end b = {0};
        int rc = 0, fd = raw_connect(&b, false);
        if (how == 2) {
            shutdown(fd, SHUT_WR);
            UNTIL(b.ends);
        }
        if (how == 1) claw_stream_pause(&b.s);
        raw_reset(fd);
        while (how == 2 ? rc == 0 : !b.ends) {
            rc = write_soon_z(&b, "xy");
            assert_true(rc == 0 || rc == CLAW_EIO);
            claw_loop_turn(&loop, false);
        }
        if (how < 2) assert_int_equal(b.end_code, CLAW_EUPSTREAM_EOF);
        end_close(&b);
    }
}

static bool freed;

static void on_close_free(struct claw_stream *s)
{
    freed = true;
    free(end_of(s));
}

static void write_and_close(uv_check_t *t)
{
    struct end *b = t->data;

    assert_int_equal(write_soon_z(b, "xy"), 0);
    claw_stream_close(&b->s);
    uv_close((uv_handle_t *)t, NULL);
}

/* A close sends what waits; when that finds the connection broken, what is left for the turn's end comes behind the
 * handle's last callback, and nobody is left to be told. */
static void soon_meets_the_reset_in_a_close(void **state)
{
    static const struct claw_stream_events frees = {on_open, on_read, on_end, on_drain, on_close_free};
    struct end *b = calloc(1, sizeof *b);
    uv_check_t behind_poll;
    int fd = raw_connect(b, false);

    b->s.on = &frees;
    claw_stream_pause(&b->s);
    raw_reset(fd);
    uv_check_init(&loop.uv, &behind_poll);
    behind_poll.data = b;
    uv_check_start(&behind_poll, write_and_close);
    for (int turns = 0; turns < 100 && !freed; turns++) claw_loop_turn(&loop, false);
    assert_true(freed);
}

static void refused(void **state)
{
    struct end a = {.used = true};
    struct sockaddr_in nobody;
    socklen_t n = sizeof nobody;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* bound, not listening */

    uv_ip4_addr("127.0.0.1", 0, &nobody);
    assert_int_equal(bind(fd, (struct sockaddr *)&nobody, sizeof nobody), 0);
    getsockname(fd, (struct sockaddr *)&nobody, &n);
    assert_int_equal(claw_stream_connect(&a.s, &loop, (struct sockaddr *)&nobody, NULL, CLAW_STR(""), &events, &a), 0);
    assert_int_equal(write_z(&a, "early"), CLAW_EINVAL);
    UNTIL(a.opens);
    assert_int_equal(a.open_code, CLAW_ECONNECT);
    assert_string_equal(claw_stream_error(&a.s), "connection refused");
    end_close(&a);

    /* An address libuv refuses at once is told in the same way, and a close before it is told is legal. */
    struct sockaddr bad = {.sa_family = AF_UNIX};
    for (int close_first = 0; close_first < 2; close_first++) {
        a = (struct end){.used = true};
        int rc = claw_stream_connect(&a.s, &loop, (struct sockaddr *)&nobody, NULL, CLAW_STR(""), &events, &a);
        assert_int_equal(rc, 0);
        if (close_first) claw_stream_close(&a.s);
        UNTIL(a.opens || a.closes);
        assert_int_equal(a.opens, !close_first);
        end_close(&a);
        a = (struct end){.used = true};
        rc = claw_stream_connect(&a.s, &loop, &bad, NULL, CLAW_STR(""), &events, &a);
        assert_int_equal(rc, 0);
        assert_int_equal(a.opens, 0);
        if (close_first) claw_stream_close(&a.s);
        UNTIL(a.opens || a.closes);
        assert_int_equal(a.opens, !close_first);
        if (!close_first) assert_int_equal(a.open_code, CLAW_ECONNECT);
        end_close(&a);
    }
    close(fd);
}

static void nothing_to_accept(void **state)
{
    struct end e = {0};

    assert_int_equal(claw_stream_accept(&e.s, &loop, (uv_stream_t *)listener, NULL, &events, &e), CLAW_EAGAIN);
    assert_int_equal(e.opens, 0);
}

/* ---- TLS -------------------------------------------------------------------------------------------------- */

static void wrong_name(void **state)
{
    struct claw_tls_client *c = client_new();
    struct end a = {0}, b = {0};

    next = &b;
    next_tls = true;
    connect_end(&a, c, "wrong.example.com");
    UNTIL(a.opens && b.opens);
    assert_int_equal(a.open_code, CLAW_ETLS_VERIFY);
    assert_string_equal(claw_stream_error(&a.s), "certificate is not valid for the name wrong.example.com");
    assert_int_equal(b.open_code, CLAW_ETLS);
    assert_int_equal(write_z(&a, "x"), CLAW_EIO);
    end_close(&a);
    end_close(&b);
    claw_tls_client_unref(c);
}

static void peer_leaves_in_the_handshake(void **state)
{
    for (int how = 0; how < 3; how++) {
        struct end b = {0};
        int fd = raw_connect(&b, true);
        if (how == 2) assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
        if (how == 1) raw_reset(fd);
        if (how == 0) close(fd);
        UNTIL(b.opens);
        assert_int_equal(b.open_code, CLAW_ETLS);
        assert_true(strlen(claw_stream_error(&b.s)) > 10);
        if (how == 2) close(fd);
        end_close(&b);
    }
}

/* A server that greets in on_open: its first data comes right behind its Finished. */
static void greeting_is_not_lost(void **state)
{
    for (int paused = 0; paused < 2; paused++) {
        struct claw_tls_client *c = client_new();
        for (int i = 0; i < 3; i++) { /* a full handshake, then resumed ones */
            struct end a = {.pause_in = paused ? IN_OPEN : NOWHERE}, b = {.greeting = "welcome"};
            pair_open(&a, &b, c);
            if (paused) {
                for (int k = 0; k < 3; k++) claw_loop_turn(&loop, false);
                assert_int_equal(a.reads, 0);
                claw_stream_resume(&a.s);
            }
            assert_true(claw_stream_resumed(&a.s) == (i > 0));
            UNTIL(a.got_n == 7);
            assert_got(&a, "welcome");
            end_close(&a);
            end_close(&b);
        }
        claw_tls_client_unref(c);
    }
}

/* Close at every turn of a full handshake, also while the pool works on it. */
static void close_at_every_turn(void **state)
{
    for (int turns = 0; turns < 14; turns++) {
        for (int who = 0; who < 3; who++) {
            struct claw_tls_client *c = client_new();
            struct end a = {0}, b = {0};
            next = &b;
            next_tls = true;
            connect_end(&a, c, "api.example.com");
            for (int i = 0; i < turns && !(a.opens && b.opens); i++) claw_loop_turn(&loop, true);
            if (who != 1) claw_stream_close(&a.s);
            if (who != 0 && b.used) claw_stream_close(&b.s);
            UNTIL(next == NULL);
            end_close(&a);
            end_close(&b);
            claw_tls_client_unref(c);
        }
    }
}

/* A relay in the middle that passes bytes on one at a time. */
struct relay {
    uv_poll_t poll[2];
    int fd[2];
};

static void relay_turn(uv_poll_t *p, int status, int ev)
{
    struct relay *r = p->data;
    int side = p == &r->poll[1];
    char c;

    if (recv(r->fd[side], &c, 1, 0) == 1)
        assert_int_equal(send(r->fd[!side], &c, 1, 0), 1);
    else
        uv_poll_stop(p);
}

static void one_byte_at_a_time(void **state)
{
    struct claw_tls_client *c = client_new();
    struct end a = {0}, b = {0};
    struct relay *r = calloc(1, sizeof *r);
    struct sockaddr_in middle;
    socklen_t n = sizeof middle;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    uv_ip4_addr("127.0.0.1", 0, &middle);
    assert_int_equal(bind(l, (struct sockaddr *)&middle, sizeof middle), 0);
    assert_int_equal(listen(l, 1), 0);
    getsockname(l, (struct sockaddr *)&middle, &n);
    a.used = true;
    assert_int_equal(claw_stream_connect(&a.s, &loop, (struct sockaddr *)&middle, c, CLAW_STR("api.example.com"),
                                         &events, &a), 0);
    r->fd[0] = accept(l, NULL, NULL);
    r->fd[1] = raw_connect(&b, true);
    for (int i = 0; i < 2; i++) {
        fcntl(r->fd[i], F_SETFL, O_NONBLOCK);
        uv_poll_init(&loop.uv, &r->poll[i], r->fd[i]);
        r->poll[i].data = r;
        uv_poll_start(&r->poll[i], UV_READABLE, relay_turn);
    }
    UNTIL(a.opens && b.opens);
    assert_int_equal(a.open_code, 0);
    assert_int_equal(b.open_code, 0);
    assert_int_equal(write_z(&a, "slowly"), 0);
    UNTIL(b.got_n == 6);
    assert_got(&b, "slowly");
    end_close(&a);
    end_close(&b);
    for (int i = 0; i < 2; i++) uv_close((uv_handle_t *)&r->poll[i], NULL);
    claw_loop_turn(&loop, false);
    claw_loop_turn(&loop, false);
    close(r->fd[0]);
    close(r->fd[1]);
    close(l);
    free(r);
    claw_tls_client_unref(c);
}

/* A FIN without close_notify may be an attacker's cut. */
static void fin_without_close_notify(void **state)
{
    struct claw_tls_client *c = client_new();
    struct end a = {0}, b = {0};
    uv_os_fd_t fd;

    pair_open(&a, &b, c);
    assert_int_equal(uv_fileno((uv_handle_t *)&b.s.tcp, &fd), 0);
    assert_int_equal(write_z(&b, "half"), 0);
    shutdown(fd, SHUT_WR); /* behind the stream's back */
    UNTIL(a.ends);
    assert_got(&a, "half");
    assert_int_equal(a.end_code, CLAW_EUPSTREAM_EOF);
    assert_string_equal(claw_stream_error(&a.s), "the peer closed without close_notify");
    end_close(&a);
    end_close(&b);
    claw_tls_client_unref(c);
}

static int start_group(void **state)
{
    char err[256];

    certs_start();
    certs_add(&(struct certs_spec){.file = "good", .cn = "good", .dns = "api.example.com"});
    return claw_tls_server_new(certs_path("good.pem"), certs_path("good.key"), NULL, &tls_server, err, sizeof err);
}

static int stop_group(void **state)
{
    claw_tls_server_unref(tls_server);
    certs_remove(files);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

/* ---- many at once ----------------------------------------------------------------------------------------- */

#define MANY (5 * CLAW_LANE_A_TURN + 8)

/* A listener of which nobody but the kernel takes: connects succeed, and what was said can be looked at. */
static int silent_listener(void)
{
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    assert_int_equal(listen(fd, MANY + 8), 0);
    return fd;
}

/* How many of the connections have their ClientHello sent. */
static unsigned spoken(const int *fds)
{
    unsigned n = 0;
    char byte;

    for (unsigned i = 0; i < MANY; i++) n += recv(fds[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
    return n;
}

static void many_take_turns(void **state)
{
    struct claw_tls_client *c = client_new();
    static struct end e[MANY];
    int silent = silent_listener(), fds[MANY];
    unsigned closed = 0;

    memset(e, 0, sizeof e);
    for (unsigned i = 0; i < MANY; i++) connect_end(&e[i], c, "api.example.com");
    for (unsigned i = 0; i < MANY; i++) fds[i] = accept(silent, NULL, NULL); /* all of them are up: the loop sees it at once */
    for (uint64_t start = loop.turn; spoken(fds) < MANY;) {
        claw_loop_turn(&loop, true);
        assert_true(spoken(fds) <= CLAW_LANE_A_TURN * (loop.turn - start + 1));
    }
    for (unsigned i = 0; i < MANY; i++) claw_stream_close(&e[i].s);
    for (unsigned last = 0; closed < MANY; last = closed) {
        claw_loop_turn(&loop, true);
        closed = 0;
        for (unsigned i = 0; i < MANY; i++) closed += (unsigned)e[i].closes;
        assert_true(closed - last <= 2 * CLAW_LANE_A_TURN); /* what was closed at once, and a turn's */
    }
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(e[i].opens, 0);
        end_close(&e[i]);
        close(fds[i]);
    }
    close(silent);
    claw_tls_client_unref(c);
}

static void who_waits_for_its_turn_may_be_closed(void **state)
{
    struct claw_tls_client *c = client_new();
    static struct end e[MANY];
    int silent = silent_listener(), fds[MANY];

    memset(e, 0, sizeof e);
    for (unsigned i = 0; i < MANY; i++) connect_end(&e[i], c, "api.example.com");
    for (unsigned i = 0; i < MANY; i++) fds[i] = accept(silent, NULL, NULL);
    while (spoken(fds) == 0) claw_loop_turn(&loop, true);
    assert_true(spoken(fds) < MANY);
    for (unsigned i = 0; i < MANY; i++) {
        if (i % 2) claw_stream_abort(&e[i].s);
        else claw_stream_close(&e[i].s);
        claw_stream_close(&e[i].s);
    }
    for (unsigned i = 0; i < MANY; i++) {
        UNTIL(e[i].closes);
        assert_int_equal(e[i].opens, 0);
        end_close(&e[i]);
        close(fds[i]);
    }
    close(silent);
    claw_tls_client_unref(c);
}

/* All of them have a byte to read in one turn, which is long at once. */
static void many_are_read_in_turns(void **state)
{
    static struct end a[MANY], b[MANY];
    unsigned last = 0, n = 0;

    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    loop.lanes.long_us = 60000000;
    for (unsigned i = 0; i < MANY; i++) pair_open(&a[i], &b[i], NULL);
    loop.lanes.long_us = 0;
    for (unsigned i = 0; i < MANY; i++) assert_int_equal(write_z(&a[i], "x"), 0);
    for (struct timespec t = {.tv_nsec = 2000000}; nanosleep(&t, NULL) != 0;) continue;
    for (bool first = true; n < MANY - 4; last = n, first = false) {
        claw_loop_turn(&loop, true);
        n = 0;
        for (unsigned i = 0; i < MANY; i++) n += b[i].got_n;
        assert_true(n - last <= CLAW_LANE_READS_ANYWAY + CLAW_LANE_A_TURN);
        if (!first) continue;
        assert_true(n < MANY - 8);
        for (unsigned i = 0, left = 0; i < MANY && left < 4; i++) { /* of those that wait: two leave, two read later */
            if (b[i].got_n) continue;
            if (left++ % 2) claw_stream_close(&b[i].s);
            else claw_stream_pause(&b[i].s);
        }
    }
    for (unsigned i = 0; i < MANY; i++) {
        if (!b[i].closes && b[i].s.paused) {
            assert_int_equal(b[i].got_n, 0);
            claw_stream_resume(&b[i].s);
            UNTIL(b[i].got_n);
        }
        assert_int_equal(b[i].reads, b[i].closes ? 0 : 1);
        if (!b[i].closes) assert_got(&b[i], "x");
    }
    for (unsigned i = 0; i < MANY; i++) {
        end_close(&a[i]);
        end_close(&b[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(plain_talk),
        TEST(plain_backpressure),
        TEST(plain_pausing),
        TEST(plain_close_everywhere),
        TEST(reset_is_no_clean_end),
        TEST(reset_behind_data),
        TEST(a_write_that_meets_the_reset),
        TEST(a_queue_that_meets_the_reset),
        TEST(abort_resets),
        TEST(soon_is_the_turns_end),
        TEST(soon_is_bounded),
        TEST(soon_and_backpressure),
        TEST(soon_meets_the_reset),
        TEST(soon_meets_the_reset_in_a_close),
        TEST(refused),
        TEST(nothing_to_accept),
        TEST(tls_talk),
        TEST(tls_backpressure),
        TEST(tls_pausing),
        TEST(tls_close_everywhere),
        TEST(wrong_name),
        TEST(peer_leaves_in_the_handshake),
        TEST(greeting_is_not_lost),
        TEST(close_at_every_turn),
        TEST(one_byte_at_a_time),
        TEST(fin_without_close_notify),
        TEST(many_take_turns),
        TEST(who_waits_for_its_turn_may_be_closed),
        TEST(many_are_read_in_turns),
    };

    alarm(300);
    return cmocka_run_group_tests_name("net/stream", tests, start_group, stop_group);
}
