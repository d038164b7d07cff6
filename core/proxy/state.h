/* state: a loop's door to what several instances share in one Redis (state.backend: redis).
 *
 *   limit (limit_shared.c)  one decision, one round trip: claw_state_decide, all limits of the request at once
 *   sync                    what each instance spent and set aside, told to the others ten times a second: claw_state_sync
 *   cache (cache_shared.c)  answers, with caching.backend redis: claw_state_fetch, claw_state_keep
 *
 * They are scripts (state_script.c) that Redis runs as one: nobody sees half of a decision, and time is Redis' own. They go
 * by EVALSHA over the loop's one connection (net/redis), in a pipeline with whatever else is asked, and by EVAL where Redis
 * does not know them yet.
 *
 *   up --a call has no answer in state.timeout_ms, fails, or finds no connection--> down
 *   up <--a write each PROBE_MS is answered in that time-- down
 *
 * Down again within ten seconds it takes twice as many of them, 32 at most. While it is down nobody waits: calls are refused at
 * once, and whoever asks decides by what the instance knows itself. What an unanswered call did is told when it is known: a
 * reply that comes late, or nothing any more.
 *
 * Keys are "prefix:noun:…" and each has a time to live; what stands in them is no secret (values of a limit's `per`, such as
 * addresses and headers, and API keys are there as a part of their SHA-256). Redis 5 or later; no cluster.
 * Owner: the worker, or control; made when a generation first shares, kept until its thread ends. Thread: the loop's, but for
 * what says otherwise.
 */
#ifndef CLAW_PROXY_STATE_H
#define CLAW_PROXY_STATE_H

#include "base/conf.h"
#include "net/loop.h"
#include "proxy/metrics.h"

#define CLAW_STATE_PROBE_MS 100u
#define CLAW_STATE_KEY_MAX 384u  /* of a key of ours, prefix and all */
#define CLAW_STATE_ID 16u        /* hexadecimal digits of an instance's name */

struct claw_redis;
struct redisReply; /* hiredis */
struct claw_state;

/* The scripts' texts; see state_script.c for what they take and give. */
extern const char claw_state_decide[], claw_state_sync[], claw_state_fetch[], claw_state_keep[];

/* A call. Filled by its owner between claw_state_call_new and claw_state_send; freed by the door. */
struct claw_state_call {
    struct claw_state *state;
    struct claw_state_call *prev, *next;
    struct claw_redis_call *redis;
    const char *script;
    struct claw_timer timer;
    struct claw_deferred due;
    struct claw_lane_ticket turn;
    uint64_t sent_us;
    bool late, over, evaled;
    unsigned place;  /* which Redis it was sent to */
    /* Called at the end of a turn, or in one of the next: with CLAW_EDEADLINE, the answer is not waited for any longer, which
     * comes once at most and not last; and with over set, last: CLAW_OK and the reply, or CLAW_ECONNECT: nobody knows what
     * became of it, CLAW_EINVAL: Redis refused it. May be NULL. */
    void (*on_event)(struct claw_state_call *c);
    void *arg;
    int code;
    const struct redisReply *reply; /* CLAW_OK: an array, the call's */
    size_t keys_n, words_n, room, used;
    char *text;
    struct claw_str words[];
};

/* `list` is the loop's connections. NULL: out of memory. */
struct claw_state *claw_state_new(struct claw_loop *loop, struct claw_redis **list, struct claw_metrics_shard *metrics);
/* on_up(arg) is called when it answers again, before anybody else asks. */
void claw_state_watch(struct claw_state *s, void (*on_up)(void *arg), void *arg);
/* From now on as `conf` says, which has to live until the next call of this; NULL, or one without state.asked: nobody is asked
 * any more. Connects. */
void claw_state_set(struct claw_state *s, const struct claw_conf *conf);
/* What is under way ends by CLAW_ECONNECT. To be called when the loop has nothing deferred. */
void claw_state_free(struct claw_state *s);
/* Would a call be sent? */
bool claw_state_ready(const struct claw_state *s);
const struct claw_conf *claw_state_conf(const struct claw_state *s);

/* A call of `script` with room for so many keys and arguments, and `room` bytes of their texts. NULL: out of memory. */
struct claw_state_call *claw_state_call_new(struct claw_state *s, const char *script, size_t keys_n, size_t args_n, size_t room);
/* Key or argument `i`, from 0; copied. What finds no room is a mistake of ours. */
void claw_state_call_key(struct claw_state_call *c, size_t i, struct claw_str text);
void claw_state_call_arg(struct claw_state_call *c, size_t i, struct claw_str text);
void claw_state_call_number(struct claw_state_call *c, size_t i, int64_t n);
/* Nanoseconds, as microseconds with a fraction. */
void claw_state_call_time(struct claw_state_call *c, size_t i, int64_t ns);
/* Send it: on_event follows. Else it is freed, and on_event does not come: CLAW_ECONNECT: down, CLAW_EAGAIN: too many are
 * under way, CLAW_ENOMEM. */
int claw_state_send(struct claw_state_call *c) CLAW_MUSTCHECK;
/* Free one that is not to be sent. */
void claw_state_call_drop(struct claw_state_call *c);

/* "prefix:" and the text into `to`; false: longer than that. */
bool claw_state_key(const struct claw_conf *conf, const char *noun, struct claw_str text, char to[CLAW_STATE_KEY_MAX], struct claw_str *key);
/* The first 16 bytes of the SHA-256 of the texts, each behind its length, in hexadecimal. */
void claw_state_hash(const struct claw_str *texts, size_t n, char to[33]);
/* This process' name among the instances: random, the same until it ends. Any thread. */
const char *claw_state_instance(void);

/* Instances that share, as sync heard last; 1 before that. Any thread. */
unsigned claw_state_instances(void);
void claw_state_set_instances(unsigned n);
/* Does every door of the process get its answers (false without any)? Any thread. */
bool claw_state_up(void);
/* For operators: "false", or as JSON how it stands with what is shared. */
int claw_state_write(const struct claw_conf *conf, struct claw_buf *out) CLAW_MUSTCHECK;

#endif
