/* collector: spans on their way to an OpenTelemetry collector, as OTLP/HTTP in JSON; batched, bounded, never on a request's path.
 *
 *   any thread: claw_collector_take -> a list without locks -> control's loop, each tracing.interval_seconds or when many
 *   wait: a batch -> POST -> taken, or tried again
 *
 * One batch is under way at a time: at most CLAW_COLLECTOR_BATCH requests' spans, or about CLAW_COLLECTOR_BYTES. 2xx is success
 * (what a partial success says was rejected counts as failed). 429, 502, 503, 504 and no answer at all are tried again, after
 * Retry-After or 1, 2, 4 … seconds (30 at most, 20 % spread), `attempts` times in all; any other answer loses the batch.
 * tracing.max_queue requests wait at most, those under way included; what comes then is lost. All of it is counted:
 * openclaw_trace_spans_total{outcome}. Secrets were replaced before; the configured headers are shown nowhere.
 *
 * Thread: claw_collector_take any, the rest control's.
 */
#ifndef CLAW_PROXY_COLLECTOR_H
#define CLAW_PROXY_COLLECTOR_H

#include "proxy/fetch.h"

#define CLAW_COLLECTOR_BATCH 512u
#define CLAW_COLLECTOR_BYTES (1u << 20)

struct claw_collector;

/* Export on `loop` through `fetcher`, for the whole process: once. CLAW_ENOMEM. */
int claw_collector_new(struct claw_loop *loop, struct claw_fetcher *fetcher, struct claw_metrics_shard *metrics,
                       struct claw_collector **out) CLAW_MUSTCHECK;
/* Export as this says from now on. `conf` must live until the next call. Without an endpoint what waits is dropped. */
void claw_collector_set(struct claw_collector *c, const struct claw_conf *conf);
/* Send what waits, tries again included, and call `done` when nothing is left, at the latest after tracing.flush_seconds: what is
 * left then is dropped. Possibly before this returns. Nobody may give spans any more. */
void claw_collector_flush(struct claw_collector *c, void (*done)(void *arg), void *arg);
/* End a flush now. */
void claw_collector_hurry(struct claw_collector *c);
/* Give up what waits and is under way. */
void claw_collector_free(struct claw_collector *c);
/* Requests whose spans wait, those under way included. */
size_t claw_collector_waiting(void);

/* `n` spans of one request: OTLP JSON objects with commas between; copied. Dropped and counted where there is no room. */
void claw_collector_take(struct claw_str spans, unsigned n);

#endif
