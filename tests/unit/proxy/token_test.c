/* token: one exchange at a time, renewed in time, waited for after failures, and given up at any point. */
#include "proxy/token.h"

#include "proxy/fetch.h"

#include "../http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define TAKEN 32

static struct claw_loop loop;
static struct claw_pool *pool;
static struct claw_metrics_shard *metrics;
static struct claw_fetcher *fetcher;
static uv_tcp_t listener;
static bool closed;
static struct peer peers[TAKEN]; /* what the endpoint took, in order: each exchange has its own connection */
static unsigned taken;
static char pem[8192];
static struct claw_conf_account account;
static struct claw_token *token;

static int make_key(void **state)
{
    FILE *f = popen("openssl genrsa 2048 2>/dev/null", "r");
    size_t n = f ? fread(pem, 1, sizeof pem - 1, f) : 0;
    if (f) pclose(f);
    return n > 1000 ? 0 : -1;
}

static void on_connection(uv_stream_t *h, int status)
{
    struct peer *p = &peers[taken++];
    CLAW_ASSERT(taken <= TAKEN);
    peer_init(p);
    CLAW_ASSERT(claw_stream_accept(&p->stream, &loop, h, NULL, &peer_events, p) == 0);
}

static void on_closed(uv_handle_t *h) { closed = true; }

static int start(void **state)
{
    static char uri[64];
    struct sockaddr_in a;
    int len = sizeof a;
    taken = 0;
    assert_int_equal(claw_loop_init(&loop), 0);
    uv_tcp_init(&loop.uv, &listener);
    uv_ip4_addr("127.0.0.1", 0, &a);
    uv_tcp_bind(&listener, (struct sockaddr *)&a, 0);
    uv_tcp_getsockname(&listener, (struct sockaddr *)&a, &len);
    assert_int_equal(uv_listen((uv_stream_t *)&listener, 16, on_connection), 0);
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/token", ntohs(a.sin_port));
    account = (struct claw_conf_account){CLAW_STR("me@here"), claw_str_of(pem), CLAW_STR(""), claw_str_of(uri)};
    metrics = claw_metrics_shard_new();
    assert_int_equal(claw_pool_new(&loop, metrics, &pool), 0);
    assert_int_equal(claw_fetcher_new(&loop, pool, metrics, &fetcher), 0);
    token = claw_token_new(&account, &loop);
    assert_non_null(token);
    return 0;
}

/* Whatever a test left: nothing is open in the end, and nothing leaks. */
static int end(void **state)
{
    if (token) claw_token_unref(token);
    claw_loop_turn(&loop, false);
    assert_int_equal(claw_fetcher_count(fetcher), 0);
    claw_fetcher_free(fetcher);
    claw_pool_free(pool);
    for (unsigned i = 0; i < taken; i++) peer_fini(&peers[i], &loop);
    closed = false;
    uv_close((uv_handle_t *)&listener, on_closed);
    UNTIL(&loop, closed);
    for (int i = 0; i < 10; i++) claw_loop_turn(&loop, false);
    claw_metrics_reset();
    return claw_loop_fini(&loop, true);
}

static bool ready(const char **why) { return claw_token_ready(token, fetcher, why) == 0; }

/* The exchange number i is there in full. */
static struct peer *exchange(unsigned i)
{
    UNTIL(&loop, taken > i && peer_has(&peers[i], "&assertion=") && peer_has(&peers[i], "\r\n\r\ngrant_type="));
    return &peers[i];
}

/* It is answered, and that was taken in. */
static void answer(unsigned i, const char *status, const char *body)
{
    char text[512];
    struct peer *p = exchange(i);
    snprintf(text, sizeof text, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(body), body);
    peer_say(p, text);
    UNTIL(&loop, claw_fetcher_count(fetcher) == 0);
}

#define GOOD(name, seconds) "{\"access_token\":\"" name "\",\"expires_in\":" seconds "}"
#define assert_text(z) assert_true(claw_str_eqz(claw_token_text(token), z))

static void one_at_a_time(void **state)
{
    const char *why;
    assert_text("");
    for (int i = 0; i < 3; i++) {
        assert_false(ready(&why));
        assert_string_equal(why, "there is no access token yet");
        assert_int_equal(claw_fetcher_count(fetcher), 1);
    }
    answer(0, "200 OK", GOOD("first", "3600"));
    assert_true(ready(&why));
    assert_text("first");
    assert_int_equal(taken, 1);
}

