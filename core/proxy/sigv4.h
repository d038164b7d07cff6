/* sigv4: AWS Signature Version 4, as services other than S3 have it.
 *
 *   canonical request    method, path, query, fields, their names, SHA-256 of the body, a line each
 *   text to sign         algorithm, time, scope (day/region/service/aws4_request), SHA-256 of the canonical request
 *   signature            HMAC of that under a key made of the secret and the scope, so one a day
 *
 * Of the path, as it goes out, empty and dot segments are left out and every byte but A-Z a-z 0-9 - . _ ~ / is
 * percent-encoded, a % too: what is encoded in it is encoded twice. Parameters are encoded once and sorted, values of fields
 * trimmed, blanks in them made one. Source: AWS' "Create a signed AWS API request" and its test suite. Thread: pure, any.
 */
#ifndef CLAW_PROXY_SIGV4_H
#define CLAW_PROXY_SIGV4_H

#include "base/arena.h"
#include "base/conf.h"

#include <uv.h>

#define CLAW_SIGV4_HASH 65 /* SHA-256 in hexadecimal, NUL behind it */

/* The key of a day, to be kept (zeroed at first) with the credentials, region and service it is of. */
struct claw_sigv4_day { char date[9]; unsigned char key[32]; };

struct claw_sigv4_ask {
    struct claw_str method, path, query;   /* path and query as they go out; path "": "/" */
    const struct claw_conf_header *fields; /* all of them are signed, so host and x-amz-date are among them */
    size_t fields_n;
    const char *payload;                   /* claw_sigv4_hash of the body */
    int64_t time;                          /* Unix seconds, as x-amz-date has it */
};

/* SHA-256 of all slices. */
int claw_sigv4_hash(const uv_buf_t *slices, unsigned n, char to[CLAW_SIGV4_HASH]) CLAW_MUSTCHECK;
/* What x-amz-date says: 20150830T123600Z. */
void claw_sigv4_date(int64_t time, char to[17]);
/* The authorization field's value, into the arena. CLAW_ENOMEM. */
int claw_sigv4_sign(const struct claw_sigv4_ask *ask, const struct claw_conf_aws *aws, const char *service, struct claw_sigv4_day *day,
                    struct claw_arena *a, struct claw_str *out) CLAW_MUSTCHECK;
/* A request's head, from its line to its empty line, with x-amz-date, x-amz-security-token and authorization; what it had of
 * the first two is replaced. host, content-type and x-amz-* are signed. A head that has an authorization field stays as it
 * is. Into the arena. CLAW_ENOMEM. */
int claw_sigv4_head(struct claw_str head, const uv_buf_t *body, unsigned n, int64_t time, const struct claw_conf_aws *aws,
                    const char *service, struct claw_sigv4_day *day, struct claw_arena *a, struct claw_str *out) CLAW_MUSTCHECK;

#endif
