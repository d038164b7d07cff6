/* decide_kept: whether an answer is kept, and a kept one in the shape that this client asked for. */
#include "script/decide_part.h"

static void caches_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    const struct claw_req *r = c->r;
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_CACHES);
    lua_pushlightuserdata(L, c->r);
    lua_pushinteger(L, r->route + 1);
    lua_pushlstring(L, r->head->method.ptr, r->head->method.len);
    lua_pushlstring(L, r->head->path.ptr, r->head->path.len);
    claw_decide_push_str(L, r->model);
    lua_call(L, 5, 1);
    if (!claw_decide_is_whole(L, 1, 0, (double)claw_req_conf(r)->caching.strategies_n)) claw_task_raise(L, "caches", "the strategy is %s", claw_decide_show(L, 1));
    c->events = (int)lua_tointeger(L, 1);
}

int claw_decide_caches(void *vm, struct claw_req *r, unsigned *which, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r};
    int rc = claw_decide_run(&c, caches_in, "caches", err);
    *which = rc == CLAW_OK ? (unsigned)c.events : 0;
    return rc;
}

/* The events of a stream, found before Lua is entered: what fails in there frees nothing of ours. */
struct kept_events { struct claw_req *r; struct claw_sse_fields *all; size_t n, cap; struct claw_buf tmp; };

static int on_kept_event(void *arg, const struct claw_sse_event *ev)
{
    struct kept_events *k = arg;
    struct claw_arena *a = &k->r->arena;
    if (!ev->has_data) return 0;
    if (k->n == k->cap) {
        size_t cap = k->cap ? k->cap * 2 : 64;
        struct claw_sse_fields *all = claw_arena_grow(a, k->all, k->cap * sizeof *all, cap * sizeof *all);
        if (!all) return CLAW_EREQ_MEM;
        k->all = all;
        k->cap = cap;
    }
    struct claw_sse_fields *f = &k->all[k->n];
    int rc = claw_sse_parse(ev->raw, &k->tmp, f);
    if (rc != 0) return rc;
    if (claw_buf_size(&k->tmp) && f->data.ptr == claw_buf_str(&k->tmp).ptr && !(f->data.ptr = claw_arena_dup(a, f->data.ptr, f->data.len))) return CLAW_EREQ_MEM;
    k->n++;
    return 0;
}

static int find_events(struct kept_events *k, struct claw_str body)
{
    struct claw_sse sse;
    const struct claw_sse_sink sink = {on_kept_event, NULL, k};
    claw_sse_init(&sse, body.len);
    claw_buf_init(&k->tmp, 0);
    int rc = claw_sse_feed(&sse, body.ptr, body.len, &sink);
    claw_sse_fini(&sse);
    claw_buf_fini(&k->tmp);
    return rc;
}

struct recast { struct claw_decide c; struct kept_events *events; struct claw_buf *out; };

static void push_field(lua_State *L, const char *key, struct claw_str s)
{
    lua_pushlstring(L, s.ptr ? s.ptr : "", s.len);
    lua_setfield(L, -2, key);
}

static void push_kept(lua_State *L, const struct recast *x)
{
    if (!x->events) {
        lua_pushlstring(L, x->c.in.ptr, x->c.in.len);
        return;
    }
    lua_createtable(L, (int)x->events->n, 0);
    for (size_t i = 0; i < x->events->n; i++) {
        lua_createtable(L, 0, 2);
        push_field(L, "type", x->events->all[i].type);
        push_field(L, "data", x->events->all[i].data);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

/* The text of a string or value at the top; in the VM's buffer, until the next one. */
static struct claw_str value_text(lua_State *L, struct claw_buf *text)
{
    if (lua_type(L, -1) == LUA_TSTRING) return claw_decide_text(L, -1);
    claw_buf_clear(text);
    claw_value_write(L, -1, text, CLAW_VALUE_DEPTH);
    return claw_buf_str(text);
}

static void recast_in(lua_State *L, void *arg)
{
    struct recast *x = arg;
    struct claw_decide *c = &x->c;
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_RECAST);
    lua_pushlightuserdata(L, c->r);
    lua_pushstring(L, claw_dialect_name(c->r->dialect));
    push_kept(L, x);
    lua_call(L, 3, 1);
    c->rc = CLAW_EBAD_RESPONSE;
    if (!lua_istable(L, 1)) return;
    if (x->events) {
        claw_buf_clear(x->out);
        claw_value_write(L, 1, x->out, CLAW_VALUE_DEPTH);
        c->rc = CLAW_OK;
        return;
    }
    int rc = CLAW_OK, n = (int)lua_objlen(L, 1);
    for (int i = 1; i <= n && rc == CLAW_OK; i++) {
        lua_rawgeti(L, 1, i);
        lua_getfield(L, -1, "type");
        struct claw_str type = lua_type(L, -1) == LUA_TSTRING ? claw_decide_text(L, -1) : CLAW_STR("");
        lua_getfield(L, -2, "data");
        rc = claw_sse_write(x->out, type, value_text(L, &c->p->vm->text));
        lua_settop(L, 1);
    }
    c->rc = rc;
}

int claw_decide_recast(void *vm, struct claw_req *r, struct claw_str body, bool stream, struct claw_buf *out, struct claw_policy_error *err)
{
    struct kept_events events = {.r = r};
    struct recast x = {{.p = vm, .r = r, .in = body}, stream ? &events : NULL, out};
    claw_buf_clear(out);
    int rc = stream ? find_events(&events, body) : CLAW_OK;
    return rc == CLAW_OK ? claw_decide_run(&x.c, recast_in, "recast", err) : rc;
}
