#include "proxy/decision_log.h"

#include "base/conf_schema.h"
#include "proxy/upload.h"

#define BODY_BYTES ((size_t)64 << 10)
#define HEADER_BYTES ((size_t)16 << 10) /* names and values that are kept */

static int add_member(struct claw_buf *b, const char *key, struct claw_str value)
{
    int rc = claw_buf_add_fmt(b, ",\"%s\":", key);
    return rc == CLAW_OK ? claw_buf_add_json(b, value) : rc;
}

static int add_headers(struct claw_buf *b, const struct claw_head *h)
{
    size_t bytes = 0;
    bool first = true;
    int rc = claw_buf_add_z(b, ",\"headers\":{");
    for (size_t i = 0; i < h->n && rc == CLAW_OK; i++) {
        const struct claw_header *x = &h->headers[i];
        bytes += x->name.len + x->value.len;
        if (claw_conf_key_secret(x->name) || bytes > HEADER_BYTES) continue;
        if (!first) rc = claw_buf_add_z(b, ",");
        first = false;
        if (rc == CLAW_OK) rc = claw_buf_add_json(b, x->name);
        if (rc == CLAW_OK) rc = claw_buf_add_z(b, ":");
        if (rc == CLAW_OK) rc = claw_buf_add_json(b, x->value);
    }
    return rc == CLAW_OK ? claw_buf_add_z(b, "}") : rc;
}

/* The query without parameters whose names are those of keys. */
static int add_query(struct claw_buf *b, struct claw_str query)
{
    struct claw_buf kept;
    claw_buf_init(&kept, 0);
    int rc = CLAW_OK;
    while (query.len && rc == CLAW_OK) {
        const char *amp = memchr(query.ptr, '&', query.len);
        struct claw_str one = {query.ptr, amp ? (size_t)(amp - query.ptr) : query.len};
        query.ptr += one.len + (amp != NULL);
        query.len -= one.len + (amp != NULL);
        const char *eq = memchr(one.ptr, '=', one.len);
        struct claw_str name = {one.ptr, eq ? (size_t)(eq - one.ptr) : one.len};
        if (claw_str_eqz(name, "key") || claw_conf_key_secret(name)) continue;
        if (claw_buf_size(&kept)) rc = claw_buf_add_z(&kept, "&");
        if (rc == CLAW_OK) rc = claw_buf_add_str(&kept, one);
    }
    if (rc == CLAW_OK) rc = add_member(b, "query", claw_buf_str(&kept));
    claw_buf_fini(&kept);
    return rc;
}

/* JSON goes in as it is: line breaks between its tokens are white space. */
static int add_body(struct claw_buf *b, const struct claw_req *r)
{
    struct claw_str body = claw_buf_str(&r->body);
    if (r->bytes_in > body.len) return claw_buf_add_fmt(b, ",\"body_left_out\":%llu", (unsigned long long)r->bytes_in);
    if (body.len == 0) return CLAW_OK;
    if (body.len > BODY_BYTES || !r->has_json) return claw_buf_add_fmt(b, ",\"body_left_out\":%zu", body.len);
    int rc = claw_buf_add_z(b, ",\"body\":");
    size_t from = b->len;
    if (rc == CLAW_OK) rc = claw_buf_add_str(b, body);
    for (size_t i = from; rc == CLAW_OK && i < b->len; i++)
        if (b->data[i] == '\n' || b->data[i] == '\r') b->data[i] = ' ';
    return rc;
}

static int add_candidates(struct claw_buf *b, const struct claw_req *r)
{
    int rc = claw_buf_add_z(b, ",\"candidates\":[");
    for (unsigned i = 0; i < r->candidates_n && rc == CLAW_OK; i++) {
        const struct claw_candidate *c = &r->candidates[i];
        rc = claw_buf_add_z(b, i ? ",{\"upstream\":" : "{\"upstream\":");
        if (rc == CLAW_OK) rc = claw_buf_add_json(b, r->gen->gen->upstreams[c->upstream].conf->name);
        if (rc == CLAW_OK) rc = add_member(b, "model", c->model.len ? c->model : r->model);
        if (rc == CLAW_OK) rc = claw_buf_add_z(b, "}");
    }
    return rc == CLAW_OK ? claw_buf_add_z(b, "]") : rc;
}

