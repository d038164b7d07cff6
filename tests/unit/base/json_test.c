/* json: the scan, walking slices, text and numbers. */
#include "base/json.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct claw_arena arena;

static int setup(void **state)
{
    claw_arena_init(&arena, NULL, 0, (size_t)256 << 20);
    return 0;
}

static int teardown(void **state)
{
    claw_arena_reset(&arena);
    return 0;
}

/* Scan a copy of exactly that size, so that a memory checker sees a read past the end. */
static int scan_exact(struct claw_str text, struct claw_json_top *top, struct claw_json_err *err)
{
    char *p = malloc(text.len ? text.len : 1);
    assert_non_null(p);
    if (text.len) memcpy(p, text.ptr, text.len);
    int rc = claw_json_scan((struct claw_str){p, text.len}, &arena, top, err);
    free(p);
    return rc;
}

#define T(s) {s, sizeof(s) - 1}

static const struct claw_str good[] = {
    T("null"), T("true"), T("false"), T("0"), T("-0"), T("-0.0"), T("1"), T("10"), T("-12"), T("1.5"), T("0.1"),
    T("1e5"), T("1E5"), T("1e+5"), T("1e-5"), T("0e0"), T("1.25e10"), T("1e400"), T("123456789012345678901234567890"),
    T("\"\""), T("\"a\""), T("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), T("\"\\u0000\""), T("\"\\ud83d\\ude00\""), T("\"\\uD800\""),
    T("\"\\uDC00\\uD800\""), T("\"\\uabCD\""), T("\"\x7f\""), T("\"\xc2\x80\""), T("\"\xdf\xbf\""), T("\"\xe0\xa0\x80\""),
    T("\"\xed\x9f\xbf\""), T("\"\xee\x80\x80\""), T("\"\xef\xbf\xbf\""), T("\"\xf0\x90\x80\x80\""),
    T("\"\xf4\x8f\xbf\xbf\""), T("\"\xe2\x80\xa8\xe2\x80\xa9\""), T("\"\xef\xbb\xbf\""), T("[]"), T("{}"), T(" [ ] "), T("\t{\r\n} "),
    T("[1]"), T("[1,2]"), T("[ 1 , 2 ]"), T("[[],[[]],{}]"), T("{\"a\":1}"), T("{\"a\" : 1 , \"b\" : [ ] }"),
    T("{\"a\":{\"a\":{}},\"a\":0}"), T("{\"\":0}"), T("{\"\\u0000\":0}"), T("[{\"model\":1,\"model\":2}]"),
    T("{\"x\":{\"model\":1,\"model\":2}}"), T("[null,true,false,0,\"\",[],{}]"), T("{\"Model\":1,\"model\":2}"),
    T("{\"model\":1,\"modell\":2,\"mode\":3,\"streams\":4,\"stream\":5}"), T("\"0123456789abcdef0123456789abcdef\xc3\xa9\""),
};

