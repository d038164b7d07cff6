#include "script/vm.h"

#include "proxy/store.h"
#include "script/task.h"

#include <errno.h>
#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define MAGIC 0x434c564du /* CLVM */
#define MODULE_MAX (1u << 20)
#define SCRATCH_MAX (64u << 20)
#define STACK_MAX (256 << 10)
#define CATCHERS_STACK_MAX (48 << 10) /* a resumed coroutine takes some 300 bytes */
#define CATCHERS_LEVELS 1000
#define SMALL_STEP 16u
/* Bytes of freed small blocks that wait for the next of their size. Memory checkers are to see each one freed. */
#ifdef CLAW_ARENA_EMU
#define KEPT_MAX 0u
#else
#define KEPT_MAX (1u << 20)
#endif
#define BIG_BLOCK (256u << 10) /* no part of a trace is that large */

/* ---- the collector near the cap ------------------------------------------------------------------------------ */

/* LuaJIT's unit of collecting: a byte that is marked, or a tenth of an object that is looked at and, when dead, freed. */
#define SLICE (64u << 10)        /* units: 0.1 ms of marking, 0.7 ms of freeing */
#define ROOM_US 2000             /* CPU before a call; a request makes some four of them */
#define GROWTH (64u << 10)       /* bytes between two looks */
#define UNITS_A_BYTE 6           /* of growth: a whole cycle, and the rest of the one under way, while the last quarter fills */
#define UNITS_OF_CYCLES(n) (3 * (n)) /* two, whatever lies there */
#define BESIDE (1u << 20)        /* a call may still grow by, while others' garbage is past the cap */

/* Not LUA_GCSTEP: that goes on until LuaJIT's own debt is paid, which one large string can make a whole cycle. A threshold
 * that is reached lets the next allocation take one step, and the multiplier says how long it is. May raise (a finalizer). */
static void slice(lua_State *L, struct claw_vm *vm)
{
    int usual = lua_gc(L, LUA_GCSETSTEPMUL, SLICE / 10);
    lua_gc(L, LUA_GCRESTART, 0);
    lua_pushliteral(L, "");
    lua_pop(L, 1);
    lua_gc(L, LUA_GCSETSTEPMUL, usual);
    vm->owed = vm->owed > SLICE ? vm->owed - SLICE : 0;
}

static size_t base_of(const struct claw_vm *vm) { return vm->cap - vm->cap / 4; }

static size_t above(size_t a, size_t b) { return a > b ? a - b : 0; }

/* When the hook is armed next. */
static void look_later(lua_State *L, struct claw_vm *vm)
{
    size_t base = base_of(vm), next = vm->bytes + GROWTH;
    if (vm->bytes <= base) vm->owed = 0;
    if (next > vm->hard) next = vm->hard;
    vm->looked = vm->bytes;
    vm->soft = next > base ? next : base;
    vm->armed = false;
    if (!vm->budget.expired) lua_sethook(L, NULL, 0, 0);
}

static uint64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* What the call holds on to is dead soon. */
static void owe_all(struct claw_vm *vm) { vm->owed = UNITS_OF_CYCLES(vm->bytes); }

static void out_of_memory(struct claw_vm *vm)
{
    vm->broken = true;
    owe_all(vm);
}

void claw_vm_make_room(lua_State *L, bool failed)
{
    struct claw_vm *vm = claw_vm_of(L);
    uint64_t us = failed && vm->budget.limit_us > ROOM_US ? vm->budget.limit_us : ROOM_US;
    if (vm->stress) lua_gc(L, LUA_GCCOLLECT, 0);
    if (failed && above(vm->bytes, vm->began) > BESIDE) owe_all(vm);
    for (uint64_t end = cpu_us() + us; vm->owed && vm->bytes > base_of(vm) && cpu_us() < end;) slice(L, vm);
    look_later(L, vm);
}

/* Runs between two instructions of interpreted code: the one place within a call where the collector may be run. What it
 * takes is in proportion to what the call took. */
