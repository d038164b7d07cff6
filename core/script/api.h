/* api: what C offers to Lua.
 *
 *   core     a table of functions for lua/claw (the contract is in lua/README.md); requests are light userdata there
 *            and never reach a policy
 *   req      the policy-facing object: a userdata tied to its request by a struct claw_life. The registry holds all
 *            objects of one request until claw_api_release.
 *
 *   store    claw.store of one policy (api_store.c)
 *
 * Fields of req: id method path query dialect model stream route status elapsed_ms attempts usage cost_micros, ctx (the
 * policy's own table), body (the original, read-only), stream_state, client { ip headers header(name) }, upstream { name
 * url model path commit headers }, answer { headers }; path, commit and these two headers can be assigned. What is not there is nil; assigning
 * to anything else raises.
 */
#ifndef CLAW_SCRIPT_API_H
#define CLAW_SCRIPT_API_H

#include "proxy/pipeline.h"
#include "script/document.h"
#include "script/task.h"

/* The objects of a request. */
enum claw_api_slot {
    CLAW_API_REQ, CLAW_API_CLIENT, CLAW_API_CLIENT_HEADERS, CLAW_API_UPSTREAM, CLAW_API_UPSTREAM_HEADERS, CLAW_API_REPLY,
    CLAW_API_REPLY_HEADERS, CLAW_API_HEADER_FN, CLAW_API_CTX, CLAW_API_BODY, CLAW_API_ATTEMPT, CLAW_API_ANSWER, CLAW_API_SLOTS,
};

/* At r->handle, from when Lua first asks until claw_api_release. The VM's, which lends it to one request after the other:
 * its places in the registry are made once. */
struct claw_api_handle {
    struct claw_vm_block block;    /* first */
    struct claw_api_handle *next;  /* while it is lent to none */
    struct claw_vm *vm;
    struct claw_life life;
    struct claw_req *r;
    int ref[CLAW_API_SLOTS];       /* places in the registry; false where nothing is held */
    unsigned refs_n;               /* made so far */
    unsigned held;                 /* a bit for each that is taken */
    bool direct, has_direct;       /* req and req.client have metatables of this handle now; they are made */
    int direct_meta[2], direct_fields[2]; /* in the registry: of req, of req.client */
    struct claw_json_doc *attempt; /* this attempt's body, once asked for */
    struct claw_json_doc *answer_doc;
    struct claw_str answer;        /* the whole answer a response hook looks at */
    bool estimated;
    int64_t tokens;
    struct claw_buf *out;          /* what a response hook made of it: in the request's arena, which outlives the handle */
    struct claw_family family;     /* its tasks that wait */
};

/* Make the metatables. Once a VM. */
void claw_api_register(lua_State *L);
/* Push the core table. */
void claw_api_push_core(lua_State *L);

/* These may raise. */
struct claw_api_handle *claw_api_handle_of(lua_State *L, struct claw_req *r);
/* Push one object of the request, made on first use. */
void claw_api_push(lua_State *L, struct claw_req *r, enum claw_api_slot slot);
/* Push req for many who look at it: req.client and req.client.header are found without a call into C, which pays from the third
 * one on. Once its request is over it says so like any other. */
void claw_api_push_direct(lua_State *L, struct claw_req *r);
/* Pop the value that takes its place; not nil. */
void claw_api_set(lua_State *L, struct claw_req *r, enum claw_api_slot slot);
/* Push the body of this attempt as a document (nil when it is no JSON), with the model that is sent. */
void claw_api_push_body(lua_State *L, struct claw_req *r);
/* Push the answer: a document, or a string. */
void claw_api_push_answer(lua_State *L, struct claw_req *r);
/* Push when this attempt's stream is let go of, as policies say it. */
void claw_api_push_commit(lua_State *L, const struct claw_req *r);
/* A new attempt: its body is made anew when asked for. */
void claw_api_begin_attempt(lua_State *L, struct claw_req *r);
/* The answer response hooks look at from here on. */
void claw_api_begin_answer(lua_State *L, struct claw_req *r, struct claw_str body);
/* The answer's text may go from here on: its documents say so when used. Never raises. */
void claw_api_end_answer(struct claw_req *r);
/* Push a function that gives a policy, by its name, its claw.store. */
void claw_api_push_store(lua_State *L);
/* The request a req object, or a light userdata, at idx stands for; raises when it is over. */
struct claw_req *claw_api_check_req(lua_State *L, int idx);
/* aside, back and twin: what lets a policy run beside the request without changing it, into the table on top
 * (api_aside.c). */
void claw_api_add_asides(lua_State *L);
/* Push a document over a copy of the text, as one of the request's own; nil when it is no JSON object or array. */
void claw_api_push_parsed(lua_State *L, struct claw_req *r, struct claw_str text);
/* Push the document at idx copied into the request's arena, as one of its own. */
void claw_api_push_twin(lua_State *L, struct claw_req *r, int idx);
/* All values of a field joined by ", ", or nil. */
void claw_api_push_header(lua_State *L, const struct claw_req *r, struct claw_str name);

/* Count a failure of a policy's hook: labels are the policy's name and the hook's. `stopped`: it was out of its budget. */
void claw_api_count_failure(struct claw_metrics_shard *to, const struct claw_str labels[2], bool stopped);

/* The functions of core that wait, or start what does, into the table on top (api_wait.c). */
void claw_api_add_waits(lua_State *L);
/* One of them: an HTTP exchange (api_fetch.c). */
int claw_api_fetch(lua_State *L);
/* Regular expressions (api_re.c). */
void claw_api_add_re(lua_State *L);
/* A command to Redis, and SHA-1 as Redis names scripts (api_redis.c). */
void claw_api_add_redis(lua_State *L);

/* The request is over: its tasks are dropped, and whatever Lua still holds of it says so. Never raises. */
void claw_api_release(struct claw_req *r);

#endif
