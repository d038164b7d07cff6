/* mock, inside: one answer under way, and the two files that fill it. See mock.c for what can be asked for. */
#ifndef CLAW_APP_MOCK_PART_H
#define CLAW_APP_MOCK_PART_H

#include "app/mock.h"
#include "base/json.h"

/* -1: not asked for. */
struct claw_mock_faults {
    int64_t status, retry_after, error_event, error_after, stall_after, reset_after, cut_after, split_utf8, slow, first_ms,
        garbage, html, empty, tokens;
};

enum claw_mock_kind { CLAW_MOCK_CHAT, CLAW_MOCK_COMPLETION };

/* One request and its answer. Owned by conn->request until release; then by the end of the turn. */
struct claw_mock_answer {
    struct claw_arena arena;
    struct claw_mock *mock;
    struct claw_conn *conn;
    struct claw_timer timer;
    struct claw_deferred last;
    struct claw_head *head;  /* of the request; NULL until it is complete */
    struct claw_buf body;    /* of the request */
    struct claw_buf text;    /* what is said */
    struct claw_buf out;     /* made and not yet sent */
    struct claw_mock_faults faults;
    struct claw_json_top top;
    struct claw_str model;   /* as JSON */
    struct claw_str tool;    /* its name as JSON; empty: no call */
    enum claw_mock_kind kind;
    bool stream, usage, cut_short, begun, complete, failed;
    uint64_t id;
    int64_t tokens, sent;    /* of the content */
    size_t at;               /* how much of text was said */
    uint64_t prompt_tokens, completion_tokens;
};

static inline bool claw_mock_due(int64_t after, int64_t n) { return after >= 0 && n >= after; }
static inline struct claw_json_value claw_mock_field(const struct claw_mock_answer *a, const char *key)
{
    return claw_json_top_get(&a->top, claw_str_of(key));
}
/* A failed append shows in a->failed: whoever sends gives the answer up. */
static inline void claw_mock_note(struct claw_mock_answer *a, int rc)
{
    if (rc != 0) a->failed = true;
}
#define CLAW_MOCK_PUT(a, ...) claw_mock_note((a), claw_buf_add_fmt(&(a)->out, __VA_ARGS__))

/* ---- mock_fault.c */

/* CLAW_EINVAL: no such key, or not a value of it. value.ptr NULL: none given. */
int claw_mock_fault_set(struct claw_mock_faults *f, struct claw_str key, struct claw_str value) CLAW_MUSTCHECK;
/* "key=value, key". CLAW_EINVAL: *bad is the pair that is wrong. */
int claw_mock_faults_of_header(struct claw_mock_faults *f, struct claw_str list, struct claw_str *bad) CLAW_MUSTCHECK;
/* mock-key-value-key-value; any other name is just a name. */
void claw_mock_faults_of_model(struct claw_mock_faults *f, struct claw_str model);

/* ---- mock_say.c */

/* Read a completion's request: what to say, whether streamed, which tool to call. */
void claw_mock_read(struct claw_mock_answer *a);
/* Append to a->out: an error's body; the whole plain answer; the next event of a stream, the last one with
 * a->complete set. */
void claw_mock_put_error(struct claw_mock_answer *a, struct claw_str message, const char *type, const char *code);
void claw_mock_put_plain(struct claw_mock_answer *a);
void claw_mock_put_piece(struct claw_mock_answer *a);
/* The answer to a request for embeddings; or what is wrong with it, NULL when nothing is. */
const char *claw_mock_put_embeddings(struct claw_mock_answer *a);

#endif
