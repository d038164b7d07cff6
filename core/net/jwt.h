/* jwt: JSON Web Tokens signed with RSA and SHA-256 (RFC 7519; RS256 of RFC 7518 3.3). Thread: any. A signature with a key of 2048
 * bits takes a few milliseconds. */
#ifndef CLAW_NET_JWT_H
#define CLAW_NET_JWT_H

#include "base/buf.h"

/* Is this an RSA private key? PEM, with a NUL behind it. */
bool claw_jwt_key_good(struct claw_str key);
/* Append header.claims.signature. claims: a JSON object's text; key_id: the header's kid, "": none. CLAW_EINVAL: the key is
 * none; CLAW_ENOMEM. */
int claw_jwt_write(struct claw_buf *out, struct claw_str claims, struct claw_str key, struct claw_str key_id) CLAW_MUSTCHECK;

#endif
