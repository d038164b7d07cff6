/* api_wait and task: hooks that are suspended, resumed, and dropped. The engine is a stub that calls core itself; the
 * pipeline is held still (stepping), so that a resume only shows in r->again and the test calls the op again. */
#include "fixture.h"

static struct fixture f;
static struct claw_req *r;
static struct claw_policy_error err;

static const char frame[] =
    "return { new = function(spec) core, log = spec.core, {} "
    "local function no() end local e = { admit = no, route = no, decide = no, request = no, retry = no, response = no, error = no, event = no, caches = no, recast = no, finish = no, explain = no, explain_attempt = no, explained = no, trace = no } "
    "e.hooks = { admit = true } %s return e end }";

static struct claw_req *new_req(const char *model)
{
    char body[100];
    snprintf(body, sizeof body, "{\"model\":\"%s\"}", model);
    struct claw_req *q = fixture_req(&f, "/v1/chat/completions", body, NULL);
    q->stepping = true;
    return q;
}

static void engine(const char *code)
{
    char source[8192];
    assert_true(snprintf(source, sizeof source, frame, code) < (int)sizeof source);
    fixture_init(&f);
    if (fixture_load(&f, two_upstreams) != 0) {
        fixture_print(&f);
        fail();
    }
    fixture_vm(&f, source);
    r = new_req("m");
}

static int teardown(void **state)
{
    if (r) fixture_req_free(r);
    r = NULL;
    fixture_fini(&f);
    return 0;
}

static int admit(struct claw_req *q)
{
    q->again = false;
    struct claw_policy_answer answer = {.status = 0};
    return claw_policy_ops_lua.admit(f.p, q, &answer, &err);
}

/* Time passes; what is due is resumed as far as the pipeline goes. */
static void pass(unsigned ms)
{
    claw_loop_advance(&f.loop, ms);
    claw_loop_turn(&f.loop, false);
}

static bool says(const char *part) { return claw_str_find(err.message, claw_str_of(part)) >= 0; }
#define assert_says(part) do { if (!says(part)) fail_msg("\"%.*s\" lacks \"%s\"", CLAW_STR_FMT(err.message), part); } while (0)

/* ---- one wait ----------------------------------------------------------------------------------------------- */

static void a_wait_ends_by_its_timer(void **state)
{
    engine("function e.admit(q) core.sleep(5000) local n = select('#', core.sleep(20)) return 400 + n, 'c', 'm' end");
    assert_int_equal(admit(r), CLAW_EAGAIN);
    assert_non_null(r->waiting);
    assert_non_null(r->wait_cancel);
    pass(30);
    assert_false(r->again);
    pass(5000);
    assert_true(r->again);
    assert_int_equal(admit(r), CLAW_EAGAIN);
    pass(40);
    assert_true(r->again);
    assert_int_equal(admit(r), CLAW_OK);
    assert_null(r->waiting);
    assert_int_equal(r->status, 400);
    assert_string_equal(r->error_code, "c");
    assert_int_equal(f.p->vm->threads_n, 1);
}

static double logged;

static void logged_in(lua_State *L, void *arg)
{
    lua_getglobal(L, "log");
    logged = (double)lua_objlen(L, -1);
}

static unsigned went_on(void)
{
    struct claw_arena a;
    struct claw_task_error e;
    claw_arena_init(&a, NULL, 0, 1u << 16);
    assert_int_equal(claw_task_call(f.p->vm, logged_in, NULL, &a, &e), CLAW_OK);
    claw_arena_reset(&a);
    return (unsigned)logged;
}

static void what_one_tick_wakes_goes_on_over_several_turns(void **state)
{
    engine("function e.admit(q) for i = 1, 60 do core.spawn(function() core.sleep(50) log[#log + 1] = i end) end core.sleep(60000) end");
    assert_int_equal(admit(r), CLAW_EAGAIN);
    claw_loop_advance(&f.loop, 100);
    unsigned before = 0, turns = 0;
    while (went_on() < 60) {
        claw_loop_turn(&f.loop, true); /* it does not sleep */
        assert_true(went_on() - before <= CLAW_LANE_A_TURN);
        before = went_on();
        assert_true(++turns < 8);
    }
    assert_null(fixture_lua(f.p->vm, NULL, "for i = 1, 60 do assert(log[i] == i) end"));
}

static void what_was_woken_can_be_dropped(void **state)
{
    engine("function e.admit(q) for i = 1, 60 do core.spawn(function() core.sleep(50) log[#log + 1] = i end) end core.sleep(50) log[#log + 1] = 'own' end");
    assert_int_equal(admit(r), CLAW_EAGAIN);
    claw_loop_advance(&f.loop, 100);
    claw_loop_turn(&f.loop, false);
    unsigned before = went_on();
    assert_in_range(before, 1, 59);
    fixture_req_free(r); /* some of them wait in the lane */
    r = NULL;
    for (int i = 0; i < 8; i++) claw_loop_turn(&f.loop, false);
    assert_int_equal(went_on(), before);
    assert_null(f.p->vm->wakes.first);
}

