/* redis: one connection to a Redis, shared by all who ask on this loop, their commands in a pipeline.
 *
 *   idle --a call--> first --the greeting is answered--> up --lost--> idle
 *                      |                                  |
 *                      +--failed--> down <---frozen-------+
 *                                    |  ^
 *                       after a pause|  |failed              in `down` and `again` calls are refused at once
 *                                    v  |
 *                                   again --the greeting is answered--> up
 *
 * The greeting is AUTH and SELECT, as the URL wants them, and PING, within a second: a Redis that accepts but does not
 * answer is down. So is one that has left a call unanswered for a second and for the call's own time, without a byte.
 * Pauses grow from 100 ms to 10 s; after a minute without calls it is left alone (idle). What is bounded: calls, 1,000, also
 * those whose caller has gone and whose reply is still to come; bytes to send, 8 MB; a reply, 16 MB and 65536 elements.
 * A command that was sent may have been carried out whatever its call's outcome is. hiredis reads the replies; the connection
 * is a claw_stream. Thread: the loop's.
 */
#ifndef CLAW_NET_REDIS_H
#define CLAW_NET_REDIS_H

#include "base/conf.h"
#include "net/loop.h"

#define CLAW_REDIS_CALLS 1000

struct claw_redis;
struct redisReply; /* hiredis */

struct claw_redis_call {
    struct claw_redis_call *next; /* in the order of the replies */
    struct claw_redis *redis;
    struct claw_timer timer;
    uint64_t sent_ms;
    bool over;                    /* told, or nobody wants it any more */
    bool dropped;                 /* to be freed with its place in the order */
    void (*on_done)(struct claw_redis_call *c);
    void *arg;
    /* the outcome, from on_done on */
    int code;                     /* CLAW_OK, CLAW_EDEADLINE, CLAW_ECONNECT (down, or lost meanwhile) */
    char error[160];
    struct redisReply *reply;     /* CLAW_OK: the call's; an error reply is one, too */
};

/* The connection to where `conf` says among those of *list, a new one in front of it when there is none (then others that
 * nobody uses go). Nothing is connected yet. NULL: no memory, or four others are in use. */
struct claw_redis *claw_redis_of(struct claw_redis **list, struct claw_loop *loop, const struct claw_conf_redis *conf);
/* Free all. No call may be under way but those that were freed before. */
void claw_redis_free_all(struct claw_redis **list);

/* Send a command of n words. 0: on_done comes once, not before this returns, unless claw_redis_call_free is called first.
 * Else *why, and no on_done: CLAW_ECONNECT: down; CLAW_EAGAIN: a bound is reached; CLAW_EBODY_TOO_LARGE: over 1 MB;
 * CLAW_ENOMEM. */
int claw_redis_start(struct claw_redis *x, const struct claw_str *words, size_t n, unsigned timeout_ms,
                     void (*on_done)(struct claw_redis_call *c), void *arg, struct claw_redis_call **out, const char **why) CLAW_MUSTCHECK;
/* Give it up, or free it after on_done (not within). Its reply is dropped when it comes. */
void claw_redis_call_free(struct claw_redis_call *c);
/* What it said means that this is the wrong one (a replica that was the primary): the connection is given up, and all calls
 * with it, `why` says so; it is looked for anew after a pause. Not from within on_done. */
void claw_redis_drop(struct claw_redis *x, const char *why);
/* Calls that wait for a reply, also those given up. */
unsigned claw_redis_count(const struct claw_redis *x);

#endif
