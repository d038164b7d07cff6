/* lineage: who follows whom, and when the newest is taken back. */
#include "app/lineage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_arena arena;
static struct claw_conf_problems problems;
static struct claw_lineage l;
static uint64_t ids;

static int set_up(void **state)
{
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    claw_conf_problems_init(&problems, &arena);
    memset(&l, 0, sizeof l);
    ids = 0;
    return 0;
}

static int tear_down(void **state)
{
    claw_lineage_fini(&l);
    claw_arena_reset(&arena);
    assert_int_equal(claw_generation_live(), 0);
    return 0;
}

/* A new generation with these `policies`, published at `ms`. */
static struct claw_generation *publish(const char *policies, uint64_t ms)
{
    char yaml[512];
    struct claw_conf *conf;
    struct claw_generation *g;
    snprintf(yaml, sizeof yaml, "upstreams:\n  u: {type: generic, base_url: 'http://host'}\npolicies: %s\n"
             "routes:\n  - {id: r, match: {path: '*'}, strategy: {type: first_available, upstreams: [u]}}\n", policies);
    if (claw_conf_parse("t.yaml", claw_str_of(yaml), NULL, &conf, &problems) != 0) fail_msg("%s", problems.first->text);
    assert_int_equal(claw_generation_new(conf, &g, &problems), 0);
    g->id = ++ids;
    g->hash = 1000 + ids;
    assert_int_equal(claw_lineage_publish(&l, g, "test", (int64_t)ms, ms), 0);
    return g;
}

/* `n` requests on it by worker 1, of which policies fail `bad`; all end but `open`. */
static void serve(struct claw_generation *g, int n, int bad, int open)
{
    struct claw_tally *t = atomic_load(&g->tallies);
    if (!t) t = claw_tally_new(&g->tallies, 1);
    for (int i = 0; i < n; i++) {
        claw_tally_begin(t);
        if (i < bad) claw_tally_fail(t, CLAW_STR("p"), CLAW_STR("admit"), CLAW_STR("it broke"));
        if (i >= open) claw_tally_end(t);
    }
}

static unsigned alive(void)
{
    unsigned n = 0;
    claw_lineage_tidy(&l);
    for (struct claw_lineage_entry *e = l.first; e; e = e->next) n++;
    return n;
}

static void the_bound(void **state)
{
    static const struct { int n, bad; enum claw_lineage_verdict verdict; } rows[] = {
        {0, 0, CLAW_LINEAGE_FINE}, {9, 9, CLAW_LINEAGE_FINE},     {10, 10, CLAW_LINEAGE_RETURN}, {50, 10, CLAW_LINEAGE_RETURN},
        {51, 10, CLAW_LINEAGE_FINE}, {1000, 199, CLAW_LINEAGE_FINE}, {1000, 200, CLAW_LINEAGE_RETURN},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        publish("{}", 0);
        serve(publish("{}", 10), rows[i].n, rows[i].bad, 0);
        assert_int_equal(claw_lineage_judge(&l, 20), rows[i].verdict);
        claw_lineage_fini(&l);
        memset(&l, 0, sizeof l);
    }
    publish("{}", 0);
    serve(publish("{rollback: {errors: 2, percent: 50}}", 10), 4, 2, 0);
    assert_int_equal(claw_lineage_judge(&l, 20), CLAW_LINEAGE_RETURN);
}

/* Requests that are still in flight count as served: failures are quick, answers are not. */
static void in_flight_counts(void **state)
{
    publish("{}", 0);
    struct claw_generation *g = publish("{}", 10);
    serve(g, 100, 0, 100);
    serve(g, 10, 10, 0);
    assert_int_equal(claw_lineage_judge(&l, 20), CLAW_LINEAGE_FINE);
}

