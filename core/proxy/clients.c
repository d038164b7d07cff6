#include "proxy/clients.h"

#include "net/networks.h"
#include "proxy/pipeline.h"
#include "proxy/spend.h"
#include "proxy/state.h"
#include "proxy/webhook.h"

#include <mbedtls/sha256.h>
#include <mbedtls/version.h>
#include <stdio.h>
#include <time.h>

#define HASH 32u

struct known {
    unsigned char hash[HASH];
    const struct claw_conf_client *client;
    struct claw_spend *spend; /* of one with a budget */
};

struct claw_clients {
    const struct claw_conf *conf;
    struct claw_networks *proxies, *white, *black; /* NULL: not given */
    size_t slots;          /* a power of two, at least twice the clients; 0: no clients */
    struct known **table;  /* open-addressed; SHA-256 spreads, and nobody chooses its outcome */
    struct known *all;     /* as conf->clients */
};

/* ---- keys ------------------------------------------------------------------------------------------------------------ */

static bool hash_key(struct claw_str key, unsigned char to[HASH])
{
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_sha256((const unsigned char *)key.ptr, key.len, to, 0) == 0;
#else
    return mbedtls_sha256_ret((const unsigned char *)key.ptr, key.len, to, 0) == 0;
#endif
}

static bool same_hash(const unsigned char *a, const unsigned char *b)
{
    unsigned differs = 0;
    for (unsigned i = 0; i < HASH; i++) differs |= a[i] ^ b[i];
    return differs == 0;
}

static size_t slot_of(const struct claw_clients *c, const unsigned char hash[HASH])
{
    uint64_t word;
    memcpy(&word, hash, sizeof word);
    return word & (c->slots - 1);
}

static struct known *find(const struct claw_clients *c, const unsigned char hash[HASH])
{
    for (size_t i = slot_of(c, hash);; i = (i + 1) & (c->slots - 1)) {
        struct known *k = c->table[i];
        if (!k || same_hash(k->hash, hash)) return k;
    }
}

static int add_client(struct claw_clients *c, size_t i, struct claw_conf_problems *problems)
{
    const struct claw_conf_client *client = &c->conf->clients[i];
    struct known *k = &c->all[i], *there;
    k->client = client;
    if (!client->key.ptr) memcpy(k->hash, client->key_hash, HASH);
    else if (!hash_key(client->key, k->hash)) return CLAW_ENOMEM;
    if (client->budget.micros >= 0 && !(k->spend = claw_spend_of(client->name))) return CLAW_ENOMEM;
    if ((there = find(c, k->hash))) {
        char path[64];
        snprintf(path, sizeof path, "clients[%zu]", i);
        claw_conf_problem_add(problems, c->conf, path, "has the key of the client %.*s", CLAW_STR_FMT(there->client->name));
        return CLAW_EINVAL;
    }
    size_t at = slot_of(c, k->hash);
    while (c->table[at]) at = (at + 1) & (c->slots - 1);
    c->table[at] = k;
    return 0;
}

int claw_clients_new(const struct claw_conf *conf, struct claw_arena *a, struct claw_clients **out, struct claw_conf_problems *problems)
{
    *out = NULL;
    if (!conf->clients_n && !conf->security.whitelist_n && !conf->security.blacklist_n && !conf->server.trusted_proxies_n) return 0;
    struct claw_clients *c = claw_arena_zalloc(a, sizeof *c);
    if (!c) return CLAW_ENOMEM;
    c->conf = conf;
    if (conf->server.trusted_proxies_n && !(c->proxies = claw_networks_new(a, conf->server.trusted_proxies, conf->server.trusted_proxies_n))) return CLAW_ENOMEM;
    if (conf->security.whitelist_n && !(c->white = claw_networks_new(a, conf->security.whitelist, conf->security.whitelist_n))) return CLAW_ENOMEM;
    if (conf->security.blacklist_n && !(c->black = claw_networks_new(a, conf->security.blacklist, conf->security.blacklist_n))) return CLAW_ENOMEM;
    if (conf->clients_n) {
        for (c->slots = 2; c->slots < 2 * conf->clients_n; c->slots *= 2) continue;
        c->table = claw_arena_zalloc(a, c->slots * sizeof *c->table);
        c->all = claw_arena_zalloc(a, conf->clients_n * sizeof *c->all);
        if (!c->table || !c->all) return CLAW_ENOMEM;
    }
    int rc = 0;
    for (size_t i = 0; i < conf->clients_n; i++) {
        int one = add_client(c, i, problems);
        if (one != 0) rc = one;
    }
    *out = c;
    return rc;
}

