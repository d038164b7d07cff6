#include "script/document.h"

#include <lauxlib.h>
#include <math.h>

static void check(lua_State *L, int rc)
{
    if (rc != CLAW_OK) luaL_error(L, "%s", claw_err_text(rc));
}

void claw_document_push(lua_State *L, const struct claw_document *like)
{
    struct claw_document *d = lua_newuserdata(L, sizeof *d);
    *d = *like;
    d->magic = CLAW_DOCUMENT_MAGIC;
    luaL_getmetatable(L, claw_document_type);
    lua_setmetatable(L, -2);
}

/* A child of the document. */
static int push_node(lua_State *L, const struct claw_document *parent, struct claw_json_node *n, int rc)
{
    check(L, rc);
    if (!n) {
        lua_pushnil(L);
        return 1;
    }
    enum claw_json_type type = claw_json_node_type(n);
    if (type != CLAW_JSON_ARRAY && type != CLAW_JSON_OBJECT) {
        claw_value_push(L, claw_json_node_value(n));
        return 1;
    }
    struct claw_document child = *parent;
    child.node = n;
    claw_document_push(L, &child);
    return 1;
}

static struct claw_document *check_array(lua_State *L, const char *what)
{
    struct claw_document *d = claw_document_check(L, 1);
    if (claw_json_node_type(d->node) != CLAW_JSON_ARRAY) luaL_error(L, "%s: not an array", what);
    return d;
}

static struct claw_document *check_writable(lua_State *L, struct claw_document *d)
{
    if (d->readonly) luaL_error(L, "this document is the original and read-only: change the hook's body argument");
    return d;
}

static size_t count(lua_State *L, const struct claw_document *d)
{
    int rc = CLAW_OK;
    size_t n = claw_json_node_count(d->node, &rc);
    check(L, rc);
    return n;
}

/* A 1-based index at stack index `arg` that may be up to `max`. */
static size_t check_index(lua_State *L, int arg, size_t max, const char *what)
{
    double i = luaL_checknumber(L, arg);
    if (!(i >= 1 && i <= (double)max) || floor(i) != i)
        luaL_error(L, "%s: there is no place %f in an array of %d", what, i, (int)max);
    return (size_t)i - 1;
}

/* The Lua value at `idx` as a node of d's document. */
static struct claw_json_node *make_node(lua_State *L, struct claw_document *d, int idx)
{
    struct claw_document *given = claw_document_test(L, idx);
    if (given) return claw_document_check(L, idx)->node; /* copied by whoever takes it */
    struct claw_buf *text = &claw_vm_of(L)->text;
    claw_buf_clear(text);
    claw_value_write(L, idx, text, CLAW_VALUE_DEPTH);
    struct claw_json_node *n = NULL;
    check(L, claw_json_node_new(d->doc, claw_buf_str(text), &n));
    return n;
}

/* ---- methods ------------------------------------------------------------------------------------------------ */

static int doc_type(lua_State *L)
{
    if (!claw_document_test(L, 1)) {
        luaL_checkany(L, 1);
        lua_pushstring(L, lua_islightuserdata(L, 1) && !lua_touserdata(L, 1) ? "null" : luaL_typename(L, 1));
        return 1;
    }
    switch (claw_json_node_type(claw_document_check(L, 1)->node)) {
    case CLAW_JSON_ARRAY: lua_pushliteral(L, "array"); return 1;
    case CLAW_JSON_OBJECT: lua_pushliteral(L, "object"); return 1;
    case CLAW_JSON_STRING: lua_pushliteral(L, "string"); return 1;
    case CLAW_JSON_NUMBER: lua_pushliteral(L, "number"); return 1;
    case CLAW_JSON_TRUE:
    case CLAW_JSON_FALSE: lua_pushliteral(L, "boolean"); return 1;
    case CLAW_JSON_NULL: lua_pushliteral(L, "null"); return 1;
    case CLAW_JSON_NONE: break;
    }
    lua_pushnil(L);
    return 1;
}

