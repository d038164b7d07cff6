/* care: what a request makes of its upstreams' state, and tells of them: who is set aside, which key is sent, what a
 * failure counts for, whether another try may be made.
 *
 *   outcome                                            counts for
 *   connect, tls, timeout_first_byte, stall, eof,      the upstream; EDEADLINE too, when no head had come after a second
 *   bad_response, 408, 5xx, an error in a stream
 *   429, 402                                           the key, of several; else the model at this upstream (no model: the upstream)
 *   401 where an access token was sent                 nothing: another token is got (token.h), and sent in a further try
 *   401, 403                                           the key: retired, until its text changes, the process ends, or it serves after
 *                                                      all when nothing else was left. Not when a policy sent another key in its place;
 *                                                      a 403 that speaks of the model counts for the model. On a path that is no
 *                                                      dialect's: the key, of several, like a 429; else nothing
 *   404 of a known path that speaks of the model       the model at this upstream
 *   any other answer                                   a success
 *   client gone, canceled, outrun; eof or 408 while
 *   the client's form is not all here                  nothing
 *
 * Set aside is moved to the end: when all are, the soonest ready one is asked. Tries beyond the first are counted against
 * the requests of the last 10 s of the process: `retry.budget` of them, or CLAW_CARE_FLOOR, whichever is more.
 * Thread: the worker's.
 */
#ifndef CLAW_PROXY_CARE_H
#define CLAW_PROXY_CARE_H

#include "proxy/pipeline.h"

#define CLAW_CARE_FLOOR 10u

/* Of the process, by the second: requests in total, as failed the tries beyond the first. */
extern struct claw_window claw_care_traffic;
#define CLAW_CARE_SHIFT 10u /* of it 10 slots of a second are looked at */
/* A request came that has candidates: it earns budget. */
static inline void claw_care_earn(uint64_t now_ms) { claw_window_add(&claw_care_traffic, CLAW_CARE_SHIFT, now_ms, CLAW_WINDOW_TOTAL); }
/* Another try is to be made. False: there is no budget for it. */
bool claw_care_spend(struct claw_req *r);
/* Nobody asked yet. For tests. */
void claw_care_forget(void);

/* claw_care_arrange when somebody is set aside. */
void claw_care_set_aside(struct claw_req *r, unsigned from);
/* Order candidates from `from` on by who is set aside, and claim the first one's probe. */
static inline void claw_care_arrange(struct claw_req *r, unsigned from)
{
    if (__builtin_expect(claw_breaker_any(), 0)) claw_care_set_aside(r, from);
}
/* Of a request that claimed a probe: it is not made after all. */
void claw_care_release(struct claw_req *r);
/* The probe claimed for the present candidate, if one is, is not made after all. */
static inline void claw_care_let_go(struct claw_req *r)
{
    if (__builtin_expect(r->claimed, 0)) claw_care_release(r);
}
/* Of several keys the one for an attempt at the present candidate, by weight among those that serve the model and are not set aside, and
 * did not fail in this request; else the soonest ready. */
uint16_t claw_care_pick_key(struct claw_req *r);
/* How many other keys there are for the present candidate that could be sent now. */
unsigned claw_care_other_keys(const struct claw_req *r);

/* The present attempt failed before the commit point, as claw_pipeline_upstream_failed is told. */
void claw_care_failed(struct claw_req *r, int code, int status, struct claw_str body, int64_t retry_after_ms);
/* The present attempt is a probe, and its answer begins: no more is needed. */
void claw_care_answers(struct claw_req *r);
/* claw_care_ended of all but the usual. */
void claw_care_judge(struct claw_req *r, struct claw_attempt *a, int code);
/* The present attempt ended with code; nothing new when its outcome was noted before. Nobody is set aside, and it is a success:
 * nothing can close, and when it began does not matter. */
static inline void claw_care_ended(struct claw_req *r, struct claw_attempt *a, const struct claw_generation_upstream *up, int code)
{
    if (a->noted) return;
    if (__builtin_expect(code != CLAW_OK || claw_breaker_any() || atomic_load_explicit(&up->cooling->models_n, memory_order_relaxed), 0)) {
        claw_care_judge(r, a, code);
        return;
    }
    claw_breaker_succeed(&up->cooling->breaker, claw_loop_now_ms(r->ctx->loop), 0);
    if (a->several) atomic_store_explicit(&up->keys[a->key]->breaker.failures, 0, memory_order_relaxed);
}

/* How an upstream is for a model, its keys with it; *left_ms: when it may be asked again, 0 now, -1 when its keys are retired. */
enum claw_breaker_state claw_care_state(const struct claw_generation_upstream *up, struct claw_str model, uint64_t now_ms, int64_t *left_ms);
/* Why a candidate is set aside, for people: "5 failures in a row, asked again in 3 s". "": it is not. Returns its length. */
size_t claw_care_why(const struct claw_req *r, unsigned candidate, char *to, size_t room);

#endif
