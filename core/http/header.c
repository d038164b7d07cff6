/* header: names the proxy knows, looking them up, and what may be written into a head. */
#include "http/h1_part.h"

#include <arpa/inet.h>

enum { TOKEN = 1, HOST = 2 };

/* RFC 9110 5.6.2 (tchar); RFC 3986 3.2.2 (reg-name) without the comma, which joins repeated fields. */
static const uint8_t kinds[256] = {
    ['0' ... '9'] = TOKEN | HOST, ['a' ... 'z'] = TOKEN | HOST, ['A' ... 'Z'] = TOKEN | HOST,
    ['-'] = TOKEN | HOST, ['.'] = TOKEN | HOST, ['_'] = TOKEN | HOST, ['~'] = TOKEN | HOST,
    ['!'] = TOKEN | HOST, ['$'] = TOKEN | HOST, ['&'] = TOKEN | HOST, ['\''] = TOKEN | HOST,
    ['*'] = TOKEN | HOST, ['+'] = TOKEN | HOST, ['#'] = TOKEN, ['%'] = TOKEN, ['^'] = TOKEN,
    ['`'] = TOKEN, ['|'] = TOKEN, ['('] = HOST, [')'] = HOST, [';'] = HOST, ['='] = HOST,
};

static const struct claw_str names[CLAW_H_COUNT] = {
#define NAME(id, name) [CLAW_H_##id] = {name, sizeof(name) - 1},
    CLAW_HEADER_MAP(NAME)
#undef NAME
};

/* Length and first letter leave one candidate each; x-api-key and x-real-ip differ in the third. */
enum { LONGEST = 19 };
#define KEY(len, c) ((len) * 32 + ((c) & 31))
static const uint8_t candidates[(LONGEST + 1) * 32] = {
    [KEY(2, 't')] = CLAW_H_TE, [KEY(4, 'h')] = CLAW_H_HOST, [KEY(4, 'd')] = CLAW_H_DATE,
    [KEY(6, 'c')] = CLAW_H_COOKIE, [KEY(6, 'e')] = CLAW_H_EXPECT, [KEY(7, 't')] = CLAW_H_TRAILER,
    [KEY(7, 'u')] = CLAW_H_UPGRADE, [KEY(7, 'a')] = CLAW_H_API_KEY, [KEY(9, 'f')] = CLAW_H_FORWARDED,
    [KEY(9, 'x')] = CLAW_H_X_API_KEY, [KEY(10, 'c')] = CLAW_H_CONNECTION, [KEY(10, 'k')] = CLAW_H_KEEP_ALIVE,
    [KEY(10, 's')] = CLAW_H_SET_COOKIE, [KEY(10, 't')] = CLAW_H_TRACESTATE, [KEY(11, 'r')] = CLAW_H_RETRY_AFTER, [KEY(11, 't')] = CLAW_H_TRACEPARENT,
    [KEY(12, 'c')] = CLAW_H_CONTENT_TYPE, [KEY(13, 'a')] = CLAW_H_AUTHORIZATION,
    [KEY(14, 'c')] = CLAW_H_CONTENT_LENGTH, [KEY(14, 'r')] = CLAW_H_RETRY_AFTER_MS,
    [KEY(14, 'x')] = CLAW_H_X_GOOG_API_KEY, [KEY(15, 'a')] = CLAW_H_ACCEPT_ENCODING,
    [KEY(15, 'x')] = CLAW_H_X_FORWARDED_FOR, [KEY(16, 'c')] = CLAW_H_CONTENT_ENCODING,
    [KEY(16, 'p')] = CLAW_H_PROXY_CONNECTION, [KEY(16, 'x')] = CLAW_H_X_FORWARDED_HOST,
    [KEY(17, 't')] = CLAW_H_TRANSFER_ENCODING, [KEY(17, 'x')] = CLAW_H_X_FORWARDED_PROTO,
    [KEY(18, 'p')] = CLAW_H_PROXY_AUTHENTICATE, [KEY(19, 'p')] = CLAW_H_PROXY_AUTHORIZATION,
};

enum claw_header_id claw_header_id_of(struct claw_str name)
{
    if (name.len < 2 || name.len > LONGEST) return CLAW_H_OTHER;
    enum claw_header_id id = candidates[KEY(name.len, (unsigned char)name.ptr[0])];
    if (id == CLAW_H_OTHER) return id;
    if (id == CLAW_H_X_API_KEY && (name.ptr[2] | 0x20) == 'r') id = CLAW_H_X_REAL_IP;
    return is_same(name.ptr, names[id].ptr, name.len) ? id : CLAW_H_OTHER;
}

const struct claw_header *claw_head_find(const struct claw_head *h, enum claw_header_id id)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->headers[i].id == id) return &h->headers[i];
    return NULL;
}

