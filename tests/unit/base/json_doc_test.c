/* json_doc: the copy-on-write document, by cases and against a naive model. */
#include "base/json.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static struct claw_arena arena;

static int setup(void **state)
{
    claw_arena_init(&arena, NULL, 0, (size_t)256 << 20);
    return 0;
}

static int teardown(void **state)
{
    claw_arena_reset(&arena);
    return 0;
}

static struct claw_json_doc *doc_of(const char *z)
{
    struct claw_json_doc *d;
    struct claw_json_err err;
    assert_int_equal(claw_json_doc_new(&arena, claw_str_of(z), &d, &err), 0);
    return d;
}

static struct claw_json_node *fresh(struct claw_json_doc *d, const char *z)
{
    struct claw_json_node *n;
    assert_int_equal(claw_json_node_new(d, claw_str_of(z), &n), 0);
    assert_non_null(n);
    return n;
}

static struct claw_json_node *get(struct claw_json_node *n, const char *key)
{
    int err = 1;
    struct claw_json_node *v = claw_json_node_get(n, claw_str_of(key), &err);
    assert_int_equal(err, 0);
    return v;
}

static struct claw_json_node *at(struct claw_json_node *n, size_t i)
{
    int err = 1;
    struct claw_json_node *v = claw_json_node_at(n, i, &err);
    assert_int_equal(err, 0);
    return v;
}

static void set(struct claw_json_node *n, const char *key, struct claw_json_node *v) { assert_int_equal(claw_json_node_set(n, claw_str_of(key), v), 0); }
static void del(struct claw_json_node *n, const char *key) { assert_int_equal(claw_json_node_del(n, claw_str_of(key)), 0); }

static void says(struct claw_json_doc *d, const char *want)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_z(&b, "before"), 0);
    assert_int_equal(claw_json_doc_write(d, &b), 0);
    claw_buf_take(&b, 6);
    struct claw_str s = claw_buf_str(&b);
    if (!claw_str_eqz(s, want)) print_error("got  %.*s\nwant %s\n", CLAW_STR_FMT(s), want);
    assert_true(claw_str_eqz(s, want));
    claw_buf_fini(&b);
}

static void node_says(struct claw_json_node *n, const char *want)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_json_node_write(n, &b), 0);
    struct claw_str s = claw_buf_str(&b);
    if (!claw_str_eqz(s, want)) print_error("got  %.*s\nwant %s\n", CLAW_STR_FMT(s), want);
    assert_true(claw_str_eqz(s, want));
    claw_buf_fini(&b);
}

#define TEXT " {\"model\" : \"m\", \"n\":9007199254740993,\"big\":1e400 ,\"z\":-0, \"a\":[ ],\"o\":{ },\"m\\u0065\": [1, {\"x\" :2}] }\n"

static void unchanged_is_the_same_bytes(void **state)
{
    struct claw_json_doc *d = doc_of(TEXT);
    struct claw_json_node *root = claw_json_doc_root(d);
    assert_false(claw_json_doc_changed(d));
    says(d, TEXT);
    assert_int_equal(claw_json_node_count(root, NULL), 7);
    struct claw_json_node *v = get(root, "me");
    assert_non_null(v);
    assert_ptr_equal(get(root, "me"), v);
    assert_ptr_equal(at(v, 1), at(v, 1));
    assert_true(claw_str_eqz(claw_json_node_value(get(at(v, 1), "x")).raw, "2"));
    for (size_t i = 0; i < 7; i++) {
        struct claw_str key;
        int err = 1;
        struct claw_json_node *m = claw_json_node_member(root, i, &key, &err);
        assert_non_null(m);
        assert_ptr_equal(claw_json_node_get(root, key, NULL), m);
        if (i == 6) assert_true(claw_str_eqz(key, "me"));
    }
    assert_null(claw_json_node_member(root, 7, NULL, NULL));
    assert_false(claw_json_doc_changed(d));
    says(d, TEXT);
}

