#include "proxy/pipeline_part.h"

#include "proxy/access_log.h"
#include "proxy/account.h"
#include "proxy/answer.h"
#include "proxy/care.h"
#include "proxy/clients.h"
#include "proxy/decision_log.h"
#include "proxy/hedge.h"
#include "proxy/limit.h"
#include "proxy/recall.h"
#include "proxy/recent.h"
#include "proxy/relay.h"
#include "proxy/trace.h"
#include "proxy/transcript.h"
#include "proxy/upload.h"
#include "proxy/webhook.h"

#include <stdio.h>

#define TO(s) (1u << CLAW_STEP_##s)
#define ENDS (TO(ACCOUNT))
#define LONG_BODY 65536u  /* its scan takes longer than a small request does */
#define ANSWER_ROOM 4096u /* what a request that used up its memory still gets, to say so */
#define TRIES_MAX 32u /* of one request, whatever a policy says; configuration has 20 at most */

static int step_parse(struct claw_req *r);
static int step_admit(struct claw_req *r);
static int step_route(struct claw_req *r);
static int step_limit(struct claw_req *r);
static int step_cache(struct claw_req *r);
static int step_back(struct claw_req *r);
static int step_account(struct claw_req *r);
static int step_log(struct claw_req *r);
static int step_release(struct claw_req *r);

/* The request, top to bottom. A step returns the next one, or CLAW_PIPELINE_WAIT when something else will bring the request
 * there: the relay walks COMMIT and STREAM by itself, since bytes drive them. Whatever fails goes to ACCOUNT. */
static const struct {
    struct claw_step_row row;
    int (*run)(struct claw_req *r);
} steps[CLAW_STEP_COUNT] = {
    /*                      name         hook        waits  legal next steps                             */
    [CLAW_STEP_PARSE]     = {{"parse",     NULL,       false, TO(ADMIT) | ENDS},                          step_parse},
    [CLAW_STEP_ADMIT]     = {{"admit",     "admit",    true,  TO(ROUTE) | ENDS},                          step_admit},
    [CLAW_STEP_ROUTE]     = {{"route",     "route",    true,  TO(LIMIT) | TO(CACHE) | TO(TRANSFORM) | ENDS}, step_route},
    [CLAW_STEP_LIMIT]     = {{"limit",     NULL,       false, TO(CACHE) | TO(TRANSFORM) | ENDS},          step_limit},
    [CLAW_STEP_CACHE]     = {{"cache",     NULL,       false, TO(TRANSFORM) | ENDS},                      step_cache},
    [CLAW_STEP_TRANSFORM] = {{"transform", "request",  true,  TO(UPSTREAM) | ENDS},                       claw_pipeline_step_transform},
    [CLAW_STEP_UPSTREAM]  = {{"upstream",  NULL,       true,  TO(TRANSFORM) | TO(BACK) | TO(COMMIT) | TO(RETRY) | ENDS}, claw_pipeline_step_upstream},
    [CLAW_STEP_RETRY]     = {{"retry",     "retry",    true,  TO(TRANSFORM) | TO(COMMIT) | ENDS},         claw_pipeline_step_retry},
    [CLAW_STEP_BACK]      = {{"back",      "response", true,  TO(COMMIT) | TO(RETRY) | ENDS},             step_back},
    [CLAW_STEP_COMMIT]    = {{"commit",    NULL,       false, TO(STREAM) | ENDS},                         NULL},
    [CLAW_STEP_STREAM]    = {{"stream",    "event",    false, ENDS},                                      NULL},
    [CLAW_STEP_ACCOUNT]   = {{"account",   "cost",     false, TO(LOG)},                                   step_account},
    [CLAW_STEP_LOG]       = {{"log",       "log",      false, TO(RELEASE)},                               step_log},
    [CLAW_STEP_RELEASE]   = {{"release",   NULL,       false, 0},                                         step_release},
};

const struct claw_step_row *claw_step_row(enum claw_step s) { return &steps[s].row; }

