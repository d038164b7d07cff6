/* shown: the configuration as operators may see it, and what a reload changed in it. What the schema calls a secret, or is from Vault or AWS, is "***",
 * and so is, wherever it stands, every text known as one (claw_log_redact).
 */
#ifndef CLAW_APP_SHOWN_H
#define CLAW_APP_SHOWN_H

#include "proxy/generation.h"

#define CLAW_SHOWN_CHANGES 200 /* more are counted, not listed */

/* A value and what is in it, as JSON. NULL: null. */
int claw_shown_add(const struct claw_conf_node *n, struct claw_buf *out) CLAW_MUSTCHECK;
/* What is different in `to`, as a JSON object's members without braces: "changes", a list of {"path","change":"added" | "removed" |
 * "changed","before","after"}, values as text, and "changes_left_out". Policies' files are among them, by name only. Thread: any
 * that holds both. */
int claw_shown_changes(const struct claw_generation *from, const struct claw_generation *to, struct claw_buf *out) CLAW_MUSTCHECK;

/* The same of two files as text, without policies: a line a change, `live` or `restart` before its path, by path; the caller sets out. */
struct claw_shown_diff {
    struct claw_buf *out;
    size_t n, sealed; /* changes; of these want a restart */
};
/* CLAW_ENOMEM. Any thread. */
int claw_shown_diff(struct claw_shown_diff *d, const struct claw_conf *from, const struct claw_conf *to) CLAW_MUSTCHECK;

#endif
