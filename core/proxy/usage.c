#include "proxy/usage.h"

#include <math.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The names the dialects have for their counts. Detail objects inside the usage object have names of their own, so that
 * where a count stands need not be known. */
enum kind { INPUT, INPUT_APART, OUTPUT, CACHED, READ, WRITE, TOOLS, REASONING, THOUGHTS, TOTAL };
/* By length. */
#define NAMES(X, n) \
    X("inputTokens", INPUT_APART, n) X("input_tokens", INPUT_APART, n) X("outputTokens", OUTPUT, n) X("total_tokens", TOTAL, n) \
    X("prompt_tokens", INPUT, n) X("output_tokens", OUTPUT, n) X("cached_tokens", CACHED, n) X("thinking_tokens", REASONING, n) \
    X("promptTokenCount", INPUT, n) X("reasoning_tokens", REASONING, n) X("completion_tokens", OUTPUT, n) X("thoughtsTokenCount", THOUGHTS, n) \
    X("candidatesTokenCount", OUTPUT, n) X("cacheReadInputTokens", READ, n) X("cacheWriteInputTokens", WRITE, n) \
    X("cachedContentTokenCount", CACHED, n) X("toolUsePromptTokenCount", TOOLS, n) X("prompt_cache_hit_tokens", CACHED, n) \
    X("cache_read_input_tokens", READ, n) X("cache_creation_input_tokens", WRITE, n)
static const struct { struct claw_str key; enum kind kind; } names[] = {
#define NAME(key, kind, n) {{key, sizeof(key) - 1}, kind},
    NAMES(NAME, 0)
#undef NAME
};

/* Where in the list the names of n bytes begin. */
static const unsigned char first[] = {
#define SHORTER(key, kind, n) +(sizeof(key) - 1 < (n))
#define OF(n) [n] = 0 NAMES(SHORTER, n)
    OF(11), OF(12), OF(13), OF(14), OF(15), OF(16), OF(17), OF(18), OF(19), OF(20), OF(21), OF(22), OF(23), OF(24), OF(25), OF(26), OF(27), OF(28),
#undef OF
#undef SHORTER
};

static void put(enum kind kind, int64_t n, struct claw_usage *u)
{
    switch (kind) {
    case INPUT: u->told.input = n; u->told.apart = false; u->input = n; break;
    case INPUT_APART: u->told.input = n; u->told.apart = true; u->input = n; break;
    case OUTPUT:
        u->told.output = n;
        u->told.anew = true;
        u->output = n;
        break;
    case CACHED: u->cached = n; break;
    case READ: u->told.read = n; u->cached = n; break;
    case WRITE: u->told.write = n; u->written = n; break;
    case TOOLS: u->told.tools = n; break;
    case REASONING: u->reasoning = n; break;
    case TOTAL: u->told.total = n; break;
    case THOUGHTS: u->told.thoughts = n; u->reasoning = n; u->output = u->output < 0 ? 0 : u->output; break;
    }
}

static bool take(struct claw_str key, int64_t n, struct claw_usage *u)
{
    if (key.len < 11 || key.len > 27 || n > CLAW_USAGE_MOST) return false; /* the shortest and the longest of them */
    for (size_t i = first[key.len]; i < first[key.len + 1]; i++) {
        if (memcmp(names[i].key.ptr, key.ptr, key.len) != 0) continue;
        put(names[i].kind, n, u);
        return true;
    }
    return false;
}

/* Counts that stand beside each other become the sums that are charged. */
static void sum(struct claw_usage *u)
{
    if (u->input >= 0) u->input = u->told.input + u->told.tools + (u->told.apart ? u->told.read + u->told.write : 0);
    if (u->input >= 0 && u->cached > u->input) u->cached = u->input; /* Cohere reads more of its own than it bills */
    if (u->output < 0) return;
    u->output = u->told.output + u->told.thoughts;
    if (u->told.apart || u->input < 0 || u->told.total - u->output <= u->input) return;
    int64_t hidden = u->told.total - u->output - u->input;
    u->output += hidden;
    if (u->reasoning < hidden) u->reasoning = hidden;
}

/* The quote that ends the string whose text begins at p; or stop, or behind it where an escape is cut. */
static const char *string_end(const char *p, const char *stop)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), back = _mm_set1_epi8('\\');
    while (stop - p >= 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)p);
        unsigned hits = (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(text, quote), _mm_cmpeq_epi8(text, back)));
        if (!hits) {
            p += 16;
            continue;
        }
        p += __builtin_ctz(hits);
        if (*p == '"') return p;
        p += 2;
    }
#endif
    for (; p < stop && *p != '"'; p++)
        if (*p == '\\') p++;
    return p;
}

/* Read the counts of the object whose text begins behind its brace. Only what looks like `"key": 123` is read; strings as
 * values are stepped over; the text may end before the object does. Where it ended is *end. */
