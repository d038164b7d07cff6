#include "base/conf_tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_one_of(struct claw_str s, const char *const *words)
{
    for (; *words; words++)
        if (claw_str_eqz(s, *words)) return true;
    return false;
}

static size_t digits(const char *p, const char *end, int base)
{
    const char *at = p;
    for (; at < end; at++) {
        char c = *at;
        bool ok = base == 16 ? (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')
                             : c >= '0' && c < '0' + base;
        if (!ok) break;
    }
    return (size_t)(at - p);
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_decimal(struct claw_str s)
{
    const char *p = s.ptr, *end = s.ptr + s.len;
    if (p < end && (*p == '-' || *p == '+')) p++;
    size_t whole = digits(p, end, 10), part = 0;
    p += whole;
    if (p < end && *p == '.') {
        p++;
        part = digits(p, end, 10);
        p += part;
    }
    if (!whole && !part) return false;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '-' || *p == '+')) p++;
        size_t n = digits(p, end, 10);
        if (!n) return false;
        p += n;
    }
    return p == end;
}

static bool number_of(struct claw_str s, double *out)
{
    static const char *const infinite[] = {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", NULL};
    static const char *const below[] = {"-.inf", "-.Inf", "-.INF", NULL};
    static const char *const nans[] = {".nan", ".NaN", ".NAN", NULL};
    int base = 0;
    if (s.len > 2 && s.ptr[0] == '0' && s.ptr[1] == 'x') base = 16;
    if (s.len > 2 && s.ptr[0] == '0' && s.ptr[1] == 'o') base = 8;
    if (base) {
        if (digits(s.ptr + 2, s.ptr + s.len, base) != s.len - 2) return false;
        *out = (double)strtoull(s.ptr + 2, NULL, base);
        return true;
    }
    if (is_decimal(s)) {
        *out = strtod(s.ptr, NULL); /* a NUL stands behind every scalar */
        return true;
    }
    if (is_one_of(s, infinite)) return *out = (double)INFINITY, true;
    if (is_one_of(s, below)) return *out = -(double)INFINITY, true;
    if (is_one_of(s, nans)) return *out = (double)NAN, true;
    return false;
}

void claw_conf_tree_resolve(struct claw_conf_node *n)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", NULL};
    static const char *const no[] = {"false", "False", "FALSE", NULL};
    n->type = CLAW_CONF_STRING;
    if (is_one_of(n->text, nulls)) {
        n->type = CLAW_CONF_NULL;
    } else if (is_one_of(n->text, yes) || is_one_of(n->text, no)) {
        n->type = CLAW_CONF_BOOL;
        n->truth = is_one_of(n->text, yes);
    } else if (number_of(n->text, &n->number)) {
        n->type = CLAW_CONF_NUMBER;
    }
}

static uint64_t hash_bytes(struct claw_str s, uint64_t h)
{
    uint64_t len = s.len;
    h = claw_str_hash((struct claw_str){(const char *)&len, sizeof len}, h);
    return s.len ? claw_str_hash(s, h) : h;
}

static uint64_t hash_from(const struct claw_conf_node *n, uint64_t h)
{
    char type = (char)n->type;
    uint64_t count = n->n;
    h = claw_str_hash((struct claw_str){&type, 1}, h);
    h = hash_bytes(n->text, h);
    h = claw_str_hash((struct claw_str){(const char *)&count, sizeof count}, h);
    for (size_t i = 0; i < n->n; i++) {
        h = hash_bytes(n->entries[i].key, h);
        h = hash_from(n->entries[i].value, h);
    }
    return h;
}

uint64_t claw_conf_tree_hash(const struct claw_conf_node *n) { return hash_from(n, 0); }

static int by_text(const void *a, const void *b)
{
    const struct claw_conf_name *x = a, *y = b;
    size_t n = x->text.len < y->text.len ? x->text.len : y->text.len;
    int d = n ? memcmp(x->text.ptr, y->text.ptr, n) : 0;
    if (d) return d;
    if (x->text.len != y->text.len) return x->text.len < y->text.len ? -1 : 1;
    return x->i < y->i ? -1 : x->i > y->i;
}

void claw_conf_names_twice(struct claw_conf_name *names, size_t n,
                           void (*twice)(void *arg, const struct claw_conf_name *first,
                                         const struct claw_conf_name *second), void *arg)
{
    qsort(names, n, sizeof *names, by_text);
    size_t first = 0;
    for (size_t i = 1; i < n; i++) {
        if (claw_str_eq(names[first].text, names[i].text)) twice(arg, &names[first], &names[i]);
        else first = i;
    }
}
