/* scene: a whole proxy on the test's own loop, with made-up policies: a real server, a real pool, two upstreams whose
 * every byte the test says, and clients. Each test file includes it once. */
#ifndef CLAW_TEST_PROXY_SCENE_H
#define CLAW_TEST_PROXY_SCENE_H

#include "proxy/account.h"
#include "proxy/care.h"
#include "proxy/pipeline.h"
#include "proxy/relay.h"

#include "../http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define SCENE_USED __attribute__((unused))
#define UPSTREAMS 2
#define TAKEN_MAX 2048
#define FIRST_BYTE_MS 5000u
#define STALL_MS 7000u
#define DEADLINE_MS 60000u

/* ---- policies ----------------------------------------------------------------------------------------------------------- */

enum op { ADMIT, ROUTE, REQUEST, RETRY, RESPONSE, EVENT, FINISH, OPS };

/* What the ops do, and what they saw. */
static struct {
    bool admits;
    unsigned waits[OPS];   /* how many times an op says CLAW_EAGAIN first */
    int rc[OPS];           /* else: what it returns when not 0 */
    int deny;              /* admit: this status */
    struct claw_policy_answer admit_answer;
    struct claw_str answer; /* route: this body, with status 202 */
    int route_error;
    unsigned candidates;
    uint16_t mask;
    struct claw_conf_hedge hedging; /* route */
    struct claw_str model; /* of each candidate */
    struct claw_str out_body, header; /* request: this body; x-made: header */
    bool always_same;      /* retry */
    uint64_t after_ms;
    struct claw_str response;
    const struct claw_policy_event *events;
    int events_n;          /* -1: unchanged */
    int64_t cost;
    unsigned strategy;     /* caches */
    bool translated;       /* request: the attempt is */
    uint32_t commit_at;    /* request: its stream is held so long */
    int end_rc;            /* event: what it says to the stream's end */
    const char *error_type; /* event: events of this type are errors, of the status; NULL: none is */
    int error_status;

    struct claw_req *waiting;
    unsigned calls[OPS], cancels, released;
    struct claw_buf failures; /* "connect http_503 …" */
    struct claw_buf seen;     /* events, each with | behind it */
    struct claw_str failed_body;
    int64_t retry_after;
    /* the last request, as it was at its end */
    int status, error;
    unsigned attempts;
    uint32_t overhead_us, waited_us, end_us;
    uint64_t bytes_in, bytes_out;
    struct claw_usage usage;
    uint8_t estimated;
    bool had_client;
    bool library; /* what fails is the library, no policy */
} fake;

static void on_wait_cancel(struct claw_req *r)
{
    assert_ptr_equal(r, fake.waiting);
    fake.waiting = NULL;
    fake.cancels++;
}

static int begin_op(enum op op, struct claw_req *r, struct claw_policy_error *err)
{
    fake.calls[op]++;
    if (fake.waits[op]) {
        fake.waits[op]--;
        fake.waiting = r;
        r->waiting = &fake;
        r->wait_cancel = on_wait_cancel;
        return CLAW_EAGAIN;
    }
    *err = (struct claw_policy_error){fake.library ? CLAW_STR("claw") : CLAW_STR("p"), CLAW_STR("h"), CLAW_STR("p.lua:1: a \"bad\" day")};
    return fake.rc[op];
}

static int fake_admit(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err)
{
    assert_ptr_equal(vm, &fake);
    int rc = begin_op(ADMIT, r, err);
    if (rc == 0 && fake.deny) {
        r->error = CLAW_EDENIED;
        r->status = fake.deny;
        r->error_code = "no_way";
        r->error_text = CLAW_STR("You may not \"pass\".");
    }
    if (rc == 0) *answer = fake.admit_answer;
    return rc;
}

static int fake_route(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err)
{
    int rc = begin_op(ROUTE, r, err);
    if (rc != 0) return rc;
    if (fake.answer.ptr) *answer = (struct claw_policy_answer){.body = fake.answer, .status = 202};
    r->error = fake.route_error;
    r->route = 0;
    r->candidates_n = fake.candidates;
    r->hedging = fake.hedging;
    for (unsigned i = 0; i < fake.candidates; i++)
        r->candidates[i] = (struct claw_candidate){.upstream = (uint16_t)(i % UPSTREAMS), .mask = fake.mask, .model = fake.model};
    return 0;
}

