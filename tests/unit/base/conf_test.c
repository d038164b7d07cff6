/* conf: the file as a whole: what the guide shows, the defaults, every key once, and what is looked up in it. */
#include "conf_part.h"

static void load_file(struct loaded *l, const char *name)
{
    const char *root = getenv("CLAW_ROOT");
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/unit/base/%s", root ? root : ".", name);
    *l = start();
    claw_conf_problems_init(&l->problems, &l->arena);
    collect(l, claw_conf_load(path, env, &l->conf, &l->problems));
}

/* ---- the guide ----------------------------------------------------------------------------------------- */

static void guide_basic(void **state)
{
    struct loaded l;
    load_file(&l, "guide_basic.yaml");
    assert_string_equal(l.text, "");
    struct claw_conf *c = l.conf;
    assert_string_equal(c->server.listen_address, "0.0.0.0");
    assert_int_equal(c->server.listen_port, 8080);
    assert_int_equal(c->server.timeout_ms, 60000);
    assert_int_equal(c->upstreams_n, 3);
    assert_str(c->upstreams[0].name, "openai-gpt4");
    assert_int_equal(c->upstreams[0].api_keys_n, 1);
    assert_str(c->upstreams[0].api_keys[0].text, "sk-openai-0123456789");
    assert_str(c->upstreams[0].url.host, "api.openai.com");
    assert_str(c->upstreams[0].url.path, "/v1");
    assert_int_equal(c->upstreams[0].url.port, 443);
    assert_true(c->upstreams[0].url.tls);
    assert_int_equal(c->upstreams[2].api_keys_n, 0);
    assert_str(c->upstreams[2].url.authority, "localhost:11434");
    assert_false(c->upstreams[2].url.tls);
    assert_int_equal(c->routes_n, 2);
    assert_str(c->routes[1].id, "specific_gpt4_route");
    assert_str(claw_conf_at(c, "routes[1].match.json_body.model")->text, "gpt-4");
    assert_true(claw_conf_at(c, "routes[1].strategy.upstreams[0].weight")->number == 100);
    assert_true(claw_conf_at(c, "upstreams.openai-gpt4.api_key")->secret);
    assert_false(claw_conf_at(c, "upstreams.openai-gpt4.base_url")->secret);
    done(&l);
}

static void guide_whole(void **state)
{
    struct loaded l;
    load_file(&l, "guide.yaml");
    assert_string_equal(l.text, "");
    struct claw_conf *c = l.conf;
    assert_int_equal(c->upstreams_n, 12);
    assert_int_equal(c->routes_n, 7);
    assert_int_equal(c->upstreams[0].timeout_ms, 90000);
    assert_int_equal(c->upstreams[0].price.input, 30000000);
    assert_int_equal(c->upstreams[0].price.output, 60000000);
    assert_int_equal(c->upstreams[0].price.cached_input, -1);
    assert_int_equal(c->upstreams[0].headers_n, 1);
    assert_str(c->upstreams[0].headers[0].name, "X-Custom-Header");
    assert_str(c->upstreams[0].headers[0].value, "value");
    assert_true(claw_conf_at(c, "caching.strategies[0].match.json_body.temperature")->type == CLAW_CONF_NUMBER);
    assert_true(claw_conf_at(c, "rate_limits[1].burst")->number == 10);
    assert_int_equal(c->logging.level, CLAW_LOG_INFO);
    assert_int_equal(c->logging.to, 1);
    assert_false(c->logging.text);
    done(&l);
}

/* ---- defaults and both forms --------------------------------------------------------------------------- */

