/* multipart: the same parts come out wherever the bytes are cut; what could be read in two ways is refused. */
#include "http/multipart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define FORM "multipart/form-data; boundary=b1"
#define FIELD(name, value) "--b1\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"

static struct claw_buf seen;
static int stop_at;

static int on_part(void *arg, const struct claw_multipart_part *p)
{
    assert_ptr_equal(arg, &seen);
    assert_int_equal(claw_buf_add_fmt(&seen, "%.*s%s%s %llu+%llu %.*s|", CLAW_STR_FMT(p->name), p->file ? " file" : "", p->encoded ? " encoded" : "",
                                      (unsigned long long)p->at, (unsigned long long)p->bytes, CLAW_STR_FMT(p->value)), 0);
    return --stop_at == 0 ? CLAW_ECANCELED : 0;
}

static int feed(struct claw_multipart *m, const char *data, size_t n)
{
    char *copy = malloc(n ? n : 1); /* on the heap: an overrun is seen */
    if (n) memcpy(copy, data, n);
    int rc = claw_multipart_feed(m, copy, n, on_part, &seen);
    free(copy);
    return rc;
}

static void assert_seen(const char *z)
{
    assert_int_equal(claw_buf_add(&seen, "", 1), 0);
    assert_string_equal(claw_buf_str(&seen).ptr, z);
    claw_buf_clear(&seen);
}

static int read_all(const char *type, const char *z, size_t n, size_t i, size_t k, bool *complete)
{
    struct claw_multipart m;
    int rc = claw_multipart_init(&m, claw_str_of(type));
    if (rc == 0) rc = feed(&m, z, i);
    if (rc == 0) rc = feed(&m, z + i, k - i);
    if (rc == 0) rc = feed(&m, z + k, n - k);
    *complete = claw_multipart_complete(&m);
    assert_true((rc == CLAW_EBAD_REQUEST) == (*claw_multipart_error(&m) != 0));
    claw_multipart_fini(&m);
    return rc;
}

static void cut_anywhere(void **state)
{
    static const char text[] = "pre\n\r\n--b\r\n" FIELD("model", "whisper-1")
        "--b1 \t\r\ncontent-type: audio/x\r\nCONTENT-DISPOSITION:form-data;filename=\"a\\\"b.mp3\";  name=file;\r\n\r\n\r\n--b\r\r\n\n\r--b1\0\r\n--b"
        "\r\n" FIELD("", "") "--b1--\t\r\nafter\r\n--b";
    const size_t n = sizeof text - 1;
    bool complete;
    for (size_t i = 0; i <= n; i++) {
        for (size_t k = i; k <= n; k++) {
            assert_int_equal(read_all(FORM, text, n, i, k, &complete), 0);
            assert_true(complete);
            assert_seen("model 65+9 whisper-1|file file 173+20 | 244+0 |");
        }
    }
}

static void cut_bodies_are_not_complete(void **state)
{
    static const char text[] = FIELD("model", "m") "--b1--";
    const size_t n = sizeof text - 1;
    bool complete;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(read_all(FORM, text, i, i, i, &complete), 0);
        assert_false(complete);
    }
    claw_buf_clear(&seen);
    assert_int_equal(read_all(FORM, text, n, n, n, &complete), 0);
    assert_true(complete);
    assert_seen("model 54+1 m|");
}

