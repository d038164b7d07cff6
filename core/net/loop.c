#include "net/loop.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The wheel: a timer lies in slot (due tick mod SLOTS) whatever its round; `busy` has a bit for every slot that
 * is not empty. `at` is the last tick that was fired; `armed` the tick the one uv_timer is set to. The uv_timer
 * is set again only when a start is due before `armed`; stopping leaves it alone: at worst the loop wakes once
 * for nothing and finds its next tick then. */
#define SLOTS 512u
#define MAGIC 0x6c6f6f70u
#define NEVER UINT64_MAX

struct claw_loop_private {
    uv_timer_t tick;
    uv_prepare_t turn_end;
    uv_check_t polled;
    uv_poll_t wake; /* of wake_fd: not uv_async_t, whose receiver spins until the sender has left (see offload.h) */
    int wake_fd;

    struct claw_timer wheel[SLOTS]; /* only the links are used: heads of circular lists */
    uint64_t busy[SLOTS / 64];
    uint64_t at, armed;
    uint64_t ahead_ms; /* what claw_loop_advance has added to the clock */
    size_t running;
    bool firing, turning;

    struct claw_deferred *deferred, **deferred_end;

    /* Newest first. `posting` counts the threads inside claw_loop_post, so that fini does not close the wake-up
     * handle under one whose message was taken already. */
    _Atomic(struct claw_message *) mail;
    atomic_uint posting;
};

static uint64_t tick_of(const struct claw_timer *t) { return t->due_ms / CLAW_LOOP_TICK_MS; }

static void slot_unlink(struct claw_loop_private *p, struct claw_timer *t)
{
    unsigned slot = tick_of(t) % SLOTS;

    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->prev = t->next = NULL;
    p->running--;
    if (p->wheel[slot].next == &p->wheel[slot]) p->busy[slot / 64] &= ~(1ull << (slot % 64));
}

/* The first tick after `after` whose slot holds something, of whatever round; NEVER when the wheel is empty. */
static uint64_t next_busy(const struct claw_loop_private *p, uint64_t after)
{
    unsigned from = (after + 1) % SLOTS;

    for (unsigned i = 0; i <= SLOTS / 64; i++) {
        unsigned word = (from / 64 + i) % (SLOTS / 64);
        uint64_t bits = p->busy[word];
        if (i == 0) bits &= ~0ull << (from % 64);
        if (i == SLOTS / 64) bits &= ~(~0ull << (from % 64));
        if (!bits) continue;
        unsigned slot = word * 64 + (unsigned)__builtin_ctzll(bits);
        return after + 1 + (slot - from + SLOTS) % SLOTS;
    }
    return NEVER;
}

static bool slot_is_due(const struct claw_loop_private *p, uint64_t tick)
{
    const struct claw_timer *head = &p->wheel[tick % SLOTS];

    for (const struct claw_timer *t = head->next; t != head; t = t->next)
        if (tick_of(t) <= tick) return true;
    return false;
}

static void on_tick(uv_timer_t *h);

static void wheel_arm_at(struct claw_loop *l, uint64_t tick)
{
    uint64_t now = claw_loop_now_ms(l), due = tick * CLAW_LOOP_TICK_MS;

    l->priv->armed = tick;
    int rc = uv_timer_start(&l->priv->tick, on_tick, due > now ? due - now : 0, 0);
    CLAW_ASSERT(rc == 0);
}

/* Set the uv_timer to the next tick at which a timer is due, looking one round ahead: slots that hold only
 * timers of later rounds are passed over, so that many long timeouts do not wake an idle loop. */
static void wheel_arm(struct claw_loop *l)
{
    struct claw_loop_private *p = l->priv;
    uint64_t tick = p->at;

    if (p->running == 0) {
        p->armed = NEVER;
        uv_timer_stop(&p->tick);
        return;
    }
    while ((tick = next_busy(p, tick)) < p->at + SLOTS)
        if (slot_is_due(p, tick)) break;
    if (tick > p->at + SLOTS) tick = p->at + SLOTS;
    wheel_arm_at(l, tick);
}

/* What is due moves to a list of its own first: a callback may stop, start or free any timer, also those that
 * are about to fire. */
