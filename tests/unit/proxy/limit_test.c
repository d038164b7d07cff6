/* limit: what is admitted is what the limit has, from one thread and from many; what is taken is put right. */
#include "proxy/limit.h"

#include "proxy/pipeline.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_conf *conf;
static struct claw_generation gen;
static struct claw_generation_local local = {.gen = &gen};
static _Thread_local struct claw_worker_ctx ctx; /* a worker's: each thread is one */

/* A request, as far as limits look at one. */
struct one {
    struct claw_req r;
    struct claw_head head;
};

static void begin(struct one *o)
{
    memset(o, 0, sizeof *o);
    o->r.gen = &local;
    o->r.ctx = &ctx;
    o->r.route = -1;
    o->r.head = &o->head;
    o->r.usage = (struct claw_usage){-1, -1, -1, -1, -1, {0}};
    o->head.method = CLAW_STR("POST");
    o->head.path = CLAW_STR("/v1/chat/completions");
    memcpy(o->r.peer, "10.0.0.1", sizeof "10.0.0.1");
    claw_arena_init(&o->r.arena, NULL, 0, 1u << 20);
}

static void end(struct one *o)
{
    claw_limits_settle(&o->r);
    claw_arena_reset(&o->r.arena);
}

static void parse(const char *limits, struct claw_conf **out)
{
    char text[2000];
    struct claw_arena a;
    struct claw_conf_problems problems;
    claw_arena_init(&a, NULL, 0, 1u << 20);
    claw_conf_problems_init(&problems, &a);
    snprintf(text, sizeof text, "upstreams: { u: { type: mock }, v: { type: mock } }\nroutes: [ { id: r, strategy: { type: failover, upstreams: [u, v] } } ]\n"
             "rate_limits: [ %s ]\n", limits);
    int rc = claw_conf_parse("openclaw.yaml", claw_str_of(text), NULL, out, &problems);
    if (rc != 0) fail_msg("%s", problems.first->text);
    claw_arena_reset(&a);
}

static void load(const char *limits)
{
    parse(limits, &conf);
    gen.conf = conf;
    claw_limits_forget();
}

static int set_up(void **state)
{
    ctx.metrics = claw_metrics_shard_new();
    return ctx.metrics ? 0 : -1;
}

static int tear_down(void **state)
{
    claw_conf_free(conf);
    return 0;
}

static int try_once(struct one *o, unsigned *wait_ms)
{
    bool again;
    begin(o);
    return claw_limits_take(&o->r, 0, wait_ms, &again);
}

/* How many of n are admitted, one after the other, each settled at once. */
static unsigned admitted(unsigned n)
{
    struct one o;
    unsigned good = 0, wait_ms;
    for (unsigned i = 0; i < n; i++) {
        good += try_once(&o, &wait_ms) == 0;
        end(&o);
    }
    return good;
}

static void bursts(void **state)
{
    load("{ id: a, requests_per_day: 7 }");
    assert_int_equal(admitted(20), 7);
    claw_conf_free(conf);
    load("{ id: b, requests_per_day: 7, burst: 0 }");
    assert_int_equal(admitted(20), 1);
    claw_conf_free(conf);
    load("{ id: c, requests_per_day: 1000000000, requests_per_hour: 3 }");
    assert_int_equal(admitted(20), 3);
}

static void many_digits(void **state)
{
    load("{ id: a, requests_per_second: 1000000000, requests_per_day: 1000000000, tokens_per_day: 1000000000000, tokens_per_minute: 1000000000000 }");
    assert_int_equal(admitted(1000), 1000);
}

static void keys_are_apart(void **state)
{
    struct one o;
    unsigned wait_ms;
    load("{ id: a, per: ip, requests_per_day: 1 }");
    for (int i = 0; i < 3000; i++) {
        bool again;
        begin(&o);
        snprintf(o.r.peer, sizeof o.r.peer, "10.0.%d.%d", i / 250, i % 250);
        assert_int_equal(claw_limits_take(&o.r, 0, &wait_ms, &again), 0);
        end(&o);
    }
    assert_int_equal(claw_limits_measure().cells, 3000);
    assert_int_equal(admitted(2), 0); /* 10.0.0.1 was among them */
}

/* Cells that hold nothing any more go when others come. */
static void what_is_empty_goes(void **state)
{
    struct one o;
    unsigned wait_ms;
    bool again;
    load("{ id: a, per: ip, concurrent: 1 }");
    for (int i = 0; i < 20000; i++) {
        begin(&o);
        snprintf(o.r.peer, sizeof o.r.peer, "10.%d.%d.%d", i / 62500, i / 250 % 250, i % 250);
        assert_int_equal(claw_limits_take(&o.r, 0, &wait_ms, &again), 0);
        end(&o);
    }
    assert_true(claw_limits_measure().cells < 20000);
}

