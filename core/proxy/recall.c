#include "proxy/recall.h"

#include "proxy/account.h"
#include "proxy/answer.h"
#include "proxy/care.h"
#include "proxy/cache_part.h"
#include "proxy/flight.h"
#include "proxy/frame.h"
#include "proxy/heartbeat.h"
#include "proxy/pipeline.h"
#include "proxy/recall_part.h"
#include "proxy/relay.h"
#include "proxy/transcript.h"

#define SLICES 8u
#define PIECE (64u << 10)
#define TAIL 4096u /* of a stream, where its last word stands */

struct claw_recall {
    struct claw_req *r;
    struct claw_cache_key key;
    unsigned ttl_ms;
    unsigned joined;                       /* how often a seat was taken */
    uint64_t purges;                       /* of the cache, when it began */
    struct claw_cache_ask *ask;            /* of what instances share */
    int64_t epoch;                         /* of that, when it was asked; below 0: it was not */
    bool keeps, shares, per_client, fresh; /* fresh: what is kept already will not do */
    uint64_t max_age_ms;
    bool began, stream, paused;            /* of what is sent from here */
    struct claw_buf kept;                  /* a hit's bytes */
    struct claw_str whole;                 /* what is left to send of an answer that is all here */
    bool has_whole;
    struct claw_buf made;                  /* an answer written in the other way */
    struct claw_flight_seat seat;
    int status;                            /* of the answer the request leads */
    bool streams;
    bool alone;                            /* its client left */
    bool lags;                             /* it is slower than those who listen, and fed from the flight like them */
    bool hides_usage;                      /* a client of OpenAI's streams that did not ask for it */
    bool filters;                          /* … and what is sent is a stream */
    uint32_t tail;                         /* the last four bytes that were sent; 0: none were */
    struct claw_sse sse;                   /* of that, on its way into made */
};

struct claw_str claw_recall_word(const struct claw_req *r)
{
    static const struct claw_str words[] = {{"bypass", 6}, {"miss", 4}, {"hit", 3}, {"coalesced", 9}};
    return words[r->recalled];
}

/* ---- which requests ------------------------------------------------------------------------------------------------- */

/* Dialects whose answers are kept: the last word of their streams (""; they have none), the member without which a whole one is
 * no answer, and whether one way can be written as the other. The words are those of the providers' references: OpenAI and Cohere API
 * references ("[DONE]", "response.completed", "message-end"), Anthropic "Streaming messages" (message_stop), Gemini
 * (finishReason), Ollama docs/api.md (done). */
static const struct { const char *last, *whole; bool recasts; } kinds[CLAW_DIALECT_COUNT] = {
    [CLAW_DIALECT_OPENAI_CHAT] = {"[DONE]", "choices", true},
    [CLAW_DIALECT_OPENAI_COMPLETIONS] = {"[DONE]", "choices", true},
    [CLAW_DIALECT_OPENAI_RESPONSES] = {"response.completed", "status", true},
    [CLAW_DIALECT_OPENAI_EMBEDDINGS] = {"", "data", false},
    [CLAW_DIALECT_ANTHROPIC_MESSAGES] = {"message_stop", "content", true},
    [CLAW_DIALECT_ANTHROPIC_COUNT] = {"", "input_tokens", false},
    [CLAW_DIALECT_GEMINI_GENERATE] = {"\"finishReason\"", "candidates", true},
    [CLAW_DIALECT_GEMINI_EMBED] = {"", "embedding", false},
    [CLAW_DIALECT_GEMINI_EMBED_BATCH] = {"", "embeddings", false},
    [CLAW_DIALECT_GEMINI_COUNT] = {"", "totalTokens", false},
    [CLAW_DIALECT_COHERE_CHAT] = {"message-end", "message", false},
    [CLAW_DIALECT_OLLAMA_CHAT] = {"\"done\":true", "message", false},
    [CLAW_DIALECT_OLLAMA_EMBEDDINGS] = {"", "embeddings", false},
};

static bool recasts(const struct claw_req *r) { return kinds[r->dialect].recasts && !r->array; }

static bool is_given(const struct claw_req *r, const char *key)
{
    enum claw_json_type t = claw_json_top_get(&r->json, claw_str_of(key)).type;
    return t != CLAW_JSON_NONE && t != CLAW_JSON_NULL && t != CLAW_JSON_FALSE;
}

