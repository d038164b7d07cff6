/* heartbeat: a stream that is silent for long is given something that its client reads over, so that what stands between them
 * (load balancers, NAT) and the client itself do not take the connection for dead.
 *
 *   server.heartbeat_seconds          so long nothing went to the client of a stream: one beat, between two events
 *   server.heartbeat_before_answer    also while no upstream has answered yet: then a head of the proxy's own (200) goes first
 *                                     (r->early), and what fails from there on is an error event instead of a status
 *
 * What a beat is depends on who reads it: Anthropic's clients know `ping` events, OpenAI's read over comments; a comment here is a line
 * without an empty line behind it, since some clients take that for an event without data. Google's clients choke on comments, and
 * arrays and lines of JSON have no room for any: these get none, nor do streams of protocols that are not known. Beats are no part of
 * the answer: they are not cached, shared, logged as a body or given to hooks. Who gets another request's answer
 * (flight.h) has its own.
 *
 * One timer a request, started when a stream's first attempt is sent, or when it waits for another's answer, and stopped with the
 * request. Thread: the request's.
 */
#ifndef CLAW_PROXY_HEARTBEAT_H
#define CLAW_PROXY_HEARTBEAT_H

#include "proxy/req.h"

/* A request begins: its timer, which does not run yet. */
void claw_heartbeat_init(struct claw_req *r);
/* An attempt was sent, or another request's answer is waited for. Nothing unless the client asked for a stream that has beats. */
void claw_heartbeat_begin(struct claw_req *r);

#endif
