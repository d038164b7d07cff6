/* h1_head: a head that lies whole in raw, cut into its parts and judged. */
#include "http/h1_part.h"

struct facts {
    unsigned hosts, lengths, codings;
    struct claw_str host, length, coding;
    bool close, keep, names, expect, expect_other; /* names: Connection has more than close or keep-alive */
};

static void note(struct facts *f, const struct claw_header *h)
{
    switch (h->id) {
    case CLAW_H_HOST:
        f->hosts++;
        f->host = h->value;
        break;
    case CLAW_H_CONTENT_LENGTH:
        f->lengths++;
        f->length = h->value;
        break;
    case CLAW_H_TRANSFER_ENCODING:
        f->codings++;
        f->coding = h->value;
        break;
    case CLAW_H_CONNECTION:
        if (IS_WORD(h->value, "keep-alive")) {
            f->keep = true;
        } else if (IS_WORD(h->value, "close")) {
            f->close = true;
        } else {
            f->names = true;
            f->close |= claw_h1_has_token(h->value, CLAW_STR("close"));
            f->keep |= claw_h1_has_token(h->value, CLAW_STR("keep-alive"));
        }
        break;
    case CLAW_H_EXPECT:
        if (IS_WORD(h->value, "100-continue")) f->expect = true;
        else f->expect_other = true;
        break;
    default:
        break;
    }
}

static inline bool is_blank(char c) { return c == ' ' || c == '\t'; }

/* What stands between the colon and the end of the line. */
static inline struct claw_str value_of(const char *colon, const char *eol)
{
    const char *from = colon + 1, *to = eol;
    if (*from == ' ') from++;
    if ((unsigned char)*from <= ' ')
        while (is_blank(*from)) from++; /* the CR ends it */
    if ((unsigned char)to[-1] <= ' ')
        while (to > from && is_blank(to[-1])) to--;
    return (struct claw_str){from, (size_t)(to - from)};
}

/* Behind the first line: what `m` has marked, then what it had no room for. */
static int cut_fields(struct claw_h1 *p, struct facts *f, struct claw_h1_marks *m)
{
    struct claw_head *h = p->head;
    const char *from = p->raw, *end = p->raw + p->raw_len, *at = from + m->at[0].eol + 2;
    if (!h->headers && p->lines > 1) {
        h->headers = claw_arena_alloc(p->arena, (p->lines - 1) * sizeof *h->headers);
        if (!h->headers) return claw_h1_fail(p, CLAW_EREQ_MEM, "the head needs more memory than the request may have");
    }
    struct claw_header *one = h->headers;
    for (unsigned i = 1;; i = 0) {
        for (; i < m->n; i++) {
            const char *eol = from + m->at[i].eol, *colon = at + m->at[i].colon;
            if (m->at[i].colon == 16) colon = find_near(at, eol, ':');
            if (colon >= eol) return bad(p, "a header line without a colon");
            one->name = (struct claw_str){at, (size_t)(colon - at)};
            one->value = value_of(colon, eol);
            one->id = claw_header_id_of(one->name);
            if (one->id != CLAW_H_OTHER) note(f, one);
            else if (!claw_h1_is_token(one->name)) return bad(p, "an invalid header name");
            one++;
            h->n++;
            at = eol + 2;
        }
        if (m->last) break;
        from = at;
        if (!claw_h1_mark(m, from, end)) return bad(p, "the end of the head is ambiguous");
    }
    CLAW_ASSERT(h->n == p->lines - 1);
    h->plain_connection = !f->names;
    return 0;
}

/* The coding list is not exactly "chunked": malformed, or one that is not spoken here? */
static int refuse_coding(struct claw_h1 *p, struct claw_str list)
{
    bool after_chunked = false;
    for (;;) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t n = comma ? (size_t)(comma - list.ptr) : list.len;
        struct claw_str one = claw_str_trim((struct claw_str){list.ptr, n});
        if (after_chunked || !claw_h1_is_token(one)) return bad(p, "an invalid Transfer-Encoding");
        after_chunked = claw_str_ieq(one, CLAW_STR("chunked"));
        if (!comma) break;
        list = (struct claw_str){comma + 1, list.len - n - 1};
    }
    return claw_h1_fail(p, CLAW_ENOT_IMPLEMENTED, "a transfer coding other than chunked");
}

