#include "proxy/spend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define BUCKETS 4096u
#define DAY 86400
#define MONDAY (4 * DAY) /* 1970-01-05 */

struct claw_spend {
    struct claw_spend *next; /* in its bucket; set before it is put there */
    pthread_mutex_t lock;
    int64_t start[CLAW_SPEND_PERIODS], micros[CLAW_SPEND_PERIODS];
    int64_t untold[CLAW_SPEND_PERIODS]; /* of micros: what others are not told yet */
    _Atomic bool queued;
    struct claw_spend *next_queued;
    size_t len;
    char name[];
};

static struct {
    pthread_mutex_t lock;
    struct claw_spend *_Atomic buckets[BUCKETS]; /* nothing is taken out: read without the lock */
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define SOME 400u /* buckets whose clients are looked after besides: all in ten times */
static _Atomic bool shared;
static struct {
    pthread_mutex_t lock;
    struct claw_spend *first;
    unsigned hand;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct claw_spend *look(struct claw_spend *s, struct claw_str client)
{
    while (s && !claw_str_eq((struct claw_str){s->name, s->len}, client)) s = s->next;
    return s;
}

struct claw_spend *claw_spend_of(struct claw_str client)
{
    struct claw_spend *_Atomic *bucket = &all.buckets[claw_str_hash(client, 0) % BUCKETS];
    struct claw_spend *s = look(atomic_load(bucket), client);
    if (s) return s;
    pthread_mutex_lock(&all.lock);
    s = look(atomic_load(bucket), client);
    if (!s && (s = calloc(1, sizeof *s + client.len))) {
        pthread_mutex_init(&s->lock, NULL);
        memcpy(s->name, client.ptr, client.len);
        s->len = client.len;
        s->next = atomic_load(bucket);
        atomic_store(bucket, s);
    }
    pthread_mutex_unlock(&all.lock);
    return s;
}

/* ---- periods ---------------------------------------------------------------------------------------------------- */

static int64_t floor_to(int64_t t, int64_t step, int64_t from)
{
    int64_t past = (t - from) % step;
    return t - (past < 0 ? past + step : past);
}

static int64_t month_begin(int64_t now, int ahead)
{
    time_t t = (time_t)now;
    struct tm tm;
    gmtime_r(&t, &tm);
    struct tm begin = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon + ahead, .tm_mday = 1};
    return (int64_t)timegm(&begin);
}

int64_t claw_spend_start(enum claw_spend_per per, int64_t now)
{
    switch (per) {
    case CLAW_SPEND_DAY: return floor_to(now, DAY, 0);
    case CLAW_SPEND_WEEK: return floor_to(now, 7 * DAY, MONDAY);
    case CLAW_SPEND_MONTH: return month_begin(now, 0);
    default: return 0;
    }
}

int64_t claw_spend_end(enum claw_spend_per per, int64_t now)
{
    switch (per) {
    case CLAW_SPEND_DAY: return claw_spend_start(per, now) + DAY;
    case CLAW_SPEND_WEEK: return claw_spend_start(per, now) + 7 * DAY;
    case CLAW_SPEND_MONTH: return month_begin(now, 1);
    default: return INT64_MAX;
    }
}

static const char *const names[CLAW_SPEND_PERIODS] = {"day", "week", "month", "total"};

const char *claw_spend_per_name(enum claw_spend_per per) { return names[per]; }

bool claw_spend_per_of(struct claw_str name, enum claw_spend_per *out)
{
    for (int i = 0; i < CLAW_SPEND_PERIODS; i++) {
        if (!claw_str_eqz(name, names[i])) continue;
        *out = (enum claw_spend_per)i;
        return true;
    }
    return false;
}

/* ---- counting --------------------------------------------------------------------------------------------------- */

/* Holding the lock. A period that is over begins anew; time that runs back stays in the later one. */
static void turn_over(struct claw_spend *s, enum claw_spend_per per, int64_t now)
{
    int64_t start = claw_spend_start(per, now);
    if (start <= s->start[per]) return;
    s->start[per] = start;
    s->micros[per] = s->untold[per] = 0;
}

static void enqueue(struct claw_spend *s)
{
    if (atomic_load_explicit(&s->queued, memory_order_relaxed) || atomic_exchange(&s->queued, true)) return;
    pthread_mutex_lock(&queue.lock);
    s->next_queued = queue.first;
    queue.first = s;
    pthread_mutex_unlock(&queue.lock);
}

static int64_t sum_of(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) || sum > CLAW_SPEND_MOST ? CLAW_SPEND_MOST : sum;
}

