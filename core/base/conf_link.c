#include "base/conf_schema.h"
#include "base/conf_tree.h"

#include <stdio.h>
#include <stdlib.h>

/* A value of this type and not yet complained about, or NULL. */
static const struct claw_conf_node *get(const struct claw_conf_node *map, const char *key, enum claw_conf_type type)
{
    const struct claw_conf_node *n = claw_conf_get(map, key);
    return n && n->type == type && !claw_conf_leaf_of(n)->broken ? n : NULL;
}

static bool given(const struct claw_conf_node *map, const char *key)
{
    const struct claw_conf_node *n = claw_conf_get(map, key);
    return n && (n->type != CLAW_CONF_NULL || claw_conf_leaf_of(n)->broken);
}

/* A problem of a member: at its value when it is there, else where its map is. */
static void problem(struct claw_conf_report *r, const struct claw_conf_entry *map, const char *key, const char *text)
{
    const struct claw_conf_node *n = claw_conf_get(map->value, key);
    size_t mark = claw_conf_report_enter(r, claw_str_of(key));
    claw_conf_report_add(r, n ? n->line : map->line, n ? n->column : map->column, "%s", text);
    claw_conf_report_leave(r, mark);
}

/* ---- upstreams -------------------------------------------------------------------------------------------- */

struct claw_str claw_conf_upstream_name(const struct claw_conf_node *upstreams, size_t i)
{
    const struct claw_conf_entry *e = &upstreams->entries[i];
    if (upstreams->type == CLAW_CONF_MAP) return e->key;
    const struct claw_conf_node *name = get(e->value, "name", CLAW_CONF_STRING);
    return name ? name->text : CLAW_STR("");
}

const char *claw_conf_upstream_url(struct claw_str type)
{
    static const char *const urls[][2] = {
        {"openai", "https://api.openai.com/v1"},
        {"anthropic", "https://api.anthropic.com/v1"},
        {"gemini", "https://generativelanguage.googleapis.com/v1beta"},
        {"google", "https://generativelanguage.googleapis.com/v1beta"},
        {"mistral", "https://api.mistral.ai/v1"},
        {"cohere", "https://api.cohere.com/v2"},
        {"groq", "https://api.groq.com/openai/v1"},
        {"deepseek", "https://api.deepseek.com/v1"},
        {"openrouter", "https://openrouter.ai/api/v1"},
        {"together", "https://api.together.xyz/v1"},
        {"fireworks", "https://api.fireworks.ai/inference/v1"},
        {"xai", "https://api.x.ai/v1"},
        {"perplexity", "https://api.perplexity.ai"},
        {"huggingface", "https://router.huggingface.co/v1"},
        {"nvidia", "https://integrate.api.nvidia.com/v1"},
        {"ollama", "http://localhost:11434"},
        {"vllm", "http://localhost:8000/v1"},
        {"mock", ""},
    };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++)
        if (claw_str_eqz(type, urls[i][0])) return urls[i][1];
    return NULL;
}

/* RFC 9110 5.6.2 */
static bool is_token(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && !memchr("!#$%&'*+-.^_`|~", c, 15)) return false;
    }
    return s.len > 0;
}

static void link_headers(struct claw_conf_report *r, const struct claw_conf_node *map)
{
    static const char *const own[] = {"host", "connection", "content-length", "transfer-encoding", "upgrade", "te",
                                      "trailer", "keep-alive", "proxy-connection", "expect"};
    const struct claw_conf_node *headers = get(map, "headers", CLAW_CONF_MAP);
    size_t mark = claw_conf_report_enter(r, CLAW_STR("headers"));
    for (size_t i = 0; headers && i < headers->n; i++) {
        const struct claw_conf_entry *e = &headers->entries[i];
        const char *why = is_token(e->key) ? NULL : "this is no valid header name";
        for (size_t k = 0; !why && k < sizeof own / sizeof *own; k++)
            if (claw_str_ieq(e->key, claw_str_of(own[k]))) why = "this header is the proxy's own and cannot be set";
        if (!why) continue;
        size_t inner = claw_conf_report_enter(r, e->key);
        claw_conf_report_add(r, e->line, e->column, "%s", why);
        claw_conf_report_leave(r, inner);
    }
    claw_conf_report_leave(r, mark);
}

static bool type_known(struct claw_str type)
{
    struct claw_str word;
    for (const char *at = claw_conf_rule_at("upstreams.*.type")->words; claw_conf_word_next(&at, &word);)
        if (claw_str_eq(word, type)) return true;
    return false;
}

