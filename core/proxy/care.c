#include "proxy/care.h"

#include "proxy/account.h"
#include "proxy/pipeline.h"
#include "proxy/sync.h"
#include "proxy/token.h"
#include "proxy/upload.h"
#include "proxy/webhook.h"

#include <pthread.h>
#include <stdio.h>

#define LEASE_MS 2000u      /* of a model's or key's probe: nobody says how it ended, if it is not by its breaker */
#define SILENT_MS 1000u     /* no head by then says something of the upstream, whatever ended the attempt */
#define SOON 1u             /* on its way back: before any that is open */
#define LOOK_BYTES 2048u    /* of an error's body */

/* Keys and models are asked less of than upstreams: no ratio. */
static const struct claw_breaker_rules few = {.failures = 3};

struct claw_window claw_care_traffic;
static pthread_mutex_t spending = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_of(const struct claw_req *r) { return claw_loop_now_ms(r->ctx->loop); }

static const struct claw_generation_upstream *upstream_of(const struct claw_req *r, unsigned candidate)
{
    return &r->gen->gen->upstreams[r->candidates[candidate].upstream];
}

static struct claw_str model_of(const struct claw_req *r, unsigned candidate)
{
    return r->candidates[candidate].model.len ? r->candidates[candidate].model : r->model;
}

/* ---- the budget ------------------------------------------------------------------------------------------------------ */

void claw_care_forget(void) { claw_window_clear(&claw_care_traffic); }

bool claw_care_spend(struct claw_req *r)
{
    double part = r->route >= 0 ? claw_req_conf(r)->routes[r->route].retry_budget : 0.2;
    uint64_t now = now_of(r);
    pthread_mutex_lock(&spending);
    struct claw_window_sum s = claw_window_sum(&claw_care_traffic, CLAW_CARE_SHIFT, 10, now);
    double most = part * s.total > CLAW_CARE_FLOOR ? part * s.total : CLAW_CARE_FLOOR;
    bool may = part > 0 && s.failed + 1 <= most;
    if (may) claw_window_add(&claw_care_traffic, CLAW_CARE_SHIFT, now, CLAW_WINDOW_FAILED);
    pthread_mutex_unlock(&spending);
    if (may) return true;
    struct claw_str route = claw_req_route_id(r);
    r->poor = true;
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_RETRIES_DENIED, 1, 1, &route);
    return false;
}

/* ---- who is set aside ------------------------------------------------------------------------------------------------ */

static bool serves(const struct claw_conf_key *k, struct claw_str model)
{
    for (size_t i = 0; i < k->models_n; i++)
        if (claw_str_glob(k->models[i], model)) return true;
    return k->models_n == 0;
}

/* Does any key say that it serves the model? If none does, all of them are tried. */
static bool anyone_serves(const struct claw_generation_upstream *up, struct claw_str model)
{
    for (size_t k = 0; k < up->keys_n; k++)
        if (serves(&up->conf->api_keys[k], model)) return true;
    return false;
}

/* When the soonest of its keys may be sent. */
static uint64_t keys_ready(const struct claw_generation_upstream *up, struct claw_str model, uint64_t now)
{
    uint64_t soonest = up->keys_n ? CLAW_BREAKER_NEVER : 0;
    bool listed = up->keys_n > 1 && anyone_serves(up, model);
    for (size_t k = 0; k < up->keys_n && soonest; k++) {
        if (listed && !serves(&up->conf->api_keys[k], model)) continue;
        uint64_t ready = claw_breaker_ready_ms(&up->keys[k]->breaker, now);
        if (ready < soonest) soonest = ready;
    }
    return soonest;
}

