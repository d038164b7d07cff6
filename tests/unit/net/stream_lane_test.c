/* stream_lane: many streams at once take turns in their lanes. */
#include "stream_part.h"

#include <arpa/inet.h>
#include <time.h>

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
        TEST(many_take_turns), TEST(who_waits_for_its_turn_may_be_closed), TEST(many_are_read_in_turns),
    };

    alarm(300);
    return cmocka_run_group_tests_name("net/stream_lane", tests, start_group, stop_group);
}
