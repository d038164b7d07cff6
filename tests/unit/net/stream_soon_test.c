/* stream_soon: what is written at the end of the turn. */
#include "stream_part.h"

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

/* Before work that takes long: everything goes, and the turn's end finds nothing. */
static void soon_may_be_flushed(void **state)
{
    struct end e[3] = {0};
    int fds[3];
    char c[2];

    for (unsigned i = 0; i < 3; i++) fds[i] = raw_connect(&e[i], false);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(write_soon_z(&e[i], "ab"), 0);
    assert_int_equal(claw_stream_flush(&e[1].s), 0);
    assert_true(has_come(fds[1]) && !has_come(fds[0]) && !has_come(fds[2]));
    claw_stream_flush_all(&loop);
    assert_int_equal(write_soon_z(&e[1], "cd"), 0);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(recv(fds[i], c, 2, 0), 2);
    assert_false(has_come(fds[1]));
    claw_loop_turn(&loop, false);
    assert_int_equal(recv(fds[1], c, 2, 0), 2);
    assert_memory_equal(c, "cd", 2);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(e[i].fulls, 0);
        end_close(&e[i]);
        close(fds[i]);
    }
}

static struct claw_deferred before;
static int raw;
static int came; /* -1: not looked yet */

static void look(struct claw_deferred *d) { came = has_come(raw); }

/* What was put off to the turn's end before it was written finds it sent. */
static void put_off_and_write(struct claw_stream *s, const char *data, size_t n)
{
    claw_loop_defer(&loop, &before, look);
    assert_int_equal(write_soon_z(end_of(s), "ab"), 0);
    assert_false(has_come(raw));
}

static void soon_is_behind_the_poll(void **state)
{
    static const struct claw_stream_events answers = {on_open, put_off_and_write, on_end, on_drain, on_close, on_full};
    struct end b = {0};

    raw = raw_connect(&b, false);
    b.s.on = &answers;
    came = -1;
    assert_int_equal(send(raw, "x", 1, 0), 1);
    UNTIL(came >= 0);
    assert_int_equal(came, 1);
    end_close(&b);
    close(raw);
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
    int fd = raw_connect(&b, false);

    for (unsigned i = 0; i < sizeof part; i++) part[i] = (char)(i * 7);
    assert_int_equal(claw_stream_flush(&b.s), 0);
    while (!b.fulls) {
        assert_int_equal(claw_stream_write_soon(&b.s, &buf, 1), 0);
        sent += sizeof part;
        assert_true(sent < 64u << 20);
        claw_loop_turn(&loop, false);
    }
    assert_true(claw_stream_queued(&b.s) <= sizeof part); /* what the turn's end could not send */
    assert_int_equal(claw_stream_flush(&b.s), CLAW_EAGAIN);
    assert_int_equal(claw_stream_write_soon(&b.s, &buf, 1), CLAW_EAGAIN);
    sent += sizeof part;
    assert_int_equal(b.fulls, 1);
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
    static const struct claw_stream_events frees = {on_open, on_read, on_end, on_drain, on_close_free, on_full};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(soon_is_the_turns_end), TEST(soon_may_be_flushed), TEST(soon_is_behind_the_poll), TEST(soon_is_bounded), TEST(soon_and_backpressure), TEST(soon_meets_the_reset),
        TEST(soon_meets_the_reset_in_a_close),
    };

    alarm(300);
    return cmocka_run_group_tests_name("net/stream_soon", tests, start_group, stop_group);
}
