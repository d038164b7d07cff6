#include "base/conf_secret.h"

#include "base/conf_schema.h"
#include "base/conf_tree.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool claw_conf_secret_parse(struct claw_str inside, struct claw_conf_secret *out, struct claw_str *field)
{
    static const struct { const char *word; size_t n; } heads[] = {{"vault:", 6}, {"aws-sm:", 7}};
    for (unsigned i = 0; i < 2; i++) {
        if (!claw_str_starts(inside, (struct claw_str){heads[i].word, heads[i].n})) continue;
        struct claw_str rest = {inside.ptr + heads[i].n, inside.len - heads[i].n};
        const char *mark = rest.len ? memrchr(rest.ptr, '#', rest.len) : NULL;
        out->store = i ? CLAW_CONF_AWS_SM : CLAW_CONF_VAULT;
        out->name = (struct claw_str){rest.ptr, mark ? (size_t)(mark - rest.ptr) : rest.len};
        *field = mark ? (struct claw_str){mark + 1, rest.len - out->name.len - 1} : CLAW_STR("");
        return true;
    }
    return false;
}

const char *claw_conf_store_word(enum claw_conf_store store) { return store == CLAW_CONF_VAULT ? "vault" : store == CLAW_CONF_AWS_SM ? "aws-sm" : "aws-role"; }

bool claw_conf_secret_note(struct claw_conf_secrets *to, struct claw_conf_secret ref)
{
    for (size_t i = 0; i < to->n; i++)
        if (to->all[i].store == ref.store && claw_str_eq(to->all[i].name, ref.name)) return true;
    if (!to->all || to->n == CLAW_CONF_SECRETS) return false;
    to->all[to->n++] = ref;
    return true;
}

/* ---- the section ---------------------------------------------------------------------------------------------- */

struct reading {
    const struct claw_conf_expand *x;
    struct claw_conf_report *report;
    bool failed;
};

static struct claw_str kept(struct reading *r, struct claw_str s)
{
    char *p = claw_arena_dup(r->x->arena, s.ptr ? s.ptr : "", s.len);
    r->failed |= !p;
    return (struct claw_str){p ? p : "", p ? s.len : 0};
}

static const struct claw_conf_node *at(const struct claw_conf_node *map, const char *key)
{
    const struct claw_conf_node *n = claw_conf_get(map, key);
    return n && n->type != CLAW_CONF_NULL && !claw_conf_leaf_of(n)->broken ? n : NULL;
}

/* What a key says, else the first of these variables that is set; "": none. */
static struct claw_str text_of(struct reading *r, const struct claw_conf_node *map, const char *key, const char *const *names)
{
    const struct claw_conf_node *n = at(map, key);
    if (n && n->type == CLAW_CONF_STRING) return n->text;
    for (; names && *names; names++) {
        const char *value = r->x->get_env(*names);
        if (value && *value) return kept(r, claw_str_of(value));
    }
    return CLAW_STR("");
}

#define TEXT_OF(r, map, key, ...) text_of(r, map, key, (const char *const[]){__VA_ARGS__, NULL})

static const char *path_of(struct reading *r, struct claw_str path)
{
    if (!path.len) return NULL;
    size_t n = strlen(r->x->dir) + path.len + 2;
    char *p = claw_arena_alloc(r->x->arena, n);
    r->failed |= !p;
    if (p) snprintf(p, n, "%s%s%.*s", path.ptr[0] == '/' ? "" : r->x->dir, path.ptr[0] == '/' ? "" : "/", CLAW_STR_FMT(path));
    return p;
}

static unsigned ms_of(const struct claw_conf_node *map, const char *key, const char *rule)
{
    const struct claw_conf_node *n = at(map, key);
    double seconds = n && n->type == CLAW_CONF_NUMBER ? n->number : strtod(claw_conf_rule_at(rule)->fallback, NULL);
    return (unsigned)ceil(seconds * 1000 - 1e-6);
}

