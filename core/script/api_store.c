#include "script/api.h"

#include "proxy/store.h"

#include <lauxlib.h>
#include <math.h>

/* claw.store of one policy: the functions' upvalue is its name, which is the space its keys live in. */

#define OWN_BYTES (1u << 20)
#define TTL_MAX 1e12 /* 31 years */

struct ask {
    const char *name; /* of the function, in errors */
    struct claw_store *store;
    struct claw_store_key key;
    uint64_t now_ms, ttl_ms;
};

static struct claw_store *store_of(lua_State *L, const char *name)
{
    struct claw_vm *vm = claw_vm_of(L);
    if (vm->store) return vm->store;
    if (!vm->own_store) vm->own_store = claw_store_new(OWN_BYTES);
    if (!vm->own_store) luaL_error(L, "claw.store.%s: out of memory", name);
    return vm->own_store;
}

static void read_options(lua_State *L, struct ask *a, int idx, bool ttl)
{
    if (lua_isnoneornil(L, idx)) return;
    if (!lua_istable(L, idx)) luaL_error(L, "claw.store.%s: options are a table, not a %s", a->name, luaL_typename(L, idx));
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        if (strcmp(key, "shared") == 0) {
            if (!lua_isboolean(L, -1)) luaL_error(L, "claw.store.%s: shared is true or false, not a %s", a->name, luaL_typename(L, -1));
            if (lua_toboolean(L, -1)) a->key.space = CLAW_STR("");
        } else if (ttl && strcmp(key, "ttl_ms") == 0) {
            double ms = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
            if (!(ms >= 1 && ms <= TTL_MAX && floor(ms) == ms)) luaL_error(L, "claw.store.%s: ttl_ms is a whole number from 1 to 1e12", a->name);
            a->ttl_ms = (uint64_t)ms;
        } else {
            luaL_error(L, "claw.store.%s: unknown option %s (%s)", a->name, *key ? key : luaL_typename(L, -2), ttl ? "ttl_ms, shared" : "shared");
        }
    }
}

/* The key at 1 and the options at `options`. */
static struct ask read_ask(lua_State *L, const char *name, int options, bool ttl)
{
    struct ask a = {.name = name};
    lua_settop(L, options);
    if (lua_type(L, 1) != LUA_TSTRING) luaL_error(L, "claw.store.%s: a key is a string, not a %s", name, luaL_typename(L, 1));
    a.key.name.ptr = lua_tolstring(L, 1, &a.key.name.len);
    a.key.space.ptr = lua_tolstring(L, lua_upvalueindex(1), &a.key.space.len);
    read_options(L, &a, options, ttl);
    a.store = store_of(L, name);
    a.now_ms = claw_loop_clock_us() / 1000;
    return a;
}

static struct claw_store_value read_value(lua_State *L, const struct ask *a, int idx)
{
    struct claw_store_value v = {.kind = CLAW_STORE_NUMBER};
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER:
        v.number = lua_tonumber(L, idx);
        if (isnan(v.number)) luaL_error(L, "claw.store.%s: a value is a number, not NaN", a->name);
        return v;
    case LUA_TBOOLEAN:
        v.kind = CLAW_STORE_TRUTH;
        v.truth = lua_toboolean(L, idx);
        return v;
    case LUA_TSTRING:
        v.kind = CLAW_STORE_TEXT;
        v.text.ptr = lua_tolstring(L, idx, &v.text.len);
        return v;
    default:
        luaL_error(L, "claw.store.%s: a value is a string, a number or a boolean, not a %s", a->name, luaL_typename(L, idx));
        __builtin_unreachable();
    }
}

