/* The functions of core that wait, or start what waits: sleep, join, spawn, alive, background. Arguments and phases are
 * checked by lua/claw/waiting.lua. */
#include "script/api.h"

#include <lauxlib.h>
#include <stdlib.h>

#define SLEEP_MAX_MS 600000
#define BACKGROUND_MAX 64 /* of a worker */
#define BACKGROUND_MS 60000

static int sleep_here(lua_State *L, const char *what, bool joins)
{
    lua_Number ms = luaL_checknumber(L, 1);
    if (!(ms >= 0 && ms <= SLEEP_MAX_MS)) return luaL_argerror(L, 1, "milliseconds from 0 to 600000");
    return claw_task_sleep(L, claw_task_current(L, what), (unsigned)ms, joins);
}

/* sleep(ms) */
static int core_sleep(lua_State *L) { return sleep_here(L, "claw.time.sleep", false); }

/* join(ms): until another task of the family is over, or ms have passed. */
static int core_join(lua_State *L) { return sleep_here(L, "claw.task.wait", true); }

/* The message of a bound that is reached, behind nil; and its code. */
static int busy(lua_State *L, const char *text)
{
    lua_pushnil(L);
    lua_pushstring(L, text);
    lua_pushliteral(L, "EBUSY");
    return 3;
}

/* spawn(fn, …): the task's id, or nil, message, code. */
static int core_spawn(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    struct claw_task *t = claw_task_current(L, "claw.task.spawn");
    double id = claw_task_spawn(L, claw_task_family(t), "task", false, NULL);
    if (id == 0) return busy(L, "64 tasks of this request are under way");
    lua_pushnumber(L, id);
    return 1;
}

/* alive(id): is this task of the caller's family under way, and is it the caller? */
static int core_alive(lua_State *L)
{
    struct claw_task *t = claw_task_current(L, "claw.task.wait");
    double id = luaL_checknumber(L, 1);
    lua_pushboolean(L, claw_task_alive(claw_task_family(t), id));
    lua_pushboolean(L, claw_task_id(t) == id);
    return 2;
}

/* ---- background --------------------------------------------------------------------------------------------- */

struct background {
    struct claw_background b; /* first */
    struct claw_family family;
    struct claw_worker_ctx *ctx;
    struct claw_generation_local *local; /* a reference */
    struct claw_timer limit;
};

static void background_end(struct claw_background *b)
{
    struct background *x = (struct background *)b;
    struct claw_worker_ctx *ctx = x->ctx;
    claw_timer_stop(ctx->loop, &x->limit);
    claw_task_drop_all(&x->family);
    if (b->prev) b->prev->next = b->next;
    else ctx->backgrounds = b->next;
    if (b->next) b->next->prev = b->prev;
    ctx->backgrounds_n--;
    claw_generation_local_unref(x->local);
    free(x);
}

static void on_over(struct claw_family *f)
{
    background_end(&((struct background *)((char *)f - offsetof(struct background, family)))->b);
}

static void on_limit(struct claw_timer *t)
{
    struct background *x = t->arg;
    claw_log_event(CLAW_LOG_WARN, "a background task was stopped: it ran for a minute", NULL);
    background_end(&x->b);
}

static struct background *background_new(struct claw_vm *vm)
{
    struct background *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    struct claw_worker_ctx *ctx = vm->ctx;
    x->b.cancel = background_end;
    x->family.vm = vm;
    x->ctx = ctx;
    x->local = claw_generation_local_ref(vm->local);
    x->b.next = ctx->backgrounds;
    if (ctx->backgrounds) ctx->backgrounds->prev = &x->b;
    ctx->backgrounds = &x->b;
    ctx->backgrounds_n++;
    claw_timer_init(&x->limit, on_limit, x);
    claw_timer_start(ctx->loop, &x->limit, BACKGROUND_MS);
    return x;
}

static int start_in(lua_State *L)
{
    struct background **x = lua_touserdata(L, lua_upvalueindex(1));
    claw_task_spawn(L, &(*x)->family, "background", true, on_over);
    return 0;
}

/* background(fn, …): true, or nil, message, code. */
static int core_background(lua_State *L)
{
    struct claw_vm *vm = claw_vm_of(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    if (!vm->ctx || !vm->ctx->loop || !vm->local) return luaL_error(L, "claw.task.background: there is no worker here");
    if (vm->ctx->backgrounds_n >= BACKGROUND_MAX) return busy(L, "64 background tasks of this worker are under way");
    struct background *x;
    lua_pushlightuserdata(L, &x);
    lua_pushcclosure(L, start_in, 1);
    lua_insert(L, 1);
    x = background_new(vm);
    if (!x) return luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    if (lua_pcall(L, lua_gettop(L) - 1, 0, 0) != 0) { /* there was no memory for its coroutine */
        background_end(&x->b);
        return lua_error(L);
    }
    lua_pushboolean(L, 1);
    return 1;
}

void claw_api_add_waits(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"sleep", core_sleep}, {"join", core_join}, {"spawn", core_spawn}, {"alive", core_alive},
        {"background", core_background}, {"fetch", claw_api_fetch}, {NULL, NULL},
    };
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
}
