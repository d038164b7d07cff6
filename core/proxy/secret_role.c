/* secret: the credentials of an AWS role, from where this process runs.
 *
 *   web identity  POST to STS, AssumeRoleWithWebIdentity with the token of a file (EKS): XML
 *   container     GET of the URL that ECS and EKS' Pod Identity name: JSON
 *   instance      IMDSv2: PUT for a token of the metadata's own, GET for the role's name, GET for its credentials: JSON
 *
 * All are kept as one object of AccessKeyId, SecretAccessKey and Token. Source: AWS SDKs and Tools Reference Guide, "Standardized
 * credential providers".
 */
#include "base/conf_schema.h"
#include "base/json.h"
#include "base/log.h"
#include "proxy/secret_part.h"

#include <stdio.h>
#include <time.h>

#define FILE_BYTES (64u << 10)
#define ARENA_BYTES (1u << 20)
#define METADATA_TOKEN_SECONDS "21600"
#define METADATA_PATH "/latest/meta-data/iam/security-credentials/"

/* ---- asking ----------------------------------------------------------------------------------------------------- */

static int read_file(struct claw_buf *b, const char *path)
{
    if (claw_buf_add_file(b, path) != 0) return CLAW_EIO;
    while (claw_buf_size(b) && (b->data[b->len - 1] == '\n' || b->data[b->len - 1] == '\r')) b->len--;
    return claw_buf_size(b) && claw_h1_is_value(claw_buf_str(b)) ? 0 : CLAW_EINVAL;
}

static int add_form(struct claw_buf *b, const char *name, struct claw_str value)
{
    int rc = claw_buf_add_fmt(b, "&%s=", name);
    for (size_t i = 0; i < value.len && rc == 0; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("-._~", c));
        rc = plain ? claw_buf_add(b, &value.ptr[i], 1) : claw_buf_add_fmt(b, "%%%02X", c);
    }
    return rc;
}

static int start(struct claw_fetcher *x, struct claw_fetch_ask *ask, unsigned timeout_ms, void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out,
                 const char **why)
{
    ask->timeout_ms = timeout_ms;
    ask->max_body = FILE_BYTES;
    ask->configured = true;
    return claw_fetch_start(x, NULL, ask, done, arg, out, why);
}

static const char *ask_web(struct claw_fetcher *x, const struct claw_conf_secrets *conf, unsigned timeout_ms, void (*done)(struct claw_fetch *f), void *arg,
                           struct claw_fetch **out)
{
    struct claw_conf_header type = {CLAW_STR("content-type"), CLAW_STR("application/x-www-form-urlencoded")};
    struct claw_buf token, body;
    struct claw_log_lent lent = {NULL, NULL, {NULL, 0}};
    const char *why = "AWS_WEB_IDENTITY_TOKEN_FILE cannot be read, or holds no token";
    claw_buf_init(&token, FILE_BYTES);
    claw_buf_init(&body, 4 * FILE_BYTES);
    int rc = read_file(&token, conf->role.file);
    if (rc == 0) {
        claw_log_secret_lend(&lent, claw_buf_str(&token));
        why = claw_err_text(CLAW_ENOMEM);
        rc = claw_buf_add_z(&body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15");
        if (rc == 0) rc = add_form(&body, "RoleArn", conf->role.arn);
        if (rc == 0) rc = add_form(&body, "RoleSessionName", conf->role.session);
        if (rc == 0) rc = add_form(&body, "WebIdentityToken", claw_buf_str(&token));
    }
    struct claw_fetch_ask ask = {.url = conf->role.url, .method = CLAW_STR("POST"), .headers = &type, .headers_n = 1, .body = claw_buf_str(&body)};
    if (rc == 0) rc = start(x, &ask, timeout_ms, done, arg, out, &why);
    claw_log_secret_return(&lent);
    claw_buf_fini(&token);
    claw_buf_fini(&body);
    return rc == 0 ? NULL : why;
}

/* Without TLS only what is on this machine, or its own network's by AWS' word. */
static bool is_near(struct claw_str url)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "[::1]", "::1", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "fd00:ec2::23"};
    struct claw_conf_url to;
    const char *why, *query = url.len ? memchr(url.ptr, '?', url.len) : NULL;
    if (query) url.len = (size_t)(query - url.ptr);
    if (!claw_conf_url_parse(url, &to, &why)) return false;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (claw_str_eqz(to.host, hosts[i])) return true;
    return to.tls;
}

