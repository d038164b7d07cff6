#include "proxy/fetch.h"

#include "base/conf_schema.h"
#include "net/address.h"
#include "proxy/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEPT 32u /* endpoints of URLs */
#define HEAD_BYTES (256u << 10)
#define LABEL "fetch" /* as an upstream's name in the pool's metrics */

struct claw_fetcher {
    struct claw_loop *loop;
    struct claw_pool *pool;
    struct claw_metrics_shard *metrics;
    struct claw_tls_client *tls; /* the system's roots; made when first needed */
    struct { struct claw_endpoint *endpoint; uint64_t used; } kept[KEPT];
    uint64_t uses;
    size_t n;
};

int claw_fetcher_new(struct claw_loop *loop, struct claw_pool *pool, struct claw_metrics_shard *metrics, struct claw_fetcher **out)
{
    struct claw_fetcher *x = calloc(1, sizeof *x);
    if (!x) return CLAW_ENOMEM;
    x->loop = loop;
    x->pool = pool;
    x->metrics = metrics;
    *out = x;
    return 0;
}

void claw_fetcher_free(struct claw_fetcher *x)
{
    if (!x) return;
    CLAW_ASSERT(x->n == 0);
    for (unsigned i = 0; i < KEPT; i++)
        if (x->kept[i].endpoint) claw_endpoint_unref(x->kept[i].endpoint);
    claw_tls_client_unref(x->tls);
    free(x);
}

size_t claw_fetcher_count(const struct claw_fetcher *x) { return x->n; }

/* ---- where to ------------------------------------------------------------------------------------------------- */

/* An endpoint nobody refers to closes its connections: the ones used last are referred to from here. */
static void keep_endpoint(struct claw_fetcher *x, struct claw_endpoint *e, const struct claw_conf_upstream *u)
{
    unsigned at = 0;
    for (unsigned i = 0; i < KEPT; i++) {
        if (x->kept[i].endpoint == e) {
            x->kept[i].used = ++x->uses;
            return;
        }
        if (x->kept[i].used < x->kept[at].used) at = i;
    }
    struct claw_endpoint *mine = claw_pool_endpoint(x->pool, u, x->tls);
    if (!mine) return;
    if (x->kept[at].endpoint) claw_endpoint_unref(x->kept[at].endpoint);
    x->kept[at].endpoint = mine;
    x->kept[at].used = ++x->uses;
}

static bool host_allowed(const struct claw_conf *conf, struct claw_str host)
{
    for (size_t i = 0; i < conf->policies.allow_private_n; i++)
        if (claw_str_ieq(conf->policies.allow_private[i], host)) return true;
    return false;
}

static bool may(const struct claw_lease *l, const struct sockaddr *to)
{
    const struct claw_fetch *f = l->arg;
    const struct claw_conf *conf = f->local->gen->conf;
    if (!claw_address_private(to) || host_allowed(conf, f->host)) return true;
    for (size_t i = 0; i < conf->policies.allow_private_n; i++)
        if (claw_address_in(to, conf->policies.allow_private[i])) return true;
    return false;
}

/* Where the URL's path or query begins; its fragment is cut off. */
static struct claw_str target_of(struct claw_str *url)
{
    const char *hash = memchr(url->ptr, '#', url->len);
    if (hash) url->len = (size_t)(hash - url->ptr);
    ptrdiff_t at = claw_str_find(*url, CLAW_STR("://"));
    size_t from = at < 0 ? url->len : (size_t)at + 3;
    while (from < url->len && url->ptr[from] != '/' && url->ptr[from] != '?') from++;
    struct claw_str target = {url->ptr + from, url->len - from};
    url->len = from;
    return target;
}

/* A path with its query: no spaces, no controls, nothing beyond ASCII. */
static bool is_target(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= 0x20 || (unsigned char)s.ptr[i] >= 0x7f || s.ptr[i] == '#') return false;
    return true;
}

static int open_url(struct claw_fetch *f, const struct claw_fetch_ask *ask, struct claw_conf_url *to, struct claw_str *target, const char **why)
{
    struct claw_str url = ask->url;
    const struct claw_fetch_tls *tls = ask->tls;
    *target = target_of(&url);
    if (!claw_conf_url_parse(url, to, why)) return CLAW_EINVAL;
    if (!is_target(*target)) {
        *why = "a URL has no spaces, control characters or bytes beyond ASCII";
        return CLAW_EINVAL;
    }
    struct claw_fetcher *x = f->fetcher;
    char text[256];
    if (to->tls && !tls && !x->tls && claw_tls_client_new(NULL, true, &x->tls, text, sizeof text) != 0) {
        *why = "no root certificates on this system (install ca-certificates)";
        return CLAW_ETLS;
    }
    struct claw_conf_upstream u = {.name = CLAW_STR(LABEL), .url = *to, .tls_verify = true};
    if (tls) u.tls_verify = tls->verify, u.tls_ca = tls->ca, u.tls_server_name = tls->server_name;
    f->host.ptr = claw_arena_dup(&f->arena, to->host.ptr, to->host.len);
    f->host.len = to->host.len;
    f->endpoint = f->host.ptr ? claw_pool_endpoint(x->pool, &u, !to->tls ? NULL : tls ? tls->context : x->tls) : NULL;
    if (!f->endpoint) return CLAW_ENOMEM;
    f->own = true;
    if (!tls) keep_endpoint(x, f->endpoint, &u);
    return 0;
}

