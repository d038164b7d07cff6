/* admin: what operators ask, on a port of its own, answered by the control thread.
 *
 * What it answers is a table, pages[] in admin.c; pages/openapi.json describes every answer. Each page has a file of its own where it
 * is more than a few lines (admin_part.h says which). Whom it answers: admin_guard.c.
 */
#ifndef CLAW_APP_ADMIN_H
#define CLAW_APP_ADMIN_H

#include "app/control.h"

/* Listen and answer for `c`. CLAW_EIO with *why a short text; CLAW_ENOMEM. */
int claw_admin_open(struct claw_control *c, const char *address, uint16_t port, struct claw_admin **out, const char **why) CLAW_MUSTCHECK;
/* Closes; memory goes when the loop turned. */
void claw_admin_close(struct claw_admin *a);

#endif
