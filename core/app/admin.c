#include "app/admin_part.h"

#include "proxy/clients.h"
#include "proxy/limit.h"

#include <stdio.h>
#include <stdlib.h>

#define STILL_MS 5000u /* a worker whose loop has not turned for so long does not come back by itself */
#define BODY_MAX (2u << 20)
#define BODIES_MAX (32u << 20) /* of all questions together */

struct claw_admin {
    struct claw_server server;
    struct claw_control *control;
};

static size_t bodies; /* bytes that questions hold; control's */

static void drop_body(struct claw_admin_question *q)
{
    bodies -= q->held;
    q->held = 0;
    claw_buf_fini(&q->body);
    claw_buf_init(&q->body, BODY_MAX);
}

void claw_admin_question_free(struct claw_admin_question *q)
{
    drop_body(q);
    claw_buf_fini(&q->head_out);
    claw_buf_fini(&q->out);
    claw_buf_fini(&q->body);
    claw_arena_reset(&q->arena);
    free(q);
}

static struct claw_arena *on_begin(struct claw_conn *c)
{
    struct claw_admin_question *q = calloc(1, sizeof *q);
    if (!q) return NULL;
    claw_arena_init(&q->arena, NULL, 0, 8u << 20);
    claw_buf_init(&q->head_out, 0);
    claw_buf_init(&q->out, 0);
    claw_buf_init(&q->body, BODY_MAX);
    c->request = q;
    return &q->arena;
}

void claw_admin_answer(struct claw_conn *c, int status, const char *type)
{
    struct claw_admin_question *q = c->request;
    int rc = claw_buf_add_fmt(&q->head_out, "HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%s%s", status, claw_h1_reason(status), type,
                              q->packed ? "content-encoding: gzip\r\nvary: accept-encoding\r\n" : "", claw_admin_fields(strncmp(type, "text/html", 9) == 0));
    if (rc != 0) {
        claw_conn_abort(c);
    } else {
        struct claw_str body = claw_buf_str(&q->out);
        uv_buf_t b = uv_buf_init((char *)body.ptr, (unsigned)body.len);
        claw_conn_reply(c, status, claw_buf_str(&q->head_out), (int64_t)body.len);
        rc = claw_conn_send(c, &b, 1, true);
    }
    claw_admin_question_free(q);
}

void claw_admin_answer_error(struct claw_conn *c, int status, const char *text, const char *code)
{
    struct claw_admin_question *q = c->request;
    claw_buf_clear(&q->out);
    int rc = claw_envelope_write(&q->out, &(struct claw_envelope){.status = status, .message = claw_str_of(text), .type = "invalid_request_error", .code = code});
    (void)rc;
    claw_admin_answer(c, status, "application/json");
}

void claw_admin_answer_json(struct claw_conn *c, int rc)
{
    if (rc == 0) claw_admin_answer(c, 200, "application/json");
    else claw_admin_answer_error(c, 503, "There is no memory for the answer.", claw_err_kind(rc));
}

static int digit_of(char c) { return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

static bool decode(struct claw_str s, char blank, char to[CLAW_ADMIN_VALUE], struct claw_str *out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (n == CLAW_ADMIN_VALUE) return false;
        char c = s.ptr[i] == '+' ? blank : s.ptr[i];
        if (c == '%') {
            if (i + 2 >= s.len || digit_of(s.ptr[i + 1]) < 0 || digit_of(s.ptr[i + 2]) < 0) return false;
            c = (char)(digit_of(s.ptr[i + 1]) << 4 | digit_of(s.ptr[i + 2]));
            i += 2;
        }
        to[n++] = c;
    }
    *out = (struct claw_str){to, n};
    return true;
}

bool claw_admin_decode(struct claw_str s, char to[CLAW_ADMIN_VALUE], struct claw_str *out) { return decode(s, ' ', to, out); }
bool claw_admin_decode_name(struct claw_str s, char to[CLAW_ADMIN_VALUE], struct claw_str *out) { return decode(s, '+', to, out); }

/* ---- pages ---------------------------------------------------------------------------------------------------------------------- */

static void on_healthz(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    uint64_t still_ms = claw_control_still_ms(control);
    bool well = still_ms < STILL_MS;
    int rc = well ? claw_buf_add_z(&q->out, "ok\n") : claw_buf_add_fmt(&q->out, "a worker stands still for %llu s\n", (unsigned long long)still_ms / 1000);
    claw_admin_answer(c, rc == 0 && well ? 200 : 503, "text/plain");
}

