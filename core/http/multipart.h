/* multipart: the parts of a multipart/form-data body (RFC 7578; boundaries as RFC 2046 5.1.1 has them), bytes in, parts out,
 * split anywhere. No sockets, no clocks. Files are looked through, not held: of a part its name, where its content lies and,
 * where it is no file, the beginning of that are told.
 *
 * What other parsers might read in another way is refused: a boundary behind a bare LF, a boundary's line with anything behind
 * it, lines that are folded, a name that is encoded (name*) or there twice, a part without a name, a boundary behind the last
 * one. So nothing is in a form for an upstream that is not in it here. Preamble and epilogue are skipped.
 */
#ifndef CLAW_HTTP_MULTIPART_H
#define CLAW_HTTP_MULTIPART_H

#include "base/buf.h"

#define CLAW_MULTIPART_BOUNDARY_BYTES 70u  /* RFC 2046 5.1.1 */
#define CLAW_MULTIPART_VALUE_BYTES 256u    /* of a field's value, what is kept */
#define CLAW_MULTIPART_HEAD_BYTES 8192u    /* of a part's head; of the preamble */
#define CLAW_MULTIPART_PARTS 1000u         /* of a form, at most */

/* Slices are valid during the call. */
struct claw_multipart_part {
    struct claw_str name;  /* without quotes and escapes */
    bool file;             /* it has a file's name */
    bool encoded;          /* Content-Transfer-Encoding says something (RFC 7578 4.7: it should not) */
    struct claw_str value; /* its content, or the first CLAW_MULTIPART_VALUE_BYTES of it; of a file "" */
    uint64_t at, bytes;    /* where its content begins, counted from the body's begin, and how long it is */
};

/* A part is over. < 0 stops the feed and is returned. */
typedef int (*claw_multipart_fn)(void *arg, const struct claw_multipart_part *part);

struct claw_multipart {
    uint8_t state;
    bool cr;                /* the byte before the next one is a CR */
    bool after_cr;          /* … before the LF of the match under way */
    bool file, encoded;     /* the part under way */
    unsigned matched;       /* bytes of `delimiter` seen */
    unsigned delimiter_n, parts, value_n;
    uint64_t seen, at;      /* bytes of the body; where the part's content begins */
    struct claw_str name;   /* in `head` */
    struct claw_buf head;   /* of the part under way */
    const char *error;
    char delimiter[3 + CLAW_MULTIPART_BOUNDARY_BYTES]; /* LF "--" boundary */
    char value[CLAW_MULTIPART_VALUE_BYTES];
};

/* Is it this media type? */
bool claw_multipart_is(struct claw_str content_type);
/* At the start of a body with this Content-Type. CLAW_EBAD_REQUEST: it has no (good) boundary. CLAW_ENOMEM. */
int claw_multipart_init(struct claw_multipart *m, struct claw_str content_type) CLAW_MUSTCHECK;
/* Free what a head gathered; legal at any time behind init, also when that failed. */
void claw_multipart_fini(struct claw_multipart *m);
/* CLAW_EBAD_REQUEST, for good; CLAW_ENOMEM; or what on_part returned. */
int claw_multipart_feed(struct claw_multipart *m, const char *data, size_t n, claw_multipart_fn on_part, void *arg) CLAW_MUSTCHECK;
/* Was the last boundary seen? A body that ends before is cut. */
bool claw_multipart_complete(const struct claw_multipart *m);
/* What is wrong, for whoever sent it; "" when nothing is. */
const char *claw_multipart_error(const struct claw_multipart *m);

#endif
