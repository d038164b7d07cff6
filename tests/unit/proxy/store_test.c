/* store: what is put is found, ends and bound hold, and many threads together lose nothing. */
#include "proxy/store.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_store *s;
static struct claw_buf text;

static int set_up(void **state)
{
    claw_buf_init(&text, 0);
    s = claw_store_new(1 << 20);
    return s ? 0 : -1;
}

static int tear_down(void **state)
{
    claw_store_free(s);
    claw_buf_fini(&text);
    return 0;
}

static struct claw_store_key key(const char *name) { return (struct claw_store_key){CLAW_STR("p"), claw_str_of(name)}; }
static struct claw_store_value number(double n) { return (struct claw_store_value){.kind = CLAW_STORE_NUMBER, .number = n}; }
static struct claw_store_value truth(bool t) { return (struct claw_store_value){.kind = CLAW_STORE_TRUTH, .truth = t}; }
static struct claw_store_value words(const char *z) { return (struct claw_store_value){.kind = CLAW_STORE_TEXT, .text = claw_str_of(z)}; }

static enum claw_store_result set(const char *name, struct claw_store_value v, uint64_t ttl_ms, uint64_t now_ms)
{
    return claw_store_set(s, key(name), &v, ttl_ms, now_ms);
}

static bool there(const char *name, uint64_t now_ms)
{
    struct claw_store_value v;
    return claw_store_get(s, key(name), now_ms, &text, &v) == CLAW_STORE_OK;
}

static double number_at(const char *name, uint64_t now_ms)
{
    struct claw_store_value v;
    assert_int_equal(claw_store_get(s, key(name), now_ms, &text, &v), CLAW_STORE_OK);
    assert_int_equal(v.kind, CLAW_STORE_NUMBER);
    return v.number;
}

