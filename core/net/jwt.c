#include "net/jwt.h"

#include "net/tls_part.h"

#include <mbedtls/md.h>
#include <mbedtls/pk.h>
#include <mbedtls/version.h>

#define SIGNATURE_MAX 1024 /* a key of 8192 bits */

static int read_key(mbedtls_pk_context *pk, struct claw_str key)
{
    const unsigned char *text = (const unsigned char *)key.ptr;
#if MBEDTLS_VERSION_MAJOR >= 3
    int rc = mbedtls_pk_parse_key(pk, text, key.len + 1, NULL, 0, claw_tls_random, NULL);
#else
    int rc = mbedtls_pk_parse_key(pk, text, key.len + 1, NULL, 0);
#endif
    return rc == 0 && mbedtls_pk_can_do(pk, MBEDTLS_PK_RSA) && mbedtls_pk_get_bitlen(pk) <= SIGNATURE_MAX * 8 ? 0 : CLAW_EINVAL;
}

bool claw_jwt_key_good(struct claw_str key)
{
    mbedtls_pk_context pk;
    mbedtls_pk_init(&pk);
    int rc = read_key(&pk, key);
    mbedtls_pk_free(&pk);
    return rc == 0;
}

/* RFC 4648 5, without padding. */
static int add_base64(struct claw_buf *b, const void *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const unsigned char *p = data;
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i += 3) {
        size_t left = n - i < 3 ? n - i : 3;
        unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], digits[v >> 6 & 63], digits[v & 63]};
        rc = claw_buf_add(b, four, left + 1);
    }
    return rc;
}

static int add_header(struct claw_buf *out, struct claw_str key_id)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    int rc = claw_buf_add_z(&b, "{\"alg\":\"RS256\",\"typ\":\"JWT\"");
    if (rc == 0 && key_id.len) rc = claw_buf_add_z(&b, ",\"kid\":");
    if (rc == 0 && key_id.len) rc = claw_buf_add_json(&b, key_id);
    if (rc == 0) rc = claw_buf_add_z(&b, "}");
    struct claw_str s = claw_buf_str(&b);
    if (rc == 0) rc = add_base64(out, s.ptr, s.len);
    claw_buf_fini(&b);
    return rc;
}

static int sign(struct claw_str text, struct claw_str key, unsigned char *to, size_t *n)
{
    unsigned char hash[32];
    mbedtls_pk_context pk;
    mbedtls_pk_init(&pk);
    int rc = read_key(&pk, key);
    if (rc == 0 && mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), (const unsigned char *)text.ptr, text.len, hash) != 0) rc = CLAW_ENOMEM;
#if MBEDTLS_VERSION_MAJOR >= 3
    if (rc == 0 && mbedtls_pk_sign(&pk, MBEDTLS_MD_SHA256, hash, sizeof hash, to, SIGNATURE_MAX, n, claw_tls_random, NULL) != 0) rc = CLAW_EINVAL;
#else
    if (rc == 0 && mbedtls_pk_sign(&pk, MBEDTLS_MD_SHA256, hash, sizeof hash, to, n, claw_tls_random, NULL) != 0) rc = CLAW_EINVAL;
#endif
    mbedtls_pk_free(&pk);
    return rc;
}

int claw_jwt_write(struct claw_buf *out, struct claw_str claims, struct claw_str key, struct claw_str key_id)
{
    unsigned char signature[SIGNATURE_MAX];
    size_t before = claw_buf_size(out), n = 0;
    int rc = add_header(out, key_id);
    if (rc == 0) rc = claw_buf_add_z(out, ".");
    if (rc == 0) rc = add_base64(out, claims.ptr, claims.len);
    struct claw_str text = claw_buf_str(out);
    text.ptr += before;
    text.len -= before;
    if (rc == 0) rc = sign(text, key, signature, &n);
    if (rc == 0) rc = claw_buf_add_z(out, ".");
    return rc == 0 ? add_base64(out, signature, n) : rc;
}
