/* admin_part: what the admin port's files share. Nobody else includes it. */
#ifndef CLAW_APP_ADMIN_PART_H
#define CLAW_APP_ADMIN_PART_H

#include "app/admin.h"
#include "http/server.h"
#include "proxy/answer.h"

/* A question: its head, until it is whole. */
struct claw_admin_question {
    struct claw_arena arena;
    struct claw_head *head;
    struct claw_buf head_out, out;
    void (*on_gone)(void *waits); /* the client left before the answer that `waits` is about came; NULL: none is awaited */
    void *waits;
};

/* Answer with `out`; the question is freed. */
void claw_admin_answer(struct claw_conn *c, int status, const char *type);
void claw_admin_answer_error(struct claw_conn *c, int status, const char *text, const char *code);

/* GET /spend. Answers when the ledger has. */
void claw_admin_spend(struct claw_conn *c, struct claw_control *control);

#endif
