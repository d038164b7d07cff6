/* control, its part that brings gauges up to date when somebody looks. */
#include "app/control_part.h"

#include "proxy/breaker.h"
#include "proxy/cache.h"
#include "proxy/collector.h"
#include "proxy/flight.h"
#include "proxy/ledger.h"
#include "proxy/limit.h"
#include "proxy/state.h"
#include "proxy/store.h"
#include "proxy/webhook.h"

#include <stdio.h>

#define KEYS_MEASURED 32u /* of an upstream, in /metrics; the admin port lists all */

/* 1 for the state it is in, 0 for the others: in control's shard alone. */
static void measure_state(struct claw_control *c, enum claw_metric m, struct claw_str *labels, unsigned n, const char *word)
{
    static const char *const words[] = {"closed", "open", "half_open", "retired"};
    for (unsigned i = 0; i < (m == CLAW_METRIC_KEY_STATE ? 4u : 3u); i++) {
        labels[n - 1] = claw_str_of(words[i]);
        claw_metrics_set(c->metrics, m, strcmp(words[i], word) == 0, n, labels);
    }
}

static void measure_upstreams(struct claw_control *c)
{
    uint64_t now = claw_loop_now_ms(&c->loop);
    claw_metrics_clear(c->metrics, CLAW_METRIC_BREAKER_STATE);
    claw_metrics_clear(c->metrics, CLAW_METRIC_KEY_STATE);
    for (size_t i = 0; i < c->current->conf->upstreams_n; i++) {
        const struct claw_generation_upstream *up = &c->current->upstreams[i];
        struct claw_str labels[3] = {up->conf->name};
        measure_state(c, CLAW_METRIC_BREAKER_STATE, labels, 2, claw_breaker_word(claw_breaker_state(&up->cooling->breaker, now)));
        for (size_t k = 0; k < up->keys_n && k < KEYS_MEASURED; k++) {
            char number[8];
            snprintf(number, sizeof number, "%zu", k);
            labels[1] = claw_str_of(number);
            measure_state(c, CLAW_METRIC_KEY_STATE, labels, 3, claw_breaker_key_word(&up->keys[k]->breaker, now));
        }
    }
}

void claw_control_measure(struct claw_control *c)
{
    claw_lineage_tidy(&c->lineage);
    claw_metrics_set(c->metrics, CLAW_METRIC_GENERATIONS_LIVE, claw_generation_live(), 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_LOG_DROPPED, (int64_t)claw_log_dropped(), 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_CONNECTIONS, c->connections, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_SECRETS_STALE, claw_secrets_stale(c->renew.secrets), 0, NULL);
    struct claw_store_stats held = claw_store_measure(c->store);
    claw_metrics_set(c->metrics, CLAW_METRIC_STORE_BYTES, held.bytes, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_STORE_ENTRIES, held.entries, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_STORE_EVICTIONS, held.evictions, 0, NULL);
    struct claw_cache_stats cached = c->cache ? claw_cache_measure(c->cache) : (struct claw_cache_stats){0};
    claw_metrics_set(c->metrics, CLAW_METRIC_CACHE_BYTES, cached.bytes, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_CACHE_ENTRIES, cached.entries, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_CACHE_EVICTIONS, cached.evictions, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_FLIGHT_BYTES, claw_flight_bytes(), 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_FLIGHTS, claw_flight_live(), 0, NULL);
    struct claw_limit_stats limits = claw_limits_measure();
    claw_metrics_set(c->metrics, CLAW_METRIC_LIMIT_CELLS, limits.cells, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_LIMIT_WAITING, limits.waiting, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_LIMIT_SHARED, limits.shared, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_STATE_UP, claw_state_up(), 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_STATE_INSTANCES, c->current->conf->state.shared ? claw_state_instances() : 0, 0, NULL);
    measure_upstreams(c);
    struct claw_ledger_stats kept = c->ledger ? claw_ledger_measure(c->ledger) : (struct claw_ledger_stats){0};
    claw_metrics_set(c->metrics, CLAW_METRIC_WEBHOOKS_WAITING, (int64_t)claw_webhooks_waiting(c->webhooks), 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_LEDGER_WRITTEN, kept.written, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_LEDGER_WAITING, kept.waiting, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_LEDGER_LOST, kept.lost, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_LEDGER_ERRORS, kept.errors, 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_TRACE_WAITING, (int64_t)claw_collector_waiting(), 0, NULL);
    claw_metrics_set(c->metrics, CLAW_METRIC_SERIES, (int64_t)claw_metrics_count(), 0, NULL);
}
