/* pool: connections to upstreams, kept between requests. One pool a worker.
 *
 * An endpoint is where connections go: scheme, host, port and TLS settings. Endpoints outlive generations: a reload
 * that leaves an upstream as it was keeps its warm connections. Idle connections are used last-in first-out and
 * closed after CLAW_POOL_IDLE_MS.
 *
 *   lease: idle connection? --yes--> on_ready at once
 *          no --> resolve --> connect (TLS) to each address in turn --> on_ready, or on_error with the last reason
 *
 * Many that connect at once do it a bounded number a turn of the loop, in the order they came, endpoints alternating
 * (lane.h); those that wait are the leases that are out.
 */
#ifndef CLAW_PROXY_POOL_H
#define CLAW_PROXY_POOL_H

#include "base/conf.h"
#include "http/client.h"
#include "net/resolve.h"
#include "proxy/metrics.h"

#define CLAW_POOL_IDLE_MS 60000u
#define CLAW_POOL_STRAY_MS 60000u /* behind bytes that answer nothing, none of the endpoint's connections is used twice for so long */
#define CLAW_POOL_IDLE_MAX 1024u /* idle connections an endpoint keeps */

struct claw_pool;
struct claw_endpoint;

struct claw_lease {
    struct claw_lease *prev, *next;
    struct claw_endpoint *endpoint; /* NULL: not waiting */
    struct claw_client *client;     /* connecting */
    struct claw_resolve question;
    struct claw_addresses *addresses; /* while connecting */
    unsigned tried, connect_ms;
    uint64_t deadline_ms;
    struct claw_lane_ticket turn;   /* to connect */
    struct claw_timer timer;        /* connect_ms, until connecting has begun: then the connection has one */
    /* May this address be connected to? NULL: any. Asked of each address that is tried, and of a kept connection's, so
     * that what a name resolves to now does not matter. When none may: CLAW_EDENIED. */
    bool (*may)(const struct claw_lease *l, const struct sockaddr *to);
    /* Exactly one of them, once; on_ready possibly before claw_pool_lease returns. */
    void (*on_ready)(struct claw_lease *l, struct claw_client *c);
    void (*on_error)(struct claw_lease *l, int code, const char *text);
    void *arg;
};

/* A pool on `loop` that counts in `metrics` (may be NULL). CLAW_ENOMEM. */
int claw_pool_new(struct claw_loop *loop, struct claw_metrics_shard *metrics, struct claw_pool **out) CLAW_MUSTCHECK;
/* Close everything; no lease may be out. Memory goes when the last connection is closed (the loop must turn). */
void claw_pool_free(struct claw_pool *p);

/* The endpoint of an upstream (a reference). `tls` is the generation's client context, kept by the endpoint when it
 * is new: two generations with equal settings share the first one's context and so its sessions. */
struct claw_endpoint *claw_pool_endpoint(struct claw_pool *p, const struct claw_conf_upstream *u,
                                         struct claw_tls_client *tls);
/* Give it back; an endpoint nobody refers to closes its idle connections. */
void claw_endpoint_unref(struct claw_endpoint *e);

/* Ask for a connection. `fresh`: never an idle one. */
void claw_pool_lease(struct claw_endpoint *e, struct claw_lease *l, unsigned connect_ms, bool fresh);
/* No callback will come any more. */
void claw_pool_cancel(struct claw_lease *l);
/* Give a connection back that is open, idle and clean. */
void claw_pool_release(struct claw_client *c);
/* Connections idle now. */
size_t claw_pool_idle(const struct claw_pool *p);

#endif
