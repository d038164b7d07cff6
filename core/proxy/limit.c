#include "proxy/limit_part.h"

#include "base/cursor.h"
#include "base/tokens.h"
#include "proxy/hedge.h"
#include "proxy/pipeline.h"
#include "proxy/webhook.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define SHARDS 64u
#define BUCKETS 1024u
#define KEY_MAX CLAW_LIMIT_KEY_MAX
#define SECOND 1000000000ll
#define SWEEP 4u    /* cells without contents let go of besides, a new one ... */
#define LOOK 4u     /* ... from so many buckets */
#define LOOK_FULL 64u
#define AHEAD_NS 50000000ll /* who waits takes a place so far ahead, so that none is lost to a late look */
#define TURNS_SHARED 4u     /* who asks Redis at a time, of those that wait for a limit here */
#define NEVER INT64_MIN     /* as patience: it is only looked */

static const int64_t period_ns[CLAW_LIMIT_KINDS] = {SECOND, 60 * SECOND, 3600 * SECOND, 86400 * SECOND, 60 * SECOND, 86400 * SECOND, 0};
const char *const claw_limit_kind_names[CLAW_LIMIT_KINDS] = {"requests_per_second", "requests_per_minute", "requests_per_hour", "requests_per_day",
                                              "tokens_per_minute", "tokens_per_day", "concurrent"};

struct shard {
    pthread_mutex_t lock;
    struct claw_limit_cell *buckets[BUCKETS];
    unsigned n, hand;
} __attribute__((aligned(64)));

static struct shard shards[SHARDS];
static _Atomic int64_t cells_n, shared_n;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t seed;

static void prepare(void)
{
    for (unsigned i = 0; i < SHARDS; i++) pthread_mutex_init(&shards[i].lock, NULL);
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = claw_loop_clock_us();
}

int64_t claw_limit_now_ns(void) { return (int64_t)claw_loop_clock_us() * 1000; }

/* ---- cells ------------------------------------------------------------------------------------------------------------- */

static struct shard *shard_of(uint64_t hash) { return &shards[hash % SHARDS]; }
static struct claw_limit_cell **bucket_of(struct shard *s, uint64_t hash) { return &s->buckets[hash / SHARDS % BUCKETS]; }

static bool is_empty(const struct claw_limit_cell *c, int64_t now) { return c->holds == 0 && c->n == 0 && c->tat_ns <= now; }

static bool is_full(const struct shard *s) { return s->n >= CLAW_LIMIT_CELLS / SHARDS; }

/* Holding the lock: let go of some that hold nothing, from the next few buckets. */
static void sweep(struct shard *s, int64_t now)
{
    unsigned most = SWEEP;
    for (unsigned i = is_full(s) ? LOOK_FULL : LOOK; i > 0 && most; i--) {
        struct claw_limit_cell **at = &s->buckets[s->hand++ % BUCKETS];
        while (*at && most) {
            struct claw_limit_cell *c = *at;
            if (!is_empty(c, now)) {
                at = &c->next;
                continue;
            }
            *at = c->next;
            free(c);
            s->n--;
            atomic_fetch_sub(&cells_n, 1);
            most--;
        }
    }
}

static struct claw_limit_cell *look(struct shard *s, uint64_t hash, enum claw_limit_kind kind, struct claw_str key)
{
    for (struct claw_limit_cell *c = *bucket_of(s, hash); c; c = c->next)
        if (c->hash == hash && c->kind == kind && c->len == key.len && memcmp(c->key, key.ptr, key.len) == 0) return c;
    return NULL;
}

static struct claw_limit_cell *cell_new(struct shard *s, uint64_t hash, enum claw_limit_kind kind, struct claw_str key)
{
    struct claw_limit_cell *c = calloc(1, sizeof *c + key.len), **bucket = bucket_of(s, hash);
    if (!c) return NULL;
    c->hash = hash;
    c->kind = (uint8_t)kind;
    c->len = (uint16_t)key.len;
    memcpy(c->key, key.ptr, key.len);
    c->next = *bucket;
    *bucket = c;
    s->n++;
    atomic_fetch_add(&cells_n, 1);
    return c;
}

static uint64_t hash_of(enum claw_limit_kind kind, struct claw_str key) { return claw_str_hash(key, seed + (uint64_t)kind * 0x9e3779b97f4a7c15u); }

