#include "proxy/sync.h"

#include "base/log.h"
#include "net/redis.h"
#include "proxy/cache_part.h"
#include "proxy/spend.h"

#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define NEWS 128u    /* clients in a batch */
#define FIXED_KEYS 5u
#define FIXED_ARGS 6u
#define EVENT_ARGS 3u
#define CLIENT_ARGS 11u
#define CLIENT_SAYS 8u
#define SAYS 3u      /* of the answer, before events */

struct event {
    enum claw_sync_how how;
    uint64_t ms;
    size_t len;
    char field[CLAW_SYNC_NAME + 4];
};

/* What one call tells; kept until it is answered. */
struct batch {
    bool made;
    uint64_t number;
    unsigned events_n, news_n;
    struct event events[CLAW_SYNC_EVENTS];
    struct claw_spend_news news[NEWS];
};

struct claw_sync {
    struct claw_loop *loop;
    struct claw_redis *redis;
    struct claw_state *state;
    struct claw_generation *gen; /* NULL: nothing is shared */
    struct claw_timer timer;
    struct claw_state_call *call;
    uint64_t numbers;
    int64_t seen;                /* the last event heard of */
    bool ending, leaving;        /* leaving: the call under way says so */
    void (*done)(void *arg);
    void *done_arg;
    struct claw_timer give_up;
    struct batch batch;
};

_Atomic bool claw_sync_on;
static struct {
    pthread_mutex_t lock;
    unsigned n;
    struct event all[CLAW_SYNC_EVENTS];
} outbox = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic int purging;

bool claw_sync_purging(void) { return atomic_load_explicit(&purging, memory_order_relaxed) > 0; }

static size_t add_text(char *to, size_t at, char what, struct claw_str s)
{
    if (!s.ptr) return at;
    to[at++] = what;
    if (s.len) memcpy(to + at, s.ptr, s.len);
    at += s.len;
    to[at++] = '\037';
    return at;
}

/* Without room for what is meant all goes: of a cache nothing is missed that comes again. */
void claw_sync_purge(const struct claw_cache_filter *f)
{
    pthread_mutex_lock(&outbox.lock);
    bool fits = f->route.len + f->model.len + f->client.len + 8 <= CLAW_SYNC_NAME && outbox.n < CLAW_SYNC_EVENTS;
    if (outbox.n == CLAW_SYNC_EVENTS) {
        outbox.n--;
        if (outbox.all[outbox.n].how == CLAW_SYNC_PURGED) atomic_fetch_sub(&purging, 1);
    }
    struct event *e = &outbox.all[outbox.n++];
    size_t n = add_text(e->field, 0, 'p', CLAW_STR(""));
    if (fits) n = add_text(e->field, n, 'r', f->route);
    if (fits) n = add_text(e->field, n, 'm', f->model);
    if (fits) n = add_text(e->field, n, 'c', f->client);
    e->len = n;
    e->how = CLAW_SYNC_PURGED;
    e->ms = 0;
    atomic_fetch_add(&purging, 1);
    pthread_mutex_unlock(&outbox.lock);
}

void claw_sync_tell_others(enum claw_sync_what what, struct claw_str upstream, struct claw_str which, enum claw_sync_how how, uint64_t ms)
{
    if (upstream.len + which.len > CLAW_SYNC_NAME) return;
    pthread_mutex_lock(&outbox.lock);
    if (outbox.n < CLAW_SYNC_EVENTS) {
        struct event *e = &outbox.all[outbox.n++];
        int n = snprintf(e->field, sizeof e->field, "%c%.*s\037%.*s", (char)what, CLAW_STR_FMT(upstream), CLAW_STR_FMT(which));
        e->len = (size_t)n;
        e->how = how;
        e->ms = ms;
    }
    pthread_mutex_unlock(&outbox.lock);
}

/* ---- telling ----------------------------------------------------------------------------------------------------------- */

static void fill(struct claw_sync *s)
{
    struct batch *b = &s->batch;
    if (b->made) return;
    b->made = true;
    b->number = ++s->numbers;
    pthread_mutex_lock(&outbox.lock);
    b->events_n = outbox.n;
    memcpy(b->events, outbox.all, outbox.n * sizeof *outbox.all);
    outbox.n = 0;
    pthread_mutex_unlock(&outbox.lock);
    b->news_n = (unsigned)claw_spend_take_news(b->news, NEWS);
}

