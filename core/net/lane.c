#include "net/lane.h"

#include "net/loop.h"

#define QUARTERS 4u

/* Is the turn long already, with what it read? uv_now stands still within what one poll brought, and no longer. */
static bool is_long(struct claw_loop *l)
{
    uint64_t woke_ms = l->polling ? uv_now(&l->uv) : l->lanes.woke_ms;

    return uv_hrtime() / 1000 > woke_ms * 1000 + l->lanes.long_us;
}

static bool take_room(struct claw_loop *l, const struct claw_lane *lane)
{
    struct claw_lanes *all = &l->lanes;
    unsigned weight = lane->light ? 1 : QUARTERS;

    if (all->turn != l->turn) {
        all->turn = l->turn;
        all->taken = 0;
    }
    if (all->taken + weight > CLAW_LANE_A_TURN * QUARTERS) return false;
    if (all->taken >= CLAW_LANE_ANYWAY * QUARTERS && is_long(l)) return false;
    all->taken += weight;
    return true;
}

void claw_lane_leave(struct claw_loop *l, struct claw_lane_ticket *t)
{
    struct claw_lanes *all = &l->lanes;
    struct claw_lane *lane = t->lane;

    if (!lane) return;
    if (t->prev) t->prev->next = t->next;
    else lane->first = t->next;
    if (t->next) t->next->prev = t->prev;
    else lane->last = t->prev;
    t->prev = t->next = NULL;
    t->lane = NULL;
    if (lane->first) return;
    if (all->next == lane) all->next = lane->next == lane ? NULL : lane->next;
    lane->prev->next = lane->next;
    lane->next->prev = lane->prev;
    lane->prev = lane->next = NULL;
    if (!all->next) uv_idle_stop(&all->idle);
}

static void run_first(struct claw_loop *l)
{
    struct claw_lane *lane = l->lanes.next;
    struct claw_lane_ticket *t = lane->first;

    l->lanes.next = lane->next;
    claw_lane_leave(l, t);
    t->run(t);
}

static void on_idle(uv_idle_t *h)
{
    struct claw_loop *l = h->data;

    while (l->lanes.next && take_room(l, l->lanes.next)) run_first(l);
}

/* Behind the last of the circle: before the one whose turn is next. */
static void lane_join(struct claw_lanes *all, struct claw_lane *lane)
{
    if (!all->next) {
        lane->prev = lane->next = all->next = lane;
        uv_idle_start(&all->idle, on_idle);
        return;
    }
    lane->next = all->next;
    lane->prev = all->next->prev;
    lane->prev->next = lane->next->prev = lane;
}

static void line_up(struct claw_loop *l, struct claw_lane *lane, struct claw_lane_ticket *t, void (*run)(struct claw_lane_ticket *t))
{
    CLAW_ASSERT(!t->lane);
    if (!lane->first) lane_join(&l->lanes, lane);
    *t = (struct claw_lane_ticket){.prev = lane->last, .lane = lane, .run = run};
    if (lane->last) lane->last->next = t;
    else lane->first = t;
    lane->last = t;
}

bool claw_lane_wait(struct claw_loop *l, struct claw_lane *lane, struct claw_lane_ticket *t, void (*run)(struct claw_lane_ticket *t))
{
    if (!lane->first && take_room(l, lane)) return false;
    line_up(l, lane, t, run);
    return true;
}

bool claw_lane_wait_read(struct claw_loop *l, struct claw_lane *lane, struct claw_lane_ticket *t, void (*run)(struct claw_lane_ticket *t))
{
    if (++l->lanes.reads <= CLAW_LANE_READS_ANYWAY || !is_long(l)) return false;
    line_up(l, lane, t, run);
    return true;
}

void claw_lanes_init(struct claw_loop *l)
{
    l->lanes = (struct claw_lanes){.long_us = CLAW_LANE_LONG_US, .woke_ms = uv_now(&l->uv)};
    uv_idle_init(&l->uv, &l->lanes.idle);
    l->lanes.idle.data = l;
}

void claw_lanes_polled(struct claw_loop *l)
{
    l->lanes.woke_ms = uv_now(&l->uv);
    l->lanes.reads = 0;
}

void claw_lanes_empty(struct claw_loop *l)
{
    while (l->lanes.next) run_first(l);
}

void claw_lanes_fini(struct claw_loop *l)
{
    CLAW_ASSERT(!l->lanes.next);
    uv_close((uv_handle_t *)&l->lanes.idle, NULL);
}
