/* certs: certificates for the tests of tls and stream, made with mbedTLS itself; PEM files in a folder of their
 * own that certs_remove takes away.
 */
#ifndef CLAW_TEST_CERTS_H
#define CLAW_TEST_CERTS_H

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/oid.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CERTS_CHECK(call)                                                                  \
    do {                                                                                   \
        int certs_rc = (call);                                                             \
        if (certs_rc != 0) {                                                               \
            fprintf(stderr, "certs: %s: -0x%04x\n", #call, (unsigned)-certs_rc);           \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

static struct {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_pk_context ca_key;
    char dir[64];
} certs;

struct certs_spec {
    const char *file;      /* <file>.pem and <file>.key */
    const char *cn;
    const char *dns;       /* SubjectAltName dNSName; NULL: none */
    const char *ip;        /* iPAddress, raw bytes */
    size_t ip_len;
    const char *from, *to; /* NULL: 2020 to 2099 */
    int self_signed;
};

__attribute__((unused)) static const char *certs_path(const char *name)
{
    static char paths[8][128];
    static unsigned at;
    char *p = paths[at++ % 8];

    snprintf(p, sizeof paths[0], "%s/%s", certs.dir, name);
    return p;
}

static void certs_write(const char *file, const char *ending, const unsigned char *pem)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s%s", certs.dir, file, ending);
    FILE *f = fopen(path, "w");
    if (!f || fputs((const char *)pem, f) < 0 || fclose(f) != 0) abort();
}

static void certs_key(mbedtls_pk_context *key)
{
    mbedtls_pk_init(key);
    CERTS_CHECK(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)));
    CERTS_CHECK(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), mbedtls_ctr_drbg_random,
                                    &certs.drbg));
}

static size_t certs_san(const struct certs_spec *s, unsigned char *to)
{
    size_t n = 2;

    if (s->dns) {
        to[n++] = 0x82;
        to[n++] = (unsigned char)strlen(s->dns);
        memcpy(to + n, s->dns, strlen(s->dns));
        n += strlen(s->dns);
    }
    if (s->ip_len) {
        to[n++] = 0x87;
        to[n++] = (unsigned char)s->ip_len;
        memcpy(to + n, s->ip, s->ip_len);
        n += s->ip_len;
    }
    to[0] = 0x30;
    to[1] = (unsigned char)(n - 2);
    return n;
}

static void certs_make(const struct certs_spec *s, mbedtls_pk_context *key, int is_ca)
{
    static int serial;
    unsigned char pem[8192], san[128];
    char subject[128];
    mbedtls_x509write_cert w;
    mbedtls_pk_context *issuer = s->self_signed ? key : &certs.ca_key;

    mbedtls_x509write_crt_init(&w);
    mbedtls_x509write_crt_set_version(&w, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&w, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&w, key);
    mbedtls_x509write_crt_set_issuer_key(&w, issuer);
    snprintf(subject, sizeof subject, "CN=%s", s->cn);
    CERTS_CHECK(mbedtls_x509write_crt_set_subject_name(&w, subject));
    CERTS_CHECK(mbedtls_x509write_crt_set_issuer_name(&w, s->self_signed ? subject : "CN=Test Root"));
    mbedtls_mpi number;
    mbedtls_mpi_init(&number);
    CERTS_CHECK(mbedtls_mpi_lset(&number, ++serial));
    CERTS_CHECK(mbedtls_x509write_crt_set_serial(&w, &number));
    CERTS_CHECK(mbedtls_x509write_crt_set_validity(&w, s->from ? s->from : "20200101000000",
                                                   s->to ? s->to : "20991231235959"));
    CERTS_CHECK(mbedtls_x509write_crt_set_basic_constraints(&w, is_ca, is_ca ? 1 : -1));
    if (s->dns || s->ip_len)
        CERTS_CHECK(mbedtls_x509write_crt_set_extension(&w, MBEDTLS_OID_SUBJECT_ALT_NAME,
                                                        MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), 0, san,
                                                        certs_san(s, san)));
    CERTS_CHECK(mbedtls_x509write_crt_pem(&w, pem, sizeof pem, mbedtls_ctr_drbg_random, &certs.drbg));
    certs_write(s->file, ".pem", pem);
    CERTS_CHECK(mbedtls_pk_write_key_pem(key, pem, sizeof pem));
    certs_write(s->file, ".key", pem);
    mbedtls_mpi_free(&number);
    mbedtls_x509write_crt_free(&w);
}

__attribute__((unused)) static void certs_add(const struct certs_spec *s)
{
    mbedtls_pk_context key;

    certs_key(&key);
    certs_make(s, &key, 0);
    mbedtls_pk_free(&key);
}

/* The folder and its root: ca.pem. */
static void certs_start(void)
{
    const char *base = getenv("TMPDIR");

    snprintf(certs.dir, sizeof certs.dir, "%.40s/claw-certs-XXXXXX", base ? base : P_tmpdir);
    if (!mkdtemp(certs.dir)) abort();
    mbedtls_entropy_init(&certs.entropy);
    mbedtls_ctr_drbg_init(&certs.drbg);
    CERTS_CHECK(mbedtls_ctr_drbg_seed(&certs.drbg, mbedtls_entropy_func, &certs.entropy, NULL, 0));
    certs_key(&certs.ca_key);
    certs_make(&(struct certs_spec){.file = "ca", .cn = "Test Root", .self_signed = 1}, &certs.ca_key, 1);
}

static void certs_remove(const char *const *files)
{
    char path[128];

    for (; *files; files++) {
        snprintf(path, sizeof path, "%s/%s.pem", certs.dir, *files);
        unlink(path);
        snprintf(path, sizeof path, "%s/%s.key", certs.dir, *files);
        unlink(path);
    }
    rmdir(certs.dir);
    mbedtls_pk_free(&certs.ca_key);
    mbedtls_ctr_drbg_free(&certs.drbg);
    mbedtls_entropy_free(&certs.entropy);
}

#endif
