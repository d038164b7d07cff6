/* limit: how many requests and tokens, and how many at once; exact over all workers.
 *
 *   rule (rate_limits[], clients[].limits) x key (per: ip, client, user, header) -> cells, one for each rate
 *
 * A cell of a rate holds one number, the time at which all that was taken will have flowed off at the steady rate: GCRA's
 * theoretical arrival time (ITU-T I.371 annex A; also the continuous-state leaky bucket). What is at most `burst` and one ahead
 * of now is admitted; without `burst` it is the whole limit: 5 a minute are 5 at once, then one each 12 seconds. With
 * max_wait_ms who finds no room waits for it, clients in turn (limit_queue.h); whose turn it is takes its place in what is to come
 * 50 ms before it is there. Tokens are taken by estimate before (the prompt's, and max_tokens where it is said), and put right from usage
 * afterwards; a request of more tokens than the limit is admitted when nothing else is there. A cell of `concurrent`
 * counts.
 *
 * All limits that match are taken, or none. Cells are kept by name for the whole process, so that a reload forgets nothing; a
 * changed rate goes on from the time that is there. At most CLAW_LIMIT_CELLS are kept: those that hold nothing any more go
 * first, and past that new keys of a rule share one cell. Cells lie in shards, each under a lock that is held for a few
 * additions; what was taken from one shard when another refuses is put back.
 *
 * Time is the loop's monotonic clock. Thread: any worker.
 *
 * With state.backend redis the counts are Redis', and all instances' (state.h): one script decides about all limits of a
 * request at once, by Redis' time; requests wait for it as hooks wait. A place of `concurrent` is a lease with a name, held for state.lease_seconds
 * and held on by its worker, so that those of an instance that dies come free. Cells are kept in step: each says what Redis said
 * last. While Redis does not answer they decide instead, each instance by its part of the limit (its limit, burst and
 * places divided by the instances there were last, at least one), so that all of them together stay within it, at the price
 * that one with more than its part of the traffic is refused some of it; the whole in each would let through as many
 * times the limit as there are instances. What is taken meanwhile is owed, flows off as it would have there, and is added when Redis is back;
 * so are places that were given up. CLAW_LIMIT_OWED of it are kept.
 */
#ifndef CLAW_PROXY_LIMIT_H
#define CLAW_PROXY_LIMIT_H

#include "proxy/req.h"

struct claw_worker_ctx;

#define CLAW_LIMIT_CELLS (1u << 20)
#define CLAW_LIMIT_LOOK_MS 20u
#define CLAW_LIMIT_LOOK_SHARED_MS 50u /* the same where each look is one of Redis */
#define CLAW_LIMIT_OWED 65536u

/* Has the configuration limits that are no upstream's / that are one's? */
bool claw_limits_any(const struct claw_conf *conf);
bool claw_limits_of_upstreams(const struct claw_conf *conf);

/* The route is known: take what every limit asks that matches and is no upstream's. 0; or CLAW_EAGAIN with *wait_ms: taken, go on then,
 * or (*again) not yet, and this is to be called again then, or when the request is resumed before (*wait_ms 0: Redis was asked); or CLAW_ERATE_LIMITED: r->error_text and the answer's headers say which
 * one, and when. `waited_ms`: so far. */
int claw_limits_take(struct claw_req *r, unsigned waited_ms, unsigned *wait_ms, bool *again) CLAW_MUSTCHECK;
/* The same of the limits of upstream `upstream`, for one more attempt there; those of the attempt before are put back as far as they
 * count what is under way. CLAW_ERATE_LIMITED: full; r->error_text says why. CLAW_EAGAIN: as above. */
int claw_limits_take_upstream(struct claw_req *r, size_t upstream) CLAW_MUSTCHECK;
/* No upstream is left: the answer's retry-after says when the first that was full has room. */
void claw_limits_say_when(struct claw_req *r);
/* The request ended: tokens are put right, places freed, its place among those that wait is given up. Once. */
void claw_limits_settle(struct claw_req *r);

/* A worker's, a few times a second and when Redis is back, where limits are shared: places are held on, what is owed is told. */
void claw_limits_keep(struct claw_worker_ctx *ctx);

struct claw_limit_stats { int64_t cells, shared, waiting; };
/* Cells there are; how often a key found no room for its own; requests that wait. */
struct claw_limit_stats claw_limits_measure(void);
/* JSON for operators: each limit and what it allows. */
int claw_limits_write(const struct claw_conf *conf, struct claw_buf *out) CLAW_MUSTCHECK;
/* For tests: forget everything. */
void claw_limits_forget(void);
/* A line for each limit that counts this request, whose route and candidates are known; of an upstream's, with the candidates it is of. */
int claw_limits_explain(const struct claw_req *r, struct claw_buf *out) CLAW_MUSTCHECK;

#endif