/* The schema has looked at what the file says; this is for what the environment says too. */
static bool is_value(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= 0x20 || s.ptr[i] == 0x7f) return false;
    return true;
}

static void report_at(struct reading *r, const struct claw_conf_node *n, const char *section, const char *text)
{
    size_t mark = claw_conf_report_enter(r->report, CLAW_STR("secrets"));
    if (section) claw_conf_report_enter(r->report, claw_str_of(section));
    claw_conf_report_add(r->report, n ? n->line : 1, n ? n->column : 1, "%s", text);
    claw_conf_report_leave(r->report, mark);
}

static void read_vault(struct reading *r, const struct claw_conf_node *map, struct claw_conf_secrets *to)
{
    const struct claw_conf_node *tls = at(map, "tls"), *version = at(map, "kv_version"), *verify = at(tls, "verify");
    struct claw_conf_url url;
    const char *why;
    to->vault.address = TEXT_OF(r, map, "address", "VAULT_ADDR");
    to->vault.token_file = path_of(r, text_of(r, map, "token_file", NULL));
    to->vault.token = to->vault.token_file ? CLAW_STR("") : TEXT_OF(r, map, "token", "VAULT_TOKEN");
    to->vault.name_space = TEXT_OF(r, map, "namespace", "VAULT_NAMESPACE");
    to->vault.version = version && version->type == CLAW_CONF_NUMBER ? (unsigned)version->number : 2;
    to->vault.tls_ca = path_of(r, TEXT_OF(r, tls, "ca", "VAULT_CACERT"));
    to->vault.tls_verify = !verify || verify->type != CLAW_CONF_BOOL || verify->truth;
    to->vault.tls_server_name = TEXT_OF(r, tls, "server_name", "VAULT_TLS_SERVER_NAME");
    claw_log_secret(to->vault.token);
    if (at(map, "token") && at(map, "token_file")) report_at(r, map, "vault", "give either token or token_file");
    if (!is_value(to->vault.token) || !is_value(to->vault.name_space))
        report_at(r, map, "vault", "the token and the namespace may not hold blanks or control characters");
    if (to->vault.address.len && !claw_conf_url_parse(to->vault.address, &url, &why)) report_at(r, map, "vault", "the address (VAULT_ADDR) is no http or https URL");
}