static int fake_request(void *vm, struct claw_req *r, struct claw_policy_error *err)
{
    if (fake.calls[REQUEST] == 0 && fake.header.ptr) assert_int_equal(claw_req_set_header(r, CLAW_STR("x-made"), fake.header), 0);
    int rc = begin_op(REQUEST, r, err);
    r->translated = fake.translated;
    r->commit_at = fake.commit_at;
    if (rc == 0 && fake.out_body.ptr) {
        claw_buf_clear(&r->out_body);
        assert_int_equal(claw_buf_add_str(&r->out_body, fake.out_body), 0);
        r->out_body_set = true;
    }
    return rc;
}

static int fake_retry(void *vm, struct claw_req *r, const struct claw_failure *f, enum claw_retry_action *action, uint64_t *after_ms,
                      struct claw_policy_error *err)
{
    int rc = begin_op(RETRY, r, err);
    if (rc == CLAW_EAGAIN) return rc;
    assert_int_equal(claw_buf_add_fmt(&fake.failures, "%s%s", claw_buf_size(&fake.failures) ? " " : "", f->kind), 0);
    assert_int_equal(f->tries, r->attempts_n);
    fake.retry_after = f->retry_after_ms;
    fake.failed_body.len = f->body.len;
    *action = fake.always_same ? CLAW_RETRY_SAME : f->again && f->left ? CLAW_RETRY_NEXT : CLAW_RETRY_STOP;
    *after_ms = fake.after_ms;
    return rc;
}

static int fake_response(void *vm, struct claw_req *r, struct claw_str body, struct claw_str *out, struct claw_policy_error *err)
{
    int rc = begin_op(RESPONSE, r, err);
    if (rc == CLAW_EAGAIN) return rc;
    claw_buf_clear(&fake.seen);
    assert_int_equal(claw_buf_add_str(&fake.seen, body), 0);
    *out = fake.response;
    return rc;
}

static int fake_event(void *vm, struct claw_req *r, struct claw_str type, struct claw_str data, const struct claw_policy_event **out, int *n,
                      struct claw_policy_error *err)
{
    int rc = begin_op(EVENT, r, err);
    if (!data.ptr) {
        assert_int_equal(claw_buf_add_z(&fake.seen, "END|"), 0);
        *n = -1;
        return fake.end_rc;
    }
    assert_int_equal(claw_buf_add_fmt(&fake.seen, "%s%.*s:%.*s|", r->turned ? "WHOLE " : "", CLAW_STR_FMT(type), CLAW_STR_FMT(data)), 0);
    if (fake.error_type && claw_str_eqz(type, fake.error_type)) {
        r->answer_status = fake.error_status;
        err->message = CLAW_STR("it is an error");
        return CLAW_ESTREAM_ERROR;
    }
    *out = fake.events;
    *n = fake.events_n;
    return rc;
}

static int fake_finish(void *vm, struct claw_req *r, struct claw_policy_error *err)
{
    r->cost_micros = fake.cost;
    return begin_op(FINISH, r, err);
}

static void fake_release(void *vm, struct claw_req *r)
{
    fake.released++;
    fake.status = r->status;
    fake.error = r->error;
    fake.attempts = r->attempts_n;
    fake.overhead_us = r->overhead_us;
    fake.waited_us = r->waited_us;
    fake.end_us = r->end_us;
    fake.bytes_in = r->bytes_in;
    fake.bytes_out = r->bytes_out;
    fake.usage = r->usage;
    fake.estimated = r->estimated;
    fake.had_client = r->client != NULL || r->lease.endpoint != NULL;
    assert_false(r->outstanding);
}

static int fake_error(void *vm, struct claw_req *r, int status, struct claw_str body, struct claw_str *out, struct claw_policy_error *err)
{
    *out = fake.response;
    return 0;
}

static int fake_caches(void *vm, struct claw_req *r, unsigned *which, struct claw_policy_error *err)
{
    *which = fake.strategy;
    return 0;
}

