/* conf: openclaw.yaml as one immutable, typed object.
 *
 *     file --libyaml--> tree of nodes with marks --${} expansion--> checked against the schema --> struct claw_conf
 *
 * The schema is one table (conf_schema.c): key, type, unit, default, bounds, one sentence of documentation. It
 * drives checking, defaults, "did you mean", -schema and the configuration reference. The typed half below is
 * what C uses; the tree stays for what Lua decides about (routes, transformations, strategies …) and for marks.
 *
 * Expansion, in any scalar: ${VAR}, ${VAR:-default}, ${file:/path} (one trailing newline cut off), ${vault:path#field} and
 * ${aws-sm:name#field} (conf_secret.h), $$ for a dollar. An unset variable without default is an error naming key and variable. What was expanded is a string
 * unless the whole scalar was one expression and the schema wants another type.
 *
 * Every problem found is reported, not only the first. Lifetime: one arena, freed whole. Thread: load on any
 * one thread, read from all.
 */
#ifndef CLAW_BASE_CONF_H
#define CLAW_BASE_CONF_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/log.h"

enum claw_conf_type { CLAW_CONF_NULL, CLAW_CONF_BOOL, CLAW_CONF_NUMBER, CLAW_CONF_STRING, CLAW_CONF_LIST, CLAW_CONF_MAP };

struct claw_conf_node {
    enum claw_conf_type type; /* YAML 1.2 core: plain true/false, numbers, null/~/empty; quoted is always a string */
    unsigned line, column;    /* 1-based, of the value */
    bool secret;              /* the schema says so: never show */
    struct claw_str text;     /* scalars: the expanded text, NUL after it */
    double number;            /* NUMBER */
    bool truth;               /* BOOL */
    struct claw_conf_entry *entries; /* LIST (key empty) and MAP, in file order */
    size_t n;
};
struct claw_conf_entry {
    struct claw_str key;
    unsigned line, column; /* of the key */
    struct claw_conf_node *value;
};

/* A problem, in the form `file:line:col: key.path: message (did you mean …?)`. */
struct claw_conf_problem {
    struct claw_conf_problem *next;
    unsigned line, column;
    char *text; /* the whole line without newline, secrets never in it */
};
struct claw_conf_problems {
    struct claw_arena *arena; /* where problems are kept; set by the caller */
    struct claw_conf_problem *first, **last;
    size_t n;
    /* Optional: when all that is wrong are unknown keys, the configuration without them, so that what is checked above
     * this floor (policies, strategies, certificates) is told in the same run. The caller frees it. */
    struct claw_conf **rest;
};
void claw_conf_problems_init(struct claw_conf_problems *p, struct claw_arena *a);
/* Add one, for checks above this floor. `path` is the dotted key path such as "routes[0].match.path"; line and
 * column are looked up in the conf's tree (the nearest existing parent when the path itself is not there). */
struct claw_conf;
void claw_conf_problem_add(struct claw_conf_problems *p, const struct claw_conf *conf, const char *path,
                           const char *fmt, ...) CLAW_PRINTF(4, 5);

struct claw_conf_tls_server { const char *cert, *key, *client_ca; }; /* paths; cert NULL: no TLS */

struct claw_conf_url {
    struct claw_str text;   /* as written */
    bool tls;               /* https */
    struct claw_str host;   /* without brackets */
    uint16_t port;
    struct claw_str path;   /* without trailing slash; "" for none */
    struct claw_str authority; /* what Host says: host, with port when not the scheme's */
};

struct claw_conf_header { struct claw_str name, value; };

/* Prices in pico-dollars (1e-12 USD) a token: 30.00 USD a million tokens = 30,000,000. -1: not given. */
struct claw_conf_price {
    int64_t input, output, cached_input, cache_write, request_micros;
    int64_t long_above, long_input, long_output, long_cached; /* of a prompt of more than long_above tokens; not in the file */
};

/* What requests are signed with; id "": they are not. */
struct claw_conf_aws { struct claw_str id, secret, token, region; };
/* A service account, whose access tokens requests carry; email "": none. key is PEM, NUL behind it. */
struct claw_conf_account { struct claw_str email, key, key_id, token_uri; };

/* One of an upstream's keys. */
struct claw_conf_key {
    struct claw_str text;
    double weight;            /* 1 */
    struct claw_str *models;  /* names or globs; models_n 0: all */
    size_t models_n;
};
/* When an upstream is set aside (breaker.h). */
struct claw_conf_cooling {
    bool on;           /* true */
    unsigned failures; /* in a row, 3; 0: not by them */
    unsigned percent;  /* of at least `requests` in 30 s, 25; 0: not by it */
    unsigned requests; /* 10 */
};

