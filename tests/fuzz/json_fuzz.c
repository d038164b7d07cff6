/* json: the scan against a plain recursive validator; walks and the document against each other.
 *
 * Input: the text up to a 0xff 0xff pair or the end; what follows drives changes of the document.
 */
#include "base/json.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the reference: RFC 8259 word by word ----------------------------------------------------------------- */

struct ref {
    const uint8_t *p, *end;
    unsigned depth;
    unsigned models, streams; /* top-level keys */
};

static bool ref_value(struct ref *r);

static bool ref_take(struct ref *r, uint8_t c)
{
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

static void ref_space(struct ref *r)
{
    while (r->p < r->end && (*r->p == 0x20 || *r->p == 0x09 || *r->p == 0x0a || *r->p == 0x0d)) r->p++;
}

static bool ref_digits(struct ref *r)
{
    const uint8_t *from = r->p;
    while (r->p < r->end && *r->p >= '0' && *r->p <= '9') r->p++;
    return r->p > from;
}

static bool ref_number(struct ref *r)
{
    ref_take(r, '-');
    if (!ref_take(r, '0') && !ref_digits(r)) return false;
    if (ref_take(r, '.') && !ref_digits(r)) return false;
    if (ref_take(r, 'e') || ref_take(r, 'E')) {
        if (!ref_take(r, '+')) ref_take(r, '-');
        return ref_digits(r);
    }
    return true;
}

static int ref_hex(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One character past ASCII by decoding it and asking whether its number needs that many bytes. */
static bool ref_utf8(struct ref *r)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t c = *r->p;
    int n = c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc0 && c < 0xe0 ? 2 : 0;
    if (!n || r->end - r->p < n) return false;
    uint32_t u = c & (0xff >> (n + 1));
    for (int i = 1; i < n; i++) {
        if (r->p[i] < 0x80 || r->p[i] > 0xbf) return false;
        u = u << 6 | (r->p[i] & 0x3f);
    }
    r->p += n;
    return u >= least[n] && u <= 0x10ffff && !(u >= 0xd800 && u <= 0xdfff);
}

/* `ascii` gets the first bytes of the decoded text, 0 ended, with '?' for all that is not ASCII. */
static bool ref_string(struct ref *r, char ascii[16])
{
    size_t n = 0;
    if (!ref_take(r, '"')) return false;
    while (r->p < r->end && *r->p != '"') {
        unsigned u = *r->p;
        if (u < 0x20) return false;
        if (u >= 0x80) {
            if (!ref_utf8(r)) return false;
        } else if (u == '\\') {
            r->p++;
            if (r->p == r->end) return false;
            u = *r->p++;
            if (u == 'u') {
                u = 0;
                for (int i = 0; i < 4; i++, r->p++) {
                    if (r->p == r->end || ref_hex(*r->p) < 0) return false;
                    u = u * 16 + (unsigned)ref_hex(*r->p);
                }
            } else if (u == 0 || !strchr("\"\\/bfnrt", (int)u)) {
                return false;
            } else if (u != '"' && u != '\\' && u != '/') {
                u = 0x80; /* a control: no letter of a key that counts */
            }
        } else {
            r->p++;
        }
        if (n < 15) ascii[n++] = u && u < 0x80 ? (char)u : '?';
    }
    ascii[n] = 0;
    return ref_take(r, '"');
}

static bool ref_word(struct ref *r, const char *word)
{
    for (; *word; word++)
        if (!ref_take(r, (uint8_t)*word)) return false;
    return true;
}

static bool ref_container(struct ref *r, bool object)
{
    char key[16];
    if (++r->depth > CLAW_JSON_DEPTH) return false;
    r->p++;
    ref_space(r);
    if (!ref_take(r, object ? '}' : ']')) {
        do {
            ref_space(r);
            if (object) {
                if (!ref_string(r, key)) return false;
                r->models += r->depth == 1 && !strcmp(key, "model");
                r->streams += r->depth == 1 && !strcmp(key, "stream");
                if (r->models > 1 || r->streams > 1) return false;
                ref_space(r);
                if (!ref_take(r, ':')) return false;
                ref_space(r);
            }
            if (!ref_value(r)) return false;
            ref_space(r);
        } while (ref_take(r, ','));
        if (!ref_take(r, object ? '}' : ']')) return false;
    }
    r->depth--;
    return true;
}

static bool ref_value(struct ref *r)
{
    char ignored[16];
    if (r->p == r->end) return false;
    switch (*r->p) {
    case '{': return ref_container(r, true);
    case '[': return ref_container(r, false);
    case '"': return ref_string(r, ignored);
    case 't': return ref_word(r, "true");
    case 'f': return ref_word(r, "false");
    case 'n': return ref_word(r, "null");
    default: return ref_number(r);
    }
}

static bool ref_accepts(struct claw_str text)
{
    struct ref r = {.p = (const uint8_t *)text.ptr, .end = (const uint8_t *)text.ptr + text.len};
    ref_space(&r);
    if (!ref_value(&r)) return false;
    ref_space(&r);
    return r.p == r.end;
}

/* ---- walks ------------------------------------------------------------------------------------------------ */

/* Nothing is lost: the values a walk gives are values, and counting agrees with the scan. */
static size_t walk(struct claw_json_value v, struct claw_arena *a)
{
    struct claw_json_value child;
    struct claw_str key, text;
    size_t nodes = 1, n = 0;
    double d;
    int64_t i;
    CLAW_ASSERT(v.type != CLAW_JSON_NONE);
    CLAW_ASSERT(ref_accepts(v.raw) || v.type == CLAW_JSON_OBJECT);
    CLAW_ASSERT((claw_json_double(v, &d) == 0) == (v.type == CLAW_JSON_NUMBER));
    if (claw_json_int(v, &i) == 0) CLAW_ASSERT(d == (double)i);
    if (claw_json_text(v, a, &text) == 0) CLAW_ASSERT(claw_json_text_is(v, text));
    for (size_t pos = 0; claw_json_next(v, &pos, &key, &child); n++) {
        nodes += walk(child, a);
        CLAW_ASSERT(claw_json_key_text(key, a, &text) == 0);
        if (v.type == CLAW_JSON_OBJECT) CLAW_ASSERT(claw_json_get(v, text).type != CLAW_JSON_NONE);
        else if (n < 64) CLAW_ASSERT(claw_json_at(v, (long)n).raw.ptr == child.raw.ptr);
        if (n > 256) break; /* looking up is linear */
    }
    if (n > 256) return 0;
    CLAW_ASSERT(claw_json_count(v) == n);
    if (n && v.type == CLAW_JSON_ARRAY) CLAW_ASSERT(claw_json_at(v, -(long)n).raw.ptr == claw_json_at(v, 0).raw.ptr);
    return nodes;
}

/* ---- the document ----------------------------------------------------------------------------------------- */

struct steps {
    const uint8_t *p, *end;
};

static size_t step(struct steps *s, size_t n)
{
    uint8_t c = s->p < s->end ? *s->p++ : 0;
    return n ? c % n : 0;
}

static void change(struct claw_json_doc *d, struct steps *s)
{
    static const char *const fresh[] = {"1", "[ ]", "{\"a\" : 1}", "\"\\u0000\"", "{\"model\":1,\"model\":2}", "[[],{}]"};
    struct claw_json_node *known[8], *root = claw_json_doc_root(d);
    for (size_t i = 0; i < 8; i++) known[i] = root;
    for (int budget = 64; budget && s->p < s->end; budget--) {
        struct claw_json_node *n = known[step(s, 8)], *v = known[step(s, 8)], *child = NULL;
        size_t count = claw_json_node_count(n, NULL), i = step(s, count + 1), what = step(s, 6), to = step(s, 8);
        struct claw_str key = {(const char *)s->p, step(s, 5)};
        int rc = 0;
        if (key.len > (size_t)(s->end - (const uint8_t *)key.ptr)) key.len = 0;
        if (what == 0) child = claw_json_node_at(n, i, &rc);
        else if (what == 1) child = claw_json_node_member(n, i, &key, &rc);
        else if (what == 2) rc = claw_json_node_new(d, claw_str_of(fresh[step(s, 6)]), &child);
        else if (what == 3) rc = claw_json_node_type(n) == CLAW_JSON_ARRAY ? claw_json_node_del_at(n, i) : claw_json_node_del(n, key);
        else if (what == 4 || claw_json_node_type(n) == CLAW_JSON_OBJECT) rc = claw_json_node_set(n, key, v);
        else rc = claw_json_node_insert(n, i, v);
        CLAW_ASSERT(rc == 0 || rc == CLAW_EINVAL || rc == CLAW_EREQ_MEM);
        if (what == 3 && rc == 0 && claw_json_node_type(n) == CLAW_JSON_OBJECT) CLAW_ASSERT(!claw_json_node_get(n, key, &rc));
        if (child) known[to] = child;
    }
}

static void check_doc(struct claw_str text, struct steps s, size_t cap)
{
    struct claw_arena a, b;
    struct claw_json_doc *d;
    struct claw_json_err err;
    struct claw_json_top top;
    struct claw_buf out;
    claw_arena_init(&a, NULL, 0, cap);
    claw_arena_init(&b, NULL, 0, (size_t)64 << 20);
    claw_buf_init(&out, 0);
    int rc = claw_json_doc_new(&a, text, &d, &err);
    CLAW_ASSERT(rc == 0 || rc == CLAW_EREQ_MEM);
    if (!rc) {
        CLAW_ASSERT(claw_json_doc_write(d, &out) == 0);
        CLAW_ASSERT(claw_str_eq(claw_buf_str(&out), text));
        claw_buf_clear(&out);
        change(d, &s);
        CLAW_ASSERT(claw_json_doc_write(d, &out) == 0);
        CLAW_ASSERT(claw_json_doc_changed(d) || claw_str_eq(claw_buf_str(&out), text));
        rc = claw_json_scan(claw_buf_str(&out), &b, &top, &err);
        CLAW_ASSERT(rc == 0);
    }
    claw_buf_fini(&out);
    claw_arena_reset(&a);
    claw_arena_reset(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *cut = size ? memmem(data, size, "\xff\xff", 2) : NULL;
    struct claw_str text = {(const char *)data, cut ? (size_t)(cut - data) : size};
    struct steps s = {cut ? cut + 2 : data, data + size}; /* without a cut the text is its own driver */
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err = {0};
    if (size > 1 << 16) return 0;
    char *exact = malloc(text.len ? text.len : 1); /* so that a read past the end is seen */
    if (!exact) return 0;
    if (text.len) memcpy(exact, text.ptr, text.len);
    text.ptr = exact;
    claw_arena_init(&a, NULL, 0, (size_t)64 << 20);
    int rc = claw_json_scan(text, &a, &top, &err);
    CLAW_ASSERT(rc == 0 || rc == CLAW_EBAD_JSON);
    CLAW_ASSERT((rc == 0) == ref_accepts(text));
    if (rc) {
        CLAW_ASSERT(err.offset <= text.len && err.line >= 1 && err.column >= 1 && err.text);
        claw_json_count(claw_json_value_of(text)); /* wrong, but it must not leave the slice */
        claw_json_get(claw_json_value_of(text), CLAW_STR("model"));
    } else {
        size_t nodes = walk(top.root, &a);
        CLAW_ASSERT(nodes <= top.nodes);
        check_doc(text, s, (size_t)2 << 20); /* copies of copies end before CLAW_JSON_NODES do */
        check_doc(text, s, size * 16);
    }
    claw_arena_reset(&a);
    free(exact);
    return 0;
}
