/* h1: what is accepted and refused, and that no split of the bytes changes it. */
#include "http/h1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define S(lit) {lit, sizeof(lit) - 1}

/* ---- a recorder ----------------------------------------------------------------------------------------------- */

struct run {
    struct claw_h1 p;
    struct claw_arena arena;
    struct claw_buf head, body;
    unsigned heads, dones;
    size_t used;
    int code;
    int stop_at_head, stop_at_body, stop_at_done; /* what the callbacks return */
};

static int on_head(struct claw_h1 *p, struct claw_head *h)
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

static int on_body(struct claw_h1 *p, const char *data, size_t n)
{
    struct run *r = p->arg;
    assert_int_equal(r->heads, 1);
    assert_int_equal(r->dones, 0);
    assert_true(n > 0);
    assert_int_equal(claw_buf_add(&r->body, data, n), 0);
    return r->stop_at_body;
}

static int on_done(struct claw_h1 *p)
{
    struct run *r = p->arg;
    assert_int_equal(r->heads, 1);
    assert_true(claw_h1_complete(p));
    r->dones++;
    return r->stop_at_done;
}

static const struct claw_h1_events events = {on_head, on_body, on_done};

static void run_begin(struct run *r, enum claw_h1_kind kind, const struct claw_h1_limits *limits, bool no_body)
{
    memset(r, 0, sizeof *r);
    claw_arena_init(&r->arena, NULL, 0, 1 << 20);
    claw_buf_init(&r->head, 0);
    claw_buf_init(&r->body, 0);
    claw_h1_init(&r->p, kind, limits ? limits : &claw_h1_defaults, &events, r);
    claw_h1_begin(&r->p, &r->arena, no_body);
    assert_false(claw_h1_started(&r->p));
}

static void run_end(struct run *r)
{
    claw_arena_reset(&r->arena);
    claw_buf_fini(&r->head);
    claw_buf_fini(&r->body);
}

/* Feed a copy of its own, so that a memory checker sees slices that point into it. False: no more is taken. */
static bool run_feed(struct run *r, const char *data, size_t n)
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

static void run_all(struct run *r, struct claw_str in, size_t first, size_t step)
{
    size_t at = 0, n = first;
    while (at < in.len) {
        if (n > in.len - at) n = in.len - at;
        if (!run_feed(r, in.ptr + at, n)) break;
        at += n;
        n = step;
    }
}

static void assert_same(struct run *a, struct run *b, struct claw_str in)
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

static void check(const struct row *row, enum claw_h1_kind kind, const struct claw_h1_limits *limits, bool no_body)
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

/* ---- requests ------------------------------------------------------------------------------------------------- */

