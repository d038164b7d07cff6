#include "proxy/flight.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SHARDS 16u
#define BUCKETS 256u /* of a shard */
#define CHUNK_MIN 2048u
#define CHUNK_MAX (64u << 10)

/* Bytes below `filled` never change; who read `filled` under the lock may read them without. */
struct claw_flight_chunk {
    struct claw_flight_chunk *next;
    size_t filled, room;
    char bytes[];
};

/* The seats of one loop. `seats` is that loop's own, the rest is under the lock. */
struct claw_flight_desk {
    struct claw_message message;
    struct claw_flight_desk *next;
    struct claw_flight *flight;
    struct claw_loop *loop;
    struct claw_flight_seat *seats;
    unsigned seats_n;
    bool posted;
};

struct claw_flight {
    struct claw_flight *chain;
    bool found; /* in the table */
    struct claw_cache_key key;
    unsigned refs, listeners, leaders;
    struct claw_flight_desk *desks;
    const struct claw_flight_seat *leader; /* NULL: there is none at present */
    bool alone;                            /* the leader flies for listeners only */
    bool stalled;                          /* the leader waits for its client */
    enum claw_flight_state state;
    int status, code;
    char *texts; /* type, then dropped */
    size_t type_n, dropped_n;
    bool stream;
    size_t bytes, most;
    struct claw_flight_chunk *first, *last;
};

struct shard {
    pthread_mutex_t lock;
    struct claw_flight *buckets[BUCKETS];
} __attribute__((aligned(64)));

