/* limit_queue: clients take turns, whoever leaves and whatever else is full. */
#include "proxy/limit_queue.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define QUEUE CLAW_STR("a\03710.0.0.1")

static unsigned called[64], called_n; /* numbers of places */

struct waiter {
    struct claw_limit_place p;
    unsigned number;
};

static void on_call(struct claw_limit_place *p)
{
    if (called_n < 64) called[called_n++] = ((struct waiter *)p)->number;
}

static struct claw_limit_waiting wanted(const char *client)
{
    return (struct claw_limit_waiting){.key = QUEUE, .client = claw_str_of(client), .max = 100, .max_of_one = 50, .turns = 1, .left_ns = 1000000000};
}

static enum claw_limit_queued join(struct waiter *w, unsigned number, const char *client)
{
    struct claw_limit_waiting want = wanted(client);
    bool first;
    memset(w, 0, sizeof *w);
    w->p.on_call = on_call;
    w->number = number;
    return claw_limit_queue_join(&w->p, &want, &first);
}

/* a: 0 1 2 3, b: 4 5, c: 6. a's first is called at once. */
static void fill(struct waiter w[7])
{
    static const char *const clients[] = {"a", "a", "a", "a", "b", "b", "c"};
    called_n = 0;
    for (unsigned i = 0; i < 7; i++) assert_int_equal(join(&w[i], i, clients[i]), i ? CLAW_LIMIT_QUEUE_WAITS : CLAW_LIMIT_QUEUE_CALLED);
    assert_int_equal(claw_limit_queue_waiting(CLAW_STR("a")), 7);
    assert_int_equal(claw_limit_queue_waiting(CLAW_STR("b")), 0);
}

static void assert_called(const unsigned *numbers, unsigned n)
{
    assert_int_equal(called_n, n);
    for (unsigned i = 0; i < n; i++) assert_int_equal(called[i], numbers[i]);
}

static void in_turn(void **state)
{
    struct waiter w[7];
    static const unsigned order[] = {1, 4, 6, 2, 5, 3};
    fill(w);
    claw_limit_queue_leave(&w[0].p);
    for (unsigned i = 0; i < 6; i++) claw_limit_queue_leave(&w[order[i]].p);
    assert_called(order, 6);
    assert_int_equal(claw_limit_queue_waiting((struct claw_str){NULL, 0}), 0);
}

static void who_leaves_takes_no_turn(void **state)
{
    struct waiter w[7];
    fill(w);
    claw_limit_queue_leave(&w[1].p); /* of those that wait */
    claw_limit_queue_leave(&w[4].p);
    claw_limit_queue_leave(&w[5].p); /* b has none any more */
    assert_int_equal(called_n, 0);
    claw_limit_queue_leave(&w[0].p);
    assert_int_equal(called[0], 2); /* a's place in the ring is its */
    called_n = 0;
    claw_limit_queue_leave(&w[2].p);
    claw_limit_queue_leave(&w[6].p);
    claw_limit_queue_leave(&w[3].p);
    assert_called((const unsigned[]){6, 3}, 2);
}

static void nobody_overtakes(void **state)
{
    struct waiter w[7], late;
    fill(w);
    assert_true(claw_limit_queue_holds(NULL, QUEUE, 0));
    assert_false(claw_limit_queue_holds(&w[0].p, QUEUE, 0)); /* its turn */
    assert_true(claw_limit_queue_holds(&w[1].p, QUEUE, 0));
    assert_false(claw_limit_queue_holds(NULL, CLAW_STR("a\03710.0.0.2"), 0));
    assert_int_equal(join(&late, 9, "d"), CLAW_LIMIT_QUEUE_WAITS);
    claw_limit_queue_leave(&late.p);
    for (unsigned i = 0; i < 7; i++) claw_limit_queue_leave(&w[i].p);
    assert_false(claw_limit_queue_holds(NULL, QUEUE, 0));
}

static void room_is_told_to_who_is_called(void **state)
{
    struct waiter w[7];
    fill(w);
    claw_limit_queue_room(CLAW_STR("b"));
    assert_int_equal(called_n, 0);
    claw_limit_queue_room(QUEUE);
    claw_limit_queue_room(QUEUE);
    assert_called((const unsigned[]){0, 0}, 2);
    for (unsigned i = 0; i < 7; i++) claw_limit_queue_leave(&w[i].p);
}

