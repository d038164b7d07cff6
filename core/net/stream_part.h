/* stream_part: what stream.c (the socket, the queue, the states), stream_soon.c (small writes that wait for the end of the
 * turn) and stream_tls.c (the engine between the socket and the user) know of each other. For these files only.
 */
#ifndef CLAW_NET_STREAM_PART_H
#define CLAW_NET_STREAM_PART_H

#include "net/stream.h"

enum claw_stream_state {
    CLAW_STREAM_CONNECTING = 1,
    CLAW_STREAM_HANDSHAKING,
    CLAW_STREAM_OPEN,
    CLAW_STREAM_FAILED,  /* on_open told an error; only close is left */
    CLAW_STREAM_CLOSING, /* uv_close was called */
    CLAW_STREAM_CLOSED,  /* the socket is gone; the pool or the end of the turn may still hold the stream */
};

/* The handshake is over, or there is none: tell the user, then read. */
void claw_stream_opened(struct claw_stream *s);
void claw_stream_failed(struct claw_stream *s, int code, const char *why);
/* The way in is over; once. */
void claw_stream_ended(struct claw_stream *s, int code, const char *why);
/* Start or stop reading, as the state says. */
void claw_stream_set_reading(struct claw_stream *s);
/* Bytes to the socket: at once, or queued. 0, CLAW_EAGAIN, CLAW_EIO. */
int claw_stream_send(struct claw_stream *s, const uv_buf_t *bufs, unsigned n) CLAW_MUSTCHECK;
/* Send what waits of this stream, if anything does. Calls nothing back. */
void claw_stream_soon_send(struct claw_stream *s);
/* A write failed that its user does not know of: tell so at the end of the turn. */
void claw_stream_broke(struct claw_stream *s);
/* The pool is done with a stream whose socket is closed already. */
void claw_stream_finish(struct claw_stream *s);

/* The TLS half of a stream: its engine, what waits for the pool, and whether the pool owns it now. */
int claw_stream_tls_new(struct claw_stream *s, struct claw_tls_server *server, struct claw_tls_client *client,
                        struct claw_str server_name) CLAW_MUSTCHECK;
void claw_stream_tls_free(struct claw_stream *s);
bool claw_stream_tls_busy(const struct claw_stream *s);
/* Is the handshake to go on by itself: is the engine the pool's, or does it wait for its turn? */
bool claw_stream_tls_waits(const struct claw_stream *s);
/* Go on with the handshake as far as it goes. */
void claw_stream_tls_drive(struct claw_stream *s);
/* Bytes came from the wire. */
void claw_stream_tls_feed(struct claw_stream *s, const char *data, size_t n);
/* Hand up what can be decrypted, unless paused; then read on. */
void claw_stream_tls_pump(struct claw_stream *s);
int claw_stream_tls_write(struct claw_stream *s, const uv_buf_t *bufs, unsigned n) CLAW_MUSTCHECK;
void claw_stream_tls_shutdown(struct claw_stream *s);
/* The user closes: a handshake still waiting for the pool, or for its turn, need not run. */
void claw_stream_tls_cancel(struct claw_stream *s);
bool claw_stream_tls_resumed(const struct claw_stream *s);

#endif
