/* How a line travels:
 *
 *   begin..end    flush / 128 KB      mutex         writer thread
 *   local->cur  ------------------>  queue (8 MB) ------------->  target fd
 *       ^                                                |
 *       +---------------- spare chunks <-----------------+
 *
 * A thread touches the queue's mutex once per handed-over chunk, never per line. `local->busy` is a try-lock
 * that the owner holds from begin to end; claw_log_close is the only other one who takes it, to collect.
 */
#include "base/log.h"
#include "base/log_part.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES ((size_t)65536)
#define DECISION_MAX_BYTES ((size_t)196608)
#define DECISION_MARK '\1' /* begins a line for the decisions' file while it travels; no other line begins so */
#define HAND_OVER_BYTES ((size_t)131072)
#define CHUNK_MAX_BYTES ((size_t)524288) /* a line may grow so far before it is found to be too long */
#define QUEUE_MAX_BYTES ((size_t)8 << 20)
#define SPARE_MAX 8
#define SPARE_BYTES ((size_t)262144) /* a bigger chunk is freed, not kept */
#define PIECE ((size_t)4096)         /* what a pipe that polls writable takes without blocking */
#define STALL_MS 50                  /* how often a stalled writer looks for a new target or the end */

struct chunk {
    struct chunk *next;
    struct claw_buf buf;
    uint64_t lines;
    bool decisions; /* some lines are for the decisions' file */
};

struct local {
    struct local *next;
    atomic_bool busy;
    struct chunk *cur; /* NULL until the first line */
    size_t line_at;    /* where the line between begin and end starts */
};

struct target {
    int fd;
    bool own;    /* ours to close */
    bool direct; /* a write never blocks for long: a regular file, or O_NONBLOCK */
    bool cut;    /* the last line went out in part only */
};

static atomic_int level_min = CLAW_LOG_INFO;
static atomic_bool text_form;
static atomic_bool decisions_on;
static atomic_bool running; /* between open and close */
static atomic_uint_fast64_t dropped;

static __thread struct local *mine;
static pthread_key_t mine_key; /* only for its destructor */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t locals_lock = PTHREAD_MUTEX_INITIALIZER;
static struct local *locals;

/* All of it under `lock`. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct chunk *head, *tail, *spare;
    size_t bytes; /* length of what is queued and of what the writer holds */
    unsigned spares;
    bool accepting, stop, abandon, ended;
    bool fresh;         /* `next` is set and waits for the writer */
    struct target next;
    bool decisions_fresh;  /* the same for the decisions' file; fd -1: none from here on */
    struct target decisions_next;
    char *decisions;       /* its path */
    int to;
    char *path;
    pthread_t thread;
    bool stale; /* a thread that close did not wait for */
} q = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void drop(uint64_t lines) { atomic_fetch_add_explicit(&dropped, lines, memory_order_relaxed); }
uint64_t claw_log_dropped(void) { return atomic_load_explicit(&dropped, memory_order_relaxed); }

bool claw_log_on(enum claw_log_level level)
{
    return (int)level >= atomic_load_explicit(&level_min, memory_order_relaxed);
}

/* ---- time ---- */

int claw_log_add_time(struct claw_buf *b)
{
    static __thread time_t second = -1;
    static __thread char text[] = "0000-00-00T00:00:00.000Z";
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ts.tv_sec != second) {
        struct tm tm;
        char whole[64];
        gmtime_r(&ts.tv_sec, &tm);
        strftime(whole, sizeof whole, "%Y-%m-%dT%H:%M:%S", &tm);
        memcpy(text, whole, 19);
        second = ts.tv_sec;
    }
    unsigned ms = (unsigned)(ts.tv_nsec / 1000000);
    text[20] = (char)('0' + ms / 100);
    text[21] = (char)('0' + ms / 10 % 10);
    text[22] = (char)('0' + ms % 10);
    return claw_buf_add(b, text, sizeof text - 1);
}

/* ---- target ---- */