static void renewed_before_its_end(void **state)
{
    const char *why;
    assert_false(ready(&why));
    answer(0, "200 OK", GOOD("first", "3600"));
    claw_loop_advance(&loop, 3290000);
    assert_true(ready(&why));
    assert_int_equal(claw_fetcher_count(fetcher), 0);
    claw_loop_advance(&loop, 20000);
    assert_true(ready(&why)); /* the old one serves */
    assert_text("first");
    answer(1, "200 OK", GOOD("second", "3600"));
    assert_true(ready(&why));
    assert_text("second");
    claw_loop_advance(&loop, 3310000);
    assert_true(ready(&why));
    answer(2, "503 No", ""); /* that it cannot be renewed now does not matter, */
    assert_true(ready(&why));
    assert_int_equal(claw_fetcher_count(fetcher), 0);
    claw_loop_advance(&loop, 290000); /* until its end */
    assert_false(ready(&why));
    answer(3, "200 OK", GOOD("third", "60.5"));
    assert_true(ready(&why));
    assert_text("third");
}

static void failures_are_waited_out(void **state)
{
    const char *why;
    unsigned n = 0;
    assert_false(ready(&why));
    for (unsigned wait = 1000; n < 8; wait = wait * 2 < 60000 ? wait * 2 : 60000) {
        answer(n++, "400 Bad", "{\"error\":\"invalid_grant\"}");
        assert_false(ready(&why));
        assert_string_equal(why, "the token endpoint answered with status 400 (invalid_grant)");
        claw_loop_advance(&loop, wait - 100);
        assert_false(ready(&why));
        assert_int_equal(claw_fetcher_count(fetcher), 0);
        claw_loop_advance(&loop, 200);
        assert_false(ready(&why));
        assert_int_equal(claw_fetcher_count(fetcher), 1);
    }
    answer(n, "200 OK", GOOD("t", "3600"));
    assert_true(ready(&why));
}

static void no_answer(void **state)
{
    const char *why;
    assert_false(ready(&why));
    exchange(0);
    claw_loop_advance(&loop, 10100);
    UNTIL(&loop, claw_fetcher_count(fetcher) == 0);
    assert_false(ready(&why));
    assert_string_equal(why, "the token endpoint could not be asked: no whole answer within 10000 ms");
}

static void odd_answers(void **state)
{
    static const char *const bodies[] = {"", "[]", "{}", "{\"access_token\":1}", "{\"access_token\":\"\"}", "{\"access_token\":\"a\\nb\"}", "{\"access_token\":\"a\""};
    const char *why;
    for (unsigned i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        assert_false(ready(&why));
        answer(i, "200 OK", bodies[i]);
        assert_false(ready(&why));
        assert_string_equal(why, "the token endpoint's answer has no access_token");
        claw_loop_advance(&loop, 61000);
    }
    assert_false(ready(&why));
    answer(taken, "200 OK", "{\"access_token\":\"x\",\"expires_in\":\"soon\"}"); /* an hour */
    claw_loop_advance(&loop, 3000000);
    assert_true(ready(&why));
    assert_int_equal(claw_fetcher_count(fetcher), 0);
}

static void given_up(void **state)
{
    const char *why;
    assert_false(ready(&why));
    claw_token_unref(token); /* while it connects */
    token = claw_token_new(&account, &loop);
    assert_int_equal(claw_fetcher_count(fetcher), 0);
    assert_false(ready(&why));
    UNTIL(&loop, taken && peer_has(&peers[taken - 1], "&assertion="));
    claw_token_unref(token); /* while the answer is waited for */
    token = NULL;
    assert_int_equal(claw_fetcher_count(fetcher), 0);
}

static void whose_it_is(void **state)
{
    struct claw_conf_account other = account;
    assert_true(claw_token_is_of(token, &account));
    other.email = CLAW_STR("you@here");
    assert_false(claw_token_is_of(token, &other));
    other = account;
    other.token_uri = CLAW_STR("http://elsewhere");
    assert_false(claw_token_is_of(token, &other));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)

int main(void)
{
    alarm(PEER_ALARM_S);
    const struct CMUnitTest tests[] = {TEST(one_at_a_time), TEST(renewed_before_its_end), TEST(failures_are_waited_out), TEST(no_answer), TEST(odd_answers),
                                       TEST(given_up), TEST(whose_it_is)};
    return cmocka_run_group_tests(tests, make_key, NULL);
}
