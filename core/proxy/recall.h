/* recall: the step that answers from what was answered before (cache.h), or is being answered now (flight.h).
 *
 *   look   in the cache: hit -> its bytes; else under way: a seat there -> its bytes as they come; else the request leads:
 *          it goes on to an upstream, the relay hands what the client gets to claw_recall_note, and at its clean end a complete
 *          answer of status 200 is kept
 *   With caching.backend redis the leader asks there before it goes on (cache_part.h), and tells what it kept.
 *
 * Two requests are the same when they agree in: scope (who asks: its name, else a key it carries, else its address), route (and
 * what was configured for it, where upstreams are and which models they are sent, and the policies there were: a change of these
 * is never answered by what was before), dialect, path, query, the provider's own header fields, model and body, but for members
 * that do not change an answer (user, metadata, stream and the like); see claw_canon. Keys a client shows only count in there,
 * as a number.
 *
 * One answer serves those who want a stream and those who do not: it is kept as it was given first, and written in the other
 * way on demand (ops->recast), in the dialects that can be; in the others, and for Gemini's JSON arrays, the two are apart.
 * Whether an OpenAI client asked for the chunk that tells usage does not matter: it is kept, and left out where it is not wanted.
 * A stream is kept only when its dialect's last word came. What is kept has passed the policies' hooks; fields that policies set in
 * its head are not kept. State of a conversation kept elsewhere (`conversation`, `background`) is never recalled.
 *
 * Owner: the request; everything is its loop's, but for the cache and flights.
 */
#ifndef CLAW_PROXY_RECALL_H
#define CLAW_PROXY_RECALL_H

#include "proxy/req.h"

#define CLAW_RECALL_NODES (64u << 10) /* a body of more values is not compared, nor one of more bytes: it costs up to 4 ms a MB */
#define CLAW_RECALL_BYTES (4u << 20)

struct claw_cache;

/* What became of a request here: x-openclaw-cache, and the log's `cache`. */
enum claw_recalled { CLAW_RECALL_BYPASS, CLAW_RECALL_MISS, CLAW_RECALL_HIT, CLAW_RECALL_COALESCED };
struct claw_str claw_recall_word(const struct claw_req *r);
/* Did its answer come from here, and no upstream was asked for it? */
static inline bool claw_recall_answers(const struct claw_req *r) { return r->recalled >= CLAW_RECALL_HIT; }

/* 0: go on to an upstream. CLAW_EAGAIN: it waits, claw_pipeline_resume follows; or it is being answered, and
 * claw_pipeline_answered follows or was called. Else the code it fails with. */
int claw_recall_look(struct claw_req *r) CLAW_MUSTCHECK;
/* The client takes bytes again. True: they are sent from here. */
bool claw_recall_drained(struct claw_req *r);
/* Of a client that is sent an answer from here: may a beat (heartbeat.h) go now, between two events? True for all others. */
bool claw_recall_between(const struct claw_req *r);
/* An answer that came from here, or was to, can go no further: an error event where a stream began. Before the connection is cut. */
void claw_recall_cut(struct claw_req *r, int code, struct claw_str text);

/* The relay's, of a request that leads: its answer begins, goes on, ended well. */
void claw_recall_begin(struct claw_req *r, int status, struct claw_str type, bool stream, bool readable);
void claw_recall_note(struct claw_req *r, const uv_buf_t *bytes, unsigned n);
void claw_recall_end(struct claw_req *r);
/* Is usage told in the answer it leads, though its client did not ask for that? */
bool claw_recall_hides_usage(const struct claw_req *r);
/* Its client takes no more for now. True: the relay goes on for those who listen, and its client is sent the rest from here. */
bool claw_recall_stall(struct claw_req *r);
/* Is its client sent the answer from here? */
bool claw_recall_lags(const struct claw_req *r);
/* Its client left. True: it goes on, for those who listen or for the cache. */
bool claw_recall_flies_on(struct claw_req *r);
/* The request is over. */
void claw_recall_leave(struct claw_req *r);

#endif
