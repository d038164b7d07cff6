/* admin_live: GET /live, the numbers a dashboard draws, in one answer; and GET /routes, what they are about, with the one thing that
 * can be moved there: the share of a canary. */
#include "app/admin_part.h"

#include "app/shown.h"
#include "proxy/canary.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static const enum claw_metric shown[] = {
    CLAW_METRIC_REQUESTS, CLAW_METRIC_REQUEST_SECONDS, CLAW_METRIC_TTFB_SECONDS, CLAW_METRIC_OVERHEAD_SECONDS, CLAW_METRIC_UPSTREAM_REQUESTS,
    CLAW_METRIC_TOKENS, CLAW_METRIC_COST, CLAW_METRIC_CLIENT_REQUESTS, CLAW_METRIC_CLIENT_COST, CLAW_METRIC_CLIENT_TOKENS, CLAW_METRIC_CACHE_HITS,
    CLAW_METRIC_CACHE_MISSES, CLAW_METRIC_COALESCED, CLAW_METRIC_RATE_LIMITED, CLAW_METRIC_RETRIES, CLAW_METRIC_POLICY_ERRORS,
    CLAW_METRIC_IN_FLIGHT, CLAW_METRIC_LOG_DROPPED,
};

static double cpu_seconds(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0) return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

void claw_admin_live(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    claw_metrics_set(control->metrics, CLAW_METRIC_LOG_DROPPED, (int64_t)claw_log_dropped(), 0, NULL);
    int rc = claw_buf_add_fmt(&q->out, "{\"time\":%lld.%03ld,\"version\":\"%s\",\"generation\":%llu,\"draining\":%s,\"workers\":%u,\"connections\":%lld,\"cpu_seconds\":%.3f,",
                              (long long)t.tv_sec, t.tv_nsec / 1000000, CLAW_VERSION, (unsigned long long)control->current->id, control->draining ? "true" : "false",
                              control->workers_n, (long long)control->connections, cpu_seconds());
    if (rc == 0) rc = claw_metrics_write_json(shown, sizeof shown / sizeof *shown, &q->out);
    if (rc == 0) rc = claw_buf_add_z(&q->out, "}\n");
    claw_admin_answer_json(c, rc);
}

static int add_member(struct claw_buf *b, const char *key, const struct claw_conf_node *n)
{
    if (!n) return 0;
    int rc = claw_buf_add_fmt(b, ",\"%s\":", key);
    return rc == 0 ? claw_shown_add(n, b) : rc;
}

static int add_route(struct claw_buf *b, const struct claw_conf_route *r)
{
    int rc = claw_buf_add_z(b, "{\"id\":");
    if (rc == 0) rc = claw_buf_add_json(b, r->id);
    if (rc == 0) rc = claw_buf_add_z(b, ",\"strategy\":");
    if (rc == 0) rc = claw_buf_add_json(b, r->strategy);
    if (rc == 0) rc = claw_buf_add_fmt(b, ",\"cached\":%s", r->cache.on ? "true" : "false");
    if (rc == 0) rc = add_member(b, "match", claw_conf_get(r->node, "match"));
    const struct claw_conf_node *strategy = claw_conf_get(r->node, "strategy"), *one = claw_conf_get(strategy, "upstream");
    if (rc == 0) rc = add_member(b, one ? "upstream" : "upstreams", one ? one : claw_conf_get(strategy, "upstreams"));
    double moved = claw_canary_moved(r->id);
    if (rc == 0 && moved >= 0) rc = claw_buf_add_fmt(b, ",\"moved_percent\":%.3f", moved);
    return rc == 0 ? claw_buf_add_z(b, "}") : rc;
}

void claw_admin_routes(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    const struct claw_conf *conf = control->current->conf;
    int rc = claw_buf_add_fmt(&q->out, "{\"port\":%u,\"tls\":%s,\"routes\":[", claw_worker_port(control->workers[0]), control->current->tls ? "true" : "false");
    for (size_t i = 0; i < conf->routes_n && rc == 0; i++) {
        if (i) rc = claw_buf_add_z(&q->out, ",\n");
        if (rc == 0) rc = add_route(&q->out, &conf->routes[i]);
    }
    if (rc == 0) rc = claw_buf_add_z(&q->out, "]}\n");
    if (rc == 0) claw_log_redact(&q->out);
    claw_admin_answer_json(c, rc);
}

/* ---- moving a canary ------------------------------------------------------------------------------------------------------------- */

static const struct claw_conf_route *named(const struct claw_conf *conf, struct claw_str id)
{
    for (size_t i = 0; i < conf->routes_n; i++)
        if (claw_str_eq(conf->routes[i].id, id)) return &conf->routes[i];
    return NULL;
}

/* percent=12.5 -> 12.5; percent=file -> -1; false: neither. */
static bool read_percent(struct claw_str query, double *out)
{
    char text[16], *end;
    if (!claw_str_starts(query, CLAW_STR("percent="))) return false;
    struct claw_str s = {query.ptr + 8, query.len - 8};
    *out = -1;
    if (claw_str_eqz(s, "file")) return true;
    if (s.len == 0 || s.len >= sizeof text || s.ptr[0] < '0' || s.ptr[0] > '9') return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    *out = strtod(text, &end);
    return *end == 0 && *out >= 0 && *out <= 100;
}

void claw_admin_move_canary(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct claw_str path = {q->head->path.ptr + 8, q->head->path.len - 8}, id;
    char text[CLAW_ADMIN_VALUE], percents[24] = "file";
    bool fits = path.len > 7 && memcmp(path.ptr + path.len - 7, "/canary", 7) == 0;
    if (fits) path.len -= 7;
    const struct claw_conf_route *r = fits && claw_admin_decode_name(path, text, &id) ? named(control->current->conf, id) : NULL;
    double percent;
    if (!r || !claw_str_eqz(r->strategy, "canary")) {
        claw_admin_answer_error(c, 404, "There is no route of that id with the strategy canary; POST /routes/ID/canary.", "not_found");
        return;
    }
    if (!read_percent(q->head->query, &percent)) {
        claw_admin_answer_error(c, 400, "Expected ?percent=0 to 100, or ?percent=file.", "bad_query");
        return;
    }
    if (percent < 0) {
        claw_canary_settle(r->id);
    } else if (claw_canary_move(r->id, percent) != 0) {
        claw_admin_answer_error(c, 409, "Too many routes were moved since the start, or the id is too long.", "too_many");
        return;
    } else {
        snprintf(percents, sizeof percents, "%.3f", percent);
    }
    char name[129];
    snprintf(name, sizeof name, "%.*s", CLAW_STR_FMT(r->id));
    claw_log_event(CLAW_LOG_WARN, "canary moved by admin", "route", name, "percent", percents, NULL);
    claw_log_flush();
    claw_admin_answer_json(c, add_route(&q->out, r));
}
