/* A stream's events on their way: read for usage, given to hooks and the translation, written to the client. */
#include "proxy/relay_part.h"

#include "proxy/account.h"
#include "proxy/answer.h"
#include "proxy/frame.h"
#include "proxy/hedge.h"
#include "proxy/pipeline.h"
#include "proxy/recall.h"

#define HELD_EVENTS_BYTES (64u << 10)

/* Does the stream begin with an error instead of an answer? */
static bool is_error_event(struct claw_req *r, struct claw_str type, struct claw_str data)
{
    struct claw_json_top top;
    struct claw_json_err err;
    if (claw_str_eqz(type, "error")) return true;
    if (claw_str_find(data, CLAW_STR("error")) < 0) return false;
    if (claw_json_scan(data, &r->arena, &top, &err) != 0) return false;
    struct claw_json_value e = claw_json_top_get(&top, CLAW_STR("error"));
    return e.type == CLAW_JSON_OBJECT || e.type == CLAW_JSON_STRING;
}

/* It does: the retry step decides on what was read of it. CLAW_OK: r->answer_status says as what it counts. */
static int fail_head(struct claw_req *r, int code, struct claw_str type, struct claw_str data, const char *text)
{
    struct claw_relay *y = r->relay;
    claw_buf_clear(&y->kept);
    int rc = claw_sse_write(&y->kept, type, data);
    y->mode = CLAW_RELAY_ERROR;
    if (code == CLAW_OK) r->answer_type = "application/json";
    (void)rc; /* only what the retry decision looks at */
    claw_relay_failed(r, code, text);
    return CLAW_ECANCELED;
}

/* The head and what was held go before the first event; once. */
static int begin_events(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (y->replied) return 0;
    int rc = claw_relay_reply(r, -1);
    if (rc != 0) return rc;
    if (r->caller) claw_soft_stop_begin(&y->soft, r);
    if (!y->watch.begun) claw_commit_begin(&y->watch, r);
    claw_relay_push(r, claw_buf_str(&y->kept));
    claw_buf_clear(&y->kept);
    return 0;
}

/* A policy wants more of it said before the client gets any: does an event wait? For no longer than the head itself may take. Never of an
 * answer that is here as a whole. */
static bool waits(struct claw_req *r, struct claw_str data)
{
    struct claw_relay *y = r->relay;
    if (y->replied || !r->commit_at || !y->streams || !r->client) return false;
    claw_hedge_won(r);
    return !claw_commit_enough(&y->watch, r, data) && claw_req_elapsed_us(r) - claw_account_last(r)->start_us < (uint64_t)r->client->first_byte_ms * 1000;
}

/* Hold what the client would get. */
static int hold(struct claw_req *r, struct claw_str bytes)
{
    struct claw_relay *y = r->relay;
    y->holds = true;
    int rc = claw_buf_add_str(&y->kept, bytes);
    return rc == 0 && claw_buf_size(&y->kept) > HELD_EVENTS_BYTES ? begin_events(r) : rc;
}

/* Nothing more is to come that it could wait for. */
static int let_go(struct claw_req *r)
{
    const struct claw_relay *y = r->relay;
    return y->holds && !y->replied ? begin_events(r) : 0;
}

/* Add an event as the client gets it to `made`. */
static int write_event(struct claw_req *r, struct claw_str type, struct claw_str data)
{
    struct claw_relay *y = r->relay;
    int rc = r->array ? claw_buf_add_z(&y->made, y->listed ? ",\r\n" : "[") : 0;
    y->listed = true;
    return rc == 0 ? claw_frame_write(r, &y->made, type, data) : rc;
}

/* Is the client's budget reached? Then the stream ends behind this event, and the upstream is left. */
static int soft_stop(struct claw_req *r, struct claw_str event)
{
    struct claw_relay *y = r->relay;
    struct claw_policy_event last[CLAW_SOFT_STOP_EVENTS];
    unsigned n = claw_soft_stop_end(&y->soft, r, event, claw_said_tokens(y->said), last);
    if (n == 0) return 0;
    claw_relay_flush(r, false);
    claw_buf_clear(&y->made);
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) rc = write_event(r, last[i].type, last[i].data);
    if (rc == 0 && r->array) rc = claw_buf_add_z(&y->made, "]");
    if (rc != 0) return rc;
    claw_relay_push(r, claw_buf_str(&y->made));
    if (r->client) claw_client_cancel(r->client);
    r->client = NULL;
    claw_relay_end_stream(r, false);
    return CLAW_ECANCELED;
}

/* Only until the first one is found, and only where there are tools. */
static void look_for_calls(struct claw_req *r, struct claw_str event)
{
    struct claw_commit_watch *w = &r->relay->watch;
    if (!w->mark.len || !claw_commit_calls(w, event)) return;
    r->tool_emitted = true;
    w->mark = CLAW_STR("");
}