/* offset: where the fault must be found. */
static const struct {
    struct claw_str text;
    size_t offset;
    const char *why;
} bad[] = {
    {T(""), 0, "empty text"}, {T(" \n"), 2, "empty text"}, {T("\xef\xbb\xbf{}"), 0, "byte order mark"},
    {T("nul"), 3, "unexpected end of text"}, {T("nulL"), 3, "unexpected character"}, {T("True"), 0, "unexpected character"},
    {T("truex"), 4, "more text after the value"}, {T("NaN"), 0, "unexpected character"}, {T("Infinity"), 0, "unexpected character"},
    {T("-Infinity"), 1, "unexpected character"}, {T("+1"), 0, "unexpected character"}, {T("-"), 1, "unexpected end of text"},
    {T("01"), 1, "more text after the value"}, {T("-01"), 2, "more text after the value"}, {T("1."), 2, "unexpected end of text"},
    {T(".5"), 0, "unexpected character"}, {T("1.e5"), 2, "unexpected character"}, {T("1e"), 2, "unexpected end of text"},
    {T("1e+"), 3, "unexpected end of text"}, {T("1e1.5"), 3, "more text after the value"}, {T("0x10"), 1, "more text after the value"},
    {T("1_000"), 1, "more text after the value"}, {T("- 1"), 1, "unexpected character"}, {T("[1 2]"), 3, "unexpected character"},
    {T("\""), 1, "unexpected end of text"}, {T("\"abc"), 4, "unexpected end of text"}, {T("\"\\"), 2, "unexpected end of text"},
    {T("\"\\\""), 3, "unexpected end of text"}, {T("\"\\x41\""), 1, "bad escape"}, {T("\"\\a\""), 1, "bad escape"},
    {T("\"\\'\""), 1, "bad escape"}, {T("\"\\U0041\""), 1, "bad escape"}, {T("\"\\u12\""), 1, "bad escape"},
    {T("\"\\u123g\""), 1, "bad escape"}, {T("\"\\u12"), 5, "unexpected end of text"}, {T("'a'"), 0, "unexpected character"},
    {T("\"a\nb\""), 2, "control character in a string"}, {T("\"a\tb\""), 2, "control character in a string"},
    {T("\"a\0b\""), 2, "control character in a string"}, {T("\"\x1f\""), 1, "control character in a string"},
    {T("\"\x80\""), 1, "not valid UTF-8"}, {T("\"\xbf\""), 1, "not valid UTF-8"}, {T("\"\xc0\x80\""), 1, "not valid UTF-8"},
    {T("\"\xc1\xbf\""), 1, "not valid UTF-8"}, {T("\"\xc3\""), 1, "not valid UTF-8"}, {T("\"\xe0\x80\x80\""), 1, "not valid UTF-8"},
    {T("\"\xe0\x9f\xbf\""), 1, "not valid UTF-8"}, {T("\"\xed\xa0\x80\""), 1, "not valid UTF-8"},
    {T("\"\xed\xbf\xbf\""), 1, "not valid UTF-8"}, {T("\"\xe2\x82\""), 1, "not valid UTF-8"},
    {T("\"\xf0\x80\x80\x80\""), 1, "not valid UTF-8"}, {T("\"\xf0\x8f\xbf\xbf\""), 1, "not valid UTF-8"},
    {T("\"\xf4\x90\x80\x80\""), 1, "not valid UTF-8"}, {T("\"\xf5\x80\x80\x80\""), 1, "not valid UTF-8"},
    {T("\"\xff\""), 1, "not valid UTF-8"}, {T("\"\xf0\x9f\x98\""), 1, "not valid UTF-8"}, {T("\"\xc3\xa9\xe9\""), 3, "not valid UTF-8"},
    {T("\"\xe2"), 1, "not valid UTF-8"}, {T("\xc3\xa9"), 0, "unexpected character"}, {T("[\xff]"), 1, "unexpected character"},
    {T("["), 1, "unexpected end of text"}, {T("[1"), 2, "unexpected end of text"}, {T("[1,"), 3, "unexpected end of text"},
    {T("[1,]"), 3, "unexpected character"}, {T("[,1]"), 1, "unexpected character"}, {T("[1,,2]"), 3, "unexpected character"},
    {T("]"), 0, "unexpected character"}, {T("[1}"), 2, "unexpected character"}, {T("[]]"), 2, "more text after the value"},
    {T("{"), 1, "unexpected end of text"}, {T("{\"a\""), 4, "unexpected end of text"}, {T("{\"a\":"), 5, "unexpected end of text"},
    {T("{\"a\":1"), 6, "unexpected end of text"}, {T("{\"a\":1,"), 7, "unexpected end of text"},
    {T("{\"a\":1,}"), 7, "unexpected character"}, {T("{a:1}"), 1, "unexpected character"}, {T("{1:1}"), 1, "unexpected character"},
    {T("{\"a\" 1}"), 5, "unexpected character"}, {T("{\"a\"::1}"), 5, "unexpected character"}, {T("{,}"), 1, "unexpected character"},
    {T("{\"a\":1]"), 6, "unexpected character"}, {T("{\"a\":1 \"b\":2}"), 7, "unexpected character"},
    {T("{} {}"), 3, "more text after the value"}, {T("1 2"), 2, "more text after the value"}, {T("{}\0"), 2, "more text after the value"},
    {T("[1]//x"), 3, "more text after the value"}, {T("/**/1"), 0, "unexpected character"}, {T("[1\v]"), 2, "unexpected character"},
    {T("[1\f]"), 2, "unexpected character"}, {T("[\xc2\xa0]"), 1, "unexpected character"}, {T("{\"\\ux\":1}"), 2, "bad escape"},
    {T("{\"model\":1,\"model\":2}"), 11, "duplicate key \"model\""},
    {T("{\"stream\":1,\"a\":{},\"stream\":2}"), 19, "duplicate key \"stream\""},
    {T("{\"model\":1,\"mod\\u0065l\":2}"), 11, "duplicate key \"model\""},
    {T("{\"\\u006dodel\":1, \"\\u006Dodel\":2}"), 17, "duplicate key \"model\""},
    {T("{\"s\\u0074ream\":1,\"stream\":2}"), 17, "duplicate key \"stream\""},
};

static void accepts(void **state)
{
    struct claw_json_top top;
    struct claw_json_err err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int rc = scan_exact(good[i], &top, &err);
        if (rc) print_error("%.*s: %s at %zu\n", CLAW_STR_FMT(good[i]), err.text, err.offset);
        assert_int_equal(rc, 0);
    }
}

static void refuses(void **state)
{
    struct claw_json_top top;
    struct claw_json_err err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int rc = scan_exact(bad[i].text, &top, &err);
        if (rc != CLAW_EBAD_JSON || err.offset != bad[i].offset || strcmp(err.text, bad[i].why))
            print_error("case %zu: %.*s: %d %s at %zu\n", i, CLAW_STR_FMT(bad[i].text), rc, err.text, err.offset);
        assert_int_equal(rc, CLAW_EBAD_JSON);
        assert_int_equal(err.offset, bad[i].offset);
        assert_string_equal(err.text, bad[i].why);
        assert_int_equal(top.n, 0);
    }
    assert_int_equal(claw_json_scan((struct claw_str){NULL, 0}, &arena, &top, NULL), CLAW_EBAD_JSON);
}

