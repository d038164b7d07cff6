#include "proxy/upload.h"

#include "http/h1.h"
#include "proxy/outgoing.h"

#include <stdio.h>

static void upload_fini(void *arg)
{
    struct claw_upload *u = arg;
    claw_multipart_fini(&u->form);
    claw_buf_fini(&u->ahead);
}

/* ---- what stands in it --------------------------------------------------------------------------------------------------- */

/* What is wrong with the form, for the client. */
static int refuse(struct claw_req *r, const char *why)
{
    char text[160];
    int n = snprintf(text, sizeof text, "The form in the request's body is malformed: %s.", why);
    char *copy = claw_arena_dup(&r->arena, text, (size_t)n);
    if (!copy) return CLAW_EREQ_MEM;
    r->error_text = (struct claw_str){copy, (size_t)n};
    return CLAW_EBAD_REQUEST;
}

static int refuse_model(struct claw_req *r, const char *why)
{
    r->error_param = CLAW_STR("model");
    return refuse(r, why);
}

static int read_model(struct claw_req *r, const struct claw_multipart_part *p)
{
    struct claw_upload *u = r->upload;
    if (u->has_model) return refuse_model(r, "the field \"model\" is there twice");
    if (p->file || p->encoded) return refuse_model(r, "the field \"model\" is not plain text");
    if (p->bytes > p->value.len) return refuse_model(r, "the field \"model\" is too long");
    if (!claw_h1_is_value(p->value)) return refuse_model(r, "the field \"model\" has control characters");
    u->has_model = true;
    if (u->streams) return 0; /* too late */
    u->model_at = p->at;
    u->model_bytes = p->bytes;
    char *copy = claw_arena_dup(&r->arena, p->value.ptr, p->value.len);
    if (!copy) return CLAW_EREQ_MEM;
    r->model = (struct claw_str){copy, p->value.len};
    return 0;
}

static int on_part(void *arg, const struct claw_multipart_part *p)
{
    struct claw_req *r = arg;
    if (claw_str_eqz(p->name, "model")) return read_model(r, p);
    if (!r->upload->streams && claw_str_eqz(p->name, "stream") && claw_str_ieq(p->value, CLAW_STR("true"))) r->stream = true;
    return 0;
}

static int judge(struct claw_req *r, int rc)
{
    const char *why = claw_multipart_error(&r->upload->form);
    if (rc == CLAW_ENOMEM) return CLAW_EREQ_MEM;
    return rc == CLAW_EBAD_REQUEST && *why ? refuse(r, why) : rc;
}

int claw_upload_begin(struct claw_req *r)
{
    struct claw_str type = CLAW_STR("");
    unsigned types = 0;
    for (size_t i = 0; i < r->head->n; i++) {
        const struct claw_header *h = &r->head->headers[i];
        if (h->id != CLAW_H_CONTENT_TYPE) continue;
        if (types++ == 0 || claw_multipart_is(h->value)) type = h->value;
    }
    if (!claw_multipart_is(type)) return 0;
    if (types > 1) return refuse(r, "it has two Content-Types");
    struct claw_upload *u = claw_arena_zalloc(&r->arena, sizeof *u);
    if (!u) return CLAW_EREQ_MEM;
    claw_buf_init(&u->ahead, 0);
    int rc = claw_multipart_init(&u->form, type);
    if (claw_arena_defer(&r->arena, upload_fini, u) != 0) {
        upload_fini(u);
        return CLAW_EREQ_MEM;
    }
    r->upload = u;
    return judge(r, rc);
}

/* ---- where it goes ------------------------------------------------------------------------------------------------------- */

bool claw_upload_streams(const struct claw_req *r) { return r->upload && r->upload->streams; }
bool claw_upload_spent(const struct claw_req *r) { return r->upload && r->upload->spent; }

static bool chunked(const struct claw_req *r) { return r->head->content_length < 0; }

