#include "proxy/trace.h"

#include "base/cursor.h"
#include "proxy/collector.h"
#include "proxy/pipeline.h"
#include "proxy/recall.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STATE_MEMBERS 32u
#define STATE_BYTES 2048u /* more than the 512 that have to be passed on */
#define USUAL_BYTES 4096u /* of a request's spans */
#define TEXT_BYTES 256u   /* of what a client or an upstream made up */

/* ---- W3C Trace Context ------------------------------------------------------------------------------------------------ */

/* Lower case only. -1: no digit. */
static int hex_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n hex digits, not all of them 0 when `some`. */
static bool is_hex(const char *s, size_t n, bool some)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (hex_of(s[i]) < 0) return false;
        any |= s[i] != '0';
    }
    return any || !some;
}

bool claw_trace_read_parent(struct claw_str v, struct claw_trace *t)
{
    const char *s = v.ptr;
    if (v.len < CLAW_TRACE_PARENT || s[2] != '-' || s[35] != '-' || s[52] != '-') return false;
    if (!is_hex(s, 2, false) || !is_hex(s + 3, 32, true) || !is_hex(s + 36, 16, true) || !is_hex(s + 53, 2, false)) return false;
    bool first = s[0] == '0' && s[1] == '0', never = s[0] == 'f' && s[1] == 'f';
    if (never || (first && v.len != CLAW_TRACE_PARENT) || (v.len > CLAW_TRACE_PARENT && s[CLAW_TRACE_PARENT] != '-')) return false;
    memcpy(t->id, s + 3, 32);
    memcpy(t->parent, s + 36, 16);
    t->id[32] = t->parent[16] = 0;
    t->flags = (uint8_t)((hex_of(s[53]) << 4 | hex_of(s[54])) & (CLAW_TRACE_SAMPLED | CLAW_TRACE_RANDOM));
    return true;
}

/* lcalpha or digit first, then those and _, -, * and /; of two parts the second, behind @, is a system's. */
static bool is_key(struct claw_str k)
{
    const char *at = k.len ? memchr(k.ptr, '@', k.len) : NULL;
    size_t tenant = at ? (size_t)(at - k.ptr) : 0, from = at ? tenant + 1 : 0;
    if (!k.len || k.len > 256 || (at && (tenant < 1 || tenant > 241 || k.len - from < 1 || k.len - from > 14))) return false;
    for (size_t i = 0; i < k.len; i++) {
        char c = k.ptr[i];
        bool letter = c >= 'a' && c <= 'z', digit = c >= '0' && c <= '9';
        if (at && i == tenant) continue;
        if (i == from ? !letter && !(digit && !at) : i == 0 ? !letter && !digit : !letter && !digit && !memchr("_-*/", c, 4)) return false;
    }
    return true;
}

static bool is_member_value(struct claw_str v)
{
    if (!v.len || v.len > 256 || v.ptr[v.len - 1] == ' ') return false;
    for (size_t i = 0; i < v.len; i++)
        if (v.ptr[i] < ' ' || v.ptr[i] > '~' || v.ptr[i] == ',' || v.ptr[i] == '=') return false;
    return true;
}

bool claw_trace_is_state(struct claw_str v)
{
    struct claw_str keys[STATE_MEMBERS];
    unsigned n = 0;
    if (v.len > STATE_BYTES) return false;
    while (v.len) {
        const char *comma = memchr(v.ptr, ',', v.len);
        struct claw_str one = claw_str_trim((struct claw_str){v.ptr, comma ? (size_t)(comma - v.ptr) : v.len});
        v = comma ? (struct claw_str){comma + 1, (size_t)(v.ptr + v.len - comma) - 1} : (struct claw_str){v.ptr, 0};
        if (!one.len) continue; /* empty members are allowed */
        const char *mark = memchr(one.ptr, '=', one.len);
        struct claw_str key = {one.ptr, mark ? (size_t)(mark - one.ptr) : 0};
        if (n == STATE_MEMBERS || !is_key(key) || !is_member_value((struct claw_str){mark + 1, one.len - key.len - 1})) return false;
        for (unsigned i = 0; i < n; i++)
            if (claw_str_eq(keys[i], key)) return false;
        keys[n++] = key;
    }
    return n > 0;
}