/* One of the places where a key may stand; what is empty is none. False: another place said something else. */
static bool take_key(struct claw_str *key, struct claw_str value)
{
    if (value.len == 0) return true;
    if (key->ptr && !claw_str_eq(*key, value)) return false;
    *key = value;
    return true;
}

/* The key the request came with; ptr NULL: none. False: two that differ. */
static bool read_key(const struct claw_head *h, struct claw_str *key)
{
    bool good = true;
    struct claw_str query = h->query;
    struct claw_h1_parameter one;
    *key = (struct claw_str){NULL, 0};
    for (size_t i = 0; i < h->n; i++) {
        struct claw_str value = h->headers[i].value;
        switch (h->headers[i].id) {
        case CLAW_H_AUTHORIZATION: /* another scheme is somebody else's, such as a front proxy's */
            if (value.len > 7 && strncasecmp(value.ptr, "Bearer ", 7) == 0)
                good &= take_key(key, claw_str_trim((struct claw_str){value.ptr + 7, value.len - 7}));
            break;
        case CLAW_H_X_API_KEY: case CLAW_H_API_KEY: case CLAW_H_X_GOOG_API_KEY: good &= take_key(key, value); break;
        default: break;
        }
    }
    while (claw_h1_next_parameter(&query, &one))
        if (claw_str_eqz(one.name, "key")) good &= take_key(key, one.value);
    return good;
}

static int identify(const struct claw_clients *c, struct claw_req *r)
{
    struct claw_str key;
    unsigned char hash[HASH];
    struct known *k = NULL;
    bool good = read_key(r->head, &key);
    if (good && key.ptr && key.len <= CLAW_CLIENTS_KEY_MAX && hash_key(key, hash)) k = find(c, hash);
    if (k) {
        r->caller = k->client;
        return 0;
    }
    struct claw_str why = key.ptr ? CLAW_STR("unknown_key") : CLAW_STR("no_key");
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_REFUSED, 1, 1, &why);
    r->error_text = key.ptr ? CLAW_STR("The API key that came with the request is not known here.")
                            : CLAW_STR("An API key is wanted: Authorization: Bearer, x-api-key or x-goog-api-key.");
    int rc = claw_req_set_answer_header(r, CLAW_STR("www-authenticate"), CLAW_STR("Bearer"));
    return rc == CLAW_EREQ_MEM ? rc : CLAW_EUNAUTHORIZED;
}

/* ---- addresses -------------------------------------------------------------------------------------------------------- */

/* The right-most element of a list, taken off it; false: there is none. Also with a port, as some proxies write it. */
static bool last_address(struct claw_str *list, struct claw_ip *out, bool *good)
{
    if (list->len == 0) return false;
    const char *comma = memrchr(list->ptr, ',', list->len);
    struct claw_str one = comma ? (struct claw_str){comma + 1, list->len - (size_t)(comma + 1 - list->ptr)} : *list;
    list->len = comma ? (size_t)(comma - list->ptr) : 0;
    one = claw_str_trim(one);
    if (one.len > 1 && one.ptr[0] == '[') {
        const char *end = memchr(one.ptr, ']', one.len);
        one = (struct claw_str){one.ptr + 1, end ? (size_t)(end - one.ptr) - 1 : 0};
    } else {
        const char *colon = memchr(one.ptr, ':', one.len);
        if (colon && colon == memrchr(one.ptr, ':', one.len)) one.len = (size_t)(colon - one.ptr);
    }
    *good = claw_ip_read(one, out);
    return true;
}

static void write_peer(struct claw_req *r, const struct claw_ip *ip)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    bool four = memcmp(ip->bytes, mapped, sizeof mapped) == 0;
    if (four) uv_inet_ntop(AF_INET, ip->bytes + 12, r->peer, sizeof r->peer);
    else uv_inet_ntop(AF_INET6, ip->bytes, r->peer, sizeof r->peer);
}

/* From the nearest hop outwards, for as long as it is one of ours. */
static void look_behind(const struct claw_clients *c, struct claw_req *r, struct claw_ip *ip)
{
    bool moved = false, good = true;
    for (size_t i = r->head->n; i-- > 0 && good && claw_networks_have(c->proxies, ip);) {
        if (r->head->headers[i].id != CLAW_H_X_FORWARDED_FOR) continue;
        struct claw_str list = r->head->headers[i].value;
        struct claw_ip next;
        while (good && claw_networks_have(c->proxies, ip) && last_address(&list, &next, &good)) {
            if (!good) break;
            *ip = next;
            moved = true;
        }
    }
    if (moved) write_peer(r, ip);
}

