/* cooling: states by name, models while they fail, keys by their text. */
#include "proxy/cooling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static const struct claw_breaker_rules rules = {.failures = 1};

static void fail_once(struct claw_breaker *b)
{
    claw_breaker_fail(b, &rules, &(struct claw_breaker_failure){.now_ms = 5000, .began_ms = 5000, .why = "test"});
}

static void a_name_keeps_its_state(void **state)
{
    struct claw_cooling *c = claw_cooling_of(CLAW_STR("kept"));
    fail_once(&c->breaker);
    assert_ptr_equal(claw_cooling_of(CLAW_STR("kept")), c);
    assert_ptr_not_equal(claw_cooling_of(CLAW_STR("kep")), c);
    assert_int_equal(claw_breaker_state(&claw_cooling_of(CLAW_STR("kept"))->breaker, 5000), CLAW_BREAKER_OPEN);
    claw_cooling_forget();
    assert_false(claw_breaker_any());
}

static void models_are_bounded(void **state)
{
    struct claw_cooling *c = claw_cooling_of(CLAW_STR("models"));
    char name[80], shown[64];
    assert_null(claw_cooling_model(c, CLAW_STR("m"), false));
    struct claw_breaker *b = claw_cooling_model(c, CLAW_STR("m"), true);
    assert_ptr_equal(claw_cooling_model(c, CLAW_STR("m"), false), b);
    fail_once(b);
    for (unsigned i = 1; i < CLAW_COOLING_MODELS; i++) {
        snprintf(name, sizeof name, "a-model-of-a-name-that-is-longer-than-what-is-kept-of-it-to-be-shown-%u", i);
        struct claw_breaker *other = claw_cooling_model(c, claw_str_of(name), true);
        assert_non_null(other);
        fail_once(other);
    }
    claw_breaker_restore(b, 0);
    assert_ptr_equal(claw_cooling_model(c, CLAW_STR("one too many"), true), b); /* what fails no more gives its place */
    assert_null(claw_cooling_model(c, CLAW_STR("m"), false));
    unsigned at = 0, n = 0;
    while (claw_cooling_next_model(c, &at, shown)) n++;
    assert_int_equal(n, CLAW_COOLING_MODELS - 1);
    claw_cooling_forget();
}

static void invented_names_keep_no_place(void **state)
{
    static const struct claw_breaker_rules few = {.failures = 3};
    const struct claw_breaker_failure f = {.now_ms = 5000, .began_ms = 5000, .why = "test"};
    struct claw_cooling *c = claw_cooling_of(CLAW_STR("invented"));
    char name[80];
    for (unsigned i = 0; i < 3 * CLAW_COOLING_MODELS; i++) {
        snprintf(name, sizeof name, "once-%u", i);
        claw_breaker_fail(claw_cooling_model(c, claw_str_of(name), true), &few, &f);
    }
    for (unsigned i = 0; i < 3; i++) {
        claw_breaker_fail(claw_cooling_model(c, CLAW_STR("real"), true), &few, &f);
        claw_breaker_fail(claw_cooling_model(c, CLAW_STR("one more"), true), &few, &f);
    }
    struct claw_breaker *real = claw_cooling_model(c, CLAW_STR("real"), false);
    assert_non_null(real);
    assert_int_equal(claw_breaker_state(real, 5000), CLAW_BREAKER_OPEN);
    claw_breaker_cool(real, 5000, 100000, "rate_limited");
    for (unsigned i = 0; i < 3 * CLAW_COOLING_MODELS; i++) {
        snprintf(name, sizeof name, "open-%u", i);
        fail_once(claw_cooling_model(c, claw_str_of(name), true));
    }
    assert_ptr_equal(claw_cooling_model(c, CLAW_STR("real"), false), real); /* its pause is the longest */
    claw_cooling_forget();
}

static void a_key_is_its_text(void **state)
{
    struct claw_cooling *c = claw_cooling_of(CLAW_STR("keys"));
    struct claw_cooling_key *k = claw_cooling_key(c, CLAW_STR("sk-0123456789abcdef"));
    assert_string_equal(k->tail, "…cdef");
    assert_ptr_equal(claw_cooling_key(c, CLAW_STR("sk-0123456789abcdef")), k);
    claw_breaker_cool(&k->breaker, 1, CLAW_BREAKER_NEVER, "http_401");
    claw_cooling_key_unref(c, k);
    assert_ptr_equal(claw_cooling_key(c, CLAW_STR("sk-0123456789abcdef")), k); /* a reload: still known, still retired */
    assert_true(claw_breaker_any());
    struct claw_cooling_key *other = claw_cooling_key(c, CLAW_STR("sk-short"));
    assert_string_equal(other->tail, "…");
    assert_int_equal(claw_breaker_state(&other->breaker, 5), CLAW_BREAKER_CLOSED);
    claw_cooling_key_unref(c, other);
    claw_cooling_key_unref(c, k);
    claw_cooling_key_unref(c, k);
    assert_null(c->keys);
    assert_false(claw_breaker_any());
}

static void further_names_share_one(void **state)
{
    char name[32];
    struct claw_cooling *last = NULL;
    for (int i = 0; i < 1100; i++) {
        snprintf(name, sizeof name, "upstream-%d", i);
        last = claw_cooling_of(claw_str_of(name));
        assert_non_null(last);
    }
    assert_ptr_equal(claw_cooling_of(CLAW_STR("yet another")), last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_keeps_its_state),
        cmocka_unit_test(models_are_bounded),
        cmocka_unit_test(invented_names_keep_no_place),
        cmocka_unit_test(a_key_is_its_text),
        cmocka_unit_test(further_names_share_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
