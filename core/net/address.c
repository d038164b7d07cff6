#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

struct net { uint32_t from; unsigned bits; };

/* IANA's special-purpose registry: what is not globally reachable; the cloud's own host address at the end. */
static const struct net v4[] = {
    {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16}, {0xac100000, 12}, {0xc0000000, 24},
    {0xc0000200, 24}, {0xc0586300, 24}, {0xc0a80000, 16}, {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 4},
    {0xf0000000, 4},  {0xa83f8110, 32},
};

static bool private4(uint32_t a)
{
    for (size_t i = 0; i < sizeof v4 / sizeof *v4; i++)
        if ((a ^ v4[i].from) >> (32 - v4[i].bits) == 0) return true;
    return false;
}

static uint32_t word(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static bool begins(const uint8_t *a, const char *text, unsigned bits)
{
    uint8_t b[16];
    if (inet_pton(AF_INET6, text, b) != 1) return false;
    if (memcmp(a, b, bits / 8) != 0) return false;
    return bits % 8 == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8)) == 0;
}

/* Only 2000::/3 is given out; from it, what tunnels to IPv4 or is for documentation. NAT64 is as private as what is behind. */
static bool private6(const uint8_t *a)
{
    if (begins(a, "64:ff9b::", 96)) return private4(word(a + 12));
    if (!begins(a, "2000::", 3)) return true;
    return begins(a, "2001::", 23) || begins(a, "2002::", 16) || begins(a, "2001:db8::", 32) || begins(a, "3fff::", 20);
}

bool claw_address_private(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) return private4(ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr));
    return a->sa_family != AF_INET6 || private6(((const struct sockaddr_in6 *)a)->sin6_addr.s6_addr);
}

/* The address's bytes in the family of the network; NULL: it has none there. */
static const uint8_t *bytes_of(const struct sockaddr *a, int family)
{
    if (a->sa_family == AF_INET && family == AF_INET) return (const uint8_t *)&((const struct sockaddr_in *)a)->sin_addr;
    if (a->sa_family != AF_INET6) return NULL;
    const uint8_t *p = ((const struct sockaddr_in6 *)a)->sin6_addr.s6_addr;
    if (family == AF_INET6) return p;
    return begins(p, "::ffff:0:0", 96) ? p + 12 : NULL;
}

bool claw_address_in(const struct sockaddr *a, struct claw_str net)
{
    char text[64];
    uint8_t from[16];
    const char *slash = memchr(net.ptr, '/', net.len);
    size_t n = slash ? (size_t)(slash - net.ptr) : net.len;
    if (n == 0 || n >= sizeof text) return false;
    memcpy(text, net.ptr, n);
    text[n] = 0;
    int family = memchr(text, ':', n) ? AF_INET6 : AF_INET;
    uint64_t bits = family == AF_INET6 ? 128 : 32;
    if (slash && claw_str_u64((struct claw_str){slash + 1, net.len - n - 1}, bits, &bits) != 0) return false;
    if (inet_pton(family, text, from) != 1) return false;
    const uint8_t *p = bytes_of(a, family);
    if (!p || memcmp(p, from, bits / 8) != 0) return false;
    return bits % 8 == 0 || ((p[bits / 8] ^ from[bits / 8]) >> (8 - bits % 8)) == 0;
}