static int judge_address(const struct claw_clients *c, struct claw_req *r)
{
    struct claw_ip ip;
    bool known = claw_ip_read(claw_str_of(r->peer), &ip);
    if (known && c->proxies) look_behind(c, r, &ip);
    bool fine = !(c->black && (!known || claw_networks_have(c->black, &ip))) && !(c->white && (!known || !claw_networks_have(c->white, &ip)));
    if (fine) return 0;
    struct claw_str why = CLAW_STR("address");
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_REFUSED, 1, 1, &why);
    return CLAW_EIP_DENIED;
}

int claw_clients_greet(const struct claw_clients *c, struct claw_req *r)
{
    int rc = c->proxies || c->white || c->black ? judge_address(c, r) : 0;
    return rc == 0 && c->slots ? identify(c, r) : rc;
}

/* ---- what a client may ------------------------------------------------------------------------------------------------- */

static int refuse(struct claw_req *r, int code, const char *why)
{
    struct claw_str label = claw_str_of(why);
    claw_metrics_add(r->ctx->metrics, CLAW_METRIC_REFUSED, 1, 1, &label);
    return code;
}

bool claw_clients_may_model(const struct claw_req *r, struct claw_str model)
{
    const struct claw_conf_client *c = r->caller;
    if (!c || !c->models_n) return true;
    for (size_t i = 0; i < c->models_n; i++)
        if (claw_str_glob(c->models[i], model)) return true;
    return false;
}

int claw_clients_admit_route(struct claw_req *r)
{
    const struct claw_conf_client *c = r->caller;
    for (size_t i = 0; i < c->routes_n; i++)
        if (claw_str_eq(c->routes[i], claw_req_route_id(r))) return 0;
    return c->routes_n ? refuse(r, CLAW_EROUTE_DENIED, "route") : 0;
}

static int deny_model(struct claw_req *r)
{
    char text[400];
    int n = r->model.len ? snprintf(text, sizeof text, "The client %.*s may not use the model \"%.*s\".", CLAW_STR_FMT(r->caller->name),
                                    (int)(r->model.len < 128 ? r->model.len : 128), r->model.ptr)
                         : snprintf(text, sizeof text, "The client %.*s must name a model that it may use.", CLAW_STR_FMT(r->caller->name));
    r->error_text.ptr = claw_arena_dup(&r->arena, text, (size_t)n);
    r->error_text.len = r->error_text.ptr ? (size_t)n : 0;
    r->error_param = CLAW_STR("model");
    return refuse(r, CLAW_EMODEL_DENIED, "model");
}

/* A client's SDK would try again what cannot succeed: it is told not to. */
static int deny_spend(struct claw_req *r, enum claw_spend_per per, int64_t now)
{
    char text[400], at[64] = "", seconds[24];
    int64_t end = claw_spend_end(per, now);
    time_t t = (time_t)end;
    struct tm tm;
    const struct claw_conf_client *c = r->caller;
    if (end != INT64_MAX && gmtime_r(&t, &tm)) strftime(at, sizeof at, "; it begins anew at %Y-%m-%dT%H:%M:%SZ", &tm);
    struct claw_buf usd;
    claw_buf_init(&usd, 0);
    if (claw_buf_add_micros(&usd, c->budget.micros) != 0) return CLAW_EREQ_MEM;
    int n = snprintf(text, sizeof text, "The client %.*s has spent its budget of %.*s USD%s%s%s.", CLAW_STR_FMT(c->name), CLAW_STR_FMT(claw_buf_str(&usd)),
                     per == CLAW_SPEND_TOTAL ? "" : " a ", per == CLAW_SPEND_TOTAL ? "" : claw_spend_per_name(per), at);
    r->error_text.ptr = claw_arena_dup(&r->arena, text, (size_t)n);
    r->error_text.len = r->error_text.ptr ? (size_t)n : 0;
    int rc = claw_req_set_answer_header(r, CLAW_STR("x-should-retry"), CLAW_STR("false"));
    if (rc != CLAW_EREQ_MEM && end != INT64_MAX) {
        snprintf(seconds, sizeof seconds, "%lld", (long long)(end - now));
        rc = claw_req_set_answer_header(r, CLAW_STR("retry-after"), claw_str_of(seconds));
    }
    CLAW_WEBHOOK_TELL(CLAW_WEBHOOK_BUDGET, {"request_id", claw_str_of(r->id)}, {"client", c->name}, {"budget_usd#", claw_buf_str(&usd)},
                      {"per", claw_str_of(claw_spend_per_name(per))});
    claw_buf_fini(&usd);
    return rc == CLAW_EREQ_MEM ? rc : refuse(r, CLAW_EBUDGET, "budget");
}

