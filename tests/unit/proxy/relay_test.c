/* relay: what reaches the client is whole events, in order, once; and what breaks off never looks complete. */
#include "http/event_stream.h"

#include "scene.h"

static int open_all(void **state)
{
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    fake.candidates = 1;
    return 0;
}

/* A client whose request the upstream holds. */
static struct peer *exchange(struct peer *c)
{
    ask(c);
    return asked(0);
}

#define STREAM_HEAD "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED
#define PLAIN_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

static void start_stream(struct peer *c, struct peer *u, const char *first)
{
    peer_say(u, STREAM_HEAD);
    chunk(u, first);
    UNTIL(&loop, peer_has(c, "data: "));
}

/* The client's connection is over, and its answer was no complete one. */
static void assert_cut(struct peer *c, const char *expected)
{
    bool ended;
    UNTIL(&loop, c->ended);
    char *body = body_of(c, &ended);
    assert_false(ended);
    assert_string_equal(body, expected);
    free(body);
    peer_fini(c, &loop);
}

#define ERROR_EVENT(text, type, code) "data: {\"error\":{\"message\":\"" text "\",\"type\":\"" type "\",\"param\":null,\"code\":\"" code "\"}}\n\n"
#define EOF_EVENT ERROR_EVENT("the upstream closed before its answer was complete", "upstream_error", "eof")

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

/* ---- slow clients --------------------------------------------------------------------------------------------------------------------- */

#define PIECE (256u << 10)
#define PIECES 64u

static struct claw_stream *to_client(void) { return &server.conns->stream; }

/* A client that reads nothing until everything on the way to it is full. */
static struct peer *fill(struct peer *c, bool stream)
{
    static char piece[PIECE + 1];
    memset(piece, 'x', PIECE);
    if (stream) {
        for (unsigned i = 0; i < PIECE; i += 1024) memcpy(piece + i, "\n\ndata: ", 8);
        memcpy(piece, "data: ", 6);
        memcpy(piece + PIECE - 2, "\n\n", 2);
    }
    struct peer *u = exchange(c);
    claw_stream_pause(&c->stream);
    if (stream) peer_say(u, STREAM_HEAD);
    else peer_say(u, PLAIN_HEAD "Content-Length: 16777216\r\n\r\n");
    for (unsigned i = 0; i < PIECES; i++) {
        if (stream) chunk(u, piece);
        else peer_send(u, piece, PIECE);
    }
    if (stream) peer_say(u, "0\r\n\r\n");
    UNTIL(&loop, ctx.requests && ctx.requests->client && ctx.requests->client->stream.paused);
    settle();
    assert_true(ctx.requests->client->stream.paused);
    assert_true(claw_stream_queued(to_client()) <= 256u << 10); /* what one stopped reader may cost */
    assert_true(claw_stream_queued(&u->stream) > PIECE);        /* the rest stays where it is */
    return u;
}

static void slow_clients_get_everything(void **state)
{
    for (int stream = 0; stream < 2; stream++) {
        struct peer c;
        fill(&c, stream);
        for (unsigned i = 0; i < 3; i++) { /* a paused upstream does not stall */
            claw_loop_advance(&loop, STALL_MS + 1000);
            settle();
        }
        assert_int_equal(ctx.requests_n, 1);
        claw_stream_resume(&c.stream);
        finish_request((unsigned)stream + 1);
        assert_int_equal(fake.bytes_out, PIECE * PIECES);
        UNTIL(&loop, stream ? peer_ends(&c, "\r\n0\r\n\r\n") : whole(&c));
        bool ended;
        char *body = body_of(&c, &ended);
        assert_true(ended);
        assert_int_equal(strlen(body), PIECE * PIECES);
        free(body);
        peer_fini(&c, &loop);
        up[0].used = 0;
        claw_buf_clear(&up[0].taken[0]->in);
    }
}

static void clients_that_never_read(void **state)
{
    struct peer c;
    struct peer *u = fill(&c, true);
    claw_loop_advance(&loop, 65000); /* send_timeout_seconds, and once more since it began to send */
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ESEND_STALL);
    assert_false(fake.had_client);
    UNTIL(&loop, u->ended);
    peer_fini(&c, &loop);
}

static void clients_that_leave_unread(void **state)
{
    struct peer c;
    struct peer *u = fill(&c, false);
    claw_stream_abort(&c.stream);
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ECLIENT_GONE);
    UNTIL(&loop, u->ended);
    peer_fini(&c, &loop);
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

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
#define ALL(f) cmocka_unit_test_setup_teardown(f, open_all, scene_close)
    const struct CMUnitTest tests[] = {
        ALL(cut_at_every_byte), ALL(in_pieces), ALL(a_stall_ends_in_an_error), ALL(garbage_in_a_stream), ALL(the_deadline_does_not_end_a_stream),
        ALL(plain_answers_are_cut), ALL(large_json_is_cut), ALL(old_clients_are_cut_by_a_reset), ALL(old_clients_read_until_the_end),
        ALL(a_close_may_be_an_answers_end), ALL(an_empty_stream_is_no_answer), ALL(bytes_behind_an_answer), ALL(answers_without_body),
        ALL(usage_of_whole_answers), ALL(event_hooks), ALL(a_hook_fails_in_a_stream), ALL(large_events_pass), ALL(response_hooks),
        ALL(an_answer_too_large_for_its_hook), ALL(encoded_answers_pass_untouched), ALL(encoded_events_pass_untouched),
        ALL(encoded_events_fail_where_a_hook_reads), ALL(encoded_answers_fail_where_a_hook_reads),
        ALL(slow_clients_get_everything),
        ALL(clients_that_never_read), ALL(clients_that_leave_unread),
        ALL(lines_become_events), ALL(messages_become_events), ALL(an_exception_at_the_head_fails_over), ALL(damaged_messages_fail), ALL(an_error_at_the_head_is_told_as_its_status),
        ALL(a_whole_answer_becomes_events), ALL(events_become_a_whole_answer),
        ALL(a_cut_is_told_by_the_translation), ALL(translated_errors_are_whole), ALL(an_array_for_who_asks_for_no_events), ALL(events_for_who_asks_for_them), ALL(an_array_that_is_cut),
    };
    return cmocka_run_group_tests_name("proxy/relay", tests, group_open, group_close);
}
