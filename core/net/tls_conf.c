#include "net/tls_part.h"

#include <errno.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TICKET_S 86400u
#define SESSION_S 86400u /* after this long the certificate is looked at again */

/* ---- randomness ------------------------------------------------------------------------------------------- */

/* A generator a thread, seeded by the system: with one for all, a loop would wait for a thread of lower priority that holds
 * its lock (offload.h). */
struct rng {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    bool seeded;
};

static __thread struct rng rng;
static pthread_key_t rng_end;

static void rng_free(void *arg)
{
    struct rng *r = arg;

    mbedtls_ctr_drbg_free(&r->drbg);
    mbedtls_entropy_free(&r->entropy);
    r->seeded = false;
}

static void rng_once(void)
{
    int rc = pthread_key_create(&rng_end, rng_free);
    CLAW_ASSERT(rc == 0);
#if MBEDTLS_VERSION_MAJOR >= 3
    rc = psa_crypto_init();
    CLAW_ASSERT(rc == 0);
#endif
}

static int rng_seed(struct rng *r)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, rng_once);
    mbedtls_entropy_init(&r->entropy);
    mbedtls_ctr_drbg_init(&r->drbg);
    int rc = mbedtls_ctr_drbg_seed(&r->drbg, mbedtls_entropy_func, &r->entropy, NULL, 0);
    if (rc == 0 && pthread_setspecific(rng_end, r) != 0) rc = MBEDTLS_ERR_CTR_DRBG_ENTROPY_SOURCE_FAILED;
    if (rc != 0) rng_free(r);
    else r->seeded = true;
    return rc;
}

int claw_tls_random(void *unused, unsigned char *to, size_t n)
{
    int rc = rng.seeded ? 0 : rng_seed(&rng);

    for (size_t k; n > 0 && rc == 0; to += k, n -= k) {
        k = n < MBEDTLS_CTR_DRBG_MAX_REQUEST ? n : MBEDTLS_CTR_DRBG_MAX_REQUEST;
        rc = mbedtls_ctr_drbg_random(&rng.drbg, to, k);
    }
    return rc;
}

/* ---- what both sides share -------------------------------------------------------------------------------- */

/* ECDHE and authenticated encryption only. On 2.28 ChaCha20-Poly1305 runs at 256 MB/s where AES-GCM does
 * 131 to 187 (one core); 3.6 uses the CPU's AES better. */
static const int ciphers[] = {
#if MBEDTLS_VERSION_NUMBER < 0x03060000
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
#if MBEDTLS_VERSION_NUMBER >= 0x03060000
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
#endif
    0,
};

