#include "script/api.h"

#include "proxy/commit.h"
#include "script/pattern.h"

#include <lauxlib.h>
#include <stdlib.h>

/* One userdata type for req and the objects inside of it: `slot` says which one it is. */
struct view {
    uint64_t magic;            /* tells it from other userdata: cheaper than its metatable, and asked for at every field */
    struct claw_api_handle *h; /* lent to another request, or none, once this one's is over */
    uint64_t serial;           /* of the request */
    enum claw_api_slot slot;
};

#define VIEW_MAGIC 0x636c61772e726571u
static const char view_type[] = "claw.req";
static const char *const slot_names[] = {
    [CLAW_API_REQ] = "req", [CLAW_API_CLIENT] = "req.client", [CLAW_API_CLIENT_HEADERS] = "req.client.headers",
    [CLAW_API_UPSTREAM] = "req.upstream", [CLAW_API_UPSTREAM_HEADERS] = "req.upstream.headers",
    [CLAW_API_REPLY] = "req.answer", [CLAW_API_REPLY_HEADERS] = "req.answer.headers",
};

static struct claw_req *check_alive(lua_State *L, const struct view *v)
{
    if (__builtin_expect(v->h->life.serial != v->serial, 0))
        luaL_error(L, "the request is over: %s cannot be used any more", slot_names[v->slot]);
    CLAW_ASSERT(v->h->r->serial == v->serial);
    return v->h->r;
}

/* In a metamethod, or an upvalue of ours: there it is one. */
static const struct view *own_view(lua_State *L, int idx)
{
    const struct view *v = lua_touserdata(L, idx);
    CLAW_ASSERT(v && v->magic == VIEW_MAGIC);
    return v;
}

struct claw_req *claw_api_check_req(lua_State *L, int idx)
{
    const struct view *v = lua_touserdata(L, idx); /* asked first: lua_objlen turns a number into a string */
    if (v && lua_islightuserdata(L, idx)) return lua_touserdata(L, idx);
    if (!v || lua_objlen(L, idx) != sizeof *v || v->magic != VIEW_MAGIC) luaL_typerror(L, idx, view_type);
    return check_alive(L, v);
}

/* ---- the request's objects ---------------------------------------------------------------------------------- */

static void push_view(lua_State *L, struct claw_req *r, struct claw_api_handle *h, enum claw_api_slot slot)
{
    struct view *v = lua_newuserdata(L, sizeof *v);
    *v = (struct view){.magic = VIEW_MAGIC, .h = h, .serial = r->serial, .slot = slot};
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->vm->req_meta);
    lua_setmetatable(L, -2);
}

/* Pop a value, never nil: a hole in the registry would be given to others. */
static void hold(lua_State *L, struct claw_api_handle *h, enum claw_api_slot slot)
{
    lua_rawseti(L, LUA_REGISTRYINDEX, h->ref[slot]);
    h->held |= 1u << slot;
}

/* Never raises: the place is there. */
static void let_go(lua_State *L, struct claw_api_handle *h, enum claw_api_slot slot)
{
    if (!(h->held & (1u << slot))) return;
    lua_pushboolean(L, 0);
    lua_rawseti(L, LUA_REGISTRYINDEX, h->ref[slot]);
    h->held &= ~(1u << slot);
}

/* One that no request has, with all its places. */
static struct claw_api_handle *free_handle(lua_State *L, struct claw_vm *vm)
{
    struct claw_api_handle *h = vm->handles;
    if (!h) {
        if (!(h = calloc(1, sizeof *h))) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
        h->vm = vm;
        h->block.next = vm->blocks;
        vm->blocks = &h->block;
        vm->handles = h;
    }
    while (h->refs_n < CLAW_API_SLOTS) {
        lua_pushboolean(L, 0);
        h->ref[h->refs_n] = luaL_ref(L, LUA_REGISTRYINDEX);
        h->refs_n++;
    }
    return h;
}

