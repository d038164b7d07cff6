/* access_log: one line a request, and JSON whatever clients, models and upstreams are called. */
#include "scene.h"

#include "base/json.h"
#include "proxy/access_log.h"

static int open_all(void **state)
{
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    return 0;
}

static struct claw_arena arena;
static struct claw_json_top top;
static char *line;

/* Take the one line that was logged. */
static void take(void)
{
    struct claw_json_err err;
    line = scene_log();
    size_t n = strlen(line);
    assert_true(n > 1 && strchr(line, '\n') == line + n - 1);
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    if (claw_json_scan((struct claw_str){line, n - 1}, &arena, &top, &err) != 0) fail_msg("%s at %zu: %s", err.text, err.offset, line);
}

static void drop(void)
{
    claw_arena_reset(&arena);
    free(line);
}

static struct claw_str raw(const char *key) { return claw_json_top_get(&top, claw_str_of(key)).raw; }

static void assert_raw(const char *key, const char *expected)
{
    struct claw_str s = raw(key);
    if (!claw_str_eqz(s, expected)) fail_msg("%s is %.*s, not %s", key, CLAW_STR_FMT(s), expected);
}

static void a_request_in_full(void **state)
{
    struct peer c;
    fake.cost = 1234567;
    ask(&c);
    answer(asked(0), "503 Busy", "", "");
    answer(asked(1), "200 OK", JSON, "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"cached_tokens\":2,\"reasoning_tokens\":1}}");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "x-openclaw-cost-usd: 1.234567\r\n");
    finish_request(1);
    take();
    assert_raw("msg", "\"request\"");
    assert_raw("client", "\"127.0.0.1\"");
    assert_raw("method", "\"POST\"");
    assert_raw("path", "\"/v1/chat/completions\"");
    assert_raw("route", "\"r1\"");
    assert_raw("upstream", "\"u1\"");
    assert_raw("model", "\"m\"");
    assert_raw("sent_model", "\"m\"");
    assert_raw("status", "200");
    assert_raw("input_tokens", "3");
    assert_raw("output_tokens", "4");
    assert_raw("cached_tokens", "2");
    assert_raw("reasoning_tokens", "1");
    assert_raw("cost_usd", "1.234567");
    assert_raw("bytes_in", "27");
    assert_raw("stream", "false");
    assert_int_equal(raw("error").len, 0);
    assert_int_equal(raw("usage_estimated").len, 0);
    struct claw_str attempts = raw("attempts");
    assert_true(claw_str_starts(attempts, CLAW_STR("[{\"upstream\":\"u0\",\"status\":503,\"kind\":\"http_503\",\"ms\":")));
    assert_true(claw_str_find(attempts, CLAW_STR("},{\"upstream\":\"u1\",\"status\":200,\"ms\":")) > 0);
    drop();
    peer_fini(&c, &loop);
}

static void usage_that_was_not_told(void **state)
{
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    post(&c, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello there\"}]}");
    answer(asked(0), "200 OK", JSON, "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"one two three\"}}]}");
    finish_request(1);
    take();
    assert_raw("input_tokens", "9");
    assert_raw("output_tokens", "3");
    assert_raw("usage_estimated", "true");
    drop();
    peer_fini(&c, &loop);
}

static void hostile_names(void **state)
{
    static const char *const models[] = {
        "\\u0000\\u001f\\\"\\\\", "\\n\\r\\t\\b", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\x7f", "\\ud800", "\\\",\\\"status\\\":1,\\\"x\\\":\\\"",
    };
    struct peer c;
    fake.candidates = 1;
    peer_dial(&c, &loop, claw_server_port(&server));
    for (unsigned i = 0; i < sizeof models / sizeof *models; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"model\":\"%s\"}", models[i]);
        claw_buf_clear(&c.in);
        fake.candidates = 0;
        post(&c, body);
        UNTIL(&loop, whole(&c));
        finish_request(i + 1);
        take();
        char expected[8];
        snprintf(expected, sizeof expected, "%d", fake.status); /* nothing of the name became a member */
        assert_raw("status", expected);
        assert_int_equal(raw("x").len, 0);
        drop();
    }
    peer_fini(&c, &loop);
}

/* Bytes that no parser lets through, straight into the line. */
static void every_byte(void **state)
{
    char bytes[512];
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (char)i;
    struct claw_head head = {.method = CLAW_STR("GET"), .path = {bytes, sizeof bytes}};
    struct claw_req *r = claw_req_new(&ctx, NULL);
    r->head = &head;
    r->model = r->error_text = r->upstream_error = (struct claw_str){bytes, sizeof bytes};
    r->status = 200;
    r->error = CLAW_EPOLICY;
    r->log_fields = CLAW_STR("\"mine\":1");
    r->attempts_n = 40; /* more than are kept */
    for (unsigned i = 0; i < CLAW_ATTEMPTS_MAX; i++) r->attempts[i] = (struct claw_attempt){.kind = "timeout_first_byte", .start_us = 1, .end_us = UINT32_MAX};
    claw_access_log_write(r);
    take();
    assert_raw("mine", "1");
    assert_raw("error", "\"policy_error\"");
    drop();
    struct claw_str all = {malloc(200000), 200000};
    memset((char *)all.ptr, 1, all.len); /* each becomes six bytes */
    r->model = r->error_text = r->upstream_error = all;
    claw_access_log_write(r);
    take();
    assert_true(strlen(line) < 64 << 10);
    drop();
    free((char *)all.ptr);
    claw_req_free(r);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
#define ALL(f) cmocka_unit_test_setup_teardown(f, open_all, scene_close)
    const struct CMUnitTest tests[] = {ALL(a_request_in_full), ALL(usage_that_was_not_told), ALL(hostile_names), ALL(every_byte)};
    return cmocka_run_group_tests_name("proxy/access_log", tests, group_open, group_close);
}