/* ---- the request's bytes -------------------------------------------------------------------------------------- */

static bool proxy_writes(enum claw_header_id id)
{
    switch (id) {
    case CLAW_H_HOST: case CLAW_H_CONTENT_LENGTH: case CLAW_H_TRANSFER_ENCODING: case CLAW_H_CONNECTION: case CLAW_H_KEEP_ALIVE:
    case CLAW_H_UPGRADE: case CLAW_H_TE: case CLAW_H_TRAILER: case CLAW_H_EXPECT: case CLAW_H_PROXY_CONNECTION:
    case CLAW_H_PROXY_AUTHORIZATION: case CLAW_H_PROXY_AUTHENTICATE: return true;
    default: return false;
    }
}

static bool is_own(const struct claw_generation_upstream *up, struct claw_str name)
{
    for (size_t i = 0; up && i < up->own_n; i++)
        if (claw_str_ieq(up->own[i], name)) return true;
    return false;
}

static int add_field(struct claw_buf *b, struct claw_str name, struct claw_str value)
{
    int rc = claw_buf_add_str(b, name);
    if (rc == 0) rc = claw_buf_add_z(b, ": ");
    if (rc == 0) rc = claw_buf_add_str(b, value);
    return rc == 0 ? claw_buf_add_z(b, "\r\n") : rc;
}

static int add_fields(struct claw_buf *b, const struct claw_fetch_ask *ask, const struct claw_generation_upstream *up, const char **why)
{
    bool coding = up != NULL; /* an upstream's fields have it */
    for (size_t i = 0; i < ask->headers_n; i++) {
        struct claw_conf_header h = ask->headers[i];
        enum claw_header_id id = claw_header_id_of(h.name);
        if (!claw_h1_is_token(h.name) || !claw_h1_is_value(h.value) || proxy_writes(id)) {
            *why = "headers: no valid field name or value, or a field the proxy writes itself";
            return CLAW_EINVAL;
        }
        if (is_own(up, h.name) || (up && id == CLAW_H_ACCEPT_ENCODING)) continue; /* the key above all */
        coding |= id == CLAW_H_ACCEPT_ENCODING;
        int rc = add_field(b, h.name, h.value);
        if (rc != 0) return rc;
    }
    return coding ? 0 : add_field(b, CLAW_STR("accept-encoding"), CLAW_STR("identity"));
}

static int add_line(struct claw_buf *b, const struct claw_fetch_ask *ask, const struct claw_generation_upstream *up, struct claw_str target)
{
    int rc = claw_buf_add_str(b, ask->method);
    if (rc == 0) rc = claw_buf_add_z(b, " ");
    if (rc == 0 && up && !ask->at_host) rc = claw_buf_add_str(b, up->conf->url.path);
    bool slash = target.len && target.ptr[0] == '/';
    if (rc == 0 && !slash && !(up && up->conf->url.path.len)) rc = claw_buf_add_z(b, "/");
    if (rc == 0) rc = claw_buf_add_str(b, target);
    return rc == 0 ? claw_buf_add_z(b, " HTTP/1.1\r\n") : rc;
}

static int add_token(struct claw_fetch *f, const struct claw_fetch_ask *ask, const char **why)
{
    struct claw_token *t = f->local->tokens[ask->upstream];
    int rc = claw_token_ready(t, f->fetcher, why);
    f->token = t;
    f->began_ms = claw_loop_now_ms(f->fetcher->loop);
    return rc == 0 ? claw_buf_add_fmt(&f->out, "authorization: Bearer %.*s\r\n", CLAW_STR_FMT(claw_token_text(t))) : rc;
}

static int sign(struct claw_fetch *f, const struct claw_fetch_ask *ask, const struct claw_generation_upstream *up)
{
    uv_buf_t body = uv_buf_init((char *)ask->body.ptr, (unsigned)ask->body.len);
    struct claw_arena arena; /* f's is for the answer */
    struct claw_str head = claw_buf_str(&f->out);
    claw_arena_init(&arena, NULL, 0, HEAD_BYTES * 8);
    int rc = claw_sigv4_head(head, &body, body.len > 0, (int64_t)time(NULL), &up->conf->aws, CLAW_GENERATION_SERVICE, &f->local->days[ask->upstream], &arena, &head);
    if (rc == 0 && head.ptr != claw_buf_str(&f->out).ptr) {
        claw_buf_clear(&f->out);
        rc = claw_buf_add_str(&f->out, head);
    }
    claw_arena_reset(&arena);
    return rc;
}

