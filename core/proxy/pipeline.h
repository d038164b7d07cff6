/* pipeline: the request as a table of steps, and the driver that walks it. See the table in pipeline.c.
 *
 * This floor does not know Lua: what is to be decided goes through struct claw_policy_ops, filled by script/policy
 * (and by fakes in tests).
 */
#ifndef CLAW_PROXY_PIPELINE_H
#define CLAW_PROXY_PIPELINE_H

#include "proxy/limit_queue.h"
#include "proxy/req.h"

/* How a failed try looks to the retry decision. */
struct claw_failure {
    const char *kind;        /* "connect", "http_503" … */
    int code;                /* CLAW_E* or CLAW_OK for a status */
    int status;              /* 0: none */
    bool again;              /* the error table says another try can help */
    unsigned tries;          /* so far, this one included */
    unsigned left;           /* candidates not tried yet */
    unsigned other_keys;     /* of this upstream, that could be sent now */
    int64_t retry_after_ms;  /* -1: not told */
    uint64_t elapsed_ms;
    struct claw_str body;    /* the beginning of an error answer's body */
};
enum claw_retry_action { CLAW_RETRY_STOP, CLAW_RETRY_NEXT, CLAW_RETRY_SAME };

/* A failed hook: whom to name. Strings live in the request's arena. */
struct claw_policy_error { struct claw_str policy, hook, message; };

/* What is answered here, in an upstream's place. Slices live in the request's arena. */
struct claw_policy_answer {
    struct claw_str body;   /* ptr NULL: nothing is */
    int status;
    struct claw_str type;   /* content-type; "": application/json */
    struct claw_str policy; /* who answers; "": the proxy by itself */
};

/* An event a policy made; slices live until the next call into the policy. */
struct claw_policy_event { struct claw_str type, data; };

/* The decisions. Each returns 0 when it is made, CLAW_EPOLICY with *err filled when a policy failed, or CLAW_EAGAIN
 * when it waits: then claw_pipeline_resume is called later on the same loop, and the same op is called again and
 * gives the result. What it waits on it keeps in r->waiting, where it finds it again, and how to give that up in
 * r->wait_cancel, which is called at most once and only before the resume. Slices it was given stay valid meanwhile.
 * `vm` is generation_local.policy. */
struct claw_policy_ops {
    /* May the request go on? r->error = CLAW_EDENIED, r->status, error_code and error_text are set when not. Or it is
     * answered at once: *answer (zeroed before) is filled. */
    int (*admit)(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err);
    /* Fills route, route_mask, candidates; or r->error with its text; or *answer (zeroed before). */
    int (*route)(void *vm, struct claw_req *r, struct claw_policy_answer *answer, struct claw_policy_error *err);
    /* Fill out_body (and set out_body_set) and out_* for the present candidate; where it is to be translated also
     * translated, sent_as and dropped. Or r->error with its text and error_param: it cannot be. */
    int (*request)(void *vm, struct claw_req *r, struct claw_policy_error *err);
    int (*retry)(void *vm, struct claw_req *r, const struct claw_failure *f, enum claw_retry_action *action,
                 uint64_t *after_ms, struct claw_policy_error *err);
    /* A whole answer: *out is what the client gets (ptr NULL: unchanged). r->error: it is none. r->answer_status from 400 on
     * in a translated attempt: it is an error. */
    int (*response)(void *vm, struct claw_req *r, struct claw_str body, struct claw_str *out, struct claw_policy_error *err);
    /* An error answer of a translated attempt, which is final: *out is what the client gets. Never waits. */
    int (*error)(void *vm, struct claw_req *r, int status, struct claw_str body, struct claw_str *out, struct claw_policy_error *err);
    /* One event. *n events replace it (0: dropped); *n = -1: unchanged. Never waits. Of a translated attempt also the stream's
     * end, as data.ptr NULL; with r->turned a whole answer. CLAW_ESTREAM_ERROR, CLAW_EUPSTREAM_EOF, CLAW_EBAD_RESPONSE: what came
     * is an error (r->answer_status then says which, 0: not told), was cut, or is no answer; *err has its message. */
    int (*event)(void *vm, struct claw_req *r, struct claw_str type, struct claw_str data,
                 const struct claw_policy_event **out, int *n, struct claw_policy_error *err);
    /* Which of caching.strategies the request is one of (from 1); 0: none. Never waits. */
    int (*caches)(void *vm, struct claw_req *r, unsigned *which, struct claw_policy_error *err);
    /* Write a whole answer of the client's dialect in the other way: `stream` says that `body` is an event stream. Replaces what
     * `out` holds. CLAW_EBAD_RESPONSE: it cannot be. Never waits. */
    int (*recast)(void *vm, struct claw_req *r, struct claw_str body, bool stream, struct claw_buf *out, struct claw_policy_error *err);
    /* The end: cost_micros and log_fields. Never waits. */
    int (*finish)(void *vm, struct claw_req *r, struct claw_policy_error *err);
    /* The request is about to die: make its handle dead. */
    void (*release)(void *vm, struct claw_req *r);
    /* Does any policy admit (else the op is not called)? */
    bool (*admits)(void *vm);
};

