/* tokens: estimates beside true counts of o200k_base, and what of a request's body counts. */
#include "base/tokens.h"

#include "base/json.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

static const char english[] =
    "A reverse proxy stands between the clients of a service and the machines that provide it. It accepts their connections, "
    "decides where each request goes, and passes the answer back as it arrives. Because every byte crosses it, its faults are"
    " everyone's faults: a stream that is cut in half, a header that is lost, a reload that drops what was in flight. The "
    "people who operate it at night want to know three things. What did it decide, why did it decide so, and what would have "
    "happened otherwise? In 2024 about 1,250 teams were asked how often their gateway had been the cause of an outage; 37% "
    "said \"more than once a year\", and only 12% had never seen one."
    "\n";
static const char code[] =
    "def weighted_choice(items, rng):\n"
    "    \"\"\"Pick one of `items` by weight; zero weights are never picked.\"\"\"\n"
    "    total = sum(item.weight for item in items)\n"
    "    if total <= 0:\n"
    "        raise ValueError(\"every weight is 0\")\n"
    "    mark = rng.random() * total\n"
    "    for item in items:\n"
    "        mark -= item.weight\n"
    "        if mark < 0:\n"
    "            return item\n"
    "    return items[-1]\n"
    "\n"
    "\n"
    "static int read_chunk(struct reader *r, const char *data, size_t n)\n"
    "{\n"
    "    while (n > 0 && r->state != DONE) {\n"
    "        size_t used = parse(&r->parser, data, n);\n"
    "        if (used == 0) return -EINVAL;\n"
    "        data += used;\n"
    "        n -= used;\n"
    "    }\n"
    "    return (int)n;\n"
    "}\n";
static const char chinese[] =
    "反向代理位于客户端和服务器之间。它接受客户端的连接，决定每个请求的去向，并在数据到达时立即把回答传回"
    "去。因为每一个字节都要经过它，所以它的错误就是所有人的错误：被截断的数据流、丢失的请求头、中断请求的"
    "重新加载。夜里值班的人想知道三件事：它做了什么决定，为什么这样决定，以及换一种情况会发生什么。二〇二"
    "四年，大约一千二百个团队接受了调查，其中百分之三十七表示网关每年不止一次造成故障。"
    "\n";

static void texts_are_estimated_within_a_tenth(void **state)
{
    const struct { const char *text; int64_t tokens; } cases[] = {{english, 148}, {code, 171}, {chinese, 135}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n = claw_tokens_of_text(claw_str_of(cases[i].text));
        assert_in_range(n, cases[i].tokens * 90 / 100, cases[i].tokens * 110 / 100);
    }
}

static void small_and_odd_texts(void **state)
{
    assert_int_equal(claw_tokens_of_text(CLAW_STR("")), 0);
    assert_int_equal(claw_tokens_of_text(CLAW_STR(" ")), 1);
    assert_int_equal(claw_tokens_of_text(CLAW_STR("hello")), 1);
    assert_int_equal(claw_tokens_of_text(CLAW_STR("hello there")), 2);
    assert_int_equal(claw_tokens_of_text(CLAW_STR("\xff\xfe\xe4\xbd")), claw_tokens_of_text(CLAW_STR("\xff\xfe\xe4\xbd")));
    assert_in_range(claw_tokens_of_text(CLAW_STR("\xf0\x9f\x98\x80")), 1, 3);
    assert_in_range(claw_tokens_of_text(CLAW_STR("1234567")), 2, 5);
}

static void a_long_text_is_taken_to_be_like_its_beginning(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    while (claw_buf_size(&b) < (CLAW_TOKENS_SCANNED * 8)) assert_int_equal(claw_buf_add_z(&b, "four words of text. "), 0);
    int64_t n = claw_tokens_of_text(claw_buf_str(&b)), all = (int64_t)(claw_buf_size(&b) / 20 * 5);
    assert_in_range(n, all * 90 / 100, all * 110 / 100);
    claw_buf_fini(&b);
}

