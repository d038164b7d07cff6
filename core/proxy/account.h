/* account: what a request used, cost and did, for metrics and the log. */
#ifndef CLAW_PROXY_ACCOUNT_H
#define CLAW_PROXY_ACCOUNT_H

#include "proxy/req.h"

/* Find token counts in a JSON answer or event, or the tail of one: OpenAI's `usage`, Anthropic's names in it, Gemini's
 * `usageMetadata`. Nothing else of the text is decoded. Counts found replace those in *u; true when there were any. */
bool claw_usage_read(struct claw_str json, struct claw_usage *u);

/* Settle usage: cost and log fields through ops->finish, once. A failing hook is logged and counted there; the request's
 * outcome does not change any more. */
void claw_account_settle(struct claw_req *r);
/* An attempt ended: its metrics and facts. */
void claw_account_attempt(struct claw_req *r, int code, const char *kind);
/* The request ended: its metrics. */
void claw_account_count(struct claw_req *r);
/* The request's log line (SPEC 9). */
void claw_account_log(struct claw_req *r);
/* The attempt under way; NULL before the first. */
struct claw_attempt *claw_account_last(struct claw_req *r);

#endif
