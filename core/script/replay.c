/* replay: -replay. Recorded requests decided anew, and what differs told. */
#include "script/policy_part.h"

#include "proxy/clients.h"

#include <stdlib.h>

struct side {
    struct claw_str route;
    struct claw_str names[CLAW_CANDIDATES_MAX], models[CLAW_CANDIDATES_MAX]; /* in order */
    size_t n;
    int denied;          /* the status it was answered with instead of being sent on; 0: it was sent on */
    struct claw_str why; /* the code that came with it, or the policy that answered */
    int64_t cost;        /* micro-dollars, -1: not known */
};

struct totals {
    unsigned decisions, skipped, routes, candidates, refusals, costs;
    int64_t before, after;
};

static struct claw_str text_of(struct claw_req *r, struct claw_json_value v)
{
    struct claw_str s;
    return v.type == CLAW_JSON_STRING && claw_json_text(v, &r->arena, &s) == CLAW_OK ? s : CLAW_STR("");
}

static int64_t whole_of(struct claw_json_value v)
{
    int64_t n;
    return v.type == CLAW_JSON_NUMBER && claw_json_int(v, &n) == CLAW_OK ? n : -1;
}

static void read_recorded(struct claw_req *r, const struct claw_json_top *top, struct side *to)
{
    struct claw_json_value list = claw_json_top_get(top, CLAW_STR("candidates")), c;
    size_t pos = 0;
    struct claw_str key;
    *to = (struct side){.route = text_of(r, claw_json_top_get(top, CLAW_STR("route")))};
    while (to->n < CLAW_CANDIDATES_MAX && claw_json_next(list, &pos, &key, &c)) {
        to->names[to->n] = text_of(r, claw_json_get(c, CLAW_STR("upstream")));
        to->models[to->n++] = text_of(r, claw_json_get(c, CLAW_STR("model")));
    }
    if (to->n == 0) {
        to->denied = (int)whole_of(claw_json_top_get(top, CLAW_STR("status")));
        to->why = text_of(r, claw_json_top_get(top, CLAW_STR("refused")));
        if (to->why.len == 0) to->why = text_of(r, claw_json_top_get(top, CLAW_STR("answered_by")));
    }
    to->cost = whole_of(claw_json_top_get(top, CLAW_STR("cost_micros")));
    struct claw_json_value u = claw_json_top_get(top, CLAW_STR("usage"));
    r->usage = (struct claw_usage){.input = whole_of(claw_json_get(u, CLAW_STR("input"))), .output = whole_of(claw_json_get(u, CLAW_STR("output"))),
                                   .cached = whole_of(claw_json_get(u, CLAW_STR("cached"))), .reasoning = whole_of(claw_json_get(u, CLAW_STR("reasoning"))),
                                   .written = whole_of(claw_json_get(u, CLAW_STR("cache_write")))};
    r->estimated = claw_json_get(u, CLAW_STR("estimated")).type == CLAW_JSON_TRUE ? CLAW_USAGE_INPUT | CLAW_USAGE_OUTPUT : 0;
    r->caller = claw_clients_named(claw_req_conf(r), text_of(r, claw_json_top_get(top, CLAW_STR("client"))));
    struct claw_str ip = text_of(r, claw_json_top_get(top, CLAW_STR("ip")));
    if (ip.len && ip.len < sizeof r->peer) {
        memcpy(r->peer, ip.ptr, ip.len);
        r->peer[ip.len] = 0;
    }
    r->head->query = text_of(r, claw_json_top_get(top, CLAW_STR("query")));
}

/* Does the strategy take turns, draw lots or look at the present load? Then only who may serve is compared. */
static bool takes_turns(const struct claw_req *r)
{
    static const char *const names[] = {"round_robin", "weighted_round_robin", "weighted_random", "canary", "least_busy", "lowest_latency"};
    if (r->route < 0) return false;
    const struct claw_conf_node *s = claw_conf_get(claw_req_conf(r)->routes[r->route].node, "strategy");
    const struct claw_conf_node *type = s ? claw_conf_get(s, "type") : NULL;
    for (size_t i = 0; type && type->type == CLAW_CONF_STRING && i < sizeof names / sizeof *names; i++)
        if (claw_str_eqz(type->text, names[i])) return true;
    return false;
}