static void link_upstream(struct claw_conf_report *r, const struct claw_conf_expand *x, const struct claw_conf_node *all,
                          const struct claw_conf_entry *e)
{
    const struct claw_conf_node *name = get(e->value, "name", CLAW_CONF_STRING);
    if (all->type == CLAW_CONF_MAP && name && !claw_str_eq(name->text, e->key))
        problem(r, e, "name", "differs from the key above it: give one name only");
    const struct claw_conf_node *type = get(e->value, "type", CLAW_CONF_STRING);
    const struct claw_conf_node *url = claw_conf_get(e->value, "base_url");
    bool empty = !given(e->value, "base_url") || (url->type == CLAW_CONF_STRING && !url->text.len);
    struct claw_conf_cloud cloud;
    const char *key, *why = claw_conf_cloud(x, e->value, &cloud, &key);
    if (why) problem(r, e, key, why);
    else if (type && empty && type_known(type->text) && !claw_conf_upstream_url(type->text) && !cloud.url.len)
        problem(r, e, "base_url", "required, but not given (this type has no default)");
    link_headers(r, e->value);
}

/* ---- names ------------------------------------------------------------------------------------------------ */

struct naming {
    struct claw_conf_report *r;
    const char *list, *key;
};

static void report_twice(void *arg, const struct claw_conf_name *first, const struct claw_conf_name *second)
{
    const struct naming *naming = arg;
    if (!second->text.len) return;
    size_t mark = claw_conf_report_enter(naming->r, claw_str_of(naming->list));
    claw_conf_report_enter_at(naming->r, second->i);
    claw_conf_report_enter(naming->r, claw_str_of(naming->key));
    claw_conf_report_add(naming->r, second->line, second->column, "the name \"%.*s\" is taken (first on line %u)",
                         (int)(second->text.len < 128 ? second->text.len : 128), second->text.ptr, first->line);
    claw_conf_report_leave(naming->r, mark);
}

/* The string under `key` of each map in the list has to be unique. A route without id is called route_<n>. */
static void link_names(struct claw_conf_report *r, const struct claw_conf_node *root, const char *list_key,
                       const char *key)
{
    const struct claw_conf_node *list = get(root, list_key, CLAW_CONF_LIST);
    struct claw_conf_name *names = list && list->n ? calloc(list->n, sizeof *names) : NULL;
    char (*own)[32] = names ? calloc(list->n, sizeof *own) : NULL;
    for (size_t i = 0; own && i < list->n; i++) {
        const struct claw_conf_entry *e = &list->entries[i];
        const struct claw_conf_node *n = get(e->value, key, CLAW_CONF_STRING);
        if (!n && strcmp(list_key, "routes") == 0) snprintf(own[i], sizeof own[i], "route_%zu", i + 1);
        names[i] = (struct claw_conf_name){n ? n->text : claw_str_of(own[i]), n ? n->line : e->line,
                                           n ? n->column : e->column, i};
    }
    struct naming naming = {r, list_key, key};
    if (own) claw_conf_names_twice(names, list->n, report_twice, &naming);
    free(own);
    free(names);
}

/* ---- routes ----------------------------------------------------------------------------------------------- */

static void link_name(struct claw_conf_report *r, const struct claw_conf_node *upstreams,
                      const struct claw_conf_node *n)
{
    struct claw_conf_guess guess;
    for (size_t i = 0; i < upstreams->n; i++)
        if (claw_str_eq(claw_conf_upstream_name(upstreams, i), n->text)) return;
    claw_conf_guess_init(&guess, n->text);
    for (size_t i = 0; i < upstreams->n && r->n < CLAW_CONF_PROBLEMS; i++)
        claw_conf_guess_try(&guess, claw_conf_upstream_name(upstreams, i));
    bool show = !claw_conf_leaf_of(n)->expanded;
    struct claw_str text = show ? n->text : CLAW_STR("…");
    claw_conf_report_add(r, n->line, n->column, "there is no upstream \"%.*s\"%s",
                         (int)(text.len < 128 ? text.len : 128), text.ptr, claw_conf_guess_text(&guess));
}

static void link_candidates(struct claw_conf_report *r, const struct claw_conf_node *upstreams,
                            const struct claw_conf_node *list)
{
    for (size_t i = 0; list && i < list->n; i++) {
        const struct claw_conf_node *n = list->entries[i].value;
        size_t mark = claw_conf_report_enter_at(r, i);
        if (n->type == CLAW_CONF_MAP) {
            n = get(n, "name", CLAW_CONF_STRING);
            claw_conf_report_enter(r, CLAW_STR("name"));
        }
        if (n && n->type == CLAW_CONF_STRING && !claw_conf_leaf_of(n)->broken) link_name(r, upstreams, n);
        claw_conf_report_leave(r, mark);
    }
}

