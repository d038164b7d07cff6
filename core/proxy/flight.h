/* flight: an answer on its way, which identical requests share.
 *
 *   leader    asks the upstream; what its client is sent goes into the flight too
 *   listener  gets what is there so far, then what comes, from memory that never moves; late ones from the beginning
 *
 * Flights under way are found by key, process-wide; listeners may sit on any worker. A leader whose client leaves flies on while
 * somebody listens. One that fails before its answer began hands over: the first listener that looks becomes the leader, up to
 * CLAW_FLIGHT_LEADERS times; then all fail alike. An answer that cannot be shared is disbanded: each listener goes on by itself.
 * An answer's bytes are bounded; past the bound those who listen are cut. So are those of all flights together
 * (caching.max_size_mb): past that, what nobody listens to is given up, and past twice that the rest.
 *
 * A seat is its request's and used by that request's loop only. News come to a loop as one message, whatever the number of
 * seats there: seat->on_news is called on its thread for each. Locks are held for a few pointers' time.
 */
#ifndef CLAW_PROXY_FLIGHT_H
#define CLAW_PROXY_FLIGHT_H

#include "net/loop.h"
#include "proxy/cache.h"

#define CLAW_FLIGHT_LEADERS 4u /* of one flight, one after the other */

struct claw_flight;
struct claw_flight_desk;
struct claw_flight_chunk;

enum claw_flight_state {
    CLAW_FLIGHT_WAITS,     /* no answer yet */
    CLAW_FLIGHT_ANSWERS,   /* status, type and stream are known; bytes come */
    CLAW_FLIGHT_WHOLE,     /* all of them are here */
    CLAW_FLIGHT_BROKEN,    /* they ended too early */
    CLAW_FLIGHT_FAILED,    /* no answer came: code */
    CLAW_FLIGHT_DISBANDED, /* it cannot be shared */
};

struct claw_flight_view {
    enum claw_flight_state state;
    int status, code;
    struct claw_str type, dropped; /* content-type, and as in cache.h; they live as long as the seat is taken */
    bool stream;          /* the bytes are an event stream */
    size_t bytes;         /* so far */
};

/* All but on_news and arg is flight.c's. */
struct claw_flight_seat {
    void (*on_news)(struct claw_flight_seat *s);
    void *arg;
    bool leads;
    struct claw_flight_seat *prev, *next;
    struct claw_flight *flight; /* NULL: no seat is taken */
    struct claw_flight_desk *desk;
    struct claw_flight_chunk *chunk;
    size_t read; /* of the chunk */
};

/* Take a seat at what is under way under `key`, or begin it: s->leads. Not `shared`: a flight of its own, which nobody finds.
 * At most `bytes` of an answer are held. CLAW_ENOMEM. */
int claw_flight_join(struct claw_flight_seat *s, struct claw_loop *loop, const struct claw_cache_key *key, bool shared, size_t bytes) CLAW_MUSTCHECK;
/* Give the seat up, if one is taken. A leader's fails or breaks the flight unless it ended. */
void claw_flight_leave(struct claw_flight_seat *s);
struct claw_flight_view claw_flight_look(const struct claw_flight_seat *s);

/* The leader's. The answer begins; copies its texts. */
void claw_flight_begin(struct claw_flight_seat *s, int status, struct claw_str type, struct claw_str dropped, bool stream);
/* Bytes of it. False: past the bound, or no memory, now or before; who listens is cut, on_news tells the leader too. */
bool claw_flight_add(struct claw_flight_seat *s, const uv_buf_t *bytes, unsigned n);
void claw_flight_end(struct claw_flight_seat *s);
void claw_flight_fail(struct claw_flight_seat *s, int code);
void claw_flight_disband(struct claw_flight_seat *s);
/* Does anybody listen? When that ends, and the leader said that it flies on for them alone, on_news tells it. */
bool claw_flight_heard(const struct claw_flight_seat *s);
void claw_flight_alone(struct claw_flight_seat *s);
/* Its client takes no more for now. True: others listen, who shall not wait for that; else on_news tells when somebody comes. */
bool claw_flight_stall(struct claw_flight_seat *s);
/* What is read next (claw_flight_read) is what comes from here on; its client takes bytes again. */
void claw_flight_skip(struct claw_flight_seat *s);
void claw_flight_unstall(struct claw_flight_seat *s);
/* All bytes so far, one behind the other, appended. CLAW_ENOMEM. */
int claw_flight_gather(const struct claw_flight_seat *s, struct claw_buf *out) CLAW_MUSTCHECK;

/* A listener's, and a leader's whose client lags. After FAILED: lead from here on? */
bool claw_flight_take_lead(struct claw_flight_seat *s);
/* The next bytes, in at most n slices, which live as long as the seat is taken; how many slices. 0: none are there now. */
unsigned claw_flight_read(struct claw_flight_seat *s, uv_buf_t *to, unsigned n);

/* How many bytes all flights may hold together, from now on; those that are listened to, twice as many. */
void claw_flight_bound(size_t bytes);
/* Bytes they hold. */
int64_t claw_flight_bytes(void);
/* Flights that hold anything, in the whole process. For metrics and tests. */
int64_t claw_flight_live(void);
/* Who listens to any. */
int64_t claw_flight_listening(void);

#endif
