#include "proxy/collector.h"

#include "base/json.h"
#include "base/log.h"
#include "proxy/retry_after.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX (64u << 10)
#define BACKOFF_MS 1000u
#define BACKOFF_MAX_MS 30000u

/* One request's. */
struct spans {
    struct spans *next;
    unsigned n;
    size_t len;
    char text[];
};

struct claw_collector {
    struct claw_loop *loop;
    struct claw_fetcher *fetcher;
    struct claw_metrics_shard *metrics;
    const struct claw_conf *conf;     /* NULL: there is no endpoint */
    struct spans *first, **last;      /* taken over from the threads, not sent yet; oldest first */
    struct claw_buf body;             /* the batch under way */
    unsigned requests, batch;         /* of it; its spans */
    unsigned tries;
    struct claw_fetch *fetch;
    struct claw_deferred end;         /* a fetch is not freed from within its on_done */
    struct claw_timer tick, again, flush;
    char instance[33];                /* service.instance.id */
    bool failing;                     /* said already */
    void (*flushed)(void *arg);       /* NULL: no flush */
    void *arg;
};

static struct claw_collector *_Atomic the_collector;
static struct spans *_Atomic given;   /* newest first */
static _Atomic unsigned most;         /* tracing.max_queue; 0: nobody wants them */
static _Atomic unsigned waiting;
static _Atomic int64_t lost;          /* spans, since they were counted */
static struct claw_message wake;
static atomic_bool woken;

static void count(struct claw_collector *c, const char *outcome, int64_t n)
{
    struct claw_str label = claw_str_of(outcome);
    if (n) claw_metrics_add(c->metrics, CLAW_METRIC_TRACE_SPANS, n, 1, &label);
}

/* ---- giving -------------------------------------------------------------------------------------------------------------- */

static void on_wake(struct claw_loop *loop, struct claw_message *m);

void claw_collector_take(struct claw_str text, unsigned n)
{
    unsigned room = atomic_load_explicit(&most, memory_order_relaxed);
    unsigned before = atomic_fetch_add(&waiting, 1);
    struct spans *s = before < room ? malloc(sizeof *s + text.len) : NULL;
    if (!s) {
        atomic_fetch_sub(&waiting, 1);
        atomic_fetch_add(&lost, n);
        return;
    }
    s->n = n;
    s->len = text.len;
    memcpy(s->text, text.ptr, text.len);
    s->next = atomic_load(&given);
    while (!atomic_compare_exchange_weak(&given, &s->next, s)) {}
    struct claw_collector *c = atomic_load(&the_collector);
    if (before + 1 < CLAW_COLLECTOR_BATCH || !c || atomic_exchange(&woken, true)) return;
    wake.run = on_wake;
    claw_loop_post(c->loop, &wake);
}

size_t claw_collector_waiting(void) { return atomic_load(&waiting); }

/* ---- the queue ------------------------------------------------------------------------------------------------------------ */

static void take_over(struct claw_collector *c)
{
    struct spans *newest = atomic_exchange(&given, NULL), *oldest = NULL, *s;
    while ((s = newest)) {
        newest = s->next;
        s->next = oldest;
        oldest = s;
    }
    *c->last = oldest;
    while (*c->last) c->last = &(*c->last)->next;
    count(c, "dropped", atomic_exchange(&lost, 0));
}

static struct spans *pop(struct claw_collector *c)
{
    struct spans *s = c->first;
    if (!s) return NULL;
    c->first = s->next;
    if (!c->first) c->last = &c->first;
    return s;
}

static void drop_queued(struct claw_collector *c)
{
    take_over(c);
    for (struct spans *s; (s = pop(c)); free(s)) {
        count(c, "dropped", s->n);
        atomic_fetch_sub(&waiting, 1);
    }
}

/* ---- a batch ---------------------------------------------------------------------------------------------------------------- */

static int add_resource(struct claw_collector *c, struct claw_buf *b)
{
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) != 0) *host = '\0';
    int rc = claw_buf_add_z(b, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":");
    if (rc == 0) rc = claw_buf_add_json(b, c->conf->tracing.service_name);
    if (rc == 0) rc = claw_buf_add_fmt(b, "}},{\"key\":\"service.version\",\"value\":{\"stringValue\":\"%s\"}},"
                                          "{\"key\":\"service.instance.id\",\"value\":{\"stringValue\":\"%s\"}},{\"key\":\"host.name\",\"value\":{\"stringValue\":",
                                       CLAW_VERSION, c->instance);
    if (rc == 0) rc = claw_buf_add_json(b, claw_str_of(host));
    if (rc == 0) rc = claw_buf_add_z(b, "}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"openclaw\",\"version\":\"" CLAW_VERSION "\"},\"spans\":[");
    return rc;
}

