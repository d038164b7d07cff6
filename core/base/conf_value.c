/* Values of the tree, or the schema's defaults; and memory for what is made of them. */
#include "base/conf_part.h"
#include "base/conf_schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* `rule` is the schema's path; its last step is the key in `map`. */
const struct claw_conf_node *claw_conf_value_of(const struct claw_conf_node *map, const char *rule)
{
    const char *dot = strrchr(rule, '.');
    const struct claw_conf_node *n = claw_conf_get(map, dot ? dot + 1 : rule);
    return n && n->type != CLAW_CONF_NULL ? n : NULL;
}

static const char *default_of(const char *rule)
{
    const char *d = claw_conf_rule_at(rule)->fallback;
    CLAW_ASSERT(d && *d != '(');
    return d;
}

double claw_conf_number_of(const struct claw_conf_node *map, const char *rule)
{
    const struct claw_conf_node *n = claw_conf_value_of(map, rule);
    return n ? n->number : strtod(default_of(rule), NULL);
}

unsigned claw_conf_whole_of(const struct claw_conf_node *map, const char *rule) { return (unsigned)claw_conf_number_of(map, rule); }

/* Seconds to ms, rounded up: what is above 0 stays above 0. */
unsigned claw_conf_ms_of(const struct claw_conf_node *map, const char *rule)
{
    return (unsigned)ceil(claw_conf_number_of(map, rule) * 1000 - 1e-6);
}

unsigned claw_conf_ms_or(const struct claw_conf_node *map, const char *rule, unsigned otherwise)
{
    return claw_conf_value_of(map, rule) ? claw_conf_ms_of(map, rule) : otherwise;
}

bool claw_conf_truth_of(const struct claw_conf_node *map, const char *rule)
{
    const struct claw_conf_node *n = claw_conf_value_of(map, rule);
    return n ? n->truth : strcmp(default_of(rule), "true") == 0;
}

struct claw_str claw_conf_text_of(const struct claw_conf_node *map, const char *rule)
{
    const struct claw_conf_node *n = claw_conf_value_of(map, rule);
    return n ? n->text : claw_str_of(default_of(rule));
}

struct claw_str claw_conf_text_or(const struct claw_conf_node *map, const char *key, struct claw_str otherwise)
{
    const struct claw_conf_node *n = claw_conf_value_of(map, key);
    return n ? n->text : otherwise;
}

int claw_conf_digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void *claw_conf_take(struct claw_conf_builder *b, size_t n, size_t size)
{
    if (!n) return NULL;
    void *p = claw_arena_zalloc(b->arena, n * size);
    b->failed |= !p;
    return p;
}

const char *claw_conf_join(struct claw_conf_builder *b, const char *dir, struct claw_str path)
{
    bool absolute = path.len && path.ptr[0] == '/';
    size_t len = absolute ? 0 : strlen(dir);
    const char *slash = absolute || (len && dir[len - 1] == '/') ? "" : "/";
    char *p = claw_conf_take(b, len + path.len + 2, 1);
    if (p) snprintf(p, len + path.len + 2, "%s%s%.*s", absolute ? "" : dir, slash, CLAW_STR_FMT(path));
    return p;
}

/* A list's scalars; NULL when it is not given, or empty. */
struct claw_str *claw_conf_texts_of(struct claw_conf_builder *b, const struct claw_conf_node *list, size_t *n)
{
    struct claw_str *all = claw_conf_take(b, list ? list->n : 0, sizeof *all);
    for (size_t i = 0; all && i < list->n; i++) all[(*n)++] = list->entries[i].value->text;
    return all;
}

/* A file named by a key: absolute, NULL when not given. */
const char *claw_conf_path_of(struct claw_conf_builder *b, const struct claw_conf_node *map, const char *key)
{
    const struct claw_conf_node *n = claw_conf_value_of(map, key);
    return n ? claw_conf_join(b, b->c->dir, n->text) : NULL;
}

struct claw_conf_header *claw_conf_headers_of(struct claw_conf_builder *b, const struct claw_conf_node *map, size_t *n)
{
    struct claw_conf_header *all = claw_conf_take(b, map ? map->n : 0, sizeof *all);
    for (size_t i = 0; all && i < map->n; i++) all[(*n)++] = (struct claw_conf_header){map->entries[i].key, map->entries[i].value->text};
    return all;
}

/* False: bedrock's and vertex' were read before, and changed meanwhile. */
