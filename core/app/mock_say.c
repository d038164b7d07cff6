/* mock_say: what the mock says, word by word, and its embeddings. */
#include "app/mock_part.h"

#include <math.h>
#include <time.h>

#define ECHO_MAX 2000u /* bytes of a message that are repeated */
#define FLOATS_MAX (1u << 18)
#define DIMENSIONS_MAX 3072

#define PUT CLAW_MOCK_PUT
#define PUT_JSON(a, s) claw_mock_note((a), claw_buf_add_json(&(a)->out, (s)))

void claw_mock_put_error(struct claw_mock_answer *a, struct claw_str message, const char *type, const char *code)
{
    PUT(a, "{\"error\":{\"message\":");
    PUT_JSON(a, message);
    PUT(a, ",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}", type, code);
}

static void put_usage(struct claw_mock_answer *a)
{
    PUT(a, "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu}",
        (unsigned long long)a->prompt_tokens, (unsigned long long)a->completion_tokens,
        (unsigned long long)(a->prompt_tokens + a->completion_tokens));
}

static void put_opening(struct claw_mock_answer *a, const char *chat_object)
{
    PUT(a, "{\"id\":\"%s-mock-%llu\",\"object\":\"%s\",\"created\":%lld,\"model\":%.*s,\"choices\":[",
        a->kind == CLAW_MOCK_CHAT ? "chatcmpl" : "cmpl", (unsigned long long)a->id, a->kind == CLAW_MOCK_CHAT ? chat_object : "text_completion",
        (long long)time(NULL), CLAW_STR_FMT(a->model));
}

static const char *finish_reason(const struct claw_mock_answer *a)
{
    return a->tool.len ? "tool_calls" : a->cut_short ? "length" : "stop";
}

static void put_call(struct claw_mock_answer *a, const char *arguments)
{
    PUT(a, "\"id\":\"call_mock_%llu\",\"type\":\"function\",\"function\":{\"name\":%.*s,\"arguments\":\"%s\"}",
        (unsigned long long)a->id, CLAW_STR_FMT(a->tool), arguments);
}