static bool may_recall(const struct claw_req *r)
{
    if (!kinds[r->dialect].last || !r->has_json || r->json.root.type != CLAW_JSON_OBJECT || r->json.nodes > CLAW_RECALL_NODES || claw_buf_size(&r->body) > CLAW_RECALL_BYTES)
        return false;
    return claw_str_eqz(r->head->method, "POST") && !is_given(r, "conversation") && !is_given(r, "background");
}

/* ---- what the request says of caching ------------------------------------------------------------------------------------ */

static bool begins(struct claw_str s, const char *with)
{
    size_t n = strlen(with);
    return s.len >= n && strncasecmp(s.ptr, with, n) == 0;
}

static struct claw_str next_word(struct claw_str *list)
{
    const char *at = list->ptr, *end = at + list->len;
    while (at < end && (*at == ' ' || *at == ',' || *at == '\t')) at++;
    const char *from = at;
    while (at < end && *at != ',') at++;
    *list = (struct claw_str){at, (size_t)(end - at)};
    while (at > from && (at[-1] == ' ' || at[-1] == '\t')) at--;
    return (struct claw_str){from, (size_t)(at - from)};
}

/* Cache-Control of a request (RFC 9111 5.2.1). False: no-store. */
static bool read_control(struct claw_recall *y)
{
    const struct claw_head *h = y->r->head;
    for (size_t i = 0; i < h->n; i++) {
        if (!claw_str_ieq(h->headers[i].name, CLAW_STR("cache-control"))) continue;
        struct claw_str list = h->headers[i].value, word;
        while ((word = next_word(&list)).len) {
            uint64_t s;
            if (claw_str_ieq(word, CLAW_STR("no-store"))) return false;
            if (claw_str_ieq(word, CLAW_STR("no-cache"))) y->fresh = true;
            if (begins(word, "max-age=") && claw_str_u64((struct claw_str){word.ptr + 8, word.len - 8}, 86400 * 366, &s) == 0) y->max_age_ms = s * 1000;
        }
    }
    return true;
}

/* ---- sending ----------------------------------------------------------------------------------------------------------------- */

static int begin_answer(struct claw_recall *y, int status, struct claw_str type, struct claw_str dropped, int64_t length)
{
    struct claw_req *r = y->r;
    struct claw_str head;
    claw_account_settle(r);
    r->cost_micros = 0; /* whatever a price a request says: no upstream was asked */
    r->dropped = dropped;
    int rc = claw_answer_head(r, status, NULL, type, &head);
    r->dropped = CLAW_STR("");
    if (rc == 0 && r->early && !y->stream) rc = CLAW_EBAD_RESPONSE; /* the client was promised one */
    if (rc != 0) return rc;
    r->status = status;
    y->began = true;
    if (!r->early) claw_conn_reply(r->conn, status, head, length);
    return 0;
}

static int on_filtered(void *arg, const struct claw_sse_event *ev)
{
    struct claw_recall *y = arg;
    return ev->has_data && claw_usage_only(ev->raw) ? 0 : claw_buf_add_str(&y->made, ev->raw);
}

/* Into made, without the chunk that was not asked for. `last`: what is left of an event that never ended goes too. */
static int filter(struct claw_recall *y, const uv_buf_t *bytes, unsigned n, bool last)
{
    const struct claw_sse_sink sink = {on_filtered, NULL, y};
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) rc = claw_sse_feed(&y->sse, bytes[i].base, bytes[i].len, &sink);
    return rc == 0 && last ? claw_buf_add_str(&y->made, claw_sse_rest(&y->sse)) : rc;
}

static void filter_from_here(struct claw_recall *y)
{
    y->filters = true;
    claw_sse_init(&y->sse, claw_req_conf(y->r)->server.max_body_bytes);
    claw_buf_clear(&y->made);
}

static bool is_broken(const struct claw_recall *y) { return claw_flight_look(&y->seat).state == CLAW_FLIGHT_BROKEN; }

