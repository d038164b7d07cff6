#include "proxy/access_log.h"

/* The line is written with a bare cursor into room reserved for its longest form: escaping makes a byte at most six. */
#define FIXED_BYTES 1088
#define ATTEMPT_BYTES 160
/* A line over 64 KB is dropped, and what the client sends must not bring that about. */
#define MODEL_BYTES 256u
#define TEXT_BYTES 1024u

static struct claw_str cut(struct claw_str s, size_t n) { return s.len <= n ? s : (struct claw_str){s.ptr, n}; }

static inline char *raw(char *at, struct claw_str s)
{
    if (s.len) memcpy(at, s.ptr, s.len);
    return at + s.len;
}
#define RAW(at, lit) raw(at, CLAW_STR(lit))

static char *digits(char *at, uint64_t n)
{
    char d[24];
    size_t k = sizeof d;
    do d[--k] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    return raw(at, (struct claw_str){d + k, sizeof d - k});
}

/* Milliseconds with three digits behind the point. */
static char *millis(char *at, uint64_t us)
{
    at = digits(at, us / 1000);
    *at++ = '.';
    *at++ = (char)('0' + us / 100 % 10);
    *at++ = (char)('0' + us / 10 % 10);
    *at++ = (char)('0' + us % 10);
    return at;
}

/* A JSON string. What is plain is copied; anything else goes through the buffer's escaping. */
/* A byte of w that is below 0x20, past 0x7e, a quote or a backslash sets its high bit in the result; eight at a time. */
static inline uint64_t odd_bytes(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t quote = w ^ ones * '"', back = w ^ ones * '\\';
    uint64_t zero = ((quote - ones) & ~quote) | ((back - ones) & ~back);
    return (w | (w - ones * 0x20) | (w + ones) | zero) & high;
}

/* Carries between bytes may raise a false alarm, they never hide an odd byte; what is odd goes the long way. */
static bool plain(struct claw_str s)
{
    uint64_t w, odd = 0;
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        memcpy(&w, s.ptr + i, 8);
        odd |= odd_bytes(w);
    }
    if (i == s.len) return odd == 0;
    w = 0x2020202020202020u;
    for (size_t k = 0; i < s.len; i++, k += 8) w = (w & ~(0xffull << k)) | (uint64_t)(unsigned char)s.ptr[i] << k;
    return (odd | odd_bytes(w)) == 0;
}

static char *text(char *at, struct claw_str s)
{
    if (!plain(s)) {
        struct claw_buf b;
        claw_buf_init(&b, 0);
        if (claw_buf_add_json(&b, s) == 0) at = raw(at, claw_buf_str(&b));
        else at = RAW(at, "null");
        claw_buf_fini(&b);
        return at;
    }
    *at++ = '"';
    at = raw(at, s);
    *at++ = '"';
    return at;
}

static size_t most(const struct claw_req *r, struct claw_str upstream)
{
    size_t n = 2 * MODEL_BYTES + claw_req_route_id(r).len + upstream.len + r->answered_by.len;
    n += cut(r->error_text, TEXT_BYTES).len + cut(r->upstream_error, TEXT_BYTES).len;
    if (r->head) n += r->head->path.len;
    if (r->caller) n += r->caller->name.len;
    for (unsigned i = 0; i < r->attempts_n && i < CLAW_ATTEMPTS_MAX; i++)
        n += ATTEMPT_BYTES / 6 + r->gen->gen->upstreams[r->attempts[i].upstream].conf->name.len;
    return n * 6 + r->log_fields.len + FIXED_BYTES;
}

static char *attempts(char *at, const struct claw_req *r)
{
    at = RAW(at, ",\"attempts\":[");
    for (unsigned i = 0; i < r->attempts_n && i < CLAW_ATTEMPTS_MAX; i++) {
        const struct claw_attempt *a = &r->attempts[i];
        if (i) *at++ = ',';
        at = text(RAW(at, "{\"upstream\":"), r->gen->gen->upstreams[a->upstream].conf->name);
        at = digits(RAW(at, ",\"status\":"), a->status);
        if (a->kind) at = text(RAW(at, ",\"kind\":"), claw_str_of(a->kind));
        at = millis(RAW(at, ",\"ms\":"), a->end_us > a->start_us ? a->end_us - a->start_us : 0);
        *at++ = '}';
    }
    return RAW(at, "]");
}