void claw_mock_put_plain(struct claw_mock_answer *a)
{
    put_opening(a, "chat.completion");
    PUT(a, "{\"index\":0,%s", a->kind == CLAW_MOCK_CHAT ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
    if (a->tool.len) {
        PUT(a, "null,\"tool_calls\":[{");
        put_call(a, "{}");
        PUT(a, "}]");
    } else {
        PUT_JSON(a, claw_buf_str(&a->text));
    }
    if (a->kind == CLAW_MOCK_CHAT) PUT(a, ",\"refusal\":null}");
    PUT(a, ",\"logprobs\":null,\"finish_reason\":\"%s\"}],", finish_reason(a));
    put_usage(a);
    PUT(a, "}");
}

/* A token is the white space before a word and the word. */
static size_t token_end(struct claw_str s, size_t at)
{
    while (at < s.len && (unsigned char)s.ptr[at] <= ' ') at++;
    while (at < s.len && (unsigned char)s.ptr[at] > ' ') at++;
    return at;
}

static void put_token(struct claw_mock_answer *a)
{
    PUT(a, "data: ");
    put_opening(a, "chat.completion.chunk");
    PUT(a, "{\"index\":0,");
    if (a->tool.len && a->sent == 0) {
        PUT(a, "\"delta\":{\"tool_calls\":[{\"index\":0,");
        put_call(a, "");
        PUT(a, "}]}");
    } else if (a->tool.len) {
        PUT(a, "\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"%s\"}}]}", a->sent == 1 ? "{" : "}");
    } else {
        struct claw_str text = claw_buf_str(&a->text);
        size_t end = token_end(text, a->at);
        PUT(a, "%s", a->kind == CLAW_MOCK_CHAT ? "\"delta\":{\"content\":" : "\"text\":");
        PUT_JSON(a, ((struct claw_str){text.ptr + a->at, end - a->at}));
        if (a->kind == CLAW_MOCK_CHAT) PUT(a, "}");
        a->at = end;
    }
    PUT(a, ",\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    a->sent++;
}

static void put_finish(struct claw_mock_answer *a)
{
    PUT(a, "data: ");
    put_opening(a, "chat.completion.chunk");
    PUT(a, "{\"index\":0,%s,\"logprobs\":null,\"finish_reason\":\"%s\"}]}\n\n", a->kind == CLAW_MOCK_CHAT ? "\"delta\":{}" : "\"text\":\"\"",
        finish_reason(a));
    if (a->usage) {
        PUT(a, "data: ");
        put_opening(a, "chat.completion.chunk");
        PUT(a, "],");
        put_usage(a);
        PUT(a, "}\n\n");
    }
    PUT(a, "data: [DONE]\n\n");
    a->complete = true;
}

/* The next event of a stream. */
void claw_mock_put_piece(struct claw_mock_answer *a)
{
    bool first = !a->begun;
    a->begun = true;
    if ((first && a->faults.error_event > 0) || claw_mock_due(a->faults.error_after, a->sent)) {
        PUT(a, "data: ");
        claw_mock_put_error(a, CLAW_STR("The mock was asked for an error in its stream"), "server_error", "mock_error");
        PUT(a, "\n\n");
        a->complete = true;
    } else if (first && a->kind == CLAW_MOCK_CHAT) {
        PUT(a, "data: ");
        put_opening(a, "chat.completion.chunk");
        PUT(a, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":%s},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
            a->tool.len ? "null" : "\"\"");
    } else if (a->sent < a->tokens) {
        put_token(a);
    } else {
        put_finish(a);
    }
}

/* ---- what is said -------------------------------------------------------------------------------------------- */

/* A string, or the last text in a list of strings or of parts. Empty when there is none. */
static struct claw_str text_of(struct claw_mock_answer *a, struct claw_json_value v)
{
    struct claw_json_value one, found = v;
    size_t pos = 0;
    struct claw_str key, out;
    while (v.type == CLAW_JSON_ARRAY && claw_json_next(v, &pos, &key, &one)) {
        if (one.type == CLAW_JSON_OBJECT) one = claw_json_get(one, CLAW_STR("text"));
        if (one.type == CLAW_JSON_STRING) found = one;
    }
    return claw_json_text(found, &a->arena, &out) == 0 ? out : CLAW_STR("");
}

/* What the user said last. *open: nothing came behind it, a tool's result above all. */
static struct claw_str last_user_text(struct claw_mock_answer *a, bool *open)
{
    struct claw_json_value messages = claw_mock_field(a, "messages"), one, last = {.type = CLAW_JSON_NONE};
    size_t pos = 0;
    struct claw_str key;
    *open = false;
    while (claw_json_next(messages, &pos, &key, &one)) {
        *open = claw_json_text_is(claw_json_get(one, CLAW_STR("role")), CLAW_STR("user"));
        if (*open) last = one;
    }
    return text_of(a, claw_json_get(last, CLAW_STR("content")));
}

static void choose_tool(struct claw_mock_answer *a, struct claw_str said, bool open)
{
    struct claw_json_value choice = claw_mock_field(a, "tool_choice");
    struct claw_json_value tool = claw_json_at(claw_mock_field(a, "tools"), 0);
    struct claw_json_value name = claw_json_get(claw_json_get(tool, CLAW_STR("function")), CLAW_STR("name"));
    struct claw_json_value named = claw_json_get(claw_json_get(choice, CLAW_STR("function")), CLAW_STR("name"));
    bool asked = claw_str_find(said, CLAW_STR("use a tool")) >= 0 || claw_str_find(said, CLAW_STR("Use a tool")) >= 0;
    if (name.type != CLAW_JSON_STRING || claw_json_text_is(choice, CLAW_STR("none"))) return;
    if (named.type == CLAW_JSON_STRING) name = named;
    if (choice.type == CLAW_JSON_OBJECT || claw_json_text_is(choice, CLAW_STR("required")) || (open && asked))
        a->tool = name.raw;
}

/* Cut the text to what was asked for, or go on counting up to it. */
static void fit_text(struct claw_mock_answer *a, int64_t most)
{
    struct claw_str text = claw_buf_str(&a->text);
    size_t at = 0;
    int64_t want = a->faults.tokens, n = 0;
    for (; at < text.len && n != want && n != most; n++) at = token_end(text, at);
    bool all = at == text.len;
    a->text.len = a->text.off + at;
    for (; n < want && n != most; n++) claw_mock_note(a, claw_buf_add_fmt(&a->text, " %lld", (long long)n + 1));
    a->cut_short = n == most && (want < 0 ? !all : n < want);
    a->tokens = n;
}

static void say(struct claw_mock_answer *a, struct claw_str said)
{
    int64_t most = -1;
    size_t n = said.len < ECHO_MAX ? said.len : ECHO_MAX;
    while (n < said.len && n > 0 && ((unsigned char)said.ptr[n] & 0xc0) == 0x80) n--;
    claw_mock_note(a, claw_buf_add_z(&a->text, said.len ? "You said: " : "Hello! I am the built-in mock: no model is behind me."));
    claw_mock_note(a, claw_buf_add(&a->text, said.ptr, n));
    if (n < said.len) claw_mock_note(a, claw_buf_add_z(&a->text, " …"));
    if (a->faults.split_utf8 > 0) claw_mock_note(a, claw_buf_add_z(&a->text, " Grüße, 日本語, 🦞!"));
    if (claw_json_int(claw_mock_field(a, "max_completion_tokens"), &most) != 0 && claw_json_int(claw_mock_field(a, "max_tokens"), &most) != 0)
        most = -1;
    fit_text(a, most);
    if (a->tool.len) a->tokens = 3;
    a->completion_tokens = a->tool.len ? (a->tool.len + 3) / 4 : (claw_buf_size(&a->text) + 3) / 4;
    if (most >= 0 && a->completion_tokens > (uint64_t)most) a->completion_tokens = (uint64_t)most;
}

void claw_mock_read(struct claw_mock_answer *a)
{
    bool open = false;
    struct claw_str said = a->kind == CLAW_MOCK_CHAT ? last_user_text(a, &open) : text_of(a, claw_mock_field(a, "prompt"));
    if (a->kind == CLAW_MOCK_CHAT) choose_tool(a, said, open);
    a->prompt_tokens = (claw_mock_field(a, a->kind == CLAW_MOCK_CHAT ? "messages" : "prompt").raw.len + 3) / 4;
    a->stream = claw_mock_field(a, "stream").type == CLAW_JSON_TRUE;
    a->usage = claw_json_get(claw_mock_field(a, "stream_options"), CLAW_STR("include_usage")).type == CLAW_JSON_TRUE;
    say(a, said);
}

/* ---- embeddings ---------------------------------------------------------------------------------------------- */

static void put_base64(struct claw_mock_answer *a, const void *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
        claw_mock_note(a, claw_buf_add(&a->out, four, sizeof four));
    }
}

static void put_vector(struct claw_mock_answer *a, struct claw_str text, size_t index, size_t n, bool base64)
{
    float v[DIMENSIONS_MAX];
    double sum = 0;
    uint64_t x = claw_str_hash(text, 0) | 1;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13; /* xorshift64 (Marsaglia 2003) */
        x ^= x >> 7;
        x ^= x << 17;
        v[i] = (float)((double)(x >> 40) / (1 << 23) - 1.0);
        sum += (double)v[i] * v[i];
    }
    PUT(a, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":%c", index ? "," : "", index, base64 ? '"' : '[');
    for (size_t i = 0; i < n; i++) {
        v[i] = (float)(v[i] / sqrt(sum > 0 ? sum : 1));
        if (!base64) PUT(a, "%s%.6f", i ? "," : "", (double)v[i]);
    }
    if (base64) put_base64(a, v, n * sizeof *v);
    PUT(a, "%c}", base64 ? '"' : ']');
}

