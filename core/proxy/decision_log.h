/* decision_log: the line in logging.decisions about a request, from which -replay decides anew.
 *
 *   {"id","time","method","path","query","headers":{…},"body":…,            what came: credentials are left out; a body past
 *    "route","candidates":[{"upstream","model"}…],"upstream","status",      64 KB too ("body_left_out": bytes)
 *    "refused":"no_route","cost_micros","usage":{…}}                        what was decided, and what it cost
 */
#ifndef CLAW_PROXY_DECISION_LOG_H
#define CLAW_PROXY_DECISION_LOG_H

#include "proxy/req.h"

/* Nothing when there is no such file, and for a request that ended before it was decided on. Dropped (and counted) like any
 * log line when the log cannot keep up. */
void claw_decision_log_write(const struct claw_req *r);

/* Is r's body to be kept for its line? */
bool claw_decision_log_wants(const struct claw_req *r);

#endif
