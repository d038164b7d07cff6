/* relay_event: a stream's events given to hooks, to the translation, and to who asked for an array. */
#include "http/event_stream.h"
#include "proxy/commit.h"

#include "relay_part.h"

/* ---- hooks ------------------------------------------------------------------------------------------------------------------------- */

static void event_hooks(void **state)
{
    static const struct claw_policy_event made[] = {{CLAW_STR("a"), CLAW_STR("1")}, {CLAW_STR(""), CLAW_STR("2\n3")}};
    static const struct { int n; const char *body; } rows[] = {
        {-1, ": hi\n\nevent: t\ndata: x\n\n: comment\n\ndata: y\n\n"},
        {0, ": hi\n\n: comment\n\n"},
        {1, ": hi\n\nevent: a\ndata: 1\n\n: comment\n\nevent: a\ndata: 1\n\n"},
        {2, ": hi\n\nevent: a\ndata: 1\n\ndata: 2\ndata: 3\n\n: comment\n\nevent: a\ndata: 1\n\ndata: 2\ndata: 3\n\n"},
    };
    fake.mask = CLAW_MASK_EVENT;
    fake.events = made;
    struct peer *u = NULL;
    for (unsigned i = 0; i < 4; i++) {
        struct peer c;
        fake.events_n = rows[i].n;
        claw_buf_clear(&fake.seen);
        if (u) claw_buf_clear(&u->in);
        ask(&c);
        if (!u) u = asked(0);
        UNTIL(&loop, whole(u));
        answer(u, "200 OK", EVENTS, ": hi\n\nevent: t\ndata: x\n\n: comment\n\ndata: y\n\n");
        UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
        assert_body(&c, rows[i].body);
        assert_seen("t:x|:y|");
        finish_request(i + 1);
        peer_fini(&c, &loop);
    }
}

static void a_hook_fails_in_a_stream(void **state)
{
    struct peer c;
    fake.mask = CLAW_MASK_EVENT;
    fake.candidates = 2;
    struct peer *u = exchange(&c);
    start_stream(&c, u, "data: 1\n\n");
    fake.rc[EVENT] = CLAW_EPOLICY;
    chunk(u, "data: 2\n\ndata: 3\n\n");
    assert_cut(&c, "data: 1\n\n" ERROR_EVENT("A policy failed while handling the request; its error is in the log.", "api_error", "policy_error"));
    UNTIL(&loop, u->ended);
    finish_request(1);
    assert_int_equal(fake.error, CLAW_EPOLICY);
    assert_int_equal(fake.calls[EVENT], 2);
    u = exchange(&c);
    fake.rc[EVENT] = 0;
    start_stream(&c, u, "data: 1\n\n");
    fake.rc[EVENT] = CLAW_EREQ_MEM; /* nor does a stream go on without the event that did not fit */
    chunk(u, "data: 2\n\ndata: 3\n\n");
    UNTIL(&loop, c.ended);
    assert_has(&c, "\"code\":\"request_memory\"");
    assert_false(peer_has(&c, "data: 2"));
    finish_request(2);
    assert_int_equal(up[1].n, 0);
    peer_fini(&c, &loop);
}

static void large_events_pass(void **state)
{
    struct peer c;
    size_t n = 3 * CLAW_RELAY_EVENT_BYTES;
    char *big = malloc(n + 1);
    memset(big, 'x', n);
    memcpy(big, "data: ", 6);
    memcpy(big + n - 2, "\n\n", 3);
    struct peer *u = exchange(&c);
    peer_say(u, STREAM_HEAD);
    chunk(u, big);
    chunk(u, "data: [DONE]\n\n");
    peer_say(u, "0\r\n\r\n");
    UNTIL(&loop, peer_ends(&c, "\r\n0\r\n\r\n"));
    bool ended;
    char *body = body_of(&c, &ended);
    assert_true(ended);
    assert_int_equal(strlen(body), n + 14);
    assert_memory_equal(body, big, n);
    free(body);
    finish_request(1);
    peer_fini(&c, &loop);
    u = up[0].taken[0];
    claw_buf_clear(&u->in);
    ask(&c);
    UNTIL(&loop, whole(u));
    peer_say(u, STREAM_HEAD);
    big[n / 2] = 0;
    chunk(u, big);
    UNTIL(&loop, claw_buf_size(&c.in) > n / 2);
    reset(u);
    UNTIL(&loop, c.ended);
    assert_false(peer_has(&c, "\"error\"")); /* it would become a part of the event under way */
    finish_request(2);
    peer_fini(&c, &loop);
    free(big);
}

