/* json_vector: the inside of long strings, 64 bytes a step, with AVX2. A part of the scan in json.c.
 *
 * A step makes one bit per byte of everything that matters: quotes, backslashes, controls, bytes past ASCII. Which
 * bytes are escaped comes from additions that carry along runs of backslashes; what may follow a backslash from two
 * table look-ups by half bytes (G. Langdale, D. Lemire: Parsing Gigabytes of JSON per Second, VLDB Journal 28, 2019).
 * UTF-8 is judged by three look-ups in each pair of neighbours (J. Keiser, D. Lemire: Validating UTF-8 In Less Than
 * One Instruction Per Byte, Software: Practice and Experience 51, 2020). The bytes before a step are read again from
 * the text, and only an escape can reach over its edge unseen: two words remember that.
 *
 * Faults are only noticed here: the byte-wise scan goes over that step again and says which and where.
 */
#include "base/json_part.h"

#if CLAW_JSON_X86

#define AVX2 __attribute__((target("avx2")))
#define STEP 64

/* What an ASCII byte may be, one bit for each rectangle of high and low halves. */
enum {
    HEX_09 = 0x01, /* 3, 0..9 */
    HEX_AF = 0x02, /* 4 and 6, 1..6 */
    U_LOW = 0x04,  /* 7, 5: u */
    ESC_2 = 0x08,  /* 2, 2 f: " and / */
    ESC_5 = 0x10,  /* 5, c: \ */
    ESC_6 = 0x20,  /* 6, 2 6 e: b f n */
    ESC_7 = 0x40,  /* 7, 2 4: r t */
    HEX = HEX_09 | HEX_AF,
};

static const uint8_t ascii_high[16] = {[2] = ESC_2,         [3] = HEX_09, [4] = HEX_AF, [5] = ESC_5,
                                       [6] = HEX_AF | ESC_6, [7] = U_LOW | ESC_7};
static const uint8_t ascii_low[16] = {
    HEX_09,                                  /* 0 */
    HEX_09 | HEX_AF,                         /* 1 */
    HEX_09 | HEX_AF | ESC_2 | ESC_6 | ESC_7, /* 2 */
    HEX_09 | HEX_AF,                         /* 3 */
    HEX_09 | HEX_AF | ESC_7,                 /* 4 */
    HEX_09 | HEX_AF | U_LOW,                 /* 5 */
    HEX_09 | HEX_AF | ESC_6,                 /* 6 */
    HEX_09,                                  /* 7 */
    HEX_09,                                  /* 8 */
    HEX_09,                                  /* 9 */
    [12] = ESC_5,
    [14] = ESC_6,
    [15] = ESC_2,
};

/* What may be wrong with two neighbours; a pair is wrong when all three look-ups agree on a bit. */
enum {
    SHORT = 0x01,    /* a first byte, then none of its own */
    STRAY = 0x02,    /* ASCII, then a continuation */
    OVER_3 = 0x04,   /* e0, then 80..9f */
    LARGE = 0x08,    /* f4 or more, then 90..bf */
    SURROGATE = 0x10, /* ed, then a0..bf */
    OVER_2 = 0x20,   /* c0 or c1, then a continuation */
    EDGE_4 = 0x40,   /* f0 or f5 and more, then 80..8f */
    TWO = 0x80,      /* two continuations: right only after a first byte of three or four */
    ANY_LOW = SHORT | STRAY | TWO,
    CONT = STRAY | OVER_2 | TWO,
};

static const uint8_t first_high[16] = {
    STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, TWO, TWO, TWO, TWO,
    SHORT | OVER_2, SHORT, SHORT | OVER_3 | SURROGATE, SHORT | LARGE | EDGE_4,
};
#define BEYOND (ANY_LOW | LARGE | EDGE_4)
static const uint8_t first_low[16] = {
    ANY_LOW | OVER_2 | OVER_3 | EDGE_4, ANY_LOW | OVER_2, ANY_LOW, ANY_LOW, ANY_LOW | LARGE,
    BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND | SURROGATE, BEYOND, BEYOND,
};
static const uint8_t second_high[16] = {
    SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT,
    CONT | OVER_3 | EDGE_4, CONT | OVER_3 | LARGE, CONT | SURROGATE | LARGE, CONT | SURROGATE | LARGE,
    SHORT, SHORT, SHORT, SHORT,
};

AVX2 static inline __m256i load(const char *p) { return _mm256_loadu_si256((const __m256i *)p); }

AVX2 static inline __m256i table(const uint8_t t[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)t));
}

AVX2 static inline uint64_t bits(__m256i a, __m256i b)
{
    return (uint32_t)_mm256_movemask_epi8(a) | (uint64_t)(uint32_t)_mm256_movemask_epi8(b) << 32;
}

AVX2 static inline __m256i high_half(__m256i x)
{
    return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(0x0f));
}

/* For bytes past ASCII the low look-up gives 0. */
AVX2 static inline __m256i ascii_class(__m256i x)
{
    return _mm256_and_si256(_mm256_shuffle_epi8(table(ascii_low), x),
                            _mm256_shuffle_epi8(table(ascii_high), high_half(x)));
}

