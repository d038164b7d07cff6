/* Two readers look at each head: a scan for line ends, controls and counts, and llhttp for the grammar. Where they
 * disagree about the end of the head or about its framing, the message is refused. llhttp 8.1.0 lets through, and
 * this file refuses:
 *
 *   in any head     lines that end with a bare LF; a CR in place of the closing CRLF's LF (not in strict builds);
 *                   obs-fold, also before a Content-Length; an empty field name; controls it takes in lenient places
 *   requests        Host missing, repeated or invalid; HTTP/0.9 (also without a version), HTTP/2.0 and its preface;
 *                   RTSP and ICE; several spaces in the request line; a fragment, '*', authority and any scheme but
 *                   http and https as target; an empty authority; methods the proxy does not serve
 *   framing         an empty Transfer-Encoding (ignored); "cow, chunked"; Transfer-Encoding in HTTP/1.0; in responses
 *                   also any other value, repetitions, and codings behind chunked; lengths of 2^63 and more
 *   responses       status 000, two digits, above 599; HTTP/0.9 and 2.0; an empty line before the status line;
 *                   several spaces before the status; 101, which nothing here asks for
 *   chunks          bare LF at the end of the trailers; lengths in trailers (ignored); it bounds neither extensions
 *                   nor trailers
 *   upgrades        it stops at Upgrade and CONNECT; here Upgrade is a header like any other
 *
 * It refuses more than one chunk extension in a line, which is legal: left so, nothing known sends them.
 *
 * Callbacks run outside llhttp_execute (llhttp pauses at each event): they may free the parser's owner.
 */
#include "http/h1_part.h"

const struct claw_h1_limits claw_h1_defaults = {
    .head_bytes = 32 << 10,
    .target_bytes = 8 << 10,
    .fields = 100,
    .body_bytes = -1,
    .trailer_bytes = 8 << 10,
    .chunk_line_bytes = 1 << 10,
};

enum event { NOTHING, ON_HEAD_END, ON_CHUNK, ON_END };
enum { INTERIM_MAX = 16, CHUNK_LINE_FREE = 20, RAW_FIRST = 1024 };

static bool chunk_fits(const struct claw_h1 *p, uint64_t size)
{
    int64_t limit = p->limits->body_bytes >= 0 ? p->limits->body_bytes : INT64_MAX;
    return size <= (uint64_t)(limit - p->body_seen);
}

/* ---- llhttp's side -------------------------------------------------------------------------------------------- */

static int pause_as(llhttp_t *ll, enum event event)
{
    ((struct claw_h1 *)ll->data)->event = event;
    return HPE_PAUSED;
}

static int ll_head_end(llhttp_t *ll)
{
    ll->upgrade = 0;
    return pause_as(ll, ON_HEAD_END);
}

/* The usual chunk is let in without a stop; one that needs thought, or comes with data not handed up yet, is not. */
static int ll_chunk(llhttp_t *ll)
{
    struct claw_h1 *p = ll->data;
    uint64_t size = ll->content_length;
    if (p->piece.len || size == 0 || !chunk_fits(p, size)) return pause_as(ll, ON_CHUNK);
    p->body_seen += (int64_t)size;
    p->opened = true;
    return 0;
}

static int ll_end(llhttp_t *ll) { return pause_as(ll, ON_END); }

static int ll_data(llhttp_t *ll, const char *at, size_t n)
{
    ((struct claw_h1 *)ll->data)->piece = (struct claw_str){at, n};
    return 0;
}

static const llhttp_settings_t settings = {
    .on_headers_complete = ll_head_end,
    .on_chunk_header = ll_chunk,
    .on_body = ll_data,
    .on_message_complete = ll_end,
};

/* ---- life ----------------------------------------------------------------------------------------------------- */

