#include "app/shown.h"

#include "base/conf_tree.h"
#include "script/policy.h"

#include <stdlib.h>

#define DEPTH 64

static bool holds(const struct claw_conf_node *n) { return n->type == CLAW_CONF_LIST || n->type == CLAW_CONF_MAP; }

/* Of Vault's and AWS' values all are secrets, whatever the key says, and so are header fields' that come from elsewhere. */
static bool is_secret(const struct claw_conf_node *n, bool header)
{
    const struct claw_conf_leaf *leaf = claw_conf_leaf_of(n);
    return n->secret || leaf->elsewhere || (header && leaf->expanded);
}

static int add_node(const struct claw_conf_node *n, bool header, struct claw_buf *out)
{
    if (!n || n->type == CLAW_CONF_NULL) return claw_buf_add_z(out, "null");
    if (is_secret(n, header)) return claw_buf_add_z(out, "\"***\"");
    if (n->type == CLAW_CONF_BOOL) return claw_buf_add_z(out, n->truth ? "true" : "false");
    if (n->type == CLAW_CONF_NUMBER) return claw_buf_add_fmt(out, "%.17g", n->number);
    if (n->type == CLAW_CONF_STRING) return claw_buf_add_json(out, n->text);
    bool map = n->type == CLAW_CONF_MAP;
    int rc = claw_buf_add_z(out, map ? "{" : "[");
    for (size_t i = 0; i < n->n && rc == 0; i++) {
        if (i) rc = claw_buf_add_z(out, ",");
        if (rc == 0 && map && (rc = claw_buf_add_json(out, n->entries[i].key)) == 0) rc = claw_buf_add_z(out, ":");
        if (rc == 0) rc = add_node(n->entries[i].value, header || (map && claw_str_eqz(n->entries[i].key, "headers")), out);
    }
    return rc == 0 ? claw_buf_add_z(out, map ? "}" : "]") : rc;
}

int claw_shown_add(const struct claw_conf_node *n, struct claw_buf *out) { return add_node(n, false, out); }

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

