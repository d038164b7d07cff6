#include "proxy/outgoing.h"

#include "proxy/upload.h"

/* A change to the body on its way out: `gone` bytes at `at` become `text`. */
struct edit { size_t at, gone; struct claw_str text; };
#define EDITS 2
_Static_assert(CLAW_OUTGOING_SLICES == 1 + 2 * EDITS, "a slice before and one for each edit, and the rest");

static struct claw_str quoted(struct claw_req *r, const char *prefix, struct claw_str text)
{
    struct claw_buf b, whole;
    claw_buf_init(&b, 0);
    claw_buf_init(&whole, 0);
    int rc = claw_buf_add_z(&whole, prefix);
    if (rc == 0) rc = claw_buf_add_str(&whole, text);
    if (rc == 0) rc = claw_buf_add_json(&b, claw_buf_str(&whole));
    struct claw_str s = claw_buf_str(&b);
    char *copy = rc == 0 ? claw_arena_dup(&r->arena, s.ptr, s.len) : NULL;
    s.ptr = copy;
    claw_buf_fini(&b);
    claw_buf_fini(&whole);
    return s;
}

/* The name of the model that is sent, in the place of the asked one. Gemini's body may say it too, as models/NAME. */
static bool edit_model(struct claw_req *r, struct claw_str body, struct edit *e)
{
    struct claw_json_value old = claw_json_top_get(&r->json, CLAW_STR("model"));
    if (old.type == CLAW_JSON_NONE) return false;
    bool in_path = claw_dialect_is_gemini((enum claw_dialect)r->dialect);
    *e = (struct edit){(size_t)(old.raw.ptr - body.ptr), old.raw.len, quoted(r, in_path ? "models/" : "", r->candidates[r->candidate].model)};
    return true;
}

/* The same in a form. */
static bool edit_field(struct claw_req *r, struct edit *e)
{
    const struct claw_upload *u = r->upload;
    if (!u->has_model) return false;
    struct claw_str model = r->candidates[r->candidate].model;
    if (!claw_h1_is_value(model)) model.ptr = NULL; /* it could bring fields of its own */
    *e = (struct edit){(size_t)u->model_at, (size_t)u->model_bytes, model};
    return true;
}

static bool is_empty(struct claw_json_value object) { return claw_json_count(object) == 0; }

/* Usage is asked for where a stream of OpenAI's would not tell it: no edit when the client does. */
static bool edit_usage(struct claw_req *r, struct claw_str body, const struct claw_json_top *top, struct edit *e)
{
    struct claw_json_value options = claw_json_top_get(top, CLAW_STR("stream_options"));
    struct claw_json_value asked = options.type == CLAW_JSON_OBJECT ? claw_json_get(options, CLAW_STR("include_usage")) : (struct claw_json_value){{NULL, 0}, CLAW_JSON_NONE};
    if (asked.type == CLAW_JSON_TRUE) return false;
    if (asked.type != CLAW_JSON_NONE)
        *e = (struct edit){(size_t)(asked.raw.ptr - body.ptr), asked.raw.len, CLAW_STR("true")};
    else if (options.type == CLAW_JSON_OBJECT)
        *e = (struct edit){(size_t)(options.raw.ptr - body.ptr) + 1, 0, is_empty(options) ? CLAW_STR("\"include_usage\":true") : CLAW_STR("\"include_usage\":true,")};
    else if (options.type == CLAW_JSON_NULL)
        *e = (struct edit){(size_t)(options.raw.ptr - body.ptr), options.raw.len, CLAW_STR("{\"include_usage\":true}")};
    else if (options.type == CLAW_JSON_NONE && top->root.type == CLAW_JSON_OBJECT && top->n > 0)
        *e = (struct edit){(size_t)(top->root.raw.ptr - body.ptr) + 1, 0, CLAW_STR("\"stream_options\":{\"include_usage\":true},")};
    else return false;
    r->hides_usage = true;
    return true;
}

static bool wants_usage(const struct claw_req *r)
{
    if (!r->stream || r->out_path.len || !claw_req_upstream(r)->asks_usage) return false;
    return r->sent_as == CLAW_DIALECT_OPENAI_CHAT || r->sent_as == CLAW_DIALECT_OPENAI_COMPLETIONS;
}

static uv_buf_t slice(struct claw_str s) { return uv_buf_init((char *)s.ptr, (unsigned)s.len); }

unsigned claw_outgoing_body(struct claw_req *r, uv_buf_t *to, size_t *total)
{
    struct claw_str body = claw_buf_str(r->out_body_set ? &r->out_body : &r->body);
    struct claw_json_top made;
    const struct claw_json_top *top = r->out_body_set ? NULL : r->has_json ? &r->json : NULL;
    struct claw_json_err err;
    struct edit edits[EDITS];
    unsigned n = 0, k = 0;
    size_t at = 0;
    *total = body.len;
    r->hides_usage = false;
    if (top && r->candidates[r->candidate].model.len) n += edit_model(r, body, &edits[n]);
    if (r->upload && !r->out_body_set && r->candidates[r->candidate].model.len) n += edit_field(r, &edits[n]);
    if (r->out_body_set && !r->translated && wants_usage(r) && claw_json_scan(body, &r->arena, &made, &err) == 0) top = &made;
    if (top && wants_usage(r)) n += edit_usage(r, body, top, &edits[n]);
    if (n == EDITS && edits[0].at > edits[1].at) {
        struct edit first = edits[1];
        edits[1] = edits[0];
        edits[0] = first;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!edits[i].text.ptr) return 0;
        to[k++] = slice((struct claw_str){body.ptr + at, edits[i].at - at});
        to[k++] = slice(edits[i].text);
        at = edits[i].at + edits[i].gone;
        *total += edits[i].text.len - edits[i].gone;
    }
    if (body.len > at) to[k++] = slice((struct claw_str){body.ptr + at, body.len - at});
    return k;
}
