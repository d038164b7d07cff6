#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void expect(struct claw_buf *b, const char *want)
{
    struct claw_str s = claw_buf_str(b);
    assert_int_equal(s.len, strlen(want));
    assert_memory_equal(s.ptr, want, s.len);
    claw_buf_clear(b);
}

static void test_str(void **state)
{
    struct claw_str none = {NULL, 0};
    assert_true(claw_str_eq(none, CLAW_STR("")));
    assert_true(claw_str_ieq(CLAW_STR("Content-Type"), CLAW_STR("cONTENT-tYPE")));
    assert_false(claw_str_ieq(CLAW_STR("a@"), CLAW_STR("a`"))); /* 0x40 and 0x60 are no letters */
    assert_false(claw_str_ieq(CLAW_STR("\xC4"), CLAW_STR("\xE4")));
    assert_true(claw_str_starts(CLAW_STR("abc"), CLAW_STR("ab")));
    assert_true(claw_str_starts(none, none));
    assert_false(claw_str_starts(CLAW_STR("a"), CLAW_STR("ab")));
    assert_int_equal(claw_str_find(CLAW_STR("a\0bc"), CLAW_STR("bc")), 2);
    assert_int_equal(claw_str_find(CLAW_STR("abc"), CLAW_STR("abcd")), -1);
    assert_int_equal(claw_str_find(none, none), 0);
    assert_true(claw_str_eqz(claw_str_trim(CLAW_STR(" \t a b\t ")), "a b"));
    assert_int_equal(claw_str_trim(CLAW_STR(" \t ")).len, 0);
    assert_true(claw_str_eqz(claw_str_trim(CLAW_STR("\r\nx")), "\r\nx"));
    assert_true(claw_str_hash(CLAW_STR("a"), 0) == UINT64_C(0xaf63dc4c8601ec8c)); /* FNV-1a's own vector */
    assert_true(claw_str_hash(CLAW_STR("a"), 7) != claw_str_hash(CLAW_STR("a"), 8));
}

/* Every place in texts of every length, behind decoys and without any. */
static void test_find(void **state)
{
    static const struct claw_str needle = {"\"usage", 6};
    char text[200];
    for (size_t n = 1; n <= sizeof text; n++) {
        for (int decoys = 0; decoys < 2; decoys++) {
            memset(text, '.', n);
            for (size_t i = 0; decoys && i + 2 <= n; i += 7) memcpy(text + i, "\"u", 2);
            char *s = malloc(n); /* of its own, so that a read past its end is seen */
            memcpy(s, text, n);
            assert_int_equal(claw_str_find((struct claw_str){s, n}, needle), -1);
            for (size_t at = 0; at + needle.len <= n; at++) {
                memcpy(s + at, needle.ptr, needle.len);
                assert_int_equal(claw_str_find((struct claw_str){s, n}, needle), at);
                memcpy(s + at, text + at, needle.len);
            }
            free(s);
        }
    }
}

/* The same in any case, and with what only looks like another case. */
static void test_ifind(void **state)
{
    static const struct claw_str needles[] = {{"\"u2ge{", 6}, {"a", 1}, {"@z", 2}, {"kelvin", 6}};
    static const char *const as[] = {"\"U2gE{", "A", "@Z", "KeLvIN"}, *const not[] = {"\"u2gE[", "\xC1", "`z", "kelvi\x0e"};
    char s[100];
    assert_int_equal(claw_str_ifind(CLAW_STR("x"), CLAW_STR("")), 0);
    for (unsigned k = 0; k < 4; k++) {
        for (size_t n = needles[k].len; n <= sizeof s; n++) {
            char *own = malloc(n);
            for (size_t at = 0; at + needles[k].len <= n; at++) {
                memset(own, '.', n);
                memcpy(own + at, not[k], needles[k].len);
                assert_int_equal(claw_str_ifind((struct claw_str){own, n}, needles[k]), -1);
                memcpy(own + at, as[k], needles[k].len);
                assert_int_equal(claw_str_ifind((struct claw_str){own, n}, needles[k]), at);
            }
            free(own);
        }
    }
    assert_int_equal(claw_str_ifind(CLAW_STR("ab"), CLAW_STR("abc")), -1);
}

