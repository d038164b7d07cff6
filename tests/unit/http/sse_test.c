/* sse: the event stream format (WHATWG HTML 9.2.6), and that no split of the bytes changes the events. */
#include "http/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define S(lit) {lit, sizeof(lit) - 1}

/* What a browser would dispatch, as "type|id|data;" per event; and all bytes that came out. */
struct seen {
    struct claw_sse sse;
    struct claw_sse_sink to;
    struct claw_buf events, bytes, tmp;
    unsigned comments, silent, pieces, lasts;
    int stop; /* what on_event returns */
};

static int on_event(void *arg, const struct claw_sse_event *ev)
{
    struct seen *s = arg;
    struct claw_sse_fields f;
    assert_int_equal(claw_buf_add_str(&s->bytes, ev->raw), 0);
    assert_int_equal(claw_sse_parse(ev->raw, &s->tmp, &f), 0);
    assert_false(ev->comment_only && ev->has_data);
    if (ev->comment_only) {
        s->comments += ev->raw.len > 1 && ev->raw.ptr[0] == ':';
        assert_int_equal(f.data.len + f.type.len + f.id.len, 0);
    } else if (!ev->has_data) {
        s->silent++;
        assert_int_equal(f.data.len, 0);
    } else {
        assert_int_equal(claw_buf_add_fmt(&s->events, "%.*s|%.*s|", CLAW_STR_FMT(f.type), CLAW_STR_FMT(f.id)), 0);
        assert_int_equal(claw_buf_add_str(&s->events, f.data), 0);
        assert_int_equal(claw_buf_add_z(&s->events, ";"), 0);
    }
    return s->stop;
}

static int on_over(void *arg, struct claw_str bytes, bool last)
{
    struct seen *s = arg;
    s->pieces++;
    s->lasts += last;
    return claw_buf_add_str(&s->bytes, bytes);
}

static void seen_init(struct seen *s, size_t max)
{
    memset(s, 0, sizeof *s);
    claw_sse_init(&s->sse, max);
    claw_buf_init(&s->events, 0);
    claw_buf_init(&s->bytes, 0);
    claw_buf_init(&s->tmp, 0);
    s->to = (struct claw_sse_sink){on_event, on_over, s};
}

static void seen_fini(struct seen *s)
{
    claw_sse_fini(&s->sse);
    claw_buf_fini(&s->events);
    claw_buf_fini(&s->bytes);
    claw_buf_fini(&s->tmp);
}

static int feed(struct seen *s, const char *data, size_t n)
{
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    int rc = claw_sse_feed(&s->sse, copy, n, &s->to);
    free(copy);
    return rc;
}

static void assert_whole(struct seen *s, struct claw_str in)
{
    assert_int_equal(claw_buf_add_str(&s->bytes, claw_sse_rest(&s->sse)), 0);
    assert_true(claw_str_eq(claw_buf_str(&s->bytes), in));
}

struct row {
    const char *name;
    struct claw_str in;
    struct claw_str want;
};

static void check(const struct row *row)
{
    /* Two cuts each; 0 and the end stand for one or none. */
    for (size_t one = 0; one <= row->in.len; one++) {
        for (size_t two = one; two <= row->in.len; two++) {
            struct seen s;
            seen_init(&s, 1 << 16);
            assert_int_equal(feed(&s, row->in.ptr, one), 0);
            assert_int_equal(feed(&s, row->in.ptr + one, two - one), 0);
            assert_int_equal(feed(&s, row->in.ptr + two, row->in.len - two), 0);
            if (!claw_str_eq(claw_buf_str(&s.events), row->want))
                fail_msg("%s, cut at %zu and %zu: %.*s", row->name, one, two, CLAW_STR_FMT(claw_buf_str(&s.events)));
            assert_whole(&s, row->in);
            seen_fini(&s);
        }
    }
    struct seen s;
    seen_init(&s, 1 << 16);
    for (size_t i = 0; i < row->in.len; i++) assert_int_equal(feed(&s, row->in.ptr + i, 1), 0);
    if (!claw_str_eq(claw_buf_str(&s.events), row->want))
        fail_msg("%s, byte by byte: %.*s", row->name, CLAW_STR_FMT(claw_buf_str(&s.events)));
    assert_whole(&s, row->in);
    seen_fini(&s);
}

