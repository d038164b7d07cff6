#include "proxy/pipeline.h"

#include "proxy/access_log.h"
#include "proxy/account.h"
#include "proxy/answer.h"
#include "proxy/clients.h"
#include "proxy/decision_log.h"
#include "proxy/hedge.h"
#include "proxy/limit.h"
#include "proxy/relay.h"
#include "proxy/token.h"
#include "proxy/webhook.h"

#include <stdio.h>

#define WAIT (-1)
#define TO(s) (1u << CLAW_STEP_##s)
#define ENDS (TO(ACCOUNT))
#define ANSWER_ROOM 4096u /* what a request that used up its memory still gets, to say so */
#define TRIES_MAX 32u /* of one request, whatever a policy says; configuration has 20 at most */

static int step_parse(struct claw_req *r);
static int step_admit(struct claw_req *r);
static int step_route(struct claw_req *r);
static int step_limit(struct claw_req *r);
static int step_transform(struct claw_req *r);
static int step_upstream(struct claw_req *r);
static int step_retry(struct claw_req *r);
static int step_back(struct claw_req *r);
static int step_account(struct claw_req *r);
static int step_log(struct claw_req *r);
static int step_release(struct claw_req *r);

/* The request, top to bottom. A step returns the next one, or WAIT when something else will bring the request there: the
 * relay walks COMMIT and STREAM by itself, since bytes drive them. Whatever fails goes to ACCOUNT. */
static const struct {
    struct claw_step_row row;
    int (*run)(struct claw_req *r);
} steps[CLAW_STEP_COUNT] = {
    /*                      name         hook        waits  legal next steps                             */
    [CLAW_STEP_PARSE]     = {{"parse",     NULL,       false, TO(ADMIT) | ENDS},                          step_parse},
    [CLAW_STEP_ADMIT]     = {{"admit",     "admit",    true,  TO(ROUTE) | ENDS},                          step_admit},
    [CLAW_STEP_ROUTE]     = {{"route",     "route",    true,  TO(LIMIT) | TO(TRANSFORM) | ENDS},          step_route},
    [CLAW_STEP_LIMIT]     = {{"limit",     NULL,       false, TO(TRANSFORM) | ENDS},                      step_limit},
    [CLAW_STEP_TRANSFORM] = {{"transform", "request",  true,  TO(UPSTREAM) | ENDS},                       step_transform},
    [CLAW_STEP_UPSTREAM]  = {{"upstream",  NULL,       true,  TO(TRANSFORM) | TO(BACK) | TO(COMMIT) | TO(RETRY) | ENDS}, step_upstream},
    [CLAW_STEP_RETRY]     = {{"retry",     "retry",    true,  TO(TRANSFORM) | TO(COMMIT) | ENDS},         step_retry},
    [CLAW_STEP_BACK]      = {{"back",      "response", true,  TO(COMMIT) | TO(RETRY) | ENDS},             step_back},
    [CLAW_STEP_COMMIT]    = {{"commit",    NULL,       false, TO(STREAM) | ENDS},                         NULL},
    [CLAW_STEP_STREAM]    = {{"stream",    "event",    false, ENDS},                                      NULL},
    [CLAW_STEP_ACCOUNT]   = {{"account",   "cost",     false, TO(LOG)},                                   step_account},
    [CLAW_STEP_LOG]       = {{"log",       "log",      false, TO(RELEASE)},                               step_log},
    [CLAW_STEP_RELEASE]   = {{"release",   NULL,       false, 0},                                         step_release},
};

const struct claw_step_row *claw_step_row(enum claw_step s) { return &steps[s].row; }

static void enter(struct claw_req *r, enum claw_step s)
{
    CLAW_ASSERT(steps[r->step].row.next & (1u << s));
    r->step = (uint8_t)s;
}

/* Run steps until one waits. Called again from within a step it only notes that there is more to do. */
static void walk(struct claw_req *r)
{
    if (r->stepping) {
        r->again = true;
        return;
    }
    r->stepping = true;
    while (steps[r->step].run) {
        r->again = false;
        int next = steps[r->step].run(r);
        if (next != WAIT) enter(r, (enum claw_step)next);
        else if (!r->again) break;
    }
    r->stepping = false;
}

