/* vm: one Lua state with a bound on its memory.
 *
 * The allocator counts. LuaJIT neither collects when memory is refused nor survives a refusal in its compiler (LuaJIT
 * issue 52), so the bound is kept in steps:
 *
 *     0 ..... 3/4 of the cap ............... cap ................... 1 1/2 of the cap
 *                  from here a hook, run between two instructions, collects, six bytes for each that is taken: by the
 *                  cap all that was dead is gone, and what is left is too much. It raises "not enough memory": the call
 *                  fails. Single blocks over 256 KB are refused past the cap, all others at one and a half of it.
 *
 * The collector never runs to its end at once: a full cycle of 64 MB of small tables takes 100 ms, and everybody waits.
 * What a call that failed leaves behind goes in slices: within the time a call may take, then before those that follow.
 * A VM that ran out is marked broken and keeps serving. Modules named claw.* come from the binary (claw_embedded_lua), or, for
 * development, from the folder OPENCLAW_LUA_DIR names. Nothing is ever loaded from the working directory.
 * The hook has two reasons: memory, as above, and the CPU time of a policy's call (see budget.h).
 * OPENCLAW_GCSTRESS=1 makes the collector run all the time, and to its end after every call and every hook: what C still
 * borrows from Lua by then is gone.
 * Thread: one at a time; made on one, used on another (see claw_policy_vm_attach).
 */
#ifndef CLAW_SCRIPT_VM_H
#define CLAW_SCRIPT_VM_H

#include "base/arena.h"
#include "base/buf.h"
#include "net/lane.h"
#include "script/budget.h"

#include <lua.h>

/* What the build put into the binary (core/script/embed.lua writes it): ends with a NULL name. */
struct claw_embedded {
    const char *name;
    const unsigned char *data;
    size_t size;
};
extern const struct claw_embedded claw_embedded_lua[];
extern const struct claw_embedded claw_embedded_policies[];
extern const struct claw_embedded claw_embedded_pages[]; /* by file name */

/* A string that Lua keeps for as long as the VM lives, by its address. */
struct claw_vm_name {
    const char *ptr;
    int value;
};
#define CLAW_VM_NAMES 64 /* places; at most half are taken */

#define CLAW_VM_SMALL 17 /* sizes of blocks that are kept when freed: up to 256 bytes, in steps of 16 */

#define CLAW_VM_THREADS 16 /* coroutines kept for the next task */

/* At the head of a block of malloc's that goes with the VM. */
struct claw_vm_block {
    struct claw_vm_block *next;
};

struct claw_api_handle;

struct claw_generation;
struct claw_generation_local;
struct claw_task;
struct claw_store;
struct claw_worker_ctx;

struct claw_vm {
    uint32_t magic;
    lua_State *L;
    size_t bytes, cap;
    size_t soft, hard;          /* past soft the hook is armed; past hard everything is refused */
    void *kept[CLAW_VM_SMALL];  /* freed blocks, by size */
    size_t kept_bytes;
    size_t looked, began;       /* the bytes when the hook looked last, and when the call began */
    size_t owed;                /* what the collector is behind, in its own units; 0: what is left is alive */
    struct claw_budget budget;
    bool armed;                 /* the hook, for memory */
    const char *stack_base;     /* where C's stack stood when Lua was entered; NULL: not in Lua */
    bool broken;                /* memory ran out at least once */
    bool stress;
    uint64_t random[2];         /* xorshift128+ */
    struct claw_arena scratch;  /* decoded texts between a C function's two calls into Lua; reset before each use */
    struct claw_buf text;       /* a text under construction, which an error must not leak */
    struct claw_task *task;     /* whose coroutine runs now; NULL: the main state */
    struct claw_lane wakes;     /* tasks whose wait is over, past those a turn of the loop has room for */
    struct claw_task *threads[CLAW_VM_THREADS]; /* with their coroutines, for the next task */
    unsigned threads_n;
    uint64_t spawned_turn, spawned_us; /* what spawned tasks took of this turn of the loop */
    struct claw_vm_name names[CLAW_VM_NAMES]; /* fields of req (api_req.c) */
    int req_meta;               /* their metatable, in the registry */
    struct claw_api_handle *handles; /* of no request now */
    unsigned directs;           /* how many have has_direct */
    struct claw_vm_block *blocks;
    struct claw_generation *gen; /* lent by the owner: what the C functions look at; may be NULL */
    struct claw_worker_ctx *ctx;
    struct claw_generation_local *local; /* whose VM this is; NULL: nobody's yet */
    struct claw_store *store;   /* what claw.store works on, lent by the owner; NULL: one of its own */
    struct claw_store *own_store; /* made when first asked for, gone with the VM: what a proof writes is not for others */
};

/* CLAW_ENOMEM: the cap is too small for the libraries, or this LuaJIT has no GC64 and so no own allocator. */
int claw_vm_new(size_t cap, struct claw_vm **out) CLAW_MUSTCHECK;
void claw_vm_free(struct claw_vm *vm);
void claw_vm_set_cap(struct claw_vm *vm, size_t cap);
/* Between calls: disarm the hook, and collect some of what the collector is behind: for 2 ms of CPU, or, behind a call that
 * failed, for as long as a call may take. May raise (a finalizer). */
void claw_vm_make_room(lua_State *L, bool failed);
/* The VM a state belongs to. */
struct claw_vm *claw_vm_of(lua_State *L);
/* Push the function of a text chunk, or nil and a message; returns how many values. Bytecode is refused. Functions
 * of `interpreted` chunks are never compiled to machine code, so that a hook can stop them. May raise (memory). */
int claw_vm_load(lua_State *L, struct claw_str source, const char *label, bool interpreted);
/* For C functions that call Lua back: raises when nested calls have used up their share of the C stack. */
void claw_vm_check_stack(lua_State *L, const struct claw_vm *vm);
/* Before a call that catches errors: raises when many are nested. Stopping a policy unwinds them one by one. */
void claw_vm_check_depth(lua_State *L, const struct claw_vm *vm);
/* A number in [0, 1). */
double claw_vm_random(struct claw_vm *vm);
/* The scratch arena, emptied. */
struct claw_arena *claw_vm_scratch(struct claw_vm *vm);

#endif
