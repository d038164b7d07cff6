/* policy: sources, proof, VMs, and every verdict of the engine that C does not believe unseen. The engines here are
 * small fakes; the last tests use the real one. */
#include "fixture.h"

#include <sys/stat.h>

static struct fixture f;
static struct claw_req *r;
static struct claw_policy_error err;

static int setup(void **state)
{
    fixture_init(&f);
    return 0;
}

static int teardown(void **state)
{
    if (r) fixture_req_free(r);
    r = NULL;
    fixture_fini(&f);
    return 0;
}

static const char frame[] =
    "return { new = function(spec) S = spec core = spec.core "
    "local function no() end local e = { admit = no, route = no, decide = no, request = no, retry = no, response = no, error = no, event = no, caches = no, recast = no, finish = no, explain = no, explain_attempt = no, explained = no, trace = no } "
    "e.hooks = { admit = true } %s return e end }";

/* A generation with two upstreams and an engine whose functions `code` sets on `e`. */
static void engine(const char *code)
{
    char source[8192];
    assert_true(snprintf(source, sizeof source, frame, code) < (int)sizeof source);
    if (r) fixture_req_free(r);
    r = NULL;
    fixture_fini(&f);
    fixture_init(&f);
    if (fixture_load(&f, two_upstreams) != 0) {
        fixture_print(&f);
        fail();
    }
    fixture_vm(&f, source);
    r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"gpt-4\",\"stream\":true,\"n\":9007199254740993}", NULL);
}

static bool says(const char *part) { return claw_str_find(err.message, claw_str_of(part)) >= 0; }

#define assert_says(part) do { if (!says(part)) fail_msg("\"%.*s\" lacks \"%s\"", CLAW_STR_FMT(err.message), part); } while (0)

/* ---- route -------------------------------------------------------------------------------------------------- */

static int route(void)
{
    struct claw_policy_answer answer = {.status = 0};
    return claw_policy_ops_lua.route(f.p, r, &answer, &err);
}

static void a_route_is_read(void **state)
{
    engine("function e.route(q, method, path, model, stream) assert(method == 'POST' and path == '/v1/chat/completions' and model == 'gpt-4' and stream == true) "
           "return 1, { { index = 2, model = 'claude' .. '-3', mask = 5 }, { index = 1, mask = 0 } }, 16 end");
    assert_int_equal(route(), 0);
    assert_int_equal(r->error, 0);
    assert_int_equal(r->route, 0);
    assert_int_equal(r->route_mask, 16);
    assert_int_equal(r->candidates_n, 2);
    assert_int_equal(r->candidates[0].upstream, 1);
    assert_int_equal(r->candidates[0].mask, CLAW_MASK_REQUEST | CLAW_MASK_EVENT);
    fixture_runs(f.p->vm, NULL, "collectgarbage() collectgarbage()"); /* the model is a copy */
    assert_true(claw_str_eqz(r->candidates[0].model, "claude-3"));
    assert_int_equal(r->candidates[1].upstream, 0);
    assert_int_equal(r->candidates[1].model.len, 0);
}

static void wrong_routes_are_refused(void **state)
{
    static const struct { const char *verdict, *says; } cases[] = {
        {"return 0, {{index=1}}", "route index 0"}, {"return 2, {{index=1}}", "route index 2"}, {"return 1.5, {{index=1}}", "route index 1.5"},
        {"return 'x', {}", "the route is \"x\""}, {"return true", "no decision and an unknown code nil"}, {"return {}", "the route is table"}, {"return 1", "candidates are a nil"},
        {"return 0/0, {}", "route index"}, {"return 1, 'x'", "candidates are a string"}, {"return 1, {}", "0 candidates"},
        {"local t = {} for i = 1, 17 do t[i] = {index=1} end return 1, t", "17 candidates"},
        {"return 1, {1}", "a candidate is a number"}, {"return 1, {{}}", "candidate index nil"}, {"return 1, {{index=0}}", "candidate index 0"},
        {"return 1, {{index=3}}", "candidate index 3 is no upstream (there are 2)"}, {"return 1, {{index='1'}}", "candidate index \"1\""},
        {"return 1, {{index=1e300}}", "candidate index 1e+300"}, {"return 1, {{index=1, model=5}}", "candidate model 5"},
        {"return 1, {{index=1, mask='x'}}", "candidate mask \"x\""}, {"return 1, {{index=1, mask=32}}", "candidate mask 32"},
        {"return 1, {{index=1}}, 'x'", "route mask"}, {"return 1, {{index=1}}, -1", "route mask -1"},
        {"return nil", "unknown code nil"}, {"return nil, 'other', 'm'", "unknown code \"other\""}, {"return nil, 5", "unknown code 5"},
        {"return false", "an answer of status nil"}, {"return false, 99, 'x'", "an answer of status 99"}, {"return false, 200, {}", "an answer that is a table"},
        {"error('boom')", "boom"}, {"local x = nil + 1", "arithmetic"}, {"return e.route()", "stack overflow"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char code[512];
        snprintf(code, sizeof code, "function e.route() %s end", cases[i].verdict);
        if (strcmp(cases[i].says, "stack overflow") == 0) snprintf(code, sizeof code, "local function deep() return 1 + deep() end e.route = deep");
        engine(code);
        assert_int_equal(route(), CLAW_EPOLICY);
        assert_says(cases[i].says);
        assert_true(claw_str_eqz(err.policy, "claw"));
        assert_true(claw_str_eqz(err.hook, "route"));
        assert_int_equal(r->candidates_n, 0);
        assert_int_equal(r->route, -1);
    }
}

static void no_route_is_told(void **state)
{
    static const struct { const char *name; int code; } cases[] = {
        {"no_route", CLAW_ENO_ROUTE}, {"model_not_found", CLAW_EMODEL_NOT_FOUND}, {"no_upstream", CLAW_ENO_UPSTREAM},
    };
    for (size_t i = 0; i < 3; i++) {
        char code[200];
        snprintf(code, sizeof code, "function e.route() return nil, '%s', 'because' .. ' so' end", cases[i].name);
        engine(code);
        assert_int_equal(route(), 0);
        assert_int_equal(r->error, cases[i].code);
        assert_true(claw_str_eqz(r->error_text, "because so"));
    }
}

static void some_requests_are_answered_at_once(void **state)
{
    engine("function e.route() return false, 200, '{\"object\":\"list\"}' end");
    struct claw_policy_answer answer = {.status = 0};
    assert_int_equal(claw_policy_ops_lua.route(f.p, r, &answer, &err), 0);
    assert_int_equal(answer.status, 200);
    assert_true(claw_str_eqz(answer.body, "{\"object\":\"list\"}"));
}

static void named_policies_are_named(void **state)
{
    engine("function e.route() error({ policy = 'mine', hook = 'choose', message = 'policies/mine.lua:3: bad', traceback = 'tb' }, 0) end");
    assert_int_equal(route(), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.policy, "mine") && claw_str_eqz(err.hook, "choose") && claw_str_eqz(err.message, "policies/mine.lua:3: bad"));
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_metrics_write(&b), 0);
    assert_true(claw_str_find(claw_buf_str(&b), CLAW_STR("openclaw_policy_errors_total{policy=\"mine\",hook=\"choose\"} 1")) >= 0);
    claw_buf_fini(&b);
}

