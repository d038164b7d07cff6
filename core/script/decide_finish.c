/* decide_finish: what a request cost, and the fields of its log line. */
#include "script/decide_part.h"

#define FIELDS_MAX (8u << 10) /* extra log fields as JSON */
#define FIELDS_DEPTH 4

/* The request line's own names: a policy's field of such a name gets a prefix. */
static bool is_taken(struct claw_str key)
{
    static const char *const names[] = {
        "time", "level", "msg", "id", "request_id", "client", "ip", "method", "path", "route", "upstream", "model",
        "model_asked", "model_sent", "sent_model", "stream", "status", "kind", "error", "error_code", "error_message", "upstream_error", "attempts",
        "ttfb_ms", "ttfb_us", "duration_ms", "duration_us", "overhead_us", "tokens", "usage", "input_tokens", "output_tokens",
        "cached_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd", "cost_micros", "cache", "bytes_in", "bytes_out",
        "generation", "answered_by", "usage_estimated",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (claw_str_eqz(key, names[i])) return true;
    return false;
}

static void add(lua_State *L, int rc)
{
    if (rc != CLAW_OK) claw_task_raise(L, "log", "more than 8 KB of log fields");
}

/* Keys in order, so that lines compare. */
static void push_sorted_keys(lua_State *L, int idx)
{
    lua_newtable(L);
    int n = 0;
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) claw_task_raise(L, "log", "a log field's name is a %s", luaL_typename(L, -2));
        lua_pushvalue(L, -2);
        lua_rawseti(L, -4, ++n);
    }
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_remove(L, -2);
    lua_pushvalue(L, -2);
    lua_call(L, 1, 0);
}

static void write_fields(lua_State *L, struct claw_decide *c, int idx)
{
    struct claw_buf *text = &c->p->vm->text;
    claw_buf_clear(text);
    push_sorted_keys(L, idx);
    int keys = lua_gettop(L), n = (int)lua_objlen(L, keys);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, keys, i);
        struct claw_str key = claw_decide_text(L, -1);
        if (is_taken(key)) {
            lua_pushfstring(L, "policy.%s", key.ptr);
            key = claw_decide_text(L, -1);
        }
        add(L, i > 1 ? claw_buf_add_z(text, ",") : CLAW_OK);
        add(L, claw_buf_add_json(text, key));
        add(L, claw_buf_add_z(text, ":"));
        lua_rawgeti(L, keys, i);
        lua_rawget(L, idx);
        claw_value_write(L, -1, text, FIELDS_DEPTH);
        add(L, claw_buf_size(text) > FIELDS_MAX ? CLAW_ENOMEM : CLAW_OK);
        lua_settop(L, keys);
    }
    c->r->log_fields = n ? claw_decide_keep(L, c, claw_buf_str(text)) : CLAW_STR("");
}

static void push_tokens(lua_State *L, int64_t n)
{
    if (n >= 0) lua_pushnumber(L, (lua_Number)n);
    else lua_pushnil(L);
}

static void finish_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    struct claw_req *r = c->r;
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_FINISH);
    lua_pushlightuserdata(L, r);
    claw_decide_push_candidate(L, r);
    claw_decide_push_str(L, claw_req_sent_model(r));
    push_tokens(L, r->usage.input);
    push_tokens(L, r->usage.cached);
    push_tokens(L, r->usage.output);
    push_tokens(L, r->usage.reasoning);
    push_tokens(L, r->usage.written);
    lua_pushboolean(L, r->estimated);
    lua_call(L, 9, 2);
    if (!lua_isnil(L, 1)) {
        if (!claw_decide_is_whole(L, 1, 0, CLAW_DECIDE_EXACT)) claw_task_raise(L, "cost", "%s is no number of micro-dollars", claw_decide_show(L, 1));
        r->cost_micros = (int64_t)lua_tonumber(L, 1);
    }
    if (lua_isnil(L, 2)) return;
    if (!lua_istable(L, 2)) claw_task_raise(L, "log", "the fields are %s", claw_decide_show(L, 2));
    write_fields(L, c, 2);
}

int claw_decide_finish(void *vm, struct claw_req *r, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r};
    int rc = CLAW_OK;
    if (r->decision) r->cost_micros = claw_usage_charge(&r->prices[r->candidates[r->candidate].place], &r->usage);
    else rc = claw_decide_run(&c, finish_in, "log", err);
    claw_api_end_answer(r);
    return rc;
}
