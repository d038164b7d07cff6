#include "proxy/recent.h"

#include "proxy/care.h"
#include "proxy/commit.h"
#include "proxy/pipeline.h"
#include "proxy/recall.h"
#include "proxy/trace.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#define TEXT_BYTES 1024u
#define NAME_BYTES 96u
#define PATH_BYTES 160u
#define ERROR_BYTES 240u

struct piece { uint16_t at, len; }; /* of the entry's text */

struct candidate { struct piece upstream, model, why; bool aside, full, untold; };

struct attempt {
    struct piece upstream, kind;
    uint16_t status, key;
    bool several, reused, probe;
    uint32_t start_us, ttfb_us, end_us;
};

struct entry {
    uint64_t at_us; /* Unix time of its end */
    uint64_t generation;
    char id[33], trace[33]; /* trace "": none */
    const char *stream_state; /* NULL: no stream */
    bool stream, translated, poor, estimated, has_caller;
    uint8_t dialect, recalled, step, candidates_n, attempts_n;
    unsigned attempts; /* all of them, also those that are not kept */
    int status, error;
    uint32_t ttfb_us, end_us, overhead_us, age_s, limit_wait_us;
    uint64_t bytes_in, bytes_out;
    int64_t input, output, cost_micros;
    struct piece client, ip, method, path, route, strategy, upstream, model, sent_model, answered_by, error_code, error_text, upstream_error;
    struct candidate candidates[CLAW_RECENT_PARTS];
    struct attempt tries[CLAW_RECENT_PARTS];
    uint16_t text_n;
    char text[TEXT_BYTES];
};

struct claw_recent {
    pthread_mutex_t lock;
    struct entry *entries;
    unsigned keeps;
    uint64_t n; /* all that ever came; the i-th lies at i % keeps */
};

/* ---- what is kept of a request ------------------------------------------------------------------------------------------- */

static struct piece put(struct entry *e, struct claw_str s, size_t most)
{
    size_t n = s.len < most ? s.len : most;
    if (n > TEXT_BYTES - e->text_n) n = TEXT_BYTES - e->text_n;
    struct piece p = {e->text_n, (uint16_t)n};
    if (n) memcpy(e->text + e->text_n, s.ptr, n);
    e->text_n = (uint16_t)(e->text_n + n);
    return p;
}

static struct claw_str name_of(const struct claw_req *r, unsigned upstream) { return r->gen->gen->upstreams[upstream].conf->name; }

static void put_candidates(struct entry *e, const struct claw_req *r)
{
    e->candidates_n = (uint8_t)(r->candidates_n < CLAW_RECENT_PARTS ? r->candidates_n : CLAW_RECENT_PARTS);
    for (unsigned i = 0; i < e->candidates_n; i++) {
        const struct claw_candidate *c = &r->candidates[i];
        struct candidate *to = &e->candidates[i];
        char why[128];
        to->upstream = put(e, name_of(r, c->upstream), NAME_BYTES);
        to->model = put(e, c->model, NAME_BYTES);
        to->aside = c->aside;
        to->full = c->full;
        to->untold = c->untold;
        to->why = put(e, (struct claw_str){why, c->aside ? claw_care_why(r, i, why, sizeof why) : 0}, sizeof why);
    }
}

/* The name stands there already when it is a candidate's. */
static struct piece put_upstream(struct entry *e, const struct claw_req *r, unsigned upstream)
{
    for (unsigned i = 0; i < e->candidates_n; i++)
        if (r->candidates[i].upstream == upstream) return e->candidates[i].upstream;
    return put(e, name_of(r, upstream), NAME_BYTES);
}

static void put_attempts(struct entry *e, const struct claw_req *r)
{
    e->attempts = r->attempts_n;
    e->attempts_n = (uint8_t)(r->attempts_n < CLAW_RECENT_PARTS ? r->attempts_n : CLAW_RECENT_PARTS);
    for (unsigned i = 0; i < e->attempts_n; i++) {
        const struct claw_attempt *a = &r->attempts[i];
        e->tries[i] = (struct attempt){put_upstream(e, r, a->upstream), put(e, claw_str_of(a->kind), NAME_BYTES), a->status, a->key, a->several, a->reused,
                                       a->probe, a->start_us, a->ttfb_us, a->end_us};
    }
}

