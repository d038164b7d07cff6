/* conf_route: what a route is told of caching. */
#include "conf_part.h"

/* Who says what of caching: the section, the route, both. */
static void caching(void **state)
{
    static const struct { const char *section, *route, *found; } rows[] = {
        {"{}", "", "0 0 0 3600000"},
        {"{enabled: true}", "", "1 1 0 3600000"},
        {"{enabled: true, coalesce: false, default_ttl_seconds: 0.5, scope: client}", "", "1 0 1 500"},
        {"{coalesce: true}", "", "0 1 0 3600000"},
        {"{enabled: false}", "cache: true", "0 0 0 3600000"},
        {"{}", "cache: true", "1 1 0 3600000"},
        {"{}", "cache: {ttl_seconds: 5, scope: client}", "1 1 1 5000"},
        {"{enabled: true, coalesce: true, scope: client}", "cache: false", "0 0 1 3600000"},
        {"{enabled: true}", "cache: {enabled: false, coalesce: true}", "0 0 0 3600000"},
        {"{enabled: true, scope: client}", "cache: {coalesce: false, scope: shared}", "1 0 0 3600000"},
        {"{enabled: true}", "on_disconnect: finish", "1 1 0 3600000 finishes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct loaded l;
        char yaml[512], found[64];
        snprintf(yaml, sizeof yaml, "upstreams: {a: {type: mock}}\nroutes: [{strategy: {upstream: a}, %s}]\ncaching: %s\n", rows[i].route, rows[i].section);
        parse(&l, yaml, strlen(yaml));
        assert_string_equal(l.text, "");
        const struct claw_conf_cache *c = &l.conf->routes[0].cache;
        snprintf(found, sizeof found, "%d %d %d %u%s", c->on, c->coalesce, c->per_client, c->ttl_ms, l.conf->routes[0].finishes ? " finishes" : "");
        if (strcmp(found, rows[i].found) != 0) fail_msg("%s with %s: %s", rows[i].section, rows[i].route, found);
        assert_int_equal(l.conf->caching.any, c->on || c->coalesce);
        done(&l);
    }
    struct loaded l;
    struct claw_conf *c = load_part(&l, "clients: [{name: x, key: k}]\ncaching: {enabled: true, max_size_mb: 7, strategies: [{ttl_seconds: 2}, {id: y}]}\n");
    assert_true(c->routes[0].cache.per_client && c->caching.max_size_mb == 7 && c->caching.strategies_n == 2);
    assert_true(c->caching.strategies_ttl_ms[0] == 2000 && c->caching.strategies_ttl_ms[1] == 0);
    done(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caching),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
