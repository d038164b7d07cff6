#include "proxy/sigv4.h"

#include <mbedtls/md.h>
#include <stdlib.h>
#include <time.h>

#define SHA256 32

static const mbedtls_md_info_t *sha256(void) { return mbedtls_md_info_from_type(MBEDTLS_MD_SHA256); }

static void hex(const unsigned char *from, char *to)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < SHA256; i++) {
        *to++ = digits[from[i] >> 4];
        *to++ = digits[from[i] & 15];
    }
    *to = 0;
}

static int mac(const unsigned char *key, size_t key_n, struct claw_str text, unsigned char to[SHA256])
{
    return mbedtls_md_hmac(sha256(), key, key_n, (const unsigned char *)text.ptr, text.len, to) == 0 ? 0 : CLAW_ENOMEM;
}

int claw_sigv4_hash(const uv_buf_t *slices, unsigned n, char to[CLAW_SIGV4_HASH])
{
    mbedtls_md_context_t md;
    unsigned char sum[SHA256];
    mbedtls_md_init(&md);
    int rc = mbedtls_md_setup(&md, sha256(), 0);
    if (rc == 0) rc = mbedtls_md_starts(&md);
    for (unsigned i = 0; i < n && rc == 0; i++) rc = mbedtls_md_update(&md, (const unsigned char *)slices[i].base, slices[i].len);
    if (rc == 0) rc = mbedtls_md_finish(&md, sum);
    mbedtls_md_free(&md);
    if (rc != 0) return CLAW_ENOMEM;
    hex(sum, to);
    return 0;
}

void claw_sigv4_date(int64_t seconds, char to[17])
{
    struct tm tm;
    time_t t = (time_t)seconds;
    gmtime_r(&t, &tm);
    strftime(to, 17, "%Y%m%dT%H%M%SZ", &tm);
}

/* ---- the canonical request ---------------------------------------------------------------------------------- */

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* decode: what is encoded in it already stays encoded once. */
static int add_encoded(struct claw_buf *b, struct claw_str s, bool decode)
{
    int rc = 0;
    for (size_t i = 0; i < s.len && rc == 0; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (decode && c == '%' && i + 2 < s.len && digit_of(s.ptr[i + 1]) >= 0 && digit_of(s.ptr[i + 2]) >= 0) {
            c = (unsigned char)(digit_of(s.ptr[i + 1]) << 4 | digit_of(s.ptr[i + 2]));
            i += 2;
        }
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && memchr("-._~", c, 4));
        rc = plain ? claw_buf_add(b, &c, 1) : claw_buf_add_fmt(b, "%%%02X", c);
    }
    return rc;
}

/* The next piece of `rest` before `mark`; false: there is none. */
static bool next_piece(struct claw_str *rest, char mark, struct claw_str *out)
{
    if (!rest->ptr) return false;
    const char *end = rest->len ? memchr(rest->ptr, mark, rest->len) : NULL;
    out->ptr = rest->ptr;
    out->len = end ? (size_t)(end - rest->ptr) : rest->len;
    *rest = end ? (struct claw_str){end + 1, rest->len - out->len - 1} : (struct claw_str){NULL, 0};
    return true;
}

static int add_path(struct claw_buf *b, struct claw_str path)
{
    struct claw_str rest = path, piece;
    size_t from = claw_buf_size(b);
    bool folder = true; /* ends with a slash */
    int rc = claw_buf_add_z(b, "/");
    while (rc == 0 && next_piece(&rest, '/', &piece)) {
        folder = !piece.len || claw_str_eqz(piece, ".") || claw_str_eqz(piece, "..");
        if (claw_str_eqz(piece, "..")) {
            struct claw_str now = claw_buf_str(b);
            size_t n = now.len > from + 1 ? now.len - 1 : now.len; /* behind it: "/" */
            while (n > from + 1 && now.ptr[n - 1] != '/') n--;
            b->len = b->off + n;
        } else if (!folder) {
            rc = add_encoded(b, piece, false);
            if (rc == 0) rc = claw_buf_add_z(b, "/");
        }
    }
    if (rc == 0 && !folder) b->len--;
    return rc;
}

