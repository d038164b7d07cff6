/* tls: mbedTLS contexts and one connection's engine over memory buffers. No sockets inside.
 *
 * Only mbedTLS's public API (2.28 and 3.x). TLS 1.2 at least. Names are checked by SAN, always
 * (mbedtls_ssl_set_hostname: CVE-2025-27809). Sessions are resumed: the server gives tickets; a client context
 * keeps the last sessions of its upstream, shared by all workers under a lock held for a copy.
 * A full handshake costs milliseconds, so the engine is driven on another thread (offload.h) from its first step to
 * claw_tls_end: while `busy` it belongs to the pool thread, and the loop touches only the two buffers it was given back.
 */
#ifndef CLAW_NET_TLS_H
#define CLAW_NET_TLS_H

#include "base/buf.h"

struct claw_tls_server; /* certificate chain, key, ticket key; counted references, any thread */
struct claw_tls_client; /* roots, verification, sessions of one upstream; counted references, any thread */
struct claw_tls;        /* one connection */

/* From PEM files. `client_ca` (may be NULL) makes client certificates required. On failure CLAW_EINVAL and *err
 * (bounded by err_size) names the file and the reason. The caller holds one reference. */
int claw_tls_server_new(const char *cert, const char *key, const char *client_ca, struct claw_tls_server **out,
                        char *err, size_t err_size) CLAW_MUSTCHECK;
struct claw_tls_server *claw_tls_server_ref(struct claw_tls_server *s);
void claw_tls_server_unref(struct claw_tls_server *s);

/* `ca` NULL: the system's roots (parsed once a process and shared). `verify` false: accept any certificate
 * (logged at start by the caller). CLAW_EINVAL and *err as above, CLAW_ENOMEM. The caller holds one reference. */
int claw_tls_client_new(const char *ca, bool verify, struct claw_tls_client **out, char *err,
                        size_t err_size) CLAW_MUSTCHECK;
struct claw_tls_client *claw_tls_client_ref(struct claw_tls_client *c);
void claw_tls_client_unref(struct claw_tls_client *c);
/* Handshakes since the context was made: all, and how many of them were resumed. */
void claw_tls_client_counts(const struct claw_tls_client *c, uint64_t *handshakes, uint64_t *resumed);

/* One connection's engine; exactly one of the contexts is given and referenced. `server_name` (client side): SNI
 * and the name to verify; an IP address is verified as one and not sent as SNI. Cheap: what costs is made by the first
 * claw_tls_handshake. CLAW_EINVAL: no name to verify, or none that can be one. CLAW_ENOMEM. */
int claw_tls_new(struct claw_tls_server *server, struct claw_tls_client *client, struct claw_str server_name,
                 struct claw_tls **out) CLAW_MUSTCHECK;
void claw_tls_free(struct claw_tls *t);
/* Free what the handshake made, all but t itself; claw_tls_free follows. May run on a pool thread: who made it frees it. */
void claw_tls_end(struct claw_tls *t);

/* Bytes from the wire in; bytes for the wire gather in claw_tls_out (the caller sends and takes them). Copies. CLAW_ENOMEM. */
int claw_tls_feed(struct claw_tls *t, const char *data, size_t n) CLAW_MUSTCHECK;
struct claw_buf *claw_tls_out(struct claw_tls *t);

/* Go on with the handshake. 0: done. CLAW_EAGAIN: needs bytes (or out must be sent). CLAW_ETLS, CLAW_ETLS_VERIFY,
 * CLAW_ENOMEM (at the first call): failed, claw_tls_error says why. May run on a pool thread as long as nobody else touches t. */
int claw_tls_handshake(struct claw_tls *t) CLAW_MUSTCHECK;
/* Did the handshake begin: is there something for claw_tls_end to free? */
bool claw_tls_started(const struct claw_tls *t);
/* Can going on with the handshake do no more than look at the beginning of a record? */
bool claw_tls_lacks_bytes(const struct claw_tls *t);
/* Would going on cost public-key work? False while a resumption is still possible or only bytes are missing, so
 * that a resumed handshake stays on the loop. A server engine cannot know before the ClientHello was read: it
 * says true from the first flight on unless a ticket resumed the session. */
bool claw_tls_heavy(const struct claw_tls *t);
bool claw_tls_resumed(const struct claw_tls *t);
/* A sentence such as "certificate is not valid for the name api.example.com". Never NULL. */
const char *claw_tls_error(const struct claw_tls *t);

/* Decrypt what was fed: up to `cap` bytes. > 0: bytes; CLAW_EAGAIN: feed more; 0: close_notify (a clean end);
 * CLAW_ETLS: broken. */
ptrdiff_t claw_tls_read(struct claw_tls *t, char *to, size_t cap) CLAW_MUSTCHECK;
/* Encrypt all of it into out. CLAW_ENOMEM, CLAW_ETLS. */
int claw_tls_write(struct claw_tls *t, const char *data, size_t n) CLAW_MUSTCHECK;
/* close_notify into out. CLAW_ENOMEM, CLAW_ETLS. */
int claw_tls_shutdown(struct claw_tls *t) CLAW_MUSTCHECK;

#endif
