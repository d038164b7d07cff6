#include "base/buf.h"

#include "base/cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define FIRST_CAP ((size_t)256)
#define PATIENCE_MS 2000

static unsigned char lower(unsigned char c) { return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 32) : c; }

bool claw_str_ieq(struct claw_str a, struct claw_str b)
{
    if (a.len != b.len) return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower((unsigned char)a.ptr[i]) != lower((unsigned char)b.ptr[i])) return false;
    return true;
}

static inline bool begins_at(const char *p, struct claw_str needle, bool fold)
{
    if (!fold) return memcmp(p, needle.ptr, needle.len) == 0;
    for (size_t i = 0; i < needle.len; i++)
        if (lower((unsigned char)p[i]) != (unsigned char)needle.ptr[i]) return false;
    return true;
}

#ifdef __SSE2__
static inline bool is_letter(char c) { return c >= 'a' && c <= 'z'; }

/* The first two bytes of what is looked for. `case_*`: 0x20 where a letter's case does not matter. */
struct pair { __m128i first, second, case_first, case_second; };

static inline unsigned pairs_at(const char *p, const struct pair *q, bool fold)
{
    __m128i a = _mm_loadu_si128((const __m128i *)p), b = _mm_loadu_si128((const __m128i *)(p + 1));
    if (fold) a = _mm_or_si128(a, q->case_first), b = _mm_or_si128(b, q->case_second);
    return (unsigned)_mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(a, q->first), _mm_cmpeq_epi8(b, q->second)));
}

/* Is there such a pair among the 64 places from p on? One branch for all of them: most of a text has none. */
static inline bool pairs_near(const char *p, const struct pair *q, bool fold)
{
    __m128i any = _mm_setzero_si128();
    for (unsigned i = 0; i < 64; i += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(p + i)), b = _mm_loadu_si128((const __m128i *)(p + i + 1));
        if (fold) a = _mm_or_si128(a, q->case_first), b = _mm_or_si128(b, q->case_second);
        any = _mm_or_si128(any, _mm_and_si128(_mm_cmpeq_epi8(a, q->first), _mm_cmpeq_epi8(b, q->second)));
    }
    return _mm_movemask_epi8(any) != 0;
}

/* The first two bytes decide: 16 places at a time, the last ones in a step that looks at some places again. */
static inline __attribute__((always_inline)) ptrdiff_t find_pairs(struct claw_str s, struct claw_str needle, bool fold)
{
    struct pair q = {_mm_set1_epi8(needle.ptr[0]), _mm_set1_epi8(needle.ptr[1]), _mm_set1_epi8(is_letter(needle.ptr[0]) ? 0x20 : 0),
                     _mm_set1_epi8(is_letter(needle.ptr[1]) ? 0x20 : 0)};
    for (size_t i = 0;; i += 16) {
        while (i + 65 <= s.len && !pairs_near(s.ptr + i, &q, fold)) i += 64;
        if (i + 17 > s.len) {
            if (i + 1 >= s.len) return -1;
            i = s.len - 17;
        }
        for (unsigned hits = pairs_at(s.ptr + i, &q, fold); hits; hits &= hits - 1) {
            size_t at = i + (unsigned)__builtin_ctz(hits);
            if (at + needle.len <= s.len && begins_at(s.ptr + at, needle, fold)) return (ptrdiff_t)at;
        }
        if (i + 17 == s.len) return -1;
    }
}
#endif

ptrdiff_t claw_str_find(struct claw_str s, struct claw_str needle)
{
    if (needle.len == 0) return 0;
    if (s.len < needle.len) return -1;
#ifdef __SSE2__
    if (needle.len > 1 && s.len >= 17) return find_pairs(s, needle, false);
#endif
    const char *p = memmem(s.ptr, s.len, needle.ptr, needle.len);
    return p ? p - s.ptr : -1;
}

ptrdiff_t claw_str_ifind(struct claw_str s, struct claw_str needle)
{
    if (needle.len == 0) return 0;
    if (s.len < needle.len) return -1;
#ifdef __SSE2__
    if (needle.len > 1 && s.len >= 17) return find_pairs(s, needle, true);
#endif
    for (size_t i = 0; i + needle.len <= s.len; i++)
        if (begins_at(s.ptr + i, needle, true)) return (ptrdiff_t)i;
    return -1;
}

struct claw_str claw_str_trim(struct claw_str s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) s.ptr++, s.len--;
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) s.len--;
    return s;
}

int claw_str_u64(struct claw_str s, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    if (s.len == 0) return CLAW_EINVAL;
    for (size_t i = 0; i < s.len; i++) {
        unsigned d = (unsigned char)s.ptr[i] - (unsigned)'0';
        if (d > 9 || n > (max - (d < max ? d : max)) / 10 || d > max) return CLAW_EINVAL;
        n = n * 10 + d;
    }
    *out = n;
    return 0;
}