static void on_readyz(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    int rc = claw_buf_add_z(&q->out, control->draining ? "draining\n" : "ready\n");
    claw_admin_answer(c, control->draining || rc != 0 ? 503 : 200, "text/plain");
}

static void on_metrics(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    if (!control->current->conf->metrics.enabled) {
        int wrote = claw_buf_add_z(&q->out, "metrics.enabled is false\n");
        claw_admin_answer(c, wrote == 0 ? 404 : 503, "text/plain");
        return;
    }
    claw_control_measure(control);
    int rc = claw_metrics_write(&q->out);
    claw_admin_answer(c, rc == 0 ? 200 : 503, "text/plain; version=0.0.4; charset=utf-8");
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
    if (rc == 0) rc = claw_buf_add_z(b, ",\"last_change\":");
    if (rc == 0) rc = claw_buf_size(&c->last_change) ? claw_buf_add_str(b, claw_buf_str(&c->last_change)) : claw_buf_add_z(b, "null");
    return rc == 0 ? claw_buf_add_z(b, "}\n") : rc;
}

static void on_generations(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    claw_admin_answer_json(c, write_generations(control, &q->out));
}

static void on_clients(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    claw_admin_answer_json(c, claw_clients_write(control->current->conf, &q->out));
}

static void on_limits(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    claw_admin_answer_json(c, claw_limits_write(control->current->conf, &q->out));
}

static void answer_reload(struct claw_conn *c, struct claw_control *control, enum claw_load done)
{
    static const char *const words[] = {"published", "unchanged", "refused"};
    struct claw_admin_question *q = c->request;
    int rc = claw_buf_add_fmt(&q->out, "{\"result\":\"%s\",\"report\":", words[done]);
    if (rc == 0) rc = claw_buf_add_json(&q->out, done == CLAW_LOAD_REFUSED ? claw_buf_str(&control->last_error) : CLAW_STR(""));
    if (rc == 0) rc = claw_buf_add_z(&q->out, "}\n");
    claw_admin_answer(c, done == CLAW_LOAD_REFUSED ? 422 : 200, "application/json");
}

/* A reload that waits for secrets. */
struct reload {
    struct claw_load_wait wait;
    struct claw_conn *conn;
    struct claw_control *control;
};

static void on_loaded(struct claw_load_wait *w, enum claw_load done)
{
    struct reload *r = (struct reload *)w;
    struct claw_admin_question *q = r->conn->request;
    q->on_gone = NULL;
    answer_reload(r->conn, r->control, done);
    free(r);
}

static void on_reload_gone(void *waits)
{
    struct reload *r = waits;
    claw_control_leave(r->control, &r->wait);
    free(r);
}

static void on_reload(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    if (control->waits_n >= CLAW_CONTROL_WAITS) {
        claw_admin_answer_error(c, 503, "A reload waits for secrets, and too many wait for it.", "busy");
        return;
    }
    struct reload *r = calloc(1, sizeof *r);
    if (!r) {
        claw_admin_answer_json(c, CLAW_ENOMEM);
        return;
    }
    *r = (struct reload){{NULL, on_loaded}, c, control};
    enum claw_load done = claw_control_reload(control, "admin", &r->wait);
    if (done == CLAW_LOAD_WAITS) {
        q->on_gone = on_reload_gone;
        q->waits = r;
        return;
    }
    free(r);
    answer_reload(c, control, done);
}

/* Once: a second time would cut what is in flight, which is for a signal to ask. */
static void on_drain_asked(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    int rc = claw_buf_add_z(&q->out, "{\"draining\":true}\n");
    if (!control->draining) claw_control_stop(control, "admin");
    claw_log_flush();
    claw_admin_answer_json(c, rc);
}

enum { OPEN = 1 /* without the token: it tells nothing of the proxy */, BELOW = 2 /* whatever stands behind it */ };

