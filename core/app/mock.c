/* What the mock speaks (any path that ends so):
 *
 *   POST /chat/completions  plain and streamed; says "You said: …" of the last user message. With `tools` it calls one
 *                           when tool_choice is "required" or names it, or the user writes "use a tool"
 *   POST /completions       the same of `prompt`
 *   POST /embeddings        vectors made of the input's hash; dimensions up to 3072, encoding_format float or base64
 *   GET  /models            what it answers to; in truth it answers to any model and echoes its name
 *
 * A token is a word here; usage is an estimate, bytes / 4. Between streamed tokens it rests 20 ms.
 *
 * How it misbehaves: `x-mock: key=value, key` as a request header, or a model named mock-key-value-key-value.
 *
 *   status=N         this status (200 to 599) with an error body        retry_after=N   its retry-after, in seconds
 *   error_event      a 200 whose stream begins with an error event; a plain 200 with an error body
 *   error_after=N    an error event behind N tokens, then the end       tokens=N        this many tokens of content
 *   stall_after=N    nothing more comes behind N tokens                 slow=MS         rest between tokens
 *   reset_after=N    the connection is reset there                      first_ms=MS     rest before the head
 *   cut_after=N      FIN there, without the end                         split_utf8      characters cut across writes
 *   garbage          bytes that are no HTTP                             html            a 502 page
 *   empty            a 200 without a body
 *
 * Of a plain answer stall_after, reset_after and cut_after count bytes of the body. x-mock-delay-ms: N is slow=N.
 *
 *   on_done -> (first_ms) -> begin -> pump: piece, rest, piece … last piece with the end -> release
 *   at any time: on_gone, or a reset or cut asked for -> release (the memory goes at the end of the turn)
 */
#include "app/mock.h"

#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#define MAGIC 0x6d6f636bu
#define BODY_MAX (32u << 20)
#define ARENA_MAX (BODY_MAX + (8u << 20))
#define ECHO_MAX 2000u     /* bytes of a message that are repeated */
#define FLOATS_MAX (1u << 18)
#define DIMENSIONS_MAX 3072
#define BURST 256u         /* pieces in one turn when there is no rest between them */
#define SPLIT_MS 10u

struct claw_mock {
    uint32_t magic;
    struct claw_loop *loop;
    struct claw_server server;
    uint64_t served;
    void (*on_closed)(void *arg);
    void *closed_arg;
};

/* -1: not asked for. */
struct faults {
    int64_t status, retry_after, error_event, error_after, stall_after, reset_after, cut_after, split_utf8, slow, first_ms,
        garbage, html, empty, tokens;
};

static const struct {
    const char *key;
    size_t at;
    bool flag; /* needs no value */
    unsigned min, max;
} fault_keys[] = {
#define KEY(name, flag, min, max) {#name, offsetof(struct faults, name), flag, min, max}
    KEY(status, false, 200, 599),           KEY(retry_after, false, 0, 1000000), KEY(error_event, true, 0, 1),
    KEY(error_after, false, 0, 1000000),    KEY(stall_after, false, 0, 1000000), KEY(reset_after, false, 0, 1000000),
    KEY(cut_after, false, 0, 1000000),      KEY(split_utf8, true, 0, 1),         KEY(slow, false, 0, 600000),
    KEY(first_ms, false, 0, 600000),        KEY(garbage, true, 0, 1),            KEY(html, true, 0, 1),
    KEY(empty, true, 0, 1),                 KEY(tokens, false, 0, 100000),
#undef KEY
};

enum kind { CHAT, COMPLETION };

/* One request and its answer. Owned by conn->request until release; then by the end of the turn. */
struct answer {
    struct claw_arena arena;
    struct claw_mock *mock;
    struct claw_conn *conn;
    struct claw_timer timer;
    struct claw_deferred last;
    struct claw_head *head;  /* of the request; NULL until it is complete */
    struct claw_buf body;    /* of the request */
    struct claw_buf text;    /* what is said */
    struct claw_buf out;     /* made and not yet sent */
    struct faults faults;
    struct claw_json_top top;
    struct claw_str model;   /* as JSON */
    struct claw_str tool;    /* its name as JSON; empty: no call */
    enum kind kind;
    bool stream, usage, cut_short, begun, complete, failed;
    uint64_t id;
    int64_t tokens, sent;    /* of the content */
    size_t at;               /* how much of text was said */
    uint64_t prompt_tokens, completion_tokens;
};

