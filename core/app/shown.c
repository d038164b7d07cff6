#include "app/shown.h"

#include "base/conf_tree.h"
#include "script/policy.h"

#include <stdlib.h>

#define DEPTH 64

static bool holds(const struct claw_conf_node *n) { return n->type == CLAW_CONF_LIST || n->type == CLAW_CONF_MAP; }

/* Of Vault's and AWS' values all are secrets, whatever the key says. */
static bool is_secret(const struct claw_conf_node *n) { return n->secret || claw_conf_leaf_of(n)->elsewhere; }

int claw_shown_add(const struct claw_conf_node *n, struct claw_buf *out)
{
    if (!n || n->type == CLAW_CONF_NULL) return claw_buf_add_z(out, "null");
    if (is_secret(n)) return claw_buf_add_z(out, "\"***\"");
    if (n->type == CLAW_CONF_BOOL) return claw_buf_add_z(out, n->truth ? "true" : "false");
    if (n->type == CLAW_CONF_NUMBER) return claw_buf_add_fmt(out, "%.17g", n->number);
    if (n->type == CLAW_CONF_STRING) return claw_buf_add_json(out, n->text);
    bool map = n->type == CLAW_CONF_MAP;
    int rc = claw_buf_add_z(out, map ? "{" : "[");
    for (size_t i = 0; i < n->n && rc == 0; i++) {
        if (i) rc = claw_buf_add_z(out, ",");
        if (rc == 0 && map && (rc = claw_buf_add_json(out, n->entries[i].key)) == 0) rc = claw_buf_add_z(out, ":");
        if (rc == 0) rc = claw_shown_add(n->entries[i].value, out);
    }
    return rc == 0 ? claw_buf_add_z(out, map ? "}" : "]") : rc;
}

/* ---- what is different ---------------------------------------------------------------------------------------------------- */

/* A value that holds no others, by its path. */
struct leaf {
    struct claw_str path, text;
    size_t order;
    bool secret, named; /* named: a file, whose text is not shown */
};

struct leaves {
    struct claw_arena arena;
    struct claw_buf path;
    struct leaf *all;
    size_t n, cap;
    int rc;
};

static void add_leaf(struct leaves *l, struct claw_str text, bool secret, bool named)
{
    if (l->n == l->cap) {
        size_t more = l->cap ? l->cap * 2 : 256;
        struct leaf *grown = realloc(l->all, more * sizeof *grown);
        if (!grown) {
            l->rc = CLAW_ENOMEM;
            return;
        }
        l->all = grown;
        l->cap = more;
    }
    struct claw_str path = claw_buf_str(&l->path);
    char *copy = claw_arena_dup(&l->arena, path.ptr, path.len);
    if (!copy) l->rc = CLAW_ENOMEM;
    else l->all[l->n] = (struct leaf){{copy, path.len}, text, l->n, secret, named};
    if (copy) l->n++;
}

/* What an element of a list is called: by its id or name where it has one, so that those behind one that is new are the same still. */
static struct claw_str called(const struct claw_conf_node *n)
{
    const struct claw_conf_node *name = claw_conf_get(n, "id");
    if (!name) name = claw_conf_get(n, "name");
    return name && name->type == CLAW_CONF_STRING ? name->text : CLAW_STR("");
}

static void walk(struct leaves *l, const struct claw_conf_node *n, unsigned depth)
{
    if (l->rc != 0 || depth > DEPTH) return;
    if (!holds(n) || n->n == 0) {
        add_leaf(l, holds(n) ? n->type == CLAW_CONF_MAP ? CLAW_STR("{}") : CLAW_STR("[]") : n->text, is_secret(n), false);
        return;
    }
    size_t before = l->path.len;
    for (size_t i = 0; i < n->n && l->rc == 0; i++) {
        struct claw_str key = n->entries[i].key, name = n->type == CLAW_CONF_LIST ? called(n->entries[i].value) : key;
        if (n->type == CLAW_CONF_MAP) l->rc = claw_buf_add_fmt(&l->path, "%s%.*s", before ? "." : "", CLAW_STR_FMT(key));
        else if (name.len) l->rc = claw_buf_add_fmt(&l->path, "[%.*s]", CLAW_STR_FMT(name));
        else l->rc = claw_buf_add_fmt(&l->path, "[%zu]", i);
        walk(l, n->entries[i].value, depth + 1);
        l->path.len = before;
    }
}

