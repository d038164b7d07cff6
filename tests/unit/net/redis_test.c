/* redis: the pipeline, its bounds, and what becomes of calls when Redis is slow, frozen, gone or wrong; against a scripted
 * server on the test's own loop. */
#include "net/redis.h"

#include "net/stream.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define UNTIL(cond) do { while (!(cond)) claw_loop_turn(&loop, true); } while (0)

static struct claw_loop loop;
static struct claw_redis *list;
static struct claw_conf_redis conf;

/* ---- the server --------------------------------------------------------------------------------------------- */

struct side {
    struct claw_stream stream;
    struct claw_buf in; /* since the last answer */
    bool open, ended, closed;
};

static uv_tcp_t listener;
static struct side sides[64];
static unsigned sides_n;
static const char *greeting; /* said when PING comes; NULL: nothing */

static bool has(const struct claw_buf *b, const char *z) { return claw_str_find(claw_buf_str(b), claw_str_of(z)) >= 0; }

static void say(struct side *s, const char *z)
{
    uv_buf_t b = uv_buf_init((char *)z, (unsigned)strlen(z));
    assert_int_equal(claw_stream_write(&s->stream, &b, 1), 0);
}

static void side_open(struct claw_stream *s, int code) { ((struct side *)s->arg)->open = true; }

static void side_read(struct claw_stream *stream, const char *data, size_t n)
{
    struct side *s = stream->arg;
    assert_int_equal(claw_buf_add(&s->in, data, n), 0);
    if (!greeting || !has(&s->in, "PING\r\n")) return;
    say(s, greeting);
    if (has(&s->in, "AUTH")) assert_true(has(&s->in, "*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$6\r\npw1234\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n*1\r\n"));
    claw_buf_clear(&s->in);
}

static void side_end(struct claw_stream *s, int code) { ((struct side *)s->arg)->ended = true; }
static void side_close(struct claw_stream *s) { ((struct side *)s->arg)->closed = true; }
static const struct claw_stream_events side_events = {side_open, side_read, side_end, NULL, side_close, NULL};

static void on_connection(uv_stream_t *l, int status)
{
    struct side *s = &sides[sides_n++];
    memset(s, 0, sizeof *s);
    claw_buf_init(&s->in, 0);
    assert_int_equal(claw_stream_accept(&s->stream, &loop, l, NULL, &side_events, s), 0);
}

static void listen_now(void)
{
    struct sockaddr_in at;
    assert_int_equal(uv_ip4_addr("127.0.0.1", conf.port, &at), 0);
    assert_int_equal(uv_tcp_init(&loop.uv, &listener), 0);
    assert_int_equal(uv_tcp_bind(&listener, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&listener, 128, on_connection), 0);
    int n = sizeof at;
    assert_int_equal(uv_tcp_getsockname(&listener, (struct sockaddr *)&at, &n), 0);
    conf.port = ntohs(at.sin_port);
}

static void listen_no_more(void) { uv_close((uv_handle_t *)&listener, NULL); }

static int setup(void **state)
{
    static const char text[] = "redis://h";
    alarm(120);
    conf = (struct claw_conf_redis){.text = CLAW_STR(text), .host = CLAW_STR("127.0.0.1")};
    greeting = "+PONG\r\n";
    sides_n = 0;
    if (claw_loop_init(&loop) != 0) return -1;
    listen_now();
    return 0;
}

static int teardown(void **state)
{
    claw_loop_turn(&loop, false);
    claw_redis_free_all(&list);
    for (unsigned i = 0; i < sides_n; i++) {
        if (!sides[i].closed) claw_stream_close(&sides[i].stream);
        UNTIL(sides[i].closed);
        claw_buf_fini(&sides[i].in);
    }
    if (!uv_is_closing((uv_handle_t *)&listener)) listen_no_more();
    return claw_loop_fini(&loop, true);
}

/* ---- calls -------------------------------------------------------------------------------------------------- */

static unsigned told;
static void on_done(struct claw_redis_call *c)
{
    told++;
    ++*(unsigned *)c->arg;
}

static unsigned dones[CLAW_REDIS_CALLS + 8];
static const char *why;

static int start(unsigned i, const char *word, unsigned ms, struct claw_redis_call **out)
{
    struct claw_str words[2] = {CLAW_STR("GET"), claw_str_of(word)};
    struct claw_redis *x = claw_redis_of(&list, &loop, &conf);
    assert_non_null(x);
    dones[i] = 0;
    return claw_redis_start(x, words, 2, ms, on_done, &dones[i], out, &why);
}

static struct claw_redis_call *get(unsigned i, const char *word)
{
    struct claw_redis_call *c;
    assert_int_equal(start(i, word, 1000, &c), CLAW_OK);
    assert_int_equal(dones[i], 0);
    return c;
}

