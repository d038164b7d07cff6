/* json: the scan. One pass from the left; the only state is the kind of each open container, one bit each.
 *
 *     value -> (after a value) -> ',' -> key, when in an object -> value
 *                              -> ']' or '}' -> (after a value)
 *
 * Faults are noted by position; line and column are counted only when there is one.
 */
#include "base/json.h"

#include "base/json_part.h"

#define MEMBERS_FIRST 16
#define LONG_LEFT 512     /* a text that has less left does not repay beginning with AVX2 */
#define RUN_CHARACTERS 16 /* past ASCII, taken at once */

struct scan {
    const char *begin, *end;
    const char *bad, *why; /* the fault */
    unsigned depth;
    uint64_t kinds[CLAW_JSON_DEPTH / 64]; /* bit d: is the container at depth d + 1 an object? */
    struct claw_arena *arena;             /* NULL: no list of members */
    struct claw_json_top *top;
    size_t cap; /* of top->members */
    bool keys_once, seen_model, seen_stream;
    bool no_memory;
};

static const char *refuse(struct scan *s, const char *at, const char *why)
{
    s->bad = at;
    s->why = why;
    return NULL;
}

static const char *refuse_here(struct scan *s, const char *p)
{
    return refuse(s, p, p < s->end ? "unexpected character" : "unexpected end of text");
}

/* ---- strings ---------------------------------------------------------------------------------------------- */

#if CLAW_JSON_X86
/* Which of the 32 bytes at p are not plain ASCII text: a quote, a backslash, a control, a byte past ASCII? As signed
 * bytes, controls and everything past ASCII are below the space. */
static inline uint32_t stops(const char *p)
{
    const __m128i space = _mm_set1_epi8(0x20), quote = _mm_set1_epi8('"'), back = _mm_set1_epi8('\\');
    __m128i x = _mm_loadu_si128((const __m128i *)p), y = _mm_loadu_si128((const __m128i *)(p + 16));
    __m128i a = _mm_or_si128(_mm_cmplt_epi8(x, space), _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, back)));
    __m128i b = _mm_or_si128(_mm_cmplt_epi8(y, space), _mm_or_si128(_mm_cmpeq_epi8(y, quote), _mm_cmpeq_epi8(y, back)));
    return (uint32_t)_mm_movemask_epi8(a) | (uint32_t)_mm_movemask_epi8(b) << 16;
}
#endif

static inline bool is_plain(char c) { return (signed char)c >= 0x20 && c != '"' && c != '\\'; }

/* The length of the well-formed UTF-8 sequence at p (its first byte is past ASCII); 0 when there is none
 * (Unicode 15, table 3-7). */
static inline unsigned utf8_len(const unsigned char *p, size_t left)
{
    unsigned c = p[0];
    if (c < 0xe0) return c >= 0xc2 && left >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if (left < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80) return 0;
    if (c < 0xf0) return (c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) ? 0 : 3;
    if (c > 0xf4 || left < 4 || (p[3] & 0xc0) != 0x80) return 0;
    return (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f) ? 0 : 4;
}

static inline bool is_hex(char c) { return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); }

/* What may follow a backslash and is complete with it. */
static const bool short_escape[256] = {['"'] = true, ['\\'] = true, ['/'] = true, ['b'] = true,
                                       ['f'] = true, ['n'] = true,  ['r'] = true, ['t'] = true};

/* p is at the backslash. */
static inline const char *skip_escape(struct scan *s, const char *p)
{
    if (s->end - p < 2) return refuse_here(s, s->end);
    if (short_escape[(unsigned char)p[1]]) return p + 2;
    if (p[1] != 'u') return refuse(s, p, "bad escape");
    for (int i = 2; i < 6; i++) {
        if (s->end - p <= i) return refuse_here(s, s->end);
        if (!is_hex(p[i])) return refuse(s, p, "bad escape");
    }
    return p + 6;
}

/* p is at a byte of a string that is neither plain nor its end. */
static inline const char *skip_special(struct scan *s, const char *p)
{
    if (*p == '\\') return skip_escape(s, p);
    if ((unsigned char)*p < 0x20) return refuse(s, p, "control character in a string");
    for (int i = 0; i < RUN_CHARACTERS && p < s->end && (signed char)*p < 0; i++) {
        unsigned n = utf8_len((const unsigned char *)p, (size_t)(s->end - p));
        if (!n) return refuse(s, p, "not valid UTF-8");
        p += n;
    }
    return p;
}

