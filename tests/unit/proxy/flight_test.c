/* flight: who joins gets all of it whenever it comes, leaders change hands once each, nothing is lost or left, on one loop
 * and on several. */
#include "proxy/flight.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MOST ((size_t)1 << 20)

static struct claw_cache_key key(unsigned n)
{
    struct claw_cache_key k;
    for (unsigned i = 0; i < CLAW_CACHE_KEY; i++) k.bytes[i] = (unsigned char)(n * 31 + i);
    memcpy(k.bytes + 4, &n, sizeof n);
    return k;
}

/* ---- on one loop ----------------------------------------------------------------------------------------------------------- */

struct listener { struct claw_flight_seat seat; struct claw_buf got; unsigned news; };

static struct claw_loop loop;

static void read_all(struct listener *l)
{
    uv_buf_t some[3];
    unsigned n;
    while ((n = claw_flight_read(&l->seat, some, 3)))
        for (unsigned i = 0; i < n; i++) assert_int_equal(claw_buf_add(&l->got, some[i].base, some[i].len), 0);
}

static void on_news(struct claw_flight_seat *s)
{
    struct listener *l = s->arg;
    l->news++;
    if (!s->leads) read_all(l);
}

static void sit_at(struct listener *l, unsigned n, bool shared)
{
    struct claw_cache_key k = key(n);
    memset(l, 0, sizeof *l);
    claw_buf_init(&l->got, 0);
    l->seat.on_news = on_news;
    l->seat.arg = l;
    assert_int_equal(claw_flight_join(&l->seat, &loop, &k, shared, MOST), 0);
}

static void sit(struct listener *l, unsigned n) { sit_at(l, n, true); }

static void rise(struct listener *l)
{
    claw_flight_leave(&l->seat);
    claw_buf_fini(&l->got);
}

static void say(struct listener *l, const char *text)
{
    uv_buf_t b = uv_buf_init((char *)text, (unsigned)strlen(text));
    assert_true(claw_flight_add(&l->seat, &b, 1));
}

static void turn(void)
{
    for (int i = 0; i < 4; i++) claw_loop_turn(&loop, false);
}

static void expect(const struct listener *l, const char *text)
{
    struct claw_str s = claw_buf_str(&l->got);
    if (!claw_str_eqz(s, text)) fail_msg("%.*s", CLAW_STR_FMT(s));
}

static int open_loop(void **state) { return claw_loop_init(&loop); }

static int close_loop(void **state)
{
    turn();
    assert_int_equal(claw_flight_live(), 0);
    assert_int_equal(claw_flight_listening(), 0);
    return claw_loop_fini(&loop, true);
}

static void who_joins_gets_all_of_it(void **state)
{
    struct listener a, b, c, other;
    sit(&a, 1);
    sit(&b, 1);
    sit(&other, 2);
    assert_true(a.seat.leads && !b.seat.leads && other.seat.leads);
    assert_int_equal(claw_flight_look(&b.seat).state, CLAW_FLIGHT_WAITS);
    claw_flight_begin(&a.seat, 200, CLAW_STR("text/plain"), CLAW_STR("a,b"), true);
    say(&a, "one ");
    turn();
    expect(&b, "one ");
    assert_int_equal(b.news, 1); /* several on one message */
    say(&a, "two ");
    sit(&c, 1);
    read_all(&c);
    expect(&c, "one two ");
    for (int i = 0; i < 2000; i++) say(&a, "0123456789012345678901234567890123456789");
    claw_flight_end(&a.seat);
    rise(&a);
    turn();
    struct claw_flight_view v = claw_flight_look(&c.seat);
    assert_true(v.state == CLAW_FLIGHT_WHOLE && v.status == 200 && v.stream && claw_str_eqz(v.type, "text/plain") && claw_str_eqz(v.dropped, "a,b") && v.bytes == 80008);
    assert_int_equal(claw_buf_size(&b.got), 80008);
    assert_int_equal(claw_buf_size(&c.got), 80008);
    sit(&a, 1); /* it is over: another one */
    assert_true(a.seat.leads);
    rise(&a);
    rise(&b);
    rise(&c);
    rise(&other);
}

