#include "proxy/limit.h"

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
#define KEY_MAX 320u
#define SECOND 1000000000ll
#define SWEEP 4u    /* cells without contents let go of besides, a new one ... */
#define LOOK 4u     /* ... from so many buckets */
#define LOOK_FULL 64u

enum kind { PER_SECOND, PER_MINUTE, PER_HOUR, PER_DAY, TOKENS_PER_MINUTE, TOKENS_PER_DAY, CONCURRENT, KINDS };
static const int64_t period_ns[KINDS] = {SECOND, 60 * SECOND, 3600 * SECOND, 86400 * SECOND, 60 * SECOND, 86400 * SECOND, 0};
static const char *const kind_names[KINDS] = {"requests_per_second", "requests_per_minute", "requests_per_hour", "requests_per_day",
                                              "tokens_per_minute", "tokens_per_day", "concurrent"};

struct cell {
    struct cell *next; /* in its bucket */
    uint64_t hash;
    int64_t tat_ns;    /* when all that was taken has flowed off */
    int64_t n;         /* CONCURRENT: taken */
    unsigned holds;    /* requests that will put something right here */
    uint8_t kind;
    uint16_t len;
    char key[];
};

struct shard {
    pthread_mutex_t lock;
    struct cell *buckets[BUCKETS];
    unsigned n, hand;
} __attribute__((aligned(64)));

static struct shard shards[SHARDS];
static _Atomic int64_t cells_n, shared_n;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t seed;

/* What a request holds, in its arena. */
struct claw_limit_hold {
    struct claw_limit_hold *next;
    struct cell *cell;
    enum kind kind;
    int64_t limit, taken; /* of the rate; requests or tokens */
    int64_t until_ns;     /* when what it took will have flowed off: after that there is nothing to give back */
    size_t upstream;      /* of an attempt's; NOWHERE: the request's */
    bool charged;         /* settle: with what was used */
};
#define NOWHERE SIZE_MAX

static void prepare(void)
{
    for (unsigned i = 0; i < SHARDS; i++) pthread_mutex_init(&shards[i].lock, NULL);
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = claw_loop_clock_us();
}

static int64_t now_ns(void) { return (int64_t)claw_loop_clock_us() * 1000; }

/* ---- cells ------------------------------------------------------------------------------------------------------------- */

static struct shard *shard_of(uint64_t hash) { return &shards[hash % SHARDS]; }
static struct cell **bucket_of(struct shard *s, uint64_t hash) { return &s->buckets[hash / SHARDS % BUCKETS]; }

static bool is_empty(const struct cell *c, int64_t now) { return c->holds == 0 && c->n == 0 && c->tat_ns <= now; }

static bool is_full(const struct shard *s) { return s->n >= CLAW_LIMIT_CELLS / SHARDS; }

