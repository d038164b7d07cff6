#include "app/control_part.h"

#include "app/admin.h"
#include "app/mock.h"
#include "app/shown.h"
#include "app/watch.h"
#include "base/conf_tree.h"
#include "proxy/breaker.h"
#include "proxy/cache.h"
#include "proxy/canary.h"
#include "proxy/collector.h"
#include "proxy/flight.h"
#include "proxy/ledger.h"
#include "proxy/state.h"
#include "proxy/store.h"
#include "proxy/sync.h"
#include "proxy/webhook.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FILES_MOST (64u << 10)
#define HOUSEKEEPING_MS 1000u
#define PROBATION_MS 200u

/* ---- loading and publishing ----------------------------------------------------------------------------------------------------- */

static enum claw_load refuse(struct claw_control *c, const char *reason)
{
    struct claw_str report = claw_buf_str(&c->last_error);
    c->last_error_at = (int64_t)time(NULL);
    struct claw_str result = CLAW_STR("refused");
    claw_metrics_add(c->metrics, CLAW_METRIC_RELOADS, 1, 1, &result);
    claw_renew_refused(&c->renew);
    CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_RELOAD, {"result", CLAW_STR("refused")}, {"reason", claw_str_of(reason)}, {"problems", report});
    while (report.len) {
        const char *nl = memchr(report.ptr, '\n', report.len);
        size_t n = nl ? (size_t)(nl - report.ptr) : report.len;
        char line[1024];
        snprintf(line, sizeof line, "%.*s", (int)n, report.ptr);
        claw_log_event(CLAW_LOG_ERROR, "reload refused", "reason", reason, "problem", line, NULL);
        report.ptr += n + (nl != NULL);
        report.len -= n + (nl != NULL);
    }
    claw_log_flush();
    return CLAW_LOAD_REFUSED;
}

/* Settings that only a restart changes are said so, not silently kept. */
static void say_sealed(const struct claw_conf *old, const struct claw_conf *new)
{
    const struct { const char *key; bool changed; } all[] = {
        {"server.listen_address", strcmp(old->server.listen_address, new->server.listen_address) != 0},
        {"server.listen_port", old->server.listen_port != new->server.listen_port},
        {"server.workers", old->server.workers != new->server.workers},
        {"admin.listen_address", strcmp(old->admin.listen_address, new->admin.listen_address) != 0},
        {"admin.listen_port", old->admin.listen_port != new->admin.listen_port},
        {"state.path", old->ledger_path && (!new->ledger_path || strcmp(old->ledger_path, new->ledger_path) != 0)},
        {"state.keep_days", old->ledger_path && old->ledger_keep_days != new->ledger_keep_days},
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].changed) claw_log_event(CLAW_LOG_WARN, "a change needs a restart", "key", all[i].key, NULL);
}

static void say_published(const struct claw_generation *g, const char *reason, uint64_t took_us)
{
    char id[24], hash[24], ms[24];
    snprintf(id, sizeof id, "%llu", (unsigned long long)g->id);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)g->hash);
    snprintf(ms, sizeof ms, "%llu", (unsigned long long)took_us / 1000);
    claw_log_event(CLAW_LOG_INFO, "generation published", "generation#", id, "hash", hash, "reason", reason, "took_ms#", ms, NULL);
    CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_RELOAD, {"result", CLAW_STR("published")}, {"reason", claw_str_of(reason)}, {"generation#", claw_str_of(id)},
                      {"hash", claw_str_of(hash)});
    for (size_t i = 0; i < g->conf->upstreams_n; i++) {
        const struct claw_conf_upstream *u = &g->conf->upstreams[i];
        char name[128];
        snprintf(name, sizeof name, "%.*s", CLAW_STR_FMT(u->name));
        if (u->url.tls && !u->tls_verify) claw_log_event(CLAW_LOG_WARN, "TLS verification is off for an upstream", "upstream", name, NULL);
    }
    claw_log_flush();
}

static int make_vms(struct claw_generation *g, unsigned n, struct claw_policy_vm **vms, struct claw_buf *report)
{
    for (unsigned i = 0; i < n; i++) {
        char *why = NULL;
        int rc = claw_policy_vm_new(g, &vms[i], &why);
        if (rc == 0) continue;
        if (claw_buf_add_fmt(report, "%s\n", why ? why : claw_err_text(rc)) != 0) claw_buf_clear(report);
        free(why);
        while (i-- > 0) claw_policy_vm_free(vms[i]);
        return rc;
    }
    return 0;
}