static uint64_t wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void fill(struct entry *e, const struct claw_req *r)
{
    const struct claw_generation_upstream *up = claw_recall_answers(r) ? NULL : claw_req_upstream(r);
    e->at_us = wall_us();
    e->generation = r->gen->gen->id;
    memcpy(e->id, r->id, sizeof e->id);
    memcpy(e->trace, r->trace ? r->trace->id : "", r->trace ? sizeof e->trace : 1);
    e->stream = r->stream;
    e->stream_state = claw_commit_state(r);
    e->translated = r->translated;
    e->poor = r->poor;
    e->estimated = r->estimated != 0;
    e->has_caller = r->caller != NULL;
    e->dialect = r->dialect;
    e->recalled = r->recalled;
    e->step = r->step;
    e->status = r->status;
    e->error = r->error;
    e->ttfb_us = r->ttfb_us;
    e->end_us = r->end_us;
    e->overhead_us = r->overhead_us;
    e->age_s = r->age_s;
    e->limit_wait_us = r->limit_wait_us;
    e->bytes_in = r->bytes_in;
    e->bytes_out = r->bytes_out;
    e->input = r->usage.input;
    e->output = r->usage.output;
    e->cost_micros = r->cost_micros;
    e->text_n = 0;
    e->client = put(e, r->caller ? r->caller->name : CLAW_STR(""), NAME_BYTES);
    e->ip = put(e, claw_str_of(r->peer), sizeof r->peer);
    e->method = put(e, r->head ? r->head->method : CLAW_STR(""), 16);
    e->route = put(e, claw_req_route_id(r), NAME_BYTES);
    e->strategy = put(e, r->route >= 0 ? claw_req_conf(r)->routes[r->route].strategy : CLAW_STR(""), NAME_BYTES);
    e->model = put(e, r->model, NAME_BYTES);
    put_candidates(e, r);
    put_attempts(e, r);
    e->upstream = up && r->attempts_n ? put_upstream(e, r, r->candidates[r->candidate].upstream) : (struct piece){0, 0};
    e->sent_model = up && r->attempts_n ? put(e, claw_req_sent_model(r), NAME_BYTES) : (struct piece){0, 0};
    e->answered_by = put(e, r->answered_by, NAME_BYTES);
    e->error_code = put(e, r->error && r->error_code ? claw_str_of(r->error_code) : CLAW_STR(""), NAME_BYTES);
    e->path = put(e, r->head ? r->head->path : CLAW_STR(""), PATH_BYTES);
    e->error_text = put(e, r->error_text, ERROR_BYTES);
    e->upstream_error = put(e, r->upstream_error, ERROR_BYTES);
}

/* ---- the ring -------------------------------------------------------------------------------------------------------------- */

/* An entry was last touched a whole ring ago: what most requests write of the next one is fetched while nobody waits for it. */
static void fetch_ahead(const struct entry *e)
{
    for (size_t at = 0; at < offsetof(struct entry, candidates) + 64; at += 64) __builtin_prefetch((const char *)e + at, 1);
    __builtin_prefetch(e->tries, 1);
    for (size_t at = 0; at < 256; at += 64) __builtin_prefetch(e->text + at, 1);
}

struct claw_recent *claw_recent_new(void)
{
    struct claw_recent *r = calloc(1, sizeof *r);
    if (r) pthread_mutex_init(&r->lock, NULL);
    return r;
}

void claw_recent_free(struct claw_recent *r)
{
    if (!r) return;
    pthread_mutex_destroy(&r->lock);
    free(r->entries);
    free(r);
}

