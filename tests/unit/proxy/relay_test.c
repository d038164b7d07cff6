/* relay: what reaches the client is whole events, in order, once; and what breaks off never looks complete. */
#include "relay_part.h"

/* ---- a recorded stream ------------------------------------------------------------------------------------------------------ */

static const char *const events[] = {
    ": ready\n\n", "data: {\"id\":\"a\",\"delta\":\"H\xc3\xa4\"}\n\n", "event: x\r\ndata: two\r\ndata: lines\r\n\r\n",
    "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\n", "data: [DONE]\n\n",
};
#define EVENTS_N (sizeof events / sizeof *events)

/* The stream's bytes as an upstream sends them, an event a chunk but the second, which is split over two; and behind
 * which byte each event is whole. */
static size_t record(char *to, size_t *whole_at)
{
    size_t n = (size_t)sprintf(to, "%s", STREAM_HEAD);
    for (size_t i = 0; i < EVENTS_N; i++) {
        size_t len = strlen(events[i]), part = i == 1 ? 9 : len;
        n += (size_t)sprintf(to + n, "%zx\r\n%.*s", part, (int)part, events[i]);
        if (part < len) n += (size_t)sprintf(to + n, "\r\n%zx\r\n%s", len - part, events[i] + part);
        whole_at[i] = n;
        n += (size_t)sprintf(to + n, "\r\n");
    }
    return n + (size_t)sprintf(to + n, "0\r\n\r\n");
}

static void joined(char *to, size_t n)
{
    *to = 0;
    for (size_t i = 0; i < n; i++) strcat(to, events[i]);
}

static void cut_at(const char *raw, size_t cut, const size_t *whole_at, bool fin)
{
    struct peer c;
    char expected[2048];
    size_t n = 0;
    struct peer *u = exchange(&c);
    peer_send(u, raw, cut);
    settle();
    if (fin) claw_stream_shutdown(&u->stream);
    else reset(u);
    while (n < EVENTS_N && whole_at[n] <= cut) n++;
    if (n < 2) { /* a comment commits nothing */
        UNTIL(&loop, whole(&c));
        assert_has(&c, "HTTP/1.1 502 ");
        assert_has(&c, "\"code\":\"eof\"");
        peer_fini(&c, &loop);
        return;
    }
    assert_has(&c, "HTTP/1.1 200 OK\r\n");
    joined(expected, n);
    UNTIL(&loop, c.ended);
    bool ended;
    char *body = body_of(&c, &ended);
    assert_false(ended);
    assert_true(strlen(body) > strlen(expected));
    assert_memory_equal(body, expected, strlen(expected)); /* whole events only */
    assert_true(strncmp(body + strlen(expected), "data: {\"error\":{\"message\":", 26) == 0);
    assert_non_null(strstr(body + strlen(expected), "\"code\":\"eof\"}}\n\n"));
    free(body);
    peer_fini(&c, &loop);
}

static void cut_at_every_byte(void **state)
{
    char raw[2048];
    size_t whole_at[EVENTS_N], n = record(raw, whole_at);
    for (size_t cut = 0; cut < n; cut++) {
        unsigned before = fake.released;
        cut_at(raw, cut, whole_at, cut % 2);
        cut_at(raw, cut, whole_at, !(cut % 2));
        finish_request(before + 2);
        assert_int_equal(fake.attempts, 1); /* behind the commit point nothing is tried again; before it there was nobody */
        assert_int_equal(fake.error, CLAW_EUPSTREAM_EOF);
        if (up[0].n > TAKEN_MAX - 8) fail_msg("the stream is too long for this test");
    }
}

static void in_pieces(void **state)
{
    char raw[2048], expected[2048];
    size_t whole_at[EVENTS_N], n = record(raw, whole_at);
    joined(expected, EVENTS_N);
    for (size_t step = 1; step <= n; step = step < 8 ? step + 1 : step * 2) {
        struct peer c;
        unsigned before = fake.released;
        ask(&c);
        struct peer *u = step == 1 ? asked(0) : up[0].taken[0]; /* one connection for all */
        UNTIL(&loop, whole(u));
        claw_buf_clear(&u->in);
        for (size_t at = 0; at < n; at += step) {
            peer_send(u, raw + at, step < n - at ? step : n - at);
            claw_loop_turn(&loop, false);
        }
        UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
        assert_body(&c, expected);
        finish_request(before + 1);
        assert_int_equal(fake.usage.input, 3);
        assert_int_equal(fake.usage.output, 5);
        assert_int_equal(fake.bytes_out, strlen(expected));
        peer_fini(&c, &loop);
    }
    assert_int_equal(up[0].n, 1);
    assert_int_equal(claw_pool_idle(ctx.pool), 1);
}

