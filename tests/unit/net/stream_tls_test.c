/* stream_tls: the handshake, what comes beside it, and how TLS ends. */
#include "stream_part.h"

#include <fcntl.h>

static void wrong_name(void **state)
{
    struct claw_tls_client *c = client_new();
    struct end a = {0}, b = {0};

    next = &b;
    next_tls = true;
    connect_end(&a, c, "wrong.example.com");
    UNTIL(a.opens && b.opens);
    assert_int_equal(a.open_code, CLAW_ETLS_VERIFY);
    assert_string_equal(claw_stream_error(&a.s), "certificate is not valid for the name wrong.example.com");
    assert_int_equal(b.open_code, CLAW_ETLS);
    assert_int_equal(write_z(&a, "x"), CLAW_EIO);
    end_close(&a);
    end_close(&b);
    claw_tls_client_unref(c);
}

static void peer_leaves_in_the_handshake(void **state)
{
    for (int how = 0; how < 3; how++) {
        struct end b = {0};
        int fd = raw_connect(&b, true);
        if (how == 2) assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
        if (how == 1) raw_reset(fd);
        if (how == 0) close(fd);
        UNTIL(b.opens);
        assert_int_equal(b.open_code, CLAW_ETLS);
        assert_true(strlen(claw_stream_error(&b.s)) > 10);
        if (how == 2) close(fd);
        end_close(&b);
    }
}

/* A server that greets in on_open: its first data comes right behind its Finished. */
static void greeting_is_not_lost(void **state)
{
    for (int paused = 0; paused < 2; paused++) {
        struct claw_tls_client *c = client_new();
        for (int i = 0; i < 3; i++) { /* a full handshake, then resumed ones */
            struct end a = {.pause_in = paused ? IN_OPEN : NOWHERE}, b = {.greeting = "welcome"};
            pair_open(&a, &b, c);
            if (paused) {
                for (int k = 0; k < 3; k++) claw_loop_turn(&loop, false);
                assert_int_equal(a.reads, 0);
                claw_stream_resume(&a.s);
            }
            assert_true(claw_stream_resumed(&a.s) == (i > 0));
            UNTIL(a.got_n == 7);
            assert_got(&a, "welcome");
            end_close(&a);
            end_close(&b);
        }
        claw_tls_client_unref(c);
    }
}

/* Close at every turn of a full handshake, also while the pool works on it. */
static void close_at_every_turn(void **state)
{
    for (int turns = 0; turns < 14; turns++) {
        for (int who = 0; who < 3; who++) {
            struct claw_tls_client *c = client_new();
            struct end a = {0}, b = {0};
            next = &b;
            next_tls = true;
            connect_end(&a, c, "api.example.com");
            for (int i = 0; i < turns && !(a.opens && b.opens); i++) claw_loop_turn(&loop, true);
            if (who != 1) claw_stream_close(&a.s);
            if (who != 0 && b.used) claw_stream_close(&b.s);
            UNTIL(next == NULL);
            end_close(&a);
            end_close(&b);
            claw_tls_client_unref(c);
        }
    }
}

/* A relay in the middle that passes bytes on one at a time. */
struct relay {
    uv_poll_t poll[2];
    int fd[2];
};

static void relay_turn(uv_poll_t *p, int status, int ev)
{
    struct relay *r = p->data;
    int side = p == &r->poll[1];
    char c;

    if (recv(r->fd[side], &c, 1, 0) == 1)
        assert_int_equal(send(r->fd[!side], &c, 1, 0), 1);
    else
        uv_poll_stop(p);
}

static void one_byte_at_a_time(void **state)
{
    struct claw_tls_client *c = client_new();
    struct end a = {0}, b = {0};
    struct relay *r = calloc(1, sizeof *r);
    struct sockaddr_in middle;
    socklen_t n = sizeof middle;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    uv_ip4_addr("127.0.0.1", 0, &middle);
    assert_int_equal(bind(l, (struct sockaddr *)&middle, sizeof middle), 0);
    assert_int_equal(listen(l, 1), 0);
    getsockname(l, (struct sockaddr *)&middle, &n);
    a.used = true;
    assert_int_equal(claw_stream_connect(&a.s, &loop, (struct sockaddr *)&middle, c, CLAW_STR("api.example.com"),
                                         &events, &a), 0);
    r->fd[0] = accept(l, NULL, NULL);
    r->fd[1] = raw_connect(&b, true);
    for (int i = 0; i < 2; i++) {
        fcntl(r->fd[i], F_SETFL, O_NONBLOCK);
        uv_poll_init(&loop.uv, &r->poll[i], r->fd[i]);
        r->poll[i].data = r;
        uv_poll_start(&r->poll[i], UV_READABLE, relay_turn);
    }
    UNTIL(a.opens && b.opens);
    assert_int_equal(a.open_code, 0);
    assert_int_equal(b.open_code, 0);
    assert_int_equal(write_z(&a, "slowly"), 0);
    UNTIL(b.got_n == 6);
    assert_got(&b, "slowly");
    end_close(&a);
    end_close(&b);
    for (int i = 0; i < 2; i++) uv_close((uv_handle_t *)&r->poll[i], NULL);
    claw_loop_turn(&loop, false);
    claw_loop_turn(&loop, false);
    close(r->fd[0]);
    close(r->fd[1]);
    close(l);
    free(r);
    claw_tls_client_unref(c);
}

/* A FIN without close_notify may be an attacker's cut. */
static void fin_without_close_notify(void **state)
{
    struct claw_tls_client *c = client_new();
    struct end a = {0}, b = {0};
    uv_os_fd_t fd;

    pair_open(&a, &b, c);
    assert_int_equal(uv_fileno((uv_handle_t *)&b.s.tcp, &fd), 0);
    assert_int_equal(write_z(&b, "half"), 0);
    shutdown(fd, SHUT_WR); /* behind the stream's back */
    UNTIL(a.ends);
    assert_got(&a, "half");
    assert_int_equal(a.end_code, CLAW_EUPSTREAM_EOF);
    assert_string_equal(claw_stream_error(&a.s), "the peer closed without close_notify");
    end_close(&a);
    end_close(&b);
    claw_tls_client_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(wrong_name), TEST(peer_leaves_in_the_handshake), TEST(greeting_is_not_lost), TEST(close_at_every_turn),
        TEST(one_byte_at_a_time), TEST(fin_without_close_notify),
    };

    alarm(300);
    return cmocka_run_group_tests_name("net/stream_tls", tests, start_group, stop_group);
}
