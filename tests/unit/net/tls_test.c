#include "net/tls.h"

#include "unit/net/certs.h"

#include <dlfcn.h>
#include <mbedtls/ssl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const files[] = {"ca", "good", "ip", "cnonly", "expired", "future", "self", "star", "wide", NULL};

static struct claw_tls_server *server_of(const char *name)
{
    struct claw_tls_server *s = NULL;
    char err[256] = "", cert[64], key[64];

    snprintf(cert, sizeof cert, "%s.pem", name);
    snprintf(key, sizeof key, "%s.key", name);
    if (claw_tls_server_new(certs_path(cert), certs_path(key), NULL, &s, err, sizeof err) != 0) fail_msg("%s", err);
    return s;
}

static struct claw_tls_client *client_of(bool verify)
{
    struct claw_tls_client *c = NULL;
    char err[256] = "";

    if (claw_tls_client_new(certs_path("ca.pem"), verify, &c, err, sizeof err) != 0) fail_msg("%s", err);
    return c;
}

struct pair {
    struct claw_tls *client, *server;
    int client_rc, server_rc;
    bool client_heavy, server_heavy;
};

static void carry(struct claw_tls *from, struct claw_tls *to, size_t step)
{
    struct claw_str s = claw_buf_str(claw_tls_out(from));

    if (step == 0 || step > s.len) step = s.len;
    if (step == 0) return;
    assert_int_equal(claw_tls_feed(to, s.ptr, step), 0);
    claw_buf_take(claw_tls_out(from), step);
}

/* Both handshakes, moving at most `step` bytes at a time (0: all there is). */
static void shake(struct pair *p, size_t step)
{
    p->client_rc = p->server_rc = CLAW_EAGAIN;
    p->client_heavy = p->server_heavy = false;
    for (int i = 0; i < 100000; i++) {
        if (p->client_rc == CLAW_EAGAIN) {
            p->client_heavy |= claw_tls_heavy(p->client);
            p->client_rc = claw_tls_handshake(p->client);
        }
        if (p->client_rc == CLAW_EAGAIN || claw_buf_size(claw_tls_out(p->client))) carry(p->client, p->server, step);
        if (p->server_rc == CLAW_EAGAIN) {
            p->server_heavy |= claw_tls_heavy(p->server);
            p->server_rc = claw_tls_handshake(p->server);
        }
        carry(p->server, p->client, step);
        if (p->client_rc != CLAW_EAGAIN && (p->server_rc != CLAW_EAGAIN || p->client_rc != 0)) break;
        if (p->server_rc != CLAW_EAGAIN && p->server_rc != 0 && p->client_rc == CLAW_EAGAIN &&
            claw_buf_size(claw_tls_out(p->server)) == 0) {
            p->client_rc = claw_tls_handshake(p->client);
            break;
        }
    }
}

static struct pair pair_of(struct claw_tls_server *s, struct claw_tls_client *c, const char *name)
{
    struct pair p = {0};

    assert_int_equal(claw_tls_new(s, NULL, CLAW_STR(""), &p.server), 0);
    assert_int_equal(claw_tls_new(NULL, c, claw_str_of(name), &p.client), 0);
    return p;
}

static void pair_free(struct pair *p)
{
    claw_tls_free(p->client);
    claw_tls_free(p->server);
}

static void say(struct claw_tls *from, struct claw_tls *to, const char *text, size_t step)
{
    char got[256];
    size_t n = 0;

    assert_int_equal(claw_tls_write(from, text, strlen(text)), 0);
    while (claw_buf_size(claw_tls_out(from))) {
        carry(from, to, step);
        ptrdiff_t k = claw_tls_read(to, got + n, sizeof got - n);
        if (k == CLAW_EAGAIN) continue;
        assert_true(k > 0);
        n += (size_t)k;
    }
    assert_int_equal(n, strlen(text));
    assert_memory_equal(got, text, n);
}

/* ---- handshakes and data ---------------------------------------------------------------------------------- */

