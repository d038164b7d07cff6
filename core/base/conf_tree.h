/* conf_tree: YAML text -> nodes with marks, expanded. libyaml's events, YAML 1.2's core scalars.
 *
 * Refused, each with a clear problem: more than one document, duplicate keys, keys that are no scalars, merge keys, own
 * tags, aliases to themselves, more than CLAW_CONF_NODES values or CLAW_CONF_DEPTH levels once aliases are copied
 * out ("billion laughs"). Keys are taken as they are; only values are expanded.
 */
#ifndef CLAW_BASE_CONF_TREE_H
#define CLAW_BASE_CONF_TREE_H

#include "base/conf_expand.h"
#include "base/conf_problem.h"

#define CLAW_CONF_BYTES (4u << 20)
#define CLAW_CONF_NODES 100000
#define CLAW_CONF_DEPTH 64
#define CLAW_CONF_ANCHORS 1000

/* Every node is allocated as one of these; the rest of the world sees only `node`. */
struct claw_conf_leaf {
    struct claw_conf_node node;
    bool expanded; /* something in the text was replaced: never shown in a problem */
    bool whole;    /* the text was one expression: the schema may want another type than string */
    bool quoted;
    bool broken;   /* a problem was reported already, or a secret in it is not there yet */
    bool elsewhere; /* it refers to a secret from elsewhere */
    bool made_up;  /* which nobody asked for: the keeper is offline */
};
static inline struct claw_conf_leaf *claw_conf_leaf_of(const struct claw_conf_node *n)
{
    return (struct claw_conf_leaf *)n; /* its first member */
}

/* The root, or NULL with at least one problem reported. Problems that leave a tree (an unset variable, a duplicate
 * key) are reported too; the caller looks at report->n. Memory is the arena's. */
struct claw_conf_node *claw_conf_tree_read(struct claw_str yaml, const struct claw_conf_expand *x,
                                           struct claw_conf_report *report);

/* What a plain scalar's text means in YAML 1.2's core schema; sets type, number and truth. */
void claw_conf_tree_resolve(struct claw_conf_node *n);

/* FNV-1a over types, keys and texts in file order. */
uint64_t claw_conf_tree_hash(const struct claw_conf_node *n);

/* Names that occur twice among `n`: calls twice(arg, first, second) for each second one. Sorts `names`. */
struct claw_conf_name {
    struct claw_str text;
    unsigned line, column;
    size_t i;
};
void claw_conf_names_twice(struct claw_conf_name *names, size_t n,
                           void (*twice)(void *arg, const struct claw_conf_name *first,
                                         const struct claw_conf_name *second), void *arg);

#endif
