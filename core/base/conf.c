#include "base/conf.h"

#include "base/conf_part.h"
#include "base/conf_schema.h"
#include "base/conf_secret.h"
#include "base/conf_tree.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARENA_MAX (64u << 20)

/* Everything of one configuration; claw_conf_free gets back to it from its member. */
struct owner {
    struct claw_arena arena;
    struct claw_conf conf;
};

static struct owner *owner_of(struct claw_conf *c)
{
    return (struct owner *)((char *)c - offsetof(struct owner, conf));
}

const struct claw_conf_node *claw_conf_get(const struct claw_conf_node *map, const char *key)
{
    if (!map || map->type != CLAW_CONF_MAP) return NULL;
    for (size_t i = 0; i < map->n; i++)
        if (claw_str_eqz(map->entries[i].key, key)) return map->entries[i].value;
    return NULL;
}

/* The CPUs that a container's quota comes to, rounded up; 0: it has none (cgroup v2, seen from inside). */
static int quota(void)
{
    long long us, period;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    bool limited = f && fscanf(f, "%lld %lld", &us, &period) == 2 && us > 0 && period > 0; /* "max 100000": not */
    if (f) fclose(f);
    return limited && us / period < 256 ? (int)((us + period - 1) / period) : 0;
}

static unsigned cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN), most = quota();
    if (most && most < n) n = most;
    return n < 1 ? 1 : n > 256 ? 256 : (unsigned)n;
}

static const char *address_of(const struct claw_conf_node *map, const char *rule)
{
    struct claw_str s = claw_conf_text_of(map, rule); /* NUL after it in both cases */
    return claw_str_eqz(s, "localhost") ? "127.0.0.1" : s.ptr;
}

static void build_server(struct claw_conf_builder *b)
{
    struct claw_conf *c = b->c;
    const struct claw_conf_node *s = claw_conf_get(c->root, "server"), *tls = claw_conf_get(s, "tls");
    c->server.listen_address = address_of(s, "server.listen_address");
    c->server.listen_port = (uint16_t)claw_conf_whole_of(s, "server.listen_port");
    c->server.timeout_ms = claw_conf_ms_of(s, "server.timeout_seconds");
    c->server.workers = claw_conf_value_of(s, "server.workers") ? claw_conf_whole_of(s, "server.workers") : cpus();
    c->server.tls.cert = claw_conf_path_of(b, tls, "cert");
    c->server.tls.key = claw_conf_path_of(b, tls, "key");
    c->server.tls.client_ca = claw_conf_path_of(b, tls, "client_ca");
    c->server.max_body_bytes = (size_t)claw_conf_whole_of(s, "server.max_body_mb") << 20;
    c->server.upload_hold_bytes = (size_t)claw_conf_whole_of(s, "server.upload_hold_kb") << 10;
    c->server.max_header_bytes = (size_t)claw_conf_whole_of(s, "server.max_header_kb") << 10;
    c->server.idle_timeout_ms = claw_conf_ms_of(s, "server.idle_timeout_seconds");
    c->server.header_timeout_ms = claw_conf_ms_of(s, "server.header_timeout_seconds");
    c->server.body_timeout_ms = claw_conf_ms_of(s, "server.body_timeout_seconds");
    c->server.send_timeout_ms = claw_conf_ms_of(s, "server.send_timeout_seconds");
    c->server.drain_ms = claw_conf_ms_of(s, "server.drain_seconds");
    c->server.heartbeat_ms = claw_conf_ms_of(s, "server.heartbeat_seconds");
    c->server.heartbeat_before_answer = claw_conf_truth_of(s, "server.heartbeat_before_answer");
    c->server.max_connections = claw_conf_whole_of(s, "server.max_connections");
    c->server.expose_headers = claw_conf_truth_of(s, "server.expose_headers");
    c->server.trusted_proxies = claw_conf_texts_of(b, claw_conf_value_of(s, "trusted_proxies"), &c->server.trusted_proxies_n);
    const struct claw_conf_node *who = claw_conf_get(c->root, "security");
    c->security.whitelist = claw_conf_texts_of(b, claw_conf_value_of(who, "ip_whitelist"), &c->security.whitelist_n);
    c->security.blacklist = claw_conf_texts_of(b, claw_conf_value_of(who, "ip_blacklist"), &c->security.blacklist_n);
    const struct claw_conf_node *a = claw_conf_get(c->root, "admin");
    c->admin.listen_address = address_of(a, "admin.listen_address");
    c->admin.listen_port = (uint16_t)claw_conf_whole_of(a, "admin.listen_port");
    c->admin.token = claw_conf_text_of(a, "admin.token");
    c->admin.hosts = claw_conf_texts_of(b, claw_conf_value_of(a, "hosts"), &c->admin.hosts_n);
    c->admin.recent_requests = claw_conf_whole_of(a, "admin.recent_requests");
    c->admin.allow_policy_write = claw_conf_truth_of(a, "admin.allow_policy_write");
}

