/* Secrets from elsewhere while a configuration is loaded: what is lacking is gathered, what is known stands in its place. */
#include "base/conf_schema.h"
#include "base/conf_secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const char *value; /* what the keeper has for everything; NULL: nothing yet */
static unsigned asked;

static int get(void *arg, struct claw_conf_secret of, struct claw_str field, struct claw_arena *a, struct claw_str *out, char *why, size_t why_size)
{
    assert_ptr_equal(arg, &asked);
    asked++;
    if (!value) return CLAW_EAGAIN;
    if (claw_str_eqz(field, "bad")) {
        snprintf(why, why_size, "no %.*s of %.*s", CLAW_STR_FMT(field), CLAW_STR_FMT(of.name));
        return CLAW_EINVAL;
    }
    *out = (struct claw_str){claw_arena_dup(a, value, strlen(value)), strlen(value)};
    return out->ptr ? 0 : CLAW_EREQ_MEM;
}

static const struct claw_conf_keeper keeper = {get, false, &asked};
static const char *const *vars; /* name, value … */

static const char *env(const char *name)
{
    for (const char *const *v = vars; v && *v; v += 2)
        if (strcmp(*v, name) == 0) return v[1];
    return NULL;
}

struct loaded {
    struct claw_arena arena;
    struct claw_conf_problems problems;
    struct claw_conf *conf;
    int rc;
};

static struct loaded load(const char *more)
{
    struct loaded l = {.conf = NULL};
    char path[] = "/tmp/claw_conf_secret_XXXXXX";
    int fd = mkstemp(path);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    fprintf(f, "upstreams: {u: {type: openai, %s}}\nroutes: [{strategy: {upstream: u}}]\n", more);
    fclose(f);
    asked = 0;
    claw_arena_init(&l.arena, NULL, 0, 1 << 20);
    claw_conf_problems_init(&l.problems, &l.arena);
    l.rc = claw_conf_load_with(path, env, &keeper, &l.conf, &l.problems);
    unlink(path);
    return l;
}

static void done(struct loaded *l)
{
    claw_conf_free(l->conf);
    claw_arena_reset(&l->arena);
}

static void assert_problem(struct loaded *l, const char *text)
{
    assert_int_equal(l->rc, CLAW_EINVAL);
    assert_null(l->conf);
    if (!strstr(l->problems.first->text, text)) fail_msg("\"%s\" is not in \"%s\"", text, l->problems.first->text);
    done(l);
}

static void assert_str(struct claw_str s, const char *z)
{
    if (!claw_str_eqz(s, z)) fail_msg("\"%.*s\" is not \"%s\"", CLAW_STR_FMT(s), z);
}

static void parts(void **state)
{
    struct claw_conf_secret ref;
    struct claw_str field;
    assert_false(claw_conf_secret_parse(CLAW_STR("VAULT"), &ref, &field));
    assert_false(claw_conf_secret_parse(CLAW_STR("file:x#y"), &ref, &field));
    assert_true(claw_conf_secret_parse(CLAW_STR("vault:a/b#c"), &ref, &field));
    assert_int_equal(ref.store, CLAW_CONF_VAULT);
    assert_str(ref.name, "a/b");
    assert_str(field, "c");
    assert_true(claw_conf_secret_parse(CLAW_STR("aws-sm:arn:aws:x:r:1:secret:n#c"), &ref, &field));
    assert_int_equal(ref.store, CLAW_CONF_AWS_SM);
    assert_str(ref.name, "arn:aws:x:r:1:secret:n");
    assert_true(claw_conf_secret_parse(CLAW_STR("aws-sm:n"), &ref, &field));
    assert_str(ref.name, "n");
    assert_str(field, "");
    assert_true(claw_conf_secret_parse(CLAW_STR("vault:a#b#c"), &ref, &field));
    assert_str(ref.name, "a#b");
    assert_true(claw_conf_secret_parse(CLAW_STR("vault:"), &ref, &field));
    assert_str(ref.name, "");
}

static void lacking(void **state)
{
    value = NULL;
    struct loaded l = load("api_key: '${vault:a#b}', headers: {x: 'b ${vault:a#c} ${aws-sm:d}'}, base_url: '${vault:a#url}'");
    assert_int_equal(l.rc, CLAW_EAGAIN);
    assert_int_equal(l.problems.n, 0);
    assert_true(l.conf->secrets.missing);
    assert_int_equal(l.conf->secrets.n, 2);
    assert_str(l.conf->secrets.all[0].name, "a");
    assert_str(l.conf->secrets.all[1].name, "d");
    assert_int_equal(l.conf->secrets.refresh_ms, 300000);
    assert_int_equal(l.conf->secrets.timeout_ms, 10000);
    assert_int_equal(asked, 4);
    done(&l);
    l = load("api_key: '${vault:a#b}', nonsense: 1"); /* what is wrong anyway is told before anything is fetched */
    assert_problem(&l, "upstreams.u.nonsense: unknown key");
}