static void what_is_not_shared_is_not_found(void **state)
{
    struct listener a, b;
    sit_at(&a, 3, false);
    sit(&b, 3);
    assert_true(a.seat.leads && b.seat.leads);
    rise(&a);
    rise(&b);
}

static void who_fails_hands_over(void **state)
{
    struct listener a, b, c, d;
    sit(&a, 4);
    sit(&b, 4);
    sit(&c, 4);
    assert_false(claw_flight_take_lead(&b.seat));
    claw_flight_fail(&a.seat, CLAW_ECONNECT);
    turn();
    assert_true(b.news == 1 && c.news == 1);
    assert_true(claw_flight_look(&b.seat).state == CLAW_FLIGHT_FAILED && claw_flight_look(&b.seat).code == CLAW_ECONNECT);
    assert_true(claw_flight_take_lead(&b.seat));
    assert_false(claw_flight_take_lead(&c.seat));
    rise(&a); /* late, and no matter */
    assert_int_equal(claw_flight_look(&c.seat).state, CLAW_FLIGHT_WAITS);
    rise(&b); /* without a word */
    assert_int_equal(claw_flight_look(&c.seat).state, CLAW_FLIGHT_FAILED);
    sit(&d, 4); /* comes just then */
    assert_true(d.seat.leads);
    claw_flight_fail(&d.seat, CLAW_EDEADLINE);
    assert_true(claw_flight_take_lead(&c.seat)); /* the fourth */
    sit(&a, 4);
    claw_flight_fail(&c.seat, CLAW_EDEADLINE);
    assert_true(claw_flight_look(&a.seat).code == CLAW_EDEADLINE && !claw_flight_take_lead(&a.seat));
    rise(&a);
    rise(&c);
    rise(&d);
}

static void who_breaks_off_does_not(void **state)
{
    struct listener a, b;
    sit(&a, 5);
    sit(&b, 5);
    claw_flight_begin(&a.seat, 200, CLAW_STR(""), CLAW_STR("a,b"), true);
    say(&a, "half");
    rise(&a);
    turn();
    expect(&b, "half");
    assert_int_equal(claw_flight_look(&b.seat).state, CLAW_FLIGHT_BROKEN);
    assert_false(claw_flight_take_lead(&b.seat));
    sit(&a, 5);
    assert_true(a.seat.leads);
    rise(&a);
    rise(&b);
}

static void what_is_disbanded_is_left(void **state)
{
    struct listener a, b;
    sit(&a, 6);
    sit(&b, 6);
    claw_flight_disband(&a.seat);
    turn();
    assert_true(b.news == 1 && claw_flight_look(&b.seat).state == CLAW_FLIGHT_DISBANDED);
    rise(&a);
    rise(&b);
}

static void past_the_bound_it_breaks(void **state)
{
    struct listener a, b;
    char big[4096];
    uv_buf_t piece = uv_buf_init(big, sizeof big);
    memset(big, 'x', sizeof big);
    sit(&a, 7);
    sit(&b, 7);
    claw_flight_begin(&a.seat, 200, CLAW_STR(""), CLAW_STR("a,b"), false);
    for (size_t i = 0; i < MOST / sizeof big; i++) assert_true(claw_flight_add(&a.seat, &piece, 1));
    assert_false(claw_flight_add(&a.seat, &piece, 1));
    piece.len = 1;
    assert_false(claw_flight_add(&a.seat, &piece, 1)); /* nothing behind the gap */
    assert_int_equal(claw_flight_look(&b.seat).state, CLAW_FLIGHT_BROKEN);
    rise(&a);
    rise(&b);
}