static int push_raw(struct claw_req *r, struct claw_str raw)
{
    struct claw_relay *y = r->relay;
    look_for_calls(r, raw);
    if (!claw_envelope_raw_is_error(raw)) {
        claw_relay_push(r, raw);
        return claw_soft_stop_looks(&y->soft, raw.len) ? soft_stop(r, raw) : 0;
    }
    claw_buf_clear(&y->made); /* what was cut from it before has left with its push */
    int rc = claw_buf_add_str(&y->made, raw);
    claw_log_redact(&y->made);
    if (rc == 0) claw_relay_push(r, claw_buf_str(&y->made));
    return rc;
}

/* `raw`, whose data may say that it waits with the head. */
static int push_first(struct claw_req *r, struct claw_str data, struct claw_str raw)
{
    if (waits(r, data)) return hold(r, raw);
    int rc = begin_events(r);
    return rc == 0 ? push_raw(r, raw) : rc;
}

/* A chunk that the client did not ask for is only for the cache. */
static int hide_usage(struct claw_req *r, struct claw_str raw)
{
    int rc = let_go(r);
    if (rc != 0 || !r->recall || !r->relay->replied || !raw.ptr) return rc;
    claw_relay_flush(r, false); /* what stands before it there */
    uv_buf_t one = uv_buf_init((char *)raw.ptr, (unsigned)raw.len);
    claw_recall_note(r, &one, 1);
    return 0;
}

/* What an event hook or the translation made of an event. */
static int push_events(struct claw_req *r, const struct claw_policy_event *events, int n)
{
    struct claw_relay *y = r->relay;
    bool error = false, hides = r->translated && claw_recall_hides_usage(r), held = n > 0 && !y->replied;
    for (int i = 0; i < n && held; i++) held = !(hides && claw_usage_only(events[i].data)) && waits(r, events[i].data);
    int rc = n > 0 && !held ? begin_events(r) : 0;
    claw_buf_clear(&y->made); /* what was cut from it before has left with its push */
    for (int i = 0; i < n && rc == 0; i++) {
        if (hides && claw_usage_only(events[i].data)) { /* made for the cache */
            claw_relay_push(r, claw_buf_str(&y->made));
            claw_relay_flush(r, false);
            claw_buf_clear(&y->made);
            rc = write_event(r, events[i].type, events[i].data);
            if (rc == 0) rc = hide_usage(r, claw_buf_str(&y->made));
            claw_buf_clear(&y->made);
            continue;
        }
        error |= claw_envelope_is_error(events[i].type, events[i].data);
        if (!held) look_for_calls(r, events[i].data);
        rc = write_event(r, events[i].type, events[i].data);
    }
    if (error) claw_log_redact(&y->made);
    if (rc == 0 && held) return hold(r, claw_buf_str(&y->made));
    if (rc == 0) claw_relay_push(r, claw_buf_str(&y->made));
    return rc == 0 && n > 0 && claw_soft_stop_looks(&y->soft, events[n - 1].data.len) ? soft_stop(r, events[n - 1].data) : rc;
}

/* `raw` is how it came, when the client may get that. */
static int run_event_hook(struct claw_req *r, struct claw_str type, struct claw_str data, struct claw_str raw)
{
    struct claw_relay *y = r->relay;
    struct claw_policy_error err;
    const struct claw_policy_event *out = NULL, same = {type, data};
    int n = -1, rc = r->gen->ops->event(r->gen->policy, r, type, data, &out, &n, &err);
    if (rc == CLAW_EPOLICY) {
        claw_pipeline_policy_failed(r, &err);
        return CLAW_ECANCELED;
    }
    if (rc == CLAW_ESTREAM_ERROR || rc == CLAW_EUPSTREAM_EOF || rc == CLAW_EBAD_RESPONSE) {
        int code = rc == CLAW_ESTREAM_ERROR && r->answer_status ? CLAW_OK : rc;
        if (!y->replied && r->commit == CLAW_HELD) return fail_head(r, code, CLAW_STR("error"), data.ptr ? data : CLAW_STR(""), err.message.ptr);
        claw_pipeline_fail(r, rc, err.message);
        return CLAW_ECANCELED;
    }
    if (rc != 0) return rc;
    if (n < 0 && data.ptr == NULL) return 0;
    if (n < 0 && !raw.ptr) return push_events(r, &same, 1);
    if (n > 0 || (n == 0 && r->translated)) return push_events(r, out, n);
    if (n == 0 && r->commit_at) y->holds = true;
    if (n == 0) return y->holds ? 0 : begin_events(r);
    return push_first(r, data, raw);
}