static void full_then_resumed(void **state)
{
    struct claw_tls_server *s = server_of("good");
    struct claw_tls_client *c = client_of(true);
    uint64_t all, resumed;

    for (int i = 0; i < 4; i++) {
        struct pair p = pair_of(s, c, "api.example.com");
        shake(&p, 0);
        assert_int_equal(p.client_rc, 0);
        assert_int_equal(p.server_rc, 0);
        assert_true(claw_tls_resumed(p.client) == (i > 0));
        assert_true(claw_tls_resumed(p.server) == (i > 0));
        assert_true(p.client_heavy == (i == 0)); /* a resumed client never leaves the loop */
        assert_true(p.server_heavy);             /* a server cannot know before it read the ticket */
        say(p.client, p.server, "question", 0);
        say(p.server, p.client, "answer", 0);
        pair_free(&p);
    }
    claw_tls_client_counts(c, &all, &resumed);
    assert_int_equal(all, 4);
    assert_int_equal(resumed, 3);
    claw_tls_client_unref(c);
    claw_tls_server_unref(s);
}

static void every_step_size(void **state)
{
    static const size_t steps[] = {1, 2, 3, 5, 7, 64, 513, 4096};
    struct claw_tls_server *s = server_of("good");

    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct claw_tls_client *c = client_of(true);
        for (int again = 0; again < 2; again++) {
            struct pair p = pair_of(s, c, "api.example.com");
            shake(&p, steps[i]);
            assert_int_equal(p.client_rc, 0);
            assert_int_equal(p.server_rc, 0);
            assert_true(claw_tls_resumed(p.client) == (again == 1));
            assert_true(p.client_heavy == (again == 0));
            say(p.client, p.server, "a question in small pieces", steps[i]);
            say(p.server, p.client, "and its answer", steps[i]);
            pair_free(&p);
        }
        claw_tls_client_unref(c);
    }
    claw_tls_server_unref(s);
}

/* The session is offered to a server that does not know it (another ticket key): a full handshake, and the new
 * session takes the old one's place. */
static void resumption_refused(void **state)
{
    struct claw_tls_server *s1 = server_of("good"), *s2 = server_of("good");
    struct claw_tls_client *c = client_of(true);
    struct claw_tls_server *order[] = {s1, s2, s2, s1};
    static const bool resumed[] = {false, false, true, false};

    for (int i = 0; i < 4; i++) {
        struct pair p = pair_of(order[i], c, "api.example.com");
        shake(&p, 0);
        assert_int_equal(p.client_rc, 0);
        assert_true(claw_tls_resumed(p.client) == resumed[i]);
        assert_true(claw_tls_resumed(p.server) == resumed[i]);
        pair_free(&p);
    }
    claw_tls_client_unref(c);
    claw_tls_server_unref(s1);
    claw_tls_server_unref(s2);
}

/* A session agreed on under one name must not vouch for another. */
static void sessions_are_kept_by_name(void **state)
{
    struct claw_tls_server *s = server_of("star");
    struct claw_tls_client *c = client_of(true);
    char name[64];

    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "n%d.star.example.com", i);
        struct pair p = pair_of(s, c, name);
        shake(&p, 0);
        assert_int_equal(p.client_rc, 0);
        assert_false(claw_tls_resumed(p.client));
        pair_free(&p);
    }
    for (int i = 11; i >= 0; i--) { /* eight are kept, the last used */
        snprintf(name, sizeof name, "n%d.star.example.com", i);
        struct pair p = pair_of(s, c, name);
        shake(&p, 0);
        assert_true(claw_tls_resumed(p.client) == (i >= 4));
        pair_free(&p);
        if (i < 4) break;
    }
    claw_tls_client_unref(c);
    claw_tls_server_unref(s);
}

