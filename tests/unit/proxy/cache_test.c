/* cache: what is put is found until it ends, every byte of it, the bound is one of memory, and a scan does not wash out
 * what is asked for. */
#include "proxy/cache.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MB ((size_t)1 << 20)
#define FOREVER UINT64_MAX

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static struct claw_cache_key key(uint64_t n)
{
    struct claw_cache_key k;
    for (uint64_t i = 0; i < CLAW_CACHE_KEY / 8; i++) {
        uint64_t w = mix(n * 4 + i + 1);
        memcpy(k.bytes + 8 * i, &w, 8);
    }
    return k;
}

static char bytes[MB];

static bool put(struct claw_cache *c, uint64_t n, size_t size, uint64_t ends_ms, const char *client)
{
    struct claw_cache_key k = key(n);
    memcpy(bytes, &n, sizeof n);
    const struct claw_cache_answer a = {CLAW_STR("chat"), CLAW_STR("m"), claw_str_of(client), CLAW_STR("application/json"), CLAW_STR("seed"), {bytes, size}, false, 0, ends_ms};
    return claw_cache_put(c, &k, &a, claw_cache_purges(c));
}

static bool there(struct claw_cache *c, uint64_t n, uint64_t now_ms)
{
    static struct claw_buf got;
    struct claw_cache_key k = key(n);
    struct claw_cache_answer a;
    bool found = claw_cache_get(c, &k, now_ms, &a, &got);
    if (found) {
        assert_memory_equal(a.body.ptr, &n, sizeof n);
        assert_true(claw_str_eqz(a.route, "chat") && claw_str_eqz(a.model, "m") && claw_str_eqz(a.type, "application/json") && claw_str_eqz(a.dropped, "seed"));
    }
    claw_buf_fini(&got);
    return found;
}

static void what_is_put_is_found_until_it_ends(void **state)
{
    struct claw_cache *c = claw_cache_new(MB);
    assert_false(there(c, 1, 0));
    assert_true(put(c, 1, 100, 50, ""));
    assert_true(there(c, 1, 49));
    assert_false(there(c, 2, 49));
    assert_false(there(c, 1, 50));
    assert_int_equal(claw_cache_measure(c).entries, 0);
    assert_int_equal(claw_cache_measure(c).hits, 1);
    assert_int_equal(claw_cache_measure(c).misses, 3);
    claw_cache_free(c);
}

static void all_bytes_come_back(void **state)
{
    struct claw_cache *c = claw_cache_new(4 * MB);
    struct claw_buf got;
    struct claw_cache_answer a;
    claw_buf_init(&got, 0);
    for (size_t i = 0; i < MB; i++) bytes[i] = (char)mix(i);
    for (size_t size = 8; size < 100000; size = size * 5 / 4 + 1) {
        struct claw_cache_key k = key(size);
        assert_true(put(c, size, size, FOREVER, "somebody"));
        assert_true(claw_cache_get(c, &k, 0, &a, &got));
        assert_true(a.body.len == size && memcmp(a.body.ptr, bytes, size) == 0 && claw_str_eqz(a.client, "somebody") && a.ends_ms == FOREVER);
    }
    assert_true(put(c, 1, 100, FOREVER, "") && put(c, 1, 5000, FOREVER, "")); /* in its place */
    struct claw_cache_key k = key(1);
    assert_true(claw_cache_get(c, &k, 0, &a, &got) && a.body.len == 5000);
    claw_buf_fini(&got);
    claw_cache_free(c);
}

static size_t resident_kb(void)
{
    size_t size, resident;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%zu %zu", &size, &resident), 2);
    fclose(f);
    return resident * 4;
}

