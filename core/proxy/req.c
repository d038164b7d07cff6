#include "base/cursor.h"
#include "base/tokens.h"
#include "proxy/pipeline.h"
#include "proxy/token.h"
#include "proxy/trace.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define REQ_MAGIC 0x72657120u
#define REQ_BYTES 5632u             /* the struct and its arena's first block: what an open stream costs */
#define REQ_ARENA_CAP (8u << 20)    /* beside bodies, which have bounds of their own */
#define SPARE_MAX 256u

static uint64_t next_serial(void)
{
    static _Atomic uint64_t serial;
    return atomic_fetch_add_explicit(&serial, 1, memory_order_relaxed) + 1;
}

/* Eight hex digits at once: a nibble a byte, then 'a' - '0' - 10 more where it is over nine. */
static void hex8(char *to, uint32_t v)
{
    uint64_t x = v;
    x = (x | x << 16) & 0x0000ffff0000ffffu;
    x = (x | x << 8) & 0x00ff00ff00ff00ffu;
    x = (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
    uint64_t over = ((x + 0x0606060606060606u) >> 4) & 0x0101010101010101u;
    x += 0x3030303030303030u + over * 39;
    memcpy(to, &x, 8);
}

/* 128 bits: random per thread, then counted on and mixed, so that ids cost no system call and tell nothing. */
static void make_id(char *to)
{
    static __thread uint64_t state[2];
    if (!state[0] && getrandom(state, sizeof state, 0) != (ssize_t)sizeof state) state[0] = claw_loop_clock_us() | 1;
    for (int half = 0; half < 2; half++) {
        uint64_t z = state[half] += half ? 0x9e3779b97f4a7c15u : 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        hex8(to + 16 * half, (uint32_t)z);
        hex8(to + 16 * half + 8, (uint32_t)(z >> 32));
    }
    to[32] = 0;
}

struct claw_req *claw_req_new(struct claw_worker_ctx *ctx, struct claw_conn *c)
{
    struct claw_req *r = ctx->spare;
    if (r) {
        ctx->spare = r->next;
        ctx->spare_n--;
    } else if (!(r = malloc(REQ_BYTES))) {
        return NULL;
    }
    memset(r, 0, sizeof *r);
    r->magic = REQ_MAGIC;
    r->ctx = ctx;
    r->conn = c;
    r->gen = claw_generation_local_pin(ctx->current);
    r->serial = next_serial();
    r->route = -1;
    r->cost_micros = -1;
    r->usage = CLAW_USAGE_NONE;
    r->start_us = claw_loop_clock_us();
    make_id(r->id);
    if (c) memcpy(r->peer, c->peer, sizeof r->peer);
    claw_buf_init(&r->body, r->gen->gen->conf->server.max_body_bytes);
    claw_buf_init(&r->out_body, 0);
    claw_arena_init(&r->arena, r->first, REQ_BYTES - offsetof(struct claw_req, first), REQ_ARENA_CAP);
    r->next = ctx->requests;
    if (ctx->requests) ctx->requests->prev = r;
    ctx->requests = r;
    ctx->requests_n++;
    return r;
}

void claw_req_free(struct claw_req *r)
{
    struct claw_worker_ctx *ctx = r->ctx;
    CLAW_ASSERT(r->magic == REQ_MAGIC && !r->client && !r->lease.endpoint);
    if (r->prev) r->prev->next = r->next;
    else ctx->requests = r->next;
    if (r->next) r->next->prev = r->prev;
    ctx->requests_n--;
    claw_buf_fini(&r->body);
    claw_buf_fini(&r->out_body);
    ctx->kept_bytes -= r->kept_bytes;
    free(r->prompt);
    claw_arena_reset(&r->arena);
    r->magic = 0;
    claw_generation_local_unpin(r->gen);
    if (ctx->spare_n >= SPARE_MAX) {
        free(r);
        return;
    }
    r->next = ctx->spare;
    ctx->spare = r;
    ctx->spare_n++;
}

bool claw_req_keep_prompt(struct claw_req *r)
{
    size_t size = claw_buf_size(&r->body);
    if (r->prompt_tokens || !r->has_json) return false;
    if (size <= CLAW_TOKENS_SAMPLE) return true;
    if (r->ctx->kept_bytes + size <= CLAW_REQ_KEPT_BYTES) {
        r->kept_bytes = size;
        r->ctx->kept_bytes += size;
        return true;
    }
    if ((r->prompt = malloc(sizeof *r->prompt))) claw_tokens_take_request(r->prompt, claw_buf_str(&r->body));
    return false;
}

int64_t claw_req_prompt_tokens(struct claw_req *r)
{
    if (r->prompt_tokens == 0 && r->prompt) r->prompt_tokens = claw_tokens_of_prompt(r->prompt);
    else if (r->prompt_tokens == 0 && r->has_json) r->prompt_tokens = claw_tokens_of_request(claw_buf_str(&r->body));
    return r->prompt_tokens ? r->prompt_tokens : -1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place; what is no %XX stands for itself. */
static size_t percent_decode(char *s, size_t n)
{
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        bool coded = s[i] == '%' && i + 2 < n && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0;
        s[to++] = coded ? (char)(hex_digit(s[i + 1]) << 4 | hex_digit(s[i + 2])) : s[i];
        if (coded) i += 2;
    }
    return to;
}

int claw_req_read_path(struct claw_req *r)
{
    struct claw_str model;
    r->dialect = r->sent_as = (uint8_t)claw_dialect_of_path(r->head->path, &model, &r->stream);
    if (model.len == 0) return 0;
    struct claw_str query = r->head->query;
    struct claw_h1_parameter one;
    r->array = r->stream;
    while (claw_h1_next_parameter(&query, &one))
        if (claw_str_eqz(one.whole, "alt=sse")) r->array = false;
    char *copy = claw_arena_dup(&r->arena, model.ptr, model.len);
    if (!copy) return CLAW_EREQ_MEM;
    r->model = (struct claw_str){copy, percent_decode(copy, model.len)};
    return 0;
}

void claw_req_cancel_upstream(struct claw_req *r)
{
    claw_pool_cancel(&r->lease);
    struct claw_client *c = r->client;
    r->client = NULL;
    if (c) claw_client_cancel(c);
}

uint32_t claw_req_elapsed_us(const struct claw_req *r)
{
    uint64_t us = claw_loop_clock_us() - r->start_us;
    return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX; /* 71 minutes: a longer one stands still, no difference goes wrong */
}

void claw_req_waited(struct claw_req *r)
{
    uint32_t now = claw_req_elapsed_us(r);
    r->waited_us += now - r->wait_from_us;
    r->wait_from_us = now;
}

/* ---- the upstream's head ----------------------------------------------------------------------------------------- */

static bool proxy_writes(enum claw_header_id id)
{
    switch (id) {
    case CLAW_H_HOST: case CLAW_H_CONTENT_LENGTH: case CLAW_H_TRANSFER_ENCODING: case CLAW_H_CONNECTION: case CLAW_H_KEEP_ALIVE:
    case CLAW_H_UPGRADE: case CLAW_H_TE: case CLAW_H_TRAILER: case CLAW_H_EXPECT: case CLAW_H_PROXY_CONNECTION: return true;
    default: return false;
    }
}

/* Credentials and what tells about the client stay here; the rest of the end-to-end fields goes on. */
static bool stays_here(enum claw_header_id id)
{
    switch (id) {
    case CLAW_H_AUTHORIZATION: case CLAW_H_X_API_KEY: case CLAW_H_API_KEY: case CLAW_H_X_GOOG_API_KEY: case CLAW_H_COOKIE:
    case CLAW_H_PROXY_AUTHORIZATION: case CLAW_H_PROXY_AUTHENTICATE: case CLAW_H_ACCEPT_ENCODING: case CLAW_H_FORWARDED:
    case CLAW_H_X_FORWARDED_FOR: case CLAW_H_X_FORWARDED_HOST: case CLAW_H_X_FORWARDED_PROTO: case CLAW_H_X_REAL_IP: return true;
    default: return proxy_writes(id);
    }
}

static bool is_own(struct claw_str name)
{
    return name.len > 11 && (name.ptr[0] | 32) == 'x' && strncasecmp(name.ptr, "x-openclaw-", 11) == 0;
}

/* Put a field into one of the request's lists. */
static int put_in(struct claw_req *r, struct claw_conf_header **list, size_t *n, size_t *cap, struct claw_str name, struct claw_str value)
{
    if (!claw_h1_is_token(name) || (value.ptr && !claw_h1_is_value(value)) || proxy_writes(claw_header_id_of(name))) return CLAW_EINVAL;
    struct claw_conf_header h = {{claw_arena_dup(&r->arena, name.ptr, name.len), name.len}, {NULL, 0}};
    if (value.ptr) h.value = (struct claw_str){claw_arena_dup(&r->arena, value.ptr, value.len), value.len};
    if (!h.name.ptr || (value.ptr && !h.value.ptr)) return CLAW_EREQ_MEM;
    for (size_t i = 0; i < *n; i++) {
        if (!claw_str_ieq((*list)[i].name, name)) continue;
        (*list)[i] = h;
        return 0;
    }
    if (*n == *cap) {
        size_t more = *cap ? *cap * 2 : 8;
        void *grown = claw_arena_grow(&r->arena, *list, *cap * sizeof h, more * sizeof h);
        if (!grown) return CLAW_EREQ_MEM;
        *list = grown;
        *cap = more;
    }
    (*list)[(*n)++] = h;
    return 0;
}

int claw_req_set_header(struct claw_req *r, struct claw_str name, struct claw_str value)
{
    return put_in(r, &r->out_headers, &r->out_headers_n, &r->out_headers_cap, name, value);
}

int claw_req_set_answer_header(struct claw_req *r, struct claw_str name, struct claw_str value)
{
    if (is_own(name)) return CLAW_EINVAL;
    return put_in(r, &r->answer_headers, &r->answer_headers_n, &r->answer_headers_cap, name, value);
}

/* CGI and its heirs (WSGI, Rack, PHP) know no difference between X_Api_Key and X-Api-Key: the former would stand in for ours. */
static bool hyphened(const struct claw_header *h, char *room, size_t n, struct claw_header *out)
{
    if (h->id != CLAW_H_OTHER || h->name.len > n || !memchr(h->name.ptr, '_', h->name.len)) return false;
    for (size_t i = 0; i < h->name.len; i++) room[i] = h->name.ptr[i] == '_' ? '-' : h->name.ptr[i];
    *out = (struct claw_header){.name = {room, h->name.len}, .value = h->value};
    out->id = claw_header_id_of(out->name);
    return true;
}

static bool passes(const struct claw_req *r, const struct claw_generation_upstream *up, const struct claw_header *h)
{
    char name[64];
    struct claw_header twin;
    if (hyphened(h, name, sizeof name, &twin) && !passes(r, up, &twin)) return false;
    if (stays_here(h->id) || claw_head_hop(r->head, h)) return false;
    if (is_own(h->name)) return false;
    if (r->trace && (h->id == CLAW_H_TRACEPARENT || h->id == CLAW_H_TRACESTATE)) return false;
    for (size_t i = 0; i < up->own_n; i++)
        if (claw_str_ieq(up->own[i], h->name)) return false;
    for (size_t i = 0; i < r->out_headers_n; i++)
        if (claw_str_ieq(r->out_headers[i].name, h->name)) return false;
    return true;
}

/* Unless a policy or the upstream's own headers say where the attempt belongs. */
static bool traces(const struct claw_req *r, const struct claw_generation_upstream *up)
{
    struct claw_str name = CLAW_STR("traceparent");
    if (!r->trace) return false;
    for (size_t i = 0; i < up->own_n; i++)
        if (claw_str_ieq(up->own[i], name)) return false;
    for (size_t i = 0; i < r->out_headers_n; i++)
        if (claw_str_ieq(r->out_headers[i].name, name)) return false;
    return true;
}

static bool has_parameter(struct claw_str query, struct claw_str name)
{
    struct claw_h1_parameter one;
    while (claw_h1_next_parameter(&query, &one))
        if (claw_str_eq(one.name, name)) return true;
    return false;
}

/* The client's query behind `own`, which the path has already: what that says counts. A client's key in the query (Gemini's
 * ?key=) is a credential like those in fields. */
static size_t write_query(char *to, struct claw_str query, const struct claw_str *own)
{
    char *at = to;
    struct claw_h1_parameter one;
    while (claw_h1_next_parameter(&query, &one)) {
        if (claw_str_eqz(one.name, "key") || claw_str_eqz(one.name, "api_key") || (own && has_parameter(*own, one.name))) continue;
        *at = at == to && !own ? '?' : '&';
        at++;
        memcpy(at, one.whole.ptr, one.whole.len);
        at += one.whole.len;
    }
    return (size_t)(at - to);
}

static size_t write_encoded(char *to, struct claw_str s)
{
    static const char digits[] = "0123456789ABCDEF";
    char *at = to;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || memchr("-._~@", c, 5) != NULL;
        if (plain) {
            *at++ = (char)c;
        } else {
            *at++ = '%';
            *at++ = digits[c >> 4];
            *at++ = digits[c & 15];
        }
    }
    return (size_t)(at - to);
}