struct claw_conf_upstream {
    struct claw_str name;
    struct claw_str type;            /* openai anthropic generic mock … */
    struct claw_conf_url url;        /* mock: may be empty (text.len 0) */
    struct claw_conf_key *api_keys;  /* api_key and api_keys together; those of "" left out */
    size_t api_keys_n;
    struct claw_conf_aws aws;         /* bedrock's, when it has no API key */
    struct claw_conf_account account; /* vertex', when it has no API key */
    struct claw_conf_header *headers;
    size_t headers_n;
    unsigned timeout_ms;             /* whole answer's head; server.timeout_seconds unless given */
    unsigned connect_timeout_ms;     /* connect and TLS handshake, 5000 */
    unsigned first_byte_timeout_ms;  /* request sent to answer's head; timeout_ms unless given */
    unsigned stall_timeout_ms;       /* no byte while an answer is under way, 120000 */
    unsigned max_concurrency;        /* 0: none */
    struct claw_conf_cooling cooling;
    struct claw_str health_path;     /* "": no checks */
    unsigned health_interval_ms;     /* 10000 */
    bool tls_verify;                 /* true */
    const char *tls_ca;              /* NULL: the system's roots */
    struct claw_str tls_server_name; /* "": url.host */
    struct claw_conf_price price;
    const struct claw_conf_node *node; /* the rest (models, model_map, region …) is Lua's */
};

/* When a second upstream is asked. after_ms and percent 0: never. */
struct claw_conf_hedge {
    unsigned after_ms;
    unsigned percent; /* of the upstream's usual times to the first byte, instead of after_ms */
    double budget;    /* hedges as a part of requests */
};
/* Read `after`: "p95" or a number of milliseconds. False: it is neither. */
bool claw_conf_hedge_after(struct claw_str text, double number, struct claw_conf_hedge *to);

/* What becomes of a route's answers. */
struct claw_conf_cache {
    bool on;             /* complete ones are kept */
    bool coalesce;       /* identical requests under way share one call */
    bool per_client;     /* nobody is given what another client was answered */
    unsigned ttl_ms;
};

struct claw_conf_route {
    struct claw_str id;
    struct claw_str strategy;         /* its type: "failover" … */
    struct claw_conf_cache cache;
    uint64_t hash;                    /* of it, transformations, policies, where upstreams are and their models: what decides about an answer */
    bool finishes;                    /* on_disconnect: finish */
    struct claw_conf_hedge hedge;
    unsigned timeout_ms;              /* 0: the upstream's */
    double retry_budget;              /* retry.budget, the route's own or the general one; 0.2 */
    const struct claw_conf_node *node;
};

/* redis://[[user]:password@]host[:port][/db] */
struct claw_conf_redis {
    struct claw_str text;
    struct claw_str user, password, host;
    uint16_t port;
    unsigned db;
};

/* How much of what; 0: not limited. */
struct claw_conf_rates {
    int64_t requests[4];      /* in a second, minute, hour, day */
    int64_t tokens[2];        /* in a minute, day */
    int64_t concurrent;
    int64_t burst;            /* -1: not given */
    unsigned max_wait_ms;
    unsigned max_waiting, max_waiting_per_client;
    uint64_t mark;            /* a number made of the amounts: who waits for others waits elsewhere */
};

/* What a field of a request must be: one of these, which may be globs. n 0: anything. */
struct claw_conf_words { struct claw_str *all; size_t n; };

struct claw_conf_limit {
    struct claw_str id;
    struct claw_conf_rates rates;
    struct claw_conf_words path, method, model, route, upstream, client, tier;
    struct { struct claw_str name; struct claw_conf_words values; } *headers;
    size_t headers_n;
    struct claw_str *per;     /* ip client user header:NAME */
    size_t per_n;
};

/* Who may ask. */
struct claw_conf_client {
    struct claw_str name;
    struct claw_str key;      /* in plain text, ptr NULL: key_hash is given instead */
    unsigned char key_hash[32]; /* SHA-256, when key.ptr is NULL */
    struct claw_str tier;     /* "": none */
    struct claw_str *models;  /* names and globs; NULL: all */
    size_t models_n;
    struct claw_str *routes;  /* ids; NULL: all */
    size_t routes_n;
    struct {
        int64_t micros;       /* -1: none */
        struct claw_str per;  /* day week month total */
        bool soft_stop;       /* a stream that reaches it ends */
    } budget;
    struct claw_conf_rates rates;
    struct claw_str limit_id; /* of them: "client:" and the name */
    const struct claw_conf_node *node; /* the rest is Lua's */
};

/* Events are told to it by POST. */
struct claw_conf_webhook {
    struct claw_str url;
    struct claw_conf_url to;  /* the same, read */
    struct claw_str *events;  /* their names; NULL: all */
    size_t events_n;
    struct claw_str secret;   /* "": deliveries are not signed */
    struct claw_conf_header *headers;
    size_t headers_n;
    unsigned timeout_ms;      /* 10 s */
    unsigned attempts;        /* 5 */
    unsigned max_queue;       /* 1000 */
};

