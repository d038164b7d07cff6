/* metrics: counters, gauges and histograms in Prometheus text form, without locks on the request path.
 *
 * Each thread that counts owns a shard: it alone writes it (relaxed atomics), the scraper adds shards up. A series is
 * found by family and label values in the shard's table; one that the shard has not had yet takes a lock. All shards
 * together have at most metrics.max_series label sets, half of them in families with a model's name, which clients may
 * make up; what comes after is counted under labels "other" (openclaw_metrics_overflow_total says how often). Label values
 * longer than 128 bytes are cut. Families are one table below: name, type, labels, buckets, help.
 * What policies count has its own (series.h).
 */
#ifndef CLAW_PROXY_METRICS_H
#define CLAW_PROXY_METRICS_H

#include "base/buf.h"

#define CLAW_METRICS_SERIES 10000u /* metrics.max_series unless given */
#define CLAW_METRICS_SHARDS 257

/* id, type (COUNTER GAUGE SECONDS(histogram, fed in microseconds) MICROS(counter fed in micro-units)), name, labels, help */
#define CLAW_METRICS_MAP(X)                                                                                              \
    X(REQUESTS, COUNTER, "openclaw_requests_total", "route_id,status,method", "Total requests processed by OpenClaw.")    \
    X(UPSTREAM_REQUESTS, COUNTER, "openclaw_upstream_requests_total", "upstream_name,status",                             \
      "Total requests forwarded to upstreams; status is the code, or the failure kind when there was none.")            \
    X(REQUEST_SECONDS, SECONDS, "openclaw_request_duration_seconds", "route_id,upstream_name", "Latency of requests through OpenClaw.") \
    X(UPSTREAM_SECONDS, SECONDS, "openclaw_upstream_duration_seconds", "upstream_name", "Latency of upstream LLM responses.") \
    X(CACHE_HITS, COUNTER, "openclaw_cache_hits_total", "route_id", "Number of requests served from cache.")             \
    X(CACHE_MISSES, COUNTER, "openclaw_cache_misses_total", "route_id", "Number of requests not found in cache.")        \
    X(COALESCED, COUNTER, "openclaw_coalesced_total", "route_id", "Requests that shared the upstream call of an identical one under way.") \
    X(CACHE_SHARED, COUNTER, "openclaw_cache_shared_total", "outcome",                                                    \
      "Answers asked of those that instances share (hit, miss, unasked while Redis does not answer) and given to them (kept).") \
    X(CACHE_BYTES, GAUGE, "openclaw_cache_bytes", "", "Memory of cached answers, of at most caching.max_size_mb.")      \
    X(CACHE_ENTRIES, GAUGE, "openclaw_cache_entries", "", "Cached answers.")                                             \
    X(CACHE_EVICTIONS, COUNTER, "openclaw_cache_evictions_total", "", "Cached answers let go of before their end, for want of room.") \
    X(FLIGHTS, GAUGE, "openclaw_flights", "", "Answers on their way that identical requests may share, or that are to be cached.") \
    X(FLIGHT_BYTES, GAUGE, "openclaw_flight_bytes", "", "Memory of answers on their way, of at most caching.max_size_mb beside what is listened to.") \
    X(RATE_LIMITED, COUNTER, "openclaw_rate_limit_blocked_total", "limit_id", "Requests blocked by rate limiting.")      \
    X(LIMIT_CELLS, GAUGE, "openclaw_rate_limit_cells", "", "Counts kept for rate limits: a limit's, each key's.")              \
    X(LIMIT_WAITING, GAUGE, "openclaw_rate_limit_waiting", "", "Requests that wait for room in a rate limit.")                     \
    X(LIMIT_SHARED, COUNTER, "openclaw_rate_limit_cells_shared_total", "", "Keys counted together for want of room.")          \
    X(STATE_UP, GAUGE, "openclaw_state_up", "", "1 while the Redis that instances share state in answers in time; 0 also without one.") \
    X(STATE_INSTANCES, GAUGE, "openclaw_state_instances", "", "Instances that share it, this one included; the last number known.") \
    X(STATE_DECISIONS, COUNTER, "openclaw_state_decisions_total", "by",                                                    \
      "Decisions about limits where state is shared: by redis, or by local, which stands for it while it does not answer.")  \
    X(STATE_CALLS, COUNTER, "openclaw_state_calls_total", "outcome", "Calls of the shared state: ok, error, timeout, down.")   \
    X(STATE_SECONDS, SECONDS, "openclaw_state_round_trip_seconds", "", "From a call of the shared state to its reply.")       \
    X(COST, MICROS, "openclaw_estimated_cost_usd_total", "upstream_name,model_name", "Estimated total cost incurred by LLM usage.") \
    X(TTFB_SECONDS, SECONDS, "openclaw_time_to_first_byte_seconds", "upstream_name", "Request sent to an upstream until the first byte of its answer's body or head.") \
    X(GAP_SECONDS, SECONDS, "openclaw_inter_chunk_gap_seconds", "upstream_name", "Time between two reads of a stream's events from its upstream.") \
    X(OVERHEAD_SECONDS, SECONDS, "openclaw_overhead_seconds", "", "Time a request spent inside the proxy, waiting for nobody.") \
    X(TOKENS, COUNTER, "openclaw_tokens_total", "upstream_name,model_name,class", "Tokens by class: input, cached_input, cache_write, output, reasoning.") \
    X(ESTIMATED, COUNTER, "openclaw_usage_estimated_total", "upstream_name,model_name",                                    \
      "Requests of whose tokens no upstream told all: the proxy estimated them.")                                         \
    X(RETRIES, COUNTER, "openclaw_retries_total", "upstream_name,kind", "Tries that failed and were followed by another one.") \
    X(RETRIES_DENIED, COUNTER, "openclaw_retries_denied_total", "route_id", "Tries that were not made because retry.budget was exhausted.") \
    X(BREAKER_OPENED, COUNTER, "openclaw_breaker_opened_total", "upstream_name,of,why", "Times an upstream, one of its models or keys (of) was set aside.") \
    X(BREAKER_STATE, GAUGE, "openclaw_breaker_state", "upstream_name,state", "1 for the state an upstream is in: closed, open or half_open.") \
    X(KEY_STATE, GAUGE, "openclaw_upstream_key_state", "upstream_name,key,state", "1 for the state an upstream's key (its place in the list, from 0) is in: closed, open, half_open or retired.") \
    X(KEYS_RETIRED, COUNTER, "openclaw_upstream_keys_retired_total", "upstream_name", "Keys that an upstream refused with 401 or 403.") \
    X(HEDGES, COUNTER, "openclaw_hedges_total", "route_id,outcome",                                                        \
      "Second upstreams asked while the first was silent: won, lost, failed; budget: not asked for want of it.")        \
    X(POLICY_SECONDS, SECONDS, "openclaw_policy_duration_seconds", "hook",                                               \
      "Time in Lua, the library's and all policies' of a hook together, without what they waited for.")                 \
    X(POLICY_ERRORS, COUNTER, "openclaw_policy_errors_total", "policy,hook", "Policy hooks that failed.")               \
    X(POLICY_STOPS, COUNTER, "openclaw_policy_stops_total", "policy,hook", "Of these, the ones that took more than policies.budget_ms.") \
    X(POLICY_ANSWERS, COUNTER, "openclaw_policy_answers_total", "policy", "Requests that a policy answered in an upstream's place.") \
    X(FETCHES, COUNTER, "openclaw_policy_fetches_total", "outcome", "Requests made by policies (claw.http.fetch): the status, or the failure kind.") \
    X(FETCH_SECONDS, SECONDS, "openclaw_policy_fetch_duration_seconds", "", "Latency of requests made by policies.") \
    X(REDIS_CALLS, COUNTER, "openclaw_policy_redis_calls_total", "outcome", "Commands of policies to Redis: ok, error, down, timeout, busy, canceled.") \
    X(POLICY_SHADOW, COUNTER, "openclaw_policy_shadow_total", "policy,hook,differs",                                      \
      "Decisions of policies in shadow; differs is true, false, or error for one that failed.")                          \
    X(REFUSED, COUNTER, "openclaw_refused_total", "reason",                                                                 \
      "Requests refused before they were routed: no_key, unknown_key, address, model, route, budget.")                  \
    X(CLIENT_REQUESTS, COUNTER, "openclaw_client_requests_total", "client,status", "Requests of each of the configured clients.") \
    X(CLIENT_COST, MICROS, "openclaw_client_cost_usd_total", "client", "Estimated cost of a client's requests.")            \
    X(CLIENT_TOKENS, COUNTER, "openclaw_client_tokens_total", "client,class", "Tokens of a client's requests by class: input, output.") \
    X(CLIENT_GONE, COUNTER, "openclaw_client_gone_total", "route_id", "Requests whose client left before the end.")      \
    X(IN_FLIGHT, GAUGE, "openclaw_requests_in_flight", "", "Requests being served.")                                     \
    X(CONNECTIONS, GAUGE, "openclaw_client_connections", "", "Open client connections.")                                 \
    X(POOL_IDLE, GAUGE, "openclaw_pool_idle_connections", "upstream_name", "Idle connections kept to an upstream.")      \
    X(POOL_OPENED, COUNTER, "openclaw_pool_connections_opened_total", "upstream_name", "Connections opened to an upstream.") \
    X(TLS_RESUMED, COUNTER, "openclaw_pool_tls_resumed_total", "upstream_name", "TLS handshakes with an upstream that resumed a session.") \
    X(GENERATION, GAUGE, "openclaw_generation", "", "Id of the generation in use.")                                      \
    X(RELOADS, COUNTER, "openclaw_reloads_total", "result", "Attempts to load a new generation: published, refused, unchanged.") \
    X(SECRET_FETCHES, COUNTER, "openclaw_secret_fetches_total", "store,outcome", "Secrets asked for, in vault or aws-sm: the status, or the failure kind.") \
    X(SECRETS_STALE, GAUGE, "openclaw_secrets_stale", "", "Secrets that could not be fetched again: the last good values are used.") \
    X(GENERATIONS_LIVE, GAUGE, "openclaw_generations_live", "", "Generations not yet freed, the one in use included.")    \
    X(GENERATION_ROLLBACKS, COUNTER, "openclaw_generation_rollbacks_total", "", "Times a new generation was taken back for its policies' errors.") \
    X(STORE_BYTES, GAUGE, "openclaw_store_bytes", "", "Memory claw.store holds, of at most policies.store_mb.")            \
    X(STORE_ENTRIES, GAUGE, "openclaw_store_entries", "", "Entries in claw.store.")                                       \
    X(STORE_EVICTIONS, COUNTER, "openclaw_store_evictions_total", "", "Entries claw.store let go of before their end, for want of room.") \
    X(WEBHOOKS, COUNTER, "openclaw_webhooks_total", "event,outcome", "Events by what became of them at a webhook: delivered, failed, dropped.") \
    X(WEBHOOKS_WAITING, GAUGE, "openclaw_webhooks_waiting", "", "Events that wait to be delivered.")                          \
    X(TRACE_SPANS, COUNTER, "openclaw_trace_spans_total", "outcome", "Spans by what became of them: exported, failed, dropped for want of room.") \
    X(TRACE_WAITING, GAUGE, "openclaw_trace_requests_waiting", "", "Requests whose spans wait to be exported, of at most tracing.max_queue.") \
    X(LEDGER_WRITTEN, COUNTER, "openclaw_ledger_requests_written_total", "", "Requests whose sums the ledger has written.")  \
    X(LEDGER_WAITING, GAUGE, "openclaw_ledger_sums_waiting", "", "Sums the ledger has not written yet.")                  \
    X(LEDGER_LOST, COUNTER, "openclaw_ledger_requests_lost_total", "", "Requests the ledger had no room for.")              \
    X(LEDGER_ERRORS, COUNTER, "openclaw_ledger_errors_total", "", "Times the ledger could not be written; what was to be is kept and tried again.") \
    X(LOG_DROPPED, GAUGE, "openclaw_log_lines_dropped", "", "Log lines dropped because the log could not keep up.")       \
    X(LOOP_LAG_SECONDS, SECONDS, "openclaw_loop_lag_seconds", "", "How late the event loop ran a timer due each 250 ms.")  \
    X(SERIES, GAUGE, "openclaw_metrics_series", "", "Label sets of these metrics, of at most metrics.max_series.")       \
    X(OVERFLOW, COUNTER, "openclaw_metrics_overflow_total", "", "Updates that found no free series.")

