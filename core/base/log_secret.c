/* log: the secrets that no line shows.
 *
 * A reader goes over the text with a Wu-Manber shift: the last three of six bytes say how far the next place is where any secret
 * could begin, a Bloom filter of all six whether one does, and a skip list in the order of the texts which. So what a line costs
 * hardly depends on how many secrets there are: 10,000 without anything in common leave shifts of nearly four bytes. Tables and list only
 * ever gain, by one writer; a node is whole before it can be found, so that readers take no lock. */
#include "base/log.h"
#include "base/log_part.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SECRET_MIN ((size_t)6)
#define SECRETS_MAX CLAW_LOG_SECRETS
#define BYTES_MAX CLAW_LOG_SECRET_BYTES
#define LATE_MAX 32 /* past those; each costs a search of every line */
#define LEVELS 9    /* 4^9 secrets */
#define SHIFT_MAX 4u

struct secret {
    struct claw_str s;
    _Atomic(struct secret *) next[]; /* of each level that it is in */
};

static _Atomic(struct secret *) heads[LEVELS];
static atomic_uint secrets_n;
static size_t secrets_bytes;
static atomic_uchar reach[1u << 20]; /* SHIFT_MAX - shift */
static atomic_uchar bloom[1u << 17]; /* of the first six bytes */

static unsigned triple_of(const char *p)
{
    uint32_t w = (unsigned char)p[0] | (uint32_t)(unsigned char)p[1] << 8 | (uint32_t)(unsigned char)p[2] << 16;
    return (w * UINT32_C(0x9E3779B1)) >> 12;
}

static unsigned bloom_of(const char *p)
{
    uint64_t w = 0;
    memcpy(&w, p, SECRET_MIN);
    return (unsigned)((w * UINT64_C(0x9E3779B97F4A7C15)) >> 44);
}

static int str_cmp(struct claw_str a, struct claw_str b)
{
    int r = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return r ? r : (a.len > b.len) - (a.len < b.len);
}

/* The greatest that is not past `text`, or NULL; of each level the link behind it, where `links` is not NULL. */
static struct secret *find(struct claw_str text, _Atomic(struct secret *) **links)
{
    struct secret *at = NULL;
    for (int level = LEVELS - 1; level >= 0; level--) {
        _Atomic(struct secret *) *link = at ? &at->next[level] : &heads[level];
        struct secret *next;
        while ((next = atomic_load_explicit(link, memory_order_acquire)) && str_cmp(next->s, text) <= 0) {
            at = next;
            link = &at->next[level];
        }
        if (links) links[level] = link;
    }
    return at;
}

/* The length of the longest secret that `text` begins with, or 0. */
static size_t secret_at(struct claw_str text)
{
    while (text.len >= SECRET_MIN) {
        const struct secret *s = find(text, NULL);
        if (!s) return 0;
        if (claw_str_starts(text, s->s)) return s->s.len;
        /* Whatever the text begins with and is not past it lies before `s`, and `s` begins with it, too. */
        size_t common = 0, most = s->s.len < text.len ? s->s.len : text.len;
        while (common < most && s->s.ptr[common] == text.ptr[common]) common++;
        text.len = common;
    }
    return 0;
}

/* The next range of `s` from `from` on that secrets cover, overlapping ones together. False: none. */
static bool secret_next(struct claw_str s, size_t from, size_t *start, size_t *end)
{
    *end = 0;
    for (size_t i = from; i + SECRET_MIN <= s.len && (*end == 0 || i < *end);) {
        const char *p = s.ptr + i;
        unsigned shift = SHIFT_MAX - atomic_load_explicit(&reach[triple_of(p + 3)], memory_order_relaxed);
        if (shift) {
            i += shift;
            continue;
        }
        unsigned h = bloom_of(p);
        if (atomic_load_explicit(&bloom[h >> 3], memory_order_relaxed) & (1u << (h & 7))) {
            size_t len = secret_at((struct claw_str){p, s.len - i});
            if (len && *end == 0) *start = i;
            if (len && i + len > *end) *end = i + len;
        }
        i++;
    }
    return *end != 0;
}

