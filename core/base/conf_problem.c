#include "base/conf_problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORD_MAX 48

void claw_conf_problems_init(struct claw_conf_problems *p, struct claw_arena *a)
{
    *p = (struct claw_conf_problems){.arena = a};
    p->last = &p->first;
}

/* Behind every problem that does not stand further down in the file: each pass finds in its own order, the
 * reader wants the file's. */
static void insert(struct claw_conf_problems *p, struct claw_conf_problem *new)
{
    struct claw_conf_problem **at = &p->first;
    while (*at && ((*at)->line < new->line || ((*at)->line == new->line && (*at)->column <= new->column)))
        at = &(*at)->next;
    new->next = *at;
    *at = new;
    if (!new->next) p->last = &new->next;
    p->n++;
}

static void add_line(struct claw_conf_problems *p, const char *file, unsigned line, unsigned column,
                     const char *path, const char *message)
{
    if (p->n >= CLAW_CONF_PROBLEMS) return;
    bool full = p->n == CLAW_CONF_PROBLEMS - 1;
    if (full) {
        path = "";
        message = "too many problems: the rest is not shown";
    }
    size_t size = strlen(file) + strlen(path) + strlen(message) + 32;
    struct claw_conf_problem *new = claw_arena_zalloc(p->arena, sizeof *new);
    char *text = new ? claw_arena_alloc(p->arena, size) : NULL;
    if (!text) return;
    snprintf(text, size, "%s:%u:%u: %s%s%s", file, line, column, path, *path ? ": " : "", message);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    *new = (struct claw_conf_problem){.line = line, .column = column, .text = text};
    if (full) new->line = new->column = -1u; /* stays the last */
    insert(p, new);
}

/* With the known secrets taken out of the message: a policy may quote any value. */
static void add_redacted(struct claw_conf_problems *p, const char *file, unsigned line, unsigned column,
                         const char *path, const char *message)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    if (claw_buf_add_z(&b, message) == 0) {
        claw_log_redact(&b);
        if (claw_buf_add(&b, "", 1) == 0) add_line(p, file, line, column, path, claw_buf_str(&b).ptr);
    }
    claw_buf_fini(&b);
}

/* Does `path` begin with `key` as a whole step? Gives what follows. */
static bool step_key(const char *path, struct claw_str key, const char **rest)
{
    if (strncmp(path, key.ptr, key.len) != 0 || memchr(key.ptr, 0, key.len)) return false;
    const char *c = path + key.len;
    if (*c && *c != '.' && *c != '[') return false;
    *rest = *c == '.' ? c + 1 : c;
    return true;
}

static bool step_index(const char *path, size_t n, size_t *i, const char **rest)
{
    if (*path != '[') return false;
    const char *c = path + 1;
    size_t v = 0;
    while (*c >= '0' && *c <= '9' && v < n) v = v * 10 + (size_t)(*c++ - '0');
    if (*c != ']' || c == path + 1 || v >= n) return false;
    c++;
    *i = v;
    *rest = *c == '.' ? c + 1 : c;
    return true;
}

struct place {
    const char *end; /* as far as the path was found */
    unsigned line, column;
};

/* Keys may hold dots ("gpt-3.5"), so each entry that begins the path is tried; depth is bounded by the tree's. */
static const struct claw_conf_node *find(const struct claw_conf_node *n, const char *path, struct place *near)
{
    if (!*path) return n;
    for (size_t i = 0; i < n->n; i++) {
        const struct claw_conf_entry *e = &n->entries[i];
        const char *rest;
        if (n->type == CLAW_CONF_LIST) {
            if (!step_index(path, n->n, &i, &rest)) return NULL;
            e = &n->entries[i];
        } else if (!step_key(path, e->key, &rest)) {
            continue;
        }
        if (rest > near->end) {
            /* A scalar is pointed at itself, a container at its key: its own place is its first key's. */
            bool scalar = e->value->type != CLAW_CONF_MAP && e->value->type != CLAW_CONF_LIST;
            near->end = rest;
            near->line = scalar ? e->value->line : e->line;
            near->column = scalar ? e->value->column : e->column;
        }
        const struct claw_conf_node *hit = find(e->value, rest, near);
        if (hit || n->type == CLAW_CONF_LIST) return hit;
    }
    return NULL;
}