/* When the candidate may be asked, as claw_breaker_ready_ms says it; SOON: it may, but it is spared for now. */
static uint64_t ready_of(struct claw_req *r, unsigned i, uint64_t now)
{
    const struct claw_generation_upstream *up = upstream_of(r, i);
    if (!up->conf->cooling.on && !atomic_load_explicit(&up->cooling->breaker.held, memory_order_relaxed)) return 0;
    uint64_t keys = keys_ready(up, model_of(r, i), now);
    uint64_t ready = claw_breaker_ready_ms(&up->cooling->breaker, now);
    struct claw_breaker *model = claw_cooling_model(up->cooling, model_of(r, i), false);
    uint64_t of_model = model ? claw_breaker_ready_ms(model, now) : 0;
    if (keys > ready) ready = keys;
    if (of_model > ready) ready = of_model;
    if (ready) return ready;
    unsigned share = claw_breaker_share(&up->cooling->breaker, now);
    return share < 1000 && (r->serial * 2654435761u >> 8) % 1000 >= share ? SOON : 0;
}

static void order(struct claw_req *r, unsigned from)
{
    uint64_t ready[CLAW_CANDIDATES_MAX], now = now_of(r);
    for (unsigned i = from; i < r->candidates_n; i++) {
        struct claw_candidate c = r->candidates[i];
        uint64_t mine = ready_of(r, i, now);
        c.aside = mine != 0;
        unsigned at = i;
        for (; at > from && ready[at - 1] > mine; at--) {
            ready[at] = ready[at - 1];
            r->candidates[at] = r->candidates[at - 1];
        }
        ready[at] = mine;
        r->candidates[at] = c;
    }
}

static bool is_half_open(const struct claw_breaker *b, uint64_t now) { return claw_breaker_state(b, now) == CLAW_BREAKER_HALF_OPEN; }

void claw_care_set_aside(struct claw_req *r, unsigned from)
{
    uint64_t now = now_of(r);
    claw_care_let_go(r);
    if (!r->as_is) order(r, from);
    if (from >= r->candidates_n) return;
    const struct claw_generation_upstream *up = upstream_of(r, from);
    struct claw_breaker *model = claw_cooling_model(up->cooling, model_of(r, from), false);
    if (model && is_half_open(model, now)) claw_breaker_claim(model, now, LEASE_MS);
    r->claimed = is_half_open(&up->cooling->breaker, now) && claw_breaker_claim(&up->cooling->breaker, now, CLAW_BREAKER_PROBE_MS);
}

void claw_care_release(struct claw_req *r)
{
    claw_breaker_release(&upstream_of(r, r->candidate)->cooling->breaker);
    r->claimed = false;
}

/* ---- keys ------------------------------------------------------------------------------------------------------------ */

static bool failed_here(const struct claw_req *r, uint16_t upstream, size_t key)
{
    for (unsigned i = 0; i < r->attempts_n && i < CLAW_ATTEMPTS_MAX; i++) {
        const struct claw_attempt *a = &r->attempts[i];
        if (a->upstream == upstream && a->key == key && (a->status == 429 || a->status == 401 || a->status == 403 || a->status == 402)) return true;
    }
    return false;
}

/* 0: it may be sent now. */
static uint64_t key_ready(const struct claw_req *r, size_t key, bool listed, uint64_t now)
{
    const struct claw_generation_upstream *up = upstream_of(r, r->candidate);
    if (listed && !serves(&up->conf->api_keys[key], model_of(r, r->candidate))) return CLAW_BREAKER_NEVER;
    uint64_t ready = claw_breaker_ready_ms(&up->keys[key]->breaker, now);
    return !ready && failed_here(r, r->candidates[r->candidate].upstream, key) ? SOON : ready;
}

