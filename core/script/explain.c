/* explain: -explain. A request made from a file, decided by the engine, sent nowhere. */
#include "script/policy_part.h"

#include "proxy/clients.h"
#include "proxy/limit.h"

#include <lauxlib.h>
#include <stdlib.h>

#define ARENA_MAX (8u << 20)

static void push_str_or_nil(lua_State *L, struct claw_str s)
{
    if (s.len) lua_pushlstring(L, s.ptr, s.len);
    else lua_pushnil(L);
}

static void begin_in(lua_State *L, void *arg)
{
    struct claw_explained *x = arg;
    claw_policy_push_fn(L, x->p, CLAW_ENGINE_EXPLAIN);
    lua_pushlightuserdata(L, x->r);
    lua_pushlstring(L, x->r->head->method.ptr, x->r->head->method.len);
    lua_pushlstring(L, x->r->head->path.ptr, x->r->head->path.len);
    push_str_or_nil(L, x->r->model);
    lua_pushboolean(L, x->r->stream);
    lua_call(L, 5, 0);
}

static void attempt_in(lua_State *L, void *arg)
{
    struct claw_explained *x = arg;
    claw_policy_push_fn(L, x->p, CLAW_ENGINE_EXPLAIN_ATTEMPT);
    lua_pushlightuserdata(L, x->r);
    lua_call(L, 1, 0);
}

static void end_in(lua_State *L, void *arg)
{
    struct claw_explained *x = arg;
    claw_policy_push_fn(L, x->p, CLAW_ENGINE_EXPLAINED);
    lua_pushlightuserdata(L, x->r);
    lua_pushstring(L, x->kind);
    lua_pushinteger(L, x->status);
    push_str_or_nil(L, x->code);
    push_str_or_nil(L, x->text);
    push_str_or_nil(L, x->err.policy);
    push_str_or_nil(L, x->err.hook);
    lua_pushinteger(L, x->r->decision);
    push_str_or_nil(L, x->limits);
    lua_call(L, 9, 1);
    if (lua_type(L, 1) != LUA_TSTRING) claw_task_raise(L, "explain", "the report is a %s", luaL_typename(L, 1));
    struct claw_str s;
    s.ptr = lua_tolstring(L, 1, &s.len);
    x->rc = claw_buf_add_str(x->out, s);
}

static struct claw_str text_of(struct claw_req *r, struct claw_json_value v, struct claw_str missing)
{
    struct claw_str s = missing;
    if (v.type == CLAW_JSON_STRING && claw_json_text(v, &r->arena, &s) != CLAW_OK) s = missing;
    return s;
}

static int fill_headers(struct claw_req *r, struct claw_json_value headers)
{
    size_t n = claw_json_count(headers), pos = 0;
    struct claw_str key;
    struct claw_json_value v;
    if (headers.type != CLAW_JSON_OBJECT || n == 0) return CLAW_OK;
    r->head->headers = claw_arena_zalloc(&r->arena, n * sizeof *r->head->headers);
    if (!r->head->headers) return CLAW_EREQ_MEM;
    while (claw_json_next(headers, &pos, &key, &v)) {
        struct claw_header *h = &r->head->headers[r->head->n++];
        int rc = claw_json_key_text(key, &r->arena, &h->name);
        if (rc != CLAW_OK) return rc;
        h->value = v.type == CLAW_JSON_STRING ? text_of(r, v, CLAW_STR("")) : v.raw;
        h->id = claw_header_id_of(h->name);
    }
    return CLAW_OK;
}

static void fill_target(struct claw_head *h, struct claw_str target)
{
    const char *mark = memchr(target.ptr, '?', target.len);
    h->target = h->path = target;
    if (!mark) return;
    h->path.len = (size_t)(mark - target.ptr);
    h->query = (struct claw_str){mark + 1, target.len - h->path.len - 1};
}

/* The parse step's work. */
static int fill_body(struct claw_req *r, struct claw_str body)
{
    struct claw_json_err e;
    int rc = claw_buf_add_str(&r->body, body);
    if (rc == CLAW_OK) rc = claw_req_read_path(r);
    if (rc != CLAW_OK || body.len == 0) return rc;
    rc = claw_json_scan(claw_buf_str(&r->body), &r->arena, &r->json, &e);
    if (rc != CLAW_OK) return rc;
    r->has_json = true;
    if (claw_dialect_is_gemini((enum claw_dialect)r->dialect)) return CLAW_OK;
    r->model = text_of(r, claw_json_top_get(&r->json, CLAW_STR("model")), CLAW_STR(""));
    r->stream = claw_json_top_get(&r->json, CLAW_STR("stream")).type == CLAW_JSON_TRUE;
    return CLAW_OK;
}

static int fill(struct claw_req *r, struct claw_str request)
{
    struct claw_json_top top;
    struct claw_json_err e;
    int rc = claw_json_scan(request, &r->arena, &top, &e);
    if (rc != CLAW_OK) return rc;
    r->head = claw_arena_zalloc(&r->arena, sizeof *r->head);
    if (!r->head) return CLAW_EREQ_MEM;
    r->head->content_length = -1;
    r->head->minor = 1;
    struct claw_json_value body = claw_json_top_get(&top, CLAW_STR("body")), path = claw_json_top_get(&top, CLAW_STR("path")),
                           method = claw_json_top_get(&top, CLAW_STR("method"));
    /* A chat request has none of these members. */
    if (body.type == CLAW_JSON_NONE && path.type == CLAW_JSON_NONE && method.type == CLAW_JSON_NONE) {
        r->head->method = CLAW_STR("POST");
        fill_target(r->head, CLAW_STR("/v1/chat/completions"));
        return fill_body(r, request);
    }
    r->head->method = text_of(r, method, body.type == CLAW_JSON_NONE ? CLAW_STR("GET") : CLAW_STR("POST"));
    fill_target(r->head, text_of(r, path, CLAW_STR("/v1/chat/completions")));
    r->caller = claw_clients_named(claw_req_conf(r), text_of(r, claw_json_top_get(&top, CLAW_STR("client")), CLAW_STR("")));
    rc = fill_headers(r, claw_json_top_get(&top, CLAW_STR("headers")));
    return rc == CLAW_OK ? fill_body(r, body.raw.ptr ? body.raw : CLAW_STR("")) : rc;
}

