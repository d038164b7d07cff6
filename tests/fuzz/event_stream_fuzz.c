/* event_stream: however the bytes are split, the same messages come out and the same judgement is made. The sums of an input
 * are made right first, message by message, so that what lies behind them is reached; with the first byte odd they stay.
 * The second byte seeds the splits. */
#include "http/event_stream.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t number(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static void put(char *p, uint32_t n)
{
    for (int i = 0; i < 4; i++) p[i] = (char)(n >> (24 - 8 * i));
}

static void mend(char *p, size_t n)
{
    while (n >= 16) {
        uint32_t total = number(p);
        put(p + 8, claw_event_stream_crc(0, p, 8));
        if (total < 16 || total > n) return;
        put(p + total - 4, claw_event_stream_crc(0, p, total - 4));
        p += total;
        n -= total;
    }
}

static int on_message(void *arg, const struct claw_event_stream_message *m)
{
    struct claw_buf *out = arg;
    const struct claw_str *parts[] = {&m->event_type, &m->exception_type, &m->payload};
    for (int i = 0; i < 3; i++) {
        CLAW_ASSERT(claw_buf_add_str(out, *parts[i]) == 0);
        CLAW_ASSERT(claw_buf_add(out, "\n", 1) == 0);
    }
    return 0;
}

/* Fed in parts of `step` bytes from heap blocks of their own. */
static int read_all(const char *p, size_t n, size_t step, struct claw_buf *out)
{
    struct claw_event_stream s;
    int rc = 0;
    claw_event_stream_init(&s, 4096);
    while (n && rc == 0) {
        size_t part = step < n ? step : n;
        char *copy = malloc(part);
        memcpy(copy, p, part);
        rc = claw_event_stream_feed(&s, copy, part, on_message, out);
        free(copy);
        p += part;
        n -= part;
    }
    claw_event_stream_fini(&s);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    size_t n = size - 2, step = 1 + data[1] % 31;
    char *bytes = malloc(n ? n : 1);
    memcpy(bytes, data + 2, n);
    if (data[0] % 2 == 0) mend(bytes, n);
    struct claw_buf whole, split;
    claw_buf_init(&whole, 0);
    claw_buf_init(&split, 0);
    int a = read_all(bytes, n, n ? n : 1, &whole), b = read_all(bytes, n, step, &split);
    CLAW_ASSERT(claw_str_eq(claw_buf_str(&whole), claw_buf_str(&split)));
    CLAW_ASSERT(a == b);
    claw_buf_fini(&whole);
    claw_buf_fini(&split);
    free(bytes);
    return 0;
}