/* ---- translated attempts ------------------------------------------------------------------------------------------------ */

static void translate(void)
{
    fake.mask = CLAW_MASK_REQUEST | CLAW_MASK_RESPONSE | CLAW_MASK_EVENT;
    fake.translated = true;
}

static struct peer *exchange_stream(struct peer *c)
{
    peer_dial(c, &loop, claw_server_port(&server));
    post(c, "{\"model\":\"m\",\"messages\":[],\"stream\":true}");
    return asked(0);
}

static void lines_become_events(void **state)
{
    static const char *const texts[] = {"{\"a\":1}\n{\"b\"", ":2}\r\n\n", "{\"c\":3}"};
    struct peer c;
    translate();
    struct peer *u = exchange_stream(&c);
    peer_say(u, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n" CHUNKED);
    for (size_t i = 0; i < 3; i++) {
        chunk(u, texts[i]);
        settle();
    }
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    settle();
    bool ended;
    char *body = body_of(&c, &ended);
    assert_string_equal(body, "data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: {\"c\":3}\n\n");
    assert_true(ended && peer_has(&c, "content-type: text/event-stream\r\n"));
    assert_seen(":{\"a\":1}|:{\"b\":2}|:{\"c\":3}|END|");
    free(body);
    peer_fini(&c, &loop);
}

/* A message in AWS's encoding, with one header. */
static size_t put_aws(char *to, const char *name, const char *value, const char *payload)
{
    size_t headers = 1 + strlen(name) + 3 + strlen(value), total = 16 + headers + strlen(payload);
    char *at = to;
    for (int i = 3; i >= 0; i--) *at++ = (char)(total >> 8 * i);
    for (int i = 3; i >= 0; i--) *at++ = (char)(headers >> 8 * i);
    uint32_t sum = claw_event_stream_crc(0, to, 8);
    for (int i = 3; i >= 0; i--) *at++ = (char)(sum >> 8 * i);
    at += sprintf(at, "%c%s", (int)strlen(name), name);
    *at++ = 7;
    *at++ = 0;
    *at++ = (char)strlen(value);
    at += sprintf(at, "%s%s", value, payload);
    sum = claw_event_stream_crc(0, to, (size_t)(at - to));
    for (int i = 3; i >= 0; i--) *at++ = (char)(sum >> 8 * i);
    return (size_t)(at - to);
}

#define AWS_HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n"

static struct peer *say_aws(struct peer *u, const char *bytes, size_t n)
{
    char head[128];
    peer_send(u, head, (size_t)snprintf(head, sizeof head, AWS_HEAD "Content-Length: %zu\r\n\r\n", n));
    peer_send(u, bytes, n);
    return u;
}

static void messages_become_events(void **state)
{
    struct peer c;
    char bytes[256];
    translate();
    struct peer *u = exchange_stream(&c);
    size_t n = put_aws(bytes, ":event-type", "e", "{\"x\":1}");
    n += put_aws(bytes + n, ":exception-type", "bad", "{}"); /* behind the commit point it is an event like others */
    say_aws(u, bytes, n);
    finish_request(1);
    settle();
    bool ended;
    char *body = body_of(&c, &ended);
    assert_string_equal(body, "event: e\ndata: {\"x\":1}\n\nevent: bad\ndata: {}\n\n");
    assert_seen("e:{\"x\":1}|bad:{}|END|");
    assert_true(ended);
    free(body);
    peer_fini(&c, &loop);
}

static void an_exception_at_the_head_fails_over(void **state)
{
    struct peer c;
    char bytes[256];
    translate();
    fake.error_type = "throttlingException";
    fake.error_status = 429;
    fake.candidates = 2;
    struct peer *u = exchange(&c);
    say_aws(u, bytes, put_aws(bytes, ":exception-type", "throttlingException", "{\"message\":\"slow\"}"));
    answer(asked(1), "200 OK", JSON, "{}");
    fake.response = CLAW_STR("{\"made\":1}");
    finish_request(1);
    settle();
    assert_true(peer_has(&c, "{\"made\":1}"));
    assert_true(claw_str_eqz(claw_buf_str(&fake.failures), "http_429"));
    peer_fini(&c, &loop);
}

static void damaged_messages_fail(void **state)
{
    struct peer c;
    char bytes[256];
    translate();
    struct peer *u = exchange_stream(&c);
    size_t n = put_aws(bytes, ":event-type", "e", "{}");
    bytes[n - 1] ^= 1;
    say_aws(u, bytes, n);
    finish_request(1);
    settle();
    assert_int_equal(fake.status, 502);
    assert_int_equal(fake.error, CLAW_EBAD_RESPONSE);
    peer_fini(&c, &loop);
}

static void a_cut_is_told_by_the_translation(void **state)
{
    struct peer c;
    translate();
    fake.end_rc = CLAW_EUPSTREAM_EOF;
    struct peer *u = exchange_stream(&c);
    start_stream(&c, u, "data: {\"a\":1}\n\n");
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    assert_int_equal(fake.error, CLAW_EUPSTREAM_EOF);
    assert_cut(&c, "data: {\"a\":1}\n\n" ERROR_EVENT("p.lua:1: a \\\"bad\\\" day", "upstream_error", "eof"));
}

static void an_error_at_the_head_is_told_as_its_status(void **state)
{
    struct peer c;
    translate();
    fake.error_type = "error";
    fake.error_status = 429;
    fake.response = CLAW_STR("{\"made\":1}");
    struct peer *u = exchange_stream(&c);
    peer_say(u, STREAM_HEAD);
    chunk(u, "event: error\ndata: {}\n\n");
    finish_request(1);
    settle();
    assert_true(peer_has(&c, "HTTP/1.1 429 ") && peer_has(&c, "content-type: application/json\r\n") && peer_has(&c, "\r\n\r\n{\"made\":1}"));
    assert_true(claw_str_eqz(claw_buf_str(&fake.failures), "http_429"));
    peer_fini(&c, &loop);
}

static void a_whole_answer_becomes_events(void **state)
{
    struct peer c;
    translate();
    struct peer *u = exchange_stream(&c);
    answer(u, "200 OK", JSON, "{\"a\":1}");
    finish_request(1);
    settle();
    bool ended;
    char *body = body_of(&c, &ended);
    assert_string_equal(body, "data: {\"a\":1}\n\n");
    assert_true(ended && peer_has(&c, "content-type: text/event-stream\r\n"));
    assert_seen("WHOLE :{\"a\":1}|");
    free(body);
    peer_fini(&c, &loop);
}

static void events_become_a_whole_answer(void **state)
{
    struct peer c;
    translate();
    fake.events_n = 0;
    fake.response = CLAW_STR("{\"made\":1}");
    struct peer *u = exchange(&c);
    peer_say(u, STREAM_HEAD);
    chunk(u, ": c\n\ndata: {\"a\":1}\n\n");
    chunk(u, "data: {\"b\":2}\n\n");
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    settle();
    assert_true(peer_has(&c, "content-type: application/json\r\n") && peer_has(&c, "\r\n\r\n{\"made\":1}"));
    assert_int_equal(fake.calls[EVENT], 3);
    assert_seen(""); /* the events have it all */
    peer_fini(&c, &loop);
}

static void translated_errors_are_whole(void **state)
{
    struct peer c;
    translate();
    fake.response = CLAW_STR("{\"made\":1}");
    struct peer *u = exchange(&c);
    answer(u, "400 Bad", "Content-Type: text/html\r\nContent-Encoding: x\r\nX-Other: y\r\n", "<html>");
    finish_request(1);
    settle();
    assert_true(peer_has(&c, "HTTP/1.1 400 ") && peer_has(&c, "content-type: application/json\r\n") && peer_has(&c, "X-Other: y"));
    assert_true(peer_has(&c, "\r\n\r\n{\"made\":1}") && !peer_has(&c, "text/html") && !peer_has(&c, "Encoding"));
    peer_fini(&c, &loop);
}

/* ---- Gemini's array ----------------------------------------------------------------------------------------------------- */

static struct peer *gemini(struct peer *c, const char *query)
{
    char head[256];
    peer_dial(c, &loop, claw_server_port(&server));
    peer_send(c, head, (size_t)snprintf(head, sizeof head, "POST /v1beta/models/m:streamGenerateContent%s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", query));
    return asked(0);
}

static void streamed(const char *query, const char *type, const char *expected)
{
    struct peer c;
    bool ended;
    struct peer *u = gemini(&c, query);
    peer_say(u, STREAM_HEAD);
    chunk(u, ": c\n\ndata: {\"a\":\n");
    chunk(u, "data: 1}\n\ndata: {\"b\":2}\n\n");
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    settle();
    char *body = body_of(&c, &ended);
    assert_string_equal(body, expected);
    assert_true(ended && peer_has(&c, type));
    free(body);
    peer_fini(&c, &loop);
}

static void an_array_for_who_asks_for_no_events(void **state)
{
    streamed("", "content-type: application/json\r\n", "[{\"a\":\n1},\r\n{\"b\":2}]");
}

static void events_for_who_asks_for_them(void **state)
{
    streamed("?alt=sse", "text/event-stream", ": c\n\ndata: {\"a\":\ndata: 1}\n\ndata: {\"b\":2}\n\n");
}

static void an_array_that_is_cut(void **state)
{
    struct peer c;
    struct peer *u = gemini(&c, "");
    peer_say(u, STREAM_HEAD);
    chunk(u, "data: {\"a\":1}\n\n");
    UNTIL(&loop, peer_has(&c, "[{"));
    reset(u);
    finish_request(1);
    settle();
    bool ended;
    UNTIL(&loop, c.ended);
    char *body = body_of(&c, &ended);
    assert_true(!ended && strncmp(body, "[{\"a\":1},{\"error\":{\"code\":502,", 25) == 0 && body[strlen(body) - 1] == ']');
    free(body);
    peer_fini(&c, &loop);
}

/* ---- held until more was said --------------------------------------------------------------------------------------------- */

#define SAYS(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define ROLE "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define CALLS "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n"

/* A stream's client and first upstream, which has said what is not enough. */
static struct peer *held(struct peer *c, uint32_t commit_at, const char *said)
{
    fake.mask |= CLAW_MASK_REQUEST;
    fake.commit_at = commit_at;
    fake.candidates = 2;
    peer_dial(c, &loop, claw_server_port(&server));
    post(c, "{\"model\":\"m\",\"messages\":[],\"stream\":true,\"tools\":[{}]}");
    struct peer *u = asked(0);
    peer_say(u, STREAM_HEAD);
    chunk(u, said);
    settle();
    assert_int_equal(claw_buf_size(&c->in), 0);
    return u;
}

static void assert_streamed(struct peer *c, struct peer *u, const char *expected)
{
    peer_say(u, "0\r\n\r\n");
    UNTIL(&loop, peer_ends(c, "\r\n0\r\n\r\n"));
    assert_body(c, expected);
    finish_request(1);
    peer_fini(c, &loop);
}

static void held_until_enough_was_said(void **state)
{
    struct peer c;
    struct peer *u = held(&c, 5, ": hi\n\n" ROLE SAYS("\\u00e9\xc3\xa9") ": there\n\n" SAYS("ab"));
    chunk(u, SAYS("c"));
    UNTIL(&loop, peer_has(&c, "\"c\""));
    chunk(u, SAYS("d"));
    assert_streamed(&c, u, ": hi\n\n" ROLE SAYS("\\u00e9\xc3\xa9") ": there\n\n" SAYS("ab") SAYS("c") SAYS("d"));
}

static void what_was_held_of_one_that_fails_is_dropped(void **state)
{
    struct peer c;
    struct peer *u = held(&c, 40, ROLE "data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n" SAYS("lost"));
    reset(u);
    u = asked(1);
    peer_say(u, STREAM_HEAD);
    chunk(u, SAYS("0123456789012345678901234567890123456789"));
    assert_streamed(&c, u, SAYS("0123456789012345678901234567890123456789"));
    assert_true(claw_str_eqz(claw_buf_str(&fake.failures), "eof"));
    assert_true(fake.usage.input != 7);
}

static void an_error_event_fails_over_while_it_is_held(void **state)
{
    struct peer c;
    struct peer *u = held(&c, 40, SAYS("lost"));
    chunk(u, "data: {\"error\":{\"message\":\"too busy\"}}\n\n");
    u = asked(1);
    peer_say(u, STREAM_HEAD);
    chunk(u, SAYS("short") "data: [DONE]\n\n"); /* it is over: it waits no longer */
    UNTIL(&loop, peer_has(&c, "[DONE]"));
    assert_streamed(&c, u, SAYS("short") "data: [DONE]\n\n");
    assert_true(claw_str_eqz(claw_buf_str(&fake.failures), "stream_error"));
}

static void let_go_at_its_end(void **state)
{
    struct peer c;
    struct peer *u = held(&c, 40, SAYS("short"));
    assert_streamed(&c, u, SAYS("short"));
}

static void let_go_when_much_is_held(void **state)
{
    struct peer c;
    char *much = malloc((64u << 10) + 32);
    memset(much, ':', (64u << 10) + 32);
    struct peer *u = held(&c, 40, SAYS("a"));
    memcpy(much, "data: {\"x\":\"", 12);
    memcpy(much + (60u << 10), "\"}\n\n", 5);
    chunk(u, much);
    settle();
    assert_int_equal(claw_buf_size(&c.in), 0);
    chunk(u, much);
    UNTIL(&loop, claw_buf_size(&c.in) > 120u << 10);
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    peer_fini(&c, &loop);
    free(much);
}

static void a_tool_call_lets_go(void **state)
{
    struct peer c;
    struct peer *u = held(&c, 40, SAYS("a"));
    struct claw_req *r = ctx.requests;
    assert_string_equal(claw_commit_state(r), "held");
    chunk(u, CALLS);
    UNTIL(&loop, peer_has(&c, "tool_calls"));
    assert_string_equal(claw_commit_state(r), "tool_emitted");
    reset(u);
    finish_request(1);
    UNTIL(&loop, c.ended);
    assert_true(peer_has(&c, "\"code\":\"eof\""));
    assert_int_equal(fake.calls[RETRY], 0);
    assert_int_equal(up[1].n, 0);
    peer_fini(&c, &loop);
}

static void what_hooks_make_is_held_as_well(void **state)
{
    static const struct claw_policy_event made[] = {{CLAW_STR("a"), CLAW_STR("{\"choices\":[{\"delta\":{\"content\":\"two\"}}]}")}};
    struct peer c;
    fake.mask = CLAW_MASK_EVENT;
    fake.events = made;
    fake.events_n = 1;
    struct peer *u = held(&c, 5, "data: x\n\n");
    chunk(u, "data: y\n\n");
    UNTIL(&loop, peer_has(&c, "data: "));
    fake.events_n = 0;
    assert_streamed(&c, u, "event: a\ndata: {\"choices\":[{\"delta\":{\"content\":\"two\"}}]}\n\nevent: a\ndata: {\"choices\":[{\"delta\":{\"content\":\"two\"}}]}\n\n");
}

static void a_translated_stream_is_held(void **state)
{
    struct peer c;
    translate();
    struct peer *u = held(&c, 5, SAYS("lost"));
    reset(u);
    u = asked(1);
    peer_say(u, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n" CHUNKED);
    chunk(u, "{\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\n");
    settle();
    assert_int_equal(claw_buf_size(&c.in), 0);
    assert_streamed(&c, u, SAYS("ab"));
}

static void an_array_is_held(void **state)
{
    struct peer c;
    fake.mask = CLAW_MASK_REQUEST;
    fake.commit_at = 4;
    fake.candidates = 2;
    struct peer *u = gemini(&c, "");
    peer_say(u, STREAM_HEAD);
    chunk(u, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"abc\"}]}}]}\n\n");
    settle();
    assert_int_equal(claw_buf_size(&c.in), 0);
    reset(u);
    u = asked(1);
    peer_say(u, STREAM_HEAD);
    chunk(u, ": c\n\ndata: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"xyz\"}]}}]}\n\n");
    settle();
    assert_int_equal(claw_buf_size(&c.in), 0);
    assert_streamed(&c, u, "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"xyz\"}]}}]}]");
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        ALL(event_hooks), ALL(a_hook_fails_in_a_stream), ALL(large_events_pass), ALL(lines_become_events),
        ALL(messages_become_events), ALL(an_exception_at_the_head_fails_over), ALL(damaged_messages_fail),
        ALL(an_error_at_the_head_is_told_as_its_status), ALL(a_whole_answer_becomes_events),
        ALL(events_become_a_whole_answer), ALL(a_cut_is_told_by_the_translation), ALL(translated_errors_are_whole),
        ALL(an_array_for_who_asks_for_no_events), ALL(events_for_who_asks_for_them), ALL(an_array_that_is_cut),
        ALL(held_until_enough_was_said), ALL(what_was_held_of_one_that_fails_is_dropped), ALL(an_error_event_fails_over_while_it_is_held),
        ALL(let_go_at_its_end), ALL(let_go_when_much_is_held), ALL(a_tool_call_lets_go), ALL(what_hooks_make_is_held_as_well),
        ALL(a_translated_stream_is_held), ALL(an_array_is_held),
    };
    return cmocka_run_group_tests_name("proxy/relay_event", tests, group_open, group_close);
}
