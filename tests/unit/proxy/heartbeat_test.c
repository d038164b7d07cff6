/* heartbeat: when a silent stream's client is given something, and when there is no place for it. */
#include "relay_part.h"

#define BEAT ": keep-alive\n"
#define EVERY_MS 1000u

static void beats(unsigned every_ms, bool before)
{
    struct claw_conf *conf = (struct claw_conf *)generation->conf;
    conf->server.heartbeat_ms = every_ms;
    conf->server.heartbeat_before_answer = before;
}

static struct peer *streamed(struct peer *c)
{
    peer_dial(c, &loop, claw_server_port(&server));
    post(c, "{\"model\":\"m\",\"stream\":true,\"messages\":[]}");
    return asked(0);
}

static void pass(unsigned ms)
{
    claw_loop_advance(&loop, ms);
    settle();
}

/* All that the client got of the body so far. */
static void assert_got(const struct peer *c, const char *expected)
{
    char *body = body_of(c, NULL);
    assert_string_equal(body, expected);
    free(body);
}

static void end(struct peer *c, struct peer *u)
{
    peer_say(u, "0\r\n\r\n");
    UNTIL(&loop, peer_ends(c, "\r\n0\r\n\r\n"));
    finish_request(1);
}

static void after_as_much_silence(void **state)
{
    struct peer c;
    beats(EVERY_MS, false);
    struct peer *u = streamed(&c);
    start_stream(&c, u, "data: 1\n\n");
    pass(EVERY_MS / 2);
    chunk(u, "data: 2\n\n");
    UNTIL(&loop, peer_has(&c, "data: 2"));
    pass(EVERY_MS * 3 / 4); /* since the first one more */
    assert_got(&c, "data: 1\n\ndata: 2\n\n");
    pass(EVERY_MS / 2);
    pass(EVERY_MS + 50);
    assert_got(&c, "data: 1\n\ndata: 2\n\n" BEAT BEAT);
    chunk(u, "data: 3\n\n");
    end(&c, u);
    assert_body(&c, "data: 1\n\ndata: 2\n\n" BEAT BEAT "data: 3\n\n");
    peer_fini(&c, &loop);
}

static void not_inside_an_event(void **state)
{
    static char piece[CLAW_RELAY_EVENT_BYTES + 4096];
    struct peer c;
    beats(EVERY_MS, false);
    struct peer *u = streamed(&c);
    start_stream(&c, u, "data: 1\n\n");
    chunk(u, "data: a half");
    settle();
    pass(EVERY_MS + 50); /* held back until it is whole: before it there is room */
    assert_got(&c, "data: 1\n\n" BEAT);
    memset(piece, 'x', sizeof piece - 1);
    chunk(u, piece); /* too large to be held: on its way */
    UNTIL(&loop, peer_has(&c, "a half"));
    settle();
    pass(EVERY_MS + 50);
    pass(EVERY_MS + 50);
    assert_true(peer_ends(&c, "xxxx\r\n"));
    chunk(u, "\n\n");
    settle();
    pass(EVERY_MS + 50);
    assert_true(peer_has(&c, "\n\n\r\n"));
    assert_true(peer_ends(&c, BEAT "\r\n"));
    end(&c, u);
    peer_fini(&c, &loop);
}

static void not_while_the_client_reads_nothing(void **state)
{
    static char piece[(256u << 10) + 1];
    struct peer c;
    beats(EVERY_MS, false);
    struct peer *u = streamed(&c);
    start_stream(&c, u, "data: 1\n\n");
    memset(piece, 'x', sizeof piece - 1);
    for (unsigned i = 0; i < sizeof piece - 1; i += 1024) memcpy(piece + i, "\n\ndata: ", 8);
    memcpy(piece + sizeof piece - 3, "\n\n", 2);
    claw_stream_pause(&c.stream);
    for (unsigned i = 0; i < 64; i++) chunk(u, piece);
    UNTIL(&loop, ctx.requests && ctx.requests->client && ctx.requests->client->stream.paused);
    settle();
    uint64_t before = ctx.requests->bytes_out;
    for (unsigned i = 0; i < 5; i++) pass(EVERY_MS + 50);
    assert_int_equal(ctx.requests->bytes_out, before);
    claw_stream_resume(&c.stream);
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    peer_fini(&c, &loop);
}