static int doc_table(lua_State *L)
{
    struct claw_document *d = claw_document_check(L, 1);
    struct claw_json_value v = claw_json_node_value(d->node);
    if (!v.raw.ptr) { /* changed: it has no text of its own yet */
        struct claw_buf *text = &claw_vm_of(L)->text;
        claw_buf_clear(text);
        check(L, claw_json_node_write(d->node, text));
        v = claw_json_value_of(claw_buf_str(text));
    }
    claw_value_push_table(L, v);
    return 1;
}

static int doc_insert(lua_State *L)
{
    lua_settop(L, 3);
    struct claw_document *d = check_writable(L, check_array(L, "insert"));
    size_t n = count(L, d);
    size_t at = lua_isnil(L, 2) ? n : check_index(L, 2, n + 1, "insert");
    if (lua_isnil(L, 3)) return luaL_error(L, "insert: nil is no JSON value (null is claw.json.null)");
    check(L, claw_json_node_insert(d->node, at, make_node(L, d, 3)));
    return 0;
}

static int doc_append(lua_State *L)
{
    lua_settop(L, 2);
    lua_pushnil(L);
    lua_insert(L, 2);
    return doc_insert(L);
}

static int doc_remove(lua_State *L)
{
    struct claw_document *d = check_writable(L, check_array(L, "remove"));
    check(L, claw_json_node_del_at(d->node, check_index(L, 2, count(L, d), "remove")));
    return 0;
}

static int each_next(lua_State *L)
{
    /* upvalues: the document, how many were given */
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    struct claw_document *d = claw_document_check(L, 1);
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));
    int rc = CLAW_OK;
    struct claw_str key = CLAW_STR("");
    bool object = claw_json_node_type(d->node) == CLAW_JSON_OBJECT;
    if ((size_t)i >= count(L, d)) return 0;
    struct claw_json_node *n = object ? claw_json_node_member(d->node, (size_t)i, &key, &rc)
                                      : claw_json_node_at(d->node, (size_t)i, &rc);
    check(L, rc);
    if (!n) return 0;
    lua_pushinteger(L, i + 1);
    lua_replace(L, lua_upvalueindex(2));
    if (object) lua_pushlstring(L, key.ptr, key.len);
    else lua_pushinteger(L, i + 1);
    return 1 + push_node(L, d, n, CLAW_OK);
}

static int doc_each(lua_State *L)
{
    claw_document_check(L, 1);
    lua_settop(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, each_next, 2);
    return 1;
}

static int doc_get(lua_State *L)
{
    struct claw_document *d = claw_document_check(L, 1);
    struct claw_str path;
    path.ptr = luaL_checklstring(L, 2, &path.len);
    struct claw_json_node *n = d->node;
    struct claw_value_step s;
    bool bad;
    int rc = CLAW_OK;
    while (n && rc == CLAW_OK && claw_value_next_step(&path, &s, &bad)) {
        if (s.kind == CLAW_PATH_EVERY) return luaL_error(L, "get: [*] stands for many values, a document has one each");
        if (s.kind == CLAW_PATH_KEY) {
            n = claw_json_node_get(n, s.key, &rc);
            continue;
        }
        long i = s.index < 0 ? s.index + (long)claw_json_node_count(n, &rc) : s.index;
        n = i < 0 || rc != CLAW_OK || claw_json_node_type(n) != CLAW_JSON_ARRAY ? NULL : claw_json_node_at(n, (size_t)i, &rc);
    }
    if (n && bad) return luaL_error(L, "get: \"%s\" is no path", lua_tostring(L, 2));
    return push_node(L, d, n, rc);
}

static const luaL_Reg methods[] = {
    {"type", doc_type}, {"table", doc_table}, {"insert", doc_insert}, {"append", doc_append},
    {"remove", doc_remove}, {"each", doc_each}, {"get", doc_get}, {NULL, NULL},
};

/* ---- metamethods -------------------------------------------------------------------------------------------- */

static bool is_object_method(const char *name)
{
    return strcmp(name, "table") == 0 || strcmp(name, "each") == 0 || strcmp(name, "get") == 0;
}

