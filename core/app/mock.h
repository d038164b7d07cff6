/* mock: the built-in upstream of type `mock`: answers offline, so that a newcomer needs no key, and misbehaves on request.
 *
 * A small HTTP server on 127.0.0.1 at a port of the kernel's choosing, run by the control thread's loop; upstreams of
 * type mock get its address as their base_url. So a request to it walks the same pools, timeouts and relays as any.
 * What it can do, and how to ask for it, is in the list at the top of mock.c.
 */
#ifndef CLAW_APP_MOCK_H
#define CLAW_APP_MOCK_H

#include "http/server.h"

struct claw_mock;

/* Listen. *port is where. CLAW_EIO with *why. Thread: the loop's. */
int claw_mock_open(struct claw_loop *loop, struct claw_mock **out, uint16_t *port, const char **why) CLAW_MUSTCHECK;
/* Abort what is under way and close; on_closed(arg) comes from the loop when nothing is left. */
void claw_mock_close(struct claw_mock *m, void (*on_closed)(void *arg), void *arg);

#endif
