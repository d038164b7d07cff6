/* decide: struct claw_policy_ops over the engine. Every verdict is checked here once more: what lua/claw hands over
 * is data, and a wrong index or type must not get past this file. */
#include "script/policy_part.h"

#include "proxy/hedge.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>

#define FIELDS_MAX (8u << 10) /* extra log fields as JSON */
#define FIELDS_DEPTH 4
#define AFTER_MAX_MS 3600000.0
#define EXACT 9007199254740992.0

/* What one op hands to its protected half. */
struct call {
    struct claw_policy_vm *p;
    struct claw_req *r;
    int rc; /* CLAW_EREQ_MEM: out of the request's memory */
    struct claw_str in, type;
    const struct claw_failure *failure;
    struct claw_str body;   /* of response: what the client gets */
    struct claw_policy_answer *answer; /* of admit and route */
    int events;
    enum claw_retry_action action;
    uint64_t after_ms;
};

static struct claw_str text_at(lua_State *L, int idx)
{
    struct claw_str s;
    s.ptr = lua_tolstring(L, idx, &s.len);
    return s;
}

static struct claw_str keep(lua_State *L, struct call *c, struct claw_str s)
{
    char *copy = claw_arena_dup(&c->r->arena, s.ptr, s.len);
    if (!copy) {
        c->rc = CLAW_EREQ_MEM;
        luaL_error(L, "%s", claw_err_text(CLAW_EREQ_MEM));
    }
    return (struct claw_str){copy, s.len};
}

static bool is_whole(lua_State *L, int idx, double min, double max)
{
    if (lua_type(L, idx) != LUA_TNUMBER) return false;
    double d = lua_tonumber(L, idx);
    return d >= min && d <= max && floor(d) == d;
}

/* For messages: the value at idx, short. */
static const char *show(lua_State *L, int idx)
{
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER: lua_pushvalue(L, idx); return lua_tostring(L, -1);
    case LUA_TSTRING: {
        struct claw_str s = text_at(L, idx);
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

static void push_str_or_nil(lua_State *L, struct claw_str s)
{
    if (s.len) lua_pushlstring(L, s.ptr, s.len);
    else lua_pushnil(L);
}

static void push_candidate(lua_State *L, const struct claw_req *r)
{
    if (r->candidate < r->candidates_n) lua_pushinteger(L, r->candidates[r->candidate].upstream + 1);
    else lua_pushnil(L);
}

static int run(struct call *c, claw_task_fn fn, const char *hook, struct claw_policy_error *err)
{
    struct claw_task_error e;
    CLAW_ASSERT(c->p->magic == CLAW_POLICY_MAGIC);
    if (__builtin_expect(claw_task_call(c->p->vm, fn, c, &c->r->arena, &e) == CLAW_OK, 1)) return c->rc;
    if (c->r->waiting) claw_task_drop(c->r); /* what it waited for could not be given to it */
    int rc = claw_policy_failed(c->p, c->r, &e, hook, err);
    return c->rc != CLAW_OK ? c->rc : rc;
}

/* Run the hook whose function and arguments were pushed, or go on with the one that waited; true: it waits (again). */
static bool waits(lua_State *L, struct call *c, const char *hook, int nargs, int nresults)
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

/* An answer in an upstream's place: false, status, body, content type and policy lie at 1. */
static void read_answer(lua_State *L, struct call *c, const char *hook)
{
    struct claw_policy_answer *to = c->answer;
    if (!is_whole(L, 2, 200, 599)) claw_task_raise(L, hook, "an answer of status %s", show(L, 2));
    if (lua_type(L, 3) != LUA_TSTRING) claw_task_raise(L, hook, "an answer that is a %s", luaL_typename(L, 3));
    if (lua_type(L, 4) == LUA_TSTRING && !claw_h1_is_value(text_at(L, 4))) claw_task_raise(L, hook, "an answer's content type is %s", show(L, 4));
    to->status = (int)lua_tointeger(L, 2);
    if (lua_type(L, 4) == LUA_TSTRING) to->type = keep(L, c, text_at(L, 4));
    if (lua_type(L, 5) == LUA_TSTRING) to->policy = keep(L, c, text_at(L, 5));
    to->body = keep(L, c, text_at(L, 3));
}

static bool is_false(lua_State *L, int idx) { return lua_isboolean(L, idx) && !lua_toboolean(L, idx); }

/* ---- admit -------------------------------------------------------------------------------------------------- */

/* Status, code and message of a policy's denial, from idx on. */
static void read_denial(lua_State *L, struct call *c, int idx)
{
    if (!is_whole(L, idx, 400, 599)) claw_task_raise(L, "admit", "deny: %s is no status from 400 to 599", show(L, idx));
    struct claw_str code = lua_type(L, idx + 1) == LUA_TSTRING ? text_at(L, idx + 1) : CLAW_STR("denied");
    struct claw_str text = lua_type(L, idx + 2) == LUA_TSTRING ? text_at(L, idx + 2) : claw_str_of(claw_err_text(CLAW_EDENIED));
    code = keep(L, c, code);
    c->r->error_text = keep(L, c, text);
    c->r->error_code = code.ptr;
    c->r->status = (int)lua_tointeger(L, idx);
    c->r->error = CLAW_EDENIED;
}

static void admit_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_ADMIT);
        lua_pushlightuserdata(L, c->r);
    }
    if (waits(L, c, "admit", 1, 5) || lua_isnil(L, 1)) return;
    if (is_false(L, 1)) {
        read_answer(L, c, "admit");
        return;
    }
    read_denial(L, c, 1);
}