struct claw_api_handle *claw_api_handle_of(lua_State *L, struct claw_req *r)
{
    struct claw_api_handle *h = r->handle;
    if (h) return h;
    luaL_checkstack(L, 8, NULL);
    h = free_handle(L, claw_vm_of(L));
    push_view(L, r, h, CLAW_API_REQ);
    /* Nothing can raise any more: from here on release finds it. */
    h->vm->handles = h->next;
    hold(L, h, CLAW_API_REQ);
    h->r = r;
    h->life = (struct claw_life){.serial = r->serial, .body = &r->body};
    h->attempt = h->answer_doc = NULL;
    h->answer = (struct claw_str){NULL, 0};
    h->estimated = false;
    h->out = NULL;
    h->family = (struct claw_family){.vm = h->vm, .req = r};
    r->handle = h;
    return h;
}

/* What a policy kept of them goes back to asking whether its request is over. Never raises. */
static void end_direct(lua_State *L, struct claw_api_handle *h)
{
    static const enum claw_api_slot slots[] = {CLAW_API_REQ, CLAW_API_CLIENT};
    h->direct = false;
    for (int i = 0; i < 2; i++) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, h->ref[slots[i]]);
        lua_rawgeti(L, LUA_REGISTRYINDEX, h->vm->req_meta);
        lua_setmetatable(L, -2);
        lua_pop(L, 1);
    }
}

void claw_api_release(struct claw_req *r)
{
    struct claw_api_handle *h = r->handle;
    if (!h) return;
    claw_task_drop_all(&h->family);
    if (h->direct) end_direct(h->vm->L, h);
    h->life.serial = 0;
    h->r = NULL;
    for (int slot = 0; h->held; slot++) let_go(h->vm->L, h, (enum claw_api_slot)slot);
    h->next = h->vm->handles;
    h->vm->handles = h;
    r->handle = NULL;
}

static void push_original(lua_State *L, struct claw_req *r, struct claw_api_handle *h);
static int call_header(lua_State *L);

/* What the slot holds at first. */
static void make_slot(lua_State *L, struct claw_req *r, struct claw_api_handle *h, enum claw_api_slot slot)
{
    switch (slot) {
    case CLAW_API_CLIENT:
    case CLAW_API_CLIENT_HEADERS:
    case CLAW_API_UPSTREAM:
    case CLAW_API_UPSTREAM_HEADERS:
    case CLAW_API_REPLY:
    case CLAW_API_REPLY_HEADERS: push_view(L, r, h, slot); return;
    case CLAW_API_CTX: lua_newtable(L); return;
    case CLAW_API_HEADER_FN:
        lua_rawgeti(L, LUA_REGISTRYINDEX, h->ref[CLAW_API_REQ]);
        lua_pushcclosure(L, call_header, 1);
        return;
    case CLAW_API_BODY: push_original(L, r, h); return;
    case CLAW_API_REQ:
    case CLAW_API_ATTEMPT:
    case CLAW_API_ANSWER:
    case CLAW_API_SLOTS: break;
    }
    lua_pushnil(L);
}

/* Takes up to 6 places of the stack: within what each C function has. */
static void push_slot(lua_State *L, struct claw_api_handle *h, enum claw_api_slot slot)
{
    if (__builtin_expect(h->held & (1u << slot), 1)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, h->ref[slot]);
        return;
    }
    make_slot(L, h->r, h, slot);
    if (lua_isnil(L, -1)) return;
    lua_pushvalue(L, -1);
    hold(L, h, slot);
}

void claw_api_push(lua_State *L, struct claw_req *r, enum claw_api_slot slot)
{
    push_slot(L, claw_api_handle_of(L, r), slot);
}

void claw_api_set(lua_State *L, struct claw_req *r, enum claw_api_slot slot)
{
    hold(L, claw_api_handle_of(L, r), slot);
}

/* ---- bodies ------------------------------------------------------------------------------------------------- */

/* A document over `text`; false: it is no JSON. */
static bool make_doc(lua_State *L, struct claw_req *r, struct claw_str text, struct claw_json_doc **out)
{
    struct claw_json_err err;
    int rc = claw_json_doc_new(&r->arena, text, out, &err);
    if (rc == CLAW_EBAD_JSON) return false;
    if (rc != CLAW_OK) luaL_error(L, "%s", claw_err_text(rc));
    return true;
}

