#include "http/sse.h"

#include "base/cursor.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { FIELD = 1, DATA = 2 };
enum { BOM_SIZE = 3, BOM_PAST = 4 };
static const char bom[] = "\xEF\xBB\xBF";

void claw_sse_init(struct claw_sse *s, size_t max_event_bytes)
{
    memset(s, 0, sizeof *s);
    claw_buf_init(&s->rest, 0);
    s->max = max_event_bytes;
}

void claw_sse_fini(struct claw_sse *s) { claw_buf_fini(&s->rest); }
struct claw_str claw_sse_rest(const struct claw_sse *s) { return claw_buf_str(&s->rest); }

/* One feed: events begin at `from`, lines at `at`. */
struct feed {
    struct claw_sse *s;
    const struct claw_sse_sink *to;
    const char *from, *at, *end;
};

/* The first LF or CR, or end. */
static inline const char *find_eol(const char *at, const char *end)
{
#ifdef __SSE2__
    if (end - at >= 16) {
        const __m128i lf = _mm_set1_epi8('\n'), cr = _mm_set1_epi8('\r');
        const char *last = end - 16; /* the last block may have bytes in front that were looked at */
        /* Bytes above CR, 64 at a time, then looked at more closely. */
        for (; end - at >= 64; at += 64) {
            const __m128i *v = (const __m128i *)at;
            __m128i low = _mm_min_epu8(_mm_min_epu8(_mm_loadu_si128(v), _mm_loadu_si128(v + 1)),
                                       _mm_min_epu8(_mm_loadu_si128(v + 2), _mm_loadu_si128(v + 3)));
            if (_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(low, cr), low))) break;
        }
        for (;; at += 16) {
            if (at > last) at = last;
            __m128i v = _mm_loadu_si128((const __m128i *)at);
            int hits = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(v, lf), _mm_cmpeq_epi8(v, cr)));
            if (hits) return at + __builtin_ctz((unsigned)hits);
            if (at == last) return end;
        }
    }
#endif
    while (at < end && *at != '\n' && *at != '\r') at++;
    return at;
}

static void lead_add(struct claw_sse *s, const char *p, size_t n)
{
    size_t room = sizeof s->lead - s->lead_n;
    if (n > room) n = room;
    memcpy(s->lead + s->lead_n, p, n);
    s->lead_n += (uint8_t)n;
}

static uint8_t flags_of(const char *line, size_t n)
{
    if (line[0] == ':') return 0;
    return n >= 4 && memcmp(line, "data", 4) == 0 && (n == 4 || line[4] == ':') ? FIELD | DATA : FIELD;
}

static int give_over(const struct claw_sse_sink *to, struct claw_str bytes, bool last)
{
    int rc = to->on_over ? to->on_over(to->arg, bytes, last) : CLAW_EBAD_RESPONSE;
    return rc < 0 ? rc : 0;
}

/* An event outgrows the bound: what was gathered of it goes first. */
static int begin_over(struct feed *f)
{
    struct claw_sse *s = f->s;
    s->over = true;
    if (claw_buf_size(&s->rest) == 0) return 0;
    int rc = give_over(f->to, claw_buf_str(&s->rest), false);
    if (rc) return rc;
    claw_buf_clear(&s->rest);
    return 0;
}

/* The event from `from` to `at` is whole. */
static int emit(struct feed *f)
{
    struct claw_sse *s = f->s;
    struct claw_str part = {f->from, (size_t)(f->at - f->from)};
    size_t gathered = claw_buf_size(&s->rest);
    uint8_t flags = s->flags;
    int rc;
    f->from = f->at;
    s->flags = 0;
    s->held = false;
    if (!s->over && gathered + part.len > s->max && (rc = begin_over(f)) != 0) return rc;
    if (s->over) {
        s->over = false;
        return give_over(f->to, part, true);
    }
    struct claw_sse_event ev = {part, !(flags & FIELD), flags & DATA};
    if (gathered) {
        if ((rc = claw_buf_add_str(&s->rest, part)) != 0) return rc;
        ev.raw = claw_buf_str(&s->rest);
    }
    rc = f->to->on_event(f->to->arg, &ev);
    if (rc < 0) return rc;
    if (gathered) claw_buf_clear(&s->rest);
    return 0;
}

