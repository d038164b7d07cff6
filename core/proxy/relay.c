/* One answer on its way. `mode` says what is done with its bytes:
 *
 *   ERROR   status >= 400: kept (bounded) until the answer is over, then the retry step decides
 *   WHOLE   a `response` hook applies: kept whole, changed, sent
 *   PLAIN   kept while it is small JSON and not over, so that an upstream that dies in its middle can still be replaced;
 *           from CLAW_RELAY_ERROR_BYTES on, or when it is no JSON, relayed slice by slice
 *   EVENTS  an event stream: whole events only; held until the first one that is no comment
 *
 * Slices point into the loop's read buffer and are sent at the latest when the client says that the read is used up.
 */
#include "proxy/relay.h"

#include "http/event_stream.h"
#include "http/ndjson.h"
#include "proxy/account.h"
#include "proxy/answer.h"
#include "proxy/decision_log.h"
#include "proxy/hedge.h"
#include "proxy/outgoing.h"
#include "proxy/pipeline.h"

#include <stdlib.h>
#include <time.h>

#define SLICES 8u
#define TAIL_BYTES 4096u /* of a large answer, where its usage stands */
#define HELD_EVENTS_BYTES (64u << 10)

enum mode { ERROR, WHOLE, PLAIN, EVENTS };
enum framing { SSE, NDJSON, EVENT_STREAM }; /* how an upstream cuts its stream into events; the latter two only translated */

struct claw_relay {
    enum mode mode;
    bool json, replied, paused, in_over;
    bool hooked;               /* an event hook sees what comes */
    bool turned;               /* WHOLE: it goes to the client as a stream */
    bool gathers;              /* EVENTS: they become one answer, for a client that asked for no stream */
    size_t gathered;           /* … bytes of it so far */
    bool open;                 /* ERROR: a long one, whose upstream is paused while the retry step decides */
    enum framing framing;
    bool listed;               /* the JSON array the client gets has its first event */
    bool broke;                /* … and broke off meanwhile */
    unsigned n;                /* slices */
    struct claw_str batch;     /* what is being read: slices inside it live until the batch ends */
    uv_buf_t slices[SLICES];
    struct claw_head *head;    /* the upstream's */
    struct claw_sse sse;
    struct claw_ndjson lines;
    struct claw_event_stream messages;
    struct claw_buf kept;      /* held bytes */
    struct claw_buf made;      /* what event hooks wrote in this batch */
    struct claw_buf tmp;
};

