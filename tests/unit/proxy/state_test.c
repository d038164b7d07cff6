/* state: the scripts that Redis runs decide as limit.c does, count each batch once, and tell each event once; run here by
 * LuaJIT, in a Redis of a few commands whose clock the test sets. */
#include "proxy/limit_part.h"
#include "proxy/spend.h"
#include "proxy/state.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char fake[] =
    "us, data = 1800000000 * 1e6, {}\n"
    "local function text(v) return type(v) == 'number' and ('%.17g'):format(v) or v end\n"
    "local commands = {}\n"
    "function commands.TIME() return { ('%.0f'):format(math.floor(us / 1e6)), ('%.0f'):format(us % 1e6) } end\n"
    "function commands.GET(k) return data[k] or false end\n"
    "function commands.SET(k, v) data[k] = v end\n"
    "function commands.DEL(k) data[k] = nil end\n"
    "function commands.INCR(k) data[k] = text(tonumber(data[k] or 0) + 1) return tonumber(data[k]) end\n"
    "function commands.PTTL(k) return 1 end\n"
    "function commands.PEXPIRE(k, ms) assert(tonumber(ms) > 0 and tonumber(ms) % 1 == 0) end\n"
    "function commands.ZADD(k, score, m) data[k] = data[k] or {} data[k][m] = tonumber(score) end\n"
    "function commands.ZREM(k, m) if data[k] then data[k][m] = nil end end\n"
    "function commands.ZCARD(k) local n = 0 for _ in pairs(data[k] or {}) do n = n + 1 end return n end\n"
    "function commands.ZREMRANGEBYSCORE(k, _, most) for m, s in pairs(data[k] or {}) do if s <= tonumber(most) then data[k][m] = nil end end end\n"
    "function commands.HSET(k, ...) data[k] = data[k] or {} for i = 1, select('#', ...), 2 do data[k][(select(i, ...))] = (select(i + 1, ...)) end end\n"
    "function commands.HDEL(k, f) data[k][f] = nil end\n"
    "function commands.HGETALL(k) local out = {} for f, v in pairs(data[k] or {}) do out[#out + 1] = f out[#out + 1] = v end return out end\n"
    "function commands.HMGET(k, ...) local out = {} for i = 1, select('#', ...) do out[i] = (data[k] or {})[(select(i, ...))] or false end return out end\n"
    "redis = { call = function(name, ...)\n"
    "  local args = { ... }\n"
    "  for i = 1, #args do args[i] = text(args[i]) end\n"
    "  return commands[name](unpack(args))\n"
    "end }\n"
    /* A reply as Redis makes it of a table: whole numbers and texts. */
    "function run(script, keys, args)\n"
    "  KEYS, ARGV = keys, {}\n"
    "  for i = 1, #args do ARGV[i] = text(args[i]) end\n"
    "  local out = assert(loadstring(script))()\n"
    "  for i = 1, #out do if type(out[i]) == 'number' then out[i] = out[i] - out[i] % 1 end end\n"
    "  return out\n"
    "end\n";

static lua_State *L;

static void lua(const char *text)
{
    if (luaL_dostring(L, text)) fail_msg("%s", lua_tostring(L, -1));
}

static int set_up(void **state)
{
    L = luaL_newstate();
    luaL_openlibs(L);
    lua(fake);
    lua_pushstring(L, claw_state_decide);
    lua_setglobal(L, "decide");
    lua_pushstring(L, claw_state_sync);
    lua_setglobal(L, "sync");
    lua_pushstring(L, claw_state_fetch);
    lua_setglobal(L, "fetch_answer");
    lua_pushstring(L, claw_state_keep);
    lua_setglobal(L, "keep_answer");
    return 0;
}

static int tear_down(void **state)
{
    lua_close(L);
    return 0;
}

static uint64_t chance = 42;
static int64_t any(int64_t below)
{
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((chance >> 20) % (uint64_t)below);
}

static double us_of(int64_t ns) { return (double)ns / 1000; }

/* The script's answer to one T: element `i`. */
static double answer(int i)
{
    lua_rawgeti(L, -1, i);
    double n = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return n;
}

