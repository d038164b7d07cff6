/* secret: how Vault and AWS Secrets Manager are asked, and what their answers mean.
 *
 *   Vault   GET /v1/PATH with X-Vault-Token: KV 2 has the fields in data.data, beside data.metadata; KV 1 in data
 *   AWS     POST / with X-Amz-Target: secretsmanager.GetSecretValue, signed; the text is SecretString
 */
#include "base/conf_schema.h"
#include "base/json.h"
#include "proxy/secret_part.h"
#include "proxy/sigv4.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define SERVICE "secretsmanager"
#define PATH_MAX_BYTES 1024u
#define ARENA_BYTES (4u << 20)

/* ---- Vault ---------------------------------------------------------------------------------------------------- */

static bool is_plain(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && memchr("-._~/", c, 5));
}

static int add_encoded(struct claw_buf *b, struct claw_str s)
{
    int rc = 0;
    for (size_t i = 0; i < s.len && rc == 0; i++)
        rc = is_plain((unsigned char)s.ptr[i]) ? claw_buf_add(b, s.ptr + i, 1) : claw_buf_add_fmt(b, "%%%02X", (unsigned char)s.ptr[i]);
    return rc;
}

static bool has_dots(struct claw_str path)
{
    for (size_t from = 0, i = 0; i <= path.len; i++) {
        if (i < path.len && path.ptr[i] != '/') continue;
        struct claw_str piece = {path.ptr + from, i - from};
        if (claw_str_eqz(piece, ".") || claw_str_eqz(piece, "..")) return true;
        from = i + 1;
    }
    return false;
}

static int add_vault_url(struct claw_buf *b, const struct claw_conf_secrets *conf, struct claw_str path)
{
    struct claw_str base = conf->vault.address;
    while (base.len && base.ptr[base.len - 1] == '/') base.len--;
    while (path.len && path.ptr[0] == '/') path.ptr++, path.len--;
    const char *slash = path.len ? memchr(path.ptr, '/', path.len) : NULL;
    bool data = conf->vault.version == 2 && slash && claw_str_find(path, CLAW_STR("/data/")) < 0;
    struct claw_str mount = {path.ptr, data ? (size_t)(slash - path.ptr) : 0}, rest = {path.ptr + mount.len, path.len - mount.len};
    int rc = claw_buf_add_str(b, base);
    if (rc == 0) rc = claw_buf_add_z(b, "/v1/");
    if (rc == 0) rc = add_encoded(b, mount);
    if (rc == 0 && data) rc = claw_buf_add_z(b, "/data");
    return rc == 0 ? add_encoded(b, rest) : rc;
}

static const char *ask_vault(struct claw_fetcher *x, const struct claw_secret_settings *with, struct claw_str path, unsigned timeout_ms,
                             void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out)
{
    const struct claw_conf_secrets *conf = &with->conf;
    const char *why = claw_err_text(CLAW_ENOMEM);
    if (!conf->vault.address.len) return "Vault's address is not known: set VAULT_ADDR or secrets.vault.address";
    if (!with->token.len) return conf->vault.token_file ? "secrets.vault.token_file cannot be read, or holds no token" : "there is no token: set VAULT_TOKEN, secrets.vault.token or token_file";
    if (with->tls_error[0]) return with->tls_error;
    if (has_dots(path) || path.len > PATH_MAX_BYTES) return "a path has no . or .. in it, and at most 1024 bytes";
    struct claw_conf_header fields[3] = {{CLAW_STR("X-Vault-Request"), CLAW_STR("true")}, {CLAW_STR("X-Vault-Token"), with->token}};
    size_t n = 2;
    if (conf->vault.name_space.len) fields[n++] = (struct claw_conf_header){CLAW_STR("X-Vault-Namespace"), conf->vault.name_space};
    struct claw_buf url;
    claw_buf_init(&url, 0);
    int rc = add_vault_url(&url, conf, path);
    struct claw_fetch_ask ask = {.url = claw_buf_str(&url), .method = CLAW_STR("GET"), .headers = fields, .headers_n = n, .timeout_ms = timeout_ms,
                                 .max_body = CLAW_SECRET_BYTES, .tls = with->tls.context ? &with->tls : NULL, .configured = true};
    if (rc == 0) rc = claw_fetch_start(x, NULL, &ask, done, arg, out, &why);
    claw_buf_fini(&url);
    return rc == 0 ? NULL : why;
}

