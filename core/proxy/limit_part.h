/* limit_part: what limit.c and limit_shared.c know of each other. */
#ifndef CLAW_PROXY_LIMIT_PART_H
#define CLAW_PROXY_LIMIT_PART_H

#include "proxy/limit.h"
#include "proxy/limit_queue.h"
#include "proxy/state.h"

enum claw_limit_kind {
    CLAW_LIMIT_SECOND, CLAW_LIMIT_MINUTE, CLAW_LIMIT_HOUR, CLAW_LIMIT_DAY, CLAW_LIMIT_TOKENS_MINUTE, CLAW_LIMIT_TOKENS_DAY,
    CLAW_LIMIT_CONCURRENT, CLAW_LIMIT_KINDS
};
#define CLAW_LIMIT_KEY_MAX 320u
extern const char *const claw_limit_kind_names[CLAW_LIMIT_KINDS];

/* One count, in a shard, under its lock. */
struct claw_limit_cell {
    struct claw_limit_cell *next; /* in its bucket */
    uint64_t hash;
    int64_t tat_ns;    /* when all that was taken has flowed off */
    int64_t n;         /* CLAW_LIMIT_CONCURRENT: taken */
    unsigned holds;    /* requests that will put something right here */
    uint8_t kind;
    uint16_t len;
    char key[];
};

/* What it is called in Redis. */
struct claw_limit_named {
    struct claw_str key, place; /* place: of a place taken */
    int64_t limit;              /* the whole, where `limit` beside it is this instance's part */
};

/* What a request holds, in its arena. */
struct claw_limit_hold {
    struct claw_limit_hold *next;
    struct claw_limit_cell *cell;
    enum claw_limit_kind kind;
    int64_t limit, taken; /* of the rate; requests or tokens */
    int64_t until_ns;     /* when what it took will have flowed off: after that there is nothing to give back */
    size_t upstream;      /* of an attempt's; CLAW_LIMIT_NOWHERE: the request's */
    bool charged;         /* settle: with what was used */
    const struct claw_limit_named *named; /* where limits are shared; NULL: they are not */
};
#define CLAW_LIMIT_NOWHERE SIZE_MAX

/* What one cell said. */
struct claw_limit_answer {
    bool admitted;
    int64_t wait_ns;      /* admitted: until then; else: until there is room */
    int64_t left, full_ns; /* requests or tokens that could still be taken; until all is there again */
};

/* What is to be taken of one cell. */
struct claw_limit_want {
    struct claw_limit_cell *cell; /* its holds counts this */
    enum claw_limit_kind kind;
    int64_t limit, room, amount, patience_ns;
    struct claw_str id;           /* the generation's, which the request pins */
    const struct claw_conf_rates *rates; /* so are they */
    struct claw_limit_answer taken; /* here */
    size_t key_len;
    char key[CLAW_STATE_KEY_MAX];
    char place[36];               /* a name for it; "": of no rate */
};

struct claw_limit_taking {
    struct claw_req *r;
    int64_t now, tokens;     /* tokens: -1, not looked at yet */
    int64_t wait_ns;         /* the longest of those taken */
    unsigned waited_ms;
    bool upstreams;
    bool held;               /* others wait for the rates under way */
    size_t upstream;
    struct claw_limit_hold *before; /* what was held before this began */
    struct claw_limit_ask *ask;     /* what is wanted is noted there, and nothing taken; NULL: taken */
    const struct claw_str *per;     /* of the rates under way */
    size_t per_n;
    /* the one that refused; `rates` NULL: nobody waits for it */
    const struct claw_conf_rates *rates;
    size_t key_n;
    char key[CLAW_LIMIT_KEY_MAX];
    bool crowded;
    struct claw_str id;
    enum claw_limit_kind kind;
    int64_t limit, refused_ns;
    /* the tightest of requests and of tokens */
    struct { int64_t limit, left, full_ns; } tight[2];
};

static inline bool claw_limit_is_tokens(enum claw_limit_kind k) { return k == CLAW_LIMIT_TOKENS_MINUTE || k == CLAW_LIMIT_TOKENS_DAY; }
/* Of the monotonic clock, read now. */
int64_t claw_limit_now_ns(void);
/* The time in which `amount` flows off. */
int64_t claw_limit_cost(int64_t amount, enum claw_limit_kind kind, int64_t limit);
/* Take `amount` from a cell that allows `room` at once, its shard locked. */
struct claw_limit_answer claw_limit_cell_take(struct claw_limit_cell *c, enum claw_limit_kind kind, int64_t limit, int64_t room, int64_t amount,
                                              int64_t patience_ns, int64_t now);
/* The lock of its shard, for a few additions. */
void claw_limit_cell_lock(struct claw_limit_cell *c);
void claw_limit_cell_unlock(struct claw_limit_cell *c);
/* Put `amount` of a hold back (below 0: more was used), and let go of its cell. */
void claw_limit_give_back(struct claw_limit_hold *h, int64_t amount, bool drop);
/* Note what matches and is wanted in t->ask. False: out of memory. */
bool claw_limit_match(struct claw_limit_taking *t);
/* How long a request may still wait for room in `rates`; and how far ahead it may take its place there, for who gets the one after
 * is decided then. Upstreams' are not waited for. */
int64_t claw_limit_patience_ns(const struct claw_limit_taking *t, const struct claw_conf_rates *rates);
/* It is refused; `key`: what is counted by. */
void claw_limit_refuse(struct claw_limit_taking *t, struct claw_str id, struct claw_str key, enum claw_limit_kind kind, int64_t limit, const struct claw_conf_rates *rates,
                       int64_t refused_ns);
/* What was taken, for the wait, the log and the answer's headers. */
void claw_limit_note(struct claw_limit_taking *t, struct claw_str id, enum claw_limit_kind kind, int64_t limit, const struct claw_limit_answer *a);

/* limit_shared.c: are the request's limits shared with other instances? */
bool claw_limit_shared(const struct claw_req *r);
/* 0: taken; CLAW_ERATE_LIMITED: t->id says by whom it was refused (ptr NULL: out of memory); CLAW_EAGAIN: asked, the
 * request is resumed, and this is to be called again. */
int claw_limit_shared_take(struct claw_limit_taking *t);
/* Note in t->ask what is wanted of a cell, which the caller has counted a hold of. False: out of memory. */
bool claw_limit_shared_want(struct claw_limit_taking *t, const struct claw_limit_want *w);
/* The value of a request that `per` names. */
struct claw_str claw_limit_value(const struct claw_req *r, struct claw_str per);
/* A hold with a name is put right: what was given back of it here is there, too. */
void claw_limit_shared_settle(struct claw_req *r, struct claw_limit_hold *h, int64_t amount);
/* What a request settles by several claw_limit_shared_settle goes in one call. */
void claw_limit_shared_flush(struct claw_req *r);

#endif