static void go(struct claw_req *r, enum claw_step s)
{
    enter(r, s);
    walk(r);
}

void claw_pipeline_reached(struct claw_req *r, enum claw_step s) { go(r, s); }

static void walk_deferred(struct claw_deferred *d)
{
    struct claw_req *r = (struct claw_req *)((char *)d - offsetof(struct claw_req, deferred));
    walk(r);
}

/* What the hook waited on stays with the request: called again, the op finds its result there. */
void claw_pipeline_resume(struct claw_req *r)
{
    r->wait_cancel = NULL;
    claw_req_waited(r);
    walk(r);
}

void claw_pipeline_regain(struct claw_req *r)
{
    if (r->wait_cancel) r->wait_cancel(r);
    r->waiting = NULL;
    r->wait_cancel = NULL;
    if (r->step == CLAW_STEP_TRANSFORM) enter(r, CLAW_STEP_UPSTREAM);
}

/* What an op returned: does it wait? If not, nothing it waited on is left. */
static bool waits(struct claw_req *r, int rc)
{
    if (rc == CLAW_EAGAIN) {
        r->wait_from_us = claw_req_elapsed_us(r);
        return true;
    }
    r->waiting = NULL;
    r->wait_cancel = NULL;
    return false;
}

/* ---- failing ------------------------------------------------------------------------------------------------------------- */

static struct claw_str keep(struct claw_req *r, struct claw_str s)
{
    char *copy = claw_arena_dup(&r->arena, s.ptr, s.len < 512 ? s.len : 512);
    return copy ? (struct claw_str){copy, s.len < 512 ? s.len : 512} : CLAW_STR("");
}

/* Time spent waiting for others is not the proxy's own: what is given up now was such a wait. */
static void settle_wait(struct claw_req *r)
{
    if (r->step == CLAW_STEP_PARSE && !r->upload_done) r->waited_us = claw_req_elapsed_us(r);
    else if (r->step == CLAW_STEP_UPSTREAM || claw_timer_running(&r->timer) || r->wait_cancel) claw_req_waited(r);
}

static void stop_everything(struct claw_req *r)
{
    settle_wait(r);
    claw_timer_stop(r->ctx->loop, &r->timer);
    claw_timer_stop(r->ctx->loop, &r->deadline);
    claw_lane_leave(r->ctx->loop, &r->begin);
    claw_hedge_stop(r);
    if (r->wait_cancel) r->wait_cancel(r);
    r->waiting = NULL;
    r->wait_cancel = NULL;
    claw_req_cancel_upstream(r);
}

/* A policy says the status; OpenAI's type follows from it. */
static const char *denied_type(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    default: return status < 500 ? "invalid_request_error" : "api_error";
    }
}

/* Answer with the error, or cut what is under way. Leaves the step alone. */
static void fail_now(struct claw_req *r, int code, struct claw_str text)
{
    if (r->finished || r->commit == CLAW_DONE) return;
    r->error = code;
    if (r->error_text.len == 0) r->error_text = keep(r, text);
    claw_account_attempt(r, code, claw_err_kind(code));
    stop_everything(r);
    bool started = r->commit == CLAW_COMMITTED || (r->conn && r->conn->replied);
    if (started) {
        claw_relay_cut(r, code, r->error_text);
    } else if (r->conn) {
        r->arena.cap += ANSWER_ROOM;
        int status = r->status ? r->status : claw_err_status(code);
        const char *word = r->error_code ? r->error_code : claw_err_kind(code);
        claw_answer_error(r, status, r->error_text, code == CLAW_EDENIED ? denied_type(status) : claw_err_type(code), word);
    }
    if (!r->status) r->status = claw_err_status(code);
}

