/* client: one connection to an upstream and one exchange on it at a time.
 *
 *   connect -> on_open -> exchange: write* … on_head -> on_body* -> on_batch … -> on_done -> idle -> exchange …
 *                                  \-> on_fail (once; the connection is closed by then)
 *
 * on_body's slices lie in the loop's read buffer; on_batch says that this read is used up and they die now: a relay
 * gathers slices and sends them in one call from there. Timeouts are here: connect (with TLS), first byte (1xx does
 * not extend it), stall. Cancel is legal at every point and calls nothing.
 */
#ifndef CLAW_HTTP_CLIENT_H
#define CLAW_HTTP_CLIENT_H

#include "http/h1.h"
#include "net/stream.h"

struct claw_client;

struct claw_client_events {
    void (*on_head)(struct claw_client *c, struct claw_head *h);
    void (*on_body)(struct claw_client *c, const char *data, size_t n);
    /* No slice given so far is valid after this. Not called behind on_done's own batch end or on_fail. */
    void (*on_batch)(struct claw_client *c);
    /* The answer is complete; slices given in this batch are still valid until it returns. `reusable`: the
     * connection may carry another exchange (the user gives it back to its pool or closes it). */
    void (*on_done)(struct claw_client *c, bool reusable);
    /* CLAW_ETLS… and CLAW_ECONNECT never come here (see on_open). `text` is valid during the call. */
    void (*on_fail)(struct claw_client *c, int code, const char *text);
    void (*on_drain)(struct claw_client *c);
};

struct claw_client {
    struct claw_stream stream;
    uint32_t magic;
    uint8_t state;
    bool reused;      /* this exchange is not the connection's first */
    bool any_byte;    /* of the present answer */
    bool head_seen, in_feed, gone;
    bool sending;     /* more of the request follows */
    bool stray;       /* bytes came that answer nothing */
    struct claw_h1 parser;
    struct claw_timer timer;
    uint64_t last_ms; /* of the last progress */
    uint64_t turn;    /* of the loop, in which the exchange began */
    uint64_t seen_ms; /* while sending: last_ms and what was queued, when the timer was last due */
    size_t seen_queued;
    unsigned first_byte_ms, stall_ms;
    const struct claw_client_events *on;
    void *arg;        /* the exchange's user */
    /* the connection's user (the pool) */
    void (*on_open)(struct claw_client *c, int code, const char *text);
    void (*on_idle_end)(struct claw_client *c); /* an idle connection ended or spoke out of turn: it is closed */
    void (*on_closed)(struct claw_client *c);   /* the memory may be freed */
    void *owner;
    struct claw_client *prev, *next; /* the owner's list */
    uint64_t idle_since_ms;
    uint64_t bytes_in;               /* of the present answer */
};

/* Start connecting; on_open tells the outcome (after a failure the connection is closed and on_closed follows).
 * connect_ms covers the TLS handshake too. CLAW_ENOMEM, CLAW_EIO (no socket), CLAW_EINVAL (server_name can be none): nothing was
 * opened, nothing is called. */
int claw_client_connect(struct claw_client *c, struct claw_loop *l, const struct sockaddr *to,
                        struct claw_tls_client *tls, struct claw_str server_name, unsigned connect_ms) CLAW_MUSTCHECK;
/* Does an idle connection lie still, as it must? False when bytes or its end wait to be read. Costs a system call, but
 * for exchanges that begin while sockets are polled: there the first read of the same turn tells (see on_stream_read). */
bool claw_client_still(struct claw_client *c);
/* Begin an exchange on an open idle connection. The answer's head goes to `arena`. `no_body`: the request is HEAD. */
void claw_client_exchange(struct claw_client *c, struct claw_arena *arena, bool no_body, unsigned first_byte_ms,
                          unsigned stall_ms, const struct claw_client_events *on, void *arg);
/* Send bytes of the request, a few of them a moment later (claw_stream_write_soon). 0 or CLAW_EAGAIN (on_drain follows). When
 * broken it returns 0: on_fail comes from the loop, since an answer (a 413, say) may already wait to be read. */
int claw_client_write(struct claw_client *c, const uv_buf_t *bufs, unsigned n) CLAW_MUSTCHECK;
/* Behind claw_client_exchange: the request is not whole yet. Until claw_client_sent the time for the first byte does not
 * run; an upstream that takes nothing of what is queued for stall_ms fails with CLAW_ESTALL, at the latest in twice that. Where
 * the answer is over before, the connection is not reusable. */
void claw_client_sends(struct claw_client *c);
/* The last bytes of it have been written. */
void claw_client_sent(struct claw_client *c);
void claw_client_pause(struct claw_client *c);
void claw_client_resume(struct claw_client *c);
/* Give up: reset and close. No callback but on_closed will come. */
void claw_client_cancel(struct claw_client *c);
/* Close an idle connection in order. */
void claw_client_close(struct claw_client *c);

#endif
