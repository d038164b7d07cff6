/* resolve: names to addresses, with a cache, off the loop.
 *
 * One resolver a loop. getaddrinfo runs on the thread pool; equal names asked for while one look-up is under way
 * share it. Answers are kept 30 s, failures 1 s; an answer older than that is used once more when a new look-up
 * fails (up to 10 min old). At most 256 names are kept (least recently used go). Addresses come in getaddrinfo's
 * order (RFC 6724), at most 8. A literal address answers at once, and so do localhost and
 * names under it (::1, 127.0.0.1; RFC 6761 6.3), without the pool.
 */
#ifndef CLAW_NET_RESOLVE_H
#define CLAW_NET_RESOLVE_H

#include "base/buf.h"
#include "net/loop.h"

#define CLAW_RESOLVE_MAX 8

struct claw_resolver;

struct claw_addresses {
    unsigned n;
    struct sockaddr_storage at[CLAW_RESOLVE_MAX]; /* port filled in */
};

/* A question; embedded in the asker. */
struct claw_resolve {
    struct claw_resolve *prev, *next;
    struct claw_resolver *resolver; /* NULL when not waiting */
    /* Called exactly once unless cancelled, possibly before claw_resolve_start returns. code 0, or CLAW_EDNS with
     * `why` a short text. `list` is valid during the call. */
    void (*on_done)(struct claw_resolve *r, int code, const struct claw_addresses *list, const char *why);
    void *arg;
    uint16_t port;
    void *entry;
};

/* An empty cache on `loop`. CLAW_ENOMEM. */
int claw_resolver_new(struct claw_loop *loop, struct claw_resolver **out) CLAW_MUSTCHECK;
/* Cancels every question (no callbacks). Look-ups under way end by themselves on the pool. */
void claw_resolver_free(struct claw_resolver *r);

/* Ask for `host`; q->on_done (set by the caller, with arg) tells. q must live until then or until it is cancelled. */
void claw_resolve_start(struct claw_resolver *r, struct claw_resolve *q, struct claw_str host, uint16_t port);
/* No callback will come any more. Legal at any time. */
void claw_resolve_cancel(struct claw_resolve *q);

#endif
