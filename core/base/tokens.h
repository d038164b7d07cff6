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

#endif