/* Where secrets are that are neither here nor on this machine. */
enum claw_conf_store { CLAW_CONF_VAULT, CLAW_CONF_AWS_SM, CLAW_CONF_AWS_ROLE /* credentials, from where this runs */ };
/* Where this process gets the credentials of an AWS role from. */
enum claw_conf_role { CLAW_CONF_ROLE_NONE, CLAW_CONF_ROLE_WEB, CLAW_CONF_ROLE_CONTAINER, CLAW_CONF_ROLE_INSTANCE };
#define CLAW_CONF_SECRETS 64u /* different ones in a configuration; of one several fields may be used */

struct claw_conf_secret {
    enum claw_conf_store store;
    struct claw_str name;       /* Vault's path, AWS' name or ARN, as written */
};
/* Those that the file refers to, and how they are got (the section `secrets`). */
struct claw_conf_secrets {
    struct claw_conf_secret *all;
    size_t n;
    bool missing;               /* some of them are not there yet: nothing else of this configuration is valid */
    unsigned refresh_ms;        /* 300 s; 0: never */
    unsigned timeout_ms;        /* of fetching all of them, 10 s */
    struct {
        struct claw_str address; /* "": not known */
        struct claw_str token;   /* "": in token_file */
        const char *token_file;  /* absolute; NULL: none */
        struct claw_str name_space; /* "": none */
        unsigned version;        /* of the KV engine, 2 or 1 */
        const char *tls_ca;      /* NULL: the system's roots */
        bool tls_verify;
        struct claw_str tls_server_name; /* "": the address' host */
    } vault;
    struct {
        struct claw_conf_aws aws; /* id "": there are no credentials; region "": an ARN has to say it */
        struct claw_str endpoint; /* "": Amazon's of the region */
        bool role;                /* its credentials are the role's */
    } aws_sm;
    struct {
        enum claw_conf_role from;
        struct claw_str url;      /* STS', the container's, or the instance's metadata */
        struct claw_str arn, session; /* WEB: the role, and what the session is called */
        struct claw_str token;    /* CONTAINER: what authorization says; "": in file, or none */
        const char *file;         /* WEB: the token's; CONTAINER: what authorization says; NULL: none */
    } role;
};

/* An environment variable that policies may read. */
struct claw_conf_variable {
    struct claw_str name;
    const char *value; /* NULL: not set */
};

#define CLAW_CONF_FILES 256u

struct claw_conf {
    const char *path;                 /* of the file */
    const char *dir;                  /* its folder: relative paths in the file start there */
    uint64_t hash;                    /* of the expanded tree */
    const char **files;               /* read for ${file:} and service accounts: what they say may change without the file itself */
    size_t files_n;                   /* at most CLAW_CONF_FILES */
    struct claw_conf_node *root;

