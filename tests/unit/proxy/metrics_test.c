/* metrics: what is counted is what the scrape says, in a form that Prometheus reads. */
#include "proxy/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_metrics_shard *shard;
static char *text;

static int fresh(void **state)
{
    claw_metrics_reset();
    shard = claw_metrics_shard_new();
    return shard ? 0 : -1;
}

static int forget(void **state)
{
    free(text);
    text = NULL;
    claw_metrics_reset();
    return 0;
}

static const char *scrape(void)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_metrics_write(&b), 0);
    free(text);
    text = strndup(b.data, b.len);
    claw_buf_fini(&b);
    return text;
}

/* How often does this line stand there? */
static int lines(const char *line)
{
    int n = 0;
    size_t len = strlen(line);
    for (const char *at = scrape(); at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        n += strncmp(at, line, len) == 0 && at[len] == '\n';
    return n;
}

#define ADD(m, n, ...) claw_metrics_add(shard, CLAW_METRIC_##m, n, sizeof((struct claw_str[]){__VA_ARGS__}) / sizeof(struct claw_str), \
                                        (struct claw_str[]){__VA_ARGS__})
#define L(z) CLAW_STR(z)

static void counters_add_up(void **state)
{
    ADD(REQUESTS, 1, L("r"), L("200"), L("POST"));
    ADD(REQUESTS, 2, L("r"), L("200"), L("POST"));
    ADD(REQUESTS, 1, L("r"), L("200"), L("GET"));
    ADD(REQUESTS, 1, L("r2"), L("00"), L("POST")); /* where one label ends matters */
    ADD(REQUESTS, 1, L("r"), L("200"), L("POST"));
    assert_int_equal(lines("openclaw_requests_total{route_id=\"r\",status=\"200\",method=\"POST\"} 4"), 1);
    assert_int_equal(lines("openclaw_requests_total{route_id=\"r\",status=\"200\",method=\"GET\"} 1"), 1);
    assert_int_equal(lines("openclaw_requests_total{route_id=\"r2\",status=\"00\",method=\"POST\"} 1"), 1);
    ADD(POLICY_ERRORS, 1, L("p"));
    assert_int_equal(lines("openclaw_policy_errors_total{policy=\"p\",hook=\"\"} 1"), 1);
}

static void gauges_go_both_ways(void **state)
{
    claw_metrics_add(shard, CLAW_METRIC_IN_FLIGHT, 3, 0, NULL);
    claw_metrics_add(shard, CLAW_METRIC_IN_FLIGHT, -2, 0, NULL);
    assert_int_equal(lines("openclaw_requests_in_flight 1"), 1);
    claw_metrics_set(shard, CLAW_METRIC_GENERATION, 7, 0, NULL);
    claw_metrics_set(shard, CLAW_METRIC_GENERATION, 8, 0, NULL);
    assert_int_equal(lines("openclaw_generation 8"), 1);
    claw_metrics_set(shard, CLAW_METRIC_CONNECTIONS, -5, 0, NULL);
    assert_int_equal(lines("openclaw_client_connections -5"), 1);
}

static void money_is_shown_in_dollars(void **state)
{
    ADD(COST, 1234567, L("u"), L("m"));
    ADD(COST, 1, L("u"), L("m"));
    assert_int_equal(lines("openclaw_estimated_cost_usd_total{upstream_name=\"u\",model_name=\"m\"} 1.234568"), 1);
}

static void histograms_are_cumulative(void **state)
{
    static const uint64_t us[] = {1, 50, 51, 1000000, 300000000, 300000001, UINT32_MAX};
    const struct claw_str u = CLAW_STR("u");
    for (size_t i = 0; i < sizeof us / sizeof *us; i++) claw_metrics_observe(shard, CLAW_METRIC_TTFB_SECONDS, us[i], 1, &u);
#define H "openclaw_time_to_first_byte_seconds"
    assert_int_equal(lines(H "_bucket{upstream_name=\"u\",le=\"5e-05\"} 2"), 1); /* the bound itself is inside */
    assert_int_equal(lines(H "_bucket{upstream_name=\"u\",le=\"0.0001\"} 3"), 1);
    assert_int_equal(lines(H "_bucket{upstream_name=\"u\",le=\"1\"} 4"), 1);
    assert_int_equal(lines(H "_bucket{upstream_name=\"u\",le=\"300\"} 5"), 1);
    assert_int_equal(lines(H "_bucket{upstream_name=\"u\",le=\"+Inf\"} 7"), 1);
    assert_int_equal(lines(H "_count{upstream_name=\"u\"} 7"), 1);
    assert_int_equal(lines(H "_sum{upstream_name=\"u\"} 4895.967398"), 1);
    claw_metrics_observe(shard, CLAW_METRIC_OVERHEAD_SECONDS, 7, 0, NULL);
    assert_int_equal(lines("openclaw_overhead_seconds_bucket{le=\"5e-05\"} 1"), 1);
    assert_int_equal(lines("openclaw_overhead_seconds_sum 0.000007"), 1);
}