static void all_or_none(void **state)
{
    load("{ id: wide, requests_per_day: 5 }, { id: narrow, requests_per_day: 2 }");
    assert_int_equal(admitted(10), 2);
    claw_conf_free(conf);
    struct claw_limit_stats before = claw_limits_measure();
    char text[] = "{ id: wide, requests_per_day: 5 }";
    struct claw_arena a;
    struct claw_conf_problems problems;
    claw_arena_init(&a, NULL, 0, 1u << 20);
    claw_conf_problems_init(&problems, &a);
    char yaml[400];
    snprintf(yaml, sizeof yaml, "upstreams: { u: { type: mock } }\nroutes: [ { strategy: { type: failover, upstreams: [u] } } ]\nrate_limits: [ %s ]\n", text);
    assert_int_equal(claw_conf_parse("openclaw.yaml", claw_str_of(yaml), NULL, &conf, &problems), 0);
    claw_arena_reset(&a);
    gen.conf = conf;
    assert_int_equal(before.cells, 2);
    assert_int_equal(admitted(10), 3); /* a reload forgets nothing, and the refused ones took nothing */
}

static void places(void **state)
{
    struct one o[3];
    unsigned wait_ms;
    load("{ id: c, concurrent: 2 }");
    assert_int_equal(try_once(&o[0], &wait_ms), 0);
    assert_int_equal(try_once(&o[1], &wait_ms), 0);
    assert_int_equal(try_once(&o[2], &wait_ms), CLAW_ERATE_LIMITED);
    end(&o[2]);
    end(&o[0]);
    assert_int_equal(try_once(&o[0], &wait_ms), 0);
    end(&o[0]);
    end(&o[1]);
    assert_int_equal(admitted(5), 5);
}

static void tokens(void **state)
{
    struct one o;
    unsigned wait_ms;
    load("{ id: t, tokens_per_day: 100 }");
    assert_int_equal(try_once(&o, &wait_ms), 0); /* without a body: 1 */
    o.r.attempts_n = 1;
    o.r.usage.input = 60;
    o.r.usage.output = 30;
    end(&o);
    assert_int_equal(try_once(&o, &wait_ms), 0);
    o.r.attempts_n = 1;
    o.r.usage.input = 500;
    end(&o);
    assert_int_equal(try_once(&o, &wait_ms), CLAW_ERATE_LIMITED); /* in debt */
    end(&o);
}

/* A body that asks for more than there can ever be is not arithmetic's end. */
static void more_than_there_can_be(void **state)
{
    static const char body[] = "{\"model\":\"m\",\"max_tokens\":1000000,\"messages\":[]}";
    unsigned n = 0;
    load("{ id: t, tokens_per_day: 5 }");
    for (int i = 0; i < 20; i++) {
        struct one o;
        unsigned wait_ms;
        bool again;
        struct claw_json_err e;
        begin(&o);
        claw_buf_init(&o.r.body, 0);
        assert_int_equal(claw_buf_add_z(&o.r.body, body), 0);
        assert_int_equal(claw_json_scan(claw_buf_str(&o.r.body), &o.r.arena, &o.r.json, &e), 0);
        o.r.has_json = true;
        n += claw_limits_take(&o.r, 0, &wait_ms, &again) == 0;
        o.r.attempts_n = 1;
        o.r.usage.input = 1000000;
        claw_buf_fini(&o.r.body);
        end(&o);
    }
    assert_int_equal(n, 1);
}

/* Who failed pays nothing; what no upstream answered costs nothing. */
static void who_pays(void **state)
{
    struct one o;
    unsigned wait_ms;
    load("{ id: u, match: { upstream_name: u }, tokens_per_day: 100 }, { id: v, match: { upstream_name: v }, tokens_per_day: 100 }");
    begin(&o);
    o.r.candidates[1].upstream = 1;
    o.r.candidates_n = 2;
    assert_int_equal(claw_limits_take_upstream(&o.r, 0), 0);
    assert_int_equal(claw_limits_take_upstream(&o.r, 1), 0);
    o.r.candidate = 1;
    o.r.attempts_n = 2;
    o.r.status = 200;
    o.r.usage.input = 5000;
    end(&o);
    begin(&o);
    assert_int_equal(claw_limits_take_upstream(&o.r, 0), 0);
    assert_int_equal(claw_limits_take_upstream(&o.r, 1), CLAW_ERATE_LIMITED);
    end(&o);
    claw_conf_free(conf);
    load("{ id: t, tokens_per_day: 1 }");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(try_once(&o, &wait_ms), 0);
        o.r.attempts_n = 1;
        o.r.status = 502;
        end(&o);
    }
}

