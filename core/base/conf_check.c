#include "base/conf_schema.h"
#include "base/conf_tree.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_container(const struct claw_conf_node *n)
{
    return n->type == CLAW_CONF_MAP || n->type == CLAW_CONF_LIST;
}

/* A scalar is pointed at itself, a container at its key. */
static unsigned line_of(const struct claw_conf_entry *e) { return is_container(e->value) ? e->line : e->value->line; }
static unsigned column_of(const struct claw_conf_entry *e)
{
    return is_container(e->value) ? e->column : e->value->column;
}

#define PROBLEM(r, e, ...) claw_conf_report_add(r, line_of(e), column_of(e), __VA_ARGS__)

static void mark_secret(struct claw_conf_node *n)
{
    n->secret = !is_container(n);
    for (size_t i = 0; i < n->n; i++) mark_secret(n->entries[i].value);
}

/* ---- types ------------------------------------------------------------------------------------------------ */

static const char *type_text(const struct claw_conf_node *n)
{
    static const char *const texts[] = {
        [CLAW_CONF_NULL] = "empty",     [CLAW_CONF_BOOL] = "a boolean", [CLAW_CONF_NUMBER] = "a number",
        [CLAW_CONF_STRING] = "a string", [CLAW_CONF_LIST] = "a list",    [CLAW_CONF_MAP] = "a map",
    };
    return texts[n->type];
}

static void wanted_text(unsigned is, char *out, size_t size)
{
    static const struct { unsigned is; const char *text; } names[] = {
        {CLAW_CONF_IS_BOOL, "true or false"}, {CLAW_CONF_IS_INT, "a whole number"}, {CLAW_CONF_IS_NUMBER, "a number"},
        {CLAW_CONF_IS_STRING, "a string"},    {CLAW_CONF_IS_LIST, "a list"},        {CLAW_CONF_IS_MAP, "a map"},
    };
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is & names[i].is && len < size)
            len += (size_t)snprintf(out + len, size - len, "%s%s", len ? " or " : "", names[i].text);
}

static void wrong_type(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e)
{
    const struct claw_conf_node *n = e->value;
    char wanted[128];
    const char *hint = "";
    wanted_text(rule->is, wanted, sizeof wanted);
    if (n->type == CLAW_CONF_STRING && rule->is & CLAW_CONF_IS_BOOL) {
        static const char *const words[] = {"yes", "no", "on", "off", "y", "n"};
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            if (claw_str_ieq(n->text, claw_str_of(words[i]))) hint = " (yes, no, on and off are strings in YAML 1.2)";
    }
    struct claw_conf_node plain = *n;
    if (n->type == CLAW_CONF_STRING && claw_conf_leaf_of(n)->quoted) {
        claw_conf_tree_resolve(&plain);
        if ((plain.type == CLAW_CONF_NUMBER && rule->is & (CLAW_CONF_IS_NUMBER | CLAW_CONF_IS_INT)) ||
            (plain.type == CLAW_CONF_BOOL && rule->is & CLAW_CONF_IS_BOOL))
            hint = " (take the quotes off)";
    }
    if (!is_container(n) && rule->is == CLAW_CONF_IS_LIST) hint = " (put [ ] around it)";
    PROBLEM(r, e, "must be %s, not %s%s", wanted, type_text(n), hint);
}

/* What was one expression takes the type that is wanted; a plain number may be a string. False: wrong type. */
static bool convert(const struct claw_conf_rule *rule, struct claw_conf_node *n)
{
    unsigned numeric = CLAW_CONF_IS_NUMBER | CLAW_CONF_IS_INT;
    if (n->type == CLAW_CONF_STRING && claw_conf_leaf_of(n)->whole) {
        struct claw_conf_node as = *n;
        claw_conf_tree_resolve(&as);
        if ((as.type == CLAW_CONF_NUMBER && rule->is & numeric) ||
            (as.type == CLAW_CONF_BOOL && rule->is & CLAW_CONF_IS_BOOL) ||
            (as.type == CLAW_CONF_NULL && !n->text.len && !(rule->is & CLAW_CONF_IS_STRING)))
            *n = as;
    }
    if (n->type == CLAW_CONF_NUMBER && !(rule->is & numeric) && rule->is & CLAW_CONF_IS_STRING)
        n->type = CLAW_CONF_STRING;
    switch (n->type) {
    case CLAW_CONF_NULL: return true;
    case CLAW_CONF_BOOL: return rule->is & CLAW_CONF_IS_BOOL;
    case CLAW_CONF_NUMBER: return rule->is & numeric;
    case CLAW_CONF_STRING: return rule->is & CLAW_CONF_IS_STRING;
    case CLAW_CONF_LIST: return rule->is & CLAW_CONF_IS_LIST;
    case CLAW_CONF_MAP: return rule->is & CLAW_CONF_IS_MAP;
    }
    return false;
}

