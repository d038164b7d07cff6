/* loop: one thread's event loop, its timers, its end of turn, its mailbox.
 *
 * One libuv loop with: a timer wheel (one uv_timer for all timeouts of the thread, 10 ms steps; starting and
 * stopping a timer costs no system call and no heap), a list of things to do at the end of the turn (nothing is
 * freed inside its own callback), a mailbox other threads post to, and one read buffer shared by all streams
 * (no buffer is held while nothing is in it).
 * Thread: everything but claw_loop_post is for the loop's own thread.
 */
#ifndef CLAW_NET_LOOP_H
#define CLAW_NET_LOOP_H

#include "base/err.h"
#include "net/lane.h"

#include <uv.h>

#define CLAW_LOOP_READ_BYTES (64u << 10)
#define CLAW_LOOP_TICK_MS 10u
#define CLAW_LOOP_SOON_MAX 64u
#define CLAW_LOOP_SOON_BYTES 2048u

struct claw_loop;

struct claw_timer {
    struct claw_timer *prev, *next; /* in a slot of the wheel; NULL when not running */
    uint64_t due_ms;
    void (*on_due)(struct claw_timer *t);
    void *arg; /* the owner's */
};

struct claw_deferred {
    struct claw_deferred *next;
    void (*run)(struct claw_deferred *d); /* may free d */
    bool pending;
};

struct claw_message {
    struct claw_message *next;
    void (*run)(struct claw_loop *loop, struct claw_message *m); /* owns m from here on */
};

struct claw_stream;

/* Small writes that wait until what one poll brought is done with, or for the end of the turn; one a stream (stream_soon.c). */
struct claw_soon {
    struct claw_deferred due;
    unsigned n;
    struct { struct claw_stream *s; size_t n; } one[CLAW_LOOP_SOON_MAX]; /* s NULL: sent already */
    char *bytes; /* CLAW_LOOP_SOON_BYTES for each */
};

struct claw_loop {
    uint32_t magic;
    uv_loop_t uv;
    unsigned offloaded; /* pieces of work that other threads have (offload.c) */
    uint64_t turn;  /* counts the turns */
    bool polling;   /* what runs now was called for what the sockets had to say in this turn */
    struct claw_lanes lanes;
    struct claw_lane reads, handshakes, closes; /* the lanes of all streams (stream.c) */
    struct claw_soon soon;
    void *arg; /* the owner's (the worker) */
    unsigned number; /* the owner's: of the worker, from 1; 0 for others */
    size_t slow; /* 0, or the most bytes a read or write moves at once: OPENCLAW_SLOWIO, for tests */
    char *read_buf; /* CLAW_LOOP_READ_BYTES */
    char *plain_buf; /* of the same size: where TLS streams decrypt to */
    struct claw_loop_private *priv;
};

/* CLAW_ENOMEM, or CLAW_EIO when the system gives no descriptors. */
int claw_loop_init(struct claw_loop *l) CLAW_MUSTCHECK;
/* Run until claw_loop_stop. */
void claw_loop_run(struct claw_loop *l);
void claw_loop_stop(struct claw_loop *l);
/* Close the loop's own handles, run out what is closing. Returns the number of handles somebody else left open
 * (0 is clean; each is named on stderr when `say`). */
int claw_loop_fini(struct claw_loop *l, bool say);
/* One turn, without blocking when `wait` is false. For tests. */
void claw_loop_turn(struct claw_loop *l, bool wait);

/* Milliseconds of the monotonic clock, as of this turn. */
uint64_t claw_loop_now_ms(const struct claw_loop *l);
/* Microseconds of the monotonic clock, read now. Not tied to a loop. */
uint64_t claw_loop_clock_us(void);
/* Move the wheel's clock `ms` ahead and fire what is due, in order. For tests: no sleeping. */
void claw_loop_advance(struct claw_loop *l, uint64_t ms);

/* A timer that does not run yet; on_due may start it again, or free its owner. */
void claw_timer_init(struct claw_timer *t, void (*on_due)(struct claw_timer *), void *arg);
/* (Re)start: fires once, not earlier than `ms` from now, at most CLAW_LOOP_TICK_MS late plus the turn's length. */
void claw_timer_start(struct claw_loop *l, struct claw_timer *t, uint64_t ms);
void claw_timer_stop(struct claw_loop *l, struct claw_timer *t);
static inline bool claw_timer_running(const struct claw_timer *t) { return t->next != NULL; }

/* Run d->run at the end of this turn (once; deferring what is pending does nothing). What is deferred from
 * within such a run is run in the same end of turn. */
void claw_loop_defer(struct claw_loop *l, struct claw_deferred *d, void (*run)(struct claw_deferred *));

/* From any thread: run m->run on the loop's thread, in the order posted. The message is the receiver's. */
void claw_loop_post(struct claw_loop *l, struct claw_message *m);

#endif