static void dropped_at_any_point(void **state)
{
    engine("function e.admit(q) core.sleep(50) core.sleep(50) log[#log + 1] = 'on' end");
    for (int when = 0; when < 4; when++) {
        assert_int_equal(admit(r), CLAW_EAGAIN);
        if (when == 1) claw_loop_advance(&f.loop, 100); /* the wake is on its way */
        if (when >= 2) {
            pass(100);
            assert_int_equal(admit(r), CLAW_EAGAIN);
        }
        if (when == 3) pass(100);
        void (*cancel)(struct claw_req *) = when == 3 ? claw_task_drop : r->wait_cancel;
        cancel(r);
        assert_null(r->waiting);
        r->again = false;
        pass(1000);
        assert_false(r->again);
    }
    assert_null(fixture_lua(f.p->vm, NULL, "assert(#log == 0)"));
    assert_int_equal(f.p->vm->threads_n, 0);
}

static void thousands_of_dropped_waits_leave_nothing(void **state)
{
    engine("function e.admit(q) core.spawn(core.sleep, 100) core.sleep(50) end");
    assert_null(fixture_lua(f.p->vm, NULL, "collectgarbage() collectgarbage()"));
    size_t before = f.p->vm->bytes;
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(admit(r), CLAW_EAGAIN);
        r->wait_cancel(r);
        fixture_req_free(r);
        r = new_req("m");
    }
    assert_null(fixture_lua(f.p->vm, NULL, "collectgarbage() collectgarbage()"));
    assert_true(f.p->vm->bytes < before + (64u << 10));
}

static void many_wait_at_once(void **state)
{
    enum { N = 100 };
    struct claw_req *q[N];
    engine("local made, n = {}, 0 function e.admit(q) n = n + 1 local mine = n for i = 1, 5 do core.sleep((mine * i) % 7 * 10 + 1) end "
           "return 400 + mine % 100, tostring(mine) end");
    for (int i = 0; i < N; i++) {
        q[i] = new_req("m");
        assert_int_equal(admit(q[i]), CLAW_EAGAIN);
    }
    int left = N;
    while (left > 0) {
        pass(10);
        for (int i = 0; i < N; i++) {
            if (!q[i] || !q[i]->again) continue;
            int rc = admit(q[i]);
            if (rc == CLAW_EAGAIN) continue;
            assert_int_equal(rc, CLAW_OK);
            assert_int_equal(q[i]->status, 400 + (i + 1) % 100);
            fixture_req_free(q[i]);
            q[i] = NULL;
            left--;
        }
    }
    assert_int_equal(f.p->vm->threads_n, CLAW_VM_THREADS);
}

static void errors_after_a_wait(void **state)
{
    engine("function e.admit(q) local ok, m = pcall(function() core.sleep(10) error('inner') end) "
           "local h = { xpcall(function() core.sleep(10) error('x') end, function() return 'handled' end) } "
           "core.sleep(10) error(tostring(ok) .. m .. h[2]) end");
    assert_int_equal(admit(r), CLAW_EAGAIN);
    pass(20);
    assert_int_equal(admit(r), CLAW_EAGAIN);
    pass(20);
    assert_int_equal(admit(r), CLAW_EAGAIN);
    pass(20);
    assert_int_equal(admit(r), CLAW_EPOLICY);
    assert_says("inner");
    assert_says("handled");
    assert_null(r->waiting);
}

static void where_nothing_can_wait(void **state)
{
    engine("function e.admit(q) return coroutine.wrap(function() core.sleep(1) end)() end "
           "function e.event(q) core.sleep(1) end "
           "function e.finish(q) core.join(1) end");
    assert_int_equal(admit(r), CLAW_EPOLICY);
    assert_says("claw.time.sleep: a coroutine of the policy's own cannot wait");
    const struct claw_policy_event *out;
    int n;
    assert_int_equal(claw_policy_ops_lua.event(f.p, r, CLAW_STR(""), CLAW_STR("x"), &out, &n, &err), CLAW_EPOLICY);
    assert_says("claw.time.sleep: nothing can wait here");
    assert_int_equal(claw_policy_ops_lua.finish(f.p, r, &err), CLAW_EPOLICY);
    assert_says("claw.task.wait: nothing can wait here");
}

/* ---- spawned tasks ------------------------------------------------------------------------------------------ */