static const struct row request_lines[] = {
    {S(GET H "\r\n"), 0, "GET / a 1.1 cl=-1 keep|Host=a"},
    {S("HEAD / HTTP/1.1\r\n" H "\r\n"), 0, "HEAD / a 1.1 cl=-1 keep|Host=a"},
    {S("PUT /a HTTP/1.1\r\n" H "\r\n"), 0, "PUT /a a 1.1 cl=-1 keep|Host=a"},
    {S("PATCH /a HTTP/1.1\r\n" H "\r\n"), 0, NULL},
    {S("DELETE /a HTTP/1.1\r\n" H "\r\n"), 0, NULL},
    {S("OPTIONS /a HTTP/1.1\r\n" H "\r\n"), 0, NULL},
    {S("GET /p?q=1&r=%20 HTTP/1.1\r\n" H "\r\n"), 0, "GET /p?q=1&r=%20 a 1.1 cl=-1 keep|Host=a"},
    {S("GET //p HTTP/1.1\r\n" H "\r\n"), 0, "GET //p a 1.1 cl=-1 keep|Host=a"},
    {S("GET / HTTP/1.0\r\n\r\n"), 0, "GET /  1.0 cl=-1"},
    {S("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), 0, "GET /  1.0 cl=-1 keep|Connection=keep-alive"},
    {S(GET H "Connection: x, Close\r\n\r\n"), 0, "GET / a 1.1 cl=-1|Host=a|Connection=x, Close"},
    {S(GET H "Connection: keep-alive\r\nConnection: close\r\n\r\n"), 0, NULL},
    {S("\r\n\r\n" GET H "\r\n"), 0, "GET / a 1.1 cl=-1 keep|Host=a"},
    {S(GET H "\r\n" GET), 0, "GET / a 1.1 cl=-1 keep|Host=a +16"},
    {S(GET H "\r\n\rX"), 0, "GET / a 1.1 cl=-1 keep|Host=a +2"},
    {S(GET H "Connection: upgrade\r\nUpgrade: h2c\r\n\r\nrest"), 0,
     "GET / a 1.1 cl=-1 keep|Host=a|Connection=upgrade|Upgrade=h2c +4"},
    {S(POST "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nokX"), 0,
     "POST / a 1.1 cl=2 keep|Host=a|Connection=upgrade|Upgrade=websocket|Content-Length=2 [ok] +1"},
    {S("GET http://b/p?q HTTP/1.1\r\n" H "\r\n"), 0, "GET /p?q b 1.1 cl=-1 keep|Host=a"},
    {S("GET HTTPS://b:8443 HTTP/1.1\r\n" H "\r\n"), 0, "GET / b:8443 1.1 cl=-1 keep|Host=a"},
    {S("GET http://[::1]:80?x HTTP/1.1\r\n" H "\r\n"), 0, "GET /?x [::1]:80 1.1 cl=-1 keep|Host=a"},
    {S("GET http:///p HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET http:// HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET http://:80/ HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET http://u@b/ HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET ftp://b/ HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET file:///etc HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET http:/b HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET http://b/ HTTP/1.1\r\n\r\n"), BAD, NULL},
    {S("GET a:80 HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET a HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET * HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("OPTIONS * HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("CONNECT a:443 HTTP/1.1\r\n" H "\r\n"), CLAW_EMETHOD, NULL},
    {S("TRACE / HTTP/1.1\r\n" H "\r\n"), CLAW_EMETHOD, NULL},
    {S("PROPFIND / HTTP/1.1\r\n" H "\r\n"), CLAW_EMETHOD, NULL},
    {S("PURGE / HTTP/1.1\r\n" H "\r\n"), CLAW_EMETHOD, NULL},
    {S("BREW / HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("get / HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GETS / HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GE\0T / HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("\x16\x03\x01\x02"), BAD, NULL},
    {S(" GET / HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET  / HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /  HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET / HTTP/1.1 \r\n" H "\r\n"), BAD, NULL},
    {S("GET\t/ HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /\t HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /a b HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /\x01 HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /\x7f HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /#f HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /?a#f HTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET /\r\n\r\n"), BAD, NULL},
    {S("GET\r\n\r\n"), BAD, NULL},
    {S("GET / HTTP/0.9\r\n\r\n"), BAD, NULL},
    {S("GET / HTTP/2.0\r\n" H "\r\n"), CLAW_EVERSION, NULL},
    {S("GET / HTTP/1.2\r\n" H "\r\n"), CLAW_EVERSION, NULL},
    {S("GET / HTTP/3.0\r\n" H "\r\n"), CLAW_EVERSION, NULL},
    {S("GET / HTTP/9.9\r\n" H "\r\n"), CLAW_EVERSION, NULL},
    {S("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), CLAW_EVERSION, NULL},
    {S("GET / HTTP/1.11\r\n" H "\r\n"), BAD, NULL},
    {S("GET / HTTP/11\r\n" H "\r\n"), BAD, NULL},
    {S("GET / HTTP/x.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET / HTTP/1.x\r\n" H "\r\n"), BAD, NULL},
    {S("GET / http/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET / HTTP 1.1\r\n" H "\r\n"), BAD, NULL},
    {S("GET / XHTTP/1.1\r\n" H "\r\n"), BAD, NULL},
    {S("OPTIONS / RTSP/1.0\r\n" H "\r\n"), BAD, NULL},
    {S("SOURCE / ICE/1.0\r\n" H "\r\n"), BAD, NULL},
    {S("GET / HTTP/1.1\n" H "\r\n"), BAD, NULL},
    {S("GET / HTTP/1.1\r" H "\r\n"), BAD, NULL},
    {S("GET / HTTP/1.1\r\r\n" H "\r\n"), BAD, NULL},
    {S("\n" GET H "\r\n"), BAD, NULL},
    {S("\r" GET H "\r\n"), BAD, NULL},
};

static const struct row request_fields[] = {
    {S(GET H "X:\r\n\r\n"), 0, "GET / a 1.1 cl=-1 keep|Host=a|X="},
    {S(GET H "X: \t a \tb\t \r\n\r\n"), 0, "GET / a 1.1 cl=-1 keep|Host=a|X=a \tb"},
    {S(GET H "X:a:b\r\nY_z: \xc3\xa9\r\n\r\n"), 0, "GET / a 1.1 cl=-1 keep|Host=a|X=a:b|Y_z=\xc3\xa9"},
    {S(GET "hOST: a.b-c_d~e:80\r\n\r\n"), 0, "GET / a.b-c_d~e:80 1.1 cl=-1 keep|hOST=a.b-c_d~e:80"},
    {S(GET "Host: 127.0.0.1:8080\r\n\r\n"), 0, NULL},
    {S(GET "Host: [::ffff:1.2.3.4]\r\n\r\n"), 0, NULL},
    {S(GET "Host: [2001:db8::1]:443\r\n\r\n"), 0, NULL},
    {S(GET "Host: a:\r\n\r\n"), 0, NULL},
    {S(GET "Host: a%41\r\n\r\n"), 0, NULL},
    {S(GET "\r\n"), BAD, NULL},
    {S(GET "X: y\r\n\r\n"), BAD, NULL},
    {S(GET H H "\r\n"), BAD, NULL},
    {S(GET H "Host: b\r\n\r\n"), BAD, NULL},
    {S("GET / HTTP/1.0\r\n" H H "\r\n"), BAD, NULL},
    {S("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n"), BAD, NULL},
    {S(GET "Host:\r\n\r\n"), BAD, NULL},
    {S(GET "Host: :80\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a b\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a, b\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a,b\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a/\r\n\r\n"), BAD, NULL},
    {S(GET "Host: u@a\r\n\r\n"), BAD, NULL},
    {S(GET "Host: http://a\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a?b\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a#b\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a\\b\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a:b\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a:80:80\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a:65536\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a:-1\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a%4\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a%zz\r\n\r\n"), BAD, NULL},
    {S(GET "Host: ::1\r\n\r\n"), BAD, NULL},
    {S(GET "Host: [::1\r\n\r\n"), BAD, NULL},
    {S(GET "Host: []\r\n\r\n"), BAD, NULL},
    {S(GET "Host: [a]\r\n\r\n"), BAD, NULL},
    {S(GET "Host: [::1]x\r\n\r\n"), BAD, NULL},
    {S(GET "Host: [fe80::1%25eth0]\r\n\r\n"), BAD, NULL},
    {S(GET "Host: \xc3\xa9\r\n\r\n"), BAD, NULL},
    {S(GET "Host: a\r\n b\r\n\r\n"), BAD, NULL},
    {S(GET H "X : y\r\n\r\n"), BAD, NULL},
    {S(GET H "X\t: y\r\n\r\n"), BAD, NULL},
    {S(GET H ": y\r\n\r\n"), BAD, NULL},
    {S(GET H ":\r\n\r\n"), BAD, NULL},
    {S(GET H "X\r\n\r\n"), BAD, NULL},
    {S(GET H "X y: z\r\n\r\n"), BAD, NULL},
    {S(GET H "X(: z\r\n\r\n"), BAD, NULL},
    {S(GET H "X\xc3: z\r\n\r\n"), BAD, NULL},
    {S(GET H "X\0: z\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\0b\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\x01\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\x0b\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\x1f\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\x7f\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\rY: b\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\nY: b\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\r\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\r\n b\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\r\n\tb\r\n\r\n"), BAD, NULL},
    {S(GET H "X: a\r\n \r\n\r\n"), BAD, NULL},
    {S(GET " " H "\r\n"), BAD, NULL},
    {S(GET "\tX: y\r\n" H "\r\n"), BAD, NULL},
    {S(GET H "\rX"), BAD, NULL},
    {S(GET H "\n"), BAD, NULL},
    {S(GET H "\r\r\n"), BAD, NULL},
    {S(GET H "\n\n"), BAD, NULL},
    {S(GET "Host: a\r\r"), BAD, NULL},
    {S(POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx"), 0,
     "POST / a 1.1 cl=1 keep expect|Host=a|Expect=100-Continue|Content-Length=1 [x]"},
    {S(GET H "Expect: 100-continue\r\n\r\n"), 0, "GET / a 1.1 cl=-1 keep|Host=a|Expect=100-continue"},
    {S("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"), 0,
     "POST /  1.0 cl=1|Expect=100-continue|Content-Length=1 [x]"},
    {S(POST "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx"), CLAW_EEXPECT, NULL},
    {S(POST "Expect: 100-continue, x\r\n\r\n"), CLAW_EEXPECT, NULL},
    {S(POST "Expect: 100-continue\r\nExpect: x\r\n\r\n"), CLAW_EEXPECT, NULL},
    {S(POST "Expect:\r\n\r\n"), CLAW_EEXPECT, NULL},
};

static const struct row request_bodies[] = {
    {S(POST "Content-Length: 5\r\n\r\nhelloGET"), 0, "POST / a 1.1 cl=5 keep|Host=a|Content-Length=5 [hello] +3"},
    {S(POST "Content-Length: 5 \r\n\r\nhello"), 0, "POST / a 1.1 cl=5 keep|Host=a|Content-Length=5 [hello]"},
    {S(POST "Content-Length: 5\r\n\r\nhell"), 0, "POST / a 1.1 cl=5 keep|Host=a|Content-Length=5 [hell] ..."},
    {S(POST "Content-Length: 0\r\n\r\nX"), 0, "POST / a 1.1 cl=0 keep|Host=a|Content-Length=0 +1"},
    {S(POST "Content-Length: 0005\r\n\r\nhello"), 0, NULL},
    {S(POST "\r\nX"), 0, "POST / a 1.1 cl=-1 keep|Host=a +1"},
    {S(POST "Content-Length: 9223372036854775807\r\n\r\nx"), 0, NULL},
    {S("GET / HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nok"), 0, "GET / a 1.1 cl=2 keep|Host=a|Content-Length=2 [ok]"},
    {S(POST "Content-Length: 9223372036854775808\r\n\r\nx"), BAD, NULL},
    {S(POST "Content-Length: 18446744073709551621\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 5, 5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: +5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: -5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 0x5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 5x\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 1 5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 5.0\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: \"5\"\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length:\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: \r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length:\r\n 5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 5\r\n 6\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length : 5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"), BAD, NULL},
    {S(POST "Transfer-Encoding: cHuNkEd\r\n\r\n0\r\n\r\nX"), 0, NULL},
    {S(POST "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n"), 0, NULL},
    {S(POST "Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n"), 0, NULL},
    {S(POST "Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n"), BAD, NULL}, /* llhttp reads it otherwise */
    {S(POST "Transfer-Encoding: gzip\r\n\r\n"), CLAW_ENOT_IMPLEMENTED, NULL},
    {S(POST "Transfer-Encoding: identity\r\n\r\n"), CLAW_ENOT_IMPLEMENTED, NULL},
    {S(POST "Transfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n"), CLAW_ENOT_IMPLEMENTED, NULL},
    {S(POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), CLAW_ENOT_IMPLEMENTED, NULL},
    {S(POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: chunked, cow\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding:\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: chun ked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(POST "Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
};

static const struct row request_chunks[] = {
    {S(TE "0\r\n\r\n"), 0, TE_HEAD},
    {S(TE "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\nX"), 0, TE_HEAD " [hello!] +1"},
    {S(TE "a\r\n0123456789\r\nA\r\nabcdefghij\r\n000\r\n\r\n"), 0, TE_HEAD " [0123456789abcdefghij]"},
    {S(TE "2\r\n\r\n\r\n0\r\n\r\n"), 0, TE_HEAD " [\r\n]"},
    {S(TE "5;a=b\r\nhello\r\n0;x\r\n\r\n"), 0, TE_HEAD " [hello]"},
    {S(TE "5;a=\"b c\"\r\nhello\r\n0\r\n\r\n"), 0, TE_HEAD " [hello]"},
    {S(TE "0\r\nX: y\r\nContent-Length: 7\r\n\r\nrest"), 0, TE_HEAD " +4"},
    {S(TE "5\r\nhel"), 0, TE_HEAD " [hel] ..."},
    {S(TE "5\r\nhello\r\n0\r\n"), 0, TE_HEAD " [hello] ..."},
    {S(POST "Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nX"), 0, NULL},
    {S(TE "5\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5\rhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5\r\rhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5\r\nhello\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5\r\nhello\r0\r\n\r\n"), BAD, NULL},
    {S(TE "5\r\nhelloX0\r\n\r\n"), BAD, NULL},
    {S(TE "5\r\nhelloXX0\r\n\r\n"), BAD, NULL},
    {S(TE "5\r\nhello\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "4\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "\r\n5\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "+5\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "-5\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "0x5\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5_0\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE " 5\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5 \r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5\t\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "g\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE ";x\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "10000000000000005\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "FFFFFFFFFFFFFFFF\r\nhello"), BAD, NULL},
    {S(TE "8000000000000000\r\nhello"), BAD, NULL},
    {S(TE "5;a\nb\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5;a\rb\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "5;a=\0\r\nhello\r\n0\r\n\r\n"), BAD, NULL},
    {S(TE "0\r\n\rX"), BAD, NULL},
    {S(TE "0\r\n\n"), BAD, NULL},
    {S(TE "0\n\r\n"), BAD, NULL},
    {S(TE "0\r\nX: y\rZ: 1\r\n\r\n"), BAD, NULL},
    {S(TE "0\r\nX: y\n\r\n"), BAD, NULL},
    {S(TE "0\r\nX: y\r\n z\r\n\r\n"), BAD, NULL},
    {S(TE "0\r\n X: y\r\n\r\n"), BAD, NULL},
    {S(TE "0\r\nX : y\r\n\r\n"), BAD, NULL},
    {S(TE "0\r\nX: a\0\r\n\r\n"), BAD, NULL},
    {S(TE "0\r\nX\r\n\r\n"), BAD, NULL},
    {S(TE "0\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n"), BAD, NULL},
};

#define CHECK_ALL(rows, kind)                                                                      \
    for (size_t i = 0; i < sizeof(rows) / sizeof *(rows); i++) check(&(rows)[i], kind, NULL, false)

static void requests_by_line(void **state) { CHECK_ALL(request_lines, CLAW_H1_REQUEST); }
static void requests_by_field(void **state) { CHECK_ALL(request_fields, CLAW_H1_REQUEST); }
static void requests_by_body(void **state) { CHECK_ALL(request_bodies, CLAW_H1_REQUEST); }
static void requests_by_chunk(void **state) { CHECK_ALL(request_chunks, CLAW_H1_REQUEST); }

/* ---- responses ------------------------------------------------------------------------------------------------ */

#undef BAD
#define BAD CLAW_EBAD_RESPONSE
#define OK "HTTP/1.1 200 OK\r\n"

static const struct row responses[] = {
    {S(OK "Content-Length: 5\r\n\r\nhello"), 0, "200 1.1 cl=5 keep|Content-Length=5 [hello]"},
    {S(OK "Content-Length: 5\r\n\r\nhelloHTTP"), 0, "200 1.1 cl=5 keep|Content-Length=5 [hello] +4"},
    {S(OK "Content-Length: 0\r\n\r\nX"), 0, "200 1.1 cl=0 keep|Content-Length=0 +1"},
    {S(OK "Content-Length: 1\r\nConnection: close\r\n\r\nx"), 0, "200 1.1 cl=1|Content-Length=1|Connection=close [x]"},
    {S("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"), 0, "200 1.0 cl=1|Content-Length=1 [x]"},
    {S("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\nx"), 0, NULL},
    {S(OK "\r\nbody"), 0, "200 1.1 cl=-1 close [body] ..."},
    {S(OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\nX"), 0,
     "200 1.1 cl=-1 chunked keep|Transfer-Encoding=chunked [hello] +1"},
    {S("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), 0, NULL},
    {S("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"), 0, NULL},
    {S("HTTP/1.1 200 a\tb \xc3\xa9\r\nContent-Length: 0\r\n\r\n"), 0, NULL},
    {S("HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n"), 0, "599 1.1 cl=0 keep|Content-Length=0"},
    {S("HTTP/1.1 204 No\r\nX: y\r\n\r\nX"), 0, "204 1.1 cl=-1 keep|X=y +1"},
    {S("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello"), 0, "204 1.1 cl=5 keep|Content-Length=5 +5"},
    {S("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\nhello"), 0, "304 1.1 cl=5 keep|Content-Length=5 +5"},
    {S("HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 0, NULL},
    {S("HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 1\r\n\r\nx"), 0, "200 1.1 cl=1 keep|Content-Length=1 [x]"},
    {S("HTTP/1.1 103 x\r\nLink: y\r\n\r\nHTTP/1.1 102 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n"), 0, "204 1.1 cl=-1 keep"},
    {S("HTTP/1.1 100 Continue\r\n\r\n"), 0, " ..."},
    {S("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" OK "Content-Length: 0\r\n\r\n"), 0, NULL},
    {S("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 000 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 099 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 600 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 999 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 20 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 2000 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1  200 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 200x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 +20 x\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1\r\n\r\n"), BAD, NULL},
    {S("HTTP/2.0 200 OK\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.2 200 OK\r\n\r\n"), BAD, NULL},
    {S("HTTP/0.9 200 OK\r\n\r\n"), BAD, NULL},
    {S("ICY 200 OK\r\n\r\n"), BAD, NULL},
    {S("RTSP/1.0 200 OK\r\n\r\n"), BAD, NULL},
    {S("hello"), BAD, NULL},
    {S("GET / HTTP/1.1\r\n\r\n"), BAD, NULL},
    {S("\r\n" OK "Content-Length: 0\r\n\r\n"), BAD, NULL},
    {S(" " OK "Content-Length: 0\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"), BAD, NULL},
    {S(OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), BAD, NULL},
    {S(OK "Content-Length: 5, 6\r\n\r\nhello"), BAD, NULL},
    {S(OK "Content-Length: -1\r\n\r\n"), BAD, NULL},
    {S(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding: cow\r\n\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding: chunked, cow\r\n\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding: \"chunked\"\r\n\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding:\r\n\r\n"), BAD, NULL},
    {S("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), BAD, NULL},
    {S(OK "X: a\r\n b\r\n\r\n"), BAD, NULL},
    {S(OK "X : a\r\n\r\n"), BAD, NULL},
    {S(OK ": a\r\n\r\n"), BAD, NULL},
    {S(OK "X: a\0\r\n\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding: chunked\r\n\r\nZZ\r\n"), BAD, NULL},
    {S(OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"), BAD, NULL},
};

static void responses_table(void **state) { CHECK_ALL(responses, CLAW_H1_RESPONSE); }

static void responses_to_head(void **state)
{
    static const struct row rows[] = {
        {S(OK "Content-Length: 5\r\n\r\n" OK), 0, "200 1.1 cl=5 keep|Content-Length=5 +17"},
        {S(OK "Transfer-Encoding: chunked\r\n\r\n"), 0, "200 1.1 cl=-1 chunked keep|Transfer-Encoding=chunked"},
        {S(OK "\r\n"), 0, "200 1.1 cl=-1 keep"},
        {S("HTTP/1.1 100 x\r\n\r\n" OK "\r\n"), 0, "200 1.1 cl=-1 keep"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) check(&rows[i], CLAW_H1_RESPONSE, NULL, true);
}

static void interim_responses_are_counted(void **state)
{
    struct claw_buf in;
    for (int n = 15; n <= 18; n++) {
        claw_buf_init(&in, 0);
        for (int i = 0; i < n; i++) assert_int_equal(claw_buf_add_z(&in, "HTTP/1.1 100 x\r\n\r\n"), 0);
        assert_int_equal(claw_buf_add_z(&in, "HTTP/1.1 204 x\r\n\r\n"), 0);
        struct row row = {claw_buf_str(&in), n <= 16 ? 0 : BAD, NULL};
        check(&row, CLAW_H1_RESPONSE, NULL, false);
        claw_buf_fini(&in);
    }
    struct claw_h1_limits limits = claw_h1_defaults;
    struct row row = {S("HTTP/1.1 100 x\r\n\r\nHTTP/1.1 100 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n"), 0, NULL};
    limits.head_bytes = 36;
    check(&row, CLAW_H1_RESPONSE, &limits, false);
    limits.head_bytes = 35;
    row.code = BAD;
    check(&row, CLAW_H1_RESPONSE, &limits, false);
}

/* ---- limits --------------------------------------------------------------------------------------------------- */

static void limited(struct claw_str in, struct claw_h1_limits limits, int code)
{
    struct row row = {in, code, NULL};
    check(&row, CLAW_H1_REQUEST, &limits, false);
}

static void limits_are_exact(void **state)
{
    static const struct claw_str get = S("GET /12345 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
    static const struct claw_str sized = S(POST "Content-Length: 5\r\n\r\nhello");
    static const struct claw_str chunks = S(TE "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    static const struct claw_str trailers = S(TE "0\r\nX: y\r\n\r\n"); /* 8 bytes from the trailers to the end */
    static const struct claw_str extension = S(TE "1;abcdefghi\r\nx\r\n0\r\n\r\n"); /* 11 */
    struct claw_h1_limits l = claw_h1_defaults;

    l.head_bytes = get.len;
    limited(get, l, 0);
    l.head_bytes = get.len - 1;
    limited(get, l, CLAW_EHEAD_TOO_LARGE);
    l.head_bytes = 25; /* in the second line */
    limited(get, l, CLAW_EHEAD_TOO_LARGE);
    l.head_bytes = 3;
    limited(get, l, CLAW_ETARGET_TOO_LONG);
    l = claw_h1_defaults;
    l.target_bytes = 6;
    limited(get, l, 0);
    l.target_bytes = 5;
    limited(get, l, CLAW_ETARGET_TOO_LONG);
    l = claw_h1_defaults;
    l.fields = 2;
    limited(get, l, 0);
    l.fields = 1;
    limited(get, l, CLAW_EHEAD_TOO_LARGE);
    l = claw_h1_defaults;
    l.body_bytes = 5;
    limited(sized, l, 0);
    limited(chunks, l, 0);
    l.body_bytes = 4;
    limited(sized, l, CLAW_EBODY_TOO_LARGE);
    limited(chunks, l, CLAW_EBODY_TOO_LARGE);
    l.body_bytes = 0;
    limited(sized, l, CLAW_EBODY_TOO_LARGE);
    limited(get, l, 0);
    l = claw_h1_defaults;
    l.trailer_bytes = 8;
    limited(trailers, l, 0);
    l.trailer_bytes = 7;
    limited(trailers, l, CLAW_EHEAD_TOO_LARGE);
    l = claw_h1_defaults;
    l.chunk_line_bytes = 11;
    limited(extension, l, 0);
    l.chunk_line_bytes = 10;
    limited(extension, l, CLAW_EBAD_REQUEST);
}

/* Many short extensions, none of them too long, are bounded by what trailers may have. */
static void extensions_are_bounded_together(void **state)
{
    struct claw_h1_limits l = claw_h1_defaults;
    struct claw_buf in;
    claw_buf_init(&in, 0);
    assert_int_equal(claw_buf_add_z(&in, TE), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(claw_buf_add_z(&in, "1;abcdefghijklmnopqrstuvwxyz0\r\nx\r\n"), 0);
    assert_int_equal(claw_buf_add_z(&in, "0\r\n\r\n"), 0);
    l.trailer_bytes = 4 * 9 + 2;
    limited(claw_buf_str(&in), l, 0);
    l.trailer_bytes--;
    limited(claw_buf_str(&in), l, CLAW_EHEAD_TOO_LARGE);
    l.trailer_bytes = 4 * 9 - 1;
    limited(claw_buf_str(&in), l, CLAW_EHEAD_TOO_LARGE);
    claw_buf_fini(&in);
}

static void bodies_to_the_close_are_bounded(void **state)
{
    struct claw_h1_limits l = claw_h1_defaults;
    struct row row = {S(OK "\r\nhello"), 0, "200 1.1 cl=-1 close [hello] ..."};
    l.body_bytes = 5;
    check(&row, CLAW_H1_RESPONSE, &l, false);
    l.body_bytes = 4;
    row = (struct row){row.in, CLAW_EBAD_RESPONSE, NULL};
    check(&row, CLAW_H1_RESPONSE, &l, false);
}

static void a_full_arena_is_an_error(void **state)
{
    static const struct claw_str in = S(POST "X: y\r\nContent-Length: 5\r\n\r\nhello");
    int last = CLAW_EREQ_MEM;
    for (size_t step = 1; step <= in.len; step += in.len - 1) {
        for (size_t cap = 0; cap < 4096; cap += 8) {
            struct run r;
            run_begin(&r, CLAW_H1_REQUEST, NULL, false);
            claw_arena_reset(&r.arena);
            claw_arena_init(&r.arena, NULL, 0, cap);
            run_all(&r, in, step, step);
            assert_true(r.code == 0 || r.code == CLAW_EREQ_MEM);
            if (r.code) assert_int_equal(claw_h1_finish(&r.p), CLAW_EREQ_MEM);
            last = r.code;
            run_end(&r);
        }
        assert_int_equal(last, 0);
    }
}

/* ---- the life of a parser ------------------------------------------------------------------------------------- */

static void pipelined_messages_come_one_by_one(void **state)
{
    static const struct claw_str in = S(POST "Content-Length: 2\r\n\r\nok" GET "Connection: close\r\n" H "\r\n"
                                        "POST /c HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
                                        "\r\n" GET H "\r\n");
    static const char *const want[] = {"POST / a", "GET / a", "POST /c a", "GET / a"};
    for (size_t step = 1; step <= in.len; step++) {
        struct run r;
        size_t at = 0, messages = 0;
        run_begin(&r, CLAW_H1_REQUEST, NULL, false);
        while (at < in.len) {
            size_t used, n = step < in.len - at ? step : in.len - at;
            assert_int_equal(claw_h1_feed(&r.p, in.ptr + at, n, &used), 0);
            at += used;
            if (!claw_h1_complete(&r.p)) {
                assert_int_equal(used, n);
                continue;
            }
            assert_true(claw_str_starts(claw_buf_str(&r.head), claw_str_of(want[messages++])));
            assert_int_equal(claw_h1_feed(&r.p, "GET", 3, &used), 0);
            assert_int_equal(used, 0);
            claw_buf_clear(&r.head);
            claw_arena_reset(&r.arena);
            r.heads = r.dones = 0;
            claw_h1_begin(&r.p, &r.arena, false);
        }
        assert_int_equal(messages, 4);
        assert_int_equal(claw_h1_finish(&r.p), 0);
        run_end(&r);
    }
}

static void finish_tells_cut_from_complete(void **state)
{
    static const struct { enum claw_h1_kind kind; struct claw_str in; int code; bool started; } rows[] = {
        {CLAW_H1_REQUEST, S(""), 0, false},
        {CLAW_H1_REQUEST, S("\r\n"), 0, true},
        {CLAW_H1_REQUEST, S("G"), CLAW_EBAD_REQUEST, true},
        {CLAW_H1_REQUEST, S(GET H), CLAW_EBAD_REQUEST, true},
        {CLAW_H1_REQUEST, S(GET H "\r\n"), 0, true},
        {CLAW_H1_REQUEST, S(POST "Content-Length: 5\r\n\r\nhell"), CLAW_EBAD_REQUEST, true},
        {CLAW_H1_REQUEST, S(TE "5\r\nhello\r\n0\r\n"), CLAW_EBAD_REQUEST, true},
        {CLAW_H1_RESPONSE, S(""), 0, false},
        {CLAW_H1_RESPONSE, S("HTTP/1.1 200 OK\r\n"), CLAW_EUPSTREAM_EOF, true},
        {CLAW_H1_RESPONSE, S("HTTP/1.1 100 x\r\n\r\n"), CLAW_EUPSTREAM_EOF, true},
        {CLAW_H1_RESPONSE, S(OK "Content-Length: 5\r\n\r\n"), CLAW_EUPSTREAM_EOF, true},
        {CLAW_H1_RESPONSE, S(OK "Content-Length: 5\r\n\r\nhell"), CLAW_EUPSTREAM_EOF, true},
        {CLAW_H1_RESPONSE, S(OK "Content-Length: 5\r\n\r\nhello"), 0, true},
        {CLAW_H1_RESPONSE, S(OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), CLAW_EUPSTREAM_EOF, true},
        {CLAW_H1_RESPONSE, S(OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r"), CLAW_EUPSTREAM_EOF, true},
        {CLAW_H1_RESPONSE, S(OK "\r\n"), 0, true},
        {CLAW_H1_RESPONSE, S(OK "\r\nhello"), 0, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct run r;
        run_begin(&r, rows[i].kind, NULL, false);
        if (rows[i].in.len) assert_true(run_feed(&r, rows[i].in.ptr, rows[i].in.len));
        assert_int_equal(claw_h1_started(&r.p), rows[i].started);
        assert_int_equal(claw_h1_finish(&r.p), rows[i].code);
        if (rows[i].code == 0) assert_int_equal(r.dones, r.heads);
        assert_int_equal(claw_h1_finish(&r.p), rows[i].code);
        if (rows[i].code == 0) assert_int_equal(r.dones, r.heads);
        run_end(&r);
    }
}

static void what_callbacks_return_is_returned(void **state)
{
    static const struct claw_str ins[] = {S(POST "Content-Length: 5\r\n\r\nhello"), S(TE "5\r\nhello\r\n0\r\n\r\n")};
    for (size_t i = 0; i < 2; i++) {
        struct run r;
        size_t used;
        run_begin(&r, CLAW_H1_REQUEST, NULL, false);
        r.stop_at_head = CLAW_ECANCELED;
        assert_int_equal(claw_h1_feed(&r.p, ins[i].ptr, ins[i].len, &used), CLAW_ECANCELED);
        assert_int_equal(claw_buf_size(&r.body), 0);
        run_end(&r);
        run_begin(&r, CLAW_H1_REQUEST, NULL, false);
        r.stop_at_body = CLAW_EDENIED;
        assert_int_equal(claw_h1_feed(&r.p, ins[i].ptr, ins[i].len, &used), CLAW_EDENIED);
        assert_int_equal(r.dones, 0);
        run_end(&r);
        run_begin(&r, CLAW_H1_REQUEST, NULL, false);
        r.stop_at_done = CLAW_EPOLICY;
        assert_int_equal(claw_h1_feed(&r.p, ins[i].ptr, ins[i].len, &used), CLAW_EPOLICY);
        assert_int_equal(used, ins[i].len);
        run_end(&r);
    }
}

/* A callback frees everything: nothing may be touched after it (a memory checker tells). */
static int free_owner(struct claw_h1 *p)
{
    struct run *r = p->arg;
    run_end(r);
    free(r);
    return CLAW_ECANCELED;
}
static int free_at_head(struct claw_h1 *p, struct claw_head *h) { return free_owner(p); }
static int free_at_body(struct claw_h1 *p, const char *data, size_t n) { return free_owner(p); }
static int ok_head(struct claw_h1 *p, struct claw_head *h) { return 0; }
static int ok_body(struct claw_h1 *p, const char *data, size_t n) { return 0; }

static void callbacks_may_free_the_owner(void **state)
{
    static const struct claw_h1_events ways[] = {
        {free_at_head, ok_body, free_owner}, {ok_head, free_at_body, free_owner}, {ok_head, ok_body, free_owner}};
    static const struct claw_str ins[] = {S(POST "Content-Length: 5\r\n\r\nhello"), S(TE "5\r\nhello\r\n0\r\n\r\n"),
                                          S(TE "0\r\nX: y\r\n\r\n"), S(GET H "\r\n")};
    for (size_t way = 0; way < 3; way++) {
        for (size_t i = 0; i < 4; i++) {
            struct run *r = malloc(sizeof *r);
            size_t used = 0;
            assert_non_null(r);
            run_begin(r, CLAW_H1_REQUEST, NULL, false);
            r->p.on = &ways[way];
            assert_int_equal(claw_h1_feed(&r->p, ins[i].ptr, ins[i].len, &used), CLAW_ECANCELED);
        }
    }
}

/* ---- headers -------------------------------------------------------------------------------------------------- */

static void header_ids(void **state)
{
#define CHECK_ID(id, name)                                                                         \
    {                                                                                              \
        char other[] = name;                                                                       \
        assert_int_equal(claw_header_id_of(CLAW_STR(name)), CLAW_H_##id);                          \
        other[0] = (char)(other[0] - 32);                                                          \
        assert_int_equal(claw_header_id_of((struct claw_str){other, sizeof name - 1}), CLAW_H_##id); \
        other[sizeof name - 2] = '.';                                                              \
        assert_int_equal(claw_header_id_of((struct claw_str){other, sizeof name - 1}), CLAW_H_OTHER); \
        assert_int_equal(claw_header_id_of((struct claw_str){name, sizeof name - 2}), CLAW_H_OTHER); \
    }
    CLAW_HEADER_MAP(CHECK_ID)
    assert_int_equal(claw_header_id_of(CLAW_STR("")), CLAW_H_OTHER);
    assert_int_equal(claw_header_id_of(CLAW_STR("x")), CLAW_H_OTHER);
    assert_int_equal(claw_header_id_of(CLAW_STR("keep\ralive")), CLAW_H_OTHER);
    assert_int_equal(claw_header_id_of(CLAW_STR("x-very-long-name-of-a-header")), CLAW_H_OTHER);
}

static void finding_and_hop_by_hop(void **state)
{
    struct claw_header all[] = {
        {S("X-A"), S("1"), CLAW_H_OTHER}, {S("Connection"), S("close, x-a ,Foo"), CLAW_H_CONNECTION},
        {S("foo"), S("2"), CLAW_H_OTHER}, {S("X-a"), S("3"), CLAW_H_OTHER}, {S("TE"), S("trailers"), CLAW_H_TE},
        {S("Content-Type"), S("a"), CLAW_H_CONTENT_TYPE}, {S("Fo"), S("4"), CLAW_H_OTHER}};
    static const bool hop[] = {true, true, true, true, true, false, false};
    struct claw_head h = {.headers = all, .n = 7};
    assert_ptr_equal(claw_head_find(&h, CLAW_H_TE), &all[4]);
    assert_null(claw_head_find(&h, CLAW_H_COOKIE));
    assert_ptr_equal(claw_head_find_name(&h, CLAW_STR("x-a")), &all[0]);
    assert_null(claw_head_find_name(&h, CLAW_STR("x")));
    for (size_t i = 0; i < 7; i++) assert_int_equal(claw_head_hop(&h, &all[i]), hop[i]);
}

struct seen { struct claw_h1 p; char text[200]; size_t n, fields, hops; };

static int count_hops(struct claw_h1 *p, struct claw_head *h)
{
    struct seen *s = p->arg;
    s->fields = h->n;
    for (size_t i = 0; i < h->n; i++) s->hops += claw_head_hop(h, &h->headers[i]);
    return 0;
}

static int note_body(struct claw_h1 *p, const char *data, size_t n)
{
    struct seen *s = p->arg;
    assert_true(s->n + n + 1 < sizeof s->text);
    memcpy(s->text + s->n, data, n);
    s->n += n;
    s->text[s->n++] = '|';
    return 0;
}

static int note_done(struct claw_h1 *p) { return 0; }

static void see(struct seen *s, enum claw_h1_kind kind, struct claw_str in, int code)
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

/* What a head that was read notes about its Connection must not change the answer. */
static void hop_by_hop_in_heads_read(void **state)
{
    static const struct { struct claw_str in; size_t hops; } rows[] = {
        {S(GET H "X-A: 1\r\n\r\n"), 0},
        {S(GET H "Connection: keep-alive\r\nKeep-Alive: 5\r\nClose: x\r\nX-A: 1\r\n\r\n"), 2},
        {S(GET H "Connection: CLOSE\r\ncLose: x\r\nOther: y\r\n\r\n"), 2},
        {S(GET H "Connection: close, X-a\r\nx-A: 1\r\n\r\n"), 2},
        {S(GET H "x-a: 1\r\nConnection: x-a\r\nConnection: close\r\n\r\n"), 3},
        {S(GET H "x-a: 1\r\nConnection: close\r\nConnection: keep-alive ,x-a\r\n\r\n"), 3},
        {S(GET H "TE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n\r\n"), 4},
    };
    struct seen s;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        see(&s, CLAW_H1_REQUEST, rows[i].in, 0);
        assert_int_equal(s.hops, rows[i].hops);
    }
}

/* Heads are cut some lines at a time: around that number, with names and values of all lengths. */
static void heads_of_many_lines(void **state)
{
    for (unsigned fields = 0; fields <= 99; fields++) {
        struct claw_buf in;
        struct run whole, part;
        claw_buf_init(&in, 0);
        assert_int_equal(claw_buf_add_z(&in, GET H), 0);
        for (unsigned i = 0; i < fields; i++)
            assert_int_equal(claw_buf_add_fmt(&in, "%.*s:%s%.*s%s\r\n", 1 + (int)(i % 40),
                                              "n-123456789-123456789-123456789-123456789", i % 3 ? "\t \t" + i % 3 : "",
                                              (int)((i + fields) % 37), "v 123456789:123456789\t123456789 123456789",
                                              i % 2 ? " \t" : ""), 0);
        assert_int_equal(claw_buf_add_z(&in, "\r\n"), 0);
        run_begin(&whole, CLAW_H1_REQUEST, NULL, false);
        run_begin(&part, CLAW_H1_REQUEST, NULL, false);
        run_all(&whole, claw_buf_str(&in), claw_buf_size(&in), 1);
        run_all(&part, claw_buf_str(&in), 1, 7);
        assert_int_equal(whole.code, 0);
        assert_int_equal(whole.dones, 1);
        assert_int_equal(whole.p.head->n, fields + 1);
        assert_same(&whole, &part, claw_buf_str(&in));
        run_end(&whole);
        run_end(&part);
        claw_buf_fini(&in);
    }
}

/* Data goes up in the order of the bytes, also what is followed by framing that is refused. */
static void chunks_in_one_feed(void **state)
{
    static const struct { struct claw_str in; int code; const char *want; } rows[] = {
        {S(TE "1\r\na\r\n2\r\nbc\r\n03;x\r\ndef\r\n0\r\nT: t\r\n\r\n"), 0, "a|bc|def|"},
        {S(TE "1\r\na\r\n2\r\nb"), 0, "a|b|"},
        {S(TE "1\r\naX\n"), CLAW_EBAD_REQUEST, "a|"},
        {S(TE "1\r\na\n\n"), CLAW_EBAD_REQUEST, "a|"},
        {S(TE "1\r\na\r\nz"), CLAW_EBAD_REQUEST, "a|"},
        {S(TE "1\r\na\r\n1\nb"), CLAW_EBAD_REQUEST, "a|"},
        {S(TE "1\r\na\r\n8000000000000000\r\nb"), CLAW_EBAD_REQUEST, "a|"},
        {S(TE "1\r\na\r\n7fffffffffffffff\r\nb"), CLAW_EBODY_TOO_LARGE, "a|"},
        {S(TE "1\n"), CLAW_EBAD_REQUEST, ""},
    };
    struct seen s;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        see(&s, CLAW_H1_REQUEST, rows[i].in, rows[i].code);
        assert_string_equal(s.text, rows[i].want);
    }
}

static void what_may_be_written(void **state)
{
    char line[20];
    assert_true(claw_h1_is_token(CLAW_STR("X-Abc_09!#$%&'*+.^`|~")));
    assert_false(claw_h1_is_token(CLAW_STR("")));
    assert_false(claw_h1_is_token(CLAW_STR("a b")));
    assert_false(claw_h1_is_token(CLAW_STR("a:")));
    assert_false(claw_h1_is_token(CLAW_STR("a\0")));
    assert_false(claw_h1_is_token(CLAW_STR("\xc3")));
    assert_true(claw_h1_is_value(CLAW_STR("")));
    assert_true(claw_h1_is_value(CLAW_STR("a\tb \xff")));
    assert_false(claw_h1_is_value(CLAW_STR("a\rb")));
    assert_false(claw_h1_is_value(CLAW_STR("a\nb")));
    assert_false(claw_h1_is_value(CLAW_STR("a\0b")));
    assert_false(claw_h1_is_value(CLAW_STR("a\x7f")));
    assert_string_equal(claw_h1_reason(200), "OK");
    assert_string_equal(claw_h1_reason(429), "Too Many Requests");
    assert_string_equal(claw_h1_reason(299), "");
    assert_string_equal(claw_h1_reason(-1), "");
    assert_int_equal(claw_h1_chunk_line(line, 0), 3);
    assert_memory_equal(line, "0\r\n", 3);
    assert_int_equal(claw_h1_chunk_line(line, 0x1af0), 6);
    assert_memory_equal(line, "1af0\r\n", 6);
    assert_int_equal(claw_h1_chunk_line(line, SIZE_MAX), 2 * sizeof(size_t) + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_by_line),
        cmocka_unit_test(requests_by_field),
        cmocka_unit_test(requests_by_body),
        cmocka_unit_test(requests_by_chunk),
        cmocka_unit_test(responses_table),
        cmocka_unit_test(responses_to_head),
        cmocka_unit_test(interim_responses_are_counted),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(extensions_are_bounded_together),
        cmocka_unit_test(bodies_to_the_close_are_bounded),
        cmocka_unit_test(a_full_arena_is_an_error),
        cmocka_unit_test(pipelined_messages_come_one_by_one),
        cmocka_unit_test(finish_tells_cut_from_complete),
        cmocka_unit_test(what_callbacks_return_is_returned),
        cmocka_unit_test(callbacks_may_free_the_owner),
        cmocka_unit_test(header_ids),
        cmocka_unit_test(finding_and_hop_by_hop),
        cmocka_unit_test(hop_by_hop_in_heads_read),
        cmocka_unit_test(heads_of_many_lines),
        cmocka_unit_test(chunks_in_one_feed),
        cmocka_unit_test(what_may_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
