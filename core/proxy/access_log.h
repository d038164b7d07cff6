/* access_log: the one line that is written about a request. */
#ifndef CLAW_PROXY_ACCESS_LOG_H
#define CLAW_PROXY_ACCESS_LOG_H

#include "proxy/req.h"

/* The request's log line (level info): valid JSON whatever names, paths and texts hold. Long texts are cut, so that no
 * client can make its line too long to be written. */
void claw_access_log_write(const struct claw_req *r);

#endif
