/* header: names the proxy knows, looking them up, and what may be written into a head. */
#include "http/h1.h"

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

#define KEY(len, c) ((unsigned)(len) << 8 | (unsigned)(c))

/* Length and first letter leave one candidate each; x-api-key and x-real-ip differ in the third. */
static enum claw_header_id candidate(struct claw_str n)
{
    switch (KEY(n.len, (unsigned char)n.ptr[0] | 0x20)) {
    case KEY(2, 't'): return CLAW_H_TE;
    case KEY(4, 'h'): return CLAW_H_HOST;
    case KEY(4, 'd'): return CLAW_H_DATE;
    case KEY(6, 'c'): return CLAW_H_COOKIE;
    case KEY(6, 'e'): return CLAW_H_EXPECT;
    case KEY(7, 't'): return CLAW_H_TRAILER;
    case KEY(7, 'u'): return CLAW_H_UPGRADE;
    case KEY(7, 'a'): return CLAW_H_API_KEY;
    case KEY(9, 'f'): return CLAW_H_FORWARDED;
    case KEY(9, 'x'): return (n.ptr[2] | 0x20) == 'a' ? CLAW_H_X_API_KEY : CLAW_H_X_REAL_IP;
    case KEY(10, 'c'): return CLAW_H_CONNECTION;
    case KEY(10, 'k'): return CLAW_H_KEEP_ALIVE;
    case KEY(10, 's'): return CLAW_H_SET_COOKIE;
    case KEY(11, 'r'): return CLAW_H_RETRY_AFTER;
    case KEY(11, 't'): return CLAW_H_TRACEPARENT;
    case KEY(12, 'c'): return CLAW_H_CONTENT_TYPE;
    case KEY(13, 'a'): return CLAW_H_AUTHORIZATION;
    case KEY(14, 'c'): return CLAW_H_CONTENT_LENGTH;
    case KEY(14, 'r'): return CLAW_H_RETRY_AFTER_MS;
    case KEY(14, 'x'): return CLAW_H_X_GOOG_API_KEY;
    case KEY(15, 'a'): return CLAW_H_ACCEPT_ENCODING;
    case KEY(15, 'x'): return CLAW_H_X_FORWARDED_FOR;
    case KEY(16, 'c'): return CLAW_H_CONTENT_ENCODING;
    case KEY(16, 'p'): return CLAW_H_PROXY_CONNECTION;
    case KEY(16, 'x'): return CLAW_H_X_FORWARDED_HOST;
    case KEY(17, 't'): return CLAW_H_TRANSFER_ENCODING;
    case KEY(17, 'x'): return CLAW_H_X_FORWARDED_PROTO;
    case KEY(18, 'p'): return CLAW_H_PROXY_AUTHENTICATE;
    case KEY(19, 'p'): return CLAW_H_PROXY_AUTHORIZATION;
    default: return CLAW_H_OTHER;
    }
}

/* Do eight bytes differ in more than the case of letters? `name` is lower case: bit 6 tells its letters from '-'. */
static uint64_t differ(const char *any, const char *name, size_t n)
{
    uint64_t a = 0, b = 0;
    if (n == 8) memcpy(&a, any, 8), memcpy(&b, name, 8);
    else if (n == 4) memcpy(&a, any, 4), memcpy(&b, name, 4);
    else memcpy(&a, any, 2), memcpy(&b, name, 2);
    return (a ^ b) & ~((b & 0x4040404040404040u) >> 1);
}

static bool same(const char *any, struct claw_str name)
{
    size_t i = 0, step = name.len >= 8 ? 8 : name.len >= 4 ? 4 : 2;
    for (; i + step < name.len; i += step)
        if (differ(any + i, name.ptr + i, step)) return false;
    return !differ(any + name.len - step, name.ptr + name.len - step, step);
}

enum claw_header_id claw_header_id_of(struct claw_str name)
{
    if (name.len < 2 || name.len > 19) return CLAW_H_OTHER;
    enum claw_header_id id = candidate(name);
    return id != CLAW_H_OTHER && same(name.ptr, names[id]) ? id : CLAW_H_OTHER;
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

bool claw_head_hop(const struct claw_head *h, const struct claw_header *one)
{
    switch (one->id) {
    case CLAW_H_CONNECTION:
    case CLAW_H_KEEP_ALIVE:
    case CLAW_H_PROXY_CONNECTION:
    case CLAW_H_PROXY_AUTHENTICATE:
    case CLAW_H_PROXY_AUTHORIZATION:
    case CLAW_H_TE:
    case CLAW_H_TRAILER: /* trailers are dropped, so nothing may announce them */
    case CLAW_H_TRANSFER_ENCODING:
    case CLAW_H_UPGRADE:
        return true;
    default:
        break;
    }
    for (size_t i = 0; i < h->n; i++)
        if (h->headers[i].id == CLAW_H_CONNECTION && claw_h1_has_token(h->headers[i].value, one->name))
            return true;
    return false;
}

bool claw_h1_is_token(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!(kinds[(unsigned char)s.ptr[i]] & TOKEN)) return false;
    return s.len > 0;
}

bool claw_h1_is_value(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
    }
    return true;
}

static bool is_port(struct claw_str s)
{
    uint64_t port;
    return s.len == 0 || claw_str_u64(s, 65535, &port) == 0;
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
        while (i < s.len && s.ptr[i] != ':') {
            bool escape = s.ptr[i] == '%' && i + 2 < s.len && is_hex(s.ptr[i + 1]) && is_hex(s.ptr[i + 2]);
            if (!escape && !(kinds[(unsigned char)s.ptr[i]] & HOST)) return false;
            i += escape ? 3 : 1;
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
