/* conf: a configuration that is loaded, and what came of it. */
#ifndef CLAW_TEST_CONF_PART_H
#define CLAW_TEST_CONF_PART_H

#include "base/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* One load and what came of it; the problems' texts joined by newlines. */
struct loaded {
    struct claw_arena arena;
    struct claw_conf_problems problems;
    struct claw_conf *conf;
    char *text;
};

static const char *state_directory;

static inline const char *env(const char *name)
{
    if (strcmp(name, "STATE_DIRECTORY") == 0) return state_directory;
    static const char *const vars[][2] = {
        {"OPENAI_API_KEY", "sk-openai-0123456789"}, {"ANTHROPIC_API_KEY", "sk-ant-0123456789"},
        {"GEMINI_API_KEY", "gm-0123456789"},        {"PORT", "9000"},
        {"EMPTY", ""},                              {"DOLLAR", "a${PORT}$$b"},
        {"YES", "true"},                            {"TYPE", "opnai-secret"},
    };
    for (size_t i = 0; i < sizeof vars / sizeof *vars; i++)
        if (strcmp(vars[i][0], name) == 0) return vars[i][1];
    return NULL;
}

static inline struct loaded start(void)
{
    struct loaded l = {.conf = NULL};
    claw_arena_init(&l.arena, NULL, 0, 1 << 20);
    return l;
}

static inline void collect(struct loaded *l, int err)
{
    size_t size = 1, n = 0;
    for (struct claw_conf_problem *p = l->problems.first; p; p = p->next, n++) size += strlen(p->text) + 1;
    assert_int_equal(n, l->problems.n);
    l->text = calloc(1, size);
    assert_non_null(l->text);
    for (struct claw_conf_problem *p = l->problems.first; p; p = p->next) {
        strcat(l->text, p->text);
        if (p->next) strcat(l->text, "\n");
    }
    if (err) assert_int_equal(err, CLAW_EINVAL);
    assert_int_equal(err == 0, l->problems.n == 0);
    assert_int_equal(err == 0, l->conf != NULL);
}

static inline void parse(struct loaded *l, const char *yaml, size_t len)
{
    *l = start();
    claw_conf_problems_init(&l->problems, &l->arena);
    collect(l, claw_conf_parse("openclaw.yaml", (struct claw_str){yaml, len}, env, &l->conf, &l->problems));
}

static inline void done(struct loaded *l)
{
    claw_conf_free(l->conf);
    free(l->text);
    claw_arena_reset(&l->arena);
}

/* Exactly these problems, or none. */
static inline void expect(const char *yaml, const char *problems)
{
    struct loaded l;
    parse(&l, yaml, strlen(yaml));
    assert_string_equal(l.text, problems);
    done(&l);
}

#define UPSTREAMS "upstreams:\n  openai:\n    type: openai\n    api_key: x\n  mock: {type: mock}\n"
#define ROUTES "routes:\n  - strategy: {upstream: openai}\n"
#define BASE UPSTREAMS ROUTES /* 7 lines */

/* The problems of a whole file that ends with `part`, which begins on line 8. */
static inline void expect_part(const char *part, const char *problems)
{
    char yaml[8192];
    snprintf(yaml, sizeof yaml, BASE "%s", part);
    expect(yaml, problems);
}

static inline struct claw_conf *load_part(struct loaded *l, const char *part)
{
    char yaml[8192];
    snprintf(yaml, sizeof yaml, BASE "%s", part);
    parse(l, yaml, strlen(yaml));
    assert_string_equal(l->text, "");
    return l->conf;
}

static inline void assert_str(struct claw_str s, const char *z)
{
    if (!claw_str_eqz(s, z)) fail_msg("\"%.*s\" is not \"%s\"", CLAW_STR_FMT(s), z);
}

#endif
