/* conf_part: what the files that build a configuration from its tree know of each other. */
#ifndef CLAW_BASE_CONF_PART_H
#define CLAW_BASE_CONF_PART_H

#include "base/conf.h"

struct claw_conf_builder {
    struct claw_conf *c;
    struct claw_arena *arena;
    const char *(*get_env)(const char *name);
    const struct claw_conf_keeper *keeper;
    bool failed; /* no memory */
};

/* ---- values, or the schema's defaults: `rule` is the schema's path; its last step is the key in `map` ---- */

/* NULL: not given, or null. */
const struct claw_conf_node *claw_conf_value_of(const struct claw_conf_node *map, const char *rule);
double claw_conf_number_of(const struct claw_conf_node *map, const char *rule);
unsigned claw_conf_whole_of(const struct claw_conf_node *map, const char *rule);
/* Seconds to ms, rounded up: what is above 0 stays above 0. */
unsigned claw_conf_ms_of(const struct claw_conf_node *map, const char *rule);
unsigned claw_conf_ms_or(const struct claw_conf_node *map, const char *rule, unsigned otherwise);
bool claw_conf_truth_of(const struct claw_conf_node *map, const char *rule);
struct claw_str claw_conf_text_of(const struct claw_conf_node *map, const char *rule);
struct claw_str claw_conf_text_or(const struct claw_conf_node *map, const char *key, struct claw_str otherwise);
/* Of a hexadecimal digit; -1: it is none. */
int claw_conf_digit_of(char c);

/* ---- memory of the configuration's arena; b->failed when there is none ---- */

/* n * size zeroed bytes; NULL for none. */
void *claw_conf_take(struct claw_conf_builder *b, size_t n, size_t size);
/* `path` in `dir`, or as it is where it is absolute. */
const char *claw_conf_join(struct claw_conf_builder *b, const char *dir, struct claw_str path);
/* A list's scalars; NULL when it is not given, or empty. */
struct claw_str *claw_conf_texts_of(struct claw_conf_builder *b, const struct claw_conf_node *list, size_t *n);
/* A file named by a key: absolute, NULL when not given. */
const char *claw_conf_path_of(struct claw_conf_builder *b, const struct claw_conf_node *map, const char *key);
/* Names and values. */
struct claw_conf_header *claw_conf_headers_of(struct claw_conf_builder *b, const struct claw_conf_node *map, size_t *n);

/* ---- sections; upstreams before routes and limits ---- */

/* With keys, prices, clouds. */
void claw_conf_build_upstreams(struct claw_conf_builder *b);
/* With what they retry and hedge. */
void claw_conf_build_routes(struct claw_conf_builder *b);
/* And what of each route is cached. */
void claw_conf_build_caching(struct claw_conf_builder *b);
/* With their limits. */
void claw_conf_build_clients(struct claw_conf_builder *b);
/* rate_limits, and max_concurrency of upstreams. */
void claw_conf_build_limits(struct claw_conf_builder *b);

#endif