static void defaults(void **state)
{
    struct loaded l;
    struct claw_conf *c = load_part(&l, "server:\nlogging: ~\n");
    assert_string_equal(c->server.listen_address, "0.0.0.0");
    assert_int_equal(c->server.listen_port, 8080);
    assert_in_range(c->server.workers, 1, 256);
    assert_null(c->server.tls.cert);
    assert_int_equal(c->server.max_body_bytes, 32u << 20);
    assert_int_equal(c->server.upload_hold_bytes, 1u << 20);
    assert_int_equal(c->server.max_header_bytes, 32u << 10);
    assert_int_equal(c->server.idle_timeout_ms, 75000);
    assert_int_equal(c->server.header_timeout_ms, 10000);
    assert_int_equal(c->server.body_timeout_ms, 10000);
    assert_int_equal(c->server.send_timeout_ms, 30000);
    assert_int_equal(c->server.drain_ms, 30000);
    assert_int_equal(c->server.max_connections, 10000);
    assert_true(c->server.expose_headers);
    assert_null(c->server.trusted_proxies);
    assert_string_equal(c->admin.listen_address, "127.0.0.1");
    assert_int_equal(c->admin.listen_port, 9090);
    assert_int_equal(c->admin.token.len, 0);
    assert_int_equal(c->policies.budget_ms, 10);
    assert_int_equal(c->policies.memory_mb, 32);
    assert_int_equal(c->policies.dir[0], '/');
    assert_string_equal(strrchr(c->policies.dir, '/'), "/policies");
    assert_int_equal(c->logging.level, CLAW_LOG_INFO);
    assert_int_equal(c->logging.to, 1);
    assert_null(c->logging.path);
    assert_int_equal(c->retry_attempts, 0);
    assert_int_equal(c->retry_total_timeout_ms, 0);
    const struct claw_conf_upstream *u = &c->upstreams[0];
    assert_str(u->url.text, "https://api.openai.com/v1");
    assert_int_equal(u->timeout_ms, 60000);
    assert_int_equal(u->connect_timeout_ms, 5000);
    assert_int_equal(u->first_byte_timeout_ms, 60000);
    assert_int_equal(u->stall_timeout_ms, 120000);
    assert_int_equal(u->max_concurrency, 0);
    assert_true(u->tls_verify);
    assert_null(u->tls_ca);
    assert_int_equal(u->price.request_micros, -1);
    assert_int_equal(c->upstreams[1].url.text.len, 0);
    assert_str(c->routes[0].id, "route_1");
    assert_true(c->routes[0].hedge.after_ms == 0 && c->routes[0].hedge.percent == 0);
    assert_int_equal(c->routes[0].timeout_ms, 0);
    done(&l);
}

/* An upstream's bound is a limit, where there are no others too. */
static void an_upstreams_bound_alone(void **state)
{
    struct loaded l;
    static const char yaml[] = "upstreams:\n  a: {type: mock, max_concurrency: 7}\n  b: {type: mock}\nroutes:\n  - {strategy: {upstream: a}}\n";
    parse(&l, yaml, sizeof yaml - 1);
    assert_string_equal(l.text, "");
    const struct claw_conf *c = l.conf;
    assert_int_equal(c->limits_n, 1);
    assert_str(c->limits[0].id, "upstream:a");
    assert_int_equal(c->limits[0].rates.concurrent, 7);
    done(&l);
}

