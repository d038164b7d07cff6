/* pipeline_conn: clients that leave at every step, and what a connection carries from one request to the next. */
#include "pipeline_part.h"

/* ---- clients that leave -------------------------------------------------------------------------------------------------------------- */

/* The upstream's connection goes in the very turn that sees the client's end. */
static void leave(struct peer *c, struct peer *u)
{
    claw_stream_close(&c->stream);
    UNTIL(&loop, fake.released == 1);
    assert_false(fake.had_client);
    assert_int_equal(fake.error, CLAW_ECLIENT_GONE);
    if (u) UNTIL(&loop, u->ended);
    peer_fini(c, &loop);
    settle();
    assert_int_equal(fake.calls[FINISH], 1);
    assert_int_equal(up[1].n, 0);
    assert_int_equal(claw_pool_idle(ctx.pool), 0);
}

static void leaves_in_its_head(void **state)
{
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/chat/completions HTTP/1.1\r\nHo");
    UNTIL(&loop, ctx.requests_n == 1);
    leave(&c, NULL);
    char *line = scene_log();
    assert_non_null(strstr(line, "\"error\":\"client_gone\""));
    free(line);
}

static void leaves_in_its_body(void **state)
{
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    UNTIL(&loop, ctx.requests_n == 1);
    leave(&c, NULL);
}

static void leaves_while_connecting(void **state)
{
    struct peer c;
    ask(&c);
    UNTIL(&loop, ctx.requests && ctx.requests->step == CLAW_STEP_UPSTREAM);
    leave(&c, NULL);
}

static void leaves_before_the_head(void **state)
{
    struct peer c;
    ask(&c);
    leave(&c, asked(0));
}

static void leaves_in_a_held_answer(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" JSON "Content-Length: 100\r\n\r\n{\"half\":");
    settle();
    leave(&c, u);
}

static void leaves_in_an_error(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\noh");
    settle();
    leave(&c, u);
}

static void leaves_in_a_stream(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
    chunk(u, "data: 1\n\n");
    UNTIL(&loop, peer_has(&c, "data: 1"));
    leave(&c, u);
}

static void leaves_in_a_backoff(void **state)
{
    struct peer c;
    fake.after_ms = 1500;
    ask(&c);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    UNTIL(&loop, fake.calls[RETRY] == 1);
    leave(&c, u);
    claw_loop_advance(&loop, 5000);
    settle();
}

/* ---- connections -------------------------------------------------------------------------------------------------------------------------- */

static void requests_in_a_row(void **state)
{
    struct peer c;
    fake.candidates = 1;
    peer_dial(&c, &loop, claw_server_port(&server));
    for (int i = 0; i < 3; i++) post(&c, CHAT_BODY); /* pipelined */
    struct peer *u = asked(0);
    for (int i = 0; i < 3; i++) {
        UNTIL(&loop, whole(u));
        settle();
        assert_int_equal(ctx.requests_n, 1); /* one at a time, in order */
        claw_buf_clear(&u->in);
        char body[32];
        snprintf(body, sizeof body, "{\"n\":%d}", i);
        claw_buf_clear(&c.in);
        answer(u, "200 OK", JSON, body);
        UNTIL(&loop, whole(&c));
        assert_body(&c, body);
    }
    finish_request(3);
    assert_int_equal(up[0].n, 1); /* one kept connection */
    peer_fini(&c, &loop);
}

static void continues(void **state)
{
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 27\r\n\r\n");
    UNTIL(&loop, peer_has(&c, "HTTP/1.1 100 Continue\r\n\r\n"));
    claw_buf_clear(&c.in);
    peer_say(&c, "{\"model\":\"m\",\"messages\":[]}");
    struct peer *u = asked(0);
    assert_false(peer_has(u, "100-continue"));
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    peer_fini(&c, &loop);
}

