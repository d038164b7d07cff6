/* pipeline: the table of steps, what each decision leads to, and that a request ends once whatever happens. */
#include "pipeline_part.h"

/* ---- the table ----------------------------------------------------------------------------------------- */

static void the_table_is_legal(void **state)
{
    for (int s = 0; s < CLAW_STEP_COUNT; s++) {
        const struct claw_step_row *row = claw_step_row((enum claw_step)s);
        assert_non_null(row->name);
        assert_true(row->next < 1u << CLAW_STEP_COUNT);
        /* Back only to try again, or another one beside, from a whole answer by way of the retry step; and whatever is before the account leads there. */
        unsigned backward = row->next & ((1u << (s + 1)) - 1);
        unsigned again = s == CLAW_STEP_RETRY || s == CLAW_STEP_UPSTREAM ? 1u << CLAW_STEP_TRANSFORM : 0;
        assert_int_equal(backward, s == CLAW_STEP_BACK ? 1u << CLAW_STEP_RETRY : again);
        if (s < CLAW_STEP_ACCOUNT) assert_true(row->next & 1u << CLAW_STEP_ACCOUNT);
        if (s >= CLAW_STEP_COMMIT) assert_false(row->next & (1u << CLAW_STEP_RETRY | 1u << CLAW_STEP_TRANSFORM));
        if (row->may_wait) assert_true(row->hook || s == CLAW_STEP_UPSTREAM);
    }
    assert_int_equal(claw_step_row(CLAW_STEP_RELEASE)->next, 0);
    assert_int_equal(claw_step_row(CLAW_STEP_ACCOUNT)->next, 1u << CLAW_STEP_LOG);
    assert_false(claw_step_row(CLAW_STEP_STREAM)->may_wait);
}

/* ---- decisions ----------------------------------------------------------------------------------------- */

static void an_answer_comes_through(void **state)
{
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    assert_has(u, "POST /v1/chat/completions HTTP/1.1\r\n");
    assert_true(peer_ends(u, CHAT_BODY));
    answer(u, "200 OK", JSON "X-Theirs: 1\r\nSet-Cookie: a=b\r\nX-OpenClaw-Route: forged\r\n", "{\"ok\":true}");
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 200 OK\r\n");
    assert_has(&c, "X-Theirs: 1\r\n");
    assert_has(&c, "x-openclaw-route: r1\r\nx-openclaw-upstream: u0\r\nx-openclaw-model: m\r\nx-openclaw-attempts: 1\r\n");
    assert_false(peer_has(&c, "a=b") || peer_has(&c, "forged"));
    assert_body(&c, "{\"ok\":true}");
    finish_request(1);
    assert_int_equal(fake.status, 200);
    assert_int_equal(fake.error, 0);
    assert_int_equal(fake.bytes_in, strlen(CHAT_BODY));
    assert_int_equal(fake.bytes_out, 11);
    assert_int_equal(fake.calls[ADMIT] + fake.calls[REQUEST] + fake.calls[RETRY] + fake.calls[RESPONSE] + fake.calls[EVENT], 0);
    assert_int_equal(fake.calls[FINISH], 1);
    assert_int_equal(claw_pool_idle(ctx.pool), 1);
    peer_fini(&c, &loop);
}

static void admit_denies(void **state)
{
    struct peer c;
    fake.admits = true;
    fake.deny = 401;
    ask(&c);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 401 Unauthorized\r\n");
    assert_body(&c, "{\"error\":{\"message\":\"You may not \\\"pass\\\".\",\"type\":\"authentication_error\",\"param\":null,\"code\":\"no_way\"}}");
    finish_request(1);
    fake.deny = 403;
    claw_buf_clear(&c.in);
    post(&c, CHAT_BODY); /* the connection goes on */
    UNTIL(&loop, whole(&c));
    assert_has(&c, "\"type\":\"permission_error\"");
    finish_request(2);
    assert_int_equal(fake.calls[ROUTE], 0);
    assert_int_equal(fake.error, CLAW_EDENIED);
    assert_int_equal(fake.status, 403);
    assert_int_equal(fake.attempts, 0);
    peer_fini(&c, &loop);
}

