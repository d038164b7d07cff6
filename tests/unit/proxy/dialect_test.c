/* dialect: what a path says, for every path a client may send. */
#include "proxy/dialect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void paths(void **state)
{
    static const struct { const char *path; enum claw_dialect dialect; const char *model; bool stream; } rows[] = {
        {"/v1/chat/completions", CLAW_DIALECT_OPENAI_CHAT, "", false},
        {"/chat/completions", CLAW_DIALECT_OPENAI_CHAT, "", false},
        {"/team-a/v1/chat/completions", CLAW_DIALECT_OPENAI_CHAT, "", false},
        {"/v1/completions", CLAW_DIALECT_OPENAI_COMPLETIONS, "", false},
        {"/v1/responses", CLAW_DIALECT_OPENAI_RESPONSES, "", false},
        {"/v1/responses/resp_1/cancel", CLAW_DIALECT_NONE, "", false},
        {"/v1/embeddings", CLAW_DIALECT_OPENAI_EMBEDDINGS, "", false},
        {"/v1/messages", CLAW_DIALECT_ANTHROPIC_MESSAGES, "", false},
        {"/v1/messages/count_tokens", CLAW_DIALECT_ANTHROPIC_COUNT, "", false},
        {"/v1/threads/t/messages", CLAW_DIALECT_NONE, "", false}, /* OpenAI's assistants */
        {"/v1/messages/batches", CLAW_DIALECT_NONE, "", false},
        {"/v1beta/models/gemini-2.5-flash:generateContent", CLAW_DIALECT_GEMINI_GENERATE, "gemini-2.5-flash", false},
        {"/v1/models/g:streamGenerateContent", CLAW_DIALECT_GEMINI_GENERATE, "g", true},
        {"/x/v1alpha/models/a%2Fb:countTokens", CLAW_DIALECT_GEMINI_COUNT, "a%2Fb", false},
        {"/v1beta/models/a:b:embedContent", CLAW_DIALECT_GEMINI_EMBED, "a:b", false},
        {"/v1beta/models/e:batchEmbedContents", CLAW_DIALECT_GEMINI_EMBED_BATCH, "e", false},
        {"/v1beta/models/:generateContent", CLAW_DIALECT_NONE, "", false},
        {"/v1beta/models/g:predict", CLAW_DIALECT_NONE, "", false},
        {"/v1beta/models/g", CLAW_DIALECT_NONE, "", false},
        {"/models/g:generateContent", CLAW_DIALECT_NONE, "", false},
        {"v1/models/g:generateContent", CLAW_DIALECT_NONE, "", false},
        {"/v/models/g:generateContent", CLAW_DIALECT_NONE, "", false},
        {"/v2/chat", CLAW_DIALECT_COHERE_CHAT, "", false}, {"/team-a/v2/chat", CLAW_DIALECT_COHERE_CHAT, "", false},
        {"/api/chat", CLAW_DIALECT_OLLAMA_CHAT, "", false}, {"/api/embed", CLAW_DIALECT_OLLAMA_EMBEDDINGS, "", false}, {"/team-a/api/chat", CLAW_DIALECT_OLLAMA_CHAT, "", false},
        {"/v1/chat", CLAW_DIALECT_NONE, "", false}, {"/chat", CLAW_DIALECT_NONE, "", false}, {"/api/generate", CLAW_DIALECT_NONE, "", false},
        {"/v1/models", CLAW_DIALECT_NONE, "", false}, {"/", CLAW_DIALECT_NONE, "", false}, {"", CLAW_DIALECT_NONE, "", false},
        {":", CLAW_DIALECT_NONE, "", false}, {"/:", CLAW_DIALECT_NONE, "", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_str model;
        bool stream;
        char *copy = strdup(rows[i].path); /* on the heap: an overrun is seen */
        enum claw_dialect d = claw_dialect_of_path((struct claw_str){copy, strlen(copy)}, &model, &stream);
        if (d != rows[i].dialect || !claw_str_eqz(model, rows[i].model) || stream != rows[i].stream) fail_msg("%s: %d", rows[i].path, (int)d);
        free(copy);
    }
}

static void names(void **state)
{
    for (int d = 1; d < CLAW_DIALECT_COUNT; d++) assert_int_equal(claw_dialect_named(claw_str_of(claw_dialect_name((enum claw_dialect)d))), d);
    assert_int_equal(claw_dialect_named(CLAW_STR("x")), CLAW_DIALECT_COUNT);
    assert_int_equal(claw_dialect_named(CLAW_STR("")), CLAW_DIALECT_COUNT);
    assert_string_equal(claw_dialect_name(CLAW_DIALECT_NONE), "");
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {cmocka_unit_test(paths), cmocka_unit_test(names)};
    return cmocka_run_group_tests_name("proxy/dialect", tests, NULL, NULL);
}
