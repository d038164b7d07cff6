/* offload: work that would hold up a loop (TLS handshakes: milliseconds of arithmetic, and what their memory needs), done by a
 * few threads of lower priority, as many as there are CPUs that the process may use, at most CLAW_OFFLOAD_THREADS, for the
 * whole process.
 *
 * They have the lowest priority, so that a loop that wakes up goes on at once, and no loop takes a lock that one of them may
 * hold while it waits for its CPU: work is handed over without one, and what they allocate they free (malloc's arenas have
 * locks too). A loop that is never idle would starve them: when nothing was taken up for CLAW_OFFLOAD_STUCK_MS, one more
 * thread, of a middle priority (some 10 % of a busy CPU), works until the others come to it again.
 *
 * Not libuv's own pool: a look-up of a name that hangs would hold up handshakes, and libuv 1.44 lets a loop spin until the
 * thread that woke it has left the call; a thread of lower priority may need tens of milliseconds for that.
 */
#ifndef CLAW_NET_OFFLOAD_H
#define CLAW_NET_OFFLOAD_H

#include "net/loop.h"

#define CLAW_OFFLOAD_THREADS 8
#define CLAW_OFFLOAD_STUCK_MS 50

/* A piece of work; embedded in its owner, which must live until `done`. There is no cancel: who loses interest says so in
 * the owner and lets it run out. */
struct claw_offload {
    struct claw_message message;
    struct claw_offload *next;
    struct claw_loop *loop;
    bool light;                           /* brief: goes before those that are not */
    void (*run)(struct claw_offload *o);  /* on a thread of the pool: touches only what is the owner's */
    void (*done)(struct claw_offload *o); /* on the loop */
};

/* Have o->run called soon, and o->done on `l` after it. CLAW_EIO when there is no thread to do it. Thread: l's. */
int claw_offload_start(struct claw_loop *l, struct claw_offload *o) CLAW_MUSTCHECK;

/* For `run` to call between steps of its work, holding no lock: whoever waits for this CPU goes first. On other threads nothing. */
void claw_offload_yield(void);

/* Pieces of work that are not light started so far, by all loops. Any thread. */
uint64_t claw_offload_started(void);

#endif
