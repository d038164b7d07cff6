/* event_stream: messages of application/vnd.amazon.eventstream found in a byte stream, split anywhere. No sockets.
 *
 *   total length (4) | headers' length (4) | CRC-32 of these (4) | headers | payload | CRC-32 of all before (4)
 *
 * Big-endian; a header is: name length (1), name, type (1), value (Amazon Transcribe, "event stream encoding"; the same in
 * every AWS SDK). Lengths and both sums are checked before anything of a message is handed up.
 */
#ifndef CLAW_HTTP_EVENT_STREAM_H
#define CLAW_HTTP_EVENT_STREAM_H

#include "base/buf.h"

/* Slices are valid during the call; what a message does not have is "". */
struct claw_event_stream_message {
    struct claw_str event_type;     /* :event-type */
    struct claw_str exception_type; /* :exception-type, or :error-code */
    struct claw_str payload;        /* of an error without one: its :error-message, which is no JSON */
};

struct claw_event_stream {
    struct claw_buf rest; /* of a message under way */
    size_t max;           /* a message's bound */
};

/* < 0 stops the feed and is returned. */
typedef int (*claw_event_stream_fn)(void *arg, const struct claw_event_stream_message *m);

/* At the start of a stream; no memory yet. fini frees what a message under way gathered. */
void claw_event_stream_init(struct claw_event_stream *s, size_t max_message_bytes);
void claw_event_stream_fini(struct claw_event_stream *s); /* see init */
/* CLAW_ENOMEM, CLAW_EBAD_RESPONSE (too large, a wrong sum, lengths that do not fit), or what on_message returned. */
int claw_event_stream_feed(struct claw_event_stream *s, const char *data, size_t n, claw_event_stream_fn on_message, void *arg) CLAW_MUSTCHECK;
/* Is a message under way? */
bool claw_event_stream_cut(const struct claw_event_stream *s);
/* CRC-32 as in IEEE 802.3, continuing from `crc` (0 at the start). */
uint32_t claw_event_stream_crc(uint32_t crc, const char *data, size_t n);

#endif