static void push_doc(lua_State *L, struct claw_api_handle *h, struct claw_json_doc *doc, bool answer, bool readonly)
{
    claw_document_push(L, &(struct claw_document){.life = &h->life, .serial = h->life.serial, .base = answer ? NULL : h->r->body.data,
                                                  .answer = answer ? h->life.answer : 0, .doc = doc, .node = claw_json_doc_root(doc), .readonly = readonly});
}

static void push_original(lua_State *L, struct claw_req *r, struct claw_api_handle *h)
{
    struct claw_json_doc *doc;
    if (r->has_json && make_doc(L, r, claw_buf_str(&r->body), &doc)) push_doc(L, h, doc, false, true);
    else lua_pushnil(L);
}

/* The model this attempt sends stands in the body before a hook sees it. */
static void set_model(lua_State *L, struct claw_req *r, struct claw_json_doc *doc)
{
    struct claw_json_node *root = claw_json_doc_root(doc), *n;
    if (r->candidate >= r->candidates_n || claw_json_node_type(root) != CLAW_JSON_OBJECT) return;
    if (claw_dialect_is_gemini((enum claw_dialect)r->dialect)) return; /* it goes into the path */
    struct claw_str model = r->candidates[r->candidate].model;
    if (model.len == 0) return;
    struct claw_buf *text = &claw_vm_of(L)->text;
    claw_buf_clear(text);
    int rc = claw_buf_add_json(text, model);
    if (rc == CLAW_OK) rc = claw_json_node_new(doc, claw_buf_str(text), &n);
    if (rc == CLAW_OK) rc = claw_json_node_set(root, CLAW_STR("model"), n);
    if (rc != CLAW_OK) luaL_error(L, "%s", claw_err_text(rc));
}

void claw_api_push_body(lua_State *L, struct claw_req *r)
{
    struct claw_json_doc *doc;
    luaL_checkstack(L, 8, NULL);
    struct claw_api_handle *h = claw_api_handle_of(L, r);
    if (h->held & (1u << CLAW_API_ATTEMPT) || !r->has_json || !make_doc(L, r, claw_buf_str(&r->body), &doc)) {
        push_slot(L, h, CLAW_API_ATTEMPT);
        return;
    }
    set_model(L, r, doc);
    push_doc(L, h, doc, false, false);
    lua_pushvalue(L, -1);
    hold(L, h, CLAW_API_ATTEMPT);
    h->attempt = doc;
}

void claw_api_push_parsed(lua_State *L, struct claw_req *r, struct claw_str text)
{
    struct claw_json_doc *doc;
    luaL_checkstack(L, 8, NULL);
    char *copy = claw_arena_dup(&r->arena, text.ptr, text.len);
    if (!copy) luaL_error(L, "%s", claw_err_text(CLAW_EREQ_MEM));
    struct claw_api_handle *h = claw_api_handle_of(L, r);
    bool good = make_doc(L, r, (struct claw_str){copy, text.len}, &doc);
    enum claw_json_type type = good ? claw_json_node_type(claw_json_doc_root(doc)) : CLAW_JSON_NONE;
    if (type == CLAW_JSON_OBJECT || type == CLAW_JSON_ARRAY) push_doc(L, h, doc, false, false);
    else lua_pushnil(L);
}

void claw_api_push_twin(lua_State *L, struct claw_req *r, int idx)
{
    struct claw_buf *text = &claw_vm_of(L)->text;
    luaL_checkstack(L, 8, NULL);
    claw_buf_clear(text);
    claw_value_write(L, idx, text, CLAW_VALUE_DEPTH);
    claw_api_push_parsed(L, r, claw_buf_str(text));
}

void claw_api_begin_attempt(lua_State *L, struct claw_req *r)
{
    struct claw_api_handle *h = claw_api_handle_of(L, r);
    let_go(L, h, CLAW_API_ATTEMPT);
    h->attempt = NULL;
}

static void free_out(void *arg) { claw_buf_fini(arg); }