static const char *ask_container(struct claw_fetcher *x, const struct claw_conf_secrets *conf, unsigned timeout_ms, void (*done)(struct claw_fetch *f), void *arg,
                                 struct claw_fetch **out)
{
    struct claw_conf_header authorization = {CLAW_STR("authorization"), conf->role.token};
    struct claw_buf token;
    struct claw_log_lent lent = {NULL, NULL, {NULL, 0}};
    const char *why = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read, or holds no token";
    if (!is_near(conf->role.url)) return "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor this machine's nor the container agent's";
    claw_buf_init(&token, FILE_BYTES);
    int rc = conf->role.file ? read_file(&token, conf->role.file) : 0;
    if (rc == 0 && conf->role.file) {
        authorization.value = claw_buf_str(&token);
        claw_log_secret_lend(&lent, authorization.value);
    }
    if (rc == 0) why = claw_err_text(CLAW_ENOMEM);
    struct claw_fetch_ask ask = {.url = conf->role.url, .method = CLAW_STR("GET"), .headers = &authorization, .headers_n = authorization.value.len > 0};
    if (rc == 0) rc = start(x, &ask, timeout_ms, done, arg, out, &why);
    claw_log_secret_return(&lent);
    claw_buf_fini(&token);
    return rc == 0 ? NULL : why;
}

static const char *ask_instance(struct claw_fetcher *x, const struct claw_conf_secrets *conf, struct claw_secret *e, unsigned timeout_ms,
                                void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out)
{
    const char *why = claw_err_text(CLAW_ENOMEM);
    struct claw_str base = conf->role.url, aside = claw_buf_str(&e->aside);
    const char *end = aside.len ? memchr(aside.ptr, '\n', aside.len) : NULL;
    struct claw_str token = {aside.ptr, end ? (size_t)(end - aside.ptr) : 0}, role = {end ? end + 1 : "", end ? aside.len - token.len - 1 : 0};
    struct claw_conf_header field = {CLAW_STR("x-aws-ec2-metadata-token"), token};
    struct claw_buf url;
    while (base.len && base.ptr[base.len - 1] == '/') base.len--;
    if (e->step == 0) field = (struct claw_conf_header){CLAW_STR("x-aws-ec2-metadata-token-ttl-seconds"), CLAW_STR(METADATA_TOKEN_SECONDS)};
    claw_buf_init(&url, 0);
    int rc = claw_buf_add_str(&url, base);
    if (rc == 0) rc = claw_buf_add_z(&url, e->step == 0 ? "/latest/api/token" : METADATA_PATH);
    if (rc == 0 && e->step == 2) rc = claw_buf_add_str(&url, role);
    struct claw_fetch_ask ask = {.url = claw_buf_str(&url), .method = e->step == 0 ? CLAW_STR("PUT") : CLAW_STR("GET"), .headers = &field, .headers_n = 1,
                                 .body = e->step == 0 ? CLAW_STR("") : (struct claw_str){NULL, 0}};
    if (rc == 0) rc = start(x, &ask, timeout_ms, done, arg, out, &why);
    claw_buf_fini(&url);
    return rc == 0 ? NULL : why;
}

const char *claw_secret_ask_role(struct claw_fetcher *x, const struct claw_secret_settings *with, struct claw_secret *e, unsigned timeout_ms,
                                 void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out)
{
    switch (with->conf.role.from) {
    case CLAW_CONF_ROLE_WEB: return ask_web(x, &with->conf, timeout_ms, done, arg, out);
    case CLAW_CONF_ROLE_CONTAINER: return ask_container(x, &with->conf, timeout_ms, done, arg, out);
    case CLAW_CONF_ROLE_INSTANCE: return ask_instance(x, &with->conf, e, timeout_ms, done, arg, out);
    case CLAW_CONF_ROLE_NONE: break;
    }
    return "there is no role";
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

/* The text of the first element of that name; "": there is none. */
static struct claw_str element(struct claw_str xml, const char *name)
{
    char open[40], close[40];
    snprintf(open, sizeof open, "<%s>", name);
    snprintf(close, sizeof close, "</%s>", name);
    ptrdiff_t from = claw_str_find(xml, claw_str_of(open));
    if (from < 0) return CLAW_STR("");
    struct claw_str rest = {xml.ptr + from + strlen(open), xml.len - (size_t)from - strlen(open)};
    ptrdiff_t to = claw_str_find(rest, claw_str_of(close));
    return to < 0 ? CLAW_STR("") : claw_str_trim((struct claw_str){rest.ptr, (size_t)to});
}

static int64_t time_of(struct claw_str s)
{
    struct tm t = {0};
    char text[40];
    snprintf(text, sizeof text, "%.*s", (int)(s.len < 39 ? s.len : 39), s.ptr);
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &t);
    return end ? (int64_t)timegm(&t) : 0;
}

