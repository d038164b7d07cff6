/* conf_expand: ${VAR}, ${VAR:-default}, ${file:path}, ${vault:path#field}, ${aws-sm:name#field} and $$ in a text.
 *
 * A default may hold expressions itself; what a variable or a file gives is not looked at again. A dollar that
 * begins none of these is a dollar. An empty variable counts as unset where a default is given (as in sh).
 */
#ifndef CLAW_BASE_CONF_EXPAND_H
#define CLAW_BASE_CONF_EXPAND_H

#include "base/conf.h"

#define CLAW_CONF_FILE_MAX (1u << 20) /* bytes of one ${file:} */

struct claw_conf_keeper;

struct claw_conf_expand {
    struct claw_arena *arena; /* of the result */
    const char *dir;          /* where relative paths of ${file:} start */
    const char *(*get_env)(const char *name);
    struct claw_conf *noted;  /* gets the files that were read and the secrets referred to; room for CLAW_CONF_FILES and
                                 CLAW_CONF_SECRETS. NULL: nobody does, and secrets from elsewhere are a mistake */
    const struct claw_conf_keeper *keeper; /* of secrets from elsewhere; NULL: none */
};

/* What an expansion was like. */
struct claw_conf_expanded {
    bool whole;     /* the text was one expression and nothing else */
    bool elsewhere; /* it refers to a secret from elsewhere */
};

/* The expanded text in *out (NUL after it; the arena's when anything changed, else `text` itself). CLAW_EINVAL: `why` says what is
 * wrong; CLAW_EAGAIN: a secret is not there yet; CLAW_EREQ_MEM: the arena's cap. */
int claw_conf_expand(const struct claw_conf_expand *x, struct claw_str text, struct claw_str *out,
                     struct claw_conf_expanded *how, char *why, size_t why_size) CLAW_MUSTCHECK;

/* A file was read for the configuration: it is watched. Past CLAW_CONF_FILES its change is seen with the next reload. Copies the path. */
void claw_conf_note_file(const struct claw_conf_expand *x, const char *path);

#endif
