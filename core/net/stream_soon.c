#include "net/stream_part.h"

#include <string.h>

static void send_one(struct claw_loop *l, unsigned i)
{
    struct claw_stream *s = l->soon.one[i].s;
    uv_buf_t all = uv_buf_init(l->soon.bytes + i * CLAW_LOOP_SOON_BYTES, (unsigned)l->soon.one[i].n);

    l->soon.one[i].s = NULL;
    s->soon = 0;
    s->queued -= all.len;
    if (claw_stream_send(s, &all, 1) == CLAW_EIO) claw_stream_broke(s);
}

void claw_stream_flush_all(struct claw_loop *l)
{
    for (unsigned i = 0; i < l->soon.n; i++) {
        struct claw_stream *s = l->soon.one[i].s;
        if (!s) continue;
        send_one(l, i);
        if (!s->queue) continue;
        s->want_drain = true;
        if (s->on->on_full) s->on->on_full(s);
    }
    l->soon.n = 0;
}

static void on_due(struct claw_deferred *d)
{
    claw_stream_flush_all((struct claw_loop *)((char *)d - offsetof(struct claw_loop, soon.due)));
}

int claw_stream_flush(struct claw_stream *s)
{
    claw_stream_soon_send(s);
    if (!s->queue || s->broken || s->state != CLAW_STREAM_OPEN) return 0;
    s->want_drain = true;
    return CLAW_EAGAIN;
}

void claw_stream_soon_send(struct claw_stream *s)
{
    if (s->soon) send_one(s->loop, s->soon - 1u);
}

int claw_stream_write_soon(struct claw_stream *s, const uv_buf_t *bufs, unsigned n)
{
    struct claw_loop *l = s->loop;
    size_t total = 0;

    for (unsigned i = 0; i < n; i++) total += bufs[i].len;
    if (s->soon || s->queue || s->tls || s->broken || s->shut || s->state != CLAW_STREAM_OPEN || total > CLAW_LOOP_SOON_BYTES)
        return claw_stream_write(s, bufs, n);
    if (l->soon.n == CLAW_LOOP_SOON_MAX) claw_stream_flush_all(l);
    char *to = l->soon.bytes + l->soon.n * CLAW_LOOP_SOON_BYTES;
    for (unsigned i = 0; i < n; i++) {
        if (bufs[i].len) memcpy(to, bufs[i].base, bufs[i].len);
        to += bufs[i].len;
    }
    l->soon.one[l->soon.n].s = s;
    l->soon.one[l->soon.n].n = total;
    s->soon = (uint8_t)++l->soon.n;
    s->queued += total;
    claw_loop_defer(l, &l->soon.due, on_due);
    return 0;
}