bool claw_str_glob(struct claw_str pattern, struct claw_str s)
{
    size_t p = 0, i = 0, star = SIZE_MAX, mark = 0;
    while (i < s.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            mark = i;
        } else if (p < pattern.len && pattern.ptr[p] == s.ptr[i]) {
            p++, i++;
        } else if (star != SIZE_MAX) { /* the last star takes one byte more; earlier ones need never change */
            p = star + 1;
            i = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*') p++;
    return p == pattern.len;
}

uint64_t claw_str_hash(struct claw_str s, uint64_t seed)
{
    uint64_t h = seed ? seed : UINT64_C(14695981039346656037);
    for (size_t i = 0; i < s.len; i++) h = (h ^ (unsigned char)s.ptr[i]) * UINT64_C(1099511628211);
    return h;
}

int claw_buf_reserve(struct claw_buf *b, size_t n)
{
    CLAW_ASSERT(b->off <= b->len && b->len <= b->cap);
    size_t size = b->len - b->off;
    if (n > SIZE_MAX / 4 - size || (b->max && (size > b->max || n > b->max - size))) return CLAW_ENOMEM;
    if (n <= b->cap - b->len && b->data) return 0;
    /* Not for a few taken bytes: a nearly full buffer would be moved again and again. */
    if (b->off && b->off >= size / 4 && size + n <= b->cap) {
        memmove(b->data, b->data + b->off, size);
        b->off = 0;
        b->len = size;
        return 0;
    }
    size_t cap = b->cap < FIRST_CAP ? FIRST_CAP : b->cap;
    while (cap < size + n) cap *= 2;
    char *data;
    if (b->off == 0) {
        data = realloc(b->data, cap);
        if (!data) return CLAW_ENOMEM;
    } else { /* realloc would carry the taken bytes along */
        data = malloc(cap);
        if (!data) return CLAW_ENOMEM;
        memcpy(data, b->data + b->off, size);
        free(b->data);
    }
    b->data = data;
    b->off = 0;
    b->len = size;
    b->cap = cap;
    return 0;
}

int claw_buf_add_u64(struct claw_buf *b, uint64_t n)
{
    char out[CLAW_CURSOR_NUMBER_BYTES];
    return claw_buf_add(b, out, (size_t)(claw_cursor_number(out, n) - out));
}

int claw_buf_add_micros(struct claw_buf *b, int64_t micros)
{
    char out[32], *at = out;
    uint64_t u = micros < 0 ? 0 - (uint64_t)micros : (uint64_t)micros;
    if (micros < 0) *at++ = '-';
    at = claw_cursor_number(at, u / 1000000);
    unsigned part = (unsigned)(u % 1000000);
    if (part) {
        *at++ = '.';
        for (unsigned unit = 100000; part; unit /= 10) {
            *at++ = (char)('0' + part / unit);
            part %= unit;
        }
    }
    return claw_buf_add(b, out, (size_t)(at - out));
}

int claw_buf_add_fmt(struct claw_buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0) return CLAW_EINVAL;
    if ((size_t)n < sizeof small) return claw_buf_add(b, small, (size_t)n);

    /* vsnprintf writes a NUL that the bound must not count. */
    char *big = malloc((size_t)n + 1);
    if (!big) return CLAW_ENOMEM;
    va_start(ap, fmt);
    vsnprintf(big, (size_t)n + 1, fmt, ap);
    va_end(ap);
    int r = claw_buf_add(b, big, (size_t)n);
    free(big);
    return r;
}

/* How many bytes the UTF-8 character at `p` has; 0 when it is not one (RFC 3629 4). */
static size_t utf8_len(const unsigned char *p, size_t n)
{
    unsigned char c = p[0];
    unsigned char low = 0x80, high = 0xBF;
    size_t need;
    if (c >= 0xC2 && c <= 0xDF) need = 2;
    else if (c >= 0xE0 && c <= 0xEF) need = 3;
    else if (c >= 0xF0 && c <= 0xF4) need = 4;
    else return 0;
    if (n < need) return 0;
    if (c == 0xE0) low = 0xA0;       /* overlong */
    else if (c == 0xED) high = 0x9F; /* surrogates */
    else if (c == 0xF0) low = 0x90;  /* overlong */
    else if (c == 0xF4) high = 0x8F; /* past U+10FFFF */
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < need; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return need;
}

bool claw_buf_is_utf8(struct claw_str s)
{
    size_t i = 0, n = 1;
    for (; i < s.len && n; i += n) n = (unsigned char)s.ptr[i] < 0x80 ? 1 : utf8_len((const unsigned char *)s.ptr + i, s.len - i);
    return n != 0;
}

