/* recall_key: which requests are the same (recall.h). */
#include "proxy/recall_part.h"

#include "base/canon.h"

/* What does not change an answer. Whether a stream is wanted is told apart where one cannot be made of the other. */
static const struct claw_str insignificant[] = {
    {"stream", 6}, {"stream_options", 14}, {"user", 4}, {"metadata", 8}, {"safety_identifier", 17}, {"prompt_cache_key", 16}, {"prompt_cache_retention", 22},
};

static void add_field(struct claw_canon *c, const struct claw_header *h)
{
    char low[64];
    size_t n = 0;
    for (; n < h->name.len && n < sizeof low; n++) low[n] = h->name.ptr[n] >= 'A' && h->name.ptr[n] <= 'Z' ? (char)(h->name.ptr[n] + 32) : h->name.ptr[n];
    claw_canon_add(c, (struct claw_str){low, n});
    claw_canon_add(c, h->value);
}

static bool begins(struct claw_str s, const char *with)
{
    size_t n = strlen(with);
    return s.len >= n && strncasecmp(s.ptr, with, n) == 0;
}

/* The providers' own fields say which version of an answer is wanted. */
static void add_fields(struct claw_canon *c, const struct claw_head *h)
{
    for (size_t i = 0; i < h->n; i++)
        if (begins(h->headers[i].name, "anthropic-") || begins(h->headers[i].name, "openai-")) add_field(c, &h->headers[i]);
}

/* Without the client's key, and without how a stream is framed. */
static void add_query(struct claw_canon *c, struct claw_str query)
{
    struct claw_h1_parameter one;
    while (claw_h1_next_parameter(&query, &one))
        if (!claw_str_eqz(one.name, "key") && !claw_str_eqz(one.name, "alt")) claw_canon_add(c, one.whole);
}

static struct claw_str query_key(struct claw_str query)
{
    struct claw_h1_parameter one;
    while (claw_h1_next_parameter(&query, &one))
        if (claw_str_eqz(one.name, "key")) return one.value;
    return CLAW_STR("");
}

/* Who asks, as well as can be known. */
static void add_client(struct claw_canon *c, const struct claw_req *r)
{
    static const enum claw_header_id keys[] = {CLAW_H_AUTHORIZATION, CLAW_H_X_API_KEY, CLAW_H_API_KEY, CLAW_H_X_GOOG_API_KEY};
    if (r->caller) {
        claw_canon_add(c, CLAW_STR("client"));
        claw_canon_add(c, r->caller->name);
        return;
    }
    bool found = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct claw_header *h = claw_head_find(r->head, keys[i]);
        if (h) claw_canon_add(c, h->value);
        found |= h != NULL;
    }
    struct claw_str key = query_key(r->head->query);
    if (key.len) claw_canon_add(c, key);
    if (!found && key.len == 0) claw_canon_add(c, claw_str_of(r->peer));
}

int claw_recall_key(const struct claw_req *r, bool per_client, bool recasts, struct claw_cache_key *key)
{
    struct claw_canon c;
    struct claw_arena scratch;
    char first[8192] __attribute__((aligned(16)));
    struct claw_str path = r->head->path;
    if (claw_dialect_is_gemini(r->dialect)) /* the verb says how the answer is framed */
        while (path.len && path.ptr[path.len - 1] != ':') path.len--;
    claw_canon_begin(&c);
    claw_canon_add_number(&c, per_client);
    if (per_client) add_client(&c, r);
    claw_canon_add(&c, claw_req_route_id(r));
    claw_canon_add_number(&c, claw_req_conf(r)->routes[r->route].hash);
    claw_canon_add_number(&c, r->gen->gen->policies_hash);
    claw_canon_add_number(&c, r->dialect);
    claw_canon_add_number(&c, recasts ? 0 : 1u + r->stream + 2u * r->array);
    claw_canon_add(&c, path);
    claw_canon_add(&c, r->model);
    add_query(&c, r->head->query);
    claw_canon_add(&c, CLAW_STR("fields"));
    add_fields(&c, r->head);
    claw_canon_add(&c, CLAW_STR("body"));
    claw_arena_init(&scratch, first, sizeof first, CLAW_RECALL_SCRATCH);
    int rc = claw_canon_add_json(&c, claw_buf_str(&r->body), r->json.nodes, insignificant, sizeof insignificant / sizeof *insignificant, &scratch);
    claw_arena_reset(&scratch);
    claw_canon_end(&c, key->bytes);
    return rc;
}
