/* What the bytes that come next are:
 *
 *   PREAMBLE --LF--boundary--> LINE --CRLF--> HEAD --empty line--> CONTENT --CRLF--boundary--> LINE …
 *                               \--"--"--> LAST --CRLF--> EPILOGUE
 *
 * A delimiter is looked for from its LF on: no other byte of it is one, so after a mismatch it can only begin anew. The byte
 * before that LF has to be a CR.
 */
#include "http/multipart.h"

#include "http/h1.h"

#include <strings.h>

enum { PREAMBLE, LINE, LINE_DASH, LINE_PADDING, LINE_CR, HEAD, CONTENT, LAST, LAST_CR, EPILOGUE };

static int bad(struct claw_multipart *m, const char *why)
{
    m->error = why;
    return CLAW_EBAD_REQUEST;
}

/* ---- parameters ------------------------------------------------------------------------------------------------------ */

struct parameter { struct claw_str name, value; };

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static char *skip_blank(char *at, const char *end)
{
    while (at < end && is_blank(*at)) at++;
    return at;
}

/* A quoted value loses its escapes in its place; NULL: it has no end. */
static char *read_quoted(char *at, const char *end, struct claw_str *out)
{
    char *start = ++at, *to = start;
    while (at < end && *at != '"') {
        if (*at == '\\' && at + 1 < end) at++;
        *to++ = *at++;
    }
    *out = (struct claw_str){start, (size_t)(to - start)};
    return at < end ? at + 1 : NULL;
}

static char *read_bare(char *at, const char *end, struct claw_str *out)
{
    char *start = at;
    while (at < end && *at != ';' && *at != '"' && !is_blank(*at)) at++;
    *out = (struct claw_str){start, (size_t)(at - start)};
    return at > start ? at : NULL;
}

/* The next of ";name=value" (RFC 9110 5.6.6). 1; 0: there is none; < 0: malformed. */
static int next_parameter(char **rest, const char *end, struct parameter *out)
{
    char *at = skip_blank(*rest, end);
    if (at == end) return 0;
    if (*at != ';') return -1;
    char *name = skip_blank(at + 1, end);
    if (name == end) return 0;
    at = memchr(name, '=', (size_t)(end - name));
    if (!at) return -1;
    out->name = (struct claw_str){name, (size_t)(at - name)};
    if (!claw_h1_is_token(out->name) || ++at == end) return -1;
    *rest = *at == '"' ? read_quoted(at, end, &out->value) : read_bare(at, end, &out->value);
    return *rest ? 1 : -1;
}

/* Does the value begin with this word, alone or before parameters? */
static bool leads(struct claw_str s, const char *word)
{
    const char *semicolon = s.len ? memchr(s.ptr, ';', s.len) : NULL;
    if (semicolon) s.len = (size_t)(semicolon - s.ptr);
    return claw_str_ieq(claw_str_trim(s), claw_str_of(word));
}

bool claw_multipart_is(struct claw_str content_type) { return leads(content_type, "multipart/form-data"); }

/* ---- the boundary ---------------------------------------------------------------------------------------------------- */

static bool is_boundary(struct claw_str s)
{
    if (s.len == 0 || s.len > CLAW_MULTIPART_BOUNDARY_BYTES || s.ptr[s.len - 1] == ' ') return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!plain && (!c || !strchr("'()+_,-./:=? ", c))) return false;
    }
    return true;
}

int claw_multipart_init(struct claw_multipart *m, struct claw_str content_type)
{
    struct parameter one;
    struct claw_str boundary = CLAW_STR("");
    int more;
    *m = (struct claw_multipart){.state = PREAMBLE, .matched = 1, .after_cr = true}; /* a body may begin with its first boundary */
    claw_buf_init(&m->head, CLAW_MULTIPART_HEAD_BYTES);
    if (content_type.len > CLAW_MULTIPART_HEAD_BYTES) return bad(m, "the Content-Type is too long");
    if (claw_buf_add_str(&m->head, content_type) != 0) return CLAW_ENOMEM;
    char *at = content_type.len ? memchr(m->head.data, ';', m->head.len) : NULL;
    if (!at) return bad(m, "the Content-Type has no boundary");
    char *end = m->head.data + m->head.len;
    while ((more = next_parameter(&at, end, &one)) > 0) {
        if (!claw_str_ieq(one.name, CLAW_STR("boundary"))) continue;
        if (boundary.len) return bad(m, "the Content-Type has two boundaries");
        if (!is_boundary(one.value)) return bad(m, "the Content-Type's boundary is not valid");
        boundary = one.value;
    }
    if (more < 0) return bad(m, "the Content-Type is malformed");
    if (boundary.len == 0) return bad(m, "the Content-Type has no boundary");
    memcpy(m->delimiter, "\n--", 3);
    memcpy(m->delimiter + 3, boundary.ptr, boundary.len);
    m->delimiter_n = 3 + (unsigned)boundary.len;
    claw_buf_clear(&m->head);
    return 0;
}