static void data_behind_the_handshake(void **state)
{
    struct claw_tls_server *s = server_of("good");
    struct claw_tls_client *c = client_of(true);
    char got[64];

    struct pair p = pair_of(s, c, "api.example.com");
    while ((p.client_rc = claw_tls_handshake(p.client)) == CLAW_EAGAIN) {
        carry(p.client, p.server, 0);
        p.server_rc = claw_tls_handshake(p.server);
        if (p.server_rc == 0) assert_int_equal(claw_tls_write(p.server, "hello", 5), 0);
        carry(p.server, p.client, 0);
    }
    assert_int_equal(p.client_rc, 0);
    assert_int_equal(claw_tls_read(p.client, got, sizeof got), 5);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(claw_tls_read(p.client, got, sizeof got), CLAW_EAGAIN);
    pair_free(&p);
    claw_tls_client_unref(c);
    claw_tls_server_unref(s);
}

static void the_ends(void **state)
{
    struct claw_tls_server *s = server_of("good");
    struct claw_tls_client *c = client_of(true);
    char got[64], big[40000], back[40000];

    struct pair p = pair_of(s, c, "api.example.com");
    shake(&p, 0);
    memset(big, 'x', sizeof big);
    assert_int_equal(claw_tls_write(p.server, big, sizeof big), 0); /* more than two records */
    carry(p.server, p.client, 0);
    size_t n = 0;
    for (ptrdiff_t k; n < sizeof back; n += (size_t)k) {
        k = claw_tls_read(p.client, back + n, sizeof back - n > 1000 ? 1000 : sizeof back - n);
        assert_true(k > 0);
    }
    assert_memory_equal(big, back, sizeof big);
    assert_int_equal(claw_tls_write(p.server, "bye", 3), 0);
    assert_int_equal(claw_tls_shutdown(p.server), 0);
    carry(p.server, p.client, 0);
    assert_int_equal(claw_tls_read(p.client, got, sizeof got), 3); /* what came before the end is not lost */
    assert_int_equal(claw_tls_read(p.client, got, sizeof got), 0);
    assert_int_equal(claw_tls_read(p.client, got, sizeof got), 0);
    pair_free(&p);

    p = pair_of(s, c, "api.example.com");
    shake(&p, 0);
    assert_int_equal(claw_tls_write(p.server, "truth", 5), 0);
    struct claw_buf *out = claw_tls_out(p.server);
    out->data[out->len - 1] ^= 1;
    carry(p.server, p.client, 0);
    assert_int_equal(claw_tls_read(p.client, got, sizeof got), CLAW_ETLS);
    assert_int_equal(claw_tls_read(p.client, got, sizeof got), CLAW_ETLS);
    assert_true(strlen(claw_tls_error(p.client)) > 0);
    assert_int_equal(claw_tls_write(p.client, "x", 1), CLAW_ETLS);
    pair_free(&p);
    claw_tls_client_unref(c);
    claw_tls_server_unref(s);
}

/* ---- verification ----------------------------------------------------------------------------------------- */

