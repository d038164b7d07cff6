#include "proxy/breaker.h"

#include <pthread.h>

#define FIRST_PAUSE_MS 1000u
#define FAST_PAUSE_MS 4000u  /* with the rest of it, within the 5 s */
#define LONGEST_PAUSE_MS 30000u
#define FAST_MS 1000u

_Atomic int32_t claw_breaker_alerts;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of every change of state */
static uint64_t chance = 0x9e3779b97f4a7c15; /* under the lock */

#define GET(field) atomic_load_explicit(&b->field, memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&b->field, value, memory_order_relaxed)

const char *claw_breaker_word(enum claw_breaker_state s)
{
    static const char *const words[] = {"closed", "open", "half_open"};
    return words[s];
}

enum claw_breaker_state claw_breaker_state(const struct claw_breaker *b, uint64_t now_ms)
{
    uint64_t until = GET(until_ms);
    return until == 0 ? CLAW_BREAKER_CLOSED : now_ms < until ? CLAW_BREAKER_OPEN : CLAW_BREAKER_HALF_OPEN;
}

const char *claw_breaker_key_word(const struct claw_breaker *b, uint64_t now_ms)
{
    return GET(until_ms) == CLAW_BREAKER_NEVER ? "retired" : claw_breaker_word(claw_breaker_state(b, now_ms));
}

uint64_t claw_breaker_ready_ms(const struct claw_breaker *b, uint64_t now_ms)
{
    uint64_t until = GET(until_ms), probe = GET(probe_ms);
    if (until == 0) return 0;
    if (now_ms < until) return until;
    return probe > now_ms ? now_ms + 1 : 0; /* soon, as far as anybody knows */
}

static bool alert(const struct claw_breaker *b) { return GET(until_ms) != 0 || GET(ramp_ms) != 0; }

/* Under the lock. */
static void change(struct claw_breaker *b, uint64_t until, uint64_t ramp, uint64_t now)
{
    bool before = alert(b);
    SET(until_ms, until);
    SET(ramp_ms, ramp);
    SET(probe_ms, 0);
    SET(held, false);
    SET(since_ms, now);
    int32_t by = (int32_t)alert(b) - (int32_t)before;
    if (by) atomic_fetch_add_explicit(&claw_breaker_alerts, by, memory_order_relaxed);
}

/* Under the lock. */
static void end_ramp(struct claw_breaker *b, uint64_t now)
{
    uint64_t ramp = GET(ramp_ms);
    if (!ramp || now < ramp + CLAW_BREAKER_RAMP_MS) return;
    uint64_t since = GET(since_ms);
    change(b, GET(until_ms), 0, since);
    SET(pauses, 0);
}

unsigned claw_breaker_share(struct claw_breaker *b, uint64_t now_ms)
{
    uint64_t ramp = GET(ramp_ms);
    if (ramp == 0) return 1000;
    if (now_ms < ramp) return 100;
    if (now_ms < ramp + CLAW_BREAKER_RAMP_MS) return 100 + (unsigned)((now_ms - ramp) * 900 / CLAW_BREAKER_RAMP_MS);
    pthread_mutex_lock(&lock);
    end_ramp(b, now_ms);
    pthread_mutex_unlock(&lock);
    return 1000;
}

bool claw_breaker_claim(struct claw_breaker *b, uint64_t now_ms, unsigned lease_ms)
{
    uint64_t probe = GET(probe_ms);
    if (claw_breaker_state(b, now_ms) != CLAW_BREAKER_HALF_OPEN || probe > now_ms) return false;
    return atomic_compare_exchange_strong(&b->probe_ms, &probe, now_ms + lease_ms);
}

void claw_breaker_release(struct claw_breaker *b) { SET(probe_ms, 0); }

/* Under the lock. */
static uint64_t next_pause(struct claw_breaker *b, uint64_t took_ms)
{
    uint32_t n = GET(pauses);
    uint64_t most = took_ms < FAST_MS ? FAST_PAUSE_MS : LONGEST_PAUSE_MS;
    uint64_t ms = (uint64_t)FIRST_PAUSE_MS << (n < 10 ? n : 10);
    SET(pauses, n + 1);
    if (ms > most) ms = most;
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return ms - ms / 5 * (chance >> 54) / 1024;
}

