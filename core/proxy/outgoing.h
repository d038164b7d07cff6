/* outgoing: the body of an attempt as it goes to the upstream, as slices: nothing is copied that nobody changed. */
#ifndef CLAW_PROXY_OUTGOING_H
#define CLAW_PROXY_OUTGOING_H

#include "proxy/req.h"

#define CLAW_OUTGOING_SLICES 5u

/* What a policy or a translation made of the body, or the client's with the model's name replaced in its place; usage is
 * asked for in it where a stream of OpenAI's would not tell it else (stream_options.include_usage), and r->hides_usage says
 * whether the client is not to see that. Fills `to` (CLAW_OUTGOING_SLICES at most, lent by r) and *total, their bytes. The
 * number of slices; 0: there is no body, or (with *total > 0) no memory. */
unsigned claw_outgoing_body(struct claw_req *r, uv_buf_t *to, size_t *total);

#endif
