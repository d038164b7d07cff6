/* req: one request, from its first byte to its log line.
 *
 * Owner: the worker it came in on. Everything hangs on its arena and dies in claw_req_free, at the end of a loop turn.
 * It pins one generation for its whole life. One pending operation at a time has one cancel: claw_req_cancel_upstream
 * for an exchange, req->waiting for a policy that waits.
 */
#ifndef CLAW_PROXY_REQ_H
#define CLAW_PROXY_REQ_H

#include "base/json.h"
#include "http/server.h"
#include "http/sse.h"
#include "proxy/dialect.h"
#include "proxy/generation.h"
#include "proxy/pool.h"
#include "proxy/usage.h"

#define CLAW_CANDIDATES_MAX 16
#define CLAW_ATTEMPTS_MAX 16

enum claw_candidate_mask {
    CLAW_MASK_REQUEST = 1, CLAW_MASK_RESPONSE = 2, CLAW_MASK_EVENT = 4, CLAW_MASK_RETRY = 8, CLAW_MASK_LOG = 16,
};

/* One place a request may go to, as the route step decided. */
struct claw_candidate {
    uint16_t upstream; /* index in the generation */
    uint16_t mask;     /* which hooks apply there */
    uint16_t tries : 13;
    uint16_t aside : 1; /* it was found set aside when candidates were put in order */
    uint16_t full : 1;  /* passed over: a limit of its upstream's was reached */
    uint16_t untold : 1; /* passed over: it cannot be told what the client wants */
    uint16_t place;    /* in the list the route step was given: prices lie there */
    struct claw_str model; /* sent instead of the asked one; "" : as asked */
};

struct claw_attempt {
    uint16_t upstream;
    uint16_t status;       /* 0: no head came */
    int code;              /* CLAW_OK, or how it failed */
    const char *kind;      /* NULL: fine */
    uint32_t start_us, ttfb_us, end_us; /* since the request began; 0: not reached */
    bool reused : 1;
    bool probe : 1;            /* its upstream is half open, and this tells how it is (breaker.h) */
    bool noted : 1;            /* its outcome is known to cooling */
    bool several : 1;          /* of several keys one is sent */
    bool renews : 1;           /* its access token was refused, and there is another */
    uint16_t key;          /* which of the upstream's keys; CLAW_NO_KEY: it has none */
};
#define CLAW_NO_KEY UINT16_MAX

enum claw_commit { CLAW_HELD, CLAW_COMMITTED, CLAW_DONE };

struct claw_worker_ctx; /* pipeline.h: what a worker lends its requests */
struct claw_relay;
struct claw_hedge;
struct claw_limit_hold;
struct claw_limit_place;
struct claw_recall;
struct claw_trace;
struct claw_transcript;
struct claw_upload;

struct claw_req {
    uint32_t magic;
    uint8_t step;           /* enum claw_step */
    uint8_t commit;         /* enum claw_commit */
    uint8_t dialect;        /* enum claw_dialect: what the client speaks */
    uint8_t sent_as;        /* enum claw_dialect: what this attempt speaks to its upstream */
    bool stepping, again;   /* the driver runs; a step is to be run when it returns */
    bool stream;            /* the body (Gemini: the path) asks for a stream */
    bool has_json;          /* the body was scanned: json is valid */
    bool finished;          /* logged; only the end of the turn is missing */
    bool gone;              /* conn is no longer ours */
    bool upload_done;       /* all of the client's body is here */
    bool retried_stale;     /* a stale kept connection was replaced once in this attempt */
    bool accounted;         /* usage was settled: cost and log fields are there */
    bool outstanding;       /* counted in the upstream's facts */
    bool translated;        /* this attempt: sent_as is another than dialect, and its answer is to be written anew */
    bool as_is;             /* who cools keeps its place among the candidates: a policy's word */
    bool claimed;           /* the present candidate's next attempt is its upstream's probe */
    bool poor;              /* another try was not made for want of budget */
    uint8_t rotations;      /* tries again with another key */
    bool array;             /* a stream goes to the client as a JSON array of its events (Gemini's without alt=sse) */
    bool turned;            /* while the event op is asked: a whole answer is to become events */
    bool hides_usage;       /* this attempt: usage was asked for in the client's stead, and is kept from it */
    bool tool_emitted;      /* a tool call is on its way to the client */
    struct claw_worker_ctx *ctx;
    struct claw_generation_local *gen;
    struct claw_conn *conn; /* NULL once gone */
    uint64_t bytes_out;     /* with commit, conn and relay in one cache line: what each piece of an answer touches */
    struct claw_req *prev, *next; /* the worker's list of requests in flight */
    struct claw_deferred deferred;
    struct claw_lane_ticket begin;
    uint64_t serial;        /* unique in the process; Lua's handle holds it */
    void *handle;           /* script's: the policy-facing object, made dead at release */
    char id[33];            /* 32 hex digits */
    char peer[46];

