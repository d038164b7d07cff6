#include "base/conf_schema.h"

#include <stdio.h>
#include <string.h>

#define GROUPS_MAX 64

/* Every group once, in the order in which the file's sections lead to them. */
struct groups {
    const struct claw_conf_group *list[GROUPS_MAX];
    size_t n;
};

static void gather(struct groups *g, const struct claw_conf_group *group)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->list[i] == group) return;
    CLAW_ASSERT(g->n < GROUPS_MAX);
    g->list[g->n++] = group;
    for (const struct claw_conf_rule *r = group->rules; r->key; r++) {
        if (r->group) gather(g, r->group);
        if (r->each && r->each->group) gather(g, r->each->group);
    }
}

/* ---- JSON Schema ------------------------------------------------------------------------------------------ */

/* A writer that stops at the first failure: the schema has hundreds of small pieces. */
struct out {
    struct claw_buf *b;
    int err;
};

static void put(struct out *o, const char *z)
{
    if (!o->err) o->err = claw_buf_add_z(o->b, z);
}
static void put_json(struct out *o, const char *z)
{
    if (!o->err) o->err = claw_buf_add_json(o->b, claw_str_of(z));
}
static void put_number(struct out *o, const char *key, double v)
{
    if (!o->err) o->err = claw_buf_add_fmt(o->b, ",\"%s\":%.15g", key, v);
}

static void put_words(struct out *o, const char *words)
{
    struct claw_str word;
    const char *separator = "";
    put(o, ",\"anyOf\":[");
    for (const char *at = words; claw_conf_word_next(&at, &word); separator = ",") {
        bool glob = memchr(word.ptr, '*', word.len);
        if (glob) word.len--; /* globs here end in `*` */
        if (!o->err)
            o->err = claw_buf_add_fmt(o->b, glob ? "%s{\"pattern\":\"^%.*s\"}" : "%s{\"const\":\"%.*s\"}", separator,
                                      CLAW_STR_FMT(word));
    }
    put(o, ",{\"$ref\":\"#/$defs/expression\"}]");
}

static void put_ref(struct out *o, const struct claw_conf_group *g, const char *need)
{
    put(o, "{\"$ref\":\"#/$defs/");
    put(o, g->name);
    put(o, "\"");
    if (need) {
        put(o, ",\"required\":[");
        put_json(o, need);
        put(o, "]");
    }
    put(o, "}");
}

static void put_number_schema(struct out *o, const struct claw_conf_rule *r)
{
    put(o, r->is & CLAW_CONF_IS_NUMBER ? "{\"type\":\"number\"" : "{\"type\":\"integer\"");
    if (r->min != 0 || r->max != 0) {
        put_number(o, r->flags & CLAW_CONF_ABOVE_MIN ? "exclusiveMinimum" : "minimum", r->min);
        put_number(o, "maximum", r->max);
    }
    put(o, "}");
}

static void put_alternatives(struct out *o, const struct claw_conf_rule *r)
{
    const char *separator = "";
#define NEXT (put(o, separator), separator = ",")
    if (r->is & CLAW_CONF_IS_BOOL) NEXT, put(o, "{\"type\":\"boolean\"}");
    if (r->is & (CLAW_CONF_IS_NUMBER | CLAW_CONF_IS_INT)) {
        NEXT;
        put_number_schema(o, r);
        if (r->is & CLAW_CONF_IS_STRING && !r->words) NEXT, put(o, "{\"type\":\"number\"}");
    }
    if (r->is & CLAW_CONF_IS_STRING) {
        NEXT;
        put(o, "{\"type\":[\"string\",\"number\"]");
        if (r->words) put_words(o, r->words);
        put(o, "}");
    } else if (r->is & (CLAW_CONF_IS_BOOL | CLAW_CONF_IS_NUMBER | CLAW_CONF_IS_INT)) {
        NEXT;
        put(o, "{\"$ref\":\"#/$defs/expression\"}");
    }
    if (r->is & CLAW_CONF_IS_MAP) NEXT, put_ref(o, r->group, r->need);
    if (r->is & CLAW_CONF_IS_MATCH) NEXT, put(o, "{\"$ref\":\"#/$defs/value\"}");
    if (r->is & CLAW_CONF_IS_LIST) {
        NEXT;
        put(o, "{\"type\":\"array\",\"items\":{\"anyOf\":[");
        put_alternatives(o, r->each);
        put(o, r->flags & CLAW_CONF_NOT_EMPTY ? "]},\"minItems\":1}" : "]}}");
    }
#undef NEXT
}