static void names(void **state)
{
    static const struct { const char *head, *seen; } rows[] = {
        {"Content-Disposition: form-data; name=model", "model"},
        {"Content-Disposition:Form-Data ;\tNAME=\"model\" ;", "model"},
        {"Content-Disposition: form-data; name=\"m\\o\\\"\\\\del\"", "mo\"\\del"},
        {"Content-Disposition: form-data; name=\"a;filename=b\"", "a;filename=b"},
        {"Content-Disposition: form-data; name=\"\xc3\xa9\"", "\xc3\xa9"},
        {"X-A: b\r\nContent-Disposition: form-data; name=f; filename=\"\"", "f file"},
        {"Content-Disposition: form-data; filename*=UTF-8''%C3%A9; name=f", "f file"},
        {"Content-Disposition: form-data; name=f\r\nContent-Transfer-Encoding: BINARY", "f"},
        {"Content-Disposition: form-data; name=f\r\nContent-Transfer-Encoding: base64", "f encoded"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[512], want[128];
        bool complete;
        size_t n = (size_t)snprintf(body, sizeof body, "--b1\r\n%s\r\n\r\nv\r\n--b1--", rows[i].head);
        snprintf(want, sizeof want, "%s %zu+1 %s|", rows[i].seen, strlen(rows[i].head) + 10, strstr(rows[i].seen, " file") ? "" : "v");
        assert_int_equal(read_all(FORM, body, n, n, n, &complete), 0);
        assert_seen(want);
    }
}

static void refused(void **state)
{
    static const char *const bodies[] = {
        "--b1\r\nContent-Disposition: form-data; name=a\r\n\r\nv\n--b1\r\n", "\n--b1\r\n",                 /* a bare LF before a boundary */
        "--b1x\r\n", "--b1-\r\n", "--b1 -\r\n", "--b1\n", "--b1\r\r", FIELD("a", "b") "--b1--x", FIELD("a", "b") "--b1--\n", FIELD("a", "b") "--b1--\r\r",
        FIELD("a", "b") "--b1--\r\n--b1\r\n", FIELD("a", "b") "--b1--\r\nx\r\n--b1", FIELD("a", "b") "--b1--\r\nx\n--b1",
        "--b1\r\n\r\n", "--b1\r\nContent-Type: x/y\r\n\r\n",                                               /* no Content-Disposition */
        "--b1\r\nContent-Disposition: form-data\r\n\r\n", "--b1\r\nContent-Disposition: form-data;\r\n\r\n",
        "--b1\r\nContent-Disposition: attachment; name=a\r\n\r\n", "--b1\r\nContent-Disposition: form-data; filename=a\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n", "--b1\r\nContent-Disposition: form-data; name*=UTF-8''a\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=a; name*0=b\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=\"a\r\n\r\n", "--b1\r\nContent-Disposition: form-data; name=\"a\"b\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=a b\r\n\r\n", "--b1\r\nContent-Disposition: form-data; name= a\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=\r\n\r\n", "--b1\r\nContent-Disposition: form-data; ; name=a\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=a\n\r\n", "--b1\r\nContent-Disposition: form-data; name=a\r\n\n",
        "--b1\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\n", "--b1\r\nContent-Disposition : form-data; name=a\r\n\r\n",
        "--b1\r\nno colon\r\n\r\n", "--b1\r\nX: a\rb\r\nContent-Disposition: form-data; name=a\r\n\r\n", "--b1\r\n\r\r\n\r\n",
        "--b1\r\nContent-Disposition: form-data; name=a\r\n\r\n--b1--",                                    /* the empty line's CRLF is the boundary's */
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        size_t n = strlen(bodies[i]);
        bool complete;
        for (size_t k = 0; k <= n; k++) {
            assert_int_equal(read_all(FORM, bodies[i], n, k, k, &complete), CLAW_EBAD_REQUEST);
            assert_false(complete);
        }
    }
    claw_buf_clear(&seen);
}

static void content_types(void **state)
{
    static const struct { const char *type; bool form, good; const char *body; } rows[] = {
        {"Multipart/Form-Data;BOUNDARY=\"a b\"", true, true, "--a b--"},
        {"multipart/form-data ; charset=utf-8; boundary=----W'()+_,-./:=?9", true, true, "------W'()+_,-./:=?9--"},
        {"multipart/form-data; boundary=\"\\a\"", true, true, "--a--"},
        {"multipart/form-data", true, false, ""}, {"multipart/form-data;", true, false, ""}, {"multipart/form-data; boundary", true, false, ""},
        {"multipart/form-data; boundary=", true, false, ""}, {"multipart/form-data; boundary=\"\"", true, false, ""},
        {"multipart/form-data; boundary=a; boundary=a", true, false, ""}, {"multipart/form-data; boundary=\"a \"", true, false, ""},
        {"multipart/form-data; boundary=a*b", true, false, ""}, {"multipart/form-data; boundary=\"a", true, false, ""},
        {"multipart/form-data; boundary=a b", true, false, ""}, {"multipart/form-data; boundary=\"a\"b", true, false, ""},
        {"multipart/form-data; boundary=1234567890123456789012345678901234567890123456789012345678901234567890", true, true,
         "--1234567890123456789012345678901234567890123456789012345678901234567890--"},
        {"multipart/form-data; boundary=12345678901234567890123456789012345678901234567890123456789012345678901", true, false, ""},
        {"multipart/mixed; boundary=a", false, true, "--a--"}, {"multipart/form-data-x; boundary=a", false, true, "--a--"}, {"", false, false, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].body);
        bool complete;
        assert_int_equal(claw_multipart_is(claw_str_of(rows[i].type)), rows[i].form);
        assert_int_equal(read_all(rows[i].type, rows[i].body, n, n, n, &complete), rows[i].good ? 0 : CLAW_EBAD_REQUEST);
        assert_int_equal(complete, rows[i].good);
    }
}