const char *claw_secret_ask_renewal(struct claw_fetcher *x, const struct claw_secret_settings *with, unsigned timeout_ms, void (*done)(struct claw_fetch *f), void *arg,
                                    struct claw_fetch **out)
{
    const struct claw_conf_secrets *conf = &with->conf;
    const char *why = claw_err_text(CLAW_ENOMEM);
    if (with->tls_error[0]) return with->tls_error;
    struct claw_conf_header fields[3] = {{CLAW_STR("X-Vault-Request"), CLAW_STR("true")}, {CLAW_STR("X-Vault-Token"), with->token}};
    size_t n = 2;
    if (conf->vault.name_space.len) fields[n++] = (struct claw_conf_header){CLAW_STR("X-Vault-Namespace"), conf->vault.name_space};
    struct claw_buf url;
    struct claw_str base = conf->vault.address;
    while (base.len && base.ptr[base.len - 1] == '/') base.len--;
    claw_buf_init(&url, 0);
    int rc = claw_buf_add_str(&url, base);
    if (rc == 0) rc = claw_buf_add_z(&url, "/v1/auth/token/renew-self");
    struct claw_fetch_ask ask = {.url = claw_buf_str(&url), .method = CLAW_STR("POST"), .headers = fields, .headers_n = n, .body = CLAW_STR("{}"), .timeout_ms = timeout_ms,
                                 .max_body = CLAW_SECRET_BYTES, .tls = with->tls.context ? &with->tls : NULL, .configured = true};
    if (rc == 0) rc = claw_fetch_start(x, NULL, &ask, done, arg, out, &why);
    claw_buf_fini(&url);
    return rc == 0 ? NULL : why;
}

int64_t claw_secret_take_renewal(const struct claw_fetch *f, char *why, size_t why_size, bool *denied)
{
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    int64_t seconds = -1;
    *denied = false;
    if (f->code != CLAW_OK) {
        snprintf(why, why_size, "%s", f->error);
        return -1;
    }
    *denied = f->head->status == 400 || f->head->status == 403; /* it is not renewable, or its policies do not let it */
    snprintf(why, why_size, "status %d", f->head->status);
    if (f->head->status != 200) return -1;
    claw_arena_init(&a, NULL, 0, ARENA_BYTES);
    bool object = claw_json_scan(claw_buf_str(&f->body), &a, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT;
    struct claw_json_value auth = object ? claw_json_top_get(&top, CLAW_STR("auth")) : (struct claw_json_value){{NULL, 0}, CLAW_JSON_NONE};
    if (auth.type != CLAW_JSON_OBJECT || claw_json_int(claw_json_get(auth, CLAW_STR("lease_duration")), &seconds) != 0 || seconds < 0) {
        snprintf(why, why_size, "the answer has no lease_duration");
        seconds = -1;
    }
    claw_arena_reset(&a);
    return seconds;
}

/* ---- AWS ------------------------------------------------------------------------------------------------------ */

/* The part of an ARN behind `n` colons; "": there is none. */
static struct claw_str part_of_arn(struct claw_str arn, unsigned n)
{
    if (!claw_str_starts(arn, CLAW_STR("arn:"))) return CLAW_STR("");
    for (; n > 0; n--) {
        const char *colon = arn.len ? memchr(arn.ptr, ':', arn.len) : NULL;
        if (!colon) return CLAW_STR("");
        arn = (struct claw_str){colon + 1, arn.len - (size_t)(colon + 1 - arn.ptr)};
    }
    const char *colon = arn.len ? memchr(arn.ptr, ':', arn.len) : NULL;
    return (struct claw_str){arn.ptr, colon ? (size_t)(colon - arn.ptr) : arn.len};
}

static bool is_region(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= 'a' && s.ptr[i] <= 'z') || (s.ptr[i] >= '0' && s.ptr[i] <= '9') || s.ptr[i] == '-')) return false;
    return s.len > 0 && s.len < 64;
}

