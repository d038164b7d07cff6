#include "http/event_stream.h"

#define PRELUDE 12u
#define SUM 4u

void claw_event_stream_init(struct claw_event_stream *s, size_t max_message_bytes)
{
    claw_buf_init(&s->rest, 0);
    s->max = max_message_bytes;
}

void claw_event_stream_fini(struct claw_event_stream *s) { claw_buf_fini(&s->rest); }
bool claw_event_stream_cut(const struct claw_event_stream *s) { return claw_buf_size(&s->rest) > 0; }

uint32_t claw_event_stream_crc(uint32_t crc, const char *data, size_t n)
{
    static const uint32_t nibbles[16] = { /* of the reversed polynomial 0xEDB88320 */
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= (unsigned char)data[i];
        crc = (crc >> 4) ^ nibbles[crc & 15];
        crc = (crc >> 4) ^ nibbles[crc & 15];
    }
    return ~crc;
}

static uint32_t number(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

/* The value of a header at *s is taken off it. Only texts are handed up. */
static bool take_value(struct claw_str *s, unsigned type, struct claw_str *value)
{
    static const unsigned char sizes[] = {0, 0, 1, 2, 4, 8, 0, 0, 8, 16};
    size_t n = type < sizeof sizes ? sizes[type] : 0, skip = 0;
    *value = CLAW_STR("");
    if (type >= sizeof sizes) return false;
    if (type == 6 || type == 7) { /* bytes, text: their length stands before them */
        if (s->len < 2) return false;
        n = (size_t)(unsigned char)s->ptr[0] << 8 | (unsigned char)s->ptr[1];
        skip = 2;
    }
    if (s->len < skip + n) return false;
    if (type == 7) *value = (struct claw_str){s->ptr + skip, n};
    s->ptr += skip + n;
    s->len -= skip + n;
    return true;
}

static bool read_headers(struct claw_str s, struct claw_event_stream_message *m, struct claw_str *told)
{
    while (s.len) {
        size_t n = (unsigned char)s.ptr[0];
        struct claw_str value;
        if (s.len < n + 2) return false;
        struct claw_str name = {s.ptr + 1, n};
        unsigned type = (unsigned char)s.ptr[n + 1];
        s.ptr += n + 2;
        s.len -= n + 2;
        if (!take_value(&s, type, &value)) return false;
        if (claw_str_eqz(name, ":event-type")) m->event_type = value;
        else if (claw_str_eqz(name, ":exception-type") || claw_str_eqz(name, ":error-code")) m->exception_type = value;
        else if (claw_str_eqz(name, ":error-message")) *told = value;
    }
    return true;
}

/* The message that lies whole at p. */
static int give(const char *p, size_t total, claw_event_stream_fn on_message, void *arg)
{
    struct claw_event_stream_message m = {CLAW_STR(""), CLAW_STR(""), CLAW_STR("")};
    struct claw_str told = CLAW_STR("");
    size_t headers = number(p + 4);
    if (claw_event_stream_crc(0, p, total - SUM) != number(p + total - SUM)) return CLAW_EBAD_RESPONSE;
    if (!read_headers((struct claw_str){p + PRELUDE, headers}, &m, &told)) return CLAW_EBAD_RESPONSE;
    m.payload = (struct claw_str){p + PRELUDE + headers, total - PRELUDE - headers - SUM};
    if (m.payload.len == 0 && m.exception_type.len) m.payload = told;
    return on_message(arg, &m);
}

/* How long the message at p is, once its prelude is there: 0, it is none. */
static size_t length(const struct claw_event_stream *s, const char *p)
{
    size_t total = number(p), headers = number(p + 4);
    if (claw_event_stream_crc(0, p, 8) != number(p + 8)) return 0;
    return total < PRELUDE + SUM || total > s->max || headers > total - PRELUDE - SUM ? 0 : total;
}

int claw_event_stream_feed(struct claw_event_stream *s, const char *data, size_t n, claw_event_stream_fn on_message, void *arg)
{
    while (n) {
        size_t held = claw_buf_size(&s->rest), want = PRELUDE, total;
        const char *at = held ? claw_buf_str(&s->rest).ptr : data;
        if ((held ? held : n) >= PRELUDE) {
            if ((total = length(s, at)) == 0) return CLAW_EBAD_RESPONSE;
            want = total;
            if (!held && n >= total) { /* it lies whole in what was fed */
                int rc = give(data, total, on_message, arg);
                if (rc < 0) return rc;
                data += total;
                n -= total;
                continue;
            }
        }
        size_t part = want - held < n ? want - held : n;
        int rc = claw_buf_add(&s->rest, data, part);
        if (rc != 0) return rc;
        data += part;
        n -= part;
        if (want == PRELUDE && claw_buf_size(&s->rest) == want && length(s, claw_buf_str(&s->rest).ptr) == 0) return CLAW_EBAD_RESPONSE;
        if (want == PRELUDE || claw_buf_size(&s->rest) < want) continue;
        rc = give(claw_buf_str(&s->rest).ptr, want, on_message, arg);
        if (rc < 0) return rc;
        claw_buf_clear(&s->rest);
    }
    return 0;
}
