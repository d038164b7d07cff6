/* recent: the last requests of a worker, each with how it was decided: route and strategy, candidates in order and who of them
 * was set aside, what each attempt gave, limits, cache. Names, numbers and error texts: no bodies, no headers, no queries.
 *
 * A ring of entries of one size (texts are cut, of attempts and candidates the first CLAW_RECENT_PARTS are kept). The worker
 * writes, the control thread reads; the ring's lock is held for one entry at a time, so that neither waits for longer than
 * the copy of one takes. Owner: the worker.
 */
#ifndef CLAW_PROXY_RECENT_H
#define CLAW_PROXY_RECENT_H

#include "proxy/req.h"

#define CLAW_RECENT_PARTS 8

struct claw_recent;

/* Which ones: a text of length 0 and a number of 0 select everything. */
struct claw_recent_filter {
    struct claw_str route, upstream, client, model;
    int status;         /* 429; or a class of them, 4 for 400 to 499 */
    bool failed;        /* only those that an error ended, or of status 400 and more */
    uint64_t since_us;  /* Unix time: those that ended after it */
    unsigned most;      /* 0: all */
};

/* A ring that keeps nothing yet. NULL: out of memory. */
struct claw_recent *claw_recent_new(void);
/* NULL is fine. Nobody may read or write any more. */
void claw_recent_free(struct claw_recent *r);
/* How many it keeps from now on; what was there is forgotten when that is another number. CLAW_ENOMEM: as it was. Thread: the
 * worker's. */
int claw_recent_set(struct claw_recent *r, unsigned keeps) CLAW_MUSTCHECK;
/* The request is over. Thread: the worker's. */
void claw_recent_add(struct claw_recent *r, const struct claw_req *req);
/* A JSON list of those of `n` rings that the filter selects, the newest first. Any thread. */
int claw_recent_write(struct claw_recent *const *rings, unsigned n, const struct claw_recent_filter *f, struct claw_buf *out) CLAW_MUSTCHECK;
/* A request under way, one such element of a list, with the step it is at. Thread: the worker's. */
int claw_recent_write_live(const struct claw_req *req, struct claw_buf *out) CLAW_MUSTCHECK;

#endif