static void slot_fire(struct claw_loop *l, uint64_t tick)
{
    struct claw_loop_private *p = l->priv;
    struct claw_timer *head = &p->wheel[tick % SLOTS], due;

    due.prev = due.next = &due;
    for (struct claw_timer *t = head->next, *next; t != head; t = next) {
        next = t->next;
        if (tick_of(t) > tick) continue;
        slot_unlink(p, t);
        t->prev = due.prev;
        t->next = &due;
        t->prev->next = t->next->prev = t;
        p->running++;
    }
    while (due.next != &due) {
        struct claw_timer *t = due.next;
        slot_unlink(p, t);
        t->on_due(t);
    }
}

static void wheel_fire(struct claw_loop *l, uint64_t until)
{
    struct claw_loop_private *p = l->priv;
    uint64_t tick;

    p->firing = true;
    while ((tick = next_busy(p, p->at)) <= until) {
        p->at = tick;
        slot_fire(l, tick);
    }
    p->firing = false;
    if (p->at < until) p->at = until;
}

static void on_tick(uv_timer_t *h)
{
    struct claw_loop *l = h->data;

    wheel_fire(l, claw_loop_now_ms(l) / CLAW_LOOP_TICK_MS);
    wheel_arm(l);
}

void claw_loop_advance(struct claw_loop *l, uint64_t ms)
{
    struct claw_loop_private *p = l->priv;
    uint64_t end = claw_loop_now_ms(l) + ms, tick;

    CLAW_ASSERT(l->magic == MAGIC && !p->firing);
    while ((tick = next_busy(p, p->at)) <= end / CLAW_LOOP_TICK_MS) {
        uint64_t now = claw_loop_now_ms(l), then = tick * CLAW_LOOP_TICK_MS;
        if (then > now) p->ahead_ms += then - now;
        wheel_fire(l, tick);
    }
    if (claw_loop_now_ms(l) < end) p->ahead_ms += end - claw_loop_now_ms(l);
    wheel_fire(l, end / CLAW_LOOP_TICK_MS);
    wheel_arm(l);
}

void claw_timer_init(struct claw_timer *t, void (*on_due)(struct claw_timer *), void *arg)
{
    *t = (struct claw_timer){.on_due = on_due, .arg = arg};
}

void claw_timer_start(struct claw_loop *l, struct claw_timer *t, uint64_t ms)
{
    struct claw_loop_private *p = l->priv;
    uint64_t now = claw_loop_now_ms(l), tick;

    if (t->next) slot_unlink(p, t);
    if (ms > UINT32_MAX * 1000ull) ms = UINT32_MAX * 1000ull; /* 136 years: no sum here overflows */
    if (p->running++ == 0 && !p->firing && now / CLAW_LOOP_TICK_MS > p->at + 1) p->at = now / CLAW_LOOP_TICK_MS - 1;
    tick = (now + ms + CLAW_LOOP_TICK_MS - 1) / CLAW_LOOP_TICK_MS;
    if (tick <= p->at) tick = p->at + 1;
    t->due_ms = tick * CLAW_LOOP_TICK_MS;

    struct claw_timer *head = &p->wheel[tick % SLOTS];
    t->prev = head->prev;
    t->next = head;
    t->prev->next = t->next->prev = t;
    p->busy[tick % SLOTS / 64] |= 1ull << (tick % 64);
    if (tick < p->armed && !p->firing) wheel_arm_at(l, tick);
}

void claw_timer_stop(struct claw_loop *l, struct claw_timer *t)
{
    if (t->next) slot_unlink(l->priv, t);
}

/* ---- end of turn ------------------------------------------------------------------------------------------ */

static void run_deferred(struct claw_loop_private *p)
{
    struct claw_deferred *d;

    while ((d = p->deferred)) {
        p->deferred = d->next;
        if (!p->deferred) p->deferred_end = &p->deferred;
        d->pending = false;
        d->run(d);
    }
}

void claw_loop_defer(struct claw_loop *l, struct claw_deferred *d, void (*run)(struct claw_deferred *))
{
    if (d->pending) return;
    d->pending = true;
    d->run = run;
    d->next = NULL;
    *l->priv->deferred_end = d;
    l->priv->deferred_end = &d->next;
}

/* libuv calls prepare handles before it works out how long to poll: what is deferred in poll, timer and close
 * callbacks has run before the loop sleeps. */
