/* recall: what was answered is given again until it ends, in both ways; what is being answered is heard by all who ask, and
 * ends, breaks or fails for each as it should. */
#include "proxy/recall.h"

#include "proxy/cache.h"
#include "proxy/flight.h"

#include "scene.h"

#define ONCE "Connection: close\r\n" /* each request comes on a connection of its own */
#define STREAM_HEAD "HTTP/1.1 200 OK\r\n" ONCE EVENTS CHUNKED
#define ONE "data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n"
#define USAGE "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\n"
#define LAST "data: [DONE]\n\n"
#define ANSWER "{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}"
#define STREAMED "{\"model\":\"m\",\"messages\":[],\"stream\":true}"
#define WITH_USAGE "{\"model\":\"m\",\"messages\":[],\"stream\":true,\"stream_options\":{\"include_usage\":true}}"

static struct claw_cache *cache;

static int open_with(void **state, const char *yaml)
{
    scene_more = yaml;
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    fake.candidates = 1;
    cache = generation->cache = claw_cache_new((size_t)1 << 20);
    return cache ? 0 : -1;
}

static int open_all(void **state) { return open_with(state, "caching: {enabled: true}\n"); }
static int open_chosen(void **state) { return open_with(state, "caching: {enabled: true, strategies: [{ttl_seconds: 1}]}\n"); }
static int open_finishing(void **state)
{
    int rc = open_all(state);
    generation->conf->routes[0].finishes = true;
    return rc;
}

static int close_all(void **state)
{
    int rc = scene_close(state);
    assert_int_equal(claw_flight_live(), 0);
    claw_cache_free(cache);
    scene_more = "";
    return rc;
}

static void ask_for(struct peer *c, const char *body)
{
    peer_dial(c, &loop, claw_server_port(&server));
    post(c, body);
}

static void expect_word(struct peer *c, const char *word)
{
    char field[64];
    snprintf(field, sizeof field, "x-openclaw-cache: %s\r\n", word);
    UNTIL(&loop, peer_has(c, field));
}

/* The whole answer, and how it came. */
static void expect(struct peer *c, const char *word, const char *body)
{
    bool ended = false;
    expect_word(c, word);
    while (!ended) {
        claw_loop_turn(&loop, false);
        free(body_of(c, &ended));
    }
    assert_body(c, body);
    peer_fini(c, &loop);
}

/* The upstream answers one request so, and it is kept. */
static void keep_plain(const char *asked_for)
{
    struct peer c;
    unsigned before = fake.released;
    ask_for(&c, asked_for);
    answer(asked(0), "200 OK", ONCE JSON, ANSWER);
    expect(&c, "miss", ANSWER);
    finish_request(before + 1);
}

static void what_was_answered_is_given_again(void **state)
{
    struct peer c;
    fake.cost = 70;
    keep_plain(CHAT_BODY);
    ask_for(&c, "{ \"messages\": [ ], \"model\": \"m\", \"user\": \"u\" }");
    expect(&c, "hit", ANSWER);
    finish_request(2);
    assert_true(fake.attempts == 0 && fake.status == 200 && fake.bytes_out == strlen(ANSWER) && up[0].n == 1);
    assert_int_equal(claw_cache_measure(cache).hits, 1);
}

static void what_ended_is_not(void **state)
{
    struct peer c;
    fake.strategy = 1;
    keep_plain(CHAT_BODY);
    claw_loop_advance(&loop, 900);
    ask(&c);
    expect(&c, "hit", ANSWER);
    claw_loop_advance(&loop, 200);
    keep_plain(CHAT_BODY);
    assert_int_equal(claw_cache_measure(cache).hits, 1);
}

static void what_no_strategy_wants_is_not(void **state)
{
    for (int i = 0; i < 2; i++) {
        struct peer c;
        ask(&c);
        answer(asked(0), "200 OK", ONCE JSON, ANSWER);
        expect(&c, "bypass", ANSWER);
        finish_request(1 + (unsigned)i);
    }
    assert_int_equal(claw_cache_measure(cache).entries, 0);
}

