/* usage: what a provider says a request cost in tokens, found in the bytes of its answer. */
#ifndef CLAW_PROXY_USAGE_H
#define CLAW_PROXY_USAGE_H

#include "base/buf.h"

/* No provider counts that many: what is larger is not told. Sums of counts, and their thousandfold, stay far from int64's end. */
#define CLAW_USAGE_MOST 1000000000000

/* -1: not told. input is all of the prompt: what was read from the provider's cache (cached) and written to it included;
 * output has the reasoning in it. */
struct claw_usage {
    int64_t input, output, cached, reasoning, written;
    /* What was told: Anthropic and Bedrock count cached tokens beside the input, Gemini its thoughts beside the output,
     * xAI in the total alone. 0: nothing was. */
    struct { int64_t input, output, read, write, tools, thoughts, total; bool apart; } told;
};

/* Find token counts in a JSON answer or event, or the tail of one: OpenAI's `usage`, Anthropic's and Bedrock's names in it,
 * Gemini's `usageMetadata`. Nothing else of the text is decoded. Counts found replace those in *u; true when there were any. */
bool claw_usage_read(struct claw_str json, struct claw_usage *u);

#endif
