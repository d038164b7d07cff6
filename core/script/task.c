#include "script/task.h"

#include "script/api.h"

#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* The main state's stack between calls. */
enum { SLOT_ON_ERROR = 1, SLOT_ENTER, SLOTS = SLOT_ENTER };

#define RESULTS_MAX 8
#define TEXT_MAX (8u << 10) /* of an error's fields: a log line holds them all */
#define ERROR_BYTES (64u << 10)
#define SPAWNED_US 5000 /* of a turn, that spawned tasks compute before the rest of them is put off */
#define PAUSE_MS (2 * CLAW_LOOP_TICK_MS)

enum state { FRESH, RUNS, WAITS, OVER };

struct claw_task {
    struct claw_task *prev, *next; /* the family's */
    struct claw_vm *vm;
    struct claw_family *family;    /* NULL: a hook's that never waited */
    struct claw_req *req;
    lua_State *co;
    int ref;                       /* of co, in the registry */
    const char *hook;
    double id;
    uint8_t state;                 /* OVER: dropped, its memory goes when the wake under way arrives */
    bool own;                      /* runs a hook: claw_pipeline_resume goes on with it */
    bool listed, ready, joins;
    struct claw_budget_rest rest;  /* of its CPU time, while it waits; a hook's own begins without */
    int nargs;                     /* FRESH: on co, behind the function */
    const struct claw_wait *wait;  /* NULL: nothing but the timer */
    void *op;
    void (*over)(struct claw_family *f);
    struct claw_timer timer;
    struct claw_deferred wake;
    struct claw_lane_ticket turn;  /* woken, while this turn of the loop has no room left */
};

struct entry {
    claw_task_fn fn;
    void *arg;
};

/* ---- errors ------------------------------------------------------------------------------------------------- */

/* Replace the error value on top of L, raised on `from`, by a table; one that is a table already is kept. */
static void complete_error(lua_State *L, lua_State *from, int level, const char *hook)
{
    if (lua_type(L, -1) == LUA_TTABLE) return;
    if (lua_type(L, -1) != LUA_TSTRING) {
        lua_pushfstring(L, "an error that is a %s value", luaL_typename(L, -1));
        lua_replace(L, -2);
    }
    lua_createtable(L, 0, 4);
    lua_insert(L, -2);
    lua_setfield(L, -2, "message");
    if (hook) {
        lua_pushstring(L, hook);
        lua_setfield(L, -2, "hook");
    }
    luaL_traceback(L, from, NULL, level);
    lua_setfield(L, -2, "traceback");
}

static int on_error(lua_State *L)
{
    lua_settop(L, 1);
    complete_error(L, L, 1, NULL);
    return 1;
}

void claw_task_raise(lua_State *L, const char *hook, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    lua_pushstring(L, text);
    complete_error(L, L, 0, hook);
    lua_error(L);
    __builtin_unreachable();
}

struct reader {
    struct claw_arena *arena;
    struct claw_task_error *err;
};

static struct claw_str copy_field(lua_State *L, struct claw_arena *a, const char *key, const char *missing)
{
    struct claw_str s = claw_str_of(missing);
    lua_getfield(L, -1, key);
    if (lua_type(L, -1) == LUA_TSTRING) {
        size_t n;
        const char *p = lua_tolstring(L, -1, &n);
        if (n > TEXT_MAX) n = TEXT_MAX;
        char *copy = claw_arena_dup(a, p, n);
        s = copy ? (struct claw_str){copy, n} : CLAW_STR("(no memory left to say it)");
    }
    lua_pop(L, 1);
    return s;
}

