/* series: what policies count adds up over threads, stays within its bounds, and reads as Prometheus wants it. */
#include "proxy/series.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *why;

static int forget(void **state)
{
    claw_series_reset();
    return 0;
}

static int count(const char *name, const char *label, double n)
{
    return claw_series_note(CLAW_SERIES_COUNTER, claw_str_of(name), CLAW_STR("p"), claw_str_of(label), n, &why);
}

static int gauge(const char *name, const char *label, double n)
{
    return claw_series_note(CLAW_SERIES_GAUGE, claw_str_of(name), CLAW_STR("p"), claw_str_of(label), n, &why);
}

static void assert_says(const char *text)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_series_write(&b), 0);
    assert_int_equal(claw_buf_add(&b, "", 1), 0);
    assert_string_equal(b.data, text);
    claw_buf_fini(&b);
}

static void counters_and_gauges(void **state)
{
    assert_says("");
    assert_int_equal(count("hits", "", 1) | count("hits", "", 2.5) | count("hits", "", 0), 0);
    assert_int_equal(gauge("depth", "x", 7) | gauge("depth", "x", -2), 0);
    assert_says("# HELP openclaw_policy_hits_total A count of policies.\n# TYPE openclaw_policy_hits_total counter\n"
                "openclaw_policy_hits_total{policy=\"p\",label=\"\"} 3.5\n"
                "# HELP openclaw_policy_depth A gauge of policies.\n# TYPE openclaw_policy_depth gauge\n"
                "openclaw_policy_depth{policy=\"p\",label=\"x\"} -2\n");
}

static void a_name_has_one_kind_and_is_not_the_proxys(void **state)
{
    assert_int_equal(count("hits", "", 1), 0);
    assert_int_equal(gauge("hits", "", 1), CLAW_EINVAL);
    assert_int_equal(gauge("hits", "other", 1), CLAW_EINVAL);
    assert_string_equal(why, "the name is a counter's");
    const char *const taken[] = {"errors", "fetches"};
    for (size_t i = 0; i < 2; i++) assert_int_equal(count(taken[i], "", 1), CLAW_EINVAL);
    assert_int_equal(gauge("fetch_duration_seconds", "", 1), CLAW_EINVAL);
    assert_int_equal(gauge("fetch_duration_seconds_sum", "", 1), CLAW_EINVAL);
    assert_int_equal(gauge("hits_total", "", 1), CLAW_EINVAL);
    assert_int_equal(gauge("errors", "", 1), 0); /* openclaw_policy_errors is free */
}

static void labels_are_cut_and_made_clean(void **state)
{
    char label[100];
    memset(label, 'a', 63);
    strcpy(label + 63, "\xc3\xa9 and more");
    assert_int_equal(count("a", label, 1), 0);
    label[63] = 0;
    char text[400];
    snprintf(text, sizeof text, "# HELP openclaw_policy_a_total A count of policies.\n# TYPE openclaw_policy_a_total counter\n"
                                "openclaw_policy_a_total{policy=\"p\",label=\"%s\"} 1\n", label);
    assert_says(text);
    claw_series_reset();
    assert_int_equal(count("b", "q\"u\\o\nt\te\xff", 1), 0);
    assert_says("# HELP openclaw_policy_b_total A count of policies.\n# TYPE openclaw_policy_b_total counter\n"
                "openclaw_policy_b_total{policy=\"p\",label=\"q\\\"u\\\\o\\nt e\xef\xbf\xbd\"} 1\n");
}

static void bounds_hold(void **state)
{
    char name[20];
    for (int i = 0; i < CLAW_SERIES_NAMES; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(count(name, "", 1), 0);
    }
    assert_int_equal(count("more", "", 1), CLAW_ENOMEM);
    for (int i = CLAW_SERIES_NAMES; i < CLAW_SERIES_MAX; i++) {
        snprintf(name, sizeof name, "l%d", i);
        assert_int_equal(count("n0", name, 1), 0);
    }
    assert_int_equal(count("n0", "more", 1), CLAW_ENOMEM);
    assert_string_equal(why, "policies have 500 series already");
    assert_int_equal(count("n0", "l40", 1), 0);
}

static void *run(void *arg)
{
    char label[8];
    for (int i = 0; i < 20000; i++) {
        snprintf(label, sizeof label, "%d", i % 40);
        if (count("hits", label, 1) != 0) return arg;
    }
    return NULL;
}

static void threads_add_up(void **state)
{
    pthread_t t[4];
    void *bad;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, run, t), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(t[i], &bad), 0);
        assert_null(bad);
    }
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_series_write(&b), 0);
    unsigned n = 0;
    for (struct claw_str s = claw_buf_str(&b); claw_str_find(s, CLAW_STR("\"} 2000\n")) >= 0; n++) {
        size_t at = (size_t)claw_str_find(s, CLAW_STR("\"} 2000\n")) + 3;
        s = (struct claw_str){s.ptr + at, s.len - at};
    }
    assert_int_equal(n, 40);
    claw_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_teardown(name, forget)
        T(counters_and_gauges), T(a_name_has_one_kind_and_is_not_the_proxys), T(labels_are_cut_and_made_clean), T(bounds_hold),
        T(threads_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
