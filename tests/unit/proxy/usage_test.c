/* usage: counts are found in every dialect, wherever the text is cut, and never where there are none. */
#include "proxy/usage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct claw_usage none = {-1, -1, -1, -1, -1, {0}};

static bool same(const struct claw_usage *a, const struct claw_usage *b)
{
    return a->input == b->input && a->output == b->output && a->cached == b->cached && a->reasoning == b->reasoning && a->written == b->written;
}

static void assert_usage(const char *text, struct claw_usage expected)
{
    struct claw_usage u = none;
    bool any = claw_usage_read(claw_str_of(text), &u);
    if (!same(&u, &expected))
        fail_msg("%s: %d %d %d %d", text, (int)u.input, (int)u.output, (int)u.cached, (int)u.reasoning);
    assert_int_equal(any, !same(&expected, &none));
}

static void dialects(void **state)
{
    assert_usage("{\"id\":1,\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":20,\"total_tokens\":30,"
                 "\"prompt_tokens_details\":{\"cached_tokens\":4,\"audio_tokens\":99},"
                 "\"completion_tokens_details\":{\"reasoning_tokens\":5,\"accepted_prediction_tokens\":98}}}",
                 (struct claw_usage){10, 20, 4, 5, -1, {0}});
    assert_usage("{\"usage\" : {\n  \"input_tokens\" : 10 ,\n  \"output_tokens\"\t:\t20\t,\r\n \"input_tokens_details\":{\"cached_tokens\":4}}}",
                 (struct claw_usage){10, 20, 4, -1, -1, {0}});
    assert_usage("{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":7,"
                 "\"cache_read_input_tokens\":4,\"cache_creation\":{\"ephemeral_5m_input_tokens\":7},\"output_tokens\":9,\"output_tokens_details\":{\"thinking_tokens\":5},\"service_tier\":\"standard\"}}}",
                 (struct claw_usage){21, 9, 4, 5, 7, {0}});
    assert_usage("{\"usage\":{\"inputTokens\":10,\"outputTokens\":3,\"totalTokens\":20,\"cacheReadInputTokens\":4,\"cacheWriteInputTokens\":3}}",
                 (struct claw_usage){17, 3, 4, -1, 3, {0}});
    assert_usage("{\"usage\":{\"prompt_tokens\":10,\"cache_read_input_tokens\":4,\"completion_tokens\":1}}", (struct claw_usage){10, 1, 4, -1, -1, {0}});
    assert_usage("{\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":20,\"totalTokenCount\":30,"
                 "\"cachedContentTokenCount\":4,\"thoughtsTokenCount\":5,\"promptTokensDetails\":[{\"modality\":\"TEXT\",\"tokenCount\":10}]}}",
                 (struct claw_usage){10, 25, 4, 5, -1, {0}});
    assert_usage("{\"usage\":{\"billed_units\":{\"input_tokens\":7,\"output_tokens\":3},\"tokens\":{\"input_tokens\":69,\"output_tokens\":4},\"cached_tokens\":2}}",
                 (struct claw_usage){7, 3, 2, -1, -1, {0}});
    assert_usage("{\"usage\":{\"tokens\":{\"input_tokens\":69,\"output_tokens\":4}}}", (struct claw_usage){69, 4, -1, -1, -1, {0}});
    assert_usage("{\"usage\":{\"billed_units\":{\"input_tokens\":38,\"output_tokens\":10},\"tokens\":{\"input_tokens\":1681,\"output_tokens\":22},\"cached_tokens\":1648}}",
                 (struct claw_usage){38, 10, 38, -1, -1, {0}});
    /* xAI, and Gemini where it speaks as OpenAI does: reasoning is in the total alone */
    assert_usage("{\"usage\":{\"completion_tokens\":6,\"prompt_tokens\":66,\"total_tokens\":100}}", (struct claw_usage){66, 34, -1, 28, -1, {0}});
    assert_usage("{\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":2,\"total_tokens\":17,\"completion_tokens_details\":{\"reasoning_tokens\":5}}}",
                 (struct claw_usage){10, 7, -1, 5, -1, {0}});
    assert_usage("{\"usage\":{\"prompt_tokens\":10,\"total_tokens\":12}}", (struct claw_usage){10, -1, -1, -1, -1, {0}});
    assert_usage("data: {\"usage\":{\"completion_tokens\":0}}\n\n", (struct claw_usage){-1, 0, -1, -1, -1, {0}});
}