static void one_way_is_written_as_the_other(void **state)
{
    struct peer c;
    char spread[64];
    keep_plain(CHAT_BODY);
    snprintf(spread, sizeof spread, "data: {\"spread\":%zu}\n\n", strlen(ANSWER));
    ask_for(&c, STREAMED);
    expect(&c, "hit", spread);
    finish_request(2);
}

static void a_stream_is_given_again_and_joined(void **state)
{
    struct peer c;
    char joined[64];
    ask_for(&c, WITH_USAGE);
    struct peer *u = asked(0);
    peer_say(u, STREAM_HEAD);
    chunk(u, ONE);
    chunk(u, USAGE LAST);
    peer_say(u, "0\r\n\r\n");
    expect(&c, "miss", ONE USAGE LAST);
    ask_for(&c, WITH_USAGE);
    expect(&c, "hit", ONE USAGE LAST);
    ask_for(&c, STREAMED); /* did not ask for usage */
    expect(&c, "hit", ONE LAST);
    snprintf(joined, sizeof joined, "{\"joined\":%zu}", strlen(ONE USAGE LAST));
    ask_for(&c, CHAT_BODY);
    expect(&c, "hit", joined);
    finish_request(4);
}

static void who_asks_meanwhile_hears_it(void **state)
{
    struct peer a, b, c;
    ask_for(&a, WITH_USAGE);
    struct peer *u = asked(0);
    ask_for(&b, STREAMED);
    UNTIL(&loop, claw_flight_listening() == 1);
    peer_say(u, STREAM_HEAD);
    chunk(u, ONE);
    UNTIL(&loop, peer_has(&a, "one") && peer_has(&b, "one"));
    ask_for(&c, WITH_USAGE); /* late */
    UNTIL(&loop, peer_has(&c, "one"));
    chunk(u, USAGE LAST);
    peer_say(u, "0\r\n\r\n");
    expect(&a, "miss", ONE USAGE LAST);
    expect(&b, "coalesced", ONE LAST);
    expect(&c, "coalesced", ONE USAGE LAST);
    finish_request(3);
    assert_int_equal(up[0].n, 1);
}

static void the_leader_leaves(void **state)
{
    struct peer a, b;
    ask_for(&a, STREAMED);
    struct peer *u = asked(0);
    ask_for(&b, STREAMED);
    UNTIL(&loop, claw_flight_listening() == 1);
    peer_say(u, STREAM_HEAD);
    chunk(u, ONE);
    UNTIL(&loop, peer_has(&a, "one"));
    reset(&a);
    peer_fini(&a, &loop);
    chunk(u, LAST);
    peer_say(u, "0\r\n\r\n");
    expect(&b, "coalesced", ONE LAST);
    finish_request(2);
    assert_int_equal(claw_cache_measure(cache).entries, 1);
}

static void all_leave(void **state)
{
    struct peer a, b;
    ask_for(&a, STREAMED);
    struct peer *u = asked(0);
    ask_for(&b, STREAMED);
    UNTIL(&loop, claw_flight_listening() == 1);
    peer_say(u, STREAM_HEAD);
    chunk(u, ONE);
    UNTIL(&loop, peer_has(&b, "one"));
    reset(&a);
    reset(&b);
    UNTIL(&loop, u->ended); /* the upstream's connection is closed */
    finish_request(2);
    assert_true(fake.error == CLAW_ECLIENT_GONE && fake.status == 499);
    peer_fini(&a, &loop);
    peer_fini(&b, &loop);
}

static void it_finishes_for_the_cache(void **state)
{
    struct peer a;
    ask_for(&a, STREAMED);
    struct peer *u = asked(0);
    peer_say(u, STREAM_HEAD);
    chunk(u, ONE);
    UNTIL(&loop, peer_has(&a, "one"));
    reset(&a);
    peer_fini(&a, &loop);
    settle();
    assert_false(u->ended);
    chunk(u, LAST);
    peer_say(u, "0\r\n\r\n");
    finish_request(1);
    assert_true(fake.error == CLAW_ECLIENT_GONE && fake.status == 499);
    ask_for(&a, STREAMED);
    expect(&a, "hit", ONE LAST);
    finish_request(2);
}

