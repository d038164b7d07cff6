#include "script/policy_part.h"

#include "net/tls.h"

#include <lauxlib.h>
#include <stdlib.h>

#define MEMORY_MB 32
#define BUDGET_MS 10
#define SCRATCH_BYTES (4u << 20) /* error texts at boot */
#define FIXED_HEADERS 16
#define DECIDED_MAX (16u << 20)

/* ---- openclaw.yaml as tables -------------------------------------------------------------------------------- */

static void push_str(lua_State *L, struct claw_str s) { lua_pushlstring(L, s.ptr ? s.ptr : "", s.len); }

static void set_price(lua_State *L, const char *key, int64_t v)
{
    if (v < 0) return;
    lua_pushnumber(L, (lua_Number)v);
    lua_setfield(L, -2, key);
}

static void push_upstreams(lua_State *L, const struct claw_conf *conf)
{
    lua_createtable(L, (int)conf->upstreams_n, 0);
    for (size_t i = 0; i < conf->upstreams_n; i++) {
        const struct claw_conf_upstream *u = &conf->upstreams[i];
        lua_createtable(L, 0, 6);
        push_str(L, u->name);
        lua_setfield(L, -2, "name");
        push_str(L, u->type);
        lua_setfield(L, -2, "type");
        push_str(L, u->url.text);
        lua_setfield(L, -2, "url");
        claw_value_push_conf(L, u->node);
        lua_setfield(L, -2, "node");
        lua_pushboolean(L, u->api_keys_n > 0);
        lua_setfield(L, -2, "has_key");
        lua_createtable(L, 0, 4);
        set_price(L, "input", u->price.input);
        set_price(L, "output", u->price.output);
        set_price(L, "cached_input", u->price.cached_input);
        set_price(L, "cache_write", u->price.cache_write);
        set_price(L, "request_micros", u->price.request_micros);
        lua_setfield(L, -2, "price");
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static void push_routes(lua_State *L, const struct claw_conf *conf)
{
    lua_createtable(L, (int)conf->routes_n, 0);
    for (size_t i = 0; i < conf->routes_n; i++) {
        lua_createtable(L, 0, 2);
        push_str(L, conf->routes[i].id);
        lua_setfield(L, -2, "id");
        claw_value_push_conf(L, conf->routes[i].node);
        lua_setfield(L, -2, "node");
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static void push_sources(lua_State *L, const struct claw_policy_source *items, size_t n)
{
    lua_newtable(L);
    for (size_t i = 0; i < n; i++) {
        lua_createtable(L, 0, 4);
        push_str(L, items[i].name);
        lua_setfield(L, -2, "name");
        push_str(L, items[i].file);
        lua_setfield(L, -2, "file");
        push_str(L, items[i].text);
        lua_setfield(L, -2, "source");
        lua_pushstring(L, items[i].builtin ? "builtin" : "dir");
        lua_setfield(L, -2, "origin");
        lua_rawseti(L, -2, (int)i + 1);
    }
}

/* ---- boot --------------------------------------------------------------------------------------------------- */

struct boot {
    struct claw_policy_vm *p;
    struct claw_str source;              /* ptr NULL: the embedded engine */
    bool prove;
    struct claw_conf_problems *problems; /* NULL: the first one raises */
    bool refused;
};

static void push_engine_module(lua_State *L, struct claw_str source)
{
    if (source.ptr) {
        if (claw_vm_load(L, source, "=engine", false) != 1) lua_error(L);
        lua_call(L, 0, 1);
        return;
    }
    lua_getglobal(L, "require");
    lua_pushliteral(L, "claw.engine");
    lua_call(L, 1, 1);
}

static void push_spec(lua_State *L, struct claw_policy_vm *p, bool prove)
{
    const struct claw_conf *conf = p->gen->conf;
    lua_createtable(L, 0, 7);
    claw_value_push_conf(L, conf->root);
    lua_setfield(L, -2, "conf");
    push_upstreams(L, conf);
    lua_setfield(L, -2, "upstreams");
    push_routes(L, conf);
    lua_setfield(L, -2, "routes");
    const struct claw_policies *sources = p->gen->policies;
    push_sources(L, sources ? sources->items : NULL, sources ? sources->n : 0);
    lua_setfield(L, -2, "policies");
    push_sources(L, sources ? sources->libs : NULL, sources ? sources->libs_n : 0);
    lua_setfield(L, -2, "libs");
    claw_api_push_core(L);
    lua_setfield(L, -2, "core");
    lua_pushboolean(L, prove);
    lua_setfield(L, -2, "prove");
}

static const char *field_text(lua_State *L, const char *key, const char *missing)
{
    lua_getfield(L, -1, key);
    const char *z = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : missing;
    lua_pop(L, 1); /* still in its table */
    return z;
}

static void add_line(struct claw_conf_problems *to, const char *file, int line, const char *message)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    struct claw_conf_problem *p = claw_arena_zalloc(to->arena, sizeof *p);
    int rc = line > 0 ? claw_buf_add_fmt(&b, "%s:%d: %s", file, line, message) : claw_buf_add_fmt(&b, "%s: %s", file, message);
    if (p && rc == CLAW_OK) {
        p->text = claw_arena_dup(to->arena, claw_buf_str(&b).ptr, claw_buf_size(&b));
        p->line = line > 0 ? (unsigned)line : 0;
    }
    claw_buf_fini(&b);
    if (!p || !p->text) return;
    for (char *c = p->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    *to->last = p;
    to->last = &p->next;
    to->n++;
}

/* The problem table on top. */
static void add_problem(lua_State *L, struct boot *b)
{
    if (!lua_istable(L, -1)) luaL_error(L, "a problem of the engine is a %s", luaL_typename(L, -1));
    const char *message = field_text(L, "message", "(no message)");
    const char *file = field_text(L, "file", NULL), *path = field_text(L, "path", "");
    lua_getfield(L, -1, "line");
    int line = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (!b->problems) {
        if (file) luaL_error(L, "%s:%d: %s", file, line, message);
        luaL_error(L, "%s: %s", path, message);
    }
    if (file) add_line(b->problems, file, line, message);
    else claw_conf_problem_add(b->problems, b->p->gen->conf, path, "%s", message);
}

static int keep_key(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static void keep_engine(lua_State *L, struct claw_policy_vm *p)
{
    static const char *const names[] = {
#define CLAW_ENGINE_NAME(id, name) name,
        CLAW_ENGINE_MAP(CLAW_ENGINE_NAME)
#undef CLAW_ENGINE_NAME
    };
    for (int i = 0; i < CLAW_ENGINE_COUNT; i++) {
        lua_getfield(L, -1, names[i]);
        if (!lua_isfunction(L, -1)) luaL_error(L, "engine.%s is no function", names[i]);
        p->fn[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    p->key_index = keep_key(L, "index");
    p->key_mask = keep_key(L, "mask");
    p->key_model = keep_key(L, "model");
    lua_getfield(L, -1, "hooks");
    if (lua_istable(L, -1)) {
        lua_getfield(L, -1, "admit");
        p->admits = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    p->engine = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void boot_in(lua_State *L, void *arg)
{
    struct boot *b = arg;
    claw_api_register(L);
    push_engine_module(L, b->source);
    lua_getfield(L, -1, "new");
    push_spec(L, b->p, b->prove);
    lua_call(L, 1, 2);
    claw_value_set_mark(L);
    if (lua_istable(L, -2)) {
        lua_pop(L, 1);
        keep_engine(L, b->p);
        return;
    }
    if (!lua_istable(L, -1)) luaL_error(L, "engine.new gave neither an engine nor problems");
    b->refused = true;
    size_t n = lua_objlen(L, -1);
    if (n == 0) luaL_error(L, "engine.new gave an empty list of problems");
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, (int)i);
        add_problem(L, b);
        lua_pop(L, 1);
    }
}

/* CLAW_EINVAL: refused, problems filled or *why (malloc'ed) says it. */
static int boot(struct claw_generation *gen, struct boot *b, struct claw_policy_vm **out, char **why)
{
    size_t mb = gen->conf->policies.memory_mb ? gen->conf->policies.memory_mb : MEMORY_MB;
    struct claw_policy_vm *p = calloc(1, sizeof *p);
    if (!p) return CLAW_ENOMEM;
    p->magic = CLAW_POLICY_MAGIC;
    p->gen = claw_generation_ref(gen);
    claw_buf_init(&p->event_bytes, 0);
    claw_arena_init(&p->decided, NULL, 0, DECIDED_MAX);
    b->p = p;
    int rc = claw_vm_new(mb << 20, &p->vm);
    if (rc != CLAW_OK) {
        if (why) *why = strdup("the policies' VM does not fit into policies.memory_mb");
        claw_policy_vm_free(p);
        return CLAW_EINVAL;
    }
    p->vm->gen = gen;
    if (!b->prove) p->vm->store = gen->store;
    p->vm->budget.limit_us = (gen->conf->policies.budget_ms ? gen->conf->policies.budget_ms : BUDGET_MS) * 1000ull;
    struct claw_arena arena;
    claw_arena_init(&arena, NULL, 0, SCRATCH_BYTES);
    struct claw_task_error e;
    rc = claw_task_call(p->vm, boot_in, b, &arena, &e);
    if (rc != CLAW_OK && why && asprintf(why, "%.*s: %.*s", CLAW_STR_FMT(e.policy), CLAW_STR_FMT(e.message)) < 0) *why = NULL;
    claw_arena_reset(&arena);
    if (rc != CLAW_OK || b->refused) {
        claw_policy_vm_free(p);
        return CLAW_EINVAL;
    }
    *out = p;
    return CLAW_OK;
}

void claw_policy_push_fn(lua_State *L, const struct claw_policy_vm *p, enum claw_engine_fn fn)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, p->fn[fn]);
}

/* ---- what the provider tables say --------------------------------------------------------------------------- */

struct heads {
    struct claw_policy_vm *p;
    int rc;
};

/* The string at position k of the table on top. */
static struct claw_str item_text(lua_State *L, int k)
{
    struct claw_str s;
    lua_rawgeti(L, -1, k);
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "a provider's path is a %s", luaL_typename(L, -1));
    s.ptr = lua_tolstring(L, -1, &s.len);
    lua_pop(L, 1); /* still in its table */
    return s;
}

/* The table of upstream i is on top: its paths. */
static int set_paths(lua_State *L, struct claw_generation *gen, size_t i)
{
    int rc = 0;
    lua_getfield(L, -1, "stream_usage");
    gen->upstreams[i].asks_usage = lua_toboolean(L, -1);
    lua_getfield(L, -2, "paths");
    if (!lua_istable(L, -1)) {
        lua_pop(L, 2);
        return 0;
    }
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        struct claw_str name = {lua_tostring(L, -2), lua_objlen(L, -2)};
        enum claw_dialect d = claw_dialect_named(name);
        if (d == CLAW_DIALECT_COUNT || !lua_istable(L, -1)) luaL_error(L, "a provider's protocol is \"%s\"", name.ptr);
        if (rc == 0) rc = claw_generation_set_path(gen, i, d, item_text(L, 1), item_text(L, 2));
    }
    lua_pop(L, 2);
    return rc;
}

/* The table of upstream i is on top. */
static int set_upstream(lua_State *L, struct claw_generation *gen, size_t i)
{
    const char *name = NULL, *prefix = "";
    struct claw_conf_header fixed[FIXED_HEADERS];
    size_t n = 0;
    if (!lua_istable(L, -1)) return claw_generation_set_upstream(gen, i, NULL, "", NULL, 0);
    lua_getfield(L, -1, "auth");
    if (lua_istable(L, -1)) {
        name = field_text(L, "header", NULL);
        prefix = field_text(L, "prefix", "");
    }
    lua_getfield(L, -2, "headers");
    size_t want = lua_istable(L, -1) ? lua_objlen(L, -1) : 0;
    if (want > FIXED_HEADERS) luaL_error(L, "a provider has more than %d headers", FIXED_HEADERS);
    for (size_t k = 1; k <= want; k++) {
        lua_rawgeti(L, -1, (int)k);
        if (!lua_istable(L, -1)) luaL_error(L, "a provider's header is a %s", luaL_typename(L, -1));
        for (int part = 1; part <= 2; part++) {
            lua_rawgeti(L, -1, part);
            if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "a provider's header is no pair of strings");
            struct claw_str *s = part == 1 ? &fixed[n].name : &fixed[n].value;
            s->ptr = lua_tolstring(L, -1, &s->len);
            lua_pop(L, 1);
        }
        n++;
        lua_pop(L, 1);
    }
    int rc = claw_generation_set_upstream(gen, i, name, prefix, fixed, n);
    lua_pop(L, 2);
    return rc == 0 ? set_paths(L, gen, i) : rc;
}

static void set_heads(lua_State *L, void *arg)
{
    struct heads *h = arg;
    struct claw_generation *gen = h->p->gen;
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->p->engine);
    lua_getfield(L, -1, "upstreams");
    for (size_t i = 0; i < gen->conf->upstreams_n && h->rc == CLAW_OK; i++) {
        if (lua_istable(L, -1)) lua_rawgeti(L, -1, (int)i + 1);
        else lua_pushnil(L);
        h->rc = set_upstream(L, gen, i);
        lua_pop(L, 1);
    }
}

/* ---- outside ------------------------------------------------------------------------------------------------ */

int claw_policy_prove_from(struct claw_generation *gen, struct claw_str source, struct claw_conf_problems *problems)
{
    struct boot b = {.source = source, .prove = true, .problems = problems};
    struct claw_policy_vm *p = NULL;
    char *why = NULL;
    size_t before = problems->n;
    int rc = boot(gen, &b, &p, &why);
    if (rc == CLAW_OK) {
        struct heads h = {p, CLAW_OK};
        struct claw_task_error e;
        rc = claw_task_call(p->vm, set_heads, &h, problems->arena, &e);
        if (rc == CLAW_OK) rc = h.rc;
        else why = strdup(e.message.ptr);
        claw_policy_vm_free(p);
    }
    if (rc != CLAW_OK && problems->n == before) claw_conf_problem_add(problems, gen->conf, "policies", "%s", why ? why : claw_err_text(rc));
    free(why);
    return rc == CLAW_OK ? CLAW_OK : CLAW_EINVAL;
}

int claw_policy_prove(struct claw_generation *gen, struct claw_conf_problems *problems)
{
    return claw_policy_prove_from(gen, (struct claw_str){NULL, 0}, problems);
}

/* Will claw.http.fetch, or what gets access tokens, need the system's root certificates? */
static bool needs_roots(const struct claw_generation *gen)
{
    const struct claw_policies *p = gen->policies;
    for (size_t i = 0; i < gen->conf->upstreams_n; i++)
        if (gen->upstreams[i].asks_token) return true;
    for (size_t i = 0; p && i < p->n; i++)
        if (claw_str_find(p->items[i].text, CLAW_STR("fetch")) >= 0) return true;
    return false;
}

/* They take tens of milliseconds to read, once a process: here, and not on a worker's loop when they are first needed. Without
 * roots fetch says so. */
static void read_roots(const struct claw_generation *gen)
{
    struct claw_tls_client *tls;
    char err[256];
    if (needs_roots(gen) && claw_tls_client_new(NULL, true, &tls, err, sizeof err) == CLAW_OK) claw_tls_client_unref(tls);
}

int claw_policy_vm_new_from(struct claw_generation *gen, struct claw_str source, struct claw_policy_vm **out, char **why)
{
    struct boot b = {.source = source};
    if (why) *why = NULL;
    read_roots(gen);
    return boot(gen, &b, out, why) == CLAW_OK ? CLAW_OK : CLAW_EINVAL;
}

int claw_policy_vm_new(struct claw_generation *gen, struct claw_policy_vm **out, char **why)
{
    return claw_policy_vm_new_from(gen, (struct claw_str){NULL, 0}, out, why);
}

void claw_policy_vm_free(struct claw_policy_vm *p)
{
    if (!p) return;
    CLAW_ASSERT(p->magic == CLAW_POLICY_MAGIC);
    claw_vm_free(p->vm);
    claw_buf_fini(&p->event_bytes);
    claw_arena_reset(&p->decided);
    struct claw_generation *gen = p->gen;
    p->magic = 0;
    free(p);
    claw_generation_unref(gen);
}

void claw_policy_vm_attach(struct claw_policy_vm *p, struct claw_worker_ctx *ctx, struct claw_generation_local *local)
{
    CLAW_ASSERT(p->magic == CLAW_POLICY_MAGIC);
    p->ctx = ctx;
    p->vm->ctx = ctx;
    p->vm->local = local;
}

size_t claw_policy_vm_bytes(const struct claw_policy_vm *p) { return p->vm->bytes; }
