/* tokens: how many tokens a text has, estimated without any tokenizer's tables.
 *
 * Words, long words' letters, digits by threes, punctuation, line ends, CJK characters and the letters of other scripts
 * each weigh what they do on average in OpenAI's o200k_base vocabulary: within some 6 % on English, source code and
 * Chinese of a few hundred words, 8 % on German, some 20 % on Russian. Short texts vary more.
 * Pure; any thread.
 */
#ifndef CLAW_BASE_TOKENS_H
#define CLAW_BASE_TOKENS_H

#include "base/buf.h"

#define CLAW_TOKENS_BINARY 512    /* bytes; a string this long without a character outside of base64 is no text */
#define CLAW_TOKENS_PICTURE 1000  /* what such a string, and a picture named by its URL, is taken for */
#define CLAW_TOKENS_DEPTH 512      /* as deep as JSON may be: claw_json_scan refuses deeper */
#define CLAW_TOKENS_SCANNED (256u << 10) /* of a longer text this much is looked at, and the rest taken to be like it */

/* Of any text in UTF-8. */
int64_t claw_tokens_of_text(struct claw_str text);

/* Of a request's body, a JSON text that claw_json_scan accepted, in any dialect: the texts of its turns and prompts, some
 * tokens a turn, and all of its tools and schemas. Settings, names of roles and ids are not counted. */
int64_t claw_tokens_of_request(struct claw_str body);

/* What of a request's body is to be counted, taken while the body is there: to count it costs more, and may never be asked for.
 * Its members are not for others. Texts up to CLAW_TOKENS_SAMPLE are counted whole, of longer ones evenly spaced parts. */
#define CLAW_TOKENS_SAMPLE 4096u
struct claw_tokens_prompt {
    int64_t milli;   /* thousandths of a token beside the texts: of turns, pictures, names in schemas */
    uint64_t bytes;  /* of all texts, each with a quote at its end */
    double part;     /* of the body that was walked through */
    uint32_t len;    /* of kept */
    uint32_t every;  /* one window in so many is kept */
    bool any;        /* in a dialect that is known */
    char kept[CLAW_TOKENS_SAMPLE];
};
void claw_tokens_take_request(struct claw_tokens_prompt *p, struct claw_str body);
int64_t claw_tokens_of_prompt(const struct claw_tokens_prompt *p);

/* A text that comes in pieces, counted as it comes and not kept. All zero: nothing came yet. */
struct claw_tokens_tally {
    int64_t milli;          /* thousandths of a token */
    uint32_t run, capitals; /* of the word, number or run that the text ends with so far */
    uint8_t last;
};

/* Add what a model says in an answer or an event of a stream, as it came, in any dialect: its texts, its reasoning where that
 * can be read, its calls with their arguments. Words cut by the end of a piece go on in the next. deltas: only what stands
 * in `delta` (OpenAI's Responses say again what they said). What was cut counts up to there. */
void claw_tokens_add_answer(struct claw_tokens_tally *t, struct claw_str json, bool deltas);
/* What comes now does not go on with what came. */
void claw_tokens_break(struct claw_tokens_tally *t);
int64_t claw_tokens_tallied(const struct claw_tokens_tally *t);

#endif
