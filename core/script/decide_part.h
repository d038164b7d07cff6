/* decide_part: what the files of decide share. For these files only.
 */
#ifndef CLAW_SCRIPT_DECIDE_PART_H
#define CLAW_SCRIPT_DECIDE_PART_H

#include "script/policy_part.h"

#include <lauxlib.h>

#define CLAW_DECIDE_EXACT 9007199254740992.0 /* past it a number of Lua's skips integers */

/* What one op hands to its protected half. */
struct claw_decide {
    struct claw_policy_vm *p;
    struct claw_req *r;
    int rc; /* CLAW_EREQ_MEM: out of the request's memory */
    struct claw_str in, type;
    const struct claw_failure *failure;
    struct claw_str body;   /* of response: what the client gets */
    struct claw_policy_answer *answer; /* of admit and route */
    int events;
    enum claw_retry_action action;
    uint64_t after_ms;
};

/* The string at idx, for as long as it lies there. */
static inline struct claw_str claw_decide_text(lua_State *L, int idx)
{
    struct claw_str s;
    s.ptr = lua_tolstring(L, idx, &s.len);
    return s;
}

static inline bool claw_decide_is_false(lua_State *L, int idx) { return lua_isboolean(L, idx) && !lua_toboolean(L, idx); }

/* A copy in the request's memory; raises without. */
struct claw_str claw_decide_keep(lua_State *L, struct claw_decide *c, struct claw_str s);
/* Is there an integer of min to max at idx? */
bool claw_decide_is_whole(lua_State *L, int idx, double min, double max);
/* For messages: the value at idx, short; on the stack. */
const char *claw_decide_show(lua_State *L, int idx);
void claw_decide_push_str(lua_State *L, struct claw_str s); /* nil when empty */
/* The index, from 1, of the upstream that is tried; nil: none. */
void claw_decide_push_candidate(lua_State *L, const struct claw_req *r);
/* Call an op's protected half, measured; a failure is logged, counted and told in err. */
int claw_decide_run(struct claw_decide *c, claw_task_fn fn, const char *hook, struct claw_policy_error *err);
/* Run the hook whose function and arguments were pushed, or go on with the one that waited; true: it waits (again). */
bool claw_decide_waits(lua_State *L, struct claw_decide *c, const char *hook, int nargs, int nresults);
/* An answer in an upstream's place: false, status, body, content type and policy lie at 1. */
void claw_decide_read_answer(lua_State *L, struct claw_decide *c, const char *hook);
/* Status, code and message of a policy's denial, from idx on. */
void claw_decide_read_denial(lua_State *L, struct claw_decide *c, int idx);

/* The ops of struct claw_policy_ops that have files of their own. */
int claw_decide_route(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err);
int claw_decide_request(void *vm, struct claw_req *r, struct claw_policy_error *err);
int claw_decide_response(void *vm, struct claw_req *r, struct claw_str body, struct claw_str *out, struct claw_policy_error *err);
int claw_decide_error(void *vm, struct claw_req *r, int status, struct claw_str body, struct claw_str *out, struct claw_policy_error *err);
int claw_decide_event(void *vm, struct claw_req *r, struct claw_str type, struct claw_str data,
                 const struct claw_policy_event **out, int *n, struct claw_policy_error *err);
int claw_decide_caches(void *vm, struct claw_req *r, unsigned *which, struct claw_policy_error *err);
int claw_decide_recast(void *vm, struct claw_req *r, struct claw_str body, bool stream, struct claw_buf *out, struct claw_policy_error *err);
int claw_decide_finish(void *vm, struct claw_req *r, struct claw_policy_error *err);

#endif