static void a_vm_out_of_memory_fails_the_request_only(void **state)
{
    engine("function e.route(q, m, p) if bad then local t = {} for i = 1, 1e8 do t[i] = ('x'):rep(999) .. i end end return 1, {{index=1}} end");
    fixture_runs(f.p->vm, NULL, "bad = true");
    assert_int_equal(route(), CLAW_EPOLICY);
    assert_says("not enough memory");
    assert_true(f.p->vm->broken);
    fixture_runs(f.p->vm, NULL, "bad = false");
    assert_int_equal(route(), 0);
    assert_true(claw_policy_vm_bytes(f.p) <= 48u << 20);
}

/* Refuse memory at every size a request's calls grow to: each call succeeds or fails, and the VM serves on. Without
 * LuaJIT's compiler, which does not survive that (see vm.h). */
static void memory_may_run_out_anywhere(void **state)
{
    int fine = 0, failed = 0;
    engine("jit.off() jit.flush() function e.route(q) local x = core.request(q) x.ctx.a = x.client.headers.a x.ctx.b = core.json(q, 'n') return 1, {{index=1, model = 'm' .. core.random()}} end "
           "function e.request(q) local b = core.body(q) b.list = {1, {2}} b.list:append({x = 'y'}) local t = b:table() t.k = tostring(b) return t end "
           "function e.event(q, i, t, d) return {{data = d .. core.random()}, {data = {x = d}}} end "
           "function e.finish(q) return 1, { a = {1}, b = 'x' .. core.random() } end");
    size_t cap = f.p->vm->cap;
    for (size_t extra = 0; extra < 12000; extra += 40) {
        struct claw_req *one = fixture_req(&f, "/", "{\"n\":[1,2]}", "a", "b", NULL);
        const struct claw_policy_event *events;
        struct claw_policy_answer answer = {.status = 0};
        int n;
        fixture_runs(f.p->vm, NULL, "req, r = nil collectgarbage() collectgarbage() collectgarbage('stop')");
        f.p->vm->cap = SIZE_MAX / 2;
        f.p->vm->soft = f.p->vm->hard = f.p->vm->bytes + extra;
        int rc[] = {
            claw_policy_ops_lua.route(f.p, one, &answer, &err), claw_policy_ops_lua.request(f.p, one, &err),
            claw_policy_ops_lua.event(f.p, one, CLAW_STR(""), CLAW_STR("data"), &events, &n, &err), claw_policy_ops_lua.finish(f.p, one, &err),
        };
        for (size_t i = 0; i < 4; i++) {
            assert_true(rc[i] == CLAW_OK || rc[i] == CLAW_EPOLICY);
            *(rc[i] == CLAW_OK ? &fine : &failed) += 1;
        }
        fixture_req_free(one);
        claw_vm_set_cap(f.p->vm, cap);
        fixture_runs(f.p->vm, NULL, "collectgarbage('restart')");
    }
    if (failed < 20 || fine < 20) fail_msg("%d failed, %d did not", failed, fine);
}

/* ---- admit -------------------------------------------------------------------------------------------------- */

static void admission_can_be_denied(void **state)
{
    struct claw_policy_answer answer = {.status = 0};
    engine("function e.admit(q) if core.header(q, 'x-bad') then return 403, 'not' .. '_today', 'come back later' end end");
    assert_true(claw_policy_ops_lua.admits(f.p));
    assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &answer, &err), 0);
    assert_int_equal(r->error, 0);
    fixture_req_free(r);
    r = fixture_req(&f, "/", NULL, "X-Bad", "1", NULL);
    assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &answer, &err), 0);
    assert_int_equal(r->error, CLAW_EDENIED);
    assert_int_equal(r->status, 403);
    assert_string_equal(r->error_code, "not_today");
    assert_true(claw_str_eqz(r->error_text, "come back later"));
    const char *const bad[] = {"200", "'x'", "399", "600", "403.5", "{}", "true"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char code[100];
        snprintf(code, sizeof code, "function e.admit() return %s end", bad[i]);
        engine(code);
        assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &answer, &err), CLAW_EPOLICY);
        assert_says("no status from 400 to 599");
        assert_int_equal(r->error, 0);
    }
    engine("function e.admit() coroutine.yield() end e.hooks = nil");
    assert_false(claw_policy_ops_lua.admits(f.p));
    assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &answer, &err), CLAW_EPOLICY);
    assert_says("admit: this hook may not wait here");
}

static void admission_can_be_an_answer(void **state)
{
    struct claw_policy_answer answer = {.status = 0};
    engine("function e.admit() return false, 201, 'a\\0b', 'text/plain', 'faq' end");
    assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &answer, &err), 0);
    assert_int_equal(r->error, 0);
    assert_int_equal(answer.status, 201);
    assert_int_equal(answer.body.len, 3);
    assert_memory_equal(answer.body.ptr, "a\0b", 3);
    assert_true(claw_str_eqz(answer.type, "text/plain") && claw_str_eqz(answer.policy, "faq"));
    answer = (struct claw_policy_answer){.status = 0};
    engine("function e.admit() return false, 200, '' end");
    assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &answer, &err), 0);
    assert_true(answer.body.ptr && answer.body.len == 0 && answer.type.len == 0 && answer.policy.len == 0);
    static const struct { const char *code, *says; } bad[] = {
        {"false", "an answer of status nil"}, {"false, 199, ''", "an answer of status 199"}, {"false, 200, {}", "an answer that is a table"},
        {"false, 200, '', 'a\\r\\nx: y'", "an answer's content type is"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char code[100];
        answer = (struct claw_policy_answer){.status = 0};
        snprintf(code, sizeof code, "function e.admit() return %s end", bad[i].code);
        engine(code);
        assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &answer, &err), CLAW_EPOLICY);
        assert_says(bad[i].says);
        assert_null(answer.body.ptr);
    }
}

/* ---- hedges ------------------------------------------------------------------------------------------------- */

static void an_order_says_when_it_is_hedged(void **state)
{
    static const struct { const char *hedge; unsigned after_ms, percent; double budget; } good[] = {
        {"nil", 0, 0, 0}, {"false", 0, 0, 0.05}, {"300", 300, 0, 0.05}, {"1.5", 1, 0, 0.05}, {"'p95'", 0, 95, 0.05}, {"'p50'", 0, 50, 0.05},
    };
    struct claw_policy_answer answer = {.status = 0};
    char code[160];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(code, sizeof code, "function e.route() return 1, { { index = 1 }, hedge = %s }, 0 end", good[i].hedge);
        engine(code);
        r->hedging = (struct claw_conf_hedge){0};
        assert_int_equal(claw_policy_ops_lua.route(f.p, r, &answer, &err), 0);
        assert_int_equal(r->hedging.after_ms, good[i].after_ms);
        assert_int_equal(r->hedging.percent, good[i].percent);
        assert_true(r->hedging.budget == good[i].budget);
    }
    static const char *const bad[] = {"true", "0", "-1", "1e9", "0/0", "'p96'", "''", "{}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(code, sizeof code, "function e.route() return 1, { { index = 1 }, hedge = %s }, 0 end", bad[i]);
        engine(code);
        assert_int_equal(claw_policy_ops_lua.route(f.p, r, &answer, &err), CLAW_EPOLICY);
        assert_says("hedge is");
    }
}

/* ---- request ------------------------------------------------------------------------------------------------ */

static void request(const char *code, const char *want)
{
    engine(code);
    r->candidates_n = 1;
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    if (want) assert_int_equal(claw_buf_size(&r->out_body), strlen(want));
    if (want) assert_memory_equal(claw_buf_str(&r->out_body).ptr, want, strlen(want));
    assert_int_equal(r->out_body_set, want != NULL);
}

