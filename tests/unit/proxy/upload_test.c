/* upload: what a form says, however it is cut; what is sent of a large one, when, and to whom. */
#include "proxy/upload.h"

#include "scene.h"

#define HELD (64u << 10)
#define FIELD "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n"
#define FILE_HEAD "\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
#define LAST "\r\n--b--\r\n"
#define SMALL(model) FIELD model FILE_HEAD "x" LAST

/* A form with this model and a file that makes it n bytes; to free. */
static char *large(const char *model, size_t n)
{
    char *out = malloc(n + 1);
    size_t head = (size_t)sprintf(out, "%s%s%s", FIELD, model, FILE_HEAD), last = strlen(LAST);
    for (size_t i = head; i < n - last; i++) out[i] = (char)('a' + (i - head) % 26);
    memcpy(out + n - last, LAST, last + 1);
    return out;
}

/* The head of a form of n bytes; 0: chunked. */
static void say_head(struct peer *c, size_t n)
{
    char head[256];
    int len = n ? snprintf(head, sizeof head, "Content-Length: %zu\r\n\r\n", n) : snprintf(head, sizeof head, CHUNKED);
    peer_dial(c, &loop, claw_server_port(&server));
    peer_say(c, "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n");
    peer_send(c, head, (size_t)len);
}

/* The next connection of upstream i, once so much of a body has come on it. */
static struct peer *taken(unsigned i, size_t body)
{
    struct upstream *u = &up[i];
    UNTIL(&loop, u->n > u->used);
    struct peer *p = u->taken[u->used++];
    for (;;) {
        struct claw_str s = claw_buf_str(&p->in);
        ptrdiff_t end = claw_str_find(s, CLAW_STR("\r\n\r\n"));
        if (end >= 0 && s.len - (size_t)end - 4 >= body) return p;
        claw_loop_turn(&loop, true);
    }
}

static void assert_sent(const struct peer *p, const char *body)
{
    struct claw_str s = claw_buf_str(&p->in);
    ptrdiff_t end = claw_str_find(s, CLAW_STR("\r\n\r\n"));
    assert_true(end >= 0);
    s.ptr += end + 4;
    s.len -= (size_t)end + 4;
    assert_true(claw_str_eqz(s, body));
}

static void small_ones_cut_anywhere(void **state)
{
    static const char body[] = SMALL("asked");
    upstream_listen(&up[0]);
    fake.model = CLAW_STR("sent");
    for (size_t i = 0; i < sizeof body; i += 3) {
        struct peer c;
        say_head(&c, sizeof body - 1);
        peer_send(&c, body, i);
        settle();
        peer_send(&c, body + i, sizeof body - 1 - i);
        UNTIL(&loop, up[0].n);
        struct peer *u = up[0].taken[0];
        UNTIL(&loop, whole(u));
        assert_sent(u, SMALL("sent"));
        claw_buf_clear(&u->in);
        answer(u, "200 OK", JSON, "{}");
        UNTIL(&loop, whole(&c));
        assert_has(&c, "x-openclaw-model: sent\r\n");
        finish_request((unsigned)(i / 3) + 1);
        assert_int_equal(fake.bytes_in, sizeof body - 1);
        peer_fini(&c, &loop);
    }
}

static void refused_ones_reach_nobody(void **state)
{
    static const struct { const char *body, *why; } rows[] = {
        {FIELD "m", "it ends before its last boundary"}, {FIELD "m\n--b--", "a boundary follows a bare LF"}, {FIELD "m\r\n" SMALL("n"), "the field \\\"model\\\" is there twice"},
        {FIELD "m\tn\x01" LAST, "the field \\\"model\\\" has control characters"},
        {"--b\r\nContent-Disposition: form-data; name=model; filename=a\r\n\r\nm" LAST, "the field \\\"model\\\" is not plain text"},
        {"--b\r\nContent-Disposition: form-data; name=model\r\nContent-Transfer-Encoding: base64\r\n\r\nbQ==" LAST, "the field \\\"model\\\" is not plain text"},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peer c;
        say_head(&c, strlen(rows[i].body));
        peer_say(&c, rows[i].body);
        UNTIL(&loop, whole(&c));
        assert_has(&c, "HTTP/1.1 400 Bad Request\r\n");
        assert_has(&c, rows[i].why);
        finish_request(i + 1);
        assert_int_equal(fake.error, CLAW_EBAD_REQUEST);
        peer_fini(&c, &loop);
    }
    assert_int_equal(fake.calls[ROUTE], 0);
}