/* claw_str_u64, without its care for what may overflow where nothing can. */
static int read_length(struct claw_str s, uint64_t *out)
{
    uint64_t n = 0;
    if (s.len == 0 || s.len > 18) return claw_str_u64(s, INT64_MAX, out);
    for (const char *at = s.ptr, *end = at + s.len; at < end; at++) {
        unsigned digit = (unsigned)*at - '0';
        if (digit > 9) return CLAW_EINVAL;
        n = n * 10 + digit;
    }
    *out = n;
    return 0;
}

static int read_framing(struct claw_h1 *p, const struct facts *f)
{
    struct claw_head *h = p->head;
    uint64_t length;
    h->content_length = -1;
    if (f->codings) {
        if (f->lengths) return bad(p, "both Content-Length and Transfer-Encoding");
        if (h->minor == 0) return bad(p, "Transfer-Encoding in HTTP/1.0");
        if (f->codings > 1) return bad(p, "more than one Transfer-Encoding");
        if (!IS_WORD(f->coding, "chunked")) return refuse_coding(p, f->coding);
        h->chunked = true;
    }
    if (f->lengths) {
        if (f->lengths > 1) return bad(p, "more than one Content-Length");
        if (read_length(f->length, &length) != 0) return bad(p, "an invalid Content-Length");
        h->content_length = (int64_t)length;
    }
    if (h->chunked != !!(p->ll.flags & F_CHUNKED) || (f->lengths && p->ll.content_length != length))
        return bad(p, "ambiguous message framing");
    h->keep_alive = !f->close && (h->minor == 1 || f->keep);
    return 0;
}

int claw_h1_read_version(struct claw_h1 *p, struct claw_str s)
{
    if (s.len == 8 && memcmp(s.ptr, "HTTP/1.", 7) == 0 && (s.ptr[7] == '0' || s.ptr[7] == '1')) {
        p->head->minor = s.ptr[7] - '0';
        return 0;
    }
    if (s.len != 8 || memcmp(s.ptr, "HTTP/", 5) != 0 || s.ptr[6] != '.' || s.ptr[5] < '0' || s.ptr[5] > '9' ||
        s.ptr[7] < '0' || s.ptr[7] > '9')
        return bad(p, "an invalid HTTP version");
    if (s.ptr[5] == '0') return bad(p, "HTTP/0.9 is not supported");
    return claw_h1_fail(p, CLAW_EVERSION, "only HTTP/1.0 and HTTP/1.1 are spoken");
}

/* http://authority/path?query: the authority wins over Host (RFC 9112 3.2.2). */
static int reduce_absolute(struct claw_h1 *p)
{
    struct claw_str t = p->head->target;
    size_t scheme = t.len > 7 && claw_str_ieq((struct claw_str){t.ptr, 7}, CLAW_STR("http://"))    ? 7
                    : t.len > 8 && claw_str_ieq((struct claw_str){t.ptr, 8}, CLAW_STR("https://")) ? 8
                                                                                                  : 0;
    if (!scheme) return bad(p, "the request target is neither a path nor an http URL");
    size_t end = scheme;
    while (end < t.len && t.ptr[end] != '/' && t.ptr[end] != '?') end++;
    p->head->host = (struct claw_str){t.ptr + scheme, end - scheme};
    if (!claw_h1_is_host(p->head->host)) return bad(p, "an invalid host in the request target");
    struct claw_str rest = {t.ptr + end, t.len - end};
    if (rest.len == 0) {
        rest = CLAW_STR("/");
    } else if (rest.ptr[0] == '?') {
        char *with = claw_arena_alloc(p->arena, rest.len + 1);
        if (!with) return claw_h1_fail(p, CLAW_EREQ_MEM, "the head needs more memory than the request may have");
        with[0] = '/';
        memcpy(with + 1, rest.ptr, rest.len);
        rest = (struct claw_str){with, rest.len + 1};
    }
    p->head->target = rest;
    return 0;
}

