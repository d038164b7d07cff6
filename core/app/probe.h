/* probe: is the proxy of a configuration well? For health checks of containers and scripts, which then need no curl.
 *
 * Where to ask is read from the file: `admin`, or where the admin port is off `server`, of which only is seen whether it takes a
 * connection. Nothing else of the file matters: it may be one that a reload refused, or lack the variables that only the
 * running process has. What cannot be read of it is taken as it is by default, 127.0.0.1:9090.
 * Thread: a process of its own; it blocks.
 */
#ifndef CLAW_APP_PROBE_H
#define CLAW_APP_PROBE_H

#include "base/buf.h"

#define CLAW_PROBE_MS 3000u

struct claw_probe {
    char address[64];   /* to connect to: of "any" the loopback's */
    uint16_t port;      /* 0: there is none that could be known */
    bool connects;      /* the admin port is off: nothing is asked */
    char doubt[256];    /* why the default is taken; "": it is not */
};

/* Where the proxy of `config` is asked. */
void claw_probe_find(const char *config, struct claw_probe *p);
/* Ask for `page` ("/healthz"). 0: it answers 200, or takes the connection where that is all there is; CLAW_EIO: another
 * answer or none within `ms`. A line for people is written to `said` (cut where it is long). */
int claw_probe_ask(const struct claw_probe *p, const char *page, unsigned ms, char *said, size_t said_size) CLAW_MUSTCHECK;
/* Both, told on stdout or stderr. The process' exit code: 0 well, 1 not. */
int claw_probe_run(const char *config, const char *page);

#endif
