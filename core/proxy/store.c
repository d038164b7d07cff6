#include "proxy/store.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

#define SHARDS 64u
#define BUCKETS_MIN 16u
#define NOWHERE UINT32_MAX
#define NEVER UINT64_MAX
#define OVERHEAD 48u   /* malloc's own, and the places in buckets and heap, which double when full */
#define SWEEP 4u       /* expired entries a write lets go of besides */

struct entry {
    struct entry *chain;          /* in its bucket; when out of the table: in a list of the dead */
    struct entry *newer, *older;  /* by use */
    uint64_t hash, used_ms, ends_ms; /* NEVER: no end */
    uint32_t heap_at;             /* NOWHERE: not in the heap */
    uint32_t text_len;
    uint16_t space_len, name_len;
    uint8_t kind;
    bool truth;
    double number;
    char bytes[];                 /* space, name, text */
};

struct shard {
    pthread_mutex_t lock;
    struct entry **buckets;
    size_t buckets_n, n;
    struct entry *newest, *oldest;
    struct entry **heap;          /* those with an end, the first to end at the root */
    uint32_t heap_n, heap_cap;
    _Atomic uint64_t ends_ms, used_ms; /* the root's, the oldest's; to be read without the lock */
} __attribute__((aligned(64)));

struct claw_store {
    struct shard shards[SHARDS];
    uint64_t seed[2];
    _Atomic size_t cap;
    _Atomic int64_t bytes, entries, evictions;
    _Atomic unsigned hand;        /* where the next search among shards begins */
};

/* ---- hash --------------------------------------------------------------------------------------------------- */

struct sip { uint64_t v[4], word; unsigned n; };

static uint64_t rotl(uint64_t x, int b) { return x << b | x >> (64 - b); }

static void sip_round(uint64_t v[4])
{
    v[0] += v[1]; v[1] = rotl(v[1], 13) ^ v[0]; v[0] = rotl(v[0], 32);
    v[2] += v[3]; v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3]; v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1]; v[1] = rotl(v[1], 17) ^ v[2]; v[2] = rotl(v[2], 32);
}

static void sip_word(struct sip *h, uint64_t m)
{
    h->v[3] ^= m;
    sip_round(h->v);
    sip_round(h->v);
    h->v[0] ^= m;
}

static void sip_feed(struct sip *h, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        h->word |= (uint64_t)(unsigned char)p[i] << (h->n % 8 * 8);
        if (++h->n % 8) continue;
        sip_word(h, h->word);
        h->word = 0;
    }
}

/* SipHash-2-4 (Aumasson, Bernstein) of the space, a NUL and the name. */
static uint64_t hash_of(const struct claw_store *s, struct claw_store_key key)
{
    struct sip h = {{s->seed[0] ^ 0x736f6d6570736575u, s->seed[1] ^ 0x646f72616e646f6du, s->seed[0] ^ 0x6c7967656e657261u,
                     s->seed[1] ^ 0x7465646279746573u}, 0, 0};
    sip_feed(&h, key.space.ptr, key.space.len);
    sip_feed(&h, "", 1);
    sip_feed(&h, key.name.ptr, key.name.len);
    sip_word(&h, h.word | (uint64_t)h.n << 56);
    h.v[2] ^= 0xff;
    for (int i = 0; i < 4; i++) sip_round(h.v);
    return h.v[0] ^ h.v[1] ^ h.v[2] ^ h.v[3];
}

/* ---- one entry ---------------------------------------------------------------------------------------------- */

static bool fits(struct claw_store_key key, const struct claw_store_value *v)
{
    return key.name.len <= CLAW_STORE_NAME_MAX && key.space.len <= UINT16_MAX &&
           (!v || v->kind != CLAW_STORE_TEXT || v->text.len <= CLAW_STORE_TEXT_MAX);
}

static int64_t cost(const struct entry *e)
{
    return (int64_t)(sizeof *e + OVERHEAD + e->space_len + e->name_len + e->text_len);
}

static struct claw_str text_of(const struct entry *e) { return (struct claw_str){e->bytes + e->space_len + e->name_len, e->text_len}; }