static void begin_head(struct claw_h1 *p)
{
    llhttp_init(&p->ll, p->kind == CLAW_H1_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    p->ll.data = p;
    p->state = CLAW_H1_HEAD;
    p->raw_len = p->head_seen = p->line = 0;
    p->lines = 0;
    p->cr = false;
}

void claw_h1_init(struct claw_h1 *p, enum claw_h1_kind kind, const struct claw_h1_limits *limits,
                  const struct claw_h1_events *on, void *arg)
{
    memset(p, 0, sizeof *p);
    p->kind = (uint8_t)kind;
    p->limits = limits;
    p->on = on;
    p->arg = arg;
    p->state = CLAW_H1_DONE;
}

void claw_h1_begin(struct claw_h1 *p, struct claw_arena *arena, bool no_body)
{
    p->arena = arena;
    p->head = NULL;
    p->raw = NULL;
    p->raw_cap = p->extra_seen = 0;
    p->left = p->body_seen = 0;
    p->interim = 0;
    p->in_chunk = p->last_chunk = p->trailers_end = false;
    p->no_body = no_body;
    p->failed = 0;
    p->error = NULL;
    begin_head(p);
}

bool claw_h1_started(const struct claw_h1 *p) { return p->state != CLAW_H1_HEAD || p->head_seen > 0 || p->interim > 0; }
bool claw_h1_complete(const struct claw_h1 *p) { return p->state == CLAW_H1_DONE; }
const char *claw_h1_error(const struct claw_h1 *p) { return p->error ? p->error : ""; }

int claw_h1_fail(struct claw_h1 *p, int code, const char *why)
{
    if (p->kind == CLAW_H1_RESPONSE && code != CLAW_EREQ_MEM && code != CLAW_EUPSTREAM_EOF)
        code = CLAW_EBAD_RESPONSE;
    p->state = CLAW_H1_FAILED;
    p->failed = code;
    p->error = why;
    return code;
}

/* ---- lines ---------------------------------------------------------------------------------------------------- */

/* Go on to the end of the line: 1 behind its CRLF, 0 when `n` came first, -1 at a byte no line may have. */
static int scan_line(struct claw_h1 *p, const char *data, size_t n, size_t *at)
{
    if (!p->cr) {
        size_t run = (size_t)(plain_end(data + *at, data + n) - (data + *at));
        *at += run;
        p->line += run;
        if (*at == n) return 0;
        if (data[*at] != '\r') return -1;
        p->cr = true;
        ++*at;
    }
    if (*at == n) return 0;
    if (data[*at] != '\n') return -1;
    p->cr = false;
    ++*at;
    return 1;
}

static bool starts_with_space(const struct claw_h1 *p, char c)
{
    return p->line == 0 && !p->cr && (c == ' ' || c == '\t');
}

struct scan {
    size_t skip, at; /* empty lines in front; where it stopped */
    int code;        /* why, or 0 */
    const char *why;
    bool end; /* behind the empty line */
};

static void scan_stop(struct scan *s, int code, const char *why)
{
    s->code = code;
    s->why = why;
}

static struct scan scan_head(struct claw_h1 *p, const char *data, size_t n)
{
    struct scan s = {0};
    while (s.at < n && !s.code && !s.end) {
        if (p->line == 0 && !p->cr && p->lines > 0) {
            if (starts_with_space(p, data[s.at])) {
                scan_stop(&s, CLAW_EBAD_REQUEST, "a header line starts with white space");
                break;
            }
            if (data[s.at] != '\r' && p->lines > p->limits->fields) {
                scan_stop(&s, CLAW_EHEAD_TOO_LARGE, "too many header fields");
                break;
            }
        }
        int r = scan_line(p, data, n, &s.at);
        if (r < 0)
            scan_stop(&s, CLAW_EBAD_REQUEST, "a control character in the head, or a line not ended by CRLF");
        if (r <= 0) break;
        if (p->line) {
            p->lines++;
            p->line = 0;
        } else if (p->lines) {
            s.end = true;
        } else if (p->kind == CLAW_H1_RESPONSE) {
            scan_stop(&s, CLAW_EBAD_RESPONSE, "an empty line before the status line");
        } else {
            s.skip = s.at;
        }
    }
    if (p->lines == 0 && p->line == 0) s.skip = s.at;
    return s;
}

/* The CR of the line at `at`, a LF behind it; NULL when there is none or something odd comes first. `*colon`: as it
 * is marked. In front of `safe` 17 bytes can be read. */
static inline const char *line_end(const char *at, const char *end, const char *safe, unsigned *colon)
{
    const char *eol = at;
    *colon = 16;
#ifdef __SSE2__
    if (at < safe) {
        __m128i v = _mm_loadu_si128((const __m128i *)at);
        *colon = (unsigned)__builtin_ctz((unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(':'))) | 1u << 16);
        for (unsigned odd = odd_of(v);; odd = odd_of(_mm_loadu_si128((const __m128i *)eol))) {
            if (odd) {
                eol += __builtin_ctz(odd);
                if (memcmp(eol, "\r\n", 2) == 0) return eol;
                break;
            }
            eol += 16;
            if (eol >= safe) break;
        }
    }
#endif
    eol = plain_end(eol, end);
    return end - eol >= 2 && memcmp(eol, "\r\n", 2) == 0 ? eol : NULL;
}