static void ollama(void **state)
{
    static const struct { const char *text; int64_t input, output; } rows[] = {
        {"{\"message\":{\"content\":\"hi\"},\"done\":true,\"prompt_eval_count\":26,\"prompt_eval_duration\":9,\"eval_count\":298,\"eval_duration\":1}", 26, 298},
        {"{\"eval_count\" : 3 }\n", -1, 3},
        {"{\"eval_count\":1}\n{\"prompt_eval_count\":5,\"eval_count\":7}\n", 5, 7},
        {"{\"message\":{\"content\":\"\\\"eval_count\\\":9\"}}", -1, -1},
        {"{\"eval_count\":-4,\"prompt_eval_count\":\"5\"}", -1, -1},
        {"{\"eval_count\":99999999999999999999}", -1, -1},
        {"{\"prompt_eval_count\":1", -1, -1}, {"{\"eval_count\"", -1, -1}, {"", -1, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_usage u = none;
        char *copy = strdup(rows[i].text); /* on the heap: an overrun is seen */
        bool any = claw_usage_read_ollama((struct claw_str){copy, strlen(copy)}, &u);
        if (u.input != rows[i].input || u.output != rows[i].output) fail_msg("%s: %d %d", rows[i].text, (int)u.input, (int)u.output);
        assert_int_equal(any, rows[i].input >= 0 || rows[i].output >= 0);
        free(copy);
    }
}

static void later_counts_replace(void **state)
{
    struct claw_usage u = none;
    assert_true(claw_usage_read(CLAW_STR("{\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}"), &u));
    assert_true(claw_usage_read(CLAW_STR("{\"usage\":{\"output_tokens\":15}}"), &u));
    assert_int_equal(u.input, 10);
    assert_int_equal(u.output, 15);
    assert_false(claw_usage_read(CLAW_STR("{\"usage\":null}"), &u));
    assert_int_equal(u.output, 15);
}

static void what_is_no_usage(void **state)
{
    static const char *const texts[] = {
        "", "{}", "{\"usage\":null}", "{\"usage\":[]}", "{\"usage\":{}}", "{\"usage\"", "{\"usage\":", "\"usage", "\"usageMetadata",
        "{\"text\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":1}\"}",   /* told, not meant */
        "{\"a\":\"usage\",\"b\":{\"prompt_tokens\":1}}", "[\"usage\",{\"prompt_tokens\":1}]", "{\"usages\":{\"prompt_tokens\":1}}",
        "{\"prompt_tokens\":1}", "{\"usage\":{\"prompt_tokens\":\"1\"}}", "{\"usage\":{\"prompt_tokens\":1.5}}", "{\"usage\":{\"prompt_tokens\":1e3}}",
        "{\"usage\":{\"prompt_tokens\":-1}}", "{\"usage\":{\"prompt_tokens\":null,\"x\":1}}",
        "{\"usage\":{\"prompt_tokens\":99999999999999999999999}}", "{\"usage\":{\"x\":\"prompt_tokens\",\"y\":5}}",
        "{\"usage\":{}},\"prompt_tokens\":7", "{\"usage\":{\"x\":\"\\\"prompt_tokens\\\":3,\"}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_usage(texts[i], none);
    }
}

/* Wherever they are added up or multiplied, the sanitizers see it. */
static void absurd_counts(void **state)
{
    assert_usage("{\"usage\":{\"input_tokens\":9223372036854775807,\"cache_read_input_tokens\":9223372036854775807,\"cache_creation_input_tokens\":"
                 "9223372036854775800,\"output_tokens\":900719925474099200}}", none);
    assert_usage("{\"usage\":{\"input_tokens\":1000000000001,\"output_tokens\":1000000000000}}", (struct claw_usage){-1, CLAW_USAGE_MOST, -1, -1, -1, {0}});
    assert_usage("{\"usageMetadata\":{\"promptTokenCount\":3,\"candidatesTokenCount\":9223372036854775807,\"thoughtsTokenCount\":9223372036854775807}}",
                 (struct claw_usage){3, -1, -1, -1, -1, {0}});
}

