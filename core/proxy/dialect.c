#include "proxy/dialect.h"

static const struct { const char *name; enum claw_family_of_errors errors; } dialects[CLAW_DIALECT_COUNT] = {
#define ROW(id, name, family) {name, CLAW_ERRORS_##family},
    CLAW_DIALECT_MAP(ROW)
#undef ROW
};

static const struct { struct claw_str path; enum claw_dialect dialect; } paths[] = {
#define PATH(text, id) {{text, sizeof(text) - 1}, CLAW_DIALECT_##id}
    PATH("/chat/completions", OPENAI_CHAT), PATH("/completions", OPENAI_COMPLETIONS), PATH("/responses", OPENAI_RESPONSES),
    PATH("/embeddings", OPENAI_EMBEDDINGS), PATH("/messages", ANTHROPIC_MESSAGES), PATH("/messages/count_tokens", ANTHROPIC_COUNT),
#undef PATH
};

static const struct { struct claw_str verb; enum claw_dialect dialect; bool stream; } verbs[] = {
#define VERB(text, id, stream) {{text, sizeof(text) - 1}, CLAW_DIALECT_##id, stream}
    VERB("generateContent", GEMINI_GENERATE, false), VERB("streamGenerateContent", GEMINI_GENERATE, true),
    VERB("embedContent", GEMINI_EMBED, false), VERB("batchEmbedContents", GEMINI_EMBED_BATCH, false),
    VERB("countTokens", GEMINI_COUNT, false),
#undef VERB
};

static const struct { struct claw_str path; enum claw_dialect dialect; } versioned[] = {
    {{"/v2/chat", 8}, CLAW_DIALECT_COHERE_CHAT}, {{"/api/chat", 9}, CLAW_DIALECT_OLLAMA_CHAT},
    {{"/api/embed", 10}, CLAW_DIALECT_OLLAMA_EMBEDDINGS},
};

static bool ends(struct claw_str s, struct claw_str with)
{
    return s.len >= with.len && memcmp(s.ptr + s.len - with.len, with.ptr, with.len) == 0;
}

/* Behind …/v1, /v1beta, /v1alpha, /v1beta1 stands /models/; what comes then is the model. */
static bool is_gemini_prefix(struct claw_str before)
{
    struct claw_str models = CLAW_STR("/models/");
    if (!ends(before, models)) return false;
    size_t n = before.len - models.len, from = n;
    while (from > 0 && before.ptr[from - 1] != '/') from--;
    return n - from >= 2 && from > 0 && before.ptr[from] == 'v' && before.ptr[from + 1] >= '1' && before.ptr[from + 1] <= '9';
}

static enum claw_dialect of_gemini(struct claw_str path, struct claw_str *model, bool *stream)
{
    const char *colon = memrchr(path.ptr, ':', path.len), *slash = memrchr(path.ptr, '/', path.len);
    if (!colon || !slash || colon < slash + 2) return CLAW_DIALECT_NONE;
    struct claw_str verb = {colon + 1, (size_t)(path.ptr + path.len - colon - 1)};
    if (!is_gemini_prefix((struct claw_str){path.ptr, (size_t)(slash + 1 - path.ptr)})) return CLAW_DIALECT_NONE;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (!claw_str_eq(verb, verbs[i].verb)) continue;
        *model = (struct claw_str){slash + 1, (size_t)(colon - slash - 1)};
        *stream = verbs[i].stream;
        return verbs[i].dialect;
    }
    return CLAW_DIALECT_NONE;
}

enum claw_dialect claw_dialect_of_path(struct claw_str path, struct claw_str *model, bool *stream)
{
    *model = CLAW_STR("");
    *stream = false;
    if (path.len == 0) return CLAW_DIALECT_NONE;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (!ends(path, paths[i].path)) continue;
        struct claw_str before = {path.ptr, path.len - paths[i].path.len};
        if (before.len == 0 || ends(before, CLAW_STR("/v1"))) return paths[i].dialect;
    }
    for (size_t i = 0; i < sizeof versioned / sizeof *versioned; i++)
        if (ends(path, versioned[i].path)) return versioned[i].dialect;
    return of_gemini(path, model, stream);
}

const char *claw_dialect_name(enum claw_dialect d) { return dialects[d].name; }

enum claw_dialect claw_dialect_named(struct claw_str name)
{
    for (int d = 1; d < CLAW_DIALECT_COUNT; d++)
        if (claw_str_eqz(name, dialects[d].name)) return (enum claw_dialect)d;
    return CLAW_DIALECT_COUNT;
}

enum claw_family_of_errors claw_dialect_errors(enum claw_dialect d) { return dialects[d].errors; }

bool claw_dialect_is_gemini(enum claw_dialect d) { return dialects[d].errors == CLAW_ERRORS_GEMINI; }

bool claw_dialect_embeds(enum claw_dialect d)
{
    switch (d) {
    case CLAW_DIALECT_OPENAI_EMBEDDINGS: case CLAW_DIALECT_GEMINI_EMBED: case CLAW_DIALECT_GEMINI_EMBED_BATCH: case CLAW_DIALECT_COHERE_EMBEDDINGS:
    case CLAW_DIALECT_BEDROCK_EMBEDDINGS: case CLAW_DIALECT_OLLAMA_EMBEDDINGS: return true;
    default: return false;
    }
}

bool claw_dialect_has_usage(enum claw_dialect d)
{
    return d != CLAW_DIALECT_NONE && d != CLAW_DIALECT_ANTHROPIC_COUNT && d != CLAW_DIALECT_GEMINI_COUNT;
}
