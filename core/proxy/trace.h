/* trace: a request's place in a distributed trace, and the spans that tell of it.
 *
 *   a client's traceparent ──► server span ──► an attempt's client span ──► traceparent to the upstream
 *
 * W3C Trace Context (level 1, and level 2's random flag): a valid traceparent is gone on with, and with it tracestate when
 * that is valid too; without one, or with one that is not, the request begins a trace of its own, whose id is the request's.
 * Who is asked is told the id of the attempt's span, tracestate as it came, and whether the trace is sampled.
 *
 * Spans are written when the request has ended, as OTLP JSON with the names of OpenTelemetry's HTTP and GenAI conventions, and
 * given to the collector (collector.h). Tokens stand on the span of the attempt that answered, and there only: sums over spans
 * are right. No text of prompts or answers is in them; secrets are replaced as in the log.
 *
 * Without `tracing` a request has none of this: r->trace is NULL. Thread: the request's.
 */
#ifndef CLAW_PROXY_TRACE_H
#define CLAW_PROXY_TRACE_H

#include "proxy/req.h"

enum { CLAW_TRACE_SAMPLED = 1, CLAW_TRACE_RANDOM = 2 };

struct claw_trace {
    char id[33];           /* 32 hex digits */
    char parent[17];       /* the client's span; "": there is none */
    uint8_t flags;         /* as they are sent on */
    struct claw_str state; /* tracestate as it is sent on; "": none */
    int64_t max_tokens, temperature, top_p; /* of the body, the latter two in millionths; -1: not said */
};

/* Read a traceparent's value. False: it is not valid, and nothing was written. */
bool claw_trace_read_parent(struct claw_str value, struct claw_trace *t);
/* Is it a tracestate: at most 32 members of key=value, no key twice? */
bool claw_trace_is_state(struct claw_str value);

/* The head is here, and `tracing` is configured: r->trace. CLAW_EREQ_MEM. */
int claw_trace_begin(struct claw_req *r) CLAW_MUSTCHECK;
/* The body is here, and it is a JSON object: what a span tells of it is noted before it goes. */
void claw_trace_note(struct claw_req *r);
#define CLAW_TRACE_PARENT 55u
/* What traceparent says to who is asked beside the attempts (a policy's fetch): its parent is the server's span. No NUL. */
void claw_trace_parent(const struct claw_req *r, char to[CLAW_TRACE_PARENT]);
/* The most bytes that claw_trace_put writes. */
size_t claw_trace_room(const struct claw_req *r);
/* The fields of the present attempt's head, traceparent and tracestate; what follows them. */
char *claw_trace_put(const struct claw_req *r, char *at);
/* The request has ended: its spans go to the collector, when it is sampled. */
void claw_trace_end(const struct claw_req *r);
/* The spans as they would go: OTLP JSON objects with commas between; their number. 0: no memory. For tests too. */
unsigned claw_trace_write(const struct claw_req *r, struct claw_buf *out);

#endif