static void verification(void **state)
{
    static const struct {
        const char *cert, *name;
        bool verify;
        const char *error; /* NULL: accepted */
    } rows[] = {
        {"good", "api.example.com", true, NULL},
        {"good", "API.Example.COM", true, NULL},
        {"good", "api.example.com.", true, NULL},
        {"good", "other.example.com", true, "certificate is not valid for the name other.example.com"},
        {"good", "example.com", true, "certificate is not valid for the name example.com"},
        {"good", "other.example.com", false, NULL},
        {"good", "127.0.0.1", true, "certificate is not valid for the name 127.0.0.1"},
        {"ip", "127.0.0.1", true, NULL},
        {"ip", "127.0.0.2", true, "certificate is not valid for the name 127.0.0.2"},
        {"ip", "::1", true, "certificate is not valid for the name ::1"},
        {"ip", "only-an-address.example.com", true,
         "certificate is not valid for the name only-an-address.example.com"},
        {"cnonly", "cn.example.com", true, "certificate is not valid for the name cn.example.com"},
        {"cnonly", "cn.example.com", false, NULL},
        {"star", "a.star.example.com", true, NULL},
        {"star", "star.example.com", true, "certificate is not valid for the name star.example.com"},
        {"star", "a.b.star.example.com", true, "certificate is not valid for the name a.b.star.example.com"},
        {"wide", "host.test", true, "certificate is not valid for the name host.test"}, /* a star for a whole TLD */
        {"expired", "api.example.com", true, "certificate has expired"},
        {"expired", "api.example.com", false, NULL},
        {"future", "api.example.com", true, "certificate is not yet valid"},
        {"self", "api.example.com", true, "certificate is self-signed or its issuer is not trusted"},
        {"self", "api.example.com", false, NULL},
        {"self", "", false, NULL},
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_tls_server *s = server_of(rows[i].cert);
        struct claw_tls_client *c = client_of(rows[i].verify);
        struct pair p = pair_of(s, c, rows[i].name);
        shake(&p, 0);
        if (rows[i].error) {
            assert_int_equal(p.client_rc, CLAW_ETLS_VERIFY);
            assert_string_equal(claw_tls_error(p.client), rows[i].error);
            assert_int_equal(claw_tls_handshake(p.client), CLAW_ETLS_VERIFY);
            assert_true(p.server_rc != 0);
            struct pair again = pair_of(s, c, rows[i].name); /* nothing of it was kept to resume */
            shake(&again, 0);
            assert_int_equal(again.client_rc, CLAW_ETLS_VERIFY);
            pair_free(&again);
        } else {
            if (p.client_rc != 0) fail_msg("%s for %s: %s", rows[i].cert, rows[i].name, claw_tls_error(p.client));
        }
        pair_free(&p);
        claw_tls_client_unref(c);
        claw_tls_server_unref(s);
    }
}

static void the_peers_alert_is_named(void **state)
{
    struct claw_tls_server *s = server_of("good");
    struct claw_tls_client *c = client_of(true);

    struct pair p = pair_of(s, c, "wrong.example.com");
    shake(&p, 0);
    carry(p.client, p.server, 0);
    assert_int_equal(claw_tls_handshake(p.server), CLAW_ETLS);
    assert_non_null(strstr(claw_tls_error(p.server), "the peer refused the handshake: bad certificate"));
    pair_free(&p);
    claw_tls_client_unref(c);
    claw_tls_server_unref(s);
}

static void client_certificates_are_required(void **state)
{
    struct claw_tls_server *s;
    struct claw_tls_client *c = client_of(true);
    char err[256];

    assert_int_equal(claw_tls_server_new(certs_path("good.pem"), certs_path("good.key"), certs_path("ca.pem"), &s, err,
                                         sizeof err), 0);
    struct pair p = pair_of(s, c, "api.example.com");
    shake(&p, 0);
    assert_int_not_equal(p.server_rc, 0);
    assert_int_not_equal(p.client_rc == 0 && p.server_rc == 0, 1);
    pair_free(&p);
    claw_tls_client_unref(c);
    claw_tls_server_unref(s);
}

/* ---- what is refused -------------------------------------------------------------------------------------- */

static void bad_files_are_named(void **state)
{
    struct claw_tls_server *s;
    struct claw_tls_client *c;
    char err[256];

    assert_int_equal(claw_tls_server_new("/nowhere.pem", certs_path("good.key"), NULL, &s, err, sizeof err),
                     CLAW_EINVAL);
    assert_string_equal(err, "/nowhere.pem: No such file or directory");
    assert_int_equal(claw_tls_server_new(certs_path("good.pem"), certs_path("ip.key"), NULL, &s, err, sizeof err),
                     CLAW_EINVAL);
    assert_non_null(strstr(err, "ip.key: the key does not belong to the certificate"));
    assert_int_equal(claw_tls_server_new(certs_path("good.key"), certs_path("good.key"), NULL, &s, err, sizeof err),
                     CLAW_EINVAL);
    assert_non_null(strstr(err, "good.key: "));
    assert_int_equal(claw_tls_server_new(certs_path("good.pem"), certs_path("good.pem"), NULL, &s, err, sizeof err),
                     CLAW_EINVAL);
    assert_int_equal(claw_tls_server_new(certs_path("good.pem"), certs_path("good.key"), "/nowhere.ca", &s, err,
                                         sizeof err), CLAW_EINVAL);
    assert_non_null(strstr(err, "/nowhere.ca: "));
    assert_int_equal(claw_tls_client_new(certs_path("good.key"), true, &c, err, sizeof err), CLAW_EINVAL);
    char tiny[8];
    assert_int_equal(claw_tls_client_new("/nowhere.pem", true, &c, tiny, sizeof tiny), CLAW_EINVAL);
    assert_int_equal(strlen(tiny), 7);
}

