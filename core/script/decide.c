/* decide: struct claw_policy_ops over the engine. Every verdict is checked here once more: what lua/claw hands over
 * is data, and a wrong index or type must not get past these files (decide_route, decide_body, decide_kept, decide_finish). Here: what they share, and the ops admit and retry. */
#include "script/decide_part.h"

#include "net/stream.h"

#include <math.h>

#define AFTER_MAX_MS 3600000.0
#define SLOW_US 500u

struct claw_str claw_decide_keep(lua_State *L, struct claw_decide *c, struct claw_str s)
{
    char *copy = claw_arena_dup(&c->r->arena, s.ptr, s.len);
    if (!copy) {
        c->rc = CLAW_EREQ_MEM;
        luaL_error(L, "%s", claw_err_text(CLAW_EREQ_MEM));
    }
    return (struct claw_str){copy, s.len};
}

bool claw_decide_is_whole(lua_State *L, int idx, double min, double max)
{
    if (lua_type(L, idx) != LUA_TNUMBER) return false;
    double d = lua_tonumber(L, idx);
    return d >= min && d <= max && floor(d) == d;
}

const char *claw_decide_show(lua_State *L, int idx)
{
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER: lua_pushvalue(L, idx); return lua_tostring(L, -1);
    case LUA_TSTRING: {
        struct claw_str s = claw_decide_text(L, idx);
        if (s.len > 60) {
            lua_pushlstring(L, s.ptr, 60);
            return lua_pushfstring(L, "\"%s…\"", lua_tostring(L, -1));
        }
        return lua_pushfstring(L, "\"%s\"", s.ptr);
    }
    case LUA_TBOOLEAN: return lua_toboolean(L, idx) ? "true" : "false";
    default: return luaL_typename(L, idx);
    }
}

void claw_decide_push_str(lua_State *L, struct claw_str s)
{
    if (s.len) lua_pushlstring(L, s.ptr, s.len);
    else lua_pushnil(L);
}

void claw_decide_push_candidate(lua_State *L, const struct claw_req *r)
{
    if (r->candidate < r->candidates_n) lua_pushinteger(L, r->candidates[r->candidate].upstream + 1);
    else lua_pushnil(L);
}

/* What others are to be sent has waited for a slow hook already: it does not wait for a second one. */
static void took(struct claw_worker_ctx *ctx, const struct claw_str *hook, uint64_t us)
{
    claw_metrics_observe(ctx->metrics, CLAW_METRIC_POLICY_SECONDS, us, 1, hook);
    if (us > SLOW_US && ctx->loop) claw_stream_flush_all(ctx->loop);
}

int claw_decide_run(struct claw_decide *c, claw_task_fn fn, const char *hook, struct claw_policy_error *err)
{
    struct claw_task_error e;
    CLAW_ASSERT(c->p->magic == CLAW_POLICY_MAGIC);
    struct claw_str label = claw_str_of(hook);
    uint64_t start = claw_loop_clock_us();
    int done = claw_task_call(c->p->vm, fn, c, &c->r->arena, &e);
    if (c->p->ctx) took(c->p->ctx, &label, claw_loop_clock_us() - start);
    if (__builtin_expect(done == CLAW_OK, 1)) return c->rc;
    if (c->r->waiting) claw_task_drop(c->r); /* what it waited for could not be given to it */
    int rc = claw_policy_failed(c->p, c->r, &e, hook, err);
    return c->rc != CLAW_OK ? c->rc : rc;
}

bool claw_decide_waits(lua_State *L, struct claw_decide *c, const char *hook, int nargs, int nresults)
{
    c->rc = c->r->waiting ? claw_task_continue(L, c->r, nresults) : claw_task_run(L, c->r, hook, nargs, nresults);
    return c->rc != CLAW_OK;
}

