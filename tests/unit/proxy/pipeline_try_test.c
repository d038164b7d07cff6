/* pipeline_try: an attempt that fails before the commit point, and who is asked next. */
#include "pipeline_part.h"

static int open_second(void **state)
{
    scene_open(state);
    upstream_listen(&up[1]);
    return 0;
}

static void the_second_answers(struct peer *c, const char *failures)
{
    struct peer *u = asked(1);
    assert_true(peer_ends(u, CHAT_BODY)); /* the same request */
    answer(u, "200 OK", JSON, "{\"from\":1}");
    UNTIL(&loop, whole(c));
    assert_has(c, "HTTP/1.1 200 OK\r\n");
    assert_has(c, "x-openclaw-upstream: u1\r\n");
    assert_has(c, "x-openclaw-attempts: 2\r\n");
    assert_body(c, "{\"from\":1}");
    finish_request(1);
    assert_failures(failures);
    assert_int_equal(fake.attempts, 2);
    peer_fini(c, &loop);
}

static void refused(void **state)
{
    struct peer c;
    ask(&c);
    the_second_answers(&c, "connect");
}

static void reset_at_the_head(void **state)
{
    struct peer c;
    ask(&c);
    reset(asked(0));
    the_second_answers(&c, "eof");
}

static void closed_in_the_head(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 O");
    claw_stream_shutdown(&u->stream);
    the_second_answers(&c, "eof");
}

static void half_a_small_answer(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" JSON "Content-Length: 100\r\n\r\n{\"half\":");
    settle();
    reset(u);
    the_second_answers(&c, "eof");
}

static void a_head_and_no_body(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n"); /* nothing was sent on yet */
    settle();
    reset(u);
    the_second_answers(&c, "eof");
}

static void a_stream_without_events(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
    chunk(u, ": hold on\n\n");
    chunk(u, "data: {\"half");
    settle();
    reset(u);
    the_second_answers(&c, "eof");
}

static void a_timeout(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 102 Processing\r\n\r\n"); /* does not extend it */
    settle();
    claw_loop_advance(&loop, FIRST_BYTE_MS + 20);
    UNTIL(&loop, u->ended);
    the_second_answers(&c, "timeout_first_byte");
}

static void an_error_at_a_streams_head(void **state)
{
    static const char *const events[] = {
        "event: error\ndata: {\"type\":\"error\"}\n\n", "data: {\"error\":{\"message\":\"overloaded\"}}\n\n", "data: {\"error\":\"no\"}\n\n",
        ": first a comment\n\ndata:{ \"id\":1,\ndata: \"error\":{}}\n\n",
    };
    for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
        if (i) {
            scene_close(NULL);
            scene_open(NULL);
            upstream_listen(&up[0]);
            upstream_listen(&up[1]);
        }
        struct peer c;
        ask(&c);
        struct peer *u = asked(0);
        peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
        chunk(u, events[i]);
        the_second_answers(&c, "stream_error");
        assert_true(fake.failed_body.len > 0);
    }
}

static void an_error_status(void **state)
{
    struct peer c;
    ask(&c);
    answer(asked(0), "503 Busy", JSON "Retry-After: 7\r\n", "{\"error\":\"busy\"}");
    the_second_answers(&c, "http_503");
    assert_int_equal(fake.retry_after, 7000);
    assert_int_equal(fake.failed_body.len, 16);
    assert_int_equal(claw_pool_idle(ctx.pool), 2); /* both are well */
}

static void a_huge_error_body(void **state)
{
    struct peer c;
    char *big = malloc(300001);
    memset(big, 'e', 300000);
    big[300000] = 0;
    ask(&c);
    struct peer *u = asked(0);
    answer(u, "500 Oh", "", big);
    the_second_answers(&c, "http_500");
    UNTIL(&loop, u->ended || u->end_code); /* the rest of it is not waited for */
    assert_int_equal(fake.failed_body.len, 4096);
    free(big);
}

static void garbage_is_final(void **state)
{
    struct peer c;
    ask(&c);
    peer_say(asked(0), "SSH-2.0-OpenSSH\r\n\r\n");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 Bad Gateway\r\n");
    assert_has(&c, "\"code\":\"bad_response\"");
    finish_request(1);
    assert_failures("bad_response");
    peer_fini(&c, &loop);
}