/* A string that is not over within the 32 bytes from p, or has something in them that is not plain. */
static __attribute__((noinline)) const char *skip_special_string(struct scan *s, const char *p)
{
    const char *end = s->end;
#if CLAW_JSON_X86
    /* AVX2 goes on to the end, or to what only the byte-wise scan judges: once. */
    if (end - p >= LONG_LEFT && p - s->begin >= 3 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")) {
        p = claw_json_skip_long(p, end);
        if (p < end && *p == '"') return p + 1;
    }
    while (end - p >= 32) {
        const char *block = p;
        uint32_t mask = stops(p);
        p = mask ? block + __builtin_ctz(mask) : block + 32;
        if (mask && *p == '"') return p + 1;
        while (mask) {
            p = block + __builtin_ctz(mask);
            if (*p == '"') return p + 1;
            if (!(p = skip_special(s, p))) return NULL;
            if (p - block >= 32) break;
            mask &= UINT32_MAX << (p - block);
            if (!mask) p = block + 32;
        }
    }
#endif
    for (;;) {
#if CLAW_JSON_X86
        if (p < end && end - s->begin >= 32 && end - p < 32) { /* the text's last 32 bytes, without those before p */
            uint32_t mask = stops(end - 32) >> (32 - (end - p));
            p = mask ? p + __builtin_ctz(mask) : end;
        }
#endif
        while (p < end && is_plain(*p)) p++;
        if (p == end) return refuse_here(s, end);
        if (*p == '"') return p + 1;
        if (!(p = skip_special(s, p))) return NULL;
    }
}

/* p is after the opening quote; gives the place after the closing one. */
static inline const char *skip_string(struct scan *s, const char *p)
{
#if CLAW_JSON_X86
    if (s->end - p >= 32) {
        uint32_t mask = stops(p);
        const char *stop = p + __builtin_ctz(mask | 1u << 31);
        if (mask && *stop == '"') return stop + 1;
    }
#endif
    return skip_special_string(s, p);
}

/* ---- the other scalars ------------------------------------------------------------------------------------ */

static inline const char *skip_digits(struct scan *s, const char *p)
{
    if (p == s->end || *p < '0' || *p > '9') return refuse_here(s, p);
    while (p < s->end && *p >= '0' && *p <= '9') p++;
    return p;
}

static const char *skip_number(struct scan *s, const char *p)
{
    if (*p == '-') p++;
    if (p < s->end && *p == '0') p++;
    else if (!(p = skip_digits(s, p))) return NULL;
    if (p < s->end && *p == '.' && !(p = skip_digits(s, p + 1))) return NULL;
    if (p < s->end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < s->end && (*p == '+' || *p == '-')) p++;
        p = skip_digits(s, p);
    }
    return p;
}

static const char *skip_word(struct scan *s, const char *p, const char *word, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p + i == s->end || p[i] != word[i]) return refuse_here(s, p + i);
    return p + n;
}

static inline const char *skip_scalar(struct scan *s, const char *p)
{
    switch (*p) {
    case '"': return skip_string(s, p + 1);
    case 't': return skip_word(s, p, "true", 4);
    case 'f': return skip_word(s, p, "false", 5);
    case 'n': return skip_word(s, p, "null", 4);
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9': return skip_number(s, p);
    default: return refuse_here(s, p);
    }
}

/* ---- containers ------------------------------------------------------------------------------------------- */

static inline bool in_object(const struct scan *s)
{
    unsigned d = s->depth - 1;
    return s->kinds[d / 64] >> (d % 64) & 1;
}

static inline bool open_container(struct scan *s, const char *p)
{
    unsigned d = s->depth;
    if (d == CLAW_JSON_DEPTH) {
        refuse(s, p, "nested too deeply");
        return false;
    }
    uint64_t bit = (uint64_t)1 << (d % 64);
    s->kinds[d / 64] = *p == '{' ? s->kinds[d / 64] | bit : s->kinds[d / 64] & ~bit;
    s->depth = d + 1;
    return true;
}

/* `key` is with its quotes. */
static bool second_time(struct scan *s, struct claw_str key)
{
    struct claw_json_value v = {key, CLAW_JSON_STRING};
    char first = key.ptr[1];
    bool *seen;
    if (first != 'm' && first != 's' && first != '\\') return false;
    if (claw_json_text_is(v, CLAW_STR("model"))) seen = &s->seen_model;
    else if (claw_json_text_is(v, CLAW_STR("stream"))) seen = &s->seen_stream;
    else return false;
    if (*seen) {
        refuse(s, key.ptr, seen == &s->seen_model ? "duplicate key \"model\"" : "duplicate key \"stream\"");
        return true;
    }
    *seen = true;
    return false;
}

