#include "net/redis.h"

#include "base/log.h"
#include "net/resolve.h"
#include "net/stream.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

#define GREETING_MS 1000u
#define FROZEN_MS 1000u
#define PAUSE_MS 100u
#define PAUSE_MAX_MS 10000u
#define ALONE_MS 60000u
#define COMMAND_MAX (1u << 20)
#define OUT_MAX (8u << 20)
#define REPLY_MAX (16u << 20)
#define ELEMENTS_MAX 65536u /* of a reply and what is in it: making and freeing them takes some 10 ms */
#define LIST_MAX 4

enum state { IDLE, FIRST, AGAIN, UP, DOWN };

/* One connection; lives until its stream is closed. */
struct link {
    struct claw_stream stream;
    struct claw_redis *redis; /* NULL: given up */
    redisReader *reader;
    size_t unread;            /* bytes since the last whole reply */
    size_t elements;          /* of the reply that is being read */
    redisReplyObjectFunctions *usual, counting; /* the reader's; they count */
    unsigned greets;          /* replies to the greeting that are still to come */
};

struct claw_redis {
    struct claw_redis *next;
    struct claw_loop *loop;
    struct claw_resolver *resolver;
    struct claw_resolve question;
    char *text, *host, *user, *password; /* copies: they outlive the generation */
    size_t user_n, password_n;
    uint16_t port;
    unsigned db;
    enum state state;
    struct claw_addresses addresses;
    unsigned address;         /* the one being tried */
    struct link *link;
    struct claw_timer timer;  /* of the greeting, or the pause */
    unsigned fails;           /* in a row */
    uint64_t asked_ms, heard_ms;
    char why[128];            /* it is down */
    struct claw_redis_call *first, **last;
    unsigned calls_n;
    struct claw_buf out;      /* commands for the end of the turn, or for when it is up */
    struct claw_deferred flush;
};

static void lost(struct claw_redis *x, const char *why, bool down);

static uint64_t now(const struct claw_redis *x) { return claw_loop_now_ms(x->loop); }

/* ---- calls -------------------------------------------------------------------------------------------------- */

static void call_gone(struct claw_redis_call *c)
{
    if (c->reply) freeReplyObject(c->reply);
    free(c);
}

/* It leaves the order: the place in front, when it is answered. */
static struct claw_redis_call *take_first(struct claw_redis *x)
{
    struct claw_redis_call *c = x->first;
    x->first = c->next;
    if (!x->first) x->last = &x->first;
    x->calls_n--;
    c->next = NULL;
    c->redis = NULL;
    claw_timer_stop(x->loop, &c->timer);
    return c;
}

static void tell(struct claw_redis_call *c, int code, const char *error)
{
    c->over = true;
    c->code = code;
    snprintf(c->error, sizeof c->error, "%s", error);
    c->on_done(c);
}

static void settle(struct claw_redis_call *c, int code, const char *error, redisReply *reply)
{
    bool unheard = c->over;
    if (unheard) {
        if (reply) freeReplyObject(reply);
    } else {
        c->reply = reply;
        tell(c, code, error);
    }
    if (c->dropped) call_gone(c);
}

/* The oldest call had its time, and a second without a byte. */
static bool frozen(const struct claw_redis *x)
{
    const struct claw_redis_call *c = x->first;
    if (x->state != UP || !c || !c->over || claw_timer_running(&c->timer)) return false;
    uint64_t since = c->sent_ms > x->heard_ms ? c->sent_ms : x->heard_ms;
    return now(x) - since >= FROZEN_MS;
}

static void on_late(struct claw_timer *t)
{
    struct claw_redis_call *c = t->arg;
    struct claw_redis *x = c->redis;
    if (!c->over) tell(c, CLAW_EDEADLINE, "Redis did not answer in time");
    if (frozen(x)) lost(x, "it does not answer", true);
}

void claw_redis_call_free(struct claw_redis_call *c)
{
    if (!c->redis) {
        call_gone(c);
        return;
    }
    c->over = c->dropped = true; /* its timer goes on: an unanswered call says that Redis is frozen */
}

void claw_redis_drop(struct claw_redis *x, const char *why)
{
    if (x->state == UP) lost(x, why, true);
}

unsigned claw_redis_count(const struct claw_redis *x) { return x->calls_n; }

/* ---- many elements ------------------------------------------------------------------------------------------ */

#if HIREDIS_MAJOR < 1
typedef int elements_n;
#else
typedef size_t elements_n;
#endif

