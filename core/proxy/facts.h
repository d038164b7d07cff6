/* facts: what is known of an upstream at run time: outstanding requests, time to first byte, length of answers.
 *
 * Shared by all workers and generations, kept by upstream name, so that a reload forgets nothing. Strategies see them
 * as `facts`. Writers and readers use relaxed atomics; a figure may be one sample behind.
 */
#ifndef CLAW_PROXY_FACTS_H
#define CLAW_PROXY_FACTS_H

#include "base/buf.h"

struct claw_upstream_stats; /* lives until the process ends; at most 1,024 upstream names, 64 models each */

/* By upstream name; made on first use. Past the bound all further names share one. Any thread. */
struct claw_upstream_stats *claw_upstream_stats_of(struct claw_str upstream);
void claw_upstream_stats_begin(struct claw_upstream_stats *s);
void claw_upstream_stats_end(struct claw_upstream_stats *s);
/* The time to the first byte that `percent` of the last some hundred answers stayed within, in ms, at most a fifth too
 * long. -1: fewer than 20 are known. */
int64_t claw_upstream_stats_percentile(const struct claw_upstream_stats *s, struct claw_str model, unsigned percent);
/* A time to first byte was seen / an answer had this many output tokens. */
void claw_upstream_stats_ttfb(struct claw_upstream_stats *s, struct claw_str model, uint64_t us, uint64_t now_ms);
void claw_upstream_stats_output(struct claw_upstream_stats *s, struct claw_str model, uint64_t tokens);
/* The running mean of the time to the first byte of the model heard of last, in ms. < 0: none. */
double claw_upstream_stats_recent_ms(const struct claw_upstream_stats *s);
/* It failed after `us`: it counts as slow, four times as slow as it is, as the failure or as a second, whichever is longest. */
void claw_upstream_stats_failed(struct claw_upstream_stats *s, struct claw_str model, uint64_t us, uint64_t now_ms);
struct claw_upstream_facts {
    int64_t outstanding;
    double ewma_ttfb_ms;  /* < 0: no sample */
    double mean_output;   /* < 0: none */
    uint64_t age_ms;      /* of the last ttfb sample */
};
void claw_upstream_stats_get(const struct claw_upstream_stats *s, struct claw_str model, uint64_t now_ms,
                             struct claw_upstream_facts *out);

#endif
