/* address: which addresses are whose. Private: whatever is not on the public internet (loopback, link-local with the
 * clouds' metadata, RFC 1918, CGNAT, ULA, multicast, unspecified …), also when an IPv4 address is written as an IPv6 one.
 * Thread: pure, any.
 */
#ifndef CLAW_NET_ADDRESS_H
#define CLAW_NET_ADDRESS_H

#include "base/buf.h"

#include <sys/socket.h>

/* Neither IPv4 nor IPv6 counts as private too. */
bool claw_address_private(const struct sockaddr *a);
/* Does the address lie in `net`, an address or a network such as 10.0.0.0/8 or fd00::/8? An IPv4-mapped address is also
 * looked for as the IPv4 address it is. A text that is neither holds nothing. */
bool claw_address_in(const struct sockaddr *a, struct claw_str net);

#endif
