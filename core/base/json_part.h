/* json_part: what json.c, json_vector.c, json_value.c and json_doc.c share. Nobody else includes it. */
#ifndef CLAW_BASE_JSON_PART_H
#define CLAW_BASE_JSON_PART_H

#include "base/json.h"

/* CLAW_JSON_SCALAR switches the vector code off, so that a test can hold both against each other. */
#if defined(__x86_64__) && defined(__SSE2__) && !defined(CLAW_JSON_SCALAR)
#define CLAW_JSON_X86 1
#include <immintrin.h>
#else
#define CLAW_JSON_X86 0
#endif

/* claw_json_scan with two choices: keys_once false lets "model" and "stream" stand twice, and without an arena
 * no members are listed (top->n is 0 then). */
int claw_json_check(struct claw_str text, bool keys_once, struct claw_arena *a, struct claw_json_top *top,
                    struct claw_json_err *err) CLAW_MUSTCHECK;

#if CLAW_JSON_X86
/* For a CPU with AVX2 and BMI. p is inside a string, at least 3 bytes after where its text begins, and cuts neither an escape
 * nor a character. Gives a later such place, or p: at the closing quote, less than 64 bytes before the end, or so that
 * the byte-wise scan meets the fault. All between is right. */
const char *claw_json_skip_long(const char *p, const char *end);
#endif

/* Containers inside each other in a valid text: 0 for a scalar, 1 for [], 2 for [[]]. */
unsigned claw_json_height(struct claw_str raw);

static inline const char *claw_json_skip_space(const char *p, const char *end)
{
    const uint64_t space = 1ull << ' ' | 1ull << '\n' | 1ull << '\r' | 1ull << '\t';
    while (p < end && (unsigned char)*p <= ' ' && space >> *p & 1) p++;
    return p;
}

/* The type of a valid value by its first byte. */
static inline enum claw_json_type claw_json_type_of(char c)
{
    switch (c) {
    case '{': return CLAW_JSON_OBJECT;
    case '[': return CLAW_JSON_ARRAY;
    case '"': return CLAW_JSON_STRING;
    case 't': return CLAW_JSON_TRUE;
    case 'f': return CLAW_JSON_FALSE;
    case 'n': return CLAW_JSON_NULL;
    case '-': return CLAW_JSON_NUMBER;
    default: return c >= '0' && c <= '9' ? CLAW_JSON_NUMBER : CLAW_JSON_NONE;
    }
}

#endif