static int admit(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r, .answer = answer};
    return run(&c, admit_in, "admit", err);
}

static bool admits(void *vm) { return ((struct claw_policy_vm *)vm)->admits; }

/* ---- route -------------------------------------------------------------------------------------------------- */

/* The field of the table at idx whose name is kept under `key`: no string is made anew, no metatable asked. */
static void push_member(lua_State *L, int idx, int key)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, key);
    lua_rawget(L, idx - 1);
}

/* The candidate table on top. */
static void read_candidate(lua_State *L, struct call *c, struct claw_candidate *to)
{
    if (!lua_istable(L, -1)) claw_task_raise(L, "route", "a candidate is a %s", luaL_typename(L, -1));
    push_member(L, -1, c->p->key_index);
    if (!is_whole(L, -1, 1, (double)c->p->gen->conf->upstreams_n))
        claw_task_raise(L, "route", "candidate index %s is no upstream (there are %d)", show(L, -1), (int)c->p->gen->conf->upstreams_n);
    push_member(L, -2, c->p->key_mask);
    if (!lua_isnil(L, -1) && !is_whole(L, -1, 0, 31)) claw_task_raise(L, "route", "candidate mask %s", show(L, -1));
    push_member(L, -3, c->p->key_model);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING) claw_task_raise(L, "route", "candidate model %s", show(L, -1));
    *to = (struct claw_candidate){.upstream = (uint16_t)(lua_tointeger(L, -3) - 1), .mask = (uint16_t)lua_tointeger(L, -2)};
    if (!lua_isnil(L, -1)) to->model = keep(L, c, text_at(L, -1));
    lua_pop(L, 3);
}