static void admit_answers(void **state)
{
    struct peer c;
    fake.admits = true;
    fake.admit_answer = (struct claw_policy_answer){CLAW_STR("data: [DONE]\n\n"), 200, CLAW_STR("text/event-stream"), CLAW_STR("faq")};
    ask(&c);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n");
    assert_body(&c, "data: [DONE]\n\n");
    finish_request(1);
    assert_int_equal(fake.calls[ROUTE], 0);
    assert_int_equal(fake.attempts, 0);
    assert_int_equal(fake.error, 0);
    assert_int_equal(fake.bytes_out, 14);
    char *line = scene_log();
    assert_non_null(strstr(line, ",\"answered_by\":\"faq\""));
    free(line);
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_metrics_write(&b), 0);
    assert_true(claw_str_find(claw_buf_str(&b), CLAW_STR("openclaw_policy_answers_total{policy=\"faq\"} 1")) >= 0);
    claw_buf_fini(&b);
    fake.waits[ADMIT] = 1; /* an answer that had to be waited for */
    claw_buf_clear(&c.in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, fake.waiting);
    struct claw_req *r = fake.waiting;
    fake.waiting = NULL;
    claw_pipeline_resume(r);
    UNTIL(&loop, whole(&c));
    finish_request(2);
    peer_fini(&c, &loop);
}

static void route_answers(void **state)
{
    struct peer c;
    fake.answer = CLAW_STR("{\"mine\":1}");
    ask(&c);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 202 Accepted\r\n");
    assert_body(&c, "{\"mine\":1}");
    finish_request(1);
    assert_int_equal(fake.status, 202);
    peer_fini(&c, &loop);
}

static void route_refuses(void **state)
{
    struct peer c;
    fake.route_error = CLAW_ENO_ROUTE;
    ask(&c);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 404 Not Found\r\n");
    assert_has(&c, "\"no route matches the request\"");
    finish_request(1);
    fake.route_error = 0;
    fake.candidates = 0;
    claw_buf_clear(&c.in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, whole(&c));
    assert_has(&c, "HTTP/1.1 503 Service Unavailable\r\n");
    assert_has(&c, "No upstream available");
    finish_request(2);
    assert_int_equal(fake.error, CLAW_ENO_UPSTREAM);
    peer_fini(&c, &loop);
}

static void bodies_are_checked_first(void **state)
{
    static const struct { const char *body, *says; } rows[] = {
        {"{\"model\":", "at line 1, column"}, {"[]", "must be a JSON object"}, {"", "not valid JSON"},
        {"{\"model\":1}", "must be a string"}, {"{\"stream\":\"yes\"}", "must be a boolean"}, {"{\"model\":\"\xff\"}", "not valid JSON"},
    };
    struct peer c;
    peer_dial(&c, &loop, claw_server_port(&server));
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        claw_buf_clear(&c.in);
        post(&c, rows[i].body);
        UNTIL(&loop, whole(&c));
        assert_has(&c, "HTTP/1.1 400 ");
        assert_has(&c, rows[i].says);
        finish_request(i + 1);
    }
    static const char *const paths[] = {"/a/../b", "/..", "/a/%2e%2E/b", "/./a", "/.%2e/"};
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        char text[128];
        claw_buf_clear(&c.in);
        peer_send(&c, text, (size_t)snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", paths[i]));
        UNTIL(&loop, whole(&c));
        assert_has(&c, "HTTP/1.1 400 ");
    }
    assert_int_equal(fake.calls[ROUTE], 0);
    finish_request(11);
    peer_fini(&c, &loop);
}

static void hooks_make_the_request(void **state)
{
    struct peer c;
    fake.mask = CLAW_MASK_REQUEST;
    fake.out_body = CLAW_STR("{\"model\":\"other\"}");
    fake.header = CLAW_STR("yes");
    ask(&c);
    struct peer *u = asked(0);
    assert_has(u, "x-made: yes\r\n");
    assert_true(peer_ends(u, "content-length: 17\r\n\r\n{\"model\":\"other\"}"));
    answer(u, "503 Busy", "", "");
    u = asked(1); /* made anew for the next */
    assert_false(peer_has(u, "x-made"));
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    assert_int_equal(fake.calls[REQUEST], 2);
    peer_fini(&c, &loop);
}

static void the_model_is_replaced_in_its_place(void **state)
{
    struct peer c;
    fake.model = CLAW_STR("we\"ird\r\nx-evil: 1");
    ask(&c);
    struct peer *u = asked(0);
    assert_true(peer_ends(u, "{\"model\":\"we\\\"ird\\r\\nx-evil: 1\",\"messages\":[]}"));
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    assert_false(peer_has(&c, "x-evil")); /* no field value: left out of the answer's head */
    assert_false(peer_has(&c, "x-openclaw-model"));
    finish_request(1);
    peer_fini(&c, &loop);
}

