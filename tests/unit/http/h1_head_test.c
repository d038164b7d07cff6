/* h1_head: request lines and fields, accepted and refused; and a query's parameters, as they came. */
#include "h1_part.h"

/* ---- requests ------------------------------------------------------------------------------------------ */

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

static void requests_by_line(void **state) { CHECK_ALL(request_lines, CLAW_H1_REQUEST); }
static void requests_by_field(void **state) { CHECK_ALL(request_fields, CLAW_H1_REQUEST); }

/* ---- what a head tells --------------------------------------------------------------------------------- */

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

static void parameters(void **state)
{
    static const struct { const char *whole, *name, *value; } all[] = {
        {"a=1", "a", "1"}, {"b", "b", ""}, {"", "", ""}, {"=x", "", "x"}, {"c=d=e", "c", "d=e"}, {"k%3D=%26", "k%3D", "%26"}, {"last=", "last", ""},
    };
    struct claw_str query = CLAW_STR("a=1&b&&=x&c=d=e&k%3D=%26&last=");
    struct claw_h1_parameter one;
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        assert_true(claw_h1_next_parameter(&query, &one));
        assert_true(claw_str_eqz(one.whole, all[i].whole) && claw_str_eqz(one.name, all[i].name) && claw_str_eqz(one.value, all[i].value));
    }
    assert_false(claw_h1_next_parameter(&query, &one));
    query = CLAW_STR("&");
    assert_true(claw_h1_next_parameter(&query, &one) && one.whole.len == 0);
    assert_false(claw_h1_next_parameter(&query, &one));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters), cmocka_unit_test(requests_by_line), cmocka_unit_test(requests_by_field),
        cmocka_unit_test(hop_by_hop_in_heads_read), cmocka_unit_test(heads_of_many_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