/* Does the name say that the value is a credential? */
static bool names_secret(struct claw_str name)
{
    static const char *const words[] = {"KEY", "TOKEN", "SECRET", "PASSWORD"};
    for (size_t i = 0; i < name.len; i++)
        for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
            size_t n = strlen(words[k]);
            if (i + n <= name.len && strncasecmp(name.ptr + i, words[k], n) == 0) return true;
        }
    return false;
}

static void build_variables(struct claw_conf_builder *b, const struct claw_conf_node *names)
{
    b->c->policies.env = claw_conf_take(b, names ? names->n : 0, sizeof *b->c->policies.env);
    for (size_t i = 0; b->c->policies.env && i < names->n; i++) {
        struct claw_conf_variable *v = &b->c->policies.env[b->c->policies.env_n++];
        v->name = names->entries[i].value->text;
        char *name = claw_arena_dup(b->arena, v->name.ptr, v->name.len);
        const char *value = name ? b->get_env(name) : NULL;
        b->failed |= !name;
        if (!value) continue;
        v->value = claw_arena_dup(b->arena, value, strlen(value));
        b->failed |= !v->value;
        if (names_secret(v->name)) claw_log_secret(claw_str_of(value));
    }
}

/* RFC 3986 2.1; a % that begins no such triple stands for itself. */
static struct claw_str decoded(struct claw_conf_builder *b, struct claw_str s)
{
    char *to = claw_conf_take(b, s.len + 1, 1);
    size_t n = 0;
    for (size_t i = 0; to && i < s.len; i++) {
        bool triple = s.ptr[i] == '%' && i + 2 < s.len && claw_conf_digit_of(s.ptr[i + 1]) >= 0 && claw_conf_digit_of(s.ptr[i + 2]) >= 0;
        to[n++] = triple ? (char)(claw_conf_digit_of(s.ptr[i + 1]) << 4 | claw_conf_digit_of(s.ptr[i + 2])) : s.ptr[i];
        if (triple) i += 2;
    }
    return (struct claw_str){to, n};
}

static void build_redis(struct claw_conf_builder *b, const struct claw_conf_node *url)
{
    const char *why;
    struct claw_conf_redis *r = &b->c->redis;
    if (!url || !url->text.len || !claw_conf_redis_parse(url->text, r, &why)) {
        *r = (struct claw_conf_redis){.host = CLAW_STR("")};
        return;
    }
    r->user = decoded(b, r->user);
    r->password = decoded(b, r->password);
    if (r->password.ptr) claw_log_secret(r->password);
}

static void build_ledger(struct claw_conf_builder *b, const struct claw_conf_node *state)
{
    struct claw_conf *c = b->c;
    const struct claw_conf_node *clients = claw_conf_get(c->root, "clients");
    bool budget = false;
    for (size_t i = 0; clients && i < clients->n; i++) budget |= claw_conf_value_of(clients->entries[i].value, "budget") != NULL;
    c->ledger_path = claw_conf_path_of(b, state, "path");
    if (!c->ledger_path && budget) {
        struct claw_str home = claw_str_of(b->get_env("STATE_DIRECTORY")); /* the service manager's; a list begins with the first */
        home.len = home.ptr ? strcspn(home.ptr, ":") : 0;
        char *dir = home.len && home.ptr[0] == '/' ? claw_arena_dup(b->arena, home.ptr, home.len) : NULL;
        c->ledger_path = claw_conf_join(b, dir ? dir : c->dir, CLAW_STR("openclaw.db"));
    }
    c->ledger_keep_days = claw_conf_whole_of(state, "state.keep_days");
}

static void build_state(struct claw_conf_builder *b, const struct claw_conf_node *state)
{
    struct claw_conf *c = b->c;
    build_redis(b, claw_conf_value_of(state, "url"));
    build_ledger(b, state);
    c->state.shared = c->redis.host.len && claw_str_eqz(claw_conf_text_of(state, "state.backend"), "redis");
    c->state.prefix = claw_conf_text_of(state, "state.prefix");
    c->state.timeout_ms = claw_conf_whole_of(state, "state.timeout_ms");
    c->state.lease_ms = claw_conf_ms_of(state, "state.lease_seconds");
}

