#include "proxy/cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SHARDS_MAX 16u
#define CAP_MIN ((size_t)1 << 20)
#define PAGE 4096u
#define USUAL 2048u  /* bytes of an entry, to size index and fingerprints by */
#define BLOCK 512u
#define HITS_MAX 3u
#define NONE 0u      /* block 0 is never given out */

enum queue { SMALL, MAIN, QUEUES };

struct block {
    uint64_t next; /* a word, so that an entry behind it is aligned */
    char bytes[BLOCK - sizeof(uint64_t)];
};

/* How an entry's first block begins, behind its next; its texts lie in the same block, then its body begins. */
struct entry {
    uint32_t chain, newer, older; /* other entries', by their first blocks */
    struct claw_cache_key key;
    uint32_t blocks, body;
    uint16_t route, model, client, type, dropped; /* lengths */
    uint8_t queue, hits;
    bool stream;
    uint64_t made_ms, ends_ms;
};
#define HEAD sizeof(struct entry)
_Static_assert(HEAD + CLAW_CACHE_TEXTS <= sizeof(((struct block *)0)->bytes), "texts lie in the first block");

struct fifo { uint32_t newest, oldest, blocks; };

/* Who left the small queue lately, by place: the key's first bytes and when. */
struct ghost { uint32_t print, at; };

/* A shard's memory. */
struct land {
    char *map;
    size_t size, fixed;          /* fixed: bytes before the blocks */
    uint32_t *buckets;
    struct ghost *ghosts;
    size_t places;               /* of both tables, a power of two */
    struct block *blocks;
    uint32_t blocks_n, fresh, free; /* fresh: from here on none was ever used; free: a list of those that were */
};

struct shard {
    pthread_mutex_t lock;
    struct land land;
    struct fifo queues[QUEUES];
    uint32_t used;       /* blocks */
    size_t main_n;
    uint32_t left;       /* how many left the small queue so far */
    int64_t entries, hits, misses, evictions;
} __attribute__((aligned(64)));

struct claw_cache {
    size_t cap;
    _Atomic uint64_t purges;
    unsigned shards_n;
    struct shard shards[SHARDS_MAX];
};

static uint64_t word_of(const struct claw_cache_key *key, unsigned i)
{
    uint64_t w;
    memcpy(&w, key->bytes + 8 * i, sizeof w);
    return w;
}

static struct shard *shard_of(struct claw_cache *c, const struct claw_cache_key *key) { return &c->shards[word_of(key, 0) % c->shards_n]; }

static uint32_t *bucket_of(struct shard *s, const struct claw_cache_key *key) { return &s->land.buckets[word_of(key, 1) & (s->land.places - 1)]; }

static struct entry *entry_at(struct shard *s, uint32_t at)
{
    return (void *)s->land.blocks[at].bytes;
}

/* ---- land ----------------------------------------------------------------------------------------------------------- */

static int land_init(struct land *l, size_t size)
{
    *l = (struct land){.size = size / PAGE * PAGE, .places = 64, .fresh = 1};
    while (l->places * USUAL < size) l->places *= 2;
    l->map = mmap(NULL, l->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l->map == MAP_FAILED) return CLAW_ENOMEM;
    l->fixed = (l->places * (sizeof *l->buckets + sizeof *l->ghosts) + BLOCK - 1) / BLOCK * BLOCK;
    l->ghosts = (void *)l->map;
    l->buckets = (void *)(l->map + l->places * sizeof *l->ghosts);
    l->blocks = (void *)(l->map + l->fixed);
    l->blocks_n = (uint32_t)((l->size - l->fixed) / BLOCK);
    return 0;
}

static void land_fini(struct land *l)
{
    if (l->map) munmap(l->map, l->size);
}

static uint32_t room_of(const struct shard *s) { return s->land.blocks_n - 1; }

