/* admin_try: POST /try, a request to the proxy's own listener, as any client's.
 *
 *   {"method": "POST", "path": "/v1/chat/completions", "headers": {…}, "body": …}
 *
 * The answer's first line is JSON, {"status","headers"}; behind it stand the bytes of the proxy's answer, as they come. It ends
 * where that ends; when that breaks off, so does this. It is counted, limited and paid for like any other request.
 * One exchange is a struct trial: owned by the connection to the listener, freed when that is closed.
 */
#include "app/admin_part.h"

#include "base/json.h"
#include "http/client.h"

#include <stdio.h>
#include <stdlib.h>

#define TRIALS_MOST 16u
#define CONNECT_MS 3000u
#define WAIT_MS 600000u /* the proxy's own timeouts are shorter, unless somebody configured otherwise */

struct trial {
    struct claw_client client;
    struct claw_conn *conn; /* NULL: answered, or its client left */
    struct claw_arena arena;
    struct claw_buf out;    /* the request */
    struct claw_tls_client *tls;
    bool replied, no_body;
};

static unsigned trials; /* under way; control's */

static struct claw_admin_question *question_of(struct trial *t) { return t->conn->request; }

static void on_closed(struct claw_client *c)
{
    struct trial *t = c->owner;
    if (t->tls) claw_tls_client_unref(t->tls);
    claw_buf_fini(&t->out);
    claw_arena_reset(&t->arena);
    free(t);
    trials--;
}

/* The answer is over, one way or the other: nobody hears of this trial any more. */
static struct claw_conn *leave(struct trial *t)
{
    struct claw_conn *c = t->conn;
    if (c) question_of(t)->on_gone = question_of(t)->on_drain = NULL;
    t->conn = NULL;
    return c;
}

static void fail(struct trial *t, const char *text)
{
    struct claw_conn *c = leave(t);
    if (!c) return;
    if (!t->replied) {
        claw_admin_answer_error(c, 502, text, "no_answer");
        return;
    }
    struct claw_admin_question *q = c->request;
    claw_conn_cut(c);
    claw_admin_question_free(q);
}

static int write_head(struct claw_buf *b, const struct claw_head *h)
{
    int rc = claw_buf_add_fmt(b, "{\"status\":%d,\"headers\":{", h->status);
    for (size_t i = 0; i < h->n && rc == 0; i++) {
        if (i) rc = claw_buf_add_z(b, ",");
        if (rc == 0) rc = claw_buf_add_json(b, h->headers[i].name);
        if (rc == 0) rc = claw_buf_add_z(b, ":");
        if (rc == 0) rc = claw_buf_add_json(b, h->headers[i].value);
    }
    return rc == 0 ? claw_buf_add_z(b, "}}\n") : rc;
}

static void send_piece(struct trial *t, const char *data, size_t n)
{
    uv_buf_t b = uv_buf_init((char *)data, (unsigned)n);
    if (t->conn && claw_conn_send(t->conn, &b, 1, false) == CLAW_EAGAIN) claw_client_pause(&t->client);
}

static void on_head(struct claw_client *c, struct claw_head *h)
{
    struct trial *t = c->arg;
    if (!t->conn) return;
    struct claw_admin_question *q = question_of(t);
    int rc = write_head(&q->out, h);
    if (rc == 0) rc = claw_buf_add_fmt(&q->head_out, "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n%s", claw_admin_fields(false));
    if (rc != 0) {
        fail(t, claw_err_text(rc));
        claw_client_cancel(c);
        return;
    }
    t->replied = true;
    claw_conn_reply(t->conn, 200, claw_buf_str(&q->head_out), -1);
    struct claw_str first = claw_buf_str(&q->out);
    send_piece(t, first.ptr, first.len);
}

static void on_body(struct claw_client *c, const char *data, size_t n) { send_piece(c->arg, data, n); }
static void on_batch(struct claw_client *c) { (void)c; }
static void on_request_drain(struct claw_client *c) { (void)c; } /* what is queued is bounded by the question's size */