/* Every fault at every place of a string and at every distance from its end: all paths of the vector code. */
static void strings_at_every_offset(void **state)
{
    static const struct {
        struct claw_str s;
        bool ok;
    } in[] = {{T("\xc3\xa9"), true},  {T("\xf0\x9f\x98\x80\xe6\x96\xb0"), true}, {T("\\n"), true},   {T("\\u00e9\\\""), true},
              {T("\\\\"), true},      {T("\n"), false},        {T("\xc3"), false},   {T("\\x"), false},
              {T("\xed\xa0\x80"), false}, {T("\""), false},    {T("\x80"), false},   {T("\\u00g0"), false}};
    char text[512];
    struct claw_json_top top;
    struct claw_json_err err;
    for (size_t k = 0; k < sizeof in / sizeof *in; k++)
        for (size_t before = 0; before < 200; before += before < 70 ? 1 : 13)
            for (size_t after = 0; after < 200; after += after < 40 ? 1 : 31) {
                size_t n = 0;
                text[n++] = '"';
                memset(text + n, 'x', before);
                n += before;
                memcpy(text + n, in[k].s.ptr, in[k].s.len);
                n += in[k].s.len;
                memset(text + n, 'y', after);
                n += after;
                text[n++] = '"';
                int rc = scan_exact((struct claw_str){text, n}, &top, &err);
                assert_int_equal(rc, in[k].ok ? 0 : CLAW_EBAD_JSON);
                if (rc && in[k].s.ptr[0] != '"') assert_int_equal(err.offset, before + 1);
            }
}

/* Long enough, and followed by enough, for the steps of 64 bytes: every place of a step, and over its edges. */
static void long_strings_at_every_offset(void **state)
{
    static const struct {
        struct claw_str s;
        int fault; /* its place in s; -1: none */
        const char *why;
    } in[] = {
        {T("\\\"\\\\\\/\\b\\f\\n\\r\\t"), -1, ""}, {T("\\u00e9\\uABcd\\u09aF"), -1, ""}, {T("\xc2\x80\xdf\xbf"), -1, ""},
        {T("\xe0\xa0\x80\xed\x9f\xbf"), -1, ""}, {T("\xee\x80\x80\xef\xbf\xbf"), -1, ""}, {T("\xf0\x90\x80\x80"), -1, ""},
        {T("\xf4\x8f\xbf\xbf"), -1, ""}, {T("\x7f\\\\\xc3\xa9\\n"), -1, ""}, {T("\\x"), 0, "bad escape"},
        {T("\\U0041"), 0, "bad escape"}, {T("\\\xc3\xa9"), 0, "bad escape"}, {T("\\u123g"), 0, "bad escape"},
        {T("\\u/123"), 0, "bad escape"}, {T("\\u12:4"), 0, "bad escape"}, {T("\\u@123"), 0, "bad escape"},
        {T("\\u1`23"), 0, "bad escape"}, {T("\\u12G3"), 0, "bad escape"}, {T("\\u\x80\x81\x82\x83"), 0, "bad escape"},
        {T("\\\\\\u"), 2, "bad escape"}, {T("\\u00e9\\u12"), 6, "bad escape"}, {T("\\n\\1"), 2, "bad escape"},
        {T("\x1f"), 0, "control character in a string"}, {T("\\\\\n"), 2, "control character in a string"},
        {T("\xc3\xa9\0"), 2, "control character in a string"}, {T("\xc3"), 0, "not valid UTF-8"},
        {T("\x80"), 0, "not valid UTF-8"}, {T("\xc0\xaf"), 0, "not valid UTF-8"}, {T("\xc1\xbf"), 0, "not valid UTF-8"},
        {T("\xe0\x9f\xbf"), 0, "not valid UTF-8"}, {T("\xed\xa0\x80"), 0, "not valid UTF-8"},
        {T("\xf0\x8f\xbf\xbf"), 0, "not valid UTF-8"}, {T("\xf4\x90\x80\x80"), 0, "not valid UTF-8"},
        {T("\xf5\x80\x80\x80"), 0, "not valid UTF-8"}, {T("\xff"), 0, "not valid UTF-8"}, {T("\xe2\x82"), 0, "not valid UTF-8"},
        {T("\xf0\x9f\x98"), 0, "not valid UTF-8"}, {T("\xf0\x9f\\n"), 0, "not valid UTF-8"},
        {T("\xc3\xa9\xa9"), 2, "not valid UTF-8"}, {T("\xe2\xe2\x82\xac"), 0, "not valid UTF-8"},
        {T("\xc3\xa9\x1f\\x"), 2, "control character in a string"}, {T("\\x\x80\x1f"), 0, "bad escape"},
    };
    static const size_t afters[] = {0, 1, 5, 40, 63, 64, 200};
    static const char follows[] = "\",\n\"\\u00e9\xc3\xa9\"\t]\n"; /* a new line behind the string is none in it */
    char text[2048];
    struct claw_json_top top;
    struct claw_json_err err;
    for (size_t k = 0; k < sizeof in / sizeof *in; k++)
        for (size_t before = 560; before < 560 + 2 * 64 + 8; before++)
            for (size_t i = 0; i < sizeof afters / sizeof *afters; i++) {
                struct claw_str parts[] = {CLAW_STR("[\""), {NULL, before}, in[k].s, {NULL, afters[i]}, CLAW_STR(follows)};
                size_t n = 0;
                for (size_t j = 0; j < 5; n += parts[j++].len)
                    if (parts[j].ptr) memcpy(text + n, parts[j].ptr, parts[j].len);
                    else memset(text + n, 'x', parts[j].len);
                int rc = scan_exact((struct claw_str){text, n}, &top, &err);
                if ((rc != 0) != (in[k].fault >= 0)) print_error("case %zu, before %zu, after %zu\n", k, before, afters[i]);
                assert_int_equal(rc, in[k].fault < 0 ? 0 : CLAW_EBAD_JSON);
                if (!rc) continue;
                assert_int_equal(err.offset, 2 + before + (size_t)in[k].fault);
                assert_string_equal(err.text, in[k].why);
            }
}

