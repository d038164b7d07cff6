/* generation: configuration, certificates and policies as one immutable thing, counted.
 *
 *   struct claw_generation         built by the control thread, shared, immutable after publishing
 *        ^ one counted reference each
 *   struct claw_generation_local   a worker's: its policy VM and endpoints; a request pins it for its whole life
 *
 * When a newer one is in use and no request pins a local any more, the worker gives it up at the end of the turn;
 * when no worker refers to the generation, it is freed.
 */
#ifndef CLAW_PROXY_GENERATION_H
#define CLAW_PROXY_GENERATION_H

#include "base/conf.h"
#include "proxy/cooling.h"
#include "proxy/dialect.h"
#include "proxy/facts.h"
#include "proxy/pool.h"
#include "proxy/sigv4.h"
#include "proxy/tally.h"

#define CLAW_GENERATION_SERVICE "bedrock" /* that requests are signed for */

struct claw_policy_ops; /* pipeline.h */
struct claw_cache;
struct claw_clients;
struct claw_ledger;
struct claw_store;
struct claw_token;

struct claw_generation_upstream {
    const struct claw_conf_upstream *conf;
    struct claw_tls_client *tls;      /* NULL: plain */
    struct claw_str *heads;           /* per API key (at least one): the fields that are the same in every request */
    size_t heads_n;
    struct claw_str *own;             /* names of those fields: a client's fields of these names are not passed on */
    size_t own_n;
    struct claw_upstream_stats *stats;
    struct claw_cooling *cooling;
    struct claw_cooling_key **keys;   /* per API key; keys_n of them are counted by this generation */
    size_t keys_n;
    struct claw_str auth;             /* the field that carries the key; "": none */
    /* Where it speaks what, below base_url, {model} for the model; "": it does not, or (all of them) it speaks what its
     * clients speak and paths stay as they came. The second is where streams are asked for. */
    struct claw_str paths[CLAW_DIALECT_COUNT][2];
    bool signs;                       /* requests are signed with conf->aws, for CLAW_GENERATION_SERVICE */
    bool asks_token;                  /* requests carry an access token of conf->account */
    bool asks_usage;                  /* streams are asked for stream_options.include_usage */
};

struct claw_generation {
    uint32_t magic;
    _Atomic int refs;
    uint64_t id;                      /* 1, 2, 3 … */
    uint64_t hash;                    /* of configuration, policies and certificates */
    int64_t loaded_at;                /* Unix seconds */
    struct claw_conf *conf;
    struct claw_tls_server *tls;      /* the listener's; NULL: plain */
    struct claw_generation_upstream *upstreams;
    bool limits, upstream_limits;     /* there are any (limit.h) */
    bool shares_answers;              /* with other instances; set before it is published */
    bool recalls;                     /* answers are kept or shared (recall.h) */
    struct claw_clients *clients;     /* NULL: whoever reaches the port may ask */
    struct claw_arena arena;
    void *policies;                   /* script's sources */
    uint64_t policies_hash;
    void (*policies_free)(void *policies);
    struct claw_tally *_Atomic tallies; /* one for each local there ever was */
    struct claw_store *store;         /* lent: the process' one, which outlives it; NULL: none (-check, -explain) */
    struct claw_ledger *ledger;       /* lent likewise; NULL: nothing is recorded */
    struct claw_cache *cache;         /* lent likewise; NULL: no answer is kept */
};

/* A new generation around `conf` (which it owns from here on, on failure too): TLS contexts are made. One reference.
 * CLAW_EINVAL with a problem for what is wrong (a certificate, a CA file). */
int claw_generation_new(struct claw_conf *conf, struct claw_generation **out, struct claw_conf_problems *problems) CLAW_MUSTCHECK;
/* What the provider's table says about upstream `i`: the auth field (name NULL: none), what stands before the key,
 * and fixed fields. Configured `headers` win over both. Builds heads; once per upstream, before publishing. Copies. CLAW_ENOMEM. */
int claw_generation_set_upstream(struct claw_generation *g, size_t i, const char *auth_name, const char *auth_prefix,
                                 const struct claw_conf_header *fixed, size_t fixed_n) CLAW_MUSTCHECK;
/* And where upstream `i` speaks protocol `d`: the paths of whole answers and of streams, behind base_url. Copies. CLAW_ENOMEM. */
int claw_generation_set_path(struct claw_generation *g, size_t i, enum claw_dialect d, struct claw_str plain, struct claw_str stream) CLAW_MUSTCHECK;
struct claw_generation *claw_generation_ref(struct claw_generation *g);
void claw_generation_unref(struct claw_generation *g);
/* Generations not freed yet, in the whole process. */
int claw_generation_live(void);

struct claw_generation_local {
    uint32_t magic;
    int refs;                           /* requests, and one while it is the current one */
    struct claw_generation *gen;
    const struct claw_policy_ops *ops;
    void *policy;                       /* the VM; the ops' first argument */
    struct claw_endpoint **endpoints;   /* by upstream */
    struct claw_sigv4_day *days;        /* by upstream: the key its requests are signed with */
    struct claw_token **tokens;         /* by upstream; NULL where no token is asked for */
    double *hedge_credit;               /* by route: hedges this worker may start (hedge.h) */
    double **turns;                     /* by upstream of several keys: how far each is from its next turn (care.h); else NULL */
    struct claw_tally *tally;           /* the generation's; counts this worker's requests */
    struct claw_loop *loop;
    struct claw_deferred deferred;
    void (*on_free)(struct claw_generation_local *g); /* gives the VM away; called at the end of the turn */
};

/* The worker's view of `gen` (takes a reference to it) with `policy`. One reference for being current. The loop's number
 * is the worker's. CLAW_ENOMEM. Thread: the loop's. */
int claw_generation_local_new(struct claw_generation *gen, struct claw_loop *loop, struct claw_pool *pool,
                              const struct claw_policy_ops *ops, void *policy, struct claw_generation_local **out) CLAW_MUSTCHECK;
/* Before `to` is used: what a worker got for `from` and `to` needs too (access tokens) goes on to it. */
void claw_generation_local_carry(struct claw_generation_local *to, const struct claw_generation_local *from);
static inline struct claw_generation_local *claw_generation_local_ref(struct claw_generation_local *g)
{
    g->refs++;
    return g;
}
void claw_generation_local_unref(struct claw_generation_local *g);
/* A request pins it for its whole life. */
static inline struct claw_generation_local *claw_generation_local_pin(struct claw_generation_local *g)
{
    claw_tally_begin(g->tally);
    return claw_generation_local_ref(g);
}
static inline void claw_generation_local_unpin(struct claw_generation_local *g)
{
    claw_tally_end(g->tally);
    claw_generation_local_unref(g);
}

#endif