void claw_multipart_fini(struct claw_multipart *m) { claw_buf_fini(&m->head); }

/* ---- a part's head --------------------------------------------------------------------------------------------------- */

static int read_disposition(struct claw_multipart *m, char *at, char *end)
{
    struct parameter one;
    int more;
    if (m->name.ptr) return bad(m, "a part has two Content-Dispositions");
    if (!leads((struct claw_str){at, (size_t)(end - at)}, "form-data")) return bad(m, "a part's Content-Disposition is not form-data");
    at = memchr(at, ';', (size_t)(end - at));
    if (!at) return bad(m, "a part has no name");
    while ((more = next_parameter(&at, end, &one)) > 0) {
        if (claw_str_ieq(one.name, CLAW_STR("name"))) {
            if (m->name.ptr) return bad(m, "a part has two names");
            m->name = one.value;
        } else if (one.name.len > 5 && strncasecmp(one.name.ptr, "name*", 5) == 0) {
            return bad(m, "a part's name is encoded");
        } else if (one.name.len >= 8 && strncasecmp(one.name.ptr, "filename", 8) == 0) {
            m->file = true;
        }
    }
    if (more < 0) return bad(m, "a part's Content-Disposition is malformed");
    return m->name.ptr ? 0 : bad(m, "a part has no name");
}

static int read_line(struct claw_multipart *m, char *at, char *end)
{
    char *colon = memchr(at, ':', (size_t)(end - at));
    if (!colon) return bad(m, "a part's head has a line without a colon");
    struct claw_str name = {at, (size_t)(colon - at)}, value = claw_str_trim((struct claw_str){colon + 1, (size_t)(end - colon) - 1});
    if (!claw_h1_is_token(name) || !claw_h1_is_value(value)) return bad(m, "a part's head has a malformed line");
    if (claw_str_ieq(name, CLAW_STR("content-disposition"))) return read_disposition(m, colon + 1, end);
    if (claw_str_ieq(name, CLAW_STR("content-transfer-encoding")))
        m->encoded |= !claw_str_ieq(value, CLAW_STR("7bit")) && !claw_str_ieq(value, CLAW_STR("8bit")) && !claw_str_ieq(value, CLAW_STR("binary"));
    return 0;
}

/* All of it lies in `head`, each line with its CRLF. */
static int read_head(struct claw_multipart *m)
{
    char *at = m->head.data, *end = m->head.data + m->head.len - 2;
    m->name = (struct claw_str){NULL, 0};
    m->file = m->encoded = false;
    for (int rc; at < end; ) {
        char *lf = memchr(at, '\n', (size_t)(end - at));
        if ((rc = read_line(m, at, lf - 1)) != 0) return rc;
        at = lf + 1;
    }
    return m->name.ptr ? 0 : bad(m, "a part has no Content-Disposition");
}

/* A line of it, or what is there of one. */
static int take_head(struct claw_multipart *m, const char *data, size_t n, size_t *i)
{
    const char *lf = memchr(data + *i, '\n', n - *i);
    size_t some = (size_t)((lf ? lf + 1 : data + n) - (data + *i)), had = claw_buf_size(&m->head);
    if (some > CLAW_MULTIPART_HEAD_BYTES - had) return bad(m, "a part's head is too long");
    if (claw_buf_add(&m->head, data + *i, some) != 0) return CLAW_ENOMEM;
    *i += some;
    if (!lf) return 0;
    struct claw_str head = claw_buf_str(&m->head);
    if (head.len < 2 || head.ptr[head.len - 2] != '\r') return bad(m, "a line of a part's head ends with a bare LF");
    if (head.len > 2 && head.ptr[head.len - 3] != '\n') return 0;
    int rc = read_head(m);
    if (rc != 0) return rc;
    m->state = CONTENT;
    m->at = m->seen + *i;
    m->value_n = 0;
    m->matched = 1; /* the empty line's LF is no delimiter's, but is seen when it is one */
    m->after_cr = true;
    return 0;
}

/* ---- what is between boundaries -------------------------------------------------------------------------------------- */

