/* h1: however the bytes are split, the same messages come out, or the same refusal.
 * The first byte of an input: bit 0 response, bit 1 to HEAD, bit 2 tight limits; the second seeds the splits. */
#include "http/h1.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
    struct claw_arena arena;
    struct claw_buf text; /* every event, body pieces joined */
    size_t used;
    int code, finish;
    bool in_body;
};

static void add(struct reading *r, const char *p, size_t n) { CLAW_ASSERT(claw_buf_add(&r->text, p, n) == 0); }

static void add_number(struct reading *r, const char *what, long long n)
{
    CLAW_ASSERT(claw_buf_add_fmt(&r->text, "%s%lld ", what, n) == 0);
}

static void check_head(const struct claw_h1 *p, const struct claw_head *h)
{
    CLAW_ASSERT(h->minor == 0 || h->minor == 1);
    CLAW_ASSERT(!(h->chunked && (h->content_length >= 0 || h->minor == 0)));
    CLAW_ASSERT(h->n <= p->limits->fields);
    for (size_t i = 0; i < h->n; i++) {
        CLAW_ASSERT(claw_h1_is_token(h->headers[i].name));
        CLAW_ASSERT(claw_h1_is_value(h->headers[i].value));
        CLAW_ASSERT(h->headers[i].id == claw_header_id_of(h->headers[i].name));
    }
    if (p->kind == CLAW_H1_RESPONSE) {
        CLAW_ASSERT(h->status >= 200 && h->status <= 599);
        return;
    }
    CLAW_ASSERT(h->target.len > 0 && h->target.ptr[0] == '/' && h->target.len <= p->limits->target_bytes);
    CLAW_ASSERT(h->host.len ? claw_h1_is_host(h->host) : h->minor == 0);
    CLAW_ASSERT(claw_h1_is_token(h->method));
}

static int on_head(struct claw_h1 *p, struct claw_head *h)
{
    struct reading *r = p->arg;
    check_head(p, h);
    add(r, h->method.ptr, h->method.len);
    add(r, h->target.ptr, h->target.len);
    add(r, h->host.ptr, h->host.len);
    add_number(r, "status ", h->status);
    add_number(r, "length ", h->content_length);
    add_number(r, "flags ", h->minor | h->chunked << 1 | h->keep_alive << 2 | h->until_close << 3 | h->expect_continue << 4);
    for (size_t i = 0; i < h->n; i++) {
        add(r, h->headers[i].name.ptr, h->headers[i].name.len);
        add(r, "=", 1);
        add(r, h->headers[i].value.ptr, h->headers[i].value.len);
        add(r, "\n", 1);
    }
    return 0;
}

static int on_body(struct claw_h1 *p, const char *data, size_t n)
{
    struct reading *r = p->arg;
    if (!r->in_body) add(r, "[", 1);
    r->in_body = true;
    add(r, data, n);
    return 0;
}

static int on_done(struct claw_h1 *p)
{
    struct reading *r = p->arg;
    r->in_body = false;
    add(r, "]", 1);
    return 0;
}

static const struct claw_h1_events events = {on_head, on_body, on_done};
static const struct claw_h1_limits tight = {
    .head_bytes = 200, .target_bytes = 20, .fields = 4, .body_bytes = 30, .trailer_bytes = 20, .chunk_line_bytes = 12};

/* Message after message, cut where `seed` says (0: not at all, 1: behind each byte). */
static void read_all(struct reading *r, uint8_t mode, const char *data, size_t n, unsigned seed)
{
    struct claw_h1 p;
    size_t at = 0, end = 0;
    memset(r, 0, sizeof *r);
    claw_arena_init(&r->arena, NULL, 0, 64 << 20);
    claw_buf_init(&r->text, 0);
    claw_h1_init(&p, mode & 1 ? CLAW_H1_RESPONSE : CLAW_H1_REQUEST, mode & 4 ? &tight : &claw_h1_defaults, &events, r);
    claw_h1_begin(&p, &r->arena, mode & 2);
    while (at < n && !r->code) {
        size_t used, piece;
        seed = seed > 1 ? seed * 1103515245u + 12345u : seed;
        piece = seed == 0 ? n : seed == 1 ? 1 : 1 + (seed >> 16) % 24;
        if (at == end) end = at + (piece < n - at ? piece : n - at);
        char *copy = malloc(end - at); /* of its own, so that reading past the end is seen */
        CLAW_ASSERT(copy);
        memcpy(copy, data + at, end - at);
        r->code = claw_h1_feed(&p, copy, end - at, &used);
        free(copy);
        CLAW_ASSERT(used <= end - at);
        CLAW_ASSERT(r->code || used == end - at || claw_h1_complete(&p));
        at += used;
        if (r->code) break;
        if (!claw_h1_complete(&p)) continue;
        add_number(r, " done at ", (long long)at);
        claw_arena_reset(&r->arena);
        claw_h1_begin(&p, &r->arena, mode & 2);
    }
    r->used = at;
    r->finish = claw_h1_finish(&p);
    claw_arena_reset(&r->arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reading whole, part;
    if (size < 2) return 0;
    const char *bytes = (const char *)data + 2;
    read_all(&whole, data[0], bytes, size - 2, 0);
    for (unsigned i = 0; i < 3; i++) {
        read_all(&part, data[0], bytes, size - 2, i == 0 ? 1 : (unsigned)data[1] * 7 + i * 1000003u);
        CLAW_ASSERT(part.code == whole.code);
        CLAW_ASSERT(part.finish == whole.finish);
        CLAW_ASSERT(part.code || part.used == whole.used);
        CLAW_ASSERT(claw_str_eq(claw_buf_str(&part.text), claw_buf_str(&whole.text)));
        claw_buf_fini(&part.text);
    }
    claw_buf_fini(&whole.text);
    return 0;
}
