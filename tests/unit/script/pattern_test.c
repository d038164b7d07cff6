/* pattern: means what LuaJIT's own string library means, and ends in bounded time. */
#include "fixture.h"

static struct claw_vm *vm;

static void register_in(lua_State *L, void *arg)
{
    claw_api_register(L);
    claw_pattern_push_functions(L);
    lua_setglobal(L, "mine");
}

static int setup(void **state)
{
    struct claw_arena a;
    struct claw_task_error e;
    assert_int_equal(claw_vm_new(32u << 20, &vm), 0);
    claw_arena_init(&a, NULL, 0, 1u << 20);
    assert_int_equal(claw_task_call(vm, register_in, NULL, &a, &e), 0);
    claw_arena_reset(&a);
    return 0;
}

static int teardown(void **state)
{
    claw_vm_free(vm);
    return 0;
}

/* Each function of both libraries, with all it returns or raises as one text. */
static const char compare[] =
    "local function show(...) local out = {} for i = 1, select('#', ...) do local v = select(i, ...)\n"
    "    out[i] = type(v) == 'string' and ('%q'):format(v) or tostring(v) end return table.concat(out, ' ') end\n"
    "local function said(...) local text = show(pcall(...)) return (string.gsub(text, 'to \\'%?\\' ', '')) end\n"
    "local function all(f, s, p) local out = {} for a, b, c in f(s, p) do\n"
    "    out[#out + 1] = show(a, b, c) if #out > 60 then break end end return table.concat(out, ';') end\n"
    "function same(s, p, from, r, most)\n"
    "    local pairs_of = { {string.find, mine.find, s, p, from}, {string.match, mine.match, s, p, from},\n"
    "        {string.gsub, mine.gsub, s, p, r, most}, {string.find, mine.find, s, p, from, true} }\n"
    "    for i, t in ipairs(pairs_of) do\n"
    "        local one, two = said(t[1], unpack(t, 3, 6)), said(t[2], unpack(t, 3, 6))\n"
    "        if one ~= two then error(('%d: %q %q %s %s\\n  %s\\n  %s'):format(i, s, p, tostring(from), tostring(r), one, two), 0) end\n"
    "    end\n"
    "    local one, two = said(all, string.gmatch, s, p) , nil\n"
    "    two = said(function() return all(mine.gmatch, s, p) end)\n"
    "    if one ~= two then error(('gmatch: %q %q\\n  %s\\n  %s'):format(s, p, one, two), 0) end\n"
    "end\n";

static void the_same_as_the_library_on_known_cases(void **state)
{
    fixture_runs(vm, NULL, compare);
    fixture_runs(vm, NULL,
        "local subjects = { '', 'a', 'hello world', 'THE (quick) fox', 'key = value', '((a)(b))c', 'a\\0b\\0', '\\200\\255x', ('ab'):rep(40) }\n"
        "local patterns = { '', 'l', 'l+', '^h', '^', '$', 'd$', '%(', '%b()', '%f[%w]%w+', '(%w+)%s*=%s*(%w+)', '()', '(())', '(h)(.)%2',\n"
        "  '(.)%1', '[%]]', '[]]', '[^]]', '[a-]', '[%a-z]', '[', '[a', '[^', '%', 'a%', '(', ')', '(()', '%1', '(%1)', '%b', '%bx', '%f', '%fa',\n"
        "  'a*', 'a-', 'a?', '.-b', 'x*$', '%z', '%Z+', '%g+', '[%z]', '.', '%.', '[%d%s]', '%u%l*', '*a', '+', '?', '-', '^^a', 'a^', 'a$b',\n"
        "  '(a*(.)%w(%s*))', '%x+', '%c', '%p', '[z-a]', '[a-c-e]', '%é', ('(a)'):rep(33), ('a?'):rep(210), ('a'):rep(300) }\n"
        "for _, s in ipairs(subjects) do for _, p in ipairs(patterns) do\n"
        "  for _, from in ipairs({ 1, 2, -1, 0, 100, -100 }) do same(s, p, from, '<%0%1>', nil) end\n"
        "  same(s, p, nil, '%', nil) same(s, p, nil, '%2', 2) same(s, p, nil, function(a) return a end) same(s, p, nil, function() return false end, 1)\n"
        "  same(s, p, nil, { a = 'X', l = 7, h = false }) same(s, p, nil, 7) same(s, p, nil, function() return {} end) same(s, p, nil, true)\n"
        "end end\n");
}