static void put_default(struct out *o, const struct claw_conf_rule *r)
{
    const char *d = r->fallback;
    if (!d || d[0] == '(' || d[0] == '[') return;
    put(o, ",\"default\":");
    if (r->is & (CLAW_CONF_IS_BOOL | CLAW_CONF_IS_NUMBER | CLAW_CONF_IS_INT)) put(o, d);
    else put_json(o, d);
}

static void put_rule(struct out *o, const struct claw_conf_rule *r)
{
    put(o, "{\"description\":");
    put_json(o, r->doc ? r->doc : "");
    put_default(o, r);
    if (r->is & CLAW_CONF_IS_ANY) {
        put(o, "}");
        return;
    }
    put(o, ",\"anyOf\":[");
    put_alternatives(o, r);
    if (!(r->flags & CLAW_CONF_REQUIRED)) put(o, ",{\"type\":\"null\"}");
    put(o, "]}");
}

static void put_group(struct out *o, const struct claw_conf_group *g)
{
    const struct claw_conf_rule *any = NULL;
    const char *separator = "";
    put(o, "\"type\":\"object\",\"description\":");
    put_json(o, g->doc);
    put(o, ",\"properties\":{");
    for (const struct claw_conf_rule *r = g->rules; r->key; r++) {
        if (strcmp(r->key, "*") == 0) {
            any = r;
            continue;
        }
        put(o, separator);
        put_json(o, r->key);
        put(o, ":");
        put_rule(o, r);
        separator = ",";
    }
    put(o, "},\"required\":[");
    separator = "";
    for (const struct claw_conf_rule *r = g->rules; r->key; r++) {
        if (!(r->flags & CLAW_CONF_REQUIRED)) continue;
        put(o, separator);
        put_json(o, r->key);
        separator = ",";
    }
    put(o, "],\"additionalProperties\":");
    if (any) put_rule(o, any);
    else put(o, "false");
}

static void put_value_defs(struct out *o)
{
    struct claw_str word;
    const char *separator = "";
    put(o, "\"expression\":{\"type\":\"string\",\"pattern\":\"\\\\$\\\\{\"},"
           "\"scalar\":{\"type\":[\"string\",\"number\",\"boolean\",\"null\"]},"
           "\"value\":{\"anyOf\":[{\"$ref\":\"#/$defs/scalar\"},"
           "{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#/$defs/scalar\"}},"
           "{\"type\":\"object\",\"minProperties\":1,\"additionalProperties\":false,\"properties\":{");
    for (const char *at = claw_conf_operators; claw_conf_word_next(&at, &word); separator = ",") {
        const char *sub = claw_str_eqz(word, "not") ? "{\"$ref\":\"#/$defs/value\"}" : "true";
        if (!o->err) o->err = claw_buf_add_fmt(o->b, "%s\"%.*s\":%s", separator, CLAW_STR_FMT(word), sub);
    }
    put(o, "}}]}");
}

int claw_conf_schema_write(struct claw_buf *b)
{
    struct out o = {b, 0};
    struct groups g = {.n = 0};
    gather(&g, claw_conf_schema_root());
    put(&o, "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"title\":\"openclaw.yaml\",");
    put_group(&o, g.list[0]);
    put(&o, ",\"$defs\":{");
    put_value_defs(&o);
    for (size_t i = 1; i < g.n; i++) {
        put(&o, ",");
        put_json(&o, g.list[i]->name);
        put(&o, ":{");
        put_group(&o, g.list[i]);
        put(&o, "}");
    }
    put(&o, "}}\n");
    return o.err;
}

