/* answer: heads and envelopes hold nothing that could end a line, a field or a string. */
#include "scene.h"

#include "proxy/answer.h"

static struct claw_req *request(void)
{
    struct claw_req *r = claw_req_new(&ctx, NULL);
    r->route = 0;
    r->candidates_n = 1;
    r->model = CLAW_STR("m");
    r->attempts_n = 1;
    return r;
}

static char *head_of(struct claw_req *r, int status, const struct claw_head *from)
{
    struct claw_str s;
    assert_int_equal(claw_answer_head(r, status, from, CLAW_STR(""), &s), 0);
    return strndup(s.ptr, s.len);
}

/* Lines in CRLF, each a field, nothing else. */
static void assert_fields(const char *head)
{
    for (const char *at = strstr(head, "\r\n") + 2; *at;) {
        const char *end = strstr(at, "\r\n"), *colon = strchr(at, ':');
        assert_true(end && colon && colon < end);
        assert_true(claw_h1_is_token((struct claw_str){at, (size_t)(colon - at)}));
        assert_true(claw_h1_is_value((struct claw_str){colon + 1, (size_t)(end - colon - 1)}));
        at = end + 2;
    }
}

static void our_own_heads(void **state)
{
    struct claw_req *r = request();
    r->cost_micros = 12000345;
    char *head = head_of(r, 404, NULL), expected[256];
    assert_fields(head);
    snprintf(expected, sizeof expected, "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nx-openclaw-request-id: %s\r\n"
             "x-openclaw-route: r1\r\nx-openclaw-upstream: u0\r\nx-openclaw-model: m\r\nx-openclaw-attempts: 1\r\nx-openclaw-cache: bypass\r\n", r->id);
    assert_memory_equal(head, expected, strlen(expected));
    assert_non_null(strstr(head, "\r\nx-openclaw-cost-usd: 12.000345\r\n"));
    free(head);
    generation->conf->server.expose_headers = false;
    head = head_of(r, 599, NULL);
    assert_string_equal(head, "HTTP/1.1 599 \r\ncontent-type: application/json\r\n");
    free(head);
    claw_req_free(r);
}

static void what_stays_here(void **state)
{
    static const char *const names[][2] = {
        {"Content-Type", "a/b"}, {"Content-Length", "5"}, {"Transfer-Encoding", "chunked"}, {"Connection", "x-hop"}, {"X-Hop", "1"},
        {"Keep-Alive", "5"}, {"Trailer", "x"}, {"Upgrade", "h2c"}, {"Set-Cookie", "a=b"}, {"Proxy-Authenticate", "Basic"},
        {"X-OpenClaw-Upstream", "forged"}, {"x-ratelimit-remaining", "9"},
    };
    struct claw_header h[12];
    for (int i = 0; i < 12; i++) {
        h[i] = (struct claw_header){claw_str_of(names[i][0]), claw_str_of(names[i][1]), CLAW_H_OTHER};
        h[i].id = claw_header_id_of(h[i].name);
    }
    struct claw_head from = {.status = 200, .headers = h, .n = 12};
    struct claw_req *r = request();
    generation->conf->server.expose_headers = false;
    char *head = head_of(r, 200, &from);
    assert_string_equal(head, "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nx-ratelimit-remaining: 9\r\n");
    free(head);
    claw_req_free(r);
}

static void fields_that_policies_set(void **state)
{
    struct claw_header h[] = {{CLAW_STR("Content-Type"), CLAW_STR("a/b"), CLAW_H_CONTENT_TYPE}, {CLAW_STR("X-Theirs"), CLAW_STR("1"), CLAW_H_OTHER},
                              {CLAW_STR("X-Gone"), CLAW_STR("1"), CLAW_H_OTHER}};
    struct claw_head from = {.status = 200, .headers = h, .n = 3};
    struct claw_req *r = request();
    generation->conf->server.expose_headers = false;
    const struct { struct claw_str name, value; } set[] = {{CLAW_STR("x-mine"), CLAW_STR("a")}, {CLAW_STR("x-theirs"), CLAW_STR("2")},
                                                           {CLAW_STR("x-gone"), {NULL, 0}}, {CLAW_STR("X-Mine"), CLAW_STR("b")}};
    for (unsigned i = 0; i < 4; i++) assert_int_equal(claw_req_set_answer_header(r, set[i].name, set[i].value), 0);
    char *head = head_of(r, 200, &from);
    assert_string_equal(head, "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nX-Mine: b\r\nx-theirs: 2\r\n");
    free(head);
    assert_int_equal(claw_req_set_answer_header(r, CLAW_STR("content-type"), CLAW_STR("c/d")), 0);
    head = head_of(r, 200, NULL);
    assert_string_equal(head, "HTTP/1.1 200 OK\r\nX-Mine: b\r\nx-theirs: 2\r\ncontent-type: c/d\r\n");
    free(head);
    claw_req_free(r);
}

static void hostile_models(void **state)
{
    char all[2000];
    memset(all, 'm', sizeof all);
    for (int c = 0; c < 256; c++) {
        struct claw_req *r = request();
        char model[3] = {'a', (char)c, 'b'};
        r->model = (struct claw_str){model, 3};
        char *head = head_of(r, 200, NULL);
        assert_fields(head);
        bool shown = strstr(head, "x-openclaw-model") != NULL;
        assert_int_equal(shown, c == '\t' || (c >= ' ' && c != 127));
        free(head);
        claw_req_free(r);
    }
    struct claw_req *r = request();
    r->model = (struct claw_str){all, sizeof all};
    char *head = head_of(r, 200, NULL);
    assert_null(strstr(head, "x-openclaw-model"));
    free(head);
    claw_req_free(r);
}

static void envelopes(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    struct claw_envelope e = {.status = 400, .message = CLAW_STR("a\"\\\r\n\x01\xff\x7f"), .type = "t", .code = "c"};
    assert_int_equal(claw_envelope_write(&b, &e), 0);
    struct claw_str s = claw_buf_str(&b);
    assert_true(claw_str_starts(s, CLAW_STR("{\"error\":{\"message\":\"a\\\"\\\\\\r\\n\\u0001")));
    for (size_t i = 0; i < s.len; i++) assert_true((unsigned char)s.ptr[i] >= ' ' && s.ptr[i] != 127);
    assert_true(claw_str_find(s, CLAW_STR("\",\"type\":\"t\",\"param\":null,\"code\":\"c\"}}")) > 0);
    claw_buf_fini(&b);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {TEST(our_own_heads), TEST(what_stays_here), TEST(fields_that_policies_set), TEST(hostile_models), TEST(envelopes)};
    return cmocka_run_group_tests_name("proxy/answer", tests, group_open, group_close);
}
