#include "proxy/metrics.h"

#include "proxy/series.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define LABELS_MAX 3
#define LABEL_BYTES 128
#define RECENT 2 /* a request counts input and output tokens */

enum type { COUNTER, GAUGE, SECONDS, MICROS };

static const struct family {
    enum type type;
    const char *name, *labels, *help;
} families[] = {
#define FAMILY(id, type, name, labels, help) {type, name, labels, help},
    CLAW_METRICS_MAP(FAMILY)
#undef FAMILY
};

/* Upper bounds of the histograms in microseconds: a millisecond's parts for overhead up to minutes for long answers. */
static const uint64_t bounds[] = {50,     100,    250,     500,     1000,    2500,     5000,     10000,    25000,     50000,    100000,
                                  250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000, 60000000, 120000000, 300000000};
#define BOUNDS (sizeof bounds / sizeof *bounds)

/* A label set of the process: the shards' series of it point here. Made once, kept until the process ends. */
struct set {
    struct set *next; /* in its chain */
    uint64_t hash;
    enum claw_metric metric;
    unsigned number;  /* among its family's, from 0 */
    uint8_t labels_n;
    struct claw_str labels[LABELS_MAX];
};

struct series {
    struct series *next; /* in the shard's list of its family, newest first */
    const struct set *set;
    _Atomic int64_t value;            /* counters, gauges; of histograms: the sum in microseconds */
    _Atomic uint64_t *buckets;        /* BOUNDS + 1, not cumulative */
};

struct claw_metrics_shard {
    struct series *last[CLAW_METRIC_COUNT][RECENT]; /* the owner's: requests in a row mostly count the same series */
    struct series **slots;                          /* the owner's, open-addressed, never more than half full */
    size_t slots_n, n;
    struct series *_Atomic all[CLAW_METRIC_COUNT];  /* what the scraper reads */
};

#define CHAINS 4096u
#define SLOTS 256u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows, but for reading shards */
static struct claw_metrics_shard *shards[CLAW_METRICS_SHARDS];
static _Atomic size_t shards_n;
static struct set *chains[CHAINS];
static _Atomic size_t sets_n;                 /* without those of "other" */
static size_t modelled_n;                     /* of these, the ones with a model's name */
static unsigned numbers[CLAW_METRIC_COUNT];   /* sets of each family */
static _Atomic size_t sets_max = CLAW_METRICS_SERIES;

struct claw_metrics_shard *claw_metrics_shard_new(void)
{
    struct claw_metrics_shard *s = NULL;
    pthread_mutex_lock(&lock);
    size_t n = atomic_load(&shards_n);
    if (n < CLAW_METRICS_SHARDS && (s = calloc(1, sizeof *s)) != NULL && (s->slots = calloc(SLOTS, sizeof *s->slots)) != NULL) {
        s->slots_n = SLOTS;
        shards[n] = s;
        atomic_store(&shards_n, n + 1);
    } else {
        free(s);
        s = NULL;
    }
    pthread_mutex_unlock(&lock);
    return s;
}

void claw_metrics_bound(size_t most) { atomic_store(&sets_max, most); }

size_t claw_metrics_count(void) { return atomic_load(&sets_n); }

void claw_metrics_reset(void)
{
    for (size_t i = 0; i < atomic_load(&shards_n); i++) {
        for (size_t k = 0; k < shards[i]->slots_n; k++) {
            struct series *s = shards[i]->slots[k];
            if (s) free(s->buckets);
            free(s);
        }
        free(shards[i]->slots);
        free(shards[i]);
    }
    for (size_t i = 0; i < CHAINS; i++) {
        for (struct set *s = chains[i], *next; s; s = next) {
            next = s->next;
            free(s);
        }
        chains[i] = NULL;
    }
    memset(numbers, 0, sizeof numbers);
    modelled_n = 0;
    atomic_store(&sets_n, 0);
    atomic_store(&shards_n, 0);
    atomic_store(&sets_max, CLAW_METRICS_SERIES);
}