static void on_turn_end(uv_prepare_t *h)
{
    struct claw_loop *l = h->data;

    if (l->priv->deferred && l->priv->turning) uv_stop(&l->uv); /* something was done: a single turn does not wait */
    run_deferred(l->priv);
    l->turn++;
    l->polling = true;
}

static void on_polled(uv_check_t *h)
{
    struct claw_loop *l = h->data;

    l->polling = false;
    if (l->soon.n) l->soon.due.run(&l->soon.due); /* before the lanes' work and the timers */
    claw_lanes_polled(l);
}

/* ---- mailbox ---------------------------------------------------------------------------------------------- */

static void read_mail(struct claw_loop *l)
{
    struct claw_message *m = atomic_exchange_explicit(&l->priv->mail, NULL, memory_order_acquire), *in_order = NULL;

    while (m) {
        struct claw_message *older = m->next;
        m->next = in_order;
        in_order = m;
        m = older;
    }
    while ((m = in_order)) {
        in_order = m->next;
        m->run(l, m);
    }
}

static void on_wake(uv_poll_t *h, int status, int events)
{
    struct claw_loop *l = h->data;
    uint64_t n;

    if (read(l->priv->wake_fd, &n, sizeof n) == (ssize_t)sizeof n) read_mail(l);
}

static void wake(struct claw_loop_private *p)
{
    uint64_t one = 1;

    ssize_t n = write(p->wake_fd, &one, sizeof one);
    (void)n; /* it fails only when the counter is full, and then the loop is awake */
}

void claw_loop_post(struct claw_loop *l, struct claw_message *m)
{
    struct claw_loop_private *p = l->priv;

    atomic_fetch_add_explicit(&p->posting, 1, memory_order_acquire);
    m->next = atomic_load_explicit(&p->mail, memory_order_relaxed);
    struct claw_message *before = m->next;
    while (!atomic_compare_exchange_weak_explicit(&p->mail, &before, m, memory_order_release, memory_order_relaxed))
        m->next = before;
    /* Who found the box empty wakes the loop; the others' messages are taken along. */
    if (!before) wake(p);
    atomic_fetch_sub_explicit(&p->posting, 1, memory_order_release);
}

/* ---- the loop --------------------------------------------------------------------------------------------- */

/* libuv writes with plain write and sendmsg: without this a peer that left ends the process. */
static void ignore_sigpipe(void)
{
    struct sigaction now;

    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
}

int claw_loop_init(struct claw_loop *l)
{
    ignore_sigpipe();
    *l = (struct claw_loop){.magic = MAGIC};
    const char *slow = getenv("OPENCLAW_SLOWIO");
    l->slow = slow && atoi(slow) > 0 ? (size_t)atoi(slow) : 0;
    struct claw_loop_private *p = calloc(1, sizeof *p);
    l->read_buf = malloc(CLAW_LOOP_READ_BYTES);
    l->plain_buf = malloc(CLAW_LOOP_READ_BYTES);
    l->soon.bytes = malloc(CLAW_LOOP_SOON_MAX * CLAW_LOOP_SOON_BYTES);
    if (!p || !l->read_buf || !l->plain_buf || !l->soon.bytes) goto no_memory;
    l->priv = p;
    for (unsigned i = 0; i < SLOTS; i++) p->wheel[i].prev = p->wheel[i].next = &p->wheel[i];
    p->deferred_end = &p->deferred;
    p->armed = NEVER;
    p->tick.data = p->turn_end.data = p->polled.data = p->wake.data = l;

    if (uv_loop_init(&l->uv) != 0) goto no_loop;
    l->uv.data = l;
    p->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->wake_fd < 0 || uv_poll_init(&l->uv, &p->wake, p->wake_fd) != 0) {
        if (p->wake_fd >= 0) close(p->wake_fd);
        uv_loop_close(&l->uv);
        goto no_loop;
    }
    uv_poll_start(&p->wake, UV_READABLE, on_wake);
    claw_lanes_init(l);
    uv_timer_init(&l->uv, &p->tick);
    uv_prepare_init(&l->uv, &p->turn_end);
    uv_prepare_start(&p->turn_end, on_turn_end);
    uv_check_init(&l->uv, &p->polled);
    uv_check_start(&p->polled, on_polled);
    p->at = uv_now(&l->uv) / CLAW_LOOP_TICK_MS;
    return 0;

