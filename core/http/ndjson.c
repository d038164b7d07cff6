#include "http/ndjson.h"

void claw_ndjson_init(struct claw_ndjson *s, size_t max_line_bytes)
{
    claw_buf_init(&s->rest, 0);
    s->max = max_line_bytes;
}

void claw_ndjson_fini(struct claw_ndjson *s) { claw_buf_fini(&s->rest); }

static int give(struct claw_str line, claw_ndjson_fn on_line, void *arg)
{
    while (line.len && (line.ptr[line.len - 1] == '\r' || line.ptr[line.len - 1] == ' ' || line.ptr[line.len - 1] == '\t')) line.len--;
    return line.len ? on_line(arg, line) : 0;
}

int claw_ndjson_feed(struct claw_ndjson *s, const char *data, size_t n, claw_ndjson_fn on_line, void *arg)
{
    const char *end = data + n;
    while (data < end) {
        const char *lf = memchr(data, '\n', (size_t)(end - data));
        struct claw_str part = {data, (size_t)((lf ? lf : end) - data)};
        int rc = 0;
        if (part.len + claw_buf_size(&s->rest) > s->max) return CLAW_EBAD_RESPONSE;
        data = lf ? lf + 1 : end;
        if (!lf || claw_buf_size(&s->rest)) rc = claw_buf_add_str(&s->rest, part);
        if (rc == 0 && lf) rc = give(claw_buf_size(&s->rest) ? claw_buf_str(&s->rest) : part, on_line, arg);
        if (rc < 0) return rc;
        if (lf) claw_buf_clear(&s->rest);
    }
    return 0;
}

int claw_ndjson_end(struct claw_ndjson *s, claw_ndjson_fn on_line, void *arg)
{
    int rc = give(claw_buf_str(&s->rest), on_line, arg);
    claw_buf_clear(&s->rest);
    return rc < 0 ? rc : 0;
}
