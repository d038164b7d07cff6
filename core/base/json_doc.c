/* json_doc: a tree over a text, opened where somebody looks.
 *
 *     slice      raw is its text; kids NULL
 *     opened     raw is its text still; kids has a slot for each child, whose node exists once it was asked for
 *     changed    raw.ptr NULL; what it says is what its kids say. Then all its parents are changed too.
 *
 * A node without parent is the root, fresh, or was taken out; each such tree can be read and changed on its own.
 * Every change allocates all it needs first and cannot fail after that, so that the end of the memory leaves the
 * document as it was.
 */
#include "base/json.h"

#include "base/json_part.h"

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#define LINEAR_MAX 16 /* keys that are looked through one by one */

struct slot {
    struct claw_str raw; /* the child's text, as long as there is no node */
    struct claw_json_node *node;
};

struct key {
    struct claw_str raw, text; /* as written, without quotes; and decoded */
};

/* An open hash over the last member of each key. Positions are 1-based, 0 is free. */
struct index {
    uint32_t *at;
    size_t size; /* a power of two, 0: no index */
    bool stale;
};

struct kids {
    struct slot *slots;
    struct key *keys; /* objects only */
    size_t n, cap;
    struct index index;
};

struct claw_json_node {
    struct claw_json_doc *doc;
    struct claw_json_node *parent;
    struct claw_str raw;
    struct kids *kids;
    enum claw_json_type type;
};

struct claw_json_doc {
    struct claw_arena *arena;
    struct claw_str text;
    struct claw_json_top top;
    struct claw_json_node root;
    uint64_t seed;
};

static bool is_changed(const struct claw_json_node *n) { return !n->raw.ptr; }

static bool is_container(const struct claw_json_node *n)
{
    return n && (n->type == CLAW_JSON_ARRAY || n->type == CLAW_JSON_OBJECT);
}

static void init_node(struct claw_json_node *n, struct claw_json_doc *d, struct claw_json_node *parent,
                      struct claw_str raw)
{
    *n = (struct claw_json_node){.doc = d, .parent = parent, .raw = raw, .type = claw_json_type_of(*raw.ptr)};
}

int claw_json_doc_new(struct claw_arena *a, struct claw_str text, struct claw_json_doc **out,
                      struct claw_json_err *err)
{
    *out = NULL;
    struct claw_json_doc *d = claw_arena_zalloc(a, sizeof *d);
    if (!d) return CLAW_EREQ_MEM;
    int rc = claw_json_scan(text, a, &d->top, err);
    if (rc) return rc;
    d->arena = a;
    d->text = text;
    /* Keys come from strangers: nobody may know beforehand which of them collide. */
    d->seed = (uint64_t)(uintptr_t)d;
#if defined(__linux__)
    const void *secret = (const void *)getauxval(AT_RANDOM);
    if (secret) d->seed ^= claw_str_hash((struct claw_str){secret, 16}, 0);
#endif
    init_node(&d->root, d, NULL, d->top.root.raw);
    *out = d;
    return 0;
}

struct claw_json_node *claw_json_doc_root(struct claw_json_doc *d) { return &d->root; }

bool claw_json_doc_changed(const struct claw_json_doc *d) { return is_changed(&d->root); }

enum claw_json_type claw_json_node_type(const struct claw_json_node *n) { return n ? n->type : CLAW_JSON_NONE; }