/* ---- the answer's end ---------------------------------------------------------------------------------------- */

static void free_run(struct claw_deferred *d)
{
    struct answer *a = (struct answer *)((char *)d - offsetof(struct answer, last));
    claw_buf_fini(&a->body);
    claw_buf_fini(&a->text);
    claw_buf_fini(&a->out);
    claw_arena_reset(&a->arena);
    free(a);
}

static void release(struct answer *a)
{
    claw_timer_stop(a->mock->loop, &a->timer);
    claw_loop_defer(a->mock->loop, &a->last, free_run);
}

static void give_up(struct answer *a)
{
    claw_conn_abort(a->conn);
    release(a);
}

/* ---- faults -------------------------------------------------------------------------------------------------- */

/* CLAW_EINVAL: no such key, or not a value of it. value.ptr NULL: none given. */
static int set_fault(struct faults *f, struct claw_str key, struct claw_str value)
{
    for (size_t i = 0; i < sizeof fault_keys / sizeof *fault_keys; i++) {
        if (!claw_str_eqz(key, fault_keys[i].key)) continue;
        uint64_t n = 1;
        if (value.ptr ? claw_str_u64(value, fault_keys[i].max, &n) != 0 || n < fault_keys[i].min : !fault_keys[i].flag)
            return CLAW_EINVAL;
        *(int64_t *)((char *)f + fault_keys[i].at) = (int64_t)n;
        return 0;
    }
    return CLAW_EINVAL;
}

/* Take what stands before the next `by` off *s. */
static struct claw_str cut_piece(struct claw_str *s, char by)
{
    const char *at = s->len ? memchr(s->ptr, by, s->len) : NULL;
    struct claw_str piece = {s->ptr, at ? (size_t)(at - s->ptr) : s->len};
    size_t gone = piece.len + (at ? 1 : 0);
    *s = (struct claw_str){s->ptr + gone, s->len - gone};
    return piece;
}

/* key=value, key. What is wrong is left in *bad. */
static int faults_of_header(struct faults *f, struct claw_str list, struct claw_str *bad)
{
    while (list.len) {
        struct claw_str value = claw_str_trim(cut_piece(&list, ','));
        if (value.len == 0) continue;
        *bad = value;
        bool given = memchr(value.ptr, '=', value.len) != NULL;
        struct claw_str key = claw_str_trim(cut_piece(&value, '='));
        value = claw_str_trim(value);
        if (set_fault(f, key, given ? value : (struct claw_str){NULL, 0}) != 0) return CLAW_EINVAL;
    }
    return 0;
}

/* mock-key-value-key-value; any other name is just a name. */
static void faults_of_model(struct faults *f, struct claw_str model)
{
    if (!claw_str_starts(model, CLAW_STR("mock-"))) return;
    struct claw_str rest = {model.ptr + 5, model.len - 5};
    while (rest.len) {
        struct claw_str key = cut_piece(&rest, '-'), after = rest, value = cut_piece(&after, '-');
        bool given = value.len && value.ptr[0] >= '0' && value.ptr[0] <= '9';
        if (given) rest = after;
        if (set_fault(f, key, given ? value : (struct claw_str){NULL, 0}) != 0) return;
    }
}

static bool due(int64_t after, int64_t n) { return after >= 0 && n >= after; }

/* ---- what is sent -------------------------------------------------------------------------------------------- */

static void note(struct answer *a, int rc)
{
    if (rc != 0) a->failed = true;
}

#define PUT(a, ...) note((a), claw_buf_add_fmt(&(a)->out, __VA_ARGS__))
#define PUT_JSON(a, s) note((a), claw_buf_add_json(&(a)->out, (s)))

static void put_error(struct answer *a, struct claw_str message, const char *type, const char *code)
{
    PUT(a, "{\"error\":{\"message\":");
    PUT_JSON(a, message);
    PUT(a, ",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}", type, code);
}

static void put_usage(struct answer *a)
{
    PUT(a, "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu}",
        (unsigned long long)a->prompt_tokens, (unsigned long long)a->completion_tokens,
        (unsigned long long)(a->prompt_tokens + a->completion_tokens));
}

