/* conf: what bedrock and vertex say about who asks and where. */
#include "base/conf_schema.h"

#include "base/conf_secret.h"
#include "base/conf_tree.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX 4096u

static struct claw_str text_of(const struct claw_conf_node *map, const char *key)
{
    const struct claw_conf_node *n = claw_conf_get(map, key);
    return n && n->type == CLAW_CONF_STRING ? n->text : CLAW_STR("");
}

static struct claw_str env_of(const struct claw_conf_expand *x, const char *name)
{
    const char *value = x->get_env(name);
    if (!value || !*value) return CLAW_STR("");
    return (struct claw_str){claw_arena_dup(x->arena, value, strlen(value)), strlen(value)};
}

static bool has_key(const struct claw_conf_node *u)
{
    const struct claw_conf_node *list = claw_conf_get(u, "api_keys");
    return text_of(u, "api_key").len || (list && list->type == CLAW_CONF_LIST && list->n);
}

/* Fit for a host's name or a path? */
static bool is_plain(struct claw_str s, const char *more)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || (c && strchr(more, c)))) return false;
    }
    return s.len > 0;
}

/* Fit for a field's value? */
static bool is_value(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] <= 0x20 || s.ptr[i] == 0x7f) return false;
    return true;
}

static bool cut_end(struct claw_str *s, const char *end)
{
    size_t n = strlen(end);
    if (s->len <= n || strncasecmp(s->ptr + s->len - n, end, n) != 0) return false;
    s->len -= n;
    return true;
}

/* ….REGION.amazonaws.com, and of an endpoint within a network ….REGION.vpce.amazonaws.com; "": another host. */
static struct claw_str region_of_url(struct claw_str text)
{
    struct claw_conf_url url;
    const char *why;
    if (!text.len || !claw_conf_url_parse(text, &url, &why)) return CLAW_STR("");
    struct claw_str host = url.host;
    if (!cut_end(&host, ".amazonaws.com") && !cut_end(&host, ".amazonaws.com.cn")) return CLAW_STR("");
    (void)cut_end(&host, ".vpce");
    const char *dot = memrchr(host.ptr, '.', host.len);
    return dot ? (struct claw_str){dot + 1, (size_t)(host.ptr + host.len - dot) - 1} : CLAW_STR("");
}

static struct claw_str format(const struct claw_conf_expand *x, const char *fmt, struct claw_str a, struct claw_str b)
{
    char text[TEXT_MAX];
    int n = snprintf(text, sizeof text, fmt, CLAW_STR_FMT(a), CLAW_STR_FMT(b), CLAW_STR_FMT(a));
    if (n < 0 || n >= (int)sizeof text) return CLAW_STR("");
    return (struct claw_str){claw_arena_dup(x->arena, text, (size_t)n), (size_t)n};
}

/* ---- bedrock ------------------------------------------------------------------------------------------------ */

static const char *read_aws(const struct claw_conf_expand *x, const struct claw_conf_node *u, struct claw_conf_cloud *out, const char **key)
{
    const struct claw_conf_node *map = claw_conf_get(u, "aws");
    struct claw_str base = text_of(u, "base_url");
    struct claw_conf_aws *a = &out->aws;
    a->id = text_of(map, "access_key_id");
    a->secret = text_of(map, "secret_access_key");
    a->token = text_of(map, "session_token");
    a->region = text_of(map, "region");
    *key = "aws";
    if (!a->id.len != !a->secret.len) return "give access_key_id and secret_access_key together";
    if (!a->id.len && a->token.len) return "session_token is of no use without access_key_id and secret_access_key";
    if (a->id.len && has_key(u)) return "give either aws.access_key_id or api_key";
    if (!a->id.len && !has_key(u)) {
        a->id = env_of(x, "AWS_ACCESS_KEY_ID");
        a->secret = env_of(x, "AWS_SECRET_ACCESS_KEY");
        a->token = env_of(x, "AWS_SESSION_TOKEN");
        if (!a->id.len || !a->secret.len) a->id = a->secret = a->token = CLAW_STR("");
        if (!is_value(a->id) || !is_value(a->token)) return "AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN may not hold blanks or control characters";
    }
    const struct claw_conf_node *instance = claw_conf_get(map, "instance_role");
    char text[256];
    if (!a->id.len && !has_key(u) && x->keeper && x->noted && claw_conf_role_serves(&x->noted->secrets, instance && instance->type == CLAW_CONF_BOOL && instance->truth)) {
        int rc = claw_conf_role_get(x, a, text, sizeof text);
        if (rc != 0) a->id = a->secret = a->token = CLAW_STR(""); /* its place is told by who read the secrets */
    }
    if (!a->region.len) a->region = region_of_url(base);
    if (!a->region.len) a->region = text_of(u, "region");
    if (!a->region.len) a->region = env_of(x, "AWS_REGION");
    if (!a->region.len) a->region = env_of(x, "AWS_DEFAULT_REGION");
    if (a->region.len && !is_plain(a->region, "")) {
        if (!base.len || a->id.len) return "the region may hold a-z, 0-9 and - only";
        a->region = CLAW_STR("");
    }
    if (!a->region.len && a->id.len) return "no region to sign for: give aws.region";
    if (!base.len && a->region.len) out->url = format(x, "https://bedrock-runtime.%.*s.amazonaws.com", a->region, CLAW_STR(""));
    return NULL;
}

