#include "proxy/limit_queue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

#define BUCKETS 1024u
#define MEMBERS 4096u
#define COUNTED 256u /* clients looked at to tell how long it would take */

/* A client that waits in a queue. */
struct claw_limit_member {
    struct claw_limit_member *chain; /* in its bucket */
    struct claw_limit_queue *queue;
    uint64_t hash;
    struct claw_limit_member *prev, *next; /* in the ring */
    struct claw_limit_place *first, *last; /* those not called */
    unsigned n, all;                       /* not called; with those that are */
};

struct claw_limit_queue {
    struct claw_limit_queue *chain;
    uint64_t hash, mark; /* hash: of the key */
    struct claw_limit_member *first, *last; /* the ring: clients with somebody not called */
    struct claw_limit_place *called;
    unsigned members_n, n, called_n, turns; /* members_n: in the ring; n: all places */
    size_t id, len;                         /* id: the key's beginning without values */
    char key[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct claw_limit_queue *queues[BUCKETS];
static struct claw_limit_member *members[MEMBERS];
static _Atomic unsigned waiting;
static uint64_t seed;

static void prepare(void)
{
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = claw_loop_clock_us();
}

static uint64_t hash_of(struct claw_str key)
{
    pthread_once(&once, prepare);
    return claw_str_hash(key, seed);
}

/* ---- under the lock ----------------------------------------------------------------------------------------------------- */

static bool is_of(const struct claw_limit_queue *q, struct claw_str key, uint64_t hash)
{
    return q->hash == hash && q->len == key.len && memcmp(q->key, key.ptr, key.len) == 0;
}

static struct claw_limit_queue *find(struct claw_str key, uint64_t hash, uint64_t mark)
{
    struct claw_limit_queue *q = queues[hash % BUCKETS];
    while (q && !(q->mark == mark && is_of(q, key, hash))) q = q->chain;
    return q;
}

static struct claw_limit_queue *queue_of(struct claw_str key, uint64_t mark)
{
    uint64_t hash = hash_of(key);
    struct claw_limit_queue *q = find(key, hash, mark);
    if (q || !(q = calloc(1, sizeof *q + key.len))) return q;
    const char *values = memchr(key.ptr, '\037', key.len);
    q->hash = hash;
    q->mark = mark;
    q->id = values ? (size_t)(values - key.ptr) : key.len;
    q->len = key.len;
    memcpy(q->key, key.ptr, key.len);
    q->chain = queues[hash % BUCKETS];
    queues[hash % BUCKETS] = q;
    return q;
}

static void queue_drop(struct claw_limit_queue *q)
{
    struct claw_limit_queue **at = &queues[q->hash % BUCKETS];
    if (q->n) return;
    while (*at != q) at = &(*at)->chain;
    *at = q->chain;
    free(q);
}

static struct claw_limit_member **bucket_of(const struct claw_limit_queue *q, uint64_t hash) { return &members[(hash ^ q->hash ^ q->mark) % MEMBERS]; }

static struct claw_limit_member *member_find(const struct claw_limit_queue *q, uint64_t hash)
{
    struct claw_limit_member *m = *bucket_of(q, hash);
    while (m && !(m->queue == q && m->hash == hash)) m = m->chain;
    return m;
}

static struct claw_limit_member *member_of(struct claw_limit_queue *q, uint64_t hash)
{
    struct claw_limit_member *m = member_find(q, hash), **bucket = bucket_of(q, hash);
    if (m || !(m = calloc(1, sizeof *m))) return m;
    m->queue = q;
    m->hash = hash;
    m->chain = *bucket;
    *bucket = m;
    return m;
}

static void member_drop(struct claw_limit_member *m)
{
    struct claw_limit_member **at = bucket_of(m->queue, m->hash);
    if (m->all) return;
    while (*at != m) at = &(*at)->chain;
    *at = m->chain;
    free(m);
}

static void ring_add(struct claw_limit_member *m, bool front)
{
    struct claw_limit_queue *q = m->queue;
    struct claw_limit_member *next = front ? q->first : NULL, *prev = front ? NULL : q->last;
    m->prev = prev;
    m->next = next;
    *(prev ? &prev->next : &q->first) = m;
    *(next ? &next->prev : &q->last) = m;
    q->members_n++;
}

static void ring_del(struct claw_limit_member *m)
{
    struct claw_limit_queue *q = m->queue;
    *(m->prev ? &m->prev->next : &q->first) = m->next;
    *(m->next ? &m->next->prev : &q->last) = m->prev;
    m->prev = m->next = NULL;
    q->members_n--;
}

/* To its client's requests, the client to the ring if it had none. */
static void line_add(struct claw_limit_place *p, bool front)
{
    struct claw_limit_member *m = p->member;
    if (m->n++ == 0) ring_add(m, front);
    p->prev = front ? NULL : m->last;
    p->next = front ? m->first : NULL;
    *(p->prev ? &p->prev->next : &m->first) = p;
    *(p->next ? &p->next->prev : &m->last) = p;
}

static void line_del(struct claw_limit_place *p)
{
    struct claw_limit_member *m = p->member;
    *(p->prev ? &p->prev->next : &m->first) = p->next;
    *(p->next ? &p->next->prev : &m->last) = p->prev;
    p->prev = p->next = NULL;
    if (--m->n == 0) ring_del(m);
}

static void on_message(struct claw_loop *loop, struct claw_message *message);

static void list(struct claw_limit_place *p)
{
    struct claw_limit_calls *c = p->calls;
    if (!p->loop) {
        p->on_call(p);
        return;
    }
    if (p->listed) return;
    p->listed = true;
    p->calls_next = NULL;
    p->calls_prev = c->last;
    *(c->last ? &c->last->calls_next : &c->first) = p;
    c->last = p;
    if (c->posted) return;
    c->posted = true;
    c->message.run = on_message;
    claw_loop_post(p->loop, &c->message); /* under the lock: a place has a request, and that a loop that lives */
}

static void unlist(struct claw_limit_place *p)
{
    struct claw_limit_calls *c = p->calls;
    if (!p->listed) return;
    *(p->calls_prev ? &p->calls_prev->calls_next : &c->first) = p->calls_next;
    *(p->calls_next ? &p->calls_next->calls_prev : &c->last) = p->calls_prev;
    p->calls_prev = p->calls_next = NULL;
    p->listed = false;
}

static void call_add(struct claw_limit_place *p)
{
    struct claw_limit_queue *q = p->queue;
    p->called = true;
    p->prev = NULL;
    p->next = q->called;
    if (q->called) q->called->prev = p;
    q->called = p;
    q->called_n++;
}

static void call_next(struct claw_limit_queue *q)
{
    while (q->called_n < q->turns && q->first) {
        struct claw_limit_member *m = q->first;
        struct claw_limit_place *p = m->first;
        line_del(p);
        if (m->n && q->last != m) {
            ring_del(m);
            ring_add(m, false);
        }
        call_add(p);
        list(p);
    }
}

static void leave(struct claw_limit_place *p)
{
    struct claw_limit_queue *q = p->queue;
    struct claw_limit_member *m = p->member;
    unlist(p);
    if (p->called) {
        *(p->prev ? &p->prev->next : &q->called) = p->next;
        if (p->next) p->next->prev = p->prev;
        q->called_n--;
    } else {
        line_del(p);
    }
    p->queue = NULL;
    p->member = NULL;
    p->prev = p->next = NULL;
    p->called = false;
    q->n--;
    m->all--;
    atomic_fetch_sub_explicit(&waiting, 1, memory_order_relaxed);
    member_drop(m);
    call_next(q);
    queue_drop(q);
}

static bool has_passed(const struct claw_limit_place *p, uint64_t hash)
{
    for (unsigned i = 0; i < p->passed_n && i < CLAW_LIMIT_QUEUE_PASSED; i++)
        if (p->passed[i] == hash) return true;
    return false;
}

/* At least so many have their turn before one more of `m`. */
static unsigned before(const struct claw_limit_queue *q, const struct claw_limit_member *m, bool front)
{
    unsigned mine = m ? m->n : 0, n = q->called_n, seen = 0;
    if (front) return n;
    n += mine;
    for (const struct claw_limit_member *other = q->first; other && seen < COUNTED; other = other->next, seen++)
        if (other != m) n += other->n < mine + 1 ? other->n : mine + 1;
    return n + q->members_n - seen;
}

static enum claw_limit_queued join(struct claw_limit_place *p, struct claw_limit_waiting *w, uint64_t client)
{
    struct claw_limit_queue *q = queue_of(w->key, w->mark);
    if (!q) return CLAW_LIMIT_QUEUE_FULL;
    struct claw_limit_member *m = member_find(q, client);
    bool front = has_passed(p, q->hash ^ q->mark), full = q->n >= w->max || (m && m->all >= w->max_of_one);
    int64_t more = (int64_t)before(q, m, front);
    if (__builtin_mul_overflow(more, w->step_ns, &more) || __builtin_add_overflow(w->ahead_ns, more, &w->ahead_ns)) w->ahead_ns = INT64_MAX / 4;
    enum claw_limit_queued rc = w->ahead_ns > w->left_ns ? CLAW_LIMIT_QUEUE_LATE : full || !(m = member_of(q, client)) ? CLAW_LIMIT_QUEUE_FULL : CLAW_LIMIT_QUEUE_WAITS;
    if (rc != CLAW_LIMIT_QUEUE_WAITS) {
        queue_drop(q);
        return rc;
    }
    q->turns = w->turns;
    q->n++;
    m->all++;
    p->queue = q;
    p->member = m;
    atomic_fetch_add_explicit(&waiting, 1, memory_order_relaxed);
    if (q->called_n < q->turns && (front || !q->first)) {
        call_add(p);
        return CLAW_LIMIT_QUEUE_CALLED;
    }
    line_add(p, front);
    return CLAW_LIMIT_QUEUE_WAITS;
}

/* ---- for the limits ----------------------------------------------------------------------------------------------------- */

static void on_message(struct claw_loop *loop, struct claw_message *message)
{
    struct claw_limit_calls *c = (struct claw_limit_calls *)((char *)message - offsetof(struct claw_limit_calls, message));
    struct claw_limit_place *p, *last;
    pthread_mutex_lock(&lock);
    c->posted = false;
    last = c->last;
    while ((p = c->first)) {
        unlist(p);
        bool end = p == last;
        pthread_mutex_unlock(&lock);
        p->on_call(p); /* it may be gone after that */
        pthread_mutex_lock(&lock);
        if (end) break;
    }
    if (c->first && !c->posted) {
        c->posted = true;
        claw_loop_post(loop, &c->message);
    }
    pthread_mutex_unlock(&lock);
}

bool claw_limit_queue_holds(const struct claw_limit_place *p, struct claw_str key, uint64_t mark)
{
    if (atomic_load_explicit(&waiting, memory_order_relaxed) == 0) return false;
    uint64_t hash = hash_of(key);
    pthread_mutex_lock(&lock);
    const struct claw_limit_queue *q = find(key, hash, mark);
    bool holds = q && !(p && ((p->queue == q && p->called) || has_passed(p, hash ^ mark)));
    pthread_mutex_unlock(&lock);
    return holds;
}

enum claw_limit_queued claw_limit_queue_join(struct claw_limit_place *p, struct claw_limit_waiting *w, bool *first)
{
    uint64_t client = hash_of(w->client);
    pthread_mutex_lock(&lock);
    struct claw_limit_queue *q = p->queue, *to = find(w->key, hash_of(w->key), w->mark);
    enum claw_limit_queued rc;
    *first = !q || q != to;
    if (*first) {
        if (q && p->called && !has_passed(p, q->hash ^ q->mark)) p->passed[p->passed_n++ % CLAW_LIMIT_QUEUE_PASSED] = q->hash ^ q->mark;
        if (q) leave(p);
        rc = join(p, w, client);
    } else {
        rc = p->called ? CLAW_LIMIT_QUEUE_CALLED : CLAW_LIMIT_QUEUE_WAITS;
        if (p->called && w->ahead_ns > w->left_ns) {
            rc = CLAW_LIMIT_QUEUE_LATE;
            leave(p);
        }
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

void claw_limit_queue_leave(struct claw_limit_place *p)
{
    if (!p->queue) return; /* its own thread's to set */
    pthread_mutex_lock(&lock);
    leave(p);
    pthread_mutex_unlock(&lock);
}

void claw_limit_queue_room(struct claw_str key)
{
    if (atomic_load_explicit(&waiting, memory_order_relaxed) == 0) return;
    pthread_mutex_lock(&lock);
    uint64_t hash = hash_of(key);
    for (struct claw_limit_queue *q = queues[hash % BUCKETS]; q; q = q->chain)
        for (struct claw_limit_place *p = is_of(q, key, hash) ? q->called : NULL; p; p = p->next) list(p);
    pthread_mutex_unlock(&lock);
}

unsigned claw_limit_queue_waiting(struct claw_str id)
{
    unsigned n = atomic_load_explicit(&waiting, memory_order_relaxed);
    if (!n || !id.ptr) return n;
    n = 0;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct claw_limit_queue *q = queues[i]; q; q = q->chain)
            if (claw_str_eq((struct claw_str){q->key, q->id}, id)) n += q->n;
    pthread_mutex_unlock(&lock);
    return n;
}