no_loop:
    free(p);
    free(l->read_buf);
    free(l->plain_buf);
    free(l->soon.bytes);
    *l = (struct claw_loop){0};
    return CLAW_EIO;
no_memory:
    free(p);
    free(l->read_buf);
    free(l->plain_buf);
    free(l->soon.bytes);
    *l = (struct claw_loop){0};
    return CLAW_ENOMEM;
}

void claw_loop_run(struct claw_loop *l)
{
    CLAW_ASSERT(l->magic == MAGIC);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    run_deferred(l->priv);
}

void claw_loop_stop(struct claw_loop *l) { uv_stop(&l->uv); }

void claw_loop_turn(struct claw_loop *l, bool wait)
{
    CLAW_ASSERT(l->magic == MAGIC);
    l->priv->turning = true;
    uv_run(&l->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    l->priv->turning = false;
    run_deferred(l->priv);
}

struct census {
    struct claw_loop *l;
    struct claw_loop_private *p;
    int open, closing;
    bool say;
};

static void count_handle(uv_handle_t *h, void *arg)
{
    struct census *c = arg;

    if (h == (uv_handle_t *)&c->p->tick || h == (uv_handle_t *)&c->p->turn_end || h == (uv_handle_t *)&c->p->polled || h == (uv_handle_t *)&c->p->wake ||
        h == (uv_handle_t *)&c->l->lanes.idle)
        return;
    if (uv_is_closing(h)) {
        c->closing++;
        return;
    }
    c->open++;
    if (c->say) fprintf(stderr, "loop: a %s handle was left open (%p)\n", uv_handle_type_name(h->type), (void *)h);
}

static struct census take_census(struct claw_loop *l, bool say)
{
    struct census c = {.l = l, .p = l->priv, .say = say};

    uv_walk(&l->uv, count_handle, &c);
    return c;
}

static void wait_for_posting(const struct claw_loop_private *p)
{
    while (atomic_load_explicit(&p->posting, memory_order_acquire) > 0) sched_yield();
}

int claw_loop_fini(struct claw_loop *l, bool say)
{
    CLAW_ASSERT(l->magic == MAGIC);
    struct claw_loop_private *p = l->priv;

    wait_for_posting(p);
    read_mail(l);
    run_deferred(p);
    claw_lanes_empty(l);
    uv_unref((uv_handle_t *)&p->tick);
    uv_unref((uv_handle_t *)&p->wake);
    uv_unref((uv_handle_t *)&p->turn_end);
    uv_unref((uv_handle_t *)&p->polled);
    /* What is offloaded, and what is closing and waits for libuv's pool, is waited for. A handle somebody left open is not. */
    struct census c = take_census(l, false);
    while (l->offloaded || (c.open == 0 ? uv_loop_alive(&l->uv) : c.closing > 0)) {
        if (l->offloaded) uv_ref((uv_handle_t *)&p->wake);
        else uv_unref((uv_handle_t *)&p->wake);
        claw_loop_turn(l, c.open == 0 || l->offloaded);
        claw_lanes_empty(l);
        c = take_census(l, false);
    }
    wait_for_posting(p); /* who brought the last piece of work may not have left yet */
    c = take_census(l, say);

    uv_close((uv_handle_t *)&p->tick, NULL);
    uv_close((uv_handle_t *)&p->turn_end, NULL);
    uv_close((uv_handle_t *)&p->polled, NULL);
    uv_close((uv_handle_t *)&p->wake, NULL);
    claw_lanes_fini(l);
    uv_run(&l->uv, UV_RUN_NOWAIT);
    close(p->wake_fd);
    if (c.open == 0) {
        int rc = uv_loop_close(&l->uv);
        CLAW_ASSERT(rc == 0);
    }
    free(p);
    free(l->read_buf);
    free(l->plain_buf);
    free(l->soon.bytes);
    l->read_buf = l->plain_buf = l->soon.bytes = NULL;
    l->priv = NULL;
    l->magic = 0;
    return c.open;
}

uint64_t claw_loop_now_ms(const struct claw_loop *l) { return uv_now(&l->uv) + l->priv->ahead_ms; }

uint64_t claw_loop_clock_us(void) { return uv_hrtime() / 1000; }