/* Holding the lock: let go of some that hold nothing, from the next few buckets. */
static void sweep(struct shard *s, int64_t now)
{
    unsigned most = SWEEP;
    for (unsigned i = is_full(s) ? LOOK_FULL : LOOK; i > 0 && most; i--) {
        struct cell **at = &s->buckets[s->hand++ % BUCKETS];
        while (*at && most) {
            struct cell *c = *at;
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

static struct cell *look(struct shard *s, uint64_t hash, enum kind kind, struct claw_str key)
{
    for (struct cell *c = *bucket_of(s, hash); c; c = c->next)
        if (c->hash == hash && c->kind == kind && c->len == key.len && memcmp(c->key, key.ptr, key.len) == 0) return c;
    return NULL;
}

static struct cell *cell_new(struct shard *s, uint64_t hash, enum kind kind, struct claw_str key)
{
    struct cell *c = calloc(1, sizeof *c + key.len), **bucket = bucket_of(s, hash);
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

static uint64_t hash_of(enum kind kind, struct claw_str key) { return claw_str_hash(key, seed + (uint64_t)kind * 0x9e3779b97f4a7c15u); }

/* The cell, its shard locked. `id` is what the key begins with: past the bound a rule's keys share the cell of that name alone. */
static struct cell *cell_at(enum kind kind, struct claw_str key, size_t id, int64_t now, struct shard **locked)
{
    uint64_t hash = hash_of(kind, key);
    struct shard *s = *locked = shard_of(hash);
    pthread_mutex_lock(&s->lock);
    struct cell *c = look(s, hash, kind, key);
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

static int64_t cost_of(int64_t amount, enum kind kind, int64_t limit) { return bounded((__int128)amount * period_ns[kind] / limit); }

/* What one cell said. */
struct answer {
    bool admitted;
    int64_t wait_ns;      /* admitted: until then; else: until there is room */
    int64_t left, full_ns; /* requests or tokens that could still be taken; until all is there again */
};

/* Take `amount` from a cell that allows `room` at once. */
static struct answer take(struct cell *c, enum kind kind, int64_t limit, int64_t room, int64_t amount, int64_t patience_ns, int64_t now)
{
    struct answer a = {0};
    if (kind == CONCURRENT) {
        a.admitted = c->n + amount <= limit;
        if (a.admitted) c->n += amount;
        a.left = limit - c->n;
        a.wait_ns = a.admitted ? 0 : CLAW_LIMIT_LOOK_MS * 1000000ll;
        return a;
    }
    int64_t from = c->tat_ns > now ? c->tat_ns : now, all = cost_of(room, kind, limit);
    int64_t cost = cost_of(amount < room ? amount : room, kind, limit); /* more than there can ever be: as much as there can be */
    int64_t ahead = from + cost - now - all;
    a.admitted = ahead <= patience_ns;
    a.wait_ns = ahead > 0 ? ahead : 0;
    if (a.admitted) c->tat_ns = bounded((__int128)from + cost_of(amount, kind, limit));
    int64_t used = (a.admitted ? c->tat_ns : from) - now;
    a.full_ns = used;
    a.left = used >= all ? 0 : (int64_t)((__int128)(all - used) * limit / period_ns[kind]);
    return a;
}

/* amount below 0: more was used than was taken. */
static void give_back(struct claw_limit_hold *h, int64_t amount, int64_t now)
{
    struct cell *c = h->cell;
    if (h->kind == CONCURRENT) {
        c->n -= amount;
        return;
    }
    int64_t cost = cost_of(amount, h->kind, h->limit), there = h->until_ns > now ? h->until_ns - now : 0;
    int64_t from = cost < 0 && c->tat_ns < now ? now : c->tat_ns;
    c->tat_ns = bounded((__int128)from - (cost > there ? there : cost));
}

static void with_lock(struct claw_limit_hold *h, int64_t amount, bool drop)
{
    struct shard *s = shard_of(h->cell->hash);
    pthread_mutex_lock(&s->lock);
    give_back(h, amount, now_ns());
    if (drop) h->cell->holds--;
    pthread_mutex_unlock(&s->lock);
}

/* ---- rules -------------------------------------------------------------------------------------------------------------- */

static bool fits(const struct claw_conf_words *w, struct claw_str s)
{
    for (size_t i = 0; i < w->n; i++)
        if (claw_str_glob(w->all[i], s)) return true;
    return w->n == 0;
}

static bool matches(const struct claw_conf_limit *l, const struct claw_req *r)
{
    struct claw_str name = r->caller ? r->caller->name : CLAW_STR(""), tier = r->caller ? r->caller->tier : CLAW_STR("");
    return fits(&l->path, r->head->path) && fits(&l->method, r->head->method) && fits(&l->model, r->model) && fits(&l->route, claw_req_route_id(r)) &&
           fits(&l->client, name) && fits(&l->tier, tier);
}

static struct claw_str value_of(const struct claw_req *r, struct claw_str per)
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
        struct claw_str v = value_of(r, per[i]);
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
static int64_t tokens_of(const struct claw_req *r)
{
    static const char *const names[] = {"max_tokens", "max_completion_tokens", "max_output_tokens"};
    if (!r->has_json) return 1;
    int64_t n = claw_tokens_of_request(claw_buf_str(&r->body)), most;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct claw_json_value v = claw_json_top_get(&r->json, claw_str_of(names[i]));
        if (v.type == CLAW_JSON_NUMBER && claw_json_int(v, &most) == 0 && most > 0) return n + (most < 1000000 ? most : 1000000);
    }
    return n;
}

/* ---- taking --------------------------------------------------------------------------------------------------------------- */

struct taking {
    struct claw_req *r;
    int64_t now, tokens;     /* tokens: -1, not looked at yet */
    int64_t wait_ns;         /* the longest of those taken */
    unsigned waited_ms;
    bool upstreams, again;
    size_t upstream;
    struct claw_limit_hold *before; /* what was held before this began */
    /* the one that refused */
    struct claw_str id;
    enum kind kind;
    int64_t limit, refused_ns;
    /* the tightest of requests and of tokens */
    struct { int64_t limit, left, full_ns; } tight[2];
};

/* False: refused (t->id says by whom) or out of memory (t->id.ptr NULL). */
static bool take_one(struct taking *t, struct claw_str id, struct claw_str key, enum kind kind, int64_t limit, const struct claw_conf_rates *rates)
{
    bool tokens = kind == TOKENS_PER_MINUTE || kind == TOKENS_PER_DAY;
    int64_t room = !tokens && rates->burst >= 0 ? rates->burst + 1 : limit;
    if (tokens && t->tokens < 0) t->tokens = tokens_of(t->r);
    int64_t amount = tokens ? t->tokens : 1;
    int64_t patience = t->upstreams ? 0 : ((int64_t)rates->max_wait_ms - t->waited_ms) * 1000000;
    struct claw_limit_hold *h = t->r->limits_spare; /* of a look before */
    struct shard *s;
    if (h) t->r->limits_spare = h->next;
    else if (!(h = claw_arena_zalloc(&t->r->arena, sizeof *h))) return false;
    struct cell *c = cell_at(kind, key, id.len < 128 ? id.len : 128, t->now, &s);
    struct answer a = {0};
    if (c) {
        a = take(c, kind, limit, room, amount, patience > 0 ? patience : 0, t->now);
        if (a.admitted) c->holds++;
    }
    pthread_mutex_unlock(&s->lock);
    if (!a.admitted) {
        h->next = t->r->limits_spare;
        t->r->limits_spare = h;
    }
    if (!c) return false;
    if (!a.admitted) {
        t->id = id;
        t->kind = kind;
        t->limit = limit;
        t->refused_ns = a.wait_ns;
        t->again = kind == CONCURRENT && patience > 0;
        return false;
    }
    if (a.wait_ns > t->wait_ns) t->wait_ns = a.wait_ns;
    if (kind != CONCURRENT && (t->tight[tokens].limit == 0 || a.left < t->tight[tokens].left)) {
        t->tight[tokens].limit = limit;
        t->tight[tokens].left = a.left;
        t->tight[tokens].full_ns = a.full_ns;
    }
    *h = (struct claw_limit_hold){t->r->limits, c, kind, limit, amount, t->now + a.full_ns, t->upstreams ? t->upstream : NOWHERE, false};
    t->r->limits = h;
    return true;
}

static bool take_rates(struct taking *t, struct claw_str id, const struct claw_str *per, size_t per_n, const struct claw_conf_rates *rates)
{
    char text[KEY_MAX];
    struct claw_str key = key_of(t->r, id, per, per_n, text);
    const int64_t limits[KINDS] = {rates->requests[0], rates->requests[1], rates->requests[2], rates->requests[3],
                                   rates->tokens[0], rates->tokens[1], rates->concurrent};
    for (int k = 0; k < KINDS; k++)
        if (limits[k] > 0 && !take_one(t, id, key, (enum kind)k, limits[k], rates)) return false;
    return true;
}

static void put_back(struct taking *t)
{
    struct claw_limit_hold *h;
    while ((h = t->r->limits) != t->before) {
        with_lock(h, h->taken, true);
        t->r->limits = h->next;
        h->next = t->r->limits_spare;
        t->r->limits_spare = h;
    }
}

static bool has_rates(const struct claw_conf_rates *r)
{
    return r->requests[0] | r->requests[1] | r->requests[2] | r->requests[3] | r->tokens[0] | r->tokens[1] | r->concurrent;
}

static bool take_all(struct taking *t)
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

static int put_number(struct claw_req *r, const char *name, int64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)n);
    return claw_req_set_answer_header(r, claw_str_of(name), claw_str_of(text));
}

static int put_tight(struct claw_req *r, const char *what, int64_t limit, int64_t left, int64_t full_ns)
{
    char name[48], text[32];
    snprintf(name, sizeof name, "x-ratelimit-limit-%s", what);
    int rc = put_number(r, name, limit);
    snprintf(name, sizeof name, "x-ratelimit-remaining-%s", what);
    if (rc == 0) rc = put_number(r, name, left);
    snprintf(name, sizeof name, "x-ratelimit-reset-%s", what);
    write_time(text, full_ns);
    return rc == 0 ? claw_req_set_answer_header(r, claw_str_of(name), claw_str_of(text)) : rc;
}

static int say_when(struct claw_req *r, int64_t ns)
{
    int64_t seconds = (ns + SECOND - 1) / SECOND;
    int rc = put_number(r, "retry-after", seconds > 0 ? seconds : 1);
    return rc == 0 ? put_number(r, "retry-after-ms", (ns + 999999) / 1000000) : rc;
}

static int say_refused(struct taking *t)
{
    struct claw_req *r = t->r;
    char text[300];
    bool tokens = t->kind == TOKENS_PER_MINUTE || t->kind == TOKENS_PER_DAY;
    if (!t->id.ptr) return CLAW_EREQ_MEM;
    int n = snprintf(text, sizeof text, "The rate limit \"%.*s\" is reached: %s %lld.", (int)(t->id.len < 128 ? t->id.len : 128), t->id.ptr, kind_names[t->kind],
                     (long long)t->limit);
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
    if (rc == 0 && t->kind != CONCURRENT) rc = put_tight(r, tokens ? "tokens" : "requests", t->limit, 0, t->refused_ns);
    return rc == CLAW_EREQ_MEM ? rc : CLAW_ERATE_LIMITED;
}

int claw_limits_take(struct claw_req *r, unsigned waited_ms, unsigned *wait_ms, bool *again)
{
    struct taking t = {.r = r, .now = now_ns(), .tokens = -1, .waited_ms = waited_ms, .before = r->limits};
    pthread_once(&once, prepare);
    *again = false;
    if (!take_all(&t)) {
        put_back(&t);
        if (!t.again) return say_refused(&t);
        *again = true;
        *wait_ms = CLAW_LIMIT_LOOK_MS;
        return CLAW_EAGAIN;
    }
    int rc = 0;
    if (t.tight[0].limit) rc = put_tight(r, "requests", t.tight[0].limit, t.tight[0].left, t.tight[0].full_ns);
    if (rc == 0 && t.tight[1].limit) rc = put_tight(r, "tokens", t.tight[1].limit, t.tight[1].left, t.tight[1].full_ns);
    if (rc == CLAW_EREQ_MEM) return rc;
    *wait_ms = (unsigned)((t.wait_ns + 999999) / 1000000);
    return *wait_ms ? CLAW_EAGAIN : 0;
}

/* Places of the attempt before are free again; what it took of rates is spent. */
static void leave_upstream(struct claw_req *r)
{
    for (struct claw_limit_hold *h = r->limits; h; h = h->next) {
        if (h->upstream == NOWHERE || h->kind != CONCURRENT || !h->taken) continue;
        with_lock(h, h->taken, false);
        h->taken = 0;
    }
}

bool claw_limits_take_upstream(struct claw_req *r, size_t upstream)
{
    struct taking t = {.r = r, .now = now_ns(), .tokens = -1, .upstreams = true, .upstream = upstream, .before = r->limits};
    pthread_once(&once, prepare);
    if (!claw_hedge_running(r)) leave_upstream(r); /* of a hedge the first one still runs */
    if (take_all(&t)) return true;
    put_back(&t);
    int rc = say_refused(&t);
    (void)rc; /* the caller has but one thing to do */
    return false;
}

void claw_limits_say_when(struct claw_req *r)
{
    int rc = r->limit_room_ns ? say_when(r, r->limit_room_ns) : 0;
    (void)rc; /* without memory for it the answer goes without it */
}

/* Is usage this hold's to pay? The request's own, and of the upstream that answered the last one taken. */
static bool pays(const struct claw_req *r, const struct claw_limit_hold *h)
{
    if (h->upstream == NOWHERE) return true;
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
        bool tokens = h->kind == TOKENS_PER_MINUTE || h->kind == TOKENS_PER_DAY;
        int64_t back = h->kind == CONCURRENT || left_queue ? h->taken : 0;
        h->charged = pays(r, h);
        if (tokens && (unanswered || !h->charged)) back = h->taken;
        else if (tokens && told) back = h->taken - used;
        with_lock(h, back, true);
    }
    r->limits = NULL;
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

struct claw_limit_stats claw_limits_measure(void) { return (struct claw_limit_stats){atomic_load(&cells_n), atomic_load(&shared_n)}; }

static int add_rates(struct claw_buf *b, const struct claw_conf_rates *rates)
{
    const int64_t limits[KINDS] = {rates->requests[0], rates->requests[1], rates->requests[2], rates->requests[3],
                                   rates->tokens[0], rates->tokens[1], rates->concurrent};
    int rc = 0;
    for (int k = 0; k < KINDS && rc == 0; k++)
        if (limits[k] > 0) rc = claw_buf_add_fmt(b, ",\"%s\":%lld", kind_names[k], (long long)limits[k]);
    if (rc == 0 && rates->burst >= 0) rc = claw_buf_add_fmt(b, ",\"burst\":%lld", (long long)rates->burst);
    return rc == 0 ? claw_buf_add_fmt(b, ",\"max_wait_ms\":%u}", rates->max_wait_ms) : rc;
}

int claw_limits_write(const struct claw_conf *conf, struct claw_buf *out)
{
    const char *before = "";
    int rc = claw_buf_add_fmt(out, "{\"cells\":%lld,\"limits\":[", (long long)atomic_load(&cells_n));
    for (size_t i = 0; i < conf->limits_n && rc == 0; i++) {
        rc = claw_buf_add_fmt(out, "%s\n{\"id\":", before);
        if (rc == 0) rc = claw_buf_add_json(out, conf->limits[i].id);
        if (rc == 0) rc = add_rates(out, &conf->limits[i].rates);
        before = ",";
    }
    for (size_t i = 0; i < conf->clients_n && rc == 0; i++) {
        if (!has_rates(&conf->clients[i].rates)) continue;
        rc = claw_buf_add_fmt(out, "%s\n{\"client\":", before);
        if (rc == 0) rc = claw_buf_add_json(out, conf->clients[i].name);
        if (rc == 0) rc = add_rates(out, &conf->clients[i].rates);
        before = ",";
    }
    return rc == 0 ? claw_buf_add_z(out, "]}\n") : rc;
}

void claw_limits_forget(void)
{
    pthread_once(&once, prepare);
    for (unsigned i = 0; i < SHARDS; i++) {
        for (unsigned k = 0; k < BUCKETS; k++) {
            for (struct cell *c = shards[i].buckets[k], *next; c; c = next) {
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
