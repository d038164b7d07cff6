/* usage: what a provider says a request cost in tokens, found in the bytes of its answer. */
#ifndef CLAW_PROXY_USAGE_H
#define CLAW_PROXY_USAGE_H

#include "base/buf.h"
#include "base/conf.h"

/* No provider counts that many: what is larger is not told. Sums of counts, and their thousandfold, stay far from int64's end. */
#define CLAW_USAGE_MOST 1000000000000

/* -1: not told. input is all of the prompt: what was read from the provider's cache (cached) and written to it included;
 * output has the reasoning in it. */
struct claw_usage {
    int64_t input, output, cached, reasoning, written;
    /* What was told: Anthropic and Bedrock count cached tokens beside the input, Gemini its thoughts beside the output,
     * xAI in the total alone. 0: nothing was. */
    struct {
        int64_t input, output, read, write, tools, thoughts, total;
        bool apart, anew; /* anew: the output, since the relay looked */
    } told;
};

#define CLAW_USAGE_NONE ((struct claw_usage){-1, -1, -1, -1, -1, {0}})

/* Find token counts in a JSON answer or event, or the tail of one: OpenAI's `usage`, Anthropic's and Bedrock's names in it,
 * Gemini's `usageMetadata`. Nothing else of the text is decoded. Counts found replace those in *u; true when there were any. */
bool claw_usage_read(struct claw_str json, struct claw_usage *u);
/* The same of Ollama's own answers and lines, which have prompt_eval_count and eval_count at their end and no `usage`. */
bool claw_usage_read_ollama(struct claw_str json, struct claw_usage *u);
/* Is it the chunk of an OpenAI stream, as event or data, that tells nothing but usage? */
bool claw_usage_only(struct claw_str raw);

/* Fill in what was not told: the output, which goes on by `said` where it was told, unless `of_input` is all there is, and the
 * input, which is `input` (-1: not known either). Which of them are estimates: CLAW_USAGE_INPUT, CLAW_USAGE_OUTPUT; 0: all was told. */
#define CLAW_USAGE_INPUT 1u
#define CLAW_USAGE_OUTPUT 2u
unsigned claw_usage_estimate(struct claw_usage *u, bool of_input, int64_t input, int64_t said);
/* What it costs in micro-dollars, as lua/claw/cost.lua charges: prices in pico-dollars a token, rounded half up. -1: not known. */
int64_t claw_usage_charge(const struct claw_conf_price *p, const struct claw_usage *u);

#endif