/* Connected, with nothing under way. */
static void warm(void)
{
    struct claw_redis_call *c = get(0, "warm");
    UNTIL(sides_n && has(&sides[sides_n - 1].in, "warm\r\n"));
    claw_buf_clear(&sides[sides_n - 1].in);
    say(&sides[sides_n - 1], "$2\r\nok\r\n");
    UNTIL(dones[0]);
    assert_int_equal(c->code, CLAW_OK);
    assert_string_equal(c->reply->str, "ok");
    claw_redis_call_free(c);
}

static void replies_come_in_order_in_any_pieces(void **state)
{
    struct claw_redis_call *c[3] = {get(0, "a"), get(1, "b"), get(2, "c")};
    UNTIL(sides_n && has(&sides[0].in, "c\r\n"));
    assert_string_equal("*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nGET\r\n$1\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\nc\r\n",
                        (claw_buf_add(&sides[0].in, "", 1), claw_buf_str(&sides[0].in).ptr));
    for (const char *p = "$1\r\nx\r\n-ERR no\r\n*2\r\n:7\r\n$-1\r\n"; *p; p++) {
        char one[2] = {*p, 0};
        say(&sides[0], one);
        claw_loop_turn(&loop, false);
    }
    UNTIL(dones[2]);
    assert_int_equal(dones[0] + dones[1] + dones[2], 3);
    assert_string_equal(c[0]->reply->str, "x");
    assert_int_equal(c[1]->reply->type, REDIS_REPLY_ERROR);
    assert_int_equal(c[2]->reply->elements, 2);
    assert_int_equal(c[2]->reply->element[0]->integer, 7);
    for (int i = 0; i < 3; i++) claw_redis_call_free(c[i]);
    assert_int_equal(claw_redis_count(list), 0);
}

static void the_greeting_says_who_and_where(void **state)
{
    conf.user = CLAW_STR("ann");
    conf.password = CLAW_STR("pw1234");
    conf.db = 7;
    greeting = "+OK\r\n+OK\r\n+PONG\r\n";
    warm();
}

static void a_refused_greeting_is_down(void **state)
{
    greeting = "-WRONGPASS no\r\n";
    struct claw_redis_call *c = get(0, "a"), *d;
    UNTIL(dones[0]);
    assert_int_equal(c->code, CLAW_ECONNECT);
    assert_non_null(strstr(c->error, "WRONGPASS no"));
    claw_redis_call_free(c);
    assert_int_equal(start(1, "b", 1000, &d), CLAW_ECONNECT);
    assert_non_null(strstr(why, "WRONGPASS no"));
}

static void what_is_given_up_keeps_its_place(void **state)
{
    warm();
    struct claw_redis_call *a = get(1, "a"), *b = get(2, "b");
    claw_redis_call_free(a);
    assert_int_equal(claw_redis_count(list), 2);
    UNTIL(has(&sides[0].in, "b\r\n"));
    say(&sides[0], "$1\r\nA\r\n$1\r\nB\r\n");
    UNTIL(dones[2]);
    assert_int_equal(dones[1], 0);
    assert_string_equal(b->reply->str, "B");
    claw_redis_call_free(b);
}

static void a_late_reply_is_nobodys(void **state)
{
    warm();
    struct claw_redis_call *a, *b = get(2, "b");
    assert_int_equal(start(1, "a", 50, &a), CLAW_OK);
    claw_loop_advance(&loop, 100);
    assert_int_equal(dones[1], 1);
    assert_int_equal(a->code, CLAW_EDEADLINE);
    claw_redis_call_free(a);
    UNTIL(has(&sides[0].in, "a\r\n"));
    say(&sides[0], "$1\r\nB\r\n$1\r\nA\r\n");
    UNTIL(dones[2] && claw_redis_count(list) == 0);
    assert_string_equal(b->reply->str, "B");
    assert_int_equal(dones[1], 1);
    claw_redis_call_free(b);
}

static void frozen_is_down_and_comes_back(void **state)
{
    warm();
    struct claw_redis_call *a = get(1, "a"), *b, *c;
    assert_int_equal(start(2, "b", 60000, &b), CLAW_OK);
    greeting = NULL;
    claw_loop_advance(&loop, 1100);
    assert_int_equal(a->code, CLAW_EDEADLINE);
    assert_int_equal(dones[2], 1);
    assert_int_equal(b->code, CLAW_ECONNECT);
    assert_non_null(strstr(b->error, "does not answer"));
    claw_redis_call_free(a);
    claw_redis_call_free(b);
    for (int i = 0; i < 3; i++) { /* while it is tried again, each greeting has its second */
        assert_int_equal(start(3, "c", 1000, &c), CLAW_ECONNECT);
        claw_loop_advance(&loop, 100u << i);
        UNTIL(sides_n == 2 + (unsigned)i && has(&sides[sides_n - 1].in, "PING"));
        assert_int_equal(start(3, "c", 1000, &c), CLAW_ECONNECT);
        claw_loop_advance(&loop, 1100);
    }
    greeting = "+PONG\r\n";
    claw_loop_advance(&loop, 1000);
    while (start(3, "c", 1000, &c) != CLAW_OK) claw_loop_turn(&loop, true);
    UNTIL(has(&sides[4].in, "c\r\n"));
    say(&sides[4], ":1\r\n");
    UNTIL(dones[3]);
    assert_int_equal(c->reply->integer, 1);
    claw_redis_call_free(c);
}

