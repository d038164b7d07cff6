#include "proxy/facts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define UPSTREAMS_MAX 1024
#define MODELS_MAX 64
#define NAME_MAX_BYTES 96
#define EWMA_WEIGHT 0.2
#define NONE INT64_MIN
#define FAILED_US 1000000
#define SLOWEST_US 120000000
#define TIMES 64         /* classes of times: four an octave, from 1 ms on */
#define TIMES_MAX 512u   /* samples; then the older ones count half */
#define TIMES_MIN 20u

struct model_facts {
    _Atomic uint64_t hash; /* of the model's name; 0: free */
    _Atomic int64_t ewma_us;
    _Atomic uint64_t sampled_ms;
    _Atomic int64_t mean_output_milli; /* thousandths of a token */
    _Atomic uint32_t times[TIMES], times_n;
};

struct claw_upstream_stats {
    char name[NAME_MAX_BYTES];
    size_t name_len;
    _Atomic int64_t outstanding;
    struct model_facts models[MODELS_MAX];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the table's growth; taken only while a generation is built */
static struct claw_upstream_stats *table[UPSTREAMS_MAX];
static size_t table_n;

struct claw_upstream_stats *claw_upstream_stats_of(struct claw_str upstream)
{
    size_t n = upstream.len < NAME_MAX_BYTES ? upstream.len : NAME_MAX_BYTES;
    struct claw_upstream_stats *s = NULL;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < table_n && !s; i++)
        if (table[i]->name_len == n && memcmp(table[i]->name, upstream.ptr, n) == 0) s = table[i];
    if (!s && table_n == UPSTREAMS_MAX) s = table[UPSTREAMS_MAX - 1];
    if (!s) {
        s = calloc(1, sizeof *s);
        CLAW_ASSERT(s != NULL);
        memcpy(s->name, upstream.ptr, n);
        s->name_len = n;
        for (int i = 0; i < MODELS_MAX; i++) {
            atomic_init(&s->models[i].ewma_us, NONE);
            atomic_init(&s->models[i].mean_output_milli, NONE);
        }
        table[table_n++] = s;
    }
    pthread_mutex_unlock(&lock);
    return s;
}

void claw_upstream_stats_begin(struct claw_upstream_stats *s)
{
    atomic_fetch_add_explicit(&s->outstanding, 1, memory_order_relaxed);
}

void claw_upstream_stats_end(struct claw_upstream_stats *s)
{
    atomic_fetch_sub_explicit(&s->outstanding, 1, memory_order_relaxed);
}

static struct model_facts *model_of(struct claw_upstream_stats *s, struct claw_str model, bool make)
{
    uint64_t h = claw_str_hash(model, 0) | 1;
    for (unsigned i = 0; i < MODELS_MAX; i++) {
        struct model_facts *m = &s->models[(h + i) % MODELS_MAX];
        uint64_t seen = atomic_load_explicit(&m->hash, memory_order_relaxed);
        if (seen == h) return m;
        if (seen != 0) continue;
        if (!make) return NULL;
        if (atomic_compare_exchange_strong(&m->hash, &seen, h) || seen == h) return m;
    }
    return NULL;
}

/* Two workers may average at once: one sample is lost, which an average can bear. */
static void average(_Atomic int64_t *to, int64_t sample)
{
    int64_t old = atomic_load_explicit(to, memory_order_relaxed);
    int64_t new = old == NONE ? sample : old + (int64_t)((double)(sample - old) * EWMA_WEIGHT);
    atomic_store_explicit(to, new, memory_order_relaxed);
}

static unsigned class_of(uint64_t ms)
{
    uint32_t v = ms < 1 ? 1 : ms > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)ms;
    unsigned octave = 31 - (unsigned)__builtin_clz(v);
    unsigned quarter = octave >= 2 ? v >> (octave - 2) & 3 : v << (2 - octave) & 3;
    unsigned i = octave * 4 + quarter;
    return i < TIMES ? i : TIMES - 1;
}

