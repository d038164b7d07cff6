/* tally: what one worker counts of one generation: requests that began, that ended, that its policies failed, and whose fault.
 *
 * The worker alone counts, without locks and without waiting; the control thread adds the workers' tallies up. The blame
 * behind the counts is kept under a lock that the worker only tries: while somebody reads, it counts and does not say why.
 * Owner: the generation, for which tallies form a list that only grows.
 */
#ifndef CLAW_PROXY_TALLY_H
#define CLAW_PROXY_TALLY_H

#include "base/buf.h"

#include <pthread.h>

#define CLAW_TALLY_BLAMES 8 /* pairs of policy and hook; those after them are counted without a name */

struct claw_tally_blame {
    char policy[80], hook[24], message[400]; /* the last one, cut */
    int64_t n;
};

struct claw_tally {
    struct claw_tally *next;
    unsigned worker;              /* 1, 2 … as control numbers them */
    _Atomic int64_t begun, ended, failed;
    pthread_mutex_t lock;
    struct claw_tally_blame blames[CLAW_TALLY_BLAMES];
    unsigned blames_n;
};

struct claw_tally_sum { int64_t begun, ended, failed; };

/* A tally on the list at `head`. NULL: out of memory. */
struct claw_tally *claw_tally_new(struct claw_tally *_Atomic *head, unsigned worker);
/* The whole list; nobody may count any more. */
void claw_tally_free(struct claw_tally *first);

/* Thread: the worker's. A request begins, ends, is failed by a policy (once for a request). */
void claw_tally_begin(struct claw_tally *t);
void claw_tally_end(struct claw_tally *t);
void claw_tally_fail(struct claw_tally *t, struct claw_str policy, struct claw_str hook, struct claw_str message);

/* Over the list; of one worker only unless `worker` is 0. Any thread. What is in flight is begun - ended, never negative. */
struct claw_tally_sum claw_tally_add(struct claw_tally *first, unsigned worker);
/* Up to `most` pairs of policy and hook that failed, over the list, behind the `n` that `to` has already (of other lists), in no
 * order: how many there are then. Any thread. */
unsigned claw_tally_blames(struct claw_tally *first, struct claw_tally_blame *to, unsigned n, unsigned most);
/* The policy and hook that failed most over the list, n being how often; n 0: nobody is to blame. Any thread. */
void claw_tally_worst(struct claw_tally *first, struct claw_tally_blame *out);

#endif