static void a_model_too_long_for_a_field(void **state)
{
    struct peer c;
    char *body = malloc(200000 + 64);
    memcpy(body, "{\"model\":\"", 10);
    memset(body + 10, 'm', 200000);
    strcpy(body + 200010, "\"}");
    peer_dial(&c, &loop, claw_server_port(&server));
    post(&c, body);
    struct peer *u = asked(0);
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    assert_false(peer_has(&c, "x-openclaw-model"));
    finish_request(1);
    char *line = scene_log();
    assert_non_null(strstr(line, "\"model\":\"mmmm")); /* and it does not cost the log its line */
    assert_true(strlen(line) < 4000);
    free(line);
    free(body);
    peer_fini(&c, &loop);
}

/* ---- policies that fail -------------------------------------------------------------------------------- */

static void only_policies_are_blamed(void **state)
{
    for (int library = 0; library < 2; library++) {
        struct peer c;
        unsigned n = fake.released;
        int64_t before = claw_tally_add(generation->tallies, 0).failed;
        fake.rc[ADMIT] = CLAW_EPOLICY;
        fake.admits = true;
        fake.library = library;
        ask(&c);
        UNTIL(&loop, whole(&c));
        assert_has(&c, "HTTP/1.1 500 ");
        finish_request(n + 1);
        peer_fini(&c, &loop);
        assert_int_equal(claw_tally_add(generation->tallies, 0).failed - before, library ? 0 : 1);
    }
}

static void a_failing_policy_fails_its_request(void **state)
{
    static const enum op ops[] = {ADMIT, ROUTE, REQUEST, RETRY, RESPONSE, EVENT};
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
        for (int rc = 0; rc < 2; rc++) {
            struct peer c;
            unsigned n = fake.released;
            memset(fake.rc, 0, sizeof fake.rc);
            fake.rc[ops[i]] = rc ? CLAW_EREQ_MEM : CLAW_EPOLICY;
            fake.admits = true;
            fake.mask = CLAW_MASK_REQUEST | CLAW_MASK_RESPONSE | CLAW_MASK_EVENT;
            up[0].used = up[0].n;
            ask(&c);
            if (ops[i] >= RETRY) {
                struct peer *u;
                if (claw_pool_idle(ctx.pool) == 0) {
                    u = asked(0);
                } else {
                    u = up[0].taken[up[0].n - 1];
                    claw_buf_clear(&u->in);
                    UNTIL(&loop, whole(u));
                }
                if (ops[i] == RETRY) answer(u, "500 Oh", "", "");
                if (ops[i] == RESPONSE) answer(u, "200 OK", JSON, "{}");
                if (ops[i] == EVENT) answer(u, "200 OK", EVENTS, "data: 1\n\ndata: 2\n\n");
            }
            UNTIL(&loop, whole(&c));
            assert_has(&c, rc ? "HTTP/1.1 413 " : "HTTP/1.1 500 ");
            assert_has(&c, rc ? "\"code\":\"request_memory\"" : "\"code\":\"policy_error\"");
            assert_false(peer_has(&c, " day")); /* what went wrong is the log's; "bad" alone may stand in the id */
            finish_request(n + 1);
            assert_int_equal(fake.error, fake.rc[ops[i]]);
            assert_false(fake.had_client);
            char *line = scene_log();
            if (!rc) assert_non_null(strstr(line, "a \\\"bad\\\" day"));
            free(line);
            peer_fini(&c, &loop);
        }
    }
    assert_int_equal(fake.calls[FINISH], 12);
}

