/* source: the policies' texts, read once (see policy.h). */
#include "script/policy_part.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FILE_MAX (1u << 20)
#define FILES_MAX 1000
#define BYTES_MAX (64u << 20)

struct reading {
    const struct claw_conf *conf;
    struct claw_policies *p;
    struct claw_conf_problems *problems;
    size_t cap;
    int rc;
    bool in_lib; /* what is read goes to the libs */
};

static int grow(struct reading *x, struct claw_policy_source s)
{
    struct claw_policies *p = x->p;
    struct claw_policy_source **items = x->in_lib ? &p->libs : &p->items;
    size_t *n = x->in_lib ? &p->libs_n : &p->n;
    if (*n == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 16;
        void *grown = claw_arena_grow(&p->arena, *items, x->cap * sizeof s, cap * sizeof s);
        if (!grown) return CLAW_ENOMEM;
        *items = grown;
        x->cap = cap;
    }
    (*items)[(*n)++] = s;
    return CLAW_OK;
}

static struct claw_str keep(struct claw_policies *p, struct claw_str s)
{
    return (struct claw_str){claw_arena_dup(&p->arena, s.ptr, s.len), s.len};
}

/* As messages name a file: from the configuration's folder, when it is inside. */
static struct claw_str label_of(struct reading *x, const char *path)
{
    size_t n = x->conf->dir ? strlen(x->conf->dir) : 0;
    if (n && strncmp(path, x->conf->dir, n) == 0 && (path[n] == '/' || path[n - 1] == '/')) path += n + (path[n] == '/');
    return keep(x->p, claw_str_of(path));
}

static void refuse(struct reading *x, const char *file, const char *why)
{
    claw_conf_problem_add(x->problems, x->conf, "policies.dir", "%s: %s", file, why);
    x->rc = CLAW_EINVAL;
}

static bool is_name(struct claw_str s, bool lib)
{
    if (s.len == 0 || s.len > 64) return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_') continue;
        if (lib || !((c >= 'A' && c <= 'Z') || c == '-')) return false;
    }
    return true;
}

static int read_file(struct reading *x, const char *path, struct claw_str name)
{
    struct claw_str label = label_of(x, path);
    if (!label.ptr) return CLAW_ENOMEM;
    if (!is_name(name, x->in_lib)) {
        refuse(x, label.ptr, x->in_lib ? "the name of a file in lib is made of a to z, digits and _"
                                       : "a policy's name is made of letters, digits, _ and -");
        return CLAW_OK;
    }
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) return refuse(x, label.ptr, "not a file"), CLAW_OK;
    struct claw_buf b;
    claw_buf_init(&b, FILE_MAX);
    int rc = claw_buf_add_file(&b, path);
    struct claw_str text = claw_buf_str(&b);
    if (rc == CLAW_EIO) {
        refuse(x, label.ptr, strerror(errno));
    } else if (rc != CLAW_OK) {
        refuse(x, label.ptr, "larger than 1 MB");
    } else if (text.len && text.ptr[0] == 0x1b) {
        refuse(x, label.ptr, "bytecode; only Lua source text is loaded");
    } else {
        struct claw_policy_source s = {keep(x->p, name), label, keep(x->p, text), false};
        rc = s.name.ptr && s.text.ptr ? grow(x, s) : CLAW_ENOMEM;
        claw_buf_fini(&b);
        return rc;
    }
    claw_buf_fini(&b);
    return CLAW_OK;
}

static int read_dir(struct reading *x, const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) {
        if (errno != ENOENT) refuse(x, dir, strerror(errno));
        return CLAW_OK;
    }
    int rc = CLAW_OK;
    for (struct dirent *e; rc == CLAW_OK && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        /* Editors leave hidden files behind; those are never meant. */
        if (n < 4 || e->d_name[0] == '.' || strcmp(e->d_name + n - 4, ".lua") != 0) continue;
        char *path = NULL;
        if (asprintf(&path, "%s/%s", dir, e->d_name) < 0) {
            rc = CLAW_ENOMEM;
            break;
        }
        if ((x->in_lib ? x->p->libs_n : x->p->n) >= FILES_MAX) {
            refuse(x, dir, "more than 1000 files");
            free(path);
            break;
        }
        rc = read_file(x, path, (struct claw_str){e->d_name, n - 4});
        free(path);
    }
    closedir(d);
    return rc;
}

/* DIR/lib: what the policies of DIR may require. */
static int read_lib(struct reading *x, const char *dir)
{
    char *path = NULL;
    if (asprintf(&path, "%s/lib", dir) < 0) return CLAW_ENOMEM;
    x->in_lib = true;
    x->cap = 0;
    int rc = read_dir(x, path);
    free(path);
    return rc;
}

static bool known(const struct claw_policies *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (claw_str_eqz(p->items[i].name, name)) return true;
    return false;
}