/* Without memory what was to go is lost. */
static bool fill(struct claw_collector *c)
{
    claw_buf_clear(&c->body);
    c->requests = c->batch = c->tries = 0;
    int rc = add_resource(c, &c->body);
    while (c->first && c->requests < CLAW_COLLECTOR_BATCH && (!c->requests || claw_buf_size(&c->body) + c->first->len <= CLAW_COLLECTOR_BYTES)) {
        struct spans *s = pop(c);
        if (rc == 0 && c->requests) rc = claw_buf_add_z(&c->body, ",");
        if (rc == 0) rc = claw_buf_add(&c->body, s->text, s->len);
        c->requests++;
        c->batch += s->n;
        free(s);
    }
    if (rc == 0) rc = claw_buf_add_z(&c->body, "]}]}]}");
    return rc == 0;
}

static void start_next(struct claw_collector *c);

/* The batch is over. */
static void finish(struct claw_collector *c, const char *outcome, unsigned n)
{
    count(c, outcome, n);
    count(c, "failed", c->batch - n);
    atomic_fetch_sub(&waiting, c->requests);
    c->requests = c->batch = 0;
    claw_buf_fini(&c->body);
    claw_buf_init(&c->body, 0);
    start_next(c);
}

static void say_failing(struct claw_collector *c, const char *error)
{
    char host[256];
    if (c->failing || !c->conf) return;
    c->failing = true;
    snprintf(host, sizeof host, "%.*s", CLAW_STR_FMT(c->conf->tracing.to.host));
    claw_log_event(CLAW_LOG_WARN, "the trace collector does not take spans", "host", host, "error", error, NULL);
}

static uint64_t backoff_ms(const struct claw_collector *c, int64_t told_ms)
{
    uint64_t ms = c->tries > 5 ? BACKOFF_MAX_MS : (uint64_t)BACKOFF_MS << (c->tries - 1);
    unsigned char r = 128;
    if (getrandom(&r, 1, GRND_NONBLOCK) != 1) r = 128;
    ms = ms * (80 + r * 40u / 255) / 100;
    if (told_ms >= 0) ms = (uint64_t)told_ms;
    return ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
}

