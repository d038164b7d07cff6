#include "app/mock.h"

#include "../http/peer.h"
#include "base/json.h"
#include "http/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct claw_loop loop;
static struct claw_mock *mock;
static uint16_t port;

static void on_mock_closed(void *arg) { *(bool *)arg = true; }

static int open_mock(void **state)
{
    const char *why = "";
    assert_int_equal(claw_loop_init(&loop), 0);
    assert_int_equal(claw_mock_open(&loop, &mock, &port, &why), 0);
    assert_int_not_equal(port, 0);
    return 0;
}

static int close_mock(void **state)
{
    bool closed = false;
    claw_mock_close(mock, on_mock_closed, &closed);
    UNTIL(&loop, closed);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    return 0;
}

/* ---- one exchange -------------------------------------------------------------------------------------------- */

/* An answer as our own parser sees it, and its events when it is a stream. */
struct answer {
    struct peer peer;
    struct claw_arena arena;
    struct claw_h1 parser;
    struct claw_head *head;
    struct claw_buf body;
    bool done, broken;
    struct claw_sse sse;
    unsigned events;
    struct claw_buf said, arguments;
    bool done_event, role, error_event, usage, finish;
    char finish_reason[16];
    size_t fed;
};

static int on_head(struct claw_h1 *p, struct claw_head *h)
{
    ((struct answer *)p->arg)->head = h;
    return 0;
}

static int on_body(struct claw_h1 *p, const char *data, size_t n)
{
    return claw_buf_add(&((struct answer *)p->arg)->body, data, n);
}

static int on_done(struct claw_h1 *p)
{
    ((struct answer *)p->arg)->done = true;
    return 0;
}

static const struct claw_h1_events parser_events = {on_head, on_body, on_done};

static struct claw_json_value at(struct claw_json_value v, const char *path)
{
    char one[64];
    while (*path) {
        size_t n = strcspn(path, ".");
        memcpy(one, path, n);
        one[n] = 0;
        path += n + (path[n] == '.');
        v = one[0] >= '0' && one[0] <= '9' ? claw_json_at(v, atol(one)) : claw_json_get(v, (struct claw_str){one, n});
    }
    return v;
}

static struct claw_json_value json_of(struct answer *a, struct claw_str text)
{
    struct claw_json_top top;
    struct claw_json_err err;
    assert_int_equal(claw_json_scan(text, &a->arena, &top, &err), 0);
    return top.root;
}

static struct claw_str text_at(struct answer *a, struct claw_json_value v, const char *path)
{
    struct claw_str s;
    v = at(v, path);
    return claw_json_text(v, &a->arena, &s) == 0 ? s : (struct claw_str){NULL, 0};
}

static int64_t int_at(struct claw_json_value v, const char *path)
{
    int64_t n = -1;
    return claw_json_int(at(v, path), &n) == 0 ? n : -1;
}

static int on_event(void *arg, const struct claw_sse_event *ev)
{
    struct answer *a = arg;
    struct claw_buf tmp;
    struct claw_sse_fields f;
    claw_buf_init(&tmp, 0);
    assert_int_equal(claw_sse_parse(ev->raw, &tmp, &f), 0);
    a->events++;
    if (claw_str_eqz(f.data, "[DONE]")) {
        a->done_event = true;
    } else {
        struct claw_json_value v = json_of(a, f.data);
        struct claw_str s = text_at(a, v, "choices.0.delta.content");
        if (!s.ptr) s = text_at(a, v, "choices.0.text");
        if (s.ptr) assert_int_equal(claw_buf_add_str(&a->said, s), 0);
        s = text_at(a, v, "choices.0.delta.tool_calls.0.function.arguments");
        if (s.ptr) assert_int_equal(claw_buf_add_str(&a->arguments, s), 0);
        if (text_at(a, v, "choices.0.delta.role").ptr) a->role = true;
        if (at(v, "error").type == CLAW_JSON_OBJECT) a->error_event = true;
        if (int_at(v, "usage.total_tokens") > 0) a->usage = claw_json_count(at(v, "choices")) == 0;
        s = text_at(a, v, "choices.0.finish_reason");
        if (s.ptr) snprintf(a->finish_reason, sizeof a->finish_reason, "%.*s", CLAW_STR_FMT(s));
    }
    claw_buf_fini(&tmp);
    return 0;
}