static void a_lost_connection_is_made_anew_by_the_next_call(void **state)
{
    warm();
    struct claw_redis_call *a = get(1, "a");
    UNTIL(has(&sides[0].in, "a\r\n"));
    claw_stream_close(&sides[0].stream);
    UNTIL(dones[1]);
    assert_int_equal(a->code, CLAW_ECONNECT);
    claw_redis_call_free(a);
    warm();
    assert_int_equal(sides_n, 2);
}

static void nobody_there_is_told_at_once(void **state)
{
    listen_no_more();
    claw_loop_turn(&loop, false);
    struct claw_redis_call *a = get(0, "a");
    UNTIL(dones[0]);
    assert_int_equal(a->code, CLAW_ECONNECT);
    assert_non_null(strstr(a->error, "connection refused"));
    claw_redis_call_free(a);
    listen_now();
    claw_loop_advance(&loop, 200);
    while (start(1, "a", 1000, &a) != CLAW_OK) claw_loop_turn(&loop, true);
    claw_redis_call_free(a);
}

static void left_alone_after_a_minute_without_calls(void **state)
{
    greeting = NULL;
    struct claw_redis_call *a = get(0, "a");
    UNTIL(sides_n == 1);
    claw_loop_advance(&loop, 1100);
    assert_int_equal(a->code, CLAW_ECONNECT);
    claw_redis_call_free(a);
    claw_loop_advance(&loop, 75000); /* a minute, and what was under way by then */
    greeting = "+PONG\r\n";
    warm(); /* it is not refused, as it would be in a pause */
}

static void bounds_hold(void **state)
{
    static struct claw_redis_call *all[CLAW_REDIS_CALLS];
    struct claw_redis_call *more;
    for (unsigned i = 0; i < CLAW_REDIS_CALLS; i++) assert_int_equal(start(i, "a", 60000, &all[i]), CLAW_OK);
    assert_int_equal(start(CLAW_REDIS_CALLS, "a", 1000, &more), CLAW_EAGAIN);
    for (unsigned i = 0; i < CLAW_REDIS_CALLS; i++) claw_redis_call_free(all[i]);
    assert_int_equal(start(CLAW_REDIS_CALLS, "a", 1000, &more), CLAW_EAGAIN); /* they keep their places */
    char *large = calloc(1, (1u << 20) + 1);
    memset(large, 'x', 1u << 20);
    struct claw_conf_redis other = conf;
    other.text = CLAW_STR("redis://other");
    conf = other;
    assert_int_equal(start(0, large, 1000, &more), CLAW_EBODY_TOO_LARGE);
    large[1000000] = 0;
    unsigned n = 0;
    while (n < 20 && start(n, large, 1000, &all[n]) == CLAW_OK) n++;
    assert_int_equal(n, 8);
    for (unsigned i = 0; i < n; i++) claw_redis_call_free(all[i]);
    free(large);
}

static void nonsense_ends_the_connection(void **state)
{
    static const char *const wrong[] = {"!?\r\n", ":1\r\n:2\r\n", "*65537\r\n"};
    static const char *const names[] = {"redis://first", "redis://second", "redis://third"};
    for (int i = 0; i < 3; i++) {
        conf.text = claw_str_of(names[i]);
        warm();
        struct claw_redis_call *a = get(1, "a");
        UNTIL(has(&sides[i].in, "a\r\n"));
        say(&sides[i], wrong[i]);
        UNTIL(sides[i].ended);
        assert_int_equal(dones[1], 1);
        assert_int_equal(a->code, i == 1 ? CLAW_OK : CLAW_ECONNECT);
        assert_true(i < 2 || strstr(a->error, "more than 65536 elements"));
        claw_redis_call_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(replies_come_in_order_in_any_pieces), T(the_greeting_says_who_and_where), T(a_refused_greeting_is_down),
        T(what_is_given_up_keeps_its_place), T(a_late_reply_is_nobodys), T(frozen_is_down_and_comes_back),
        T(a_lost_connection_is_made_anew_by_the_next_call), T(nobody_there_is_told_at_once),
        T(left_alone_after_a_minute_without_calls), T(bounds_hold), T(nonsense_ends_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
