#include "proxy/usage.h"

/* The names the dialects have for their counts. Detail objects inside the usage object have names of their own, so that
 * where a count stands need not be known. */
enum kind { INPUT, INPUT_APART, OUTPUT, CACHED, READ, WRITE, TOOLS, REASONING, THOUGHTS, TOTAL };
static const struct { struct claw_str key; enum kind kind; } names[] = {
#define NAME(key, kind) {{key, sizeof(key) - 1}, kind}
    NAME("prompt_tokens", INPUT), NAME("promptTokenCount", INPUT), NAME("input_tokens", INPUT_APART), NAME("inputTokens", INPUT_APART),
    NAME("completion_tokens", OUTPUT), NAME("output_tokens", OUTPUT), NAME("outputTokens", OUTPUT), NAME("candidatesTokenCount", OUTPUT),
    NAME("cached_tokens", CACHED), NAME("cachedContentTokenCount", CACHED), NAME("prompt_cache_hit_tokens", CACHED),
    NAME("cache_read_input_tokens", READ), NAME("cacheReadInputTokens", READ),
    NAME("cache_creation_input_tokens", WRITE), NAME("cacheWriteInputTokens", WRITE), NAME("toolUsePromptTokenCount", TOOLS),
    NAME("reasoning_tokens", REASONING), NAME("thinking_tokens", REASONING), NAME("thoughtsTokenCount", THOUGHTS), NAME("total_tokens", TOTAL),
#undef NAME
};

static void put(enum kind kind, int64_t n, struct claw_usage *u)
{
    switch (kind) {
    case INPUT: u->told.input = n; u->told.apart = false; u->input = n; break;
    case INPUT_APART: u->told.input = n; u->told.apart = true; u->input = n; break;
    case OUTPUT: u->told.output = n; u->output = n; break;
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
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].key.len != key.len || memcmp(names[i].key.ptr, key.ptr, key.len) != 0) continue;
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
            for (p = from; p < stop && *p != '"'; p++)
                if (*p == '\\') p++;
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