/* Runs under lua_pcall with the error value on its stack. */
static void read_error(lua_State *L, void *arg)
{
    struct reader *x = arg;
    complete_error(L, L, 1, NULL);
    x->arena->cap += 4 * TEXT_MAX; /* that memory ran out can be what is to be said */
    x->err->policy = copy_field(L, x->arena, "policy", "claw");
    x->err->hook = copy_field(L, x->arena, "hook", "");
    x->err->message = copy_field(L, x->arena, "message", "unknown error");
    x->err->traceback = copy_field(L, x->arena, "traceback", "");
    lua_getfield(L, -1, "stopped");
    x->err->stopped = lua_toboolean(L, -1);
    lua_pop(L, 1);
}

/* ---- protected calls ---------------------------------------------------------------------------------------- */

static int enter(lua_State *L)
{
    const struct entry *e = lua_touserdata(L, 1);
    lua_remove(L, 1);
    e->fn(L, e->arg);
    return 0;
}

int claw_task_prepare(struct claw_vm *vm)
{
    lua_State *L = vm->L;
    CLAW_ASSERT(lua_gettop(L) == 0);
    lua_pushcfunction(L, on_error);
    lua_pushcfunction(L, enter);
    return lua_checkstack(L, 64) ? CLAW_OK : CLAW_ENOMEM;
}

static void collect(lua_State *L, void *arg) { claw_vm_make_room(L, *(const bool *)arg); }

/* A call came near the cap. Here, unlike in the hook, no frame holds on to what is dead. */
static void make_room(struct claw_vm *vm, bool failed)
{
    lua_State *L = vm->L;
    struct entry e = {collect, &failed};
    lua_pushvalue(L, SLOT_ENTER);
    lua_pushlightuserdata(L, &e);
    lua_pcall(L, 1, 0, 0);
    lua_settop(L, SLOTS);
}

int claw_task_call(struct claw_vm *vm, claw_task_fn fn, void *arg, struct claw_arena *a, struct claw_task_error *err)
{
    lua_State *L = vm->L;
    CLAW_ASSERT(lua_gettop(L) == SLOTS && !vm->task); /* calls do not nest */
    if (__builtin_expect(vm->armed || vm->owed, 0)) make_room(vm, false);
    vm->began = vm->bytes;
    struct entry e = {fn, arg};
    vm->stack_base = __builtin_frame_address(0);
    lua_pushvalue(L, SLOT_ENTER);
    lua_pushlightuserdata(L, &e);
    int rc = lua_pcall(L, 1, 0, SLOT_ON_ERROR);
    if (__builtin_expect(vm->budget.inside, 0)) claw_budget_leave(&vm->budget);
    if (__builtin_expect(rc == 0, 1)) {
        lua_settop(L, SLOTS);
        if (__builtin_expect(vm->stress, 0)) make_room(vm, false);
        return CLAW_OK;
    }
    *err = (struct claw_task_error){CLAW_STR("claw"), CLAW_STR(""), CLAW_STR("not enough memory (policies.memory_mb)"),
                                    CLAW_STR(""), false};
    a->cap += ERROR_BYTES; /* what is told, here and to the client, has room where the call left none */
    if (rc != LUA_ERRMEM) {
        struct reader x = {a, err};
        struct entry again = {read_error, &x};
        lua_pushvalue(L, SLOT_ENTER);
        lua_pushlightuserdata(L, &again);
        lua_pushvalue(L, -3);
        lua_pcall(L, 2, 0, 0);
    }
    lua_settop(L, SLOTS);
    if (__builtin_expect(vm->bytes > vm->cap - vm->cap / 4, 0)) make_room(vm, true);
    return CLAW_EPOLICY;
}

/* ---- coroutines --------------------------------------------------------------------------------------------- */

static struct claw_loop *loop_of(const struct claw_task *t) { return t->vm->ctx ? t->vm->ctx->loop : NULL; }

static void on_timer(struct claw_timer *timer) { claw_task_wake(timer->arg); }

