#include "script/api.h"

#include "base/conf_schema.h"
#include "base/tokens.h"
#include "proxy/care.h"
#include "proxy/clients.h"
#include "proxy/canary.h"
#include "proxy/series.h"
#include "script/pattern.h"

#include <lauxlib.h>
#include <math.h>

#define LOG_FIELDS 12

/* lua/claw is ours: a wrong request here is a bug, but one that ends a request and not the process. */
static struct claw_req *check_req(lua_State *L)
{
    if (!lua_islightuserdata(L, 1) || !lua_touserdata(L, 1)) luaL_typerror(L, 1, "request");
    return lua_touserdata(L, 1);
}

static struct claw_str check_str(lua_State *L, int arg)
{
    struct claw_str s;
    s.ptr = luaL_checklstring(L, arg, &s.len);
    return s;
}

/* ---- the client's request ----------------------------------------------------------------------------------- */

void claw_api_push_header(lua_State *L, const struct claw_req *r, struct claw_str name)
{
    const struct claw_head *h = r->head;
    const struct claw_header *first = NULL;
    size_t i = 0;
    for (; h && i < h->n && !first; i++)
        if (claw_str_ieq(h->headers[i].name, name)) first = &h->headers[i];
    if (!first) {
        lua_pushnil(L);
        return;
    }
    luaL_Buffer b;
    bool joined = false;
    for (; i < h->n; i++) {
        if (!claw_str_ieq(h->headers[i].name, name)) continue;
        if (!joined) {
            luaL_buffinit(L, &b);
            luaL_addlstring(&b, first->value.ptr, first->value.len);
            joined = true;
        }
        luaL_addlstring(&b, ", ", 2);
        luaL_addlstring(&b, h->headers[i].value.ptr, h->headers[i].value.len);
    }
    if (joined) luaL_pushresult(&b);
    else lua_pushlstring(L, first->value.ptr, first->value.len);
}

static int core_header(lua_State *L)
{
    const struct claw_req *r = check_req(L);
    claw_api_push_header(L, r, check_str(L, 2));
    return 1;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* application/x-www-form-urlencoded (WHATWG URL 5.1): a stray % stands for itself. */
static void push_decoded(lua_State *L, struct claw_str s)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%' && i + 2 < s.len && hex(s.ptr[i + 1]) >= 0 && hex(s.ptr[i + 2]) >= 0) {
            c = (char)(hex(s.ptr[i + 1]) << 4 | hex(s.ptr[i + 2]));
            i += 2;
        }
        luaL_addchar(&b, c);
    }
    luaL_pushresult(&b);
}

static int core_query(lua_State *L)
{
    const struct claw_req *r = check_req(L);
    check_str(L, 2);
    struct claw_str rest = r->head ? r->head->query : CLAW_STR("");
    struct claw_h1_parameter one;
    while (claw_h1_next_parameter(&rest, &one)) {
        push_decoded(L, one.name);
        bool same = lua_rawequal(L, -1, 2);
        lua_pop(L, 1);
        if (!same) continue;
        push_decoded(L, one.value);
        return 1;
    }
    lua_pushnil(L);
    return 1;
}

static int core_json(lua_State *L)
{
    const struct claw_req *r = check_req(L);
    struct claw_str path = check_str(L, 2);
    if (r->has_json) claw_value_push_path(L, &r->json, path);
    else lua_pushnil(L);
    return 1;
}

/* Is one of the words, a list in lower case, in one of the texts at the path? */
static int core_mentions(lua_State *L)
{
    const struct claw_req *r = check_req(L);
    struct claw_str path = check_str(L, 2);
    bool mentioned = false;
    luaL_checktype(L, 3, LUA_TTABLE);
    unsigned n = (unsigned)lua_objlen(L, 3);
    struct claw_str *words = claw_arena_alloc(claw_vm_scratch(claw_vm_of(L)), (n + 1) * sizeof *words);
    if (!words) luaL_error(L, "%s", claw_err_text(CLAW_EREQ_MEM));
    for (unsigned i = 0; i < n; i++) {
        lua_rawgeti(L, 3, (int)i + 1);
        words[i].ptr = luaL_checklstring(L, -1, &words[i].len);
        lua_pop(L, 1); /* still in its list */
    }
    int rc = r->has_json ? claw_value_mentions(&r->json, path, words, n, &mentioned) : 0;
    if (rc != 0) luaL_error(L, "%s", claw_err_text(rc));
    lua_pushboolean(L, mentioned);
    return 1;
}

