/* policy: a generation and a small fake of an engine, made of the functions that a test names. */
#ifndef CLAW_TEST_POLICY_PART_H
#define CLAW_TEST_POLICY_PART_H

#include "fixture.h"

#include <sys/stat.h>

static struct fixture f;
static struct claw_req *r;
static struct claw_policy_error err;

static inline int setup(void **state)
{
    fixture_init(&f);
    return 0;
}

static inline int teardown(void **state)
{
    if (r) fixture_req_free(r);
    r = NULL;
    fixture_fini(&f);
    return 0;
}

static const char frame[] =
    "return { new = function(spec) S = spec core = spec.core "
    "local function no() end local e = { admit = no, route = no, decide = no, request = no, retry = no, response = no, error = no, event = no, caches = no, recast = no, finish = no, explain = no, explain_attempt = no, explained = no, trace = no } "
    "e.hooks = { admit = true } %s return e end }";

/* A generation with two upstreams and an engine whose functions `code` sets on `e`. */
static inline void engine(const char *code)
{
    char source[8192];
    assert_true(snprintf(source, sizeof source, frame, code) < (int)sizeof source);
    if (r) fixture_req_free(r);
    r = NULL;
    fixture_fini(&f);
    fixture_init(&f);
    if (fixture_load(&f, two_upstreams) != 0) {
        fixture_print(&f);
        fail();
    }
    fixture_vm(&f, source);
    r = fixture_req(&f, "/v1/chat/completions", "{\"model\":\"gpt-4\",\"stream\":true,\"n\":9007199254740993}", NULL);
}

static inline bool says(const char *part) { return claw_str_find(err.message, claw_str_of(part)) >= 0; }

#define assert_says(part) do { if (!says(part)) fail_msg("\"%.*s\" lacks \"%s\"", CLAW_STR_FMT(err.message), part); } while (0)

static inline int route(void)
{
    struct claw_policy_answer answer = {.status = 0};
    return claw_policy_ops_lua.route(f.p, r, &answer, &err);
}

static inline void make_policies(void)
{
    char path[300];
    fixture_make_dir(&f);
    snprintf(path, sizeof path, "%s/policies", f.dir);
    assert_int_equal(mkdir(path, 0700), 0);
}

static inline void explain(const char *request, int rc, const char *want)
{
    struct claw_buf out;
    claw_buf_init(&out, 0);
    assert_int_equal(claw_policy_explain(f.p, claw_str_of(request), &out), rc);
    if (claw_str_find(claw_buf_str(&out), claw_str_of(want)) < 0) fail_msg("\"%.*s\" lacks \"%s\"", CLAW_STR_FMT(claw_buf_str(&out)), want);
    claw_buf_fini(&out);
}

/* Failing on purpose is loud: the lines go where nobody reads them. */
static inline int quiet(void **state)
{
    return claw_log_open(&(struct claw_log_conf){.level = CLAW_LOG_ERROR, .to = 0, .path = "/dev/null"});
}

static inline int loud(void **state)
{
    claw_log_flush();
    claw_log_close(1000);
    claw_log_thread_end();
    return 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
