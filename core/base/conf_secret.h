/* conf_secret: ${vault:PATH#FIELD} and ${aws-sm:NAME#FIELD}, values that lie elsewhere.
 *
 * This floor has no network: whoever loads lends a keeper, which knows values or does not yet. What is lacking is gathered in
 * claw_conf.secrets, the section `secrets` is read, and loading ends with CLAW_EAGAIN; the caller gets what lacks, tells the keeper,
 * and loads again. References within the section itself are a mistake. Thread: as claw_conf_load.
 */
#ifndef CLAW_BASE_CONF_SECRET_H
#define CLAW_BASE_CONF_SECRET_H

#include "base/conf_expand.h"
#include "base/conf_problem.h"

struct claw_conf_keeper {
    /* A secret's field (`field` "": all of it) into `a`. 0; CLAW_EAGAIN: not there yet; CLAW_EINVAL with *why, a sentence that
     * does not show the value; CLAW_EREQ_MEM: the arena's cap. */
    int (*get)(void *arg, struct claw_conf_secret of, struct claw_str field, struct claw_arena *a, struct claw_str *out, char *why,
               size_t why_size);
    bool offline; /* it knows nothing and makes something up: what must be a URL is replaced by one */
    void *arg;
};

/* The inside of an expression is such a reference: its parts. False: it is none. */
bool claw_conf_secret_parse(struct claw_str inside, struct claw_conf_secret *out, struct claw_str *field);
/* "vault", "aws-sm" or "aws-role". */
const char *claw_conf_store_word(enum claw_conf_store store);
/* A name for the role's credentials, which have the fields AccessKeyId, SecretAccessKey and Token. */
#define CLAW_CONF_ROLE_NAME CLAW_STR("credentials")
/* Are there such for who wants them (`instance`: an instance's, too)? */
bool claw_conf_role_serves(const struct claw_conf_secrets *of, bool instance);
/* The role's credentials, into x's arena and *to but its region. 0; CLAW_EAGAIN: not there yet; CLAW_EINVAL with *why; CLAW_EREQ_MEM. */
int claw_conf_role_get(const struct claw_conf_expand *x, struct claw_conf_aws *to, char *why, size_t why_size) CLAW_MUSTCHECK;
/* Note a reference in `to`, once; room for CLAW_CONF_SECRETS. False: there is no room. */
bool claw_conf_secret_note(struct claw_conf_secrets *to, struct claw_conf_secret ref);
/* Read the section `secrets` of a tree that was checked, and the environment, into `to`. Credentials are told to the log. Reports what
 * cannot be. CLAW_EREQ_MEM: the arena's cap. */
int claw_conf_secrets_read(const struct claw_conf_expand *x, const struct claw_conf_node *root, struct claw_conf_secrets *to,
                           struct claw_conf_report *report) CLAW_MUSTCHECK;

#endif