const char *claw_h1_mark(struct claw_h1_marks *m, const char *from, const char *end)
{
    const char *at = from, *eol;
    const char *safe = end - from > 16 ? end - 16 : from;
    unsigned n = 0, colon;
    for (m->last = false; n < CLAW_H1_MARKS; at = eol + 2, n++) {
        eol = line_end(at, end, safe, &colon);
        if (!eol) return NULL;
        if ((unsigned char)*at <= ' ') {
            if (eol != at) return NULL;
            m->last = true;
            at += 2;
            break;
        }
        m->at[n].colon = colon;
        m->at[n].eol = (size_t)(eol - from);
    }
    m->n = n;
    return at;
}

/* The usual head lies whole in one feed and has nothing odd: how long it is. 0: let scan_head see what it is. */
static size_t scan_whole(struct claw_h1 *p, struct claw_h1_marks *m, const char *data, size_t n)
{
    const char *at = claw_h1_mark(m, data, data + n);
    if (!at || !m->last || m->n == 0 || m->n - 1 > p->limits->fields) return 0;
    p->lines = m->n;
    return (size_t)(at - data);
}

/* ---- the head ------------------------------------------------------------------------------------------------- */

/* Keep the head's bytes. One whole in a single feed, the usual case, gets exactly its size. */
static int keep_raw(struct claw_h1 *p, const char *data, size_t n, bool end)
{
    if (!p->head && !(p->head = claw_arena_zalloc(p->arena, sizeof *p->head)))
        return claw_h1_fail(p, CLAW_EREQ_MEM, "the head needs more memory than the request may have");
    size_t need = p->raw_len + n;
    if (need > p->raw_cap) {
        size_t cap = end ? need : need < RAW_FIRST ? RAW_FIRST : 2 * need;
        char *more = claw_arena_grow(p->arena, p->raw, p->raw_cap, cap);
        if (!more) return claw_h1_fail(p, CLAW_EREQ_MEM, "the head needs more memory than the request may have");
        p->raw = more;
        p->raw_cap = cap;
    }
    if (n) memcpy(p->raw + p->raw_len, data, n);
    p->raw_len = need;
    return 0;
}

/* The same for a head that is whole: struct, fields and bytes are one allocation. */
static int keep_whole(struct claw_h1 *p, const char *data, size_t n)
{
    size_t fields = p->lines - 1;
    struct claw_head *h = claw_arena_alloc(p->arena, sizeof *h + fields * sizeof *h->headers + n);
    if (!h) return claw_h1_fail(p, CLAW_EREQ_MEM, "the head needs more memory than the request may have");
    *h = (struct claw_head){.headers = (struct claw_header *)(h + 1)};
    p->head = h;
    p->raw = (char *)(h->headers + fields);
    p->raw_len = p->raw_cap = n;
    memcpy(p->raw, data, n);
    return 0;
}

/* llhttp stops in the version: a real one that is not spoken, or no version at all? */
static int refuse_version(struct claw_h1 *p)
{
    for (size_t i = 0; i + 9 <= p->raw_len; i++) {
        if (memcmp(p->raw + i, " HTTP/", 6) != 0) continue;
        struct claw_str version = {p->raw + i + 1, 8};
        if (claw_h1_read_version(p, version) != 0) return p->failed;
        break;
    }
    return bad(p, "an invalid HTTP version");
}

static int refuse_as_llhttp(struct claw_h1 *p, llhttp_errno_t err)
{
    if (err == HPE_INVALID_VERSION && p->kind == CLAW_H1_REQUEST) return refuse_version(p);
    const char *why = llhttp_get_error_reason(&p->ll);
    return bad(p, why && *why ? why : "malformed HTTP");
}

/* Let llhttp read what was kept. 1: the head is complete and checked, 0: more is needed. `m`: of a whole head. */
static int read_kept(struct claw_h1 *p, const char *data, size_t n, bool end, struct claw_h1_marks *m)
{
    p->event = NOTHING;
    llhttp_errno_t err = llhttp_execute(&p->ll, data, n);
    if (err != HPE_OK && err != HPE_PAUSED) return refuse_as_llhttp(p, err);
    if (end) {
        int rc = claw_h1_read_head(p, p->event == ON_HEAD_END && llhttp_get_error_pos(&p->ll) == data + n, m);
        return rc ? rc : 1;
    }
    return err == HPE_PAUSED ? bad(p, "the end of the head is ambiguous") : 0;
}

