#include "proxy/pool.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

struct claw_endpoint {
    struct claw_endpoint *prev, *next;
    struct claw_pool *pool;
    int refs;                /* local generations */
    size_t clients;          /* alive, closing ones included */
    struct claw_client *idle; /* newest first */
    struct claw_client *oldest;
    size_t idle_n;
    uint64_t stray_ms;         /* until then none is kept; 0: never was any reason */
    struct claw_lease *leases; /* waiting */
    struct claw_lane connects; /* of them, those whose turn to connect is to come */
    struct claw_timer sweep;
    struct claw_tls_client *tls;
    struct claw_str host, server_name, ca, name;
    uint16_t port;
    bool verify;
    char text[]; /* what the slices point to */
};

struct claw_pool {
    struct claw_loop *loop;
    struct claw_metrics_shard *metrics;
    struct claw_resolver *resolver;
    struct claw_endpoint *endpoints;
    size_t idle_n;
    bool closing;
};

static void count(struct claw_endpoint *e, enum claw_metric m, int64_t n)
{
    claw_metrics_add(e->pool->metrics, m, n, 1, &e->name);
}

/* ---- endpoints ------------------------------------------------------------------------------------------------ */

static void endpoint_free_if_unused(struct claw_endpoint *e)
{
    if (e->refs > 0 || e->clients > 0 || e->leases) return;
    struct claw_pool *p = e->pool;
    claw_timer_stop(p->loop, &e->sweep);
    if (e->prev) e->prev->next = e->next;
    else p->endpoints = e->next;
    if (e->next) e->next->prev = e->prev;
    if (e->tls) claw_tls_client_unref(e->tls);
    free(e);
    if (p->closing && !p->endpoints) {
        claw_resolver_free(p->resolver);
        free(p);
    }
}

static void idle_del(struct claw_client *c)
{
    struct claw_endpoint *e = c->owner;
    if (c->prev) c->prev->next = c->next;
    else e->idle = c->next;
    if (c->next) c->next->prev = c->prev;
    else e->oldest = c->prev;
    c->prev = c->next = NULL;
    e->idle_n--;
    e->pool->idle_n--;
    count(e, CLAW_METRIC_POOL_IDLE, -1);
}

static void close_idle(struct claw_endpoint *e)
{
    while (e->idle) {
        struct claw_client *c = e->idle;
        idle_del(c);
        claw_client_close(c);
    }
}

static void on_sweep(struct claw_timer *t)
{
    struct claw_endpoint *e = t->arg;
    uint64_t now = claw_loop_now_ms(e->pool->loop);
    while (e->oldest && now - e->oldest->idle_since_ms >= CLAW_POOL_IDLE_MS) {
        struct claw_client *c = e->oldest;
        idle_del(c);
        claw_client_close(c);
    }
    if (e->oldest) claw_timer_start(e->pool->loop, t, CLAW_POOL_IDLE_MS - (now - e->oldest->idle_since_ms));
}

static bool is(const struct claw_endpoint *e, const struct claw_conf_upstream *u, struct claw_str server_name, struct claw_str ca)
{
    return e->port == u->url.port && (e->tls != NULL) == u->url.tls && claw_str_ieq(e->host, u->url.host) &&
           claw_str_eq(e->name, u->name) &&
           (!u->url.tls || (e->verify == u->tls_verify && claw_str_eq(e->server_name, server_name) && claw_str_eq(e->ca, ca)));
}

static struct claw_str keep(char **at, struct claw_str s)
{
    struct claw_str out = {*at, s.len};
    if (s.len) memcpy(*at, s.ptr, s.len);
    *at += s.len;
    return out;
}

struct claw_endpoint *claw_pool_endpoint(struct claw_pool *p, const struct claw_conf_upstream *u, struct claw_tls_client *tls)
{
    struct claw_str server_name = u->tls_server_name.len ? u->tls_server_name : u->url.host;
    struct claw_str ca = u->tls_ca ? claw_str_of(u->tls_ca) : CLAW_STR("");
    for (struct claw_endpoint *e = p->endpoints; e; e = e->next) {
        if (!is(e, u, server_name, ca)) continue;
        e->refs++;
        return e;
    }
    struct claw_endpoint *e = calloc(1, sizeof *e + u->url.host.len + server_name.len + ca.len + u->name.len);
    if (!e) return NULL;
    char *at = e->text;
    e->host = keep(&at, u->url.host);
    e->server_name = keep(&at, server_name);
    e->ca = keep(&at, ca);
    e->name = keep(&at, u->name);
    e->pool = p;
    e->refs = 1;
    e->port = u->url.port;
    e->verify = u->tls_verify;
    e->tls = u->url.tls && tls ? claw_tls_client_ref(tls) : NULL;
    claw_timer_init(&e->sweep, on_sweep, e);
    e->next = p->endpoints;
    if (p->endpoints) p->endpoints->prev = e;
    p->endpoints = e;
    return e;
}

