#include "script/value.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define EXACT 9007199254740992.0 /* 2^53 */

const char claw_document_type[] = "claw.document";
static const char mark_key[] = "claw.json.array";

struct claw_document *claw_document_test(lua_State *L, int idx)
{
    struct claw_document *d = lua_type(L, idx) == LUA_TUSERDATA && lua_objlen(L, idx) == sizeof *d ? lua_touserdata(L, idx) : NULL;
    return d && d->magic == CLAW_DOCUMENT_MAGIC ? d : NULL;
}

struct claw_document *claw_document_check(lua_State *L, int idx)
{
    struct claw_document *d = claw_document_test(L, idx);
    if (!d) luaL_typerror(L, idx, "document");
    if (d->life->serial != d->serial) luaL_error(L, "the request is over: its documents cannot be used any more");
    if (d->base ? d->base != d->life->body->data : d->answer != d->life->answer)
        luaL_error(L, "the text of this document is gone: use a body in the hook that gets it, or keep a doc:table()");
    return d;
}

/* ---- marks -------------------------------------------------------------------------------------------------- */

void claw_value_push_mark(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, mark_key);
    if (lua_istable(L, -1)) return;
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushstring(L, mark_key);
    lua_setfield(L, -2, "__name");
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, mark_key);
}

void claw_value_set_mark(lua_State *L)
{
    int top = lua_gettop(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, "claw.json");
    if (lua_istable(L, -1)) {
        lua_getfield(L, -1, "array");
        if (lua_isfunction(L, -1)) {
            lua_newtable(L);
            lua_call(L, 1, 1);
            if (lua_getmetatable(L, -1)) lua_setfield(L, LUA_REGISTRYINDEX, mark_key);
        }
    }
    lua_settop(L, top);
}

static bool field_is(lua_State *L, const char *field, const char *want)
{
    lua_pushstring(L, field);
    lua_rawget(L, -2);
    bool same = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), want) == 0;
    lua_pop(L, 1);
    return same;
}

static bool is_marked(lua_State *L, int idx)
{
    if (!lua_getmetatable(L, idx)) return false;
    bool marked = field_is(L, "__name", mark_key) || field_is(L, "__jsontype", "array");
    lua_pop(L, 1);
    return marked;
}

/* ---- JSON to Lua -------------------------------------------------------------------------------------------- */

static void push_text(lua_State *L, int rc, struct claw_str s)
{
    if (rc != CLAW_OK) luaL_error(L, "%s", claw_err_text(rc));
    lua_pushlstring(L, s.ptr, s.len);
    claw_arena_reset(&claw_vm_of(L)->scratch);
}

static void push_string(lua_State *L, struct claw_json_value v)
{
    struct claw_str s = CLAW_STR("");
    int rc = claw_json_text(v, claw_vm_scratch(claw_vm_of(L)), &s);
    push_text(L, rc, s);
}

static void push_key(lua_State *L, struct claw_str raw)
{
    struct claw_str s = CLAW_STR("");
    int rc = claw_json_key_text(raw, claw_vm_scratch(claw_vm_of(L)), &s);
    push_text(L, rc, s);
}

static bool is_plain_digits(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != '-' && (s.ptr[i] < '0' || s.ptr[i] > '9')) return false;
    return true;
}

/* Would a double say something else than the text? Fractions and exponents are doubles by nature. */
static bool loses_digits(struct claw_json_value v, double d)
{
    int64_t i;
    if (isinf(d)) return true;
    if (fabs(d) < EXACT || !is_plain_digits(v.raw)) return false;
    return claw_json_int(v, &i) != CLAW_OK || i > (int64_t)EXACT || i < -(int64_t)EXACT;
}

static void push_number(lua_State *L, struct claw_json_value v, bool exact)
{
    double d = 0;
    if (claw_json_double(v, &d) != CLAW_OK) luaL_error(L, "not a number");
    if (exact && loses_digits(v, d)) lua_pushlstring(L, v.raw.ptr, v.raw.len);
    else lua_pushnumber(L, d);
}