/* ---- streams that break ------------------------------------------------------------------------------------------------------- */

static void a_stall_ends_in_an_error(void **state)
{
    struct peer c;
    fake.candidates = 2;
    struct peer *u = exchange(&c);
    start_stream(&c, u, "data: 1\n\ndata: ha");
    claw_loop_advance(&loop, STALL_MS / 2);
    chunk(u, "lf\n\n"); /* a sign of life */
    UNTIL(&loop, peer_has(&c, "half"));
    claw_loop_advance(&loop, STALL_MS - 1000);
    settle();
    assert_false(c.ended);
    claw_loop_advance(&loop, 2000);
    assert_cut(&c, "data: 1\n\ndata: half\n\n" ERROR_EVENT("the upstream stopped sending", "upstream_error", "stall"));
    UNTIL(&loop, u->ended);
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ESTALL);
    assert_int_equal(fake.status, 200);
    assert_int_equal(up[1].n, 0);
}

static void garbage_in_a_stream(void **state)
{
    struct peer c;
    fake.candidates = 2;
    struct peer *u = exchange(&c);
    start_stream(&c, u, "data: 1\n\n");
    peer_say(u, "zz\r\nnonsense");
    UNTIL(&loop, c.ended);
    assert_has(&c, "data: 1\n\n");
    assert_has(&c, "\"code\":\"bad_response\"");
    assert_false(peer_ends(&c, "0\r\n\r\n"));
    finish_request(1);
    assert_int_equal(up[1].n, 0);
    peer_fini(&c, &loop);
}

static void the_deadline_does_not_end_a_stream(void **state)
{
    struct peer c;
    struct peer *u = exchange(&c);
    start_stream(&c, u, "data: 1\n\n");
    for (unsigned i = 0; i < 12; i++) {
        claw_loop_advance(&loop, STALL_MS - 1000);
        chunk(u, ": still here\n\n");
        settle();
    }
    assert_false(c.ended);
    peer_say(u, "0\r\n\r\n");
    UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
    finish_request(1);
    peer_fini(&c, &loop);
}

static void plain_answers_are_cut(void **state)
{
    static const char *const framings[] = {"Content-Length: 100\r\n\r\nhalf of", CHUNKED "7\r\nhalf of\r\n"};
    for (unsigned i = 0; i < 2; i++) {
        struct peer c;
        struct peer *u = exchange(&c);
        peer_say(u, PLAIN_HEAD);
        peer_say(u, framings[i]);
        UNTIL(&loop, peer_has(&c, "half of"));
        reset(u);
        assert_cut(&c, "half of"); /* no error text in a body of any type */
        finish_request(i + 1);
        assert_int_equal(fake.error, CLAW_EUPSTREAM_EOF);
    }
}

static void large_json_is_cut(void **state)
{
    struct peer c;
    char *big = malloc(100001);
    memset(big, '1', 100000);
    big[100000] = 0;
    fake.candidates = 2;
    struct peer *u = exchange(&c);
    peer_say(u, "HTTP/1.1 200 OK\r\n" JSON "Content-Length: 200000\r\n\r\n");
    peer_say(u, big);
    UNTIL(&loop, claw_buf_size(&c.in) > 100000);
    reset(u);
    assert_cut(&c, big);
    finish_request(1);
    assert_int_equal(up[1].n, 0);
    free(big);
}

static void old_clients_are_cut_by_a_reset(void **state)
{
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 27\r\n\r\n" CHAT_BODY);
    struct peer *u = asked(0);
    start_stream(&c, u, "data: 1\n\n"); /* its end is the connection's */
    reset(u);
    UNTIL(&loop, c.ended);
    assert_int_equal(c.end_code, CLAW_EUPSTREAM_EOF);
    finish_request(1);
    peer_fini(&c, &loop);
}

