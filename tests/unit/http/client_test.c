/* client: one exchange at a time, its timeouts, and what is never taken for a whole answer. */
#include "http/client.h"

#include "peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct claw_loop loop;
static uv_tcp_t listener;
static struct sockaddr_in address;
static bool listener_closed;
static struct peer upstream; /* the last connection taken */

static struct claw_client client;
static struct claw_arena arena;

/* What was told of the exchange, and what to do then. */
static struct {
    struct claw_buf body;
    int status, code;
    char text[128];
    bool open, reusable, closed, ended;
    unsigned opened, dones, fails, batches, drains, idle_ends;
    enum { GO_ON, CANCEL_AT_HEAD, CANCEL_AT_BODY, CANCEL_AT_BATCH, CLOSE_AT_DONE, AGAIN_AT_DONE } then;
} saw;

static void on_connection(uv_stream_t *h, int status)
{
    peer_init(&upstream);
    assert_int_equal(claw_stream_accept(&upstream.stream, &loop, h, NULL, &peer_events, &upstream), 0);
}

static void on_listener_closed(uv_handle_t *h) { listener_closed = true; }

static void on_open(struct claw_client *c, int code, const char *text)
{
    saw.opened++;
    saw.open = code == 0;
    saw.code = code;
    snprintf(saw.text, sizeof saw.text, "%s", text);
}
static void on_idle_end(struct claw_client *c) { saw.idle_ends++; }
static void on_closed(struct claw_client *c) { saw.closed = true; }

static void on_head(struct claw_client *c, struct claw_head *h)
{
    saw.status = h->status;
    if (saw.then == CANCEL_AT_HEAD) claw_client_cancel(c);
}
static void on_body(struct claw_client *c, const char *data, size_t n)
{
    assert_int_equal(claw_buf_add(&saw.body, data, n), 0);
    if (saw.then == CANCEL_AT_BODY) claw_client_cancel(c);
}
static void on_batch(struct claw_client *c)
{
    saw.batches++;
    if (saw.then == CANCEL_AT_BATCH) claw_client_cancel(c);
}
static void exchange(void);
static void on_done(struct claw_client *c, bool reusable)
{
    saw.dones++;
    saw.reusable = reusable;
    saw.ended = true;
    if (saw.then == CLOSE_AT_DONE) claw_client_close(c);
    if (saw.then == AGAIN_AT_DONE) {
        saw.then = GO_ON;
        exchange();
    }
}
static void on_fail(struct claw_client *c, int code, const char *text)
{
    saw.fails++;
    saw.code = code;
    saw.ended = true;
    assert_true(text && *text);
    snprintf(saw.text, sizeof saw.text, "%s", text);
}
static void on_drain(struct claw_client *c) { saw.drains++; }

static const struct claw_client_events events = {on_head, on_body, on_batch, on_done, on_fail, on_drain};

#define CONNECT_MS 5000u
#define FIRST_MS 20000u
#define STALL_MS 60000u

static void settle(void)
{
    for (int i = 0; i < 10; i++) claw_loop_turn(&loop, false);
}

static void forget(void)
{
    claw_buf_fini(&saw.body);
    memset(&saw, 0, sizeof saw);
    claw_buf_init(&saw.body, 0);
}

static int listen_up(void **state)
{
    int len = sizeof address;
    forget();
    if (claw_loop_init(&loop) != 0) return -1;
    listener_closed = false;
    uv_tcp_init(&loop.uv, &listener);
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_bind(&listener, (struct sockaddr *)&address, 0);
    uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &len);
    claw_arena_init(&arena, NULL, 0, 1 << 20);
    peer_init(&upstream);
    return uv_listen((uv_stream_t *)&listener, 16, on_connection);
}

static int listen_down(void **state)
{
    claw_arena_reset(&arena);
    uv_close((uv_handle_t *)&listener, on_listener_closed);
    UNTIL(&loop, listener_closed);
    forget();
    return claw_loop_fini(&loop, true);
}