static const struct row formats[] = {
    {"plain", S("data:x\n\n"), S("||x;")},
    {"field data, WPT format-field-data", S("data:\n\ndata\ndata\n\ndata:test\n\n"), S("||;||\n;||test;")},
    {"the end of the stream cuts an event", S("data:a\n\ndata:b\n"), S("||a;")},
    {"... also without a line end", S("data:a\n\ndata:b"), S("||a;")},
    {"leading space, one is taken", S("data:\ttest\rdata: \ndata:test\n\n"), S("||\ttest\n\ntest;")},
    {"two spaces", S("data:  x\n\n"), S("|| x;")},
    {"byte order mark", S("\xEF\xBB\xBF" "data:1\n\ndata:2\n\n"), S("||1;||2;")},
    {"two byte order marks", S("\xEF\xBB\xBF\xEF\xBB\xBF" "data:1\n\ndata:2\n\n"), S("||2;")},
    {"byte order mark later", S("data:1\n\n\xEF\xBB\xBF" "data:2\n\ndata:3\n\n"), S("||1;||3;")},
    {"half a mark", S("\xEF\xBB" "data:1\n\ndata:2\n\n"), S("||2;")},
    {"only a mark", S("\xEF\xBB\xBF"), S("")},
    {"comments", S("data:1\r:\0\n:\r\ndata:2\n:xxxxxxxxxxxxxxxxxxxxxxxx\rdata:3\n:data:fail\r:xxxx\ndata:4\n\n"),
     S("||1\n2\n3\n4;")},
    {"field parsing", S("data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n"
                        " data:32\ndata:4\n\n"), S("||\0\n 2\n1\n3\n\n4;")},
    {"newlines", S("data:test\r\ndata\ndata:test\r\n\r\n"), S("||test\n\ntest;")},
    {"null character", S("data:\0\n\n\n\n"), S("||\0;")},
    {"unknown fields", S("data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n"), S("||test\n;")},
    {"event", S("event:test\ndata:x\n\ndata:x\n\n"), S("test||x;||x;")},
    {"empty event", S("event: \ndata:data\n\n"), S("||data;")},
    {"the last event field counts", S("event:a\nevent:b\ndata:x\n\n"), S("b||x;")},
    {"event without data", S("event:test\n\ndata:x\n\n"), S("||x;")},
    {"id", S("id: 1\ndata:x\n\nid\ndata:y\n\n"), S("|1|x;||y;")},
    {"id with a NUL is ignored", S("id:1\nid:2\0\ndata:x\n\n"), S("|1|x;")},
    {"id without a colon", S("id\ndata:hello\n\n"), S("||hello;")},
    {"retry", S("retry:1000\ndata:x\n\n"), S("||x;")},
    {"UTF-8", S("data:ok\xE2\x80\xA6\n\n"), S("||ok\xE2\x80\xA6;")},
    {"only CR", S("data:a\r\rdata:b\r\r"), S("||a;||b;")},
    {"only CRLF", S("data:a\r\n\r\ndata:b\r\n\r\n"), S("||a;||b;")},
    {"CR then CRLF", S("data:a\r\r\ndata:b\r\r\n"), S("||a;||b;")},
    {"LF then CRLF", S("data:a\n\r\ndata:b\n\r\n"), S("||a;||b;")},
    {"LF then CR", S("data:a\n\rdata:b\n\r"), S("||a;||b;")},
    {"CRLF then LF", S("data:a\r\n\ndata:b\r\n\n"), S("||a;||b;")},
    {"CRLF then CR", S("data:a\r\n\rdata:b\r\n\r\r"), S("||a;||b;")},
    {"empty lines in front", S("\n\r\n\rdata:a\n\n\n\ndata:b\n\n"), S("||a;||b;")},
    {"names that begin alike", S("datax:1\n\ndat:2\n\ndata :3\n\ndata\n\n"), S("||;")},
    {"a colon first", S(":data:1\n\n: ping\n\ndata:x\n\n"), S("||x;")},
    {"one provider's", S("event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n"),
     S("message_start||{\"type\":\"message_start\"};ping||{\"type\": \"ping\"};")},
    {"another's", S("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n: keep-alive\n\ndata: [DONE]\n\n"),
     S("||{\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]};||[DONE];")},
    {"nothing", S(""), S("")},
};

