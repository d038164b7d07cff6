/* vm: one Lua state with a bound on its memory.
 *
 * The allocator counts; past the cap it refuses, LuaJIT raises "not enough memory", the call that met it fails and
 * the VM is marked broken (it keeps serving). Modules named claw.* come from the binary (claw_embedded_lua), or, for
 * development, from the folder OPENCLAW_LUA_DIR names. Nothing is ever loaded from the working directory.
 * OPENCLAW_GCSTRESS=1 makes the collector run all the time.
 * Thread: one at a time; made on one, used on another (see claw_policy_vm_attach).
 */
#ifndef CLAW_SCRIPT_VM_H
#define CLAW_SCRIPT_VM_H

#include "base/arena.h"
#include "base/buf.h"

#include <lua.h>

/* What the build put into the binary (core/script/embed.lua writes it): ends with a NULL name. */
struct claw_embedded {
    const char *name;
    const unsigned char *data;
    size_t size;
};
extern const struct claw_embedded claw_embedded_lua[];
extern const struct claw_embedded claw_embedded_policies[];

#define CLAW_VM_THREADS 16 /* coroutines kept for the next task */

struct claw_generation;
struct claw_worker_ctx;

struct claw_vm {
    uint32_t magic;
    lua_State *L;
    size_t bytes, cap;
    size_t collect_at;          /* past it a full collection comes before the next call */
    bool broken;                /* memory ran out at least once */
    uint64_t random[2];         /* xorshift128+ */
    struct claw_arena scratch;  /* decoded texts between a C function's two calls into Lua; reset before each use */
    struct claw_buf text;       /* a text under construction, which an error must not leak */
    struct { lua_State *co; int ref; } threads[CLAW_VM_THREADS];
    unsigned threads_n;
    struct claw_generation *gen; /* lent by the owner: what the C functions look at; may be NULL */
    struct claw_worker_ctx *ctx;
};

/* CLAW_ENOMEM: the cap is too small for the libraries, or this LuaJIT has no GC64 and so no own allocator. */
int claw_vm_new(size_t cap, struct claw_vm **out) CLAW_MUSTCHECK;
void claw_vm_free(struct claw_vm *vm);
/* The VM a state belongs to. */
struct claw_vm *claw_vm_of(lua_State *L);
/* Push the function of a text chunk, or nil and a message; returns how many values. Bytecode is refused. Functions
 * of `interpreted` chunks are never compiled to machine code, so that a hook can stop them. May raise (memory). */
int claw_vm_load(lua_State *L, struct claw_str source, const char *label, bool interpreted);
/* A number in [0, 1). */
double claw_vm_random(struct claw_vm *vm);
/* The scratch arena, emptied. */
struct claw_arena *claw_vm_scratch(struct claw_vm *vm);

#endif
