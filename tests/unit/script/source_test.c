/* source: the policies' texts: where they come from, which are taken, and their hash. */
#include "policy_part.h"

static const struct claw_policy_source *source_of(const char *name)
{
    const struct claw_policies *p = f.gen->policies;
    for (size_t i = 0; i < p->n; i++)
        if (claw_str_eqz(p->items[i].name, name)) return &p->items[i];
    return NULL;
}

static void sources_are_read_by_name(void **state)
{
    make_policies();
    fixture_write(&f, "policies/b.lua", "return 2", 8);
    fixture_write(&f, "policies/a-1.lua", "return 1", 8);
    fixture_write(&f, "policies/.hidden.lua", "x", 1);
    fixture_write(&f, "policies/notes.txt", "x", 1);
    fixture_write(&f, "policies/empty.lua", "", 0);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    const struct claw_policies *p = f.gen->policies;
    const struct claw_policy_source *a = source_of("a-1"), *b = source_of("b");
    assert_true(a && b && a < b && source_of("empty") && !source_of(".hidden") && !source_of("notes"));
    for (size_t i = 1; i < p->n; i++) assert_true(strcmp(p->items[i - 1].name.ptr, p->items[i].name.ptr) < 0);
    assert_true(claw_str_eqz(a->file, "policies/a-1.lua") && claw_str_eqz(a->text, "return 1") && !a->builtin);
    if (claw_embedded_policies[0].name) {
        const struct claw_policy_source *shipped = source_of(claw_embedded_policies[0].name);
        assert_true(shipped && shipped->builtin && shipped->text.len == claw_embedded_policies[0].size);
    }
}

static uint64_t hash_with(const char *name, const char *text)
{
    struct fixture g;
    fixture_init(&g);
    fixture_make_dir(&g);
    char path[300];
    snprintf(path, sizeof path, "%s/policies", g.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "policies/%s", name);
    fixture_write(&g, path, text, strlen(text));
    assert_int_equal(fixture_load(&g, two_upstreams), 0);
    uint64_t h = claw_policies_hash(g.gen->policies);
    fixture_fini(&g);
    return h;
}

static void the_hash_knows_names_and_texts(void **state)
{
    uint64_t h = hash_with("a.lua", "return 1");
    assert_true(h == hash_with("a.lua", "return 1"));
    assert_true(h != hash_with("a.lua", "return 2"));
    assert_true(h != hash_with("b.lua", "return 1"));
}

static void refuse_source(const char *name, const char *text, size_t n, const char *says_it)
{
    fixture_fini(&f);
    fixture_init(&f);
    make_policies();
    char path[300];
    snprintf(path, sizeof path, "policies/%s", name);
    fixture_write(&f, path, text, n);
    assert_int_equal(fixture_load(&f, two_upstreams), CLAW_EINVAL);
    if (!strstr(fixture_problem(&f), says_it)) fail_msg("\"%s\" lacks \"%s\"", fixture_problem(&f), says_it);
}

static void odd_sources_are_refused(void **state)
{
    char *big = calloc(1, (1u << 20) + 1);
    refuse_source("a.lua", "\x1bLJ\x02", 4, "policies/a.lua: bytecode; only Lua source text is loaded");
    refuse_source("a b.lua", "x", 1, "policies/a b.lua: a policy's name is made of letters");
    refuse_source("big.lua", big, (1u << 20) + 1, "policies/big.lua: larger than 1 MB");
    free(big);
    fixture_fini(&f);
    fixture_init(&f);
    make_policies();
    char path[300];
    snprintf(path, sizeof path, "%s/policies/folder.lua", f.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(fixture_load(&f, two_upstreams), CLAW_EINVAL);
    assert_non_null(strstr(fixture_problem(&f), "policies/folder.lua: not a file"));
}

static void a_missing_folder_is_an_empty_one(void **state)
{
    fixture_make_dir(&f);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
}

static void a_users_file_wins_over_a_shipped_one(void **state)
{
    if (!claw_embedded_policies[0].name) skip();
    char path[300];
    make_policies();
    snprintf(path, sizeof path, "policies/%s.lua", claw_embedded_policies[0].name);
    fixture_write(&f, path, "return 'mine'", 13);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    assert_false(source_of(claw_embedded_policies[0].name)->builtin);
    assert_true(claw_str_eqz(source_of(claw_embedded_policies[0].name)->text, "return 'mine'"));
}

static void count_text(void *arg, const struct claw_policy_text *t)
{
    unsigned *n = arg;
    n[0]++;
    n[1] += t->builtin;
}

static void texts_can_be_put_in_their_place(void **state)
{
    make_policies();
    fixture_write(&f, "policies/b.lua", "return 2", 8);
    assert_int_equal(fixture_load(&f, two_upstreams), 0);
    struct claw_policies *p = f.gen->policies;
    unsigned before[2] = {0, 0}, after[2] = {0, 0};
    uint64_t hash = claw_policies_hash(p);
    claw_policies_each(p, count_text, before);
    assert_int_equal(claw_policies_set(p, CLAW_STR("b"), CLAW_STR("return 2")), 0);
    assert_true(claw_policies_hash(p) == hash); /* the same again */
    assert_int_equal(claw_policies_set(p, CLAW_STR("b"), CLAW_STR("return 3")), 0);
    assert_int_equal(claw_policies_set(p, CLAW_STR("a"), CLAW_STR("return 1")), 0);
    assert_true(claw_policies_hash(p) != hash);
    assert_true(claw_str_eqz(source_of("b")->text, "return 3") && claw_str_eqz(source_of("b")->file, "policies/b.lua"));
    assert_true(claw_str_eqz(source_of("a")->file, "policies/a.lua") && !source_of("a")->builtin && source_of("a") < source_of("b"));
    if (before[1]) {
        assert_int_equal(claw_policies_set(p, claw_str_of(claw_embedded_policies[0].name), CLAW_STR("return 'mine'")), 0);
        assert_false(source_of(claw_embedded_policies[0].name)->builtin);
    }
    claw_policies_each(p, count_text, after);
    assert_true(after[0] == before[0] + 1 && after[1] + (before[1] > 0) == before[1]);
    assert_int_equal(claw_policies_set(p, CLAW_STR("../x"), CLAW_STR("return 1")), CLAW_EINVAL);
    assert_int_equal(claw_policies_set(p, CLAW_STR(""), CLAW_STR("return 1")), CLAW_EINVAL);
    assert_int_equal(claw_policies_set(p, CLAW_STR("c"), CLAW_STR("\x1bLJ")), CLAW_EINVAL);
    claw_policies_each(NULL, count_text, after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(sources_are_read_by_name), T(the_hash_knows_names_and_texts), T(odd_sources_are_refused),
        T(a_missing_folder_is_an_empty_one), T(a_users_file_wins_over_a_shipped_one), T(texts_can_be_put_in_their_place),
    };
    return cmocka_run_group_tests(tests, quiet, loud);
}
