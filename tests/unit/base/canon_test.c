/* canon: texts that say the same have one number, others another; SipHash's own vectors are not reachable under a drawn key,
 * so what is tested is what it is for. */
#include "base/canon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct number { unsigned char bytes[CLAW_CANON_BYTES]; };

static struct number of(const char *json, size_t len)
{
    static const struct claw_str skip[] = {{"user", 4}, {"stream", 6}};
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_canon c;
    struct number n;
    claw_arena_init(&a, NULL, 0, 64u << 20);
    assert_int_equal(claw_json_scan((struct claw_str){json, len}, &a, &top, &err), 0);
    claw_canon_begin(&c);
    assert_int_equal(claw_canon_add_json(&c, (struct claw_str){json, len}, top.nodes, skip, 2, &a), 0);
    claw_canon_end(&c, n.bytes);
    claw_arena_reset(&a);
    return n;
}

static bool same(const char *x, const char *y)
{
    struct number a = of(x, strlen(x)), b = of(y, strlen(y));
    return memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0;
}

static void what_says_the_same_is_the_same(void **state)
{
    static const char *const pairs[][2] = {
        {"{}", " { } "},
        {"[]", "\n[\t]\r\n"},
        {"{\"a\":1,\"b\":[true,null]}", "{ \"b\" : [ true , null ] , \"a\" : 1 }"},
        {"{\"a\":{\"x\":1,\"y\":{\"p\":1,\"q\":2}}}", "{\"a\":{\"y\":{\"q\":2,\"p\":1},\"x\":1}}"},
        {"{\"c\":1,\"a\":2,\"b\":3,\"e\":4,\"d\":5}", "{\"e\":4,\"d\":5,\"c\":1,\"b\":3,\"a\":2}"},
        {"\"\\u0041\\n\\/\\u00e9\"", "\"A\\u000a/\xC3\xA9\""},
        {"\"\\ud83d\\ude00\"", "\"\xF0\x9F\x98\x80\""},
        {"{\"\\u0061\":1}", "{\"a\":1}"},
        {"0", "0.0"}, {"-0", "0"}, {"1e2", "100"}, {"0.70", "7e-1"}, {"1.0", "1"},
        {"{\"a\":1,\"user\":\"x\",\"stream\":true}", "{\"a\":1}"},
        {"{\"user\":[{\"a\":[]}],\"a\":1}", "{\"a\":1,\"\\u0075ser\":null}"},
        {"{\"user\":1}", "{}"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (!same(pairs[i][0], pairs[i][1])) fail_msg("%s and %s", pairs[i][0], pairs[i][1]);
}

static void what_does_not_is_not(void **state)
{
    static const char *const texts[] = {
        "{}", "[]", "\"\"", "null", "true", "false", "0", "1", "\"0\"", "\"null\"", "[[]]", "[[],[]]", "[[[]]]", "[{}]", "[{},[]]", "[[],{}]",
        "{\"a\":1}", "{\"a\":\"1\"}", "{\"b\":1}", "[\"a\",1]", "{\"a\":{}}", "{\"a\":[]}", "{\"a\":{\"b\":1}}", "{\"a\":{},\"b\":1}",
        "[1,2]", "[2,1]", "[12]", "[\"ab\",\"c\"]", "[\"a\",\"bc\"]", "[\"abc\"]", "{\"a\":1,\"a\":2}", "{\"a\":2,\"a\":1}", "{\"a\":2}",
        "{\"a\":{\"user\":1}}", "{\"a\":{\"user\":2}}", "[{\"user\":1}]", "[{\"user\":2}]",
        "12345678901234567890", "12345678901234567891", "0.1234567890123456789", "0.1234567890123456788", "1e400", "2e400", "1e-400", "2e-400",
        "\"\\ud800\"", "\"\\ud801\"", "\"\xEF\xBF\xBD\"", "\"\\u0000\"", "\"\\u0000\\u0000\"", "{\"\":1}", "{\"\":2}",
    };
    size_t n = sizeof texts / sizeof *texts;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (same(texts[i], texts[k])) fail_msg("%s and %s", texts[i], texts[k]);
}

static void pieces_are_told_apart(void **state)
{
    unsigned char seen[64][CLAW_CANON_BYTES];
    static const char bytes[64] = "0123456789abcdef";
    for (size_t i = 0; i < 64; i++) { /* every way to cut across words */
        struct claw_canon c;
        claw_canon_begin(&c);
        claw_canon_add(&c, (struct claw_str){bytes, i});
        claw_canon_add(&c, (struct claw_str){bytes + i, 64 - i});
        claw_canon_end(&c, seen[i]);
        for (size_t k = 0; k < i; k++) assert_memory_not_equal(seen[i], seen[k], CLAW_CANON_BYTES);
    }
}

/* Random values, written twice with their members in another order. */
static uint64_t state_of_luck;
static unsigned luck(unsigned n)
{
    state_of_luck = state_of_luck * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state_of_luck >> 33) % n;
}

static void write_value(struct claw_buf *b, unsigned seed, unsigned depth, bool turned)
{
    unsigned kind = seed % 7, n = seed / 7 % 5;
    if (depth == 0 || kind < 3) {
        assert_int_equal(claw_buf_add_fmt(b, kind == 0 ? "%u" : kind == 1 ? "\"s%u\"" : "[%u]", seed % 1000), 0);
        return;
    }
    bool object = kind > 3;
    assert_int_equal(claw_buf_add_z(b, object ? "{" : "["), 0);
    for (unsigned i = 0; i < n; i++) {
        unsigned k = object && turned ? n - 1 - i : i;
        if (i) assert_int_equal(claw_buf_add_z(b, turned ? " , " : ","), 0);
        if (object) assert_int_equal(claw_buf_add_fmt(b, "\"k%u\":", k * 7919 % 13), 0);
        write_value(b, seed * 31 + k * 17 + 1, depth - 1, turned);
    }
    assert_int_equal(claw_buf_add_z(b, object ? "}" : "]"), 0);
}

static void order_never_matters_at_any_depth(void **state)
{
    for (int i = 0; i < 2000; i++) {
        struct claw_buf x, y;
        claw_buf_init(&x, 0);
        claw_buf_init(&y, 0);
        unsigned seed = luck(1u << 30);
        write_value(&x, seed, 6, false);
        write_value(&y, seed, 6, true);
        struct number a = of(claw_buf_str(&x).ptr, claw_buf_size(&x)), b = of(claw_buf_str(&y).ptr, claw_buf_size(&y));
        assert_memory_equal(a.bytes, b.bytes, sizeof a.bytes);
        claw_buf_fini(&x);
        claw_buf_fini(&y);
    }
}

/* As deep and as wide as may be, in the worst order: each value is read, compared and counted a few times at most. */
static void depth_times_size_costs_nothing(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    for (int i = 0; i < 511; i++) assert_int_equal(claw_buf_add_z(&b, "{\"z\":"), 0);
    assert_int_equal(claw_buf_add_z(&b, "["), 0);
    for (int i = 0; i < 100000; i++) assert_int_equal(claw_buf_add_z(&b, i ? ",1" : "1"), 0);
    assert_int_equal(claw_buf_add_z(&b, "]"), 0);
    for (int i = 0; i < 511; i++) assert_int_equal(claw_buf_add_z(&b, ",\"a\":0}"), 0);
    of(claw_buf_str(&b).ptr, claw_buf_size(&b));
    claw_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_says_the_same_is_the_same),
        cmocka_unit_test(what_does_not_is_not),
        cmocka_unit_test(pieces_are_told_apart),
        cmocka_unit_test(order_never_matters_at_any_depth),
        cmocka_unit_test(depth_times_size_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
