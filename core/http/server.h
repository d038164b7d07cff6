/* server: one loop's listening socket and its client connections.
 *
 * A connection reads one request at a time; what a client pipelines behind it waits (at most 64 KB, then reading
 * stops). While a request is in flight the connection keeps reading, so that a client that leaves is noticed in
 * the same turn; where reading has stopped, the socket is asked now and then.
 *
 *   accept -> [idle] -> first byte: on_begin -> on_head -> on_body* -> on_done -> reply, send*, end -> [idle] …
 *                              \-> malformed: on_refused -> reply … end -> lingering close
 *   at any time before the end: on_gone (the client left, or it stopped reading for send_timeout_ms)
 *
 * Framing of the answer is this floor's: content-length, chunked, or until close for HTTP/1.0. An answer that
 * cannot be completed is aborted, never ended, so that a client cannot take it for complete.
 */
#ifndef CLAW_HTTP_SERVER_H
#define CLAW_HTTP_SERVER_H

#include "http/h1.h"
#include "net/stream.h"

struct claw_conn;

struct claw_server_limits {
    struct claw_h1_limits h1;
    unsigned idle_timeout_ms;   /* between requests */
    unsigned header_timeout_ms; /* first byte of a head to its end */
    unsigned body_timeout_ms;   /* in each such interval at least 1 KB a second of a body must arrive */
    unsigned send_timeout_ms;   /* bytes are queued and the client takes none */
};

struct claw_server_events {
    /* The first byte of a request has come: where its head is to be kept. The user makes its request here and
     * sets conn->request. NULL: out of memory, the connection is closed. */
    struct claw_arena *(*on_begin)(struct claw_conn *c);
    void (*on_head)(struct claw_conn *c, struct claw_head *h);
    void (*on_body)(struct claw_conn *c, const char *data, size_t n);
    void (*on_done)(struct claw_conn *c);
    /* The bytes are no request: code and text say why. The user replies; the connection closes after the end. */
    void (*on_refused)(struct claw_conn *c, int code, const char *text);
    /* The client is gone (CLAW_ECLIENT_GONE) or does not read (CLAW_ESEND_STALL): nothing can be sent any more.
     * Called once, only between on_begin and the end; conn->request is forgotten after it. */
    void (*on_gone)(struct claw_conn *c, int code);
    /* All that was sent has left; after a send returned CLAW_EAGAIN. */
    void (*on_drain)(struct claw_conn *c);
};

struct claw_server {
    uv_tcp_t listener;
    uint32_t magic;
    struct claw_loop *loop;
    const struct claw_server_events *on;
    void *arg; /* the user's */
    struct claw_server_limits limits;
    struct claw_tls_server *tls;  /* for new connections; a reference */
    struct claw_conn *conns;      /* all, doubly linked */
    size_t open;                  /* their number */
    _Atomic int64_t *total;       /* over all workers, may be NULL */
    int64_t max_total;            /* past it accepting stops until one closes */
    /* Optional: where the rest of a request's body (at most *n bytes) is to be read to; *n becomes how much fits there.
     * on_body then gets those very bytes in their place. NULL: no matter. */
    char *(*on_room)(struct claw_conn *c, size_t *n);
    struct claw_lane accepts;
    struct claw_lane_ticket accepting; /* a connection waits for its turn to be taken; those behind it wait in the kernel */
    struct claw_timer starving;   /* connections of other workers close without a word to this one */
    struct claw_timer ending;     /* the moment that answers have to leave, at the end */
    bool listening, draining, starved;
    void (*on_empty)(struct claw_server *s); /* draining, and the last connection closed */
};

struct claw_conn {
    struct claw_stream stream;
    uint32_t magic;
    uint8_t state;
    bool close_after;    /* no further request on this connection */
    bool body_done;      /* the request is complete */
    bool replied, chunked, stalled;
    bool held;           /* the user did not take the body, some of the time since the timer was set */
    struct claw_server *server;
    struct claw_conn *prev, *next;
    struct claw_h1 parser;
    struct claw_timer timer;
    struct claw_timer watch; /* nothing is read: has the client left? */
    struct claw_buf pipelined;
    struct claw_deferred again;
    void *request;       /* the user's, set in on_begin */
    struct claw_str head; /* of the answer, not yet sent */
    int64_t left;        /* of a content-length answer */
    int64_t body_left;   /* of a counted request body; 0: none, or not known */
    uint64_t timer_bytes; /* what had come, or waited to leave, when the timer was set */
    size_t lingered;      /* bytes that came behind the last answer */
    uint64_t bytes_in, bytes_out; /* of the present request */
    uint64_t served;     /* requests so far */
    bool head_only;      /* the request was HEAD */
    bool http10;
    bool refused;
    char peer[46];       /* the client's address as text */
};

/* Bind and listen with SO_REUSEPORT, so that each worker has a socket of its own. Port 0 takes a free one (see
 * claw_server_port). CLAW_EIO with *why a short text ("address already in use"). */
int claw_server_listen(struct claw_server *s, struct claw_loop *l, const char *address, uint16_t port,
                       const struct claw_server_limits *limits, const struct claw_server_events *on, void *arg,
                       const char **why) CLAW_MUSTCHECK;
uint16_t claw_server_port(const struct claw_server *s);
/* New limits and certificate for connections and requests from now on. tls may be NULL; a reference is taken. */
void claw_server_set(struct claw_server *s, const struct claw_server_limits *limits, struct claw_tls_server *tls);
/* Stop accepting, close idle connections, let each other one end with its present answer; on_empty follows. */
void claw_server_drain(struct claw_server *s, void (*on_empty)(struct claw_server *s));
/* Behind claw_server_drain: abort every connection whose answer is not over (on_gone is called for those in flight). What was
 * sent on the others has a moment to leave; called again there is none. */
void claw_server_end(struct claw_server *s);
/* Abort every connection (on_gone is called for those in flight). */
void claw_server_abort(struct claw_server *s);

/* The answer's head: `head` is the status line and fields, each ended by CRLF, without content-length,
 * transfer-encoding, connection and without the empty line; it must stay valid until the next send. `length` of the
 * body, or -1 when it is not known. 204 and 304 and answers to HEAD have no body whatever length says. Nothing is
 * sent yet. 1xx may not be given. */
void claw_conn_reply(struct claw_conn *c, int status, struct claw_str head, int64_t length);
/* Send the head if it waits, these bytes of the body (at most 12 slices), and the end when `end`. One system call, a
 * moment later when it is little (claw_stream_write_soon). 0, CLAW_EAGAIN (accepted; on_drain follows; do not send more until
 * then), or CLAW_ECLIENT_GONE: broken, on_gone comes from the loop, not from here. After `end` conn->request is forgotten and
 * the next request may begin, but never before this returned. */
int claw_conn_send(struct claw_conn *c, const uv_buf_t *bufs, unsigned n, bool end) CLAW_MUSTCHECK;
/* The answer is cut short: what was sent goes out, then the connection ends in a way that no client takes for the
 * answer's end (chunked or counted: FIN before the end; else a reset). conn->request is forgotten. */
void claw_conn_cut(struct claw_conn *c);
/* The answer cannot be completed: reset the connection. conn->request is forgotten, on_gone is not called. */
void claw_conn_abort(struct claw_conn *c);
/* 100 Continue, once, when the request waits for it. */
void claw_conn_continue(struct claw_conn *c);
/* Stop and go on taking the request's body. Meanwhile the client's time for it does not run, and nobody notices when it
 * leaves. What is read already still comes. */
void claw_conn_pause(struct claw_conn *c);
void claw_conn_resume(struct claw_conn *c);

#endif