static void bounds(void **state)
{
    struct waiter w[7], more;
    bool first;
    fill(w);
    struct claw_limit_waiting want = wanted("a");
    memset(&more, 0, sizeof more);
    more.p.on_call = on_call;
    want.max_of_one = 4;
    assert_int_equal(claw_limit_queue_join(&more.p, &want, &first), CLAW_LIMIT_QUEUE_FULL);
    want.client = CLAW_STR("b");
    assert_int_equal(claw_limit_queue_join(&more.p, &want, &first), CLAW_LIMIT_QUEUE_WAITS);
    claw_limit_queue_leave(&more.p);
    want.max = 7;
    assert_int_equal(claw_limit_queue_join(&more.p, &want, &first), CLAW_LIMIT_QUEUE_FULL);
    /* A new client's first comes after the one called and one of each of three; a's next after all. */
    want = wanted("d");
    want.step_ns = 100;
    want.ahead_ns = 50;
    want.left_ns = 449;
    assert_int_equal(claw_limit_queue_join(&more.p, &want, &first), CLAW_LIMIT_QUEUE_LATE);
    assert_int_equal(want.ahead_ns, 450);
    want.ahead_ns = 50;
    want.left_ns = 450;
    assert_int_equal(claw_limit_queue_join(&more.p, &want, &first), CLAW_LIMIT_QUEUE_WAITS);
    claw_limit_queue_leave(&more.p);
    want = wanted("a");
    want.step_ns = 100;
    want.left_ns = 699;
    assert_int_equal(claw_limit_queue_join(&more.p, &want, &first), CLAW_LIMIT_QUEUE_LATE);
    assert_int_equal(want.ahead_ns, 700);
    for (unsigned i = 0; i < 7; i++) claw_limit_queue_leave(&w[i].p);
}

/* Its turn came in one queue, another limit had no room: back in the first it is before those that wait there. */
static void whose_turn_it_was(void **state)
{
    struct waiter w[7];
    bool first;
    fill(w);
    struct claw_limit_waiting want = wanted("a");
    want.key = CLAW_STR("other");
    assert_int_equal(claw_limit_queue_join(&w[0].p, &want, &first), CLAW_LIMIT_QUEUE_CALLED);
    assert_true(first);
    assert_called((const unsigned[]){1}, 1);
    assert_false(claw_limit_queue_holds(&w[0].p, QUEUE, 0));
    want.key = QUEUE;
    assert_int_equal(claw_limit_queue_join(&w[0].p, &want, &first), CLAW_LIMIT_QUEUE_WAITS);
    claw_limit_queue_leave(&w[1].p);
    assert_int_equal(called[1], 4); /* b's client is still before a's in the ring, and a's first is 0 */
    claw_limit_queue_leave(&w[4].p);
    claw_limit_queue_leave(&w[6].p);
    assert_int_equal(called[2], 6);
    assert_int_equal(called[3], 0);
    for (unsigned i = 0; i < 7; i++) claw_limit_queue_leave(&w[i].p);
}

static void *hammer(void *arg)
{
    static const char *const clients[] = {"a", "b", "c", "d", "e"};
    struct waiter w[5];
    for (unsigned i = 0; i < 4000; i++) {
        for (unsigned k = 0; k < 5; k++) assert_in_range(join(&w[k], 0, clients[(i + k) % 5]), CLAW_LIMIT_QUEUE_CALLED, CLAW_LIMIT_QUEUE_FULL);
        claw_limit_queue_room(QUEUE);
        for (unsigned k = 0; k < 5; k++) claw_limit_queue_leave(&w[(k * 3 + i) % 5].p);
    }
    return NULL;
}

static void from_many_threads(void **state)
{
    pthread_t t[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(claw_limit_queue_waiting((struct claw_str){NULL, 0}), 0);
    assert_false(claw_limit_queue_holds(NULL, QUEUE, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_turn), cmocka_unit_test(who_leaves_takes_no_turn), cmocka_unit_test(nobody_overtakes), cmocka_unit_test(room_is_told_to_who_is_called),
        cmocka_unit_test(bounds), cmocka_unit_test(whose_turn_it_was), cmocka_unit_test(from_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
