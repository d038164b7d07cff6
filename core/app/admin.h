/* admin: what operators ask, on a port of its own, answered by the control thread.
 *
 *   GET /healthz      200 while the process lives
 *   GET /readyz       200 while it takes requests; 503 while it drains
 *   GET /metrics      Prometheus text
 *   GET /generations  every generation alive (requests in flight, policy errors), the last refused load with its file:line,
 *                     the last one that was taken back
 *   GET /clients      who may ask, for what, and what is spent of budgets; no keys
 *   GET /limits       rate limits and what they allow
 *   GET /spend        the ledger's sums: ?by=client,model&per=hour&from=…&to=…&client=…&format=csv (admin_spend.c)
 *   POST /reload      load now: 200 published or unchanged, 422 refused with the report
 *
 * With admin.token everything but the two probes wants `Authorization: Bearer <token>`.
 */
#ifndef CLAW_APP_ADMIN_H
#define CLAW_APP_ADMIN_H

#include "app/control.h"

/* Listen and answer for `c`. CLAW_EIO with *why a short text; CLAW_ENOMEM. */
int claw_admin_open(struct claw_control *c, const char *address, uint16_t port, struct claw_admin **out, const char **why) CLAW_MUSTCHECK;
/* Closes; memory goes when the loop turned. */
void claw_admin_close(struct claw_admin *a);

#endif
