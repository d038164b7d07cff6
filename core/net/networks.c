#include "net/networks.h"

#include <arpa/inet.h>
#include <stdlib.h>

struct range { struct claw_ip first, last; };

struct claw_networks {
    size_t n;
    struct range ranges[];
};

bool claw_ip_read(struct claw_str text, struct claw_ip *out)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    char z[INET6_ADDRSTRLEN];
    if (text.len == 0 || text.len >= sizeof z) return false;
    memcpy(z, text.ptr, text.len);
    z[text.len] = 0;
    if (memchr(z, 0, text.len)) return false;
    if (inet_pton(AF_INET6, z, out->bytes) == 1) return true;
    memcpy(out->bytes, mapped, sizeof mapped);
    return inet_pton(AF_INET, z, out->bytes + 12) == 1;
}

static int compare(const struct claw_ip *a, const struct claw_ip *b) { return memcmp(a->bytes, b->bytes, sizeof a->bytes); }

/* One range, or the two on both sides of the mapped addresses: an IPv6 network so wide is not meant to hold all of IPv4. */
static size_t read_ranges(struct claw_str text, struct range out[2])
{
    static const struct range mapped = {{{[10] = 0xff, [11] = 0xff}}, {{[10] = 0xff, [11] = 0xff, [12] = 0xff, [13] = 0xff, [14] = 0xff, [15] = 0xff}}};
    static const struct claw_ip below = {{[10] = 0xff, [11] = 0xfe, [12] = 0xff, [13] = 0xff, [14] = 0xff, [15] = 0xff}}, above = {{[9] = 1}};
    const char *slash = memchr(text.ptr, '/', text.len);
    struct claw_str address = {text.ptr, slash ? (size_t)(slash - text.ptr) : text.len};
    uint64_t bits = 128;
    if (!claw_ip_read(address, &out->first)) return 0;
    bool six = memchr(address.ptr, ':', address.len) != NULL;
    if (slash && claw_str_u64((struct claw_str){slash + 1, text.len - address.len - 1}, six ? 128 : 32, &bits) != 0) return 0;
    if (slash && !six) bits += 96;
    out->last = out->first;
    for (unsigned i = 0; i < 16; i++) {
        unsigned fixed = bits > i * 8 ? (unsigned)bits - i * 8 : 0;
        unsigned char mask = fixed >= 8 ? 0xff : (unsigned char)(0xff00 >> fixed);
        out->first.bytes[i] &= mask;
        out->last.bytes[i] |= (unsigned char)~mask;
    }
    if (bits >= 96 || compare(&out->first, &mapped.first) > 0 || compare(&out->last, &mapped.last) < 0) return 1;
    out[1] = (struct range){above, out->last};
    out->last = below;
    return compare(&out[1].first, &out[1].last) <= 0 ? 2 : 1;
}

static int by_first(const void *a, const void *b) { return compare(&((const struct range *)a)->first, &((const struct range *)b)->first); }

struct claw_networks *claw_networks_new(struct claw_arena *a, const struct claw_str *texts, size_t n)
{
    struct claw_networks *w = claw_arena_zalloc(a, sizeof *w + 2 * n * sizeof *w->ranges);
    if (!w) return NULL;
    size_t have = 0;
    for (size_t i = 0; i < n; i++) have += read_ranges(texts[i], &w->ranges[have]);
    qsort(w->ranges, have, sizeof *w->ranges, by_first);
    for (size_t i = 0; i < have; i++) {
        struct range *before = w->n ? &w->ranges[w->n - 1] : NULL;
        if (!before || compare(&w->ranges[i].first, &before->last) > 0) w->ranges[w->n++] = w->ranges[i];
        else if (compare(&w->ranges[i].last, &before->last) > 0) before->last = w->ranges[i].last;
    }
    return w;
}

bool claw_networks_have(const struct claw_networks *w, const struct claw_ip *ip)
{
    size_t low = 0, high = w->n; /* the first range that begins behind ip is at `high`, or before */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare(&w->ranges[mid].first, ip) > 0) high = mid;
        else low = mid + 1;
    }
    return high > 0 && compare(ip, &w->ranges[high - 1].last) <= 0;
}
