#include "proxy/state.h"

#include "base/log.h"
#include "net/redis.h"

#include <hiredis/hiredis.h>
#include <mbedtls/md.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define FATE_MS 1000u /* how long a reply may be late and still be told */
#define FIXED 3u      /* words before keys: EVALSHA, the script, how many keys */
#define NUMBER_MAX 28u
#define SOON_MS 10000u   /* down again so soon it has to be good for longer before it is asked again ... */
#define WANTED_MAX 32u   /* ... up to so many probes */

struct claw_state {
    struct claw_loop *loop;
    struct claw_redis **list;
    struct claw_metrics_shard *metrics;
    const struct claw_conf *conf; /* NULL: nobody is asked */
    bool down;
    unsigned good, wanted;        /* probes in a row, and how many bring it up again */
    uint64_t up_ms;               /* when it last came up */
    struct claw_timer timer;      /* down: the next probe */
    struct claw_redis_call *probe;
    bool probed;                  /* it has ended */
    unsigned place;               /* counts on when another Redis is asked: what one before it did not do is no fault of this one's */
    uint64_t probe_us;
    struct claw_deferred probe_due;
    struct claw_lane wakes;
    struct claw_state_call *calls;
    void (*on_up)(void *arg);
    void *arg;
};

static _Atomic int doors, doors_down;
static _Atomic unsigned instances = 1;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char instance[CLAW_STATE_ID + 1];
static const char *const scripts[] = {claw_state_decide, claw_state_sync, claw_state_fetch, claw_state_keep};
#define SCRIPTS (sizeof scripts / sizeof *scripts)
static char hashes[SCRIPTS][41]; /* of the scripts, as Redis names them */

static char *hash_of(const char *script)
{
    size_t i = 0;
    while (scripts[i] != script) i++;
    return hashes[i];
}

static void hash_script(const char *script)
{
    unsigned char digest[20];
    int rc = mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA1), (const unsigned char *)script, strlen(script), digest);
    CLAW_ASSERT(rc == 0);
    for (unsigned i = 0; i < sizeof digest; i++) snprintf(hash_of(script) + 2 * i, 3, "%02x", digest[i]);
}

static void prepare(void)
{
    uint64_t r;
    if (getrandom(&r, sizeof r, 0) != sizeof r) r = claw_loop_clock_us() * 0x9e3779b97f4a7c15u;
    snprintf(instance, sizeof instance, "%016llx", (unsigned long long)r);
    for (size_t i = 0; i < SCRIPTS; i++) hash_script(scripts[i]);
}

const char *claw_state_instance(void)
{
    pthread_once(&once, prepare);
    return instance;
}

unsigned claw_state_instances(void) { return atomic_load_explicit(&instances, memory_order_relaxed); }
void claw_state_set_instances(unsigned n) { atomic_store(&instances, n ? n : 1); }
bool claw_state_up(void) { return atomic_load(&doors) > 0 && atomic_load(&doors_down) == 0; }

/* ---- up and down ------------------------------------------------------------------------------------------------------- */

static void count(struct claw_state *s, const char *outcome)
{
    struct claw_str label = claw_str_of(outcome);
    claw_metrics_add(s->metrics, CLAW_METRIC_STATE_CALLS, 1, 1, &label);
}

static struct claw_redis *redis_of(struct claw_state *s)
{
    return s->conf && s->conf->state.asked ? claw_redis_of(s->list, s->loop, &s->conf->redis) : NULL;
}

/* The first door of the process says it for all. */
static void go_down(struct claw_state *s, const char *why)
{
    if (s->down) return;
    s->down = true;
    s->good = 0;
    bool soon = s->up_ms && claw_loop_now_ms(s->loop) - s->up_ms < SOON_MS;
    s->wanted = !soon ? 1 : s->wanted < WANTED_MAX ? s->wanted * 2 : WANTED_MAX;
    if (atomic_fetch_add(&doors_down, 1) == 0) {
        claw_log_event(CLAW_LOG_WARN, "shared state does not answer: limits and budgets go by what this instance knows", "error", why, NULL);
        claw_log_flush(); /* control's thread does it but once a second */
    }
    claw_timer_start(s->loop, &s->timer, CLAW_STATE_PROBE_MS);
}

static void go_up(struct claw_state *s)
{
    if (!s->down) return;
    s->down = false;
    s->up_ms = claw_loop_now_ms(s->loop);
    claw_timer_stop(s->loop, &s->timer);
    if (s->on_up) s->on_up(s->arg);
    if (atomic_fetch_sub(&doors_down, 1) != 1) return;
    claw_log_event(CLAW_LOG_INFO, "shared state answers again", NULL);
    claw_log_flush();
}

static uint64_t limit_us(const struct claw_state *s) { return s->conf ? (uint64_t)s->conf->state.timeout_ms * 1000 : 0; }