static void put_opening(struct answer *a, const char *chat_object)
{
    PUT(a, "{\"id\":\"%s-mock-%llu\",\"object\":\"%s\",\"created\":%lld,\"model\":%.*s,\"choices\":[",
        a->kind == CHAT ? "chatcmpl" : "cmpl", (unsigned long long)a->id, a->kind == CHAT ? chat_object : "text_completion",
        (long long)time(NULL), CLAW_STR_FMT(a->model));
}

static const char *finish_reason(const struct answer *a)
{
    return a->tool.len ? "tool_calls" : a->cut_short ? "length" : "stop";
}

static void put_call(struct answer *a, const char *arguments)
{
    PUT(a, "\"id\":\"call_mock_%llu\",\"type\":\"function\",\"function\":{\"name\":%.*s,\"arguments\":\"%s\"}",
        (unsigned long long)a->id, CLAW_STR_FMT(a->tool), arguments);
}

static void put_plain(struct answer *a)
{
    put_opening(a, "chat.completion");
    PUT(a, "{\"index\":0,%s", a->kind == CHAT ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
    if (a->tool.len) {
        PUT(a, "null,\"tool_calls\":[{");
        put_call(a, "{}");
        PUT(a, "}]");
    } else {
        PUT_JSON(a, claw_buf_str(&a->text));
    }
    if (a->kind == CHAT) PUT(a, ",\"refusal\":null}");
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

static void put_token(struct answer *a)
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
        PUT(a, "%s", a->kind == CHAT ? "\"delta\":{\"content\":" : "\"text\":");
        PUT_JSON(a, ((struct claw_str){text.ptr + a->at, end - a->at}));
        if (a->kind == CHAT) PUT(a, "}");
        a->at = end;
    }
    PUT(a, ",\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    a->sent++;
}

static void put_finish(struct answer *a)
{
    PUT(a, "data: ");
    put_opening(a, "chat.completion.chunk");
    PUT(a, "{\"index\":0,%s,\"logprobs\":null,\"finish_reason\":\"%s\"}]}\n\n", a->kind == CHAT ? "\"delta\":{}" : "\"text\":\"\"",
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
static void put_piece(struct answer *a)
{
    bool first = !a->begun;
    a->begun = true;
    if ((first && a->faults.error_event > 0) || due(a->faults.error_after, a->sent)) {
        PUT(a, "data: ");
        put_error(a, CLAW_STR("The mock was asked for an error in its stream"), "server_error", "mock_error");
        PUT(a, "\n\n");
        a->complete = true;
    } else if (first && a->kind == CHAT) {
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

/* ---- the pump ------------------------------------------------------------------------------------------------ */

/* Has the answer come to where it was asked to break? It may be released then. */
static bool struck(struct answer *a)
{
    int64_t n = a->stream ? a->sent : INT64_MAX; /* plain: what was to come has left */
    if (a->stream && a->kind == CHAT && !a->begun) return false;
    if (due(a->faults.stall_after, n)) return true; /* until the client or the mock goes */
    if (due(a->faults.reset_after, n)) {
        give_up(a);
        return true;
    }
    if (!due(a->faults.cut_after, n)) return false;
    claw_conn_cut(a->conn);
    release(a);
    return true;
}

/* What goes out in one write: all, or up to the next byte inside a character. */
static size_t write_size(const struct answer *a)
{
    struct claw_str s = claw_buf_str(&a->out);
    if (a->faults.split_utf8 <= 0) return s.len;
    for (size_t i = 1; i < s.len; i++)
        if (((unsigned char)s.ptr[i] & 0xc0) == 0x80) return i;
    return s.len;
}

static uint64_t rest_ms(const struct answer *a)
{
    if (claw_buf_size(&a->out)) return SPLIT_MS;
    return a->stream && a->sent < a->tokens ? (uint64_t)a->faults.slow : 0;
}

static void pump(struct answer *a)
{
    for (unsigned i = 0; i < BURST; i++) {
        if (claw_buf_size(&a->out) == 0) {
            if (struck(a)) return;
            put_piece(a);
        }
        if (a->failed) {
            give_up(a);
            return;
        }
        size_t n = write_size(a);
        bool end = a->complete && n == claw_buf_size(&a->out);
        uv_buf_t b = uv_buf_init((char *)claw_buf_str(&a->out).ptr, (unsigned)n);
        int rc = claw_conn_send(a->conn, &b, 1, end);
        if (end) {
            release(a);
            return;
        }
        if (rc == CLAW_ECLIENT_GONE) return; /* on_gone follows */
        claw_buf_take(&a->out, n);
        if (rc == CLAW_EAGAIN) return; /* on_drain follows */
        uint64_t ms = rest_ms(a);
        if (ms) {
            claw_timer_start(a->mock->loop, &a->timer, ms);
            return;
        }
    }
    claw_timer_start(a->mock->loop, &a->timer, 0); /* others' turn */
}

/* Begin the answer: what is in `out` is its body, or, streamed, nothing yet. Without a body it ends here. */
static void reply(struct answer *a, int status, const char *type)
{
    struct claw_buf head;
    char more[48] = "";
    size_t size = claw_buf_size(&a->out), whole = size;
    if (a->faults.retry_after >= 0 && status >= 300)
        snprintf(more, sizeof more, "retry-after: %lld\r\n", (long long)a->faults.retry_after);
    claw_buf_init(&head, 0);
    note(a, claw_buf_add_fmt(&head, "HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%s", status, claw_h1_reason(status), type, more));
    struct claw_str made = claw_buf_str(&head);
    char *kept = claw_arena_dup(&a->arena, made.ptr, made.len);
    claw_buf_fini(&head);
    if (!kept || a->failed) {
        give_up(a);
        return;
    }
    claw_conn_reply(a->conn, status, (struct claw_str){kept, made.len}, a->stream ? -1 : (int64_t)size);
    if (!a->stream) {
        const int64_t after[] = {a->faults.stall_after, a->faults.reset_after, a->faults.cut_after};
        for (unsigned i = 0; i < 3; i++)
            if (after[i] >= 0 && (size_t)after[i] < size) size = (size_t)after[i];
        a->complete = size == whole;
        a->out.len = a->out.off + size;
    }
    if (a->complete && whole > 0) {
        pump(a);
        return;
    }
    int rc = claw_conn_send(a->conn, NULL, 0, a->complete);
    if (a->complete) release(a);
    else if (rc == 0) pump(a);
}

static void reply_error(struct answer *a, int status, struct claw_str message, const char *code)
{
    static const struct { int status; const char *type; } types[] = {
        {401, "authentication_error"}, {403, "permission_error"}, {429, "rate_limit_error"}, {529, "overloaded_error"},
    };
    const char *type = status >= 500 ? "server_error" : "invalid_request_error";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].status == status) type = types[i].type;
    a->stream = false;
    claw_buf_clear(&a->out);
    put_error(a, message, type, code);
    reply(a, status, "application/json");
}

/* ---- what is said -------------------------------------------------------------------------------------------- */

static struct claw_json_value field(const struct answer *a, const char *key)
{
    return claw_json_top_get(&a->top, claw_str_of(key));
}

/* A string, or the last text in a list of strings or of parts. Empty when there is none. */
static struct claw_str text_of(struct answer *a, struct claw_json_value v)
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
static struct claw_str last_user_text(struct answer *a, bool *open)
{
    struct claw_json_value messages = field(a, "messages"), one, last = {.type = CLAW_JSON_NONE};
    size_t pos = 0;
    struct claw_str key;
    *open = false;
    while (claw_json_next(messages, &pos, &key, &one)) {
        *open = claw_json_text_is(claw_json_get(one, CLAW_STR("role")), CLAW_STR("user"));
        if (*open) last = one;
    }
    return text_of(a, claw_json_get(last, CLAW_STR("content")));
}

static void choose_tool(struct answer *a, struct claw_str said, bool open)
{
    struct claw_json_value choice = field(a, "tool_choice");
    struct claw_json_value tool = claw_json_at(field(a, "tools"), 0);
    struct claw_json_value name = claw_json_get(claw_json_get(tool, CLAW_STR("function")), CLAW_STR("name"));
    struct claw_json_value named = claw_json_get(claw_json_get(choice, CLAW_STR("function")), CLAW_STR("name"));
    bool asked = claw_str_find(said, CLAW_STR("use a tool")) >= 0 || claw_str_find(said, CLAW_STR("Use a tool")) >= 0;
    if (name.type != CLAW_JSON_STRING || claw_json_text_is(choice, CLAW_STR("none"))) return;
    if (named.type == CLAW_JSON_STRING) name = named;
    if (choice.type == CLAW_JSON_OBJECT || claw_json_text_is(choice, CLAW_STR("required")) || (open && asked))
        a->tool = name.raw;
}

/* Cut the text to what was asked for, or go on counting up to it. */
static void fit_text(struct answer *a, int64_t most)
{
    struct claw_str text = claw_buf_str(&a->text);
    size_t at = 0;
    int64_t want = a->faults.tokens, n = 0;
    for (; at < text.len && n != want && n != most; n++) at = token_end(text, at);
    a->cut_short = n == most && (at < text.len || want > n);
    a->text.len = a->text.off + at;
    for (; n < want && n != most; n++) note(a, claw_buf_add_fmt(&a->text, " %lld", (long long)n + 1));
    a->tokens = n;
}

static void say(struct answer *a, struct claw_str said)
{
    int64_t most = -1;
    size_t n = said.len < ECHO_MAX ? said.len : ECHO_MAX;
    while (n < said.len && n > 0 && ((unsigned char)said.ptr[n] & 0xc0) == 0x80) n--;
    note(a, claw_buf_add_z(&a->text, said.len ? "You said: " : "Hello! I am the built-in mock: no model is behind me."));
    note(a, claw_buf_add(&a->text, said.ptr, n));
    if (n < said.len) note(a, claw_buf_add_z(&a->text, " …"));
    if (a->faults.split_utf8 > 0) note(a, claw_buf_add_z(&a->text, " Grüße, 日本語, 🦞!"));
    if (claw_json_int(field(a, "max_completion_tokens"), &most) != 0 && claw_json_int(field(a, "max_tokens"), &most) != 0)
        most = -1;
    fit_text(a, most);
    if (a->tool.len) a->tokens = 3;
    a->completion_tokens = a->tool.len ? (a->tool.len + 3) / 4 : (claw_buf_size(&a->text) + 3) / 4;
    if (most >= 0 && a->completion_tokens > (uint64_t)most) a->completion_tokens = (uint64_t)most;
}

static void complete(struct answer *a)
{
    bool open = false;
    struct claw_str said = a->kind == CHAT ? last_user_text(a, &open) : text_of(a, field(a, "prompt"));
    if (a->kind == CHAT) choose_tool(a, said, open);
    a->prompt_tokens = (field(a, a->kind == CHAT ? "messages" : "prompt").raw.len + 3) / 4;
    a->stream = field(a, "stream").type == CLAW_JSON_TRUE;
    a->usage = claw_json_get(field(a, "stream_options"), CLAW_STR("include_usage")).type == CLAW_JSON_TRUE;
    say(a, said);
    if (!a->stream && a->faults.error_event > 0) {
        reply_error(a, 200, CLAW_STR("The mock was asked for an error inside a 200"), "mock_error");
        return;
    }
    if (!a->stream) put_plain(a);
    reply(a, 200, a->stream ? "text/event-stream; charset=utf-8" : "application/json");
}

/* ---- embeddings ---------------------------------------------------------------------------------------------- */

static void put_base64(struct answer *a, const void *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
        note(a, claw_buf_add(&a->out, four, sizeof four));
    }
}

static void put_vector(struct answer *a, struct claw_str text, size_t index, size_t n, bool base64)
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

static void embed(struct answer *a)
{
    struct claw_json_value input = field(a, "input"), given = field(a, "dimensions"), one;
    struct claw_str key;
    bool many = input.type == CLAW_JSON_ARRAY && claw_json_at(input, 0).type != CLAW_JSON_NUMBER;
    bool base64 = claw_json_text_is(field(a, "encoding_format"), CLAW_STR("base64"));
    int64_t n = 8;
    size_t pos = 0, i = 0;
    if (given.type != CLAW_JSON_NONE && (claw_json_int(given, &n) != 0 || n < 1 || n > DIMENSIONS_MAX)) {
        reply_error(a, 400, CLAW_STR("'dimensions' must be 1 to 3072"), "invalid_value");
        return;
    }
    if (input.type == CLAW_JSON_NONE || (many && claw_json_count(input) > FLOATS_MAX / (size_t)n)) {
        reply_error(a, 400, CLAW_STR("'input' is missing or too long"), "invalid_value");
        return;
    }
    PUT(a, "{\"object\":\"list\",\"data\":[");
    if (!many) put_vector(a, input.raw, 0, (size_t)n, base64);
    while (many && claw_json_next(input, &pos, &key, &one)) put_vector(a, one.raw, i++, (size_t)n, base64);
    a->prompt_tokens = (input.raw.len + 3) / 4;
    PUT(a, "],\"model\":%.*s,\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", CLAW_STR_FMT(a->model),
        (unsigned long long)a->prompt_tokens, (unsigned long long)a->prompt_tokens);
    reply(a, 200, "application/json");
}

/* ---- one request --------------------------------------------------------------------------------------------- */

/* Answers that have nothing to do with what was asked. */
static bool misbehave(struct answer *a)
{
    const struct faults *f = &a->faults;
    if (f->status >= 0) {
        char text[64];
        int n = snprintf(text, sizeof text, "The mock was asked for status %lld", (long long)f->status);
        reply_error(a, (int)f->status, (struct claw_str){text, (size_t)n}, f->status == 429 ? "rate_limit_exceeded" : "mock_error");
    } else if (f->garbage > 0) {
        claw_conn_reply(a->conn, 200, CLAW_STR("\x16\x03\x01 these bytes are no HTTP\r\n"), 0);
        a->conn->close_after = true;
        int rc = claw_conn_send(a->conn, NULL, 0, true);
        (void)rc; /* ended either way */
        release(a);
    } else if (f->html > 0) {
        PUT(a, "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center></body>\r\n</html>\r\n");
        reply(a, 502, "text/html");
    } else if (f->empty > 0) {
        reply(a, 200, "application/json");
    } else {
        return false;
    }
    return true;
}

static bool ends(struct claw_str s, struct claw_str end)
{
    return s.len >= end.len && memcmp(s.ptr + s.len - end.len, end.ptr, end.len) == 0;
}

static void begin(struct answer *a)
{
    struct claw_str path = a->head->path;
    bool post = claw_str_eqz(a->head->method, "POST");
    if (misbehave(a)) return;
    if (post && ends(path, CLAW_STR("/chat/completions"))) {
        complete(a);
    } else if (post && ends(path, CLAW_STR("/completions"))) {
        a->kind = COMPLETION;
        complete(a);
    } else if (post && ends(path, CLAW_STR("/embeddings"))) {
        embed(a);
    } else if (claw_str_eqz(a->head->method, "GET") && ends(path, CLAW_STR("/models"))) {
        PUT(a, "{\"object\":\"list\",\"data\":[{\"id\":\"mock-gpt\",\"object\":\"model\",\"created\":0,\"owned_by\":\"openclaw\"},"
               "{\"id\":\"mock-embedding\",\"object\":\"model\",\"created\":0,\"owned_by\":\"openclaw\"}]}");
        reply(a, 200, "application/json");
    } else {
        reply_error(a, 404, CLAW_STR("The mock has nothing at this path"), "unknown_url");
    }
}

static void on_due(struct claw_timer *t)
{
    struct answer *a = t->arg;
    if (a->conn->replied) pump(a);
    else begin(a);
}

/* x-mock and the model's name. false: it was answered. */
static bool read_faults(struct answer *a, struct claw_str model)
{
    struct claw_str bad;
    faults_of_model(&a->faults, model);
    for (size_t i = 0; i < a->head->n; i++) {
        const struct claw_header *h = &a->head->headers[i];
        int rc = 0;
        if (claw_str_ieq(h->name, CLAW_STR("x-mock"))) rc = faults_of_header(&a->faults, h->value, &bad);
        else if (claw_str_ieq(h->name, CLAW_STR("x-mock-delay-ms"))) rc = set_fault(&a->faults, CLAW_STR("slow"), bad = h->value);
        if (rc == 0) continue;
        char text[128];
        int n = snprintf(text, sizeof text, "The mock does not understand \"%.*s\" in %.*s", bad.len < 64 ? (int)bad.len : 64, bad.ptr,
                         CLAW_STR_FMT(h->name));
        reply_error(a, 400, (struct claw_str){text, (size_t)n}, "mock_fault_unknown");
        return false;
    }
    return true;
}

static void on_done(struct claw_conn *c)
{
    struct answer *a = c->request;
    struct claw_json_err err;
    struct claw_str body = claw_buf_str(&a->body), model = CLAW_STR("");
    if (a->failed) {
        give_up(a);
        return;
    }
    if (body.len && claw_json_scan(body, &a->arena, &a->top, &err) != 0) {
        reply_error(a, 400, claw_str_of(err.text ? err.text : "the request is too large"), "bad_json");
        return;
    }
    struct claw_json_value v = field(a, "model");
    if (v.type == CLAW_JSON_STRING && claw_json_text(v, &a->arena, &model) == 0) a->model = v.raw;
    if (!read_faults(a, model)) return;
    if (a->faults.first_ms > 0) claw_timer_start(a->mock->loop, &a->timer, (uint64_t)a->faults.first_ms);
    else begin(a);
}

/* ---- the server's other events ------------------------------------------------------------------------------- */

static struct claw_arena *on_begin(struct claw_conn *c)
{
    struct claw_mock *m = c->server->arg;
    CLAW_ASSERT(m->magic == MAGIC);
    struct answer *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    claw_arena_init(&a->arena, NULL, 0, ARENA_MAX);
    claw_buf_init(&a->body, BODY_MAX);
    claw_buf_init(&a->text, 0);
    claw_buf_init(&a->out, 0);
    claw_timer_init(&a->timer, on_due, a);
    memset(&a->faults, 0xff, sizeof a->faults); /* all -1 */
    a->faults.slow = 20;
    a->model = CLAW_STR("\"mock-gpt\"");
    a->mock = m;
    a->conn = c;
    a->id = ++m->served;
    c->request = a;
    return &a->arena;
}

static void on_head(struct claw_conn *c, struct claw_head *h)
{
    struct answer *a = c->request;
    a->head = h;
    if (h->expect_continue) claw_conn_continue(c);
}

static void on_body(struct claw_conn *c, const char *data, size_t n)
{
    struct answer *a = c->request;
    note(a, claw_buf_add(&a->body, data, n));
}

static void on_refused(struct claw_conn *c, int code, const char *text)
{
    reply_error(c->request, claw_err_status(code), claw_str_of(text), claw_err_kind(code));
}

static void on_gone(struct claw_conn *c, int code) { release(c->request); }
static void on_drain(struct claw_conn *c) { pump(c->request); }

static const struct claw_server_events events = {on_begin, on_head, on_body, on_done, on_refused, on_gone, on_drain};

/* ---- beginning and end --------------------------------------------------------------------------------------- */

/* The server may tell so while its listener is still closing. */
static void on_empty(struct claw_server *s)
{
    struct claw_mock *m = s->arg;
    void (*on_closed)(void *) = m->on_closed;
    void *arg = m->closed_arg;
    if (s->listening || s->open) return;
    m->magic = 0;
    free(m);
    if (on_closed) on_closed(arg);
}

int claw_mock_open(struct claw_loop *loop, struct claw_mock **out, uint16_t *port, const char **why)
{
    struct claw_server_limits limits = {
        .h1 = claw_h1_defaults, .idle_timeout_ms = 600000, .header_timeout_ms = 10000, .body_timeout_ms = 30000, .send_timeout_ms = 30000,
    };
    struct claw_mock *m = calloc(1, sizeof *m);
    *why = claw_err_text(CLAW_ENOMEM);
    if (!m) return CLAW_EIO;
    m->magic = MAGIC;
    m->loop = loop;
    limits.h1.body_bytes = BODY_MAX;
    if (claw_server_listen(&m->server, loop, "127.0.0.1", 0, &limits, &events, m, why) != 0) {
        m->server.on_empty = on_empty; /* a socket that was opened is still closing */
        if (!m->server.listening) free(m);
        return CLAW_EIO;
    }
    *port = claw_server_port(&m->server);
    *out = m;
    return 0;
}

void claw_mock_close(struct claw_mock *m, void (*on_closed)(void *arg), void *arg)
{
    CLAW_ASSERT(m->magic == MAGIC);
    m->on_closed = on_closed;
    m->closed_arg = arg;
    claw_server_abort(&m->server);
    claw_server_drain(&m->server, on_empty);
}
