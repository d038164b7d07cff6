/* decide_body: what of the request goes to the upstream that is tried, and the answer on its way back: whole, an error, or
 * event by event. */
#include "script/decide_part.h"

/* ---- request ------------------------------------------------------------------------------------------------ */

static void check_json(lua_State *L, struct claw_decide *c, const char *hook, struct claw_str text)
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
static void write_body(lua_State *L, struct claw_decide *c, const char *hook, bool json, struct claw_buf *out)
{
    claw_buf_clear(out);
    if (lua_type(L, 1) == LUA_TSTRING) {
        if (json) check_json(L, c, hook, claw_decide_text(L, 1));
        if (claw_buf_add_str(out, claw_decide_text(L, 1)) != CLAW_OK) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
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

/* false, code ("untranslatable", "too_large" or "translation"), message, field (nil: none) on the stack. */
static void read_untranslatable(lua_State *L, struct claw_decide *c)
{
    struct claw_str code = lua_type(L, 2) == LUA_TSTRING ? claw_decide_text(L, 2) : CLAW_STR("");
    if (lua_type(L, 4) == LUA_TSTRING) c->r->error_param = claw_decide_keep(L, c, claw_decide_text(L, 4));
    if (lua_type(L, 3) == LUA_TSTRING) c->r->error_text = claw_decide_keep(L, c, claw_decide_text(L, 3));
    if (claw_str_eqz(code, "too_large")) c->r->error = CLAW_EREQ_MEM;
    else c->r->error = claw_str_eqz(code, "translation") ? CLAW_ETRANSLATION : CLAW_EUNTRANSLATABLE;
}

/* Behind the body: the protocol it is in, when that is another than the client's, and which fields were left out. */
static void read_translation(lua_State *L, struct claw_decide *c)
{
    struct claw_req *r = c->r;
    if (lua_isnil(L, 2)) return;
    enum claw_dialect d = lua_type(L, 2) == LUA_TSTRING ? claw_dialect_named(claw_decide_text(L, 2)) : CLAW_DIALECT_COUNT;
    if (d == CLAW_DIALECT_COUNT) claw_task_raise(L, "request", "the protocol is %s", claw_decide_show(L, 2));
    r->sent_as = (uint8_t)d;
    r->translated = true;
    if (lua_type(L, 3) == LUA_TSTRING) r->dropped = claw_decide_keep(L, c, claw_decide_text(L, 3));
    if (!claw_h1_is_value(r->dropped)) r->dropped = CLAW_STR("");
}

static void request_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    struct claw_req *r = c->r;
    if (!r->waiting) {
        claw_api_begin_attempt(L, r);
        r->out_headers_n = 0;
        r->out_path = CLAW_STR("");
        r->commit_at = 0;
        r->out_body_set = r->translated = false;
        r->sent_as = r->dialect;
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_REQUEST);
        lua_pushlightuserdata(L, r);
        claw_decide_push_candidate(L, r);
        claw_decide_push_str(L, claw_req_sent_model(r));
    }
    if (claw_decide_waits(L, c, "request", 3, 4)) return;
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

int claw_decide_request(void *vm, struct claw_req *r, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r};
    return claw_decide_run(&c, request_in, "request", err);
}

/* ---- response and event ------------------------------------------------------------------------------------- */

static void response_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    if (!c->r->waiting) {
        claw_api_begin_answer(L, c->r, c->in);
        claw_policy_push_fn(L, c->p, CLAW_ENGINE_RESPONSE);
        lua_pushlightuserdata(L, c->r);
        claw_decide_push_candidate(L, c->r);
    }
    if (claw_decide_waits(L, c, "response", 2, 2)) return;
    if (lua_isboolean(L, 1) && !lua_toboolean(L, 1)) {
        c->r->error = CLAW_EBAD_RESPONSE;
        if (lua_type(L, 2) == LUA_TSTRING) c->r->error_text = claw_decide_keep(L, c, claw_decide_text(L, 2));
        return;
    }
    if (claw_decide_is_whole(L, 2, 200, 599)) c->r->answer_status = (int)lua_tointeger(L, 2);
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