static bool is_target(struct claw_str s)
{
    size_t i = 0;
#ifdef __SSE2__
    for (; i + 16 <= s.len; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(s.ptr + i));
        __m128i fine = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8(0x20)), _mm_cmplt_epi8(v, _mm_set1_epi8(0x7f)));
        if (_mm_movemask_epi8(_mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('#')), fine)) != 0xffff) return false;
    }
#endif
    for (; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '#') return false;
    }
    return true;
}

static int read_target(struct claw_h1 *p)
{
    struct claw_head *h = p->head;
    if (h->target.len > p->limits->target_bytes)
        return claw_h1_fail(p, CLAW_ETARGET_TOO_LONG, claw_err_text(CLAW_ETARGET_TOO_LONG));
    if (!is_target(h->target)) return bad(p, "a character in the request target that must be escaped");
    int rc = h->target.len && h->target.ptr[0] == '/' ? 0 : reduce_absolute(p);
    if (rc) return rc;
    const char *end = h->target.ptr + h->target.len, *mark = find_near(h->target.ptr, end, '?');
    h->path = h->target;
    if (mark < end) {
        h->path.len = (size_t)(mark - h->target.ptr);
        h->query = (struct claw_str){mark + 1, h->target.len - h->path.len - 1};
    }
    return 0;
}

static bool is_served(const llhttp_t *ll)
{
    switch (ll->method) {
    case HTTP_GET:
    case HTTP_HEAD:
    case HTTP_POST:
    case HTTP_PUT:
    case HTTP_PATCH:
    case HTTP_DELETE:
    case HTTP_OPTIONS:
        return true;
    default:
        return false;
    }
}

static int read_request_line(struct claw_h1 *p, struct claw_str line)
{
    struct claw_head *h = p->head;
    const char *end = line.ptr + line.len;
    const char *raw_end = p->raw + p->raw_len; /* further than needed: found 16 bytes at a time */
    const char *one = find_near(line.ptr, raw_end, ' '), *two = one < end ? find_near(one + 1, raw_end, ' ') : end;
    if (two >= end) return bad(p, "the request line has no HTTP version");
    h->method = (struct claw_str){line.ptr, (size_t)(one - line.ptr)};
    h->target = (struct claw_str){one + 1, (size_t)(two - one - 1)};
    return claw_h1_read_version(p, (struct claw_str){two + 1, (size_t)(end - two - 1)});
}

static int read_request(struct claw_h1 *p, const struct facts *f)
{
    struct claw_head *h = p->head;
    if (!is_served(&p->ll)) return claw_h1_fail(p, CLAW_EMETHOD, "the method is not served here");
    if (f->hosts > 1) return bad(p, "more than one Host");
    if (f->hosts == 0 && h->minor == 1) return bad(p, "Host is missing");
    if (f->hosts && !claw_h1_is_host(f->host)) return bad(p, "an invalid Host");
    h->host = f->host;
    int rc = read_target(p);
    if (!rc) rc = read_framing(p, f);
    if (rc) return rc;
    if (f->expect_other) return claw_h1_fail(p, CLAW_EEXPECT, "an expectation other than 100-continue");
    /* HTTP/1.0 knows no 100 (RFC 9110 10.1.1), and without a body there is nothing to wait for. */
    h->expect_continue = f->expect && h->minor == 1 && (h->chunked || h->content_length > 0);
    p->state = h->chunked ? CLAW_H1_CHUNKED : h->content_length > 0 ? CLAW_H1_SIZED : CLAW_H1_EMPTY;
    return 0;
}

static int read_status_line(struct claw_h1 *p, struct claw_str line)
{
    if (line.len < 12 || line.ptr[8] != ' ' || (line.len > 12 && line.ptr[12] != ' '))
        return bad(p, "an invalid status line");
    int rc = claw_h1_read_version(p, (struct claw_str){line.ptr, 8});
    if (rc) return rc;
    uint64_t status;
    if (read_length((struct claw_str){line.ptr + 9, 3}, &status) != 0 || status < 100 || status > 599)
        return bad(p, "an invalid status");
    p->head->status = (int)status;
    return 0;
}