uint16_t claw_care_pick_key(struct claw_req *r)
{
    uint16_t upstream = r->candidates[r->candidate].upstream;
    const struct claw_generation_upstream *up = upstream_of(r, r->candidate);
    uint64_t now = now_of(r), soonest = CLAW_BREAKER_NEVER;
    bool listed = anyone_serves(up, model_of(r, r->candidate));
    double *turns = r->gen->turns[upstream], sum = 0;
    size_t best = SIZE_MAX, other = SIZE_MAX;
    for (size_t k = 0; k < up->keys_n; k++) {
        uint64_t ready = key_ready(r, k, listed, now);
        if (ready) {
            if (ready < soonest || other == SIZE_MAX) other = k, soonest = ready;
            continue;
        }
        sum += up->conf->api_keys[k].weight;
        turns[k] += up->conf->api_keys[k].weight;
        if (best == SIZE_MAX || turns[k] > turns[best]) best = k;
    }
    if (best == SIZE_MAX) return (uint16_t)other;
    turns[best] -= sum;
    claw_breaker_claim(&up->keys[best]->breaker, now, LEASE_MS);
    return (uint16_t)best;
}

unsigned claw_care_other_keys(const struct claw_req *r)
{
    const struct claw_generation_upstream *up = upstream_of(r, r->candidate);
    if (up->asks_token) return r->attempts[r->attempt].renews;
    uint64_t now = now_of(r);
    unsigned n = 0;
    if (up->keys_n < 2) return 0;
    bool listed = anyone_serves(up, model_of(r, r->candidate));
    for (size_t k = 0; k < up->keys_n; k++) n += key_ready(r, k, listed, now) == 0;
    return n;
}

/* ---- what an attempt tells ------------------------------------------------------------------------------------------- */

struct told {
    struct claw_req *r;
    struct claw_attempt *a;
    const struct claw_generation_upstream *up;
    struct claw_breaker_failure f;
};

static struct told tell(struct claw_req *r, struct claw_attempt *a)
{
    uint32_t elapsed = claw_req_elapsed_us(r);
    uint64_t now = now_of(r), took = (elapsed - a->start_us) / 1000;
    return (struct told){.r = r, .a = a, .up = claw_req_upstream(r), .f = {.now_ms = now, .began_ms = now > took ? now - took : 0}};
}

/* Other instances name a key by another name than people do. */
static void tell_others(const struct told *t, const char *what, struct claw_str which, uint64_t until)
{
    bool key = *what == CLAW_SYNC_KEY;
    struct claw_str name = key ? claw_str_of(t->up->keys[t->a->key]->id) : *what == CLAW_SYNC_MODEL ? which : CLAW_STR("");
    bool retired = until == CLAW_BREAKER_NEVER;
    claw_sync_tell((enum claw_sync_what)*what, t->up->conf->name, name, retired ? CLAW_SYNC_RETIRED : CLAW_SYNC_COOLED,
                   retired || until < t->f.now_ms ? 0 : until - t->f.now_ms);
}

static void say_opened(const struct told *t, const char *what, struct claw_str which, const struct claw_breaker *b)
{
    uint64_t until = atomic_load_explicit(&b->until_ms, memory_order_relaxed);
    struct claw_str labels[3] = {t->up->conf->name, claw_str_of(what), claw_str_of(t->f.why)};
    char name[100], of[100], ms[24];
    claw_metrics_add(t->r->ctx->metrics, CLAW_METRIC_BREAKER_OPENED, 1, 3, labels);
    snprintf(name, sizeof name, "%.*s", (int)(labels[0].len < 99 ? labels[0].len : 99), labels[0].ptr);
    snprintf(of, sizeof of, "%.*s", (int)(which.len < 99 ? which.len : 99), which.ptr ? which.ptr : "");
    snprintf(ms, sizeof ms, "%llu", until == CLAW_BREAKER_NEVER || until < t->f.now_ms ? 0ull : (unsigned long long)(until - t->f.now_ms));
    bool retired = until == CLAW_BREAKER_NEVER, whole = strcmp(what, "upstream") == 0;
    tell_others(t, what, which, until);
    claw_log_event(CLAW_LOG_WARN, retired ? "a key is retired" : "set aside", "upstream", name, "why", t->f.why, "request_id", t->r->id,
                   retired ? what : "for_ms", retired ? of : ms, retired || whole ? NULL : what, of, NULL);
    if (retired)
        CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_KEY_RETIRED, {"upstream", labels[0]}, {"key", which}, {"why", labels[2]}, {"request_id", claw_str_of(t->r->id)});
    else
        CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_BREAKER, {"state", CLAW_STR("open")}, {"upstream", labels[0]}, {"of", labels[1]}, {"which", which}, {"why", labels[2]},
                          {"for_ms#", claw_str_of(ms)});
}

