/* renew: secrets from elsewhere, on control's loop: what a load lacks is fetched while everything goes on, and every
 * secrets.refresh_seconds those of the generation in use are fetched again.
 *
 *   a load lacks some  -> fetched -> on_load: load again
 *   the time is over   -> fetched -> one is another than what was published -> on_change: load
 *   some end by themselves (a role's credentials, Vault's token): they are renewed before
 *   some failed        -> again after 2, 4, 8 … s, at most refresh_seconds; the last good values stay
 *
 * Thread: control.
 */
#ifndef CLAW_APP_RENEW_H
#define CLAW_APP_RENEW_H

#include "base/conf.h"
#include "proxy/secret.h"

struct claw_renew {
    struct claw_loop *loop;
    struct claw_fetcher *fetcher;
    struct claw_secrets *secrets;
    struct claw_conf *conf;      /* what the load that waits has read so far: owned, NULL when none waits */
    struct claw_conf_secrets of; /* those in use: the published configuration's, which outlives it here */
    struct claw_timer timer, ends; /* ends: of what ends by itself */
    uint64_t used;               /* claw_secrets_hash of what was published */
    unsigned failures;
    bool waited;                 /* a load waits */
    bool stopped;
    void (*on_load)(void *arg);
    void (*on_change)(void *arg);
    void *arg;
};

/* CLAW_ENOMEM. */
int claw_renew_init(struct claw_renew *r, struct claw_loop *loop, struct claw_fetcher *x, struct claw_metrics_shard *metrics) CLAW_MUSTCHECK;
/* A load lacks what `conf` refers to (it is taken): on_load comes when it may try again. 0, CLAW_ENOMEM. */
int claw_renew_await(struct claw_renew *r, struct claw_conf *conf) CLAW_MUSTCHECK;
/* From now on these are in use. `of` must live until the next call. */
void claw_renew_published(struct claw_renew *r, const struct claw_conf_secrets *of);
/* A load was refused: only what is in use is kept. Not while another load waits. */
void claw_renew_refused(struct claw_renew *r);
/* Nothing is fetched any more; no callback comes. */
void claw_renew_stop(struct claw_renew *r);
void claw_renew_fini(struct claw_renew *r);

#endif
