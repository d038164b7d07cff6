#include "proxy/access_log.h"

#include "base/cursor.h"
#include "proxy/recall.h"
#include "proxy/trace.h"
#include "proxy/transcript.h"

/* The line is written with a bare cursor into room reserved for its longest form: escaping makes a byte at most six. */
#define FIXED_BYTES 1344
#define ATTEMPT_BYTES 160
/* A line over 64 KB is dropped, and what the client sends must not bring that about. */
#define MODEL_BYTES 256u
#define TEXT_BYTES 1024u

static struct claw_str cut(struct claw_str s, size_t n) { return s.len <= n ? s : (struct claw_str){s.ptr, n}; }

/* A byte of w that is below 0x20, past 0x7e, a quote or a backslash sets its high bit in the result; eight at a time. */
static inline uint64_t odd_bytes(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t quote = w ^ ones * '"', back = w ^ ones * '\\';
    uint64_t zero = ((quote - ones) & ~quote) | ((back - ones) & ~back);
    return (w | (w - ones * 0x20) | (w + ones) | zero) & high;
}

static inline uint64_t eight(const char *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static inline uint32_t four(const char *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* Carries between bytes may raise a false alarm, they never hide an odd byte; what is odd goes the long way. The last look at a text
 * takes in some of its bytes again. */
static bool plain(struct claw_str s)
{
    const char *p = s.ptr;
    if (s.len >= 8) {
        uint64_t odd = odd_bytes(eight(p + s.len - 8));
        for (size_t i = 0; i + 8 < s.len; i += 8) odd |= odd_bytes(eight(p + i));
        return odd == 0;
    }
    if (s.len >= 4) return odd_bytes((uint64_t)four(p) << 32 | four(p + s.len - 4)) == 0;
    if (s.len == 0) return true;
    unsigned char first = (unsigned char)p[0], middle = (unsigned char)p[s.len / 2], last = (unsigned char)p[s.len - 1];
    return odd_bytes(0x2020202020000000u | (uint64_t)first << 16 | (uint64_t)middle << 8 | last) == 0;
}

static __attribute__((noinline)) char *escaped(char *at, struct claw_str s)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    if (claw_buf_add_json(&b, s) == 0) at = claw_cursor_put(at, claw_buf_str(&b));
    else at = CLAW_CURSOR_PUT(at, "null");
    claw_buf_fini(&b);
    return at;
}

/* A JSON string of what is known to be plain: addresses, methods. */
static char *word(char *at, struct claw_str s)
{
    *at++ = '"';
    at = claw_cursor_put(at, s);
    *at++ = '"';
    return at;
}

/* A JSON string. What is plain is copied; anything else goes through the buffer's escaping. */
static char *text(char *at, struct claw_str s) { return plain(s) ? word(at, s) : escaped(at, s); }

static size_t most(const struct claw_req *r, struct claw_str upstream)
{
    size_t n = 2 * MODEL_BYTES + cut(r->limited_by, MODEL_BYTES).len + claw_req_route_id(r).len + upstream.len + r->answered_by.len;
    n += cut(r->error_text, TEXT_BYTES).len + cut(r->upstream_error, TEXT_BYTES).len;
    if (r->head) n += r->head->path.len;
    if (r->caller) n += r->caller->name.len;
    if (r->transcript) n += 2 * CLAW_TRANSCRIPT_BYTES;
    for (unsigned i = 0; i < r->attempts_n && i < CLAW_ATTEMPTS_MAX; i++)
        n += ATTEMPT_BYTES / 6 + r->gen->gen->upstreams[r->attempts[i].upstream].conf->name.len;
    return n * 6 + r->log_fields.len + FIXED_BYTES;
}

static char *attempts(char *at, const struct claw_req *r)
{
    at = CLAW_CURSOR_PUT(at, ",\"attempts\":[");
    for (unsigned i = 0; i < r->attempts_n && i < CLAW_ATTEMPTS_MAX; i++) {
        const struct claw_attempt *a = &r->attempts[i];
        if (i) *at++ = ',';
        at = text(CLAW_CURSOR_PUT(at, "{\"upstream\":"), r->gen->gen->upstreams[a->upstream].conf->name);
        at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"status\":"), a->status);
        if (a->kind) at = text(CLAW_CURSOR_PUT(at, ",\"kind\":"), claw_str_of(a->kind));
        if (a->several) at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"key\":"), a->key);
        at = claw_cursor_millis(CLAW_CURSOR_PUT(at, ",\"ms\":"), a->end_us > a->start_us ? a->end_us - a->start_us : 0);
        *at++ = '}';
    }
    return CLAW_CURSOR_PUT(at, "]");
}

static char *usage(char *at, const struct claw_req *r)
{
    if (r->usage.input >= 0) at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"input_tokens\":"), (uint64_t)r->usage.input);
    if (r->usage.output >= 0) at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"output_tokens\":"), (uint64_t)r->usage.output);
    if (r->usage.cached >= 0) at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"cached_tokens\":"), (uint64_t)r->usage.cached);
    if (r->usage.written >= 0) at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"cache_write_tokens\":"), (uint64_t)r->usage.written);
    if (r->usage.reasoning >= 0) at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"reasoning_tokens\":"), (uint64_t)r->usage.reasoning);
    if (r->estimated) at = CLAW_CURSOR_PUT(at, ",\"usage_estimated\":true");
    if (r->cost_micros < 0) return at;
    return claw_cursor_micros(CLAW_CURSOR_PUT(at, ",\"cost_usd\":"), (uint64_t)r->cost_micros);
}