/* The feed ends inside an event. */
static int keep(struct feed *f)
{
    struct claw_sse *s = f->s;
    struct claw_str part = {f->from, (size_t)(f->end - f->from)};
    if (part.len == 0) return 0;
    if (!s->over && part.len + claw_buf_size(&s->rest) > s->max) {
        int rc = begin_over(f);
        if (rc) return rc;
    }
    return s->over ? give_over(f->to, part, false) : claw_buf_add_str(&s->rest, part);
}

/* The line from `at` (or from earlier feeds) to `eol` is over. */
static int end_line(struct feed *f, const char *eol)
{
    struct claw_sse *s = f->s;
    size_t n = (size_t)(eol - f->at);
    bool empty = n == 0 && s->lead_n == 0;
    if (s->lead_n) {
        lead_add(s, f->at, n);
        s->flags |= flags_of(s->lead, s->lead_n);
        s->lead_n = 0;
    } else if (!empty) {
        s->flags |= flags_of(f->at, n);
    }
    f->at = eol + 1;
    if (*eol == '\n') {
        s->crlf = false;
    } else if (f->at < f->end) {
        s->crlf = *f->at == '\n';
        f->at += s->crlf;
    } else {
        s->cr = true;
        s->held = empty && s->crlf;
    }
    return empty && !s->held ? emit(f) : 0;
}

/* The last feed ended with a CR: is this one's first byte the LF of the pair? */
static int after_cr(struct feed *f)
{
    struct claw_sse *s = f->s;
    s->cr = false;
    s->crlf = *f->at == '\n';
    f->at += s->crlf;
    return s->held ? emit(f) : 0;
}

/* At the start of the stream: a mark is skipped, by being a block of its own. */
static int skip_bom(struct feed *f)
{
    struct claw_sse *s = f->s;
    while (s->bom < BOM_SIZE && f->at < f->end && *f->at == bom[s->bom]) f->at++, s->bom++;
    if (s->bom < BOM_SIZE && f->at == f->end) return 0;
    if (s->bom < BOM_SIZE) {
        /* Not one: what looked like it begins the first line. */
        f->at = f->from;
        lead_add(s, bom, claw_buf_size(&s->rest));
    }
    int rc = s->bom == BOM_SIZE ? emit(f) : 0;
    if (rc == 0) s->bom = BOM_PAST;
    return rc;
}

/* Events that lie whole in a feed and end their lines with LF, nothing under way before them: no state is needed.
 * What is left begins at f->from. */
static int feed_whole(struct feed *f)
{
    const char *from = f->from, *at = from, *end = f->end;
    uint8_t flags = 0;
    int rc = 0;
    while (at < end) {
        const char *eol = *at == '\n' ? at : find_eol(at, end);
        if (eol == end || *eol != '\n') break;
        if (eol > at) {
            flags |= flags_of(at, (size_t)(eol - at));
            at = eol + 1;
            continue;
        }
        struct claw_sse_event ev = {{from, (size_t)(++at - from)}, !(flags & FIELD), flags & DATA};
        if (ev.raw.len > f->s->max) break;
        from = at;
        flags = 0;
        f->s->crlf = false;
        if ((rc = f->to->on_event(f->to->arg, &ev)) < 0) return rc;
    }
    f->from = f->at = from;
    return 0;
}

int claw_sse_feed(struct claw_sse *s, const char *data, size_t n, const struct claw_sse_sink *to)
{
    struct feed f = {.s = s, .to = to, .from = data, .at = data, .end = data + n};
    int rc = 0;
    if (n == 0) return 0;
    if (s->bom != BOM_PAST && (rc = skip_bom(&f)) != 0) return rc;
    if (s->cr && (rc = after_cr(&f)) != 0) return rc;
    if (f.from == f.at && !s->lead_n && !s->flags && !s->over && claw_buf_size(&s->rest) == 0 &&
        ((rc = feed_whole(&f)) != 0 || f.at == f.end))
        return rc;
    while (f.at < f.end) {
        const char *eol = find_eol(f.at, f.end);
        if (eol == f.end) {
            lead_add(s, f.at, (size_t)(f.end - f.at));
            break;
        }
        if ((rc = end_line(&f, eol)) != 0) return rc;
    }
    return keep(&f);
}