enum claw_metric {
#define CLAW_METRICS_ENUM(id, type, name, labels, help) CLAW_METRIC_##id,
    CLAW_METRICS_MAP(CLAW_METRICS_ENUM)
#undef CLAW_METRICS_ENUM
    CLAW_METRIC_COUNT
};

struct claw_metrics_shard;

/* A shard for this thread, known to the scraper until the process ends. NULL: CLAW_METRICS_SHARDS are in use. */
struct claw_metrics_shard *claw_metrics_shard_new(void);
/* Show counters without labels from the start: what appears with its first failure has no increase to raise an alert. */
void claw_metrics_zero(struct claw_metrics_shard *s);
/* At most so many label sets from now on, over all shards; those that are there stay. Any thread. */
void claw_metrics_bound(size_t most);
/* Forget every shard, and go back to the default bound. For tests; no thread may use one any more. */
void claw_metrics_reset(void);

/* Add `n` (may be negative for gauges) to the series with these label values (as many as the family has; fewer
 * given: the rest are ""). */
void claw_metrics_add(struct claw_metrics_shard *s, enum claw_metric m, int64_t n, unsigned labels_n,
                      const struct claw_str *labels);
/* Set a gauge in this shard (the scrape shows the sum over shards). */
void claw_metrics_set(struct claw_metrics_shard *s, enum claw_metric m, int64_t v, unsigned labels_n,
                      const struct claw_str *labels);
/* Every series of a gauge in this shard becomes 0: what is there no more is not shown as it was last. */
void claw_metrics_clear(struct claw_metrics_shard *s, enum claw_metric m);
/* Add one observation to a histogram. */
void claw_metrics_observe(struct claw_metrics_shard *s, enum claw_metric m, uint64_t us, unsigned labels_n,
                          const struct claw_str *labels);
/* Label sets that there are. Any thread. */
size_t claw_metrics_count(void);
/* Does a family of this file say something under this name, or would its histogram's parts? */
bool claw_metrics_taken(struct claw_str name);
/* The whole of /metrics (text format 0.0.4), what policies count (series.h) at its end. Any thread. */
int claw_metrics_write(struct claw_buf *out) CLAW_MUSTCHECK;
/* Of `n` families, as members of a JSON object without its braces: "bounds" (of the histograms' buckets, in seconds), then each
 * family's name with a list of its series, {"label":"…","value":1}, or of a histogram "sum" in seconds and "buckets", which are
 * not cumulative and have one more than there are bounds. Any thread. */
int claw_metrics_write_json(const enum claw_metric *which, unsigned n, struct claw_buf *out) CLAW_MUSTCHECK;

#endif