static void push_any(lua_State *L, struct claw_json_value v, bool exact)
{
    switch (v.type) {
    case CLAW_JSON_NONE: lua_pushnil(L); return;
    case CLAW_JSON_NULL: lua_pushlightuserdata(L, NULL); return;
    case CLAW_JSON_FALSE: lua_pushboolean(L, 0); return;
    case CLAW_JSON_TRUE: lua_pushboolean(L, 1); return;
    case CLAW_JSON_NUMBER: push_number(L, v, exact); return;
    case CLAW_JSON_STRING: push_string(L, v); return;
    case CLAW_JSON_ARRAY:
    case CLAW_JSON_OBJECT: break;
    }
    luaL_checkstack(L, 6, "JSON nested too deep");
    lua_newtable(L);
    size_t pos = 0;
    int i = 0;
    struct claw_str key;
    struct claw_json_value item;
    while (claw_json_next(v, &pos, &key, &item)) {
        if (v.type == CLAW_JSON_ARRAY) {
            push_any(L, item, false);
            lua_rawseti(L, -2, ++i);
        } else {
            push_key(L, key);
            push_any(L, item, false);
            lua_rawset(L, -3);
        }
    }
    if (v.type == CLAW_JSON_ARRAY) {
        claw_value_push_mark(L);
        lua_setmetatable(L, -2);
    }
}

void claw_value_push(lua_State *L, struct claw_json_value v) { push_any(L, v, true); }
void claw_value_push_table(lua_State *L, struct claw_json_value v) { push_any(L, v, false); }

/* ---- Lua to JSON -------------------------------------------------------------------------------------------- */

struct writer {
    struct claw_buf *out;
    struct claw_arena *scratch; /* keys being sorted */
    struct claw_budget *budget;
    unsigned n;                 /* values written */
};

#define CHECK_EVERY 1024u /* values: a small table that holds itself many times over is a very long text */

static void add(lua_State *L, int rc)
{
    if (rc != CLAW_OK) luaL_error(L, "%s", claw_err_text(rc));
}

static void write_number(lua_State *L, struct claw_buf *out, double d)
{
    if (isnan(d) || isinf(d)) luaL_error(L, "%s is no JSON number", isnan(d) ? "nan" : "inf");
    char text[40];
    if (floor(d) == d && fabs(d) < 0x1p63) {
        snprintf(text, sizeof text, "%.0f", d);
    } else {
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, d);
            if (strtod(text, NULL) == d) break;
        }
    }
    add(L, claw_buf_add_z(out, text));
}

enum table_kind { TABLE_EMPTY, TABLE_ARRAY, TABLE_OBJECT };

/* Also counts the keys. Mixed and gapped tables have no JSON: that is said, not guessed. */
static enum table_kind table_kind(lua_State *L, int idx, size_t *n)
{
    size_t list = lua_objlen(L, idx), items = 0, names = 0;
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            names++;
            continue;
        }
        double k = lua_type(L, -2) == LUA_TNUMBER ? lua_tonumber(L, -2) : 0;
        if (k < 1 || k > (double)list || floor(k) != k)
            luaL_error(L, "a table with a %s as key has no JSON form (lists have the keys 1 to n)",
                       lua_type(L, -2) == LUA_TNUMBER ? "gap or a fraction" : luaL_typename(L, -2));
        items++;
    }
    if (items && names) luaL_error(L, "a table with both list items and named fields has no JSON form");
    if (items != list && items) luaL_error(L, "a list with gaps has no JSON form");
    *n = items + names;
    if (is_marked(L, idx)) {
        if (names) luaL_error(L, "a table marked as an array has named fields");
        return TABLE_ARRAY;
    }
    return *n == 0 ? TABLE_EMPTY : items ? TABLE_ARRAY : TABLE_OBJECT;
}