/* All fields of the name are one list. Without memory there is none. */
static struct claw_str state_of(struct claw_req *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->head->n; i++)
        if (r->head->headers[i].id == CLAW_H_TRACESTATE) n += r->head->headers[i].value.len + 1;
    char *start = n && n <= STATE_BYTES ? claw_arena_alloc(&r->arena, n) : NULL, *at = start;
    for (size_t i = 0; start && i < r->head->n; i++) {
        const struct claw_header *h = &r->head->headers[i];
        if (h->id != CLAW_H_TRACESTATE || !h->value.len) continue;
        if (at > start) *at++ = ',';
        memcpy(at, h->value.ptr, h->value.len);
        at += h->value.len;
    }
    struct claw_str all = {start, (size_t)(at - start)};
    return start && claw_trace_is_state(all) ? all : CLAW_STR("");
}

/* Two of them are none. */
static bool read_parent(const struct claw_req *r, struct claw_trace *t)
{
    const struct claw_header *found = NULL;
    for (size_t i = 0; i < r->head->n; i++) {
        if (r->head->headers[i].id != CLAW_H_TRACEPARENT) continue;
        if (found) return false;
        found = &r->head->headers[i];
    }
    return found && claw_trace_read_parent(found->value, t);
}

static uint64_t number_of(const char *hex16)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 16; i++) v = v << 4 | (uint64_t)hex_of(hex16[i]);
    return v;
}

/* By the trace's id, so that all who see a trace with the same ratio decide alike. */
static bool drawn(const struct claw_trace *t, double ratio)
{
    return (double)(number_of(t->id + 16) >> 11) < ratio * 9007199254740992.0; /* 2^53 */
}

int claw_trace_begin(struct claw_req *r)
{
    const struct claw_conf *conf = claw_req_conf(r);
    struct claw_trace *t = claw_arena_zalloc(&r->arena, sizeof *t);
    if (!t) return CLAW_EREQ_MEM;
    t->max_tokens = t->temperature = t->top_p = -1;
    if (conf->tracing.trust_parents && read_parent(r, t)) {
        t->state = state_of(r);
    } else {
        memcpy(t->id, r->id, sizeof t->id);
        if (drawn(t, conf->tracing.sample_ratio)) t->flags = CLAW_TRACE_SAMPLED;
    }
    r->trace = t;
    return 0;
}

static int64_t millionths(struct claw_json_value v)
{
    double d;
    return v.type == CLAW_JSON_NUMBER && claw_json_double(v, &d) == 0 && d >= 0 && d < 1e6 ? (int64_t)(d * 1e6 + 0.5) : -1;
}

/* Of the body, or of Gemini's part of it that has such. */
static struct claw_json_value said(const struct claw_req *r, struct claw_json_value part, const char *name)
{
    return part.type == CLAW_JSON_OBJECT ? claw_json_get(part, claw_str_of(name)) : claw_json_top_get(&r->json, claw_str_of(name));
}

void claw_trace_note(struct claw_req *r)
{
    static const char *const names[][3] = {{"max_tokens", "max_completion_tokens", "max_output_tokens"}, {"maxOutputTokens"}};
    struct claw_trace *t = r->trace;
    struct claw_json_value part = {0}, max = {0};
    if (!(t->flags & CLAW_TRACE_SAMPLED)) return;
    bool gemini = claw_dialect_is_gemini((enum claw_dialect)r->dialect);
    if (gemini) part = claw_json_top_get(&r->json, CLAW_STR("generationConfig"));
    for (unsigned i = 0; i < 3 && names[gemini][i] && max.type != CLAW_JSON_NUMBER; i++) max = said(r, part, names[gemini][i]);
    if (max.type != CLAW_JSON_NUMBER || claw_json_int(max, &t->max_tokens) != 0) t->max_tokens = -1;
    t->temperature = millionths(said(r, part, "temperature"));
    t->top_p = millionths(said(r, part, gemini ? "topP" : "top_p"));
}

/* ---- to the upstream ---------------------------------------------------------------------------------------------------- */

