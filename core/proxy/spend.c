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
    size_t len;
    char name[];
};

static struct {
    pthread_mutex_t lock;
    struct claw_spend *_Atomic buckets[BUCKETS]; /* nothing is taken out: read without the lock */
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

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
    s->micros[per] = 0;
}

void claw_spend_add(struct claw_spend *s, int64_t micros, int64_t now)
{
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CLAW_SPEND_PERIODS; i++) {
        turn_over(s, (enum claw_spend_per)i, now);
        s->micros[i] += micros;
    }
    pthread_mutex_unlock(&s->lock);
}

int64_t claw_spend_in(struct claw_spend *s, enum claw_spend_per per, int64_t now)
{
    pthread_mutex_lock(&s->lock);
    turn_over(s, per, now);
    int64_t micros = s->micros[per];
    pthread_mutex_unlock(&s->lock);
    return micros;
}

void claw_spend_restore(struct claw_spend *s, enum claw_spend_per per, int64_t start, int64_t micros)
{
    pthread_mutex_lock(&s->lock);
    if (start > s->start[per]) {
        s->start[per] = start;
        s->micros[per] = 0;
    }
    if (start == s->start[per]) s->micros[per] += micros;
    pthread_mutex_unlock(&s->lock);
}
