#include "proxy/generation.h"

#include "http/h1.h"
#include "net/jwt.h"
#include "proxy/clients.h"
#include "proxy/limit.h"
#include "proxy/token.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define GENERATION_MAGIC 0x67656e72u
#define LOCAL_MAGIC 0x67656e6cu
#define SIGNING 3u
#define ARENA_CAP (64u << 20)

static _Atomic int live;

/* Besides authorization: what signing writes, and what S3's clients sign with. A client's would be signed as ours. */
static const char *const signing[SIGNING] = {"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"};

int claw_generation_live(void) { return atomic_load(&live); }

static void generation_free(struct claw_generation *g)
{
    for (size_t i = 0; i < g->conf->upstreams_n; i++)
        if (g->upstreams && g->upstreams[i].tls) claw_tls_client_unref(g->upstreams[i].tls);
    for (size_t i = 0; g->upstreams && i < g->conf->upstreams_n; i++)
        for (size_t k = 0; k < g->upstreams[i].keys_n; k++) claw_cooling_key_unref(g->upstreams[i].cooling, g->upstreams[i].keys[k]);
    if (g->tls) claw_tls_server_unref(g->tls);
    if (g->policies) g->policies_free(g->policies);
    claw_conf_free(g->conf);
    claw_arena_reset(&g->arena);
    claw_tally_free(atomic_load(&g->tallies));
    g->magic = 0;
    free(g);
    atomic_fetch_sub(&live, 1);
}

/* Upstreams with equal TLS settings share a context, and with it its sessions. */
static int make_tls(struct claw_generation *g, size_t i, struct claw_conf_problems *problems)
{
    const struct claw_conf_upstream *u = &g->conf->upstreams[i];
    for (size_t k = 0; k < i; k++) {
        const struct claw_conf_upstream *o = &g->conf->upstreams[k];
        if (!o->url.tls || o->tls_verify != u->tls_verify || (o->tls_ca == NULL) != (u->tls_ca == NULL)) continue;
        if (u->tls_ca && strcmp(o->tls_ca, u->tls_ca) != 0) continue;
        g->upstreams[i].tls = claw_tls_client_ref(g->upstreams[k].tls);
        return 0;
    }
    char err[256];
    int rc = claw_tls_client_new(u->tls_ca, u->tls_verify, &g->upstreams[i].tls, err, sizeof err);
    if (rc != 0) {
        char path[160];
        snprintf(path, sizeof path, "upstreams.%.*s.tls", CLAW_STR_FMT(u->name));
        claw_conf_problem_add(problems, g->conf, path, "%s", err);
    }
    return rc;
}

/* What goes into an upstream's head must not end its line. */
static int check_fields(struct claw_generation *g, size_t i, struct claw_conf_problems *problems)
{
    const struct claw_conf_upstream *u = &g->conf->upstreams[i];
    char path[200];
    int rc = 0;
    for (size_t k = 0; k < u->headers_n; k++) {
        if (claw_h1_is_token(u->headers[k].name) && claw_h1_is_value(u->headers[k].value)) continue;
        snprintf(path, sizeof path, "upstreams.%.*s.headers", CLAW_STR_FMT(u->name));
        claw_conf_problem_add(problems, g->conf, path, "not a valid header name or value");
        rc = CLAW_EINVAL;
    }
    if (u->account.email.len && !claw_jwt_key_good(u->account.key)) {
        snprintf(path, sizeof path, "upstreams.%.*s.service_account", CLAW_STR_FMT(u->name));
        claw_conf_problem_add(problems, g->conf, path, "its private_key is no RSA key");
        rc = CLAW_EINVAL;
    }
    for (size_t k = 0; k < u->api_keys_n; k++) {
        if (claw_h1_is_value(u->api_keys[k].text)) continue;
        snprintf(path, sizeof path, "upstreams.%.*s.api_key", CLAW_STR_FMT(u->name));
        claw_conf_problem_add(problems, g->conf, path, "a key may not hold control characters");
        rc = CLAW_EINVAL;
    }
    return rc;
}

