/* An attempt at an upstream, and the next one: the steps transform, upstream and retry. */
#include "proxy/pipeline_part.h"

#include "proxy/account.h"
#include "proxy/care.h"
#include "proxy/hedge.h"
#include "proxy/limit.h"
#include "proxy/relay.h"
#include "proxy/token.h"
#include "proxy/upload.h"
#include "proxy/webhook.h"

#include <stdio.h>

#define TRIES_MAX 32u /* of one request, whatever a policy says; configuration has 20 at most */

static void next_candidate(struct claw_req *r)
{
    claw_care_let_go(r);
    claw_care_arrange(r, r->furthest + 1);
    r->candidate = ++r->furthest;
}

/* The present candidate cannot be told what the client wants: another one may, and a hedge is not needed. */
static int step_untranslatable(struct claw_req *r)
{
    r->candidates[r->candidate].untold = 1;
    if (claw_hedge_running(r)) {
        claw_hedge_lost(r, r->error, claw_err_kind(r->error));
        claw_pipeline_forget_error(r);
        claw_pipeline_regain(r);
        return CLAW_PIPELINE_WAIT;
    }
    if (r->candidate > r->furthest) r->furthest = r->candidate;
    if (r->furthest + 1 < r->candidates_n) {
        next_candidate(r);
        claw_pipeline_forget_error(r);
        return claw_pipeline_step_transform(r); /* as deep as there are candidates */
    }
    if (r->attempts_n == 0) return claw_pipeline_refuse(r, 0, NULL);
    char text[400]; /* one could be told, so the request is not to blame */
    int n = snprintf(text, sizeof text, "The upstream failed, and no other can be sent this request: %.*s", CLAW_STR_FMT(r->error_text));
    claw_pipeline_forget_error(r);
    return claw_pipeline_fail_step(r, CLAW_ENO_UPSTREAM, (struct claw_str){text, n < (int)sizeof text ? (size_t)n : sizeof text - 1});
}

/* The present candidate's upstream takes no more at present: the next one does, if there is one. */
static int step_full(struct claw_req *r)
{
    r->candidates[r->candidate].full = 1;
    if (claw_hedge_running(r)) {
        claw_hedge_lost(r, CLAW_ERATE_LIMITED, claw_err_kind(CLAW_ERATE_LIMITED));
        claw_pipeline_regain(r);
        return CLAW_PIPELINE_WAIT;
    }
    if (r->candidate > r->furthest) r->furthest = r->candidate;
    if (r->furthest + 1 == r->candidates_n) {
        claw_limits_say_when(r);
        return claw_pipeline_fail_step(r, CLAW_ERATE_LIMITED, r->error_text);
    }
    r->error_text = CLAW_STR("");
    next_candidate(r);
    return claw_pipeline_step_transform(r);
}

int claw_pipeline_step_transform(struct claw_req *r)
{
    struct claw_policy_error err;
    if (r->gen->gen->upstream_limits && !r->waiting) {
        int full = claw_limits_take_upstream(r, r->candidates[r->candidate].upstream);
        if (claw_pipeline_waits(r, full)) return CLAW_PIPELINE_WAIT;
        if (full) return step_full(r);
    }
    if (!r->waiting) { /* else what the hook set before it waited stays */
        claw_buf_clear(&r->out_body);
        r->out_body_set = false;
        r->out_path = CLAW_STR("");
        r->commit_at = 0;
        r->out_headers_n = 0;
        r->translated = false;
        r->sent_as = r->dialect;
        r->dropped = CLAW_STR("");
        r->answer_type = NULL;
        r->answer_status = 0;
    }
    if (!(r->candidates[r->candidate].mask & CLAW_MASK_REQUEST)) return CLAW_STEP_UPSTREAM;
    int rc = r->gen->ops->request(r->gen->policy, r, &err);
    if (claw_pipeline_waits(r, rc)) return CLAW_PIPELINE_WAIT;
    if (rc == 0 && (r->error == CLAW_EUNTRANSLATABLE || r->error == CLAW_EREQ_MEM)) return step_untranslatable(r);
    if (rc == 0 && !r->error && r->out_body_set && claw_upload_streams(r))
        return claw_pipeline_fail_step(r, CLAW_EBODY_TOO_LARGE, CLAW_STR("The form is too large for a policy to put another body in its place (server.upload_hold_kb)."));
    return rc == 0 && !r->error ? CLAW_STEP_UPSTREAM : claw_pipeline_refuse(r, rc, &err);
}

static void on_lease_ready(struct claw_lease *l, struct claw_client *c)
{
    claw_relay_start(l->arg, c);
    claw_hedge_sent(l->arg);
}

static void on_lease_error(struct claw_lease *l, int code, const char *text)
{
    struct claw_req *r = l->arg;
    claw_req_waited(r);
    claw_pipeline_upstream_failed(r, code, 0, text, CLAW_STR(""), -1);
}

