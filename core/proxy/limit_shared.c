/* Limits that instances share: asked of Redis, or decided here while it does not answer; see limit.h and state.h. */
#include "proxy/limit_part.h"
#include "proxy/pipeline.h"

#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define ARGS 5u        /* of each key (state_script.c) */
#define AT_ONCE 64u    /* of what is put right, in a call */
#define A_TICK 512u    /* of what is owed, in a tick */
#define BUCKETS 4096u

/* ---- putting right ----------------------------------------------------------------------------------------------------- */

/* What goes in one call; slices live until it was sent. */
struct amends {
    struct claw_state *state;
    unsigned n;
    struct amend {
        char op; /* 'A' time, 'R' place, 'N' place */
        struct claw_str key, place;
        int64_t ns;
    } all[AT_ONCE];
};
static _Thread_local struct amends amends; /* of one request's end, or one tick; empty in between */

/* What is to be said when Redis is back. */
struct debt {
    struct debt *next;
    int64_t ns, at_ns; /* of a rate: flows off from at_ns on */
    size_t key_n, place_n; /* place_n: a place that was given up */
    char text[];
};
static struct {
    pthread_mutex_t lock;
    struct debt *buckets[BUCKETS];
    unsigned hand;
    _Atomic unsigned n;
} debts = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t flowed_off(int64_t ns, int64_t past)
{
    if (ns > 0) return ns > past ? ns - past : 0;
    return ns + past < 0 ? ns + past : 0; /* what was given back of what would be gone by now */
}

static void owe(const struct amend *a, int64_t now)
{
    struct debt **bucket = &debts.buckets[claw_str_hash(a->key, 0) % BUCKETS], *d;
    if (a->op == 'N') return;
    pthread_mutex_lock(&debts.lock);
    for (d = *bucket; d; d = d->next)
        if (a->op == 'A' && !d->place_n && claw_str_eq((struct claw_str){d->text, d->key_n}, a->key)) break;
    if (!d && atomic_load(&debts.n) < CLAW_LIMIT_OWED && (d = calloc(1, sizeof *d + a->key.len + a->place.len))) {
        memcpy(d->text, a->key.ptr, a->key.len);
        if (a->place.len) memcpy(d->text + a->key.len, a->place.ptr, a->place.len);
        d->key_n = a->key.len;
        d->place_n = a->place.len;
        d->at_ns = now;
        d->next = *bucket;
        *bucket = d;
        atomic_fetch_add(&debts.n, 1);
    }
    if (d) {
        if (__builtin_add_overflow(flowed_off(d->ns, now - d->at_ns), a->ns, &d->ns)) d->ns = a->ns > 0 ? INT64_MAX / 2 : -INT64_MAX / 2;
        d->at_ns = now;
    }
    pthread_mutex_unlock(&debts.lock);
}

/* The next one; NULL: nobody owes anything. The caller's to free. */
static struct debt *take_debt(void)
{
    struct debt *d = NULL;
    pthread_mutex_lock(&debts.lock);
    for (unsigned i = 0; i < BUCKETS && !d && atomic_load(&debts.n); i++) {
        struct debt **bucket = &debts.buckets[debts.hand % BUCKETS];
        if ((d = *bucket)) *bucket = d->next;
        else debts.hand++;
    }
    if (d) atomic_fetch_sub(&debts.n, 1);
    pthread_mutex_unlock(&debts.lock);
    return d;
}

/* One that was sent and of which nobody knows what became: it is owed. A place is given back twice without harm. */
static void on_put_right(struct claw_state_call *c)
{
    if (!c->over || c->code == CLAW_OK) return;
    int64_t now = claw_limit_now_ns();
    for (size_t i = 0; i < c->keys_n; i++) {
        const struct claw_str *args = &c->words[3 + c->keys_n + i * ARGS]; /* each has its own text */
        struct amend a = {.op = args[0].ptr[0], .key = c->words[3 + i]};
        char number[32];
        snprintf(number, sizeof number, "%.*s", CLAW_STR_FMT(args[1]));
        if (a.op == 'A') a.ns = (int64_t)(strtod(number, NULL) * 1000);
        else a.place = args[1];
        owe(&a, now);
    }
}