static uint64_t now_ms(void) { return claw_loop_clock_us() / 1000; }

/* Once there is a ledger it stays the one it is. */
static int lend(struct claw_control *c, struct claw_generation *gen)
{
    char why[256];
    const struct claw_conf *conf = gen->conf;
    if (!c->ledger && conf->ledger_path && claw_ledger_open(conf->ledger_path, conf->ledger_keep_days, &c->ledger, why, sizeof why) != 0) {
        int rc = claw_buf_add_fmt(&c->last_error, "%s: state.path: cannot open the ledger %s: %s\n", c->path, conf->ledger_path, why);
        return rc == 0 ? CLAW_EINVAL : rc;
    }
    gen->ledger = c->ledger;
    gen->store = c->store;
    if (!c->cache && conf->caching.any && !(c->cache = claw_cache_new((size_t)conf->caching.max_size_mb << 20))) return CLAW_ENOMEM;
    gen->cache = c->cache;
    claw_flight_bound((size_t)conf->caching.max_size_mb << 20);
    char secret[33] = "";
    if (conf->caching.shared) claw_state_hash(&conf->caching.secret, 1, secret);
    gen->shares_answers = *secret && conf->state.asked && strcmp(secret, c->cache_secret) == 0;
    if (strcmp(secret, c->cache_secret) != 0 && *secret)
        claw_log_event(CLAW_LOG_WARN, "a change needs a restart", "key", "caching.backend, caching.secret", NULL);
    return 0;
}

static enum claw_load count_load(struct claw_control *c, enum claw_load done)
{
    struct claw_str result = done == CLAW_LOAD_PUBLISHED ? CLAW_STR("published") : CLAW_STR("unchanged");
    claw_metrics_add(c->metrics, CLAW_METRIC_RELOADS, 1, 1, &result);
    return done;
}

static uint64_t strategy_hash(const struct claw_conf_route *r)
{
    const struct claw_conf_node *n = claw_conf_get(r->node, "strategy");
    return n ? claw_conf_tree_hash(n) : 0;
}

/* What an operator moved holds until the file says something else. */
static void settle_canaries(const struct claw_conf *old, const struct claw_conf *new)
{
    for (size_t i = 0; i < old->routes_n; i++) {
        bool same = false;
        for (size_t k = 0; k < new->routes_n && !same; k++)
            same = claw_str_eq(old->routes[i].id, new->routes[k].id) && strategy_hash(&old->routes[i]) == strategy_hash(&new->routes[k]);
        if (!same) claw_canary_settle(old->routes[i].id);
    }
}

/* For people who look: what cannot be told for want of memory is not told. */
static void note_change(struct claw_control *c, const struct claw_generation *to)
{
    struct claw_buf *b = &c->last_change;
    claw_buf_clear(b);
    int rc = claw_buf_add_fmt(b, "{\"at\":%lld,\"from\":%llu,\"to\":%llu,", (long long)time(NULL), (unsigned long long)c->current->id, (unsigned long long)to->id);
    if (rc == 0) rc = claw_shown_changes(c->current, to, b);
    if (rc == 0) rc = claw_buf_add_z(b, "}");
    if (rc != 0) claw_buf_clear(b);
}