static void request_hooks_make_the_body(void **state)
{
    static const char changed[] = "{\"model\":\"gpt-4\",\"stream\":true,\"n\":9007199254740993,\"x\":1}";
    request("function e.request(q, i, model) assert(i == 1 and model == 'gpt-4') end", NULL);
    request("function e.request(q) local b = core.body(q) return b end", NULL);
    request("function e.request(q) local b = core.body(q) b.x = 1 end", changed);
    request("function e.request(q) local b = core.body(q) b.x = 1 return b end", changed);
    request("function e.request(q) return '{\"own\" : 1}' end", "{\"own\" : 1}");
    request("function e.request(q) return { b = 1, a = { core.body(q).n, core.body(q) } } end",
            "{\"a\":[\"9007199254740993\",{\"model\":\"gpt-4\",\"stream\":true,\"n\":9007199254740993}],\"b\":1}");
    request("function e.request(q) local b = core.body(q) b.list = {} b.list = {1} return b.list end", "[1]");
    request("function e.request(q) local o = core.request(q).body return o end", "{\"model\":\"gpt-4\",\"stream\":true,\"n\":9007199254740993}");
}

static void the_sent_model_stands_in_the_body(void **state)
{
    engine("function e.request(q, i, model) assert(i == 2 and model == 'claude-3') local b = core.body(q) assert(b.model == 'claude-3' and core.changed(b)) "
           "assert(core.request(q).body.model == 'gpt-4') seen = (seen or 0) + 1 if seen == 2 then b.model = 'mine' end end");
    r->candidates_n = 1;
    r->candidates[0] = (struct claw_candidate){.upstream = 1, .model = CLAW_STR("claude-3")};
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    assert_true(r->out_body_set);
    assert_true(claw_str_eqz(claw_buf_str(&r->out_body), "{\"model\":\"claude-3\",\"stream\":true,\"n\":9007199254740993}"));
    /* another attempt starts from what the client sent */
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    assert_true(claw_str_eqz(claw_buf_str(&r->out_body), "{\"model\":\"mine\",\"stream\":true,\"n\":9007199254740993}"));
}

static void attempts_do_not_inherit(void **state)
{
    engine("function e.request(q, i) local u = core.request(q).upstream if not done then done = true u.path = '/messages' u.headers['x-a'] = '1' core.body(q).a = 1 "
           "old = core.body(q) else assert(u.headers['x-a'] == nil and u.path == '/v1/chat/completions' and core.body(q).a == nil and core.body(q) ~= old) end end");
    r->candidates_n = 1;
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    assert_true(r->out_body_set && r->out_headers_n == 1 && r->out_path.len == 9);
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    assert_true(!r->out_body_set && r->out_headers_n == 0 && r->out_path.len == 0);
}

static void wrong_bodies_are_refused(void **state)
{
    static const struct { const char *body, *says; } cases[] = {
        {"'not json'", "the returned text is no valid JSON: "}, {"'{\"a\":1}x'", "at byte 7"}, {"''", "no valid JSON"}, {"5", "a body that is a number"},
        {"true", "a body that is a boolean"}, {"print", "a body that is a function"}, {"{ a = print }", "a function has no JSON form"},
        {"core.request(q)", "a body that is a userdata"}, {"coroutine.yield()", "may not wait here"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char code[200];
        snprintf(code, sizeof code, "function e.request(q) return %s end", cases[i].body);
        engine(code);
        r->candidates_n = 1;
        assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), CLAW_EPOLICY);
        assert_says(cases[i].says);
        assert_true(claw_str_eqz(err.hook, "request"));
        assert_false(r->out_body_set);
    }
    /* what came as no JSON may leave as none */
    engine("function e.request(q) assert(core.body(q) == nil) return 'plain' end");
    fixture_req_free(r);
    r = fixture_req(&f, "/", "text", NULL);
    r->candidates_n = 1;
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    assert_true(claw_str_eqz(claw_buf_str(&r->out_body), "plain"));
}

/* ---- retry -------------------------------------------------------------------------------------------------- */