static void backslashes_in_a_row(void **state)
{
    char text[1024];
    struct claw_json_top top;
    struct claw_json_err err;
    for (size_t before = 560; before < 560 + 64; before++)
        for (size_t run = 0; run < 2 * 64 + 8; run++) {
            size_t n = 1 + before + run;
            memset(text, 'x', sizeof text);
            text[0] = '"';
            memset(text + 1 + before, '\\', run);
            text[n++] = '"';
            bool ended = run % 2 == 0; /* then the quote is not escaped */
            assert_int_equal(scan_exact((struct claw_str){text, n}, &top, &err), ended ? 0 : CLAW_EBAD_JSON);
            if (!ended) assert_int_equal(err.offset, n);
            text[n + 100] = '"';
            assert_int_equal(scan_exact((struct claw_str){text, n + 101}, &top, &err), ended ? CLAW_EBAD_JSON : 0);
            if (ended) assert_int_equal(err.offset, n);
        }
}

static void every_byte_after_a_backslash(void **state)
{
    char text[1300];
    struct claw_json_top top;
    struct claw_json_err err;
    for (size_t at = 600; at < 600 + 64; at++)
        for (unsigned c = 0; c < 256; c++) {
            memset(text, '0', sizeof text); /* digits, for the u */
            text[0] = text[sizeof text - 1] = '"';
            text[at] = '\\';
            text[at + 1] = (char)c;
            bool ok = c && strchr("\"\\/bfnrtu", (int)c);
            assert_int_equal(scan_exact((struct claw_str){text, sizeof text}, &top, &err), ok ? 0 : CLAW_EBAD_JSON);
            if (!ok) assert_int_equal(err.offset, at);
            text[at + 1] = 'u';
            text[at + 2 + at % 4] = (char)c;
            ok = c && strchr("0123456789abcdefABCDEF", (int)c);
            assert_int_equal(scan_exact((struct claw_str){text, sizeof text}, &top, &err), ok ? 0 : CLAW_EBAD_JSON);
            if (!ok) assert_int_equal(err.offset, at);
        }
}

/* A long string that the text's end cuts: the end is the fault, or the character that it cuts. */
static void long_strings_cut(void **state)
{
    static const char *const fill[] = {"\\\\\\n\\u20ac", "\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xa9", "a\\\"\xe6\x96\xb0 \\u0041 "};
    char text[1024];
    struct claw_json_top top;
    struct claw_json_err err;
    for (size_t k = 0; k < 3; k++)
        for (size_t shift = 0; shift < 7; shift++) {
            size_t unit = strlen(fill[k]), n = 1 + shift;
            memset(text, 'x', n);
            text[0] = '"';
            for (; n + unit < sizeof text; n += unit) memcpy(text + n, fill[k], unit);
            for (; n > 600; n--) {
                size_t first = n - 1; /* of the last character */
                while ((text[first] & 0xc0) == 0x80) first--;
                unsigned char c = (unsigned char)text[first];
                bool cut = n - first < (c < 0x80 ? 1u : c < 0xe0 ? 2u : c < 0xf0 ? 3u : 4u);
                assert_int_equal(scan_exact((struct claw_str){text, n}, &top, &err), CLAW_EBAD_JSON);
                assert_int_equal(err.offset, cut ? first : n);
                assert_string_equal(err.text, cut ? "not valid UTF-8" : "unexpected end of text");
            }
        }
}

static void faults_have_line_and_column(void **state)
{
    struct claw_json_top top;
    struct claw_json_err err;
    assert_int_equal(claw_json_scan(CLAW_STR("{\n  \"a\": 1,\r\n  \"b\": x\n}"), &arena, &top, &err), CLAW_EBAD_JSON);
    assert_int_equal(err.offset, 20);
    assert_int_equal(err.line, 3);
    assert_int_equal(err.column, 8);
    assert_int_equal(claw_json_scan(CLAW_STR("x"), &arena, &top, &err), CLAW_EBAD_JSON);
    assert_int_equal(err.line, 1);
    assert_int_equal(err.column, 1);
    assert_int_equal(claw_json_scan(CLAW_STR("[\n"), &arena, &top, &err), CLAW_EBAD_JSON);
    assert_int_equal(err.line, 2);
    assert_int_equal(err.column, 1);
}

static int scan_nested(size_t depth, bool objects, struct claw_json_err *err)
{
    struct claw_buf b;
    struct claw_json_top top;
    claw_buf_init(&b, 0);
    for (size_t i = 0; i < depth; i++) assert_int_equal(claw_buf_add_z(&b, objects ? i + 1 < depth ? "{\"k\":" : "{" : "["), 0);
    for (size_t i = 0; i < depth; i++) assert_int_equal(claw_buf_add_z(&b, objects ? "}" : "]"), 0);
    int rc = claw_json_scan(claw_buf_str(&b), &arena, &top, err);
    claw_buf_fini(&b);
    return rc;
}

