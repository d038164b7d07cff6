/* soft_stop: a stream whose client's budget (budget.soft_stop) is reached while it runs ends as if it had come to its greatest length.
 *
 *   begin   asked once, when the client gets the first of it        looks   asked behind each event the client got
 *   end     the events that end it validly: OpenAI's finish_reason length, Anthropic's max_tokens, Gemini's MAX_TOKENS
 *
 * What it has cost so far is the price of its tokens: the input told or estimated, the output by estimate; to that comes what the
 * client spent before, as far as it is settled. Streams of one choice, in those three dialects (OpenAI's chat and completions), whose
 * price is known while they run; not those that are kept or shared, which are others' too. Thread: the request's.
 */
#ifndef CLAW_PROXY_SOFT_STOP_H
#define CLAW_PROXY_SOFT_STOP_H

#include "proxy/pipeline.h"

#define CLAW_SOFT_STOP_EVENTS 3u

struct claw_soft_stop {
    bool on;      /* it may be stopped */
    bool tells;   /* the client asked for usage (OpenAI's include_usage) */
    size_t bytes; /* of events so far */
    size_t next;  /* it is looked at from there on */
};

/* The stream begins: s->on. Before the request's body is let go of. */
void claw_soft_stop_begin(struct claw_soft_stop *s, const struct claw_req *r);
/* An event of so many bytes more. Is it time to look? */
static inline bool claw_soft_stop_looks(struct claw_soft_stop *s, size_t bytes) { return s->on && (s->bytes += bytes) >= s->next; }
/* Is the budget reached, with `said` tokens since usage was told, and may the stream end behind `event` (its data, or as it came, framed as
 * SSE)? Then the events that end it, their texts the arena's, and r->soft_stopped; else 0. r->usage is left as it is. */
unsigned claw_soft_stop_end(struct claw_soft_stop *s, struct claw_req *r, struct claw_str event, int64_t said,
                            struct claw_policy_event out[CLAW_SOFT_STOP_EVENTS]);

#endif
