/* The answer towards its client: head, slices, the commit point, the end. */
#include "proxy/relay_part.h"

#include "proxy/account.h"
#include "proxy/answer.h"
#include "proxy/care.h"
#include "proxy/decision_log.h"
#include "proxy/hedge.h"
#include "proxy/pipeline.h"
#include "proxy/recall.h"
#include "proxy/transcript.h"

int claw_relay_status(const struct claw_req *r) { return r->answer_status ? r->answer_status : r->relay->head->status; }

static struct claw_str type_of(const struct claw_req *r)
{
    const struct claw_header *type = claw_head_find(r->relay->head, CLAW_H_CONTENT_TYPE);
    return r->answer_type ? claw_str_of(r->answer_type) : type ? type->value : CLAW_STR("");
}

int claw_relay_reply(struct claw_req *r, int64_t length)
{
    struct claw_relay *y = r->relay;
    struct claw_str head;
    int status = claw_relay_status(r);
    if (r->early && !y->streams) return CLAW_EBAD_RESPONSE; /* the client was promised one */
    claw_hedge_won(r);
    if (r->attempts[r->attempt].probe && status < 400) claw_care_answers(r);
    int rc = claw_answer_head(r, status, y->head, r->answer_type ? claw_str_of(r->answer_type) : CLAW_STR(""), &head);
    if (rc != 0) return rc;
    r->status = status;
    claw_pipeline_reached(r, CLAW_STEP_COMMIT);
    if (r->recall) claw_recall_begin(r, status, type_of(r), y->streams, y->readable);
    if (r->conn && !r->early) claw_conn_reply(r->conn, status, head, length);
    y->replied = true;
    return 0;
}

void claw_relay_leave_client(struct claw_req *r, bool reusable)
{
    struct claw_client *c = r->client;
    r->client = NULL;
    if (!c) return;
    if (reusable) claw_pool_release(c);
    else claw_client_close(c);
}

/* Nothing is tried again from here on: an open stream does not hold its request's body, unless a hook may still ask. Where its
 * end, which may not come, is to tell the input, what it can be counted from stays. */
static void forget_body(struct claw_req *r)
{
    if (r->candidates_n && (r->candidates[r->candidate].mask & (CLAW_MASK_RESPONSE | CLAW_MASK_EVENT))) return;
    if (r->route_mask & CLAW_MASK_LOG) return;
    if (claw_decision_log_wants(r)) return;
    claw_buf_fini(&r->out_body);
    if (!r->accounted && r->usage.input < 0 && claw_dialect_has_usage((enum claw_dialect)r->dialect) && claw_req_keep_prompt(r)) return;
    claw_buf_fini(&r->body);
    r->has_json = false;
}

/* The client takes no more for now. */
static void pause_upstream(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (y->paused || !r->client || (r->recall && claw_recall_stall(r))) return;
    y->paused = true;
    claw_client_pause(r->client);
}

void claw_relay_flush(struct claw_req *r, bool end)
{
    struct claw_relay *y = r->relay;
    if ((!r->conn && !r->recall) || !y->replied || (y->n == 0 && !end)) return;
    if (r->commit == CLAW_HELD) {
        r->commit = CLAW_COMMITTED;
        forget_body(r);
        claw_pipeline_reached(r, CLAW_STEP_STREAM);
    }
    if (r->recall) {
        claw_recall_note(r, y->slices, y->n);
        if (end) claw_recall_end(r);
        if (claw_recall_lags(r)) {
            y->n = 0;
            return;
        }
    }
    int rc = 0;
    if (r->conn) {
        for (unsigned i = 0; i < y->n; i++) r->bytes_out += y->slices[i].len;
        if (r->transcript) claw_transcript_said(r, y->slices, y->n);
        rc = claw_conn_send(r->conn, y->slices, y->n, end);
        r->sent_ms = claw_loop_now_ms(r->ctx->loop);
    }
    y->n = 0;
    if (end) {
        r->commit = CLAW_DONE;
        r->conn = NULL;
        return;
    }
    if (rc == CLAW_EAGAIN) pause_upstream(r);
}

void claw_relay_interject(struct claw_req *r, struct claw_str s)
{
    const struct claw_relay *y = r->relay;
    if (r->conn->stalled) return;
    if (y && (y->paused || y->in_over || y->n || (y->replied && !y->streams) || (r->recall && claw_recall_lags(r)))) return;
    if (!claw_recall_between(r)) return;
    uv_buf_t b = uv_buf_init((char *)s.ptr, (unsigned)s.len);
    r->bytes_out += s.len;
    r->sent_ms = claw_loop_now_ms(r->ctx->loop);
    if (claw_conn_send(r->conn, &b, 1, false) == CLAW_EAGAIN && y && y->replied) pause_upstream(r);
}

void claw_relay_answered(struct claw_req *r, bool reusable)
{
    claw_relay_leave_client(r, reusable);
    claw_pipeline_answered(r);
}

void claw_relay_end_stream(struct claw_req *r, bool reusable)
{
    claw_relay_flush(r, true);
    claw_relay_answered(r, reusable);
}

int claw_relay_redacted(struct claw_relay *y, struct claw_str *body)
{
    claw_buf_clear(&y->tmp);
    int rc = claw_buf_add_str(&y->tmp, *body);
    claw_log_redact(&y->tmp);
    *body = claw_buf_str(&y->tmp);
    return rc;
}