static void depth_is_bounded(void **state)
{
    struct claw_json_err err;
    for (int objects = 0; objects < 2; objects++) {
        for (size_t d = 60; d < 70; d++) assert_int_equal(scan_nested(d, objects, &err), 0);
        assert_int_equal(scan_nested(CLAW_JSON_DEPTH, objects, &err), 0);
        assert_int_equal(scan_nested(CLAW_JSON_DEPTH + 1, objects, &err), CLAW_EBAD_JSON);
        assert_string_equal(err.text, "nested too deeply");
        assert_int_equal(err.offset, CLAW_JSON_DEPTH * (objects ? 5 : 1));
        assert_int_equal(scan_nested(100000, objects, &err), CLAW_EBAD_JSON);
    }
    /* Kinds are told apart at every depth. */
    struct claw_json_top top;
    char text[2 * 200];
    for (size_t i = 0; i < 200; i++) {
        text[i] = '[';
        text[399 - i] = ']';
    }
    for (size_t i = 200; i < 400; i++) {
        text[i] = '}';
        assert_int_equal(claw_json_scan((struct claw_str){text, 400}, &arena, &top, &err), CLAW_EBAD_JSON);
        assert_int_equal(err.offset, i);
        text[i] = ']';
    }
}

static void nodes_are_bounded(void **state)
{
    size_t n = CLAW_JSON_NODES; /* with the array itself one too many */
    char *text = malloc(n * 2 + 1);
    struct claw_json_top top;
    struct claw_json_err err;
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) memcpy(text + 1 + i * 2, "1,", 2);
    text[0] = '[';
    text[n * 2] = ']';
    assert_int_equal(claw_json_scan((struct claw_str){text, n * 2 + 1}, &arena, &top, &err), CLAW_EBAD_JSON);
    assert_string_equal(err.text, "too many values");
    assert_int_equal(err.offset, n * 2 - 1);
    text[n * 2 - 2] = ']';
    assert_int_equal(claw_json_scan((struct claw_str){text, n * 2 - 1}, &arena, &top, &err), 0);
    assert_int_equal(top.nodes, CLAW_JSON_NODES);
    free(text);
}

static void lists_top_members(void **state)
{
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_str text = CLAW_STR(" { \"model\" : \"m\" ,\"n\": -1.50 , \"o\":{\"x\":[1]} ,\"\\u0061\":[ ] ,\"t\":true,\"n\":null } ");
    assert_int_equal(claw_json_scan(text, &arena, &top, &err), 0);
    static const struct {
        const char *key, *raw;
        enum claw_json_type type;
    } want[] = {{"model", "\"m\"", CLAW_JSON_STRING},  {"n", "-1.50", CLAW_JSON_NUMBER}, {"o", "{\"x\":[1]}", CLAW_JSON_OBJECT},
                {"\\u0061", "[ ]", CLAW_JSON_ARRAY}, {"t", "true", CLAW_JSON_TRUE},    {"n", "null", CLAW_JSON_NULL}};
    assert_int_equal(top.n, 6);
    assert_int_equal(top.nodes, 9);
    assert_int_equal(top.root.type, CLAW_JSON_OBJECT);
    assert_ptr_equal(top.root.raw.ptr, text.ptr + 1);
    assert_int_equal(top.root.raw.len, text.len - 2);
    for (size_t i = 0; i < 6; i++) {
        assert_true(claw_str_eqz(top.members[i].key, want[i].key));
        assert_true(claw_str_eqz(top.members[i].value.raw, want[i].raw));
        assert_int_equal(top.members[i].value.type, want[i].type);
    }
    assert_int_equal(claw_json_top_get(&top, CLAW_STR("n")).type, CLAW_JSON_NULL); /* the last one */
    assert_int_equal(claw_json_top_get(&top, CLAW_STR("a")).type, CLAW_JSON_ARRAY);
    assert_int_equal(claw_json_top_get(&top, CLAW_STR("\\u0061")).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_top_get(&top, CLAW_STR("x")).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_scan(CLAW_STR("[{\"a\":1}]"), &arena, &top, &err), 0);
    assert_int_equal(top.n, 0);
    assert_int_equal(top.nodes, 3);
}

static void memory_is_bounded(void **state)
{
    struct claw_buf b;
    struct claw_json_top top;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_z(&b, "{\"k\":0"), 0);
    for (int i = 0; i < 99; i++) assert_int_equal(claw_buf_add_fmt(&b, ",\"k%d\":%d", i, i), 0);
    assert_int_equal(claw_buf_add_z(&b, "}"), 0);
    int rc = CLAW_EREQ_MEM;
    size_t cap, failures = 0;
    for (cap = 0; rc && cap < 100000; cap += 8) {
        struct claw_arena a;
        claw_arena_init(&a, NULL, 0, cap);
        rc = claw_json_scan(claw_buf_str(&b), &a, &top, NULL);
        if (rc) {
            assert_int_equal(rc, CLAW_EREQ_MEM);
            assert_int_equal(top.n, 0);
            failures++;
        } else {
            assert_int_equal(top.n, 100);
        }
        claw_arena_reset(&a);
    }
    assert_int_equal(rc, 0);
    assert_true(failures > 100);
    claw_buf_fini(&b);
}

static struct claw_json_value value(const char *z)
{
    struct claw_json_top top;
    struct claw_json_err err;
    assert_int_equal(claw_json_scan(claw_str_of(z), &arena, &top, &err), 0);
    return top.root;
}