/* As read_kept. */
static int feed_head(struct claw_h1 *p, const char *data, size_t n, size_t *used)
{
    size_t room = p->limits->head_bytes - p->head_seen, most = n < room ? n : room;
    struct claw_h1_marks marks;
    if (p->head_seen == 0 && !p->head) {
        size_t whole = scan_whole(p, &marks, data, most);
        if (whole) {
            p->head_seen = whole;
            *used += whole;
            int rc = keep_whole(p, data, whole);
            return rc ? rc : read_kept(p, data, whole, true, &marks);
        }
    }
    struct scan s = scan_head(p, data, most);
    if (!s.end && !s.code && n > room) {
        bool target = p->kind == CLAW_H1_REQUEST && p->lines == 0;
        if (target) scan_stop(&s, CLAW_ETARGET_TOO_LONG, claw_err_text(CLAW_ETARGET_TOO_LONG));
        else scan_stop(&s, CLAW_EHEAD_TOO_LARGE, "the head is too large");
    }
    p->head_seen += s.at;
    *used += s.at;
    if (s.at > s.skip) {
        int rc = keep_raw(p, data + s.skip, s.at - s.skip, s.end);
        if (!rc && s.end && !claw_h1_mark(&marks, p->raw, p->raw + p->raw_len))
            rc = bad(p, "the head starts with white space");
        if (!rc) rc = read_kept(p, data + s.skip, s.at - s.skip, s.end, &marks);
        if (rc) return rc;
    }
    return s.code ? claw_h1_fail(p, s.code, s.why) : 0;
}

/* ---- bodies --------------------------------------------------------------------------------------------------- */

/* What lies between the chunks' data: whole lines, bounded. llhttp has read them already, but less strictly. */
static int check_lines(struct claw_h1 *p, const char *data, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t from = at;
        if (p->trailers_end) return bad(p, "the end of the trailers is ambiguous");
        if (p->last_chunk && starts_with_space(p, data[at])) return bad(p, "a trailer line starts with white space");
        int r = scan_line(p, data, n, &at);
        if (p->last_chunk) {
            p->extra_seen += at - from;
        } else if (p->line > p->limits->chunk_line_bytes) {
            return bad(p, "the size line of a chunk is too long");
        } else if (r > 0 && p->line > CHUNK_LINE_FREE) {
            p->extra_seen += p->line - CHUNK_LINE_FREE;
        }
        if (p->extra_seen > p->limits->trailer_bytes)
            return claw_h1_fail(p, CLAW_EHEAD_TOO_LARGE, "trailers or chunk extensions are too large");
        if (r < 0) return bad(p, "a control character in the chunk framing");
        if (r > 0) {
            if (p->in_chunk && p->line) return bad(p, "a chunk is longer than its size");
            p->in_chunk = false;
            p->trailers_end = p->last_chunk && p->line == 0;
            p->line = 0;
        }
    }
    return 0;
}

static int check_framing(struct claw_h1 *p, const char *data, size_t n)
{
    /* Nearly always it is the CRLF behind a chunk's data, or the next one's short size line, or both. */
    if (p->line == 0 && !p->cr && !p->last_chunk) {
        if (p->in_chunk && n >= 2 && data[0] == '\r' && data[1] == '\n') {
            p->in_chunk = false;
            data += 2;
            n -= 2;
        }
        if (!p->in_chunk && n > 2 && n <= CHUNK_LINE_FREE && n - 2 <= p->limits->chunk_line_bytes) {
            size_t i = 0;
            while (i < n - 2 && data[i] > ' ' && data[i] < 0x7f) i++;
            if (i == n - 2 && data[i] == '\r' && data[i + 1] == '\n') return 0;
        }
    }
    return n ? check_lines(p, data, n) : 0;
}

static int begin_chunk(struct claw_h1 *p)
{
    uint64_t size = p->ll.content_length;
    p->last_chunk = size == 0;
    p->in_chunk = !p->last_chunk;
    if (p->last_chunk) return 0;
    if (size > INT64_MAX) return bad(p, "the size of a chunk is out of range");
    if (!chunk_fits(p, size)) return claw_h1_fail(p, CLAW_EBODY_TOO_LARGE, "the body is larger than allowed");
    p->body_seen += (int64_t)size;
    return 0;
}

/* Up to the last chunk, a chunk behind data, the end of the message or of what was fed. At most one piece of data
 * was read: it goes up when the framing before it is checked, and before that behind it is.
 * 1: the message is over. */
