/* vm: memory bound, modules, what is refused. */
#include "fixture.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>

static struct claw_vm *vm;

static int setup(void **state) { return claw_vm_new(16u << 20, &vm); }

static int teardown(void **state)
{
    claw_vm_free(vm);
    return 0;
}

static void bytes_are_counted_and_given_back(void **state)
{
    size_t before = vm->bytes;
    assert_true(before > 10000 && before < 2u << 20);
    fixture_runs(vm, NULL, "keep = {} for i = 1, 1000 do keep[i] = ('x'):rep(1000) .. i end");
    assert_true(vm->bytes > before + 1000000);
    fixture_runs(vm, NULL, "keep = nil collectgarbage() collectgarbage()");
    assert_true(vm->bytes < before + 200000);
}

static void past_the_cap_a_call_fails_and_the_vm_serves_on(void **state)
{
    for (int i = 0; i < 3; i++) {
        fixture_raises(vm, NULL, "local t = {} for i = 1, 1e7 do t[i] = ('x'):rep(1000) .. i end", "not enough memory");
        assert_true(vm->broken);
        assert_true(vm->bytes <= vm->cap + vm->cap / 2);
        fixture_runs(vm, NULL, "assert(#('y'):rep(100) == 100)");
    }
}

/* Compiled loops run no hooks: what stops them is the refusal at one and a half of the cap. */
static void compiled_loops_meet_the_hard_bound(void **state)
{
    fixture_raises(vm, NULL, "loadstring([[local t = {} for i = 1, 1e7 do t[i] = ('x'):rep(1000) .. i end]])()", "not enough memory");
    assert_true(vm->broken && vm->bytes <= vm->cap + vm->cap / 2);
    fixture_runs(vm, NULL, "assert(#('y'):rep(100) == 100)");
}

static void one_huge_string_is_refused(void **state)
{
    fixture_raises(vm, NULL, "local s = ('x'):rep(64 * 1024 * 1024)", "not enough memory");
    fixture_runs(vm, NULL, "assert(1 + 1 == 2)");
}

/* Dead strings must not make a call fail: LuaJIT alone would let them pile up to twice the live. */
static void garbage_is_collected_before_the_cap_is_met(void **state)
{
    fixture_runs(vm, NULL, "collectgarbage('setpause', 10000) keep = {} for i = 1, 9 do keep[i] = (i .. 'k'):rep(500000) end");
    for (int i = 0; i < 40; i++) fixture_runs(vm, NULL, "local s = (math.random() .. 'x'):rep(50000)");
    fixture_runs(vm, NULL, "for i = 1, 200000 do local s = i .. ('y'):rep(1000) end");
    assert_false(vm->broken);
    assert_true(vm->bytes < vm->cap);
}

/* An error handler and what follows a caught error get some room; a loop that catches every error does not win. */
static void a_caught_shortage_does_not_grow_without_bound(void **state)
{
    fixture_runs(vm, NULL, "local ok, e = xpcall(function() local t = {} for i = 1, 1e7 do t[i] = ('x'):rep(1000) .. i end end, "
                           "function(m) return { message = m, trace = debug.traceback() } end) "
                           "assert(not ok and e.message:find('not enough memory') and e.trace:find('traceback'))");
    fixture_raises(vm, NULL, "local t = {} for n = 1, 1000 do pcall(function() for i = 1, 1e5 do t[#t + 1] = ('x'):rep(1000) .. #t end end) end", "not enough memory");
    assert_true(vm->bytes <= vm->cap + vm->cap / 2);
    fixture_runs(vm, NULL, "assert(1 + 1 == 2)");
}