static bool is_too_much(struct claw_breaker *b, const struct claw_breaker_rules *rules, uint64_t now)
{
    if (rules->failures && GET(failures) >= rules->failures) return true;
    if (!rules->percent) return false;
    struct claw_window_sum s = claw_window_sum(&b->window, CLAW_BREAKER_SHIFT, CLAW_BREAKER_SLOTS, now);
    return s.total >= rules->requests && (uint64_t)s.failed * 100 >= (uint64_t)s.total * rules->percent;
}

/* Under the lock. */
static bool open_for(struct claw_breaker *b, const struct claw_breaker_failure *f)
{
    uint64_t asked = f->asked_ms > 0 ? (uint64_t)f->asked_ms : 0;
    if (asked > CLAW_BREAKER_ASKED_MS) asked = CLAW_BREAKER_ASKED_MS;
    uint64_t took = f->now_ms > f->began_ms ? f->now_ms - f->began_ms : 0;
    bool was = GET(until_ms) != 0;
    change(b, f->now_ms + (asked ? asked : next_pause(b, took)), 0, f->now_ms);
    SET(why, f->why);
    SET(failures, 0);
    claw_window_clear(&b->window); /* what made it open does not make it open again */
    return !was;
}

static bool failed(struct claw_breaker *b, const struct claw_breaker_rules *rules, const struct claw_breaker_failure *f)
{
    enum claw_breaker_state state = claw_breaker_state(b, f->now_ms);
    uint64_t until = GET(until_ms);
    if (until == CLAW_BREAKER_NEVER) return false;
    end_ramp(b, f->now_ms);
    if (f->asked_ms > 0) return (state != CLAW_BREAKER_OPEN || f->now_ms + (uint64_t)f->asked_ms > until) && open_for(b, f);
    if (f->began_ms < GET(since_ms)) return false;
    if (state == CLAW_BREAKER_OPEN) return false; /* asked for want of another */
    if (state == CLAW_BREAKER_HALF_OPEN) return open_for(b, f);
    claw_window_add(&b->window, CLAW_BREAKER_SHIFT, f->now_ms, CLAW_WINDOW_TOTAL + CLAW_WINDOW_FAILED);
    atomic_fetch_add_explicit(&b->failures, 1, memory_order_relaxed);
    return is_too_much(b, rules, f->now_ms) && open_for(b, f);
}

bool claw_breaker_fail(struct claw_breaker *b, const struct claw_breaker_rules *rules, const struct claw_breaker_failure *f)
{
    pthread_mutex_lock(&lock);
    bool opened = failed(b, rules, f);
    pthread_mutex_unlock(&lock);
    return opened;
}

bool claw_breaker_close(struct claw_breaker *b, uint64_t now_ms, uint64_t began_ms)
{
    bool closed = false;
    if (!alert(b)) return false;
    pthread_mutex_lock(&lock);
    bool held = GET(held) && now_ms < GET(until_ms);
    if (GET(until_ms) != 0 && !held && began_ms >= GET(since_ms)) {
        change(b, 0, b->ramps ? now_ms : 0, now_ms);
        if (!b->ramps) SET(pauses, 0);
        claw_window_clear(&b->window);
        closed = true;
    } else {
        end_ramp(b, now_ms);
    }
    pthread_mutex_unlock(&lock);
    return closed;
}

bool claw_breaker_cool(struct claw_breaker *b, uint64_t now_ms, uint64_t until_ms, const char *why)
{
    pthread_mutex_lock(&lock);
    bool was = GET(until_ms) == until_ms;
    change(b, until_ms, 0, now_ms);
    SET(held, until_ms != CLAW_BREAKER_NEVER);
    SET(why, why);
    pthread_mutex_unlock(&lock);
    return !was;
}

void claw_breaker_restore(struct claw_breaker *b, uint64_t now_ms)
{
    pthread_mutex_lock(&lock);
    change(b, 0, 0, now_ms);
    SET(failures, 0);
    SET(pauses, 0);
    claw_window_clear(&b->window);
    pthread_mutex_unlock(&lock);
}
