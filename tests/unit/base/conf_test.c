#include "base/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* One load and what came of it; the problems' texts joined by newlines. */
struct loaded {
    struct claw_arena arena;
    struct claw_conf_problems problems;
    struct claw_conf *conf;
    char *text;
};

static const char *state_directory;

static const char *env(const char *name)
{
    if (strcmp(name, "STATE_DIRECTORY") == 0) return state_directory;
    static const char *const vars[][2] = {
        {"OPENAI_API_KEY", "sk-openai-0123456789"}, {"ANTHROPIC_API_KEY", "sk-ant-0123456789"},
        {"GEMINI_API_KEY", "gm-0123456789"},        {"PORT", "9000"},
        {"EMPTY", ""},                              {"DOLLAR", "a${PORT}$$b"},
        {"YES", "true"},                            {"TYPE", "opnai-secret"},
    };
    for (size_t i = 0; i < sizeof vars / sizeof *vars; i++)
        if (strcmp(vars[i][0], name) == 0) return vars[i][1];
    return NULL;
}

static struct loaded start(void)
{
    struct loaded l = {.conf = NULL};
    claw_arena_init(&l.arena, NULL, 0, 1 << 20);
    return l;
}

static void collect(struct loaded *l, int err)
{
    size_t size = 1, n = 0;
    for (struct claw_conf_problem *p = l->problems.first; p; p = p->next, n++) size += strlen(p->text) + 1;
    assert_int_equal(n, l->problems.n);
    l->text = calloc(1, size);
    assert_non_null(l->text);
    for (struct claw_conf_problem *p = l->problems.first; p; p = p->next) {
        strcat(l->text, p->text);
        if (p->next) strcat(l->text, "\n");
    }
    if (err) assert_int_equal(err, CLAW_EINVAL);
    assert_int_equal(err == 0, l->problems.n == 0);
    assert_int_equal(err == 0, l->conf != NULL);
}

static void parse(struct loaded *l, const char *yaml, size_t len)
{
    *l = start();
    claw_conf_problems_init(&l->problems, &l->arena);
    collect(l, claw_conf_parse("openclaw.yaml", (struct claw_str){yaml, len}, env, &l->conf, &l->problems));
}

static void done(struct loaded *l)
{
    claw_conf_free(l->conf);
    free(l->text);
    claw_arena_reset(&l->arena);
}

/* Exactly these problems, or none. */
static void expect(const char *yaml, const char *problems)
{
    struct loaded l;
    parse(&l, yaml, strlen(yaml));
    assert_string_equal(l.text, problems);
    done(&l);
}

#define UPSTREAMS "upstreams:\n  openai:\n    type: openai\n    api_key: x\n  mock: {type: mock}\n"
#define ROUTES "routes:\n  - strategy: {upstream: openai}\n"
#define BASE UPSTREAMS ROUTES /* 7 lines */

/* The problems of a whole file that ends with `part`, which begins on line 8. */
static void expect_part(const char *part, const char *problems)
{
    char yaml[8192];
    snprintf(yaml, sizeof yaml, BASE "%s", part);
    expect(yaml, problems);
}

static struct claw_conf *load_part(struct loaded *l, const char *part)
{
    char yaml[8192];
    snprintf(yaml, sizeof yaml, BASE "%s", part);
    parse(l, yaml, strlen(yaml));
    assert_string_equal(l->text, "");
    return l->conf;
}

static void assert_str(struct claw_str s, const char *z)
{
    if (!claw_str_eqz(s, z)) fail_msg("\"%.*s\" is not \"%s\"", CLAW_STR_FMT(s), z);
}

static void load_file(struct loaded *l, const char *name)
{
    const char *root = getenv("CLAW_ROOT");
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/unit/base/%s", root ? root : ".", name);
    *l = start();
    claw_conf_problems_init(&l->problems, &l->arena);
    collect(l, claw_conf_load(path, env, &l->conf, &l->problems));
}

/* ---- the guide -------------------------------------------------------------------------------------------- */

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

/* ---- defaults and both forms ------------------------------------------------------------------------------ */

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

static void problems_from_above(void **state)
{
    struct loaded l;
    struct claw_conf *c = load_part(&l, "");
    claw_conf_problem_add(&l.problems, c, "routes[0].strategy.type", "no policy \"%s\"\nhere", "x");
    claw_conf_problem_add(&l.problems, c, "upstreams.openai.type", "wrong");
    claw_conf_problem_add(&l.problems, c, "nowhere.at.all", "wrong");
    claw_conf_problem_add(&l.problems, c, "upstreams.openai.models[3]", "wrong");
    assert_int_equal(l.problems.n, 4);
    struct claw_conf_problem *p = l.problems.first;
    assert_string_equal(p->text, "openclaw.yaml:1:1: nowhere.at.all: wrong");
    p = p->next;
    assert_string_equal(p->text, "openclaw.yaml:2:3: upstreams.openai.models[3]: wrong");
    p = p->next;
    assert_string_equal(p->text, "openclaw.yaml:3:11: upstreams.openai.type: wrong");
    p = p->next;
    assert_string_equal(p->text, "openclaw.yaml:7:5: routes[0].strategy.type: no policy \"x\"?here");
    assert_int_equal(p->line, 7);
    assert_int_equal(p->column, 5);
    assert_null(p->next);
    done(&l);
}

