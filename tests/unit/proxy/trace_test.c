/* trace: what of a client's trace context is valid, by the grammar of W3C Trace Context. */
#include "proxy/trace.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static bool parent(const char *z, struct claw_trace *t)
{
    memset(t, 0, sizeof *t);
    return claw_trace_read_parent(claw_str_of(z), t);
}

static void valid_parents(void **state)
{
    struct claw_trace t;
    assert_true(parent("00-" ID "-" SPAN "-01", &t));
    assert_string_equal(t.id, ID);
    assert_string_equal(t.parent, SPAN);
    assert_int_equal(t.flags, CLAW_TRACE_SAMPLED);
    assert_true(parent("00-" ID "-" SPAN "-00", &t));
    assert_int_equal(t.flags, 0);
    assert_true(parent("00-" ID "-" SPAN "-fe", &t)); /* what is not known is not sent on */
    assert_int_equal(t.flags, CLAW_TRACE_RANDOM);
    assert_true(parent("fe-" ID "-" SPAN "-01", &t));
    assert_true(parent("01-" ID "-" SPAN "-01-", &t));
    assert_true(parent("01-" ID "-" SPAN "-01-anything", &t));
}

static void invalid_parents(void **state)
{
    static const char *const all[] = {
        "", "00", "00-" ID "-" SPAN, "00-" ID "-" SPAN "-0", "00-" ID "-" SPAN "-01-", "00-" ID "-" SPAN "-011", "ff-" ID "-" SPAN "-01",
        "0-" ID "-" SPAN "-010", "00_" ID "-" SPAN "-01", "00-" ID "_" SPAN "-01", "00-" ID "-" SPAN "_01", "00-" ID "-" SPAN "-0A",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01", "00-" ID "-00F067AA0BA902B7-01", "0A-" ID "-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01", "00-" ID "-0000000000000000-01", "01-" ID "-" SPAN "-01.x",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-" SPAN "-01", " 00-" ID "-" SPAN "-01",
    };
    struct claw_trace t, none;
    memset(&none, 0, sizeof none);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (parent(all[i], &t)) fail_msg("%s is taken", all[i]);
        assert_memory_equal(&t, &none, sizeof t);
    }
}

static void states(void **state)
{
    static const char *const good[] = {"a=1", "a=1,b=2", "a=1 , b=2", "0a=1", "a=1,,b=2", "a*b/c-d_e=x y", "tenant@system=t61rcWkgMzE", "0t@s=1", "a=!\"#$%&'()*+-./:;<>?@[]^_`{|}~"};
    static const char *const bad[] = {"", ",", "a", "a=", "=1", "A=1", "a=1,a=2", "a=b=c", "a@=1", "@s=1", "a@1s=1", "a@b@c=1", "a b=1", "a=\x7f", "a=\xc3\xa9"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!claw_trace_is_state(claw_str_of(good[i]))) fail_msg("%s is not taken", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (claw_trace_is_state(claw_str_of(bad[i]))) fail_msg("%s is taken", bad[i]);
    char key[300];
    memset(key, 'k', sizeof key);
    memcpy(key + 256, "=1", 2);
    assert_true(claw_trace_is_state((struct claw_str){key, 258}));
    memset(key, 'k', sizeof key);
    memcpy(key + 257, "=1", 2);
    assert_false(claw_trace_is_state((struct claw_str){key, 259}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(valid_parents), cmocka_unit_test(invalid_parents), cmocka_unit_test(states)};
    return cmocka_run_group_tests_name("proxy/trace", tests, NULL, NULL);
}
