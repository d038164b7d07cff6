#include "proxy/tally.h"

#include <stdatomic.h>
#include <stdlib.h>

#define MERGED 32

struct claw_tally *claw_tally_new(struct claw_tally *_Atomic *head, unsigned worker)
{
    struct claw_tally *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    pthread_mutex_init(&t->lock, NULL);
    t->worker = worker;
    t->next = atomic_load(head);
    while (!atomic_compare_exchange_weak(head, &t->next, t)) continue;
    return t;
}

void claw_tally_free(struct claw_tally *first)
{
    while (first) {
        struct claw_tally *t = first;
        first = t->next;
        pthread_mutex_destroy(&t->lock);
        free(t);
    }
}

/* One writer: no read-modify-write is needed. What ends after it began is seen to. */
static void count(_Atomic int64_t *n)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_release);
}

void claw_tally_begin(struct claw_tally *t) { count(&t->begun); }
void claw_tally_end(struct claw_tally *t) { count(&t->ended); }

static void copy(char *to, size_t room, struct claw_str s)
{
    size_t n = s.len < room - 1 ? s.len : room - 1;
    if (n) memcpy(to, s.ptr, n);
    to[n] = 0;
}

static struct claw_tally_blame *place(struct claw_tally_blame *list, unsigned *n, unsigned most, const struct claw_tally_blame *like)
{
    for (unsigned i = 0; i < *n; i++)
        if (strcmp(list[i].policy, like->policy) == 0 && strcmp(list[i].hook, like->hook) == 0) return &list[i];
    if (*n == most) return NULL;
    list[*n] = *like;
    list[*n].n = 0;
    return &list[(*n)++];
}

void claw_tally_fail(struct claw_tally *t, struct claw_str policy, struct claw_str hook, struct claw_str message)
{
    count(&t->failed);
    if (pthread_mutex_trylock(&t->lock) != 0) return;
    struct claw_tally_blame b = {.n = 1}, *at;
    copy(b.policy, sizeof b.policy, policy);
    copy(b.hook, sizeof b.hook, hook);
    at = place(t->blames, &t->blames_n, CLAW_TALLY_BLAMES, &b);
    if (at) {
        at->n++;
        copy(at->message, sizeof at->message, message);
    }
    pthread_mutex_unlock(&t->lock);
}

struct claw_tally_sum claw_tally_add(struct claw_tally *first, unsigned worker)
{
    struct claw_tally_sum sum = {0, 0, 0};
    for (struct claw_tally *t = first; t; t = t->next) {
        if (worker && t->worker != worker) continue;
        sum.failed += atomic_load_explicit(&t->failed, memory_order_acquire); /* in this order: what failed had begun */
        sum.ended += atomic_load_explicit(&t->ended, memory_order_acquire);
        sum.begun += atomic_load_explicit(&t->begun, memory_order_acquire);
    }
    return sum;
}

unsigned claw_tally_blames(struct claw_tally *first, struct claw_tally_blame *to, unsigned n, unsigned most)
{
    for (struct claw_tally *t = first; t; t = t->next) {
        pthread_mutex_lock(&t->lock);
        for (unsigned i = 0; i < t->blames_n; i++) {
            struct claw_tally_blame *at = place(to, &n, most, &t->blames[i]);
            if (at) at->n += t->blames[i].n;
        }
        pthread_mutex_unlock(&t->lock);
    }
    return n;
}

void claw_tally_worst(struct claw_tally *first, struct claw_tally_blame *out)
{
    struct claw_tally_blame *all = calloc(MERGED, sizeof *all);
    memset(out, 0, sizeof *out);
    if (!all) return;
    unsigned n = claw_tally_blames(first, all, 0, MERGED);
    for (unsigned i = 0; i < n; i++)
        if (all[i].n > out->n) *out = all[i];
    free(all);
}
