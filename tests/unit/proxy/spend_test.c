/* spend: periods begin and end where the calendar says, and additions of many threads are all there. */
#include "proxy/spend.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>



static int64_t at(const char *text)
{
    int y, mo, d, h, mi, s;
    assert_int_equal(sscanf(text, "%d-%d-%dT%d:%d:%d", &y, &mo, &d, &h, &mi, &s), 6);
    struct tm tm = {.tm_year = y - 1900, .tm_mon = mo - 1, .tm_mday = d, .tm_hour = h, .tm_min = mi, .tm_sec = s};
    return (int64_t)timegm(&tm);
}

static void periods(void **state)
{
    static const struct { enum claw_spend_per per; const char *now, *start, *end; } all[] = {
        {CLAW_SPEND_DAY, "2026-11-25T23:59:59", "2026-11-25T00:00:00", "2026-11-26T00:00:00"},
        {CLAW_SPEND_DAY, "2026-11-26T00:00:00", "2026-11-26T00:00:00", "2026-11-27T00:00:00"},
        {CLAW_SPEND_WEEK, "2026-11-25T12:00:00", "2026-11-23T00:00:00", "2026-11-30T00:00:00"}, /* a Wednesday */
        {CLAW_SPEND_WEEK, "2026-11-29T23:59:59", "2026-11-23T00:00:00", "2026-11-30T00:00:00"},
        {CLAW_SPEND_WEEK, "2026-11-30T00:00:00", "2026-11-30T00:00:00", "2026-12-07T00:00:00"},
        {CLAW_SPEND_WEEK, "2027-01-01T00:00:00", "2026-12-28T00:00:00", "2027-01-04T00:00:00"},
        {CLAW_SPEND_MONTH, "2026-11-30T23:59:59", "2026-11-01T00:00:00", "2026-12-01T00:00:00"},
        {CLAW_SPEND_MONTH, "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"},
        {CLAW_SPEND_MONTH, "2028-02-29T08:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"},
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(claw_spend_start(all[i].per, at(all[i].now)), at(all[i].start));
        assert_int_equal(claw_spend_end(all[i].per, at(all[i].now)), at(all[i].end));
    }
    assert_int_equal(claw_spend_start(CLAW_SPEND_TOTAL, at("2026-11-25T12:00:00")), 0);
    assert_int_equal(claw_spend_end(CLAW_SPEND_TOTAL, at("2026-11-25T12:00:00")), INT64_MAX);
}

static void words(void **state)
{
    enum claw_spend_per per;
    for (int i = 0; i < CLAW_SPEND_PERIODS; i++) {
        assert_true(claw_spend_per_of(claw_str_of(claw_spend_per_name((enum claw_spend_per)i)), &per));
        assert_int_equal(per, i);
    }
    assert_false(claw_spend_per_of(CLAW_STR("year"), &per));
}

static void counts_by_period(void **state)
{
    struct claw_spend *s = claw_spend_of(CLAW_STR("by-period"));
    int64_t t = at("2026-11-29T23:00:00"); /* a Sunday, two days before a month ends */
    claw_spend_add(s, 100, t);
    for (int i = 0; i < CLAW_SPEND_PERIODS; i++) assert_int_equal(claw_spend_in(s, (enum claw_spend_per)i, t), 100);
    t = at("2026-11-30T01:00:00");
    claw_spend_add(s, 20, t);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, t), 20);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_WEEK, t), 20);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_MONTH, t), 120);
    t = at("2026-12-01T00:00:00");
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_MONTH, t), 0);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_WEEK, t), 20);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_TOTAL, t), 120);
}

/* A clock that is set back must not give a spent budget back. */
static void time_that_runs_back(void **state)
{
    struct claw_spend *s = claw_spend_of(CLAW_STR("back"));
    claw_spend_add(s, 7, at("2026-11-26T00:00:01"));
    claw_spend_add(s, 5, at("2026-11-25T23:59:59"));
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, at("2026-11-26T00:00:02")), 12);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, at("2026-11-25T00:00:02")), 12);
}

static void restores(void **state)
{
    struct claw_spend *s = claw_spend_of(CLAW_STR("restored"));
    int64_t now = at("2026-11-25T12:00:00");
    claw_spend_restore(s, CLAW_SPEND_DAY, at("2026-11-25T00:00:00"), 40);
    claw_spend_restore(s, CLAW_SPEND_DAY, at("2026-11-24T00:00:00"), 1000);
    claw_spend_restore(s, CLAW_SPEND_TOTAL, 0, 9000);
    claw_spend_add(s, 2, now);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, now), 42);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_TOTAL, now), 9002);
    assert_ptr_equal(s, claw_spend_of(CLAW_STR("restored")));
    assert_ptr_not_equal(s, claw_spend_of(CLAW_STR("restore")));
}

static void *adds(void *arg)
{
    for (int i = 0; i < 20000; i++) claw_spend_add(claw_spend_of(CLAW_STR("many")), 1, 1764028800 + i / 100);
    return NULL;
}

static void from_many_threads(void **state)
{
    pthread_t t[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, adds, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(claw_spend_in(claw_spend_of(CLAW_STR("many")), CLAW_SPEND_TOTAL, 1764028800), 80000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(periods), cmocka_unit_test(words), cmocka_unit_test(counts_by_period), cmocka_unit_test(time_that_runs_back),
        cmocka_unit_test(restores), cmocka_unit_test(from_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
