/* pool: connections are kept, found again, and given up in time. */
#include "proxy/pool.h"

#include "../http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct claw_loop loop;
static struct claw_pool *pool;
static uv_tcp_t listener;
static bool closed;
static struct peer peers[64]; /* what the upstream took, in order */
static unsigned taken;
static struct claw_conf_upstream upstream;

static void on_connection(uv_stream_t *h, int status)
{
    struct peer *p = &peers[taken++];
    CLAW_ASSERT(taken <= sizeof peers / sizeof *peers);
    peer_init(p);
    CLAW_ASSERT(claw_stream_accept(&p->stream, &loop, h, NULL, &peer_events, p) == 0);
}

static void on_closed(uv_handle_t *h) { closed = true; }

static int open_pool(void **state)
{
    struct sockaddr_in a;
    int len = sizeof a;
    if (claw_loop_init(&loop) != 0) return -1;
    loop.lanes.long_us = 60000000;
    uv_tcp_init(&loop.uv, &listener);
    uv_ip4_addr("127.0.0.1", 0, &a);
    uv_tcp_bind(&listener, (struct sockaddr *)&a, 0);
    uv_tcp_getsockname(&listener, (struct sockaddr *)&a, &len);
    taken = 0;
    upstream = (struct claw_conf_upstream){.name = CLAW_STR("u"), .url = {.host = CLAW_STR("127.0.0.1"), .port = ntohs(a.sin_port)}};
    if (claw_pool_new(&loop, NULL, &pool) != 0) return -1;
    return uv_listen((uv_stream_t *)&listener, 128, on_connection);
}

/* Whatever a test left, nothing is open and nothing leaks in the end. */
static int close_pool(void **state)
{
    if (pool) claw_pool_free(pool);
    pool = NULL;
    for (unsigned i = 0; i < taken; i++) peer_fini(&peers[i], &loop);
    closed = false;
    uv_close((uv_handle_t *)&listener, on_closed);
    UNTIL(&loop, closed);
    for (int i = 0; i < 10; i++) claw_loop_turn(&loop, false);
    return claw_loop_fini(&loop, true);
}

static void settle(void)
{
    for (int i = 0; i < 10; i++) claw_loop_turn(&loop, false);
}

/* ---- a lease ------------------------------------------------------------------------------------------------------ */

struct asker {
    struct claw_lease lease;
    struct claw_client *client;
    struct claw_endpoint *drop; /* given back from within on_error */
    int code;
    bool told;
};

static void on_ready(struct claw_lease *l, struct claw_client *c)
{
    struct asker *a = l->arg;
    assert_false(a->told);
    a->told = true;
    a->client = c;
}

static void on_error(struct claw_lease *l, int code, const char *text)
{
    struct asker *a = l->arg;
    assert_false(a->told);
    assert_true(text && *text);
    a->told = true;
    a->code = code;
    if (a->drop) claw_endpoint_unref(a->drop);
}

static void ask(struct asker *a, struct claw_endpoint *e, bool fresh)
{
    *a = (struct asker){.lease = {.on_ready = on_ready, .on_error = on_error, .arg = a}};
    claw_pool_lease(e, &a->lease, 5000, fresh);
}

static struct claw_client *get(struct claw_endpoint *e, bool fresh)
{
    struct asker a;
    ask(&a, e, fresh);
    UNTIL(&loop, a.told);
    assert_int_equal(a.code, 0);
    return a.client;
}

