#include "proxy/webhook.h"

#include "base/log.h"

#include <mbedtls/base64.h>
#include <mbedtls/md.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define ANSWER_MAX 4096u
#define BACKOFF_MS 1000u
#define BACKOFF_MAX_MS 60000u
#define SIGNED_MAX 64u /* bytes of a signature's header */

/* Something happened: its text, which the webhooks that want it share. Counted by control alone. */
struct happening {
    struct claw_message message;
    unsigned refs;
    enum claw_webhook_event event;
    char id[40];
    size_t len;
    char text[];
};

struct delivery {
    struct delivery *next;
    struct hook *hook;
    struct happening *what;
    struct claw_fetch *fetch;    /* under way; NULL: it waits */
    struct claw_timer timer;     /* until the next try */
    struct claw_deferred end;    /* a fetch is not freed from within its on_done */
    unsigned tries;
    bool going;                  /* begun: one of those at once */
};

struct hook {
    struct hook *next;
    struct claw_webhooks *all;
    const struct claw_conf_webhook *conf; /* NULL: configured no more; goes with its last delivery */
    struct delivery *first, **last;
    unsigned events;                      /* a bit for each kind it wants */
    unsigned queued, under_way;
    bool failing;                         /* said already */
};

struct claw_webhooks {
    struct claw_loop *loop;
    struct claw_fetcher *fetcher;
    struct claw_metrics_shard *metrics;
    struct hook *hooks;
    size_t waiting;
};

static struct claw_webhooks *_Atomic the_webhooks;
static _Atomic unsigned wanted;      /* a bit for each kind of event */
static _Atomic unsigned mail;        /* messages on their way to control */
static _Atomic int64_t mail_lost;

static const char *const names[CLAW_WEBHOOK_EVENTS] = {
#define CLAW_WEBHOOK_NAME(id, name) name,
    CLAW_WEBHOOK_MAP(CLAW_WEBHOOK_NAME)
#undef CLAW_WEBHOOK_NAME
};

static void count(struct claw_webhooks *w, enum claw_webhook_event e, const char *outcome, int64_t n)
{
    struct claw_str labels[2] = {claw_str_of(names[e]), claw_str_of(outcome)};
    claw_metrics_add(w->metrics, CLAW_METRIC_WEBHOOKS, n, 2, labels);
}

/* ---- telling -------------------------------------------------------------------------------------------------------- */

bool claw_webhook_wanted(enum claw_webhook_event e) { return atomic_load_explicit(&wanted, memory_order_relaxed) & 1u << e; }

static int add_facts(struct claw_buf *b, const struct claw_webhook_fact *facts, size_t n)
{
    const char *before = "";
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t len = strlen(facts[i].name);
        bool number = facts[i].name[len - 1] == '#';
        if (!facts[i].value.ptr || (number && !facts[i].value.len)) continue;
        rc = claw_buf_add_fmt(b, "%s\"%.*s\":", before, (int)(len - number), facts[i].name);
        if (rc == 0) rc = number ? claw_buf_add_str(b, facts[i].value) : claw_buf_add_json(b, facts[i].value);
        before = ",";
    }
    return rc;
}

static bool new_id(char id[40])
{
    unsigned char r[16];
    if (getrandom(r, sizeof r, 0) != sizeof r) return false;
    memcpy(id, "msg_", 4);
    for (int i = 0; i < 16; i++) snprintf(id + 4 + 2 * i, 3, "%02x", r[i]);
    return true;
}

static void on_told(struct claw_loop *loop, struct claw_message *m);

void claw_webhook_tell(enum claw_webhook_event e, const struct claw_webhook_fact *facts, size_t n)
{
    struct claw_webhooks *w = atomic_load(&the_webhooks);
    if (!w || !claw_webhook_wanted(e)) return;
    if (atomic_fetch_add(&mail, 1) >= CLAW_WEBHOOK_MAIL) {
        atomic_fetch_sub(&mail, 1);
        atomic_fetch_add(&mail_lost, 1);
        return;
    }
    struct claw_buf b;
    claw_buf_init(&b, 64u << 10);
    int rc = claw_buf_add_fmt(&b, "{\"type\":\"%s\",\"timestamp\":\"", names[e]);
    if (rc == 0) rc = claw_log_add_time(&b);
    if (rc == 0) rc = claw_buf_add_z(&b, "\",\"data\":{");
    if (rc == 0) rc = add_facts(&b, facts, n);
    if (rc == 0) rc = claw_buf_add_z(&b, "}}");
    claw_log_redact(&b);
    struct claw_str s = claw_buf_str(&b);
    struct happening *h = rc == 0 ? malloc(sizeof *h + s.len) : NULL;
    if (h) {
        *h = (struct happening){.message.run = on_told, .event = e, .len = s.len};
        memcpy(h->text, s.ptr, s.len);
    }
    claw_buf_fini(&b);
    if (h && new_id(h->id)) {
        claw_loop_post(w->loop, &h->message);
        return;
    }
    free(h);
    atomic_fetch_sub(&mail, 1);
    atomic_fetch_add(&mail_lost, 1);
}