const char *claw_mock_put_embeddings(struct claw_mock_answer *a)
{
    struct claw_json_value input = claw_mock_field(a, "input"), given = claw_mock_field(a, "dimensions"), one;
    struct claw_str key;
    bool many = input.type == CLAW_JSON_ARRAY && claw_json_at(input, 0).type != CLAW_JSON_NUMBER;
    bool base64 = claw_json_text_is(claw_mock_field(a, "encoding_format"), CLAW_STR("base64"));
    int64_t n = 8;
    size_t pos = 0, i = 0;
    if (given.type != CLAW_JSON_NONE && (claw_json_int(given, &n) != 0 || n < 1 || n > DIMENSIONS_MAX))
        return "'dimensions' must be 1 to 3072";
    if (input.type == CLAW_JSON_NONE || (many && claw_json_count(input) > FLOATS_MAX / (size_t)n))
        return "'input' is missing or too long";
    PUT(a, "{\"object\":\"list\",\"data\":[");
    if (!many) put_vector(a, input.raw, 0, (size_t)n, base64);
    while (many && claw_json_next(input, &pos, &key, &one)) put_vector(a, one.raw, i++, (size_t)n, base64);
    a->prompt_tokens = (input.raw.len + 3) / 4;
    PUT(a, "],\"model\":%.*s,\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", CLAW_STR_FMT(a->model),
        (unsigned long long)a->prompt_tokens, (unsigned long long)a->prompt_tokens);
    return NULL;
}