/* ---- streams that end ------------------------------------------------------------------------------------------------------------ */

static void old_clients_read_until_the_end(void **state)
{
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 27\r\n\r\n" CHAT_BODY);
    struct peer *u = asked(0);
    start_stream(&c, u, "data: 1\n\n");
    peer_say(u, "0\r\n\r\n");
    UNTIL(&loop, c.ended);
    assert_int_equal(c.end_code, CLAW_OK);
    assert_true(peer_ends(&c, "\r\n\r\ndata: 1\n\n"));
    assert_has(&c, "connection: close\r\n");
    finish_request(1);
    peer_fini(&c, &loop);
}

static void a_close_may_be_an_answers_end(void **state)
{
    struct peer c;
    struct peer *u = exchange(&c);
    peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS "\r\ndata: 1\n\ndata: open");
    settle();
    claw_stream_shutdown(&u->stream);
    UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
    assert_body(&c, "data: 1\n\ndata: open"); /* not ours to drop */
    finish_request(1);
    assert_int_equal(fake.error, 0);
    peer_fini(&c, &loop);
    fake.mask = CLAW_MASK_EVENT;
    u = exchange(&c);
    peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS "\r\ndata: 1\n\ndata: open");
    settle();
    claw_stream_shutdown(&u->stream);
    UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
    assert_body(&c, "data: 1\n\n"); /* what the hook did not see does not pass */
    finish_request(2);
    peer_fini(&c, &loop);
    u = exchange(&c);
    peer_say(u, PLAIN_HEAD "\r\nto the end");
    settle();
    reset(u); /* which a reset is not */
    assert_cut(&c, "to the end");
    finish_request(3);
}

static void an_empty_stream_is_no_answer(void **state)
{
    struct peer c;
    struct peer *u = exchange(&c);
    peer_say(u, STREAM_HEAD "0\r\n\r\n");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 ");
    finish_request(1);
    assert_failures("bad_response");
    peer_fini(&c, &loop);
}

static void bytes_behind_an_answer(void **state)
{
    struct peer c;
    struct peer *u = exchange(&c);
    peer_say(u, "HTTP/1.1 200 OK\r\n" JSON "Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n");
    UNTIL(&loop, whole(&c));
    assert_body(&c, "{}");
    UNTIL(&loop, u->ended); /* that connection is used no more */
    finish_request(1);
    assert_int_equal(claw_pool_idle(ctx.pool), 0);
    peer_fini(&c, &loop);
}

static void answers_without_body(void **state)
{
    struct peer c;
    fake.mask = CLAW_MASK_RESPONSE;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" JSON "Content-Length: 512\r\n\r\n");
    finish_request(1);
    UNTIL(&loop, peer_ends(&c, "\r\n\r\n"));
    assert_has(&c, "content-length: 512\r\n");
    claw_buf_clear(&c.in);
    claw_buf_clear(&u->in);
    peer_say(&c, "DELETE /v1/files/1 HTTP/1.1\r\nHost: x\r\n\r\n");
    UNTIL(&loop, whole(u));
    peer_say(u, "HTTP/1.1 204 No Content\r\n\r\n");
    finish_request(2);
    UNTIL(&loop, peer_ends(&c, "\r\n\r\n"));
    assert_has(&c, "HTTP/1.1 204 No Content\r\n");
    assert_int_equal(fake.calls[RESPONSE], 0);
    assert_int_equal(up[0].n, 1);
    peer_fini(&c, &loop);
}

static void usage_of_whole_answers(void **state)
{
    static const char small[] = "{\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}";
    struct peer c;
    struct peer *u = exchange(&c);
    answer(u, "200 OK", JSON, small);
    UNTIL(&loop, whole(&c));
    finish_request(1);
    assert_int_equal(fake.usage.input, 11);
    size_t n = 300000;
    char *big = malloc(n + sizeof small);
    memset(big, ' ', n);
    memcpy(big + n, small, sizeof small);
    claw_buf_clear(&c.in);
    claw_buf_clear(&u->in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, whole(u));
    answer(u, "200 OK", JSON, big);
    UNTIL(&loop, whole(&c));
    assert_body(&c, big);
    finish_request(2);
    assert_int_equal(fake.usage.output, 7);
    free(big);
    peer_fini(&c, &loop);
}