static void on_hook(lua_State *L, lua_Debug *d)
{
    struct claw_vm *vm = claw_vm_of(L);
    if (vm->budget.expired) claw_budget_stop(L, &vm->budget, d);
    if (!vm->armed) return;
    size_t due = UNITS_A_BYTE * above(vm->bytes, vm->looked);
    vm->owed += due;
    for (due *= 2; due && vm->owed && vm->bytes > base_of(vm) && !vm->budget.expired; due = above(due, SLICE)) slice(L, vm);
    look_later(L, vm);
    if (vm->bytes <= vm->cap || (vm->owed && above(vm->bytes, vm->began) <= BESIDE)) return;
    out_of_memory(vm);
    claw_budget_raise(L, "not enough memory (policies.memory_mb)");
}

static bool may_grow(struct claw_vm *vm, size_t by)
{
    size_t after = vm->bytes + by;
    if (__builtin_expect(after <= vm->soft, 1)) return true;
    if (after > vm->hard || (after > vm->cap && by >= BIG_BLOCK && !(vm->owed && by <= BESIDE))) {
        out_of_memory(vm);
        return false;
    }
    if (!vm->armed && vm->L) {
        vm->armed = true;
        lua_sethook(vm->L, on_hook, LUA_MASKCOUNT, 1); /* made for signal handlers, so it may be called from here */
    }
    return true;
}

/* What a request allocates is small, and freed in bursts by the collector: more than malloc keeps at hand. */
static bool keep_small(struct claw_vm *vm, void *p, size_t size)
{
    size_t class = (size + SMALL_STEP - 1) / SMALL_STEP;
    if (class >= CLAW_VM_SMALL || vm->kept_bytes + size > KEPT_MAX) return false;
    *(void **)p = vm->kept[class];
    vm->kept[class] = p;
    vm->kept_bytes += class * SMALL_STEP;
    return true;
}

static void *take_small(struct claw_vm *vm, size_t size)
{
    size_t class = (size + SMALL_STEP - 1) / SMALL_STEP;
    if (class >= CLAW_VM_SMALL) return malloc(size);
    void *p = vm->kept[class];
    if (!p) return malloc(class * SMALL_STEP);
    vm->kept[class] = *(void **)p;
    vm->kept_bytes -= class * SMALL_STEP;
    return p;
}

static void free_small(struct claw_vm *vm)
{
    for (size_t class = 0; class < CLAW_VM_SMALL; class++) {
        for (void *p = vm->kept[class], *next; p; p = next) {
            next = *(void **)p;
            free(p);
        }
    }
}

static void *allocate(void *ud, void *p, size_t old, size_t n)
{
    struct claw_vm *vm = ud;
    if (!p) {
        void *q = may_grow(vm, n) && n > 0 ? take_small(vm, n) : NULL;
        if (q) vm->bytes += n;
        return q;
    }
    if (n == 0) {
        vm->bytes -= old;
        if (!keep_small(vm, p, old)) free(p);
        return NULL;
    }
    /* A block may be larger than it says, never smaller. */
    size_t size = n < CLAW_VM_SMALL * SMALL_STEP ? (n + SMALL_STEP - 1) / SMALL_STEP * SMALL_STEP : n;
    void *q = n <= old || may_grow(vm, n - old) ? realloc(p, size) : NULL;
    if (q) vm->bytes += n - old;
    return q;
}

static int on_panic(lua_State *L)
{
    claw_err_panic(__FILE__, __LINE__, "a Lua error outside of a protected call");
}

struct claw_vm *claw_vm_of(lua_State *L)
{
    void *ud = NULL;
    lua_getallocf(L, &ud);
    struct claw_vm *vm = ud;
    CLAW_ASSERT(vm && vm->magic == MAGIC);
    return vm;
}

/* ---- modules ------------------------------------------------------------------------------------------------ */

