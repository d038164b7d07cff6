/* upload: a body of multipart/form-data, looked through as it comes.
 *
 * The field `model` is what the request asks for, as the member of a JSON body is, and the name an attempt sends instead is
 * written in its place; `stream` counts when it says true. A form that is malformed is refused, as is one whose model could be
 * read in two ways.
 *
 *   held (r->body) --whole--> the request begins, like one with any other body
 *                 \--larger than server.upload_hold_kb: at its field `model`, or when so much is held--> the request begins,
 *                     r->body is the form's beginning
 *                        \--an exchange has begun: the beginning--> sent --what comes--> sent …
 *
 * Backpressure: what comes while there is no exchange, or while the upstream takes nothing, stays in `ahead`, and the client is
 * not read until that is sent. So one read's bytes wait here, beside what the upstream's connection has queued. Until a byte is
 * sent that is not held, another try can send all of it again; then the beginning is given back.
 */
#ifndef CLAW_PROXY_UPLOAD_H
#define CLAW_PROXY_UPLOAD_H

#include "http/multipart.h"
#include "proxy/req.h"

#define CLAW_UPLOAD_HEAD_BYTES ((size_t)64 << 10) /* of one that is passed on while it comes: so much is held at least */

struct claw_upload {
    struct claw_multipart form;
    bool has_model;
    uint64_t model_at, model_bytes; /* the field's value, in the body */
    bool streams;   /* the request has begun before the form was whole */
    bool blocked;   /* r->client takes no more at present */
    bool ended;     /* … has all of it */
    bool spent;     /* bytes that are not held were sent: there is no other try */
    struct claw_buf ahead;
};

/* The head is here: when a form follows there is r->upload. CLAW_EREQ_MEM, or CLAW_EBAD_REQUEST with r->error_text: its
 * Content-Type is no good. */
int claw_upload_begin(struct claw_req *r) CLAW_MUSTCHECK;
/* The next bytes of it: they are held, or sent. CLAW_EREQ_MEM, or CLAW_EBAD_REQUEST with r->error_text and error_param. */
int claw_upload_take(struct claw_req *r, const char *data, size_t n) CLAW_MUSTCHECK;
/* Is it time for the request to begin, although more of the form will come? Then from here on it streams. Says so once. */
bool claw_upload_starts(struct claw_req *r);
/* All of it is here. CLAW_EBAD_REQUEST as above: something is missing. */
int claw_upload_end(struct claw_req *r) CLAW_MUSTCHECK;

/* Does the request's body come while the request is under way? Is another try out of question for it? */
bool claw_upload_streams(const struct claw_req *r);
bool claw_upload_spent(const struct claw_req *r);

/* Of one that streams. The bytes this attempt's body will have, when its beginning goes out as `beginning` bytes;
 * CLAW_REQ_CHUNKED: nobody knows. */
size_t claw_upload_size(const struct claw_req *r, size_t beginning);
/* r->client has the head: send it the beginning (at most CLAW_OUTGOING_SLICES), then what has come meanwhile. */
void claw_upload_open(struct claw_req *r, const uv_buf_t *beginning, unsigned n);
/* It takes bytes again. */
void claw_upload_drained(struct claw_req *r);

#endif
