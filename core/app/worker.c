#include "app/worker.h"

#include "net/redis.h"
#include "proxy/fetch.h"
#include "proxy/health.h"
#include "proxy/ledger.h"
#include "proxy/limit.h"
#include "proxy/recent.h"
#include "proxy/state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>

#define LAG_MS 250u
#define LOG_FLUSH_MS 50u
#define CHECKS 1u /* the worker that makes health checks */

struct claw_worker {
    struct claw_loop loop;
    struct claw_worker_ctx ctx;
    struct claw_server server;
    struct claw_worker_events on;
    pthread_t thread;
    struct claw_timer lag, log_flush;
    uint64_t lag_due_us;
    _Atomic uint64_t turned_us; /* when its loop turned last; 0: it does not run */
    struct claw_health *health; /* the first worker's */
    bool empty, ending;
};

struct news {
    struct claw_message message;
    struct claw_worker *worker;
    struct claw_generation *gen;
    struct claw_policy_vm *vm;
};

static void limits_of(const struct claw_conf *c, struct claw_server_limits *l)
{
    l->h1 = claw_h1_defaults;
    l->h1.head_bytes = c->server.max_header_bytes;
    l->h1.body_bytes = (int64_t)c->server.max_body_bytes;
    if (l->h1.target_bytes > l->h1.head_bytes) l->h1.target_bytes = l->h1.head_bytes;
    l->idle_timeout_ms = c->server.idle_timeout_ms;
    l->header_timeout_ms = c->server.header_timeout_ms;
    l->body_timeout_ms = c->server.body_timeout_ms;
    l->send_timeout_ms = c->server.send_timeout_ms;
}

/* Most client connections, of all workers. Each may need another descriptor for its upstream, and the proxy some of its own (loops,
 * listeners, logs, the admin port, a reload's files): where the process may not have as many, clients wait to be accepted instead. */
static int64_t most_connections(const struct claw_conf *c)
{
    struct rlimit l;
    int64_t most = c->server.max_connections;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur == RLIM_INFINITY) return most;
    int64_t own = 32 + 16 * (int64_t)c->server.workers, files = (int64_t)l.rlim_cur;
    int64_t room = (files > 2 * own ? files - own : files / 2) / 2;
    return most < room ? most : room > 1 ? room : 1;
}

static void on_local_free(struct claw_generation_local *g)
{
    struct claw_worker *w = g->loop->arg;
    w->on.on_vm_free(w->on.arg, g->policy);
}

static void on_state_up(void *arg) { claw_limits_keep(arg); }

/* The new generation is the current one; the old one lives as long as requests pin it. */
static int adopt(struct claw_worker *w, struct claw_generation *gen, struct claw_policy_vm *vm)
{
    struct claw_generation_local *local, *old = w->ctx.current;
    int rc = claw_generation_local_new(gen, &w->loop, w->ctx.pool, &claw_policy_ops_lua, vm, &local);
    if (rc != 0) {
        w->on.on_vm_free(w->on.arg, vm);
        return rc;
    }
    local->on_free = on_local_free;
    claw_policy_vm_attach(vm, &w->ctx, local);
    w->ctx.current = local;
    if (!w->ctx.state && gen->conf->state.asked && (w->ctx.state = claw_state_new(&w->loop, &w->ctx.redis, w->ctx.metrics)))
        claw_state_watch(w->ctx.state, on_state_up, &w->ctx);
    if (w->ctx.state) claw_state_set(w->ctx.state, gen->conf);
    if (w->ctx.recent && claw_recent_set(w->ctx.recent, gen->conf->admin.listen_port ? gen->conf->admin.recent_requests : 0) != 0)
        claw_log_event(CLAW_LOG_ERROR, "admin.recent_requests stays what it was: out of memory", NULL);
    w->ctx.page = gen->ledger ? claw_ledger_page_of(gen->ledger, w->loop.number) : NULL;
    if (old) claw_generation_local_carry(local, old);
    if (w->loop.number == CHECKS) {
        claw_health_free(w->health);
        w->health = claw_health_new(w->ctx.fetcher, local);
    }
    if (old) claw_generation_local_unref(old);
    return 0;
}

static void on_publish(struct claw_loop *loop, struct claw_message *m)
{
    struct news *n = (struct news *)m;
    struct claw_worker *w = loop->arg;
    struct claw_server_limits limits;
    limits_of(n->gen->conf, &limits);
    if (adopt(w, n->gen, n->vm) == 0) {
        claw_server_set(&w->server, &limits, n->gen->tls);
        w->server.max_total = most_connections(n->gen->conf);
    }
    claw_generation_unref(n->gen);
    free(n);
}

static void end_if_empty(struct claw_worker *w)
{
    if (!w->empty || w->ctx.requests_n || w->ending) return;
    w->ending = true;
    claw_loop_stop(&w->loop);
}

static void on_server_empty(struct claw_server *s)
{
    struct claw_worker *w = s->loop->arg;
    w->empty = true;
    end_if_empty(w);
}

static void on_idle(struct claw_worker_ctx *ctx) { end_if_empty(ctx->loop->arg); }