static void test_u64(void **state)
{
    uint64_t n = 7;
    assert_int_equal(claw_str_u64(CLAW_STR("18446744073709551615"), UINT64_MAX, &n), 0);
    assert_true(n == UINT64_MAX);
    assert_int_equal(claw_str_u64(CLAW_STR("000"), 0, &n), 0);
    assert_true(n == 0);
    assert_int_equal(claw_str_u64(CLAW_STR("100"), 100, &n), 0);
    n = 7;
    static const struct {
        const char *text;
        uint64_t max;
    } bad[] = {{"18446744073709551616", UINT64_MAX}, {"99999999999999999999", UINT64_MAX}, {"101", 100}, {"1", 0},
               {"", 9},  {"+1", 9}, {"-1", 9}, {" 1", 9}, {"1 ", 9}, {"0x1", 99}, {"9", 8}, {"1/", 99}, {"1:", 99}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(claw_str_u64(claw_str_of(bad[i].text), bad[i].max, &n), CLAW_EINVAL);
    assert_true(n == 7);
    for (uint64_t max = 0; max < 130; max++)
        for (unsigned v = 0; v < 130; v++) {
            char text[8];
            snprintf(text, sizeof text, "%u", v);
            assert_int_equal(claw_str_u64(claw_str_of(text), max, &n) == 0, v <= max);
        }
}

static bool slow_glob(const char *p, const char *s)
{
    if (*p == '*') return slow_glob(p + 1, s) || (*s && slow_glob(p, s + 1));
    return *p ? *p == *s && slow_glob(p + 1, s + 1) : !*s;
}

static void test_glob(void **state)
{
    static const char letters[] = "ab*";
    char p[6], s[6];
    for (unsigned i = 0; i < 3 * 3 * 3 * 3 * 3; i++)
        for (unsigned pl = 0; pl <= 5; pl++) {
            for (unsigned k = 0, v = i; k < 5; k++, v /= 3) p[k] = letters[v % 3];
            p[pl] = 0;
            for (unsigned j = 0; j < 32; j++) {
                for (unsigned k = 0; k < 5; k++) s[k] = letters[j >> k & 1];
                s[i % 6] = 0;
                assert_int_equal(claw_str_glob(claw_str_of(p), claw_str_of(s)), slow_glob(p, s));
            }
        }
    assert_true(claw_str_glob(CLAW_STR("gpt-4*"), CLAW_STR("gpt-4o")));
    assert_false(claw_str_glob(CLAW_STR("gpt-4?"), CLAW_STR("gpt-4o")));
    assert_true(claw_str_glob(CLAW_STR("*"), (struct claw_str){NULL, 0}));

    char *text = malloc(20000); /* exponential in a naive matcher */
    memset(text, 'a', 20000);
    assert_false(claw_str_glob(CLAW_STR("*a*a*a*a*a*a*a*a*b"), (struct claw_str){text, 20000}));
    free(text);
}

static void test_cursors(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_str(&b).len, 0);
    assert_non_null(claw_buf_str(&b).ptr);
    assert_int_equal(claw_buf_add(&b, NULL, 0), 0);
    assert_null(b.data);
    unsigned next = 0, seen = 0, rnd = 1;
    for (int i = 0; i < 20000; i++) {
        rnd = rnd * 1103515245 + 12345;
        size_t n = rnd >> 16 & 63;
        for (size_t j = 0; j < n; j++) {
            char c = (char)next++;
            assert_int_equal(claw_buf_add(&b, &c, 1), 0);
        }
        n = (rnd >> 22 & 63);
        if (n > claw_buf_size(&b)) n = claw_buf_size(&b);
        for (size_t j = 0; j < n; j++) assert_int_equal((unsigned char)b.data[b.off + j], (unsigned char)seen++);
        claw_buf_take(&b, n);
        assert_true(b.off <= b.len && b.len <= b.cap);
    }
    claw_buf_take(&b, claw_buf_size(&b));
    assert_true(b.off == 0 && b.len == 0);
    claw_buf_fini(&b);
    assert_null(b.data);
}