/* A client cannot keep its tokens by leaving before usage is told. */
static void who_leaves_pays(void **state)
{
    struct one o;
    unsigned wait_ms;
    load("{ id: t, tokens_per_day: 1 }");
    assert_int_equal(try_once(&o, &wait_ms), 0);
    o.r.attempts_n = 1;
    o.r.gone = true;
    o.r.error = CLAW_ECLIENT_GONE;
    o.r.status = 499;
    end(&o);
    assert_int_equal(try_once(&o, &wait_ms), CLAW_ERATE_LIMITED);
    end(&o);
}

/* Who looks for a place again and again takes no more memory for it. */
static void looking_again_costs_no_memory(void **state)
{
    struct one o, other;
    unsigned wait_ms;
    bool again;
    load("{ id: r, requests_per_day: 100000, max_wait_ms: 600000 }, { id: c, concurrent: 1, max_wait_ms: 600000 }");
    assert_int_equal(try_once(&other, &wait_ms), 0);
    begin(&o);
    for (int i = 0; i < 30000; i++) {
        assert_int_equal(claw_limits_take(&o.r, 0, &wait_ms, &again), CLAW_EAGAIN);
        assert_true(again);
    }
    end(&other);
    assert_int_equal(claw_limits_take(&o.r, 0, &wait_ms, &again), 0);
    end(&o);
}

/* Who would not get a place in time is refused at once, with when there would be one. */
static void places_in_the_queue(void **state)
{
    struct one o[7];
    unsigned wait_ms;
    load("{ id: w, requests_per_minute: 60, burst: 0, max_wait_ms: 5500 }");
    for (int i = 0; i < 6; i++) {
        assert_int_equal(try_once(&o[i], &wait_ms), i ? CLAW_EAGAIN : 0);
        assert_true(i == 0 || (wait_ms > 300 && wait_ms <= 5500));
        o[i].r.attempts_n = 1;
    }
    assert_int_equal(claw_limits_measure().waiting, 5);
    assert_int_equal(try_once(&o[6], &wait_ms), CLAW_ERATE_LIMITED);
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_limits_write(conf, &b), 0);
    assert_non_null(strstr(b.data, "\"waiting\":5}"));
    claw_buf_fini(&b);
    for (int i = 0; i < 7; i++) end(&o[i]);
    assert_int_equal(claw_limits_measure().waiting, 0);
}

static int look(struct one *o, unsigned waited_ms)
{
    unsigned wait_ms;
    bool again;
    return claw_limits_take(&o->r, waited_ms, &wait_ms, &again);
}

static int begin_of(struct one *o, const char *peer)
{
    begin(o);
    snprintf(o->r.peer, sizeof o->r.peer, "%s", peer);
    return look(o, 0);
}

/* Five of one client wait for the one place, then one of another: it waits for the one whose turn it is and one more. Nobody who
 * comes goes first, and who waited for too long is refused though there is room. */
static void clients_take_turns(void **state)
{
    struct one holder, many[5], other, late;
    load("{ id: c, concurrent: 1, max_wait_ms: 1000 }");
    assert_int_equal(begin_of(&holder, "10.0.0.1"), 0);
    for (int i = 0; i < 5; i++) assert_int_equal(begin_of(&many[i], "10.0.0.1"), CLAW_EAGAIN);
    assert_int_equal(begin_of(&other, "10.0.0.2"), CLAW_EAGAIN);
    end(&holder);
    assert_int_equal(begin_of(&late, "10.0.0.3"), CLAW_EAGAIN);
    assert_int_equal(look(&other, 1), CLAW_EAGAIN);
    assert_int_equal(look(&many[1], 1), CLAW_EAGAIN);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(look(&many[i], 1), 0);
        assert_int_equal(look(&other, 2), CLAW_EAGAIN);
        assert_int_equal(look(&many[2], 2), CLAW_EAGAIN);
        end(&many[i]);
    }
    assert_int_equal(look(&other, 2), 0);
    end(&other);
    assert_int_equal(look(&many[2], 1000), CLAW_ERATE_LIMITED); /* it is late's turn */
    end(&many[2]);
    end(&late); /* it leaves, and the next is called */
    assert_int_equal(look(&many[3], 3), 0);
    for (int i = 3; i < 5; i++) end(&many[i]);
    assert_int_equal(admitted(3), 3);
}