static int compare_keys(const void *a, const void *b)
{
    const struct claw_str *x = a, *y = b;
    int c = memcmp(x->ptr, y->ptr, x->len < y->len ? x->len : y->len);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

static void write_value(lua_State *L, struct writer *w, int idx, unsigned depth);

static void write_object(lua_State *L, struct writer *w, int idx, size_t n, unsigned depth)
{
    /* The keys' bytes are the table's own strings: they live as long as nobody changes it, which nobody does here. */
    struct claw_str *keys = claw_arena_alloc(w->scratch, n * sizeof *keys);
    if (!keys) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    size_t i = 0;
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
        keys[i].ptr = lua_tolstring(L, -2, &keys[i].len);
        i++;
    }
    qsort(keys, n, sizeof *keys, compare_keys);
    for (i = 0; i < n; i++) {
        add(L, claw_buf_add(w->out, i ? "," : "{", 1));
        add(L, claw_buf_add_json(w->out, keys[i]));
        add(L, claw_buf_add(w->out, ":", 1));
        lua_pushlstring(L, keys[i].ptr, keys[i].len);
        lua_rawget(L, idx);
        write_value(L, w, lua_gettop(L), depth);
        lua_pop(L, 1);
    }
    add(L, claw_buf_add(w->out, "}", 1));
}

static void write_table(lua_State *L, struct writer *w, int idx, unsigned depth)
{
    if (depth == 0) luaL_error(L, "tables are nested too deep for JSON (or contain themselves)");
    luaL_checkstack(L, 8, "tables nested too deep");
    size_t n = 0;
    switch (table_kind(L, idx, &n)) {
    case TABLE_EMPTY: add(L, claw_buf_add_z(w->out, "{}")); return;
    case TABLE_OBJECT: write_object(L, w, idx, n, depth - 1); return;
    case TABLE_ARRAY: break;
    }
    add(L, claw_buf_add(w->out, "[", 1));
    for (size_t i = 1; i <= n; i++) {
        if (i > 1) add(L, claw_buf_add(w->out, ",", 1));
        lua_rawgeti(L, idx, (int)i);
        write_value(L, w, lua_gettop(L), depth - 1);
        lua_pop(L, 1);
    }
    add(L, claw_buf_add(w->out, "]", 1));
}

static void write_value(lua_State *L, struct writer *w, int idx, unsigned depth)
{
    if (++w->n % CHECK_EVERY == 0) claw_budget_check(L, w->budget);
    switch (lua_type(L, idx)) {
    case LUA_TSTRING: {
        struct claw_str s;
        s.ptr = lua_tolstring(L, idx, &s.len);
        add(L, claw_buf_add_json(w->out, s));
        return;
    }
    case LUA_TNUMBER: write_number(L, w->out, lua_tonumber(L, idx)); return;
    case LUA_TBOOLEAN: add(L, claw_buf_add_z(w->out, lua_toboolean(L, idx) ? "true" : "false")); return;
    case LUA_TTABLE: write_table(L, w, idx, depth); return;
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, idx) == NULL) {
            add(L, claw_buf_add_z(w->out, "null"));
            return;
        }
        break;
    case LUA_TUSERDATA:
        if (claw_document_test(L, idx)) {
            add(L, claw_json_node_write(claw_document_check(L, idx)->node, w->out));
            return;
        }
        break;
    default: break;
    }
    luaL_error(L, "a %s has no JSON form", luaL_typename(L, idx));
}

void claw_value_write(lua_State *L, int idx, struct claw_buf *out, unsigned depth)
{
    struct claw_vm *vm = claw_vm_of(L);
    struct writer w = {out, claw_vm_scratch(vm), &vm->budget, 0};
    bool own = !vm->budget.inside; /* a verdict is written after its hook, and costs what the hook made it */
    if (own) claw_budget_enter(&vm->budget, 1);
    write_value(L, &w, idx < 0 ? lua_gettop(L) + idx + 1 : idx, depth);
    if (own) claw_budget_leave(&vm->budget);
    claw_arena_reset(w.scratch);
}