int claw_recent_set(struct claw_recent *r, unsigned keeps)
{
    if (keeps == r->keeps) return 0;
    struct entry *entries = keeps ? calloc(keeps, sizeof *entries) : NULL;
    if (keeps && !entries) return CLAW_ENOMEM;
    pthread_mutex_lock(&r->lock);
    struct entry *old = r->entries;
    r->entries = entries;
    r->keeps = keeps;
    r->n = 0;
    pthread_mutex_unlock(&r->lock);
    free(old);
    return 0;
}

void claw_recent_add(struct claw_recent *r, const struct claw_req *req)
{
    if (!r->keeps) return;
    pthread_mutex_lock(&r->lock);
    fill(&r->entries[r->n++ % r->keeps], req);
    fetch_ahead(&r->entries[r->n % r->keeps]);
    pthread_mutex_unlock(&r->lock);
}

/* ---- as JSON --------------------------------------------------------------------------------------------------------------- */

static struct claw_str text_of(const struct entry *e, struct piece p) { return (struct claw_str){e->text + p.at, p.len}; }

static int add_text(struct claw_buf *b, const struct entry *e, const char *key, struct piece p)
{
    if (p.len == 0) return 0;
    int rc = claw_buf_add_fmt(b, ",\"%s\":", key);
    return rc == 0 ? claw_buf_add_json(b, text_of(e, p)) : rc;
}

static int add_ms(struct claw_buf *b, const char *key, uint64_t us) { return claw_buf_add_fmt(b, ",\"%s\":%.3f", key, (double)us / 1e3); }

static int add_candidates(struct claw_buf *b, const struct entry *e)
{
    int rc = claw_buf_add_z(b, ",\"candidates\":[");
    for (unsigned i = 0; i < e->candidates_n && rc == 0; i++) {
        const struct candidate *c = &e->candidates[i];
        rc = claw_buf_add_z(b, i ? ",{\"upstream\":" : "{\"upstream\":");
        if (rc == 0) rc = claw_buf_add_json(b, text_of(e, c->upstream));
        if (rc == 0) rc = add_text(b, e, "model", c->model);
        if (rc == 0) rc = claw_buf_add_fmt(b, ",\"set_aside\":%s", c->aside ? "true" : "false");
        if (rc == 0 && (c->full || c->untold)) rc = claw_buf_add_fmt(b, ",\"passed_over\":\"%s\"", c->full ? "limit" : "untranslatable");
        if (rc == 0) rc = add_text(b, e, "why", c->why);
        if (rc == 0) rc = claw_buf_add_z(b, "}");
    }
    return rc == 0 ? claw_buf_add_z(b, "]") : rc;
}

static int add_attempts(struct claw_buf *b, const struct entry *e)
{
    int rc = claw_buf_add_z(b, ",\"attempts\":[");
    for (unsigned i = 0; i < e->attempts_n && rc == 0; i++) {
        const struct attempt *a = &e->tries[i];
        rc = claw_buf_add_z(b, i ? ",{\"upstream\":" : "{\"upstream\":");
        if (rc == 0) rc = claw_buf_add_json(b, text_of(e, a->upstream));
        if (rc == 0) rc = claw_buf_add_fmt(b, ",\"status\":%u", a->status);
        if (rc == 0) rc = add_text(b, e, "kind", a->kind);
        if (rc == 0 && a->several) rc = claw_buf_add_fmt(b, ",\"key\":%u", a->key);
        if (rc == 0) rc = claw_buf_add_fmt(b, ",\"reused\":%s,\"probe\":%s", a->reused ? "true" : "false", a->probe ? "true" : "false");
        if (rc == 0) rc = add_ms(b, "start_ms", a->start_us);
        if (rc == 0 && a->ttfb_us) rc = add_ms(b, "ttfb_ms", a->ttfb_us > a->start_us ? a->ttfb_us - a->start_us : 0);
        if (rc == 0 && a->end_us) rc = add_ms(b, "ms", a->end_us > a->start_us ? a->end_us - a->start_us : 0);
        if (rc == 0) rc = claw_buf_add_z(b, "}");
    }
    if (rc == 0) rc = claw_buf_add_z(b, "]");
    return rc == 0 && e->attempts > e->attempts_n ? claw_buf_add_fmt(b, ",\"attempts_left_out\":%u", e->attempts - e->attempts_n) : rc;
}

