/* h1_part: what h1.c (bytes, bodies) and h1_head.c (the meaning of a head) share. Not for others. */
#ifndef CLAW_HTTP_H1_PART_H
#define CLAW_HTTP_H1_PART_H

#include "http/h1.h"

/* What the bytes that come next are. EMPTY: the head was the whole message. */
enum claw_h1_state {
    CLAW_H1_HEAD,
    CLAW_H1_EMPTY,
    CLAW_H1_SIZED,
    CLAW_H1_CHUNKED,
    CLAW_H1_TO_CLOSE,
    CLAW_H1_DONE,
    CLAW_H1_FAILED,
};

/* Refuse the message for good; the code (CLAW_EBAD_RESPONSE for whatever a response has wrong). `why` is static. */
int claw_h1_fail(struct claw_h1 *p, int code, const char *why);
static inline int bad(struct claw_h1 *p, const char *why) { return claw_h1_fail(p, CLAW_EBAD_REQUEST, why); }

/* The whole head lies in p->raw: fill p->head, set the state for the body. `agreed`: llhttp sees its end there too. */
int claw_h1_read_head(struct claw_h1 *p, bool agreed);
/* "HTTP/1.1" to the head's minor; CLAW_EVERSION for versions that are not spoken. */
int claw_h1_read_version(struct claw_h1 *p, struct claw_str s);

#endif