static void begin(struct answer *a, const char *method, const char *path, const char *fields, const char *body)
{
    char text[8192];
    memset(a, 0, sizeof *a);
    claw_arena_init(&a->arena, NULL, 0, 64u << 20);
    claw_buf_init(&a->body, 0);
    claw_buf_init(&a->said, 0);
    claw_buf_init(&a->arguments, 0);
    claw_sse_init(&a->sse, 1 << 20);
    claw_h1_init(&a->parser, CLAW_H1_RESPONSE, &claw_h1_defaults, &parser_events, a);
    claw_h1_begin(&a->parser, &a->arena, false);
    peer_dial(&a->peer, &loop, port);
    int n = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nhost: mock\r\n%scontent-length: %zu\r\n\r\n%s", method, path, fields,
                     strlen(body), body);
    assert_true(n > 0 && (size_t)n < sizeof text);
    peer_send(&a->peer, text, (size_t)n);
}

/* Read what came so far. */
static void feed(struct answer *a)
{
    struct claw_str s = claw_buf_str(&a->peer.in);
    size_t used = 0, before = claw_buf_size(&a->body);
    if (a->broken || a->fed == s.len) return;
    if (a->done || claw_h1_feed(&a->parser, s.ptr + a->fed, s.len - a->fed, &used) != 0) {
        a->broken = true;
        return;
    }
    a->fed += used;
    const struct claw_header *type = a->head ? claw_head_find(a->head, CLAW_H_CONTENT_TYPE) : NULL;
    if (!type || !claw_str_starts(type->value, CLAW_STR("text/event-stream"))) return;
    struct claw_sse_sink sink = {on_event, NULL, a};
    struct claw_str body = claw_buf_str(&a->body);
    assert_int_equal(claw_sse_feed(&a->sse, body.ptr + before, body.len - before, &sink), 0);
}

static void finish(struct answer *a)
{
    while (!a->done && !a->broken && !a->peer.ended) {
        claw_loop_turn(&loop, true);
        feed(a);
    }
}

static void end(struct answer *a)
{
    peer_fini(&a->peer, &loop);
    claw_sse_fini(&a->sse);
    claw_buf_fini(&a->body);
    claw_buf_fini(&a->said);
    claw_buf_fini(&a->arguments);
    claw_arena_reset(&a->arena);
}

static void ask(struct answer *a, const char *path, const char *fields, const char *body)
{
    begin(a, "POST", path, fields, body);
    finish(a);
}

static struct claw_json_value body_of(struct answer *a)
{
    assert_true(a->done);
    return json_of(a, claw_buf_str(&a->body));
}

static void assert_text(struct claw_str s, const char *z)
{
    char *text = strndup(s.ptr ? s.ptr : "", s.len);
    assert_string_equal(text, z);
    free(text);
}

#define CHAT "/v1/chat/completions"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi there\"}]"

/* ---- plain answers ------------------------------------------------------------------------------------------- */

