#include "net/tls_part.h"

#include <arpa/inet.h>
#include <mbedtls/asn1.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <stdio.h>

#define SAN_DNS 2
#define SAN_IP 7

int claw_tls_name_parse(struct claw_str text, struct claw_tls_name *out)
{
    *out = (struct claw_tls_name){.ip_len = 0};
    if (text.len && text.ptr[text.len - 1] == '.') text.len--; /* the root's dot is no part of SNI (RFC 6066 3) */
    if (text.len >= sizeof out->text) return CLAW_EINVAL;
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] <= ' ' || (unsigned char)text.ptr[i] >= 0x7f) return CLAW_EINVAL;
    if (text.len) memcpy(out->text, text.ptr, text.len);
    if (inet_pton(AF_INET, out->text, out->ip) == 1)
        out->ip_len = 4;
    else if (inet_pton(AF_INET6, out->text, out->ip) == 1)
        out->ip_len = 16;
    return 0;
}

/* RFC 6125 6.4.3: a star stands for the whole leftmost label, of a name of at least three. */
static bool dns_matches(struct claw_str pattern, struct claw_str name)
{
    if (claw_str_ieq(pattern, name)) return true;
    if (pattern.len < 3 || pattern.ptr[0] != '*' || pattern.ptr[1] != '.') return false;
    const char *dot = memchr(name.ptr, '.', name.len);
    if (!dot || dot == name.ptr) return false;
    struct claw_str rest = {dot, name.len - (size_t)(dot - name.ptr)};
    pattern.ptr++, pattern.len--;
    return memchr(pattern.ptr + 1, '.', pattern.len - 1) && claw_str_ieq(pattern, rest);
}

static bool san_matches(unsigned tag, const unsigned char *p, size_t len, const struct claw_tls_name *name)
{
    if (name->ip_len) return tag == SAN_IP && len == name->ip_len && memcmp(p, name->ip, len) == 0;
    return tag == SAN_DNS && dns_matches((struct claw_str){(const char *)p, len}, claw_str_of(name->text));
}

/* Walk the names inside one SubjectAltName: SEQUENCE OF [n] bytes (RFC 5280 4.2.1.6). */
static bool names_match(unsigned char *p, const unsigned char *end, const struct claw_tls_name *name)
{
    size_t len;

    if (mbedtls_asn1_get_tag(&p, end, &len, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE) != 0) return false;
    end = p + len;
    while (p < end) {
        unsigned char tag = *p;
        if (mbedtls_asn1_get_tag(&p, end, &len, tag) != 0) return false;
        if ((tag & 0xe0) == MBEDTLS_ASN1_CONTEXT_SPECIFIC && san_matches(tag & 0x1f, p, len, name)) return true;
        p += len;
    }
    return false;
}

/* The extensions' bytes are walked here because 2.28 keeps no address from them, and falls back to the subject's
 * common name when there are none. */
static bool certificate_matches(const mbedtls_x509_crt *crt, const struct claw_tls_name *name)
{
    unsigned char *p = crt->v3_ext.p;
    const unsigned char *end = p + crt->v3_ext.len;
    size_t len;

    if (!p || mbedtls_asn1_get_tag(&p, end, &len, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE) != 0) return false;
    end = p + len;
    while (p < end) {
        if (mbedtls_asn1_get_tag(&p, end, &len, MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE) != 0) return false;
        unsigned char *ext = p;
        const unsigned char *ext_end = p + len;
        p += len;
        if (mbedtls_asn1_get_tag(&ext, ext_end, &len, MBEDTLS_ASN1_OID) != 0) return false;
        bool san = len == 3 && memcmp(ext, MBEDTLS_OID_SUBJECT_ALT_NAME, 3) == 0;
        ext += len;
        int critical;
        (void)!mbedtls_asn1_get_bool(&ext, ext_end, &critical);
        if (mbedtls_asn1_get_tag(&ext, ext_end, &len, MBEDTLS_ASN1_OCTET_STRING) != 0) return false;
        if (san) return names_match(ext, ext + len, name);
    }
    return false;
}

int claw_tls_verify(void *arg, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
    if (depth == 0 && !certificate_matches(crt, arg)) *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    return 0;
}

void claw_tls_verify_text(uint32_t flags, const char *name, char *to, size_t size)
{
    static const struct {
        uint32_t flags;
        const char *text;
    } rows[] = {
        {MBEDTLS_X509_BADCERT_MISSING, "the peer sent no certificate"},
        {MBEDTLS_X509_BADCERT_EXPIRED, "certificate has expired"},
        {MBEDTLS_X509_BADCERT_FUTURE, "certificate is not yet valid"},
        {MBEDTLS_X509_BADCERT_REVOKED, "certificate has been revoked"},
        {MBEDTLS_X509_BADCERT_BAD_MD | MBEDTLS_X509_BADCERT_BAD_PK | MBEDTLS_X509_BADCERT_BAD_KEY,
         "certificate uses a key or a signature that is too weak"},
        {MBEDTLS_X509_BADCERT_NOT_TRUSTED, "certificate is self-signed or its issuer is not trusted"},
        {MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE | MBEDTLS_X509_BADCERT_NS_CERT_TYPE,
         "certificate is not meant for this use"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!(flags & rows[i].flags)) continue;
        snprintf(to, size, "%s", rows[i].text);
        return;
    }
    if (flags & MBEDTLS_X509_BADCERT_CN_MISMATCH)
        snprintf(to, size, "certificate is not valid for the name %s", name);
    else
        snprintf(to, size, "certificate verification failed");
}

void claw_tls_error_text(int rc, char *to, size_t size) { mbedtls_strerror(rc, to, size); }

const char *claw_tls_alert_text(unsigned alert)
{
    switch (alert) {
    case 0: return "close notify";
    case 10: return "unexpected message";
    case 20: return "bad record MAC";
    case 40: return "handshake failure";
    case 42: return "bad certificate";
    case 43: return "unsupported certificate";
    case 44: return "certificate revoked";
    case 45: return "certificate expired";
    case 46: return "certificate unknown";
    case 47: return "illegal parameter";
    case 48: return "unknown CA";
    case 49: return "access denied";
    case 50: return "decode error";
    case 51: return "decrypt error";
    case 70: return "protocol version";
    case 71: return "insufficient security";
    case 80: return "internal error";
    case 86: return "inappropriate fallback";
    case 112: return "unrecognized name";
    case 116: return "certificate required";
    case 120: return "no application protocol";
    default: return "a fatal alert";
    }
}