    struct {
        const char *listen_address;   /* "0.0.0.0"; IPv6 without brackets */
        uint16_t listen_port;         /* 8080 */
        unsigned timeout_ms;          /* timeout_seconds, 60 */
        unsigned workers;             /* CPUs this process may use */
        struct claw_conf_tls_server tls;
        size_t max_body_bytes;        /* max_body_mb, 32 */
        size_t upload_hold_bytes;     /* upload_hold_kb, 1024 */
        size_t max_header_bytes;      /* max_header_kb, 32 */
        unsigned idle_timeout_ms;     /* 75 s */
        unsigned header_timeout_ms;   /* 10 s */
        unsigned body_timeout_ms;     /* body_timeout_seconds, 10: in each such interval 1 KB/s must arrive */
        unsigned send_timeout_ms;     /* send_timeout_seconds, 30: a client that does not read */
        unsigned drain_ms;            /* 30 s */
        unsigned max_connections;     /* 10000, over all workers */
        bool expose_headers;          /* true */
        struct claw_str *trusted_proxies; /* CIDRs */
        size_t trusted_proxies_n;
    } server;
    struct {
        struct claw_str *whitelist, *blacklist; /* CIDRs; NULL: not given */
        size_t whitelist_n, blacklist_n;
    } security;
    struct claw_conf_client *clients;
    size_t clients_n;
    struct claw_conf_limit *limits;   /* rate_limits, and the upstreams' max_concurrency */
    size_t limits_n;
    struct {
        const char *listen_address;   /* "127.0.0.1" */
        uint16_t listen_port;         /* 9090; 0: no admin port */
        struct claw_str token;        /* "": none */
        struct claw_str *hosts;       /* names it answers to without a token */
        size_t hosts_n;
        unsigned recent_requests;     /* 200, kept by each worker */
        bool allow_policy_write;      /* false */
    } admin;
    struct claw_conf_upstream *upstreams;
    size_t upstreams_n;
    struct claw_conf_route *routes;
    size_t routes_n;
    struct {
        bool any;                     /* some route's answers are kept or shared */
        unsigned max_size_mb;         /* 100 */
        bool shared;                  /* backend redis */
        struct claw_str secret;       /* "": none */
        unsigned *strategies_ttl_ms;  /* of caching.strategies; 0: the route's */
        size_t strategies_n;          /* 0: everything is cached */
    } caching;
    struct {
        const char *dir;              /* absolute; "policies" beside the file unless given */
        unsigned budget_ms;           /* 10 */
        unsigned memory_mb;           /* 32 */
        struct claw_str *allow_private; /* networks and host names */
        size_t allow_private_n;
        unsigned max_fetches;         /* 1000 */
        unsigned store_mb;            /* 16 */
        struct {
            bool on;                  /* true */
            unsigned errors;          /* 10 */
            double percent;           /* 20 */
            unsigned window_ms;       /* 600 s */
        } rollback;
        unsigned drain_max_ms;        /* drain_max_seconds, 3600 */
        struct claw_conf_variable *env;
        size_t env_n;
    } policies;
    const char *ledger_path;          /* state.path, absolute; NULL: none */
    unsigned ledger_keep_days;        /* 400 */
    struct claw_conf_redis redis;     /* state.url; host "": not given. User and password decoded */
    struct {
        bool shared;                  /* backend redis */
        bool asked;                   /* that, or caching.shared */
        struct claw_str prefix;       /* "openclaw" */
        unsigned timeout_ms, lease_ms; /* 100, 15000 */
    } state;
    struct claw_conf_webhook *webhooks;
    size_t webhooks_n;
    struct {
        struct claw_str endpoint;     /* with its path; "": not configured */
        struct claw_conf_url to;      /* the same, read */
        struct claw_conf_header *headers;
        size_t headers_n;
        struct claw_str service_name; /* "openclaw-proxy" */
        double sample_ratio;          /* 1 */
        bool trust_parents;           /* true */
        unsigned interval_ms;         /* 1 s */
        unsigned timeout_ms;          /* 10 s */
        unsigned attempts;            /* 5 */
        unsigned max_queue;           /* 4096 requests */
        unsigned flush_ms;            /* 5 s */
    } tracing;
    struct {
        bool enabled;                 /* true */
        unsigned max_series;          /* 10000 */
    } metrics;
    struct claw_log_conf logging;     /* path absolute */
    bool log_bodies;                  /* false */
    struct claw_conf_secrets secrets;
    unsigned retry_attempts;          /* retry.attempts; 0: not given */
    unsigned retry_total_timeout_ms;  /* 0: none */
};

/* Load, expand, check. 0 and *out; or CLAW_EINVAL and at least one problem. Registers every secret scalar with
 * claw_log_secret. Problems go to `problems` (whose arena must outlive their use). `get_env` gives a variable's
 * value or NULL (NULL: getenv). */
int claw_conf_load(const char *path, const char *(*get_env)(const char *name), struct claw_conf **out,
                   struct claw_conf_problems *problems) CLAW_MUSTCHECK;
/* The same from memory; `path` is only for messages and relative paths. CLAW_EINVAL as above. */
int claw_conf_parse(const char *path, struct claw_str yaml, const char *(*get_env)(const char *name),
                    struct claw_conf **out, struct claw_conf_problems *problems) CLAW_MUSTCHECK;
/* The same as claw_conf_load where `keeper` (conf_secret.h; NULL: none) knows the secrets that are elsewhere. CLAW_EAGAIN, without
 * a problem: it lacks some, which the caller gets and then loads again; of *out `secrets` alone is valid, and it is to be freed. */
struct claw_conf_keeper;
int claw_conf_load_with(const char *path, const char *(*get_env)(const char *name), const struct claw_conf_keeper *keeper, struct claw_conf **out,
                        struct claw_conf_problems *problems) CLAW_MUSTCHECK;
void claw_conf_free(struct claw_conf *c);

/* A node by dotted path ("upstreams.openai.models[0]"), NULL when not there. */
const struct claw_conf_node *claw_conf_at(const struct claw_conf *c, const char *path);
/* A map's value by key, NULL when not there or no map. */
const struct claw_conf_node *claw_conf_get(const struct claw_conf_node *map, const char *key);

/* The JSON Schema (draft 2020-12) of the file, for -schema. */
int claw_conf_schema_write(struct claw_buf *out) CLAW_MUSTCHECK;
/* The configuration reference in Markdown, one row a key, from the same table. */
int claw_conf_reference_write(struct claw_buf *out) CLAW_MUSTCHECK;

#endif