static void buffers_fini(void *arg)
{
    struct claw_relay *y = arg;
    claw_sse_fini(&y->sse);
    claw_ndjson_fini(&y->lines);
    claw_event_stream_fini(&y->messages);
    claw_buf_fini(&y->kept);
    claw_buf_fini(&y->made);
    claw_buf_fini(&y->tmp);
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

/* ---- to the client ------------------------------------------------------------------------------------------------- */

/* The answer's, or that of the error that stands in its place. */
static int status_of(const struct claw_req *r) { return r->answer_status ? r->answer_status : r->relay->head->status; }

static int reply(struct claw_req *r, int64_t length)
{
    struct claw_relay *y = r->relay;
    struct claw_str head;
    int status = status_of(r);
    claw_hedge_won(r);
    int rc = claw_answer_head(r, status, y->head, r->answer_type ? claw_str_of(r->answer_type) : CLAW_STR(""), &head);
    if (rc != 0) return rc;
    r->status = status;
    claw_pipeline_reached(r, CLAW_STEP_COMMIT);
    claw_conn_reply(r->conn, status, head, length);
    y->replied = true;
    return 0;
}

/* The upstream's connection goes back to its pool or is closed; the exchange is over. */
static void leave_client(struct claw_req *r, bool reusable)
{
    struct claw_client *c = r->client;
    r->client = NULL;
    if (!c) return;
    if (reusable) claw_pool_release(c);
    else claw_client_close(c);
}

/* Nothing is tried again from here on: an open stream does not hold its request's body, unless a hook may still ask. */
static void forget_body(struct claw_req *r)
{
    if (r->candidates_n && (r->candidates[r->candidate].mask & (CLAW_MASK_RESPONSE | CLAW_MASK_EVENT))) return;
    if (r->route_mask & CLAW_MASK_LOG) return;
    if (claw_decision_log_wants(r)) return;
    claw_buf_fini(&r->body);
    claw_buf_fini(&r->out_body);
    r->has_json = false;
}

/* Send the slices gathered so far. After `end` the request is answered. */
static void flush(struct claw_req *r, bool end)
{
    struct claw_relay *y = r->relay;
    if (!r->conn || !y->replied || (y->n == 0 && !end)) return;
    if (r->commit == CLAW_HELD) {
        r->commit = CLAW_COMMITTED;
        forget_body(r);
        claw_pipeline_reached(r, CLAW_STEP_STREAM);
    }
    for (unsigned i = 0; i < y->n; i++) r->bytes_out += y->slices[i].len;
    int rc = claw_conn_send(r->conn, y->slices, y->n, end);
    y->n = 0;
    if (end) {
        r->commit = CLAW_DONE;
        r->conn = NULL;
        return;
    }
    if (rc == CLAW_EAGAIN && !y->paused && r->client) {
        y->paused = true;
        claw_client_pause(r->client);
    }
}

static bool lasts(const struct claw_relay *y, struct claw_str s)
{
    return s.ptr >= y->batch.ptr && s.ptr + s.len <= y->batch.ptr + y->batch.len;
}

/* Add bytes to what is sent next. Neighbours become one slice; what does not outlive this call goes at once. */
static void push(struct claw_req *r, struct claw_str s)
{
    struct claw_relay *y = r->relay;
    if (s.len == 0) return;
    uv_buf_t *last = y->n ? &y->slices[y->n - 1] : NULL;
    if (last && last->base + last->len == s.ptr) last->len += s.len;
    else y->slices[y->n++] = uv_buf_init((char *)s.ptr, (unsigned)s.len);
    if (y->n == SLICES || !lasts(y, s)) flush(r, false);
}

static void answered(struct claw_req *r, bool reusable)
{
    leave_client(r, reusable);
    claw_pipeline_answered(r);
}

/* ---- before the commit point ------------------------------------------------------------------------------------------ */

static int64_t retry_after_ms(const struct claw_head *h)
{
    uint64_t n;
    const struct claw_header *ms = claw_head_find(h, CLAW_H_RETRY_AFTER_MS), *s = claw_head_find(h, CLAW_H_RETRY_AFTER);
    if (ms && claw_str_u64(ms->value, 86400000, &n) == 0) return (int64_t)n;
    if (!s) return -1;
    if (claw_str_u64(s->value, 86400, &n) == 0) return (int64_t)n * 1000;
    char date[40];
    struct tm tm = {0};
    if (s->value.len >= sizeof date) return -1;
    memcpy(date, s->value.ptr, s->value.len);
    date[s->value.len] = 0;
    if (!strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &tm)) return -1;
    time_t left = timegm(&tm) - time(NULL);
    return left > 0 && left <= 86400 ? (int64_t)left * 1000 : 0;
}

static void failed(struct claw_req *r, int code, const char *text)
{
    struct claw_relay *y = r->relay;
    bool held = y->mode == ERROR;
    claw_pipeline_upstream_failed(r, code, code == CLAW_OK ? status_of(r) : 0, text, held ? claw_buf_str(&y->kept) : CLAW_STR(""),
                                  y->head ? retry_after_ms(y->head) : -1);
}

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
    y->mode = ERROR;
    if (code == CLAW_OK) r->answer_type = "application/json";
    (void)rc; /* only what the retry decision looks at */
    failed(r, code, text);
    return CLAW_ECANCELED;
}

/* ---- events ------------------------------------------------------------------------------------------------------------ */

/* Comments have no place in an array, and Google's clients take them for events that are no JSON. */
static bool takes_comments(const struct claw_req *r)
{
    return !r->array && !(r->translated && claw_dialect_is_gemini(r->dialect));
}

/* The head and what was held go before the first event; once. */
static int begin_events(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    if (y->replied) return 0;
    int rc = reply(r, -1);
    if (rc != 0) return rc;
    if (takes_comments(r)) push(r, claw_buf_str(&y->kept));
    claw_buf_clear(&y->kept);
    return 0;
}