const struct claw_conf_node *claw_conf_at(const struct claw_conf *c, const char *path)
{
    struct place near = {.end = path};
    return c->root ? find(c->root, path, &near) : NULL;
}

void claw_conf_problem_add(struct claw_conf_problems *p, const struct claw_conf *conf, const char *path,
                           const char *fmt, ...)
{
    char message[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    struct place near = {.end = path, .line = 1, .column = 1};
    if (conf->root) find(conf->root, path, &near);
    add_redacted(p, conf->path, near.line, near.column, path, message);
}

/* ---- reports ---------------------------------------------------------------------------------------------- */

void claw_conf_report_init(struct claw_conf_report *r, const char *file, struct claw_conf_problems *to)
{
    *r = (struct claw_conf_report){.file = file, .to = to};
}

static void append(struct claw_conf_report *r, const char *p, size_t n)
{
    size_t room = sizeof r->path - 1 - r->path_len;
    if (n > room) n = room;
    for (size_t i = 0; i < n; i++) r->path[r->path_len + i] = p[i] ? p[i] : '?';
    r->path_len += n;
    r->path[r->path_len] = 0;
}

size_t claw_conf_report_enter(struct claw_conf_report *r, struct claw_str key)
{
    size_t mark = r->path_len;
    if (mark) append(r, ".", 1);
    append(r, key.ptr, key.len < 128 ? key.len : 128);
    return mark;
}

size_t claw_conf_report_enter_at(struct claw_conf_report *r, size_t i)
{
    size_t mark = r->path_len;
    char text[32];
    int n = snprintf(text, sizeof text, "[%zu]", i);
    append(r, text, (size_t)n);
    return mark;
}

void claw_conf_report_leave(struct claw_conf_report *r, size_t mark)
{
    r->path_len = mark;
    r->path[mark] = 0;
}

void claw_conf_report_add(struct claw_conf_report *r, unsigned line, unsigned column, const char *fmt, ...)
{
    char message[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    r->n++;
    add_line(r->to, r->file, line, column, r->path, message);
}

/* ---- did you mean ----------------------------------------------------------------------------------------- */

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Optimal string alignment distance; both at most WORD_MAX long. */
static size_t distance(struct claw_str a, struct claw_str b)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b.len; j++) last[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            char x = lower(a.ptr[i - 1]), y = lower(b.ptr[j - 1]);
            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == lower(b.ptr[j - 2]) && y == lower(a.ptr[i - 2]) &&
                before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b.len];
}

void claw_conf_guess_init(struct claw_conf_guess *g, struct claw_str asked)
{
    *g = (struct claw_conf_guess){.asked = asked, .distance = (size_t)-1};
}

void claw_conf_guess_try(struct claw_conf_guess *g, struct claw_str word)
{
    if (g->asked.len > WORD_MAX || word.len > WORD_MAX || !word.len) return;
    size_t d = distance(g->asked, word);
    size_t near = g->asked.len < 3 ? 1 : g->asked.len < 6 ? 2 : 3;
    /* A word of which nothing but a letter stays is no guess. */
    if (d > near || d * 2 > word.len || d >= g->distance) return;
    g->distance = d;
    g->best = word;
}

const char *claw_conf_guess_text(struct claw_conf_guess *g)
{
    if (g->distance == (size_t)-1) return "";
    snprintf(g->text, sizeof g->text, " (did you mean \"%.*s\"?)", CLAW_STR_FMT(g->best));
    return g->text;
}
