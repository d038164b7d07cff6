/* canary: what is moved is by route, until it is settled; and there is a bound. */
#include "proxy/canary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void moved_and_settled(void **state)
{
    assert_true(claw_canary_moved(CLAW_STR("a")) < 0);
    claw_canary_settle(CLAW_STR("a"));
    assert_int_equal(claw_canary_move(CLAW_STR("a"), 12.5), 0);
    assert_int_equal(claw_canary_move(CLAW_STR("ab"), 0), 0);
    assert_true(claw_canary_moved(CLAW_STR("a")) == 12.5);
    assert_true(claw_canary_moved(CLAW_STR("ab")) == 0);
    assert_true(claw_canary_moved(CLAW_STR("")) < 0);
    claw_canary_settle(CLAW_STR("a"));
    assert_true(claw_canary_moved(CLAW_STR("a")) < 0);
    assert_true(claw_canary_moved(CLAW_STR("ab")) == 0);
    assert_int_equal(claw_canary_move(CLAW_STR("a"), 100), 0);
    assert_true(claw_canary_moved(CLAW_STR("a")) == 100);
}

static void bounded(void **state)
{
    char name[16], longest[200];
    memset(longest, 'x', sizeof longest);
    assert_int_equal(claw_canary_move((struct claw_str){longest, sizeof longest}, 1), CLAW_ENOMEM);
    for (unsigned i = 2; i < CLAW_CANARY_ROUTES; i++) {
        snprintf(name, sizeof name, "r%u", i);
        assert_int_equal(claw_canary_move(claw_str_of(name), i), 0);
    }
    assert_int_equal(claw_canary_move(CLAW_STR("one more"), 1), CLAW_ENOMEM);
    assert_int_equal(claw_canary_move(CLAW_STR("r7"), 9), 0);
    assert_true(claw_canary_moved(CLAW_STR("r7")) == 9 && claw_canary_moved(CLAW_STR("r8")) == 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(moved_and_settled), cmocka_unit_test(bounded)};
    return cmocka_run_group_tests_name("proxy/canary", tests, NULL, NULL);
}
