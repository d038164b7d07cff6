/* admin_requests: GET /requests, those that ended; GET /requests/inflight, those that did not.
 *
 *   route upstream client model   only these
 *   status   429, or a class of them: 4xx; or error: all that failed
 *   since    those that ended after it, Unix seconds (a fraction may follow)
 *   limit    at most so many; 1000 when not given
 */
#include "app/admin_part.h"

#include "proxy/recent.h"

#include <stdlib.h>

#define INFLIGHT_MOST 200u /* of a worker */
#define ENDED_MOST 1000u   /* unless asked for more */

struct values { char route[CLAW_ADMIN_VALUE], upstream[CLAW_ADMIN_VALUE], client[CLAW_ADMIN_VALUE], model[CLAW_ADMIN_VALUE]; };

static bool read_status(struct claw_str s, struct claw_recent_filter *f)
{
    uint64_t n;
    if (claw_str_eqz(s, "error")) return f->failed = true;
    if (s.len == 3 && s.ptr[0] >= '1' && s.ptr[0] <= '5' && s.ptr[1] == 'x' && s.ptr[2] == 'x') {
        f->status = s.ptr[0] - '0';
        return true;
    }
    if (claw_str_u64(s, 599, &n) != 0 || n < 100) return false;
    f->status = (int)n;
    return true;
}

static bool read_since(struct claw_str s, uint64_t *us)
{
    const char *dot = memchr(s.ptr, '.', s.len);
    struct claw_str part = {dot ? dot + 1 : "", dot ? s.len - (size_t)(dot - s.ptr) - 1 : 0};
    uint64_t whole, fraction = 0;
    if (claw_str_u64((struct claw_str){s.ptr, dot ? (size_t)(dot - s.ptr) : s.len}, 1ull << 40, &whole) != 0 || part.len > 6) return false;
    if (part.len && claw_str_u64(part, 999999, &fraction) != 0) return false;
    for (size_t i = part.len; i < 6; i++) fraction *= 10;
    *us = whole * 1000000 + fraction;
    return true;
}

/* NULL: understood; else what is wrong. */
static const char *read_one(struct claw_str name, struct claw_str value, struct claw_recent_filter *f, struct values *v)
{
    const struct { const char *name; char *to; struct claw_str *out; } texts[] = {
        {"route", v->route, &f->route}, {"upstream", v->upstream, &f->upstream}, {"client", v->client, &f->client}, {"model", v->model, &f->model}};
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
        if (claw_str_eqz(name, texts[i].name)) return claw_admin_decode(value, texts[i].to, texts[i].out) ? NULL : "A value is not well-formed, or too long.";
    if (claw_str_eqz(name, "status")) return read_status(value, f) ? NULL : "status is 429, 4xx or error.";
    if (claw_str_eqz(name, "since")) return read_since(value, &f->since_us) ? NULL : "since is a time in Unix seconds.";
    if (claw_str_eqz(name, "limit")) {
        uint64_t n;
        if (claw_str_u64(value, 1000000, &n) != 0 || n == 0) return "limit is a whole number from 1.";
        f->most = (unsigned)n;
        return NULL;
    }
    return "/requests knows route, upstream, client, model, status, since, limit.";
}

void claw_admin_requests(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct claw_recent_filter f = {.most = ENDED_MOST};
    struct values *v = claw_arena_alloc(&q->arena, sizeof *v);
    struct claw_recent **rings = claw_arena_alloc(&q->arena, (control->workers_n + 1) * sizeof *rings);
    struct claw_str query = q->head->query;
    struct claw_h1_parameter one;
    const char *why = NULL;
    unsigned n = 0;
    int rc = v && rings ? 0 : CLAW_ENOMEM;
    while (rc == 0 && !why && claw_h1_next_parameter(&query, &one))
        if (one.whole.len) why = read_one(one.name, one.value, &f, v);
    if (why) {
        claw_admin_answer_error(c, 400, why, "bad_query");
        return;
    }
    for (unsigned i = 0; rc == 0 && i < control->workers_n; i++)
        if (claw_worker_recent(control->workers[i])) rings[n++] = claw_worker_recent(control->workers[i]);
    if (rc == 0) rc = claw_buf_add_fmt(&q->out, "{\"kept_by_each_worker\":%u,\"requests\":", control->current->conf->admin.recent_requests);
    if (rc == 0) rc = claw_recent_write(rings, n, &f, &q->out);
    if (rc == 0) rc = claw_buf_add_z(&q->out, "}\n");
    if (rc == 0) claw_log_redact(&q->out);
    claw_admin_answer_json(c, rc);
}

/* ---- in flight --------------------------------------------------------------------------------------------------------------- */

/* Each worker is asked, and the last one's answer is the answer. */
struct round {
    struct claw_conn *conn; /* NULL: the client left */
    unsigned left;
    int rc;
    size_t n, listed;
    struct claw_buf out;
};

struct part {
    struct claw_message message;
    struct round *round;
    struct claw_loop *control;
    struct claw_buf out;
    size_t n;
    int rc;
};

static void answer(struct round *all)
{
    struct claw_conn *c = all->conn;
    if (c) {
        struct claw_admin_question *q = c->request;
        int rc = all->rc;
        q->on_gone = NULL;
        if (rc == 0) rc = claw_buf_add_fmt(&q->out, "{\"count\":%zu,\"requests\":[", all->n);
        if (rc == 0) rc = claw_buf_add_str(&q->out, claw_buf_str(&all->out));
        if (rc == 0) rc = claw_buf_add_z(&q->out, "]}\n");
        if (rc == 0) claw_log_redact(&q->out);
        claw_admin_answer_json(c, rc);
    }
    claw_buf_fini(&all->out);
    free(all);
}

static void take(struct round *all, struct part *p)
{
    if (all->rc == 0) all->rc = p->rc;
    all->n += p->n;
    if (all->rc == 0 && claw_buf_size(&p->out) && claw_buf_size(&all->out)) all->rc = claw_buf_add_z(&all->out, ",\n");
    if (all->rc == 0) all->rc = claw_buf_add_str(&all->out, claw_buf_str(&p->out));
    claw_buf_fini(&p->out);
    free(p);
    if (--all->left == 0) answer(all);
}

static void on_back(struct claw_loop *loop, struct claw_message *m)
{
    struct part *p = (struct part *)m;
    (void)loop;
    take(p->round, p);
}

/* Thread: the worker's. */
static void on_worker(struct claw_loop *loop, struct claw_message *m)
{
    struct part *p = (struct part *)m;
    p->rc = claw_worker_write_requests(loop, INFLIGHT_MOST, &p->out, &p->n);
    p->message.run = on_back;
    claw_loop_post(p->control, &p->message);
}

static void on_gone(void *waits)
{
    struct round *all = waits;
    all->conn = NULL;
}

void claw_admin_inflight(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct round *all = calloc(1, sizeof *all);
    if (!all) {
        claw_admin_answer_json(c, CLAW_ENOMEM);
        return;
    }
    all->conn = c;
    all->left = 1; /* held until all are asked */
    claw_buf_init(&all->out, 0);
    q->on_gone = on_gone;
    q->waits = all;
    for (unsigned i = 0; i < control->workers_n; i++) {
        struct part *p = calloc(1, sizeof *p);
        if (!p) {
            all->rc = CLAW_ENOMEM;
            break;
        }
        *p = (struct part){.message.run = on_worker, .round = all, .control = &control->loop};
        claw_buf_init(&p->out, 0);
        all->left++;
        claw_worker_post(control->workers[i], &p->message);
    }
    if (--all->left == 0) answer(all);
}