static char *bodies(char *at, const struct claw_req *r)
{
    struct claw_str asked = claw_transcript_asked(r), answered = claw_transcript_answered(r);
    if (asked.len) at = text(CLAW_CURSOR_PUT(at, ",\"request_body\":"), asked);
    return answered.len ? text(CLAW_CURSOR_PUT(at, ",\"response_body\":"), answered) : at;
}

static char *outcome(char *at, const struct claw_req *r)
{
    at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"status\":"), (uint64_t)r->status);
    at = attempts(at, r);
    if (r->ttfb_us) at = claw_cursor_millis(CLAW_CURSOR_PUT(at, ",\"ttfb_ms\":"), r->ttfb_us);
    at = claw_cursor_millis(CLAW_CURSOR_PUT(at, ",\"duration_ms\":"), r->end_us);
    at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"overhead_us\":"), r->overhead_us);
    at = usage(at, r);
    if (r->recalled == CLAW_RECALL_BYPASS) at = CLAW_CURSOR_PUT(at, ",\"cache\":\"bypass\"");
    else at = CLAW_CURSOR_PUT(claw_cursor_put(CLAW_CURSOR_PUT(at, ",\"cache\":\""), claw_recall_word(r)), "\"");
    at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"bytes_in\":"), r->bytes_in);
    at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"bytes_out\":"), r->bytes_out);
    at = r->stream ? CLAW_CURSOR_PUT(at, ",\"stream\":true") : CLAW_CURSOR_PUT(at, ",\"stream\":false");
    if (r->soft_stopped) at = CLAW_CURSOR_PUT(at, ",\"soft_stop\":true");
    if (r->limited_by.len) at = text(CLAW_CURSOR_PUT(at, ",\"limited_by\":"), cut(r->limited_by, MODEL_BYTES));
    if (r->limit_wait_us) at = claw_cursor_millis(CLAW_CURSOR_PUT(at, ",\"limit_wait_ms\":"), r->limit_wait_us);
    if (r->poor) at = CLAW_CURSOR_PUT(at, ",\"retry_budget\":\"exhausted\"");
    if (r->answered_by.len) at = text(CLAW_CURSOR_PUT(at, ",\"answered_by\":"), r->answered_by);
    if (r->error) at = text(CLAW_CURSOR_PUT(at, ",\"error\":"), claw_str_of(claw_err_kind(r->error)));
    if (r->error_text.len) at = text(CLAW_CURSOR_PUT(at, ",\"error_message\":"), cut(r->error_text, TEXT_BYTES));
    if (r->upstream_error.len) at = text(CLAW_CURSOR_PUT(at, ",\"upstream_error\":"), cut(r->upstream_error, TEXT_BYTES));
    return r->transcript ? bodies(at, r) : at;
}

void claw_access_log_write(const struct claw_req *r)
{
    struct claw_buf *b = claw_log_begin(CLAW_LOG_INFO);
    /* Who was chosen and not asked (its limit, a policy) is not named: the ledger, metrics and GET /requests have it so, too. */
    const struct claw_generation_upstream *up = r->attempts_n && !claw_recall_answers(r) ? claw_req_upstream(r) : NULL;
    struct claw_str upstream = up ? up->conf->name : CLAW_STR("");
    if (!b) return;
    size_t room = most(r, upstream);
    int rc = claw_buf_add_z(b, "{\"time\":\"");
    if (rc == 0) rc = claw_log_add_time(b);
    if (rc == 0) rc = claw_buf_reserve(b, room);
    if (rc == 0) {
        char *start = b->data + b->len, *at = start;
        at = CLAW_CURSOR_PUT(at, "\",\"level\":\"info\",\"msg\":\"request\",\"id\":\"");
        at = claw_cursor_put(at, (struct claw_str){r->id, 32});
        if (r->trace) at = claw_cursor_put(CLAW_CURSOR_PUT(at, "\",\"trace_id\":\""), (struct claw_str){r->trace->id, 32});
        at = CLAW_CURSOR_PUT(at, "\",\"client\":");
        if (r->caller) at = CLAW_CURSOR_PUT(text(at, r->caller->name), ",\"ip\":");
        at = word(at, claw_str_of(r->peer));
        if (r->head) {
            at = word(CLAW_CURSOR_PUT(at, ",\"method\":"), r->head->method);
            at = text(CLAW_CURSOR_PUT(at, ",\"path\":"), r->head->path);
        }
        at = text(CLAW_CURSOR_PUT(at, ",\"route\":"), claw_req_route_id(r));
        at = text(CLAW_CURSOR_PUT(at, ",\"upstream\":"), upstream);
        at = text(CLAW_CURSOR_PUT(at, ",\"model\":"), cut(r->model, MODEL_BYTES));
        at = text(CLAW_CURSOR_PUT(at, ",\"sent_model\":"), up ? cut(claw_req_sent_model(r), MODEL_BYTES) : CLAW_STR(""));
        at = outcome(at, r);
        at = claw_cursor_number(CLAW_CURSOR_PUT(at, ",\"generation\":"), r->gen->gen->id);
        if (r->log_fields.len) at = claw_cursor_put(CLAW_CURSOR_PUT(at, ","), r->log_fields);
        at = CLAW_CURSOR_PUT(at, "}\n");
        CLAW_ASSERT((size_t)(at - start) <= room);
        b->len += (size_t)(at - start);
    }
    claw_log_end(b); /* without its newline the line is dropped and counted */
}
