/* peer: the other side of a connection, for tests: raw bytes in and out on the test's own loop, no HTTP of its own. */
#ifndef CLAW_TEST_PEER_H
#define CLAW_TEST_PEER_H

#include "base/buf.h"
#include "net/stream.h"

/* Turn the loop until it is so. A test that waits in vain is ended by its alarm. */
#define UNTIL(loop, cond) do { while (!(cond)) claw_loop_turn((loop), true); } while (0)
#define PEER_ALARM_S 120 /* valgrind's speed */

struct peer {
    struct claw_stream stream;
    struct claw_buf in; /* all that came */
    unsigned reads;     /* in how many pieces */
    bool open, ended, drained, closed;
    int end_code;
};

static inline void peer_on_open(struct claw_stream *s, int code)
{
    struct peer *p = s->arg;
    CLAW_ASSERT(code == 0);
    p->open = true;
}

static inline void peer_on_read(struct claw_stream *s, const char *data, size_t n)
{
    struct peer *p = s->arg;
    CLAW_ASSERT(claw_buf_add(&p->in, data, n) == 0);
    p->reads++;
}

static inline void peer_on_end(struct claw_stream *s, int code)
{
    struct peer *p = s->arg;
    p->ended = true;
    p->end_code = code;
}

static inline void peer_on_drain(struct claw_stream *s) { ((struct peer *)s->arg)->drained = true; }
static inline void peer_on_close(struct claw_stream *s) { ((struct peer *)s->arg)->closed = true; }

static const struct claw_stream_events peer_events = {peer_on_open, peer_on_read, peer_on_end, peer_on_drain, peer_on_close, NULL};

static inline void peer_init(struct peer *p)
{
    memset(p, 0, sizeof *p);
    claw_buf_init(&p->in, 0);
}

static inline void peer_dial(struct peer *p, struct claw_loop *l, uint16_t port)
{
    struct sockaddr_in to;
    peer_init(p);
    CLAW_ASSERT(uv_ip4_addr("127.0.0.1", port, &to) == 0);
    CLAW_ASSERT(claw_stream_connect(&p->stream, l, (struct sockaddr *)&to, NULL, CLAW_STR(""), &peer_events, p) == 0);
    UNTIL(l, p->open);
}

static inline void peer_send(struct peer *p, const char *data, size_t n)
{
    uv_buf_t b = uv_buf_init((char *)data, (unsigned)n);
    int rc = claw_stream_write(&p->stream, &b, 1);
    (void)rc; /* a broken connection shows in p->ended */
}

static inline void peer_say(struct peer *p, const char *z) { peer_send(p, z, strlen(z)); }

static inline bool peer_has(const struct peer *p, const char *z)
{
    return claw_str_find(claw_buf_str(&p->in), claw_str_of(z)) >= 0;
}

static inline bool peer_ends(const struct peer *p, const char *z)
{
    struct claw_str s = claw_buf_str(&p->in);
    size_t n = strlen(z);
    return s.len >= n && memcmp(s.ptr + s.len - n, z, n) == 0;
}

/* Close, wait for it, forget what came. */
static inline void peer_fini(struct peer *p, struct claw_loop *l)
{
    if (!p->closed) claw_stream_close(&p->stream);
    UNTIL(l, p->closed);
    claw_buf_fini(&p->in);
}

#endif