/* Something that outlives its request, with the generation it pins. Owner: who made it; it takes itself off the list. */
struct claw_background {
    struct claw_background *prev, *next;
    void (*cancel)(struct claw_background *b); /* give up and free; once */
};

/* What a worker lends its requests. */
struct claw_worker_ctx {
    struct claw_loop *loop;
    struct claw_pool *pool;
    struct claw_fetcher *fetcher; /* NULL: policies cannot fetch */
    struct claw_redis *redis;   /* a list; made on first use, by URL: they outlive generations */
    struct claw_state *state;   /* the door to what instances share; NULL: they never did */
    struct claw_limit_calls limit_calls; /* requests whose turn it is to ask a limit */
    uint64_t held_ms;           /* when the places of its requests were held on there */
    struct claw_metrics_shard *metrics;
    struct claw_ledger_page *page; /* NULL: nothing is recorded */
    struct claw_recent *recent; /* requests that ended; NULL: none is kept */
    struct claw_generation_local *current;
    struct claw_lane begins;    /* requests that are read, past those a turn has room for */
    struct claw_req *requests;  /* in flight */
    size_t requests_n;
    size_t kept_bytes;          /* of bodies: claw_req_keep_prompt */
    struct claw_req *spare;     /* memory to use again */
    size_t spare_n;
    struct claw_background *backgrounds; /* canceled when the worker ends; nobody waits for them */
    unsigned backgrounds_n;
    bool draining;
    void (*on_idle)(struct claw_worker_ctx *ctx); /* draining, and the last request is gone; may be NULL */
};

/* The table's rows, in order. */
enum claw_step {
    CLAW_STEP_PARSE, CLAW_STEP_ADMIT, CLAW_STEP_ROUTE, CLAW_STEP_LIMIT, CLAW_STEP_CACHE, CLAW_STEP_TRANSFORM, CLAW_STEP_UPSTREAM, CLAW_STEP_RETRY,
    CLAW_STEP_BACK, CLAW_STEP_COMMIT, CLAW_STEP_STREAM, CLAW_STEP_ACCOUNT, CLAW_STEP_LOG, CLAW_STEP_RELEASE,
    CLAW_STEP_COUNT
};
struct claw_step_row {
    const char *name;
    const char *hook;  /* the policy hook called there, NULL: none */
    bool may_wait;     /* the hook may */
    unsigned next;     /* bit mask of legal next steps */
};
const struct claw_step_row *claw_step_row(enum claw_step s);

/* The server's callbacks that drive requests; server->arg is a struct claw_worker_ctx. */
extern const struct claw_server_events claw_pipeline_server_events;

/* For server->on_room: bodies are read straight into the request. */
char *claw_pipeline_room(struct claw_conn *c, size_t *n);

/* The exchange under way is another one than the step was about: what that one waited for is given up. */
void claw_pipeline_regain(struct claw_req *r);
/* A hook that waited is done. */
void claw_pipeline_resume(struct claw_req *r);
/* End the request with an error: the envelope when nothing was sent yet, else an error event or an abort. */
void claw_pipeline_fail(struct claw_req *r, int code, struct claw_str text);
/* The relay's reports. */
void claw_pipeline_reached(struct claw_req *r, enum claw_step s); /* BACK, COMMIT or STREAM; of a hedge: TRANSFORM */
void claw_pipeline_answered(struct claw_req *r);                 /* the answer is with the client */
void claw_pipeline_upstream_failed(struct claw_req *r, int code, int status, const char *text, struct claw_str body,
                                   int64_t retry_after_ms);      /* before the commit point */
void claw_pipeline_policy_failed(struct claw_req *r, const struct claw_policy_error *e);

#endif