static void on_drain(struct claw_loop *loop, struct claw_message *m)
{
    struct claw_worker *w = loop->arg;
    free(m);
    if (w->ctx.draining) return;
    w->ctx.draining = true;
    claw_server_drain(&w->server, on_server_empty);
}

static void on_abort(struct claw_loop *loop, struct claw_message *m)
{
    struct claw_worker *w = loop->arg;
    free(m);
    for (struct claw_req *r = w->ctx.requests; r; r = r->next) /* none is freed before the turn's end */
        claw_pipeline_fail(r, r->gone ? CLAW_ECLIENT_GONE : CLAW_EDRAINING, r->gone ? CLAW_STR("") : claw_str_of(claw_err_text(CLAW_EDRAINING)));
    claw_server_end(&w->server);
}

static void on_cut(struct claw_loop *loop, struct claw_message *m)
{
    struct news *n = (struct news *)m;
    struct claw_worker *w = loop->arg;
    bool again = w->ctx.current->gen == n->gen; /* the current one once more, by a rollback meanwhile */
    for (struct claw_req *r = again ? NULL : w->ctx.requests; r; r = r->next) /* none is freed before the turn's end */
        if (r->gen->gen == n->gen) claw_pipeline_fail(r, CLAW_EOUTLIVED, claw_str_of(claw_err_text(CLAW_EOUTLIVED)));
    claw_generation_unref(n->gen);
    free(n);
}

static void on_lag(struct claw_timer *t)
{
    struct claw_worker *w = t->arg;
    uint64_t now = claw_loop_clock_us();
    claw_metrics_observe(w->ctx.metrics, CLAW_METRIC_LOOP_LAG_SECONDS, now > w->lag_due_us ? now - w->lag_due_us : 0, 0, NULL);
    w->lag_due_us = now + (LAG_MS + CLAW_LOOP_TICK_MS) * 1000;
    atomic_store_explicit(&w->turned_us, now, memory_order_relaxed);
    claw_timer_start(&w->loop, t, LAG_MS);
    if (w->ctx.state) claw_limits_keep(&w->ctx);
    if (claw_log_waiting()) claw_log_flush();
}

/* Lines gather for a moment so that logging costs no system call a request. */
static void on_log_flush(struct claw_timer *t)
{
    claw_log_flush();
}

static void on_turn_end(uv_check_t *h)
{
    struct claw_worker *w = h->data;
    if (!claw_timer_running(&w->log_flush) && claw_log_waiting()) claw_timer_start(&w->loop, &w->log_flush, LOG_FLUSH_MS);
}

/* A thread's heap grows by one mprotect an allocation, and each waits for whoever changes the address space: 200 cold TLS
 * connections (33 KB each) stalled the loop for tens of milliseconds. What was given out once and taken back stays mapped
 * (M_TRIM_THRESHOLD), untouched pages cost no memory. */
static void reserve_heap(void)
{
    enum { PIECES = 4, PIECE = 3 << 20 };
    void *p[PIECES];
    for (int i = 0; i < PIECES; i++) p[i] = malloc(PIECE);
    for (int i = PIECES; i-- > 0;) free(p[i]);
}

static void *run(void *arg)
{
    struct claw_worker *w = arg;
    reserve_heap();
    uv_check_t check;
    uv_check_init(&w->loop.uv, &check);
    check.data = w;
    uv_check_start(&check, on_turn_end);
    w->lag_due_us = claw_loop_clock_us() + (LAG_MS + CLAW_LOOP_TICK_MS) * 1000;
    claw_timer_start(&w->loop, &w->lag, LAG_MS);
    atomic_store_explicit(&w->turned_us, claw_loop_clock_us(), memory_order_relaxed);
    claw_loop_run(&w->loop);
    atomic_store_explicit(&w->turned_us, 0, memory_order_relaxed);
    claw_timer_stop(&w->loop, &w->lag);
    claw_timer_stop(&w->loop, &w->log_flush);
    uv_close((uv_handle_t *)&check, NULL);
    claw_health_free(w->health);
    while (w->ctx.backgrounds) w->ctx.backgrounds->cancel(w->ctx.backgrounds);
    if (w->ctx.state) claw_state_set(w->ctx.state, NULL);
    claw_generation_local_unref(w->ctx.current);
    claw_loop_turn(&w->loop, false);
    claw_state_free(w->ctx.state);
    claw_redis_free_all(&w->ctx.redis);
    claw_fetcher_free(w->ctx.fetcher);
    claw_pool_free(w->ctx.pool);
    claw_server_set(&w->server, &w->server.limits, NULL);
    claw_log_thread_end();
    w->on.on_end(w->on.arg, w);
    return NULL;
}

