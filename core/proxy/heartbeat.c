#include "proxy/heartbeat.h"

#include "proxy/answer.h"
#include "proxy/frame.h"
#include "proxy/pipeline.h"
#include "proxy/relay.h"
#include "proxy/upload.h"

static struct claw_str beat_of(const struct claw_req *r)
{
    if (r->array) return CLAW_STR("");
    switch ((enum claw_dialect)r->dialect) {
    case CLAW_DIALECT_ANTHROPIC_MESSAGES: return CLAW_STR("event: ping\ndata: {\"type\": \"ping\"}\n\n");
    case CLAW_DIALECT_OPENAI_CHAT:
    case CLAW_DIALECT_OPENAI_COMPLETIONS:
    case CLAW_DIALECT_OPENAI_RESPONSES: return CLAW_STR(": keep-alive\n");
    default: return CLAW_STR("");
    }
}

/* The client gets a head before any upstream has one. Who it will be, and what it will cost, is not known yet. */
static bool reply_early(struct claw_req *r)
{
    struct claw_str head;
    if (!claw_req_conf(r)->server.heartbeat_before_answer || claw_upload_streams(r)) return false;
    r->early = true;
    if (claw_answer_head(r, 200, NULL, claw_str_of(claw_frame_type(r)), &head) != 0) {
        r->early = false;
        return false;
    }
    r->status = 200;
    claw_conn_reply(r->conn, 200, head, -1);
    return true;
}

static void on_due(struct claw_timer *t)
{
    struct claw_req *r = t->arg;
    unsigned every_ms = claw_req_conf(r)->server.heartbeat_ms;
    uint64_t now = claw_loop_now_ms(r->ctx->loop), due = r->sent_ms + every_ms;
    if (!r->conn || r->finished || r->commit == CLAW_DONE) return;
    claw_timer_start(r->ctx->loop, t, now < due ? due - now : every_ms);
    if (now < due || (!r->conn->replied && !reply_early(r))) return;
    claw_relay_interject(r, beat_of(r));
}

void claw_heartbeat_init(struct claw_req *r) { claw_timer_init(&r->heartbeat, on_due, r); }

void claw_heartbeat_begin(struct claw_req *r)
{
    unsigned every_ms = claw_req_conf(r)->server.heartbeat_ms;
    if (!r->stream || !every_ms || claw_timer_running(&r->heartbeat) || !r->conn || beat_of(r).len == 0) return;
    r->sent_ms = claw_loop_now_ms(r->ctx->loop);
    claw_timer_start(r->ctx->loop, &r->heartbeat, every_ms);
}
