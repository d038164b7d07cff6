#include "proxy/health.h"

#include "proxy/sync.h"

#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_MS 5000u
#define BODY_BYTES 65536u
#define FAILURES 3u

struct check {
    struct claw_health *health;
    size_t upstream;
    struct claw_timer timer;
    struct claw_fetch *fetch; /* under way, or done and not freed yet */
    uint64_t began_ms;
    unsigned failures; /* in a row */
};

struct claw_health {
    struct claw_fetcher *fetcher;
    struct claw_generation_local *local;
    uint64_t chance;
    size_t n;
    struct check checks[];
};

static uint64_t now_of(const struct claw_health *h) { return claw_loop_now_ms(h->local->loop); }
static const struct claw_generation_upstream *upstream_of(const struct check *k) { return &k->health->local->gen->upstreams[k->upstream]; }

/* 0 to 999. */
static unsigned chance_of(struct claw_health *h)
{
    h->chance = h->chance * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(h->chance >> 40) % 1000;
}

static void start_timer(struct check *k, uint64_t ms) { claw_timer_start(k->health->local->loop, &k->timer, ms > 0 ? ms : 1); }

static void plan(struct check *k)
{
    uint64_t ms = upstream_of(k)->conf->health_interval_ms;
    start_timer(k, ms * 9 / 10 + ms * chance_of(k->health) / 5000);
}

static void say(const struct check *k, bool good, const char *why)
{
    char name[100];
    struct claw_str upstream = upstream_of(k)->conf->name;
    snprintf(name, sizeof name, "%.*s", (int)(upstream.len < 99 ? upstream.len : 99), upstream.ptr);
    claw_log_event(good ? CLAW_LOG_INFO : CLAW_LOG_WARN, good ? "a health check found it well" : "health checks set it aside", "upstream", name,
                   good ? NULL : "why", why, NULL);
}

static void failed(struct check *k, const char *why)
{
    static const struct claw_breaker_rules at_once = {.failures = 1};
    struct claw_breaker *b = &upstream_of(k)->cooling->breaker;
    if (++k->failures < FAILURES) return;
    uint64_t now = now_of(k->health);
    if (claw_breaker_fail(b, &at_once, &(struct claw_breaker_failure){.now_ms = now, .began_ms = k->began_ms, .why = "health"})) {
        uint64_t until = atomic_load_explicit(&b->until_ms, memory_order_relaxed);
        claw_sync_tell(CLAW_SYNC_UPSTREAM, upstream_of(k)->conf->name, CLAW_STR(""), CLAW_SYNC_COOLED, until > now ? until - now : 1);
        say(k, false, why);
    }
}

static void good(struct check *k)
{
    struct claw_breaker *b = &upstream_of(k)->cooling->breaker;
    uint64_t now = now_of(k->health);
    k->failures = 0;
    if (claw_breaker_state(b, now) == CLAW_BREAKER_HALF_OPEN && claw_breaker_close(b, now, k->began_ms)) say(k, true, "");
}

static void on_done(struct claw_fetch *f)
{
    struct check *k = f->arg;
    char status[24];
    snprintf(status, sizeof status, "http_%d", f->head ? f->head->status : 0);
    if (f->code != CLAW_OK && f->code != CLAW_EBODY_TOO_LARGE) failed(k, claw_err_kind(f->code));
    else if (!f->head || f->head->status >= 400) failed(k, status);
    else good(k);
    plan(k);
}

static void on_due(struct claw_timer *t)
{
    struct check *k = t->arg;
    const struct claw_conf_upstream *u = upstream_of(k)->conf;
    const char *why = "";
    if (k->fetch) claw_fetch_free(k->fetch); /* it is done: that one started this timer */
    k->fetch = NULL;
    k->began_ms = now_of(k->health);
    const struct claw_fetch_ask ask = {.url = {NULL, 0}, .upstream = k->upstream, .path = u->health_path, .at_host = true, .method = CLAW_STR("GET"), .body = {NULL, 0},
                                       .timeout_ms = u->health_interval_ms < TIMEOUT_MS ? u->health_interval_ms : TIMEOUT_MS, .max_body = BODY_BYTES};
    if (claw_fetch_start(k->health->fetcher, k->health->local, &ask, on_done, k, &k->fetch, &why) != 0) plan(k); /* no memory, or no token yet */
}

struct claw_health *claw_health_new(struct claw_fetcher *x, struct claw_generation_local *local)
{
    const struct claw_conf *conf = local->gen->conf;
    size_t n = 0;
    for (size_t i = 0; i < conf->upstreams_n; i++) n += conf->upstreams[i].health_path.len > 0;
    struct claw_health *h = n ? calloc(1, sizeof *h + n * sizeof *h->checks) : NULL;
    if (!h) return NULL;
    h->fetcher = x;
    h->local = claw_generation_local_ref(local);
    h->chance = claw_loop_clock_us();
    for (size_t i = 0; i < conf->upstreams_n; i++) {
        if (!conf->upstreams[i].health_path.len) continue;
        struct check *k = &h->checks[h->n++];
        k->health = h;
        k->upstream = i;
        claw_timer_init(&k->timer, on_due, k);
        start_timer(k, (uint64_t)conf->upstreams[i].health_interval_ms * chance_of(h) / 1000);
    }
    return h;
}

void claw_health_free(struct claw_health *h)
{
    if (!h) return;
    for (size_t i = 0; i < h->n; i++) {
        claw_timer_stop(h->local->loop, &h->checks[i].timer);
        if (h->checks[i].fetch) claw_fetch_free(h->checks[i].fetch);
    }
    claw_generation_local_unref(h->local);
    free(h);
}