static void read_aws(struct reading *r, const struct claw_conf_node *map, struct claw_conf_secrets *to)
{
    struct claw_conf_aws *a = &to->aws_sm.aws;
    struct claw_conf_url url;
    const char *why;
    a->id = text_of(r, map, "access_key_id", NULL);
    a->secret = text_of(r, map, "secret_access_key", NULL);
    a->token = text_of(r, map, "session_token", NULL);
    if (!a->id.len != !a->secret.len) report_at(r, map, "aws", "give access_key_id and secret_access_key together");
    else if (!a->id.len && a->token.len) report_at(r, map, "aws", "session_token is of no use without access_key_id and secret_access_key");
    if (!a->id.len) {
        a->id = TEXT_OF(r, NULL, "", "AWS_ACCESS_KEY_ID");
        a->secret = TEXT_OF(r, NULL, "", "AWS_SECRET_ACCESS_KEY");
        a->token = TEXT_OF(r, NULL, "", "AWS_SESSION_TOKEN");
        if (!a->id.len || !a->secret.len) a->id = a->secret = a->token = CLAW_STR("");
    }
    a->region = TEXT_OF(r, map, "region", "AWS_REGION", "AWS_DEFAULT_REGION");
    to->aws_sm.endpoint = TEXT_OF(r, map, "endpoint", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL");
    claw_log_secret(a->id);
    claw_log_secret(a->secret);
    claw_log_secret(a->token);
    const struct claw_conf_node *instance = at(map, "instance_role");
    to->aws_sm.role = !a->id.len && claw_conf_role_serves(to, instance && instance->type == CLAW_CONF_BOOL && instance->truth);
    if (!is_value(a->id) || !is_value(a->token)) report_at(r, map, "aws", "AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN may not hold blanks or control characters");
    for (size_t i = 0; i < a->region.len; i++) {
        char c = a->region.ptr[i];
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-') continue;
        report_at(r, map, "aws", "the region may hold a-z, 0-9 and - only");
        break;
    }
    if (to->aws_sm.endpoint.len && !claw_conf_url_parse(to->aws_sm.endpoint, &url, &why)) report_at(r, map, "aws", "the endpoint is no http or https URL");
}

/* ---- the role --------------------------------------------------------------------------------------------------- */

bool claw_conf_role_serves(const struct claw_conf_secrets *of, bool instance)
{
    return of->role.from == CLAW_CONF_ROLE_INSTANCE ? instance : of->role.from != CLAW_CONF_ROLE_NONE;
}

int claw_conf_role_get(const struct claw_conf_expand *x, struct claw_conf_aws *to, char *why, size_t why_size)
{
    const struct { const char *field; struct claw_str *value; } all[] = {{"AccessKeyId", &to->id}, {"SecretAccessKey", &to->secret}, {"Token", &to->token}};
    const struct claw_conf_secret ref = {CLAW_CONF_AWS_ROLE, CLAW_CONF_ROLE_NAME};
    int rc = 0;
    for (unsigned i = 0; i < 3 && rc == 0; i++) rc = x->keeper->get(x->keeper->arg, ref, claw_str_of(all[i].field), x->arena, all[i].value, why, why_size);
    return rc;
}

/* As AWS' tools look for them, but for those of files. */
static void read_role(struct reading *r, struct claw_conf_secrets *to)
{
    struct claw_str file = TEXT_OF(r, NULL, "", "AWS_WEB_IDENTITY_TOKEN_FILE"), arn = TEXT_OF(r, NULL, "", "AWS_ROLE_ARN");
    struct claw_str relative = TEXT_OF(r, NULL, "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), full = TEXT_OF(r, NULL, "", "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    struct claw_str region = TEXT_OF(r, NULL, "", "AWS_REGION", "AWS_DEFAULT_REGION"), off = TEXT_OF(r, NULL, "", "AWS_EC2_METADATA_DISABLED");
    char url[300];
    if (file.len && arn.len) {
        to->role.from = CLAW_CONF_ROLE_WEB;
        to->role.file = path_of(r, file);
        to->role.arn = arn;
        to->role.session = TEXT_OF(r, NULL, "", "AWS_ROLE_SESSION_NAME");
        if (!to->role.session.len) to->role.session = CLAW_STR("openclaw");
        to->role.url = TEXT_OF(r, NULL, "", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL");
        if (to->role.url.len) return;
        snprintf(url, sizeof url, "https://sts%s%.*s.amazonaws.com%s", region.len ? "." : "", (int)(region.len < 64 ? region.len : 64), region.ptr,
                 claw_str_starts(region, CLAW_STR("cn-")) ? ".cn" : "");
        to->role.url = kept(r, claw_str_of(url));
    } else if (relative.len || full.len) {
        to->role.from = CLAW_CONF_ROLE_CONTAINER;
        snprintf(url, sizeof url, "http://169.254.170.2%.*s", (int)(relative.len < 256 ? relative.len : 256), relative.ptr);
        to->role.url = relative.len ? kept(r, claw_str_of(url)) : full;
        to->role.file = path_of(r, TEXT_OF(r, NULL, "", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"));
        to->role.token = to->role.file ? CLAW_STR("") : TEXT_OF(r, NULL, "", "AWS_CONTAINER_AUTHORIZATION_TOKEN");
        claw_log_secret(to->role.token);
    } else if (!(off.len == 4 && strncasecmp(off.ptr, "true", 4) == 0)) {
        to->role.from = CLAW_CONF_ROLE_INSTANCE;
        to->role.url = TEXT_OF(r, NULL, "", "AWS_EC2_METADATA_SERVICE_ENDPOINT");
        if (!to->role.url.len) to->role.url = CLAW_STR("http://169.254.169.254");
    }
}

static bool is_true(const struct claw_conf_node *n) { return n && n->type == CLAW_CONF_BOOL && n->truth; }

/* Does an upstream sign with the role's? */
static bool signs_by_role(struct reading *r, const struct claw_conf_node *u, const struct claw_conf_secrets *of)
{
    const struct claw_conf_node *type = at(u, "type"), *aws = at(u, "aws"), *key = at(u, "api_key"), *keys = at(u, "api_keys");
    const char *id = r->x->get_env("AWS_ACCESS_KEY_ID"), *secret = r->x->get_env("AWS_SECRET_ACCESS_KEY");
    if (!type || type->type != CLAW_CONF_STRING || !claw_str_eqz(type->text, "bedrock")) return false;
    return !key && !keys && !at(aws, "access_key_id") && !(id && *id && secret && *secret) && claw_conf_role_serves(of, is_true(at(aws, "instance_role")));
}

/* Who uses the role's credentials has them, or waits for them, or hears here why there are none. */
static void note_role(struct reading *r, const struct claw_conf_node *root, struct claw_conf_secrets *to)
{
    const struct claw_conf_node *all = at(root, "upstreams"), *user = to->aws_sm.role ? at(root, "secrets") : NULL;
    struct claw_conf_aws had;
    char why[256];
    bool used = to->aws_sm.role;
    for (size_t i = 0; all && i < all->n && !used; i++)
        if (signs_by_role(r, all->entries[i].value, to)) used = true, user = all->entries[i].value;
    if (!used || !r->x->keeper) return;
    if (!claw_conf_secret_note(to, (struct claw_conf_secret){CLAW_CONF_AWS_ROLE, CLAW_CONF_ROLE_NAME})) {
        report_at(r, user, "aws", "too many secrets from elsewhere");
        return;
    }
    int rc = claw_conf_role_get(r->x, &had, why, sizeof why);
    if (rc == CLAW_EAGAIN) to->missing = true;
    else if (rc == CLAW_EINVAL) claw_conf_report_add(r->report, user ? user->line : 1, user ? user->column : 1, "%s", why);
    else r->failed |= rc != 0;
}

/* What says where secrets are cannot be one of them. */
static void refuse_elsewhere(struct reading *r, const struct claw_conf_node *n)
{
    if (claw_conf_leaf_of(n)->elsewhere) report_at(r, n, NULL, "what is said here cannot be a secret from elsewhere itself");
    for (size_t i = 0; i < n->n; i++) refuse_elsewhere(r, n->entries[i].value);
}

int claw_conf_secrets_read(const struct claw_conf_expand *x, const struct claw_conf_node *root, struct claw_conf_secrets *to,
                           struct claw_conf_report *report)
{
    struct reading r = {x, report, false};
    const struct claw_conf_node *map = at(root, "secrets");
    bool used[2] = {false, false}; /* what nobody asks for may be odd in the environment */
    if (map) refuse_elsewhere(&r, map);
    to->refresh_ms = ms_of(map, "refresh_seconds", "secrets.refresh_seconds");
    to->timeout_ms = ms_of(map, "timeout_seconds", "secrets.timeout_seconds");
    for (size_t i = 0; i < to->n; i++)
        if (to->all[i].store < 2) used[to->all[i].store] = true;
    read_role(&r, to);
    if (used[CLAW_CONF_VAULT] || at(map, "vault")) read_vault(&r, at(map, "vault"), to);
    if (used[CLAW_CONF_AWS_SM] || at(map, "aws")) read_aws(&r, at(map, "aws"), to);
    to->aws_sm.role &= used[CLAW_CONF_AWS_SM];
    note_role(&r, root, to);
    return r.failed ? CLAW_EREQ_MEM : 0;
}
