/* header: the headers that the proxy itself reads, which of them end at a hop, and what may be written. */
#include "h1_part.h"

static void header_ids(void **state)
{
#define CHECK_ID(id, name)                                                                         \
    {                                                                                              \
        char other[] = name;                                                                       \
        assert_int_equal(claw_header_id_of(CLAW_STR(name)), CLAW_H_##id);                          \
        other[0] = (char)(other[0] - 32);                                                          \
        assert_int_equal(claw_header_id_of((struct claw_str){other, sizeof name - 1}), CLAW_H_##id); \
        other[sizeof name - 2] = '.';                                                              \
        assert_int_equal(claw_header_id_of((struct claw_str){other, sizeof name - 1}), CLAW_H_OTHER); \
        assert_int_equal(claw_header_id_of((struct claw_str){name, sizeof name - 2}), CLAW_H_OTHER); \
    }
    CLAW_HEADER_MAP(CHECK_ID)
    assert_int_equal(claw_header_id_of(CLAW_STR("")), CLAW_H_OTHER);
    assert_int_equal(claw_header_id_of(CLAW_STR("x")), CLAW_H_OTHER);
    assert_int_equal(claw_header_id_of(CLAW_STR("keep\ralive")), CLAW_H_OTHER);
    assert_int_equal(claw_header_id_of(CLAW_STR("x-very-long-name-of-a-header")), CLAW_H_OTHER);
}

static void finding_and_hop_by_hop(void **state)
{
    struct claw_header all[] = {
        {S("X-A"), S("1"), CLAW_H_OTHER}, {S("Connection"), S("close, x-a ,Foo"), CLAW_H_CONNECTION},
        {S("foo"), S("2"), CLAW_H_OTHER}, {S("X-a"), S("3"), CLAW_H_OTHER}, {S("TE"), S("trailers"), CLAW_H_TE},
        {S("Content-Type"), S("a"), CLAW_H_CONTENT_TYPE}, {S("Fo"), S("4"), CLAW_H_OTHER}};
    static const bool hop[] = {true, true, true, true, true, false, false};
    struct claw_head h = {.headers = all, .n = 7};
    assert_ptr_equal(claw_head_find(&h, CLAW_H_TE), &all[4]);
    assert_null(claw_head_find(&h, CLAW_H_COOKIE));
    assert_ptr_equal(claw_head_find_name(&h, CLAW_STR("x-a")), &all[0]);
    assert_null(claw_head_find_name(&h, CLAW_STR("x")));
    for (size_t i = 0; i < 7; i++) assert_int_equal(claw_head_hop(&h, &all[i]), hop[i]);
}

static void what_may_be_written(void **state)
{
    char line[20];
    assert_true(claw_h1_is_token(CLAW_STR("X-Abc_09!#$%&'*+.^`|~")));
    assert_false(claw_h1_is_token(CLAW_STR("")));
    assert_false(claw_h1_is_token(CLAW_STR("a b")));
    assert_false(claw_h1_is_token(CLAW_STR("a:")));
    assert_false(claw_h1_is_token(CLAW_STR("a\0")));
    assert_false(claw_h1_is_token(CLAW_STR("\xc3")));
    assert_true(claw_h1_is_value(CLAW_STR("")));
    assert_true(claw_h1_is_value(CLAW_STR("a\tb \xff")));
    assert_false(claw_h1_is_value(CLAW_STR("a\rb")));
    assert_false(claw_h1_is_value(CLAW_STR("a\nb")));
    assert_false(claw_h1_is_value(CLAW_STR("a\0b")));
    assert_false(claw_h1_is_value(CLAW_STR("a\x7f")));
    assert_string_equal(claw_h1_reason(200), "OK");
    assert_string_equal(claw_h1_reason(429), "Too Many Requests");
    assert_string_equal(claw_h1_reason(299), "");
    assert_string_equal(claw_h1_reason(-1), "");
    assert_int_equal(claw_h1_chunk_line(line, 0), 3);
    assert_memory_equal(line, "0\r\n", 3);
    assert_int_equal(claw_h1_chunk_line(line, 0x1af0), 6);
    assert_memory_equal(line, "1af0\r\n", 6);
    assert_int_equal(claw_h1_chunk_line(line, SIZE_MAX), 2 * sizeof(size_t) + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_ids), cmocka_unit_test(finding_and_hop_by_hop), cmocka_unit_test(what_may_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