static void walks(void **state)
{
    struct claw_json_value v = value("{\"a\" : [ 1 , \"two]\\\"\" , {\"x\":[[]]} ,[ ], null ] , \"b\\n\":2,\"a\":[true]}");
    assert_true(claw_str_eqz(claw_json_get(v, CLAW_STR("a")).raw, "[true]"));
    assert_true(claw_str_eqz(claw_json_get(v, CLAW_STR("b\n")).raw, "2"));
    assert_int_equal(claw_json_get(v, CLAW_STR("c")).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_get(value("[]"), CLAW_STR("c")).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_count(v), 3);
    assert_int_equal(claw_json_count(value("7")), 0);
    assert_int_equal(claw_json_count(value("[ ]")), 0);
    assert_int_equal(claw_json_count(value("{ }")), 0);

    size_t pos = 0;
    struct claw_str key;
    struct claw_json_value a, out;
    assert_true(claw_json_next(v, &pos, &key, &a));
    assert_true(claw_str_eqz(key, "a"));
    static const char *const want[] = {"1", "\"two]\\\"\"", "{\"x\":[[]]}", "[ ]", "null"};
    for (long i = 0; i < 5; i++) {
        assert_true(claw_str_eqz(claw_json_at(a, i).raw, want[i]));
        assert_true(claw_str_eqz(claw_json_at(a, i - 5).raw, want[i]));
    }
    assert_int_equal(claw_json_at(a, 5).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_at(a, -6).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_at(a, -99).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_at(a, (long)((unsigned long)1 << (sizeof(long) * 8 - 1))).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_at(v, 0).type, CLAW_JSON_NONE);
    assert_true(claw_json_next(v, &pos, &key, &out));
    assert_true(claw_str_eqz(key, "b\\n"));
    assert_true(claw_json_next(v, &pos, &key, &out));
    assert_false(claw_json_next(v, &pos, &key, &out));
    assert_int_equal(out.type, CLAW_JSON_NONE);
    assert_false(claw_json_next(v, &pos, &key, &out));

    struct claw_buf b;
    claw_buf_init(&b, 0);
    for (int i = 0; i < 40; i++) assert_int_equal(claw_buf_add_fmt(&b, "%s%d", i ? "," : "[", i), 0);
    assert_int_equal(claw_buf_add_z(&b, "]\0"), 0);
    v = claw_json_value_of(claw_buf_str(&b));
    for (long i = -40; i < 40; i++) {
        int64_t n;
        assert_int_equal(claw_json_int(claw_json_at(v, i), &n), 0);
        assert_int_equal(n, i < 0 ? i + 40 : i);
    }
    assert_int_equal(claw_json_at(v, -41).type, CLAW_JSON_NONE);
    claw_buf_fini(&b);

    assert_true(claw_str_eqz(claw_json_value_of(CLAW_STR(" \n[1]\t")).raw, "[1]"));
    assert_int_equal(claw_json_value_of(CLAW_STR("  ")).type, CLAW_JSON_NONE);
    assert_int_equal(claw_json_value_of((struct claw_str){NULL, 0}).type, CLAW_JSON_NONE);
}

/* Skipping a string looks at 32 bytes at a time: escapes and quotes at every place of it. */
static void walks_over_strings_at_every_offset(void **state)
{
    char text[256];
    for (size_t pad = 0; pad < 100; pad++)
        for (size_t tail = 0; tail < 40; tail++) {
            size_t n = 0;
            text[n++] = '[';
            text[n++] = '"';
            memset(text + n, 'x', pad);
            n += pad;
            memcpy(text + n, "\\\\\\\"]", 5);
            n += 5;
            memset(text + n, ',', tail);
            n += tail;
            memcpy(text + n, "\",7]", 4);
            n += 4;
            struct claw_json_value v = {{text, n}, CLAW_JSON_ARRAY};
            assert_int_equal(claw_json_count(v), 2);
            assert_true(claw_str_eqz(claw_json_at(v, -1).raw, "7"));
        }
}

/* Walking what is not JSON at all must end and stay inside. */
static void walks_garbage_safely(void **state)
{
    static const char *const garbage[] = {"[", "{", "[\"", "[\"\\", "{\"a", "{\"a\"", "{\"a\":", "[,,", "[:]", "{a}", "[1", "[[", "{\"\\"};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        size_t len = strlen(garbage[i]);
        char *p = malloc(len);
        assert_non_null(p);
        memcpy(p, garbage[i], len);
        struct claw_json_value v = claw_json_value_of((struct claw_str){p, len});
        claw_json_count(v);
        claw_json_get(v, CLAW_STR("a"));
        claw_json_at(v, -1);
        free(p);
    }
}