static void link_strategy(struct claw_conf_report *r, const struct claw_conf_node *upstreams,
                          const struct claw_conf_entry *e)
{
    bool one = given(e->value, "upstream"), several = given(e->value, "upstreams");
    if (one && several) problem(r, e, "upstream", "give either upstream or upstreams");
    if (!one && !several) problem(r, e, "upstreams", "required, but not given");
    const struct claw_conf_node *n = get(e->value, "upstream", CLAW_CONF_STRING);
    if (!upstreams) return;
    size_t mark = claw_conf_report_enter(r, CLAW_STR("upstream"));
    if (n) link_name(r, upstreams, n);
    claw_conf_report_leave(r, mark);
    claw_conf_report_enter(r, CLAW_STR("upstreams"));
    link_candidates(r, upstreams, get(e->value, "upstreams", CLAW_CONF_LIST));
    claw_conf_report_leave(r, mark);
}

static void link_route(struct claw_conf_report *r, const struct claw_conf_node *upstreams,
                       const struct claw_conf_entry *e)
{
    for (size_t i = 0; i < e->value->n; i++) {
        const struct claw_conf_entry *sub = &e->value->entries[i];
        if (!claw_str_eqz(sub->key, "strategy") || sub->value->type != CLAW_CONF_MAP) continue;
        size_t mark = claw_conf_report_enter(r, sub->key);
        link_strategy(r, upstreams, sub);
        claw_conf_report_leave(r, mark);
    }
}

/* ---- the rest --------------------------------------------------------------------------------------------- */

/* A client's route that is not there would shut it out without a word. */
static void link_client_routes(struct claw_conf_report *r, const struct claw_conf_node *root)
{
    const struct claw_conf_node *clients = get(root, "clients", CLAW_CONF_LIST), *routes = get(root, "routes", CLAW_CONF_LIST);
    for (size_t i = 0; clients && i < clients->n; i++) {
        const struct claw_conf_node *list = get(clients->entries[i].value, "routes", CLAW_CONF_LIST);
        for (size_t k = 0; list && k < list->n; k++) {
            const struct claw_conf_node *id = list->entries[k].value;
            bool there = false;
            for (size_t n = 0; routes && n < routes->n && !there; n++) {
                const struct claw_conf_node *named = get(routes->entries[n].value, "id", CLAW_CONF_STRING);
                char unnamed[32];
                snprintf(unnamed, sizeof unnamed, "route_%zu", n + 1);
                there = named ? claw_str_eq(named->text, id->text) : claw_str_eqz(id->text, unnamed);
            }
            if (there) continue;
            size_t mark = claw_conf_report_enter(r, CLAW_STR("clients"));
            claw_conf_report_enter_at(r, i);
            claw_conf_report_enter(r, CLAW_STR("routes"));
            claw_conf_report_add(r, id->line, id->column, "there is no route \"%.*s\"", (int)(id->text.len < 128 ? id->text.len : 128), id->text.ptr);
            claw_conf_report_leave(r, mark);
        }
    }
}

static void link_client(struct claw_conf_report *r, const struct claw_conf_entry *e)
{
    if (given(e->value, "key") == given(e->value, "key_sha256"))
        problem(r, e, "key", "give either key or key_sha256");
}

static void link_limit_headers(struct claw_conf_report *r, const struct claw_conf_node *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].value->type == CLAW_CONF_MAP)
            claw_conf_report_add(r, m->entries[i].line, m->entries[i].column, "a limit's match takes a word or a list of them, no operators");
}

/* A limit is decided without Lua: it knows words and lists of them. */
static void link_limit_match(struct claw_conf_report *r, const struct claw_conf_node *m)
{
    static const char *const known[] = {"path", "method", "model", "route_id", "upstream_name", "client", "name", "tier"};
    for (size_t i = 0; m && m->type == CLAW_CONF_MAP && i < m->n; i++) {
        const struct claw_conf_entry *e = &m->entries[i];
        size_t k = 0;
        while (k < sizeof known / sizeof *known && !claw_str_eqz(e->key, known[k])) k++;
        bool client = claw_str_eqz(e->key, "client"), headers = claw_str_eqz(e->key, "headers");
        if (headers && e->value->type == CLAW_CONF_MAP) link_limit_headers(r, e->value);
        else if (k == sizeof known / sizeof *known)
            claw_conf_report_add(r, e->line, e->column, "a limit is matched by path, method, model, route_id, upstream_name, headers and client (name, tier) only");
        else if (client && e->value->type == CLAW_CONF_MAP) link_limit_match(r, e->value);
        else if (e->value->type == CLAW_CONF_MAP) claw_conf_report_add(r, e->line, e->column, "a limit's match takes a word or a list of them, no operators");
    }
}

