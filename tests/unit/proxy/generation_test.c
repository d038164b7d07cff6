/* generation: counted, refused when wrong, freed when the last one lets go. */
#include "proxy/generation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_arena arena;
static struct claw_conf_problems problems;

static int set_up(void **state)
{
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    claw_conf_problems_init(&problems, &arena);
    return 0;
}

static int tear_down(void **state)
{
    claw_arena_reset(&arena);
    assert_int_equal(claw_generation_live(), 0);
    return 0;
}

/* A generation with these lines in its upstream u. */
static int make(const char *fields, struct claw_generation **out)
{
    char yaml[1024];
    struct claw_conf *conf;
    snprintf(yaml, sizeof yaml,
             "upstreams:\n  u: {type: generic, base_url: 'http://host:81/v1'%s}\n  v: {type: generic, base_url: 'http://host:82'}\n"
             "routes:\n  - {id: r, match: {path: '*'}, strategy: {type: first_available, upstreams: [u]}}\n", fields);
    if (claw_conf_parse("t.yaml", claw_str_of(yaml), NULL, &conf, &problems) != 0) fail_msg("%s", problems.first->text);
    return claw_generation_new(conf, out, &problems);
}

static void assert_head(const struct claw_generation *g, size_t k, const char *expected)
{
    char *text = strndup(g->upstreams[0].heads[k].ptr, g->upstreams[0].heads[k].len);
    assert_string_equal(text, expected);
    free(text);
}

static void heads(void **state)
{
    static const struct claw_conf_header fixed[] = {{CLAW_STR("x-version"), CLAW_STR("1")}, {CLAW_STR("X-Team"), CLAW_STR("none")}};
    struct claw_generation *g;
    assert_int_equal(make(", api_keys: [first, second], headers: {x-team: red}", &g), 0);
    assert_int_equal(claw_generation_set_upstream(g, 0, "authorization", "Bearer ", fixed, 2), 0);
    assert_int_equal(g->upstreams[0].heads_n, 2);
    assert_head(g, 0, "Host: host:81\r\nauthorization: Bearer first\r\nx-version: 1\r\nx-team: red\r\naccept-encoding: identity\r\n");
    assert_head(g, 1, "Host: host:81\r\nauthorization: Bearer second\r\nx-version: 1\r\nx-team: red\r\naccept-encoding: identity\r\n");
    assert_int_equal(g->upstreams[0].own_n, 4);
    claw_generation_unref(g);
    assert_int_equal(make(", api_key: secret, headers: {Authorization: mine, Accept-Encoding: gzip}", &g), 0);
    assert_int_equal(claw_generation_set_upstream(g, 0, "authorization", "Bearer ", NULL, 0), 0);
    assert_head(g, 0, "Host: host:81\r\nAuthorization: mine\r\nAccept-Encoding: gzip\r\n"); /* what is configured wins */
    claw_generation_unref(g);
    assert_int_equal(make("", &g), 0);
    assert_int_equal(claw_generation_set_upstream(g, 0, "authorization", "Bearer ", NULL, 0), 0);
    assert_head(g, 0, "Host: host:81\r\naccept-encoding: identity\r\n"); /* no key, no field */
    claw_generation_unref(g);
}

/* The configuration is checked before; what ends a line is refused here all the same. */
static void fields_that_may_not_be(void **state)
{
    static const struct { const char *name, *value, *key; } rows[] = {
        {"x", "a\r\nb: c", "k"}, {"x", "a\n", "k"}, {"x y", "a", "k"}, {"", "a", "k"}, {"x:", "a", "k"}, {"x", "\x01", "k"}, {"x", "a", "a\r\nb: c"},
    };
    char yaml[256];
    snprintf(yaml, sizeof yaml, "upstreams:\n  u: {type: generic, base_url: 'http://h', api_key: key, headers: {x: y}}\n"
             "routes:\n  - {id: r, match: {path: '*'}, strategy: {type: first_available, upstreams: [u]}}\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_generation *g;
        struct claw_conf *conf;
        assert_int_equal(claw_conf_parse("t.yaml", claw_str_of(yaml), NULL, &conf, &problems), 0);
        conf->upstreams[0].headers[0] = (struct claw_conf_header){claw_str_of(rows[i].name), claw_str_of(rows[i].value)};
        conf->upstreams[0].api_keys[0].text = claw_str_of(rows[i].key);
        assert_int_equal(claw_generation_new(conf, &g, &problems), CLAW_EINVAL);
        assert_int_equal(problems.n, i + 1);
        assert_int_equal(claw_generation_live(), 0);
    }
}

static void missing_certificates(void **state)
{
    struct claw_generation *g;
    assert_int_equal(make("}\n  w: {type: generic, base_url: 'https://host', tls: {ca: /nowhere/ca.pem}", &g), CLAW_EINVAL);
    assert_int_equal(problems.n, 1);
    assert_non_null(strstr(problems.first->text, "upstreams.w.tls"));
}

static unsigned frees;
static void on_free(struct claw_generation_local *l) { frees++; }

static void locals(void **state)
{
    struct claw_loop loop;
    struct claw_pool *pool;
    struct claw_generation *g;
    struct claw_generation_local *a, *b;
    frees = 0;
    assert_int_equal(claw_loop_init(&loop), 0);
    assert_int_equal(claw_pool_new(&loop, NULL, &pool), 0);
    assert_int_equal(make("", &g), 0);
    assert_int_equal(claw_generation_local_new(g, &loop, pool, NULL, NULL, &a), 0);
    assert_int_equal(claw_generation_local_new(g, &loop, pool, NULL, NULL, &b), 0);
    assert_ptr_equal(a->endpoints[0], b->endpoints[0]); /* warm connections outlive a reload */
    assert_ptr_not_equal(a->endpoints[0], a->endpoints[1]);
    a->on_free = b->on_free = on_free;
    claw_generation_unref(g);
    claw_generation_local_ref(a);
    claw_generation_local_unref(a);
    claw_loop_turn(&loop, false);
    assert_int_equal(frees, 0);
    claw_generation_local_unref(a);
    assert_int_equal(frees, 0); /* not from within */
    claw_loop_turn(&loop, false);
    assert_int_equal(frees, 1);
    assert_int_equal(claw_generation_live(), 1);
    claw_generation_local_unref(b);
    claw_loop_turn(&loop, false);
    assert_int_equal(frees, 2);
    assert_int_equal(claw_generation_live(), 0);
    claw_pool_free(pool);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {TEST(heads), TEST(fields_that_may_not_be), TEST(missing_certificates), TEST(locals)};
    return cmocka_run_group_tests_name("proxy/generation", tests, NULL, NULL);
}
