#include "proxy/answer.h"

#include "base/cursor.h"
#include "proxy/pipeline.h"
#include "proxy/recall.h"
#include "proxy/transcript.h"

/* Of an upstream's answer these do not concern the client: hop-by-hop and framing fields are this connection's own,
 * cookies would tie clients of one pool together. */
static bool stays_here(const struct claw_head *from, const struct claw_header *h)
{
    switch (h->id) {
    case CLAW_H_CONTENT_LENGTH: case CLAW_H_TRANSFER_ENCODING: case CLAW_H_CONNECTION: case CLAW_H_KEEP_ALIVE: case CLAW_H_TRAILER:
    case CLAW_H_UPGRADE: case CLAW_H_SET_COOKIE: case CLAW_H_PROXY_AUTHENTICATE: case CLAW_H_PROXY_CONNECTION: return true;
    default: break;
    }
    if (h->name.len > 11 && (h->name.ptr[0] | 32) == 'x' && strncasecmp(h->name.ptr, "x-openclaw-", 11) == 0) return true;
    return claw_head_hop(from, h);
}

/* What was written anew has a type of its own, and is not coded. */
static bool tells_of_body(const struct claw_header *h)
{
    return h->id == CLAW_H_CONTENT_TYPE || h->id == CLAW_H_CONTENT_ENCODING;
}

static inline char *put_field(char *at, struct claw_str name, struct claw_str value)
{
    at = claw_cursor_put(CLAW_CURSOR_PUT(claw_cursor_put(at, name), ": "), value);
    return CLAW_CURSOR_PUT(at, "\r\n");
}

static char *put_number(char *at, struct claw_str name, uint64_t n)
{
    at = claw_cursor_number(CLAW_CURSOR_PUT(claw_cursor_put(at, name), ": "), n);
    return CLAW_CURSOR_PUT(at, "\r\n");
}

/* Names and models come from files and clients: what is no field value, or longer than clients take one, is left out. */
static char *put_checked(char *at, struct claw_str name, struct claw_str value)
{
    return value.len && value.len <= 1024 && claw_h1_is_value(value) ? put_field(at, name, value) : at;
}

static char *put_own(char *at, struct claw_req *r)
{
    const struct claw_generation_upstream *up = claw_recall_answers(r) || r->early ? NULL : claw_req_upstream(r);
    at = put_field(at, CLAW_STR("x-openclaw-request-id"), (struct claw_str){r->id, 32});
    at = put_checked(at, CLAW_STR("x-openclaw-route"), claw_req_route_id(r));
    if (up) at = put_checked(at, CLAW_STR("x-openclaw-upstream"), up->conf->name);
    if (up) at = put_checked(at, CLAW_STR("x-openclaw-model"), claw_req_sent_model(r));
    at = put_number(at, CLAW_STR("x-openclaw-attempts"), r->attempts_n);
    if (r->recalled == CLAW_RECALL_BYPASS) at = CLAW_CURSOR_PUT(at, "x-openclaw-cache: bypass\r\n");
    else at = put_field(at, CLAW_STR("x-openclaw-cache"), claw_recall_word(r));
    at = put_number(at, CLAW_STR("x-openclaw-overhead-us"), r->overhead_us);
    if (r->cost_micros >= 0) {
        at = claw_cursor_micros(CLAW_CURSOR_PUT(at, "x-openclaw-cost-usd: "), (uint64_t)r->cost_micros);
        at = CLAW_CURSOR_PUT(at, "\r\n");
    }
    return at;
}

/* Did a policy set this field, or take it away? */
static bool is_set(const struct claw_req *r, struct claw_str name)
{
    for (size_t i = 0; i < r->answer_headers_n; i++)
        if (claw_str_ieq(r->answer_headers[i].name, name)) return true;
    return false;
}

/* The upstream's fields that concern the client. With `mask` a secret in a value is "***": of error answers some repeat the key in a field. What the
 * body is made of is told as it is: it may be what openclaw.yaml has as the value of a header, which counts as secret. */
static char *put_upstreams(char *at, const struct claw_req *r, const struct claw_head *from, bool typed, bool mask)
{
    for (size_t i = 0; i < from->n; i++) {
        const struct claw_header *h = &from->headers[i];
        if (stays_here(from, h) || is_set(r, h->name) || (typed && tells_of_body(h))) continue;
        at = put_field(at, h->name, h->value);
        if (!mask || tells_of_body(h) || h->value.len == 0) continue;
        struct claw_buf value = {.data = at - 2 - h->value.len, .len = h->value.len};
        claw_log_redact(&value);
        at = CLAW_CURSOR_PUT(value.data + value.len, "\r\n");
    }
    return at;
}

