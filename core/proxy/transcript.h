/* transcript: how a request's body and its answer began, for the log line, where `logging.bodies` is on.
 *
 * Lives in the request's arena and ends with it. Memory that is not to be had leaves it out: nothing fails for a log line.
 */
#ifndef CLAW_PROXY_TRANSCRIPT_H
#define CLAW_PROXY_TRANSCRIPT_H

#include "proxy/req.h"

/* Of each side as much is kept. */
#define CLAW_TRANSCRIPT_BYTES 4096u

/* What came, before a policy touches it; for the parse step, of a body that is whole. Nothing where logging.bodies is off. */
void claw_transcript_begin(struct claw_req *r);

/* What leaves towards the client, piece by piece. Only for a request whose `transcript` is set. */
void claw_transcript_said(struct claw_req *r, const uv_buf_t *pieces, unsigned n);

/* How the client's body began, and the answer, known secrets as "***", also one that the bound would cut. When nothing more comes. Empty: there is none, or it is no text (audio, compressed). */
struct claw_str claw_transcript_asked(const struct claw_req *r);
struct claw_str claw_transcript_answered(const struct claw_req *r);

#endif