/* A task with a coroutine, used again or new. May raise. */
static struct claw_task *task_new(lua_State *L, struct claw_req *r, const char *hook)
{
    struct claw_vm *vm = claw_vm_of(L);
    struct claw_task *t;
    lua_State *co;
    int ref;
    if (vm->threads_n > 0) {
        t = vm->threads[--vm->threads_n];
        co = t->co;
        ref = t->ref;
    } else {
        co = lua_newthread(L);
        ref = luaL_ref(L, LUA_REGISTRYINDEX);
        t = malloc(sizeof *t);
        if (!t) {
            luaL_unref(L, LUA_REGISTRYINDEX, ref);
            luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
        }
    }
    *t = (struct claw_task){.vm = vm, .req = r, .co = co, .ref = ref, .hook = hook};
    claw_timer_init(&t->timer, on_timer, t);
    return t;
}

static void list(struct claw_task *t)
{
    struct claw_family *f = t->family;
    if (t->listed) return;
    t->listed = true;
    t->prev = NULL;
    t->next = f->tasks;
    if (f->tasks) f->tasks->prev = t;
    f->tasks = t;
    f->tasks_n++;
}

static void unlist(struct claw_task *t)
{
    struct claw_family *f = t->family;
    if (!t->listed) return;
    t->listed = false;
    if (t->prev) t->prev->next = t->next;
    else f->tasks = t->next;
    if (t->next) t->next->prev = t->prev;
    f->tasks_n--;
}

static void end_wait(struct claw_task *t)
{
    const struct claw_wait *wait = t->wait;
    t->wait = NULL;
    t->joins = t->ready = false;
    if (loop_of(t)) {
        claw_timer_stop(loop_of(t), &t->timer);
        claw_lane_leave(loop_of(t), &t->turn);
    }
    if (wait && wait->end) wait->end(t->op);
    t->op = NULL;
}

/* The task is over. A coroutine that ended by an error or waits in a yield cannot be used again: it is left to the
 * collector. Never raises. */
static void task_end(struct claw_task *t, bool clean)
{
    struct claw_vm *vm = t->vm;
    end_wait(t);
    unlist(t);
    if (clean && vm->threads_n < CLAW_VM_THREADS && !t->wake.pending) {
        lua_settop(t->co, 0);
        vm->threads[vm->threads_n++] = t;
        return;
    }
    luaL_unref(vm->L, LUA_REGISTRYINDEX, t->ref);
    t->co = NULL;
    t->state = OVER;
    if (!t->wake.pending) free(t);
}

static int resume(struct claw_task *t, int nargs)
{
    struct claw_task *outer = t->vm->task;
    struct claw_budget *b = &t->vm->budget;
    bool counted = b->inside; /* by the hook that spawns it, for its first run */
    t->vm->task = t;
    t->state = RUNS;
    if (!counted) claw_budget_go_on(b, t->rest);
    int rc = lua_resume(t->co, nargs);
    if (!counted) t->rest = claw_budget_pause(b);
    t->vm->task = outer;
    return rc;
}

/* What it waited for becomes arguments on its coroutine; how many. Raises before anything is given up. */
static int take_results(lua_State *L, struct claw_task *t)
{
    int n = t->wait && t->wait->push ? t->wait->push(L, t->op) : 0;
    end_wait(t);
    if (!lua_checkstack(t->co, n)) luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    lua_xmove(L, t->co, n);
    return n;
}

/* ---- a hook's own task -------------------------------------------------------------------------------------- */

void claw_task_drop(struct claw_req *r)
{
    struct claw_task *t = r->waiting;
    r->waiting = NULL;
    r->wait_cancel = NULL;
    if (t) task_end(t, false);
}