void claw_api_begin_answer(lua_State *L, struct claw_req *r, struct claw_str body)
{
    struct claw_api_handle *h = claw_api_handle_of(L, r);
    if (!h->out) {
        struct claw_buf *out = claw_arena_zalloc(&r->arena, sizeof *out);
        if (!out || claw_arena_defer(&r->arena, free_out, out) != CLAW_OK) luaL_error(L, "%s", claw_err_text(CLAW_EREQ_MEM));
        claw_buf_init(out, 0);
        h->out = out;
    }
    let_go(L, h, CLAW_API_ANSWER);
    h->answer = body;
    h->answer_doc = NULL;
    h->life.answer++;
}

void claw_api_end_answer(struct claw_req *r)
{
    struct claw_api_handle *h = r->handle;
    if (!h || !h->answer.ptr) return;
    h->answer = (struct claw_str){NULL, 0};
    h->answer_doc = NULL;
    h->life.answer++;
}

void claw_api_push_answer(lua_State *L, struct claw_req *r)
{
    struct claw_json_doc *doc;
    luaL_checkstack(L, 8, NULL);
    struct claw_api_handle *h = claw_api_handle_of(L, r);
    if (h->held & (1u << CLAW_API_ANSWER) || !h->answer.ptr) {
        push_slot(L, h, CLAW_API_ANSWER);
        return;
    }
    if (make_doc(L, r, h->answer, &doc)) {
        push_doc(L, h, doc, true, false);
        h->answer_doc = doc;
    } else {
        lua_pushlstring(L, h->answer.ptr, h->answer.len);
    }
    lua_pushvalue(L, -1);
    hold(L, h, CLAW_API_ANSWER);
}

/* ---- fields ------------------------------------------------------------------------------------------------- */

static void push_str(lua_State *L, struct claw_str s) { lua_pushlstring(L, s.ptr ? s.ptr : "", s.len); }

static void push_str_or_nil(lua_State *L, struct claw_str s)
{
    if (s.len) push_str(L, s);
    else lua_pushnil(L);
}

static void set_number(lua_State *L, const char *key, double n)
{
    lua_pushnumber(L, n);
    lua_setfield(L, -2, key);
}

