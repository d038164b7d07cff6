#include "base/canon.h"

#include <math.h>
#include <pthread.h>
#include <sys/random.h>

#define NONE UINT32_MAX
#define EXACT_DIGITS 15 /* as many survive a double (DBL_DIG) */

/* ---- SipHash ------------------------------------------------------------------------------------------------------ */

static uint64_t secret[2];

static bool is_set;

void claw_canon_set_key(const unsigned char key[CLAW_CANON_BYTES])
{
    memcpy(secret, key, sizeof secret);
    is_set = true;
}

static void draw_secret(void)
{
    if (is_set) return;
    ssize_t n = getrandom(secret, sizeof secret, 0);
    CLAW_ASSERT(n == (ssize_t)sizeof secret);
}

static inline uint64_t turned(uint64_t x, unsigned n) { return x << n | x >> (64 - n); }

static inline void rounds(uint64_t v[4], unsigned n)
{
    while (n--) {
        v[0] += v[1], v[1] = turned(v[1], 13) ^ v[0], v[0] = turned(v[0], 32);
        v[2] += v[3], v[3] = turned(v[3], 16) ^ v[2];
        v[0] += v[3], v[3] = turned(v[3], 21) ^ v[0];
        v[2] += v[1], v[1] = turned(v[1], 17) ^ v[2], v[2] = turned(v[2], 32);
    }
}

static inline void take_word(struct claw_canon *c, uint64_t w)
{
    c->v[3] ^= w;
    rounds(c->v, 2);
    c->v[0] ^= w;
}

void claw_canon_begin(struct claw_canon *c)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, draw_secret);
    *c = (struct claw_canon){.v = {secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du ^ 0xee, secret[0] ^ 0x6c7967656e657261u,
                                   secret[1] ^ 0x7465646279746573u}};
}

/* `n` bytes, at most 8, in the low end of w. */
static inline void feed_word(struct claw_canon *c, uint64_t w, unsigned n)
{
    unsigned held = c->n & 7;
    c->n += n;
    c->tail |= w << 8 * held;
    if (held + n < 8) return;
    take_word(c, c->tail);
    c->tail = held ? w >> (64 - 8 * held) : 0;
}

static void feed(struct claw_canon *c, const char *at, size_t n)
{
    uint64_t w;
    for (; n >= 8; n -= 8, at += 8) {
        memcpy(&w, at, 8);
        feed_word(c, w, 8);
    }
    if (n == 0) return;
    w = 0;
    for (size_t i = 0; i < n; i++) w |= (uint64_t)(unsigned char)at[i] << 8 * i;
    feed_word(c, w, (unsigned)n);
}

static void feed_byte(struct claw_canon *c, char b) { feed_word(c, (unsigned char)b, 1); }

void claw_canon_add_number(struct claw_canon *c, uint64_t n) { feed_word(c, n, 8); }

void claw_canon_add(struct claw_canon *c, struct claw_str s)
{
    claw_canon_add_number(c, s.len);
    feed(c, s.ptr, s.len);
}