static int run_own(lua_State *L, struct claw_task *t, int nargs, int nresults)
{
    struct claw_vm *vm = t->vm;
    struct claw_req *r = t->req;
    const char *hook = t->hook;
    int rc = resume(t, nargs);
    if (rc == LUA_YIELD && t->state == WAITS) {
        r->waiting = t;
        r->wait_cancel = claw_task_drop;
        return CLAW_EAGAIN;
    }
    if (r) r->waiting = NULL;
    if (rc == 0) {
        lua_settop(t->co, nresults);
        lua_xmove(t->co, L, nresults);
        task_end(t, true);
        if (vm->stress) lua_gc(L, LUA_GCCOLLECT, 0);
        return CLAW_OK;
    }
    lua_State *co = t->co;
    lua_pushthread(co);
    lua_xmove(co, L, 1); /* keeps the thread alive while its stack is told */
    task_end(t, false);
    if (rc == LUA_YIELD) {
        lua_pushfstring(L, "%s: this hook may not wait here", hook);
    } else {
        lua_pushvalue(co, -1);
        lua_xmove(co, L, 1);
    }
    complete_error(L, co, 0, hook);
    return lua_error(L);
}

int claw_task_run(lua_State *L, struct claw_req *r, const char *hook, int nargs, int nresults)
{
    CLAW_ASSERT(nresults <= RESULTS_MAX);
    struct claw_task *t = task_new(L, r, hook);
    t->own = true;
    /* Arguments are made on L, which is protected; moving them cannot fail. */
    lua_xmove(L, t->co, nargs + 1);
    return run_own(L, t, nargs, nresults);
}

int claw_task_continue(lua_State *L, struct claw_req *r, int nresults)
{
    struct claw_task *t = r->waiting;
    return run_own(L, t, take_results(L, t), nresults);
}

/* ---- waiting ------------------------------------------------------------------------------------------------ */

struct claw_task *claw_task_current(lua_State *L, const char *what)
{
    struct claw_vm *vm = claw_vm_of(L);
    struct claw_task *t = vm->task;
    if (!t) luaL_error(L, "%s: nothing can wait here", what);
    if (t->co != L) luaL_error(L, "%s: a coroutine of the policy's own cannot wait", what);
    if (!loop_of(t) || (!t->family && !t->req)) luaL_error(L, "%s: there is nothing that could end the wait", what);
    if (!t->family) t->family = &claw_api_handle_of(L, t->req)->family;
    return t;
}

bool claw_task_runs(lua_State *L)
{
    const struct claw_task *t = claw_vm_of(L)->task;
    return t && t->co == L;
}

struct claw_family *claw_task_family(struct claw_task *t) { return t->family; }

double claw_task_id(const struct claw_task *t) { return t->id; }

int claw_task_suspend(lua_State *L, struct claw_task *t, const struct claw_wait *wait, void *op)
{
    CLAW_ASSERT(t->vm->task == t && t->co == L && t->state == RUNS);
    t->wait = wait;
    t->op = op;
    t->state = WAITS;
    list(t);
    return lua_yield(L, 0);
}

int claw_task_sleep(lua_State *L, struct claw_task *t, unsigned ms, bool joins)
{
    t->joins = joins;
    claw_timer_start(loop_of(t), &t->timer, ms);
    return claw_task_suspend(L, t, NULL, NULL);
}

static void run_spawned(struct claw_task *t);

/* Many that wake at once, each with a budget of its own, must not keep the loop for the sum of these. */
static bool put_off(struct claw_task *t)
{
    struct claw_vm *vm = t->vm;
    struct claw_loop *l = loop_of(t);
    if (vm->spawned_turn != l->turn) {
        vm->spawned_turn = l->turn;
        vm->spawned_us = 0;
    }
    if (vm->spawned_us < SPAWNED_US) return false;
    t->ready = false;
    claw_timer_start(l, &t->timer, PAUSE_MS);
    return true;
}

static void go_on(struct claw_task *t)
{
    if (t->own) claw_pipeline_resume(t->req);
    else if (!put_off(t)) run_spawned(t);
}

static void on_turn(struct claw_lane_ticket *ticket)
{
    go_on((struct claw_task *)((char *)ticket - offsetof(struct claw_task, turn)));
}