static void formats_however_split(void **state)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) check(&formats[i]);
}

static void events_say_what_they_are(void **state)
{
    struct seen s;
    seen_init(&s, 1000);
    assert_int_equal(feed(&s, ": ping\n\n:\n:\n\nevent: x\n\nfoo\n\n\n", 29), 0);
    assert_int_equal(s.comments, 2);
    assert_int_equal(s.silent, 2);
    assert_int_equal(claw_buf_size(&s.events), 0);
    assert_int_equal(claw_sse_rest(&s.sse).len, 0);
    seen_fini(&s);
}

/* A stream of CRLF lines keeps its events whole; one of CR lines does not wait for a byte that never comes. */
static void a_closing_cr(void **state)
{
    struct seen s;
    seen_init(&s, 1000);
    assert_int_equal(feed(&s, "data:a\r\n\r", 9), 0);
    assert_int_equal(claw_buf_size(&s.events), 0);
    assert_int_equal(claw_sse_rest(&s.sse).len, 9);
    assert_int_equal(feed(&s, "\n", 1), 0);
    assert_int_equal(claw_buf_size(&s.events), 4);
    assert_int_equal(claw_buf_size(&s.bytes), 10);
    assert_int_equal(claw_sse_rest(&s.sse).len, 0);
    assert_int_equal(feed(&s, "data:b\r\r", 8), 0);
    assert_int_equal(claw_buf_size(&s.events), 8);
    assert_int_equal(claw_sse_rest(&s.sse).len, 0);
    assert_int_equal(feed(&s, "\ndata:c\n\n", 9), 0);
    assert_int_equal(claw_buf_size(&s.events), 12);
    assert_whole(&s, (struct claw_str)S("data:a\r\n\r\ndata:b\r\r\ndata:c\n\n"));
    seen_fini(&s);
}

static int on_slice(void *arg, const struct claw_sse_event *ev)
{
    assert_ptr_equal(ev->raw.ptr, *(const char **)arg);
    *(const char **)arg += ev->raw.len;
    return 0;
}

static void whole_events_are_slices(void **state)
{
    static const char in[] = "data: a\n\ndata: b\n\n: c\n\nda";
    const char *next = in;
    struct claw_sse sse;
    claw_sse_init(&sse, 100);
    const struct claw_sse_sink to = {on_slice, NULL, &next};
    assert_int_equal(claw_sse_feed(&sse, in, sizeof in - 1, &to), 0);
    assert_ptr_equal(next, in + sizeof in - 3);
    assert_true(claw_str_eqz(claw_sse_rest(&sse), "da"));
    claw_sse_fini(&sse);
}

