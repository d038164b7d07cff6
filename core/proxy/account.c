#include "proxy/account.h"

#include "proxy/pipeline.h"

/* ---- usage ------------------------------------------------------------------------------------------------------- */

/* The names three dialects have for the same counts. Detail objects inside the usage object have names of their own, so
 * that where a count stands need not be known. */
static const struct name {
    struct claw_str key;
    size_t at; /* in struct claw_usage */
} names[] = {
#define NAME(key, field) {{key, sizeof(key) - 1}, offsetof(struct claw_usage, field)}
    NAME("prompt_tokens", input), NAME("input_tokens", input), NAME("promptTokenCount", input),
    NAME("completion_tokens", output), NAME("output_tokens", output), NAME("candidatesTokenCount", output),
    NAME("cached_tokens", cached), NAME("cache_read_input_tokens", cached), NAME("cachedContentTokenCount", cached),
    NAME("reasoning_tokens", reasoning), NAME("thoughtsTokenCount", reasoning),
#undef NAME
};

static bool take(struct claw_str key, int64_t n, struct claw_usage *u)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].key.len != key.len || memcmp(names[i].key.ptr, key.ptr, key.len) != 0) continue;
        memcpy((char *)u + names[i].at, &n, sizeof n);
        return true;
    }
    return false;
}

/* Read the counts of the object whose text begins behind its brace. Only what looks like `"key": 123` is read; strings as
 * values are stepped over; the text may end before the object does. Where it ended is *end. */
static bool read_counts(const char *p, const char *stop, struct claw_usage *u, const char **end)
{
    struct claw_str key = CLAW_STR("");
    bool any = false;
    for (int depth = 1; p < stop; p++) {
        if (*p == '"') {
            const char *from = p + 1;
            for (p = from; p < stop && *p != '"'; p++)
                if (*p == '\\') p++;
            key = (struct claw_str){from, p < stop ? (size_t)(p - from) : 0};
        } else if (*p >= '0' && *p <= '9') {
            int64_t n = 0;
            for (; p < stop && *p >= '0' && *p <= '9' && n < (INT64_MAX - 9) / 10; p++) n = n * 10 + (*p - '0');
            if (p < stop && (*p == ',' || *p == '}' || *p == ' ' || *p == '\n' || *p == '\r')) any |= take(key, n, u);
            key.len = 0;
            p--;
        } else if (*p == '-') {
            key.len = 0;
        } else if (*p == '{') {
            depth++;
        } else if (*p == '}' && --depth == 0) {
            break;
        }
    }
    *end = p;
    return any;
}

/* A quote inside a JSON string is escaped, so `"usage"` with both its quotes is always a key or a whole string. */
bool claw_usage_read(struct claw_str json, struct claw_usage *u)
{
    bool any = false;
    const char *stop = json.ptr + json.len;
    for (;;) {
        ptrdiff_t at = claw_str_find(json, CLAW_STR("\"usage"));
        if (at < 0) return any;
        const char *p = json.ptr + at + 6;
        if (stop - p > 9 && memcmp(p, "Metadata", 8) == 0) p += 8;
        if (p < stop && *p == '"') {
            for (p++; p < stop && (*p == ' ' || *p == ':' || *p == '\n' || *p == '\r' || *p == '\t'); p++) {}
            if (p < stop && *p == '{') any |= read_counts(p + 1, stop, u, &p);
        }
        json = (struct claw_str){p, (size_t)(stop - p)};
    }
}

/* A status as a label. */
static struct claw_str status_text(char to[4], int status)
{
    to[0] = (char)('0' + status / 100 % 10);
    to[1] = (char)('0' + status / 10 % 10);
    to[2] = (char)('0' + status % 10);
    return (struct claw_str){to, status ? 3 : 0};
}

/* ---- settling and counting ------------------------------------------------------------------------------------------ */

struct claw_attempt *claw_account_last(struct claw_req *r)
{
    if (r->attempts_n == 0) return NULL;
    unsigned i = r->attempts_n < CLAW_ATTEMPTS_MAX ? r->attempts_n : CLAW_ATTEMPTS_MAX;
    return &r->attempts[i - 1];
}

void claw_account_settle(struct claw_req *r)
{
    if (r->accounted) return;
    r->accounted = true;
    struct claw_policy_error err;
    int rc = r->gen->ops->finish(r->gen->policy, r, &err);
    (void)rc; /* logged and counted where it failed */
}

void claw_account_attempt(struct claw_req *r, int code, const char *kind)
{
    struct claw_attempt *a = claw_account_last(r);
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    if (!a || !up || a->end_us) return;
    uint32_t now = claw_req_elapsed_us(r);
    a->end_us = now ? now : 1;
    a->code = code;
    a->kind = kind;
    if (r->outstanding) {
        claw_upstream_stats_end(up->stats);
        r->outstanding = false;
    }
    char digits[4];
    struct claw_str labels[2] = {up->conf->name, status_text(digits, a->status)};
    if (a->status < 400 && kind) labels[1] = claw_str_of(kind);
    else if (a->status == 0) labels[1] = claw_str_of(claw_err_kind(code));
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_UPSTREAM_REQUESTS, 1, 2, labels);
    claw_metrics_observe(r->ctx->metrics, CLAW_METRIC_UPSTREAM_SECONDS, a->end_us - a->start_us, 1, labels);
    if (a->ttfb_us) claw_metrics_observe(r->ctx->metrics, CLAW_METRIC_TTFB_SECONDS, a->ttfb_us - a->start_us, 1, labels);
}

