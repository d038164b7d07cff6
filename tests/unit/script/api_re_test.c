/* api_re: regular expressions through core, and how long the worst of them may take. */
#include "fixture.h"

#include <time.h>

static struct claw_vm *vm;

static const char prelude[] =
    "re = require('claw.re').new(core) "
    "function same(want, ...) local got = { ... } for i = 1, math.max(#want, table.maxn(got)) do "
    "  if got[i] ~= want[i] then error(i .. ': ' .. tostring(got[i]) .. ' is not ' .. tostring(want[i]), 2) end end end ";

static int setup(void **state) { return claw_vm_new(64u << 20, &vm); }
static int teardown(void **state)
{
    claw_vm_free(vm);
    return 0;
}

static void run(const char *code)
{
    char *text = NULL;
    assert_true(asprintf(&text, "%s%s", prelude, code) > 0);
    fixture_runs(vm, NULL, text);
    free(text);
}

/* What is bounded by the thread's CPU time says nothing where a tool makes all of it slow. */
static void skip_under_a_tool(void)
{
    if (getenv("CLAW_KIND")) skip();
}

static void finds(void **state)
{
    run("same({ 3, 5 }, re.find('xxabc', 'a.c')) same({}, re.find('x', 'y')) same({ 1, 0 }, re.find('x', ''))"
        "same({ 1, 3, 'b', false, 'c' }, re.find('abc', 'a(b)(x)?(c)')) same({ 4, 4 }, re.find('abca', 'a', 2))"
        "same({ 4, 4 }, re.find('abca', 'a', -1)) same({}, re.find('abc', 'a', 9)) same({ 1, 3 }, re.find('abc', '.+', -9))"
        "same({ 1, 6 }, re.find('\xc3\xa9\xe2\x82\xacx', '^..x$')) same({ 'k\xc3\xa4se' }, re.match('KK\xc3\x84SE k\xc3\xa4se', '\\\\bk\xc3\xa4se'))"
        "same({ 'KK\xc3\x84SE' }, re.match('KK\xc3\x84SE', '(?i)kk\xc3\xa4se'))");
}

static void matches(void **state)
{
    run("same({ 'abc' }, re.match('xabcx', 'a.c')) same({ 'b', 'c' }, re.match('abc', 'a(b)(c)')) same({}, re.match('a', 'b'))");
}

static void replaces(void **state)
{
    skip_under_a_tool();
    run("same({ 'b-n-n-', 3 }, re.gsub('banana', 'a', '-')) same({ 'b-nana', 1 }, re.gsub('banana', 'a', '-', 1))"
        "same({ '-x-\xc3\xa9-', 3 }, re.gsub('x\xc3\xa9', '', '-')) same({ '--b-', 3 }, re.gsub('aab', 'a*', '-'))"
        "same({ '<b>%<b>', 2 }, re.gsub('a%a', 'a', '<b>')) same({ '[ab]a', 1 }, re.gsub('aba', '(a)b', '[%0]'))"
        "same({ 'ba', 1 }, re.gsub('ab', '(a)(b)', '%2%1')) same({ '%', 1 }, re.gsub('x', 'x', '%%'))"
        "same({ 'A-b', 1 }, re.gsub('a-b', '^[a-z]', string.upper)) same({ 'x1', 1 }, re.gsub('xy', 'y', function() return 1 end))"
        "same({ 'xy', 1 }, re.gsub('xy', 'y', function() end))"
        "local t, n, c = re.gsub(('a'):rep(512), 'a', 'b') assert(n == 512, n) same({ ('b'):rep(512) }, t)");
}

static void mistakes_are_told(void **state)
{
    run("for _, case in ipairs({ { function() re.find('x', '(') end, 'claw.re.find: bad pattern at 2: missing closing parenthesis' },"
        "  { function() re.match('x', ('a'):rep(5000)) end, 'more than 4096 bytes' }, { function() re.match('x', ('(a)'):rep(40)) end, 'more than 32 captures' },"
        "  { function() re.find(5, 'x') end, 'wants a text and a pattern' }, { function() re.gsub('x', 'x', 5) end, 'wants a replacement' },"
        "  { function() re.gsub('x', 'x', '%x') end, 'wants a digit' }, { function() re.gsub('x', 'x', '%3') end, 'no capture %3' },"
        "  { function() re.gsub('x', 'x', function() return {} end) end, 'returned a table' } }) do"
        "  local ok, message = pcall(case[1]) assert(not ok and message:find(case[2], 1, true), message) end "
        "same({ nil, 'the text is not UTF-8, or init is within a character', 'EUTF8' }, re.find('\\255', 'x'))"
        "assert(select(3, re.find('\xc3\xa9', '.', 2)) == 'EUTF8') assert(select(3, re.find(('x'):rep(2^20 + 1), 'x')) == 'ETOO_LARGE')");
}

static void many_patterns_are_forgotten(void **state)
{
    run("for i = 1, 2000 do same({ tostring(i) }, re.match('x' .. i, '\\\\d+(?#' .. i .. ')')) end");
}

/* What is known to blow up, on 64 KB: an answer or ELIMIT, and never more than a few milliseconds of this thread. */
static void nothing_takes_long(void **state)
{
    static const char *const cases[][2] = {
        {"(a+)+$", "('a'):rep(65535) .. 'b'"},    {"(a|a)*$", "('a'):rep(65535) .. 'b'"},  {"(a|aa)+$", "('a'):rep(65535) .. 'b'"},
        {"(.*)*x", "('a'):rep(65536)"},           {"a*b", "('a'):rep(65536)"},             {"a*+b", "('a'):rep(65536)"},
        {".*.*.*x", "('a'):rep(65536)"},          {"(?:a*+c|a*+d|a*+e)", "('a'):rep(65536)"}, {"(\\\\w+\\\\s?)*$", "('a b '):rep(16384) .. '!'"},
        {"^(([a-z])+.)+[A-Z]([a-z])+$", "('a'):rep(65536)"}, {"(a*)*\\\\1b", "('a'):rep(65536)"}, {"(?=.*x)a", "('a'):rep(65536)"},
        {"(?<=aaaaaaaa)b", "('a'):rep(65536)"},    {"((a?){10}){10}b", "('a'):rep(65536)"}, {"(?R)?a+b", "('a'):rep(65536)"},
        {"\\\\s+$", "(' '):rep(65535) .. 'x'"},     {"[^x]*y", "('\xc3\xa9'):rep(32768)"},
    };
    double worst = 0;
    skip_under_a_tool();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char code[400];
        struct timespec a, b;
        snprintf(code, sizeof code, "text = %s", cases[i][1]);
        run(code);
        snprintf(code, sizeof code, "for _, f in ipairs({ re.find, function(t, p) return re.gsub(t, p, 'z') end }) do local a, b, c = f(text, '%s') "
                                    "assert(c == nil or type(c) == 'string') end", cases[i][0]);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        run(code);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        double ms = ((double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6) / 2;
        if (getenv("CLAW_SAY")) print_message("%-34s %6.2f ms a call\n", cases[i][0], ms);
        if (ms > worst) worst = ms;
    }
    print_message("the slowest of %zu patterns: %.1f ms a call\n", sizeof cases / sizeof *cases, worst);
    assert_true(worst < 50); /* sanitizers; without: some 9 ms */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(finds), T(matches), T(replaces), T(mistakes_are_told), T(many_patterns_are_forgotten), T(nothing_takes_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
