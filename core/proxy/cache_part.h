/* cache_part: answers that instances share in Redis (caching.backend: redis), beside those each has in memory.
 *
 * Asked for when an answer is not in memory and before an upstream is asked for it, by whoever leads its flight (recall.h); told when
 * one was kept in memory. Beside the answer stands the epoch it was begun in: a purge begins another. What is larger than
 * CLAW_CACHE_SHARED is not shared, so that no decision about limits waits behind it for long. While Redis does not answer in
 * state.timeout_ms (state.h) there is no answer there. Names of answers are numbers made with caching.secret (canon.h); what stands in an answer is there as it is.
 * Owner: the request that asks. Thread: its loop's.
 */
#ifndef CLAW_PROXY_CACHE_PART_H
#define CLAW_PROXY_CACHE_PART_H

#include "proxy/cache.h"
#include "proxy/state.h"

#define CLAW_CACHE_SHARED (512u << 10)
#define CLAW_CACHE_EPOCH "cache:epoch"

struct claw_cache_ask;

/* Ask for the answer under `key`; on_told(arg) follows, not before this returns. NULL: it cannot be asked now. */
struct claw_cache_ask *claw_cache_ask(struct claw_state *s, const struct claw_cache_key *key, void (*on_told)(void *arg), void *arg);
/* Within on_told, once: what there is, copied into `bytes` (cleared first), where the slices of *out lie; false: nothing. *epoch: below 0,
 * not known: nothing is to be told. */
bool claw_cache_ask_take(struct claw_cache_ask *a, uint64_t now_ms, struct claw_cache_answer *out, struct claw_buf *bytes, int64_t *epoch);
/* Nobody waits any longer: on_told does not come. */
void claw_cache_ask_drop(struct claw_cache_ask *a);
/* An answer that was begun in `epoch`. False: it is not sent. Whether it is kept nobody is told. */
bool claw_cache_tell(struct claw_state *s, const struct claw_cache_key *key, const struct claw_cache_answer *a, int64_t epoch);

#endif