static struct claw_endpoint *endpoint(void)
{
    struct claw_endpoint *e = claw_pool_endpoint(pool, &upstream, NULL);
    assert_non_null(e);
    return e;
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

static void endpoints_are_shared_by_settings(void **state)
{
    struct claw_endpoint *e = endpoint(), *other;
    assert_ptr_equal(endpoint(), e);
    upstream.url.host = CLAW_STR("LOCALHOST");
    other = endpoint();
    assert_ptr_not_equal(other, e);
    claw_endpoint_unref(other);
    upstream.url.host = CLAW_STR("127.0.0.1");
    upstream.url.port++;
    other = endpoint();
    assert_ptr_not_equal(other, e);
    claw_endpoint_unref(other);
    upstream.url.port--;
    upstream.name = CLAW_STR("v"); /* counted apart */
    other = endpoint();
    assert_ptr_not_equal(other, e);
    claw_endpoint_unref(other);
    claw_endpoint_unref(e);
    claw_endpoint_unref(e);
}

static void the_last_given_back_is_the_next(void **state)
{
    struct claw_endpoint *e = endpoint();
    struct claw_client *a = get(e, false), *b = get(e, false);
    struct asker asker;
    assert_ptr_not_equal(a, b);
    assert_false(a->reused || b->reused);
    claw_pool_release(a);
    claw_pool_release(b);
    assert_int_equal(claw_pool_idle(pool), 2);
    ask(&asker, e, false);
    assert_true(asker.told); /* at once */
    assert_ptr_equal(asker.client, b);
    assert_true(b->reused);
    assert_int_equal(claw_pool_idle(pool), 1);
    struct claw_client *c = get(e, true); /* never a kept one */
    assert_true(c != a && c != b && !c->reused);
    assert_int_equal(taken, 3);
    claw_pool_release(b);
    claw_pool_release(c);
    claw_endpoint_unref(e);
    assert_int_equal(claw_pool_idle(pool), 0); /* nobody refers to it */
    UNTIL(&loop, peers[0].ended && peers[1].ended && peers[2].ended);
}

static void idle_connections_have_their_time(void **state)
{
    struct claw_endpoint *e = endpoint();
    struct claw_client *a = get(e, false), *b = get(e, false);
    claw_pool_release(a);
    claw_loop_advance(&loop, CLAW_POOL_IDLE_MS / 2);
    claw_pool_release(b);
    claw_loop_advance(&loop, CLAW_POOL_IDLE_MS / 2 - 1000);
    assert_int_equal(claw_pool_idle(pool), 2);
    claw_loop_advance(&loop, 2000);
    assert_int_equal(claw_pool_idle(pool), 1); /* the older one */
    UNTIL(&loop, peers[0].ended);
    assert_false(peers[1].ended);
    claw_loop_advance(&loop, CLAW_POOL_IDLE_MS / 2);
    assert_int_equal(claw_pool_idle(pool), 0);
    UNTIL(&loop, peers[1].ended);
    struct claw_client *c = get(e, false);
    assert_false(c->reused);
    claw_pool_release(c);
    claw_loop_advance(&loop, CLAW_POOL_IDLE_MS + 1000); /* and the clock is set again */
    assert_int_equal(claw_pool_idle(pool), 0);
    claw_endpoint_unref(e);
}

static void idle_connections_that_end_are_forgotten(void **state)
{
    struct claw_endpoint *e = endpoint();
    struct claw_client *c[3];
    for (int i = 0; i < 3; i++) c[i] = get(e, false);
    for (int i = 0; i < 3; i++) claw_pool_release(c[i]);
    static const unsigned order[] = {1, 0, 2}; /* the middle, the oldest, the only one */
    for (unsigned i = 0; i < 3; i++) {
        if (i == 1) peer_say(&peers[order[i]], "HTTP/1.1 408 Request Timeout\r\n\r\n");
        else claw_stream_shutdown(&peers[order[i]].stream);
        UNTIL(&loop, claw_pool_idle(pool) == 2 - i);
    }
    claw_endpoint_unref(e);
}

/* Bytes that were not asked for: for a while no connection to there is used twice. */
static void who_speaks_unasked_is_not_kept(void **state)
{
    struct claw_endpoint *e = endpoint();
    struct claw_client *one = get(e, false), *two = get(e, true), *three = get(e, true);
    claw_pool_release(one);
    claw_pool_release(two);
    assert_int_equal(claw_pool_idle(pool), 2);
    UNTIL(&loop, taken == 3);
    peer_say(&peers[0], "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    UNTIL(&loop, claw_pool_idle(pool) == 0);
    claw_pool_release(three);
    assert_int_equal(claw_pool_idle(pool), 0);
    claw_loop_advance(&loop, CLAW_POOL_STRAY_MS + CLAW_LOOP_TICK_MS);
    claw_pool_release(get(e, false));
    assert_int_equal(claw_pool_idle(pool), 1);
    claw_endpoint_unref(e);
}

static void connections_come_back_to_nobody(void **state)
{
    struct claw_endpoint *e = endpoint();
    struct claw_client *c = get(e, false);
    claw_endpoint_unref(e); /* its generation is gone, the request still ran */
    claw_pool_release(c);
    assert_int_equal(claw_pool_idle(pool), 0);
    UNTIL(&loop, taken == 1 && peers[0].ended);
}

static void a_pool_may_go_before_its_connections(void **state)
{
    struct claw_endpoint *e = endpoint();
    struct claw_client *a = get(e, false), *b = get(e, false);
    claw_pool_release(a);
    claw_pool_free(pool);
    pool = NULL;
    UNTIL(&loop, peers[0].ended);
    claw_pool_release(b);
    claw_endpoint_unref(e); /* the last to go takes the pool along: the sanitizers say so */
    UNTIL(&loop, peers[1].ended);
    settle();
}

static void leases_may_be_cancelled(void **state)
{
    struct claw_endpoint *e = endpoint();
    struct asker a;
    ask(&a, e, false); /* a literal address: connecting */
    claw_pool_cancel(&a.lease);
    claw_pool_cancel(&a.lease);
    settle();
    assert_false(a.told);
    upstream.url.host = CLAW_STR("localhost");
    struct claw_endpoint *named = endpoint();
    ask(&a, named, false); /* resolving */
    claw_pool_cancel(&a.lease);
    settle();
    assert_false(a.told);
    claw_endpoint_unref(named);
    ask(&a, e, false);
    claw_endpoint_unref(e); /* it lives as long as its lease */
    claw_pool_cancel(&a.lease);
    settle();
}

static void nobody_there(void **state)
{
    struct sockaddr_in a;
    int len = sizeof a;
    uv_tcp_t bound; /* bound, not listening */
    uv_tcp_init(&loop.uv, &bound);
    uv_ip4_addr("127.0.0.1", 0, &a);
    assert_int_equal(uv_tcp_bind(&bound, (struct sockaddr *)&a, 0), 0);
    assert_int_equal(uv_tcp_getsockname(&bound, (struct sockaddr *)&a, &len), 0);
    upstream.url.port = ntohs(a.sin_port);
    struct claw_endpoint *e = endpoint();
    struct asker one;
    ask(&one, e, false);
    UNTIL(&loop, one.told);
    assert_int_equal(one.code, CLAW_ECONNECT);
    ask(&one, e, false);
    one.drop = e; /* its asker goes, and with it the endpoint */
    UNTIL(&loop, one.told);
    settle();
    closed = false;
    uv_close((uv_handle_t *)&bound, on_closed);
    UNTIL(&loop, closed);
}

static void names_that_do_not_resolve(void **state)
{
    upstream.url.host = CLAW_STR("name.invalid"); /* RFC 6761 6.4 */
    struct claw_endpoint *e = endpoint();
    struct asker a;
    ask(&a, e, false);
    UNTIL(&loop, a.told);
    assert_int_equal(a.code, CLAW_EDNS);
    claw_endpoint_unref(e);
}

/* ---- many at once --------------------------------------------------------------------------------------------------- */

#define MANY 40u
static struct asker many[MANY];

static void ask_many(struct claw_endpoint *e)
{
    for (unsigned i = 0; i < MANY; i++) ask(&many[i], e, false);
}

/* How many have begun to connect; they are the first ones. */
static unsigned begun(void)
{
    unsigned n = 0;
    while (n < MANY && (many[n].told || many[n].lease.client)) n++;
    for (unsigned i = n; i < MANY; i++) assert_false(many[i].told || many[i].lease.client);
    return n;
}

static void many_connects_are_spread_over_turns(void **state)
{
    struct claw_endpoint *e = endpoint();
    ask_many(e);
    assert_int_equal(begun(), CLAW_LANE_A_TURN);
    for (uint64_t start = loop.turn; begun() < MANY;) {
        claw_loop_turn(&loop, false);
        assert_true(begun() <= CLAW_LANE_A_TURN * (loop.turn - start + 1));
        assert_true(loop.turn - start < 10);
    }
    for (unsigned i = 0; i < MANY; i++) {
        UNTIL(&loop, many[i].told);
        assert_int_equal(many[i].code, 0);
        claw_pool_release(many[i].client);
    }
    ask(&many[0], e, false);
    assert_true(many[0].told); /* a kept one never waits */
    claw_pool_release(many[0].client);
    claw_endpoint_unref(e);
}

static void who_waits_for_its_turn_may_be_cancelled(void **state)
{
    struct claw_endpoint *e = endpoint();
    ask_many(e);
    static const unsigned off[] = {CLAW_LANE_A_TURN, CLAW_LANE_A_TURN + 3, MANY - 1, 0}; /* the last of them connects already */
    for (unsigned i = 0; i < 4; i++) claw_pool_cancel(&many[off[i]].lease);
    for (unsigned i = 0; i < MANY; i++) {
        bool is_off = false;
        for (unsigned k = 0; k < 4; k++) is_off |= off[k] == i;
        if (is_off) continue;
        UNTIL(&loop, many[i].told);
        assert_int_equal(many[i].code, 0);
        claw_pool_release(many[i].client);
    }
    settle();
    for (unsigned k = 0; k < 4; k++) assert_false(many[off[k]].told);
    claw_endpoint_unref(e);
}

static void an_endpoint_may_go_while_its_leases_wait(void **state)
{
    struct claw_endpoint *e = endpoint();
    ask_many(e);
    claw_endpoint_unref(e); /* it lives as long as its leases */
    for (unsigned i = MANY; i-- > 0;) claw_pool_cancel(&many[i].lease); /* the last one takes it along */
    settle();
    for (unsigned i = 0; i < MANY; i++) assert_false(many[i].told);
    e = endpoint();
    ask_many(e);
    claw_endpoint_unref(e);
    for (unsigned i = 0; i < MANY; i++) {
        UNTIL(&loop, many[i].told);
        claw_pool_release(many[i].client); /* to nobody */
    }
    assert_int_equal(claw_pool_idle(pool), 0);
}

static void time_runs_while_a_lease_waits_for_its_turn(void **state)
{
    struct claw_endpoint *e = endpoint();
    ask_many(e);
    assert_int_equal(begun(), CLAW_LANE_A_TURN);
    claw_loop_advance(&loop, 5000 + CLAW_LOOP_TICK_MS);
    for (unsigned i = 0; i < MANY; i++) assert_true(many[i].told && many[i].code == CLAW_ECONNECT_TIMEOUT);
    claw_endpoint_unref(e);
    settle();
}

static void endpoints_take_turns(void **state)
{
    struct claw_endpoint *e = endpoint();
    upstream.name = CLAW_STR("v");
    struct claw_endpoint *other = endpoint();
    struct asker one;
    ask_many(e);
    ask(&one, other, false);
    assert_null(one.lease.client); /* this turn has no room */
    for (int i = 0; i < 2; i++) claw_loop_turn(&loop, false);
    assert_true(one.told || one.lease.client);
    assert_true(begun() < MANY);
    claw_pool_cancel(&one.lease);
    if (one.told) claw_pool_release(one.client);
    for (unsigned i = 0; i < MANY; i++) {
        UNTIL(&loop, many[i].told);
        claw_pool_release(many[i].client);
    }
    claw_endpoint_unref(other);
    claw_endpoint_unref(e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_pool, close_pool)

int main(void)
{
    alarm(PEER_ALARM_S);
    const struct CMUnitTest tests[] = {
        TEST(endpoints_are_shared_by_settings),
        TEST(the_last_given_back_is_the_next),
        TEST(idle_connections_have_their_time),
        TEST(idle_connections_that_end_are_forgotten),
        TEST(who_speaks_unasked_is_not_kept),
        TEST(connections_come_back_to_nobody),
        TEST(a_pool_may_go_before_its_connections),
        TEST(leases_may_be_cancelled),
        TEST(nobody_there),
        TEST(names_that_do_not_resolve),
        TEST(many_connects_are_spread_over_turns),
        TEST(who_waits_for_its_turn_may_be_cancelled),
        TEST(an_endpoint_may_go_while_its_leases_wait),
        TEST(time_runs_while_a_lease_waits_for_its_turn),
        TEST(endpoints_take_turns),
    };
    return cmocka_run_group_tests_name("proxy/pool", tests, NULL, NULL);
}
