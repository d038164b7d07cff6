/* fixture: a generation, a VM and requests without a network, for the script floor's tests. Each test file includes
 * it once; what one of them does not use is dropped by the compiler. */
#ifndef CLAW_TEST_SCRIPT_FIXTURE_H
#define CLAW_TEST_SCRIPT_FIXTURE_H

#include "script/pattern.h"
#include "script/policy_part.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FIXTURE_USED __attribute__((unused))

FIXTURE_USED static const char two_upstreams[] =
    "upstreams:\n"
    "  alpha:\n"
    "    type: openai\n"
    "    base_url: http://127.0.0.1:9001/v1\n"
    "    api_key: sk-test-alpha-0001\n"
    "    models: [gpt-4, gpt-4o-mini]\n"
    "    cost_per_million_input_tokens: 30\n"
    "    cost_per_million_output_tokens: 60\n"
    "  beta:\n"
    "    type: anthropic\n"
    "    base_url: http://127.0.0.1:9002/v1\n"
    "    api_key: sk-test-beta-0002\n"
    "    models: [claude-3]\n"
    "routes:\n"
    "  - id: chat\n"
    "    match: { path: /v1/chat/completions }\n"
    "    strategy: { type: failover, upstreams: [alpha, beta] }\n";

struct fixture {
    struct claw_arena arena; /* problems */
    struct claw_conf_problems problems;
    struct claw_generation *gen;
    struct claw_loop loop;
    struct claw_worker_ctx ctx;
    struct claw_policy_vm *p;
    char dir[256];           /* "": none */
};

FIXTURE_USED static void fixture_print(const struct fixture *f)
{
    for (const struct claw_conf_problem *p = f->problems.first; p; p = p->next) print_message("problem: %s\n", p->text);
}

/* The first problem's text, "" without one. */
FIXTURE_USED static const char *fixture_problem(const struct fixture *f)
{
    return f->problems.first ? f->problems.first->text : "";
}

FIXTURE_USED static void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    claw_arena_init(&f->arena, NULL, 0, 16u << 20);
    claw_conf_problems_init(&f->problems, &f->arena);
}

/* A folder with policies/ inside, named in f->dir. */
FIXTURE_USED static void fixture_make_dir(struct fixture *f)
{
    const char *base = getenv("TMPDIR");
    snprintf(f->dir, sizeof f->dir, "%s/claw_script_XXXXXX", base ? base : P_tmpdir);
    assert_non_null(mkdtemp(f->dir));
}

FIXTURE_USED static void fixture_write(struct fixture *f, const char *name, const void *text, size_t n)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(text, 1, n, to), n);
    assert_int_equal(fclose(to), 0);
}

/* The configuration as if it were DIR/openclaw.yaml, its policies read. */
FIXTURE_USED static int fixture_load(struct fixture *f, const char *yaml)
{
    struct claw_conf *conf;
    char path[300];
    struct claw_policies *policies;
    snprintf(path, sizeof path, "%s/openclaw.yaml", f->dir[0] ? f->dir : "nowhere");
    int rc = claw_conf_parse(path, claw_str_of(yaml), NULL, &conf, &f->problems);
    if (rc != 0) return rc;
    rc = claw_policies_read(conf, &policies, &f->problems);
    if (rc != 0) {
        claw_conf_free(conf);
        return rc;
    }
    rc = claw_generation_new(conf, &f->gen, &f->problems);
    if (rc != 0) {
        claw_policies_free(policies);
        return rc;
    }
    f->gen->policies = policies;
    f->gen->policies_free = (void (*)(void *))claw_policies_free;
    return 0;
}

/* A VM for f->gen with this engine; ptr NULL: the real one. */
FIXTURE_USED static void fixture_vm(struct fixture *f, const char *engine)
{
    char *why = NULL;
    int rc = claw_policy_vm_new_from(f->gen, claw_str_of(engine), &f->p, &why);
    if (rc != 0) print_message("why: %s\n", why ? why : "?");
    free(why);
    assert_int_equal(rc, 0);
    assert_int_equal(claw_loop_init(&f->loop), 0);
    f->ctx.loop = &f->loop;
    f->ctx.metrics = claw_metrics_shard_new();
    assert_non_null(f->ctx.metrics);
    assert_int_equal(claw_pool_new(&f->loop, f->ctx.metrics, &f->ctx.pool), 0);
    assert_int_equal(claw_generation_local_new(f->gen, &f->loop, f->ctx.pool, &claw_policy_ops_lua, f->p, &f->ctx.current), 0);
    claw_policy_vm_attach(f->p, &f->ctx, f->ctx.current);
}

FIXTURE_USED static struct claw_str fixture_copy(struct claw_req *r, const char *z)
{
    return (struct claw_str){claw_arena_dup(&r->arena, z, strlen(z)), strlen(z)};
}