static void a_model_that_would_bring_fields_is_not_written(void **state)
{
    struct peer c;
    fake.model = CLAW_STR("m\r\n--b\r\nContent-Disposition: form-data; name=x");
    upstream_listen(&up[0]);
    say_head(&c, strlen(SMALL("asked")));
    peer_say(&c, SMALL("asked"));
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 413 ");
    finish_request(1);
    peer_fini(&c, &loop);
}

/* The rest comes in pieces of this size. */
static void stream_one(size_t n, size_t piece, bool counted)
{
    struct peer c;
    char *body = large("asked", n), *want = large("that", n - 1), line[24];
    fake.model = CLAW_STR("that");
    size_t before = up[0].used;
    say_head(&c, counted ? n : 0);
    if (!counted) peer_send(&c, line, (size_t)sprintf(line, "%x\r\n", HELD));
    peer_send(&c, body, HELD);
    if (!counted) peer_say(&c, "\r\n");
    struct peer *u = taken(0, HELD - 1);
    assert_int_equal(up[0].used, before + 1);
    assert_int_equal(fake.calls[ROUTE], before + 1);
    for (size_t i = HELD; i < n; i += piece) {
        size_t some = piece < n - i ? piece : n - i;
        if (!counted) peer_send(&c, line, (size_t)sprintf(line, "%zx\r\n", some));
        peer_send(&c, body + i, some);
        if (!counted) peer_say(&c, "\r\n");
        if (piece < 5000) claw_loop_turn(&loop, false);
    }
    if (!counted) peer_say(&c, "0\r\n\r\n");
    if (counted) {
        UNTIL(&loop, whole(u));
        assert_sent(u, want);
    } else {
        bool ended = false;
        char *got = NULL;
        assert_has(u, "transfer-encoding: chunked\r\n");
        while (!ended) {
            claw_loop_turn(&loop, true);
            free(got);
            got = body_of(u, &ended);
        }
        assert_string_equal(got, want);
        assert_true(peer_ends(u, "\r\n0\r\n\r\n"));
        free(got);
    }
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 200 OK\r\n");
    finish_request(fake.calls[ROUTE]);
    assert_int_equal(fake.bytes_in, n);
    free(body);
    free(want);
    peer_fini(&c, &loop);
}

static void large_ones_go_on_while_they_come(void **state)
{
    upstream_listen(&up[0]);
    for (int counted = 0; counted < 2; counted++) {
        stream_one(HELD + 1, 1, counted);
        stream_one(HELD + 300, 1, counted);
        stream_one(HELD + 70000, 997, counted);
        stream_one(HELD + 700000, 700000, counted);
    }
    struct claw_upstream_facts facts; /* the client's time is not the upstream's */
    claw_upstream_stats_get(claw_upstream_stats_of(CLAW_STR("u0")), CLAW_STR("that"), claw_loop_now_ms(&loop), &facts);
    assert_true(facts.ewma_ttfb_ms < 0);
}

static void what_comes_while_a_hook_waits_is_kept(void **state)
{
    struct peer c;
    const size_t n = 400000;
    char *body = large("m", n);
    upstream_listen(&up[0]);
    fake.waits[ROUTE] = 1;
    say_head(&c, n);
    peer_send(&c, body, n);
    UNTIL(&loop, fake.waiting);
    settle();
    struct claw_req *r = fake.waiting;
    assert_true(r->upload->streams && !r->upload_done);
    assert_true(r->conn->stream.paused && claw_buf_size(&r->upload->ahead) <= CLAW_LOOP_READ_BYTES && claw_buf_size(&r->body) < 3 * HELD);
    for (int i = 0; i < 6; i++) claw_loop_advance(&loop, 10000); /* the client's time does not run */
    settle();
    assert_int_equal(ctx.requests_n, 1);
    fake.waiting = NULL;
    claw_pipeline_resume(r);
    struct peer *u = asked(0);
    assert_sent(u, body);
    answer(u, "200 OK", JSON, "{}");
    finish_request(1);
    assert_int_equal(fake.status, 200);
    free(body);
    peer_fini(&c, &loop);
}