static void on_done(struct claw_client *c, bool reusable)
{
    struct trial *t = c->arg;
    struct claw_conn *conn = leave(t);
    (void)reusable;
    if (conn) {
        struct claw_admin_question *q = conn->request;
        int rc = claw_conn_send(conn, NULL, 0, true);
        (void)rc; /* it left: there is nobody to tell */
        claw_admin_question_free(q);
    }
    claw_client_close(c);
}

static void on_fail(struct claw_client *c, int code, const char *text)
{
    (void)code;
    fail(c->arg, text);
}

static const struct claw_client_events events = {on_head, on_body, on_batch, on_done, on_fail, on_request_drain};

static void on_open(struct claw_client *c, int code, const char *text)
{
    struct trial *t = c->owner;
    if (code != 0) {
        fail(t, text);
        return;
    }
    struct claw_str s = claw_buf_str(&t->out);
    uv_buf_t b = uv_buf_init((char *)s.ptr, (unsigned)s.len);
    claw_client_exchange(c, &t->arena, t->no_body, WAIT_MS, WAIT_MS, &events, t);
    int rc = claw_client_write(c, &b, 1);
    (void)rc; /* broken or queued: both are told later */
}

static void on_idle_end(struct claw_client *c) { (void)c; }

static void on_client_drain(void *waits)
{
    struct trial *t = waits;
    claw_client_resume(&t->client);
}

static void on_client_gone(void *waits)
{
    struct trial *t = waits;
    t->conn = NULL;
    claw_client_cancel(&t->client);
}

/* ---- what is asked ------------------------------------------------------------------------------------------------------------ */

/* Which of them frame the message, or say what the connection is for: they are ours to write. */
static bool is_ours(struct claw_str name)
{
    switch (claw_header_id_of(name)) {
    case CLAW_H_HOST: case CLAW_H_CONNECTION: case CLAW_H_CONTENT_LENGTH: case CLAW_H_TRANSFER_ENCODING: case CLAW_H_EXPECT:
    case CLAW_H_UPGRADE: case CLAW_H_TE: case CLAW_H_TRAILER: case CLAW_H_KEEP_ALIVE: return true;
    default: return false;
    }
}

static int add_headers(struct claw_buf *b, struct claw_json_value headers, struct claw_arena *a, bool *typed, const char **why)
{
    size_t at = 0;
    struct claw_str key, name, value;
    struct claw_json_value v;
    int rc = 0;
    if (headers.type != CLAW_JSON_OBJECT) return 0;
    while (rc == 0 && claw_json_next(headers, &at, &key, &v)) {
        *why = "headers are names and texts; host, content-length and the like are written here.";
        rc = claw_json_key_text(key, a, &name);
        if (rc == 0) rc = v.type == CLAW_JSON_STRING ? claw_json_text(v, a, &value) : CLAW_EINVAL;
        if (rc == 0 && (!claw_h1_is_token(name) || !claw_h1_is_value(value) || is_ours(name))) rc = CLAW_EINVAL;
        if (rc == 0) rc = claw_buf_add_fmt(b, "%.*s: %.*s\r\n", CLAW_STR_FMT(name), CLAW_STR_FMT(value));
        *typed = *typed || claw_str_ieq(name, CLAW_STR("content-type"));
    }
    return rc;
}

static bool is_target(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f) return false;
    return s.len > 0 && s.ptr[0] == '/';
}

static int text_of(struct claw_json_value v, struct claw_str otherwise, struct claw_arena *a, struct claw_str *out)
{
    *out = otherwise;
    if (v.type == CLAW_JSON_NONE) return 0;
    return v.type == CLAW_JSON_STRING ? claw_json_text(v, a, out) : CLAW_EINVAL;
}