static void says_what_the_user_said(void **state)
{
    static const struct { const char *messages, *said; } rows[] = {
        {"[{\"role\":\"user\",\"content\":\"hi there\"}]", "You said: hi there"},
        {"[{\"role\":\"user\",\"content\":\"one\"},{\"role\":\"assistant\",\"content\":\"x\"},{\"role\":\"user\",\"content\":\"two\"}]", "You said: two"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"image_url\",\"image_url\":{}},{\"type\":\"text\",\"text\":\"b\\n\\\"c\\\"\"}]}]",
         "You said: b\n\"c\""},
        {"[]", "Hello! I am the built-in mock: no model is behind me."},
        {"\"none\"", "Hello! I am the built-in mock: no model is behind me."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct answer a;
        char body[1024];
        snprintf(body, sizeof body, "{\"model\":\"gpt-\\u0034\",\"messages\":%s}", rows[i].messages);
        ask(&a, i % 2 ? CHAT : "/chat/completions", "", body);
        assert_int_equal(a.head->status, 200);
        struct claw_json_value v = body_of(&a);
        assert_text(text_at(&a, v, "choices.0.message.content"), rows[i].said);
        assert_text(text_at(&a, v, "choices.0.message.role"), "assistant");
        assert_text(text_at(&a, v, "choices.0.finish_reason"), "stop");
        assert_text(at(v, "model").raw, "\"gpt-\\u0034\""); /* as it was spelled */
        assert_int_equal(int_at(v, "usage.prompt_tokens"), (strlen(rows[i].messages) + 3) / 4);
        assert_int_equal(int_at(v, "usage.completion_tokens"), (strlen(rows[i].said) + 3) / 4);
        assert_int_equal(int_at(v, "usage.total_tokens"), int_at(v, "usage.prompt_tokens") + int_at(v, "usage.completion_tokens"));
        end(&a);
    }
}

static void lengths_are_honoured(void **state)
{
    static const struct { const char *fields, *more, *said, *reason; } rows[] = {
        {"", ",\"max_tokens\":3", "You said: hi", "length"},
        {"", ",\"max_tokens\":4", "You said: hi there", "stop"},
        {"", ",\"max_completion_tokens\":1,\"max_tokens\":9", "You", "length"},
        {"", ",\"max_tokens\":0", "", "length"},
        {"x-mock: tokens=2\r\n", "", "You said:", "stop"},
        {"x-mock: tokens=6\r\n", "", "You said: hi there 5 6", "stop"},
        {"x-mock: tokens=6\r\n", ",\"max_tokens\":5", "You said: hi there 5", "length"},
        {"x-mock: tokens=0\r\n", "", "", "stop"},
    };
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        struct answer a;
        char body[512], fields[128];
        bool stream = i & 1;
        snprintf(body, sizeof body, "{" HI "%s%s}", rows[i / 2].more, stream ? ",\"stream\":true" : "");
        snprintf(fields, sizeof fields, "x-mock-delay-ms: 0\r\n%s", rows[i / 2].fields);
        ask(&a, CHAT, fields, body);
        assert_true(a.done);
        if (stream) {
            assert_text(claw_buf_str(&a.said), rows[i / 2].said);
            assert_string_equal(a.finish_reason, rows[i / 2].reason);
        } else {
            assert_text(text_at(&a, body_of(&a), "choices.0.message.content"), rows[i / 2].said);
            assert_text(text_at(&a, body_of(&a), "choices.0.finish_reason"), rows[i / 2].reason);
        }
        end(&a);
    }
}

static void long_messages_are_cut_between_characters(void **state)
{
    struct answer a;
    char body[4096] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x";
    for (size_t n = strlen(body), i = 0; i < 1500; i++) memcpy(body + n + 2 * i, "é", 3);
    strcat(body, "\"}]}");
    ask(&a, CHAT, "", body);
    struct claw_str s = text_at(&a, body_of(&a), "choices.0.message.content");
    assert_int_equal(s.len, 10 + 1999 + 4); /* "You said: ", the cut, " …" */
    assert_true(claw_str_find(s, CLAW_STR("\xef\xbf\xbd")) < 0);
    end(&a);
}

static void completions_and_models(void **state)
{
    struct answer a;
    ask(&a, "/v1/completions", "", "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}");
    assert_text(text_at(&a, body_of(&a), "choices.0.text"), "You said: b");
    assert_text(text_at(&a, body_of(&a), "object"), "text_completion");
    end(&a);
    ask(&a, "/v1/completions", "x-mock: slow=0\r\n", "{\"model\":\"m\",\"prompt\":\"a b\",\"stream\":true}");
    assert_text(claw_buf_str(&a.said), "You said: a b");
    assert_true(a.done_event && !a.role);
    end(&a);
    begin(&a, "GET", "/v1/models?x=1", "", "");
    finish(&a);
    assert_text(text_at(&a, body_of(&a), "data.0.id"), "mock-gpt");
    end(&a);
    ask(&a, "/v1/models", "", "{}");
    assert_int_equal(a.head->status, 404);
    assert_text(text_at(&a, body_of(&a), "error.code"), "unknown_url");
    end(&a);
}

