/* admin_explain: POST /explain, what -explain says, of the generation that serves; or as it would be with another text of a policy.
 *
 *   {"request": {"method","path","headers","client","body"} or a body, "policy": {"name","text"}}
 *
 * It runs on the control thread, in a VM of its own that is thrown away: as long as a reload takes, each hook within
 * policies.budget_ms. Nothing leaves the process, nothing is stored or counted for others.
 */
#include "app/admin_part.h"

#include "base/json.h"
#include "script/policy.h"

#include <stdlib.h>

struct question {
    struct claw_str request;         /* as it came */
    struct claw_control_draft draft;
    bool drafted;
};

static int member_text(struct claw_json_value map, const char *key, struct claw_arena *a, struct claw_str *out)
{
    size_t at = 0;
    struct claw_str k;
    struct claw_json_value v;
    while (claw_json_next(map, &at, &k, &v))
        if (claw_str_eqz(k, key)) return v.type == CLAW_JSON_STRING ? claw_json_text(v, a, out) : CLAW_EINVAL;
    return CLAW_EINVAL;
}

/* NULL: understood; else what is wrong. */
static const char *read_question(struct claw_admin_question *q, struct question *to)
{
    struct claw_json_top top;
    struct claw_json_err err;
    if (claw_json_scan(claw_buf_str(&q->body), &q->arena, &top, &err) != 0) return "The body is JSON: {\"request\": …}.";
    struct claw_json_value request = claw_json_top_get(&top, CLAW_STR("request")), policy = claw_json_top_get(&top, CLAW_STR("policy"));
    if (request.type != CLAW_JSON_OBJECT) return "request is an object: a request's body, or {\"method\",\"path\",\"headers\",\"client\",\"body\"}.";
    to->request = request.raw;
    if (policy.type == CLAW_JSON_NONE || policy.type == CLAW_JSON_NULL) return NULL;
    to->drafted = true;
    if (policy.type != CLAW_JSON_OBJECT || member_text(policy, "name", &q->arena, &to->draft.name) != 0 ||
        member_text(policy, "text", &q->arena, &to->draft.text) != 0)
        return "policy is {\"name\",\"text\"}.";
    return NULL;
}

/* How it went: decided; failed: a policy did, and the report says where; invalid: the request is none. */
static const char *explain(struct claw_generation *gen, struct claw_str request, struct claw_buf *report)
{
    struct claw_policy_vm *vm;
    char *why = NULL;
    int rc = claw_policy_vm_new(gen, &vm, &why);
    if (rc != 0) {
        rc = claw_buf_add_fmt(report, "%s\n", why ? why : claw_err_text(rc));
        free(why);
        return "failed";
    }
    rc = claw_policy_explain(vm, request, report);
    claw_policy_vm_free(vm);
    if (rc == CLAW_EBAD_JSON && claw_buf_size(report) == 0) return "invalid";
    return rc == 0 ? "decided" : "failed";
}

void claw_admin_explain(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct question asked = {.drafted = false};
    struct claw_generation *gen = NULL;
    struct claw_buf report;
    uint64_t start = claw_loop_clock_us();
    const char *why = read_question(q, &asked), *result = "refused";
    if (why) {
        claw_admin_answer_error(c, 400, why, "bad_question");
        return;
    }
    claw_buf_init(&report, 4u << 20);
    if (!asked.drafted) gen = claw_generation_ref(control->current);
    int rc = gen ? 0 : claw_control_build_draft(control, &asked.draft, &gen, &report);
    if (rc == 0) result = explain(gen, asked.request, &report);
    if (gen) claw_generation_unref(gen);
    claw_log_redact(&report);
    rc = claw_buf_add_fmt(&q->out, "{\"result\":\"%s\",\"took_ms\":%.1f,\"report\":", result, (double)(claw_loop_clock_us() - start) / 1e3);
    if (rc == 0) rc = claw_buf_add_json(&q->out, claw_buf_str(&report));
    if (rc == 0) rc = claw_buf_add_z(&q->out, "}\n");
    claw_buf_fini(&report);
    claw_log_flush();
    if (rc == 0 && (*result == 'r' || *result == 'i')) claw_admin_answer(c, 422, "application/json");
    else claw_admin_answer_json(c, rc);
}