/* With few secrets, a vectorised search for each is cheaper than the table, and nearly every line holds none. */
#define FEW_SECRETS 6
static bool none_of_few(struct claw_str s)
{
    if (atomic_load_explicit(&secrets_n, memory_order_relaxed) > FEW_SECRETS) return false;
    for (const struct secret *one = atomic_load_explicit(&heads[0], memory_order_acquire); one; one = atomic_load_explicit(&one->next[0], memory_order_acquire))
        if (claw_str_find(s, one->s) >= 0) return false;
    return true;
}

static void redact_known(struct claw_buf *b, size_t at, size_t keep)
{
    size_t start, end;
    if (!atomic_load_explicit(&heads[0], memory_order_acquire) || b->len - at < SECRET_MIN + keep) return;
    struct claw_str s = {b->data + at, b->len - at - keep};
    if (none_of_few(s) || !secret_next(s, 0, &start, &end)) return;

    char *p = b->data + at;
    size_t to = start, from;
    do {
        memcpy(p + to, "***", 3);
        to += 3;
        from = end;
        if (!secret_next(s, from, &start, &end)) start = s.len + keep;
        memmove(p + to, p + from, start - from);
        to += start - from;
    } while (start < s.len);
    b->len = at + to;
}

/* ---- lent ones: few, so each is looked for ---- */

static pthread_rwlock_t lent_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct claw_log_lent *lent;
static atomic_uint lent_n;

void claw_log_secret_lend(struct claw_log_lent *l, struct claw_str secret)
{
    CLAW_ASSERT(!l->secret.ptr);
    if (secret.len < SECRET_MIN) return;
    pthread_rwlock_wrlock(&lent_lock);
    *l = (struct claw_log_lent){NULL, lent, secret};
    if (lent) lent->prev = l;
    lent = l;
    atomic_fetch_add(&lent_n, 1);
    pthread_rwlock_unlock(&lent_lock);
}

void claw_log_secret_return(struct claw_log_lent *l)
{
    if (!l->secret.ptr) return;
    pthread_rwlock_wrlock(&lent_lock);
    if (l->prev) l->prev->next = l->next;
    else lent = l->next;
    if (l->next) l->next->prev = l->prev;
    atomic_fetch_sub(&lent_n, 1);
    pthread_rwlock_unlock(&lent_lock);
    *l = (struct claw_log_lent){NULL, NULL, {NULL, 0}};
}

static void redact_lent(struct claw_buf *b, size_t at, size_t keep)
{
    if (atomic_load_explicit(&lent_n, memory_order_relaxed) == 0) return;
    pthread_rwlock_rdlock(&lent_lock);
    for (struct claw_log_lent *l = lent; l; l = l->next)
        for (size_t from = at; from + keep < b->len;) {
            ptrdiff_t found = claw_str_find((struct claw_str){b->data + from, b->len - from - keep}, l->secret);
            if (found < 0) break;
            char *p = b->data + from + found;
            size_t rest = b->len - from - (size_t)found - l->secret.len;
            memcpy(p, "***", 3);
            memmove(p + 3, p + l->secret.len, rest);
            b->len -= l->secret.len - 3;
            from += (size_t)found + 3;
        }
    pthread_rwlock_unlock(&lent_lock);
}

/* The bytes of `b` from data + `at` up to `keep` bytes before the end. */
void claw_log_redact_from(struct claw_buf *b, size_t at, size_t keep)
{
    redact_known(b, at, keep);
    redact_lent(b, at, keep);
}

void claw_log_redact(struct claw_buf *b)
{
    if (claw_buf_size(b)) claw_log_redact_from(b, b->off, 0);
}