static void what_breaks_is_cut_for_all(void **state)
{
    struct peer a, b;
    ask_for(&a, STREAMED);
    struct peer *u = asked(0);
    ask_for(&b, STREAMED);
    UNTIL(&loop, claw_flight_listening() == 1);
    peer_say(u, STREAM_HEAD);
    chunk(u, ONE);
    UNTIL(&loop, peer_has(&b, "one"));
    reset(u);
    UNTIL(&loop, a.ended && b.ended);
    for (struct peer *c = &a; c; c = c == &a ? &b : NULL) {
        bool ended;
        free(body_of(c, &ended));
        assert_false(ended);
        assert_has(c, "data: {\"error\":");
        peer_fini(c, &loop);
    }
    finish_request(2);
    assert_int_equal(claw_cache_measure(cache).entries, 0);
}

static void who_fails_hands_over(void **state)
{
    struct peer a, b;
    ask(&a);
    struct peer *u = asked(0);
    ask(&b);
    UNTIL(&loop, claw_flight_listening() == 1);
    answer(u, "503 Busy", ONCE JSON, "{\"error\":{\"message\":\"no\"}}"); /* an answer too: for both */
    expect(&a, "miss", "{\"error\":{\"message\":\"no\"}}");
    expect(&b, "coalesced", "{\"error\":{\"message\":\"no\"}}");
    finish_request(2);
    ask(&a);
    u = asked(0);
    ask(&b);
    UNTIL(&loop, claw_flight_listening() == 1);
    reset(u);
    UNTIL(&loop, peer_has(&a, "HTTP/1.1 502")); /* a failure is its own */
    answer(asked(0), "200 OK", ONCE JSON, ANSWER);
    expect(&b, "miss", ANSWER);
    peer_fini(&a, &loop);
    finish_request(4);
}

static void control_of_the_request(void **state)
{
    static const struct { const char *control, *word; } rows[] = {{"no-store", "bypass"}, {"max-age=1", "hit"}, {"x, No-Cache", "bypass"}};
    keep_plain(CHAT_BODY);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peer c;
        char head[300];
        peer_dial(&c, &loop, claw_server_port(&server));
        int n = snprintf(head, sizeof head, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nCache-Control: %s\r\nContent-Type: application/json\r\n"
                         "Content-Length: %zu\r\n\r\n" CHAT_BODY, rows[i].control, strlen(CHAT_BODY));
        peer_send(&c, head, (size_t)n);
        if (strcmp(rows[i].word, "hit") != 0) answer(asked(0), "200 OK", ONCE JSON, ANSWER);
        expect(&c, rows[i].word, ANSWER);
        finish_request((unsigned)i + 2);
    }
}

int main(void)
{
#define KEEPS(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)
    const struct CMUnitTest tests[] = {
        KEEPS(what_was_answered_is_given_again),
        cmocka_unit_test_setup_teardown(what_ended_is_not, open_chosen, close_all),
        cmocka_unit_test_setup_teardown(what_no_strategy_wants_is_not, open_chosen, close_all),
        KEEPS(one_way_is_written_as_the_other),
        KEEPS(a_stream_is_given_again_and_joined),
        KEEPS(who_asks_meanwhile_hears_it),
        KEEPS(the_leader_leaves),
        KEEPS(all_leave),
        cmocka_unit_test_setup_teardown(it_finishes_for_the_cache, open_finishing, close_all),
        KEEPS(what_breaks_is_cut_for_all),
        KEEPS(who_fails_hands_over),
        KEEPS(control_of_the_request),
    };
    alarm(PEER_ALARM_S);
    return cmocka_run_group_tests(tests, group_open, group_close);
}