static void ask(const struct claw_limit_want *w, double us)
{
    lua_getglobal(L, "run");
    lua_getglobal(L, "decide");
    lua_createtable(L, 1, 0);
    lua_pushstring(L, "k");
    lua_rawseti(L, -2, 1);
    lua_createtable(L, 5, 0);
    lua_pushstring(L, "T");
    lua_rawseti(L, -2, 1);
    const int64_t times[4] = {claw_limit_cost(w->amount, w->kind, w->limit), claw_limit_cost(w->amount < w->room ? w->amount : w->room, w->kind, w->limit),
                              claw_limit_cost(w->room, w->kind, w->limit), w->patience_ns};
    for (int i = 0; i < 4; i++) {
        lua_pushnumber(L, us_of(times[i]));
        lua_rawseti(L, -2, i + 2);
    }
    lua_pushnumber(L, us);
    lua_setglobal(L, "us");
    if (lua_pcall(L, 3, 1, 0)) fail_msg("%s", lua_tostring(L, -1));
}

/* Traces of all kinds of rates, with bursts, patience and requests that are more than there can be. */
static void as_limit_does(void **state)
{
    unsigned admitted = 0, refused = 0, close = 0;
    for (int trace = 0; trace < 300; trace++) {
        struct claw_limit_cell cell = {0};
        struct claw_limit_want w = {.kind = (enum claw_limit_kind)any(CLAW_LIMIT_CONCURRENT), .limit = 1 + any(trace % 2 ? 10 : 100000)};
        w.room = any(2) ? w.limit : 1 + any(w.limit);
        w.patience_ns = any(3) ? 0 : any(60) * 1000000000ll;
        double us = 1800000000.0 * 1e6 + (double)any(1000000000);
        int64_t period = claw_limit_cost(w.limit, w.kind, w.limit), step = period / w.limit * 2 / 1000 + 1;
        lua("data = {}");
        for (int i = 0; i < 60; i++) {
            us += (double)any(any(10) ? step : 10 * step);
            w.amount = claw_limit_is_tokens(w.kind) ? 1 + any(w.limit + w.limit / 5 + 1) : 1;
            int64_t now = ((int64_t)us - 1700000000ll * 1000000) * 1000;
            struct claw_limit_cell before = cell;
            struct claw_limit_answer a = claw_limit_cell_take(&cell, w.kind, w.limit, w.room, w.amount, w.patience_ns, now);
            ask(&w, us);
            bool there = answer(1) == 1;
            if (there != a.admitted) { /* only where they are a rounding apart; then go on from the same */
                int64_t from = before.tat_ns > now ? before.tat_ns : now, least = w.amount < w.room ? w.amount : w.room;
                int64_t ahead = from + claw_limit_cost(least, w.kind, w.limit) - now - claw_limit_cost(w.room, w.kind, w.limit);
                assert_true(llabs(ahead - w.patience_ns) <= 2000);
                close++;
                lua_pop(L, 1);
                break;
            }
            if (there) assert_true(answer(2) * 1000 - (double)a.full_ns <= 3000 && answer(2) * 1000 - (double)a.full_ns >= -3000);
            else assert_true(answer(3) * 1000 - (double)a.wait_ns <= 3000 && answer(3) * 1000 - (double)a.wait_ns >= -3000);
            admitted += there;
            refused += !there;
            lua_pop(L, 1);
        }
    }
    assert_true(admitted > 2000 && refused > 2000);
    assert_true(close < 30);
}

static void all_or_none(void **state)
{
    lua("local function two() return run(decide, {'a', 'b'}, {'T', 1000, 1000, 3000, 0, 'L', 1, 'i:1', 5000, ''}) end\n"
        "local out = two() assert(out[1] == 1 and out[2] == 1000 and out[3] == 1)\n"
        "local a = data.a out = two() assert(out[1] == 0 and out[2] == 2 and out[3] == -1 and data.a == a)\n"
        "run(decide, {'b'}, {'R', 'i:1', '', '', ''})\n"
        "out = two() assert(out[1] == 1 and out[2] == 2000)");
}

static void leases(void **state)
{
    lua("local function take(name) return run(decide, {'k'}, {'L', 2, name, 5000, ''})[1] end\n"
        "assert(take('a:1') == 1 and take('b:1') == 1 and take('b:2') == 0)\n"
        "us = us + 4e6 run(decide, {'k', 'k'}, {'N', 'b:1', 5000, '', '', 'N', 'b:9', 5000, '', ''})\n" /* b:9 was given while it was away */
        "us = us + 2e6 assert(take('c:1') == 0 and not data.k['a:1'])\n"
        "us = us + 4e6 assert(take('c:1') == 1 and take('c:2') == 1 and take('c:3') == 0)");
}