static bool put_key(struct claw_state_call *c, size_t i, const struct claw_conf *conf, const char *noun, struct claw_str of)
{
    char text[CLAW_STATE_KEY_MAX];
    struct claw_str key;
    if (!claw_state_key(conf, noun, of, text, &key)) return false;
    claw_state_call_key(c, i, key);
    return true;
}

static bool put_client(struct claw_state_call *c, const struct claw_conf *conf, const struct batch *b, unsigned i)
{
    const struct claw_spend_news *n = &b->news[i];
    size_t at = FIXED_ARGS + b->events_n * EVENT_ARGS + i * CLIENT_ARGS;
    for (unsigned p = 0; p < 3; p++) claw_state_call_number(c, at++, n->start[p]);
    for (unsigned p = 0; p < CLAW_SPEND_PERIODS; p++) claw_state_call_number(c, at++, n->known[p]);
    for (unsigned p = 0; p < CLAW_SPEND_PERIODS; p++) claw_state_call_number(c, at++, n->more[p]);
    return put_key(c, FIXED_KEYS + i, conf, "spend:", claw_spend_name(n->spend));
}

static struct claw_state_call *call_of(struct claw_sync *s)
{
    const struct batch *b = &s->batch;
    const struct claw_conf *conf = claw_state_conf(s->state);
    struct claw_str me = claw_str_of(claw_state_instance()), none = CLAW_STR("");
    size_t keys_n = FIXED_KEYS + b->news_n, args_n = FIXED_ARGS + b->events_n * EVENT_ARGS + b->news_n * CLIENT_ARGS;
    struct claw_state_call *c = claw_state_call_new(s->state, claw_state_sync, keys_n, args_n, keys_n * CLAW_STATE_KEY_MAX + args_n * 28 + b->events_n * CLAW_SYNC_NAME);
    if (!c) return NULL;
    bool good = put_key(c, 0, conf, "instances", none) && put_key(c, 1, conf, "batch:", me) && put_key(c, 2, conf, "aside", none) &&
                put_key(c, 3, conf, "aside:n", none) && put_key(c, 4, conf, CLAW_CACHE_EPOCH, none);
    claw_state_call_arg(c, 0, me);
    claw_state_call_number(c, 1, CLAW_SYNC_ALIVE_MS);
    claw_state_call_number(c, 2, (int64_t)b->number);
    claw_state_call_number(c, 3, s->seen);
    claw_state_call_number(c, 4, s->leaving);
    claw_state_call_number(c, 5, b->events_n);
    for (unsigned i = 0; i < b->events_n; i++) {
        size_t at = FIXED_ARGS + i * EVENT_ARGS;
        char how = (char)b->events[i].how;
        claw_state_call_arg(c, at, (struct claw_str){b->events[i].field, b->events[i].len});
        claw_state_call_number(c, at + 1, (int64_t)b->events[i].ms);
        claw_state_call_arg(c, at + 2, (struct claw_str){&how, 1});
    }
    for (unsigned i = 0; i < b->news_n && good; i++) good = put_client(c, conf, b, i);
    if (good) return c;
    claw_state_call_drop(c);
    return NULL;
}

/* ---- hearing ----------------------------------------------------------------------------------------------------------- */

static const struct claw_generation_upstream *named(const struct claw_generation *g, struct claw_str name)
{
    for (size_t i = 0; i < g->conf->upstreams_n; i++)
        if (claw_str_eq(g->upstreams[i].conf->name, name)) return &g->upstreams[i];
    return NULL;
}

static struct claw_breaker *breaker_of(const struct claw_generation_upstream *up, char what, struct claw_str which)
{
    if (what == CLAW_SYNC_UPSTREAM) return &up->cooling->breaker;
    if (what == CLAW_SYNC_MODEL) return claw_cooling_model(up->cooling, which, true);
    for (size_t k = 0; k < up->keys_n; k++)
        if (claw_str_eqz(which, up->keys[k]->id)) return &up->keys[k]->breaker;
    return NULL;
}

/* True: this changed something. */
static bool take(const struct claw_generation_upstream *up, char what, struct claw_str which, char how, uint64_t ms, uint64_t now)
{
    static const struct claw_breaker_rules at_once = {.failures = 1};
    static const char why[] = "other_instance";
    if (how == CLAW_SYNC_RESTORED) {
        claw_cooling_restore(up->cooling, now);
        return true;
    }
    if (how == CLAW_SYNC_COOLED && what != CLAW_SYNC_KEY && !up->conf->cooling.on) return false;
    struct claw_breaker *b = breaker_of(up, what, which);
    if (!b) return false;
    if (how == CLAW_SYNC_RETIRED) return claw_breaker_cool(b, now, CLAW_BREAKER_NEVER, why);
    if (how == CLAW_SYNC_HELD) return claw_breaker_cool(b, now, now + ms, why);
    return claw_breaker_fail(b, &at_once, &(struct claw_breaker_failure){.now_ms = now, .began_ms = now, .asked_ms = (int64_t)ms, .why = why});
}