static void retries_are_asked_and_checked(void **state)
{
    struct claw_failure x = {.kind = "http_503", .status = 503, .again = true, .tries = 2, .left = 1, .retry_after_ms = 1500, .elapsed_ms = 77, .body = CLAW_STR("{\"error\":1}")};
    enum claw_retry_action action;
    uint64_t after;
    engine("function e.retry(q, a) assert(a.kind == 'http_503' and a.status == 503 and a.again == true and a.n == 2 and a.left == 1 and a.retry_after_ms == 1500) "
           "assert(a.elapsed_ms == 77 and a.body == '{\"error\":1}' and a.index == 2 and a.upstream == 'beta' and a.attempts_max == nil and a.code == nil) return 'same', 12.5 end");
    r->candidates_n = 2;
    r->candidate = 1;
    r->candidates[1].upstream = 1;
    assert_int_equal(claw_policy_ops_lua.retry(f.p, r, &x, &action, &after, &err), 0);
    assert_int_equal(action, CLAW_RETRY_SAME);
    assert_int_equal(after, 13);
    engine("function e.retry(q, a) assert(a.kind == 'connect' and a.code == 'ECONNECT' and a.status == nil and a.retry_after_ms == nil and a.body == nil) return 'next' end");
    r->candidates_n = 1;
    x = (struct claw_failure){.code = CLAW_ECONNECT, .kind = "connect", .tries = 1, .retry_after_ms = -1};
    assert_int_equal(claw_policy_ops_lua.retry(f.p, r, &x, &action, &after, &err), 0);
    assert_int_equal(action, CLAW_RETRY_NEXT);
    assert_int_equal(after, 0);
    static const struct { const char *verdict, *says; } bad[] = {
        {"nil", "the action is a nil"}, {"5", "the action is a number"}, {"'maybe'", "the action is \"maybe\""}, {"'same', -1", "after_ms is -1"},
        {"'same', 'x'", "after_ms is \"x\""}, {"'same', 0/0", "after_ms is"}, {"'same', 1/0", "after_ms is inf"}, {"'same', 3600001", "after_ms is 3600001"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char code[100];
        snprintf(code, sizeof code, "function e.retry() return %s end", bad[i].verdict);
        engine(code);
        r->candidates_n = 1;
        action = CLAW_RETRY_NEXT;
        assert_int_equal(claw_policy_ops_lua.retry(f.p, r, &x, &action, &after, &err), CLAW_EPOLICY);
        assert_says(bad[i].says);
        assert_int_equal(action, CLAW_RETRY_STOP);
    }
}

/* ---- response and event ------------------------------------------------------------------------------------- */

static void response(const char *code, const char *body, const char *want)
{
    struct claw_str out = {NULL, 0};
    engine(code);
    r->candidates_n = 1;
    assert_int_equal(claw_policy_ops_lua.response(f.p, r, claw_str_of(body), &out, &err), 0);
    if (!want) assert_null(out.ptr);
    else if (!claw_str_eqz(out, want)) fail_msg("%.*s", CLAW_STR_FMT(out));
}

static void response_hooks_make_the_answer(void **state)
{
    response("", "{}", NULL);
    response("function e.response(q, i) assert(i == 1) assert(core.response_body(q).a == 1) end", "{\"a\":1}", NULL);
    response("function e.response(q) return core.response_body(q) end", "{\"a\":1}", NULL);
    response("function e.response(q) core.response_body(q).b = 2 end", "{\"a\":1}", "{\"a\":1,\"b\":2}");
    response("function e.response(q) local b = core.response_body(q) b.b = 2 assert(core.response_body(q) == b) return b end", "{\"a\":1}", "{\"a\":1,\"b\":2}");
    response("function e.response(q) return core.response_body(q):upper() end", "plain text", "PLAIN TEXT");
    response("function e.response(q) return { x = core.response_body(q).a } end", "{\"a\":[1.0]}", "{\"x\":[1.0]}");
    response("function e.response(q) return '' end", "{\"a\":1}", "");
    struct claw_str out;
    engine("function e.response(q) return 5 end");
    assert_int_equal(claw_policy_ops_lua.response(f.p, r, CLAW_STR("x"), &out, &err), CLAW_EPOLICY);
    assert_says("a body that is a number");
    assert_null(out.ptr);
}

static void an_answer_lives_until_the_log(void **state)
{
    struct claw_str out;
    char *text = strdup("{\"a\":[7]}");
    engine("function e.response(q) kept = core.response_body(q) inner = kept.a if bad then error('x') end end "
           "function e.finish(q) return nil, { seven = inner[1] } end");
    r->candidates_n = 1;
    assert_int_equal(claw_policy_ops_lua.response(f.p, r, claw_str_of(text), &out, &err), 0);
    assert_int_equal(claw_policy_ops_lua.finish(f.p, r, &err), 0);
    assert_true(claw_str_eqz(r->log_fields, "\"seven\":7"));
    free(text);
    fixture_raises(f.p->vm, r, "return kept.a", "the text of this document is gone");
    fixture_raises(f.p->vm, r, "return inner[1]", "the text of this document is gone");
    fixture_runs(f.p->vm, r, "assert(core.response_body(r) == nil or core.is_doc(core.response_body(r))) bad = true");
    assert_int_equal(claw_policy_ops_lua.response(f.p, r, CLAW_STR("{\"a\":[8]}"), &out, &err), CLAW_EPOLICY);
    fixture_raises(f.p->vm, r, "return kept.a", "the text of this document is gone");
}

static void events_are_dropped_changed_and_multiplied(void **state)
{
    const struct claw_policy_event *out;
    int n;
#define EVENT(code) engine(code); r->candidates_n = 1; assert_int_equal(claw_policy_ops_lua.event(f.p, r, CLAW_STR("t"), CLAW_STR("d\0x"), &out, &n, &err), 0)
    EVENT("function e.event(q, i, t, d) assert(i == 1 and t == 't' and d == 'd\\0x') end");
    assert_int_equal(n, -1);
    EVENT("function e.event() return false end");
    assert_int_equal(n, 0);
    EVENT("function e.event() return {} end");
    assert_int_equal(n, 0);
    EVENT("function e.event(q, i, t, d) return { { type = 'a', data = ('x'):rep(5000) }, { data = d }, { type = 'only' }, { data = { k = 1 } } } end");
    assert_int_equal(n, 4);
    assert_true(claw_str_eqz(out[0].type, "a") && out[0].data.len == 5000 && out[0].data.ptr[4999] == 'x');
    assert_true(out[1].type.len == 0 && claw_str_eq(out[1].data, CLAW_STR("d\0x")));
    assert_true(claw_str_eqz(out[2].type, "only") && out[2].data.len == 0);
    assert_true(claw_str_eqz(out[3].data, "{\"k\":1}"));
    EVENT("function e.event() local t = {} for i = 1, 64 do t[i] = { data = i .. '' } end return t end");
    assert_int_equal(n, 64);
    assert_true(claw_str_eqz(out[63].data, "64"));
    static const struct { const char *verdict, *says; } bad[] = {
        {"true", "the events are true"}, {"5", "the events are 5"}, {"{ 1 }", "an event is a number"}, {"{ { data = 5 } }", "an event's data is a number"},
        {"(function() local t = {} for i = 1, 513 do t[i] = {} end return t end)()", "513 events for one"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char code[200];
        snprintf(code, sizeof code, "function e.event() return %s end", bad[i].verdict);
        engine(code);
        assert_int_equal(claw_policy_ops_lua.event(f.p, r, CLAW_STR(""), CLAW_STR(""), &out, &n, &err), CLAW_EPOLICY);
        assert_says(bad[i].says);
    }
}

/* ---- finish ------------------------------------------------------------------------------------------------- */

static int finish(const char *code)
{
    engine(code);
    r->candidates_n = 1;
    return claw_policy_ops_lua.finish(f.p, r, &err);
}

static void cost_and_fields_are_taken(void **state)
{
    engine("function e.finish(q, i, model, input, cached, output, reasoning) "
           "assert(i == 1 and model == 'gpt-4' and input == 10 and cached == nil and output == 0 and reasoning == 7) "
           "return 4200000, { b = 'x\"', a = 1, status = 'mine', nested = { 1, { k = true } }, none = core.null } end");
    r->candidates_n = 1;
    r->usage = (struct claw_usage){10, 0, -1, 7, -1, {0}};
    assert_int_equal(claw_policy_ops_lua.finish(f.p, r, &err), 0);
    assert_int_equal(r->cost_micros, 4200000);
    assert_true(claw_str_eqz(r->log_fields, "\"a\":1,\"b\":\"x\\\"\",\"nested\":[1,{\"k\":true}],\"none\":null,\"policy.status\":\"mine\""));
    assert_int_equal(finish("function e.finish(q, i) assert(i == 1) return nil, {} end"), 0);
    assert_int_equal(r->cost_micros, -1);
    assert_int_equal(r->log_fields.len, 0);
    static const struct { const char *verdict, *says; } bad[] = {
        {"-1", "-1 is no number of micro-dollars"}, {"1.5", "1.5 is no number"}, {"'5'", "\"5\" is no number"}, {"0/0", "is no number"}, {"1e300", "is no number"},
        {"1, 'x'", "the fields are \"x\""}, {"1, { 'list' }", "a log field's name is a number"}, {"1, { f = print }", "a function has no JSON form"},
        {"1, { big = ('x'):rep(9000) }", "more than 8 KB"}, {"1, { deep = {{{{{1}}}}} }", "nested too deep"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char code[200];
        snprintf(code, sizeof code, "function e.finish() return %s end", bad[i].verdict);
        assert_int_equal(finish(code), CLAW_EPOLICY);
        assert_says(bad[i].says);
        assert_int_equal(r->log_fields.len, 0);
    }
}

/* A numbered list is read once: its candidates, and the prices C charges by without asking Lua at the end. */
static void numbered_lists_are_kept(void **state)
{
    static const struct { const char *price; struct claw_usage u; int64_t micros; } cases[] = {
        /* as in spec/cost_spec.lua */
        {"input = 30000000, output = 60000000, cached_input = 3000000", {1000, 500, 0, -1, -1, {0}}, 60000},
        {"input = 30000000, output = 60000000, cached_input = 3000000", {1000, 500, -1, -1, -1, {0}}, 60000},
        {"input = 30000000, output = 60000000, cached_input = 3000000", {1000, 500, 400, 7, -1, {0}}, 49200},
        {"input = 30000000, output = 60000000, cached_input = 3000000", {1000, 0, 5000, -1, -1, {0}}, 3000},
        {"input = 30000000, output = 60000000, cached_input = 3000000", {0, 0, 0, -1, -1, {0}}, 0},
        {"input = 30000000, output = 60000000, cached_input = 3000000", {-1, 10, -1, -1, -1, {0}}, 600},
        {"input = 30000000, output = 60000000, cached_input = 3000000", {-1, -1, -1, -1, -1, {0}}, -1},
        {"input = 500000", {1, 0, 0, -1, -1, {0}}, 1}, {"input = 499999", {1, 0, 0, -1, -1, {0}}, 0}, {"input = 100000", {14, 0, 0, -1, -1, {0}}, 1},
        {"input = 1000000", {10, 5, 10, -1, -1, {0}}, 10}, {"input = 1, output = 0", {1, 0, 0, -1, -1, {0}}, 0},
        {"input = 1000000, request_micros = 7", {2, 0, 0, -1, -1, {0}}, 9}, {"request_micros = 7", {-1, -1, -1, -1, -1, {0}}, 7},
        {"request_micros = 7", {5, 5, 0, -1, -1, {0}}, 7}, {"", {10, 10, 0, -1, -1, {0}}, -1},
        {"input = 75000000, output = 150000000", {1000000, 200000, 0, -1, -1, {0}}, 105000000},
        {"input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000, long_input = 6000000, long_output = 22500000, long_cached = 600000", {100, 10, -1, -1, -1, {0}}, 450},
        {"input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000, long_input = 6000000, long_output = 22500000, long_cached = 600000", {140, 10, 40, -1, 0, {0}}, 462},
        {"input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000, long_input = 6000000, long_output = 22500000, long_cached = 600000", {180, 10, 40, -1, 40, {0}}, 612},
        {"input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000, long_input = 6000000, long_output = 22500000, long_cached = 600000", {1000, 0, 0, -1, -1, {0}}, 3000},
        {"input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000, long_input = 6000000, long_output = 22500000, long_cached = 600000", {1001, 2, 0, -1, -1, {0}}, 6051},
        {"input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000, long_input = 6000000, long_output = 22500000, long_cached = 600000", {2001, 0, 40, -1, 1000, {0}}, 13290},
        {"input = 3000000, output = 15000000, cached_input = 300000, cache_write = 3750000, long_above = 1000, long_input = 6000000, long_output = 22500000, long_cached = 600000", {100, 0, 0, -1, 5000, {0}}, 375},
        {"input = 3000000", {100, 0, 0, -1, 50, {0}}, 300},
        {"input = 9007199254740992", {1000000000, 0, 0, -1, -1, {0}}, -1}, /* past what Lua's numbers hold */
    };
    struct claw_policy_answer answer = {.status = 0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char code[600];
        snprintf(code, sizeof code, "local n = 0 function e.route() n = n + 1 if n > 1 then return 1, setmetatable({}, { __index = error }), 0, 7 end "
                 "return 1, { { index = 2, mask = 0, model = 'm', price = { %s } } }, 0, 7 end function e.finish() error('asked') end", cases[i].price);
        engine(code);
        for (int round = 0; round < 3; round++) {
            r->candidates_n = 0;
            r->cost_micros = -1;
            r->usage = cases[i].u;
            assert_int_equal(claw_policy_ops_lua.route(f.p, r, &answer, &err), 0);
            assert_int_equal(r->candidates_n, 1);
            assert_int_equal(r->candidates[0].upstream, 1);
            assert_true(claw_str_eqz(r->candidates[0].model, "m"));
            assert_int_equal(claw_policy_ops_lua.finish(f.p, r, &err), 0);
            assert_int_equal(r->cost_micros, cases[i].micros);
        }
    }
    static const struct { const char *verdict, *says; } bad[] = {
        {"1, { { index = 1 } }, 0, 0", "the list's number is 0"}, {"1, { { index = 1 } }, 0, 4097", "the list's number is 4097"},
        {"1, { { index = 1 } }, 0, 'x'", "the list's number is \"x\""}, {"1, { { index = 1, price = { input = -1 } } }, 0, 1", "candidate price input is -1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char code[200];
        snprintf(code, sizeof code, "function e.route() return %s end", bad[i].verdict);
        engine(code);
        assert_int_equal(claw_policy_ops_lua.route(f.p, r, &answer, &err), CLAW_EPOLICY);
        assert_says(bad[i].says);
    }
}

static void finish_works_for_what_was_never_routed(void **state)
{
    engine("function e.finish(q, i, model) assert(i == nil) local x = core.request(q) assert(x.path == '' and x.upstream == nil and x.client.headers.a == nil) return nil, { seen = true } end");
    r->head = NULL;
    assert_int_equal(claw_policy_ops_lua.finish(f.p, r, &err), 0);
    assert_true(claw_str_eqz(r->log_fields, "\"seen\":true"));
}

/* ---- boot --------------------------------------------------------------------------------------------------- */

static void the_spec_says_what_is_configured(void **state)
{
    engine("assert(spec.prove == false and #spec.upstreams == 2 and #spec.routes == 1 and type(spec.policies) == 'table') "
           "local a, b = spec.upstreams[1], spec.upstreams[2] "
           "assert(a.name == 'alpha' and a.type == 'openai' and a.has_key == true and a.price.input == 30000000 and a.price.output == 60000000 and b.price.input == nil) "
           "assert(a.node.base_url == 'http://127.0.0.1:9001/v1' and a.node.models[2] == 'gpt-4o-mini') "
           "assert(spec.routes[1].id == 'chat' and spec.routes[1].node.match.path == '/v1/chat/completions') "
           "assert(spec.conf.upstreams.beta.type == 'anthropic' and spec.conf.routes[1].strategy.upstreams[2] == 'beta') "
           "local function walk(t) for k, v in pairs(t) do if type(v) == 'table' then walk(v) else assert(not tostring(v):find('sk%-test'), k) end end end walk(spec.conf) walk(spec.upstreams)");
}

static void engines_that_are_none_are_refused(void **state)
{
    static const struct { const char *source, *says; } cases[] = {
        {"return +", "unexpected symbol"}, {"return {}", "attempt to call"}, {"return { new = function() end }", "neither an engine nor problems"},
        {"return { new = function() return nil, {} end }", "empty list of problems"}, {"return { new = function() return nil, { 'x' } end }", "a problem of the engine is a string"},
        {"return { new = function() return {} end }", "engine.admit is no function"}, {"return { new = function() error('no') end }", "no"},
        {"return { new = function() return nil, { { file = 'policies/x.lua', line = 3, message = 'broken' } } end }", "policies/x.lua:3: broken"},
        {"return { new = function() return nil, { { path = 'routes[0]', message = 'broken' } } end }", "routes[0]: broken"},
    };
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct claw_policy_vm *p;
        char *why = NULL;
        assert_int_equal(claw_policy_vm_new_from(f.gen, claw_str_of(cases[i].source), &p, &why), CLAW_EINVAL);
        assert_non_null(why);
        if (!strstr(why, cases[i].says)) fail_msg("\"%s\" lacks \"%s\"", why, cases[i].says);
        free(why);
    }
    assert_int_equal(f.gen->refs, 1);
}

static void problems_have_their_place(void **state)
{
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    assert_int_equal(claw_policy_prove_from(f.gen, CLAW_STR("return { new = function(spec) assert(spec.prove) return nil, { "
        "{ path = 'routes[0].match.path', message = 'no such glob' }, { file = 'policies/x.lua', line = 12, message = 'bad\\nhook' }, { file = 'policies/y.lua', message = 'm' } } end }"),
        &f.problems), CLAW_EINVAL);
    assert_int_equal(f.problems.n, 3);
    const struct claw_conf_problem *p = f.problems.first;
    if (!strstr(p->text, "nowhere/openclaw.yaml:16:") || !strstr(p->text, "routes[0].match.path: no such glob")) fail_msg("%s", p->text);
    assert_string_equal(p->next->text, "policies/x.lua:12: bad?hook");
    assert_string_equal(p->next->next->text, "policies/y.lua: m");
}

static void a_proof_fills_the_heads(void **state)
{
    char source[2048];
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    snprintf(source, sizeof source, frame, "e.upstreams = { { auth = { header = 'authorization', prefix = 'Bearer ' } }, "
             "{ auth = { header = 'x-api-key', prefix = '' }, headers = { { 'anthropic-version', '2023-06-01' } } } }");
    int rc = claw_policy_prove_from(f.gen, claw_str_of(source), &f.problems);
    fixture_print(&f);
    assert_int_equal(rc, 0);
    assert_true(claw_str_find(f.gen->upstreams[0].heads[0], CLAW_STR("authorization: Bearer sk-test-alpha-0001\r\n")) >= 0);
    assert_true(claw_str_find(f.gen->upstreams[1].heads[0], CLAW_STR("x-api-key: sk-test-beta-0002\r\n")) >= 0);
    assert_true(claw_str_find(f.gen->upstreams[1].heads[0], CLAW_STR("anthropic-version: 2023-06-01\r\n")) >= 0);
}

static void a_provider_table_of_the_wrong_kind_is_a_problem(void **state)
{
    char source[2048];
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    snprintf(source, sizeof source, frame, "e.upstreams = { { headers = { 'x' } } }");
    assert_int_equal(claw_policy_prove_from(f.gen, claw_str_of(source), &f.problems), CLAW_EINVAL);
    assert_non_null(strstr(fixture_problem(&f), "a provider's header is a string"));
}

/* ---- sources ------------------------------------------------------------------------------------------------ */

static void make_policies(void)
{
    char path[300];
    fixture_make_dir(&f);
    snprintf(path, sizeof path, "%s/policies", f.dir);
    assert_int_equal(mkdir(path, 0700), 0);
}

static const struct claw_policy_source *source_of(const char *name)
{
    const struct claw_policies *p = f.gen->policies;
    for (size_t i = 0; i < p->n; i++)
        if (claw_str_eqz(p->items[i].name, name)) return &p->items[i];
    return NULL;
}

static void sources_are_read_by_name(void **state)
{
    make_policies();
    fixture_write(&f, "policies/b.lua", "return 2", 8);
    fixture_write(&f, "policies/a-1.lua", "return 1", 8);
    fixture_write(&f, "policies/.hidden.lua", "x", 1);
    fixture_write(&f, "policies/notes.txt", "x", 1);
    fixture_write(&f, "policies/empty.lua", "", 0);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    const struct claw_policies *p = f.gen->policies;
    const struct claw_policy_source *a = source_of("a-1"), *b = source_of("b");
    assert_true(a && b && a < b && source_of("empty") && !source_of(".hidden") && !source_of("notes"));
    for (size_t i = 1; i < p->n; i++) assert_true(strcmp(p->items[i - 1].name.ptr, p->items[i].name.ptr) < 0);
    assert_true(claw_str_eqz(a->file, "policies/a-1.lua") && claw_str_eqz(a->text, "return 1") && !a->builtin);
    if (claw_embedded_policies[0].name) {
        const struct claw_policy_source *shipped = source_of(claw_embedded_policies[0].name);
        assert_true(shipped && shipped->builtin && shipped->text.len == claw_embedded_policies[0].size);
    }
}

static uint64_t hash_with(const char *name, const char *text)
{
    struct fixture g;
    fixture_init(&g);
    fixture_make_dir(&g);
    char path[300];
    snprintf(path, sizeof path, "%s/policies", g.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "policies/%s", name);
    fixture_write(&g, path, text, strlen(text));
    assert_int_equal(fixture_load(&g, two_upstreams), 0);
    uint64_t h = claw_policies_hash(g.gen->policies);
    fixture_fini(&g);
    return h;
}

static void the_hash_knows_names_and_texts(void **state)
{
    uint64_t h = hash_with("a.lua", "return 1");
    assert_true(h == hash_with("a.lua", "return 1"));
    assert_true(h != hash_with("a.lua", "return 2"));
    assert_true(h != hash_with("b.lua", "return 1"));
}

static void refuse_source(const char *name, const char *text, size_t n, const char *says_it)
{
    fixture_fini(&f);
    fixture_init(&f);
    make_policies();
    char path[300];
    snprintf(path, sizeof path, "policies/%s", name);
    fixture_write(&f, path, text, n);
    assert_int_equal(fixture_load(&f, two_upstreams), CLAW_EINVAL);
    if (!strstr(fixture_problem(&f), says_it)) fail_msg("\"%s\" lacks \"%s\"", fixture_problem(&f), says_it);
}

static void odd_sources_are_refused(void **state)
{
    char *big = calloc(1, (1u << 20) + 1);
    refuse_source("a.lua", "\x1bLJ\x02", 4, "policies/a.lua: bytecode; only Lua source text is loaded");
    refuse_source("a b.lua", "x", 1, "policies/a b.lua: a policy's name is made of letters");
    refuse_source("big.lua", big, (1u << 20) + 1, "policies/big.lua: larger than 1 MB");
    free(big);
    fixture_fini(&f);
    fixture_init(&f);
    make_policies();
    char path[300];
    snprintf(path, sizeof path, "%s/policies/folder.lua", f.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(fixture_load(&f, two_upstreams), CLAW_EINVAL);
    assert_non_null(strstr(fixture_problem(&f), "policies/folder.lua: not a file"));
}

static void a_missing_folder_is_an_empty_one(void **state)
{
    fixture_make_dir(&f);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
}

static void a_users_file_wins_over_a_shipped_one(void **state)
{
    if (!claw_embedded_policies[0].name) skip();
    char path[300];
    make_policies();
    snprintf(path, sizeof path, "policies/%s.lua", claw_embedded_policies[0].name);
    fixture_write(&f, path, "return 'mine'", 13);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    assert_false(source_of(claw_embedded_policies[0].name)->builtin);
    assert_true(claw_str_eqz(source_of(claw_embedded_policies[0].name)->text, "return 'mine'"));
}

static void count_text(void *arg, const struct claw_policy_text *t)
{
    unsigned *n = arg;
    n[0]++;
    n[1] += t->builtin;
}

static void texts_can_be_put_in_their_place(void **state)
{
    make_policies();
    fixture_write(&f, "policies/b.lua", "return 2", 8);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    struct claw_policies *p = f.gen->policies;
    unsigned before[2] = {0, 0}, after[2] = {0, 0};
    uint64_t hash = claw_policies_hash(p);
    claw_policies_each(p, count_text, before);
    assert_int_equal(claw_policies_set(p, CLAW_STR("b"), CLAW_STR("return 2")), 0);
    assert_true(claw_policies_hash(p) == hash); /* the same again */
    assert_int_equal(claw_policies_set(p, CLAW_STR("b"), CLAW_STR("return 3")), 0);
    assert_int_equal(claw_policies_set(p, CLAW_STR("a"), CLAW_STR("return 1")), 0);
    assert_true(claw_policies_hash(p) != hash);
    assert_true(claw_str_eqz(source_of("b")->text, "return 3") && claw_str_eqz(source_of("b")->file, "policies/b.lua"));
    assert_true(claw_str_eqz(source_of("a")->file, "policies/a.lua") && !source_of("a")->builtin && source_of("a") < source_of("b"));
    if (before[1]) {
        assert_int_equal(claw_policies_set(p, claw_str_of(claw_embedded_policies[0].name), CLAW_STR("return 'mine'")), 0);
        assert_false(source_of(claw_embedded_policies[0].name)->builtin);
    }
    claw_policies_each(p, count_text, after);
    assert_true(after[0] == before[0] + 1 && after[1] + (before[1] > 0) == before[1]);
    assert_int_equal(claw_policies_set(p, CLAW_STR("../x"), CLAW_STR("return 1")), CLAW_EINVAL);
    assert_int_equal(claw_policies_set(p, CLAW_STR(""), CLAW_STR("return 1")), CLAW_EINVAL);
    assert_int_equal(claw_policies_set(p, CLAW_STR("c"), CLAW_STR("\x1bLJ")), CLAW_EINVAL);
    claw_policies_each(NULL, count_text, after);
}

/* ---- explain ------------------------------------------------------------------------------------------------ */

static void explain(const char *request, int rc, const char *want)
{
    struct claw_buf out;
    claw_buf_init(&out, 0);
    assert_int_equal(claw_policy_explain(f.p, claw_str_of(request), &out), rc);
    if (claw_str_find(claw_buf_str(&out), claw_str_of(want)) < 0) fail_msg("\"%.*s\" lacks \"%s\"", CLAW_STR_FMT(claw_buf_str(&out)), want);
    claw_buf_fini(&out);
}

static void explain_takes_requests_and_bodies(void **state)
{
    engine("local told function e.explain(q, method, path, model, stream) if model == 'bad' then error('why') end "
           "told = method .. ' ' .. path .. ' ' .. tostring(model) .. ' ' .. tostring(stream) .. ' ' .. tostring(core.header(q, 'x-a')) .. ' ' .. "
           "tostring(core.query(q, 'k')) .. ' ' .. tostring(core.json(q, 'user') and core.json(q, 'user')[1]) end "
           "function e.route() return false, 200, '{}' end "
           "function e.explained(q, kind, status) return told .. ' ' .. kind .. ' ' .. status end");
    explain("{\"model\":\"gpt-4\",\"user\":\"u\"}", 0, "POST /v1/chat/completions gpt-4 false nil nil u answered 200");
    explain("{\"method\":\"PUT\",\"path\":\"/x?k=v\",\"headers\":{\"X-A\":\"1\",\"n\":5},\"body\":{\"model\":\"m\\u0041\",\"stream\":true}}", 0, "PUT /x mA true 1 v nil");
    explain("{\"path\":\"/v1/models\"}", 0, "GET /v1/models nil false");
    explain("{\"model\":\"bad\"}", CLAW_EPOLICY, "why");
    explain("{", CLAW_EBAD_JSON, "");
    explain("[]", 0, "POST /v1/chat/completions nil false");
}

static void explain_takes_the_steps(void **state)
{
    static const char told[] = "local seen = '' function e.explain() seen = '' end function e.explain_attempt() seen = seen .. 'attempt ' end "
                               "function e.explained(q, kind, status, code, text, policy, hook) return seen .. table.concat({ kind, tostring(status), "
                               "tostring(code), tostring(text), tostring(policy), tostring(hook) }, ' ') end ";
    char code[2048];
    snprintf(code, sizeof code, "%s function e.admit() return 403, 'no', 'not you' end", told);
    engine(code);
    explain("{}", 0, "denied 403 no not you nil nil");
    snprintf(code, sizeof code, "%s function e.route() return nil, 'no_route', 'none' end", told);
    engine(code);
    explain("{}", 0, "refused 0 no_route none nil nil");
    snprintf(code, sizeof code, "%s function e.route() return 1, { { index = 1, mask = 1 } } end function e.request() seen = seen .. 'request ' end", told);
    engine(code);
    explain("{}", 0, "attempt request routed 0 nil nil nil nil");
    snprintf(code, sizeof code, "%s function e.route() return 1, { { index = 1, mask = 0 } } end function e.request() seen = seen .. 'request ' end", told);
    engine(code);
    explain("{}", 0, "routed 0");
    snprintf(code, sizeof code, "%s function e.admit() error({ policy = 'p', hook = 'admit', message = 'oh' }) end", told);
    engine(code);
    explain("{}", CLAW_EPOLICY, "failed 0 nil oh p admit");
}

static void outgoing_hides_credentials(void **state)
{
    engine("function e.request(q) local req = core.request(q) req.upstream.headers['x-a'] = '1' req.upstream.headers['x-b'] = nil "
           "req.upstream.headers['X-Session-Token'] = 'abc' req.upstream.path = '/p' local list, path = core.outgoing(q) "
           "for i, v in ipairs(list) do list[i] = tostring(v) end error(table.concat(list, ' ') .. ' ' .. path) end "
           "function e.route() return 1, { { index = 1, mask = 1 } } end");
    assert_int_equal(route(), 0);
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), CLAW_EPOLICY);
    assert_says("x-a 1 x-b false X-Session-Token *** /p");
}

/* ---- the real engine ---------------------------------------------------------------------------------------- */

static bool has_real_engine(void)
{
    for (const struct claw_embedded *e = claw_embedded_lua; e->name; e++)
        if (strcmp(e->name, "claw.engine") == 0) return true;
    return false;
}

static void real(void)
{
    if (!has_real_engine()) skip();
    int rc = fixture_load(&f, two_upstreams);
    if (rc == 0) rc = claw_policy_prove(f.gen, &f.problems);
    fixture_print(&f);
    assert_int_equal(rc, 0);
    fixture_vm(&f, NULL);
}

static const char user_policy[] =
    "local P = { name = 'mark', api = 1 }\n"
    "function P.admit(req) if req.client.headers['x-deny'] then return { deny = 403, code = 'nope', message = 'not you' } end end\n"
    "function P.request(req, body) body.user = 'marked' req.upstream.headers['x-mark'] = req.id end\n"
    "function P.response(req, body) body.seen = true return body end\n"
    "function P.event(req, ev) if ev.data == 'drop' then return false end if ev.data == 'boom' then error('bad event') end end\n"
    "function P.log(req) return { marked = true, tries = #req.attempts } end\n"
    "return P\n";

static void the_real_engine_decides(void **state)
{
    struct claw_policy_answer admitted = {.status = 0};
    if (!has_real_engine()) skip();
    make_policies();
    fixture_write(&f, "policies/mark.lua", user_policy, sizeof user_policy - 1);
    real();
    assert_true(claw_policy_ops_lua.admits(f.p));
    assert_true(claw_str_find(f.gen->upstreams[0].heads[0], CLAW_STR("authorization: Bearer sk-test-alpha-0001")) >= 0);
    r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"gpt-4\",\"n\":9007199254740993}", "x-deny", "1", NULL);
    assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &admitted, &err), 0);
    assert_int_equal(r->error, CLAW_EDENIED);
    assert_string_equal(r->error_code, "nope");
    fixture_req_free(r);
    r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"gpt-4\",\"n\":9007199254740993}", NULL);
    assert_int_equal(claw_policy_ops_lua.admit(f.p, r, &admitted, &err), 0);
    assert_int_equal(r->error, 0);
    assert_int_equal(route(), 0);
    assert_int_equal(r->error, 0);
    assert_int_equal(r->candidates_n, 2);
    assert_int_equal(r->candidates[0].upstream, 0);
    assert_true(r->candidates[0].mask & CLAW_MASK_REQUEST);
    assert_true(claw_str_eqz(r->candidates[1].model, "claude-3"));
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    assert_true(claw_str_eqz(claw_buf_str(&r->out_body), "{\"model\":\"gpt-4\",\"n\":9007199254740993,\"user\":\"marked\"}"));
    assert_int_equal(r->out_headers_n, 1);
    struct claw_str out;
    assert_int_equal(claw_policy_ops_lua.response(f.p, r, CLAW_STR("{\"id\":\"x\"}"), &out, &err), 0);
    assert_true(claw_str_eqz(out, "{\"id\":\"x\",\"seen\":true}"));
    const struct claw_policy_event *events;
    int n;
    assert_int_equal(claw_policy_ops_lua.event(f.p, r, CLAW_STR(""), CLAW_STR("keep"), &events, &n, &err), 0);
    assert_int_equal(n, -1);
    assert_int_equal(claw_policy_ops_lua.event(f.p, r, CLAW_STR(""), CLAW_STR("drop"), &events, &n, &err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(claw_policy_ops_lua.event(f.p, r, CLAW_STR(""), CLAW_STR("boom"), &events, &n, &err), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.policy, "mark") && claw_str_eqz(err.hook, "event"));
    assert_says("policies/mark.lua:5: bad event");
    struct claw_failure x = {.kind = "http_503", .status = 503, .again = true, .tries = 1, .left = 1, .retry_after_ms = -1};
    enum claw_retry_action action;
    uint64_t after;
    assert_int_equal(claw_policy_ops_lua.retry(f.p, r, &x, &action, &after, &err), 0);
    assert_int_equal(action, CLAW_RETRY_NEXT);
    r->usage = (struct claw_usage){1000, 100, -1, -1, -1, {0}};
    assert_int_equal(claw_policy_ops_lua.finish(f.p, r, &err), 0);
    assert_int_equal(r->cost_micros, 36000);
    assert_true(claw_str_eqz(r->log_fields, "\"marked\":true,\"tries\":0"));
}