bool claw_relay_event_told(struct claw_req *r)
{
    bool anew = r->usage.told.anew;
    if (anew) claw_said_clear(r->relay->said);
    r->usage.told.anew = false;
    return anew;
}

static bool read_event(struct claw_req *r, struct claw_str event)
{
    claw_relay_event_told(r); /* by a hook */
    bool any = claw_usage_read(event, &r->usage);
    if (!claw_relay_event_told(r)) claw_said_add(&r->relay->said, event, r->sent_as == CLAW_DIALECT_OPENAI_RESPONSES);
    return any;
}

/* What comes before the answer waits with its head, so that another upstream may still give it; but not for longer than the head itself may
 * take. Then the client sees that it goes on, and how long it stays is up to it; one that cannot be shown that has waited in vain. */
static int outstay(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    bool begun = y->replied || y->gathered || !r->client;
    if (begun || claw_req_elapsed_us(r) - claw_account_last(r)->start_us < (uint64_t)r->client->first_byte_ms * 1000) return 0;
    if (y->holds) return begin_events(r);
    if (y->streams && claw_frame_takes_comments(r)) {
        int rc = claw_buf_size(&y->kept) ? 0 : claw_buf_add_z(&y->kept, ": waiting for the upstream\n");
        return rc == 0 ? begin_events(r) : rc;
    }
    return fail_head(r, CLAW_EFIRST_BYTE_TIMEOUT, CLAW_STR(""), CLAW_STR(""), claw_err_text(CLAW_EFIRST_BYTE_TIMEOUT));
}

/* An event with data, framed in any way. raw.ptr NULL: it goes out written anew. */
static int take_event(struct claw_req *r, struct claw_str type, struct claw_str data, struct claw_str raw)
{
    struct claw_relay *y = r->relay;
    bool held = r->commit == CLAW_HELD && !y->replied;
    /* Of a translated one the translation knows. */
    if (held && !r->translated && is_error_event(r, type, data))
        return fail_head(r, CLAW_ESTREAM_ERROR, type, data, claw_err_text(CLAW_ESTREAM_ERROR));
    if (held && !r->translated) claw_hedge_won(r);
    if (y->gathers && (y->gathered += data.len) > claw_req_conf(r)->server.max_body_bytes) return CLAW_ENOMEM;
    if (read_event(r, data) && r->hides_usage && claw_usage_only(data)) return hide_usage(r, raw);
    if (r->candidates[r->candidate].mask & CLAW_MASK_EVENT) {
        int rc = run_event_hook(r, type, data, raw);
        return rc == 0 && held ? outstay(r) : rc; /* it said nothing that the client would have got */
    }
    return raw.ptr ? push_first(r, data, raw) : push_events(r, &(struct claw_policy_event){type, data}, 1);
}

static int hold_comment(struct claw_req *r, struct claw_str raw)
{
    struct claw_relay *y = r->relay;
    int rc = outstay(r);
    if (rc == 0 && y->replied) claw_relay_push(r, raw);
    if (rc != 0 || y->replied || !claw_frame_takes_comments(r)) return rc;
    return claw_buf_size(&y->kept) + raw.len > HELD_EVENTS_BYTES ? 0 : claw_buf_add_str(&y->kept, raw);
}

static int on_event(void *arg, const struct claw_sse_event *ev)
{
    struct claw_req *r = arg;
    struct claw_relay *y = r->relay;
    struct claw_sse_fields f;
    bool held = r->commit == CLAW_HELD && !y->replied;
    /* A byte order mark: the other stream's, or no more at the beginning. */
    if ((r->translated || r->early) && claw_str_eqz(ev->raw, "\xEF\xBB\xBF")) return 0;
    if (!ev->has_data && held) return hold_comment(r, ev->raw);
    if (!ev->has_data) {
        if (claw_frame_takes_comments(r)) claw_relay_push(r, ev->raw);
        return 0;
    }
    if (held || r->array || r->candidates[r->candidate].mask & CLAW_MASK_EVENT) {
        int rc = claw_sse_parse(ev->raw, &y->tmp, &f);
        return rc == 0 ? take_event(r, f.type, f.data, r->array || r->translated ? (struct claw_str){NULL, 0} : ev->raw) : rc;
    }
    if (read_event(r, ev->raw) && r->hides_usage && claw_usage_only(ev->raw)) return hide_usage(r, ev->raw);
    return push_raw(r, ev->raw);
}

static int on_line(void *arg, struct claw_str line) { return take_event(arg, CLAW_STR(""), line, (struct claw_str){NULL, 0}); }

static int on_message(void *arg, const struct claw_event_stream_message *m)
{
    return take_event(arg, m->exception_type.len ? m->exception_type : m->event_type, m->payload, (struct claw_str){NULL, 0});
}