static void bad_requests_get_an_envelope(void **state)
{
    struct answer a;
    ask(&a, CHAT, "", "{\"messages\":");
    assert_int_equal(a.head->status, 400);
    assert_text(text_at(&a, body_of(&a), "error.code"), "bad_json");
    end(&a);
    ask(&a, CHAT, "x-mock: stalls=3\r\n", "{}");
    assert_int_equal(a.head->status, 400);
    assert_text(text_at(&a, body_of(&a), "error.message"), "The mock does not understand \"stalls=3\" in x-mock");
    end(&a);
    begin(&a, "POST", CHAT, "content-length: 7\r\n", "{}");
    finish(&a);
    assert_int_equal(a.head->status, 400);
    assert_text(text_at(&a, body_of(&a), "error.code"), "bad_request");
    end(&a);
}

static void embeddings(void **state)
{
    struct answer a;
    struct claw_str first;
    ask(&a, "/v1/embeddings", "", "{\"model\":\"e\",\"input\":\"one\"}");
    struct claw_json_value v = body_of(&a);
    assert_int_equal(claw_json_count(at(v, "data")), 1);
    assert_int_equal(claw_json_count(at(v, "data.0.embedding")), 8);
    double sum = 0, x;
    for (long i = 0; i < 8; i++) {
        assert_int_equal(claw_json_double(claw_json_at(at(v, "data.0.embedding"), i), &x), 0);
        sum += x * x;
    }
    assert_true(sum > 0.999 && sum < 1.001);
    first = at(v, "data.0.embedding").raw;
    char *kept = strndup(first.ptr, first.len);
    end(&a);
    ask(&a, "/v1/embeddings", "", "{\"model\":\"e\",\"input\":[\"one\",\"two\"]}");
    v = body_of(&a);
    assert_int_equal(claw_json_count(at(v, "data")), 2);
    assert_text(at(v, "data.0.embedding").raw, kept); /* the same text, the same vector */
    assert_false(claw_str_eqz(at(v, "data.1.embedding").raw, kept));
    assert_int_equal(int_at(v, "data.1.index"), 1);
    free(kept);
    end(&a);
    ask(&a, "/v1/embeddings", "", "{\"input\":[1,2,3],\"dimensions\":3072,\"encoding_format\":\"base64\"}");
    v = body_of(&a);
    assert_int_equal(claw_json_count(at(v, "data")), 1);
    assert_int_equal(text_at(&a, v, "data.0.embedding").len, 3072 * 4 / 3 * 4);
    end(&a);
    ask(&a, "/v1/embeddings", "", "{\"input\":\"x\",\"dimensions\":2,\"encoding_format\":\"base64\"}");
    struct claw_str s = text_at(&a, body_of(&a), "data.0.embedding");
    assert_int_equal(s.len, 12); /* 8 bytes and padding */
    assert_int_equal(s.ptr[11], '=');
    assert_int_not_equal(s.ptr[10], '=');
    end(&a);
    static const char *const wrong[] = {"{\"input\":\"x\",\"dimensions\":3073}", "{\"input\":\"x\",\"dimensions\":0}",
                                        "{\"input\":\"x\",\"dimensions\":1.5}", "{\"dimensions\":3}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ask(&a, "/v1/embeddings", "", wrong[i]);
        assert_int_equal(a.head->status, 400);
        end(&a);
    }
}

/* ---- streams ------------------------------------------------------------------------------------------------- */

