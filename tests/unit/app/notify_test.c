/* notify: what the service manager's socket is sent. */
#include "app/notify.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct claw_notify n;
static char folder[64], path[128], got[1024];
static int manager = -1;

/* The manager's socket at `name`, which begins with @ when it is abstract. */
static void listen_at(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    memcpy(a.sun_path, name, len);
    if (*name == '@') a.sun_path[0] = '\0';
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*name != '@'))), 0);
}

/* The next datagram, "" when there is none. */
static const char *heard(void)
{
    ssize_t len = recv(manager, got, sizeof got - 1, 0);
    got[len < 0 ? 0 : len] = '\0';
    return got;
}

static int set_up(void **state)
{
    strcpy(folder, "/tmp/claw-notify-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/notify", folder);
    return 0;
}

static int tear_down(void **state)
{
    claw_notify_close(&n);
    if (manager >= 0) close(manager);
    manager = -1;
    unlink(path);
    rmdir(folder);
    return 0;
}

static void states_as_the_protocol_has_them(void **state)
{
    listen_at(path);
    assert_int_equal(claw_notify_open(&n, path), 0);
    assert_true(claw_notify_on(&n));
    claw_notify_ready(&n, "generation 1 serves");
    assert_string_equal(heard(), "READY=1\nSTATUS=generation 1 serves");

    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    claw_notify_reloading(&n);
    unsigned long long usec = 0;
    assert_int_equal(sscanf(heard(), "RELOADING=1\nMONOTONIC_USEC=%llu", &usec), 1);
    unsigned long long before = (unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_nsec / 1000;
    assert_in_range(usec, before, before + 10000000);

    claw_notify_stopping(&n, 35000, "draining");
    assert_string_equal(heard(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000\nSTATUS=draining");
    claw_notify_alive(&n);
    assert_string_equal(heard(), "WATCHDOG=1");
    assert_string_equal(heard(), "");
}

static void abstract_sockets(void **state)
{
    char name[64];
    snprintf(name, sizeof name, "@claw-notify-%d", (int)getpid());
    listen_at(name);
    assert_int_equal(claw_notify_open(&n, name), 0);
    claw_notify_ready(&n, NULL);
    assert_string_equal(heard(), "READY=1");
}

static void without_a_manager_nothing_happens(void **state)
{
    char lengthy[200];
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[0] = '/';
    lengthy[199] = '\0';
    const struct { const char *socket; int rc; } rows[] = {
        {NULL, 0}, {"", 0}, {"relative", CLAW_EINVAL}, {"vsock:2:9", CLAW_EINVAL}, {"/", CLAW_EINVAL}, {"@", CLAW_EINVAL}, {lengthy, CLAW_EINVAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(claw_notify_open(&n, rows[i].socket), rows[i].rc);
        assert_false(claw_notify_on(&n));
        claw_notify_ready(&n, "x");
        claw_notify_reloading(&n);
        claw_notify_stopping(&n, 1, "x");
        claw_notify_alive(&n);
        claw_notify_again(&n);
        claw_notify_close(&n);
    }
}

/* A status is one line, whatever is in it; a longer one ends with a whole character. */
static void a_status_is_one_line(void **state)
{
    char lengthy[2 * CLAW_NOTIFY_BYTES];
    listen_at(path);
    assert_int_equal(claw_notify_open(&n, path), 0);
    claw_notify_ready(&n, "a\nREADY=0\tb\x7f\xc3\xa9");
    assert_string_equal(heard(), "READY=1\nSTATUS=a READY=0 b \xc3\xa9");
    for (size_t off = 0; off < 2; off++) { /* characters at even and at odd places */
        memset(lengthy, 'x', sizeof lengthy);
        for (size_t i = off; i + 2 < sizeof lengthy; i += 2) memcpy(lengthy + i, "\xc3\xa9", 2);
        lengthy[sizeof lengthy - 1] = '\0';
        claw_notify_ready(&n, lengthy);
        size_t len = strlen(heard());
        assert_in_range(len, CLAW_NOTIFY_BYTES - 1, CLAW_NOTIFY_BYTES);
        assert_memory_equal(got + len - 2, "\xc3\xa9", 2);
    }
}

/* What the manager does not take is kept, of the states the newest only; a sign of life is not. */
static void nothing_waits_for_a_slow_manager(void **state)
{
    assert_int_equal(claw_notify_open(&n, path), 0); /* nobody is there yet */
    claw_notify_ready(&n, "1");
    claw_notify_ready(&n, "2");
    claw_notify_alive(&n);
    assert_true(n.owed > 0);
    listen_at(path);
    claw_notify_again(&n);
    assert_string_equal(heard(), "READY=1\nSTATUS=2");
    assert_string_equal(heard(), "");

    int sent = 0;
    while (n.owed == 0 && sent < 100000) { /* until the socket is full */
        claw_notify_ready(&n, "many");
        sent++;
    }
    assert_true(n.owed > 0);
    claw_notify_stopping(&n, 1, "last");
    while (sent-- > 1) assert_string_equal(heard(), "READY=1\nSTATUS=many");
    claw_notify_alive(&n);
    assert_string_equal(heard(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=1000\nSTATUS=last");
    assert_string_equal(heard(), "WATCHDOG=1");
}

static void the_watchdogs_time(void **state)
{
    char mine[16];
    snprintf(mine, sizeof mine, "%d", (int)getpid());
    assert_int_equal(claw_notify_watchdog_us("30000000", mine), 30000000);
    assert_int_equal(claw_notify_watchdog_us("30000000", NULL), 30000000);
    assert_int_equal(claw_notify_watchdog_us("30000000", "1"), 0);
    assert_int_equal(claw_notify_watchdog_us("30000000", "x"), 0);
    assert_int_equal(claw_notify_watchdog_us(NULL, mine), 0);
    assert_int_equal(claw_notify_watchdog_us("", mine), 0);
    assert_int_equal(claw_notify_watchdog_us("-1", mine), 0);
    assert_int_equal(claw_notify_watchdog_us("5s", mine), 0);
    assert_int_equal(claw_notify_watchdog_us("99999999999999999999", mine), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(states_as_the_protocol_has_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(abstract_sockets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_manager_nothing_happens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_status_is_one_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_waits_for_a_slow_manager, set_up, tear_down),
        cmocka_unit_test(the_watchdogs_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
