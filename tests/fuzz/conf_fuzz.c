/* Any bytes as openclaw.yaml: either a configuration or at least one problem, each problem one line that begins with
 * the file's name; the same bytes give the same answer; a configuration's names are found again by path. */
#include "base/conf.h"

#include <stdio.h>
#include <stdlib.h>

static const char *env(const char *name) { return name[0] == 'A' ? "8080" : name[0] == 'B' ? "a\nb${C}" : NULL; }

static uint64_t parse(struct claw_str yaml, struct claw_arena *a, size_t *problems)
{
    struct claw_conf_problems p;
    struct claw_conf *c = NULL;
    uint64_t hash = 0;
    claw_conf_problems_init(&p, a);
    int err = claw_conf_parse("f.yaml", yaml, env, &c, &p);
    CLAW_ASSERT((err == 0) == (p.n == 0));
    CLAW_ASSERT((err == 0) == (c != NULL));
    size_t n = 0;
    for (struct claw_conf_problem *at = p.first; at; at = at->next, n++) {
        unsigned line, column;
        CLAW_ASSERT(sscanf(at->text, "f.yaml:%u:%u: ", &line, &column) == 2 && line && column);
        CLAW_ASSERT(!strchr(at->text, '\n'));
    }
    CLAW_ASSERT(n == p.n && n <= 100);
    if (c) {
        CLAW_ASSERT(claw_conf_at(c, "routes") && claw_conf_at(c, "upstreams"));
        for (size_t i = 0; i < c->upstreams_n; i++)
            CLAW_ASSERT(c->upstreams[i].name.len && c->upstreams[i].timeout_ms && c->upstreams[i].type.len);
        for (size_t i = 0; i < c->routes_n; i++) CLAW_ASSERT(c->routes[i].id.len);
        CLAW_ASSERT(c->server.timeout_ms && c->server.workers && c->server.max_body_bytes);
        hash = c->hash;
    }
    *problems = n;
    claw_conf_free(c);
    return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct claw_str yaml = {(const char *)data, size};
    struct claw_arena a;
    size_t first, second;
    claw_arena_init(&a, NULL, 0, 1 << 20);
    uint64_t hash = parse(yaml, &a, &first);
    CLAW_ASSERT(hash == parse(yaml, &a, &second) && first == second);
    claw_arena_reset(&a);
    return 0;
}
