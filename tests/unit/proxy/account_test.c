/* account: what the metrics say about requests that went well, failed over, failed and were left. */
#include "scene.h"

static int open_all(void **state)
{
    claw_metrics_reset();
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    return 0;
}

static void assert_metrics(const char *const *lines, size_t n)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_metrics_write(&b), 0);
    assert_int_equal(claw_buf_add(&b, "", 1), 0);
    for (size_t i = 0; i < n; i++)
        if (!strstr(b.data + b.off, lines[i])) fail_msg("\"%s\" is not in:\n%s", lines[i], b.data + b.off);
    claw_buf_fini(&b);
}
#define METRICS(...) \
    do { \
        static const char *const lines[] = {__VA_ARGS__}; \
        assert_metrics(lines, sizeof lines / sizeof *lines); \
    } while (0)

static void a_request_that_failed_over(void **state)
{
    struct peer c;
    fake.cost = 2500000;
    ask(&c);
    answer(asked(0), "503 Busy", "", "");
    answer(asked(1), "200 OK", JSON, "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"cached_tokens\":2}}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    METRICS("openclaw_requests_total{route_id=\"r1\",status=\"200\",method=\"POST\"} 1\n",
            "openclaw_upstream_requests_total{upstream_name=\"u0\",status=\"503\"} 1\n",
            "openclaw_upstream_requests_total{upstream_name=\"u1\",status=\"200\"} 1\n",
            "openclaw_retries_total{upstream_name=\"u0\",kind=\"http_503\"} 1\n",
            "openclaw_estimated_cost_usd_total{upstream_name=\"u1\",model_name=\"m\"} 2.5\n",
            "openclaw_tokens_total{upstream_name=\"u1\",model_name=\"m\",class=\"input\"} 3\n",
            "openclaw_tokens_total{upstream_name=\"u1\",model_name=\"m\",class=\"cached_input\"} 2\n",
            "openclaw_tokens_total{upstream_name=\"u1\",model_name=\"m\",class=\"output\"} 4\n",
            "openclaw_request_duration_seconds_count{route_id=\"r1\",upstream_name=\"u1\"} 1\n",
            "openclaw_upstream_duration_seconds_count{upstream_name=\"u0\"} 1\n",
            "openclaw_requests_in_flight 0\n");
    peer_fini(&c, &loop);
}

static void failures_have_their_kind(void **state)
{
    struct peer c;
    ask(&c);
    reset(asked(0));
    struct peer *u = asked(1);
    METRICS("openclaw_requests_in_flight 1\n", "openclaw_upstream_requests_total{upstream_name=\"u0\",status=\"eof\"} 1\n");
    claw_stream_close(&c.stream);
    finish_request(1);
    UNTIL(&loop, u->ended);
    METRICS("openclaw_requests_total{route_id=\"r1\",status=\"499\",method=\"POST\"} 1\n",
            "openclaw_upstream_requests_total{upstream_name=\"u1\",status=\"client_gone\"} 1\n",
            "openclaw_client_gone_total{route_id=\"r1\"} 1\n", "openclaw_requests_in_flight 0\n");
    peer_fini(&c, &loop);
}

static void facts_are_settled(void **state)
{
    struct claw_upstream_stats *s = generation->upstreams[0].stats;
    struct claw_upstream_facts before, now;
    struct peer c;
    fake.model = CLAW_STR("facts-model");
    claw_upstream_stats_get(s, fake.model, 0, &before);
    ask(&c);
    struct peer *u = asked(0);
    claw_upstream_stats_get(s, fake.model, 0, &now);
    assert_int_equal(now.outstanding, before.outstanding + 1);
    answer(u, "200 OK", JSON, "{\"usage\":{\"completion_tokens\":40}}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    claw_upstream_stats_get(s, fake.model, 0, &now);
    assert_int_equal(now.outstanding, before.outstanding);
    assert_true(now.ewma_ttfb_ms >= 0);
    assert_true(now.mean_output == 40);
    peer_fini(&c, &loop);
}

static void requests_without_an_upstream(void **state)
{
    struct peer c;
    fake.candidates = 0;
    ask(&c);
    UNTIL(&loop, whole(&c));
    finish_request(1);
    METRICS("openclaw_requests_total{route_id=\"r1\",status=\"503\",method=\"POST\"} 1\n",
            "openclaw_request_duration_seconds_count{route_id=\"r1\",upstream_name=\"\"} 1\n");
    peer_fini(&c, &loop);
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "nonsense\r\n\r\n");
    UNTIL(&loop, whole(&c));
    finish_request(2);
    METRICS("openclaw_requests_total{route_id=\"\",status=\"400\"");
    peer_fini(&c, &loop);
}

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello there\"}]"
#define SAYS(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"

static void ask_for(struct peer *c, const char *body)
{
    peer_dial(c, &loop, claw_server_port(&server));
    post(c, body);
}

static void assert_usage(int64_t input, int64_t output, unsigned estimated)
{
    assert_int_equal(fake.usage.input, input);
    assert_int_equal(fake.usage.output, output);
    assert_int_equal(fake.estimated, estimated);
}

static void a_stream_that_tells_no_usage(void **state)
{
    struct peer c;
    ask_for(&c, "{\"model\":\"m\",\"stream\":true," HELLO "}");
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
    chunk(u, SAYS("one two "));
    chunk(u, SAYS("three") "data: [DONE]\n\n");
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    assert_usage(9, 3, CLAW_USAGE_INPUT | CLAW_USAGE_OUTPUT);
    METRICS("openclaw_usage_estimated_total{upstream_name=\"u0\",model_name=\"m\"} 1\n",
            "openclaw_tokens_total{upstream_name=\"u0\",model_name=\"m\",class=\"input\"} 9\n",
            "openclaw_tokens_total{upstream_name=\"u0\",model_name=\"m\",class=\"output\"} 3\n");
    peer_fini(&c, &loop);
}

/* A small body is kept until then, a large one too while there are not many of them; else a sample of it. */
static void a_stream_its_client_left(void **state)
{
    static const struct { int pad; size_t others; } rows[] = {{1, CLAW_REQ_KEPT_BYTES}, {20000, 0}, {20000, CLAW_REQ_KEPT_BYTES}};
    for (unsigned i = 0; i < 3; i++) {
        struct peer c;
        char body[32768];
        int n = snprintf(body, sizeof body, "{\"model\":\"m\",\"stream\":true,\"user\":\"%*s\"," HELLO "}", rows[i].pad, "");
        assert_in_range(n, 1, sizeof body - 1);
        ctx.kept_bytes = rows[i].others;
        ask_for(&c, body);
        struct peer *u = asked(0);
        peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
        chunk(u, SAYS("one two three four"));
        UNTIL(&loop, peer_has(&c, "four"));
        assert_int_equal(ctx.kept_bytes, i == 1 ? (size_t)n : rows[i].others);
        claw_stream_close(&c.stream);
        finish_request(i + 1);
        assert_usage(9, 4, CLAW_USAGE_INPUT | CLAW_USAGE_OUTPUT);
        assert_int_equal(ctx.kept_bytes, rows[i].others);
        UNTIL(&loop, u->ended);
        peer_fini(&c, &loop);
    }
}

/* Anthropic begins with the input and one token of output, and says the rest at the end, which a client does not wait for. */
static void what_came_since_usage_was_told_is_added(void **state)
{
    for (unsigned told = 0; told < 2; told++) {
        struct peer c;
        ask_for(&c, "{\"model\":\"m\",\"stream\":true," HELLO "}");
        struct peer *u = asked(0);
        peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
        chunk(u, "data: {\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}\n\n");
        chunk(u, SAYS("one two three"));
        if (told) chunk(u, "data: {\"delta\":{},\"usage\":{\"output_tokens\":5}}\n\ndata: {\"type\":\"message_stop\"}\n\n");
        UNTIL(&loop, peer_has(&c, told ? "message_stop" : "three"));
        claw_stream_close(&c.stream);
        finish_request(told + 1);
        assert_usage(10, told ? 5 : 4, told ? 0 : CLAW_USAGE_OUTPUT);
        UNTIL(&loop, u->ended);
        peer_fini(&c, &loop);
    }
}

static void a_stream_that_broke(void **state)
{
    struct peer c;
    ask_for(&c, "{\"model\":\"m\",\"stream\":true," HELLO "}");
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
    chunk(u, SAYS("one two"));
    UNTIL(&loop, peer_has(&c, "two"));
    reset(u);
    finish_request(1);
    assert_usage(9, 2, CLAW_USAGE_INPUT | CLAW_USAGE_OUTPUT);
    peer_fini(&c, &loop);
}

static void a_client_that_left_a_thinking_upstream(void **state)
{
    struct peer c;
    ask_for(&c, "{\"model\":\"m\"," HELLO "}");
    struct peer *u = asked(0);
    claw_stream_close(&c.stream);
    finish_request(1);
    assert_usage(9, 0, CLAW_USAGE_INPUT | CLAW_USAGE_OUTPUT);
    UNTIL(&loop, u->ended);
    peer_fini(&c, &loop);
}

static void what_costs_nothing_is_not_estimated(void **state)
{
    struct peer c;
    ask_for(&c, "{\"model\":\"m\"," HELLO "}");
    struct peer *u = asked(0);
    answer(u, "400 Bad", JSON, "{\"error\":{\"message\":\"no, not at all\"}}");
    finish_request(1);
    assert_usage(-1, -1, 0);
    claw_buf_clear(&c.in);
    claw_buf_clear(&u->in);
    post(&c, "{\"model\":\"m\"," HELLO "}");
    UNTIL(&loop, whole(u));
    answer(u, "200 OK", JSON, "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}");
    finish_request(2);
    assert_usage(3, 4, 0);
    peer_fini(&c, &loop);
}

static void vectors_have_no_output(void **state)
{
    static const char *const answers[] = {"{\"data\":[{\"embedding\":[0.5]}]}", "{\"data\":[],\"usage\":{\"prompt_tokens\":2,\"total_tokens\":2}}"};
    struct peer *u = NULL;
    for (unsigned i = 0; i < 2; i++) {
        struct peer c;
        if (u) claw_buf_clear(&u->in);
        peer_dial(&c, &loop, claw_server_port(&server));
        peer_say(&c, "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 35\r\n\r\n"
                     "{\"model\":\"e\",\"input\":\"hello there\"}");
        if (!u) u = asked(0);
        UNTIL(&loop, whole(u));
        answer(u, "200 OK", JSON, answers[i]);
        finish_request(i + 1);
        assert_usage(i ? 2 : 5, -1, i ? 0 : CLAW_USAGE_INPUT);
        peer_fini(&c, &loop);
    }
}

/* Of a plain answer too long to be held the tail is looked at. */
static void a_long_answer_is_taken_to_be_like_its_tail(void **state)
{
    struct peer c;
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_z(&b, "{\"choices\":["), 0);
    for (unsigned i = 0; i < 4000; i++) assert_int_equal(claw_buf_add_z(&b, "{\"message\":{\"content\":\"one two three\"}},"), 0);
    assert_int_equal(claw_buf_add_z(&b, "{}]}"), 0);
    assert_int_equal(claw_buf_add(&b, "", 1), 0);
    ask_for(&c, "{\"model\":\"m\"," HELLO "}");
    answer(asked(0), "200 OK", JSON, claw_buf_str(&b).ptr);
    finish_request(1);
    assert_int_equal(fake.estimated, CLAW_USAGE_INPUT | CLAW_USAGE_OUTPUT);
    assert_in_range(fake.usage.output, 12000 * 90 / 100, 12000 * 110 / 100);
    claw_buf_fini(&b);
    peer_fini(&c, &loop);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
#define ALL(f) cmocka_unit_test_setup_teardown(f, open_all, scene_close)
    const struct CMUnitTest tests[] = {ALL(a_request_that_failed_over), ALL(failures_have_their_kind), ALL(facts_are_settled), ALL(requests_without_an_upstream), ALL(a_stream_that_tells_no_usage),
        ALL(a_stream_its_client_left), ALL(what_came_since_usage_was_told_is_added), ALL(a_stream_that_broke), ALL(a_client_that_left_a_thinking_upstream), ALL(what_costs_nothing_is_not_estimated),
        ALL(vectors_have_no_output), ALL(a_long_answer_is_taken_to_be_like_its_tail)};
    return cmocka_run_group_tests_name("proxy/account", tests, group_open, group_close);
}
