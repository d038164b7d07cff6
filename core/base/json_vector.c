/* json_vector: the inside of long strings, 64 bytes a step, with AVX2. A part of the scan in json.c.
 *
 * A step makes one bit per byte of what matters: quotes, backslashes, escaped bytes. Which bytes are escaped comes
 * from arithmetic that carries along runs of backslashes, and what may follow a backslash from a look-up by half a
 * byte (G. Langdale, D. Lemire: Parsing Gigabytes of JSON per Second, VLDB Journal 28, 2019). UTF-8 is judged by three
 * look-ups in each pair of neighbours (J. Keiser, D. Lemire: Validating UTF-8 In Less Than One Instruction Per Byte,
 * Software: Practice and Experience 51, 2020). The bytes before a step are read again from the text, so that only
 * escapes need memory from one step to the next.
 *
 * Faults are only noticed here: the byte-wise scan goes over that step again and says which and where.
 */
#include "base/json_part.h"

#if CLAW_JSON_X86

#define AVX2 __attribute__((target("avx2,bmi")))
#define STEP 64
#define CALM 4 /* steps without an escape, after which more such are expected */

#define ROW(c) {c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c}
#define TWICE(...) {__VA_ARGS__, __VA_ARGS__}

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

#define BEYOND (ANY_LOW | LARGE | EDGE_4)

/* Constants as they lie in registers, found through a pointer that the compiler cannot see through: otherwise it
 * builds them anew, from general registers, in every step. */
static const struct fixed {
    uint8_t space[32], control[32], quote[32], back[32], letter_b[32], letter_u[32];
    uint8_t short_escapes[32], usual_escapes[32]; /* by the low half; without the quote and b; usual: nor the backslash */
    uint8_t low_half[32], top[32], minus_3[32], minus_4[32];
    uint8_t first_high[32], first_low[32], second_high[32];
} fixed __attribute__((aligned(32))) = {
    .space = ROW(0x20),
    .control = ROW(0x1f),
    .quote = ROW('"'),
    .back = ROW('\\'),
    .letter_b = ROW('b'),
    .letter_u = ROW('u'),
    .low_half = ROW(0x0f),
    .top = ROW(0x80),
    .minus_3 = ROW(0xe0 - 0x80),
    .minus_4 = ROW(0xf0 - 0x80),
    .short_escapes = TWICE(255, 255, 'r', 255, 't', 255, 'f', 255, 255, 255, 255, 255, '\\', 255, 'n', '/'),
    .usual_escapes = TWICE(255, 255, 'r', 255, 't', 255, 'f', 255, 255, 255, 255, 255, 255, 255, 'n', '/'),
    .first_high = TWICE(STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, STRAY, TWO, TWO, TWO, TWO,
                        SHORT | OVER_2, SHORT, SHORT | OVER_3 | SURROGATE, SHORT | LARGE | EDGE_4),
    .first_low = TWICE(ANY_LOW | OVER_2 | OVER_3 | EDGE_4, ANY_LOW | OVER_2, ANY_LOW, ANY_LOW, ANY_LOW | LARGE,
                       BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND | SURROGATE, BEYOND,
                       BEYOND),
    .second_high = TWICE(SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, CONT | OVER_3 | EDGE_4,
                         CONT | OVER_3 | LARGE, CONT | SURROGATE | LARGE, CONT | SURROGATE | LARGE, SHORT, SHORT,
                         SHORT, SHORT),
};

AVX2 static inline __m256i load(const char *p) { return _mm256_loadu_si256((const __m256i *)p); }

AVX2 static inline __m256i row(const uint8_t r[32]) { return _mm256_load_si256((const __m256i *)r); }

AVX2 static inline uint64_t bits(__m256i a, __m256i b)
{
    return (uint32_t)_mm256_movemask_epi8(a) | (uint64_t)(uint32_t)_mm256_movemask_epi8(b) << 32;
}

AVX2 static inline uint64_t equal(__m256i x, __m256i y, __m256i to)
{
    return bits(_mm256_cmpeq_epi8(x, to), _mm256_cmpeq_epi8(y, to));
}

/* ---- text ------------------------------------------------------------------------------------------------- */

AVX2 static inline __m256i high_half(const struct fixed *f, __m256i x)
{
    return _mm256_and_si256(_mm256_srli_epi16(x, 4), row(f->low_half));
}

/* Not 0 where a byte of x, which lies at p, is a control, does not go on as the three before it ask, or does not
 * begin where they ask for nothing. */