/* A request; `headers` is name, value … NULL. */
FIXTURE_USED static struct claw_req *fixture_req(struct fixture *f, const char *path, const char *body, ...)
{
    struct claw_req *r = claw_req_new(&f->ctx, NULL);
    assert_non_null(r);
    snprintf(r->peer, sizeof r->peer, "192.0.2.7");
    r->head = claw_arena_zalloc(&r->arena, sizeof *r->head);
    r->head->method = claw_str_of(body ? "POST" : "GET");
    r->head->path = r->head->target = fixture_copy(r, path);
    const char *mark = strchr(r->head->path.ptr, '?');
    if (mark) {
        r->head->query = claw_str_of(mark + 1);
        r->head->path.len = (size_t)(mark - r->head->path.ptr);
    }
    r->head->headers = claw_arena_zalloc(&r->arena, 16 * sizeof *r->head->headers);
    va_list ap;
    va_start(ap, body);
    for (const char *name; (name = va_arg(ap, const char *));) {
        struct claw_header *h = &r->head->headers[r->head->n++];
        h->name = claw_str_of(name);
        h->value = claw_str_of(va_arg(ap, const char *));
        h->id = claw_header_id_of(h->name);
    }
    va_end(ap);
    if (!body) return r;
    struct claw_json_err e;
    assert_int_equal(claw_buf_add_z(&r->body, body), 0);
    r->has_json = claw_json_scan(claw_buf_str(&r->body), &r->arena, &r->json, &e) == 0;
    if (!r->has_json) return r;
    struct claw_json_value v = claw_json_top_get(&r->json, CLAW_STR("model"));
    if (v.type == CLAW_JSON_STRING) assert_int_equal(claw_json_text(v, &r->arena, &r->model), 0);
    r->stream = claw_json_top_get(&r->json, CLAW_STR("stream")).type == CLAW_JSON_TRUE;
    return r;
}

FIXTURE_USED static void fixture_req_free(struct claw_req *r)
{
    claw_policy_ops_lua.release(r->gen->policy, r);
    claw_req_free(r);
}

FIXTURE_USED static void fixture_fini(struct fixture *f)
{
    while (f->ctx.spare) {
        struct claw_req *r = f->ctx.spare;
        f->ctx.spare = r->next;
        free(r);
    }
    if (f->ctx.current) {
        claw_generation_local_unref(f->ctx.current);
        claw_loop_turn(&f->loop, false);
        claw_pool_free(f->ctx.pool);
        claw_loop_turn(&f->loop, false);
        assert_int_equal(claw_loop_fini(&f->loop, true), 0);
        claw_metrics_reset();
    }
    claw_policy_vm_free(f->p);
    if (f->gen) claw_generation_unref(f->gen);
    claw_arena_reset(&f->arena);
    if (!f->dir[0]) return;
    const char *const inside[] = {"/policies", ""};
    for (size_t i = 0; i < 2; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s%s", f->dir, inside[i]);
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d));) {
            snprintf(path, sizeof path, "%s%s/%.250s", f->dir, inside[i], e->d_name);
            if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) remove(path);
        }
        if (d) closedir(d);
        snprintf(path, sizeof path, "%s%s", f->dir, inside[i]);
        rmdir(path);
    }
}

/* ---- Lua as the test's language ----------------------------------------------------------------------------- */

struct fixture_chunk {
    const char *code;
    struct claw_req *r;
};

/* Runs the code with the globals r, req and core; what it raises comes out of claw_task_call. */
FIXTURE_USED static void fixture_chunk_in(lua_State *L, void *arg)
{
    struct fixture_chunk *x = arg;
    if (claw_vm_load(L, claw_str_of(x->code), "=test", true) != 1) lua_error(L);
    claw_api_push_core(L);
    lua_setglobal(L, "core");
    if (x->r) {
        lua_pushlightuserdata(L, x->r);
        lua_setglobal(L, "r");
        claw_api_push(L, x->r, CLAW_API_REQ);
        lua_setglobal(L, "req");
    }
    lua_call(L, 0, 0);
}

/* NULL: the code ran; else the message (lives until the next call). */
FIXTURE_USED static const char *fixture_lua(struct claw_vm *vm, struct claw_req *r, const char *code)
{
    static char message[1024];
    struct claw_arena a;
    struct claw_task_error e;
    struct fixture_chunk x = {code, r};
    claw_arena_init(&a, NULL, 0, 1u << 20);
    int rc = claw_task_call(vm, fixture_chunk_in, &x, &a, &e);
    if (rc != 0) snprintf(message, sizeof message, "%.*s", CLAW_STR_FMT(e.message));
    claw_arena_reset(&a);
    return rc == 0 ? NULL : message;
}

#define fixture_runs(vm, r, code)                                         \
    do {                                                                  \
        const char *said = fixture_lua(vm, r, code);                      \
        if (said) fail_msg("%s\nin: %s", said, code);                     \
    } while (0)
#define fixture_raises(vm, r, code, text)                                 \
    do {                                                                  \
        const char *said = fixture_lua(vm, r, code);                      \
        if (!said) fail_msg("nothing was raised by: %s", code);           \
        if (!strstr(said, text)) fail_msg("\"%s\" lacks \"%s\"\nin: %s", said, text, code); \
    } while (0)

#endif
