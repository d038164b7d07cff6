/* fetch: an exchange beside the request's; bounds, refusals, and giving up at every point. */
#include "proxy/fetch.h"

#include "../http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define TAKEN 128

static struct claw_loop loop;
static struct claw_pool *pool;
static struct claw_metrics_shard *metrics;
static struct claw_fetcher *fetcher;
static struct claw_generation *generation;
static struct claw_generation_local *local;
static struct claw_arena arena;
static uv_tcp_t listener;
static uint16_t port;
static bool closed;
static struct peer peers[TAKEN]; /* what the service took, in order */
static unsigned taken;

static void on_connection(uv_stream_t *h, int status)
{
    struct peer *p = &peers[taken++];
    CLAW_ASSERT(taken <= TAKEN);
    peer_init(p);
    CLAW_ASSERT(claw_stream_accept(&p->stream, &loop, h, NULL, &peer_events, p) == 0);
}

static void on_closed(uv_handle_t *h) { closed = true; }

static void open_with(const char *allow)
{
    struct claw_conf_problems problems;
    struct claw_conf *conf;
    struct sockaddr_in a;
    char yaml[512];
    int len = sizeof a;
    assert_int_equal(claw_loop_init(&loop), 0);
    uv_tcp_init(&loop.uv, &listener);
    uv_ip4_addr("127.0.0.1", 0, &a);
    uv_tcp_bind(&listener, (struct sockaddr *)&a, 0);
    uv_tcp_getsockname(&listener, (struct sockaddr *)&a, &len);
    assert_int_equal(uv_listen((uv_stream_t *)&listener, 16, on_connection), 0);
    port = ntohs(a.sin_port);
    taken = 0;
    snprintf(yaml, sizeof yaml, "upstreams:\n  u: {type: generic, base_url: 'http://127.0.0.1:%u/base', api_keys: [sk-secret-1, sk-secret-2], headers: {x-fixed: f}}\n"
             "routes:\n  - {id: r, match: {path: '*'}, strategy: {upstream: u}}\npolicies: {allow_private: [%s]}\n", port, allow);
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    claw_conf_problems_init(&problems, &arena);
    if (claw_conf_parse("t.yaml", claw_str_of(yaml), NULL, &conf, &problems) != 0) fail_msg("%s", problems.first->text);
    assert_int_equal(claw_generation_new(conf, &generation, &problems), 0);
    assert_int_equal(claw_generation_set_upstream(generation, 0, "authorization", "Bearer ", NULL, 0), 0);
    metrics = claw_metrics_shard_new();
    assert_int_equal(claw_pool_new(&loop, metrics, &pool), 0);
    assert_int_equal(claw_fetcher_new(&loop, pool, metrics, &fetcher), 0);
    assert_int_equal(claw_generation_local_new(generation, &loop, pool, NULL, NULL, &local), 0);
}

static int start(void **state)
{
    open_with("127.0.0.0/8");
    return 0;
}

static int start_closed(void **state)
{
    open_with("");
    return 0;
}