static void the_last_error_status_is_the_answer(void **state)
{
    struct peer c;
    claw_log_secret(CLAW_STR("sk-scene-0123456789"));
    ask(&c);
    answer(asked(0), "500 Oh", "", "first");
    struct peer *u = asked(1);
    answer(u, "429 Slow down", JSON "Retry-After: 3\r\n", "{\"error\":\"sk-scene-0123456789 has had enough\"}");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 429 Too Many Requests\r\n");
    assert_has(&c, "Retry-After: 3\r\n");
    assert_body(&c, "{\"error\":\"*** has had enough\"}");
    finish_request(1);
    assert_failures("http_500 http_429");
    assert_int_equal(fake.status, 429);
    assert_int_equal(fake.error, 0);
    peer_fini(&c, &loop);
}

static void a_huge_error_body_is_the_answer(void **state)
{
    struct peer c;
    char *big = malloc(300001);
    memset(big, 'e', 300000);
    memcpy(big, "sk-scene-0123456789", 19);
    big[300000] = 0;
    claw_log_secret(CLAW_STR("sk-scene-0123456789"));
    fake.candidates = 1;
    ask(&c);
    answer(asked(0), "500 Oh", "", big);
    UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
    bool ended;
    char *body = body_of(&c, &ended);
    assert_true(ended);
    assert_int_equal(strlen(body), 300000 - 16);
    assert_memory_equal(body, "***eee", 6);
    finish_request(1);
    assert_int_equal(fake.status, 500);
    free(body);
    free(big);
    peer_fini(&c, &loop);
}

static void an_error_event_is_the_answer(void **state)
{
    struct peer c;
    claw_log_secret(CLAW_STR("sk-scene-0123456789"));
    fake.candidates = 1;
    ask(&c);
    answer(asked(0), "200 OK", EVENTS, "data: {\"error\":{\"message\":\"wrong key sk-scene-0123456789\"}}\n\n");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 ");
    assert_has(&c, "\"message\":\"wrong key ***\"");
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ESTREAM_ERROR);
    peer_fini(&c, &loop);
}

static void all_refused(void **state)
{
    struct peer c;
    ask(&c);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 ");
    assert_has(&c, "The upstream \\\"u1\\\" failed: could not connect to the upstream (2 attempts).");
    finish_request(1);
    assert_failures("connect connect");
    peer_fini(&c, &loop);
}

static void tries_are_bounded(void **state)
{
    struct peer c;
    fake.always_same = true; /* a policy that never gives up */
    for (int i = 0; i < 40; i++) claw_care_earn(claw_loop_now_ms(&loop));
    ask(&c);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 ");
    finish_request(1);
    assert_int_equal(fake.attempts, 32);
    peer_fini(&c, &loop);
}

static void backoff(void **state)
{
    struct peer c;
    fake.after_ms = 1500;
    ask(&c);
    answer(asked(0), "500 Oh", "", "");
    UNTIL(&loop, fake.calls[RETRY] == 1);
    settle();
    assert_int_equal(up[1].n, 0);
    claw_loop_advance(&loop, 1400);
    settle();
    assert_int_equal(up[1].n, 0);
    claw_loop_advance(&loop, 200);
    the_second_answers(&c, "http_500");
}

static void the_deadline_ends_a_backoff(void **state)
{
    struct peer c;
    fake.after_ms = DEADLINE_MS * 2;
    ask(&c);
    answer(asked(0), "500 Oh", "", "");
    UNTIL(&loop, fake.calls[RETRY] == 1);
    settle();
    claw_loop_advance(&loop, DEADLINE_MS + 100);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 504 ");
    finish_request(1);
    claw_loop_advance(&loop, DEADLINE_MS * 2);
    settle();
    assert_int_equal(up[1].n, 0);
    peer_fini(&c, &loop);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refused, open_second, scene_close), BOTH(reset_at_the_head), BOTH(closed_in_the_head),
        BOTH(half_a_small_answer), BOTH(a_head_and_no_body), BOTH(a_stream_without_events), BOTH(a_timeout),
        BOTH(an_error_at_a_streams_head), BOTH(an_error_status), BOTH(a_huge_error_body), BOTH(garbage_is_final),
        BOTH(the_last_error_status_is_the_answer), BOTH(a_huge_error_body_is_the_answer), BOTH(an_error_event_is_the_answer),
        TEST(all_refused), TEST(tries_are_bounded), BOTH(backoff), BOTH(the_deadline_ends_a_backoff),
    };
    return cmocka_run_group_tests_name("proxy/pipeline_try", tests, group_open, group_close);
}