/* ---- one delivery ----------------------------------------------------------------------------------------------------- */

static void happening_unref(struct happening *h)
{
    if (--h->refs == 0) free(h);
}

static void start_next(struct hook *hook);

static void on_orphan(struct claw_deferred *e) { free((char *)e - offsetof(struct delivery, end)); }

static void unlink_delivery(struct delivery *d)
{
    struct hook *hook = d->hook;
    struct delivery **at = &hook->first;
    while (*at != d) at = &(*at)->next;
    *at = d->next;
    if (hook->last == &d->next) hook->last = at;
    hook->queued--;
    hook->all->waiting--;
}

static void delivery_free(struct delivery *d)
{
    claw_timer_stop(d->hook->all->loop, &d->timer);
    if (d->going) d->hook->under_way--;
    if (d->fetch) claw_fetch_free(d->fetch);
    unlink_delivery(d);
    happening_unref(d->what);
    if (d->end.pending) d->end.run = on_orphan;
    else free(d);
}

static void hook_tidy(struct hook *hook)
{
    if (hook->conf || hook->first) return;
    struct hook **at = &hook->all->hooks;
    while (*at != hook) at = &(*at)->next;
    *at = hook->next;
    free(hook);
}

static void finish(struct delivery *d, const char *outcome)
{
    struct hook *hook = d->hook;
    count(hook->all, d->what->event, outcome, 1);
    delivery_free(d);
    start_next(hook);
    hook_tidy(hook);
}

static bool sign(const struct delivery *d, const char *stamp, char out[SIGNED_MAX])
{
    struct claw_str secret = d->hook->conf->secret;
    unsigned char key[256], mac[32];
    size_t key_n = 0, n;
    if (claw_str_starts(secret, CLAW_STR("whsec_"))) {
        secret.ptr += 6;
        secret.len -= 6;
        if (mbedtls_base64_decode(key, sizeof key, &key_n, (const unsigned char *)secret.ptr, secret.len) != 0) return false;
        secret = (struct claw_str){(const char *)key, key_n};
    }
    mbedtls_md_context_t md;
    mbedtls_md_init(&md);
    bool ok = mbedtls_md_setup(&md, mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), 1) == 0 &&
              mbedtls_md_hmac_starts(&md, (const unsigned char *)secret.ptr, secret.len) == 0;
    const struct claw_str parts[] = {claw_str_of(d->what->id), CLAW_STR("."), claw_str_of(stamp), CLAW_STR("."), {d->what->text, d->what->len}};
    for (unsigned i = 0; i < sizeof parts / sizeof *parts && ok; i++)
        ok = mbedtls_md_hmac_update(&md, (const unsigned char *)parts[i].ptr, parts[i].len) == 0;
    ok = ok && mbedtls_md_hmac_finish(&md, mac) == 0;
    mbedtls_md_free(&md);
    memcpy(out, "v1,", 3);
    return ok && mbedtls_base64_encode((unsigned char *)out + 3, SIGNED_MAX - 3, &n, mac, sizeof mac) == 0;
}

static uint64_t backoff_ms(unsigned tries)
{
    uint64_t ms = tries > 6 ? BACKOFF_MAX_MS : (uint64_t)BACKOFF_MS << (tries - 1);
    unsigned char r = 128;
    if (getrandom(&r, 1, GRND_NONBLOCK) != 1) r = 128;
    return ms * (80 + r * 40u / 255) / 100;
}