static void so_many_wait(void **state)
{
    struct one holder, o[4];
    load("{ id: c, concurrent: 1, max_wait_ms: 1000, max_waiting: 3, max_waiting_per_client: 2 }");
    assert_int_equal(begin_of(&holder, "10.0.0.1"), 0);
    assert_int_equal(begin_of(&o[0], "10.0.0.1"), CLAW_EAGAIN);
    assert_int_equal(begin_of(&o[1], "10.0.0.1"), CLAW_EAGAIN);
    assert_int_equal(begin_of(&o[2], "10.0.0.1"), CLAW_ERATE_LIMITED);
    assert_non_null(strstr(o[2].r.error_text.ptr, "too many requests wait for it"));
    end(&o[2]);
    assert_int_equal(begin_of(&o[2], "10.0.0.2"), CLAW_EAGAIN);
    assert_int_equal(begin_of(&o[3], "10.0.0.3"), CLAW_ERATE_LIMITED);
    for (int i = 0; i < 4; i++) end(&o[i]);
    end(&holder);
}

/* A reload gives more room: who comes then does not wait behind those who wait for the room there was; who waits for the same does. */
static void a_reload_while_they_wait(void **state)
{
    struct one holder, old, same, new;
    struct claw_conf *first;
    load("{ id: c, concurrent: 1, max_wait_ms: 1000 }");
    assert_int_equal(begin_of(&holder, "10.0.0.1"), 0);
    assert_int_equal(begin_of(&old, "10.0.0.1"), CLAW_EAGAIN);
    first = conf;
    static struct claw_generation other;
    static struct claw_generation_local other_local = {.gen = &other};
    parse("{ id: c, concurrent: 3, max_wait_ms: 1000 }", &conf);
    other.conf = conf;
    begin(&new);
    new.r.gen = &other_local;
    assert_int_equal(look(&new, 0), 0);
    assert_int_equal(begin_of(&same, "10.0.0.2"), CLAW_EAGAIN);
    end(&holder);
    assert_int_equal(look(&old, 1), CLAW_EAGAIN); /* new's place is one */
    end(&new);
    assert_int_equal(look(&same, 1), CLAW_EAGAIN);
    assert_int_equal(look(&old, 2), 0);
    end(&old);
    assert_int_equal(look(&same, 2), 0);
    end(&same);
    claw_conf_free(first);
}

/* Two limits that are waited for: whose turn came in one does not queue up there again. */
static void waiting_for_two(void **state)
{
    struct one holder, o[3];
    load("{ id: a, concurrent: 1, max_wait_ms: 1000 }, { id: b, per: 'header:x', concurrent: 1, max_wait_ms: 1000 }");
    assert_int_equal(begin_of(&holder, "10.0.0.1"), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(begin_of(&o[i], "10.0.0.1"), CLAW_EAGAIN);
    end(&holder);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(look(&o[i], 1), 0);
        end(&o[i]);
    }
    assert_int_equal(admitted(3), 3);
}

static void of_upstreams(void **state)
{
    struct one o;
    load("{ id: u, match: { upstream_name: u }, requests_per_day: 1, concurrent: 1 }");
    assert_false(claw_limits_any(conf));
    assert_true(claw_limits_of_upstreams(conf));
    begin(&o);
    assert_int_equal(claw_limits_take_upstream(&o.r, 0), 0);
    assert_int_equal(claw_limits_take_upstream(&o.r, 0), CLAW_ERATE_LIMITED); /* the rate is spent; the place was given back */
    assert_int_equal(claw_limits_take_upstream(&o.r, 1), 0);
    end(&o);
}

static _Atomic unsigned good;

static void *hammer(void *arg)
{
    ctx.metrics = claw_metrics_shard_new();
    for (int i = 0; i < 3000; i++) {
        struct one o;
        unsigned wait_ms;
        if (try_once(&o, &wait_ms) == 0) good++;
        end(&o);
    }
    return NULL;
}

static void from_many_threads(void **state)
{
    pthread_t t[4];
    load("{ id: m, requests_per_day: 1000 }, { id: c, concurrent: 100 }");
    good = 0;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_in_range(good, 1000, 1002); /* one flows off each 86 s */
    claw_conf_free(conf);
    load("{ id: c, concurrent: 1 }");
    good = 0;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_true(good >= 1);
    assert_int_equal(admitted(3), 3); /* nothing stayed taken */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bursts, set_up, tear_down), cmocka_unit_test_setup_teardown(many_digits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keys_are_apart, set_up, tear_down), cmocka_unit_test_setup_teardown(what_is_empty_goes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_or_none, set_up, tear_down), cmocka_unit_test_setup_teardown(places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tokens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(more_than_there_can_be, set_up, tear_down), cmocka_unit_test_setup_teardown(who_pays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_leaves_pays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(looking_again_costs_no_memory, set_up, tear_down), cmocka_unit_test_setup_teardown(places_in_the_queue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(clients_take_turns, set_up, tear_down), cmocka_unit_test_setup_teardown(so_many_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waiting_for_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_reload_while_they_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(of_upstreams, set_up, tear_down), cmocka_unit_test_setup_teardown(from_many_threads, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