static void on_probed(struct claw_deferred *d)
{
    struct claw_state *s = (struct claw_state *)((char *)d - offsetof(struct claw_state, probe_due));
    struct claw_redis_call *c = s->probe;
    if (!c || !s->probed) return;
    bool good = c->code == CLAW_OK && c->reply->type != REDIS_REPLY_ERROR && claw_loop_clock_us() - s->probe_us <= limit_us(s);
    char why[192];
    snprintf(why, sizeof why, "%s", c->code != CLAW_OK ? c->error : c->reply->type == REDIS_REPLY_ERROR ? c->reply->str : "it is slow");
    s->probe = NULL;
    claw_redis_call_free(c);
    if (!s->conf) return;
    if (!good) go_down(s, why);
    s->good = good ? s->good + 1 : 0;
    if (good && s->good >= s->wanted) go_up(s);
    else if (s->down) claw_timer_start(s->loop, &s->timer, CLAW_STATE_PROBE_MS);
}

static void on_probe_done(struct claw_redis_call *c)
{
    struct claw_state *s = c->arg;
    s->probed = true;
    claw_loop_defer(s->loop, &s->probe_due, on_probed);
}

/* A write, so that a replica, or one that has no room left, is told from what can be used. */
static void probe(struct claw_state *s)
{
    struct claw_redis *x = redis_of(s);
    struct claw_str key = CLAW_STR("");
    char text[CLAW_STATE_KEY_MAX];
    const char *why;
    bool named = x && claw_state_key(s->conf, "probe:", claw_str_of(claw_state_instance()), text, &key);
    struct claw_str words[] = {CLAW_STR("SET"), key, CLAW_STR("1"), CLAW_STR("PX"), CLAW_STR("1000")};
    s->probe_us = claw_loop_clock_us();
    s->probed = s->probed && s->probe;
    if (named && !s->probe && claw_redis_start(x, words, sizeof words / sizeof *words, FATE_MS, on_probe_done, s, &s->probe, &why) == CLAW_OK) return;
    if (s->down && s->conf) claw_timer_start(s->loop, &s->timer, CLAW_STATE_PROBE_MS);
}

static void on_timer(struct claw_timer *t) { probe(t->arg); }

/* ---- calls ------------------------------------------------------------------------------------------------------------- */

static void call_free(struct claw_state_call *c)
{
    struct claw_state *s = c->state;
    claw_timer_stop(s->loop, &c->timer);
    claw_lane_leave(s->loop, &c->turn);
    if (c->prev) c->prev->next = c->next;
    else if (s->calls == c) s->calls = c->next;
    if (c->next) c->next->prev = c->prev;
    if (c->redis) claw_redis_call_free(c->redis);
    free(c->text);
    free(c);
}

static void on_reply(struct claw_redis_call *r);

static int start(struct claw_state_call *c)
{
    struct claw_state *s = c->state;
    struct claw_redis *x = redis_of(s);
    const char *why = "";
    unsigned fate_ms = x && s->conf->state.timeout_ms > FATE_MS ? s->conf->state.timeout_ms : FATE_MS;
    return x ? claw_redis_start(x, c->words, c->words_n, fate_ms, on_reply, c, &c->redis, &why) : CLAW_ECONNECT;
}

static bool begins_with(const redisReply *r, const char *word) { return strncmp(r->str, word, strlen(word)) == 0; }

/* Redis does not know the script. True: it was sent it. */
static bool send_text(struct claw_state_call *c)
{
    if (c->evaled || c->late || c->place != c->state->place) return false;
    claw_redis_call_free(c->redis);
    c->redis = NULL;
    c->evaled = true;
    c->words[0] = CLAW_STR("EVAL");
    c->words[1] = claw_str_of(c->script);
    return start(c) == CLAW_OK;
}

/* False: it goes on. */
static bool judge(struct claw_state_call *c)
{
    struct claw_state *s = c->state;
    struct claw_redis_call *r = c->redis;
    const redisReply *reply = r->code == CLAW_OK ? r->reply : NULL;
    if (reply && reply->type == REDIS_REPLY_ERROR && begins_with(reply, "NOSCRIPT")) {
        if (send_text(c)) {
            claw_timer_start(s->loop, &c->timer, s->conf->state.timeout_ms);
            return false;
        }
        c->code = CLAW_ECONNECT;
        return true;
    }
    if (reply && reply->type == REDIS_REPLY_ARRAY) {
        c->code = CLAW_OK;
        c->reply = reply;
        claw_metrics_observe(s->metrics, CLAW_METRIC_STATE_SECONDS, claw_loop_clock_us() - c->sent_us, 0, NULL);
        if (!c->late) count(s, "ok");
        return true;
    }
    c->code = reply ? CLAW_EINVAL : CLAW_ECONNECT;
    if (!c->late) count(s, reply ? "error" : "down");
    char why[192];
    snprintf(why, sizeof why, "%s", !reply ? r->error : reply->type == REDIS_REPLY_ERROR ? reply->str : "an answer that is none");
    if (c->place != s->place) return true;
    go_down(s, why);
    struct claw_redis *x = redis_of(s);
    if (x && reply && reply->type == REDIS_REPLY_ERROR && begins_with(reply, "READONLY")) claw_redis_drop(x, why);
    return true;
}