static void start(void)
{
    forget();
    memset(&client, 0, sizeof client);
    client.on_open = on_open;
    client.on_idle_end = on_idle_end;
    client.on_closed = on_closed;
    assert_int_equal(claw_client_connect(&client, &loop, (struct sockaddr *)&address, NULL, CLAW_STR(""), CONNECT_MS), 0);
    assert_int_equal(saw.opened, 0); /* never from within */
}

static void dial(void)
{
    upstream.open = false;
    start();
    UNTIL(&loop, saw.opened && upstream.open);
    assert_true(saw.open);
}

static void write_request(void)
{
    static const char text[] = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    uv_buf_t b = uv_buf_init((char *)text, sizeof text - 1);
    assert_int_equal(claw_client_write(&client, &b, 1), 0);
}

static void exchange(void)
{
    saw.ended = false;
    claw_client_exchange(&client, &arena, false, FIRST_MS, STALL_MS, &events, NULL);
    write_request();
}

/* The request has arrived. */
static void asked(void) { UNTIL(&loop, peer_ends(&upstream, "\r\n\r\n")); }

static void hang_up(void)
{
    if (!saw.closed) claw_client_close(&client);
    UNTIL(&loop, saw.closed);
    peer_fini(&upstream, &loop);
    upstream.open = false;
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static void answers_are_whole_or_fail(void **state)
{
    enum end { STAYS, FIN, RESET };
    static const struct { const char *answer; enum end end; int code; bool reusable; const char *body; } rows[] = {
        {"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", STAYS, 0, true, "ok"},
        {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", STAYS, 0, true, "ok"},
        {"HTTP/1.1 204 No Content\r\n\r\n", STAYS, 0, true, ""},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", STAYS, 0, true, "ok"},
        {"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", STAYS, 0, false, "ok"},
        {"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", STAYS, 0, false, "ok"},
        /* a second answer behind the first belongs to nobody */
        {"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", STAYS, 0, false, "ok"},
        {"HTTP/1.1 204 No Content\r\n\r\nx", STAYS, 0, false, ""},
        {"HTTP/1.1 200 OK\r\n\r\nok", FIN, 0, false, "ok"},
        {"HTTP/1.1 200 OK\r\n\r\nok", RESET, CLAW_EUPSTREAM_EOF, false, "ok"},
        {"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", FIN, CLAW_EUPSTREAM_EOF, false, "ok"},
        {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", FIN, CLAW_EUPSTREAM_EOF, false, "ok"},
        {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", FIN, CLAW_EUPSTREAM_EOF, false, "ok"},
        {"HTTP/1.1 200 OK\r\n", FIN, CLAW_EUPSTREAM_EOF, false, ""},
        {"", FIN, CLAW_EUPSTREAM_EOF, false, ""},
        {"", RESET, CLAW_EUPSTREAM_EOF, false, ""},
        {"HTTP/1.1 100 Continue\r\n\r\n", FIN, CLAW_EUPSTREAM_EOF, false, ""},
        {"SSH-2.0-no\r\n", STAYS, CLAW_EBAD_RESPONSE, false, ""},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n", STAYS, CLAW_EBAD_RESPONSE, false, ""},
        {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", STAYS, CLAW_EBAD_RESPONSE, false, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dial();
        exchange();
        asked();
        peer_say(&upstream, rows[i].answer);
        if (*rows[i].body) UNTIL(&loop, claw_buf_size(&saw.body) >= 2);
        else settle();
        if (rows[i].end == FIN) claw_stream_shutdown(&upstream.stream);
        if (rows[i].end == RESET) claw_stream_abort(&upstream.stream);
        UNTIL(&loop, saw.ended);
        assert_int_equal(saw.dones, rows[i].code == 0);
        assert_int_equal(saw.fails, rows[i].code != 0);
        if (rows[i].code) assert_int_equal(saw.code, rows[i].code);
        assert_int_equal(saw.reusable, rows[i].reusable);
        assert_true(claw_str_eqz(claw_buf_str(&saw.body), rows[i].body));
        if (rows[i].code) UNTIL(&loop, saw.closed); /* closed by itself */
        hang_up();
        assert_int_equal(saw.dones + saw.fails, 1);
    }
}

static void answers_may_be_split_anywhere(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    dial();
    for (size_t at = 1; at < sizeof text - 1; at++) {
        exchange();
        asked();
        peer_send(&upstream, text, at);
        settle();
        assert_false(saw.ended);
        peer_send(&upstream, text + at, sizeof text - 1 - at);
        UNTIL(&loop, saw.ended);
        assert_true(saw.reusable && saw.dones == at);
        assert_true(claw_str_eqz(claw_buf_str(&saw.body), "ok"));
        claw_buf_clear(&saw.body);
        claw_buf_clear(&upstream.in);
    }
    assert_true(saw.batches > 0);
    hang_up();
}

static void one_exchange_may_begin_in_the_end_of_another(void **state)
{
    dial();
    saw.then = AGAIN_AT_DONE;
    exchange();
    asked();
    claw_buf_clear(&upstream.in);
    peer_say(&upstream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    asked(); /* the second request */
    assert_false(saw.ended);
    peer_say(&upstream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    UNTIL(&loop, saw.dones == 2);
    hang_up();
}

static void answers_to_head_have_no_body(void **state)
{
    dial();
    claw_client_exchange(&client, &arena, true, FIRST_MS, STALL_MS, &events, NULL);
    write_request();
    asked();
    peer_say(&upstream, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    UNTIL(&loop, saw.ended);
    assert_true(saw.reusable);
    hang_up();
}

/* The upstream refuses early and closes while the request is still being sent: its answer counts. */
static void an_early_answer_is_read(void **state)
{
    char *block = calloc(1, 1 << 20);
    uv_buf_t b = uv_buf_init(block, 1 << 20);
    dial();
    claw_stream_pause(&upstream.stream);
    claw_client_exchange(&client, &arena, false, FIRST_MS, STALL_MS, &events, NULL);
    int rc = 0;
    for (int i = 0; i < 64 && rc == 0; i++) rc = claw_client_write(&client, &b, 1);
    assert_int_equal(rc, CLAW_EAGAIN);
    peer_say(&upstream, "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig");
    UNTIL(&loop, saw.ended);
    assert_int_equal(saw.status, 413);
    assert_int_equal(saw.dones, 1);
    assert_false(saw.reusable); /* half a request lies in front of the next */
    hang_up();
    free(block);
}

static void a_full_socket_is_told(void **state)
{
    char *block = calloc(1, 1 << 20);
    uv_buf_t b = uv_buf_init(block, 1 << 20);
    dial();
    claw_stream_pause(&upstream.stream);
    claw_client_exchange(&client, &arena, false, FIRST_MS, STALL_MS, &events, NULL);
    int rc = 0, n = 0;
    for (; n < 64 && rc == 0; n++) rc = claw_client_write(&client, &b, 1);
    assert_int_equal(rc, CLAW_EAGAIN);
    settle();
    assert_int_equal(saw.drains, 0);
    claw_stream_resume(&upstream.stream);
    UNTIL(&loop, saw.drains == 1);
    UNTIL(&loop, claw_buf_size(&upstream.in) == (size_t)n << 20);
    hang_up();
    free(block);
}

static void write_block(size_t n, int wanted)
{
    char *block = calloc(1, n);
    uv_buf_t b = uv_buf_init(block, (unsigned)n);
    assert_int_equal(claw_client_write(&client, &b, 1), wanted);
    free(block);
}

/* While a request is still being sent its upstream has time as long as it takes what there is. */
static void a_request_may_take_long(void **state)
{
    dial();
    exchange();
    claw_client_sends(&client);
    asked();
    for (int i = 0; i < 6; i++) { /* nothing there to take */
        claw_loop_advance(&loop, STALL_MS / 2);
        settle();
        assert_false(saw.ended);
    }
    claw_client_sent(&client);
    claw_loop_advance(&loop, FIRST_MS - 1000);
    settle();
    assert_false(saw.ended);
    claw_loop_advance(&loop, 2000);
    UNTIL(&loop, saw.ended);
    assert_int_equal(saw.code, CLAW_EFIRST_BYTE_TIMEOUT);
    hang_up();
}

static void an_upstream_that_takes_nothing_fails(void **state)
{
    dial();
    claw_stream_pause(&upstream.stream);
    exchange();
    claw_client_sends(&client);
    write_block(64 << 20, CLAW_EAGAIN);
    settle();
    for (int i = 0; i < 4 && !saw.ended; i++) {
        claw_loop_advance(&loop, STALL_MS / 2 + CLAW_LOOP_TICK_MS);
        settle();
    }
    assert_true(saw.ended);
    assert_int_equal(saw.code, CLAW_ESTALL);
    assert_string_equal(saw.text, "the upstream stopped taking the request");
    hang_up();
}

/* A slow one is not left, also where the answer has begun. */
static void an_upstream_that_takes_little_has_time(void **state)
{
    dial();
    claw_stream_pause(&upstream.stream);
    exchange();
    claw_client_sends(&client);
    write_block(64 << 20, CLAW_EAGAIN);
    peer_say(&upstream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
    UNTIL(&loop, saw.status == 200);
    for (int i = 0; i < 6; i++) {
        size_t before = claw_buf_size(&upstream.in);
        claw_stream_resume(&upstream.stream);
        UNTIL(&loop, claw_buf_size(&upstream.in) - before > 4 << 20);
        claw_stream_pause(&upstream.stream);
        settle();
        claw_loop_advance(&loop, STALL_MS - 1000);
        settle();
        assert_false(saw.ended);
    }
    claw_stream_resume(&upstream.stream);
    UNTIL(&loop, saw.drains == 1);
    peer_say(&upstream, "ok");
    UNTIL(&loop, saw.dones == 1);
    assert_false(saw.reusable); /* it was not told that the request is over */
    hang_up();
}

/* ---- giving up ------------------------------------------------------------------------------------------------------ */

static void cancelling_is_legal_everywhere(void **state)
{
    start(); /* connecting */
    claw_client_cancel(&client);
    UNTIL(&loop, saw.closed);
    assert_int_equal(saw.opened, 0);
    settle(); /* the listener may have taken it, or not */
    if (upstream.open) peer_fini(&upstream, &loop);
    for (int then = CANCEL_AT_HEAD; then <= CANCEL_AT_BATCH; then++) {
        dial();
        saw.then = then;
        exchange();
        asked();
        peer_say(&upstream, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok");
        UNTIL(&loop, saw.closed);
        assert_int_equal(saw.dones + saw.fails, 0);
        UNTIL(&loop, upstream.ended);
        assert_int_equal(upstream.end_code, CLAW_EUPSTREAM_EOF); /* a reset: the upstream stops at once */
        assert_int_equal(saw.batches, then == CANCEL_AT_BATCH);
        hang_up();
    }
    dial(); /* between the request and its answer, and twice */
    exchange();
    asked();
    claw_client_cancel(&client);
    claw_client_cancel(&client);
    write_request();
    UNTIL(&loop, saw.closed);
    assert_int_equal(saw.dones + saw.fails + saw.idle_ends, 0);
    hang_up();
    dial();
    saw.then = CLOSE_AT_DONE;
    exchange();
    asked();
    peer_say(&upstream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    UNTIL(&loop, saw.closed);
    assert_int_equal(saw.dones, 1);
    hang_up();
}

/* ---- time ------------------------------------------------------------------------------------------------------------ */

static void a_silent_upstream_is_given_up(void **state)
{
    dial();
    exchange();
    asked();
    claw_loop_advance(&loop, FIRST_MS / 2);
    peer_say(&upstream, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 20"); /* half a head gives no second term */
    settle();
    claw_loop_advance(&loop, FIRST_MS / 2 - 2 * CLAW_LOOP_TICK_MS);
    settle();
    assert_false(saw.ended);
    claw_loop_advance(&loop, 4 * CLAW_LOOP_TICK_MS);
    assert_true(saw.ended);
    assert_int_equal(saw.code, CLAW_EFIRST_BYTE_TIMEOUT);
    UNTIL(&loop, saw.closed);
    hang_up();
}

static void a_stall_is_the_time_since_the_last_byte(void **state)
{
    dial();
    exchange();
    asked();
    peer_say(&upstream, "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n");
    UNTIL(&loop, saw.status);
    for (size_t i = 1; i <= 5; i++) {
        claw_loop_advance(&loop, STALL_MS - 1000);
        peer_say(&upstream, "x");
        UNTIL(&loop, claw_buf_size(&saw.body) == i);
        assert_false(saw.ended);
    }
    claw_client_pause(&client); /* our own doing */
    claw_loop_advance(&loop, 2 * STALL_MS);
    settle();
    assert_false(saw.ended);
    claw_client_resume(&client);
    claw_loop_advance(&loop, STALL_MS - 1000);
    settle();
    assert_false(saw.ended);
    for (unsigned ms = 0; ms < 2 * STALL_MS && !saw.ended; ms += 1000) claw_loop_advance(&loop, 1000);
    assert_true(saw.ended);
    assert_int_equal(saw.code, CLAW_ESTALL);
    UNTIL(&loop, saw.closed);
    hang_up();
}

static void connecting_has_a_bound(void **state)
{
    start(); /* the kernel connects at once, but time runs out before the loop looks */
    claw_loop_advance(&loop, CONNECT_MS + CLAW_LOOP_TICK_MS);
    assert_int_equal(saw.opened, 1);
    assert_int_equal(saw.code, CLAW_ECONNECT_TIMEOUT);
    UNTIL(&loop, saw.closed);
    assert_int_equal(saw.opened, 1);
    settle();
    if (upstream.open) peer_fini(&upstream, &loop);
}

static void nobody_there(void **state)
{
    struct sockaddr_in kept = address;
    uv_tcp_t bound; /* bound, not listening: connecting is refused, and nobody else takes the port meanwhile */
    int len = sizeof address;
    uv_tcp_init(&loop.uv, &bound);
    uv_ip4_addr("127.0.0.1", 0, &address);
    assert_int_equal(uv_tcp_bind(&bound, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_tcp_getsockname(&bound, (struct sockaddr *)&address, &len), 0);
    start();
    UNTIL(&loop, saw.opened);
    assert_int_equal(saw.code, CLAW_ECONNECT);
    assert_string_equal(saw.text, "connection refused");
    UNTIL(&loop, saw.closed);
    listener_closed = false;
    uv_close((uv_handle_t *)&bound, on_listener_closed);
    UNTIL(&loop, listener_closed);
    address = kept;
}

/* ---- between exchanges ------------------------------------------------------------------------------------------------- */

static void idle_connections_end_when_they_speak_or_leave(void **state)
{
    for (int speaks = 0; speaks < 2; speaks++) {
        dial();
        if (speaks) peer_say(&upstream, "HTTP/1.1 408 Request Timeout\r\n\r\n");
        else claw_stream_shutdown(&upstream.stream);
        UNTIL(&loop, saw.idle_ends);
        UNTIL(&loop, saw.closed);
        assert_int_equal(saw.idle_ends, 1);
        hang_up();
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, listen_up, listen_down)

int main(void)
{
    alarm(PEER_ALARM_S);
    const struct CMUnitTest tests[] = {
        TEST(answers_are_whole_or_fail),
        TEST(answers_may_be_split_anywhere),
        TEST(one_exchange_may_begin_in_the_end_of_another),
        TEST(answers_to_head_have_no_body),
        TEST(an_early_answer_is_read),
        TEST(a_full_socket_is_told),
        TEST(a_request_may_take_long),
        TEST(an_upstream_that_takes_nothing_fails),
        TEST(an_upstream_that_takes_little_has_time),
        TEST(cancelling_is_legal_everywhere),
        TEST(a_silent_upstream_is_given_up),
        TEST(a_stall_is_the_time_since_the_last_byte),
        TEST(connecting_has_a_bound),
        TEST(nobody_there),
        TEST(idle_connections_end_when_they_speak_or_leave),
    };
    return cmocka_run_group_tests_name("http/client", tests, NULL, NULL);
}
