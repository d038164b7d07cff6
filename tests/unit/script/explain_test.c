/* explain: a request made from a file, decided, and told with its steps. */
#include "policy_part.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(explain_takes_requests_and_bodies), T(explain_takes_the_steps), T(outgoing_hides_credentials),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
