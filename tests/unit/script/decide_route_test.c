/* decide_route: routes, candidates, hedges and numbered lists, as the engine gives them and as C takes them. */
#include "policy_part.h"

/* ---- route --------------------------------------------------------------------------------------------- */

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

/* ---- hedges -------------------------------------------------------------------------------------------- */

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

/* ---- numbered lists ------------------------------------------------------------------------------------ */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_route_is_read), T(wrong_routes_are_refused), T(no_route_is_told), T(some_requests_are_answered_at_once),
        T(an_order_says_when_it_is_hedged), T(numbered_lists_are_kept),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
