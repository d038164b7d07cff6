/* clients and rate_limits. */
#include "base/conf_part.h"
#include "base/conf_schema.h"

#include <math.h>
#include <stdio.h>

static struct claw_conf_rates rates_of(const struct claw_conf_node *n)
{
    static const char *const requests[] = {"requests_per_second", "requests_per_minute", "requests_per_hour", "requests_per_day"};
    static const char *const tokens[] = {"tokens_per_minute", "tokens_per_day"};
    struct claw_conf_rates r = {.burst = -1};
    const struct claw_conf_node *v;
    for (int i = 0; i < 4; i++)
        if ((v = claw_conf_value_of(n, requests[i]))) r.requests[i] = (int64_t)v->number;
    for (int i = 0; i < 2; i++)
        if ((v = claw_conf_value_of(n, tokens[i]))) r.tokens[i] = (int64_t)v->number;
    if ((v = claw_conf_value_of(n, "concurrent"))) r.concurrent = (int64_t)v->number;
    if ((v = claw_conf_value_of(n, "burst"))) r.burst = (int64_t)v->number;
    if ((v = claw_conf_value_of(n, "max_wait_ms"))) r.max_wait_ms = (unsigned)v->number;
    const int64_t amounts[] = {r.requests[0], r.requests[1], r.requests[2], r.requests[3], r.tokens[0], r.tokens[1], r.concurrent, r.burst};
    r.mark = claw_str_hash((struct claw_str){(const char *)amounts, sizeof amounts}, 1);
    r.max_waiting = claw_conf_whole_of(n, "rate_limits.max_waiting");
    r.max_waiting_per_client = claw_conf_whole_of(n, "rate_limits.max_waiting_per_client");
    return r;
}

static void read_hash(struct claw_str hex, unsigned char to[32])
{
    for (size_t i = 0; i < 32; i++) to[i] = (unsigned char)(claw_conf_digit_of(hex.ptr[2 * i]) << 4 | claw_conf_digit_of(hex.ptr[2 * i + 1]));
}

void claw_conf_build_clients(struct claw_conf_builder *b)
{
    const struct claw_conf_node *all = claw_conf_value_of(b->c->root, "clients");
    b->c->clients = claw_conf_take(b, all ? all->n : 0, sizeof *b->c->clients);
    for (size_t i = 0; b->c->clients && i < all->n; i++) {
        const struct claw_conf_node *n = all->entries[i].value, *budget = claw_conf_value_of(n, "budget");
        struct claw_conf_client *c = &b->c->clients[b->c->clients_n++];
        c->node = n;
        c->name = claw_conf_get(n, "name")->text;
        c->key = claw_conf_text_or(n, "key", (struct claw_str){NULL, 0});
        if (!c->key.ptr) read_hash(claw_conf_get(n, "key_sha256")->text, c->key_hash);
        c->tier = claw_conf_text_or(n, "tier", CLAW_STR(""));
        c->models = claw_conf_texts_of(b, claw_conf_value_of(n, "models"), &c->models_n);
        c->routes = claw_conf_texts_of(b, claw_conf_value_of(n, "routes"), &c->routes_n);
        c->rates = rates_of(claw_conf_value_of(n, "limits"));
        char *id = claw_conf_take(b, c->name.len + 8, 1);
        if (id) c->limit_id = (struct claw_str){id, (size_t)snprintf(id, c->name.len + 8, "client:%.*s", CLAW_STR_FMT(c->name))};
        c->budget.micros = budget ? llround(claw_conf_value_of(budget, "usd")->number * 1e6) : -1;
        c->budget.per = claw_conf_text_of(budget, "clients.budget.per");
        c->budget.soft_stop = claw_conf_truth_of(budget, "clients.budget.soft_stop");
    }
}

/* A scalar or a list of them; conf_link has seen to it that it is nothing else. */
static struct claw_conf_words words_of(struct claw_conf_builder *b, const struct claw_conf_node *n)
{
    struct claw_conf_words w = {NULL, 0};
    if (!n) return w;
    if (n->type == CLAW_CONF_LIST) {
        w.all = claw_conf_texts_of(b, n, &w.n);
        return w;
    }
    w.all = claw_conf_take(b, 1, sizeof *w.all);
    if (w.all) w.all[w.n++] = n->text;
    return w;
}

/* max_concurrency: "upstream:NAME", as a limit of one would be. */
static void build_upstream_limits(struct claw_conf_builder *b)
{
    struct claw_conf *c = b->c;
    for (size_t i = 0; c->limits && i < c->upstreams_n; i++) {
        const struct claw_conf_upstream *u = &c->upstreams[i];
        if (!u->max_concurrency) continue;
        char *id = claw_conf_take(b, u->name.len + 10, 1);
        struct claw_conf_limit *l = &c->limits[c->limits_n++];
        if (id) l->id = (struct claw_str){id, (size_t)snprintf(id, u->name.len + 10, "upstream:%.*s", CLAW_STR_FMT(u->name))};
        l->rates = (struct claw_conf_rates){.burst = -1, .concurrent = u->max_concurrency};
        l->upstream.all = claw_conf_take(b, 1, sizeof *l->upstream.all);
        if (l->upstream.all) l->upstream.all[l->upstream.n++] = u->name;
    }
}

static void build_limit_headers(struct claw_conf_builder *b, struct claw_conf_limit *l, const struct claw_conf_node *map)
{
    l->headers = claw_conf_take(b, map ? map->n : 0, sizeof *l->headers);
    for (size_t i = 0; l->headers && i < map->n; i++) {
        l->headers[l->headers_n].name = map->entries[i].key;
        l->headers[l->headers_n++].values = words_of(b, map->entries[i].value);
    }
}

void claw_conf_build_limits(struct claw_conf_builder *b)
{
    const struct claw_conf_node *all = claw_conf_value_of(b->c->root, "rate_limits");
    size_t more = 0;
    for (size_t i = 0; i < b->c->upstreams_n; i++) more += b->c->upstreams[i].max_concurrency > 0;
    b->c->limits = claw_conf_take(b, (all ? all->n : 0) + more, sizeof *b->c->limits);
    for (size_t i = 0; b->c->limits && all && i < all->n; i++) {
        const struct claw_conf_node *n = all->entries[i].value, *m = claw_conf_value_of(n, "match"), *who = claw_conf_value_of(m, "client");
        struct claw_conf_limit *l = &b->c->limits[b->c->limits_n++];
        bool map = who && who->type == CLAW_CONF_MAP;
        char name[32];
        int len = snprintf(name, sizeof name, "limit_%zu", i + 1);
        l->id = claw_conf_text_or(n, "id", (struct claw_str){claw_arena_dup(b->arena, name, (size_t)len), (size_t)len});
        l->rates = rates_of(n);
        l->path = words_of(b, claw_conf_value_of(m, "path"));
        l->method = words_of(b, claw_conf_value_of(m, "method"));
        l->model = words_of(b, claw_conf_value_of(m, "model"));
        l->route = words_of(b, claw_conf_value_of(m, "route_id"));
        l->upstream = words_of(b, claw_conf_value_of(m, "upstream_name"));
        l->client = words_of(b, map ? claw_conf_value_of(who, "name") : who);
        l->tier = words_of(b, map ? claw_conf_value_of(who, "tier") : NULL);
        build_limit_headers(b, l, claw_conf_value_of(m, "headers"));
        struct claw_conf_words per = words_of(b, claw_conf_value_of(n, "per"));
        l->per = per.all;
        l->per_n = per.n;
    }
    build_upstream_limits(b);
}
