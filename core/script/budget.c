#include "script/budget.h"

#include "base/log.h"

#include <errno.h>
#include <lauxlib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define SIGNAL (SIGRTMIN + 1)
#define TICK_NS 1000000L
#define LEVELS 200 /* of the stack that are searched for the policy's line */

/* ThreadSanitizer keeps signals back until the thread calls the C library, which a loop in Lua never does. */
#ifdef __SANITIZE_THREAD__
extern int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);
#define set_handler __sigaction
#define IN_HANDLER __attribute__((no_sanitize("thread")))
#else
#define set_handler sigaction
#define IN_HANDLER
#endif

static _Thread_local struct claw_budget *volatile running;
static _Thread_local bool timed;
static _Thread_local timer_t timer;

/* ---- the clock ---------------------------------------------------------------------------------------------- */

IN_HANDLER static uint64_t cpu_us(void)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

IN_HANDLER static void on_tick(int sig, siginfo_t *info, void *context)
{
    struct claw_budget *b = running;
    if (!b || !b->inside) return;
    int saved = errno;
    uint64_t now = cpu_us();
    if (b->seen != b->call) {
        b->seen = b->call;
        b->since_us = now;
    }
    if (now - b->since_us + b->used_us >= b->allowed_us) {
        b->expired = true;
        /* May be called from a signal's handler. Again at each tick: the memory bound uses the same hook. */
        lua_sethook(b->L, b->hook, LUA_MASKCOUNT, 1);
    }
    errno = saved;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_exit;

static void end_timer(void *arg)
{
    timed = false;
    timer_delete(timer);
}

static void set_up(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_sigaction = on_tick;
    a.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&a.sa_mask);
    CLAW_ASSERT(set_handler(SIGNAL, &a, NULL) == 0);
    CLAW_ASSERT(pthread_key_create(&at_exit, end_timer) == 0);
}

/* Without a timer (RLIMIT_SIGPENDING) nothing bounds a policy: it is tried again at each call, and must not stay unsaid. */
static void say_untimed(void)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    const char *why = strerror(errno);
    if (!atomic_flag_test_and_set(&said))
        claw_log_event(CLAW_LOG_ERROR, "policies run without policies.budget_ms: there is no timer for it", "error", why, NULL);
}

static void begin_timer(void)
{
    pthread_once(&once, set_up);
    struct sigevent e;
    memset(&e, 0, sizeof e);
    e.sigev_notify = SIGEV_THREAD_ID;
    e.sigev_signo = SIGNAL;
    e.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &e, &timer) != 0) {
        say_untimed();
        return;
    }
    struct itimerspec every = {{0, TICK_NS}, {0, TICK_NS}};
    if (timer_settime(timer, 0, &every, NULL) != 0) {
        say_untimed();
        timer_delete(timer);
        return;
    }
    timed = true;
    pthread_setspecific(at_exit, &timer);
}

/* ---- calls -------------------------------------------------------------------------------------------------- */

static void begin(struct claw_budget *b, uint64_t allowed_us, uint64_t used_us)
{
    if (__builtin_expect(!timed, 0)) begin_timer();
    if (__builtin_expect(b->expired, 0)) claw_budget_leave(b);
    b->allowed_us = allowed_us;
    b->used_us = used_us;
    b->expired = false;
    b->call++;
    running = b;
    b->inside = true;
}

void claw_budget_enter(struct claw_budget *b, unsigned times)
{
    if (b->limit_us) begin(b, b->limit_us * times, 0);
}

bool claw_budget_leave(struct claw_budget *b)
{
    b->inside = false;
    running = NULL;
    if (__builtin_expect(!b->expired, 1)) return false;
    b->expired = false;
    lua_sethook(b->L, NULL, 0, 0);
    return true;
}

struct claw_budget_rest claw_budget_fresh(const struct claw_budget *b)
{
    return (struct claw_budget_rest){b->limit_us, 0, b->limit_us > 0};
}

struct claw_budget_rest claw_budget_pause(struct claw_budget *b)
{
    struct claw_budget_rest rest = {b->allowed_us, b->used_us, b->inside};
    if (!rest.inside) return rest;
    claw_budget_leave(b);
    if (b->seen == b->call) rest.used_us += cpu_us() - b->since_us; /* else no tick has met it: short */
    return rest;
}

void claw_budget_go_on(struct claw_budget *b, struct claw_budget_rest rest)
{
    if (rest.inside) begin(b, rest.allowed_us, rest.used_us);
}

/* ---- the end ------------------------------------------------------------------------------------------------ */

/* lua/claw's functions live in the globals, each policy's in an environment of its own. */
static bool is_policy(lua_State *L, lua_Debug *d)
{
    if (!lua_getinfo(L, "fSl", d)) return false;
    lua_getfenv(L, -1);
    bool own = d->currentline > 0 && !lua_rawequal(L, -1, LUA_GLOBALSINDEX);
    lua_pop(L, 2);
    return own;
}

void claw_budget_raise(lua_State *L, const char *what)
{
    lua_Debug d;
    luaL_checkstack(L, 6, NULL);
    for (int level = 0; level < LEVELS && lua_getstack(L, level, &d); level++) {
        if (!is_policy(L, &d)) continue;
        lua_pushfstring(L, "%s:%d: %s", *d.source == '@' ? d.source + 1 : d.short_src, d.currentline, what);
        lua_error(L);
    }
    lua_pushstring(L, what);
    lua_error(L);
    __builtin_unreachable();
}

_Noreturn static void out_of_time(lua_State *L, const struct claw_budget *b)
{
    char text[80];
    snprintf(text, sizeof text, "stopped after %u ms of CPU time (policies.budget_ms)", (unsigned)(b->allowed_us / 1000));
    claw_budget_raise(L, text);
}

void claw_budget_stop(lua_State *L, struct claw_budget *b, lua_Debug *d)
{
    luaL_checkstack(L, 4, NULL);
    if (is_policy(L, d)) out_of_time(L, b);
}

void claw_budget_check(lua_State *L, struct claw_budget *b)
{
    if (__builtin_expect(b->expired, 0)) out_of_time(L, b);
}
