/* webhook: events told to other systems, signed, tried again, bounded, and never on a request's path.
 *
 *   any thread: claw_webhook_tell -> a message -> control's loop: a queue for each configured webhook -> POST
 *
 * An event is told with one relaxed load when no webhook wants its kind. A delivery is a JSON object
 * {"type","timestamp","data":{…}} with the headers of Standard Webhooks (standardwebhooks.com, specification 1.0.0): webhook-id,
 * the same in every try; webhook-timestamp, of this try; and, with a secret, webhook-signature "v1," and the HMAC-SHA256 in
 * base64 of id.timestamp.body. The key is what follows "whsec_" in base64, or the secret as it is.
 *
 * Any 2xx is success. Else it is tried again after 1, 2, 4 … seconds (60 at most, 20 % spread), `attempts` times in all; 410
 * ends it at once. Redirects are not followed. A queue that is full loses its oldest event, CLAW_WEBHOOK_MAIL events wait
 * for control at most; what is lost is counted. Secrets in data are replaced as in the log.
 *
 * A reload keeps the queue of a webhook whose URL stays. What is queued when the process ends is lost.
 * Thread: claw_webhook_tell and _wanted any, the rest control's.
 */
#ifndef CLAW_PROXY_WEBHOOK_H
#define CLAW_PROXY_WEBHOOK_H

#include "proxy/fetch.h"

#define CLAW_WEBHOOK_MAIL 1000u
#define CLAW_WEBHOOK_AT_ONCE 4u /* deliveries of one webhook under way */

/* As `webhooks[].events` has them. */
#define CLAW_WEBHOOK_MAP(X) \
    X(FAILOVER, "failover") X(RATE_LIMIT, "rate_limit") X(UPSTREAM_ERROR, "upstream_error") X(KEY_RETIRED, "key_retired") \
    X(BREAKER, "breaker") X(BUDGET, "budget") X(RELOAD, "reload") X(POLICY_ERROR, "policy_error")
enum claw_webhook_event {
#define CLAW_WEBHOOK_ENUM(id, name) CLAW_WEBHOOK_##id,
    CLAW_WEBHOOK_MAP(CLAW_WEBHOOK_ENUM)
#undef CLAW_WEBHOOK_ENUM
    CLAW_WEBHOOK_EVENTS
};

struct claw_webhooks;

/* Deliver on `loop` through `fetcher`, for the whole process: once. CLAW_ENOMEM. */
int claw_webhooks_new(struct claw_loop *loop, struct claw_fetcher *fetcher, struct claw_metrics_shard *metrics,
                      struct claw_webhooks **out) CLAW_MUSTCHECK;
/* Deliver to these from now on. `conf` must live until the next call. */
void claw_webhooks_set(struct claw_webhooks *w, const struct claw_conf *conf);
/* Give up what is queued and under way. Nobody may tell any more. */
void claw_webhooks_free(struct claw_webhooks *w);
/* Events that wait to be delivered, those under way included. */
size_t claw_webhooks_waiting(const struct claw_webhooks *w);

/* Does a webhook want events of this kind? For callers to whom making the data is work. */
bool claw_webhook_wanted(enum claw_webhook_event e);
/* A member of data: a string, or a number where the name ends in `#`, which is cut off. Left out where value.ptr is NULL. */
struct claw_webhook_fact { const char *name; struct claw_str value; };
/* It happened. */
void claw_webhook_tell(enum claw_webhook_event e, const struct claw_webhook_fact *facts, size_t n);
#define CLAW_WEBHOOK_TELL(e, ...)                                                             \
    do {                                                                                      \
        if (claw_webhook_wanted(e)) {                                                         \
            const struct claw_webhook_fact claw_facts[] = {__VA_ARGS__};                      \
            claw_webhook_tell(e, claw_facts, sizeof claw_facts / sizeof *claw_facts);         \
        }                                                                                     \
    } while (0)

#endif
