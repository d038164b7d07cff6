#include "script/pattern.h"

#include "script/vm.h"

#include <ctype.h>
#include <lauxlib.h>

#define DEPTH_MAX 200        /* nested matches, as in Lua: they use the C stack */
#define CAPTURES_MAX 32
#define LOOK_EVERY 4096u     /* steps */
#define FREE_STEPS (1u << 20) /* outside of a policy's call, and so many for each byte */
#define STEPS_PER_BYTE 64u
#define BYTES_PER_STEP 16u   /* of what gsub puts in */
#define OPEN (-1)
#define POSITION (-2)

struct matcher {
    lua_State *L;
    struct claw_budget *budget;
    const char *from, *end, *p_end; /* of the subject, of the pattern */
    uint64_t steps, look_at, most;
    unsigned depth;
    int level;
    struct { const char *at; ptrdiff_t n; } captures[CAPTURES_MAX];
};

static unsigned char byte_of(const char *p) { return (unsigned char)*p; }

/* ---- the bound ---------------------------------------------------------------------------------------------- */

static void look(struct matcher *m)
{
    claw_budget_check(m->L, m->budget);
    if (!m->budget->inside && m->steps > m->most) luaL_error(m->L, "pattern too complex for this text");
    m->look_at = m->steps + LOOK_EVERY;
}

static inline void step(struct matcher *m, uint64_t n)
{
    m->steps += n;
    if (__builtin_expect(m->steps >= m->look_at, 0)) look(m);
}

static void init(struct matcher *m, lua_State *L, struct claw_str s, struct claw_str p)
{
    struct claw_vm *vm = claw_vm_of(L);
    m->L = L;
    m->budget = &vm->budget;
    m->from = s.ptr;
    m->end = s.ptr + s.len;
    m->p_end = p.ptr + p.len;
    m->steps = 0;
    m->look_at = LOOK_EVERY;
    m->most = FREE_STEPS + (uint64_t)s.len * STEPS_PER_BYTE;
    m->depth = 0;
    m->level = 0;
    claw_vm_check_stack(L, vm);
}

/* ---- single characters -------------------------------------------------------------------------------------- */