struct claw_json_value claw_json_node_value(const struct claw_json_node *n)
{
    if (!n) return (struct claw_json_value){{NULL, 0}, CLAW_JSON_NONE};
    return (struct claw_json_value){n->raw, n->type};
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* Where a walk writes to. `at` NULL only measures. */
struct sink {
    char *at;
    size_t size;
    bool deep;       /* find out the height too */
    unsigned height; /* containers inside each other */
};

static void put(struct sink *s, const char *p, size_t n)
{
    if (s->at) {
        memcpy(s->at, p, n);
        s->at += n;
    }
    s->size += n;
}

static void put_slice(struct sink *s, struct claw_str raw, unsigned depth)
{
    put(s, raw.ptr, raw.len);
    unsigned height = s->deep ? depth + claw_json_height(raw) : 0;
    if (height > s->height) s->height = height;
}

static void put_key(struct sink *s, struct claw_str raw)
{
    put(s, "\"", 1);
    put(s, raw.ptr, raw.len);
    put(s, "\":", 2);
}

static void put_node(struct sink *s, const struct claw_json_node *n)
{
    struct {
        const struct claw_json_node *node;
        size_t i;
    } open[CLAW_JSON_DEPTH];
    unsigned depth = 0;
    for (;;) {
        if (!is_changed(n)) {
            put_slice(s, n->raw, depth);
        } else {
            CLAW_ASSERT(depth < CLAW_JSON_DEPTH);
            open[depth].node = n;
            open[depth++].i = 0;
            if (depth > s->height) s->height = depth;
            put(s, n->type == CLAW_JSON_OBJECT ? "{" : "[", 1);
        }
        for (n = NULL; !n;) {
            if (!depth) return;
            const struct claw_json_node *in = open[depth - 1].node;
            const struct kids *k = in->kids;
            size_t i = open[depth - 1].i++;
            if (i == k->n) {
                put(s, in->type == CLAW_JSON_OBJECT ? "}" : "]", 1);
                depth--;
                continue;
            }
            if (i) put(s, ",", 1);
            if (k->keys) put_key(s, k->keys[i].raw);
            n = k->slots[i].node;
            if (!n) put_slice(s, k->slots[i].raw, depth);
        }
    }
}

static int write_around(const struct claw_json_node *n, struct claw_str before, struct claw_str after,
                        struct claw_buf *out)
{
    struct sink s = {NULL, 0, false, 0};
    put_node(&s, n);
    int rc = claw_buf_reserve(out, s.size + before.len + after.len);
    if (rc) return rc;
    size_t size = s.size;
    s = (struct sink){out->data + out->len, 0, false, 0};
    put(&s, before.ptr, before.len);
    put_node(&s, n);
    put(&s, after.ptr, after.len);
    CLAW_ASSERT(s.size == size + before.len + after.len);
    out->len += s.size;
    return 0;
}

int claw_json_node_write(const struct claw_json_node *n, struct claw_buf *out)
{
    return write_around(n, CLAW_STR(""), CLAW_STR(""), out);
}

int claw_json_doc_write(const struct claw_json_doc *d, struct claw_buf *out)
{
    if (!claw_json_doc_changed(d)) return claw_buf_add_str(out, d->text);
    /* The space around the root stays as it was. */
    struct claw_str root = d->top.root.raw, before = {d->text.ptr, (size_t)(root.ptr - d->text.ptr)};
    struct claw_str after = {root.ptr + root.len, d->text.len - before.len - root.len};
    return write_around(&d->root, before, after, out);
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

/* The children of a slice, one after the other. */
struct cursor {
    struct claw_json_value of;
    const struct claw_json_member *members; /* the root's are listed already */
    size_t pos;
};

static void next_child(struct cursor *c, struct claw_str *key, struct claw_str *raw)
{
    struct claw_json_value v;
    if (c->members) {
        *key = c->members[c->pos].key;
        v = c->members[c->pos++].value;
    } else {
        bool more = claw_json_next(c->of, &c->pos, key, &v);
        CLAW_ASSERT(more);
    }
    *raw = v.raw;
}

/* Give a container its slots; a no-op when it has them. */
static int open_kids(struct claw_json_node *n)
{
    if (n->kids) return 0;
    struct claw_json_doc *d = n->doc;
    bool object = n->type == CLAW_JSON_OBJECT;
    struct cursor c = {{n->raw, n->type}, NULL, 0};
    if (object && n == &d->root) c.members = d->top.members;
    size_t count = c.members ? d->top.n : claw_json_count(c.of);
    struct kids *k = claw_arena_zalloc(d->arena, sizeof *k);
    if (!k) return CLAW_EREQ_MEM;
    k->cap = count ? count : 4;
    k->slots = claw_arena_alloc(d->arena, k->cap * sizeof *k->slots);
    if (object) k->keys = claw_arena_alloc(d->arena, k->cap * sizeof *k->keys);
    if (!k->slots || (object && !k->keys)) return CLAW_EREQ_MEM;
    for (; k->n < count; k->n++) {
        struct claw_str key, raw;
        next_child(&c, &key, &raw);
        k->slots[k->n] = (struct slot){raw, NULL};
        if (!object) continue;
        k->keys[k->n].raw = key;
        int rc = claw_json_key_text(key, d->arena, &k->keys[k->n].text);
        if (rc) return rc;
    }
    n->kids = k;
    return 0;
}

static int child_at(struct claw_json_node *n, size_t i, struct claw_json_node **out)
{
    struct slot *s = &n->kids->slots[i];
    if (!s->node) {
        struct claw_json_node *child = claw_arena_alloc(n->doc->arena, sizeof *child);
        if (!child) return CLAW_EREQ_MEM;
        init_node(child, n->doc, n, s->raw);
        s->node = child;
    }
    *out = s->node;
    return 0;
}

/* ---- keys ------------------------------------------------------------------------------------------------- */

/* The slot in the index for `text`: its own, or the free one where it belongs. */
static uint32_t *find_slot(const struct claw_json_node *n, struct claw_str text)
{
    struct kids *k = n->kids;
    uint64_t h = claw_str_hash(text, n->doc->seed);
    h ^= h >> 32;
    for (size_t i = h & (k->index.size - 1);; i = (i + 1) & (k->index.size - 1)) {
        uint32_t at = k->index.at[i];
        if (!at || claw_str_eq(k->keys[at - 1].text, text)) return &k->index.at[i];
    }
}

/* An index over all keys. Without the memory for it there is none, and looking up is slower. */
static bool make_index(struct claw_json_node *n)
{
    struct kids *k = n->kids;
    if (k->index.size < k->n * 2) {
        size_t size = 64;
        while (size < k->n * 2) size *= 2;
        uint32_t *at = claw_arena_alloc(n->doc->arena, size * sizeof *at);
        if (!at) return false;
        k->index.at = at;
        k->index.size = size;
    } else if (!k->index.stale) {
        return true;
    }
    memset(k->index.at, 0, k->index.size * sizeof *k->index.at);
    for (size_t i = 0; i < k->n; i++) *find_slot(n, k->keys[i].text) = (uint32_t)i + 1;
    k->index.stale = false;
    return true;
}

/* The last member called `key`, or n when there is none. */
static size_t find_key(struct claw_json_node *object, struct claw_str key)
{
    struct kids *k = object->kids;
    if (k->n > LINEAR_MAX && make_index(object)) {
        uint32_t at = *find_slot(object, key);
        return at ? at - 1 : k->n;
    }
    for (size_t i = k->n; i-- > 0;)
        if (claw_str_eq(k->keys[i].text, key)) return i;
    return k->n;
}

/* A key that comes from outside, copied and escaped. CLAW_EINVAL when it is not UTF-8. */
static int make_key(struct claw_arena *a, struct claw_str key, struct key *out)
{
    bool plain = true;
    for (size_t i = 0; i < key.len && plain; i++)
        plain = key.ptr[i] >= 0x20 && key.ptr[i] < 0x7f && key.ptr[i] != '"' && key.ptr[i] != '\\';
    char *text = claw_arena_dup(a, key.ptr ? key.ptr : "", key.len);
    if (!text) return CLAW_EREQ_MEM;
    out->raw = out->text = (struct claw_str){text, key.len};
    if (plain) return 0;
    struct claw_buf b;
    claw_buf_init(&b, 0);
    int rc = claw_buf_add_json(&b, key);
    if (!rc) {
        struct claw_str quoted = claw_buf_str(&b);
        /* The writer mends what is not UTF-8; then it would be another key. */
        if (!claw_json_text_is((struct claw_json_value){quoted, CLAW_JSON_STRING}, key)) rc = CLAW_EINVAL;
        else out->raw = (struct claw_str){claw_arena_dup(a, quoted.ptr + 1, quoted.len - 2), quoted.len - 2};
        if (!out->raw.ptr) rc = CLAW_EREQ_MEM;
    }
    claw_buf_fini(&b);
    return rc == CLAW_ENOMEM ? CLAW_EREQ_MEM : rc;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

/* Open `n` when it is of that type. */
static bool look(struct claw_json_node *n, enum claw_json_type type, int *err)
{
    *err = 0;
    if (!n || n->type != type) return false;
    *err = open_kids(n);
    return !*err;
}

static struct claw_json_node *child_or_null(struct claw_json_node *n, size_t i, int *err)
{
    struct claw_json_node *child = NULL;
    if (i < n->kids->n) *err = child_at(n, i, &child);
    return child;
}

struct claw_json_node *claw_json_node_get(struct claw_json_node *object, struct claw_str key, int *err)
{
    int ignored;
    if (!err) err = &ignored;
    if (!look(object, CLAW_JSON_OBJECT, err)) return NULL;
    return child_or_null(object, find_key(object, key), err);
}

struct claw_json_node *claw_json_node_at(struct claw_json_node *array, size_t i, int *err)
{
    int ignored;
    if (!err) err = &ignored;
    return look(array, CLAW_JSON_ARRAY, err) ? child_or_null(array, i, err) : NULL;
}

struct claw_json_node *claw_json_node_member(struct claw_json_node *object, size_t i, struct claw_str *key, int *err)
{
    int ignored;
    if (!err) err = &ignored;
    if (key) *key = (struct claw_str){"", 0};
    if (!look(object, CLAW_JSON_OBJECT, err)) return NULL;
    struct claw_json_node *child = child_or_null(object, i, err);
    if (child && key) *key = object->kids->keys[i].text;
    return child;
}

size_t claw_json_node_count(struct claw_json_node *n, int *err)
{
    int ignored;
    if (!err) err = &ignored;
    *err = 0;
    return is_container(n) && look(n, n->type, err) ? n->kids->n : 0;
}

/* ---- changing --------------------------------------------------------------------------------------------- */

int claw_json_node_new(struct claw_json_doc *d, struct claw_str json, struct claw_json_node **out)
{
    struct claw_json_top top;
    *out = NULL;
    int rc = claw_json_check(json, false, NULL, &top, NULL);
    if (rc) return rc;
    struct claw_str raw = top.root.raw;
    struct claw_json_node *n = claw_arena_alloc(d->arena, sizeof *n);
    if (n) raw.ptr = claw_arena_dup(d->arena, raw.ptr, raw.len);
    if (!n || !raw.ptr) return CLAW_EREQ_MEM;
    init_node(n, d, NULL, raw);
    *out = n;
    return 0;
}

static int copy_node(struct claw_json_doc *d, const struct claw_json_node *v, size_t size, struct claw_json_node **out)
{
    struct claw_json_node *n = claw_arena_alloc(d->arena, sizeof *n);
    char *text = n ? claw_arena_alloc(d->arena, size) : NULL;
    if (!text) return CLAW_EREQ_MEM;
    struct sink s = {text, 0, false, 0};
    put_node(&s, v);
    init_node(n, d, NULL, (struct claw_str){text, size});
    *out = n;
    return 0;
}

/* Make *v something that can be put into `into`: itself when it is free, else a copy. */
static int take_in(struct claw_json_node *into, struct claw_json_node **v)
{
    const struct claw_json_node *top = into;
    unsigned depth = 1;
    for (; top->parent; top = top->parent) depth++;
    struct sink s = {NULL, 0, true, 0};
    put_node(&s, *v);
    if (depth + s.height > CLAW_JSON_DEPTH) return CLAW_EINVAL;
    struct claw_json_doc *d = into->doc;
    bool is_free = (*v)->doc == d && !(*v)->parent && *v != &d->root && *v != top;
    return is_free ? 0 : copy_node(d, *v, s.size, v);
}

static void mark_changed(struct claw_json_node *n)
{
    for (; n && !is_changed(n); n = n->parent) n->raw = (struct claw_str){NULL, 0};
}

static int make_room(struct claw_json_node *n)
{
    struct kids *k = n->kids;
    struct claw_arena *a = n->doc->arena;
    if (k->n < k->cap) return 0;
    size_t cap = k->cap * 2;
    void *p = claw_arena_grow(a, k->slots, k->cap * sizeof *k->slots, cap * sizeof *k->slots);
    if (!p) return CLAW_EREQ_MEM;
    k->slots = p;
    if (k->keys) {
        p = claw_arena_grow(a, k->keys, k->cap * sizeof *k->keys, cap * sizeof *k->keys);
        if (!p) return CLAW_EREQ_MEM;
        k->keys = p;
    }
    k->cap = cap;
    return 0;
}

static void put_slot(struct claw_json_node *n, size_t i, struct claw_json_node *v)
{
    struct slot *s = &n->kids->slots[i];
    s->raw = (struct claw_str){NULL, 0};
    s->node = v;
    v->parent = n;
}

static void replace(struct claw_json_node *n, size_t i, struct claw_json_node *v)
{
    struct claw_json_node *old = n->kids->slots[i].node;
    if (old) old->parent = NULL;
    put_slot(n, i, v);
    mark_changed(n);
}

int claw_json_node_set(struct claw_json_node *object, struct claw_str key, struct claw_json_node *v)
{
    if (!object || !v || object->type != CLAW_JSON_OBJECT) return CLAW_EINVAL;
    int rc = open_kids(object);
    if (rc) return rc;
    struct kids *k = object->kids;
    size_t i = find_key(object, key);
    if (i < k->n && k->slots[i].node == v) return 0;
    rc = take_in(object, &v);
    if (rc) return rc;
    if (i < k->n) {
        replace(object, i, v);
        return 0;
    }
    struct key made;
    rc = make_key(object->doc->arena, key, &made);
    if (!rc) rc = make_room(object);
    if (rc) return rc;
    k->keys[i] = made;
    put_slot(object, i, v);
    k->n++;
    if (k->index.size >= k->n * 2 && !k->index.stale) *find_slot(object, made.text) = (uint32_t)i + 1;
    mark_changed(object);
    return 0;
}

int claw_json_node_set_at(struct claw_json_node *array, size_t i, struct claw_json_node *v)
{
    if (!array || !v || array->type != CLAW_JSON_ARRAY) return CLAW_EINVAL;
    int rc = open_kids(array);
    if (rc) return rc;
    if (i >= array->kids->n) return CLAW_EINVAL;
    if (array->kids->slots[i].node == v) return 0;
    rc = take_in(array, &v);
    if (rc) return rc;
    replace(array, i, v);
    return 0;
}

int claw_json_node_insert(struct claw_json_node *array, size_t i, struct claw_json_node *v)
{
    if (!array || !v || array->type != CLAW_JSON_ARRAY) return CLAW_EINVAL;
    int rc = open_kids(array);
    if (rc) return rc;
    struct kids *k = array->kids;
    if (i > k->n) return CLAW_EINVAL;
    rc = take_in(array, &v);
    if (!rc) rc = make_room(array);
    if (rc) return rc;
    memmove(k->slots + i + 1, k->slots + i, (k->n - i) * sizeof *k->slots);
    put_slot(array, i, v);
    k->n++;
    mark_changed(array);
    return 0;
}

int claw_json_node_del(struct claw_json_node *object, struct claw_str key)
{
    if (!object || object->type != CLAW_JSON_OBJECT) return CLAW_EINVAL;
    int rc = open_kids(object);
    if (rc) return rc;
    struct kids *k = object->kids;
    if (find_key(object, key) == k->n) return 0;
    size_t kept = 0;
    for (size_t i = 0; i < k->n; i++) {
        if (claw_str_eq(k->keys[i].text, key)) {
            if (k->slots[i].node) k->slots[i].node->parent = NULL;
            continue;
        }
        k->slots[kept] = k->slots[i];
        k->keys[kept++] = k->keys[i];
    }
    k->n = kept;
    k->index.stale = true;
    mark_changed(object);
    return 0;
}

int claw_json_node_del_at(struct claw_json_node *array, size_t i)
{
    if (!array || array->type != CLAW_JSON_ARRAY) return CLAW_EINVAL;
    int rc = open_kids(array);
    if (rc) return rc;
    struct kids *k = array->kids;
    if (i >= k->n) return 0;
    if (k->slots[i].node) k->slots[i].node->parent = NULL;
    memmove(k->slots + i, k->slots + i + 1, (k->n - i - 1) * sizeof *k->slots);
    k->n--;
    mark_changed(array);
    return 0;
}