/* Label values are a few bytes: two overlapping words are cheaper than a call. */
static inline bool same(const char *a, const char *b, size_t n)
{
    uint64_t x, y;
    uint32_t v, w;
    if (n > 16) return memcmp(a, b, n) == 0;
    if (n >= 8) {
        memcpy(&x, a, 8);
        memcpy(&y, b, 8);
        if (x != y) return false;
        memcpy(&x, a + n - 8, 8);
        memcpy(&y, b + n - 8, 8);
        return x == y;
    }
    if (n >= 4) {
        memcpy(&v, a, 4);
        memcpy(&w, b, 4);
        if (v != w) return false;
        memcpy(&v, a + n - 4, 4);
        memcpy(&w, b + n - 4, 4);
        return v == w;
    }
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i]) return false;
    return true;
}

static inline bool has(const struct set *s, unsigned n, const struct claw_str *labels)
{
    if (s->labels_n != n) return false;
    for (unsigned i = n; i-- > 0;) { /* the last label tells most */
        if (s->labels[i].len != labels[i].len) return false;
        if (!same(s->labels[i].ptr, labels[i].ptr, labels[i].len)) return false;
    }
    return true;
}

/* Bound: not past it, else as far as there is memory. The lock is held. */
static struct set *set_new(uint64_t hash, enum claw_metric m, unsigned n, const struct claw_str *labels, bool bound)
{
    bool modelled = strstr(families[m].labels, "model_name") != NULL;
    size_t most = atomic_load(&sets_max), bytes = sizeof(struct set);
    if (bound && (atomic_load(&sets_n) >= most || (modelled && modelled_n >= most / 2))) return NULL;
    for (unsigned i = 0; i < n; i++) bytes += labels[i].len;
    struct set *s = calloc(1, bytes);
    if (!s) return NULL;
    *s = (struct set){.next = chains[hash % CHAINS], .hash = hash, .metric = m, .number = numbers[m]++, .labels_n = (uint8_t)n};
    char *at = (char *)(s + 1);
    for (unsigned i = 0; i < n; i++) {
        if (labels[i].len) memcpy(at, labels[i].ptr, labels[i].len);
        s->labels[i] = (struct claw_str){at, labels[i].len};
        at += labels[i].len;
    }
    chains[hash % CHAINS] = s;
    if (bound) {
        atomic_fetch_add(&sets_n, 1);
        modelled_n += modelled;
    }
    return s;
}

static const struct set *set_of(uint64_t hash, enum claw_metric m, unsigned n, const struct claw_str *labels, bool bound)
{
    pthread_mutex_lock(&lock);
    struct set *s = chains[hash % CHAINS];
    while (s && (s->hash != hash || s->metric != m || !has(s, n, labels))) s = s->next;
    if (!s) s = set_new(hash, m, n, labels, bound);
    pthread_mutex_unlock(&lock);
    return s;
}

static bool widen(struct claw_metrics_shard *shard)
{
    size_t more = shard->slots_n * 2;
    struct series **slots = calloc(more, sizeof *slots);
    if (!slots) return false;
    for (size_t k = 0; k < shard->slots_n; k++) {
        struct series *s = shard->slots[k];
        size_t i = s ? s->set->hash & (more - 1) : 0;
        while (s && slots[i]) i = (i + 1) & (more - 1);
        if (s) slots[i] = s;
    }
    free(shard->slots);
    shard->slots = slots;
    shard->slots_n = more;
    return true;
}

static struct series *series_new(const struct set *set)
{
    struct series *s = set ? calloc(1, sizeof *s) : NULL;
    if (!s) return NULL;
    s->set = set;
    if (families[set->metric].type == SECONDS && !(s->buckets = calloc(BOUNDS + 1, sizeof *s->buckets))) {
        free(s);
        return NULL;
    }
    return s;
}