/* Add an event as the client gets it to `made`. */
static int write_event(struct claw_req *r, struct claw_str type, struct claw_str data)
{
    struct claw_relay *y = r->relay;
    if (!r->array) return claw_sse_write(&y->made, type, data);
    int rc = claw_buf_add_z(&y->made, y->listed ? ",\r\n" : "[");
    y->listed = true;
    return rc == 0 ? claw_buf_add_str(&y->made, data) : rc;
}

/* Providers quote the key they refuse, also where an answer began well. */
static bool tells_error(struct claw_str type, struct claw_str data)
{
    return claw_str_eqz(type, "error") || claw_str_eqz(type, "response.failed") || claw_str_starts(data, CLAW_STR("{\"error\"")) ||
           claw_str_starts(data, CLAW_STR("{\"type\":\"error\""));
}

/* A copy of a body, which lives until the next one. */
static int redacted(struct claw_relay *y, struct claw_str *body)
{
    claw_buf_clear(&y->tmp);
    int rc = claw_buf_add_str(&y->tmp, *body);
    claw_log_redact(&y->tmp);
    *body = claw_buf_str(&y->tmp);
    return rc;
}

/* An event as it came, by its first line. */
static bool raw_tells_error(struct claw_str raw)
{
    struct claw_str none = CLAW_STR("");
    bool typed = claw_str_starts(raw, CLAW_STR("event:"));
    if (!typed && !claw_str_starts(raw, CLAW_STR("data:"))) return false;
    const char *at = raw.ptr + (typed ? 6 : 5), *end = raw.ptr + raw.len;
    if (at < end && *at == ' ') at++;
    if (!typed) return tells_error(none, (struct claw_str){at, (size_t)(end - at)});
    for (end = at; end < raw.ptr + raw.len && *end != '\n' && *end != '\r'; end++) {}
    return tells_error((struct claw_str){at, (size_t)(end - at)}, none);
}

static int push_raw(struct claw_req *r, struct claw_str raw)
{
    struct claw_relay *y = r->relay;
    if (!raw_tells_error(raw)) {
        push(r, raw);
        return 0;
    }
    claw_buf_clear(&y->made); /* what was cut from it before has left with its push */
    int rc = claw_buf_add_str(&y->made, raw);
    claw_log_redact(&y->made);
    if (rc == 0) push(r, claw_buf_str(&y->made));
    return rc;
}

/* What an event hook or the translation made of an event. */
static int push_events(struct claw_req *r, const struct claw_policy_event *events, int n)
{
    struct claw_relay *y = r->relay;
    int rc = n > 0 ? begin_events(r) : 0;
    claw_buf_clear(&y->made); /* what was cut from it before has left with its push */
    bool error = false;
    for (int i = 0; i < n && rc == 0; i++) {
        error |= tells_error(events[i].type, events[i].data);
        rc = write_event(r, events[i].type, events[i].data);
    }
    if (error) claw_log_redact(&y->made);
    if (rc == 0) push(r, claw_buf_str(&y->made));
    return rc;
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
    if (n >= 0) return n > 0 || r->translated ? push_events(r, out, n) : begin_events(r);
    rc = begin_events(r);
    return rc == 0 ? push_raw(r, raw) : rc;
}

/* The chunk that tells nothing but usage. */
static bool is_usage_only(struct claw_str raw)
{
    ptrdiff_t at = claw_str_find(raw, CLAW_STR("\"choices\""));
    if (at < 0) return false;
    const char *p = raw.ptr + at + 9, *end = raw.ptr + raw.len;
    while (p < end && strchr(" \t\r\n:", *p) && *p) p++;
    if (p == end || *p != '[') return false;
    for (p++; p < end && strchr(" \t\r\n", *p) && *p; p++) {}
    return p < end && *p == ']';
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
    if (claw_usage_read(data, &r->usage) && r->hides_usage && is_usage_only(data)) return 0;
    if (r->candidates[r->candidate].mask & CLAW_MASK_EVENT) return run_event_hook(r, type, data, raw);
    if (!raw.ptr) return push_events(r, &(struct claw_policy_event){type, data}, 1);
    int rc = begin_events(r);
    return rc == 0 ? push_raw(r, raw) : rc;
}