static char *usage(char *at, const struct claw_req *r)
{
    if (r->usage.input >= 0) at = digits(RAW(at, ",\"input_tokens\":"), (uint64_t)r->usage.input);
    if (r->usage.output >= 0) at = digits(RAW(at, ",\"output_tokens\":"), (uint64_t)r->usage.output);
    if (r->usage.cached >= 0) at = digits(RAW(at, ",\"cached_tokens\":"), (uint64_t)r->usage.cached);
    if (r->usage.written >= 0) at = digits(RAW(at, ",\"cache_write_tokens\":"), (uint64_t)r->usage.written);
    if (r->usage.reasoning >= 0) at = digits(RAW(at, ",\"reasoning_tokens\":"), (uint64_t)r->usage.reasoning);
    if (r->cost_micros < 0) return at;
    at = digits(RAW(at, ",\"cost_usd\":"), (uint64_t)r->cost_micros / 1000000);
    *at++ = '.';
    for (int64_t unit = 100000; unit; unit /= 10) *at++ = (char)('0' + r->cost_micros / unit % 10);
    return at;
}

static char *outcome(char *at, const struct claw_req *r)
{
    at = digits(RAW(at, ",\"status\":"), (uint64_t)r->status);
    at = attempts(at, r);
    if (r->ttfb_us) at = millis(RAW(at, ",\"ttfb_ms\":"), r->ttfb_us);
    at = millis(RAW(at, ",\"duration_ms\":"), r->end_us);
    at = digits(RAW(at, ",\"overhead_us\":"), r->overhead_us);
    at = usage(at, r);
    at = digits(RAW(at, ",\"cache\":\"bypass\",\"bytes_in\":"), r->bytes_in);
    at = digits(RAW(at, ",\"bytes_out\":"), r->bytes_out);
    at = r->stream ? RAW(at, ",\"stream\":true") : RAW(at, ",\"stream\":false");
    if (r->answered_by.len) at = text(RAW(at, ",\"answered_by\":"), r->answered_by);
    if (r->error) at = text(RAW(at, ",\"error\":"), claw_str_of(claw_err_kind(r->error)));
    if (r->error_text.len) at = text(RAW(at, ",\"error_message\":"), cut(r->error_text, TEXT_BYTES));
    if (r->upstream_error.len) at = text(RAW(at, ",\"upstream_error\":"), cut(r->upstream_error, TEXT_BYTES));
    return at;
}

void claw_access_log_write(const struct claw_req *r)
{
    struct claw_buf *b = claw_log_begin(CLAW_LOG_INFO);
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    struct claw_str upstream = up ? up->conf->name : CLAW_STR("");
    if (!b) return;
    size_t room = most(r, upstream);
    int rc = claw_buf_add_z(b, "{\"time\":\"");
    if (rc == 0) rc = claw_log_add_time(b);
    if (rc == 0) rc = claw_buf_reserve(b, room);
    if (rc == 0) {
        char *start = b->data + b->len, *at = start;
        at = RAW(at, "\",\"level\":\"info\",\"msg\":\"request\",\"id\":\"");
        at = raw(at, (struct claw_str){r->id, 32});
        at = text(RAW(at, "\",\"client\":"), r->caller ? r->caller->name : claw_str_of(r->peer));
        if (r->caller) at = text(RAW(at, ",\"ip\":"), claw_str_of(r->peer));
        if (r->head) {
            at = text(RAW(at, ",\"method\":"), r->head->method);
            at = text(RAW(at, ",\"path\":"), r->head->path);
        }
        at = text(RAW(at, ",\"route\":"), claw_req_route_id(r));
        at = text(RAW(at, ",\"upstream\":"), upstream);
        at = text(RAW(at, ",\"model\":"), cut(r->model, MODEL_BYTES));
        at = text(RAW(at, ",\"sent_model\":"), up ? cut(claw_req_sent_model(r), MODEL_BYTES) : CLAW_STR(""));
        at = outcome(at, r);
        at = digits(RAW(at, ",\"generation\":"), r->gen->gen->id);
        if (r->log_fields.len) at = raw(RAW(at, ","), r->log_fields);
        at = RAW(at, "}\n");
        CLAW_ASSERT((size_t)(at - start) <= room);
        b->len += (size_t)(at - start);
    }
    claw_log_end(b); /* without its newline the line is dropped and counted */
}
