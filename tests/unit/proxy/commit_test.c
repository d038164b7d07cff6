/* commit: what counts as said, what is a tool call, and the state's names. */
#include "proxy/commit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_req *asking(enum claw_dialect d, const char *body)
{
    struct claw_json_err err;
    struct claw_req *r = calloc(1, sizeof *r);
    assert_non_null(r);
    claw_arena_init(&r->arena, NULL, 0, 1u << 20);
    r->dialect = (uint8_t)d;
    r->stream = true;
    r->has_json = claw_json_scan(claw_str_of(body), &r->arena, &r->json, &err) == 0;
    return r;
}

static void done(struct claw_req *r)
{
    claw_arena_reset(&r->arena);
    free(r);
}

static void characters_are_counted_in_every_dialect(void **state)
{
    static const struct { enum claw_dialect d; const char *event; uint32_t n; } rows[] = {
        {CLAW_DIALECT_OPENAI_CHAT, "{\"choices\":[{\"delta\":{\"content\":\"abc\"}}]}", 3},
        {CLAW_DIALECT_OPENAI_CHAT, "{\"choices\":[{\"delta\":{\"content\":\"a\\u00e9\\ud83d\\ude00\xc3\xa9\"}}]}", 4},
        {CLAW_DIALECT_OPENAI_CHAT, "{\"choices\":[{\"delta\":{\"reasoning_content\":\"ab\",\"content\":null}},{\"delta\":{\"refusal\":\"c\"}}]}", 3},
        {CLAW_DIALECT_OPENAI_CHAT, "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", 0},
        {CLAW_DIALECT_OPENAI_CHAT, "{\"choices\":[]}", 0},
        {CLAW_DIALECT_OPENAI_COMPLETIONS, "{\"choices\":[{\"text\":\"abc\"}]}", 3},
        {CLAW_DIALECT_OPENAI_RESPONSES, "{\"type\":\"response.output_text.delta\",\"delta\":\"abc\"}", 3},
        {CLAW_DIALECT_OPENAI_RESPONSES, "{\"type\":\"response.output_text.done\",\"text\":\"abc\"}", 0},
        {CLAW_DIALECT_ANTHROPIC_MESSAGES, "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"abc\"}}", 3},
        {CLAW_DIALECT_ANTHROPIC_MESSAGES, "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"ab\"}}", 2},
        {CLAW_DIALECT_ANTHROPIC_MESSAGES, "{\"type\":\"message_start\",\"message\":{\"content\":[]}}", 0},
        {CLAW_DIALECT_GEMINI_GENERATE, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"ab\"},{\"text\":\"c\"}]}}]}", 3},
        {CLAW_DIALECT_OLLAMA_CHAT, "{\"message\":{\"content\":\"ab\",\"thinking\":\"c\"},\"done\":false}", 3},
        {CLAW_DIALECT_COHERE_CHAT, "{\"type\":\"content-delta\",\"delta\":{\"message\":{\"content\":{\"text\":\"abc\"}}}}", 3},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_req *r = asking(rows[i].d, "{}");
        struct claw_commit_watch w = {0};
        r->commit_at = 5;
        assert_false(claw_commit_enough(&w, r, claw_str_of(rows[i].event)));
        assert_int_equal(w.said, rows[i].n);
        assert_int_equal(claw_commit_enough(&w, r, claw_str_of(rows[i].event)), rows[i].n >= 3);
        done(r);
    }
}

static void an_end_is_enough(void **state)
{
    static const struct { enum claw_dialect d; const char *event; } rows[] = {
        {CLAW_DIALECT_OPENAI_CHAT, "[DONE]"}, {CLAW_DIALECT_ANTHROPIC_MESSAGES, "{\"type\":\"message_stop\"}"},
        {CLAW_DIALECT_OPENAI_RESPONSES, "{\"type\":\"response.completed\"}"}, {CLAW_DIALECT_OLLAMA_CHAT, "{\"done\":true}"},
        {CLAW_DIALECT_GEMINI_GENERATE, "{\"candidates\":[{\"finishReason\":\"STOP\"}]}"}, {CLAW_DIALECT_COHERE_CHAT, "{\"type\":\"message-end\"}"},
        {CLAW_DIALECT_NONE, "{\"what\":\"ever\"}"}, /* nor is it known what it says */
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_req *r = asking(rows[i].d, "{}");
        struct claw_commit_watch w = {0};
        r->commit_at = CLAW_COMMIT_MOST;
        assert_true(claw_commit_enough(&w, r, claw_str_of(rows[i].event)));
        done(r);
    }
}

#define TOOLS "{\"tools\":[{}]}"