/* What there is to say by now is said; of what was late and has come meanwhile only the last. */
static void deliver(struct claw_state_call *c)
{
    if (c->over) {
        c->over = false; /* its text may be sent now, which ends later */
        if (c->redis && !judge(c)) return;
        c->over = true;
    }
    if (!c->over) c->code = CLAW_EDEADLINE;
    if (c->on_event) c->on_event(c);
    if (c->over) call_free(c);
}

static void on_turn(struct claw_lane_ticket *t) { deliver((struct claw_state_call *)((char *)t - offsetof(struct claw_state_call, turn))); }

static void on_due(struct claw_deferred *d)
{
    struct claw_state_call *c = (struct claw_state_call *)((char *)d - offsetof(struct claw_state_call, due));
    if (!c->turn.lane && !claw_lane_wait(c->state->loop, &c->state->wakes, &c->turn, on_turn)) deliver(c);
}

static void on_reply(struct claw_redis_call *r)
{
    struct claw_state_call *c = r->arg;
    c->over = true;
    claw_timer_stop(c->state->loop, &c->timer);
    claw_loop_defer(c->state->loop, &c->due, on_due);
}

static void on_late(struct claw_timer *t)
{
    struct claw_state_call *c = t->arg;
    char why[64];
    c->late = true;
    count(c->state, "timeout");
    snprintf(why, sizeof why, "no answer in %u ms", (unsigned)(limit_us(c->state) / 1000));
    if (c->place == c->state->place) go_down(c->state, why);
    claw_loop_defer(c->state->loop, &c->due, on_due);
}

struct claw_state_call *claw_state_call_new(struct claw_state *s, const char *script, size_t keys_n, size_t args_n, size_t room)
{
    size_t words_n = FIXED + keys_n + args_n;
    struct claw_state_call *c = calloc(1, sizeof *c + words_n * sizeof *c->words);
    if (!c || !(c->text = malloc(room + NUMBER_MAX))) {
        free(c);
        return NULL;
    }
    c->state = s;
    c->script = script;
    c->keys_n = keys_n;
    c->words_n = words_n;
    c->room = room + NUMBER_MAX;
    claw_timer_init(&c->timer, on_late, c);
    c->words[0] = CLAW_STR("EVALSHA");
    c->words[1] = claw_str_of(hash_of(script));
    int n = snprintf(c->text, NUMBER_MAX, "%zu", keys_n);
    c->words[2] = (struct claw_str){c->text, (size_t)n};
    c->used = (size_t)n;
    return c;
}

static void put(struct claw_state_call *c, size_t word, struct claw_str text)
{
    CLAW_ASSERT(word < c->words_n && text.len <= c->room - c->used);
    if (text.len) memcpy(c->text + c->used, text.ptr, text.len);
    c->words[word] = (struct claw_str){c->text + c->used, text.len};
    c->used += text.len;
}

void claw_state_call_key(struct claw_state_call *c, size_t i, struct claw_str text) { put(c, FIXED + i, text); }
void claw_state_call_arg(struct claw_state_call *c, size_t i, struct claw_str text) { put(c, FIXED + c->keys_n + i, text); }

void claw_state_call_number(struct claw_state_call *c, size_t i, int64_t n)
{
    char text[NUMBER_MAX];
    snprintf(text, sizeof text, "%lld", (long long)n);
    claw_state_call_arg(c, i, claw_str_of(text));
}

void claw_state_call_time(struct claw_state_call *c, size_t i, int64_t ns)
{
    char text[NUMBER_MAX];
    uint64_t n = ns < 0 ? (uint64_t)-ns : (uint64_t)ns;
    if (n % 1000) snprintf(text, sizeof text, "%s%llu.%03llu", ns < 0 ? "-" : "", (unsigned long long)(n / 1000), (unsigned long long)(n % 1000));
    else snprintf(text, sizeof text, "%s%llu", ns < 0 ? "-" : "", (unsigned long long)(n / 1000));
    claw_state_call_arg(c, i, claw_str_of(text));
}

void claw_state_call_drop(struct claw_state_call *c)
{
    free(c->text);
    free(c);
}