/* DIR/claw/x.lua or DIR/claw/x/init.lua for module claw.x. True: its text is in vm->text, its path on the stack. */
static bool find_on_disk(lua_State *L, struct claw_vm *vm, const char *name)
{
    const char *dir = getenv("OPENCLAW_LUA_DIR");
    if (!dir || !*dir) return false;
    const char *path = luaL_gsub(L, name, ".", "/");
    const char *forms[] = {"%s/%s.lua", "%s/%s/init.lua"};
    for (size_t i = 0; i < 2; i++) {
        const char *file = lua_pushfstring(L, forms[i], dir, path);
        claw_buf_clear(&vm->text);
        vm->text.max = MODULE_MAX;
        int rc = claw_buf_add_file(&vm->text, file);
        vm->text.max = 0;
        if (rc == CLAW_OK) return true;
        if (rc != CLAW_EIO || errno != ENOENT) luaL_error(L, "cannot read %s", file);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return false;
}

static int search_module(lua_State *L)
{
    struct claw_vm *vm = claw_vm_of(L);
    const char *name = luaL_checkstring(L, 1);
    if (strcmp(name, "claw") != 0 && strncmp(name, "claw.", 5) != 0) {
        lua_pushfstring(L, "\n\tno embedded module '%s'", name);
        return 1;
    }
    for (const char *p = name; *p; p++) {
        if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_' || *p == '.')) {
            lua_pushfstring(L, "\n\t'%s' is no module name", name);
            return 1;
        }
    }
    if (find_on_disk(L, vm, name)) {
        struct claw_str s = claw_buf_str(&vm->text);
        if (luaL_loadbufferx(L, s.ptr, s.len, lua_pushfstring(L, "@%s", lua_tostring(L, -1)), "t")) return lua_error(L);
        return 1;
    }
    for (const struct claw_embedded *e = claw_embedded_lua; e->name; e++) {
        if (strcmp(e->name, name) != 0) continue;
        if (luaL_loadbuffer(L, (const char *)e->data, e->size, name)) return lua_error(L);
        return 1;
    }
    lua_pushfstring(L, "\n\tno embedded module '%s'", name);
    return 1;
}

/* Without the entries that start in the working directory. */
static void push_cpath(lua_State *L, const char *cpath)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
#ifdef CLAW_LUA_CPATH
    luaL_addstring(&b, CLAW_LUA_CPATH ";");
#endif
    while (*cpath) {
        size_t n = strcspn(cpath, ";");
        if (n > 0 && cpath[0] == '/') {
            luaL_addlstring(&b, cpath, n);
            luaL_addchar(&b, ';');
        }
        cpath += n + (cpath[n] == ';');
    }
    luaL_pushresult(&b);
}

static void set_up_package(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "path");
    lua_getfield(L, -1, "cpath");
    push_cpath(L, lua_tostring(L, -1));
    lua_setfield(L, -3, "cpath");
    lua_pop(L, 1);
    lua_getfield(L, -1, "loaders");
    for (int i = (int)lua_objlen(L, -1); i >= 2; i--) { /* behind package.preload, before everything else */
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, search_module);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 2);
}

void claw_vm_set_cap(struct claw_vm *vm, size_t cap)
{
    vm->cap = cap;
    vm->soft = vm->looked = base_of(vm);
    vm->hard = cap + cap / 2;
}

/* ---- life --------------------------------------------------------------------------------------------------- */

/* Compiled loops over pairs() go wrong in LuaJIT 2.1 beta 3 (Debian 12): once in some thousand calls the trace takes its
 * exit before the first entry, and a table looks empty. Not seen with the compiler off for the function around such a loop;
 * a step that is never compiled keeps every such loop out of traces. */
static const char slow_pairs[] =
    "local next, type, error = next, type, error "
    "local function step(t, k) return next(t, k) end "
    "jit.off(step) "
    "function pairs(t) "
    "  if type(t) ~= 'table' then error(\"bad argument #1 to 'pairs' (table expected, got \" .. (t == nil and 'nil' or type(t)) .. ')', 2) end "
    "  return step, t, nil "
    "end";