int claw_pipeline_step_upstream(struct claw_req *r)
{
    struct claw_candidate *c = &r->candidates[r->candidate];
    const struct claw_generation_upstream *up = &r->gen->gen->upstreams[c->upstream];
    const char *why = "";
    bool streams = claw_upload_streams(r);
    if (streams && up->signs) return claw_pipeline_fail_step(r, CLAW_EBODY_TOO_LARGE, CLAW_STR("The form is too large to be signed (server.upload_hold_kb)."));
    int rc = up->asks_token ? claw_token_await(r->gen->tokens[c->upstream], r, &why) : 0;
    if (claw_pipeline_waits(r, rc)) return CLAW_PIPELINE_WAIT;
    unsigned i = r->attempts_n < CLAW_ATTEMPTS_MAX ? r->attempts_n : CLAW_ATTEMPTS_MAX - 1;
    r->attempts_n++;
    r->attempt = i;
    if (r->candidate > r->furthest) r->furthest = r->candidate;
    c->tries++;
    r->attempts[i] = (struct claw_attempt){.upstream = c->upstream, .start_us = claw_req_elapsed_us(r), .probe = r->claimed,
        .several = up->keys_n > 1, .key = up->keys_n > 1 ? claw_care_pick_key(r) : up->keys_n ? 0 : CLAW_NO_KEY};
    r->claimed = false;
    r->wait_from_us = r->attempts[i].start_us;
    r->retried_stale = false;
    r->outstanding = true;
    claw_upstream_stats_begin(up->stats);
    if (rc != 0) {
        claw_pipeline_upstream_failed(r, rc, 0, why, CLAW_STR(""), -1);
        return CLAW_PIPELINE_WAIT;
    }
    claw_hedge_arm(r);
    r->lease.on_ready = on_lease_ready;
    r->lease.on_error = on_lease_error;
    r->lease.arg = r;
    claw_pool_lease(r->gen->endpoints[c->upstream], &r->lease, up->conf->connect_timeout_ms, streams); /* a kept one may be dead, and there is one try */
    return CLAW_PIPELINE_WAIT;
}

/* ---- failing over ---------------------------------------------------------------------------------------------------------- */

/* The failure the retry step is to decide on; in the arena, one a try. */
struct claw_failed_try {
    struct claw_failure f;
    char kind[16];
    bool held; /* the relay holds the upstream's own error answer */
};

static void walk_deferred(struct claw_deferred *d)
{
    struct claw_req *r = (struct claw_req *)((char *)d - offsetof(struct claw_req, deferred));
    claw_pipeline_walk(r);
}

