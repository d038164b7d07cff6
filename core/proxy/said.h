/* said: what a model said in a stream since its usage was told, remembered cheaply: a bounded sample of the events.
 *
 * Most streams tell their usage at the end, so an event costs little more than a copy, and only of a stream that never tells, or
 * breaks off, the sample is counted. Events are alike where their lengths are: those of a length (by powers of two) make a class.
 * Of each class one event in `every` is kept, of it what differs from the class's first one; when the room is used up, every
 * second one goes. As long as all have room nothing is guessed. Long events, which are few, are counted as they come.
 * Thread: one at a time.
 */
#ifndef CLAW_PROXY_SAID_H
#define CLAW_PROXY_SAID_H

#include "base/buf.h"

#define CLAW_SAID_BYTES 3840u /* of events and what stands between them */
#define CLAW_SAID_LONG 1024u  /* an event of so many bytes is long */

struct claw_said; /* NULL: nothing was said yet */

/* Another event, as it came. deltas: see claw_tokens_add_answer; the same for a stream's events. Without memory nothing is
 * remembered of the stream. */
void claw_said_add(struct claw_said **s, struct claw_str event, bool deltas);
/* Usage was told: what was said is no more of interest. */
void claw_said_clear(struct claw_said *s);
void claw_said_free(struct claw_said *s);
/* The tokens of it, by estimate. */
int64_t claw_said_tokens(const struct claw_said *s);

#endif
