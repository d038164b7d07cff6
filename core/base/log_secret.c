/* log: the secrets that no line shows.
 *
 * A reader goes over the text with a Wu-Manber shift: the last two of six bytes say how far the next place is
 * where any secret could begin. `reach` and `bloom` only ever gain; the sets are immutable but for `recent`,
 * whose entries are written before its count. Sets that were replaced stay: a reader may be inside one. */
#include "base/log.h"
#include "base/log_part.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SECRET_MIN ((size_t)6)
#define SECRETS_MAX 4096
#define RECENT_MAX 64

struct secret {
    struct claw_str s;
    int shorter; /* index of the longest other secret that this one begins with, or -1 */
};

struct secrets {
    struct secrets *older;
    atomic_size_t recents;
    struct secret recent[RECENT_MAX];
    size_t n;
    struct secret sorted[];
};

static _Atomic(struct secrets *) secrets;
static unsigned secrets_known;
static atomic_uchar reach[4096];  /* 5 - shift */
static atomic_uchar bloom[8192];  /* of the first six bytes */

static unsigned pair_of(const char *p) { return ((unsigned char)p[0] ^ (unsigned)(unsigned char)p[1] << 4) & 4095; }

static unsigned bloom_of(const char *p)
{
    uint64_t w = 0;
    memcpy(&w, p, SECRET_MIN);
    return (unsigned)((w * UINT64_C(0x9E3779B97F4A7C15)) >> 48);
}

static int str_cmp(struct claw_str a, struct claw_str b)
{
    int r = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return r ? r : (a.len > b.len) - (a.len < b.len);
}

static int secret_cmp(const void *a, const void *b)
{
    return str_cmp(((const struct secret *)a)->s, ((const struct secret *)b)->s);
}

/* The length of the longest secret that `text` begins with, or 0. */
static size_t secret_at(const struct secrets *set, struct claw_str text)
{
    size_t best = 0, recents = atomic_load_explicit(&set->recents, memory_order_acquire);
    for (size_t i = 0; i < recents; i++)
        if (set->recent[i].s.len > best && claw_str_starts(text, set->recent[i].s)) best = set->recent[i].s.len;

    /* Whatever lies between a prefix of the text and the text begins with that prefix: so the greatest secret
     * that is not past the text, or one that it begins with in turn, is the longest prefix. */
    size_t lo = 0, hi = set->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (str_cmp(set->sorted[mid].s, text) <= 0) lo = mid + 1;
        else hi = mid;
    }
    int i = (int)lo - 1;
    while (i >= 0 && !claw_str_starts(text, set->sorted[i].s)) i = set->sorted[i].shorter;
    return i >= 0 && set->sorted[i].s.len > best ? set->sorted[i].s.len : best;
}

/* The next range of `s` from `from` on that secrets cover, overlapping ones together. False: none. */
static bool secret_next(const struct secrets *set, struct claw_str s, size_t from, size_t *start, size_t *end)
{
    *end = 0;
    for (size_t i = from; i + SECRET_MIN <= s.len && (*end == 0 || i < *end);) {
        const char *p = s.ptr + i;
        unsigned shift = 5 - atomic_load_explicit(&reach[pair_of(p + 4)], memory_order_relaxed);
        if (shift) {
            i += shift;
            continue;
        }
        unsigned h = bloom_of(p);
        if (atomic_load_explicit(&bloom[h >> 3], memory_order_relaxed) & (1u << (h & 7))) {
            size_t len = secret_at(set, (struct claw_str){p, s.len - i});
            if (len && *end == 0) *start = i;
            if (len && i + len > *end) *end = i + len;
        }
        i++;
    }
    return *end != 0;
}

/* With few secrets, a vectorised search for each is cheaper than the table, and nearly every line holds none. */
#define FEW_SECRETS 6
static bool none_of_few(const struct secrets *set, struct claw_str s)
{
    size_t recents = atomic_load_explicit(&set->recents, memory_order_acquire);
    if (set->n + recents > FEW_SECRETS) return false;
    for (size_t i = 0; i < recents; i++)
        if (claw_str_find(s, set->recent[i].s) >= 0) return false;
    for (size_t i = 0; i < set->n; i++)
        if (claw_str_find(s, set->sorted[i].s) >= 0) return false;
    return true;
}

static void redact_known(struct claw_buf *b, size_t at, size_t keep)
{
    const struct secrets *set = atomic_load_explicit(&secrets, memory_order_acquire);
    size_t start, end;
    if (!set || b->len - at < SECRET_MIN + keep) return;
    struct claw_str s = {b->data + at, b->len - at - keep};
    if (none_of_few(set, s) || !secret_next(set, s, 0, &start, &end)) return;

    char *p = b->data + at;
    size_t to = start, from;
    do {
        memcpy(p + to, "***", 3);
        to += 3;
        from = end;
        if (!secret_next(set, s, from, &start, &end)) start = s.len + keep;
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

/* `old` (may be NULL) and its recent ones, sorted into a new set without recent ones. */
static struct secrets *secrets_merge(struct secrets *old)
{
    size_t recents = old ? atomic_load(&old->recents) : 0, n = old ? old->n + recents : 0;
    struct secrets *set = calloc(1, sizeof *set + n * sizeof *set->sorted);
    CLAW_ASSERT(set); /* control plane: a secret that cannot be kept back must not be read on */
    set->older = old;
    set->n = n;
    if (n == 0) return set;
    memcpy(set->sorted, old->sorted, old->n * sizeof *set->sorted);
    memcpy(set->sorted + old->n, old->recent, recents * sizeof *set->sorted);
    qsort(set->sorted, n, sizeof *set->sorted, secret_cmp);
    for (size_t i = 0; i < n; i++) {
        int j = (int)i - 1;
        while (j >= 0 && !claw_str_starts(set->sorted[i].s, set->sorted[j].s)) j = set->sorted[j].shorter;
        set->sorted[i].shorter = j;
    }
    return set;
}

/* False: it was there already. */
static bool secret_add(struct claw_str s)
{
    struct secrets *set = atomic_load(&secrets);
    if (set && secret_at(set, s) == s.len) return false;
    size_t n = set ? atomic_load(&set->recents) : RECENT_MAX;
    if (n == RECENT_MAX) {
        set = secrets_merge(set);
        atomic_store_explicit(&secrets, set, memory_order_release);
        n = 0;
    }
    char *copy = malloc(s.len);
    CLAW_ASSERT(copy);
    memcpy(copy, s.ptr, s.len);
    set->recent[n] = (struct secret){.s = {copy, s.len}, .shorter = -1};
    atomic_store_explicit(&set->recents, n + 1, memory_order_release);

    unsigned h = bloom_of(copy);
    atomic_fetch_or(&bloom[h >> 3], (unsigned char)(1u << (h & 7)));
    for (unsigned j = 0; j < SECRET_MIN - 1; j++) {
        atomic_uchar *r = &reach[pair_of(copy + j)];
        if (atomic_load(r) < j + 1) atomic_store(r, (unsigned char)(j + 1));
    }
    return true;
}

void claw_log_secret(struct claw_str secret)
{
    if (secret.len < SECRET_MIN || secrets_known == SECRETS_MAX) return;
    if (!secret_add(secret)) return;
    secrets_known++;

    struct claw_buf b;
    claw_buf_init(&b, 0);
    CLAW_ASSERT(claw_buf_add_json(&b, secret) == 0);
    struct claw_str inside = {b.data + 1, b.len - 2};
    if (!claw_str_eq(inside, secret)) (void)secret_add(inside);
    claw_buf_fini(&b);
}