static void say_closed(const struct told *t)
{
    char name[100];
    struct claw_str upstream = t->up->conf->name;
    snprintf(name, sizeof name, "%.*s", (int)(upstream.len < 99 ? upstream.len : 99), upstream.ptr);
    claw_log_event(CLAW_LOG_INFO, "no longer set aside", "upstream", name, "request_id", t->r->id, NULL);
    CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_BREAKER, {"state", CLAW_STR("closed")}, {"upstream", upstream});
}

/* Its number and how it ends: "2 …abcd". */
static void name_key(const struct told *t, char to[24])
{
    snprintf(to, 24, "%u %s", t->a->key, t->up->keys[t->a->key]->tail);
}

static void blame_upstream(struct told *t, const char *why)
{
    const struct claw_conf_cooling *rules = &t->up->conf->cooling;
    t->f.why = why;
    claw_upstream_stats_failed(t->up->stats, claw_req_sent_model(t->r), (t->f.now_ms - t->f.began_ms) * 1000, t->f.now_ms);
    if (!rules->on) return;
    struct claw_breaker_rules of = {rules->failures, rules->percent, rules->requests};
    if (claw_breaker_fail(&t->up->cooling->breaker, &of, &t->f)) say_opened(t, "upstream", t->up->conf->name, &t->up->cooling->breaker);
}

static void blame_model(struct told *t, const char *why)
{
    struct claw_str model = claw_req_sent_model(t->r);
    if (!model.len) {
        blame_upstream(t, why);
        return;
    }
    t->f.why = why;
    struct claw_breaker *b = t->up->conf->cooling.on ? claw_cooling_model(t->up->cooling, model, true) : NULL;
    if (b && claw_breaker_fail(b, &few, &t->f)) say_opened(t, "model", model, b);
}

static bool sends_its_key(const struct told *t)
{
    if (t->a->key == CLAW_NO_KEY || !t->up->auth.len) return false;
    for (size_t i = 0; i < t->r->out_headers_n; i++)
        if (claw_str_ieq(t->r->out_headers[i].name, t->up->auth)) return false;
    for (size_t i = 0; i < t->up->conf->headers_n; i++)
        if (claw_str_ieq(t->up->conf->headers[i].name, t->up->auth)) return false;
    return true;
}

static void blame_key(struct told *t, const char *why)
{
    char name[24];
    if (t->up->keys_n < 2 || !sends_its_key(t)) {
        blame_model(t, why);
        return;
    }
    struct claw_breaker *b = &t->up->keys[t->a->key]->breaker;
    t->f.why = why;
    name_key(t, name);
    if (claw_breaker_fail(b, &few, &t->f)) say_opened(t, "key", claw_str_of(name), b);
}

static void retire_key(struct told *t, const char *why)
{
    char name[24];
    if (!sends_its_key(t)) return;
    struct claw_breaker *b = &t->up->keys[t->a->key]->breaker;
    t->f.why = why;
    name_key(t, name);
    if (!claw_breaker_cool(b, t->f.now_ms, CLAW_BREAKER_NEVER, why)) return;
    struct claw_str upstream = t->up->conf->name;
    claw_metrics_add(t->r->ctx->metrics, CLAW_METRIC_KEYS_RETIRED, 1, 1, &upstream);
    say_opened(t, "key", claw_str_of(name), b);
}

/* In any case of letters. */
static bool speaks_of(struct claw_str body, const char *word)
{
    size_t n = strlen(word), len = body.len < LOOK_BYTES ? body.len : LOOK_BYTES;
    for (size_t i = 0; i + n <= len; i++)
        if ((body.ptr[i] | 32) == word[0] && strncasecmp(body.ptr + i, word, n) == 0) return true;
    return false;
}