void claw_spend_add(struct claw_spend *s, int64_t micros, int64_t now)
{
    bool shares = atomic_load_explicit(&shared, memory_order_relaxed);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CLAW_SPEND_PERIODS; i++) {
        turn_over(s, (enum claw_spend_per)i, now);
        s->micros[i] = sum_of(s->micros[i], micros);
        if (shares) s->untold[i] = sum_of(s->untold[i], micros);
    }
    pthread_mutex_unlock(&s->lock);
    if (shares) enqueue(s);
}

int64_t claw_spend_in(struct claw_spend *s, enum claw_spend_per per, int64_t now)
{
    pthread_mutex_lock(&s->lock);
    turn_over(s, per, now);
    int64_t micros = s->micros[per];
    pthread_mutex_unlock(&s->lock);
    if (atomic_load_explicit(&shared, memory_order_relaxed)) enqueue(s);
    return micros;
}

void claw_spend_restore(struct claw_spend *s, enum claw_spend_per per, int64_t start, int64_t micros)
{
    pthread_mutex_lock(&s->lock);
    if (start > s->start[per]) {
        s->start[per] = start;
        s->micros[per] = 0;
    }
    if (start == s->start[per]) s->micros[per] = sum_of(s->micros[per], micros);
    pthread_mutex_unlock(&s->lock);
}

/* ---- sharing ---------------------------------------------------------------------------------------------------- */

void claw_spend_share(bool on)
{
    if (atomic_exchange(&shared, on) || !on) return;
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct claw_spend *s = atomic_load(&all.buckets[i]); s; s = s->next) enqueue(s);
}

static void take(struct claw_spend *s, struct claw_spend_news *to)
{
    int64_t now = (int64_t)time(NULL);
    to->spend = s;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CLAW_SPEND_PERIODS; i++) {
        turn_over(s, (enum claw_spend_per)i, now);
        to->start[i] = s->start[i];
        to->more[i] = s->untold[i];
        to->known[i] = s->micros[i] - s->untold[i];
        s->untold[i] = 0;
    }
    pthread_mutex_unlock(&s->lock);
}

size_t claw_spend_take_news(struct claw_spend_news *out, size_t most)
{
    size_t n = 0;
    while (n < most) {
        pthread_mutex_lock(&queue.lock);
        struct claw_spend *s = queue.first;
        if (s) queue.first = s->next_queued;
        pthread_mutex_unlock(&queue.lock);
        if (!s) break;
        atomic_store(&s->queued, false); /* what comes from here on queues it again */
        take(s, &out[n++]);
    }
    size_t asked = n, with_others = n + (most - n) / 2;
    for (unsigned i = 0; i < SOME && n < with_others; i++, queue.hand++) {
        for (struct claw_spend *s = atomic_load(&all.buckets[queue.hand % BUCKETS]); s && n < with_others; s = s->next) {
            bool there = false;
            for (size_t k = 0; k < asked && !there; k++) there = out[k].spend == s;
            if (!there) take(s, &out[n++]);
        }
    }
    return n;
}

void claw_spend_hear(struct claw_spend *s, const int64_t start[CLAW_SPEND_PERIODS], const int64_t micros[CLAW_SPEND_PERIODS])
{
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CLAW_SPEND_PERIODS; i++) {
        if (start[i] < s->start[i]) continue;
        if (start[i] > s->start[i]) s->untold[i] = 0; /* another one's clock is ahead, at the turn of a period */
        s->start[i] = start[i];
        s->micros[i] = sum_of(micros[i], s->untold[i]);
    }
    pthread_mutex_unlock(&s->lock);
}

struct claw_str claw_spend_name(const struct claw_spend *s) { return (struct claw_str){s->name, s->len}; }