static void build_sections(struct claw_conf_builder *b)
{
    struct claw_conf *c = b->c;
    const struct claw_conf_node *p = claw_conf_get(c->root, "policies"), *l = claw_conf_get(c->root, "logging");
    c->policies.dir = claw_conf_join(b, c->dir, claw_conf_text_of(p, "policies.dir"));
    c->policies.budget_ms = claw_conf_whole_of(p, "policies.budget_ms");
    c->policies.memory_mb = claw_conf_whole_of(p, "policies.memory_mb");
    c->policies.max_fetches = claw_conf_whole_of(p, "policies.max_fetches");
    const struct claw_conf_node *places = claw_conf_value_of(p, "allow_private");
    c->policies.allow_private = claw_conf_take(b, places ? places->n : 0, sizeof *c->policies.allow_private);
    for (size_t i = 0; c->policies.allow_private && i < places->n; i++)
        c->policies.allow_private[c->policies.allow_private_n++] = places->entries[i].value->text;
    c->policies.store_mb = claw_conf_whole_of(p, "policies.store_mb");
    const struct claw_conf_node *back = claw_conf_get(p, "rollback");
    c->policies.rollback.on = !back || back->type != CLAW_CONF_BOOL || back->truth;
    c->policies.rollback.errors = claw_conf_whole_of(back, "policies.rollback.errors");
    c->policies.rollback.percent = claw_conf_number_of(back, "policies.rollback.percent");
    c->policies.rollback.window_ms = claw_conf_ms_of(back, "policies.rollback.window_seconds");
    c->policies.drain_max_ms = claw_conf_ms_of(p, "policies.drain_max_seconds");
    build_variables(b, claw_conf_value_of(p, "env"));
    build_state(b, claw_conf_get(c->root, "state"));
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (claw_str_eqz(claw_conf_text_of(l, "logging.level"), levels[i])) c->logging.level = (enum claw_log_level)i;
    struct claw_str output = claw_conf_text_of(l, "logging.output");
    c->logging.to = claw_str_eqz(output, "stdout") ? 1 : claw_str_eqz(output, "stderr") ? 2 : 0;
    c->logging.path = claw_conf_path_of(b, l, "path");
    c->logging.decisions = claw_conf_path_of(b, l, "decisions");
    c->log_bodies = claw_conf_truth_of(l, "logging.bodies");
    c->logging.text = claw_str_eqz(claw_conf_text_of(l, "logging.format"), "text");
    const struct claw_conf_node *m = claw_conf_get(c->root, "metrics");
    c->metrics.enabled = claw_conf_truth_of(m, "metrics.enabled");
    c->metrics.max_series = claw_conf_whole_of(m, "metrics.max_series");
    const struct claw_conf_node *r = claw_conf_get(c->root, "retry");
    c->retry_attempts = claw_conf_value_of(r, "attempts") ? claw_conf_whole_of(r, "retry.attempts") : 0;
    c->retry_total_timeout_ms = claw_conf_ms_of(r, "retry.total_timeout_seconds");
}

static void build_webhooks(struct claw_conf_builder *b)
{
    const struct claw_conf_node *all = claw_conf_value_of(b->c->root, "webhooks");
    b->c->webhooks = claw_conf_take(b, all ? all->n : 0, sizeof *b->c->webhooks);
    for (size_t i = 0; b->c->webhooks && i < all->n; i++) {
        const struct claw_conf_node *n = all->entries[i].value;
        struct claw_conf_webhook *w = &b->c->webhooks[b->c->webhooks_n++];
        const char *why;
        w->url = claw_conf_get(n, "url")->text;
        CLAW_ASSERT(claw_conf_url_parse(w->url, &w->to, &why));
        w->events = claw_conf_texts_of(b, claw_conf_value_of(n, "events"), &w->events_n);
        w->secret = claw_conf_text_or(n, "secret", CLAW_STR(""));
        w->headers = claw_conf_headers_of(b, claw_conf_value_of(n, "headers"), &w->headers_n);
        w->timeout_ms = claw_conf_ms_of(n, "webhooks.timeout_seconds");
        w->attempts = claw_conf_whole_of(n, "webhooks.attempts");
        w->max_queue = claw_conf_whole_of(n, "webhooks.max_queue");
    }
}

