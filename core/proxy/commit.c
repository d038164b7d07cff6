#include "proxy/commit.h"

#include "base/json.h"

#define SCAN_BYTES (1u << 20)

/* ---- tool calls --------------------------------------------------------------------------------------------------------- */

static bool asks(const struct claw_req *r, const char *member)
{
    return claw_json_top_get(&r->json, claw_str_of(member)).type != CLAW_JSON_NONE;
}

/* Who was given no tools calls none: most streams need not be looked at. Tools may also stand where they are only named. */
static bool has_tools(const struct claw_req *r)
{
    if (!r->has_json || (r->out_body_set && !r->translated)) return true;
    return asks(r, "tools") || asks(r, "functions") || asks(r, "prompt") || asks(r, "cachedContent") || asks(r, "cached_content");
}

void claw_commit_begin(struct claw_commit_watch *w, const struct claw_req *r)
{
    w->begun = true;
    if (!has_tools(r)) return;
    w->is_key = true;
    switch ((enum claw_dialect)r->dialect) {
    case CLAW_DIALECT_OPENAI_CHAT: /* what they were called before */
        w->mark = r->has_json && asks(r, "functions") && !asks(r, "tools") ? CLAW_STR("\"function_call\"") : CLAW_STR("\"tool_calls\"");
        return;
    case CLAW_DIALECT_OLLAMA_CHAT:
    case CLAW_DIALECT_COHERE_CHAT: w->mark = CLAW_STR("\"tool_calls\""); return;
    case CLAW_DIALECT_GEMINI_GENERATE: w->mark = CLAW_STR("\"functionCall\""); return;
    case CLAW_DIALECT_ANTHROPIC_MESSAGES:
        w->mark = CLAW_STR("\"tool_use\"");
        w->is_key = false;
        return;
    case CLAW_DIALECT_OPENAI_RESPONSES: /* function_call, custom_tool_call, mcp_call … */
        w->mark = CLAW_STR("_call\"");
        w->is_key = false;
        return;
    default: return;
    }
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Is the member's value, behind its name, an object or a list of them? Some always send the member, null or empty. */
static bool has_object(struct claw_str rest)
{
    size_t i = 0;
    bool colon = false, list = false;
    for (; i < rest.len; i++) {
        char c = rest.ptr[i];
        if (c == ':' && !colon) colon = true;
        else if (c == '[' && colon && !list) list = true;
        else if (!is_space(c)) break;
    }
    return colon && i < rest.len && rest.ptr[i] == '{';
}

/* Does what stands before a word's end give it as the value of `type`? */
static bool is_type(struct claw_str before)
{
    size_t n = before.len;
    while (n && (before.ptr[n - 1] == '_' || (before.ptr[n - 1] >= 'a' && before.ptr[n - 1] <= 'z'))) n--;
    if (n && before.ptr[n - 1] == '"') n--;
    while (n && is_space(before.ptr[n - 1])) n--;
    if (!n || before.ptr[--n] != ':') return false;
    while (n && is_space(before.ptr[n - 1])) n--;
    return n >= 6 && memcmp(before.ptr + n - 6, "\"type\"", 6) == 0;
}

bool claw_commit_calls(const struct claw_commit_watch *w, struct claw_str event)
{
    if (w->mark.len == 0) return false;
    for (;;) {
        ptrdiff_t at = claw_str_find(event, w->mark);
        if (at < 0) return false;
        size_t behind = (size_t)at + w->mark.len;
        struct claw_str rest = {event.ptr + behind, event.len - behind};
        if (w->is_key ? has_object(rest) : is_type((struct claw_str){event.ptr, (size_t)at})) return true;
        event = rest;
    }
}

/* ---- text --------------------------------------------------------------------------------------------------------------- */

static uint32_t characters(struct claw_json_value v, struct claw_arena *a)
{
    struct claw_str s;
    uint32_t n = 0;
    if (claw_json_text(v, a, &s) != 0) return 0;
    for (size_t i = 0; i < s.len; i++) n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

static uint32_t of_members(struct claw_json_value object, const char *const *names, struct claw_arena *a)
{
    uint32_t n = 0;
    for (; *names; names++) n += characters(claw_json_get(object, claw_str_of(*names)), a);
    return n;
}

static uint32_t of_choices(const struct claw_json_top *top, bool chat, struct claw_arena *a)
{
    static const char *const said[] = {"content", "reasoning_content", "reasoning", "refusal", NULL}, *const text[] = {"text", NULL};
    struct claw_json_value choice, choices = claw_json_top_get(top, CLAW_STR("choices"));
    struct claw_str none;
    uint32_t n = 0;
    for (size_t at = 0; claw_json_next(choices, &at, &none, &choice);)
        n += chat ? of_members(claw_json_get(choice, CLAW_STR("delta")), said, a) : of_members(choice, text, a);
    return n;
}

static uint32_t of_candidates(const struct claw_json_top *top, struct claw_arena *a)
{
    struct claw_json_value candidate, part, candidates = claw_json_top_get(top, CLAW_STR("candidates"));
    struct claw_str none;
    uint32_t n = 0;
    for (size_t at = 0; claw_json_next(candidates, &at, &none, &candidate);) {
        struct claw_json_value parts = claw_json_get(claw_json_get(candidate, CLAW_STR("content")), CLAW_STR("parts"));
        for (size_t in = 0; claw_json_next(parts, &in, &none, &part);) n += characters(claw_json_get(part, CLAW_STR("text")), a);
    }
    return n;
}

static uint32_t said_in(enum claw_dialect d, const struct claw_json_top *top, struct claw_arena *a)
{
    static const char *const ollama[] = {"content", "thinking", NULL}, *const texts[] = {"text", "thinking", NULL};
    struct claw_json_value delta = claw_json_top_get(top, CLAW_STR("delta"));
    switch (d) {
    case CLAW_DIALECT_OPENAI_CHAT: return of_choices(top, true, a);
    case CLAW_DIALECT_OPENAI_COMPLETIONS: return of_choices(top, false, a);
    case CLAW_DIALECT_OPENAI_RESPONSES: return characters(delta, a);
    case CLAW_DIALECT_ANTHROPIC_MESSAGES: return of_members(delta, texts, a);
    case CLAW_DIALECT_GEMINI_GENERATE: return of_candidates(top, a);
    case CLAW_DIALECT_OLLAMA_CHAT: return of_members(claw_json_top_get(top, CLAW_STR("message")), ollama, a);
    case CLAW_DIALECT_COHERE_CHAT: return of_members(claw_json_get(claw_json_get(delta, CLAW_STR("message")), CLAW_STR("content")), texts, a);
    default: return CLAW_COMMIT_MOST;
    }
}

/* OpenAI's [DONE] is no JSON. What its upstream does behind the end is of no more interest. */
static bool is_end(enum claw_dialect d, const struct claw_json_top *top)
{
    static const char *const ends[] = {"message_stop", "message-end", "response.completed", "response.incomplete"};
    struct claw_json_value type = claw_json_top_get(top, CLAW_STR("type"));
    if (d == CLAW_DIALECT_OLLAMA_CHAT) return claw_json_top_get(top, CLAW_STR("done")).type == CLAW_JSON_TRUE;
    if (d == CLAW_DIALECT_GEMINI_GENERATE)
        return claw_json_get(claw_json_at(claw_json_top_get(top, CLAW_STR("candidates")), 0), CLAW_STR("finishReason")).type == CLAW_JSON_STRING;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (claw_json_text_is(type, claw_str_of(ends[i]))) return true;
    return false;
}

bool claw_commit_enough(struct claw_commit_watch *w, const struct claw_req *r, struct claw_str data)
{
    char room[4096];
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    if (!w->begun) claw_commit_begin(w, r);
    claw_arena_init(&a, room, sizeof room, SCAN_BYTES);
    bool read = claw_json_scan(data, &a, &top, &err) == 0, over = !read || is_end((enum claw_dialect)r->dialect, &top);
    if (read) w->said += said_in((enum claw_dialect)r->dialect, &top, &a);
    claw_arena_reset(&a);
    return over || w->said >= r->commit_at || claw_commit_calls(w, data);
}

/* ---- the state ---------------------------------------------------------------------------------------------------------- */

const char *claw_commit_state(const struct claw_req *r)
{
    static const char *const names[] = {[CLAW_HELD] = "held", [CLAW_COMMITTED] = "committed", [CLAW_DONE] = "done"};
    if (!r->stream) return NULL;
    return r->commit == CLAW_COMMITTED && r->tool_emitted ? "tool_emitted" : names[r->commit];
}
