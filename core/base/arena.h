/* arena: memory with one death. A bump allocator with a cap, clean-ups, and poison.
 *
 * The first block is the owner's (often a part of its own struct); further blocks come from
 * malloc and are freed at reset. Built with CLAW_ARENA_EMU each allocation is a malloc of its
 * own, so that a memory checker sees every overrun. Under ASan, memory not handed out is poisoned.
 * Thread: one at a time.
 */
#ifndef CLAW_BASE_ARENA_H
#define CLAW_BASE_ARENA_H

#include "base/err.h"

struct claw_arena_block;
struct claw_arena_cleanup;

struct claw_arena {
    char *at, *end;                      /* what is free in the current block */
    char *first;                         /* the owner's block */
    size_t first_size;
    size_t used, cap;                    /* bytes taken from malloc and from the first block; their bound */
    struct claw_arena_block *blocks;     /* from malloc, newest first */
    struct claw_arena_cleanup *cleanups; /* newest first */
};

/* Begin with the owner's memory `first` (may be NULL with size 0) and a bound on the total bytes. */
void claw_arena_init(struct claw_arena *a, void *first, size_t first_size, size_t cap);
/* `n` bytes aligned to 8, not cleared; NULL past the cap (the caller ends the request with CLAW_EREQ_MEM). */
void *claw_arena_alloc(struct claw_arena *a, size_t n) CLAW_MUSTCHECK;
/* The same, cleared. */
void *claw_arena_zalloc(struct claw_arena *a, size_t n) CLAW_MUSTCHECK;
/* A copy with a NUL after it; NULL past the cap. */
char *claw_arena_dup(struct claw_arena *a, const void *p, size_t n) CLAW_MUSTCHECK;
/* Make the allocation `p` of `old` bytes `n` bytes (n >= old): in place when it was the last one, else a copy.
 * The old memory lives on until reset. NULL past the cap, `p` stays valid. p NULL with old 0 allocates. */
void *claw_arena_grow(struct claw_arena *a, void *p, size_t old, size_t n) CLAW_MUSTCHECK;
/* Run fn(arg) at reset, latest first. CLAW_EREQ_MEM past the cap (then fn was not registered). */
int claw_arena_defer(struct claw_arena *a, void (*fn)(void *), void *arg) CLAW_MUSTCHECK;
/* Run the clean-ups, free the blocks, be as after init. */
void claw_arena_reset(struct claw_arena *a);

#endif