static void a_new_bound_keeps_what_fits(void **state)
{
    struct claw_cache *c = claw_cache_new(4 * MB);
    for (uint64_t n = 0; n < 1000; n++) assert_true(put(c, n, 1000, FOREVER, ""));
    for (uint64_t n = 0; n < 50; n++) assert_true(there(c, n, 0));
    claw_cache_set_cap(c, 16 * MB);
    for (uint64_t n = 0; n < 1000; n++) assert_true(there(c, n, 0));
    for (uint64_t n = 1000; n < 5000; n++) assert_true(put(c, n, 1000, FOREVER, ""));
    assert_true(claw_cache_measure(c).bytes > (int64_t)(6 * MB));
    claw_cache_set_cap(c, MB);
    struct claw_cache_stats s = claw_cache_measure(c);
    assert_true(s.cap == (int64_t)MB && s.bytes <= (int64_t)MB && s.bytes > (int64_t)MB / 2 && s.entries > 300);
    for (uint64_t n = 0; n < 200; n++) assert_true(put(c, n, 1000, FOREVER, ""));
    claw_cache_free(c);
}

static void what_was_begun_before_a_purge_is_not_kept(void **state)
{
    struct claw_cache *c = claw_cache_new(MB);
    uint64_t before = claw_cache_purges(c);
    struct claw_cache_key k = key(1);
    const struct claw_cache_answer a = {.body = {bytes, 100}, .ends_ms = FOREVER};
    assert_int_equal(claw_cache_purge(c, &(struct claw_cache_filter){.client = CLAW_STR("nobody")}), 0);
    assert_false(claw_cache_put(c, &k, &a, before));
    assert_int_equal(claw_cache_measure(c).entries, 0);
    assert_true(claw_cache_put(c, &k, &a, claw_cache_purges(c)));
    claw_cache_free(c);
}

static void purge_selects_by_client(void **state)
{
    struct claw_cache *c = claw_cache_new(4 * MB);
    for (uint64_t n = 0; n < 20; n++) assert_true(put(c, n, 100, FOREVER, n % 2 ? "ann" : "bob"));
    assert_int_equal(claw_cache_purge(c, &(struct claw_cache_filter){.client = CLAW_STR("ann")}), 10);
    assert_true(there(c, 0, 0));
    assert_false(there(c, 1, 0));
    assert_int_equal(claw_cache_purge(c, &(struct claw_cache_filter){.route = CLAW_STR("other")}), 0);
    claw_cache_free(c);
}

static void the_bound_holds_at_ten_times_as_much(void **state)
{
    size_t before = resident_kb();
    struct claw_cache *c = claw_cache_new(64 * MB);
    uint64_t seed = 1;
    size_t total = 0;
    for (uint64_t n = 0; total < 640 * MB; n++) {
        size_t size = 16 + (seed = mix(seed + n)) % (n % 50 ? 3000 : 100000);
        assert_true(put(c, n, size, FOREVER, ""));
        total += size;
        if (n % 64 == 0) assert_true(claw_cache_measure(c).bytes <= (int64_t)(64 * MB));
    }
    assert_true(claw_cache_measure(c).bytes >= (int64_t)(62 * MB));
    size_t grown = resident_kb() - before;
    print_message("resident: %zu KB of %zu KB\n", grown, 64 * MB / 1024);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    if (!getenv("CLAW_KIND")) assert_true(grown <= 64 * MB / 1024 * 102 / 100);
#endif
    claw_cache_free(c);
}

static void an_answer_larger_than_its_part_is_refused(void **state)
{
    struct claw_cache *c = claw_cache_new(MB);
    assert_false(put(c, 1, MB / CLAW_CACHE_PART, FOREVER, ""));
    assert_true(put(c, 1, MB / CLAW_CACHE_PART / 2, FOREVER, ""));
    claw_cache_free(c);
}

/* ---- hit ratio beside LRU's ---------------------------------------------------------------------------------------- */

#define KEYS 20000u
#define ASKED 400000u
#define SCANNED 1000000u /* keys of scans begin here */

static double sums[KEYS];

static void make_zipf(double skew)
{
    double sum = 0;
    for (unsigned i = 0; i < KEYS; i++) sums[i] = sum += 1 / pow(i + 1, skew);
    for (unsigned i = 0; i < KEYS; i++) sums[i] /= sum;
}

/* A quarter of the trace with scans is asked for once only. */
static uint64_t draw(uint64_t i, bool scans)
{
    if (scans && i % 4000 < 1000) return SCANNED + i;
    double u = (double)(mix(i + 99) >> 11) / 9007199254740992.0;
    unsigned low = 0, high = KEYS - 1;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (sums[mid] < u) low = mid + 1;
        else high = mid;
    }
    return low;
}