static int core_client_ip(lua_State *L)
{
    lua_pushstring(L, check_req(L)->peer);
    return 1;
}

/* Who asks: "name" or "tier". nil: nobody that is known. */
static int core_client(lua_State *L)
{
    const struct claw_conf_client *c = check_req(L)->caller;
    struct claw_str key = check_str(L, 2), s = CLAW_STR("");
    if (c) s = claw_str_eqz(key, "tier") ? c->tier : c->name;
    if (s.len) lua_pushlstring(L, s.ptr, s.len);
    else lua_pushnil(L);
    return 1;
}

static int core_may_model(lua_State *L)
{
    lua_pushboolean(L, claw_clients_may_model(check_req(L), check_str(L, 2)));
    return 1;
}

static int core_estimate(lua_State *L)
{
    struct claw_req *r = check_req(L);
    struct claw_api_handle *h = claw_api_handle_of(L, r);
    if (!h->estimated) {
        struct claw_str body = claw_buf_str(&r->body);
        h->tokens = r->has_json ? claw_req_prompt_tokens(r) : claw_tokens_of_text(body);
        h->estimated = true;
    }
    lua_pushnumber(L, (lua_Number)h->tokens);
    return 1;
}

/* request(r, often): the policies' object; often: at least three will look at it. */
static int core_request(lua_State *L)
{
    if (lua_toboolean(L, 2)) claw_api_push_direct(L, check_req(L));
    else claw_api_push(L, check_req(L), CLAW_API_REQ);
    return 1;
}

static int core_body(lua_State *L)
{
    claw_api_push_body(L, check_req(L));
    return 1;
}

static int core_response_body(lua_State *L)
{
    claw_api_push_answer(L, check_req(L));
    return 1;
}

/* parse(r, text): a document over the text (an object or array), or nil. */
static int core_parse(lua_State *L)
{
    claw_api_push_parsed(L, check_req(L), check_str(L, 2));
    return 1;
}

/* json_error(text): what is wrong with it as JSON, or nil. */
static int core_json_error(lua_State *L)
{
    struct claw_json_doc *doc;
    struct claw_json_err e;
    struct claw_arena *scratch = claw_vm_scratch(claw_vm_of(L));
    int rc = claw_json_doc_new(scratch, check_str(L, 1), &doc, &e);
    claw_arena_reset(scratch);
    if (rc == CLAW_OK) lua_pushnil(L);
    else if (rc == CLAW_EBAD_JSON) lua_pushfstring(L, "%s at byte %d", e.text, (int)e.offset);
    else lua_pushstring(L, claw_err_text(rc));
    return 1;
}

/* rewritten(r): did a policy set this attempt's path? Then the body is in the upstream's own protocol. */
static int core_rewritten(lua_State *L)
{
    lua_pushboolean(L, check_req(L)->out_path.len > 0);
    return 1;
}

static void set_count(lua_State *L, int idx, int64_t *to)
{
    double n = lua_type(L, idx) == LUA_TNUMBER ? lua_tonumber(L, idx) : -1;
    if (*to < 0 && n >= 0 && n <= (double)CLAW_USAGE_MOST) *to = (int64_t)n;
}

/* used(r, input, cached, output, reasoning): what a translation read of usage, where it was not found in the bytes. */
static int core_used(lua_State *L)
{
    struct claw_req *r = check_req(L);
    set_count(L, 2, &r->usage.input);
    set_count(L, 3, &r->usage.cached);
    set_count(L, 4, &r->usage.output);
    if (lua_type(L, 4) == LUA_TNUMBER) r->usage.told.anew = true;
    set_count(L, 5, &r->usage.reasoning);
    set_count(L, 6, &r->usage.written);
    return 0;
}

