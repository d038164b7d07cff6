/* conf_expand: ${VAR}, ${VAR:-default} and ${file:}: what becomes of a value, and of which type it then is. */
#include "conf_part.h"

#include <unistd.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expansion), cmocka_unit_test(expanded_types), cmocka_unit_test(expanded_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
