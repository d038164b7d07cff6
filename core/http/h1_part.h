/* h1_part: what h1.c (bytes, bodies) and h1_head.c (the meaning of a head) share. Not for others. */
#ifndef CLAW_HTTP_H1_PART_H
#define CLAW_HTTP_H1_PART_H

#include "http/h1.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* What the bytes that come next are. EMPTY: the head was the whole message. */
enum claw_h1_state {
    CLAW_H1_HEAD,
    CLAW_H1_EMPTY,
    CLAW_H1_SIZED,
    CLAW_H1_CHUNKED,
    CLAW_H1_TO_CLOSE,
    CLAW_H1_DONE,
    CLAW_H1_FAILED,
};

/* Refuse the message for good; the code (CLAW_EBAD_RESPONSE for whatever a response has wrong). `why` is static. */
int claw_h1_fail(struct claw_h1 *p, int code, const char *why);
static inline int bad(struct claw_h1 *p, const char *why) { return claw_h1_fail(p, CLAW_EBAD_REQUEST, why); }

/* Some lines in a row: where each ends (its CR, counted from the first one's begin) and where its colon is, in it. */
enum { CLAW_H1_MARKS = 32 };
struct claw_h1_marks {
    unsigned n;
    bool last; /* the empty line follows the last one marked */
    struct { size_t colon, eol; } at[CLAW_H1_MARKS]; /* colon: 16 when not found on the way */
};
/* Mark lines up to the empty one, or as many as fit. Behind what was marked (the empty line included); NULL when
 * the lines are not whole and in order: controls, a bare CR or LF, white space in front. */
const char *claw_h1_mark(struct claw_h1_marks *m, const char *from, const char *end);

/* The whole head lies in p->raw: fill p->head, set the state for the body. `agreed`: llhttp sees its end there too.
 * `m`: the marks of its first lines. */
int claw_h1_read_head(struct claw_h1 *p, bool agreed, struct claw_h1_marks *m);
/* "HTTP/1.1" to the head's minor; CLAW_EVERSION for versions that are not spoken. */
int claw_h1_read_version(struct claw_h1 *p, struct claw_str s);

#ifdef __SSE2__
/* Of 16 bytes: which are controls or DEL. */
static inline unsigned odd_of(__m128i v)
{
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f))));
}
#endif

/* The first byte that is a control (but HTAB) or DEL, or end. */
static inline const char *plain_end(const char *at, const char *end)
{
#ifdef __SSE2__
    for (unsigned hits; end - at >= 16; at += hits ? __builtin_ctz(hits) + 1 : 16) {
        hits = odd_of(_mm_loadu_si128((const __m128i *)at));
        if (hits && at[__builtin_ctz(hits)] != '\t') return at + __builtin_ctz(hits);
    }
#endif
    /* Eight at a time; what may be odd (carries may say so in error) is looked at one by one. */
    for (uint64_t w, ones = 0x0101010101010101u; end - at >= 8; at += 8) {
        memcpy(&w, at, 8);
        uint64_t del = w ^ ones * 0x7f;
        if ((((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & ones * 0x80) break;
    }
    for (; at < end; at++)
        if (((unsigned char)*at < 0x20 && *at != '\t') || *at == 0x7f) break;
    return at;
}

/* The first `c`, or end: memchr for what is found within a few bytes. */
static inline const char *find_near(const char *at, const char *end, char c)
{
#ifdef __SSE2__
    for (const char *from = at; end - from >= 16;) {
        __m128i v = _mm_loadu_si128((const __m128i *)at);
        unsigned hits = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(c)));
        if (hits) return at + __builtin_ctz(hits);
        at += 16;
        if (at >= end) return end;
        if (end - at < 16) at = end - 16; /* the last block has bytes in front that were looked at */
    }
#endif
    while (at < end && *at != c) at++;
    return at;
}

/* Do `n` (2, 4 or 8) bytes differ in more than the case of letters? `low` is lower case: bit 6 tells its letters from
 * '-' and digits. */
static inline uint64_t differ(const char *any, const char *low, size_t n)
{
    uint64_t a = 0, b = 0;
    if (n == 8) memcpy(&a, any, 8), memcpy(&b, low, 8);
    else if (n == 4) memcpy(&a, any, 4), memcpy(&b, low, 4);
    else memcpy(&a, any, 2), memcpy(&b, low, 2);
    return (a ^ b) & ~((b & 0x4040404040404040u) >> 1);
}

/* The same for 2 to 24 bytes: words that overlap, no loop. */
static inline bool is_same(const char *any, const char *low, size_t n)
{
    if (n < 4) return !(differ(any, low, 2) | differ(any + n - 2, low + n - 2, 2));
    if (n < 8) return !(differ(any, low, 4) | differ(any + n - 4, low + n - 4, 4));
    if (differ(any, low, 8) | differ(any + n - 8, low + n - 8, 8)) return false;
    return n <= 16 || !differ(any + 8, low + 8, 8);
}
#define IS_WORD(s, lit) ((s).len == sizeof(lit) - 1 && is_same((s).ptr, lit, sizeof(lit) - 1))

#endif
