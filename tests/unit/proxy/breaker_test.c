/* breaker: when it opens, for how long, who the probe is, and how it comes back; the clock is the test's. */
#include "proxy/breaker.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define T0 1000000u
#define EACH 3000

static const struct claw_breaker_rules rules = {.failures = 3, .percent = 25, .requests = 10};

static bool fail_at(struct claw_breaker *b, uint64_t now, uint64_t took)
{
    return claw_breaker_fail(b, &rules, &(struct claw_breaker_failure){.now_ms = now, .began_ms = now - took, .why = "test"});
}

static bool asked(struct claw_breaker *b, uint64_t now, int64_t ms)
{
    return claw_breaker_fail(b, &rules, &(struct claw_breaker_failure){.now_ms = now, .began_ms = now, .asked_ms = ms, .why = "asked"});
}

static uint64_t until(struct claw_breaker *b) { return atomic_load(&b->until_ms); }

/* Opened at T0. */
static void open_it(struct claw_breaker *b)
{
    for (int i = 0; i < 2; i++) assert_false(fail_at(b, T0, 0));
    assert_true(fail_at(b, T0, 0));
}

static void three_in_a_row(void **state)
{
    struct claw_breaker b = {0};
    assert_false(fail_at(&b, T0, 0));
    assert_false(fail_at(&b, T0, 0));
    assert_false(claw_breaker_succeed(&b, T0, T0));
    assert_false(fail_at(&b, T0, 0));
    assert_false(fail_at(&b, T0, 0));
    assert_false(claw_breaker_any());
    assert_true(fail_at(&b, T0, 0));
    assert_int_equal(claw_breaker_state(&b, T0), CLAW_BREAKER_OPEN);
    assert_true(claw_breaker_any());
    assert_in_range(until(&b), T0 + 800, T0 + 1000);
    assert_false(fail_at(&b, T0 + 1, 0));
    claw_breaker_restore(&b, T0);
    assert_false(claw_breaker_any());
    assert_int_equal(claw_breaker_state(&b, T0), CLAW_BREAKER_CLOSED);
}

/* One in three fails, never two in a row: as soon as ten are known it is too much. */
static void a_part_of_the_last_seconds(void **state)
{
    struct claw_breaker b = {0};
    bool open = false;
    int n = 0;
    for (; !open && n < 40; n++) {
        if (n % 3 == 2) open = fail_at(&b, T0 + n, 0);
        else claw_breaker_succeed(&b, T0 + n, T0 + n);
    }
    assert_int_equal(n, 12);
    claw_breaker_restore(&b, T0);
    for (n = 0; n < 200; n++) { /* one in five is not */
        if (n % 5 == 4) assert_false(fail_at(&b, T0 + n, 0));
        else claw_breaker_succeed(&b, T0 + n, T0 + n);
    }
    struct claw_breaker slow = {0};
    for (n = 0; n < 40; n++) { /* and what was 30 s ago no more */
        uint64_t now = T0 + (uint64_t)n * 6000;
        if (n % 3 == 2) assert_false(fail_at(&slow, now, 0));
        else claw_breaker_succeed(&slow, now, now);
    }
}

static void one_probe_at_a_time(void **state)
{
    struct claw_breaker b = {.ramps = true};
    open_it(&b);
    assert_false(claw_breaker_claim(&b, T0 + 700, 1000));
    assert_int_equal(claw_breaker_ready_ms(&b, T0 + 700), until(&b));
    uint64_t now = until(&b);
    assert_int_equal(claw_breaker_state(&b, now), CLAW_BREAKER_HALF_OPEN);
    assert_int_equal(claw_breaker_ready_ms(&b, now), 0);
    assert_true(claw_breaker_claim(&b, now, 1000));
    assert_false(claw_breaker_claim(&b, now, 1000));
    assert_true(claw_breaker_ready_ms(&b, now) > now);
    claw_breaker_release(&b);
    assert_true(claw_breaker_claim(&b, now + 1, 1000));
    assert_false(claw_breaker_claim(&b, now + 1000, 1000));
    assert_true(claw_breaker_claim(&b, now + 1001, 1000)); /* nobody said how it ended */
    assert_true(claw_breaker_succeed(&b, now + 1002, now + 1001));
    assert_int_equal(claw_breaker_state(&b, now + 1002), CLAW_BREAKER_CLOSED);
    claw_breaker_restore(&b, T0);
}

