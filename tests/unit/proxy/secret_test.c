/* Secrets: what the keeper says when there is nothing, when nothing can be had, and offline; fields of what was fetched. */
#include "proxy/secret_part.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static char why[256];

static int get(struct claw_secrets *s, enum claw_conf_store store, const char *name, const char *field, struct claw_arena *a, struct claw_str *out)
{
    const struct claw_conf_keeper *k = claw_secrets_keeper(s);
    why[0] = 0;
    return k->get(k->arg, (struct claw_conf_secret){store, claw_str_of(name)}, claw_str_of(field), a, out, why, sizeof why);
}

static void offline(void **state)
{
    struct claw_secrets *s;
    struct claw_arena a;
    struct claw_str one, two;
    claw_arena_init(&a, NULL, 0, 4096);
    assert_int_equal(claw_secrets_new(true, NULL, &s), 0);
    assert_int_equal(get(s, CLAW_CONF_VAULT, "a", "b", &a, &one), 0);
    assert_int_equal(get(s, CLAW_CONF_VAULT, "a", "c", &a, &two), 0);
    assert_int_equal(one.len, 64);
    assert_int_equal(strspn(one.ptr, "0123456789abcdef"), 64);
    assert_false(claw_str_eq(one, two));
    assert_int_equal(get(s, CLAW_CONF_AWS_SM, "a", "b", &a, &two), 0);
    assert_false(claw_str_eq(one, two));
    assert_int_equal(get(s, CLAW_CONF_VAULT, "a", "b", &a, &two), 0);
    assert_true(claw_str_eq(one, two));
    claw_secrets_free(s);
    claw_arena_reset(&a);
}

static void what_cannot_be_asked_for(void **state)
{
    struct claw_conf_secret all[] = {{CLAW_CONF_VAULT, CLAW_STR("a")}, {CLAW_CONF_VAULT, CLAW_STR("x/../y")}, {CLAW_CONF_AWS_SM, CLAW_STR("b")}};
    struct claw_conf_secrets of = {.all = all, .n = 3, .timeout_ms = 1000};
    struct claw_secrets *s;
    struct claw_arena a;
    struct claw_str out;
    claw_arena_init(&a, NULL, 0, 4096);
    of.vault.address = CLAW_STR("http://127.0.0.1:1");
    of.vault.version = 2;
    of.vault.token = CLAW_STR("token");
    assert_int_equal(claw_secrets_new(false, NULL, &s), 0);
    assert_int_equal(get(s, CLAW_CONF_VAULT, "a", "b", &a, &out), CLAW_EAGAIN);
    assert_false(claw_secrets_fit(s, &of));
    assert_int_equal(claw_secrets_fetch_now(s, &of), 0);
    assert_false(claw_secrets_busy(s));
    assert_int_equal(get(s, CLAW_CONF_VAULT, "a", "b", &a, &out), CLAW_EINVAL);
    assert_string_equal(why, "vault:a: connection refused");
    assert_int_equal(get(s, CLAW_CONF_VAULT, "x/../y", "b", &a, &out), CLAW_EINVAL);
    assert_string_equal(why, "vault:x/../y: a path has no . or .. in it, and at most 1024 bytes");
    assert_int_equal(get(s, CLAW_CONF_AWS_SM, "b", "", &a, &out), CLAW_EINVAL);
    assert_non_null(strstr(why, "there are no AWS credentials"));
    assert_int_equal(claw_secrets_stale(s), 0); /* there is no value from before */
    claw_secrets_begin(s, false);
    assert_int_equal(get(s, CLAW_CONF_VAULT, "a", "b", &a, &out), CLAW_EAGAIN);
    of.n = 1;
    claw_secrets_keep(s, &of);
    assert_int_equal(claw_secrets_hash(s, &of), 0);
    claw_secrets_free(s);
    claw_arena_reset(&a);
}

static void assert_field(const char *text, const char *field, int rc, const char *wanted)
{
    struct claw_secret e = {.there = true};
    struct claw_arena a;
    struct claw_str out;
    claw_arena_init(&a, NULL, 0, 4096);
    claw_buf_init(&e.text, 0);
    assert_int_equal(claw_buf_add_z(&e.text, text), 0);
    assert_int_equal(claw_secret_field(&e, claw_str_of(field), &a, &out, why, sizeof why), rc);
    if (rc != 0) assert_string_equal(why, wanted);
    else if (!claw_str_eqz(out, wanted)) fail_msg("\"%.*s\" is not \"%s\"", CLAW_STR_FMT(out), wanted);
    claw_buf_fini(&e.text);
    claw_arena_reset(&a);
}

static void fields(void **state)
{
    assert_field("{\"a\":\"b\\\"\\u00e9\"}", "a", 0, "b\"é");
    assert_field("{\"a\":17,\"b\":true}", "a", 0, "17");
    assert_field("{\"a\":17,\"b\":true}", "b", 0, "true");
    assert_field("{\"a\":\"\"}", "a", 0, "");
    assert_field("plain", "", 0, "plain");
    assert_field("plain", "a", CLAW_EINVAL, "it is no JSON object, so it has no field a");
    assert_field("{\"a\":null}", "a", CLAW_EINVAL, "its field a is neither text nor a number");
    assert_field("{\"a\":{}}", "b", CLAW_EINVAL, "it has no field b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(offline), cmocka_unit_test(what_cannot_be_asked_for), cmocka_unit_test(fields)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