/* ---- reference -------------------------------------------------------------------------------------------- */

static void put_link(struct out *o, const struct claw_conf_group *g)
{
    if (!o->err) o->err = claw_buf_add_fmt(o->b, "[%s](#%s)", g->name, g->name);
}

static void put_type(struct out *o, const struct claw_conf_rule *r)
{
    const char *separator = "";
    static const struct { unsigned is; const char *text; } names[] = {
        {CLAW_CONF_IS_BOOL, "boolean"}, {CLAW_CONF_IS_INT, "whole number"}, {CLAW_CONF_IS_NUMBER, "number"},
        {CLAW_CONF_IS_STRING, "string"}, {CLAW_CONF_IS_MATCH, "match value"}, {CLAW_CONF_IS_ANY, "anything"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!(r->is & names[i].is)) continue;
        put(o, separator);
        put(o, names[i].text);
        separator = " or ";
    }
    if (r->is & CLAW_CONF_IS_MAP) {
        put(o, separator);
        put(o, "map ");
        put_link(o, r->group);
        separator = " or ";
    }
    if (r->is & CLAW_CONF_IS_LIST) {
        put(o, separator);
        put(o, "list of ");
        put_type(o, r->each);
    }
    if (r->unit) {
        put(o, ", ");
        put(o, r->unit);
    }
}

static void put_bounds(struct out *o, const struct claw_conf_rule *r)
{
    if (r->min != 0 || r->max != 0) {
        const char *form = r->flags & CLAW_CONF_ABOVE_MIN ? "above %.15g, to %.15g" : "%.15g to %.15g";
        char text[64];
        snprintf(text, sizeof text, form, r->min, r->max);
        put(o, text);
    }
    const char *words = r->words ? r->words : r->each ? r->each->words : NULL;
    struct claw_str word;
    if (!words) return;
    if (r->min != 0 || r->max != 0) put(o, "; ");
    for (const char *at = words; claw_conf_word_next(&at, &word);)
        if (!o->err) o->err = claw_buf_add_fmt(o->b, "`%.*s` ", CLAW_STR_FMT(word));
}

static void put_row(struct out *o, const struct claw_conf_rule *r)
{
    const char *d = r->fallback;
    put(o, "| ");
    put(o, strcmp(r->key, "*") == 0 ? "any name" : "`");
    if (strcmp(r->key, "*") != 0) put(o, r->key), put(o, "`");
    put(o, " | ");
    put_type(o, r);
    put(o, " | ");
    if (r->flags & CLAW_CONF_REQUIRED) put(o, "required");
    else if (d && !*d) put(o, "`\"\"`");
    else if (d && *d == '(') put(o, d);
    else if (d) put(o, "`"), put(o, d), put(o, "`");
    put(o, " | ");
    put_bounds(o, r);
    put(o, " | ");
    put(o, r->doc ? r->doc : "");
    if (r->flags & CLAW_CONF_SECRET) put(o, " Kept secret.");
    put(o, " |\n");
}

int claw_conf_reference_write(struct claw_buf *b)
{
    struct out o = {b, 0};
    struct groups g = {.n = 0};
    gather(&g, claw_conf_schema_root());
    put(&o, "# openclaw.yaml\n\n"
            "In any value: `${VAR}`, `${VAR:-default}`, `${file:/path}`, `${vault:path#field}`, `${aws-sm:name#field}` (see "
            "[secrets](#secrets)) and `$$` for a dollar. "
            "A key that is not here is an error.\n");
    for (size_t i = 0; i < g.n; i++) {
        put(&o, "\n## ");
        put(&o, g.list[i]->name);
        put(&o, "\n");
        put(&o, g.list[i]->doc);
        put(&o, "\n\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n");
        for (const struct claw_conf_rule *r = g.list[i]->rules; r->key; r++) put_row(&o, r);
    }
    return o.err;
}