static void problems_hide_secrets(void **state)
{
    struct loaded l;
    struct claw_conf *c = load_part(&l, "admin: {token: \"${OPENAI_API_KEY}\"}\nstate: {url: 'redis://u:passw0rd@h'}\n"
                                        "tracing: {endpoint: 'http://h', headers: {authorization: 'Bearer abcdefgh'}}\n");
    claw_conf_problem_add(&l.problems, c, "", "sk-openai-0123456789, passw0rd and abcdefgh");
    assert_string_equal(l.problems.first->text, "openclaw.yaml:1:1: ***, *** and ***");
    done(&l);
}

static void where_redis_is(void **state)
{
    struct loaded l;
    const struct claw_conf_redis *r = &load_part(&l, "state: {url: 'redis://us%40er:p%3Aw%2f123%zz@[::1]:7000/5'}")->redis;
    assert_str(r->user, "us@er");
    assert_str(r->password, "p:w/123%zz");
    assert_str(r->host, "::1");
    assert_int_equal(r->port, 7000);
    assert_int_equal(r->db, 5);
    claw_conf_problem_add(&l.problems, l.conf, "", "%s and %s", "p:w/123%zz", "p%3Aw%2f123%zz");
    assert_string_equal(l.problems.first->text, "openclaw.yaml:1:1: *** and ***");
    done(&l);
    r = &load_part(&l, "state: {url: 'redis://h'}")->redis;
    assert_str(r->host, "h");
    assert_int_equal(r->port, 6379);
    assert_int_equal(r->db + r->user.len + r->password.len, 0);
    done(&l);
    assert_str(load_part(&l, "state: {}")->redis.host, "");
    done(&l);
    static const char *const wrong[][2] = {
        {"rediss://h", "rediss:// (Redis over TLS) is not supported: use redis://, through a tunnel where the way is not trusted"},
        {"http://h", "must begin with redis://"},
        {"redis://", "the URL has no host"},
        {"redis://h:0", "the URL's port must be 1 to 65535"},
        {"redis://h/x", "what follows the host must be a database's number, as in redis://host:6379/0"},
        {"redis://alone@h", "what stands before @ must be user:password or :password"},
        {"redis://a b", "a URL has no spaces, control characters or bytes beyond ASCII"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char part[200], says[300];
        snprintf(part, sizeof part, "state: {url: '%s'}", wrong[i][0]);
        snprintf(says, sizeof says, "openclaw.yaml:8:14: state.url: %s", wrong[i][1]);
        expect_part(part, says);
    }
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

/* ---- problems --------------------------------------------------------------------------------------------- */

static void unknown_keys(void **state)
{
    expect("upstreams:\n  openai:\n    typ: openai\n    type: openai\n" ROUTES,
           "openclaw.yaml:3:5: upstreams.openai.typ: unknown key (did you mean \"type\"?)");
    expect_part("sever: {}\n", "openclaw.yaml:8:1: sever: unknown key (did you mean \"server\"?)");
    expect_part("server: {listenPort: 1}\n",
                "openclaw.yaml:8:10: server.listenPort: unknown key (did you mean \"listen_port\"?)");
    expect_part("server: {prot: 1}\n", "openclaw.yaml:8:10: server.prot: unknown key");
    expect_part("zzz: 1\n", "openclaw.yaml:8:1: zzz: unknown key");
    expect_part("logging: {elvel: info}\n", "openclaw.yaml:8:11: logging.elvel: unknown key (did you mean \"level\"?)");
    expect_part("rate_limits: [{requests_per_minute: 1, brust: 1}]\n",
                "openclaw.yaml:8:40: rate_limits[0].brust: unknown key (did you mean \"burst\"?)");
    expect_part("\"a\\nb\": 1\n", "openclaw.yaml:8:1: a?b: unknown key");
}

static void wrong_types(void **state)
{
    expect("upstreams:\n  openai: {type: mock}\n  b:\n" ROUTES,
           "openclaw.yaml:3:5: upstreams.b: empty; give it settings or leave it out");
    expect_part("server: {listen_port: abc}", "openclaw.yaml:8:23: server.listen_port: must be a whole number, not a string");
    expect_part("server: {listen_port: '80'}",
                "openclaw.yaml:8:23: server.listen_port: must be a whole number, not a string (take the quotes off)");
    expect_part("server: {listen_port: 80.5}", "openclaw.yaml:8:23: server.listen_port: must be a whole number");
    expect_part("server: {listen_port: [80]}", "openclaw.yaml:8:10: server.listen_port: must be a whole number, not a list");
    expect_part("server: {expose_headers: yes}", "openclaw.yaml:8:26: server.expose_headers: must be true or false, not a "
                "string (yes, no, on and off are strings in YAML 1.2)");
    expect_part("server: {expose_headers: 'true'}",
                "openclaw.yaml:8:26: server.expose_headers: must be true or false, not a string (take the quotes off)");
    expect_part("server: {expose_headers: 1}", "openclaw.yaml:8:26: server.expose_headers: must be true or false, not a number");
    expect_part("server: 3", "openclaw.yaml:8:9: server: must be a map, not a number");
    expect_part("clients: {a: b}", "openclaw.yaml:8:1: clients: must be a list, not a map");
    expect_part("security: {ip_blacklist: 10.0.0.1}",
                "openclaw.yaml:8:26: security.ip_blacklist: must be a list, not a string (put [ ] around it)");
    expect_part("logging: {format: true}", "openclaw.yaml:8:19: logging.format: must be a string, not a boolean");
    expect_part("policies: {settings: [a]}", "openclaw.yaml:8:12: policies.settings: must be a map, not a list");
    expect_part("policies: {always: [a, ~]}", "openclaw.yaml:8:24: policies.always[1]: an empty element");
    expect("- a\n", "openclaw.yaml:1:1: the file must be a map of sections such as server and upstreams");
    expect("just text", "openclaw.yaml:1:1: the file must be a map of sections such as server and upstreams");
}

static void bounds(void **state)
{
    expect_part("server: {listen_port: 65536}",
                "openclaw.yaml:8:23: server.listen_port: must be between 0 and 65535");
    expect_part("server: {listen_port: -1}", "openclaw.yaml:8:23: server.listen_port: must be between 0 and 65535");
    expect_part("server: {timeout_seconds: 0}", "openclaw.yaml:8:27: server.timeout_seconds: must be greater than 0");
    expect_part("server: {timeout_seconds: -5}", "openclaw.yaml:8:27: server.timeout_seconds: must be greater than 0");
    expect_part("server: {timeout_seconds: 1e9}",
                "openclaw.yaml:8:27: server.timeout_seconds: must be between 0 and 86400 seconds");
    expect_part("server: {timeout_seconds: .inf}", "openclaw.yaml:8:27: server.timeout_seconds: must be a finite number");
    expect_part("server: {timeout_seconds: .nan}", "openclaw.yaml:8:27: server.timeout_seconds: must be a finite number");
    expect_part("server: {max_body_mb: 0}", "openclaw.yaml:8:23: server.max_body_mb: must be between 1 and 4096 MB");
    expect_part("retry: {on: [200]}", "openclaw.yaml:8:14: retry.on[0]: must be between 400 and 599");
    expect("upstreams: {a: {type: mock}}\nroutes:\n- strategy: {upstreams: [{name: a, percentage: 101}]}\n",
           "openclaw.yaml:3:48: routes[0].strategy.upstreams[0].percentage: must be between 0 and 100 percent");
    struct loaded l;
    struct claw_conf *c = load_part(&l, "server: {listen_port: 0x1F90, timeout_seconds: 86400, max_body_mb: 0o10}");
    assert_int_equal(c->server.listen_port, 8080);
    assert_int_equal(c->server.timeout_ms, 86400000);
    assert_int_equal(c->server.max_body_bytes, 8u << 20);
    done(&l);
}

static void words_and_formats(void **state)
{
    expect("upstreams: {a: {type: opnai}}\n" "routes: []\n",
           "openclaw.yaml:1:23: upstreams.a.type: \"opnai\" is not known (did you mean \"openai\"?)");
    expect("upstreams: {a: {type: \"${TYPE}\"}}\nroutes: []\n",
           "openclaw.yaml:1:23: upstreams.a.type: the value is not known (known: openai anthropic gemini google vertex azure "
           "bedrock mistral cohere ollama generic groq deepseek openrouter together fireworks xai perplexity huggingface vllm "
           "nvidia mock)");
    expect_part("logging: {level: verbose}",
                "openclaw.yaml:8:18: logging.level: \"verbose\" is not known (known: debug info warn error)");
    expect_part("rate_limits: [{per: hedaer, concurrent: 1}]",
                "openclaw.yaml:8:21: rate_limits[0].per: \"hedaer\" is not known (known: ip client user header:*)");
    expect_part("server: {listen_address: '*'}",
                "openclaw.yaml:8:26: server.listen_address: must be an IP address such as 0.0.0.0, 127.0.0.1 or ::");
    expect_part("security: {ip_whitelist: [10.0.0.0/33, 10.0.0.0/, '::/129', 10.0.0]}",
                "openclaw.yaml:8:27: security.ip_whitelist[0]: must be an IP address or a network such as 10.0.0.0/8 or 2001:db8::/32\n"
                "openclaw.yaml:8:40: security.ip_whitelist[1]: must be an IP address or a network such as 10.0.0.0/8 or 2001:db8::/32\n"
                "openclaw.yaml:8:51: security.ip_whitelist[2]: must be an IP address or a network such as 10.0.0.0/8 or 2001:db8::/32\n"
                "openclaw.yaml:8:61: security.ip_whitelist[3]: must be an IP address or a network such as 10.0.0.0/8 or 2001:db8::/32");
    expect_part("admin: {token: \"a\\nb\"}",
                "openclaw.yaml:8:16: admin.token: must not hold line breaks or other control characters");
    expect_part("logging: {output: file, path: \"a\\0b\"}", "openclaw.yaml:8:31: logging.path: must not hold a NUL character");
    expect_part("clients: [{name: a, key_sha256: abc}]",
                "openclaw.yaml:8:33: clients[0].key_sha256: must be 64 hexadecimal digits");
    expect_part("server: {tls: {cert: '', key: k}}", "openclaw.yaml:8:22: server.tls.cert: must not be empty");
}

static void urls(void **state)
{
    static const char *const bad[][2] = {
        {"ftp://h", "must begin with http:// or https://"},
        {"localhost:1", "must begin with http:// or https://"},
        {"http://", "the URL has no host"},
        {"http:///p", "the URL has no host"},
        {"http://:80", "the URL has no host"},
        {"http://u:pass@h/", "the URL must not hold a user name or password"},
        {"http://h/?a=1", "the URL must not have a query"},
        {"http://h?a", "the URL must not have a query"},
        {"http://h/#f", "the URL must not have a fragment"},
        {"http://h:0", "the URL's port must be 1 to 65535"},
        {"http://h:65536", "the URL's port must be 1 to 65535"},
        {"http://h:", "the URL's port must be 1 to 65535"},
        {"http://h:8a", "the URL's port must be 1 to 65535"},
        {"http://[::1", "the host's bracket is not closed"},
        {"http://[::1]x", "the URL's host is not valid"},
        {"http://[1.2]", "the URL's host is not valid"},
        {"http://a..b", "the URL's host is not valid"},
        {"http://a%b", "the URL's host is not valid"},
        {"http://h/a b", "a URL has no spaces, control characters or bytes beyond ASCII"},
        {"http://h/\\r", "a URL has no spaces, control characters or bytes beyond ASCII"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char yaml[512], text[512];
        snprintf(yaml, sizeof yaml, "upstreams: {a: {type: generic, base_url: \"%s\"}}\nroutes: []\n", bad[i][0]);
        snprintf(text, sizeof text, "openclaw.yaml:1:42: upstreams.a.base_url: %s", bad[i][1]);
        expect(yaml, text);
    }
    expect("upstreams:\n  a: {type: generic}\n  b: {type: azure, base_url: ''}\nroutes: []\n",
           "openclaw.yaml:2:3: upstreams.a.base_url: required, but not given (this type has no default)\n"
           "openclaw.yaml:3:30: upstreams.b.base_url: required, but not given (this type has no default)");
}

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

static void required(void **state)
{
    expect("server: {}\n", "openclaw.yaml:1:1: upstreams: required, but not given\n"
                           "openclaw.yaml:1:1: routes: required, but not given");
    expect("upstreams:\n  a:\n    api_key: x\nroutes: [{id: r}]\n",
           "openclaw.yaml:2:3: upstreams.a.type: required, but not given\n"
           "openclaw.yaml:4:10: routes[0].strategy: required, but not given");
    expect("upstreams:\n- type: mock\nroutes: []\n", "openclaw.yaml:2:3: upstreams[0].name: required, but not given");
    expect("upstreams:\n  a: {type: }\nroutes: []\n", "openclaw.yaml:2:13: upstreams.a.type: required, but empty");
    expect_part("server:\n  tls: {cert: c}\n", "openclaw.yaml:9:3: server.tls.key: required, but not given");
    expect_part("clients: [{name: a}]", "openclaw.yaml:8:11: clients[0].key: give either key or key_sha256");
    expect_part("rate_limits: [{burst: 1}]",
                "openclaw.yaml:8:15: rate_limits[0]: limits nothing: give requests_per_…, tokens_per_… or concurrent");
    expect_part("transformations: [{id: a}]",
                "openclaw.yaml:8:19: transformations[0]: changes nothing: give request or response");
    expect_part("logging: {output: file}", "openclaw.yaml:8:1: logging.path: required with output: file, but not given");
    expect_part("logging: {path: x}", "openclaw.yaml:8:17: logging.path: is used only with output: file");
    expect_part("caching: {backend: redis, secret: sixteen-or-more-1}", "openclaw.yaml:8:20: caching.backend: redis needs state.url");
}

static void names(void **state)
{
    expect(UPSTREAMS "routes:\n- strategy:\n    type: failover\n    upstreams: [opnai, {name: mokc}, openai]\n- strategy: {upstream: nothing}\n",
           "openclaw.yaml:9:17: routes[0].strategy.upstreams[0]: there is no upstream \"opnai\" (did you mean \"openai\"?)\n"
           "openclaw.yaml:9:31: routes[0].strategy.upstreams[1].name: there is no upstream \"mokc\" (did you mean \"mock\"?)\n"
           "openclaw.yaml:10:24: routes[1].strategy.upstream: there is no upstream \"nothing\"");
    expect(UPSTREAMS "routes:\n- strategy: {}\n- strategy: {upstreams: []}\n- strategy: {upstream: mock, upstreams: [mock]}\n",
           "openclaw.yaml:7:3: routes[0].strategy.upstreams: required, but not given\n"
           "openclaw.yaml:8:14: routes[1].strategy.upstreams: must not be empty\n"
           "openclaw.yaml:9:24: routes[2].strategy.upstream: give either upstream or upstreams");
    expect("upstreams:\n  a: {type: mock}\n  b: {type: mock}\n  a: {type: mock}\nroutes: []\n",
           "openclaw.yaml:4:3: upstreams.a: the key is given twice (first on line 2)");
    expect("upstreams:\n- {name: a, type: mock}\n- {name: b, type: mock}\n- {name: a, type: mock}\nroutes: []\n",
           "openclaw.yaml:4:10: upstreams[2].name: the name \"a\" is taken (first on line 2)");
    expect("upstreams:\n  a: {type: mock, name: b}\n  c: {type: mock, name: c}\nroutes: []\n",
           "openclaw.yaml:2:25: upstreams.a.name: differs from the key above it: give one name only");
    expect(UPSTREAMS "routes:\n- {id: route_2, strategy: {upstream: mock}}\n- {strategy: {upstream: mock}}\n",
           "openclaw.yaml:8:3: routes[1].id: the name \"route_2\" is taken (first on line 7)");
    expect("upstreams:\n  \"a\\nb\": {type: mock}\nroutes: []\n",
           "openclaw.yaml:2:3: upstreams.a?b: a name must be 1 to 128 characters, none of them a control character");
    expect("upstreams: {a: {type: mock, headers: {'a b': c, Host: h, x: \"a\\r\\nb: c\"}}}\nroutes: []\n",
           "openclaw.yaml:1:39: upstreams.a.headers.a b: this is no valid header name\n"
           "openclaw.yaml:1:49: upstreams.a.headers.Host: this header is the proxy's own and cannot be set\n"
           "openclaw.yaml:1:61: upstreams.a.headers.x: must not hold line breaks or other control characters");
}

static void operators(void **state)
{
    expect("upstreams: {a: {type: mock}}\nroutes:\n- strategy: {upstream: a}\n  match:\n"
           "    path: {contain: x}\n    json_body:\n      a: {not: {gr: 1}}\n      metadata: {task_type: x}\n"
           "      b: []\n      c: {}\n      d: [[1]]\n    cleint: x\n",
           "openclaw.yaml:5:12: routes[0].match.path.contain: unknown operator (did you mean \"contains\"?)\n"
           "openclaw.yaml:7:17: routes[0].match.json_body.a.not.gr: unknown operator (did you mean \"gt\"?)\n"
           "openclaw.yaml:8:18: routes[0].match.json_body.metadata.task_type: unknown operator (known: equals in contains matches "
           "exists gt gte lt lte not; fields inside fields are written \"a.b\")\n"
           "openclaw.yaml:9:7: routes[0].match.json_body.b: an empty list matches nothing\n"
           "openclaw.yaml:10:7: routes[0].match.json_body.c: an empty map names no operator\n"
           "openclaw.yaml:11:11: routes[0].match.json_body.d[0]: a list of values to match holds only scalars\n"
           "openclaw.yaml:12:5: routes[0].match.cleint: unknown key (did you mean \"client\"?)");
}

/* ---- YAML ------------------------------------------------------------------------------------------------- */

static void syntax(void **state)
{
    expect("", "openclaw.yaml:1:1: no configuration");
    expect("# nothing\n", "openclaw.yaml:1:1: no configuration");
    expect("---\n...\n", "openclaw.yaml:1:1: no configuration");
    expect("~\n", "openclaw.yaml:1:1: no configuration");
    expect("server:\n\tlisten_port: 1\n", "openclaw.yaml:2:1: while scanning for the next token: found character that cannot "
                                          "start any token (a tab; YAML is indented with spaces)");
    expect("server:\n    a: 1\n  b: 2\n", "openclaw.yaml:3:3: while parsing a block mapping: did not find expected key");
    expect("server: [1, 2\n", "openclaw.yaml:2:1: while parsing a flow sequence: did not find expected ',' or ']'");
    expect("server: \"abc\n", "openclaw.yaml:2:1: while scanning a quoted scalar: found unexpected end of stream");
    expect("a: 1\n---\nb: 2\n", "openclaw.yaml:2:1: a second document begins here: one file is one document");
    expect("a: \xff\n", "openclaw.yaml:1:4: invalid leading UTF-8 octet");
    expect("a: b\n\xc3\xa4: \x01\n", "openclaw.yaml:2:4: control characters are not allowed");
    expect_part("server: {listen_port: 1, listen_port: 2}",
                "openclaw.yaml:8:26: server.listen_port: the key is given twice (first on line 8)");
    expect_part("? [a]\n: {x: 1}\n", "openclaw.yaml:8:3: a key must be a plain word, not a list, a map or an alias");
    expect_part("server: !include other.yaml\n", "openclaw.yaml:8:9: server: the tag !include is not supported");
    expect_part("server: {listen_address: !!str 1}\n",
                "openclaw.yaml:8:26: server.listen_address: must be an IP address such as 0.0.0.0, 127.0.0.1 or ::");
}

static void aliases(void **state)
{
    struct loaded l;
    struct claw_conf *c = load_part(&l, "retry: &r {attempts: 5}\nclients:\n"
                                        "- {name: a, key: &k abcdefgh, limits: &l {concurrent: 2}}\n"
                                        "- {name: b, key: *k, limits: *l, metadata: {r: *r, k: *k, n: &n ~, m: *n}}\n"
                                        "- {name: c, key: ijklmnop, metadata: {k: &k again, v: *k}}\n");
    assert_true(claw_conf_at(c, "clients[1].limits.concurrent")->number == 2);
    assert_ptr_not_equal(claw_conf_at(c, "clients[1].limits"), claw_conf_at(c, "clients[0].limits"));
    assert_true(claw_conf_at(c, "clients[1].key")->secret);
    assert_str(claw_conf_at(c, "clients[1].metadata.k")->text, "abcdefgh");
    assert_false(claw_conf_at(c, "clients[1].metadata.k")->secret);
    assert_true(claw_conf_at(c, "clients[1].metadata.r.attempts")->number == 5);
    assert_int_equal(claw_conf_at(c, "clients[1].metadata.m")->type, CLAW_CONF_NULL);
    assert_str(claw_conf_at(c, "clients[2].metadata.v")->text, "again");
    done(&l);
    expect_part("server: *none\n", "openclaw.yaml:8:9: server: there is no anchor &none before this alias");
}

static void merge_keys(void **state)
{
    expect_part("retry: &r {attempts: 5}\nmetrics: {<<: *r}\n",
                "openclaw.yaml:9:11: metrics: merge keys (<<) are not supported: write the keys out");
    struct loaded l;
    load_part(&l, "prices: {'<<': {cost_per_request: 1}}\n"); /* quoted: a name like others */
    done(&l);
}

static void laughs(void **state)
{
    char yaml[4096] = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 10; i++) {
        char line[256];
        int n = snprintf(line, sizeof line, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++) n += snprintf(line + n, sizeof line - (size_t)n, "*a%d%s", i - 1, k < 9 ? ", " : "]\n");
        strcat(yaml, line);
    }
    struct loaded l;
    parse(&l, yaml, strlen(yaml));
    assert_string_equal(l.text, "openclaw.yaml:5:45: a4[7]: more than 100000 values (are there aliases of aliases?)");
    done(&l);

    char deep[400] = "a: ";
    for (int i = 0; i < 70; i++) strcat(deep, "[");
    parse(&l, deep, strlen(deep));
    assert_int_equal(l.problems.n, 1);
    assert_non_null(strstr(l.text, "openclaw.yaml:1:67: a[0][0]"));
    assert_non_null(strstr(l.text, "more than 64 levels inside each other"));
    done(&l);

    expect("upstreams: {}\nroutes: []\npolicies: {always: &a [a, *a]}\n",
           "openclaw.yaml:3:27: policies.always[1]: the alias *a refers to itself");
}

static void too_large(void **state)
{
    size_t size = (4u << 20) + 1;
    char *yaml = malloc(size);
    assert_non_null(yaml);
    memset(yaml, '#', size);
    struct loaded l;
    parse(&l, yaml, size);
    assert_string_equal(l.text, "openclaw.yaml:1:1: the file is larger than 4 MB");
    done(&l);
    parse(&l, yaml, size - 1);
    assert_string_equal(l.text, "openclaw.yaml:1:1: no configuration");
    done(&l);
    free(yaml);
}

static void many_problems(void **state)
{
    char yaml[16384] = BASE;
    for (int i = 0; i < 150; i++) {
        char line[32];
        snprintf(line, sizeof line, "zz%d: 1\n", i);
        strcat(yaml, line);
    }
    struct loaded l;
    parse(&l, yaml, strlen(yaml));
    assert_int_equal(l.problems.n, 100);
    assert_string_equal(l.problems.first->text, "openclaw.yaml:8:1: zz0: unknown key");
    struct claw_conf_problem *p = l.problems.first;
    while (p->next) p = p->next;
    assert_string_equal(p->text, "openclaw.yaml:107:1: too many problems: the rest is not shown");
    done(&l);
}

static void files(void **state)
{
    struct loaded l = start();
    claw_conf_problems_init(&l.problems, &l.arena);
    collect(&l, claw_conf_load("does/not/exist.yaml", env, &l.conf, &l.problems));
    assert_string_equal(l.text, "does/not/exist.yaml:1:1: cannot read the file: No such file or directory");
    done(&l);
}

/* ---- expansion -------------------------------------------------------------------------------------------- */

/* What a value becomes, seen through a place where anything is allowed. */
static void expand_to(const char *value, const char *wanted)
{
    char part[1024];
    snprintf(part, sizeof part, "clients: [{name: n, key: abcdefgh, metadata: {v: \"%s\"}}]\n", value);
    struct loaded l;
    struct claw_conf *c = load_part(&l, part);
    const struct claw_conf_node *n = claw_conf_at(c, "clients[0].metadata.v");
    assert_int_equal(n->type, CLAW_CONF_STRING);
    assert_str(n->text, wanted);
    assert_int_equal(n->text.ptr[n->text.len], 0);
    done(&l);
}

static void expand_fails(const char *value, const char *why)
{
    char part[1024], text[1024];
    snprintf(part, sizeof part, "clients: [{name: n, key: abcdefgh, metadata: {v: \"%s\"}}]\n", value);
    snprintf(text, sizeof text, "openclaw.yaml:8:50: clients[0].metadata.v: %s", why);
    expect_part(part, text);
}

static void expansion(void **state)
{
    expand_to("${PORT}", "9000");
    expand_to("a${PORT}b${PORT}c", "a9000b9000c");
    expand_to("${NOPE:-dflt}", "dflt");
    expand_to("${NOPE:-}", "");
    expand_to("${EMPTY}", "");
    expand_to("${EMPTY:-d}", "d");
    expand_to("${PORT:-d}", "9000");
    expand_to("${NOPE:-${PORT}}", "9000");
    expand_to("${NOPE:-a${NOPE:-b${PORT}c}d}", "ab9000cd");
    expand_to("${NOPE:-http://h:1/?a=-}", "http://h:1/?a=-");
    expand_to("${DOLLAR}", "a${PORT}$$b"); /* not looked at again */
    expand_to("$$", "$");
    expand_to("$${PORT}", "${PORT}");
    expand_to("$$$${PORT}", "$${PORT}");
    expand_to("$$${PORT}", "$9000");
    expand_to("${NOPE:-$$}", "$");
    expand_to("${NOPE:-$${x}}", "${x}");
    expand_to("cost: $5 $", "cost: $5 $");
    expand_to("^a$", "^a$");
    expand_to("$PORT", "$PORT");
    expand_fails("${NOPE}", "environment variable NOPE is not set (use ${NOPE:-default} to give a default)");
    expand_fails("${NOPE:-${NOPE2}}", "environment variable NOPE2 is not set (use ${NOPE2:-default} to give a default)");
    expand_fails("x${PORT", "\"${\" is not closed (write $${ for the characters themselves)");
    expand_fails("${NOPE:-${PORT}", "\"${\" is not closed (write $${ for the characters themselves)");
    expand_fails("${}", "\"\" is no name of an environment variable (write $$ for a dollar)");
    expand_fails("${1A}", "\"1A\" is no name of an environment variable (write $$ for a dollar)");
    expand_fails("${A B}", "\"A B\" is no name of an environment variable (write $$ for a dollar)");
    expand_fails("${nope:a#b}",
                 "\"${nope:\" is no known expression (known: ${VAR}, ${VAR:-default}, ${file:/path}, ${vault:path#field}, ${aws-sm:name#field}, $$ for a dollar)");
    expand_fails("${vault:a#b}", "${vault:} is not possible here");
    expand_fails("${vault:#b}", "${vault:} needs a name, as in ${vault:team/openai#api_key}");
    expand_fails("${vault:a}", "${vault:a} needs a field, as in ${vault:a#api_key}");
    expand_fails("${file:}", "${file:} needs a path, as in ${file:/run/secrets/key}");
    expand_fails("${file:/}", "/ is not a regular file");
    expand_fails("${file:/does/not/exist}", "cannot read the file /does/not/exist: No such file or directory");
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

static void expanded_types(void **state)
{
    struct loaded l;
    struct claw_conf *c = load_part(&l, "server:\n  listen_port: ${PORT:-8080}\n  workers: \"${N:-2}\"\n  expose_headers: ${YES}\n"
                                        "  max_body_mb: ${NOPE:-}\nretry: {jitter: \"${J:-0.5}\"}\nadmin: {token: '${PORT}'}\n");
    assert_int_equal(c->server.listen_port, 9000);
    assert_int_equal(c->server.workers, 2);
    assert_true(c->server.expose_headers);
    assert_int_equal(c->server.max_body_bytes, 32u << 20);
    assert_str(c->admin.token, "9000");
    assert_int_equal(claw_conf_at(c, "admin.token")->type, CLAW_CONF_STRING);
    done(&l);
    expect_part("server: {listen_port: \"${PORT}0\"}",
                "openclaw.yaml:8:23: server.listen_port: must be a whole number, not a string (take the quotes off)");
    expect_part("server: {listen_port: ${NOPE}}\n", "openclaw.yaml:8:24: while parsing a flow mapping: did not find expected ',' or '}'");
    expect_part("server:\n  listen_port: ${NOPE}\n", "openclaw.yaml:9:16: server.listen_port: environment variable NOPE is not "
                                                     "set (use ${NOPE:-default} to give a default)");
    expect("upstreams:\n  openai:\n    type: openai\n    api_key: ${NOPE}\nroutes: []\n",
           "openclaw.yaml:4:14: upstreams.openai.api_key: environment variable NOPE is not set (use ${NOPE:-default} to give a default)");
}

static void expanded_files(void **state)
{
    char dir[256], path[300], part[600];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/claw_conf_XXXXXX", tmp && *tmp == '/' ? tmp : P_tmpdir);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/key", dir);
    static const char *const contents[][2] = {{"sk-abc\n", "sk-abc"}, {"sk-abc", "sk-abc"}, {"sk-abc\n\n", "sk-abc\n"},
                                              {"a\r\n", "a"}, {"\n", ""}, {"", ""}};
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(contents[i][0], f);
        fclose(f);
        struct loaded l;
        snprintf(part, sizeof part, "webhooks: [{url: 'http://h', secret: '${file:%s}'}]\n", path);
        struct claw_conf *c = load_part(&l, part);
        assert_str(claw_conf_at(c, "webhooks[0].secret")->text, contents[i][1]);
        assert_true(claw_conf_at(c, "webhooks[0].secret")->secret);
        done(&l);
    }
    /* Relative to the configuration's folder, which need not be ours. */
    char yaml[300];
    snprintf(yaml, sizeof yaml, "%s/c.yaml", dir);
    FILE *f = fopen(yaml, "w");
    assert_non_null(f);
    fputs(BASE "admin: {token: 'x${file:key}'}\npolicies: {dir: p}\n", f);
    fclose(f);
    struct loaded l = start();
    claw_conf_problems_init(&l.problems, &l.arena);
    collect(&l, claw_conf_load(yaml, env, &l.conf, &l.problems));
    assert_string_equal(l.text, "");
    assert_str(l.conf->admin.token, "x");
    assert_string_equal(l.conf->dir, dir);
    assert_string_equal(l.conf->path, yaml);
    snprintf(part, sizeof part, "%s/p", dir);
    assert_string_equal(l.conf->policies.dir, part);
    done(&l);
    unlink(yaml);
    unlink(path);
    rmdir(dir);
}

/* ---- what is written -------------------------------------------------------------------------------------- */

static void contains(struct claw_buf *b, const char *what)
{
    if (claw_str_find(claw_buf_str(b), claw_str_of(what)) < 0) fail_msg("missing: %s", what);
}

static void written(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_conf_schema_write(&b), 0);
    contains(&b, "\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"");
    contains(&b, "\"listen_port\":{\"description\":\"Port to listen on; 0 takes a free one.\",\"default\":8080,"
                 "\"anyOf\":[{\"type\":\"integer\",\"minimum\":0,\"maximum\":65535}");
    contains(&b, "\"required\":[\"upstreams\",\"routes\"]");
    contains(&b, "{\"const\":\"openai\"}");
    claw_buf_clear(&b);
    assert_int_equal(claw_conf_reference_write(&b), 0);
    contains(&b, "| `listen_port` | whole number | `8080` | 0 to 65535 | Port to listen on; 0 takes a free one. |\n");
    contains(&b, "| `timeout_seconds` | number, seconds | `60` | above 0, to 86400 |");
    contains(&b, "\n## upstream\n");
    claw_buf_fini(&b);
    claw_buf_init(&b, 100); /* no room: said, not cut in silence */
    assert_int_equal(claw_conf_schema_write(&b), CLAW_ENOMEM);
    assert_int_equal(claw_conf_reference_write(&b), CLAW_ENOMEM);
    claw_buf_fini(&b);
}

/* A secret in the wrong place or of the wrong shape is not repeated in a problem. */
static void no_secrets_in_texts(void **state)
{
    static const char *const parts[] = {
        "admin: {token: [SECRETVALUE]}", "admin: {tokn: SECRETVALUE}", "admin: {token: \"SECRETVALUE\\n\"}",
        "clients: [{name: a, key: {SECRETVALUE: 1}, key_sha256: SECRETVALUE}]", "state: {url: [SECRETVALUE]}",
        "logging: {level: '${S:-SECRETVALUE}'}", "routes: SECRETVALUE",
        "webhooks: [{url: 'http://u:SECRETVALUE@h'}]",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char yaml[1024];
        snprintf(yaml, sizeof yaml, BASE "%s\n", parts[i]);
        struct loaded l;
        parse(&l, yaml, strlen(yaml));
        assert_true(l.problems.n > 0);
        if (i != 3) assert_null(strstr(l.text, "SECRETVALUE")); /* there it is a key's name */
        done(&l);
    }
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
        cmocka_unit_test(guide_basic),   cmocka_unit_test(guide_whole),     cmocka_unit_test(defaults),
        cmocka_unit_test(everything),    cmocka_unit_test(looking_up),      cmocka_unit_test(problems_from_above),
        cmocka_unit_test(problems_hide_secrets), cmocka_unit_test(where_redis_is), cmocka_unit_test(variables_for_policies), cmocka_unit_test(hashes),        cmocka_unit_test(unknown_keys),    cmocka_unit_test(wrong_types),
        cmocka_unit_test(bounds),        cmocka_unit_test(words_and_formats), cmocka_unit_test(urls),
        cmocka_unit_test(caching),
        cmocka_unit_test(required),      cmocka_unit_test(names),           cmocka_unit_test(operators),
        cmocka_unit_test(syntax),        cmocka_unit_test(aliases),         cmocka_unit_test(merge_keys),
        cmocka_unit_test(laughs),        cmocka_unit_test(too_large),       cmocka_unit_test(many_problems),
        cmocka_unit_test(files),         cmocka_unit_test(expansion),       cmocka_unit_test(expanded_types),
        cmocka_unit_test(expanded_files), cmocka_unit_test(written),        cmocka_unit_test(no_secrets_in_texts),
        cmocka_unit_test(cut_anywhere),  cmocka_unit_test(where_the_ledger_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
