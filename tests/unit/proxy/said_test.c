/* said: what a stream said, from a sample of its events. */
#include "proxy/said.h"

#include "base/tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static void add_z(struct claw_said **s, const char *event, bool deltas)
{
    size_t n = strlen(event);
    char *p = test_malloc(n ? n : 1); /* not a byte behind it is read */
    memcpy(p, event, n);
    claw_said_add(s, (struct claw_str){p, n}, deltas);
    test_free(p);
}

static int64_t tokens_of(const char *const *events, bool deltas)
{
    struct claw_said *s = NULL;
    for (; *events; events++) add_z(&s, *events, deltas);
    int64_t n = claw_said_tokens(s);
    claw_said_free(s);
    return n;
}
#define TOKENS(deltas, ...) tokens_of((const char *const[]){__VA_ARGS__, NULL}, deltas)
#define SAYS(text) "{\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}"

static void short_streams_are_counted_whole(void **state)
{
    assert_int_equal(claw_said_tokens(NULL), 0);
    assert_int_equal(TOKENS(false, ""), 0);
    assert_int_equal(TOKENS(false, "{}", "[DONE]"), 0);
    assert_int_equal(TOKENS(false, SAYS("one two "), SAYS("three"), "[DONE]"), 3);
    assert_int_equal(TOKENS(false, SAYS("one"), SAYS("one"), SAYS(" one"), SAYS(" one")), 3); /* words go on */
    assert_int_equal(TOKENS(true, "{\"delta\":\"one two\"}", "{\"text\":\"one two\"}"), 2);
}

/* One after the other of three kinds of length, a thousand times. */
static void long_streams_are_sampled(void **state)
{
    static const char *const words[] = {" a stream", " that", ", somewhat longer than the others,", " goes on for an unusually long while", " and", "."};
    for (unsigned count = 10; count <= 30000; count *= 7) {
        struct claw_said *s = NULL;
        struct claw_tokens_tally all = {0};
        for (unsigned i = 0; i < count; i++) {
            char event[512];
            unsigned pick = (i * 2654435761u) >> 20;
            snprintf(event, sizeof event, "data: {\"id\":\"chatcmpl-1234567890\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}],\"pad\":\"%.*s\"}\n\n",
                     words[pick % 6], (int)(pick / 6 % 100), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
            add_z(&s, event, false);
            claw_tokens_add_answer(&all, claw_str_of(event), false);
        }
        int64_t n = claw_tokens_tallied(&all);
        assert_in_range(claw_said_tokens(s), n * 85 / 100, n * 115 / 100);
        claw_said_free(s);
    }
}

/* What stands in few long events is no matter of chance. */
static void long_events_count_in_full(void **state)
{
    for (unsigned words = 1; words < 3000; words *= 2) {
        struct claw_said *s = NULL;
        struct claw_buf b;
        claw_buf_init(&b, 0);
        assert_int_equal(claw_buf_add_z(&b, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"word"), 0);
        for (unsigned i = 1; i < words; i++) assert_int_equal(claw_buf_add_z(&b, " word"), 0);
        assert_int_equal(claw_buf_add_z(&b, "\"}]}}]}"), 0);
        assert_int_equal(claw_buf_add(&b, "", 1), 0);
        add_z(&s, SAYS("one two"), false);
        add_z(&s, claw_buf_str(&b).ptr, false);
        add_z(&s, SAYS("three"), false);
        assert_in_range(claw_said_tokens(s), words + 1 - words / 30, words + 3);
        claw_said_free(s);
        claw_buf_fini(&b);
    }
}

static void every_length_has_room(void **state)
{
    static const char x[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    struct claw_said *s = NULL;
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned n = 1; n < CLAW_SAID_LONG; n += n < 40 ? 1 : 13) { /* nothing alike */
            char event[CLAW_SAID_LONG + 1];
            memset(event, 0, sizeof event);
            for (unsigned i = 0; i < n; i++) event[i] = (char)('a' + (i * 7 + n + round) % 26);
            if (n >= 60 && n < 100) snprintf(event, sizeof event, "{\"text\":\"a\",\"x\":\"%.*s\"}", (int)n, x);
            add_z(&s, event, false);
        }
    }
    assert_in_range(claw_said_tokens(s), 30, 480); /* 120; few of them have room beside the others */
    claw_said_clear(s);
    assert_int_equal(claw_said_tokens(s), 0);
    add_z(&s, SAYS("one two"), false);
    assert_int_equal(claw_said_tokens(s), 2);
    claw_said_free(s);
    claw_said_free(NULL);
    claw_said_clear(NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test(name)
    const struct CMUnitTest tests[] = {
        T(short_streams_are_counted_whole), T(long_streams_are_sampled), T(long_events_count_in_full), T(every_length_has_room),
    };
    return cmocka_run_group_tests_name("proxy/said", tests, NULL, NULL);
}
