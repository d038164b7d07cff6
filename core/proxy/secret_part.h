/* secret_part: what the files of secret share. Nobody else includes it. */
#ifndef CLAW_PROXY_SECRET_PART_H
#define CLAW_PROXY_SECRET_PART_H

#include "proxy/fetch.h"
#include "proxy/secret.h"

/* One secret. */
struct claw_secret {
    enum claw_conf_store store;
    struct claw_buf name;
    struct claw_buf text;  /* Vault: an object's JSON. AWS: the SecretString */
    uint64_t origin;       /* of `text`: a number made of where it was asked for */
    bool there, stale;     /* stale: `text` is to be fetched again before it is given */
    bool failed;           /* the last fetch did; `why` says how */
    bool wanted;           /* in this round */
    char why[256];
    /* a role's: */
    unsigned step;         /* of an instance's three questions */
    struct claw_buf aside; /* its metadata's token, "\n", its role */
    int64_t got, expires;  /* Unix seconds; expires 0: it does not say */
};

/* What a round asks with, copied. */
struct claw_secret_settings {
    struct claw_conf_secrets conf;
    struct claw_str token;          /* Vault's, maybe of its file */
    struct claw_fetch_tls tls;      /* context NULL: Vault is not asked by TLS */
    char tls_error[256];            /* "": none */
};

/* Start asking for `e`: NULL, or why it cannot be asked for. */
const char *claw_secret_ask(struct claw_fetcher *x, const struct claw_secret_settings *with, struct claw_secret *e, unsigned timeout_ms,
                            void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out);
/* It could not be got: e->why says so. */
void claw_secret_failed(struct claw_secret *e, const char *fmt, ...) CLAW_PRINTF(2, 3);
/* Take what was answered: e->text, or e->failed and e->why. */
void claw_secret_take(struct claw_secret *e, struct claw_fetch *f);
/* The same of the role's credentials (secret_role.c). Taken: true: there is more to ask. */
const char *claw_secret_ask_role(struct claw_fetcher *x, const struct claw_secret_settings *with, struct claw_secret *e, unsigned timeout_ms,
                                 void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out);
bool claw_secret_take_role(const struct claw_secret_settings *with, struct claw_secret *e, struct claw_fetch *f);
/* Vault's token is renewed (secret_ask.c): start asking; NULL, or why it cannot be. */
const char *claw_secret_ask_renewal(struct claw_fetcher *x, const struct claw_secret_settings *with, unsigned timeout_ms, void (*done)(struct claw_fetch *f), void *arg,
                                    struct claw_fetch **out);
/* What became of it: seconds that it is good for now, 0: for ever; below 0: it could not be renewed, and *why says why (a sentence); *denied: it never can be. */
int64_t claw_secret_take_renewal(const struct claw_fetch *f, char *why, size_t why_size, bool *denied);
/* A field of what is kept, into `a`; 0, CLAW_EINVAL with a sentence, CLAW_EREQ_MEM. */
int claw_secret_field(const struct claw_secret *e, struct claw_str field, struct claw_arena *a, struct claw_str *out, char *why, size_t why_size);

#endif