/* The provider's path for what this attempt speaks, with the model in its place. */
static int fill_template(struct claw_req *r, struct claw_str template, struct claw_str *out)
{
    struct claw_str mark = CLAW_STR("{model}"), model = claw_req_sent_model(r);
    ptrdiff_t at = claw_str_find(template, mark);
    *out = template;
    if (at < 0) return 0;
    char *to = claw_arena_alloc(&r->arena, template.len + 3 * model.len);
    if (!to) return CLAW_EREQ_MEM;
    memcpy(to, template.ptr, (size_t)at);
    size_t n = (size_t)at + write_encoded(to + at, model), rest = (size_t)at + mark.len;
    memcpy(to + n, template.ptr + rest, template.len - rest);
    *out = (struct claw_str){to, n + template.len - rest};
    return 0;
}

/* The bytes of a client's path that base_url stands for, when it has a path of its own: a leading "/v1", or the version that
 * base_url itself ends with ("/v1beta"). */
static size_t covered(struct claw_str base, struct claw_str path)
{
    const char *slash = base.len ? memrchr(base.ptr, '/', base.len) : NULL;
    if (!slash) return 0;
    struct claw_str ends[] = {CLAW_STR("/v1"), {slash, (size_t)(base.ptr + base.len - slash)}};
    for (unsigned i = 0; i < 2; i++) {
        size_t n = ends[i].len;
        bool version = n > 2 && ends[i].ptr[1] == 'v' && ends[i].ptr[2] >= '1' && ends[i].ptr[2] <= '9';
        if (version && claw_str_starts(path, ends[i]) && (path.len == n || path.ptr[n] == '/')) return n;
    }
    return 0;
}