/* The cell, its shard locked. `id` is what the key begins with: past the bound a rule's keys share the cell of that name alone. */
static struct claw_limit_cell *cell_at(enum claw_limit_kind kind, struct claw_str key, size_t id, int64_t now, struct shard **locked)
{
    uint64_t hash = hash_of(kind, key);
    struct shard *s = *locked = shard_of(hash);
    pthread_mutex_lock(&s->lock);
    struct claw_limit_cell *c = look(s, hash, kind, key);
    if (c) return c;
    sweep(s, now);
    if (!is_full(s) || key.len == id) return cell_new(s, hash, kind, key);
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_add(&shared_n, 1);
    key.len = id;
    return cell_at(kind, key, id, now, locked);
}

#define FAR (INT64_MAX / 4) /* 73 years */

static int64_t bounded(__int128 ns) { return ns > FAR ? FAR : ns < -FAR ? -FAR : (int64_t)ns; }

/* a * b / c: in 64 bits where they do. */
static int64_t share_of(int64_t a, int64_t b, int64_t c)
{
    int64_t all;
    return __builtin_mul_overflow(a, b, &all) ? bounded((__int128)a * b / c) : bounded(all / c);
}

int64_t claw_limit_cost(int64_t amount, enum claw_limit_kind kind, int64_t limit) { return share_of(amount, period_ns[kind], limit); }

/* Take `amount` from a cell that allows `room` at once. */
struct claw_limit_answer claw_limit_cell_take(struct claw_limit_cell *c, enum claw_limit_kind kind, int64_t limit, int64_t room, int64_t amount,
                                              int64_t patience_ns, int64_t now)
{
    struct claw_limit_answer a = {0};
    if (kind == CLAW_LIMIT_CONCURRENT) {
        a.admitted = c->n + amount <= limit && patience_ns != NEVER;
        if (a.admitted) c->n += amount;
        a.left = limit - c->n;
        a.wait_ns = a.admitted ? 0 : CLAW_LIMIT_LOOK_MS * 1000000ll;
        return a;
    }
    int64_t from = c->tat_ns > now ? c->tat_ns : now, all = claw_limit_cost(room, kind, limit);
    int64_t cost = claw_limit_cost(amount < room ? amount : room, kind, limit); /* more than there can ever be: as much as there can be */
    int64_t ahead = from + cost - now - all;
    a.admitted = ahead <= patience_ns;
    a.wait_ns = ahead > 0 ? ahead : 0;
    if (a.admitted) c->tat_ns = bounded((__int128)from + claw_limit_cost(amount, kind, limit));
    int64_t used = (a.admitted ? c->tat_ns : from) - now;
    a.full_ns = used;
    a.left = used >= all ? 0 : share_of(all - used, limit, period_ns[kind]);
    return a;
}

/* amount below 0: more was used than was taken. */
static void give_back(struct claw_limit_hold *h, int64_t amount, int64_t now)
{
    struct claw_limit_cell *c = h->cell;
    if (h->kind == CLAW_LIMIT_CONCURRENT) {
        c->n -= amount;
        return;
    }
    int64_t cost = claw_limit_cost(amount, h->kind, h->limit), there = h->until_ns > now ? h->until_ns - now : 0;
    int64_t from = cost < 0 && c->tat_ns < now ? now : c->tat_ns;
    c->tat_ns = bounded((__int128)from - (cost > there ? there : cost));
}

void claw_limit_cell_lock(struct claw_limit_cell *c) { pthread_mutex_lock(&shard_of(c->hash)->lock); }
void claw_limit_cell_unlock(struct claw_limit_cell *c) { pthread_mutex_unlock(&shard_of(c->hash)->lock); }

void claw_limit_give_back(struct claw_limit_hold *h, int64_t amount, bool drop)
{
    struct claw_limit_cell *c = h->cell;
    struct shard *s = shard_of(c->hash);
    bool tell = amount > 0 && claw_limit_queue_waiting((struct claw_str){NULL, 0}) > 0;
    pthread_mutex_lock(&s->lock);
    if (amount) give_back(h, amount, claw_limit_now_ns());
    if (!tell && drop) c->holds--;
    pthread_mutex_unlock(&s->lock);
    if (!tell) return;
    claw_limit_queue_room((struct claw_str){c->key, c->len}); /* held still */
    pthread_mutex_lock(&s->lock);
    if (drop) c->holds--;
    pthread_mutex_unlock(&s->lock);
}

/* ---- rules -------------------------------------------------------------------------------------------------------------- */

static bool fits(const struct claw_conf_words *w, struct claw_str s)
{
    for (size_t i = 0; i < w->n; i++)
        if (claw_str_glob(w->all[i], s)) return true;
    return w->n == 0;
}

/* Of a field that is not there nothing fits. */
static bool has_fields(const struct claw_conf_limit *l, const struct claw_req *r)
{
    for (size_t i = 0; i < l->headers_n; i++) {
        const struct claw_header *h = claw_head_find_name(r->head, l->headers[i].name);
        if (!h || !fits(&l->headers[i].values, h->value)) return false;
    }
    return true;
}