static bool blames_model(const struct claw_req *r, struct claw_str body)
{
    return r->dialect != CLAW_DIALECT_NONE && claw_req_sent_model(r).len && (speaks_of(body, "model") || speaks_of(body, "deployment"));
}

static void good(struct told *t)
{
    const struct claw_generation_upstream *up = t->up;
    if (claw_breaker_succeed(&up->cooling->breaker, t->f.now_ms, t->f.began_ms)) say_closed(t);
    struct claw_breaker *model = claw_cooling_model(up->cooling, claw_req_sent_model(t->r), false);
    if (model) claw_breaker_succeed(model, t->f.now_ms, t->f.began_ms);
    if (t->a->key != CLAW_NO_KEY) {
        struct claw_breaker *key = &up->keys[t->a->key]->breaker;
        if (atomic_load_explicit(&key->failures, memory_order_relaxed)) atomic_store_explicit(&key->failures, 0, memory_order_relaxed);
        if (claw_breaker_any()) claw_breaker_close(key, t->f.now_ms, t->f.began_ms);
    }
}

/* On a path that is passed on it may be for what the client asked there, and be so for every key. */
static void refuse_key(struct told *t, const char *why)
{
    if (t->r->dialect != CLAW_DIALECT_NONE) retire_key(t, why);
    else if (t->up->keys_n > 1 && sends_its_key(t)) blame_key(t, why);
}

/* Its form is not all here: an upstream that was tired of waiting is not to blame. */
static bool waits_for_client(const struct claw_req *r) { return claw_upload_streams(r) && !r->upload_done; }

/* Once a request: what the next token gives is the answer. */
static void refuse_token(struct told *t)
{
    bool again = false;
    for (const struct claw_attempt *a = t->r->attempts; a < t->a; a++) again |= a->upstream == t->a->upstream && a->renews;
    t->a->renews = !again && claw_token_refused(t->r->gen->tokens[t->a->upstream], t->f.began_ms);
}

static void judge_status(struct told *t, int status, struct claw_str body)
{
    switch (status) {
    case 401:
        if (t->up->asks_token) refuse_token(t);
        else refuse_key(t, "http_401");
        return;
    case 403:
        if (blames_model(t->r, body)) blame_model(t, "http_403");
        else refuse_key(t, "http_403");
        return;
    case 402: blame_key(t, "http_402"); return;
    case 429: blame_key(t, "rate_limited"); return;
    case 404:
        if (blames_model(t->r, body)) blame_model(t, "http_404");
        else good(t);
        return;
    case 529: blame_upstream(t, "overloaded"); return;
    case 503: blame_upstream(t, "http_503"); return;
    case 408:
        if (!waits_for_client(t->r)) blame_upstream(t, "http_408");
        return;
    default:
        if (status >= 500) blame_upstream(t, "http_5xx");
        else good(t);
    }
}

static void judge_code(struct told *t, int code, struct claw_str body)
{
    switch (code) {
    case CLAW_EDNS: case CLAW_ECONNECT: case CLAW_ECONNECT_TIMEOUT: case CLAW_ETLS: case CLAW_ETLS_VERIFY: case CLAW_EFIRST_BYTE_TIMEOUT:
    case CLAW_ESTALL: case CLAW_EBAD_RESPONSE: case CLAW_ETOKEN:
        blame_upstream(t, claw_err_kind(code));
        return;
    case CLAW_EUPSTREAM_EOF:
        if (!waits_for_client(t->r)) blame_upstream(t, claw_err_kind(code));
        return;
    case CLAW_ESTREAM_ERROR:
        if (speaks_of(body, "rate_limit")) blame_key(t, "rate_limited");
        else if (!speaks_of(body, "invalid_request")) blame_upstream(t, claw_err_kind(code));
        return;
    case CLAW_EDEADLINE:
        if (t->a->status == 0 && t->f.now_ms - t->f.began_ms >= SILENT_MS) blame_upstream(t, claw_err_kind(code));
        return;
    default: return;
    }
}

