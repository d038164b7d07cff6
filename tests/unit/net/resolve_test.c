#include "net/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct claw_loop loop;
static struct claw_resolver *resolver;

/* ---- the system's look-up, ours here: libuv's pool calls it by name ------------------------------------------ */

static atomic_int asked, addresses = 1, failing;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* held: look-ups wait */

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    atomic_fetch_add(&asked, 1);
    if (hints->ai_family != AF_UNSPEC || hints->ai_socktype != SOCK_STREAM || service) abort();
    *res = NULL;
    if (atomic_load(&failing)) return EAI_NONAME;
    for (int i = atomic_load(&addresses); i > 0; i--) {
        struct addrinfo *a = calloc(1, sizeof *a + sizeof(struct sockaddr_in6));
        a->ai_addr = (struct sockaddr *)(a + 1);
        a->ai_family = a->ai_addr->sa_family = i % 2 ? AF_INET : AF_INET6;
        a->ai_addrlen = i % 2 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (i % 2) ((struct sockaddr_in *)a->ai_addr)->sin_addr.s_addr = htonl(0x0a000000u + (unsigned)i);
        a->ai_next = *res;
        *res = a;
    }
    return 0;
}

void freeaddrinfo(struct addrinfo *a)
{
    while (a) {
        struct addrinfo *next = a->ai_next;
        free(a);
        a = next;
    }
}

/* ---- questions --------------------------------------------------------------------------------------------- */

struct question {
    struct claw_resolve q;
    int done, code;
    char why[80];
    struct claw_addresses list;
    void (*then)(struct question *);
    struct question *other;
};

static void on_done(struct claw_resolve *r, int code, const struct claw_addresses *list, const char *why)
{
    struct question *q = r->arg;

    assert_null(r->resolver);
    assert_true((code == 0) == (list != NULL) && (code == 0) == (why == NULL));
    q->done++;
    q->code = code;
    if (list) q->list = *list;
    if (why) snprintf(q->why, sizeof q->why, "%s", why);
    if (q->then) q->then(q);
}

static void ask(struct question *q, const char *name, uint16_t port)
{
    void (*then)(struct question *) = q->then;
    struct question *other = q->other;

    *q = (struct question){.then = then, .other = other};
    q->q.on_done = on_done;
    q->q.arg = q;
    claw_resolve_start(resolver, &q->q, claw_str_of(name), port);
}

static void wait_for(struct question *q)
{
    while (!q->done) claw_loop_turn(&loop, true);
    assert_int_equal(q->done, 1);
}

static int start(void **state)
{
    atomic_store(&asked, 0);
    atomic_store(&addresses, 1);
    atomic_store(&failing, 0);
    assert_int_equal(claw_loop_init(&loop), 0);
    assert_int_equal(claw_resolver_new(&loop, &resolver), 0);
    return 0;
}

static int stop(void **state)
{
    if (resolver) claw_resolver_free(resolver);
    resolver = NULL;
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    return 0;
}

static void literals_answer_at_once(void **state)
{
    struct question q = {0};
    char text[64];

    ask(&q, "192.0.2.7", 8080);
    assert_int_equal(q.done, 1);
    assert_int_equal(q.list.n, 1);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&q.list.at[0];
    assert_int_equal(v4->sin_family, AF_INET);
    assert_int_equal(ntohs(v4->sin_port), 8080);
    uv_ip4_name(v4, text, sizeof text);
    assert_string_equal(text, "192.0.2.7");
    ask(&q, "2001:db8::1", 443);
    assert_int_equal(q.done, 1);
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&q.list.at[0];
    assert_int_equal(v6->sin6_family, AF_INET6);
    assert_int_equal(ntohs(v6->sin6_port), 443);
    uv_ip6_name(v6, text, sizeof text);
    assert_string_equal(text, "2001:db8::1");
    assert_int_equal(atomic_load(&asked), 0);
}

/* A machine without a hosts file, or one that lies, still finds its own loopback. */
static void localhost_is_here(void **state)
{
    static const char *const names[] = {"localhost", "LOCALHOST", "localhost.", "model.localhost"};
    char text[64];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct question q = {0};
        ask(&q, names[i], 11434);
        assert_int_equal(q.done, 1);
        assert_int_equal(q.list.n, 2);
        uv_ip6_name((struct sockaddr_in6 *)&q.list.at[0], text, sizeof text);
        assert_string_equal(text, "::1");
        uv_ip4_name((struct sockaddr_in *)&q.list.at[1], text, sizeof text);
        assert_string_equal(text, "127.0.0.1");
        assert_int_equal(ntohs(((struct sockaddr_in *)&q.list.at[1])->sin_port), 11434);
    }
    assert_int_equal(atomic_load(&asked), 0);
}

