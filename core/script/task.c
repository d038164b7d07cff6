#include "script/task.h"

#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>

/* The main state's stack between calls. */
enum { SLOT_ON_ERROR = 1, SLOT_ENTER, SLOTS = SLOT_ENTER };

#define RESULTS_MAX 8
#define TEXT_MAX (8u << 10) /* of an error's fields: a log line holds them all */

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
    x->err->policy = copy_field(L, x->arena, "policy", "claw");
    x->err->hook = copy_field(L, x->arena, "hook", "");
    x->err->message = copy_field(L, x->arena, "message", "unknown error");
    x->err->traceback = copy_field(L, x->arena, "traceback", "");
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

static void collect(lua_State *L, void *arg) { claw_vm_collect(L); }

/* A call before this one came near the cap. Here, unlike in the hook, no frame holds on to what is dead. */
static void make_room(struct claw_vm *vm)
{
    lua_State *L = vm->L;
    struct entry e = {collect, NULL};
    lua_pushvalue(L, SLOT_ENTER);
    lua_pushlightuserdata(L, &e);
    lua_pcall(L, 1, 0, 0);
    lua_settop(L, SLOTS);
}

int claw_task_call(struct claw_vm *vm, claw_task_fn fn, void *arg, struct claw_arena *a, struct claw_task_error *err)
{
    lua_State *L = vm->L;
    CLAW_ASSERT(lua_gettop(L) == SLOTS); /* calls do not nest */
    if (__builtin_expect(vm->armed || vm->bytes > vm->cap - vm->cap / 4, 0)) make_room(vm);
    struct entry e = {fn, arg};
    lua_pushvalue(L, SLOT_ENTER);
    lua_pushlightuserdata(L, &e);
    int rc = lua_pcall(L, 1, 0, SLOT_ON_ERROR);
    if (__builtin_expect(rc == 0, 1)) {
        lua_settop(L, SLOTS);
        if (__builtin_expect(vm->stress, 0)) make_room(vm);
        return CLAW_OK;
    }
    *err = (struct claw_task_error){CLAW_STR("claw"), CLAW_STR(""), CLAW_STR("not enough memory (policies.memory_mb)"),
                                    CLAW_STR("")};
    if (rc != LUA_ERRMEM) {
        struct reader x = {a, err};
        struct entry again = {read_error, &x};
        lua_pushvalue(L, SLOT_ENTER);
        lua_pushlightuserdata(L, &again);
        lua_pushvalue(L, -3);
        lua_pcall(L, 2, 0, 0);
    }
    lua_settop(L, SLOTS);
    return CLAW_EPOLICY;
}

/* ---- coroutines --------------------------------------------------------------------------------------------- */

static void take_thread(lua_State *L, struct claw_vm *vm, struct claw_task *t)
{
    if (vm->threads_n > 0) {
        vm->threads_n--;
        t->co = vm->threads[vm->threads_n].co;
        t->ref = vm->threads[vm->threads_n].ref;
        return;
    }
    t->co = lua_newthread(L);
    t->ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* A thread that ended by an error or waits in a yield cannot be used again: it is left to the collector. */
static void give_thread(lua_State *L, struct claw_vm *vm, struct claw_task *t, bool clean)
{
    if (clean && vm->threads_n < CLAW_VM_THREADS) {
        lua_settop(t->co, 0);
        vm->threads[vm->threads_n].co = t->co;
        vm->threads[vm->threads_n].ref = t->ref;
        vm->threads_n++;
        return;
    }
    luaL_unref(L, LUA_REGISTRYINDEX, t->ref);
}

void claw_task_run(lua_State *L, struct claw_req *r, const char *hook, int nargs, int nresults)
{
    CLAW_ASSERT(nresults <= RESULTS_MAX);
    struct claw_vm *vm = claw_vm_of(L);
    struct claw_task t = {.req = r, .hook = hook};
    take_thread(L, vm, &t);
    /* Arguments are made on L, which is protected; moving them cannot fail. */
    lua_xmove(L, t.co, nargs + 1);
    int rc = lua_resume(t.co, nargs);
    if (rc == 0) {
        lua_settop(t.co, nresults);
        lua_xmove(t.co, L, nresults);
        give_thread(L, vm, &t, true);
        if (vm->stress) lua_gc(L, LUA_GCCOLLECT, 0);
        return;
    }
    lua_pushthread(t.co);
    lua_xmove(t.co, L, 1); /* keeps the thread alive while its stack is told */
    give_thread(L, vm, &t, false);
    if (rc == LUA_YIELD) {
        lua_pushfstring(L, "%s: this hook may not wait here", hook);
    } else {
        lua_pushvalue(t.co, -1);
        lua_xmove(t.co, L, 1);
    }
    complete_error(L, t.co, 0, hook);
    lua_error(L);
}