int claw_policy_failed(struct claw_policy_vm *p, struct claw_req *r, const struct claw_task_error *e, const char *hook,
                       struct claw_policy_error *err)
{
    *err = (struct claw_policy_error){e->policy, e->hook.len ? e->hook : claw_str_of(hook), e->message};
    struct claw_str labels[] = {err->policy, err->hook};
    claw_api_count_failure(p->ctx ? p->ctx->metrics : NULL, labels, e->stopped);
    /* Every one of these is a C string: constants, or made by claw_arena_dup. */
    claw_log_event(CLAW_LOG_ERROR, "a policy failed", "request_id", r->id, "policy", err->policy.ptr, "hook", err->hook.ptr,
                   "error", err->message.ptr, "traceback", e->traceback.ptr, NULL);
    return CLAW_EPOLICY;
}

void claw_decide_read_answer(lua_State *L, struct claw_decide *c, const char *hook)
{
    struct claw_policy_answer *to = c->answer;
    if (!claw_decide_is_whole(L, 2, 200, 599)) claw_task_raise(L, hook, "an answer of status %s", claw_decide_show(L, 2));
    if (lua_type(L, 3) != LUA_TSTRING) claw_task_raise(L, hook, "an answer that is a %s", luaL_typename(L, 3));
    if (lua_type(L, 4) == LUA_TSTRING && !claw_h1_is_value(claw_decide_text(L, 4))) claw_task_raise(L, hook, "an answer's content type is %s", claw_decide_show(L, 4));
    to->status = (int)lua_tointeger(L, 2);
    if (lua_type(L, 4) == LUA_TSTRING) to->type = claw_decide_keep(L, c, claw_decide_text(L, 4));
    if (lua_type(L, 5) == LUA_TSTRING) to->policy = claw_decide_keep(L, c, claw_decide_text(L, 5));
    to->body = claw_decide_keep(L, c, claw_decide_text(L, 3));
}

void claw_decide_read_denial(lua_State *L, struct claw_decide *c, int idx)
{
    if (!claw_decide_is_whole(L, idx, 400, 599)) claw_task_raise(L, "admit", "deny: %s is no status from 400 to 599", claw_decide_show(L, idx));
    struct claw_str code = lua_type(L, idx + 1) == LUA_TSTRING ? claw_decide_text(L, idx + 1) : CLAW_STR("denied");
    struct claw_str text = lua_type(L, idx + 2) == LUA_TSTRING ? claw_decide_text(L, idx + 2) : claw_str_of(claw_err_text(CLAW_EDENIED));
    code = claw_decide_keep(L, c, code);
    c->r->error_text = claw_decide_keep(L, c, text);
    c->r->error_code = code.ptr;
    c->r->status = (int)lua_tointeger(L, idx);
    c->r->error = CLAW_EDENIED;
}

/* ---- admit -------------------------------------------------------------------------------------------------- */

static void admit_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_ADMIT);
        lua_pushlightuserdata(L, c->r);
    }
    if (claw_decide_waits(L, c, "admit", 1, 5) || lua_isnil(L, 1)) return;
    if (claw_decide_is_false(L, 1)) {
        claw_decide_read_answer(L, c, "admit");
        return;
    }
    claw_decide_read_denial(L, c, 1);
}

static int admit(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r, .answer = answer};
    return claw_decide_run(&c, admit_in, "admit", err);
}

static bool admits(void *vm) { return ((struct claw_policy_vm *)vm)->admits; }

/* ---- retry -------------------------------------------------------------------------------------------------- */

static void set_number(lua_State *L, const char *key, double n)
{
    lua_pushnumber(L, n);
    lua_setfield(L, -2, key);
}

/* Which key was sent, how many others could be, how the upstream is; and who would be next. */
static void push_care(lua_State *L, const struct claw_req *r, const struct claw_failure *f)
{
    const struct claw_generation_upstream *u = claw_req_upstream(r);
    unsigned next = r->furthest + 1;
    if (u && u->keys_n) set_number(L, "key", claw_req_key(r) + 1);
    if (u && (u->keys_n > 1 || f->other_keys)) set_number(L, "other_keys", f->other_keys);
    if (r->rotations) set_number(L, "rotations", r->rotations);
    uint64_t now_ms = r->ctx && r->ctx->loop ? claw_loop_now_ms(r->ctx->loop) : claw_loop_clock_us() / 1000;
    if (u) lua_pushstring(L, claw_breaker_word(claw_breaker_state(&u->cooling->breaker, now_ms)));
    else lua_pushnil(L);
    lua_setfield(L, -2, "state");
    if (next < r->candidates_n) set_number(L, "next_index", r->candidates[next].upstream + 1);
}