static void another_try_while_all_is_held(void **state)
{
    struct peer c;
    const size_t n = 400000;
    char *body = large("m", n);
    upstream_listen(&up[0]);
    upstream_listen(&up[1]);
    say_head(&c, n);
    peer_send(&c, body, HELD);
    struct peer *u = taken(0, HELD);
    answer(u, "503 Service Unavailable", JSON, "{}");
    u = taken(1, HELD);
    peer_send(&c, body + HELD, n - HELD);
    UNTIL(&loop, whole(u));
    assert_sent(u, body);
    reset(u);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 502 ");
    finish_request(1);
    assert_failures("http_503 eof");
    assert_int_equal(fake.attempts, 2);
    free(body);
    peer_fini(&c, &loop);
}

static void no_other_try_behind_that(void **state)
{
    struct peer c;
    const size_t n = 400000;
    char *body = large("m", n);
    upstream_listen(&up[0]);
    fake.always_same = true;
    say_head(&c, n);
    peer_send(&c, body, HELD);
    struct peer *u = taken(0, HELD);
    peer_send(&c, body + HELD, 1);
    UNTIL(&loop, ctx.requests->upload->spent);
    assert_int_equal(ctx.requests->body.cap, 0); /* nobody asks for the beginning any more */
    answer(u, "503 Service Unavailable", JSON, "{\"no\":1}");
    UNTIL(&loop, whole(&c));
    assert_body(&c, "{\"no\":1}");
    assert_has(&c, "connection: close\r\n");
    finish_request(1);
    assert_int_equal(fake.attempts, 1);
    assert_int_equal(fake.bytes_in, HELD + 1);
    free(body);
    peer_fini(&c, &loop);
}

static void who_leaves_ends_it(void **state)
{
    struct peer c;
    const size_t n = 400000;
    char *body = large("m", n);
    upstream_listen(&up[0]);
    say_head(&c, n);
    peer_send(&c, body, HELD + 1);
    struct peer *u = taken(0, HELD + 1);
    reset(&c);
    UNTIL(&loop, u->ended);
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ECLIENT_GONE);
    assert_false(fake.had_client);
    free(body);
    peer_fini(&c, &loop);
}

static void time_is_the_one_s_who_is_waited_for(void **state)
{
    struct peer c;
    const size_t n = HELD + 48000;
    char *body = large("m", n);
    upstream_listen(&up[0]);
    say_head(&c, n);
    peer_send(&c, body, HELD);
    struct peer *u = taken(0, HELD);
    for (int i = 0; i < 3; i++) { /* 1 KB a second: longer than an upstream may take */
        peer_send(&c, body + HELD + i * 16000, i < 2 ? 16000 : 15999);
        settle();
        claw_loop_advance(&loop, 9500);
        settle();
    }
    assert_int_equal(ctx.requests_n, 1);
    peer_send(&c, body + n - 1, 1);
    UNTIL(&loop, whole(u));
    settle();
    claw_loop_advance(&loop, FIRST_BYTE_MS - 200);
    settle();
    assert_int_equal(ctx.requests_n, 1);
    fake.candidates = 1;
    ctx.requests->candidates_n = 1;
    claw_loop_advance(&loop, 400);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 504 ");
    finish_request(1);
    assert_int_equal(fake.error, CLAW_EFIRST_BYTE_TIMEOUT);
    free(body);
    peer_fini(&c, &loop);
}

static void another_body_cannot_take_its_place(void **state)
{
    struct peer c;
    const size_t n = 400000;
    char *body = large("m", n);
    fake.mask = CLAW_MASK_REQUEST;
    fake.out_body = CLAW_STR("{}");
    say_head(&c, n);
    peer_send(&c, body, HELD);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 413 ");
    finish_request(1);
    assert_int_equal(fake.error, CLAW_EBODY_TOO_LARGE);
    free(body);
    peer_fini(&c, &loop);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    alarm(PEER_ALARM_S);
    const struct CMUnitTest tests[] = {
        TEST(small_ones_cut_anywhere), TEST(refused_ones_reach_nobody), TEST(a_model_that_would_bring_fields_is_not_written),
        TEST(large_ones_go_on_while_they_come), TEST(what_comes_while_a_hook_waits_is_kept), TEST(another_try_while_all_is_held),
        TEST(no_other_try_behind_that), TEST(who_leaves_ends_it), TEST(time_is_the_one_s_who_is_waited_for), TEST(another_body_cannot_take_its_place),
    };
    return cmocka_run_group_tests_name("proxy/upload", tests, group_open, group_close);
}