static int read_response(struct claw_h1 *p, const struct facts *f)
{
    struct claw_head *h = p->head;
    int rc = read_framing(p, f);
    if (rc) return rc;
    if (h->status == 101) return bad(p, "101 without having been asked to switch protocols");
    if (p->no_body || h->status < 200 || h->status == 204 || h->status == 304) p->state = CLAW_H1_EMPTY;
    else if (h->chunked) p->state = CLAW_H1_CHUNKED;
    else if (h->content_length >= 0) p->state = h->content_length ? CLAW_H1_SIZED : CLAW_H1_EMPTY;
    else p->state = CLAW_H1_TO_CLOSE;
    h->until_close = p->state == CLAW_H1_TO_CLOSE;
    if (h->until_close) h->keep_alive = false;
    return 0;
}

int claw_h1_read_head(struct claw_h1 *p, bool agreed, struct claw_h1_marks *m)
{
    struct facts f = {0};
    struct claw_str line = {p->raw, m->at[0].eol};
    bool request = p->kind == CLAW_H1_REQUEST;
    int rc = request ? read_request_line(p, line) : read_status_line(p, line);
    if (rc) return rc;
    if (!agreed) return bad(p, "the end of the head is ambiguous");
    rc = cut_fields(p, &f, m);
    if (!rc) rc = request ? read_request(p, &f) : read_response(p, &f);
    if (rc) return rc;
    if (p->state == CLAW_H1_SIZED) {
        p->left = p->head->content_length;
        if (p->limits->body_bytes >= 0 && p->left > p->limits->body_bytes)
            return claw_h1_fail(p, CLAW_EBODY_TOO_LARGE, "the body is larger than allowed");
    }
    return 0;
}

/* How `c` (in lower case) is spelled at `at`: in 1 byte, in 3, or not (0). */
static size_t spelled(struct claw_str s, size_t at, char c)
{
    static const char hex[] = "0123456789abcdef";
    if (at >= s.len) return 0;
    if (s.ptr[at] == c) return 1;
    return s.len - at >= 3 && s.ptr[at] == '%' && s.ptr[at + 1] == hex[c >> 4] && (s.ptr[at + 2] | 0x20) == hex[c & 15] ? 3 : 0;
}

/* The end of a segment, for whoever reads paths most freely: as it is, encoded, `\`, or with parameters behind it. 0: none. */
static size_t segment_ends(struct claw_str s, size_t at)
{
    size_t n = spelled(s, at, '/');
    if (!n) n = spelled(s, at, '\\');
    return n ? n : spelled(s, at, ';');
}

bool claw_h1_next_parameter(struct claw_str *query, struct claw_h1_parameter *out)
{
    if (query->len == 0) return false;
    const char *amp = memchr(query->ptr, '&', query->len);
    struct claw_str whole = {query->ptr, amp ? (size_t)(amp - query->ptr) : query->len};
    const char *eq = memchr(whole.ptr, '=', whole.len);
    size_t name = eq ? (size_t)(eq - whole.ptr) : whole.len, from = name + (eq != NULL);
    *out = (struct claw_h1_parameter){whole, {whole.ptr, name}, {whole.ptr + from, whole.len - from}};
    query->ptr += whole.len + (amp != NULL);
    query->len -= whole.len + (amp != NULL);
    return true;
}

bool claw_h1_has_dots(struct claw_str path)
{
    const char *mark = memchr(path.ptr ? path.ptr : "", '?', path.len);
    if (mark) path.len = (size_t)(mark - path.ptr);
    if (path.len == 0 || (!memchr(path.ptr, '.', path.len) && !memchr(path.ptr, '%', path.len))) return false;
    for (size_t at = 0, n; at < path.len;) {
        size_t dots = 0;
        for (; dots < 3 && (n = spelled(path, at, '.')) != 0; at += n) dots++;
        if ((dots == 1 || dots == 2) && (at == path.len || segment_ends(path, at))) return true;
        while (at < path.len && !(n = segment_ends(path, at))) at++;
        if (at < path.len) at += n;
    }
    return false;
}