struct pair { struct claw_str name, value; size_t at; };

static int str_cmp(struct claw_str a, struct claw_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int r = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return r ? r : (a.len > b.len) - (a.len < b.len);
}

static int by_name_and_value(const void *a, const void *b)
{
    const struct pair *p = a, *q = b;
    int r = str_cmp(p->name, q->name);
    return r ? r : str_cmp(p->value, q->value);
}

static int by_name_and_place(const void *a, const void *b)
{
    const struct pair *p = a, *q = b;
    int r = str_cmp(p->name, q->name);
    return r ? r : (p->at > q->at) - (p->at < q->at);
}

static int kept(struct claw_arena *a, struct claw_buf *b, struct claw_str *out)
{
    struct claw_str s = claw_buf_str(b);
    out->ptr = claw_arena_dup(a, s.ptr ? s.ptr : "", s.len);
    out->len = s.len;
    claw_buf_clear(b);
    return out->ptr ? 0 : CLAW_ENOMEM;
}

static int add_query(struct claw_buf *b, struct claw_str query, struct claw_arena *a)
{
    struct claw_str rest = query, one, name;
    struct claw_buf tmp;
    size_t n = 0, most = 1;
    for (size_t i = 0; i < query.len; i++) most += query.ptr[i] == '&';
    struct pair *pairs = claw_arena_alloc(a, most * sizeof *pairs);
    int rc = pairs ? 0 : CLAW_ENOMEM;
    claw_buf_init(&tmp, 0);
    while (rc == 0 && next_piece(&rest, '&', &one)) {
        if (!one.len) continue;
        if (!next_piece(&one, '=', &name)) continue;
        rc = add_encoded(&tmp, name, true);
        if (rc == 0) rc = kept(a, &tmp, &pairs[n].name);
        if (rc == 0) rc = add_encoded(&tmp, one, true);
        if (rc == 0) rc = kept(a, &tmp, &pairs[n++].value);
    }
    claw_buf_fini(&tmp);
    if (rc == 0 && n) qsort(pairs, n, sizeof *pairs, by_name_and_value);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (i) rc = claw_buf_add_z(b, "&");
        if (rc == 0) rc = claw_buf_add_str(b, pairs[i].name);
        if (rc == 0) rc = claw_buf_add_z(b, "=");
        if (rc == 0) rc = claw_buf_add_str(b, pairs[i].value);
    }
    return rc;
}

/* Without blanks around it, and one for each run of them. */
static int add_value(struct claw_buf *b, struct claw_str s)
{
    int rc = 0;
    bool blank = false, any = false;
    for (size_t i = 0; i < s.len && rc == 0; i++) {
        bool is_blank = s.ptr[i] == ' ' || s.ptr[i] == '\t' || s.ptr[i] == '\n';
        if (!is_blank) {
            if (blank && any) rc = claw_buf_add_z(b, " ");
            if (rc == 0) rc = claw_buf_add(b, s.ptr + i, 1);
            any = true;
        }
        blank = is_blank;
    }
    return rc;
}

/* A line each, then an empty one, then the names, which *names is in the end (the arena's). */
static int add_fields(struct claw_buf *b, const struct claw_sigv4_ask *ask, struct claw_arena *a, struct claw_str *names)
{
    struct pair *pairs = claw_arena_alloc(a, (ask->fields_n + 1) * sizeof *pairs);
    struct claw_buf list;
    int rc = pairs ? 0 : CLAW_ENOMEM;
    for (size_t i = 0; i < ask->fields_n && rc == 0; i++) {
        struct claw_str name = ask->fields[i].name;
        char *low = claw_arena_dup(a, name.ptr, name.len);
        for (size_t k = 0; low && k < name.len; k++) low[k] = low[k] >= 'A' && low[k] <= 'Z' ? (char)(low[k] | 0x20) : low[k];
        pairs[i] = (struct pair){{low, name.len}, ask->fields[i].value, i};
        if (!low) rc = CLAW_ENOMEM;
    }
    if (rc == 0) qsort(pairs, ask->fields_n, sizeof *pairs, by_name_and_place);
    claw_buf_init(&list, 0);
    for (size_t i = 0; i < ask->fields_n && rc == 0; i++) {
        bool again = i && claw_str_eq(pairs[i].name, pairs[i - 1].name);
        if (!again && i) rc = claw_buf_add_z(b, "\n");
        if (rc == 0 && !again) rc = claw_buf_add_str(b, pairs[i].name);
        if (rc == 0) rc = claw_buf_add_z(b, again ? "," : ":");
        if (rc == 0) rc = add_value(b, pairs[i].value);
        if (rc == 0 && !again) rc = claw_buf_add_fmt(&list, "%s%.*s", i ? ";" : "", CLAW_STR_FMT(pairs[i].name));
    }
    if (rc == 0) rc = claw_buf_add_z(b, "\n\n");
    if (rc == 0) rc = claw_buf_add_str(b, claw_buf_str(&list));
    if (rc == 0) rc = kept(a, &list, names);
    claw_buf_fini(&list);
    return rc;
}