void claw_pipeline_fail(struct claw_req *r, int code, struct claw_str text)
{
    if (r->finished) return;
    fail_now(r, code, text);
    if (r->step < CLAW_STEP_ACCOUNT) go(r, CLAW_STEP_ACCOUNT);
}

static int fail(struct claw_req *r, int code, struct claw_str text)
{
    fail_now(r, code, text);
    return CLAW_STEP_ACCOUNT;
}

/* What fails in the library itself is laid to no generation: an upstream's answer must not bring a rollback about. */
static int fail_policy(struct claw_req *r, const struct claw_policy_error *e)
{
    bool a_policy = !claw_str_eqz(e->policy, "claw");
    if (!r->finished)
        CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_POLICY_ERROR, {"request_id", claw_str_of(r->id)}, {"route", claw_req_route_id(r)}, {"policy", e->policy},
                          {"hook", e->hook}, {"error", e->message});
    if (a_policy && !r->finished && r->commit != CLAW_DONE) claw_tally_fail(r->gen->tally, e->policy, e->hook, e->message);
    r->upstream_error = e->message;
    return fail(r, CLAW_EPOLICY, CLAW_STR("A policy failed while handling the request; its error is in the log."));
}

void claw_pipeline_policy_failed(struct claw_req *r, const struct claw_policy_error *e)
{
    if (r->finished) return;
    fail_policy(r, e);
    if (r->step < CLAW_STEP_ACCOUNT) go(r, CLAW_STEP_ACCOUNT);
}

/* ---- the steps ------------------------------------------------------------------------------------------------------------ */

static bool opaque(struct claw_str type)
{
    static const char *const kinds[] = {"multipart/", "audio/", "image/", "video/", "application/octet-stream"};
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i]);
        if (type.len >= n && (type.ptr[0] | 32) == kinds[i][0] && strncasecmp(type.ptr, kinds[i], n) == 0) return true;
    }
    return false;
}

/* Paths whose body is always a JSON object, as far as they are no dialect's. */
static bool wants_object(struct claw_str path)
{
    static const char *const ends[] = {"/chat/completions", "/completions", "/embeddings", "/responses", "/messages"};
    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (path.len >= n && memcmp(path.ptr + path.len - n, ends[i], n) == 0) return true;
    }
    return false;
}

static int fail_json(struct claw_req *r, const struct claw_json_err *e)
{
    char text[256];
    int n = snprintf(text, sizeof text, "The request body is not valid JSON: %s at line %u, column %u (byte %zu).", e->text, e->line, e->column, e->offset);
    return fail(r, CLAW_EBAD_JSON, (struct claw_str){text, (size_t)n});
}