static void keep(struct claw_secret *e, struct claw_str id, struct claw_str secret, struct claw_str token, struct claw_str until)
{
    if (!id.len || !secret.len || !claw_h1_is_value(id) || !claw_h1_is_value(secret) || !claw_h1_is_value(token)) {
        claw_secret_failed(e, "the answer has no credentials");
        return;
    }
    claw_buf_clear(&e->text);
    int rc = claw_buf_add_z(&e->text, "{\"AccessKeyId\":");
    if (rc == 0) rc = claw_buf_add_json(&e->text, id);
    if (rc == 0) rc = claw_buf_add_z(&e->text, ",\"SecretAccessKey\":");
    if (rc == 0) rc = claw_buf_add_json(&e->text, secret);
    if (rc == 0) rc = claw_buf_add_z(&e->text, ",\"Token\":");
    if (rc == 0) rc = claw_buf_add_json(&e->text, token);
    if (rc == 0) rc = claw_buf_add_z(&e->text, "}");
    e->expires = time_of(until);
    if (rc != 0) claw_secret_failed(e, "%s", claw_err_text(CLAW_ENOMEM));
}

static struct claw_str text_at(const struct claw_json_top *top, const char *name, struct claw_arena *a)
{
    struct claw_str s;
    struct claw_json_value v = claw_json_top_get(top, claw_str_of(name));
    return v.type == CLAW_JSON_STRING && claw_json_text(v, a, &s) == 0 ? s : CLAW_STR("");
}

static void take_json(struct claw_secret *e, struct claw_str body)
{
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    claw_arena_init(&a, NULL, 0, ARENA_BYTES);
    if (claw_json_scan(body, &a, &top, &err) != 0 || top.root.type != CLAW_JSON_OBJECT) claw_secret_failed(e, "the answer is no JSON object");
    else keep(e, text_at(&top, "AccessKeyId", &a), text_at(&top, "SecretAccessKey", &a), text_at(&top, "Token", &a), text_at(&top, "Expiration", &a));
    claw_arena_reset(&a);
}

/* A word of letters, as STS names what is wrong; anything else is not shown. */
static struct claw_str word_of(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] | 0x20) >= 'a' && (s.ptr[i] | 0x20) <= 'z')) return CLAW_STR("no reason given");
    return s.len && s.len <= 64 ? s : CLAW_STR("no reason given");
}

static void take_xml(struct claw_secret *e, int status, struct claw_str body)
{
    if (status != 200) claw_secret_failed(e, "STS answered with status %d (%.*s)", status, CLAW_STR_FMT(word_of(element(body, "Code"))));
    else keep(e, element(body, "AccessKeyId"), element(body, "SecretAccessKey"), element(body, "SessionToken"), element(body, "Expiration"));
}

static bool take_instance(struct claw_secret *e, int status, struct claw_str body)
{
    static const char *const what[] = {"the instance's metadata gave no token: status %d", "the instance has no role: status %d", "the role has no credentials: status %d"};
    struct claw_str line = claw_str_trim(body);
    const char *end = line.len ? memchr(line.ptr, '\n', line.len) : NULL;
    if (end) line = claw_str_trim((struct claw_str){line.ptr, (size_t)(end - line.ptr)});
    if (status != 200) {
        char text[80];
        snprintf(text, sizeof text, what[e->step], status);
        claw_secret_failed(e, "%s", text);
    } else if (e->step == 2) {
        take_json(e, body);
    } else {
        if (e->step == 0) claw_buf_clear(&e->aside);
        if (!line.len || !claw_h1_is_value(line) || (e->step == 1 && (memchr(line.ptr, '/', line.len) || memchr(line.ptr, '?', line.len)))) {
            claw_secret_failed(e, "the instance's metadata is none");
            return false;
        }
        int rc = claw_buf_add_str(&e->aside, line);
        if (rc == 0 && e->step == 0) rc = claw_buf_add_z(&e->aside, "\n");
        if (rc == 0) return ++e->step > 0;
        claw_secret_failed(e, "%s", claw_err_text(CLAW_ENOMEM));
    }
    return false;
}

bool claw_secret_take_role(const struct claw_secret_settings *with, struct claw_secret *e, struct claw_fetch *f)
{
    struct claw_str body = claw_buf_str(&f->body);
    bool more = false;
    e->failed = false;
    if (f->code != CLAW_OK) claw_secret_failed(e, "%s", f->error);
    else if (with->conf.role.from == CLAW_CONF_ROLE_WEB) take_xml(e, f->head->status, body);
    else if (with->conf.role.from == CLAW_CONF_ROLE_INSTANCE) more = take_instance(e, f->head->status, body);
    else if (f->head->status != 200) claw_secret_failed(e, "the container's credentials: status %d", f->head->status);
    else take_json(e, body);
    if (!more) {
        e->step = 0;
        claw_buf_clear(&e->aside);
    }
    return more;
}
