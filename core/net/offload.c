#include "net/offload.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOW = 19, MIDDLE = 10 }; /* nice */

struct queue {
    struct claw_offload *first, *last;
};

static struct {
    pthread_once_t once;
    unsigned threads;
    sem_t waiting; /* not a condition: a signal may wait for a thread of lower priority that is just leaving its wait */
    _Atomic(struct claw_offload *) fresh; /* newest first */
    pthread_mutex_t taking; /* of the queues; for the pool's threads alone */
    struct queue light, heavy;
    /* For the thread that watches the others. */
    sem_t watch;
    atomic_bool watched;
    atomic_uint waiting_n;
    atomic_ullong started, taken;
} pool = {.once = PTHREAD_ONCE_INIT, .taking = PTHREAD_MUTEX_INITIALIZER};

static __thread bool is_ours;

void claw_offload_yield(void)
{
    if (is_ours) sched_yield();
}

static void deliver(struct claw_loop *l, struct claw_message *m)
{
    struct claw_offload *o = (struct claw_offload *)m;
    l->offloaded--;
    o->done(o);
}

static void queue_add(struct queue *q, struct claw_offload *o)
{
    o->next = NULL;
    if (q->first) q->last->next = o;
    else q->first = o;
    q->last = o;
}

/* There is one: each is counted by the semaphore after it was put there. */
static struct claw_offload *take(void)
{
    pthread_mutex_lock(&pool.taking);
    struct claw_offload *oldest = NULL;
    for (struct claw_offload *o = atomic_exchange_explicit(&pool.fresh, NULL, memory_order_acquire), *older; o; o = older) {
        older = o->next;
        o->next = oldest;
        oldest = o;
    }
    for (struct claw_offload *o = oldest, *newer; o; o = newer) {
        newer = o->next;
        queue_add(o->light ? &pool.light : &pool.heavy, o);
    }
    struct queue *q = pool.light.first ? &pool.light : &pool.heavy;
    struct claw_offload *o = q->first;
    q->first = o->next;
    pthread_mutex_unlock(&pool.taking);
    atomic_fetch_add(&pool.taken, 1);
    atomic_fetch_sub(&pool.waiting_n, 1);
    return o;
}

static void work(struct claw_offload *o)
{
    o->run(o);
    claw_loop_post(o->loop, &o->message);
}

/* On Linux nice value and policy are a thread's own. SCHED_BATCH: woken by a loop, a thread does not take the CPU from it in the
 * middle of its turn. */
static void stand_back(int nice_value)
{
    struct sched_param none = {0};
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), nice_value);
}

static void *serve(void *unused)
{
    is_ours = true;
    stand_back(LOW);
    for (;;) {
        while (sem_wait(&pool.waiting) != 0) continue;
        work(take());
    }
    return NULL;
}

static void help_while_stuck(void)
{
    const struct timespec t = {.tv_nsec = CLAW_OFFLOAD_STUCK_MS * 1000000L};
    uint64_t taken = atomic_load(&pool.taken);
    nanosleep(&t, NULL);
    while (atomic_load(&pool.taken) == taken && sem_trywait(&pool.waiting) == 0) {
        struct claw_offload *o = take();
        taken = atomic_load(&pool.taken);
        work(o);
    }
}

/* Sleeps while nothing waits. */
static void *watch(void *unused)
{
    is_ours = true;
    stand_back(MIDDLE);
    for (;;) {
        while (sem_wait(&pool.watch) != 0) continue;
        do {
            while (atomic_load(&pool.waiting_n)) help_while_stuck();
            atomic_store(&pool.watched, false);
        } while (atomic_load(&pool.waiting_n) && !atomic_exchange(&pool.watched, true));
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
    sem_init(&pool.watch, 0, 0);
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED); /* they end with the process */
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the control thread */
    for (pthread_t t; pool.threads < wanted && pthread_create(&t, &attr, serve, NULL) == 0;) pool.threads++;
    pthread_t t;
    if (pool.threads && pthread_create(&t, &attr, watch, NULL) != 0) pool.threads = 0; /* nothing is ever given to those there are */
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
    if (!o->light) atomic_fetch_add_explicit(&pool.started, 1, memory_order_relaxed);
    atomic_fetch_add(&pool.waiting_n, 1);
    o->next = atomic_load_explicit(&pool.fresh, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&pool.fresh, &o->next, o, memory_order_release, memory_order_relaxed)) continue;
    sem_post(&pool.waiting);
    if (!atomic_exchange(&pool.watched, true)) sem_post(&pool.watch);
    return 0;
}

uint64_t claw_offload_started(void) { return atomic_load_explicit(&pool.started, memory_order_relaxed); }