static int read_model(struct claw_req *r)
{
    if (claw_dialect_is_gemini((enum claw_dialect)r->dialect)) return 0; /* it stood in the path */
    struct claw_json_value model = claw_json_top_get(&r->json, CLAW_STR("model"));
    struct claw_json_value stream = claw_json_top_get(&r->json, CLAW_STR("stream"));
    r->stream = stream.type == CLAW_JSON_TRUE;
    if (stream.type != CLAW_JSON_NONE && stream.type != CLAW_JSON_NULL && stream.type != CLAW_JSON_TRUE && stream.type != CLAW_JSON_FALSE)
        return fail(r, CLAW_EBAD_JSON, CLAW_STR("\"stream\" must be a boolean."));
    if (model.type == CLAW_JSON_NONE || model.type == CLAW_JSON_NULL) return 0;
    if (model.type != CLAW_JSON_STRING) return fail(r, CLAW_EBAD_JSON, CLAW_STR("\"model\" must be a string."));
    struct claw_str text;
    if (claw_json_text(model, &r->arena, &text) != 0) return fail(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
    r->model.ptr = claw_arena_dup(&r->arena, text.ptr, text.len); /* the body may go before the log line is written */
    r->model.len = text.len;
    if (!r->model.ptr) return fail(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
    return 0;
}

static int step_parse(struct claw_req *r)
{
    if (claw_h1_has_dots(r->head->path)) return fail(r, CLAW_EBAD_REQUEST, CLAW_STR("The path has a dot segment."));
    struct claw_str body = claw_buf_str(&r->body);
    const struct claw_header *type = claw_head_find(r->head, CLAW_H_CONTENT_TYPE);
    bool post = claw_str_eqz(r->head->method, "POST") || claw_str_eqz(r->head->method, "PUT") || claw_str_eqz(r->head->method, "PATCH");
    bool object = post && (r->dialect != CLAW_DIALECT_NONE || wants_object(r->head->path));
    unsigned total_ms = claw_req_conf(r)->retry_total_timeout_ms;
    if (total_ms) claw_timer_start(r->ctx->loop, &r->deadline, total_ms);
    if (body.len == 0 && !object) return CLAW_STEP_ADMIT;
    if (type && opaque(type->value) && !object) return CLAW_STEP_ADMIT;
    struct claw_json_err err;
    int rc = claw_json_scan(body, &r->arena, &r->json, &err);
    if (rc == CLAW_EBAD_JSON) return fail_json(r, &err);
    if (rc != 0) return fail(r, rc, claw_str_of(claw_err_text(rc)));
    r->has_json = true;
    if (r->json.root.type == CLAW_JSON_OBJECT) {
        int next = read_model(r);
        if (next) return next;
    } else if (object) {
        return fail(r, CLAW_EBAD_JSON, CLAW_STR("The request body must be a JSON object."));
    }
    return CLAW_STEP_ADMIT;
}

/* An op failed, or set r->error by its own decision. */
static int refuse(struct claw_req *r, int rc, const struct claw_policy_error *err)
{
    if (rc == CLAW_EPOLICY) return fail_policy(r, err);
    if (rc == 0) rc = r->error;
    return fail(r, rc, r->error_text.len ? r->error_text : claw_str_of(claw_err_text(rc)));
}

static int answer_here(struct claw_req *r, const struct claw_policy_answer *answer)
{
    r->answered_by = answer->policy;
    claw_answer_own(r, answer->status, answer->type, answer->body);
    return CLAW_STEP_ACCOUNT;
}

static int step_admit(struct claw_req *r)
{
    struct claw_policy_error err;
    struct claw_policy_answer answer = {.body = {NULL, 0}};
    if (r->caller && !r->waiting) {
        int denied = claw_clients_admit(r->gen->gen->clients, r);
        if (denied) return refuse(r, denied, NULL);
    }
    if (!r->gen->ops->admits(r->gen->policy)) return CLAW_STEP_ROUTE;
    int rc = r->gen->ops->admit(r->gen->policy, r, &answer, &err);
    if (waits(r, rc)) return WAIT;
    if (rc != 0 || r->error) return refuse(r, rc, &err);
    return answer.body.ptr ? answer_here(r, &answer) : CLAW_STEP_ROUTE;
}

static int step_route(struct claw_req *r)
{
    struct claw_policy_error err;
    struct claw_policy_answer answer = {.body = {NULL, 0}};
    int rc = r->gen->ops->route(r->gen->policy, r, &answer, &err);
    if (waits(r, rc)) return WAIT;
    if (rc != 0 || r->error) return refuse(r, rc, &err);
    if (answer.body.ptr) return answer_here(r, &answer);
    if (r->caller && (rc = claw_clients_admit_route(r)) != 0) return refuse(r, rc, &err);
    if (!r->hedging.budget && r->route >= 0) r->hedging = claw_req_conf(r)->routes[r->route].hedge;
    claw_hedge_earn(r);
    if (r->candidates_n == 0) return fail(r, CLAW_ENO_UPSTREAM, CLAW_STR("No upstream available"));
    r->limit_from_us = r->gen->gen->limits ? claw_req_elapsed_us(r) : 0;
    return r->gen->gen->limits ? CLAW_STEP_LIMIT : CLAW_STEP_TRANSFORM;
}

static int step_limit(struct claw_req *r)
{
    unsigned wait_ms;
    uint32_t now = claw_req_elapsed_us(r);
    int rc = claw_limits_take(r, (now - r->limit_from_us) / 1000, &wait_ms, &r->limit_again);
    if (rc == 0) return CLAW_STEP_TRANSFORM;
    if (rc != CLAW_EAGAIN) return fail(r, rc, r->error_text.len ? r->error_text : claw_str_of(claw_err_text(rc)));
    r->wait_from_us = now;
    claw_timer_start(r->ctx->loop, &r->timer, wait_ms);
    return WAIT;
}

static void forget_error(struct claw_req *r)
{
    r->error = 0;
    r->error_text = r->error_param = CLAW_STR("");
}

/* The present candidate cannot be told what the client wants: another one may, and a hedge is not needed. */
static int step_untranslatable(struct claw_req *r)
{
    if (claw_hedge_running(r)) {
        claw_hedge_lost(r, r->error, claw_err_kind(r->error));
        forget_error(r);
        claw_pipeline_regain(r);
        return WAIT;
    }
    if (r->candidate > r->furthest) r->furthest = r->candidate;
    if (r->furthest + 1 < r->candidates_n) {
        r->candidate = ++r->furthest;
        forget_error(r);
        return step_transform(r); /* as deep as there are candidates */
    }
    if (r->attempts_n == 0) return refuse(r, 0, NULL);
    char text[400]; /* one could be told, so the request is not to blame */
    int n = snprintf(text, sizeof text, "The upstream failed, and no other can be sent this request: %.*s", CLAW_STR_FMT(r->error_text));
    forget_error(r);
    return fail(r, CLAW_ENO_UPSTREAM, (struct claw_str){text, n < (int)sizeof text ? (size_t)n : sizeof text - 1});
}

/* The present candidate's upstream takes no more at present: the next one does, if there is one. */
static int step_full(struct claw_req *r)
{
    if (claw_hedge_running(r)) {
        claw_hedge_lost(r, CLAW_ERATE_LIMITED, claw_err_kind(CLAW_ERATE_LIMITED));
        claw_pipeline_regain(r);
        return WAIT;
    }
    if (r->candidate > r->furthest) r->furthest = r->candidate;
    if (r->furthest + 1 == r->candidates_n) {
        claw_limits_say_when(r);
        return fail(r, CLAW_ERATE_LIMITED, r->error_text);
    }
    r->error_text = CLAW_STR("");
    r->candidate = ++r->furthest;
    return step_transform(r);
}

static int step_transform(struct claw_req *r)
{
    struct claw_policy_error err;
    if (r->gen->gen->upstream_limits && !r->waiting && !claw_limits_take_upstream(r, r->candidates[r->candidate].upstream)) return step_full(r);
    if (!r->waiting) { /* else what the hook set before it waited stays */
        claw_buf_clear(&r->out_body);
        r->out_body_set = false;
        r->out_path = CLAW_STR("");
        r->out_headers_n = 0;
        r->translated = false;
        r->sent_as = r->dialect;
        r->dropped = CLAW_STR("");
        r->answer_type = NULL;
        r->answer_status = 0;
    }
    if (!(r->candidates[r->candidate].mask & CLAW_MASK_REQUEST)) return CLAW_STEP_UPSTREAM;
    int rc = r->gen->ops->request(r->gen->policy, r, &err);
    if (waits(r, rc)) return WAIT;
    if (rc == 0 && r->error == CLAW_EUNTRANSLATABLE) return step_untranslatable(r);
    return rc == 0 && !r->error ? CLAW_STEP_UPSTREAM : refuse(r, rc, &err);
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

static int step_upstream(struct claw_req *r)
{
    struct claw_candidate *c = &r->candidates[r->candidate];
    const struct claw_generation_upstream *up = &r->gen->gen->upstreams[c->upstream];
    const char *why = "";
    int rc = up->asks_token ? claw_token_await(r->gen->tokens[c->upstream], r, &why) : 0;
    if (waits(r, rc)) return WAIT;
    unsigned i = r->attempts_n < CLAW_ATTEMPTS_MAX ? r->attempts_n : CLAW_ATTEMPTS_MAX - 1;
    r->attempts_n++;
    r->attempt = i;
    if (r->candidate > r->furthest) r->furthest = r->candidate;
    c->tries++;
    r->attempts[i] = (struct claw_attempt){.upstream = c->upstream, .start_us = claw_req_elapsed_us(r)};
    r->wait_from_us = r->attempts[i].start_us;
    r->retried_stale = false;
    r->outstanding = true;
    claw_upstream_stats_begin(up->stats);
    if (rc != 0) {
        claw_pipeline_upstream_failed(r, rc, 0, why, CLAW_STR(""), -1);
        return WAIT;
    }
    claw_hedge_arm(r);
    r->lease.on_ready = on_lease_ready;
    r->lease.on_error = on_lease_error;
    r->lease.arg = r;
    claw_pool_lease(r->gen->endpoints[c->upstream], &r->lease, up->conf->connect_timeout_ms, false);
    return WAIT;
}

/* ---- failing over ---------------------------------------------------------------------------------------------------------- */

/* The failure the retry step is to decide on; in the arena, one a try. */
struct claw_failed_try {
    struct claw_failure f;
    char kind[16];
    bool held; /* the relay holds the upstream's own error answer */
};

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
    if (*text) r->upstream_error = keep(r, claw_str_of(text));
    if (claw_hedge_running(r) && (t->f.again || claw_hedge_aside(r))) {
        claw_hedge_lost(r, code, t->f.kind);
        return;
    }
    claw_hedge_stop(r);
    if (!claw_relay_open(r)) claw_req_cancel_upstream(r);
    claw_account_attempt(r, code, t->f.kind);
    r->failed = t;
    enter(r, CLAW_STEP_RETRY);
    claw_loop_defer(r->ctx->loop, &r->deferred, walk_deferred); /* not from within the parser that reported it */
}

static void on_backoff(struct claw_timer *timer)
{
    struct claw_req *r = timer->arg;
    claw_req_waited(r);
    if (r->step == CLAW_STEP_LIMIT && r->limit_again) walk(r);
    else go(r, CLAW_STEP_TRANSFORM);
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
        if (claw_json_text(e, &r->arena, &out) == 0) out = keep(r, out);
    }
    claw_buf_fini(&tmp);
    return out;
}

static int no_more(struct claw_req *r, struct claw_failed_try *t)
{
    if (t->held) {
        claw_relay_release_held(r);
        return WAIT;
    }
    struct claw_str told = t->f.code == CLAW_ESTREAM_ERROR ? told_message(r, t->f.body) : CLAW_STR("");
    if (t->f.code == CLAW_EBAD_RESPONSE && r->translated) told = r->upstream_error;
    if (told.len) return fail(r, t->f.code, told);
    char text[400];
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    int n = snprintf(text, sizeof text, "The upstream \"%.*s\" failed: %s (%u %s).", CLAW_STR_FMT(up->conf->name), claw_err_text(t->f.code),
                     r->attempts_n, r->attempts_n == 1 ? "attempt" : "attempts");
    return fail(r, t->f.code, (struct claw_str){text, n < (int)sizeof text ? (size_t)n : sizeof text - 1});
}

static int step_retry(struct claw_req *r)
{
    struct claw_failed_try *t = r->failed;
    struct claw_policy_error err;
    enum claw_retry_action action = CLAW_RETRY_STOP;
    uint64_t after_ms = 0;
    if (!t) return WAIT; /* a backoff runs */
    t->f.tries = r->attempts_n;
    t->f.left = r->candidates_n - r->furthest - 1;
    t->f.elapsed_ms = claw_req_elapsed_us(r) / 1000;
    int rc = r->gen->ops->retry(r->gen->policy, r, &t->f, &action, &after_ms, &err);
    if (waits(r, rc)) return WAIT;
    r->failed = NULL;
    if (rc != 0) return refuse(r, rc, &err);
    if ((action == CLAW_RETRY_NEXT && t->f.left == 0) || r->attempts_n >= TRIES_MAX) action = CLAW_RETRY_STOP;
    if (action == CLAW_RETRY_STOP) return no_more(r, t);
    struct claw_str labels[2] = {claw_req_upstream(r)->conf->name, claw_str_of(t->f.kind)};
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_RETRIES, 1, 2, labels);
    if (action == CLAW_RETRY_NEXT)
        CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_FAILOVER, {"request_id", claw_str_of(r->id)}, {"route", claw_req_route_id(r)}, {"from", labels[0]},
                          {"to", r->gen->gen->upstreams[r->candidates[r->furthest + 1].upstream].conf->name}, {"kind", labels[1]});
    claw_req_cancel_upstream(r);
    claw_relay_reset(r);
    if (action == CLAW_RETRY_NEXT) r->candidate = ++r->furthest;
    if (after_ms == 0) return CLAW_STEP_TRANSFORM;
    r->wait_from_us = claw_req_elapsed_us(r);
    claw_timer_start(r->ctx->loop, &r->timer, after_ms);
    return WAIT;
}