static int on_event(void *arg, const struct claw_sse_event *ev)
{
    struct claw_req *r = arg;
    struct claw_relay *y = r->relay;
    struct claw_sse_fields f;
    bool held = r->commit == CLAW_HELD && !y->replied;
    if (r->translated && claw_str_eqz(ev->raw, "\xEF\xBB\xBF")) return 0; /* a byte order mark: the other stream's */
    if (!ev->has_data && held) { /* comments before the answer wait with its head */
        if (claw_buf_size(&y->kept) + ev->raw.len > HELD_EVENTS_BYTES) return 0;
        return claw_buf_add_str(&y->kept, ev->raw);
    }
    if (!ev->has_data) {
        if (takes_comments(r)) push(r, ev->raw);
        return 0;
    }
    if (held || r->array || r->candidates[r->candidate].mask & CLAW_MASK_EVENT) {
        int rc = claw_sse_parse(ev->raw, &y->tmp, &f);
        return rc == 0 ? take_event(r, f.type, f.data, r->array || r->translated ? (struct claw_str){NULL, 0} : ev->raw) : rc;
    }
    if (claw_usage_read(ev->raw, &r->usage) && r->hides_usage && is_usage_only(ev->raw)) return 0;
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
    push(r, bytes);
    return 0;
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
    y->mode = EVENTS;
    if (is_type(type, CLAW_STR("application/x-ndjson"))) y->framing = NDJSON;
    else if (is_type(type, CLAW_STR("application/vnd.amazon.eventstream"))) y->framing = EVENT_STREAM;
    else y->mode = WHOLE;
    y->turned = y->mode == WHOLE && r->stream;
    claw_ndjson_init(&y->lines, claw_req_conf(r)->server.max_body_bytes);
    claw_event_stream_init(&y->messages, claw_req_conf(r)->server.max_body_bytes);
}

static void on_head(struct claw_client *c, struct claw_head *h)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    struct claw_attempt *a = claw_account_last(r);
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    const struct claw_header *type = claw_head_find(h, CLAW_H_CONTENT_TYPE), *coding = claw_head_find(h, CLAW_H_CONTENT_ENCODING);
    claw_req_waited(r);
    uint32_t now = r->wait_from_us;
    a->status = (uint16_t)h->status;
    a->ttfb_us = now;
    y->head = h;
    y->hooked = r->candidates[r->candidate].mask & CLAW_MASK_EVENT;
    bool readable = !coding || claw_str_ieq(coding->value, CLAW_STR("identity"));
    bool events = type && type->value.len >= 17 && strncasecmp(type->value.ptr, "text/event-stream", 17) == 0;
    y->json = readable && type && type->value.len >= 16 && strncasecmp(type->value.ptr, "application/json", 16) == 0;
    if (h->status < 400)
        claw_upstream_stats_ttfb(up->stats, claw_req_sent_model(r), now - a->start_us, claw_loop_now_ms(r->ctx->loop));
    if (h->status >= 400) y->mode = ERROR;
    else if (events && readable) y->mode = EVENTS;
    else if (r->translated && readable && may_have_body(r, h)) begin_translated(r, type ? type->value : CLAW_STR(""));
    else if (r->translated) y->mode = WHOLE; /* what cannot be read is no answer: the response step says so */
    else if (readable && r->candidates[r->candidate].mask & CLAW_MASK_RESPONSE && may_have_body(r, h)) y->mode = WHOLE;
    else y->mode = PLAIN;
    claw_buf_init(&y->kept, y->mode == WHOLE ? claw_req_conf(r)->server.max_body_bytes : 0);
    if (y->mode == EVENTS && (r->translated || r->array)) y->sse.max = claw_req_conf(r)->server.max_body_bytes;
    y->gathers = r->translated && y->mode == EVENTS && !r->stream;
    bool streams = (y->mode == EVENTS && !y->gathers) || y->turned;
    if (r->translated) r->answer_type = streams && !r->array ? "text/event-stream" : "application/json";
    else if (y->mode == EVENTS && r->array) r->answer_type = "application/json";
    if (y->mode == ERROR && claw_hedge_aside(r)) failed(r, CLAW_OK, ""); /* its body would decide nothing */
    else if (y->mode == WHOLE || y->mode == PLAIN) claw_hedge_won(r);
}