static int set_up(lua_State *L)
{
    luaL_openlibs(L);
    if (luaL_loadbuffer(L, slow_pairs, sizeof slow_pairs - 1, "=pairs")) return lua_error(L);
    lua_call(L, 0, 0);
    set_up_package(L);
    /* The registry's list of free references gets its slot now: luaL_unref never allocates later. */
    lua_pushboolean(L, 1);
    luaL_unref(L, LUA_REGISTRYINDEX, luaL_ref(L, LUA_REGISTRYINDEX));
    const char *stress = getenv("OPENCLAW_GCSTRESS");
    if (stress && strcmp(stress, "1") == 0) {
        lua_gc(L, LUA_GCSETPAUSE, 0);
        lua_gc(L, LUA_GCSETSTEPMUL, 2000);
        claw_vm_of(L)->stress = true;
    }
    return 0;
}

static void seed(struct claw_vm *vm)
{
    if (getrandom(vm->random, sizeof vm->random, 0) != (ssize_t)sizeof vm->random) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        vm->random[0] = (uint64_t)t.tv_nsec * 0x9e3779b97f4a7c15u;
    }
    vm->random[1] |= 1; /* all zero would stay so */
}

int claw_vm_new(size_t cap, struct claw_vm **out)
{
    struct claw_vm *vm = calloc(1, sizeof *vm);
    if (!vm) return CLAW_ENOMEM;
    vm->magic = MAGIC;
    vm->cap = vm->soft = vm->hard = SIZE_MAX; /* lua_newstate itself crashes when it is refused: the bound begins behind it */
    claw_arena_init(&vm->scratch, NULL, 0, SCRATCH_MAX);
    claw_buf_init(&vm->text, 0);
    seed(vm);
    vm->L = lua_newstate(allocate, vm);
    if (vm->L) lua_atpanic(vm->L, on_panic);
    vm->budget.L = vm->L;
    vm->budget.hook = on_hook;
    bool prepared = vm->L && claw_task_prepare(vm) == CLAW_OK;
    claw_vm_set_cap(vm, cap);
    if (!prepared || lua_cpcall(vm->L, set_up, NULL) != 0) {
        claw_vm_free(vm);
        return CLAW_ENOMEM;
    }
    *out = vm;
    return CLAW_OK;
}

void claw_vm_free(struct claw_vm *vm)
{
    if (!vm) return;
    CLAW_ASSERT(vm->magic == MAGIC);
    CLAW_ASSERT(!vm->wakes.first);
    if (vm->L) lua_close(vm->L);
    CLAW_ASSERT(vm->bytes == 0);
    free_small(vm);
    for (unsigned i = 0; i < vm->threads_n; i++) free(vm->threads[i]);
    for (struct claw_vm_block *b = vm->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    claw_arena_reset(&vm->scratch);
    claw_buf_fini(&vm->text);
    claw_store_free(vm->own_store);
    vm->magic = 0;
    free(vm);
}

int claw_vm_load(lua_State *L, struct claw_str source, const char *label, bool interpreted)
{
    const char *name = *label == '@' || *label == '=' ? label : lua_pushfstring(L, "@%s", label);
    if (luaL_loadbufferx(L, source.ptr, source.len, name, "t") != 0) {
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    if (interpreted) CLAW_ASSERT(luaJIT_setmode(L, -1, LUAJIT_MODE_ALLFUNC | LUAJIT_MODE_OFF));
    return 1;
}

void claw_vm_check_stack(lua_State *L, const struct claw_vm *vm)
{
    const char *here = __builtin_frame_address(0);
    if (vm->stack_base && vm->stack_base - here > STACK_MAX) luaL_error(L, "C stack overflow");
}

void claw_vm_check_depth(lua_State *L, const struct claw_vm *vm)
{
    lua_Debug d;
    const char *here = __builtin_frame_address(0);
    if (lua_getstack(L, CATCHERS_LEVELS, &d) || (vm->stack_base && vm->stack_base - here > CATCHERS_STACK_MAX))
        luaL_error(L, "stack overflow (protected calls and coroutines nested too deep)");
}

double claw_vm_random(struct claw_vm *vm)
{
    uint64_t a = vm->random[0], b = vm->random[1];
    vm->random[0] = b;
    a ^= a << 23;
    vm->random[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
    return (double)((vm->random[1] + b) >> 11) * 0x1.0p-53;
}

struct claw_arena *claw_vm_scratch(struct claw_vm *vm)
{
    claw_arena_reset(&vm->scratch);
    return &vm->scratch;
}