static struct entry *entry_new(struct claw_store_key key, uint64_t hash, const struct claw_store_value *v, uint64_t ttl_ms, uint64_t now_ms)
{
    size_t text = v->kind == CLAW_STORE_TEXT ? v->text.len : 0;
    struct entry *e = malloc(sizeof *e + key.space.len + key.name.len + text);
    if (!e) return NULL;
    *e = (struct entry){.hash = hash, .ends_ms = ttl_ms ? now_ms + ttl_ms : NEVER, .heap_at = NOWHERE, .text_len = (uint32_t)text,
                        .space_len = (uint16_t)key.space.len, .name_len = (uint16_t)key.name.len, .kind = (uint8_t)v->kind,
                        .truth = v->truth, .number = v->number};
    if (key.space.len) memcpy(e->bytes, key.space.ptr, key.space.len);
    if (key.name.len) memcpy(e->bytes + key.space.len, key.name.ptr, key.name.len);
    if (text) memcpy(e->bytes + key.space.len + key.name.len, v->text.ptr, text);
    return e;
}

static bool equal(const struct entry *e, const struct claw_store_value *v)
{
    if (e->kind != v->kind) return false;
    if (v->kind == CLAW_STORE_NUMBER) return e->number == v->number;
    if (v->kind == CLAW_STORE_TRUTH) return e->truth == v->truth;
    return claw_str_eq(text_of(e), v->text);
}

/* ---- the heap of ends --------------------------------------------------------------------------------------- */

static void place(struct shard *sh, uint32_t i, struct entry *e)
{
    sh->heap[i] = e;
    e->heap_at = i;
}

static void rise(struct shard *sh, uint32_t i)
{
    struct entry *e = sh->heap[i];
    for (; i && sh->heap[(i - 1) / 2]->ends_ms > e->ends_ms; i = (i - 1) / 2) place(sh, i, sh->heap[(i - 1) / 2]);
    place(sh, i, e);
}

static void sink(struct shard *sh, uint32_t i)
{
    struct entry *e = sh->heap[i];
    for (uint32_t k; (k = 2 * i + 1) < sh->heap_n; i = k) {
        if (k + 1 < sh->heap_n && sh->heap[k + 1]->ends_ms < sh->heap[k]->ends_ms) k++;
        if (sh->heap[k]->ends_ms >= e->ends_ms) break;
        place(sh, i, sh->heap[k]);
    }
    place(sh, i, e);
}

static void note_root(struct shard *sh)
{
    atomic_store_explicit(&sh->ends_ms, sh->heap_n ? sh->heap[0]->ends_ms : NEVER, memory_order_relaxed);
}

static bool heap_room(struct shard *sh)
{
    if (sh->heap_n < sh->heap_cap) return true;
    uint32_t cap = sh->heap_cap ? sh->heap_cap * 2 : BUCKETS_MIN;
    struct entry **heap = realloc(sh->heap, cap * sizeof *heap);
    if (!heap) return false;
    sh->heap = heap;
    sh->heap_cap = cap;
    return true;
}

static void heap_add(struct shard *sh, struct entry *e)
{
    place(sh, sh->heap_n++, e);
    rise(sh, e->heap_at);
    note_root(sh);
}

static void heap_remove(struct shard *sh, struct entry *e)
{
    uint32_t i = e->heap_at;
    struct entry *last = sh->heap[--sh->heap_n];
    e->heap_at = NOWHERE;
    if (last != e) {
        place(sh, i, last);
        rise(sh, i);
        sink(sh, last->heap_at);
    }
    note_root(sh);
}

/* ---- one shard, locked -------------------------------------------------------------------------------------- */

static struct shard *shard_of(struct claw_store *s, uint64_t hash) { return &s->shards[hash >> 58]; }

static void note_oldest(struct shard *sh)
{
    atomic_store_explicit(&sh->used_ms, sh->oldest ? sh->oldest->used_ms : NEVER, memory_order_relaxed);
}

static void use_push(struct shard *sh, struct entry *e, uint64_t now_ms)
{
    e->used_ms = now_ms;
    e->newer = NULL;
    e->older = sh->newest;
    if (sh->newest) sh->newest->newer = e;
    else sh->oldest = e;
    sh->newest = e;
    note_oldest(sh);
}

static void use_remove(struct shard *sh, struct entry *e)
{
    if (e->newer) e->newer->older = e->older;
    else sh->newest = e->older;
    if (e->older) e->older->newer = e->newer;
    else sh->oldest = e->newer;
    note_oldest(sh);
}

/* Without memory for more buckets the chains just get longer. */
static void grow(struct shard *sh)
{
    size_t n = sh->buckets_n * 2;
    struct entry **buckets = sh->n < sh->buckets_n ? NULL : calloc(n, sizeof *buckets);
    if (!buckets) return;
    for (size_t i = 0; i < sh->buckets_n; i++) {
        for (struct entry *e = sh->buckets[i], *next; e; e = next) {
            next = e->chain;
            e->chain = buckets[e->hash & (n - 1)];
            buckets[e->hash & (n - 1)] = e;
        }
    }
    free(sh->buckets);
    sh->buckets = buckets;
    sh->buckets_n = n;
}