/* The text may begin and end anywhere: what is read is a count that stands there whole, or nothing. The copy ends where
 * the text does, so that the sanitizers see a byte too many. */
static void cut_anywhere(void **state)
{
    static const char text[] = "{\"t\":\"\\\\\",\"usage\":{\"prompt_tokens\":123,\"x\\\"\":\"y\\\\\\\"\",\"completion_tokens\":45,"
                               "\"d\":{\"cached_tokens\":6}}, \"usageMetadata\" : {\"thoughtsTokenCount\": 78 }}";
    size_t n = sizeof text - 1;
    unsigned full = 0;
    for (size_t from = 0; from < n; from++) {
        for (size_t to = from; to <= n; to++) {
            struct claw_usage u = none;
            char *copy = malloc(to - from ? to - from : 1);
            memcpy(copy, text + from, to - from);
            claw_usage_read((struct claw_str){copy, to - from}, &u);
            assert_true(u.input == -1 || u.input == 123);
            assert_true(u.output == -1 || u.output == 45 || u.output == 78 || u.output == 45 + 78);
            assert_true(u.cached == -1 || u.cached == 6);
            assert_true(u.reasoning == -1 || u.reasoning == 78);
            if (u.input == 123 && u.reasoning == 78) full++;
            free(copy);
        }
    }
    assert_true(full > 8);
}

static void what_was_not_told_is_estimated(void **state)
{
    struct claw_usage u = none;
    assert_int_equal(claw_usage_estimate(&u, false, 9, 3), CLAW_USAGE_INPUT | CLAW_USAGE_OUTPUT);
    assert_true(same(&u, &(struct claw_usage){9, 3, -1, -1, -1, {0}}));
    u = none; /* nothing was said, and nothing told */
    assert_int_equal(claw_usage_estimate(&u, false, -1, 0), CLAW_USAGE_OUTPUT);
    assert_true(same(&u, &(struct claw_usage){-1, 0, -1, -1, -1, {0}}));
    u = none; /* vectors */
    assert_int_equal(claw_usage_estimate(&u, true, 9, 0), CLAW_USAGE_INPUT);
    assert_true(same(&u, &(struct claw_usage){9, -1, -1, -1, -1, {0}}));
    u = (struct claw_usage){10, 1, -1, -1, -1, {0}};
    assert_int_equal(claw_usage_estimate(&u, false, 9, 0), 0);
    assert_true(same(&u, &(struct claw_usage){10, 1, -1, -1, -1, {0}}));
    assert_int_equal(claw_usage_estimate(&u, false, 9, 3), CLAW_USAGE_OUTPUT); /* said since then */
    assert_true(same(&u, &(struct claw_usage){10, 4, -1, -1, -1, {0}}));
}

static void output_told_is_noted(void **state)
{
    static const struct { const char *text; bool anew; } cases[] = {
        {"{\"usage\":{\"prompt_tokens\":5}}", false}, {"{\"usage\":{\"completion_tokens\":4}}", true},
        {"{\"usageMetadata\":{\"promptTokenCount\":5,\"candidatesTokenCount\":3}}", true}, {"{\"usage\":null}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct claw_usage u = none;
        claw_usage_read(claw_str_of(cases[i].text), &u);
        assert_int_equal(u.told.anew, cases[i].anew);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dialects), cmocka_unit_test(ollama),
        cmocka_unit_test(later_counts_replace),
        cmocka_unit_test(what_is_no_usage),
        cmocka_unit_test(absurd_counts),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(what_was_not_told_is_estimated),
        cmocka_unit_test(output_told_is_noted),
    };
    return cmocka_run_group_tests_name("proxy/usage", tests, NULL, NULL);
}
