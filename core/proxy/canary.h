/* canary: the share of a route's traffic that an operator moved away from its first upstream, in place of what the file says.
 *
 * For the whole process and all workers at once, by the route's id; a reload that changes the route's strategy forgets it, as
 * does a restart. Reading costs next to nothing while nothing is moved. Thread: any.
 */
#ifndef CLAW_PROXY_CANARY_H
#define CLAW_PROXY_CANARY_H

#include "base/buf.h"

#define CLAW_CANARY_ROUTES 64u /* that were ever moved, since the start */

/* `percent` (0 to 100) of the route's traffic goes to those that are not the first. CLAW_ENOMEM: too many routes were moved. */
int claw_canary_move(struct claw_str route, double percent) CLAW_MUSTCHECK;
/* As the file says again. */
void claw_canary_settle(struct claw_str route);
/* The percentage; < 0: nothing is moved. */
double claw_canary_moved(struct claw_str route);

#endif