static unsigned next_piece(struct claw_recall *y, uv_buf_t *to, bool *end)
{
    if (!y->has_whole) {
        bool whole = claw_flight_look(&y->seat).state == CLAW_FLIGHT_WHOLE;
        unsigned n = claw_flight_read(&y->seat, to, SLICES);
        *end = whole && n < SLICES;
        if (!y->filters) return n;
        claw_buf_clear(&y->made); /* what was sent of it is the connection's */
        if (filter(y, to, n, *end) != 0) *end = false;
        struct claw_str s = claw_buf_str(&y->made);
        *to = uv_buf_init((char *)s.ptr, (unsigned)s.len);
        return s.len > 0 ? 1 : *end || n == 0 ? 0 : next_piece(y, to, end);
    }
    size_t n = y->whole.len < PIECE ? y->whole.len : PIECE;
    *to = uv_buf_init((char *)y->whole.ptr, (unsigned)n);
    y->whole = (struct claw_str){y->whole.ptr + n, y->whole.len - n};
    *end = y->whole.len == 0;
    return n > 0;
}

static void note_tail(struct claw_recall *y, const uv_buf_t *sent, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        for (size_t at = sent[i].len > 4 ? sent[i].len - 4 : 0; at < sent[i].len; at++) y->tail = y->tail << 8 | (uint8_t)sent[i].base[at];
}

bool claw_recall_between(const struct claw_req *r)
{
    const struct claw_recall *y = r->recall;
    if (!y || !y->began) return true;
    uint32_t two = y->tail & 0xffff;
    return y->stream && !y->paused && !y->has_whole && (y->tail == 0 || two == 0x0a0a || two == 0x0d0d || (y->tail & 0xffffff) == 0x0a0d0a);
}

/* As much as the client takes. */
static void send_on(struct claw_recall *y)
{
    struct claw_req *r = y->r;
    for (;;) {
        uv_buf_t out[SLICES];
        bool end;
        unsigned n = next_piece(y, out, &end);
        if (n == 0 && !end && r->commit == CLAW_COMMITTED) {
            if (y->lags && !is_broken(y)) y->lags = y->filters = false; /* a leader's client that has all there is: the relay sends the rest */
            return;
        }
        for (unsigned i = 0; i < n; i++) r->bytes_out += out[i].len;
        if (r->transcript) claw_transcript_said(r, out, n);
        r->commit = CLAW_COMMITTED;
        note_tail(y, out, n);
        r->sent_ms = claw_loop_now_ms(r->ctx->loop);
        int rc = claw_conn_send(r->conn, out, n, end);
        if (end) {
            r->commit = CLAW_DONE;
            r->conn = NULL;
            y->lags = false;
            claw_pipeline_answered(r);
            return;
        }
        if (rc == CLAW_ECLIENT_GONE) return; /* on_gone follows */
        if (rc == CLAW_EAGAIN) {
            y->paused = true;
            return;
        }
        if (n == 0) return; /* the head alone */
    }
}

static struct claw_str stream_type(const struct claw_recall *y) { return y->r->stream ? CLAW_STR("text/event-stream") : CLAW_STR("application/json"); }

/* All of an answer is here: in the way it is wanted, or written so. */
static int send_whole(struct claw_recall *y, int status, struct claw_str type, struct claw_str dropped, struct claw_str body, bool stream)
{
    struct claw_req *r = y->r;
    struct claw_policy_error err;
    if (stream != r->stream && recasts(r)) {
        int rc = r->gen->ops->recast(r->gen->policy, r, body, stream, &y->made, &err);
        if (rc != 0) return rc;
        body = claw_buf_str(&y->made);
        type = stream_type(y);
    }
    if (stream && r->stream && y->hides_usage) {
        uv_buf_t all = uv_buf_init((char *)body.ptr, (unsigned)body.len);
        filter_from_here(y);
        int rc = filter(y, &all, 1, true);
        if (rc != 0) return rc;
        body = claw_buf_str(&y->made);
    }
    y->stream = r->stream;
    int rc = begin_answer(y, status, type, dropped, r->stream ? -1 : (int64_t)body.len);
    if (rc != 0) return rc;
    y->whole = body;
    y->has_whole = true;
    send_on(y);
    return CLAW_EAGAIN;
}

static void count(const struct claw_req *r, enum claw_metric m)
{
    struct claw_str route = claw_req_route_id(r);
    claw_metrics_add(r->ctx->metrics, m, 1, 1, &route);
}

