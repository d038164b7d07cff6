#include "net/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct claw_loop loop;

static int open_loop(void **state)
{
    assert_int_equal(claw_loop_init(&loop), 0);
    return 0;
}

static int close_loop(void **state)
{
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    return 0;
}

/* ---- timers ----------------------------------------------------------------------------------------------- */

struct probe {
    struct claw_timer t;
    uint64_t fired_ms;
    int fired, order;
    void (*then)(struct probe *p);
    struct probe *other;
    uint64_t again_ms;
};

static int order;

static void on_due(struct claw_timer *t)
{
    struct probe *p = t->arg;

    assert_false(claw_timer_running(t));
    p->fired++;
    p->order = ++order;
    p->fired_ms = claw_loop_now_ms(&loop);
    if (p->then) p->then(p);
}

static void probe_init(struct probe *p, void (*then)(struct probe *))
{
    memset(p, 0, sizeof *p);
    claw_timer_init(&p->t, on_due, p);
    p->then = then;
}

static void fires_once_in_order(void **state)
{
    static const uint64_t ms[] = {500, 20, 60000, 5119, 5120, 5121, 0, 10, 75000, 5000000};
    enum { N = sizeof ms / sizeof *ms };
    struct probe p[N];
    uint64_t start = claw_loop_now_ms(&loop);

    order = 0;
    for (unsigned i = 0; i < N; i++) {
        probe_init(&p[i], NULL);
        claw_timer_start(&loop, &p[i].t, ms[i]);
        assert_true(claw_timer_running(&p[i].t));
    }
    claw_loop_advance(&loop, 5000010);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(p[i].fired, 1);
        assert_true(p[i].fired_ms - start >= ms[i]);
        assert_true(p[i].fired_ms - start <= ms[i] + 2 * CLAW_LOOP_TICK_MS);
        for (unsigned k = 0; k < N; k++)
            if (ms[k] + CLAW_LOOP_TICK_MS < ms[i]) assert_true(p[k].order < p[i].order);
    }
    claw_loop_advance(&loop, 10000000);
    for (unsigned i = 0; i < N; i++) assert_int_equal(p[i].fired, 1);
}

static void not_before_its_time(void **state)
{
    struct probe p;

    probe_init(&p, NULL);
    claw_timer_start(&loop, &p.t, 1000);
    claw_loop_advance(&loop, 990);
    assert_int_equal(p.fired, 0);
    claw_timer_start(&loop, &p.t, 1000); /* restart moves it */
    claw_loop_advance(&loop, 990);
    assert_int_equal(p.fired, 0);
    claw_loop_advance(&loop, 20);
    assert_int_equal(p.fired, 1);
    claw_timer_start(&loop, &p.t, 30);
    claw_timer_stop(&loop, &p.t);
    claw_timer_stop(&loop, &p.t);
    assert_false(claw_timer_running(&p.t));
    claw_loop_advance(&loop, 100000);
    assert_int_equal(p.fired, 1);
}

static void stop_other(struct probe *p) { claw_timer_stop(&loop, &p->other->t); }
static void start_again(struct probe *p)
{
    if (p->fired < 5) claw_timer_start(&loop, &p->t, p->again_ms);
}
static void free_other(struct probe *p)
{
    if (!p->other) return;
    claw_timer_stop(&loop, &p->other->t);
    free(p->other);
    p->other = NULL;
}

static void callbacks_change_the_wheel(void **state)
{
    struct probe a, b, c;

    probe_init(&a, stop_other);
    probe_init(&b, stop_other);
    a.other = &b;
    b.other = &a;
    claw_timer_start(&loop, &a.t, 50); /* the same slot: the first stops the second */
    claw_timer_start(&loop, &b.t, 50);
    claw_loop_advance(&loop, 100);
    assert_int_equal(a.fired + b.fired, 1);

    static const uint64_t again[] = {0, 10, 5120, 5110, 7777};
    for (unsigned i = 0; i < sizeof again / sizeof *again; i++) {
        uint64_t start = claw_loop_now_ms(&loop);
        probe_init(&c, start_again);
        c.again_ms = again[i];
        claw_timer_start(&loop, &c.t, 10);
        claw_loop_advance(&loop, 5 * (again[i] + 2 * CLAW_LOOP_TICK_MS));
        assert_int_equal(c.fired, 5);
        assert_true(c.fired_ms - start >= 4 * again[i]);
    }
    struct probe *heap = malloc(sizeof *heap);
    probe_init(heap, NULL);
    probe_init(&a, free_other);
    a.other = heap;
    claw_timer_start(&loop, &a.t, 30);
    claw_timer_start(&loop, &heap->t, 30);
    claw_loop_advance(&loop, 100);
    assert_int_equal(a.fired, 1);
    assert_null(a.other);
}

