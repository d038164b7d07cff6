/* json: strict JSON over the original bytes (RFC 8259), and a copy-on-write document.
 *
 * Nothing here decodes what nobody asked for. claw_json_scan checks a whole text once (grammar, UTF-8, depth,
 * node count) and notes where the members of the top-level object lie. Values are slices of the text: what is
 * not touched goes out byte for byte, with its key order, its number's spelling, its escapes and its [] and {}.
 *
 * struct claw_json_doc is the same text as a tree that is opened only where somebody looks. A change marks the
 * way from the changed value up to the root; writing copies every unmarked subtree as one slice.
 *
 * All functions are iterative (no recursion over input depth), hold no global state and allocate only from the
 * arena they are given. Thread: any, one at a time per object.
 */
#ifndef CLAW_BASE_JSON_H
#define CLAW_BASE_JSON_H

#include "base/arena.h"
#include "base/buf.h"

#define CLAW_JSON_DEPTH 512          /* arrays and objects inside each other; deeper is an error */
#define CLAW_JSON_NODES (4u << 20)   /* values in one text */

enum claw_json_type {
    CLAW_JSON_NONE, /* no such value */
    CLAW_JSON_NULL,
    CLAW_JSON_FALSE,
    CLAW_JSON_TRUE,
    CLAW_JSON_NUMBER,
    CLAW_JSON_STRING,
    CLAW_JSON_ARRAY,
    CLAW_JSON_OBJECT,
};

/* Where and why a text is refused. `text` is a constant sentence such as "unexpected character". */
struct claw_json_err {
    size_t offset; /* bytes from the start */
    unsigned line, column; /* 1-based; columns count bytes */
    const char *text;
};

/* A value inside a text that was scanned: exactly its bytes, no white space around. */
struct claw_json_value {
    struct claw_str raw;
    enum claw_json_type type;
};

struct claw_json_member {
    struct claw_str key; /* raw, between the quotes, escapes not decoded */
    struct claw_json_value value;
};

/* The result of a scan. members is in the order of the text, in the arena; n 0 when the root is no object. */
struct claw_json_top {
    struct claw_json_value root;
    struct claw_json_member *members;
    size_t n;
    size_t nodes; /* values seen, the root included */
};

/* Check the whole of `text` and list the top-level members. Duplicate top-level "model" or "stream" keys (also
 * spelled with escapes) are refused: two readers could disagree on them (RFC 8259 4). A leading UTF-8 byte order
 * mark is refused. Errors: CLAW_EBAD_JSON with *err filled; CLAW_EREQ_MEM past the arena's cap.
 * Cost: one pass, vectorised inside strings. */
int claw_json_scan(struct claw_str text, struct claw_arena *a, struct claw_json_top *top,
                   struct claw_json_err *err) CLAW_MUSTCHECK;

/* The last top-level member whose decoded key is `key`; type CLAW_JSON_NONE when there is none. */
struct claw_json_value claw_json_top_get(const struct claw_json_top *top, struct claw_str key);

/* Walking slices of a scanned text. All return CLAW_JSON_NONE type for what is not there or of another kind. */
struct claw_json_value claw_json_get(struct claw_json_value object, struct claw_str key);
/* Element `i` from the front (0-based), or from the back with a negative i (-1 the last). */
struct claw_json_value claw_json_at(struct claw_json_value array, long i);
/* Iterate an array or object: start with *pos 0; false at the end. key is empty for arrays. */
bool claw_json_next(struct claw_json_value v, size_t *pos, struct claw_str *key, struct claw_json_value *out);
/* Number of elements or members; 0 for scalars. */
size_t claw_json_count(struct claw_json_value v);

/* Behind the quote that ends the string whose text begins at p, behind its opening quote. Of any bytes; `end` when it is cut. */
const char *claw_json_string_end(const char *p, const char *end);

/* Wrap one value's text that is known to be valid JSON (e.g. produced by a writer here). Trims white space. */
struct claw_json_value claw_json_value_of(struct claw_str raw);

