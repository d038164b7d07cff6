/* window: what is counted, for how long, and that two threads lose nothing in a slot that stays. */
#include "proxy/window.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#define SHIFT 10u
#define SLOTS 10u
#define S(n) ((uint64_t)(n) << SHIFT)
#define EACH 20000

static void counts_go_after_their_slots(void **state)
{
    struct claw_window w = {0};
    struct claw_window_sum s = claw_window_sum(&w, SHIFT, SLOTS, S(500));
    assert_int_equal(s.total, 0);
    claw_window_add(&w, SHIFT, S(500), CLAW_WINDOW_TOTAL);
    claw_window_add(&w, SHIFT, S(500) + 1023, CLAW_WINDOW_TOTAL + CLAW_WINDOW_FAILED);
    claw_window_add(&w, SHIFT, S(505), CLAW_WINDOW_TOTAL);
    s = claw_window_sum(&w, SHIFT, SLOTS, S(510) - 1);
    assert_int_equal(s.total, 3);
    assert_int_equal(s.failed, 1);
    s = claw_window_sum(&w, SHIFT, SLOTS, S(510));
    assert_int_equal(s.total, 1);
    assert_int_equal(s.failed, 0);
    claw_window_add(&w, SHIFT, S(521), CLAW_WINDOW_FAILED); /* takes the slot of 505 over */
    s = claw_window_sum(&w, SHIFT, SLOTS, S(521));
    assert_int_equal(s.total, 0);
    assert_int_equal(s.failed, 1);
    claw_window_clear(&w);
    assert_int_equal(claw_window_sum(&w, SHIFT, SLOTS, S(521)).failed, 0);
}

static void a_slot_that_is_full_takes_nothing_else_with_it(void **state)
{
    struct claw_window w = {0};
    for (int i = 0; i < 1 << 20; i++) claw_window_add(&w, SHIFT, 3000, CLAW_WINDOW_TOTAL);
    claw_window_add(&w, SHIFT, 3000, CLAW_WINDOW_FAILED);
    struct claw_window_sum s = claw_window_sum(&w, SHIFT, SLOTS, 3000);
    assert_int_equal(s.total, 0);
    assert_int_equal(s.failed, 1);
}

static void *add_many(void *w)
{
    for (int i = 0; i < EACH; i++) claw_window_add(w, SHIFT, 7000, CLAW_WINDOW_TOTAL);
    return NULL;
}

static void threads_lose_nothing(void **state)
{
    struct claw_window w = {0};
    pthread_t t[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, add_many, &w), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(claw_window_sum(&w, SHIFT, SLOTS, 7000).total, 4 * EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_go_after_their_slots),
        cmocka_unit_test(a_slot_that_is_full_takes_nothing_else_with_it),
        cmocka_unit_test(threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