static void fires_by_the_real_clock(void **state)
{
    struct probe p, later;

    claw_loop_turn(&loop, false);
    uint64_t start = uv_now(&loop.uv); /* the loop's clock is as of its turn, and a turn may take long */
    probe_init(&p, NULL);
    probe_init(&later, NULL);
    claw_timer_start(&loop, &later.t, 3600000);
    claw_timer_start(&loop, &p.t, 30); /* earlier than what the clock is armed for */
    while (!p.fired) claw_loop_turn(&loop, true);
    assert_true(claw_loop_clock_us() / 1000 - start >= 30);
    claw_timer_stop(&loop, &later.t);
}

/* Many long timers must not wake the loop: from now to the next due time it sleeps in one piece, up to a round. */
static void idle_timers_do_not_wake(void **state)
{
    enum { N = 600 };
    struct probe *p = calloc(N, sizeof *p), soon;

    for (unsigned i = 0; i < N; i++) {
        probe_init(&p[i], NULL);
        claw_timer_start(&loop, &p[i].t, 60000 + i * 10);
    }
    probe_init(&soon, NULL);
    claw_timer_start(&loop, &soon.t, 50);
    int turns = 0;
    for (; !soon.fired; turns++) claw_loop_turn(&loop, true);
    assert_true(turns <= 3);
    claw_loop_turn(&loop, false);
    assert_true(uv_backend_timeout(&loop.uv) > 4000);
    for (unsigned i = 0; i < N; i++) claw_timer_stop(&loop, &p[i].t);
    free(p);
}

static unsigned random_of(unsigned *seed) { return *seed = *seed * 1103515245u + 12345u, *seed >> 8; }

static void agrees_with_a_plain_list(void **state)
{
    enum { N = 64 };
    struct probe p[N];
    uint64_t due[N];
    int fired[N] = {0};
    unsigned seed = 7;

    for (unsigned i = 0; i < N; i++) probe_init(&p[i], NULL), due[i] = 0;
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = random_of(&seed) % N;
        uint64_t now = claw_loop_now_ms(&loop);
        switch (random_of(&seed) % 4) {
        case 0:
        case 1: {
            uint64_t ms = random_of(&seed) % 12000;
            claw_timer_start(&loop, &p[i].t, ms);
            due[i] = now + ms;
            break;
        }
        case 2:
            claw_timer_stop(&loop, &p[i].t);
            due[i] = 0;
            break;
        default:
            claw_loop_advance(&loop, random_of(&seed) % 400);
        }
        now = claw_loop_now_ms(&loop);
        for (i = 0; i < N; i++) {
            if (p[i].fired != fired[i]) {
                assert_int_equal(p[i].fired, fired[i] + 1);
                assert_true(due[i] && p[i].fired_ms >= due[i]);
                fired[i]++, due[i] = 0;
            }
            if (due[i]) assert_true(claw_timer_running(&p[i].t) && due[i] + 2 * CLAW_LOOP_TICK_MS > now);
        }
    }
    for (unsigned i = 0; i < N; i++) claw_timer_stop(&loop, &p[i].t);
}

/* ---- end of turn ------------------------------------------------------------------------------------------ */

struct chain {
    struct claw_deferred d;
    int runs;
    struct chain *next;
};

static void run_chain(struct claw_deferred *d)
{
    struct chain *c = (struct chain *)d;

    assert_false(d->pending);
    c->runs++;
    if (c->next) claw_loop_defer(&loop, &c->next->d, run_chain);
}

static void run_free(struct claw_deferred *d) { free(d); }

