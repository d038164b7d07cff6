/* lineage: the generations that are alive, who follows whom, and whether the newest one is to be kept.
 *
 *   publish -> on probation -> stands     its window is over: the one before it may go
 *                           -> taken back its policies fail too many requests: the last good one is the current one again
 *
 * The last good one is kept for as long as the newest is on probation. Another publication meanwhile hands it on, unless
 * the one on probation has by then served enough requests (rollback.errors) without a policy's error to count as good.
 * What is decided here is done by control. Clocks are the caller's. Owner and thread: control.
 */
#ifndef CLAW_APP_LINEAGE_H
#define CLAW_APP_LINEAGE_H

#include "proxy/generation.h"

enum claw_lineage_state { CLAW_LINEAGE_CURRENT, CLAW_LINEAGE_DRAINING, CLAW_LINEAGE_ROLLED_BACK };

struct claw_lineage_entry {
    struct claw_lineage_entry *next; /* the one published before */
    struct claw_generation *gen;     /* a reference */
    enum claw_lineage_state state;
    char reason[32];
    int64_t since;                   /* Unix seconds when it became the current one, the last time */
    uint64_t since_ms, left_ms;      /* by the monotonic clock: that, and when it was no longer the current one */
    bool cut;                        /* its remaining requests were told to end */
};

/* The last time a generation was taken back. */
struct claw_lineage_return {
    int64_t at; /* Unix seconds; 0: never */
    uint64_t from, to;
    struct claw_tally_sum sum;
    struct claw_tally_blame worst;
};

struct claw_lineage {
    struct claw_lineage_entry *first; /* the newest */
    struct claw_lineage_entry *current, *good;  /* good: NULL when there is none to return to */
    bool probation;
    uint64_t refused_hash;            /* of the one taken back, until another is published */
    bool refused;
    struct claw_lineage_return last;
};

enum claw_lineage_verdict {
    CLAW_LINEAGE_FINE,    /* go on */
    CLAW_LINEAGE_RETURN,  /* return to `good` */
    CLAW_LINEAGE_NOWHERE, /* the bound is passed and there is nothing to return to; told once */
};

/* `gen` (whose reference is the lineage's from here on) is the current one. CLAW_ENOMEM: nothing changed, gen is the
 * caller's. */
int claw_lineage_publish(struct claw_lineage *l, struct claw_generation *gen, const char *reason, int64_t now, uint64_t now_ms) CLAW_MUSTCHECK;
/* How the current one does; ends its probation when it is due. */
enum claw_lineage_verdict claw_lineage_judge(struct claw_lineage *l, uint64_t now_ms);
/* The good one is the current one again, the current one rolled back; l->last tells of it. Only after RETURN. */
void claw_lineage_return(struct claw_lineage *l, int64_t now, uint64_t now_ms);
/* There is no return: the good one may go. */
void claw_lineage_settle(struct claw_lineage *l);
/* Let go of those that nobody else refers to. */
void claw_lineage_tidy(struct claw_lineage *l);
/* One that is not the current one for `max_ms` and still has requests, each once; NULL. */
struct claw_lineage_entry *claw_lineage_overdue(struct claw_lineage *l, unsigned max_ms, uint64_t now_ms);
/* The members "generations" and "last_rollback" of /generations, without braces. `workers` is their number. */
int claw_lineage_write(struct claw_lineage *l, unsigned workers, uint64_t now_ms, struct claw_buf *out) CLAW_MUSTCHECK;
/* Drops every reference. */
void claw_lineage_fini(struct claw_lineage *l);

#endif
