/* task: every call from C into Lua.
 *
 *   claw_task_call   runs a C function of this floor under protection on the VM's main state. Everything that may
 *                    raise (pushing strings, reading tables, calling Lua) happens in there, so nothing ever unwinds
 *                    through a frame that owns memory. Costs no allocation.
 *   claw_task_run    from inside of it: runs a Lua function on a coroutine of its own, for hooks that may wait.
 *                    Coroutines are kept and used again.
 *
 * Waiting. A C function that waits asks claw_task_current who waits, starts its operation, and returns what
 * claw_task_suspend returns; the operation ends by claw_task_wake. Nothing is resumed from within that: the task runs at
 * the end of the loop's turn, where no call is under way, or, when many are woken at once, in one of the turns that follow
 * (lane.h).
 *
 *   hook's task:     claw_task_run -> CLAW_EAGAIN … wake -> claw_pipeline_resume -> the op again -> claw_task_continue
 *   spawned task:    claw_task_spawn … wake -> runs under a claw_task_call of its own
 *
 * What waits stands in its family's list (a request's, or a background task's), and is dropped from there, exactly once:
 * by the request's wait_cancel, at its release, or when a background's time is up. A dropped coroutine is left to the
 * collector; its operation is canceled.
 *
 * A failure is told as policy, hook, message and traceback. What a policy did wrong comes from lua/claw as a table
 * with these fields; anything else is a fault of lua/claw itself and told as policy "claw".
 */
#ifndef CLAW_SCRIPT_TASK_H
#define CLAW_SCRIPT_TASK_H

#include "net/loop.h"
#include "script/vm.h"

#define CLAW_TASKS_MAX 64 /* of one family that wait or run */

struct claw_req;
struct claw_task;

struct claw_task_error {
    struct claw_str policy, hook, message, traceback; /* in the arena given to claw_task_call */
    bool stopped; /* it was out of its budget */
};

/* What lives and dies together. Owner: the request's handle, or a background task. */
struct claw_family {
    struct claw_vm *vm;
    struct claw_req *req;    /* NULL: a background task's */
    struct claw_task *tasks; /* those that wait, the hook's own too, and spawned ones that run */
    unsigned tasks_n;
    unsigned fetches_n;      /* under way */
    double last_id;
};

/* An operation a task waits for. */
struct claw_wait {
    /* Push its results on L; how many. May raise. */
    int (*push)(lua_State *L, void *op);
    /* Give op up if it still runs, and free it. Once, also after push. NULL: nothing to do. */
    void (*end)(void *op);
};

typedef void (*claw_task_fn)(lua_State *L, void *arg);

/* Once a VM, before its memory is bounded: what every call needs stays at the bottom of the main state's stack. */
int claw_task_prepare(struct claw_vm *vm) CLAW_MUSTCHECK;
/* Run fn(L, arg) with an empty stack. CLAW_EPOLICY: it raised, *err is filled (cut when the arena is full). */
int claw_task_call(struct claw_vm *vm, claw_task_fn fn, void *arg, struct claw_arena *a,
                   struct claw_task_error *err) CLAW_MUSTCHECK;
/* The function and its `nargs` arguments on top of the stack become `nresults` results, as with lua_call; or
 * CLAW_EAGAIN: it waits, r->waiting and r->wait_cancel are set, and claw_task_continue goes on with it. */
int claw_task_run(lua_State *L, struct claw_req *r, const char *hook, int nargs, int nresults) CLAW_MUSTCHECK;
int claw_task_continue(lua_State *L, struct claw_req *r, int nresults) CLAW_MUSTCHECK;
/* Give up what r waits for. As r->wait_cancel. */
void claw_task_drop(struct claw_req *r);
/* Raise an error of `hook` in lua/claw: its verdict is none. */
_Noreturn void claw_task_raise(lua_State *L, const char *hook, const char *fmt, ...) CLAW_PRINTF(3, 4);

/* The task that runs on L and may wait there; raises when none does (`what` begins the message). */
struct claw_task *claw_task_current(lua_State *L, const char *what);
/* Does a task run on L itself, and not on a coroutine that it made? */
bool claw_task_runs(lua_State *L);
struct claw_family *claw_task_family(struct claw_task *t);
/* What claw_task_spawn gave; 0: a hook's own task. */
double claw_task_id(const struct claw_task *t);
/* Let it wait for op (owned from here on). Return what this returns, at once. */
int claw_task_suspend(lua_State *L, struct claw_task *t, const struct claw_wait *wait, void *op) CLAW_MUSTCHECK;
/* Wait until `ms` have passed; `joins`: or until another task of the family is over. The results: nothing. */
int claw_task_sleep(lua_State *L, struct claw_task *t, unsigned ms, bool joins) CLAW_MUSTCHECK;
/* The operation is over (possibly before the task is suspended): it goes on from the end of the turn on. */
void claw_task_wake(struct claw_task *t);

/* Start a task of the family with the function and arguments from stack index 1 on (taken off). It runs until it waits
 * or ends; `later`: from the end of the turn on. `over` (may be NULL) is called when it ended by itself. Its id, or 0:
 * CLAW_TASKS_MAX are under way. */
double claw_task_spawn(lua_State *L, struct claw_family *f, const char *hook, bool later,
                       void (*over)(struct claw_family *f));
/* Is the task with this id of the family under way? */
bool claw_task_alive(const struct claw_family *f, double id);
/* Drop all tasks of the family. Never raises. */
void claw_task_drop_all(struct claw_family *f);

#endif
