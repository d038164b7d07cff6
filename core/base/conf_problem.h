/* conf_problem: what is wrong with a configuration, one line a problem, in the file's order.
 *
 * A report knows the file and the key path a pass is at. Passes enter a key or an index before they look at a
 * value and leave it after, so that a message never has to be told where it is. At most CLAW_CONF_PROBLEMS
 * lines are kept; the last of them says that there were more.
 */
#ifndef CLAW_BASE_CONF_PROBLEM_H
#define CLAW_BASE_CONF_PROBLEM_H

#include "base/conf.h"

#define CLAW_CONF_PROBLEMS 100

struct claw_conf_report {
    const char *file; /* as the user gave it */
    struct claw_conf_problems *to;
    size_t n; /* problems found by this report, also those not kept */
    size_t unknown; /* those of them that are unknown keys: the rest of the file can still be looked at */
    size_t path_len;
    char path[512]; /* "routes[0].match", cut when longer */
};

/* Begin at the root of `file`; problems go to `to`. */
void claw_conf_report_init(struct claw_conf_report *r, const char *file, struct claw_conf_problems *to);
/* Go down into a key or an element; the result is given back to leave. */
size_t claw_conf_report_enter(struct claw_conf_report *r, struct claw_str key);
size_t claw_conf_report_enter_at(struct claw_conf_report *r, size_t i);
void claw_conf_report_leave(struct claw_conf_report *r, size_t mark);
/* A problem at the current path. Control characters in the message become '?'. */
void claw_conf_report_add(struct claw_conf_report *r, unsigned line, unsigned column, const char *fmt, ...)
    CLAW_PRINTF(4, 5);

/* The nearest of several words to a mistyped one (edit distance without case, transpositions count once). */
struct claw_conf_guess {
    struct claw_str asked, best;
    size_t distance;
    char text[128];
};
void claw_conf_guess_init(struct claw_conf_guess *g, struct claw_str asked);
void claw_conf_guess_try(struct claw_conf_guess *g, struct claw_str word);
/* ` (did you mean "type"?)`, or "" when nothing was near enough. Lives as long as the guess. */
const char *claw_conf_guess_text(struct claw_conf_guess *g);

#endif