static int add_request(struct claw_buf *b, const struct claw_sigv4_ask *ask, struct claw_arena *a, struct claw_str *names)
{
    int rc = claw_buf_add_str(b, ask->method);
    if (rc == 0) rc = claw_buf_add_z(b, "\n");
    if (rc == 0) rc = add_path(b, ask->path);
    if (rc == 0) rc = claw_buf_add_z(b, "\n");
    if (rc == 0) rc = add_query(b, ask->query, a);
    if (rc == 0) rc = claw_buf_add_z(b, "\n");
    if (rc == 0) rc = add_fields(b, ask, a, names);
    return rc == 0 ? claw_buf_add_fmt(b, "\n%s", ask->payload) : rc;
}

/* ---- the signature ------------------------------------------------------------------------------------------ */

static int key_of(struct claw_sigv4_day *day, const char *date, const struct claw_conf_aws *aws, const char *service)
{
    if (memcmp(day->date, date, 8) == 0) return 0;
    struct claw_buf b;
    unsigned char key[SHA256];
    claw_buf_init(&b, 0);
    int rc = claw_buf_add_z(&b, "AWS4");
    if (rc == 0) rc = claw_buf_add_str(&b, aws->secret);
    struct claw_str first = claw_buf_str(&b);
    if (rc == 0) rc = mac((const unsigned char *)first.ptr, first.len, (struct claw_str){date, 8}, key);
    if (rc == 0) rc = mac(key, SHA256, aws->region, key);
    if (rc == 0) rc = mac(key, SHA256, claw_str_of(service), key);
    if (rc == 0) rc = mac(key, SHA256, CLAW_STR("aws4_request"), key);
    claw_buf_fini(&b);
    if (rc != 0) return rc;
    memcpy(day->key, key, sizeof key);
    memcpy(day->date, date, 8);
    return 0;
}

int claw_sigv4_sign(const struct claw_sigv4_ask *ask, const struct claw_conf_aws *aws, const char *service, struct claw_sigv4_day *day,
                    struct claw_arena *a, struct claw_str *out)
{
    char date[17], sum[CLAW_SIGV4_HASH], signature[CLAW_SIGV4_HASH];
    unsigned char mark[SHA256];
    struct claw_str names = CLAW_STR("");
    struct claw_buf b;
    claw_buf_init(&b, 0);
    claw_sigv4_date(ask->time, date);
    int rc = key_of(day, date, aws, service);
    if (rc == 0) rc = add_request(&b, ask, a, &names);
    struct claw_str text = claw_buf_str(&b);
    uv_buf_t whole = uv_buf_init((char *)text.ptr, (unsigned)text.len);
    if (rc == 0) rc = claw_sigv4_hash(&whole, 1, sum);
    claw_buf_clear(&b);
    if (rc == 0)
        rc = claw_buf_add_fmt(&b, "AWS4-HMAC-SHA256\n%s\n%.8s/%.*s/%s/aws4_request\n%s", date, date, CLAW_STR_FMT(aws->region), service, sum);
    if (rc == 0) rc = mac(day->key, SHA256, claw_buf_str(&b), mark);
    claw_buf_clear(&b);
    if (rc == 0) {
        hex(mark, signature);
        rc = claw_buf_add_fmt(&b, "AWS4-HMAC-SHA256 Credential=%.*s/%.8s/%.*s/%s/aws4_request, SignedHeaders=%.*s, Signature=%s",
                              CLAW_STR_FMT(aws->id), date, CLAW_STR_FMT(aws->region), service, CLAW_STR_FMT(names), signature);
    }
    if (rc == 0) rc = kept(a, &b, out);
    claw_buf_fini(&b);
    return rc;
}

