/* shown: the configuration without its secrets, and the difference of two. */
#include "app/shown.h"
#include "script/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_buf out;

static struct claw_generation *made(const char *yaml)
{
    struct claw_arena arena;
    struct claw_conf_problems problems;
    struct claw_conf *conf;
    struct claw_generation *g;
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    claw_conf_problems_init(&problems, &arena);
    if (claw_conf_parse("/nowhere/t.yaml", claw_str_of(yaml), NULL, &conf, &problems) != 0) fail_msg("%s", problems.first->text);
    assert_int_equal(claw_generation_new(conf, &g, &problems), 0);
    claw_arena_reset(&arena);
    return g;
}

static const char *text(void)
{
    assert_int_equal(claw_buf_add(&out, "", 1), 0);
    return claw_buf_str(&out).ptr;
}

static const char *changes(const char *before, const char *after)
{
    struct claw_generation *a = made(before), *b = made(after);
    claw_buf_clear(&out);
    assert_int_equal(claw_shown_changes(a, b, &out), 0);
    claw_generation_unref(a);
    claw_generation_unref(b);
    return text();
}

#define ROUTE(id) "  - {id: " id ", match: {path: /" id "}, strategy: {upstream: u}}\n"
#define ONE "upstreams:\n  u: {type: generic, base_url: 'http://host', api_key: first-secret-1}\nroutes:\n" ROUTE("a") ROUTE("b")

static void nothing(void **state) { assert_string_equal(changes(ONE, ONE), "\"changes\":[],\"changes_left_out\":0"); }

/* The ones behind a new route are the same still, and a value that went has no "after". */
static void by_name(void **state)
{
    const char *s = changes(ONE "server: {listen_port: 1}\n", "upstreams:\n  u: {type: generic, base_url: 'http://host', api_key: other-secret-2}\nroutes:\n" ROUTE("c") ROUTE("a") ROUTE("b"));
    assert_non_null(strstr(s, "{\"path\":\"routes[c].match.path\",\"change\":\"added\",\"after\":\"/c\"}"));
    assert_non_null(strstr(s, "{\"path\":\"server.listen_port\",\"change\":\"removed\",\"before\":\"1\"}"));
    assert_non_null(strstr(s, "{\"path\":\"upstreams.u.api_key\",\"change\":\"changed\",\"before\":\"***\",\"after\":\"***\"}"));
    assert_null(strstr(s, "routes[a]"));
    assert_null(strstr(s, "secret"));
}

static const char *difference(const char *before, const char *after)
{
    struct claw_generation *a = made(before), *b = made(after);
    struct claw_shown_diff d = {.out = &out};
    claw_buf_clear(&out);
    assert_int_equal(claw_shown_diff(&d, a->conf, b->conf), 0);
    assert_int_equal(claw_buf_add_fmt(&out, "%zu %zu", d.n, d.sealed), 0);
    claw_generation_unref(a);
    claw_generation_unref(b);
    return text();
}

/* Nobody shows what a header field got from a variable, whatever both are called. */
static void lines_without_secrets(void **state)
{
#define HEADED(key, var) "upstreams:\n  u: {type: generic, base_url: 'http://host', api_key: " key ", headers: {x-a: '" var "', x-b: plain}}\nroutes:\n" ROUTE("a")
    setenv("SHOWN_A", "from-outside-1", 1);
    setenv("SHOWN_B", "from-outside-2", 1);
    assert_string_equal(difference(HEADED("first-secret-1", "${SHOWN_A}"), HEADED("other-secret-2", "${SHOWN_B}")),
                        "live     upstreams.u.api_key: changed\nlive     upstreams.u.headers.x-a: changed\n2 0");
    assert_null(strstr(changes(HEADED("first-secret-1", "${SHOWN_A}"), HEADED("first-secret-1", "${SHOWN_B}")), "from-outside"));
    struct claw_generation *g = made(HEADED("first-secret-1", "${SHOWN_A}"));
    claw_buf_clear(&out);
    assert_int_equal(claw_shown_add(g->conf->root, &out), 0);
    assert_non_null(strstr(text(), "\"headers\":{\"x-a\":\"***\",\"x-b\":\"plain\"}"));
    claw_generation_unref(g);
}

static void what_wants_a_restart(void **state)
{
    assert_string_equal(difference(ONE, ONE "server: {listen_port: 1}\nstate: {path: /x}\n"),
                        "restart  server.listen_port: added, 1\nlive     state.path: added, /x\n2 1");
    assert_string_equal(difference(ONE "state: {path: /x}\n", ONE "state: {path: /y}\n"), "restart  state.path: /x -> /y\n1 1");
    assert_string_equal(difference("upstreams: {u: {type: mock}}\nroutes:\n" ROUTE("a") ROUTE("b"), "upstreams: {u: {type: mock}}\nroutes:\n" ROUTE("b") ROUTE("a")),
                        "live     routes: the order changed, [b] stands before [a] now\n1 0");
}

static void bounded(void **state)
{
    struct claw_buf many;
    claw_buf_init(&many, 0);
    assert_int_equal(claw_buf_add_z(&many, ONE), 0);
    for (int i = 0; i < 100; i++) assert_int_equal(claw_buf_add_fmt(&many, "  - {id: r%d, match: {path: /x%d}, strategy: {upstream: u}}\n", i, i), 0);
    assert_int_equal(claw_buf_add(&many, "", 1), 0);
    const char *s = changes(ONE, claw_buf_str(&many).ptr);
    assert_non_null(strstr(s, "\"changes_left_out\":100")); /* id, path and upstream of each are 300 */
    claw_buf_fini(&many);
}

static void a_value(void **state)
{
    struct claw_generation *g = made(ONE "security: {ip_whitelist: ['10.0.0.0/8']}\nserver: {listen_port: 8080, expose_headers: false, tls: null}\n");
    claw_buf_clear(&out);
    assert_int_equal(claw_shown_add(g->conf->root, &out), 0);
    const char *s = text();
    assert_non_null(strstr(s, "\"server\":{\"listen_port\":8080,\"expose_headers\":false,\"tls\":null}"));
    assert_non_null(strstr(s, "\"ip_whitelist\":[\"10.0.0.0/8\"]"));
    assert_non_null(strstr(s, "\"api_key\":\"***\""));
    claw_generation_unref(g);
}

int main(void)
{
    claw_buf_init(&out, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing), cmocka_unit_test(by_name), cmocka_unit_test(lines_without_secrets), cmocka_unit_test(what_wants_a_restart), cmocka_unit_test(bounded), cmocka_unit_test(a_value)};
    int failed = cmocka_run_group_tests_name("app/shown", tests, NULL, NULL);
    claw_buf_fini(&out);
    return failed;
}