static int64_t price_field(lua_State *L, const char *key)
{
    lua_getfield(L, -1, key);
    if (!lua_isnil(L, -1) && !is_whole(L, -1, 0, EXACT)) claw_task_raise(L, "route", "candidate price %s is %s", key, show(L, -1));
    int64_t v = lua_isnil(L, -1) ? -1 : (int64_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
    return v;
}

static struct claw_conf_price read_price(lua_State *L)
{
    struct claw_conf_price p = {-1, -1, -1, -1, -1, -1, -1, -1, -1};
    lua_getfield(L, -1, "price");
    if (lua_istable(L, -1))
        p = (struct claw_conf_price){price_field(L, "input"), price_field(L, "output"), price_field(L, "cached_input"), price_field(L, "cache_write"),
            price_field(L, "request_micros"), price_field(L, "long_above"), price_field(L, "long_input"), price_field(L, "long_output"),
            price_field(L, "long_cached")};
    lua_pop(L, 1);
    return p;
}

/* A numbered list seen for the first time: what was read of it into r is kept. Without memory it is read again each time. */
static void keep_decision(lua_State *L, struct call *c, size_t number)
{
    const struct claw_req *r = c->r;
    struct claw_policy_vm *p = c->p;
    struct claw_decision *d = claw_arena_zalloc(&p->decided, sizeof *d);
    if (!d) return;
    for (unsigned i = 0; i < r->candidates_n; i++) {
        d->candidates[i] = r->candidates[i];
        struct claw_str *model = &d->candidates[i].model;
        if (model->len && !(model->ptr = claw_arena_dup(&p->decided, model->ptr, model->len))) return;
        lua_rawgeti(L, 2, (int)i + 1);
        d->prices[i] = read_price(L);
        lua_pop(L, 1);
    }
    d->route = r->route;
    d->n = r->candidates_n;
    p->decisions[number - 1] = d;
}

static void use_decision(struct claw_req *r, const struct claw_decision *d, size_t number)
{
    memcpy(r->candidates, d->candidates, d->n * sizeof *d->candidates);
    r->prices = d->prices;
    r->route = d->route;
    r->route_mask = 0;
    r->candidates_n = d->n;
    r->candidate = 0;
    r->decision = (uint16_t)number;
}

static void read_list(lua_State *L, struct call *c);

static void read_decision(lua_State *L, struct call *c)
{
    if (lua_isnil(L, 4)) {
        read_list(L, c);
        return;
    }
    if (!is_whole(L, 4, 1, CLAW_DECISIONS_MAX)) claw_task_raise(L, "route", "the list's number is %s", show(L, 4));
    size_t number = (size_t)lua_tointeger(L, 4);
    if (!c->p->decisions[number - 1]) {
        read_list(L, c);
        keep_decision(L, c, number);
    }
    if (c->p->decisions[number - 1]) use_decision(c->r, c->p->decisions[number - 1], number);
}

/* What a policy says of hedging: false (not), milliseconds or a percentile's name at the list's `hedge`; nil: the route's. */
static void read_hedge(lua_State *L, struct claw_req *r)
{
    const struct claw_conf_hedge *of_route = &claw_req_conf(r)->routes[r->route].hedge;
    lua_getfield(L, 2, "hedge");
    if (!lua_isnil(L, -1)) {
        bool number = lua_type(L, -1) == LUA_TNUMBER, no = is_false(L, -1);
        struct claw_str word = lua_type(L, -1) == LUA_TSTRING ? text_at(L, -1) : (struct claw_str){NULL, 0};
        r->hedging = (struct claw_conf_hedge){.budget = of_route->after_ms || of_route->percent ? of_route->budget : CLAW_HEDGE_BUDGET};
        if (!no && ((!number && !word.ptr) || !claw_conf_hedge_after(word, number ? lua_tonumber(L, -1) : 0, &r->hedging)))
            claw_task_raise(L, "route", "hedge is %s", show(L, -1));
    }
    lua_pop(L, 1);
}

static void read_list(lua_State *L, struct call *c)
{
    struct claw_req *r = c->r;
    if (!is_whole(L, 1, 1, (double)c->p->gen->conf->routes_n)) claw_task_raise(L, "route", "route index %s is none", show(L, 1));
    if (!lua_istable(L, 2)) claw_task_raise(L, "route", "the candidates are a %s", luaL_typename(L, 2));
    if (!lua_isnil(L, 3) && !is_whole(L, 3, 0, 31)) claw_task_raise(L, "route", "route mask %s", show(L, 3));
    size_t n = lua_objlen(L, 2);
    if (n < 1 || n > CLAW_CANDIDATES_MAX) claw_task_raise(L, "route", "%d candidates (1 to %d may be)", (int)n, CLAW_CANDIDATES_MAX);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        read_candidate(L, c, &r->candidates[i]);
        lua_pop(L, 1);
    }
    r->route = (int)lua_tointeger(L, 1) - 1;
    r->route_mask = (uint16_t)lua_tointeger(L, 3);
    r->candidates_n = (unsigned)n;
    r->candidate = 0;
    read_hedge(L, r);
}

