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
#include "app/mock_part.h"

#include <stdio.h>
#include <stdlib.h>

#define MAGIC 0x6d6f636bu
#define BODY_MAX (32u << 20)
#define ARENA_MAX (BODY_MAX + (8u << 20))
#define BURST 256u /* pieces in one turn when there is no rest between them */
#define SPLIT_MS 10u
#define PUT CLAW_MOCK_PUT

struct claw_mock {
    uint32_t magic;
    struct claw_loop *loop;
    struct claw_server server;
    uint64_t served;
    void (*on_closed)(void *arg);
    void *closed_arg;
};

/* ---- the answer's end ---------------------------------------------------------------------------------------- */

static void free_run(struct claw_deferred *d)
{
    struct claw_mock_answer *a = (struct claw_mock_answer *)((char *)d - offsetof(struct claw_mock_answer, last));
    claw_buf_fini(&a->body);
    claw_buf_fini(&a->text);
    claw_buf_fini(&a->out);
    claw_arena_reset(&a->arena);
    free(a);
}

static void release(struct claw_mock_answer *a)
{
    claw_timer_stop(a->mock->loop, &a->timer);
    claw_loop_defer(a->mock->loop, &a->last, free_run);
}

static void give_up(struct claw_mock_answer *a)
{
    claw_conn_abort(a->conn);
    release(a);
}

/* ---- the pump ------------------------------------------------------------------------------------------------ */

/* Has the answer come to where it was asked to break? It may be released then. */
static bool struck(struct claw_mock_answer *a)
{
    int64_t n = a->stream ? a->sent : INT64_MAX; /* plain: what was to come has left */
    if (a->stream && a->kind == CLAW_MOCK_CHAT && !a->begun) return false;
    if (claw_mock_due(a->faults.stall_after, n)) return true; /* until the client or the mock goes */
    if (claw_mock_due(a->faults.reset_after, n)) {
        give_up(a);
        return true;
    }
    if (!claw_mock_due(a->faults.cut_after, n)) return false;
    claw_conn_cut(a->conn);
    release(a);
    return true;
}

/* What goes out in one write: all, or up to the next byte inside a character. */
static size_t write_size(const struct claw_mock_answer *a)
{
    struct claw_str s = claw_buf_str(&a->out);
    if (a->faults.split_utf8 <= 0) return s.len;
    for (size_t i = 1; i < s.len; i++)
        if (((unsigned char)s.ptr[i] & 0xc0) == 0x80) return i;
    return s.len;
}

static uint64_t rest_ms(const struct claw_mock_answer *a)
{
    if (claw_buf_size(&a->out)) return SPLIT_MS;
    return a->stream && a->sent < a->tokens ? (uint64_t)a->faults.slow : 0;
}

static void pump(struct claw_mock_answer *a)
{
    for (unsigned i = 0; i < BURST; i++) {
        if (claw_buf_size(&a->out) == 0) {
            if (struck(a)) return;
            claw_mock_put_piece(a);
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
static void reply(struct claw_mock_answer *a, int status, const char *type)
{
    struct claw_buf head;
    char more[48] = "";
    size_t size = claw_buf_size(&a->out), whole = size;
    if (a->faults.retry_after >= 0 && status >= 300)
        snprintf(more, sizeof more, "retry-after: %lld\r\n", (long long)a->faults.retry_after);
    claw_buf_init(&head, 0);
    claw_mock_note(a, claw_buf_add_fmt(&head, "HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%s", status, claw_h1_reason(status), type, more));
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

static void reply_error(struct claw_mock_answer *a, int status, struct claw_str message, const char *code)
{
    static const struct { int status; const char *type; } types[] = {
        {401, "authentication_error"}, {403, "permission_error"}, {429, "rate_limit_error"}, {529, "overloaded_error"},
    };
    const char *type = status >= 500 ? "server_error" : "invalid_request_error";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].status == status) type = types[i].type;
    a->stream = false;
    claw_buf_clear(&a->out);
    claw_mock_put_error(a, message, type, code);
    reply(a, status, "application/json");
}

/* ---- one request --------------------------------------------------------------------------------------------- */

static void complete(struct claw_mock_answer *a)
{
    claw_mock_read(a);
    if (!a->stream && a->faults.error_event > 0) {
        reply_error(a, 200, CLAW_STR("The mock was asked for an error inside a 200"), "mock_error");
        return;
    }
    if (!a->stream) claw_mock_put_plain(a);
    reply(a, 200, a->stream ? "text/event-stream; charset=utf-8" : "application/json");
}

static void embed(struct claw_mock_answer *a)
{
    const char *wrong = claw_mock_put_embeddings(a);
    if (wrong) reply_error(a, 400, claw_str_of(wrong), "invalid_value");
    else reply(a, 200, "application/json");
}

/* Answers that have nothing to do with what was asked. */
static bool misbehave(struct claw_mock_answer *a)
{
    const struct claw_mock_faults *f = &a->faults;
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

static void begin(struct claw_mock_answer *a)
{
    struct claw_str path = a->head->path;
    bool post = claw_str_eqz(a->head->method, "POST");
    if (misbehave(a)) return;
    if (post && ends(path, CLAW_STR("/chat/completions"))) {
        complete(a);
    } else if (post && ends(path, CLAW_STR("/completions"))) {
        a->kind = CLAW_MOCK_COMPLETION;
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
    struct claw_mock_answer *a = t->arg;
    if (a->conn->replied) pump(a);
    else begin(a);
}

/* x-mock and the model's name. false: it was answered. */
static bool read_faults(struct claw_mock_answer *a, struct claw_str model)
{
    struct claw_str bad;
    claw_mock_faults_of_model(&a->faults, model);
    for (size_t i = 0; i < a->head->n; i++) {
        const struct claw_header *h = &a->head->headers[i];
        int rc = 0;
        if (claw_str_ieq(h->name, CLAW_STR("x-mock"))) rc = claw_mock_faults_of_header(&a->faults, h->value, &bad);
        else if (claw_str_ieq(h->name, CLAW_STR("x-mock-delay-ms"))) rc = claw_mock_fault_set(&a->faults, CLAW_STR("slow"), bad = h->value);
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
    struct claw_mock_answer *a = c->request;
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
    struct claw_json_value v = claw_mock_field(a, "model");
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
    struct claw_mock_answer *a = calloc(1, sizeof *a);
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
    struct claw_mock_answer *a = c->request;
    a->head = h;
    if (h->expect_continue) claw_conn_continue(c);
}

static void on_body(struct claw_conn *c, const char *data, size_t n)
{
    struct claw_mock_answer *a = c->request;
    claw_mock_note(a, claw_buf_add(&a->body, data, n));
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