void claw_pipeline_upstream_failed(struct claw_req *r, int code, int status, const char *text, struct claw_str body, int64_t retry_after_ms)
{
    if (r->finished || r->step >= CLAW_STEP_ACCOUNT) return;
    struct claw_failed_try *t = claw_arena_zalloc(&r->arena, sizeof *t);
    if (!t) {
        claw_pipeline_fail(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
        return;
    }
    if (code == CLAW_OK) snprintf(t->kind, sizeof t->kind, "http_%d", status);
    t->f.kind = code == CLAW_OK ? t->kind : claw_err_kind(code);
    t->f.code = code;
    t->f.status = status;
    t->f.again = code == CLAW_OK ? status != 400 && status != 404 && status != 422 : claw_err_again(code);
    t->f.retry_after_ms = retry_after_ms;
    t->f.body = body.len > 4096 ? (struct claw_str){body.ptr, 4096} : body;
    t->held = code == CLAW_OK;
    if (*text) r->upstream_error = claw_pipeline_keep(r, claw_str_of(text));
    claw_care_failed(r, code, status, body, retry_after_ms);
    if (claw_hedge_running(r) && (t->f.again || claw_hedge_aside(r))) {
        claw_hedge_lost(r, code, t->f.kind);
        return;
    }
    claw_hedge_stop(r);
    if (!claw_relay_open(r)) claw_req_cancel_upstream(r);
    claw_account_attempt(r, code, t->f.kind);
    r->failed = t;
    claw_pipeline_enter(r, CLAW_STEP_RETRY);
    claw_loop_defer(r->ctx->loop, &r->deferred, walk_deferred); /* not from within the parser that reported it */
}

/* What the upstream itself says in an error event: {"error":{"message":…}}, {"error":"…"} or {"message":"…"}. */
static struct claw_str told_message(struct claw_req *r, struct claw_str event)
{
    struct claw_sse_fields f;
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_str out = CLAW_STR("");
    struct claw_buf tmp;
    claw_buf_init(&tmp, 0);
    if (claw_sse_parse(event, &tmp, &f) == 0 && claw_json_scan(f.data, &r->arena, &top, &err) == 0) {
        struct claw_json_value e = claw_json_top_get(&top, CLAW_STR("error"));
        if (e.type == CLAW_JSON_NONE) e = claw_json_top_get(&top, CLAW_STR("message"));
        if (e.type == CLAW_JSON_OBJECT) e = claw_json_get(e, CLAW_STR("message"));
        if (claw_json_text(e, &r->arena, &out) == 0) out = claw_pipeline_keep(r, out);
    }
    claw_buf_fini(&tmp);
    return out;
}

/* Who was not asked, and why: " Set aside: a (connect, asked again in 2.1 s), b (rate_limited)." */
static size_t say_others(const struct claw_req *r, char *to, size_t room)
{
    size_t at = 0;
    char why[120];
    for (unsigned i = r->furthest + 1; i < r->candidates_n; i++) {
        if (claw_care_why(r, i, why, sizeof why) == 0) continue;
        struct claw_str name = r->gen->gen->upstreams[r->candidates[i].upstream].conf->name;
        int n = snprintf(to + at, room - at, "%s%.*s (%s)", at ? ", " : " Set aside: ", CLAW_STR_FMT(name), why);
        if (n < 0 || (size_t)n + 2 >= room - at) break;
        at += (size_t)n;
    }
    if (at) to[at++] = '.';
    return at;
}

static int no_more(struct claw_req *r, struct claw_failed_try *t)
{
    if (t->held) {
        claw_relay_release_held(r);
        return CLAW_PIPELINE_WAIT;
    }
    struct claw_str told = t->f.code == CLAW_ESTREAM_ERROR ? told_message(r, t->f.body) : CLAW_STR("");
    if (t->f.code == CLAW_EBAD_RESPONSE && r->translated) told = r->upstream_error;
    if (told.len) return claw_pipeline_fail_step(r, t->f.code, told);
    char text[400];
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    int n = snprintf(text, sizeof text, "The upstream \"%.*s\" failed: %s (%u %s).", CLAW_STR_FMT(up->conf->name), claw_err_text(t->f.code),
                     r->attempts_n, r->attempts_n == 1 ? "attempt" : "attempts");
    size_t len = n < (int)sizeof text ? (size_t)n : sizeof text - 1;
    return claw_pipeline_fail_step(r, t->f.code, (struct claw_str){text, len + say_others(r, text + len, sizeof text - len)});
}

int claw_pipeline_step_retry(struct claw_req *r)
{
    struct claw_failed_try *t = r->failed;
    struct claw_policy_error err;
    enum claw_retry_action action = CLAW_RETRY_STOP;
    uint64_t after_ms = 0;
    if (!t) return CLAW_PIPELINE_WAIT; /* a backoff runs */
    t->f.tries = r->attempts_n;
    t->f.left = claw_upload_spent(r) ? 0 : r->candidates_n - r->furthest - 1;
    t->f.elapsed_ms = claw_req_elapsed_us(r) / 1000;
    t->f.other_keys = claw_upload_spent(r) ? 0 : claw_care_other_keys(r);
    int rc = r->gen->ops->retry(r->gen->policy, r, &t->f, &action, &after_ms, &err);
    if (claw_pipeline_waits(r, rc)) return CLAW_PIPELINE_WAIT;
    r->failed = NULL;
    if (rc != 0) return claw_pipeline_refuse(r, rc, &err);
    if ((action == CLAW_RETRY_NEXT && t->f.left == 0) || r->attempts_n >= TRIES_MAX || claw_upload_spent(r)) action = CLAW_RETRY_STOP;
    if (action == CLAW_RETRY_STOP || !claw_care_spend(r)) return no_more(r, t);
    r->rotations += action == CLAW_RETRY_SAME && t->f.other_keys;
    if (action == CLAW_RETRY_NEXT) claw_care_arrange(r, r->furthest + 1);
    struct claw_str labels[2] = {claw_req_upstream(r)->conf->name, claw_str_of(t->f.kind)};
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_RETRIES, 1, 2, labels);
    if (action == CLAW_RETRY_NEXT)
        CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_FAILOVER, {"request_id", claw_str_of(r->id)}, {"route", claw_req_route_id(r)}, {"from", labels[0]},
                          {"to", r->gen->gen->upstreams[r->candidates[r->furthest + 1].upstream].conf->name}, {"kind", labels[1]});
    claw_req_cancel_upstream(r);
    claw_relay_reset(r);
    r->usage = CLAW_USAGE_NONE; /* what a dropped stream told is not the next one's */
    if (action == CLAW_RETRY_NEXT) r->candidate = ++r->furthest;
    if (after_ms == 0) return CLAW_STEP_TRANSFORM;
    r->wait_from_us = claw_req_elapsed_us(r);
    claw_timer_start(r->ctx->loop, &r->timer, after_ms);
    return CLAW_PIPELINE_WAIT;
}
