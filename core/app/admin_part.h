/* admin_part: what the admin port's files share. Nobody else includes it. */
#ifndef CLAW_APP_ADMIN_PART_H
#define CLAW_APP_ADMIN_PART_H

#include "app/admin.h"
#include "http/server.h"
#include "proxy/answer.h"

/* A question: its head, and its body, until it is whole. */
struct claw_admin_question {
    struct claw_arena arena;
    struct claw_head *head;
    struct claw_buf body;
    size_t held;  /* its bytes, as all questions' are counted together */
    bool unread;  /* its page has no use for a body */
    struct claw_buf head_out, out;
    const char *refused; /* why the guard refuses it; NULL: it may be answered */
    int refused_status;
    bool packed; /* `out` is gzip */
    void (*on_drain)(void *waits); /* the client takes more of an answer that is sent in pieces; may be NULL */
    void (*on_gone)(void *waits); /* the client left before the answer that `waits` is about came; NULL: none is awaited */
    void *waits;
};

/* Forget it, once its answer is over; for who does not answer by the functions below. */
void claw_admin_question_free(struct claw_admin_question *q);
/* Answer with `out`; the question is freed. */
void claw_admin_answer(struct claw_conn *c, int status, const char *type);
void claw_admin_answer_error(struct claw_conn *c, int status, const char *text, const char *code);
/* Answer with `out` as JSON when rc is 0, else that there is no memory for it. */
void claw_admin_answer_json(struct claw_conn *c, int rc);
/* The fields every answer carries, so that no page of another site makes something of it; `page`: it is what a browser shows. */
const char *claw_admin_fields(bool page);

/* May it be answered? NULL, or why not (a sentence), with its status. Everything but `open` needs the token, if there is one. */
const char *claw_admin_guard(const struct claw_conf *conf, const struct claw_head *h, bool open, int *status);

/* A value of a query, percent-decoded. False: too long, or not well-formed. */
#define CLAW_ADMIN_VALUE 256
bool claw_admin_decode(struct claw_str s, char to[CLAW_ADMIN_VALUE], struct claw_str *out);
/* The same of a name in a path, where + is a plus. */
bool claw_admin_decode_name(struct claw_str s, char to[CLAW_ADMIN_VALUE], struct claw_str *out);

/* Pages: each answers `c` now or later; the question is c->request. */
typedef void claw_admin_page(struct claw_conn *c, struct claw_control *control);

/* GET /, /dashboard and what belongs to it, /openapi.json: files of the binary (admin_pages.c). */
claw_admin_page claw_admin_file;
/* GET /live: the numbers a dashboard draws (admin_live.c). GET /routes: what is routed where. */
claw_admin_page claw_admin_live, claw_admin_routes;
/* POST /routes/ID/canary?percent=N: so much of it goes to those behind the first; percent=file: as the file says again. */
claw_admin_page claw_admin_move_canary;
/* GET /requests, /requests/inflight (admin_requests.c). */
claw_admin_page claw_admin_requests, claw_admin_inflight;
/* GET /policies, /policies/NAME, PUT /policies/NAME (admin_policies.c). */
claw_admin_page claw_admin_policies, claw_admin_policy, claw_admin_put_policy;
/* POST /explain (admin_explain.c), POST /try (admin_try.c). */
claw_admin_page claw_admin_explain, claw_admin_try;
/* GET /cache; POST /cache/purge?route=&model=&client=: what all that are given select; without any, everything. */
claw_admin_page claw_admin_cache, claw_admin_purge_cache;
/* GET /upstreams; POST /upstreams/NAME/cool and /restore. */
claw_admin_page claw_admin_upstreams, claw_admin_change_upstream;
/* GET /spend. Answers when the ledger has. */
claw_admin_page claw_admin_spend;

#endif
