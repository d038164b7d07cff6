/* core.re_compile, core.re_exec: regular expressions (PCRE2) that cannot hold up a worker.
 *
 * Three bounds on a call: what backtracking may do (match limit), memory (heap limit), and processor time, looked at by a
 * callout before each item of the pattern, for what a limit on backtracking does not see (a scan begun anew at each of 64 KB
 * of places). No JIT: it knows none of these. */
#include "script/api.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <lauxlib.h>
#include <pcre2.h>
#include <stdio.h>
#include <time.h>

#define MATCH_LIMIT 100000
#define DEPTH_LIMIT 10000
#define HEAP_LIMIT_KB 4096
#define PATTERN_MAX 4096
#define TEXT_MAX (1u << 20)
#define BUDGET_NS 8000000u
#define CALLOUTS_A_LOOK 64u
#define CAPTURES_MAX 32

static const char type_name[] = "claw.re";

struct pattern {
    pcre2_code *code;
    pcre2_match_data *match; /* of a call: what backtracking took is not kept */
    pcre2_match_context *context;
    unsigned callouts;
    uint64_t until_ns;
};

static uint64_t spent_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void forget(struct pattern *p)
{
    pcre2_match_data_free(p->match);
    p->match = NULL;
}

static int on_callout(pcre2_callout_block *block, void *arg)
{
    struct pattern *p = arg;
    if (++p->callouts % CALLOUTS_A_LOOK) return 0;
    return spent_ns() > p->until_ns ? PCRE2_ERROR_MATCHLIMIT : 0;
}

static int pattern_gc(lua_State *L)
{
    struct pattern *p = luaL_checkudata(L, 1, type_name);
    forget(p);
    pcre2_match_context_free(p->context);
    pcre2_code_free(p->code);
    *p = (struct pattern){.code = NULL};
    return 0;
}

/* re_compile(pattern): a compiled one; or nil, message, place (bytes from 1). */
static int core_compile(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    int code = 0;
    PCRE2_SIZE at = 0;
    unsigned char why[160] = "it has more than 4096 bytes";
    struct pattern *p = lua_newuserdata(L, sizeof *p);
    *p = (struct pattern){.code = NULL};
    luaL_getmetatable(L, type_name);
    lua_setmetatable(L, -2);
    if (n <= PATTERN_MAX)
        p->code = pcre2_compile((PCRE2_SPTR)text, n, PCRE2_UTF | PCRE2_AUTO_CALLOUT | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    uint32_t captures = 0;
    if (p->code) pcre2_pattern_info(p->code, PCRE2_INFO_CAPTURECOUNT, &captures);
    if (!p->code || captures > CAPTURES_MAX) {
        if (p->code) snprintf((char *)why, sizeof why, "it has more than %d captures", CAPTURES_MAX);
        else if (n <= PATTERN_MAX) pcre2_get_error_message(code, why, sizeof why);
        lua_pushnil(L);
        lua_pushstring(L, (const char *)why);
        lua_pushinteger(L, (lua_Integer)at + 1);
        return 3;
    }
    p->context = pcre2_match_context_create(NULL);
    if (!p->context) return luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    pcre2_set_match_limit(p->context, MATCH_LIMIT);
    pcre2_set_depth_limit(p->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(p->context, HEAP_LIMIT_KB);
    pcre2_set_callout(p->context, on_callout, p);
    return 1;
}

static int limit(lua_State *L, const char *message, const char *code)
{
    lua_pushnil(L);
    lua_pushstring(L, message);
    lua_pushstring(L, code);
    return 3;
}

/* re_exec(compiled, text, init, no_empty, go_on, afresh): from, to, captures… (false: took no part); nothing; or nil, message, code.
 * With no_empty a match has at least one character and begins at init. go_on: the text is the one of the call before, and so
 * is the time, unless `afresh`. */
static int core_exec(lua_State *L)
{
    struct pattern *p = luaL_checkudata(L, 1, type_name);
    size_t n;
    const char *text = luaL_checklstring(L, 2, &n);
    lua_Number init = luaL_checknumber(L, 3);
    bool go_on = lua_toboolean(L, 5);
    uint32_t options = (lua_toboolean(L, 4) ? PCRE2_NOTEMPTY_ATSTART | PCRE2_ANCHORED : 0) | (go_on ? PCRE2_NO_UTF_CHECK : 0);
    if (!p->code) return luaL_argerror(L, 1, "a compiled pattern");
    if (n > TEXT_MAX) return limit(L, "a text of more than 1 MB is not searched", "ETOO_LARGE");
    if (!(init >= 1 && init <= (lua_Number)n + 1)) return 0;
    if (!p->match) p->match = pcre2_match_data_create_from_pattern(p->code, NULL); /* there: a call raised */
    if (!p->match) return luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    if (!go_on || lua_toboolean(L, 6)) {
        p->callouts = 0;
        p->until_ns = spent_ns() + BUDGET_NS;
    }
    int rc = pcre2_match(p->code, (PCRE2_SPTR)text, n, (size_t)init - 1, options, p->match, p->context);
    if (rc < 0) forget(p);
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if ((rc <= PCRE2_ERROR_UTF8_ERR1 && rc >= PCRE2_ERROR_UTF8_ERR21) || rc == PCRE2_ERROR_BADUTFOFFSET)
        return limit(L, "the text is not UTF-8, or init is within a character", "EUTF8");
    if (rc == PCRE2_ERROR_NOMEMORY) return luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    if (rc < 0) return limit(L, "the pattern asks for too much on this text", "ELIMIT");
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->match);
    uint32_t pairs = pcre2_get_ovector_count(p->match);
    luaL_checkstack(L, (int)pairs + 2, "too many captures");
    if (at[0] > at[1]) return limit(L, "the pattern's match ends before it begins (\\K)", "ELIMIT");
    lua_pushnumber(L, (lua_Number)at[0] + 1);
    lua_pushnumber(L, (lua_Number)at[1]);
    for (uint32_t i = 1; i < pairs; i++) {
        if (at[2 * i] == PCRE2_UNSET) lua_pushboolean(L, 0);
        else lua_pushlstring(L, text + at[2 * i], at[2 * i + 1] - at[2 * i]);
    }
    if (!go_on) forget(p);
    return (int)pairs + 1;
}

void claw_api_add_re(lua_State *L)
{
    if (luaL_newmetatable(L, type_name)) {
        lua_pushcfunction(L, pattern_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
    }
    lua_pop(L, 1);
    lua_pushcfunction(L, core_compile);
    lua_setfield(L, -2, "re_compile");
    lua_pushcfunction(L, core_exec);
    lua_setfield(L, -2, "re_exec");
}