static void *create_array(const redisReadTask *task, elements_n n)
{
    struct link *l = task->privdata;
    if (n > 0) l->elements += (size_t)n;
    return l->elements > ELEMENTS_MAX ? NULL : l->usual->createArray(task, n);
}

static redisReader *reader_new(struct link *l)
{
    redisReader *r = redisReaderCreate();
    if (!r) return NULL;
    l->usual = r->fn;
    l->counting = *r->fn;
    l->counting.createArray = create_array;
    r->fn = &l->counting;
    r->privdata = l;
    return r;
}

/* ---- the connection ----------------------------------------------------------------------------------------- */

static void on_link_close(struct claw_stream *s)
{
    struct link *l = s->arg;
    redisReaderFree(l->reader);
    free(l);
}

static void unlink_stream(struct claw_redis *x)
{
    struct link *l = x->link;
    x->link = NULL;
    if (!l) return;
    l->redis = NULL;
    claw_stream_close(&l->stream);
}

static void pause_for(struct claw_redis *x)
{
    unsigned ms = x->fails > 7 ? PAUSE_MAX_MS : PAUSE_MS << (x->fails - 1);
    claw_timer_start(x->loop, &x->timer, ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS);
}

/* The connection is over, and so are all calls. `down`: it is not tried again at once. */
static void lost(struct claw_redis *x, const char *why, bool down)
{
    struct claw_redis_call *all = x->first, *c;
    char error[sizeof x->why + 32];
    snprintf(x->why, sizeof x->why, "Redis is down: %s", why);
    snprintf(error, sizeof error, "%s", down ? x->why : "the connection to Redis was lost");
    claw_timer_stop(x->loop, &x->timer);
    claw_resolve_cancel(&x->question);
    unlink_stream(x);
    claw_buf_clear(&x->out);
    x->state = down ? DOWN : IDLE;
    if (down && x->fails++ == 0)
        claw_log_event(CLAW_LOG_WARN, "Redis is down", "host", x->host, "error", why, NULL);
    if (down) pause_for(x);
    x->first = NULL;
    x->last = &x->first;
    x->calls_n = 0;
    while ((c = all)) {
        all = c->next;
        c->next = NULL;
        c->redis = NULL;
        claw_timer_stop(x->loop, &c->timer);
        settle(c, CLAW_ECONNECT, error, NULL);
    }
}

static int add_command(struct claw_buf *out, const struct claw_str *words, size_t n)
{
    size_t from = out->len;
    int rc = claw_buf_add_fmt(out, "*%zu\r\n", n);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = claw_buf_add_fmt(out, "$%zu\r\n", words[i].len);
        if (rc == 0) rc = claw_buf_add_str(out, words[i]);
        if (rc == 0) rc = claw_buf_add_z(out, "\r\n");
    }
    if (rc != 0 && out->len >= from) out->len = from;
    return rc;
}

static void send_out(struct claw_redis *x, struct claw_buf *b)
{
    struct claw_str s = claw_buf_str(b);
    uv_buf_t piece = uv_buf_init((char *)s.ptr, (unsigned)s.len);
    int rc = claw_stream_write(&x->link->stream, &piece, 1);
    claw_buf_clear(b);
    if (rc != 0 && rc != CLAW_EAGAIN) lost(x, claw_stream_error(&x->link->stream), x->state != UP);
}

static void on_flush(struct claw_deferred *d)
{
    struct claw_redis *x = (struct claw_redis *)((char *)d - offsetof(struct claw_redis, flush));
    if (x->state == UP && claw_buf_size(&x->out)) send_out(x, &x->out);
}

static void greet(struct claw_redis *x, struct link *l)
{
    struct claw_buf b;
    char db[16];
    int rc = 0;
    claw_buf_init(&b, 0);
    if (x->password_n) {
        struct claw_str auth[3] = {CLAW_STR("AUTH"), {x->user, x->user_n}, {x->password, x->password_n}};
        if (!x->user_n) auth[1] = auth[2];
        rc = add_command(&b, auth, x->user_n ? 3 : 2);
        l->greets++;
    }
    if (x->db && rc == 0) {
        snprintf(db, sizeof db, "%u", x->db);
        rc = add_command(&b, (struct claw_str[]){CLAW_STR("SELECT"), claw_str_of(db)}, 2);
        l->greets++;
    }
    if (rc == 0) rc = add_command(&b, (struct claw_str[]){CLAW_STR("PING")}, 1);
    l->greets++;
    if (rc == 0) send_out(x, &b);
    else lost(x, claw_err_text(rc), true);
    claw_buf_fini(&b);
}

