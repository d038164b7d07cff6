/* admin_cache: what the cache holds, and letting go of it. */
#include "app/admin_part.h"

#include "proxy/cache.h"
#include "proxy/flight.h"
#include "proxy/sync.h"

#include <stdio.h>

struct census { const struct claw_conf *conf; struct { int64_t entries, bytes; } *routes, others; };

static void count_one(void *arg, const struct claw_cache_answer *a, size_t bytes)
{
    struct census *s = arg;
    for (size_t i = 0; i < s->conf->routes_n; i++) {
        if (!claw_str_eq(s->conf->routes[i].id, a->route)) continue;
        s->routes[i].entries++;
        s->routes[i].bytes += (int64_t)bytes;
        return;
    }
    s->others.entries++;
    s->others.bytes += (int64_t)bytes;
}

static int add_route(struct claw_buf *b, const char *comma, const struct claw_conf_route *r, int64_t entries, int64_t bytes)
{
    int rc = claw_buf_add_fmt(b, "%s{\"id\":", comma);
    if (rc == 0) rc = claw_buf_add_json(b, r->id);
    const struct claw_conf_cache *c = &r->cache;
    return rc == 0 ? claw_buf_add_fmt(b, ",\"cached\":%s,\"coalesced\":%s,\"scope\":\"%s\",\"ttl_seconds\":%.3f,\"entries\":%lld,\"bytes\":%lld}", c->on ? "true" : "false",
                                      c->coalesce ? "true" : "false", c->per_client ? "client" : "shared", c->ttl_ms / 1e3, (long long)entries, (long long)bytes)
                   : rc;
}

static int write_cache(struct claw_control *c, struct claw_admin_question *q)
{
    const struct claw_conf *conf = c->current->conf;
    struct claw_buf *b = &q->out;
    struct claw_cache_stats s = c->cache ? claw_cache_measure(c->cache) : (struct claw_cache_stats){0};
    struct census all = {.conf = conf, .routes = claw_arena_zalloc(&q->arena, (conf->routes_n + 1) * sizeof *all.routes)};
    if (!all.routes) return CLAW_ENOMEM;
    if (c->cache) claw_cache_each(c->cache, count_one, &all);
    int rc = claw_buf_add_fmt(b, "{\"shared\":%s,\"max_bytes\":%lld,\"bytes\":%lld,\"entries\":%lld,\"hits\":%lld,\"misses\":%lld,\"evictions\":%lld,\"flights\":%lld,\"listening\":%lld,\"routes\":[",
                              c->current->shares_answers ? "true" : "false", (long long)s.cap, (long long)s.bytes, (long long)s.entries, (long long)s.hits, (long long)s.misses, (long long)s.evictions,
                              (long long)claw_flight_live(), (long long)claw_flight_listening());
    for (size_t i = 0; i < conf->routes_n && rc == 0; i++)
        rc = add_route(b, i ? "," : "", &conf->routes[i], all.routes[i].entries, all.routes[i].bytes);
    return rc == 0 ? claw_buf_add_fmt(b, "],\"of_other_routes\":%lld}\n", (long long)all.others.entries) : rc;
}

void claw_admin_cache(struct claw_conn *c, struct claw_control *control) { claw_admin_answer_json(c, write_cache(control, c->request)); }

static const char *read_filter(struct claw_str query, struct claw_cache_filter *f, char values[3][CLAW_ADMIN_VALUE])
{
    static const char *const names[3] = {"route", "model", "client"};
    struct claw_str *const to[3] = {&f->route, &f->model, &f->client};
    struct claw_h1_parameter one;
    while (claw_h1_next_parameter(&query, &one)) {
        unsigned i = 0;
        while (i < 3 && !claw_str_eqz(one.name, names[i])) i++;
        if (i == 3) return "The query may name route, model and client.";
        if (!claw_admin_decode(one.value, values[i], to[i])) return "A value of the query is too long, or not well-formed.";
    }
    return NULL;
}

void claw_admin_purge_cache(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct claw_cache_filter f = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    char values[3][CLAW_ADMIN_VALUE];
    const char *why = read_filter(q->head->query, &f, values);
    if (why) {
        claw_admin_answer_error(c, 400, why, "bad_query");
        return;
    }
    size_t gone = control->cache ? claw_cache_purge(control->cache, &f) : 0;
    if (control->current->shares_answers) claw_sync_purge(&f);
    char n[24];
    snprintf(n, sizeof n, "%zu", gone);
    claw_log_event(CLAW_LOG_INFO, "cache purged", "entries#", n, NULL);
    int rc = claw_buf_add_fmt(&q->out, "{\"purged\":%zu}\n", gone);
    claw_admin_answer(c, rc == 0 ? 200 : 503, "application/json");
}