static void a_join_ends_with_any_task(void **state)
{
    engine("function e.admit(q) local id = core.spawn(function(a, b) core.sleep(50) log[#log + 1] = a .. b end, 'x', 'y') "
           "local quick = core.spawn(function() log[#log + 1] = 'quick' end) assert(log[1] == 'quick' and not core.alive(quick)) "
           "while core.alive(id) do core.join(600000) end return 403, table.concat(log, ' ') end");
    assert_int_equal(admit(r), CLAW_EAGAIN);
    pass(60);
    while (!r->again) pass(1);
    assert_int_equal(admit(r), CLAW_OK);
    assert_string_equal(r->error_code, "quick xy");
}

static void a_join_has_a_limit(void **state)
{
    engine("function e.admit(q) local id = core.spawn(core.sleep, 600000) core.join(30) return 403, tostring(core.alive(id)) end");
    assert_int_equal(admit(r), CLAW_EAGAIN);
    pass(40);
    assert_int_equal(admit(r), CLAW_OK);
    assert_string_equal(r->error_code, "true");
    assert_int_equal(((struct claw_api_handle *)r->handle)->family.tasks_n, 1); /* until its request ends */
}

static void a_task_that_dies_is_not_alive(void **state)
{
    engine("function e.admit(q) local a = core.spawn(error, 'at once') local b = core.spawn(function() core.sleep(10) error('later') end) "
           "local y = core.spawn(coroutine.yield) "
           "while core.alive(b) do core.join(1000) end return 403, tostring(core.alive(a)) .. tostring(core.alive(y)) end");
    assert_int_equal(admit(r), CLAW_EAGAIN);
    for (int i = 0; i < 20 && !r->again; i++) pass(10);
    assert_int_equal(admit(r), CLAW_OK);
    assert_string_equal(r->error_code, "falsefalse");
}

static void tasks_are_bounded(void **state)
{
    engine("function e.admit(q) local n, code = 0 for i = 1, 100 do local id, m, c = core.spawn(core.sleep, 1000) if id then n = n + 1 else code = c end end "
           "return 403, n .. code end");
    assert_int_equal(admit(r), CLAW_OK);
    assert_string_equal(r->error_code, "64EBUSY");
}

/* ---- background --------------------------------------------------------------------------------------------- */

static void a_background_outlives_its_request(void **state)
{
    engine("function e.admit(q) local req = core.request(q) core.background(function(a) log[1] = a core.sleep(100) "
           "log[2] = select(2, pcall(function() return req.id end)) end, 'began') assert(not log[1]) end");
    int refs = f.ctx.current->refs;
    assert_int_equal(admit(r), CLAW_OK);
    fixture_req_free(r);
    r = NULL;
    assert_int_equal(f.ctx.backgrounds_n, 1);
    assert_true(f.ctx.current->refs >= refs);
    pass(0);
    pass(120);
    pass(0);
    assert_int_equal(f.ctx.backgrounds_n, 0);
    assert_null(fixture_lua(f.p->vm, NULL, "assert(log[1] == 'began' and log[2]:find('the request is over'), log[2])"));
}

static void backgrounds_end_in_time(void **state)
{
    engine("function e.admit(q) local n = 0 while core.background(function() core.spawn(core.sleep, 600000) core.sleep(600000) end) do n = n + 1 end "
           "return 403, tostring(n) end");
    assert_int_equal(admit(r), CLAW_OK);
    assert_string_equal(r->error_code, "64");
    pass(0);
    pass(30000);
    assert_int_equal(f.ctx.backgrounds_n, 64);
    pass(31000);
    assert_int_equal(f.ctx.backgrounds_n, 0);
    assert_int_equal(admit(r), CLAW_OK);
    assert_int_equal(f.ctx.backgrounds_n, 64);
    while (f.ctx.backgrounds) f.ctx.backgrounds->cancel(f.ctx.backgrounds); /* before they began */
    pass(0);
}

static void a_background_may_fail(void **state)
{
    engine("function e.admit(q) core.background(error, 'boom') core.background(function() core.sleep(10) error({}) end) end");
    assert_int_equal(admit(r), CLAW_OK);
    pass(0);
    pass(20);
    pass(0);
    assert_int_equal(f.ctx.backgrounds_n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_teardown(name, teardown)
        T(a_wait_ends_by_its_timer), T(dropped_at_any_point), T(thousands_of_dropped_waits_leave_nothing), T(many_wait_at_once),
        T(errors_after_a_wait), T(where_nothing_can_wait), T(a_join_ends_with_any_task), T(a_join_has_a_limit),
        T(a_task_that_dies_is_not_alive), T(tasks_are_bounded), T(a_background_outlives_its_request), T(backgrounds_end_in_time),
        T(a_background_may_fail), T(what_one_tick_wakes_goes_on_over_several_turns), T(what_was_woken_can_be_dropped),
    };
    return cmocka_run_group_tests_name("script/api_wait", tests, NULL, NULL);
}
