/* sse: however the bytes are split, the same events come out, and their bytes joined are the stream; what is written
 * from an event reads back as the same event.
 * The first byte of an input is the bound of an event (times 8), the second seeds the splits. */
#include "http/sse.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
    struct claw_sse sse;
    struct claw_buf events, bytes, tmp;
    bool in_over;
};

static void add(struct claw_buf *b, struct claw_str s) { CLAW_ASSERT(claw_buf_add_str(b, s) == 0); }

static void add_fields(struct claw_buf *b, const struct claw_sse_fields *f)
{
    add(b, f->type);
    add(b, CLAW_STR("\r"));
    add(b, f->id);
    add(b, CLAW_STR("\r"));
    add(b, f->data);
    add(b, CLAW_STR("\r"));
}

/* Written and read again: the same type and data. */
static void check_round_trip(const struct claw_sse_fields *f)
{
    struct claw_buf wire, tmp;
    struct claw_sse_fields again;
    claw_buf_init(&wire, 0);
    claw_buf_init(&tmp, 0);
    CLAW_ASSERT(claw_sse_write(&wire, f->type, f->data) == 0);
    CLAW_ASSERT(claw_sse_parse(claw_buf_str(&wire), &tmp, &again) == 0);
    CLAW_ASSERT(claw_str_eq(again.type, f->type) && claw_str_eq(again.data, f->data));
    claw_buf_fini(&wire);
    claw_buf_fini(&tmp);
}

static int on_event(void *arg, const struct claw_sse_event *ev)
{
    struct reading *r = arg;
    struct claw_sse_fields f;
    CLAW_ASSERT(!r->in_over && ev->raw.len > 0 && ev->raw.len <= r->sse.max);
    add(&r->bytes, ev->raw);
    CLAW_ASSERT(claw_sse_parse(ev->raw, &r->tmp, &f) == 0);
    CLAW_ASSERT(ev->has_data || f.data.len == 0);
    CLAW_ASSERT(!ev->comment_only || (!ev->has_data && !f.type.len && !f.id.len));
    if (ev->comment_only) return 0; /* their number depends on where a CRLF was cut */
    add_fields(&r->events, &f);
    add(&r->events, ev->has_data ? CLAW_STR("data\n") : CLAW_STR("none\n"));
    check_round_trip(&f);
    return 0;
}

static int on_over(void *arg, struct claw_str bytes, bool last)
{
    struct reading *r = arg;
    add(&r->bytes, bytes);
    r->in_over = !last;
    if (last) add(&r->events, CLAW_STR("over\n"));
    return 0;
}

static void read_all(struct reading *r, size_t max, const char *data, size_t n, unsigned seed)
{
    memset(r, 0, sizeof *r);
    claw_sse_init(&r->sse, max);
    claw_buf_init(&r->events, 0);
    claw_buf_init(&r->bytes, 0);
    claw_buf_init(&r->tmp, 0);
    const struct claw_sse_sink to = {on_event, on_over, r};
    for (size_t at = 0; at < n;) {
        seed = seed > 1 ? seed * 1103515245u + 12345u : seed;
        size_t piece = seed == 0 ? n : seed == 1 ? 1 : 1 + (seed >> 16) % 24;
        if (piece > n - at) piece = n - at;
        char *copy = malloc(piece);
        CLAW_ASSERT(copy);
        memcpy(copy, data + at, piece);
        CLAW_ASSERT(claw_sse_feed(&r->sse, copy, piece, &to) == 0);
        free(copy);
        CLAW_ASSERT(claw_sse_rest(&r->sse).len <= max);
        at += piece;
    }
    add(&r->bytes, claw_sse_rest(&r->sse));
    CLAW_ASSERT(claw_str_eq(claw_buf_str(&r->bytes), (struct claw_str){data, n}));
    claw_sse_fini(&r->sse);
    claw_buf_fini(&r->bytes);
    claw_buf_fini(&r->tmp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reading whole, part;
    if (size < 2) return 0;
    /* Near the bound it matters to which event a LF was counted: then only the bytes are compared. */
    bool near = data[0] < 128;
    size_t max = near ? 8 + (size_t)data[0] * 8 : 1 << 20;
    const char *bytes = (const char *)data + 2;
    read_all(&whole, max, bytes, size - 2, 0);
    for (unsigned i = 0; i < 3; i++) {
        read_all(&part, max, bytes, size - 2, i == 0 ? 1 : (unsigned)data[1] * 7 + i * 1000003u);
        CLAW_ASSERT(near || claw_str_eq(claw_buf_str(&part.events), claw_buf_str(&whole.events)));
        claw_buf_fini(&part.events);
    }
    claw_buf_fini(&whole.events);
    return 0;
}