static void read_refusal(lua_State *L, struct call *c)
{
    static const struct { const char *name; int code; } codes[] = {
        {"no_route", CLAW_ENO_ROUTE}, {"model_not_found", CLAW_EMODEL_NOT_FOUND}, {"no_upstream", CLAW_ENO_UPSTREAM},
    };
    if (lua_type(L, 2) == LUA_TSTRING && claw_str_eqz(text_at(L, 2), "denied")) { /* message, status, code */
        lua_pushvalue(L, 4);
        lua_pushvalue(L, 5);
        lua_pushvalue(L, 3);
        read_denial(L, c, lua_gettop(L) - 2);
        return;
    }
    if (lua_type(L, 2) == LUA_TSTRING) {
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
            if (!claw_str_eqz(text_at(L, 2), codes[i].name)) continue;
            struct claw_str text = lua_type(L, 3) == LUA_TSTRING ? text_at(L, 3) : claw_str_of(claw_err_text(codes[i].code));
            c->r->error_text = keep(L, c, text);
            c->r->error = codes[i].code;
            return;
        }
    }
    claw_task_raise(L, "route", "no decision and an unknown code %s", show(L, 2));
}

static void push_question(lua_State *L, struct claw_req *r)
{
    lua_pushlightuserdata(L, r);
    lua_pushlstring(L, r->head->method.ptr, r->head->method.len);
    lua_pushlstring(L, r->head->path.ptr, r->head->path.len);
    push_str_or_nil(L, r->model);
    lua_pushboolean(L, r->stream);
}

/* At level debug the log says why each route did or did not match. */
static void trace_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_TRACE);
    push_question(L, c->r);
    lua_call(L, 5, 1);
    if (lua_type(L, 1) == LUA_TSTRING) claw_log_event(CLAW_LOG_DEBUG, "routes", "id", c->r->id, "routes", lua_tostring(L, 1), NULL);
}

/* The route and the candidates lie on the stack, behind true: a route whose hooks may wait. */
static bool decide_waits(lua_State *L, struct call *c)
{
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_DECIDE);
        lua_replace(L, 1);
        lua_settop(L, 3);
        push_question(L, c->r);
    }
    return waits(L, c, "route", 7, 5);
}

static void route_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_ROUTE);
        push_question(L, c->r);
        lua_call(L, 5, 5);
    }
    if ((c->r->waiting || (lua_isboolean(L, 1) && lua_toboolean(L, 1))) && decide_waits(L, c)) return;
    switch (lua_type(L, 1)) {
    case LUA_TNUMBER: read_decision(L, c); return;
    case LUA_TNIL: read_refusal(L, c); return;
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, 1)) break;
        read_answer(L, c, "route");
        return;
    default: break;
    }
    claw_task_raise(L, "route", "the route is %s", show(L, 1));
}

static int route(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r, .answer = answer};
    if (!r->waiting && claw_log_on(CLAW_LOG_DEBUG) && run(&c, trace_in, "route", err) != CLAW_OK) return CLAW_EPOLICY;
    return run(&c, route_in, "route", err);
}

/* ---- request ------------------------------------------------------------------------------------------------ */

static void check_json(lua_State *L, struct call *c, const char *hook, struct claw_str text)
{
    struct claw_json_doc *doc;
    struct claw_json_err e;
    struct claw_arena *scratch = claw_vm_scratch(c->p->vm);
    int rc = claw_json_doc_new(scratch, text, &doc, &e);
    claw_arena_reset(scratch);
    if (rc != CLAW_OK)
        claw_task_raise(L, hook, "the returned text is no valid JSON: %s at byte %lu", rc == CLAW_EBAD_JSON ? e.text : claw_err_text(rc),
                        (unsigned long)(rc == CLAW_EBAD_JSON ? e.offset : 0));
}

/* A body that a hook returned (stack index 1), appended to `out`. */
static void write_body(lua_State *L, struct call *c, const char *hook, bool json, struct claw_buf *out)
{
    claw_buf_clear(out);
    if (lua_type(L, 1) == LUA_TSTRING) {
        if (json) check_json(L, c, hook, text_at(L, 1));
        if (claw_buf_add_str(out, text_at(L, 1)) != CLAW_OK) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    } else if (lua_istable(L, 1) || claw_document_test(L, 1)) {
        claw_value_write(L, 1, out, CLAW_VALUE_DEPTH);
    } else {
        claw_task_raise(L, hook, "a body that is a %s", luaL_typename(L, 1));
    }
}

