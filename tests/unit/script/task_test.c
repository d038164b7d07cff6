/* task: protected calls, errors as data, coroutines. */
#include "fixture.h"

static struct claw_vm *vm;
static struct claw_arena arena;
static struct claw_task_error err;

static int setup(void **state)
{
    claw_arena_init(&arena, NULL, 0, 1u << 20);
    return claw_vm_new(16u << 20, &vm);
}

static int teardown(void **state)
{
    claw_arena_reset(&arena);
    claw_vm_free(vm);
    return 0;
}

/* Load `arg` and call it on the main state. */
static void plain_in(lua_State *L, void *arg)
{
    assert_int_equal(lua_gettop(L), 0);
    if (claw_vm_load(L, claw_str_of(arg), "=test", false) != 1) lua_error(L);
    lua_call(L, 0, 0);
}

static int call(const char *code) { return claw_task_call(vm, plain_in, (void *)code, &arena, &err); }

static bool has(struct claw_str s, const char *part) { return claw_str_find(s, claw_str_of(part)) >= 0; }

static void strings_become_errors_of_claw(void **state)
{
    assert_int_equal(call("local function inner() error('boom') end inner()"), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.policy, "claw"));
    assert_true(claw_str_eqz(err.hook, ""));
    assert_true(claw_str_eqz(err.message, "test:1: boom"));
    assert_true(has(err.traceback, "stack traceback") && has(err.traceback, "inner"));
    assert_int_equal(call("local x = nil; return x.y"), CLAW_EPOLICY);
    assert_true(has(err.message, "attempt to index"));
}

static void tables_pass_through(void **state)
{
    assert_int_equal(call("error({policy = 'p', hook = 'route', message = 'policies/p.lua:3: m', traceback = 'tb'}, 0)"), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.policy, "p") && claw_str_eqz(err.hook, "route"));
    assert_true(claw_str_eqz(err.message, "policies/p.lua:3: m") && claw_str_eqz(err.traceback, "tb"));
    assert_int_equal(call("error({message = {}, policy = 7}, 0)"), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.policy, "claw") && claw_str_eqz(err.message, "unknown error"));
}

static void odd_errors_are_told(void **state)
{
    assert_int_equal(call("error(nil)"), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.message, "an error that is a nil value"));
    assert_int_equal(call("error(function() end)"), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.message, "an error that is a function value"));
    assert_int_equal(call("error(setmetatable({}, {__index = function() error('trap') end}))"), CLAW_EPOLICY);
    assert_true(err.message.ptr != NULL);
    assert_int_equal(call("local function f() return 1 + f() end f()"), CLAW_EPOLICY);
    assert_true(has(err.message, "stack overflow"));
    assert_int_equal(call("error(('x'):rep(1000000))"), CLAW_EPOLICY);
    assert_int_equal(err.message.len, 8192);
    assert_int_equal(call("return 1"), 0);
    assert_int_equal(lua_gettop(vm->L), 2);
}

static void a_full_arena_has_room_for_what_is_told(void **state)
{
    struct claw_arena small;
    claw_arena_init(&small, NULL, 0, 8);
    assert_int_equal(claw_task_call(vm, plain_in, "error('a longer message than fits')", &small, &err), CLAW_EPOLICY);
    assert_true(has(err.message, "a longer message than fits"));
    assert_non_null(claw_arena_alloc(&small, 1000)); /* the answer */
    claw_arena_reset(&small);
}

static void raise_in(lua_State *L, void *arg) { claw_task_raise(L, "route", "index %d is %s", 17, "none"); }

static void own_errors_name_the_hook(void **state)
{
    assert_int_equal(claw_task_call(vm, raise_in, NULL, &arena, &err), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.policy, "claw") && claw_str_eqz(err.hook, "route"));
    assert_true(claw_str_eqz(err.message, "index 17 is none"));
}

/* ---- coroutines --------------------------------------------------------------------------------------------- */

static double got;

/* Run `arg` as a hook with 3 and 4, expect a number and nothing. */
static void hook_in(lua_State *L, void *arg)
{
    if (claw_vm_load(L, claw_str_of(arg), "=hook", true) != 1) lua_error(L);
    lua_pushinteger(L, 3);
    lua_pushinteger(L, 4);
    assert_int_equal(claw_task_run(L, NULL, "request", 2, 2), CLAW_OK);
    assert_int_equal(lua_gettop(L), 2);
    assert_true(lua_isnil(L, 2));
    got = lua_tonumber(L, 1);
}

static int hook(const char *code) { return claw_task_call(vm, hook_in, (void *)code, &arena, &err); }

static void hooks_run_on_a_kept_coroutine(void **state)
{
    for (int i = 0; i < 100; i++) {
        got = 0;
        assert_int_equal(hook("local a, b = ... return a * b"), 0);
        assert_true(got == 12);
        assert_int_equal(vm->threads_n, 1);
    }
    assert_int_equal(hook("return 1, nil, 2, 3, 4, 5, 6, 7, 8, 9, 10"), 0);
    assert_true(got == 1);
}

static void errors_in_a_coroutine_keep_their_traceback(void **state)
{
    assert_int_equal(hook("local function deep() error('bad') end deep()"), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.message, "hook:1: bad") && claw_str_eqz(err.hook, "request"));
    assert_true(has(err.traceback, "deep"));
    assert_int_equal(vm->threads_n, 0);
    assert_int_equal(hook("error({policy = 'q', message = 'm'})"), CLAW_EPOLICY);
    assert_true(claw_str_eqz(err.policy, "q"));
    assert_int_equal(hook("return 5"), 0);
    assert_true(got == 5);
}

static void a_plain_yield_is_no_wait(void **state)
{
    assert_int_equal(hook("coroutine.yield(1)"), CLAW_EPOLICY);
    assert_true(has(err.message, "request: this hook may not wait here"));
    assert_int_equal(hook("return pcall(coroutine.yield)"), CLAW_EPOLICY);
    /* its own coroutines are its own business */
    assert_int_equal(hook("return coroutine.wrap(function() coroutine.yield(8) end)()"), 0);
    assert_true(got == 8);
    for (int i = 0; i < 200; i++) assert_int_equal(hook("coroutine.yield()"), CLAW_EPOLICY);
    fixture_runs(vm, NULL, "collectgarbage() collectgarbage()");
    assert_true(vm->bytes < 2u << 20);
}

static void memory_can_run_out_in_a_coroutine(void **state)
{
    assert_int_equal(hook("local t = {} for i = 1, 1e7 do t[i] = ('x'):rep(1000) .. i end"), CLAW_EPOLICY);
    assert_true(has(err.message, "not enough memory"));
    assert_true(vm->broken);
    assert_int_equal(hook("return 6"), 0);
    assert_true(got == 6);
}

static void nothing_in(lua_State *L, void *arg) {}

static void a_call_allocates_nothing(void **state)
{
    size_t before = vm->bytes;
    for (int i = 0; i < 1000; i++) assert_int_equal(claw_task_call(vm, nothing_in, NULL, &arena, &err), 0);
    assert_int_equal(vm->bytes, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(strings_become_errors_of_claw), T(tables_pass_through), T(odd_errors_are_told), T(a_full_arena_has_room_for_what_is_told),
        T(own_errors_name_the_hook), T(hooks_run_on_a_kept_coroutine), T(errors_in_a_coroutine_keep_their_traceback),
        T(a_plain_yield_is_no_wait), T(memory_can_run_out_in_a_coroutine), T(a_call_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