/* The lineage's current one goes to the workers, with a VM for each. */
static void publish(struct claw_control *c, struct claw_policy_vm **vms)
{
    const struct claw_conf *old = c->current->conf;
    struct claw_generation *gen = c->lineage.current->gen;
    for (unsigned i = 0; i < c->workers_n; i++)
        if (claw_worker_publish(c->workers[i], gen, vms[i]) != 0) claw_log_event(CLAW_LOG_ERROR, "a worker keeps its generation: out of memory", NULL);
    say_sealed(old, gen->conf);
    if (claw_log_set(&gen->conf->logging) != 0) claw_log_event(CLAW_LOG_ERROR, "the log stays where it was: cannot open logging.path", NULL);
    if (c->cache && gen->conf->caching.any) claw_cache_set_cap(c->cache, (size_t)gen->conf->caching.max_size_mb << 20);
    claw_store_set_cap(c->store, (size_t)gen->conf->policies.store_mb << 20, now_ms());
    claw_webhooks_set(c->webhooks, gen->conf);
    claw_collector_set(c->collector, gen->conf);
    claw_sync_set(c->sync, gen);
    claw_metrics_bound(gen->conf->metrics.max_series);
    claw_renew_published(&c->renew, &gen->conf->secrets);
    note_change(c, gen);
    settle_canaries(old, gen->conf);
    c->current = gen;
    claw_metrics_set(c->metrics, CLAW_METRIC_GENERATION, (int64_t)gen->id, 0, NULL);
    if (c->lineage.probation) claw_timer_start(&c->loop, &c->probation, PROBATION_MS);
}

/* Asked for by name, what was taken back is given another chance; a file that was only touched is not. */
static bool is_known(const struct claw_control *c, const struct claw_generation *gen, bool asked)
{
    return gen->hash == c->current->hash || (!asked && c->lineage.refused && gen->hash == c->lineage.refused_hash);
}

static enum claw_load take(struct claw_control *c, const char *reason, bool asked)
{
    uint64_t start = claw_loop_clock_us();
    struct claw_generation *gen;
    struct claw_conf *lacking = NULL;
    claw_buf_clear(&c->last_error);
    int rc = claw_control_build_once(c->path, c->mock_port, c->renew.secrets, NULL, &gen, &lacking, &c->last_error);
    if (rc == CLAW_EAGAIN) {
        c->reason = reason;
        c->asked = asked;
        if ((rc = claw_renew_await(&c->renew, lacking)) == 0) return CLAW_LOAD_WAITS;
        rc = claw_buf_add_fmt(&c->last_error, "%s: cannot fetch secrets: %s\n", c->path, claw_err_text(rc)) == 0 ? rc : CLAW_ENOMEM;
    }
    if (rc != 0) return refuse(c, reason);
    if (is_known(c, gen, asked)) {
        claw_generation_unref(gen);
        claw_renew_published(&c->renew, &c->current->conf->secrets);
        return count_load(c, CLAW_LOAD_UNCHANGED);
    }
    if (lend(c, gen) != 0) {
        claw_generation_unref(gen);
        return refuse(c, reason);
    }
    struct claw_policy_vm **vms = calloc(c->workers_n, sizeof *vms);
    if (!vms || make_vms(gen, c->workers_n, vms, &c->last_error) != 0) {
        free(vms);
        claw_generation_unref(gen);
        return refuse(c, reason);
    }
    gen->id = c->next_id;
    struct claw_generation *old = claw_generation_ref(c->current); /* the lineage may let go of it */
    if (claw_lineage_publish(&c->lineage, gen, reason, (int64_t)time(NULL), now_ms()) != 0) {
        for (unsigned i = 0; i < c->workers_n; i++) claw_policy_vm_free(vms[i]);
        free(vms);
        claw_generation_unref(gen);
        claw_generation_unref(old);
        return refuse(c, reason);
    }
    c->next_id++;
    publish(c, vms);
    free(vms);
    claw_watch_set(c->watch, gen->conf);
    claw_generation_unref(old);
    say_published(gen, reason, claw_loop_clock_us() - start);
    return count_load(c, CLAW_LOAD_PUBLISHED);
}

/* Those who wait for a load hear of the first that is over. */
static enum claw_load load(struct claw_control *c, const char *reason, bool asked)
{
    struct claw_load_wait *w;
    if (c->draining) return CLAW_LOAD_UNCHANGED;
    claw_notify_reloading(&c->notify);
    asked |= c->renew.waited && c->asked;
    claw_watch_mark(c->watch);
    enum claw_load done = take(c, reason, asked);
    if (done != CLAW_LOAD_WAITS) claw_control_tell_ready(c);
    while (done != CLAW_LOAD_WAITS && (w = c->waits)) {
        c->waits = w->next;
        c->waits_n--;
        w->done(w, done);
    }
    return done;
}

static void on_secrets_fetched(void *arg)
{
    struct claw_control *c = arg;
    enum claw_load done = load(c, c->reason, c->asked);
    if (done == CLAW_LOAD_UNCHANGED && c->asked) claw_log_event(CLAW_LOG_INFO, "reload: nothing changed", "reason", c->reason, NULL);
}

