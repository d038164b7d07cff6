/* The functions of core that let a policy in shadow (lua/claw/shadow.lua) run beside the request: what it sets is looked at
 * and undone. */
#include "script/api.h"

#include <lauxlib.h>

/* Fields that were set, in the request's arena. */
struct set { struct claw_conf_header *headers; size_t n; };

/* What the request had before. Its environment keeps req.ctx. */
struct aside {
    uint64_t serial;   /* of the request */
    struct set out, answer;
    struct claw_str path;
    uint32_t commit_at;
};

static const char aside_type[] = "claw.aside";

/* Give the request ctx, the value at idx; the old one is pushed. */
static void swap_ctx(lua_State *L, struct claw_req *r, int idx)
{
    claw_api_push(L, r, CLAW_API_CTX);
    lua_pushvalue(L, idx);
    claw_api_set(L, r, CLAW_API_CTX);
}

static struct set copy(lua_State *L, struct claw_req *r, const struct claw_conf_header *headers, size_t n)
{
    struct set s = {NULL, n};
    if (n == 0) return s;
    s.headers = claw_arena_zalloc(&r->arena, n * sizeof *s.headers);
    if (!s.headers) luaL_error(L, "%s", claw_err_text(CLAW_EREQ_MEM));
    memcpy(s.headers, headers, n * sizeof *s.headers);
    return s;
}

/* aside(req, ctx): what back wants. */
static int core_aside(lua_State *L)
{
    struct claw_req *r = claw_api_check_req(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    struct aside *a = lua_newuserdata(L, sizeof *a);
    *a = (struct aside){.serial = r->serial, .path = r->out_path, .commit_at = r->commit_at};
    a->out = copy(L, r, r->out_headers, r->out_headers_n);
    a->answer = copy(L, r, r->answer_headers, r->answer_headers_n);
    luaL_newmetatable(L, aside_type);
    lua_setmetatable(L, -2);
    lua_createtable(L, 1, 0);
    swap_ctx(L, r, 2);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    return 1;
}

static bool same(struct claw_str a, struct claw_str b) { return !a.ptr == !b.ptr && claw_str_eq(a, b); }

static const struct claw_conf_header *before(const struct set *s, struct claw_str name)
{
    for (size_t i = 0; i < s->n; i++)
        if (claw_str_ieq(s->headers[i].name, name)) return &s->headers[i];
    return NULL;
}

/* Add the names of what was set since then to the list on top, and undo it. */
static void undo(lua_State *L, const char *what, const struct set *old, struct claw_conf_header *headers, size_t *n)
{
    for (size_t i = 0; i < *n; i++) {
        const struct claw_conf_header *h = &headers[i], *was = before(old, h->name);
        if (was && same(was->value, h->value)) continue;
        lua_pushstring(L, what);
        lua_pushlstring(L, h->name.ptr, h->name.len);
        lua_concat(L, 2);
        lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
    }
    /* Fields are only ever added or replaced in place: there is room for the old ones. */
    if (old->n) memcpy(headers, old->headers, old->n * sizeof *headers);
    *n = old->n;
}

/* back(req, aside): all is as it was; a list of what the policy had set: "header x-a", "answer header x-b", "path", "commit". */
static int core_back(lua_State *L)
{
    struct claw_req *r = claw_api_check_req(L, 1);
    const struct aside *a = luaL_checkudata(L, 2, aside_type);
    if (a->serial != r->serial) return luaL_error(L, "back: of another request");
    lua_newtable(L);
    int list = lua_gettop(L);
    undo(L, "header ", &a->out, r->out_headers, &r->out_headers_n);
    undo(L, "answer header ", &a->answer, r->answer_headers, &r->answer_headers_n);
    if (!claw_str_eq(a->path, r->out_path)) {
        lua_pushliteral(L, "path");
        lua_rawseti(L, list, (int)lua_objlen(L, list) + 1);
    }
    r->out_path = a->path;
    if (a->commit_at != r->commit_at) {
        lua_pushliteral(L, "commit");
        lua_rawseti(L, list, (int)lua_objlen(L, list) + 1);
    }
    r->commit_at = a->commit_at;
    lua_getfenv(L, 2);
    lua_rawgeti(L, -1, 1);
    swap_ctx(L, r, lua_gettop(L));
    lua_settop(L, list);
    return 1;
}

/* twin(req, doc) */
static int core_twin(lua_State *L)
{
    struct claw_req *r = claw_api_check_req(L, 1);
    claw_document_check(L, 2);
    claw_api_push_twin(L, r, 2);
    return 1;
}

/* count_shadow(policy, hook, "true" | "false" | "error") */
static int core_count_shadow(lua_State *L)
{
    struct claw_str labels[3];
    for (int i = 0; i < 3; i++) labels[i].ptr = luaL_checklstring(L, i + 1, &labels[i].len);
    const struct claw_worker_ctx *ctx = claw_vm_of(L)->ctx;
    if (!ctx || !ctx->metrics) return 0;
    claw_metrics_add(ctx->metrics, CLAW_METRIC_POLICY_SHADOW, 1, 3, labels);
    if (claw_str_eqz(labels[2], "error")) claw_metrics_add(ctx->metrics, CLAW_METRIC_POLICY_ERRORS, 1, 2, labels);
    return 0;
}

void claw_api_add_asides(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"aside", core_aside}, {"back", core_back}, {"twin", core_twin}, {"count_shadow", core_count_shadow}, {NULL, NULL},
    };
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
}
