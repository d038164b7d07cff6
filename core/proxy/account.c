#include "proxy/account.h"

#include "proxy/pipeline.h"

#include <stdio.h>

/* ---- usage ------------------------------------------------------------------------------------------------------- */

/* The object that begins at s.ptr, by its braces; "" when it does not end within s. */
static struct claw_str object_at(struct claw_str s)
{
    int depth = 0;
    bool text = false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (text) {
            if (c == '\\') i++;
            else if (c == '"') text = false;
        } else if (c == '"') {
            text = true;
        } else if (c == '{') {
            depth++;
        } else if (c == '}' && --depth == 0) {
            return (struct claw_str){s.ptr, i + 1};
        }
    }
    return CLAW_STR("");
}

static bool take(struct claw_json_value object, const char *key, int64_t *to)
{
    int64_t n;
    struct claw_json_value v = claw_json_get(object, claw_str_of(key));
    if (v.type != CLAW_JSON_NUMBER || claw_json_int(v, &n) != 0 || n < 0) return false;
    *to = n;
    return true;
}

static bool read_object(struct claw_json_value v, struct claw_usage *u)
{
    bool any = take(v, "prompt_tokens", &u->input) | take(v, "input_tokens", &u->input) | take(v, "promptTokenCount", &u->input);
    any |= take(v, "completion_tokens", &u->output) | take(v, "output_tokens", &u->output) | take(v, "candidatesTokenCount", &u->output);
    any |= take(claw_json_get(v, CLAW_STR("prompt_tokens_details")), "cached_tokens", &u->cached) |
           take(claw_json_get(v, CLAW_STR("input_tokens_details")), "cached_tokens", &u->cached) |
           take(v, "cache_read_input_tokens", &u->cached) | take(v, "cachedContentTokenCount", &u->cached);
    any |= take(claw_json_get(v, CLAW_STR("completion_tokens_details")), "reasoning_tokens", &u->reasoning) |
           take(claw_json_get(v, CLAW_STR("output_tokens_details")), "reasoning_tokens", &u->reasoning) |
           take(v, "thoughtsTokenCount", &u->reasoning);
    return any;
}