static void say_failing(struct delivery *d)
{
    struct hook *hook = d->hook;
    char status[16] = "", host[256];
    if (hook->failing) return;
    hook->failing = true;
    if (d->fetch && d->fetch->code == CLAW_OK) snprintf(status, sizeof status, "%d", d->fetch->head->status);
    snprintf(host, sizeof host, "%.*s", CLAW_STR_FMT(hook->conf->to.host));
    claw_log_event(CLAW_LOG_WARN, "a webhook does not take events", "host", host, "error", *status ? status : d->fetch ? d->fetch->error : "not sent", NULL);
}

static void after_try(struct delivery *d)
{
    struct hook *hook = d->hook;
    int status = d->fetch && d->fetch->code == CLAW_OK ? d->fetch->head->status : 0;
    if (status >= 200 && status < 300) {
        hook->failing = false;
        finish(d, "delivered");
        return;
    }
    if (!hook->conf) {
        finish(d, "failed");
        return;
    }
    say_failing(d);
    if (status == 410 || d->tries >= hook->conf->attempts) {
        finish(d, "failed");
        return;
    }
    if (d->fetch) claw_fetch_free(d->fetch);
    d->fetch = NULL;
    claw_timer_start(hook->all->loop, &d->timer, backoff_ms(d->tries));
}

static void on_end(struct claw_deferred *e) { after_try((struct delivery *)((char *)e - offsetof(struct delivery, end))); }

static void on_fetched(struct claw_fetch *f)
{
    struct delivery *d = f->arg;
    claw_loop_defer(d->hook->all->loop, &d->end, on_end);
}

static void attempt(struct delivery *d)
{
    const struct claw_conf_webhook *conf = d->hook->conf;
    struct claw_webhooks *w = d->hook->all;
    char stamp[24], signature[SIGNED_MAX];
    const char *why;
    struct claw_conf_header *fields = calloc(conf->headers_n + 4, sizeof *fields);
    size_t n = 0;
    d->tries++;
    snprintf(stamp, sizeof stamp, "%lld", (long long)time(NULL));
    if (fields) {
        fields[n++] = (struct claw_conf_header){CLAW_STR("content-type"), CLAW_STR("application/json")};
        fields[n++] = (struct claw_conf_header){CLAW_STR("webhook-id"), claw_str_of(d->what->id)};
        fields[n++] = (struct claw_conf_header){CLAW_STR("webhook-timestamp"), claw_str_of(stamp)};
        bool fine = !conf->secret.len || sign(d, stamp, signature);
        if (conf->secret.len && fine) fields[n++] = (struct claw_conf_header){CLAW_STR("webhook-signature"), claw_str_of(signature)};
        for (size_t i = 0; i < conf->headers_n; i++) fields[n++] = conf->headers[i];
        const struct claw_fetch_ask ask = {.url = conf->url, .method = CLAW_STR("POST"), .headers = fields, .headers_n = n,
                                           .body = {d->what->text, d->what->len}, .timeout_ms = conf->timeout_ms, .max_body = ANSWER_MAX, .configured = true};
        if (fine && claw_fetch_start(w->fetcher, NULL, &ask, on_fetched, d, &d->fetch, &why) == 0) {
            free(fields);
            return;
        }
    }
    free(fields);
    d->fetch = NULL;
    claw_loop_defer(w->loop, &d->end, on_end);
}

static void on_rested(struct claw_timer *t)
{
    struct delivery *d = t->arg;
    if (d->hook->conf) attempt(d);
    else finish(d, "failed");
}

/* ---- the queue ------------------------------------------------------------------------------------------------------------ */

static void start_next(struct hook *hook)
{
    for (struct delivery *d = hook->first; d && hook->conf && hook->under_way < CLAW_WEBHOOK_AT_ONCE; d = d->next) {
        if (d->going) continue;
        d->going = true;
        hook->under_way++;
        attempt(d);
    }
}

/* The oldest that is not under way makes room. */
static bool make_room(struct hook *hook)
{
    while (hook->queued >= hook->conf->max_queue) {
        struct delivery *d = hook->first;
        while (d && d->going) d = d->next;
        if (!d) return false;
        count(hook->all, d->what->event, "dropped", 1);
        delivery_free(d);
    }
    return true;
}

static void queue(struct hook *hook, struct happening *h)
{
    struct delivery *d = make_room(hook) ? calloc(1, sizeof *d) : NULL;
    if (!d) {
        count(hook->all, h->event, "dropped", 1);
        return;
    }
    d->hook = hook;
    d->what = h;
    h->refs++;
    claw_timer_init(&d->timer, on_rested, d);
    *hook->last = d;
    hook->last = &d->next;
    hook->queued++;
    hook->all->waiting++;
    start_next(hook);
}