static int find_cooling(struct claw_generation *g, size_t i)
{
    struct claw_generation_upstream *up = &g->upstreams[i];
    up->cooling = claw_cooling_of(up->conf->name);
    up->keys = claw_arena_alloc(&g->arena, (up->conf->api_keys_n + 1) * sizeof *up->keys);
    if (!up->keys) return CLAW_ENOMEM;
    while (up->keys_n < up->conf->api_keys_n) {
        up->keys[up->keys_n] = claw_cooling_key(up->cooling, up->conf->api_keys[up->keys_n].text);
        up->keys_n++;
    }
    return 0;
}

int claw_generation_new(struct claw_conf *conf, struct claw_generation **out, struct claw_conf_problems *problems)
{
    struct claw_generation *g = calloc(1, sizeof *g);
    if (!g) {
        claw_conf_free(conf);
        return CLAW_ENOMEM;
    }
    atomic_fetch_add(&live, 1);
    g->magic = GENERATION_MAGIC;
    atomic_init(&g->refs, 1);
    g->conf = conf;
    g->hash = conf->hash;
    g->loaded_at = (int64_t)time(NULL);
    claw_arena_init(&g->arena, NULL, 0, ARENA_CAP);
    g->upstreams = claw_arena_zalloc(&g->arena, (conf->upstreams_n + 1) * sizeof *g->upstreams);
    int rc = g->upstreams ? 0 : CLAW_ENOMEM;
    for (size_t i = 0; i < conf->upstreams_n && rc == 0; i++) {
        g->upstreams[i].conf = &conf->upstreams[i];
        g->upstreams[i].stats = claw_upstream_stats_of(conf->upstreams[i].name);
        rc = find_cooling(g, i);
        if (rc == 0) rc = check_fields(g, i, problems);
        if (rc == 0 && conf->upstreams[i].url.tls) rc = make_tls(g, i, problems);
    }
    g->limits = claw_limits_any(conf);
    g->upstream_limits = claw_limits_of_upstreams(conf);
    g->recalls = conf->caching.any;
    if (rc == 0) rc = claw_clients_new(conf, &g->arena, &g->clients, problems);
    if (rc == 0 && conf->server.tls.cert) {
        char err[256];
        rc = claw_tls_server_new(conf->server.tls.cert, conf->server.tls.key, conf->server.tls.client_ca, &g->tls, err, sizeof err);
        if (rc != 0) claw_conf_problem_add(problems, conf, "server.tls", "%s", err);
    }
    if (rc != 0) {
        generation_free(g);
        return CLAW_EINVAL;
    }
    *out = g;
    return 0;
}

static bool configured(const struct claw_conf_upstream *u, struct claw_str name)
{
    for (size_t i = 0; i < u->headers_n; i++)
        if (claw_str_ieq(u->headers[i].name, name)) return true;
    return false;
}

static int add_field(struct claw_buf *b, struct claw_str name, struct claw_str prefix, struct claw_str value)
{
    int rc = claw_buf_add_str(b, name);
    if (rc == 0) rc = claw_buf_add_z(b, ": ");
    if (rc == 0) rc = claw_buf_add_str(b, prefix);
    if (rc == 0) rc = claw_buf_add_str(b, value);
    return rc == 0 ? claw_buf_add_z(b, "\r\n") : rc;
}

