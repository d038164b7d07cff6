/* conf_doc: the schema and the reference, as they are written. */
#include "base/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void contains(struct claw_buf *b, const char *what)
{
    if (claw_str_find(claw_buf_str(b), claw_str_of(what)) < 0) fail_msg("missing: %s", what);
}

static void written(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_conf_schema_write(&b), 0);
    contains(&b, "\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"");
    contains(&b, "\"listen_port\":{\"description\":\"Port to listen on; 0 takes a free one.\",\"default\":8080,"
                 "\"anyOf\":[{\"type\":\"integer\",\"minimum\":0,\"maximum\":65535}");
    contains(&b, "\"required\":[\"upstreams\",\"routes\"]");
    contains(&b, "{\"const\":\"openai\"}");
    claw_buf_clear(&b);
    assert_int_equal(claw_conf_reference_write(&b), 0);
    contains(&b, "| `listen_port` | whole number | `8080` | 0 to 65535 | Port to listen on; 0 takes a free one. |\n");
    contains(&b, "| `timeout_seconds` | number, seconds | `60` | above 0, to 86400 |");
    contains(&b, "\n## upstream\n");
    claw_buf_fini(&b);
    claw_buf_init(&b, 100); /* no room: said, not cut in silence */
    assert_int_equal(claw_conf_schema_write(&b), CLAW_ENOMEM);
    assert_int_equal(claw_conf_reference_write(&b), CLAW_ENOMEM);
    claw_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