/* 0: there is none. */
static int answer_kept(struct claw_recall *y, bool again)
{
    struct claw_req *r = y->r;
    uint64_t now = claw_loop_now_ms(r->ctx->loop);
    struct claw_cache *c = r->gen->gen->cache;
    struct claw_cache_answer a;
    if (!(again ? claw_cache_get_again(c, &y->key, now, &a, &y->kept) : claw_cache_get(c, &y->key, now, &a, &y->kept))) return 0;
    uint64_t age = now > a.made_ms ? now - a.made_ms : 0;
    if (age > y->max_age_ms) return 0;
    r->recalled = CLAW_RECALL_HIT;
    r->age_s = (uint32_t)(age / 1000);
    claw_care_let_go(r);
    int rc = send_whole(y, 200, a.type, a.dropped, a.body, a.stream);
    if (rc == CLAW_EAGAIN) {
        count(r, CLAW_METRIC_CACHE_HITS);
        return rc;
    }
    r->recalled = CLAW_RECALL_BYPASS; /* it cannot be written in that way: asked anew */
    return rc == CLAW_EREQ_MEM ? rc : 0;
}

/* ---- listening --------------------------------------------------------------------------------------------------------------- */

static int lead(struct claw_recall *y)
{
    struct claw_req *r = y->r;
    r->recalled = y->fresh ? CLAW_RECALL_BYPASS : CLAW_RECALL_MISS;
    if (y->keeps && !y->fresh) count(r, CLAW_METRIC_CACHE_MISSES);
    return 0;
}

/* By itself, and nobody with it. */
static int go_alone(struct claw_recall *y)
{
    claw_flight_leave(&y->seat);
    y->keeps = false;
    claw_care_arrange(y->r, 0);
    return lead(y);
}

static int take_seat(struct claw_recall *y);

/* It broke before anything of it was sent here: once more, with those who wait too. */
static int join_again(struct claw_recall *y)
{
    claw_flight_leave(&y->seat);
    return take_seat(y);
}

static int listen_on(struct claw_recall *y)
{
    struct claw_req *r = y->r;
    struct claw_flight_view v = claw_flight_look(&y->seat);
    bool other = v.state != CLAW_FLIGHT_WAITS && v.status == 200 && v.stream != r->stream && recasts(r);
    switch (v.state) {
    case CLAW_FLIGHT_WAITS: return CLAW_EAGAIN;
    case CLAW_FLIGHT_DISBANDED: return go_alone(y);
    case CLAW_FLIGHT_FAILED:
        if (claw_flight_take_lead(&y->seat)) {
            claw_care_arrange(r, 0);
            return lead(y);
        }
        return claw_flight_look(&y->seat).state == CLAW_FLIGHT_FAILED ? v.code : listen_on(y); /* another one leads meanwhile */
    case CLAW_FLIGHT_BROKEN: return y->joined < CLAW_FLIGHT_LEADERS ? join_again(y) : v.code;
    default: break;
    }
    if (other && v.state != CLAW_FLIGHT_WHOLE) return CLAW_EAGAIN;
    r->recalled = CLAW_RECALL_COALESCED;
    int rc;
    if (other) {
        struct claw_buf all;
        claw_buf_init(&all, 0);
        rc = claw_flight_gather(&y->seat, &all);
        if (rc == 0) rc = send_whole(y, v.status, v.type, v.dropped, claw_buf_str(&all), v.stream);
        claw_buf_fini(&all);
        if (rc != CLAW_EAGAIN) return go_alone(y);
    } else {
        y->stream = v.stream;
        if (v.stream && y->hides_usage) filter_from_here(y);
        rc = begin_answer(y, v.status, v.type, v.dropped, v.state == CLAW_FLIGHT_WHOLE && !v.stream ? (int64_t)v.bytes : -1);
        if (rc != 0) return rc;
        send_on(y);
    }
    count(r, CLAW_METRIC_COALESCED);
    return CLAW_EAGAIN;
}