static int add_outcome(struct claw_buf *b, const struct entry *e)
{
    static const char *const caches[] = {"bypass", "miss", "hit", "coalesced"};
    int rc = claw_buf_add_fmt(b, ",\"stream\":%s,\"translated\":%s,\"cache\":\"%s\",\"bytes_in\":%llu,\"bytes_out\":%llu,\"generation\":%llu", e->stream ? "true" : "false",
                              e->translated ? "true" : "false", caches[e->recalled], (unsigned long long)e->bytes_in, (unsigned long long)e->bytes_out,
                              (unsigned long long)e->generation);
    if (rc == 0 && e->age_s) rc = claw_buf_add_fmt(b, ",\"cache_age_s\":%u", e->age_s);
    if (rc == 0 && e->limit_wait_us) rc = add_ms(b, "limit_wait_ms", e->limit_wait_us);
    if (rc == 0 && e->ttfb_us) rc = add_ms(b, "ttfb_ms", e->ttfb_us);
    if (rc == 0 && e->input >= 0) rc = claw_buf_add_fmt(b, ",\"input_tokens\":%lld", (long long)e->input);
    if (rc == 0 && e->output >= 0) rc = claw_buf_add_fmt(b, ",\"output_tokens\":%lld", (long long)e->output);
    if (rc == 0 && e->estimated) rc = claw_buf_add_z(b, ",\"usage_estimated\":true");
    if (rc == 0 && e->cost_micros >= 0 && (rc = claw_buf_add_z(b, ",\"cost_usd\":")) == 0) rc = claw_buf_add_micros(b, e->cost_micros);
    if (rc == 0 && e->poor) rc = claw_buf_add_z(b, ",\"retry_budget\":\"exhausted\"");
    if (rc == 0) rc = add_text(b, e, "answered_by", e->answered_by);
    if (rc == 0 && e->error) rc = claw_buf_add_fmt(b, ",\"error\":\"%s\"", claw_err_kind(e->error));
    if (rc == 0) rc = add_text(b, e, "error_code", e->error_code);
    if (rc == 0) rc = add_text(b, e, "error_message", e->error_text);
    return rc == 0 ? add_text(b, e, "upstream_error", e->upstream_error) : rc;
}

/* `live`: it is under way; what is known only at the end is left out. */
static int write_entry(struct claw_buf *b, const struct entry *e, bool live)
{
    int rc = claw_buf_add_fmt(b, "{\"id\":\"%s\",\"%s\":%llu.%06llu", e->id, live ? "now" : "at", (unsigned long long)e->at_us / 1000000u,
                              (unsigned long long)e->at_us % 1000000u);
    if (rc == 0 && *e->trace) rc = claw_buf_add_fmt(b, ",\"trace_id\":\"%s\"", e->trace);
    if (rc == 0) rc = add_text(b, e, "client", e->client);
    if (rc == 0) rc = add_text(b, e, "ip", e->ip);
    if (rc == 0) rc = add_text(b, e, "method", e->method);
    if (rc == 0) rc = add_text(b, e, "path", e->path);
    if (rc == 0 && e->dialect) rc = claw_buf_add_fmt(b, ",\"dialect\":\"%s\"", claw_dialect_name((enum claw_dialect)e->dialect));
    if (rc == 0) rc = add_text(b, e, "route", e->route);
    if (rc == 0) rc = add_text(b, e, "strategy", e->strategy);
    if (rc == 0) rc = add_text(b, e, "upstream", e->upstream);
    if (rc == 0) rc = add_text(b, e, "model", e->model);
    if (rc == 0) rc = add_text(b, e, "sent_model", e->sent_model);
    if (rc == 0 && live) rc = claw_buf_add_fmt(b, ",\"step\":\"%s\"", claw_step_row((enum claw_step)e->step)->name);
    if (rc == 0 && live && e->stream_state) rc = claw_buf_add_fmt(b, ",\"stream_state\":\"%s\"", e->stream_state);
    if (rc == 0 && !live) rc = claw_buf_add_fmt(b, ",\"status\":%d,\"overhead_us\":%u", e->status, e->overhead_us);
    if (rc == 0) rc = add_ms(b, "duration_ms", e->end_us);
    if (rc == 0) rc = add_outcome(b, e);
    if (rc == 0) rc = add_candidates(b, e);
    if (rc == 0) rc = add_attempts(b, e);
    return rc == 0 ? claw_buf_add_z(b, "}") : rc;
}