static void decodes_text(void **state)
{
    static const struct {
        const char *raw;
        struct claw_str text;
    } in[] = {
        {"\"\"", T("")}, {"\"abc\"", T("abc")}, {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", T("\"\\/\b\f\n\r\t")}, {"\"\\u0000\"", T("\0")},
        {"\"a\\u0041\\u00e9\\u20AC.\"", T("aA\xc3\xa9\xe2\x82\xac.")}, {"\"\\ud83d\\ude00\"", T("\xf0\x9f\x98\x80")},
        {"\"\\uD83D\"", T("\xef\xbf\xbd")}, {"\"\\uDE00x\"", T("\xef\xbf\xbdx")}, {"\"\\uD83D\\n\"", T("\xef\xbf\xbd\n")},
        {"\"\\uD83D\\uD83D\\uDE00\"", T("\xef\xbf\xbd\xf0\x9f\x98\x80")}, {"\"\\uD83D\\u0041\"", T("\xef\xbf\xbd""A")},
        {"\"\\uDBFF\\uDFFF\"", T("\xf4\x8f\xbf\xbf")}, {"\"\\u07ff\\u0800\\uffff\"", T("\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf")},
    };
    struct claw_str out;
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        struct claw_json_value v = value(in[i].raw);
        assert_int_equal(claw_json_text(v, &arena, &out), 0);
        assert_int_equal(out.len, in[i].text.len);
        assert_memory_equal(out.ptr, in[i].text.ptr, out.len);
        assert_true(claw_json_text_is(v, in[i].text));
        struct claw_str less = {in[i].text.ptr, in[i].text.len - 1};
        if (in[i].text.len) assert_false(claw_json_text_is(v, less));
        assert_false(claw_json_text_is(v, CLAW_STR("something that is longer than all of these")));
    }
    struct claw_json_value plain = value("\"plain\"");
    assert_int_equal(claw_json_text(plain, &arena, &out), 0);
    assert_ptr_equal(out.ptr, plain.raw.ptr + 1);
    assert_int_equal(claw_json_text(value("1"), &arena, &out), CLAW_EINVAL);
    assert_false(claw_json_text_is(value("1"), CLAW_STR("1")));
    assert_false(claw_json_text_is(value("\"\\n\""), CLAW_STR("\\n")));
    assert_true(claw_json_text_is(value("\"\""), (struct claw_str){NULL, 0}));
    assert_false(claw_json_text_is(value("\"\\n\""), (struct claw_str){NULL, 0}));
    struct claw_arena none;
    claw_arena_init(&none, NULL, 0, 0);
    assert_int_equal(claw_json_text(value("\"\\n\""), &none, &out), CLAW_EREQ_MEM);
    assert_int_equal(claw_json_key_text(CLAW_STR("k\\u0065y"), &arena, &out), 0);
    assert_true(claw_str_eqz(out, "key"));
}

static void reads_doubles(void **state)
{
    static const char *const in[] = {
        "0", "-0", "1", "-1.5", "0.7", "0.1", "1e22", "1e23", "123456789012345678", "9007199254740993", "1e400", "-1e400", "1e-400",
        "5e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "2.2250738585072011e-308", "1.7976931348623157e308",
        "1.7976931348623159e308", "0.000001", "100000000000000000000000e-23", "0.00000000000000000000000000000000000000000000000001e50",
        "1e999999999999999999999", "1e-999999999999999999999", "0e999999999999999999999", "3.141592653589793238462643383279502884197169399375105820974944592307816406286",
    };
    double d;
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        assert_int_equal(claw_json_double(value(in[i]), &d), 0);
        double want = strtod(in[i], NULL);
        assert_memory_equal(&d, &want, sizeof d);
    }
    assert_int_equal(claw_json_double(value("\"1\""), &d), CLAW_EINVAL);

    /* Halfway between 1 and the next double, and a last digit far behind that decides. */
    char text[3000];
    size_t n = (size_t)snprintf(text, sizeof text, "1.00000000000000011102230246251565404236316680908203125");
    assert_int_equal(claw_json_double(claw_json_value_of((struct claw_str){text, n}), &d), 0);
    assert_true(d == 1.0);
    memset(text + n, '0', sizeof text - n);
    text[sizeof text - 1] = '1';
    assert_int_equal(claw_json_double(claw_json_value_of((struct claw_str){text, sizeof text}), &d), 0);
    assert_true(d == 1.0 + 0x1p-52);
    /* The same with all digits before the point. */
    memset(text, '7', sizeof text);
    memcpy(text + sizeof text - 6, "e-2994", 6);
    assert_int_equal(claw_json_double(claw_json_value_of((struct claw_str){text, sizeof text}), &d), 0);
    assert_true(d == 0.77777777777777777777);
    memset(text, '9', sizeof text);
    assert_int_equal(claw_json_double(claw_json_value_of((struct claw_str){text, sizeof text}), &d), 0);
    assert_true(isinf(d));
}

static void doubles_agree_with_strtod(void **state)
{
    uint64_t x = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        char text[64];
        double d;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(&d, &x, sizeof d);
        if (!isfinite(d)) continue;
        snprintf(text, sizeof text, i % 2 ? "%.17g" : "%.9e", i % 4 < 2 ? d : (double)(int64_t)(x >> 20) / 1000);
        double want = strtod(text, NULL), got;
        assert_int_equal(claw_json_double(value(text), &got), 0);
        assert_memory_equal(&got, &want, sizeof got);
    }
}

