/* conf_expand: ${VAR}, ${VAR:-default}, ${file:path} and $$ in a text.
 *
 * A default may hold expressions itself; what a variable or a file gives is not looked at again. A dollar that
 * begins none of these is a dollar. An empty variable counts as unset where a default is given (as in sh).
 */
#ifndef CLAW_BASE_CONF_EXPAND_H
#define CLAW_BASE_CONF_EXPAND_H

#include "base/conf.h"

#define CLAW_CONF_FILE_MAX (1u << 20) /* bytes of one ${file:} */

struct claw_conf_expand {
    struct claw_arena *arena; /* of the result */
    const char *dir;          /* where relative paths of ${file:} start */
    const char *(*get_env)(const char *name);
};

/* The expanded text in *out (NUL after it; the arena's when anything changed, else `text` itself). *whole: the
 * text was one expression and nothing else. CLAW_EINVAL: `why` says what is wrong; CLAW_EREQ_MEM: the arena's cap. */
int claw_conf_expand(const struct claw_conf_expand *x, struct claw_str text, struct claw_str *out, bool *whole,
                     char *why, size_t why_size) CLAW_MUSTCHECK;

#endif