static void broken(struct claw_req *r, int code)
{
    claw_pipeline_fail(r, code == CLAW_ENOMEM && (r->relay->mode == WHOLE || r->relay->gathers) ? CLAW_EBAD_RESPONSE : code,
                       claw_str_of(code == CLAW_ENOMEM ? "the upstream's answer is too large to be held" : claw_err_text(code)));
}

/* Usage stands at the end of plain answers: of one that is not kept, the last bytes are. */
static void keep_tail(struct claw_relay *y)
{
    if (!y->json) return;
    for (unsigned i = 0; i < y->n; i++) {
        struct claw_str s = {y->slices[i].base, y->slices[i].len};
        if (s.len > TAIL_BYTES) s = (struct claw_str){s.ptr + s.len - TAIL_BYTES, TAIL_BYTES};
        if (claw_buf_add_str(&y->tmp, s) != 0) return;
        if (claw_buf_size(&y->tmp) > TAIL_BYTES) claw_buf_take(&y->tmp, claw_buf_size(&y->tmp) - TAIL_BYTES);
    }
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
    int rc = y->replied ? 0 : reply(r, length);
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
    flush(r, false);
    claw_buf_clear(&y->kept);
    return 0;
}

static void on_body(struct claw_client *c, const char *data, size_t n)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    int rc = 0;
    if (!y->replied) claw_req_waited(r);
    if (y->mode == EVENTS) {
        const struct claw_sse_sink sink = {on_event, r->translated || r->array ? NULL : on_over, r};
        y->batch = (struct claw_str){data, n};
        if (y->framing == SSE) rc = claw_sse_feed(&y->sse, data, n, &sink);
        else if (y->framing == NDJSON) rc = claw_ndjson_feed(&y->lines, data, n, on_line, r);
        else rc = claw_event_stream_feed(&y->messages, data, n, on_message, r);
        if (rc == CLAW_ECANCELED) return;
    } else if (y->mode != PLAIN) {
        rc = claw_buf_add(&y->kept, data, n);
        if (rc == 0 && y->mode == ERROR && !y->open && claw_buf_size(&y->kept) > CLAW_RELAY_ERROR_BYTES) {
            y->open = true; /* too long to be held whole: the retry step decides while the upstream waits */
            claw_client_pause(r->client);
            failed(r, CLAW_OK, "");
        }
    }
    if (y->mode == PLAIN && rc == 0) {
        y->batch = (struct claw_str){data, n};
        rc = y->n < SLICES - 2 ? 0 : let_go(r);
        if (rc == 0) push(r, y->batch);
    }
    if (rc != 0) broken(r, rc);
}

static void on_batch(struct claw_client *c)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    if (!y->head) return;
    if (y->mode == PLAIN) {
        int rc = let_go(r);
        if (rc != 0) broken(r, rc);
        return;
    }
    flush(r, false);
    y->batch = CLAW_STR("");
}

/* ---- the answer's end ---------------------------------------------------------------------------------------------------- */

static void end_plain(struct claw_req *r, bool reusable)
{
    struct claw_relay *y = r->relay;
    int rc = 0;
    if (!y->replied) { /* all of it is here */
        claw_req_waited(r);
        if (claw_buf_size(&y->kept) || y->n > 1) rc = keep_slices(y);
        struct claw_str all = y->n ? (struct claw_str){y->slices[0].base, y->slices[0].len} : claw_buf_str(&y->kept);
        if (rc == 0 && y->json) claw_usage_read(all, &r->usage);
        if (rc == 0 && y->json && tells_error(CLAW_STR(""), all)) rc = redacted(y, &all);
        int64_t length = (int64_t)all.len;
        if (all.len == 0 && (y->head->content_length > 0 || claw_str_eqz(r->head->method, "HEAD"))) length = y->head->content_length;
        claw_account_settle(r);
        if (rc == 0) rc = reply(r, length);
        y->slices[0] = uv_buf_init((char *)all.ptr, (unsigned)all.len);
        y->n = all.len > 0;
    } else if (y->json) {
        keep_tail(y);
        claw_usage_read(claw_buf_str(&y->tmp), &r->usage);
    }
    if (rc != 0) {
        broken(r, rc);
        return;
    }
    flush(r, true);
    answered(r, reusable);
}

