/* limit_queue: who waits for room in a limit (max_wait_ms), and whose turn it is.
 *
 *   queue (a limit and the values it counts by) -> ring of clients -> each client's requests, in the order they came
 *
 * Clients take turns (round robin): the first client of the ring has its first request called, and goes to the ring's end when it has
 * more. So one that floods a limit waits behind itself, and another's first request behind one of each who was there before.
 * Who is called asks the limit (limit.c), again and again until there is room or its time is over; nobody else asks, and who comes
 * while somebody waits queues up. At most `max` wait in a queue, and `max_of_one` of one client.
 *
 * A place is the waiting request's, in its arena, and left in the turn in which the request goes on or ends. One lock is over all
 * queues, held for a few steps, and taken only by limits with max_wait_ms and while somebody waits. Thread: any worker; `on_call` runs
 * on the loop the place was taken on.
 */
#ifndef CLAW_PROXY_LIMIT_QUEUE_H
#define CLAW_PROXY_LIMIT_QUEUE_H

#include "base/buf.h"
#include "net/loop.h"

#define CLAW_LIMIT_QUEUE_PASSED 4u

struct claw_limit_queue;
struct claw_req;
struct claw_limit_member;

/* Places of a loop whose turn has come, to be told there. A worker's, zeroed at first; outlives its loop. */
struct claw_limit_calls {
    struct claw_message message;
    struct claw_limit_place *first, *last;
    bool posted;
};

/* Zeroed at first but for `loop`, `calls` (the loop's) and `on_call`. loop NULL (tests): on_call runs at once, under the lock. */
struct claw_limit_place {
    struct claw_loop *loop;
    struct claw_limit_calls *calls;
    struct claw_req *req; /* the caller's business */
    void (*on_call)(struct claw_limit_place *p);
    /* the queue's: */
    struct claw_limit_queue *queue;    /* NULL: it waits in none */
    struct claw_limit_member *member;
    struct claw_limit_place *prev, *next;               /* of its client, or of those called */
    struct claw_limit_place *calls_prev, *calls_next;
    bool called, listed;
    uint64_t passed[CLAW_LIMIT_QUEUE_PASSED]; /* queues in which its turn came, before another limit had no room */
    unsigned passed_n;
};

/* What may wait where. */
struct claw_limit_waiting {
    struct claw_str key;       /* the queue's: the limit's id, and values */
    uint64_t mark;             /* and of the amounts that are waited for: after a reload there may be others */
    struct claw_str client;
    unsigned max, max_of_one;
    unsigned turns;            /* how many may be called at a time */
    int64_t ahead_ns, step_ns; /* until there was room for the first, and from one to the next (0: not known) */
    int64_t left_ns;           /* how long it may wait still */
};
enum claw_limit_queued {
    CLAW_LIMIT_QUEUE_CALLED, /* it is its turn: ask, and again after a while */
    CLAW_LIMIT_QUEUE_WAITS,  /* on_call comes, or its time is over */
    CLAW_LIMIT_QUEUE_FULL,   /* too many wait */
    CLAW_LIMIT_QUEUE_LATE    /* it would not get room in time, w->ahead_ns is when it would */
};

/* Must who comes with this place (NULL: none yet) queue up? Others wait, and it is not its turn. Cheap while nobody waits anywhere. */
bool claw_limit_queue_holds(const struct claw_limit_place *p, struct claw_str key, uint64_t mark);
/* Wait in the queue: stay if it is there, leave another. *first: it was not there. What does not wait has left. */
enum claw_limit_queued claw_limit_queue_join(struct claw_limit_place *p, struct claw_limit_waiting *w, bool *first) CLAW_MUSTCHECK;
/* Leave, and let the next one be called. Nothing when it waits nowhere. */
void claw_limit_queue_leave(struct claw_limit_place *p);
/* There is room: those whose turn it is, whatever the amounts, are called again. Cheap while nobody waits anywhere. */
void claw_limit_queue_room(struct claw_str key);
/* How many wait for the limit `id`, whatever it counts by; of all limits with id.ptr NULL. */
unsigned claw_limit_queue_waiting(struct claw_str id);

#endif