/* The request's bytes. CLAW_EINVAL with *why. */
static int write_request(struct trial *t, struct claw_admin_question *q, unsigned port, const char **why)
{
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_str method, path, body = {NULL, 0};
    bool typed = false;
    *why = "The body is JSON: {\"method\",\"path\",\"headers\",\"body\"}.";
    if (claw_json_scan(claw_buf_str(&q->body), &q->arena, &top, &err) != 0 || top.root.type != CLAW_JSON_OBJECT) return CLAW_EINVAL;
    struct claw_json_value given = claw_json_top_get(&top, CLAW_STR("body"));
    int rc = text_of(claw_json_top_get(&top, CLAW_STR("method")), given.type == CLAW_JSON_NONE ? CLAW_STR("GET") : CLAW_STR("POST"), &q->arena, &method);
    if (rc == 0) rc = text_of(claw_json_top_get(&top, CLAW_STR("path")), CLAW_STR("/v1/chat/completions"), &q->arena, &path);
    if (rc != 0) return rc;
    *why = "method is a word, path begins with / and has no blanks.";
    if (!claw_h1_is_token(method) || !is_target(path)) return CLAW_EINVAL;
    t->no_body = claw_str_eqz(method, "HEAD");
    if (given.type == CLAW_JSON_STRING) rc = claw_json_text(given, &q->arena, &body); /* any bytes: a text is sent as it is */
    else if (given.type != CLAW_JSON_NONE) body = given.raw;
    if (rc == 0) rc = claw_buf_add_fmt(&t->out, "%.*s %.*s HTTP/1.1\r\nhost: 127.0.0.1:%u\r\nconnection: close\r\n", CLAW_STR_FMT(method), CLAW_STR_FMT(path), port);
    if (rc == 0) rc = add_headers(&t->out, claw_json_top_get(&top, CLAW_STR("headers")), &q->arena, &typed, why);
    if (rc == 0 && body.ptr && !typed) rc = claw_buf_add_z(&t->out, "content-type: application/json\r\n");
    if (rc == 0 && body.ptr) rc = claw_buf_add_fmt(&t->out, "content-length: %zu\r\n", body.len);
    if (rc == 0) rc = claw_buf_add_z(&t->out, "\r\n");
    return rc == 0 ? claw_buf_add_str(&t->out, body) : rc;
}

/* Where the listener is, seen from here. */
static int own_address(const char *listen, uint16_t port, struct sockaddr_storage *to)
{
    if (strcmp(listen, "::") == 0) return uv_ip6_addr("::1", port, (struct sockaddr_in6 *)to);
    if (strchr(listen, ':')) return uv_ip6_addr(listen, port, (struct sockaddr_in6 *)to);
    bool any = strcmp(listen, "0.0.0.0") == 0 || strcmp(listen, "localhost") == 0;
    return uv_ip4_addr(any ? "127.0.0.1" : listen, port, (struct sockaddr_in *)to);
}

/* Its own listener shows its own certificate: there is nothing to be verified. */
static int connect_own(struct trial *t, struct claw_control *control, uint16_t port)
{
    struct sockaddr_storage to = {0};
    char err[256];
    int rc = own_address(control->current->conf->server.listen_address, port, &to) == 0 ? 0 : CLAW_EINVAL;
    if (rc == 0 && control->current->tls) rc = claw_tls_client_new(NULL, false, &t->tls, err, sizeof err);
    t->client.owner = t;
    t->client.on_open = on_open;
    t->client.on_idle_end = on_idle_end;
    t->client.on_closed = on_closed;
    return rc == 0 ? claw_client_connect(&t->client, &control->loop, (struct sockaddr *)&to, t->tls, CLAW_STR("localhost"), CONNECT_MS) : rc;
}

void claw_admin_try(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    const char *why = "There are too many of these under way.";
    struct trial *t = trials < TRIALS_MOST && control->workers_n ? calloc(1, sizeof *t) : NULL;
    if (!t) {
        claw_admin_answer_error(c, 503, why, "busy");
        return;
    }
    uint16_t port = claw_worker_port(control->workers[0]);
    claw_arena_init(&t->arena, NULL, 0, 256u << 10);
    claw_buf_init(&t->out, 0);
    int rc = write_request(t, q, port, &why), connected = rc == 0 ? connect_own(t, control, port) : rc;
    if (connected != 0) {
        if (t->tls) claw_tls_client_unref(t->tls);
        claw_buf_fini(&t->out);
        claw_arena_reset(&t->arena);
        free(t);
        if (rc != 0) claw_admin_answer_error(c, 400, why, "bad_question");
        else claw_admin_answer_error(c, 502, claw_err_text(connected), "no_answer");
        return;
    }
    trials++;
    t->conn = c;
    q->on_gone = on_client_gone;
    q->on_drain = on_client_drain;
    q->waits = t;
}
