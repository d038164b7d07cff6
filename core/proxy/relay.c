/* One answer on its way. `mode` says what is done with its bytes:
 *
 *   ERROR   status >= 400: kept (bounded) until the answer is over, then the retry step decides
 *   WHOLE   a `response` hook applies: kept whole, changed, sent
 *   PLAIN   kept while it is small JSON and not over, so that an upstream that dies in its middle can still be replaced;
 *           from CLAW_RELAY_ERROR_BYTES on, or when it is no JSON, relayed slice by slice
 *   EVENTS  an event stream: whole events only; held until the first one that is no comment, or longer (commit.h)
 *
 * Slices point into the loop's read buffer and are sent at the latest when the client says that the read is used up.
 */
#include "base/tokens.h"
#include "proxy/account.h"
#include "proxy/answer.h"
#include "proxy/frame.h"
#include "proxy/heartbeat.h"
#include "proxy/hedge.h"
#include "proxy/outgoing.h"
#include "proxy/pipeline.h"
#include "proxy/relay_part.h"
#include "proxy/retry_after.h"
#include "proxy/upload.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TAIL_BYTES 4096u /* of a large answer, where its usage stands */
#define STALE_MS 1000u /* an upstream that closes later had the request, and may have worked on it */
#define SAID_BYTES (32u << 10) /* of a plain answer without usage: as much is looked at */

static void buffers_fini(void *arg)
{
    struct claw_relay *y = arg;
    claw_sse_fini(&y->sse);
    claw_ndjson_fini(&y->lines);
    claw_event_stream_fini(&y->messages);
    claw_buf_fini(&y->kept);
    claw_buf_fini(&y->made);
    claw_buf_fini(&y->tmp);
    claw_said_free(y->said);
}

static struct claw_relay *relay_of(struct claw_req *r)
{
    if (r->relay) return r->relay;
    struct claw_relay *y = claw_arena_zalloc(&r->arena, sizeof *y);
    if (!y || claw_arena_defer(&r->arena, buffers_fini, y) != 0) return NULL;
    claw_sse_init(&y->sse, CLAW_RELAY_EVENT_BYTES);
    r->relay = y;
    return y;
}

void claw_relay_reset(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (!y) return;
    buffers_fini(y);
    memset(y, 0, sizeof *y);
    claw_sse_init(&y->sse, CLAW_RELAY_EVENT_BYTES);
}

/* ---- before the commit point ------------------------------------------------------------------------------------------ */

void claw_relay_failed(struct claw_req *r, int code, const char *text)
{
    struct claw_relay *y = r->relay;
    bool held = y->mode == CLAW_RELAY_ERROR;
    claw_pipeline_upstream_failed(r, code, code == CLAW_OK ? claw_relay_status(r) : 0, text, held ? claw_buf_str(&y->kept) : CLAW_STR(""),
                                  y->head ? claw_retry_after_ms(y->head, time(NULL)) : -1);
}

/* ---- the upstream's events --------------------------------------------------------------------------------------------- */

static bool may_have_body(const struct claw_req *r, const struct claw_head *h)
{
    return h->status != 204 && h->status != 304 && !claw_str_eqz(r->head->method, "HEAD");
}

static bool is_type(struct claw_str type, struct claw_str name)
{
    return type.len >= name.len && strncasecmp(type.ptr, name.ptr, name.len) == 0;
}

/* An answer that is no event stream, to be translated: one of the other framings, or whole. */
static void begin_translated(struct claw_req *r, struct claw_str type)
{
    struct claw_relay *y = r->relay;
    y->mode = CLAW_RELAY_EVENTS;
    if (is_type(type, CLAW_STR("application/x-ndjson"))) y->framing = CLAW_RELAY_NDJSON;
    else if (is_type(type, CLAW_STR("application/vnd.amazon.eventstream"))) y->framing = CLAW_RELAY_EVENT_STREAM;
    else y->mode = CLAW_RELAY_WHOLE;
    y->turned = y->mode == CLAW_RELAY_WHOLE && r->stream;
    claw_ndjson_init(&y->lines, claw_req_conf(r)->server.max_body_bytes);
    claw_event_stream_init(&y->messages, claw_req_conf(r)->server.max_body_bytes);
}