    /* what came */
    struct claw_head *head;
    struct claw_buf body;
    struct claw_json_top json;
    struct claw_transcript *transcript; /* how the bodies began (transcript.h); NULL: they are not logged */
    struct claw_trace *trace;   /* its place in a trace (trace.h); NULL: tracing is not configured */
    struct claw_upload *upload; /* the body is a form; NULL: it is none */
    struct claw_str model;  /* asked; "" : none */
    const struct claw_conf_client *caller; /* who asks, by its key; NULL: clients are not configured */

    /* what was decided */
    int route;              /* index in conf, -1: none */
    uint16_t route_mask;
    struct claw_candidate candidates[CLAW_CANDIDATES_MAX];
    unsigned candidates_n, candidate; /* the present one */
    const struct claw_conf_price *prices; /* script's: of the candidates, when no hook asks for more at the end */
    uint16_t decision;      /* script's: the number of the list they came in, 0: none */
    struct claw_attempt attempts[CLAW_ATTEMPTS_MAX];
    unsigned attempts_n;    /* tries so far (may pass the array's end: only the first are kept) */
    unsigned attempt;       /* the present one's place; CLAW_ATTEMPTS_MAX: none yet */
    unsigned furthest;      /* candidate asked by now */
    struct claw_conf_hedge hedging; /* the route's, or what a policy says instead */

    struct claw_limit_hold *limits; /* limit's: what is taken and will be put right */
    struct claw_limit_hold *limits_spare;
    struct claw_limit_place *limit_place; /* its place among those that wait for room; NULL: it never did */
    struct claw_limit_ask *limit_ask; /* Redis is asked for what it wants to take */
    struct claw_recall *recall;     /* recall's, once the request may be answered from there */
    uint32_t age_s;                 /* of the answer it was given from the cache */
    uint8_t recalled;               /* enum claw_recalled */
    int64_t limit_room_ns;          /* until an upstream that was full has room; 0: none was */
    uint32_t limit_from_us;         /* when it began to wait for room */
    uint32_t limit_wait_us;         /* as long as it waited there; 0: there was room */
    bool limit_again;               /* it looks again after that, else its place has come */
    bool soft_stopped;              /* its stream was ended at its client's budget */
    struct claw_str limited_by;     /* the last limit that refused it, made it wait, or sent it past an upstream; "": none */

    /* the exchange */
    struct claw_lease lease;
    struct claw_client *client;
    struct claw_buf out_body;    /* what a policy made of the body for this attempt */
    bool out_body_set;
    struct claw_str out_path;    /* set by a policy: instead of the client's path behind base_url */
    struct claw_conf_header *out_headers; /* set by policies for this attempt (value.ptr NULL: remove) */
    size_t out_headers_n, out_headers_cap;
    uint32_t commit_at;          /* this attempt's stream is held until so many characters were said; 0: until its first event */
    struct claw_str dropped;     /* fields the translation left out, with commas between; "": none */
    int answer_status;           /* of the answer instead of the upstream's; 0: the upstream's */
    const char *answer_type;     /* content-type of the answer instead of the upstream's; NULL: the upstream's */
    struct claw_relay *relay;
    struct claw_conf_header *answer_headers; /* set by policies for the client's answer (value.ptr NULL: none of this name) */
    size_t answer_headers_n, answer_headers_cap;
    struct claw_hedge *hedge;    /* once there is, or was, a second exchange */
    struct claw_timer hedge_timer;
    bool hedge_due;              /* as soon as the request has been sent */
    struct claw_timer timer;     /* backoff */
    struct claw_timer deadline;  /* retry.total_timeout_seconds; means nothing behind the commit point */
    struct claw_timer heartbeat; /* while a stream is under way */
    uint64_t sent_ms;            /* the loop's time when the client last got something of its stream */
    bool early;                  /* it has the head of a stream, though no upstream has answered (heartbeat) */
    struct claw_failed_try *failed; /* pipeline's: what the retry step decides on */
    void *waiting;               /* script's: what a hook waits on; NULL again when the hook has decided */
    void (*wait_cancel)(struct claw_req *r);