static int write_static_head(struct claw_buf *b, const struct claw_conf_upstream *u, struct claw_str auth,
                             struct claw_str prefix, struct claw_str key, const struct claw_conf_header *fixed, size_t fixed_n)
{
    int rc = 0;
    if (!configured(u, CLAW_STR("host"))) rc = add_field(b, CLAW_STR("Host"), CLAW_STR(""), u->url.authority);
    if (rc == 0 && auth.len && key.len && !configured(u, auth)) rc = add_field(b, auth, prefix, key);
    for (size_t i = 0; i < fixed_n && rc == 0; i++)
        if (!configured(u, fixed[i].name)) rc = add_field(b, fixed[i].name, CLAW_STR(""), fixed[i].value);
    for (size_t i = 0; i < u->headers_n && rc == 0; i++) rc = add_field(b, u->headers[i].name, CLAW_STR(""), u->headers[i].value);
    if (rc == 0 && !configured(u, CLAW_STR("accept-encoding")))
        rc = add_field(b, CLAW_STR("accept-encoding"), CLAW_STR(""), CLAW_STR("identity"));
    return rc;
}

int claw_generation_set_upstream(struct claw_generation *g, size_t i, const char *auth_name, const char *auth_prefix,
                                 const struct claw_conf_header *fixed, size_t fixed_n)
{
    struct claw_generation_upstream *up = &g->upstreams[i];
    const struct claw_conf_upstream *u = up->conf;
    struct claw_str auth = auth_name ? claw_str_of(auth_name) : CLAW_STR("");
    struct claw_str prefix = auth_prefix ? claw_str_of(auth_prefix) : CLAW_STR("");
    up->heads_n = u->api_keys_n ? u->api_keys_n : 1;
    up->heads = claw_arena_alloc(&g->arena, up->heads_n * sizeof *up->heads);
    up->own = claw_arena_alloc(&g->arena, (1 + SIGNING + fixed_n + u->headers_n) * sizeof *up->own);
    if (!up->heads || !up->own) return CLAW_ENOMEM;
    up->own_n = 0;
    if (auth.len) up->own[up->own_n++] = up->auth = (struct claw_str){claw_arena_dup(&g->arena, auth.ptr, auth.len), auth.len};
    up->signs = auth.len && u->aws.id.len && !configured(u, auth);
    up->asks_token = auth.len && u->account.email.len && !configured(u, auth);
    for (size_t k = 0; up->signs && k < SIGNING; k++) up->own[up->own_n++] = claw_str_of(signing[k]);
    for (size_t k = 0; k < fixed_n; k++)
        up->own[up->own_n++] = (struct claw_str){claw_arena_dup(&g->arena, fixed[k].name.ptr, fixed[k].name.len), fixed[k].name.len};
    for (size_t k = 0; k < u->headers_n; k++) up->own[up->own_n++] = u->headers[k].name;
    for (size_t k = 0; k < up->own_n; k++)
        if (!up->own[k].ptr) return CLAW_ENOMEM;
    int rc = 0;
    for (size_t k = 0; k < up->heads_n && rc == 0; k++) {
        struct claw_buf b;
        claw_buf_init(&b, 0);
        rc = write_static_head(&b, u, auth, prefix, u->api_keys_n ? u->api_keys[k].text : CLAW_STR(""), fixed, fixed_n);
        struct claw_str s = claw_buf_str(&b);
        char *copy = rc == 0 ? claw_arena_dup(&g->arena, s.ptr, s.len) : NULL;
        if (rc == 0 && !copy) rc = CLAW_ENOMEM;
        up->heads[k] = (struct claw_str){copy, s.len};
        claw_buf_fini(&b);
    }
    return rc;
}

int claw_generation_set_path(struct claw_generation *g, size_t i, enum claw_dialect d, struct claw_str plain, struct claw_str stream)
{
    const struct claw_str given[2] = {plain, stream};
    for (int k = 0; k < 2; k++) {
        char *copy = claw_arena_dup(&g->arena, given[k].ptr, given[k].len);
        if (!copy) return CLAW_ENOMEM;
        g->upstreams[i].paths[d][k] = (struct claw_str){copy, given[k].len};
    }
    return 0;
}