static void bodies_too_large(void **state)
{
    struct peer c;
    char *big = malloc((2 << 20) + 1);
    memset(big, ' ', 2 << 20);
    big[2 << 20] = 0;
    peer_dial(&c, &loop, claw_server_port(&server));
    post(&c, big);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 413 ");
    finish_request(1);
    peer_fini(&c, &loop);
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n");
    peer_send(&c, big, 2 << 20);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 413 ");
    finish_request(2);
    peer_fini(&c, &loop);
    free(big);
}

static void large_bodies_are_read_into_place(void **state)
{
    struct peer c;
    size_t n = 1000000;
    char *big = malloc(n + 1);
    memset(big, 'x', n);
    memcpy(big, "{\"model\":\"m\",\"messages\":\"", 25);
    memcpy(big + n - 2, "\"}", 3);
    peer_dial(&c, &loop, claw_server_port(&server));
    post(&c, big);
    struct peer *u = asked(0);
    struct claw_str got = claw_buf_str(&u->in);
    assert_memory_equal(got.ptr + got.len - n, big, n);
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    free(big);
    peer_fini(&c, &loop);
}

static void a_stale_connection_is_replaced_once(void **state)
{
    struct peer c;
    fake.candidates = 1;
    ask(&c);
    struct peer *u = asked(0);
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    claw_buf_clear(&c.in);
    claw_buf_clear(&u->in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, whole(u));
    reset(u); /* just as it was used */
    u = asked(0);
    assert_true(peer_ends(u, CHAT_BODY));
    reset(u); /* a fresh one: that is a failure */
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 ");
    assert_has(&c, "x-openclaw-attempts: 1\r\n");
    finish_request(2);
    assert_failures("eof");
    peer_fini(&c, &loop);
}

static void a_kept_connection_that_answered_is_not_replaced(void **state)
{
    struct peer c;
    fake.candidates = 1;
    ask(&c);
    struct peer *u = asked(0);
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    claw_buf_clear(&c.in);
    claw_buf_clear(&u->in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, whole(u));
    peer_say(u, "H"); /* it has read the request */
    settle();
    reset(u);
    UNTIL(&loop, whole(&c));
    assert_failures("eof");
    finish_request(2);
    peer_fini(&c, &loop);
}

static unsigned idles;
static void on_idle(struct claw_worker_ctx *x) { idles++; }

static void draining(void **state)
{
    struct peer c, idle;
    idles = 0;
    peer_dial(&idle, &loop, claw_server_port(&server));
    ask(&c);
    struct peer *u = asked(0);
    ctx.draining = true;
    ctx.on_idle = on_idle;
    claw_server_drain(&server, on_server_empty);
    UNTIL(&loop, idle.ended); /* nothing was asked there */
    answer(u, "500 Oh", "", ""); /* what is in flight still finds its way */
    u = asked(1);
    assert_int_equal(idles, 0);
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, c.ended);
    assert_has(&c, "HTTP/1.1 200 OK\r\n");
    assert_has(&c, "connection: close\r\n");
    finish_request(1);
    assert_int_equal(idles, 1);
    peer_fini(&c, &loop);
    peer_fini(&idle, &loop);
    UNTIL(&loop, server_empty);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        BOTH(leaves_in_its_head), BOTH(leaves_in_its_body), BOTH(leaves_while_connecting), BOTH(leaves_before_the_head),
        BOTH(leaves_in_a_held_answer), BOTH(leaves_in_an_error), BOTH(leaves_in_a_stream), BOTH(leaves_in_a_backoff),
        BOTH(requests_in_a_row), BOTH(continues), BOTH(bodies_too_large), BOTH(large_bodies_are_read_into_place),
        BOTH(a_stale_connection_is_replaced_once), BOTH(a_kept_connection_that_answered_is_not_replaced), BOTH(draining),
    };
    return cmocka_run_group_tests_name("proxy/pipeline_conn", tests, group_open, group_close);
}