static void send_amends(void)
{
    struct amends *all = &amends;
    size_t room = 0;
    if (all->n == 0) return;
    for (unsigned i = 0; i < all->n; i++) room += all->all[i].key.len + all->all[i].place.len + 64;
    struct claw_state_call *c = claw_state_ready(all->state) ? claw_state_call_new(all->state, claw_state_decide, all->n, (size_t)all->n * ARGS, room) : NULL;
    for (unsigned i = 0; i < all->n && c; i++) {
        const struct amend *a = &all->all[i];
        claw_state_call_key(c, i, a->key);
        claw_state_call_arg(c, i * ARGS, (struct claw_str){&a->op, 1});
        if (a->op == 'A') claw_state_call_time(c, i * ARGS + 1, a->ns);
        else claw_state_call_arg(c, i * ARGS + 1, a->place);
        if (a->op == 'N') claw_state_call_number(c, i * ARGS + 2, claw_state_conf(all->state)->state.lease_ms);
    }
    if (c) c->on_event = on_put_right;
    if (!c || claw_state_send(c) != CLAW_OK) {
        int64_t now = claw_limit_now_ns();
        for (unsigned i = 0; i < all->n; i++) owe(&all->all[i], now);
    }
    all->n = 0;
}

static void amend(struct claw_state *s, struct amend a)
{
    if (amends.n == AT_ONCE || (amends.n && amends.state != s)) send_amends();
    amends.state = s;
    amends.all[amends.n++] = a;
}

void claw_limit_shared_settle(struct claw_req *r, struct claw_limit_hold *h, int64_t amount)
{
    if (amount == 0) return;
    if (h->kind == CLAW_LIMIT_CONCURRENT) {
        amend(r->ctx->state, (struct amend){'R', h->named->key, h->named->place, 0});
        return;
    }
    int64_t now = claw_limit_now_ns(), cost = claw_limit_cost(amount, h->kind, h->named->limit), there = h->until_ns > now ? h->until_ns - now : 0;
    if (cost > there) cost = there;
    if (cost) amend(r->ctx->state, (struct amend){'A', h->named->key, CLAW_STR(""), -cost});
}

void claw_limit_shared_flush(struct claw_req *r) { send_amends(); }

static void hold_on(struct claw_worker_ctx *ctx)
{
    for (struct claw_req *r = ctx->requests; r; r = r->next)
        for (struct claw_limit_hold *h = r->limits; h; h = h->next)
            if (h->named && h->kind == CLAW_LIMIT_CONCURRENT && h->taken) amend(ctx->state, (struct amend){'N', h->named->key, h->named->place, 0});
    send_amends();
}

static void pay(struct claw_worker_ctx *ctx)
{
    struct debt *taken[AT_ONCE], *d;
    int64_t now = claw_limit_now_ns();
    for (unsigned left = A_TICK; left && claw_state_ready(ctx->state);) {
        unsigned n = 0;
        while (n < AT_ONCE && n < left && (d = take_debt())) taken[n++] = d;
        for (unsigned i = 0; i < n; i++) {
            struct claw_str key = {taken[i]->text, taken[i]->key_n}, place = {taken[i]->text + taken[i]->key_n, taken[i]->place_n};
            int64_t ns = flowed_off(taken[i]->ns, now - taken[i]->at_ns);
            if (place.len || ns) amend(ctx->state, (struct amend){place.len ? 'R' : 'A', key, place, place.len ? 0 : ns});
        }
        send_amends();
        for (unsigned i = 0; i < n; i++) free(taken[i]);
        if (n < AT_ONCE) break;
        left -= n;
    }
}

