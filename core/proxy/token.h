/* token: the access token of a service account (RFC 7523 2.1): a signed assertion is exchanged at its token_uri, the token is
 * kept, and renewed when a request finds that little of its time is left.
 *
 *   there, fresh       used
 *   there, old         used, while another is got
 *   none, or expired   requests wait for the one exchange under way
 *   refused with 401   another is got at once, but once a minute at most
 *   it failed          those who waited fail (CLAW_ETOKEN), and whoever comes before the next exchange may begin: 1, 2, 4 … 60 s
 *
 * A worker has one for each account; it outlives generations as long as the account stays the same. Thread: the loop's.
 */
#ifndef CLAW_PROXY_TOKEN_H
#define CLAW_PROXY_TOKEN_H

#include "proxy/req.h"

struct claw_token;
struct claw_fetcher;

/* One reference; copies the account. NULL: out of memory. */
struct claw_token *claw_token_new(const struct claw_conf_account *account, struct claw_loop *loop);
struct claw_token *claw_token_ref(struct claw_token *t);
void claw_token_unref(struct claw_token *t);
bool claw_token_is_of(const struct claw_token *t, const struct claw_conf_account *account);

/* Is there one? 0; CLAW_EAGAIN: the request waits, claw_pipeline_resume is called, then this is asked again and tells;
 * CLAW_ETOKEN with *why, a sentence, valid until the next call; CLAW_EREQ_MEM. */
int claw_token_await(struct claw_token *t, struct claw_req *r, const char **why) CLAW_MUSTCHECK;
/* The same for who cannot wait: CLAW_ETOKEN, and an exchange begins. */
int claw_token_ready(struct claw_token *t, struct claw_fetcher *x, const char **why) CLAW_MUSTCHECK;
/* What was sent with it, by an attempt that began at began_ms of the loop's clock, was refused with 401. True: another is there already, or the next
 * who asks waits for another. */
bool claw_token_refused(struct claw_token *t, uint64_t began_ms);
/* The latest one, "" when there never was any. */
struct claw_str claw_token_text(const struct claw_token *t);

#endif