/* Until now the upstream was waited for. What comes with the same read did not take longer. */
static void hear(struct claw_req *r)
{
    if (!r->relay->heard) claw_req_waited(r);
    r->relay->heard = true;
}

static void on_head(struct claw_client *c, struct claw_head *h)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    struct claw_attempt *a = claw_account_last(r);
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    const struct claw_header *type = claw_head_find(h, CLAW_H_CONTENT_TYPE), *coding = claw_head_find(h, CLAW_H_CONTENT_ENCODING);
    hear(r);
    uint32_t now = r->wait_from_us;
    a->status = (uint16_t)h->status;
    a->ttfb_us = now;
    y->head = h;
    y->hooked = r->candidates[r->candidate].mask & CLAW_MASK_EVENT;
    bool readable = !coding || claw_str_ieq(coding->value, CLAW_STR("identity"));
    bool events = type && type->value.len >= 17 && strncasecmp(type->value.ptr, "text/event-stream", 17) == 0;
    y->readable = readable;
    y->json = readable && type && type->value.len >= 16 && strncasecmp(type->value.ptr, "application/json", 16) == 0;
    y->counts = y->json || (readable && r->sent_as == CLAW_DIALECT_OLLAMA_CHAT);
    if (h->status < 400 && !claw_upload_streams(r)) /* else it is the client's time too */
        claw_upstream_stats_ttfb(up->stats, claw_req_sent_model(r), now - a->start_us, claw_loop_now_ms(r->ctx->loop));
    if (h->status >= 400) y->mode = CLAW_RELAY_ERROR;
    else if (events && readable) y->mode = CLAW_RELAY_EVENTS;
    else if (r->translated && readable && may_have_body(r, h)) begin_translated(r, type ? type->value : CLAW_STR(""));
    else if (r->translated) y->mode = CLAW_RELAY_WHOLE; /* what cannot be read is no answer: the response step says so */
    else if (readable && r->candidates[r->candidate].mask & CLAW_MASK_RESPONSE && may_have_body(r, h)) y->mode = CLAW_RELAY_WHOLE;
    else y->mode = CLAW_RELAY_PLAIN;
    /* It was asked for as it is; passed on, it would go by the hooks that are to read it. */
    bool unread = !readable && !r->translated && h->status < 400 && may_have_body(r, h) &&
                  r->candidates[r->candidate].mask & (events ? CLAW_MASK_EVENT : CLAW_MASK_RESPONSE);
    claw_buf_init(&y->kept, y->mode == CLAW_RELAY_WHOLE ? claw_req_conf(r)->server.max_body_bytes : 0);
    if (y->mode == CLAW_RELAY_EVENTS && (r->translated || r->array)) y->sse.max = claw_req_conf(r)->server.max_body_bytes;
    y->gathers = r->translated && y->mode == CLAW_RELAY_EVENTS && !r->stream;
    y->streams = (y->mode == CLAW_RELAY_EVENTS && !y->gathers) || y->turned;
    if (r->translated) r->answer_type = y->streams ? claw_frame_type(r) : "application/json";
    else if (y->mode == CLAW_RELAY_EVENTS && r->array) r->answer_type = "application/json";
    if (y->mode == CLAW_RELAY_ERROR && claw_hedge_aside(r)) claw_relay_failed(r, CLAW_OK, ""); /* its body would decide nothing */
    else if (unread) claw_relay_no_answer(r, "the answer is compressed, though it was asked for as it is: the policies of its route could not read it");
    else if (y->mode == CLAW_RELAY_WHOLE || y->mode == CLAW_RELAY_PLAIN) claw_hedge_won(r);
}

void claw_relay_broken(struct claw_req *r, int code)
{
    claw_pipeline_fail(r, code == CLAW_ENOMEM && (r->relay->mode == CLAW_RELAY_WHOLE || r->relay->gathers) ? CLAW_EBAD_RESPONSE : code,
                       claw_str_of(code == CLAW_ENOMEM ? "the upstream's answer is too large to be held" : claw_err_text(code)));
}