static void count_tokens(struct claw_req *r, struct claw_str upstream, struct claw_str model)
{
    const struct { const char *name; int64_t n; } classes[] = {
        {"input", r->usage.input}, {"cached_input", r->usage.cached}, {"output", r->usage.output}, {"reasoning", r->usage.reasoning}};
    for (unsigned i = 0; i < 4; i++) {
        struct claw_str labels[3] = {upstream, model, claw_str_of(classes[i].name)};
        if (classes[i].n > 0) claw_metrics_add(r->ctx->metrics, CLAW_METRIC_TOKENS, classes[i].n, 3, labels);
    }
}

void claw_account_count(struct claw_req *r)
{
    struct claw_metrics_shard *m = r->ctx->metrics;
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    struct claw_str upstream = up && r->attempts_n ? up->conf->name : CLAW_STR("");
    struct claw_str model = claw_req_sent_model(r);
    char digits[4];
    struct claw_str request[3] = {claw_req_route_id(r), status_text(digits, r->status), r->head ? r->head->method : CLAW_STR("")};
    struct claw_str latency[2] = {request[0], upstream};
    claw_metrics_add(m, CLAW_METRIC_REQUESTS, 1, 3, request);
    claw_metrics_observe(m, CLAW_METRIC_REQUEST_SECONDS, r->end_us, 2, latency);
    claw_metrics_observe(m, CLAW_METRIC_OVERHEAD_SECONDS, r->overhead_us, 0, NULL);
    claw_metrics_add(m, CLAW_METRIC_IN_FLIGHT, -1, 0, NULL);
    if (r->error == CLAW_ECLIENT_GONE || r->error == CLAW_ESEND_STALL) claw_metrics_add(m, CLAW_METRIC_CLIENT_GONE, 1, 1, request);
    if (upstream.len == 0) return;
    struct claw_str sold[2] = {upstream, model};
    if (r->cost_micros > 0) claw_metrics_add(m, CLAW_METRIC_COST, r->cost_micros, 2, sold);
    count_tokens(r, upstream, model);
    if (r->usage.output > 0) claw_upstream_stats_output(up->stats, model, (uint64_t)r->usage.output);
}

/* ---- the log line ---------------------------------------------------------------------------------------------------- */

/* The line is written with a bare cursor into room reserved for its longest form: escaping makes a byte at most six. */
#define FIXED_BYTES 1024
#define ATTEMPT_BYTES 160

static inline char *raw(char *at, struct claw_str s)
{
    memcpy(at, s.ptr, s.len);
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
static char *text(char *at, struct claw_str s)
{
    bool plain = true;
    for (size_t i = 0; i < s.len; i++) plain &= s.ptr[i] >= ' ' && s.ptr[i] < 127 && s.ptr[i] != '"' && s.ptr[i] != '\\';
    if (!plain) {
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
    size_t n = r->model.len + claw_req_sent_model(r).len + claw_req_route_id(r).len + r->error_text.len + r->upstream_error.len + upstream.len;
    if (r->head) n += r->head->path.len;
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
    if (r->error) at = text(RAW(at, ",\"error\":"), claw_str_of(claw_err_kind(r->error)));
    if (r->error_text.len) at = text(RAW(at, ",\"error_message\":"), r->error_text);
    if (r->upstream_error.len) at = text(RAW(at, ",\"upstream_error\":"), r->upstream_error);
    return at;
}

void claw_account_log(struct claw_req *r)
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
        at = text(RAW(at, "\",\"client\":"), claw_str_of(r->peer));
        if (r->head) {
            at = text(RAW(at, ",\"method\":"), r->head->method);
            at = text(RAW(at, ",\"path\":"), r->head->path);
        }
        at = text(RAW(at, ",\"route\":"), claw_req_route_id(r));
        at = text(RAW(at, ",\"upstream\":"), upstream);
        at = text(RAW(at, ",\"model\":"), r->model);
        at = text(RAW(at, ",\"sent_model\":"), up ? claw_req_sent_model(r) : CLAW_STR(""));
        at = outcome(at, r);
        at = digits(RAW(at, ",\"generation\":"), r->gen->gen->id);
        if (r->log_fields.len) at = raw(RAW(at, ","), r->log_fields);
        at = RAW(at, "}\n");
        CLAW_ASSERT((size_t)(at - start) <= room);
        b->len += (size_t)(at - start);
    }
    claw_log_end(b); /* without its newline the line is dropped and counted */
}