static void end_whole(struct claw_req *r, bool reusable)
{
    if (r->relay->json) claw_usage_read(claw_buf_str(&r->relay->kept), &r->usage);
    claw_req_waited(r);
    leave_client(r, reusable);
    claw_pipeline_reached(r, CLAW_STEP_BACK);
}

void claw_relay_no_answer(struct claw_req *r, const char *why)
{
    r->relay->mode = ERROR;
    failed(r, r->answer_status ? CLAW_OK : CLAW_EBAD_RESPONSE, why);
}

struct claw_str claw_relay_whole(const struct claw_req *r) { return claw_buf_str(&r->relay->kept); }

void claw_relay_send_whole(struct claw_req *r, struct claw_str body)
{
    struct claw_relay *y = r->relay;
    int rc = 0;
    if (r->answer_status >= 400) rc = redacted(y, &body); /* an error that came with status 200 */
    claw_account_settle(r);
    if (rc == 0) rc = reply(r, (int64_t)body.len);
    if (rc != 0) {
        broken(r, rc);
        return;
    }
    y->slices[0] = uv_buf_init((char *)body.ptr, (unsigned)body.len);
    y->n = body.len > 0;
    flush(r, true);
    claw_pipeline_answered(r);
}

/* What a stream that is not passed on as it came still has to say at its end. */
static int end_made(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    struct claw_str none = {NULL, 0};
    int rc = y->framing == NDJSON ? claw_ndjson_end(&y->lines, on_line, r) : 0;
    if (rc == 0 && r->translated) rc = run_event_hook(r, CLAW_STR(""), none, none);
    if (rc != 0 || !r->array || !y->replied) return rc;
    push(r, y->listed ? CLAW_STR("]") : CLAW_STR("[]"));
    return 0;
}

static void end_stream(struct claw_req *r, bool reusable)
{
    flush(r, true);
    answered(r, reusable);
}

static void end_gathered(struct claw_req *r, bool reusable)
{
    int rc = end_made(r);
    if (rc == CLAW_ECANCELED) return;
    if (rc != 0) {
        broken(r, rc);
        return;
    }
    claw_hedge_won(r);
    r->relay->mode = WHOLE;
    claw_buf_clear(&r->relay->kept); /* comments */
    end_whole(r, reusable);
}

/* A whole answer, of which the client gets events. */
static void end_turned(struct claw_req *r, bool reusable)
{
    struct claw_relay *y = r->relay;
    struct claw_buf all = y->kept;
    claw_buf_init(&y->kept, 0);
    if (y->json) claw_usage_read(claw_buf_str(&all), &r->usage);
    claw_req_waited(r);
    leave_client(r, reusable);
    y->mode = EVENTS;
    r->turned = true;
    int rc = run_event_hook(r, CLAW_STR(""), claw_buf_str(&all), (struct claw_str){NULL, 0});
    r->turned = false;
    claw_buf_fini(&all);
    if (rc == CLAW_ECANCELED) return;
    if (rc == 0) rc = begin_events(r);
    if (rc != 0) {
        broken(r, rc);
        return;
    }
    if (r->array) push(r, y->listed ? CLAW_STR("]") : CLAW_STR("[]"));
    end_stream(r, reusable);
}

static void end_events(struct claw_req *r, bool reusable)
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
            broken(r, rc);
            return;
        }
    }
    if (!y->replied) {
        if (rest.len == 0 && claw_buf_size(&y->kept) == 0 && y->head->content_length == 0) {
            end_plain(r, reusable);
            return;
        }
        leave_client(r, reusable);
        failed(r, CLAW_EBAD_RESPONSE, "the stream ended before its first event");
        return;
    }
    /* A last line without its empty line is dropped by every client, but it is not ours to drop; unless a hook that
     * could not see it is there to keep things back. */
    if (!made && !y->hooked) push(r, rest);
    end_stream(r, reusable);
}

static void on_done(struct claw_client *c, bool reusable)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    switch (y->mode) {
    case ERROR: {
        bool told = y->open;
        y->open = false;
        leave_client(r, reusable);
        if (!told) failed(r, CLAW_OK, "");
        return;
    }
    case WHOLE:
        if (y->turned) end_turned(r, reusable);
        else end_whole(r, reusable);
        return;
    case EVENTS: end_events(r, reusable); return;
    default: end_plain(r, reusable); return;
    }
}

