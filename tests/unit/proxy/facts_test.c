/* facts: what strategies are told of an upstream, over names, models and threads. */
#include "proxy/facts.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define MODEL CLAW_STR("m")

static struct claw_upstream_facts get(struct claw_upstream_stats *s, struct claw_str model, uint64_t now_ms)
{
    struct claw_upstream_facts f;
    claw_upstream_stats_get(s, model, now_ms, &f);
    return f;
}

static bool near(double a, double b) { return a > b - 0.002 && a < b + 0.002; }

static void nothing_is_known_at_first(void **state)
{
    struct claw_upstream_stats *s = claw_upstream_stats_of(CLAW_STR("fresh"));
    struct claw_upstream_facts f = get(s, MODEL, 5);
    assert_int_equal(f.outstanding, 0);
    assert_true(f.ewma_ttfb_ms < 0 && f.mean_output < 0);
    assert_int_equal(f.age_ms, 0);
}

static void a_name_keeps_its_facts(void **state)
{
    struct claw_upstream_stats *s = claw_upstream_stats_of(CLAW_STR("kept"));
    claw_upstream_stats_begin(s);
    claw_upstream_stats_begin(s);
    assert_ptr_equal(claw_upstream_stats_of(CLAW_STR("kept")), s);
    assert_ptr_not_equal(claw_upstream_stats_of(CLAW_STR("kep")), s);
    assert_ptr_not_equal(claw_upstream_stats_of(CLAW_STR("kept2")), s);
    assert_int_equal(get(s, MODEL, 0).outstanding, 2);
    claw_upstream_stats_end(s);
    claw_upstream_stats_end(s);
    assert_int_equal(get(s, MODEL, 0).outstanding, 0);
}

static void averages_move_towards_samples(void **state)
{
    struct claw_upstream_stats *s = claw_upstream_stats_of(CLAW_STR("averages"));
    claw_upstream_stats_ttfb(s, MODEL, 100000, 1000);
    assert_true(near(get(s, MODEL, 1000).ewma_ttfb_ms, 100)); /* the first sample is all there is */
    claw_upstream_stats_ttfb(s, MODEL, 200000, 1500);
    struct claw_upstream_facts f = get(s, MODEL, 1750);
    assert_true(f.ewma_ttfb_ms > 100 && f.ewma_ttfb_ms < 200);
    assert_int_equal(f.age_ms, 250);
    assert_int_equal(get(s, MODEL, 1400).age_ms, 0); /* another worker's clock may be a little behind */
    for (int i = 0; i < 100; i++) claw_upstream_stats_ttfb(s, MODEL, 50000, 2000);
    assert_true(get(s, MODEL, 2000).ewma_ttfb_ms < 51);
    assert_true(get(s, MODEL, 2000).mean_output < 0); /* another figure */
    claw_upstream_stats_output(s, MODEL, 0);
    assert_true(near(get(s, MODEL, 0).mean_output, 0)); /* nought is a sample */
    for (int i = 0; i < 100; i++) claw_upstream_stats_output(s, MODEL, 300);
    assert_true(get(s, MODEL, 0).mean_output > 299 && get(s, MODEL, 0).mean_output <= 300);
}

static void models_are_kept_apart_and_bounded(void **state)
{
    struct claw_upstream_stats *s = claw_upstream_stats_of(CLAW_STR("models"));
    char name[32];
    for (int i = 0; i < 1000; i++) {
        int n = snprintf(name, sizeof name, "model-%d", i);
        claw_upstream_stats_ttfb(s, (struct claw_str){name, (size_t)n}, 1000u * (unsigned)(i + 1), 1);
    }
    int known = 0;
    for (int i = 0; i < 1000; i++) {
        int n = snprintf(name, sizeof name, "model-%d", i);
        struct claw_upstream_facts f = get(s, (struct claw_str){name, (size_t)n}, 1);
        if (f.ewma_ttfb_ms < 0) continue;
        known++;
        assert_true(near(f.ewma_ttfb_ms, i + 1));
    }
    assert_int_equal(known, 64);
    assert_true(get(s, CLAW_STR("never"), 1).ewma_ttfb_ms < 0); /* a full table is searched, not for ever */
}

static void *count(void *arg)
{
    for (int i = 0; i < 20000; i++) {
        claw_upstream_stats_begin(arg);
        claw_upstream_stats_ttfb(arg, MODEL, 1000, 1);
        if (i % 2) claw_upstream_stats_end(arg);
    }
    return NULL;
}

static void threads_count_together(void **state)
{
    struct claw_upstream_stats *s = claw_upstream_stats_of(CLAW_STR("threads"));
    pthread_t t[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, count, s), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(get(s, MODEL, 1).outstanding, 4 * 10000);
    assert_true(near(get(s, MODEL, 1).ewma_ttfb_ms, 1));
}

/* The last, for the names stay until the process ends. */
static void past_the_bound_names_share(void **state)
{
    char name[200];
    struct claw_upstream_stats *last = NULL;
    for (int i = 0; i < 1100; i++) {
        int n = snprintf(name, sizeof name, "upstream-%d", i);
        last = claw_upstream_stats_of((struct claw_str){name, (size_t)n});
        assert_non_null(last);
    }
    assert_ptr_equal(claw_upstream_stats_of(CLAW_STR("yet another")), last);
    assert_ptr_not_equal(claw_upstream_stats_of(CLAW_STR("kept")), last); /* the old ones keep theirs */
    memset(name, 'x', sizeof name);
    assert_non_null(claw_upstream_stats_of((struct claw_str){name, sizeof name}));
}

static void percentiles(void **state)
{
    struct claw_upstream_stats *s = claw_upstream_stats_of(CLAW_STR("timed"));
    for (int i = 0; i < 19; i++) claw_upstream_stats_ttfb(s, MODEL, 100000, 0);
    assert_int_equal(claw_upstream_stats_percentile(s, MODEL, 50), -1); /* too few */
    assert_int_equal(claw_upstream_stats_percentile(s, CLAW_STR("other"), 50), -1);
    claw_upstream_stats_ttfb(s, MODEL, 5000000, 0);
    int64_t p = claw_upstream_stats_percentile(s, MODEL, 95);
    assert_true(p >= 100 && p <= 125);
    p = claw_upstream_stats_percentile(s, MODEL, 99);
    assert_true(p >= 5000 && p <= 6200);
    for (int i = 0; i < 3000; i++) claw_upstream_stats_ttfb(s, MODEL, 20000, 0); /* what is long ago fades */
    p = claw_upstream_stats_percentile(s, MODEL, 99);
    assert_true(p >= 20 && p <= 25);
    const uint64_t odd[] = {0, 1, 999, 1000, 3000, 4000, 100000000, 400000000, UINT64_MAX};
    for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++) {
        char name[8];
        struct claw_str model = {name, (size_t)snprintf(name, sizeof name, "odd%u", i)};
        for (int k = 0; k < 20; k++) claw_upstream_stats_ttfb(s, model, odd[i], 0);
        p = claw_upstream_stats_percentile(s, model, 50);
        assert_true(p >= 1 && (odd[i] > 65000000 || p >= (int64_t)(odd[i] / 1000)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_at_first),
        cmocka_unit_test(a_name_keeps_its_facts),
        cmocka_unit_test(averages_move_towards_samples),
        cmocka_unit_test(models_are_kept_apart_and_bounded),
        cmocka_unit_test(percentiles),
        cmocka_unit_test(threads_count_together),
        cmocka_unit_test(past_the_bound_names_share),
    };
    return cmocka_run_group_tests_name("proxy/facts", tests, NULL, NULL);
}
