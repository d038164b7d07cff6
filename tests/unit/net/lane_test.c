/* lane: bounded a turn, in order, one lane after the other. */
#include "net/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N CLAW_LANE_A_TURN

static struct claw_loop loop;
static struct claw_lane a, b;
static struct work {
    struct claw_lane_ticket ticket;
    struct claw_lane *lane;
    int order;           /* 0: not run */
    uint64_t turn;
    struct work *leaver; /* taken out when this one runs */
    bool again;          /* waits once more when it runs */
} works[4 * N];
static int ran;

static void on_run(struct claw_lane_ticket *t)
{
    struct work *w = (struct work *)((char *)t - offsetof(struct work, ticket));
    assert_null(t->lane);
    w->order = ++ran;
    w->turn = loop.turn;
    if (w->leaver) claw_lane_leave(&loop, &w->leaver->ticket);
    if (w->again) {
        w->again = false;
        if (!claw_lane_wait(&loop, w->lane, t, on_run)) on_run(t);
    }
}

static void want(struct work *w, struct claw_lane *lane)
{
    w->lane = lane;
    if (!claw_lane_wait(&loop, lane, &w->ticket, on_run)) on_run(&w->ticket);
}

static int open_loop(void **state)
{
    memset(works, 0, sizeof works);
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    ran = 0;
    int err = claw_loop_init(&loop);
    loop.lanes.long_us = 60000000;
    return err;
}

static int close_loop(void **state) { return claw_loop_fini(&loop, true); }

static void a_long_turn_takes_few(void **state)
{
    loop.lanes.long_us = 0;
    uint64_t from = uv_now(&loop.uv);
    while (uv_hrtime() / 1000000 <= from) continue;
    for (unsigned i = 0; i < N; i++) want(&works[i], &a);
    assert_int_equal(ran, CLAW_LANE_ANYWAY);
    claw_lanes_empty(&loop);
    assert_int_equal(ran, N);
    for (unsigned i = 0; i < N; i++) assert_int_equal(works[i].order, i + 1);
}

static void a_turn_has_its_bound_and_the_order_stays(void **state)
{
    for (unsigned i = 0; i < 3 * N; i++) want(&works[i], &a);
    assert_int_equal(ran, N); /* at once */
    int before = ran, turns = 0;
    while (ran < 3 * (int)N) {
        claw_loop_turn(&loop, true); /* it does not sleep while somebody waits */
        assert_true(ran - before <= (int)N);
        before = ran;
        assert_true(++turns < 6);
    }
    for (unsigned i = 0; i < 3 * N; i++) assert_int_equal(works[i].order, i + 1);
    assert_true(works[3 * N - 1].turn > works[2 * N - 1].turn && works[2 * N - 1].turn > works[N - 1].turn);
    assert_false(uv_is_active((uv_handle_t *)&loop.lanes.idle));
    claw_loop_turn(&loop, false);
    want(&works[3 * N], &a); /* and there is room again */
    assert_int_equal(works[3 * N].order, 3 * N + 1);
}

static void who_comes_late_does_not_pass(void **state)
{
    for (unsigned i = 0; i < N + 1; i++) want(&works[i], &a);
    claw_loop_turn(&loop, false);
    if (!works[N].order) want(&works[N + 1], &a); /* the turn is new and has room, but somebody waits */
    while (ran < (int)N + 2) claw_loop_turn(&loop, true);
    assert_int_equal(works[N].order, N + 1);
    assert_int_equal(works[N + 1].order, N + 2);
}

static void lanes_alternate(void **state)
{
    for (unsigned i = 0; i < 3 * N; i++) want(&works[i], &a);
    want(&works[3 * N], &b);
    want(&works[3 * N + 1], &b);
    assert_int_equal(ran, N);
    while (ran < 3 * (int)N + 2) claw_loop_turn(&loop, true);
    assert_true(works[3 * N].order <= (int)N + 2);
    assert_true(works[3 * N + 1].order <= (int)N + 4);
}

static void light_work_counts_a_quarter(void **state)
{
    a.light = true;
    for (unsigned i = 0; i < 2 * N; i++) want(&works[i], &a);
    for (unsigned i = 2 * N; i < 3 * N; i++) want(&works[i], &b);
    assert_int_equal(ran, 2 * N + N / 2);
    a.light = false;
    while (loop.lanes.next) claw_loop_turn(&loop, true);
}

static void leaving_is_legal_at_every_point(void **state)
{
    for (unsigned i = 0; i < 2 * N; i++) want(&works[i], &a);
    want(&works[2 * N], &b);
    claw_lane_leave(&loop, &works[0].ticket);         /* has run */
    claw_lane_leave(&loop, &works[N].ticket);         /* the first */
    claw_lane_leave(&loop, &works[N + 4].ticket);     /* in the middle */
    claw_lane_leave(&loop, &works[2 * N - 1].ticket); /* the last */
    claw_lane_leave(&loop, &works[2 * N - 1].ticket);
    works[N + 1].leaver = &works[N + 2]; /* from within another one's run */
    works[N + 3].leaver = &works[2 * N]; /* the only one of its lane, if it has not run */
    works[N + 5].again = true;
    while (loop.lanes.next) claw_loop_turn(&loop, true);
    assert_true(works[N].order == 0 && works[N + 2].order == 0 && works[N + 4].order == 0 && works[2 * N - 1].order == 0);
    for (unsigned i = N + 6; i < 2 * N - 1; i++) assert_true(works[i].order > 0);
    assert_true(works[N + 5].order > works[2 * N - 2].order); /* behind the others, the second time */
}

static void all_may_leave(void **state)
{
    for (unsigned i = 0; i < 2 * N; i++) want(&works[i], i % 2 ? &a : &b);
    for (unsigned i = 0; i < 2 * N; i++) claw_lane_leave(&loop, &works[i].ticket);
    assert_null(loop.lanes.next);
    assert_false(uv_is_active((uv_handle_t *)&loop.lanes.idle));
    claw_loop_turn(&loop, false);
    claw_loop_turn(&loop, false);
    assert_int_equal(ran, N);
}

static void the_loops_end_runs_what_waits(void **state)
{
    for (unsigned i = 0; i < 3 * N; i++) want(&works[i], &a);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    assert_int_equal(ran, 3 * N);
    assert_int_equal(claw_loop_init(&loop), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_loop, close_loop)

int main(void)
{
    alarm(60);
    const struct CMUnitTest tests[] = {
        TEST(a_long_turn_takes_few),
        TEST(a_turn_has_its_bound_and_the_order_stays),
        TEST(who_comes_late_does_not_pass),
        TEST(lanes_alternate),
        TEST(light_work_counts_a_quarter),
        TEST(leaving_is_legal_at_every_point),
        TEST(all_may_leave),
        TEST(the_loops_end_runs_what_waits),
    };
    return cmocka_run_group_tests_name("net/lane", tests, NULL, NULL);
}