static void put_right(void **state)
{
    lua("local function put(by) run(decide, {'k'}, {'A', by, '', '', ''}) return data.k and tonumber(data.k) - (us - 17e14) end\n"
        "assert(put(-500) == nil and put(700) == 700 and put(-200) == 500 and put(-800) == nil)\n"
        "put(1000) us = us + 400 assert(put(0.5) == 600.5)\n"
        "us = us + 1e6 assert(put(10) == 10, 'it begins now')");
}

#define TELL "local function tell(who, number, seen, events, known, more, start)\n"                                                              \
    "  local args = {who, 3000, number, seen, 0, #events / 3}\n"                                                                               \
    "  for _, v in ipairs(events) do args[#args + 1] = v end\n"                                                                                \
    "  for p = 1, 3 do args[#args + 1] = start or 86400 end\n"                                                                                 \
    "  for _ = 1, 4 do args[#args + 1] = known end\n"                                                                                          \
    "  for _ = 1, 4 do args[#args + 1] = more end\n"                                                                                           \
    "  return run(sync, {'i', 'n:' .. who, 'aside', 'aside:n', 'epoch', 'spend'}, args)\n"                                                              \
    "end\n"

static void a_batch_counts_once(void **state)
{
    lua(TELL
        "local function sums(out) return table.concat({ out[#out - 3], out[#out - 2], out[#out - 1], out[#out] }, ' ') end\n"
        "assert(sums(tell('a', 1, 0, {}, 0, 10)) == '10 10 10 10')\n"
        "assert(sums(tell('b', 1, 0, {}, 0, 5)) == '15 15 15 15')\n"
        "assert(sums(tell('a', 1, 0, {}, 0, 10)) == '15 15 15 15', 'its answer was lost')\n"
        "assert(sums(tell('a', 2, 0, {}, 15, 1)) == '16 16 16 16')\n"
        "data = {}\n"
        "assert(sums(tell('a', 3, 0, {}, 16, 1)) == '17 17 17 17', 'it was emptied')\n"
        "assert(sums(tell('b', 2, 0, {}, 15, 0)) == '17 17 17 17')\n"
        "assert(sums(tell('b', 3, 0, {}, 3, 2, 172800)) == '5 5 5 19', 'the next day')\n"
        "local out = tell('a', 4, 0, {}, 17, 1)\n"
        "assert(sums(out) == '6 6 6 20' and out[#out - 7] == 172800, 'whose clock is behind counts in it, too')");
}

/* Money is whole micro-dollars, which a double tells apart up to 2^53: a sum stays there. */
static void sums_end_at_what_a_double_counts(void **state)
{
    struct claw_spend *s = claw_spend_of(CLAW_STR("rich"));
    int64_t now = 1800000000;
    lua(TELL
        "local function sum(out) return ('%.0f'):format(out[#out]) end\n"
        "assert(sum(tell('a', 1, 0, {}, 0, 9007199254740990)) == '9007199254740990')\n"
        "assert(sum(tell('a', 2, 0, {}, 0, 5)) == '9007199254740991')\n"
        "assert(sum(tell('b', 1, 0, {}, 9007199254740991, 9007199254740991)) == '9007199254740991' and data.spend.t == '9007199254740991')");
    for (int i = 0; i < 3; i++) claw_spend_add(s, INT64_MAX / 2, now);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_TOTAL, now), CLAW_SPEND_MOST);
    claw_spend_restore(s, CLAW_SPEND_TOTAL, 0, INT64_MAX);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_TOTAL, now), CLAW_SPEND_MOST);
}

