/* conf_url: base URLs, and where Redis is. */
#include "conf_part.h"

static void where_redis_is(void **state)
{
    struct loaded l;
    const struct claw_conf_redis *r = &load_part(&l, "state: {url: 'redis://us%40er:p%3Aw%2f123%zz@[::1]:7000/5'}")->redis;
    assert_str(r->user, "us@er");
    assert_str(r->password, "p:w/123%zz");
    assert_str(r->host, "::1");
    assert_int_equal(r->port, 7000);
    assert_int_equal(r->db, 5);
    claw_conf_problem_add(&l.problems, l.conf, "", "%s and %s", "p:w/123%zz", "p%3Aw%2f123%zz");
    assert_string_equal(l.problems.first->text, "openclaw.yaml:1:1: *** and ***");
    done(&l);
    r = &load_part(&l, "state: {url: 'redis://h'}")->redis;
    assert_str(r->host, "h");
    assert_int_equal(r->port, 6379);
    assert_int_equal(r->db + r->user.len + r->password.len, 0);
    done(&l);
    assert_str(load_part(&l, "state: {}")->redis.host, "");
    done(&l);
    static const char *const wrong[][2] = {
        {"rediss://h", "rediss:// (Redis over TLS) is not supported: use redis://, through a tunnel where the way is not trusted"},
        {"http://h", "must begin with redis://"},
        {"redis://", "the URL has no host"},
        {"redis://h:0", "the URL's port must be 1 to 65535"},
        {"redis://h/x", "what follows the host must be a database's number, as in redis://host:6379/0"},
        {"redis://alone@h", "what stands before @ must be user:password or :password"},
        {"redis://a b", "a URL has no spaces, control characters or bytes beyond ASCII"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char part[200], says[300];
        snprintf(part, sizeof part, "state: {url: '%s'}", wrong[i][0]);
        snprintf(says, sizeof says, "openclaw.yaml:8:14: state.url: %s", wrong[i][1]);
        expect_part(part, says);
    }
}

static void urls(void **state)
{
    static const char *const bad[][2] = {
        {"ftp://h", "must begin with http:// or https://"},
        {"localhost:1", "must begin with http:// or https://"},
        {"http://", "the URL has no host"},
        {"http:///p", "the URL has no host"},
        {"http://:80", "the URL has no host"},
        {"http://u:pass@h/", "the URL must not hold a user name or password"},
        {"http://h/?a=1", "the URL must not have a query"},
        {"http://h?a", "the URL must not have a query"},
        {"http://h/#f", "the URL must not have a fragment"},
        {"http://h:0", "the URL's port must be 1 to 65535"},
        {"http://h:65536", "the URL's port must be 1 to 65535"},
        {"http://h:", "the URL's port must be 1 to 65535"},
        {"http://h:8a", "the URL's port must be 1 to 65535"},
        {"http://[::1", "the host's bracket is not closed"},
        {"http://[::1]x", "the URL's host is not valid"},
        {"http://[1.2]", "the URL's host is not valid"},
        {"http://a..b", "the URL's host is not valid"},
        {"http://a%b", "the URL's host is not valid"},
        {"http://h/a b", "a URL has no spaces, control characters or bytes beyond ASCII"},
        {"http://h/\\r", "a URL has no spaces, control characters or bytes beyond ASCII"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char yaml[512], text[512];
        snprintf(yaml, sizeof yaml, "upstreams: {a: {type: generic, base_url: \"%s\"}}\nroutes: []\n", bad[i][0]);
        snprintf(text, sizeof text, "openclaw.yaml:1:42: upstreams.a.base_url: %s", bad[i][1]);
        expect(yaml, text);
    }
    expect("upstreams:\n  a: {type: generic}\n  b: {type: azure, base_url: ''}\nroutes: []\n",
           "openclaw.yaml:2:3: upstreams.a.base_url: required, but not given (this type has no default)\n"
           "openclaw.yaml:3:30: upstreams.b.base_url: required, but not given (this type has no default)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_redis_is), cmocka_unit_test(urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
