/* multipart: however the bytes are split, the same parts come out and the same judgement is made; a part's content lies where
 * it is told to, with nothing of a boundary's line in it.
 * The first line of an input is the Content-Type, the byte behind it seeds the splits. */
#include "http/multipart.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
    struct claw_multipart m;
    struct claw_buf out;
    struct claw_str body;
};

static void check_place(const struct reading *g, const struct claw_multipart_part *p)
{
    struct claw_str delimiter = {g->m.delimiter, g->m.delimiter_n}, content = {g->body.ptr + p->at, (size_t)p->bytes};
    CLAW_ASSERT(p->at + p->bytes + 1 + delimiter.len <= g->body.len);
    CLAW_ASSERT(claw_str_find(content, delimiter) < 0);
    CLAW_ASSERT(content.ptr[content.len] == '\r' && memcmp(content.ptr + content.len + 1, delimiter.ptr, delimiter.len) == 0);
    size_t kept = p->file ? 0 : content.len < CLAW_MULTIPART_VALUE_BYTES ? content.len : CLAW_MULTIPART_VALUE_BYTES;
    CLAW_ASSERT(claw_str_eq(p->value, (struct claw_str){content.ptr, kept}));
}

static int on_part(void *arg, const struct claw_multipart_part *p)
{
    struct reading *g = arg;
    check_place(g, p);
    CLAW_ASSERT(claw_buf_add_fmt(&g->out, "%d %d %llu %llu ", p->file, p->encoded, (unsigned long long)p->at, (unsigned long long)p->bytes) == 0);
    CLAW_ASSERT(claw_buf_add_str(&g->out, p->name) == 0 && claw_buf_add(&g->out, "\n", 1) == 0);
    return 0;
}

/* Fed in parts of `step` bytes from heap blocks of their own. */
static int read_all(struct reading *g, struct claw_str type, struct claw_str body, size_t step, bool *complete)
{
    claw_buf_init(&g->out, 0);
    g->body = body;
    int rc = claw_multipart_init(&g->m, type);
    for (size_t i = 0; i < body.len && rc == 0; i += step) {
        size_t n = step < body.len - i ? step : body.len - i;
        char *copy = malloc(n);
        memcpy(copy, body.ptr + i, n);
        rc = claw_multipart_feed(&g->m, copy, n, on_part, g);
        free(copy);
    }
    *complete = claw_multipart_complete(&g->m);
    claw_multipart_fini(&g->m);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *lf = size ? memchr(data, '\n', size) : NULL;
    if (!lf || lf + 1 == data + size) return 0;
    struct claw_str type = {(const char *)data, (size_t)(lf - data)}, body = {(const char *)lf + 2, size - type.len - 2};
    struct reading whole, split;
    bool a_complete, b_complete;
    int a = read_all(&whole, type, body, body.len, &a_complete), b = read_all(&split, type, body, 1 + lf[1] % 31, &b_complete);
    CLAW_ASSERT(a == b && a_complete == b_complete);
    CLAW_ASSERT(claw_str_eq(claw_buf_str(&whole.out), claw_buf_str(&split.out)));
    claw_buf_fini(&whole.out);
    claw_buf_fini(&split.out);
    return 0;
}