static void past_the_bound_of_all_what_nobody_listens_to_goes(void **state)
{
    struct listener a, b, c;
    char big[4096] = {0};
    uv_buf_t piece = uv_buf_init(big, sizeof big);
    sit(&a, 10);
    sit(&b, 11);
    sit(&c, 11);
    claw_flight_begin(&a.seat, 200, CLAW_STR(""), CLAW_STR(""), false);
    claw_flight_begin(&b.seat, 200, CLAW_STR(""), CLAW_STR(""), false);
    assert_int_equal(claw_flight_bytes(), 0);
    claw_flight_bound(100000);
    unsigned n = 0;
    while (claw_flight_add(&a.seat, &piece, 1)) n++;
    assert_in_range(n, 5, 100000 / sizeof big);
    assert_int_equal(claw_flight_look(&a.seat).state, CLAW_FLIGHT_BROKEN);
    for (n = 0; claw_flight_add(&b.seat, &piece, 1); n++) continue; /* to twice that for those who listen */
    assert_int_equal(claw_flight_look(&c.seat).state, CLAW_FLIGHT_BROKEN);
    assert_in_range(claw_flight_bytes(), 120000, 200000);
    claw_flight_bound(SIZE_MAX / 4);
    rise(&a);
    rise(&b);
    rise(&c);
    turn();
    assert_int_equal(claw_flight_bytes(), 0);
}

static void who_is_alone_hears_when_nobody_listens(void **state)
{
    struct listener a, b, c;
    sit(&a, 8);
    sit(&b, 8);
    sit(&c, 8);
    rise(&b);
    turn();
    assert_true(a.news == 0 && claw_flight_heard(&a.seat));
    claw_flight_alone(&a.seat);
    rise(&c);
    turn();
    assert_true(a.news == 1 && !claw_flight_heard(&a.seat));
    rise(&a);
}

static void what_was_said_is_gathered(void **state)
{
    struct listener a;
    struct claw_buf all;
    claw_buf_init(&all, 0);
    sit(&a, 9);
    claw_flight_begin(&a.seat, 200, CLAW_STR(""), CLAW_STR("a,b"), false);
    for (int i = 0; i < 3000; i++) say(&a, "abc");
    assert_int_equal(claw_flight_gather(&a.seat, &all), 0);
    assert_true(claw_buf_size(&all) == 9000 && memcmp(claw_buf_str(&all).ptr + 8997, "abc", 3) == 0);
    claw_buf_fini(&all);
    rise(&a);
}

/* ---- on several ------------------------------------------------------------------------------------------------------------- */

#define THREADS 4u
#define ROUNDS 300u
#define SEATS 8u /* of a thread in a round */
#define PIECES 40u

/* A request: joins, leads or listens, and checks what it got. Leaders say PIECES pieces, one a turn; some fail first, some leave. */
struct rider { struct claw_flight_seat seat; struct claw_loop *loop; struct claw_buf got; unsigned round, said; bool done; };

static _Atomic unsigned finished, calls[ROUNDS], ends[ROUNDS];
static pthread_barrier_t gate;

static void end_ride(struct rider *r)
{
    claw_flight_leave(&r->seat);
    claw_buf_fini(&r->got);
    r->done = true;
    atomic_fetch_add(&finished, 1);
}

static void ride(struct rider *r)
{
    if (r->done || r->seat.leads) return;
    struct claw_flight_view v = claw_flight_look(&r->seat);
    uv_buf_t some[4];
    unsigned n;
    switch (v.state) {
    case CLAW_FLIGHT_WAITS: return;
    case CLAW_FLIGHT_FAILED:
        if (claw_flight_take_lead(&r->seat)) atomic_fetch_add(&calls[r->round], 1);
        else if (claw_flight_look(&r->seat).state == CLAW_FLIGHT_FAILED) end_ride(r);
        else ride(r);
        return;
    case CLAW_FLIGHT_BROKEN: CLAW_ASSERT(!"nobody breaks it"); return;
    default:
        while ((n = claw_flight_read(&r->seat, some, 4)))
            for (unsigned i = 0; i < n; i++) CLAW_ASSERT(claw_buf_add(&r->got, some[i].base, some[i].len) == 0);
        if (v.state != CLAW_FLIGHT_WHOLE) return;
        CLAW_ASSERT(claw_buf_size(&r->got) == 4 * PIECES);
        for (unsigned i = 0; i < PIECES; i++) CLAW_ASSERT((unsigned char)claw_buf_str(&r->got).ptr[4 * i] == i);
        end_ride(r);
    }
}