static int fake_recast(void *vm, struct claw_req *r, struct claw_str body, bool stream, struct claw_buf *out, struct claw_policy_error *err)
{
    claw_buf_clear(out);
    return claw_buf_add_fmt(out, stream ? "{\"joined\":%zu}" : "data: {\"spread\":%zu}\n\n", body.len);
}

static bool fake_admits(void *vm) { return fake.admits; }

static const struct claw_policy_ops fake_ops = {fake_admit, fake_route,  fake_request, fake_retry,  fake_response, fake_error,
                                                fake_event, fake_caches, fake_recast, fake_finish, fake_release, fake_admits};

/* ---- the proxy and its upstreams ------------------------------------------------------------------------------------------ */

static struct claw_loop loop;
static struct claw_server server;
static struct claw_worker_ctx ctx;
static struct claw_generation *generation;
static struct claw_arena problems_arena;
static bool server_empty;
static const char *scene_more = ""; /* of openclaw.yaml, behind what is there */
static char log_path[] = P_tmpdir "/openclaw-scene-XXXXXX";

static struct upstream {
    uv_tcp_t listener;
    uint16_t port;
    bool closed;
    struct peer *taken[TAKEN_MAX]; /* connections, in order */
    unsigned n, used;              /* of these the test asked for */
} up[UPSTREAMS];

static void on_upstream_connection(uv_stream_t *h, int status)
{
    struct upstream *u = h->data;
    struct peer *p = malloc(sizeof *p);
    assert_true(status == 0 && p && u->n < TAKEN_MAX);
    peer_init(p);
    u->taken[u->n++] = p;
    CLAW_ASSERT(claw_stream_accept(&p->stream, &loop, h, NULL, &peer_events, p) == 0);
}

static void on_upstream_closed(uv_handle_t *h) { ((struct upstream *)h->data)->closed = true; }

static void upstream_open(struct upstream *u)
{
    struct sockaddr_in a;
    int len = sizeof a;
    memset(u, 0, sizeof *u);
    uv_tcp_init(&loop.uv, &u->listener);
    u->listener.data = u;
    uv_ip4_addr("127.0.0.1", 0, &a);
    assert_int_equal(uv_tcp_bind(&u->listener, (struct sockaddr *)&a, 0), 0);
    assert_int_equal(uv_tcp_getsockname(&u->listener, (struct sockaddr *)&a, &len), 0);
    u->port = ntohs(a.sin_port);
}

SCENE_USED static void upstream_listen(struct upstream *u)
{
    assert_int_equal(uv_listen((uv_stream_t *)&u->listener, 64, on_upstream_connection), 0);
}

static int scene_open(void **state)
{
    struct claw_conf_problems problems;
    struct claw_conf *conf;
    char yaml[1536];
    const char *why;
    memset(&fake, 0, sizeof fake);
    claw_buf_init(&fake.failures, 0);
    claw_buf_init(&fake.seen, 0);
    fake.candidates = UPSTREAMS;
    fake.events_n = -1;
    fake.cost = -1;
    fake.model = CLAW_STR("");
    server_empty = false;
    claw_cooling_forget();
    claw_care_forget();
    assert_int_equal(claw_loop_init(&loop), 0);
    loop.lanes.long_us = 60000000;
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_open(&up[i]);
    snprintf(yaml, sizeof yaml,
             "server: {max_body_mb: 1, upload_hold_kb: 64}\n"
             "retry: {attempts: 4, total_timeout_seconds: 60, budget: 1}\n"
             "upstreams:\n"
             "  u0: {type: generic, base_url: 'http://127.0.0.1:%u', first_byte_timeout_seconds: 5, stall_timeout_seconds: 7, connect_timeout_seconds: 3}\n"
             "  u1: {type: generic, base_url: 'http://127.0.0.1:%u', first_byte_timeout_seconds: 5, stall_timeout_seconds: 7}\n"
             "routes:\n"
             "  - {id: r1, match: {path: '*'}, strategy: {type: failover, upstreams: [u0, u1]}}\n%s",
             up[0].port, up[1].port, scene_more);
    claw_arena_init(&problems_arena, NULL, 0, 1 << 20);
    claw_conf_problems_init(&problems, &problems_arena);
    if (claw_conf_parse("t.yaml", claw_str_of(yaml), NULL, &conf, &problems) != 0) fail_msg("%s", problems.first->text);
    assert_int_equal(claw_generation_new(conf, &generation, &problems), 0);
    for (size_t i = 0; i < UPSTREAMS; i++) assert_int_equal(claw_generation_set_upstream(generation, i, NULL, NULL, NULL, 0), 0);
    ctx = (struct claw_worker_ctx){.loop = &loop, .metrics = claw_metrics_shard_new()};
    assert_int_equal(claw_pool_new(&loop, ctx.metrics, &ctx.pool), 0);
    assert_int_equal(claw_generation_local_new(generation, &loop, ctx.pool, &fake_ops, &fake, &ctx.current), 0);
    struct claw_server_limits limits = {claw_h1_defaults, 75000, 10000, 10000, 30000};
    limits.h1.body_bytes = 1 << 20;
    server = (struct claw_server){.on_room = claw_pipeline_room};
    assert_int_equal(claw_server_listen(&server, &loop, "127.0.0.1", 0, &limits, &claw_pipeline_server_events, &ctx, &why), 0);
    claw_log_flush();
    return 0;
}

