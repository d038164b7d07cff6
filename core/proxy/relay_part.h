/* relay_part: what relay.c, relay_out.c (towards the client) and relay_event.c (streams) know of each other. */
#ifndef CLAW_PROXY_RELAY_PART_H
#define CLAW_PROXY_RELAY_PART_H

#include "http/event_stream.h"
#include "http/ndjson.h"
#include "http/sse.h"
#include "proxy/commit.h"
#include "proxy/relay.h"
#include "proxy/said.h"
#include "proxy/soft_stop.h"

#define CLAW_RELAY_SLICES 8u

enum claw_relay_mode { CLAW_RELAY_ERROR, CLAW_RELAY_WHOLE, CLAW_RELAY_PLAIN, CLAW_RELAY_EVENTS };
/* How an upstream cuts its stream into events; the latter two only translated. */
enum claw_relay_framing { CLAW_RELAY_SSE, CLAW_RELAY_NDJSON, CLAW_RELAY_EVENT_STREAM };

struct claw_relay {
    enum claw_relay_mode mode;
    bool json;
    bool counts;               /* JSON, or Ollama's lines: usage stands at its end */
    bool replied, paused, in_over;
    bool asked;                /* the request is on its way */
    bool heard;                /* what is being read counts as waited for: once a read */
    bool readable;             /* not coded */
    bool streams;              /* it goes to the client as events */
    bool hooked;               /* an event hook sees what comes */
    bool turned;               /* WHOLE: it goes to the client as a stream */
    bool gathers;              /* EVENTS: they become one answer, for a client that asked for no stream */
    size_t gathered;           /* … bytes of it so far */
    bool open;                 /* ERROR: a long one, whose upstream is paused while the retry step decides */
    enum claw_relay_framing framing;
    bool listed;               /* the JSON array the client gets has its first event */
    bool broke;                /* … and broke off meanwhile */
    uint64_t read_us;          /* EVENTS: when the last of them came; 0: none yet */
    unsigned n;                /* slices */
    struct claw_str batch;     /* what is being read: slices inside it live until the batch ends */
    uv_buf_t slices[CLAW_RELAY_SLICES];
    struct claw_head *head;    /* the upstream's */
    struct claw_sse sse;
    struct claw_ndjson lines;
    struct claw_event_stream messages;
    struct claw_buf kept;      /* held bytes; of a stream as the client will get them */
    struct claw_buf made;      /* what event hooks wrote in this batch */
    struct claw_buf tmp;
    struct claw_said *said;    /* EVENTS: since usage was told */
    struct claw_soft_stop soft;
    struct claw_commit_watch watch;
    bool holds;                /* EVENTS: `kept` has some of them, as the client will get them */
};

/* relay.c: the exchange failed, or its answer is an error (CLAW_OK): the retry step decides. text: for the log. */
void claw_relay_failed(struct claw_req *r, int code, const char *text);
/* The answer cannot go on: the request fails with `code`. */
void claw_relay_broken(struct claw_req *r, int code);
/* The answer is here as a whole: send it, or give it to its hook. `reusable`: the upstream's connection is. */
void claw_relay_end_plain(struct claw_req *r, bool reusable);
void claw_relay_end_whole(struct claw_req *r, bool reusable);

/* relay_out.c: the answer's status, or that of the error that stands in its place. */
int claw_relay_status(const struct claw_req *r);
/* The head goes to the client. length: of the body, in bytes; -1: not known. */
int claw_relay_reply(struct claw_req *r, int64_t length) CLAW_MUSTCHECK;
/* The upstream's connection goes back to its pool or is closed; the exchange is over. */
void claw_relay_leave_client(struct claw_req *r, bool reusable);
/* Send the slices gathered so far. After `end` the request is answered. */
void claw_relay_flush(struct claw_req *r, bool end);
/* The exchange is over, and all of its answer with the client. */
void claw_relay_answered(struct claw_req *r, bool reusable);
/* Send what is left, as the answer's end. */
void claw_relay_end_stream(struct claw_req *r, bool reusable);
/* Put a copy of a body, without secrets, in its place; it lives until the next one. */
int claw_relay_redacted(struct claw_relay *y, struct claw_str *body) CLAW_MUSTCHECK;

/* relay_event.c: the next bytes of a stream. CLAW_ECANCELED: the request is not the exchange's any more. */
int claw_relay_event_feed(struct claw_req *r, const char *data, size_t n) CLAW_MUSTCHECK;
/* It is over. */
void claw_relay_event_end(struct claw_req *r, bool reusable);
/* A whole answer is here, of which the client gets events. */
void claw_relay_event_end_turned(struct claw_req *r, bool reusable);
/* Was the output told since this was asked? Then the model said no more than that. */
bool claw_relay_event_told(struct claw_req *r);

/* Add bytes to what is sent next. Neighbours become one slice; what does not outlive this call goes at once. */
static inline void claw_relay_push(struct claw_req *r, struct claw_str s)
{
    struct claw_relay *y = r->relay;
    if (s.len == 0) return;
    uv_buf_t *last = y->n ? &y->slices[y->n - 1] : NULL;
    if (last && last->base + last->len == s.ptr) last->len += s.len;
    else y->slices[y->n++] = uv_buf_init((char *)s.ptr, (unsigned)s.len);
    if (y->n == CLAW_RELAY_SLICES || s.ptr < y->batch.ptr || s.ptr + s.len > y->batch.ptr + y->batch.len) claw_relay_flush(r, false);
}

#endif