/* Whatever a test left: nothing is open in the end, and nothing leaks. */
static int end(void **state)
{
    assert_int_equal(claw_fetcher_count(fetcher), 0);
    claw_generation_local_unref(local);
    claw_loop_turn(&loop, false);
    claw_fetcher_free(fetcher);
    claw_pool_free(pool);
    claw_generation_unref(generation);
    for (unsigned i = 0; i < taken; i++) peer_fini(&peers[i], &loop);
    closed = false;
    uv_close((uv_handle_t *)&listener, on_closed);
    UNTIL(&loop, closed);
    for (int i = 0; i < 10; i++) claw_loop_turn(&loop, false);
    claw_arena_reset(&arena);
    claw_metrics_reset();
    return claw_loop_fini(&loop, true);
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

static unsigned told;

static void on_done(struct claw_fetch *f)
{
    assert_ptr_equal(f->arg, &told);
    told++;
}

static struct claw_fetch *ask_with(struct claw_fetch_ask ask, const char **why)
{
    struct claw_fetch *f = NULL;
    const char *reason = "";
    told = 0;
    if (!ask.timeout_ms) ask.timeout_ms = 5000;
    if (!ask.method.ptr) ask.method = CLAW_STR("GET");
    if (!ask.max_body) ask.max_body = 1000;
    int rc = claw_fetch_start(fetcher, local, &ask, on_done, &told, &f, &reason);
    if (why) *why = reason;
    else assert_int_equal(rc, 0);
    if (rc != 0) assert_null(f);
    return f;
}

static struct claw_str url(const char *rest)
{
    static char text[300];
    snprintf(text, sizeof text, "http://127.0.0.1:%u%s", port, rest);
    return claw_str_of(text);
}

static struct claw_fetch *get(const char *rest) { return ask_with((struct claw_fetch_ask){.url = url(rest)}, NULL); }

/* The service's connection number i, once it was asked something. */
static struct peer *asked(unsigned i, const char *part)
{
    UNTIL(&loop, taken > i && peer_has(&peers[i], part));
    return &peers[i];
}

static void done(struct claw_fetch *f, int code)
{
    UNTIL(&loop, told);
    if (f->code != code) fail_msg("%s: %s", claw_err_name(f->code), f->error);
}

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* ---- what goes out, what comes back --------------------------------------------------------------------------- */

static void an_answer(void **state)
{
    struct claw_fetch *f = get("/a?b=c#frag");
    struct peer *p = asked(0, "\r\n\r\n");
    char host[128];
    snprintf(host, sizeof host, "GET /a?b=c HTTP/1.1\r\nhost: 127.0.0.1:%u\r\naccept-encoding: identity\r\n\r\n", port);
    assert_true(peer_has(p, host));
    peer_say(p, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    done(f, CLAW_OK);
    assert_int_equal(f->head->status, 200);
    assert_true(claw_str_eqz(claw_buf_str(&f->body), "hello"));
    claw_fetch_free(f);
    /* The connection was kept; a URL without a path asks for /. */
    f = get("");
    asked(0, "GET / HTTP/1.1");
    peer_say(p, OK);
    done(f, CLAW_OK);
    claw_fetch_free(f);
    f = get("?x");
    asked(0, "GET /?x HTTP/1.1");
    peer_say(p, OK);
    done(f, CLAW_OK);
    claw_fetch_free(f);
    assert_int_equal(taken, 1);
}

static void an_upstreams_key(void **state)
{
    struct claw_conf_header h[] = {{CLAW_STR("Authorization"), CLAW_STR("mine")}, {CLAW_STR("X-FIXED"), CLAW_STR("mine")}, {CLAW_STR("x-own"), CLAW_STR("o")}};
    struct claw_fetch *f = ask_with((struct claw_fetch_ask){.path = CLAW_STR("/v1/x?y"), .headers = h, .headers_n = 3, .method = CLAW_STR("POST"), .body = CLAW_STR("{}")}, NULL);
    struct peer *p = asked(0, "\r\n\r\n{}");
    assert_true(peer_has(p, "POST /base/x?y HTTP/1.1\r\n") && peer_has(p, "authorization: Bearer sk-secret-") && peer_has(p, "x-fixed: f\r\n"));
    assert_true(peer_has(p, "x-own: o\r\n") && peer_has(p, "content-length: 2\r\n"));
    assert_false(peer_has(p, "mine"));
    peer_say(p, OK);
    done(f, CLAW_OK);
    claw_fetch_free(f);
    f = ask_with((struct claw_fetch_ask){.path = CLAW_STR("")}, NULL);
    asked(0, "GET /base HTTP/1.1");
    claw_fetch_free(f);
}

static void head_requests_have_no_body(void **state)
{
    struct claw_fetch *f = ask_with((struct claw_fetch_ask){.url = url("/"), .method = CLAW_STR("HEAD")}, NULL);
    peer_say(asked(0, "HEAD / "), "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n");
    done(f, CLAW_OK);
    assert_int_equal(claw_buf_size(&f->body), 0);
    claw_fetch_free(f);
}

static void what_is_not_valid(void **state)
{
    static const char *const urls[] = {"", "x", "ftp://a/", "http://", "http:///", "http://u:p@h/", "http://h:0/", "http://h/a b", "http://h/\r\nx: y", "http://h/\x7f", "http://h\r\n/"};
    static const char *const fields[][2] = {{"a b", "c"}, {"a", "b\r\nc: d"}, {"", "x"}, {"Host", "x"}, {"content-length", "1"}, {"Transfer-Encoding", "chunked"},
                                            {"connection", "x"}, {"Proxy-Authorization", "x"}, {"te", "x"}, {"expect", "100-continue"}, {"upgrade", "x"}};
    static const char *const paths[] = {"/../x", "/a/./b", "/%2e%2E/x", "/..?x", "/a b", "/\r\n"};
    const char *why;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        assert_null(ask_with((struct claw_fetch_ask){.url = claw_str_of(urls[i])}, &why));
        assert_true(*why);
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct claw_conf_header h = {claw_str_of(fields[i][0]), claw_str_of(fields[i][1])};
        if (ask_with((struct claw_fetch_ask){.url = url("/"), .headers = &h, .headers_n = 1}, &why)) fail_msg("%s", fields[i][0]);
        if (ask_with((struct claw_fetch_ask){.path = CLAW_STR("/"), .headers = &h, .headers_n = 1}, &why)) fail_msg("%s", fields[i][0]);
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (ask_with((struct claw_fetch_ask){.path = claw_str_of(paths[i])}, &why)) fail_msg("%s", paths[i]);
    assert_int_equal(claw_fetcher_count(fetcher), 0);
}

/* ---- failing -------------------------------------------------------------------------------------------------- */

static void too_large(void **state)
{
    struct claw_fetch *f = get("/1");
    peer_say(asked(0, "\r\n\r\n"), "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n");
    done(f, CLAW_EBODY_TOO_LARGE);
    claw_fetch_free(f);
    f = get("/2");
    struct peer *p = asked(1, "\r\n\r\n");
    peer_say(p, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 11; i++) peer_say(p, "64\r\n" "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" "\r\n");
    done(f, CLAW_EBODY_TOO_LARGE);
    claw_fetch_free(f);
}

static void its_time_is_for_all_of_it(void **state)
{
    struct claw_fetch *f = get("/");
    struct peer *p = asked(0, "\r\n\r\n");
    peer_say(p, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 49; i++) {
        peer_say(p, "1\r\nx\r\n");
        size_t before = claw_buf_size(&f->body);
        UNTIL(&loop, claw_buf_size(&f->body) > before);
        claw_loop_advance(&loop, 100);
        assert_int_equal(told, 0);
    }
    claw_loop_advance(&loop, 300);
    done(f, CLAW_EDEADLINE);
    UNTIL(&loop, p->ended);
    claw_fetch_free(f);
}

static void a_connection_that_went_stale(void **state)
{
    struct claw_fetch *f = get("/1");
    struct peer *p = asked(0, "\r\n\r\n");
    peer_say(p, OK);
    done(f, CLAW_OK);
    claw_fetch_free(f);
    f = get("/2");
    asked(0, "GET /2");
    claw_stream_close(&p->stream);
    peer_say(asked(1, "GET /2"), OK);
    done(f, CLAW_OK);
    claw_fetch_free(f);
    f = get("/3");
    asked(1, "GET /3");
    claw_stream_close(&peers[1].stream);
    asked(2, "GET /3");
    claw_stream_close(&peers[2].stream); /* a fresh one: it failed */
    done(f, CLAW_EUPSTREAM_EOF);
    claw_fetch_free(f);
}

static void private_addresses(void **state)
{
    static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char text[100];
        snprintf(text, sizeof text, "http://%s:%u/", hosts[i], port);
        struct claw_fetch *f = ask_with((struct claw_fetch_ask){.url = claw_str_of(text)}, NULL);
        done(f, CLAW_EDENIED);
        claw_fetch_free(f);
    }
    assert_int_equal(taken, 0);
    /* An upstream's address is the configuration's own. */
    struct claw_fetch *f = ask_with((struct claw_fetch_ask){.path = CLAW_STR("/")}, NULL);
    asked(0, "GET /base/");
    claw_fetch_free(f);
}

/* The connection on which this was asked. */
static struct peer *whose(const char *part)
{
    for (;;) {
        for (unsigned i = 0; i < taken; i++)
            if (peer_has(&peers[i], part)) return &peers[i];
        claw_loop_turn(&loop, true);
    }
}

/* ---- giving up ------------------------------------------------------------------------------------------------ */

static void given_up_at_every_point(void **state)
{
    claw_fetch_free(get("/at-once"));
    struct claw_fetch *f = get("/asked");
    struct peer *p = whose("GET /asked");
    claw_fetch_free(f);
    UNTIL(&loop, p->ended);
    f = get("/answered");
    p = whose("GET /answered");
    peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    UNTIL(&loop, claw_buf_size(&f->body) == 3);
    claw_fetch_free(f);
    UNTIL(&loop, p->ended);
    assert_int_equal(told, 0);
}

static void many_hosts_are_not_kept(void **state)
{
    for (int i = 1; i < 100; i++) {
        char text[100];
        snprintf(text, sizeof text, "http://127.0.0.%d:%u/", i, port);
        struct claw_fetch *f = ask_with((struct claw_fetch_ask){.url = claw_str_of(text)}, NULL);
        if (i == 1) {
            peer_say(asked(0, "GET / "), OK);
            done(f, CLAW_OK);
        }
        claw_fetch_free(f);
    }
    UNTIL(&loop, peers[0].ended); /* pushed out by newer ones */
    assert_int_equal(claw_pool_idle(pool), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        T(an_answer), T(an_upstreams_key), T(head_requests_have_no_body), T(what_is_not_valid), T(too_large), T(its_time_is_for_all_of_it),
        T(a_connection_that_went_stale), cmocka_unit_test_setup_teardown(private_addresses, start_closed, end), T(given_up_at_every_point),
        T(many_hosts_are_not_kept),
    };
    alarm(PEER_ALARM_S);
    return cmocka_run_group_tests_name("proxy/fetch", tests, NULL, NULL);
}
