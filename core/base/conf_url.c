#include "base/conf_schema.h"

#include <arpa/inet.h>
#include <stdio.h>

static bool host_ok(struct claw_str host, bool bracketed)
{
    if (!host.len || host.len > 253) return false;
    if (bracketed) {
        char z[64];
        struct in6_addr in;
        if (host.len >= sizeof z) return false;
        memcpy(z, host.ptr, host.len);
        z[host.len] = 0;
        return inet_pton(AF_INET6, z, &in) == 1;
    }
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                  c == '_' || (c == '.' && i > 0 && host.ptr[i - 1] != '.');
        if (!ok) return false;
    }
    return true;
}

/* host, [v6], either with :port. */
static const char *split_authority(struct claw_str a, uint16_t usual, struct claw_conf_url *out)
{
    bool bracketed = a.len && a.ptr[0] == '[';
    const char *end = bracketed ? memchr(a.ptr, ']', a.len) : memchr(a.ptr, ':', a.len);
    if (bracketed && !end) return "the host's bracket is not closed";
    size_t host_len = end ? (size_t)(end - a.ptr) : a.len;
    out->host = bracketed ? (struct claw_str){a.ptr + 1, host_len - 1} : (struct claw_str){a.ptr, host_len};
    if (!out->host.len) return "the URL has no host";
    if (!host_ok(out->host, bracketed)) return "the URL's host is not valid";
    size_t host_end = host_len + bracketed;
    out->port = usual;
    if (host_end < a.len) {
        uint64_t port;
        if (a.ptr[host_end] != ':') return "the URL's host is not valid";
        struct claw_str digits = {a.ptr + host_end + 1, a.len - host_end - 1};
        if (claw_str_u64(digits, 65535, &port) != 0 || port == 0) return "the URL's port must be 1 to 65535";
        out->port = (uint16_t)port;
    }
    out->authority = (struct claw_str){a.ptr, out->port == usual ? host_end : a.len};
    return NULL;
}

bool claw_conf_url_parse(struct claw_str text, struct claw_conf_url *out, const char **why)
{
    *out = (struct claw_conf_url){.text = text};
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\') {
            *why = "a URL has no spaces, control characters or bytes beyond ASCII";
            return false;
        }
    }
    struct claw_str http = CLAW_STR("http://"), https = CLAW_STR("https://"), rest;
    if (text.len >= https.len && claw_str_ieq((struct claw_str){text.ptr, https.len}, https)) {
        out->tls = true;
        rest = (struct claw_str){text.ptr + https.len, text.len - https.len};
    } else if (text.len >= http.len && claw_str_ieq((struct claw_str){text.ptr, http.len}, http)) {
        rest = (struct claw_str){text.ptr + http.len, text.len - http.len};
    } else {
        *why = "must begin with http:// or https://";
        return false;
    }
    size_t len = 0;
    while (len < rest.len && !strchr("/?#", rest.ptr[len])) len++;
    struct claw_str authority = {rest.ptr, len};
    out->path = (struct claw_str){rest.ptr + len, rest.len - len};
    *why = NULL;
    if (len && memchr(authority.ptr, '@', len)) *why = "the URL must not hold a user name or password";
    else if (out->path.len && memchr(out->path.ptr, '?', out->path.len)) *why = "the URL must not have a query";
    else if (out->path.len && memchr(out->path.ptr, '#', out->path.len)) *why = "the URL must not have a fragment";
    else *why = split_authority(authority, out->tls ? 443 : 80, out);
    while (out->path.len && out->path.ptr[out->path.len - 1] == '/') out->path.len--;
    return !*why;
}

static const char *redis_problem(struct claw_str text, struct claw_conf_redis *out)
{
    struct claw_str scheme = CLAW_STR("redis://");
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] <= 0x20 || (unsigned char)text.ptr[i] >= 0x7f)
            return "a URL has no spaces, control characters or bytes beyond ASCII";
    if (claw_str_starts(text, CLAW_STR("rediss://")))
        return "rediss:// (Redis over TLS) is not supported: use redis://, through a tunnel where the way is not trusted";
    if (!claw_str_starts(text, scheme)) return "must begin with redis://";
    struct claw_str rest = {text.ptr + scheme.len, text.len - scheme.len};
    const char *at = memrchr(rest.ptr, '@', rest.len);
    if (at) {
        struct claw_str who = {rest.ptr, (size_t)(at - rest.ptr)};
        const char *colon = memchr(who.ptr, ':', who.len);
        if (!colon) return "what stands before @ must be user:password or :password";
        out->user = (struct claw_str){who.ptr, (size_t)(colon - who.ptr)};
        out->password = (struct claw_str){colon + 1, who.len - out->user.len - 1};
        rest = (struct claw_str){at + 1, rest.len - who.len - 1};
    }
    struct claw_conf_url url = {.text = text};
    size_t len = 0;
    while (len < rest.len && rest.ptr[len] != '/') len++;
    const char *why = split_authority((struct claw_str){rest.ptr, len}, 6379, &url);
    if (why) return why;
    out->host = url.host;
    out->port = url.port;
    uint64_t db = 0;
    if (len + 1 < rest.len && claw_str_u64((struct claw_str){rest.ptr + len + 1, rest.len - len - 1}, 100000, &db) != 0)
        return "what follows the host must be a database's number, as in redis://host:6379/0";
    out->db = (unsigned)db;
    return NULL;
}

bool claw_conf_redis_parse(struct claw_str text, struct claw_conf_redis *out, const char **why)
{
    *out = (struct claw_conf_redis){.text = text};
    *why = redis_problem(text, out);
    return !*why;
}