/* A quote inside a JSON string is escaped, so `"usage"` with both its quotes is always a key or a whole string. */
bool claw_usage_read(struct claw_str json, struct claw_usage *u)
{
    bool any = false;
    char memory[2048];
    struct claw_arena a;
    for (;;) {
        ptrdiff_t at = claw_str_find(json, CLAW_STR("\"usage"));
        if (at < 0) return any;
        json.ptr += at + 6;
        json.len -= (size_t)at + 6;
        if (claw_str_starts(json, CLAW_STR("Metadata\""))) {
            json.ptr += 8;
            json.len -= 8;
        }
        if (json.len == 0 || *json.ptr != '"') continue;
        size_t i = 1;
        while (i < json.len && (json.ptr[i] == ' ' || json.ptr[i] == ':' || json.ptr[i] == '\n' || json.ptr[i] == '\r' || json.ptr[i] == '\t')) i++;
        if (i >= json.len || json.ptr[i] != '{') continue;
        struct claw_str object = object_at((struct claw_str){json.ptr + i, json.len - i});
        if (object.len == 0) return any;
        struct claw_json_top top;
        struct claw_json_err err;
        claw_arena_init(&a, memory, sizeof memory, 64u << 10);
        if (claw_json_scan(object, &a, &top, &err) == 0) any |= read_object(top.root, u);
        claw_arena_reset(&a);
        json.ptr += i + object.len;
        json.len -= i + object.len;
    }
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
    char digits[8];
    int n = snprintf(digits, sizeof digits, "%u", a->status);
    struct claw_str labels[2] = {up->conf->name, a->status && !kind ? (struct claw_str){digits, (size_t)n} : claw_str_of(kind ? kind : claw_err_kind(code))};
    if (a->status >= 400) labels[1] = (struct claw_str){digits, (size_t)n};
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
    char digits[8];
    int n = snprintf(digits, sizeof digits, "%d", r->status);
    struct claw_str request[3] = {claw_req_route_id(r), {digits, (size_t)n}, r->head ? r->head->method : CLAW_STR("")};
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

/* Appending into the thread's log buffer: a failed append (out of memory) loses the line, nothing else. */
struct line {
    struct claw_buf *b;
    int rc;
};

static void raw(struct line *l, const char *z)
{
    if (l->rc == 0) l->rc = claw_buf_add_z(l->b, z);
}

static void text(struct line *l, const char *key, struct claw_str v)
{
    raw(l, key);
    if (l->rc == 0) l->rc = claw_buf_add_json(l->b, v);
}

static void whole(struct line *l, const char *key, uint64_t v)
{
    raw(l, key);
    if (l->rc == 0) l->rc = claw_buf_add_u64(l->b, v);
}

/* Milliseconds with three digits behind the point. */
static void millis(struct line *l, const char *key, uint64_t us)
{
    char d[4] = {'.', (char)('0' + us / 100 % 10), (char)('0' + us / 10 % 10), (char)('0' + us % 10)};
    whole(l, key, us / 1000);
    if (l->rc == 0) l->rc = claw_buf_add(l->b, d, 4);
}

static void tokens(struct line *l, const char *key, int64_t n)
{
    if (n >= 0) whole(l, key, (uint64_t)n);
}

static void attempts(struct line *l, struct claw_req *r)
{
    raw(l, ",\"attempts\":[");
    for (unsigned i = 0; i < r->attempts_n && i < CLAW_ATTEMPTS_MAX; i++) {
        const struct claw_attempt *a = &r->attempts[i];
        text(l, i ? ",{\"upstream\":" : "{\"upstream\":", r->gen->gen->upstreams[a->upstream].conf->name);
        whole(l, ",\"status\":", a->status);
        if (a->kind) text(l, ",\"kind\":", claw_str_of(a->kind));
        millis(l, ",\"ms\":", a->end_us > a->start_us ? a->end_us - a->start_us : 0);
        raw(l, "}");
    }
    raw(l, "]");
}

static void outcome(struct line *l, struct claw_req *r)
{
    whole(l, ",\"status\":", (uint64_t)r->status);
    attempts(l, r);
    if (r->ttfb_us) millis(l, ",\"ttfb_ms\":", r->ttfb_us);
    millis(l, ",\"duration_ms\":", r->end_us);
    whole(l, ",\"overhead_us\":", r->overhead_us);
    tokens(l, ",\"input_tokens\":", r->usage.input);
    tokens(l, ",\"output_tokens\":", r->usage.output);
    tokens(l, ",\"cached_tokens\":", r->usage.cached);
    tokens(l, ",\"reasoning_tokens\":", r->usage.reasoning);
    if (r->cost_micros >= 0) {
        raw(l, ",\"cost_usd\":");
        if (l->rc == 0) l->rc = claw_buf_add_micros(l->b, r->cost_micros);
    }
    raw(l, ",\"cache\":\"bypass\"");
    whole(l, ",\"bytes_in\":", r->bytes_in);
    whole(l, ",\"bytes_out\":", r->bytes_out);
    raw(l, r->stream ? ",\"stream\":true" : ",\"stream\":false");
    if (r->error) text(l, ",\"error\":", claw_str_of(claw_err_kind(r->error)));
    if (r->error_text.len) text(l, ",\"error_message\":", r->error_text);
    if (r->upstream_error.len) text(l, ",\"upstream_error\":", r->upstream_error);
}

void claw_account_log(struct claw_req *r)
{
    struct line l = {claw_log_begin(CLAW_LOG_INFO), 0};
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    if (!l.b) return;
    raw(&l, "{\"time\":\"");
    if (l.rc == 0) l.rc = claw_log_add_time(l.b);
    raw(&l, "\",\"level\":\"info\",\"msg\":\"request\"");
    text(&l, ",\"id\":", (struct claw_str){r->id, 32});
    text(&l, ",\"client\":", claw_str_of(r->peer));
    if (r->head) {
        text(&l, ",\"method\":", r->head->method);
        text(&l, ",\"path\":", r->head->path);
    }
    text(&l, ",\"route\":", claw_req_route_id(r));
    text(&l, ",\"upstream\":", up ? up->conf->name : CLAW_STR(""));
    text(&l, ",\"model\":", r->model);
    text(&l, ",\"sent_model\":", up ? claw_req_sent_model(r) : CLAW_STR(""));
    outcome(&l, r);
    whole(&l, ",\"generation\":", r->gen->gen->id);
    if (r->log_fields.len) {
        raw(&l, ",");
        if (l.rc == 0) l.rc = claw_buf_add_str(l.b, r->log_fields);
    }
    raw(&l, "}\n");
    claw_log_end(l.b);
}
