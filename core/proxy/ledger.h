/* ledger: who spent what on which model, hour by hour, and every client's spend by period, where a restart finds it again.
 *
 *   a request is settled -> the worker's page (sums by hour, client, route, upstream, model)
 *                        -> CLAW_LEDGER_PERIOD_MS later the writer -> one transaction in SQLite
 *
 * A request costs a look-up in its worker's page, under a lock that only the writer shares, and only to take the page's sums
 * away. One thread of its own does all SQL: it writes, and it answers what operators ask. The file is in WAL mode with
 * synchronous=NORMAL: a process that is killed loses what was not written yet, at most the last CLAW_LEDGER_PERIOD_MS and
 * the transaction under way; a machine that loses power may lose what the kernel had not put on the disk. What cannot be
 * written (a full disk) is kept and tried again, CLAW_LEDGER_WAITING sums of it at most; then new ones are lost and counted.
 *
 * The file belongs to one process: a second one adds to the same history, but does not see the first one's spend before it
 * starts anew. Owner: control.
 */
#ifndef CLAW_PROXY_LEDGER_H
#define CLAW_PROXY_LEDGER_H

#include "base/buf.h"
#include "net/loop.h"

#define CLAW_LEDGER_PERIOD_MS 50u
#define CLAW_LEDGER_PAGE 4096u     /* sums in a page; past them what comes is added up under the model "(other)" */
#define CLAW_LEDGER_WAITING 65536u /* sums not written yet */
#define CLAW_LEDGER_ROWS 10000u    /* of one answer, at most */

struct claw_ledger;
struct claw_ledger_page;

/* What one request was. Slices are copied. */
struct claw_ledger_entry {
    struct claw_str client, route, upstream, model; /* "": none; the model is the one sent */
    bool failed;    /* answered with 400 or more, or cut */
    bool estimated; /* its tokens were not told but estimated */
    int64_t input, cached, written, output, reasoning; /* tokens by class; input holds cached and written too */
    int64_t cost_micros;
};

/* Open `path`, made when it is not there (NULL: in memory only), put back into claw_spend what is known of the present
 * periods, start the writer. Hours older than `keep_days` are forgotten. CLAW_EIO with a text in `why`; CLAW_ENOMEM. */
int claw_ledger_open(const char *path, unsigned keep_days, struct claw_ledger **out, char *why, size_t why_size) CLAW_MUSTCHECK;
/* Write what is left, end the thread. Questions not answered yet are answered before. */
void claw_ledger_close(struct claw_ledger *l);
/* The page of worker `number` (1, 2 …): the same one each time. NULL: out of memory. Any thread. */
struct claw_ledger_page *claw_ledger_page_of(struct claw_ledger *l, unsigned number);
/* A request was settled at `now` (Unix seconds): into the page, and into the client's spend, when it has a name. The page's worker. */
void claw_ledger_add(struct claw_ledger_page *page, const struct claw_ledger_entry *e, int64_t now);

struct claw_ledger_stats {
    int64_t written; /* requests whose sums are in the database */
    int64_t waiting; /* sums not written yet */
    int64_t lost;    /* requests that found no room */
    int64_t errors;  /* transactions that failed */
};
/* How it stands now. Any thread. */
struct claw_ledger_stats claw_ledger_measure(struct claw_ledger *l);

/* A question: sums between two times, by what is asked for. Embedded in its owner, which lives until `done`. */
enum claw_ledger_by { CLAW_LEDGER_CLIENT = 1, CLAW_LEDGER_ROUTE = 2, CLAW_LEDGER_UPSTREAM = 4, CLAW_LEDGER_MODEL = 8 };
struct claw_ledger_question {
    struct claw_message message;
    struct claw_ledger_question *next;
    struct claw_loop *loop;
    int64_t from, to;        /* Unix seconds, whole hours count that begin in [from, to) */
    unsigned by;             /* enum claw_ledger_by, added; 0: everything in one */
    unsigned step;           /* seconds: 3600, 86400; 0: not by time */
    struct claw_str only[4]; /* client, route, upstream, model: only these; ptr NULL: all */
    bool csv;                /* RFC 4180, else JSON */
    struct claw_buf out;     /* the owner's to free */
    int rc;                  /* 0, CLAW_EIO, CLAW_ENOMEM */
    void (*done)(struct claw_ledger_question *q); /* on `loop` */
};
/* Answers hold what was settled before the question. */
void claw_ledger_ask(struct claw_ledger *l, struct claw_ledger_question *q);

#endif