static int on_over(void *arg, struct claw_str bytes, bool last)
{
    struct claw_req *r = arg;
    struct claw_relay *y = r->relay;
    int rc = begin_events(r);
    if (rc != 0) return rc;
    y->in_over = !last;
    claw_relay_push(r, bytes);
    return 0;
}

/* ---- a stream's bytes and its end ------------------------------------------------------------------------------------- */

/* The time since the events before these. */
static void note_gap(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    uint64_t now = claw_loop_clock_us();
    if (y->read_us) claw_metrics_observe(r->ctx->metrics, CLAW_METRIC_GAP_SECONDS, now - y->read_us, 1, &claw_req_upstream(r)->conf->name);
    y->read_us = now;
}

int claw_relay_event_feed(struct claw_req *r, const char *data, size_t n)
{
    struct claw_relay *y = r->relay;
    if (!y->batch.len) note_gap(r); /* once a read */
    const struct claw_sse_sink sink = {on_event, r->translated || r->array ? NULL : on_over, r};
    y->batch = (struct claw_str){data, n};
    if (y->framing == CLAW_RELAY_SSE) return claw_sse_feed(&y->sse, data, n, &sink);
    if (y->framing == CLAW_RELAY_NDJSON) return claw_ndjson_feed(&y->lines, data, n, on_line, r);
    return claw_event_stream_feed(&y->messages, data, n, on_message, r);
}

/* What a stream that is not passed on as it came still has to say at its end. */
static int end_made(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    struct claw_str none = {NULL, 0};
    int rc = y->framing == CLAW_RELAY_NDJSON ? claw_ndjson_end(&y->lines, on_line, r) : 0;
    if (rc == 0 && r->translated) rc = run_event_hook(r, CLAW_STR(""), none, none);
    if (rc == 0) rc = let_go(r);
    if (rc != 0 || !r->array || !y->replied) return rc;
    claw_relay_push(r, y->listed ? CLAW_STR("]") : CLAW_STR("[]"));
    return 0;
}

static void end_gathered(struct claw_req *r, bool reusable)
{
    int rc = end_made(r);
    if (rc == CLAW_ECANCELED) return;
    if (rc != 0) {
        claw_relay_broken(r, rc);
        return;
    }
    claw_hedge_won(r);
    r->relay->mode = CLAW_RELAY_WHOLE;
    claw_buf_clear(&r->relay->kept); /* comments */
    claw_relay_end_whole(r, reusable);
}

void claw_relay_event_end_turned(struct claw_req *r, bool reusable)
{
    struct claw_relay *y = r->relay;
    struct claw_buf all = y->kept;
    claw_buf_init(&y->kept, 0);
    if (y->json) read_event(r, claw_buf_str(&all));
    claw_req_waited(r);
    claw_relay_leave_client(r, reusable);
    y->mode = CLAW_RELAY_EVENTS;
    r->turned = true;
    int rc = run_event_hook(r, CLAW_STR(""), claw_buf_str(&all), (struct claw_str){NULL, 0});
    r->turned = false;
    claw_buf_fini(&all);
    if (rc == CLAW_ECANCELED) return;
    if (rc == 0) rc = begin_events(r);
    if (rc != 0) {
        claw_relay_broken(r, rc);
        return;
    }
    if (r->array) claw_relay_push(r, y->listed ? CLAW_STR("]") : CLAW_STR("[]"));
    claw_relay_end_stream(r, reusable);
}

void claw_relay_event_end(struct claw_req *r, bool reusable)
{
    struct claw_relay *y = r->relay;
    if (y->gathers) {
        end_gathered(r, reusable);
        return;
    }
    struct claw_str rest = claw_sse_rest(&y->sse);
    bool made = r->translated || r->array;
    if (made) {
        int rc = end_made(r);
        if (rc == CLAW_ECANCELED) return;
        if (rc != 0) {
            claw_relay_broken(r, rc);
            return;
        }
    }
    int rc = let_go(r);
    if (rc != 0) {
        claw_relay_broken(r, rc);
        return;
    }
    if (!y->replied) {
        if (rest.len == 0 && claw_buf_size(&y->kept) == 0 && y->head->content_length == 0) {
            claw_relay_end_plain(r, reusable);
            return;
        }
        claw_relay_leave_client(r, reusable);
        claw_relay_failed(r, CLAW_EBAD_RESPONSE, "the stream ended before its first event");
        return;
    }
    /* A last line without its empty line is dropped by every client, but it is not ours to drop; unless a hook that
     * could not see it is there to keep things back. */
    if (!made && !y->hooked) claw_relay_push(r, rest);
    claw_relay_end_stream(r, reusable);
}
