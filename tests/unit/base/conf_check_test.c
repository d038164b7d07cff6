/* conf_check: keys, types, bounds, words and operators against the schema. */
#include "conf_part.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_keys), cmocka_unit_test(wrong_types), cmocka_unit_test(bounds),
        cmocka_unit_test(words_and_formats), cmocka_unit_test(required), cmocka_unit_test(operators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