/* Nearly every key once. */
static const char every_key[] =
    "server:\n  listen_address: localhost\n  listen_port: 0\n  timeout_seconds: 0.25\n  workers: 3\n"
    "  tls: {cert: c.pem, key: /k.pem, client_ca: ca.pem}\n  drain_seconds: 0\n  trusted_proxies: [10.0.0.0/8, '::1']\n"
    "  expose_headers: false\n"
    "admin: {token: 'tok-123456', listen_address: '::1', listen_port: 0}\n"
    "upstreams:\n"
    "  - name: a\n    type: azure\n    base_url: HTTPS://[2001:db8::1]:8443/x/\n    api_key: k0\n"
    "    api_keys: [k1, '', {key: k2, weight: 2, models: [gpt-*]}]\n"
    "    models: [gpt-4, {name: o*, context_window: 128000, cost_per_request: 0.01, capabilities: [tools]}, 4]\n"
    "    model_map: {gpt-4: dep}\n    timeout_seconds: 0.0001\n    first_byte_timeout_seconds: 2\n"
    "    headers: {Authorization: 'Bearer abcdef', X-Team: blue, n: 1}\n"
    "    cost_per_million_input_tokens: 2.5\n    cost_per_million_cached_input_tokens: 0.125\n"
    "    cost_per_request: 0.000001\n    max_concurrency: 7\n    region: eu\n"
    "    tls: {ca: roots.pem, verify: false, server_name: x}\n    health: {path: /h, interval_seconds: 5}\n    lossy: allow\n"
    "  - {name: b, type: mock, base_url: ''}\n"
    "routes:\n"
    "  - id: r\n    priority: -1\n    timeout_seconds: 3\n    policies: [p]\n    cache: false\n    on_disconnect: finish\n"
    "    retry: {attempts: 3, on: [connect, 429, http_529], backoff_ms: 0}\n    hedge: {after: p95, budget: 0.1}\n"
    "    match:\n      path: [/v1/*, /x]\n      method: POST\n      headers: {x-a: {exists: true}, authorization: {in: [abcdefgh]}}\n      query: {q: {not: {in: [a, b]}}}\n"
    "      json_body: {'messages[-1].content': {contains: [billing, invoice]}, max_tokens: {gt: 0, lte: 100000}, stop: null}\n"
    "      client: {name: x, tier: [gold], ip: 10.0.0.0/8}\n"
    "    strategy:\n      type: my_policy\n      upstreams: [a, {name: b, weight: 0.5, percentage: 5}]\n      fallback: false\n"
    "      on: header:x-user\n      sticky_by: client\n      max_latency_ms: 500\n      min_context: 8000\n"
    "      require: [tools, vision]\n      region: [eu, us]\n"
    "  - strategy: {upstream: b}\n    cache: {ttl_seconds: 5, scope: shared}\n    hedge: {after: 300}\n    match: {client: bob}\n"
    "rate_limits: [{id: l, per: [ip, 'header:X'], tokens_per_day: 5, max_wait_ms: 10}, {per: user, concurrent: 1}]\n"
    "caching: {enabled: true, scope: client, backend: redis, secret: 'sixteen-or-more-1'}\n"
    "clients: [{name: c, key: ck-123456, tier: gold, models: [x], routes: [r], metadata: {a: [1, {b: ~}]}, "
    "limits: {requests_per_hour: 3}, budget: {usd: 5, per: day, soft_stop: true}}]\n"
    "webhooks: [{url: 'http://h/x', events: [failover, budget], secret: hmac-secret, headers: {x-token: t}}]\n"
    "state: {backend: redis, url: 'redis://u:pw12345@h/0'}\n"
    "metrics: {max_series: 500}\ntracing: {endpoint: 'http://o:4318', sample_ratio: 0.5}\n"
    "prices: {gpt-4*: {cost_per_million_input_tokens: 1}}\n"
    "policies: {dir: /p, always: [a], budget_ms: 5, memory_mb: 64, settings: {a: {words: [x, 1], deep: {b: ~}}}}\n"
    "retry: {attempts: 4, total_timeout_seconds: 1.5, jitter: 0, budget: 1}\n"
    "transformations: [{match: {model: m}, response: {script: s.lua}}]\n"
    "logging: {output: file, path: l.log, level: debug, format: text, bodies: true}\n"
    "security: {ip_blacklist: ['2001:db8::/32']}\n";