/* Each text of the field says what it is by its first byte. */
static void hear_purge(const struct claw_generation *g, struct claw_str field)
{
    struct claw_cache_filter f = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    const char *end;
    while ((end = memchr(field.ptr, '\037', field.len))) {
        struct claw_str value = {field.ptr + 1, (size_t)(end - field.ptr) - 1};
        switch (field.ptr[0]) {
        case 'r': f.route = value; break;
        case 'm': f.model = value; break;
        case 'c': f.client = value; break;
        default: break;
        }
        field = (struct claw_str){end + 1, field.len - (size_t)(end + 1 - field.ptr)};
    }
    if (!g->cache || !g->shares_answers) return;
    char n[24];
    snprintf(n, sizeof n, "%zu", claw_cache_purge(g->cache, &f));
    claw_log_event(CLAW_LOG_INFO, "cache purged by another instance", "entries#", n, NULL);
    claw_log_flush();
}

static void hear_event(struct claw_sync *s, struct claw_str field, char how, uint64_t ms)
{
    if (how == CLAW_SYNC_PURGED) {
        hear_purge(s->gen, field);
        return;
    }
    if (!s->gen->conf->state.shared) return;
    const char *end = memchr(field.ptr, '\037', field.len);
    if (!end) return;
    struct claw_str upstream = {field.ptr + 1, (size_t)(end - field.ptr) - 1}, which = {end + 1, field.len - upstream.len - 2};
    const struct claw_generation_upstream *up = named(s->gen, upstream);
    if (!up || !take(up, field.ptr[0], which, how, ms, claw_loop_now_ms(s->loop))) return;
    char name[100], of[100], left[24];
    const char *what = field.ptr[0] == CLAW_SYNC_MODEL ? "model" : field.ptr[0] == CLAW_SYNC_KEY ? "key" : NULL;
    snprintf(name, sizeof name, "%.*s", (int)(upstream.len < 99 ? upstream.len : 99), upstream.ptr);
    snprintf(of, sizeof of, "%.*s", (int)(which.len < 99 ? which.len : 99), which.ptr);
    snprintf(left, sizeof left, "%llu", (unsigned long long)ms);
    const char *text = how == CLAW_SYNC_RESTORED ? "restored by another instance" : how == CLAW_SYNC_RETIRED ? "a key is retired by another instance"
                                                                                                         : "set aside by another instance";
    bool timed = how == CLAW_SYNC_COOLED || how == CLAW_SYNC_HELD;
    claw_log_event(CLAW_LOG_WARN, text, "upstream", name, timed ? "for_ms" : what, timed ? left : of, timed ? what : NULL, of, NULL);
    claw_log_flush();
}

static bool is_text(const redisReply *r) { return r->type == REDIS_REPLY_STRING; }
static int64_t number_of(const redisReply *r) { return r->type == REDIS_REPLY_INTEGER ? r->integer : is_text(r) ? strtoll(r->str, NULL, 10) : 0; }

/* False: it is not what the script says. */
static bool hear(struct claw_sync *s, const redisReply *r)
{
    struct batch *b = &s->batch;
    if (r->elements < SAYS) return false;
    size_t events = (size_t)number_of(r->element[2]);
    if (events > r->elements || r->elements != SAYS + events * 3 + b->news_n * CLIENT_SAYS) return false;
    claw_state_set_instances((unsigned)number_of(r->element[0]));
    redisReply **at = &r->element[SAYS];
    for (size_t i = 0; i < events; i++, at += 3)
        if (is_text(at[0]) && is_text(at[1]) && at[0]->len > 1 && at[1]->len == 1 && !s->ending)
            hear_event(s, (struct claw_str){at[0]->str, at[0]->len}, at[1]->str[0], (uint64_t)number_of(at[2]));
    s->seen = number_of(r->element[1]);
    for (unsigned i = 0; i < b->news_n; i++, at += CLIENT_SAYS) {
        int64_t start[CLAW_SPEND_PERIODS], micros[CLAW_SPEND_PERIODS];
        for (unsigned p = 0; p < CLAW_SPEND_PERIODS; p++) {
            start[p] = number_of(at[p]);
            micros[p] = number_of(at[CLAW_SPEND_PERIODS + p]);
        }
        claw_spend_hear(b->news[i].spend, start, micros);
    }
    return true;
}

