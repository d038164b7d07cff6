#include "proxy/cooling.h"

#include "base/err.h"
#include "proxy/state.h"

#include <pthread.h>
#include <stdlib.h>

#define UPSTREAMS_MAX 1024u
#define TAIL_OF 16u /* a shorter key would show too much of itself */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that is made and let go of */
static struct claw_cooling *all;
static unsigned all_n;

struct claw_cooling *claw_cooling_of(struct claw_str upstream)
{
    struct claw_cooling *c;
    size_t n = upstream.len < sizeof c->name ? upstream.len : sizeof c->name;
    pthread_mutex_lock(&lock);
    for (c = all; c; c = c->next)
        if (c->name_len == n && memcmp(c->name, upstream.ptr, n) == 0) break;
    if (!c && all_n >= UPSTREAMS_MAX) c = all;
    if (!c) {
        c = calloc(1, sizeof *c);
        CLAW_ASSERT(c != NULL);
        memcpy(c->name, upstream.ptr, n);
        c->name_len = n;
        c->breaker.ramps = true;
        c->next = all;
        all = c;
        all_n++;
    }
    pthread_mutex_unlock(&lock);
    return c;
}

static struct claw_cooling_model *find(struct claw_cooling *c, uint64_t hash)
{
    for (unsigned i = 0; i < CLAW_COOLING_MODELS; i++)
        if (atomic_load_explicit(&c->models[i].hash, memory_order_relaxed) == hash) return &c->models[i];
    return NULL;
}

static bool is_idle(const struct claw_cooling_model *m)
{
    return !atomic_load_explicit(&m->breaker.until_ms, memory_order_relaxed) && !atomic_load_explicit(&m->breaker.failures, memory_order_relaxed);
}

/* Closed goes before open, then who failed less often; of the open ones whose pause ends first. */
static bool goes_before(const struct claw_breaker *a, const struct claw_breaker *b)
{
    uint64_t x = atomic_load_explicit(&a->until_ms, memory_order_relaxed), y = atomic_load_explicit(&b->until_ms, memory_order_relaxed);
    return x != y ? x < y : atomic_load_explicit(&a->failures, memory_order_relaxed) < atomic_load_explicit(&b->failures, memory_order_relaxed);
}

/* The one that is missed least; in turn, so that names that clients invent do not drive out always the latest. */
static struct claw_cooling_model *least(struct claw_cooling *c)
{
    struct claw_cooling_model *m = NULL;
    unsigned from = c->turn++;
    for (unsigned i = 0; i < CLAW_COOLING_MODELS; i++) {
        struct claw_cooling_model *one = &c->models[(from + i) % CLAW_COOLING_MODELS];
        if (!m || goes_before(&one->breaker, &m->breaker)) m = one;
    }
    return m;
}

/* Who still holds the breaker of a model that was let go of may count once for another: neither opens by one. */
static struct claw_cooling_model *make_model(struct claw_cooling *c, uint64_t hash, struct claw_str name)
{
    struct claw_cooling_model *m = find(c, hash);
    if (m) return m;
    m = find(c, 0);
    if (m) atomic_fetch_add_explicit(&c->models_n, 1, memory_order_relaxed);
    else m = least(c);
    claw_breaker_restore(&m->breaker, 0);
    size_t n = name.len < sizeof m->name - 1 ? name.len : sizeof m->name - 1;
    memcpy(m->name, name.ptr, n);
    m->name[n] = 0;
    atomic_store_explicit(&m->hash, hash, memory_order_release);
    return m;
}

struct claw_breaker *claw_cooling_model(struct claw_cooling *c, struct claw_str model, bool make)
{
    if (!make && atomic_load_explicit(&c->models_n, memory_order_relaxed) == 0) return NULL;
    uint64_t hash = claw_str_hash(model, 0) | 1;
    struct claw_cooling_model *m = find(c, hash);
    if (!m && make) {
        pthread_mutex_lock(&lock);
        m = make_model(c, hash, model);
        pthread_mutex_unlock(&lock);
    }
    return m ? &m->breaker : NULL;
}

struct claw_cooling_key *claw_cooling_key(struct claw_cooling *c, struct claw_str text)
{
    uint64_t hash = claw_str_hash(text, 0x6b6579);
    struct claw_cooling_key *k;
    pthread_mutex_lock(&lock);
    for (k = c->keys; k && k->hash != hash; k = k->next) continue;
    if (!k) {
        k = calloc(1, sizeof *k);
        CLAW_ASSERT(k != NULL);
        k->hash = hash;
        char id[33];
        claw_state_hash((struct claw_str[]){CLAW_STR("key"), text}, 2, id);
        memcpy(k->id, id, sizeof k->id - 1);
        memcpy(k->tail, "…", sizeof "…");
        if (text.len >= TAIL_OF) memcpy(k->tail + sizeof "…" - 1, text.ptr + text.len - 4, 4);
        for (char *p = k->tail + sizeof "…" - 1; *p; p++)
            if (*p <= ' ' || *p > '~' || *p == '"' || *p == '\\') *p = '*';
        k->next = c->keys;
        c->keys = k;
    }
    k->refs++;
    pthread_mutex_unlock(&lock);
    return k;
}

void claw_cooling_key_unref(struct claw_cooling *c, struct claw_cooling_key *k)
{
    pthread_mutex_lock(&lock);
    if (--k->refs == 0) {
        struct claw_cooling_key **at = &c->keys;
        while (*at != k) at = &(*at)->next;
        *at = k->next;
        claw_breaker_restore(&k->breaker, 0); /* so that it counts as an alert no more */
        free(k);
    }
    pthread_mutex_unlock(&lock);
}

struct claw_breaker *claw_cooling_next_model(struct claw_cooling *c, unsigned *at, char *name)
{
    while (*at < CLAW_COOLING_MODELS) {
        struct claw_cooling_model *m = &c->models[(*at)++];
        if (!atomic_load_explicit(&m->hash, memory_order_relaxed) || is_idle(m)) continue;
        pthread_mutex_lock(&lock);
        memcpy(name, m->name, sizeof m->name);
        pthread_mutex_unlock(&lock);
        return &m->breaker;
    }
    return NULL;
}

void claw_cooling_restore(struct claw_cooling *c, uint64_t now_ms)
{
    pthread_mutex_lock(&lock);
    claw_breaker_restore(&c->breaker, now_ms);
    for (unsigned i = 0; i < CLAW_COOLING_MODELS; i++)
        if (!is_idle(&c->models[i])) claw_breaker_restore(&c->models[i].breaker, now_ms);
    for (struct claw_cooling_key *k = c->keys; k; k = k->next) claw_breaker_restore(&k->breaker, now_ms);
    pthread_mutex_unlock(&lock);
}

void claw_cooling_tidy(uint64_t now_ms)
{
    pthread_mutex_lock(&lock);
    for (struct claw_cooling *c = all; c; c = c->next) claw_breaker_share(&c->breaker, now_ms);
    pthread_mutex_unlock(&lock);
}

void claw_cooling_forget(void)
{
    pthread_mutex_lock(&lock);
    for (struct claw_cooling *c = all; c; c = c->next) {
        claw_breaker_restore(&c->breaker, 0);
        for (unsigned i = 0; i < CLAW_COOLING_MODELS; i++) claw_breaker_restore(&c->models[i].breaker, 0);
        for (struct claw_cooling_key *k = c->keys; k; k = k->next) claw_breaker_restore(&k->breaker, 0);
    }
    pthread_mutex_unlock(&lock);
}