static void on_fail(struct claw_client *c, int code, const char *text)
{
    struct claw_req *r = c->arg;
    struct claw_relay *y = r->relay;
    bool stale = code == CLAW_EUPSTREAM_EOF && c->reused && !c->any_byte && !r->retried_stale && !claw_hedge_aside(r);
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
    else failed(r, code, text);
}

static void on_drain(struct claw_client *c) { (void)c; }

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
    if (!y || (body && n == 0) || claw_req_write_head(r, body, &head) != 0 || claw_req_sign_head(r, out + 1, n, &head) != 0) {
        claw_pipeline_fail(r, CLAW_EREQ_MEM, claw_str_of(claw_err_text(CLAW_EREQ_MEM)));
        return;
    }
    out[0] = uv_buf_init((char *)head.ptr, (unsigned)head.len);
    a->reused = c->reused;
    if (!c->reused) claw_req_waited(r); /* a kept connection was there at once */
    claw_client_exchange(c, &r->arena, claw_str_eqz(r->head->method, "HEAD"), route_ms ? route_ms : up->conf->first_byte_timeout_ms,
                         up->conf->stall_timeout_ms, &claw_relay_client_events, r);
    int rc = claw_client_write(c, out, n + 1);
    (void)rc; /* queued: the body is ours until the answer; broken: on_fail tells */
    r->wait_from_us = claw_req_elapsed_us(r);
}

/* What is held of it is all that is looked at. */
static void release_translated(struct claw_req *r)
{
    struct claw_relay *y = r->relay;
    struct claw_policy_error err;
    struct claw_str out = {NULL, 0};
    if (y->open) leave_client(r, false);
    y->open = false;
    int rc = r->gen->ops->error(r->gen->policy, r, status_of(r), claw_buf_str(&y->kept), &out, &err);
    if (rc == CLAW_EPOLICY) claw_pipeline_policy_failed(r, &err);
    else if (rc != 0) broken(r, rc);
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
    if (!y->open) claw_account_settle(r);
    if (reply(r, y->open ? -1 : (int64_t)body.len) != 0) { /* a long one's length is no more what its head says */
        broken(r, CLAW_EREQ_MEM);
        return;
    }
    if (y->open) {
        y->open = false;
        y->mode = PLAIN;
        push(r, body);
        claw_buf_clear(&y->kept);
        if (!y->paused) claw_client_resume(r->client);
        return;
    }
    y->slices[0] = uv_buf_init((char *)body.ptr, (unsigned)body.len);
    y->n = body.len > 0;
    flush(r, true);
    claw_pipeline_answered(r);
}

bool claw_relay_spoke(const struct claw_req *r)
{
    const struct claw_relay *y = r->relay;
    return y && (y->replied || (y->head && y->mode != EVENTS));
}

bool claw_relay_open(const struct claw_req *r) { return r->relay && r->relay->open; }

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
    if (y && y->mode == EVENTS && !y->in_over && y->replied) {
        struct claw_buf json, event;
        struct claw_str type;
        struct claw_envelope e = claw_answer_envelope_of(r, claw_err_status(code), text, claw_err_type(code), claw_err_kind(code));
        claw_buf_init(&json, 0);
        claw_buf_init(&event, 0);
        int wrote = claw_envelope_write_event(&json, &e, &type);
        claw_log_redact(&json);
        if (wrote == 0 && r->array) wrote = claw_buf_add_fmt(&event, "%s%.*s]", y->listed ? "," : "[", CLAW_STR_FMT(claw_buf_str(&json)));
        else if (wrote == 0) wrote = claw_sse_write(&event, type, claw_buf_str(&json));
        if (wrote == 0) {
            struct claw_str s = claw_buf_str(&event);
            y->slices[y->n++] = uv_buf_init((char *)s.ptr, (unsigned)s.len);
            int rc = claw_conn_send(c, y->slices, y->n, false);
            (void)rc; /* the connection ends anyway */
        }
        claw_buf_fini(&json);
        claw_buf_fini(&event);
    }
    claw_conn_cut(c);
}
