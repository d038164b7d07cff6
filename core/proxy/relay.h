/* relay: upstream to client, as it comes.
 *
 *   head --> hold? --> commit --> bytes …  --> end
 *
 * held      an error status is held with up to CLAW_RELAY_ERROR_BYTES of its body, so that the retry step can look at
 *           it; an event stream is held until its first event, which may be an error, or for as long as a policy wants
 *           (commit.h), with up to 64 KiB of its events; a body that a `response` hook
 *           is to change is held whole (bounded by server.max_body_mb)
 * commit    the first byte goes to the client; from here nothing is tried again
 * stream    plain bodies go out slice by slice as read, one system call a read. Event streams go out in whole events:
 *           an event that is cut by the upstream's death never reaches the client, an error event takes its place
 * backpressure  the client's CLAW_EAGAIN pauses the upstream until on_drain
 *
 * A translated attempt (r->translated) is held whole, or its events go through the `event` op, whatever their framing; its
 * error answer goes through the `error` op. A whole answer for a client that asked for a stream goes through the `event` op
 * too (r->turned); a stream for one that did not is gathered there, bounded by server.max_body_mb, until it is over.
 *
 * Usage is read on the way from events that mention it and from the tail of plain answers. Of a stream's events a sample is kept
 * (said.h): the estimate where usage never comes, or no more because somebody left.
 */
#ifndef CLAW_PROXY_RELAY_H
#define CLAW_PROXY_RELAY_H

#include "proxy/req.h"

#define CLAW_RELAY_ERROR_BYTES (64u << 10)
#define CLAW_RELAY_EVENT_BYTES (64u << 10) /* an event larger than this is passed on raw */

/* Send the request on `c` and relay its answer. */
void claw_relay_start(struct claw_req *r, struct claw_client *c);
/* After a held error answer: it is final, hand it to the client as it is. */
void claw_relay_release_held(struct claw_req *r);
/* A whole answer that waits for its `response` hook, and what the client gets of it (valid during the call). */
struct claw_str claw_relay_whole(const struct claw_req *r);
void claw_relay_send_whole(struct claw_req *r, struct claw_str body);
/* What waited for its hook is no answer, or an error (r->answer_status): the retry step decides. why: for the log. */
void claw_relay_no_answer(struct claw_req *r, const char *why);
/* Is the upstream of a held answer still connected (an error answer too long to be held whole)? */
bool claw_relay_open(const struct claw_req *r);
/* Is there more of an answer than an event stream's head? */
bool claw_relay_spoke(const struct claw_req *r);
/* What a connection of the request reports to; its arg is the request. */
extern const struct claw_client_events claw_relay_client_events;
/* Forget the answer (before another try, or at the end). */
void claw_relay_reset(struct claw_req *r);
/* Was an upstream asked, with an answer or at least a client who left while it thought? Then it costs. False of errors. */
bool claw_relay_served(const struct claw_req *r);
/* Did anything come after usage was told? Cheap; claw_relay_said says what. */
bool claw_relay_says_more(const struct claw_req *r);
/* At the end: the tokens of what the model said and no usage told, by estimate. Of a long plain answer its tail is all there
 * is: the rest is taken to be like it. */
int64_t claw_relay_said(struct claw_req *r);
/* The client of a stream gets `s` (of static storage) between two events, if it is between two and takes more; its head has left. No
 * part of the answer: not kept, not shared. */
void claw_relay_interject(struct claw_req *r, struct claw_str s);
/* Does the upstream wait for the client? */
bool claw_relay_paused(const struct claw_req *r);
/* The client takes bytes again. */
void claw_relay_drained(struct claw_req *r);
/* Cut the answer after the commit point: an error event where the protocol has one, then an aborted connection. */
void claw_relay_cut(struct claw_req *r, int code, struct claw_str text);

#endif
