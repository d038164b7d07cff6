/* spend: what each client has spent in the present day, week, month, and altogether.
 *
 * Kept by name for the whole process, like facts, so that a reload forgets nothing; what was spent before a restart the
 * ledger puts back. Money is whole micro-dollars. Periods are UTC's; a week begins on Monday (ISO 8601).
 * A sum stays at CLAW_SPEND_MOST, nine billion dollars, nine times the greatest budget: Redis counts in doubles.
 * Time is Unix seconds of the wall clock: one that is set back counts on in the later period.
 * Where instances share state what is spent here is noted for sync, too, and what it hears counts instead of what this one
 * knew: then these are the sums of all instances, some tenths of a second old.
 * Thread: any; one client's lock is held for a few additions.
 */
#ifndef CLAW_PROXY_SPEND_H
#define CLAW_PROXY_SPEND_H

#include "base/buf.h"

#define CLAW_SPEND_MOST ((INT64_C(1) << 53) - 1)

enum claw_spend_per { CLAW_SPEND_DAY, CLAW_SPEND_WEEK, CLAW_SPEND_MONTH, CLAW_SPEND_TOTAL, CLAW_SPEND_PERIODS };

struct claw_spend; /* one client's; lives until the process ends */

/* By the client's name; made on first use. NULL: out of memory. */
struct claw_spend *claw_spend_of(struct claw_str client);
/* When the period that `now` lies in began (TOTAL: 0), and when the next one begins (TOTAL: INT64_MAX). */
int64_t claw_spend_start(enum claw_spend_per per, int64_t now);
int64_t claw_spend_end(enum claw_spend_per per, int64_t now);
/* "day" "week" "month" "total", and back; false: none of them. */
const char *claw_spend_per_name(enum claw_spend_per per);
bool claw_spend_per_of(struct claw_str name, enum claw_spend_per *out);

/* `micros` were spent at `now`: in all four periods. */
void claw_spend_add(struct claw_spend *s, int64_t micros, int64_t now);
/* Spent in the period that `now` lies in. */
int64_t claw_spend_in(struct claw_spend *s, enum claw_spend_per per, int64_t now);
/* Spent before this process began, in the period that began at `start`. */
void claw_spend_restore(struct claw_spend *s, enum claw_spend_per per, int64_t start, int64_t micros);

/* Is what is spent told to other instances from now on? */
void claw_spend_share(bool on);
/* What one client spent since it was taken last (`more`), in the periods that began at `start`, and what was known to be
 * spent in them without that. */
struct claw_spend_news {
    struct claw_spend *spend;
    int64_t start[CLAW_SPEND_PERIODS], known[CLAW_SPEND_PERIODS], more[CLAW_SPEND_PERIODS];
};
/* News of those who spent or were asked for, and of some others in turn, half of what room there is left; `most` at most. How many;
 * `most`: there may be more. Thread: sync's. */
size_t claw_spend_take_news(struct claw_spend_news *out, size_t most);
/* What all instances spent in the periods that began at `start`, everything that was taken from here in it. */
void claw_spend_hear(struct claw_spend *s, const int64_t start[CLAW_SPEND_PERIODS], const int64_t micros[CLAW_SPEND_PERIODS]);
/* The client's name; lives as long. */
struct claw_str claw_spend_name(const struct claw_spend *s);

#endif