const struct claw_header *claw_head_find_name(const struct claw_head *h, struct claw_str name)
{
    for (size_t i = 0; i < h->n; i++)
        if (claw_str_ieq(h->headers[i].name, name)) return &h->headers[i];
    return NULL;
}

bool claw_h1_has_token(struct claw_str list, struct claw_str token)
{
    while (list.len) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t n = comma ? (size_t)(comma - list.ptr) : list.len;
        if (claw_str_ieq(claw_str_trim((struct claw_str){list.ptr, n}), token)) return true;
        if (!comma) break;
        list = (struct claw_str){comma + 1, list.len - n - 1};
    }
    return false;
}

#define BIT(id) (UINT64_C(1) << CLAW_H_##id)
_Static_assert(CLAW_H_COUNT <= 64, "a header's id is a bit of a word");

/* By this head's Connection. */
static __attribute__((noinline)) bool is_named(const struct claw_head *h, struct claw_str name)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->headers[i].id == CLAW_H_CONNECTION && claw_h1_has_token(h->headers[i].value, name)) return true;
    return false;
}

bool claw_head_hop(const struct claw_head *h, const struct claw_header *one)
{
    static const uint64_t always = BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) | BIT(PROXY_AUTHENTICATE) |
                                   BIT(PROXY_AUTHORIZATION) | BIT(TE) | BIT(TRANSFER_ENCODING) | BIT(UPGRADE) |
                                   BIT(TRAILER); /* trailers are dropped, so nothing may announce them */
    if (always >> one->id & 1) return true;
    /* "close" might be the name of a field too. */
    return h->plain_connection && one->name.len != 5 ? false : is_named(h, one->name);
}

bool claw_h1_is_token(struct claw_str s)
{
    const unsigned char *at = (const unsigned char *)s.ptr;
    size_t n = s.len;
    unsigned all = TOKEN;
    for (; n >= 4; n -= 4, at += 4) all &= kinds[at[0]] & kinds[at[1]] & kinds[at[2]] & kinds[at[3]];
    for (; n; n--, at++) all &= kinds[*at];
    return s.len > 0 && all;
}

bool claw_h1_is_value(struct claw_str s)
{
    return s.len == 0 || plain_end(s.ptr, s.ptr + s.len) == s.ptr + s.len;
}

static bool is_port(struct claw_str s)
{
    unsigned port = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.ptr[i] - '0';
        if (digit > 9 || (port = port * 10 + digit) > 65535) return false;
    }
    return true;
}

static bool is_ipv6(struct claw_str s)
{
    char z[INET6_ADDRSTRLEN];
    unsigned char bytes[16];
    if (s.len == 0 || s.len >= sizeof z || memchr(s.ptr, 0, s.len)) return false;
    memcpy(z, s.ptr, s.len);
    z[s.len] = 0;
    return inet_pton(AF_INET6, z, bytes) == 1;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

bool claw_h1_is_host(struct claw_str s)
{
    size_t i = 0;
    if (s.len && s.ptr[0] == '[') {
        const char *end = memchr(s.ptr, ']', s.len);
        if (!end) return false;
        i = (size_t)(end - s.ptr);
        if (!is_ipv6((struct claw_str){s.ptr + 1, i - 1})) return false;
        i++;
    } else {
        for (;;) {
            const unsigned char *at = (const unsigned char *)s.ptr;
            for (; i + 4 <= s.len; i += 4)
                if (!(kinds[at[i]] & kinds[at[i + 1]] & kinds[at[i + 2]] & kinds[at[i + 3]] & HOST)) break;
            while (i < s.len && kinds[at[i]] & HOST) i++;
            if (i == s.len || s.ptr[i] != '%') break;
            if (i + 2 >= s.len || !is_hex(s.ptr[i + 1]) || !is_hex(s.ptr[i + 2])) return false;
            i += 3;
        }
    }
    if (i == 0) return false;
    if (i == s.len) return true;
    return s.ptr[i] == ':' && is_port((struct claw_str){s.ptr + i + 1, s.len - i - 1});
}

const char *claw_h1_reason(int status)
{
    switch (status) {
case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 102: return "Processing";
    case 103: return "Early Hints";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 203: return "Non-Authoritative Information";
    case 204: return "No Content";
    case 205: return "Reset Content";
    case 206: return "Partial Content";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 407: return "Proxy Authentication Required";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 423: return "Locked";
    case 424: return "Failed Dependency";
    case 425: return "Too Early";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 451: return "Unavailable For Legal Reasons";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    case 508: return "Loop Detected";
    case 511: return "Network Authentication Required";
    default: return "";
    }
}

size_t claw_h1_chunk_line(char *to, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char back[2 * sizeof n];
    size_t len = 0, at = 0;
    do back[len++] = digits[n & 15];
    while (n >>= 4);
    while (len) to[at++] = back[--len];
    to[at++] = '\r';
    to[at++] = '\n';
    return at;
}
