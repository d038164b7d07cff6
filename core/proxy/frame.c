#include "proxy/frame.h"

#include "http/sse.h"

static bool in_lines(const struct claw_req *r) { return r->dialect == CLAW_DIALECT_OLLAMA_CHAT; }

const char *claw_frame_type(const struct claw_req *r)
{
    return r->array ? "application/json" : in_lines(r) ? "application/x-ndjson" : "text/event-stream";
}

bool claw_frame_takes_comments(const struct claw_req *r)
{
    return !r->array && !(r->translated && (in_lines(r) || claw_dialect_is_gemini(r->dialect)));
}

int claw_frame_write(const struct claw_req *r, struct claw_buf *out, struct claw_str type, struct claw_str data)
{
    if (!r->array && !in_lines(r)) return claw_sse_write(out, type, data);
    int rc = claw_buf_add_str(out, data);
    return rc == 0 && in_lines(r) ? claw_buf_add_z(out, "\n") : rc;
}