static void lead_on(struct rider *r)
{
    char piece[4] = {(char)r->said, 1, 2, 3};
    uv_buf_t b = uv_buf_init(piece, sizeof piece);
    if (r->said == 0 && atomic_load(&calls[r->round]) % 3 == 1 && r->round % 3 == 0) { /* the first one of some rounds fails */
        claw_flight_fail(&r->seat, CLAW_ECONNECT);
        end_ride(r);
        return;
    }
    if (r->said == 0) claw_flight_begin(&r->seat, 200, CLAW_STR("t"), CLAW_STR("a,b"), true);
    CLAW_ASSERT(claw_flight_add(&r->seat, &b, 1));
    if (++r->said < PIECES) return;
    claw_flight_end(&r->seat);
    atomic_fetch_add(&ends[r->round], 1);
    end_ride(r);
}

static void on_ride(struct claw_flight_seat *s) { ride(s->arg); }

static void *run_thread(void *arg)
{
    struct claw_loop l;
    struct rider *riders = calloc(SEATS, sizeof *riders);
    CLAW_ASSERT(riders && claw_loop_init(&l) == 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&gate);
        unsigned target = (round + 1) * THREADS * SEATS;
        for (unsigned i = 0; i < SEATS; i++) {
            struct claw_cache_key k = key(1000 + round);
            struct rider *r = &riders[i];
            *r = (struct rider){.loop = &l, .round = round, .seat = {.on_news = on_ride}};
            r->seat.arg = r;
            claw_buf_init(&r->got, 0);
            CLAW_ASSERT(claw_flight_join(&r->seat, &l, &k, true, MOST) == 0);
            if (r->seat.leads) atomic_fetch_add(&calls[round], 1);
            else ride(r);
            claw_loop_turn(&l, false);
        }
        if (round % 2) pthread_barrier_wait(&gate); /* all are here before it begins */
        while (atomic_load(&finished) < target) {
            for (unsigned i = 0; i < SEATS; i++)
                if (!riders[i].done && riders[i].seat.leads) lead_on(&riders[i]);
            claw_loop_turn(&l, false);
        }
        pthread_barrier_wait(&gate);
    }
    free(riders);
    CLAW_ASSERT(claw_loop_fini(&l, true) == 0);
    return NULL;
}

static void on_several_loops_nothing_is_lost(void **state)
{
    pthread_t t[THREADS];
    pthread_barrier_init(&gate, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&t[i], NULL, run_thread, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    pthread_barrier_destroy(&gate);
    unsigned shared = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_true(ends[i] >= 1);
        shared += ends[i] == 1;
    }
    assert_true(shared > 0); /* who comes after the end leads another one: there may be several in a round */
    assert_int_equal(claw_flight_live(), 0);
    assert_int_equal(claw_flight_listening(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ON_ONE(f) cmocka_unit_test_setup_teardown(f, open_loop, close_loop)
        ON_ONE(who_joins_gets_all_of_it),
        ON_ONE(what_is_not_shared_is_not_found),
        ON_ONE(who_fails_hands_over),
        ON_ONE(who_breaks_off_does_not),
        ON_ONE(what_is_disbanded_is_left),
        ON_ONE(past_the_bound_it_breaks),
        ON_ONE(past_the_bound_of_all_what_nobody_listens_to_goes),
        ON_ONE(who_is_alone_hears_when_nobody_listens),
        ON_ONE(what_was_said_is_gathered),
        cmocka_unit_test(on_several_loops_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