static void push_attempts(lua_State *L, const struct claw_req *r)
{
    const struct claw_conf *conf = claw_req_conf(r);
    unsigned n = r->attempts_n < CLAW_ATTEMPTS_MAX ? r->attempts_n : CLAW_ATTEMPTS_MAX;
    lua_createtable(L, (int)n, 0);
    for (unsigned i = 0; i < n; i++) {
        const struct claw_attempt *a = &r->attempts[i];
        lua_createtable(L, 0, 4);
        if (a->upstream < conf->upstreams_n) push_str(L, conf->upstreams[a->upstream].name);
        else lua_pushnil(L);
        lua_setfield(L, -2, "upstream");
        if (a->status) set_number(L, "status", a->status);
        if (a->kind) {
            lua_pushstring(L, a->kind);
            lua_setfield(L, -2, "kind");
        }
        if (a->end_us >= a->start_us) set_number(L, "ms", (a->end_us - a->start_us) / 1000.0);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static void push_usage(lua_State *L, const struct claw_req *r)
{
    const struct claw_usage *u = &r->usage;
    if (u->input < 0 && u->output < 0 && u->cached < 0 && u->reasoning < 0 && u->written < 0) {
        lua_pushnil(L);
        return;
    }
    lua_createtable(L, 0, 4);
    if (u->input >= 0) set_number(L, "input", (double)u->input);
    if (u->output >= 0) set_number(L, "output", (double)u->output);
    if (u->cached >= 0) set_number(L, "cached", (double)u->cached);
    if (u->written >= 0) set_number(L, "cache_write", (double)u->written);
    if (u->reasoning >= 0) set_number(L, "reasoning", (double)u->reasoning);
    if (!r->estimated) return;
    lua_pushboolean(L, true);
    lua_setfield(L, -2, "estimated");
}

enum field {
    F_ID = 1, F_METHOD, F_PATH, F_QUERY, F_MODEL, F_STREAM, F_ROUTE, F_STATUS, F_CLIENT, F_BODY, F_UPSTREAM, F_ATTEMPTS,
    F_USAGE, F_COST, F_CTX, F_ELAPSED, F_IP, F_HEADERS, F_HEADER, F_NAME, F_URL, F_DIALECT, F_ANSWER,
    F_TIER, F_METADATA, F_STREAM_STATE, F_COMMIT,
};
static const struct { const char *name; enum field field; } fields[] = {
    {"id", F_ID}, {"method", F_METHOD}, {"path", F_PATH}, {"query", F_QUERY}, {"model", F_MODEL}, {"stream", F_STREAM},
    {"route", F_ROUTE}, {"status", F_STATUS}, {"client", F_CLIENT}, {"body", F_BODY}, {"upstream", F_UPSTREAM},
    {"attempts", F_ATTEMPTS}, {"usage", F_USAGE}, {"cost_micros", F_COST}, {"ctx", F_CTX}, {"elapsed_ms", F_ELAPSED},
    {"ip", F_IP}, {"headers", F_HEADERS}, {"header", F_HEADER}, {"name", F_NAME}, {"url", F_URL}, {"dialect", F_DIALECT},
    {"answer", F_ANSWER}, {"tier", F_TIER}, {"metadata", F_METADATA},
    {"stream_state", F_STREAM_STATE}, {"commit", F_COMMIT},
};

static void push_req_field(lua_State *L, struct claw_req *r, enum field f)
{
    static const struct claw_head no_head;
    const struct claw_head *head = r->head ? r->head : &no_head;
    switch (f) {
    case F_ID: lua_pushstring(L, r->id); return;
    case F_METHOD: push_str(L, head->method); return;
    case F_PATH: push_str(L, head->path); return;
    case F_QUERY: push_str(L, head->query); return;
    case F_MODEL: push_str_or_nil(L, r->model); return;
    case F_DIALECT: push_str_or_nil(L, claw_str_of(claw_dialect_name((enum claw_dialect)r->dialect))); return;
    case F_STREAM: lua_pushboolean(L, r->stream); return;
    case F_STREAM_STATE: lua_pushstring(L, claw_commit_state(r)); return;
    case F_ROUTE: push_str_or_nil(L, claw_req_route_id(r)); return;
    case F_STATUS:
        if (r->status) lua_pushinteger(L, r->status);
        else lua_pushnil(L);
        return;
    case F_CLIENT: push_slot(L, r->handle, CLAW_API_CLIENT); return;
    case F_BODY: push_slot(L, r->handle, CLAW_API_BODY); return;
    case F_UPSTREAM:
        if (claw_req_upstream(r)) push_slot(L, r->handle, CLAW_API_UPSTREAM);
        else lua_pushnil(L);
        return;
    case F_ANSWER: push_slot(L, r->handle, CLAW_API_REPLY); return;
    case F_ATTEMPTS: push_attempts(L, r); return;
    case F_USAGE: push_usage(L, r); return;
    case F_COST:
        if (r->cost_micros >= 0) lua_pushnumber(L, (double)r->cost_micros);
        else lua_pushnil(L);
        return;
    case F_CTX: push_slot(L, r->handle, CLAW_API_CTX); return;
    case F_ELAPSED: lua_pushnumber(L, claw_req_elapsed_us(r) / 1000.0); return;
    default: lua_pushnil(L); return;
    }
}

static void push_client_field(lua_State *L, struct claw_req *r, enum field f)
{
    switch (f) {
    case F_IP: lua_pushstring(L, r->peer); return;
    case F_NAME: push_str_or_nil(L, r->caller ? r->caller->name : CLAW_STR("")); return;
    case F_TIER: push_str_or_nil(L, r->caller ? r->caller->tier : CLAW_STR("")); return;
    case F_METADATA: claw_value_push_conf(L, r->caller ? claw_conf_get(r->caller->node, "metadata") : NULL); return;
    case F_HEADERS: push_slot(L, r->handle, CLAW_API_CLIENT_HEADERS); return;
    case F_HEADER: push_slot(L, r->handle, CLAW_API_HEADER_FN); return;
    default: lua_pushnil(L); return;
    }
}

static void push_upstream_field(lua_State *L, struct claw_req *r, enum field f)
{
    const struct claw_generation_upstream *u = claw_req_upstream(r);
    switch (u ? f : 0) {
    case F_NAME: push_str(L, u->conf->name); return;
    case F_URL: push_str(L, u->conf->url.text); return;
    case F_MODEL: push_str_or_nil(L, claw_req_sent_model(r)); return;
    case F_PATH: push_str(L, r->out_path.len || !r->head ? r->out_path : r->head->path); return;
    case F_COMMIT: claw_api_push_commit(L, r); return;
    case F_HEADERS: push_slot(L, r->handle, CLAW_API_UPSTREAM_HEADERS); return;
    default: lua_pushnil(L); return;
    }
}

/* What a policy set; the rest is the proxy's business, keys above all. */
static void push_set_header(lua_State *L, const struct claw_conf_header *list, size_t n, struct claw_str name)
{
    for (size_t i = 0; i < n; i++) {
        if (!claw_str_ieq(list[i].name, name)) continue;
        if (list[i].value.ptr) push_str(L, list[i].value);
        else lua_pushnil(L);
        return;
    }
    lua_pushnil(L);
}

static size_t place_of(const char *name) { return (size_t)(((uintptr_t)name * 0x9e3779b97f4a7c15u) >> 32); }

/* Strings are interned, so a field's name is known by its address: the VM keeps those that are fields. */
static enum field field_of(const struct claw_vm *vm, const char *name)
{
    for (size_t i = place_of(name);; i++) {
        const struct claw_vm_name *n = &vm->names[i % CLAW_VM_NAMES];
        if (n->ptr == name || !n->ptr) return (enum field)n->value;
    }
}

static int view_index(lua_State *L)
{
    const struct view *v = own_view(L, 1);
    struct claw_req *r = check_alive(L, v);
    struct claw_str key;
    key.ptr = lua_tolstring(L, 2, &key.len);
    if (!key.ptr) return lua_pushnil(L), 1;
    if (v->slot == CLAW_API_CLIENT_HEADERS) return claw_api_push_header(L, r, key), 1;
    if (v->slot == CLAW_API_UPSTREAM_HEADERS) return push_set_header(L, r->out_headers, r->out_headers_n, key), 1;
    if (v->slot == CLAW_API_REPLY_HEADERS) return push_set_header(L, r->answer_headers, r->answer_headers_n, key), 1;
    enum field f = field_of(v->h->vm, key.ptr);
    if (v->slot == CLAW_API_REQ) push_req_field(L, r, f);
    else if (v->slot == CLAW_API_CLIENT) push_client_field(L, r, f);
    else if (v->slot == CLAW_API_REPLY && f == F_HEADERS) push_slot(L, r->handle, CLAW_API_REPLY_HEADERS);
    else if (v->slot == CLAW_API_REPLY) lua_pushnil(L);
    else push_upstream_field(L, r, f);
    return 1;
}

/* req.client.header("x"), and req.client:header("x") for those used to methods. */
static int call_header(lua_State *L)
{
    struct claw_req *r = check_alive(L, own_view(L, lua_upvalueindex(1)));
    struct claw_str name;
    name.ptr = lua_tolstring(L, 1, &name.len);
    if (!name.ptr) name.ptr = luaL_checklstring(L, lua_type(L, 1) == LUA_TUSERDATA ? 2 : 1, &name.len);
    claw_api_push_header(L, r, name);
    return 1;
}

/* ---- req for many ------------------------------------------------------------------------------------------- */

/* Not many: they stay as long as the VM. */
#define DIRECTS_MAX 64

/* What the fields' table does not hold. Upvalues: the handle, whether it is req.client. */
static int direct_index(lua_State *L)
{
    const struct claw_api_handle *h = lua_touserdata(L, lua_upvalueindex(1));
    CLAW_ASSERT(h->direct && h->r);
    const char *key = lua_tostring(L, 2);
    if (!key) return lua_pushnil(L), 1;
    enum field f = field_of(h->vm, key);
    if (lua_toboolean(L, lua_upvalueindex(2))) push_client_field(L, h->r, f);
    else push_req_field(L, h->r, f);
    return 1;
}

static int view_newindex(lua_State *L);
static int view_tostring(lua_State *L);

/* Two metatables, whose __index is a table with a metatable of its own. */
static void make_direct(lua_State *L, struct claw_api_handle *h)
{
    for (int i = 0; i < 2; i++) {
        lua_createtable(L, 0, 4);
        lua_createtable(L, 0, 1);
        lua_createtable(L, 0, 1);
        lua_pushlightuserdata(L, h);
        lua_pushboolean(L, i == 1);
        lua_pushcclosure(L, direct_index, 2);
        lua_setfield(L, -2, "__index");
        lua_setmetatable(L, -2);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "__index");
        h->direct_fields[i] = luaL_ref(L, LUA_REGISTRYINDEX);
        lua_pushcfunction(L, view_newindex);
        lua_setfield(L, -2, "__newindex");
        lua_pushcfunction(L, view_tostring);
        lua_setfield(L, -2, "__tostring");
        lua_pushliteral(L, "claw.req");
        lua_setfield(L, -2, "__metatable");
        h->direct_meta[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    h->has_direct = true;
    h->vm->directs++;
}

/* Always set before anybody can look: what stood there was an earlier request's. */
static void set_direct(lua_State *L, struct claw_api_handle *h, int i, const char *field, enum claw_api_slot slot)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->direct_fields[i]);
    push_slot(L, h, slot);
    lua_setfield(L, -2, field);
    lua_pop(L, 1);
}

void claw_api_push_direct(lua_State *L, struct claw_req *r)
{
    struct claw_api_handle *h = claw_api_handle_of(L, r);
    if (!h->direct && (h->has_direct || h->vm->directs < DIRECTS_MAX)) {
        if (!h->has_direct) make_direct(L, h);
        set_direct(L, h, 0, "client", CLAW_API_CLIENT);
        set_direct(L, h, 1, "header", CLAW_API_HEADER_FN);
        h->direct = true; /* nothing can raise any more */
        for (int i = 0; i < 2; i++) {
            push_slot(L, h, i ? CLAW_API_CLIENT : CLAW_API_REQ);
            lua_rawgeti(L, LUA_REGISTRYINDEX, h->direct_meta[i]);
            lua_setmetatable(L, -2);
            lua_pop(L, 1);
        }
    }
    push_slot(L, h, CLAW_API_REQ);
}

/* ---- assignments -------------------------------------------------------------------------------------------- */

static void set_path(lua_State *L, struct claw_req *r)
{
    struct claw_str s;
    s.ptr = luaL_checklstring(L, 3, &s.len);
    bool good = s.len > 0 && s.ptr[0] == '/';
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= ' ' || (unsigned char)s.ptr[i] >= 0x7f || s.ptr[i] == '#') good = false;
    if (!good) luaL_error(L, "req.upstream.path: must begin with / and hold neither spaces, # nor control characters");
    char *copy = claw_arena_dup(&r->arena, s.ptr, s.len);
    if (!copy) luaL_error(L, "%s", claw_err_text(CLAW_EREQ_MEM));
    r->out_path = (struct claw_str){copy, s.len};
}