/* What stands behind base_url's path: what a policy set; where the provider speaks this dialect; or the client's path. */
static int target_path(struct claw_req *r, const struct claw_generation_upstream *up, struct claw_str *out)
{
    struct claw_str p = r->out_path.len ? r->out_path : r->head->path, template = up->paths[r->sent_as][r->stream];
    *out = p;
    if (r->out_path.len) return 0;
    if (template.len && (r->translated || claw_str_eqz(r->head->method, "POST"))) return fill_template(r, template, out);
    size_t n = covered(up->conf->url.path, p);
    *out = (struct claw_str){p.ptr + n, p.len - n};
    return 0;
}

static char *put_field(char *at, struct claw_str name, struct claw_str value)
{
    at = claw_cursor_put(at, name);
    *at++ = ':';
    *at++ = ' ';
    at = claw_cursor_put(at, value);
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

static char *put_length(char *at, size_t n)
{
    return CLAW_CURSOR_PUT(claw_cursor_number(CLAW_CURSOR_PUT(at, "content-length: "), n), "\r\n");
}

static bool is_set(const struct claw_req *r, struct claw_str name)
{
    for (size_t i = 0; i < r->out_headers_n; i++)
        if (claw_str_ieq(r->out_headers[i].name, name)) return true;
    return false;
}

unsigned claw_req_key(const struct claw_req *r)
{
    unsigned key = r->attempts_n && r->attempt < CLAW_ATTEMPTS_MAX ? r->attempts[r->attempt].key : 0;
    return key == CLAW_NO_KEY ? 0 : key;
}

int claw_req_write_head(struct claw_req *r, size_t body_bytes, struct claw_str *out)
{
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    struct claw_str fixed = up->heads[up->heads_n > 1 ? claw_req_key(r) : 0];
    struct claw_str path, query = r->translated ? CLAW_STR("") : r->head->query;
    if (target_path(r, up, &path) != 0) return CLAW_EREQ_MEM;
    const char *mark = path.len ? memchr(path.ptr, '?', path.len) : NULL;
    struct claw_str own = mark ? (struct claw_str){mark + 1, (size_t)(path.ptr + path.len - mark - 1)} : CLAW_STR("");
    struct claw_token *t = up->asks_token ? r->gen->tokens[r->candidates[r->candidate].upstream] : NULL;
    struct claw_str token = t ? claw_token_text(t) : CLAW_STR("");
    bool sized = body_bytes > 0 || r->head->content_length >= 0 || r->head->chunked;
    size_t most = r->head->method.len + up->conf->url.path.len + path.len + query.len + fixed.len + token.len + 112;
    for (size_t i = 0; i < r->head->n; i++) most += r->head->headers[i].name.len + r->head->headers[i].value.len + 4;
    for (size_t i = 0; i < r->out_headers_n; i++) most += r->out_headers[i].name.len + r->out_headers[i].value.len + 4;
    bool traced = traces(r, up);
    if (traced) most += claw_trace_room(r);
    char *start = claw_arena_alloc(&r->arena, most), *at = start;
    if (!start) return CLAW_EREQ_MEM;
    at = claw_cursor_put(at, r->head->method);
    *at++ = ' ';
    at = claw_cursor_put(at, up->conf->url.path);
    at = claw_cursor_put(at, path.len || up->conf->url.path.len ? path : CLAW_STR("/"));
    at += write_query(at, query, mark ? &own : NULL);
    at = CLAW_CURSOR_PUT(at, " HTTP/1.1\r\n");
    if (r->out_headers_n == 0) {
        at = claw_cursor_put(at, fixed);
    } else { /* a policy may replace or remove one of the fixed fields */
        while (fixed.len) {
            const char *nl = memchr(fixed.ptr, '\n', fixed.len);
            struct claw_str line = {fixed.ptr, (size_t)(nl - fixed.ptr) + 1};
            struct claw_str name = {line.ptr, (size_t)((const char *)memchr(line.ptr, ':', line.len) - line.ptr)};
            if (!is_set(r, name)) at = claw_cursor_put(at, line);
            fixed.ptr += line.len;
            fixed.len -= line.len;
        }
    }
    for (size_t i = 0; i < r->head->n; i++)
        if (passes(r, up, &r->head->headers[i])) at = put_field(at, r->head->headers[i].name, r->head->headers[i].value);
    for (size_t i = 0; i < r->out_headers_n; i++)
        if (r->out_headers[i].value.ptr) at = put_field(at, r->out_headers[i].name, r->out_headers[i].value);
    if (traced) at = claw_trace_put(r, at);
    if (token.len && !is_set(r, CLAW_STR("authorization"))) {
        at = CLAW_CURSOR_PUT(at, "authorization: Bearer ");
        at = CLAW_CURSOR_PUT(claw_cursor_put(at, token), "\r\n");
    }
    if (body_bytes == CLAW_REQ_CHUNKED) at = put_field(at, CLAW_STR("transfer-encoding"), CLAW_STR("chunked"));
    else if (sized) at = put_length(at, body_bytes);
    *at++ = '\r';
    *at++ = '\n';
    CLAW_ASSERT((size_t)(at - start) <= most);
    *out = (struct claw_str){start, (size_t)(at - start)};
    return 0;
}

int claw_req_sign_head(struct claw_req *r, const uv_buf_t *body, unsigned n, struct claw_str *head)
{
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    if (!up->signs) return 0;
    struct claw_sigv4_day *day = &r->gen->days[r->candidates[r->candidate].upstream];
    return claw_sigv4_head(*head, body, n, (int64_t)time(NULL), &up->conf->aws, CLAW_GENERATION_SERVICE, day, &r->arena, head) == 0 ? 0 : CLAW_EREQ_MEM;
}
