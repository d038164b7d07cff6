/* h1: a recorder of what a parser tells, at every split of the bytes. */
#ifndef CLAW_TEST_H1_PART_H
#define CLAW_TEST_H1_PART_H

#include "http/h1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define S(lit) {lit, sizeof(lit) - 1}

struct run {
    struct claw_h1 p;
    struct claw_arena arena;
    struct claw_buf head, body;
    unsigned heads, dones;
    size_t used;
    int code;
    int stop_at_head, stop_at_body, stop_at_done; /* what the callbacks return */
};

static inline int on_head(struct claw_h1 *p, struct claw_head *h)
{
    struct run *r = p->arg;
    assert_int_equal(r->dones, 0);
    assert_false(claw_h1_complete(p));
    r->heads++;
    if (p->kind == CLAW_H1_REQUEST)
        assert_int_equal(claw_buf_add_fmt(&r->head, "%.*s %.*s %.*s", CLAW_STR_FMT(h->method), CLAW_STR_FMT(h->target),
                                          CLAW_STR_FMT(h->host)), 0);
    else
        assert_int_equal(claw_buf_add_fmt(&r->head, "%d", h->status), 0);
    assert_int_equal(claw_buf_add_fmt(&r->head, " 1.%d cl=%lld%s%s%s%s", h->minor, (long long)h->content_length,
                                      h->chunked ? " chunked" : "", h->keep_alive ? " keep" : "",
                                      h->expect_continue ? " expect" : "", h->until_close ? " close" : ""), 0);
    for (size_t i = 0; i < h->n; i++) {
        assert_int_equal(h->headers[i].id, claw_header_id_of(h->headers[i].name));
        assert_int_equal(claw_buf_add_fmt(&r->head, "|%.*s=%.*s", CLAW_STR_FMT(h->headers[i].name),
                                          CLAW_STR_FMT(h->headers[i].value)), 0);
    }
    return r->stop_at_head;
}

static inline int on_body(struct claw_h1 *p, const char *data, size_t n)
{
    struct run *r = p->arg;
    assert_int_equal(r->heads, 1);
    assert_int_equal(r->dones, 0);
    assert_true(n > 0);
    assert_int_equal(claw_buf_add(&r->body, data, n), 0);
    return r->stop_at_body;
}

static inline int on_done(struct claw_h1 *p)
{
    struct run *r = p->arg;
    assert_int_equal(r->heads, 1);
    assert_true(claw_h1_complete(p));
    r->dones++;
    return r->stop_at_done;
}

static const struct claw_h1_events events = {on_head, on_body, on_done};

static inline void run_begin(struct run *r, enum claw_h1_kind kind, const struct claw_h1_limits *limits, bool no_body)
{
    memset(r, 0, sizeof *r);
    claw_arena_init(&r->arena, NULL, 0, 1 << 20);
    claw_buf_init(&r->head, 0);
    claw_buf_init(&r->body, 0);
    claw_h1_init(&r->p, kind, limits ? limits : &claw_h1_defaults, &events, r);
    claw_h1_begin(&r->p, &r->arena, no_body);
    assert_false(claw_h1_started(&r->p));
}

static inline void run_end(struct run *r)
{
    claw_arena_reset(&r->arena);
    claw_buf_fini(&r->head);
    claw_buf_fini(&r->body);
}

/* Feed a copy of its own, so that a memory checker sees slices that point into it. False: no more is taken. */
static inline bool run_feed(struct run *r, const char *data, size_t n)
{
    char *copy = malloc(n ? n : 1);
    size_t used = 99999;
    assert_non_null(copy);
    memcpy(copy, data, n);
    r->code = claw_h1_feed(&r->p, copy, n, &used);
    free(copy);
    assert_true(used <= n);
    r->used += used;
    if (r->code == 0 && used < n) assert_true(claw_h1_complete(&r->p));
    return r->code == 0 && used == n;
}

static inline void run_all(struct run *r, struct claw_str in, size_t first, size_t step)
{
    size_t at = 0, n = first;
    while (at < in.len) {
        if (n > in.len - at) n = in.len - at;
        if (!run_feed(r, in.ptr + at, n)) break;
        at += n;
        n = step;
    }
}

