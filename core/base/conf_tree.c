#include "base/conf_tree.h"

#include "base/conf_secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

/*   events ──► build_value ──► build_scalar          expanded, resolved
 *                         ├──► build_list / build_map  one level down each
 *                         └──► build_alias            a copy of the anchor's subtree, counted like typed out
 *
 * `dead` ends everything: the text cannot be read on, or a bound is reached. Other problems are reported and reading
 * goes on.
 */
struct anchor {
    struct anchor *next; /* newest first: a name may be given anew */
    char *name;
    const struct claw_conf_node *node;
    bool open; /* its node is still being read */
};

struct reader {
    yaml_parser_t parser;
    struct claw_str yaml;
    const struct claw_conf_expand *x;
    struct claw_conf_report *report;
    struct anchor *anchors;
    size_t anchors_n, nodes;
    bool dead;
};

static unsigned line_of(yaml_mark_t m) { return (unsigned)m.line + 1; }
static unsigned column_of(yaml_mark_t m) { return (unsigned)m.column + 1; }

#define DIE(r, mark, ...)                                                                          \
    do {                                                                                           \
        if (!(r)->dead) claw_conf_report_add((r)->report, line_of(mark), column_of(mark), __VA_ARGS__); \
        (r)->dead = true;                                                                          \
    } while (0)

static void die_memory(struct reader *r, yaml_mark_t at) { DIE(r, at, "the configuration needs too much memory"); }

/* Byte offset -> mark: libyaml gives none for bytes it cannot decode. */
static yaml_mark_t mark_at(struct claw_str yaml, size_t offset)
{
    yaml_mark_t m = {.index = offset};
    for (size_t i = 0; i < offset && i < yaml.len; i++) {
        if (yaml.ptr[i] == '\n') {
            m.line++;
            m.column = 0;
        } else if (((unsigned char)yaml.ptr[i] & 0xc0) != 0x80) {
            m.column++;
        }
    }
    return m;
}

static bool tab_at(struct claw_str yaml, yaml_mark_t m)
{
    size_t i = 0, line = 0;
    while (i < yaml.len && line < m.line) line += yaml.ptr[i++] == '\n';
    for (size_t column = 0; i < yaml.len && yaml.ptr[i] != '\n'; i++) {
        if (column == m.column) return yaml.ptr[i] == '\t';
        column += ((unsigned char)yaml.ptr[i] & 0xc0) != 0x80;
    }
    return false;
}

static void die_syntax(struct reader *r)
{
    yaml_parser_t *p = &r->parser;
    claw_conf_report_leave(r->report, 0); /* where the text breaks is not where the mistake's key is */
    if (p->error == YAML_MEMORY_ERROR) {
        die_memory(r, p->mark);
    } else if (p->error == YAML_READER_ERROR) {
        DIE(r, mark_at(r->yaml, p->problem_offset), "%s", p->problem);
    } else {
        const char *tab = tab_at(r->yaml, p->problem_mark) ? " (a tab; YAML is indented with spaces)" : "";
        const char *context = p->context ? p->context : "";
        DIE(r, p->problem_mark, "%s%s%s%s", context, *context ? ": " : "",
            p->problem ? p->problem : "syntax error", tab);
    }
}

/* The next event; the caller deletes it. False: dead. */
static bool next(struct reader *r, yaml_event_t *ev)
{
    if (r->dead) return false;
    if (yaml_parser_parse(&r->parser, ev)) return true;
    die_syntax(r);
    return false;
}

static struct claw_conf_node *node_new(struct reader *r, yaml_mark_t at, size_t depth)
{
    if (depth > CLAW_CONF_DEPTH) {
        DIE(r, at, "more than %d levels inside each other", CLAW_CONF_DEPTH);
        return NULL;
    }
    if (++r->nodes > CLAW_CONF_NODES) {
        DIE(r, at, "more than %d values (are there aliases of aliases?)", CLAW_CONF_NODES);
        return NULL;
    }
    struct claw_conf_leaf *leaf = claw_arena_zalloc(r->x->arena, sizeof *leaf);
    if (!leaf) {
        die_memory(r, at);
        return NULL;
    }
    leaf->node.line = line_of(at);
    leaf->node.column = column_of(at);
    return &leaf->node;
}