static void write_doc(lua_State *L, const struct claw_json_doc *doc, struct claw_buf *out)
{
    claw_buf_clear(out);
    int rc = claw_json_doc_write(doc, out);
    if (rc != CLAW_OK) luaL_error(L, "%s", claw_err_text(rc));
}

/* Is the document at idx the whole of doc, unchanged: nothing to write? */
static bool is_untouched(lua_State *L, int idx, struct claw_json_doc *doc)
{
    struct claw_document *d = claw_document_test(L, idx);
    return d && d->doc == doc && d->node == claw_json_doc_root(doc) && !claw_json_doc_changed(doc);
}

/* false, code ("untranslatable" or "translation"), message, field (nil: none) on the stack. */
static void read_untranslatable(lua_State *L, struct call *c)
{
    bool ours = lua_type(L, 2) == LUA_TSTRING && claw_str_eqz(text_at(L, 2), "translation");
    if (lua_type(L, 4) == LUA_TSTRING) c->r->error_param = keep(L, c, text_at(L, 4));
    if (lua_type(L, 3) == LUA_TSTRING) c->r->error_text = keep(L, c, text_at(L, 3));
    c->r->error = ours ? CLAW_ETRANSLATION : CLAW_EUNTRANSLATABLE;
}

/* Behind the body: the protocol it is in, when that is another than the client's, and which fields were left out. */
static void read_translation(lua_State *L, struct call *c)
{
    struct claw_req *r = c->r;
    if (lua_isnil(L, 2)) return;
    enum claw_dialect d = lua_type(L, 2) == LUA_TSTRING ? claw_dialect_named(text_at(L, 2)) : CLAW_DIALECT_COUNT;
    if (d == CLAW_DIALECT_COUNT) claw_task_raise(L, "request", "the protocol is %s", show(L, 2));
    r->sent_as = (uint8_t)d;
    r->translated = true;
    if (lua_type(L, 3) == LUA_TSTRING) r->dropped = keep(L, c, text_at(L, 3));
    if (!claw_h1_is_value(r->dropped)) r->dropped = CLAW_STR("");
}

static void request_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    struct claw_req *r = c->r;
    if (!r->waiting) {
        claw_api_begin_attempt(L, r);
        r->out_headers_n = 0;
        r->out_path = CLAW_STR("");
        r->out_body_set = r->translated = false;
        r->sent_as = r->dialect;
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_REQUEST);
        lua_pushlightuserdata(L, r);
        push_candidate(L, r);
        push_str_or_nil(L, claw_req_sent_model(r));
    }
    if (waits(L, c, "request", 3, 4)) return;
    if (lua_isboolean(L, 1) && !lua_toboolean(L, 1)) {
        read_untranslatable(L, c);
        return;
    }
    read_translation(L, c);
    const struct claw_api_handle *h = r->handle;
    if (lua_isnil(L, 1)) {
        if (!h->attempt || !claw_json_doc_changed(h->attempt)) return;
        write_doc(L, h->attempt, &r->out_body);
    } else if (h->attempt && is_untouched(L, 1, h->attempt)) {
        return;
    } else {
        write_body(L, c, "request", r->has_json && !r->translated, &r->out_body);
    }
    r->out_body_set = true;
}

static int request(void *vm, struct claw_req *r, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r};
    return run(&c, request_in, "request", err);
}

/* ---- retry -------------------------------------------------------------------------------------------------- */

static void set_number(lua_State *L, const char *key, double n)
{
    lua_pushnumber(L, n);
    lua_setfield(L, -2, key);
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
    set_number(L, "elapsed_ms", (double)f->elapsed_ms);
    if (f->retry_after_ms >= 0) set_number(L, "retry_after_ms", (double)f->retry_after_ms);
    lua_pushboolean(L, f->again);
    lua_setfield(L, -2, "again");
    if (conf->retry_attempts) set_number(L, "attempts_max", conf->retry_attempts);
    push_candidate(L, r);
    lua_setfield(L, -2, "index");
    const struct claw_generation_upstream *u = claw_req_upstream(r);
    if (u) push_str_or_nil(L, u->conf->name);
    else lua_pushnil(L);
    lua_setfield(L, -2, "upstream");
    push_str_or_nil(L, f->body);
    lua_setfield(L, -2, "body");
}

