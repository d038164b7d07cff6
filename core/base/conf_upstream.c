/* upstreams: keys, prices, clouds, cooling. */
#include "base/conf_part.h"
#include "base/conf_schema.h"
#include "base/conf_tree.h"

#include <math.h>

static int64_t price_of(const struct claw_conf_node *map, const char *key, double scale)
{
    const struct claw_conf_node *n = claw_conf_value_of(map, key);
    return n ? llround(n->number * scale) : -1;
}

static struct claw_conf_key key_of(struct claw_conf_builder *b, const struct claw_conf_node *n)
{
    struct claw_conf_key k = {.text = n->text, .weight = 1};
    if (n->type != CLAW_CONF_MAP) return k;
    const struct claw_conf_node *weight = claw_conf_get(n, "weight"), *models = claw_conf_value_of(n, "models");
    k.text = claw_conf_text_or(n, "key", CLAW_STR(""));
    if (weight && weight->type == CLAW_CONF_NUMBER) k.weight = weight->number;
    k.models = claw_conf_take(b, models ? models->n : 0, sizeof *k.models);
    for (size_t i = 0; k.models && i < models->n; i++) k.models[k.models_n++] = models->entries[i].value->text;
    return k;
}

static void build_keys(struct claw_conf_builder *b, struct claw_conf_upstream *u)
{
    const struct claw_conf_node *list = claw_conf_value_of(u->node, "api_keys");
    struct claw_str one = claw_conf_text_or(u->node, "api_key", CLAW_STR(""));
    u->api_keys = claw_conf_take(b, 1 + (list ? list->n : 0), sizeof *u->api_keys);
    if (!u->api_keys) return;
    if (one.len) u->api_keys[u->api_keys_n++] = (struct claw_conf_key){.text = one, .weight = 1};
    for (size_t i = 0; list && i < list->n; i++) {
        struct claw_conf_key k = key_of(b, list->entries[i].value);
        if (k.text.len) u->api_keys[u->api_keys_n++] = k;
    }
}

static struct claw_conf_cooling cooling_of(const struct claw_conf_node *upstream)
{
    const struct claw_conf_node *n = claw_conf_value_of(upstream, "cooling");
    bool off = n && n->type == CLAW_CONF_BOOL && !n->truth;
    if (n && n->type != CLAW_CONF_MAP) n = NULL;
    return (struct claw_conf_cooling){.on = !off, .failures = claw_conf_whole_of(n, "upstreams.*.cooling.failures"), .percent = claw_conf_whole_of(n, "upstreams.*.cooling.percent"),
                                      .requests = claw_conf_whole_of(n, "upstreams.*.cooling.requests")};
}

static bool build_cloud(struct claw_conf_builder *b, struct claw_conf_upstream *u, struct claw_str *url)
{
    const struct claw_conf_expand x = {b->arena, b->c->dir, b->get_env, b->c, b->keeper};
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

static void build_upstream(struct claw_conf_builder *b, struct claw_conf_upstream *u, struct claw_str name,
                           const struct claw_conf_node *n)
{
    u->name = name;
    u->node = n;
    u->type = claw_conf_get(n, "type")->text;
    struct claw_str url = claw_conf_text_or(n, "base_url", CLAW_STR(""));
    b->failed |= !build_cloud(b, u, &url);
    const char *why;
    if (url.len) CLAW_ASSERT(claw_conf_url_parse(url, &u->url, &why));
    build_keys(b, u);
    u->headers = claw_conf_headers_of(b, claw_conf_value_of(n, "headers"), &u->headers_n);
    u->timeout_ms = claw_conf_ms_or(n, "upstreams.*.timeout_seconds", b->c->server.timeout_ms);
    u->connect_timeout_ms = claw_conf_ms_of(n, "upstreams.*.connect_timeout_seconds");
    u->first_byte_timeout_ms = claw_conf_ms_or(n, "upstreams.*.first_byte_timeout_seconds", u->timeout_ms);
    u->stall_timeout_ms = claw_conf_ms_of(n, "upstreams.*.stall_timeout_seconds");
    u->max_concurrency = claw_conf_whole_of(n, "upstreams.*.max_concurrency");
    u->cooling = cooling_of(n);
    const struct claw_conf_node *health = claw_conf_value_of(n, "health");
    u->health_path = claw_conf_text_or(health, "path", CLAW_STR(""));
    u->health_interval_ms = claw_conf_ms_of(health, "upstreams.*.health.interval_seconds");
    const struct claw_conf_node *tls = claw_conf_get(n, "tls");
    u->tls_verify = claw_conf_truth_of(tls, "upstreams.*.tls.verify");
    u->tls_ca = claw_conf_path_of(b, tls, "ca");
    u->tls_server_name = claw_conf_text_or(tls, "server_name", CLAW_STR(""));
    u->price.input = price_of(n, "cost_per_million_input_tokens", 1e6);
    u->price.output = price_of(n, "cost_per_million_output_tokens", 1e6);
    u->price.cached_input = price_of(n, "cost_per_million_cached_input_tokens", 1e6);
    u->price.cache_write = price_of(n, "cost_per_million_cache_write_tokens", 1e6);
    u->price.request_micros = price_of(n, "cost_per_request", 1e6);
}

void claw_conf_build_upstreams(struct claw_conf_builder *b)
{
    const struct claw_conf_node *all = claw_conf_value_of(b->c->root, "upstreams");
    b->c->upstreams = claw_conf_take(b, all->n, sizeof *b->c->upstreams);
    for (size_t i = 0; b->c->upstreams && i < all->n; i++)
        build_upstream(b, &b->c->upstreams[b->c->upstreams_n++], claw_conf_upstream_name(all, i),
                       all->entries[i].value);
}
