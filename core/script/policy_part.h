/* policy_part: what policy.c, decide and explain.c share. Nobody else includes it but their tests. */
#ifndef CLAW_SCRIPT_POLICY_PART_H
#define CLAW_SCRIPT_POLICY_PART_H

#include "script/api.h"
#include "script/policy.h"
#include "script/task.h"

struct claw_policy_source {
    struct claw_str name, file, text; /* "x", "policies/x.lua" */
    bool builtin;
};

struct claw_policies {
    struct claw_arena arena;
    struct claw_policy_source *items; /* sorted by name */
    size_t n;
    struct claw_policy_source *libs; /* of the folder's lib/, by what `require "lib.NAME"` calls them */
    size_t libs_n;
    uint64_t hash;
};

/* The engine's functions, as references in the registry. */
#define CLAW_ENGINE_MAP(X) X(ADMIT, "admit") X(ROUTE, "route") X(DECIDE, "decide") X(REQUEST, "request") X(RETRY, "retry") \
    X(TRACE, "trace") X(CACHES, "caches") X(RECAST, "recast") X(ERROR, "error") X(RESPONSE, "response") X(EVENT, "event") X(FINISH, "finish") X(EXPLAIN, "explain") \
    X(EXPLAIN_ATTEMPT, "explain_attempt") X(EXPLAINED, "explained")
enum claw_engine_fn {
#define CLAW_ENGINE_ENUM(id, name) CLAW_ENGINE_##id,
    CLAW_ENGINE_MAP(CLAW_ENGINE_ENUM)
#undef CLAW_ENGINE_ENUM
    CLAW_ENGINE_COUNT
};

/* What a numbered list of the engine's router says, read once. */
struct claw_decision {
    int route;
    unsigned n; /* 0: not read yet */
    struct claw_candidate candidates[CLAW_CANDIDATES_MAX];
    struct claw_conf_price prices[CLAW_CANDIDATES_MAX]; /* -1: not given */
};
#define CLAW_DECISIONS_MAX 4096

#define CLAW_POLICY_EVENTS 512 /* events one event may become: a whole answer in one event, translated, is many */

struct claw_policy_vm {
    uint32_t magic;
    struct claw_vm *vm;
    struct claw_generation *gen; /* a reference */
    struct claw_worker_ctx *ctx;
    int engine;                  /* reference to the engine itself */
    int fn[CLAW_ENGINE_COUNT];
    bool admits;
    struct claw_decision *decisions[CLAW_DECISIONS_MAX]; /* by number - 1 */
    struct claw_arena decided;   /* theirs */
    int key_index, key_mask, key_model; /* the names of a candidate's fields, in the registry: read for every request */
    struct claw_buf event_bytes; /* of the last event's outcome */
    struct claw_policy_event events[CLAW_POLICY_EVENTS];
};
#define CLAW_POLICY_MAGIC 0x50564d20u

/* Push an engine function. */
void claw_policy_push_fn(lua_State *L, const struct claw_policy_vm *p, enum claw_engine_fn fn);
/* Log, count and hand up a failure. */
int claw_policy_failed(struct claw_policy_vm *p, struct claw_req *r, const struct claw_task_error *e,
                       const char *hook, struct claw_policy_error *err);
/* A request made from a text and decided by the engine, without any network: what -explain and -replay share. Zeroed with
 * `out` before open; close always. */
struct claw_explained {
    struct claw_policy_vm *p;
    struct claw_req *r;
    struct claw_buf *out; /* the report, and what fails in making it */
    struct claw_generation_local local;
    int rc;
    const char *kind;     /* of the decision: see lua/claw/explain.lua; NULL: none was begun */
    int status;
    struct claw_str code, text; /* in the request's arena */
    struct claw_str limits;     /* lines of claw_limits_explain, while the report is made */
    struct claw_policy_error err;
};
/* As claw_policy_explain takes it. */
int claw_explained_open(struct claw_explained *x, struct claw_policy_vm *p, struct claw_str request) CLAW_MUSTCHECK;
/* admit and route, with `attempt` also request. CLAW_EPOLICY: a policy failed, which is a decision too. */
int claw_explained_decide(struct claw_explained *x, bool attempt) CLAW_MUSTCHECK;
/* Policies are no longer watched; the report is appended to out. */
int claw_explained_end(struct claw_explained *x) CLAW_MUSTCHECK;
void claw_explained_close(struct claw_explained *x);

/* As claw_policy_vm_new and claw_policy_prove, with an engine made by `source` (a chunk that returns what
 * require("claw.engine") would) instead of the embedded one. For tests. */
int claw_policy_vm_new_from(struct claw_generation *gen, struct claw_str source, struct claw_policy_vm **out,
                            char **why) CLAW_MUSTCHECK;
int claw_policy_prove_from(struct claw_generation *gen, struct claw_str source, struct claw_conf_problems *problems) CLAW_MUSTCHECK;

#endif