#if MBEDTLS_VERSION_MAJOR >= 3
static const uint16_t groups[] = {MBEDTLS_SSL_IANA_TLS_GROUP_X25519, MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                  MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
#else
static const mbedtls_ecp_group_id groups[] = {MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1,
                                              MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_NONE};
#endif

static int conf_start(mbedtls_ssl_config *conf, int side)
{
    mbedtls_ssl_config_init(conf);
    int rc = mbedtls_ssl_config_defaults(conf, side, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (rc != 0) return rc;
    mbedtls_ssl_conf_rng(conf, claw_tls_random, NULL);
    mbedtls_ssl_conf_ciphersuites(conf, ciphers);
#if MBEDTLS_VERSION_MAJOR >= 3
    mbedtls_ssl_conf_groups(conf, groups);
    mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
    /* The engine tells a resumed handshake by TLS 1.2's messages; 1.3 hides them and sends its tickets later. */
    mbedtls_ssl_conf_max_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
#else
    mbedtls_ssl_conf_curves(conf, groups);
    mbedtls_ssl_conf_min_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#endif
    return 0;
}

static int fail(char *err, size_t size, const char *file, int rc)
{
    char text[160];

    if (access(file, R_OK) != 0)
        snprintf(text, sizeof text, "%s", strerror(errno));
    else
        claw_tls_error_text(rc, text, sizeof text);
    snprintf(err, size, "%s: %s", file, text);
    return CLAW_EINVAL;
}

/* ---- roots ------------------------------------------------------------------------------------------------ */

static void roots_free(struct claw_tls_roots *r)
{
    if (!r) return;
    mbedtls_x509_crt_free(&r->chain);
    pthread_mutex_destroy(&r->verifying);
    free(r);
}

/* Certificates of a bundle that mbedTLS cannot read are left out; it must be able to read one. */
static int roots_load(const char *file, struct claw_tls_roots **out, char *err, size_t err_size)
{
    struct claw_tls_roots *r = calloc(1, sizeof *r);

    if (!r) {
        snprintf(err, err_size, "%s: out of memory", file);
        return CLAW_ENOMEM;
    }
    mbedtls_x509_crt_init(&r->chain);
    pthread_mutex_init(&r->verifying, NULL);
    int rc = mbedtls_x509_crt_parse_file(&r->chain, file);
    if (rc < 0 || !r->chain.raw.p) {
        rc = fail(err, err_size, file, rc < 0 ? rc : MBEDTLS_ERR_X509_INVALID_FORMAT);
        roots_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

/* The system's roots live as long as the process. */
static int system_roots(struct claw_tls_roots **out, char *err, size_t err_size)
{
    static const char *const files[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                        "/etc/ssl/cert.pem"};
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct claw_tls_roots *roots;
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (!roots) {
        size_t i = 0, n = sizeof files / sizeof *files;
        while (i < n && access(files[i], R_OK) != 0) i++;
        if (i < n) {
            rc = roots_load(files[i], &roots, err, err_size);
        } else {
            snprintf(err, err_size, "%s: no root certificates on this system (install ca-certificates)", files[0]);
            rc = CLAW_EINVAL;
        }
    }
    *out = roots;
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- server ----------------------------------------------------------------------------------------------- */

static int key_load(mbedtls_pk_context *key, const char *file)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_pk_parse_keyfile(key, file, NULL, claw_tls_random, NULL);
#else
    int rc = mbedtls_pk_parse_keyfile(key, file, NULL);
    if (rc != 0 || !mbedtls_pk_can_do(key, MBEDTLS_PK_ECDSA)) return rc;
    /* The first use of an EC key writes tables into it: now, while one thread has it. */
    unsigned char hash[32] = {0}, sig[MBEDTLS_PK_SIGNATURE_MAX_SIZE];
    size_t n;
    return mbedtls_pk_sign(key, MBEDTLS_MD_SHA256, hash, sizeof hash, sig, &n, claw_tls_random, NULL);
#endif
}

static bool key_fits(struct claw_tls_server *s)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_pk_check_pair(&s->chain.pk, &s->key, claw_tls_random, NULL) == 0;
#else
    return mbedtls_pk_check_pair(&s->chain.pk, &s->key) == 0;
#endif
}

static int server_load(struct claw_tls_server *s, const char *cert, const char *key, const char *client_ca, char *err,
                       size_t err_size)
{
    int rc = conf_start(&s->conf, MBEDTLS_SSL_IS_SERVER);

    if (rc == 0)
        rc = mbedtls_ssl_ticket_setup(&s->tickets, claw_tls_random, NULL, MBEDTLS_CIPHER_AES_256_GCM, TICKET_S);
    if (rc != 0) return fail(err, err_size, cert, rc);
    rc = mbedtls_x509_crt_parse_file(&s->chain, cert);
    if (rc != 0) return fail(err, err_size, cert, rc < 0 ? rc : MBEDTLS_ERR_X509_INVALID_FORMAT);
    rc = key_load(&s->key, key);
    if (rc != 0) return fail(err, err_size, key, rc);
    if (!key_fits(s)) {
        snprintf(err, err_size, "%s: the key does not belong to the certificate %s", key, cert);
        return CLAW_EINVAL;
    }
    rc = mbedtls_ssl_conf_own_cert(&s->conf, &s->chain, &s->key);
    if (rc != 0) return fail(err, err_size, cert, rc);
    mbedtls_ssl_conf_session_tickets_cb(&s->conf, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse, &s->tickets);
    if (client_ca) {
        rc = roots_load(client_ca, &s->client_ca, err, err_size);
        if (rc != 0) return rc;
        mbedtls_ssl_conf_ca_chain(&s->conf, &s->client_ca->chain, NULL);
        mbedtls_ssl_conf_authmode(&s->conf, MBEDTLS_SSL_VERIFY_REQUIRED);
    }
    return 0;
}

int claw_tls_server_new(const char *cert, const char *key, const char *client_ca, struct claw_tls_server **out,
                        char *err, size_t err_size)
{
    struct claw_tls_server *s = calloc(1, sizeof *s);

    if (!s) {
        snprintf(err, err_size, "%s: out of memory", cert);
        return CLAW_ENOMEM;
    }
    atomic_init(&s->refs, 1);
    mbedtls_x509_crt_init(&s->chain);
    mbedtls_pk_init(&s->key);
    mbedtls_ssl_ticket_init(&s->tickets);
    int rc = server_load(s, cert, key, client_ca, err, err_size);
    if (rc != 0) {
        claw_tls_server_unref(s);
        return rc;
    }
    *out = s;
    return 0;
}

struct claw_tls_server *claw_tls_server_ref(struct claw_tls_server *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void claw_tls_server_unref(struct claw_tls_server *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    mbedtls_ssl_config_free(&s->conf);
    mbedtls_ssl_ticket_free(&s->tickets);
    mbedtls_x509_crt_free(&s->chain);
    mbedtls_pk_free(&s->key);
    roots_free(s->client_ca);
    free(s);
}

/* ---- client ----------------------------------------------------------------------------------------------- */

int claw_tls_client_new(const char *ca, bool verify, struct claw_tls_client **out, char *err, size_t err_size)
{
    struct claw_tls_client *c = calloc(1, sizeof *c);
    int rc = 0;

    if (!c) {
        snprintf(err, err_size, "out of memory");
        return CLAW_ENOMEM;
    }
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    c->verify = verify;
    c->own_roots = ca != NULL;
    if (conf_start(&c->conf, MBEDTLS_SSL_IS_CLIENT) != 0) {
        snprintf(err, err_size, "TLS cannot be set up");
        rc = CLAW_EINVAL;
    } else if (ca) {
        rc = roots_load(ca, &c->roots, err, err_size);
    } else if (verify) {
        rc = system_roots(&c->roots, err, err_size);
    }
    if (rc != 0) {
        claw_tls_client_unref(c);
        return rc;
    }
    if (c->roots) mbedtls_ssl_conf_ca_chain(&c->conf, &c->roots->chain, NULL);
    mbedtls_ssl_conf_authmode(&c->conf, verify ? MBEDTLS_SSL_VERIFY_REQUIRED : MBEDTLS_SSL_VERIFY_NONE);
    *out = c;
    return 0;
}

struct claw_tls_client *claw_tls_client_ref(struct claw_tls_client *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

static void session_clear(struct claw_tls_session *s)
{
    if (s->name[0]) mbedtls_ssl_session_free(&s->data);
    s->name[0] = 0;
    s->used = 0;
}

void claw_tls_client_unref(struct claw_tls_client *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < CLAW_TLS_SESSIONS; i++) session_clear(&c->sessions[i]);
    mbedtls_ssl_config_free(&c->conf);
    if (c->own_roots) roots_free(c->roots);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void claw_tls_client_counts(const struct claw_tls_client *c, uint64_t *handshakes, uint64_t *resumed)
{
    *handshakes = atomic_load_explicit(&c->handshakes, memory_order_relaxed);
    *resumed = atomic_load_explicit(&c->resumed, memory_order_relaxed);
}

/* ---- sessions --------------------------------------------------------------------------------------------- */

static uint64_t clock_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

static struct claw_tls_session *session_find(struct claw_tls_client *c, const char *name)
{
    for (size_t i = 0; i < CLAW_TLS_SESSIONS; i++)
        if (strcmp(c->sessions[i].name, name) == 0) return &c->sessions[i];
    return NULL;
}

bool claw_tls_session_offer(struct claw_tls_client *c, const char *name, mbedtls_ssl_context *ssl)
{
    bool offered = false;

    if (!name[0]) return false;
    pthread_mutex_lock(&c->lock);
    struct claw_tls_session *s = session_find(c, name);
    if (s && clock_s() - s->verified_s >= SESSION_S)
        session_clear(s);
    else if (s) {
        offered = mbedtls_ssl_set_session(ssl, &s->data) == 0;
        s->used = ++c->uses;
    }
    pthread_mutex_unlock(&c->lock);
    return offered;
}

void claw_tls_session_keep(struct claw_tls_client *c, const char *name, const mbedtls_ssl_context *ssl, bool resumed)
{
    mbedtls_ssl_session fresh;

    if (!name[0]) return;
    mbedtls_ssl_session_init(&fresh);
    if (mbedtls_ssl_get_session(ssl, &fresh) != 0) {
        mbedtls_ssl_session_free(&fresh);
        return;
    }
    pthread_mutex_lock(&c->lock);
    struct claw_tls_session *s = session_find(c, name);
    uint64_t verified_s = s && resumed ? s->verified_s : clock_s();
    if (resumed && !s) { /* dropped meanwhile: the certificate's age is not known any more */
        mbedtls_ssl_session_free(&fresh);
    } else {
        for (size_t i = 0; !s && i < CLAW_TLS_SESSIONS; i++)
            if (!c->sessions[i].name[0]) s = &c->sessions[i];
        if (!s) {
            s = &c->sessions[0];
            for (size_t i = 1; i < CLAW_TLS_SESSIONS; i++)
                if (c->sessions[i].used < s->used) s = &c->sessions[i];
        }
        session_clear(s);
        snprintf(s->name, sizeof s->name, "%s", name);
        s->data = fresh; /* moved: fresh owns nothing any more */
        s->verified_s = verified_s;
        s->used = ++c->uses;
    }
    pthread_mutex_unlock(&c->lock);
}

void claw_tls_session_drop(struct claw_tls_client *c, const char *name)
{
    if (!name[0]) return;
    pthread_mutex_lock(&c->lock);
    struct claw_tls_session *s = session_find(c, name);
    if (s) session_clear(s);
    pthread_mutex_unlock(&c->lock);
}