static void oversized_events_pass_raw(void **state)
{
    static const struct claw_str in = S("data:a\n\ndata:0123456789\n\ndata:b\n\ndata:0123456789\r\n\r\ndata:c\n\n");
    for (size_t max = 8; max <= 20; max++) {
        unsigned over = max < 17 ? 2 : max < 19 ? 1 : 0; /* 17 and 19 bytes */
        for (size_t cut = 0; cut <= in.len; cut++) {
            struct seen s;
            seen_init(&s, max);
            assert_int_equal(feed(&s, in.ptr, cut), 0);
            assert_true(claw_sse_rest(&s.sse).len <= max);
            assert_int_equal(feed(&s, in.ptr + cut, in.len - cut), 0);
            assert_int_equal(s.lasts, over);
            assert_false(s.sse.over);
            assert_int_equal(claw_buf_size(&s.events), 3 * 4 + (2 - over) * 13);
            assert_whole(&s, in);
            seen_fini(&s);
        }
        struct seen s;
        seen_init(&s, max);
        for (size_t i = 0; i < in.len; i++) assert_int_equal(feed(&s, in.ptr + i, 1), 0);
        assert_int_equal(s.lasts, over);
        assert_whole(&s, in);
        seen_fini(&s);
    }
}

static void oversized_events_end_a_strict_feed(void **state)
{
    static const struct claw_str in = S("data:0123456789\n\n");
    for (size_t cut = 0; cut <= in.len; cut++) {
        struct seen s;
        seen_init(&s, 16);
        s.to.on_over = NULL;
        int rc = feed(&s, in.ptr, cut);
        if (!rc) rc = feed(&s, in.ptr + cut, in.len - cut);
        assert_int_equal(rc, CLAW_EBAD_RESPONSE);
        seen_fini(&s);
    }
}

static void a_callback_stops_the_feed(void **state)
{
    static const struct claw_str in = S("data:a\n\ndata:b\n\n");
    for (size_t cut = 0; cut < in.len; cut++) {
        struct seen s;
        seen_init(&s, 100);
        s.stop = CLAW_ECANCELED;
        int rc = feed(&s, in.ptr, cut);
        if (!rc) rc = feed(&s, in.ptr + cut, in.len - cut);
        assert_int_equal(rc, CLAW_ECANCELED);
        assert_int_equal(claw_buf_size(&s.events), 4);
        seen_fini(&s);
    }
}

/* Lines are looked through in blocks: a line end at every place of events of every length. */
static void line_ends_at_every_place(void **state)
{
    static const char *const ends[] = {"\n", "\r", "\r\n"};
    for (size_t n = 0; n < 150; n++) {
        for (size_t way = 0; way < 9; way++) {
            char in[400];
            struct seen s;
            const char *one = ends[way % 3], *two = ends[way / 3];
            int len = snprintf(in, sizeof in, "data:%0*d%s%sid:\t%s%s", (int)n + 1, 7, one, way == 3 ? "\t" : two,
                               one, two);
            seen_init(&s, 1000);
            char *copy = malloc((size_t)len);
            assert_non_null(copy);
            memcpy(copy, in, (size_t)len);
            assert_int_equal(feed(&s, copy, (size_t)len), 0);
            free(copy);
            struct seen each;
            seen_init(&each, 1000);
            for (int i = 0; i < len; i++) assert_int_equal(feed(&each, in + i, 1), 0);
            assert_true(claw_str_eq(claw_buf_str(&s.events), claw_buf_str(&each.events)));
            assert_whole(&s, (struct claw_str){in, (size_t)len});
            assert_whole(&each, (struct claw_str){in, (size_t)len});
            seen_fini(&s);
            seen_fini(&each);
        }
    }
}

static int free_owner(void *arg, const struct claw_sse_event *ev)
{
    struct claw_sse *s = arg;
    claw_sse_fini(s);
    free(s);
    return CLAW_ECANCELED;
}

static void a_callback_may_free_the_framer(void **state)
{
    for (size_t cut = 0; cut < 8; cut++) {
        struct claw_sse *s = malloc(sizeof *s);
        assert_non_null(s);
        claw_sse_init(s, 100);
        const struct claw_sse_sink to = {free_owner, NULL, s};
        if (cut) assert_int_equal(claw_sse_feed(s, "data:a\n\n", cut, &to), 0);
        assert_int_equal(claw_sse_feed(s, &"data:a\n\n"[cut], 8 - cut, &to), CLAW_ECANCELED);
    }
}

