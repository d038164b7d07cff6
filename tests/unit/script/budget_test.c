/* budget: what runs for too long is stopped wherever it hides, and nothing else is. */
#include "fixture.h"

#include <pthread.h>

static struct claw_vm *vm;
static struct claw_arena arena;
static struct claw_task_error err;

static int setup(void **state)
{
    claw_arena_init(&arena, NULL, 0, 1u << 20);
    assert_int_equal(claw_vm_new(32u << 20, &vm), 0);
    vm->budget.limit_us = 5000;
    return 0;
}

static int teardown(void **state)
{
    claw_arena_reset(&arena);
    claw_vm_free(vm);
    return 0;
}

/* A chunk as a policy's: interpreted, with an environment of its own. */
static void load_policy(lua_State *L, const char *code)
{
    if (claw_vm_load(L, claw_str_of(code), "@policies/x.lua", true) != 1) lua_error(L);
    lua_newtable(L);
    lua_newtable(L);
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_setfenv(L, -2);
}

static void policy_in(lua_State *L, void *arg)
{
    load_policy(L, arg);
    claw_budget_enter(&vm->budget, 1);
    lua_call(L, 0, 0);
    claw_budget_leave(&vm->budget);
}

static int call(const char *code)
{
    int rc = claw_task_call(vm, policy_in, (void *)code, &arena, &err);
    assert_false(vm->budget.inside);
    assert_null(lua_gethook(vm->L));
    return rc;
}

static bool has(const char *part) { return claw_str_find(err.message, claw_str_of(part)) >= 0; }

static void loops_are_stopped_wherever_they_are(void **state)
{
    static const char *const loops[] = {
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local co = coroutine.wrap(function() while true do end end) while true do pcall(co) end",
        "while true do local ok, e = coroutine.resume(coroutine.create(function() while true do end end)) end",
        "table.sort({3, 2, 1}, function() while true do end end)",
        "string.gsub('x', 'x', function() while true do end end)",
        "local t = setmetatable({}, {__index = function() while true do end end}) return t.x",
        "tostring(setmetatable({}, {__tostring = function() while true do end end}))",
        "local s = 'x' while true do s = #s > 1000 and 'x' or s .. s end",
    };
    for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
        assert_int_equal(call(loops[i]), CLAW_EPOLICY);
        if (!has("policies/x.lua:1: stopped after 5 ms of CPU time (policies.budget_ms)"))
            fail_msg("%s: %.*s", loops[i], CLAW_STR_FMT(err.message));
        assert_int_equal(call("local n = 0 for i = 1, 1000 do n = n + i end assert(n == 500500)"), CLAW_OK);
    }
}

/* One after the other, left once: each has its own time. */
static void chain_in(lua_State *L, void *arg)
{
    for (int i = 0; i < 6; i++) {
        load_policy(L, i % 2 ? "local n = 0 for i = 1, 10000 do n = n + i end" : "while true do end");
        claw_budget_enter(&vm->budget, 1);
        assert_int_equal(lua_pcall(L, 0, 0, 0), i % 2 ? 0 : LUA_ERRRUN);
        lua_settop(L, 0);
    }
    claw_budget_leave(&vm->budget);
}

static void entering_the_next_leaves_the_last(void **state)
{
    assert_int_equal(claw_task_call(vm, chain_in, NULL, &arena, &err), CLAW_OK);
    assert_false(vm->budget.inside || vm->budget.expired);
    assert_null(lua_gethook(vm->L));
}

static void what_is_short_is_left_alone(void **state)
{
    for (int i = 0; i < 2000; i++) assert_int_equal(call("for i = 1, 1000 do local s = 'x' .. i end"), CLAW_OK);
}

/* lua/claw's functions end by themselves; a policy that calls one is stopped behind it. */
static void only_policies_are_stopped(void **state)
{
    fixture_runs(vm, NULL, "done = {} function own() local t = os.clock() while os.clock() - t < 0.03 do end done.own = true end");
    assert_int_equal(call("own() done.policy = true"), CLAW_EPOLICY);
    assert_true(has("policies/x.lua:1: stopped after"));
    fixture_runs(vm, NULL, "assert(done.own and not done.policy)");
}

