#include "base/log.h"
#include "proxy/transcript.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct claw_conf conf;
static struct claw_generation gen = {.conf = &conf};
static struct claw_generation_local local = {.gen = &gen};
static struct claw_req *r;

static int setup(void **state)
{
    (void)state;
    conf.log_bodies = true;
    r = calloc(1, sizeof *r);
    r->gen = &local;
    claw_arena_init(&r->arena, NULL, 0, 1 << 20);
    claw_buf_init(&r->body, 0);
    return r ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    claw_buf_fini(&r->body);
    claw_arena_reset(&r->arena);
    free(r);
    return 0;
}

static void began(const char *body, size_t n)
{
    claw_buf_clear(&r->body);
    assert_int_equal(claw_buf_add(&r->body, body, n), 0);
    r->transcript = NULL;
    claw_arena_reset(&r->arena);
    claw_transcript_begin(r);
}

static void said(const char *text, size_t n)
{
    uv_buf_t pieces[] = {uv_buf_init((char *)text, (unsigned)(n / 2)), uv_buf_init((char *)text + n / 2, (unsigned)(n - n / 2))};
    claw_transcript_said(r, pieces, 2);
}

static void both_sides(void **state)
{
    (void)state;
    began("{\"a\":1}", 7);
    r->body.data[0] = 'X'; /* what becomes of the body later */
    said("hel", 3);
    said("lo", 2);
    assert_true(claw_str_eqz(claw_transcript_asked(r), "{\"a\":1}"));
    assert_true(claw_str_eqz(claw_transcript_answered(r), "hello"));
}

static void off(void **state)
{
    (void)state;
    conf.log_bodies = false;
    began("{}", 2);
    assert_null(r->transcript);
    assert_int_equal(claw_transcript_asked(r).len + claw_transcript_answered(r).len, 0);
}

static void the_bound_cuts_no_character(void **state)
{
    (void)state;
    char text[2 * CLAW_TRANSCRIPT_BYTES + 10];
    for (size_t shift = 0; shift < 3; shift++) { /* euro signs, of which the bound cuts one at each of its bytes */
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 <= sizeof text; i += 3) memcpy(text + i, "\xe2\x82\xac", 3);
        began(text, sizeof text);
        said(text, sizeof text);
        struct claw_str asked = claw_transcript_asked(r), answered = claw_transcript_answered(r);
        assert_in_range(asked.len, CLAW_TRANSCRIPT_BYTES - 3, CLAW_TRANSCRIPT_BYTES);
        assert_int_equal((asked.len - shift) % 3, 0);
        assert_true(claw_str_eq(asked, answered));
        assert_memory_equal(asked.ptr, text, asked.len);
    }
    began("caf\xc3\xa9", 5);
    assert_int_equal(claw_transcript_asked(r).len, 5);
}

/* Wherever it stands, not a byte of it: what is left of one that is cut would be no secret that the log knows. */
static void the_bound_shows_no_part_of_a_secret(void **state)
{
    static const char secret[] = "QZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZ";
    char text[3 * CLAW_TRANSCRIPT_BYTES];
    (void)state;
    claw_log_secret(CLAW_STR("QZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZ"));
    for (size_t n = CLAW_TRANSCRIPT_BYTES + 100; n <= sizeof text; n += CLAW_TRANSCRIPT_BYTES / 2)
        for (size_t at = CLAW_TRANSCRIPT_BYTES - 40; at < CLAW_TRANSCRIPT_BYTES + 8; at++) {
            memset(text, 'x', n);
            for (unsigned i = 0; i < 40; i++) memcpy(text + 60 * i, secret, sizeof secret - 1); /* others before it move the bound */
            memcpy(text + at, secret, sizeof secret - 1);
            memcpy(text + 2 * CLAW_TRANSCRIPT_BYTES - 8 < text + n - sizeof secret ? text + 2 * CLAW_TRANSCRIPT_BYTES - 8 : text, secret, sizeof secret - 1);
            began(text, n);
            said(text, n);
            struct claw_str asked = claw_transcript_asked(r), answered = claw_transcript_answered(r);
            assert_true(asked.len > 1000 && asked.len <= CLAW_TRANSCRIPT_BYTES && claw_str_eq(asked, answered));
            assert_null(memchr(asked.ptr, 'Q', asked.len));
        }
}

static void what_is_no_text_is_left_out(void **state)
{
    (void)state;
    began("ID3\x04\x00", 5);
    said("\x1f\x8b\x08\x00", 4);
    assert_int_equal(claw_transcript_asked(r).len + claw_transcript_answered(r).len, 0);
    began("a\tb\r\n", 5);
    assert_int_equal(claw_transcript_asked(r).len, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(both_sides), T(off), T(the_bound_cuts_no_character), T(the_bound_shows_no_part_of_a_secret), T(what_is_no_text_is_left_out),
    };
    return cmocka_run_group_tests_name("proxy/transcript", tests, NULL, NULL);
}