/* The fields to send, in the arena: all are signed, host too, which the fetch writes itself. */
static int sign(struct claw_arena *a, const struct claw_conf_aws *aws, const struct claw_conf_url *to, struct claw_str body, struct claw_conf_header fields[5],
                size_t *n)
{
    const struct claw_conf_header fixed[2] = {{CLAW_STR("content-type"), CLAW_STR("application/x-amz-json-1.1")},
                                              {CLAW_STR("x-amz-target"), CLAW_STR("secretsmanager.GetSecretValue")}};
    struct claw_conf_header all[6];
    struct claw_sigv4_day day = {.date = ""};
    char payload[CLAW_SIGV4_HASH], *date = claw_arena_zalloc(a, 17);
    int64_t now = (int64_t)time(NULL);
    uv_buf_t whole = uv_buf_init((char *)body.ptr, (unsigned)body.len);
    if (!date) return CLAW_ENOMEM;
    claw_sigv4_date(now, date);
    fields[0] = fixed[0];
    fields[1] = fixed[1];
    fields[2] = (struct claw_conf_header){CLAW_STR("x-amz-date"), {date, 16}};
    *n = 3;
    if (aws->token.len) fields[(*n)++] = (struct claw_conf_header){CLAW_STR("x-amz-security-token"), aws->token};
    memcpy(all, fields, *n * sizeof *all);
    all[*n] = (struct claw_conf_header){CLAW_STR("host"), to->authority};
    struct claw_sigv4_ask ask = {.method = CLAW_STR("POST"), .path = CLAW_STR("/"), .query = CLAW_STR(""), .fields = all, .fields_n = *n + 1, .payload = payload, .time = now};
    int rc = claw_sigv4_hash(&whole, 1, payload);
    fields[*n] = (struct claw_conf_header){CLAW_STR("authorization"), CLAW_STR("")};
    return rc == 0 ? claw_sigv4_sign(&ask, aws, SERVICE, &day, a, &fields[(*n)++].value) : rc;
}

