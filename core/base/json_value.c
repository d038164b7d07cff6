/* json_value: slices of a scanned text: walking, text and numbers.
 *
 * The text is known to be valid, so a walk only looks for quotes and brackets. It still never leaves the slice,
 * whatever is in it.
 */
#include "base/json.h"

#include "base/json_part.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct claw_json_value none = {{NULL, 0}, CLAW_JSON_NONE};

/* ---- skipping --------------------------------------------------------------------------------------------- */

/* The next quote or bracket of any kind from p, or end. */
static inline const char *find_bracket(const char *p, const char *end)
{
#if CLAW_JSON_X86
    const __m128i quote = _mm_set1_epi8('"'), opening = _mm_set1_epi8('{'), closing = _mm_set1_epi8('}');
    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)p);
        __m128i y = _mm_or_si128(x, _mm_set1_epi8(0x20)); /* '[' and ']' fall on '{' and '}' */
        __m128i stop = _mm_or_si128(_mm_cmpeq_epi8(x, quote),
                                    _mm_or_si128(_mm_cmpeq_epi8(y, opening), _mm_cmpeq_epi8(y, closing)));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        if (mask) return p + __builtin_ctz(mask);
    }
#endif
    while (p < end && *p != '"' && (*p | 0x20) != '{' && (*p | 0x20) != '}') p++;
    return p;
}

#if CLAW_JSON_X86
static inline uint32_t equal(__m128i x, __m128i y, __m128i to)
{
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(x, to)) | (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(y, to)) << 16;
}

/* Which bytes of a block are escaped, given its backslashes? As in json_vector.c. */
static inline uint32_t escaped(uint32_t all, uint32_t *first)
{
    const uint32_t odd = 0xaaaaaaaa;
    uint32_t runs = all & ~*first, shown = (runs + (odd & ~(runs << 1))) ^ odd, escapes = shown ^ (all | *first);
    *first = (shown & all) >> 31;
    return escapes;
}

/* The end of a string from its first escape on, however dense they are. */
static __attribute__((noinline)) const char *escaped_end(const char *p, const char *end)
{
    const __m128i quote = _mm_set1_epi8('"'), back = _mm_set1_epi8('\\');
    uint32_t first = 0; /* is the block's first byte escaped? */
    for (; end - p >= 32; p += 32) {
        __m128i x = _mm_loadu_si128((const __m128i *)p), y = _mm_loadu_si128((const __m128i *)(p + 16));
        uint32_t open = equal(x, y, quote) & ~escaped(equal(x, y, back), &first);
        if (open) return p + __builtin_ctz(open) + 1;
    }
    for (p += first; p < end; p++) { /* one past end, when a slice that is not JSON ends here */
        if (*p == '"') return p + 1;
        if (*p == '\\') p++;
    }
    return end;
}
#endif

const char *claw_json_string_end(const char *p, const char *end)
{
#if CLAW_JSON_X86
    const __m128i quote = _mm_set1_epi8('"'), back = _mm_set1_epi8('\\');
    while (end - p >= 32) {
        const char *block = p;
        __m128i x = _mm_loadu_si128((const __m128i *)p), y = _mm_loadu_si128((const __m128i *)(p + 16));
        x = _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, back));
        y = _mm_or_si128(_mm_cmpeq_epi8(y, quote), _mm_cmpeq_epi8(y, back));
        uint32_t mask = (uint32_t)_mm_movemask_epi8(x) | (uint32_t)_mm_movemask_epi8(y) << 16;
        p += 32;
        if (!mask) continue;
        const char *at = block + __builtin_ctz(mask);
        return *at == '"' ? at + 1 : escaped_end(at, end);
    }
#endif
    for (; p < end; p++) {
        if (*p == '"') return p + 1;
        if (*p == '\\') p++;
    }
    return end;
}

/* p is at an opening bracket; gives the place after its closing one, and how deep it went. */
static const char *container_end(const char *p, const char *end, unsigned *height)
{
    unsigned depth = 0, most = 0;
    while ((p = find_bracket(p, end)) < end) {
        char c = *p++;
        if (c == '"') p = claw_json_string_end(p, end);
        else if (c == '{' || c == '[') most = ++depth > most ? depth : most;
        else if (--depth == 0) break;
    }
    *height = most;
    return p;
}

/* p is at the first byte of a value. */
static const char *value_end(const char *p, const char *end)
{
    unsigned height;
    if (*p == '"') return claw_json_string_end(p + 1, end);
    if (*p == '{' || *p == '[') return container_end(p, end, &height);
    while (p < end && *p != ',' && *p != '}' && *p != ']' && (unsigned char)*p > 0x20) p++;
    return p;
}