static void change_copies_the_rest(void **state)
{
    struct claw_json_doc *d = doc_of(TEXT);
    struct claw_json_node *root = claw_json_doc_root(d);
    set(root, "model", fresh(d, " \"other\" "));
    assert_true(claw_json_doc_changed(d));
    says(d, " {\"model\":\"other\",\"n\":9007199254740993,\"big\":1e400,\"z\":-0,\"a\":[ ],\"o\":{ },\"m\\u0065\":[1, {\"x\" :2}]}\n");
    set(at(get(root, "me"), 1), "y\"\n", fresh(d, "[1 , 2]"));
    says(d, " {\"model\":\"other\",\"n\":9007199254740993,\"big\":1e400,\"z\":-0,\"a\":[ ],\"o\":{ },"
            "\"m\\u0065\":[1,{\"x\":2,\"y\\\"\\n\":[1 , 2]}]}\n");
    assert_null(claw_json_node_value(root).raw.ptr);
    assert_int_equal(claw_json_node_value(root).type, CLAW_JSON_OBJECT);
    assert_true(claw_str_eqz(claw_json_node_value(get(root, "a")).raw, "[ ]"));
}

static void wrong_kinds(void **state)
{
    struct claw_json_doc *d = doc_of("{\"s\":\"x\",\"a\":[1],\"o\":{}}");
    struct claw_json_node *root = claw_json_doc_root(d), *s = get(root, "s"), *a = get(root, "a"), *o = get(root, "o"), *v = fresh(d, "1");
    assert_int_equal(claw_json_node_set(s, CLAW_STR("k"), v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_set(a, CLAW_STR("k"), v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_set_at(o, 0, v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_set_at(a, 1, v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_insert(a, 2, v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_insert(o, 0, v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_del(a, CLAW_STR("k")), CLAW_EINVAL);
    assert_int_equal(claw_json_node_del_at(o, 0), CLAW_EINVAL);
    assert_int_equal(claw_json_node_set(o, CLAW_STR("\xff"), v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_del(o, CLAW_STR("none")), 0);
    assert_int_equal(claw_json_node_del_at(a, 1), 0);
    assert_null(get(a, "k"));
    assert_null(at(o, 0));
    assert_null(get(NULL, "k"));
    assert_null(at(a, 1));
    assert_int_equal(claw_json_node_type(NULL), CLAW_JSON_NONE);
    assert_int_equal(claw_json_node_count(s, NULL), 0);
    assert_false(claw_json_doc_changed(d));
    struct claw_json_node *out = v;
    assert_int_equal(claw_json_node_new(d, CLAW_STR("[1,]"), &out), CLAW_EBAD_JSON);
    assert_null(out);
    assert_int_equal(claw_json_node_new(d, CLAW_STR(""), &out), CLAW_EBAD_JSON);
    struct claw_json_doc *no = d;
    struct claw_json_err err;
    assert_int_equal(claw_json_doc_new(&arena, CLAW_STR("{\"model\":1,\"model\":2}"), &no, &err), CLAW_EBAD_JSON);
    assert_null(no);
    assert_int_equal(err.offset, 11);
    node_says(fresh(d, "{\"model\":1,\"model\":2}"), "{\"model\":1,\"model\":2}");
}

static void arrays(void **state)
{
    struct claw_json_doc *d = doc_of("[1, 2, 3]");
    struct claw_json_node *root = claw_json_doc_root(d);
    assert_int_equal(claw_json_node_insert(root, 0, fresh(d, "\"first\"")), 0);
    assert_int_equal(claw_json_node_insert(root, 4, fresh(d, "\"last\"")), 0);
    assert_int_equal(claw_json_node_insert(root, 2, fresh(d, "[ ]")), 0);
    says(d, "[\"first\",1,[ ],2,3,\"last\"]");
    assert_int_equal(claw_json_node_set_at(root, 1, fresh(d, "{}")), 0);
    assert_int_equal(claw_json_node_del_at(root, 0), 0);
    says(d, "[{},[ ],2,3,\"last\"]");
    for (int i = 0; i < 5; i++) assert_int_equal(claw_json_node_del_at(root, 0), 0);
    says(d, "[]");
    for (int i = 0; i < 100; i++) assert_int_equal(claw_json_node_insert(root, 0, fresh(d, "0")), 0);
    assert_int_equal(claw_json_node_count(root, NULL), 100);
}

static void duplicates(void **state)
{
    struct claw_json_doc *d = doc_of("{\"a\":1,\"b\":2,\"\\u0061\":3}");
    struct claw_json_node *root = claw_json_doc_root(d);
    node_says(get(root, "a"), "3");
    set(root, "a", fresh(d, "4"));
    says(d, "{\"a\":1,\"b\":2,\"\\u0061\":4}");
    del(root, "a");
    says(d, "{\"b\":2}");
    del(root, "b");
    says(d, "{}");
    set(root, "", fresh(d, "null"));
    says(d, "{\"\":null}");
}

static void what_is_taken_out_lives_on(void **state)
{
    struct claw_json_doc *d = doc_of("{\"a\":{\"x\":[1,2]},\"b\":[{\"y\":1}]}");
    struct claw_json_node *root = claw_json_doc_root(d), *a = get(root, "a"), *x = get(a, "x"), *b = get(root, "b"), *y = at(b, 0);
    del(root, "a");
    set(root, "b", fresh(d, "0"));
    says(d, "{\"b\":0}");
    node_says(a, "{\"x\":[1,2]}");
    set(a, "new", fresh(d, "true"));
    assert_int_equal(claw_json_node_del_at(x, 0), 0);
    node_says(a, "{\"x\":[2],\"new\":true}");
    assert_ptr_equal(get(a, "x"), x);
    node_says(y, "{\"y\":1}");
    says(d, "{\"b\":0}");
    set(root, "back", a); /* free: goes in itself */
    assert_ptr_equal(get(root, "back"), a);
    set(a, "new", fresh(d, "false"));
    says(d, "{\"b\":0,\"back\":{\"x\":[2],\"new\":false}}");
}

static void what_is_in_a_document_is_copied(void **state)
{
    struct claw_json_doc *d = doc_of("{\"a\":{\"x\" : 1},\"b\":[]}"), *other = doc_of("{\"q\":[ 7 ]}");
    struct claw_json_node *root = claw_json_doc_root(d), *a = get(root, "a"), *b = get(root, "b");
    set(root, "a", a); /* its own place: nothing to do */
    assert_false(claw_json_doc_changed(d));
    assert_int_equal(claw_json_node_insert(b, 0, a), 0);
    assert_ptr_not_equal(at(b, 0), a);
    set(a, "x", fresh(d, "2"));
    says(d, "{\"a\":{\"x\":2},\"b\":[{\"x\" : 1}]}");
    set(a, "root", root); /* an ancestor: what it says now */
    says(d, "{\"a\":{\"x\":2,\"root\":{\"a\":{\"x\":2},\"b\":[{\"x\" : 1}]}},\"b\":[{\"x\" : 1}]}");
    del(a, "root");
    set(a, "o", claw_json_doc_root(other));
    set(a, "q", get(claw_json_doc_root(other), "q"));
    set(root, "f", fresh(other, "\"foreign\""));
    says(d, "{\"a\":{\"x\":2,\"o\":{\"q\":[ 7 ]},\"q\":[ 7 ]},\"b\":[{\"x\" : 1}],\"f\":\"foreign\"}");
    assert_false(claw_json_doc_changed(other));
    struct claw_json_node *own = fresh(d, "{\"in\":{}}");
    set(get(own, "in"), "self", own); /* the top of its own tree */
    set(own, "me", own);
    node_says(own, "{\"in\":{\"self\":{\"in\":{}}},\"me\":{\"in\":{\"self\":{\"in\":{}}}}}");
}

static void depth_is_bounded(void **state)
{
    char deep[2 * 511 + 1];
    memset(deep, '[', 511);
    memset(deep + 511, ']', 511);
    deep[2 * 511] = 0;
    struct claw_json_doc *d = doc_of("[[]]");
    struct claw_json_node *root = claw_json_doc_root(d), *v = fresh(d, deep);
    assert_int_equal(claw_json_node_insert(at(root, 0), 0, v), CLAW_EINVAL);
    assert_false(claw_json_doc_changed(d));
    assert_int_equal(claw_json_node_insert(root, 0, v), 0);
    struct claw_json_node *in = v;
    for (int i = 0; i < 510; i++) in = at(in, 0);
    assert_int_equal(claw_json_node_insert(in, 0, fresh(d, "[]")), CLAW_EINVAL);
    assert_int_equal(claw_json_node_insert(in, 0, fresh(d, "0")), 0);
    assert_int_equal(claw_json_node_insert(v, 1, v), CLAW_EINVAL);
    assert_int_equal(claw_json_node_del_at(root, 0), 0); /* on its own there is one level more */
    assert_int_equal(claw_json_node_insert(in, 0, fresh(d, "[]")), 0);
    assert_int_equal(claw_json_node_insert(root, 0, v), CLAW_EINVAL);
    struct claw_buf b;
    struct claw_json_top top;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_json_node_write(v, &b), 0);
    assert_int_equal(claw_json_scan(claw_buf_str(&b), &arena, &top, NULL), 0);
    claw_buf_fini(&b);
}

static void a_bounded_buffer_gets_all_or_nothing(void **state)
{
    struct claw_json_doc *d = doc_of("{\"a\":[1,2,3],\"b\":{}}");
    set(claw_json_doc_root(d), "c", fresh(d, "null"));
    for (size_t max = 1; max < 40; max++) {
        struct claw_buf b;
        claw_buf_init(&b, max);
        int rc = claw_json_doc_write(d, &b);
        assert_int_equal(rc, max < 29 ? CLAW_ENOMEM : 0);
        assert_int_equal(claw_buf_size(&b), rc ? 0 : 29);
        claw_buf_fini(&b);
    }
}

static void many_keys(void **state)
{
    struct claw_json_doc *d = doc_of("{}");
    struct claw_json_node *root = claw_json_doc_root(d);
    char key[32], text[32];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3000; i++) {
            snprintf(key, sizeof key, "key%d", i);
            snprintf(text, sizeof text, "%d", i * 10 + round);
            set(root, key, fresh(d, text));
        }
        assert_int_equal(claw_json_node_count(root, NULL), 3000);
        for (int i = 0; i < 3000; i++) {
            snprintf(key, sizeof key, "key%d", i);
            snprintf(text, sizeof text, "%d", i * 10 + round);
            node_says(get(root, key), text);
        }
        assert_null(get(root, "key3000"));
    }
    for (int i = 0; i < 3000; i += 100) {
        snprintf(key, sizeof key, "key%d", i);
        del(root, key);
        assert_null(get(root, key));
        snprintf(key, sizeof key, "key%d", i + 1);
        assert_non_null(get(root, key));
    }
    assert_int_equal(claw_json_node_count(root, NULL), 2970);
}

/* One long session; every step may run out of memory, and then the text must be what it was. */
static int session(struct claw_arena *a, bool *finished)
{
    static const char text[] = "{\"a\":[1,{\"\\u0062\":2}],\"k0\":0,\"k1\":0,\"k2\":0,\"k3\":0,\"k4\":0,\"k5\":0,\"k6\":0,"
                               "\"k7\":0,\"k8\":0,\"k9\":0,\"l0\":0,\"l1\":0,\"l2\":0,\"l3\":0,\"l4\":0,\"l5\":0}";
    static const char *const after[] = {
        "{\"a\":[1,{\"\\u0062\":2}],\"k0\":0,", "{\"a\":[1,{\"\\u0062\":[3]}],\"k0\":0,", "{\"a\":[1,{\"\\u0062\":[3],\"n\\n\":[3]}],\"k0\":0,",
        "{\"a\":[1,0,{\"\\u0062\":[3],\"n\\n\":[3]}],\"k0\":0,", "{\"a\":[1,0,{\"\\u0062\":[3],\"n\\n\":[3]}],\"k1\":0,",
    };
    struct claw_json_doc *d;
    struct claw_json_err err;
    int rc = claw_json_doc_new(a, CLAW_STR(text), &d, &err), step = 0, oom = 0;
    if (rc) return rc;
    struct claw_json_node *root = claw_json_doc_root(d), *list, *in = NULL, *v;
    list = claw_json_node_get(root, CLAW_STR("a"), &rc);
    if (list) in = claw_json_node_at(list, 1, &rc);
    if (in && !(rc = claw_json_node_new(d, CLAW_STR("[3]"), &v)) && !(rc = claw_json_node_set(in, CLAW_STR("b"), v))) step = 1;
    if (step == 1 && !(rc = claw_json_node_set(in, CLAW_STR("n\n"), v))) step = 2;
    if (step == 2 && !(rc = claw_json_node_new(d, CLAW_STR("0"), &v)) && !(rc = claw_json_node_insert(list, 1, v))) step = 3;
    if (step == 3 && !(rc = claw_json_node_del(root, CLAW_STR("k0")))) step = 4;
    if (step == 4 && claw_json_node_get(root, CLAW_STR("l5"), &oom)) *finished = true;
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_json_doc_write(d, &b), 0);
    if (!claw_str_starts(claw_buf_str(&b), claw_str_of(after[step])))
        print_error("step %d: %.*s\n", step, CLAW_STR_FMT(claw_buf_str(&b)));
    assert_true(claw_str_starts(claw_buf_str(&b), claw_str_of(after[step])));
    claw_buf_fini(&b);
    return rc ? rc : oom;
}

static void memory_is_bounded(void **state)
{
    static char first[16384];
    size_t failures = 0;
    bool finished = false;
    for (size_t cap = 0; !finished; cap++) {
        struct claw_arena a;
        claw_arena_init(&a, first, sizeof first, cap);
        int rc = session(&a, &finished);
        assert_int_equal(rc, finished ? 0 : CLAW_EREQ_MEM);
        failures += rc != 0;
        claw_arena_reset(&a);
        assert_true(cap < sizeof first);
    }
    assert_true(failures > 1000);
}

/* ---- a naive model ---------------------------------------------------------------------------------------- */

#define KIDS 120

struct model {
    struct model *parent;
    bool is_root;
    char type;        /* '{', '[' or 0 */
    char scalar[24];
    size_t n;
    struct model *kids[KIDS];
    int keys[KIDS];   /* numbers in key_of */
};

static uint64_t rng;

static unsigned roll(unsigned n)
{
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    return (unsigned)(rng >> 33) % n;
}

/* Keys with their escaped form; the odd one needs escapes. */
static void key_of(int k, char *text, char *raw)
{
    if (k % 7 == 3) {
        sprintf(text, "k\"%d\n", k);
        sprintf(raw, "k\\\"%d\\n", k);
    } else {
        sprintf(text, "k%d", k);
        sprintf(raw, "k%d", k);
    }
}

static struct model *model_new(struct claw_arena *a)
{
    struct model *m = claw_arena_zalloc(a, sizeof *m);
    assert_non_null(m);
    return m;
}

static struct model *model_random(struct claw_arena *a, int depth)
{
    struct model *m = model_new(a);
    unsigned what = roll(depth > 2 ? 4 : 8);
    if (what < 4) {
        static const char *const scalars[] = {"9007199254740993", "-0", "\"a\\u0000\"", "null"};
        strcpy(m->scalar, scalars[what]);
        return m;
    }
    m->type = what % 2 ? '{' : '[';
    m->n = roll(depth ? 5 : 30);
    for (size_t i = 0; i < m->n; i++) {
        m->kids[i] = model_random(a, depth + 1);
        m->kids[i]->parent = m;
        m->keys[i] = (int)roll(40);
    }
    return m;
}

static struct model *model_copy(struct claw_arena *a, const struct model *from)
{
    struct model *m = model_new(a);
    *m = *from;
    m->parent = NULL;
    m->is_root = false;
    for (size_t i = 0; i < m->n; i++) {
        m->kids[i] = model_copy(a, from->kids[i]);
        m->kids[i]->parent = m;
    }
    return m;
}

static void model_write(const struct model *m, struct claw_buf *b)
{
    char text[32], raw[32];
    if (!m->type) {
        assert_int_equal(claw_buf_add_z(b, m->scalar), 0);
        return;
    }
    assert_int_equal(claw_buf_add(b, &m->type, 1), 0);
    for (size_t i = 0; i < m->n; i++) {
        if (i) assert_int_equal(claw_buf_add_z(b, ","), 0);
        if (m->type == '{') {
            key_of(m->keys[i], text, raw);
            assert_int_equal(claw_buf_add_fmt(b, "\"%s\":", raw), 0);
        }
        model_write(m->kids[i], b);
    }
    assert_int_equal(claw_buf_add_z(b, m->type == '{' ? "}" : "]"), 0);
}

static size_t model_find(const struct model *m, int key)
{
    for (size_t i = m->n; i-- > 0;)
        if (m->keys[i] == key) return i;
    return m->n;
}

/* What goes in when v is given: v itself when it is free and not the tree's own top, else a copy. */
static struct model *model_take(struct claw_arena *a, struct model *into, struct model *v)
{
    while (into->parent) into = into->parent;
    return v->parent || v->is_root || v == into ? model_copy(a, v) : v;
}

static void model_insert(struct model *m, size_t i, int key, struct model *v)
{
    memmove(m->kids + i + 1, m->kids + i, (m->n - i) * sizeof *m->kids);
    memmove(m->keys + i + 1, m->keys + i, (m->n - i) * sizeof *m->keys);
    m->kids[i] = v;
    m->keys[i] = key;
    m->n++;
    v->parent = m;
}

static void model_remove(struct model *m, size_t i)
{
    m->kids[i]->parent = NULL;
    m->n--;
    memmove(m->kids + i, m->kids + i + 1, (m->n - i) * sizeof *m->kids);
    memmove(m->keys + i, m->keys + i + 1, (m->n - i) * sizeof *m->keys);
}

struct pair {
    struct claw_json_node *n;
    struct model *m;
};

static void same(struct pair p)
{
    struct claw_buf a, b;
    claw_buf_init(&a, 0);
    claw_buf_init(&b, 0);
    assert_int_equal(claw_json_node_write(p.n, &a), 0);
    model_write(p.m, &b);
    if (!claw_str_eq(claw_buf_str(&a), claw_buf_str(&b)))
        print_error("got  %.*s\nwant %.*s\n", CLAW_STR_FMT(claw_buf_str(&a)), CLAW_STR_FMT(claw_buf_str(&b)));
    assert_true(claw_str_eq(claw_buf_str(&a), claw_buf_str(&b)));
    struct claw_json_value v = claw_json_node_value(p.n);
    if (v.raw.ptr) assert_true(claw_str_eq(v.raw, claw_buf_str(&b)));
    claw_buf_fini(&a);
    claw_buf_fini(&b);
}

static struct pair random_value(struct claw_arena *a, struct claw_json_doc *d)
{
    struct pair p = {NULL, model_random(a, 2)};
    struct claw_buf b;
    claw_buf_init(&b, 0);
    model_write(p.m, &b);
    assert_int_equal(claw_json_node_new(d, claw_buf_str(&b), &p.n), 0);
    claw_buf_fini(&b);
    return p;
}

static size_t model_size(const struct model *m)
{
    size_t n = 1;
    for (size_t i = 0; i < m->n; i++) n += model_size(m->kids[i]);
    return n;
}

/* A child of a known node, known by the same way in both. */
static struct pair child_of(struct pair p)
{
    char text[32], raw[32];
    struct claw_str key;
    struct pair none = {NULL, NULL};
    if (!p.m->n) return none;
    size_t i = roll((unsigned)p.m->n);
    if (p.m->type == '[') return (struct pair){at(p.n, i), p.m->kids[i]};
    key_of(p.m->keys[i], text, raw);
    struct claw_json_node *n = claw_json_node_member(p.n, i, &key, NULL);
    assert_true(claw_str_eqz(key, text));
    if (roll(2)) return (struct pair){n, p.m->kids[i]};
    return (struct pair){get(p.n, text), p.m->kids[model_find(p.m, p.m->keys[i])]};
}

static void edit(struct claw_arena *a, struct pair to, struct pair v)
{
    char text[32], raw[32];
    int key = (int)roll(40);
    key_of(key, text, raw);
    struct model *m = to.m;
    bool drop = m->n > 60 || roll(3) == 0;
    if (m->type == '{' && drop) {
        del(to.n, text);
        for (size_t i = m->n; i-- > 0;)
            if (m->keys[i] == key) model_remove(m, i);
    } else if (m->type == '{') {
        size_t i = model_find(m, key);
        set(to.n, text, v.n);
        if (i < m->n && m->kids[i] == v.m) return;
        struct model *in = model_take(a, m, v.m);
        if (i < m->n) model_remove(m, i);
        model_insert(m, i, key, in);
        assert_true((get(to.n, text) == v.n) == (in == v.m));
    } else if (drop) {
        size_t i = roll((unsigned)m->n + 1);
        assert_int_equal(claw_json_node_del_at(to.n, i), 0);
        if (i < m->n) model_remove(m, i);
    } else if (roll(2)) {
        size_t i = roll((unsigned)m->n + 2);
        int rc = claw_json_node_set_at(to.n, i, v.n);
        assert_int_equal(rc, i < m->n ? 0 : CLAW_EINVAL);
        if (rc || m->kids[i] == v.m) return;
        struct model *in = model_take(a, m, v.m);
        model_remove(m, i);
        model_insert(m, i, 0, in);
    } else {
        size_t i = roll((unsigned)m->n + 1);
        assert_int_equal(claw_json_node_insert(to.n, i, v.n), 0);
        model_insert(m, i, 0, model_take(a, m, v.m));
    }
}

static void agrees_with_the_model(uint64_t seed)
{
    enum { KNOWN = 40 };
    struct pair known[KNOWN];
    struct claw_arena a;
    struct claw_buf b;
    struct claw_json_doc *d;
    struct claw_json_err err;
    size_t n = 0;
    rng = seed * 0x9e3779b97f4a7c15u + 1;
    claw_arena_init(&a, NULL, 0, (size_t)512 << 20);
    claw_buf_init(&b, 0);
    struct model *root = model_random(&a, 0);
    root->is_root = true;
    model_write(root, &b);
    assert_int_equal(claw_json_doc_new(&a, claw_buf_str(&b), &d, &err), 0);
    known[n++] = (struct pair){claw_json_doc_root(d), root};
    for (int step = 0; step < 150; step++) {
        struct pair p = known[roll((unsigned)n)], v = roll(2) ? known[roll((unsigned)n)] : random_value(&a, d);
        struct pair c = roll(2) ? child_of(p) : v;
        if (c.n) known[n < KNOWN ? n++ : 1 + roll(KNOWN - 1)] = c;
        size_t in_tree = 0;
        for (struct model *up = p.m; up; up = up->parent) in_tree = model_size(up);
        if (p.m->type && in_tree + model_size(v.m) < 400) edit(&a, p, v);
        same(known[0]);
        if (step % 10 == 0)
            for (size_t i = 0; i < n; i++) same(known[i]);
    }
    claw_buf_fini(&b);
    claw_arena_reset(&a);
}

static void random_edits(void **state)
{
    for (uint64_t seed = 1; seed <= 150; seed++) agrees_with_the_model(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unchanged_is_the_same_bytes), cmocka_unit_test(change_copies_the_rest), cmocka_unit_test(wrong_kinds),
        cmocka_unit_test(arrays), cmocka_unit_test(duplicates), cmocka_unit_test(what_is_taken_out_lives_on),
        cmocka_unit_test(what_is_in_a_document_is_copied), cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(a_bounded_buffer_gets_all_or_nothing), cmocka_unit_test(many_keys),
        cmocka_unit_test(memory_is_bounded), cmocka_unit_test(random_edits),
    };
    return cmocka_run_group_tests_name("json_doc", tests, setup, teardown);
}
