/* networks: a list of addresses and networks, and whether an address lies in one of them.
 *
 * Kept as ranges, sorted and merged: a look-up among 10,000 is 14 comparisons. An IPv4 address is the IPv6 one it is mapped to
 * (::ffff:0:0/96), so that it is found however it is written;
 * wider IPv6 networks, ::/0 too, hold none. Immutable; read by any thread.
 */
#ifndef CLAW_NET_NETWORKS_H
#define CLAW_NET_NETWORKS_H

#include "base/arena.h"
#include "base/buf.h"

struct claw_ip { unsigned char bytes[16]; };

/* Read "1.2.3.4" or "fd00::1"; nothing else may be there (no port, no zone, no brackets). */
bool claw_ip_read(struct claw_str text, struct claw_ip *out);

struct claw_networks;

/* From texts such as 10.0.0.0/8, fd00::/8 or an address, in the arena. What is none of them holds nothing. NULL: no memory. */
struct claw_networks *claw_networks_new(struct claw_arena *a, const struct claw_str *texts, size_t n);
bool claw_networks_have(const struct claw_networks *w, const struct claw_ip *ip);

#endif
