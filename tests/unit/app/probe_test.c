/* probe: where a configuration's proxy is asked, and what is made of the answers. */
#include "app/probe.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static char file[64];

static int set_up(void **state)
{
    strcpy(file, "/tmp/claw-probe-XXXXXX");
    close(mkstemp(file));
    return 0;
}

static int tear_down(void **state) { return unlink(file); }

static void where_it_is_asked(void **state)
{
    static const struct { const char *yaml, *address; unsigned port; bool connects, doubt; } rows[] = {
        {"server: {}", "127.0.0.1", 9090, false, false},
        {"admin: { listen_port: 1234 }", "127.0.0.1", 1234, false, false},
        {"admin: { listen_port: '1234', listen_address: 0.0.0.0 }", "127.0.0.1", 1234, false, false},
        {"admin: { listen_address: localhost }", "127.0.0.1", 9090, false, false},
        {"admin: { listen_address: '::' }", "::1", 9090, false, false},
        {"admin: { listen_address: 192.0.2.1, token: x }", "192.0.2.1", 9090, false, false},
        {"admin: { listen_port: \"${CLAW_PROBE_PORT}\" }", "127.0.0.1", 4321, false, false},
        {"admin: { listen_port: 0 }", "127.0.0.1", 8080, true, false},
        {"admin: { listen_port: 0 }\nserver: { listen_port: 81, listen_address: '::' }", "::1", 81, true, false},
        {"admin: { listen_port: 0 }\nserver: { listen_port: 0 }", "127.0.0.1", 0, true, false},
        /* what the rest of the file says does not matter */
        {"admin: { listen_port: 1234 }\nupstreams: { a: { type: nonsense, api_key: \"${NOT_SET_ANYWHERE}\" } }\nnonsense: 1", "127.0.0.1", 1234, false, false},
        {"upstreams: { a: { type: openai, api_key: \"${vault:secret/a#key}\" } }\nadmin: { listen_port: 1234, token: \"${vault:secret/b#token}\" }", "127.0.0.1", 1234, false, false},
        /* where it cannot be read */
        {"admin: { listen_port: \"${NOT_SET_ANYWHERE}\" }", "127.0.0.1", 9090, false, true},
        {"admin: { listen_port: 99999 }", "127.0.0.1", 9090, false, true},
        {"admin: { listen_port: x }", "127.0.0.1", 9090, false, true},
        {"admin: { listen_port: -1 }", "127.0.0.1", 9090, false, true},
        {"admin: { listen_address: somewhere, listen_port: 5 }", "127.0.0.1", 9090, false, true},
        {"admin: [ not closed", "127.0.0.1", 9090, false, true},
        {"", "127.0.0.1", 9090, false, true},
    };
    setenv("CLAW_PROBE_PORT", "4321", 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claw_probe p;
        FILE *f = fopen(file, "w");
        fputs(rows[i].yaml, f);
        fclose(f);
        claw_probe_find(file, &p);
        if (strcmp(p.address, rows[i].address) || p.port != rows[i].port || p.connects != rows[i].connects || (p.doubt[0] != 0) != rows[i].doubt)
            fail_msg("%s: %s:%u connects %d doubt \"%s\"", rows[i].yaml, p.address, p.port, p.connects, p.doubt);
    }
    struct claw_probe p;
    claw_probe_find("/nowhere/openclaw.yaml", &p);
    assert_int_equal(p.port, 9090);
    assert_non_null(strstr(p.doubt, "/nowhere/openclaw.yaml: No such file"));
}

/* ---- a server that says one thing ---------------------------------------------------------------------------------------- */

static int listener;
static const char *answer; /* NULL: it says nothing, and waits until it is left */

static void *serve(void *arg)
{
    char asked[512];
    int fd = accept(listener, NULL, NULL);
    ssize_t n = recv(fd, asked, sizeof asked - 1, 0);
    asked[n < 0 ? 0 : n] = '\0';
    if (answer && send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0) n = -1;
    if (!answer) n = recv(fd, asked + n, sizeof asked - 1 - (size_t)n, 0); /* 0 when it is left */
    close(fd);
    return strncmp(asked, "GET /healthz HTTP/1.1\r\nHost: ", 29) == 0 ? NULL : "asked for something else";
}

static struct claw_probe listen_here(void)
{
    struct claw_probe p = {.address = "127.0.0.1"};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, size), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &size), 0);
    p.port = ntohs(a.sin_port);
    return p;
}

static void what_is_made_of_answers(void **state)
{
    static const struct { const char *answer; int rc; const char *said; } rows[] = {
        {"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", 0, "ok"},
        {"HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n", CLAW_EIO, "draining"},
        {"HTTP/1.1 404 Not Found\r\n\r\n", CLAW_EIO, ""},
        {"SSH-2.0-something\r\n", CLAW_EIO, "no HTTP answer"},
        {"", CLAW_EIO, "no HTTP answer"},
        {NULL, CLAW_EIO, "timed out"},
    };
    struct claw_probe p = listen_here();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char said[256];
        pthread_t t;
        void *wrong = NULL;
        answer = rows[i].answer;
        pthread_create(&t, NULL, serve, NULL);
        assert_int_equal(claw_probe_ask(&p, "/healthz", answer ? 20000 : 50, said, sizeof said), rows[i].rc);
        pthread_join(t, &wrong);
        assert_null(wrong);
        if (!strstr(said, rows[i].said)) fail_msg("%s: \"%s\"", rows[i].answer, said);
    }
    char said[256];
    p.connects = true;
    assert_int_equal(claw_probe_ask(&p, "/healthz", 20000, said, sizeof said), 0);
    assert_non_null(strstr(said, "takes connections"));
    close(listener);
    assert_int_equal(claw_probe_ask(&p, "/healthz", 20000, said, sizeof said), CLAW_EIO);
    assert_non_null(strstr(said, "refused"));
    p.port = 0;
    assert_int_equal(claw_probe_ask(&p, "/healthz", 20000, said, sizeof said), CLAW_EIO);
    assert_non_null(strstr(said, "does not say"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(where_it_is_asked, set_up, tear_down),
        cmocka_unit_test(what_is_made_of_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