/* The line at *at without its end; false behind the last. */
static bool next_line(struct claw_str s, size_t *at, struct claw_str *line)
{
    if (*at >= s.len) return false;
    const char *from = s.ptr + *at, *end = s.ptr + s.len;
    const char *eol = find_eol(from, end);
    *line = (struct claw_str){from, (size_t)(eol - from)};
    if (eol < end) eol += *eol == '\r' && eol + 1 < end && eol[1] == '\n' ? 2 : 1;
    *at = (size_t)(eol - s.ptr);
    return true;
}

/* Add a line to what was found before: the first is a slice, from the second on they are gathered. */
static int add_data(struct claw_buf *tmp, struct claw_str *data, unsigned *lines, struct claw_str value)
{
    int rc = 0;
    if (++*lines == 1) {
        *data = value;
        return 0;
    }
    if (*lines == 2) rc = claw_buf_add_str(tmp, *data);
    if (!rc) rc = claw_buf_add(tmp, "\n", 1);
    if (!rc) rc = claw_buf_add_str(tmp, value);
    return rc;
}

int claw_sse_parse(struct claw_str raw, struct claw_buf *tmp, struct claw_sse_fields *out)
{
    static const struct claw_str none = {"", 0};
    struct claw_str line;
    size_t at = 0;
    unsigned lines = 0;
    *out = (struct claw_sse_fields){none, none, none};
    claw_buf_clear(tmp);
    while (next_line(raw, &at, &line)) {
        const char *colon = line.len ? memchr(line.ptr, ':', line.len) : NULL;
        struct claw_str name = {line.ptr, colon ? (size_t)(colon - line.ptr) : line.len};
        struct claw_str value = colon ? (struct claw_str){colon + 1, line.len - name.len - 1} : none;
        if (value.len && value.ptr[0] == ' ') value.ptr++, value.len--;
        if (claw_str_eq(name, CLAW_STR("data"))) {
            int rc = add_data(tmp, &out->data, &lines, value);
            if (rc) return rc;
        } else if (claw_str_eq(name, CLAW_STR("event"))) {
            out->type = value;
        } else if (claw_str_eq(name, CLAW_STR("id")) && !(value.len && memchr(value.ptr, 0, value.len))) {
            out->id = value;
        }
    }
    if (lines > 1) out->data = claw_buf_str(tmp);
    return 0;
}

int claw_sse_write(struct claw_buf *out, struct claw_str type, struct claw_str data)
{
    static const struct claw_str event = {"event: ", 7}, field = {"data: ", 6}, eol = {"\n", 1};
    struct claw_str line = {"", 0};
    size_t at = 0, size = type.len ? event.len + type.len + 1 : 0;
    if (type.len && (memchr(type.ptr, '\n', type.len) || memchr(type.ptr, '\r', type.len))) return CLAW_EINVAL;
    /* A line end at the very end opens an empty line more, so that reading gives the same text again. */
    bool open = data.len == 0 || data.ptr[data.len - 1] == '\n' || data.ptr[data.len - 1] == '\r';
    while (next_line(data, &at, &line)) size += field.len + line.len + 1;
    size += (open ? field.len + 1 : 0) + 1;
    int rc = claw_buf_reserve(out, size);
    if (rc) return rc;
    char *to = out->data + out->len;
    if (type.len) to = claw_cursor_put(claw_cursor_put(claw_cursor_put(to, event), type), eol);
    for (at = 0; next_line(data, &at, &line);) to = claw_cursor_put(claw_cursor_put(claw_cursor_put(to, field), line), eol);
    if (open) to = claw_cursor_put(claw_cursor_put(to, field), eol);
    to = claw_cursor_put(to, eol);
    CLAW_ASSERT(to == out->data + out->len + size);
    out->len += size;
    return 0;
}