static void on_news(struct claw_flight_seat *s)
{
    struct claw_recall *y = s->arg;
    struct claw_req *r = y->r;
    if (r->finished || r->step >= CLAW_STEP_ACCOUNT) return;
    if (s->leads) {
        if (y->lags && is_broken(y)) claw_pipeline_fail(r, CLAW_EBAD_RESPONSE, CLAW_STR("the answer is too large to be held for a client that is so slow"));
        else if (y->alone && !claw_flight_heard(s)) claw_pipeline_fail(r, CLAW_ECLIENT_GONE, CLAW_STR(""));
        else if (r->conn && claw_relay_paused(r) && claw_recall_stall(r)) claw_relay_drained(r);
    } else if (!y->began) {
        claw_pipeline_resume(r);
    } else if (!y->has_whole) {
        struct claw_flight_view v = claw_flight_look(s);
        if (!y->paused && r->conn) send_on(y);
        if (v.state == CLAW_FLIGHT_BROKEN && r->step < CLAW_STEP_ACCOUNT) claw_pipeline_fail(r, v.code, claw_str_of(claw_err_text(v.code)));
    }
}

/* ---- the step ------------------------------------------------------------------------------------------------------------------ */

static void buffers_fini(void *arg)
{
    struct claw_recall *y = arg;
    claw_buf_fini(&y->kept);
    claw_buf_fini(&y->made);
    claw_sse_fini(&y->sse);
}

static bool asks_usage(const struct claw_req *r)
{
    struct claw_json_value options = claw_json_top_get(&r->json, CLAW_STR("stream_options"));
    return claw_json_get(options, CLAW_STR("include_usage")).type == CLAW_JSON_TRUE;
}

static int recall_of(struct claw_req *r, const struct claw_conf_cache *c, struct claw_recall **out)
{
    struct claw_recall *y = claw_arena_zalloc(&r->arena, sizeof *y);
    if (!y) return CLAW_EREQ_MEM;
    y->r = r;
    y->keeps = c->on && r->gen->gen->cache;
    y->shares = c->coalesce;
    y->per_client = c->per_client;
    y->ttl_ms = c->ttl_ms;
    y->max_age_ms = UINT64_MAX;
    y->epoch = -1;
    y->hides_usage = (r->dialect == CLAW_DIALECT_OPENAI_CHAT || r->dialect == CLAW_DIALECT_OPENAI_COMPLETIONS) && !asks_usage(r);
    y->seat.on_news = on_news;
    y->seat.arg = y;
    *out = y;
    return claw_arena_defer(&r->arena, buffers_fini, y);
}

/* Does one of caching.strategies say that this request is one? */
static int ask_strategies(struct claw_recall *y, bool *wanted)
{
    struct claw_req *r = y->r;
    const struct claw_conf *conf = claw_req_conf(r);
    struct claw_policy_error err;
    unsigned which = 0;
    *wanted = true;
    if (conf->caching.strategies_n == 0) return 0;
    int rc = r->gen->ops->caches(r->gen->policy, r, &which, &err);
    *wanted = which > 0;
    if (rc == 0 && which && conf->caching.strategies_ttl_ms[which - 1]) y->ttl_ms = conf->caching.strategies_ttl_ms[which - 1];
    return rc;
}

static int begin(struct claw_req *r)
{
    const struct claw_conf *conf = claw_req_conf(r);
    const struct claw_conf_cache *c = &conf->routes[r->route].cache;
    struct claw_recall *y;
    bool wanted;
    if ((!c->on && !c->coalesce) || !may_recall(r)) return 0;
    int rc = recall_of(r, c, &y);
    if (rc != 0) return rc;
    if (!read_control(y)) return 0;
    rc = ask_strategies(y, &wanted);
    if (rc != 0 || !wanted) return rc == CLAW_EREQ_MEM ? rc : 0; /* logged where it failed */
    if (y->keeps) y->purges = claw_cache_purges(r->gen->gen->cache);
    rc = claw_recall_key(r, y->per_client, recasts(r), &y->key);
    if (rc != 0) return 0; /* more than can be compared */
    r->recall = y;
    if (y->keeps && !y->fresh && (rc = answer_kept(y, false)) != 0) return rc;
    return take_seat(y);
}

/* Answers begun before a purge are not shared with who comes after it. */
static struct claw_cache_key flight_key(const struct claw_recall *y)
{
    struct claw_cache_key key = y->key;
    uint64_t mixed;
    memcpy(&mixed, key.bytes, sizeof mixed);
    mixed ^= y->purges * UINT64_C(0x9e3779b97f4a7c15);
    memcpy(key.bytes, &mixed, sizeof mixed);
    return key;
}