/* ---- scalars ---------------------------------------------------------------------------------------------- */

static void check_number(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e)
{
    double v = e->value->number;
    bool whole = rule->is & CLAW_CONF_IS_INT && !(rule->is & CLAW_CONF_IS_NUMBER);
    const char *unit = rule->unit ? rule->unit : "";
    const char *space = *unit ? " " : "";
    if (!isfinite(v) || (whole && v != floor(v)))
        PROBLEM(r, e, "must be a %s", whole && isfinite(v) ? "whole number" : "finite number");
    else if (rule->flags & CLAW_CONF_ABOVE_MIN && v <= rule->min)
        PROBLEM(r, e, "must be greater than %.15g", rule->min);
    else if ((rule->min != 0 || rule->max != 0) && (v < rule->min || v > rule->max))
        PROBLEM(r, e, "must be between %.15g and %.15g%s%s", rule->min, rule->max, space, unit);
}

static void check_words(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e)
{
    const struct claw_conf_node *n = e->value;
    struct claw_conf_guess guess;
    struct claw_str word;
    claw_conf_guess_init(&guess, n->text);
    for (const char *at = rule->words; claw_conf_word_next(&at, &word);) {
        if (claw_str_glob(word, n->text)) return;
        if (!memchr(word.ptr, '*', word.len)) claw_conf_guess_try(&guess, word);
    }
    const char *text = claw_conf_guess_text(&guess);
    char known[512] = "";
    if (!*text) snprintf(known, sizeof known, " (known: %s)", rule->words);
    if (n->secret || claw_conf_leaf_of(n)->expanded)
        PROBLEM(r, e, "the value is not known%s%s", text, known);
    else
        PROBLEM(r, e, "\"%.*s\" is not known%s%s", (int)(n->text.len < 64 ? n->text.len : 64), n->text.ptr, text,
                known);
}

static bool has_control(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.ptr[i] < 0x20 && s.ptr[i] != '\t') || s.ptr[i] == 0x7f) return true;
    return false;
}

static bool is_name(struct claw_str s)
{
    return s.len && s.len <= 128 && !has_control(s) && !memchr(s.ptr, 0, s.len);
}

static bool is_address(struct claw_str s, int *bits)
{
    char z[64];
    unsigned char in[16];
    if (s.len >= sizeof z || !s.len || memchr(s.ptr, 0, s.len)) return false;
    memcpy(z, s.ptr, s.len);
    z[s.len] = 0;
    *bits = inet_pton(AF_INET, z, in) == 1 ? 32 : inet_pton(AF_INET6, z, in) == 1 ? 128 : 0;
    return *bits != 0;
}

static bool is_cidr(struct claw_str s)
{
    const char *slash = s.len ? memchr(s.ptr, '/', s.len) : NULL;
    struct claw_str address = {s.ptr, slash ? (size_t)(slash - s.ptr) : s.len};
    int bits;
    uint64_t prefix;
    if (!is_address(address, &bits)) return false;
    if (!slash) return true;
    struct claw_str digits = {slash + 1, s.len - address.len - 1};
    return claw_str_u64(digits, (uint64_t)bits, &prefix) == 0;
}

static bool is_hex256(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!memchr("0123456789abcdefABCDEF", s.ptr[i], 22)) return false;
    return s.len == 64;
}

/* Letters, digits, - _ and dots between them; digits and dots alone are an address that is none. */
static bool is_name_of_host(struct claw_str s)
{
    bool letter = false;
    if (!s.len || s.len > 253) return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool named = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
        letter |= named;
        if (!named && !(c >= '0' && c <= '9') && !(c == '.' && i > 0 && i + 1 < s.len && s.ptr[i - 1] != '.')) return false;
    }
    return letter;
}

static bool is_variable(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (i && c >= '0' && c <= '9'))) return false;
    }
    return s.len > 0;
}