static void names_are_kept_for_a_while(void **state)
{
    struct question q = {0};

    atomic_store(&addresses, 20);
    ask(&q, "Api.Example.com", 443);
    assert_int_equal(q.done, 0);
    wait_for(&q);
    assert_int_equal(q.code, 0);
    assert_int_equal(q.list.n, CLAW_RESOLVE_MAX);
    for (unsigned i = 0; i < q.list.n; i++) {
        if (q.list.at[i].ss_family == AF_INET)
            assert_int_equal(ntohs(((struct sockaddr_in *)&q.list.at[i])->sin_port), 443);
        else
            assert_int_equal(ntohs(((struct sockaddr_in6 *)&q.list.at[i])->sin6_port), 443);
    }
    assert_int_equal(((struct sockaddr_in *)&q.list.at[0])->sin_addr.s_addr, htonl(0x0a000001)); /* first stays first */
    ask(&q, "api.example.COM", 80);
    assert_int_equal(q.done, 1); /* kept, whatever the case */
    assert_int_equal(ntohs(((struct sockaddr_in *)&q.list.at[0])->sin_port), 80);
    claw_loop_advance(&loop, 29000);
    ask(&q, "api.example.com", 80);
    assert_int_equal(q.done, 1);
    assert_int_equal(atomic_load(&asked), 1);
    claw_loop_advance(&loop, 2000);
    ask(&q, "api.example.com", 80);
    assert_int_equal(q.done, 0);
    wait_for(&q);
    assert_int_equal(atomic_load(&asked), 2);
}

static void failures_are_kept_for_a_second(void **state)
{
    struct question q = {0};

    atomic_store(&failing, 1);
    ask(&q, "nowhere.example", 1);
    wait_for(&q);
    assert_int_equal(q.code, CLAW_EDNS);
    assert_true(strlen(q.why) > 3);
    ask(&q, "nowhere.example", 1);
    assert_int_equal(q.done, 1);
    assert_int_equal(q.code, CLAW_EDNS);
    assert_int_equal(atomic_load(&asked), 1);
    claw_loop_advance(&loop, 1100);
    atomic_store(&failing, 0);
    ask(&q, "nowhere.example", 1);
    wait_for(&q);
    assert_int_equal(q.code, 0);
    atomic_store(&addresses, 0);
    ask(&q, "empty.example", 1);
    wait_for(&q);
    assert_int_equal(q.code, CLAW_EDNS);
    assert_string_equal(q.why, "the name has no address");
}

static void old_answers_serve_when_the_look_up_fails(void **state)
{
    struct question q = {0};

    ask(&q, "api.example.com", 1);
    wait_for(&q);
    atomic_store(&failing, 1);
    claw_loop_advance(&loop, 300000);
    ask(&q, "api.example.com", 1);
    wait_for(&q);
    assert_int_equal(q.code, 0);
    assert_int_equal(q.list.n, 1);
    assert_int_equal(atomic_load(&asked), 2);
    claw_loop_advance(&loop, 310000);
    ask(&q, "api.example.com", 1);
    wait_for(&q);
    assert_int_equal(q.code, CLAW_EDNS);
}

static void equal_names_share_a_look_up(void **state)
{
    struct question q[5] = {0};

    pthread_mutex_lock(&gate);
    for (int i = 0; i < 5; i++) ask(&q[i], "api.example.com", (uint16_t)(i + 1));
    claw_resolve_cancel(&q[2].q);
    claw_resolve_cancel(&q[2].q);
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < 5; i++)
        if (i != 2) wait_for(&q[i]);
    assert_int_equal(q[2].done, 0);
    assert_int_equal(atomic_load(&asked), 1);
    for (int i = 0; i < 5; i++)
        if (i != 2) assert_int_equal(ntohs(((struct sockaddr_in *)&q[i].list.at[0])->sin_port), i + 1);
}

