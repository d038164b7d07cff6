/* decide: admission and retries, and memory that runs out: no verdict of the engine is believed unseen. */
#include "policy_part.h"

/* ---- admit --------------------------------------------------------------------------------------------- */

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

/* ---- retry --------------------------------------------------------------------------------------------- */

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

/* ---- failures ------------------------------------------------------------------------------------------ */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(named_policies_are_named), T(a_vm_out_of_memory_fails_the_request_only), T(memory_may_run_out_anywhere),
        T(admission_can_be_denied), T(admission_can_be_an_answer), T(retries_are_asked_and_checked),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