static void streams_word_by_word(void **state)
{
    struct answer a;
    ask(&a, CHAT, "x-mock: slow=0\r\n", "{" HI ",\"stream\":true}");
    assert_true(a.done && a.role && a.done_event && !a.usage);
    assert_int_equal(a.events, 1 + 4 + 1 + 1); /* role, words, finish, [DONE] */
    assert_text(claw_buf_str(&a.said), "You said: hi there");
    assert_string_equal(a.finish_reason, "stop");
    end(&a);
    ask(&a, CHAT, "x-mock: slow=0\r\n", "{" HI ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    assert_true(a.done && a.usage);
    assert_int_equal(a.events, 8);
    end(&a);
}

/* Behind the role there is one token a rest; nothing comes while time stands still. */
static void streams_rest_between_tokens(void **state)
{
    struct answer a;
    begin(&a, "POST", CHAT, "x-mock: slow=600000\r\n", "{" HI ",\"stream\":true}");
    for (unsigned events = 1; events < 1 + 4; events++) {
        while (a.events < events) {
            claw_loop_turn(&loop, true);
            feed(&a);
        }
        for (int i = 0; i < 5; i++) claw_loop_turn(&loop, false);
        feed(&a);
        assert_int_equal(a.events, events);
        claw_loop_advance(&loop, 600000);
    }
    finish(&a);
    assert_true(a.done && a.done_event);
    end(&a);
}

static void the_head_can_wait(void **state)
{
    struct answer a;
    begin(&a, "POST", CHAT, "x-mock: first_ms=600000\r\n", "{" HI "}");
    for (int i = 0; i < 20; i++) claw_loop_turn(&loop, false);
    assert_int_equal(claw_buf_size(&a.peer.in), 0);
    claw_loop_advance(&loop, 600000);
    finish(&a);
    assert_int_equal(a.head->status, 200);
    end(&a);
}

static void tools_are_called(void **state)
{
#define TOOLS ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_time\"}},{\"type\":\"function\",\"function\":{\"name\":\"b\"}}]"
    static const struct { const char *body, *name; } rows[] = {
        {"{" HI TOOLS ",\"tool_choice\":\"required\"", "get_time"},
        {"{" HI TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"b\"}}", "b"},
        {"{" HI TOOLS ",\"tool_choice\":\"auto\"", NULL},
        {"{" HI ",\"tool_choice\":\"required\"", NULL},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"use a tool!\"}]" TOOLS, "get_time"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"use a tool!\"}],\"tool_choice\":\"none\"" TOOLS, NULL},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"use a tool!\"},{\"role\":\"tool\",\"content\":\"12:00\"}]" TOOLS, NULL},
    };
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        struct answer a;
        char body[1024];
        const char *name = rows[i / 2].name;
        snprintf(body, sizeof body, "%s%s}", rows[i / 2].body, i & 1 ? ",\"stream\":true" : "");
        ask(&a, CHAT, "x-mock: slow=0\r\n", body);
        assert_true(a.done);
        if (i & 1) {
            assert_string_equal(a.finish_reason, name ? "tool_calls" : "stop");
            assert_text(claw_buf_str(&a.arguments), name ? "{}" : "");
            assert_int_equal(claw_buf_size(&a.said) > 0, !name);
        } else {
            struct claw_json_value v = body_of(&a);
            assert_text(text_at(&a, v, "choices.0.finish_reason"), name ? "tool_calls" : "stop");
            assert_text(text_at(&a, v, "choices.0.message.tool_calls.0.function.name"), name ? name : "");
            assert_text(text_at(&a, v, "choices.0.message.tool_calls.0.function.arguments"), name ? "{}" : "");
        }
        end(&a);
    }
}

/* ---- misbehaviour -------------------------------------------------------------------------------------------- */

static void statuses(void **state)
{
    struct answer a;
    ask(&a, CHAT, "x-mock: status=429, retry_after=7\r\n", "{\"stream\":true}");
    assert_int_equal(a.head->status, 429);
    assert_text(claw_head_find(a.head, CLAW_H_RETRY_AFTER)->value, "7");
    assert_text(text_at(&a, body_of(&a), "error.type"), "rate_limit_error");
    end(&a);
    ask(&a, CHAT, "", "{\"model\":\"mock-status-529-retry_after-3\"}");
    assert_int_equal(a.head->status, 529);
    assert_text(claw_head_find(a.head, CLAW_H_RETRY_AFTER)->value, "3");
    end(&a);
    ask(&a, CHAT, "", "{\"model\":\"mock-gpt\"}");
    assert_int_equal(a.head->status, 200);
    end(&a);
    ask(&a, CHAT, "x-mock: status=304\r\n", "{}");
    assert_int_equal(a.head->status, 304);
    assert_int_equal(claw_buf_size(&a.body), 0);
    end(&a);
    ask(&a, CHAT, "x-mock: html\r\n", "{}");
    assert_int_equal(a.head->status, 502);
    assert_text(claw_head_find(a.head, CLAW_H_CONTENT_TYPE)->value, "text/html");
    end(&a);
    ask(&a, CHAT, "x-mock: empty\r\n", "{}");
    assert_int_equal(a.head->status, 200);
    assert_true(a.done);
    assert_int_equal(claw_buf_size(&a.body), 0);
    end(&a);
    ask(&a, CHAT, "x-mock: garbage\r\n", "{}");
    assert_true(a.broken && !a.head);
    end(&a);
}