static int target_open(int to, const char *path, struct target *t)
{
    struct stat st;
    *t = (struct target){.fd = to, .direct = false};
    if (to == 0) {
        t->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
        if (t->fd < 0) return CLAW_EIO;
        t->own = t->direct = true;
        return 0;
    }
    if (fstat(to, &st) != 0) return CLAW_EIO;
    t->direct = S_ISREG(st.st_mode);
    if (S_ISFIFO(st.st_mode)) {
        /* A description of our own: O_NONBLOCK on the inherited one would change it for its other holders. */
        char self[32];
        snprintf(self, sizeof self, "/proc/self/fd/%d", to);
        int fd = open(self, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0) *t = (struct target){.fd = fd, .own = true, .direct = true};
    }
    return 0;
}

static void target_close(struct target *t)
{
    if (t->own) close(t->fd);
    t->own = false;
}

/* Write what goes at once: > 0 bytes, 0 to try again after `wait_ms` at most were spent, < 0 for good. */
static ssize_t target_try(struct target *t, const char *p, size_t n, int wait_ms)
{
    struct pollfd pfd = {.fd = t->fd, .events = POLLOUT};
    if (!t->direct) {
        if (poll(&pfd, 1, wait_ms) <= 0) return 0;
        if (n > PIECE) n = PIECE;
    }
    ssize_t w = write(t->fd, p, n);
    if (w >= 0 || errno == EINTR) return w < 0 ? 0 : w;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return -1;
    if (t->direct) poll(&pfd, 1, wait_ms);
    return 0;
}

static uint64_t lines_in(const char *p, size_t n)
{
    uint64_t lines = 0;
    for (const char *nl; n && (nl = memchr(p, '\n', n)); lines++) {
        n -= (size_t)(nl + 1 - p);
        p = nl + 1;
    }
    return lines;
}

/* ---- the writer thread ---- */

/* A stalled writer asks: is it over (true), or is there a new target to go on with? */
static bool stalled(struct target *t, bool *moved)
{
    struct target old = *t;
    pthread_mutex_lock(&q.lock);
    bool over = q.abandon;
    *moved = q.fresh;
    if (q.fresh) *t = q.next;
    q.fresh = false;
    pthread_mutex_unlock(&q.lock);
    if (*moved) target_close(&old);
    return over;
}

static void write_chunk(struct target *t, struct chunk *c)
{
    const char *p = c->buf.data;
    size_t n = c->buf.len, at = 0;
    while (at < n) {
        bool mend = at == 0 && t->cut, moved;
        ssize_t w = mend ? target_try(t, "\n", 1, STALL_MS) : target_try(t, p + at, n - at, STALL_MS);
        if (w > 0 && mend) t->cut = false;
        else if (w > 0) at += (size_t)w;
        if (w > 0) continue;
        bool over = w < 0 || stalled(t, &moved);
        if (over) {
            drop(lines_in(p + at, n - at));
            t->cut = t->cut || (at > 0 && p[at - 1] != '\n');
            return;
        }
        while (moved && at > 0 && p[at - 1] != '\n') at--; /* the new target gets the line whole */
    }
}

/* Move the lines of the decisions' file out of the chunk, without their marks. Without memory they are dropped. */
static void split(struct chunk *c, struct claw_buf *out)
{
    char *to = c->buf.data;
    const char *p = to, *end = to + c->buf.len;
    claw_buf_clear(out);
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = nl ? (size_t)(nl + 1 - p) : (size_t)(end - p);
        if (*p == DECISION_MARK) {
            if (claw_buf_add(out, p + 1, n - 1) != 0) drop(1);
        } else {
            memmove(to, p, n);
            to += n;
        }
        p += n;
    }
    c->buf.len = (size_t)(to - c->buf.data);
    c->decisions = false;
}

/* A regular file never blocks for long; what it does not take is dropped and counted. */
static void write_decisions(const struct target *t, const struct claw_buf *b)
{
    size_t at = 0;
    while (t->fd >= 0 && at < b->len) {
        ssize_t w = write(t->fd, b->data + at, b->len - at);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) break;
        at += (size_t)w;
    }
    if (at < b->len) drop(lines_in(b->data + at, b->len - at));
}