void claw_api_push_commit(lua_State *L, const struct claw_req *r)
{
    if (r->commit_at > 1) lua_pushinteger(L, (lua_Integer)r->commit_at);
    else lua_pushstring(L, r->commit_at ? "token" : "event");
}

static void set_commit(lua_State *L, struct claw_req *r)
{
    double n = lua_type(L, 3) == LUA_TNUMBER ? lua_tonumber(L, 3) : -1;
    const char *word = lua_type(L, 3) == LUA_TSTRING ? lua_tostring(L, 3) : "";
    if (strcmp(word, "event") == 0) n = 0;
    else if (strcmp(word, "token") == 0) n = 1;
    else if (!(n >= 1 && n <= CLAW_COMMIT_MOST && n == (double)(uint32_t)n))
        luaL_error(L, "req.upstream.commit: must be \"event\", \"token\" or a whole number of characters from 1 to %d", (int)CLAW_COMMIT_MOST);
    if (r->accounted || r->step >= CLAW_STEP_COMMIT) luaL_error(L, "req.upstream.commit: the answer is committed");
    r->commit_at = (uint32_t)n;
}

static void set_header(lua_State *L, struct claw_req *r, enum claw_api_slot slot)
{
    bool reply = slot == CLAW_API_REPLY_HEADERS;
    struct claw_str name, value = {NULL, 0};
    name.ptr = luaL_checklstring(L, 2, &name.len);
    if (!lua_isnil(L, 3)) value.ptr = luaL_checklstring(L, 3, &value.len);
    if (reply && (r->accounted || r->step >= CLAW_STEP_COMMIT)) luaL_error(L, "req.answer.headers[\"%s\"]: the answer's head has left", name.ptr);
    if (reply && r->early) return; /* as server.heartbeat_before_answer says */
    int rc = reply ? claw_req_set_answer_header(r, name, value) : claw_req_set_header(r, name, value);
    if (rc == CLAW_EINVAL)
        luaL_error(L, "%s[\"%s\"]: no valid field name or value, or a field the proxy writes itself", slot_names[slot], name.ptr);
    if (rc != CLAW_OK) luaL_error(L, "%s", claw_err_text(rc));
}