static void errors_in_a_200(void **state)
{
    struct answer a;
    ask(&a, CHAT, "x-mock: error_event\r\n", "{" HI ",\"stream\":true}");
    assert_int_equal(a.head->status, 200);
    assert_true(a.done && a.error_event && !a.done_event);
    assert_int_equal(a.events, 1);
    end(&a);
    ask(&a, CHAT, "x-mock: error_event\r\n", "{" HI "}");
    assert_int_equal(a.head->status, 200);
    assert_text(text_at(&a, body_of(&a), "error.code"), "mock_error");
    end(&a);
    ask(&a, CHAT, "x-mock: error_after=2, slow=0\r\n", "{" HI ",\"stream\":true}");
    assert_true(a.done && a.error_event && !a.done_event);
    assert_text(claw_buf_str(&a.said), "You said:");
    end(&a);
}

static void breaks_in_the_midst(void **state)
{
    static const struct { const char *fault; bool clean; } rows[] = {{"reset_after=2", false}, {"cut_after=2", true}};
    for (size_t i = 0; i < 4; i++) {
        struct answer a;
        char fields[64];
        bool stream = i & 1;
        snprintf(fields, sizeof fields, "x-mock: slow=0, %s\r\n", rows[i / 2].fault);
        ask(&a, CHAT, fields, stream ? "{" HI ",\"stream\":true}" : "{" HI "}");
        UNTIL(&loop, a.peer.ended);
        feed(&a);
        assert_false(a.done);
        assert_int_equal(a.peer.end_code, rows[i / 2].clean ? CLAW_OK : CLAW_EUPSTREAM_EOF);
        if (rows[i / 2].clean && stream) assert_text(claw_buf_str(&a.said), "You said:");
        if (rows[i / 2].clean && !stream) assert_text(claw_buf_str(&a.body), "{\"");
        end(&a);
    }
}

static void stalls(void **state)
{
    for (int stream = 0; stream < 2; stream++) {
        struct answer a;
        begin(&a, "POST", CHAT, "x-mock: slow=0, stall_after=2\r\n", stream ? "{" HI ",\"stream\":true}" : "{" HI "}");
        while (stream ? a.events < 3 : claw_buf_size(&a.body) < 2) {
            claw_loop_turn(&loop, true);
            feed(&a);
        }
        for (int i = 0; i < 5; i++) {
            claw_loop_advance(&loop, 100000);
            claw_loop_turn(&loop, false);
        }
        feed(&a);
        assert_false(a.done || a.peer.ended);
        if (stream) assert_text(claw_buf_str(&a.said), "You said:");
        else assert_int_equal(claw_buf_size(&a.body), 2);
        end(&a); /* the mock frees what is left of it: the sanitizers and the loop's end say so */
    }
}

static void splits_characters(void **state)
{
    struct answer a;
    ask(&a, CHAT, "x-mock: slow=0, split_utf8\r\n", "{" HI ",\"stream\":true}");
    assert_true(a.done);
    assert_text(claw_buf_str(&a.said), "You said: hi there Grüße, 日本語, 🦞!");
    /* every byte inside a character begins a chunk: ü, ß 1 each, three characters 2 each, the last 3 */
    assert_true(peer_has(&a.peer, "\r\n\xbc\xc3\r\n") && peer_has(&a.peer, "\r\n1\r\n\xa6\r\n"));
    end(&a);
    ask(&a, CHAT, "x-mock: split_utf8\r\n", "{" HI "}");
    assert_text(text_at(&a, body_of(&a), "choices.0.message.content"), "You said: hi there Grüße, 日本語, 🦞!");
    end(&a);
}

/* ---- connections --------------------------------------------------------------------------------------------- */