/* ---- hooks ------------------------------------------------------------------------------------------------------------------------- */

static void response_hooks(void **state)
{
    struct peer c;
    fake.mask = CLAW_MASK_RESPONSE;
    struct peer *u = exchange(&c);
    peer_say(u, "HTTP/1.1 200 OK\r\n" JSON CHUNKED "1\r\n{\r\n");
    settle();
    assert_int_equal(claw_buf_size(&c.in), 0); /* held whole */
    peer_say(u, "1\r\n}\r\n0\r\n\r\n");
    UNTIL(&loop, whole(&c));
    assert_body(&c, "{}");
    finish_request(1);
    assert_seen("{}");
    fake.response = CLAW_STR("");
    claw_buf_clear(&c.in);
    claw_buf_clear(&u->in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, whole(u));
    answer(u, "201 Created", JSON "ETag: 1\r\n", "{\"long\":\"er\"}");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 201 Created\r\n");
    assert_has(&c, "content-length: 0\r\n");
    finish_request(2);
    peer_fini(&c, &loop);
}

static void an_answer_too_large_for_its_hook(void **state)
{
    struct peer c;
    size_t n = (1 << 20) + 1;
    char *big = malloc(n + 1);
    memset(big, ' ', n);
    big[n] = 0;
    fake.mask = CLAW_MASK_RESPONSE;
    struct peer *u = exchange(&c);
    answer(u, "200 OK", JSON, big);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 ");
    assert_has(&c, "too large to be held");
    finish_request(1);
    assert_int_equal(fake.calls[RESPONSE], 0);
    free(big);
    peer_fini(&c, &loop);
}

#define ENCODED "\x1f\x8b data: x\n\n"

static void encoded(unsigned mask, const char *head, bool passes)
{
    struct peer c;
    fake.mask = mask;
    struct peer *u = exchange(&c);
    answer(u, "200 OK", head, ENCODED);
    UNTIL(&loop, whole(&c));
    if (passes) assert_body(&c, ENCODED);
    else assert_has(&c, "HTTP/1.1 502 ");
    finish_request(1);
    assert_int_equal(fake.calls[RESPONSE] + fake.calls[EVENT], 0);
    peer_fini(&c, &loop);
}

/* The other one's hook has nothing to read here. */
static void encoded_events_pass_untouched(void **state) { encoded(CLAW_MASK_RESPONSE, EVENTS "Content-Encoding: gzip\r\n", true); }
static void encoded_answers_pass_untouched(void **state) { encoded(CLAW_MASK_EVENT, JSON "Content-Encoding: gzip\r\n", true); }

/* They would go by what is to read them. */
static void encoded_events_fail_where_a_hook_reads(void **state) { encoded(CLAW_MASK_EVENT, EVENTS "Content-Encoding: gzip\r\n", false); }
static void encoded_answers_fail_where_a_hook_reads(void **state) { encoded(CLAW_MASK_RESPONSE, JSON "Content-Encoding: gzip\r\n", false); }

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        ALL(cut_at_every_byte), ALL(in_pieces), ALL(a_stall_ends_in_an_error), ALL(garbage_in_a_stream),
        ALL(the_deadline_does_not_end_a_stream), ALL(plain_answers_are_cut), ALL(large_json_is_cut),
        ALL(old_clients_are_cut_by_a_reset), ALL(old_clients_read_until_the_end), ALL(a_close_may_be_an_answers_end),
        ALL(an_empty_stream_is_no_answer), ALL(bytes_behind_an_answer), ALL(answers_without_body),
        ALL(usage_of_whole_answers), ALL(response_hooks), ALL(an_answer_too_large_for_its_hook),
        ALL(encoded_answers_pass_untouched), ALL(encoded_events_pass_untouched), ALL(encoded_events_fail_where_a_hook_reads),
        ALL(encoded_answers_fail_where_a_hook_reads),
    };
    return cmocka_run_group_tests_name("proxy/relay", tests, group_open, group_close);
}
