#include "proxy/hedge.h"

#include "proxy/account.h"
#include "proxy/pipeline.h"
#include "proxy/relay.h"
#include "proxy/upload.h"

struct claw_hedge {
    struct claw_req *r;
    bool live;          /* both are under way */
    bool aside;         /* exchanged: r has the fields of the one that stepped aside */
    unsigned candidate_second;
    /* the other exchange's */
    struct claw_client *client;
    struct claw_relay *relay;
    struct claw_buf out_body;
    bool out_body_set, outstanding, retried_stale;
    bool translated, hides_usage;
    uint8_t sent_as;
    int answer_status;
    const char *answer_type;
    struct claw_str dropped;
    struct claw_str out_path;
    uint32_t commit_at;
    struct claw_conf_header *out_headers;
    size_t out_headers_n, out_headers_cap;
    unsigned candidate, attempt;
};

static void exchange(struct claw_req *r, struct claw_hedge *h)
{
#define SWAP(field)                        \
    do {                                   \
        __typeof__(r->field) t = r->field; \
        r->field = h->field;               \
        h->field = t;                      \
    } while (0)
    SWAP(client);
    SWAP(relay);
    SWAP(out_body);
    SWAP(out_body_set);
    SWAP(outstanding);
    SWAP(retried_stale);
    SWAP(out_path);
    SWAP(commit_at);
    SWAP(out_headers);
    SWAP(out_headers_n);
    SWAP(out_headers_cap);
    SWAP(translated);
    SWAP(hides_usage);
    SWAP(sent_as);
    SWAP(answer_status);
    SWAP(answer_type);
    SWAP(dropped);
    SWAP(candidate);
    SWAP(attempt);
#undef SWAP
}

bool claw_hedge_running(const struct claw_req *r) { return r->hedge && r->hedge->live; }
bool claw_hedge_aside(const struct claw_req *r) { return claw_hedge_running(r) && r->hedge->aside; }

static void count(struct claw_req *r, const char *outcome)
{
    struct claw_str labels[2] = {claw_req_route_id(r), claw_str_of(outcome)};
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_HEDGES, 1, 2, labels);
}

/* ---- the one that stepped aside is heard ------------------------------------------------------------------------------ */

static struct claw_hedge *hear(struct claw_client *c)
{
    struct claw_hedge *h = c->arg;
    exchange(h->r, h);
    h->aside = true;
    c->arg = h->r;
    return h;
}

/* Unless it won or lost meanwhile. */
static void heard(struct claw_client *c, struct claw_hedge *h)
{
    if (!h->live) return;
    exchange(h->r, h);
    h->aside = false;
    c->arg = h;
}

static void on_head(struct claw_client *c, struct claw_head *head)
{
    struct claw_hedge *h = hear(c);
    claw_relay_client_events.on_head(c, head);
    heard(c, h);
}

static void on_body(struct claw_client *c, const char *data, size_t n)
{
    struct claw_hedge *h = hear(c);
    claw_relay_client_events.on_body(c, data, n);
    heard(c, h);
}

static void on_batch(struct claw_client *c)
{
    struct claw_hedge *h = hear(c);
    claw_relay_client_events.on_batch(c);
    heard(c, h);
}

static void on_done(struct claw_client *c, bool reusable)
{
    struct claw_hedge *h = hear(c);
    claw_relay_client_events.on_done(c, reusable);
    heard(c, h);
}

static void on_fail(struct claw_client *c, int code, const char *text)
{
    struct claw_hedge *h = hear(c);
    claw_relay_client_events.on_fail(c, code, text);
    heard(c, h);
}

static void on_drain(struct claw_client *c) { (void)c; }

static const struct claw_client_events aside_events = {on_head, on_body, on_batch, on_done, on_fail, on_drain};

/* ---- beginning ---------------------------------------------------------------------------------------------------------- */

static double *credit_of(struct claw_req *r) { return r->route >= 0 && r->gen->hedge_credit ? &r->gen->hedge_credit[r->route] : NULL; }

static void begin(struct claw_req *r)
{
    double *credit = credit_of(r);
    if (r->attempts_n >= CLAW_ATTEMPTS_MAX || !credit) return;
    if (*credit < 1) {
        count(r, "budget");
        return;
    }
    struct claw_hedge *h = claw_arena_zalloc(&r->arena, sizeof *h);
    if (!h) return; /* the request goes on without */
    *credit -= 1;
    claw_req_waited(r);
    h->r = r;
    claw_buf_init(&h->out_body, 0);
    h->attempt = CLAW_ATTEMPTS_MAX;
    h->candidate = h->candidate_second = ++r->furthest;
    r->client->on = &aside_events;
    r->client->arg = h;
    exchange(r, h);
    h->live = true;
    r->hedge = h;
    claw_pipeline_reached(r, CLAW_STEP_TRANSFORM);
}

