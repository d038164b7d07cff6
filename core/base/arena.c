#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if !defined(CLAW_ARENA_EMU) && (defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer))
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define ALIGN ((size_t)8)
#define BLOCK_MIN ((size_t)4096)
#define BLOCK_MAX ((size_t)65536)

struct claw_arena_block {
    struct claw_arena_block *next;
    size_t size; /* of the bytes after this header */
    size_t step; /* of the newest shared block when this one was made; the next one doubles it */
    size_t pad;  /* keeps the bytes aligned to 16 */
};

struct claw_arena_cleanup {
    struct claw_arena_cleanup *next;
    void (*fn)(void *);
    void *arg;
};

/* What an allocation of `n` bytes takes: never 0, so that each has an address of its own. 0 on overflow. */
static size_t taken_by(size_t n) { return n == 0 ? ALIGN : (n + ALIGN - 1) & ~(ALIGN - 1); }

static void first_begin(struct claw_arena *a)
{
    a->at = a->end = NULL;
    if (!a->first) return;
    size_t skip = (size_t)(-(uintptr_t)a->first) & (ALIGN - 1);
    if (a->first_size < skip + ALIGN) return;
    a->at = a->first + skip;
    a->end = a->at + ((a->first_size - skip) & ~(ALIGN - 1));
    POISON(a->at, (size_t)(a->end - a->at));
}

void claw_arena_init(struct claw_arena *a, void *first, size_t first_size, size_t cap)
{
    CLAW_ASSERT(first || first_size == 0);
    *a = (struct claw_arena){.first = first, .first_size = first_size, .cap = cap};
    first_begin(a);
}

#ifdef CLAW_ARENA_EMU

void *claw_arena_alloc(struct claw_arena *a, size_t n)
{
    size_t take = taken_by(n);
    if (take == 0 || take > a->cap - a->used) return NULL;
    struct claw_arena_block *b = malloc(sizeof *b + n); /* exact: one byte too far is seen */
    if (!b) return NULL;
    *b = (struct claw_arena_block){.next = a->blocks, .size = n};
    a->blocks = b;
    a->used += take;
    return b + 1;
}

void *claw_arena_grow(struct claw_arena *a, void *p, size_t old, size_t n)
{
    CLAW_ASSERT(n >= old && (p || old == 0));
    void *q = claw_arena_alloc(a, n);
    if (q && old) memcpy(q, p, old);
    return q;
}

#else

static char *block_add(struct claw_arena *a, size_t size, size_t step)
{
    /* The spare bytes keep the end of one block from being the start of the owner's memory: grow compares. */
    struct claw_arena_block *b = malloc(sizeof *b + size + ALIGN);
    if (!b) return NULL;
    *b = (struct claw_arena_block){.next = a->blocks, .size = size, .step = step};
    a->blocks = b;
    a->used += size;
    return (char *)(b + 1);
}

/* Bytes of the first block count as they are handed out, blocks from malloc count whole when they are made. */
static bool in_first(const struct claw_arena *a)
{
    return a->first && a->at >= a->first && a->at <= a->first + a->first_size;
}

/* The current block has no room for `take` bytes. */
static __attribute__((noinline)) void *alloc_slow(struct claw_arena *a, size_t n, size_t take)
{
    size_t room = a->cap - a->used;
    if (take == 0 || take > room) return NULL;
    size_t step = a->blocks ? a->blocks->step : 0;
    size_t size = step == 0 ? BLOCK_MIN : step * 2 < BLOCK_MAX ? step * 2 : BLOCK_MAX;
    char *p;
    if (take > size / 2) { /* a block of its own; the current one stays in use */
        p = block_add(a, take, step);
        if (p) POISON(p, take);
    } else {
        p = block_add(a, size < room ? size : room & ~(ALIGN - 1), size);
        if (p) {
            a->at = p + take;
            a->end = p + a->blocks->size;
            POISON(p, a->blocks->size);
        }
    }
    if (p) UNPOISON(p, n);
    return p;
}

void *claw_arena_alloc(struct claw_arena *a, size_t n)
{
    size_t take = taken_by(n);
    if (__builtin_expect(take == 0 || take > (size_t)(a->end - a->at), 0)) return alloc_slow(a, n, take);
    if (in_first(a)) {
        if (take > a->cap - a->used) return NULL;
        a->used += take;
    }
    char *p = a->at;
    a->at += take;
    UNPOISON(p, n);
    return p;
}

void *claw_arena_grow(struct claw_arena *a, void *p, size_t old, size_t n)
{
    CLAW_ASSERT(n >= old && (p || old == 0));
    size_t take = taken_by(n), had = taken_by(old);
    if (take == 0) return NULL;
    if (p && (char *)p + had == a->at && take - had <= (size_t)(a->end - a->at)) {
        if (in_first(a)) {
            if (take - had > a->cap - a->used) return NULL;
            a->used += take - had;
        }
        a->at += take - had;
        UNPOISON(p, n);
        return p;
    }
    void *q = claw_arena_alloc(a, n);
    if (q && old) memcpy(q, p, old);
    return q;
}

#endif

void *claw_arena_zalloc(struct claw_arena *a, size_t n)
{
    void *p = claw_arena_alloc(a, n);
    if (p) memset(p, 0, n);
    return p;
}

char *claw_arena_dup(struct claw_arena *a, const void *p, size_t n)
{
    if (n == SIZE_MAX) return NULL;
    char *q = claw_arena_alloc(a, n + 1);
    if (!q) return NULL;
    if (n) memcpy(q, p, n);
    q[n] = 0;
    return q;
}

int claw_arena_defer(struct claw_arena *a, void (*fn)(void *), void *arg)
{
    struct claw_arena_cleanup *c = claw_arena_alloc(a, sizeof *c);
    if (!c) return CLAW_EREQ_MEM;
    *c = (struct claw_arena_cleanup){.next = a->cleanups, .fn = fn, .arg = arg};
    a->cleanups = c;
    return 0;
}

void claw_arena_reset(struct claw_arena *a)
{
    /* One at a time from the head: a clean-up may still allocate or register another. */
    while (a->cleanups) {
        struct claw_arena_cleanup *c = a->cleanups;
        a->cleanups = c->next;
        c->fn(c->arg);
    }
    while (a->blocks) {
        struct claw_arena_block *b = a->blocks;
        a->blocks = b->next;
        free(b);
    }
    a->used = 0;
    first_begin(a);
}