static void labels_are_escaped(void **state)
{
    ADD(CLIENT_GONE, 1, L("a\"b\\c\nd"));
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"a\\\"b\\\\c\\nd\"} 1"), 1);
}

static void labels_are_utf8(void **state)
{
    ADD(CLIENT_GONE, 1, L("caf\xc3\xa9"));
    ADD(CLIENT_GONE, 1, L("m\xff"));
    ADD(CLIENT_GONE, 1, L("m\xfe"));
    ADD(CLIENT_GONE, 1, L("\xe2\x82"));
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"caf\xc3\xa9\"} 1"), 1);
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"m?\"} 2"), 1);
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"\?\?\"} 1"), 1);
}

static void long_labels_are_cut(void **state)
{
    char name[300], line[300];
    memset(name, 'x', sizeof name);
    claw_metrics_add(shard, CLAW_METRIC_CLIENT_GONE, 1, 1, &(struct claw_str){name, 129});
    claw_metrics_add(shard, CLAW_METRIC_CLIENT_GONE, 1, 1, &(struct claw_str){name, 300});
    claw_metrics_add(shard, CLAW_METRIC_CLIENT_GONE, 1, 1, &(struct claw_str){name, 128});
    snprintf(line, sizeof line, "openclaw_client_gone_total{route_id=\"%.128s\"} 3", name);
    assert_int_equal(lines(line), 1);
}

static void series_are_bounded(void **state)
{
    char name[32];
    struct claw_metrics_shard *other = claw_metrics_shard_new();
    claw_metrics_bound(2000);
    for (int i = 0; i < 2050; i++) {
        int n = snprintf(name, sizeof name, "r%d", i);
        claw_metrics_add(shard, CLAW_METRIC_CLIENT_GONE, 1, 1, &(struct claw_str){name, (size_t)n});
    }
    ADD(TOKENS, 5, L("u"), L("m"), L("input"));
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"other\"} 50"), 1);
    assert_int_equal(lines("openclaw_tokens_total{upstream_name=\"other\",model_name=\"other\",class=\"other\"} 5"), 1);
    assert_int_equal(lines("openclaw_metrics_overflow_total 51"), 1);
    ADD(CLIENT_GONE, 1, L("r7")); /* what was known goes on, in other threads too */
    claw_metrics_add(other, CLAW_METRIC_CLIENT_GONE, 1, 1, &L("r8"));
    claw_metrics_add(other, CLAW_METRIC_CLIENT_GONE, 1, 1, &L("unknown"));
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"r7\"} 2"), 1);
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"r8\"} 2"), 1);
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"other\"} 51"), 1);
    assert_int_equal(claw_metrics_count(), 2000);
    claw_metrics_bound(2001);
    ADD(CLIENT_GONE, 1, L("one more"));
    assert_int_equal(lines("openclaw_client_gone_total{route_id=\"one more\"} 1"), 1);
}

/* Who makes up names of models leaves room for all else. */
static void models_take_half(void **state)
{
    char name[32];
    claw_metrics_bound(100);
    for (int i = 0; i < 200; i++) {
        int n = snprintf(name, sizeof name, "m%d", i);
        ADD(TOKENS, 1, L("u"), {name, (size_t)n}, L("input"));
    }
    assert_int_equal(claw_metrics_count(), 50);
    assert_int_equal(lines("openclaw_tokens_total{upstream_name=\"other\",model_name=\"other\",class=\"other\"} 150"), 1);
    ADD(REQUESTS, 1, L("r"), L("200"), L("POST"));
    assert_int_equal(lines("openclaw_requests_total{route_id=\"r\",status=\"200\",method=\"POST\"} 1"), 1);
}