static const char *ask_aws(struct claw_fetcher *x, const struct claw_secret_settings *with, struct claw_str name, unsigned timeout_ms,
                           void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out)
{
    struct claw_conf_aws aws = with->conf.aws_sm.aws;
    struct claw_str region = part_of_arn(name, 3);
    struct claw_conf_header fields[5];
    struct claw_conf_url to;
    size_t n = 0;
    const char *why = claw_err_text(CLAW_ENOMEM);
    if (!aws.id.len && with->conf.aws_sm.role) return "the credentials of the role could not be had";
    if (!aws.id.len) return "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or secrets.aws.access_key_id or instance_role";
    if (region.len) aws.region = region;
    if (!is_region(aws.region)) return "the region is not known: set AWS_REGION or secrets.aws.region";
    struct claw_arena a;
    struct claw_buf url, body;
    claw_arena_init(&a, NULL, 0, ARENA_BYTES);
    claw_buf_init(&url, 0);
    claw_buf_init(&body, 0);
    bool china = claw_str_starts(aws.region, CLAW_STR("cn-"));
    int rc = with->conf.aws_sm.endpoint.len ? claw_buf_add_str(&url, with->conf.aws_sm.endpoint)
                                            : claw_buf_add_fmt(&url, "https://" SERVICE ".%.*s.amazonaws.com%s", CLAW_STR_FMT(aws.region), china ? ".cn" : "");
    while (claw_buf_size(&url) && url.data[url.len - 1] == '/') url.len--;
    if (rc == 0 && !claw_conf_url_parse(claw_buf_str(&url), &to, &why)) rc = CLAW_EINVAL;
    if (rc == 0 && to.path.len) rc = CLAW_EINVAL, why = "secrets.aws.endpoint has no path";
    if (rc == 0) rc = claw_buf_add_z(&body, "{\"SecretId\":");
    if (rc == 0) rc = claw_buf_add_json(&body, name);
    if (rc == 0) rc = claw_buf_add_z(&body, "}");
    if (rc == 0) rc = sign(&a, &aws, &to, claw_buf_str(&body), fields, &n);
    struct claw_fetch_ask ask = {.url = claw_buf_str(&url), .method = CLAW_STR("POST"), .headers = fields, .headers_n = n, .body = claw_buf_str(&body),
                                 .timeout_ms = timeout_ms, .max_body = CLAW_SECRET_BYTES, .configured = true};
    if (rc == 0) rc = claw_fetch_start(x, NULL, &ask, done, arg, out, &why);
    claw_buf_fini(&url);
    claw_buf_fini(&body);
    claw_arena_reset(&a);
    return rc == 0 ? NULL : why;
}

const char *claw_secret_ask(struct claw_fetcher *x, const struct claw_secret_settings *with, struct claw_secret *e, unsigned timeout_ms,
                            void (*done)(struct claw_fetch *f), void *arg, struct claw_fetch **out)
{
    struct claw_str name = claw_buf_str(&e->name);
    if (e->store == CLAW_CONF_AWS_ROLE) return claw_secret_ask_role(x, with, e, timeout_ms, done, arg, out);
    return e->store == CLAW_CONF_VAULT ? ask_vault(x, with, name, timeout_ms, done, arg, out) : ask_aws(x, with, name, timeout_ms, done, arg, out);
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

void claw_secret_failed(struct claw_secret *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->why, sizeof e->why, fmt, args);
    va_end(args);
    e->failed = true;
}

/* AWS names what is wrong by a word, "com.amazonaws…#ResourceNotFoundException"; anything else is not shown. */
static struct claw_str word_of(const struct claw_json_top *top, struct claw_arena *a)
{
    struct claw_str s;
    if (claw_json_text(claw_json_top_get(top, CLAW_STR("__type")), a, &s) != 0) return CLAW_STR("no reason given");
    const char *mark = s.len ? memrchr(s.ptr, '#', s.len) : NULL;
    if (mark) s = (struct claw_str){mark + 1, s.len - (size_t)(mark + 1 - s.ptr)};
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] | 0x20) >= 'a' && (s.ptr[i] | 0x20) <= 'z')) return CLAW_STR("no reason given");
    return s.len && s.len <= 64 ? s : CLAW_STR("no reason given");
}

static const char *hint_of(int status)
{
    switch (status) {
    case 400: return " (is the namespace right?)";
    case 403: return " (the token is not valid, or may not read it)";
    case 404: return " (there is no such secret, or its last version is deleted)";
    case 429: case 473: return " (a standby, or too many requests)";
    case 503: return " (Vault is sealed or in maintenance)";
    default: return status / 100 == 3 ? " (redirects are not followed)" : "";
    }
}

static void take_vault(struct claw_secret *e, int status, const struct claw_json_top *top)
{
    struct claw_json_value data = claw_json_top_get(top, CLAW_STR("data")), inner = claw_json_get(data, CLAW_STR("data"));
    bool two = inner.type == CLAW_JSON_OBJECT && claw_json_get(data, CLAW_STR("metadata")).type == CLAW_JSON_OBJECT;
    if (status != 200) claw_secret_failed(e, "status %d%s", status, hint_of(status));
    else if (data.type != CLAW_JSON_OBJECT) claw_secret_failed(e, "the answer has no data");
    else {
        claw_buf_clear(&e->text);
        if (claw_buf_add_str(&e->text, two ? inner.raw : data.raw) != 0) claw_secret_failed(e, "%s", claw_err_text(CLAW_ENOMEM));
    }
}