static bool matches(const struct claw_conf_limit *l, const struct claw_req *r)
{
    if (!has_fields(l, r)) return false;
    struct claw_str name = r->caller ? r->caller->name : CLAW_STR(""), tier = r->caller ? r->caller->tier : CLAW_STR("");
    return fits(&l->path, r->head->path) && fits(&l->method, r->head->method) && fits(&l->model, r->model) && fits(&l->route, claw_req_route_id(r)) &&
           fits(&l->client, name) && fits(&l->tier, tier);
}

struct claw_str claw_limit_value(const struct claw_req *r, struct claw_str per)
{
    if (claw_str_eqz(per, "ip")) return claw_str_of(r->peer);
    if (claw_str_eqz(per, "client")) return r->caller ? r->caller->name : claw_str_of(r->peer);
    if (claw_str_eqz(per, "user")) return r->has_json ? claw_json_top_get(&r->json, CLAW_STR("user")).raw : CLAW_STR("");
    struct claw_str name = {per.ptr + 7, per.len - 7};
    const struct claw_header *h = claw_head_find_name(r->head, name);
    return h ? h->value : CLAW_STR("");
}

/* "id\037value\037value"; a long value by its beginning and its hash. */
static struct claw_str key_of(const struct claw_req *r, struct claw_str id, const struct claw_str *per, size_t n, char to[KEY_MAX])
{
    size_t len = id.len < 128 ? id.len : 128;
    memcpy(to, id.ptr, len);
    for (size_t i = 0; i < n; i++) {
        struct claw_str v = claw_limit_value(r, per[i]);
        size_t most = v.len < 32 ? v.len : 32;
        if (len + 1 + most + 17 > KEY_MAX) break;
        to[len++] = '\037';
        if (most) memcpy(to + len, v.ptr, most);
        len += most;
        if (v.len > most) len += (size_t)snprintf(to + len, 18, "~%016llx", (unsigned long long)claw_str_hash(v, seed));
    }
    return (struct claw_str){to, len};
}

/* The prompt's tokens by estimate, and what may be answered where the request says so. */
static int64_t tokens_of(struct claw_req *r)
{
    static const char *const names[] = {"max_tokens", "max_completion_tokens", "max_output_tokens"};
    if (!r->has_json) return 1;
    int64_t n = claw_req_prompt_tokens(r), most;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct claw_json_value v = claw_json_top_get(&r->json, claw_str_of(names[i]));
        if (v.type == CLAW_JSON_NUMBER && claw_json_int(v, &most) == 0 && most > 0) return n + (most < 1000000 ? most : 1000000);
    }
    return n;
}

/* ---- taking --------------------------------------------------------------------------------------------------------------- */

/* Where limits are shared nothing is taken yet. */
static bool want_one(struct claw_limit_taking *t, struct claw_str id, struct claw_str key, struct claw_limit_want *w)
{
    struct shard *s;
    w->cell = cell_at(w->kind, key, id.len < 128 ? id.len : 128, t->now, &s);
    if (w->cell) w->cell->holds++;
    pthread_mutex_unlock(&s->lock);
    if (!w->cell) return false;
    if (claw_limit_shared_want(t, w)) return true;
    claw_limit_cell_lock(w->cell);
    w->cell->holds--;
    claw_limit_cell_unlock(w->cell);
    return false;
}

void claw_limit_note(struct claw_limit_taking *t, struct claw_str id, enum claw_limit_kind kind, int64_t limit, const struct claw_limit_answer *a)
{
    bool tokens = claw_limit_is_tokens(kind);
    if (a->wait_ns > t->wait_ns) {
        t->wait_ns = a->wait_ns;
        t->r->limited_by = id;
    }
    if (kind == CLAW_LIMIT_CONCURRENT || (t->tight[tokens].limit != 0 && a->left >= t->tight[tokens].left)) return;
    t->tight[tokens].limit = limit;
    t->tight[tokens].left = a->left;
    t->tight[tokens].full_ns = a->full_ns;
}

int64_t claw_limit_patience_ns(const struct claw_limit_taking *t, const struct claw_conf_rates *rates)
{
    if (t->upstreams || rates->max_wait_ms <= t->waited_ms) return 0;
    return (int64_t)(rates->max_wait_ms - t->waited_ms) * 1000000;
}

void claw_limit_refuse(struct claw_limit_taking *t, struct claw_str id, struct claw_str key, enum claw_limit_kind kind, int64_t limit, const struct claw_conf_rates *rates,
                       int64_t refused_ns)
{
    t->id = t->r->limited_by = id;
    t->kind = kind;
    t->limit = limit;
    t->refused_ns = refused_ns;
    t->rates = claw_limit_patience_ns(t, rates) > 0 ? rates : NULL;
    if (!t->rates) return;
    t->key_n = key.len;
    memcpy(t->key, key.ptr, key.len);
}

