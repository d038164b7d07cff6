/* admin_guard: who the admin port answers. What it is careful of are browsers: any page an operator looks at can make
 * requests to 127.0.0.1.
 *
 *   another site's page       its requests carry an Origin that is not ours, or Sec-Fetch-Site says so: refused
 *   a name made to lead here  (DNS rebinding) such a page is of our origin as far as browsers can tell. It does not have the token;
 *                             without one, Host has to be an address, localhost, or of admin.hosts
 *   our page in its frame     frame-ancestors; nothing but our own script runs in it, nothing is loaded from elsewhere
 */
#include "app/admin_part.h"

#include <arpa/inet.h>
#include <strings.h>

const char *claw_admin_fields(bool page)
{
#define ALWAYS "cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\ncross-origin-resource-policy: same-origin\r\n"
    return page ? ALWAYS "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
                         "form-action 'none'; frame-ancestors 'none'\r\nx-frame-options: DENY\r\n"
                : ALWAYS "content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n";
#undef ALWAYS
}

/* In constant time: how long a wrong token takes to refuse says nothing of the right one. */
static bool token_fits(const struct claw_head *h, struct claw_str token)
{
    const struct claw_header *f = claw_head_find(h, CLAW_H_AUTHORIZATION);
    if (!f || f->value.len != token.len + 7 || strncasecmp(f->value.ptr, "Bearer ", 7) != 0) return false;
    unsigned char differs = 0;
    for (size_t i = 0; i < token.len; i++) differs |= (unsigned char)(f->value.ptr[7 + i] ^ token.ptr[i]);
    return differs == 0;
}

/* "name:port" without its port; of "[::1]:80" what stands in the brackets. */
static struct claw_str name_of(struct claw_str host)
{
    const char *end = host.len && host.ptr[0] == '[' ? memchr(host.ptr, ']', host.len) : NULL;
    if (end) return (struct claw_str){host.ptr + 1, (size_t)(end - host.ptr) - 1};
    const char *colon = memchr(host.ptr, ':', host.len);
    return (struct claw_str){host.ptr, colon ? (size_t)(colon - host.ptr) : host.len};
}

static bool is_ours(const struct claw_conf *conf, struct claw_str host)
{
    struct claw_str name = name_of(host);
    char text[64];
    unsigned char address[16];
    if (claw_str_ieq(name, CLAW_STR("localhost"))) return true;
    for (size_t i = 0; i < conf->admin.hosts_n; i++)
        if (claw_str_ieq(name, conf->admin.hosts[i])) return true;
    if (name.len == 0 || name.len >= sizeof text) return false;
    memcpy(text, name.ptr, name.len);
    text[name.len] = 0;
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

static bool same_origin(struct claw_str origin, struct claw_str host)
{
    static const char *const schemes[] = {"http://", "https://"}; /* the second one: something in front of us ends TLS */
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(schemes[i]);
        if (claw_str_starts(origin, claw_str_of(schemes[i])) && claw_str_ieq((struct claw_str){origin.ptr + n, origin.len - n}, host)) return true;
    }
    return false;
}

static struct claw_str field(const struct claw_head *h, const char *name)
{
    const struct claw_header *f = claw_head_find_name(h, claw_str_of(name));
    return f ? f->value : CLAW_STR("");
}

const char *claw_admin_guard(const struct claw_conf *conf, const struct claw_head *h, bool open, int *status)
{
    struct claw_str token = conf->admin.token, host = field(h, "host"), origin = field(h, "origin"), from = field(h, "sec-fetch-site");
    bool reads = claw_str_eqz(h->method, "GET") || claw_str_eqz(h->method, "HEAD");
    *status = 403;
    if (origin.len && !same_origin(origin, host)) return "The request comes from a page of another site (Origin).";
    if (!reads && from.len && !claw_str_eqz(from, "same-origin") && !claw_str_eqz(from, "none"))
        return "The request comes from a page of another site (Sec-Fetch-Site).";
    if (open) return NULL;
    if (token.len == 0 && host.len && !is_ours(conf, host))
        return "The admin port has no token and is called by a name it does not know: list it in admin.hosts, or set admin.token.";
    if (token.len == 0 || token_fits(h, token)) return NULL;
    *status = 401;
    return "The admin port wants Authorization: Bearer <admin.token>.";
}
