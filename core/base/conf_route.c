/* routes and caching. */
#include "base/conf_part.h"
#include "base/conf_schema.h"
#include "base/conf_tree.h"

#include <stdio.h>

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

static double retry_budget_of(const struct claw_conf_node *root, const struct claw_conf_node *route)
{
    const struct claw_conf_node *general = claw_conf_get(root, "retry"), *own = claw_conf_get(route, "retry"), *n = own ? claw_conf_value_of(own, "budget") : NULL;
    if (!n && general) n = claw_conf_value_of(general, "budget");
    return n && n->type == CLAW_CONF_NUMBER ? n->number : 0.2;
}

static bool is_said(const struct claw_conf_node *n, bool what) { return n && n->type == CLAW_CONF_BOOL && n->truth == what; }

/* A route's `cache` is true, false or a map; caching.enabled: false is for all. */
static struct claw_conf_cache cache_of(const struct claw_conf_builder *b, const struct claw_conf_node *route)
{
    const struct claw_conf_node *all = claw_conf_value_of(b->c->root, "caching"), *own = claw_conf_value_of(route, "cache");
    const struct claw_conf_node *enabled = claw_conf_value_of(all, "enabled"), *n = own && own->type == CLAW_CONF_MAP ? claw_conf_value_of(own, "enabled") : own;
    bool never = is_said(n, false);
    struct claw_conf_cache c = {.on = !never && !is_said(enabled, false) && (own || is_said(enabled, true))};
    c.ttl_ms = claw_conf_ms_or(own, "routes.cache.ttl_seconds", claw_conf_ms_of(all, "caching.default_ttl_seconds"));
    n = claw_conf_value_of(own, "coalesce") ? claw_conf_value_of(own, "coalesce") : claw_conf_value_of(all, "coalesce");
    c.coalesce = !never && (n ? n->truth : c.on);
    n = claw_conf_value_of(own, "scope") ? claw_conf_value_of(own, "scope") : claw_conf_value_of(all, "scope");
    c.per_client = n ? claw_str_eqz(n->text, "client") : b->c->clients_n > 0;
    return c;
}

void claw_conf_build_caching(struct claw_conf_builder *b)
{
    struct claw_conf *c = b->c;
    const struct claw_conf_node *n = claw_conf_value_of(c->root, "caching"), *list = claw_conf_value_of(n, "strategies");
    c->caching.max_size_mb = claw_conf_whole_of(n, "caching.max_size_mb");
    c->caching.shared = claw_str_eqz(claw_conf_text_of(n, "caching.backend"), "redis");
    c->caching.secret = claw_conf_text_or(n, "secret", CLAW_STR(""));
    c->caching.strategies_ttl_ms = claw_conf_take(b, list ? list->n : 0, sizeof *c->caching.strategies_ttl_ms);
    for (size_t i = 0; c->caching.strategies_ttl_ms && i < list->n; i++)
        c->caching.strategies_ttl_ms[c->caching.strategies_n++] = claw_conf_ms_or(list->entries[i].value, "caching.strategies.ttl_seconds", 0);
    for (size_t i = 0; i < c->routes_n; i++) c->caching.any |= c->routes[i].cache.on || c->routes[i].cache.coalesce;
    c->state.asked = c->state.shared || (c->caching.shared && c->caching.any && c->redis.host.len);
}

/* What of the upstreams decides about an answer: not their keys, prices and times. */
static uint64_t answering_hash(const struct claw_conf_node *upstreams)
{
    static const char *const keys[] = {"type", "base_url", "models", "model_map", "headers", "region", "project", "api_version", "lossy"};
    uint64_t h = 0;
    for (size_t i = 0; i < upstreams->n; i++) {
        h = claw_str_hash(claw_conf_upstream_name(upstreams, i), h);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const struct claw_conf_node *n = claw_conf_get(upstreams->entries[i].value, keys[k]);
            h = h * 31 + (n ? claw_conf_tree_hash(n) : 0);
        }
    }
    return h;
}

void claw_conf_build_routes(struct claw_conf_builder *b)
{
    const struct claw_conf_node *all = claw_conf_value_of(b->c->root, "routes");
    uint64_t answering = answering_hash(claw_conf_value_of(b->c->root, "upstreams"));
    b->c->routes = claw_conf_take(b, all->n, sizeof *b->c->routes);
    for (size_t i = 0; b->c->routes && i < all->n; i++) {
        struct claw_conf_route *r = &b->c->routes[b->c->routes_n++];
        r->node = all->entries[i].value;
        r->timeout_ms = claw_conf_ms_or(r->node, "routes.timeout_seconds", 0);
        r->hedge = hedge_of(r->node);
        r->cache = cache_of(b, r->node);
        r->hash = answering * 31 + claw_conf_tree_hash(r->node);
        for (int k = 0; k < 2; k++) {
            const struct claw_conf_node *n = claw_conf_value_of(b->c->root, k ? "policies" : "transformations");
            r->hash = r->hash * 31 + (n ? claw_conf_tree_hash(n) : 0);
        }
        r->finishes = claw_str_eqz(claw_conf_text_of(r->node, "routes.on_disconnect"), "finish");
        r->retry_budget = retry_budget_of(b->c->root, r->node);
        r->strategy = claw_conf_text_of(claw_conf_value_of(r->node, "strategy"), "routes.strategy.type");
        r->id = claw_conf_text_or(r->node, "id", CLAW_STR(""));
        if (r->id.len) continue;
        char name[32];
        int n = snprintf(name, sizeof name, "route_%zu", i + 1);
        r->id = (struct claw_str){claw_arena_dup(b->arena, name, (size_t)n), (size_t)n};
        b->failed |= !r->id.ptr;
    }
}