/* 1 for the bytes that go out as they are and stand alone. */
static const unsigned char plain[256] = {
    [' '] = 1, ['!'] = 1, ['#' ... '['] = 1, [']' ... '~'] = 1,
};

static size_t plain_run(const unsigned char *p, size_t n)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, p + i, 8);
        /* A top bit for each byte that is < 0x20, '"', '\\', DEL or >= 0x80 (and at times for the byte after
         * one such, which the loop below sorts out). */
        uint64_t q = w ^ ones * '"', s = w ^ ones * '\\', d = w ^ ones * 0x7F;
        uint64_t bad = w | ((w - ones * 0x20) & ~w) | ((q - ones) & ~q) | ((s - ones) & ~s) | ((d - ones) & ~d);
        if (bad & tops) break;
    }
    while (i < n && plain[p[i]]) i++;
    return i;
}

/* One byte that is not plain ASCII text, escaped. */
static int add_escaped(struct claw_buf *b, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char out[6] = {'\\', 0, '0', '0', hex[c >> 4], hex[c & 15]};
    switch (c) {
    case '"': out[1] = '"'; break;
    case '\\': out[1] = '\\'; break;
    case '\b': out[1] = 'b'; break;
    case '\f': out[1] = 'f'; break;
    case '\n': out[1] = 'n'; break;
    case '\r': out[1] = 'r'; break;
    case '\t': out[1] = 't'; break;
    default: out[1] = 'u'; return claw_buf_add(b, out, 6);
    }
    return claw_buf_add(b, out, 2);
}

static int add_json_inside(struct claw_buf *b, const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t run = plain_run(p + i, n - i);
        while (i + run < n && p[i + run] >= 0x80) {
            size_t u = utf8_len(p + i + run, n - i - run);
            if (u == 0) break;
            run += u;
            run += plain_run(p + i + run, n - i - run);
        }
        int r = claw_buf_add(b, p + i, run);
        i += run;
        if (!r && i < n) r = p[i] >= 0x80 ? claw_buf_add(b, "\xEF\xBF\xBD", 3) : add_escaped(b, p[i]);
        if (r) return r;
        i++;
    }
    return 0;
}

int claw_buf_add_json(struct claw_buf *b, struct claw_str s)
{
    size_t before = claw_buf_size(b);
    if (s.len > SIZE_MAX / 4 - 2) return CLAW_ENOMEM;
    int r = claw_buf_reserve(b, s.len + 2); /* no output is shorter */
    if (!r) r = claw_buf_add(b, "\"", 1);
    if (!r) r = add_json_inside(b, (const unsigned char *)s.ptr, s.len);
    if (!r) r = claw_buf_add(b, "\"", 1);
    if (r) b->len = b->off + before; /* all or nothing */
    return r;
}

void claw_buf_take(struct claw_buf *b, size_t n)
{
    CLAW_ASSERT(n <= b->len - b->off);
    b->off += n;
    if (b->off == b->len) b->off = b->len = 0;
}

void claw_buf_clear(struct claw_buf *b) { b->off = b->len = 0; }

/* A pipe has something to read, or its end. */
static bool speaks(int fd, int patience_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    do n = poll(&p, 1, patience_ms);
    while (n < 0 && errno == EINTR);
    if (n == 0) errno = ETIMEDOUT;
    return n > 0;
}

int claw_buf_add_fd(struct claw_buf *b, int fd, int patience_ms)
{
    struct stat st;
    bool pipe = fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
    for (;;) {
        if (pipe && !speaks(fd, patience_ms)) return CLAW_EIO;
        /* At the bound one byte more decides between a whole file and one that is too big. */
        size_t size = claw_buf_size(b), want = 16384;
        char probe;
        ssize_t n;
        if (b->max && b->max - size < want) want = b->max - size;
        if (want) {
            int r = claw_buf_reserve(b, want);
            if (r) return r;
            n = read(fd, b->data + b->len, want);
        } else {
            n = read(fd, &probe, 1);
        }
        if (n < 0 && (errno == EINTR || (pipe && errno == EAGAIN))) continue;
        if (n <= 0) return n < 0 ? CLAW_EIO : 0;
        if (want == 0) return CLAW_ENOMEM;
        b->len += (size_t)n;
    }
}

int claw_buf_add_file(struct claw_buf *b, const char *path)
{
    size_t before = claw_buf_size(b);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* else a pipe that nobody writes to would not even open */
    if (fd < 0) return CLAW_EIO;
    int r = claw_buf_add_fd(b, fd, PATIENCE_MS), why = errno;
    close(fd);
    errno = why;
    if (r) b->len = b->off + before;
    return r;
}