static void reads_ints(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
        int rc;
    } in[] = {
        {"0", 0, 0}, {"-0", 0, 0}, {"1", 1, 0}, {"1.0", 1, 0}, {"1e3", 1000, 0}, {"1.5", 0, CLAW_EINVAL}, {"1.5e1", 15, 0},
        {"1500e-2", 15, 0}, {"1500e-3", 0, CLAW_EINVAL}, {"9007199254740993", 9007199254740993, 0},
        {"9223372036854775807", INT64_MAX, 0}, {"9223372036854775808", 0, CLAW_EINVAL}, {"-9223372036854775808", INT64_MIN, 0},
        {"-9223372036854775809", 0, CLAW_EINVAL}, {"9.223372036854775807e18", INT64_MAX, 0}, {"1e18", 1000000000000000000, 0},
        {"1e19", 0, CLAW_EINVAL}, {"18446744073709551617", 0, CLAW_EINVAL}, {"1e400", 0, CLAW_EINVAL}, {"1e-400", 0, CLAW_EINVAL},
        {"0e400", 0, 0}, {"0.000", 0, 0}, {"-12.000e0", -12, 0}, {"1e99999999999999999999", 0, CLAW_EINVAL}, {"1E+2", 100, 0},
        {"0.00000000000000000000000000000000000000000000000000000000000000000000000001e74", 1, 0}, {"true", 0, CLAW_EINVAL},
        {"\"1\"", 0, CLAW_EINVAL},
    };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        int64_t n = 77;
        assert_int_equal(claw_json_int(value(in[i].text), &n), in[i].rc);
        assert_int_equal(n, in[i].want);
    }
    char text[3000]; /* one with 2,994 zeros after it */
    int64_t n;
    memset(text, '0', sizeof text);
    text[0] = '1';
    memcpy(text + sizeof text - 6, "e-2993", 6);
    assert_int_equal(claw_json_int(claw_json_value_of((struct claw_str){text, sizeof text}), &n), 0);
    assert_int_equal(n, 1);
    text[2000] = '1';
    assert_int_equal(claw_json_int(claw_json_value_of((struct claw_str){text, sizeof text}), &n), CLAW_EINVAL);
}

/* Escapes with plain runs of every length between them, in slices of exactly their size: nothing is read or written past them. */
static void decodes_runs_of_every_length(void **state)
{
    static const struct { const char *raw, *is; } escapes[] = {{"\\n", "\n"}, {"\\u0041", "A"}, {"\\ud83d\\ude00", "\xf0\x9f\x98\x80"}, {"\\\\", "\\"}};
    for (size_t run = 0; run <= 40; run++) {
        for (size_t e = 0; e < sizeof escapes / sizeof *escapes; e++) {
            size_t raw_n = strlen(escapes[e].raw), is_n = strlen(escapes[e].is), n = 0, m = 0;
            char *raw = malloc(5 * (raw_n + run)), *is = malloc(5 * (is_n + run));
            assert_non_null(raw);
            assert_non_null(is);
            for (unsigned times = 0; times < 5; times++) {
                memcpy(raw + n, escapes[e].raw, raw_n);
                memset(raw + n + raw_n, 'a' + (char)times, run);
                memcpy(is + m, escapes[e].is, is_n);
                memset(is + m + is_n, 'a' + (char)times, run);
                n += raw_n + run;
                m += is_n + run;
            }
            struct claw_str out;
            assert_int_equal(claw_json_key_text((struct claw_str){raw, n}, &arena, &out), 0);
            assert_int_equal(out.len, m);
            assert_memory_equal(out.ptr, is, m);
            for (size_t cut = 1; cut < n; cut++) { /* what is no JSON's is read safely, too */
                char *part = malloc(cut);
                assert_non_null(part);
                memcpy(part, raw, cut);
                assert_int_equal(claw_json_key_text((struct claw_str){part, cut}, &arena, &out), 0);
                assert_true(out.len <= cut);
                free(part);
            }
            free(raw);
            free(is);
            claw_arena_reset(&arena);
        }
    }
    (void)state;
}

/* Ends of strings as a plain loop finds them, in texts of little but quotes and backslashes, whole and cut. */
static void ends_of_strings_among_escapes(void **state)
{
    static const char letters[] = "\\\\\"\\a\\\\b";
    uint64_t random = 88172645463325252u;
    for (unsigned i = 0; i < 20000; i++) {
        char text[200];
        for (size_t k = 0; k < sizeof text; k++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            text[k] = i % 4 == 0 && random % 19 ? 'a' : letters[random >> 8 & 7];
        }
        size_t n = random >> 16 & 127;
        char *p = malloc(n ? n : 1), *want; /* exactly as long, so that a memory checker sees a read past it */
        assert_non_null(p);
        memcpy(p, text, n);
        for (want = p; want < p + n && *want != '"'; want++)
            if (*want == '\\') want++;
        want = want < p + n ? want + 1 : p + n;
        assert_ptr_equal(claw_json_string_end(p, p + n), want);
        free(p);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts), cmocka_unit_test(refuses), cmocka_unit_test(strings_at_every_offset),
        cmocka_unit_test(long_strings_at_every_offset), cmocka_unit_test(backslashes_in_a_row),
        cmocka_unit_test(every_byte_after_a_backslash), cmocka_unit_test(long_strings_cut),
        cmocka_unit_test(faults_have_line_and_column), cmocka_unit_test(depth_is_bounded), cmocka_unit_test(nodes_are_bounded),
        cmocka_unit_test(lists_top_members), cmocka_unit_test(memory_is_bounded), cmocka_unit_test(walks),
        cmocka_unit_test(walks_over_strings_at_every_offset), cmocka_unit_test(walks_garbage_safely), cmocka_unit_test(decodes_text),
        cmocka_unit_test(decodes_runs_of_every_length), cmocka_unit_test(ends_of_strings_among_escapes),
        cmocka_unit_test(reads_doubles), cmocka_unit_test(doubles_agree_with_strtod), cmocka_unit_test(reads_ints),
    };
    return cmocka_run_group_tests_name("json", tests, setup, teardown);
}