static struct claw_conf_entry *entry_add(struct reader *r, struct claw_conf_node *in, size_t *room, yaml_mark_t at)
{
    if (in->n == *room) {
        size_t more = *room ? *room * 2 : 8;
        void *p = claw_arena_grow(r->x->arena, in->entries, *room * sizeof *in->entries, more * sizeof *in->entries);
        if (!p) {
            die_memory(r, at);
            return NULL;
        }
        in->entries = p;
        *room = more;
    }
    struct claw_conf_entry *e = &in->entries[in->n];
    *e = (struct claw_conf_entry){.key = CLAW_STR(""), .line = line_of(at), .column = column_of(at)};
    return e;
}

static struct anchor *anchor_add(struct reader *r, const yaml_char_t *name, const struct claw_conf_node *n,
                                 yaml_mark_t at)
{
    if (!name) return NULL;
    if (++r->anchors_n > CLAW_CONF_ANCHORS) {
        DIE(r, at, "more than %d anchors", CLAW_CONF_ANCHORS);
        return NULL;
    }
    struct anchor *a = claw_arena_zalloc(r->x->arena, sizeof *a);
    char *copy = a ? claw_arena_dup(r->x->arena, name, strlen((const char *)name)) : NULL;
    if (!copy) {
        die_memory(r, at);
        return NULL;
    }
    *a = (struct anchor){.next = r->anchors, .name = copy, .node = n, .open = true};
    r->anchors = a;
    return a;
}

static bool tag_is(const yaml_char_t *tag, const char *name)
{
    static const char core[] = "tag:yaml.org,2002:";
    const char *t = (const char *)tag;
    return strncmp(t, core, sizeof core - 1) == 0 && strcmp(t + sizeof core - 1, name) == 0;
}

/* !!str makes a string, the other core tags say what the text says already; own tags (!include) mean nothing here. */
static bool tag_known(const yaml_char_t *tag, bool *string)
{
    static const char *const names[] = {"str", "int", "float", "bool", "null", "map", "seq"};
    *string = tag && (strcmp((const char *)tag, "!") == 0 || tag_is(tag, "str"));
    if (!tag || *string) return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (tag_is(tag, names[i])) return true;
    return false;
}

static void tag_refuse(struct reader *r, const yaml_event_t *ev, const yaml_char_t *tag)
{
    claw_conf_report_add(r->report, line_of(ev->start_mark), column_of(ev->start_mark),
                         "the tag %.80s is not supported", (const char *)tag);
}

static struct claw_conf_node *build_value(struct reader *r, yaml_event_t *ev, size_t depth);

static struct claw_conf_node *build_scalar(struct reader *r, const yaml_event_t *ev, size_t depth)
{
    struct claw_conf_node *n = node_new(r, ev->start_mark, depth);
    if (!n) return NULL;
    struct claw_conf_leaf *leaf = claw_conf_leaf_of(n);
    bool string;
    if (!tag_known(ev->data.scalar.tag, &string)) {
        tag_refuse(r, ev, ev->data.scalar.tag);
        leaf->broken = true;
    }
    leaf->quoted = string || ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    n->text.len = ev->data.scalar.length;
    n->text.ptr = claw_arena_dup(r->x->arena, ev->data.scalar.value, n->text.len);
    if (!n->text.ptr) {
        die_memory(r, ev->start_mark);
        return NULL;
    }
    struct claw_str raw = n->text;
    char why[512];
    struct claw_conf_expanded how;
    int err = claw_conf_expand(r->x, raw, &n->text, &how, why, sizeof why);
    if (err == CLAW_EREQ_MEM) {
        die_memory(r, ev->start_mark);
        return NULL;
    }
    if (err && err != CLAW_EAGAIN) claw_conf_report_add(r->report, n->line, n->column, "%s", why);
    leaf->whole = how.whole;
    leaf->elsewhere = how.elsewhere;
    leaf->made_up = how.elsewhere && r->x->keeper->offline;
    leaf->broken |= err != 0;
    leaf->expanded = n->text.ptr != raw.ptr;
    n->type = CLAW_CONF_STRING;
    if (!leaf->quoted && !leaf->expanded && !leaf->broken) claw_conf_tree_resolve(n);
    return n;
}