static void on_silent(struct claw_timer *t)
{
    struct claw_req *r = t->arg;
    if (r->step != CLAW_STEP_UPSTREAM) return;
    r->hedge_due = !r->client; /* it still connects: the exchange has to be there to step aside */
    if (r->client && !claw_relay_spoke(r)) begin(r);
}

void claw_hedge_init(struct claw_req *r)
{
    claw_timer_init(&r->hedge_timer, on_silent, r);
    r->attempt = CLAW_ATTEMPTS_MAX;
}

void claw_hedge_earn(struct claw_req *r)
{
    double *credit = credit_of(r);
    if (!credit || (!r->hedging.after_ms && !r->hedging.percent)) return;
    *credit += r->hedging.budget;
    if (*credit > CLAW_HEDGE_SAVED) *credit = CLAW_HEDGE_SAVED;
}

void claw_hedge_arm(struct claw_req *r)
{
    int64_t ms = r->hedging.after_ms;
    claw_timer_stop(r->ctx->loop, &r->hedge_timer);
    r->hedge_due = false;
    if (claw_upload_streams(r)) return; /* it can be sent to one */
    if (r->hedge || r->furthest + 1 >= r->candidates_n || r->hedging.budget <= 0) return;
    if (r->hedging.percent) ms = claw_upstream_stats_percentile(claw_req_upstream(r)->stats, claw_req_sent_model(r), r->hedging.percent);
    if (ms > 0) claw_timer_start(r->ctx->loop, &r->hedge_timer, (uint64_t)ms);
}

void claw_hedge_sent(struct claw_req *r)
{
    if (!r->hedge_due || !r->client) return;
    r->hedge_due = false;
    begin(r);
}

/* ---- its end -------------------------------------------------------------------------------------------------------------- */

/* The exchange that lies in h ends without an answer. */
static void give_up(struct claw_req *r, struct claw_hedge *h, const char *kind, bool slow)
{
    exchange(r, h);
    struct claw_attempt *a = claw_account_last(r);
    bool first = r->candidate != h->candidate_second; /* the other one was hardly waited for */
    if (a && slow && first && !a->ttfb_us) /* at least: else who is outrun each time would seem as fast as when it is not */
        claw_upstream_stats_ttfb(claw_req_upstream(r)->stats, claw_req_sent_model(r), claw_req_elapsed_us(r) - a->start_us, claw_loop_now_ms(r->ctx->loop));
    claw_account_attempt(r, CLAW_ECANCELED, kind);
    struct claw_client *c = r->client;
    r->client = NULL;
    if (c) claw_client_cancel(c);
    exchange(r, h);
    claw_buf_fini(&h->out_body);
}

void claw_hedge_won(struct claw_req *r)
{
    struct claw_hedge *h = r->hedge;
    if (claw_timer_running(&r->hedge_timer)) claw_timer_stop(r->ctx->loop, &r->hedge_timer);
    r->hedge_due = false;
    if (!h || !h->live) return;
    h->live = false;
    if (h->aside) { /* what the step was about is the other exchange */
        claw_pipeline_regain(r);
        claw_pool_cancel(&r->lease);
        if (r->client) r->client->on = &claw_relay_client_events;
    }
    count(r, r->candidate == h->candidate_second ? "won" : "lost");
    give_up(r, h, "outrun", true);
}

void claw_hedge_lost(struct claw_req *r, int code, const char *kind)
{
    struct claw_hedge *h = r->hedge;
    CLAW_ASSERT(h && h->live);
    count(r, r->candidate == h->candidate_second ? "failed" : "won");
    claw_account_attempt(r, code, kind);
    struct claw_client *c = r->client;
    r->client = NULL;
    if (c) claw_client_cancel(c);
    h->live = false;
    exchange(r, h);
    claw_buf_fini(&h->out_body);
    if (h->aside) return; /* the request's own goes on */
    r->client->on = &claw_relay_client_events;
    r->client->arg = r;
}

void claw_hedge_stop(struct claw_req *r)
{
    claw_timer_stop(r->ctx->loop, &r->hedge_timer);
    r->hedge_due = false;
    if (!claw_hedge_running(r)) return;
    r->hedge->live = false;
    give_up(r, r->hedge, claw_err_kind(r->error ? r->error : CLAW_ECANCELED), false);
}