/* Eight bytes a step: label values are short, and this runs several times a request. */
static uint64_t mix(uint64_t h, struct claw_str s)
{
    uint64_t w;
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        memcpy(&w, s.ptr + i, 8);
        h = (h ^ w) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    w = s.len;
    for (; i < s.len; i++) w = w << 8 | (unsigned char)s.ptr[i];
    h = (h ^ w) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

/* The scrape must be UTF-8, and a model's name may be any bytes (percent-encoded in a path, a form's field): one that is not has `?` in their
 * place. Before it is looked for, so that two do not become the same line. */
static void mend(struct claw_str *label, char into[LABEL_BYTES])
{
    if (claw_buf_is_utf8(*label)) return;
    for (size_t i = 0; i < label->len; i++) into[i] = (unsigned char)label->ptr[i] < 0x80 ? label->ptr[i] : '?';
    label->ptr = into;
}

/* The owner's look-up; the only writer of its shard. */
static struct series *find(struct claw_metrics_shard *shard, enum claw_metric m, unsigned n, const struct claw_str *given, bool bound)
{
    struct claw_str labels[LABELS_MAX];
    char mended[LABELS_MAX][LABEL_BYTES];
    uint64_t hash = ((uint64_t)m + 1) * 0x9e3779b97f4a7c15u;
    for (unsigned i = 0; i < n; i++) {
        labels[i] = given[i];
        if (labels[i].len > LABEL_BYTES) { /* not within a character: the scrape must be UTF-8 */
            labels[i].len = LABEL_BYTES;
            while (labels[i].len && ((unsigned char)labels[i].ptr[labels[i].len] & 0xc0) == 0x80) labels[i].len--;
        }
        mend(&labels[i], mended[i]);
        hash = mix(hash, labels[i]);
    }
    size_t mask = shard->slots_n - 1, i = hash & mask;
    for (struct series *s; (s = shard->slots[i]); i = (i + 1) & mask)
        if (s->set->hash == hash && s->set->metric == m && has(s->set, n, labels)) return s;
    if (shard->n * 2 >= shard->slots_n) {
        if (!widen(shard)) return NULL;
        mask = shard->slots_n - 1;
        for (i = hash & mask; shard->slots[i];) i = (i + 1) & mask;
    }
    struct series *s = series_new(set_of(hash, m, n, labels, bound));
    if (!s) return NULL;
    shard->slots[i] = s;
    shard->n++;
    s->next = atomic_load_explicit(&shard->all[m], memory_order_relaxed);
    atomic_store_explicit(&shard->all[m], s, memory_order_release);
    return s;
}

/* None of those last counted; they have a frame of their own, which the others do not pay for. */
static __attribute__((noinline)) struct series *find_another(struct claw_metrics_shard *shard, enum claw_metric m, unsigned n, const struct claw_str *labels)
{
    CLAW_ASSERT(n <= LABELS_MAX);
    struct series **last = shard->last[m], *s = find(shard, m, n, labels, true);
    if (s) {
        memmove(last + 1, last, (RECENT - 1) * sizeof *last);
        return last[0] = s;
    }
    /* Past the bound there is room for what is counted as "other". */
    const struct claw_str other[LABELS_MAX] = {CLAW_STR("other"), CLAW_STR("other"), CLAW_STR("other")};
    struct series *over = find(shard, CLAW_METRIC_OVERFLOW, 0, NULL, false);
    if (over) atomic_fetch_add_explicit(&over->value, 1, memory_order_relaxed);
    return find(shard, m, n, other, false);
}

static inline struct series *find_or_other(struct claw_metrics_shard *shard, enum claw_metric m, unsigned n, const struct claw_str *labels)
{
    struct series **last = shard->last[m];
    for (unsigned i = 0; i < RECENT && last[i]; i++)
        if (has(last[i]->set, n, labels)) return last[i];
    return find_another(shard, m, n, labels);
}

void claw_metrics_add(struct claw_metrics_shard *s, enum claw_metric m, int64_t n, unsigned labels_n,
                      const struct claw_str *labels)
{
    struct series *x = s ? find_or_other(s, m, labels_n, labels) : NULL;
    if (x) atomic_store_explicit(&x->value, atomic_load_explicit(&x->value, memory_order_relaxed) + n, memory_order_relaxed);
}

void claw_metrics_set(struct claw_metrics_shard *s, enum claw_metric m, int64_t v, unsigned labels_n,
                      const struct claw_str *labels)
{
    struct series *x = s ? find_or_other(s, m, labels_n, labels) : NULL;
    if (x) atomic_store_explicit(&x->value, v, memory_order_relaxed);
}

void claw_metrics_clear(struct claw_metrics_shard *shard, enum claw_metric m)
{
    for (struct series *s = shard ? atomic_load_explicit(&shard->all[m], memory_order_relaxed) : NULL; s; s = s->next)
        atomic_store_explicit(&s->value, 0, memory_order_relaxed);
}

void claw_metrics_observe(struct claw_metrics_shard *s, enum claw_metric m, uint64_t us, unsigned labels_n,
                          const struct claw_str *labels)
{
    struct series *x = s ? find_or_other(s, m, labels_n, labels) : NULL;
    if (!x) return;
    unsigned i = us <= bounds[5] ? 0 : us <= bounds[11] ? 6 : 12; /* most are near the beginning of one of these */
    while (i < BOUNDS && us > bounds[i]) i++;
    atomic_store_explicit(&x->buckets[i], atomic_load_explicit(&x->buckets[i], memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_store_explicit(&x->value, atomic_load_explicit(&x->value, memory_order_relaxed) + (int64_t)us, memory_order_relaxed);
}

void claw_metrics_zero(struct claw_metrics_shard *s)
{
    for (unsigned m = 0; m < CLAW_METRIC_COUNT; m++)
        if (families[m].type == COUNTER && !*families[m].labels) claw_metrics_add(s, (enum claw_metric)m, 0, 0, NULL);
}

/* ---- scraping ------------------------------------------------------------------------------------------------- */

struct total {
    const struct set *like; /* NULL: no shard has it */
    int64_t value;
    uint64_t buckets[BOUNDS + 1];
};

static int add_label_value(struct claw_buf *out, struct claw_str v)
{
    int rc = claw_buf_add_z(out, "\"");
    for (size_t i = 0; i < v.len && rc == 0; i++) {
        char c = v.ptr[i];
        if (c == '\\' || c == '"') rc = claw_buf_add_fmt(out, "\\%c", c);
        else if (c == '\n') rc = claw_buf_add_z(out, "\\n");
        else rc = claw_buf_add(out, &c, 1);
    }
    return rc == 0 ? claw_buf_add_z(out, "\"") : rc;
}

/* {a="x",b="y"[,le="…"]}; nothing when there are none. */
static int add_labels(struct claw_buf *out, const struct family *f, const struct set *s, const char *le)
{
    struct claw_str names = claw_str_of(f->labels);
    int rc = 0;
    if (names.len == 0 && !le) return 0;
    rc = claw_buf_add_z(out, "{");
    for (unsigned i = 0; names.len && rc == 0; i++) {
        ptrdiff_t comma = claw_str_find(names, CLAW_STR(","));
        struct claw_str name = {names.ptr, comma < 0 ? names.len : (size_t)comma};
        names = comma < 0 ? (struct claw_str){names.ptr, 0} : (struct claw_str){names.ptr + comma + 1, names.len - (size_t)comma - 1};
        rc = claw_buf_add_fmt(out, "%s%.*s=", i ? "," : "", CLAW_STR_FMT(name));
        if (rc == 0) rc = add_label_value(out, i < s->labels_n ? s->labels[i] : CLAW_STR(""));
    }
    if (le && rc == 0) rc = claw_buf_add_fmt(out, "%sle=\"%s\"", *f->labels ? "," : "", le);
    return rc == 0 ? claw_buf_add_z(out, "}") : rc;
}

static int add_micros_line(struct claw_buf *out, const char *name, const char *suffix, const struct family *f,
                           const struct set *s, int64_t micros)
{
    int rc = claw_buf_add_fmt(out, "%s%s", name, suffix);
    if (rc == 0) rc = add_labels(out, f, s, NULL);
    if (rc == 0) rc = claw_buf_add_z(out, " ");
    if (rc == 0) rc = claw_buf_add_micros(out, micros);
    return rc == 0 ? claw_buf_add_z(out, "\n") : rc;
}

static int add_count_line(struct claw_buf *out, const char *name, const char *suffix, const struct family *f,
                          const struct set *s, const char *le, int64_t n)
{
    int rc = claw_buf_add_fmt(out, "%s%s", name, suffix);
    if (rc == 0) rc = add_labels(out, f, s, le);
    return rc == 0 ? claw_buf_add_fmt(out, " %lld\n", (long long)n) : rc;
}

static int add_total(struct claw_buf *out, const struct family *f, const struct total *t)
{
    if (f->type == MICROS) return add_micros_line(out, f->name, "", f, t->like, t->value);
    if (f->type != SECONDS) return add_count_line(out, f->name, "", f, t->like, NULL, t->value);
    uint64_t sum = 0;
    int rc = 0;
    for (size_t i = 0; i < BOUNDS && rc == 0; i++) {
        char le[24];
        sum += t->buckets[i];
        snprintf(le, sizeof le, "%g", (double)bounds[i] / 1e6);
        rc = add_count_line(out, f->name, "_bucket", f, t->like, le, (int64_t)sum);
    }
    sum += t->buckets[BOUNDS];
    if (rc == 0) rc = add_count_line(out, f->name, "_bucket", f, t->like, "+Inf", (int64_t)sum);
    if (rc == 0) rc = add_micros_line(out, f->name, "_sum", f, t->like, t->value);
    return rc == 0 ? add_count_line(out, f->name, "_count", f, t->like, NULL, (int64_t)sum) : rc;
}

/* The sums of a family's label sets, in the order they came. */
static int gather(enum claw_metric m, struct total **list, size_t *n, size_t *cap)
{
    pthread_mutex_lock(&lock);
    *n = numbers[m]; /* what comes meanwhile is the next scrape's */
    pthread_mutex_unlock(&lock);
    if (*n > *cap) {
        struct total *grown = realloc(*list, *n * 2 * sizeof *grown);
        if (!grown) return CLAW_ENOMEM;
        *list = grown;
        *cap = *n * 2;
    }
    if (*n) memset(*list, 0, *n * sizeof **list);
    for (size_t i = 0; i < atomic_load(&shards_n); i++) {
        for (struct series *s = atomic_load_explicit(&shards[i]->all[m], memory_order_acquire); s; s = s->next) {
            if (s->set->number >= *n) continue;
            struct total *t = &(*list)[s->set->number];
            t->like = s->set;
            t->value += atomic_load_explicit(&s->value, memory_order_relaxed);
            for (size_t b = 0; s->buckets && b <= BOUNDS; b++)
                t->buckets[b] += atomic_load_explicit(&s->buckets[b], memory_order_relaxed);
        }
    }
    size_t kept = 0; /* a set may have no series: there was no memory for it */
    for (size_t i = 0; i < *n; i++)
        if ((*list)[i].like) (*list)[kept++] = (*list)[i];
    *n = kept;
    return 0;
}

bool claw_metrics_taken(struct claw_str name)
{
    for (unsigned m = 0; m < CLAW_METRIC_COUNT; m++) {
        struct claw_str known = claw_str_of(families[m].name);
        if (!claw_str_starts(name, known)) continue;
        struct claw_str rest = {name.ptr + known.len, name.len - known.len};
        if (!rest.len) return true;
        if (families[m].type == SECONDS && (claw_str_eqz(rest, "_bucket") || claw_str_eqz(rest, "_sum") || claw_str_eqz(rest, "_count"))) return true;
    }
    return false;
}

int claw_metrics_write(struct claw_buf *out)
{
    static const char *types[] = {"counter", "gauge", "histogram", "counter"};
    struct total *list = NULL;
    size_t n = 0, cap = 0;
    int rc = 0;
    for (unsigned m = 0; m < CLAW_METRIC_COUNT && rc == 0; m++) {
        const struct family *f = &families[m];
        rc = claw_buf_add_fmt(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, types[f->type]);
        if (rc == 0) rc = gather((enum claw_metric)m, &list, &n, &cap);
        for (size_t i = 0; i < n && rc == 0; i++) rc = add_total(out, f, &list[i]);
    }
    free(list);
    return rc == 0 ? claw_series_write(out) : rc;
}

/* ---- as JSON ---------------------------------------------------------------------------------------------------------- */

static int add_json_total(struct claw_buf *out, const struct family *f, const struct total *t)
{
    struct claw_str names = claw_str_of(f->labels);
    int rc = claw_buf_add_z(out, "{");
    for (unsigned i = 0; names.len && rc == 0; i++) {
        ptrdiff_t comma = claw_str_find(names, CLAW_STR(","));
        struct claw_str name = {names.ptr, comma < 0 ? names.len : (size_t)comma};
        names = comma < 0 ? (struct claw_str){names.ptr, 0} : (struct claw_str){names.ptr + comma + 1, names.len - (size_t)comma - 1};
        rc = claw_buf_add_fmt(out, "\"%.*s\":", CLAW_STR_FMT(name));
        if (rc == 0) rc = claw_buf_add_json(out, i < t->like->labels_n ? t->like->labels[i] : CLAW_STR(""));
        if (rc == 0) rc = claw_buf_add_z(out, ",");
    }
    if (rc != 0) return rc;
    if (f->type == COUNTER || f->type == GAUGE) return claw_buf_add_fmt(out, "\"value\":%lld}", (long long)t->value);
    rc = claw_buf_add_z(out, f->type == MICROS ? "\"value\":" : "\"sum\":");
    if (rc == 0) rc = claw_buf_add_micros(out, t->value);
    if (rc == 0 && f->type == SECONDS) rc = claw_buf_add_z(out, ",\"buckets\":[");
    for (size_t i = 0; f->type == SECONDS && i <= BOUNDS && rc == 0; i++)
        rc = claw_buf_add_fmt(out, "%s%llu", i ? "," : "", (unsigned long long)t->buckets[i]);
    if (rc == 0 && f->type == SECONDS) rc = claw_buf_add_z(out, "]");
    return rc == 0 ? claw_buf_add_z(out, "}") : rc;
}

int claw_metrics_write_json(const enum claw_metric *which, unsigned n, struct claw_buf *out)
{
    struct total *list = NULL;
    size_t found = 0, cap = 0;
    int rc = claw_buf_add_z(out, "\"bounds\":[");
    for (size_t i = 0; i < BOUNDS && rc == 0; i++) rc = claw_buf_add_fmt(out, "%s%g", i ? "," : "", (double)bounds[i] / 1e6);
    if (rc == 0) rc = claw_buf_add_z(out, "]");
    for (unsigned m = 0; m < n && rc == 0; m++) {
        const struct family *f = &families[which[m]];
        rc = claw_buf_add_fmt(out, ",\n\"%s\":[", f->name);
        if (rc == 0) rc = gather(which[m], &list, &found, &cap);
        for (size_t i = 0; i < found && rc == 0; i++) {
            if (i) rc = claw_buf_add_z(out, ",");
            if (rc == 0) rc = add_json_total(out, f, &list[i]);
        }
        if (rc == 0) rc = claw_buf_add_z(out, "]");
    }
    free(list);
    return rc;
}
