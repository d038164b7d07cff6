/* cursor: text written with a bare pointer into room that was reserved for its longest form. For what is written once a request;
 * everything else goes into a buf.
 *
 * Every function writes at `at` and gives the place behind what it wrote. No NUL is added, and nothing is checked: the room is the
 * caller's to reckon.
 */
#ifndef CLAW_BASE_CURSOR_H
#define CLAW_BASE_CURSOR_H

#include "base/buf.h"

#include <stdint.h>
#include <string.h>

/* The longest that claw_cursor_number() writes; millis and micros come to as much and a point, three or six more. */
#define CLAW_CURSOR_NUMBER_BYTES 20u

/* Most of what is written is a few bytes: two words that may overlap are cheaper than a call. */
static inline void claw_cursor_copy(char *at, const char *from, size_t n)
{
    uint64_t x, y;
    uint32_t v, w;
    if (n > 16) {
        memcpy(at, from, n);
    } else if (n >= 8) {
        memcpy(&x, from, 8);
        memcpy(&y, from + n - 8, 8);
        memcpy(at, &x, 8);
        memcpy(at + n - 8, &y, 8);
    } else if (n >= 4) {
        memcpy(&v, from, 4);
        memcpy(&w, from + n - 4, 4);
        memcpy(at, &v, 4);
        memcpy(at + n - 4, &w, 4);
    } else if (n) {
        at[0] = from[0];
        at[n / 2] = from[n / 2];
        at[n - 1] = from[n - 1];
    }
}

/* The bytes of s. */
static inline char *claw_cursor_put(char *at, struct claw_str s)
{
    claw_cursor_copy(at, s.ptr, s.len);
    return at + s.len;
}

/* The bytes of a literal. */
#define CLAW_CURSOR_PUT(at, literal) ((char *)memcpy((at), (literal), sizeof(literal) - 1) + (sizeof(literal) - 1))

static inline char *claw_cursor_pair(char *at, unsigned n)
{
    at[0] = (char)('0' + n / 10);
    at[1] = (char)('0' + n % 10);
    return at + 2;
}

/* n in decimal, without leading zeros. */
static inline char *claw_cursor_number(char *at, uint64_t n)
{
    static const uint64_t tens[CLAW_CURSOR_NUMBER_BYTES] = {
        0, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000, 1000000000000,
        10000000000000, 100000000000000, 1000000000000000, 10000000000000000, 100000000000000000, 1000000000000000000, UINT64_C(10000000000000000000)};
    unsigned digits = (64u - (unsigned)__builtin_clzll(n | 1)) * 1233 >> 12; /* bits times log10(2): the count of digits, or one less */
    digits += n >= tens[digits];
    char *end = at + digits, *p = end;
    for (; n >= 100; n /= 100) claw_cursor_pair(p -= 2, (unsigned)(n % 100));
    if (n >= 10) claw_cursor_pair(p - 2, (unsigned)n);
    else p[-1] = (char)('0' + n);
    return end;
}

/* Microseconds as milliseconds, with three digits behind the point: 1234 is 1.234. */
static inline char *claw_cursor_millis(char *at, uint64_t us)
{
    unsigned part = (unsigned)(us % 1000);
    at = claw_cursor_number(at, us / 1000);
    *at++ = '.';
    *at++ = (char)('0' + part / 100);
    return claw_cursor_pair(at, part % 100);
}

/* Micro-dollars as dollars, with six digits behind the point: 1234 is 0.001234. */
static inline char *claw_cursor_micros(char *at, uint64_t micros)
{
    unsigned part = (unsigned)(micros % 1000000);
    at = claw_cursor_number(at, micros / 1000000);
    *at++ = '.';
    return claw_cursor_pair(claw_cursor_pair(claw_cursor_pair(at, part / 10000), part / 100 % 100), part % 100);
}

#endif
