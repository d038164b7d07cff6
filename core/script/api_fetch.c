/* core.fetch: the door from Lua to proxy/fetch. What is asked was shaped by lua/claw/waiting.lua. */
#include "script/api.h"

#include "proxy/fetch.h"
#include "proxy/trace.h"

#include <lauxlib.h>
#include <stdlib.h>

#define FETCHES_MAX 16 /* of one request at the same time */
#define HEADERS_MAX 100

enum { ARG_URL = 1, ARG_INDEX, ARG_PATH, ARG_METHOD, ARG_HEADERS, ARG_BODY, ARG_TIMEOUT, ARG_MAX };

struct door {
    struct claw_task *task;
    struct claw_family *family;
    struct claw_fetch *fetch;
};

/* The word a policy sees. */
static const char *code_of(int code)
{
    switch (code) {
    case CLAW_EDEADLINE: case CLAW_ECONNECT_TIMEOUT: case CLAW_EFIRST_BYTE_TIMEOUT: case CLAW_ESTALL: return "ETIMEOUT";
    case CLAW_EBODY_TOO_LARGE: return "ETOO_LARGE";
    default: return claw_err_name(code);
    }
}

static int failure(lua_State *L, const char *message, const char *code)
{
    lua_pushnil(L);
    lua_pushstring(L, message);
    lua_pushstring(L, code);
    return 3;
}

/* An upstream's fields may quote the key it was sent: known secrets are replaced, as in its answer's body. */
static void push_value(lua_State *L, struct claw_str value, bool redact)
{
    struct claw_buf *text = &claw_vm_of(L)->text;
    claw_buf_clear(text);
    if (claw_buf_add_str(text, value) != CLAW_OK) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    if (redact) claw_log_redact(text);
    struct claw_str s = claw_buf_str(text);
    lua_pushlstring(L, s.ptr ? s.ptr : "", s.len);
}

/* Names in lower case; values of one name joined by ", ". */
static void push_headers(lua_State *L, const struct claw_head *h, bool redact)
{
    lua_createtable(L, 0, (int)h->n);
    for (size_t i = 0; i < h->n; i++) {
        luaL_Buffer name;
        if (claw_head_hop(h, &h->headers[i])) continue;
        luaL_buffinit(L, &name);
        for (size_t k = 0; k < h->headers[i].name.len; k++) {
            char c = h->headers[i].name.ptr[k];
            luaL_addchar(&name, c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c);
        }
        luaL_pushresult(&name);
        lua_pushvalue(L, -1);
        lua_rawget(L, -3);
        bool more = !lua_isnil(L, -1);
        if (more) lua_pushliteral(L, ", ");
        else lua_pop(L, 1);
        push_value(L, h->headers[i].value, redact);
        if (more) lua_concat(L, 3);
        lua_rawset(L, -3);
    }
}

static int push_answer(lua_State *L, void *op)
{
    const struct claw_fetch *f = ((const struct door *)op)->fetch;
    if (f->code != CLAW_OK) return failure(L, f->error, code_of(f->code));
    struct claw_str body = claw_buf_str(&f->body);
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, f->head->status);
    lua_setfield(L, -2, "status");
    push_headers(L, f->head, !f->own);
    lua_setfield(L, -2, "headers");
    lua_pushlstring(L, body.ptr ? body.ptr : "", body.len);
    lua_setfield(L, -2, "body");
    return 1;
}

static void end_fetch(void *op)
{
    struct door *d = op;
    d->family->fetches_n--;
    claw_fetch_free(d->fetch);
    free(d);
}

static const struct claw_wait fetch_wait = {push_answer, end_fetch};

static void on_done(struct claw_fetch *f) { claw_task_wake(((struct door *)f->arg)->task); }

static struct claw_str str_at(lua_State *L, int idx)
{
    struct claw_str s = {NULL, 0};
    if (!lua_isnoneornil(L, idx)) s.ptr = luaL_checklstring(L, idx, &s.len);
    return s;
}

/* The flat list of names and values, as slices of strings its table holds. */
static void read_headers(lua_State *L, struct claw_fetch_ask *ask)
{
    luaL_checktype(L, ARG_HEADERS, LUA_TTABLE);
    size_t n = lua_objlen(L, ARG_HEADERS) / 2;
    if (n > HEADERS_MAX) luaL_error(L, "claw.http.fetch: more than %d headers", HEADERS_MAX);
    ask->headers = lua_newuserdata(L, (n + 1) * sizeof *ask->headers);
    for (size_t i = 0; i < 2 * n; i++) {
        lua_rawgeti(L, ARG_HEADERS, (int)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "claw.http.fetch: a header is a %s", luaL_typename(L, -1));
        struct claw_str s = str_at(L, -1);
        if (i % 2 == 0) ask->headers[i / 2].name = s;
        else ask->headers[i / 2].value = s;
        lua_pop(L, 1);
    }
    ask->headers_n = n;
}

/* Who is asked belongs to the request's trace, unless the policy says where. `text` has CLAW_TRACE_PARENT bytes. */
static void add_trace(const struct claw_req *r, struct claw_fetch_ask *ask, char *text)
{
    const struct claw_str name = CLAW_STR("traceparent");
    for (size_t i = 0; i < ask->headers_n; i++)
        if (claw_str_ieq(ask->headers[i].name, name)) return;
    claw_trace_parent(r, text);
    ask->headers[ask->headers_n++] = (struct claw_conf_header){name, {text, CLAW_TRACE_PARENT}}; /* read_headers left room */
}

/* fetch(url, upstream, path, method, headers, body, timeout_ms, max_bytes): the answer, or nil, message, code. */
int claw_api_fetch(lua_State *L)
{
    struct claw_task *t = claw_task_current(L, "claw.http.fetch");
    struct claw_vm *vm = claw_vm_of(L);
    struct claw_family *family = claw_task_family(t);
    if (!vm->local || !vm->ctx->fetcher) return luaL_error(L, "claw.http.fetch: there is no worker here");
    const struct claw_conf *conf = vm->gen->conf;
    struct claw_fetch_ask ask = {.url = str_at(L, ARG_URL), .path = str_at(L, ARG_PATH), .method = str_at(L, ARG_METHOD), .body = str_at(L, ARG_BODY),
                                 .timeout_ms = (unsigned)luaL_checkinteger(L, ARG_TIMEOUT), .max_body = (size_t)luaL_checknumber(L, ARG_MAX)};
    if (!ask.url.ptr) {
        lua_Integer i = luaL_checkinteger(L, ARG_INDEX);
        if (i < 1 || (size_t)i > conf->upstreams_n) return luaL_argerror(L, ARG_INDEX, "no upstream");
        ask.upstream = (size_t)i - 1;
    }
    char trace[CLAW_TRACE_PARENT];
    read_headers(L, &ask);
    if (family->req && family->req->trace) add_trace(family->req, &ask, trace);
    if (family->fetches_n >= FETCHES_MAX) return failure(L, "16 fetches of this request are under way", "EBUSY");
    if (claw_fetcher_count(vm->ctx->fetcher) >= conf->policies.max_fetches)
        return failure(L, "policies.max_fetches are under way in this worker", "EBUSY");
    struct door *d = calloc(1, sizeof *d);
    const char *why = NULL;
    if (!d) return luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    d->task = t;
    d->family = family;
    int rc = claw_fetch_start(vm->ctx->fetcher, vm->local, &ask, on_done, d, &d->fetch, &why);
    if (rc != CLAW_OK) {
        free(d);
        return failure(L, why, claw_err_name(rc));
    }
    family->fetches_n++;
    return claw_task_suspend(L, t, &fetch_wait, d);
}