void claw_endpoint_unref(struct claw_endpoint *e)
{
    CLAW_ASSERT(e->refs > 0);
    if (--e->refs > 0) return;
    close_idle(e);
    endpoint_free_if_unused(e);
}

/* ---- connections ---------------------------------------------------------------------------------------------- */

/* Who says something that was not asked for may do so a moment later, when the next request was just written: it would be taken for
 * its answer, and that request's own answer for the next one's. Nothing tells them apart, so there must be no next one. */
static void trust_no_more(struct claw_endpoint *e)
{
    uint64_t now = claw_loop_now_ms(e->pool->loop);
    if (now >= e->stray_ms) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", CLAW_STR_FMT(e->name));
        claw_log_event(CLAW_LOG_WARN, "the upstream sent bytes that answer nothing: its connections are not used again for a minute", "upstream", name, NULL);
    }
    e->stray_ms = now + CLAW_POOL_STRAY_MS;
    close_idle(e);
}

static void on_client_closed(struct claw_client *c)
{
    struct claw_endpoint *e = c->owner;
    if (c->stray) trust_no_more(e);
    free(c);
    e->clients--;
    endpoint_free_if_unused(e);
}

static void on_idle_end(struct claw_client *c) { idle_del(c); }

static void lease_end(struct claw_lease *l)
{
    struct claw_endpoint *e = l->endpoint;
    claw_timer_stop(e->pool->loop, &l->timer);
    claw_lane_leave(e->pool->loop, &l->turn);
    if (l->prev) l->prev->next = l->next;
    else e->leases = l->next;
    if (l->next) l->next->prev = l->prev;
    l->prev = l->next = NULL;
    l->endpoint = NULL;
    l->client = NULL;
    free(l->addresses);
    l->addresses = NULL;
}

static void lease_fail(struct claw_lease *l, int code, const char *text)
{
    struct claw_endpoint *e = l->endpoint;
    lease_end(l);
    endpoint_free_if_unused(e); /* before: on_error may give back the last reference itself */
    l->on_error(l, code, text);
}

static void connect_next(struct claw_lease *l, int code, const char *text);

static void on_open(struct claw_client *c, int code, const char *text)
{
    struct claw_lease *l = c->arg;
    struct claw_endpoint *e = c->owner;
    if (code != 0) {
        l->client = NULL;
        connect_next(l, code, text);
        return;
    }
    if (claw_stream_resumed(&c->stream)) count(e, CLAW_METRIC_TLS_RESUMED, 1);
    lease_end(l);
    l->on_ready(l, c);
}

static bool may_try(const struct claw_lease *l, int code)
{
    return l->tried < l->addresses->n && claw_loop_now_ms(l->endpoint->pool->loop) < l->deadline_ms && code != CLAW_ETLS_VERIFY;
}

/* The next address gets its share of the time that is left, so that one black hole does not eat it all. */
static void connect_now(struct claw_lease *l, int code, const char *text)
{
    struct claw_endpoint *e = l->endpoint;
    uint64_t now = claw_loop_now_ms(e->pool->loop);
    claw_timer_stop(e->pool->loop, &l->timer);
    while (may_try(l, code)) {
        unsigned share = (unsigned)((l->deadline_ms - now) / (l->addresses->n - l->tried));
        const struct sockaddr *to = (const struct sockaddr *)&l->addresses->at[l->tried++];
        if (l->may && !l->may(l, to)) {
            code = CLAW_EDENIED;
            text = "the address is not allowed";
            continue;
        }
        struct claw_client *c = calloc(1, sizeof *c);
        if (!c) {
            code = CLAW_ENOMEM;
            text = claw_err_text(code);
            break;
        }
        c->owner = e;
        c->arg = l;
        c->on_open = on_open;
        c->on_idle_end = on_idle_end;
        c->on_closed = on_client_closed;
        int rc = claw_client_connect(c, e->pool->loop, to, e->tls, e->server_name, share ? share : 1);
        if (rc == 0) {
            e->clients++;
            l->client = c;
            count(e, CLAW_METRIC_POOL_OPENED, 1);
            return;
        }
        free(c);
        code = rc;
        text = claw_err_text(rc);
    }
    char copy[256];
    snprintf(copy, sizeof copy, "%s", text);
    lease_fail(l, code, copy);
}

static void on_turn(struct claw_lane_ticket *t)
{
    struct claw_lease *l = (struct claw_lease *)((char *)t - offsetof(struct claw_lease, turn));
    connect_now(l, CLAW_ECONNECT_TIMEOUT, claw_err_text(CLAW_ECONNECT_TIMEOUT));
}

/* Connecting costs much more than a request does, and a burst of requests may need many: in turn, with the lease's time
 * running on. */