/* The decoded text of a string value (escapes undone, UTF-8, surrogate pairs joined; a lone surrogate becomes
 * U+FFFD). Without escapes it is the slice itself, no copy. `raw_key` decodes a key in the same way.
 * CLAW_EINVAL: not a string; CLAW_EREQ_MEM. */
int claw_json_text(struct claw_json_value v, struct claw_arena *a, struct claw_str *out) CLAW_MUSTCHECK;
int claw_json_key_text(struct claw_str raw_key, struct claw_arena *a, struct claw_str *out) CLAW_MUSTCHECK;
/* Is the value a string whose decoded text is `s`? No allocation. */
bool claw_json_text_is(struct claw_json_value v, struct claw_str s);
/* A number as double (correctly rounded, infinity past the range). CLAW_EINVAL: not a number. */
int claw_json_double(struct claw_json_value v, double *out) CLAW_MUSTCHECK;
/* A number that is a whole number within int64 (1, 1.0 and 1e3 are; 1.5 is CLAW_EINVAL). */
int claw_json_int(struct claw_json_value v, int64_t *out) CLAW_MUSTCHECK;

/* ---- the document ----------------------------------------------------------------------------------------- */

struct claw_json_doc;  /* in the arena; dies with it */
struct claw_json_node; /* a place in the document: stays valid, and the same, as long as the document */

/* A document over `text` (which must outlive it and is checked as by claw_json_scan, duplicates included). */
int claw_json_doc_new(struct claw_arena *a, struct claw_str text, struct claw_json_doc **out,
                      struct claw_json_err *err) CLAW_MUSTCHECK;
struct claw_json_node *claw_json_doc_root(struct claw_json_doc *d);
/* Has anything been changed since it was made? */
bool claw_json_doc_changed(const struct claw_json_doc *d);
/* The document's text: unchanged subtrees byte for byte, new ones compact. */
int claw_json_doc_write(const struct claw_json_doc *d, struct claw_buf *out) CLAW_MUSTCHECK;
/* The same for one node. */
int claw_json_node_write(const struct claw_json_node *n, struct claw_buf *out) CLAW_MUSTCHECK;

/* What the node says now; of a removed node, what it said last. */
enum claw_json_type claw_json_node_type(const struct claw_json_node *n);
/* An unchanged scalar's or subtree's slice; for changed containers raw.ptr is NULL. */
struct claw_json_value claw_json_node_value(const struct claw_json_node *n);
/* Children. NULL: not there, or out of memory (*err is CLAW_EREQ_MEM then, else 0; err may be NULL). */
struct claw_json_node *claw_json_node_get(struct claw_json_node *object, struct claw_str key, int *err);
struct claw_json_node *claw_json_node_at(struct claw_json_node *array, size_t i, int *err);
/* The i-th member in text order: its node, and its decoded key in *key. */
struct claw_json_node *claw_json_node_member(struct claw_json_node *object, size_t i, struct claw_str *key, int *err);
size_t claw_json_node_count(struct claw_json_node *n, int *err);

/* A fresh value from JSON text (checked; copied into the arena), not yet in the document. */
int claw_json_node_new(struct claw_json_doc *d, struct claw_str json, struct claw_json_node **out) CLAW_MUSTCHECK;
/* A node that is already in this or another document may be given as `v`: what it says now is copied in.
 * Set a member (in its place when the key is there, else at the end; of duplicate keys the last is set and the
 * others stay). CLAW_EINVAL: not an object / index out of range. */
int claw_json_node_set(struct claw_json_node *object, struct claw_str key, struct claw_json_node *v) CLAW_MUSTCHECK;
int claw_json_node_set_at(struct claw_json_node *array, size_t i, struct claw_json_node *v) CLAW_MUSTCHECK;
/* Insert before element i (i == count appends). */
int claw_json_node_insert(struct claw_json_node *array, size_t i, struct claw_json_node *v) CLAW_MUSTCHECK;
/* Remove a member (all of that key) or an element; removing what is not there is no error. */
int claw_json_node_del(struct claw_json_node *object, struct claw_str key) CLAW_MUSTCHECK;
int claw_json_node_del_at(struct claw_json_node *array, size_t i) CLAW_MUSTCHECK;

#endif