/* request_id(r): 32 hex digits. */
static int core_request_id(lua_State *L)
{
    lua_pushstring(L, check_req(L)->id);
    return 1;
}

/* recalls(r): may its answer be given to others too? Then usage is told in it. */
static int core_recalls(lua_State *L)
{
    lua_pushboolean(L, check_req(L)->recall != NULL);
    return 1;
}

/* ---- the world ---------------------------------------------------------------------------------------------- */

static uint64_t now_ms(const struct claw_vm *vm)
{
    return vm->ctx && vm->ctx->loop ? claw_loop_now_ms(vm->ctx->loop) : claw_loop_clock_us() / 1000;
}

static int core_facts(lua_State *L)
{
    struct claw_vm *vm = claw_vm_of(L);
    lua_Integer i = luaL_checkinteger(L, 1);
    struct claw_str model = CLAW_STR("");
    if (!lua_isnoneornil(L, 2)) model = check_str(L, 2);
    if (!vm->gen || i < 1 || (size_t)i > vm->gen->conf->upstreams_n) return luaL_error(L, "there is no upstream %d", (int)i);
    const struct claw_upstream_stats *s = vm->gen->upstreams[i - 1].stats;
    struct claw_upstream_facts f = {0, -1, -1, 0};
    if (s) claw_upstream_stats_get(s, model, now_ms(vm), &f);
    lua_pushnumber(L, (lua_Number)f.outstanding);
    if (f.ewma_ttfb_ms >= 0) {
        lua_pushnumber(L, f.ewma_ttfb_ms);
        lua_pushnumber(L, (lua_Number)f.age_ms);
    } else {
        lua_pushnil(L);
        lua_pushnil(L);
    }
    if (f.mean_output >= 0) lua_pushnumber(L, f.mean_output);
    else lua_pushnil(L);
    return 4;
}

/* moved(route): the percentage an operator moved; nil: none. */
static int core_moved(lua_State *L)
{
    double percent = claw_canary_moved(check_str(L, 1));
    if (percent < 0) lua_pushnil(L);
    else lua_pushnumber(L, percent);
    return 1;
}

/* cooling(index, model): "closed", "open" or "half_open", and ms until it may be asked: nil when it may be now, huge when its
 * keys are retired. */
static int core_cooling(lua_State *L)
{
    struct claw_vm *vm = claw_vm_of(L);
    lua_Integer i = luaL_checkinteger(L, 1);
    struct claw_str model = CLAW_STR("");
    int64_t left = 0;
    if (!lua_isnoneornil(L, 2)) model = check_str(L, 2);
    if (!vm->gen || i < 1 || (size_t)i > vm->gen->conf->upstreams_n) return luaL_error(L, "there is no upstream %d", (int)i);
    lua_pushstring(L, claw_breaker_word(claw_care_state(&vm->gen->upstreams[i - 1], model, now_ms(vm), &left)));
    if (left == 0) lua_pushnil(L);
    else lua_pushnumber(L, left < 0 ? HUGE_VAL : (lua_Number)left);
    return 2;
}

/* env(name): the value of a variable listed in policies.env, else nil. */
static int core_env(lua_State *L)
{
    struct claw_vm *vm = claw_vm_of(L);
    struct claw_str name = check_str(L, 1);
    const struct claw_conf *conf = vm->gen ? vm->gen->conf : NULL;
    for (size_t i = 0; conf && i < conf->policies.env_n; i++) {
        if (!claw_str_eq(conf->policies.env[i].name, name)) continue;
        lua_pushstring(L, conf->policies.env[i].value);
        return 1;
    }
    lua_pushnil(L);
    return 1;
}

/* series(gauge, name, policy, n, label): true, or nil, message, code. */
static int core_series(lua_State *L)
{
    const char *why;
    enum claw_series_kind kind = lua_toboolean(L, 1) ? CLAW_SERIES_GAUGE : CLAW_SERIES_COUNTER;
    int rc = claw_series_note(kind, check_str(L, 2), check_str(L, 3), check_str(L, 5), luaL_checknumber(L, 4), &why);
    if (rc == CLAW_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, why);
    lua_pushstring(L, rc == CLAW_EINVAL ? "EINVAL" : "ELIMIT");
    return 3;
}