static void parsing_takes_slices_where_it_can(void **state)
{
    static const struct claw_str raw = S("event: x\ndata: one\nid: 7\n\n");
    struct claw_buf tmp;
    struct claw_sse_fields f;
    claw_buf_init(&tmp, 8);
    assert_int_equal(claw_sse_parse(raw, &tmp, &f), 0);
    assert_ptr_equal(f.data.ptr, raw.ptr + 15);
    assert_true(claw_str_eqz(f.data, "one") && claw_str_eqz(f.type, "x") && claw_str_eqz(f.id, "7"));
    assert_int_equal(claw_sse_parse(CLAW_STR("data:a\ndata:b\rdata:c\r\n\r\n"), &tmp, &f), 0);
    assert_true(claw_str_eqz(f.data, "a\nb\nc"));
    assert_int_equal(f.type.len + f.id.len, 0);
    assert_int_equal(claw_sse_parse(CLAW_STR("data:1234\ndata:56789\n\n"), &tmp, &f), CLAW_ENOMEM);
    assert_int_equal(claw_sse_parse(CLAW_STR(""), &tmp, &f), 0);
    assert_int_equal(f.data.len, 0);
    claw_buf_fini(&tmp);
}

static void writing_reads_back(void **state)
{
    static const struct { struct claw_str type, data, wire, back; } rows[] = {
        {S(""), S("x"), S("data: x\n\n"), S("x")},
        {S("t"), S("x"), S("event: t\ndata: x\n\n"), S("x")},
        {S(""), S(""), S("data: \n\n"), S("")},
        {S(""), S("a\nb"), S("data: a\ndata: b\n\n"), S("a\nb")},
        {S(""), S("a\r\nb\rc"), S("data: a\ndata: b\ndata: c\n\n"), S("a\nb\nc")},
        {S(""), S("a\n"), S("data: a\ndata: \n\n"), S("a\n")},
        {S(""), S("\n"), S("data: \ndata: \n\n"), S("\n")},
        {S(""), S(" a"), S("data:  a\n\n"), S(" a")},
    };
    struct claw_buf out, tmp;
    struct claw_sse_fields f;
    claw_buf_init(&tmp, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        claw_buf_init(&out, rows[i].wire.len);
        assert_int_equal(claw_sse_write(&out, rows[i].type, rows[i].data), 0);
        assert_true(claw_str_eq(claw_buf_str(&out), rows[i].wire));
        assert_int_equal(claw_sse_parse(rows[i].wire, &tmp, &f), 0);
        assert_true(claw_str_eq(f.data, rows[i].back) && claw_str_eq(f.type, rows[i].type));
        assert_int_equal(claw_sse_write(&out, rows[i].type, rows[i].data), CLAW_ENOMEM);
        assert_int_equal(claw_buf_size(&out), rows[i].wire.len);
        claw_buf_fini(&out);
    }
    claw_buf_init(&out, 0);
    assert_int_equal(claw_sse_write(&out, CLAW_STR("a\ndata: b"), CLAW_STR("x")), CLAW_EINVAL);
    assert_int_equal(claw_sse_write(&out, CLAW_STR("a\r"), CLAW_STR("x")), CLAW_EINVAL);
    assert_int_equal(claw_buf_size(&out), 0);
    claw_buf_fini(&out);
    claw_buf_fini(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_however_split),
        cmocka_unit_test(events_say_what_they_are),
        cmocka_unit_test(a_closing_cr),
        cmocka_unit_test(whole_events_are_slices),
        cmocka_unit_test(oversized_events_pass_raw),
        cmocka_unit_test(oversized_events_end_a_strict_feed),
        cmocka_unit_test(line_ends_at_every_place),
        cmocka_unit_test(a_callback_stops_the_feed),
        cmocka_unit_test(a_callback_may_free_the_framer),
        cmocka_unit_test(parsing_takes_slices_where_it_can),
        cmocka_unit_test(writing_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
