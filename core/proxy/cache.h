/* cache: complete answers kept for identical requests, in memory, for the whole process.
 *
 *   key (claw_canon of what makes two requests the same) -> an answer
 *
 * One cache serves all workers and outlives generations. It is cut into shards by the key; a call takes one shard's lock, for as
 * long as the answer is copied out or in. Nothing of the cache is held between calls.
 *
 * Eviction is S3-FIFO (Yang et al., SOSP 2023): a new answer goes to a small queue (a tenth of the bytes). Not asked for
 * again there, it leaves, and only its fingerprint is kept for a while; asked for again it moves to the main queue, where it
 * gets another round for each of up to three hits. So a scan of answers nobody asks for twice passes through the small queue
 * and leaves the rest alone. It was preferred to W-TinyLFU since a hit writes one byte and moves nothing, and there is
 * no sketch to age.
 *
 * The bound is of memory, and exact: each shard is one mapping of its part of it, in which lie its index, its fingerprints and
 * its blocks of 512 bytes, of which an entry is a chain. Nothing comes from malloc but some hundred bytes a shard.
 * Time is the caller's monotonic clock in milliseconds. Thread: any, except new, set_cap (one at a time) and free.
 */
#ifndef CLAW_PROXY_CACHE_H
#define CLAW_PROXY_CACHE_H

#include "base/canon.h"

#define CLAW_CACHE_KEY CLAW_CANON_BYTES
#define CLAW_CACHE_PART 8u    /* one answer is at most this part of a shard, which is at most 1/16 of the cache, at least 1 MB */
#define CLAW_CACHE_TEXTS 384u /* bytes of an answer's texts without its body, at most */

struct claw_cache;

struct claw_cache_key { unsigned char bytes[CLAW_CACHE_KEY]; };

struct claw_cache_answer {
    struct claw_str route, model, client; /* what purge selects by; client "": shared */
    struct claw_str type;                 /* content-type */
    struct claw_str dropped;              /* fields of the request that were left out on the way; "": none */
    struct claw_str body;
    bool stream;                          /* body is an event stream */
    uint64_t made_ms, ends_ms;
};

struct claw_cache_stats { int64_t cap, bytes, entries, hits, misses, evictions; };

/* What purge lets go of: all whose texts equal those given (ptr NULL: any). */
struct claw_cache_filter { struct claw_str route, model, client; };

/* A cache of at most `cap` bytes (at least 1 MB). NULL: no memory. */
struct claw_cache *claw_cache_new(size_t cap);
/* What there is is moved, a shard at a time, as far as a smaller one has room. Without memory a shard stays as it is. */
void claw_cache_set_cap(struct claw_cache *c, size_t cap);
void claw_cache_free(struct claw_cache *c);
/* bytes: of blocks in use, index and fingerprints. */
struct claw_cache_stats claw_cache_measure(struct claw_cache *c);

/* The answer under `key` that has not ended, copied into `bytes` (cleared first), where the slices of *out lie. Counts a hit or a
 * miss. Without memory there is none. */
bool claw_cache_get(struct claw_cache *c, const struct claw_cache_key *key, uint64_t now_ms, struct claw_cache_answer *out, struct claw_buf *bytes);
/* The same once more for the same request: none is no second miss. */
bool claw_cache_get_again(struct claw_cache *c, const struct claw_cache_key *key, uint64_t now_ms, struct claw_cache_answer *out, struct claw_buf *bytes);

/* Keep an answer, in place of one that is there. `purges`: claw_cache_purges when it was begun. False: it is too large, or purge
 * was called since. */
bool claw_cache_put(struct claw_cache *c, const struct claw_cache_key *key, const struct claw_cache_answer *a, uint64_t purges);
/* Each entry (body: its length only) with all that is counted for it, one shard's after the other; `look` runs under the lock. */
void claw_cache_each(struct claw_cache *c, void (*look)(void *arg, const struct claw_cache_answer *a, size_t bytes), void *arg);
/* The longest body that may be kept. */
size_t claw_cache_most(struct claw_cache *c);
/* How often purge was called: an answer that was begun before the last one is not to be kept. */
uint64_t claw_cache_purges(const struct claw_cache *c);
/* How many entries went. */
size_t claw_cache_purge(struct claw_cache *c, const struct claw_cache_filter *f);

#endif