static void events_are_heard_once(void **state)
{
    lua(TELL
        "tell('a', 1, 0, {'uone\\31', 5000, 'o'}, 0, 0)\n"
        "local out = tell('b', 1, 0, {}, 0, 0)\n"
        "assert(out[1] == 2 and out[2] == 1 and out[3] == 1 and out[4] == 'uone\\31' and out[5] == 'o' and out[6] == 5000)\n"
        "assert(tell('b', 2, 1, {}, 0, 0)[3] == 0 and tell('a', 2, 0, {}, 0, 0)[3] == 0, 'nor by who said it')\n"
        "tell('a', 2, 0, {'uone\\31', 9000, 'o'}, 0, 0) assert(data['aside:n'] == '1', 'a batch that was counted')\n"
        "us = us + 2.5e6 tell('b', 3, 1, {'ktwo\\31ff', 0, 'r'}, 0, 0)\n"
        "out = tell('c', 1, 0, {}, 0, 0) assert(out[1] == 3 and out[3] == 2)\n"
        "us = us + 2.6e6 out = tell('d', 1, 0, {}, 0, 0)\n"
        "assert(out[1] == 3 and out[3] == 1 and out[4] == 'ktwo\\31ff', 'a and the first are over')\n"
        "data = {} tell('a', 3, 2, {'uone\\31', 5000, 'o'}, 0, 0)\n"
        "out = tell('d', 2, 2, {}, 0, 0) assert(out[2] == 1 and out[3] == 1, 'numbers began anew')");
}

static void a_purge_is_an_epoch(void **state)
{
    lua(TELL
        "local function fetch() return run(fetch_answer, {'k', 'epoch'}, {}) end\n"
        "local function keep(text, epoch) return run(keep_answer, {'k', 'epoch'}, {text, 5000, epoch})[1] end\n"
        "assert(fetch()[1] == '' and fetch()[3] == 0 and keep('x', 0) == 1 and fetch()[1] == 'x')\n"
        "tell('a', 1, 0, {'p', 0, 'p'}, 0, 0) assert(fetch()[3] == 1 and keep('y', 0) == 0 and fetch()[1] == 'x')\n"
        "tell('a', 1, 0, {'p', 0, 'p'}, 0, 0) assert(fetch()[3] == 1 and keep('y', 1) == 1 and fetch()[1] == 'y')");
}

static void news_of_spend(void **state)
{
    struct claw_spend *s = claw_spend_of(CLAW_STR("news"));
    struct claw_spend_news n[4];
    int64_t now = 1800000000, sums[4] = {50, 50, 50, 70};
    claw_spend_add(s, 7, now);
    claw_spend_share(true);
    claw_spend_add(s, 3, now);
    claw_spend_add(s, 4, now);
    assert_int_equal(claw_spend_take_news(n, 4), 1);
    assert_ptr_equal(n[0].spend, s);
    assert_int_equal(n[0].more[CLAW_SPEND_TOTAL], 7);
    assert_int_equal(n[0].known[CLAW_SPEND_TOTAL], 7);
    claw_spend_add(s, 5, now); /* while they are on their way */
    claw_spend_hear(s, n[0].start, sums);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_TOTAL, now), 75);
    assert_int_equal(claw_spend_take_news(n, 4), 1);
    assert_int_equal(n[0].more[CLAW_SPEND_TOTAL], 5);
    assert_int_equal(n[0].known[CLAW_SPEND_TOTAL], 70);
    struct claw_spend_news many[128]; /* of ten thousand that nobody asks for never as many as there is room */
    char name[24];
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "other %d", i);
        assert_non_null(claw_spend_of(claw_str_of(name)));
    }
    for (int i = 0; i < 50; i++) assert_in_range(claw_spend_take_news(many, 128), 1, 127);
    claw_spend_share(false);
}

/* Texts that are told apart have other hashes; and nothing of them is in it. */
static void hashes(void **state)
{
    char a[33], b[33], c[33];
    claw_state_hash((struct claw_str[]){CLAW_STR("ab"), CLAW_STR("c")}, 2, a);
    claw_state_hash((struct claw_str[]){CLAW_STR("a"), CLAW_STR("bc")}, 2, b);
    claw_state_hash((struct claw_str[]){CLAW_STR("ab"), CLAW_STR("c")}, 2, c);
    assert_string_not_equal(a, b);
    assert_string_equal(a, c);
    assert_int_equal(strlen(a), 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(as_limit_does, set_up, tear_down), cmocka_unit_test_setup_teardown(all_or_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leases, set_up, tear_down), cmocka_unit_test_setup_teardown(put_right, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_batch_counts_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(events_are_heard_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_purge_is_an_epoch, set_up, tear_down), cmocka_unit_test(news_of_spend), cmocka_unit_test(hashes),
        cmocka_unit_test_setup_teardown(sums_end_at_what_a_double_counts, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
