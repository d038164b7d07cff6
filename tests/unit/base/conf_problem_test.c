/* conf_problem: where a problem lies, in which order they are told, how many, and that none shows a secret. */
#include "conf_part.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(problems_from_above), cmocka_unit_test(problems_hide_secrets), cmocka_unit_test(many_problems),
        cmocka_unit_test(no_secrets_in_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