static void retry_in(lua_State *L, void *arg)
{
    static const struct { const char *name; enum claw_retry_action action; } actions[] = {
        {"stop", CLAW_RETRY_STOP}, {"next", CLAW_RETRY_NEXT}, {"same", CLAW_RETRY_SAME},
    };
    struct call *c = arg;
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_RETRY);
        lua_pushlightuserdata(L, c->r);
        push_failure(L, c->r, c->failure);
        if (c->r->decision) lua_pushinteger(L, c->r->decision);
        else lua_pushnil(L);
    }
    if (waits(L, c, "retry", 3, 2)) return;
    size_t i = 0, n = sizeof actions / sizeof *actions;
    if (lua_type(L, 1) != LUA_TSTRING) claw_task_raise(L, "retry", "the action is a %s", luaL_typename(L, 1));
    while (i < n && !claw_str_eqz(text_at(L, 1), actions[i].name)) i++;
    if (i == n) claw_task_raise(L, "retry", "the action is %s (next, same or stop may be)", show(L, 1));
    double after = lua_isnil(L, 2) ? 0 : lua_type(L, 2) == LUA_TNUMBER ? lua_tonumber(L, 2) : -1;
    if (!(after >= 0 && after <= AFTER_MAX_MS)) claw_task_raise(L, "retry", "after_ms is %s (0 to an hour may be)", show(L, 2));
    c->action = actions[i].action;
    c->after_ms = (uint64_t)ceil(after);
}

static int retry(void *vm, struct claw_req *r, const struct claw_failure *f, enum claw_retry_action *action,
                 uint64_t *after_ms, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r, .failure = f};
    int rc = run(&c, retry_in, "retry", err);
    *action = rc == CLAW_OK ? c.action : CLAW_RETRY_STOP;
    *after_ms = c.after_ms;
    return rc;
}

/* ---- response and event ------------------------------------------------------------------------------------- */

static void response_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    if (!c->r->waiting) {
        claw_api_begin_answer(L, c->r, c->in);
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_RESPONSE);
        lua_pushlightuserdata(L, c->r);
        push_candidate(L, c->r);
    }
    if (waits(L, c, "response", 2, 2)) return;
    if (lua_isboolean(L, 1) && !lua_toboolean(L, 1)) {
        c->r->error = CLAW_EBAD_RESPONSE;
        if (lua_type(L, 2) == LUA_TSTRING) c->r->error_text = keep(L, c, text_at(L, 2));
        return;
    }
    if (is_whole(L, 2, 200, 599)) c->r->answer_status = (int)lua_tointeger(L, 2);
    struct claw_api_handle *h = c->r->handle;
    if (lua_isnil(L, 1)) {
        if (!h->answer_doc || !claw_json_doc_changed(h->answer_doc)) return;
        write_doc(L, h->answer_doc, h->out);
    } else if (h->answer_doc && is_untouched(L, 1, h->answer_doc)) {
        return;
    } else {
        write_body(L, c, "response", false, h->out);
    }
    c->body = claw_buf_str(h->out);
}

static int response(void *vm, struct claw_req *r, struct claw_str body, struct claw_str *out, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r, .in = body};
    int rc = run(&c, response_in, "response", err);
    if (rc != CLAW_OK && rc != CLAW_EAGAIN) claw_api_end_answer(r);
    *out = rc == CLAW_OK ? c.body : (struct claw_str){NULL, 0};
    return rc;
}

static void error_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    claw_api_begin_answer(L, c->r, c->in);
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_ERROR);
    lua_pushlightuserdata(L, c->r);
    push_candidate(L, c->r);
    lua_pushinteger(L, c->events);
    lua_pushlstring(L, c->in.ptr ? c->in.ptr : "", c->in.len);
    lua_call(L, 4, 1);
    struct claw_api_handle *h = claw_api_handle_of(L, c->r);
    write_body(L, c, "error", false, h->out);
    c->body = claw_buf_str(h->out);
}

static int error(void *vm, struct claw_req *r, int status, struct claw_str body, struct claw_str *out, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r, .in = body, .events = status};
    int rc = run(&c, error_in, "error", err);
    *out = rc == CLAW_OK ? c.body : (struct claw_str){NULL, 0};
    return rc;
}