/* Counts may be a few off when two workers halve at once. */
static void note_time(struct model_facts *m, uint64_t us)
{
    atomic_fetch_add_explicit(&m->times[class_of(us / 1000)], 1, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&m->times_n, 1, memory_order_relaxed) + 1 < TIMES_MAX) return;
    uint32_t sum = 0;
    for (unsigned i = 0; i < TIMES; i++) {
        uint32_t half = atomic_load_explicit(&m->times[i], memory_order_relaxed) / 2;
        atomic_store_explicit(&m->times[i], half, memory_order_relaxed);
        sum += half;
    }
    atomic_store_explicit(&m->times_n, sum, memory_order_relaxed);
}

int64_t claw_upstream_stats_percentile(const struct claw_upstream_stats *s, struct claw_str model, unsigned percent)
{
    const struct model_facts *m = model_of((struct claw_upstream_stats *)s, model, false);
    uint64_t sum = 0, seen = 0;
    for (unsigned i = 0; m && i < TIMES; i++) sum += atomic_load_explicit(&m->times[i], memory_order_relaxed);
    if (sum < TIMES_MIN) return -1;
    for (unsigned i = 0; i < TIMES; i++) {
        seen += atomic_load_explicit(&m->times[i], memory_order_relaxed);
        if (seen * 100 >= sum * percent) return (int64_t)((uint64_t)(5 + i % 4) << (i / 4)) / 4 + 1; /* the class's end */
    }
    return -1;
}

void claw_upstream_stats_ttfb(struct claw_upstream_stats *s, struct claw_str model, uint64_t us, uint64_t now_ms)
{
    struct model_facts *m = model_of(s, model, true);
    if (!m) return;
    average(&m->ewma_us, (int64_t)us);
    note_time(m, us);
    atomic_store_explicit(&m->sampled_ms, now_ms, memory_order_relaxed);
}

void claw_upstream_stats_failed(struct claw_upstream_stats *s, struct claw_str model, uint64_t us, uint64_t now_ms)
{
    struct model_facts *m = model_of(s, model, true);
    if (!m) return;
    int64_t ewma = atomic_load_explicit(&m->ewma_us, memory_order_relaxed), sample = us > FAILED_US ? (int64_t)us : FAILED_US;
    if (ewma != NONE && ewma < INT64_MAX / 8 && ewma * 4 > sample) sample = ewma * 4 < SLOWEST_US ? ewma * 4 : SLOWEST_US;
    average(&m->ewma_us, sample);
    atomic_store_explicit(&m->sampled_ms, now_ms, memory_order_relaxed);
}

double claw_upstream_stats_recent_ms(const struct claw_upstream_stats *s)
{
    uint64_t latest = 0;
    double ms = -1;
    for (unsigned i = 0; i < MODELS_MAX; i++) {
        int64_t ewma = atomic_load_explicit(&s->models[i].ewma_us, memory_order_relaxed);
        uint64_t at = atomic_load_explicit(&s->models[i].sampled_ms, memory_order_relaxed);
        if (ewma == NONE || at < latest) continue;
        latest = at;
        ms = (double)ewma / 1000;
    }
    return ms;
}

void claw_upstream_stats_output(struct claw_upstream_stats *s, struct claw_str model, uint64_t tokens)
{
    struct model_facts *m = model_of(s, model, true);
    if (m) average(&m->mean_output_milli, (int64_t)tokens * 1000);
}

void claw_upstream_stats_get(const struct claw_upstream_stats *s, struct claw_str model, uint64_t now_ms,
                             struct claw_upstream_facts *out)
{
    struct claw_upstream_stats *w = (struct claw_upstream_stats *)s;
    const struct model_facts *m = model_of(w, model, false);
    out->outstanding = atomic_load_explicit(&w->outstanding, memory_order_relaxed);
    out->ewma_ttfb_ms = out->mean_output = -1;
    out->age_ms = 0;
    if (!m) return;
    int64_t ewma = atomic_load_explicit(&m->ewma_us, memory_order_relaxed);
    int64_t mean = atomic_load_explicit(&m->mean_output_milli, memory_order_relaxed);
    uint64_t at = atomic_load_explicit(&m->sampled_ms, memory_order_relaxed);
    if (ewma != NONE) {
        out->ewma_ttfb_ms = (double)ewma / 1000;
        out->age_ms = now_ms > at ? now_ms - at : 0;
    }
    if (mean != NONE) out->mean_output = (double)mean / 1000;
}
