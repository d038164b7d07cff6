/* recent: what is kept of requests, how much of it, and that it is JSON whatever came. */
#include "scene.h"

#include "base/json.h"
#include "proxy/recent.h"

static struct claw_buf out;
static struct claw_recent *ring;

static int open_all(void **state)
{
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    claw_buf_init(&out, 0);
    assert_non_null(ring = claw_recent_new());
    ctx.recent = ring;
    return 0;
}

static int close_all(void **state)
{
    int rc = scene_close(state);
    claw_recent_free(ring);
    claw_buf_fini(&out);
    return rc;
}

/* The list of what `f` selects: how many there are. */
static size_t write_all(const struct claw_recent_filter *f)
{
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_recent *one = ring;
    claw_arena_init(&a, NULL, 0, 8 << 20);
    claw_buf_clear(&out);
    assert_int_equal(claw_buf_add_z(&out, "{\"all\":"), 0);
    assert_int_equal(claw_recent_write(&one, 1, f, &out), 0);
    assert_int_equal(claw_buf_add(&out, "}", 2), 0);
    struct claw_str s = claw_buf_str(&out);
    if (claw_json_scan((struct claw_str){s.ptr, s.len - 1}, &a, &top, &err) != 0) fail_msg("%s at %zu: %s", err.text, err.offset, s.ptr);
    size_t n = claw_json_count(claw_json_top_get(&top, CLAW_STR("all")));
    claw_arena_reset(&a);
    return n;
}

static void assert_shows(const char *text)
{
    if (!strstr(claw_buf_str(&out).ptr, text)) fail_msg("no %s in %s", text, claw_buf_str(&out).ptr);
}

static void a_request_in_full(void **state)
{
    struct peer c;
    assert_int_equal(claw_recent_set(ring, 4), 0);
    fake.cost = 1234567;
    ask(&c);
    answer(asked(0), "503 Busy", "", "");
    answer(asked(1), "200 OK", JSON, "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    assert_int_equal(write_all(&(struct claw_recent_filter){.most = 0}), 1);
    assert_shows("\"route\":\"r1\"");
    assert_shows("\"upstream\":\"u1\"");
    assert_shows("\"kind\":\"http_503\"");
    assert_shows("\"cost_usd\":1.234567");
    assert_shows("\"input_tokens\":3,\"output_tokens\":4");
    assert_shows("\"status\":200");
    assert_int_equal(write_all(&(struct claw_recent_filter){.route = CLAW_STR("r2")}), 0);
    assert_int_equal(write_all(&(struct claw_recent_filter){.status = 2, .upstream = CLAW_STR("u1"), .client = CLAW_STR("127.0.0.1")}), 1);
    assert_int_equal(write_all(&(struct claw_recent_filter){.failed = true}), 0);
    peer_fini(&c, &loop);
}

static struct claw_req *made(int status)
{
    struct claw_req *r = claw_req_new(&ctx, NULL);
    r->status = status;
    return r;
}

static void bounds(void **state)
{
    struct claw_req *r = made(200);
    claw_recent_add(ring, r); /* none is kept */
    assert_int_equal(write_all(&(struct claw_recent_filter){.most = 0}), 0);
    assert_int_equal(claw_recent_set(ring, 3), 0);
    for (int i = 0; i < 5; i++) {
        r->status = 200 + i;
        claw_recent_add(ring, r);
    }
    assert_int_equal(write_all(&(struct claw_recent_filter){.most = 0}), 3);
    assert_shows("\"status\":202");
    assert_shows("\"status\":204");
    assert_null(strstr(claw_buf_str(&out).ptr, "\"status\":201"));
    assert_int_equal(write_all(&(struct claw_recent_filter){.most = 2}), 2);
    assert_shows("\"status\":204");
    assert_int_equal(write_all(&(struct claw_recent_filter){.since_us = UINT64_MAX}), 0);
    assert_int_equal(claw_recent_set(ring, 3), 0); /* the same again: nothing is forgotten */
    assert_int_equal(write_all(&(struct claw_recent_filter){.most = 0}), 3);
    assert_int_equal(claw_recent_set(ring, 2), 0);
    assert_int_equal(write_all(&(struct claw_recent_filter){.most = 0}), 0);
    claw_req_free(r);
}

/* Everything too long, and every byte. */
static void hostile_texts(void **state)
{
    char bytes[4096];
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (char)i;
    struct claw_str all = {bytes, sizeof bytes};
    struct claw_head head = {.method = all, .path = all};
    struct claw_req *r = made(500);
    assert_int_equal(claw_recent_set(ring, 2), 0);
    r->head = &head;
    r->model = r->error_text = r->upstream_error = r->answered_by = all;
    r->error = CLAW_EPOLICY;
    r->candidates_n = CLAW_CANDIDATES_MAX;
    for (unsigned i = 0; i < CLAW_CANDIDATES_MAX; i++) r->candidates[i] = (struct claw_candidate){.model = all, .aside = true};
    r->attempts_n = 40;
    for (unsigned i = 0; i < CLAW_ATTEMPTS_MAX; i++) r->attempts[i] = (struct claw_attempt){.kind = "timeout_first_byte", .several = true, .end_us = UINT32_MAX};
    claw_recent_add(ring, r);
    assert_int_equal(write_all(&(struct claw_recent_filter){.failed = true}), 1);
    assert_shows("\"attempts_left_out\":32");
    assert_shows("\"error\":\"policy_error\"");
    claw_buf_clear(&out);
    assert_int_equal(claw_recent_write_live(r, &out), 0);
    assert_int_equal(claw_buf_add(&out, "", 1), 0);
    assert_shows("\"step\":\"parse\"");
    claw_req_free(r);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
#define ALL(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)
    const struct CMUnitTest tests[] = {ALL(a_request_in_full), ALL(bounds), ALL(hostile_texts)};
    return cmocka_run_group_tests_name("proxy/recent", tests, group_open, group_close);
}
