/* jwt: what openssl makes of it: a key it makes, a signature it verifies. */
#include "net/jwt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/claw-jwt-XXXXXX";

static char *path(const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    char *p = paths[turn++ % 4];
    snprintf(p, 128, "%s/%s", dir, name);
    return p;
}

static int shell(const char *command)
{
    char text[512];
    snprintf(text, sizeof text, "cd %s && %s >out 2>&1", dir, command);
    return system(text);
}

static int set_up(void **state)
{
    if (!mkdtemp(dir)) return -1;
    if (shell("openssl genrsa -out rsa.pem 2048 && openssl rsa -in rsa.pem -pubout -out pub.pem") != 0) return -1;
    return shell("openssl pkcs8 -topk8 -nocrypt -in rsa.pem -out pkcs8.pem && openssl ecparam -genkey -name prime256v1 -out ec.pem");
}

static int tear_down(void **state)
{
    char text[128];
    snprintf(text, sizeof text, "rm -rf %s", dir);
    return system(text);
}

static struct claw_str file(struct claw_buf *b, const char *name)
{
    claw_buf_init(b, 1 << 20);
    assert_int_equal(claw_buf_add_file(b, path(name)), 0);
    assert_int_equal(claw_buf_add(b, "", 1), 0); /* the NUL behind it */
    return (struct claw_str){claw_buf_str(b).ptr, claw_buf_size(b) - 1};
}

static int value_of(char c)
{
    const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *at = strchr(digits, c);
    assert_true(c && at);
    return (int)(at - digits);
}

static size_t decode(struct claw_str s, unsigned char *to)
{
    size_t n = 0;
    unsigned bits = 0, have = 0;
    for (size_t i = 0; i < s.len; i++) {
        bits = bits << 6 | (unsigned)value_of(s.ptr[i]);
        have += 6;
        if (have >= 8) to[n++] = (unsigned char)(bits >> (have -= 8));
    }
    return n;
}

static void write_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(path(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void openssl_verifies(void **state)
{
    static const char *const keys[] = {"rsa.pem", "pkcs8.pem"};
    static const char *const claims[] = {"{}", "{\"a\":1}", "{\"iss\":\"a@b\"}", "{\"iss\":\"\xc3\xa8>?~\"}"};
    for (unsigned i = 0; i < 8; i++) {
        struct claw_buf key, out;
        unsigned char decoded[2048];
        struct claw_str pem = file(&key, keys[i % 2]), kid = i % 3 ? CLAW_STR("id\"1") : CLAW_STR("");
        claw_buf_init(&out, 0);
        assert_true(claw_jwt_key_good(pem));
        assert_int_equal(claw_buf_add_z(&out, "before"), 0);
        assert_int_equal(claw_jwt_write(&out, claw_str_of(claims[i / 2]), pem, kid), 0);
        struct claw_str all = claw_buf_str(&out);
        assert_true(claw_str_starts(all, CLAW_STR("before")));
        all.ptr += 6;
        all.len -= 6;
        const char *first = memchr(all.ptr, '.', all.len), *second = memrchr(all.ptr, '.', all.len);
        size_t n = decode((struct claw_str){all.ptr, (size_t)(first - all.ptr)}, decoded);
        const char *header = kid.len ? "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"id\\\"1\"}" : "{\"alg\":\"RS256\",\"typ\":\"JWT\"}";
        assert_int_equal(n, strlen(header));
        assert_memory_equal(decoded, header, n);
        n = decode((struct claw_str){first + 1, (size_t)(second - first) - 1}, decoded);
        assert_int_equal(n, strlen(claims[i / 2]));
        assert_memory_equal(decoded, claims[i / 2], n);
        n = decode((struct claw_str){second + 1, (size_t)(all.ptr + all.len - second) - 1}, decoded);
        assert_int_equal(n, 256);
        write_file("signed", all.ptr, (size_t)(second - all.ptr));
        write_file("signature", decoded, n);
        assert_int_equal(shell("openssl dgst -sha256 -verify pub.pem -signature signature signed"), 0);
        write_file("signed", all.ptr, (size_t)(second - all.ptr) - 1);
        assert_int_not_equal(shell("openssl dgst -sha256 -verify pub.pem -signature signature signed"), 0);
        claw_buf_fini(&key);
        claw_buf_fini(&out);
    }
}

static void keys_that_are_none(void **state)
{
    struct claw_buf b, out;
    claw_buf_init(&out, 0);
    static const char *const bad[] = {"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"};
    for (unsigned i = 0; i < 3; i++) {
        assert_false(claw_jwt_key_good(claw_str_of(bad[i])));
        assert_int_equal(claw_jwt_write(&out, CLAW_STR("{}"), claw_str_of(bad[i]), CLAW_STR("")), CLAW_EINVAL);
    }
    assert_false(claw_jwt_key_good(file(&b, "ec.pem")));
    claw_buf_fini(&b);
    assert_false(claw_jwt_key_good(file(&b, "pub.pem")));
    claw_buf_fini(&b);
    claw_buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(openssl_verifies), cmocka_unit_test(keys_that_are_none)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
