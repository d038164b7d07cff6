/* canon: a number that is the same for what says the same.
 *
 * SipHash-2-4 with 128 bits (Aumasson, Bernstein: SipHash, 2012; the 128-bit variant of its reference code) under a key that is
 * drawn once a process: who does not know it cannot make two texts collide. Pieces are told apart by their lengths, so
 * "ab" "c" is not "a" "bc".
 *
 * A JSON value counts by what it says: order of members, white space, escapes and the spelling of numbers of up to 15 digits do
 * not matter; the order of elements does, and that of members of the same name. One pass to read, one sort an object, one pass
 * to count; memory is the caller's, bounded by values and bytes.
 * Thread: any.
 */
#ifndef CLAW_BASE_CANON_H
#define CLAW_BASE_CANON_H

#include "base/json.h"

#define CLAW_CANON_BYTES 16u

struct claw_canon {
    uint64_t v[4], tail;
    uint64_t n; /* bytes so far */
};

/* Use this key instead: numbers are the same in all processes that do so. Before anything is counted, and any thread is there. */
void claw_canon_set_key(const unsigned char key[CLAW_CANON_BYTES]);
/* Nothing so far. */
void claw_canon_begin(struct claw_canon *c);
/* One more piece. */
void claw_canon_add(struct claw_canon *c, struct claw_str s);
/* One more piece that is a number. */
void claw_canon_add_number(struct claw_canon *c, uint64_t n);
/* A text that claw_json_scan took, of `nodes` values. Top-level members named in `skip` (n of them) do not count. Scratch memory
 * comes from `a`: about 64 bytes a value, and the bytes of strings that have escapes. CLAW_EREQ_MEM. */
int claw_canon_add_json(struct claw_canon *c, struct claw_str text, size_t nodes, const struct claw_str *skip, size_t skip_n,
                        struct claw_arena *a) CLAW_MUSTCHECK;
/* The number of all pieces; c is to be begun anew. */
void claw_canon_end(struct claw_canon *c, unsigned char out[CLAW_CANON_BYTES]);

#endif