int claw_answer_head(struct claw_req *r, int status, const struct claw_head *from, struct claw_str type, struct claw_str *out)
{
    bool expose = claw_req_conf(r)->server.expose_headers;
    const struct claw_generation_upstream *up = claw_req_upstream(r);
    struct claw_str reason = claw_str_of(claw_h1_reason(status));
    r->ttfb_us = claw_req_elapsed_us(r); /* it leaves in this callback */
    r->overhead_us = r->ttfb_us - r->waited_us;
    size_t most = 160 + reason.len + type.len + r->dropped.len;
    for (size_t i = 0; i < r->answer_headers_n; i++) most += r->answer_headers[i].name.len + r->answer_headers[i].value.len + 4;
    for (size_t i = 0; from && i < from->n; i++) most += from->headers[i].name.len + from->headers[i].value.len + 4;
    if (expose) most += 320 + claw_req_route_id(r).len + claw_req_sent_model(r).len + (up ? up->conf->name.len : 0);
    char *start = claw_arena_alloc(&r->arena, most), *at = start;
    if (!start) return CLAW_EREQ_MEM;
    at = CLAW_CURSOR_PUT(claw_cursor_number(CLAW_CURSOR_PUT(at, "HTTP/1.1 "), (uint64_t)status), " ");
    at = CLAW_CURSOR_PUT(claw_cursor_put(at, reason), "\r\n");
    if (from) {
        char *fields = at;
        at = put_upstreams(fields, r, from, type.len, false);
        if (claw_log_quotes_secret((struct claw_str){fields, (size_t)(at - fields)})) at = put_upstreams(fields, r, from, type.len, true);
    }
    if ((!from || type.len) && !is_set(r, CLAW_STR("content-type"))) at = put_field(at, CLAW_STR("content-type"), type.len ? type : CLAW_STR("application/json"));
    if (r->dropped.len) at = put_field(at, CLAW_STR("x-openclaw-dropped"), r->dropped);
    for (size_t i = 0; i < r->answer_headers_n; i++)
        if (r->answer_headers[i].value.ptr) at = put_field(at, r->answer_headers[i].name, r->answer_headers[i].value);
    if (r->recalled == CLAW_RECALL_HIT) at = put_number(at, CLAW_STR("age"), r->age_s);
    if (expose) at = put_own(at, r);
    CLAW_ASSERT((size_t)(at - start) <= most);
    *out = (struct claw_str){start, (size_t)(at - start)};
    return 0;
}

struct claw_envelope claw_answer_envelope_of(const struct claw_req *r, int status, struct claw_str message, const char *type, const char *code)
{
    return (struct claw_envelope){(enum claw_dialect)r->dialect, status, message, type, code, r->error_param, {r->id, 32}};
}

void claw_answer_own(struct claw_req *r, int status, struct claw_str type, struct claw_str body)
{
    struct claw_str head;
    CLAW_ASSERT(r->commit == CLAW_HELD);
    if (!r->conn) return;
    r->status = status;
    r->commit = CLAW_DONE;
    if (claw_answer_head(r, status, NULL, type, &head) != 0) {
        claw_conn_abort(r->conn);
        r->conn = NULL;
        return;
    }
    uv_buf_t b = uv_buf_init((char *)body.ptr, (unsigned)body.len);
    claw_conn_reply(r->conn, status, head, (int64_t)body.len);
    int rc = claw_conn_send(r->conn, &b, 1, true);
    (void)rc; /* queued or broken: the connection looks after itself once the answer ended */
    r->bytes_out = body.len;
    if (r->transcript) claw_transcript_said(r, &b, 1);
    r->conn = NULL;
}

void claw_answer_error(struct claw_req *r, int status, struct claw_str message, const char *type, const char *code)
{
    struct claw_buf b;
    if (!r->conn) return;
    claw_buf_init(&b, 0);
    struct claw_envelope e = claw_answer_envelope_of(r, status, message, type, code);
    if (claw_envelope_write(&b, &e) == 0) {
        claw_log_redact(&b); /* a message may be the upstream's, and quote a key */
        claw_answer_own(r, status, CLAW_STR(""), claw_buf_str(&b));
    } else {
        r->status = status;
        r->commit = CLAW_DONE;
        claw_conn_abort(r->conn);
        r->conn = NULL;
    }
    claw_buf_fini(&b);
}
