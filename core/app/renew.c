#include "app/renew.h"

#define BACKOFF_MS 2000u
#define BACKOFF_STEPS 8u

static void on_due(struct claw_timer *t);
static void on_ends(struct claw_timer *t);

int claw_renew_init(struct claw_renew *r, struct claw_loop *loop, struct claw_fetcher *x, struct claw_metrics_shard *metrics)
{
    r->loop = loop;
    r->fetcher = x;
    claw_timer_init(&r->timer, on_due, r);
    claw_timer_init(&r->ends, on_ends, r);
    return claw_secrets_new(false, metrics, &r->secrets);
}

static void schedule(struct claw_renew *r)
{
    uint64_t ms = r->of.refresh_ms, soon = (uint64_t)BACKOFF_MS << (r->failures < BACKOFF_STEPS ? r->failures : BACKOFF_STEPS);
    claw_timer_stop(r->loop, &r->timer);
    if (r->stopped || !ms || !r->of.n) return;
    if (r->failures && soon / 2 < ms) ms = soon / 2;
    claw_timer_start(r->loop, &r->timer, ms);
}

/* What ends by itself; one that failed is asked for no more often than others. */
static void schedule_ends(struct claw_renew *r)
{
    int64_t due = claw_secrets_due_ms(r->secrets, &r->of);
    uint64_t soon = (uint64_t)BACKOFF_MS << (r->failures < BACKOFF_STEPS ? r->failures : BACKOFF_STEPS);
    claw_timer_stop(r->loop, &r->ends);
    if (r->stopped || due < 0) return;
    claw_timer_start(r->loop, &r->ends, r->failures && (uint64_t)due < soon / 2 ? soon / 2 : (uint64_t)due);
}

static void let_go(struct claw_renew *r)
{
    claw_conf_free(r->conf);
    r->conf = NULL;
}

static void on_fetched(void *arg)
{
    struct claw_renew *r = arg;
    bool waited = r->waited;
    r->failures = claw_secrets_stale(r->secrets) ? r->failures + 1 : 0;
    r->waited = false;
    let_go(r);
    schedule(r);
    schedule_ends(r);
    if (waited) r->on_load(r->arg);
    else if (claw_secrets_hash(r->secrets, &r->of) != r->used) r->on_change(r->arg);
}

static void on_due(struct claw_timer *t)
{
    struct claw_renew *r = t->arg;
    if (claw_secrets_busy(r->secrets)) return; /* its end schedules the next */
    if (claw_secrets_fetch(r->secrets, r->loop, r->fetcher, &r->of, true, on_fetched, r) != 0) schedule(r);
}

static void on_ends(struct claw_timer *t)
{
    struct claw_renew *r = t->arg;
    if (claw_secrets_busy(r->secrets)) return;
    if (claw_secrets_fetch(r->secrets, r->loop, r->fetcher, &r->of, false, on_fetched, r) != 0) schedule_ends(r);
}

int claw_renew_await(struct claw_renew *r, struct claw_conf *conf)
{
    int rc = 0;
    let_go(r);
    r->conf = conf;
    r->waited = true;
    if (!claw_secrets_busy(r->secrets)) rc = claw_secrets_fetch(r->secrets, r->loop, r->fetcher, &conf->secrets, false, on_fetched, r);
    if (rc != 0) r->waited = false;
    return rc;
}

/* Loads that come more often than that do not put it off. */
void claw_renew_published(struct claw_renew *r, const struct claw_conf_secrets *of)
{
    bool goes_on = claw_timer_running(&r->timer) && of->n && r->of.refresh_ms == of->refresh_ms;
    r->of = *of;
    claw_secrets_renew(r->secrets); /* not at start, before there is a log */
    r->used = claw_secrets_hash(r->secrets, of);
    if (!claw_secrets_busy(r->secrets)) claw_secrets_keep(r->secrets, of);
    if (!goes_on) schedule(r);
    schedule_ends(r);
}

void claw_renew_refused(struct claw_renew *r)
{
    if (!claw_secrets_busy(r->secrets)) claw_secrets_keep(r->secrets, &r->of);
}

void claw_renew_stop(struct claw_renew *r)
{
    r->stopped = true;
    r->waited = false;
    claw_timer_stop(r->loop, &r->timer);
    claw_timer_stop(r->loop, &r->ends);
    claw_secrets_cancel(r->secrets);
    let_go(r);
}

void claw_renew_fini(struct claw_renew *r)
{
    claw_secrets_free(r->secrets);
    r->secrets = NULL;
}