/* ---- what other instances kept ------------------------------------------------------------------------------------------------ */

static void on_told(void *arg) { claw_pipeline_resume(((struct claw_recall *)arg)->r); }

static void give_up(struct claw_req *r)
{
    claw_cache_ask_drop(r->recall->ask);
    r->recall->ask = NULL;
}

static void count_shared(const struct claw_req *r, const char *outcome)
{
    struct claw_str label = claw_str_of(outcome);
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_CACHE_SHARED, 1, 1, &label);
}

/* True: Redis is asked, the request waits. */
static bool ask_others(struct claw_recall *y)
{
    struct claw_req *r = y->r;
    if (!y->keeps || !r->ctx->state || !r->gen->gen->shares_answers) return false;
    y->ask = claw_cache_ask(r->ctx->state, &y->key, on_told, y);
    if (!y->ask) {
        count_shared(r, "unasked");
        return false;
    }
    claw_care_let_go(r);
    r->wait_cancel = give_up;
    return true;
}

/* It is kept here, too, and those who listen get it like the one who asked. */
static int answer_of_others(struct claw_recall *y, const struct claw_cache_answer *a)
{
    struct claw_req *r = y->r;
    uv_buf_t body = uv_buf_init((char *)a->body.ptr, (unsigned)a->body.len);
    uint64_t now = claw_loop_now_ms(r->ctx->loop);
    bool kept = claw_cache_put(r->gen->gen->cache, &y->key, a, y->purges);
    (void)kept; /* too large for this one's, or purged: it was asked for before */
    r->recalled = CLAW_RECALL_HIT;
    r->age_s = (uint32_t)((now - a->made_ms) / 1000);
    claw_flight_begin(&y->seat, 200, a->type, a->dropped, a->stream);
    if (claw_flight_add(&y->seat, &body, 1)) claw_flight_end(&y->seat);
    claw_flight_leave(&y->seat);
    int rc = send_whole(y, 200, a->type, a->dropped, a->body, a->stream);
    if (rc == CLAW_EAGAIN) count(r, CLAW_METRIC_CACHE_HITS);
    return rc;
}

static int told(struct claw_recall *y)
{
    struct claw_req *r = y->r;
    struct claw_cache_answer a;
    uint64_t now = claw_loop_now_ms(r->ctx->loop);
    bool found = claw_cache_ask_take(y->ask, now, &a, &y->kept, &y->epoch) && !y->fresh && now - a.made_ms <= y->max_age_ms;
    y->ask = NULL;
    count_shared(r, found ? "hit" : y->epoch < 0 ? "unasked" : "miss");
    if (found) {
        int rc = answer_of_others(y, &a);
        if (rc == CLAW_EAGAIN || rc == CLAW_EREQ_MEM) return rc;
        y->keeps = false; /* it cannot be written in that way: asked anew */
    }
    claw_care_arrange(r, 0);
    return lead(y);
}

static int take_seat(struct claw_recall *y)
{
    struct claw_req *r = y->r;
    const struct claw_conf *conf = claw_req_conf(r);
    bool shares = y->shares && !y->fresh;
    int rc;
    size_t most = shares ? conf->server.max_body_bytes : y->keeps ? claw_cache_most(r->gen->gen->cache) : 0;
    const struct claw_cache_key key = flight_key(y);
    if (most == 0 || claw_flight_join(&y->seat, r->ctx->loop, &key, shares, most) != 0) return lead(y);
    y->joined++;
    if (!y->seat.leads) {
        claw_care_let_go(r);
        claw_heartbeat_begin(r);
        return listen_on(y);
    }
    if (y->joined > 1) claw_care_arrange(r, 0);
    /* Who led before may have kept its answer in between. */
    if (y->keeps && shares && (rc = answer_kept(y, true)) != 0) return rc;
    return ask_others(y) ? CLAW_EAGAIN : lead(y);
}

int claw_recall_look(struct claw_req *r)
{
    struct claw_recall *y = r->recall;
    return !y ? begin(r) : y->ask ? told(y) : listen_on(y);
}

