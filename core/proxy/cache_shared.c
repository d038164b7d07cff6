/* Answers in Redis: one text each, "1 epoch ttl_ms stream len len len len len\n" and behind it route, model, client, type, dropped
 * and the body; see cache_part.h. */
#include "proxy/cache_part.h"

#include "proxy/sync.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXTS 5u
#define HEAD_MAX 160u

struct claw_cache_ask {
    void (*on_told)(void *arg); /* NULL: nobody waits */
    void *arg;
    const struct redisReply *reply; /* while it is told; NULL: there is none */
};

static bool put_keys(struct claw_state *s, struct claw_state_call *c, const struct claw_cache_key *key)
{
    char text[CLAW_STATE_KEY_MAX], hex[2 * CLAW_CACHE_KEY + 1];
    struct claw_str name;
    for (unsigned i = 0; i < CLAW_CACHE_KEY; i++) snprintf(hex + 2 * i, 3, "%02x", key->bytes[i]);
    if (!claw_state_key(claw_state_conf(s), "cache:", claw_str_of(hex), text, &name)) return false;
    claw_state_call_key(c, 0, name);
    if (!claw_state_key(claw_state_conf(s), CLAW_CACHE_EPOCH, CLAW_STR(""), text, &name)) return false;
    claw_state_call_key(c, 1, name);
    return true;
}

static void on_event(struct claw_state_call *c)
{
    struct claw_cache_ask *a = c->arg;
    if (a->on_told) {
        a->reply = c->over && c->code == CLAW_OK && !claw_sync_purging() ? c->reply : NULL;
        a->on_told(a->arg);
        a->on_told = NULL;
        a->reply = NULL;
    }
    if (c->over) free(a);
}

struct claw_cache_ask *claw_cache_ask(struct claw_state *s, const struct claw_cache_key *key, void (*on_told)(void *arg), void *arg)
{
    if (!claw_state_ready(s) || claw_sync_purging()) return NULL;
    struct claw_cache_ask *a = calloc(1, sizeof *a);
    struct claw_state_call *c = a ? claw_state_call_new(s, claw_state_fetch, 2, 0, 2 * CLAW_STATE_KEY_MAX) : NULL;
    if (c && !put_keys(s, c, key)) {
        claw_state_call_drop(c);
        c = NULL;
    }
    if (c) {
        *a = (struct claw_cache_ask){on_told, arg, NULL};
        c->on_event = on_event;
        c->arg = a;
        if (claw_state_send(c) == CLAW_OK) return a;
    }
    free(a);
    return NULL;
}

void claw_cache_ask_drop(struct claw_cache_ask *a) { a->on_told = NULL; }

/* The next of the numbers in front; false: there is none. */
static bool next_number(struct claw_str *s, uint64_t *n)
{
    size_t len = 0;
    while (len < s->len && s->ptr[len] != ' ' && s->ptr[len] != '\n') len++;
    if (len == s->len || claw_str_u64((struct claw_str){s->ptr, len}, INT64_MAX, n) != 0) return false;
    *s = (struct claw_str){s->ptr + len + 1, s->len - len - 1};
    return true;
}

static bool read_answer(struct claw_str text, int64_t epoch, uint64_t now_ms, uint64_t left_ms, struct claw_cache_answer *out)
{
    uint64_t version, begun, ttl_ms, stream, lens[TEXTS];
    struct claw_str *const texts[TEXTS] = {&out->route, &out->model, &out->client, &out->type, &out->dropped};
    if (!next_number(&text, &version) || version != 1 || !next_number(&text, &begun) || (int64_t)begun != epoch || !next_number(&text, &ttl_ms) || !next_number(&text, &stream)) return false;
    for (unsigned i = 0; i < TEXTS; i++)
        if (!next_number(&text, &lens[i])) return false;
    for (unsigned i = 0; i < TEXTS; i++) {
        if (lens[i] > text.len) return false;
        *texts[i] = (struct claw_str){text.ptr, lens[i]};
        text = (struct claw_str){text.ptr + lens[i], text.len - lens[i]};
    }
    uint64_t age = ttl_ms > left_ms ? ttl_ms - left_ms : 0;
    out->body = text;
    out->stream = stream != 0;
    out->made_ms = now_ms > age ? now_ms - age : 0;
    out->ends_ms = now_ms + left_ms;
    return left_ms > 0;
}

bool claw_cache_ask_take(struct claw_cache_ask *a, uint64_t now_ms, struct claw_cache_answer *out, struct claw_buf *bytes, int64_t *epoch)
{
    const struct redisReply *r = a->reply;
    *epoch = -1;
    if (!r || r->elements != 3 || r->element[0]->type != REDIS_REPLY_STRING || r->element[1]->type != REDIS_REPLY_INTEGER ||
        r->element[2]->type != REDIS_REPLY_INTEGER)
        return false;
    *epoch = r->element[2]->integer;
    struct claw_str text = {r->element[0]->str, r->element[0]->len};
    claw_buf_clear(bytes);
    if (!text.len || r->element[1]->integer <= 0 || claw_buf_add_str(bytes, text) != 0) return false;
    return read_answer(claw_buf_str(bytes), *epoch, now_ms, (uint64_t)r->element[1]->integer, out);
}

bool claw_cache_tell(struct claw_state *s, const struct claw_cache_key *key, const struct claw_cache_answer *a, int64_t epoch)
{
    const struct claw_str texts[TEXTS] = {a->route, a->model, a->client, a->type, a->dropped};
    size_t room = HEAD_MAX + a->body.len + 2 * CLAW_STATE_KEY_MAX + 64;
    for (unsigned i = 0; i < TEXTS; i++) room += texts[i].len;
    if (epoch < 0 || a->body.len > CLAW_CACHE_SHARED || !claw_state_ready(s) || claw_sync_purging()) return false;
    struct claw_buf b;
    claw_buf_init(&b, 0);
    int rc = claw_buf_add_fmt(&b, "1 %lld %llu %d", (long long)epoch, (unsigned long long)(a->ends_ms - a->made_ms), a->stream);
    for (unsigned i = 0; i < TEXTS && rc == 0; i++) rc = claw_buf_add_fmt(&b, " %zu", texts[i].len);
    if (rc == 0) rc = claw_buf_add_z(&b, "\n");
    for (unsigned i = 0; i < TEXTS && rc == 0; i++) rc = claw_buf_add_str(&b, texts[i]);
    if (rc == 0) rc = claw_buf_add_str(&b, a->body);
    bool sent = false;
    struct claw_state_call *c = rc == 0 ? claw_state_call_new(s, claw_state_keep, 2, 3, room) : NULL;
    if (c && put_keys(s, c, key)) {
        claw_state_call_arg(c, 0, claw_buf_str(&b));
        claw_state_call_number(c, 1, (int64_t)(a->ends_ms - a->made_ms));
        claw_state_call_number(c, 2, epoch);
        sent = claw_state_send(c) == CLAW_OK;
    } else if (c) {
        claw_state_call_drop(c);
    }
    claw_buf_fini(&b);
    return sent;
}