static void read_decided(const struct claw_explained *x, int rc, struct side *to)
{
    const struct claw_req *r = x->r;
    *to = (struct side){.route = claw_req_route_id(r), .cost = -1};
    if (rc != CLAW_OK || strcmp(x->kind, "routed") != 0) {
        to->denied = rc != CLAW_OK ? claw_err_status(CLAW_EPOLICY) : x->status ? x->status : claw_err_status(r->error);
        to->why = rc != CLAW_OK ? CLAW_STR("policy_error") : x->code;
        return;
    }
    for (; to->n < r->candidates_n; to->n++) {
        const struct claw_candidate *c = &r->candidates[to->n];
        to->names[to->n] = claw_req_conf(r)->upstreams[c->upstream].name;
        to->models[to->n] = c->model.len ? c->model : r->model;
    }
}

static int find(const struct side *s, struct claw_str name)
{
    for (size_t i = 0; i < s->n; i++)
        if (claw_str_eq(s->names[i], name)) return (int)i;
    return -1;
}

/* The candidate that would be charged: where turns are taken the one that served, else the one in its place. */
static unsigned charged(const struct side *old, const struct side *now, struct claw_str served, bool turns)
{
    int there = find(now, served), place = find(old, served);
    if (turns && there >= 0) return (unsigned)there;
    if (place < 0 || now->n == 0) return 0;
    return (size_t)place < now->n ? (unsigned)place : (unsigned)now->n - 1;
}

static bool same_set(const struct side *a, const struct side *b)
{
    for (size_t i = 0; i < a->n; i++) {
        int at = find(b, a->names[i]);
        if (at < 0 || !claw_str_eq(a->models[i], b->models[at])) return false;
    }
    return a->n == b->n;
}

static int add_first(struct claw_buf *out, const struct side *s)
{
    if (s->n == 0) return claw_buf_add_z(out, "nobody");
    if (s->models[0].len == 0) return claw_buf_add_str(out, s->names[0]);
    return claw_buf_add_fmt(out, "%.*s with %.*s", CLAW_STR_FMT(s->names[0]), CLAW_STR_FMT(s->models[0]));
}

static int add_denied(struct claw_buf *out, const struct side *s)
{
    if (s->denied == 0) return claw_buf_add_z(out, "no");
    return claw_buf_add_fmt(out, "%d%s%.*s", s->denied, s->why.len ? " " : "", CLAW_STR_FMT(s->why));
}

/* What differs, behind its line's number; nothing when nothing does. */
static int tell(struct claw_buf *out, unsigned line, const struct side *old, const struct side *now, bool turns, struct totals *t)
{
    bool route = !claw_str_eq(old->route, now->route) && old->n && now->n, refusal = old->denied != now->denied;
    bool first = old->n && now->n && (turns ? !same_set(old, now) : !claw_str_eq(old->names[0], now->names[0]) || !claw_str_eq(old->models[0], now->models[0]));
    bool cost = old->cost != now->cost && old->n && now->n;
    t->routes += route;
    t->candidates += first;
    t->refusals += refusal;
    t->costs += cost;
    if (!route && !first && !refusal && !cost) return CLAW_OK;
    const char *comma = "";
    int rc = claw_buf_add_fmt(out, "line %u: ", line);
    if (rc == CLAW_OK && route) rc = claw_buf_add_fmt(out, "route %.*s -> %.*s", CLAW_STR_FMT(old->route), CLAW_STR_FMT(now->route));
    if (route) comma = "; ";
    if (rc == CLAW_OK && first) {
        rc = claw_buf_add_fmt(out, "%s%s ", comma, turns ? "candidates, first" : "first");
        if (rc == CLAW_OK) rc = add_first(out, old);
        if (rc == CLAW_OK) rc = claw_buf_add_z(out, " -> ");
        if (rc == CLAW_OK) rc = add_first(out, now);
        comma = "; ";
    }
    if (rc == CLAW_OK && refusal) {
        rc = claw_buf_add_fmt(out, "%s%s ", comma, old->denied >= 400 || now->denied >= 400 ? "refused" : "answered");
        if (rc == CLAW_OK) rc = add_denied(out, old);
        if (rc == CLAW_OK) rc = claw_buf_add_z(out, " -> ");
        if (rc == CLAW_OK) rc = add_denied(out, now);
        comma = "; ";
    }
    if (rc == CLAW_OK && cost) {
        rc = claw_buf_add_fmt(out, "%scost ", comma);
        for (int i = 0; i < 2 && rc == CLAW_OK; i++) {
            int64_t micros = i ? now->cost : old->cost;
            rc = micros < 0 ? claw_buf_add_z(out, "unknown") : claw_buf_add_fmt(out, "$%.6f", (double)micros / 1e6);
            if (rc == CLAW_OK && i == 0) rc = claw_buf_add_z(out, " -> ");
        }
    }
    return rc == CLAW_OK ? claw_buf_add_z(out, "\n") : rc;
}