static void chunk_free(struct chunk *c)
{
    claw_buf_fini(&c->buf);
    free(c);
}

/* Under the lock. */
static void chunk_spare(struct chunk *c)
{
    if (q.spares >= SPARE_MAX || c->buf.cap > SPARE_BYTES) {
        chunk_free(c);
        return;
    }
    claw_buf_clear(&c->buf);
    c->lines = 0;
    c->decisions = false;
    c->next = q.spare;
    q.spare = c;
    q.spares++;
}

static void *writer_main(void *arg)
{
    struct target t = {.fd = -1}, decisions = {.fd = -1};
    struct claw_buf apart;
    claw_buf_init(&apart, 0);
    pthread_mutex_lock(&q.lock);
    for (;;) {
        if (q.decisions_fresh) {
            target_close(&decisions);
            decisions = q.decisions_next;
            q.decisions_fresh = false;
        } else if (q.fresh) {
            struct target old = t;
            t = q.next;
            q.fresh = false;
            pthread_mutex_unlock(&q.lock);
            target_close(&old);
            pthread_mutex_lock(&q.lock);
        } else if (q.head) {
            struct chunk *c = q.head;
            q.head = c->next;
            if (!q.head) q.tail = NULL;
            size_t bytes = c->buf.len;
            pthread_mutex_unlock(&q.lock);
            if (c->decisions) {
                split(c, &apart);
                write_decisions(&decisions, &apart);
            }
            write_chunk(&t, c);
            pthread_mutex_lock(&q.lock);
            q.bytes -= bytes;
            chunk_spare(c);
        } else if (q.stop) {
            break;
        } else {
            pthread_cond_wait(&q.work, &q.lock);
        }
    }
    target_close(&t);
    target_close(&decisions);
    claw_buf_fini(&apart);
    q.ended = true;
    pthread_cond_signal(&q.done);
    pthread_mutex_unlock(&q.lock);
    return NULL;
}

/* ---- the threads' side ---- */

static bool local_try(struct local *l) { return !atomic_exchange_explicit(&l->busy, true, memory_order_acquire); }
static void local_done(struct local *l) { atomic_store_explicit(&l->busy, false, memory_order_release); }

static void mine_ended(void *arg)
{
    mine = arg;
    claw_log_thread_end();
}

static void init_once(void)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q.work, &attr);
    pthread_cond_init(&q.done, &attr);
    pthread_condattr_destroy(&attr);
    CLAW_ASSERT(pthread_key_create(&mine_key, mine_ended) == 0);
}

static struct local *local_new(void)
{
    pthread_once(&once, init_once);
    struct local *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    pthread_setspecific(mine_key, l);
    pthread_mutex_lock(&locals_lock);
    l->next = locals;
    locals = l;
    pthread_mutex_unlock(&locals_lock);
    mine = l;
    return l;
}

/* No writer: the lines go to stderr here, waiting no longer than a stalled writer would. */
static void write_here(struct chunk *c)
{
    struct target t = {.fd = 2};
    size_t at = 0;
    for (unsigned stalls = 0; at < c->buf.len;) {
        ssize_t w = target_try(&t, c->buf.data + at, c->buf.len - at, STALL_MS);
        if (w < 0 || (w == 0 && ++stalls == 2)) {
            drop(lines_in(c->buf.data + at, c->buf.len - at));
            break;
        }
        if (w > 0) at += (size_t)w;
    }
    claw_buf_clear(&c->buf);
    c->lines = 0;
}