/* Not 0 where the byte does not go on, or does not begin, as the three before it ask. */
AVX2 static inline __m256i utf8_faults(const char *p)
{
    const __m256i top = _mm256_set1_epi8((char)0x80);
    __m256i before = load(p - 1);
    __m256i pair = _mm256_and_si256(
        _mm256_and_si256(_mm256_shuffle_epi8(table(first_high), high_half(before)),
                         _mm256_shuffle_epi8(table(first_low), _mm256_and_si256(before, _mm256_set1_epi8(0x0f)))),
        _mm256_shuffle_epi8(table(second_high), high_half(load(p))));
    /* The third byte of three or four and the fourth of four: TWO, and nothing else. */
    __m256i third = _mm256_subs_epu8(load(p - 2), _mm256_set1_epi8(0xe0 - 0x80));
    __m256i fourth = _mm256_subs_epu8(load(p - 3), _mm256_set1_epi8(0xf0 - 0x80));
    return _mm256_xor_si256(_mm256_and_si256(_mm256_or_si256(third, fourth), top), pair);
}

/* Which bytes end an odd run of backslashes? *next: is the first byte of the next step one of them? */
static inline uint64_t escaped(uint64_t back, uint64_t *next)
{
    const uint64_t even = 0x5555555555555555, first = *next;
    uint64_t even_ends, odd_ends, start;
    back &= ~first;
    start = back & ~(back << 1);
    even_ends = back + (start & even);
    *next = __builtin_add_overflow(back, start & ~even, &odd_ends);
    return first | (((even_ends & ~even) | (odd_ends & even)) & ~back);
}

/* p is where a step begins: go back before the escape or the character that it cuts. `u` is of the step before. */
static const char *whole(const char *p, uint64_t escape, uint64_t u)
{
    if (escape) return p - 1;
    if (u >> 60) return p - STEP + 60 + __builtin_ctzll(u >> 60) - 1;
    for (int i = 1; i <= 3; i++) {
        unsigned char c = (unsigned char)p[-i];
        if (c >= 0xc0) return (c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2) > i ? p - i : p;
        if (c < 0x80) break;
    }
    return p;
}

AVX2 const char *claw_json_skip_long(const char *p, const char *end)
{
    const __m256i space = _mm256_set1_epi8(0x20), quote = _mm256_set1_epi8('"'), back = _mm256_set1_epi8('\\');
    uint64_t escape = 0, u = 0, past = 0; /* of the step before */
    for (; end - p >= STEP; p += STEP) {
        __m256i x = load(p), y = load(p + 32);
        __m256i qx = _mm256_cmpeq_epi8(x, quote), qy = _mm256_cmpeq_epi8(y, quote);
        __m256i bx = _mm256_cmpeq_epi8(x, back), by = _mm256_cmpeq_epi8(y, back);
        __m256i lx = _mm256_cmpgt_epi8(space, x), ly = _mm256_cmpgt_epi8(space, y); /* controls and past ASCII */
        __m256i stop = _mm256_or_si256(_mm256_or_si256(_mm256_or_si256(qx, qy), _mm256_or_si256(bx, by)),
                                       _mm256_or_si256(lx, ly));
        uint64_t pending = escape | u >> 60 | past >> 61;
        if (!(pending | (uint32_t)_mm256_movemask_epi8(stop))) {
            u = past = 0;
            continue;
        }
        uint64_t past_now = bits(x, y), bad = bits(lx, ly) & ~past_now, esc_before = escape, u_now = 0;
        uint64_t b = bits(bx, by), q = bits(qx, qy);
        if (b | escape | u >> 60) {
            uint64_t esc = escaped(b, &escape);
            __m256i cx = ascii_class(x), cy = ascii_class(y);
            const __m256i three = _mm256_set1_epi8(HEX);
            q &= ~esc;
            bad |= esc & ~bits(_mm256_cmpgt_epi8(cx, three), _mm256_cmpgt_epi8(cy, three));
            u_now = esc & bits(_mm256_slli_epi16(cx, 5), _mm256_slli_epi16(cy, 5));
            if (u_now | u >> 60) {
                const __m256i zero = _mm256_setzero_si256();
                uint64_t not_hex = bits(_mm256_cmpeq_epi8(_mm256_and_si256(cx, three), zero),
                                        _mm256_cmpeq_epi8(_mm256_and_si256(cy, three), zero));
                bad |= not_hex & (u_now << 1 | u_now << 2 | u_now << 3 | u_now << 4 | u >> 63 | u >> 62 | u >> 61 | u >> 60);
            }
        }
        if (past_now | past >> 61) {
            const __m256i zero = _mm256_setzero_si256();
            bad |= ~bits(_mm256_cmpeq_epi8(utf8_faults(p), zero), _mm256_cmpeq_epi8(utf8_faults(p + 32), zero));
        }
        uint64_t inside = q ^ (q - 1); /* up to the closing quote; all, without one */
        if (bad & inside) return whole(p, esc_before, u);
        if (q) return p + __builtin_ctzll(q);
        u = u_now;
        past = past_now;
    }
    return whole(p, escape, u);
}

#endif