static inline void assert_same(struct run *a, struct run *b, struct claw_str in)
{
    if (a->code != b->code || a->heads != b->heads || a->dones != b->dones || (a->code == 0 && a->used != b->used) ||
        !claw_str_eq(claw_buf_str(&a->head), claw_buf_str(&b->head)) ||
        !claw_str_eq(claw_buf_str(&a->body), claw_buf_str(&b->body)))
        fail_msg("a split changes the reading of:\n%.*s\n%d %s / %d %s", CLAW_STR_FMT(in), a->code,
                 claw_h1_error(&a->p), b->code, claw_h1_error(&b->p));
}

struct row {
    struct claw_str in;
    int code;
    const char *want; /* the head as recorded, " [body]", " +n" for bytes left over, " ..." when not complete */
};

static inline void check(const struct row *row, enum claw_h1_kind kind, const struct claw_h1_limits *limits, bool no_body)
{
    struct run whole, part;
    run_begin(&whole, kind, limits, no_body);
    run_all(&whole, row->in, row->in.len, 1);
    if (whole.code != row->code)
        fail_msg("%s (%s) for:\n%.*s", claw_err_name(whole.code), claw_h1_error(&whole.p), CLAW_STR_FMT(row->in));
    if (row->code) {
        assert_true(strlen(claw_h1_error(&whole.p)) > 0);
        assert_int_equal(whole.dones, 0);
        size_t used;
        assert_int_equal(claw_h1_feed(&whole.p, "x", 1, &used), row->code);
        assert_int_equal(claw_h1_finish(&whole.p), row->code);
    }
    if (row->want) {
        struct claw_buf got;
        claw_buf_init(&got, 0);
        assert_int_equal(claw_buf_add_str(&got, claw_buf_str(&whole.head)), 0);
        if (claw_buf_size(&whole.body))
            assert_int_equal(claw_buf_add_fmt(&got, " [%.*s]", CLAW_STR_FMT(claw_buf_str(&whole.body))), 0);
        if (!claw_h1_complete(&whole.p)) assert_int_equal(claw_buf_add_z(&got, " ..."), 0);
        else if (whole.used < row->in.len)
            assert_int_equal(claw_buf_add_fmt(&got, " +%zu", row->in.len - whole.used), 0);
        if (!claw_str_eqz(claw_buf_str(&got), row->want))
            fail_msg("got  %.*s\nwant %s", CLAW_STR_FMT(claw_buf_str(&got)), row->want);
        claw_buf_fini(&got);
    }
    for (size_t first = 0; first <= row->in.len; first++) {
        run_begin(&part, kind, limits, no_body);
        run_all(&part, row->in, first ? first : 1, first ? row->in.len : 1); /* 0 stands for: each byte alone */
        assert_same(&whole, &part, row->in);
        run_end(&part);
    }
    run_end(&whole);
}

#define BAD CLAW_EBAD_REQUEST
#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define TE POST "Transfer-Encoding: chunked\r\n\r\n"
#define TE_HEAD "POST / a 1.1 cl=-1 chunked keep|Host=a|Transfer-Encoding=chunked"

#define CHECK_ALL(rows, kind)                                                                      \
    for (size_t i = 0; i < sizeof(rows) / sizeof *(rows); i++) check(&(rows)[i], kind, NULL, false)

struct seen { struct claw_h1 p; char text[200]; size_t n, fields, hops; };

static inline int count_hops(struct claw_h1 *p, struct claw_head *h)
{
    struct seen *s = p->arg;
    s->fields = h->n;
    for (size_t i = 0; i < h->n; i++) s->hops += claw_head_hop(h, &h->headers[i]);
    return 0;
}

static inline int note_body(struct claw_h1 *p, const char *data, size_t n)
{
    struct seen *s = p->arg;
    assert_true(s->n + n + 1 < sizeof s->text);
    memcpy(s->text + s->n, data, n);
    s->n += n;
    s->text[s->n++] = '|';
    return 0;
}

static inline int note_done(struct claw_h1 *p) { return 0; }

static inline void see(struct seen *s, enum claw_h1_kind kind, struct claw_str in, int code)
{
    static const struct claw_h1_events on = {count_hops, note_body, note_done};
    struct claw_arena arena;
    size_t used;
    memset(s, 0, sizeof *s);
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    claw_h1_init(&s->p, kind, &claw_h1_defaults, &on, s);
    claw_h1_begin(&s->p, &arena, false);
    char *copy = malloc(in.len);
    assert_non_null(copy);
    memcpy(copy, in.ptr, in.len);
    assert_int_equal(claw_h1_feed(&s->p, copy, in.len, &used), code);
    free(copy);
    claw_arena_reset(&arena);
}

#endif