/* ---- a whole answer's hook -------------------------------------------------------------------------------------------------- */

static int step_back(struct claw_req *r)
{
    struct claw_policy_error err;
    struct claw_str body = claw_relay_whole(r), out = {NULL, 0};
    int rc = r->gen->ops->response(r->gen->policy, r, body, &out, &err);
    if (waits(r, rc)) return WAIT;
    bool none = r->translated && rc == 0 && (r->error == CLAW_EBAD_RESPONSE || r->answer_status >= 400);
    if (none) {
        const char *why = r->error_text.len ? r->error_text.ptr : "";
        forget_error(r);
        claw_relay_no_answer(r, why);
        return WAIT;
    }
    if (rc != 0 || r->error) return refuse(r, rc, &err);
    claw_relay_send_whole(r, out.ptr ? out : body);
    return WAIT;
}

/* ---- the end ----------------------------------------------------------------------------------------------------------------- */

void claw_pipeline_answered(struct claw_req *r)
{
    if (r->finished) return;
    struct claw_attempt *a = claw_account_last(r);
    bool open = a && !a->end_us;
    claw_account_attempt(r, CLAW_OK, a && a->status >= 400 ? a->kind : NULL);
    if (open) r->end_us = a->end_us; /* one reading of the clock for both */
    go(r, CLAW_STEP_ACCOUNT);
}

