/* cooling: which upstreams, models of them and keys of them are set aside, for the whole process.
 *
 * Kept by upstream name, like facts, so that a reload forgets nothing. A model has a breaker (breaker.h) only while it
 * fails; a key has one for as long as a generation knows it, found by a hash of its text: a key whose text changed is
 * another one. Thread: any.
 */
#ifndef CLAW_PROXY_COOLING_H
#define CLAW_PROXY_COOLING_H

#include "proxy/breaker.h"

#define CLAW_COOLING_MODELS 32u /* of an upstream, that fail at the same time; a further one takes the place of the one that fails least */

struct claw_cooling_model {
    _Atomic uint64_t hash; /* 0: free */
    struct claw_breaker breaker;
    char name[64];         /* cut; written under the lock, for who shows it */
};

struct claw_cooling_key {
    struct claw_cooling_key *next;
    int refs;
    uint64_t hash;
    struct claw_breaker breaker;
    char id[17];           /* what it is called among instances: a part of its SHA-256 */
    char tail[8];          /* "…" and the last four bytes of a key of 16 or more; for who shows it */
};

struct claw_cooling {
    struct claw_breaker breaker;
    _Atomic uint32_t models_n;
    struct claw_cooling_model models[CLAW_COOLING_MODELS];
    unsigned turn;         /* where the next one that gives its place is looked for */
    struct claw_cooling_key *keys;
    struct claw_cooling *next;
    size_t name_len;
    char name[96];
};

/* By upstream name; made on first use, lives until the process ends. Past 1,024 names all further ones share one. */
struct claw_cooling *claw_cooling_of(struct claw_str upstream);
/* The model's breaker. NULL: it has none; never with `make`. */
struct claw_breaker *claw_cooling_model(struct claw_cooling *c, struct claw_str model, bool make);
/* The key of this text, counted; made when there is none. */
struct claw_cooling_key *claw_cooling_key(struct claw_cooling *c, struct claw_str text);
void claw_cooling_key_unref(struct claw_cooling *c, struct claw_cooling_key *k);
/* The models that have a breaker that is not simply closed: *name (64 bytes) and its breaker, from *at on; NULL: no more. */
struct claw_breaker *claw_cooling_next_model(struct claw_cooling *c, unsigned *at, char *name);
/* Restore the upstream, its models and its keys, the retired ones among them. */
void claw_cooling_restore(struct claw_cooling *c, uint64_t now_ms);
/* End the ramps that are over: of upstreams that nobody asks nobody else does. */
void claw_cooling_tidy(uint64_t now_ms);
/* Restore everything of every upstream. For tests. */
void claw_cooling_forget(void);

#endif
