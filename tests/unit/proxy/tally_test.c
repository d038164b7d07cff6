/* tally: one counts, another reads; the worst of all workers is found. */
#include "proxy/tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_tally *_Atomic list;

static int tear_down(void **state)
{
    claw_tally_free(atomic_load(&list));
    atomic_store(&list, NULL);
    return 0;
}

static void failed(struct claw_tally *t, const char *policy, const char *hook, const char *message)
{
    claw_tally_fail(t, claw_str_of(policy), claw_str_of(hook), claw_str_of(message));
}

static void sums(void **state)
{
    struct claw_tally *a = claw_tally_new(&list, 1), *b = claw_tally_new(&list, 2);
    for (int i = 0; i < 3; i++) claw_tally_begin(a);
    claw_tally_end(a);
    claw_tally_begin(b);
    failed(b, "p", "admit", "no");
    struct claw_tally_sum all = claw_tally_add(list, 0), one = claw_tally_add(list, 1), two = claw_tally_add(list, 2), none = claw_tally_add(list, 3);
    assert_true(all.begun == 4 && all.ended == 1 && all.failed == 1);
    assert_true(one.begun == 3 && one.ended == 1 && one.failed == 0);
    assert_true(two.begun == 1 && two.failed == 1 && none.begun == 0);
    assert_true(claw_tally_add(NULL, 0).begun == 0);
}

/* Each worker sees another policy fail most; together a third one does. */
static void worst(void **state)
{
    struct claw_tally *a = claw_tally_new(&list, 1), *b = claw_tally_new(&list, 2);
    struct claw_tally_blame w;
    claw_tally_worst(list, &w);
    assert_int_equal(w.n, 0);
    for (int i = 0; i < 3; i++) failed(a, "one", "admit", "a");
    for (int i = 0; i < 3; i++) failed(b, "two", "admit", "b");
    for (int i = 0; i < 2; i++) failed(a, "three", "route", "c"), failed(b, "three", "route", "c");
    failed(a, "three", "admit", "another hook");
    claw_tally_worst(list, &w);
    assert_string_equal(w.policy, "three");
    assert_string_equal(w.hook, "route");
    assert_string_equal(w.message, "c");
    assert_int_equal(w.n, 4);
    struct claw_tally_blame all[8];
    assert_int_equal(claw_tally_blames(list, all, 0, 8), 4);
    assert_int_equal(claw_tally_blames(list, all, 0, 2), 2); /* no more than there is room for */
}

static void bounds(void **state)
{
    struct claw_tally *a = claw_tally_new(&list, 1);
    struct claw_tally_blame w;
    char name[] = "p0", message[1000];
    memset(message, 'm', sizeof message - 1);
    message[sizeof message - 1] = 0;
    for (int i = 0; i < CLAW_TALLY_BLAMES + 5; i++) {
        name[1] = (char)('0' + i);
        failed(a, name, "admit", "x");
    }
    failed(a, "p3", "admit", message);
    claw_tally_worst(list, &w);
    assert_string_equal(w.policy, "p3");
    assert_int_equal(strlen(w.message), sizeof w.message - 1);
    assert_int_equal(claw_tally_add(list, 0).failed, CLAW_TALLY_BLAMES + 6); /* also those without a name */
}

/* ---- one writer, one reader ----------------------------------------------------------------------------------- */

enum { ROUNDS = 50000 };

static void *work(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        claw_tally_begin(arg);
        failed(arg, "p", "admit", "m");
        claw_tally_end(arg);
    }
    return NULL;
}

static void while_it_counts(void **state)
{
    pthread_t t[2];
    struct claw_tally *own[2] = {claw_tally_new(&list, 1), claw_tally_new(&list, 2)};
    struct claw_tally_sum s;
    struct claw_tally_blame w;
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&t[i], NULL, work, own[i]), 0);
    do {
        s = claw_tally_add(list, 0);
        assert_true(s.begun >= s.ended && s.begun >= s.failed);
        claw_tally_worst(list, &w);
    } while (s.ended < 2 * ROUNDS);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    assert_int_equal(claw_tally_add(list, 0).failed, 2 * ROUNDS);
    claw_tally_worst(list, &w);
    assert_true(w.n > 0 && w.n <= 2 * ROUNDS); /* what failed while somebody read has no name */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, tear_down)
    const struct CMUnitTest tests[] = {TEST(sums), TEST(worst), TEST(bounds), TEST(while_it_counts)};
    return cmocka_run_group_tests_name("proxy/tally", tests, NULL, NULL);
}
