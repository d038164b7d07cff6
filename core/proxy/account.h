/* account: what a request did and cost, settled once and counted for the metrics. */
#ifndef CLAW_PROXY_ACCOUNT_H
#define CLAW_PROXY_ACCOUNT_H

#include "proxy/req.h"

/* Settle usage: what was not told of it is estimated (r->estimated), then cost and log fields come through ops->finish; once. A failing hook is logged and counted there; the request's
 * outcome does not change any more. */
void claw_account_settle(struct claw_req *r);
/* An attempt ended: its metrics and facts. */
void claw_account_attempt(struct claw_req *r, int code, const char *kind);
/* The request ended: its metrics. */
void claw_account_count(struct claw_req *r);
/* The attempt under way; NULL before the first, and of a hedge that has not begun. */
struct claw_attempt *claw_account_last(struct claw_req *r);

#endif
