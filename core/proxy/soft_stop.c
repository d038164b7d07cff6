#include "proxy/soft_stop.h"

#include "http/sse.h"
#include "proxy/spend.h"

#include <stdio.h>
#include <time.h>

#define LOOK_BYTES 512u
#define TEXT_BYTES 2048u

static bool ends_so(enum claw_dialect d)
{
    return d == CLAW_DIALECT_OPENAI_CHAT || d == CLAW_DIALECT_OPENAI_COMPLETIONS || d == CLAW_DIALECT_ANTHROPIC_MESSAGES || d == CLAW_DIALECT_GEMINI_GENERATE;
}

/* Of the candidate that answers, as the end charges it. Where a hook has a say in the cost, as the upstream's own price is. */
static struct claw_conf_price price_of(const struct claw_req *r)
{
    if (r->decision && r->prices) return r->prices[r->candidates[r->candidate].place];
    struct claw_conf_price p = claw_req_upstream(r)->conf->price;
    p.long_above = p.long_input = p.long_output = p.long_cached = -1; /* the file has none */
    return p;
}

void claw_soft_stop_begin(struct claw_soft_stop *s, const struct claw_req *r)
{
    int64_t n = 1;
    *s = (struct claw_soft_stop){.next = LOOK_BYTES};
    if (!r->caller || !r->caller->budget.soft_stop || r->caller->budget.micros < 0 || r->recall || r->candidates_n == 0) return;
    if (!ends_so((enum claw_dialect)r->dialect)) return;
    if (r->has_json) {
        struct claw_json_value options = claw_json_top_get(&r->json, CLAW_STR("stream_options")), config = claw_json_top_get(&r->json, CLAW_STR("generationConfig"));
        if (claw_json_int(claw_json_top_get(&r->json, CLAW_STR("n")), &n) != 0 && claw_json_int(claw_json_get(config, CLAW_STR("candidateCount")), &n) != 0) n = 1;
        s->tells = claw_json_get(options, CLAW_STR("include_usage")).type == CLAW_JSON_TRUE;
    }
    s->on = n == 1;
}

static void estimated(struct claw_req *r, int64_t said, struct claw_usage *u)
{
    *u = r->usage;
    claw_usage_estimate(u, false, u->input < 0 ? claw_req_prompt_tokens(r) : -1, said);
}

static bool is_due(struct claw_soft_stop *s, struct claw_req *r, int64_t said)
{
    struct claw_usage u;
    enum claw_spend_per per;
    struct claw_spend *spend = claw_spend_of(r->caller->name);
    s->next = s->bytes + LOOK_BYTES + s->bytes / 32;
    if (!spend || !claw_spend_per_of(r->caller->budget.per, &per)) return false;
    estimated(r, said, &u);
    struct claw_conf_price price = price_of(r);
    int64_t cost = claw_usage_charge(&price, &u);
    return cost > 0 && claw_spend_in(spend, per, (int64_t)time(NULL)) + cost >= r->caller->budget.micros;
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static struct claw_str kept(struct claw_req *r, const char *text, int n)
{
    if (n <= 0 || n >= (int)TEXT_BYTES) return CLAW_STR("");
    char *p = claw_arena_dup(&r->arena, text, (size_t)n);
    return (struct claw_str){p ? p : "", p ? (size_t)n : 0};
}

static struct claw_str raw_of(const struct claw_json_top *top, const char *key, const char *otherwise)
{
    struct claw_json_value v = claw_json_top_get(top, claw_str_of(key));
    return v.raw.len && v.raw.len <= 256 ? v.raw : claw_str_of(otherwise);
}

static bool is_open(struct claw_json_value choice, const char *key)
{
    enum claw_json_type type = claw_json_get(choice, claw_str_of(key)).type;
    return choice.type == CLAW_JSON_OBJECT && (type == CLAW_JSON_NONE || type == CLAW_JSON_NULL);
}

static unsigned write_openai(const struct claw_soft_stop *s, struct claw_req *r, const struct claw_json_top *top, const struct claw_usage *u,
                             struct claw_policy_event out[CLAW_SOFT_STOP_EVENTS])
{
    bool chat = r->dialect == CLAW_DIALECT_OPENAI_CHAT;
    struct claw_str id = raw_of(top, "id", "\"\""), created = raw_of(top, "created", "0"), model = raw_of(top, "model", "\"\"");
    char text[TEXT_BYTES], head[TEXT_BYTES];
    unsigned n = 0;
    if (!is_open(claw_json_at(claw_json_top_get(top, CLAW_STR("choices")), 0), "finish_reason")) return 0;
    int len = snprintf(head, sizeof head, "{\"id\":%.*s,\"object\":\"%s\",\"created\":%.*s,\"model\":%.*s", CLAW_STR_FMT(id),
                       chat ? "chat.completion.chunk" : "text_completion", CLAW_STR_FMT(created), CLAW_STR_FMT(model));
    if (len <= 0 || len >= (int)sizeof head) return 0;
    len = snprintf(text, sizeof text, "%s,\"choices\":[{\"index\":0,%s,\"finish_reason\":\"length\"}]}", head, chat ? "\"delta\":{}" : "\"text\":\"\",\"logprobs\":null");
    out[n++].data = kept(r, text, len);
    if (s->tells) {
        len = snprintf(text, sizeof text, "%s,\"choices\":[],\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld}}", head,
                       (long long)u->input, (long long)u->output, (long long)(u->input + u->output));
        out[n++].data = kept(r, text, len);
    }
    out[n++].data = CLAW_STR("[DONE]");
    return n;
}

/* Within a block, which is ended first. */
static unsigned write_anthropic(struct claw_req *r, const struct claw_json_top *top, const struct claw_usage *u, struct claw_policy_event out[CLAW_SOFT_STOP_EVENTS])
{
    char text[TEXT_BYTES];
    struct claw_str index = raw_of(top, "index", "0");
    if (!claw_json_text_is(claw_json_top_get(top, CLAW_STR("type")), CLAW_STR("content_block_delta"))) return 0;
    int len = snprintf(text, sizeof text, "{\"type\":\"content_block_stop\",\"index\":%.*s}", CLAW_STR_FMT(index));
    out[0] = (struct claw_policy_event){CLAW_STR("content_block_stop"), kept(r, text, len)};
    len = snprintf(text, sizeof text, "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":%lld}}",
                   (long long)u->output);
    out[1] = (struct claw_policy_event){CLAW_STR("message_delta"), kept(r, text, len)};
    out[2] = (struct claw_policy_event){CLAW_STR("message_stop"), CLAW_STR("{\"type\":\"message_stop\"}")};
    return 3;
}