static void values(void **state)
{
    struct claw_store_value v;
    assert_int_equal(claw_store_get(s, key("a"), 1, &text, &v), CLAW_STORE_NOT);
    assert_int_equal(set("a", words("one"), 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_get(s, key("a"), 1, &text, &v), CLAW_STORE_OK);
    assert_true(v.kind == CLAW_STORE_TEXT && claw_str_eqz(v.text, "one"));
    assert_int_equal(set("a", truth(false), 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_get(s, key("a"), 1, &text, &v), CLAW_STORE_OK);
    assert_true(v.kind == CLAW_STORE_TRUTH && !v.truth);
    assert_int_equal(set("a", number(-0.5), 0, 1), CLAW_STORE_OK);
    assert_true(number_at("a", 1) == -0.5);
    assert_int_equal(claw_store_measure(s).entries, 1);
    /* The empty name and the empty text are some; a NUL in a name is a byte like others. */
    assert_int_equal(set("", words(""), 0, 1), CLAW_STORE_OK);
    assert_true(there("", 1));
    struct claw_store_key nul = {CLAW_STR("p"), {"\0a", 2}}, other = {CLAW_STR("p\0"), CLAW_STR("a")};
    v = number(1);
    assert_int_equal(claw_store_set(s, nul, &v, 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_get(s, other, 1, &text, &v), CLAW_STORE_NOT);
    assert_int_equal(claw_store_delete(s, key("a"), 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_delete(s, key("a"), 1), CLAW_STORE_NOT);
    assert_false(there("a", 1));
    assert_int_equal(claw_store_delete(s, key(""), 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_delete(s, nul, 1), CLAW_STORE_OK);
    struct claw_store_stats m = claw_store_measure(s);
    assert_true(m.bytes == 0 && m.entries == 0 && m.evictions == 0);
}

static void spaces(void **state)
{
    struct claw_store_value v = number(1);
    struct claw_store_key mine = {CLAW_STR("mine"), CLAW_STR("k")}, yours = {CLAW_STR("yours"), CLAW_STR("k")}, all = {CLAW_STR(""), CLAW_STR("k")};
    assert_int_equal(claw_store_set(s, mine, &v, 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_get(s, yours, 1, &text, &v), CLAW_STORE_NOT);
    assert_int_equal(claw_store_get(s, all, 1, &text, &v), CLAW_STORE_NOT);
    assert_int_equal(claw_store_get(s, mine, 1, &text, &v), CLAW_STORE_OK);
}

static void too_large(void **state)
{
    static char big[CLAW_STORE_TEXT_MAX + 2];
    memset(big, 'x', sizeof big - 1);
    struct claw_store_value v = words(big), one = number(1);
    double n;
    assert_int_equal(claw_store_set(s, key("a"), &v, 0, 1), CLAW_STORE_TOO_LARGE);
    v.text.len--;
    assert_int_equal(claw_store_set(s, key("a"), &v, 0, 1), CLAW_STORE_OK);
    struct claw_store_key k = {CLAW_STR("p"), {big, CLAW_STORE_NAME_MAX + 1}};
    assert_int_equal(claw_store_set(s, k, &one, 0, 1), CLAW_STORE_TOO_LARGE);
    assert_int_equal(claw_store_get(s, k, 1, &text, &one), CLAW_STORE_TOO_LARGE);
    assert_int_equal(claw_store_incr(s, k, 1, 0, 1, &n), CLAW_STORE_TOO_LARGE);
    assert_int_equal(claw_store_delete(s, k, 1), CLAW_STORE_TOO_LARGE);
    k.name.len--;
    assert_int_equal(claw_store_incr(s, k, 1, 0, 1, &n), CLAW_STORE_OK);
}

static void ends(void **state)
{
    double n;
    struct claw_store_value v = number(7);
    assert_int_equal(set("a", v, 100, 1000), CLAW_STORE_OK);
    assert_true(there("a", 1099));
    assert_false(there("a", 1100));
    assert_int_equal(claw_store_measure(s).entries, 0); /* found dead, let go */
    assert_int_equal(claw_store_add(s, key("a"), &v, 100, 2000), CLAW_STORE_OK);
    assert_int_equal(claw_store_add(s, key("a"), &v, 100, 2099), CLAW_STORE_NOT);
    assert_int_equal(claw_store_add(s, key("a"), &v, 100, 2100), CLAW_STORE_OK);
    /* A count's end is that of its beginning. */
    assert_int_equal(claw_store_incr(s, key("c"), 1, 50, 100, &n), CLAW_STORE_OK);
    assert_int_equal(claw_store_incr(s, key("c"), 1, 50, 149, &n), CLAW_STORE_OK);
    assert_true(n == 2);
    assert_int_equal(claw_store_incr(s, key("c"), 1, 50, 150, &n), CLAW_STORE_OK);
    assert_true(n == 1);
    /* cas keeps the end, or sets another. */
    struct claw_store_value one = number(1), two = number(2);
    assert_int_equal(claw_store_cas(s, key("c"), &one, &two, 0, 160), CLAW_STORE_OK);
    assert_true(there("c", 199));
    assert_int_equal(claw_store_cas(s, key("c"), &two, &one, 100, 199), CLAW_STORE_OK);
    assert_true(there("c", 298));
    assert_false(there("c", 299));
    /* set without an end takes it away. */
    assert_int_equal(set("d", one, 10, 0), CLAW_STORE_OK);
    assert_int_equal(set("d", one, 0, 5), CLAW_STORE_OK);
    assert_true(there("d", 1000000));
}

static void sums(void **state)
{
    double n;
    assert_int_equal(claw_store_incr(s, key("a"), 5, 0, 1, &n), CLAW_STORE_OK);
    assert_int_equal(claw_store_incr(s, key("a"), -7, 0, 1, &n), CLAW_STORE_OK);
    assert_true(n == -2);
    assert_int_equal(set("a", number(CLAW_STORE_EXACT - 2), 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_incr(s, key("a"), 1, 0, 1, &n), CLAW_STORE_OK);
    assert_true(n == CLAW_STORE_EXACT - 1);
    assert_int_equal(claw_store_incr(s, key("a"), 1, 0, 1, &n), CLAW_STORE_RANGE);
    assert_true(number_at("a", 1) == CLAW_STORE_EXACT - 1);
    assert_int_equal(claw_store_incr(s, key("new"), CLAW_STORE_EXACT, 0, 1, &n), CLAW_STORE_RANGE);
    assert_false(there("new", 1));
    assert_int_equal(set("t", words("5"), 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_incr(s, key("t"), 1, 0, 1, &n), CLAW_STORE_KIND);
    assert_int_equal(set("t", number(0.5), 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_incr(s, key("t"), 1, 0, 1, &n), CLAW_STORE_KIND);
}

static void comparing(void **state)
{
    struct claw_store_value a = words("a"), b = words("b"), one = number(1), yes = truth(true);
    assert_int_equal(claw_store_cas(s, key("k"), &a, &b, 0, 1), CLAW_STORE_NOT); /* nothing there */
    assert_int_equal(claw_store_cas(s, key("k"), NULL, &a, 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_cas(s, key("k"), NULL, &b, 0, 1), CLAW_STORE_NOT);
    assert_int_equal(claw_store_cas(s, key("k"), &b, &a, 0, 1), CLAW_STORE_NOT);
    assert_int_equal(claw_store_cas(s, key("k"), &a, &one, 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_cas(s, key("k"), &yes, &a, 0, 1), CLAW_STORE_NOT); /* true is not 1 */
    assert_int_equal(claw_store_cas(s, key("k"), &one, &yes, 0, 1), CLAW_STORE_OK);
    assert_int_equal(claw_store_cas(s, key("k"), &yes, &b, 0, 1), CLAW_STORE_OK);
}

static void bound(void **state)
{
    static char kilo[1001];
    memset(kilo, 'x', 1000);
    char name[16];
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(set(name, words(kilo), 0, i), CLAW_STORE_OK);
        struct claw_store_stats m = claw_store_measure(s);
        assert_true(m.bytes <= 1 << 20 && m.entries + m.evictions == i + 1);
    }
    struct claw_store_stats m = claw_store_measure(s);
    assert_true(m.entries > 700 && m.evictions > 3500);
    assert_false(there("0", 5000));
    assert_true(there("4999", 5000));
    claw_store_set_cap(s, 100 << 10, 5000);
    m = claw_store_measure(s);
    assert_true(m.bytes <= 100 << 10 && m.entries > 50);
    assert_true(there("4999", 5000)); /* the last used of its shard */
}

/* What is used stays, what is not goes. */
static void used_stays(void **state)
{
    static char kilo[1001];
    memset(kilo, 'x', 1000);
    char name[16];
    assert_int_equal(set("hot", words("h"), 0, 1), CLAW_STORE_OK);
    assert_int_equal(set("cold", words("c"), 0, 1), CLAW_STORE_OK);
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(set(name, words(kilo), 0, i + 2), CLAW_STORE_OK);
        assert_true(there("hot", i + 2));
    }
    assert_false(there("cold", 3002));
    assert_false(there("2000", 3002));
    assert_true(there("2300", 3002));
}

/* Expired entries are the first to go, whatever their shard; then nothing that lives has to. */
static void expired_first(void **state)
{
    static char kilo[1001];
    memset(kilo, 'x', 1000);
    char name[16];
    for (unsigned i = 0; i < 900; i++) {
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(set(name, words(kilo), i % 2 ? 10 : 0, 0), CLAW_STORE_OK);
    }
    assert_int_equal(claw_store_measure(s).evictions, 0);
    for (unsigned i = 900; i < 1300; i++) {
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(set(name, words(kilo), 0, 10), CLAW_STORE_OK);
    }
    assert_int_equal(claw_store_measure(s).evictions, 0);
    assert_true(there("0", 10) && there("898", 10) && there("1299", 10));
    assert_false(there("1", 10) || there("899", 10));
}

/* Ends in any order, taken back and given anew: a model beside it says what must be there. */
static void ends_against_a_model(void **state)
{
    uint64_t model[200] = {0};
    unsigned seed = 1;
    char name[16];
    for (uint64_t now = 1; now < 20000; now++) {
        unsigned i = (seed = seed * 1103515245u + 12345u) >> 16 & 0x7fff;
        unsigned k = i % 200;
        snprintf(name, sizeof name, "%u", k);
        if (i % 3 == 0) {
            uint64_t ttl = 1 + i % 997;
            assert_int_equal(set(name, number(k), ttl, now), CLAW_STORE_OK);
            model[k] = now + ttl;
        } else if (i % 7 == 0) {
            assert_int_equal(claw_store_delete(s, key(name), now), model[k] > now ? CLAW_STORE_OK : CLAW_STORE_NOT);
            model[k] = 0;
        } else {
            assert_int_equal(there(name, now), model[k] > now);
        }
    }
}

/* ---- threads ------------------------------------------------------------------------------------------------ */

enum { THREADS = 4, ROUNDS = 20000 };
static _Atomic unsigned added;

static void *count(void *arg)
{
    struct claw_buf own;
    char name[16];
    claw_buf_init(&own, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        double n;
        struct claw_store_value v = number(0), next;
        snprintf(name, sizeof name, "n%u", i % 7);
        if (claw_store_incr(s, key(name), 1, 0, 1, &n) != CLAW_STORE_OK) abort();
        snprintf(name, sizeof name, "add%u", i);
        enum claw_store_result rc = claw_store_add(s, key(name), &v, 0, 1);
        if (rc == CLAW_STORE_OK) atomic_fetch_add(&added, 1);
        else if (rc != CLAW_STORE_NOT) abort();
        do { /* a sum by comparing */
            if (claw_store_get(s, key("sum"), 1, &own, &v) != CLAW_STORE_OK) abort();
            next = number(v.number + 1);
        } while ((rc = claw_store_cas(s, key("sum"), &v, &next, 0, 1)) == CLAW_STORE_NOT);
        if (rc != CLAW_STORE_OK) abort();
    }
    claw_buf_fini(&own);
    return NULL;
}

static void threads_lose_nothing(void **state)
{
    pthread_t t[THREADS];
    claw_store_set_cap(s, 64 << 20, 1);
    assert_int_equal(set("sum", number(0), 0, 1), CLAW_STORE_OK);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&t[i], NULL, count, NULL), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    double total = 0;
    char name[16];
    for (int i = 0; i < 7; i++) {
        snprintf(name, sizeof name, "n%d", i);
        total += number_at(name, 1);
    }
    assert_true(total == THREADS * ROUNDS);
    assert_true(number_at("sum", 1) == THREADS * ROUNDS);
    assert_int_equal(added, ROUNDS);
    assert_int_equal(claw_store_measure(s).evictions, 0);
}

static void *fill(void *arg)
{
    char name[32], value[3000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    for (unsigned i = 0; i < 5000; i++) {
        struct claw_store_value v = words(value + i % 2900);
        snprintf(name, sizeof name, "%p%u", arg, i % 1500);
        if (claw_store_set(s, key(name), &v, i % 3 ? 0 : 1 + i % 50, i) != CLAW_STORE_OK) abort();
        if (claw_store_measure(s).bytes > (1 << 20) + THREADS * 4096) abort(); /* room is asked for before it is made */
    }
    return NULL;
}

static void threads_keep_the_bound(void **state)
{
    pthread_t t[THREADS];
    for (intptr_t i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&t[i], NULL, fill, (void *)i), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    struct claw_store_stats m = claw_store_measure(s);
    assert_true(m.bytes <= 1 << 20 && m.entries > 0 && m.evictions > 0);
    claw_store_set_cap(s, 0, 5000);
    m = claw_store_measure(s);
    assert_true(m.bytes == 0 && m.entries == 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(values), TEST(spaces), TEST(too_large), TEST(ends), TEST(sums), TEST(comparing), TEST(bound), TEST(used_stays),
        TEST(expired_first), TEST(ends_against_a_model), TEST(threads_lose_nothing), TEST(threads_keep_the_bound),
    };
    return cmocka_run_group_tests_name("proxy/store", tests, NULL, NULL);
}
