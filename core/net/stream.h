/* stream: one TCP connection, plain or TLS, with one way in, one way out and one close path.
 *
 *   connecting/handshaking --on_open(0)--> open --+--> on_end (once) --> claw_stream_close --> on_close
 *                    \--on_open(error)------------/
 *
 * Reading: data is handed up as it comes, from the loop's shared buffer, valid until the callback returns. One poll may find
 * hundreds of sockets that have bytes: in a turn that is long already the rest of them are read in the next ones, in order (lane.h).
 * Writing: what the kernel takes at once goes to it in one system call (uv_try_write), large writes without a copy; the
 * rest is copied into the stream's queue and sent when the socket drains. A user that respects CLAW_EAGAIN and waits for
 * on_drain keeps at most one call's bytes queued. TCP_NODELAY is always on.
 * TLS handshakes run on other threads, at a lower scheduling priority than the workers (offload.h), which also free what a
 * handshake made. What comes of each step, and the closes, are done on the loop, a bounded number a turn (lane.h).
 * Calling claw_stream_close inside any callback is legal; no callback but on_close comes after it.
 */
#ifndef CLAW_NET_STREAM_H
#define CLAW_NET_STREAM_H

#include "net/loop.h"
#include "net/tls.h"

struct claw_stream;

struct claw_stream_events {
    /* connect/accept finished (plain accept: called before claw_stream_accept returns; TLS: after the handshake).
     * code 0, CLAW_ECONNECT, CLAW_ETLS, CLAW_ETLS_VERIFY, CLAW_ENOMEM; claw_stream_error(s) has the text. After an error the
     * user closes. */
    void (*on_open)(struct claw_stream *s, int code);
    void (*on_read)(struct claw_stream *s, const char *data, size_t n);
    /* The peer sends no more: CLAW_OK after a clean FIN (under TLS: close_notify); CLAW_EUPSTREAM_EOF when the end
     * was not clean (reset, or under TLS a FIN without close_notify). Once. */
    void (*on_end)(struct claw_stream *s, int code);
    /* The queue is empty again after a write returned CLAW_EAGAIN. May be NULL. When the queue failed instead, on_end
     * tells (also while paused); if that came before already, on_drain comes, and the next write says CLAW_EIO. */
    void (*on_drain)(struct claw_stream *s);
    /* Everything is over; the memory of *s may be used again. Comes from the loop, never from within close. */
    void (*on_close)(struct claw_stream *s);
    /* A write that waited (claw_stream_write_soon) went out in part; on_drain will tell. May be NULL. It may come from within
     * another stream's claw_stream_write_soon: note it, and write to nothing. */
    void (*on_full)(struct claw_stream *s);
};

struct claw_stream {
    uv_tcp_t tcp;
    uint32_t magic;
    uint8_t state;     /* stream.c */
    uint8_t due;       /* stream.c: for the end of the turn */
    uint8_t soon;      /* stream_soon.c: which of the loop's waiting writes is this one's, from 1; 0: none */
    int fault;         /* libuv's code of the write that broke it */
    bool paused, ended, want_drain, broken, shut;
    bool its_turn; /* to read, whatever the turn did already */
    struct claw_loop *loop;
    const struct claw_stream_events *on;
    void *arg;         /* the user's */
    /* Optional, plain streams only: where the next bytes are to be read to, for a user that keeps them anyway. *n bytes
     * are free there; NULL: the loop's own buffer. What was read comes through on_read all the same. */
    char *(*on_room)(struct claw_stream *s, size_t *n);
    struct claw_stream_tls *tls; /* NULL: plain */
    struct claw_stream_write *queue; /* what waits to be written; NULL: nothing */
    size_t queued;
    struct claw_deferred later;
    struct claw_lane_ticket reading; /* has bytes to read, and waits for its turn */
    struct claw_lane_ticket closing; /* waits for its turn to be closed */
    const char *error; /* text of the last failure, constant or owned by the stream until close */
};

/* Take a waiting connection from a listening handle. tls NULL: plain. On an error nothing is open and nothing
 * will be called. */
int claw_stream_accept(struct claw_stream *s, struct claw_loop *l, uv_stream_t *listener, struct claw_tls_server *tls,
                       const struct claw_stream_events *on, void *arg) CLAW_MUSTCHECK;
/* Start connecting. tls NULL: plain. on_open tells the outcome, never before this returns. No timeout of its own:
 * the user closes when its timer says so. CLAW_ENOMEM, CLAW_EIO (no socket), CLAW_EINVAL (server_name can be none): nothing is open
 * and nothing will be called. */
int claw_stream_connect(struct claw_stream *s, struct claw_loop *l, const struct sockaddr *to,
                        struct claw_tls_client *tls, struct claw_str server_name, const struct claw_stream_events *on,
                        void *arg) CLAW_MUSTCHECK;

/* Send all of `bufs` (at most 16). 0: the kernel has everything. CLAW_EAGAIN: accepted, a part is queued; on_drain
 * will tell. < 0 otherwise: the connection is broken (CLAW_EIO), nothing more will be sent; on_end follows or the
 * user closes. Before on_open(0) it is an error (CLAW_EINVAL). */
int claw_stream_write(struct claw_stream *s, const uv_buf_t *bufs, unsigned n) CLAW_MUSTCHECK;
/* The same, but a small write to a plain stream (CLAW_LOOP_SOON_BYTES) with nothing queued waits until what the poll brought is
 * done with (written elsewhere: for the end of the turn), or until CLAW_LOOP_SOON_MAX streams wait: writes in a row wake who
 * reads them less often than reads and writes by turns. Whatever is done to the stream next, another write, shutdown, close or
 * abort, sends it first. When the kernel then takes less than all, on_full tells; a failure is told as one of the queue is. */
int claw_stream_write_soon(struct claw_stream *s, const uv_buf_t *bufs, unsigned n) CLAW_MUSTCHECK;
/* Send now what claw_stream_write_soon made wait. CLAW_EAGAIN: not all that was accepted has left; on_drain will tell. Otherwise
 * 0, also when the connection is broken. */
int claw_stream_flush(struct claw_stream *s) CLAW_MUSTCHECK;
/* The same for every stream of the loop that has something waiting: before or behind work that takes long. */
void claw_stream_flush_all(struct claw_loop *l);
/* Bytes accepted and not yet with the kernel. */
static inline size_t claw_stream_queued(const struct claw_stream *s) { return s->queued; }
/* Stop and go on reading. While paused neither data nor the end is noticed. */
void claw_stream_pause(struct claw_stream *s);
void claw_stream_resume(struct claw_stream *s);
/* Has the peer's end come, a FIN or a reset, whatever stands unread before it? For who paused it. */
bool claw_stream_left(const struct claw_stream *s);
/* Send what is queued, then FIN (TLS: close_notify first). Reading goes on. */
void claw_stream_shutdown(struct claw_stream *s);
/* Close; what is queued is given up. Idempotent. */
void claw_stream_close(struct claw_stream *s);
/* Close with a reset (SO_LINGER 0), so that the peer cannot take what it has for a complete message. */
void claw_stream_abort(struct claw_stream *s);
/* Why it failed: "connection refused", "certificate has expired" … Never NULL. */
const char *claw_stream_error(const struct claw_stream *s);
/* Did TLS resume a session? False for plain. */
bool claw_stream_resumed(const struct claw_stream *s);

#endif
