/* ndjson: lines of JSON found in a byte stream (application/x-ndjson), split anywhere. No sockets, no clocks.
 *
 * A line that lies whole in what was fed is a slice of it; one that is split is gathered, up to a bound. LF ends lines, a CR
 * before it is taken off, empty lines are skipped.
 */
#ifndef CLAW_HTTP_NDJSON_H
#define CLAW_HTTP_NDJSON_H

#include "base/buf.h"

struct claw_ndjson {
    struct claw_buf rest; /* of a line under way */
    size_t max;           /* a line's bound */
};

/* A line without its end, valid during the call. < 0 stops the feed and is returned. */
typedef int (*claw_ndjson_fn)(void *arg, struct claw_str line);

/* At the start of a stream; no memory yet. fini frees what a line under way gathered. */
void claw_ndjson_init(struct claw_ndjson *s, size_t max_line_bytes);
void claw_ndjson_fini(struct claw_ndjson *s);
/* CLAW_ENOMEM, CLAW_EBAD_RESPONSE (too long), or what on_line returned. */
int claw_ndjson_feed(struct claw_ndjson *s, const char *data, size_t n, claw_ndjson_fn on_line, void *arg) CLAW_MUSTCHECK;
/* The stream is over: a last line without an end is given now. What on_line returned where that is negative, else 0. */
int claw_ndjson_end(struct claw_ndjson *s, claw_ndjson_fn on_line, void *arg) CLAW_MUSTCHECK;

#endif