/* {"partialSuccess":{"rejectedSpans":"3","errorMessage":"…"}}: how many were not taken. */
static unsigned rejected(struct claw_collector *c)
{
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_str number, why = CLAW_STR("");
    uint64_t n = 0;
    claw_arena_init(&a, NULL, 0, ANSWER_MAX * 4);
    if (claw_json_scan(claw_buf_str(&c->fetch->body), &a, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT) {
        struct claw_json_value part = claw_json_top_get(&top, CLAW_STR("partialSuccess")), v = claw_json_get(part, CLAW_STR("rejectedSpans"));
        int64_t whole = 0;
        if (v.type == CLAW_JSON_STRING && claw_json_text(v, &a, &number) == 0 && claw_str_u64(number, c->batch, &n) != 0) n = 0;
        if (v.type == CLAW_JSON_NUMBER && claw_json_int(v, &whole) == 0 && whole > 0 && whole <= c->batch) n = (uint64_t)whole;
        if (claw_json_text(claw_json_get(part, CLAW_STR("errorMessage")), &a, &why) != 0) why = CLAW_STR("");
    }
    if (n) {
        char told[256];
        snprintf(told, sizeof told, "%u spans rejected: %.*s", (unsigned)n, CLAW_STR_FMT(why));
        say_failing(c, told);
    }
    claw_arena_reset(&a);
    return (unsigned)n;
}

static void after_try(struct claw_collector *c)
{
    struct claw_fetch *f = c->fetch;
    int status = f && f->code == CLAW_OK ? f->head->status : 0;
    bool taken = status >= 200 && status < 300;
    bool again = status == 0 || status == 429 || status == 502 || status == 503 || status == 504;
    int64_t told_ms = status ? claw_retry_after_ms(f->head, time(NULL)) : -1;
    unsigned refused = taken ? rejected(c) : 0;
    if (!taken) {
        char text[16] = "";
        if (status) snprintf(text, sizeof text, "%d", status);
        say_failing(c, *text ? text : f ? f->error : "not sent");
    } else if (!refused) {
        c->failing = false;
    }
    if (f) claw_fetch_free(f);
    c->fetch = NULL;
    if (taken) finish(c, "exported", c->batch - refused);
    else if (!again || !c->conf || c->tries >= c->conf->tracing.attempts) finish(c, "failed", c->batch);
    else claw_timer_start(c->loop, &c->again, backoff_ms(c, told_ms));
}

static void on_end(struct claw_deferred *e) { after_try((struct claw_collector *)((char *)e - offsetof(struct claw_collector, end))); }

static void on_fetched(struct claw_fetch *f)
{
    struct claw_collector *c = f->arg;
    claw_loop_defer(c->loop, &c->end, on_end);
}

static void attempt(struct claw_collector *c)
{
    const struct claw_conf *conf = c->conf;
    const char *why;
    struct claw_conf_header *fields = calloc(conf->tracing.headers_n + 1, sizeof *fields);
    size_t n = 0;
    int rc = CLAW_ENOMEM;
    c->tries++;
    if (fields) {
        fields[n++] = (struct claw_conf_header){CLAW_STR("content-type"), CLAW_STR("application/json")};
        for (size_t i = 0; i < conf->tracing.headers_n; i++) fields[n++] = conf->tracing.headers[i];
        const struct claw_fetch_ask ask = {.url = conf->tracing.endpoint, .method = CLAW_STR("POST"), .headers = fields, .headers_n = n,
                                           .body = claw_buf_str(&c->body), .timeout_ms = conf->tracing.timeout_ms, .max_body = ANSWER_MAX, .configured = true};
        rc = claw_fetch_start(c->fetcher, NULL, &ask, on_fetched, c, &c->fetch, &why);
    }
    free(fields);
    if (rc == 0) return;
    c->fetch = NULL;
    claw_loop_defer(c->loop, &c->end, on_end);
}

static void on_again(struct claw_timer *t)
{
    struct claw_collector *c = t->arg;
    if (c->conf) attempt(c);
    else finish(c, "dropped", c->batch);
}

static void end_flush(struct claw_collector *c)
{
    void (*done)(void *) = c->flushed;
    c->flushed = NULL;
    claw_timer_stop(c->loop, &c->flush);
    done(c->arg);
}

static void start_next(struct claw_collector *c)
{
    while (c->first && c->conf && !c->requests) {
        if (fill(c)) {
            attempt(c);
            return;
        }
        count(c, "dropped", c->batch);
        atomic_fetch_sub(&waiting, c->requests);
        c->requests = c->batch = 0;
    }
    if (!c->requests && c->flushed) end_flush(c);
}

static void send_all(struct claw_collector *c)
{
    if (!c->conf) drop_queued(c);
    else take_over(c);
    if (!c->requests) start_next(c);
}

static void on_wake(struct claw_loop *loop, struct claw_message *m)
{
    struct claw_collector *c = atomic_load(&the_collector);
    (void)m;
    atomic_store(&woken, false);
    if (c) send_all(c);
}

static void on_tick(struct claw_timer *t)
{
    struct claw_collector *c = t->arg;
    send_all(c);
    if (c->conf) claw_timer_start(c->loop, t, c->conf->tracing.interval_ms);
}

/* ---- its life ------------------------------------------------------------------------------------------------------------------ */

static void on_flush_due(struct claw_timer *t)
{
    struct claw_collector *c = t->arg;
    claw_log_event(CLAW_LOG_WARN, "tracing.flush_seconds are over: spans are dropped", NULL);
    end_flush(c);
}

void claw_collector_flush(struct claw_collector *c, void (*done)(void *), void *arg)
{
    c->flushed = done;
    c->arg = arg;
    claw_timer_stop(c->loop, &c->tick);
    if (c->conf) claw_timer_start(c->loop, &c->flush, c->conf->tracing.flush_ms);
    send_all(c);
}

void claw_collector_hurry(struct claw_collector *c)
{
    if (c->flushed) end_flush(c);
}

void claw_collector_set(struct claw_collector *c, const struct claw_conf *conf)
{
    c->conf = conf->tracing.endpoint.len ? conf : NULL;
    atomic_store(&most, c->conf ? conf->tracing.max_queue : 0);
    if (!c->conf) drop_queued(c);
    claw_timer_stop(c->loop, &c->tick);
    if (c->conf) claw_timer_start(c->loop, &c->tick, conf->tracing.interval_ms);
}

int claw_collector_new(struct claw_loop *loop, struct claw_fetcher *fetcher, struct claw_metrics_shard *metrics, struct claw_collector **out)
{
    struct claw_collector *c = calloc(1, sizeof *c);
    unsigned char r[16];
    if (!c) return CLAW_ENOMEM;
    c->loop = loop;
    c->fetcher = fetcher;
    c->metrics = metrics;
    c->last = &c->first;
    if (getrandom(r, sizeof r, 0) != sizeof r) memset(r, 0, sizeof r);
    for (unsigned i = 0; i < sizeof r; i++) snprintf(c->instance + 2 * i, 3, "%02x", r[i]);
    claw_buf_init(&c->body, 0);
    claw_timer_init(&c->tick, on_tick, c);
    claw_timer_init(&c->again, on_again, c);
    claw_timer_init(&c->flush, on_flush_due, c);
    atomic_store(&the_collector, c);
    *out = c;
    return 0;
}

static void on_orphan(struct claw_deferred *e) { free((char *)e - offsetof(struct claw_collector, end)); }

void claw_collector_free(struct claw_collector *c)
{
    if (!c) return;
    atomic_store(&most, 0);
    atomic_store(&the_collector, NULL);
    drop_queued(c);
    count(c, "dropped", c->batch);
    atomic_fetch_sub(&waiting, c->requests);
    claw_timer_stop(c->loop, &c->tick);
    claw_timer_stop(c->loop, &c->again);
    claw_timer_stop(c->loop, &c->flush);
    if (c->fetch) claw_fetch_free(c->fetch);
    claw_buf_fini(&c->body);
    if (c->end.pending) c->end.run = on_orphan;
    else free(c);
}