static void spin_in(lua_State *L, void *arg)
{
    load_policy(L, "local t = os.clock() while os.clock() - t < 0.03 do end");
    lua_call(L, 0, 0);
}

static void outside_of_a_call_nothing_is_stopped(void **state)
{
    assert_int_equal(claw_task_call(vm, spin_in, NULL, &arena, &err), CLAW_OK);
}

static struct claw_budget_rest rest;
static unsigned turns;

/* A call that waits again and again: each turn is short, together they are not. */
static void turn_in(lua_State *L, void *arg)
{
    load_policy(L, "local t = os.clock() while os.clock() - t < 0.02 do end");
    turns++;
    vm->budget.limit_us = 60000;
    if (turns == 1) claw_budget_enter(&vm->budget, 1);
    else claw_budget_go_on(&vm->budget, rest);
    lua_call(L, 0, 0);
    rest = claw_budget_pause(&vm->budget);
}

static void a_call_that_waits_goes_on_with_what_is_left(void **state)
{
    int rc = CLAW_OK;
    while (rc == CLAW_OK && turns < 100) {
        rc = claw_task_call(vm, turn_in, NULL, &arena, &err);
        assert_int_equal(call("return 1"), CLAW_OK); /* another request's call in between */
    }
    assert_int_equal(rc, CLAW_EPOLICY);
    assert_true(has("stopped after 60 ms"));
    assert_in_range(turns, 3, 20);
}

static void spin_for_ever_in(lua_State *L, void *arg)
{
    struct claw_vm *own = arg;
    load_policy(L, "while true do pcall(function() while true do end end) end");
    claw_budget_enter(&own->budget, 1);
    lua_call(L, 0, 0);
}

/* A VM made on one thread and used on another, as a worker's is. */
static void *use(void *arg)
{
    struct claw_vm *own = arg;
    struct claw_arena a;
    struct claw_task_error e;
    intptr_t stopped = 0;
    claw_arena_init(&a, NULL, 0, 1u << 20);
    for (int i = 0; i < 5; i++) stopped += claw_task_call(own, spin_for_ever_in, own, &a, &e) == CLAW_EPOLICY;
    claw_arena_reset(&a);
    return (void *)stopped;
}

static void each_thread_has_a_clock_of_its_own(void **state)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    struct claw_vm *vms[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(claw_vm_new(16u << 20, &vms[i]), 0);
        vms[i]->budget.limit_us = 5000;
        assert_int_equal(pthread_create(&threads[i], NULL, use, vms[i]), 0);
    }
    for (int i = 0; i < 200; i++) assert_int_equal(call("for i = 1, 1000 do local s = 'x' .. i end"), CLAW_OK);
    for (int i = 0; i < THREADS; i++) {
        void *stopped;
        assert_int_equal(pthread_join(threads[i], &stopped), 0);
        assert_int_equal((intptr_t)stopped, 5);
        claw_vm_free(vms[i]);
    }
}

/* Memory that runs short arms the same hook: neither reason takes the other's away. */
static void memory_and_time_share_the_hook(void **state)
{
    assert_int_equal(call("local t = {} while true do pcall(function() for i = 1, 1e9 do t[#t + 1] = ('x'):rep(100) .. i end end) end"), CLAW_EPOLICY);
    assert_true(has("policies/x.lua:1: "));
    assert_int_equal(call("assert(#('y'):rep(100) == 100)"), CLAW_OK);
}

static void without_a_limit_nothing_is_measured(void **state)
{
    vm->budget.limit_us = 0;
    assert_int_equal(call("local t = os.clock() while os.clock() - t < 0.03 do end"), CLAW_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(loops_are_stopped_wherever_they_are), T(what_is_short_is_left_alone), T(entering_the_next_leaves_the_last),
        T(only_policies_are_stopped),
        T(outside_of_a_call_nothing_is_stopped), T(a_call_that_waits_goes_on_with_what_is_left),
        T(each_thread_has_a_clock_of_its_own), T(memory_and_time_share_the_hook), T(without_a_limit_nothing_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