static void walk(struct leaves *l, const struct claw_conf_node *n, bool header, unsigned depth)
{
    if (l->rc != 0 || depth > DEPTH) return;
    if (!holds(n) || n->n == 0) {
        add_leaf(l, holds(n) ? n->type == CLAW_CONF_MAP ? CLAW_STR("{}") : CLAW_STR("[]") : n->text, is_secret(n, header), false);
        return;
    }
    size_t before = l->path.len;
    for (size_t i = 0; i < n->n && l->rc == 0; i++) {
        struct claw_str key = n->entries[i].key, name = n->type == CLAW_CONF_LIST ? called(n->entries[i].value) : key;
        if (n->type == CLAW_CONF_MAP) l->rc = claw_buf_add_fmt(&l->path, "%s%.*s", before ? "." : "", CLAW_STR_FMT(key));
        else if (name.len) l->rc = claw_buf_add_fmt(&l->path, "[%.*s]", CLAW_STR_FMT(name));
        else l->rc = claw_buf_add_fmt(&l->path, "[%zu]", i);
        walk(l, n->entries[i].value, header || claw_str_eqz(key, "headers"), depth + 1);
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

static void read_leaves(struct leaves *l, const struct claw_conf *conf, const struct claw_policies *policies)
{
    claw_arena_init(&l->arena, NULL, 0, 64u << 20);
    claw_buf_init(&l->path, 0);
    walk(l, conf->root, false, 0);
    if (policies) claw_policies_each(policies, add_source, l);
    if (l->n) qsort(l->all, l->n, sizeof *l->all, by_path);
}

static void leaves_fini(struct leaves *l)
{
    free(l->all);
    claw_buf_fini(&l->path);
    claw_arena_reset(&l->arena);
}

/* Who is told of each change: NULL for what is not there before, or after. */
typedef int (*tell_fn)(void *arg, const struct leaf *before, const struct leaf *after);

static int compare(const struct leaves *from, const struct leaves *to, tell_fn tell, void *arg)
{
    size_t i = 0, k = 0;
    int rc = from->rc ? from->rc : to->rc;
    while ((i < from->n || k < to->n) && rc == 0) {
        const struct leaf *a = i < from->n ? &from->all[i] : NULL, *b = k < to->n ? &to->all[k] : NULL;
        struct leaf x = a ? *a : (struct leaf){.order = 0}, y = b ? *b : (struct leaf){.order = 0};
        x.order = y.order = 0;
        int c = !a ? 1 : !b ? -1 : by_path(&x, &y);
        i += c <= 0;
        k += c >= 0;
        if (c != 0 || !claw_str_eq(a->text, b->text)) rc = tell(arg, c <= 0 ? a : NULL, c >= 0 ? b : NULL);
    }
    return rc;
}

static bool either_secret(const struct leaf *before, const struct leaf *after) { return (before && before->secret) || (after && after->secret); }

/* ---- … as JSON ---------------------------------------------------------------------------------------------------------------- */

struct listing {
    struct claw_buf *out;
    size_t n;
};

static int add_value(struct claw_buf *out, const char *key, const struct leaf *l, bool secret)
{
    if (!l || l->named) return 0;
    int rc = claw_buf_add_fmt(out, ",\"%s\":", key);
    return rc == 0 ? claw_buf_add_json(out, secret ? CLAW_STR("***") : l->text) : rc;
}

static int list_change(void *arg, const struct leaf *before, const struct leaf *after)
{
    struct listing *l = arg;
    struct claw_buf *out = l->out;
    bool secret = either_secret(before, after);
    if (l->n++ >= CLAW_SHOWN_CHANGES) return 0;
    int rc = claw_buf_add_z(out, l->n > 1 ? ",{\"path\":" : "{\"path\":");
    if (rc == 0) rc = claw_buf_add_json(out, before ? before->path : after->path);
    if (rc == 0) rc = claw_buf_add_fmt(out, ",\"change\":\"%s\"", !before ? "added" : !after ? "removed" : "changed");
    if (rc == 0) rc = add_value(out, "before", before, secret);
    if (rc == 0) rc = add_value(out, "after", after, secret);
    return rc == 0 ? claw_buf_add_z(out, "}") : rc;
}

int claw_shown_changes(const struct claw_generation *from, const struct claw_generation *to, struct claw_buf *out)
{
    struct leaves a = {.rc = 0}, b = {.rc = 0};
    struct listing l = {.out = out};
    read_leaves(&a, from->conf, from->policies);
    read_leaves(&b, to->conf, to->policies);
    int rc = claw_buf_add_z(out, "\"changes\":[");
    if (rc == 0) rc = compare(&a, &b, list_change, &l);
    if (rc == 0) rc = claw_buf_add_fmt(out, "],\"changes_left_out\":%zu", l.n > CLAW_SHOWN_CHANGES ? l.n - CLAW_SHOWN_CHANGES : 0);
    if (rc == 0) claw_log_redact(out);
    leaves_fini(&a);
    leaves_fini(&b);
    return rc;
}

/* ---- … as lines --------------------------------------------------------------------------------------------------------------- */

#define VALUE_MOST 200u /* bytes of a value that are shown */

struct lines {
    struct claw_shown_diff *d;
    const struct claw_conf *from, *to;
};

/* What only a restart changes (control says so when it reloads). A first ledger is opened at once; a first cache that is shared is not. */
static bool is_sealed(const struct lines *l, struct claw_str path)
{
    static const char *const sealed[] = {"server.listen_address", "server.listen_port", "server.workers", "admin.listen_address", "admin.listen_port"};
    for (unsigned i = 0; i < sizeof sealed / sizeof *sealed; i++)
        if (claw_str_eqz(path, sealed[i])) return true;
    if (claw_str_eqz(path, "state.path") || claw_str_eqz(path, "state.keep_days")) return l->from->ledger_path != NULL;
    if (claw_str_eqz(path, "caching.secret")) return l->to->caching.shared;
    return claw_str_eqz(path, "caching.backend") && l->to->caching.shared && !l->from->caching.shared;
}

static int put_value(struct claw_buf *out, const struct leaf *l, bool secret)
{
    struct claw_str s = secret ? CLAW_STR("***") : l->text;
    if (s.len > VALUE_MOST) s.len = VALUE_MOST;
    int rc = 0;
    for (size_t i = 0; i < s.len && rc == 0; i++) { /* a line each */
        char c = (unsigned char)s.ptr[i] < ' ' || s.ptr[i] == 0x7f ? ' ' : s.ptr[i];
        rc = claw_buf_add(out, &c, 1);
    }
    return rc == 0 && s.len < l->text.len && !secret ? claw_buf_add_z(out, "…") : rc;
}

static int write_change(void *arg, const struct leaf *before, const struct leaf *after)
{
    const struct lines *l = arg;
    struct claw_shown_diff *d = l->d;
    struct claw_str path = before ? before->path : after->path;
    bool secret = either_secret(before, after), sealed = is_sealed(l, path);
    d->n++;
    d->sealed += sealed;
    int rc = claw_buf_add_fmt(d->out, "%s  %.*s: ", sealed ? "restart" : "live   ", CLAW_STR_FMT(path));
    if (rc == 0 && secret && before && after) return claw_buf_add_z(d->out, "changed\n");
    if (rc == 0 && (!before || !after)) rc = claw_buf_add_z(d->out, before ? "removed, was " : "added, ");
    if (rc == 0 && before) rc = put_value(d->out, before, secret);
    if (rc == 0 && before && after) rc = claw_buf_add_z(d->out, " -> ");
    if (rc == 0 && after) rc = put_value(d->out, after, secret);
    return rc == 0 ? claw_buf_add_z(d->out, "\n") : rc;
}

/* Where one of a name stands in a list; its size when there is none. */
static size_t place_of(const struct claw_conf_node *list, struct claw_str name)
{
    size_t i = 0;
    while (i < list->n && !claw_str_eq(called(list->entries[i].value), name)) i++;
    return i;
}

/* Two that are in both lists, in another order: the file's decides between routes that match equally well. */
static int write_order(struct claw_shown_diff *d, const struct claw_conf_node *from, const struct claw_conf_node *to)
{
    if (!from || !to || from->type != CLAW_CONF_LIST || to->type != CLAW_CONF_LIST) return 0;
    struct claw_str last = CLAW_STR("");
    size_t last_was = 0;
    for (size_t i = 0; i < to->n; i++) {
        struct claw_str name = called(to->entries[i].value);
        size_t was = name.len ? place_of(from, name) : from->n;
        if (was == from->n) continue;
        if (last.len && was < last_was) {
            d->n++;
            return claw_buf_add_fmt(d->out, "live     routes: the order changed, [%.*s] stands before [%.*s] now\n", CLAW_STR_FMT(last), CLAW_STR_FMT(name));
        }
        last = name;
        last_was = was;
    }
    return 0;
}

int claw_shown_diff(struct claw_shown_diff *d, const struct claw_conf *from, const struct claw_conf *to)
{
    struct leaves a = {.rc = 0}, b = {.rc = 0};
    read_leaves(&a, from, NULL);
    read_leaves(&b, to, NULL);
    int rc = compare(&a, &b, write_change, &(struct lines){d, from, to});
    if (rc == 0) rc = write_order(d, claw_conf_get(from->root, "routes"), claw_conf_get(to->root, "routes"));
    if (rc == 0) claw_log_redact(d->out);
    leaves_fini(&a);
    leaves_fini(&b);
    return rc;
}