static void add_source(void *arg, const struct claw_policy_text *t)
{
    struct leaves *l = arg;
    l->path.len = 0;
    if (t->builtin || l->rc != 0) return;
    l->rc = claw_buf_add_str(&l->path, t->file);
    if (l->rc == 0) add_leaf(l, t->text, false, true);
}

static int by_path(const void *a, const void *b)
{
    const struct leaf *x = a, *y = b;
    size_t n = x->path.len < y->path.len ? x->path.len : y->path.len;
    int c = memcmp(x->path.ptr, y->path.ptr, n);
    if (c == 0) c = (x->path.len > y->path.len) - (x->path.len < y->path.len);
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

static void read_leaves(struct leaves *l, const struct claw_generation *g)
{
    claw_arena_init(&l->arena, NULL, 0, 64u << 20);
    claw_buf_init(&l->path, 0);
    walk(l, g->conf->root, 0);
    claw_policies_each(g->policies, add_source, l);
    if (l->n) qsort(l->all, l->n, sizeof *l->all, by_path);
}

static int add_value(struct claw_buf *out, const char *key, const struct leaf *l, bool secret)
{
    if (!l || l->named) return 0;
    int rc = claw_buf_add_fmt(out, ",\"%s\":", key);
    return rc == 0 ? claw_buf_add_json(out, secret ? CLAW_STR("***") : l->text) : rc;
}

static int add_change(struct claw_buf *out, const struct leaf *before, const struct leaf *after)
{
    bool secret = (before && before->secret) || (after && after->secret);
    int rc = claw_buf_add_z(out, "{\"path\":");
    if (rc == 0) rc = claw_buf_add_json(out, before ? before->path : after->path);
    if (rc == 0) rc = claw_buf_add_fmt(out, ",\"change\":\"%s\"", !before ? "added" : !after ? "removed" : "changed");
    if (rc == 0) rc = add_value(out, "before", before, secret);
    if (rc == 0) rc = add_value(out, "after", after, secret);
    return rc == 0 ? claw_buf_add_z(out, "}") : rc;
}

static int merge(struct leaves *from, struct leaves *to, struct claw_buf *out)
{
    size_t i = 0, k = 0, n = 0;
    int rc = claw_buf_add_z(out, "\"changes\":[");
    while ((i < from->n || k < to->n) && rc == 0) {
        struct leaf *a = i < from->n ? &from->all[i] : NULL, *b = k < to->n ? &to->all[k] : NULL;
        struct leaf x = a ? *a : (struct leaf){.order = 0}, y = b ? *b : (struct leaf){.order = 0};
        x.order = y.order = 0;
        int c = !a ? 1 : !b ? -1 : by_path(&x, &y);
        i += c <= 0;
        k += c >= 0;
        if (c == 0 && claw_str_eq(a->text, b->text)) continue;
        if (n++ >= CLAW_SHOWN_CHANGES) continue;
        if (n > 1) rc = claw_buf_add_z(out, ",");
        if (rc == 0) rc = add_change(out, c <= 0 ? a : NULL, c >= 0 ? b : NULL);
    }
    return rc == 0 ? claw_buf_add_fmt(out, "],\"changes_left_out\":%zu", n > CLAW_SHOWN_CHANGES ? n - CLAW_SHOWN_CHANGES : 0) : rc;
}

int claw_shown_changes(const struct claw_generation *from, const struct claw_generation *to, struct claw_buf *out)
{
    struct leaves a = {.rc = 0}, b = {.rc = 0};
    read_leaves(&a, from);
    read_leaves(&b, to);
    int rc = a.rc ? a.rc : b.rc ? b.rc : merge(&a, &b, out);
    if (rc == 0) claw_log_redact(out);
    for (int i = 0; i < 2; i++) {
        struct leaves *l = i ? &b : &a;
        free(l->all);
        claw_buf_fini(&l->path);
        claw_arena_reset(&l->arena);
    }
    return rc;
}