/* ---- paths -------------------------------------------------------------------------------------------------- */

bool claw_value_next_step(struct claw_str *path, struct claw_value_step *step, bool *bad)
{
    *bad = false;
    const char *p = path->ptr, *end = p + path->len;
    if (p == end) return false;
    if (*p == '[') {
        const char *close = memchr(p, ']', path->len);
        char digits[20];
        size_t n = close ? (size_t)(close - p) - 1 : 0;
        if (!close || n == 0 || n >= sizeof digits) return *bad = true, false;
        memcpy(digits, p + 1, n);
        digits[n] = 0;
        char *stop;
        step->kind = digits[0] == '*' && n == 1 ? CLAW_PATH_EVERY : CLAW_PATH_INDEX;
        step->index = strtol(digits, &stop, 10);
        if (step->kind == CLAW_PATH_INDEX && *stop) return *bad = true, false;
        p = close + 1;
    } else {
        const char *stop = p;
        while (stop < end && *stop != '.' && *stop != '[') stop++;
        if (stop == p) return *bad = true, false;
        step->kind = CLAW_PATH_KEY;
        step->key = (struct claw_str){p, (size_t)(stop - p)};
        p = stop;
    }
    if (p < end && *p == '.') {
        p++;
        if (p == end) return *bad = true, false;
    } else if (p < end && *p != '[') {
        return *bad = true, false;
    }
    *path = (struct claw_str){p, (size_t)(end - p)};
    return true;
}

struct finder {
    const struct claw_json_top *top;
    int n;
    bool found;             /* something is there, scalar or not */
    const struct claw_str *words; /* NULL: values are pushed; else it is looked for these in texts */
    unsigned words_n;
    bool mentioned;         /* one of them stands there */
    int rc;
};

/* Pieces small enough to stay in the cache from word to word. */
#define LOOKED_AT (32u << 10)

static bool text_mentions(struct claw_str s, const struct claw_str *words, unsigned n)
{
    size_t longest = 1;
    for (unsigned i = 0; i < n; i++)
        if (words[i].len > longest) longest = words[i].len;
    for (size_t from = 0; from == 0 || from < s.len; from += LOOKED_AT) {
        struct claw_str piece = {s.ptr + from, s.len - from < LOOKED_AT + longest - 1 ? s.len - from : LOOKED_AT + longest - 1};
        for (unsigned i = 0; i < n; i++)
            if (claw_str_ifind(piece, words[i]) >= 0) return true;
    }
    return false;
}

/* What has escapes is decoded for as long as it is looked at. */
static void look_for_words(struct finder *f, struct claw_json_value v)
{
    struct claw_arena a;
    struct claw_str text;
    if (v.type != CLAW_JSON_STRING) return;
    claw_arena_init(&a, NULL, 0, v.raw.len + 4096);
    int rc = claw_json_text(v, &a, &text);
    if (rc == 0) f->mentioned = text_mentions(text, f->words, f->words_n);
    else f->rc = rc;
    claw_arena_reset(&a);
}

/* The text of a content part, as OpenAI, Anthropic and Gemini write them. */
static struct claw_json_value part_text(struct claw_json_value part)
{
    struct claw_json_value none = {.type = CLAW_JSON_NONE};
    if (part.type != CLAW_JSON_OBJECT) return none;
    struct claw_json_value type = claw_json_get(part, CLAW_STR("type")), text = claw_json_get(part, CLAW_STR("text"));
    if (text.type != CLAW_JSON_STRING) return none;
    if (type.type == CLAW_JSON_NONE || claw_json_text_is(type, CLAW_STR("text")) ||
        claw_json_text_is(type, CLAW_STR("input_text")) || claw_json_text_is(type, CLAW_STR("output_text")))
        return text;
    return none;
}

