/* usage: what a provider says a request cost in tokens, found in the bytes of its answer. */
#ifndef CLAW_PROXY_USAGE_H
#define CLAW_PROXY_USAGE_H

#include "base/buf.h"

/* -1: not told. */
struct claw_usage { int64_t input, output, cached, reasoning; };

/* Find token counts in a JSON answer or event, or the tail of one: OpenAI's `usage`, Anthropic's names in it, Gemini's
 * `usageMetadata`. Nothing else of the text is decoded. Counts found replace those in *u; true when there were any. */
bool claw_usage_read(struct claw_str json, struct claw_usage *u);

#endif