bool claw_recall_drained(struct claw_req *r)
{
    struct claw_recall *y = r->recall;
    if (y && y->seat.flight && y->seat.leads) claw_flight_unstall(&y->seat);
    if (!y || !(y->began || y->lags)) return false;
    y->paused = false;
    send_on(y);
    return true;
}

void claw_recall_cut(struct claw_req *r, int code, struct claw_str text)
{
    struct claw_recall *y = r->recall;
    if (!y || !(r->early || (y->began && y->stream)) || r->array || kinds[r->dialect].last[0] == 0) return;
    struct claw_buf json, event;
    struct claw_str type;
    struct claw_envelope e = claw_answer_envelope_of(r, claw_err_status(code), text, claw_err_type(code), claw_err_kind(code));
    claw_buf_init(&json, 0);
    claw_buf_init(&event, 0);
    int rc = claw_envelope_write_event(&json, &e, &type);
    if (rc == 0) rc = claw_frame_write(r, &event, type, claw_buf_str(&json));
    if (rc == 0) {
        uv_buf_t b = uv_buf_init((char *)claw_buf_str(&event).ptr, (unsigned)claw_buf_size(&event));
        rc = claw_conn_send(r->conn, &b, 1, false);
    }
    (void)rc; /* the connection ends anyway */
    claw_buf_fini(&json);
    claw_buf_fini(&event);
}

/* ---- leading --------------------------------------------------------------------------------------------------------------------- */

static bool leads(const struct claw_req *r) { return r->recall && r->recall->seat.flight && r->recall->seat.leads; }

void claw_recall_begin(struct claw_req *r, int status, struct claw_str type, bool stream, bool readable)
{
    if (!leads(r)) return;
    struct claw_recall *y = r->recall;
    y->status = status;
    y->streams = stream;
    if (readable) {
        claw_flight_begin(&y->seat, status, type, r->dropped, stream);
    } else {
        claw_flight_disband(&y->seat);
        claw_flight_leave(&y->seat);
    }
}

void claw_recall_note(struct claw_req *r, const uv_buf_t *bytes, unsigned n)
{
    if (!leads(r) || claw_flight_add(&r->recall->seat, bytes, n)) return;
    r->recall->keeps = false;
    if (!r->recall->lags) claw_flight_leave(&r->recall->seat);
}

bool claw_recall_hides_usage(const struct claw_req *r) { return leads(r) && r->stream && r->recall->hides_usage; }

struct ending {
    const char *last;
    struct claw_buf tmp;
    bool ends, fails;
};

/* A member that says something. */
static bool tells(const struct claw_json_top *top, const char *key)
{
    enum claw_json_type t = claw_json_top_get(top, claw_str_of(key)).type;
    return t != CLAW_JSON_NONE && t != CLAW_JSON_NULL;
}

static bool mentions(struct claw_str s, const char *word) { return claw_str_find(s, claw_str_of(word)) >= 0; }

