/* req: what of a client's request goes on to an upstream, and what does not. */
#include "proxy/pipeline.h"

#include "../http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char yaml[] =
    "upstreams:\n"
    "  root: {type: generic, base_url: 'http://root:81', api_keys: ['key-a', 'key-b'], headers: {X-Team: red}}\n"
    "  below: {type: generic, base_url: 'http://below/openai/v1'}\n"
    "  beta: {type: generic, base_url: 'http://below/g/v1beta'}\n"
    "routes:\n"
    "  - {id: r1, match: {path: '*'}, strategy: {type: first_available, upstreams: [root, below, beta]}}\n";

static struct claw_loop loop;
static struct claw_pool *pool;
static struct claw_worker_ctx ctx;
static struct claw_generation *generation;
static struct claw_arena problems_arena;

static int set_up(void **state)
{
    struct claw_conf_problems problems;
    struct claw_conf *conf;
    const struct claw_conf_header fixed[] = {{CLAW_STR("x-version"), CLAW_STR("1")}};
    claw_arena_init(&problems_arena, NULL, 0, 1 << 20);
    claw_conf_problems_init(&problems, &problems_arena);
    if (claw_conf_parse("t.yaml", CLAW_STR(yaml), NULL, &conf, &problems) != 0) {
        print_error("%s\n", problems.first->text);
        return -1;
    }
    if (claw_loop_init(&loop) != 0 || claw_pool_new(&loop, NULL, &pool) != 0) return -1;
    if (claw_generation_new(conf, &generation, &problems) != 0) return -1;
    if (claw_generation_set_upstream(generation, 0, "authorization", "Bearer ", fixed, 1) != 0) return -1;
    for (size_t i = 1; i < 3; i++)
        if (claw_generation_set_upstream(generation, i, NULL, NULL, NULL, 0) != 0) return -1;
    ctx = (struct claw_worker_ctx){.loop = &loop, .pool = pool};
    return claw_generation_local_new(generation, &loop, pool, NULL, NULL, &ctx.current);
}

static int tear_down(void **state)
{
    assert_int_equal(ctx.requests_n, 0);
    claw_generation_local_unref(ctx.current);
    claw_generation_unref(generation);
    claw_loop_turn(&loop, false);
    claw_pool_free(pool);
    while (ctx.spare) {
        struct claw_req *r = ctx.spare;
        ctx.spare = r->next;
        free(r);
    }
    claw_loop_turn(&loop, false);
    claw_arena_reset(&problems_arena);
    assert_int_equal(claw_generation_live(), 0);
    return claw_loop_fini(&loop, true);
}

/* ---- a request from its text ---------------------------------------------------------------------------------------- */

static int on_head(struct claw_h1 *p, struct claw_head *h)
{
    ((struct claw_req *)p->arg)->head = h;
    return 0;
}
static int on_body(struct claw_h1 *p, const char *data, size_t n) { return 0; }
static int on_done(struct claw_h1 *p) { return 0; }

static struct claw_req *request(const char *text, unsigned upstream)
{
    static const struct claw_h1_events events = {on_head, on_body, on_done};
    static struct claw_h1 parser;
    struct claw_req *r = claw_req_new(&ctx, NULL);
    size_t used;
    assert_non_null(r);
    claw_h1_init(&parser, CLAW_H1_REQUEST, &claw_h1_defaults, &events, r);
    claw_h1_begin(&parser, &r->arena, false);
    assert_int_equal(claw_h1_feed(&parser, text, strlen(text), &used), 0);
    assert_non_null(r->head);
    r->candidates[0].upstream = (uint16_t)upstream;
    r->candidates_n = 1;
    r->serial = 0; /* the first key */
    return r;
}

static void assert_head(struct claw_req *r, size_t body, const char *expected)
{
    struct claw_str s;
    assert_int_equal(claw_req_write_head(r, body, &s), 0);
    char *text = strndup(s.ptr, s.len);
    assert_string_equal(text, expected);
    free(text);
}

