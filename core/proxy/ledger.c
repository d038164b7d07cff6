#include "proxy/ledger_part.h"

#include "base/log.h"
#include "proxy/spend.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define HOUR 3600
#define SAY_S 60 /* a database that cannot be written is said once in so long */

struct claw_ledger_page {
    struct claw_ledger_page *next;
    struct claw_ledger *ledger;
    unsigned number;
    pthread_mutex_t lock; /* of table */
    struct claw_ledger_table *table;
};

struct claw_ledger {
    struct claw_ledger_db *db; /* the writer's */
    pthread_t writer;
    pthread_mutex_t lock;      /* of the lists */
    struct claw_ledger_page *pages;
    struct claw_ledger_question *asked, **asked_end;
    sem_t wake, hurry;         /* there is something to do; and it cannot wait for the period's end */
    _Atomic bool dirty, closing;
    _Atomic int64_t written, waiting, lost, errors;
    unsigned keep_days;
    int64_t said, forgot;      /* when */
    struct claw_ledger_table pending; /* taken off pages, not written yet */
};

/* ---- sums --------------------------------------------------------------------------------------------------------- */

static bool is_of(const struct claw_ledger_sum *s, uint64_t hash, int64_t hour, const struct claw_str words[4])
{
    if (s->hash != hash || s->hour != hour) return false;
    for (int i = 0; i < 4; i++)
        if (!claw_str_eq(s->words[i], words[i])) return false;
    return true;
}

static struct claw_ledger_sum *sum_new(uint64_t hash, int64_t hour, const struct claw_str words[4])
{
    size_t room = 0;
    for (int i = 0; i < 4; i++) room += words[i].len;
    struct claw_ledger_sum *s = calloc(1, sizeof *s + room);
    if (!s) return NULL;
    s->hash = hash;
    s->hour = hour;
    char *to = s->text;
    for (int i = 0; i < 4; i++) {
        if (words[i].len) memcpy(to, words[i].ptr, words[i].len);
        s->words[i] = (struct claw_str){to, words[i].len};
        to += words[i].len;
    }
    return s;
}

static uint64_t hash_of(int64_t hour, const struct claw_str words[4])
{
    uint64_t h = (uint64_t)hour;
    for (int i = 0; i < 4; i++) h = claw_str_hash(words[i], h);
    return h;
}

/* The sum for these words, made when it is not there and there is room; else NULL. */
static struct claw_ledger_sum *sum_at(struct claw_ledger_table *t, unsigned most, int64_t hour, const struct claw_str words[4])
{
    uint64_t hash = hash_of(hour, words);
    struct claw_ledger_sum **bucket = &t->buckets[hash % CLAW_LEDGER_BUCKETS], *s;
    for (s = *bucket; s; s = s->next)
        if (is_of(s, hash, hour, words)) return s;
    if (t->n >= most || !(s = sum_new(hash, hour, words))) return NULL;
    s->next = *bucket;
    *bucket = s;
    t->n++;
    return s;
}

static void add_up(struct claw_ledger_sum *to, const struct claw_ledger_sum *s)
{
    to->requests += s->requests;
    to->failed += s->failed;
    to->estimated += s->estimated;
    to->input += s->input;
    to->cached += s->cached;
    to->written += s->written;
    to->output += s->output;
    to->reasoning += s->reasoning;
    to->cost_micros += s->cost_micros;
}

static void empty(struct claw_ledger_table *t)
{
    for (unsigned i = 0; i < CLAW_LEDGER_BUCKETS; i++) {
        for (struct claw_ledger_sum *s = t->buckets[i], *next; s; s = next) {
            next = s->next;
            free(s);
        }
        t->buckets[i] = NULL;
    }
    t->n = 0;
}

/* ---- the worker's side ---------------------------------------------------------------------------------------------- */

struct claw_ledger_page *claw_ledger_page_of(struct claw_ledger *l, unsigned number)
{
    struct claw_ledger_page *p;
    pthread_mutex_lock(&l->lock);
    for (p = l->pages; p && p->number != number; p = p->next) continue;
    if (!p && (p = calloc(1, sizeof *p))) {
        pthread_mutex_init(&p->lock, NULL);
        p->ledger = l;
        p->number = number;
        p->next = l->pages;
        l->pages = p;
    }
    pthread_mutex_unlock(&l->lock);
    return p;
}

