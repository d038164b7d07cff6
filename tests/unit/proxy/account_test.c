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

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
#define ALL(f) cmocka_unit_test_setup_teardown(f, open_all, scene_close)
    const struct CMUnitTest tests[] = {ALL(a_request_that_failed_over), ALL(failures_have_their_kind), ALL(facts_are_settled), ALL(requests_without_an_upstream)};
    return cmocka_run_group_tests_name("proxy/account", tests, group_open, group_close);
}
