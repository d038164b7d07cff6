/* decide_body: what hooks make of a request, of its answer, and of events. */
#include "policy_part.h"

/* ---- request ------------------------------------------------------------------------------------------- */

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

/* ---- response and event -------------------------------------------------------------------------------- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(request_hooks_make_the_body), T(the_sent_model_stands_in_the_body), T(attempts_do_not_inherit),
        T(wrong_bodies_are_refused), T(response_hooks_make_the_answer), T(an_answer_lives_until_the_log),
        T(events_are_dropped_changed_and_multiplied),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