/* Live tables that fill three quarters of the cap must not cost every call a whole cycle. */
static void a_full_vm_is_not_collected_anew_by_each_call(void **state)
{
    fixture_runs(vm, NULL, "keep = {} while collectgarbage('count') < 13000 do keep[#keep + 1] = { 1 } end");
    assert_true(vm->bytes > vm->cap - vm->cap / 4 && !vm->broken);
    for (int i = 0; i < 100; i++) fixture_runs(vm, NULL, "");
    fixture_runs(vm, NULL, "cycles, seen = 0, setmetatable({}, { __mode = 'v' })");
    for (int i = 0; i < 20; i++) fixture_runs(vm, NULL, "if not seen[1] then cycles = cycles + 1 seen[1] = {} end");
    fixture_runs(vm, NULL, "assert(cycles <= 3, cycles)"); /* the first is none, and one may just have been ending */
    /* and there is room for more */
    fixture_runs(vm, NULL, "core.load([[for i = 1, 300000 do local t = { i } end]], 'x.lua')()");
    assert_false(vm->broken);
}

/* Nobody who comes next waits for a cycle of all that was taken, or goes without; and it is all gone soon. */
static void what_a_failed_call_leaves_goes_in_pieces(void **state)
{
    claw_vm_set_cap(vm, 64u << 20);
    for (int round = 0; round < 3; round++) {
        fixture_raises(vm, NULL, "core.load([[local t = {} for i = 1, 1e7 do t[i] = { {} } end]], 'x.lua')()", "not enough memory");
        size_t left = vm->bytes;
        assert_true(vm->broken && vm->owed && left > 40u << 20);
        fixture_runs(vm, NULL, "assert(#('y'):rep(300000) == 300000)"); /* a large block, too */
        assert_true(left < vm->bytes + (24u << 20));
        fixture_raises(vm, NULL, "core.load([[local t = {} for i = 1, 1e7 do t[i] = { {} } end]], 'x.lua')()", "not enough memory");
        assert_true(vm->bytes < 80u << 20); /* not all of what is left for others */
        for (int i = 0; i < 400 && vm->owed; i++) fixture_runs(vm, NULL, "");
        assert_true(vm->owed == 0 && vm->bytes <= 48u << 20);
    }
    /* behind a call with a budget, for as long as that is */
    vm->budget.limit_us = 10000000;
    fixture_raises(vm, NULL, "core.load([[local t = {} for i = 1, 1e7 do t[i] = { {} } end]], 'x.lua')()", "not enough memory");
    assert_true(vm->owed == 0 && vm->bytes <= 48u << 20);
}

static void modules_come_from_the_binary(void **state)
{
    if (!claw_embedded_lua[0].name) skip();
    fixture_runs(vm, NULL, "assert(type(require('claw.json').encode) == 'function')");
    fixture_runs(vm, NULL, "assert(require('claw.json') == require('claw.json'))");
    fixture_runs(vm, NULL, "assert(require('cjson').decode('[1]')[1] == 1)");
}

static void nothing_is_loaded_from_the_working_directory(void **state)
{
    fixture_runs(vm, NULL, "assert(package.path == '')");
    fixture_runs(vm, NULL, "for entry in package.cpath:gmatch('[^;]+') do assert(entry:sub(1, 1) == '/', entry) end");
    fixture_raises(vm, NULL, "require('no_such_module')", "no embedded module 'no_such_module'");
    fixture_raises(vm, NULL, "require('claw.no_such')", "no embedded module 'claw.no_such'");
    fixture_raises(vm, NULL, "require('claw/../x')", "no embedded module");
    fixture_raises(vm, NULL, "require('claw.x/../../y')", "is no module name");
}

