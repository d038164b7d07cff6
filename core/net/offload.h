/* offload: work that would hold up a loop (TLS handshakes: milliseconds of arithmetic), done by a few threads of lower
 * priority, as many as there are CPUs that the process may use, at most CLAW_OFFLOAD_THREADS, for the whole process.
 *
 * Not libuv's own pool: a look-up of a name that hangs would hold up handshakes, and libuv 1.44 lets a loop spin until the
 * thread that woke it has left the call; a thread of lower priority may need tens of milliseconds for that.
 */
#ifndef CLAW_NET_OFFLOAD_H
#define CLAW_NET_OFFLOAD_H

#include "net/loop.h"

#define CLAW_OFFLOAD_THREADS 8

/* A piece of work; embedded in its owner, which must live until `done`. There is no cancel: who loses interest says so in
 * the owner and lets it run out. */
struct claw_offload {
    struct claw_message message;
    struct claw_offload *next;
    struct claw_loop *loop;
    void (*run)(struct claw_offload *o);  /* on a thread of the pool: touches only what is the owner's */
    void (*done)(struct claw_offload *o); /* on the loop */
};

/* Have o->run called soon, and o->done on `l` after it. CLAW_EIO when there is no thread to do it. Thread: l's. */
int claw_offload_start(struct claw_loop *l, struct claw_offload *o) CLAW_MUSTCHECK;

/* For `run` to call between steps of its work, holding no lock: whoever waits for this CPU goes first. On other threads nothing. */
void claw_offload_yield(void);

/* Pieces of work started so far, by all loops. Any thread. */
uint64_t claw_offload_started(void);

#endif