/* To the upstream, as a chunk where nobody knows the length. */
static void write_bufs(struct claw_req *r, const uv_buf_t *bufs, unsigned n)
{
    uv_buf_t out[CLAW_OUTGOING_SLICES + 2];
    char line[24];
    size_t bytes = 0;
    unsigned k = 0;
    for (unsigned i = 0; i < n; i++) bytes += bufs[i].len;
    if (bytes == 0) return;
    if (chunked(r)) out[k++] = uv_buf_init(line, (unsigned)claw_h1_chunk_line(line, bytes));
    for (unsigned i = 0; i < n; i++) out[k++] = bufs[i];
    if (chunked(r)) out[k++] = uv_buf_init("\r\n", 2);
    if (claw_client_write(r->client, out, k) == CLAW_EAGAIN) r->upload->blocked = true;
}

/* More than is held: from here on there is no other try, and nobody asks for the beginning. */
static void send_more(struct claw_req *r, const char *data, size_t n)
{
    uv_buf_t one = uv_buf_init((char *)data, (unsigned)n);
    if (!r->upload->spent) {
        r->upload->spent = true;
        claw_buf_fini(&r->body);
    }
    write_bufs(r, &one, 1);
}

static void send_end(struct claw_req *r)
{
    uv_buf_t last = uv_buf_init("0\r\n\r\n", 5);
    if (chunked(r)) {
        int rc = claw_client_write(r->client, &last, 1);
        (void)rc; /* nothing waits for it */
    }
    claw_client_sent(r->client);
    r->upload->ended = true;
}

/* What can go out now goes; then the client may send more. */
static void flush(struct claw_req *r)
{
    struct claw_upload *u = r->upload;
    if (!r->client || u->blocked || u->ended) return;
    struct claw_str s = claw_buf_str(&u->ahead);
    if (s.len) {
        send_more(r, s.ptr, s.len);
        claw_buf_fini(&u->ahead);
    }
    if (u->blocked) return;
    if (r->upload_done) send_end(r);
    if (r->conn) claw_conn_resume(r->conn);
}

int claw_upload_take(struct claw_req *r, const char *data, size_t n)
{
    struct claw_upload *u = r->upload;
    int rc = judge(r, claw_multipart_feed(&u->form, data, n, on_part, r));
    if (rc != 0) return rc;
    r->bytes_in += n;
    if (!u->streams) return claw_buf_add(&r->body, data, n) == 0 ? 0 : CLAW_EREQ_MEM;
    bool through = r->client && !u->blocked && claw_buf_size(&u->ahead) == 0;
    if (through) send_more(r, data, n);
    else if (claw_buf_add(&u->ahead, data, n) != 0) return CLAW_EREQ_MEM;
    if (!through || u->blocked) claw_conn_pause(r->conn);
    return 0;
}

bool claw_upload_starts(struct claw_req *r)
{
    struct claw_upload *u = r->upload;
    size_t held = claw_buf_size(&r->body), most = claw_req_conf(r)->server.upload_hold_bytes;
    size_t least = most < CLAW_UPLOAD_HEAD_BYTES ? most : CLAW_UPLOAD_HEAD_BYTES;
    if (u->streams || held < (u->has_model ? least : most)) return false;
    if (!chunked(r) && ((uint64_t)r->head->content_length <= most || (uint64_t)r->head->content_length == r->bytes_in)) return false;
    u->streams = true;
    claw_conn_pause(r->conn); /* until there is an exchange */
    return true;
}

int claw_upload_end(struct claw_req *r)
{
    if (!claw_multipart_complete(&r->upload->form)) return refuse(r, "it ends before its last boundary");
    if (r->upload->streams) flush(r);
    return 0;
}

size_t claw_upload_size(const struct claw_req *r, size_t beginning)
{
    CLAW_ASSERT(!r->upload->spent);
    if (chunked(r)) return CLAW_REQ_CHUNKED;
    return (size_t)r->head->content_length - claw_buf_size(&r->body) + beginning;
}

void claw_upload_open(struct claw_req *r, const uv_buf_t *beginning, unsigned n)
{
    r->upload->blocked = r->upload->ended = false;
    claw_client_sends(r->client);
    write_bufs(r, beginning, n);
    flush(r);
}

void claw_upload_drained(struct claw_req *r)
{
    r->upload->blocked = false;
    flush(r);
}
