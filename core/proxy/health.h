/* health: active checks of upstreams that ask for them (`upstreams.*.health`).
 *
 * One worker makes them: a GET with the upstream's own connection, TLS settings and key, one at a time of an upstream, at
 * its interval give or take a tenth, within 5 s or the interval. Any status below 400 is good. Three in a row that fail open the
 * upstream's breaker; further ones fail it as a probe would. A good one closes it when its pause is over, and counts for
 * nothing else: what requests tell is not undone by it. Thread: the loop's.
 */
#ifndef CLAW_PROXY_HEALTH_H
#define CLAW_PROXY_HEALTH_H

#include "proxy/fetch.h"

struct claw_health;

/* Check the upstreams of this generation, which is pinned, until freed. NULL: none asks for it, or no memory. */
struct claw_health *claw_health_new(struct claw_fetcher *x, struct claw_generation_local *local);
/* Give up what is under way. NULL is fine. */
void claw_health_free(struct claw_health *h);

#endif