/* What is wrong with a string in this format, or NULL. */
static const char *format_problem(const struct claw_conf_rule *rule, struct claw_str s)
{
    struct claw_conf_url url;
    const char *why;
    int bits;
    if (s.len && memchr(s.ptr, 0, s.len)) return "must not hold a NUL character";
    switch (rule->format) {
    case CLAW_CONF_NAME:
        return is_name(s) ? NULL : "must be 1 to 128 characters, none of them a control character";
    case CLAW_CONF_ADDRESS:
        return is_address(s, &bits) || claw_str_eqz(s, "localhost")
                   ? NULL : "must be an IP address such as 0.0.0.0, 127.0.0.1 or ::";
    case CLAW_CONF_CIDR:
        return is_cidr(s) ? NULL : "must be an IP address or a network such as 10.0.0.0/8 or 2001:db8::/32";
    case CLAW_CONF_PLACE:
        return is_cidr(s) || is_name_of_host(s) ? NULL : "must be an IP address, a network such as 10.0.0.0/8, or a host name";
    case CLAW_CONF_REDIS: {
        struct claw_conf_redis redis;
        return !s.len || claw_conf_redis_parse(s, &redis, &why) ? NULL : why;
    }
    case CLAW_CONF_VARIABLE:
        return is_variable(s) ? NULL : "must be the name of an environment variable: letters, digits and _";
    case CLAW_CONF_URL:
        if (!s.len) return rule->flags & CLAW_CONF_REQUIRED ? "must not be empty" : NULL;
        return claw_conf_url_parse(s, &url, &why) ? NULL : why;
    case CLAW_CONF_HEADER:
        return has_control(s) ? "must not hold line breaks or other control characters" : NULL;
    case CLAW_CONF_HEX256:
        return is_hex256(s) ? NULL : "must be 64 hexadecimal digits";
    case CLAW_CONF_FREE: break;
    }
    return NULL;
}

/* What stands for a secret that is not asked for is no URL. */
static void make_up(const struct claw_conf_rule *rule, struct claw_conf_node *n)
{
    if (!claw_conf_leaf_of(n)->made_up) return;
    if (rule->format == CLAW_CONF_URL) n->text = CLAW_STR("http://secret.invalid");
    if (rule->format == CLAW_CONF_REDIS) n->text = CLAW_STR("redis://secret.invalid");
}

static void check_string(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e)
{
    make_up(rule, e->value);
    struct claw_str s = e->value->text;
    const char *why = format_problem(rule, s);
    if (!why && !s.len && rule->flags & CLAW_CONF_NOT_EMPTY) why = "must not be empty";
    if (why) PROBLEM(r, e, "%s", why);
    else if (rule->words) check_words(r, rule, e);
}

/* ---- match values ----------------------------------------------------------------------------------------- */

static void check_match(struct claw_conf_report *r, const struct claw_conf_entry *e);

static void check_operator(struct claw_conf_report *r, const struct claw_conf_entry *e)
{
    struct claw_conf_guess guess;
    struct claw_str word;
    claw_conf_guess_init(&guess, e->key);
    for (const char *at = claw_conf_operators; claw_conf_word_next(&at, &word);) {
        if (claw_str_eq(word, e->key)) {
            if (claw_str_eqz(word, "not")) check_match(r, e);
            return;
        }
        claw_conf_guess_try(&guess, word);
    }
    const char *text = claw_conf_guess_text(&guess);
    if (*text) claw_conf_report_add(r, e->line, e->column, "unknown operator%s", text);
    else
        claw_conf_report_add(r, e->line, e->column,
                             "unknown operator (known: %s; fields inside fields are written \"a.b\")",
                             claw_conf_operators);
}

static void check_match(struct claw_conf_report *r, const struct claw_conf_entry *e)
{
    const struct claw_conf_node *n = e->value;
    if (is_container(n) && n->n == 0)
        PROBLEM(r, e, n->type == CLAW_CONF_LIST ? "an empty list matches nothing" : "an empty map names no operator");
    for (size_t i = 0; i < n->n; i++) {
        const struct claw_conf_entry *sub = &n->entries[i];
        bool list = n->type == CLAW_CONF_LIST;
        size_t mark = list ? claw_conf_report_enter_at(r, i) : claw_conf_report_enter(r, sub->key);
        if (!list) check_operator(r, sub);
        else if (is_container(sub->value)) PROBLEM(r, sub, "a list of values to match holds only scalars");
        claw_conf_report_leave(r, mark);
    }
}

/* ---- maps and lists --------------------------------------------------------------------------------------- */

static void check_value(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e);

