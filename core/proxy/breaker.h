/* breaker: whether something that fails is to be asked again: a circuit breaker.
 *
 *   closed ── failures in a row, a part of the last 30 s, or a time it asked for ──> open ── its pause is over ──> half open
 *     ^                                                                              ^ <── the probe fails, longer pause ──┤
 *     └───────────── ramp: its share grows from a tenth to all in 5 s <──────────────── the probe succeeds ───────────────┘
 *
 * While half open one request at a time is the probe. Pauses are 1, 2, 4, 8, 16, 30 s, less a fifth at random; they grow
 * past 4 s only where the probe took longer than a second to fail, so that what fails fast is found again within 5 s and
 * what hangs holds up few. A success that lasts the ramp makes the next pause the first again. A time it asked for (Retry-
 * After) is kept, up to CLAW_BREAKER_ASKED_MS. What began before the last change of state changes nothing any more: a
 * stream that ends well does not close what opened meanwhile.
 *
 * States are read by relaxed atomics and change under one lock for the process, which a success of what is closed never
 * takes. Times are the loops' monotonic clock in ms, handed in. Thread: any.
 */
#ifndef CLAW_PROXY_BREAKER_H
#define CLAW_PROXY_BREAKER_H

#include "base/buf.h"
#include "proxy/window.h"

#define CLAW_BREAKER_SHIFT 11u           /* the ratio's window: 15 slots of 2 s */
#define CLAW_BREAKER_SLOTS 15u
#define CLAW_BREAKER_ASKED_MS 300000u   /* the longest pause that is believed */
#define CLAW_BREAKER_RAMP_MS 5000u
#define CLAW_BREAKER_PROBE_MS 120000u   /* a probe that nobody reports of is over by then */
#define CLAW_BREAKER_NEVER UINT64_MAX

enum claw_breaker_state { CLAW_BREAKER_CLOSED, CLAW_BREAKER_OPEN, CLAW_BREAKER_HALF_OPEN };

/* Zero: closed. */
struct claw_breaker {
    struct claw_window window;
    _Atomic uint64_t until_ms;  /* 0: closed; NEVER: retired */
    _Atomic uint64_t probe_ms;  /* the probe under way counts until then; 0: there is none */
    _Atomic uint64_t ramp_ms;   /* when it closed, while it is on its way back; 0: it is not */
    _Atomic uint64_t since_ms;  /* of the last change */
    _Atomic uint32_t failures;  /* in a row */
    _Atomic uint32_t pauses;    /* without a success that lasted */
    _Atomic bool held;          /* until then whatever succeeds: somebody said so */
    const char *_Atomic why;    /* of the last opening */
    bool ramps;                 /* set once by its owner: closed again it has a ramp */
};

/* When failures open it. failures 0, percent 0: not by these. */
struct claw_breaker_rules { unsigned failures, percent, requests; };

struct claw_breaker_failure {
    uint64_t now_ms, began_ms;
    int64_t asked_ms; /* the pause it asked for; <= 0: none */
    const char *why;  /* a constant */
};

/* How many are not simply closed, in the process: while none is there is nothing to look at. */
extern _Atomic int32_t claw_breaker_alerts;
static inline bool claw_breaker_any(void) { return atomic_load_explicit(&claw_breaker_alerts, memory_order_relaxed) != 0; }

/* In which of them it is. */
enum claw_breaker_state claw_breaker_state(const struct claw_breaker *b, uint64_t now_ms);
const char *claw_breaker_word(enum claw_breaker_state s); /* "closed", "open", "half_open" */
/* The same of a key: "retired" too. */
const char *claw_breaker_key_word(const struct claw_breaker *b, uint64_t now_ms);
/* When it may be asked: 0 now (as the probe, when half open); else a time. NEVER: retired. */
uint64_t claw_breaker_ready_ms(const struct claw_breaker *b, uint64_t now_ms);
/* Its share at present in thousandths: 1000 unless it is on its way back. */
unsigned claw_breaker_share(struct claw_breaker *b, uint64_t now_ms);
/* Half open and no probe under way: the caller's request is it, and says how it ended by claw_breaker_succeed, _fail or
 * _release, or is forgotten after lease_ms. False: somebody else's is, or none is needed. */
bool claw_breaker_claim(struct claw_breaker *b, uint64_t now_ms, unsigned lease_ms);
/* The probe ended and says nothing. */
void claw_breaker_release(struct claw_breaker *b);
/* It failed. True: it opened by this. */
bool claw_breaker_fail(struct claw_breaker *b, const struct claw_breaker_rules *rules, const struct claw_breaker_failure *f);
/* Set aside until then, whatever it does meanwhile; NEVER: until it succeeds or is restored. True: it was not. */
bool claw_breaker_cool(struct claw_breaker *b, uint64_t now_ms, uint64_t until_ms, const char *why);
/* Closed, without a ramp. */
void claw_breaker_restore(struct claw_breaker *b, uint64_t now_ms);

/* claw_breaker_succeed of what is not simply closed. */
bool claw_breaker_close(struct claw_breaker *b, uint64_t now_ms, uint64_t began_ms);
/* It succeeded. True: it closed by this. */
static inline bool claw_breaker_succeed(struct claw_breaker *b, uint64_t now_ms, uint64_t began_ms)
{
    claw_window_add(&b->window, CLAW_BREAKER_SHIFT, now_ms, CLAW_WINDOW_TOTAL);
    if (__builtin_expect(atomic_load_explicit(&b->failures, memory_order_relaxed) != 0, 0)) atomic_store_explicit(&b->failures, 0, memory_order_relaxed);
    return __builtin_expect(claw_breaker_any(), 0) && claw_breaker_close(b, now_ms, began_ms);
}

#endif