static void build_tracing(struct claw_conf_builder *b)
{
    const struct claw_conf_node *n = claw_conf_get(b->c->root, "tracing");
    const char *why;
    if (!claw_conf_value_of(n, "endpoint")) return;
    struct claw_str url = claw_conf_value_of(n, "endpoint")->text, path = CLAW_STR("/v1/traces");
    CLAW_ASSERT(claw_conf_url_parse(url, &b->c->tracing.to, &why));
    if (!b->c->tracing.to.path.len) {
        while (url.len && url.ptr[url.len - 1] == '/') url.len--;
        char *whole = claw_arena_alloc(b->arena, url.len + path.len);
        b->failed |= !whole;
        if (!whole) return;
        memcpy(whole, url.ptr, url.len);
        memcpy(whole + url.len, path.ptr, path.len);
        url = (struct claw_str){whole, url.len + path.len};
    }
    b->c->tracing.endpoint = url;
    b->c->tracing.headers = claw_conf_headers_of(b, claw_conf_value_of(n, "headers"), &b->c->tracing.headers_n);
    b->c->tracing.service_name = claw_conf_text_of(n, "tracing.service_name");
    b->c->tracing.sample_ratio = claw_conf_number_of(n, "tracing.sample_ratio");
    b->c->tracing.trust_parents = claw_conf_truth_of(n, "tracing.trust_parents");
    b->c->tracing.interval_ms = claw_conf_ms_of(n, "tracing.interval_seconds");
    b->c->tracing.timeout_ms = claw_conf_ms_of(n, "tracing.timeout_seconds");
    b->c->tracing.attempts = claw_conf_whole_of(n, "tracing.attempts");
    b->c->tracing.max_queue = claw_conf_whole_of(n, "tracing.max_queue");
    b->c->tracing.flush_ms = claw_conf_ms_of(n, "tracing.flush_seconds");
}

/* ---- secrets ---------------------------------------------------------------------------------------------- */

/* The whole scalar, and the credential within it: what stands after "Bearer ", a URL's password. */
static void tell_secret(struct claw_str s)
{
    claw_log_secret(s);
    ptrdiff_t at = claw_str_find(s, CLAW_STR("://"));
    if (at >= 0) {
        struct claw_str rest = {s.ptr + at + 3, s.len - (size_t)at - 3};
        const char *end = memrchr(rest.ptr, '@', rest.len);
        const char *colon = end ? memchr(rest.ptr, ':', (size_t)(end - rest.ptr)) : NULL;
        if (colon) claw_log_secret((struct claw_str){colon + 1, (size_t)(end - colon) - 1});
        return;
    }
    const char *blank = s.len ? memchr(s.ptr, ' ', s.len) : NULL;
    if (blank) claw_log_secret(claw_str_trim((struct claw_str){blank, s.len - (size_t)(blank - s.ptr)}));
}

static void tell_secrets(const struct claw_conf_node *n)
{
    if (n->secret && n->type == CLAW_CONF_STRING) tell_secret(n->text);
    for (size_t i = 0; i < n->n; i++) tell_secrets(n->entries[i].value);
}

/* ---- load ------------------------------------------------------------------------------------------------- */

static const char *env_get(const char *name) { return getenv(name); }

/* The folder of a file, absolute. */
static const char *folder(struct claw_conf_builder *b, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct claw_str dir = slash ? (struct claw_str){path, slash == path ? 1 : (size_t)(slash - path)} : CLAW_STR("");
    if (dir.len && dir.ptr[0] == '/') return claw_conf_join(b, "", dir);
    char here[4096];
    if (!getcwd(here, sizeof here)) strcpy(here, "/");
    return dir.len ? claw_conf_join(b, here, dir) : claw_conf_join(b, "", claw_str_of(here));
}

/* FNV-1a */
static uint64_t mixed(uint64_t hash, struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++) hash = (hash ^ (unsigned char)s.ptr[i]) * UINT64_C(1099511628211);
    return hash;
}