static bool read_counts(const char *p, const char *stop, struct claw_usage *u, const char **end)
{
    struct claw_str key = CLAW_STR("");
    bool any = false, billed = false;
    int unbilled = 0; /* the depth of Cohere's `tokens` beside its `billed_units`: what it reads of its own is not charged */
    for (int depth = 1; p < stop; p++) {
        if (*p == '"') {
            const char *from = p + 1;
            p = string_end(from, stop);
            key = (struct claw_str){from, p < stop ? (size_t)(p - from) : 0};
        } else if (*p >= '0' && *p <= '9') {
            int64_t n = 0;
            for (; p < stop && *p >= '0' && *p <= '9' && n < (INT64_MAX - 9) / 10; p++) n = n * 10 + (*p - '0');
            if (!unbilled && p < stop && (*p == ',' || *p == '}' || *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) any |= take(key, n, u);
            key.len = 0;
            p--;
        } else if (*p == '-') {
            key.len = 0;
        } else if (*p == '{') {
            depth++;
            if (claw_str_eqz(key, "billed_units")) billed = true;
            else if (billed && !unbilled && claw_str_eqz(key, "tokens")) unbilled = depth;
            key.len = 0;
        } else if (*p == '}') {
            if (unbilled == depth) unbilled = 0;
            if (--depth == 0) break;
        }
    }
    *end = p < stop ? p : stop; /* a string that the end cuts is stepped over, and so is the end */
    return any;
}

/* A quote inside a JSON string is escaped, so `"usage"` with both its quotes is always a key or a whole string. */
bool claw_usage_read(struct claw_str json, struct claw_usage *u)
{
    bool any = false;
    const char *stop = json.ptr + json.len;
    for (;;) {
        ptrdiff_t at = claw_str_find(json, CLAW_STR("\"usage"));
        if (at < 0) {
            if (any) sum(u);
            return any;
        }
        const char *p = json.ptr + at + 6;
        if (stop - p > 9 && memcmp(p, "Metadata", 8) == 0) p += 8;
        if (p < stop && *p == '"') {
            for (p++; p < stop && (*p == ' ' || *p == ':' || *p == '\n' || *p == '\r' || *p == '\t'); p++) {}
            if (p < stop && *p == '{') any |= read_counts(p + 1, stop, u, &p);
        }
        json = (struct claw_str){p, (size_t)(stop - p)};
    }
}

/* The last count of that name (with its quotes), or -1. */
static int64_t last_count(struct claw_str json, struct claw_str name)
{
    int64_t last = -1;
    for (ptrdiff_t at; (at = claw_str_find(json, name)) >= 0;) {
        size_t i = (size_t)at + name.len, from;
        while (i < json.len && (json.ptr[i] == ' ' || json.ptr[i] == ':')) i++;
        int64_t n = 0;
        for (from = i; i < json.len && json.ptr[i] >= '0' && json.ptr[i] <= '9' && n <= CLAW_USAGE_MOST; i++) n = n * 10 + (json.ptr[i] - '0');
        if (i > from && i < json.len && n <= CLAW_USAGE_MOST) last = n;
        json = (struct claw_str){json.ptr + i, json.len - i};
    }
    return last;
}

bool claw_usage_read_ollama(struct claw_str json, struct claw_usage *u)
{
    int64_t input = last_count(json, CLAW_STR("\"prompt_eval_count\"")), output = last_count(json, CLAW_STR("\"eval_count\""));
    if (input >= 0) u->input = u->told.input = input;
    if (output >= 0) put(OUTPUT, output, u);
    return input >= 0 || output >= 0;
}

unsigned claw_usage_estimate(struct claw_usage *u, bool of_input, int64_t input, int64_t said)
{
    unsigned which = 0;
    if (u->input < 0 && input >= 0) {
        u->input = input;
        which |= CLAW_USAGE_INPUT;
    }
    if (of_input || (u->output >= 0 && said == 0)) return which;
    u->output = (u->output < 0 ? 0 : u->output) + said;
    return which | CLAW_USAGE_OUTPUT;
}

bool claw_usage_only(struct claw_str raw)
{
    ptrdiff_t at = claw_str_find(raw, CLAW_STR("\"choices\""));
    if (at < 0) return false;
    const char *p = raw.ptr + at + 9, *end = raw.ptr + raw.len;
    while (p < end && strchr(" \t\r\n:", *p) && *p) p++;
    if (p == end || *p != '[') return false;
    for (p++; p < end && strchr(" \t\r\n", *p) && *p; p++) {}
    return p < end && *p == ']';
}

#define MOST_MICROS 9007199254740992.0

int64_t claw_usage_charge(const struct claw_conf_price *p, const struct claw_usage *u)
{
    bool per_token = p->input >= 0 || p->output >= 0;
    if ((u->input < 0 && u->output < 0) || !per_token) return per_token ? -1 : p->request_micros;
    double input = u->input > 0 ? (double)u->input : 0, output = u->output > 0 ? (double)u->output : 0;
    double cached = u->cached > 0 ? fmin((double)u->cached, input) : 0;
    double written = u->written > 0 ? fmin((double)u->written, input - cached) : 0;
    double base = p->input > 0 ? (double)p->input : 0;
    bool longer = p->long_above >= 0 && input > (double)p->long_above;
    double price = longer && p->long_input >= 0 ? (double)p->long_input : base;
    double of_cached = longer && p->long_cached >= 0 ? (double)p->long_cached : p->cached_input >= 0 ? (double)p->cached_input : price;
    double of_written = p->cache_write >= 0 ? (double)p->cache_write : price;
    double of_output = longer && p->long_output >= 0 ? (double)p->long_output : p->output > 0 ? (double)p->output : 0;
    if (longer && p->cache_write >= 0 && base > 0) of_written = floor(of_written * price / base + 0.5);
    double pico = (input - cached - written) * price + cached * of_cached + written * of_written + output * of_output;
    double micros = floor(pico / 1e6 + 0.5) + (p->request_micros > 0 ? (double)p->request_micros : 0);
    return micros <= MOST_MICROS ? (int64_t)micros : -1;
}