static void give(lua_State *L, struct finder *f, struct claw_json_value v)
{
    if (f->words) {
        look_for_words(f, v);
        return;
    }
    claw_value_push(L, v);
    lua_rawseti(L, -2, ++f->n);
}

static void take(lua_State *L, struct finder *f, struct claw_json_value v)
{
    if (v.type == CLAW_JSON_NONE) return;
    f->found = true;
    if (v.type == CLAW_JSON_OBJECT) return;
    if (v.type != CLAW_JSON_ARRAY) {
        give(L, f, v);
        return;
    }
    size_t pos = 0;
    struct claw_str key;
    struct claw_json_value item;
    while (!f->mentioned && claw_json_next(v, &pos, &key, &item)) {
        item = part_text(item);
        if (item.type != CLAW_JSON_NONE) give(L, f, item);
    }
}

static void find(lua_State *L, struct finder *f, struct claw_json_value v, struct claw_str path)
{
    struct claw_value_step s;
    bool bad;
    bool root = v.raw.ptr == f->top->root.raw.ptr && v.type == CLAW_JSON_OBJECT;
    while (claw_value_next_step(&path, &s, &bad)) {
        if (s.kind == CLAW_PATH_EVERY) {
            size_t pos = 0;
            struct claw_str key;
            struct claw_json_value item;
            if (v.type != CLAW_JSON_ARRAY) return;
            while (!f->mentioned && claw_json_next(v, &pos, &key, &item)) find(L, f, item, path);
            return;
        }
        if (s.kind == CLAW_PATH_INDEX) v = claw_json_at(v, s.index);
        else v = root ? claw_json_top_get(f->top, s.key) : claw_json_get(v, s.key);
        root = false;
        if (v.type == CLAW_JSON_NONE) return;
    }
    if (!bad) take(L, f, v);
}

void claw_value_push_path(lua_State *L, const struct claw_json_top *top, struct claw_str path)
{
    struct finder f = {.top = top};
    lua_newtable(L);
    find(L, &f, top->root, path);
    if (f.found) return;
    lua_pop(L, 1);
    lua_pushnil(L);
}

int claw_value_mentions(const struct claw_json_top *top, struct claw_str path, const struct claw_str *words, unsigned n, bool *mentioned)
{
    struct finder f = {.top = top, .words = words, .words_n = n};
    find(NULL, &f, top->root, path);
    *mentioned = f.mentioned;
    return f.rc;
}

void claw_value_push_conf(lua_State *L, const struct claw_conf_node *n)
{
    if (!n) {
        lua_pushnil(L);
        return;
    }
    if (n->secret && n->type != CLAW_CONF_LIST && n->type != CLAW_CONF_MAP) { /* policies see that it is there, not what */
        lua_pushliteral(L, "***");
        return;
    }
    switch (n->type) {
    case CLAW_CONF_NULL: lua_pushnil(L); return;
    case CLAW_CONF_BOOL: lua_pushboolean(L, n->truth); return;
    case CLAW_CONF_NUMBER: lua_pushnumber(L, n->number); return;
    case CLAW_CONF_STRING: lua_pushlstring(L, n->text.ptr ? n->text.ptr : "", n->text.len); return;
    case CLAW_CONF_LIST:
    case CLAW_CONF_MAP: break;
    }
    luaL_checkstack(L, 6, "configuration nested too deep");
    bool list = n->type == CLAW_CONF_LIST;
    lua_createtable(L, list ? (int)n->n : 0, list ? 0 : (int)n->n);
    for (size_t i = 0; i < n->n; i++) {
        if (!list) lua_pushlstring(L, n->entries[i].key.ptr, n->entries[i].key.len);
        claw_value_push_conf(L, n->entries[i].value);
        if (list) lua_rawseti(L, -2, (int)i + 1);
        else lua_rawset(L, -3);
    }
}
