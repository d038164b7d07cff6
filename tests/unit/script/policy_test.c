/* policy: proof, VMs, and a request decided by the real engine from end to end. */
#include "policy_part.h"

/* ---- boot ---------------------------------------------------------------------------------------------- */

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

/* ---- the real engine ----------------------------------------------------------------------------------- */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_spec_says_what_is_configured), T(engines_that_are_none_are_refused), T(problems_have_their_place),
        T(a_proof_fills_the_heads), T(a_provider_table_of_the_wrong_kind_is_a_problem), T(the_real_engine_decides),
        T(shipped_policies_keep_what_json_means), T(the_real_engine_refuses_and_explains),
        T(broken_policies_are_named_by_the_proof),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
