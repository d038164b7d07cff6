/* buf: slices and growable byte buffers.
 *
 * struct claw_str is a pointer and a length, never NUL-terminated by contract, never owned.
 * struct claw_buf has three cursors over one malloc'ed block:
 *
 *     data        +off              +len            +cap
 *      |  taken    |   waiting       |    free        |
 *
 * 0 <= off <= len <= cap holds after every call. Thread: one at a time.
 *
 * In all of core: what appends to a buf and can fail (claw_buf_add_*, claw_*_write*, …) gives 0 or CLAW_ENOMEM where its header
 * says nothing else, and after a failure what it began may stand in the buf.
 */
#ifndef CLAW_BASE_BUF_H
#define CLAW_BASE_BUF_H

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

struct claw_str {
    const char *ptr;
    size_t len;
};

#define CLAW_STR(lit) ((struct claw_str){(lit), sizeof(lit) - 1})
#define CLAW_STR_FMT(s) (int)(s).len, (s).ptr /* for "%.*s" */

static inline struct claw_str claw_str_of(const char *z) { return (struct claw_str){z, z ? strlen(z) : 0}; }
static inline bool claw_str_eq(struct claw_str a, struct claw_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool claw_str_eqz(struct claw_str a, const char *z) { return claw_str_eq(a, claw_str_of(z)); }
/* ASCII case-insensitive equality (RFC 9110 5.1: field names). */
bool claw_str_ieq(struct claw_str a, struct claw_str b);
static inline bool claw_str_starts(struct claw_str s, struct claw_str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}
/* The first place of `needle` in `s`, or -1. */
ptrdiff_t claw_str_find(struct claw_str s, struct claw_str needle);
/* The same whatever the case of ASCII's letters in `s`; `needle` is in lower case. */
ptrdiff_t claw_str_ifind(struct claw_str s, struct claw_str needle);
/* Without leading and trailing SP and HTAB (RFC 9110 5.5: OWS). */
struct claw_str claw_str_trim(struct claw_str s);
/* A whole unsigned decimal number without sign or space, at most `max`; CLAW_EINVAL else. */
int claw_str_u64(struct claw_str s, uint64_t max, uint64_t *out) CLAW_MUSTCHECK;
/* A glob where `*` stands for any run of bytes; no other character is special. */
bool claw_str_glob(struct claw_str pattern, struct claw_str s);
/* FNV-1a, 64 bits, from `seed` (0 for the usual basis). */
uint64_t claw_str_hash(struct claw_str s, uint64_t seed);

struct claw_buf {
    char *data;
    size_t off, len, cap;
    size_t max; /* 0: no bound; else len - off never passes it */
};

/* An empty buffer that never holds more than `max` waiting bytes (0: unbounded). No memory yet. */
static inline void claw_buf_init(struct claw_buf *b, size_t max) { *b = (struct claw_buf){.max = max}; }
/* Free the memory; the buffer is as after init. */
static inline void claw_buf_fini(struct claw_buf *b)
{
    if (b->data) free(b->data);
    claw_buf_init(b, b->max);
}
/* What waits. Valid until the next call that is not a getter. */
static inline struct claw_str claw_buf_str(const struct claw_buf *b)
{
    return (struct claw_str){b->data ? b->data + b->off : "", b->len - b->off};
}
static inline size_t claw_buf_size(const struct claw_buf *b) { return b->len - b->off; }
/* Room for `n` more bytes at data + len. CLAW_ENOMEM when malloc fails or the bound would be passed. */
int claw_buf_reserve(struct claw_buf *b, size_t n) CLAW_MUSTCHECK;
/* Append; all or nothing. CLAW_ENOMEM as above. */
static inline int claw_buf_add(struct claw_buf *b, const void *p, size_t n)
{
    if (__builtin_expect(n > b->cap - b->len || (b->max && n > b->max - (b->len - b->off)), 0)) {
        int rc = claw_buf_reserve(b, n);
        if (rc != 0) return rc;
    }
    if (n) memcpy(b->data + b->len, p, n);
    b->len += n;
    return 0;
}
static inline int claw_buf_add_str(struct claw_buf *b, struct claw_str s) { return claw_buf_add(b, s.ptr, s.len); }
static inline int claw_buf_add_z(struct claw_buf *b, const char *z) { return claw_buf_add(b, z, strlen(z)); }
int claw_buf_add_u64(struct claw_buf *b, uint64_t n) CLAW_MUSTCHECK;
/* Micro-units as a decimal number without trailing zeros beyond need: 1234567 -> "1.234567", 0 -> "0". */
int claw_buf_add_micros(struct claw_buf *b, int64_t micros) CLAW_MUSTCHECK;
int claw_buf_add_fmt(struct claw_buf *b, const char *fmt, ...) CLAW_PRINTF(2, 3) CLAW_MUSTCHECK;
/* Is all of it UTF-8 (RFC 3629)? */
bool claw_buf_is_utf8(struct claw_str s);
/* A JSON string with its quotes: controls, quotes and backslashes escaped (RFC 8259 7), DEL too; bytes that are
 * not UTF-8 become U+FFFD, so that the output is always valid JSON. */
int claw_buf_add_json(struct claw_buf *b, struct claw_str s) CLAW_MUSTCHECK;
/* Mark the first `n` waiting bytes as taken. When nothing waits any more the cursors go back to 0. */
void claw_buf_take(struct claw_buf *b, size_t n);
/* Forget everything that waits; keeps the memory. */
void claw_buf_clear(struct claw_buf *b);
/* All that can be read there. CLAW_EIO (errno says why) or CLAW_ENOMEM when it is over b->max. A pipe that is silent for so long
 * is an error; patience_ms < 0: it may be, for ever. */
int claw_buf_add_fd(struct claw_buf *b, int fd, int patience_ms) CLAW_MUSTCHECK;
/* The whole of a file, as above; from a pipe what comes within two seconds. All or nothing. */
int claw_buf_add_file(struct claw_buf *b, const char *path) CLAW_MUSTCHECK;

#endif