/* Keys are used in turn, but those that are set aside. */
static size_t key_of(const struct claw_fetch *f, const struct claw_generation_upstream *up)
{
    static _Atomic unsigned turn;
    if (up->keys_n < 2) return 0;
    size_t first = turn++ % up->keys_n;
    for (size_t i = 0; i < up->keys_n; i++) {
        size_t k = (first + i) % up->keys_n;
        if (claw_breaker_ready_ms(&up->keys[k]->breaker, claw_loop_now_ms(f->fetcher->loop)) == 0) return k;
    }
    return first;
}

static int write_request(struct claw_fetch *f, const struct claw_fetch_ask *ask, const struct claw_generation_upstream *up,
                         struct claw_str authority, struct claw_str target, const char **why)
{
    struct claw_buf *b = &f->out;
    int rc = add_line(b, ask, up, target);
    if (rc == 0 && up) rc = claw_buf_add_str(b, up->heads[key_of(f, up)]);
    if (rc == 0 && !up) rc = add_field(b, CLAW_STR("host"), authority);
    if (rc == 0 && up && up->asks_token) rc = add_token(f, ask, why);
    if (rc == 0) rc = add_fields(b, ask, up, why);
    bool sized = ask->body.ptr || claw_str_eqz(ask->method, "POST") || claw_str_eqz(ask->method, "PUT") || claw_str_eqz(ask->method, "PATCH");
    if (rc == 0 && sized) rc = claw_buf_add_fmt(b, "content-length: %zu\r\n", ask->body.len);
    if (rc == 0) rc = claw_buf_add_z(b, "\r\n");
    if (rc == 0 && up && up->signs) rc = sign(f, ask, up);
    return rc == 0 && ask->body.len ? claw_buf_add_str(b, ask->body) : rc;
}

/* Behind a base_url with a path of its own a leading "/v1" stands for that path, as in a client's. */
static struct claw_str behind(const struct claw_conf_url *url, struct claw_str path)
{
    if (url->path.len == 0 || !(claw_str_starts(path, CLAW_STR("/v1/")) || claw_str_eqz(path, "/v1"))) return path;
    return (struct claw_str){path.ptr + 3, path.len - 3};
}

/* ---- the exchange --------------------------------------------------------------------------------------------- */

static void count(struct claw_fetch *f, struct claw_str outcome)
{
    if (f->configured) return; /* no policy asked for it */
    claw_metrics_add(f->fetcher->metrics, CLAW_METRIC_FETCHES, 1, 1, &outcome);
    claw_metrics_observe(f->fetcher->metrics, CLAW_METRIC_FETCH_SECONDS, claw_loop_clock_us() - f->start_us, 0, NULL);
}

static void stop(struct claw_fetch *f)
{
    struct claw_client *c = f->client;
    f->over = true;
    f->client = NULL;
    claw_timer_stop(f->fetcher->loop, &f->timer);
    claw_pool_cancel(&f->lease);
    if (c) claw_client_cancel(c);
}

static void finish(struct claw_fetch *f, int code, const char *text)
{
    char status[8];
    if (f->over) return;
    f->code = code;
    snprintf(f->error, sizeof f->error, "%s", text);
    stop(f);
    snprintf(status, sizeof status, "%d", f->head ? f->head->status : 0);
    count(f, claw_str_of(code == CLAW_OK ? status : claw_err_kind(code)));
    f->on_done(f);
}

static void too_large(struct claw_fetch *f)
{
    char text[80];
    snprintf(text, sizeof text, "the answer is larger than %zu bytes", f->max_body);
    finish(f, CLAW_EBODY_TOO_LARGE, text);
}

static void on_head(struct claw_client *c, struct claw_head *h)
{
    struct claw_fetch *f = c->arg;
    f->head = h;
    if (!f->no_body && h->content_length > 0 && (uint64_t)h->content_length > f->max_body) too_large(f);
}

static void on_body(struct claw_client *c, const char *data, size_t n)
{
    struct claw_fetch *f = c->arg;
    if (n > f->max_body - claw_buf_size(&f->body)) too_large(f);
    else if (claw_buf_add(&f->body, data, n) != 0) finish(f, CLAW_ENOMEM, claw_err_text(CLAW_ENOMEM));
}

static void on_batch(struct claw_client *c) { (void)c; }
static void on_drain(struct claw_client *c) { (void)c; }