static void shipped_policies_keep_what_json_means(void **state)
{
    static const char yaml[] = "transformations:\n  - id: t\n    match: { upstream_name: beta }\n"
                               "    request: { script: convert_openai_to_anthropic.lua }\n    response: { script: convert_openai_to_anthropic.lua }\n";
    char all[sizeof two_upstreams + sizeof yaml];
    if (!has_real_engine() || !claw_embedded_policies[0].name) skip();
    snprintf(all, sizeof all, "%s%s", two_upstreams, yaml);
    int rc = fixture_load(&f, all);
    if (rc == 0) rc = claw_policy_prove(f.gen, &f.problems);
    fixture_print(&f);
    assert_int_equal(rc, 0);
    fixture_vm(&f, NULL);
    r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"claude-3\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"h\\u00e9\"}],"
                    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{},\"required\":[]}}}]}", NULL);
    assert_int_equal(route(), 0);
    while (r->candidates[r->candidate].upstream != 1) r->candidate++;
    assert_true(r->candidates[r->candidate].mask & CLAW_MASK_REQUEST);
    assert_int_equal(claw_policy_ops_lua.request(f.p, r, &err), 0);
    struct claw_str sent = claw_buf_str(&r->out_body);
    const char *const want[] = {"\"system\":\"s\"", "\"properties\":{}", "\"required\":[]", "\"model\":\"claude-3\"", "\"max_tokens\":4096", "h\xc3\xa9"};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        if (claw_str_find(sent, claw_str_of(want[i])) < 0) fail_msg("%.*s lacks %s", CLAW_STR_FMT(sent), want[i]);
    assert_true(claw_str_eqz(r->out_path, "/messages"));
    struct claw_str out;
    assert_int_equal(claw_policy_ops_lua.response(f.p, r, CLAW_STR("{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-3\",\"content\":["
        "{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"f\",\"input\":{\"list\":[],\"map\":{}}}],\"stop_reason\":\"tool_use\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}"), &out, &err), 0);
    const char *const back[] = {"\"chat.completion\"", "{\\\"list\\\":[],\\\"map\\\":{}}", "\"finish_reason\":\"tool_calls\"", "\"total_tokens\":7", "\"content\":null"};
    for (size_t i = 0; i < sizeof back / sizeof *back; i++)
        if (claw_str_find(out, claw_str_of(back[i])) < 0) fail_msg("%.*s lacks %s", CLAW_STR_FMT(out), back[i]);
}