/* The pauses of ten probes in a row that fail after `took`. */
static void pauses_of(uint64_t took, const uint64_t *most)
{
    struct claw_breaker b = {.ramps = true};
    open_it(&b);
    for (int i = 1; i < 8; i++) {
        uint64_t now = until(&b);
        assert_true(claw_breaker_claim(&b, now, 100000));
        assert_false(fail_at(&b, now + took, took)); /* it was open before */
        assert_int_equal(claw_breaker_state(&b, now + took), CLAW_BREAKER_OPEN);
        uint64_t pause = until(&b) - now - took;
        assert_in_range(pause, most[i] * 4 / 5, most[i]);
    }
    claw_breaker_restore(&b, T0);
    assert_false(claw_breaker_any());
}

static void pauses_grow(void **state)
{
    static const uint64_t fast[] = {1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000};
    static const uint64_t slow[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
    pauses_of(20, fast);
    pauses_of(5000, slow);
}

static void its_share_grows(void **state)
{
    struct claw_breaker b = {.ramps = true};
    open_it(&b);
    uint64_t now = until(&b);
    assert_true(claw_breaker_succeed(&b, now, now));
    assert_int_equal(claw_breaker_share(&b, now), 100);
    assert_int_equal(claw_breaker_share(&b, now + 2500), 550);
    assert_true(claw_breaker_any());
    assert_int_equal(claw_breaker_share(&b, now + CLAW_BREAKER_RAMP_MS), 1000);
    assert_false(claw_breaker_any());
    assert_int_equal(atomic_load(&b.pauses), 0);
}

/* It fails again on its way back: the next pause is the second. Had it lasted, it would be the first. */
static void a_relapse_waits_longer(void **state)
{
    struct claw_breaker b = {.ramps = true};
    open_it(&b);
    uint64_t now = until(&b);
    claw_breaker_succeed(&b, now, now);
    for (int i = 0; i < 3; i++) fail_at(&b, now + 500, 0);
    assert_in_range(until(&b) - now - 500, 1600, 2000);
    now = until(&b);
    claw_breaker_succeed(&b, now, now);
    now += CLAW_BREAKER_RAMP_MS;
    for (int i = 0; i < 3; i++) fail_at(&b, now, 0);
    assert_in_range(until(&b) - now, 800, 1000);
    claw_breaker_restore(&b, T0);
}

static void what_began_before_says_nothing(void **state)
{
    struct claw_breaker b = {.ramps = true};
    open_it(&b);
    uint64_t now = until(&b);
    assert_false(claw_breaker_succeed(&b, T0 + 10, T0 - 5000)); /* a stream that ends well */
    assert_int_equal(claw_breaker_state(&b, T0 + 10), CLAW_BREAKER_OPEN);
    assert_false(fail_at(&b, now + 10, now + 10 - T0 + 1)); /* a time-out from before is no failed probe */
    assert_int_equal(claw_breaker_state(&b, now + 10), CLAW_BREAKER_HALF_OPEN);
    assert_true(claw_breaker_succeed(&b, now + 20, now));
    for (int i = 0; i < 5; i++) assert_false(fail_at(&b, now + 30, 1000));
    assert_int_equal(claw_breaker_state(&b, now + 30), CLAW_BREAKER_CLOSED);
    claw_breaker_restore(&b, T0);
}

static void a_time_it_asked_for_is_kept(void **state)
{
    struct claw_breaker b = {0};
    assert_true(asked(&b, T0, 7000));
    assert_int_equal(until(&b), T0 + 7000);
    assert_false(asked(&b, T0 + 10, 100)); /* a shorter one changes nothing */
    assert_int_equal(until(&b), T0 + 7000);
    asked(&b, T0 + 10, 86400000);
    assert_int_equal(until(&b), T0 + 10 + CLAW_BREAKER_ASKED_MS);
    asked(&b, T0 + 10, INT64_MAX / 2);
    assert_int_equal(until(&b), T0 + 10 + CLAW_BREAKER_ASKED_MS);
    claw_breaker_restore(&b, T0);
}

static void retired_until_it_serves(void **state)
{
    struct claw_breaker b = {0};
    assert_true(claw_breaker_cool(&b, T0, CLAW_BREAKER_NEVER, "http_401"));
    assert_false(claw_breaker_cool(&b, T0, CLAW_BREAKER_NEVER, "http_401"));
    assert_true(claw_breaker_ready_ms(&b, UINT64_MAX / 2) == CLAW_BREAKER_NEVER);
    assert_false(asked(&b, T0, 1000));
    assert_true(claw_breaker_ready_ms(&b, T0) == CLAW_BREAKER_NEVER);
    assert_true(claw_breaker_succeed(&b, T0 + 1, T0));
    assert_false(claw_breaker_any());
}

static void held_for_as_long_as_somebody_says(void **state)
{
    struct claw_breaker b = {.ramps = true};
    assert_true(claw_breaker_cool(&b, T0, T0 + 60000, "admin"));
    assert_false(claw_breaker_succeed(&b, T0 + 5, T0 + 4));
    assert_false(fail_at(&b, T0 + 5, 0));
    assert_int_equal(until(&b), T0 + 60000);
    assert_true(claw_breaker_claim(&b, T0 + 60000, 10));
    assert_true(claw_breaker_succeed(&b, T0 + 60001, T0 + 60000));
    claw_breaker_restore(&b, T0);
}

static void rules_of_nothing_open_nothing(void **state)
{
    struct claw_breaker b = {0};
    const struct claw_breaker_rules none = {0};
    for (int i = 0; i < 100; i++)
        assert_false(claw_breaker_fail(&b, &none, &(struct claw_breaker_failure){.now_ms = T0, .began_ms = T0, .why = "test"}));
    assert_false(claw_breaker_any());
}

static struct claw_breaker shared;
static _Atomic int probes, at_once, most_at_once;

/* Time goes on as the threads do; whoever gets the probe fails or succeeds by turns. */
static void *hammer(void *arg)
{
    static _Atomic uint64_t clock = T0;
    for (int i = 0; i < EACH; i++) {
        uint64_t now = atomic_fetch_add(&clock, 7);
        claw_breaker_share(&shared, now);
        if (claw_breaker_claim(&shared, now, 1u << 30)) {
            int n = atomic_fetch_add(&at_once, 1) + 1;
            if (n > atomic_load(&most_at_once)) atomic_store(&most_at_once, n);
            atomic_fetch_sub(&at_once, 1);
            if (atomic_fetch_add(&probes, 1) % 2) claw_breaker_succeed(&shared, now, now);
            else fail_at(&shared, now, 0);
        } else if (claw_breaker_state(&shared, now) == CLAW_BREAKER_CLOSED) {
            fail_at(&shared, now, 0);
        }
    }
    return NULL;
}

static void threads_agree(void **state)
{
    pthread_t t[4];
    shared.ramps = true;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_true(atomic_load(&probes) > 1);
    assert_int_equal(atomic_load(&most_at_once), 1);
    claw_breaker_restore(&shared, T0);
    assert_false(claw_breaker_any());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_in_a_row),
        cmocka_unit_test(a_part_of_the_last_seconds),
        cmocka_unit_test(one_probe_at_a_time),
        cmocka_unit_test(pauses_grow),
        cmocka_unit_test(its_share_grows),
        cmocka_unit_test(a_relapse_waits_longer),
        cmocka_unit_test(what_began_before_says_nothing),
        cmocka_unit_test(a_time_it_asked_for_is_kept),
        cmocka_unit_test(retired_until_it_serves),
        cmocka_unit_test(held_for_as_long_as_somebody_says),
        cmocka_unit_test(rules_of_nothing_open_nothing),
        cmocka_unit_test(threads_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
