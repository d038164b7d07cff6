/* envelope: an error has its dialect's shape, whole and in a stream. */
#include "proxy/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_written(struct claw_envelope e, const char *whole, const char *event_type, const char *event)
{
    struct claw_buf b;
    struct claw_str type;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_envelope_write(&b, &e), 0);
    assert_int_equal(claw_buf_add(&b, "", 1), 0);
    assert_string_equal(claw_buf_str(&b).ptr, whole);
    claw_buf_clear(&b);
    assert_int_equal(claw_envelope_write_event(&b, &e, &type), 0);
    assert_int_equal(claw_buf_add(&b, "", 1), 0);
    assert_true(claw_str_eqz(type, event_type));
    assert_string_equal(claw_buf_str(&b).ptr, event);
    claw_buf_fini(&b);
}

static void shapes(void **state)
{
    struct claw_envelope e = {CLAW_DIALECT_OPENAI_CHAT, 404, CLAW_STR("no \"x\""), "invalid_request_error", "no_route", CLAW_STR(""), CLAW_STR("id1")};
    const char *openai = "{\"error\":{\"message\":\"no \\\"x\\\"\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"no_route\"}}";
    assert_written(e, openai, "", openai);
    e.dialect = CLAW_DIALECT_OPENAI_RESPONSES;
    assert_written(e, openai, "error", "{\"type\":\"error\",\"code\":\"no_route\",\"message\":\"no \\\"x\\\"\",\"param\":null,\"error\":{"
                   "\"type\":\"invalid_request_error\",\"code\":\"no_route\",\"message\":\"no \\\"x\\\"\",\"param\":null}}");
    e.dialect = CLAW_DIALECT_ANTHROPIC_MESSAGES;
    const char *anthropic = "{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"no \\\"x\\\"\"},\"request_id\":\"id1\"}";
    assert_written(e, anthropic, "error", anthropic);
    e.dialect = CLAW_DIALECT_GEMINI_GENERATE;
    const char *gemini = "{\"error\":{\"code\":404,\"message\":\"no \\\"x\\\"\",\"status\":\"NOT_FOUND\",\"details\":[{\"@type\":"
                         "\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"openclaw\",\"reason\":\"no_route\"}]}}";
    assert_written(e, gemini, "", gemini);
    e.dialect = CLAW_DIALECT_COHERE_CHAT;
    assert_written(e, "{\"id\":\"id1\",\"message\":\"no \\\"x\\\"\"}", "", "{\"id\":\"id1\",\"message\":\"no \\\"x\\\"\"}");
    e.dialect = CLAW_DIALECT_OLLAMA_CHAT;
    assert_written(e, "{\"error\":\"no \\\"x\\\"\"}", "", "{\"error\":\"no \\\"x\\\"\"}");
    e.dialect = CLAW_DIALECT_NONE;
    e.param = CLAW_STR("seed");
    const char *param = "{\"error\":{\"message\":\"no \\\"x\\\"\",\"type\":\"invalid_request_error\",\"param\":\"seed\",\"code\":\"no_route\"}}";
    assert_written(e, param, "", param);
}

static void words(void **state)
{
    assert_string_equal(claw_envelope_anthropic_type(413), "request_too_large");
    assert_string_equal(claw_envelope_anthropic_type(529), "overloaded_error");
    assert_string_equal(claw_envelope_anthropic_type(418), "invalid_request_error");
    assert_string_equal(claw_envelope_anthropic_type(599), "api_error");
    assert_string_equal(claw_envelope_gemini_status(429), "RESOURCE_EXHAUSTED");
    assert_string_equal(claw_envelope_gemini_status(451), "INVALID_ARGUMENT");
    assert_string_equal(claw_envelope_gemini_status(599), "INTERNAL");
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes), cmocka_unit_test(words)};
    return cmocka_run_group_tests_name("proxy/envelope", tests, NULL, NULL);
}