static void files_win_in_development(void **state)
{
    struct fixture f;
    fixture_init(&f);
    fixture_make_dir(&f);
    char path[300];
    snprintf(path, sizeof path, "%s/claw", f.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    fixture_write(&f, "claw/json.lua", "return 'from disk'", 18);
    fixture_write(&f, "claw/broken.lua", "return +", 8);
    setenv("OPENCLAW_LUA_DIR", f.dir, 1);
    fixture_runs(vm, NULL, "assert(require('claw.json') == 'from disk')");
    fixture_raises(vm, NULL, "require('claw.broken')", "broken.lua:1: unexpected symbol");
    unsetenv("OPENCLAW_LUA_DIR");
    snprintf(path, sizeof path, "%s/claw/json.lua", f.dir);
    assert_int_equal(remove(path), 0);
    snprintf(path, sizeof path, "%s/claw/broken.lua", f.dir);
    assert_int_equal(remove(path), 0);
    snprintf(path, sizeof path, "%s/claw", f.dir);
    assert_int_equal(rmdir(path), 0);
    fixture_fini(&f);
}

static void chunks_are_text_only(void **state)
{
    fixture_runs(vm, NULL, "local f, m = core.load(string.dump(function() end), 'x.lua') assert(f == nil and m:find('mode'), m)");
    fixture_runs(vm, NULL, "local f, m = core.load('return +', 'policies/x.lua') assert(f == nil and m:find('^policies/x.lua:1:'), m)");
    fixture_runs(vm, NULL, "local f = core.load('return ...', '@x.lua') assert(f(7) == 7)");
    fixture_runs(vm, NULL, "local f = core.load('a = 1 return a', 'x.lua') core.setfenv(f, {}) assert(f() == 1 and a == nil)");
    fixture_raises(vm, NULL, "core.load('\\n\\nerror(\"boom\")', 'policies/y.lua')()", "policies/y.lua:3: boom");
    fixture_raises(vm, NULL, "core.setfenv(print, 1)", "table expected");
}

static lua_State *stopped;

static void stop_now(lua_State *L, lua_Debug *d) { luaL_error(L, "stopped"); }
static void on_timer(int sig) { lua_sethook(stopped, stop_now, LUA_MASKCOUNT, 1); }

/* What the watchdog will rest on: a hook set from outside stops a loop that has run for long. */
static void interpreted_chunks_can_be_stopped(void **state)
{
    stopped = vm->L;
    alarm(30);
    signal(SIGVTALRM, on_timer);
    struct itimerval t = {.it_value = {0, 30000}};
    setitimer(ITIMER_VIRTUAL, &t, NULL);
    fixture_raises(vm, NULL, "core.load('local i = 0 while true do i = i + 1 end', 'loop.lua')()", "stopped");
    lua_sethook(vm->L, NULL, 0, 0);
    signal(SIGVTALRM, SIG_DFL);
    alarm(0);
}

static void random_numbers_are_spread(void **state)
{
    int low = 0;
    for (int i = 0; i < 1000; i++) {
        double d = claw_vm_random(vm);
        assert_true(d >= 0 && d < 1);
        low += d < 0.5;
    }
    assert_in_range(low, 400, 600);
}

static void a_cap_too_small_is_told(void **state)
{
    struct claw_vm *small;
    for (size_t cap = 0; cap < 160000; cap += 7919) {
        int rc = claw_vm_new(cap, &small);
        if (rc == 0) claw_vm_free(small);
        else assert_int_equal(rc, CLAW_ENOMEM);
    }
    assert_int_equal(claw_vm_new(1000, &small), CLAW_ENOMEM);
}

static void the_collector_can_be_made_to_run_always(void **state)
{
    struct claw_vm *stressed;
    setenv("OPENCLAW_GCSTRESS", "1", 1);
    assert_int_equal(claw_vm_new(16u << 20, &stressed), 0);
    unsetenv("OPENCLAW_GCSTRESS");
    size_t before = stressed->bytes;
    fixture_runs(stressed, NULL, "for i = 1, 20000 do local s = ('g'):rep(100) .. i end");
    assert_true(stressed->bytes < before + 300000);
    claw_vm_free(stressed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(bytes_are_counted_and_given_back), T(past_the_cap_a_call_fails_and_the_vm_serves_on), T(compiled_loops_meet_the_hard_bound), T(one_huge_string_is_refused),
        T(garbage_is_collected_before_the_cap_is_met), T(a_full_vm_is_not_collected_anew_by_each_call),
        T(what_a_failed_call_leaves_goes_in_pieces), T(a_caught_shortage_does_not_grow_without_bound), T(modules_come_from_the_binary),
        T(nothing_is_loaded_from_the_working_directory), T(files_win_in_development), T(chunks_are_text_only),
        T(interpreted_chunks_can_be_stopped), T(random_numbers_are_spread), T(a_cap_too_small_is_told),
        T(the_collector_can_be_made_to_run_always),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
