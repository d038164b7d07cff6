/* frame: events as each client gets them. */
#include "proxy/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_frame(const struct claw_req *r, const char *type, bool comments, const char *event)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_string_equal(claw_frame_type(r), type);
    assert_int_equal(claw_frame_takes_comments(r), comments);
    assert_int_equal(claw_frame_write(r, &b, CLAW_STR("t"), CLAW_STR("{\"a\":1}")), 0);
    assert_int_equal(claw_buf_add(&b, "", 1), 0);
    assert_string_equal(claw_buf_str(&b).ptr, event);
    claw_buf_fini(&b);
}

static void frames(void **state)
{
    (void)state;
    struct claw_req r = {.dialect = CLAW_DIALECT_OPENAI_CHAT, .translated = true};
    assert_frame(&r, "text/event-stream", true, "event: t\ndata: {\"a\":1}\n\n");
    r.dialect = CLAW_DIALECT_GEMINI_GENERATE;
    assert_frame(&r, "text/event-stream", false, "event: t\ndata: {\"a\":1}\n\n");
    r.array = true;
    assert_frame(&r, "application/json", false, "{\"a\":1}");
    r = (struct claw_req){.dialect = CLAW_DIALECT_OLLAMA_CHAT, .translated = true};
    assert_frame(&r, "application/x-ndjson", false, "{\"a\":1}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(frames)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