static void deferred_runs_once_this_turn(void **state)
{
    struct chain b = {.runs = 0}, a = {.next = &b};

    claw_loop_defer(&loop, &a.d, run_chain);
    claw_loop_defer(&loop, &a.d, run_chain);
    claw_loop_defer(&loop, calloc(1, sizeof(struct claw_deferred)), run_free);
    assert_int_equal(a.runs, 0);
    claw_loop_turn(&loop, false);
    assert_int_equal(a.runs, 1);
    assert_int_equal(b.runs, 1);
    claw_loop_turn(&loop, false);
    assert_int_equal(a.runs, 1);
}

static void stop_in_deferred(struct claw_deferred *d) { claw_loop_stop(&loop); }

static void deferred_runs_when_the_loop_stops(void **state)
{
    struct chain a = {.runs = 0};
    struct claw_deferred stop = {.pending = false};

    claw_loop_defer(&loop, &stop, stop_in_deferred);
    claw_loop_run(&loop);
    claw_loop_defer(&loop, &a.d, run_chain);
    claw_loop_stop(&loop);
    claw_loop_run(&loop);
    assert_int_equal(a.runs, 1);
}

/* ---- mailbox ---------------------------------------------------------------------------------------------- */

enum { POSTERS = 3, LETTERS = 2000 };

struct letter {
    struct claw_message m;
    int from, number;
};

static int next_of[POSTERS], letters;

static void read_letter(struct claw_loop *l, struct claw_message *m)
{
    struct letter *letter = (struct letter *)m;

    assert_ptr_equal(l, &loop);
    assert_int_equal(letter->number, next_of[letter->from]++);
    letters++;
    free(letter);
}

static void *post_letters(void *arg)
{
    for (int i = 0; i < LETTERS; i++) {
        struct letter *letter = calloc(1, sizeof *letter);
        letter->m.run = read_letter;
        letter->from = *(int *)arg;
        letter->number = i;
        claw_loop_post(&loop, &letter->m);
    }
    return NULL;
}

static void letters_come_in_order_from_other_threads(void **state)
{
    pthread_t thread[POSTERS];
    int id[POSTERS];

    letters = 0;
    memset(next_of, 0, sizeof next_of);
    for (int i = 0; i < POSTERS; i++) {
        id[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, post_letters, &id[i]), 0);
    }
    while (letters < POSTERS * LETTERS) claw_loop_turn(&loop, true);
    for (int i = 0; i < POSTERS; i++) pthread_join(thread[i], NULL);
}

static void what_was_posted_is_read_at_the_end(void **state)
{
    int id = 0;

    letters = 0;
    memset(next_of, 0, sizeof next_of);
    post_letters(&id);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    assert_int_equal(letters, LETTERS);
    assert_int_equal(claw_loop_init(&loop), 0);
}

/* ---- the end ---------------------------------------------------------------------------------------------- */

static void an_open_handle_is_counted(void **state)
{
    struct claw_loop *own = calloc(1, sizeof *own);
    uv_idle_t *idle = calloc(1, sizeof *idle);

    assert_int_equal(claw_loop_init(own), 0);
    uv_idle_init(&own->uv, idle);
    assert_int_equal(claw_loop_fini(own, false), 1);
    uv_close((uv_handle_t *)idle, NULL); /* tidy up behind the fault: the loop was left as it is */
    uv_run(&own->uv, UV_RUN_NOWAIT);
    assert_int_equal(uv_loop_close(&own->uv), 0);
    free(idle);
    free(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_once_in_order),
        cmocka_unit_test(not_before_its_time),
        cmocka_unit_test(callbacks_change_the_wheel),
        cmocka_unit_test(fires_by_the_real_clock),
        cmocka_unit_test(idle_timers_do_not_wake),
        cmocka_unit_test(agrees_with_a_plain_list),
        cmocka_unit_test(deferred_runs_once_this_turn),
        cmocka_unit_test(deferred_runs_when_the_loop_stops),
        cmocka_unit_test(letters_come_in_order_from_other_threads),
        cmocka_unit_test(what_was_posted_is_read_at_the_end),
        cmocka_unit_test(an_open_handle_is_counted),
    };

    alarm(120);
    return cmocka_run_group_tests_name("net/loop", tests, open_loop, close_loop);
}
