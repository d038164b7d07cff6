/* ndjson: the same lines come out wherever the bytes are cut. */
#include "http/ndjson.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_buf seen;
static int stop_at;

static int on_line(void *arg, struct claw_str line)
{
    assert_ptr_equal(arg, &seen);
    assert_int_equal(claw_buf_add_fmt(&seen, "%.*s|", CLAW_STR_FMT(line)), 0);
    return --stop_at == 0 ? CLAW_ECANCELED : 0;
}

static int feed(struct claw_ndjson *s, const char *data, size_t n)
{
    char *copy = malloc(n ? n : 1); /* on the heap: an overrun is seen */
    memcpy(copy, data, n);
    int rc = claw_ndjson_feed(s, copy, n, on_line, &seen);
    free(copy);
    return rc;
}

static void assert_seen(const char *z)
{
    assert_true(claw_str_eqz(claw_buf_str(&seen), z));
    claw_buf_clear(&seen);
}

static void cut_anywhere(void **state)
{
    static const char text[] = "{\"a\":1}\n\r\n{\"b\":2}\r\n \t\n{\"c\":\"\xc3\xa9\"}\n{\"last\":true}";
    for (size_t i = 0; i < sizeof text; i++) {
        for (size_t k = i; k < sizeof text; k++) {
            struct claw_ndjson s;
            claw_ndjson_init(&s, 1000);
            assert_int_equal(feed(&s, text, i), 0);
            assert_int_equal(feed(&s, text + i, k - i), 0);
            assert_int_equal(feed(&s, text + k, sizeof text - 1 - k), 0);
            assert_int_equal(claw_ndjson_end(&s, on_line, &seen), 0);
            assert_seen("{\"a\":1}|{\"b\":2}|{\"c\":\"\xc3\xa9\"}|{\"last\":true}|");
            claw_ndjson_fini(&s);
        }
    }
}

static void bounds_and_stops(void **state)
{
    struct claw_ndjson s;
    claw_ndjson_init(&s, 8);
    assert_int_equal(feed(&s, "12345678\n", 9), 0);
    assert_int_equal(feed(&s, "123456789\n", 10), CLAW_EBAD_RESPONSE);
    claw_ndjson_fini(&s);
    claw_ndjson_init(&s, 8);
    assert_int_equal(feed(&s, "12345", 5), 0);
    assert_int_equal(feed(&s, "6789", 4), CLAW_EBAD_RESPONSE);
    claw_ndjson_fini(&s);
    claw_buf_clear(&seen);
    claw_ndjson_init(&s, 8);
    stop_at = 2;
    assert_int_equal(feed(&s, "1\n2\n3\n", 6), CLAW_ECANCELED);
    assert_seen("1|2|");
    stop_at = 1;
    assert_int_equal(feed(&s, "4", 1), 0);
    assert_int_equal(claw_ndjson_end(&s, on_line, &seen), CLAW_ECANCELED);
    assert_int_equal(claw_ndjson_end(&s, on_line, &seen), 0);
    assert_seen("4|");
    claw_ndjson_fini(&s);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {cmocka_unit_test(cut_anywhere), cmocka_unit_test(bounds_and_stops)};
    claw_buf_init(&seen, 0);
    int rc = cmocka_run_group_tests_name("http/ndjson", tests, NULL, NULL);
    claw_buf_fini(&seen);
    return rc;
}