int claw_worker_new(unsigned number, struct claw_generation *gen, struct claw_policy_vm *vm, _Atomic int64_t *total,
                    const struct claw_worker_events *on, struct claw_worker **out, const char **why)
{
    struct claw_worker *w = calloc(1, sizeof *w);
    struct claw_server_limits limits;
    *why = claw_err_text(CLAW_ENOMEM);
    if (!w) {
        claw_policy_vm_free(vm);
        return CLAW_ENOMEM;
    }
    w->on = *on;
    int rc = claw_loop_init(&w->loop);
    if (rc != 0) {
        claw_policy_vm_free(vm);
        free(w);
        return rc;
    }
    w->loop.arg = w;
    w->loop.number = number;
    w->ctx.loop = &w->loop;
    w->ctx.begins.light = true;
    w->ctx.on_idle = on_idle;
    w->ctx.metrics = claw_metrics_shard_new();
    w->ctx.recent = claw_recent_new();
    claw_timer_init(&w->lag, on_lag, w);
    claw_timer_init(&w->log_flush, on_log_flush, w);
    limits_of(gen->conf, &limits);
    rc = claw_pool_new(&w->loop, w->ctx.metrics, &w->ctx.pool);
    if (rc == 0) rc = claw_fetcher_new(&w->loop, w->ctx.pool, w->ctx.metrics, &w->ctx.fetcher);
    if (rc == 0) rc = adopt(w, gen, vm);
    else claw_policy_vm_free(vm);
    if (rc == 0) {
        w->server.total = total;
        w->server.on_room = claw_pipeline_room;
        w->server.max_total = most_connections(gen->conf);
        rc = claw_server_listen(&w->server, &w->loop, gen->conf->server.listen_address, gen->conf->server.listen_port, &limits,
                                &claw_pipeline_server_events, &w->ctx, why);
    }
    if (rc != 0) {
        claw_worker_discard(w);
        return rc;
    }
    claw_server_set(&w->server, &limits, gen->tls);
    *out = w;
    return 0;
}

void claw_worker_discard(struct claw_worker *w)
{
    if (w->server.listening) claw_server_drain(&w->server, NULL);
    claw_health_free(w->health);
    if (w->ctx.state) claw_state_set(w->ctx.state, NULL);
    if (w->ctx.current) claw_generation_local_unref(w->ctx.current);
    claw_loop_turn(&w->loop, false);
    claw_state_free(w->ctx.state);
    claw_redis_free_all(&w->ctx.redis);
    claw_fetcher_free(w->ctx.fetcher);
    if (w->ctx.pool) claw_pool_free(w->ctx.pool);
    claw_loop_fini(&w->loop, false);
    claw_recent_free(w->ctx.recent);
    free(w);
}

int claw_worker_start(struct claw_worker *w)
{
    return pthread_create(&w->thread, NULL, run, w) == 0 ? 0 : CLAW_EIO;
}

int claw_worker_publish(struct claw_worker *w, struct claw_generation *gen, struct claw_policy_vm *vm)
{
    struct news *n = calloc(1, sizeof *n);
    if (!n) {
        claw_policy_vm_free(vm);
        return CLAW_ENOMEM;
    }
    n->message.run = on_publish;
    n->gen = claw_generation_ref(gen);
    n->vm = vm;
    claw_loop_post(&w->loop, &n->message);
    return 0;
}

void claw_worker_cut(struct claw_worker *w, struct claw_generation *gen)
{
    struct news *n = calloc(1, sizeof *n);
    if (!n) return;
    n->message.run = on_cut;
    n->gen = claw_generation_ref(gen);
    claw_loop_post(&w->loop, &n->message);
}

static void post(struct claw_worker *w, void (*fn)(struct claw_loop *, struct claw_message *))
{
    struct claw_message *m = calloc(1, sizeof *m);
    if (!m) return;
    m->run = fn;
    claw_loop_post(&w->loop, m);
}

void claw_worker_drain(struct claw_worker *w) { post(w, on_drain); }
void claw_worker_abort(struct claw_worker *w) { post(w, on_abort); }

int claw_worker_join(struct claw_worker *w)
{
    pthread_join(w->thread, NULL);
    int leaked = claw_loop_fini(&w->loop, true); /* not before: until now somebody may have posted to it */
    struct claw_req *r;
    while ((r = w->ctx.spare)) {
        w->ctx.spare = r->next;
        free(r);
    }
    claw_recent_free(w->ctx.recent);
    free(w);
    return leaked;
}

struct claw_recent *claw_worker_recent(const struct claw_worker *w) { return w->ctx.recent; }

void claw_worker_post(struct claw_worker *w, struct claw_message *m) { claw_loop_post(&w->loop, m); }

int claw_worker_write_requests(struct claw_loop *loop, unsigned most, struct claw_buf *out, size_t *n)
{
    struct claw_worker *w = loop->arg;
    int rc = 0;
    *n = w->ctx.requests_n;
    for (struct claw_req *r = w->ctx.requests; r && most && rc == 0; r = r->next) {
        if (r->finished) continue;
        most--;
        if (claw_buf_size(out)) rc = claw_buf_add_z(out, ",\n");
        if (rc == 0) rc = claw_recent_write_live(r, out);
    }
    return rc;
}

uint16_t claw_worker_port(const struct claw_worker *w) { return claw_server_port(&w->server); }

uint64_t claw_worker_still_ms(const struct claw_worker *w)
{
    uint64_t turned = atomic_load_explicit(&w->turned_us, memory_order_relaxed), now = claw_loop_clock_us();
    return turned && now > turned ? (now - turned) / 1000 : 0;
}