AVX2 static inline __m256i text_faults(const struct fixed *f, const char *p, __m256i x)
{
    __m256i before = load(p - 1);
    __m256i pair = _mm256_and_si256(
        _mm256_and_si256(_mm256_shuffle_epi8(row(f->first_high), high_half(f, before)),
                         _mm256_shuffle_epi8(row(f->first_low), _mm256_and_si256(before, row(f->low_half)))),
        _mm256_shuffle_epi8(row(f->second_high), high_half(f, x)));
    /* The third byte of three or four and the fourth of four must be TWO, and nothing else. */
    __m256i third = _mm256_subs_epu8(load(p - 2), row(f->minus_3));
    __m256i fourth = _mm256_subs_epu8(load(p - 3), row(f->minus_4));
    __m256i two = _mm256_and_si256(_mm256_or_si256(third, fourth), row(f->top));
    __m256i control = _mm256_cmpeq_epi8(_mm256_min_epu8(x, row(f->control)), x);
    return _mm256_or_si256(_mm256_xor_si256(two, pair), control);
}

/* Is any byte a control or past ASCII? As signed bytes they are below the space. */
AVX2 static inline bool any_low(const struct fixed *f, __m256i x, __m256i y)
{
    return _mm256_movemask_epi8(_mm256_cmpgt_epi8(row(f->space), _mm256_min_epi8(x, y)));
}

/* On from p over plain ASCII text. */
AVX2 static inline const char *skip_plain(const struct fixed *f, const char *p, const char *last)
{
    for (; p <= last; p += STEP) {
        __m256i x = load(p), y = load(p + 32);
        __m256i quote = _mm256_or_si256(_mm256_cmpeq_epi8(x, row(f->quote)), _mm256_cmpeq_epi8(y, row(f->quote)));
        __m256i back = _mm256_or_si256(_mm256_cmpeq_epi8(x, row(f->back)), _mm256_cmpeq_epi8(y, row(f->back)));
        __m256i low = _mm256_cmpgt_epi8(row(f->space), _mm256_min_epi8(x, y));
        if (_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(quote, back), low))) break;
    }
    return p;
}

/* ---- escapes ---------------------------------------------------------------------------------------------- */

/* Which bytes are escaped, given the backslashes? *first: is the step's first byte; then, is the next step's.
 *
 * To the runs of backslashes those odd places are added that no backslash stands before. A run that begins at an even
 * place stays as it is; one that begins at an odd place turns over into the place behind it. Held against the odd
 * places, either shows every second byte of the run from its first on, which are those that begin an escape, and the
 * byte behind the run when its last one does. */
static inline uint64_t escaped(uint64_t all, uint64_t *first)
{
    const uint64_t odd = 0xaaaaaaaaaaaaaaaa;
    uint64_t runs = all & ~*first, shown = (runs + (odd & ~(runs << 1))) ^ odd, escapes = shown ^ (all | *first);
    *first = (shown & all) >> 63;
    return escapes;
}

AVX2 static inline __m256i short_escape(const struct fixed *f, __m256i x)
{
    return _mm256_cmpeq_epi8(_mm256_shuffle_epi8(row(f->short_escapes), x), x);
}

AVX2 static inline __m256i hex(__m256i x)
{
    __m256i digit = _mm256_add_epi8(x, _mm256_set1_epi8(127 - '9'));
    __m256i letter = _mm256_add_epi8(_mm256_or_si256(x, _mm256_set1_epi8(0x20)), _mm256_set1_epi8(127 - 'f'));
    return _mm256_or_si256(_mm256_cmpgt_epi8(digit, _mm256_set1_epi8(127 - 10)),
                           _mm256_cmpgt_epi8(letter, _mm256_set1_epi8(127 - 6)));
}

/* u: which of the last four bytes of a step are the u of an escape, so that digits must follow in the next? */
struct rare {
    uint64_t bad, u;
};

