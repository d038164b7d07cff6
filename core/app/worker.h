/* worker: one thread with its loop, its listening socket, its pool and its view of the current generation.
 *
 * Made on the control thread (so that a port that cannot be bound is told before anything runs), then run on a thread of
 * its own. The control thread talks to it by messages only.
 */
#ifndef CLAW_APP_WORKER_H
#define CLAW_APP_WORKER_H

#include "proxy/pipeline.h"
#include "script/policy.h"

struct claw_worker;

/* What workers tell the control thread; both run on the worker's thread. */
struct claw_worker_events {
    void (*on_vm_free)(void *arg, struct claw_policy_vm *vm); /* a generation's VM is no longer used: free it elsewhere */
    void (*on_end)(void *arg, struct claw_worker *w);         /* drained: about to leave its loop */
    void *arg;
};

/* Worker `number` (from 1). Listen as `gen` says, with `vm` (owned from here on) as its first policy VM. `total` counts client connections over
 * all workers. CLAW_EIO with *why: cannot bind. */
int claw_worker_new(unsigned number, struct claw_generation *gen, struct claw_policy_vm *vm, _Atomic int64_t *total,
                    const struct claw_worker_events *on, struct claw_worker **out, const char **why) CLAW_MUSTCHECK;
/* Start the thread. CLAW_EIO: there is none to be had. */
int claw_worker_start(struct claw_worker *w) CLAW_MUSTCHECK;
/* Requests from now on use `gen` and `vm` (owned from here on, on failure too). CLAW_ENOMEM: nothing was posted. */
int claw_worker_publish(struct claw_worker *w, struct claw_generation *gen, struct claw_policy_vm *vm) CLAW_MUSTCHECK;
/* Stop accepting; on_end follows when the last request is done. */
void claw_worker_drain(struct claw_worker *w);
/* Cut the requests of `gen`, each with an error in its protocol. */
void claw_worker_cut(struct claw_worker *w, struct claw_generation *gen);
/* Cut what is still in flight, each with an error in its protocol. */
void claw_worker_abort(struct claw_worker *w);
/* Wait for the thread's end and free the worker. The number of handles it leaked (0: clean). */
int claw_worker_join(struct claw_worker *w);
/* Ends a worker that was never started. */
void claw_worker_discard(struct claw_worker *w);
/* What it keeps of the requests that ended; NULL: there was no memory for it. */
struct claw_recent *claw_worker_recent(const struct claw_worker *w);
/* Run `m` on the worker's thread; of a worker that ended, in claw_worker_join. */
void claw_worker_post(struct claw_worker *w, struct claw_message *m);
/* In such a message, whose loop it is: up to `most` of the worker's requests in flight, with commas between; *n: how many there are. */
int claw_worker_write_requests(struct claw_loop *loop, unsigned most, struct claw_buf *out, size_t *n) CLAW_MUSTCHECK;
uint16_t claw_worker_port(const struct claw_worker *w);
/* For how long its loop has not turned, in milliseconds: up to some 260 when all is well, 0 before its start and behind its
 * end. Any thread. */
uint64_t claw_worker_still_ms(const struct claw_worker *w);

#endif