/* Usage stands at the end of plain answers: of one that is not kept, the last bytes are. */
static void keep_tail(struct claw_relay *y)
{
    if (!y->counts) return;
    for (unsigned i = 0; i < y->n; i++) {
        struct claw_str s = {y->slices[i].base, y->slices[i].len};
        if (s.len > TAIL_BYTES) s = (struct claw_str){s.ptr + s.len - TAIL_BYTES, TAIL_BYTES};
        if (claw_buf_add_str(&y->tmp, s) != 0) return;
        if (claw_buf_size(&y->tmp) > TAIL_BYTES) claw_buf_take(&y->tmp, claw_buf_size(&y->tmp) - TAIL_BYTES);
    }
}

static void read_usage(struct claw_req *r, struct claw_str answer)
{
    if (r->sent_as == CLAW_DIALECT_OLLAMA_CHAT && !r->translated) claw_usage_read_ollama(answer, &r->usage);
    else claw_usage_read(answer, &r->usage);
}

static size_t gathered(const struct claw_relay *y)
{
    size_t n = 0;
    for (unsigned i = 0; i < y->n; i++) n += y->slices[i].len;
    return n;
}

static int keep_slices(struct claw_relay *y)
{
    int rc = 0;
    for (unsigned i = 0; i < y->n && rc == 0; i++) rc = claw_buf_add(&y->kept, y->slices[i].base, y->slices[i].len);
    y->n = 0;
    return rc;
}

/* Let go of a plain answer's head and what was kept of it. */
static int commit_plain(struct claw_req *r, int64_t length)
{
    struct claw_relay *y = r->relay;
    int rc = y->replied ? 0 : claw_relay_reply(r, length);
    if (rc != 0 || claw_buf_size(&y->kept) == 0) return rc;
    memmove(y->slices + 1, y->slices, y->n * sizeof *y->slices);
    struct claw_str s = claw_buf_str(&y->kept);
    y->slices[0] = uv_buf_init((char *)s.ptr, (unsigned)s.len);
    y->n++;
    return 0;
}

/* What was read of a plain answer: kept while it may still be replaced, else sent. */
static int let_go(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (y->n == 0) return 0; /* a head alone does not commit */
    if (y->json && !y->replied && claw_buf_size(&y->kept) + gathered(y) <= CLAW_RELAY_ERROR_BYTES) return keep_slices(y);
    int rc = commit_plain(r, y->head->content_length);
    if (rc != 0) return rc;
    keep_tail(y);
    claw_relay_flush(r, false);
    claw_buf_clear(&y->kept);
    return 0;
}

static void on_body(struct claw_client *c, const char *data, size_t n)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    int rc = 0;
    if (!y->replied) hear(r);
    if (y->mode == CLAW_RELAY_EVENTS) {
        rc = claw_relay_event_feed(r, data, n);
        if (rc == CLAW_ECANCELED) return;
    } else if (y->mode != CLAW_RELAY_PLAIN) {
        rc = claw_buf_add(&y->kept, data, n);
        if (rc == 0 && y->mode == CLAW_RELAY_ERROR && !y->open && claw_buf_size(&y->kept) > CLAW_RELAY_ERROR_BYTES) {
            y->open = true; /* too long to be held whole: the retry step decides while the upstream waits */
            claw_client_pause(r->client);
            claw_relay_failed(r, CLAW_OK, "");
        }
    }
    if (y->mode == CLAW_RELAY_PLAIN && rc == 0) {
        y->batch = (struct claw_str){data, n};
        rc = y->n < CLAW_RELAY_SLICES - 2 ? 0 : let_go(r);
        if (rc == 0) claw_relay_push(r, y->batch);
    }
    if (rc != 0) claw_relay_broken(r, rc);
}

static void on_batch(struct claw_client *c)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    y->heard = false;
    if (!y->head) return;
    if (y->mode == CLAW_RELAY_PLAIN) {
        int rc = let_go(r);
        if (rc != 0) claw_relay_broken(r, rc);
        return;
    }
    claw_relay_flush(r, false);
    y->batch = CLAW_STR("");
}

/* ---- the answer's end ---------------------------------------------------------------------------------------------------- */