int claw_decide_response(void *vm, struct claw_req *r, struct claw_str body, struct claw_str *out, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r, .in = body};
    int rc = claw_decide_run(&c, response_in, "response", err);
    if (rc != CLAW_OK && rc != CLAW_EAGAIN) claw_api_end_answer(r);
    *out = rc == CLAW_OK ? c.body : (struct claw_str){NULL, 0};
    return rc;
}

static void error_in(lua_State *L, void *arg)
{
    struct claw_decide *c = arg;
    claw_api_begin_answer(L, c->r, c->in);
    claw_policy_push_fn(L, c->p, CLAW_ENGINE_ERROR);
    lua_pushlightuserdata(L, c->r);
    claw_decide_push_candidate(L, c->r);
    lua_pushinteger(L, c->events);
    lua_pushlstring(L, c->in.ptr ? c->in.ptr : "", c->in.len);
    lua_call(L, 4, 1);
    struct claw_api_handle *h = claw_api_handle_of(L, c->r);
    write_body(L, c, "error", false, h->out);
    c->body = claw_buf_str(h->out);
}

int claw_decide_error(void *vm, struct claw_req *r, int status, struct claw_str body, struct claw_str *out, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r, .in = body, .events = status};
    int rc = claw_decide_run(&c, error_in, "error", err);
    *out = rc == CLAW_OK ? c.body : (struct claw_str){NULL, 0};
    return rc;
}

/* The string field of the event on top, appended to the bytes; where it begins there. */
static struct claw_str add_event_text(lua_State *L, struct claw_buf *bytes, const char *key)
{
    lua_getfield(L, -1, key);
    size_t from = claw_buf_size(bytes);
    if (lua_type(L, -1) == LUA_TSTRING) {
        if (claw_buf_add_str(bytes, claw_decide_text(L, -1)) != CLAW_OK) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
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
    struct claw_decide *c = arg;
    struct claw_policy_vm *p = c->p;
    claw_policy_push_fn(L, p, CLAW_ENGINE_EVENT);
    lua_pushlightuserdata(L, c->r);
    claw_decide_push_candidate(L, c->r);
    if (c->r->turned) lua_pushnil(L);
    else lua_pushlstring(L, c->type.ptr ? c->type.ptr : "", c->type.len);
    if (c->in.ptr) lua_pushlstring(L, c->in.ptr, c->in.len);
    else lua_pushnil(L); /* the end */
    lua_call(L, 4, 2);
    c->events = -1;
    if (lua_isnil(L, 1)) return;
    if (lua_type(L, 1) == LUA_TSTRING) {
        bool told = claw_decide_is_whole(L, 2, 400, 599);
        if (told) c->r->answer_status = (int)lua_tointeger(L, 2);
        c->rc = !c->in.ptr ? CLAW_EUPSTREAM_EOF : c->r->turned && !told ? CLAW_EBAD_RESPONSE : CLAW_ESTREAM_ERROR;
        c->body = claw_decide_keep(L, c, claw_decide_text(L, 1));
        return;
    }
    c->events = 0;
    if (lua_isboolean(L, 1) && !lua_toboolean(L, 1)) return;
    if (!lua_istable(L, 1)) claw_task_raise(L, "event", "the events are %s", claw_decide_show(L, 1));
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

int claw_decide_event(void *vm, struct claw_req *r, struct claw_str type, struct claw_str data,
                 const struct claw_policy_event **out, int *n, struct claw_policy_error *err)
{
    struct claw_decide c = {.p = vm, .r = r, .in = data, .type = type, .events = -1};
    int rc = claw_decide_run(&c, event_in, "event", err);
    if (c.body.ptr) err->message = c.body;
    *out = c.p->events;
    *n = rc == CLAW_OK ? c.events : -1;
    return rc;
}
