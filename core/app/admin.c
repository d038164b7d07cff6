#include "app/admin_part.h"

#include "proxy/clients.h"
#include "proxy/limit.h"

#include <stdio.h>
#include <stdlib.h>

#define BODY_MAX 65536

struct claw_admin {
    struct claw_server server;
    struct claw_control *control;
};

static void question_free(void *request)
{
    struct claw_admin_question *q = request;
    claw_buf_fini(&q->head_out);
    claw_buf_fini(&q->out);
    claw_arena_reset(&q->arena);
    free(q);
}

static struct claw_arena *on_begin(struct claw_conn *c)
{
    struct claw_admin_question *q = calloc(1, sizeof *q);
    if (!q) return NULL;
    claw_arena_init(&q->arena, NULL, 0, 256u << 10);
    claw_buf_init(&q->head_out, 0);
    claw_buf_init(&q->out, 0);
    c->request = q;
    return &q->arena;
}

static void on_head(struct claw_conn *c, struct claw_head *h)
{
    struct claw_admin_question *q = c->request;
    q->head = h;
}

static void on_body(struct claw_conn *c, const char *data, size_t n) { (void)c, (void)data, (void)n; }

void claw_admin_answer(struct claw_conn *c, int status, const char *type)
{
    struct claw_admin_question *q = c->request;
    int rc = claw_buf_add_fmt(&q->head_out, "HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncache-control: no-store\r\n", status, claw_h1_reason(status), type);
    if (rc != 0) {
        claw_conn_abort(c);
    } else {
        struct claw_str body = claw_buf_str(&q->out);
        uv_buf_t b = uv_buf_init((char *)body.ptr, (unsigned)body.len);
        claw_conn_reply(c, status, claw_buf_str(&q->head_out), (int64_t)body.len);
        rc = claw_conn_send(c, &b, 1, true);
    }
    question_free(q);
}

void claw_admin_answer_error(struct claw_conn *c, int status, const char *text, const char *code)
{
    struct claw_admin_question *q = c->request;
    claw_buf_clear(&q->out);
    int rc = claw_envelope_write(&q->out, &(struct claw_envelope){.status = status, .message = claw_str_of(text), .type = "invalid_request_error", .code = code});
    (void)rc;
    claw_admin_answer(c, status, "application/json");
}

/* In constant time: how long a wrong token takes to refuse says nothing of the right one. */
static bool token_fits(const struct claw_head *h, struct claw_str token)
{
    const struct claw_header *f = claw_head_find(h, CLAW_H_AUTHORIZATION);
    if (!f || f->value.len != token.len + 7 || strncasecmp(f->value.ptr, "Bearer ", 7) != 0) return false;
    unsigned char differs = 0;
    for (size_t i = 0; i < token.len; i++) differs |= (unsigned char)(f->value.ptr[7 + i] ^ token.ptr[i]);
    return differs == 0;
}

static int write_generations(struct claw_control *c, struct claw_buf *b)
{
    claw_lineage_tidy(&c->lineage);
    int rc = claw_buf_add_fmt(b, "{\"current\":{\"id\":%llu,\"hash\":\"%016llx\",\"loaded_at\":%lld},\"live\":%d,",
                              (unsigned long long)c->current->id, (unsigned long long)c->current->hash, (long long)c->current->loaded_at,
                              claw_generation_live());
    if (rc == 0) rc = claw_lineage_write(&c->lineage, c->workers_n, claw_loop_clock_us() / 1000, b);
    if (rc == 0) rc = claw_buf_add_z(b, ",\"last_error\":");
    if (rc == 0 && claw_buf_size(&c->last_error) == 0) rc = claw_buf_add_z(b, "null");
    else if (rc == 0 && (rc = claw_buf_add_fmt(b, "{\"at\":%lld,\"report\":", (long long)c->last_error_at)) == 0 &&
             (rc = claw_buf_add_json(b, claw_buf_str(&c->last_error))) == 0)
        rc = claw_buf_add_z(b, "}");
    return rc == 0 ? claw_buf_add_z(b, "}\n") : rc;
}