/* There is one: make_room saw to it. */
static uint32_t take_block(struct shard *s)
{
    struct land *l = &s->land;
    uint32_t at = l->free;
    if (at) l->free = (uint32_t)l->blocks[at].next;
    else at = l->fresh++;
    CLAW_ASSERT(at < l->blocks_n);
    l->blocks[at].next = NONE;
    s->used++;
    return at;
}

static void give_back(struct shard *s, uint32_t first, uint32_t n)
{
    struct land *l = &s->land;
    uint32_t last = first;
    while (l->blocks[last].next) last = (uint32_t)l->blocks[last].next;
    l->blocks[last].next = l->free;
    l->free = first;
    s->used -= n;
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

struct claw_cache *claw_cache_new(size_t cap)
{
    if (cap < CAP_MIN) cap = CAP_MIN;
    struct claw_cache *c = aligned_alloc(64, sizeof *c);
    if (!c) return NULL;
    memset(c, 0, sizeof *c);
    c->cap = cap;
    unsigned n = (unsigned)(cap / CAP_MIN < SHARDS_MAX ? cap / CAP_MIN : SHARDS_MAX);
    for (; c->shards_n < n; c->shards_n++) {
        struct shard *s = &c->shards[c->shards_n];
        if (land_init(&s->land, cap / n) != 0 || pthread_mutex_init(&s->lock, NULL) != 0) {
            claw_cache_free(c);
            return NULL;
        }
    }
    return c;
}

void claw_cache_free(struct claw_cache *c)
{
    if (!c) return;
    for (unsigned i = 0; i < c->shards_n; i++) {
        land_fini(&c->shards[i].land);
        pthread_mutex_destroy(&c->shards[i].lock);
    }
    free(c);
}

/* ---- queues: under the lock --------------------------------------------------------------------------------------- */

static void enqueue(struct shard *s, uint32_t at, enum queue to)
{
    struct fifo *q = &s->queues[to];
    struct entry *e = entry_at(s, at);
    e->queue = (uint8_t)to;
    e->newer = NONE;
    e->older = q->newest;
    *(q->newest ? &entry_at(s, q->newest)->newer : &q->oldest) = at;
    q->newest = at;
    q->blocks += e->blocks;
    s->main_n += to == MAIN;
}

static void dequeue(struct shard *s, uint32_t at)
{
    struct entry *e = entry_at(s, at);
    struct fifo *q = &s->queues[e->queue];
    *(e->newer ? &entry_at(s, e->newer)->older : &q->newest) = e->older;
    *(e->older ? &entry_at(s, e->older)->newer : &q->oldest) = e->newer;
    q->blocks -= e->blocks;
    s->main_n -= e->queue == MAIN;
}

static void take_out(struct shard *s, uint32_t at)
{
    struct entry *e = entry_at(s, at);
    uint32_t *link = bucket_of(s, &e->key);
    while (*link != at) link = &entry_at(s, *link)->chain;
    *link = e->chain;
    dequeue(s, at);
    s->entries--;
    give_back(s, at, e->blocks);
}

static uint32_t find(struct shard *s, const struct claw_cache_key *key)
{
    uint32_t at = *bucket_of(s, key);
    while (at && memcmp(entry_at(s, at)->key.bytes, key->bytes, CLAW_CACHE_KEY) != 0) at = entry_at(s, at)->chain;
    return at;
}

static struct ghost *ghost_of(struct shard *s, const struct claw_cache_key *key)
{
    return &s->land.ghosts[word_of(key, 0) >> 32 & (s->land.places - 1)];
}

static uint32_t print_of(const struct claw_cache_key *key) { return (uint32_t)(word_of(key, 1) >> 32 | 1); }

/* As many are remembered as the main queue has entries. */
static bool left_lately(struct shard *s, const struct claw_cache_key *key)
{
    const struct ghost *g = ghost_of(s, key);
    return g->print == print_of(key) && s->left - g->at <= s->main_n;
}

static void evict(struct shard *s, uint32_t at)
{
    struct entry *e = entry_at(s, at);
    if (e->queue == SMALL) *ghost_of(s, &e->key) = (struct ghost){print_of(&e->key), ++s->left};
    take_out(s, at);
    s->evictions++;
}

static void make_room(struct shard *s, uint32_t blocks)
{
    while (s->used + blocks > room_of(s)) {
        bool small = s->queues[SMALL].oldest && (s->queues[SMALL].blocks > room_of(s) / 10 || !s->queues[MAIN].oldest);
        uint32_t at = s->queues[small ? SMALL : MAIN].oldest;
        CLAW_ASSERT(at);
        struct entry *e = entry_at(s, at);
        if (e->hits == 0) {
            evict(s, at);
            continue;
        }
        e->hits = small ? 0 : (uint8_t)(e->hits - 1);
        dequeue(s, at);
        enqueue(s, at, MAIN);
    }
}

/* ---- an entry's bytes: under the lock ------------------------------------------------------------------------------- */

/* The bytes of a chain from `offset` of its first block on. */
struct walk { struct shard *s; uint32_t at; size_t offset; };

static size_t span(struct walk *w, char **bytes, size_t n)
{
    if (w->offset == sizeof w->s->land.blocks->bytes) *w = (struct walk){w->s, (uint32_t)w->s->land.blocks[w->at].next, 0};
    size_t room = sizeof w->s->land.blocks->bytes - w->offset;
    *bytes = w->s->land.blocks[w->at].bytes + w->offset;
    if (n > room) n = room;
    w->offset += n;
    return n;
}

static void write_bytes(struct walk *w, struct claw_str s)
{
    char *to;
    for (size_t n; s.len; s = (struct claw_str){s.ptr + n, s.len - n}) {
        n = span(w, &to, s.len);
        memcpy(to, s.ptr, n);
    }
}

static void read_bytes(struct walk *w, char *to, size_t len)
{
    char *from;
    for (size_t n; len; to += n, len -= n) {
        n = span(w, &from, len);
        memcpy(to, from, n);
    }
}

static struct claw_str text(const char **at, size_t n)
{
    struct claw_str s = {*at, n};
    *at += n;
    return s;
}

/* What is said of an entry; texts lie in its block. */
static struct claw_cache_answer answer_of(struct shard *s, uint32_t at)
{
    const struct entry *e = entry_at(s, at);
    const char *t = s->land.blocks[at].bytes + HEAD;
    struct claw_cache_answer a = {.stream = e->stream, .made_ms = e->made_ms, .ends_ms = e->ends_ms, .body = {NULL, e->body}};
    a.route = text(&t, e->route);
    a.model = text(&t, e->model);
    a.client = text(&t, e->client);
    a.type = text(&t, e->type);
    a.dropped = text(&t, e->dropped);
    return a;
}

static size_t texts_of(const struct claw_cache_answer *a) { return a->route.len + a->model.len + a->client.len + a->type.len + a->dropped.len; }

static bool copy_out(struct shard *s, uint32_t at, struct claw_cache_answer *out, struct claw_buf *bytes)
{
    const struct entry *e = entry_at(s, at);
    size_t n = (size_t)e->route + e->model + e->client + e->type + e->dropped + e->body;
    claw_buf_clear(bytes);
    if (claw_buf_reserve(bytes, n) != 0) return false;
    read_bytes(&(struct walk){s, at, HEAD}, bytes->data + bytes->len, n);
    const char *t = bytes->data + bytes->len;
    bytes->len += n;
    *out = answer_of(s, at);
    out->route = text(&t, e->route);
    out->model = text(&t, e->model);
    out->client = text(&t, e->client);
    out->type = text(&t, e->type);
    out->dropped = text(&t, e->dropped);
    out->body = text(&t, e->body);
    return true;
}

/* Into blocks for which there is room. */
static uint32_t copy_in(struct shard *s, const struct claw_cache_key *key, const struct claw_cache_answer *a, uint32_t blocks)
{
    uint32_t first = take_block(s), last = first;
    for (uint32_t i = 1; i < blocks; i++) {
        uint32_t next = take_block(s);
        s->land.blocks[last].next = next;
        last = next;
    }
    *entry_at(s, first) = (struct entry){.key = *key, .blocks = blocks, .body = (uint32_t)a->body.len, .route = (uint16_t)a->route.len,
        .model = (uint16_t)a->model.len, .client = (uint16_t)a->client.len, .type = (uint16_t)a->type.len, .dropped = (uint16_t)a->dropped.len, .stream = a->stream,
        .made_ms = a->made_ms, .ends_ms = a->ends_ms};
    struct walk w = {s, first, HEAD};
    write_bytes(&w, a->route);
    write_bytes(&w, a->model);
    write_bytes(&w, a->client);
    write_bytes(&w, a->type);
    write_bytes(&w, a->dropped);
    write_bytes(&w, a->body);
    return first;
}

static uint32_t blocks_for(size_t bytes) { return (uint32_t)((bytes + sizeof(((struct block *)0)->bytes) - 1) / sizeof(((struct block *)0)->bytes)); }

static void put(struct shard *s, const struct claw_cache_key *key, const struct claw_cache_answer *a, enum queue to)
{
    uint32_t blocks = blocks_for(HEAD + texts_of(a) + a->body.len);
    make_room(s, blocks);
    uint32_t at = copy_in(s, key, a, blocks), *bucket = bucket_of(s, key);
    entry_at(s, at)->chain = *bucket;
    *bucket = at;
    enqueue(s, at, to);
    s->entries++;
}

/* ---- what is asked -------------------------------------------------------------------------------------------------- */

static bool get(struct claw_cache *c, const struct claw_cache_key *key, uint64_t now_ms, struct claw_cache_answer *out, struct claw_buf *bytes, bool again)
{
    struct shard *s = shard_of(c, key);
    pthread_mutex_lock(&s->lock);
    uint32_t at = find(s, key);
    if (at && entry_at(s, at)->ends_ms <= now_ms) {
        take_out(s, at);
        at = NONE;
    }
    bool found = at && copy_out(s, at, out, bytes);
    if (found && entry_at(s, at)->hits < HITS_MAX) entry_at(s, at)->hits++;
    s->hits += found;
    s->misses += !found && !again;
    pthread_mutex_unlock(&s->lock);
    return found;
}

bool claw_cache_get(struct claw_cache *c, const struct claw_cache_key *key, uint64_t now_ms, struct claw_cache_answer *out, struct claw_buf *bytes)
{
    return get(c, key, now_ms, out, bytes, false);
}

bool claw_cache_get_again(struct claw_cache *c, const struct claw_cache_key *key, uint64_t now_ms, struct claw_cache_answer *out, struct claw_buf *bytes)
{
    return get(c, key, now_ms, out, bytes, true);
}

static size_t most_of(const struct shard *s) { return (size_t)room_of(s) * BLOCK / CLAW_CACHE_PART; }

size_t claw_cache_most(struct claw_cache *c)
{
    struct shard *s = &c->shards[0];
    pthread_mutex_lock(&s->lock);
    size_t n = most_of(s);
    pthread_mutex_unlock(&s->lock);
    return n;
}

uint64_t claw_cache_purges(const struct claw_cache *c) { return atomic_load(&c->purges); }

bool claw_cache_put(struct claw_cache *c, const struct claw_cache_key *key, const struct claw_cache_answer *a, uint64_t purges)
{
    struct shard *s = shard_of(c, key);
    if (texts_of(a) > CLAW_CACHE_TEXTS) return false;
    pthread_mutex_lock(&s->lock);
    bool fits = a->body.len <= most_of(s) && claw_cache_purges(c) == purges; /* one that begins now comes by later */
    if (fits) {
        uint32_t old = find(s, key);
        bool known = old ? entry_at(s, old)->queue == MAIN : left_lately(s, key);
        if (old) take_out(s, old);
        put(s, key, a, known ? MAIN : SMALL);
    }
    pthread_mutex_unlock(&s->lock);
    return fits;
}

static bool selects(struct claw_str wanted, struct claw_str has) { return !wanted.ptr || claw_str_eq(wanted, has); }

size_t claw_cache_purge(struct claw_cache *c, const struct claw_cache_filter *f)
{
    size_t gone = 0;
    atomic_fetch_add(&c->purges, 1);
    for (unsigned i = 0; i < c->shards_n; i++) {
        struct shard *s = &c->shards[i];
        pthread_mutex_lock(&s->lock);
        for (unsigned q = 0; q < QUEUES; q++) {
            for (uint32_t at = s->queues[q].oldest, next; at; at = next) {
                struct claw_cache_answer a = answer_of(s, at);
                next = entry_at(s, at)->newer;
                if (!selects(f->route, a.route) || !selects(f->model, a.model) || !selects(f->client, a.client)) continue;
                take_out(s, at);
                gone++;
            }
        }
        pthread_mutex_unlock(&s->lock);
    }
    return gone;
}

void claw_cache_each(struct claw_cache *c, void (*look)(void *arg, const struct claw_cache_answer *a, size_t bytes), void *arg)
{
    for (unsigned i = 0; i < c->shards_n; i++) {
        struct shard *s = &c->shards[i];
        pthread_mutex_lock(&s->lock);
        for (unsigned q = 0; q < QUEUES; q++) {
            for (uint32_t at = s->queues[q].oldest; at; at = entry_at(s, at)->newer) {
                struct claw_cache_answer a = answer_of(s, at);
                look(arg, &a, (size_t)entry_at(s, at)->blocks * BLOCK);
            }
        }
        pthread_mutex_unlock(&s->lock);
    }
}

/* All of `from` that fits, oldest first, into s, whose land is new. */
static void move_in(struct shard *s, struct shard *from, struct claw_buf *tmp)
{
    for (unsigned q = 0; q < QUEUES; q++) {
        for (uint32_t at = from->queues[q].oldest; at; at = entry_at(from, at)->newer) {
            struct claw_cache_answer a;
            if (entry_at(from, at)->body > most_of(s) || !copy_out(from, at, &a, tmp)) continue;
            put(s, &entry_at(from, at)->key, &a, (enum queue)q);
            uint32_t here = find(s, &entry_at(from, at)->key);
            entry_at(s, here)->hits = entry_at(from, at)->hits;
        }
    }
}

void claw_cache_set_cap(struct claw_cache *c, size_t cap)
{
    struct claw_buf tmp;
    if (cap < CAP_MIN) cap = CAP_MIN;
    if (cap == c->cap) return;
    claw_buf_init(&tmp, 0);
    c->cap = cap;
    for (unsigned i = 0; i < c->shards_n; i++) {
        struct shard *s = &c->shards[i];
        struct land land;
        if (land_init(&land, cap / c->shards_n) != 0) continue;
        pthread_mutex_lock(&s->lock);
        struct shard old = *s;
        s->land = land;
        s->entries = 0;
        s->used = 0;
        s->main_n = 0;
        memset(s->queues, 0, sizeof s->queues);
        move_in(s, &old, &tmp);
        pthread_mutex_unlock(&s->lock);
        land_fini(&old.land);
    }
    claw_buf_fini(&tmp);
}

struct claw_cache_stats claw_cache_measure(struct claw_cache *c)
{
    struct claw_cache_stats sum = {.cap = (int64_t)c->cap};
    for (unsigned i = 0; i < c->shards_n; i++) {
        struct shard *s = &c->shards[i];
        pthread_mutex_lock(&s->lock);
        sum.bytes += (int64_t)(s->land.fixed + ((size_t)s->used + 1) * BLOCK);
        sum.entries += s->entries;
        sum.hits += s->hits;
        sum.misses += s->misses;
        sum.evictions += s->evictions;
        pthread_mutex_unlock(&s->lock);
    }
    return sum;
}