void claw_limits_keep(struct claw_worker_ctx *ctx)
{
    if (!ctx->state || !claw_state_ready(ctx->state)) return;
    uint64_t now = claw_loop_now_ms(ctx->loop);
    if (now - ctx->held_ms >= claw_state_conf(ctx->state)->state.lease_ms / 3) {
        ctx->held_ms = now;
        hold_on(ctx);
    }
    if (atomic_load_explicit(&debts.n, memory_order_relaxed)) pay(ctx);
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

struct claw_limit_ask {
    struct claw_req *r; /* who waits; NULL: it went on without, or is over */
    struct claw_state *state;
    struct claw_state_call *call;
    bool answered;      /* it took what Redis said */
    bool counted;       /* it went on by what is known here, and Redis is to count it, too */
    unsigned n, room;
    struct claw_limit_want *wants;
};

bool claw_limit_shared(const struct claw_req *r) { return r->ctx->state && claw_req_conf(r)->state.shared; }

static void drop(struct claw_limit_want *w)
{
    if (!w->cell) return;
    claw_limit_cell_lock(w->cell);
    w->cell->holds--;
    claw_limit_cell_unlock(w->cell);
    w->cell = NULL;
}

static void ask_free(struct claw_limit_ask *a)
{
    for (unsigned i = 0; i < a->n; i++) drop(&a->wants[i]);
    free(a->wants);
    free(a);
}

/* "prefix:limit:kind:id", and of a limit `per` something a hash of the values. */
static bool name_key(struct claw_limit_taking *t, struct claw_limit_want *w)
{
    struct claw_str values[1 + 16], key;
    char text[CLAW_STATE_KEY_MAX], hash[33] = "";
    size_t n = 0;
    values[n++] = w->id;
    for (size_t i = 0; i < t->per_n && n < sizeof values / sizeof *values; i++) values[n++] = claw_limit_value(t->r, t->per[i]);
    if (n > 1 || w->id.len > 128) claw_state_hash(values, n, hash);
    snprintf(text, sizeof text, "limit:%s:%.*s%s%s", claw_limit_kind_names[w->kind], (int)(w->id.len < 128 ? w->id.len : 128), w->id.ptr, *hash ? ":" : "", hash);
    bool good = claw_state_key(claw_req_conf(t->r), text, CLAW_STR(""), w->key, &key);
    w->key_len = key.len;
    return good;
}

bool claw_limit_shared_want(struct claw_limit_taking *t, const struct claw_limit_want *w)
{
    static _Atomic uint64_t places;
    struct claw_limit_ask *a = t->ask;
    if (a->n == a->room) {
        struct claw_limit_want *more = realloc(a->wants, (a->room + 4) * sizeof *more);
        if (!more) return false;
        a->wants = more;
        a->room += 4;
    }
    struct claw_limit_want *to = &a->wants[a->n];
    *to = *w;
    if (!name_key(t, to)) return false;
    if (w->kind == CLAW_LIMIT_CONCURRENT)
        snprintf(to->place, sizeof to->place, "%s:%llx", claw_state_instance(), (unsigned long long)atomic_fetch_add(&places, 1));
    a->n++;
    return true;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static struct claw_state_call *call_of(struct claw_limit_ask *a)
{
    size_t room = 0;
    for (unsigned i = 0; i < a->n; i++) room += a->wants[i].key_len + 5 * 28;
    struct claw_state_call *c = claw_state_call_new(a->state, claw_state_decide, a->n, (size_t)a->n * ARGS, room);
    for (unsigned i = 0; i < a->n && c; i++) {
        const struct claw_limit_want *w = &a->wants[i];
        bool place = w->kind == CLAW_LIMIT_CONCURRENT;
        claw_state_call_key(c, i, (struct claw_str){w->key, w->key_len});
        claw_state_call_arg(c, i * ARGS, place ? CLAW_STR("L") : CLAW_STR("T"));
        if (place) {
            claw_state_call_number(c, i * ARGS + 1, w->limit);
            claw_state_call_arg(c, i * ARGS + 2, claw_str_of(w->place));
            claw_state_call_number(c, i * ARGS + 3, claw_state_conf(a->state)->state.lease_ms);
        } else {
            claw_state_call_time(c, i * ARGS + 1, claw_limit_cost(w->amount, w->kind, w->limit));
            claw_state_call_time(c, i * ARGS + 2, claw_limit_cost(least(w->amount, w->room), w->kind, w->limit));
            claw_state_call_time(c, i * ARGS + 3, claw_limit_cost(w->room, w->kind, w->limit));
            claw_state_call_time(c, i * ARGS + 4, w->patience_ns);
        }
    }
    return c;
}

/* ---- what came of it --------------------------------------------------------------------------------------------------- */

static struct claw_limit_hold *hold_new(struct claw_limit_taking *t, struct claw_limit_want *w)
{
    struct claw_req *r = t->r;
    struct claw_limit_named *named = claw_arena_zalloc(&r->arena, sizeof *named);
    struct claw_limit_hold *h = claw_arena_zalloc(&r->arena, sizeof *h);
    size_t place_n = strlen(w->place);
    char *text = claw_arena_dup(&r->arena, w->key, w->key_len), *place = claw_arena_dup(&r->arena, w->place, place_n);
    if (!named || !h || !text || !place) return NULL;
    *named = (struct claw_limit_named){{text, w->key_len}, {place, place_n}, w->limit};
    *h = (struct claw_limit_hold){.next = r->limits, .cell = w->cell, .kind = w->kind, .limit = w->limit, .taken = w->amount,
                                  .upstream = t->upstreams ? t->upstream : CLAW_LIMIT_NOWHERE, .named = named};
    return h;
}

/* It is the request's, the want's cell with it. */
static void hold(struct claw_limit_taking *t, struct claw_limit_want *w, struct claw_limit_hold *h)
{
    w->cell = NULL;
    t->r->limits = h;
}

static void refused(struct claw_limit_taking *t, const struct claw_limit_want *w, int64_t wait_ns)
{
    claw_limit_refuse(t, w->id, (struct claw_str){w->cell->key, w->cell->len}, w->kind, w->limit, w->rates, wait_ns);
}

static int64_t part_of(int64_t all, unsigned instances) { return all / instances > 0 ? all / instances : 1; }

static struct claw_limit_hold *part_hold(struct claw_limit_want *w, unsigned parts, int64_t now, struct claw_limit_hold *h)
{
    h->cell = w->cell;
    h->kind = w->kind;
    h->limit = part_of(w->limit, parts);
    h->until_ns = now + w->taken.full_ns;
    return h;
}

static bool take_here(struct claw_limit_taking *t, struct claw_limit_ask *a, unsigned parts)
{
    for (unsigned i = 0; i < a->n; i++) {
        struct claw_limit_want *w = &a->wants[i];
        claw_limit_cell_lock(w->cell);
        w->taken = claw_limit_cell_take(w->cell, w->kind, part_of(w->limit, parts), part_of(w->room, parts), w->amount, w->patience_ns, t->now);
        claw_limit_cell_unlock(w->cell);
        if (w->taken.admitted) continue;
        refused(t, w, w->taken.wait_ns);
        struct claw_limit_hold h = {0};
        while (i-- > 0) claw_limit_give_back(part_hold(&a->wants[i], parts, t->now, &h), a->wants[i].amount, false);
        return false;
    }
    return true;
}

/* By what is known here, this instance's part of each. `owed`: Redis was not asked. */
static int decide_here(struct claw_limit_taking *t, struct claw_limit_ask *a, bool owed)
{
    unsigned parts = claw_state_instances();
    struct claw_str by = CLAW_STR("local");
    claw_metrics_add(t->r->ctx->metrics, CLAW_METRIC_STATE_DECISIONS, 1, 1, &by);
    if (!take_here(t, a, parts)) return CLAW_ERATE_LIMITED;
    for (unsigned i = 0; i < a->n; i++) {
        struct claw_limit_want *w = &a->wants[i];
        struct claw_limit_hold *h = hold_new(t, w), none = {0};
        if (!h) {
            for (; i < a->n; i++) claw_limit_give_back(part_hold(&a->wants[i], parts, t->now, &none), a->wants[i].amount, false);
            return CLAW_ERATE_LIMITED;
        }
        claw_limit_note(t, w->id, w->kind, w->limit, &w->taken);
        hold(t, w, part_hold(w, parts, t->now, h));
        if (owed && w->kind != CLAW_LIMIT_CONCURRENT)
            owe(&(struct amend){'A', {w->key, w->key_len}, CLAW_STR(""), claw_limit_cost(w->amount, w->kind, w->limit)}, t->now);
    }
    return 0;
}

static struct claw_limit_answer answer_of(const struct claw_limit_want *w, long long said)
{
    if (w->kind == CLAW_LIMIT_CONCURRENT) return (struct claw_limit_answer){.admitted = true, .left = w->limit - said};
    int64_t used = (int64_t)said * 1000, all = claw_limit_cost(w->room, w->kind, w->limit);
    int64_t beyond = claw_limit_cost(w->amount, w->kind, w->limit) - claw_limit_cost(least(w->amount, w->room), w->kind, w->limit);
    int64_t ahead = used - beyond - all;
    struct claw_limit_answer a = {.admitted = true, .wait_ns = ahead > 1000 ? ahead : 0, .full_ns = used}; /* a microsecond is rounding's */
    int64_t period = claw_limit_cost(w->limit, w->kind, w->limit);
    a.left = used >= all ? 0 : (int64_t)((__int128)(all - used) * w->limit / period);
    return a;
}

/* -1: it is no answer of the script. 0: refused. */
static int verdict_of(const struct claw_limit_ask *a)
{
    const struct redisReply *r = a->call && a->call->over && a->call->code == CLAW_OK ? a->call->reply : NULL;
    if (!r || r->elements < 1) return -1;
    for (size_t i = 0; i < r->elements; i++)
        if (r->element[i]->type != REDIS_REPLY_INTEGER) return -1;
    if (r->element[0]->integer == 1) return r->elements == a->n + 1 ? 1 : -1;
    return r->elements == 3 && r->element[1]->integer >= 1 && r->element[1]->integer <= a->n ? 0 : -1;
}

static int take_answer(struct claw_limit_taking *t, struct claw_limit_ask *a, int verdict)
{
    const struct redisReply *r = a->call->reply;
    struct claw_str by = CLAW_STR("redis");
    claw_metrics_add(t->r->ctx->metrics, CLAW_METRIC_STATE_DECISIONS, 1, 1, &by);
    if (verdict == 0) {
        const struct claw_limit_want *w = &a->wants[r->element[1]->integer - 1];
        refused(t, w, w->kind == CLAW_LIMIT_CONCURRENT ? CLAW_LIMIT_LOOK_SHARED_MS * 1000000ll : r->element[2]->integer * 1000);
        a->answered = true;
        return CLAW_ERATE_LIMITED;
    }
    for (unsigned i = 0; i < a->n; i++) {
        struct claw_limit_want *w = &a->wants[i];
        struct claw_limit_hold *h = hold_new(t, w);
        if (!h) return CLAW_ERATE_LIMITED; /* given back by amend_late */
        struct claw_limit_answer one = answer_of(w, r->element[i + 1]->integer);
        claw_limit_cell_lock(w->cell);
        if (w->kind == CLAW_LIMIT_CONCURRENT) w->cell->n += w->amount;
        else w->cell->tat_ns = t->now + one.full_ns;
        claw_limit_cell_unlock(w->cell);
        h->until_ns = t->now + one.full_ns;
        claw_limit_note(t, w->id, w->kind, w->limit, &one);
        hold(t, w, h);
    }
    a->answered = true;
    return 0;
}

/* What Redis did is known, or never will be, and the request did not wait for it. */
static void amend_late(struct claw_limit_ask *a)
{
    int verdict = verdict_of(a);
    int64_t now = claw_limit_now_ns();
    for (unsigned i = 0; i < a->n; i++) {
        const struct claw_limit_want *w = &a->wants[i];
        struct amend one = {'A', {w->key, w->key_len}, CLAW_STR(""), 0};
        bool place = w->kind == CLAW_LIMIT_CONCURRENT;
        if (place) one = (struct amend){'R', one.key, claw_str_of(w->place), 0};
        else one.ns = claw_limit_cost(w->amount, w->kind, w->limit);
        if (verdict == 1 && !a->counted) {
            one.ns = -one.ns;
            amend(a->state, one);
        } else if (verdict != 1 && a->counted && !place) {
            owe(&one, now);
        }
    }
    send_amends();
}

static void on_event(struct claw_state_call *c)
{
    struct claw_limit_ask *a = c->arg;
    if (a->r) claw_pipeline_resume(a->r);
    if (!c->over) return;
    if (!a->answered) amend_late(a);
    ask_free(a);
}

static void give_up(struct claw_req *r)
{
    r->limit_ask->r = NULL;
    r->limit_ask = NULL;
}

/* The request was resumed. */
static int conclude(struct claw_limit_taking *t)
{
    struct claw_limit_ask *a = t->r->limit_ask;
    int verdict = verdict_of(a);
    give_up(t->r);
    if (verdict >= 0) return take_answer(t, a, verdict);
    int rc = decide_here(t, a, false);
    a->counted = rc == 0;
    return rc;
}

int claw_limit_shared_take(struct claw_limit_taking *t)
{
    struct claw_req *r = t->r;
    if (r->limit_ask) return conclude(t);
    struct claw_limit_ask *a = calloc(1, sizeof *a);
    if (!a) return CLAW_ERATE_LIMITED;
    a->state = r->ctx->state;
    t->ask = a;
    int rc = claw_limit_match(t) ? 0 : CLAW_ERATE_LIMITED;
    if (rc != 0 || a->n == 0) {
        ask_free(a);
        return rc;
    }
    struct claw_state_call *c = claw_state_ready(a->state) ? call_of(a) : NULL;
    if (c) {
        c->arg = a;
        c->on_event = on_event;
        a->call = c;
        if (claw_state_send(c) == CLAW_OK) {
            a->r = r;
            r->limit_ask = a;
            r->wait_cancel = give_up;
            return CLAW_EAGAIN;
        }
        a->call = NULL;
    }
    rc = decide_here(t, a, true);
    ask_free(a);
    return rc;
}