static void on_told(struct claw_loop *loop, struct claw_message *m)
{
    struct happening *h = (struct happening *)m;
    struct claw_webhooks *w = atomic_load(&the_webhooks);
    atomic_fetch_sub(&mail, 1);
    h->refs = 1;
    for (struct hook *hook = w ? w->hooks : NULL; hook; hook = hook->next)
        if (hook->conf && hook->events & 1u << h->event) queue(hook, h);
    int64_t lost = w ? atomic_exchange(&mail_lost, 0) : 0;
    if (lost) count(w, h->event, "dropped", lost);
    happening_unref(h);
}

/* ---- configuration ---------------------------------------------------------------------------------------------------------- */

static unsigned events_of(const struct claw_conf_webhook *conf)
{
    unsigned bits = 0;
    for (unsigned e = 0; e < CLAW_WEBHOOK_EVENTS; e++)
        for (size_t i = 0; i < conf->events_n; i++)
            if (claw_str_eqz(conf->events[i], names[e])) bits |= 1u << e;
    return conf->events_n ? bits : (1u << CLAW_WEBHOOK_EVENTS) - 1;
}

static struct hook *hook_of(struct claw_webhooks *w, struct claw_str url)
{
    for (struct hook *h = w->hooks; h; h = h->next)
        if (h->conf && claw_str_eq(h->conf->url, url)) return h;
    return NULL;
}

static struct hook *hook_new(struct claw_webhooks *w)
{
    struct hook *h = calloc(1, sizeof *h);
    if (!h) return NULL;
    h->all = w;
    h->last = &h->first;
    h->next = w->hooks;
    w->hooks = h;
    return h;
}

/* A hook that is configured no more: what waits is dropped, what is under way ends. */
static void give_up(struct hook *hook)
{
    hook->conf = NULL;
    for (struct delivery *d = hook->first, *next; d; d = next) {
        next = d->next;
        if (d->fetch || d->end.pending) continue;
        count(hook->all, d->what->event, "dropped", 1);
        delivery_free(d);
    }
    hook_tidy(hook);
}

void claw_webhooks_set(struct claw_webhooks *w, const struct claw_conf *conf)
{
    unsigned bits = 0;
    struct { struct hook *hook; const struct claw_conf_webhook *conf; } *kept = calloc(conf->webhooks_n + 1, sizeof *kept);
    if (!kept) return;
    for (size_t i = 0; i < conf->webhooks_n; i++) {
        struct hook *h = hook_of(w, conf->webhooks[i].url);
        for (size_t k = 0; h && k < i; k++)
            if (kept[k].hook == h) h = NULL; /* the same URL twice: each its own queue */
        if (!h) h = hook_new(w);
        if (!h) continue;
        kept[i].hook = h;
        kept[i].conf = &conf->webhooks[i];
        h->events = events_of(&conf->webhooks[i]);
        bits |= h->events;
    }
    for (struct hook *h = w->hooks, *next; h; h = next) {
        next = h->next;
        size_t i = 0;
        while (i < conf->webhooks_n && kept[i].hook != h) i++;
        if (i == conf->webhooks_n) give_up(h);
        else h->conf = kept[i].conf;
    }
    free(kept);
    atomic_store(&wanted, bits);
}

int claw_webhooks_new(struct claw_loop *loop, struct claw_fetcher *fetcher, struct claw_metrics_shard *metrics, struct claw_webhooks **out)
{
    struct claw_webhooks *w = calloc(1, sizeof *w);
    if (!w) return CLAW_ENOMEM;
    w->loop = loop;
    w->fetcher = fetcher;
    w->metrics = metrics;
    atomic_store(&the_webhooks, w);
    *out = w;
    return 0;
}

void claw_webhooks_free(struct claw_webhooks *w)
{
    if (!w) return;
    atomic_store(&wanted, 0);
    atomic_store(&the_webhooks, NULL);
    while (w->hooks) {
        struct hook *h = w->hooks;
        h->conf = NULL;
        while (h->first) delivery_free(h->first);
        hook_tidy(h);
    }
    free(w);
}

size_t claw_webhooks_waiting(const struct claw_webhooks *w) { return w->waiting; }