/* The string field of the event on top, appended to the bytes; where it begins there. */
static struct claw_str add_event_text(lua_State *L, struct claw_buf *bytes, const char *key)
{
    lua_getfield(L, -1, key);
    size_t from = claw_buf_size(bytes);
    if (lua_type(L, -1) == LUA_TSTRING) {
        if (claw_buf_add_str(bytes, text_at(L, -1)) != CLAW_OK) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    } else if (lua_istable(L, -1) || claw_document_test(L, -1)) {
        claw_value_write(L, -1, bytes, CLAW_VALUE_DEPTH);
    } else if (!lua_isnil(L, -1)) {
        claw_task_raise(L, "event", "an event's %s is a %s", key, luaL_typename(L, -1));
    }
    lua_pop(L, 1);
    return (struct claw_str){NULL, claw_buf_size(bytes) - from};
}

static void event_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    struct claw_policy_vm *p = c->p;
    claw_policy_push_fn(L, p, CLAW_ENGINE_EVENT);
    lua_pushlightuserdata(L, c->r);
    push_candidate(L, c->r);
    if (c->r->turned) lua_pushnil(L);
    else lua_pushlstring(L, c->type.ptr ? c->type.ptr : "", c->type.len);
    if (c->in.ptr) lua_pushlstring(L, c->in.ptr, c->in.len);
    else lua_pushnil(L); /* the end */
    lua_call(L, 4, 2);
    c->events = -1;
    if (lua_isnil(L, 1)) return;
    if (lua_type(L, 1) == LUA_TSTRING) {
        bool told = is_whole(L, 2, 400, 599);
        if (told) c->r->answer_status = (int)lua_tointeger(L, 2);
        c->rc = !c->in.ptr ? CLAW_EUPSTREAM_EOF : c->r->turned && !told ? CLAW_EBAD_RESPONSE : CLAW_ESTREAM_ERROR;
        c->body = keep(L, c, text_at(L, 1));
        return;
    }
    c->events = 0;
    if (lua_isboolean(L, 1) && !lua_toboolean(L, 1)) return;
    if (!lua_istable(L, 1)) claw_task_raise(L, "event", "the events are %s", show(L, 1));
    size_t n = lua_objlen(L, 1);
    if (n > CLAW_POLICY_EVENTS) claw_task_raise(L, "event", "%d events for one (%d may be)", (int)n, CLAW_POLICY_EVENTS);
    claw_buf_clear(&p->event_bytes);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 1, (int)i + 1);
        if (!lua_istable(L, -1)) claw_task_raise(L, "event", "an event is a %s", luaL_typename(L, -1));
        p->events[i].type = add_event_text(L, &p->event_bytes, "type");
        p->events[i].data = add_event_text(L, &p->event_bytes, "data");
        lua_pop(L, 1);
    }
    /* The buffer moves no more: lengths become slices. */
    const char *at = claw_buf_str(&p->event_bytes).ptr;
    for (size_t i = 0; i < n; i++) {
        p->events[i].type.ptr = at;
        p->events[i].data.ptr = at += p->events[i].type.len;
        at += p->events[i].data.len;
    }
    c->events = (int)n;
}

static int event(void *vm, struct claw_req *r, struct claw_str type, struct claw_str data,
                 const struct claw_policy_event **out, int *n, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r, .in = data, .type = type, .events = -1};
    int rc = run(&c, event_in, "event", err);
    if (c.body.ptr) err->message = c.body;
    *out = c.p->events;
    *n = rc == CLAW_OK ? c.events : -1;
    return rc;
}

/* ---- finish ------------------------------------------------------------------------------------------------- */

