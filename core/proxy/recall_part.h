/* recall_part: what the files of recall share. */
#ifndef CLAW_PROXY_RECALL_PART_H
#define CLAW_PROXY_RECALL_PART_H

#include "proxy/cache.h"
#include "proxy/recall.h"

#define CLAW_RECALL_SCRATCH ((size_t)64 << 20)

/* recasts: is an answer to it written as a stream and as none alike? Not 0: its body has more than can be compared. */
int claw_recall_key(const struct claw_req *r, bool per_client, bool recasts, struct claw_cache_key *key) CLAW_MUSTCHECK;

#endif