static void the_same_as_the_library_on_random_cases(void **state)
{
    fixture_runs(vm, NULL, compare);
    fixture_runs(vm, NULL,
        "math.randomseed(7)\n"
        "local pieces = { 'a', 'b', 'c', '.', '%a', '%d', '%s', '%w', '%W', '%p', '[ab]', '[^a]', '[a-c]', '[%d]', '[^%s]', '(', ')', '()', '(a', 'b)', '^', '$', '*', '+',\n"
        "  '-', '?', '%b()', '%f[%w]', '%1', '%2', '%%', '%', '[', ']', ' ', '1' }\n"
        "local chars = { 'a', 'b', 'c', '(', ')', '1', ' ', '%', '\\0', '-', 'ab', '\\233' }\n"
        "local function any(list, n) local out = {} for i = 1, math.random(0, n) do out[i] = list[math.random(#list)] end return table.concat(out) end\n"
        "for i = 1, 20000 do\n"
        "  local r = ({ '%0', '%1', '<%1%2>', 'x', '%%' })[math.random(5)]\n"
        "  same(any(chars, 14), any(pieces, 7), math.random(-3, 6), r, math.random(4) == 1 and math.random(0, 3) or nil)\n"
        "end\n");
}

static void strings_have_these_methods(void **state)
{
    fixture_runs(vm, NULL, "assert(('x').find ~= string.find and ('x').gsub ~= string.gsub and ('x').rep == string.rep)");
    fixture_runs(vm, NULL, "assert(('x').dump == nil and ('key=value'):match('(%w+)=') == 'key')");
    fixture_runs(vm, NULL, "assert(('x').__index == nil)");
}

/* Work without a policy's call around it: bounded by the subject's length. */
static void hostile_patterns_end(void **state)
{
    fixture_raises(vm, NULL, "return (('a'):rep(200)):find(('a*'):rep(30) .. 'b')", "pattern too complex for this text");
    fixture_raises(vm, NULL, "return (('a'):rep(40)):find(('(a?)'):rep(30) .. ('a'):rep(41))", "pattern too complex for this text");
    fixture_raises(vm, NULL, "return (('('):rep(200000)):find('%b()')", "pattern too complex for this text");
    fixture_raises(vm, NULL, "return (('a'):rep(300000)):gsub('.-b', '')", "pattern too complex for this text");
    fixture_runs(vm, NULL, "assert((('a'):rep(3000000) .. 'b'):find('%a+b'))");
    fixture_runs(vm, NULL, "local s = ('ab'):rep(500000) assert(select(2, s:gsub('%a', 'c')) == 1000000)");
    fixture_runs(vm, NULL, "assert(not ('a'):rep(1000000):find(('a'):rep(500000) .. 'b', 1, true))");
}

static void callbacks_do_not_use_up_the_stack(void **state)
{
    fixture_raises(vm, NULL, "local function f() return (('x'):gsub('x', f)) end f()", "overflow");
    fixture_raises(vm, NULL, "local function f() return (('x'):gsub('x', f)) end while true do f() end", "overflow");
    fixture_runs(vm, NULL, "local n = 0 local function f() n = n + 1 if n < 20 then return (('x'):gsub('x', f)) end end f() assert(n == 20)");
    fixture_runs(vm, NULL, "for i = 1, 1000 do pcall(string.gsub, 'x', 'x', error) assert(('ab'):gsub('a', 'b') == 'bb') end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(the_same_as_the_library_on_known_cases), T(the_same_as_the_library_on_random_cases), T(strings_have_these_methods),
        T(hostile_patterns_end), T(callbacks_do_not_use_up_the_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