static void a_failing_finish_changes_nothing(void **state)
{
    struct peer c;
    fake.rc[FINISH] = CLAW_EPOLICY;
    ask(&c);
    answer(asked(0), "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    assert_int_equal(fake.status, 200);
    assert_int_equal(fake.calls[FINISH], 1);
    peer_fini(&c, &loop);
}

/* ---- hooks that wait ----------------------------------------------------------------------------------- */

static void wait_then_go_on(unsigned calls)
{
    UNTIL(&loop, fake.waiting != NULL);
    settle();
    struct claw_req *r = fake.waiting;
    fake.waiting = NULL;
    assert_int_equal(fake.released, 0);
    assert_ptr_equal(r->waiting, &fake); /* the op finds there what it waited on */
    claw_pipeline_resume(r);
    (void)calls;
}

static void hooks_may_wait(void **state)
{
    static const enum op ops[] = {ADMIT, ROUTE, REQUEST, RETRY, RESPONSE};
    struct peer c;
    fake.admits = true;
    fake.mask = CLAW_MASK_REQUEST | CLAW_MASK_RESPONSE;
    fake.header = CLAW_STR("before the wait");
    fake.response = CLAW_STR("{\"changed\":true}");
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) fake.waits[ops[i]] = 2;
    ask(&c);
    for (int i = 0; i < 6; i++) wait_then_go_on(0);
    struct peer *u = asked(0);
    assert_has(u, "x-made: before the wait\r\n"); /* what was set before the wait is not lost */
    answer(u, "503 Busy", JSON, "{\"error\":1}");
    for (int i = 0; i < 2; i++) wait_then_go_on(0);
    u = asked(1);
    answer(u, "200 OK", JSON, "{\"was\":1}");
    for (int i = 0; i < 2; i++) wait_then_go_on(0);
    UNTIL(&loop, whole(&c));
    assert_body(&c, "{\"changed\":true}");
    finish_request(1);
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) assert_int_equal(fake.calls[ops[i]], ops[i] == REQUEST ? 4 : 3);
    assert_int_equal(fake.cancels, 0);
    assert_seen("{\"was\":1}");
    assert_failures("http_503");
    peer_fini(&c, &loop);
}

/* Bring a request to where `op` waits. */
static void ask_until_it_waits(struct peer *c, enum op op)
{
    fake.admits = true;
    fake.mask = CLAW_MASK_REQUEST | CLAW_MASK_RESPONSE;
    memset(fake.waits, 0, sizeof fake.waits);
    fake.waits[op] = 1;
    fake.waiting = NULL;
    up[0].used = up[0].n;
    ask(c);
    if (op == RETRY || op == RESPONSE) {
        struct peer *u;
        if (claw_pool_idle(ctx.pool)) {
            u = up[0].taken[up[0].n - 1];
            claw_buf_clear(&u->in);
            UNTIL(&loop, whole(u));
        } else {
            u = asked(0);
        }
        answer(u, op == RETRY ? "500 Oh" : "200 OK", JSON, "{}");
    }
    UNTIL(&loop, fake.waiting != NULL);
}

static void clients_leave_while_hooks_wait(void **state)
{
    static const enum op ops[] = {ADMIT, ROUTE, REQUEST, RETRY, RESPONSE};
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct peer c;
        ask_until_it_waits(&c, ops[i]);
        peer_fini(&c, &loop);
        finish_request(i + 1);
        assert_int_equal(fake.cancels, i + 1);
        assert_int_equal(fake.error, CLAW_ECLIENT_GONE);
        assert_int_equal(fake.status, 499);
    }
}

static void the_deadline_comes_while_hooks_wait(void **state)
{
    static const enum op ops[] = {ADMIT, ROUTE, REQUEST, RETRY, RESPONSE};
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct peer c;
        ask_until_it_waits(&c, ops[i]);
        claw_loop_advance(&loop, DEADLINE_MS + 100);
        UNTIL(&loop, whole(&c));
        assert_has(&c, "HTTP/1.1 504 ");
        finish_request(i + 1);
        assert_int_equal(fake.cancels, i + 1);
        assert_int_equal(fake.error, CLAW_EDEADLINE);
        peer_fini(&c, &loop);
    }
}

/* ---- many at once -------------------------------------------------------------------------------------- */

#define MANY (4 * CLAW_LANE_A_TURN)

/* Their bytes lie in the sockets when the loop next looks. */
static void many_ask(struct peer *c)
{
    for (unsigned i = 0; i < MANY; i++) peer_dial(&c[i], &loop, claw_server_port(&server));
    UNTIL(&loop, server.open == MANY);
    for (unsigned i = 0; i < MANY; i++) post(&c[i], CHAT_BODY);
}