static int step_account(struct claw_req *r)
{
    stop_everything(r);
    uint32_t now = r->end_us ? r->end_us : claw_req_elapsed_us(r);
    r->end_us = now;
    if (!r->ttfb_us && r->overhead_us == 0) r->overhead_us = now - (r->waited_us < now ? r->waited_us : now);
    claw_account_attempt(r, r->error, r->error ? claw_err_kind(r->error) : NULL);
    claw_account_settle(r);
    if (r->limits) claw_limits_settle(r);
    claw_account_count(r);
    return CLAW_STEP_LOG;
}

static int step_log(struct claw_req *r)
{
    claw_access_log_write(r);
    claw_decision_log_write(r);
    return CLAW_STEP_RELEASE;
}

static void free_deferred(struct claw_deferred *d)
{
    struct claw_req *r = (struct claw_req *)((char *)d - offsetof(struct claw_req, deferred));
    struct claw_worker_ctx *ctx = r->ctx;
    claw_req_free(r);
    if (ctx->on_idle && ctx->requests_n == 0) ctx->on_idle(ctx);
}

static int step_release(struct claw_req *r)
{
    if (r->finished) return WAIT;
    r->finished = true;
    if (r->conn) { /* nothing answered it: there was no memory to */
        claw_conn_abort(r->conn);
        r->conn = NULL;
    }
    r->gen->ops->release(r->gen->policy, r);
    if (r->deferred.pending) r->deferred.run = free_deferred;
    else claw_loop_defer(r->ctx->loop, &r->deferred, free_deferred);
    return WAIT;
}

