/* decide_finish: what a request cost, and the fields of its log line. */
#include "policy_part.h"

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

static void finish_works_for_what_was_never_routed(void **state)
{
    engine("function e.finish(q, i, model) assert(i == nil) local x = core.request(q) assert(x.path == '' and x.upstream == nil and x.client.headers.a == nil) return nil, { seen = true } end");
    r->head = NULL;
    assert_int_equal(claw_policy_ops_lua.finish(f.p, r, &err), 0);
    assert_true(claw_str_eqz(r->log_fields, "\"seen\":true"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(cost_and_fields_are_taken), T(finish_works_for_what_was_never_routed),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