static void everything(void **state)
{
    struct loaded l;
    parse(&l, every_key, sizeof every_key - 1);
    assert_string_equal(l.text, "");
    struct claw_conf *c = l.conf;
    assert_string_equal(c->server.listen_address, "127.0.0.1");
    assert_int_equal(c->server.listen_port, 0);
    assert_int_equal(c->server.timeout_ms, 250);
    assert_int_equal(c->server.workers, 3);
    assert_int_equal(c->server.drain_ms, 0);
    assert_string_equal(c->server.tls.key, "/k.pem");
    assert_int_equal(c->server.tls.cert[0], '/');
    assert_int_equal(c->server.trusted_proxies_n, 2);
    assert_false(c->server.expose_headers);
    assert_string_equal(c->admin.listen_address, "::1");
    assert_str(c->admin.token, "tok-123456");
    const struct claw_conf_upstream *u = &c->upstreams[0];
    assert_str(u->name, "a");
    assert_str(u->url.host, "2001:db8::1");
    assert_str(u->url.authority, "[2001:db8::1]:8443");
    assert_str(u->url.path, "/x");
    assert_int_equal(u->url.port, 8443);
    assert_int_equal(u->api_keys_n, 3);
    assert_str(u->api_keys[0].text, "k0");
    assert_str(u->api_keys[2].text, "k2");
    assert_true(u->api_keys[2].weight == 2 && u->api_keys[1].weight == 1);
    assert_int_equal(u->api_keys[2].models_n, 1);
    assert_str(u->api_keys[2].models[0], "gpt-*");
    assert_int_equal(u->timeout_ms, 1);
    assert_int_equal(u->first_byte_timeout_ms, 2000);
    assert_int_equal(u->headers_n, 3);
    assert_true(claw_conf_at(c, "upstreams[0].headers.Authorization")->secret);
    assert_false(claw_conf_at(c, "upstreams[0].headers.X-Team")->secret);
    assert_true(claw_conf_at(c, "upstreams[0].api_keys[0]")->secret);
    assert_true(claw_conf_at(c, "upstreams[0].api_keys[2].key")->secret);
    assert_false(claw_conf_at(c, "upstreams[0].api_keys[2].weight")->secret);
    assert_true(claw_conf_at(c, "clients[0].key")->secret);
    assert_true(claw_conf_at(c, "webhooks[0].secret")->secret);
    assert_true(claw_conf_at(c, "webhooks[0].headers.x-token")->secret);
    assert_true(claw_conf_at(c, "state.url")->secret);
    assert_true(claw_conf_at(c, "admin.token")->secret);
    assert_true(claw_conf_at(c, "routes[0].match.headers.authorization.in[0]")->secret);
    assert_false(claw_conf_at(c, "routes[0].match.json_body.max_tokens.lte")->secret);
    assert_str(u->headers[2].value, "1");
    assert_int_equal(u->price.input, 2500000);
    assert_int_equal(u->price.cached_input, 125000);
    assert_int_equal(u->price.request_micros, 1);
    assert_int_equal(u->max_concurrency, 7);
    assert_false(u->tls_verify);
    assert_str(u->tls_server_name, "x");
    assert_string_equal(strrchr(u->tls_ca, '/'), "/roots.pem");
    assert_str(claw_conf_at(c, "upstreams[0].models[2]")->text, "4");
    assert_int_equal(claw_conf_at(c, "upstreams[0].models[2]")->type, CLAW_CONF_STRING);
    assert_str(c->routes[0].id, "r");
    assert_int_equal(c->routes[0].hedge.percent, 95);
    assert_true(c->routes[0].hedge.after_ms == 0 && c->routes[0].hedge.budget == 0.1);
    assert_true(c->routes[1].hedge.after_ms == 300 && c->routes[1].hedge.percent == 0 && c->routes[1].hedge.budget == 0.05);
    assert_int_equal(c->routes[0].timeout_ms, 3000);
    assert_str(c->routes[1].id, "route_2");
    assert_int_equal(claw_conf_at(c, "routes[0].match.json_body.stop")->type, CLAW_CONF_NULL);
    assert_str(claw_conf_at(c, "routes[0].match.json_body.messages[-1].content.contains[1]")->text, "invoice");
    assert_string_equal(c->policies.dir, "/p");
    assert_str(claw_conf_at(c, "policies.settings.a.words[0]")->text, "x");
    assert_int_equal(c->retry_attempts, 4);
    assert_int_equal(c->retry_total_timeout_ms, 1500);
    assert_int_equal(c->logging.to, 0);
    assert_int_equal(c->logging.level, CLAW_LOG_DEBUG);
    assert_true(c->logging.text);
    assert_int_equal(c->logging.path[0], '/');
    assert_string_equal(strrchr(c->logging.path, '/'), "/l.log");
    done(&l);
}

/* ---- what is found in it ------------------------------------------------------------------------------- */

static void looking_up(void **state)
{
    struct loaded l;
    struct claw_conf *c = load_part(&l, "prices: {gpt: {cost_per_request: 1}, gpt-3.5: {cost_per_request: 2}}\n");
    assert_true(claw_conf_at(c, "prices.gpt-3.5.cost_per_request")->number == 2);
    assert_true(claw_conf_at(c, "prices.gpt.cost_per_request")->number == 1);
    assert_null(claw_conf_at(c, "prices.gpt-3"));
    assert_null(claw_conf_at(c, "routes[1]"));
    assert_null(claw_conf_at(c, "routes[0"));
    assert_null(claw_conf_at(c, "routes[]"));
    assert_null(claw_conf_at(c, "routes.0"));
    assert_null(claw_conf_at(c, "routes[99999999999999999999]"));
    assert_ptr_equal(claw_conf_at(c, ""), c->root);
    assert_null(claw_conf_get(NULL, "a"));
    assert_null(claw_conf_get(claw_conf_at(c, "routes"), "a"));
    assert_int_equal(claw_conf_at(c, "upstreams.openai.type")->line, 3);
    assert_int_equal(claw_conf_at(c, "upstreams.openai.type")->column, 11);
    done(&l);
}