/* False: refused (t->id says by whom) or out of memory (t->id.ptr NULL). */
static bool take_one(struct claw_limit_taking *t, struct claw_str id, struct claw_str key, enum claw_limit_kind kind, int64_t limit, const struct claw_conf_rates *rates)
{
    bool tokens = claw_limit_is_tokens(kind);
    int64_t room = !tokens && rates->burst >= 0 ? rates->burst + 1 : limit;
    if (tokens && t->tokens < 0) t->tokens = tokens_of(t->r);
    int64_t amount = tokens ? t->tokens : 1;
    int64_t patience = claw_limit_patience_ns(t, rates);
    struct shard *s;
    if (patience > AHEAD_NS) patience = AHEAD_NS;
    if (t->held) patience = NEVER;
    if (t->ask && t->held) {
        claw_limit_refuse(t, id, key, kind, limit, rates, 0);
        return false;
    }
    if (t->ask) return want_one(t, id, key, &(struct claw_limit_want){.kind = kind, .limit = limit, .room = room, .amount = amount,
                                                                     .patience_ns = patience, .id = id, .rates = rates});
    struct claw_limit_hold *h = t->r->limits_spare; /* of a look before */
    if (h) t->r->limits_spare = h->next;
    else if (!(h = claw_arena_zalloc(&t->r->arena, sizeof *h))) return false;
    struct claw_limit_cell *c = cell_at(kind, key, id.len < 128 ? id.len : 128, t->now, &s);
    struct claw_limit_answer a = {0};
    if (c) {
        a = claw_limit_cell_take(c, kind, limit, room, amount, patience, t->now);
        if (a.admitted) c->holds++;
    }
    pthread_mutex_unlock(&s->lock);
    if (!a.admitted) {
        h->next = t->r->limits_spare;
        t->r->limits_spare = h;
    }
    if (!c) return false;
    if (!a.admitted) {
        claw_limit_refuse(t, id, key, kind, limit, rates, a.wait_ns);
        return false;
    }
    claw_limit_note(t, id, kind, limit, &a);
    *h = (struct claw_limit_hold){t->r->limits, c, kind, limit, amount, t->now + a.full_ns, t->upstreams ? t->upstream : CLAW_LIMIT_NOWHERE, false, NULL};
    t->r->limits = h;
    return true;
}

static bool take_rates(struct claw_limit_taking *t, struct claw_str id, const struct claw_str *per, size_t per_n, const struct claw_conf_rates *rates)
{
    char text[KEY_MAX];
    struct claw_str key = key_of(t->r, id, per, per_n, text);
    t->per = per;
    t->per_n = per_n;
    t->held = !t->upstreams && rates->max_wait_ms && claw_limit_queue_holds(t->r->limit_place, key, rates->mark);
    const int64_t limits[CLAW_LIMIT_KINDS] = {rates->requests[0], rates->requests[1], rates->requests[2], rates->requests[3],
                                   rates->tokens[0], rates->tokens[1], rates->concurrent};
    for (int k = 0; k < CLAW_LIMIT_KINDS; k++)
        if (limits[k] > 0 && !take_one(t, id, key, (enum claw_limit_kind)k, limits[k], rates)) return false;
    return true;
}

static void put_back(struct claw_limit_taking *t)
{
    struct claw_limit_hold *h;
    while ((h = t->r->limits) != t->before) {
        claw_limit_give_back(h, h->taken, true);
        t->r->limits = h->next;
        h->next = t->r->limits_spare;
        t->r->limits_spare = h;
    }
}

static bool has_rates(const struct claw_conf_rates *r)
{
    return r->requests[0] | r->requests[1] | r->requests[2] | r->requests[3] | r->tokens[0] | r->tokens[1] | r->concurrent;
}

bool claw_limit_match(struct claw_limit_taking *t)
{
    const struct claw_conf *conf = claw_req_conf(t->r);
    const struct claw_conf_client *c = t->r->caller;
    for (size_t i = 0; i < conf->limits_n; i++) {
        const struct claw_conf_limit *l = &conf->limits[i];
        if ((l->upstream.n != 0) != t->upstreams || !matches(l, t->r)) continue;
        if (t->upstreams && !fits(&l->upstream, conf->upstreams[t->upstream].name)) continue;
        if (!take_rates(t, l->id, l->per, l->per_n, &l->rates)) return false;
    }
    if (t->upstreams || !c || !has_rates(&c->rates)) return true;
    return take_rates(t, c->limit_id, NULL, 0, &c->rates);
}

