/* control, its part that makes a generation of files: read, check, prove. */
#include "app/control_part.h"

#include <stdlib.h>

#define PROBLEMS_CAP (1u << 20)
#define ROUNDS 4u /* of fetching secrets: each time the file wants others */

static void place_mocks(struct claw_conf *conf, uint16_t port)
{
    for (size_t i = 0; i < conf->upstreams_n; i++) {
        struct claw_conf_upstream *u = &conf->upstreams[i];
        if (!claw_str_eqz(u->type, "mock") || u->url.text.len) continue;
        u->url.tls = false;
        u->url.host = CLAW_STR("127.0.0.1");
        u->url.port = port;
        u->url.path = CLAW_STR("/v1");
        u->url.authority = CLAW_STR("mock");
    }
}

static uint64_t hash_file(uint64_t h, const char *path)
{
    struct claw_buf b;
    claw_buf_init(&b, 1u << 20);
    if (path && claw_buf_add_file(&b, path) == 0) h = claw_str_hash(claw_buf_str(&b), h);
    claw_buf_fini(&b);
    return h;
}

static void free_policies(void *p) { claw_policies_free(p); }

/* CLAW_EAGAIN: secrets are to be fetched, those of *lacking, which is the caller's. */
static int build(const char *path, uint16_t mock_port, struct claw_secrets *secrets, const struct claw_control_draft *draft, struct claw_generation **out,
                 struct claw_conf **lacking, struct claw_conf_problems *problems)
{
    struct claw_conf *conf = NULL;
    struct claw_policies *policies;
    struct claw_generation *gen;
    problems->rest = &conf;
    int rc = claw_conf_load_with(path, NULL, claw_secrets_keeper(secrets), &conf, problems);
    if (!conf) return rc;
    if (rc == CLAW_EAGAIN || (rc == 0 && !claw_secrets_fit(secrets, &conf->secrets))) {
        *lacking = conf;
        return CLAW_EAGAIN;
    }
    place_mocks(conf, mock_port);
    rc = claw_policies_read(conf, &policies, problems);
    if (rc != 0) {
        claw_conf_free(conf);
        return rc;
    }
    rc = draft ? claw_policies_set(policies, draft->name, draft->text) : 0;
    if (rc != 0) {
        if (rc == CLAW_EINVAL) claw_conf_problem_add(problems, conf, "policies.dir", "the policy's name or text cannot be one");
        claw_policies_free(policies);
        claw_conf_free(conf);
        return rc;
    }
    rc = claw_generation_new(conf, &gen, problems);
    if (rc != 0) {
        claw_policies_free(policies);
        return rc;
    }
    gen->policies = policies;
    gen->policies_free = free_policies;
    gen->policies_hash = claw_policies_hash(policies);
    uint64_t h = gen->hash ^ gen->policies_hash;
    h = hash_file(h, gen->conf->server.tls.cert);
    gen->hash = hash_file(h, gen->conf->server.tls.key);
    *out = gen;
    return 0;
}

static void report_problems(const struct claw_conf_problems *problems, struct claw_buf *report)
{
    for (struct claw_conf_problem *p = problems->first; p; p = p->next)
        if (claw_buf_add_fmt(report, "%s\n", p->text) != 0) return;
    if (problems->n == 0 && claw_buf_add_z(report, "out of memory\n") != 0) return;
    claw_log_redact(report);
}

int claw_control_build_once(const char *path, uint16_t mock_port, struct claw_secrets *secrets, const struct claw_control_draft *draft,
                            struct claw_generation **out, struct claw_conf **lacking, struct claw_buf *report)
{
    struct claw_arena arena;
    struct claw_conf_problems problems;
    claw_arena_init(&arena, NULL, 0, PROBLEMS_CAP);
    claw_conf_problems_init(&problems, &arena);
    struct claw_generation *gen = NULL;
    int rc = build(path, mock_port, secrets, draft, &gen, lacking, &problems);
    if (rc == 0) rc = claw_policy_prove(gen, &problems);
    if (rc == 0 && problems.n) rc = CLAW_EINVAL; /* unknown keys; the rest was looked at for more problems */
    if (rc != 0 && rc != CLAW_EAGAIN) {
        report_problems(&problems, report);
        if (gen) claw_generation_unref(gen);
    } else if (rc == 0) {
        *out = gen;
    }
    claw_arena_reset(&arena);
    return rc;
}

int claw_control_build(const char *path, uint16_t mock_port, struct claw_secrets *secrets, struct claw_generation **out, struct claw_buf *report)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct claw_conf *lacking = NULL;
        int rc = claw_control_build_once(path, mock_port, secrets, NULL, out, &lacking, report);
        if (rc != CLAW_EAGAIN) return rc;
        rc = claw_secrets_fetch_now(secrets, &lacking->secrets);
        claw_conf_free(lacking);
        if (rc != 0) return claw_buf_add_fmt(report, "%s: cannot fetch secrets: %s\n", path, claw_err_text(rc)) == 0 ? rc : CLAW_ENOMEM;
    }
    return claw_buf_add_fmt(report, "%s: the file changes while its secrets are fetched\n", path) == 0 ? CLAW_EINVAL : CLAW_ENOMEM;
}

int claw_control_build_draft(struct claw_control *c, const struct claw_control_draft *draft, struct claw_generation **out, struct claw_buf *report)
{
    struct claw_conf *lacking = NULL;
    int rc = claw_control_build_once(c->path, c->mock_port, c->renew.secrets, draft, out, &lacking, report);
    if (rc != CLAW_EAGAIN) return rc;
    claw_conf_free(lacking);
    rc = claw_buf_add_fmt(report, "%s: secrets that it refers to are not fetched yet: reload first\n", c->path);
    return rc == 0 ? CLAW_EINVAL : rc;
}
