/* store: what policies remember from one request to the next, in memory, for the whole process.
 *
 *   (space, name) -> a number, a text or a truth, with or without an end
 *
 * One store serves all workers and outlives generations. It is cut into shards by a keyed hash (clients choose names: they
 * must not be able to make them collide); a call takes one shard's lock for as long as it copies one value, and never
 * waits for anything else. Add, incr and cas are atomic among all threads.
 *
 * The bound counts names, values and what keeping them costs. It is kept by letting go of what has expired, then of what
 * was not used for longest. So anything may be gone before its time: what must not
 * be lost does not belong here.
 * Time is the caller's monotonic clock in milliseconds. Thread: any, except new, free.
 */
#ifndef CLAW_PROXY_STORE_H
#define CLAW_PROXY_STORE_H

#include "base/buf.h"

#define CLAW_STORE_NAME_MAX 256u
#define CLAW_STORE_TEXT_MAX (64u << 10)
#define CLAW_STORE_EXACT 9007199254740992.0 /* 2^53: incr stays below, where each whole number is a double of its own */

struct claw_store;

/* Names of different spaces never meet. */
struct claw_store_key { struct claw_str space, name; };

enum claw_store_kind { CLAW_STORE_NUMBER, CLAW_STORE_TEXT, CLAW_STORE_TRUTH };
struct claw_store_value {
    enum claw_store_kind kind;
    double number;        /* no NaN: it would never be equal to itself in cas */
    bool truth;
    struct claw_str text;
};

/* Outcomes only a policy sees; none of them ends a request, so they are no codes of base/err. */
enum claw_store_result {
    CLAW_STORE_OK,
    CLAW_STORE_NOT,       /* get, delete: nothing there. add: something there. cas: something else there */
    CLAW_STORE_TOO_LARGE, /* a name over CLAW_STORE_NAME_MAX, a text over CLAW_STORE_TEXT_MAX */
    CLAW_STORE_RANGE,     /* incr: the sum would reach past CLAW_STORE_EXACT */
    CLAW_STORE_KIND,      /* incr: what is there is no whole number */
    CLAW_STORE_NO_MEMORY,
};

struct claw_store_stats {
    int64_t bytes, entries; /* what has expired counts until it is let go of */
    int64_t evictions;      /* entries let go of before their end */
};

/* A store of at most `cap` bytes. NULL: no memory, or no random seed. */
struct claw_store *claw_store_new(size_t cap);
void claw_store_free(struct claw_store *s);
/* A new bound; what is over it goes now. */
void claw_store_set_cap(struct claw_store *s, size_t cap, uint64_t now_ms);
struct claw_store_stats claw_store_measure(const struct claw_store *s);

/* OK, NOT or TOO_LARGE. A text is copied into `text`, which is cleared first, and *out points there. */
enum claw_store_result claw_store_get(struct claw_store *s, struct claw_store_key key, uint64_t now_ms, struct claw_buf *text,
                                      struct claw_store_value *out) CLAW_MUSTCHECK;
/* Put `value` there, whatever was there before. `ttl_ms` 0: without an end. */
enum claw_store_result claw_store_set(struct claw_store *s, struct claw_store_key key, const struct claw_store_value *value,
                                      uint64_t ttl_ms, uint64_t now_ms) CLAW_MUSTCHECK;
/* The same, only where nothing is. */
enum claw_store_result claw_store_add(struct claw_store *s, struct claw_store_key key, const struct claw_store_value *value,
                                      uint64_t ttl_ms, uint64_t now_ms) CLAW_MUSTCHECK;
/* Add the whole number `by` to the whole number there, 0 where nothing is; *out is the sum. `ttl_ms` counts for a number
 * that begins now; one that is there keeps its end. */
enum claw_store_result claw_store_incr(struct claw_store *s, struct claw_store_key key, double by, uint64_t ttl_ms, uint64_t now_ms,
                                       double *out) CLAW_MUSTCHECK;
/* Put `value` there if what is there equals `old` (NULL: if nothing is). `ttl_ms` 0: the end stays as it is. */
enum claw_store_result claw_store_cas(struct claw_store *s, struct claw_store_key key, const struct claw_store_value *old,
                                      const struct claw_store_value *value, uint64_t ttl_ms, uint64_t now_ms) CLAW_MUSTCHECK;
/* OK, NOT or TOO_LARGE. */
enum claw_store_result claw_store_delete(struct claw_store *s, struct claw_store_key key, uint64_t now_ms) CLAW_MUSTCHECK;

#endif