static void settle_probe(struct told *t)
{
    if (t->a->probe) claw_breaker_release(&t->up->cooling->breaker);
    t->a->probe = false;
    t->a->noted = true;
}

void claw_care_failed(struct claw_req *r, int code, int status, struct claw_str body, int64_t retry_after_ms)
{
    struct claw_attempt *a = claw_account_last(r);
    if (!a || a->noted || a->end_us) return;
    struct told t = tell(r, a);
    bool asked = retry_after_ms > 0 && (status == 429 || status == 503 || status == 529);
    t.f.asked_ms = asked ? retry_after_ms : 0;
    settle_probe(&t);
    if (code == CLAW_OK) judge_status(&t, status, body);
    else judge_code(&t, code, body);
}

void claw_care_answers(struct claw_req *r)
{
    struct claw_attempt *a = claw_account_last(r);
    struct told t = tell(r, a);
    good(&t);
    a->probe = false;
}

void claw_care_judge(struct claw_req *r, struct claw_attempt *a, int code)
{
    struct told t = tell(r, a);
    settle_probe(&t);
    if (code == CLAW_OK) good(&t);
    else judge_code(&t, code, CLAW_STR(""));
}

enum claw_breaker_state claw_care_state(const struct claw_generation_upstream *up, struct claw_str model, uint64_t now_ms, int64_t *left_ms)
{
    const struct claw_breaker *of_model = claw_cooling_model(up->cooling, model, false);
    enum claw_breaker_state state = claw_breaker_state(&up->cooling->breaker, now_ms);
    uint64_t ready = claw_breaker_ready_ms(&up->cooling->breaker, now_ms), keys = keys_ready(up, model, now_ms);
    if (of_model && claw_breaker_ready_ms(of_model, now_ms) > ready) ready = claw_breaker_ready_ms(of_model, now_ms);
    if (of_model && state == CLAW_BREAKER_CLOSED) state = claw_breaker_state(of_model, now_ms);
    if (keys > ready) ready = keys;
    *left_ms = ready == CLAW_BREAKER_NEVER ? -1 : ready > now_ms ? (int64_t)(ready - now_ms) : 0;
    return ready > now_ms ? CLAW_BREAKER_OPEN : state;
}

/* ---- for people ------------------------------------------------------------------------------------------------------ */

static size_t say(char *to, size_t room, const struct claw_breaker *b, const char *what, uint64_t now)
{
    uint64_t until = atomic_load_explicit(&b->until_ms, memory_order_relaxed);
    const char *why = atomic_load_explicit(&b->why, memory_order_relaxed);
    int n = until == CLAW_BREAKER_NEVER ? snprintf(to, room, "%s%s", what, why ? why : "failed")
                                        : snprintf(to, room, "%s%s, asked again in %.1f s", what, why ? why : "failed", until > now ? (double)(until - now) / 1000 : 0.0);
    return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

size_t claw_care_why(const struct claw_req *r, unsigned candidate, char *to, size_t room)
{
    const struct claw_generation_upstream *up = upstream_of(r, candidate);
    uint64_t now = now_of(r);
    *to = 0;
    if (claw_breaker_state(&up->cooling->breaker, now) != CLAW_BREAKER_CLOSED) return say(to, room, &up->cooling->breaker, "", now);
    struct claw_breaker *model = claw_cooling_model(up->cooling, model_of(r, candidate), false);
    if (model && claw_breaker_state(model, now) != CLAW_BREAKER_CLOSED) return say(to, room, model, "the model: ", now);
    if (keys_ready(up, model_of(r, candidate), now) == 0) return 0;
    for (size_t k = 0; k < up->keys_n; k++)
        if (claw_breaker_state(&up->keys[k]->breaker, now) != CLAW_BREAKER_CLOSED) return say(to, room, &up->keys[k]->breaker, "its keys: ", now);
    return 0;
}