/* ---- vertex ------------------------------------------------------------------------------------------------- */

/* The file's JSON: the value itself, or in the file it names. "" with *why. */
static struct claw_str account_text(const struct claw_conf_expand *x, struct claw_str given, const char **why)
{
    struct claw_str s = claw_str_trim(given);
    if (s.len && s.ptr[0] == '{') return s;
    char path[TEXT_MAX];
    int n = s.len && s.ptr[0] == '/' ? snprintf(path, sizeof path, "%.*s", CLAW_STR_FMT(s)) : snprintf(path, sizeof path, "%s/%.*s", x->dir, CLAW_STR_FMT(s));
    struct claw_buf b;
    claw_buf_init(&b, CLAW_CONF_FILE_MAX);
    *why = "cannot read the service account's file";
    s = CLAW_STR("");
    if (n > 0 && n < (int)sizeof path) claw_conf_note_file(x, path);
    if (n > 0 && n < (int)sizeof path && claw_buf_add_file(&b, path) == 0) {
        struct claw_str all = claw_buf_str(&b);
        s = (struct claw_str){claw_arena_dup(x->arena, all.ptr, all.len), all.len};
        if (!s.ptr) s.len = 0;
        if (!s.len) *why = "the service account's file is empty";
    }
    claw_buf_fini(&b);
    return s;
}

static bool take(const struct claw_conf_expand *x, const struct claw_json_top *top, const char *key, struct claw_str *out)
{
    struct claw_str s;
    struct claw_json_value v = claw_json_top_get(top, claw_str_of(key));
    if (v.type != CLAW_JSON_STRING || claw_json_text(v, x->arena, &s) != 0 || !s.len) return false;
    *out = (struct claw_str){claw_arena_dup(x->arena, s.ptr, s.len), s.len};
    return out->ptr != NULL;
}

static const char *read_account(const struct claw_conf_expand *x, struct claw_str given, struct claw_conf_account *a, struct claw_str *project)
{
    const char *why;
    struct claw_json_top top;
    struct claw_json_err err;
    struct claw_conf_url url;
    struct claw_str text = account_text(x, given, &why), type;
    if (!text.len) return why;
    if (claw_json_scan(text, x->arena, &top, &err) != 0 || top.root.type != CLAW_JSON_OBJECT) return "the service account's key is no JSON object";
    if (!take(x, &top, "client_email", &a->email) || !take(x, &top, "private_key", &a->key))
        return "the service account's key has no client_email or no private_key";
    if (take(x, &top, "type", &type) && !claw_str_eqz(type, "service_account")) return "this is no service account's key (its type is another)";
    if (!take(x, &top, "token_uri", &a->token_uri)) a->token_uri = CLAW_STR("https://oauth2.googleapis.com/token");
    if (!claw_conf_url_parse(a->token_uri, &url, &why)) return "the service account's token_uri is no http or https URL";
    if (!take(x, &top, "private_key_id", &a->key_id)) a->key_id = CLAW_STR("");
    if (!project->len && !take(x, &top, "project_id", project)) *project = CLAW_STR("");
    return NULL;
}

static const char *read_vertex(const struct claw_conf_expand *x, const struct claw_conf_node *u, struct claw_conf_cloud *out, const char **key)
{
    struct claw_str given = text_of(u, "service_account"), project = text_of(u, "project"), region = text_of(u, "region");
    *key = "service_account";
    if (given.len && has_key(u)) return "give either service_account or api_key";
    bool made_up = given.len && claw_conf_leaf_of(claw_conf_get(u, "service_account"))->made_up;
    if (made_up && !project.len) project = CLAW_STR("secret");
    const char *why = given.len && !made_up ? read_account(x, given, &out->account, &project) : NULL;
    if (why || text_of(u, "base_url").len || !project.len || !region.len) return why;
    *key = "project";
    if (!is_plain(project, ".:_")) return "a project is named by a-z, 0-9, -, ., : and _ only";
    *key = "region";
    if (!is_plain(region, "")) return "the region may hold a-z, 0-9 and - only";
    if (claw_str_eqz(region, "global")) out->url = format(x, "https://aiplatform.googleapis.com/v1/projects/%.*s/locations/global%.*s", project, CLAW_STR(""));
    else out->url = format(x, "https://%.*s-aiplatform.googleapis.com/v1/projects/%.*s/locations/%.*s", region, project);
    return NULL;
}

const char *claw_conf_cloud(const struct claw_conf_expand *x, const struct claw_conf_node *upstream, struct claw_conf_cloud *out, const char **key)
{
    static const char *const vertex_only[] = {"service_account", "project"};
    struct claw_str type = text_of(upstream, "type");
    *out = (struct claw_conf_cloud){.url = CLAW_STR("")};
    *key = "aws";
    if (claw_str_eqz(type, "bedrock")) return read_aws(x, upstream, out, key);
    if (claw_conf_get(upstream, "aws")) return "is used only with type: bedrock";
    if (claw_str_eqz(type, "vertex")) return read_vertex(x, upstream, out, key);
    for (size_t i = 0; i < 2; i++) {
        *key = vertex_only[i];
        if (claw_conf_get(upstream, *key)) return "is used only with type: vertex";
    }
    return NULL;
}
