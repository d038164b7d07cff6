#include "proxy/usage.h"

/* The names three dialects have for the same counts. Detail objects inside the usage object have names of their own, so
 * that where a count stands need not be known. */
static const struct name {
    struct claw_str key;
    size_t at; /* in struct claw_usage */
} names[] = {
#define NAME(key, field) {{key, sizeof(key) - 1}, offsetof(struct claw_usage, field)}
    NAME("prompt_tokens", input), NAME("input_tokens", input), NAME("promptTokenCount", input),
    NAME("completion_tokens", output), NAME("output_tokens", output), NAME("candidatesTokenCount", output),
    NAME("cached_tokens", cached), NAME("cache_read_input_tokens", cached), NAME("cachedContentTokenCount", cached),
    NAME("reasoning_tokens", reasoning), NAME("thoughtsTokenCount", reasoning),
#undef NAME
};

static bool take(struct claw_str key, int64_t n, struct claw_usage *u)
{
    if (key.len < 12 || key.len > 23) return false; /* the shortest and the longest of them */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].key.len != key.len || memcmp(names[i].key.ptr, key.ptr, key.len) != 0) continue;
        memcpy((char *)u + names[i].at, &n, sizeof n);
        return true;
    }
    return false;
}

/* Read the counts of the object whose text begins behind its brace. Only what looks like `"key": 123` is read; strings as
 * values are stepped over; the text may end before the object does. Where it ended is *end. */
static bool read_counts(const char *p, const char *stop, struct claw_usage *u, const char **end)
{
    struct claw_str key = CLAW_STR("");
    bool any = false;
    for (int depth = 1; p < stop; p++) {
        if (*p == '"') {
            const char *from = p + 1;
            for (p = from; p < stop && *p != '"'; p++)
                if (*p == '\\') p++;
            key = (struct claw_str){from, p < stop ? (size_t)(p - from) : 0};
        } else if (*p >= '0' && *p <= '9') {
            int64_t n = 0;
            for (; p < stop && *p >= '0' && *p <= '9' && n < (INT64_MAX - 9) / 10; p++) n = n * 10 + (*p - '0');
            if (p < stop && (*p == ',' || *p == '}' || *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) any |= take(key, n, u);
            key.len = 0;
            p--;
        } else if (*p == '-') {
            key.len = 0;
        } else if (*p == '{') {
            depth++;
        } else if (*p == '}' && --depth == 0) {
            break;
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
        if (at < 0) return any;
        const char *p = json.ptr + at + 6;
        if (stop - p > 9 && memcmp(p, "Metadata", 8) == 0) p += 8;
        if (p < stop && *p == '"') {
            for (p++; p < stop && (*p == ' ' || *p == ':' || *p == '\n' || *p == '\r' || *p == '\t'); p++) {}
            if (p < stop && *p == '{') any |= read_counts(p + 1, stop, u, &p);
        }
        json = (struct claw_str){p, (size_t)(stop - p)};
    }
}