static int fill(struct claw_conf_builder *b, struct claw_str yaml, struct claw_conf_report *report)
{
    struct claw_conf_expand x = {b->arena, b->c->dir, b->get_env, b->c, b->keeper};
    b->c->files = claw_conf_take(b, CLAW_CONF_FILES, sizeof *b->c->files);
    b->c->secrets.all = claw_conf_take(b, CLAW_CONF_SECRETS, sizeof *b->c->secrets.all);
    if (!b->c->files || !b->c->secrets.all) return CLAW_EINVAL;
    b->c->root = claw_conf_tree_read(yaml, &x, report);
    if (!b->c->root) return CLAW_EINVAL;
    claw_conf_check(b->c->root, report);
    if (claw_conf_secrets_read(&x, b->c->root, &b->c->secrets, report) != 0) return CLAW_EINVAL;
    if (b->c->secrets.missing) return report->n ? CLAW_EINVAL : CLAW_EAGAIN;
    if (b->c->root->type == CLAW_CONF_MAP) claw_conf_link(b->c->root, &x, report);
    if (report->n > report->unknown || (report->n && !report->to->rest)) return CLAW_EINVAL;
    build_server(b);
    build_sections(b);
    claw_conf_build_upstreams(b);
    claw_conf_build_clients(b);
    claw_conf_build_limits(b);
    build_webhooks(b);
    build_tracing(b);
    claw_conf_build_routes(b);
    claw_conf_build_caching(b);
    b->c->hash = claw_conf_tree_hash(b->c->root);
    for (size_t i = 0; i < b->c->upstreams_n; i++) { /* a file's */
        const struct claw_conf_account *a = &b->c->upstreams[i].account;
        const struct claw_conf_aws *aws = &b->c->upstreams[i].aws;
        if (aws->id.len) b->c->hash = mixed(mixed(mixed(b->c->hash, aws->id), aws->secret), aws->token); /* the environment's, or a role's */
        b->c->hash = mixed(mixed(mixed(mixed(b->c->hash, a->key), a->key_id), a->email), a->token_uri);
    }
    if (report->n) *report->to->rest = b->c;
    return report->n ? CLAW_EINVAL : 0;
}

static int parse(const char *path, struct claw_str yaml, const char *(*get_env)(const char *name), const struct claw_conf_keeper *keeper,
                 struct claw_conf **out, struct claw_conf_problems *problems)
{
    struct claw_conf_report report;
    claw_conf_report_init(&report, path, problems);
    struct owner *owner = calloc(1, sizeof *owner);
    int err = CLAW_EINVAL;
    if (owner) {
        claw_arena_init(&owner->arena, NULL, 0, ARENA_MAX);
        struct claw_conf_builder b = {.c = &owner->conf, .arena = &owner->arena, .get_env = get_env ? get_env : env_get, .keeper = keeper};
        owner->conf.path = claw_arena_dup(b.arena, path, strlen(path));
        owner->conf.dir = folder(&b, path);
        b.failed |= !owner->conf.path;
        if (!b.failed) err = fill(&b, yaml, &report);
        if (err == 0 && b.failed) err = CLAW_EINVAL;
    }
    if (err == CLAW_EAGAIN) {
        *out = &owner->conf;
        return err;
    }
    if (err && !report.n) claw_conf_report_add(&report, 1, 1, "the configuration needs too much memory");
    if (err) {
        bool kept = owner && problems->rest && *problems->rest == &owner->conf;
        if (owner && !kept) claw_conf_free(&owner->conf);
        if (kept) tell_secrets(owner->conf.root);
        return err;
    }
    tell_secrets(owner->conf.root);
    *out = &owner->conf;
    return 0;
}

int claw_conf_parse(const char *path, struct claw_str yaml, const char *(*get_env)(const char *name), struct claw_conf **out,
                    struct claw_conf_problems *problems)
{
    return parse(path, yaml, get_env, NULL, out, problems);
}

int claw_conf_load(const char *path, const char *(*get_env)(const char *name), struct claw_conf **out, struct claw_conf_problems *problems)
{
    return claw_conf_load_with(path, get_env, NULL, out, problems);
}

int claw_conf_load_with(const char *path, const char *(*get_env)(const char *name), const struct claw_conf_keeper *keeper, struct claw_conf **out,
                        struct claw_conf_problems *problems)
{
    struct claw_buf text;
    claw_buf_init(&text, CLAW_CONF_BYTES);
    int err = claw_buf_add_file(&text, path);
    int why = errno;
    if (err == 0) {
        err = parse(path, claw_buf_str(&text), get_env, keeper, out, problems);
    } else {
        struct claw_conf_report report;
        claw_conf_report_init(&report, path, problems);
        if (err == CLAW_EIO) claw_conf_report_add(&report, 1, 1, "cannot read the file: %s", strerror(why));
        else claw_conf_report_add(&report, 1, 1, "the file is larger than %u MB", CLAW_CONF_BYTES >> 20);
        err = CLAW_EINVAL;
    }
    claw_buf_fini(&text);
    return err;
}

void claw_conf_free(struct claw_conf *c)
{
    if (!c) return;
    struct owner *owner = owner_of(c);
    claw_arena_reset(&owner->arena);
    free(owner);
}