int claw_clients_admit(const struct claw_clients *c, struct claw_req *r)
{
    const struct known *k = &c->all[r->caller - c->conf->clients];
    enum claw_spend_per per = CLAW_SPEND_MONTH;
    bool asks = r->model.len || r->dialect != CLAW_DIALECT_NONE || claw_buf_size(&r->body); /* a form may name a model unseen */
    if (asks && !claw_clients_may_model(r, r->model)) return deny_model(r);
    if (!k->spend || claw_str_eqz(r->head->method, "GET") || claw_str_eqz(r->head->method, "HEAD")) return 0;
    int64_t now = (int64_t)time(NULL);
    bool good = claw_spend_per_of(r->caller->budget.per, &per);
    CLAW_ASSERT(good);
    return claw_spend_in(k->spend, per, now) >= r->caller->budget.micros ? deny_spend(r, per, now) : 0;
}

const struct claw_conf_client *claw_clients_named(const struct claw_conf *conf, struct claw_str name)
{
    for (size_t i = 0; i < conf->clients_n; i++)
        if (claw_str_eq(conf->clients[i].name, name)) return &conf->clients[i];
    return NULL;
}

/* ---- for operators ------------------------------------------------------------------------------------------------------- */

static int add_texts(struct claw_buf *b, const char *name, const struct claw_str *all, size_t n)
{
    int rc = claw_buf_add_fmt(b, ",\"%s\":", name);
    if (n == 0) return rc == 0 ? claw_buf_add_z(b, "null") : rc;
    for (size_t i = 0; i < n && rc == 0; i++)
        if ((rc = claw_buf_add_z(b, i ? "," : "[")) == 0) rc = claw_buf_add_json(b, all[i]);
    return rc == 0 ? claw_buf_add_z(b, "]") : rc;
}

static int add_budget(struct claw_buf *b, const struct claw_conf_client *c)
{
    enum claw_spend_per per;
    struct claw_spend *s = c->budget.micros >= 0 ? claw_spend_of(c->name) : NULL;
    if (!s || !claw_spend_per_of(c->budget.per, &per)) return claw_buf_add_z(b, ",\"budget\":null}");
    int rc = claw_buf_add_z(b, ",\"budget\":{\"usd\":");
    if (rc == 0) rc = claw_buf_add_micros(b, c->budget.micros);
    if (rc == 0) rc = claw_buf_add_fmt(b, ",\"per\":\"%s\",\"spent_usd\":", claw_spend_per_name(per));
    if (rc == 0) rc = claw_buf_add_micros(b, claw_spend_in(s, per, (int64_t)time(NULL)));
    return rc == 0 ? claw_buf_add_z(b, "}}") : rc;
}

int claw_clients_write(const struct claw_conf *conf, struct claw_buf *out)
{
    int rc = claw_buf_add_z(out, "{\"shared\":");
    if (rc == 0) rc = claw_state_write(conf, out);
    if (rc == 0) rc = claw_buf_add_z(out, ",\"clients\":[");
    for (size_t i = 0; i < conf->clients_n && rc == 0; i++) {
        const struct claw_conf_client *c = &conf->clients[i];
        rc = claw_buf_add_z(out, i ? ",\n{\"name\":" : "\n{\"name\":");
        if (rc == 0) rc = claw_buf_add_json(out, c->name);
        if (rc == 0) rc = claw_buf_add_z(out, ",\"tier\":");
        if (rc == 0) rc = c->tier.len ? claw_buf_add_json(out, c->tier) : claw_buf_add_z(out, "null");
        if (rc == 0) rc = add_texts(out, "models", c->models, c->models_n);
        if (rc == 0) rc = add_texts(out, "routes", c->routes, c->routes_n);
        if (rc == 0) rc = add_budget(out, c);
    }
    return rc == 0 ? claw_buf_add_z(out, "]}\n") : rc;
}
