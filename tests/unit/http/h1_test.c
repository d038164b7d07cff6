/* h1: which messages are accepted and refused, under which limits, and that no split of the bytes changes it. */
#include "h1_part.h"

/* ---- requests ------------------------------------------------------------------------------------------ */

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

static void requests_by_body(void **state) { CHECK_ALL(request_bodies, CLAW_H1_REQUEST); }
static void requests_by_chunk(void **state) { CHECK_ALL(request_chunks, CLAW_H1_REQUEST); }

/* ---- responses ----------------------------------------------------------------------------------------- */

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

/* ---- limits -------------------------------------------------------------------------------------------- */

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

/* ---- the life of a parser ------------------------------------------------------------------------------ */

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_by_body), cmocka_unit_test(requests_by_chunk), cmocka_unit_test(responses_table),
        cmocka_unit_test(responses_to_head), cmocka_unit_test(interim_responses_are_counted),
        cmocka_unit_test(limits_are_exact), cmocka_unit_test(extensions_are_bounded_together),
        cmocka_unit_test(bodies_to_the_close_are_bounded), cmocka_unit_test(a_full_arena_is_an_error),
        cmocka_unit_test(pipelined_messages_come_one_by_one), cmocka_unit_test(finish_tells_cut_from_complete),
        cmocka_unit_test(what_callbacks_return_is_returned), cmocka_unit_test(callbacks_may_free_the_owner),
        cmocka_unit_test(chunks_in_one_feed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
