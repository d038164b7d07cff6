#include "proxy/token.h"

#include "base/conf_expand.h"
#include "base/log.h"
#include "net/jwt.h"
#include "proxy/fetch.h"
#include "proxy/pipeline.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TOKEN_MAGIC 0x746f6b65u
#define SCOPE "https://www.googleapis.com/auth/cloud-platform"
#define GRANT "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="
#define ASSERTED_SECONDS 3600
#define EXCHANGE_MS 10000u
#define ANSWER_BYTES 65536u
#define TEXT_MAX 8192u
#define LIFE_MAX_MS 86400000u
#define EARLY_MS 300000u /* so long before the end another is got, */
#define SPARE_MS 10000u  /* and so long before it this one is not used any more */
#define REFUSED_MS 60000u /* after a 401 another is got, but not more often: the account itself may be refused */
#define BACKOFF_MS 1000u
#define BACKOFF_MAX_MS 60000u

/* A request that waits; in its arena. */
struct waiter {
    struct waiter *prev, *next;
    struct claw_req *req;
    bool done;
    int rc;
};

struct claw_token {
    uint32_t magic;
    int refs;
    bool busy, dead;
    struct claw_loop *loop;
    struct claw_arena arena; /* the account */
    struct claw_conf_account account;
    struct claw_buf text;
    struct claw_log_lent lent;
    uint64_t asked_ms, old_ms, end_ms, again_ms; /* of the loop's clock; again_ms: an exchange may begin */
    uint64_t refused_ms; /* when one was dropped for a 401; 0: none was */
    unsigned failures;
    int rc; /* of the last exchange */
    char error[256];
    struct claw_fetch *fetch;
    struct claw_deferred deferred;
    struct waiter waiters; /* a ring */
};

static struct claw_str copied(struct claw_arena *a, struct claw_str s) { return (struct claw_str){claw_arena_dup(a, s.ptr ? s.ptr : "", s.len), s.len}; }

struct claw_token *claw_token_new(const struct claw_conf_account *account, struct claw_loop *loop)
{
    struct claw_token *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->magic = TOKEN_MAGIC;
    t->refs = 1;
    t->loop = loop;
    t->waiters.prev = t->waiters.next = &t->waiters;
    claw_arena_init(&t->arena, NULL, 0, CLAW_CONF_FILE_MAX * 4);
    claw_buf_init(&t->text, TEXT_MAX);
    t->account = (struct claw_conf_account){copied(&t->arena, account->email), copied(&t->arena, account->key), copied(&t->arena, account->key_id),
                                            copied(&t->arena, account->token_uri)};
    if (t->account.email.ptr && t->account.key.ptr && t->account.key_id.ptr && t->account.token_uri.ptr) return t;
    claw_token_unref(t);
    return NULL;
}

struct claw_token *claw_token_ref(struct claw_token *t)
{
    CLAW_ASSERT(t->magic == TOKEN_MAGIC && t->refs > 0);
    t->refs++;
    return t;
}

static void destroy(struct claw_token *t)
{
    CLAW_ASSERT(t->waiters.next == &t->waiters);
    if (t->fetch) claw_fetch_free(t->fetch);
    claw_log_secret_return(&t->lent);
    claw_buf_fini(&t->text);
    claw_arena_reset(&t->arena);
    t->magic = 0;
    free(t);
}

void claw_token_unref(struct claw_token *t)
{
    CLAW_ASSERT(t->magic == TOKEN_MAGIC && t->refs > 0);
    if (--t->refs > 0) return;
    t->dead = true;
    if (!t->deferred.pending) destroy(t);
}

bool claw_token_is_of(const struct claw_token *t, const struct claw_conf_account *account)
{
    const struct claw_conf_account *a = &t->account;
    return claw_str_eq(a->email, account->email) && claw_str_eq(a->key, account->key) && claw_str_eq(a->key_id, account->key_id) &&
           claw_str_eq(a->token_uri, account->token_uri);
}

struct claw_str claw_token_text(const struct claw_token *t) { return claw_buf_str(&t->text); }

/* ---- the exchange ------------------------------------------------------------------------------------------- */

static void failed(struct claw_token *t, const char *fmt, ...) CLAW_PRINTF(2, 3);