static int feed_chunked(struct claw_h1 *p, const char *data, size_t n, size_t *used)
{
    const char *from = data + *used;
    p->event = NOTHING;
    p->piece.len = 0;
    p->opened = false;
    llhttp_resume(&p->ll);
    llhttp_errno_t err = llhttp_execute(&p->ll, from, n - *used);
    const char *stop = err == HPE_OK ? data + n : llhttp_get_error_pos(&p->ll);
    int rc;
    if (p->piece.len) {
        if ((rc = check_framing(p, from, (size_t)(p->piece.ptr - from))) != 0) return rc;
        if (p->opened) p->in_chunk = true;
        from = p->piece.ptr + p->piece.len;
        *used = (size_t)(from - data);
        if ((rc = p->on->on_body(p, p->piece.ptr, p->piece.len)) < 0) return rc;
    }
    *used = (size_t)(stop - data);
    if ((rc = check_framing(p, from, (size_t)(stop - from))) != 0) return rc;
    if (p->opened && !p->piece.len) p->in_chunk = true;
    if (err != HPE_OK && err != HPE_PAUSED) return refuse_as_llhttp(p, err);
    if (p->event == ON_CHUNK) return begin_chunk(p);
    if ((p->event == ON_END) != p->trailers_end) return bad(p, "the end of the trailers is ambiguous");
    return p->trailers_end ? 1 : 0;
}

/* A piece of a body that is no more than a run of bytes. 1: the message is over. */
static int feed_plain(struct claw_h1 *p, const char *data, size_t n, size_t *used)
{
    const char *from = data + *used;
    uint64_t take = n - *used;
    if (p->state == CLAW_H1_SIZED) {
        if (take > (uint64_t)p->left) take = (uint64_t)p->left;
        p->left -= (int64_t)take;
    } else if (p->limits->body_bytes >= 0 && take > (uint64_t)(p->limits->body_bytes - p->body_seen)) {
        take = (uint64_t)(p->limits->body_bytes - p->body_seen);
        if (take == 0) return claw_h1_fail(p, CLAW_EBODY_TOO_LARGE, "the body is larger than allowed");
    }
    p->body_seen += (int64_t)take;
    *used += (size_t)take;
    int rc = p->on->on_body(p, from, (size_t)take);
    if (rc < 0) return rc;
    return p->state == CLAW_H1_SIZED && p->left == 0 ? 1 : 0;
}

static int done(struct claw_h1 *p)
{
    p->state = CLAW_H1_DONE;
    return p->on->on_done(p);
}

/* An interim head is over: count it, and be ready for the next one. */
static int swallow(struct claw_h1 *p)
{
    p->extra_seen += p->head_seen;
    if (++p->interim > INTERIM_MAX || p->extra_seen > p->limits->head_bytes)
        return bad(p, "too many interim responses");
    p->head = NULL;
    p->raw = NULL;
    p->raw_cap = 0;
    begin_head(p);
    return 0;
}

int claw_h1_feed(struct claw_h1 *p, const char *data, size_t n, size_t *used)
{
    *used = 0;
    while (*used < n) {
        int rc;
        switch (p->state) {
        case CLAW_H1_HEAD:
            rc = feed_head(p, data + *used, n - *used, used);
            if (rc <= 0) return rc;
            if (p->kind == CLAW_H1_RESPONSE && p->head->status < 200) {
                if ((rc = swallow(p)) != 0) return rc;
                continue;
            }
            p->extra_seen = p->line = 0;
            rc = p->on->on_head(p, p->head);
            if (rc < 0) return rc;
            if (p->state == CLAW_H1_EMPTY) return done(p);
            continue;
        case CLAW_H1_SIZED:
        case CLAW_H1_TO_CLOSE:
            rc = feed_plain(p, data, n, used);
            break;
        case CLAW_H1_CHUNKED:
            rc = feed_chunked(p, data, n, used);
            break;
        case CLAW_H1_FAILED:
            return p->failed;
        default:
            return 0;
        }
        if (rc) return rc > 0 ? done(p) : rc;
    }
    return 0;
}

int claw_h1_finish(struct claw_h1 *p)
{
    switch (p->state) {
    case CLAW_H1_DONE:
        return 0;
    case CLAW_H1_FAILED:
        return p->failed;
    case CLAW_H1_TO_CLOSE:
        return done(p);
    case CLAW_H1_HEAD:
        /* Empty lines alone are no message. */
        if (p->interim == 0 && p->lines == 0 && p->line == 0) return 0;
        break;
    default:
        break;
    }
    return claw_h1_fail(p, p->kind == CLAW_H1_REQUEST ? CLAW_EBAD_REQUEST : CLAW_EUPSTREAM_EOF,
                "the connection ended within a message");
}