static void known(void **state)
{
    value = "http://h/v1";
    struct loaded l = load("api_key: '${vault:a#b}', headers: {x: 'b ${vault:a#c}'}, base_url: '${vault:a#url}'");
    assert_int_equal(l.rc, 0);
    assert_false(l.conf->secrets.missing);
    assert_int_equal(l.conf->secrets.n, 1);
    assert_str(l.conf->upstreams[0].api_keys[0].text, value);
    assert_str(l.conf->upstreams[0].headers[0].value, "b http://h/v1");
    assert_str(l.conf->upstreams[0].url.host, "h");
    done(&l);
    l = load("api_key: '${vault:a#bad}'");
    assert_problem(&l, ":1:40: upstreams.u.api_key: no bad of a");
    value = "not shown\n";
    l = load("api_key: '${vault:a#b}'");
    assert_null(strstr(l.problems.first->text, "not shown"));
    assert_problem(&l, "upstreams.u.api_key: must not hold line breaks");
    value = NULL;
}

static void settings(void **state)
{
    static const char *const all[] = {"VAULT_ADDR", "https://v:8200", "VAULT_TOKEN", "tok-0123456", "VAULT_NAMESPACE", "ns", "VAULT_CACERT", "/ca.pem",
                                      "AWS_ACCESS_KEY_ID", "id-0123456", "AWS_SECRET_ACCESS_KEY", "secret-0123456", "AWS_SESSION_TOKEN", "session-0123456",
                                      "AWS_DEFAULT_REGION", "eu-west-3", "AWS_ENDPOINT_URL", "http://e", NULL};
    static const char *const odd[] = {"VAULT_ADDR", "v:8200", NULL};
    vars = all;
    value = "x-0123456";
    struct loaded l = load("api_key: '${vault:a#b}${aws-sm:c}'");
    struct claw_conf_secrets *s = &l.conf->secrets;
    assert_str(s->vault.address, "https://v:8200");
    assert_str(s->vault.token, "tok-0123456");
    assert_str(s->vault.name_space, "ns");
    assert_string_equal(s->vault.tls_ca, "/ca.pem");
    assert_true(s->vault.tls_verify);
    assert_int_equal(s->vault.version, 2);
    assert_str(s->aws_sm.aws.id, "id-0123456");
    assert_str(s->aws_sm.aws.secret, "secret-0123456");
    assert_str(s->aws_sm.aws.token, "session-0123456");
    assert_str(s->aws_sm.aws.region, "eu-west-3");
    assert_str(s->aws_sm.endpoint, "http://e");
    done(&l);
    l = load("api_key: '${vault:a#b}${aws-sm:c}'}}\nsecrets: {refresh_seconds: 0.5, timeout_seconds: 2, vault: {address: http://w, token_file: t, kv_version: 1, "
             "namespace: m, tls: {ca: ca.pem, verify: false, server_name: n}}, aws: {access_key_id: i, secret_access_key: s, region: r, endpoint: http://f}}\n"
             "prices: {p: {cost_per_request: 1");
    s = &l.conf->secrets;
    assert_int_equal(s->refresh_ms, 500);
    assert_int_equal(s->timeout_ms, 2000);
    assert_str(s->vault.address, "http://w");
    assert_str(s->vault.token, "");
    assert_string_equal(s->vault.token_file, "/tmp/t");
    assert_str(s->vault.name_space, "m");
    assert_int_equal(s->vault.version, 1);
    assert_string_equal(s->vault.tls_ca, "/tmp/ca.pem");
    assert_false(s->vault.tls_verify);
    assert_str(s->vault.tls_server_name, "n");
    assert_str(s->aws_sm.aws.id, "i");
    assert_str(s->aws_sm.aws.token, ""); /* of the environment's others */
    assert_str(s->aws_sm.aws.region, "r");
    assert_str(s->aws_sm.endpoint, "http://f");
    done(&l);
    vars = odd;
    l = load("api_key: '${vault:a#b}'");
    assert_problem(&l, "secrets.vault: the address (VAULT_ADDR) is no http or https URL");
    l = load("api_key: abcdefgh"); /* nobody asks for it */
    assert_int_equal(l.rc, 0);
    assert_int_equal(l.conf->secrets.n, 0);
    done(&l);
    vars = NULL;
    l = load("api_key: x}}\nsecrets: {aws: {session_token: x}}\nprices: {p: {cost_per_request: 1");
    assert_problem(&l, "secrets.aws: session_token is of no use");
    l = load("api_key: x}}\nsecrets: {aws: {region: A}}\nprices: {p: {cost_per_request: 1");
    assert_problem(&l, "secrets.aws: the region may hold");
    l = load("api_key: x}}\nsecrets: {vault: {address: '${vault:a#b}'}}\nprices: {p: {cost_per_request: 1");
    assert_int_equal(l.rc, CLAW_EINVAL);
    done(&l);
    value = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts), cmocka_unit_test(lacking), cmocka_unit_test(known), cmocka_unit_test(settings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
