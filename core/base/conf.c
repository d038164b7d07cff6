#include "base/conf.h"

#include "base/conf_schema.h"
#include "base/conf_tree.h"

#include <errno.h>
#include <math.h>
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

/* ---- values, or the schema's defaults --------------------------------------------------------------------- */

/* `rule` is the schema's path; its last step is the key in `map`. */
static const struct claw_conf_node *value_of(const struct claw_conf_node *map, const char *rule)
{
    const char *dot = strrchr(rule, '.');
    const struct claw_conf_node *n = claw_conf_get(map, dot ? dot + 1 : rule);
    return n && n->type != CLAW_CONF_NULL ? n : NULL;
}

static const char *default_of(const char *rule)
{
    const char *d = claw_conf_rule_at(rule)->fallback;
    CLAW_ASSERT(d && *d != '(');
    return d;
}

static double number_of(const struct claw_conf_node *map, const char *rule)
{
    const struct claw_conf_node *n = value_of(map, rule);
    return n ? n->number : strtod(default_of(rule), NULL);
}

static unsigned whole_of(const struct claw_conf_node *map, const char *rule) { return (unsigned)number_of(map, rule); }

/* Seconds to ms, rounded up: what is above 0 stays above 0. */
static unsigned ms_of(const struct claw_conf_node *map, const char *rule)
{
    return (unsigned)ceil(number_of(map, rule) * 1000 - 1e-6);
}

static unsigned ms_or(const struct claw_conf_node *map, const char *rule, unsigned otherwise)
{
    return value_of(map, rule) ? ms_of(map, rule) : otherwise;
}

static bool truth_of(const struct claw_conf_node *map, const char *rule)
{
    const struct claw_conf_node *n = value_of(map, rule);
    return n ? n->truth : strcmp(default_of(rule), "true") == 0;
}

static struct claw_str text_of(const struct claw_conf_node *map, const char *rule)
{
    const struct claw_conf_node *n = value_of(map, rule);
    return n ? n->text : claw_str_of(default_of(rule));
}

static struct claw_str text_or(const struct claw_conf_node *map, const char *key, struct claw_str otherwise)
{
    const struct claw_conf_node *n = value_of(map, key);
    return n ? n->text : otherwise;
}

/* ---- building --------------------------------------------------------------------------------------------- */

struct builder {
    struct claw_conf *c;
    struct claw_arena *arena;
    const char *(*get_env)(const char *name);
    bool failed; /* no memory */
};

static void *take(struct builder *b, size_t n, size_t size)
{
    if (!n) return NULL;
    void *p = claw_arena_zalloc(b->arena, n * size);
    b->failed |= !p;
    return p;
}

static const char *join(struct builder *b, const char *dir, struct claw_str path)
{
    bool absolute = path.len && path.ptr[0] == '/';
    size_t len = absolute ? 0 : strlen(dir);
    const char *slash = absolute || (len && dir[len - 1] == '/') ? "" : "/";
    char *p = take(b, len + path.len + 2, 1);
    if (p) snprintf(p, len + path.len + 2, "%s%s%.*s", absolute ? "" : dir, slash, CLAW_STR_FMT(path));
    return p;
}

/* A list's scalars; NULL when it is not given, or empty. */
static struct claw_str *texts_of(struct builder *b, const struct claw_conf_node *list, size_t *n)
{
    struct claw_str *all = take(b, list ? list->n : 0, sizeof *all);
    for (size_t i = 0; all && i < list->n; i++) all[(*n)++] = list->entries[i].value->text;
    return all;
}

/* A file named by a key: absolute, NULL when not given. */
static const char *path_of(struct builder *b, const struct claw_conf_node *map, const char *key)
{
    const struct claw_conf_node *n = value_of(map, key);
    return n ? join(b, b->c->dir, n->text) : NULL;
}

static unsigned cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 256 ? 256 : (unsigned)n;
}

static const char *address_of(const struct claw_conf_node *map, const char *rule)
{
    struct claw_str s = text_of(map, rule); /* NUL after it in both cases */
    return claw_str_eqz(s, "localhost") ? "127.0.0.1" : s.ptr;
}

