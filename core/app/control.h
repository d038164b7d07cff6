/* control: the thread that owns the process: generations, workers, signals, the end.
 *
 *   load: read files -> parse and check -> prove in a scratch VM -> a VM for each worker -> publish by message
 *   probation: for as long as the new one is on it, its policies' errors are looked at; past policies.rollback the last
 *   good one is published again, and what is on disk is not loaded until it changes or somebody asks
 *   a load that lacks secrets from elsewhere goes on when they were fetched (renew.h); one that changed is a load, too
 *   any failure on the way changes nothing but a log line, a metric and what admin shows
 */
#ifndef CLAW_APP_CONTROL_H
#define CLAW_APP_CONTROL_H

#include "app/lineage.h"
#include "app/notify.h"
#include "app/renew.h"
#include "app/worker.h"

struct claw_admin;
struct claw_collector;
struct claw_ledger;
struct claw_mock;
struct claw_watch;
struct claw_sync;
struct claw_webhooks;

#define CLAW_CONTROL_WAITS 64u /* for a load that waits for secrets; they wait for secrets.timeout_seconds at most */

/* Who asked for a load that has to wait: told its outcome, once. The struct is theirs. */
enum claw_load { CLAW_LOAD_PUBLISHED, CLAW_LOAD_UNCHANGED, CLAW_LOAD_REFUSED, CLAW_LOAD_WAITS };
struct claw_load_wait {
    struct claw_load_wait *next;
    void (*done)(struct claw_load_wait *w, enum claw_load outcome);
};

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
    struct claw_cache *cache;         /* NULL: none wanted yet */
    struct claw_ledger *ledger;       /* NULL: none wanted yet */
    struct claw_sync *sync;
    char cache_secret[33];            /* a hash of caching.secret as it was at start; "": answers are not shared */
    struct claw_pool *pool;           /* for webhooks, as fetcher */
    struct claw_fetcher *fetcher;
    struct claw_webhooks *webhooks;
    struct claw_collector *collector;
    struct claw_renew renew;          /* secrets from elsewhere */
    struct claw_load_wait *waits;     /* for the load that waits for secrets */
    unsigned waits_n;                 /* at most CLAW_CONTROL_WAITS */
    const char *reason;               /* of that one */
    bool asked;                       /* somebody asked for it by name */
    uint16_t mock_port;
    struct claw_mock *mock;
    struct claw_admin *admin;
    struct claw_watch *watch;
    struct claw_buf last_error;       /* of the last refused load, as printed; "" : the last load was fine */
    int64_t last_error_at;            /* Unix seconds */
    struct claw_buf last_change;      /* what the last publication changed, as JSON; "": there was none since the start */
    struct claw_timer drain, housekeeping, probation;
    struct claw_notify notify;        /* the service manager */
    uint64_t watchdog_us;             /* within which it wants a sign of life; 0: it wants none */
    struct claw_timer watchdog;
    uv_poll_t signals;
    int signals_fd;
    bool draining, hurried;           /* asked to stop; asked again */
    int exit_code;
};

/* Build a generation from the file: everything up to and including the proof. Problems are appended to *report, a line
 * each. Used by -check and -explain too. `mock_port` is where upstreams of type mock are. Secrets from elsewhere that `secrets` has not
 * are fetched, and waited for. 0: *out is the caller's, with one reference; else CLAW_EINVAL (*report says what), CLAW_ENOMEM, or how
 * the fetching failed. Thread: control, or the only one. */
int claw_control_build(const char *path, uint16_t mock_port, struct claw_secrets *secrets, struct claw_generation **out, struct claw_buf *report) CLAW_MUSTCHECK;

/* A policy's text that is not on disk, or not yet. */
struct claw_control_draft { struct claw_str name, text; };
/* The same as if the folder had this policy too, or had it so; with the secrets that are there, nothing is fetched. `draft` may be
 * NULL. CLAW_EINVAL (*report says what), CLAW_ENOMEM. Thread: control. */
int claw_control_build_draft(struct claw_control *c, const struct claw_control_draft *draft, struct claw_generation **out,
                             struct claw_buf *report) CLAW_MUSTCHECK;

/* Bring the gauges that are not counted as they change up to date. Thread: control. */
void claw_control_measure(struct claw_control *c);
/* The longest that a worker's loop has not turned, in milliseconds. Thread: control. */
uint64_t claw_control_still_ms(const struct claw_control *c);
/* Load and publish, all secrets from elsewhere fetched anew. CLAW_LOAD_WAITS: for these; `w` (NULL: nobody) is told when it is over.
 * `reason` is a literal. Thread: control. */
enum claw_load claw_control_reload(struct claw_control *c, const char *reason, struct claw_load_wait *w);
/* The same with the secrets that are there: CLAW_LOAD_WAITS only where the file refers to others by now. */
enum claw_load claw_control_reload_policies(struct claw_control *c, const char *reason);
/* Who waits leaves. */
void claw_control_leave(struct claw_control *c, struct claw_load_wait *w);
/* Start to stop: drain, then end. Again: cut what is left. */
void claw_control_stop(struct claw_control *c, const char *reason);
/* Run a proxy on `path` until it is stopped. The process' exit code (SPEC 1). */
int claw_control_run(const char *path);

#endif