/* ---- the server's events --------------------------------------------------------------------------------------------------------- */

static void on_deadline(struct claw_timer *timer)
{
    struct claw_req *r = timer->arg;
    if (r->commit == CLAW_HELD) claw_pipeline_fail(r, CLAW_EDEADLINE, claw_str_of(claw_err_text(CLAW_EDEADLINE)));
}

static struct claw_arena *on_begin(struct claw_conn *c)
{
    struct claw_worker_ctx *ctx = c->server->arg;
    struct claw_req *r = claw_req_new(ctx, c);
    if (!r) return NULL;
    claw_timer_init(&r->timer, on_backoff, r);
    claw_timer_init(&r->deadline, on_deadline, r);
    claw_hedge_init(r);
    claw_metrics_add(ctx->metrics, CLAW_METRIC_IN_FLIGHT, 1, 0, NULL);
    c->request = r;
    return &r->arena;
}

static void on_head(struct claw_conn *c, struct claw_head *h)
{
    struct claw_req *r = c->request;
    r->head = h;
    if (claw_req_read_path(r) != 0) {
        claw_pipeline_fail(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
        return;
    }
    int rc = r->gen->gen->clients ? claw_clients_greet(r->gen->gen->clients, r) : 0;
    if (rc != 0) {
        claw_pipeline_fail(r, rc, r->error_text.len ? r->error_text : claw_str_of(claw_err_text(rc)));
        return;
    }
    if (h->content_length > 0 && claw_buf_reserve(&r->body, (size_t)h->content_length) != 0) {
        claw_pipeline_fail(r, CLAW_EBODY_TOO_LARGE, claw_str_of(claw_err_text(CLAW_EBODY_TOO_LARGE)));
        return;
    }
    if (h->expect_continue) claw_conn_continue(c);
}

char *claw_pipeline_room(struct claw_conn *c, size_t *n)
{
    struct claw_req *r = c->request;
    size_t free_bytes = r->body.cap - r->body.len;
    if (free_bytes < *n) *n = free_bytes;
    return free_bytes ? r->body.data + r->body.len : NULL;
}

static void on_body(struct claw_conn *c, const char *data, size_t n)
{
    struct claw_req *r = c->request;
    if (data == r->body.data + r->body.len && n <= r->body.cap - r->body.len) { /* read into its place */
        r->body.len += n;
        return;
    }
    if (claw_buf_add(&r->body, data, n) != 0)
        claw_pipeline_fail(r, CLAW_EBODY_TOO_LARGE, claw_str_of(claw_err_text(CLAW_EBODY_TOO_LARGE)));
}

static void on_begin_turn(struct claw_lane_ticket *t) { walk((struct claw_req *)((char *)t - offsetof(struct claw_req, begin))); }

static void on_done(struct claw_conn *c)
{
    struct claw_req *r = c->request;
    r->upload_done = true;
    r->bytes_in = claw_buf_size(&r->body);
    r->waited_us = claw_req_elapsed_us(r); /* waited for the client so far */
    if (r->step != CLAW_STEP_PARSE || !claw_lane_wait(r->ctx->loop, &r->ctx->begins, &r->begin, on_begin_turn)) walk(r);
}

static void on_refused(struct claw_conn *c, int code, const char *text)
{
    struct claw_req *r = c->request;
    if (r) claw_pipeline_fail(r, code, claw_str_of(text));
}

static void on_gone(struct claw_conn *c, int code)
{
    struct claw_req *r = c->request;
    r->conn = NULL;
    r->gone = true;
    if (r->finished || r->step >= CLAW_STEP_ACCOUNT) return;
    r->error = code;
    r->status = claw_err_status(code);
    claw_account_attempt(r, code, claw_err_kind(code));
    stop_everything(r);
    go(r, CLAW_STEP_ACCOUNT);
}

static void on_drain(struct claw_conn *c)
{
    claw_relay_drained(c->request);
}

const struct claw_server_events claw_pipeline_server_events = {on_begin, on_head, on_body, on_done, on_refused, on_gone, on_drain};