/* ---- a head ------------------------------------------------------------------------------------------------- */

static bool next_line(struct claw_str *rest, struct claw_str *line)
{
    if (!next_piece(rest, '\n', line) || line->len < 2) return false; /* "\r": the end of the head */
    line->len--;
    return true;
}

static bool is_signed(struct claw_str name)
{
    if (claw_str_ieq(name, CLAW_STR("host")) || claw_str_ieq(name, CLAW_STR("content-type"))) return true;
    return name.len > 6 && strncasecmp(name.ptr, "x-amz-", 6) == 0;
}

int claw_sigv4_head(struct claw_str head, const uv_buf_t *body, unsigned n, int64_t time, const struct claw_conf_aws *aws,
                    const char *service, struct claw_sigv4_day *day, struct claw_arena *a, struct claw_str *out)
{
    struct claw_str rest = head, line, name, value, target = CLAW_STR("");
    struct claw_sigv4_ask ask = {.time = time};
    char date[17], payload[CLAW_SIGV4_HASH];
    size_t most = 3;
    struct claw_buf b;
    claw_sigv4_date(time, date);
    for (size_t i = 0; i < head.len; i++) most += head.ptr[i] == '\n';
    struct claw_conf_header *fields = claw_arena_alloc(a, most * sizeof *fields);
    int rc = fields ? claw_sigv4_hash(body, n, payload) : CLAW_ENOMEM;
    if (rc != 0) return rc;
    claw_buf_init(&b, 0);
    if (!next_line(&rest, &line)) line = CLAW_STR("");
    rc = claw_buf_add_str(&b, line);
    if (rc == 0) rc = claw_buf_add_z(&b, "\r\n");
    if (next_piece(&line, ' ', &ask.method)) (void)next_piece(&line, ' ', &target);
    if (!next_piece(&target, '?', &ask.path)) ask.path = CLAW_STR("");
    ask.query = target;
    while (rc == 0 && next_line(&rest, &line)) {
        struct claw_str whole = line;
        if (!next_piece(&line, ':', &name)) continue;
        value = claw_str_trim(line);
        if (claw_str_ieq(name, CLAW_STR("authorization"))) {
            claw_buf_fini(&b);
            *out = head;
            return 0;
        }
        if (claw_str_ieq(name, CLAW_STR("x-amz-date")) || claw_str_ieq(name, CLAW_STR("x-amz-security-token"))) continue;
        if (is_signed(name)) fields[ask.fields_n++] = (struct claw_conf_header){name, value};
        rc = claw_buf_add_str(&b, whole);
        if (rc == 0) rc = claw_buf_add_z(&b, "\r\n");
    }
    fields[ask.fields_n++] = (struct claw_conf_header){CLAW_STR("x-amz-date"), {date, 16}};
    if (aws->token.len) fields[ask.fields_n++] = (struct claw_conf_header){CLAW_STR("x-amz-security-token"), aws->token};
    ask.fields = fields;
    ask.payload = payload;
    struct claw_str authorization = CLAW_STR("");
    if (rc == 0) rc = claw_sigv4_sign(&ask, aws, service, day, a, &authorization);
    if (rc == 0) rc = claw_buf_add_fmt(&b, "x-amz-date: %s\r\n", date);
    if (rc == 0 && aws->token.len) rc = claw_buf_add_fmt(&b, "x-amz-security-token: %.*s\r\n", CLAW_STR_FMT(aws->token));
    if (rc == 0) rc = claw_buf_add_fmt(&b, "authorization: %.*s\r\n\r\n", CLAW_STR_FMT(authorization));
    if (rc == 0) rc = kept(a, &b, out);
    claw_buf_fini(&b);
    return rc;
}