static void not_before_the_answer_unless_asked_for(void **state)
{
    struct peer c;
    beats(EVERY_MS, false);
    struct peer *u = streamed(&c);
    pass(EVERY_MS + 50);
    assert_int_equal(claw_buf_size(&c.in), 0);
    peer_say(u, STREAM_HEAD);
    settle();
    pass(EVERY_MS + 50); /* its head says nothing yet: another one may still answer */
    assert_int_equal(claw_buf_size(&c.in), 0);
    chunk(u, "data: 1\n\n");
    end(&c, u);
    assert_body(&c, "data: 1\n\n");
    peer_fini(&c, &loop);
}

static void before_the_answer(void **state)
{
    struct peer c;
    beats(EVERY_MS, true);
    fake.candidates = 2;
    struct peer *u = streamed(&c);
    pass(EVERY_MS + 50);
    UNTIL(&loop, peer_has(&c, BEAT));
    assert_has(&c, "HTTP/1.1 200 OK\r\n");
    assert_has(&c, "content-type: text/event-stream\r\n");
    assert_false(peer_has(&c, "x-openclaw-upstream"));
    peer_say(u, STREAM_HEAD);
    settle();
    reset(u); /* nothing of an answer was seen: the other one is asked */
    u = asked(1);
    peer_say(u, STREAM_HEAD);
    chunk(u, "data: 1\n\n");
    end(&c, u);
    assert_body(&c, BEAT "data: 1\n\n");
    assert_failures("eof");
    peer_fini(&c, &loop);
}

static void all_fail_behind_it(void **state)
{
    struct peer c;
    beats(EVERY_MS, true);
    struct peer *u = streamed(&c);
    pass(EVERY_MS + 50);
    UNTIL(&loop, peer_has(&c, BEAT));
    reset(u);
    finish_request(1);
    assert_cut(&c, BEAT ERROR_EVENT("The upstream \\\"u0\\\" failed: the upstream closed before its answer was complete (1 attempt).", "upstream_error", "eof"));
    assert_int_equal(fake.status, 200);
    assert_int_equal(fake.error, CLAW_EUPSTREAM_EOF);
}

static void an_error_answer_behind_it(void **state)
{
    struct peer c;
    beats(EVERY_MS, true);
    struct peer *u = streamed(&c);
    pass(EVERY_MS + 50);
    UNTIL(&loop, peer_has(&c, BEAT));
    answer(u, "400 Bad Request", JSON, "{\"error\":{\"message\":\"no\"}}");
    UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
    assert_body(&c, BEAT "data: {\"error\":{\"message\":\"no\"}}\n\n");
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ESTREAM_ERROR);
    peer_fini(&c, &loop);
}

static void none_for_plain_answers_or_when_off(void **state)
{
    for (unsigned off = 0; off < 2; off++) {
        struct peer c;
        struct peer *u;
        beats(off ? 0 : EVERY_MS, true);
        if (off) u = streamed(&c);
        else u = exchange(&c);
        pass(EVERY_MS + 50);
        pass(EVERY_MS + 50);
        assert_int_equal(claw_buf_size(&c.in), 0);
        answer(u, "200 OK", JSON, "{}");
        UNTIL(&loop, whole(&c));
        assert_body(&c, "{}");
        finish_request(off + 1);
        claw_buf_clear(&u->in);
        up[0].used = 0;
        peer_fini(&c, &loop);
    }
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        ALL(after_as_much_silence), ALL(not_inside_an_event), ALL(not_while_the_client_reads_nothing), ALL(not_before_the_answer_unless_asked_for),
        ALL(before_the_answer), ALL(all_fail_behind_it), ALL(an_error_answer_behind_it), ALL(none_for_plain_answers_or_when_off),
    };
    return cmocka_run_group_tests_name("proxy/heartbeat", tests, group_open, group_close);
}