static void link_entry(struct claw_store *s, struct shard *sh, struct entry *e, uint64_t now_ms)
{
    grow(sh);
    struct entry **bucket = &sh->buckets[e->hash & (sh->buckets_n - 1)];
    e->chain = *bucket;
    *bucket = e;
    use_push(sh, e, now_ms);
    if (e->ends_ms != NEVER) heap_add(sh, e);
    sh->n++;
    atomic_fetch_add_explicit(&s->entries, 1, memory_order_relaxed);
}

/* Out of the table and onto the list of the dead, which is freed behind the lock. */
static void unlink_entry(struct claw_store *s, struct shard *sh, struct entry *e, struct entry **dead)
{
    struct entry **at = &sh->buckets[e->hash & (sh->buckets_n - 1)];
    while (*at != e) at = &(*at)->chain;
    *at = e->chain;
    use_remove(sh, e);
    if (e->heap_at != NOWHERE) heap_remove(sh, e);
    sh->n--;
    atomic_fetch_sub_explicit(&s->entries, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&s->bytes, cost(e), memory_order_relaxed);
    e->chain = *dead;
    *dead = e;
}

static void bury(struct entry *dead)
{
    while (dead) {
        struct entry *e = dead;
        dead = e->chain;
        free(e);
    }
}

static void sweep(struct claw_store *s, struct shard *sh, uint64_t now_ms, unsigned most, struct entry **dead)
{
    while (most-- && sh->heap_n && sh->heap[0]->ends_ms <= now_ms) unlink_entry(s, sh, sh->heap[0], dead);
}

/* What lives there, marked as used now; NULL. */
static struct entry *find(struct claw_store *s, struct shard *sh, uint64_t hash, struct claw_store_key key, uint64_t now_ms, struct entry **dead)
{
    struct entry *e = sh->buckets[hash & (sh->buckets_n - 1)];
    for (; e; e = e->chain) {
        if (e->hash != hash || e->space_len != key.space.len || e->name_len != key.name.len) continue;
        if (key.space.len && memcmp(e->bytes, key.space.ptr, key.space.len) != 0) continue;
        if (key.name.len == 0 || memcmp(e->bytes + e->space_len, key.name.ptr, key.name.len) == 0) break;
    }
    if (!e) return NULL;
    if (e->ends_ms <= now_ms) {
        unlink_entry(s, sh, e, dead);
        return NULL;
    }
    use_remove(sh, e);
    use_push(sh, e, now_ms);
    return e;
}

/* ---- the bound ---------------------------------------------------------------------------------------------- */

static bool over(const struct claw_store *s)
{
    return atomic_load_explicit(&s->bytes, memory_order_relaxed) > (int64_t)atomic_load_explicit(&s->cap, memory_order_relaxed);
}

/* The shard with what was not used for longest; NULL: all are empty. */
static struct shard *least_used(struct claw_store *s)
{
    unsigned from = atomic_fetch_add_explicit(&s->hand, 1, memory_order_relaxed);
    uint64_t best = NEVER;
    struct shard *found = NULL;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *sh = &s->shards[(from + i) % SHARDS];
        uint64_t used = atomic_load_explicit(&sh->used_ms, memory_order_relaxed);
        if (used >= best) continue;
        best = used;
        found = sh;
    }
    return found;
}

/* Let go until the bound holds: false when there is nothing left to let go of. Takes one lock at a time. */
static bool shrink(struct claw_store *s, uint64_t now_ms)
{
    struct entry *dead = NULL;
    for (unsigned i = 0; i < SHARDS && over(s); i++) {
        struct shard *sh = &s->shards[i];
        if (atomic_load_explicit(&sh->ends_ms, memory_order_relaxed) > now_ms) continue;
        pthread_mutex_lock(&sh->lock);
        while (over(s) && sh->heap_n && sh->heap[0]->ends_ms <= now_ms) unlink_entry(s, sh, sh->heap[0], &dead);
        pthread_mutex_unlock(&sh->lock);
    }
    bool held = true; /* over again at the end may be what others ask for: they see to that */
    while (held && over(s)) {
        struct shard *sh = least_used(s);
        held = sh != NULL;
        if (!sh) continue;
        pthread_mutex_lock(&sh->lock);
        if (sh->oldest) {
            unlink_entry(s, sh, sh->oldest, &dead);
            atomic_fetch_add_explicit(&s->evictions, 1, memory_order_relaxed);
        }
        pthread_mutex_unlock(&sh->lock);
    }
    bury(dead);
    return held;
}

