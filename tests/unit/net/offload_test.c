#include "net/offload.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#define JOBS 100

struct job {
    struct claw_offload work;
    int value;
    bool done;
    void *arg;
};

static pthread_t loop_thread;
static int finished;

static struct job *job_of(struct claw_offload *o) { return (struct job *)((char *)o - offsetof(struct job, work)); }

static void on_run(struct claw_offload *o) { job_of(o)->value = pthread_equal(pthread_self(), loop_thread) ? -1 : job_of(o)->value + 1; }

static void on_done(struct claw_offload *o)
{
    assert_true(pthread_equal(pthread_self(), loop_thread));
    job_of(o)->done = true;
    finished++;
}

static void start_all(struct claw_loop *l, struct job *jobs)
{
    loop_thread = pthread_self();
    finished = 0;
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){.work = {.run = on_run, .done = on_done}, .value = i};
        assert_int_equal(claw_offload_start(l, &jobs[i].work), 0);
    }
}

static void runs_elsewhere_and_ends_on_the_loop(void **state)
{
    static struct job jobs[JOBS];
    struct claw_loop l;
    uint64_t before = claw_offload_started();
    assert_int_equal(claw_loop_init(&l), 0);
    start_all(&l, jobs);
    while (finished < JOBS) claw_loop_turn(&l, true);
    for (int i = 0; i < JOBS; i++) assert_int_equal(jobs[i].value, i + 1);
    assert_int_equal(claw_offload_started() - before, JOBS);
    assert_int_equal(l.offloaded, 0);
    assert_int_equal(claw_loop_fini(&l, true), 0);
}

/* A loop that ends waits for its work: what done frees must not be freed under a thread. */
static void the_loops_end_waits(void **state)
{
    static struct job jobs[JOBS];
    struct claw_loop l;
    assert_int_equal(claw_loop_init(&l), 0);
    start_all(&l, jobs);
    assert_int_equal(claw_loop_fini(&l, true), 0);
    assert_int_equal(finished, JOBS);
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void on_run_2_ms(struct claw_offload *o)
{
    double end = cpu_ms() + 2;
    while (cpu_ms() < end) continue;
}

/* A loop that is never idle, on the one CPU there is (main): at the lowest priority 20 times 2 ms would take 68 times as long, 2.7
 * seconds of the loop's CPU. The thread that watches brings it to some 10 times, and what it waits first. */
static void a_busy_loop_does_not_starve_them(void **state)
{
    enum { N = 20 };
    static struct job jobs[N];
    struct claw_loop l;
    cpu_set_t may;
    if (sched_getaffinity(0, sizeof may, &may) != 0 || CPU_COUNT(&may) != 1) skip();
    assert_int_equal(claw_loop_init(&l), 0);
    loop_thread = pthread_self();
    finished = 0;
    double before = cpu_ms();
    for (int i = 0; i < N; i++) {
        jobs[i] = (struct job){.work = {.run = on_run_2_ms, .done = on_done}};
        assert_int_equal(claw_offload_start(&l, &jobs[i].work), 0);
    }
    while (finished < N) claw_loop_turn(&l, false);
    double took = cpu_ms() - before;
    print_message("20 times 2 ms of work took %.0f ms of the busy loop's CPU\n", took);
    assert_true(took < 1500);
    assert_int_equal(claw_loop_fini(&l, true), 0);
}

static int order[JOBS];
static atomic_int order_n;

static void on_run_in_order(struct claw_offload *o) { order[atomic_fetch_add(&order_n, 1)] = job_of(o)->value; }

static void on_hold(struct claw_offload *o)
{
    while (sem_wait(job_of(o)->arg) != 0) continue;
}

/* Ten pieces that all wait before the first of them is taken up, every other light. */
static bool goes_in_order(struct claw_loop *l)
{
    static struct job jobs[10], hold;
    sem_t all_there;
    bool as_wanted = true;
    sem_init(&all_there, 0, 0);
    finished = 0;
    atomic_store(&order_n, 0);
    hold = (struct job){.work = {.run = on_hold, .done = on_done}, .arg = &all_there};
    assert_int_equal(claw_offload_start(l, &hold.work), 0);
    uint64_t before = claw_offload_started();
    for (int i = 0; i < 10; i++) {
        jobs[i] = (struct job){.work = {.run = on_run_in_order, .done = on_done, .light = i % 2}, .value = i};
        assert_int_equal(claw_offload_start(l, &jobs[i].work), 0);
    }
    assert_int_equal(claw_offload_started() - before, 5);
    sem_post(&all_there);
    while (finished < 11) claw_loop_turn(l, true);
    for (int i = 0; i < 10; i++) as_wanted &= order[i] == (i < 5 ? 2 * i + 1 : 2 * (i - 5));
    sem_destroy(&all_there);
    return as_wanted;
}

/* What is light goes before what is not, and each kind in its order. Seen where one thread does it all: not when the machine is so
 * busy that the one that watches takes a piece meanwhile. */
static void light_work_goes_first(void **state)
{
    struct claw_loop l;
    cpu_set_t may;
    bool seen = false;
    if (sched_getaffinity(0, sizeof may, &may) != 0 || CPU_COUNT(&may) != 1) skip();
    assert_int_equal(claw_loop_init(&l), 0);
    loop_thread = pthread_self();
    for (int i = 0; i < 10 && !seen; i++) seen = goes_in_order(&l);
    assert_true(seen);
    assert_int_equal(claw_loop_fini(&l, true), 0);
}

int main(void)
{
    cpu_set_t may, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof may, &may) == 0) {
        int cpu = 0;
        while (!CPU_ISSET(cpu, &may)) cpu++;
        CPU_SET(cpu, &one);
        (void)!sched_setaffinity(0, sizeof one, &one);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_elsewhere_and_ends_on_the_loop),
        cmocka_unit_test(the_loops_end_waits),
        cmocka_unit_test(light_work_goes_first),
        cmocka_unit_test(a_busy_loop_does_not_starve_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