static void up(struct claw_redis *x)
{
    claw_timer_stop(x->loop, &x->timer);
    x->state = UP;
    if (x->fails) claw_log_event(CLAW_LOG_INFO, "Redis is back", "host", x->host, NULL);
    x->fails = 0;
    for (struct claw_redis_call *c = x->first; c; c = c->next) c->sent_ms = now(x);
    claw_loop_defer(x->loop, &x->flush, on_flush);
}

static void take_reply(struct claw_redis *x, struct link *l, redisReply *reply)
{
    l->unread = l->elements = 0;
    if (l->greets) {
        char why[96] = "";
        if (reply->type == REDIS_REPLY_ERROR) snprintf(why, sizeof why, "%.*s", (int)reply->len, reply->str);
        freeReplyObject(reply);
        if (why[0]) lost(x, why, true);
        else if (--l->greets == 0) up(x);
        return;
    }
    if (!x->first) {
        freeReplyObject(reply);
        lost(x, "it said what nobody had asked for", true);
        return;
    }
    settle(take_first(x), CLAW_OK, "", reply);
}

static void on_read(struct claw_stream *s, const char *data, size_t n)
{
    struct link *l = s->arg;
    struct claw_redis *x = l->redis;
    x->heard_ms = now(x);
    l->unread += n;
    if (redisReaderFeed(l->reader, data, n) != REDIS_OK) {
        lost(x, claw_err_text(CLAW_ENOMEM), true);
        return;
    }
    for (;;) {
        void *reply = NULL;
        if (redisReaderGetReply(l->reader, &reply) != REDIS_OK) {
            lost(x, l->elements > ELEMENTS_MAX ? "a reply has more than 65536 elements" : l->reader->errstr, true);
            return;
        }
        if (!reply) break;
        take_reply(x, l, reply);
        if (!l->redis) return;
    }
    if (l->unread > REPLY_MAX) lost(x, "a reply has more than 16 MB", true);
}

static void on_end(struct claw_stream *s, int code)
{
    struct link *l = s->arg;
    if (l->redis) lost(l->redis, "it closed the connection", l->redis->state != UP);
}

static void try_address(struct claw_redis *x);

static void on_open(struct claw_stream *s, int code)
{
    struct link *l = s->arg;
    struct claw_redis *x = l->redis;
    if (code == 0) {
        greet(x, l);
        return;
    }
    if (++x->address < x->addresses.n) {
        unlink_stream(x);
        try_address(x);
    } else {
        lost(x, claw_stream_error(s), true);
    }
}

static const struct claw_stream_events stream_events = {on_open, on_read, on_end, NULL, on_link_close, NULL};

static void try_address(struct claw_redis *x)
{
    struct link *l = calloc(1, sizeof *l);
    if (l && !(l->reader = reader_new(l))) {
        free(l);
        l = NULL;
    }
    if (!l) {
        lost(x, claw_err_text(CLAW_ENOMEM), true);
        return;
    }
    l->redis = x;
    const struct sockaddr *to = (const struct sockaddr *)&x->addresses.at[x->address];
    if (claw_stream_connect(&l->stream, x->loop, to, NULL, CLAW_STR(""), &stream_events, l) != 0) {
        redisReaderFree(l->reader);
        free(l);
        lost(x, "no connection could be begun", true);
        return;
    }
    x->link = l;
}

static void on_resolved(struct claw_resolve *q, int code, const struct claw_addresses *list, const char *why)
{
    struct claw_redis *x = q->arg;
    if (code != 0 || list->n == 0) {
        lost(x, code != 0 ? why : "its name has no address", true);
        return;
    }
    x->addresses = *list;
    x->address = 0;
    try_address(x);
}

static void dial(struct claw_redis *x, enum state as)
{
    x->state = as;
    claw_timer_start(x->loop, &x->timer, GREETING_MS);
    x->question.on_done = on_resolved;
    x->question.arg = x;
    claw_resolve_start(x->resolver, &x->question, claw_str_of(x->host), x->port);
}

static void on_timer(struct claw_timer *t)
{
    struct claw_redis *x = t->arg;
    if (x->state != DOWN) lost(x, "it did not answer the greeting in time", true);
    else if (now(x) - x->asked_ms > ALONE_MS) x->state = IDLE;
    else dial(x, AGAIN);
}

/* ---- asking ------------------------------------------------------------------------------------------------- */