/* Room is made before the entry takes its place, so that memory never passes the bound. */
static struct entry *make(struct claw_store *s, struct claw_store_key key, uint64_t hash, const struct claw_store_value *v, uint64_t ttl_ms, uint64_t now_ms)
{
    struct entry *e = entry_new(key, hash, v, ttl_ms, now_ms);
    if (!e) return NULL;
    atomic_fetch_add_explicit(&s->bytes, cost(e), memory_order_relaxed);
    if (!over(s) || shrink(s, now_ms)) return e;
    atomic_fetch_sub_explicit(&s->bytes, cost(e), memory_order_relaxed);
    free(e);
    return NULL;
}

static void unmake(struct claw_store *s, struct entry *e)
{
    if (!e) return;
    atomic_fetch_sub_explicit(&s->bytes, cost(e), memory_order_relaxed);
    free(e);
}

/* ---- outside ------------------------------------------------------------------------------------------------ */

struct claw_store *claw_store_new(size_t cap)
{
    struct claw_store *s = aligned_alloc(64, sizeof *s);
    if (!s) return NULL;
    memset(s, 0, sizeof *s);
    atomic_init(&s->cap, cap);
    bool ok = getrandom(s->seed, sizeof s->seed, 0) == (ssize_t)sizeof s->seed;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *sh = &s->shards[i];
        pthread_mutex_init(&sh->lock, NULL);
        atomic_init(&sh->ends_ms, NEVER);
        atomic_init(&sh->used_ms, NEVER);
        sh->buckets_n = BUCKETS_MIN;
        sh->buckets = calloc(BUCKETS_MIN, sizeof(struct entry *));
        ok = ok && sh->buckets;
    }
    if (ok) return s;
    claw_store_free(s);
    return NULL;
}

void claw_store_free(struct claw_store *s)
{
    if (!s) return;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *sh = &s->shards[i];
        for (struct entry *e = sh->newest, *next; e; e = next) {
            next = e->older;
            free(e);
        }
        free(sh->buckets);
        free(sh->heap);
        pthread_mutex_destroy(&sh->lock);
    }
    free(s);
}

void claw_store_set_cap(struct claw_store *s, size_t cap, uint64_t now_ms)
{
    atomic_store(&s->cap, cap);
    shrink(s, now_ms);
}

struct claw_store_stats claw_store_measure(const struct claw_store *s)
{
    return (struct claw_store_stats){atomic_load(&s->bytes), atomic_load(&s->entries), atomic_load(&s->evictions)};
}

enum claw_store_result claw_store_get(struct claw_store *s, struct claw_store_key key, uint64_t now_ms, struct claw_buf *text,
                                      struct claw_store_value *out)
{
    claw_buf_clear(text);
    if (!fits(key, NULL)) return CLAW_STORE_TOO_LARGE;
    uint64_t hash = hash_of(s, key);
    struct shard *sh = shard_of(s, hash);
    struct entry *dead = NULL;
    enum claw_store_result rc = CLAW_STORE_NOT;
    pthread_mutex_lock(&sh->lock);
    struct entry *e = find(s, sh, hash, key, now_ms, &dead);
    if (e) {
        *out = (struct claw_store_value){(enum claw_store_kind)e->kind, e->number, e->truth, CLAW_STR("")};
        rc = claw_buf_add_str(text, text_of(e)) == 0 ? CLAW_STORE_OK : CLAW_STORE_NO_MEMORY;
    }
    pthread_mutex_unlock(&sh->lock);
    bury(dead);
    if (rc == CLAW_STORE_OK) out->text = claw_buf_str(text);
    return rc;
}

enum when { ALWAYS, ABSENT, EQUAL };