static void unknown_key(struct claw_conf_report *r, const struct claw_conf_group *g, const struct claw_conf_entry *e)
{
    struct claw_conf_guess guess;
    claw_conf_guess_init(&guess, e->key);
    for (const struct claw_conf_rule *rule = g->rules; rule->key; rule++)
        claw_conf_guess_try(&guess, claw_str_of(rule->key));
    claw_conf_report_add(r, e->line, e->column, "unknown key%s", claw_conf_guess_text(&guess));
    r->unknown++;
}

static void check_required(struct claw_conf_report *r, const struct claw_conf_rule *rule,
                           const struct claw_conf_entry *e)
{
    for (const struct claw_conf_rule *sub = rule->group->rules; sub->key; sub++) {
        if (!(sub->flags & CLAW_CONF_REQUIRED) && !(rule->need && strcmp(rule->need, sub->key) == 0)) continue;
        const struct claw_conf_node *n = claw_conf_get(e->value, sub->key);
        if (n && (n->type != CLAW_CONF_NULL || claw_conf_leaf_of(n)->broken)) continue;
        size_t mark = claw_conf_report_enter(r, claw_str_of(sub->key));
        claw_conf_report_add(r, n ? n->line : e->line, n ? n->column : e->column, "required, but %s",
                             n ? "empty" : "not given");
        claw_conf_report_leave(r, mark);
    }
}

static void check_map(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e)
{
    for (size_t i = 0; i < e->value->n; i++) {
        const struct claw_conf_entry *sub = &e->value->entries[i];
        const struct claw_conf_rule *sub_rule = claw_conf_rule_of(rule->group, sub->key);
        size_t mark = claw_conf_report_enter(r, sub->key);
        if (!sub_rule) unknown_key(r, rule->group, sub);
        else if (strcmp(sub_rule->key, "*") == 0 && !is_name(sub->key))
            claw_conf_report_add(r, sub->line, sub->column,
                                 "a name must be 1 to 128 characters, none of them a control character");
        else if (strcmp(sub_rule->key, "*") == 0 && sub_rule->group && sub->value->type == CLAW_CONF_NULL &&
                 !claw_conf_leaf_of(sub->value)->broken)
            PROBLEM(r, sub, "empty; give it settings or leave it out");
        else check_value(r, sub_rule, sub);
        claw_conf_report_leave(r, mark);
    }
    check_required(r, rule, e);
}

static void check_list(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e)
{
    if (!e->value->n && rule->flags & CLAW_CONF_NOT_EMPTY) PROBLEM(r, e, "must not be empty");
    for (size_t i = 0; i < e->value->n; i++) {
        const struct claw_conf_entry *sub = &e->value->entries[i];
        size_t mark = claw_conf_report_enter_at(r, i);
        if (sub->value->type == CLAW_CONF_NULL && !claw_conf_leaf_of(sub->value)->broken)
            PROBLEM(r, sub, "an empty element");
        else check_value(r, rule->each, sub);
        claw_conf_report_leave(r, mark);
    }
}

static void check_value(struct claw_conf_report *r, const struct claw_conf_rule *rule, const struct claw_conf_entry *e)
{
    struct claw_conf_node *n = e->value;
    if (rule->flags & CLAW_CONF_SECRET && !is_container(n)) n->secret = true;
    if (rule->flags & CLAW_CONF_SECRET_BY_KEY && claw_conf_key_secret(e->key)) mark_secret(n);
    if (claw_conf_leaf_of(n)->broken || rule->is & CLAW_CONF_IS_ANY) return;
    if (rule->is & CLAW_CONF_IS_MATCH) {
        check_match(r, e);
        return;
    }
    if (!convert(rule, n)) {
        wrong_type(r, rule, e);
        return;
    }
    switch (n->type) {
    case CLAW_CONF_NULL: case CLAW_CONF_BOOL: break;
    case CLAW_CONF_NUMBER: check_number(r, rule, e); break;
    case CLAW_CONF_STRING: check_string(r, rule, e); break;
    case CLAW_CONF_LIST: check_list(r, rule, e); break;
    case CLAW_CONF_MAP: check_map(r, rule, e); break;
    }
}

void claw_conf_check(struct claw_conf_node *root, struct claw_conf_report *report)
{
    const struct claw_conf_rule file = {.key = "", .is = CLAW_CONF_IS_MAP, .group = claw_conf_schema_root()};
    const struct claw_conf_entry e = {CLAW_STR(""), 1, 1, root};
    if (root->type == CLAW_CONF_MAP) check_value(report, &file, &e);
    else if (!claw_conf_leaf_of(root)->broken)
        claw_conf_report_add(report, root->line, root->column,
                             "the file must be a map of sections such as server and upstreams");
}
