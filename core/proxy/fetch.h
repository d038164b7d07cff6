/* fetch: an HTTP exchange that a policy asks for, beside the request's own.
 *
 *   to a URL         only to addresses of the public internet, unless policies.allow_private says otherwise: what a name
 *                    resolves to is checked address by address, and so is a kept connection's
 *   to an upstream   its base_url, its endpoint, its key and fields, set here; secrets in the answer's body are replaced, as
 *                    in the log, and so they must be in its fields before a policy sees them
 *
 * An access token that an upstream refuses with 401 is replaced: this answer stands, the next who asks waits for another.
 * The whole answer is kept, bounded. Redirects are answers like any other. A fetcher is a worker's: it keeps the endpoints of
 * URLs fetched lately, so that their connections are kept. Thread: the loop's.
 */
#ifndef CLAW_PROXY_FETCH_H
#define CLAW_PROXY_FETCH_H

#include "proxy/generation.h"

struct claw_fetcher;

/* TLS to a URL in another way than with the system's roots. `context` is made with `ca` and `verify`; all is the asker's. */
struct claw_fetch_tls {
    struct claw_tls_client *context;
    const char *ca;
    bool verify;
    struct claw_str server_name; /* "": the URL's host */
};

/* What to send. Slices are read before claw_fetch_start returns. */
struct claw_fetch_ask {
    struct claw_str url;        /* http or https; ptr NULL: to the upstream */
    size_t upstream;            /* index in the generation */
    struct claw_str path;       /* behind the upstream's base_url: "" or with / first, maybe with a query */
    bool at_host;               /* to an upstream: path stands in the place of base_url's */
    struct claw_str method;
    struct claw_conf_header *headers;
    size_t headers_n;
    struct claw_str body;       /* ptr NULL: none */
    unsigned timeout_ms;        /* for all of it */
    size_t max_body;            /* of the answer */
    const struct claw_fetch_tls *tls; /* NULL: the system's roots. With one, connections are not kept */
    bool configured;            /* the URL is the configuration's: its addresses may be private, and local may be NULL */
};

struct claw_fetch {
    struct claw_fetcher *fetcher;
    struct claw_generation_local *local;
    struct claw_endpoint *endpoint;  /* an upstream's, or `own`: a URL's, a reference */
    struct claw_lease lease;
    struct claw_client *client;
    struct claw_timer timer;
    struct claw_arena arena;         /* the answer's head */
    struct claw_buf out;             /* the request */
    struct claw_str host;            /* of the URL, in the arena */
    size_t max_body;
    unsigned timeout_ms;
    uint64_t start_us;
    bool own, no_body, stale, over, configured;
    struct claw_token *token;        /* of an upstream that asks for one: what was sent with it */
    uint64_t began_ms;
    void (*on_done)(struct claw_fetch *f);
    void *arg;
    /* the outcome, from on_done on */
    int code;                        /* CLAW_OK, CLAW_EDENIED, CLAW_EDEADLINE (timeout_ms), CLAW_EBODY_TOO_LARGE, or as an upstream fails */
    char error[256];
    struct claw_head *head;
    struct claw_buf body;
};

/* One for a worker. CLAW_ENOMEM. */
int claw_fetcher_new(struct claw_loop *loop, struct claw_pool *pool, struct claw_metrics_shard *metrics,
                     struct claw_fetcher **out) CLAW_MUSTCHECK;
/* No fetch may be under way. */
void claw_fetcher_free(struct claw_fetcher *x);
/* Fetches not freed yet. */
size_t claw_fetcher_count(const struct claw_fetcher *x);

/* Start. on_done comes once, possibly before this returns; free or cancel it by claw_fetch_free, in any case, but not from
 * within on_done. `local` must outlive it. CLAW_EINVAL with *why: what was asked is not valid (a URL, a header). CLAW_ETLS:
 * there are no roots. CLAW_ETOKEN with *why: the upstream has no access token at present; one is being got. CLAW_ENOMEM. */
int claw_fetch_start(struct claw_fetcher *x, struct claw_generation_local *local, const struct claw_fetch_ask *ask,
                     void (*on_done)(struct claw_fetch *f), void *arg, struct claw_fetch **out, const char **why) CLAW_MUSTCHECK;
void claw_fetch_free(struct claw_fetch *f);

#endif
