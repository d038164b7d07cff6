/* window: how many, and how many of these failed, in the last so many seconds.
 *
 * Slots of equal length, 2^shift ms, the present one included; as many of them are added up as the caller asks for.
 * A slot holds its number and both counts in one word: adding is one atomic operation, nothing has to be swept. At most a
 * million a slot. Thread: any; a count that comes while its slot is taken over may be lost.
 */
#ifndef CLAW_PROXY_WINDOW_H
#define CLAW_PROXY_WINDOW_H

#include <stdatomic.h>
#include <stdint.h>

#define CLAW_WINDOW_SLOTS 16u
#define CLAW_WINDOW_EPOCH 0xffffffull           /* 24 bits: the slot's number */
#define CLAW_WINDOW_FAILED (1ull << 24)         /* 20 bits */
#define CLAW_WINDOW_TOTAL (1ull << 44)          /* 20 bits, at the top: one too many is lost, and nothing else */

/* Zero: nothing was counted. */
struct claw_window { _Atomic uint64_t slots[CLAW_WINDOW_SLOTS]; };
struct claw_window_sum { uint32_t total, failed; };

/* claw_window_add to a slot that is about another time. */
void claw_window_renew(struct claw_window *w, uint64_t slot, uint64_t what);
/* Of the last `slots` slots, the present one included: at most CLAW_WINDOW_SLOTS. */
struct claw_window_sum claw_window_sum(const struct claw_window *w, unsigned shift, unsigned slots, uint64_t now_ms);
/* Nothing was counted. */
void claw_window_clear(struct claw_window *w);

/* Add `what`: CLAW_WINDOW_TOTAL, CLAW_WINDOW_FAILED or both. shift must be the same in each call. */
static inline void claw_window_add(struct claw_window *w, unsigned shift, uint64_t now_ms, uint64_t what)
{
    uint64_t slot = now_ms >> shift;
    _Atomic uint64_t *s = &w->slots[slot % CLAW_WINDOW_SLOTS];
    uint64_t v = atomic_load_explicit(s, memory_order_relaxed);
    if (__builtin_expect((v & CLAW_WINDOW_EPOCH) == (slot & CLAW_WINDOW_EPOCH), 1)) atomic_fetch_add_explicit(s, what, memory_order_relaxed);
    else claw_window_renew(w, slot, what);
}

#endif
