#include "proxy/canary.h"

#include <pthread.h>
#include <stdatomic.h>

#define NAME_BYTES 128u
#define SETTLED -1

/* A place is one route's for good: who reads its name needs no lock. */
struct place {
    char name[NAME_BYTES];
    size_t len;
    _Atomic int64_t millis; /* thousandths of a percent; SETTLED */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of taking a place */
static struct place places[CLAW_CANARY_ROUTES];
static _Atomic unsigned places_n;

static struct place *find(struct claw_str route)
{
    unsigned n = atomic_load_explicit(&places_n, memory_order_acquire);
    for (unsigned i = 0; i < n; i++)
        if (places[i].len == route.len && memcmp(places[i].name, route.ptr, route.len) == 0) return &places[i];
    return NULL;
}

static struct place *take(struct claw_str route)
{
    pthread_mutex_lock(&lock);
    struct place *p = find(route);
    unsigned n = atomic_load_explicit(&places_n, memory_order_relaxed);
    if (!p && n < CLAW_CANARY_ROUTES && route.len <= NAME_BYTES) {
        p = &places[n];
        memcpy(p->name, route.ptr, route.len);
        p->len = route.len;
        atomic_store_explicit(&p->millis, SETTLED, memory_order_relaxed);
        atomic_store_explicit(&places_n, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return p;
}

int claw_canary_move(struct claw_str route, double percent)
{
    CLAW_ASSERT(percent >= 0 && percent <= 100);
    struct place *p = take(route);
    if (!p) return CLAW_ENOMEM;
    atomic_store_explicit(&p->millis, (int64_t)(percent * 1000 + 0.5), memory_order_relaxed);
    return 0;
}

void claw_canary_settle(struct claw_str route)
{
    struct place *p = find(route);
    if (p) atomic_store_explicit(&p->millis, SETTLED, memory_order_relaxed);
}

double claw_canary_moved(struct claw_str route)
{
    struct place *p = find(route);
    int64_t millis = p ? atomic_load_explicit(&p->millis, memory_order_relaxed) : SETTLED;
    return millis == SETTLED ? -1 : (double)millis / 1000;
}