static int core_random(lua_State *L)
{
    lua_pushnumber(L, claw_vm_random(claw_vm_of(L)));
    return 1;
}

static int core_now_ms(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)now_ms(claw_vm_of(L)));
    return 1;
}

static int core_now_us(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)claw_loop_clock_us());
    return 1;
}

/* outgoing(r): what hooks set of this attempt's head, as a list: name, value (false: removed), name …; credentials as
 * ***. Then the path they set, or nil, and when they want the stream let go of. */
static int core_outgoing(lua_State *L)
{
    const struct claw_req *r = claw_api_check_req(L, 1);
    lua_createtable(L, (int)r->out_headers_n * 2, 0);
    for (size_t i = 0; i < r->out_headers_n; i++) {
        const struct claw_conf_header *h = &r->out_headers[i];
        lua_pushlstring(L, h->name.ptr, h->name.len);
        lua_rawseti(L, -2, (int)i * 2 + 1);
        if (!h->value.ptr) lua_pushboolean(L, 0);
        else if (claw_conf_key_secret(h->name)) lua_pushliteral(L, "***");
        else lua_pushlstring(L, h->value.ptr, h->value.len);
        lua_rawseti(L, -2, (int)i * 2 + 2);
    }
    if (r->out_path.len) lua_pushlstring(L, r->out_path.ptr, r->out_path.len);
    else lua_pushnil(L);
    claw_api_push_commit(L, r);
    return 3;
}

static int core_hash(lua_State *L)
{
    uint64_t h = claw_str_hash(check_str(L, 1), 0);
    h ^= h >> 33; /* FNV-1a's low bits alone are weak on short strings */
    h *= 0xff51afd7ed558ccdu;
    lua_pushnumber(L, (lua_Number)(h >> 32));
    return 1;
}

/* ---- log ---------------------------------------------------------------------------------------------------- */

struct log_line {
    const char *key[LOG_FIELDS], *value[LOG_FIELDS];
    int n;
};

/* Replace the string on top by an entry of the table at `kept`, which keeps its bytes where they are. */
static const char *keep(lua_State *L, int kept)
{
    const char *z = lua_tostring(L, -1);
    lua_rawseti(L, kept, (int)lua_objlen(L, kept) + 1);
    return z;
}

static void gather(lua_State *L, int idx, struct log_line *line)
{
    struct claw_buf *text = &claw_vm_of(L)->text;
    lua_newtable(L);
    int kept = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, idx) && line->n < LOG_FIELDS; lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_objlen(L, -2) == 0) continue;
        bool raw = lua_type(L, -1) != LUA_TSTRING;
        luaL_gsub(L, lua_tostring(L, -2), "#", "_");
        if (raw) {
            lua_pushliteral(L, "#");
            lua_concat(L, 2);
        }
        line->key[line->n] = keep(L, kept);
        if (raw) {
            claw_buf_clear(text);
            claw_value_write(L, -1, text, 4);
            struct claw_str s = claw_buf_str(text);
            lua_pushlstring(L, s.ptr, s.len);
        } else {
            lua_pushvalue(L, -1);
        }
        line->value[line->n++] = keep(L, kept);
    }
}

static int core_log(lua_State *L)
{
    static const char *const names[] = {"debug", "info", "warn", "error", NULL};
    enum claw_log_level level = (enum claw_log_level)luaL_checkoption(L, 1, "info", names);
    const char *message = luaL_checkstring(L, 2);
    if (!claw_log_on(level)) return 0;
    struct log_line l = {.n = 0};
    if (lua_istable(L, 3)) gather(L, 3, &l);
    claw_log_event(level, message, l.key[0], l.value[0], l.key[1], l.value[1], l.key[2], l.value[2], l.key[3],
                   l.value[3], l.key[4], l.value[4], l.key[5], l.value[5], l.key[6], l.value[6], l.key[7], l.value[7],
                   l.key[8], l.value[8], l.key[9], l.value[9], l.key[10], l.value[10], l.key[11], l.value[11], NULL);
    return 0;
}

