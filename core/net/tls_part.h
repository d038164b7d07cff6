/* tls_part: what tls.c (one connection), tls_conf.c (contexts, sessions, roots) and tls_verify.c (names, sentences)
 * know of each other. For these three files only.
 */
#ifndef CLAW_NET_TLS_PART_H
#define CLAW_NET_TLS_PART_H

#include "net/tls.h"

#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <pthread.h>
#include <stdatomic.h>

#define CLAW_TLS_NAME_BYTES 256u
#define CLAW_TLS_SESSIONS 8u

/* Trusted certificates. mbedTLS 2.28 fills tables inside an EC key on its first use, also when it only verifies
 * (ecp_mul_comb keeps grp->T): whoever verifies against shared roots holds the lock meanwhile. */
struct claw_tls_roots {
    mbedtls_x509_crt chain;
    pthread_mutex_t verifying;
};

struct claw_tls_server {
    atomic_uint refs;
    mbedtls_ssl_config conf;
    mbedtls_x509_crt chain;
    mbedtls_pk_context key;
    mbedtls_ssl_ticket_context tickets;
    struct claw_tls_roots *client_ca; /* NULL: clients need no certificate */
};

/* A session that was agreed on with `name`. Empty when name is "". */
struct claw_tls_session {
    char name[CLAW_TLS_NAME_BYTES];
    uint64_t verified_s, used; /* when the certificate was last looked at; order of use */
    mbedtls_ssl_session data;
};

struct claw_tls_client {
    atomic_uint refs;
    mbedtls_ssl_config conf;
    struct claw_tls_roots *roots;
    bool own_roots; /* else the process's */
    bool verify;
    atomic_ullong handshakes, resumed;
    pthread_mutex_t lock; /* of what follows */
    struct claw_tls_session sessions[CLAW_TLS_SESSIONS];
    uint64_t uses;
};

/* The name a certificate must be for: text, and the address when it is one (ip_len 4 or 16). */
struct claw_tls_name {
    char text[CLAW_TLS_NAME_BYTES];
    unsigned char ip[16];
    size_t ip_len;
};

/* mbedTLS's f_rng over the thread's own generator. */
int claw_tls_random(void *unused, unsigned char *to, size_t n);
/* Offer the session kept for `name`, if any: true when there was one. */
bool claw_tls_session_offer(struct claw_tls_client *c, const char *name, mbedtls_ssl_context *ssl);
/* Keep the session of a finished handshake, or forget the one that was offered in vain. */
void claw_tls_session_keep(struct claw_tls_client *c, const char *name, const mbedtls_ssl_context *ssl, bool resumed);
void claw_tls_session_drop(struct claw_tls_client *c, const char *name);

/* CLAW_EINVAL: too long, or bytes no name has. */
int claw_tls_name_parse(struct claw_str text, struct claw_tls_name *out) CLAW_MUSTCHECK;
/* For mbedtls_ssl_set_verify; arg is a struct claw_tls_name. */
int claw_tls_verify(void *arg, mbedtls_x509_crt *crt, int depth, uint32_t *flags);
/* A sentence for a failed verification, and one for an error number; bounded, NUL-terminated. */
void claw_tls_verify_text(uint32_t flags, const char *name, char *to, size_t size);
void claw_tls_error_text(int rc, char *to, size_t size);
/* What an alert of the peer says (RFC 5246 7.2.2). */
const char *claw_tls_alert_text(unsigned alert);

#endif
