#include "net/offload.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOWER_BY 10 /* nice */

static struct {
    pthread_once_t once;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct claw_offload *first, **last;
    unsigned threads;
    uint64_t started;
} pool = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .last = &pool.first};

static void deliver(struct claw_loop *l, struct claw_message *m)
{
    struct claw_offload *o = (struct claw_offload *)m;
    l->offloaded--;
    o->done(o);
}

static void *serve(void *unused)
{
    /* On Linux the nice value is a thread's own: workers stay ahead of handshakes. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), LOWER_BY);
    for (;;) {
        pthread_mutex_lock(&pool.lock);
        while (!pool.first) pthread_cond_wait(&pool.work, &pool.lock);
        struct claw_offload *o = pool.first;
        pool.first = o->next;
        if (!pool.first) pool.last = &pool.first;
        pthread_mutex_unlock(&pool.lock);
        o->run(o);
        claw_loop_post(o->loop, &o->message);
    }
    return NULL;
}

static void start(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned wanted = cpus < 1 ? 1 : cpus > CLAW_OFFLOAD_THREADS ? CLAW_OFFLOAD_THREADS : (unsigned)cpus;
    pthread_attr_t attr;
    sigset_t all, before;
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
    o->next = NULL;
    o->message.run = deliver;
    l->offloaded++;
    pthread_mutex_lock(&pool.lock);
    pool.started++;
    *pool.last = o;
    pool.last = &o->next;
    pthread_mutex_unlock(&pool.lock);
    pthread_cond_signal(&pool.work);
    return 0;
}

uint64_t claw_offload_started(void)
{
    pthread_mutex_lock(&pool.lock);
    uint64_t n = pool.started;
    pthread_mutex_unlock(&pool.lock);
    return n;
}