void claw_canon_end(struct claw_canon *c, unsigned char out[CLAW_CANON_BYTES])
{
    take_word(c, c->tail | (c->n & 0xff) << 56);
    c->v[2] ^= 0xee;
    rounds(c->v, 4);
    uint64_t w = c->v[0] ^ c->v[1] ^ c->v[2] ^ c->v[3];
    memcpy(out, &w, 8);
    c->v[1] ^= 0xdd;
    rounds(c->v, 4);
    w = c->v[0] ^ c->v[1] ^ c->v[2] ^ c->v[3];
    memcpy(out + 8, &w, 8);
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------- */

struct node {
    struct claw_str key, raw; /* key: decoded; raw of a container: empty */
    uint32_t up, child, last, next;
    uint8_t type;
};

struct reader {
    const char *at, *end;
    struct node *nodes;
    uint32_t n;
    struct claw_arena *arena;
};

static void skip_space(struct reader *d)
{
    while (d->at < d->end && (*d->at == ' ' || *d->at == '\n' || *d->at == '\t' || *d->at == '\r')) d->at++;
}

/* The string that begins here, quotes included. */
static struct claw_str string_here(struct reader *d)
{
    const char *from = d->at++;
    for (;;) {
        const char *quote = memchr(d->at, '"', (size_t)(d->end - d->at));
        CLAW_ASSERT(quote);
        const char *back = quote;
        while (back[-1] == '\\') back--;
        d->at = quote + 1;
        if (((quote - back) & 1) == 0) return (struct claw_str){from, (size_t)(d->at - from)};
    }
}

static struct claw_str scalar_here(struct reader *d)
{
    if (*d->at == '"') return string_here(d);
    const char *from = d->at;
    while (d->at < d->end && *d->at != ',' && *d->at != ']' && *d->at != '}' && *d->at != ' ' && *d->at != '\n' && *d->at != '\t' && *d->at != '\r') d->at++;
    return (struct claw_str){from, (size_t)(d->at - from)};
}

/* The value that begins here. Where the next one goes. */
static uint32_t add_node(struct reader *d, uint32_t up, struct claw_str key)
{
    char first = *d->at;
    bool container = first == '{' || first == '[';
    uint32_t me = d->n++;
    struct node *x = &d->nodes[me];
    *x = (struct node){.key = key, .up = up, .child = NONE, .last = NONE, .next = NONE};
    x->type = first == '{' ? CLAW_JSON_OBJECT : first == '[' ? CLAW_JSON_ARRAY : first == '"' ? CLAW_JSON_STRING
            : first == 't' ? CLAW_JSON_TRUE : first == 'f' ? CLAW_JSON_FALSE : first == 'n' ? CLAW_JSON_NULL : CLAW_JSON_NUMBER;
    if (container) d->at++;
    else x->raw = scalar_here(d);
    if (up != NONE) {
        struct node *parent = &d->nodes[up];
        *(parent->last == NONE ? &parent->child : &d->nodes[parent->last].next) = me;
        parent->last = me;
    }
    return container ? me : up;
}

/* The whole text as nodes; node 0 is the root. */
static int read_all(struct reader *d, size_t nodes)
{
    int rc = 0;
    skip_space(d);
    uint32_t open = add_node(d, NONE, CLAW_STR(""));
    while (rc == 0 && open != NONE) {
        skip_space(d);
        if (*d->at == ',') {
            d->at++;
        } else if (*d->at == ']' || *d->at == '}') {
            d->at++;
            open = d->nodes[open].up;
        } else {
            struct claw_str key = CLAW_STR("");
            if (d->nodes[open].type == CLAW_JSON_OBJECT) {
                struct claw_str raw = string_here(d);
                rc = claw_json_key_text((struct claw_str){raw.ptr + 1, raw.len - 2}, d->arena, &key);
                skip_space(d);
                d->at++; /* the colon */
                skip_space(d);
            }
            CLAW_ASSERT(d->n < nodes);
            if (rc == 0) open = add_node(d, open, key);
        }
    }
    return rc;
}

static int order(struct claw_str a, struct claw_str b)
{
    int d = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return d ? d : a.len < b.len ? -1 : a.len > b.len;
}

/* Of two sorted lists one; of equal keys those of `a` first. */
static uint32_t merged(struct node *all, uint32_t a, uint32_t b)
{
    uint32_t out = NONE, *to = &out;
    while (a != NONE && b != NONE) {
        uint32_t *from = order(all[a].key, all[b].key) <= 0 ? &a : &b;
        *to = *from;
        to = &all[*from].next;
        *from = *to;
    }
    *to = a != NONE ? a : b;
    return out;
}

/* A list of siblings by key: bins[i] holds a sorted run of 2^i of them, or none. */
static uint32_t sorted(struct node *all, uint32_t list)
{
    uint32_t bins[32], n = 0, out = NONE;
    while (list != NONE) {
        uint32_t run = list, i = 0;
        list = all[list].next;
        all[run].next = NONE;
        for (; i < n && bins[i] != NONE; i++) {
            run = merged(all, bins[i], run);
            bins[i] = NONE;
        }
        if (i == n) n++;
        bins[i] = run;
    }
    for (uint32_t i = 0; i < n; i++) out = merged(all, bins[i], out);
    return out;
}

/* Its value, where a double holds all that it says; else its text. */
static void feed_number(struct claw_canon *c, struct claw_str raw)
{
    double d;
    unsigned digits = 0;
    bool zero = true;
    for (size_t i = 0; i < raw.len && raw.ptr[i] != 'e' && raw.ptr[i] != 'E'; i++) {
        digits += raw.ptr[i] >= '0' && raw.ptr[i] <= '9';
        zero &= raw.ptr[i] < '1' || raw.ptr[i] > '9';
    }
    bool exact = digits <= EXACT_DIGITS && claw_json_double((struct claw_json_value){raw, CLAW_JSON_NUMBER}, &d) == 0 && isfinite(d) && (zero || fabs(d) >= 1e-300);
    feed_byte(c, exact ? 'd' : 'n');
    if (!exact) {
        claw_canon_add(c, raw);
        return;
    }
    if (zero) d = 0; /* no sign */
    feed(c, (const char *)&d, sizeof d);
}

static int feed_string(struct claw_canon *c, struct claw_str raw, struct claw_arena *a)
{
    struct claw_str text;
    int rc = claw_json_text((struct claw_json_value){raw, CLAW_JSON_STRING}, a, &text);
    if (rc != 0) return rc;
    feed_byte(c, 's');
    claw_canon_add(c, text);
    /* Halves of pairs all read as U+FFFD. */
    if (text.ptr != raw.ptr + 1 && claw_str_find(text, CLAW_STR("\xEF\xBF\xBD")) >= 0) claw_canon_add(c, raw);
    return 0;
}

static bool is_in(struct claw_str s, const struct claw_str *all, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (claw_str_eq(s, all[i])) return true;
    return false;
}

/* Of a container how it begins. */
static int feed_value(struct claw_canon *c, struct node *all, struct node *x, struct claw_arena *a)
{
    switch (x->type) {
    case CLAW_JSON_OBJECT:
        x->child = sorted(all, x->child);
        feed_byte(c, '{');
        return 0;
    case CLAW_JSON_ARRAY: feed_byte(c, '['); return 0;
    case CLAW_JSON_STRING: return feed_string(c, x->raw, a);
    case CLAW_JSON_NUMBER: feed_number(c, x->raw); return 0;
    default: feed_byte(c, x->raw.ptr[0]); return 0;
    }
}

int claw_canon_add_json(struct claw_canon *c, struct claw_str text, size_t nodes, const struct claw_str *skip, size_t skip_n, struct claw_arena *a)
{
    struct reader d = {text.ptr, text.ptr + text.len, NULL, 0, a};
    if (nodes >= NONE || !(d.nodes = claw_arena_alloc(a, nodes * sizeof *d.nodes))) return CLAW_EREQ_MEM;
    int rc = read_all(&d, nodes);
    for (uint32_t at = 0; rc == 0;) {
        struct node *x = &d.nodes[at];
        bool member = x->up != NONE && d.nodes[x->up].type == CLAW_JSON_OBJECT;
        if (!member || x->up != 0 || !is_in(x->key, skip, skip_n)) {
            if (member) {
                feed_byte(c, 'k');
                claw_canon_add(c, x->key);
            }
            rc = feed_value(c, d.nodes, x, a);
            if (x->child != NONE) {
                at = x->child;
                continue;
            }
            if (x->type == CLAW_JSON_OBJECT || x->type == CLAW_JSON_ARRAY) feed_byte(c, 'e');
        }
        while (x->next == NONE) {
            if (x->up == NONE) return rc;
            x = &d.nodes[x->up];
            feed_byte(c, 'e');
        }
        at = x->next;
    }
    return rc;
}