void claw_relay_end_plain(struct claw_req *r, bool reusable)
{
    struct claw_relay *y = r->relay;
    int rc = 0;
    if (!y->replied) { /* all of it is here */
        hear(r);
        if (claw_buf_size(&y->kept) || y->n > 1) rc = keep_slices(y);
        struct claw_str all = y->n ? (struct claw_str){y->slices[0].base, y->slices[0].len} : claw_buf_str(&y->kept);
        if (rc == 0 && y->counts) read_usage(r, all);
        if (rc == 0 && y->json && claw_envelope_is_error(CLAW_STR(""), all)) rc = claw_relay_redacted(y, &all);
        int64_t length = (int64_t)all.len;
        if (all.len == 0 && (y->head->content_length > 0 || claw_str_eqz(r->head->method, "HEAD"))) length = y->head->content_length;
        claw_account_settle(r);
        if (rc == 0) rc = claw_relay_reply(r, length);
        y->slices[0] = uv_buf_init((char *)all.ptr, (unsigned)all.len);
        y->n = all.len > 0;
    } else if (y->counts) {
        keep_tail(y);
        read_usage(r, claw_buf_str(&y->tmp));
    }
    if (rc != 0) {
        claw_relay_broken(r, rc);
        return;
    }
    claw_relay_flush(r, true);
    claw_relay_answered(r, reusable);
}

void claw_relay_end_whole(struct claw_req *r, bool reusable)
{
    if (r->relay->counts) read_usage(r, claw_buf_str(&r->relay->kept));
    claw_req_waited(r);
    claw_relay_leave_client(r, reusable);
    claw_pipeline_reached(r, CLAW_STEP_BACK);
}

void claw_relay_no_answer(struct claw_req *r, const char *why)
{
    r->relay->mode = CLAW_RELAY_ERROR;
    claw_relay_failed(r, r->answer_status ? CLAW_OK : CLAW_EBAD_RESPONSE, why);
}

struct claw_str claw_relay_whole(const struct claw_req *r) { return claw_buf_str(&r->relay->kept); }

void claw_relay_send_whole(struct claw_req *r, struct claw_str body)
{
    struct claw_relay *y = r->relay;
    int rc = 0;
    if (r->answer_status >= 400) rc = claw_relay_redacted(y, &body); /* an error that came with status 200 */
    claw_account_settle(r);
    if (rc == 0) rc = claw_relay_reply(r, (int64_t)body.len);
    if (rc != 0) {
        claw_relay_broken(r, rc);
        return;
    }
    y->slices[0] = uv_buf_init((char *)body.ptr, (unsigned)body.len);
    y->n = body.len > 0;
    claw_relay_flush(r, true);
    claw_pipeline_answered(r);
}

static void on_done(struct claw_client *c, bool reusable)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    switch (y->mode) {
    case CLAW_RELAY_ERROR: {
        bool told = y->open;
        y->open = false;
        claw_relay_leave_client(r, reusable);
        if (!told) claw_relay_failed(r, CLAW_OK, "");
        return;
    }
    case CLAW_RELAY_WHOLE:
        if (y->turned) claw_relay_event_end_turned(r, reusable);
        else claw_relay_end_whole(r, reusable);
        return;
    case CLAW_RELAY_EVENTS: claw_relay_event_end(r, reusable); return;
    default: claw_relay_end_plain(r, reusable); return;
    }
}

static void on_fail(struct claw_client *c, int code, const char *text)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    bool stale = code == CLAW_EUPSTREAM_EOF && c->reused && !c->any_byte && !r->retried_stale && !claw_hedge_aside(r) &&
                 claw_loop_now_ms(r->ctx->loop) - c->last_ms < STALE_MS;
    r->client = NULL; /* it is closed */
    if (stale) { /* the upstream closed a kept connection just as it was used: that says nothing of the upstream */
        r->retried_stale = true;
        claw_pool_lease(r->gen->endpoints[r->candidates[r->candidate].upstream], &r->lease, claw_req_upstream(r)->conf->connect_timeout_ms, true);
        return;
    }
    if (y->open) { /* its long error answer broke off: what the retry step decides on stays */
        y->open = false;
        y->broke = true;
        return;
    }
    if (!y->replied) claw_req_waited(r);
    if (r->commit != CLAW_HELD || y->replied) claw_pipeline_fail(r, code, claw_str_of(text));
    else claw_relay_failed(r, code, text);
}

static void on_drain(struct claw_client *c)
{
    if (claw_upload_streams(c->arg)) claw_upload_drained(c->arg);
}

const struct claw_client_events claw_relay_client_events = {on_head, on_body, on_batch, on_done, on_fail, on_drain};

/* ---- what the pipeline calls ------------------------------------------------------------------------------------------------ */