static void push_failure(lua_State *L, const struct claw_req *r, const struct claw_failure *f)
{
    const struct claw_conf *conf = claw_req_conf(r);
    lua_createtable(L, 0, 12);
    lua_pushstring(L, f->kind ? f->kind : claw_err_kind(f->code));
    lua_setfield(L, -2, "kind");
    if (f->status) set_number(L, "status", f->status);
    if (f->code != CLAW_OK) {
        lua_pushstring(L, claw_err_name(f->code));
        lua_setfield(L, -2, "code");
    }
    set_number(L, "n", f->tries);
    set_number(L, "left", f->left);
    push_care(L, r, f);
    set_number(L, "elapsed_ms", (double)f->elapsed_ms);
    if (f->retry_after_ms >= 0) set_number(L, "retry_after_ms", (double)f->retry_after_ms);
    lua_pushboolean(L, f->again);
    lua_setfield(L, -2, "again");
    if (conf->retry_attempts) set_number(L, "attempts_max", conf->retry_attempts);
    claw_decide_push_candidate(L, r);
    lua_setfield(L, -2, "index");
    const struct claw_generation_upstream *u = claw_req_upstream(r);
    if (u) claw_decide_push_str(L, u->conf->name);
    else lua_pushnil(L);
    lua_setfield(L, -2, "upstream");
    claw_decide_push_str(L, f->body);
    lua_setfield(L, -2, "body");
}

static void retry_in(lua_State *L, void *arg)
{
    static const struct { const char *name; enum claw_retry_action action; } actions[] = {
        {"stop", CLAW_RETRY_STOP}, {"next", CLAW_RETRY_NEXT}, {"same", CLAW_RETRY_SAME},
    };
    struct claw_decide *c = arg;
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_RETRY);
        lua_pushlightuserdata(L, c->r);
        push_failure(L, c->r, c->failure);
        if (c->r->decision) lua_pushinteger(L, c->r->decision);
        else lua_pushnil(L);
    }
    if (claw_decide_waits(L, c, "retry", 3, 2)) return;
    size_t i = 0, n = sizeof actions / sizeof *actions;
    if (lua_type(L, 1) != LUA_TSTRING) claw_task_raise(L, "retry", "the action is a %s", luaL_typename(L, 1));
    while (i < n && !claw_str_eqz(claw_decide_text(L, 1), actions[i].name)) i++;
    if (i == n) claw_task_raise(L, "retry", "the action is %s (next, same or stop may be)", claw_decide_show(L, 1));
    double after = lua_isnil(L, 2) ? 0 : lua_type(L, 2) == LUA_TNUMBER ? lua_tonumber(L, 2) : -1;
    if (!(after >= 0 && after <= AFTER_MAX_MS)) claw_task_raise(L, "retry", "after_ms is %s (0 to an hour may be)", claw_decide_show(L, 2));
    c->action = actions[i].action;
    c->after_ms = (uint64_t)ceil(after);
}

static int retry(void *vm, struct claw_req *r, const struct claw_failure *f, enum claw_retry_action *action,
                 uint64_t *after_ms, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r, .failure = f};
    int rc = claw_decide_run(&c, retry_in, "retry", err);
    *action = rc == CLAW_OK ? c.action : CLAW_RETRY_STOP;
    *after_ms = c.after_ms;
    return rc;
}

static void release(void *vm, struct claw_req *r) { claw_api_release(r); }

const struct claw_policy_ops claw_policy_ops_lua = {
    .admit = admit, .route = claw_decide_route, .request = claw_decide_request, .retry = retry, .response = claw_decide_response, .error = claw_decide_error, .event = claw_decide_event,
    .caches = claw_decide_caches, .recast = claw_decide_recast, .finish = claw_decide_finish, .release = release, .admits = admits,
};
