#include "net/lane.h"

#include "net/loop.h"

#define QUARTERS 4u

static bool take_room(struct claw_loop *l, const struct claw_lane *lane)
{
    struct claw_lanes *all = &l->lanes;
    unsigned weight = lane->light ? 1 : QUARTERS;

    if (all->turn != l->turn) {
        all->turn = l->turn;
        all->taken = 0;
    }
    if (all->taken + weight > CLAW_LANE_A_TURN * QUARTERS) return false;
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

bool claw_lane_wait(struct claw_loop *l, struct claw_lane *lane, struct claw_lane_ticket *t, void (*run)(struct claw_lane_ticket *t))
{
    CLAW_ASSERT(!t->lane);
    if (!lane->first) {
        if (take_room(l, lane)) return false;
        lane_join(&l->lanes, lane);
    }
    *t = (struct claw_lane_ticket){.prev = lane->last, .lane = lane, .run = run};
    if (lane->last) lane->last->next = t;
    else lane->first = t;
    lane->last = t;
    return true;
}

void claw_lanes_init(struct claw_loop *l)
{
    l->lanes = (struct claw_lanes){0};
    uv_idle_init(&l->uv, &l->lanes.idle);
    l->lanes.idle.data = l;
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