static void many_begin_over_several_turns(void **state)
{
    struct peer *c = calloc(MANY, sizeof *c);
    fake.answer = CLAW_STR("{\"mine\":1}");
    many_ask(c);
    unsigned most = 0;
    while (fake.calls[ROUTE] < MANY) {
        unsigned before = fake.calls[ROUTE];
        claw_loop_turn(&loop, true);
        if (fake.calls[ROUTE] - before > most) most = fake.calls[ROUTE] - before;
    }
    assert_in_range(most, 1, 2 * CLAW_LANE_A_TURN); /* a turn of the test's: the end of one of the loop's, and the next */
    for (unsigned i = 0; i < MANY; i++) {
        UNTIL(&loop, whole(&c[i]));
        peer_fini(&c[i], &loop);
    }
    free(c);
}

static void clients_leave_before_their_turn(void **state)
{
    struct peer *c = calloc(MANY, sizeof *c);
    fake.answer = CLAW_STR("{\"mine\":1}");
    many_ask(c);
    UNTIL(&loop, ctx.begins.first);
    for (unsigned i = 0; i < MANY; i++) claw_stream_close(&c[i].stream);
    for (unsigned i = 0; i < MANY; i++) peer_fini(&c[i], &loop);
    UNTIL(&loop, ctx.requests_n == 0 && server.open == 0);
    assert_null(ctx.begins.first);
    free(c);
}

/* ---- generations and time ------------------------------------------------------------------------------ */

static void generations_are_pinned(void **state)
{
    struct claw_generation_local *old = ctx.current, *new;
    struct peer c;
    ask(&c);
    struct peer *u = asked(0);
    assert_int_equal(claw_generation_local_new(generation, &loop, ctx.pool, &fake_ops, &fake, &new), 0);
    ctx.current = new;
    claw_generation_local_unref(old); /* the request holds it */
    settle();
    answer(u, "500 Oh", "", "");
    u = asked(1);
    answer(u, "200 OK", JSON, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    peer_fini(&c, &loop);
}

static void waiting_is_not_overhead(void **state)
{
    struct peer c;
    struct timespec nap = {0, 60000000};
    fake.candidates = 1;
    peer_dial(&c, &loop, claw_server_port(&server));
    peer_say(&c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 27\r\n\r\n");
    UNTIL(&loop, ctx.requests_n == 1);
    nanosleep(&nap, NULL); /* others' time: it has to pass */
    peer_say(&c, CHAT_BODY);
    struct peer *u = asked(0);
    peer_say(u, "HTTP/1.1 200 OK\r\n" JSON "Content-Length: 2\r\n\r\n");
    settle();
    nanosleep(&nap, NULL);
    peer_say(u, "{}");
    UNTIL(&loop, whole(&c));
    finish_request(1);
    assert_true(fake.end_us > 120000);
    assert_true(fake.overhead_us < 60000);
    claw_buf_clear(&c.in);
    claw_buf_clear(&u->in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, whole(u));
    peer_say(u, "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED);
    settle();
    nanosleep(&nap, NULL); /* the model thinks */
    chunk(u, "data: 1\n\n");
    peer_say(u, "0\r\n\r\n");
    finish_request(2);
    assert_true(fake.end_us > 60000);
    assert_true(fake.overhead_us < 60000);
    fake.released = 0;
    claw_buf_clear(&u->in);
    post(&c, CHAT_BODY);
    UNTIL(&loop, whole(u));
    nanosleep(&nap, NULL);
    claw_stream_close(&c.stream); /* nor is the wait that a client gives up */
    finish_request(1);
    assert_true(fake.end_us > 60000);
    assert_true(fake.overhead_us < 60000);
    peer_fini(&c, &loop);
}

int main(int argc, char **argv)
{
    alarm(PEER_ALARM_S * 4);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them, or a pattern */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_legal), BOTH(an_answer_comes_through), BOTH(admit_denies), BOTH(admit_answers),
        BOTH(route_answers), BOTH(route_refuses), BOTH(bodies_are_checked_first), BOTH(hooks_make_the_request),
        BOTH(the_model_is_replaced_in_its_place), BOTH(a_model_too_long_for_a_field),
        BOTH(a_failing_policy_fails_its_request), BOTH(only_policies_are_blamed), BOTH(a_failing_finish_changes_nothing),
        BOTH(hooks_may_wait), BOTH(clients_leave_while_hooks_wait), BOTH(the_deadline_comes_while_hooks_wait),
        BOTH(many_begin_over_several_turns), BOTH(clients_leave_before_their_turn), BOTH(generations_are_pinned),
        BOTH(waiting_is_not_overhead),
    };
    return cmocka_run_group_tests_name("proxy/pipeline", tests, group_open, group_close);
}