static unsigned write_gemini(struct claw_req *r, const struct claw_json_top *top, const struct claw_usage *u, struct claw_policy_event out[CLAW_SOFT_STOP_EVENTS])
{
    char text[TEXT_BYTES];
    struct claw_str model = raw_of(top, "modelVersion", "\"\"");
    if (!is_open(claw_json_at(claw_json_top_get(top, CLAW_STR("candidates")), 0), "finishReason")) return 0;
    int len = snprintf(text, sizeof text,
                       "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":\"MAX_TOKENS\",\"index\":0}],"
                       "\"usageMetadata\":{\"promptTokenCount\":%lld,\"candidatesTokenCount\":%lld,\"totalTokenCount\":%lld},\"modelVersion\":%.*s}",
                       (long long)u->input, (long long)u->output, (long long)(u->input + u->output), CLAW_STR_FMT(model));
    out[0].data = kept(r, text, len);
    return 1;
}

static unsigned write_end(const struct claw_soft_stop *s, struct claw_req *r, struct claw_str data, const struct claw_usage *u,
                          struct claw_policy_event out[CLAW_SOFT_STOP_EVENTS])
{
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    unsigned n = 0;
    claw_arena_init(&a, NULL, 0, 1u << 20);
    for (unsigned i = 0; i < CLAW_SOFT_STOP_EVENTS; i++) out[i] = (struct claw_policy_event){CLAW_STR(""), CLAW_STR("")};
    if (claw_json_scan(data, &a, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT) {
        if (r->dialect == CLAW_DIALECT_ANTHROPIC_MESSAGES) n = write_anthropic(r, &top, u, out);
        else if (r->dialect == CLAW_DIALECT_GEMINI_GENERATE) n = write_gemini(r, &top, u, out);
        else n = write_openai(s, r, &top, u, out);
    }
    claw_arena_reset(&a);
    for (unsigned i = 0; i < n; i++)
        if (!out[i].data.len) return 0; /* without memory it goes on */
    return n;
}

unsigned claw_soft_stop_end(struct claw_soft_stop *s, struct claw_req *r, struct claw_str event, int64_t said,
                            struct claw_policy_event out[CLAW_SOFT_STOP_EVENTS])
{
    struct claw_sse_fields f = {.data = event};
    struct claw_usage u;
    struct claw_buf tmp;
    unsigned n = 0;
    if (!is_due(s, r, said)) return 0;
    estimated(r, said, &u);
    if (u.input < 0) u.input = 0;
    claw_buf_init(&tmp, 0);
    bool framed = event.len && event.ptr[0] != '{';
    if (!framed || claw_sse_parse(event, &tmp, &f) == 0) n = write_end(s, r, f.data, &u, out);
    claw_buf_fini(&tmp);
    r->soft_stopped = n > 0;
    return n;
}