static void take_aws(struct claw_secret *e, int status, const struct claw_json_top *top, struct claw_arena *a)
{
    struct claw_str text;
    struct claw_json_value v = claw_json_top_get(top, CLAW_STR("SecretString"));
    if (status != 200) claw_secret_failed(e, "status %d (%.*s)", status, CLAW_STR_FMT(word_of(top, a)));
    else if (claw_json_text(v, a, &text) != 0) claw_secret_failed(e, "the answer has no SecretString (binary secrets are not supported)");
    else {
        claw_buf_clear(&e->text);
        if (claw_buf_add_str(&e->text, text) != 0) claw_secret_failed(e, "%s", claw_err_text(CLAW_ENOMEM));
    }
}

void claw_secret_take(struct claw_secret *e, struct claw_fetch *f)
{
    struct claw_arena a;
    struct claw_json_top top = {.n = 0};
    struct claw_json_err err;
    e->failed = false;
    if (f->code != CLAW_OK) {
        claw_secret_failed(e, "%s", f->error);
        return;
    }
    claw_arena_init(&a, NULL, 0, ARENA_BYTES);
    bool object = claw_json_scan(claw_buf_str(&f->body), &a, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT;
    if (!object && f->head->status == 200) {
        claw_secret_failed(e, "the answer is no JSON object");
    } else {
        if (!object) top = (struct claw_json_top){.n = 0};
        if (e->store == CLAW_CONF_VAULT) take_vault(e, f->head->status, &top);
        else take_aws(e, f->head->status, &top, &a);
    }
    claw_arena_reset(&a);
}

/* ---- fields --------------------------------------------------------------------------------------------------- */

#define REFUSE(...) (snprintf(why, why_size, __VA_ARGS__), CLAW_EINVAL)

static int copy(struct claw_arena *a, struct claw_str s, struct claw_str *out)
{
    out->ptr = claw_arena_dup(a, s.ptr ? s.ptr : "", s.len);
    out->len = s.len;
    return out->ptr ? 0 : CLAW_EREQ_MEM;
}

int claw_secret_field(const struct claw_secret *e, struct claw_str field, struct claw_arena *to, struct claw_str *out, char *why, size_t why_size)
{
    struct claw_arena a;
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_str text;
    if (!field.len) return copy(to, claw_buf_str(&e->text), out);
    claw_arena_init(&a, NULL, 0, ARENA_BYTES);
    bool object = claw_json_scan(claw_buf_str(&e->text), &a, &top, &err) == 0 && top.root.type == CLAW_JSON_OBJECT;
    struct claw_json_value v = object ? claw_json_top_get(&top, field) : (struct claw_json_value){{NULL, 0}, CLAW_JSON_NONE};
    int rc = 0;
    if (!object) rc = REFUSE("it is no JSON object, so it has no field %.*s", CLAW_STR_FMT(field));
    else if (v.type == CLAW_JSON_NONE) rc = REFUSE("it has no field %.*s", CLAW_STR_FMT(field));
    else if (v.type == CLAW_JSON_STRING) rc = claw_json_text(v, &a, &text) == 0 ? copy(to, text, out) : CLAW_EREQ_MEM;
    else if (v.type == CLAW_JSON_NUMBER || v.type == CLAW_JSON_TRUE || v.type == CLAW_JSON_FALSE) rc = copy(to, v.raw, out);
    else rc = REFUSE("its field %.*s is neither text nor a number", CLAW_STR_FMT(field));
    claw_arena_reset(&a);
    return rc;
}