/* A call of the report's own functions. */
static int call(struct claw_explained *x, claw_task_fn fn)
{
    struct claw_task_error e;
    if (claw_task_call(x->p->vm, fn, x, &x->r->arena, &e) == CLAW_OK) return x->rc;
    int rc = claw_policy_failed(x->p, x->r, &e, "explain", &x->err);
    int add = claw_buf_add_fmt(x->out, "%.*s: %.*s: %.*s\n%.*s\n", CLAW_STR_FMT(x->err.policy), CLAW_STR_FMT(x->err.hook),
                               CLAW_STR_FMT(x->err.message), CLAW_STR_FMT(e.traceback));
    return add == CLAW_OK ? rc : add;
}

/* The steps admit, route and transform, as the pipeline takes them. */
static int decide(struct claw_explained *x, bool attempt)
{
    struct claw_req *r = x->r;
    const struct claw_policy_ops *ops = r->gen->ops;
    struct claw_policy_answer answer = {.body = {NULL, 0}};
    int rc = ops->admits(x->p) ? ops->admit(x->p, r, &answer, &x->err) : CLAW_OK;
    if (rc == CLAW_OK && r->error == CLAW_OK && !answer.body.ptr) rc = ops->route(x->p, r, &answer, &x->err);
    if (rc != CLAW_OK) return rc;
    x->status = answer.status;
    if (answer.body.ptr) x->code = answer.policy;
    x->kind = answer.body.ptr ? "answered" : r->error == CLAW_EDENIED ? "denied" : r->error != CLAW_OK ? "refused" : "routed";
    if (r->error != CLAW_OK) {
        x->status = r->status;
        x->code = claw_str_of(r->error_code ? r->error_code : claw_err_kind(r->error));
        x->text = r->error_text;
    }
    if (!attempt || answer.body.ptr || r->error != CLAW_OK || !(r->candidates[0].mask & CLAW_MASK_REQUEST)) return CLAW_OK;
    rc = call(x, attempt_in);
    if (rc == CLAW_OK) rc = ops->request(x->p, r, &x->err);
    if (rc == CLAW_OK && r->error == CLAW_EUNTRANSLATABLE) x->text = r->error_text; /* still routed: the next one may be told */
    return rc;
}

int claw_explained_open(struct claw_explained *x, struct claw_policy_vm *p, struct claw_str request)
{
    struct claw_req *r = calloc(1, sizeof *r);
    if (!r) return CLAW_ENOMEM;
    x->p = p;
    x->r = r;
    x->local = (struct claw_generation_local){.refs = 1, .gen = p->gen, .ops = &claw_policy_ops_lua, .policy = p};
    /* What each candidate would be sent is made beside what the request itself needs. */
    claw_arena_init(&r->arena, NULL, 0, (ARENA_MAX + request.len) * (2 + p->gen->conf->upstreams_n));
    claw_buf_init(&r->body, 0);
    claw_buf_init(&r->out_body, 0);
    r->gen = &x->local;
    r->ctx = p->ctx;
    r->route = -1;
    r->cost_micros = -1;
    r->usage = (struct claw_usage){-1, -1, -1, -1, -1, {0}};
    r->start_us = claw_loop_clock_us();
    memcpy(r->id, "explain", sizeof "explain");
    memcpy(r->peer, "127.0.0.1", sizeof "127.0.0.1");
    return fill(r, request);
}

int claw_explained_decide(struct claw_explained *x, bool attempt)
{
    int rc = call(x, begin_in);
    if (rc != CLAW_OK) return rc;
    rc = decide(x, attempt);
    if (rc != CLAW_OK) {
        x->kind = "failed";
        x->text = x->err.message;
    }
    return rc;
}

int claw_explained_end(struct claw_explained *x)
{
    struct claw_buf limits;
    claw_buf_init(&limits, 0);
    int rc = x->kind && strcmp(x->kind, "routed") == 0 ? claw_limits_explain(x->r, &limits) : 0;
    x->limits = claw_buf_str(&limits);
    if (rc == 0) rc = call(x, end_in);
    claw_buf_fini(&limits);
    return rc;
}

void claw_explained_close(struct claw_explained *x)
{
    struct claw_req *r = x->r;
    if (!r) return;
    claw_api_release(r);
    claw_buf_fini(&r->body);
    claw_buf_fini(&r->out_body);
    claw_arena_reset(&r->arena);
    free(r);
    x->r = NULL;
}

int claw_policy_explain(struct claw_policy_vm *p, struct claw_str request, struct claw_buf *out)
{
    struct claw_explained x = {.out = out};
    p->vm->store = NULL; /* one of its own: it counts for nobody */
    int rc = claw_explained_open(&x, p, request);
    if (rc == CLAW_OK) {
        rc = claw_explained_decide(&x, true);
        if (x.kind) {
            int end = claw_explained_end(&x);
            if (rc == CLAW_OK) rc = end;
        }
    }
    claw_explained_close(&x);
    return rc;
}