/* Put a new entry in place of what is there, if `when` agrees. */
static enum claw_store_result put(struct claw_store *s, struct claw_store_key key, enum when when, const struct claw_store_value *old,
                                  const struct claw_store_value *value, uint64_t ttl_ms, uint64_t now_ms)
{
    if (!fits(key, value)) return CLAW_STORE_TOO_LARGE;
    uint64_t hash = hash_of(s, key);
    struct entry *e = make(s, key, hash, value, ttl_ms, now_ms), *dead = NULL;
    if (!e) return CLAW_STORE_NO_MEMORY;
    struct shard *sh = shard_of(s, hash);
    pthread_mutex_lock(&sh->lock);
    sweep(s, sh, now_ms, SWEEP, &dead);
    struct entry *there = find(s, sh, hash, key, now_ms, &dead);
    enum claw_store_result rc = CLAW_STORE_OK;
    if ((when == ABSENT && there) || (when == EQUAL && !(there && equal(there, old)))) rc = CLAW_STORE_NOT;
    else if (!heap_room(sh)) rc = CLAW_STORE_NO_MEMORY;
    if (rc == CLAW_STORE_OK) {
        if (when == EQUAL && ttl_ms == 0) e->ends_ms = there->ends_ms;
        if (there) unlink_entry(s, sh, there, &dead);
        link_entry(s, sh, e, now_ms);
        e = NULL;
    }
    pthread_mutex_unlock(&sh->lock);
    unmake(s, e);
    bury(dead);
    return rc;
}

enum claw_store_result claw_store_set(struct claw_store *s, struct claw_store_key key, const struct claw_store_value *value, uint64_t ttl_ms, uint64_t now_ms)
{
    return put(s, key, ALWAYS, NULL, value, ttl_ms, now_ms);
}

enum claw_store_result claw_store_add(struct claw_store *s, struct claw_store_key key, const struct claw_store_value *value, uint64_t ttl_ms, uint64_t now_ms)
{
    return put(s, key, ABSENT, NULL, value, ttl_ms, now_ms);
}

enum claw_store_result claw_store_cas(struct claw_store *s, struct claw_store_key key, const struct claw_store_value *old,
                                      const struct claw_store_value *value, uint64_t ttl_ms, uint64_t now_ms)
{
    return put(s, key, old ? EQUAL : ABSENT, old, value, ttl_ms, now_ms);
}

static enum claw_store_result sum(struct entry *e, double by, double *out)
{
    if (e->kind != CLAW_STORE_NUMBER || floor(e->number) != e->number) return CLAW_STORE_KIND;
    double to = e->number + by;
    if (fabs(e->number) >= CLAW_STORE_EXACT || fabs(to) >= CLAW_STORE_EXACT) return CLAW_STORE_RANGE;
    *out = e->number = to;
    return CLAW_STORE_OK;
}

enum claw_store_result claw_store_incr(struct claw_store *s, struct claw_store_key key, double by, uint64_t ttl_ms, uint64_t now_ms, double *out)
{
    struct claw_store_value v = {.kind = CLAW_STORE_NUMBER, .number = by};
    if (!fits(key, NULL)) return CLAW_STORE_TOO_LARGE;
    if (!(fabs(by) < CLAW_STORE_EXACT)) return CLAW_STORE_RANGE;
    uint64_t hash = hash_of(s, key);
    struct shard *sh = shard_of(s, hash);
    struct entry *fresh = NULL, *dead = NULL;
    enum claw_store_result rc = CLAW_STORE_NOT;
    /* The second round has an entry to put where still nothing is; it was not made under the lock. */
    for (int round = 0; rc == CLAW_STORE_NOT; round++) {
        if (round && !(fresh = make(s, key, hash, &v, ttl_ms, now_ms))) return CLAW_STORE_NO_MEMORY;
        pthread_mutex_lock(&sh->lock);
        struct entry *there = find(s, sh, hash, key, now_ms, &dead);
        if (there) {
            rc = sum(there, by, out);
        } else if (fresh && !heap_room(sh)) {
            rc = CLAW_STORE_NO_MEMORY;
        } else if (fresh) {
            sweep(s, sh, now_ms, SWEEP, &dead);
            link_entry(s, sh, fresh, now_ms);
            fresh = NULL;
            *out = by;
            rc = CLAW_STORE_OK;
        }
        pthread_mutex_unlock(&sh->lock);
        bury(dead);
        dead = NULL;
    }
    unmake(s, fresh);
    return rc;
}

enum claw_store_result claw_store_delete(struct claw_store *s, struct claw_store_key key, uint64_t now_ms)
{
    if (!fits(key, NULL)) return CLAW_STORE_TOO_LARGE;
    uint64_t hash = hash_of(s, key);
    struct shard *sh = shard_of(s, hash);
    struct entry *dead = NULL;
    pthread_mutex_lock(&sh->lock);
    struct entry *e = find(s, sh, hash, key, now_ms, &dead);
    enum claw_store_result rc = e ? CLAW_STORE_OK : CLAW_STORE_NOT;
    if (e) unlink_entry(s, sh, e, &dead);
    pthread_mutex_unlock(&sh->lock);
    bury(dead);
    return rc;
}