static void on_secrets_changed(void *arg)
{
    enum claw_load done = load(arg, "secrets changed", false);
    (void)done; /* told where it was decided */
}

enum claw_load claw_control_reload(struct claw_control *c, const char *reason, struct claw_load_wait *w)
{
    if (!c->renew.waited) claw_secrets_begin(c->renew.secrets, true); /* else it joins: one after another would put those who wait off for ever */
    enum claw_load done = load(c, reason, true);
    if (done == CLAW_LOAD_WAITS && w) {
        w->next = c->waits;
        c->waits = w;
        c->waits_n++;
    }
    return done;
}

enum claw_load claw_control_reload_policies(struct claw_control *c, const char *reason) { return load(c, reason, true); }

void claw_control_leave(struct claw_control *c, struct claw_load_wait *w)
{
    for (struct claw_load_wait **at = &c->waits; *at; at = &(*at)->next) {
        if (*at != w) continue;
        *at = w->next;
        c->waits_n--;
        return;
    }
}

/* ---- probation ------------------------------------------------------------------------------------------------------------------ */

static void say_rolled_back(const struct claw_lineage_return *r)
{
    char from[24], to[24], errors[24], requests[24];
    snprintf(from, sizeof from, "%llu", (unsigned long long)r->from);
    snprintf(to, sizeof to, "%llu", (unsigned long long)r->to);
    snprintf(errors, sizeof errors, "%lld", (long long)r->sum.failed);
    snprintf(requests, sizeof requests, "%lld", (long long)r->sum.begun);
    claw_log_event(CLAW_LOG_ERROR, "generation rolled back: its policies fail too many requests", "from#", from, "generation#", to, "policy_errors#", errors,
                   "requests#", requests, "policy", r->worst.policy, "hook", r->worst.hook, "error", r->worst.message, NULL);
    CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_RELOAD, {"result", CLAW_STR("rolled_back")}, {"from#", claw_str_of(from)}, {"generation#", claw_str_of(to)},
                      {"policy", claw_str_of(r->worst.policy)}, {"hook", claw_str_of(r->worst.hook)});
    claw_log_flush();
}

/* What is watched on disk stays what the one taken back named: that is what an operator mends. */
static void roll_back(struct claw_control *c)
{
    struct claw_generation *bad = c->current;
    struct claw_policy_vm **vms = calloc(c->workers_n, sizeof *vms);
    struct claw_buf report;
    claw_buf_init(&report, 0);
    if (vms && make_vms(c->lineage.good->gen, c->workers_n, vms, &report) == 0) {
        claw_generation_ref(bad);
        claw_lineage_return(&c->lineage, (int64_t)time(NULL), now_ms());
        publish(c, vms);
        claw_generation_unref(bad);
        claw_metrics_add(c->metrics, CLAW_METRIC_GENERATION_ROLLBACKS, 1, 0, NULL);
        say_rolled_back(&c->lineage.last);
        claw_control_tell_ready(c);
    } else {
        char why[512];
        snprintf(why, sizeof why, "%.*s", CLAW_STR_FMT(claw_buf_str(&report)));
        claw_lineage_settle(&c->lineage);
        claw_log_event(CLAW_LOG_ERROR, "policies fail too many requests, and the last good generation cannot be had again", "problem", why, NULL);
    }
    claw_buf_fini(&report);
    free(vms);
}

static void on_probation(struct claw_timer *t)
{
    struct claw_control *c = t->arg;
    if (c->draining) return;
    switch (claw_lineage_judge(&c->lineage, now_ms())) {
    case CLAW_LINEAGE_FINE: break;
    case CLAW_LINEAGE_RETURN: roll_back(c); break;
    case CLAW_LINEAGE_NOWHERE: claw_log_event(CLAW_LOG_ERROR, "policies fail too many requests, and there is no earlier generation to return to", NULL);
    }
    if (c->lineage.probation) claw_timer_start(&c->loop, t, PROBATION_MS);
}

