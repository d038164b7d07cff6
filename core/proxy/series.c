#include "proxy/series.h"

#include "proxy/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_BYTES 48

struct name {
    enum claw_series_kind kind;
    char full[sizeof "openclaw_policy__total" + NAME_MAX_BYTES];
    size_t n; /* of NAME in it, from PREFIX on */
};

struct series {
    const struct name *name;
    struct claw_str policy, label;
    _Atomic double value;
};

#define PREFIX (sizeof "openclaw_policy_" - 1)
#define SLOTS 1024u /* over twice the series: a look-up ends at a free one */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of those who add */
static struct name names[CLAW_SERIES_NAMES];
static atomic_uint names_n;
static _Atomic(struct series *) slots[SLOTS];
static unsigned series_n;

static bool is_name(const struct name *x, struct claw_str name)
{
    return claw_str_eq((struct claw_str){x->full + PREFIX, x->n}, name);
}

static const struct name *name_of(struct claw_str name)
{
    for (unsigned i = 0; i < atomic_load_explicit(&names_n, memory_order_acquire); i++)
        if (is_name(&names[i], name)) return &names[i];
    return NULL;
}

static unsigned slot_of(struct claw_str name, struct claw_str policy, struct claw_str label)
{
    uint64_t h = claw_str_hash(label, claw_str_hash(policy, claw_str_hash(name, 0)));
    return (unsigned)((h ^ h >> 32) * 0x9e3779b97f4a7c15u >> 54);
}

/* The series, or the free slot where it would be. */
static struct series *find(struct claw_str name, struct claw_str policy, struct claw_str label, unsigned *slot)
{
    for (unsigned i = slot_of(name, policy, label);; i = (i + 1) % SLOTS) {
        struct series *s = atomic_load_explicit(&slots[i], memory_order_acquire);
        *slot = i;
        if (!s || (is_name(s->name, name) && claw_str_eq(s->policy, policy) && claw_str_eq(s->label, label))) return s;
    }
}

static const struct name *add_name(enum claw_series_kind kind, struct claw_str name, int *rc, const char **why)
{
    unsigned n = atomic_load(&names_n);
    struct name x = {.kind = kind, .n = name.len};
    int len = snprintf(x.full, sizeof x.full, "openclaw_policy_%.*s%s", CLAW_STR_FMT(name), kind == CLAW_SERIES_COUNTER ? "_total" : "");
    struct claw_str total = CLAW_STR("_total");
    bool ends = name.len >= total.len && claw_str_eq((struct claw_str){name.ptr + name.len - total.len, total.len}, total);
    *rc = CLAW_EINVAL;
    *why = "the name is one of the proxy's own";
    if (claw_metrics_taken((struct claw_str){x.full, (size_t)len})) return NULL;
    *why = "_total is what counters get at their end";
    if (ends) return NULL;
    *rc = CLAW_ENOMEM;
    *why = "policies use 32 names already";
    if (n == CLAW_SERIES_NAMES) return NULL;
    names[n] = x;
    atomic_store_explicit(&names_n, n + 1, memory_order_release);
    return &names[n];
}

static struct series *series_new(const struct name *name, struct claw_str policy, struct claw_str label)
{
    struct series *s = malloc(sizeof *s + policy.len + label.len);
    if (!s) return NULL;
    char *at = (char *)(s + 1);
    if (policy.len) memcpy(at, policy.ptr, policy.len);
    if (label.len) memcpy(at + policy.len, label.ptr, label.len);
    s->name = name;
    s->policy = (struct claw_str){at, policy.len};
    s->label = (struct claw_str){at + policy.len, label.len};
    atomic_init(&s->value, 0.0);
    return s;
}