static void build_server(struct builder *b)
{
    struct claw_conf *c = b->c;
    const struct claw_conf_node *s = claw_conf_get(c->root, "server"), *tls = claw_conf_get(s, "tls");
    c->server.listen_address = address_of(s, "server.listen_address");
    c->server.listen_port = (uint16_t)whole_of(s, "server.listen_port");
    c->server.timeout_ms = ms_of(s, "server.timeout_seconds");
    c->server.workers = value_of(s, "server.workers") ? whole_of(s, "server.workers") : cpus();
    c->server.tls.cert = path_of(b, tls, "cert");
    c->server.tls.key = path_of(b, tls, "key");
    c->server.tls.client_ca = path_of(b, tls, "client_ca");
    c->server.max_body_bytes = (size_t)whole_of(s, "server.max_body_mb") << 20;
    c->server.max_header_bytes = (size_t)whole_of(s, "server.max_header_kb") << 10;
    c->server.idle_timeout_ms = ms_of(s, "server.idle_timeout_seconds");
    c->server.header_timeout_ms = ms_of(s, "server.header_timeout_seconds");
    c->server.body_timeout_ms = ms_of(s, "server.body_timeout_seconds");
    c->server.send_timeout_ms = ms_of(s, "server.send_timeout_seconds");
    c->server.drain_ms = ms_of(s, "server.drain_seconds");
    c->server.max_connections = whole_of(s, "server.max_connections");
    c->server.expose_headers = truth_of(s, "server.expose_headers");
    c->server.trusted_proxies = texts_of(b, value_of(s, "trusted_proxies"), &c->server.trusted_proxies_n);
    const struct claw_conf_node *who = claw_conf_get(c->root, "security");
    c->security.whitelist = texts_of(b, value_of(who, "ip_whitelist"), &c->security.whitelist_n);
    c->security.blacklist = texts_of(b, value_of(who, "ip_blacklist"), &c->security.blacklist_n);
    const struct claw_conf_node *a = claw_conf_get(c->root, "admin");
    c->admin.listen_address = address_of(a, "admin.listen_address");
    c->admin.listen_port = (uint16_t)whole_of(a, "admin.listen_port");
    c->admin.token = text_of(a, "admin.token");
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

static void build_variables(struct builder *b, const struct claw_conf_node *names)
{
    b->c->policies.env = take(b, names ? names->n : 0, sizeof *b->c->policies.env);
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

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986 2.1; a % that begins no such triple stands for itself. */
static struct claw_str decoded(struct builder *b, struct claw_str s)
{
    char *to = take(b, s.len + 1, 1);
    size_t n = 0;
    for (size_t i = 0; to && i < s.len; i++) {
        bool triple = s.ptr[i] == '%' && i + 2 < s.len && digit_of(s.ptr[i + 1]) >= 0 && digit_of(s.ptr[i + 2]) >= 0;
        to[n++] = triple ? (char)(digit_of(s.ptr[i + 1]) << 4 | digit_of(s.ptr[i + 2])) : s.ptr[i];
        if (triple) i += 2;
    }
    return (struct claw_str){to, n};
}

static void build_redis(struct builder *b, const struct claw_conf_node *url)
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

static void build_ledger(struct builder *b, const struct claw_conf_node *state)
{
    struct claw_conf *c = b->c;
    const struct claw_conf_node *clients = claw_conf_get(c->root, "clients");
    bool budget = false;
    for (size_t i = 0; clients && i < clients->n; i++) budget |= value_of(clients->entries[i].value, "budget") != NULL;
    c->ledger_path = path_of(b, state, "path");
    if (!c->ledger_path && budget) c->ledger_path = join(b, c->dir, CLAW_STR("openclaw.db"));
    c->ledger_keep_days = whole_of(state, "state.keep_days");
}

static void build_sections(struct builder *b)
{
    struct claw_conf *c = b->c;
    const struct claw_conf_node *p = claw_conf_get(c->root, "policies"), *l = claw_conf_get(c->root, "logging");
    c->policies.dir = join(b, c->dir, text_of(p, "policies.dir"));
    c->policies.budget_ms = whole_of(p, "policies.budget_ms");
    c->policies.memory_mb = whole_of(p, "policies.memory_mb");
    c->policies.max_fetches = whole_of(p, "policies.max_fetches");
    const struct claw_conf_node *places = value_of(p, "allow_private");
    c->policies.allow_private = take(b, places ? places->n : 0, sizeof *c->policies.allow_private);
    for (size_t i = 0; c->policies.allow_private && i < places->n; i++)
        c->policies.allow_private[c->policies.allow_private_n++] = places->entries[i].value->text;
    c->policies.store_mb = whole_of(p, "policies.store_mb");
    const struct claw_conf_node *back = claw_conf_get(p, "rollback");
    c->policies.rollback.on = !back || back->type != CLAW_CONF_BOOL || back->truth;
    c->policies.rollback.errors = whole_of(back, "policies.rollback.errors");
    c->policies.rollback.percent = number_of(back, "policies.rollback.percent");
    c->policies.rollback.window_ms = ms_of(back, "policies.rollback.window_seconds");
    c->policies.drain_max_ms = ms_of(p, "policies.drain_max_seconds");
    build_variables(b, value_of(p, "env"));
    build_redis(b, value_of(claw_conf_get(c->root, "state"), "url"));
    build_ledger(b, claw_conf_get(c->root, "state"));
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (claw_str_eqz(text_of(l, "logging.level"), levels[i])) c->logging.level = (enum claw_log_level)i;
    struct claw_str output = text_of(l, "logging.output");
    c->logging.to = claw_str_eqz(output, "stdout") ? 1 : claw_str_eqz(output, "stderr") ? 2 : 0;
    c->logging.path = path_of(b, l, "path");
    c->logging.decisions = path_of(b, l, "decisions");
    c->logging.text = claw_str_eqz(text_of(l, "logging.format"), "text");
    const struct claw_conf_node *r = claw_conf_get(c->root, "retry");
    c->retry_attempts = value_of(r, "attempts") ? whole_of(r, "retry.attempts") : 0;
    c->retry_total_timeout_ms = ms_of(r, "retry.total_timeout_seconds");
}

static int64_t price_of(const struct claw_conf_node *map, const char *key, double scale)
{
    const struct claw_conf_node *n = value_of(map, key);
    return n ? llround(n->number * scale) : -1;
}

static void build_keys(struct builder *b, struct claw_conf_upstream *u)
{
    const struct claw_conf_node *list = value_of(u->node, "api_keys");
    struct claw_str one = text_or(u->node, "api_key", CLAW_STR(""));
    u->api_keys = take(b, 1 + (list ? list->n : 0), sizeof *u->api_keys);
    if (!u->api_keys) return;
    if (one.len) u->api_keys[u->api_keys_n++] = one;
    for (size_t i = 0; list && i < list->n; i++) {
        const struct claw_conf_node *n = list->entries[i].value;
        struct claw_str key = n->type == CLAW_CONF_MAP ? text_or(n, "key", CLAW_STR("")) : n->text;
        if (key.len) u->api_keys[u->api_keys_n++] = key;
    }
}

static struct claw_conf_header *headers_of(struct builder *b, const struct claw_conf_node *map, size_t *n)
{
    struct claw_conf_header *all = take(b, map ? map->n : 0, sizeof *all);
    for (size_t i = 0; all && i < map->n; i++) all[(*n)++] = (struct claw_conf_header){map->entries[i].key, map->entries[i].value->text};
    return all;
}

/* False: bedrock's and vertex' were read before, and changed meanwhile. */
static bool build_cloud(struct builder *b, struct claw_conf_upstream *u, struct claw_str *url)
{
    const struct claw_conf_expand x = {b->arena, b->c->dir, b->get_env};
    struct claw_conf_cloud cloud;
    const char *key;
    if (claw_conf_cloud(&x, u->node, &cloud, &key)) return false;
    u->aws = cloud.aws;
    u->account = cloud.account;
    if (!url->len) *url = cloud.url.len ? cloud.url : claw_str_of(claw_conf_upstream_url(u->type));
    claw_log_secret(u->aws.id); /* those of the environment: the file's are told with all of its secrets */
    claw_log_secret(u->aws.secret);
    claw_log_secret(u->aws.token);
    claw_log_secret(u->account.key);
    return true;
}

static void build_upstream(struct builder *b, struct claw_conf_upstream *u, struct claw_str name,
                           const struct claw_conf_node *n)
{
    u->name = name;
    u->node = n;
    u->type = claw_conf_get(n, "type")->text;
    struct claw_str url = text_or(n, "base_url", CLAW_STR(""));
    b->failed |= !build_cloud(b, u, &url);
    const char *why;
    if (url.len) CLAW_ASSERT(claw_conf_url_parse(url, &u->url, &why));
    build_keys(b, u);
    u->headers = headers_of(b, value_of(n, "headers"), &u->headers_n);
    u->timeout_ms = ms_or(n, "upstreams.*.timeout_seconds", b->c->server.timeout_ms);
    u->connect_timeout_ms = ms_of(n, "upstreams.*.connect_timeout_seconds");
    u->first_byte_timeout_ms = ms_or(n, "upstreams.*.first_byte_timeout_seconds", u->timeout_ms);
    u->stall_timeout_ms = ms_of(n, "upstreams.*.stall_timeout_seconds");
    u->max_concurrency = whole_of(n, "upstreams.*.max_concurrency");
    const struct claw_conf_node *tls = claw_conf_get(n, "tls");
    u->tls_verify = truth_of(tls, "upstreams.*.tls.verify");
    u->tls_ca = path_of(b, tls, "ca");
    u->tls_server_name = text_or(tls, "server_name", CLAW_STR(""));
    u->price.input = price_of(n, "cost_per_million_input_tokens", 1e6);
    u->price.output = price_of(n, "cost_per_million_output_tokens", 1e6);
    u->price.cached_input = price_of(n, "cost_per_million_cached_input_tokens", 1e6);
    u->price.cache_write = price_of(n, "cost_per_million_cache_write_tokens", 1e6);
    u->price.request_micros = price_of(n, "cost_per_request", 1e6);
}

static void build_upstreams(struct builder *b)
{
    const struct claw_conf_node *all = value_of(b->c->root, "upstreams");
    b->c->upstreams = take(b, all->n, sizeof *b->c->upstreams);
    for (size_t i = 0; b->c->upstreams && i < all->n; i++)
        build_upstream(b, &b->c->upstreams[b->c->upstreams_n++], claw_conf_upstream_name(all, i),
                       all->entries[i].value);
}

bool claw_conf_hedge_after(struct claw_str text, double number, struct claw_conf_hedge *to)
{
    static const unsigned percents[] = {50, 75, 90, 95, 99};
    to->after_ms = to->percent = 0;
    if (!text.ptr) {
        if (!(number >= 1 && number <= 86400000)) return false;
        to->after_ms = (unsigned)number;
        return true;
    }
    for (size_t i = 0; i < sizeof percents / sizeof *percents && !to->percent; i++) {
        char word[4] = {'p', (char)('0' + percents[i] / 10), (char)('0' + percents[i] % 10), 0};
        if (claw_str_eqz(text, word)) to->percent = percents[i];
    }
    return to->percent != 0;
}

static struct claw_conf_hedge hedge_of(const struct claw_conf_node *route)
{
    struct claw_conf_hedge h = {0};
    const struct claw_conf_node *n = claw_conf_get(route, "hedge");
    if (!n || n->type != CLAW_CONF_MAP) return h;
    const struct claw_conf_node *after = claw_conf_get(n, "after"), *budget = claw_conf_get(n, "budget");
    bool number = after && after->type == CLAW_CONF_NUMBER;
    struct claw_str word = after && after->type == CLAW_CONF_STRING ? after->text : CLAW_STR("p95");
    if (number) word.ptr = NULL;
    bool good = claw_conf_hedge_after(word, number ? (after->number < 1 ? 1 : after->number) : 0, &h);
    CLAW_ASSERT(good);
    h.budget = budget && budget->type == CLAW_CONF_NUMBER ? budget->number : 0.05;
    return h;
}

static void build_routes(struct builder *b)
{
    const struct claw_conf_node *all = value_of(b->c->root, "routes");
    b->c->routes = take(b, all->n, sizeof *b->c->routes);
    for (size_t i = 0; b->c->routes && i < all->n; i++) {
        struct claw_conf_route *r = &b->c->routes[b->c->routes_n++];
        r->node = all->entries[i].value;
        r->timeout_ms = ms_or(r->node, "routes.timeout_seconds", 0);
        r->hedge = hedge_of(r->node);
        r->id = text_or(r->node, "id", CLAW_STR(""));
        if (r->id.len) continue;
        char name[32];
        int n = snprintf(name, sizeof name, "route_%zu", i + 1);
        r->id = (struct claw_str){claw_arena_dup(b->arena, name, (size_t)n), (size_t)n};
        b->failed |= !r->id.ptr;
    }
}

static struct claw_conf_rates rates_of(const struct claw_conf_node *n)
{
    static const char *const requests[] = {"requests_per_second", "requests_per_minute", "requests_per_hour", "requests_per_day"};
    static const char *const tokens[] = {"tokens_per_minute", "tokens_per_day"};
    struct claw_conf_rates r = {.burst = -1};
    const struct claw_conf_node *v;
    for (int i = 0; i < 4; i++)
        if ((v = value_of(n, requests[i]))) r.requests[i] = (int64_t)v->number;
    for (int i = 0; i < 2; i++)
        if ((v = value_of(n, tokens[i]))) r.tokens[i] = (int64_t)v->number;
    if ((v = value_of(n, "concurrent"))) r.concurrent = (int64_t)v->number;
    if ((v = value_of(n, "burst"))) r.burst = (int64_t)v->number;
    if ((v = value_of(n, "max_wait_ms"))) r.max_wait_ms = (unsigned)v->number;
    return r;
}

static void read_hash(struct claw_str hex, unsigned char to[32])
{
    for (size_t i = 0; i < 32; i++) to[i] = (unsigned char)(digit_of(hex.ptr[2 * i]) << 4 | digit_of(hex.ptr[2 * i + 1]));
}

static void build_clients(struct builder *b)
{
    const struct claw_conf_node *all = value_of(b->c->root, "clients");
    b->c->clients = take(b, all ? all->n : 0, sizeof *b->c->clients);
    for (size_t i = 0; b->c->clients && i < all->n; i++) {
        const struct claw_conf_node *n = all->entries[i].value, *budget = value_of(n, "budget");
        struct claw_conf_client *c = &b->c->clients[b->c->clients_n++];
        c->node = n;
        c->name = claw_conf_get(n, "name")->text;
        c->key = text_or(n, "key", (struct claw_str){NULL, 0});
        if (!c->key.ptr) read_hash(claw_conf_get(n, "key_sha256")->text, c->key_hash);
        c->tier = text_or(n, "tier", CLAW_STR(""));
        c->models = texts_of(b, value_of(n, "models"), &c->models_n);
        c->routes = texts_of(b, value_of(n, "routes"), &c->routes_n);
        c->rates = rates_of(value_of(n, "limits"));
        char *id = take(b, c->name.len + 8, 1);
        if (id) c->limit_id = (struct claw_str){id, (size_t)snprintf(id, c->name.len + 8, "client:%.*s", CLAW_STR_FMT(c->name))};
        c->budget.micros = budget ? llround(value_of(budget, "usd")->number * 1e6) : -1;
        c->budget.per = text_of(budget, "clients.budget.per");
    }
}

/* A scalar or a list of them; conf_link has seen to it that it is nothing else. */
static struct claw_conf_words words_of(struct builder *b, const struct claw_conf_node *n)
{
    struct claw_conf_words w = {NULL, 0};
    if (!n) return w;
    if (n->type == CLAW_CONF_LIST) {
        w.all = texts_of(b, n, &w.n);
        return w;
    }
    w.all = take(b, 1, sizeof *w.all);
    if (w.all) w.all[w.n++] = n->text;
    return w;
}

static void build_limits(struct builder *b)
{
    const struct claw_conf_node *all = value_of(b->c->root, "rate_limits");
    b->c->limits = take(b, all ? all->n : 0, sizeof *b->c->limits);
    for (size_t i = 0; b->c->limits && i < all->n; i++) {
        const struct claw_conf_node *n = all->entries[i].value, *m = value_of(n, "match"), *who = value_of(m, "client");
        struct claw_conf_limit *l = &b->c->limits[b->c->limits_n++];
        bool map = who && who->type == CLAW_CONF_MAP;
        char name[32];
        int len = snprintf(name, sizeof name, "limit_%zu", i + 1);
        l->id = text_or(n, "id", (struct claw_str){claw_arena_dup(b->arena, name, (size_t)len), (size_t)len});
        l->rates = rates_of(n);
        l->path = words_of(b, value_of(m, "path"));
        l->method = words_of(b, value_of(m, "method"));
        l->model = words_of(b, value_of(m, "model"));
        l->route = words_of(b, value_of(m, "route_id"));
        l->upstream = words_of(b, value_of(m, "upstream_name"));
        l->client = words_of(b, map ? value_of(who, "name") : who);
        l->tier = words_of(b, map ? value_of(who, "tier") : NULL);
        struct claw_conf_words per = words_of(b, value_of(n, "per"));
        l->per = per.all;
        l->per_n = per.n;
    }
}

static void build_webhooks(struct builder *b)
{
    const struct claw_conf_node *all = value_of(b->c->root, "webhooks");
    b->c->webhooks = take(b, all ? all->n : 0, sizeof *b->c->webhooks);
    for (size_t i = 0; b->c->webhooks && i < all->n; i++) {
        const struct claw_conf_node *n = all->entries[i].value;
        struct claw_conf_webhook *w = &b->c->webhooks[b->c->webhooks_n++];
        const char *why;
        w->url = claw_conf_get(n, "url")->text;
        CLAW_ASSERT(claw_conf_url_parse(w->url, &w->to, &why));
        w->events = texts_of(b, value_of(n, "events"), &w->events_n);
        w->secret = text_or(n, "secret", CLAW_STR(""));
        w->headers = headers_of(b, value_of(n, "headers"), &w->headers_n);
        w->timeout_ms = ms_of(n, "webhooks.timeout_seconds");
        w->attempts = whole_of(n, "webhooks.attempts");
        w->max_queue = whole_of(n, "webhooks.max_queue");
    }
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
static const char *folder(struct builder *b, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct claw_str dir = slash ? (struct claw_str){path, slash == path ? 1 : (size_t)(slash - path)} : CLAW_STR("");
    if (dir.len && dir.ptr[0] == '/') return join(b, "", dir);
    char here[4096];
    if (!getcwd(here, sizeof here)) strcpy(here, "/");
    return dir.len ? join(b, here, dir) : join(b, "", claw_str_of(here));
}

/* FNV-1a */
static uint64_t mixed(uint64_t hash, struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++) hash = (hash ^ (unsigned char)s.ptr[i]) * UINT64_C(1099511628211);
    return hash;
}

static int fill(struct builder *b, struct claw_str yaml, const char *(*get_env)(const char *),
                struct claw_conf_report *report)
{
    b->get_env = get_env ? get_env : env_get;
    struct claw_conf_expand x = {b->arena, b->c->dir, b->get_env};
    b->c->root = claw_conf_tree_read(yaml, &x, report);
    if (!b->c->root) return CLAW_EINVAL;
    claw_conf_check(b->c->root, report);
    if (b->c->root->type == CLAW_CONF_MAP) claw_conf_link(b->c->root, &x, report);
    if (report->n > report->unknown || (report->n && !report->to->rest)) return CLAW_EINVAL;
    build_server(b);
    build_sections(b);
    build_upstreams(b);
    build_clients(b);
    build_limits(b);
    build_webhooks(b);
    build_routes(b);
    b->c->hash = claw_conf_tree_hash(b->c->root);
    for (size_t i = 0; i < b->c->upstreams_n; i++) b->c->hash = mixed(b->c->hash, b->c->upstreams[i].account.key); /* a file's */
    if (report->n) *report->to->rest = b->c;
    return report->n ? CLAW_EINVAL : 0;
}

int claw_conf_parse(const char *path, struct claw_str yaml, const char *(*get_env)(const char *name),
                    struct claw_conf **out, struct claw_conf_problems *problems)
{
    struct claw_conf_report report;
    claw_conf_report_init(&report, path, problems);
    struct owner *owner = calloc(1, sizeof *owner);
    int err = CLAW_EINVAL;
    if (owner) {
        claw_arena_init(&owner->arena, NULL, 0, ARENA_MAX);
        struct builder b = {.c = &owner->conf, .arena = &owner->arena};
        owner->conf.path = claw_arena_dup(b.arena, path, strlen(path));
        owner->conf.dir = folder(&b, path);
        b.failed |= !owner->conf.path;
        if (!b.failed) err = fill(&b, yaml, get_env, &report);
        if (err == 0 && b.failed) err = CLAW_EINVAL;
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

int claw_conf_load(const char *path, const char *(*get_env)(const char *name), struct claw_conf **out,
                   struct claw_conf_problems *problems)
{
    struct claw_buf text;
    claw_buf_init(&text, CLAW_CONF_BYTES);
    int err = claw_buf_add_file(&text, path);
    int why = errno;
    if (err == 0) {
        err = claw_conf_parse(path, claw_buf_str(&text), get_env, out, problems);
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
