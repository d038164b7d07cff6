#include "proxy/envelope.h"

/* docs.anthropic.com/en/api/errors; google.rpc.Code and its HTTP mapping. */
static const struct { int status; const char *anthropic, *gemini; } words[] = {
    {400, "invalid_request_error", "INVALID_ARGUMENT"}, {401, "authentication_error", "UNAUTHENTICATED"},
    {402, "billing_error", "FAILED_PRECONDITION"},      {403, "permission_error", "PERMISSION_DENIED"},
    {404, "not_found_error", "NOT_FOUND"},              {408, "timeout_error", "DEADLINE_EXCEEDED"},
    {409, "invalid_request_error", "ABORTED"},          {413, "request_too_large", "INVALID_ARGUMENT"},
    {429, "rate_limit_error", "RESOURCE_EXHAUSTED"},    {499, "api_error", "CANCELLED"},
    {500, "api_error", "INTERNAL"},                     {501, "api_error", "UNIMPLEMENTED"},
    {502, "api_error", "UNAVAILABLE"},                  {503, "overloaded_error", "UNAVAILABLE"},
    {504, "timeout_error", "DEADLINE_EXCEEDED"},        {529, "overloaded_error", "UNAVAILABLE"},
};

const char *claw_envelope_anthropic_type(int status)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].status == status) return words[i].anthropic;
    return status < 500 ? "invalid_request_error" : "api_error";
}

const char *claw_envelope_gemini_status(int status)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].status == status) return words[i].gemini;
    return status < 500 ? "INVALID_ARGUMENT" : "INTERNAL";
}

/* Texts between quoted values, in turn; a value with ptr NULL is null. */
static int write_all(struct claw_buf *out, unsigned n, const char *const *between, const struct claw_str *values)
{
    int rc = claw_buf_add_z(out, between[0]);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        rc = values[i].ptr ? claw_buf_add_json(out, values[i]) : claw_buf_add_z(out, "null");
        if (rc == 0) rc = claw_buf_add_z(out, between[i + 1]);
    }
    return rc;
}

static struct claw_str or_null(struct claw_str s) { return s.len ? s : (struct claw_str){NULL, 0}; }

static int write_openai(struct claw_buf *out, const struct claw_envelope *e)
{
    static const char *const between[] = {"{\"error\":{\"message\":", ",\"type\":", ",\"param\":", ",\"code\":", "}}"};
    struct claw_str values[] = {e->message, claw_str_of(e->type), or_null(e->param), claw_str_of(e->code)};
    return write_all(out, 4, between, values);
}

static int write_anthropic(struct claw_buf *out, const struct claw_envelope *e)
{
    static const char *const between[] = {"{\"type\":\"error\",\"error\":{\"type\":", ",\"message\":", "},\"request_id\":", "}"};
    struct claw_str values[] = {claw_str_of(claw_envelope_anthropic_type(e->status)), e->message, or_null(e->id)};
    return write_all(out, 3, between, values);
}

static int write_gemini(struct claw_buf *out, const struct claw_envelope *e)
{
    static const char *const between[] = {"\"message\":", ",\"status\":",
        ",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"openclaw\",\"reason\":", "}]}}"};
    struct claw_str values[] = {e->message, claw_str_of(claw_envelope_gemini_status(e->status)), claw_str_of(e->code)};
    int rc = claw_buf_add_fmt(out, "{\"error\":{\"code\":%d,", e->status);
    return rc == 0 ? write_all(out, 3, between, values) : rc;
}

static int write_cohere(struct claw_buf *out, const struct claw_envelope *e)
{
    static const char *const between[] = {"{\"id\":", ",\"message\":", "}"};
    struct claw_str values[] = {or_null(e->id), e->message};
    return write_all(out, 2, between, values);
}

static int write_ollama(struct claw_buf *out, const struct claw_envelope *e)
{
    static const char *const between[] = {"{\"error\":", "}"};
    return write_all(out, 1, between, &e->message);
}

int claw_envelope_write(struct claw_buf *out, const struct claw_envelope *e)
{
    switch (claw_dialect_errors(e->dialect)) {
    case CLAW_ERRORS_ANTHROPIC: return write_anthropic(out, e);
    case CLAW_ERRORS_GEMINI: return write_gemini(out, e);
    case CLAW_ERRORS_COHERE: return write_cohere(out, e);
    case CLAW_ERRORS_OLLAMA: return write_ollama(out, e);
    default: return write_openai(out, e);
    }
}

int claw_envelope_write_event(struct claw_buf *out, const struct claw_envelope *e, struct claw_str *type)
{
    static const char *const between[] = {"{\"type\":\"error\",\"code\":", ",\"message\":", ",\"param\":", /* its SDKs raise for what is inside: */
                                          ",\"error\":{\"type\":", ",\"code\":", ",\"message\":", ",\"param\":", "}}"};
    *type = CLAW_STR("");
    switch (claw_dialect_errors(e->dialect)) {
    case CLAW_ERRORS_ANTHROPIC: *type = CLAW_STR("error"); return write_anthropic(out, e);
    case CLAW_ERRORS_GEMINI: return write_gemini(out, e);
    case CLAW_ERRORS_COHERE: return write_cohere(out, e);
    case CLAW_ERRORS_OLLAMA: return write_ollama(out, e);
    case CLAW_ERRORS_RESPONSES: {
        struct claw_str code = claw_str_of(e->code), param = or_null(e->param);
        struct claw_str values[] = {code, e->message, param, claw_str_of(e->type), code, e->message, param};
        *type = CLAW_STR("error");
        return write_all(out, 7, between, values);
    }
    default: return write_openai(out, e);
    }
}

bool claw_envelope_is_error(struct claw_str type, struct claw_str data)
{
    return claw_str_eqz(type, "error") || claw_str_eqz(type, "response.failed") || claw_str_starts(data, CLAW_STR("{\"error\"")) ||
           claw_str_starts(data, CLAW_STR("{\"type\":\"error\""));
}

bool claw_envelope_raw_is_error(struct claw_str raw)
{
    struct claw_str none = CLAW_STR("");
    bool typed = claw_str_starts(raw, CLAW_STR("event:"));
    if (!typed && !claw_str_starts(raw, CLAW_STR("data:"))) return false;
    const char *at = raw.ptr + (typed ? 6 : 5), *end = raw.ptr + raw.len;
    if (at < end && *at == ' ') at++;
    if (!typed) return claw_envelope_is_error(none, (struct claw_str){at, (size_t)(end - at)});
    for (end = at; end < raw.ptr + raw.len && *end != '\n' && *end != '\r'; end++) {}
    return claw_envelope_is_error((struct claw_str){at, (size_t)(end - at)}, none);
}