static void test_bound(void **state)
{
    struct claw_buf b;
    char block[100] = {0};
    claw_buf_init(&b, 300);
    for (int i = 0; i < 3; i++) assert_int_equal(claw_buf_add(&b, block, 100), 0);
    assert_int_equal(claw_buf_add(&b, block, 1), CLAW_ENOMEM);
    assert_int_equal(claw_buf_size(&b), 300);
    claw_buf_take(&b, 1);
    assert_int_equal(claw_buf_add(&b, "x", 1), 0); /* the bound is on what waits */
    assert_int_equal(claw_buf_reserve(&b, SIZE_MAX), CLAW_ENOMEM);
    assert_int_equal(claw_buf_reserve(&b, SIZE_MAX - 299), CLAW_ENOMEM);
    for (int i = 0; i < 10000; i++) {
        claw_buf_take(&b, 100);
        assert_int_equal(claw_buf_add(&b, block, 100), 0);
    }
    assert_true(b.cap <= 1024);
    claw_buf_clear(&b);
    /* All or nothing, also where several pieces are added. */
    assert_int_equal(claw_buf_add(&b, block, 100), 0);
    memset(block, 1, sizeof block); /* 6 bytes each once escaped */
    assert_int_equal(claw_buf_add_json(&b, (struct claw_str){block, 100}), CLAW_ENOMEM);
    assert_int_equal(claw_buf_add_fmt(&b, "%500d", 1), CLAW_ENOMEM);
    assert_int_equal(claw_buf_size(&b), 100);
    claw_buf_fini(&b);
    assert_int_equal(b.max, 300);
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_reserve(&b, SIZE_MAX - 1), CLAW_ENOMEM);
    assert_int_equal(claw_buf_reserve(&b, 1), 0);
    assert_true(b.cap >= 1);
    claw_buf_fini(&b);
}

static void test_numbers(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    static const uint64_t n[] = {0, 9, 10, 12345678901234567890u, UINT64_MAX};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        char want[32];
        snprintf(want, sizeof want, "%llu", (unsigned long long)n[i]);
        assert_int_equal(claw_buf_add_u64(&b, n[i]), 0);
        expect(&b, want);
    }
    static const struct {
        int64_t n;
        const char *want;
    } micros[] = {{0, "0"}, {1, "0.000001"}, {1234567, "1.234567"}, {1000000, "1"}, {1500000, "1.5"},
                  {10, "0.00001"}, {-1, "-0.000001"}, {-2500000, "-2.5"}, {1000001, "1.000001"},
                  {INT64_MIN, "-9223372036854.775808"}, {INT64_MAX, "9223372036854.775807"}};
    for (size_t i = 0; i < sizeof micros / sizeof *micros; i++) {
        assert_int_equal(claw_buf_add_micros(&b, micros[i].n), 0);
        expect(&b, micros[i].want);
    }
    char want[1000];
    memset(want, ' ', sizeof want);
    for (int width = 250; width < 262; width++) {
        snprintf(want, sizeof want, "%*d", width, 7);
        assert_int_equal(claw_buf_add_fmt(&b, "%*d", width, 7), 0);
        expect(&b, want);
    }
    claw_buf_fini(&b);
}

static void json(struct claw_buf *b, const char *p, size_t n, const char *want)
{
    char *copy = malloc(n ? n : 1); /* exact, so that a read too far is seen */
    memcpy(copy, p, n);
    assert_int_equal(claw_buf_add_json(b, (struct claw_str){copy, n}), 0);
    expect(b, want);
    free(copy);
}

#define FFFD "\xEF\xBF\xBD"