static void on_reload(struct claw_conn *c, struct claw_control *control)
{
    static const char *const words[] = {"published", "unchanged", "refused"};
    struct claw_admin_question *q = c->request;
    enum claw_load done = claw_control_reload(control, "admin");
    int rc = claw_buf_add_fmt(&q->out, "{\"result\":\"%s\",\"report\":", words[done]);
    if (rc == 0) rc = claw_buf_add_json(&q->out, done == CLAW_LOAD_REFUSED ? claw_buf_str(&control->last_error) : CLAW_STR(""));
    if (rc == 0) rc = claw_buf_add_z(&q->out, "}\n");
    claw_admin_answer(c, done == CLAW_LOAD_REFUSED ? 422 : 200, "application/json");
}

static void on_done(struct claw_conn *c)
{
    struct claw_admin *a = c->server->arg;
    struct claw_control *control = a->control;
    struct claw_admin_question *q = c->request;
    struct claw_str path = q->head->path, token = control->current->conf->admin.token;
    bool get = claw_str_eqz(q->head->method, "GET") || claw_str_eqz(q->head->method, "HEAD");
    int rc = 0;
    if (get && claw_str_eqz(path, "/healthz")) {
        rc = claw_buf_add_z(&q->out, "ok\n");
        claw_admin_answer(c, 200, "text/plain");
    } else if (get && claw_str_eqz(path, "/readyz")) {
        rc = claw_buf_add_z(&q->out, control->draining ? "draining\n" : "ready\n");
        claw_admin_answer(c, control->draining ? 503 : 200, "text/plain");
    } else if (token.len && !token_fits(q->head, token)) {
        claw_admin_answer_error(c, 401, "The admin port wants Authorization: Bearer <admin.token>.", "invalid_token");
    } else if (get && claw_str_eqz(path, "/metrics")) {
        claw_control_measure(control);
        rc = claw_metrics_write(&q->out);
        claw_admin_answer(c, rc == 0 ? 200 : 503, "text/plain; version=0.0.4; charset=utf-8");
    } else if (get && claw_str_eqz(path, "/generations")) {
        rc = write_generations(control, &q->out);
        claw_admin_answer(c, rc == 0 ? 200 : 503, "application/json");
    } else if (get && claw_str_eqz(path, "/clients")) {
        rc = claw_clients_write(control->current->conf, &q->out);
        claw_admin_answer(c, rc == 0 ? 200 : 503, "application/json");
    } else if (get && claw_str_eqz(path, "/limits")) {
        rc = claw_limits_write(control->current->conf, &q->out);
        claw_admin_answer(c, rc == 0 ? 200 : 503, "application/json");
    } else if (get && claw_str_eqz(path, "/spend")) {
        claw_admin_spend(c, control);
    } else if (claw_str_eqz(q->head->method, "POST") && claw_str_eqz(path, "/reload")) {
        on_reload(c, control);
    } else {
        claw_admin_answer_error(c, 404, "No such page; see /healthz /readyz /metrics /generations /clients /limits /spend.", "not_found");
    }
}

static void on_refused(struct claw_conn *c, int code, const char *text)
{
    claw_admin_answer_error(c, claw_err_status(code), text, claw_err_kind(code));
}

static void on_gone(struct claw_conn *c, int code)
{
    struct claw_admin_question *q = c->request;
    if (q->on_gone) q->on_gone(q->waits);
    question_free(q);
}

static void on_drain(struct claw_conn *c) { (void)c; }

static const struct claw_server_events events = {on_begin, on_head, on_body, on_done, on_refused, on_gone, on_drain};

int claw_admin_open(struct claw_control *c, const char *address, uint16_t port, struct claw_admin **out, const char **why)
{
    struct claw_server_limits limits = {claw_h1_defaults, 75000, 10000, 10000, 30000};
    limits.h1.body_bytes = BODY_MAX;
    struct claw_admin *a = calloc(1, sizeof *a);
    *why = claw_err_text(CLAW_ENOMEM);
    if (!a) return CLAW_ENOMEM;
    a->control = c;
    int rc = claw_server_listen(&a->server, &c->loop, address, port, &limits, &events, a, why);
    if (rc != 0) free(a);
    else *out = a;
    return rc;
}

static void on_empty(struct claw_server *s) { free(s->arg); }

void claw_admin_close(struct claw_admin *a)
{
    claw_server_drain(&a->server, on_empty);
    claw_server_abort(&a->server);
}