static void tool_calls_are_found(void **state)
{
    static const struct { enum claw_dialect d; const char *asked, *event; bool calls; } rows[] = {
        {CLAW_DIALECT_OPENAI_CHAT, TOOLS, "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n", true},
        {CLAW_DIALECT_OPENAI_CHAT, TOOLS, "{\"choices\":[{\"delta\":{\"tool_calls\" : [ {\"index\":0}]}}]}", true},
        {CLAW_DIALECT_OPENAI_CHAT, TOOLS, "{\"choices\":[{\"delta\":{\"content\":\"x\",\"tool_calls\":null}}]}", false},
        {CLAW_DIALECT_OPENAI_CHAT, TOOLS, "{\"choices\":[{\"delta\":{\"content\":\"x\",\"tool_calls\":[]}}]}", false},
        {CLAW_DIALECT_OPENAI_CHAT, TOOLS, "{\"choices\":[{\"delta\":{\"content\":\"\\\"tool_calls\\\":[{\"}}]}", false},
        {CLAW_DIALECT_OPENAI_CHAT, TOOLS, "{\"a\":{\"tool_calls\":[]},\"b\":{\"tool_calls\":[{}]}}", true},
        {CLAW_DIALECT_OPENAI_CHAT, "{}", "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}", false}, /* nobody could have called one */
        {CLAW_DIALECT_OPENAI_CHAT, "no json", "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}", true},
        {CLAW_DIALECT_OPENAI_CHAT, "{\"functions\":[]}", "{\"choices\":[{\"delta\":{\"function_call\":{\"name\":\"f\"}}}]}", true},
        {CLAW_DIALECT_OLLAMA_CHAT, TOOLS, "{\"message\":{\"tool_calls\":[{\"function\":{}}]}}", true},
        {CLAW_DIALECT_COHERE_CHAT, TOOLS, "{\"type\":\"tool-call-start\",\"delta\":{\"message\":{\"tool_calls\":{\"id\":\"x\"}}}}", true},
        {CLAW_DIALECT_ANTHROPIC_MESSAGES, TOOLS, "{\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\"}}", true},
        {CLAW_DIALECT_ANTHROPIC_MESSAGES, TOOLS, "{\"type\":\"content_block_start\",\"content_block\":{\"type\": \"tool_use\"}}", true},
        {CLAW_DIALECT_ANTHROPIC_MESSAGES, TOOLS, "{\"type\":\"content_block_start\",\"content_block\":{\"type\":\"server_tool_use\"}}", false},
        {CLAW_DIALECT_ANTHROPIC_MESSAGES, TOOLS, "{\"delta\":{\"type\":\"text_delta\",\"text\":\"tool_use\"}}", false},
        {CLAW_DIALECT_OPENAI_RESPONSES, TOOLS, "{\"type\":\"response.output_item.added\",\"item\":{\"type\":\"function_call\"}}", true},
        {CLAW_DIALECT_OPENAI_RESPONSES, TOOLS, "{\"type\":\"response.output_item.added\",\"item\":{\"type\":\"custom_tool_call\"}}", true},
        {CLAW_DIALECT_OPENAI_RESPONSES, TOOLS, "{\"type\":\"response.output_text.delta\",\"delta\":\"function_call\"}", false},
        {CLAW_DIALECT_OPENAI_RESPONSES, TOOLS, "{\"type\":\"response.created\",\"response\":{\"tools\":[{\"type\":\"function\"}]}}", false},
        {CLAW_DIALECT_GEMINI_GENERATE, TOOLS, "{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\"}}]}}]}", true},
        {CLAW_DIALECT_NONE, TOOLS, "{\"tool_calls\":[{}]}", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_req *r = asking(rows[i].d, rows[i].asked);
        struct claw_commit_watch w = {0};
        claw_commit_begin(&w, r);
        if (claw_commit_calls(&w, claw_str_of(rows[i].event)) != rows[i].calls) fail_msg("row %zu: %s", i, rows[i].event);
        done(r);
    }
}

static void an_event_that_is_cut_anywhere_is_none_with_a_call(void **state)
{
    const char *whole = "{\"item\":{\"type\":\"function_call\"}}", *key = "{\"tool_calls\" : [ {";
    struct claw_req *r = asking(CLAW_DIALECT_OPENAI_RESPONSES, TOOLS), *chat = asking(CLAW_DIALECT_OPENAI_CHAT, TOOLS);
    struct claw_commit_watch w = {0}, k = {0};
    (void)state;
    claw_commit_begin(&w, r);
    claw_commit_begin(&k, chat);
    for (size_t from = 0; from <= strlen(whole); from++)
        assert_int_equal(claw_commit_calls(&w, claw_str_of(whole + from)), from <= 9);
    for (size_t n = 0; n <= strlen(key); n++) assert_int_equal(claw_commit_calls(&k, (struct claw_str){key, n}), n == strlen(key));
    done(r);
    done(chat);
}

static void states_have_names(void **state)
{
    struct claw_req *r = asking(CLAW_DIALECT_OPENAI_CHAT, "{}");
    (void)state;
    assert_string_equal(claw_commit_state(r), "held");
    r->commit = CLAW_COMMITTED;
    assert_string_equal(claw_commit_state(r), "committed");
    r->tool_emitted = true;
    assert_string_equal(claw_commit_state(r), "tool_emitted");
    r->commit = CLAW_DONE;
    assert_string_equal(claw_commit_state(r), "done");
    r->stream = false;
    assert_null(claw_commit_state(r));
    done(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_are_counted_in_every_dialect), cmocka_unit_test(an_end_is_enough), cmocka_unit_test(tool_calls_are_found),
        cmocka_unit_test(an_event_that_is_cut_anywhere_is_none_with_a_call), cmocka_unit_test(states_have_names),
    };
    return cmocka_run_group_tests_name("proxy/commit", tests, NULL, NULL);
}