static struct claw_conf_node *build_list(struct reader *r, const yaml_event_t *start, size_t depth)
{
    struct claw_conf_node *n = node_new(r, start->start_mark, depth);
    if (!n) return NULL;
    n->type = CLAW_CONF_LIST;
    n->text = CLAW_STR("");
    struct anchor *a = anchor_add(r, start->data.sequence_start.anchor, n, start->start_mark);
    size_t room = 0;
    yaml_event_t ev;
    while (next(r, &ev)) {
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        if (!end) {
            struct claw_conf_entry *e = entry_add(r, n, &room, ev.start_mark);
            size_t mark = claw_conf_report_enter_at(r->report, n->n);
            if (e && (e->value = build_value(r, &ev, depth + 1))) n->n++;
            if (!r->dead) claw_conf_report_leave(r->report, mark);
        }
        yaml_event_delete(&ev);
        if (end) break;
    }
    if (a) a->open = false;
    return r->dead ? NULL : n;
}

static void report_twice(void *arg, const struct claw_conf_name *first, const struct claw_conf_name *second)
{
    struct claw_conf_report *report = ((struct reader *)arg)->report;
    size_t mark = claw_conf_report_enter(report, second->text);
    claw_conf_report_add(report, second->line, second->column, "the key is given twice (first on line %u)",
                         first->line);
    claw_conf_report_leave(report, mark);
}

static void check_twice(struct reader *r, const struct claw_conf_node *map, yaml_mark_t at)
{
    if (map->n < 2) return;
    struct claw_conf_name *names = calloc(map->n, sizeof *names);
    if (!names) {
        die_memory(r, at);
        return;
    }
    for (size_t i = 0; i < map->n; i++) {
        const struct claw_conf_entry *e = &map->entries[i];
        names[i] = (struct claw_conf_name){e->key, e->line, e->column, i};
    }
    claw_conf_names_twice(names, map->n, report_twice, r);
    free(names);
}

/* A key's text. False: reported (and its value is to be skipped), or dead. */
static bool build_key(struct reader *r, yaml_event_t *ev, size_t depth, struct claw_str *out)
{
    *out = CLAW_STR("");
    if (ev->type != YAML_SCALAR_EVENT) {
        claw_conf_report_add(r->report, line_of(ev->start_mark), column_of(ev->start_mark),
                             "a key must be a plain word, not a list, a map or an alias");
        if (ev->type != YAML_ALIAS_EVENT) build_value(r, ev, depth + 1);
        return false;
    }
    struct claw_str text = {(const char *)ev->data.scalar.value, ev->data.scalar.length};
    if (claw_str_eqz(text, "<<") && ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
        claw_conf_report_add(r->report, line_of(ev->start_mark), column_of(ev->start_mark),
                             "merge keys (<<) are not supported: write the keys out");
        return false;
    }
    out->ptr = claw_arena_dup(r->x->arena, text.ptr, text.len);
    out->len = text.len;
    if (!out->ptr) die_memory(r, ev->start_mark);
    return !r->dead;
}

/* One key and its value. `key` is the key's event. */
static void build_entry(struct reader *r, struct claw_conf_node *map, size_t *room, yaml_event_t *key, size_t depth)
{
    struct claw_str text;
    yaml_mark_t at = key->start_mark;
    bool keep = build_key(r, key, depth, &text);
    yaml_event_t ev;
    if (!next(r, &ev)) return;
    struct claw_conf_entry *e = keep ? entry_add(r, map, room, at) : NULL;
    size_t mark = claw_conf_report_enter(r->report, keep ? text : CLAW_STR("<<"));
    struct claw_conf_node *value = build_value(r, &ev, depth + 1);
    if (!r->dead) claw_conf_report_leave(r->report, mark);
    yaml_event_delete(&ev);
    if (!e || !value) return;
    e->key = text;
    e->value = value;
    map->n++;
}

static struct claw_conf_node *build_map(struct reader *r, const yaml_event_t *start, size_t depth)
{
    struct claw_conf_node *n = node_new(r, start->start_mark, depth);
    if (!n) return NULL;
    n->type = CLAW_CONF_MAP;
    n->text = CLAW_STR("");
    struct anchor *a = anchor_add(r, start->data.mapping_start.anchor, n, start->start_mark);
    size_t room = 0;
    yaml_event_t ev;
    while (next(r, &ev)) {
        bool end = ev.type == YAML_MAPPING_END_EVENT;
        if (!end) build_entry(r, n, &room, &ev, depth);
        yaml_event_delete(&ev);
        if (end) break;
    }
    if (a) a->open = false;
    if (!r->dead) check_twice(r, n, start->start_mark);
    return r->dead ? NULL : n;
}