static const struct {
    const char *method, *path;
    unsigned flags;
    claw_admin_page *answer;
} pages[] = {
    {"GET", "/healthz", OPEN, on_healthz},
    {"GET", "/readyz", OPEN, on_readyz},
    {"GET", "/", OPEN, claw_admin_file},
    {"GET", "/dashboard", OPEN, claw_admin_file},
    {"GET", "/dashboard.js", OPEN, claw_admin_file},
    {"GET", "/dashboard.css", OPEN, claw_admin_file},
    {"GET", "/openapi.json", 0, claw_admin_file},
    {"GET", "/metrics", 0, on_metrics},
    {"GET", "/live", 0, claw_admin_live},
    {"GET", "/requests", 0, claw_admin_requests},
    {"GET", "/requests/inflight", 0, claw_admin_inflight},
    {"GET", "/generations", 0, on_generations},
    {"GET", "/routes", 0, claw_admin_routes},
    {"POST", "/routes/", BELOW, claw_admin_move_canary},
    {"GET", "/policies", 0, claw_admin_policies},
    {"GET", "/policies/", BELOW, claw_admin_policy},
    {"PUT", "/policies/", BELOW, claw_admin_put_policy},
    {"GET", "/clients", 0, on_clients},
    {"GET", "/limits", 0, on_limits},
    {"GET", "/spend", 0, claw_admin_spend},
    {"GET", "/upstreams", 0, claw_admin_upstreams},
    {"POST", "/upstreams/", BELOW, claw_admin_change_upstream},
    {"GET", "/cache", 0, claw_admin_cache},
    {"POST", "/cache/purge", 0, claw_admin_purge_cache},
    {"POST", "/explain", 0, claw_admin_explain},
    {"POST", "/try", 0, claw_admin_try},
    {"POST", "/reload", 0, on_reload},
    {"POST", "/drain", 0, on_drain_asked},
};
#define PAGES (sizeof pages / sizeof *pages)

/* The page; PAGES: there is none. */
static size_t page_of(const struct claw_head *h)
{
    struct claw_str method = claw_str_eqz(h->method, "HEAD") ? CLAW_STR("GET") : h->method;
    for (size_t i = 0; i < PAGES; i++) {
        struct claw_str path = claw_str_of(pages[i].path);
        if (!claw_str_eqz(method, pages[i].method)) continue;
        if (pages[i].flags & BELOW ? claw_str_starts(h->path, path) : claw_str_eq(h->path, path)) return i;
    }
    return PAGES;
}

/* ---- the server's events --------------------------------------------------------------------------------------------------------- */

/* Who may not ask is not read either. */
static void on_head(struct claw_conn *c, struct claw_head *h)
{
    struct claw_admin *a = c->server->arg;
    struct claw_admin_question *q = c->request;
    size_t page = page_of(h);
    q->head = h;
    q->unread = page == PAGES || pages[page].flags & OPEN;
    q->refused = claw_admin_guard(a->control->current->conf, h, page < PAGES && pages[page].flags & OPEN, &q->refused_status);
}

/* What nobody looks at is not kept: who has no token could fill the memory with it. */
static void on_body(struct claw_conn *c, const char *data, size_t n)
{
    struct claw_admin_question *q = c->request;
    if (q->refused || q->unread) return;
    if (n <= BODIES_MAX - bodies && claw_buf_add(&q->body, data, n) == 0) {
        bodies += n;
        q->held += n;
        return;
    }
    drop_body(q);
    q->refused = "There is no memory for the body.";
    q->refused_status = 503;
}

static void on_done(struct claw_conn *c)
{
    struct claw_admin *a = c->server->arg;
    struct claw_admin_question *q = c->request;
    size_t page = page_of(q->head);
    if (q->refused)
        claw_admin_answer_error(c, q->refused_status, q->refused, q->refused_status == 401 ? "invalid_token" : q->refused_status == 403 ? "forbidden" : "memory");
    else if (page == PAGES)
        claw_admin_answer_error(c, 404, "No such page; GET /openapi.json lists all there are.", "not_found");
    else
        pages[page].answer(c, a->control);
}

static void on_refused(struct claw_conn *c, int code, const char *text)
{
    claw_admin_answer_error(c, claw_err_status(code), text, claw_err_kind(code));
}

static void on_gone(struct claw_conn *c, int code)
{
    struct claw_admin_question *q = c->request;
    if (q->on_gone) q->on_gone(q->waits);
    claw_admin_question_free(q);
}

static void on_drain(struct claw_conn *c)
{
    struct claw_admin_question *q = c->request;
    if (q && q->on_drain) q->on_drain(q->waits);
}

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