static void bounds(void **state)
{
    struct claw_multipart m;
    struct claw_buf b;
    claw_buf_init(&b, 0);
    for (unsigned over = 0; over < 2; over++) { /* a value: its beginning */
        claw_buf_clear(&b);
        assert_int_equal(claw_buf_add_z(&b, "--b1\r\nContent-Disposition: form-data; name=a\r\n\r\n"), 0);
        for (unsigned i = 0; i < CLAW_MULTIPART_VALUE_BYTES + over; i++) assert_int_equal(claw_buf_add(&b, "x", 1), 0);
        assert_int_equal(claw_buf_add_z(&b, "\r\n--b1--"), 0);
        assert_int_equal(claw_multipart_init(&m, CLAW_STR(FORM)), 0);
        assert_int_equal(feed(&m, b.data, b.len), 0);
        claw_multipart_fini(&m);
        assert_int_equal(claw_buf_size(&seen), strlen("a 50+256 |") + CLAW_MULTIPART_VALUE_BYTES);
        claw_buf_clear(&seen);
    }
    for (unsigned over = 0; over < 2; over++) { /* a head */
        claw_buf_clear(&b);
        assert_int_equal(claw_buf_add_z(&b, "--b1\r\nContent-Disposition: form-data; name="), 0);
        for (unsigned i = 0; i < CLAW_MULTIPART_HEAD_BYTES - 41 + over; i++) assert_int_equal(claw_buf_add(&b, "x", 1), 0);
        assert_int_equal(claw_buf_add_z(&b, "\r\n\r\nv\r\n--b1--"), 0);
        assert_int_equal(claw_multipart_init(&m, CLAW_STR(FORM)), 0);
        assert_int_equal(feed(&m, b.data, b.len), over ? CLAW_EBAD_REQUEST : 0);
        claw_multipart_fini(&m);
        claw_buf_clear(&seen);
    }
    for (unsigned over = 0; over < 2; over++) { /* the preamble */
        claw_buf_clear(&b);
        for (unsigned i = 0; i < CLAW_MULTIPART_HEAD_BYTES - 1 + over; i++) assert_int_equal(claw_buf_add(&b, "x", 1), 0);
        assert_int_equal(claw_buf_add_z(&b, "\r\n--b1--"), 0);
        assert_int_equal(claw_multipart_init(&m, CLAW_STR(FORM)), 0);
        assert_int_equal(feed(&m, b.data, b.len), over ? CLAW_EBAD_REQUEST : 0);
        claw_multipart_fini(&m);
    }
    assert_int_equal(claw_multipart_init(&m, CLAW_STR(FORM)), 0); /* parts */
    for (unsigned i = 0; i <= CLAW_MULTIPART_PARTS; i++) assert_int_equal(feed(&m, FIELD("a", ""), strlen(FIELD("a", ""))), 0);
    assert_int_equal(feed(&m, "--b1", 4), CLAW_EBAD_REQUEST);
    assert_int_equal(feed(&m, "--b1", 4), CLAW_EBAD_REQUEST);
    claw_multipart_fini(&m);
    claw_buf_clear(&seen);
    claw_buf_fini(&b);
}

static void stops(void **state)
{
    struct claw_multipart m;
    static const char text[] = FIELD("a", "1") FIELD("b", "2") "--b1--";
    assert_int_equal(claw_multipart_init(&m, CLAW_STR(FORM)), 0);
    stop_at = 1;
    assert_int_equal(feed(&m, text, sizeof text - 1), CLAW_ECANCELED);
    assert_seen("a 50+1 1|");
    stop_at = 0;
    claw_multipart_fini(&m);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_anywhere), cmocka_unit_test(cut_bodies_are_not_complete), cmocka_unit_test(names), cmocka_unit_test(refused),
        cmocka_unit_test(content_types), cmocka_unit_test(bounds), cmocka_unit_test(stops),
    };
    claw_buf_init(&seen, 0);
    int rc = cmocka_run_group_tests_name("http/multipart", tests, NULL, NULL);
    claw_buf_fini(&seen);
    return rc;
}