/* ---- chunks and documents ----------------------------------------------------------------------------------- */

static int core_load(lua_State *L)
{
    struct claw_str source = check_str(L, 1);
    return claw_vm_load(L, source, luaL_checkstring(L, 2), true);
}

static int core_setfenv(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    if (!lua_setfenv(L, 1)) return luaL_error(L, "this function's environment cannot be set");
    return 1;
}

/* ---- a policy's call ---------------------------------------------------------------------------------------- */

/* enter(booting): a policy's function is called next. */
static int core_enter(lua_State *L)
{
    claw_budget_enter(&claw_vm_of(L)->budget, lua_toboolean(L, 1) ? CLAW_BUDGET_BOOT : 1);
    return 0;
}

/* It came back; true: it had been stopped, or returned past its time. */
static int core_leave(lua_State *L)
{
    lua_pushboolean(L, claw_budget_leave(&claw_vm_of(L)->budget));
    return 1;
}

/* For loops of lua/claw whose length a policy chooses. */
static int core_check(lua_State *L)
{
    claw_budget_check(L, &claw_vm_of(L)->budget);
    return 0;
}

/* For what catches errors, before it does. */
static int core_deeper(lua_State *L)
{
    claw_vm_check_depth(L, claw_vm_of(L));
    return 0;
}

/* Is the caller's coroutine a hook's, or a task's? */
static int core_hooked(lua_State *L)
{
    lua_pushboolean(L, claw_task_runs(L));
    return 1;
}

/* failed(policy, hook, stopped): a failure that is skipped and so never reaches claw_policy_failed. */
static int core_failed(lua_State *L)
{
    struct claw_vm *vm = claw_vm_of(L);
    struct claw_str labels[] = {check_str(L, 1), check_str(L, 2)};
    if (vm->ctx) claw_api_count_failure(vm->ctx->metrics, labels, lua_toboolean(L, 3));
    return 0;
}

void claw_api_count_failure(struct claw_metrics_shard *to, const struct claw_str labels[2], bool stopped)
{
    if (!to) return;
    claw_metrics_add(to, CLAW_METRIC_POLICY_ERRORS, 1, 2, labels);
    if (stopped) claw_metrics_add(to, CLAW_METRIC_POLICY_STOPS, 1, 2, labels);
}

static int core_is_doc(lua_State *L)
{
    lua_pushboolean(L, claw_document_test(L, 1) != NULL);
    return 1;
}

static int core_changed(lua_State *L)
{
    lua_pushboolean(L, claw_json_doc_changed(claw_document_check(L, 1)->doc));
    return 1;
}

void claw_api_push_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"header", core_header}, {"query", core_query}, {"json", core_json}, {"mentions", core_mentions}, {"client_ip", core_client_ip},
        {"client", core_client}, {"may_model", core_may_model},
        {"estimate", core_estimate}, {"facts", core_facts}, {"cooling", core_cooling}, {"moved", core_moved}, {"random", core_random}, {"now_ms", core_now_ms},
        {"now_us", core_now_us}, {"outgoing", core_outgoing},
        {"hash", core_hash}, {"request", core_request}, {"body", core_body}, {"response_body", core_response_body},
        {"parse", core_parse}, {"json_error", core_json_error}, {"rewritten", core_rewritten}, {"used", core_used}, {"request_id", core_request_id}, {"recalls", core_recalls},
        {"changed", core_changed}, {"is_doc", core_is_doc}, {"log", core_log}, {"load", core_load},
        {"setfenv", core_setfenv}, {"enter", core_enter}, {"leave", core_leave}, {"check", core_check},
        {"deeper", core_deeper}, {"hooked", core_hooked},
        {"failed", core_failed}, {"env", core_env}, {"series", core_series}, {NULL, NULL},
    };
    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    claw_document_push_functions(L);
    lua_setfield(L, -2, "doc");
    claw_pattern_push_functions(L);
    lua_setfield(L, -2, "pattern");
    claw_api_add_waits(L);
    claw_api_push_store(L);
    lua_setfield(L, -2, "store");
    claw_api_add_redis(L);
    claw_api_add_re(L);
    claw_api_add_asides(L);
}