static void the_real_engine_refuses_and_explains(void **state)
{
    real();
    r = fixture_req(&f, "/nowhere", "{\"model\":\"gpt-4\"}", NULL);
    assert_int_equal(route(), 0);
    assert_int_equal(r->error, CLAW_ENO_ROUTE);
    fixture_req_free(r);
    r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"unknown\"}", NULL);
    assert_int_equal(route(), 0);
    assert_int_equal(r->error, CLAW_EMODEL_NOT_FOUND);
    fixture_req_free(r);
    r = fixture_req(&f, "/v1/models", NULL, NULL);
    struct claw_policy_answer answer = {.status = 0};
    assert_int_equal(claw_policy_ops_lua.route(f.p, r, &answer, &err), 0);
    assert_int_equal(answer.status, 200);
    assert_true(claw_str_find(answer.body, CLAW_STR("claude-3")) >= 0);
    explain("{\"model\":\"gpt-4\"}", 0, "alpha");
}

static void broken_policies_are_named_by_the_proof(void **state)
{
    static const struct { const char *source, *says; } cases[] = {
        {"return +", "policies/x.lua:1: unexpected symbol"}, {"\nerror('no')", "policies/x.lua:2: no"}, {"return { api = 1, rout = function() end }", "did you mean"},
        {"return { api = 1, selftest = function() error('self') end }", "self"}, {"return { api = 1, init = function(conf) assert(conf.upstreams.alpha.api_key ~= 'sk-test-alpha-0001') error('seen') end }", "seen"},
    };
    if (!has_real_engine()) skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture_fini(&f);
        fixture_init(&f);
        make_policies();
        fixture_write(&f, "policies/x.lua", cases[i].source, strlen(cases[i].source));
        assert_int_equal(fixture_load(&f, two_upstreams), 0);
        assert_int_equal(claw_policy_prove(f.gen, &f.problems), CLAW_EINVAL);
        if (!strstr(fixture_problem(&f), cases[i].says)) fail_msg("\"%s\" lacks \"%s\"", fixture_problem(&f), cases[i].says);
    }
}