/* Requests of generations that have been draining for too long are ended. */
static void cut_overdue(struct claw_control *c)
{
    struct claw_lineage_entry *e;
    uint64_t now = now_ms();
    while ((e = claw_lineage_overdue(&c->lineage, c->current->conf->policies.drain_max_ms, now))) {
        struct claw_tally_sum s = claw_tally_add(e->gen->tallies, 0);
        char id[24], requests[24], ms[24];
        snprintf(id, sizeof id, "%llu", (unsigned long long)e->gen->id);
        snprintf(requests, sizeof requests, "%lld", (long long)(s.begun - s.ended));
        snprintf(ms, sizeof ms, "%llu", (unsigned long long)(now - e->left_ms));
        claw_log_event(CLAW_LOG_WARN, "an older generation's requests are cut: policies.drain_max_seconds are over", "generation#", id, "requests#", requests,
                       "draining_ms#", ms, NULL);
        for (unsigned i = 0; i < c->workers_n; i++) claw_worker_cut(c->workers[i], e->gen);
    }
}

/* ---- messages from workers -------------------------------------------------------------------------------------------------------- */

struct note {
    struct claw_message message;
    struct claw_policy_vm *vm;
};

static void on_vm_note(struct claw_loop *loop, struct claw_message *m)
{
    struct note *n = (struct note *)m;
    struct claw_control *c = loop->arg;
    claw_policy_vm_free(n->vm);
    free(n);
    claw_lineage_tidy(&c->lineage);
}

static void on_vm_free(void *arg, struct claw_policy_vm *vm)
{
    struct claw_control *c = arg;
    struct note *n = calloc(1, sizeof *n);
    if (!n) {
        claw_policy_vm_free(vm);
        return;
    }
    n->message.run = on_vm_note;
    n->vm = vm;
    claw_loop_post(&c->loop, &n->message);
}

static void on_mock_closed(void *arg) { (void)arg; }

/* Other instances know: what is left is this thread's own. */
static void on_told(void *arg)
{
    struct claw_control *c = arg;
    uv_close((uv_handle_t *)&c->signals, NULL); /* what comes now stays pending: it must not kill what is about to end well */
    close(c->signals_fd);
    if (c->admin) claw_admin_close(c->admin);
    claw_mock_close(c->mock, on_mock_closed, NULL);
    claw_watch_free(c->watch);
    claw_renew_stop(&c->renew);
    claw_webhooks_free(c->webhooks);
    claw_collector_free(c->collector);
    claw_fetcher_free(c->fetcher);
    claw_pool_free(c->pool);
    claw_ledger_close(c->ledger); /* answers that are under way come by the loop's last turn */
    claw_loop_stop(&c->loop);
}

/* The last worker has left, and its spans with it. */
static void end(void *arg)
{
    struct claw_control *c = arg;
    for (unsigned i = 0; i < c->workers_n; i++) {
        int leaked = claw_worker_join(c->workers[i]);
        if (leaked) {
            fprintf(stderr, "a worker left %d handles open\n", leaked);
            c->exit_code = 3;
        }
    }
    c->workers_n = 0;
    claw_timer_stop(&c->loop, &c->drain);
    claw_timer_stop(&c->loop, &c->housekeeping);
    claw_timer_stop(&c->loop, &c->probation);
    claw_timer_stop(&c->loop, &c->watchdog);
    claw_sync_end(c->sync, on_told, c);
}

static void on_end_note(struct claw_loop *loop, struct claw_message *m)
{
    struct claw_control *c = loop->arg;
    free(m);
    if (--c->workers_left) return;
    if (c->hurried) end(c);
    else claw_collector_flush(c->collector, end, c);
}

static void on_worker_end(void *arg, struct claw_worker *w)
{
    struct claw_control *c = arg;
    struct claw_message *m = calloc(1, sizeof *m);
    CLAW_ASSERT(m != NULL);
    m->run = on_end_note;
    claw_loop_post(&c->loop, m);
}

/* ---- stopping ------------------------------------------------------------------------------------------------------------------------- */

static void on_drain_due(struct claw_timer *t)
{
    struct claw_control *c = t->arg;
    claw_log_event(CLAW_LOG_WARN, "drain_seconds are over: cutting what is in flight", NULL);
    for (unsigned i = 0; i < c->workers_n; i++) claw_worker_abort(c->workers[i]);
}