/* Hundreds may be woken by one tick of the clock. */
static void on_wake(struct claw_deferred *d)
{
    struct claw_task *t = (struct claw_task *)((char *)d - offsetof(struct claw_task, wake));
    if (t->state == OVER) free(t);
    else if (!claw_lane_wait(loop_of(t), &t->vm->wakes, &t->turn, on_turn)) go_on(t);
}

void claw_task_wake(struct claw_task *t)
{
    if (t->ready) return;
    t->ready = true;
    claw_loop_defer(loop_of(t), &t->wake, on_wake);
}

/* ---- spawned tasks ------------------------------------------------------------------------------------------ */

static void log_failure(const struct claw_task *t, const char *message)
{
    claw_log_event(CLAW_LOG_ERROR, "a policy's task failed", "request_id", t->req ? t->req->id : "", "hook", t->hook, "error",
                   message, NULL);
}

/* What became of a run. The functions of spawned tasks catch what policies raise (lua/claw): an error here is the VM's. */
static void settle(struct claw_task *t, int rc)
{
    struct claw_family *f = t->family;
    void (*over)(struct claw_family *) = t->over;
    if (rc == LUA_YIELD && t->state == WAITS) return;
    if (rc != 0) log_failure(t, rc != LUA_YIELD && lua_type(t->co, -1) == LUA_TSTRING ? lua_tostring(t->co, -1) : "it ended without a word");
    task_end(t, rc == 0);
    for (struct claw_task *w = f->tasks; w; w = w->next)
        if (w->joins) claw_task_wake(w);
    if (over) over(f);
}

struct spawned {
    struct claw_task *t;
    bool ran; /* t is no longer ours to look at */
};

static void spawned_in(lua_State *L, void *arg)
{
    struct spawned *s = arg;
    int n = s->t->state == FRESH ? s->t->nargs : take_results(L, s->t);
    s->ran = true;
    s->t->ready = false;
    settle(s->t, resume(s->t, n));
}

static void run_spawned(struct claw_task *t)
{
    struct spawned s = {t, false};
    struct claw_task_error err;
    struct claw_arena arena;
    struct claw_vm *vm = t->vm;
    uint64_t from = claw_loop_clock_us();
    claw_arena_init(&arena, NULL, 0, 0);
    if (claw_task_call(vm, spawned_in, &s, &arena, &err) != CLAW_OK && !s.ran) {
        struct claw_family *f = t->family;
        void (*over)(struct claw_family *) = t->over;
        log_failure(t, err.message.ptr);
        task_end(t, false);
        for (struct claw_task *w = f->tasks; w; w = w->next)
            if (w->joins) claw_task_wake(w);
        if (over) over(f);
    }
    vm->spawned_us += claw_loop_clock_us() - from;
    claw_arena_reset(&arena);
}

double claw_task_spawn(lua_State *L, struct claw_family *f, const char *hook, bool later, void (*over)(struct claw_family *f))
{
    int n = lua_gettop(L);
    if (f->tasks_n >= CLAW_TASKS_MAX) return 0;
    struct claw_task *t = task_new(L, f->req, hook);
    if (!lua_checkstack(t->co, n + 1)) {
        task_end(t, false);
        luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    }
    double id = t->id = ++f->last_id;
    t->family = f;
    t->over = over;
    t->rest = claw_budget_fresh(&t->vm->budget);
    list(t);
    lua_xmove(L, t->co, n);
    t->nargs = n - 1;
    if (later) claw_task_wake(t);
    else settle(t, resume(t, t->nargs));
    return id;
}

bool claw_task_alive(const struct claw_family *f, double id)
{
    for (const struct claw_task *t = f->tasks; t; t = t->next)
        if (t->id == id) return true;
    return false;
}

void claw_task_drop_all(struct claw_family *f)
{
    while (f->tasks) task_end(f->tasks, false);
}