static void returning(void **state)
{
    struct claw_generation *a = publish("{}", 0), *b = publish("{}", 10);
    serve(b, 20, 10, 0);
    assert_true(l.probation && l.good->gen == a);
    assert_int_equal(claw_lineage_judge(&l, 20), CLAW_LINEAGE_RETURN);
    claw_generation_ref(b); /* a worker still has it */
    claw_lineage_return(&l, 77, 20);
    assert_ptr_equal(l.current->gen, a);
    assert_true(!l.probation && !l.good && l.refused && l.refused_hash == b->hash);
    assert_true(l.last.at == 77 && l.last.from == 2 && l.last.to == 1 && l.last.sum.failed == 10 && l.last.sum.begun == 20);
    assert_string_equal(l.last.worst.policy, "p");
    assert_string_equal(l.last.worst.message, "it broke");
    assert_int_equal(alive(), 2);
    assert_int_equal(l.first->state, CLAW_LINEAGE_ROLLED_BACK);
    serve(a, 100, 100, 0); /* the good one is not judged again */
    assert_int_equal(claw_lineage_judge(&l, 30), CLAW_LINEAGE_FINE);
    struct claw_buf out;
    claw_buf_init(&out, 0);
    assert_int_equal(claw_lineage_write(&l, 2, 50, &out), 0);
    assert_int_equal(claw_buf_add(&out, "", 1), 0);
    const char *text = claw_buf_str(&out).ptr;
    assert_non_null(strstr(text, "{\"id\":2,\"hash\":\"00000000000003ea\",\"state\":\"rolled_back\",\"reason\":\"test\",\"loaded_at\":"));
    assert_non_null(strstr(text, "\"requests\":20,\"policy_errors\":10,\"in_flight\":0,\"in_flight_by_worker\":[0,0],\"draining_ms\":30}"));
    assert_non_null(strstr(text, "\"state\":\"current\",\"reason\":\"rollback\""));
    assert_non_null(strstr(text, "\"last_rollback\":{\"at\":77,\"from\":2,\"to\":1,\"requests\":20,\"policy_errors\":10,\"policy\":\"p\",\"hook\":\"admit\",\"message\":\"it broke\"}"));
    claw_buf_fini(&out);
    claw_generation_unref(b);
    assert_int_equal(alive(), 1);
    publish("{}", 60);
    assert_false(l.refused);
    assert_ptr_equal(l.good->gen, a);
}

static void nowhere_to_go(void **state)
{
    serve(publish("{}", 0), 10, 10, 0);
    assert_int_equal(claw_lineage_judge(&l, 20), CLAW_LINEAGE_NOWHERE);
    assert_int_equal(claw_lineage_judge(&l, 20), CLAW_LINEAGE_FINE); /* told once */
}

static void switched_off(void **state)
{
    publish("{}", 0);
    serve(publish("{rollback: false}", 10), 100, 100, 0);
    assert_int_equal(claw_lineage_judge(&l, 20), CLAW_LINEAGE_FINE);
    assert_int_equal(alive(), 1); /* and nothing is kept */
}

static void the_window(void **state)
{
    publish("{}", 0);
    struct claw_generation *g = publish("{rollback: {window_seconds: 60}}", 1000);
    assert_int_equal(alive(), 2);
    assert_int_equal(claw_lineage_judge(&l, 61000), CLAW_LINEAGE_FINE);
    assert_int_equal(alive(), 2);
    assert_int_equal(claw_lineage_judge(&l, 61001), CLAW_LINEAGE_FINE);
    assert_int_equal(alive(), 1);
    serve(g, 100, 100, 0);
    assert_int_equal(claw_lineage_judge(&l, 61002), CLAW_LINEAGE_FINE);
}

/* What was published over one that had not shown anything yet goes back to the one before that. */
static void which_is_good(void **state)
{
    struct claw_generation *a = publish("{}", 0);
    struct claw_generation *b = publish("{}", 10);
    serve(b, 9, 0, 0);
    struct claw_generation *c = publish("{}", 20);
    assert_ptr_equal(l.good->gen, a);
    serve(c, 11, 0, 0);
    struct claw_generation *d = publish("{}", 30);
    assert_ptr_equal(l.good->gen, c);
    serve(d, 100, 1, 0);
    publish("{}", 40);
    assert_ptr_equal(l.good->gen, c);
    assert_int_equal(claw_lineage_judge(&l, 40 + 600001), CLAW_LINEAGE_FINE);
    struct claw_generation *e = l.current->gen;
    publish("{}", 700000);
    assert_ptr_equal(l.good->gen, e); /* it stood its time */
    assert_int_equal(alive(), 2);
}

static void overdue(void **state)
{
    struct claw_generation *a = claw_generation_ref(publish("{}", 0));
    serve(a, 5, 0, 2);
    claw_generation_ref(publish("{}", 1000));
    assert_null(claw_lineage_overdue(&l, 500, 1499));
    struct claw_lineage_entry *e = claw_lineage_overdue(&l, 500, 1500);
    assert_ptr_equal(e->gen, a);
    assert_null(claw_lineage_overdue(&l, 500, 1500)); /* once */
    claw_generation_unref(a);
    struct claw_generation *b = l.current->gen;
    publish("{}", 2000);
    assert_null(claw_lineage_overdue(&l, 500, 9999)); /* b drains and has no request */
    claw_generation_unref(b);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_bound), TEST(in_flight_counts), TEST(returning), TEST(nowhere_to_go), TEST(switched_off), TEST(the_window), TEST(which_is_good), TEST(overdue),
    };
    return cmocka_run_group_tests_name("app/lineage", tests, NULL, NULL);
}
