/* replay: lines as logging.decisions writes them, decided anew by the real engine, and what is told of each. */
#include "fixture.h"

static struct fixture f;

static int setup(void **state)
{
    fixture_init(&f);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    fixture_vm(&f, NULL);
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(&f);
    return 0;
}

#define CAME "{\"method\":\"POST\",\"path\":\"/v1/chat/completions\",\"query\":\"\",\"ip\":\"192.0.2.7\",\"headers\":{}"
#define ASKED ",\"body\":{\"model\":\"gpt-4\",\"messages\":[]}"
#define BOTH ",\"candidates\":[{\"upstream\":\"alpha\",\"model\":\"gpt-4\"},{\"upstream\":\"beta\",\"model\":\"gpt-4\"}]"
#define SERVED ",\"upstream\":\"alpha\",\"status\":200,\"usage\":{\"input\":10,\"output\":5},\"cost_micros\":600}"
#define AS_BEFORE CAME ASKED ",\"route\":\"chat\",\"candidates\":[{\"upstream\":\"alpha\",\"model\":\"gpt-4\"}]" SERVED

/* `want`: the parts that are told, in this order, "|" between them. */
static void replay(const char *log, bool differs, const char *want)
{
    struct claw_buf out;
    bool changed;
    claw_buf_init(&out, 0);
    assert_int_equal(claw_policy_replay(f.p, claw_str_of(log), &out, &changed), 0);
    struct claw_str rest = claw_buf_str(&out);
    for (const char *p = want; *p;) {
        struct claw_str part = {p, strcspn(p, "|")};
        ptrdiff_t at = claw_str_find(rest, part);
        if (at < 0) fail_msg("\"%.*s\" lacks \"%.*s\"", CLAW_STR_FMT(claw_buf_str(&out)), CLAW_STR_FMT(part));
        rest.ptr += at + (ptrdiff_t)part.len;
        rest.len -= (size_t)at + part.len;
        p += part.len + (p[part.len] == '|');
    }
    assert_int_equal(changed, differs);
    claw_buf_fini(&out);
}

static void what_is_decided_alike_is_only_counted(void **state)
{
    replay("", false, "0 decisions, 0 routes changed");
    replay(AS_BEFORE "\n\n" AS_BEFORE, false, "2 decisions, 0 routes changed, 0 first candidates changed, 0 refusals changed, 0 costs changed, cost $0.001200 -> $0.001200\n");
}

static void what_differs_is_told_with_its_line(void **state)
{
    replay(AS_BEFORE "\n" CAME ASKED ",\"route\":\"old\",\"candidates\":[{\"upstream\":\"beta\",\"model\":\"claude-3\"}],\"upstream\":\"beta\",\"status\":200,"
           "\"usage\":{\"input\":10,\"output\":5},\"cost_micros\":7}\n",
           true, "line 2: route old -> chat; first beta with claude-3 -> alpha with gpt-4; cost $0.000007 -> $0.000600\n|2 decisions, 1 routes changed, 1 first candidates changed, 0 refusals changed, 1 costs changed");
}

static void refusals_come_and_go(void **state)
{
    replay(CAME ASKED ",\"route\":\"\",\"candidates\":[],\"status\":403,\"refused\":\"banned\",\"usage\":{}}", true, "line 1: refused 403 banned -> no\n|1 refusals changed");
    replay("{\"method\":\"POST\",\"path\":\"/nowhere\",\"headers\":{}" ASKED ",\"route\":\"chat\"" BOTH SERVED, true, "line 1: refused no -> 404 no_route\n");
    /* a cost that is not known stays what it was */
    replay(CAME ASKED ",\"route\":\"chat\",\"candidates\":[{\"upstream\":\"alpha\",\"model\":\"gpt-4\"}],\"upstream\":\"alpha\",\"status\":502,\"usage\":{}}", false, "1 decisions");
}

static void what_cannot_be_decided_anew(void **state)
{
    replay(CAME ",\"body_left_out\":70000,\"route\":\"chat\"" BOTH SERVED, false, "0 decisions|1 not decided anew (body left out)");
    static const char *const wrong[] = {"{", "[]", "{}", "nonsense", CAME ASKED "}", CAME ASKED ",\"candidates\":5}", "{\"model\":\"gpt-4\",\"candidates\":[]}\n{"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct claw_buf out;
        char log[1024];
        bool changed = true;
        claw_buf_init(&out, 0);
        snprintf(log, sizeof log, "%s\n%s", AS_BEFORE, wrong[i]);
        if (claw_policy_replay(f.p, claw_str_of(log), &out, &changed) == CLAW_OK) fail_msg("taken: %s", wrong[i]);
        assert_false(changed);
        if (claw_str_find(claw_buf_str(&out), CLAW_STR("no decision as logging.decisions writes them")) < 0) fail_msg("%.*s", CLAW_STR_FMT(claw_buf_str(&out)));
        claw_buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(what_is_decided_alike_is_only_counted), T(what_differs_is_told_with_its_line), T(refusals_come_and_go), T(what_cannot_be_decided_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