static void cancel_other(struct question *q)
{
    if (q->other) claw_resolve_cancel(&q->other->q);
}
static void ask_again(struct question *q)
{
    struct question inner = {0};
    ask(&inner, "api.example.com", 5); /* known by now: answers within */
    assert_int_equal(inner.done, 1);
}
static void free_resolver(struct question *q)
{
    claw_resolver_free(resolver);
    resolver = NULL;
}

static void callbacks_may_do_anything(void **state)
{
    struct question a = {.then = cancel_other}, b = {0}, c = {.then = ask_again}, d = {.then = free_resolver}, e = {0};

    pthread_mutex_lock(&gate);
    a.other = &b;
    ask(&a, "api.example.com", 1);
    ask(&b, "api.example.com", 2);
    ask(&c, "api.example.com", 3);
    ask(&d, "api.example.com", 4);
    ask(&e, "api.example.com", 5);
    pthread_mutex_unlock(&gate);
    wait_for(&d);
    assert_int_equal(a.done + c.done, 2);
    assert_int_equal(b.done, 0);
    assert_int_equal(e.done, 0);
    assert_null(e.q.resolver); /* its resolver went first */
    claw_resolve_cancel(&e.q);
}

static void freed_with_look_ups_under_way(void **state)
{
    struct question q[12] = {0};
    char name[32];

    pthread_mutex_lock(&gate);
    for (int i = 0; i < 12; i++) { /* more than the pool has threads: some run, some wait */
        snprintf(name, sizeof name, "n%d.example.com", i);
        ask(&q[i], name, 1);
    }
    claw_loop_turn(&loop, false);
    claw_resolver_free(resolver);
    resolver = NULL;
    pthread_mutex_unlock(&gate);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    for (int i = 0; i < 12; i++) assert_int_equal(q[i].done, 0);
    assert_int_equal(claw_loop_init(&loop), 0);
}

static void names_are_bounded(void **state)
{
    enum { N = 260 };
    struct question *q = calloc(N, sizeof *q), again = {0};
    char name[32];

    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "n%d.example.com", i);
        ask(&q[i], name, 1);
        wait_for(&q[i]);
        if (i == 200) { /* used again: not the oldest any more */
            ask(&again, "n0.example.com", 1);
            assert_int_equal(again.done, 1);
        }
    }
    int before = atomic_load(&asked);
    ask(&again, "n0.example.com", 1);
    assert_int_equal(again.done, 1);
    ask(&again, "n259.example.com", 1);
    assert_int_equal(again.done, 1);
    assert_int_equal(atomic_load(&asked), before);
    ask(&again, "n1.example.com", 1);
    wait_for(&again);
    assert_int_equal(atomic_load(&asked), before + 1);

    claw_loop_advance(&loop, 100000);
    pthread_mutex_lock(&gate); /* all of them under way: one more is refused, not queued */
    int refused = 0;
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "m%d.example.com", i);
        ask(&q[i], name, 1);
        refused += q[i].done;
    }
    assert_int_equal(refused, N - 256);
    assert_int_equal(q[N - 1].code, CLAW_EDNS);
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < N; i++) wait_for(&q[i]);
    free(q);
}

static void bad_names_are_refused(void **state)
{
    struct question q = {0};
    char name[300];

    ask(&q, "", 1);
    assert_int_equal(q.code, CLAW_EDNS);
    memset(name, 'a', sizeof name);
    q = (struct question){.q = {.on_done = on_done, .arg = &q}};
    claw_resolve_start(resolver, &q.q, (struct claw_str){name, 254}, 1);
    assert_int_equal(q.code, CLAW_EDNS);
    q = (struct question){.q = {.on_done = on_done, .arg = &q}};
    claw_resolve_start(resolver, &q.q, (struct claw_str){"a\0b", 3}, 1);
    assert_int_equal(q.code, CLAW_EDNS);
    assert_int_equal(atomic_load(&asked), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(literals_answer_at_once),
        TEST(localhost_is_here),
        TEST(names_are_kept_for_a_while),
        TEST(failures_are_kept_for_a_second),
        TEST(old_answers_serve_when_the_look_up_fails),
        TEST(equal_names_share_a_look_up),
        TEST(callbacks_may_do_anything),
        TEST(freed_with_look_ups_under_way),
        TEST(names_are_bounded),
        TEST(bad_names_are_refused),
    };

    alarm(120);
    return cmocka_run_group_tests_name("net/resolve", tests, NULL, NULL);
}
