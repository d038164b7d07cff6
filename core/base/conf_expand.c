#include "base/conf_expand.h"

#include "base/conf_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEST_MAX 8 /* expressions within defaults */

struct expansion {
    const struct claw_conf_expand *x;
    struct claw_buf out;
    bool elsewhere, missing;
    char *why;
    size_t why_size;
};

#define REFUSE(e, ...) (snprintf((e)->why, (e)->why_size, __VA_ARGS__), CLAW_EINVAL)

static bool is_name(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && (i == 0 || c < '0' || c > '9')) return false;
    }
    return s.len > 0;
}

/* Where the `}` of the expression whose inside starts at `s` is, or -1. */
static ptrdiff_t closing(struct claw_str s)
{
    size_t open = 1;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '$' && i + 1 < s.len && (s.ptr[i + 1] == '$' || s.ptr[i + 1] == '{')) {
            open += s.ptr[i + 1] == '{';
            i++;
        } else if (s.ptr[i] == '}' && --open == 0) {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

static int read_all(int fd, struct claw_buf *out)
{
    size_t taken = 0;
    for (;;) {
        if (claw_buf_reserve(out, 4096) != 0) return CLAW_ENOMEM;
        ssize_t n = read(fd, out->data + out->len, 4096);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return CLAW_EIO;
        if (n == 0) break;
        out->len += (size_t)n;
        taken += (size_t)n;
        if (taken > CLAW_CONF_FILE_MAX) return CLAW_EBODY_TOO_LARGE;
    }
    if (taken && out->data[out->len - 1] == '\n') {
        out->len--;
        if (taken > 1 && out->data[out->len - 1] == '\r') out->len--;
    }
    return 0;
}

void claw_conf_note_file(const struct claw_conf_expand *x, const char *path)
{
    struct claw_conf *c = x->noted;
    if (!c) return;
    for (size_t i = 0; i < c->files_n; i++)
        if (strcmp(c->files[i], path) == 0) return;
    if (c->files_n == CLAW_CONF_FILES || !(c->files[c->files_n] = claw_arena_dup(x->arena, path, strlen(path)))) return;
    c->files_n++;
}

static int add_file(struct expansion *e, struct claw_str name)
{
    if (!name.len || memchr(name.ptr, 0, name.len))
        return REFUSE(e, "${file:} needs a path, as in ${file:/run/secrets/key}");
    char path[4096];
    int n = name.ptr[0] == '/' ? snprintf(path, sizeof path, "%.*s", CLAW_STR_FMT(name))
                               : snprintf(path, sizeof path, "%s/%.*s", e->x->dir, CLAW_STR_FMT(name));
    if (n < 0 || (size_t)n >= sizeof path) return REFUSE(e, "the path in ${file:} is too long");
    claw_conf_note_file(e->x, path);
    /* Not blocking, and regular files only: a pipe here would hold up a reload for ever. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return REFUSE(e, "cannot read the file %.*s: %s", CLAW_STR_FMT(name), strerror(errno));
    struct stat st;
    int err = 0;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        err = REFUSE(e, "%.*s is not a regular file", CLAW_STR_FMT(name));
    } else if ((err = read_all(fd, &e->out)) == CLAW_EIO) {
        err = REFUSE(e, "cannot read the file %.*s: %s", CLAW_STR_FMT(name), strerror(errno));
    } else if (err == CLAW_EBODY_TOO_LARGE) {
        err = REFUSE(e, "the file %.*s is larger than %u KB", CLAW_STR_FMT(name), CLAW_CONF_FILE_MAX / 1024);
    }
    close(fd);
    return err;
}

static int add_secret(struct expansion *e, struct claw_conf_secret ref, struct claw_str field)
{
    const struct claw_conf_keeper *k = e->x->keeper;
    const char *word = claw_conf_store_word(ref.store);
    struct claw_str value;
    if (!ref.name.len) return REFUSE(e, "${%s:} needs a name, as in ${%s:team/openai#api_key}", word, word);
    if (ref.store == CLAW_CONF_VAULT && !field.len)
        return REFUSE(e, "${vault:%.*s} needs a field, as in ${vault:%.*s#api_key}", CLAW_STR_FMT(ref.name), CLAW_STR_FMT(ref.name));
    if (!k || !e->x->noted) return REFUSE(e, "${%s:} is not possible here", word);
    if (!claw_conf_secret_note(&e->x->noted->secrets, ref)) return REFUSE(e, "more than %u secrets from elsewhere", CLAW_CONF_SECRETS);
    e->elsewhere = true;
    int rc = k->get(k->arg, ref, field, e->x->arena, &value, e->why, e->why_size);
    if (rc == CLAW_EAGAIN) {
        e->missing = e->x->noted->secrets.missing = true;
        return 0;
    }
    return rc == 0 ? claw_buf_add_str(&e->out, value) : rc;
}

static int expand(struct expansion *e, struct claw_str s, unsigned depth);

/* The inside of one ${…}. */
static int add_expression(struct expansion *e, struct claw_str s, unsigned depth)
{
    if (claw_str_starts(s, CLAW_STR("file:"))) return add_file(e, (struct claw_str){s.ptr + 5, s.len - 5});
    struct claw_conf_secret ref;
    struct claw_str name = s, fallback = {NULL, 0}, field;
    if (claw_conf_secret_parse(s, &ref, &field)) return add_secret(e, ref, field);
    ptrdiff_t colon = claw_str_find(s, CLAW_STR(":"));
    if (colon >= 0) {
        name.len = (size_t)colon;
        if (name.len + 1 >= s.len || s.ptr[name.len + 1] != '-')
            return REFUSE(e,
                          "\"${%.*s:\" is no known expression (known: ${VAR}, ${VAR:-default}, ${file:/path}, "
                          "${vault:path#field}, ${aws-sm:name#field}, $$ for a dollar)",
                          (int)(name.len < 40 ? name.len : 40), name.ptr);
        fallback = (struct claw_str){s.ptr + name.len + 2, s.len - name.len - 2};
    }
    if (!is_name(name))
        return REFUSE(e, "\"%.*s\" is no name of an environment variable (write $$ for a dollar)",
                      (int)(name.len < 80 ? name.len : 80), name.ptr);
    char z[256];
    if (name.len >= sizeof z) return REFUSE(e, "the name of the environment variable is too long");
    memcpy(z, name.ptr, name.len);
    z[name.len] = 0;
    const char *value = e->x->get_env(z);
    if (value && (*value || !fallback.ptr)) return claw_buf_add_z(&e->out, value);
    if (fallback.ptr) return expand(e, fallback, depth + 1);
    return REFUSE(e, "environment variable %s is not set (use ${%s:-default} to give a default)", z, z);
}

static int expand(struct expansion *e, struct claw_str s, unsigned depth)
{
    if (depth > NEST_MAX) return REFUSE(e, "more than %d expressions inside each other", NEST_MAX);
    size_t i = 0;
    while (i < s.len) {
        const char *dollar = memchr(s.ptr + i, '$', s.len - i);
        size_t plain = dollar ? (size_t)(dollar - s.ptr) - i : s.len - i;
        char next = dollar && i + plain + 1 < s.len ? dollar[1] : 0;
        int err = claw_buf_add(&e->out, s.ptr + i, plain + (dollar && next != '{'));
        if (err) return err;
        i += plain + (dollar && next != '{');
        if (next == '$') {
            i++;
        } else if (next == '{') {
            struct claw_str inside = {dollar + 2, s.len - i - 2};
            ptrdiff_t end = closing(inside);
            if (end < 0) return REFUSE(e, "\"${\" is not closed (write $${ for the characters themselves)");
            inside.len = (size_t)end;
            err = add_expression(e, inside, depth);
            if (err) return err;
            i += inside.len + 3;
        }
    }
    return 0;
}

int claw_conf_expand(const struct claw_conf_expand *x, struct claw_str text, struct claw_str *out,
                     struct claw_conf_expanded *how, char *why, size_t why_size)
{
    *out = text;
    *how = (struct claw_conf_expanded){false, false};
    if (!text.len || !memchr(text.ptr, '$', text.len)) return 0;
    if (text.len >= 3 && text.ptr[0] == '$' && text.ptr[1] == '{')
        how->whole = closing((struct claw_str){text.ptr + 2, text.len - 2}) == (ptrdiff_t)text.len - 3;
    struct expansion e = {.x = x, .why = why, .why_size = why_size};
    claw_buf_init(&e.out, 0);
    int err = expand(&e, text, 0);
    how->elsewhere = e.elsewhere;
    if (err == 0 && e.missing) err = CLAW_EAGAIN;
    if (err == 0) {
        struct claw_str s = claw_buf_str(&e.out);
        out->ptr = claw_arena_dup(x->arena, s.ptr, s.len);
        out->len = s.len;
        if (!out->ptr) err = CLAW_EREQ_MEM;
    }
    if (err == CLAW_ENOMEM) err = CLAW_EREQ_MEM;
    claw_buf_fini(&e.out);
    return err;
}