unsigned claw_json_height(struct claw_str raw)
{
    unsigned height = 0;
    if (raw.len && (*raw.ptr == '{' || *raw.ptr == '[')) container_end(raw.ptr, raw.ptr + raw.len, &height);
    return height;
}

/* ---- escapes ---------------------------------------------------------------------------------------------- */

/* A hex digit's value and one; 0: it is none. */
static const uint8_t digits[256] = {
    ['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5, ['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10, ['a'] = 11, ['b'] = 12,
    ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16};

/* Four hex digits at p; -1 when they are not there. */
static inline long hex4(const char *p, const char *end)
{
    if (end - p < 4) return -1;
    unsigned a = digits[(uint8_t)p[0]], b = digits[(uint8_t)p[1]], c = digits[(uint8_t)p[2]], d = digits[(uint8_t)p[3]];
    if (!a || !b || !c || !d) return -1;
    return (long)((a - 1) << 12 | (b - 1) << 8 | (c - 1) << 4 | (d - 1));
}

static inline size_t put_utf8(char *out, long u)
{
    if (u < 0x80) {
        out[0] = (char)u;
        return 1;
    }
    if (u < 0x800) {
        out[0] = (char)(0xc0 | u >> 6);
        out[1] = (char)(0x80 | (u & 0x3f));
        return 2;
    }
    if (u < 0x10000) {
        out[0] = (char)(0xe0 | u >> 12);
        out[1] = (char)(0x80 | (u >> 6 & 0x3f));
        out[2] = (char)(0x80 | (u & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | u >> 18);
    out[1] = (char)(0x80 | (u >> 12 & 0x3f));
    out[2] = (char)(0x80 | (u >> 6 & 0x3f));
    out[3] = (char)(0x80 | (u & 0x3f));
    return 4;
}

/* Decode the escape at *p (a backslash) into out, at most 4 bytes and never more than it is long itself; moves *p
 * past it. */
static inline size_t decode_escape(const char **p, const char *end, char out[4])
{
    static const char letters[256] = {['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};
    const char *at = *p;
    if (end - at < 2) {
        *p = end;
        return 0;
    }
    if (at[1] != 'u') {
        char letter = letters[(uint8_t)at[1]];
        out[0] = letter ? letter : at[1];
        *p = at + 2;
        return 1;
    }
    long u = hex4(at + 2, end), low;
    if (u < 0) {
        *p = end;
        return 0;
    }
    *p = at + 6;
    if (u < 0xd800 || u > 0xdfff) return put_utf8(out, u);
    if (u > 0xdbff || end - at < 12 || at[6] != '\\' || at[7] != 'u') return put_utf8(out, 0xfffd);
    low = hex4(at + 8, end);
    if (low < 0xdc00 || low > 0xdfff) return put_utf8(out, 0xfffd);
    *p = at + 12;
    return put_utf8(out, 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00));
}

/* Does `raw`, between quotes, decode to `s`? */
static bool raw_is(struct claw_str raw, struct claw_str s)
{
    if (raw.len && s.len && raw.ptr[0] != s.ptr[0] && raw.ptr[0] != '\\') return false;
    if (raw.len == s.len) return claw_str_eq(raw, s) && (s.len == 0 || !memchr(s.ptr, '\\', s.len));
    if (raw.len < s.len) return false; /* an escape is longer than what it stands for */
    if (!s.ptr) s.ptr = "";
    const char *p = raw.ptr, *end = p + raw.len, *q = s.ptr, *stop = q + s.len;
    while (p < end) {
        char one[4];
        size_t n = 1;
        one[0] = *p;
        if (*p == '\\') n = decode_escape(&p, end, one);
        else p++;
        if ((size_t)(stop - q) < n || memcmp(q, one, n) != 0) return false;
        q += n;
    }
    return q == stop;
}

/* ---- walking ---------------------------------------------------------------------------------------------- */

bool claw_json_next(struct claw_json_value v, size_t *pos, struct claw_str *key, struct claw_json_value *out)
{
    *out = none;
    if (key) *key = (struct claw_str){"", 0};
    if ((v.type != CLAW_JSON_ARRAY && v.type != CLAW_JSON_OBJECT) || *pos >= v.raw.len) return false;
    const char *end = v.raw.ptr + v.raw.len;
    const char *p = claw_json_skip_space(*pos ? v.raw.ptr + *pos : v.raw.ptr + 1, end);
    if (p < end && *p == ',') p = claw_json_skip_space(p + 1, end);
    if (p < end && v.type == CLAW_JSON_OBJECT && *p == '"') {
        const char *after = claw_json_string_end(p + 1, end);
        if (key) *key = (struct claw_str){p + 1, (size_t)(after - p) - (after - p < 2 ? 1 : 2)};
        p = claw_json_skip_space(after, end);
        if (p < end && *p == ':') p = claw_json_skip_space(p + 1, end);
    }
    if (p == end || *p == '}' || *p == ']') {
        *pos = v.raw.len;
        return false;
    }
    const char *after = value_end(p, end);
    if (after == p) after++; /* not JSON at all: move on all the same */
    *out = (struct claw_json_value){{p, (size_t)(after - p)}, claw_json_type_of(*p)};
    *pos = (size_t)(after - v.raw.ptr);
    return true;
}

struct claw_json_value claw_json_get(struct claw_json_value object, struct claw_str key)
{
    struct claw_json_value found = none, v;
    struct claw_str k;
    if (object.type != CLAW_JSON_OBJECT) return none;
    for (size_t pos = 0; claw_json_next(object, &pos, &k, &v);)
        if (raw_is(k, key)) found = v;
    return found;
}

struct claw_json_value claw_json_top_get(const struct claw_json_top *top, struct claw_str key)
{
    for (size_t i = top->n; i-- > 0;)
        if (raw_is(top->members[i].key, key)) return top->members[i].value;
    return none;
}

struct claw_json_value claw_json_at(struct claw_json_value array, long i)
{
    struct claw_json_value v, last[16];
    size_t pos = 0, n = 0, back = 0 - (size_t)i;
    if (array.type != CLAW_JSON_ARRAY) return none;
    if (i < 0 && back <= 16) { /* one pass that remembers the last few */
        for (; claw_json_next(array, &pos, NULL, &v); n++) last[n % 16] = v;
        return back <= n ? last[(n - back) % 16] : none;
    }
    if (i < 0) {
        n = claw_json_count(array);
        if (back > n) return none;
        i = (long)(n - back);
    }
    while (claw_json_next(array, &pos, NULL, &v))
        if (i-- == 0) return v;
    return none;
}

size_t claw_json_count(struct claw_json_value v)
{
    struct claw_json_value child;
    size_t n = 0;
    for (size_t pos = 0; claw_json_next(v, &pos, NULL, &child);) n++;
    return n;
}

struct claw_json_value claw_json_value_of(struct claw_str raw)
{
    if (!raw.len) return none;
    const char *end = raw.ptr + raw.len, *p = claw_json_skip_space(raw.ptr, end);
    while (end > p && (end[-1] == ' ' || end[-1] == '\n' || end[-1] == '\r' || end[-1] == '\t')) end--;
    if (p == end) return none;
    return (struct claw_json_value){{p, (size_t)(end - p)}, claw_json_type_of(*p)};
}

/* ---- text ------------------------------------------------------------------------------------------------- */

/* Between the quotes of a string value. */
static struct claw_str inside(struct claw_json_value v)
{
    if (v.raw.len < 2) return (struct claw_str){"", 0};
    return (struct claw_str){v.raw.ptr + 1, v.raw.len - 2};
}

bool claw_json_text_is(struct claw_json_value v, struct claw_str s)
{
    return v.type == CLAW_JSON_STRING && raw_is(inside(v), s);
}

/* Copy up to the next backslash, or to the end; moves both on. `to` has room for all that is left. A run may be short and there
 * may be millions, so that a call for each would cost more than the copying. */
static inline void copy_run(const char **from, const char *end, char **to)
{
    const char *p = *from;
    char *q = *to;
#if CLAW_JSON_X86
    const __m128i back = _mm_set1_epi8('\\');
    for (; end - p >= 16; p += 16, q += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)p);
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(x, back));
        _mm_storeu_si128((__m128i *)q, x);
        if (!mask) continue;
        *from = p + __builtin_ctz(mask);
        *to = q + __builtin_ctz(mask);
        return;
    }
#endif
    while (p < end && *p != '\\') *q++ = *p++;
    *from = p;
    *to = q;
}

int claw_json_key_text(struct claw_str raw_key, struct claw_arena *a, struct claw_str *out)
{
    *out = raw_key;
    if (!raw_key.len) return 0;
    const char *p = raw_key.ptr, *end = p + raw_key.len, *back = memchr(p, '\\', raw_key.len);
    if (!back) return 0;
    char *to = claw_arena_alloc(a, raw_key.len), *q = to;
    if (!to) return CLAW_EREQ_MEM;
    memcpy(q, p, (size_t)(back - p));
    q += back - p;
    p = back;
    while (p < end) { /* no escape is shorter than what it stands for */
        if (*p == '\\') q += decode_escape(&p, end, q);
        else copy_run(&p, end, &q);
    }
    *out = (struct claw_str){to, (size_t)(q - to)};
    return 0;
}

int claw_json_text(struct claw_json_value v, struct claw_arena *a, struct claw_str *out)
{
    *out = (struct claw_str){"", 0};
    if (v.type != CLAW_JSON_STRING) return CLAW_EINVAL;
    return claw_json_key_text(inside(v), a, out);
}

/* ---- numbers ---------------------------------------------------------------------------------------------- */

/* No double needs more than 768 significant digits to be told from its neighbours; one more digit that is not 0
 * stands for all that follow. */
#define DIGITS_MAX 800

/* (-1 when neg) * digits * 10^exp, without leading zeros; n 0 is zero. */
struct decimal {
    bool neg, cut; /* cut: digits that are not 0 were left out */
    size_t n;
    int64_t exp;
    char digits[DIGITS_MAX + 1];
};

static bool read_decimal(struct claw_json_value v, struct decimal *d)
{
    if (v.type != CLAW_JSON_NUMBER) return false;
    const char *p = v.raw.ptr, *end = p + v.raw.len;
    bool point = false;
    d->neg = p < end && *p == '-';
    d->cut = false;
    d->n = 0;
    d->exp = 0;
    for (p += d->neg; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        bool keep = d->n < DIGITS_MAX && (d->n || *p != '0');
        if (keep) d->digits[d->n++] = *p;
        else if (*p != '0') d->cut = true;
        if (point) d->exp -= keep || !d->n;
        else if (!keep && d->n) d->exp++;
    }
    if (p < end) p++;
    bool minus = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    int64_t exp = 0;
    for (; p < end; p++)
        if (exp < (int64_t)1 << 48) exp = exp * 10 + (*p - '0');
    d->exp += minus ? -exp : exp;
    return true;
}

static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

int claw_json_double(struct claw_json_value v, double *out)
{
    struct decimal d;
    char text[DIGITS_MAX + 40];
    *out = 0;
    if (!read_decimal(v, &d)) return CLAW_EINVAL;
    if (d.n <= 15 && d.exp >= -22 && d.exp <= 22) { /* both exact, so one rounding */
        double m = 0;
        for (size_t i = 0; i < d.n; i++) m = m * 10 + (d.digits[i] - '0');
        m = d.exp < 0 ? m / tens[-d.exp] : m * tens[d.exp];
        *out = d.neg ? -m : m;
        return 0;
    }
    if (!d.n) {
        *out = d.neg ? -0.0 : 0.0;
        return 0;
    }
    if (d.cut) {
        d.digits[d.n++] = '1';
        d.exp--;
    }
    /* Without a point the text reads the same in every locale. */
    if (d.exp > 99999) d.exp = 99999;
    if (d.exp < -99999) d.exp = -99999;
    memcpy(text, d.digits, d.n);
    snprintf(text + d.n, sizeof text - d.n, "e%d", (int)d.exp);
    int keep = errno;
    double m = strtod(text, NULL);
    errno = keep;
    *out = d.neg ? -m : m;
    return 0;
}

int claw_json_int(struct claw_json_value v, int64_t *out)
{
    struct decimal d;
    *out = 0;
    if (!read_decimal(v, &d)) return CLAW_EINVAL;
    while (d.n && d.digits[d.n - 1] == '0') {
        d.n--;
        d.exp++;
    }
    if (!d.n) return 0;
    if (d.cut || d.exp < 0 || d.exp > 18 || d.n > 19) return CLAW_EINVAL;
    uint64_t m = 0, most = (uint64_t)INT64_MAX + d.neg;
    for (int64_t i = 0; i < (int64_t)d.n + d.exp; i++) {
        unsigned digit = i < (int64_t)d.n ? (unsigned)(d.digits[i] - '0') : 0;
        if (m > (most - digit) / 10) return CLAW_EINVAL;
        m = m * 10 + digit;
    }
    *out = d.neg ? (int64_t)(0 - m) : (int64_t)m;
    return 0;
}