/* As OpenAI writes times: "1m30s", "2.5s", "40ms". */
static void write_time(char to[32], int64_t ns)
{
    int64_t ms = (ns + 999999) / 1000000;
    if (ms < 1000) snprintf(to, 32, "%lldms", (long long)(ms > 0 ? ms : 0));
    else if (ms < 60000) snprintf(to, 32, "%lld.%03llds", (long long)(ms / 1000), (long long)(ms % 1000));
    else snprintf(to, 32, "%lldm%llds", (long long)(ms / 60000), (long long)(ms % 60000 / 1000));
}

/* Every answer says how much is left, so not by printf. */
static int put_number(struct claw_req *r, const char *name, int64_t n)
{
    char text[CLAW_CURSOR_NUMBER_BYTES];
    return claw_req_set_answer_header(r, claw_str_of(name), (struct claw_str){text, (size_t)(claw_cursor_number(text, n > 0 ? (uint64_t)n : 0) - text)});
}

static int put_tight(struct claw_req *r, bool tokens, int64_t limit, int64_t left, int64_t full_ns)
{
    static const char *const names[2][3] = {{"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
                                            {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"}};
    char text[32];
    int rc = put_number(r, names[tokens][0], limit);
    if (rc == 0) rc = put_number(r, names[tokens][1], left);
    write_time(text, full_ns);
    return rc == 0 ? claw_req_set_answer_header(r, claw_str_of(names[tokens][2]), claw_str_of(text)) : rc;
}

static int say_when(struct claw_req *r, int64_t ns)
{
    int64_t seconds = (ns + SECOND - 1) / SECOND;
    int rc = put_number(r, "retry-after", seconds > 0 ? seconds : 1);
    return rc == 0 ? put_number(r, "retry-after-ms", (ns + 999999) / 1000000) : rc;
}

static int say_refused(struct claw_limit_taking *t)
{
    struct claw_req *r = t->r;
    char text[300];
    bool tokens = claw_limit_is_tokens(t->kind);
    if (!t->id.ptr) return CLAW_EREQ_MEM;
    int n = snprintf(text, sizeof text, "The rate limit \"%.*s\" is reached: %s %lld%s.", (int)(t->id.len < 128 ? t->id.len : 128), t->id.ptr, claw_limit_kind_names[t->kind],
                     (long long)t->limit, t->crowded ? ", and too many requests wait for it" : "");
    r->error_text = (struct claw_str){claw_arena_dup(&r->arena, text, (size_t)n), (size_t)n};
    if (!r->error_text.ptr) return CLAW_EREQ_MEM;
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_RATE_LIMITED, 1, 1, &t->id);
    CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_RATE_LIMIT, {"request_id", claw_str_of(r->id)}, {"limit", t->id}, {"route", claw_req_route_id(r)},
                      {"client", r->caller ? r->caller->name : claw_str_of(r->peer)});
    if (t->upstreams) {
        if (!r->limit_room_ns || t->refused_ns < r->limit_room_ns) r->limit_room_ns = t->refused_ns;
        return CLAW_ERATE_LIMITED;
    }
    int rc = say_when(r, t->refused_ns);
    if (rc == 0 && t->kind != CLAW_LIMIT_CONCURRENT) rc = put_tight(r, tokens, t->limit, 0, t->refused_ns);
    return rc == CLAW_EREQ_MEM ? rc : CLAW_ERATE_LIMITED;
}

static void on_call(struct claw_limit_place *p)
{
    struct claw_req *r = p->req;
    if (r->step != CLAW_STEP_LIMIT || r->limit_ask) return; /* it asks already */
    claw_timer_stop(r->ctx->loop, &r->timer);
    claw_pipeline_resume(r);
}

static struct claw_limit_place *place_of(struct claw_req *r)
{
    struct claw_limit_place *p = r->limit_place;
    if (p || !(p = claw_arena_zalloc(&r->arena, sizeof *p))) return p;
    p->loop = r->ctx->loop;
    p->calls = &r->ctx->limit_calls;
    p->req = r;
    p->on_call = on_call;
    return r->limit_place = p;
}

/* What was refused waits. Milliseconds until it looks again; 0: at once; below 0: it does not wait. */
static int wait_turn(struct claw_limit_taking *t)
{
    struct claw_req *r = t->r;
    bool shared = claw_limit_shared(r), first, place = t->kind == CLAW_LIMIT_CONCURRENT, steady = !place && !claw_limit_is_tokens(t->kind);
    struct claw_limit_place *p = t->rates ? place_of(r) : NULL;
    if (!p) return -1;
    struct claw_limit_waiting w = {{t->key, t->key_n}, t->rates->mark, claw_limit_value(r, CLAW_STR("client")), t->rates->max_waiting, t->rates->max_waiting_per_client,
                                   shared ? TURNS_SHARED : 1, place ? 0 : t->refused_ns, steady ? claw_limit_cost(1, t->kind, t->limit) : 0,
                                   claw_limit_patience_ns(t, t->rates)};
    int64_t left_ms = (w.left_ns + 999999) / 1000000, soon_ms = shared ? CLAW_LIMIT_LOOK_SHARED_MS : CLAW_LIMIT_LOOK_MS;
    switch (claw_limit_queue_join(p, &w, &first)) {
    case CLAW_LIMIT_QUEUE_WAITS:
        return (int)left_ms;
    case CLAW_LIMIT_QUEUE_CALLED:
        if (first && !shared) return 0; /* what became free before it was in the queue it was not told */
        if (!place) soon_ms = t->refused_ns > 10 * AHEAD_NS ? 9 * AHEAD_NS / 1000000 : t->refused_ns > AHEAD_NS ? (t->refused_ns - AHEAD_NS) / 1000000 + 1 : 1;
        return (int)(soon_ms < left_ms ? soon_ms : left_ms);
    case CLAW_LIMIT_QUEUE_FULL:
        t->crowded = true;
        break;
    case CLAW_LIMIT_QUEUE_LATE:
        break;
    }
    t->refused_ns = place ? t->refused_ns : w.ahead_ns;
    return -1;
}

static int take_or_queue(struct claw_limit_taking *t, unsigned *wait_ms, bool *again)
{
    int rc = claw_limit_shared(t->r) ? claw_limit_shared_take(t) : claw_limit_match(t) ? 0 : CLAW_ERATE_LIMITED, ms;
    if (rc == 0 || rc == CLAW_EAGAIN) return rc;
    put_back(t);
    if ((ms = wait_turn(t)) < 0) return rc;
    *again = true;
    *wait_ms = (unsigned)ms;
    return CLAW_EAGAIN;
}

int claw_limits_take(struct claw_req *r, unsigned waited_ms, unsigned *wait_ms, bool *again)
{
    struct claw_limit_taking t;
    int rc, looks = 0;
    pthread_once(&once, prepare);
    do {
        t = (struct claw_limit_taking){.r = r, .now = claw_limit_now_ns(), .tokens = -1, .waited_ms = waited_ms, .before = r->limits};
        *again = false;
        *wait_ms = 0;
        rc = take_or_queue(&t, wait_ms, again);
        if (*again && *wait_ms == 0) *wait_ms = looks; /* once at once */
    } while (*again && *wait_ms == 0 && looks++ == 0);
    if (rc == CLAW_EAGAIN) return rc;
    if (r->limit_place) claw_limit_queue_leave(r->limit_place);
    if (rc != 0) return say_refused(&t);
    if (t.tight[0].limit) rc = put_tight(r, false, t.tight[0].limit, t.tight[0].left, t.tight[0].full_ns);
    if (rc == 0 && t.tight[1].limit) rc = put_tight(r, true, t.tight[1].limit, t.tight[1].left, t.tight[1].full_ns);
    if (rc == CLAW_EREQ_MEM) return rc;
    *wait_ms = (unsigned)((t.wait_ns + 999999) / 1000000);
    return *wait_ms ? CLAW_EAGAIN : 0;
}

/* Places of the attempt before are free again; what it took of rates is spent. */
static void leave_upstream(struct claw_req *r)
{
    for (struct claw_limit_hold *h = r->limits; h; h = h->next) {
        if (h->upstream == CLAW_LIMIT_NOWHERE || h->kind != CLAW_LIMIT_CONCURRENT || !h->taken) continue;
        if (h->named) claw_limit_shared_settle(r, h, h->taken);
        claw_limit_give_back(h, h->taken, false);
        h->taken = 0;
    }
    claw_limit_shared_flush(r);
}

int claw_limits_take_upstream(struct claw_req *r, size_t upstream)
{
    struct claw_limit_taking t = {.r = r, .now = claw_limit_now_ns(), .tokens = -1, .upstreams = true, .upstream = upstream, .before = r->limits};
    pthread_once(&once, prepare);
    if (!claw_hedge_running(r) && !r->limit_ask) leave_upstream(r); /* of a hedge the first one still runs */
    int rc = claw_limit_shared(r) ? claw_limit_shared_take(&t) : claw_limit_match(&t) ? 0 : CLAW_ERATE_LIMITED;
    if (rc == 0 || rc == CLAW_EAGAIN) return rc;
    put_back(&t);
    rc = say_refused(&t);
    return CLAW_ERATE_LIMITED; /* whatever else: the caller has but one thing to do */
}

void claw_limits_say_when(struct claw_req *r)
{
    int rc = r->limit_room_ns ? say_when(r, r->limit_room_ns) : 0;
    (void)rc; /* without memory for it the answer goes without it */
}

/* Is usage this hold's to pay? The request's own, and of the upstream that answered the last one taken. */
static bool pays(const struct claw_req *r, const struct claw_limit_hold *h)
{
    if (h->upstream == CLAW_LIMIT_NOWHERE) return true;
    if (r->candidates_n == 0 || h->upstream != r->candidates[r->candidate].upstream) return false;
    for (const struct claw_limit_hold *later = r->limits; later != h; later = later->next)
        if (later->charged && later->cell == h->cell) return false;
    return true;
}

void claw_limits_settle(struct claw_req *r)
{
    int64_t used = (r->usage.input > 0 ? r->usage.input : 0) + (r->usage.output > 0 ? r->usage.output : 0);
    bool told = r->usage.input >= 0 || r->usage.output >= 0, asked = r->attempts_n > 0;
    /* Who leaves before usage is told pays what was estimated: the upstream was asked, and may have answered. */
    bool left = r->error == CLAW_ECLIENT_GONE || r->error == CLAW_ESEND_STALL, left_queue = !asked && (r->gone || r->error == CLAW_EDEADLINE);
    bool unanswered = !asked || (!told && !left && (r->commit == CLAW_HELD || r->status >= 400));
    for (struct claw_limit_hold *h = r->limits; h; h = h->next) {
        bool tokens = claw_limit_is_tokens(h->kind);
        int64_t back = h->kind == CLAW_LIMIT_CONCURRENT || left_queue ? h->taken : 0;
        h->charged = pays(r, h);
        if (tokens && (unanswered || !h->charged)) back = h->taken;
        else if (tokens && told) back = h->taken - used;
        if (h->named) claw_limit_shared_settle(r, h, back);
        claw_limit_give_back(h, back, true);
    }
    claw_limit_shared_flush(r);
    r->limits = NULL;
    if (r->limit_place) claw_limit_queue_leave(r->limit_place);
}

/* ---- for others ------------------------------------------------------------------------------------------------------------ */

bool claw_limits_any(const struct claw_conf *conf)
{
    for (size_t i = 0; i < conf->limits_n; i++)
        if (!conf->limits[i].upstream.n) return true;
    for (size_t i = 0; i < conf->clients_n; i++)
        if (has_rates(&conf->clients[i].rates)) return true;
    return false;
}

bool claw_limits_of_upstreams(const struct claw_conf *conf)
{
    for (size_t i = 0; i < conf->limits_n; i++)
        if (conf->limits[i].upstream.n) return true;
    return false;
}

struct claw_limit_stats claw_limits_measure(void)
{
    return (struct claw_limit_stats){atomic_load(&cells_n), atomic_load(&shared_n), claw_limit_queue_waiting((struct claw_str){NULL, 0})};
}

static int add_rates(struct claw_buf *b, struct claw_str id, const struct claw_conf_rates *rates)
{
    const int64_t limits[CLAW_LIMIT_KINDS] = {rates->requests[0], rates->requests[1], rates->requests[2], rates->requests[3],
                                   rates->tokens[0], rates->tokens[1], rates->concurrent};
    int rc = 0;
    for (int k = 0; k < CLAW_LIMIT_KINDS && rc == 0; k++)
        if (limits[k] > 0) rc = claw_buf_add_fmt(b, ",\"%s\":%lld", claw_limit_kind_names[k], (long long)limits[k]);
    if (rc == 0 && rates->burst >= 0) rc = claw_buf_add_fmt(b, ",\"burst\":%lld", (long long)rates->burst);
    if (rc == 0) rc = claw_buf_add_fmt(b, ",\"max_wait_ms\":%u", rates->max_wait_ms);
    if (rc == 0 && rates->max_wait_ms)
        rc = claw_buf_add_fmt(b, ",\"max_waiting\":%u,\"max_waiting_per_client\":%u,\"waiting\":%u", rates->max_waiting, rates->max_waiting_per_client,
                              claw_limit_queue_waiting((struct claw_str){id.ptr, id.len < 128 ? id.len : 128}));
    return rc == 0 ? claw_buf_add_z(b, "}") : rc;
}

int claw_limits_write(const struct claw_conf *conf, struct claw_buf *out)
{
    const char *before = "";
    int rc = claw_buf_add_fmt(out, "{\"cells\":%lld,\"shared\":", (long long)atomic_load(&cells_n));
    if (rc == 0) rc = claw_state_write(conf, out);
    if (rc == 0) rc = claw_buf_add_z(out, ",\"limits\":[");
    for (size_t i = 0; i < conf->limits_n && rc == 0; i++) {
        rc = claw_buf_add_fmt(out, "%s\n{\"id\":", before);
        if (rc == 0) rc = claw_buf_add_json(out, conf->limits[i].id);
        if (rc == 0) rc = add_rates(out, conf->limits[i].id, &conf->limits[i].rates);
        before = ",";
    }
    for (size_t i = 0; i < conf->clients_n && rc == 0; i++) {
        if (!has_rates(&conf->clients[i].rates)) continue;
        rc = claw_buf_add_fmt(out, "%s\n{\"client\":", before);
        if (rc == 0) rc = claw_buf_add_json(out, conf->clients[i].name);
        if (rc == 0) rc = add_rates(out, conf->clients[i].limit_id, &conf->clients[i].rates);
        before = ",";
    }
    return rc == 0 ? claw_buf_add_z(out, "]}\n") : rc;
}

void claw_limits_forget(void)
{
    pthread_once(&once, prepare);
    for (unsigned i = 0; i < SHARDS; i++) {
        for (unsigned k = 0; k < BUCKETS; k++) {
            for (struct claw_limit_cell *c = shards[i].buckets[k], *next; c; c = next) {
                next = c->next;
                free(c);
            }
            shards[i].buckets[k] = NULL;
        }
        shards[i].n = 0;
    }
    atomic_store(&cells_n, 0);
    atomic_store(&shared_n, 0);
}

/* ---- -explain ---------------------------------------------------------------------------------------------------------------- */

static int explain_rates(struct claw_buf *b, const struct claw_conf_rates *r)
{
    const int64_t rates[CLAW_LIMIT_KINDS] = {r->requests[0], r->requests[1], r->requests[2], r->requests[3], r->tokens[0], r->tokens[1], r->concurrent};
    const char *before = ":";
    int rc = 0;
    for (int i = 0; i < CLAW_LIMIT_KINDS && rc == 0; i++) {
        if (rates[i] <= 0) continue;
        rc = claw_buf_add_fmt(b, "%s %s %lld", before, claw_limit_kind_names[i], (long long)rates[i]);
        before = ",";
    }
    if (rc == 0 && r->burst >= 0) rc = claw_buf_add_fmt(b, ", burst %lld", (long long)r->burst);
    return rc == 0 && r->max_wait_ms ? claw_buf_add_fmt(b, ", waits up to %u ms", r->max_wait_ms) : rc;
}

/* The names of those of the candidates that it is of. */
static int explain_upstreams(struct claw_buf *b, const struct claw_conf_limit *l, const struct claw_req *r, bool *any)
{
    int rc = 0;
    *any = false;
    for (unsigned i = 0; i < r->candidates_n && rc == 0; i++) {
        struct claw_str name = claw_req_conf(r)->upstreams[r->candidates[i].upstream].name;
        if (!fits(&l->upstream, name)) continue;
        rc = claw_buf_add_fmt(b, "%s%.*s", *any ? ", " : " of ", CLAW_STR_FMT(name));
        *any = true;
    }
    return rc;
}

static int explain_one(struct claw_buf *out, const struct claw_conf_limit *l, const struct claw_req *r)
{
    struct claw_buf b;
    bool any = true;
    claw_buf_init(&b, 0);
    int rc = claw_buf_add_fmt(&b, "  %.*s", CLAW_STR_FMT(l->id));
    if (rc == 0 && l->upstream.n) rc = explain_upstreams(&b, l, r, &any);
    if (rc == 0) rc = explain_rates(&b, &l->rates);
    for (size_t i = 0; i < l->per_n && rc == 0; i++) rc = claw_buf_add_fmt(&b, "%s%.*s", i ? ", " : "; a count for each ", CLAW_STR_FMT(l->per[i]));
    if (rc == 0 && any) rc = claw_buf_add_fmt(out, "%.*s\n", CLAW_STR_FMT(claw_buf_str(&b)));
    claw_buf_fini(&b);
    return rc;
}

int claw_limits_explain(const struct claw_req *r, struct claw_buf *out)
{
    const struct claw_conf *conf = claw_req_conf(r);
    int rc = 0;
    for (size_t i = 0; i < conf->limits_n && rc == 0; i++)
        if (matches(&conf->limits[i], r)) rc = explain_one(out, &conf->limits[i], r);
    if (rc != 0 || !r->caller || !has_rates(&r->caller->rates)) return rc;
    return explain_one(out, &(struct claw_conf_limit){.id = r->caller->limit_id, .rates = r->caller->rates}, r);
}