/* `c` to the queue, if it is open and has room. Gives back what the caller goes on with, may be NULL. */
static struct chunk *hand_over(struct chunk *c)
{
    pthread_mutex_lock(&q.lock);
    struct chunk *tail = q.tail, *next = c;
    if (!q.accepting || q.bytes + c->buf.len > QUEUE_MAX_BYTES) {
        drop(c->lines);
    } else if (tail && c->buf.len <= tail->buf.cap - tail->buf.len) {
        /* The writer is behind. Filling its last chunk up keeps the queue's memory within twice its bytes. */
        memcpy(tail->buf.data + tail->buf.len, c->buf.data, c->buf.len);
        tail->buf.len += c->buf.len;
        tail->lines += c->lines;
        tail->decisions |= c->decisions;
        q.bytes += c->buf.len;
    } else {
        q.bytes += c->buf.len;
        c->next = NULL;
        if (tail) tail->next = c;
        else q.head = c;
        q.tail = c;
        pthread_cond_signal(&q.work);
        next = q.spare;
        if (next) {
            q.spare = next->next;
            q.spares--;
        }
    }
    pthread_mutex_unlock(&q.lock);
    if (next == c) {
        claw_buf_clear(&c->buf);
        c->lines = 0;
        c->decisions = false;
    }
    return next;
}

static void local_deliver(struct local *l)
{
    if (!l->cur) return;
    if (l->cur->lines && atomic_load(&running)) l->cur = hand_over(l->cur);
    else if (l->cur->lines) write_here(l->cur);
    if (l->cur && l->cur->buf.cap > SPARE_BYTES) {
        chunk_free(l->cur);
        l->cur = NULL;
    }
}

bool claw_log_decisions_on(void) { return atomic_load_explicit(&decisions_on, memory_order_relaxed); }

static struct claw_buf *begin(void)
{
    struct local *l = mine ? mine : local_new();
    if (!l || !local_try(l)) {
        drop(1);
        return NULL;
    }
    if (!l->cur && (l->cur = calloc(1, sizeof *l->cur))) claw_buf_init(&l->cur->buf, CHUNK_MAX_BYTES);
    if (!l->cur) {
        local_done(l);
        drop(1);
        return NULL;
    }
    l->line_at = l->cur->buf.len;
    return &l->cur->buf;
}

struct claw_buf *claw_log_begin(enum claw_log_level level) { return claw_log_on(level) ? begin() : NULL; }

struct claw_buf *claw_log_begin_decision(void)
{
    static const char mark = DECISION_MARK;
    struct claw_buf *b = claw_log_decisions_on() ? begin() : NULL;
    if (!b) return NULL;
    if (claw_buf_add(b, &mark, 1) == 0) return b;
    claw_log_end(b);
    return NULL;
}

void claw_log_end(struct claw_buf *b)
{
    struct local *l = mine;
    CLAW_ASSERT(l && l->cur && b == &l->cur->buf && b->off == 0 && b->len >= l->line_at);
    size_t n = b->len - l->line_at;
    if (n > 0) {
        /* A line that does not end in a newline is one whose building failed half-way. */
        bool decision = b->data[l->line_at] == DECISION_MARK;
        if (n <= (decision ? DECISION_MAX_BYTES : LINE_MAX_BYTES) && b->data[b->len - 1] == '\n') {
            l->cur->decisions |= decision;
            claw_log_redact_from(b, l->line_at, 1);
            l->cur->lines++;
        } else {
            b->len = l->line_at;
            drop(1);
        }
    }
    if (b->len >= HAND_OVER_BYTES || b->cap > SPARE_BYTES || !atomic_load_explicit(&running, memory_order_relaxed))
        local_deliver(l);
    local_done(l);
}

void claw_log_flush(void)
{
    if (!mine || !local_try(mine)) return;
    local_deliver(mine);
    local_done(mine);
}

size_t claw_log_waiting(void)
{
    if (!mine || !local_try(mine)) return 0;
    size_t n = mine->cur ? mine->cur->buf.len : 0;
    local_done(mine);
    return n;
}

void claw_log_thread_end(void)
{
    struct local *l = mine;
    if (!l) return;
    pthread_setspecific(mine_key, NULL);
    mine = NULL;
    pthread_mutex_lock(&locals_lock);
    for (struct local **at = &locals; *at; at = &(*at)->next) {
        if (*at != l) continue;
        *at = l->next;
        break;
    }
    pthread_mutex_unlock(&locals_lock);
    /* Out of the list nobody else reaches it. */
    local_deliver(l);
    if (l->cur) chunk_free(l->cur);
    free(l);
}

