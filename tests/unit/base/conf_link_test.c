/* conf_link: what keys say about each other: names that are taken, or that are none. */
#include "conf_part.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
