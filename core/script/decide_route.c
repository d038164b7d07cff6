/* decide_route: which route and which candidates; the lists that are numbered are read once. */
#include "script/decide_part.h"

#include "proxy/hedge.h"

/* The field of the table at idx whose name is kept under `key`: no string is made anew, no metatable asked. */
static void push_member(lua_State *L, int idx, int key)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, key);
    lua_rawget(L, idx - 1);
}

/* The candidate table on top. */
static void read_candidate(lua_State *L, struct claw_decide *c, struct claw_candidate *to)
{
    if (!lua_istable(L, -1)) claw_task_raise(L, "route", "a candidate is a %s", luaL_typename(L, -1));
    push_member(L, -1, c->p->key_index);
    if (!claw_decide_is_whole(L, -1, 1, (double)c->p->gen->conf->upstreams_n))
        claw_task_raise(L, "route", "candidate index %s is no upstream (there are %d)", claw_decide_show(L, -1), (int)c->p->gen->conf->upstreams_n);
    push_member(L, -2, c->p->key_mask);
    if (!lua_isnil(L, -1) && !claw_decide_is_whole(L, -1, 0, 31)) claw_task_raise(L, "route", "candidate mask %s", claw_decide_show(L, -1));
    push_member(L, -3, c->p->key_model);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING) claw_task_raise(L, "route", "candidate model %s", claw_decide_show(L, -1));
    *to = (struct claw_candidate){.upstream = (uint16_t)(lua_tointeger(L, -3) - 1), .mask = (uint16_t)lua_tointeger(L, -2)};
    if (!lua_isnil(L, -1)) to->model = claw_decide_keep(L, c, claw_decide_text(L, -1));
    lua_pop(L, 3);
}

static int64_t price_field(lua_State *L, const char *key)
{
    lua_getfield(L, -1, key);
    if (!lua_isnil(L, -1) && !claw_decide_is_whole(L, -1, 0, CLAW_DECIDE_EXACT)) claw_task_raise(L, "route", "candidate price %s is %s", key, claw_decide_show(L, -1));
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
static void keep_decision(lua_State *L, struct claw_decide *c, size_t number)
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

static void read_list(lua_State *L, struct claw_decide *c);

static void read_decision(lua_State *L, struct claw_decide *c)
{
    if (lua_isnil(L, 4)) {
        read_list(L, c);
        return;
    }
    if (!claw_decide_is_whole(L, 4, 1, CLAW_DECISIONS_MAX)) claw_task_raise(L, "route", "the list's number is %s", claw_decide_show(L, 4));
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
        bool number = lua_type(L, -1) == LUA_TNUMBER, no = claw_decide_is_false(L, -1);
        struct claw_str word = lua_type(L, -1) == LUA_TSTRING ? claw_decide_text(L, -1) : (struct claw_str){NULL, 0};
        r->hedging = (struct claw_conf_hedge){.budget = of_route->after_ms || of_route->percent ? of_route->budget : CLAW_HEDGE_BUDGET};
        if (!no && ((!number && !word.ptr) || !claw_conf_hedge_after(word, number ? lua_tonumber(L, -1) : 0, &r->hedging)))
            claw_task_raise(L, "route", "hedge is %s", claw_decide_show(L, -1));
    }
    lua_pop(L, 1);
}

static void read_list(lua_State *L, struct claw_decide *c)
{
    struct claw_req *r = c->r;
    if (!claw_decide_is_whole(L, 1, 1, (double)c->p->gen->conf->routes_n)) claw_task_raise(L, "route", "route index %s is none", claw_decide_show(L, 1));
    if (!lua_istable(L, 2)) claw_task_raise(L, "route", "the candidates are a %s", luaL_typename(L, 2));
    if (!lua_isnil(L, 3) && !claw_decide_is_whole(L, 3, 0, 31)) claw_task_raise(L, "route", "route mask %s", claw_decide_show(L, 3));
    size_t n = lua_objlen(L, 2);
    if (n < 1 || n > CLAW_CANDIDATES_MAX) claw_task_raise(L, "route", "%d candidates (1 to %d may be)", (int)n, CLAW_CANDIDATES_MAX);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        read_candidate(L, c, &r->candidates[i]);
        r->candidates[i].place = (uint16_t)i;
        lua_pop(L, 1);
    }
    r->route = (int)lua_tointeger(L, 1) - 1;
    r->route_mask = (uint16_t)lua_tointeger(L, 3);
    r->candidates_n = (unsigned)n;
    r->candidate = 0;
    read_hedge(L, r);
    lua_getfield(L, 2, "as_is");
    r->as_is = lua_toboolean(L, -1);
    lua_pop(L, 1);
}

