/* ledger_part: what ledger.c (pages, the writer) and ledger_db.c (SQL) share. Nobody else includes it. */
#ifndef CLAW_PROXY_LEDGER_PART_H
#define CLAW_PROXY_LEDGER_PART_H

#include "proxy/ledger.h"

#define CLAW_LEDGER_BUCKETS 1024u

/* Sums of the requests that have an hour and four words in common. */
struct claw_ledger_sum {
    struct claw_ledger_sum *next; /* in its bucket */
    uint64_t hash;
    int64_t hour;                 /* when it began */
    struct claw_str words[4];     /* client, route, upstream, model: in `text` */
    int64_t requests, failed, estimated, input, cached, written, output, reasoning, cost_micros;
    char text[];
};

struct claw_ledger_table {
    struct claw_ledger_sum *buckets[CLAW_LEDGER_BUCKETS];
    unsigned n;
};

struct claw_ledger_db;
/* CLAW_EIO with a text. */
int claw_ledger_db_open(const char *path, struct claw_ledger_db **out, char *why, size_t why_size) CLAW_MUSTCHECK;
void claw_ledger_db_close(struct claw_ledger_db *db);
/* Give claw_spend what is known of the periods that `now` lies in. */
int claw_ledger_db_restore(struct claw_ledger_db *db, int64_t now) CLAW_MUSTCHECK;
/* Add the whole table, in one transaction. CLAW_EIO: nothing was. */
int claw_ledger_db_write(struct claw_ledger_db *db, const struct claw_ledger_table *t) CLAW_MUSTCHECK;
/* Forget hours, and spend of periods, that began before `before`. */
int claw_ledger_db_forget(struct claw_ledger_db *db, int64_t before) CLAW_MUSTCHECK;
int claw_ledger_db_answer(struct claw_ledger_db *db, struct claw_ledger_question *q) CLAW_MUSTCHECK;
/* The last failure's text. */
const char *claw_ledger_db_why(struct claw_ledger_db *db);

#endif