void claw_pipeline_enter(struct claw_req *r, enum claw_step s)
{
    CLAW_ASSERT(steps[r->step].row.next & (1u << s));
    r->step = (uint8_t)s;
}

/* Run steps until one waits. Called again from within a step it only notes that there is more to do. */
void claw_pipeline_walk(struct claw_req *r)
{
    if (r->stepping) {
        r->again = true;
        return;
    }
    r->stepping = true;
    while (steps[r->step].run) {
        r->again = false;
        int next = steps[r->step].run(r);
        if (next != CLAW_PIPELINE_WAIT) claw_pipeline_enter(r, (enum claw_step)next);
        else if (!r->again) break;
    }
    r->stepping = false;
}

void claw_pipeline_go(struct claw_req *r, enum claw_step s)
{
    claw_pipeline_enter(r, s);
    claw_pipeline_walk(r);
}

void claw_pipeline_reached(struct claw_req *r, enum claw_step s) { claw_pipeline_go(r, s); }

/* What the hook waited on stays with the request: called again, the op finds its result there. */
void claw_pipeline_resume(struct claw_req *r)
{
    r->wait_cancel = NULL;
    claw_req_waited(r);
    claw_pipeline_walk(r);
}

void claw_pipeline_regain(struct claw_req *r)
{
    if (r->wait_cancel) r->wait_cancel(r);
    r->waiting = NULL;
    r->wait_cancel = NULL;
    if (r->step == CLAW_STEP_TRANSFORM) claw_pipeline_enter(r, CLAW_STEP_UPSTREAM);
}

/* What an op returned: does it wait? If not, nothing it waited on is left. */
bool claw_pipeline_waits(struct claw_req *r, int rc)
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

struct claw_str claw_pipeline_keep(struct claw_req *r, struct claw_str s)
{
    char *copy = claw_arena_dup(&r->arena, s.ptr, s.len < 512 ? s.len : 512);
    return copy ? (struct claw_str){copy, s.len < 512 ? s.len : 512} : CLAW_STR("");
}

/* Time spent waiting for others is not the proxy's own: what is given up now was such a wait. */
static void settle_wait(struct claw_req *r)
{
    if (r->step == CLAW_STEP_PARSE && !r->upload_done) r->waited_us = claw_req_elapsed_us(r);
    else if (r->step == CLAW_STEP_CACHE || r->step == CLAW_STEP_UPSTREAM || claw_timer_running(&r->timer) || r->wait_cancel) claw_req_waited(r);
}

void claw_pipeline_stop(struct claw_req *r)
{
    settle_wait(r);
    claw_timer_stop(r->ctx->loop, &r->timer);
    claw_timer_stop(r->ctx->loop, &r->deadline);
    claw_timer_stop(r->ctx->loop, &r->heartbeat);
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
    if (r->error_text.len == 0) r->error_text = claw_pipeline_keep(r, text);
    claw_account_attempt(r, code, claw_err_kind(code));
    claw_pipeline_stop(r);
    bool started = r->commit == CLAW_COMMITTED || (r->conn && r->conn->replied);
    if (started) {
        if (r->conn && (claw_recall_answers(r) || (r->early && !r->relay))) claw_recall_cut(r, code, r->error_text);
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
    if (r->step < CLAW_STEP_ACCOUNT) claw_pipeline_go(r, CLAW_STEP_ACCOUNT);
}

int claw_pipeline_fail_step(struct claw_req *r, int code, struct claw_str text)
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
    return claw_pipeline_fail_step(r, CLAW_EPOLICY, CLAW_STR("A policy failed while handling the request; its error is in the log."));
}