static struct series *add(enum claw_series_kind kind, struct claw_str text, struct claw_str policy, struct claw_str label,
                          int *rc, const char **why)
{
    unsigned slot;
    pthread_mutex_lock(&lock);
    struct series *s = find(text, policy, label, &slot);
    const struct name *name = name_of(text);
    if (!s && !name) name = add_name(kind, text, rc, why);
    if (!s && name) {
        *rc = CLAW_ENOMEM;
        *why = "policies have 500 series already";
        if (series_n < CLAW_SERIES_MAX && (s = series_new(name, policy, label)) != NULL) {
            series_n++;
            atomic_store_explicit(&slots[slot], s, memory_order_release);
        }
    }
    pthread_mutex_unlock(&lock);
    return s;
}

int claw_series_note(enum claw_series_kind kind, struct claw_str name, struct claw_str policy, struct claw_str label, double n,
                     const char **why)
{
    int rc = CLAW_OK;
    unsigned slot;
    if (name.len > NAME_MAX_BYTES) {
        *why = "the name is too long";
        return CLAW_EINVAL;
    }
    if (label.len > CLAW_SERIES_LABEL) { /* not within a character: the scrape must be UTF-8 */
        label.len = CLAW_SERIES_LABEL;
        while (label.len && ((unsigned char)label.ptr[label.len] & 0xc0) == 0x80) label.len--;
    }
    struct series *s = find(name, policy, label, &slot);
    if (!s) s = add(kind, name, policy, label, &rc, why);
    if (!s) return rc;
    if (s->name->kind != kind) {
        *why = kind == CLAW_SERIES_COUNTER ? "the name is a gauge's" : "the name is a counter's";
        return CLAW_EINVAL;
    }
    if (kind == CLAW_SERIES_GAUGE) {
        atomic_store_explicit(&s->value, n, memory_order_relaxed);
        return CLAW_OK;
    }
    double old = atomic_load_explicit(&s->value, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&s->value, &old, old + n, memory_order_relaxed, memory_order_relaxed)) {}
    return CLAW_OK;
}

/* ---- scraping ----------------------------------------------------------------------------------------------- */

/* In quotes, as JSON has them: the escapes that the text format knows are among JSON's, and what is no UTF-8 is replaced. What
 * else JSON escapes (controls) becomes a blank. */
static int add_value(struct claw_buf *out, struct claw_str v)
{
    char plain[CLAW_SERIES_LABEL + 128];
    size_t n = 0;
    for (; n < v.len && n < sizeof plain; n++) {
        unsigned char c = (unsigned char)v.ptr[n];
        plain[n] = (c < 0x20 && c != '\n') || c == 0x7f ? ' ' : v.ptr[n];
    }
    return claw_buf_add_json(out, (struct claw_str){plain, n});
}

static int add_line(struct claw_buf *out, const struct series *s)
{
    int rc = claw_buf_add_fmt(out, "%s{policy=", s->name->full);
    if (rc == 0) rc = add_value(out, s->policy);
    if (rc == 0) rc = claw_buf_add_z(out, ",label=");
    if (rc == 0) rc = add_value(out, s->label);
    return rc == 0 ? claw_buf_add_fmt(out, "} %.17g\n", atomic_load_explicit(&s->value, memory_order_relaxed)) : rc;
}

int claw_series_write(struct claw_buf *out)
{
    int rc = 0;
    unsigned n = atomic_load_explicit(&names_n, memory_order_acquire);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        bool counter = names[i].kind == CLAW_SERIES_COUNTER;
        rc = claw_buf_add_fmt(out, "# HELP %s %s of policies.\n# TYPE %s %s\n", names[i].full, counter ? "A count" : "A gauge",
                              names[i].full, counter ? "counter" : "gauge");
        for (unsigned k = 0; k < SLOTS && rc == 0; k++) {
            const struct series *s = atomic_load_explicit(&slots[k], memory_order_acquire);
            if (s && s->name == &names[i]) rc = add_line(out, s);
        }
    }
    return rc;
}

void claw_series_reset(void)
{
    for (unsigned i = 0; i < SLOTS; i++) free(atomic_exchange(&slots[i], NULL));
    atomic_store(&names_n, 0);
    series_n = 0;
}
