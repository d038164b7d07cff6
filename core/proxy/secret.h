/* secret: the values of ${vault:} and ${aws-sm:}, fetched and kept for as long as the process runs.
 *
 *   a load asks the keeper    there: its value.  not there: CLAW_EAGAIN, and the load's owner fetches, then loads again
 *   fetch                     one round at a time: every secret that is asked for, 8 at once, within secrets.timeout_seconds
 *   it failed                 the last good value stays, and the log says so; without one the load is refused, with the place in the
 *                             file, the name and the status. Never a value, nor what a server said beside a word
 *
 * The credentials of an AWS role are one of them: got from where the process runs, and anew before they end, so that what is signed
 * with them is a generation's as if the file said it. Vault's token is renewed at half its time.
 *
 * A secret is one object (Vault's data, AWS' SecretString), fetched once whatever fields of it are used. Values are told to the log
 * as they are handed out, before anything can show them. Thread: control (or the only one, while there is no loop yet).
 */
#ifndef CLAW_PROXY_SECRET_H
#define CLAW_PROXY_SECRET_H

#include "base/conf_secret.h"
#include "net/loop.h"
#include "proxy/metrics.h"

#define CLAW_SECRET_BYTES (512u << 10) /* of a server's answer */

struct claw_fetcher;
struct claw_secrets;

/* `offline`: nothing is ever fetched, and each reference is 64 hexadecimal digits of its own. `metrics` may be NULL. CLAW_ENOMEM. */
int claw_secrets_new(bool offline, struct claw_metrics_shard *metrics, struct claw_secrets **out) CLAW_MUSTCHECK;
/* No round may be under way. NULL is fine. */
void claw_secrets_free(struct claw_secrets *s);

/* What claw_conf_load_with wants; as long-lived as `s`. */
const struct claw_conf_keeper *claw_secrets_keeper(struct claw_secrets *s);
/* Are all of these there, from where `of` says they are? */
bool claw_secrets_fit(const struct claw_secrets *s, const struct claw_conf_secrets *of);
/* A load begins: what could not be had before is asked for again. `anew`: so is everything else. */
void claw_secrets_begin(struct claw_secrets *s, bool anew);
/* A number made of the values of these. */
uint64_t claw_secrets_hash(const struct claw_secrets *s, const struct claw_conf_secrets *of);
/* Let go of all but these. */
void claw_secrets_keep(struct claw_secrets *s, const struct claw_conf_secrets *of);
/* How many of them could not be fetched lately, and have a value from before. */
unsigned claw_secrets_stale(const struct claw_secrets *s);

/* From now on a round renews Vault's token, too, where the configuration has one and it is time. */
void claw_secrets_renew(struct claw_secrets *s);
/* In how many milliseconds a round is due though nothing else asks for one: a role's credentials end, or Vault's token does. -1: never. */
int64_t claw_secrets_due_ms(const struct claw_secrets *s, const struct claw_conf_secrets *of);

/* Fetch those of `of` that do not fit (`all`: every one). done(arg) comes once, from the end of a turn, whatever became of them.
 * `of` is copied. No round may be under way. CLAW_ENOMEM. */
int claw_secrets_fetch(struct claw_secrets *s, struct claw_loop *loop, struct claw_fetcher *x, const struct claw_conf_secrets *of, bool all,
                       void (*done)(void *arg), void *arg) CLAW_MUSTCHECK;
bool claw_secrets_busy(const struct claw_secrets *s);
/* End the round, without done. */
void claw_secrets_cancel(struct claw_secrets *s);
/* The same as claw_secrets_fetch on a loop of its own, and wait for it: at start and for commands. CLAW_ENOMEM, CLAW_EIO. */
int claw_secrets_fetch_now(struct claw_secrets *s, const struct claw_conf_secrets *of) CLAW_MUSTCHECK;

#endif