/* A member of the top-level object begins: key..after with its quotes, its value at `value`. */
static bool list_member(struct scan *s, const char *key, const char *after, const char *value)
{
    if (s->keys_once && second_time(s, (struct claw_str){key, (size_t)(after - key)})) return false;
    if (!s->arena) return true;
    struct claw_json_top *top = s->top;
    if (top->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : MEMBERS_FIRST;
        void *m = claw_arena_grow(s->arena, top->members, s->cap * sizeof *top->members, cap * sizeof *top->members);
        if (!m) {
            s->no_memory = true;
            return false;
        }
        top->members = m;
        s->cap = cap;
    }
    top->members[top->n++] = (struct claw_json_member){
        .key = {key + 1, (size_t)(after - key - 2)},
        .value = {{value, 0}, claw_json_type_of(*value)},
    };
    return true;
}

/* A key and its colon; gives the place of the value. */
static const char *skip_key(struct scan *s, const char *p)
{
    const char *key = p = claw_json_skip_space(p, s->end);
    if (p == s->end || *p != '"') return refuse_here(s, p);
    const char *after = p = skip_string(s, p + 1);
    if (!p) return NULL;
    p = claw_json_skip_space(p, s->end);
    if (p == s->end || *p != ':') return refuse_here(s, p);
    p = claw_json_skip_space(p + 1, s->end);
    if (p == s->end) return refuse_here(s, p);
    return s->depth > 1 || list_member(s, key, after, p) ? p : NULL;
}

/* After a value: close what closes here. Gives the place of the next value, or NULL with *done the end of the
 * whole, or NULL with a fault. */
static const char *skip_after(struct scan *s, const char *p, const char **done)
{
    while (s->depth) {
        bool object = in_object(s);
        if (s->depth == 1 && object && s->arena) {
            struct claw_str *raw = &s->top->members[s->top->n - 1].value.raw;
            raw->len = (size_t)(p - raw->ptr);
        }
        p = claw_json_skip_space(p, s->end);
        if (p == s->end) return refuse_here(s, p);
        if (*p == ',') return object ? skip_key(s, p + 1) : p + 1;
        if (*p != (object ? '}' : ']')) return refuse_here(s, p);
        p++;
        s->depth--;
    }
    *done = p;
    return NULL;
}

/* The value at p and all in it; gives its end. */
static const char *skip_root(struct scan *s, const char *p)
{
    const char *done = NULL;
    size_t nodes = 0;
    while (p) {
        p = claw_json_skip_space(p, s->end);
        if (p == s->end) return refuse_here(s, p);
        if (++nodes > CLAW_JSON_NODES) return refuse(s, p, "too many values");
        char c = *p;
        if (c == '{' || c == '[') {
            if (!open_container(s, p)) return NULL;
            p = claw_json_skip_space(p + 1, s->end);
            if (p == s->end || *p != (c == '{' ? '}' : ']')) {
                if (c == '{') p = skip_key(s, p);
                continue;
            }
            p++;
            s->depth--;
        } else if (!(p = skip_scalar(s, p))) {
            return NULL;
        }
        p = skip_after(s, p, &done);
    }
    s->top->nodes = nodes;
    return done;
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

static void fill_err(struct claw_json_err *err, struct claw_str text, const struct scan *s)
{
    size_t offset = s->bad ? (size_t)(s->bad - text.ptr) : 0;
    *err = (struct claw_json_err){.offset = offset, .line = 1, .column = 1, .text = s->why};
    for (size_t i = 0; i < offset; i++) {
        err->column++;
        if (text.ptr[i] == '\n') {
            err->line++;
            err->column = 1;
        }
    }
}

int claw_json_check(struct claw_str text, bool keys_once, struct claw_arena *a, struct claw_json_top *top,
                    struct claw_json_err *err)
{
    const char *p = text.len ? text.ptr : "", *end = p + text.len;
    struct scan s = {.begin = p, .end = end, .arena = a, .top = top, .keys_once = keys_once};
    *top = (struct claw_json_top){0};
    text.ptr = p;
    const char *root = claw_json_skip_space(p, end), *after = NULL;
    if (root == end) refuse(&s, end, "empty text");
    else if (text.len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) refuse(&s, p, "byte order mark");
    else after = skip_root(&s, root);
    if (after) {
        p = claw_json_skip_space(after, end);
        if (p < end) after = refuse(&s, p, "more text after the value");
    }
    if (after) {
        top->root = (struct claw_json_value){{root, (size_t)(after - root)}, claw_json_type_of(*root)};
        return 0;
    }
    top->members = NULL;
    top->n = 0;
    if (s.no_memory) return CLAW_EREQ_MEM;
    if (err) fill_err(err, text, &s);
    return CLAW_EBAD_JSON;
}

int claw_json_scan(struct claw_str text, struct claw_arena *a, struct claw_json_top *top, struct claw_json_err *err)
{
    return claw_json_check(text, true, a, top, err);
}
