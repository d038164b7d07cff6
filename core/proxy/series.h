/* series: what policies count, beside the proxy's own metrics.
 *
 *   openclaw_policy_NAME_total{policy,label}   a counter
 *   openclaw_policy_NAME{policy,label}         a gauge: the value set last, by whichever worker
 *
 * Of the whole process, for as long as it runs: policies come and go, and a series keeps its value. A name has one kind.
 * Bounds: CLAW_SERIES_NAMES names, CLAW_SERIES_MAX series. Written and read without locks; a new series takes one.
 * Thread: any.
 */
#ifndef CLAW_PROXY_SERIES_H
#define CLAW_PROXY_SERIES_H

#include "base/buf.h"

#define CLAW_SERIES_NAMES 32
#define CLAW_SERIES_MAX 500
#define CLAW_SERIES_LABEL 64 /* bytes of a label's value; longer ones are cut */

enum claw_series_kind { CLAW_SERIES_COUNTER, CLAW_SERIES_GAUGE };

/* Add n to a counter, or set a gauge. `name` is a-z, 0-9 and _ (checked by the caller), at most 48 bytes; label may be "".
 * CLAW_EINVAL with *why: the name is of the other kind, or the proxy's own; CLAW_ENOMEM: a bound is reached. */
int claw_series_note(enum claw_series_kind kind, struct claw_str name, struct claw_str policy, struct claw_str label,
                     double n, const char **why) CLAW_MUSTCHECK;
/* Their part of /metrics. */
int claw_series_write(struct claw_buf *out) CLAW_MUSTCHECK;
/* Forget all. For tests; no other thread may be at it. */
void claw_series_reset(void);

#endif
