/* hedge: a second upstream is asked while the first one is silent; who speaks first answers, the other is canceled.
 *
 *   an attempt begins --(after_ms, or the percentile of the upstream's usual time)--> still silent?
 *        the exchange steps aside; the request goes on with the next candidate, from the transform step on
 *   either speaks  --> claw_hedge_won: it is the request's exchange, the other one's connection is closed
 *   either fails   --> claw_hedge_lost: the other one is the request's exchange, alone
 *
 * To speak is to send a head, of an event stream its first event. A request is hedged once. A hedge is a try like any
 * other for retry.attempts. Hedges stay within a part of each route's traffic (in each worker): every request earns
 * `budget` of one, of which CLAW_HEDGE_SAVED can be saved; a worker begins with one.
 *
 * The request's fields of an exchange (client, relay, out_*, candidate, attempt …) are those of one of the two; the other's
 * lie in struct claw_hedge. While the one that stepped aside is heard they are exchanged, so that the relay knows of one
 * exchange only.
 */
#ifndef CLAW_PROXY_HEDGE_H
#define CLAW_PROXY_HEDGE_H

#include "proxy/req.h"

#define CLAW_HEDGE_BUDGET 0.05 /* of a policy's hedge on a route without one */
#define CLAW_HEDGE_SAVED 10.0

/* A request begins: nothing is hedged. */
void claw_hedge_init(struct claw_req *r);
/* The route is known, and with it r->hedging. */
void claw_hedge_earn(struct claw_req *r);
/* An attempt begins; it is on its way (possibly later). */
void claw_hedge_arm(struct claw_req *r);
void claw_hedge_sent(struct claw_req *r);
/* Are two exchanges under way? Is the one that is heard now not the one the request's step belongs to? */
bool claw_hedge_running(const struct claw_req *r);
bool claw_hedge_aside(const struct claw_req *r);
/* The request's present exchange speaks. Nothing happens where there is no other. */
void claw_hedge_won(struct claw_req *r);
/* It failed, and the other one goes on (claw_hedge_running). `kind` outlives the request. */
void claw_hedge_lost(struct claw_req *r, int code, const char *kind);
/* The other one is given up: the request ends, or its failure is final. */
void claw_hedge_stop(struct claw_req *r);

#endif