static bool quotes_lent(struct claw_str s)
{
    bool found = false;
    if (atomic_load_explicit(&lent_n, memory_order_relaxed) == 0) return false;
    pthread_rwlock_rdlock(&lent_lock);
    for (const struct claw_log_lent *l = lent; l && !found; l = l->next) found = claw_str_find(s, l->secret) >= 0;
    pthread_rwlock_unlock(&lent_lock);
    return found;
}

bool claw_log_quotes_secret(struct claw_str s)
{
    size_t start, end;
    if (s.len < SECRET_MIN) return false;
    return (!none_of_few(s) && secret_next(s, 0, &start, &end)) || quotes_lent(s);
}

/* In how many levels: a quarter of those in one are in the next. */
static unsigned levels_of(void)
{
    static uint64_t x = UINT64_C(0x2545F4914F6CDD1D);
    unsigned n = 1;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    for (uint64_t bits = x; n < LEVELS && (bits & 3) == 0; bits >>= 2) n++;
    return n;
}

/* False: it was there already. */
static bool secret_add(struct claw_str s)
{
    _Atomic(struct secret *) *links[LEVELS];
    const struct secret *there = find(s, links);
    if (there && claw_str_eq(there->s, s)) return false;
    unsigned levels = levels_of();
    struct secret *new = malloc(sizeof *new + levels * sizeof *new->next + s.len);
    CLAW_ASSERT(new); /* control plane: a secret that cannot be kept back must not be read on */
    char *copy = (char *)&new->next[levels];
    memcpy(copy, s.ptr, s.len);
    new->s = (struct claw_str){copy, s.len};
    for (unsigned i = 0; i < levels; i++) atomic_init(&new->next[i], atomic_load(links[i]));
    secrets_bytes += s.len;
    atomic_fetch_add(&secrets_n, 1);

    unsigned h = bloom_of(copy);
    atomic_fetch_or(&bloom[h >> 3], (unsigned char)(1u << (h & 7)));
    for (unsigned j = 0; j < SHIFT_MAX; j++) {
        atomic_uchar *r = &reach[triple_of(copy + j)];
        if (atomic_load(r) < j + 1) atomic_store(r, (unsigned char)(j + 1));
    }
    for (unsigned i = 0; i < levels; i++) atomic_store_explicit(links[i], new, memory_order_release);
    return true;
}

static bool is_full(void) { return atomic_load(&secrets_n) >= SECRETS_MAX || secrets_bytes >= BYTES_MAX; }

/* Past the bound (keys that are rotated for years): the latest are lent, each looked for in every line. False: it was there. */
static bool keep_late(struct claw_str secret)
{
    static struct claw_log_lent late[LATE_MAX];
    static char *texts[LATE_MAX];
    static unsigned next;
    if (secret_at(secret) == secret.len) return false;
    for (unsigned i = 0; i < LATE_MAX; i++)
        if (late[i].secret.ptr && claw_str_eq(late[i].secret, secret)) return false;
    unsigned i = next++ % LATE_MAX;
    claw_log_secret_return(&late[i]);
    free(texts[i]);
    texts[i] = malloc(secret.len);
    CLAW_ASSERT(texts[i]);
    memcpy(texts[i], secret.ptr, secret.len);
    claw_log_secret_lend(&late[i], (struct claw_str){texts[i], secret.len});
    return true;
}

void claw_log_secret(struct claw_str secret)
{
    bool late = is_full();
    if (secret.len < SECRET_MIN || !(late ? keep_late(secret) : secret_add(secret))) return;

    struct claw_buf b;
    claw_buf_init(&b, 0);
    CLAW_ASSERT(claw_buf_add_json(&b, secret) == 0);
    struct claw_str inside = {b.data + 1, b.len - 2};
    if (!claw_str_eq(inside, secret)) (void)(late ? keep_late(inside) : secret_add(inside));
    claw_buf_fini(&b);
}