static int64_t of(const char *body)
{
    struct claw_arena arena;
    struct claw_json_top top;
    struct claw_json_err err;
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    assert_int_equal(claw_json_scan(claw_str_of(body), &arena, &top, &err), 0);
    claw_arena_reset(&arena);
    return claw_tokens_of_request(claw_str_of(body));
}

/* What recorded answers of the providers say their requests had. */
static void turns_and_tools_of_every_dialect_count(void **state)
{
    assert_int_equal(of("{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"hello there\"}]}"), 9);
    assert_int_equal(of("{\"max_tokens\":5,\"messages\":[{\"content\":[{\"text\":\"hello there\",\"type\":\"text\"}],\"role\":\"user\"}]}"), 9);
    assert_int_equal(of("{\"contents\":[{\"parts\":[{\"text\":\"hello there\"}],\"role\":\"user\"}],\"generationConfig\":{\"temperature\":1}}"), 9);
    assert_int_equal(of("{\"input\":\"hello there\",\"model\":\"gpt-5\",\"metadata\":{\"long\":\"many words that nobody reads\"}}"), 5);
    assert_int_equal(of("{\"messages\":[{\"role\":\"user\",\"content\":\"\\u4f60\\u597d\\n\"}]}"), of("{\"messages\":[{\"role\":\"user\",\"content\":\"\xe4\xbd\xa0\xe5\xa5\xbd\\n\"}]}"));
    int64_t tools = of("{\"messages\":[],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\","
                       "\"properties\":{\"city\":{\"type\":\"string\"}}}}}]}");
    assert_in_range(tools, 25, 45);
    assert_in_range(of("{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":"
                       "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]}]}"), 10, 16);
}

static void pictures_are_no_text(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_z(&b, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,"), 0);
    for (int i = 0; i < 10000; i++) assert_int_equal(claw_buf_add_z(&b, "iVBORw0KGg"), 0);
    assert_int_equal(claw_buf_add_z(&b, "\"}}]}]}"), 0);
    assert_in_range(claw_tokens_of_request(claw_buf_str(&b)), 1000, 1010);
    claw_buf_fini(&b);
    assert_in_range(of("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://a/b.png\"}}]}]}"), 1000, 1010);
}

/* Escapes are written as base64 has them, but no picture has code points. */
static void escaped_text_is_no_picture(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_z(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\""), 0);
    for (int i = 0; i < 10000; i++) assert_int_equal(claw_buf_add_z(&b, "\\u4f60\\u597d"), 0);
    assert_int_equal(claw_buf_add_z(&b, "\"}]}"), 0);
    assert_in_range(claw_tokens_of_request(claw_buf_str(&b)), 13500, 16500);
    claw_buf_fini(&b);
}

static void add_escaped(struct claw_buf *b, const char *text)
{
    claw_buf_clear(b);
    assert_int_equal(claw_buf_add_json(b, claw_str_of(text)), 0);
}

/* Of long texts parts are looked at; which is to come out where all of them is. */
static void long_bodies_are_estimated_within_a_tenth(void **state)
{
    const struct { const char *text; int64_t tokens; } kinds[] = {{english, 148}, {code, 171}, {chinese, 135}};
    for (unsigned mixed = 0; mixed < 4; mixed++) { /* one of them, or each after the other */
        for (int64_t turns = 4; turns <= 400; turns *= 10) {
            struct claw_buf b, one;
            int64_t all = 3;
            claw_buf_init(&b, 0);
            claw_buf_init(&one, 0);
            assert_int_equal(claw_buf_add_z(&b, "{\"messages\":["), 0);
            for (int64_t i = 0; i < turns; i++) {
                unsigned which = mixed < 3 ? mixed : (unsigned)(i * 3 / turns);
                add_escaped(&one, kinds[which].text);
                assert_int_equal(claw_buf_add_fmt(&b, "%s{\"role\":\"user\",\"content\":%.*s}", i ? "," : "", CLAW_STR_FMT(claw_buf_str(&one))), 0);
                all += kinds[which].tokens + 4;
            }
            assert_int_equal(claw_buf_add_z(&b, "]}"), 0);
            assert_in_range(claw_tokens_of_request(claw_buf_str(&b)), all * 90 / 100, all * 110 / 100);
            claw_buf_fini(&b);
            claw_buf_fini(&one);
        }
    }
}

