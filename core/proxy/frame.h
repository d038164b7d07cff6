/* frame: how a client gets the events of a stream: as server-sent events, as a JSON array (Gemini's without alt=sse), or as a line
 * of JSON each (Ollama's).
 */
#ifndef CLAW_PROXY_FRAME_H
#define CLAW_PROXY_FRAME_H

#include "proxy/req.h"

/* The content type of a stream that is written anew for the client. */
const char *claw_frame_type(const struct claw_req *r);
/* May comments stand in it? Not in an array or in lines; and Google's clients take them for events that are no JSON. */
bool claw_frame_takes_comments(const struct claw_req *r);
/* Add an event to `out`, an array's without what stands between its members. CLAW_ENOMEM. */
int claw_frame_write(const struct claw_req *r, struct claw_buf *out, struct claw_str type, struct claw_str data) CLAW_MUSTCHECK;

#endif