/* The escaped bytes of the step at p that are none of the frequent ones, and the digits after each u. */
AVX2 static __attribute__((noinline)) struct rare rare_escapes(const struct fixed *f, const char *p, uint64_t rest,
                                                               uint64_t u)
{
    __m256i x = load(p), y = load(p + 32);
    uint64_t us = rest & equal(x, y, row(f->letter_u));
    uint64_t digits = us << 1 | us << 2 | us << 3 | us << 4 | u >> 3 | u >> 2 | u >> 1 | u;
    uint64_t bad = (rest & ~us & ~equal(x, y, row(f->letter_b))) | (digits & ~bits(hex(x), hex(y)));
    return (struct rare){bad, us >> 60};
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

/* p is where a step begins: go back before the escape or the character that it cuts. */
static const char *uncut(const char *p, uint64_t first, uint64_t u)
{
    if (first) return p - 1;
    if (u) return p - 5 + __builtin_ctzll(u);
    for (int i = 1; i <= 3; i++) {
        unsigned char c = (unsigned char)p[-i];
        if (c >= 0xc0) return (c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2) > i ? p - i : p;
        if (c < 0x80) break;
    }
    return p;
}

/* On from p while a step holds nothing but plain ASCII text and escapes of one letter; and on to the closing quote, *closed,
 * when no other thing comes before it. There a byte is escaped just when a backslash stands before it, which needs no
 * arithmetic. */
AVX2 static const char *skip_usual(const struct fixed *f, const char *p, const char *last, bool *closed)
{
    for (unsigned calm = 0; p <= last; p += STEP) {
        __m256i x = load(p), y = load(p + 32);
        __m256i ex = _mm256_cmpeq_epi8(load(p - 1), row(f->back)), ey = _mm256_cmpeq_epi8(load(p + 31), row(f->back));
        __m256i qx = _mm256_cmpeq_epi8(x, row(f->quote)), qy = _mm256_cmpeq_epi8(y, row(f->quote));
        __m256i fx = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(row(f->usual_escapes), x), x);
        __m256i fy = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(row(f->usual_escapes), y), y);
        /* A quote must be escaped, and what is escaped must be a quote or of the table. */
        __m256i odd_x = _mm256_andnot_si256(_mm256_and_si256(ex, fx), _mm256_xor_si256(ex, qx));
        __m256i odd_y = _mm256_andnot_si256(_mm256_and_si256(ey, fy), _mm256_xor_si256(ey, qy));
        __m256i low = _mm256_cmpgt_epi8(row(f->space), _mm256_min_epi8(x, y));
        if (_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(odd_x, odd_y), low))) {
            uint64_t odd = bits(_mm256_or_si256(odd_x, _mm256_cmpgt_epi8(row(f->space), x)),
                                _mm256_or_si256(odd_y, _mm256_cmpgt_epi8(row(f->space), y)));
            const char *at = p + __builtin_ctzll(odd);
            *closed = *at == '"';
            return *closed ? at : p;
        }
        __m256i escapes = _mm256_or_si256(ex, ey);
        calm = _mm256_testz_si256(escapes, escapes) ? calm + 1 : 0;
        if (calm == CALM) {
            calm = 0;
            p = skip_plain(f, p, last) - STEP;
        }
    }
    return p;
}

AVX2 const char *claw_json_skip_long(const char *p, const char *end)
{
    uint64_t first = 0, u = 0, past = 0; /* of the step before; past: its last byte is past ASCII */
    const struct fixed *f = &fixed;
    bool usual = true;
    if (end - p < STEP) return p;
    const char *last = end - STEP;
    __asm__("" : "+r"(f));
    while (p <= last) {
        /* A backslash right before that escapes nothing is one that was escaped. */
        if (usual && (p[-1] == '\\') == (first != 0)) {
            bool closed = false;
            p = skip_usual(f, p, last, &closed);
            if (closed) return p;
            first = p[-1] == '\\';
            if (p > last) break;
        }
        __m256i x = load(p), y = load(p + 32);
        uint64_t back = equal(x, y, row(f->back)), quote = equal(x, y, row(f->quote)), bad = 0;
        uint64_t esc = escaped(back, &first), first_before = esc & 1, u_before = u;
        uint64_t rest = esc & ~(quote | bits(short_escape(f, x), short_escape(f, y)));
        quote &= ~esc;
        usual = !(rest | u | past | (esc & back));
        if (rest | u) {
            struct rare r = rare_escapes(f, p, rest, u);
            bad = r.bad;
            u = r.u;
        }
        if (past || any_low(f, x, y)) {
            __m256i fx = text_faults(f, p, x), fy = text_faults(f, p + 32, y), either = _mm256_or_si256(fx, fy);
            past = (uint32_t)_mm256_movemask_epi8(y) >> 31;
            if (!_mm256_testz_si256(either, either)) bad |= ~equal(fx, fy, _mm256_setzero_si256());
            usual = false;
        }
        if (quote | bad) {
            uint64_t inside = quote ^ (quote - 1); /* with the closing quote; all, when there is none */
            if (bad & inside) return uncut(p, first_before, u_before);
            if (quote) return p + __builtin_ctzll(quote);
        }
        p += STEP;
    }
    return uncut(p, first, u);
}

#endif