#define ROOT "Host: root:81\r\nauthorization: Bearer key-a\r\nx-version: 1\r\nX-Team: red\r\naccept-encoding: identity\r\n"
#define BELOW "Host: below\r\naccept-encoding: identity\r\n"

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void paths_join(void **state)
{
    static const struct { const char *target; unsigned upstream; const char *line; } rows[] = {
        {"/v1/chat/completions", 0, "GET /v1/chat/completions HTTP/1.1\r\n"},
        {"/v1/chat/completions", 1, "GET /openai/v1/chat/completions HTTP/1.1\r\n"},
        {"/v1", 1, "GET /openai/v1 HTTP/1.1\r\n"},
        {"/v10/x", 1, "GET /openai/v1/v10/x HTTP/1.1\r\n"},
        {"/other", 1, "GET /openai/v1/other HTTP/1.1\r\n"},
        {"/v1beta/files", 2, "GET /g/v1beta/files HTTP/1.1\r\n"},
        {"/v1/files", 2, "GET /g/v1beta/files HTTP/1.1\r\n"},
        {"/v1beta1/files", 2, "GET /g/v1beta/v1beta1/files HTTP/1.1\r\n"},
        {"/v1beta", 1, "GET /openai/v1/v1beta HTTP/1.1\r\n"},
        {"/", 0, "GET / HTTP/1.1\r\n"},
        {"/a%20b//c", 0, "GET /a%20b//c HTTP/1.1\r\n"},
        {"/a?x=1&y=2", 0, "GET /a?x=1&y=2 HTTP/1.1\r\n"},
        {"/a?key=secret", 0, "GET /a HTTP/1.1\r\n"},
        {"/a?key=secret&alt=sse", 0, "GET /a?alt=sse HTTP/1.1\r\n"},
        {"/a?alt=sse&api_key=secret", 0, "GET /a?alt=sse HTTP/1.1\r\n"},
        {"/a?monkey=1&keys=2", 0, "GET /a?monkey=1&keys=2 HTTP/1.1\r\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256], expected[512];
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nhost: me\r\n\r\n", rows[i].target);
        snprintf(expected, sizeof expected, "%s%s\r\n", rows[i].line, rows[i].upstream ? BELOW : ROOT);
        struct claw_req *r = request(text, rows[i].upstream);
        assert_head(r, 0, expected);
        claw_req_free(r);
    }
}

static void credentials_and_hops_stay(void **state)
{
    struct claw_req *r = request(
        "POST /v1/x HTTP/1.1\r\nHost: me\r\nAuthorization: Bearer client\r\nX-Api-Key: client\r\napi-key: client\r\n"
        "x-goog-api-key: client\r\nCookie: a=b\r\nProxy-Authorization: c\r\nForwarded: for=1\r\nX-Forwarded-For: 10.0.0.1\r\n"
        "X-Real-IP: 10.0.0.1\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        "Expect: 100-continue\r\nAccept-Encoding: gzip\r\nX-OpenClaw-Route: spoofed\r\nX-Team: blue\r\nx-VERSION: 2\r\n"
        "User-Agent: sdk\r\nContent-Type: application/json\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Length: 2\r\n\r\n{}", 0);
    assert_head(r, 2, "POST /v1/x HTTP/1.1\r\n" ROOT "User-Agent: sdk\r\nContent-Type: application/json\r\n"
                      "X-Twice: 1\r\nX-Twice: 2\r\ncontent-length: 2\r\n\r\n");
    claw_req_free(r);
}

static void lengths_are_written_when_there_is_a_body(void **state)
{
    struct claw_req *r = request("POST /x HTTP/1.1\r\nhost: me\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 1);
    assert_head(r, 0, "POST /openai/v1/x HTTP/1.1\r\n" BELOW "content-length: 0\r\n\r\n");
    assert_head(r, 1234567890, "POST /openai/v1/x HTTP/1.1\r\n" BELOW "content-length: 1234567890\r\n\r\n");
    claw_req_free(r);
    r = request("DELETE /x HTTP/1.1\r\nhost: me\r\n\r\n", 1);
    assert_head(r, 0, "DELETE /openai/v1/x HTTP/1.1\r\n" BELOW "\r\n");
    claw_req_free(r);
}

static void policies_set_replace_and_remove(void **state)
{
    struct claw_req *r = request("GET /x HTTP/1.1\r\nhost: me\r\nx-a: 1\r\nx-b: 2\r\n\r\n", 0);
    assert_int_equal(claw_req_set_header(r, CLAW_STR("X-A"), CLAW_STR("one")), 0);
    assert_int_equal(claw_req_set_header(r, CLAW_STR("x-b"), (struct claw_str){NULL, 0}), 0);
    assert_int_equal(claw_req_set_header(r, CLAW_STR("x-team"), CLAW_STR("green")), 0); /* the upstream's own */
    assert_int_equal(claw_req_set_header(r, CLAW_STR("X-Version"), (struct claw_str){NULL, 0}), 0);
    assert_int_equal(claw_req_set_header(r, CLAW_STR("x-a"), CLAW_STR("two")), 0); /* the last word */
    assert_head(r, 0, "GET /x HTTP/1.1\r\nHost: root:81\r\nauthorization: Bearer key-a\r\naccept-encoding: identity\r\n"
                      "x-a: two\r\nx-team: green\r\n\r\n");
    char name[16];
    for (int i = 0; i < 100; i++) {
        int n = snprintf(name, sizeof name, "x-%d", i);
        assert_int_equal(claw_req_set_header(r, (struct claw_str){name, (size_t)n}, CLAW_STR("")), 0);
    }
    struct claw_str s;
    assert_int_equal(claw_req_write_head(r, 0, &s), 0);
    assert_true(claw_str_find(s, CLAW_STR("\r\nx-0: \r\n")) > 0 && claw_str_find(s, CLAW_STR("\r\nx-99: \r\n\r\n")) > 0);
    claw_req_free(r);
}

static void policies_cannot_break_the_head(void **state)
{
    static const struct { struct claw_str name, value; } rows[] = {
        {CLAW_STR(""), CLAW_STR("v")},          {CLAW_STR("a b"), CLAW_STR("v")},
        {CLAW_STR("a:"), CLAW_STR("v")},        {CLAW_STR("a\r\nb"), CLAW_STR("v")},
        {CLAW_STR("a"), CLAW_STR("v\r\nx: y")}, {CLAW_STR("a"), CLAW_STR("v\n")},
        {CLAW_STR("a"), CLAW_STR("v\0w")},      {CLAW_STR("Host"), CLAW_STR("v")},
        {CLAW_STR("content-LENGTH"), CLAW_STR("1")}, {CLAW_STR("transfer-encoding"), CLAW_STR("chunked")},
        {CLAW_STR("Connection"), CLAW_STR("close")}, {CLAW_STR("expect"), CLAW_STR("100-continue")},
    };
    struct claw_req *r = request("GET /x HTTP/1.1\r\nhost: me\r\n\r\n", 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(claw_req_set_header(r, rows[i].name, rows[i].value), CLAW_EINVAL);
    assert_head(r, 0, "GET /openai/v1/x HTTP/1.1\r\n" BELOW "\r\n");
    claw_req_free(r);
}

static void a_path_of_a_policy_stands_below_base_url(void **state)
{
    struct claw_req *r = request("GET /v1/x?a=1 HTTP/1.1\r\nhost: me\r\n\r\n", 1);
    r->out_path = CLAW_STR("/v1/other");
    assert_head(r, 0, "GET /openai/v1/v1/other?a=1 HTTP/1.1\r\n" BELOW "\r\n");
    claw_req_free(r);
}

static void the_attempt_s_key_is_sent(void **state)
{
    struct claw_req *r = request("GET /x HTTP/1.1\r\nhost: me\r\n\r\n", 0);
    struct claw_str s;
    r->attempts_n = 1;
    r->attempt = 0;
    for (unsigned i = 0; i < 4; i++) {
        r->attempts[0].key = (uint16_t)(i % 2);
        assert_int_equal(claw_req_write_head(r, 0, &s), 0);
        assert_true(claw_str_find(s, i % 2 ? CLAW_STR("Bearer key-b\r\n") : CLAW_STR("Bearer key-a\r\n")) > 0);
    }
    claw_req_free(r);
}

static void requests_begin_clean(void **state)
{
    struct claw_req *a = claw_req_new(&ctx, NULL), *b = claw_req_new(&ctx, NULL);
    char id[33];
    assert_int_equal(ctx.requests_n, 2);
    assert_string_not_equal(a->id, b->id);
    assert_int_equal(strspn(a->id, "0123456789abcdef"), 32);
    assert_true(b->serial > a->serial);
    memcpy(id, a->id, sizeof id);
    uint64_t serial = b->serial;
    a->route = 0;
    assert_true(claw_str_eqz(claw_req_route_id(a), "r1"));
    a->model = CLAW_STR("asked");
    a->candidates_n = 1;
    assert_true(claw_str_eqz(claw_req_sent_model(a), "asked"));
    a->candidates[0].model = CLAW_STR("sent");
    assert_true(claw_str_eqz(claw_req_sent_model(a), "sent"));
    assert_ptr_equal(claw_req_upstream(a), &generation->upstreams[0]);
    a->candidate = 1; /* all are used up */
    assert_null(claw_req_upstream(a));
    assert_true(claw_str_eqz(claw_req_sent_model(a), "asked"));
    assert_non_null(claw_arena_alloc(&a->arena, 100000));
    assert_int_equal(claw_buf_add_z(&a->body, "left over"), 0);
    claw_req_cancel_upstream(a); /* nothing is under way */
    claw_req_free(a);
    struct claw_req *c = claw_req_new(&ctx, NULL); /* a's memory, perhaps; nothing else of it */
    assert_string_not_equal(c->id, id);
    assert_true(c->serial > serial);
    assert_int_equal(c->route, -1);
    assert_int_equal(c->cost_micros, -1);
    assert_true(c->usage.input == -1 && c->usage.output == -1);
    assert_int_equal(claw_buf_size(&c->body), 0);
    assert_int_equal(c->candidates_n + c->attempts_n + c->model.len, 0);
    assert_null(claw_req_upstream(c));
    assert_true(claw_str_eqz(claw_req_route_id(c), ""));
    claw_req_free(b);
    claw_req_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_join),
        cmocka_unit_test(credentials_and_hops_stay),
        cmocka_unit_test(lengths_are_written_when_there_is_a_body),
        cmocka_unit_test(policies_set_replace_and_remove),
        cmocka_unit_test(policies_cannot_break_the_head),
        cmocka_unit_test(a_path_of_a_policy_stands_below_base_url),
        cmocka_unit_test(the_attempt_s_key_is_sent),
        cmocka_unit_test(requests_begin_clean),
    };
    return cmocka_run_group_tests_name("proxy/req", tests, set_up, tear_down);
}