void claw_control_stop(struct claw_control *c, const char *reason)
{
    if (c->draining) {
        for (unsigned i = 0; i < c->workers_n; i++) claw_worker_abort(c->workers[i]);
        c->hurried = true;
        claw_collector_hurry(c->collector);
        return;
    }
    c->draining = true;
    claw_log_event(CLAW_LOG_INFO, "draining", "reason", reason, NULL);
    claw_control_tell_stopping(c);
    for (unsigned i = 0; i < c->workers_n; i++) claw_worker_drain(c->workers[i]);
    claw_timer_start(&c->loop, &c->drain, c->current->conf->server.drain_ms);
}

static void on_signal(struct claw_control *c, uint32_t signal)
{
    switch (signal) {
    case SIGHUP:
        if (claw_control_reload(c, "SIGHUP", NULL) == CLAW_LOAD_UNCHANGED) claw_log_event(CLAW_LOG_INFO, "reload: nothing changed", "reason", "SIGHUP", NULL);
        break;
    case SIGUSR1:
        if (claw_log_reopen() != 0) claw_log_event(CLAW_LOG_ERROR, "the log file cannot be opened anew", NULL);
        break;
    default: claw_control_stop(c, signal == SIGINT ? "SIGINT" : "SIGTERM");
    }
    claw_log_flush();
}

static void on_signals(uv_poll_t *h, int status, int events)
{
    struct claw_control *c = h->data;
    struct signalfd_siginfo one;
    while (read(c->signals_fd, &one, sizeof one) == sizeof one) on_signal(c, one.ssi_signo);
}

/* Blocked in all threads, as those to come inherit it, and read here: libuv's own way gives each signal back its default when it is closed,
 * and until all threads are gone that would end the process. */
static int open_signals(struct claw_control *c)
{
    static const int numbers[] = {SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGQUIT};
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&set, numbers[i]);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) return CLAW_EIO;
    c->signals_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    c->signals.data = c;
    return c->signals_fd >= 0 && uv_poll_init(&c->loop.uv, &c->signals, c->signals_fd) == 0 && uv_poll_start(&c->signals, UV_READABLE, on_signals) == 0 ? 0 : CLAW_EIO;
}

static void on_change(void *arg)
{
    struct claw_control *c = arg;
    claw_secrets_begin(c->renew.secrets, false);
    enum claw_load done = load(c, "files changed", false);
    (void)done; /* told where it was decided */
}

static void on_housekeeping(struct claw_timer *t)
{
    struct claw_control *c = t->arg;
    claw_lineage_tidy(&c->lineage);
    claw_cooling_tidy(claw_loop_now_ms(&c->loop));
    if (!c->draining) cut_overdue(c);
    claw_notify_again(&c->notify);
    if (claw_log_waiting()) claw_log_flush();
    claw_timer_start(&c->loop, t, HOUSEKEEPING_MS);
}

/* ---- starting --------------------------------------------------------------------------------------------------------------------------- */

/* SO_REUSEPORT lets workers share a port, and would let a second proxy share it silently: ask for it alone first. */
static bool port_is_free(const char *address, uint16_t port)
{
    struct sockaddr_storage a;
    bool six = strchr(address, ':') != NULL;
    if (port == 0) return true;
    if ((six ? uv_ip6_addr(address, port, (struct sockaddr_in6 *)&a) : uv_ip4_addr(address, port, (struct sockaddr_in *)&a)) != 0) return true;
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return true;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool ok = bind(fd, (struct sockaddr *)&a, six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)) == 0 || errno != EADDRINUSE;
    close(fd);
    return ok;
}

static int cannot_bind(const char *what, const char *address, unsigned port, const char *why)
{
    fprintf(stderr, "cannot listen on %s:%u (%s): %s\n", address, port, what, why);
    return 2;
}