int claw_state_send(struct claw_state_call *c)
{
    struct claw_state *s = c->state;
    int rc = s->down ? CLAW_ECONNECT : start(c);
    if (rc != CLAW_OK) {
        if (rc == CLAW_ECONNECT && s->conf && s->conf->state.asked) {
            count(s, "down");
            go_down(s, "it cannot be reached");
        }
        claw_state_call_drop(c);
        return rc;
    }
    c->sent_us = claw_loop_clock_us();
    c->place = s->place;
    c->next = s->calls;
    if (s->calls) s->calls->prev = c;
    s->calls = c;
    claw_timer_start(s->loop, &c->timer, s->conf->state.timeout_ms);
    return CLAW_OK;
}

/* ---- the door ---------------------------------------------------------------------------------------------------------- */

struct claw_state *claw_state_new(struct claw_loop *loop, struct claw_redis **list, struct claw_metrics_shard *metrics)
{
    struct claw_state *s = calloc(1, sizeof *s);
    pthread_once(&once, prepare);
    if (!s) return NULL;
    s->loop = loop;
    s->list = list;
    s->metrics = metrics;
    s->wakes.light = true;
    claw_timer_init(&s->timer, on_timer, s);
    atomic_fetch_add(&doors, 1);
    return s;
}

void claw_state_watch(struct claw_state *s, void (*on_up)(void *arg), void *arg)
{
    s->on_up = on_up;
    s->arg = arg;
}

/* Another place is not down because the one before was. */
void claw_state_set(struct claw_state *s, const struct claw_conf *conf)
{
    bool shares = conf && conf->state.asked, other = !s->conf || !shares || !claw_str_eq(s->conf->redis.text, conf->redis.text);
    s->conf = shares ? conf : NULL;
    if (other && s->down) {
        s->down = false;
        atomic_fetch_sub(&doors_down, 1);
        claw_timer_stop(s->loop, &s->timer);
    }
    if (other) s->place++;
    if (other && s->probe) {
        claw_redis_call_free(s->probe);
        s->probe = NULL;
    }
    if (other && shares) probe(s);
}

void claw_state_free(struct claw_state *s)
{
    if (!s) return;
    claw_state_set(s, NULL);
    claw_timer_stop(s->loop, &s->timer);
    if (s->probe) claw_redis_call_free(s->probe);
    while (s->calls) {
        struct claw_state_call *c = s->calls;
        CLAW_ASSERT(!c->due.pending);
        c->over = true;
        c->code = CLAW_ECONNECT;
        if (c->on_event) c->on_event(c);
        call_free(c);
    }
    atomic_fetch_sub(&doors, 1);
    free(s);
}

bool claw_state_ready(const struct claw_state *s) { return s->conf && !s->down; }
const struct claw_conf *claw_state_conf(const struct claw_state *s) { return s->conf; }

/* ---- keys -------------------------------------------------------------------------------------------------------------- */

bool claw_state_key(const struct claw_conf *conf, const char *noun, struct claw_str text, char to[CLAW_STATE_KEY_MAX], struct claw_str *key)
{
    int n = snprintf(to, CLAW_STATE_KEY_MAX, "%.*s:%s%.*s", CLAW_STR_FMT(conf->state.prefix), noun, CLAW_STR_FMT(text));
    *key = (struct claw_str){to, (size_t)n};
    return n > 0 && (size_t)n < CLAW_STATE_KEY_MAX;
}

void claw_state_hash(const struct claw_str *texts, size_t n, char to[33])
{
    unsigned char digest[32] = {0};
    mbedtls_md_context_t md;
    mbedtls_md_init(&md);
    bool ok = mbedtls_md_setup(&md, mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), 0) == 0 && mbedtls_md_starts(&md) == 0;
    for (size_t i = 0; i < n && ok; i++) {
        uint64_t len = texts[i].len;
        ok = mbedtls_md_update(&md, (const unsigned char *)&len, sizeof len) == 0 &&
             (!len || mbedtls_md_update(&md, (const unsigned char *)texts[i].ptr, texts[i].len) == 0);
    }
    ok = ok && mbedtls_md_finish(&md, digest) == 0;
    mbedtls_md_free(&md);
    CLAW_ASSERT(ok); /* but for memory it cannot fail, and texts that are told apart by nothing must not share a count */
    for (unsigned i = 0; i < 16; i++) snprintf(to + 2 * i, 3, "%02x", digest[i]);
}

int claw_state_write(const struct claw_conf *conf, struct claw_buf *out)
{
    if (!conf->state.shared) return claw_buf_add_z(out, "false");
    int rc = claw_buf_add_fmt(out, "{\"up\":%s,\"instances\":%u,\"instance\":\"%s\",\"prefix\":", claw_state_up() ? "true" : "false", claw_state_instances(),
                              claw_state_instance());
    if (rc == 0) rc = claw_buf_add_json(out, conf->state.prefix);
    return rc == 0 ? claw_buf_add_z(out, "}") : rc;
}