static void *count(void *arg)
{
    const struct claw_str labels[] = {CLAW_STR("r"), CLAW_STR("200"), CLAW_STR("POST")};
    for (int i = 0; i < 10000; i++) {
        claw_metrics_add(arg, CLAW_METRIC_REQUESTS, 1, 3, labels);
        claw_metrics_observe(arg, CLAW_METRIC_UPSTREAM_SECONDS, 10, 1, labels);
    }
    return NULL;
}

static void shards_add_up(void **state)
{
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        struct claw_metrics_shard *own = claw_metrics_shard_new();
        assert_non_null(own);
        assert_int_equal(pthread_create(&t[i], NULL, count, own), 0);
    }
    for (int i = 0; i < 5; i++) scrape(); /* while they count */
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(lines("openclaw_requests_total{route_id=\"r\",status=\"200\",method=\"POST\"} 40000"), 1);
    assert_int_equal(lines("openclaw_upstream_duration_seconds_bucket{upstream_name=\"r\",le=\"5e-05\"} 40000"), 1);
    claw_metrics_add(NULL, CLAW_METRIC_REQUESTS, 1, 0, NULL); /* a thread that got no shard counts nothing */
}

/* Each family once, with its HELP and TYPE in front of its samples; no sample twice. */
static void the_text_is_in_order(void **state)
{
    ADD(REQUESTS, 1, L("r"), L("200"), L("POST"));
    ADD(UPSTREAM_REQUESTS, 1, L("u"), L("200"));
    claw_metrics_observe(shard, CLAW_METRIC_OVERHEAD_SECONDS, 7, 0, NULL);
    char family[128] = "", *copy = strdup(scrape()), *rest = copy, *line;
    int helps = 0, types = 0, samples = 0;
    assert_int_equal(copy[strlen(copy) - 1], '\n');
    while ((line = strsep(&rest, "\n")) && *line) {
        bool type = strncmp(line, "# TYPE ", 7) == 0;
        if (sscanf(line, "# HELP %127s", family) == 1) {
            helps++;
            continue;
        }
        assert_int_equal(strncmp(line + (type ? 7 : 0), family, strlen(family)), 0);
        types += type;
        samples += !type;
    }
    assert_int_equal(helps, CLAW_METRIC_COUNT);
    assert_int_equal(types, CLAW_METRIC_COUNT);
    assert_true(samples > 3);
    free(copy);
}

static void some_as_json(void **state)
{
    static const enum claw_metric which[] = {CLAW_METRIC_COST, CLAW_METRIC_TTFB_SECONDS, CLAW_METRIC_CONNECTIONS};
    struct claw_metrics_shard *a = claw_metrics_shard_new(), *b = claw_metrics_shard_new();
    struct claw_str sold[2] = {CLAW_STR("u\"1"), CLAW_STR("m")};
    struct claw_buf out;
    claw_metrics_add(a, CLAW_METRIC_COST, 1500000, 2, sold);
    claw_metrics_add(b, CLAW_METRIC_COST, 1, 2, sold);
    claw_metrics_observe(a, CLAW_METRIC_TTFB_SECONDS, 60, 1, sold);
    claw_metrics_observe(b, CLAW_METRIC_TTFB_SECONDS, 400000000, 1, sold);
    claw_buf_init(&out, 0);
    assert_int_equal(claw_metrics_write_json(which, 3, &out), 0);
    assert_int_equal(claw_buf_add(&out, "", 1), 0);
    const char *s = claw_buf_str(&out).ptr;
    assert_true(strncmp(s, "\"bounds\":[5e-05,0.0001,", 23) == 0);
    assert_non_null(strstr(s, "\"openclaw_estimated_cost_usd_total\":[{\"upstream_name\":\"u\\\"1\",\"model_name\":\"m\",\"value\":1.500001}]"));
    assert_non_null(strstr(s, "{\"upstream_name\":\"u\\\"1\",\"sum\":400.00006,\"buckets\":[0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1]}"));
    assert_non_null(strstr(s, "\"openclaw_client_connections\":[]"));
    claw_buf_fini(&out);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, forget)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(counters_add_up),  TEST(gauges_go_both_ways), TEST(money_is_shown_in_dollars), TEST(histograms_are_cumulative),
        TEST(labels_are_escaped), TEST(labels_are_utf8), TEST(long_labels_are_cut), TEST(series_are_bounded),       TEST(models_take_half),
        TEST(shards_add_up),
        TEST(the_text_is_in_order), TEST(some_as_json),
    };
    return cmocka_run_group_tests_name("proxy/metrics", tests, NULL, NULL);
}