/* Words may also stand in what the model says: what they are is read where they are found. */
static int on_kept_event(void *arg, const struct claw_sse_event *ev)
{
    struct ending *e = arg;
    struct claw_sse_fields f;
    if (!ev->has_data || (!mentions(ev->raw, "error") && !mentions(ev->raw, e->last))) return 0;
    int rc = claw_sse_parse(ev->raw, &e->tmp, &f);
    if (rc != 0) return rc;
    struct claw_arena scratch;
    struct claw_json_top top;
    struct claw_json_err err;
    claw_arena_init(&scratch, NULL, 0, CLAW_RECALL_SCRATCH);
    bool object = claw_json_scan(f.data, &scratch, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT;
    struct claw_json_value type = object ? claw_json_top_get(&top, CLAW_STR("type")) : (struct claw_json_value){{NULL, 0}, CLAW_JSON_NONE};
    e->fails |= claw_str_eqz(f.type, "error") || claw_json_text_is(type, CLAW_STR("error")) || (object && tells(&top, "error"));
    e->ends |= e->last[0] == '"' || claw_str_eqz(f.data, e->last) || claw_str_eqz(f.type, e->last) || claw_json_text_is(type, claw_str_of(e->last));
    claw_arena_reset(&scratch);
    return 0;
}

static bool is_complete_stream(struct claw_str body, const char *last)
{
    struct ending e = {.last = last};
    const struct claw_sse_sink sink = {on_kept_event, NULL, &e};
    struct claw_sse sse;
    claw_sse_init(&sse, body.len);
    claw_buf_init(&e.tmp, 0);
    bool read = *last && claw_sse_feed(&sse, body.ptr, body.len, &sink) == 0;
    claw_sse_fini(&sse);
    claw_buf_fini(&e.tmp);
    return read && e.ends && !e.fails;
}

/* Is it what its dialect calls a finished answer? */
static bool is_complete(const struct claw_recall *y, struct claw_str body)
{
    struct claw_req *r = y->r;
    struct claw_json_top top;
    struct claw_json_err err;
    const char *last = kinds[r->dialect].last;
    if (r->array || (r->dialect == CLAW_DIALECT_OLLAMA_CHAT && r->stream)) { /* quotes in what is said are escaped */
        struct claw_str tail = body.len > TAIL ? (struct claw_str){body.ptr + body.len - TAIL, TAIL} : body;
        return mentions(tail, last) && !mentions(tail, "{\"error\"");
    }
    if (y->streams) return is_complete_stream(body, last);
    struct claw_arena scratch;
    claw_arena_init(&scratch, NULL, 0, CLAW_RECALL_SCRATCH);
    bool good = claw_json_scan(body, &scratch, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT;
    good = good && !tells(&top, "error") && tells(&top, kinds[r->dialect].whole);
    if (good && r->dialect == CLAW_DIALECT_OPENAI_RESPONSES) good = claw_json_text_is(claw_json_top_get(&top, CLAW_STR("status")), CLAW_STR("completed"));
    claw_arena_reset(&scratch);
    return good;
}

static void keep(struct claw_recall *y)
{
    struct claw_req *r = y->r;
    struct claw_buf body;
    struct claw_flight_view v = claw_flight_look(&y->seat);
    uint64_t now = claw_loop_now_ms(r->ctx->loop);
    claw_buf_init(&body, 0);
    if (claw_cache_purges(r->gen->gen->cache) == y->purges && claw_flight_gather(&y->seat, &body) == 0 && is_complete(y, claw_buf_str(&body))) {
        const struct claw_cache_answer a = {claw_req_route_id(r), r->model, y->per_client && r->caller ? r->caller->name : CLAW_STR(""), v.type,
                                            v.dropped, claw_buf_str(&body), y->streams, now, now + y->ttl_ms};
        bool kept = claw_cache_put(r->gen->gen->cache, &y->key, &a, y->purges); /* else too large, or no memory, or purged */
        if (kept && r->ctx->state && claw_cache_tell(r->ctx->state, &y->key, &a, y->epoch)) count_shared(r, "kept");
    }
    claw_buf_fini(&body);
}

void claw_recall_end(struct claw_req *r)
{
    if (!leads(r) || is_broken(r->recall)) return;
    struct claw_recall *y = r->recall;
    if (y->keeps && y->status == 200) keep(y); /* before those who come now look */
    claw_flight_end(&y->seat);
    if (!y->lags) claw_flight_leave(&y->seat);
}

bool claw_recall_stall(struct claw_req *r)
{
    struct claw_recall *y = r->recall;
    if (!leads(r) || !claw_flight_stall(&y->seat)) return false;
    claw_flight_skip(&y->seat);
    y->lags = y->paused = true;
    if (y->hides_usage && y->streams) filter_from_here(y);
    return true;
}

bool claw_recall_lags(const struct claw_req *r) { return r->recall && r->recall->lags; }

bool claw_recall_flies_on(struct claw_req *r)
{
    if (!leads(r) || r->ctx->draining || r->step < CLAW_STEP_TRANSFORM) return false;
    struct claw_recall *y = r->recall;
    y->lags = false;
    if (claw_flight_look(&y->seat).state == CLAW_FLIGHT_WHOLE) return false;
    bool finishes = y->keeps && claw_req_conf(r)->routes[r->route].finishes;
    claw_flight_alone(&y->seat);
    y->alone = !finishes;
    return finishes || claw_flight_heard(&y->seat);
}

void claw_recall_leave(struct claw_req *r)
{
    struct claw_recall *y = r->recall;
    if (!y) return;
    if (leads(r) && r->error) claw_flight_fail(&y->seat, r->error);
    claw_flight_leave(&y->seat);
}
