#include "base/cursor.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void is(char *from, const char *end, const char *want)
{
    assert_int_equal(end - from, strlen(want));
    assert_memory_equal(from, want, strlen(want));
}

static void number(uint64_t n)
{
    char at[CLAW_CURSOR_NUMBER_BYTES], want[32];
    snprintf(want, sizeof want, "%" PRIu64, n);
    is(at, claw_cursor_number(at, n), want);
}

static void test_numbers(void **s)
{
    (void)s;
    for (uint64_t n = 0; n < 20000; n++) number(n);
    for (uint64_t ten = 1;; ten *= 10) { /* every length, and both sides of where it changes */
        number(ten - 1);
        number(ten);
        number(ten + 1);
        if (ten == UINT64_C(10000000000000000000)) break;
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        number(UINT64_C(1) << bit);
        number((UINT64_C(1) << bit) - 1);
    }
    number(UINT64_MAX);
}

static void test_parts(void **s)
{
    (void)s;
    char at[64];
    is(at, claw_cursor_millis(at, 0), "0.000");
    is(at, claw_cursor_millis(at, 7), "0.007");
    is(at, claw_cursor_millis(at, 1234), "1.234");
    is(at, claw_cursor_millis(at, 1000990), "1000.990");
    is(at, claw_cursor_micros(at, 0), "0.000000");
    is(at, claw_cursor_micros(at, 1234), "0.001234");
    is(at, claw_cursor_micros(at, 12000001), "12.000001");
    is(at, claw_cursor_micros(at, 999999), "0.999999");
}

static void test_texts(void **s)
{
    (void)s;
    char at[16];
    is(at, claw_cursor_put(CLAW_CURSOR_PUT(at, "a: "), (struct claw_str){NULL, 0}), "a: ");
    is(at, claw_cursor_put(at, CLAW_STR("b\"c")), "b\"c");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers), cmocka_unit_test(test_parts), cmocka_unit_test(test_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