/* LRU of so many entries by stamps: the oldest use is searched for in a ring of uses. */
static double lru(unsigned room, bool scans)
{
    static uint32_t used[SCANNED + ASKED + 1];
    static uint32_t ring[ASKED + 1];
    unsigned n = 0, hits = 0, tail = 1;
    memset(used, 0, sizeof used);
    for (uint32_t i = 1; i <= ASKED; i++) {
        uint64_t k = draw(i, scans);
        if (used[k]) hits++;
        else n++;
        used[k] = i;
        ring[i] = (uint32_t)k;
        for (; n > room; tail++) {
            if (used[ring[tail]] != tail) continue;
            used[ring[tail]] = 0;
            n--;
        }
    }
    return (double)hits / ASKED;
}

static double ours(bool scans, unsigned *room)
{
    struct claw_cache *c = claw_cache_new(2 * MB);
    for (uint64_t i = 1; i <= ASKED; i++) {
        uint64_t k = draw(i, scans);
        if (!there(c, k, 0)) assert_true(put(c, k, 700, FOREVER, ""));
    }
    struct claw_cache_stats s = claw_cache_measure(c);
    *room = (unsigned)s.entries;
    claw_cache_free(c);
    return (double)s.hits / ASKED;
}

static void hit_ratio_is_not_below_lru(void **state)
{
    static const double skews[] = {0.9, 1.0};
    print_message("skew  scans  entries  S3-FIFO     LRU\n");
    for (unsigned i = 0; i < 4; i++) {
        bool scans = i % 2;
        unsigned room;
        make_zipf(skews[i / 2]);
        double mine = ours(scans, &room), theirs = lru(room, scans);
        print_message("%4.1f  %5s  %7u  %6.2f%%  %6.2f%%\n", skews[i / 2], scans ? "yes" : "no", room, 100 * mine, 100 * theirs);
        assert_true(mine >= theirs);
    }
}

/* ---- many threads ----------------------------------------------------------------------------------------------------- */

static void *ask_and_put(void *arg)
{
    struct claw_cache *c = arg;
    static _Atomic uint64_t threads;
    uint64_t seed = atomic_fetch_add(&threads, 1) * 1000003;
    struct claw_buf got;
    claw_buf_init(&got, 0);
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t n = mix(seed + i) % 3000;
        struct claw_cache_key k = key(n);
        struct claw_cache_answer found;
        if (claw_cache_get(c, &k, 0, &found, &got)) {
            assert_memory_equal(found.body.ptr, &n, sizeof n);
        } else {
            char body[900] = {0};
            memcpy(body, &n, sizeof n);
            const struct claw_cache_answer a = {.body = {body, sizeof body}, .ends_ms = FOREVER};
            uint64_t purges = claw_cache_purges(c);
            if (!claw_cache_put(c, &k, &a, purges)) assert_true(claw_cache_purges(c) != purges);
        }
        if (i % 5000 == 0) claw_cache_purge(c, &(struct claw_cache_filter){.client = CLAW_STR("nobody")});
    }
    claw_buf_fini(&got);
    return NULL;
}

static void threads_find_only_what_belongs_to_the_key(void **state)
{
    struct claw_cache *c = claw_cache_new(MB);
    pthread_t t[4];
    for (unsigned i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, ask_and_put, c), 0);
    for (unsigned i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_true(claw_cache_measure(c).bytes <= (int64_t)MB);
    assert_true(claw_cache_measure(c).evictions > 0);
    claw_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_found_until_it_ends),
        cmocka_unit_test(all_bytes_come_back),
        cmocka_unit_test(a_new_bound_keeps_what_fits),
        cmocka_unit_test(what_was_begun_before_a_purge_is_not_kept),
        cmocka_unit_test(purge_selects_by_client),
        cmocka_unit_test(the_bound_holds_at_ten_times_as_much),
        cmocka_unit_test(an_answer_larger_than_its_part_is_refused),
        cmocka_unit_test(hit_ratio_is_not_below_lru),
        cmocka_unit_test(threads_find_only_what_belongs_to_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