static const char *class_end(struct matcher *m, const char *p)
{
    if (p >= m->p_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
    if (*p == '%') {
        if (p + 1 >= m->p_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
        return p + 2;
    }
    if (*p++ != '[') return p;
    if (p < m->p_end && *p == '^') p++;
    do { /* a ] that comes first is itself */
        if (p >= m->p_end) luaL_error(m->L, "malformed pattern (missing ']')");
        if (*p++ == '%' && p < m->p_end) p++;
    } while (p >= m->p_end || *p != ']');
    return p + 1;
}

static bool in_class(unsigned char c, unsigned char class)
{
    bool yes;
    switch (class | 0x20) {
    case 'a': yes = isalpha(c); break;
    case 'c': yes = iscntrl(c); break;
    case 'd': yes = isdigit(c); break;
    case 'g': yes = isgraph(c); break;
    case 'l': yes = islower(c); break;
    case 'p': yes = ispunct(c); break;
    case 's': yes = isspace(c); break;
    case 'u': yes = isupper(c); break;
    case 'w': yes = isalnum(c); break;
    case 'x': yes = isxdigit(c); break;
    case 'z': yes = c == 0; break;
    default: return class == c;
    }
    return isupper(class) ? !yes : yes;
}

/* `last` is at the closing bracket. */
static bool in_set(unsigned char c, const char *p, const char *last)
{
    bool yes = true;
    if (p[1] == '^') {
        yes = false;
        p++;
    }
    while (++p < last) {
        if (*p == '%') {
            p++;
            if (in_class(c, byte_of(p))) return yes;
        } else if (p[1] == '-' && p + 2 < last) {
            p += 2;
            if (byte_of(p - 2) <= c && c <= byte_of(p)) return yes;
        } else if (byte_of(p) == c) {
            return yes;
        }
    }
    return !yes;
}

static inline bool single(const struct matcher *m, unsigned char c, const char *p, const char *behind)
{
    switch (*p) {
    case '.': return true;
    case '%': return in_class(c, byte_of(p + 1));
    case '[': return in_set(c, p, behind - 1);
    default: return byte_of(p) == c;
    }
}

/* ---- items -------------------------------------------------------------------------------------------------- */

static const char *match(struct matcher *m, const char *s, const char *p);

static const char *balanced(struct matcher *m, const char *s, const char *p)
{
    if (p + 1 >= m->p_end) luaL_error(m->L, "unbalanced pattern");
    if (s >= m->end || *s != *p) return NULL;
    char open = *p, close = p[1];
    int nesting = 1;
    const char *from = s++;
    for (; s < m->end; s++) {
        if (*s == close) {
            if (--nesting > 0) continue;
            step(m, (uint64_t)(s - from));
            return s + 1;
        }
        if (*s == open) nesting++;
    }
    step(m, (uint64_t)(m->end - from));
    return NULL;
}

static const char *most_of(struct matcher *m, const char *s, const char *p, const char *behind)
{
    ptrdiff_t i = 0;
    while (s + i < m->end && single(m, byte_of(s + i), p, behind)) i++;
    step(m, (uint64_t)i);
    for (; i >= 0; i--) {
        const char *e = match(m, s + i, behind + 1);
        if (e) return e;
    }
    return NULL;
}

static const char *least_of(struct matcher *m, const char *s, const char *p, const char *behind)
{
    for (;;) {
        const char *e = match(m, s, behind + 1);
        if (e) return e;
        if (s >= m->end || !single(m, byte_of(s), p, behind)) return NULL;
        s++;
    }
}

static const char *open_capture(struct matcher *m, const char *s, const char *p, ptrdiff_t what)
{
    if (m->level >= CAPTURES_MAX) luaL_error(m->L, "too many captures");
    m->captures[m->level].at = s;
    m->captures[m->level].n = what;
    m->level++;
    const char *e = match(m, s, p);
    if (!e) m->level--;
    return e;
}

static const char *close_capture(struct matcher *m, const char *s, const char *p)
{
    int l = m->level - 1;
    while (l >= 0 && m->captures[l].n != OPEN) l--;
    if (l < 0) luaL_error(m->L, "invalid pattern capture");
    m->captures[l].n = s - m->captures[l].at;
    const char *e = match(m, s, p);
    if (!e) m->captures[l].n = OPEN;
    return e;
}

static const char *same_again(struct matcher *m, const char *s, unsigned char digit)
{
    int l = digit - '1';
    if (l < 0 || l >= m->level || m->captures[l].n == OPEN) luaL_error(m->L, "invalid capture index");
    size_t n = (size_t)m->captures[l].n; /* of a position: more than there is */
    if ((size_t)(m->end - s) < n) return NULL;
    step(m, n / 64);
    return memcmp(m->captures[l].at, s, n) == 0 ? s + n : NULL;
}

/* True: s is on the frontier of the set at p. */
static bool on_frontier(const struct matcher *m, const char *s, const char *p, const char *behind)
{
    unsigned char before = s == m->from ? 0 : byte_of(s - 1), here = s < m->end ? byte_of(s) : 0;
    return !in_set(before, p, behind - 1) && in_set(here, p, behind - 1);
}

static const char *match_on(struct matcher *m, const char *s, const char *p)
{
    while (p < m->p_end) {
        step(m, 1);
        switch (*p) {
        case '(':
            if (p + 1 < m->p_end && p[1] == ')') return open_capture(m, s, p + 2, POSITION);
            return open_capture(m, s, p + 1, OPEN);
        case ')': return close_capture(m, s, p + 1);
        case '$':
            if (p + 1 == m->p_end) return s == m->end ? s : NULL;
            break;
        case '%':
            if (p + 1 >= m->p_end) break;
            if (p[1] == 'b') {
                s = balanced(m, s, p + 2);
                if (!s) return NULL;
                p += 4;
                continue;
            }
            if (p[1] == 'f') {
                p += 2;
                if (p >= m->p_end || *p != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
                const char *behind = class_end(m, p);
                if (!on_frontier(m, s, p, behind)) return NULL;
                p = behind;
                continue;
            }
            if (isdigit(byte_of(p + 1))) {
                s = same_again(m, s, byte_of(p + 1));
                if (!s) return NULL;
                p += 2;
                continue;
            }
            break;
        }
        const char *behind = class_end(m, p);
        char suffix = behind < m->p_end ? *behind : 0;
        bool here = s < m->end && single(m, byte_of(s), p, behind);
        if (suffix == '?') {
            const char *e = here ? match(m, s + 1, behind + 1) : NULL;
            if (e) return e;
            p = behind + 1;
        } else if (suffix == '*') {
            return most_of(m, s, p, behind);
        } else if (suffix == '+') {
            return here ? most_of(m, s + 1, p, behind) : NULL;
        } else if (suffix == '-') {
            return least_of(m, s, p, behind);
        } else {
            if (!here) return NULL;
            s++;
            p = behind;
        }
    }
    return s;
}

static const char *match(struct matcher *m, const char *s, const char *p)
{
    if (p == m->p_end) return s;
    if (++m->depth > DEPTH_MAX) luaL_error(m->L, "pattern too complex");
    s = match_on(m, s, p);
    m->depth--;
    return s;
}

/* ---- captures ----------------------------------------------------------------------------------------------- */

static void push_capture(struct matcher *m, int l, const char *s, const char *e)
{
    if (l >= m->level) {
        if (l > 0) luaL_error(m->L, "invalid capture index");
        lua_pushlstring(m->L, s, (size_t)(e - s)); /* without captures: all of it */
        return;
    }
    ptrdiff_t n = m->captures[l].n;
    if (n == OPEN) luaL_error(m->L, "unfinished capture");
    if (n == POSITION) lua_pushinteger(m->L, m->captures[l].at - m->from + 1);
    else lua_pushlstring(m->L, m->captures[l].at, (size_t)n);
}

static int push_captures(struct matcher *m, const char *s, const char *e)
{
    int n = m->level == 0 && s ? 1 : m->level;
    luaL_checkstack(m->L, n, "too many captures");
    for (int i = 0; i < n; i++) push_capture(m, i, s, e);
    return n;
}

/* ---- find and match ----------------------------------------------------------------------------------------- */

static struct claw_str check_str(lua_State *L, int arg)
{
    struct claw_str s;
    s.ptr = luaL_checklstring(L, arg, &s.len);
    return s;
}

static bool has_specials(struct claw_str p)
{
    for (size_t i = 0; i < p.len; i++)
        if (p.ptr[i] && strchr("^$*+?.([%-", p.ptr[i])) return true;
    return false;
}

/* What each match begins with, when that is one character: most places of a subject are passed over by it alone. */
struct start {
    const char *p, *behind; /* p NULL: matches begin in several ways */
    int byte;               /* -1: a class or set */
};

static void find_start(struct matcher *m, struct claw_str p, bool anchored, struct start *f)
{
    *f = (struct start){NULL, NULL, -1};
    if (anchored || p.len == 0 || *p.ptr == '(' || *p.ptr == ')' || *p.ptr == '$') return;
    if (*p.ptr == '%' && p.len > 1 && (p.ptr[1] == 'b' || p.ptr[1] == 'f' || isdigit(byte_of(p.ptr + 1)))) return;
    const char *behind = class_end(m, p.ptr);
    if (behind < m->p_end && (*behind == '*' || *behind == '?' || *behind == '-')) return;
    f->p = p.ptr;
    f->behind = behind;
    if (*p.ptr != '.' && *p.ptr != '[' && *p.ptr != '%') f->byte = byte_of(p.ptr);
}

/* The first place at or behind s where a match may begin, or NULL. */
static const char *skip(struct matcher *m, const char *s, const struct start *f)
{
    const char *from = s;
    if (!f->p) return s;
    if (f->byte >= 0) return s < m->end ? memchr(s, f->byte, (size_t)(m->end - s)) : NULL;
    while (s < m->end && !single(m, byte_of(s), f->p, f->behind)) s++;
    step(m, (uint64_t)(s - from));
    return s < m->end ? s : NULL;
}

/* The first match at or behind s; NULL: none. *at: where it begins. */
static const char *search(struct matcher *m, const char *s, struct claw_str p, bool anchored, const char **at)
{
    struct start f;
    find_start(m, p, anchored, &f);
    for (;; s++) {
        s = skip(m, s, &f);
        if (!s) return NULL;
        m->level = 0;
        const char *e = match(m, s, p.ptr);
        step(m, 1);
        if (e) {
            *at = s;
            return e;
        }
        if (anchored || s >= m->end) return NULL;
    }
}

static bool take_anchor(struct claw_str *p)
{
    if (p->len == 0 || *p->ptr != '^') return false;
    p->ptr++;
    p->len--;
    return true;
}

static int find_aux(lua_State *L, bool find)
{
    struct claw_str s = check_str(L, 1), p = check_str(L, 2);
    lua_Integer from = luaL_optinteger(L, 3, 1);
    from = from < 0 ? from + (lua_Integer)s.len : from - 1;
    if (from < 0) from = 0;
    if (from > (lua_Integer)s.len) from = (lua_Integer)s.len;
    if (find && (lua_toboolean(L, 4) || !has_specials(p))) {
        const char *at = memmem(s.ptr + from, s.len - (size_t)from, p.ptr, p.len);
        if (!at) return lua_pushnil(L), 1;
        lua_pushinteger(L, at - s.ptr + 1);
        lua_pushinteger(L, at - s.ptr + (lua_Integer)p.len);
        return 2;
    }
    bool anchored = take_anchor(&p);
    struct matcher m;
    init(&m, L, s, p);
    const char *at, *e = search(&m, s.ptr + from, p, anchored, &at);
    if (!e) return lua_pushnil(L), 1;
    if (!find) return push_captures(&m, at, e);
    lua_pushinteger(L, at - s.ptr + 1);
    lua_pushinteger(L, e - s.ptr);
    return 2 + push_captures(&m, NULL, NULL);
}

static int str_find(lua_State *L) { return find_aux(L, true); }
static int str_match(lua_State *L) { return find_aux(L, false); }

/* ---- gmatch ------------------------------------------------------------------------------------------------- */

/* Upvalues: subject, pattern, offset of the next search. */
static int gmatch_next(lua_State *L)
{
    struct claw_str s, p;
    s.ptr = lua_tolstring(L, lua_upvalueindex(1), &s.len);
    p.ptr = lua_tolstring(L, lua_upvalueindex(2), &p.len);
    size_t from = (size_t)lua_tonumber(L, lua_upvalueindex(3));
    if (from > s.len) return 0;
    struct matcher m;
    init(&m, L, s, p);
    const char *at, *e = search(&m, s.ptr + from, p, false, &at);
    if (!e) return 0;
    lua_pushnumber(L, (lua_Number)(e - s.ptr + (e == at)));
    lua_replace(L, lua_upvalueindex(3));
    return push_captures(&m, at, e);
}

static int str_gmatch(lua_State *L)
{
    check_str(L, 1);
    check_str(L, 2);
    lua_settop(L, 2);
    lua_pushnumber(L, 0);
    lua_pushcclosure(L, gmatch_next, 3);
    return 1;
}

/* ---- gsub --------------------------------------------------------------------------------------------------- */

static void add_text(struct matcher *m, luaL_Buffer *b, const char *s, const char *e)
{
    struct claw_str r;
    r.ptr = lua_tolstring(m->L, 3, &r.len);
    step(m, r.len / BYTES_PER_STEP);
    for (size_t i = 0; i < r.len; i++) {
        if (r.ptr[i] != '%') {
            luaL_addchar(b, r.ptr[i]);
            continue;
        }
        i++; /* a % that ends the text stands for its NUL, as in Lua */
        if (!isdigit(byte_of(r.ptr + i))) {
            luaL_addchar(b, r.ptr[i]);
        } else if (r.ptr[i] == '0') {
            luaL_addlstring(b, s, (size_t)(e - s));
        } else {
            push_capture(m, r.ptr[i] - '1', s, e);
            luaL_addvalue(b);
        }
    }
}

static void add_value(struct matcher *m, luaL_Buffer *b, const char *s, const char *e)
{
    lua_State *L = m->L;
    switch (lua_type(L, 3)) {
    case LUA_TFUNCTION: {
        lua_pushvalue(L, 3);
        int n = push_captures(m, s, e);
        lua_call(L, n, 1);
        break;
    }
    case LUA_TTABLE:
        push_capture(m, 0, s, e);
        lua_gettable(L, 3);
        break;
    default: add_text(m, b, s, e); return;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, s, (size_t)(e - s));
    } else if (!lua_isstring(L, -1)) {
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    }
    step(m, lua_objlen(L, -1) / BYTES_PER_STEP);
    luaL_addvalue(b);
}

static int str_gsub(lua_State *L)
{
    struct claw_str s = check_str(L, 1), p = check_str(L, 2);
    int type = lua_type(L, 3);
    if (type != LUA_TNUMBER && type != LUA_TSTRING && type != LUA_TFUNCTION && type != LUA_TTABLE)
        luaL_argerror(L, 3, "string/function/table expected");
    lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)s.len + 1), n = 0;
    bool anchored = take_anchor(&p);
    struct matcher m;
    init(&m, L, s, p);
    struct start f = {NULL, NULL, -1};
    if (most > 0) find_start(&m, p, anchored, &f);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    const char *at = s.ptr;
    while (n < most) {
        const char *next = skip(&m, at, &f);
        if (!next) break;
        if (next > at) luaL_addlstring(&b, at, (size_t)(next - at));
        at = next;
        m.level = 0;
        const char *e = match(&m, at, p.ptr);
        step(&m, 1);
        if (e) {
            n++;
            add_value(&m, &b, at, e);
        }
        if (e && e > at) at = e;
        else if (at < m.end) luaL_addchar(&b, *at++);
        else break;
        if (anchored) break;
    }
    luaL_addlstring(&b, at, (size_t)(m.end - at));
    luaL_pushresult(&b);
    lua_pushinteger(L, n);
    return 2;
}

/* ---- the library -------------------------------------------------------------------------------------------- */

static const luaL_Reg functions[] = {
    {"find", str_find}, {"match", str_match}, {"gmatch", str_gmatch}, {"gsub", str_gsub}, {NULL, NULL},
};

static void set_functions(lua_State *L)
{
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
}

void claw_pattern_push_functions(lua_State *L)
{
    lua_newtable(L);
    set_functions(L);
}

/* A table of their own: no name leads to it, so that nobody can change it. */
void claw_pattern_register(lua_State *L)
{
    lua_newtable(L);
    lua_getglobal(L, "string");
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_settable(L, -6);
    }
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    set_functions(L);
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 3);
}