static void test_json(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
#define JSON(in, want) json(&b, in, sizeof in - 1, want)
    JSON("", "\"\"");
    JSON("plain", "\"plain\"");
    JSON("a\"b\\c/\b\f\n\r\t", "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\"");
    JSON("\0\x1f\x7f", "\"\\u0000\\u001f\\u007f\"");
    JSON("\xC2\x80 \xE2\x82\xAC \xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF", "\"\xC2\x80 \xE2\x82\xAC \xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF\"");
    JSON("\xC0\x80", "\"" FFFD FFFD "\"");                 /* overlong */
    JSON("\xE0\x9F\xBF", "\"" FFFD FFFD FFFD "\"");        /* overlong */
    JSON("\xF0\x8F\xBF\xBF", "\"" FFFD FFFD FFFD FFFD "\"");
    JSON("\xED\xA0\x80", "\"" FFFD FFFD FFFD "\"");        /* surrogate */
    JSON("\xED\x9F\xBF", "\"\xED\x9F\xBF\"");
    JSON("\xF4\x90\x80\x80", "\"" FFFD FFFD FFFD FFFD "\""); /* past U+10FFFF */
    JSON("\xF5\xFF\xFE", "\"" FFFD FFFD FFFD "\"");
    JSON("x\xE2\x82", "\"x" FFFD FFFD "\"");               /* cut */
    JSON("x\xE2\"", "\"x" FFFD "\\\"\"");                  /* the quote is not swallowed */
#undef JSON
    /* Each special byte at each place of a run as long as a few words. */
    static const unsigned char odd[] = {0, 1, 0x1f, '"', '\\', 0x7f, 0x80, 0xff, ' ', '!', '#', '[', ']', '~', '^'};
    for (size_t n = 1; n < 35; n++)
        for (size_t at = 0; at < n; at++)
            for (size_t k = 0; k < sizeof odd; k++) {
                char in[40], want[64];
                memset(in, 'a' + (int)(k % 26), n);
                in[at] = (char)odd[k];
                unsigned char c = odd[k];
                char esc[8];
                if (c == '"' || c == '\\') snprintf(esc, sizeof esc, "\\%c", c);
                else if (c < 0x20 || c == 0x7f) snprintf(esc, sizeof esc, "\\u%04x", c);
                else if (c >= 0x80) snprintf(esc, sizeof esc, FFFD);
                else snprintf(esc, sizeof esc, "%c", c);
                snprintf(want, sizeof want, "\"%.*s%s%.*s\"", (int)at, in, esc, (int)(n - at - 1), in + at + 1);
                json(&b, in, n, want);
            }
    claw_buf_fini(&b);
}

static void test_file(void **state)
{
    char path[] = "buf_test_XXXXXX";
    int fd = mkstemp(path);
    char *block = malloc(50000);
    for (size_t i = 0; i < 50000; i++) block[i] = (char)(i * 7);
    assert_int_equal(write(fd, block, 50000), 50000);
    close(fd);
    struct claw_buf b;
    for (int slack = -1; slack <= 1; slack++) {
        claw_buf_init(&b, (size_t)(50003 + slack));
        assert_int_equal(claw_buf_add_z(&b, "abc"), 0);
        assert_int_equal(claw_buf_add_file(&b, path), slack < 0 ? CLAW_ENOMEM : 0);
        assert_int_equal(claw_buf_size(&b), slack < 0 ? 3 : 50003);
        if (slack >= 0) assert_memory_equal(b.data + 3, block, 50000);
        claw_buf_fini(&b);
    }
    unlink(path);
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_file(&b, path), CLAW_EIO);
    assert_int_equal(claw_buf_add_file(&b, "."), CLAW_EIO);
    assert_int_equal(claw_buf_size(&b), 0);
    claw_buf_fini(&b);
    free(block);
}

/* A pipe is read to its end, and not waited for when nobody writes. */
static void test_pipe(void **state)
{
    char dir[] = "buf_test_XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_file(&b, path), CLAW_EIO);
    assert_int_equal(errno, ETIMEDOUT);
    int in = open(path, O_RDONLY | O_NONBLOCK), out = open(path, O_WRONLY);
    assert_int_equal(write(out, "abc", 3), 3);
    assert_int_equal(claw_buf_add_fd(&b, in, 1), CLAW_EIO); /* its end is open */
    claw_buf_clear(&b);
    assert_int_equal(write(out, "def", 3), 3);
    close(out);
    assert_int_equal(claw_buf_add_fd(&b, in, -1), 0);
    assert_true(claw_str_eqz(claw_buf_str(&b), "def"));
    close(in);
    claw_buf_fini(&b);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_str),     cmocka_unit_test(test_find), cmocka_unit_test(test_ifind), cmocka_unit_test(test_u64),   cmocka_unit_test(test_glob),
        cmocka_unit_test(test_cursors), cmocka_unit_test(test_bound), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_json),    cmocka_unit_test(test_file), cmocka_unit_test(test_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
