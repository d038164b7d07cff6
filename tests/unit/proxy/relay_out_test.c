/* relay_out: clients that read slowly, never, or leave what they were sent. */
#include "relay_part.h"

#define PIECE (256u << 10)
#define PIECES 64u

static struct claw_stream *to_client(void) { return &server.conns->stream; }

/* A client that reads nothing until everything on the way to it is full. */
static struct peer *fill(struct peer *c, bool stream)
{
    static char piece[PIECE + 1];
    memset(piece, 'x', PIECE);
    if (stream) {
        for (unsigned i = 0; i < PIECE; i += 1024) memcpy(piece + i, "\n\ndata: ", 8);
        memcpy(piece, "data: ", 6);
        memcpy(piece + PIECE - 2, "\n\n", 2);
    }
    struct peer *u = exchange(c);
    claw_stream_pause(&c->stream);
    if (stream) peer_say(u, STREAM_HEAD);
    else peer_say(u, PLAIN_HEAD "Content-Length: 16777216\r\n\r\n");
    for (unsigned i = 0; i < PIECES; i++) {
        if (stream) chunk(u, piece);
        else peer_send(u, piece, PIECE);
    }
    if (stream) peer_say(u, "0\r\n\r\n");
    UNTIL(&loop, ctx.requests && ctx.requests->client && ctx.requests->client->stream.paused);
    settle();
    assert_true(ctx.requests->client->stream.paused);
    assert_true(claw_stream_queued(to_client()) <= 256u << 10); /* what one stopped reader may cost */
    assert_true(claw_stream_queued(&u->stream) > PIECE);        /* the rest stays where it is */
    return u;
}

static void slow_clients_get_everything(void **state)
{
    for (int stream = 0; stream < 2; stream++) {
        struct peer c;
        fill(&c, stream);
        for (unsigned i = 0; i < 3; i++) { /* a paused upstream does not stall */
            claw_loop_advance(&loop, STALL_MS + 1000);
            settle();
        }
        assert_int_equal(ctx.requests_n, 1);
        claw_stream_resume(&c.stream);
        finish_request((unsigned)stream + 1);
        assert_int_equal(fake.bytes_out, PIECE * PIECES);
        UNTIL(&loop, stream ? peer_ends(&c, "\r\n0\r\n\r\n") : whole(&c));
        bool ended;
        char *body = body_of(&c, &ended);
        assert_true(ended);
        assert_int_equal(strlen(body), PIECE * PIECES);
        free(body);
        peer_fini(&c, &loop);
        up[0].used = 0;
        claw_buf_clear(&up[0].taken[0]->in);
    }
}

static void clients_that_never_read(void **state)
{
    struct peer c;
    struct peer *u = fill(&c, true);
    claw_loop_advance(&loop, 65000); /* send_timeout_seconds, and once more since it began to send */
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ESEND_STALL);
    assert_false(fake.had_client);
    UNTIL(&loop, u->ended);
    peer_fini(&c, &loop);
}

static void clients_that_leave_unread(void **state)
{
    struct peer c;
    struct peer *u = fill(&c, false);
    claw_stream_abort(&c.stream);
    finish_request(1);
    assert_int_equal(fake.error, CLAW_ECLIENT_GONE);
    UNTIL(&loop, u->ended);
    peer_fini(&c, &loop);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        ALL(slow_clients_get_everything), ALL(clients_that_never_read), ALL(clients_that_leave_unread),
    };
    return cmocka_run_group_tests_name("proxy/relay_out", tests, group_open, group_close);
}
