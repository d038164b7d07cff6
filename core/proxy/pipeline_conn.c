/* What a client's connection tells of its request: head, body, end, and that it is gone. */
#include "proxy/pipeline_part.h"

#include "proxy/account.h"
#include "proxy/clients.h"
#include "proxy/heartbeat.h"
#include "proxy/hedge.h"
#include "proxy/recall.h"
#include "proxy/relay.h"
#include "proxy/trace.h"
#include "proxy/upload.h"

static void on_backoff(struct claw_timer *timer)
{
    struct claw_req *r = timer->arg;
    claw_req_waited(r);
    if (r->step == CLAW_STEP_LIMIT && r->limit_again) claw_pipeline_walk(r);
    else claw_pipeline_go(r, r->step == CLAW_STEP_LIMIT ? claw_pipeline_past_limits(r) : CLAW_STEP_TRANSFORM);
}

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
    claw_heartbeat_init(r);
    claw_hedge_init(r);
    claw_metrics_add(ctx->metrics, CLAW_METRIC_IN_FLIGHT, 1, 0, NULL);
    c->request = r;
    return &r->arena;
}

static void fail_body(struct claw_req *r, int rc)
{
    claw_pipeline_fail(r, rc, r->error_text.len ? r->error_text : claw_str_of(claw_err_text(rc)));
}

static int begin_upload(struct claw_req *r)
{
    const struct claw_header *coding = claw_head_find(r->head, CLAW_H_CONTENT_ENCODING);
    if (!claw_pipeline_takes_body(r) || claw_pipeline_takes_object(r)) return 0;
    if (coding && !claw_str_ieq(coding->value, CLAW_STR("identity"))) return 0; /* what it hides is passed on unread */
    return claw_upload_begin(r);
}

static void on_head(struct claw_conn *c, struct claw_head *h)
{
    struct claw_req *r = c->request;
    r->head = h;
    if (claw_req_read_path(r) != 0 || (claw_req_conf(r)->tracing.endpoint.len && claw_trace_begin(r) != 0)) {
        claw_pipeline_fail(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
        return;
    }
    int rc = r->gen->gen->clients ? claw_clients_greet(r->gen->gen->clients, r) : 0;
    if (rc != 0) {
        claw_pipeline_fail(r, rc, r->error_text.len ? r->error_text : claw_str_of(claw_err_text(rc)));
        return;
    }
    rc = claw_pipeline_check_coding(r);
    if (rc == 0) rc = begin_upload(r);
    if (rc != 0) {
        fail_body(r, rc);
        return;
    }
    if (h->content_length > 0 && !r->upload && claw_buf_reserve(&r->body, (size_t)h->content_length) != 0) {
        claw_pipeline_fail(r, CLAW_EBODY_TOO_LARGE, claw_str_of(claw_err_text(CLAW_EBODY_TOO_LARGE)));
        return;
    }
    if (h->expect_continue) claw_conn_continue(c);
}

char *claw_pipeline_room(struct claw_conn *c, size_t *n)
{
    struct claw_req *r = c->request;
    size_t free_bytes = r->body.cap - r->body.len;
    if (r->upload) return NULL;
    if (free_bytes < *n) *n = free_bytes;
    return free_bytes ? r->body.data + r->body.len : NULL;
}

static void on_begin_turn(struct claw_lane_ticket *t) { claw_pipeline_walk((struct claw_req *)((char *)t - offsetof(struct claw_req, begin))); }

/* As soon as there is a turn for it. */
static void begin(struct claw_req *r)
{
    r->waited_us = claw_req_elapsed_us(r); /* waited for the client so far */
    if (r->step != CLAW_STEP_PARSE || !claw_lane_wait(r->ctx->loop, &r->ctx->begins, &r->begin, on_begin_turn)) claw_pipeline_walk(r);
}

static void on_form(struct claw_req *r, const char *data, size_t n)
{
    int rc = claw_upload_take(r, data, n);
    if (rc != 0) fail_body(r, rc);
    else if (claw_upload_starts(r)) begin(r);
}

static void on_form_done(struct claw_req *r)
{
    if (!claw_upload_streams(r)) r->waited_us = claw_req_elapsed_us(r);
    int rc = claw_upload_end(r);
    if (rc != 0) fail_body(r, rc);
    else if (!claw_upload_streams(r)) begin(r);
    else if (r->commit == CLAW_HELD && r->step != CLAW_STEP_PARSE) claw_pipeline_start_deadline(r);
}

static void on_body(struct claw_conn *c, const char *data, size_t n)
{
    struct claw_req *r = c->request;
    if (r->upload) {
        on_form(r, data, n);
        return;
    }
    if (data == r->body.data + r->body.len && n <= r->body.cap - r->body.len) { /* read into its place */
        r->body.len += n;
        return;
    }
    if (claw_buf_add(&r->body, data, n) != 0)
        claw_pipeline_fail(r, CLAW_EBODY_TOO_LARGE, claw_str_of(claw_err_text(CLAW_EBODY_TOO_LARGE)));
}

static void on_done(struct claw_conn *c)
{
    struct claw_req *r = c->request;
    r->upload_done = true;
    if (r->upload) {
        on_form_done(r);
        return;
    }
    r->bytes_in = claw_buf_size(&r->body);
    begin(r);
}

static void on_refused(struct claw_conn *c, int code, const char *text)
{
    struct claw_req *r = c->request;
    if (!r) return;
    if (code == CLAW_EMETHOD && claw_req_set_answer_header(r, CLAW_STR("allow"), CLAW_STR("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")) != 0)
        code = CLAW_EREQ_MEM; /* RFC 9110 15.5.6 wants it there */
    claw_pipeline_fail(r, code, claw_str_of(text));
}

static void on_gone(struct claw_conn *c, int code)
{
    struct claw_req *r = c->request;
    r->conn = NULL;
    r->gone = true;
    if (r->finished || r->step >= CLAW_STEP_ACCOUNT) return;
    if (r->recall && claw_recall_flies_on(r)) {
        claw_relay_drained(r);
        return;
    }
    r->error = code;
    r->status = claw_err_status(code);
    claw_account_attempt(r, code, claw_err_kind(code));
    claw_pipeline_stop(r);
    claw_pipeline_go(r, CLAW_STEP_ACCOUNT);
}

static void on_drain(struct claw_conn *c)
{
    if (!claw_recall_drained(c->request)) claw_relay_drained(c->request);
}

const struct claw_server_events claw_pipeline_server_events = {on_begin, on_head, on_body, on_done, on_refused, on_gone, on_drain};
