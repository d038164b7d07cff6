#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CAP ((size_t)1 << 20)

static void test_alignment(void **state)
{
    struct claw_arena a;
    char *first = malloc(512);
    claw_arena_init(&a, first + 1, 400, CAP);
    char *last = NULL;
    for (size_t n = 0; n < 200; n++) {
        char *p = claw_arena_alloc(&a, n);
        assert_non_null(p);
        assert_ptr_not_equal(p, last);
        assert_int_equal((uintptr_t)p % 8, 0);
        memset(p, (int)n, n);
        last = p;
    }
    claw_arena_reset(&a);
    free(first);
}

static void test_apart(void **state)
{
    struct claw_arena a;
    unsigned char *p[500];
    char *first = malloc(1000);
    claw_arena_init(&a, first, 1000, CAP);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < 500; i++) {
            size_t n = i * 7 % 300;
            p[i] = claw_arena_alloc(&a, n);
            memset(p[i], (int)(i & 255), n);
        }
        for (size_t i = 0; i < 500; i++)
            for (size_t j = 0; j < i * 7 % 300; j++) assert_int_equal(p[i][j], i & 255);
        claw_arena_reset(&a);
        assert_null(a.blocks);
        assert_int_equal(a.used, 0);
    }
    free(first);
}

static void test_first_block(void **state)
{
    struct claw_arena a;
    char *first = malloc(256);
    claw_arena_init(&a, first, 256, CAP);
    char *p = claw_arena_alloc(&a, 256);
    assert_non_null(p);
#ifndef CLAW_ARENA_EMU
    assert_ptr_equal(p, first);
    assert_null(a.blocks);
#endif
    assert_non_null(claw_arena_alloc(&a, 1));
    assert_non_null(a.blocks);
    claw_arena_reset(&a);
    free(first);
}

static void test_cap(void **state)
{
    struct claw_arena a;
    claw_arena_init(&a, NULL, 0, 10000);
    assert_null(claw_arena_alloc(&a, 10001));
    assert_null(claw_arena_alloc(&a, SIZE_MAX));
    assert_null(claw_arena_alloc(&a, SIZE_MAX - 7));
    assert_null(claw_arena_zalloc(&a, SIZE_MAX / 2));
    assert_null(claw_arena_dup(&a, "x", SIZE_MAX));
    char *p = claw_arena_dup(&a, "kept", 4);
    assert_non_null(p);
    assert_null(claw_arena_grow(&a, p, 5, 20000));
    assert_string_equal(p, "kept");

    size_t got = 0;
    while (claw_arena_alloc(&a, 100)) got++;
    assert_in_range(got, 80, 100); /* most of the cap is usable, and none past it */
    assert_true(a.used <= 10000);
    while (claw_arena_alloc(&a, 8)) continue;
    assert_int_equal(claw_arena_defer(&a, free, NULL), CLAW_EREQ_MEM);
    claw_arena_reset(&a);
    assert_non_null(claw_arena_alloc(&a, 9000));
    claw_arena_reset(&a);

    char *first = malloc(4096);
    claw_arena_init(&a, first, 4096, 64); /* the cap binds inside the first block too */
    assert_non_null(claw_arena_alloc(&a, 40));
    assert_null(claw_arena_alloc(&a, 40));
    assert_non_null(claw_arena_alloc(&a, 24));
    assert_null(claw_arena_alloc(&a, 0));
    claw_arena_reset(&a);
    free(first);
}

static void test_zero_and_dup(void **state)
{
    struct claw_arena a;
    char *first = malloc(64);
    memset(first, 0x55, 64);
    claw_arena_init(&a, first, 64, CAP);
    for (size_t n = 1; n < 3000; n += 333) {
        char *z = claw_arena_zalloc(&a, n);
        for (size_t i = 0; i < n; i++) assert_int_equal(z[i], 0);
        memset(z, 0x55, n);
    }
    assert_memory_equal(claw_arena_dup(&a, "a\0b", 3), "a\0b\0", 4);
    assert_string_equal(claw_arena_dup(&a, NULL, 0), "");
    claw_arena_reset(&a);
    free(first);
}

static void test_grow(void **state)
{
    struct claw_arena a;
    claw_arena_init(&a, NULL, 0, CAP);
    char *p = claw_arena_grow(&a, NULL, 0, 3), *old;
    memcpy(p, "abc", 3);
    p = claw_arena_grow(&a, old = p, 3, 100);
    assert_memory_equal(p, "abc", 3);
#ifndef CLAW_ARENA_EMU
    assert_ptr_equal(p, old);
#endif
    char *other = claw_arena_dup(&a, "other", 5);
    memset(p, 'p', 100);
    char *q = claw_arena_grow(&a, p, 100, 200);
    assert_ptr_not_equal(q, p);
    assert_string_equal(other, "other");
    assert_int_equal(q[99], 'p');
    assert_int_equal(p[0], 'p'); /* the old one lives on */

    size_t n = 1;
    char *g = claw_arena_alloc(&a, n);
    g[0] = 1;
    for (; n < 100000; n *= 2) {
        g = claw_arena_grow(&a, g, n, n * 2);
        assert_non_null(g);
        memset(g + n, (int)(n & 0x7F), n);
        assert_int_equal(g[0], 1);
    }
    claw_arena_reset(&a);

    char *first = malloc(128);
    claw_arena_init(&a, first, 128, 64);
    p = claw_arena_dup(&a, "12345678901234567890123", 23);
    assert_null(claw_arena_grow(&a, p, 24, 96));
    assert_string_equal(p, "12345678901234567890123");
    claw_arena_reset(&a);
    free(first);
}

struct trace {
    struct claw_arena *a;
    char order[16];
    size_t n;
};
struct step {
    struct trace *t;
    char name;
    bool again;
};

static void on_step(void *arg)
{
    struct step *s = arg;
    s->t->order[s->t->n++] = s->name;
    if (s->again) {
        s->again = false;
        assert_int_equal(claw_arena_defer(s->t->a, on_step, s), 0);
    }
}

static void test_defer(void **state)
{
    struct claw_arena a;
    struct trace t = {.a = &a};
    claw_arena_init(&a, NULL, 0, CAP);
    for (char c = 'a'; c <= 'c'; c++) {
        struct step *s = claw_arena_zalloc(&a, sizeof *s); /* itself in the arena: must live at clean-up */
        *s = (struct step){&t, c, c == 'b'};
        assert_int_equal(claw_arena_defer(&a, on_step, s), 0);
    }
    claw_arena_reset(&a);
    assert_string_equal(t.order, "cbba");
    claw_arena_reset(&a);
    assert_int_equal(t.n, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alignment), cmocka_unit_test(test_apart),
        cmocka_unit_test(test_first_block), cmocka_unit_test(test_cap),
        cmocka_unit_test(test_zero_and_dup), cmocka_unit_test(test_grow),
        cmocka_unit_test(test_defer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
