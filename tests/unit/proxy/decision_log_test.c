/* decision_log: one line a request in logging.decisions: what came, without credentials, and what was decided. */
#include "scene.h"

#include "base/json.h"
#include "proxy/decision_log.h"

#define MARK '\1' /* before such a line, while it travels with the log's own (base/log.c) */

static int open_all(void **state)
{
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    return 0;
}

static struct claw_arena arena;
static struct claw_json_top top;
static char *lines, *line;

/* Take the one line that was written; false: there is none. */
static bool take(void)
{
    struct claw_json_err err;
    lines = scene_log();
    line = strchr(lines, MARK);
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    if (!line) return false;
    line++;
    char *end = strchr(line, '\n');
    assert_true(end && !strchr(line, MARK));
    *end = 0;
    if (claw_json_scan(claw_str_of(line), &arena, &top, &err) != 0) fail_msg("%s at %zu: %s", err.text, err.offset, line);
    return true;
}

static void drop(void)
{
    claw_arena_reset(&arena);
    free(lines);
}

static void assert_raw(const char *key, const char *expected)
{
    struct claw_str s = claw_json_top_get(&top, claw_str_of(key)).raw;
    if (!claw_str_eqz(s, expected)) fail_msg("%s is %.*s, not %s\n%s", key, CLAW_STR_FMT(s), expected, line);
}

static bool there(const char *key) { return claw_json_top_get(&top, claw_str_of(key)).type != CLAW_JSON_NONE; }

/* Send a request of this head (behind its first line) and body, and have it served. */
static void serve(const char *target, const char *head, const char *body)
{
    char text[4096];
    struct peer c;
    int n = snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", target, head, strlen(body));
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_send(&c, text, (size_t)n);
    peer_say(&c, body);
    answer(asked(0), "200 OK", JSON, "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    peer_fini(&c, &loop);
}

static void what_came_and_what_was_decided(void **state)
{
    fake.cost = 1234567;
    serve("/v1/chat/completions?a=1&b=%20", "Content-Type: application/json\r\nX-Team: red \"one\"\r\n", "{\"model\":\"m\",\r\n \"messages\":[]}");
    assert_true(take());
    assert_raw("method", "\"POST\"");
    assert_raw("path", "\"/v1/chat/completions\"");
    assert_raw("query", "\"a=1&b=%20\"");
    assert_raw("ip", "\"127.0.0.1\"");
    assert_raw("body", "{\"model\":\"m\",   \"messages\":[]}"); /* one line */
    assert_raw("route", "\"r1\"");
    assert_raw("candidates", "[{\"upstream\":\"u0\",\"model\":\"m\"},{\"upstream\":\"u1\",\"model\":\"m\"}]");
    assert_raw("upstream", "\"u0\"");
    assert_raw("status", "200");
    assert_raw("usage", "{\"input\":3,\"output\":4}");
    assert_raw("cost_micros", "1234567");
    assert_true(strstr(line, "\"X-Team\":\"red \\\"one\\\"\"") && there("id") && there("time") && !there("refused"));
    drop();
}

static void credentials_are_left_out(void **state)
{
    serve("/v1/chat/completions?key=planted1&api_key=planted2&x=1&token=planted3&", "Authorization: Bearer planted4\r\nX-Api-Key: planted5\r\nCookie: planted6\r\n"
          "Proxy-Authorization: planted7\r\nX-Goog-Api-Key: planted8\r\nX-Kept: kept\r\nContent-Type: application/json\r\n", CHAT_BODY);
    assert_true(take());
    assert_null(strstr(line, "planted"));
    assert_raw("query", "\"x=1\"");
    assert_non_null(strstr(line, "\"X-Kept\":\"kept\""));
    drop();
}

static void headers_have_a_bound(void **state)
{
    char head[3000], big[2600];
    memset(big, 'h', sizeof big - 1);
    big[sizeof big - 1] = 0;
    snprintf(head, sizeof head, "X-Big: %s\r\nX-Last: kept\r\nContent-Type: application/json\r\n", big);
    serve("/v1/chat/completions", head, CHAT_BODY);
    assert_true(take());
    assert_true(strstr(line, "X-Big") && strstr(line, "X-Last"));
    drop();
}

static void a_refusal_says_why(void **state)
{
    struct peer c;
    fake.admits = true;
    fake.deny = 403;
    ask(&c);
    UNTIL(&loop, whole(&c));
    finish_request(1);
    assert_true(take());
    assert_raw("candidates", "[]");
    assert_raw("status", "403");
    assert_true(there("refused") && !there("upstream") && !there("cost_micros"));
    assert_raw("usage", "{}");
    drop();
    peer_fini(&c, &loop);
}

static void a_client_that_left_early_leaves_no_line(void **state)
{
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"model\"");
    UNTIL(&loop, ctx.requests_n == 1);
    peer_fini(&c, &loop);
    UNTIL(&loop, ctx.requests_n == 0);
    assert_false(take());
    drop();
}

static char decisions[] = "/tmp/claw-decisions-XXXXXX";

static int group_open_decisions(void **state)
{
    struct claw_log_conf conf = {.level = CLAW_LOG_INFO, .path = log_path, .decisions = decisions};
    int rc = group_open(state), fd = mkstemp(decisions);
    if (rc != 0 || fd < 0) return -1;
    close(fd);
    return claw_log_set(&conf);
}

static int group_close_decisions(void **state)
{
    int rc = group_close(state);
    return unlink(decisions) != 0 ? -1 : rc;
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
#define ALL(f) cmocka_unit_test_setup_teardown(f, open_all, scene_close)
    const struct CMUnitTest tests[] = {ALL(what_came_and_what_was_decided), ALL(credentials_are_left_out),
                                       ALL(headers_have_a_bound), ALL(a_refusal_says_why), ALL(a_client_that_left_early_leaves_no_line)};
    return cmocka_run_group_tests_name("proxy/decision_log", tests, group_open_decisions, group_close_decisions);
}