/* A recorded request is one for -explain, with more members. */
static int replay_line(struct claw_policy_vm *p, struct claw_str text, unsigned line, struct claw_buf *out, struct totals *t)
{
    struct claw_buf report;
    claw_buf_init(&report, 0);
    struct claw_explained x = {.out = &report};
    struct claw_json_top top;
    struct claw_json_err e;
    struct side old, now;
    int rc = claw_explained_open(&x, p, text);
    if (rc == CLAW_OK) rc = claw_json_scan(text, &x.r->arena, &top, &e);
    if (rc == CLAW_OK && (claw_json_top_get(&top, CLAW_STR("candidates")).type != CLAW_JSON_ARRAY || !x.r->head)) rc = CLAW_EBAD_JSON;
    if (rc == CLAW_OK && claw_json_top_get(&top, CLAW_STR("body_left_out")).type != CLAW_JSON_NONE) {
        t->skipped++;
    } else if (rc == CLAW_OK) {
        read_recorded(x.r, &top, &old);
        p->vm->random[0] = line;
        p->vm->random[1] = 1;
        int decided = claw_explained_decide(&x, false);
        if (!x.kind) rc = decided;
        if (rc == CLAW_OK) {
            bool turns = takes_turns(x.r);
            struct claw_policy_error err;
            read_decided(&x, decided, &now);
            x.r->candidate = charged(&old, &now, text_of(x.r, claw_json_top_get(&top, CLAW_STR("upstream"))), turns);
            if (now.n && x.r->gen->ops->finish(p, x.r, &err) == CLAW_OK) now.cost = x.r->usage.input < 0 && x.r->usage.output < 0 ? old.cost : x.r->cost_micros;
            t->decisions++;
            t->before += old.cost > 0 ? old.cost : 0;
            t->after += now.cost > 0 ? now.cost : 0;
            rc = tell(out, line, &old, &now, turns, t);
            int end = claw_explained_end(&x);
            if (rc == CLAW_OK) rc = end;
        }
    }
    claw_explained_close(&x);
    claw_buf_fini(&report);
    return rc;
}

int claw_policy_replay(struct claw_policy_vm *p, struct claw_str log, struct claw_buf *out, bool *changed)
{
    struct totals t = {0};
    unsigned line = 0;
    *changed = false;
    while (log.len) {
        const char *nl = memchr(log.ptr, '\n', log.len);
        struct claw_str text = {log.ptr, nl ? (size_t)(nl - log.ptr) : log.len};
        log.ptr += text.len + (nl != NULL);
        log.len -= text.len + (nl != NULL);
        line++;
        if (text.len == 0) continue;
        int rc = replay_line(p, text, line, out, &t);
        if (rc == CLAW_OK) continue;
        int add = claw_buf_add_fmt(out, "line %u: %s\n", line, rc == CLAW_EBAD_JSON ? "no decision as logging.decisions writes them" : claw_err_text(rc));
        return add == CLAW_OK ? rc : add;
    }
    *changed = t.routes + t.candidates + t.refusals + t.costs > 0;
    int rc = claw_buf_add_fmt(out, "%u decisions, %u routes changed, %u first candidates changed, %u refusals changed, %u costs changed, cost $%.6f -> $%.6f",
                              t.decisions, t.routes, t.candidates, t.refusals, t.costs, (double)t.before / 1e6, (double)t.after / 1e6);
    if (rc == CLAW_OK && t.skipped) rc = claw_buf_add_fmt(out, ", %u not decided anew (body left out)", t.skipped);
    return rc == CLAW_OK ? claw_buf_add_z(out, "\n") : rc;
}
