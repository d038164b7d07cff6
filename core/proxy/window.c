#include "proxy/window.h"

#define COUNT 0xfffffull

void claw_window_renew(struct claw_window *w, uint64_t slot, uint64_t what)
{
    _Atomic uint64_t *s = &w->slots[slot % CLAW_WINDOW_SLOTS];
    uint64_t v = atomic_load_explicit(s, memory_order_relaxed), fresh = (slot & CLAW_WINDOW_EPOCH) | what;
    while ((v & CLAW_WINDOW_EPOCH) != (slot & CLAW_WINDOW_EPOCH))
        if (atomic_compare_exchange_weak_explicit(s, &v, fresh, memory_order_relaxed, memory_order_relaxed)) return;
    atomic_fetch_add_explicit(s, what, memory_order_relaxed); /* another thread was first */
}

struct claw_window_sum claw_window_sum(const struct claw_window *w, unsigned shift, unsigned slots, uint64_t now_ms)
{
    struct claw_window_sum sum = {0, 0};
    uint64_t now = now_ms >> shift;
    for (unsigned i = 0; i < CLAW_WINDOW_SLOTS; i++) {
        uint64_t v = atomic_load_explicit(&w->slots[i], memory_order_relaxed);
        if (((now - v) & CLAW_WINDOW_EPOCH) >= slots) continue;
        sum.total += (uint32_t)(v / CLAW_WINDOW_TOTAL & COUNT);
        sum.failed += (uint32_t)(v / CLAW_WINDOW_FAILED & COUNT);
    }
    return sum;
}

void claw_window_clear(struct claw_window *w)
{
    for (unsigned i = 0; i < CLAW_WINDOW_SLOTS; i++) atomic_store_explicit(&w->slots[i], 0, memory_order_relaxed);
}