/* Holding the page's lock. Past the page's end the model is not told apart any more: there are as many clients, routes and upstreams
 * as the configuration has, but a client may name what models it likes. */
static struct claw_ledger_sum *sum_for(struct claw_ledger_page *page, const struct claw_ledger_entry *e, int64_t hour)
{
    if (!page->table && !(page->table = calloc(1, sizeof *page->table))) return NULL;
    struct claw_str words[4] = {e->client, e->route, e->upstream, e->model};
    struct claw_ledger_sum *s = sum_at(page->table, CLAW_LEDGER_PAGE, hour, words);
    if (s) return s;
    words[3] = CLAW_STR("(other)");
    return sum_at(page->table, CLAW_LEDGER_PAGE * 2, hour, words);
}

void claw_ledger_add(struct claw_ledger_page *page, const struct claw_ledger_entry *e, int64_t now)
{
    struct claw_ledger *l = page->ledger;
    if (e->client.len && e->cost_micros > 0) {
        struct claw_spend *spend = claw_spend_of(e->client);
        if (spend) claw_spend_add(spend, e->cost_micros, now);
    }
    const struct claw_ledger_sum one = {.requests = 1, .failed = e->failed, .estimated = e->estimated, .input = e->input, .cached = e->cached,
                                        .written = e->written, .output = e->output, .reasoning = e->reasoning, .cost_micros = e->cost_micros};
    pthread_mutex_lock(&page->lock);
    struct claw_ledger_sum *s = sum_for(page, e, now - now % HOUR);
    if (s) add_up(s, &one);
    pthread_mutex_unlock(&page->lock);
    if (!s) atomic_fetch_add_explicit(&l->lost, 1, memory_order_relaxed);
    if (!atomic_load_explicit(&l->dirty, memory_order_relaxed) && !atomic_exchange(&l->dirty, true)) sem_post(&l->wake);
}

/* ---- the writer ------------------------------------------------------------------------------------------------------ */

static void take_page(struct claw_ledger *l, struct claw_ledger_page *page)
{
    pthread_mutex_lock(&page->lock);
    struct claw_ledger_table *t = page->table;
    page->table = NULL;
    pthread_mutex_unlock(&page->lock);
    for (unsigned i = 0; t && i < CLAW_LEDGER_BUCKETS; i++) {
        for (struct claw_ledger_sum *s = t->buckets[i]; s; s = s->next) {
            struct claw_ledger_sum *to = sum_at(&l->pending, CLAW_LEDGER_WAITING, s->hour, s->words);
            if (to) add_up(to, s);
            else atomic_fetch_add(&l->lost, s->requests);
        }
    }
    if (t) empty(t);
    free(t);
}

static void say_failure(struct claw_ledger *l, int64_t now)
{
    atomic_fetch_add(&l->errors, 1);
    if (now - l->said < SAY_S) return;
    l->said = now;
    claw_log_event(CLAW_LOG_ERROR, "the ledger cannot be written; what is spent is kept in memory meanwhile", "error", claw_ledger_db_why(l->db), NULL);
    claw_log_flush();
}

static void write_down(struct claw_ledger *l, int64_t now)
{
    struct claw_ledger_page *pages;
    atomic_store(&l->dirty, false); /* what comes from here on wakes the writer again */
    pthread_mutex_lock(&l->lock);
    pages = l->pages; /* the list only grows, at its head */
    pthread_mutex_unlock(&l->lock);
    for (struct claw_ledger_page *p = pages; p; p = p->next) take_page(l, p);
    if (l->pending.n == 0) return;
    int64_t requests = 0;
    for (unsigned i = 0; i < CLAW_LEDGER_BUCKETS; i++)
        for (struct claw_ledger_sum *s = l->pending.buckets[i]; s; s = s->next) requests += s->requests;
    if (claw_ledger_db_write(l->db, &l->pending) != 0) {
        say_failure(l, now);
    } else {
        atomic_fetch_add(&l->written, requests);
        empty(&l->pending);
    }
    atomic_store(&l->waiting, l->pending.n);
}

static void on_answered(struct claw_loop *loop, struct claw_message *m)
{
    struct claw_ledger_question *q = (struct claw_ledger_question *)m;
    q->done(q);
}