static void failed(struct claw_token *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(t->error, sizeof t->error, fmt, args);
    va_end(args);
    uint64_t wait = BACKOFF_MS << (t->failures < 6 ? t->failures : 6);
    t->failures++;
    t->again_ms = claw_loop_now_ms(t->loop) + (wait < BACKOFF_MAX_MS ? wait : BACKOFF_MAX_MS);
    t->rc = CLAW_ETOKEN;
    char *email = strndup(t->account.email.ptr, t->account.email.len);
    claw_log_event(CLAW_LOG_WARN, "no access token", "account", email, "error", t->error, NULL);
    free(email);
}

/* What the endpoint says of its refusal is a word (RFC 6749 5.2); anything else is not shown. */
static struct claw_str word_of(const struct claw_json_top *top, struct claw_arena *a)
{
    struct claw_str s = CLAW_STR("");
    struct claw_json_value v = claw_json_top_get(top, CLAW_STR("error"));
    if (v.type != CLAW_JSON_STRING || claw_json_text(v, a, &s) != 0 || s.len > 40) return CLAW_STR("no reason given");
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= 'a' && s.ptr[i] <= 'z') || s.ptr[i] == '_')) return CLAW_STR("no reason given");
    return s;
}

static void keep(struct claw_token *t, struct claw_str text, double seconds)
{
    uint64_t life = seconds > 0 ? seconds < LIFE_MAX_MS / 1000.0 ? (uint64_t)(seconds * 1000) : LIFE_MAX_MS : 0;
    claw_log_secret_return(&t->lent);
    claw_buf_clear(&t->text);
    if (claw_buf_add_str(&t->text, text) != 0) {
        claw_buf_clear(&t->text);
        failed(t, "out of memory");
        return;
    }
    claw_log_secret_lend(&t->lent, claw_buf_str(&t->text));
    t->end_ms = t->asked_ms + life - (life / 10 < SPARE_MS ? life / 10 : SPARE_MS);
    t->old_ms = t->asked_ms + life - (life / 4 < EARLY_MS ? life / 4 : EARLY_MS);
    t->failures = 0;
    t->again_ms = 0;
    t->rc = 0;
}

