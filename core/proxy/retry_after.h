/* retry_after: when an upstream says it may be asked again, from the head of an error.
 *
 *   retry-after-ms                          milliseconds (OpenAI, Azure)
 *   retry-after                             seconds, with a fraction too, or a date (RFC 9110 10.2.3)
 *   x-ratelimit-reset-requests, -tokens     of a 429 whose x-ratelimit-remaining-… is 0: "1m30.5s", "40ms" or seconds (OpenAI, Groq, Mistral …)
 *   anthropic-ratelimit-…-reset             likewise, of requests, tokens, input-tokens, output-tokens: a time (RFC 3339)
 *
 * The first of them that is there and can be read; of the last two the longest. Thread: pure, any.
 */
#ifndef CLAW_PROXY_RETRY_AFTER_H
#define CLAW_PROXY_RETRY_AFTER_H

#include "http/h1.h"

/* In ms, a day at most; -1: not told. now: Unix seconds. */
int64_t claw_retry_after_ms(const struct claw_head *h, int64_t now);

#endif