/* The request line's own names: a policy's field of such a name gets a prefix. */
static bool is_taken(struct claw_str key)
{
    static const char *const names[] = {
        "time", "level", "msg", "id", "request_id", "client", "ip", "method", "path", "route", "upstream", "model",
        "model_asked", "model_sent", "sent_model", "stream", "status", "kind", "error", "error_code", "error_message", "upstream_error", "attempts",
        "ttfb_ms", "ttfb_us", "duration_ms", "duration_us", "overhead_us", "tokens", "usage", "input_tokens", "output_tokens",
        "cached_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd", "cost_micros", "cache", "bytes_in", "bytes_out",
        "generation", "answered_by",
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

static void write_fields(lua_State *L, struct call *c, int idx)
{
    struct claw_buf *text = &c->p->vm->text;
    claw_buf_clear(text);
    push_sorted_keys(L, idx);
    int keys = lua_gettop(L), n = (int)lua_objlen(L, keys);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, keys, i);
        struct claw_str key = text_at(L, -1);
        if (is_taken(key)) {
            lua_pushfstring(L, "policy.%s", key.ptr);
            key = text_at(L, -1);
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
    c->r->log_fields = n ? keep(L, c, claw_buf_str(text)) : CLAW_STR("");
}

static void push_tokens(lua_State *L, int64_t n)
{
    if (n >= 0) lua_pushnumber(L, (lua_Number)n);
    else lua_pushnil(L);
}

static void finish_in(lua_State *L, void *arg)
{
    struct call *c = arg;
    struct claw_req *r = c->r;
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_FINISH);
    lua_pushlightuserdata(L, r);
    push_candidate(L, r);
    push_str_or_nil(L, claw_req_sent_model(r));
    push_tokens(L, r->usage.input);
    push_tokens(L, r->usage.cached);
    push_tokens(L, r->usage.output);
    push_tokens(L, r->usage.reasoning);
    push_tokens(L, r->usage.written);
    lua_call(L, 8, 2);
    if (!lua_isnil(L, 1)) {
        if (!is_whole(L, 1, 0, EXACT)) claw_task_raise(L, "cost", "%s is no number of micro-dollars", show(L, 1));
        r->cost_micros = (int64_t)lua_tonumber(L, 1);
    }
    if (lua_isnil(L, 2)) return;
    if (!lua_istable(L, 2)) claw_task_raise(L, "log", "the fields are %s", show(L, 2));
    write_fields(L, c, 2);
}

/* As lua/claw/cost.lua charges: prices in pico-dollars a token, rounded half up to micro-dollars. -1: not known. */
static int64_t charge(const struct claw_conf_price *p, const struct claw_usage *u)
{
    bool per_token = p->input >= 0 || p->output >= 0;
    if ((u->input < 0 && u->output < 0) || !per_token) return per_token ? -1 : p->request_micros;
    double input = u->input > 0 ? (double)u->input : 0, output = u->output > 0 ? (double)u->output : 0;
    double cached = u->cached > 0 ? fmin((double)u->cached, input) : 0;
    double written = u->written > 0 ? fmin((double)u->written, input - cached) : 0;
    double base = p->input > 0 ? (double)p->input : 0;
    bool longer = p->long_above >= 0 && input > (double)p->long_above;
    double price = longer && p->long_input >= 0 ? (double)p->long_input : base;
    double of_cached = longer && p->long_cached >= 0 ? (double)p->long_cached : p->cached_input >= 0 ? (double)p->cached_input : price;
    double of_written = p->cache_write >= 0 ? (double)p->cache_write : price;
    double of_output = longer && p->long_output >= 0 ? (double)p->long_output : p->output > 0 ? (double)p->output : 0;
    if (longer && p->cache_write >= 0 && base > 0) of_written = floor(of_written * price / base + 0.5);
    double pico = (input - cached - written) * price + cached * of_cached + written * of_written + output * of_output;
    double micros = floor(pico / 1e6 + 0.5) + (p->request_micros > 0 ? (double)p->request_micros : 0);
    return micros <= EXACT ? (int64_t)micros : -1;
}

static int finish(void *vm, struct claw_req *r, struct claw_policy_error *err)
{
    struct call c = {.p = vm, .r = r};
    int rc = CLAW_OK;
    if (r->decision) r->cost_micros = charge(&r->prices[r->candidate], &r->usage);
    else rc = run(&c, finish_in, "log", err);
    claw_api_end_answer(r);
    return rc;
}

static void release(void *vm, struct claw_req *r) { claw_api_release(r); }

const struct claw_policy_ops claw_policy_ops_lua = {
    .admit = admit, .route = route, .request = request, .retry = retry, .response = response, .error = error, .event = event,
    .finish = finish, .release = release, .admits = admits,
};