static struct shard shards[SHARDS] = {[0 ... SHARDS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};
static _Atomic int64_t live, listening, held, bound = INT64_MAX;

int64_t claw_flight_live(void) { return atomic_load_explicit(&live, memory_order_relaxed); }

int64_t claw_flight_bytes(void) { return atomic_load_explicit(&held, memory_order_relaxed); }
void claw_flight_bound(size_t bytes) { atomic_store_explicit(&bound, (int64_t)bytes, memory_order_relaxed); }
int64_t claw_flight_listening(void) { return atomic_load_explicit(&listening, memory_order_relaxed); }

static struct shard *shard_of(const struct claw_cache_key *key) { return &shards[key->bytes[0] % SHARDS]; }

static struct claw_flight **bucket_of(struct shard *s, const struct claw_cache_key *key) { return &s->buckets[key->bytes[1] % BUCKETS]; }

static struct shard *lock(const struct claw_flight *f)
{
    struct shard *s = shard_of(&f->key);
    pthread_mutex_lock(&s->lock);
    return s;
}

static void unlock(struct shard *s) { pthread_mutex_unlock(&s->lock); }

/* ---- under the lock ------------------------------------------------------------------------------------------------- */

static struct claw_flight *find(struct shard *s, const struct claw_cache_key *key)
{
    struct claw_flight *f = *bucket_of(s, key);
    while (f && memcmp(f->key.bytes, key->bytes, CLAW_CACHE_KEY) != 0) f = f->chain;
    return f;
}

/* Nobody finds it any more. */
static void hide(struct shard *s, struct claw_flight *f)
{
    if (!f->found) return;
    struct claw_flight **at = bucket_of(s, &f->key);
    while (*at != f) at = &(*at)->chain;
    *at = f->chain;
    f->found = false;
}

/* True: the last one; destroy() it without the lock. */
static bool drop(struct shard *s, struct claw_flight *f)
{
    if (--f->refs) return false;
    hide(s, f);
    return true;
}

static void destroy(struct claw_flight *f)
{
    for (struct claw_flight_chunk *c = f->first, *next; c; c = next) {
        next = c->next;
        atomic_fetch_sub_explicit(&held, (int64_t)c->room, memory_order_relaxed);
        free(c);
    }
    for (struct claw_flight_desk *d = f->desks, *next; d; d = next) {
        next = d->next;
        free(d);
    }
    free(f->texts);
    free(f);
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
}

static void on_message(struct claw_loop *loop, struct claw_message *m);

static void tell(struct claw_flight_desk *d)
{
    if (d->posted || d->seats_n == 0) return;
    d->posted = true;
    d->flight->refs++;
    claw_loop_post(d->loop, &d->message); /* under the lock: a desk with seats has a loop that lives */
}

/* To all who listen; the leader knows. */
static void tell_all(struct claw_flight *f)
{
    for (struct claw_flight_desk *d = f->desks; f->listeners && d; d = d->next)
        if (!f->leader || d != f->leader->desk || d->seats_n > 1) tell(d);
}

static void settle(struct shard *s, struct claw_flight *f, enum claw_flight_state state, int code)
{
    f->state = state;
    f->code = code;
    if (state == CLAW_FLIGHT_FAILED && f->listeners && f->leaders < CLAW_FLIGHT_LEADERS) f->leader = NULL; /* whoever comes next may lead */
    else hide(s, f);
    tell_all(f);
}

static struct claw_flight_desk *desk_of(struct claw_flight *f, struct claw_loop *loop)
{
    struct claw_flight_desk *d = f->desks;
    while (d && d->loop != loop) d = d->next;
    if (d || !(d = calloc(1, sizeof *d))) return d;
    d->message.run = on_message;
    d->flight = f;
    d->loop = loop;
    d->next = f->desks;
    f->desks = d;
    return d;
}

static unsigned hear(struct claw_flight *f, int n)
{
    atomic_fetch_add_explicit(&listening, n, memory_order_relaxed);
    return f->listeners += (unsigned)n;
}

/* ---- seats ---------------------------------------------------------------------------------------------------------- */

static void on_message(struct claw_loop *loop, struct claw_message *m)
{
    struct claw_flight_desk *d = (struct claw_flight_desk *)((char *)m - offsetof(struct claw_flight_desk, message));
    struct claw_flight *f = d->flight;
    struct shard *s = lock(f);
    d->posted = false;
    unlock(s);
    for (struct claw_flight_seat *seat = d->seats, *next; seat; seat = next) { /* one that leaves takes nobody along */
        next = seat->next;
        seat->on_news(seat);
    }
    s = lock(f);
    bool last = drop(s, f);
    unlock(s);
    if (last) destroy(f);
}

static struct claw_flight *flight_new(const struct claw_cache_key *key, size_t bytes)
{
    struct claw_flight *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->key = *key;
    f->most = bytes;
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return f;
}

static void lead(struct claw_flight_seat *seat, struct claw_flight *f)
{
    seat->leads = true;
    f->leader = seat;
    f->leaders++;
    f->state = CLAW_FLIGHT_WAITS;
    f->alone = f->stalled = false;
}

int claw_flight_join(struct claw_flight_seat *seat, struct claw_loop *loop, const struct claw_cache_key *key, bool shared, size_t bytes)
{
    struct shard *s = shard_of(key);
    pthread_mutex_lock(&s->lock);
    struct claw_flight *f = shared ? find(s, key) : NULL, *made = NULL;
    if (!f) f = made = flight_new(key, bytes);
    struct claw_flight_desk *d = f ? desk_of(f, loop) : NULL;
    if (!d) {
        unlock(s);
        if (made) destroy(made);
        return CLAW_ENOMEM;
    }
    if (made && shared) {
        f->found = true;
        f->chain = *bucket_of(s, key);
        *bucket_of(s, key) = f;
    }
    f->refs++;
    d->seats_n++;
    seat->flight = f;
    seat->desk = d;
    seat->chunk = NULL;
    seat->read = 0;
    seat->leads = false;
    if (made || f->state == CLAW_FLIGHT_FAILED) lead(seat, f);
    else hear(f, 1);
    if (!seat->leads && f->stalled && f->leader) tell(f->leader->desk);
    unlock(s);
    seat->prev = NULL;
    seat->next = d->seats;
    if (d->seats) d->seats->prev = seat;
    d->seats = seat;
    return 0;
}

void claw_flight_leave(struct claw_flight_seat *seat)
{
    struct claw_flight *f = seat->flight;
    if (!f) return;
    struct claw_flight_desk *d = seat->desk;
    *(seat->prev ? &seat->prev->next : &d->seats) = seat->next;
    if (seat->next) seat->next->prev = seat->prev;
    struct shard *s = lock(f);
    d->seats_n--;
    if (f->leader == seat) {
        if (f->state == CLAW_FLIGHT_WAITS) settle(s, f, CLAW_FLIGHT_FAILED, CLAW_ECANCELED);
        else if (f->state == CLAW_FLIGHT_ANSWERS) settle(s, f, CLAW_FLIGHT_BROKEN, CLAW_EUPSTREAM_EOF);
        f->leader = NULL;
    } else if (!seat->leads && hear(f, -1) == 0 && f->alone && f->leader) {
        tell(f->leader->desk);
    }
    bool last = drop(s, f);
    unlock(s);
    seat->flight = NULL;
    seat->leads = false;
    if (last) destroy(f);
}

struct claw_flight_view claw_flight_look(const struct claw_flight_seat *seat)
{
    struct claw_flight *f = seat->flight;
    struct shard *s = lock(f);
    struct claw_flight_view v = {f->state, f->status, f->code, {f->texts, f->type_n}, {f->texts ? f->texts + f->type_n : NULL, f->dropped_n}, f->stream, f->bytes};
    unlock(s);
    return v;
}

/* ---- the leader's ---------------------------------------------------------------------------------------------------- */

void claw_flight_begin(struct claw_flight_seat *seat, int status, struct claw_str type, struct claw_str dropped, bool stream)
{
    struct claw_flight *f = seat->flight;
    char *copy = malloc(type.len + dropped.len + 1);
    if (copy && type.len) memcpy(copy, type.ptr, type.len);
    if (copy && dropped.len) memcpy(copy + type.len, dropped.ptr, dropped.len);
    struct shard *s = lock(f);
    CLAW_ASSERT(f->state == CLAW_FLIGHT_WAITS);
    f->texts = copy;
    f->type_n = copy ? type.len : 0;
    f->dropped_n = copy ? dropped.len : 0;
    f->status = status;
    f->stream = stream;
    f->state = CLAW_FLIGHT_ANSWERS;
    tell_all(f);
    unlock(s);
}

static bool heard(const struct claw_flight *f)
{
    struct shard *s = lock(f);
    bool any = f->listeners > 0;
    unlock(s);
    return any;
}

/* Room for `n` more bytes, all in one chunk; NULL: no memory. */
static struct claw_flight_chunk *room_for(struct claw_flight *f, size_t n)
{
    struct claw_flight_chunk *c = f->last;
    if (c && c->room - c->filled >= n) return c;
    size_t room = c ? c->room * 2 : CHUNK_MIN;
    if (room > CHUNK_MAX) room = CHUNK_MAX;
    if (room < n) room = n;
    int64_t past = claw_flight_bytes() + (int64_t)room - atomic_load_explicit(&bound, memory_order_relaxed);
    if (past > 0 && (past > atomic_load_explicit(&bound, memory_order_relaxed) || !heard(f))) return NULL;
    if (!(c = malloc(sizeof *c + room))) return NULL;
    atomic_fetch_add_explicit(&held, (int64_t)room, memory_order_relaxed);
    c->next = NULL;
    c->filled = 0;
    c->room = room;
    return c;
}

bool claw_flight_add(struct claw_flight_seat *seat, const uv_buf_t *bytes, unsigned n)
{
    struct claw_flight *f = seat->flight;
    size_t size = 0;
    for (unsigned i = 0; i < n; i++) size += bytes[i].len;
    if (size == 0) return true;
    /* Only the leader appends and ends it: last and its room are its own, the state does not change meanwhile. */
    if (f->state != CLAW_FLIGHT_ANSWERS) return false;
    struct claw_flight_chunk *c = size <= f->most - f->bytes ? room_for(f, size) : NULL;
    if (!c) {
        struct shard *s = lock(f);
        settle(s, f, CLAW_FLIGHT_BROKEN, CLAW_EBAD_RESPONSE);
        tell(seat->desk);
        unlock(s);
        return false;
    }
    char *at = c->bytes + c->filled;
    for (unsigned i = 0; i < n; i++) {
        memcpy(at, bytes[i].base, bytes[i].len);
        at += bytes[i].len;
    }
    struct shard *s = lock(f);
    if (c != f->last) *(f->last ? &f->last->next : &f->first) = c;
    f->last = c;
    c->filled += size;
    f->bytes += size;
    tell_all(f);
    unlock(s);
    return true;
}

static void settle_seat(struct claw_flight_seat *seat, enum claw_flight_state state, int code)
{
    struct shard *s = lock(seat->flight);
    settle(s, seat->flight, state, code);
    unlock(s);
}

void claw_flight_end(struct claw_flight_seat *seat) { settle_seat(seat, CLAW_FLIGHT_WHOLE, 0); }
void claw_flight_fail(struct claw_flight_seat *seat, int code)
{
    struct shard *s = lock(seat->flight);
    CLAW_ASSERT(seat->flight->leader == seat);
    if (seat->flight->state == CLAW_FLIGHT_WAITS) settle(s, seat->flight, CLAW_FLIGHT_FAILED, code);
    else if (seat->flight->state == CLAW_FLIGHT_ANSWERS) settle(s, seat->flight, CLAW_FLIGHT_BROKEN, code);
    unlock(s);
}
void claw_flight_disband(struct claw_flight_seat *seat) { settle_seat(seat, CLAW_FLIGHT_DISBANDED, 0); }

bool claw_flight_heard(const struct claw_flight_seat *seat)
{
    return heard(seat->flight);
}

void claw_flight_alone(struct claw_flight_seat *seat)
{
    struct shard *s = lock(seat->flight);
    seat->flight->alone = true;
    unlock(s);
}

bool claw_flight_stall(struct claw_flight_seat *seat)
{
    struct shard *s = lock(seat->flight);
    bool heard = seat->flight->listeners > 0;
    seat->flight->stalled = !heard;
    unlock(s);
    return heard;
}

void claw_flight_skip(struct claw_flight_seat *seat)
{
    seat->chunk = seat->flight->last; /* only the leader appends */
    seat->read = seat->chunk ? seat->chunk->filled : 0;
}

void claw_flight_unstall(struct claw_flight_seat *seat)
{
    struct shard *s = lock(seat->flight);
    seat->flight->stalled = false;
    unlock(s);
}

int claw_flight_gather(const struct claw_flight_seat *seat, struct claw_buf *out)
{
    const struct claw_flight *f = seat->flight;
    int rc = claw_buf_reserve(out, f->bytes);
    for (const struct claw_flight_chunk *c = f->first; c && rc == 0; c = c->next) rc = claw_buf_add(out, c->bytes, c->filled);
    return rc;
}

/* ---- a listener's ------------------------------------------------------------------------------------------------------- */

bool claw_flight_take_lead(struct claw_flight_seat *seat)
{
    struct claw_flight *f = seat->flight;
    struct shard *s = lock(f);
    bool leads = f->state == CLAW_FLIGHT_FAILED && f->found;
    if (leads) {
        hear(f, -1);
        lead(seat, f);
    }
    unlock(s);
    return leads;
}

unsigned claw_flight_read(struct claw_flight_seat *seat, uv_buf_t *to, unsigned n)
{
    struct claw_flight *f = seat->flight;
    unsigned k = 0;
    struct shard *s = lock(f);
    if (!seat->chunk) seat->chunk = f->first;
    while (seat->chunk && k < n) {
        struct claw_flight_chunk *c = seat->chunk;
        if (c->filled > seat->read) to[k++] = uv_buf_init(c->bytes + seat->read, (unsigned)(c->filled - seat->read));
        seat->read = c->filled;
        if (!c->next) break;
        seat->chunk = c->next;
        seat->read = 0;
    }
    unlock(s);
    return k;
}