/* Stands before the library's own. */
static _Atomic int setups;
static int setups_that_work = INT32_MAX;
int mbedtls_ssl_setup(mbedtls_ssl_context *ssl, const mbedtls_ssl_config *conf)
{
    int (*real)(mbedtls_ssl_context *, const mbedtls_ssl_config *) = (int (*)(mbedtls_ssl_context *, const mbedtls_ssl_config *))dlsym(RTLD_NEXT, "mbedtls_ssl_setup");
    if (setups++ >= setups_that_work) return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    return real(ssl, conf);
}

static void the_engine_is_made_by_the_first_step(void **state)
{
    struct claw_tls_server *s = server_of("good");
    struct claw_tls_client *c = client_of(true);

    setups = 0;
    struct pair p = pair_of(s, c, "api.example.com");
    assert_int_equal(setups, 0);
    pair_free(&p);
    p = pair_of(s, c, "api.example.com");
    setups_that_work = 1;
    assert_false(claw_tls_started(p.client));
    assert_false(claw_tls_lacks_bytes(p.client)); /* there is a flight to make */
    assert_int_equal(claw_tls_handshake(p.client), CLAW_EAGAIN);
    assert_int_equal(setups, 1);
    assert_true(claw_tls_started(p.client));
    assert_true(claw_tls_lacks_bytes(p.client));
    claw_tls_end(p.client);
    carry(p.client, p.server, 0);
    assert_true(claw_tls_heavy(p.server));
    assert_int_equal(claw_tls_handshake(p.server), CLAW_ENOMEM);
    assert_string_equal(claw_tls_error(p.server), claw_err_text(CLAW_ENOMEM));
    assert_int_equal(claw_tls_handshake(p.server), CLAW_ENOMEM); /* and so it stays */
    assert_int_equal(setups, 2);
    assert_false(claw_tls_heavy(p.server));
    setups_that_work = INT32_MAX;
    pair_free(&p);
    claw_tls_server_unref(s);
    claw_tls_client_unref(c);
}

static void bad_names_are_refused(void **state)
{
    struct claw_tls_client *c = client_of(true);
    struct claw_tls *t;
    char name[300];

    memset(name, 'a', sizeof name);
    assert_int_equal(claw_tls_new(NULL, c, (struct claw_str){name, sizeof name}, &t), CLAW_EINVAL);
    assert_int_equal(claw_tls_new(NULL, c, (struct claw_str){"a\0b", 3}, &t), CLAW_EINVAL);
    assert_int_equal(claw_tls_new(NULL, c, CLAW_STR(""), &t), CLAW_EINVAL);
    claw_tls_client_unref(c);
}

static void garbage_is_refused(void **state)
{
    struct claw_tls_server *s = server_of("good");
    struct claw_tls_client *c = client_of(true);
    static char big[300000];
    unsigned seed = 1;

    for (int round = 0; round < 300; round++) {
        struct pair p = pair_of(s, c, "api.example.com");
        unsigned char junk[600];
        for (unsigned i = 0; i < sizeof junk; i++) {
            seed = seed * 1103515245u + 12345u;
            junk[i] = (unsigned char)(seed >> 16);
        }
        if (round % 2) memcpy(junk, "\x16\x03\x03\x00\x50\x01\x00\x00", 8);
        assert_int_equal(claw_tls_feed(p.server, (char *)junk, sizeof junk), 0);
        assert_int_equal(claw_tls_handshake(p.server), CLAW_ETLS);
        assert_int_equal(claw_tls_handshake(p.client), CLAW_EAGAIN);
        if (round % 2) junk[5] = 2;
        assert_int_equal(claw_tls_feed(p.client, (char *)junk, sizeof junk), 0);
        assert_int_equal(claw_tls_handshake(p.client), CLAW_ETLS);
        pair_free(&p);
    }
    struct pair p = pair_of(s, c, "api.example.com");
    assert_int_equal(claw_tls_feed(p.server, big, sizeof big), CLAW_ENOMEM); /* bounded */
    pair_free(&p);
    claw_tls_client_unref(c);
    claw_tls_server_unref(s);
}

