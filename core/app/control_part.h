/* control, its parts: what control.c asks of control_build.c and control_notify.c. control_measure.c has what control.h promises. */
#ifndef CLAW_APP_CONTROL_PART_H
#define CLAW_APP_CONTROL_PART_H

#include "app/control.h"

/* One round of claw_control_build, which fetches nothing. `draft` may be NULL. 0: *out is the caller's. CLAW_EAGAIN: secrets are to be
 * fetched, those of *lacking, which is the caller's to free. Else *report has the problems, a line each. Thread: control. */
int claw_control_build_once(const char *path, uint16_t mock_port, struct claw_secrets *secrets, const struct claw_control_draft *draft,
                            struct claw_generation **out, struct claw_conf **lacking, struct claw_buf *report) CLAW_MUSTCHECK;

/* Find the service manager in the environment, if there is one. A socket that is not to be had is only told: without it the
 * proxy serves as well. */
void claw_control_open_notify(struct claw_control *c);
/* Tell it that the start is over, and begin with the watchdog's signs of life. */
void claw_control_tell_started(struct claw_control *c);
/* Tell it which generation serves, and that the last load was refused if it was. */
void claw_control_tell_ready(struct claw_control *c);
/* Tell it that draining begins, and how long it may take. */
void claw_control_tell_stopping(struct claw_control *c);

#endif