struct claw_generation *claw_generation_ref(struct claw_generation *g)
{
    CLAW_ASSERT(g->magic == GENERATION_MAGIC);
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void claw_generation_unref(struct claw_generation *g)
{
    CLAW_ASSERT(g->magic == GENERATION_MAGIC);
    if (atomic_fetch_sub(&g->refs, 1) == 1) generation_free(g);
}

static void local_free_parts(struct claw_generation_local *g)
{
    size_t n = g->gen->conf->upstreams_n;
    for (size_t i = 0; g->endpoints && i < n; i++)
        if (g->endpoints[i]) claw_endpoint_unref(g->endpoints[i]);
    for (size_t i = 0; g->tokens && i < n; i++)
        if (g->tokens[i]) claw_token_unref(g->tokens[i]);
    free(g->endpoints);
    free(g->tokens);
    free(g->days);
    free(g->hedge_credit);
    for (size_t i = 0; g->turns && i < n; i++) free(g->turns[i]);
    free(g->turns);
    g->magic = 0;
    free(g);
}

int claw_generation_local_new(struct claw_generation *gen, struct claw_loop *loop, struct claw_pool *pool,
                              const struct claw_policy_ops *ops, void *policy, struct claw_generation_local **out)
{
    size_t n = gen->conf->upstreams_n;
    struct claw_generation_local *g = calloc(1, sizeof *g);
    if (!g) return CLAW_ENOMEM;
    g->gen = gen;
    g->endpoints = calloc(n + 1, sizeof *g->endpoints);
    g->tokens = calloc(n + 1, sizeof *g->tokens);
    g->days = calloc(n + 1, sizeof *g->days);
    g->hedge_credit = calloc(gen->conf->routes_n + 1, sizeof *g->hedge_credit);
    g->turns = calloc(n + 1, sizeof *g->turns);
    bool good = g->endpoints && g->tokens && g->days && g->hedge_credit && g->turns;
    for (size_t i = 0; i < n && good; i++) {
        g->endpoints[i] = claw_pool_endpoint(pool, &gen->conf->upstreams[i], gen->upstreams[i].tls);
        if (gen->upstreams[i].asks_token) g->tokens[i] = claw_token_new(&gen->conf->upstreams[i].account, loop);
        size_t keys = gen->upstreams[i].keys_n;
        if (keys > 1) g->turns[i] = calloc(keys, sizeof *g->turns[i]);
        good = g->endpoints[i] && (g->tokens[i] || !gen->upstreams[i].asks_token) && (g->turns[i] || keys < 2);
    }
    if (good) g->tally = claw_tally_new(&gen->tallies, loop->number);
    if (!g->tally) {
        local_free_parts(g);
        return CLAW_ENOMEM;
    }
    for (size_t i = 0; i < gen->conf->routes_n; i++) g->hedge_credit[i] = 1;
    g->magic = LOCAL_MAGIC;
    g->refs = 1;
    g->gen = claw_generation_ref(gen);
    g->ops = ops;
    g->policy = policy;
    g->loop = loop;
    *out = g;
    return 0;
}

void claw_generation_local_carry(struct claw_generation_local *to, const struct claw_generation_local *from)
{
    for (size_t i = 0; i < to->gen->conf->upstreams_n; i++)
        for (size_t k = 0; to->tokens[i] && k < from->gen->conf->upstreams_n; k++) {
            if (!from->tokens[k] || !claw_token_is_of(from->tokens[k], &to->gen->conf->upstreams[i].account)) continue;
            claw_token_unref(to->tokens[i]);
            to->tokens[i] = claw_token_ref(from->tokens[k]);
            break;
        }
}

static void local_free(struct claw_deferred *d)
{
    struct claw_generation_local *g = (struct claw_generation_local *)((char *)d - offsetof(struct claw_generation_local, deferred));
    struct claw_generation *gen = g->gen;
    if (g->on_free) g->on_free(g);
    local_free_parts(g);
    claw_generation_unref(gen);
}

void claw_generation_local_unref(struct claw_generation_local *g)
{
    CLAW_ASSERT(g->magic == LOCAL_MAGIC && g->refs > 0);
    if (--g->refs == 0) claw_loop_defer(g->loop, &g->deferred, local_free);
}
