/* commit: when a stream's answer is let go of, and whether a tool call has left with it.
 *
 *   held → committed → tool_emitted → done
 *
 * Until it is committed an upstream that fails can be replaced, and what is held of it is dropped; nothing brings a stream back from there.
 * A policy says when (r->commit_at): with the first event, the first text, or so many characters of it, which are counted in what the
 * client would get. Thinking counts: the client is shown it. A tool call lets go at once, and so does the event that ends the answer. Where the client's protocol is not known, text
 * is not either, and the first event lets go. Thread: the request's.
 */
#ifndef CLAW_PROXY_COMMIT_H
#define CLAW_PROXY_COMMIT_H

#include "proxy/req.h"

#define CLAW_COMMIT_MOST 65536u /* characters; as many bytes are held at most */

struct claw_commit_watch {
    bool begun;
    bool is_key;          /* of the mark: it is a member's name, else its value is that of `type` */
    struct claw_str mark; /* of an event with a tool call, in the client's dialect; "": none can come, or one has */
    uint32_t said;        /* characters */
};

/* The stream begins. Before the request's body is let go of. */
void claw_commit_begin(struct claw_commit_watch *w, const struct claw_req *r);
/* Does the event (its data, or as it came) carry a tool call? */
bool claw_commit_calls(const struct claw_commit_watch *w, struct claw_str event);
/* Another event of a stream that is held, by its data. Is it to wait no longer? */
bool claw_commit_enough(struct claw_commit_watch *w, const struct claw_req *r, struct claw_str data);
/* The state's name; NULL: no stream was asked for. */
const char *claw_commit_state(const struct claw_req *r);

#endif
