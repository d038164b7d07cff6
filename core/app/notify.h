/* notify: what the service manager is told (systemd's sd_notify protocol, without its library).
 *
 *   NOTIFY_SOCKET   a datagram socket: a path, or @NAME in the abstract namespace. Not set: everything here does nothing
 *   READY=1         behind the start, and behind each reload whatever came of it, with STATUS= for people
 *   RELOADING=1     with MONOTONIC_USEC=, when a reload begins (what Type=notify-reload waits for)
 *   STOPPING=1      with EXTEND_TIMEOUT_USEC=, when draining begins: so long it may take
 *   WATCHDOG=1      while every worker's loop turns, when WATCHDOG_USEC asks for it
 *
 * Nothing waits: a state that the socket does not take at once is kept and sent with the next call, the newest only.
 * Thread: control.
 */
#ifndef CLAW_APP_NOTIFY_H
#define CLAW_APP_NOTIFY_H

#include "base/buf.h"

#include <sys/socket.h>
#include <sys/un.h>

#define CLAW_NOTIFY_BYTES 512u

struct claw_notify {
    int fd;              /* -1: nobody is told */
    struct sockaddr_un to;
    socklen_t to_len;
    size_t owed;         /* bytes of `state` that were not taken yet */
    char state[CLAW_NOTIFY_BYTES];
};

/* Tell those who listen at `socket` (NOTIFY_SOCKET's value; NULL or "": nobody). CLAW_EINVAL: neither a path nor @NAME, or
 * too long for a socket; CLAW_EIO: no socket to be had (errno). Nobody is told then. */
int claw_notify_open(struct claw_notify *n, const char *socket) CLAW_MUSTCHECK;
void claw_notify_close(struct claw_notify *n);
static inline bool claw_notify_on(const struct claw_notify *n) { return n->fd >= 0; }

/* It serves; `status` is one line for people, cut where it is long; control characters in it become spaces. */
void claw_notify_ready(struct claw_notify *n, const char *status);
/* A reload begins. */
void claw_notify_reloading(struct claw_notify *n);
/* It drains, which ends within `ms`. */
void claw_notify_stopping(struct claw_notify *n, uint64_t ms, const char *status);
/* The watchdog's sign of life. Sends what is owed first. */
void claw_notify_alive(struct claw_notify *n);
/* Send what is owed, if anything is. */
void claw_notify_again(struct claw_notify *n);

/* The time in which the manager wants a sign of life, in microseconds: of WATCHDOG_USEC's value, when WATCHDOG_PID's is ours
 * or not set. 0: none is wanted. */
uint64_t claw_notify_watchdog_us(const char *usec, const char *pid);

#endif
