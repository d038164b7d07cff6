/* stream: talk, backpressure, pausing and closing, the same plain and over TLS; resets, and connects that are refused. */
#include "net/offload.h"

#include "stream_part.h"

#include <errno.h>

/* ---- both kinds ---------------------------------------------------------------------------------------- */

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

/* ---- plain --------------------------------------------------------------------------------------------- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(plain_talk), TEST(plain_backpressure), TEST(plain_pausing), TEST(plain_close_everywhere),
        TEST(reset_is_no_clean_end), TEST(reset_behind_data), TEST(a_write_that_meets_the_reset),
        TEST(a_queue_that_meets_the_reset), TEST(abort_resets), TEST(refused), TEST(nothing_to_accept), TEST(tls_talk),
        TEST(tls_backpressure), TEST(tls_pausing), TEST(tls_close_everywhere),
    };

    alarm(300);
    return cmocka_run_group_tests_name("net/stream", tests, start_group, stop_group);
}
