/* lane: work that costs several times what a request does (taking or opening a connection, what comes of a step of a
 * handshake, a close), or that hundreds may want in the same turn (a socket that has bytes, a hook that goes on behind its wait, a request
 * that begins): a bounded number of pieces a turn, and fewer once the turn is long, so that hundreds at once hold up nobody else's
 * request for long.
 *
 * Whoever has such work stands in a lane of its own kind: an endpoint's connects, a listener's accepts, a VM's wakes. While a turn has
 * room and nobody waits in the lane, the work is done at once. What waits is taken up in the turns that follow: the lanes
 * alternate, within a lane the order is kept. While somebody waits the loop does not sleep.
 * Bounded by what stands in it: a ticket is embedded in its owner, and leaving is legal at every point.
 * Thread: the loop's.
 */
#ifndef CLAW_NET_LANE_H
#define CLAW_NET_LANE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define CLAW_LANE_A_TURN 16u /* pieces of work in a turn, all lanes together: half a millisecond to a whole one or two */
#define CLAW_LANE_ANYWAY 4u  /* of them also in a turn that took longer than CLAW_LANE_LONG_US until then */
#define CLAW_LANE_LONG_US 1500u /* counted from the whole millisecond in which the poll returned: up to one less */
#define CLAW_LANE_READS_ANYWAY 16u /* sockets read in a turn before anybody looks whether it is long */

struct claw_loop;

struct claw_lane_ticket {
    struct claw_lane_ticket *prev, *next;
    struct claw_lane *lane; /* NULL: does not wait */
    void (*run)(struct claw_lane_ticket *t); /* may free its owner */
};

/* All zero is an empty lane. It may be freed when nobody waits in it. */
struct claw_lane {
    struct claw_lane *prev, *next; /* of those where somebody waits */
    struct claw_lane_ticket *first, *last;
    bool light; /* the owner's, once: four of its pieces are as one of others */
};

/* A loop's. */
struct claw_lanes {
    uv_idle_t idle;         /* runs while somebody waits */
    struct claw_lane *next; /* a circle; whose turn it is */
    uint64_t turn;          /* the one `taken` is of */
    unsigned taken;         /* quarters of a piece */
    unsigned reads;         /* since the poll began */
    uint64_t woke_ms;       /* when the last poll returned: libuv's clock goes on behind it */
    unsigned long_us;       /* CLAW_LANE_LONG_US; tests say more, so that a busy machine changes nothing */
};

/* False: go on with the work now, this turn has room (it is counted). True: t->run will be called on the loop in one of the
 * turns that follow. t must not wait already; all zero before the first use. */
bool claw_lane_wait(struct claw_loop *l, struct claw_lane *lane, struct claw_lane_ticket *t, void (*run)(struct claw_lane_ticket *t)) CLAW_MUSTCHECK;
/* The same for a socket that has bytes to read: counts one of the poll's reads, which are many and short, and takes none of the
 * turn's room. True, behind CLAW_LANE_READS_ANYWAY of them in a turn that is long: t->run will be called. */
bool claw_lane_wait_read(struct claw_loop *l, struct claw_lane *lane, struct claw_lane_ticket *t, void (*run)(struct claw_lane_ticket *t)) CLAW_MUSTCHECK;
/* Stop waiting; nothing when t does not wait. */
void claw_lane_leave(struct claw_loop *l, struct claw_lane_ticket *t);

/* For loop.c: begin, a poll is over, run whatever waits without a bound, end. */
void claw_lanes_init(struct claw_loop *l);
void claw_lanes_polled(struct claw_loop *l);
void claw_lanes_empty(struct claw_loop *l);
void claw_lanes_fini(struct claw_loop *l);

#endif