static void link_limit(struct claw_conf_report *r, const struct claw_conf_entry *e)
{
    link_limit_match(r, get(e->value, "match", CLAW_CONF_MAP));
    static const char *const counts[] = {"requests_per_second", "requests_per_minute", "requests_per_hour",
                                         "requests_per_day",    "tokens_per_minute",   "tokens_per_day",
                                         "concurrent"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (given(e->value, counts[i])) return;
    claw_conf_report_add(r, e->line, e->column, "limits nothing: give requests_per_…, tokens_per_… or concurrent");
}

static void link_transformation(struct claw_conf_report *r, const struct claw_conf_entry *e)
{
    if (!given(e->value, "request") && !given(e->value, "response"))
        claw_conf_report_add(r, e->line, e->column, "changes nothing: give request or response");
}

static void each(struct claw_conf_report *r, const struct claw_conf_node *root, const char *key,
                 void (*look)(struct claw_conf_report *, const struct claw_conf_entry *))
{
    const struct claw_conf_node *list = get(root, key, CLAW_CONF_LIST);
    for (size_t i = 0; list && i < list->n; i++) {
        if (list->entries[i].value->type != CLAW_CONF_MAP) continue;
        size_t mark = claw_conf_report_enter(r, claw_str_of(key));
        claw_conf_report_enter_at(r, i);
        look(r, &list->entries[i]);
        claw_conf_report_leave(r, mark);
    }
}

static void link_sections(struct claw_conf_report *r, const struct claw_conf_node *root)
{
    const struct claw_conf_node *caching = get(root, "caching", CLAW_CONF_MAP);
    const struct claw_conf_node *state = get(root, "state", CLAW_CONF_MAP);
    bool url = state && given(state, "url");
    for (size_t i = 0; i < root->n; i++) {
        const struct claw_conf_entry *e = &root->entries[i];
        if (e->value->type != CLAW_CONF_MAP) continue;
        size_t mark = claw_conf_report_enter(r, e->key);
        const struct claw_conf_node *backend = get(e->value, "backend", CLAW_CONF_STRING);
        if ((e->value == caching || e->value == state) && backend && claw_str_eqz(backend->text, "redis") && !url)
            problem(r, e, "backend", "redis needs state.url");
        const struct claw_conf_node *secret = e->value == caching ? get(e->value, "secret", CLAW_CONF_STRING) : NULL;
        if (e->value == caching && backend && claw_str_eqz(backend->text, "redis") && !given(e->value, "secret"))
            problem(r, e, "backend", "redis needs caching.secret");
        if (secret && secret->text.len && secret->text.len < 16) problem(r, e, "secret", "must have 16 characters or more");
        if (claw_str_eqz(e->key, "logging")) {
            const struct claw_conf_node *output = get(e->value, "output", CLAW_CONF_STRING);
            bool file = output && claw_str_eqz(output->text, "file");
            if (file && !given(e->value, "path")) problem(r, e, "path", "required with output: file, but not given");
            if (!file && get(e->value, "path", CLAW_CONF_STRING))
                problem(r, e, "path", "is used only with output: file");
        }
        claw_conf_report_leave(r, mark);
    }
}

void claw_conf_link(const struct claw_conf_node *root, const struct claw_conf_expand *x, struct claw_conf_report *r)
{
    const struct claw_conf_node *upstreams = claw_conf_get(root, "upstreams");
    if (upstreams && upstreams->type != CLAW_CONF_MAP && upstreams->type != CLAW_CONF_LIST) upstreams = NULL;
    for (size_t i = 0; upstreams && i < upstreams->n; i++) {
        const struct claw_conf_entry *e = &upstreams->entries[i];
        if (e->value->type != CLAW_CONF_MAP) continue;
        size_t mark = claw_conf_report_enter(r, CLAW_STR("upstreams"));
        if (upstreams->type == CLAW_CONF_MAP) claw_conf_report_enter(r, e->key);
        else claw_conf_report_enter_at(r, i);
        link_upstream(r, x, upstreams, e);
        claw_conf_report_leave(r, mark);
    }
    const struct claw_conf_node *routes = get(root, "routes", CLAW_CONF_LIST);
    for (size_t i = 0; routes && i < routes->n; i++) {
        size_t mark = claw_conf_report_enter(r, CLAW_STR("routes"));
        claw_conf_report_enter_at(r, i);
        link_route(r, upstreams, &routes->entries[i]);
        claw_conf_report_leave(r, mark);
    }
    link_names(r, root, "upstreams", "name");
    link_names(r, root, "routes", "id");
    link_names(r, root, "clients", "name");
    link_names(r, root, "rate_limits", "id");
    each(r, root, "clients", link_client);
    link_client_routes(r, root);
    each(r, root, "rate_limits", link_limit);
    each(r, root, "transformations", link_transformation);
    link_sections(r, root);
}
