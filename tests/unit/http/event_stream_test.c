/* event_stream: the same messages come out wherever the bytes are cut; nothing of a damaged one does. */
#include "http/event_stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_buf seen, wire;

static int on_message(void *arg, const struct claw_event_stream_message *m)
{
    assert_ptr_equal(arg, &seen);
    assert_int_equal(claw_buf_add_fmt(&seen, "%.*s/%.*s/%.*s|", CLAW_STR_FMT(m->event_type), CLAW_STR_FMT(m->exception_type), CLAW_STR_FMT(m->payload)), 0);
    return 0;
}

static void put_number(struct claw_buf *b, uint32_t n)
{
    const char bytes[4] = {(char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n};
    assert_int_equal(claw_buf_add(b, bytes, 4), 0);
}

static void put_header(struct claw_buf *b, const char *name, const char *value)
{
    const char lead = (char)strlen(name), type[3] = {7, (char)(strlen(value) >> 8), (char)strlen(value)};
    assert_int_equal(claw_buf_add(b, &lead, 1), 0);
    assert_int_equal(claw_buf_add_z(b, name), 0);
    assert_int_equal(claw_buf_add(b, type, 3), 0);
    assert_int_equal(claw_buf_add_z(b, value), 0);
}

/* Append a message with these headers (as they are encoded). */
static void put_message(struct claw_str headers, const char *payload)
{
    size_t from = claw_buf_size(&wire);
    put_number(&wire, (uint32_t)(16 + headers.len + strlen(payload)));
    put_number(&wire, (uint32_t)headers.len);
    put_number(&wire, claw_event_stream_crc(0, claw_buf_str(&wire).ptr + from, 8));
    assert_int_equal(claw_buf_add_str(&wire, headers), 0);
    assert_int_equal(claw_buf_add_z(&wire, payload), 0);
    put_number(&wire, claw_event_stream_crc(0, claw_buf_str(&wire).ptr + from, claw_buf_size(&wire) - from));
}

static void put_event(const char *name, const char *value, const char *payload)
{
    struct claw_buf h;
    claw_buf_init(&h, 0);
    put_header(&h, ":message-type", "event");
    put_header(&h, name, value);
    put_message(claw_buf_str(&h), payload);
    claw_buf_fini(&h);
}

static int feed(struct claw_event_stream *s, const char *data, size_t n)
{
    char *copy = malloc(n ? n : 1); /* on the heap: an overrun is seen */
    if (n) memcpy(copy, data, n);
    int rc = claw_event_stream_feed(s, copy, n, on_message, &seen);
    free(copy);
    return rc;
}

static void some_messages(void)
{
    claw_buf_clear(&wire);
    put_event(":event-type", "messageStart", "{\"role\":\"assistant\"}");
    put_message((struct claw_str){NULL, 0}, "");
    put_event(":exception-type", "throttlingException", "{\"message\":\"slow\"}");
    /* every type of value: true, false, byte, short, int, long, bytes, text, time, uuid */
    static const char kinds[] = "\001a\0\001b\1\001c\2x\001d\3xx\001e\4xxxx\001f\5xxxxxxxx\001g\6\0\2xx\013:event-type\7\0\1z\001i\010xxxxxxxx\001j\011xxxxxxxxxxxxxxxx";
    put_message((struct claw_str){kinds, sizeof kinds - 1}, "p");
    static const char error[] = "\013:error-code\7\0\1E\016:error-message\7\0\2no";
    put_message((struct claw_str){error, sizeof error - 1}, "");
}

static const char all[] = "messageStart//{\"role\":\"assistant\"}|//|/throttlingException/{\"message\":\"slow\"}|z//p|/E/no|";

static void sums(void **state)
{
    assert_int_equal(claw_event_stream_crc(0, "123456789", 9), 0xcbf43926u); /* the check value of CRC-32 */
    assert_int_equal(claw_event_stream_crc(claw_event_stream_crc(0, "1234", 4), "56789", 5), 0xcbf43926u);
    assert_int_equal(claw_event_stream_crc(0, "", 0), 0);
}

/* From the encoding's published tests: an empty message, and a payload without headers. */
static void known_messages(void **state)
{
    static const char empty[] = "\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff";
    static const char payload[] = "\x00\x00\x00\x1d\x00\x00\x00\x00\xfd\x52\x8c\x5a{'foo':'bar'}\xc3\x65\x39\x36";
    struct claw_event_stream s;
    claw_event_stream_init(&s, 100);
    assert_int_equal(feed(&s, empty, sizeof empty - 1), 0);
    assert_int_equal(feed(&s, payload, sizeof payload - 1), 0);
    assert_true(claw_str_eqz(claw_buf_str(&seen), "//|//{'foo':'bar'}|"));
    claw_buf_clear(&seen);
    claw_event_stream_fini(&s);
}

static void cut_anywhere(void **state)
{
    some_messages();
    struct claw_str w = claw_buf_str(&wire);
    for (size_t i = 0; i <= w.len; i++) {
        struct claw_event_stream s;
        claw_event_stream_init(&s, 1000);
        assert_int_equal(feed(&s, w.ptr, i), 0);
        assert_int_equal(feed(&s, w.ptr + i, w.len - i), 0);
        assert_true(claw_str_eqz(claw_buf_str(&seen), all));
        assert_false(claw_event_stream_cut(&s));
        claw_buf_clear(&seen);
        claw_event_stream_fini(&s);
    }
    struct claw_event_stream s;
    claw_event_stream_init(&s, 1000);
    for (size_t i = 0; i < w.len; i++) assert_int_equal(feed(&s, w.ptr + i, 1), 0);
    assert_true(claw_str_eqz(claw_buf_str(&seen), all));
    assert_int_equal(feed(&s, w.ptr, 5), 0);
    assert_true(claw_event_stream_cut(&s));
    claw_buf_clear(&seen);
    claw_event_stream_fini(&s);
}

static void damaged_anywhere(void **state)
{
    claw_buf_clear(&wire);
    put_event(":event-type", "x", "{}");
    struct claw_str w = claw_buf_str(&wire);
    for (size_t i = 0; i < w.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct claw_event_stream s;
            char *bad = malloc(w.len);
            memcpy(bad, w.ptr, w.len);
            bad[i] = (char)(bad[i] ^ (1 << bit));
            claw_event_stream_init(&s, 1000);
            assert_int_equal(claw_event_stream_feed(&s, bad, w.len, on_message, &seen), CLAW_EBAD_RESPONSE);
            assert_int_equal(claw_buf_size(&seen), 0);
            claw_event_stream_fini(&s);
            free(bad);
        }
    }
}