void claw_pipeline_policy_failed(struct claw_req *r, const struct claw_policy_error *e)
{
    if (r->finished) return;
    fail_policy(r, e);
    if (r->step < CLAW_STEP_ACCOUNT) claw_pipeline_go(r, CLAW_STEP_ACCOUNT);
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

bool claw_pipeline_takes_body(const struct claw_req *r)
{
    return claw_str_eqz(r->head->method, "POST") || claw_str_eqz(r->head->method, "PUT") || claw_str_eqz(r->head->method, "PATCH");
}

/* Must the body be a JSON object? */
bool claw_pipeline_takes_object(const struct claw_req *r)
{
    return claw_pipeline_takes_body(r) && (r->dialect != CLAW_DIALECT_NONE || wants_object(r->head->path));
}

/* Is the body to be read here, of which nothing but its being there is known yet? */
static bool is_read(const struct claw_req *r)
{
    const struct claw_header *type = claw_head_find(r->head, CLAW_H_CONTENT_TYPE);
    return claw_pipeline_takes_object(r) || !type || !opaque(type->value);
}

/* One that goes on unread may be coded in any way its upstream understands. */
int claw_pipeline_check_coding(struct claw_req *r)
{
    if (!r->head->chunked && r->head->content_length <= 0) return 0;
    for (size_t i = 0; i < r->head->n; i++) {
        const struct claw_header *h = &r->head->headers[i];
        if (h->id != CLAW_H_CONTENT_ENCODING || h->value.len == 0 || claw_str_ieq(h->value, CLAW_STR("identity")) || !is_read(r)) continue;
        return claw_req_set_answer_header(r, CLAW_STR("accept-encoding"), CLAW_STR("identity")) == 0 ? CLAW_ECODING : CLAW_EREQ_MEM;
    }
    return 0;
}

static int fail_json(struct claw_req *r, const struct claw_json_err *e)
{
    char text[256];
    int n = snprintf(text, sizeof text, "The request body is not valid JSON: %s at line %u, column %u (byte %zu).", e->text, e->line, e->column, e->offset);
    return claw_pipeline_fail_step(r, CLAW_EBAD_JSON, (struct claw_str){text, (size_t)n});
}

static int read_model(struct claw_req *r)
{
    if (claw_dialect_is_gemini((enum claw_dialect)r->dialect)) return 0; /* it stood in the path */
    struct claw_json_value model = claw_json_top_get(&r->json, CLAW_STR("model"));
    struct claw_json_value stream = claw_json_top_get(&r->json, CLAW_STR("stream"));
    bool unsaid = stream.type == CLAW_JSON_NONE && r->dialect == CLAW_DIALECT_OLLAMA_CHAT; /* who does not say gets one */
    r->stream = stream.type == CLAW_JSON_TRUE || unsaid;
    if (stream.type != CLAW_JSON_NONE && stream.type != CLAW_JSON_NULL && stream.type != CLAW_JSON_TRUE && stream.type != CLAW_JSON_FALSE)
        return claw_pipeline_fail_step(r, CLAW_EBAD_JSON, CLAW_STR("\"stream\" must be a boolean."));
    if (model.type == CLAW_JSON_NONE || model.type == CLAW_JSON_NULL) return 0;
    if (model.type != CLAW_JSON_STRING) return claw_pipeline_fail_step(r, CLAW_EBAD_JSON, CLAW_STR("\"model\" must be a string."));
    struct claw_str text;
    if (claw_json_text(model, &r->arena, &text) != 0) return claw_pipeline_fail_step(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
    r->model.ptr = claw_arena_dup(&r->arena, text.ptr, text.len); /* the body may go before the log line is written */
    r->model.len = text.len;
    if (!r->model.ptr) return claw_pipeline_fail_step(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
    return 0;
}

/* An op failed, or set r->error by its own decision. */
int claw_pipeline_refuse(struct claw_req *r, int rc, const struct claw_policy_error *err)
{
    if (rc == CLAW_EPOLICY) return fail_policy(r, err);
    if (rc == 0) rc = r->error;
    return claw_pipeline_fail_step(r, rc, r->error_text.len ? r->error_text : claw_str_of(claw_err_text(rc)));
}

/* The client's time is not the upstream's: it begins when all of the body is here. */
void claw_pipeline_start_deadline(struct claw_req *r)
{
    unsigned total_ms = claw_req_conf(r)->retry_total_timeout_ms;
    if (total_ms) claw_timer_start(r->ctx->loop, &r->deadline, total_ms);
}

static int step_parse(struct claw_req *r)
{
    if (claw_h1_has_dots(r->head->path)) return claw_pipeline_fail_step(r, CLAW_EBAD_REQUEST, CLAW_STR("The path has a dot segment."));
    struct claw_str body = claw_buf_str(&r->body);
    claw_transcript_begin(r);
    bool object = claw_pipeline_takes_object(r);
    if (r->upload_done) claw_pipeline_start_deadline(r);
    if (r->upload) return CLAW_STEP_ADMIT;
    if (body.len == 0 && !object) return CLAW_STEP_ADMIT;
    if (!is_read(r)) return CLAW_STEP_ADMIT;
    struct claw_json_err err;
    if (body.len > LONG_BODY && r->ctx->loop) claw_stream_flush_all(r->ctx->loop); /* what others are to be sent does not wait for it */
    int rc = claw_json_scan(body, &r->arena, &r->json, &err);
    if (rc == CLAW_EBAD_JSON) return fail_json(r, &err);
    if (rc != 0) return claw_pipeline_fail_step(r, rc, claw_str_of(claw_err_text(rc)));
    r->has_json = true;
    if (r->json.root.type == CLAW_JSON_OBJECT) {
        int next = read_model(r);
        if (next) return next;
        if (r->trace) claw_trace_note(r);
    } else if (object) {
        return claw_pipeline_fail_step(r, CLAW_EBAD_JSON, CLAW_STR("The request body must be a JSON object."));
    }
    return CLAW_STEP_ADMIT;
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
        if (denied) return claw_pipeline_refuse(r, denied, NULL);
    }
    if (!r->gen->ops->admits(r->gen->policy)) return CLAW_STEP_ROUTE;
    int rc = r->gen->ops->admit(r->gen->policy, r, &answer, &err);
    if (claw_pipeline_waits(r, rc)) return CLAW_PIPELINE_WAIT;
    if (rc != 0 || r->error) return claw_pipeline_refuse(r, rc, &err);
    return answer.body.ptr ? answer_here(r, &answer) : CLAW_STEP_ROUTE;
}

static int step_route(struct claw_req *r)
{
    struct claw_policy_error err;
    struct claw_policy_answer answer = {.body = {NULL, 0}};
    int rc = r->gen->ops->route(r->gen->policy, r, &answer, &err);
    if (claw_pipeline_waits(r, rc)) return CLAW_PIPELINE_WAIT;
    if (rc != 0 || r->error) return claw_pipeline_refuse(r, rc, &err);
    if (answer.body.ptr) return answer_here(r, &answer);
    if (r->caller && (rc = claw_clients_admit_route(r)) != 0) return claw_pipeline_refuse(r, rc, &err);
    if (!r->hedging.budget && r->route >= 0) r->hedging = claw_req_conf(r)->routes[r->route].hedge;
    claw_hedge_earn(r);
    if (r->candidates_n == 0) return claw_pipeline_fail_step(r, CLAW_ENO_UPSTREAM, CLAW_STR("No upstream available"));
    claw_care_earn(claw_loop_now_ms(r->ctx->loop));
    claw_care_arrange(r, 0);
    r->limit_from_us = r->gen->gen->limits ? claw_req_elapsed_us(r) : 0;
    return r->gen->gen->limits ? CLAW_STEP_LIMIT : claw_pipeline_past_limits(r);
}

static int step_limit(struct claw_req *r)
{
    unsigned wait_ms;
    uint32_t now = claw_req_elapsed_us(r);
    int rc = claw_limits_take(r, (now - r->limit_from_us) / 1000, &wait_ms, &r->limit_again);
    if (rc == CLAW_EAGAIN || r->limit_wait_us) r->limit_wait_us = now > r->limit_from_us ? now - r->limit_from_us : 1;
    if (rc == 0) return claw_pipeline_past_limits(r);
    if (rc != CLAW_EAGAIN) return claw_pipeline_fail_step(r, rc, r->error_text.len ? r->error_text : claw_str_of(claw_err_text(rc)));
    r->wait_from_us = now;
    if (wait_ms) claw_timer_start(r->ctx->loop, &r->timer, wait_ms);
    return CLAW_PIPELINE_WAIT;
}

static int step_cache(struct claw_req *r)
{
    uint32_t now = claw_req_elapsed_us(r);
    int rc = claw_recall_look(r);
    if (rc == 0) return CLAW_STEP_TRANSFORM;
    if (rc != CLAW_EAGAIN) return claw_pipeline_fail_step(r, rc, claw_str_of(claw_err_text(rc)));
    if (r->step == CLAW_STEP_CACHE) r->wait_from_us = now;
    return CLAW_PIPELINE_WAIT;
}

/* ---- a whole answer's hook -------------------------------------------------------------------------------------------------- */

static int step_back(struct claw_req *r)
{
    struct claw_policy_error err;
    struct claw_str body = claw_relay_whole(r), out = {NULL, 0};
    int rc = r->gen->ops->response(r->gen->policy, r, body, &out, &err);
    if (claw_pipeline_waits(r, rc)) return CLAW_PIPELINE_WAIT;
    bool none = r->translated && rc == 0 && (r->error == CLAW_EBAD_RESPONSE || r->answer_status >= 400);
    if (none) {
        const char *why = r->error_text.len ? r->error_text.ptr : "";
        claw_pipeline_forget_error(r);
        claw_relay_no_answer(r, why);
        return CLAW_PIPELINE_WAIT;
    }
    if (rc != 0 || r->error) return claw_pipeline_refuse(r, rc, &err);
    claw_relay_send_whole(r, out.ptr ? out : body);
    return CLAW_PIPELINE_WAIT;
}

/* ---- the end ----------------------------------------------------------------------------------------------------------------- */

void claw_pipeline_answered(struct claw_req *r)
{
    if (r->finished) return;
    struct claw_attempt *a = claw_account_last(r);
    bool open = a && !a->end_us;
    claw_account_attempt(r, CLAW_OK, a && a->status >= 400 ? a->kind : NULL);
    if (claw_recall_lags(r)) return; /* what its client has not got yet comes from there */
    if (open) r->end_us = a->end_us; /* one reading of the clock for both */
    claw_pipeline_go(r, CLAW_STEP_ACCOUNT);
}

/* Who went on without its client ends like one that did not. */
static void leave_recall(struct claw_req *r)
{
    claw_recall_leave(r);
    if (!r->gone || (r->error && r->error != CLAW_ECLIENT_GONE)) return;
    r->error = CLAW_ECLIENT_GONE;
    r->status = claw_err_status(CLAW_ECLIENT_GONE);
}

static int step_account(struct claw_req *r)
{
    claw_pipeline_stop(r);
    claw_care_let_go(r);
    if (r->recall) leave_recall(r);
    uint32_t now = r->end_us ? r->end_us : claw_req_elapsed_us(r);
    r->end_us = now;
    if (!r->ttfb_us && r->overhead_us == 0) r->overhead_us = now - (r->waited_us < now ? r->waited_us : now);
    claw_account_attempt(r, r->error, r->error ? claw_err_kind(r->error) : NULL);
    claw_account_settle(r);
    if (r->limits || r->limit_place) claw_limits_settle(r);
    claw_account_count(r);
    return CLAW_STEP_LOG;
}

static int step_log(struct claw_req *r)
{
    claw_access_log_write(r);
    if (r->trace) claw_trace_end(r);
    claw_decision_log_write(r);
    if (r->ctx->recent) claw_recent_add(r->ctx->recent, r);
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
    if (r->finished) return CLAW_PIPELINE_WAIT;
    r->finished = true;
    if (r->conn) { /* nothing answered it: there was no memory to */
        claw_conn_abort(r->conn);
        r->conn = NULL;
    }
    r->gen->ops->release(r->gen->policy, r);
    if (r->deferred.pending) r->deferred.run = free_deferred;
    else claw_loop_defer(r->ctx->loop, &r->deferred, free_deferred);
    return CLAW_PIPELINE_WAIT;
}
