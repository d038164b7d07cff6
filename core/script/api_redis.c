/* core.redis: the door from Lua to net/redis. Words and options were checked by lua/claw/redis.lua. */
#include "script/api.h"

#include "net/redis.h"

#include <hiredis/hiredis.h>
#include <lauxlib.h>
#include <mbedtls/md.h>
#include <stdio.h>
#include <stdlib.h>

#define EXACT (INT64_C(1) << 53)

struct door {
    struct claw_task *task;
    struct claw_redis_call *call;
    struct claw_metrics_shard *metrics;
    const char *outcome; /* NULL: not known yet */
};

static void count(struct claw_metrics_shard *metrics, const char *outcome)
{
    struct claw_str label = claw_str_of(outcome);
    claw_metrics_add(metrics, CLAW_METRIC_REDIS_CALLS, 1, 1, &label);
}

static int failure(lua_State *L, const char *message, const char *code)
{
    lua_pushnil(L);
    lua_pushstring(L, message);
    lua_pushstring(L, code);
    return 3;
}

/* As Redis' own scripts see replies: nil is false, an error within a list is { err = … }; integers past 2^53 are texts. */
static void push_reply(lua_State *L, const redisReply *r)
{
    char digits[24];
    luaL_checkstack(L, 4, "a reply of Redis is nested too deeply");
    switch (r->type) {
    case REDIS_REPLY_INTEGER:
        snprintf(digits, sizeof digits, "%lld", r->integer);
        if (r->integer > -EXACT && r->integer < EXACT) lua_pushnumber(L, (lua_Number)r->integer);
        else lua_pushstring(L, digits);
        break;
    case REDIS_REPLY_STRING: case REDIS_REPLY_STATUS: lua_pushlstring(L, r->str, (size_t)r->len); break;
    case REDIS_REPLY_ERROR:
        lua_createtable(L, 0, 1);
        lua_pushlstring(L, r->str, (size_t)r->len);
        lua_setfield(L, -2, "err");
        break;
    case REDIS_REPLY_ARRAY:
        lua_createtable(L, (int)r->elements, 0);
        for (size_t i = 0; i < r->elements; i++) {
            push_reply(L, r->element[i]);
            lua_rawseti(L, -2, (int)i + 1);
        }
        break;
    default: lua_pushboolean(L, 0);
    }
}

static int push_outcome(lua_State *L, void *op)
{
    struct door *d = op;
    const struct claw_redis_call *c = d->call;
    if (c->code == CLAW_EDEADLINE) {
        d->outcome = "timeout";
        return failure(L, c->error, "ETIMEOUT");
    }
    if (c->code != CLAW_OK) {
        d->outcome = "down";
        return failure(L, c->error, "EDOWN");
    }
    bool error = c->reply->type == REDIS_REPLY_ERROR;
    d->outcome = error ? "error" : "ok";
    if (error) return failure(L, c->reply->str, "EREDIS");
    push_reply(L, c->reply);
    return 1;
}

static void end_call(void *op)
{
    struct door *d = op;
    count(d->metrics, d->outcome ? d->outcome : "canceled");
    claw_redis_call_free(d->call);
    free(d);
}

static const struct claw_wait redis_wait = {push_outcome, end_call};

static void on_done(struct claw_redis_call *c) { claw_task_wake(((struct door *)c->arg)->task); }

/* The words from stack index 2 on, as slices. */
static struct claw_str *read_words(lua_State *L, size_t n)
{
    struct claw_str *words = lua_newuserdata(L, n * sizeof *words);
    for (size_t i = 0; i < n; i++) words[i].ptr = luaL_checklstring(L, (int)i + 2, &words[i].len);
    return words;
}

/* redis(timeout_ms, name, …): the reply, or nil, message, code. */
static int core_redis(lua_State *L)
{
    struct claw_task *t = claw_task_current(L, "claw.redis.call");
    struct claw_vm *vm = claw_vm_of(L);
    unsigned timeout_ms = (unsigned)luaL_checkinteger(L, 1);
    size_t n = (size_t)lua_gettop(L) - 1;
    const struct claw_conf_redis *conf = &vm->gen->conf->redis;
    const char *why;
    luaL_checkstring(L, 2);
    if (!conf->host.len) return failure(L, "state.url is not given in the configuration", "EINVAL");
    const struct claw_str *words = read_words(L, n);
    struct claw_redis *x = claw_redis_of(&vm->ctx->redis, vm->ctx->loop, conf);
    struct door *d = x ? calloc(1, sizeof *d) : NULL;
    if (!d) return luaL_error(L, "%s", claw_err_text(CLAW_ENOMEM));
    d->task = t;
    d->metrics = vm->ctx->metrics;
    int rc = claw_redis_start(x, words, n, timeout_ms, on_done, d, &d->call, &why);
    if (rc == CLAW_OK) return claw_task_suspend(L, t, &redis_wait, d);
    free(d);
    count(vm->ctx->metrics, rc == CLAW_ECONNECT ? "down" : "busy");
    return failure(L, why, rc == CLAW_ECONNECT ? "EDOWN" : rc == CLAW_EBODY_TOO_LARGE ? "ETOO_LARGE" : "EBUSY");
}

/* sha1(text): 40 hexadecimal digits. */
static int core_sha1(lua_State *L)
{
    size_t n;
    unsigned char digest[20];
    char hex[41];
    const char *text = luaL_checklstring(L, 1, &n);
    if (mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA1), (const unsigned char *)text, n, digest) != 0)
        return luaL_error(L, "there is no SHA-1");
    for (int i = 0; i < 20; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    lua_pushlstring(L, hex, 40);
    return 1;
}

void claw_api_add_redis(lua_State *L)
{
    lua_pushcfunction(L, core_redis);
    lua_setfield(L, -2, "redis");
    lua_pushcfunction(L, core_sha1);
    lua_setfield(L, -2, "sha1");
}
