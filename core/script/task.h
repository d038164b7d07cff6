/* task: every call from C into Lua.
 *
 *   claw_task_call   runs a C function of this floor under protection on the VM's main state. Everything that may
 *                    raise (pushing strings, reading tables, calling Lua) happens in there, so nothing ever unwinds
 *                    through a frame that owns memory. Costs no allocation.
 *   claw_task_run    from inside of it: runs a Lua function on a coroutine of its own, for hooks that may wait.
 *                    Coroutines are kept and used again.
 *
 * A failure is told as policy, hook, message and traceback. What a policy did wrong comes from lua/claw as a table
 * with these fields; anything else is a fault of lua/claw itself and told as policy "claw".
 */
#ifndef CLAW_SCRIPT_TASK_H
#define CLAW_SCRIPT_TASK_H

#include "script/vm.h"

struct claw_req;

struct claw_task_error {
    struct claw_str policy, hook, message, traceback; /* in the arena given to claw_task_call */
};

/* A hook under way on its coroutine. An operation it waits for sets cancel before it yields; then the task hangs on
 * the request (req->waiting) until it is resumed or canceled. Nothing waits yet, so a yield is the hook's error. */
struct claw_task {
    lua_State *co;
    int ref; /* of co, in the registry */
    struct claw_req *req;
    const char *hook;
    void (*cancel)(struct claw_task *t);
};

typedef void (*claw_task_fn)(lua_State *L, void *arg);

/* Once a VM, before its memory is bounded: what every call needs stays at the bottom of the main state's stack. */
int claw_task_prepare(struct claw_vm *vm) CLAW_MUSTCHECK;
/* Run fn(L, arg) with an empty stack. CLAW_EPOLICY: it raised, *err is filled (cut when the arena is full). */
int claw_task_call(struct claw_vm *vm, claw_task_fn fn, void *arg, struct claw_arena *a,
                   struct claw_task_error *err) CLAW_MUSTCHECK;
/* The function and its `nargs` arguments on top of the stack become `nresults` results, as with lua_call. */
void claw_task_run(lua_State *L, struct claw_req *r, const char *hook, int nargs, int nresults);
/* Raise an error of `hook` in lua/claw: its verdict is none. */
_Noreturn void claw_task_raise(lua_State *L, const char *hook, const char *fmt, ...) CLAW_PRINTF(3, 4);

#endif
