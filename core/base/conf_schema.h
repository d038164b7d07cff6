/* conf_schema: every key of openclaw.yaml in one table, and what is made of it.
 *
 *     table (conf_schema.c) ──► check: types, bounds, words, did you mean, secrets (conf_check.c)
 *                           ├──► defaults of the typed half (conf.c)
 *                           └──► -schema and the configuration reference (conf_doc.c)
 *     conf_link.c: what a row cannot say.   conf_cloud.c: bedrock and vertex.   conf_url.c: URLs.
 *
 * A key that is not in the table does not exist. To add one: one row.
 */
#ifndef CLAW_BASE_CONF_SCHEMA_H
#define CLAW_BASE_CONF_SCHEMA_H

#include "base/conf_expand.h"
#include "base/conf_problem.h"

enum claw_conf_is { /* what a value may be; several together */
    CLAW_CONF_IS_BOOL = 1,
    CLAW_CONF_IS_INT = 2,
    CLAW_CONF_IS_NUMBER = 4,
    CLAW_CONF_IS_STRING = 8,
    CLAW_CONF_IS_LIST = 16,
    CLAW_CONF_IS_MAP = 32,
    CLAW_CONF_IS_ANY = 64,   /* anything at all */
    CLAW_CONF_IS_MATCH = 128 /* a match value: scalar, list of scalars, map of operators */
};

enum claw_conf_flag {
    CLAW_CONF_REQUIRED = 1,
    CLAW_CONF_SECRET = 2,         /* strings in it are never shown */
    CLAW_CONF_SECRET_BY_KEY = 4,  /* the same where the key looks like a credential's */
    CLAW_CONF_ABOVE_MIN = 8,      /* min itself is not allowed */
    CLAW_CONF_NOT_EMPTY = 16,
};

enum claw_conf_format { /* of a string */
    CLAW_CONF_FREE,
    CLAW_CONF_NAME,   /* 1 to 128 bytes without control characters */
    CLAW_CONF_ADDRESS, /* an IP address or localhost */
    CLAW_CONF_CIDR,   /* an IP address with or without prefix length */
    CLAW_CONF_PLACE,  /* such a one, or a host's name */
    CLAW_CONF_URL,    /* http or https */
    CLAW_CONF_REDIS,  /* a redis:// URL */
    CLAW_CONF_VARIABLE, /* an environment variable's name */
    CLAW_CONF_HEADER, /* goes into a header: no control characters */
    CLAW_CONF_HEX256, /* 64 hexadecimal digits */
};

struct claw_conf_rule {
    const char *key;  /* "*": any key */
    unsigned is;      /* enum claw_conf_is */
    unsigned flags;   /* enum claw_conf_flag */
    enum claw_conf_format format;
    const char *unit;
    const char *fallback; /* the default as YAML; in parentheses: prose, decided elsewhere */
    double min, max;      /* of numbers; both 0: unbounded */
    const char *words;    /* what a string may be, a blank between; `*` in one is a glob */
    const struct claw_conf_group *group; /* MAP: its keys; LIST whose `each` is NULL: the elements' keys */
    const struct claw_conf_rule *each;   /* LIST: the rule of its elements */
    const char *need;     /* MAP: a key of the group that has to be given here */
    const char *doc;
};

struct claw_conf_group {
    const char *name; /* of the JSON Schema's $defs and of the reference's section */
    const char *doc;
    const struct claw_conf_rule *rules; /* ends with key NULL */
};

/* The group of the whole file. */
const struct claw_conf_group *claw_conf_schema_root(void);
/* The rule of a key; the "*" rule when the group has one; NULL. */
const struct claw_conf_rule *claw_conf_rule_of(const struct claw_conf_group *g, struct claw_str key);
/* A rule by path through groups ("server.listen_port", "upstreams.*.timeout_seconds"); the path has to exist. */
const struct claw_conf_rule *claw_conf_rule_at(const char *path);
/* The operators of match values, a blank between. */
extern const char claw_conf_operators[];
/* Is this a header name whose value is to be kept secret? */
bool claw_conf_key_secret(struct claw_str key);

/* Take the next of several words with blanks between off the front; false at the end. */
bool claw_conf_word_next(const char **words, struct claw_str *out);

/* Check the whole tree; converts what was expanded to the type wanted and marks secrets. */
void claw_conf_check(struct claw_conf_node *root, struct claw_conf_report *report);

/* What one row cannot say: names that must exist, keys that exclude each other, duplicate names. Looks only at
 * values of the right type, so it may follow a check that found problems. */
void claw_conf_link(const struct claw_conf_node *root, const struct claw_conf_expand *x, struct claw_conf_report *report);

/* What bedrock and vertex say about who asks and where; of other types all of it is empty. */
struct claw_conf_cloud {
    struct claw_conf_aws aws;
    struct claw_conf_account account;
    struct claw_str url; /* of a base_url that is not given; "": there is none */
};
/* Read it from an upstream's map, the environment and the account's file; its memory is x->arena's. NULL, or why it cannot
 * be, a sentence without secrets, with *key: the key to blame. */
const char *claw_conf_cloud(const struct claw_conf_expand *x, const struct claw_conf_node *upstream, struct claw_conf_cloud *out,
                            const char **key);
/* The name of the i-th upstream in either form; "" when it has none. */
struct claw_str claw_conf_upstream_name(const struct claw_conf_node *upstreams, size_t i);
/* The URL a type has when base_url is not given; NULL: it has to be given. "": none is needed. */
const char *claw_conf_upstream_url(struct claw_str type);

/* host, port, path … of an http or https URL; false with *why (a sentence without the URL) when it is none. */
bool claw_conf_url_parse(struct claw_str text, struct claw_conf_url *out, const char **why);
/* The parts of redis://[[user]:password@]host[:port][/db]; user and password as they are written, percent-encoded. */
bool claw_conf_redis_parse(struct claw_str text, struct claw_conf_redis *out, const char **why);

#endif