/* ---- its life ---------------------------------------------------------------------------------------------------------- */

static void finish(struct claw_sync *s)
{
    void (*done)(void *) = s->done;
    s->done = NULL;
    claw_timer_stop(s->loop, &s->timer);
    claw_timer_stop(s->loop, &s->give_up);
    if (done) done(s->done_arg);
}

static void tick(struct claw_sync *s);

static void on_event(struct claw_state_call *c)
{
    struct claw_sync *s = c->arg;
    if (!c->over) return;
    s->call = NULL;
    bool heard = c->code == CLAW_OK && s->gen && hear(s, c->reply), more = heard && s->batch.news_n == NEWS;
    if (heard) s->batch.made = false;
    for (unsigned i = 0; heard && i < s->batch.events_n; i++)
        if (s->batch.events[i].how == CLAW_SYNC_PURGED) atomic_fetch_sub(&purging, 1);
    if (s->ending && s->done) {
        if (!heard || s->leaving) finish(s);
        else tick(s);
    } else if (more) {
        tick(s);
    }
}

static void tick(struct claw_sync *s)
{
    if (s->call || !s->gen || !claw_state_ready(s->state)) return;
    bool again = s->batch.made;
    fill(s);
    s->leaving = s->ending && !again && s->batch.news_n < NEWS; /* all that is left is in it */
    struct claw_state_call *c = call_of(s);
    if (!c) return;
    c->on_event = on_event;
    c->arg = s;
    if (claw_state_send(c) == CLAW_OK) s->call = c;
}

static void on_timer(struct claw_timer *t)
{
    struct claw_sync *s = t->arg;
    claw_timer_start(s->loop, t, CLAW_SYNC_MS);
    tick(s);
}

static void give_up(struct claw_sync *s)
{
    claw_log_event(CLAW_LOG_WARN, "shared state does not answer: what was spent last is not told to other instances", NULL);
    claw_log_flush();
    finish(s);
}

static void on_give_up(struct claw_timer *t) { give_up(t->arg); }

struct claw_sync *claw_sync_new(struct claw_loop *loop, struct claw_metrics_shard *metrics)
{
    struct claw_sync *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->loop = loop;
    s->state = claw_state_new(loop, &s->redis, metrics);
    claw_timer_init(&s->timer, on_timer, s);
    claw_timer_init(&s->give_up, on_give_up, s);
    if (s->state) return s;
    free(s);
    return NULL;
}

void claw_sync_set(struct claw_sync *s, struct claw_generation *gen)
{
    bool shares = gen->conf->state.asked, began = shares && !s->gen;
    const struct claw_conf *old = s->gen ? s->gen->conf : NULL;
    bool other = old && shares && (!claw_str_eq(old->state.prefix, gen->conf->state.prefix) || !claw_str_eq(old->redis.text, gen->conf->redis.text));
    s->gen = shares ? gen : NULL;
    claw_state_set(s->state, gen->conf);
    if (began || other) s->seen = 0; /* another one has other numbers */
    claw_spend_share(gen->conf->state.shared);
    atomic_store(&claw_sync_on, gen->conf->state.shared);
    if (began) claw_timer_start(s->loop, &s->timer, 1);
    else if (!shares) claw_timer_stop(s->loop, &s->timer);
    if (!shares) claw_state_set_instances(1);
}

void claw_sync_end(struct claw_sync *s, void (*done)(void *arg), void *arg)
{
    s->done = done;
    s->done_arg = arg;
    s->ending = true;
    if (!s->gen) {
        finish(s);
    } else if (!claw_state_ready(s->state)) {
        give_up(s);
    } else {
        unsigned ms = 2 * s->gen->conf->state.timeout_ms; /* one may be under way */
        claw_timer_start(s->loop, &s->give_up, ms < CLAW_SYNC_END_MS ? ms : CLAW_SYNC_END_MS);
        tick(s);
    }
}

void claw_sync_free(struct claw_sync *s)
{
    if (!s) return;
    CLAW_ASSERT(!s->done);
    atomic_store(&claw_sync_on, false);
    s->gen = NULL;
    claw_state_free(s->state);
    claw_redis_free_all(&s->redis);
    free(s);
}