static int add_usage(struct claw_buf *b, const struct claw_req *r)
{
    const struct { const char *name; int64_t n; } classes[] = {
        {"input", r->usage.input}, {"cached", r->usage.cached}, {"output", r->usage.output}, {"reasoning", r->usage.reasoning},
        {"cache_write", r->usage.written}};
    int rc = claw_buf_add_z(b, ",\"usage\":{");
    const char *comma = "";
    for (size_t i = 0; i < sizeof classes / sizeof *classes && rc == CLAW_OK; i++) {
        if (classes[i].n < 0) continue;
        rc = claw_buf_add_fmt(b, "%s\"%s\":%lld", comma, classes[i].name, (long long)classes[i].n);
        comma = ",";
    }
    if (rc == CLAW_OK && r->estimated) rc = claw_buf_add_fmt(b, "%s\"estimated\":true", comma);
    if (rc == CLAW_OK) rc = claw_buf_add_z(b, "}");
    if (rc == CLAW_OK && r->cost_micros >= 0) rc = claw_buf_add_fmt(b, ",\"cost_micros\":%lld", (long long)r->cost_micros);
    return rc;
}

static int add_outcome(struct claw_buf *b, const struct claw_req *r)
{
    int rc = add_member(b, "route", claw_req_route_id(r));
    if (rc == CLAW_OK) rc = add_candidates(b, r);
    const struct claw_generation_upstream *up = r->attempts_n ? claw_req_upstream(r) : NULL;
    if (rc == CLAW_OK && up) rc = add_member(b, "upstream", up->conf->name);
    if (rc == CLAW_OK) rc = claw_buf_add_fmt(b, ",\"status\":%d", r->status);
    if (rc == CLAW_OK && r->candidates_n == 0 && r->error) rc = add_member(b, "refused", claw_str_of(r->error_code ? r->error_code : claw_err_kind(r->error)));
    if (rc == CLAW_OK && r->answered_by.len) rc = add_member(b, "answered_by", r->answered_by);
    return rc == CLAW_OK ? add_usage(b, r) : rc;
}

bool claw_decision_log_wants(const struct claw_req *r) { return claw_log_decisions_on() && claw_buf_size(&r->body) <= BODY_BYTES; }

void claw_decision_log_write(const struct claw_req *r)
{
    if (!r->head || (!r->upload_done && !claw_upload_streams(r)) || !claw_log_decisions_on()) return;
    struct claw_buf *b = claw_log_begin_decision();
    if (!b) return;
    int rc = claw_buf_add_fmt(b, "{\"id\":\"%s\",\"time\":\"", r->id);
    if (rc == CLAW_OK) rc = claw_log_add_time(b);
    if (rc == CLAW_OK) rc = claw_buf_add_z(b, "\"");
    if (rc == CLAW_OK) rc = add_member(b, "method", r->head->method);
    if (rc == CLAW_OK) rc = add_member(b, "path", r->head->path);
    if (rc == CLAW_OK) rc = add_query(b, r->head->query);
    if (rc == CLAW_OK) rc = add_member(b, "ip", claw_str_of(r->peer));
    if (rc == CLAW_OK && r->caller) rc = add_member(b, "client", r->caller->name);
    if (rc == CLAW_OK) rc = add_headers(b, r->head);
    if (rc == CLAW_OK) rc = add_body(b, r);
    if (rc == CLAW_OK) rc = add_outcome(b, r);
    if (rc == CLAW_OK) rc = claw_buf_add_z(b, "}\n");
    (void)rc; /* a line without its newline is dropped and counted */
    claw_log_end(b);
}