/* Failing on purpose is loud: the lines go where nobody reads them. */
static int quiet(void **state)
{
    return claw_log_open(&(struct claw_log_conf){.level = CLAW_LOG_ERROR, .to = 0, .path = "/dev/null"});
}

static int loud(void **state)
{
    claw_log_flush();
    claw_log_close(1000);
    claw_log_thread_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(a_route_is_read), T(wrong_routes_are_refused), T(no_route_is_told), T(some_requests_are_answered_at_once), T(named_policies_are_named),
        T(a_vm_out_of_memory_fails_the_request_only), T(memory_may_run_out_anywhere), T(admission_can_be_denied), T(admission_can_be_an_answer), T(an_order_says_when_it_is_hedged), T(request_hooks_make_the_body), T(the_sent_model_stands_in_the_body),
        T(attempts_do_not_inherit), T(wrong_bodies_are_refused), T(retries_are_asked_and_checked), T(response_hooks_make_the_answer), T(an_answer_lives_until_the_log),
        T(events_are_dropped_changed_and_multiplied), T(cost_and_fields_are_taken), T(finish_works_for_what_was_never_routed), T(numbered_lists_are_kept),
        T(the_spec_says_what_is_configured), T(engines_that_are_none_are_refused), T(problems_have_their_place), T(a_proof_fills_the_heads),
        T(a_provider_table_of_the_wrong_kind_is_a_problem), T(sources_are_read_by_name), T(the_hash_knows_names_and_texts), T(odd_sources_are_refused),
        T(a_missing_folder_is_an_empty_one), T(a_users_file_wins_over_a_shipped_one), T(texts_can_be_put_in_their_place), T(explain_takes_requests_and_bodies), T(explain_takes_the_steps), T(outgoing_hides_credentials), T(the_real_engine_decides), T(shipped_policies_keep_what_json_means),
        T(the_real_engine_refuses_and_explains), T(broken_policies_are_named_by_the_proof),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