/* ---- threads ---------------------------------------------------------------------------------------------- */

static struct claw_tls_server *shared_server;
static struct claw_tls_client *shared_client;

static void *shake_many(void *arg)
{
    int *done = arg;

    for (int i = 0; i < 6; i++) {
        struct pair p = {0};
        if (claw_tls_new(shared_server, NULL, CLAW_STR(""), &p.server) != 0) break;
        if (claw_tls_new(NULL, shared_client, CLAW_STR("api.example.com"), &p.client) != 0) break;
        for (int k = 0; k < 100 && (claw_tls_handshake(p.client) != 0 || claw_tls_handshake(p.server) != 0); k++) {
            carry(p.client, p.server, 0);
            (void)!claw_tls_handshake(p.server);
            carry(p.server, p.client, 0);
        }
        if (claw_tls_handshake(p.client) == 0 && claw_tls_handshake(p.server) == 0) (*done)++;
        pair_free(&p);
    }
    return NULL;
}

static void contexts_are_shared_by_threads(void **state)
{
    pthread_t thread[3];
    int done[3] = {0};
    uint64_t all, resumed;

    shared_server = server_of("good");
    shared_client = client_of(true);
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&thread[i], NULL, shake_many, &done[i]), 0);
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 3; i++) assert_int_equal(done[i], 6);
    claw_tls_client_counts(shared_client, &all, &resumed);
    assert_int_equal(all, 18);
    assert_true(resumed >= 15);
    claw_tls_client_unref(shared_client);
    claw_tls_server_unref(shared_server);
}

static int make_certs(void **state)
{
    certs_start();
    certs_add(&(struct certs_spec){.file = "good", .cn = "good", .dns = "api.example.com"});
    certs_add(&(struct certs_spec){.file = "ip", .cn = "only-an-address.example.com", .ip = "\x7f\0\0\1", .ip_len = 4});
    certs_add(&(struct certs_spec){.file = "cnonly", .cn = "cn.example.com"});
    certs_add(&(struct certs_spec){.file = "expired", .cn = "e", .dns = "api.example.com", .to = "20210101000000"});
    certs_add(&(struct certs_spec){.file = "future", .cn = "f", .dns = "api.example.com", .from = "20980101000000"});
    certs_add(&(struct certs_spec){.file = "self", .cn = "s", .dns = "api.example.com", .self_signed = 1});
    certs_add(&(struct certs_spec){.file = "star", .cn = "*", .dns = "*.star.example.com"});
    certs_add(&(struct certs_spec){.file = "wide", .cn = "w", .dns = "*.test"});
    return 0;
}

static int remove_certs(void **state)
{
    certs_remove(files);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_then_resumed),
        cmocka_unit_test(every_step_size),
        cmocka_unit_test(resumption_refused),
        cmocka_unit_test(sessions_are_kept_by_name),
        cmocka_unit_test(data_behind_the_handshake),
        cmocka_unit_test(the_ends),
        cmocka_unit_test(verification),
        cmocka_unit_test(the_peers_alert_is_named),
        cmocka_unit_test(client_certificates_are_required),
        cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(the_engine_is_made_by_the_first_step),
        cmocka_unit_test(bad_names_are_refused),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(contexts_are_shared_by_threads),
    };

    alarm(300);
    return cmocka_run_group_tests_name("net/tls", tests, make_certs, remove_certs);
}
