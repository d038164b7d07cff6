/* sync: what instances that share a Redis tell each other (state.h): who there is, what clients spent, what is set aside.
 *
 *   each CLAW_SYNC_MS: this instance is alive; what was spent since; what was set aside since
 *                      -> one script -> how many there are; what was spent by all; what others set aside
 *
 * Spend: a batch holds what each client spent by period since the last one, under a number that grows. It is sent until it is
 * answered, and Redis counts it once: a number it had already changes nothing, so that a connection lost on the way
 * doubles nothing. With it goes what all had spent as far as this instance knows, and Redis' count is never below that: a
 * Redis that was emptied, or a replica that lags, is told again. Clients whose budgets are asked for are read each time, the
 * others in turn, 600 in a second. So a budget is passed by what all instances spend in a tenth of a second or two.
 *
 * Set aside: an upstream, one of its models or keys, with how long still; each instance takes it as a failure of its own that says
 * so (breaker.h), and finds out for itself when it is well again. A key is named by a part of its SHA-256. What an operator
 * says on one instance (cool, restore) holds on all. Names longer than CLAW_SYNC_NAME are not told, nor more than CLAW_SYNC_EVENTS at once.
 *
 * A purge of cached answers is told likewise: Redis' are of an older epoch from then on.
 *
 * Nothing waits for it. While Redis does not answer all of this is kept and told when it is back, but for what was set aside
 * meanwhile beyond that bound. Owner: control, on whose loop it runs. claw_sync_tell: any thread.
 */
#ifndef CLAW_PROXY_SYNC_H
#define CLAW_PROXY_SYNC_H

#include "proxy/generation.h"
#include "proxy/state.h"

#include <stdatomic.h>

#define CLAW_SYNC_MS 100u
#define CLAW_SYNC_ALIVE_MS 3000u /* unheard of for longer an instance is none */
#define CLAW_SYNC_END_MS 2000u   /* the longest that a process which ends waits to tell the rest */
#define CLAW_SYNC_EVENTS 256u
#define CLAW_SYNC_NAME 160u

enum claw_sync_what { CLAW_SYNC_UPSTREAM = 'u', CLAW_SYNC_MODEL = 'm', CLAW_SYNC_KEY = 'k' };
enum claw_sync_how {
    CLAW_SYNC_COOLED = 'o',   /* for ms, as a failure */
    CLAW_SYNC_HELD = 'h',     /* for ms, whatever succeeds: an operator said so */
    CLAW_SYNC_RETIRED = 'r',  /* until its text changes: a key */
    CLAW_SYNC_RESTORED = 'c', /* all of an upstream: an operator said so */
    CLAW_SYNC_PURGED = 'p',   /* cached answers */
};

struct claw_sync;
struct claw_cache_filter;

/* NULL: out of memory. */
struct claw_sync *claw_sync_new(struct claw_loop *loop, struct claw_metrics_shard *metrics);
/* `gen` is the current one from now on, and lives until the next call of this. It begins, or ends, when it shares, or does not. */
void claw_sync_set(struct claw_sync *s, struct claw_generation *gen);
/* Tell what is left, and that this instance is gone; done(arg) follows when it is told, or cannot be in CLAW_SYNC_END_MS;
 * maybe before this returns. Nothing is told any more. */
void claw_sync_end(struct claw_sync *s, void (*done)(void *arg), void *arg);
/* Behind `done` and the end of that turn. */
void claw_sync_free(struct claw_sync *s);

/* `which` (model, or the id of a key) of `upstream` was set aside here. Costs nothing while nothing is shared. */
extern _Atomic bool claw_sync_on;
void claw_sync_tell_others(enum claw_sync_what what, struct claw_str upstream, struct claw_str which, enum claw_sync_how how, uint64_t ms);
/* claw_sync_tell_others, where others are told. */
static inline void claw_sync_tell(enum claw_sync_what what, struct claw_str upstream, struct claw_str which, enum claw_sync_how how, uint64_t ms)
{
    if (__builtin_expect(atomic_load_explicit(&claw_sync_on, memory_order_relaxed), 0)) claw_sync_tell_others(what, upstream, which, how, ms);
}

/* Cached answers were purged here: all of Redis' are, and the others' like here. Until Redis knows, claw_sync_purging: none is to be
 * fetched there or kept. Any thread. */
void claw_sync_purge(const struct claw_cache_filter *f);
/* Is there a purge that Redis does not know of yet? Any thread. */
bool claw_sync_purging(void);

#endif
