/* limit: how many requests and tokens, and how many at once; exact over all workers.
 *
 *   rule (rate_limits[], clients[].limits) x key (per: ip, client, user, header) -> cells, one for each rate
 *
 * A cell of a rate holds one number, the time at which all that was taken will have flowed off at the steady rate: GCRA's
 * theoretical arrival time (ITU-T I.371 annex A; also the continuous-state leaky bucket). What is at most `burst` and one ahead
 * of now is admitted; without `burst` it is the whole limit: 5 a minute are 5 at once, then one each 12 seconds. With
 * max_wait_ms a request takes its place in what is to come, and waits until then, so those that wait go in the order they
 * came. Tokens are taken by estimate before (the prompt's, and max_tokens where it is said), and put right from usage
 * afterwards; a request of more tokens than the limit is admitted when nothing else is there. A cell of `concurrent`
 * counts; who waits for one looks again every CLAW_LIMIT_LOOK_MS.
 *
 * All limits that match are taken, or none. Cells are kept by name for the whole process, so that a reload forgets nothing; a
 * changed rate goes on from the time that is there. At most CLAW_LIMIT_CELLS are kept: those that hold nothing any more go
 * first, and past that new keys of a rule share one cell. Cells lie in shards, each under a lock that is held for a few
 * additions; what was taken from one shard when another refuses is put back.
 *
 * One instance's memory: a backend that is shared by instances would take the place of take_cell and give_back (limit.c).
 * Time is the loop's monotonic clock. Thread: any worker.
 */
#ifndef CLAW_PROXY_LIMIT_H
#define CLAW_PROXY_LIMIT_H

#include "proxy/req.h"

#define CLAW_LIMIT_CELLS (1u << 20)
#define CLAW_LIMIT_LOOK_MS 20u

/* Has the configuration limits that are no upstream's / that are one's? */
bool claw_limits_any(const struct claw_conf *conf);
bool claw_limits_of_upstreams(const struct claw_conf *conf);

/* The route is known: take what every limit asks that matches and is no upstream's. 0; or CLAW_EAGAIN with *wait_ms: taken (or,
 * for `concurrent`, not yet: *again), go on then; or CLAW_ERATE_LIMITED: r->error_text and the answer's headers say which
 * one, and when. `waited_ms`: so far. */
int claw_limits_take(struct claw_req *r, unsigned waited_ms, unsigned *wait_ms, bool *again) CLAW_MUSTCHECK;
/* The same of the limits of upstream `upstream`, for one more attempt there; those of the attempt before are put back as far as they
 * count what is under way. False: full; r->error_text says why. */
bool claw_limits_take_upstream(struct claw_req *r, size_t upstream);
/* No upstream is left: the answer's retry-after says when the first that was full has room. */
void claw_limits_say_when(struct claw_req *r);
/* The request ended: tokens are put right, places freed. Once. */
void claw_limits_settle(struct claw_req *r);

struct claw_limit_stats { int64_t cells, shared; };
/* Cells there are; and how often a key found no room for its own. */
struct claw_limit_stats claw_limits_measure(void);
/* JSON for operators: each limit and what it allows. */
int claw_limits_write(const struct claw_conf *conf, struct claw_buf *out) CLAW_MUSTCHECK;
/* For tests: forget everything. */
void claw_limits_forget(void);

#endif