static int start_workers(struct claw_control *c)
{
    const struct claw_conf *conf = c->current->conf;
    const struct claw_worker_events on = {on_vm_free, on_worker_end, c};
    const char *why = NULL;
    if (!port_is_free(conf->server.listen_address, conf->server.listen_port))
        return cannot_bind("server", conf->server.listen_address, conf->server.listen_port, "address already in use");
    c->workers = calloc(conf->server.workers, sizeof *c->workers);
    struct claw_policy_vm **vms = calloc(conf->server.workers, sizeof *vms);
    struct claw_buf report;
    claw_buf_init(&report, 0);
    int code = 0;
    if (!c->workers || !vms || make_vms(c->current, conf->server.workers, vms, &report) != 0) {
        fprintf(stderr, "%.*s", CLAW_STR_FMT(claw_buf_str(&report)));
        code = 1;
    }
    claw_buf_fini(&report);
    for (unsigned i = 0; i < conf->server.workers && code == 0; i++) {
        int rc = claw_worker_new(i + 1, c->current, vms[i], &c->connections, &on, &c->workers[i], &why);
        if (rc == 0) c->workers_n++;
        else code = rc == CLAW_EIO ? cannot_bind("server", conf->server.listen_address, conf->server.listen_port, why) : 3;
        for (unsigned k = i + 1; rc != 0 && k < conf->server.workers; k++) claw_policy_vm_free(vms[k]);
    }
    free(vms);
    for (unsigned i = 0; i < c->workers_n && code == 0; i++) {
        if (claw_worker_start(c->workers[i]) != 0) code = 3;
        else c->workers_left++;
    }
    return code;
}

static void raise_file_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* The kernel's table of files grows by doubling, and while threads share it each time by 10 to 20 ms in socket() (it waits for
 * all CPUs: synchronize_rcu): once, while there is one thread. It costs 8 bytes a descriptor. */
static void widen_file_table(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0) return;
    int fd = fcntl(0, F_DUPFD_CLOEXEC, (int)(l.rlim_cur < FILES_MOST ? l.rlim_cur : FILES_MOST) - 1);
    if (fd >= 0) close(fd);
}

static int prepare(struct claw_control *c, const char *path)
{
    static const struct claw_str outcomes[3] = {CLAW_STR("exported"), CLAW_STR("failed"), CLAW_STR("dropped")};
    const char *why;
    c->path = path;
    c->next_id = 1;
    c->loop.arg = c;
    c->metrics = claw_metrics_shard_new();
    claw_metrics_zero(c->metrics);
    claw_metrics_add(c->metrics, CLAW_METRIC_RELOADS, 0, 1, &CLAW_STR("refused"));
    for (unsigned i = 0; i < 3; i++) claw_metrics_add(c->metrics, CLAW_METRIC_TRACE_SPANS, 0, 1, &outcomes[i]);
    claw_buf_init(&c->last_error, 1u << 20);
    claw_buf_init(&c->last_change, 1u << 20);
    if (open_signals(c) != 0) return 3;
    claw_timer_init(&c->drain, on_drain_due, c);
    claw_timer_init(&c->housekeeping, on_housekeeping, c);
    claw_timer_init(&c->probation, on_probation, c);
    claw_control_open_notify(c);
    if (claw_pool_new(&c->loop, c->metrics, &c->pool) != 0 || claw_fetcher_new(&c->loop, c->pool, c->metrics, &c->fetcher) != 0) return 3;
    if (!(c->sync = claw_sync_new(&c->loop, c->metrics))) return 3;
    if (claw_webhooks_new(&c->loop, c->fetcher, c->metrics, &c->webhooks) != 0) return 3;
    if (claw_collector_new(&c->loop, c->fetcher, c->metrics, &c->collector) != 0) return 3;
    if (claw_renew_init(&c->renew, &c->loop, c->fetcher, c->metrics) != 0) return 3;
    c->renew.on_load = on_secrets_fetched;
    c->renew.on_change = on_secrets_changed;
    c->renew.arg = c;
    if (claw_mock_open(&c->loop, &c->mock, &c->mock_port, &why) != 0) return cannot_bind("mock upstream", "127.0.0.1", 0, why);
    if (claw_watch_new(&c->loop, on_change, c, &c->watch) != 0) return 3;
    return 0;
}

/* Requests count the same in all instances of one secret. */
static void name_answers(struct claw_control *c, struct claw_str secret)
{
    unsigned char key[CLAW_CANON_BYTES];
    claw_state_hash(&secret, 1, c->cache_secret);
    for (unsigned i = 0; i < sizeof key; i++) {
        unsigned byte = 0;
        sscanf(c->cache_secret + 2 * i, "%2x", &byte);
        key[i] = (unsigned char)byte;
    }
    claw_canon_set_key(key);
}