/* ---- events ---- */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static int add_bare(struct claw_buf *b, struct claw_str s)
{
    bool bare = s.len > 0;
    for (size_t i = 0; i < s.len && bare; i++)
        bare = s.ptr[i] > ' ' && s.ptr[i] < 0x7F && s.ptr[i] != '"' && s.ptr[i] != '\\' && s.ptr[i] != '=';
    return bare ? claw_buf_add_str(b, s) : claw_buf_add_json(b, s);
}

static int add_field(struct claw_buf *b, bool text, const char *key, const char *value)
{
    struct claw_str k = claw_str_of(key), v = claw_str_of(value ? value : "null");
    bool number = k.len && key[k.len - 1] == '#';
    k.len -= number;
    int r = claw_buf_add_z(b, text ? " " : ",");
    if (!r) r = text ? claw_buf_add_str(b, k) : claw_buf_add_json(b, k);
    if (!r) r = claw_buf_add_z(b, text ? "=" : ":");
    if (!r && (number || !value)) r = claw_buf_add_str(b, v);
    else if (!r) r = text ? add_bare(b, v) : claw_buf_add_json(b, v);
    return r;
}

static int add_text_head(struct claw_buf *b, const char *level, struct claw_str msg)
{
    int r = claw_log_add_time(b);
    if (!r) r = claw_buf_add_fmt(b, " %s ", level);
    size_t quote = b->len;
    if (!r) r = claw_buf_add_json(b, msg);
    if (r) return r;
    /* Escaped as in JSON, so that a message stays on its line, but without the quotes. */
    memmove(b->data + quote, b->data + quote + 1, b->len - quote - 2);
    b->len -= 2;
    return 0;
}

static int add_json_head(struct claw_buf *b, const char *level, struct claw_str msg)
{
    int r = claw_buf_add_z(b, "{\"time\":\"");
    if (!r) r = claw_log_add_time(b);
    if (!r) r = claw_buf_add_fmt(b, "\",\"level\":\"%s\",\"msg\":", level);
    return r ? r : claw_buf_add_json(b, msg);
}

void claw_log_event(enum claw_log_level level, const char *msg, ...)
{
    struct claw_buf *b = claw_log_begin(level);
    if (!b) return;
    bool text = atomic_load_explicit(&text_form, memory_order_relaxed);
    const char *name = level_names[level], *key;
    int r = text ? add_text_head(b, name, claw_str_of(msg)) : add_json_head(b, name, claw_str_of(msg));
    va_list ap;
    va_start(ap, msg);
    while (!r && (key = va_arg(ap, const char *))) {
        const char *value = va_arg(ap, const char *);
        r = add_field(b, text, key, value);
    }
    va_end(ap);
    if (!r) r = claw_buf_add_z(b, text ? "\n" : "}\n");
    if (r) {
        b->len = mine->line_at;
        drop(1);
    }
    claw_log_end(b);
}

/* ---- control ---- */

static int decisions_apply(const char *path, bool anew)
{
    struct target t = {.fd = -1};
    char *copy = NULL;
    if (!path && !q.decisions) return 0;
    if (!anew && path && q.decisions && strcmp(path, q.decisions) == 0) return 0;
    if (path && !(copy = strdup(path))) return CLAW_ENOMEM;
    int r = copy ? target_open(0, copy, &t) : 0;
    if (r) {
        free(copy);
        return r;
    }
    pthread_mutex_lock(&q.lock);
    if (q.decisions_fresh) target_close(&q.decisions_next);
    q.decisions_next = t;
    q.decisions_fresh = true;
    free(q.decisions);
    q.decisions = copy;
    pthread_cond_signal(&q.work);
    pthread_mutex_unlock(&q.lock);
    atomic_store(&decisions_on, copy != NULL);
    return 0;
}

