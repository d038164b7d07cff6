#include "net/offload.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define JOBS 100

struct job {
    struct claw_offload work;
    int value;
    bool done;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_elsewhere_and_ends_on_the_loop),
        cmocka_unit_test(the_loops_end_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