int claw_recent_write_live(const struct claw_req *req, struct claw_buf *out)
{
    struct entry *e = malloc(sizeof *e);
    if (!e) return CLAW_ENOMEM;
    fill(e, req);
    e->end_us = claw_req_elapsed_us(req);
    if (req->step == CLAW_STEP_LIMIT) e->limit_wait_us = e->end_us - req->limit_from_us;
    int rc = write_entry(out, e, true);
    free(e);
    return rc;
}

/* ---- finding --------------------------------------------------------------------------------------------------------------- */

static bool fits(struct claw_str wanted, const struct entry *e, struct piece p) { return wanted.len == 0 || claw_str_eq(wanted, text_of(e, p)); }

static bool selects(const struct claw_recent_filter *f, const struct entry *e)
{
    if (e->at_us <= f->since_us) return false;
    if (f->status && f->status != e->status && (f->status >= 10 || f->status != e->status / 100)) return false;
    if (f->failed && !e->error && e->status < 400) return false;
    return fits(f->route, e, e->route) && fits(f->upstream, e, e->upstream) && fits(f->model, e, e->model) &&
           (fits(f->client, e, e->client) || (!e->has_caller && fits(f->client, e, e->ip)));
}

/* Copies of what is selected of one ring, behind the *n that are there. */
static int gather(struct claw_recent *r, const struct claw_recent_filter *f, struct entry **all, size_t *n, size_t *cap)
{
    size_t until = f->most ? *n + f->most : SIZE_MAX; /* older ones of this ring are not among the newest of all */
    pthread_mutex_lock(&r->lock);
    uint64_t i = r->n;
    pthread_mutex_unlock(&r->lock);
    while (*n < until) {
        if (*n == *cap) {
            size_t more = *cap ? *cap * 2 : 256;
            struct entry *grown = realloc(*all, more * sizeof *grown);
            if (!grown) return CLAW_ENOMEM;
            *all = grown;
            *cap = more;
        }
        pthread_mutex_lock(&r->lock);
        bool there = i && i + r->keeps > r->n; /* it may have been written over since, or the ring changed */
        const struct entry *e = there ? &r->entries[--i % r->keeps] : NULL;
        bool old = there && e->at_us <= f->since_us;
        if (there && selects(f, e)) (*all)[(*n)++] = *e;
        pthread_mutex_unlock(&r->lock);
        if (!there || old) break;
    }
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;
    return ((*x)->at_us < (*y)->at_us) - ((*x)->at_us > (*y)->at_us);
}

int claw_recent_write(struct claw_recent *const *rings, unsigned n, const struct claw_recent_filter *f, struct claw_buf *out)
{
    struct entry *all = NULL;
    const struct entry **sorted = NULL;
    size_t found = 0, cap = 0;
    int rc = claw_buf_add_z(out, "[");
    for (unsigned i = 0; i < n && rc == 0; i++) rc = gather(rings[i], f, &all, &found, &cap);
    if (rc == 0 && found && !(sorted = malloc(found * sizeof *sorted))) rc = CLAW_ENOMEM;
    for (size_t i = 0; i < found && sorted; i++) sorted[i] = &all[i];
    if (sorted) qsort(sorted, found, sizeof *sorted, newest_first);
    if (f->most && found > f->most) found = f->most;
    for (size_t i = 0; i < found && rc == 0; i++) {
        if (i) rc = claw_buf_add_z(out, ",\n");
        if (rc == 0) rc = write_entry(out, sorted[i], false);
    }
    free(sorted);
    free(all);
    return rc == 0 ? claw_buf_add_z(out, "]") : rc;
}