static struct claw_ledger_question *take_asked(struct claw_ledger *l)
{
    pthread_mutex_lock(&l->lock);
    struct claw_ledger_question *first = l->asked;
    l->asked = NULL;
    l->asked_end = &l->asked;
    pthread_mutex_unlock(&l->lock);
    return first;
}

static void answer_all(struct claw_ledger *l, struct claw_ledger_question *first)
{
    for (struct claw_ledger_question *q = first, *next; q; q = next) {
        next = q->next;
        q->rc = claw_ledger_db_answer(l->db, q);
        q->message.run = on_answered;
        claw_loop_post(q->loop, &q->message);
    }
}

static void forget_old(struct claw_ledger *l, int64_t now)
{
    if (now - l->forgot < HOUR) return;
    l->forgot = now;
    if (claw_ledger_db_forget(l->db, now - (int64_t)l->keep_days * 24 * HOUR) != 0) say_failure(l, now);
}

/* Questions are taken before the pages are: what was settled before one is in its answer. */
static void work(struct claw_ledger *l)
{
    struct claw_ledger_question *asked = take_asked(l);
    int64_t now = (int64_t)time(NULL);
    write_down(l, now);
    answer_all(l, asked);
    forget_old(l, now);
}

/* Until the period is over, or somebody cannot wait. */
static void wait_period(struct claw_ledger *l)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += CLAW_LEDGER_PERIOD_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    while (sem_timedwait(&l->hurry, &until) == -1 && errno == EINTR) continue;
}

static void *run(void *arg)
{
    struct claw_ledger *l = arg;
    while (!atomic_load(&l->closing)) {
        if (l->pending.n == 0) while (sem_wait(&l->wake) == -1 && errno == EINTR) continue;
        wait_period(l);
        work(l);
    }
    work(l);
    return NULL;
}

static void hurry(struct claw_ledger *l)
{
    sem_post(&l->hurry);
    sem_post(&l->wake);
}

void claw_ledger_ask(struct claw_ledger *l, struct claw_ledger_question *q)
{
    q->next = NULL;
    pthread_mutex_lock(&l->lock);
    *l->asked_end = q;
    l->asked_end = &q->next;
    pthread_mutex_unlock(&l->lock);
    hurry(l);
}

/* ---- its life ---------------------------------------------------------------------------------------------------------- */

static void ledger_free(struct claw_ledger *l)
{
    for (struct claw_ledger_page *p = l->pages, *next; p; p = next) {
        next = p->next;
        if (p->table) empty(p->table);
        free(p->table);
        pthread_mutex_destroy(&p->lock);
        free(p);
    }
    empty(&l->pending);
    claw_ledger_db_close(l->db);
    sem_destroy(&l->wake);
    sem_destroy(&l->hurry);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

int claw_ledger_open(const char *path, unsigned keep_days, struct claw_ledger **out, char *why, size_t why_size)
{
    struct claw_ledger *l = calloc(1, sizeof *l);
    snprintf(why, why_size, "out of memory");
    if (!l) return CLAW_ENOMEM;
    pthread_mutex_init(&l->lock, NULL);
    sem_init(&l->wake, 0, 0);
    sem_init(&l->hurry, 0, 0);
    l->asked_end = &l->asked;
    l->keep_days = keep_days;
    int rc = claw_ledger_db_open(path, &l->db, why, why_size);
    if (rc == 0 && (rc = claw_ledger_db_restore(l->db, (int64_t)time(NULL))) != 0) snprintf(why, why_size, "%s", claw_ledger_db_why(l->db));
    if (rc == 0 && pthread_create(&l->writer, NULL, run, l) != 0) {
        snprintf(why, why_size, "no thread for it");
        rc = CLAW_EIO;
    }
    if (rc != 0) ledger_free(l);
    else *out = l;
    return rc;
}

void claw_ledger_close(struct claw_ledger *l)
{
    if (!l) return;
    atomic_store(&l->closing, true);
    hurry(l);
    pthread_join(l->writer, NULL);
    ledger_free(l);
}

struct claw_ledger_stats claw_ledger_measure(struct claw_ledger *l)
{
    return (struct claw_ledger_stats){atomic_load(&l->written), atomic_load(&l->waiting), atomic_load(&l->lost), atomic_load(&l->errors)};
}
