/* hedge: two exchanges of one request, whose every byte the test says: exactly one answers, and both end. */
#include "scene.h"

#include "proxy/hedge.h"

static int open_hedged(void **state)
{
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    fake.hedging = (struct claw_conf_hedge){.after_ms = 2, .budget = 1};
    return 0;
}

#define HEDGED(f) cmocka_unit_test_setup_teardown(f, open_hedged, scene_close)

static double hedges(const char *outcome)
{
    struct claw_buf b;
    char line[96];
    double n = 0;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_metrics_write(&b), 0);
    snprintf(line, sizeof line, "openclaw_hedges_total{route_id=\"r1\",outcome=\"%s\"} ", outcome);
    struct claw_str s = claw_buf_str(&b);
    ptrdiff_t at = claw_str_find(s, claw_str_of(line));
    if (at >= 0) n = strtod(s.ptr + at + strlen(line), NULL);
    claw_buf_fini(&b);
    return n;
}

static void assert_attempts(const char *expected)
{
    char *line = scene_log();
    if (!strstr(line, expected)) fail_msg("%s is not in %s", expected, line);
    free(line);
}

static void begin_stream(struct peer *p)
{
    peer_say(p, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
    chunk(p, ": wait\n\n");
}

/* The first's bytes leave before it hears that the other one won. */
static void the_second_wins(void **state)
{
    struct peer c;
    double before = hedges("won");
    ask(&c);
    struct peer *first = asked(0), *second = asked(1);
    assert_true(peer_ends(second, CHAT_BODY));
    answer(second, "200 OK", JSON, "{\"n\":2}");
    UNTIL(&loop, whole(&c));
    assert_body(&c, "{\"n\":2}");
    assert_has(&c, "x-openclaw-upstream: u1\r\n");
    assert_has(&c, "x-openclaw-attempts: 2\r\n");
    UNTIL(&loop, first->ended);
    finish_request(1);
    assert_int_equal(fake.attempts, 2);
    assert_int_equal(claw_pool_idle(ctx.pool), 1);
    assert_true(hedges("won") == before + 1);
    peer_fini(&c, &loop);
}

static void the_first_wins_with_its_first_event(void **state)
{
    struct peer c;
    double before = hedges("lost");
    ask(&c);
    struct peer *first = asked(0), *second = asked(1);
    begin_stream(first);
    begin_stream(second);
    for (int i = 0; i < 20; i++) claw_loop_turn(&loop, false);
    assert_int_equal(claw_buf_size(&c.in), 0);
    chunk(first, "da");
    for (int i = 0; i < 20; i++) claw_loop_turn(&loop, false);
    assert_int_equal(claw_buf_size(&c.in), 0); /* half an event says nothing */
    chunk(first, "ta: 1\n\n");
    UNTIL(&loop, second->ended);
    peer_say(first, "0\r\n\r\n");
    bool ended = false;
    while (!ended) {
        claw_loop_turn(&loop, true);
        free(body_of(&c, &ended));
    }
    assert_body(&c, ": wait\n\ndata: 1\n\n");
    finish_request(1);
    assert_attempts("\"attempts\":[{\"upstream\":\"u0\",\"status\":200,\"ms\"");
    assert_true(hedges("lost") == before + 1);
    peer_fini(&c, &loop);
}

static void the_hedges_hook_waits_and_is_given_up(void **state)
{
    struct peer c;
    fake.mask = CLAW_MASK_REQUEST;
    fake.hedging.after_ms = 200; /* the first one's hook has run by then, on a busy machine too */
    ask(&c);
    struct peer *first = asked(0);
    fake.waits[REQUEST] = 1;
    UNTIL(&loop, fake.waiting);
    answer(first, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    assert_body(&c, "{}");
    finish_request(1);
    assert_int_equal(fake.cancels, 1);
    assert_int_equal(up[1].n, 0);
    assert_attempts("\"attempts\":[{\"upstream\":\"u0\",\"status\":200,");
    peer_fini(&c, &loop);
}

static void who_fails_leaves_the_other_alone(void **state)
{
    for (unsigned failing = 0; failing < 2; failing++) {
        for (int how = 0; how < 3; how++) {
            struct peer c, *p[2];
            ask(&c);
            p[0] = asked(0);
            p[1] = asked(1);
            if (how == 0) answer(p[failing], "503 Busy", "", "");
            else if (how == 1) reset(p[failing]);
            else begin_stream(p[failing]), chunk(p[failing], "data: {\"error\":{}}\n\n");
            for (int i = 0; i < 20; i++) claw_loop_turn(&loop, false);
            assert_int_equal(claw_buf_size(&c.in), 0);
            answer(p[!failing], "200 OK", JSON, "{\"n\":1}");
            UNTIL(&loop, whole(&c));
            assert_body(&c, "{\"n\":1}");
            finish_request(failing * 3 + (unsigned)how + 1);
            assert_int_equal(fake.calls[RETRY], 0);
            assert_int_equal(fake.attempts, 2);
            peer_fini(&c, &loop);
            for (unsigned i = 0; i < 2; i++)
                if (!p[i]->closed) reset(p[i]); /* the next round meets no kept connection */
            settle();
        }
    }
}

static void both_fail(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *first = asked(0), *second = asked(1);
    answer(second, "503 Busy", "", "two");
    UNTIL(&loop, claw_pool_idle(ctx.pool) == 1); /* it was whole: its connection is kept */
    answer(first, "500 No", "", "one");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 500 ");
    assert_body(&c, "one");
    finish_request(1);
    assert_failures("http_500"); /* one decision, with nobody left */
    peer_fini(&c, &loop);
}

static void a_final_error_ends_the_hedge(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *first = asked(0), *second = asked(1);
    answer(second, "400 Bad", "", "two"); /* the request's own exchange; the other stepped aside */
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 400 ");
    UNTIL(&loop, first->ended);
    finish_request(1);
    assert_attempts("{\"upstream\":\"u0\",\"status\":0,\"kind\":\"canceled\"");
    peer_fini(&c, &loop);
}

static void a_client_that_leaves(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *first = asked(0), *second = asked(1);
    reset(&c);
    UNTIL(&loop, first->ended && second->ended);
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ECLIENT_GONE);
    claw_buf_fini(&c.in);
}

static void a_failing_policy_ends_both(void **state)
{
    struct peer c;
    fake.mask = CLAW_MASK_REQUEST;
    ask(&c);
    struct peer *first = asked(0);
    fake.rc[REQUEST] = CLAW_EPOLICY;
    UNTIL(&loop, whole(&c));
    assert_has(&c, "\"code\":\"policy_error\"");
    UNTIL(&loop, first->ended);
    finish_request(1);
    peer_fini(&c, &loop);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        HEDGED(the_second_wins), HEDGED(the_first_wins_with_its_first_event), HEDGED(the_hedges_hook_waits_and_is_given_up),
        HEDGED(who_fails_leaves_the_other_alone), HEDGED(both_fail), HEDGED(a_final_error_ends_the_hedge), HEDGED(a_client_that_leaves),
        HEDGED(a_failing_policy_ends_both),
    };
    return cmocka_run_group_tests_name("proxy/hedge", tests, group_open, group_close);
}