static void variables_for_policies(void **state)
{
    struct loaded l;
    const struct claw_conf *c = load_part(&l, "policies: {env: [OPENAI_API_KEY, ONE, NONE]}");
    assert_int_equal(c->policies.env_n, 3);
    assert_str(c->policies.env[0].name, "OPENAI_API_KEY");
    assert_string_equal(c->policies.env[0].value, "sk-openai-0123456789");
    assert_null(c->policies.env[2].value);
    claw_conf_problem_add(&l.problems, c, "", "sk-openai-0123456789");
    assert_string_equal(l.problems.first->text, "openclaw.yaml:1:1: ***");
    done(&l);
    expect_part("policies: {env: ['A=B', '1A']}",
                "openclaw.yaml:8:18: policies.env[0]: must be the name of an environment variable: letters, digits and _\n"
                "openclaw.yaml:8:25: policies.env[1]: must be the name of an environment variable: letters, digits and _");
}

/* Without a path of its own it lies where the service manager says, else beside the file. */
static void where_the_ledger_lies(void **state)
{
    static const struct { const char *directory, *yaml, *path; } rows[] = {
        {"/var/lib/openclaw", "clients: [{name: a, key: k, budget: {usd: 1, per: day}}]", "/var/lib/openclaw/openclaw.db"},
        {"/var/lib/a:/var/lib/b", "clients: [{name: a, key: k, budget: {usd: 1, per: day}}]", "/var/lib/a/openclaw.db"},
        {"/var/lib/openclaw", "clients: [{name: a, key: k, budget: {usd: 1, per: day}}]\nstate: {path: /own.db}", "/own.db"},
        {"/var/lib/openclaw", "clients: [{name: a, key: k}]", NULL},
        {"relative", "clients: [{name: a, key: k, budget: {usd: 1, per: day}}]", "/openclaw.db"},
        {"", "clients: [{name: a, key: k, budget: {usd: 1, per: day}}]", "/openclaw.db"},
        {NULL, "clients: [{name: a, key: k, budget: {usd: 1, per: day}}]", "/openclaw.db"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct loaded l;
        state_directory = rows[i].directory;
        const char *path = load_part(&l, rows[i].yaml)->ledger_path;
        size_t wanted = rows[i].path ? strlen(rows[i].path) : 0, n = path ? strlen(path) : 0;
        if (n < wanted || (path && !rows[i].path) || (path && strcmp(path + n - wanted, rows[i].path)) || (i < 3 && n != wanted))
            fail_msg("row %zu: %s", i, path ? path : "none");
        done(&l);
    }
    state_directory = NULL;
}

static void hashes(void **state)
{
    static const char *const parts[] = {"", "server: {listen_port: 1}", "server: {listen_port: '${ONE:-2}'}",
                                        "server: {listen_port: 2}", "# comment\nserver:\n  listen_port: 2\n"};
    uint64_t hash[5];
    for (size_t i = 0; i < 5; i++) {
        struct loaded l;
        hash[i] = load_part(&l, parts[i])->hash;
        done(&l);
    }
    assert_true(hash[0] != hash[1]);
    assert_true(hash[1] != hash[3]);
    assert_true(hash[2] == hash[3]); /* of the expanded tree */
    assert_true(hash[3] == hash[4]);
}

/* ---- the file ------------------------------------------------------------------------------------------ */

static void files(void **state)
{
    struct loaded l = start();
    claw_conf_problems_init(&l.problems, &l.arena);
    collect(&l, claw_conf_load("does/not/exist.yaml", env, &l.conf, &l.problems));
    assert_string_equal(l.text, "does/not/exist.yaml:1:1: cannot read the file: No such file or directory");
    done(&l);
}

/* Every prefix of a real file is either taken or refused with a reason. */
static void cut_anywhere(void **state)
{
    static const char yaml[] = UPSTREAMS "routes:\n- match: &m {path: \"${A:-/x}\"}\n  strategy: {upstreams: [openai]}\n"
                               "- {match: *m, strategy: {upstream: mock}}\n";
    for (size_t n = 0; n <= sizeof yaml - 1; n++) {
        char *exact = malloc(n ? n : 1); /* so that a checker sees a read past the end */
        assert_non_null(exact);
        memcpy(exact, yaml, n);
        struct loaded l;
        parse(&l, exact, n);
        if (n == sizeof yaml - 1) assert_string_equal(l.text, "");
        done(&l);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guide_basic), cmocka_unit_test(guide_whole), cmocka_unit_test(defaults),
        cmocka_unit_test(everything), cmocka_unit_test(an_upstreams_bound_alone), cmocka_unit_test(looking_up), cmocka_unit_test(variables_for_policies),
        cmocka_unit_test(hashes), cmocka_unit_test(files), cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(where_the_ledger_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
