/* h1_head: a query's parameters, as they came. */
#include "http/h1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void parameters(void **state)
{
    static const struct { const char *whole, *name, *value; } all[] = {
        {"a=1", "a", "1"}, {"b", "b", ""}, {"", "", ""}, {"=x", "", "x"}, {"c=d=e", "c", "d=e"}, {"k%3D=%26", "k%3D", "%26"}, {"last=", "last", ""},
    };
    struct claw_str query = CLAW_STR("a=1&b&&=x&c=d=e&k%3D=%26&last=");
    struct claw_h1_parameter one;
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        assert_true(claw_h1_next_parameter(&query, &one));
        assert_true(claw_str_eqz(one.whole, all[i].whole) && claw_str_eqz(one.name, all[i].name) && claw_str_eqz(one.value, all[i].value));
    }
    assert_false(claw_h1_next_parameter(&query, &one));
    query = CLAW_STR("&");
    assert_true(claw_h1_next_parameter(&query, &one) && one.whole.len == 0);
    assert_false(claw_h1_next_parameter(&query, &one));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parameters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