static void connections_are_kept(void **state)
{
    struct peer p;
    static const char one[] = "GET /v1/models HTTP/1.1\r\nhost: m\r\n\r\n";
    peer_dial(&p, &loop, port);
    for (int i = 0; i < 3; i++) {
        peer_say(&p, one);
        UNTIL(&loop, peer_ends(&p, "]}"));
        claw_buf_clear(&p.in);
    }
    peer_say(&p, "GET /v1/models HTTP/1.1\r\nhost: m\r\n\r\nGET /no HTTP/1.1\r\nhost: m\r\n\r\n");
    UNTIL(&loop, peer_has(&p, "unknown_url"));
    assert_false(p.ended);
    peer_fini(&p, &loop);
}

/* A client that does not read holds the stream up, not the mock's memory; and gets all of it in the end. */
static void slow_readers_hold_a_stream(void **state)
{
    struct answer a;
    begin(&a, "POST", CHAT, "x-mock: slow=0, tokens=60000\r\n", "{" HI ",\"stream\":true}");
    claw_stream_pause(&a.peer.stream);
    for (int i = 0; i < 200; i++) {
        claw_loop_advance(&loop, 10);
        claw_loop_turn(&loop, false);
    }
    claw_stream_resume(&a.peer.stream);
    finish(&a);
    assert_true(a.done);
    assert_int_equal(a.events, 1 + 60000 + 2);
    end(&a);
}

static void clients_may_leave_at_any_time(void **state)
{
    static const char *const fields[] = {"x-mock: first_ms=600000\r\n", "x-mock: slow=600000\r\n", "x-mock: slow=0, tokens=60000\r\n",
                                         "x-mock: stall_after=0\r\n"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct answer a;
        begin(&a, "POST", CHAT, fields[i], "{" HI ",\"stream\":true}");
        if (i > 0) UNTIL(&loop, claw_buf_size(&a.peer.in) > 0);
        else for (int k = 0; k < 10; k++) claw_loop_turn(&loop, false);
        end(&a);
        for (int k = 0; k < 10; k++) claw_loop_turn(&loop, false);
    }
}

static void closing_ends_what_is_under_way(void **state)
{
    struct answer a[3];
    begin(&a[0], "POST", CHAT, "x-mock: slow=600000\r\n", "{" HI ",\"stream\":true}");
    begin(&a[1], "POST", CHAT, "x-mock: first_ms=600000\r\n", "{" HI "}");
    begin(&a[2], "GET", "/v1/models", "", "");
    finish(&a[2]);
    UNTIL(&loop, claw_buf_size(&a[0].peer.in) > 0);
    bool closed = false;
    const char *why;
    claw_mock_close(mock, on_mock_closed, &closed);
    UNTIL(&loop, closed && a[0].peer.ended && a[1].peer.ended && a[2].peer.ended);
    for (int i = 0; i < 3; i++) end(&a[i]);
    assert_int_equal(claw_mock_open(&loop, &mock, &port, &why), 0);
}

int main(void)
{
    alarm(PEER_ALARM_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_the_user_said),
        cmocka_unit_test(lengths_are_honoured),
        cmocka_unit_test(long_messages_are_cut_between_characters),
        cmocka_unit_test(completions_and_models),
        cmocka_unit_test(bad_requests_get_an_envelope),
        cmocka_unit_test(embeddings),
        cmocka_unit_test(streams_word_by_word),
        cmocka_unit_test(streams_rest_between_tokens),
        cmocka_unit_test(the_head_can_wait),
        cmocka_unit_test(tools_are_called),
        cmocka_unit_test(statuses),
        cmocka_unit_test(errors_in_a_200),
        cmocka_unit_test(breaks_in_the_midst),
        cmocka_unit_test(stalls),
        cmocka_unit_test(splits_characters),
        cmocka_unit_test(connections_are_kept),
        cmocka_unit_test(slow_readers_hold_a_stream),
        cmocka_unit_test(clients_may_leave_at_any_time),
        cmocka_unit_test(closing_ends_what_is_under_way),
    };
    return cmocka_run_group_tests_name("app/mock", tests, open_mock, close_mock);
}