static void read_refusal(lua_State *L, struct claw_decide *c)
{
    static const struct { const char *name; int code; } codes[] = {
        {"no_route", CLAW_ENO_ROUTE}, {"model_not_found", CLAW_EMODEL_NOT_FOUND}, {"no_upstream", CLAW_ENO_UPSTREAM},
    };
    if (lua_type(L, 2) == LUA_TSTRING && claw_str_eqz(claw_decide_text(L, 2), "denied")) { /* message, status, code */
        lua_pushvalue(L, 4);
        lua_pushvalue(L, 5);
        lua_pushvalue(L, 3);
        claw_decide_read_denial(L, c, lua_gettop(L) - 2);
        return;
    }
    if (lua_type(L, 2) == LUA_TSTRING) {
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
            if (!claw_str_eqz(claw_decide_text(L, 2), codes[i].name)) continue;
            struct claw_str text = lua_type(L, 3) == LUA_TSTRING ? claw_decide_text(L, 3) : claw_str_of(claw_err_text(codes[i].code));
            c->r->error_text = claw_decide_keep(L, c, text);
            c->r->error = codes[i].code;
            return;
        }
    }
    claw_task_raise(L, "route", "no decision and an unknown code %s", claw_decide_show(L, 2));
}

static void push_question(lua_State *L, struct claw_req *r)
{
    lua_pushlightuserdata(L, r);
    lua_pushlstring(L, r->head->method.ptr, r->head->method.len);
    lua_pushlstring(L, r->head->path.ptr, r->head->path.len);
    claw_decide_push_str(L, r->model);
    lua_pushboolean(L, r->stream);
}

/* At level debug the log says why each route did or did not match. */
static void trace_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_TRACE);
    push_question(L, c->r);
    lua_call(L, 5, 1);
    if (lua_type(L, 1) == LUA_TSTRING) claw_log_event(CLAW_LOG_DEBUG, "routes", "id", c->r->id, "routes", lua_tostring(L, 1), NULL);
}

/* The route and the candidates lie on the stack, behind true: a route whose hooks may wait. */
static bool decide_waits(lua_State *L, struct claw_decide *c)
{
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_DECIDE);
        lua_replace(L, 1);
        lua_settop(L, 3);
        push_question(L, c->r);
    }
    return claw_decide_waits(L, c, "route", 7, 6);
}

/* Who refuses or answers in an upstream's place says which route matched, if one did: log and metrics name it. */
static void read_matched(lua_State *L, struct claw_decide *c)
{
    if (lua_isnil(L, 6)) return;
    if (!claw_decide_is_whole(L, 6, 1, (double)c->p->gen->conf->routes_n)) claw_task_raise(L, "route", "route index %s is none", claw_decide_show(L, 6));
    c->r->route = (int)lua_tointeger(L, 6) - 1;
}

static void route_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    if (!c->r->waiting) {
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_ROUTE);
        push_question(L, c->r);
        lua_call(L, 5, 6);
    }
    if ((c->r->waiting || (lua_isboolean(L, 1) && lua_toboolean(L, 1))) && decide_waits(L, c)) return;
    switch (lua_type(L, 1)) {
    case LUA_TNUMBER: read_decision(L, c); return;
    case LUA_TNIL:
        read_matched(L, c);
        read_refusal(L, c);
        return;
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, 1)) break;
        read_matched(L, c);
        claw_decide_read_answer(L, c, "route");
        return;
    default: break;
    }
    claw_task_raise(L, "route", "the route is %s", claw_decide_show(L, 1));
}

int claw_decide_route(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r, .answer = answer};
    if (!r->waiting && claw_log_on(CLAW_LOG_DEBUG) && claw_decide_run(&c, trace_in, "route", err) != CLAW_OK) return CLAW_EPOLICY;
    return claw_decide_run(&c, route_in, "route", err);
}
