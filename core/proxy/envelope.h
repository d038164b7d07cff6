/* envelope: an error as the client's dialect has it, whole and inside a stream.
 *
 *   OpenAI      {"error":{"message","type","param","code"}}; in a stream the same, as data
 *   Responses   as OpenAI's; in a stream `event: error` with {"type":"error","code","message","param"}
 *   Anthropic   {"type":"error","error":{"type","message"},"request_id"}; in a stream the same, `event: error`
 *   Gemini      {"error":{"code":status,"message","status","details":[{"@type":…ErrorInfo,"reason"}]}}; the same in a stream
 *   Cohere      {"id","message"} (docs.cohere.com/reference/errors); the same in a stream
 *   Ollama      {"error":message} (its docs/api.md); the same in a stream
 */
#ifndef CLAW_PROXY_ENVELOPE_H
#define CLAW_PROXY_ENVELOPE_H

#include "proxy/dialect.h"

struct claw_envelope {
    enum claw_dialect dialect;
    int status;
    struct claw_str message;
    const char *type;         /* OpenAI's; Anthropic's and Gemini's follow from the status */
    const char *code;         /* stable word */
    struct claw_str param;    /* which field of the request; "": none */
    struct claw_str id;       /* of the request; "": not said */
};

/* The body, appended to `out`. Control characters are escaped. */
int claw_envelope_write(struct claw_buf *out, const struct claw_envelope *e) CLAW_MUSTCHECK;
/* The error event's data, appended to `out`, and its type ("": none). */
int claw_envelope_write_event(struct claw_buf *out, const struct claw_envelope *e, struct claw_str *type) CLAW_MUSTCHECK;
/* Does an event, or a whole answer (type ""), tell an error, in whatever dialect? Providers quote the key they refuse, also where an
 * answer began well. */
bool claw_envelope_is_error(struct claw_str type, struct claw_str data);
/* The same of an event as it came, by its first line. */
bool claw_envelope_raw_is_error(struct claw_str raw);
/* Anthropic's and Gemini's word for a status. */
const char *claw_envelope_anthropic_type(int status);
const char *claw_envelope_gemini_status(int status);

#endif