/* Of the server's span (which 0) and of each attempt's: made from the request's id, which is random. */
static void span_id(const struct claw_req *r, unsigned which, char to[17])
{
    uint64_t z = number_of(r->id) + (which + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    if (!z) z = 1;
    for (unsigned i = 16; i-- > 0; z >>= 4) to[i] = "0123456789abcdef"[z & 15];
    to[16] = 0;
}

size_t claw_trace_room(const struct claw_req *r) { return 2 * CLAW_TRACE_PARENT + r->trace->state.len; }

static char *put_parent(const struct claw_req *r, unsigned which, char *at)
{
    char span[17];
    span_id(r, which, span);
    at = claw_cursor_put(CLAW_CURSOR_PUT(at, "00-"), (struct claw_str){r->trace->id, 32});
    *at++ = '-';
    at = claw_cursor_put(at, (struct claw_str){span, 16});
    at = CLAW_CURSOR_PUT(at, "-0");
    *at++ = (char)('0' + r->trace->flags);
    return at;
}

void claw_trace_parent(const struct claw_req *r, char to[CLAW_TRACE_PARENT]) { put_parent(r, 0, to); }

char *claw_trace_put(const struct claw_req *r, char *at)
{
    const struct claw_trace *t = r->trace;
    at = put_parent(r, r->attempt + 1, CLAW_CURSOR_PUT(at, "traceparent: "));
    at = CLAW_CURSOR_PUT(at, "\r\n");
    if (!t->state.len) return at;
    return CLAW_CURSOR_PUT(claw_cursor_put(CLAW_CURSOR_PUT(at, "tracestate: "), t->state), "\r\n");
}

/* ---- spans ---------------------------------------------------------------------------------------------------------------- */

/* The first failure stays. */
struct writer {
    struct claw_buf *b;
    int rc;
    bool more;        /* of the list that is being written */
    uint64_t wall_us; /* Unix time of the clock's 0 */
};

static void text(struct writer *w, const char *z)
{
    if (w->rc == 0) w->rc = claw_buf_add_z(w->b, z);
}

/* printf would cost more than all the rest. */
static void number(struct writer *w, uint64_t n)
{
    if (w->rc == 0) w->rc = claw_buf_add_u64(w->b, n);
}

static void quoted(struct writer *w, struct claw_str s)
{
    if (s.len > TEXT_BYTES) { /* not within a character */
        s.len = TEXT_BYTES;
        while (s.len && ((unsigned char)s.ptr[s.len] & 0xc0) == 0x80) s.len--;
    }
    if (w->rc == 0) w->rc = claw_buf_add_json(w->b, s);
}

static void key(struct writer *w, const char *name)
{
    text(w, w->more ? ",{\"key\":\"" : "{\"key\":\"");
    text(w, name);
    text(w, "\",\"value\":{");
    w->more = true;
}

static void add_text(struct writer *w, const char *name, struct claw_str v)
{
    if (!v.len) return;
    key(w, name);
    text(w, "\"stringValue\":");
    quoted(w, v);
    text(w, "}}");
}

static void add_whole(struct writer *w, const char *name, int64_t v)
{
    if (v < 0) return; /* not known */
    key(w, name);
    text(w, "\"intValue\":\"");
    number(w, (uint64_t)v);
    text(w, "\"}}");
}

static void add_true(struct writer *w, const char *name, bool v)
{
    if (!v) return;
    key(w, name);
    text(w, "\"boolValue\":true}}");
}

static void add_micros(struct writer *w, const char *name, int64_t v)
{
    if (v < 0) return;
    key(w, name);
    text(w, "\"doubleValue\":");
    if (w->rc == 0) w->rc = claw_buf_add_micros(w->b, v);
    text(w, "}}");
}

static const char *operation(const struct claw_req *r)
{
    switch ((enum claw_dialect)r->dialect) {
    case CLAW_DIALECT_NONE: return "";
    case CLAW_DIALECT_OPENAI_COMPLETIONS: return "text_completion";
    case CLAW_DIALECT_GEMINI_GENERATE: return "generate_content";
    case CLAW_DIALECT_ANTHROPIC_COUNT: case CLAW_DIALECT_GEMINI_COUNT: return "count_tokens";
    default: return claw_dialect_embeds((enum claw_dialect)r->dialect) ? "embeddings" : "chat";
    }
}

/* As the conventions name those that they know. */
static struct claw_str provider(struct claw_str type)
{
    static const char *const names[][2] = {{"google", "gcp.gemini"}, {"gemini", "gcp.gemini"}, {"vertex", "gcp.vertex_ai"}, {"bedrock", "aws.bedrock"},
                                           {"azure", "azure.ai.openai"}, {"mistral", "mistral_ai"}, {"xai", "x_ai"}};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (claw_str_eqz(type, names[i][0])) return claw_str_of(names[i][1]);
    return type;
}

/* Up to the name, which follows. `parent` "": none; it is the client's where `remote`. */
static void begin_span(struct writer *w, const struct claw_req *r, unsigned which, const char *parent, bool remote)
{
    char id[17];
    span_id(r, which, id);
    text(w, "{\"traceId\":\"");
    text(w, r->trace->id);
    text(w, "\",\"spanId\":\"");
    text(w, id);
    text(w, *parent ? "\",\"parentSpanId\":\"" : "");
    text(w, parent);
    text(w, "\",\"flags\":");
    number(w, r->trace->flags | (remote ? 0x300u : 0x100u));
    if (r->trace->state.len && w->rc == 0) {
        text(w, ",\"traceState\":");
        if (w->rc == 0) w->rc = claw_buf_add_json(w->b, r->trace->state);
    }
    text(w, ",\"name\":");
}

/* In nanoseconds, as a string, and what follows it. */
static void moment(struct writer *w, const struct claw_req *r, uint32_t us, const char *behind)
{
    number(w, w->wall_us + r->start_us + us);
    text(w, "000\"");
    text(w, behind);
}

/* Behind the name. */
static void begin_attributes(struct writer *w, const struct claw_req *r, unsigned kind, uint32_t from_us, uint32_t to_us)
{
    text(w, ",\"kind\":");
    number(w, kind);
    text(w, ",\"startTimeUnixNano\":\"");
    moment(w, r, from_us, ",\"endTimeUnixNano\":\"");
    moment(w, r, to_us, ",\"attributes\":[");
    w->more = false;
}

static void add_status(struct writer *w, struct claw_str message)
{
    text(w, ",\"status\":{\"code\":2,\"message\":");
    quoted(w, message);
    text(w, "}");
}

static void add_usage(struct writer *w, const struct claw_req *r)
{
    add_whole(w, "gen_ai.usage.input_tokens", r->usage.input);
    add_whole(w, "gen_ai.usage.output_tokens", r->usage.output);
    if (r->usage.cached > 0) add_whole(w, "gen_ai.usage.cache_read.input_tokens", r->usage.cached);
    if (r->usage.written > 0) add_whole(w, "gen_ai.usage.cache_creation.input_tokens", r->usage.written);
    if (r->usage.reasoning > 0) add_whole(w, "gen_ai.usage.reasoning.output_tokens", r->usage.reasoning);
    add_true(w, "openclaw.usage_estimated", r->estimated);
    add_micros(w, "openclaw.cost_usd", r->cost_micros);
}

static struct claw_str sent_model(const struct claw_req *r, const struct claw_attempt *a)
{
    for (unsigned i = 0; i < r->candidates_n; i++)
        if (r->candidates[i].upstream == a->upstream) return r->candidates[i].model.len ? r->candidates[i].model : r->model;
    return r->model;
}

static void write_attempt(struct writer *w, const struct claw_req *r, unsigned i, const char *parent)
{
    const struct claw_attempt *a = &r->attempts[i];
    const struct claw_conf_upstream *up = r->gen->gen->upstreams[a->upstream].conf;
    struct claw_str model = sent_model(r, a);
    const char *what = operation(r);
    char name[TEXT_BYTES + 64];
    bool outrun = a->kind && strcmp(a->kind, "outrun") == 0;
    size_t shown = model.len < TEXT_BYTES ? model.len : TEXT_BYTES;
    int n = snprintf(name, sizeof name, "%s%s%.*s", *what ? what : "request", shown ? " " : "", (int)shown, shown ? model.ptr : "");
    begin_span(w, r, i + 1, parent, false);
    quoted(w, (struct claw_str){name, (size_t)n});
    begin_attributes(w, r, 3, a->start_us, a->end_us ? a->end_us : r->end_us);
    add_text(w, "gen_ai.operation.name", claw_str_of(what));
    add_text(w, "gen_ai.provider.name", provider(up->type));
    add_text(w, "gen_ai.request.model", model);
    add_true(w, "gen_ai.request.stream", r->stream);
    add_whole(w, "gen_ai.request.max_tokens", r->trace->max_tokens);
    add_micros(w, "gen_ai.request.temperature", r->trace->temperature);
    add_micros(w, "gen_ai.request.top_p", r->trace->top_p);
    if (a->ttfb_us && r->stream) add_micros(w, "gen_ai.response.time_to_first_chunk", a->ttfb_us - a->start_us);
    add_text(w, "http.request.method", r->head->method);
    add_text(w, "server.address", up->url.host);
    add_whole(w, "server.port", up->url.port);
    if (a->status) add_whole(w, "http.response.status_code", a->status);
    if (i) add_whole(w, "http.request.resend_count", i);
    add_text(w, "openclaw.upstream", up->name);
    if (a->several) add_whole(w, "openclaw.key", a->key);
    add_true(w, "openclaw.connection_reused", a->reused);
    if (outrun) add_true(w, "openclaw.outrun", true);
    else if (a->kind) add_text(w, "error.type", claw_str_of(a->kind));
    if (i == r->attempt && !claw_recall_answers(r)) add_usage(w, r);
    text(w, "]");
    if (a->kind && !outrun) add_status(w, i == r->attempt && r->upstream_error.len ? r->upstream_error : claw_str_of(a->kind));
    text(w, "}");
}

static void add_event(struct writer *w, const struct claw_req *r, const char *name, uint32_t us)
{
    text(w, w->more ? ",{\"name\":\"" : "{\"name\":\"");
    text(w, name);
    text(w, "\",\"timeUnixNano\":\"");
    moment(w, r, us, ",\"attributes\":[");
    w->more = false;
}

static void write_events(struct writer *w, const struct claw_req *r)
{
    bool raised = r->error == CLAW_EPOLICY;
    text(w, ",\"events\":[");
    w->more = false;
    if (r->ttfb_us) {
        add_event(w, r, "openclaw.answer_begins", r->ttfb_us);
        text(w, "]}");
        w->more = true;
    }
    if (raised) {
        add_event(w, r, "exception", r->end_us);
        add_text(w, "exception.type", claw_str_of(claw_err_kind(r->error)));
        add_text(w, "exception.message", r->upstream_error);
        text(w, "]}");
    }
    text(w, "]");
}

/* What the client did is no failure of this server's. */
static bool server_failed(const struct claw_req *r)
{
    bool left = r->error == CLAW_ECLIENT_GONE || r->error == CLAW_ESEND_STALL;
    return r->status >= 500 || (r->error && !left && r->status < 400);
}

static void write_server(struct writer *w, const struct claw_req *r)
{
    const struct claw_header *agent = claw_head_find_name(r->head, CLAW_STR("user-agent"));
    struct claw_str route = claw_req_route_id(r);
    char name[192], digits[16];
    int n = snprintf(name, sizeof name, "%.*s%s%.*s", CLAW_STR_FMT(r->head->method), route.len ? " " : "", CLAW_STR_FMT(route));
    begin_span(w, r, 0, r->trace->parent, *r->trace->parent);
    quoted(w, (struct claw_str){name, n < (int)sizeof name ? (size_t)n : sizeof name - 1});
    begin_attributes(w, r, 2, 0, r->end_us);
    add_text(w, "http.request.method", r->head->method);
    add_text(w, "url.scheme", claw_req_conf(r)->server.tls.cert ? CLAW_STR("https") : CLAW_STR("http"));
    add_text(w, "url.path", r->head->path);
    if (r->status) add_whole(w, "http.response.status_code", r->status);
    add_text(w, "client.address", claw_str_of(r->peer));
    if (agent) add_text(w, "user_agent.original", agent->value);
    add_text(w, "gen_ai.operation.name", claw_str_of(operation(r)));
    add_text(w, "gen_ai.request.model", r->model);
    add_text(w, "openclaw.request_id", (struct claw_str){r->id, 32});
    add_text(w, "openclaw.route", route);
    if (r->caller) add_text(w, "openclaw.client", r->caller->name);
    add_text(w, "openclaw.cache", claw_recall_word(r));
    add_text(w, "openclaw.answered_by", r->answered_by);
    add_whole(w, "openclaw.attempts", r->attempts_n);
    add_whole(w, "openclaw.overhead_us", r->overhead_us);
    add_whole(w, "openclaw.generation", (int64_t)r->gen->gen->id);
    if (r->error) add_text(w, "error.type", claw_str_of(claw_err_kind(r->error)));
    else if (r->status >= 500) add_text(w, "error.type", (struct claw_str){digits, (size_t)snprintf(digits, sizeof digits, "%d", r->status)});
    text(w, "]");
    write_events(w, r);
    if (server_failed(r)) add_status(w, r->error_text);
    text(w, "}");
}

unsigned claw_trace_write(const struct claw_req *r, struct claw_buf *out)
{
    struct timespec t;
    struct writer w = {.b = out};
    char parent[17];
    unsigned n = 1;
    clock_gettime(CLOCK_REALTIME, &t);
    w.wall_us = (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u - claw_loop_clock_us();
    span_id(r, 0, parent);
    w.rc = claw_buf_reserve(out, USUAL_BYTES);
    write_server(&w, r);
    for (unsigned i = 0; i < r->attempts_n && i < CLAW_ATTEMPTS_MAX; i++, n++) {
        text(&w, ",");
        write_attempt(&w, r, i, parent);
    }
    return w.rc == 0 ? n : 0;
}

void claw_trace_end(const struct claw_req *r)
{
    struct claw_buf b;
    if (!(r->trace->flags & CLAW_TRACE_SAMPLED) || !r->head) return;
    claw_buf_init(&b, 0);
    unsigned n = claw_trace_write(r, &b);
    claw_log_redact(&b);
    if (n) claw_collector_take(claw_buf_str(&b), n);
    claw_buf_fini(&b);
}