static void on_server_empty(struct claw_server *s) { server_empty = true; }

static void settle(void)
{
    for (int i = 0; i < 12; i++) claw_loop_turn(&loop, false);
}

/* Whatever a test left: nothing is open in the end, and nothing leaks. */
static int scene_close(void **state)
{
    assert_int_equal(ctx.requests_n, 0);
    claw_server_drain(&server, on_server_empty);
    claw_server_abort(&server);
    UNTIL(&loop, server_empty);
    claw_generation_local_unref(ctx.current);
    claw_loop_turn(&loop, false);
    claw_generation_unref(generation);
    claw_pool_free(ctx.pool);
    for (unsigned i = 0; i < UPSTREAMS; i++) {
        for (unsigned k = 0; k < up[i].n; k++) {
            peer_fini(up[i].taken[k], &loop);
            free(up[i].taken[k]);
        }
        uv_close((uv_handle_t *)&up[i].listener, on_upstream_closed);
        UNTIL(&loop, up[i].closed);
    }
    while (ctx.spare) {
        struct claw_req *r = ctx.spare;
        ctx.spare = r->next;
        free(r);
    }
    claw_buf_fini(&fake.failures);
    claw_buf_fini(&fake.seen);
    claw_arena_reset(&problems_arena);
    settle();
    assert_int_equal(claw_generation_live(), 0);
    return claw_loop_fini(&loop, true);
}

/* ---- the group -------------------------------------------------------------------------------------------------------------- */

static int group_open(void **state)
{
    struct claw_log_conf conf = {.level = CLAW_LOG_INFO, .path = log_path};
    int fd = mkstemp(log_path);
    if (fd < 0) return -1;
    close(fd);
    return claw_log_open(&conf);
}

static int group_close(void **state)
{
    claw_log_flush();
    claw_log_close(2000);
    claw_log_thread_end();
    claw_metrics_reset();
    return unlink(log_path);
}

/* The lines logged since the test began or since the last time, to free. */
SCENE_USED static char *scene_log(void)
{
    struct claw_buf *b = claw_log_begin(CLAW_LOG_INFO);
    assert_non_null(b);
    struct claw_str s = claw_buf_str(b);
    char *copy = strndup(s.ptr, s.len);
    claw_log_end(b);
    claw_log_flush();
    return copy;
}

/* ---- what tests say --------------------------------------------------------------------------------------------------------- */

/* Has the other side sent a whole message: a head, and the body its content-length tells? */
SCENE_USED static bool whole(const struct peer *p)
{
    struct claw_str s = claw_buf_str(&p->in);
    ptrdiff_t end = claw_str_find(s, CLAW_STR("\r\n\r\n"));
    if (end < 0) return false;
    ptrdiff_t at = claw_str_find((struct claw_str){s.ptr, (size_t)end}, CLAW_STR("content-length: "));
    size_t n = 0;
    if (at >= 0)
        for (const char *d = s.ptr + at + 16; *d >= '0' && *d <= '9'; d++) n = n * 10 + (size_t)(*d - '0');
    return s.len >= (size_t)end + 4 + n;
}