/* Why no command can be taken now; CLAW_OK: one can, and a connection is there or on its way. */
static int refusal(struct claw_redis *x, size_t bytes, const char **why)
{
    if (frozen(x)) lost(x, "it does not answer", true);
    if (x->state == DOWN || x->state == AGAIN) {
        *why = x->why;
        return CLAW_ECONNECT;
    }
    *why = "a command has more than 1 MB";
    if (bytes > COMMAND_MAX) return CLAW_EBODY_TOO_LARGE;
    *why = "1000 commands of this worker wait for Redis";
    if (x->calls_n >= CLAW_REDIS_CALLS) return CLAW_EAGAIN;
    *why = "8 MB of this worker's commands wait to be sent to Redis";
    size_t waits = claw_buf_size(&x->out) + (x->link ? claw_stream_queued(&x->link->stream) : 0);
    if (waits + bytes > OUT_MAX) return CLAW_EAGAIN;
    if (x->state == IDLE) dial(x, FIRST);
    *why = x->why;
    return x->state == DOWN ? CLAW_ECONNECT : CLAW_OK;
}

int claw_redis_start(struct claw_redis *x, const struct claw_str *words, size_t n, unsigned timeout_ms,
                     void (*on_done)(struct claw_redis_call *c), void *arg, struct claw_redis_call **out, const char **why)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += words[i].len + 16;
    x->asked_ms = now(x);
    int rc = refusal(x, bytes, why);
    if (rc != CLAW_OK) return rc;
    struct claw_redis_call *c = calloc(1, sizeof *c);
    *why = claw_err_text(CLAW_ENOMEM);
    if (!c || add_command(&x->out, words, n) != 0) {
        free(c);
        return CLAW_ENOMEM;
    }
    c->redis = x;
    c->on_done = on_done;
    c->arg = arg;
    c->sent_ms = now(x);
    claw_timer_init(&c->timer, on_late, c);
    claw_timer_start(x->loop, &c->timer, timeout_ms);
    *x->last = c;
    x->last = &c->next;
    x->calls_n++;
    *out = c;
    claw_loop_defer(x->loop, &x->flush, on_flush);
    return CLAW_OK;
}

/* ---- the list ----------------------------------------------------------------------------------------------- */

static char *copy_of(struct claw_str s)
{
    char *p = malloc(s.len + 1);
    if (!p) return NULL;
    if (s.len) memcpy(p, s.ptr, s.len);
    p[s.len] = 0;
    return p;
}

static void redis_free(struct claw_redis *x)
{
    CLAW_ASSERT(!x->flush.pending);
    while (x->first) {
        struct claw_redis_call *c = take_first(x);
        CLAW_ASSERT(c->dropped);
        call_gone(c);
    }
    claw_timer_stop(x->loop, &x->timer);
    unlink_stream(x);
    if (x->resolver) claw_resolver_free(x->resolver);
    claw_buf_fini(&x->out);
    free(x->text);
    free(x->host);
    free(x->user);
    free(x->password);
    free(x);
}

static struct claw_redis *redis_new(struct claw_loop *loop, const struct claw_conf_redis *conf)
{
    struct claw_redis *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->loop = loop;
    x->last = &x->first;
    x->port = conf->port;
    x->db = conf->db;
    x->user_n = conf->user.len;
    x->password_n = conf->password.len;
    claw_buf_init(&x->out, 0);
    claw_timer_init(&x->timer, on_timer, x);
    x->text = copy_of(conf->text);
    x->host = copy_of(conf->host);
    x->user = copy_of(conf->user);
    x->password = copy_of(conf->password);
    if (!x->text || !x->host || !x->user || !x->password || claw_resolver_new(loop, &x->resolver) != 0) {
        redis_free(x);
        return NULL;
    }
    return x;
}

struct claw_redis *claw_redis_of(struct claw_redis **list, struct claw_loop *loop, const struct claw_conf_redis *conf)
{
    unsigned n = 0;
    for (struct claw_redis *x = *list; x; x = x->next)
        if (claw_str_eqz(conf->text, x->text)) return x;
    for (struct claw_redis **at = list; *at;) {
        struct claw_redis *x = *at;
        if (x->calls_n || x->flush.pending) {
            n++;
            at = &x->next;
            continue;
        }
        *at = x->next;
        redis_free(x);
    }
    struct claw_redis *x = n < LIST_MAX ? redis_new(loop, conf) : NULL;
    if (!x) return NULL;
    x->next = *list;
    *list = x;
    return x;
}

void claw_redis_free_all(struct claw_redis **list)
{
    while (*list) {
        struct claw_redis *x = *list;
        *list = x->next;
        redis_free(x);
    }
}
