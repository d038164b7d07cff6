/* budget: how much CPU one call of a policy's hook may take, and what ends it.
 *
 * A thread that runs policies has a timer on its own CPU clock, whose signal comes while that thread computes and never
 * while it waits. The signal's handler looks whether a hook is running on its thread, and for how long; past the limit
 * the budget is `expired` and LuaJIT's hook is armed, which raises before the next instruction of a policy's code, in
 * whatever coroutine that is. It stays armed until claw_budget_leave: a policy that catches the error is stopped again.
 * C functions that may take long look with claw_budget_check. Entering and leaving make no system call.
 *
 * The handler sees time in steps of the kernel's tick (1 to 10 ms): a call is stopped one to two ticks past its limit.
 * Only code with an environment of its own is stopped: lua/claw, whose environment is the VM's globals, always ends its work.
 * Thread: the VM's, for the time of the call.
 */
#ifndef CLAW_SCRIPT_BUDGET_H
#define CLAW_SCRIPT_BUDGET_H

#include "base/err.h"

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#define CLAW_BUDGET_BOOT 10u /* loading, init and selftest may take this many times as long */

struct claw_budget {
    lua_State *L;
    lua_Hook hook;           /* what the handler arms; it has to call claw_budget_stop when `expired` */
    uint64_t limit_us;       /* of a hook's call; 0: none */
    /* Shared with the signal's handler, which runs on the same thread. */
    volatile uint64_t allowed_us, used_us, since_us;
    volatile uint32_t call, seen; /* this call's number, and the last one a tick found */
    volatile bool inside, expired;
};

/* What a call that waits takes along to where it goes on. */
struct claw_budget_rest {
    uint64_t allowed_us, used_us;
    bool inside;
};

/* A hook of a policy is about to be called; `times` the limit. The one before it, if it was not left, is over. */
void claw_budget_enter(struct claw_budget *b, unsigned times);
/* It is over, or waits. True: it was past its limit. */
bool claw_budget_leave(struct claw_budget *b);
/* The whole of a call's time, for claw_budget_go_on: what runs beside the hook that started it has its own. */
struct claw_budget_rest claw_budget_fresh(const struct claw_budget *b);
/* Leave for a while: the call goes on with claw_budget_go_on, here or after calls of other requests. */
struct claw_budget_rest claw_budget_pause(struct claw_budget *b);
void claw_budget_go_on(struct claw_budget *b, struct claw_budget_rest rest);
/* From the hook: raises when the code at `d` is a policy's. */
void claw_budget_stop(lua_State *L, struct claw_budget *b, lua_Debug *d);
/* Raise `what` with the file and line of the policy's code that runs, if any. */
_Noreturn void claw_budget_raise(lua_State *L, const char *what);
/* From a C function at work for a policy: raises when the call is past its limit. */
void claw_budget_check(lua_State *L, struct claw_budget *b);

#endif
