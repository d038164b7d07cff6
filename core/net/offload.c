#include "net/offload.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOWER_BY 10 /* nice */

static struct {
    pthread_once_t once;
    unsigned threads;
    atomic_ullong started;
    sem_t waiting; /* not a condition: a signal may wait for a thread of lower priority that is just leaving its wait */
    _Atomic(struct claw_offload *) fresh; /* newest first: loops take no lock that a thread of lower priority may hold */
    pthread_mutex_t taking; /* of what follows; for the threads alone */
    struct claw_offload *first;
} pool = {.once = PTHREAD_ONCE_INIT, .taking = PTHREAD_MUTEX_INITIALIZER};

static void deliver(struct claw_loop *l, struct claw_message *m)
{
    struct claw_offload *o = (struct claw_offload *)m;
    l->offloaded--;
    o->done(o);
}

/* The oldest. There is one: each is counted by the semaphore after it was put there. */
static struct claw_offload *take(void)
{
    pthread_mutex_lock(&pool.taking);
    if (!pool.first) {
        for (struct claw_offload *o = atomic_exchange_explicit(&pool.fresh, NULL, memory_order_acquire), *older; o; o = older) {
            older = o->next;
            o->next = pool.first;
            pool.first = o;
        }
    }
    struct claw_offload *o = pool.first;
    pool.first = o->next;
    pthread_mutex_unlock(&pool.taking);
    return o;
}

static __thread bool is_ours;

void claw_offload_yield(void)
{
    if (is_ours) sched_yield();
}

/* On Linux nice value and policy are a thread's own: workers stay ahead of handshakes. SCHED_BATCH: woken by a worker, a thread
 * does not take the CPU from it in the middle of its turn. */
static void stand_back(void)
{
    struct sched_param none = {0};
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), LOWER_BY);
}

static void *serve(void *unused)
{
    is_ours = true;
    stand_back();
    for (;;) {
        while (sem_wait(&pool.waiting) != 0) continue;
        struct claw_offload *o = take();
        o->run(o);
        claw_loop_post(o->loop, &o->message);
    }
    return NULL;
}

static void start(void)
{
    cpu_set_t may;
    int cpus = sched_getaffinity(0, sizeof may, &may) == 0 ? CPU_COUNT(&may) : 1;
    unsigned wanted = cpus < 1 ? 1 : cpus > CLAW_OFFLOAD_THREADS ? CLAW_OFFLOAD_THREADS : (unsigned)cpus;
    pthread_attr_t attr;
    sigset_t all, before;
    sem_init(&pool.waiting, 0, 0);
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED); /* they end with the process */
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the control thread */
    for (pthread_t t; pool.threads < wanted && pthread_create(&t, &attr, serve, NULL) == 0;) pool.threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
}

int claw_offload_start(struct claw_loop *l, struct claw_offload *o)
{
    pthread_once(&pool.once, start);
    if (pool.threads == 0) return CLAW_EIO;
    o->loop = l;
    o->message.run = deliver;
    l->offloaded++;
    atomic_fetch_add_explicit(&pool.started, 1, memory_order_relaxed);
    o->next = atomic_load_explicit(&pool.fresh, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&pool.fresh, &o->next, o, memory_order_release, memory_order_relaxed)) continue;
    sem_post(&pool.waiting);
    return 0;
}

uint64_t claw_offload_started(void) { return atomic_load_explicit(&pool.started, memory_order_relaxed); }