static int add_builtins(struct reading *x)
{
    for (const struct claw_embedded *e = claw_embedded_policies; e->name; e++) {
        if (known(x->p, e->name)) continue;
        char *file = NULL;
        if (asprintf(&file, "builtin/%s.lua", e->name) < 0) return CLAW_ENOMEM;
        struct claw_policy_source s = {claw_str_of(e->name), keep(x->p, claw_str_of(file)), {(const char *)e->data, e->size}, true};
        free(file);
        int rc = s.file.ptr ? grow(x, s) : CLAW_ENOMEM;
        if (rc != CLAW_OK) return rc;
    }
    return CLAW_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct claw_policy_source *x = a, *y = b;
    size_t n = x->name.len < y->name.len ? x->name.len : y->name.len;
    int c = memcmp(x->name.ptr, y->name.ptr, n);
    return c ? c : (x->name.len > y->name.len) - (x->name.len < y->name.len);
}

static uint64_t hash_of(const struct claw_policy_source *items, size_t n, uint64_t h)
{
    h = claw_str_hash((struct claw_str){(const char *)&n, sizeof n}, h);
    for (size_t i = 0; i < n; i++) {
        uint64_t sizes[2] = {items[i].name.len, items[i].text.len}; /* so that no two sets run together alike */
        h = claw_str_hash((struct claw_str){(const char *)sizes, sizeof sizes}, h);
        h = claw_str_hash(items[i].name, h);
        h = claw_str_hash(items[i].text, h);
    }
    return h;
}

int claw_policies_read(const struct claw_conf *conf, struct claw_policies **out, struct claw_conf_problems *problems)
{
    struct claw_policies *p = calloc(1, sizeof *p);
    if (!p) return CLAW_ENOMEM;
    claw_arena_init(&p->arena, NULL, 0, BYTES_MAX);
    struct reading x = {.conf = conf, .p = p, .problems = problems};
    int rc = conf->policies.dir ? read_dir(&x, conf->policies.dir) : CLAW_OK;
    if (rc == CLAW_OK) rc = add_builtins(&x);
    if (rc == CLAW_OK && conf->policies.dir) rc = read_lib(&x, conf->policies.dir);
    if (rc != CLAW_OK) {
        refuse(&x, conf->policies.dir ? conf->policies.dir : "policies", "more than 64 MB of policies");
        rc = CLAW_EINVAL;
    }
    if (x.rc != CLAW_OK) {
        claw_policies_free(p);
        return x.rc;
    }
    if (p->n) qsort(p->items, p->n, sizeof *p->items, by_name);
    if (p->libs_n) qsort(p->libs, p->libs_n, sizeof *p->libs, by_name);
    p->hash = hash_of(p->libs, p->libs_n, hash_of(p->items, p->n, 0));
    *out = p;
    return CLAW_OK;
}

void claw_policies_each(const struct claw_policies *p, void (*fn)(void *arg, const struct claw_policy_text *t), void *arg)
{
    for (size_t i = 0; p && i < p->n + p->libs_n; i++) {
        const struct claw_policy_source *s = i < p->n ? &p->items[i] : &p->libs[i - p->n];
        fn(arg, &(struct claw_policy_text){s->name, s->file, s->text, s->builtin});
    }
}

int claw_policies_set(struct claw_policies *p, struct claw_str name, struct claw_str text)
{
    struct claw_policy_source *at = NULL;
    if (!is_name(name, false) || (text.len && text.ptr[0] == 0x1b)) return CLAW_EINVAL;
    for (size_t i = 0; i < p->n && !at; i++)
        if (claw_str_eq(p->items[i].name, name)) at = &p->items[i];
    char file[96];
    int len = snprintf(file, sizeof file, "policies/%.*s.lua", CLAW_STR_FMT(name));
    struct claw_policy_source s = {keep(p, name), keep(p, (struct claw_str){file, (size_t)len}), keep(p, text), false};
    if (!s.name.ptr || !s.file.ptr || !s.text.ptr) return CLAW_ENOMEM;
    if (at && !at->builtin) s.file = at->file;
    if (at) {
        *at = s;
    } else {
        struct claw_policy_source *grown = claw_arena_grow(&p->arena, p->items, p->n * sizeof s, (p->n + 1) * sizeof s);
        if (!grown) return CLAW_ENOMEM;
        p->items = grown;
        p->items[p->n++] = s;
        qsort(p->items, p->n, sizeof s, by_name);
    }
    p->hash = hash_of(p->libs, p->libs_n, hash_of(p->items, p->n, 0));
    return CLAW_OK;
}

uint64_t claw_policies_hash(const struct claw_policies *p) { return p->hash; }

void claw_policies_free(struct claw_policies *p)
{
    if (!p) return;
    claw_arena_reset(&p->arena);
    free(p);
}