static int view_newindex(lua_State *L)
{
    const struct view *v = own_view(L, 1);
    struct claw_req *r = check_alive(L, v);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : luaL_typename(L, 2);
    lua_settop(L, 3);
    if (v->slot == CLAW_API_UPSTREAM_HEADERS || v->slot == CLAW_API_REPLY_HEADERS) return set_header(L, r, v->slot), 0;
    if (v->slot == CLAW_API_UPSTREAM && strcmp(key, "path") == 0) return set_path(L, r), 0;
    if (v->slot == CLAW_API_UPSTREAM && strcmp(key, "commit") == 0) return set_commit(L, r), 0;
    const char *hint = "use req.ctx for notes of your own";
    if (v->slot == CLAW_API_CLIENT || v->slot == CLAW_API_CLIENT_HEADERS) hint = "what the client sent stays as it came; req.upstream is what goes out";
    if (v->slot == CLAW_API_UPSTREAM) hint = "only path, commit and headers[name] can be set; the model is body.model";
    if (v->slot == CLAW_API_REPLY) hint = "only headers[name] can be set; the body is what a response hook returns";
    if (v->slot == CLAW_API_REQ && strcmp(key, "body") == 0) hint = "change or return the hook's body argument";
    return luaL_error(L, "%s.%s cannot be assigned: %s", slot_names[v->slot], key, hint);
}

static int view_tostring(lua_State *L)
{
    const struct view *v = own_view(L, 1);
    if (v->h->life.serial != v->serial) lua_pushfstring(L, "%s (over)", slot_names[v->slot]);
    else lua_pushfstring(L, "%s (%s)", slot_names[v->slot], v->h->r->id);
    return 1;
}

static void keep_names(lua_State *L, struct claw_vm *vm)
{
    for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) {
        lua_pushstring(L, fields[k].name);
        const char *name = lua_tostring(L, -1);
        luaL_ref(L, LUA_REGISTRYINDEX); /* it stays where it is */
        size_t i = place_of(name);
        while (vm->names[i % CLAW_VM_NAMES].ptr) i++;
        vm->names[i % CLAW_VM_NAMES] = (struct claw_vm_name){name, fields[k].field};
    }
}

void claw_api_register(lua_State *L)
{
    claw_pattern_register(L);
    luaL_newmetatable(L, view_type);
    lua_pushvalue(L, -1);
    claw_vm_of(L)->req_meta = luaL_ref(L, LUA_REGISTRYINDEX);
    keep_names(L, claw_vm_of(L));
    lua_pushcfunction(L, view_index);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, view_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, view_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "claw.req");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    claw_document_register(L);
}