/* Go on to behind the next delimiter; false: there is none in what is left. */
static bool find_delimiter(struct claw_multipart *m, const char *data, size_t n, size_t *i)
{
    while (*i < n) {
        if (m->matched == 0) {
            const char *lf = memchr(data + *i, '\n', n - *i);
            if (!lf) {
                m->cr = data[n - 1] == '\r';
                *i = n;
                return false;
            }
            if (lf > data + *i) m->cr = lf[-1] == '\r';
            m->after_cr = m->cr;
            m->cr = false;
            m->matched = 1;
            *i = (size_t)(lf - data) + 1;
        } else if (data[*i] == m->delimiter[m->matched]) {
            ++*i;
            if (++m->matched == m->delimiter_n) {
                m->matched = 0;
                return true;
            }
        } else {
            m->matched = 0;
            m->cr = false;
        }
    }
    return false;
}

static int end_part(struct claw_multipart *m, uint64_t end, claw_multipart_fn on_part, void *arg)
{
    if (end < m->at) return bad(m, "a part has no content behind its empty line");
    if (++m->parts > CLAW_MULTIPART_PARTS) return bad(m, "the form has too many parts");
    struct claw_multipart_part part = {.name = m->name, .file = m->file, .encoded = m->encoded, .at = m->at, .bytes = end - m->at};
    part.value = (struct claw_str){m->value, part.bytes < m->value_n ? (size_t)part.bytes : m->value_n};
    return on_part(arg, &part);
}

static int take_content(struct claw_multipart *m, const char *data, size_t n, size_t *i, claw_multipart_fn on_part, void *arg)
{
    size_t from = *i;
    bool found = find_delimiter(m, data, n, i);
    if (m->state == CONTENT && !m->file && m->value_n < CLAW_MULTIPART_VALUE_BYTES) { /* the delimiter too: its end cuts it off */
        size_t room = CLAW_MULTIPART_VALUE_BYTES - m->value_n, some = *i - from < room ? *i - from : room;
        memcpy(m->value + m->value_n, data + from, some);
        m->value_n += (unsigned)some;
    }
    if (m->state == PREAMBLE && m->seen + *i > CLAW_MULTIPART_HEAD_BYTES + m->delimiter_n) return bad(m, "the body does not begin with its boundary");
    if (!found) return 0;
    if (!m->after_cr) return bad(m, "a boundary follows a bare LF");
    if (m->state == EPILOGUE) return bad(m, "a boundary follows the last one");
    int rc = m->state == CONTENT ? end_part(m, m->seen + *i - m->delimiter_n - 1, on_part, arg) : 0;
    m->state = LINE;
    return rc;
}

/* The rest of a boundary's line. */
static int take_line(struct claw_multipart *m, char c)
{
    switch (m->state) {
    case LINE:
    case LINE_PADDING:
        if (c == '\r') m->state = LINE_CR;
        else if (is_blank(c)) m->state = LINE_PADDING;
        else if (c == '-' && m->state == LINE) m->state = LINE_DASH;
        else return bad(m, "something follows a boundary in its line");
        return 0;
    case LINE_DASH:
        if (c != '-') return bad(m, "something follows a boundary in its line");
        m->state = LAST;
        return 0;
    case LINE_CR:
        if (c != '\n') return bad(m, "a boundary's line ends with a bare CR");
        m->state = HEAD;
        claw_buf_clear(&m->head);
        return 0;
    case LAST:
        if (c == '\r') m->state = LAST_CR;
        else if (!is_blank(c)) return bad(m, "something follows the last boundary in its line");
        return 0;
    default:
        if (c != '\n') return bad(m, "the last boundary's line ends with a bare CR");
        m->state = EPILOGUE;
        m->matched = 1;
        m->after_cr = true;
        return 0;
    }
}

int claw_multipart_feed(struct claw_multipart *m, const char *data, size_t n, claw_multipart_fn on_part, void *arg)
{
    int rc = m->error ? CLAW_EBAD_REQUEST : 0;
    for (size_t i = 0; i < n && rc == 0;) {
        if (m->state == HEAD) rc = take_head(m, data, n, &i);
        else if (m->state == PREAMBLE || m->state == CONTENT || m->state == EPILOGUE) rc = take_content(m, data, n, &i, on_part, arg);
        else rc = take_line(m, data[i++]);
    }
    m->seen += n;
    return rc;
}

bool claw_multipart_complete(const struct claw_multipart *m) { return !m->error && m->state >= LAST; }

const char *claw_multipart_error(const struct claw_multipart *m) { return m->error ? m->error : ""; }
