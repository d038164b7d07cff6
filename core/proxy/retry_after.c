#include "proxy/retry_after.h"

#include <string.h>
#include <time.h>

#define DAY_MS 86400000.0

/* Digits with a fraction, moved past. False: there are none. */
static bool take_number(struct claw_str *s, double *to)
{
    double n = 0, unit = 1;
    size_t i = 0, digits = 0;
    for (; i < s->len && s->ptr[i] >= '0' && s->ptr[i] <= '9' && digits < 12; i++, digits++) n = n * 10 + (s->ptr[i] - '0');
    if (i < s->len && s->ptr[i] == '.')
        for (i++; i < s->len && s->ptr[i] >= '0' && s->ptr[i] <= '9' && digits < 24; i++, digits++) n += (s->ptr[i] - '0') * (unit /= 10);
    s->ptr += i;
    s->len -= i;
    *to = n;
    return digits > 0;
}

static double unit_of(struct claw_str *s)
{
    static const struct { const char *word; double ms; } units[] = {{"ms", 1}, {"us", 1e-3}, {"ns", 1e-6}, {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t n = strlen(units[i].word);
        if (s->len < n || memcmp(s->ptr, units[i].word, n) != 0) continue;
        s->ptr += n;
        s->len -= n;
        return units[i].ms;
    }
    return -1;
}

static int64_t bounded(double ms) { return ms > DAY_MS ? (int64_t)DAY_MS : (int64_t)(ms + 0.999); }

/* "1m30.5s"; seconds when there is no unit. */
static int64_t length_ms(struct claw_str s)
{
    double ms = 0, n, unit;
    if (!s.len) return -1;
    while (s.len) {
        if (!take_number(&s, &n)) return -1;
        if (!s.len && ms == 0) return bounded(n * 1000);
        if ((unit = unit_of(&s)) < 0) return -1;
        ms += n * unit;
    }
    return bounded(ms);
}

/* A date in the past: at once. */
static int64_t date_ms(struct claw_str s, const char *format, int64_t now)
{
    char text[40];
    struct tm tm = {0};
    if (s.len >= sizeof text) return -1;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    if (!strptime(text, format, &tm)) return -1;
    double left = (double)timegm(&tm) - (double)now;
    return left > 0 ? bounded(left * 1000) : 0;
}

static int64_t asked_ms(const struct claw_head *h, int64_t now)
{
    uint64_t n;
    const struct claw_header *ms = claw_head_find(h, CLAW_H_RETRY_AFTER_MS), *s = claw_head_find(h, CLAW_H_RETRY_AFTER);
    if (ms && claw_str_u64(ms->value, (uint64_t)DAY_MS, &n) == 0) return (int64_t)n;
    if (!s) return -1;
    struct claw_str rest = s->value;
    double seconds;
    if (take_number(&rest, &seconds) && !rest.len) return bounded(seconds * 1000);
    return date_ms(s->value, "%a, %d %b %Y %H:%M:%S GMT", now);
}

/* When the bucket of these two fields has room again; -1: it is not this one that is empty. */
static int64_t reset_ms(const struct claw_head *h, const char *remaining, const char *reset, int64_t now)
{
    const struct claw_header *left = claw_head_find_name(h, claw_str_of(remaining)), *at = claw_head_find_name(h, claw_str_of(reset));
    uint64_t n;
    if (!left || !at || claw_str_u64(left->value, UINT64_MAX, &n) != 0 || n != 0) return -1;
    int64_t ms = length_ms(at->value);
    return ms >= 0 ? ms : date_ms(at->value, "%Y-%m-%dT%H:%M:%S", now);
}

int64_t claw_retry_after_ms(const struct claw_head *h, int64_t now)
{
    static const char *const buckets[][2] = {
        {"x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"},
        {"x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"},
        {"anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"},
        {"anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"},
        {"anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"},
        {"anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"},
    };
    int64_t longest = asked_ms(h, now);
    if (longest >= 0 || h->status != 429) return longest;
    for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        int64_t ms = reset_ms(h, buckets[i][0], buckets[i][1], now);
        if (ms > longest) longest = ms;
    }
    return longest;
}
