#include "app/notify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int claw_notify_open(struct claw_notify *n, const char *socket_path)
{
    memset(n, 0, sizeof *n);
    n->fd = -1;
    if (!socket_path || !*socket_path) return 0;
    size_t len = strlen(socket_path);
    if ((*socket_path != '/' && *socket_path != '@') || len < 2 || len >= sizeof n->to.sun_path) return CLAW_EINVAL;
    n->to.sun_family = AF_UNIX;
    memcpy(n->to.sun_path, socket_path, len);
    n->to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (*socket_path == '@') n->to.sun_path[0] = '\0'; /* an abstract name is as long as its address says */
    else n->to_len++;
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return n->fd < 0 ? CLAW_EIO : 0;
}

void claw_notify_close(struct claw_notify *n)
{
    if (n->fd >= 0) close(n->fd);
    n->fd = -1;
}

/* False: the socket is full, or its reader is not there for the moment (a manager that starts anew). */
static bool put(struct claw_notify *n, const char *text, size_t len)
{
    ssize_t rc;
    do rc = sendto(n->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&n->to, n->to_len);
    while (rc < 0 && errno == EINTR);
    return rc >= 0;
}

void claw_notify_again(struct claw_notify *n)
{
    if (n->fd >= 0 && n->owed && put(n, n->state, n->owed)) n->owed = 0;
}

/* The state written in n->state takes the place of one that is owed. */
static void say(struct claw_notify *n, int len, const char *status)
{
    size_t size = (size_t)len;
    if (status) {
        size_t from = size + sizeof "\nSTATUS=" - 1, room = sizeof n->state - from, fits = strlen(status);
        memcpy(n->state + size, "\nSTATUS=", from - size);
        if (fits > room)
            for (fits = room; fits && (status[fits] & 0xc0) == 0x80;) fits--; /* not within a character */
        for (size_t i = 0; i < fits; i++) n->state[from + i] = (unsigned char)status[i] < ' ' || status[i] == 0x7f ? ' ' : status[i];
        size = from + fits;
    }
    n->owed = size;
    claw_notify_again(n);
}

void claw_notify_ready(struct claw_notify *n, const char *status)
{
    if (n->fd >= 0) say(n, snprintf(n->state, sizeof n->state, "READY=1"), status);
}

void claw_notify_reloading(struct claw_notify *n)
{
    struct timespec t;
    if (n->fd < 0) return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    say(n, snprintf(n->state, sizeof n->state, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_nsec / 1000),
        NULL);
}

void claw_notify_stopping(struct claw_notify *n, uint64_t ms, const char *status)
{
    if (n->fd >= 0)
        say(n, snprintf(n->state, sizeof n->state, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu", (unsigned long long)ms * 1000), status);
}

void claw_notify_alive(struct claw_notify *n)
{
    if (n->fd < 0) return;
    claw_notify_again(n);
    bool lost = !put(n, "WATCHDOG=1", 10); /* the next one comes before it is missed */
    (void)lost;
}

static bool number_of(const char *text, uint64_t *out)
{
    char *end;
    if (!text || *text < '0' || *text > '9') return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    *out = v;
    return errno == 0 && *end == '\0';
}

uint64_t claw_notify_watchdog_us(const char *usec, const char *pid)
{
    uint64_t us, whose;
    if (!number_of(usec, &us)) return 0;
    if (pid && *pid && (!number_of(pid, &whose) || whose != (uint64_t)getpid())) return 0;
    return us;
}
