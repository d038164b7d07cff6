/* control: the thread that owns the process: generations, workers, signals, the end.
 *
 *   load: read files -> parse and check -> prove in a scratch VM -> a VM for each worker -> publish by message
 *   probation: for as long as the new one is on it, its policies' errors are looked at; past policies.rollback the last
 *   good one is published again, and what is on disk is not loaded until it changes or somebody asks
 *   any failure on the way changes nothing but a log line, a metric and what admin shows
 */
#ifndef CLAW_APP_CONTROL_H
#define CLAW_APP_CONTROL_H

#include "app/lineage.h"
#include "app/worker.h"

struct claw_admin;
struct claw_ledger;
struct claw_mock;
struct claw_watch;
struct claw_webhooks;

struct claw_control {
    struct claw_loop loop;
    const char *path;                 /* of openclaw.yaml */
    struct claw_generation *current;  /* lineage.current's */
    struct claw_lineage lineage;
    uint64_t next_id;
    struct claw_worker **workers;
    unsigned workers_n, workers_left;
    _Atomic int64_t connections;
    struct claw_metrics_shard *metrics;
    struct claw_store *store;
    struct claw_ledger *ledger;       /* NULL: none wanted yet */
    struct claw_pool *pool;           /* for webhooks, as fetcher */
    struct claw_fetcher *fetcher;
    struct claw_webhooks *webhooks;
    uint16_t mock_port;
    struct claw_mock *mock;
    struct claw_admin *admin;
    struct claw_watch *watch;
    struct claw_buf last_error;       /* of the last refused load, as printed; "" : the last load was fine */
    int64_t last_error_at;            /* Unix seconds */
    struct claw_timer drain, housekeeping, probation;
    uv_signal_t signals[5];
    bool draining;
    int exit_code;
};

enum claw_load { CLAW_LOAD_PUBLISHED, CLAW_LOAD_UNCHANGED, CLAW_LOAD_REFUSED };

/* Build a generation from the file: everything up to and including the proof. Problems are appended to *report, a line
 * each. Used by -check and -explain too. `mock_port` is where upstreams of type mock are. */
int claw_control_build(const char *path, uint16_t mock_port, struct claw_generation **out, struct claw_buf *report) CLAW_MUSTCHECK;

/* Sections of the file that this version checks but does not act on yet, such as `clients`: the i-th of those given, NULL
 * behind the last. Who relies on them must be told. */
const char *claw_control_inert(const struct claw_conf *conf, unsigned i);
/* Bring the gauges that are not counted as they change up to date. Thread: control. */
void claw_control_measure(struct claw_control *c);
/* Load and publish. Thread: control. */
enum claw_load claw_control_reload(struct claw_control *c, const char *reason);
/* Start to stop: drain, then end. Again: cut what is left. */
void claw_control_stop(struct claw_control *c, const char *reason);
/* Run a proxy on `path` until it is stopped. The process' exit code (SPEC 1). */
int claw_control_run(const char *path);

#endif