/* Texts and keys are shared, they never change; nodes are copied, because the schema marks and converts them. */
static struct claw_conf_node *copy(struct reader *r, const struct claw_conf_node *from, yaml_mark_t at, size_t depth)
{
    struct claw_conf_node *n = node_new(r, at, depth);
    if (!n) return NULL;
    *claw_conf_leaf_of(n) = *claw_conf_leaf_of(from);
    n->entries = NULL;
    n->n = 0;
    if (!from->n) return n;
    n->entries = claw_arena_zalloc(r->x->arena, from->n * sizeof *n->entries);
    if (!n->entries) {
        die_memory(r, at);
        return NULL;
    }
    for (; n->n < from->n; n->n++) {
        n->entries[n->n] = from->entries[n->n];
        n->entries[n->n].value = copy(r, from->entries[n->n].value, at, depth + 1);
        if (!n->entries[n->n].value) return NULL;
    }
    return n;
}

static struct claw_conf_node *build_alias(struct reader *r, const yaml_event_t *ev, size_t depth)
{
    const char *name = (const char *)ev->data.alias.anchor;
    const struct anchor *a = r->anchors;
    while (a && strcmp(a->name, name) != 0) a = a->next;
    if (a && !a->open) return copy(r, a->node, ev->start_mark, depth);
    struct claw_conf_node *n = node_new(r, ev->start_mark, depth);
    if (!n) return NULL;
    n->text = CLAW_STR("");
    claw_conf_leaf_of(n)->broken = true;
    if (a) claw_conf_report_add(r->report, n->line, n->column, "the alias *%.80s refers to itself", name);
    else claw_conf_report_add(r->report, n->line, n->column, "there is no anchor &%.80s before this alias", name);
    return n;
}

static struct claw_conf_node *build_value(struct reader *r, yaml_event_t *ev, size_t depth)
{
    bool string;
    struct claw_conf_node *n;
    struct anchor *a;
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        n = build_scalar(r, ev, depth);
        a = n ? anchor_add(r, ev->data.scalar.anchor, n, ev->start_mark) : NULL;
        if (a) a->open = false;
        return r->dead ? NULL : n;
    case YAML_SEQUENCE_START_EVENT:
        if (!tag_known(ev->data.sequence_start.tag, &string)) tag_refuse(r, ev, ev->data.sequence_start.tag);
        return build_list(r, ev, depth);
    case YAML_MAPPING_START_EVENT:
        if (!tag_known(ev->data.mapping_start.tag, &string)) tag_refuse(r, ev, ev->data.mapping_start.tag);
        return build_map(r, ev, depth);
    case YAML_ALIAS_EVENT:
        return build_alias(r, ev, depth);
    default:
        DIE(r, ev->start_mark, "a value was expected here");
        return NULL;
    }
}

/* STREAM-START, DOCUMENT-START, the value, DOCUMENT-END, STREAM-END. */
static struct claw_conf_node *read_stream(struct reader *r)
{
    static const yaml_mark_t top = {0, 0, 0};
    struct claw_conf_node *root = NULL;
    yaml_event_t ev;
    while (next(r, &ev)) {
        bool end = ev.type == YAML_STREAM_END_EVENT;
        if (ev.type == YAML_DOCUMENT_START_EVENT && root)
            DIE(r, ev.start_mark, "a second document begins here: one file is one document");
        else if (ev.type == YAML_SCALAR_EVENT || ev.type == YAML_SEQUENCE_START_EVENT ||
                 ev.type == YAML_MAPPING_START_EVENT || ev.type == YAML_ALIAS_EVENT)
            root = build_value(r, &ev, 1);
        yaml_event_delete(&ev);
        if (end) break;
    }
    if (r->dead) return NULL;
    if (!root || root->type == CLAW_CONF_NULL) {
        DIE(r, top, "no configuration");
        return NULL;
    }
    return root;
}

struct claw_conf_node *claw_conf_tree_read(struct claw_str yaml, const struct claw_conf_expand *x,
                                           struct claw_conf_report *report)
{
    struct reader r = {.yaml = yaml, .x = x, .report = report};
    static const yaml_mark_t top = {0, 0, 0};
    if (yaml.len > CLAW_CONF_BYTES) {
        DIE(&r, top, "the file is larger than %u MB", CLAW_CONF_BYTES >> 20);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        die_memory(&r, top);
        return NULL;
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)yaml.ptr, yaml.len);
    struct claw_conf_node *root = read_stream(&r);
    yaml_parser_delete(&r.parser);
    claw_conf_report_leave(report, 0);
    return root;
}