/* Upvalue 1: the methods. */
static int doc_index(lua_State *L)
{
    struct claw_document *d = claw_document_check(L, 1);
    enum claw_json_type type = claw_json_node_type(d->node);
    struct claw_json_node *n = NULL;
    int rc = CLAW_OK;
    if (lua_type(L, 2) == LUA_TNUMBER) {
        double i = lua_tonumber(L, 2);
        if (type == CLAW_JSON_ARRAY && i >= 1 && i <= (double)UINT32_MAX && floor(i) == i)
            n = claw_json_node_at(d->node, (size_t)i - 1, &rc);
        return push_node(L, d, n, rc);
    }
    if (lua_type(L, 2) != LUA_TSTRING) return lua_pushnil(L), 1;
    struct claw_str key;
    key.ptr = lua_tolstring(L, 2, &key.len);
    if (type == CLAW_JSON_OBJECT) n = claw_json_node_get(d->node, key, &rc);
    if (n || rc != CLAW_OK) return push_node(L, d, n, rc);
    if (type == CLAW_JSON_OBJECT && !is_object_method(key.ptr)) return lua_pushnil(L), 1;
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
}

static void set_element(lua_State *L, struct claw_document *d)
{
    if (lua_type(L, 2) != LUA_TNUMBER)
        luaL_error(L, "an array has no field \"%s\"", lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2));
    size_t n = count(L, d);
    bool removing = lua_isnil(L, 3);
    size_t i = check_index(L, 2, n + !removing, "assignment");
    if (removing && i + 1 != n)
        luaL_error(L, "only the last element can be removed by assigning nil; use doc:remove(%d)", (int)i + 1);
    if (removing) check(L, claw_json_node_del_at(d->node, i));
    else if (i == n) check(L, claw_json_node_insert(d->node, n, make_node(L, d, 3)));
    else check(L, claw_json_node_set_at(d->node, i, make_node(L, d, 3)));
}

static int doc_newindex(lua_State *L)
{
    struct claw_document *d = check_writable(L, claw_document_check(L, 1));
    switch (claw_json_node_type(d->node)) {
    case CLAW_JSON_ARRAY: set_element(L, d); return 0;
    case CLAW_JSON_OBJECT: break;
    default: return luaL_error(L, "not an object or array");
    }
    if (lua_type(L, 2) != LUA_TSTRING) return luaL_error(L, "an object's key must be a string, not a %s", luaL_typename(L, 2));
    struct claw_str key;
    key.ptr = lua_tolstring(L, 2, &key.len);
    if (lua_isnil(L, 3)) check(L, claw_json_node_del(d->node, key));
    else check(L, claw_json_node_set(d->node, key, make_node(L, d, 3)));
    return 0;
}

static int doc_len(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)count(L, claw_document_check(L, 1)));
    return 1;
}

static int doc_tostring(lua_State *L)
{
    struct claw_document *d = claw_document_check(L, 1);
    struct claw_buf *text = &claw_vm_of(L)->text;
    claw_buf_clear(text);
    check(L, claw_json_node_write(d->node, text));
    struct claw_str s = claw_buf_str(text);
    lua_pushlstring(L, s.ptr, s.len);
    return 1;
}

static int doc_eq(lua_State *L)
{
    struct claw_document *a = claw_document_test(L, 1), *b = claw_document_test(L, 2);
    lua_pushboolean(L, a && b && a->node == b->node);
    return 1;
}

void claw_document_register(lua_State *L)
{
    static const luaL_Reg meta[] = {
        {"__newindex", doc_newindex}, {"__len", doc_len}, {"__tostring", doc_tostring}, {"__eq", doc_eq}, {NULL, NULL},
    };
    luaL_newmetatable(L, claw_document_type);
    for (const luaL_Reg *m = meta; m->name; m++) {
        lua_pushcfunction(L, m->func);
        lua_setfield(L, -2, m->name);
    }
    claw_document_push_functions(L);
    lua_pushcclosure(L, doc_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "claw.document");
    lua_setfield(L, -2, "__metatable"); /* getmetatable says this; setmetatable is refused */
    lua_pop(L, 1);
}

void claw_document_push_functions(lua_State *L)
{
    lua_newtable(L);
    for (const luaL_Reg *m = methods; m->name; m++) {
        lua_pushcfunction(L, m->func);
        lua_setfield(L, -2, m->name);
    }
}