static void a_picture_does_not_make_a_text_longer(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_z(&b, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,"), 0);
    for (int i = 0; i < 100000; i++) assert_int_equal(claw_buf_add_z(&b, "iVBORw0KGg"), 0);
    assert_int_equal(claw_buf_add_z(&b, "\"}},{\"type\":\"text\",\"text\":\"hello there\"}]}]}"), 0);
    assert_in_range(claw_tokens_of_request(claw_buf_str(&b)), 1000, 1020);
    claw_buf_fini(&b);
}

static void any_json_has_an_estimate(void **state)
{
    assert_in_range(of("{\"question\":\"four words of text\"}"), 4, 10);
    assert_in_range(of("[\"four words of text\"]"), 4, 8);
    of("{}");
    of("7");
    struct claw_buf b;
    claw_buf_init(&b, 0);
    for (int i = 0; i < 512; i++) assert_int_equal(claw_buf_add_z(&b, "["), 0);
    for (int i = 0; i < 512; i++) assert_int_equal(claw_buf_add_z(&b, "]"), 0);
    claw_tokens_of_request(claw_buf_str(&b));
    claw_buf_fini(&b);
}

/* Cut anywhere: a body is only scanned to a bound. */
static void a_cut_body_is_read_to_its_end(void **state)
{
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u4f60\\ud83d\\ude00 \\\"b\\\"\"}],\"tools\":[{\"n\":-1.5e3}]}";
    for (size_t n = 0; n < sizeof body; n++) {
        char *p = test_malloc(n ? n : 1);
        memcpy(p, body, n);
        claw_tokens_of_request((struct claw_str){p, n});
        test_free(p);
    }
}

static int64_t said(const char *const *events, bool deltas)
{
    struct claw_tokens_tally t = {0};
    for (; *events; events++) claw_tokens_add_answer(&t, claw_str_of(*events), deltas);
    return claw_tokens_tallied(&t);
}
#define SAID(deltas, ...) said((const char *const[]){__VA_ARGS__, NULL}, deltas)

static void what_a_model_says_is_counted_in_every_dialect(void **state)
{
    int64_t n = claw_tokens_of_text(CLAW_STR("hello there, you"));
    assert_int_equal(SAID(false, "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"hel\"}}]}\n\n",
                          "data: {\"choices\":[{\"delta\":{\"content\":\"lo there,\"},\"finish_reason\":null}],\"obfuscation\":\"abcdefgh\"}\n\n",
                          "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\" you\"}}]}\n\n", "data: [DONE]\n\n"), n);
    assert_int_equal(SAID(false, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello there,\"}}",
                          "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\" you\"}}", "{\"type\":\"ping\"}"), n);
    assert_int_equal(SAID(true, "{\"type\":\"response.output_text.delta\",\"delta\":\"hello there, \"}", "{\"type\":\"response.output_text.delta\",\"delta\":\"you\"}",
                          "{\"type\":\"response.output_text.done\",\"text\":\"hello there, you\"}"), n);
    assert_int_equal(SAID(false, "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hello there, you\"}],\"role\":\"model\"}}],\"modelVersion\":\"g\"}"), n);
    assert_int_equal(SAID(false, "{\"contentBlockIndex\":0,\"delta\":{\"text\":\"hello there, you\"},\"p\":\"abcdefgh\"}"), n);
    assert_int_equal(SAID(false, "{\"delta\":{\"message\":{\"content\":{\"text\":\"hello there, you\"}}}}"), n);
    assert_int_equal(SAID(false, "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"hello there, you\"},\"done\":false}"), n);
    assert_int_equal(SAID(false, "{\"choices\":[{\"text\":\"hello there, you\",\"index\":0}]}"), n);
    assert_int_equal(SAID(false, "{\"choices\":[{\"delta\":{\"content\":\"hello there,\"}},{\"delta\":{\"content\":\" you\"}}]}"), n);
}

static void calls_and_whole_answers_count(void **state)
{
    assert_in_range(SAID(false, "{\"id\":\"1\",\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{\"id\":\"call_abcdefgh\",\"type\":\"function\",\"function\":"
                                "{\"name\":\"weather\",\"arguments\":\"{\\\"city\\\":\\\"Paris\\\"}\"}}]}}]}"), 4, 8);
    assert_in_range(SAID(false, "{\"content\":[{\"type\":\"tool_use\",\"id\":\"toolu_abcdefgh\",\"name\":\"weather\",\"input\":{\"city\":\"Paris\"}}],\"stop_reason\":\"tool_use\"}"), 2, 5);
    assert_int_equal(SAID(false, "{\"content\":[{\"type\":\"text\",\"text\":\"hello\"}],\"stop_reason\":\"end_turn\"}"), 1);
    assert_int_equal(SAID(false, "{\"choices\":[{\"delta\":{\"reasoning\":\"hello\",\"reasoning_details\":[{\"text\":\"hello\"}]}}]}"), 1);
    assert_int_equal(SAID(false, "{\"choices\":[]}", "", "7", "{\"choices\":[{\"message\":{\"content\":\"\"}}]}"), 0);
}

static void a_cut_answer_counts_up_to_there(void **state)
{
    static const char event[] = "data: {\"a\":[{\"delta\":{\"content\":\"a\\u4f60 \\\"b\\\" and a few words\",\"input\":{\"x\":[\"y\"]}}}],\"delta\" : \"z\"}";
    for (int deltas = 0; deltas < 2; deltas++) {
        int64_t before = 0;
        for (size_t n = 0; n < sizeof event; n++) {
            struct claw_tokens_tally t = {0};
            char *p = test_malloc(n ? n : 1);
            memcpy(p, event, n);
            claw_tokens_add_answer(&t, (struct claw_str){p, n}, deltas);
            test_free(p);
            assert_true(claw_tokens_tallied(&t) + 4 >= before); /* an escape that is cut is not known yet */
            before = claw_tokens_tallied(&t);
        }
        assert_true(before > 7);
    }
}

/* What an upstream sends is counted before anybody has looked whether it is JSON. */
static void what_is_no_escape_counts_as_text(void **state)
{
    for (int b = 1; b < 256; b++) {
        char event[64];
        int n = snprintf(event, sizeof event, "data: {\"delta\":{\"content\":\"a \\%c\\u%c%c%c%c b\"}}", b, b, b, b, b);
        struct claw_tokens_tally t = {0};
        claw_tokens_add_answer(&t, (struct claw_str){event, (size_t)n}, false);
        assert_in_range(claw_tokens_tallied(&t), 1, 12);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test(name)
    const struct CMUnitTest tests[] = {
        T(texts_are_estimated_within_a_tenth), T(small_and_odd_texts), T(a_long_text_is_taken_to_be_like_its_beginning),
        T(turns_and_tools_of_every_dialect_count), T(pictures_are_no_text), T(any_json_has_an_estimate), T(escaped_text_is_no_picture), T(long_bodies_are_estimated_within_a_tenth), T(a_picture_does_not_make_a_text_longer), T(a_cut_body_is_read_to_its_end),
        T(what_a_model_says_is_counted_in_every_dialect), T(calls_and_whole_answers_count), T(a_cut_answer_counts_up_to_there), T(what_is_no_escape_counts_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