static void on_done(struct claw_client *c, bool reusable)
{
    struct claw_fetch *f = c->arg;
    f->client = NULL;
    if (reusable) claw_pool_release(c);
    else claw_client_close(c);
    if (f->token && f->head->status == 401) (void)claw_token_refused(f->token, f->began_ms);
    if (!f->own) claw_log_redact(&f->body); /* an upstream may quote the key it was sent */
    finish(f, CLAW_OK, "");
}

static void lease(struct claw_fetch *f, bool fresh);

static void on_fail(struct claw_client *c, int code, const char *text)
{
    struct claw_fetch *f = c->arg;
    bool stale = code == CLAW_EUPSTREAM_EOF && c->reused && !c->any_byte && !f->stale;
    f->client = NULL; /* it is closed */
    if (stale) { /* a kept connection, closed just as it was used */
        f->stale = true;
        lease(f, true);
        return;
    }
    finish(f, code, text);
}

static const struct claw_client_events client_events = {on_head, on_body, on_batch, on_done, on_fail, on_drain};

static void on_ready(struct claw_lease *l, struct claw_client *c)
{
    struct claw_fetch *f = l->arg;
    struct claw_str s = claw_buf_str(&f->out);
    uv_buf_t out = uv_buf_init((char *)s.ptr, (unsigned)s.len);
    f->client = c;
    claw_client_exchange(c, &f->arena, f->no_body, f->timeout_ms + CLAW_LOOP_TICK_MS, f->timeout_ms + CLAW_LOOP_TICK_MS, &client_events, f);
    int rc = claw_client_write(c, &out, 1);
    (void)rc; /* queued, or broken: on_fail tells */
}

static void on_lease_error(struct claw_lease *l, int code, const char *text)
{
    finish(l->arg, code, code == CLAW_EDENIED ? "the address is private: policies.allow_private does not have it" : text);
}

static void on_due(struct claw_timer *t)
{
    struct claw_fetch *f = t->arg;
    char text[64];
    snprintf(text, sizeof text, "no whole answer within %u ms", f->timeout_ms);
    finish(f, CLAW_EDEADLINE, text);
}

static void lease(struct claw_fetch *f, bool fresh)
{
    claw_pool_lease(f->endpoint, &f->lease, f->timeout_ms + CLAW_LOOP_TICK_MS, fresh);
}

int claw_fetch_start(struct claw_fetcher *x, struct claw_generation_local *local, const struct claw_fetch_ask *ask,
                     void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out, const char **why)
{
    const struct claw_generation_upstream *up = ask->url.ptr ? NULL : &local->gen->upstreams[ask->upstream];
    struct claw_conf_url to = {.text = {NULL, 0}};
    struct claw_str target = ask->path;
    struct claw_fetch *f = calloc(1, sizeof *f);
    if (!f) return CLAW_ENOMEM;
    *f = (struct claw_fetch){.fetcher = x, .local = local, .max_body = ask->max_body, .timeout_ms = ask->timeout_ms,
                             .start_us = claw_loop_clock_us(), .configured = ask->configured, .no_body = claw_str_eqz(ask->method, "HEAD"), .on_done = done, .arg = arg};
    x->n++;
    claw_arena_init(&f->arena, NULL, 0, HEAD_BYTES);
    claw_buf_init(&f->out, 0);
    claw_buf_init(&f->body, 0);
    claw_timer_init(&f->timer, on_due, f);
    *why = claw_err_text(CLAW_ENOMEM);
    int rc = 0;
    if (!up) rc = open_url(f, ask, &to, &target, why);
    else if (!is_target(target) || claw_h1_has_dots(target)) rc = CLAW_EINVAL, *why = "path: no spaces, controls, # or dot segments";
    if (rc == 0) rc = write_request(f, ask, up, to.authority, up && !ask->at_host ? behind(&up->conf->url, target) : target, why);
    if (rc != 0) {
        f->over = true;
        claw_fetch_free(f);
        return rc;
    }
    if (up) f->endpoint = local->endpoints[ask->upstream];
    else if (!ask->configured) f->lease.may = may;
    f->lease.on_ready = on_ready;
    f->lease.on_error = on_lease_error;
    f->lease.arg = f;
    *out = f;
    claw_timer_start(x->loop, &f->timer, ask->timeout_ms);
    lease(f, false);
    return 0;
}

void claw_fetch_free(struct claw_fetch *f)
{
    if (!f->over) {
        stop(f);
        count(f, CLAW_STR("canceled"));
    }
    if (f->endpoint && f->own) claw_endpoint_unref(f->endpoint);
    claw_arena_reset(&f->arena);
    claw_buf_fini(&f->out);
    claw_buf_fini(&f->body);
    f->fetcher->n--;
    free(f);
}