static void what_does_not_fit(void **state)
{
    static const struct { const char *headers; size_t n; } bad[] = {
        {"\001", 1}, {"\005ab", 3}, {"\001a\012", 3}, {"\001a\7", 3}, {"\001a\7\0\5x", 6}, {"\001a\4xx", 5}, {"\001a\011x", 4},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct claw_event_stream s;
        claw_buf_clear(&wire);
        put_message((struct claw_str){bad[i].headers, bad[i].n}, "");
        claw_event_stream_init(&s, 1000);
        assert_int_equal(feed(&s, claw_buf_str(&wire).ptr, claw_buf_size(&wire)), CLAW_EBAD_RESPONSE);
        claw_event_stream_fini(&s);
    }
    struct claw_event_stream s;
    some_messages();
    claw_event_stream_init(&s, 30); /* the first message is larger */
    assert_int_equal(feed(&s, claw_buf_str(&wire).ptr, claw_buf_size(&wire)), CLAW_EBAD_RESPONSE);
    assert_int_equal(claw_buf_size(&seen), 0);
    claw_event_stream_fini(&s);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums), cmocka_unit_test(known_messages), cmocka_unit_test(cut_anywhere), cmocka_unit_test(damaged_anywhere),
        cmocka_unit_test(what_does_not_fit),
    };
    claw_buf_init(&seen, 0);
    claw_buf_init(&wire, 0);
    int rc = cmocka_run_group_tests_name("http/event_stream", tests, NULL, NULL);
    claw_buf_fini(&seen);
    claw_buf_fini(&wire);
    return rc;
}