void claw_relay_start(struct claw_req *r, struct claw_client *c)
{
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    unsigned route_ms = r->route >= 0 ? claw_req_conf(r)->routes[r->route].timeout_ms : 0;
    struct claw_attempt *a = claw_account_last(r);
    uv_buf_t out[1 + CLAW_OUTGOING_SLICES];
    size_t body;
    struct claw_str head;
    r->client = c;
    claw_relay_reset(r);
    struct claw_relay *y = relay_of(r);
    unsigned n = y ? claw_outgoing_body(r, out + 1, &body) : 0;
    bool streams = claw_upload_streams(r);
    if (!y || (body && n == 0) || claw_req_write_head(r, streams ? claw_upload_size(r, body) : body, &head) != 0 || claw_req_sign_head(r, out + 1, n, &head) != 0) {
        claw_pipeline_fail(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
        return;
    }
    out[0] = uv_buf_init((char *)head.ptr, (unsigned)head.len);
    a->reused = c->reused;
    if (!c->reused) claw_req_waited(r); /* a kept connection was there at once */
    claw_client_exchange(c, &r->arena, claw_str_eqz(r->head->method, "HEAD"), route_ms ? route_ms : up->conf->first_byte_timeout_ms,
                         up->conf->stall_timeout_ms, &claw_relay_client_events, r);
    y->asked = true;
    claw_heartbeat_begin(r);
    int rc = claw_client_write(c, out, streams ? 1 : n + 1);
    if (streams) claw_upload_open(r, out + 1, n);
    (void)rc; /* queued: the body is ours until the answer; broken: on_fail tells */
    r->wait_from_us = claw_req_elapsed_us(r);
}

/* The client has the head of a stream already: its error is an event, and the end. */
static void release_event(struct claw_req *r, struct claw_str body)
{
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_buf event;
    char text[64];
    bool typed = r->dialect == CLAW_DIALECT_ANTHROPIC_MESSAGES || r->dialect == CLAW_DIALECT_OPENAI_RESPONSES;
    int n = snprintf(text, sizeof text, "the upstream answered with status %d", claw_relay_status(r));
    char *copy = claw_arena_dup(&r->arena, text, (size_t)n);
    struct claw_str why = copy ? (struct claw_str){copy, (size_t)n} : CLAW_STR("");
    claw_buf_init(&event, 0);
    if (!r->conn || claw_json_scan(body, &r->arena, &top, &err) != 0 || claw_frame_write(r, &event, typed ? CLAW_STR("error") : CLAW_STR(""), body) != 0) {
        claw_buf_fini(&event);
        claw_pipeline_fail(r, CLAW_EBAD_RESPONSE, why);
        return;
    }
    struct claw_conn *c = r->conn;
    uv_buf_t b = uv_buf_init(event.data, (unsigned)claw_buf_size(&event));
    r->error = CLAW_ESTREAM_ERROR;
    r->error_text = why;
    r->bytes_out += b.len;
    r->commit = CLAW_DONE;
    r->conn = NULL;
    int rc = claw_conn_send(c, &b, 1, true);
    (void)rc; /* queued or broken: the connection looks after itself once the answer ended */
    claw_buf_fini(&event);
    claw_pipeline_answered(r);
}

/* What is held of it is all that is looked at. */
static void release_translated(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    struct claw_policy_error err;
    struct claw_str out = {NULL, 0};
    if (y->open) claw_relay_leave_client(r, false);
    y->open = false;
    int rc = r->gen->ops->error(r->gen->policy, r, claw_relay_status(r), claw_buf_str(&y->kept), &out, &err);
    if (rc == CLAW_EPOLICY) claw_pipeline_policy_failed(r, &err);
    else if (rc != 0) claw_relay_broken(r, rc);
    else if (r->early) release_event(r, out);
    else claw_relay_send_whole(r, out);
}

void claw_relay_release_held(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (y->broke) {
        claw_pipeline_fail(r, CLAW_EUPSTREAM_EOF, claw_str_of(claw_err_text(CLAW_EUPSTREAM_EOF)));
        return;
    }
    claw_log_redact(&y->kept); /* providers quote the key they refuse */
    if (r->translated) {
        release_translated(r);
        return;
    }
    struct claw_str body = claw_buf_str(&y->kept);
    if (r->early) {
        if (y->open) claw_relay_leave_client(r, false);
        y->open = false;
        release_event(r, body);
        return;
    }
    if (!y->open) claw_account_settle(r);
    if (claw_relay_reply(r, y->open ? -1 : (int64_t)body.len) != 0) { /* a long one's length is no more what its head says */
        claw_relay_broken(r, CLAW_EREQ_MEM);
        return;
    }
    if (y->open) {
        y->open = false;
        y->mode = CLAW_RELAY_PLAIN;
        claw_relay_push(r, body);
        claw_buf_clear(&y->kept);
        if (!y->paused) claw_client_resume(r->client);
        return;
    }
    y->slices[0] = uv_buf_init((char *)body.ptr, (unsigned)body.len);
    y->n = body.len > 0;
    claw_relay_flush(r, true);
    claw_pipeline_answered(r);
}

bool claw_relay_spoke(const struct claw_req *r)
{
    const struct claw_relay *y = r->relay;
    return y && (y->replied || (y->head && y->mode != CLAW_RELAY_EVENTS));
}

bool claw_relay_open(const struct claw_req *r) { return r->relay && r->relay->open; }

bool claw_relay_served(const struct claw_req *r)
{
    const struct claw_relay *y = r->relay;
    if (!y || !y->asked || r->answer_status >= 400) return false;
    return y->head ? y->mode != CLAW_RELAY_ERROR && y->head->status < 400 : r->gone;
}

bool claw_relay_says_more(const struct claw_req *r) { return r->relay && r->relay->said; }

static int64_t plain_said(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    struct claw_tokens_tally t = {0};
    bool all = y->mode == CLAW_RELAY_WHOLE || !y->replied;
    struct claw_str seen = claw_buf_str(all ? &y->kept : &y->tmp);
    if (seen.len == 0 && all && y->n) seen = (struct claw_str){y->slices[0].base, y->slices[0].len};
    uint64_t size = all ? seen.len : r->bytes_out;
    if (seen.len > SAID_BYTES) seen.len = SAID_BYTES;
    claw_tokens_add_answer(&t, seen, false);
    if (seen.len && size > seen.len) t.milli = (int64_t)((double)t.milli * (double)size / (double)seen.len);
    return claw_tokens_tallied(&t);
}

int64_t claw_relay_said(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (y->mode == CLAW_RELAY_EVENTS || y->turned) {
        claw_relay_event_told(r);
        return claw_said_tokens(y->said);
    }
    return y->head && y->counts && r->usage.output < 0 ? plain_said(r) : 0;
}

bool claw_relay_paused(const struct claw_req *r) { return r->relay && r->relay->paused; }

void claw_relay_drained(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (!y || !y->paused || !r->client) return;
    y->paused = false;
    claw_client_resume(r->client);
}

void claw_relay_cut(struct claw_req *r, int code, struct claw_str text)
{
    struct claw_relay *y = r->relay;
    struct claw_conn *c = r->conn;
    r->conn = NULL;
    r->commit = CLAW_DONE;
    if (!c) return;
    if (y && (r->early || (y->mode == CLAW_RELAY_EVENTS && y->replied)) && !y->in_over) {
        struct claw_buf json, event;
        struct claw_str type;
        struct claw_envelope e = claw_answer_envelope_of(r, claw_err_status(code), text, claw_err_type(code), claw_err_kind(code));
        claw_buf_init(&json, 0);
        claw_buf_init(&event, 0);
        int wrote = claw_envelope_write_event(&json, &e, &type);
        claw_log_redact(&json);
        if (wrote == 0 && r->array) wrote = claw_buf_add_fmt(&event, "%s%.*s]", y->listed ? "," : "[", CLAW_STR_FMT(claw_buf_str(&json)));
        else if (wrote == 0) wrote = claw_frame_write(r, &event, type, claw_buf_str(&json));
        if (wrote == 0) {
            struct claw_str s = claw_buf_str(&event);
            if (!y->replied) y->n = 0; /* what an upstream was heard saying before it failed */
            y->slices[y->n++] = uv_buf_init((char *)s.ptr, (unsigned)s.len);
            int rc = claw_conn_send(c, y->slices, y->n, false);
            (void)rc; /* the connection ends anyway */
        }
        claw_buf_fini(&json);
        claw_buf_fini(&event);
    }
    claw_conn_cut(c);
}