/* The next connection upstream i gets, once it holds a whole request. */
SCENE_USED static struct peer *asked(unsigned i)
{
    struct upstream *u = &up[i];
    UNTIL(&loop, u->n > u->used);
    struct peer *p = u->taken[u->used++];
    UNTIL(&loop, whole(p));
    return p;
}

#define CHAT_BODY "{\"model\":\"m\",\"messages\":[]}"

SCENE_USED static void post(struct peer *c, const char *body)
{
    char head[256];
    int n = snprintf(head, sizeof head,
                     "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", strlen(body));
    peer_send(c, head, (size_t)n);
    peer_say(c, body);
}

/* A client with a request under way. */
SCENE_USED static void ask(struct peer *c)
{
    peer_dial(c, &loop, claw_server_port(&server));
    post(c, CHAT_BODY);
}

/* Answer with a head of these fields and a body. */
SCENE_USED static void answer(struct peer *p, const char *status, const char *fields, const char *body)
{
    char head[512];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status, fields, strlen(body));
    peer_send(p, head, (size_t)n);
    peer_say(p, body);
}

#define JSON "Content-Type: application/json\r\n"
#define EVENTS "Content-Type: text/event-stream\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"

SCENE_USED static void chunk(struct peer *p, const char *text)
{
    char line[24];
    peer_send(p, line, (size_t)snprintf(line, sizeof line, "%zx\r\n", strlen(text)));
    peer_say(p, text);
    peer_say(p, "\r\n");
}

SCENE_USED static void reset(struct peer *p)
{
    claw_stream_abort(&p->stream);
    UNTIL(&loop, p->closed);
}

SCENE_USED static void finish_request(unsigned n)
{
    UNTIL(&loop, fake.released >= n);
    UNTIL(&loop, ctx.requests_n == 0);
}

/* The body the client got, unchunked, to free; *ended: with its terminal chunk, or all that content-length told. */
SCENE_USED static char *body_of(const struct peer *c, bool *ended)
{
    struct claw_str s = claw_buf_str(&c->in);
    ptrdiff_t end = claw_str_find(s, CLAW_STR("\r\n\r\n"));
    if (ended) *ended = false;
    if (end < 0) return strdup("");
    struct claw_str head = {s.ptr, (size_t)end};
    const char *at = s.ptr + end + 4, *stop = s.ptr + s.len;
    if (claw_str_find(head, CLAW_STR("transfer-encoding: chunked")) < 0) {
        if (ended) *ended = whole(c);
        return strndup(at, (size_t)(stop - at));
    }
    char *out = calloc(1, s.len + 1), *to = out;
    while (at < stop) {
        char *next;
        size_t n = strtoul(at, &next, 16);
        if (next + 2 > stop) break;
        at = next + 2;
        if (n == 0) {
            if (ended) *ended = true;
            break;
        }
        if (n > (size_t)(stop - at)) n = (size_t)(stop - at);
        memcpy(to, at, n);
        to += n;
        at += n + 2;
    }
    return out;
}

SCENE_USED static void assert_body(const struct peer *c, const char *expected)
{
    bool ended;
    char *body = body_of(c, &ended);
    assert_string_equal(body, expected);
    assert_true(ended);
    free(body);
}

SCENE_USED static void assert_has(const struct peer *p, const char *z)
{
    if (peer_has(p, z)) return;
    struct claw_str s = claw_buf_str(&p->in);
    fail_msg("\"%s\" is not in: %.*s", z, CLAW_STR_FMT(s));
}

SCENE_USED static void assert_failures(const char *expected)
{
    struct claw_str s = claw_buf_str(&fake.failures);
    char *text = strndup(s.ptr, s.len);
    assert_string_equal(text, expected);
    free(text);
}

SCENE_USED static void assert_seen(const char *expected)
{
    struct claw_str s = claw_buf_str(&fake.seen);
    char *text = strndup(s.ptr, s.len);
    assert_string_equal(text, expected);
    free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scene_open, scene_close)

#endif
