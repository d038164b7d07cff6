/* conf_tree: YAML: its syntax, aliases, and how much there may be of it. */
#include "conf_part.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syntax), cmocka_unit_test(aliases), cmocka_unit_test(merge_keys), cmocka_unit_test(laughs),
        cmocka_unit_test(too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