static int start(struct claw_control *c)
{
    const char *why;
    if (claw_control_build(c->path, c->mock_port, c->renew.secrets, &c->current, &c->last_error) != 0) {
        fprintf(stderr, "%.*s", CLAW_STR_FMT(claw_buf_str(&c->last_error)));
        return 1;
    }
    const struct claw_conf *conf = c->current->conf;
    claw_watch_set(c->watch, conf); /* at once: the rest takes its time */
    c->current->id = c->next_id++;
    if (conf->caching.shared) name_answers(c, conf->caching.secret);
    claw_metrics_bound(conf->metrics.max_series);
    claw_collector_set(c->collector, conf);
    if (!(c->store = claw_store_new((size_t)conf->policies.store_mb << 20))) return 3;
    if (lend(c, c->current) != 0) {
        fprintf(stderr, "%.*s", CLAW_STR_FMT(claw_buf_str(&c->last_error)));
        return 1;
    }
    if (claw_lineage_publish(&c->lineage, c->current, "start", (int64_t)time(NULL), now_ms()) != 0) return 3;
    if (claw_log_open(&conf->logging) != 0) {
        fprintf(stderr, "cannot open the log %s: %s\n", conf->logging.path ? conf->logging.path : "", strerror(errno));
        return 3;
    }
    if (conf->admin.listen_port) {
        if (!port_is_free(conf->admin.listen_address, conf->admin.listen_port))
            return cannot_bind("admin", conf->admin.listen_address, conf->admin.listen_port, "address already in use");
        if (claw_admin_open(c, conf->admin.listen_address, conf->admin.listen_port, &c->admin, &why) != 0)
            return cannot_bind("admin", conf->admin.listen_address, conf->admin.listen_port, why);
    }
    int code = start_workers(c);
    if (code != 0) return code;
    char port[8], workers[12];
    snprintf(port, sizeof port, "%u", claw_worker_port(c->workers[0]));
    snprintf(workers, sizeof workers, "%u", c->workers_n);
    claw_log_event(CLAW_LOG_INFO, "listening", "address", conf->server.listen_address, "port#", port, "workers#", workers, "version", CLAW_VERSION, NULL);
    claw_webhooks_set(c->webhooks, conf);
    claw_sync_set(c->sync, c->current);
    claw_renew_published(&c->renew, &conf->secrets);
    claw_metrics_set(c->metrics, CLAW_METRIC_GENERATION, (int64_t)c->current->id, 0, NULL);
    struct claw_str result = CLAW_STR("published");
    claw_metrics_add(c->metrics, CLAW_METRIC_RELOADS, 1, 1, &result);
    say_published(c->current, "start", 0);
    claw_timer_start(&c->loop, &c->housekeeping, 1);
    if (c->lineage.probation) claw_timer_start(&c->loop, &c->probation, PROBATION_MS);
    claw_control_tell_started(c);
    return 0;
}

int claw_control_run(const char *path)
{
    struct claw_control *c = calloc(1, sizeof *c);
    if (!c || claw_loop_init(&c->loop) != 0) return 3;
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    widen_file_table();
    /* Bodies of 100 KB come and go with every request: giving their pages back each time costs more than reading them. */
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    setenv("UV_THREADPOOL_SIZE", "8", 0); /* look-ups of names */
    int code = prepare(c, path);
    if (code == 0) code = start(c);
    if (code != 0) { /* the process ends here: what is open goes with it */
        claw_log_close(1000);
        fflush(NULL);
        _exit(code);
    }
    claw_loop_run(&c->loop);
    claw_sync_free(c->sync);
    int leaked = claw_loop_fini(&c->loop, true);
    claw_lineage_fini(&c->lineage);
    claw_store_free(c->store);
    claw_cache_free(c->cache);
    claw_renew_fini(&c->renew);
    claw_buf_fini(&c->last_error);
    claw_notify_close(&c->notify);
    claw_buf_fini(&c->last_change);
    free(c->workers);
    code = leaked ? 3 : c->exit_code;
    free(c);
    claw_log_event(CLAW_LOG_INFO, "stopped", NULL);
    claw_log_flush();
    claw_log_close(2000);
    return code;
}