/* nil, message, code. */
static int push_failure(lua_State *L, enum claw_store_result rc)
{
    static const struct { const char *text, *code; } said[] = {
        [CLAW_STORE_TOO_LARGE] = {"a key may have 256 bytes, a value 64 KB", "ETOO_LARGE"},
        [CLAW_STORE_RANGE] = {"the sum would not be exact: it reaches 2^53", "ERANGE"},
        [CLAW_STORE_KIND] = {"what is there is no whole number", "EINVAL"},
        [CLAW_STORE_NO_MEMORY] = {"out of memory", "ENOMEM"},
    };
    lua_pushnil(L);
    lua_pushstring(L, said[rc].text);
    lua_pushstring(L, said[rc].code);
    return 3;
}

static int push_truth(lua_State *L, enum claw_store_result rc)
{
    if (rc != CLAW_STORE_OK && rc != CLAW_STORE_NOT) return push_failure(L, rc);
    lua_pushboolean(L, rc == CLAW_STORE_OK);
    return 1;
}

static int store_get(lua_State *L)
{
    struct ask a = read_ask(L, "get", 2, false);
    struct claw_store_value v;
    enum claw_store_result rc = claw_store_get(a.store, a.key, a.now_ms, &claw_vm_of(L)->text, &v);
    if (rc == CLAW_STORE_NOT) lua_pushnil(L);
    else if (rc != CLAW_STORE_OK) return push_failure(L, rc);
    else if (v.kind == CLAW_STORE_NUMBER) lua_pushnumber(L, v.number);
    else if (v.kind == CLAW_STORE_TRUTH) lua_pushboolean(L, v.truth);
    else lua_pushlstring(L, v.text.ptr, v.text.len);
    return 1;
}

static int store_set(lua_State *L)
{
    struct ask a = read_ask(L, "set", 3, true);
    struct claw_store_value v = read_value(L, &a, 2);
    return push_truth(L, claw_store_set(a.store, a.key, &v, a.ttl_ms, a.now_ms));
}

static int store_add(lua_State *L)
{
    struct ask a = read_ask(L, "add", 3, true);
    struct claw_store_value v = read_value(L, &a, 2);
    return push_truth(L, claw_store_add(a.store, a.key, &v, a.ttl_ms, a.now_ms));
}

static int store_incr(lua_State *L)
{
    struct ask a = read_ask(L, "incr", 3, true);
    double by = lua_type(L, 2) == LUA_TNUMBER ? lua_tonumber(L, 2) : 1, sum;
    if ((!lua_isnil(L, 2) && lua_type(L, 2) != LUA_TNUMBER) || floor(by) != by)
        luaL_error(L, "claw.store.incr: wants a whole number, not %s", lua_type(L, 2) == LUA_TNUMBER ? lua_tostring(L, 2) : luaL_typename(L, 2));
    enum claw_store_result rc = claw_store_incr(a.store, a.key, by, a.ttl_ms, a.now_ms, &sum);
    if (rc != CLAW_STORE_OK) return push_failure(L, rc);
    lua_pushnumber(L, sum);
    return 1;
}

static int store_cas(lua_State *L)
{
    struct ask a = read_ask(L, "cas", 4, true);
    struct claw_store_value v = read_value(L, &a, 3), old;
    if (!lua_isnil(L, 2)) old = read_value(L, &a, 2);
    return push_truth(L, claw_store_cas(a.store, a.key, lua_isnil(L, 2) ? NULL : &old, &v, a.ttl_ms, a.now_ms));
}

static int store_delete(lua_State *L)
{
    struct ask a = read_ask(L, "delete", 2, false);
    return push_truth(L, claw_store_delete(a.store, a.key, a.now_ms));
}

static int core_store(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"get", store_get}, {"set", store_set}, {"add", store_add}, {"incr", store_incr}, {"cas", store_cas}, {"delete", store_delete}, {NULL, NULL},
    };
    luaL_checktype(L, 1, LUA_TSTRING);
    lua_createtable(L, 0, 6);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushvalue(L, 1);
        lua_pushcclosure(L, f->func, 1);
        lua_setfield(L, -2, f->name);
    }
    return 1;
}

void claw_api_push_store(lua_State *L) { lua_pushcfunction(L, core_store); }
