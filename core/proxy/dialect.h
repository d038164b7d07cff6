/* dialect: which protocol a client speaks, by the path it calls. An upstream's protocols have names in the same table.
 *
 * Paths are those of the providers' own references: OpenAI and Anthropic below /v1, Gemini below /v1, /v1beta and the like,
 * with the model and the verb in the path; Ollama's /api/chat and /api/embed; Cohere's /v2/chat, whose clients are passed on to upstreams
 * that speak the same and not translated. What stands in front of them (/team-a/v1/messages) does not matter.
 */
#ifndef CLAW_PROXY_DIALECT_H
#define CLAW_PROXY_DIALECT_H

#include "base/buf.h"

/*   id                      name                        family, whose envelope its errors have */
#define CLAW_DIALECT_MAP(X) \
    X(NONE,                  "",                         OPENAI) \
    X(OPENAI_CHAT,           "openai_chat",              OPENAI) \
    X(OPENAI_COMPLETIONS,    "openai_completions",       OPENAI) \
    X(OPENAI_RESPONSES,      "openai_responses",         RESPONSES) \
    X(OPENAI_EMBEDDINGS,     "openai_embeddings",        OPENAI) \
    X(ANTHROPIC_MESSAGES,    "anthropic_messages",       ANTHROPIC) \
    X(ANTHROPIC_COUNT,       "anthropic_count_tokens",   ANTHROPIC) \
    X(GEMINI_GENERATE,       "gemini_generate",          GEMINI) \
    X(GEMINI_EMBED,          "gemini_embed",             GEMINI) \
    X(GEMINI_EMBED_BATCH,    "gemini_embed_batch",       GEMINI) \
    X(GEMINI_COUNT,          "gemini_count_tokens",      GEMINI) \
    X(COHERE_CHAT,           "cohere_chat",              COHERE) \
    X(BEDROCK_CONVERSE,      "bedrock_converse",         OPENAI) \
    X(OLLAMA_CHAT,           "ollama_chat",              OLLAMA) \
    X(COHERE_EMBEDDINGS,     "cohere_embeddings",        OPENAI) \
    X(BEDROCK_EMBEDDINGS,    "bedrock_embeddings",       OPENAI) \
    X(OLLAMA_EMBEDDINGS,     "ollama_embeddings",        OLLAMA)
enum claw_dialect {
#define CLAW_DIALECT_ENUM(id, name, family) CLAW_DIALECT_##id,
    CLAW_DIALECT_MAP(CLAW_DIALECT_ENUM)
#undef CLAW_DIALECT_ENUM
    CLAW_DIALECT_COUNT
};
enum claw_family_of_errors { CLAW_ERRORS_OPENAI, CLAW_ERRORS_RESPONSES, CLAW_ERRORS_ANTHROPIC, CLAW_ERRORS_GEMINI, CLAW_ERRORS_COHERE, CLAW_ERRORS_OLLAMA };

/* The dialect of a path (without its query). For Gemini's the model as it stands there (percent-encoded; a slice of path)
 * and whether the verb streams; else "" and false. */
enum claw_dialect claw_dialect_of_path(struct claw_str path, struct claw_str *model, bool *stream);
/* "" for NONE; policies, logs and providers' tables use these names. */
const char *claw_dialect_name(enum claw_dialect d);
/* CLAW_DIALECT_COUNT: there is none of that name. */
enum claw_dialect claw_dialect_named(struct claw_str name);
enum claw_family_of_errors claw_dialect_errors(enum claw_dialect d);
/* Do its answers cost tokens, and tell them (or should)? Do they have no others than the input's? */
bool claw_dialect_has_usage(enum claw_dialect d);
bool claw_dialect_embeds(enum claw_dialect d);
/* Does the model stand in the path? */
bool claw_dialect_is_gemini(enum claw_dialect d);

#endif
