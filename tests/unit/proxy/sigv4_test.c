/* sigv4: AWS' own test suite ("aws-sig-v4-test-suite"), and what its cases leave out: paths that are encoded already. */
#include "proxy/sigv4.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define WHEN 1440938160 /* 20150830T123600Z */
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define TOKEN "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/" \
    "qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPP" \
    "kUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
#define UNRESERVED "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static const struct claw_conf_aws keys = {CLAW_STR("AKIDEXAMPLE"), CLAW_STR("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), CLAW_STR(""), CLAW_STR("us-east-1")};

struct row {
    const char *method, *path, *query;
    const char *fields[8]; /* names and values, besides host and x-amz-date */
    const char *body, *names, *signature;
};

static const struct row suite[] = {
    {"GET", "/", "", {0}, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},                           /* get-vanilla */
    {"GET", "", "", {0}, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
    {"GET", "/", "Param2=value2&Param1=value1", {0}, "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"}, /* get-vanilla-query-order-key-case */
    {"GET", "/", UNRESERVED "=" UNRESERVED, {0}, "", "host;x-amz-date", "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},    /* get-vanilla-query-unreserved */
    {"GET", "/" UNRESERVED, "", {0}, "", "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},                /* get-unreserved */
    {"GET", "/\xe1\x88\xb4", "", {0}, "", "host;x-amz-date", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},               /* get-utf8 */
    {"GET", "/example space/", "", {0}, "", "host;x-amz-date", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},             /* get-space */
    {"GET", "//example//", "", {0}, "", "host;x-amz-date", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},                 /* get-slashes */
    {"GET", "//", "", {0}, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},                          /* get-slash */
    {"GET", "/./", "", {0}, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},                         /* get-slash-dot-slash */
    {"GET", "/example/..", "", {0}, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},                 /* get-relative */
    {"GET", "/example1/example2/../..", "", {0}, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},    /* get-relative-relative */
    {"GET", "/", "", {"My-Header1", "value2", "My-Header1", "value2", "My-Header1", "value1"}, "", "host;my-header1;x-amz-date",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},                                                                    /* get-header-key-duplicate */
    {"GET", "/", "", {"My-Header1", "value4", "My-Header1", "value1", "My-Header1", "value3", "My-Header1", "value2"}, "", "host;my-header1;x-amz-date",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},                                                                    /* get-header-value-order */
    {"GET", "/", "", {"My-Header1", " value1", "My-Header2", " \"a   b   c\""}, "", "host;my-header1;my-header2;x-amz-date",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},                                                                    /* get-header-value-trim */
    {"POST", "/", "", {0}, "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},                          /* post-vanilla */
    {"POST", "/", "Param1=value1", {0}, "", "host;x-amz-date", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},             /* post-vanilla-query */
    {"POST", "/", "", {"MY-HEADER1", "value1"}, "", "host;my-header1;x-amz-date", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},  /* post-header-key-case */
    {"POST", "/", "", {"My-Header1", "VALUE1"}, "", "host;my-header1;x-amz-date", "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},  /* post-header-value-case */
    {"POST", "/", "", {"X-Amz-Security-Token", TOKEN}, "", "host;x-amz-date;x-amz-security-token",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},                                                                    /* post-sts-header-before */
    {"POST", "/", "", {"Content-Type", "application/x-www-form-urlencoded"}, "Param1=value1", "content-type;host;x-amz-date",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},                                                                    /* post-x-www-form-urlencoded */
};

static struct claw_arena arena;

static int set_up(void **state)
{
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    claw_arena_reset(&arena);
    return 0;
}

static struct claw_str signed_as(const struct row *r, struct claw_sigv4_day *day)
{
    struct claw_conf_header fields[8] = {{CLAW_STR("Host"), CLAW_STR("example.amazonaws.com")}, {CLAW_STR("X-Amz-Date"), CLAW_STR("20150830T123600Z")}};
    char payload[CLAW_SIGV4_HASH];
    size_t n = 2, half = strlen(r->body) / 2;
    uv_buf_t body[2] = {uv_buf_init((char *)r->body, (unsigned)half), uv_buf_init((char *)r->body + half, (unsigned)(strlen(r->body) - half))};
    struct claw_str out;
    for (unsigned i = 0; i < 8 && r->fields[i]; i += 2) fields[n++] = (struct claw_conf_header){claw_str_of(r->fields[i]), claw_str_of(r->fields[i + 1])};
    assert_int_equal(claw_sigv4_hash(body, 2, payload), 0);
    struct claw_sigv4_ask ask = {claw_str_of(r->method), claw_str_of(r->path), claw_str_of(r->query), fields, n, payload, WHEN};
    assert_int_equal(claw_sigv4_sign(&ask, &keys, "service", day, &arena, &out), 0);
    return out;
}

static void the_suite(void **state)
{
    struct claw_sigv4_day day = {.date = ""};
    for (size_t i = 0; i < sizeof suite / sizeof *suite; i++) {
        char expected[512];
        struct claw_str out = signed_as(&suite[i], &day);
        snprintf(expected, sizeof expected, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=%s, Signature=%s",
                 suite[i].names, suite[i].signature);
        char *text = strndup(out.ptr, out.len);
        assert_string_equal(text, expected);
        free(text);
    }
    assert_memory_equal(day.date, "20150830", 8);
}

static void the_empty_body(void **state)
{
    char sum[CLAW_SIGV4_HASH];
    assert_int_equal(claw_sigv4_hash(NULL, 0, sum), 0);
    assert_string_equal(sum, EMPTY);
}

/* A model's id has a colon: %3A on its way, %253A where it is signed. Any other spelling of the path gives another signature. */
static void encoded_twice(void **state)
{
    struct claw_sigv4_day day = {.date = ""};
    static const char *const same[] = {"/model/a%3A0/converse", "/model//a%3A0/./converse", "/x/../model/a%3A0/converse"};
    static const char *const others[] = {"/model/a:0/converse", "/model/a%3a0/converse", "/model/a%3A0/converse/", "/model/a%253A0/converse"};
    char first[64];
    for (size_t i = 0; i < 3; i++) {
        struct row r = {"POST", same[i], "", {0}, "{}", "", ""};
        struct claw_str out = signed_as(&r, &day);
        if (i == 0) memcpy(first, out.ptr + out.len - 64, 64);
        else assert_memory_equal(first, out.ptr + out.len - 64, 64);
    }
    /* by another implementation of the algorithm */
    assert_memory_equal(first, "831c5f99acece5b9445dae339955c4b9fce2ea89559057560beb70b2dee51a3c", 64);
    for (size_t i = 0; i < 4; i++) {
        struct row r = {"POST", others[i], "", {0}, "{}", "", ""};
        struct claw_str out = signed_as(&r, &day);
        assert_memory_not_equal(first, out.ptr + out.len - 64, 64);
    }
}

static void a_day_has_its_key(void **state)
{
    struct claw_sigv4_day day = {.date = ""};
    unsigned char first[32];
    (void)signed_as(&suite[0], &day);
    memcpy(first, day.key, 32);
    memset(day.key, 7, 32); /* it is not made anew */
    struct claw_str out = signed_as(&suite[0], &day);
    assert_memory_not_equal(suite[0].signature, out.ptr + out.len - 64, 64);
    memcpy(day.date, "20150829", 8);
    (void)signed_as(&suite[0], &day);
    assert_memory_equal(first, day.key, 32);
}

static void heads(void **state)
{
    struct claw_sigv4_day day = {.date = ""};
    struct claw_conf_aws with_token = keys;
    struct claw_str out;
    uv_buf_t body = uv_buf_init("Param1=value1", 13);
    struct claw_str head = CLAW_STR("POST / HTTP/1.1\r\nHost: example.amazonaws.com\r\naccept: x\r\nX-Amz-Date: old\r\n"
                                    "content-type:  application/x-www-form-urlencoded \r\nx-amz-security-token: theirs\r\ncontent-length: 13\r\n\r\n");
    assert_int_equal(claw_sigv4_head(head, &body, 1, WHEN, &keys, "service", &day, &arena, &out), 0);
    char *text = strndup(out.ptr, out.len);
    assert_string_equal(text, "POST / HTTP/1.1\r\nHost: example.amazonaws.com\r\naccept: x\r\ncontent-type:  application/x-www-form-urlencoded \r\ncontent-length: 13\r\n"
        "x-amz-date: 20150830T123600Z\r\nauthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a\r\n\r\n");
    free(text);
    with_token.token = CLAW_STR(TOKEN);
    assert_int_equal(claw_sigv4_head(CLAW_STR("POST / HTTP/1.1\r\nhost: example.amazonaws.com\r\n\r\n"), NULL, 0, WHEN, &with_token, "service", &day, &arena, &out), 0);
    assert_true(claw_str_find(out, CLAW_STR("\r\nx-amz-security-token: " TOKEN "\r\n")) > 0);
    assert_true(claw_str_find(out, CLAW_STR("Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead\r\n\r\n")) > 0);
    assert_int_equal(claw_sigv4_head(CLAW_STR("GET /?b=1&a HTTP/1.1\r\nhost: h\r\nAuthorization: mine\r\n\r\n"), NULL, 0, WHEN, &keys, "service", &day, &arena, &out), 0);
    assert_true(claw_str_eqz(out, "GET /?b=1&a HTTP/1.1\r\nhost: h\r\nAuthorization: mine\r\n\r\n"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(the_suite), TEST(the_empty_body), TEST(encoded_twice), TEST(a_day_has_its_key), TEST(heads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
