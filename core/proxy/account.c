#include "proxy/account.h"

#include "proxy/care.h"
#include "proxy/ledger.h"
#include "proxy/pipeline.h"
#include "proxy/relay.h"
#include "proxy/webhook.h"

#include <time.h>

struct claw_attempt *claw_account_last(struct claw_req *r)
{
    return r->attempts_n && r->attempt < CLAW_ATTEMPTS_MAX ? &r->attempts[r->attempt] : NULL;
}

/* Usage is always known: what no upstream told is estimated. */
static void estimate(struct claw_req *r)
{
    enum claw_dialect d = (enum claw_dialect)r->dialect;
    if (r->usage.input >= 0 && r->usage.output >= 0 && !claw_relay_says_more(r)) return;
    if (!claw_dialect_has_usage(d) || !claw_relay_served(r)) return;
    bool of_input = claw_dialect_embeds(d);
    r->estimated = (uint8_t)claw_usage_estimate(&r->usage, of_input, r->usage.input < 0 ? claw_req_prompt_tokens(r) : -1,
                                                of_input ? 0 : claw_relay_said(r));
}

void claw_account_settle(struct claw_req *r)
{
    if (r->accounted) return;
    r->accounted = true;
    estimate(r);
    struct claw_policy_error err;
    int rc = r->gen->ops->finish(r->gen->policy, r, &err);
    (void)rc; /* logged and counted where it failed */
}

/* A status as a label. */
static struct claw_str status_text(char to[4], int status)
{
    to[0] = (char)('0' + status / 100 % 10);
    to[1] = (char)('0' + status / 10 % 10);
    to[2] = (char)('0' + status % 10);
    return (struct claw_str){to, status ? 3 : 0};
}

void claw_account_attempt(struct claw_req *r, int code, const char *kind)
{
    struct claw_attempt *a = claw_account_last(r);
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    if (!a || !up || a->end_us) return;
    uint32_t now = claw_req_elapsed_us(r);
    a->end_us = now ? now : 1;
    a->code = code;
    a->kind = kind;
    claw_care_ended(r, a, up, code);
    if (r->outstanding) {
        claw_upstream_stats_end(up->stats);
        r->outstanding = false;
    }
    char digits[4];
    struct claw_str labels[2] = {up->conf->name, status_text(digits, a->status)};
    if (a->status < 400 && kind) labels[1] = claw_str_of(kind);
    else if (a->status == 0) labels[1] = claw_str_of(claw_err_kind(code));
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_UPSTREAM_REQUESTS, 1, 2, labels);
    claw_metrics_observe(r->ctx->metrics, CLAW_METRIC_UPSTREAM_SECONDS, a->end_us - a->start_us, 1, labels);
    if (a->ttfb_us) claw_metrics_observe(r->ctx->metrics, CLAW_METRIC_TTFB_SECONDS, a->ttfb_us - a->start_us, 1, labels);
    if (kind && code != CLAW_ECLIENT_GONE)
        CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_UPSTREAM_ERROR, {"request_id", claw_str_of(r->id)}, {"route", claw_req_route_id(r)}, {"upstream", up->conf->name},
                          {"model", claw_req_sent_model(r)}, {"kind", claw_str_of(kind)}, {"status#", status_text(digits, a->status)});
}

static void count_tokens(struct claw_req *r, struct claw_str upstream, struct claw_str model)
{
    const struct { struct claw_str name; int64_t n; } classes[] = {
        {CLAW_STR("input"), r->usage.input}, {CLAW_STR("cached_input"), r->usage.cached}, {CLAW_STR("output"), r->usage.output},
        {CLAW_STR("reasoning"), r->usage.reasoning}, {CLAW_STR("cache_write"), r->usage.written}};
    for (unsigned i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (classes[i].n <= 0) continue;
        struct claw_str labels[3] = {upstream, model, classes[i].name};
        claw_metrics_add(r->ctx->metrics, CLAW_METRIC_TOKENS, classes[i].n, 3, labels);
    }
}

static void count_client(struct claw_req *r)
{
    struct claw_str of[2] = {r->caller->name, CLAW_STR("input")};
    if (r->cost_micros > 0) claw_metrics_add(r->ctx->metrics, CLAW_METRIC_CLIENT_COST, r->cost_micros, 1, of);
    if (r->usage.input > 0) claw_metrics_add(r->ctx->metrics, CLAW_METRIC_CLIENT_TOKENS, r->usage.input, 2, of);
    of[1] = CLAW_STR("output");
    if (r->usage.output > 0) claw_metrics_add(r->ctx->metrics, CLAW_METRIC_CLIENT_TOKENS, r->usage.output, 2, of);
}

static int64_t known(int64_t n) { return n > 0 ? n : 0; }

static void record(struct claw_req *r, struct claw_str upstream, struct claw_str model)
{
    const struct claw_ledger_entry e = {
        .client = r->caller ? r->caller->name : CLAW_STR(""), .route = claw_req_route_id(r), .upstream = upstream, .model = model, .failed = r->error || r->status >= 400, .estimated = r->estimated != 0,
        .input = known(r->usage.input), .cached = known(r->usage.cached), .written = known(r->usage.written),
        .output = known(r->usage.output), .reasoning = known(r->usage.reasoning), .cost_micros = known(r->cost_micros)};
    claw_ledger_add(r->ctx->page, &e, (int64_t)time(NULL));
}

void claw_account_count(struct claw_req *r)
{
    struct claw_metrics_shard *m = r->ctx->metrics;
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    struct claw_str upstream = up && r->attempts_n ? up->conf->name : CLAW_STR("");
    struct claw_str model = claw_req_sent_model(r);
    char digits[4];
    struct claw_str request[3] = {claw_req_route_id(r), status_text(digits, r->status), r->head ? r->head->method : CLAW_STR("")};
    struct claw_str latency[2] = {request[0], upstream};
    claw_metrics_add(m, CLAW_METRIC_REQUESTS, 1, 3, request);
    claw_metrics_observe(m, CLAW_METRIC_REQUEST_SECONDS, r->end_us, 2, latency);
    claw_metrics_observe(m, CLAW_METRIC_OVERHEAD_SECONDS, r->overhead_us, 0, NULL);
    claw_metrics_add(m, CLAW_METRIC_IN_FLIGHT, -1, 0, NULL);
    if (r->error == CLAW_ECLIENT_GONE || r->error == CLAW_ESEND_STALL) claw_metrics_add(m, CLAW_METRIC_CLIENT_GONE, 1, 1, request);
    if (r->answered_by.len) claw_metrics_add(m, CLAW_METRIC_POLICY_ANSWERS, 1, 1, &r->answered_by);
    if (r->caller) {
        struct claw_str asked[2] = {r->caller->name, request[1]};
        claw_metrics_add(m, CLAW_METRIC_CLIENT_REQUESTS, 1, 2, asked);
        count_client(r);
    }
    if (r->ctx->page) record(r, upstream, upstream.len ? model : CLAW_STR(""));
    if (upstream.len == 0) return;
    struct claw_str sold[2] = {upstream, model};
    if (r->cost_micros > 0) claw_metrics_add(m, CLAW_METRIC_COST, r->cost_micros, 2, sold);
    count_tokens(r, upstream, model);
    if (r->estimated) claw_metrics_add(m, CLAW_METRIC_ESTIMATED, 1, 2, sold);
    if (r->usage.output > 0 && !(r->estimated & CLAW_USAGE_OUTPUT)) claw_upstream_stats_output(up->stats, model, (uint64_t)r->usage.output);
}