static int conf_apply(const struct claw_log_conf *conf, bool anew)
{
    struct target t;
    char *path = NULL;
    if (conf->to == 0 && !conf->path) return CLAW_EINVAL;
    int told = decisions_apply(conf->decisions, anew);
    if (told) return told;
    if (!anew && conf->to == q.to && (conf->to != 0 || (q.path && strcmp(q.path, conf->path) == 0))) { /* the same target goes on */
        atomic_store(&level_min, (int)conf->level);
        atomic_store(&text_form, conf->text);
        return 0;
    }
    if (conf->to == 0 && !(path = strdup(conf->path))) return CLAW_ENOMEM;
    int r = target_open(conf->to, path, &t);
    if (r) {
        int why = errno;
        free(path);
        errno = why;
        return r;
    }
    pthread_mutex_lock(&q.lock);
    if (q.fresh) target_close(&q.next); /* never reached the writer */
    q.next = t;
    q.fresh = true;
    q.to = conf->to;
    free(q.path);
    q.path = path;
    pthread_cond_signal(&q.work);
    pthread_mutex_unlock(&q.lock);
    atomic_store(&level_min, (int)conf->level);
    atomic_store(&text_form, conf->text);
    return 0;
}

int claw_log_open(const struct claw_log_conf *conf)
{
    pthread_once(&once, init_once);
    if (atomic_load(&running)) return CLAW_EINVAL;
    if (q.stale) pthread_join(q.thread, NULL);
    q.stale = q.stop = q.abandon = q.ended = false;
    int r = conf_apply(conf, true);
    if (r) return r;

    /* The process's signals are for the control thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int why = pthread_create(&q.thread, NULL, writer_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (why) {
        target_close(&q.next);
        q.fresh = false;
        errno = why;
        return CLAW_EIO;
    }
    pthread_mutex_lock(&q.lock);
    q.accepting = true;
    pthread_mutex_unlock(&q.lock);
    atomic_store(&running, true);
    return 0;
}

int claw_log_set(const struct claw_log_conf *conf)
{
    return atomic_load(&running) ? conf_apply(conf, false) : CLAW_EINVAL;
}

int claw_log_reopen(void)
{
    struct claw_log_conf conf = {.to = q.to, .path = q.path}; /* `to` and the paths change in this thread only */
    if (!atomic_load(&running)) return 0;
    int told = q.decisions ? decisions_apply(q.decisions, true) : 0;
    if (told || conf.to != 0) return told;
    conf.decisions = q.decisions;
    conf.level = (enum claw_log_level)atomic_load(&level_min);
    conf.text = atomic_load(&text_form);
    return conf_apply(&conf, true);
}

/* What other threads still gather. One that is inside a line keeps it and brings it to stderr at its end. */
static void collect(void)
{
    pthread_mutex_lock(&locals_lock);
    for (struct local *l = locals; l; l = l->next) {
        if (!local_try(l)) continue;
        if (l->cur && l->cur->lines) l->cur = hand_over(l->cur);
        local_done(l);
    }
    pthread_mutex_unlock(&locals_lock);
}

void claw_log_close(unsigned wait_ms)
{
    if (!atomic_exchange(&running, false)) return;
    atomic_store(&decisions_on, false);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;

    collect();
    pthread_mutex_lock(&q.lock);
    q.accepting = false;
    q.stop = true;
    pthread_cond_signal(&q.work);
    while (!q.ended && pthread_cond_timedwait(&q.done, &q.lock, &until) != ETIMEDOUT) continue;
    q.stale = q.abandon = !q.ended;
    while (q.abandon && q.head) { /* the chunk the writer holds is for it to count */
        struct chunk *c = q.head;
        q.head = c->next;
        q.bytes -= c->buf.len;
        drop(c->lines);
        chunk_free(c);
    }
    if (q.abandon) q.tail = NULL;
    while (q.spare) {
        struct chunk *c = q.spare;
        q.spare = c->next;
        chunk_free(c);
    }
    q.spares = 0;
    pthread_mutex_unlock(&q.lock);
    if (!q.stale) pthread_join(q.thread, NULL);
}