    /* the outcome */
    int status;                  /* sent to the client; 0: nothing was */
    int error;                   /* CLAW_E*: why the proxy itself answered or cut */
    struct claw_str answered_by; /* the policy that answered in an upstream's place; "": none */
    const char *error_code;      /* of the envelope, when another word than the kind */
    struct claw_str error_param; /* which field of the request; "": none */
    struct claw_str error_text;
    struct claw_str upstream_error; /* last failure's text, for the log */
    struct claw_usage usage;
    int64_t prompt_tokens;       /* of the client's body by estimate; 0: claw_req_prompt_tokens was not asked */
    struct claw_tokens_prompt *prompt; /* what they can be counted from once the body is gone; or NULL */
    size_t kept_bytes;           /* of the body, in the worker's sum */
    uint8_t estimated;           /* which of usage is an estimate: CLAW_USAGE_INPUT, CLAW_USAGE_OUTPUT */
    int64_t cost_micros;         /* -1: unknown */
    struct claw_str log_fields;  /* JSON members without braces, from log hooks; "" : none */
    uint64_t start_us;           /* claw_loop_clock_us */
    uint32_t ttfb_us, end_us;    /* since start */
    uint32_t waited_us;          /* of that, for the upstream and the client's body */
    uint32_t wait_from_us;
    uint32_t overhead_us;        /* elapsed without waited, when the answer's head left */
    uint64_t bytes_in;

    struct claw_arena arena;
    char first[];                /* the arena's first block */
};

/* A request on connection c, pinning the worker's current generation. NULL: out of memory. */
struct claw_req *claw_req_new(struct claw_worker_ctx *ctx, struct claw_conn *c);
/* Unpin, reset the arena, give the memory back. Only from the end of a turn. */
void claw_req_free(struct claw_req *r);
/* The head is here: what its path says (dialect; for Gemini's the model and whether it streams). CLAW_EREQ_MEM. */
int claw_req_read_path(struct claw_req *r) CLAW_MUSTCHECK;
/* Give up the upstream exchange or lease under way, if any. */
void claw_req_cancel_upstream(struct claw_req *r);
/* Microseconds since the request began. */
uint32_t claw_req_elapsed_us(const struct claw_req *r);
/* The time since wait_from_us was spent waiting for others; what follows begins now. */
void claw_req_waited(struct claw_req *r);
/* The body is of no more use but that its tokens may be asked for. true: it stays, to be counted only then, since it is small or
 * the worker does not keep CLAW_REQ_KEPT_BYTES of them yet. false: let it go, what is to be counted of it was put aside. */
#define CLAW_REQ_KEPT_BYTES (16u << 20)
bool claw_req_keep_prompt(struct claw_req *r);
/* The tokens of the client's JSON body by estimate, counted once; -1: it is no JSON, or it is gone and nothing of it was kept. */
int64_t claw_req_prompt_tokens(struct claw_req *r);
static inline const struct claw_conf *claw_req_conf(const struct claw_req *r) { return r->gen->gen->conf; }
/* The route's id, "" before or without one; the present candidate's upstream (NULL: none). */
static inline struct claw_str claw_req_route_id(const struct claw_req *r)
{
    return r->route >= 0 ? claw_req_conf(r)->routes[r->route].id : CLAW_STR("");
}
static inline const struct claw_generation_upstream *claw_req_upstream(const struct claw_req *r)
{
    return r->candidate < r->candidates_n ? &r->gen->gen->upstreams[r->candidates[r->candidate].upstream] : NULL;
}
/* The model sent in the present attempt. */
static inline struct claw_str claw_req_sent_model(const struct claw_req *r)
{
    return r->candidate < r->candidates_n && r->candidates[r->candidate].model.len ? r->candidates[r->candidate].model : r->model;
}
/* Set, replace (value.ptr not NULL) or remove a field of this attempt's head. Copies. CLAW_EINVAL: not a valid
 * name or value, or one the proxy itself must write (host, content-length, transfer-encoding, connection …). */
int claw_req_set_header(struct claw_req *r, struct claw_str name, struct claw_str value) CLAW_MUSTCHECK;
/* The same for a field of the answer's head, until that has left. CLAW_EINVAL also for x-openclaw-*. */
int claw_req_set_answer_header(struct claw_req *r, struct claw_str name, struct claw_str value) CLAW_MUSTCHECK;
/* The number of the key that this attempt carries; 0 where there is none. */
unsigned claw_req_key(const struct claw_req *r);
#define CLAW_REQ_CHUNKED SIZE_MAX
/* The head of this attempt for the upstream (with the empty line), into the arena. Not signed yet. body_bytes may be
 * CLAW_REQ_CHUNKED: the body's length is not known. CLAW_EREQ_MEM. */
int claw_req_write_head(struct claw_req *r, size_t body_bytes, struct claw_str *out) CLAW_MUSTCHECK;
/* Sign it, where its upstream wants that, over the whole body as it goes out: *head, as claw_req_write_head made it,
 * becomes one in the arena with the signature. CLAW_EREQ_MEM. */
int claw_req_sign_head(struct claw_req *r, const uv_buf_t *body, unsigned n, struct claw_str *head) CLAW_MUSTCHECK;

#endif
