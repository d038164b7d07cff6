/* answer: what the client is shown: heads of answers, and errors of the proxy's own (see envelope.h). */
#ifndef CLAW_PROXY_ANSWER_H
#define CLAW_PROXY_ANSWER_H

#include "proxy/envelope.h"
#include "proxy/req.h"

/* The head for status `status`: the upstream's end-to-end fields when `from` is given (without set-cookie), else a
 * content-type of `type`; then what policies set (claw_req_set_answer_header) in their place, and x-openclaw-* unless
 * server.expose_headers is false. In the arena; for claw_conn_reply. CLAW_EREQ_MEM. */
int claw_answer_head(struct claw_req *r, int status, const struct claw_head *from, struct claw_str type,
                     struct claw_str *out) CLAW_MUSTCHECK;

/* Answer with an error of the proxy's own, whole: status, envelope, end. Only before the commit point. Sets
 * r->status. `type` is OpenAI's. */
void claw_answer_error(struct claw_req *r, int status, struct claw_str message, const char *type, const char *code);
/* The error as the client's dialect has it; slices are the request's and the message's. */
struct claw_envelope claw_answer_envelope_of(const struct claw_req *r, int status, struct claw_str message, const char *type, const char *code);
/* Answer with a body made here. type "": application/json. */
void claw_answer_own(struct claw_req *r, int status, struct claw_str type, struct claw_str body);

#endif