static void read_answer(struct claw_token *t, struct claw_fetch *f)
{
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_str text;
    double seconds = ASSERTED_SECONDS;
    if (f->code != CLAW_OK) {
        failed(t, "the token endpoint could not be asked: %s", f->error);
        return;
    }
    claw_arena_init(&a, NULL, 0, 1 << 20);
    bool object = claw_json_scan(claw_buf_str(&f->body), &a, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT;
    struct claw_json_value v = object ? claw_json_top_get(&top, CLAW_STR("access_token")) : (struct claw_json_value){{NULL, 0}, CLAW_JSON_NONE};
    if (f->head->status != 200)
        failed(t, "the token endpoint answered with status %d (%.*s)", f->head->status, CLAW_STR_FMT(object ? word_of(&top, &a) : CLAW_STR("no JSON object")));
    else if (v.type != CLAW_JSON_STRING || claw_json_text(v, &a, &text) != 0 || !text.len || text.len > TEXT_MAX || !claw_h1_is_value(text))
        failed(t, "the token endpoint's answer has no access_token");
    else {
        if (claw_json_double(claw_json_top_get(&top, CLAW_STR("expires_in")), &seconds) != 0) seconds = ASSERTED_SECONDS;
        keep(t, text, seconds);
    }
    claw_arena_reset(&a);
}

static struct claw_req *take_done(struct claw_token *t)
{
    struct waiter *w = t->waiters.next;
    if (w == &t->waiters || !w->done) return NULL;
    struct claw_req *r = w->req;
    w->prev->next = w->next;
    w->next->prev = w->prev;
    w->prev = w->next = NULL;
    return r;
}

static void after(struct claw_deferred *d)
{
    struct claw_token *t = (struct claw_token *)((char *)d - offsetof(struct claw_token, deferred));
    struct claw_req *r;
    if (t->dead) {
        destroy(t);
        return;
    }
    claw_fetch_free(t->fetch);
    t->fetch = NULL;
    t->busy = false;
    for (struct waiter *w = t->waiters.next; w != &t->waiters; w = w->next) {
        w->done = true;
        w->rc = t->rc;
    }
    t->refs++; /* the last of them may let go of it */
    while ((r = take_done(t))) claw_pipeline_resume(r);
    claw_token_unref(t);
}

static void on_done(struct claw_fetch *f)
{
    struct claw_token *t = f->arg;
    read_answer(t, f);
    claw_loop_defer(t->loop, &t->deferred, after);
}

static int write_body(struct claw_token *t, struct claw_buf *b)
{
    int64_t now = (int64_t)time(NULL);
    struct claw_buf claims;
    claw_buf_init(&claims, 0);
    int rc = claw_buf_add_z(&claims, "{\"iss\":");
    if (rc == 0) rc = claw_buf_add_json(&claims, t->account.email);
    if (rc == 0) rc = claw_buf_add_z(&claims, ",\"scope\":\"" SCOPE "\",\"aud\":");
    if (rc == 0) rc = claw_buf_add_json(&claims, t->account.token_uri);
    if (rc == 0) rc = claw_buf_add_fmt(&claims, ",\"iat\":%lld,\"exp\":%lld}", (long long)now, (long long)now + ASSERTED_SECONDS);
    if (rc == 0) rc = claw_buf_add_z(b, GRANT);
    if (rc == 0) rc = claw_jwt_write(b, claw_buf_str(&claims), t->account.key, t->account.key_id);
    claw_buf_fini(&claims);
    return rc;
}

/* Begin an exchange, unless one is under way. CLAW_ETOKEN: t->error says why not. */
static int begin(struct claw_token *t, struct claw_fetcher *x)
{
    struct claw_conf_header type = {CLAW_STR("content-type"), CLAW_STR("application/x-www-form-urlencoded")};
    struct claw_buf body;
    const char *why = claw_err_text(CLAW_ENOMEM);
    if (t->busy) return 0;
    if (claw_loop_now_ms(t->loop) < t->again_ms) return CLAW_ETOKEN;
    if (!x) {
        failed(t, "nothing can be asked here");
        return CLAW_ETOKEN;
    }
    claw_buf_init(&body, 0);
    int rc = write_body(t, &body);
    struct claw_fetch_ask ask = {.url = t->account.token_uri, .method = CLAW_STR("POST"), .headers = &type, .headers_n = 1, .body = claw_buf_str(&body),
                                 .timeout_ms = EXCHANGE_MS, .max_body = ANSWER_BYTES, .configured = true};
    t->asked_ms = claw_loop_now_ms(t->loop);
    t->busy = true;
    if (rc == 0) rc = claw_fetch_start(x, NULL, &ask, on_done, t, &t->fetch, &why);
    claw_buf_fini(&body);
    if (rc == 0) return 0;
    t->busy = false;
    failed(t, "the token endpoint could not be asked: %s", why);
    return CLAW_ETOKEN;
}

bool claw_token_refused(struct claw_token *t, uint64_t began_ms)
{
    uint64_t now = claw_loop_now_ms(t->loop);
    if (t->asked_ms > began_ms || t->end_ms == 0) return true;
    if (t->refused_ms && now - t->refused_ms < REFUSED_MS) return false;
    t->refused_ms = now;
    t->end_ms = 0;
    return true;
}

/* ---- who asks ----------------------------------------------------------------------------------------------- */

int claw_token_ready(struct claw_token *t, struct claw_fetcher *x, const char **why)
{
    uint64_t now = claw_loop_now_ms(t->loop);
    *why = t->error;
    if (claw_buf_size(&t->text) && now < t->end_ms) {
        if (now >= t->old_ms) (void)begin(t, x); /* this one still serves */
        return 0;
    }
    if (begin(t, x) == 0) *why = "there is no access token yet";
    return CLAW_ETOKEN;
}

static void on_cancel(struct claw_req *r)
{
    struct waiter *w = r->waiting;
    if (!w->next) return;
    w->prev->next = w->next;
    w->next->prev = w->prev;
    w->prev = w->next = NULL;
}

int claw_token_await(struct claw_token *t, struct claw_req *r, const char **why)
{
    struct waiter *w = r->waiting;
    if (w) {
        *why = t->error;
        return w->rc;
    }
    if (claw_token_ready(t, r->ctx->fetcher, why) == 0) return 0;
    if (!t->busy) {
        *why = t->error;
        return CLAW_ETOKEN;
    }
    w = claw_arena_zalloc(&r->arena, sizeof *w);
    if (!w) return CLAW_EREQ_MEM;
    w->req = r;
    w->prev = t->waiters.prev;
    w->next = &t->waiters;
    w->prev->next = w->next->prev = w;
    r->waiting = w;
    r->wait_cancel = on_cancel;
    return CLAW_EAGAIN;
}