static void connect_next(struct claw_lease *l, int code, const char *text)
{
    struct claw_loop *loop = l->endpoint->pool->loop;
    if (!may_try(l, code) || !claw_lane_wait(loop, &l->endpoint->connects, &l->turn, on_turn)) connect_now(l, code, text);
    else if (!claw_timer_running(&l->timer)) claw_timer_start(loop, &l->timer, (unsigned)(l->deadline_ms - claw_loop_now_ms(loop)));
}

static void on_resolved(struct claw_resolve *q, int code, const struct claw_addresses *list, const char *why)
{
    struct claw_lease *l = q->arg;
    if (code != 0) {
        lease_fail(l, code, why);
        return;
    }
    l->addresses = malloc(sizeof *list);
    if (!l->addresses) {
        lease_fail(l, CLAW_ENOMEM, claw_err_text(CLAW_ENOMEM));
        return;
    }
    *l->addresses = *list;
    connect_next(l, CLAW_ECONNECT_TIMEOUT, claw_err_text(CLAW_ECONNECT_TIMEOUT));
}

static void on_lease_due(struct claw_timer *t)
{
    struct claw_lease *l = t->arg;
    if (l->addresses) {
        lease_fail(l, CLAW_ECONNECT_TIMEOUT, claw_err_text(CLAW_ECONNECT_TIMEOUT));
        return;
    }
    claw_resolve_cancel(&l->question);
    lease_fail(l, CLAW_EDNS, "the name did not resolve in time");
}

static bool may_reuse(const struct claw_lease *l, const struct claw_client *c)
{
    struct sockaddr_storage to;
    int n = sizeof to;
    return !l->may || (uv_tcp_getpeername(&c->stream.tcp, (struct sockaddr *)&to, &n) == 0 && l->may(l, (struct sockaddr *)&to));
}

void claw_pool_lease(struct claw_endpoint *e, struct claw_lease *l, unsigned connect_ms, bool fresh)
{
    l->client = NULL;
    while (e->idle && !fresh) {
        struct claw_client *c = e->idle;
        idle_del(c);
        if (!claw_client_still(c) || !may_reuse(l, c)) {
            claw_client_cancel(c);
            continue;
        }
        c->reused = true;
        l->endpoint = NULL;
        l->on_ready(l, c);
        return;
    }
    l->endpoint = e;
    l->addresses = NULL;
    l->turn = (struct claw_lane_ticket){0};
    l->tried = 0;
    l->prev = NULL;
    l->next = e->leases;
    if (e->leases) e->leases->prev = l;
    e->leases = l;
    l->deadline_ms = claw_loop_now_ms(e->pool->loop) + connect_ms;
    claw_timer_init(&l->timer, on_lease_due, l);
    claw_timer_start(e->pool->loop, &l->timer, connect_ms);
    l->question.on_done = on_resolved;
    l->question.arg = l;
    claw_resolve_start(e->pool->resolver, &l->question, e->host, e->port);
}

void claw_pool_cancel(struct claw_lease *l)
{
    struct claw_endpoint *e = l->endpoint;
    if (!e) return;
    claw_resolve_cancel(&l->question);
    struct claw_client *c = l->client;
    lease_end(l);
    if (c) claw_client_cancel(c);
    endpoint_free_if_unused(e);
}

void claw_pool_release(struct claw_client *c)
{
    struct claw_endpoint *e = c->owner;
    if (e->refs == 0 || e->pool->closing || e->idle_n >= CLAW_POOL_IDLE_MAX || claw_loop_now_ms(e->pool->loop) < e->stray_ms) {
        claw_client_close(c);
        return;
    }
    claw_client_resume(c);
    c->idle_since_ms = claw_loop_now_ms(e->pool->loop);
    c->prev = NULL;
    c->next = e->idle;
    if (e->idle) e->idle->prev = c;
    else e->oldest = c;
    e->idle = c;
    e->idle_n++;
    e->pool->idle_n++;
    count(e, CLAW_METRIC_POOL_IDLE, 1);
    if (!claw_timer_running(&e->sweep)) claw_timer_start(e->pool->loop, &e->sweep, CLAW_POOL_IDLE_MS);
}

size_t claw_pool_idle(const struct claw_pool *p) { return p->idle_n; }

int claw_pool_new(struct claw_loop *loop, struct claw_metrics_shard *metrics, struct claw_pool **out)
{
    struct claw_pool *p = calloc(1, sizeof *p);
    if (!p) return CLAW_ENOMEM;
    p->loop = loop;
    p->metrics = metrics;
    int rc = claw_resolver_new(loop, &p->resolver);
    if (rc != 0) {
        free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void claw_pool_free(struct claw_pool *p)
{
    p->closing = true;
    struct claw_endpoint *next;
    bool any = p->endpoints != NULL;
    for (struct claw_endpoint *e = p->endpoints; e; e = next) {
        next = e->next;
        close_idle(e);
        bool last = next == NULL;
        endpoint_free_if_unused(e); /* the last one frees the pool */
        if (last) break;
    }
    if (!any) {
        claw_resolver_free(p->resolver);
        free(p);
    }
}
