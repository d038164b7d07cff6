/* relay: a client whose request the first upstream holds, and what it is then told. */
#ifndef CLAW_TEST_RELAY_PART_H
#define CLAW_TEST_RELAY_PART_H

#include "scene.h"

static inline int open_all(void **state)
{
    scene_open(state);
    for (unsigned i = 0; i < UPSTREAMS; i++) upstream_listen(&up[i]);
    fake.candidates = 1;
    return 0;
}

/* A client whose request the upstream holds. */
static inline struct peer *exchange(struct peer *c)
{
    ask(c);
    return asked(0);
}

#define STREAM_HEAD "HTTP/1.1 200 OK\r\n" EVENTS CHUNKED
#define PLAIN_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

static inline void start_stream(struct peer *c, struct peer *u, const char *first)
{
    peer_say(u, STREAM_HEAD);
    chunk(u, first);
    UNTIL(&loop, peer_has(c, "data: "));
}

/* The client's connection is over, and its answer was no complete one. */
static inline void assert_cut(struct peer *c, const char *expected)
{
    bool ended;
    UNTIL(&loop, c->ended);
    char *body = body_of(c, &ended);
    assert_false(ended);
    assert_string_equal(body, expected);
    free(body);
    peer_fini(c, &loop);
}

#define ERROR_EVENT(text, type, code) "data: {\"error\":{\"message\":\"" text "\",\"type\":\"" type "\",\"param\":null,\"code\":\"" code "\"}}\n\n"
#define EOF_EVENT ERROR_EVENT("the upstream closed before its answer was complete", "upstream_error", "eof")

#define ALL(f) cmocka_unit_test_setup_teardown(f, open_all, scene_close)

#endif
