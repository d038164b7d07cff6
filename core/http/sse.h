/* sse: server-sent events found in a byte stream (WHATWG HTML 9.2.6), split anywhere. No sockets, no clocks.
 *
 * The framer looks for where events end (an empty line; CR, LF and CRLF all end lines; a leading byte order mark
 * is skipped) and hands up whole events with their raw bytes, so that a relay can pass them on untouched. An
 * event that lies whole in what was fed is a slice of it, no copy; one that is split is gathered, up to a bound.
 */
#ifndef CLAW_HTTP_SSE_H
#define CLAW_HTTP_SSE_H

#include "base/buf.h"

struct claw_sse_event {
    /* The block's bytes with its closing empty line, as they came: all raws and the rest joined are the stream. A
     * byte order mark that begins it is a block of its own (comment_only), as is an empty line too many. An event
     * closed by CR at the end of a feed is handed up at once, and a LF that follows opens the next raw; but in a
     * stream of CRLF lines it waits for its LF. */
    struct claw_str raw;
    bool comment_only;    /* comments and blank fields only: nothing is dispatched (keep-alives) */
    bool has_data;        /* at least one data field: a browser would dispatch it */
};

struct claw_sse {
    struct claw_buf rest;  /* of an event under way that came in earlier feeds */
    size_t max;            /* an event's bound */
    bool over;             /* an oversized event is passing: see claw_sse_feed */
    /* private from here */
    bool cr, crlf, held;   /* the last byte was CR; lines end with CRLF; a closed event waits for its LF */
    uint8_t bom, lead_n, flags;
    char lead[5];          /* how the line under way begins */
};

struct claw_sse_sink {
    /* A whole event. < 0 stops the feed and is returned. Slices are valid during the call. */
    int (*on_event)(void *arg, const struct claw_sse_event *ev);
    /* Bytes of an event larger than max, as they come: passed on raw, its fields are not looked at; `last` with
     * its final bytes (there may be none left). NULL: such an event ends the feed with CLAW_EBAD_RESPONSE. */
    int (*on_over)(void *arg, struct claw_str bytes, bool last);
    void *arg;
};

/* At the start of a stream; no memory yet. fini frees what an event under way gathered. */
void claw_sse_init(struct claw_sse *s, size_t max_event_bytes);
void claw_sse_fini(struct claw_sse *s);
/* CLAW_ENOMEM, CLAW_EBAD_RESPONSE (too large), or what a callback returned. All of `data` is taken unless stopped. */
int claw_sse_feed(struct claw_sse *s, const char *data, size_t n, const struct claw_sse_sink *to) CLAW_MUSTCHECK;
/* What was fed and is no whole event yet. An event that the end of the stream cuts is not dispatched (9.2.6). */
struct claw_str claw_sse_rest(const struct claw_sse *s);

/* The fields of one event's raw bytes. `data` joins its data lines with LF: a slice when there is one line, else
 * gathered in `tmp` (cleared first). type is "" when there is no event field; id likewise. Slices live as long as raw and tmp.
 * CLAW_ENOMEM. */
struct claw_sse_fields { struct claw_str type, data, id; };
int claw_sse_parse(struct claw_str raw, struct claw_buf *tmp, struct claw_sse_fields *out) CLAW_MUSTCHECK;
/* Write one event: the event line when type is not empty, a data line for each line of data, an empty line. All
 * or nothing; CLAW_EINVAL when type has a line end. */
int claw_sse_write(struct claw_buf *out, struct claw_str type, struct claw_str data) CLAW_MUSTCHECK;

#endif
