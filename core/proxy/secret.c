#include "proxy/secret.h"

#include "base/conf_schema.h"
#include "base/log.h"
#include "proxy/pool.h"
#include "proxy/secret_part.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define AT_ONCE 8u
#define MOST (CLAW_CONF_SECRETS * 2) /* those of the generation in use, and of one that is loaded */
#define SETTINGS_BYTES (1u << 20)
#define TOKEN_BYTES 8192u
#define EARLY_S 300    /* so long before their end a role's credentials are got anew; of what lives shortly at half its time */
#define SOON_MS 500
#define AGAIN_MS 30000 /* Vault's token could not be renewed */

struct slot {
    struct claw_secrets *owner;
    struct claw_secret *of; /* NULL: free */
    struct claw_fetch *fetch;
    bool over;
};

struct claw_secrets {
    struct claw_conf_keeper keeper;
    struct claw_metrics_shard *metrics;
    struct claw_secret *all[MOST];
    size_t n;
    /* the round */
    bool busy;
    struct claw_loop *loop;
    struct claw_fetcher *fetcher;
    struct claw_arena arena; /* with's */
    struct claw_secret_settings with;
    struct claw_log_lent lent; /* the token, when it is of a file */
    struct slot slots[AT_ONCE];
    uint64_t end_ms;
    struct {               /* Vault's, as the configuration has it */
        uint64_t of;       /* a number made of it and its place */
        int64_t due_us;    /* of the clock: when it is to be renewed; INT64_MAX: never */
        struct claw_fetch *fetch;
        bool over, warned;
    } vault;
    bool renews;
    struct claw_deferred turn;
    void (*done)(void *arg);
    void *arg;
};

static struct claw_secret *find(const struct claw_secrets *s, struct claw_conf_secret ref)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->all[i]->store == ref.store && claw_str_eq(claw_buf_str(&s->all[i]->name), ref.name)) return s->all[i];
    return NULL;
}

static struct claw_secret *find_or_add(struct claw_secrets *s, struct claw_conf_secret ref)
{
    struct claw_secret *e = find(s, ref);
    if (e || s->n == MOST || !(e = calloc(1, sizeof *e))) return e;
    e->store = ref.store;
    claw_buf_init(&e->name, 0);
    claw_buf_init(&e->text, CLAW_SECRET_BYTES);
    claw_buf_init(&e->aside, TOKEN_BYTES);
    if (claw_buf_add_str(&e->name, ref.name) != 0) {
        free(e);
        return NULL;
    }
    return s->all[s->n++] = e;
}

static void forget(struct claw_secret *e)
{
    claw_buf_fini(&e->name);
    claw_buf_fini(&e->text);
    claw_buf_fini(&e->aside);
    free(e);
}

/* Where a store's secrets are asked for: what they are depends on it. Not the credentials, which come and go. */
static uint64_t origin_of(const struct claw_conf_secrets *c, enum claw_conf_store store)
{
    if (store == CLAW_CONF_AWS_ROLE) return claw_str_hash(c->role.arn, claw_str_hash(c->role.url, c->role.from + 1));
    if (store == CLAW_CONF_AWS_SM) return claw_str_hash(c->aws_sm.aws.region, claw_str_hash(c->aws_sm.endpoint, 1));
    return claw_str_hash(c->vault.name_space, claw_str_hash(c->vault.address, c->vault.version + 1));
}

/* ---- the keeper ----------------------------------------------------------------------------------------------- */

/* Fit for a key, a name, or a hash of a key; another for each. */
static int make_up(struct claw_conf_secret of, struct claw_str field, struct claw_arena *a, struct claw_str *out)
{
    char text[65];
    uint64_t h = claw_str_hash(field, claw_str_hash(of.name, (uint64_t)of.store + 1));
    for (unsigned i = 0; i < 4; i++, h = h * 31 + 1) snprintf(text + 16 * i, 17, "%016llx", (unsigned long long)h);
    out->ptr = claw_arena_dup(a, text, 64);
    out->len = 64;
    return out->ptr ? 0 : CLAW_EREQ_MEM;
}

/* The credential in it as well: what stands behind "Bearer ", a URL's password, is told by who uses it. */
static int get(void *arg, struct claw_conf_secret of, struct claw_str field, struct claw_arena *a, struct claw_str *out, char *why, size_t why_size)
{
    struct claw_secrets *s = arg;
    const struct claw_secret *e = find(s, of);
    char text[256] = "";
    int rc;
    if (s->keeper.offline) rc = make_up(of, field, a, out);
    else if (e && e->there && !e->stale) rc = claw_secret_field(e, field, a, out, text, sizeof text);
    else if (e && e->failed && !e->stale) rc = CLAW_EINVAL, snprintf(text, sizeof text, "%s", e->why);
    else rc = CLAW_EAGAIN;
    if (rc == CLAW_EINVAL) snprintf(why, why_size, "%s:%.*s: %s", claw_conf_store_word(of.store), CLAW_STR_FMT(of.name), text);
    if (rc == 0) claw_log_secret(*out);
    return rc;
}

int claw_secrets_new(bool offline, struct claw_metrics_shard *metrics, struct claw_secrets **out)
{
    struct claw_secrets *s = calloc(1, sizeof *s);
    if (!s) return CLAW_ENOMEM;
    s->keeper = (struct claw_conf_keeper){get, offline, s};
    s->metrics = metrics;
    *out = s;
    return 0;
}

void claw_secrets_free(struct claw_secrets *s)
{
    if (!s) return;
    CLAW_ASSERT(!s->busy);
    for (size_t i = 0; i < s->n; i++) forget(s->all[i]);
    free(s);
}

const struct claw_conf_keeper *claw_secrets_keeper(struct claw_secrets *s) { return &s->keeper; }

static bool fits(const struct claw_secret *e, const struct claw_conf_secrets *of)
{
    return e && e->there && !e->stale && e->origin == origin_of(of, e->store);
}

bool claw_secrets_fit(const struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    for (size_t i = 0; i < of->n && !s->keeper.offline; i++)
        if (!fits(find(s, of->all[i]), of)) return false;
    return true;
}

void claw_secrets_begin(struct claw_secrets *s, bool anew)
{
    for (size_t i = 0; i < s->n; i++) {
        if (anew && s->all[i]->store != CLAW_CONF_AWS_ROLE) s->all[i]->stale = true; /* of a role each answer is another */
        if (!s->all[i]->there) s->all[i]->failed = false;
    }
}

uint64_t claw_secrets_hash(const struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < of->n; i++) {
        const struct claw_secret *e = find(s, of->all[i]);
        if (e && e->there) sum += claw_str_hash(claw_buf_str(&e->text), claw_str_hash(claw_buf_str(&e->name), (uint64_t)e->store + 1));
    }
    return sum;
}

void claw_secrets_keep(struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    size_t n = 0;
    CLAW_ASSERT(!s->busy);
    for (size_t i = 0; i < s->n; i++) {
        struct claw_secret *e = s->all[i];
        bool used = false;
        for (size_t k = 0; k < of->n && !used; k++) used = of->all[k].store == e->store && claw_str_eq(of->all[k].name, claw_buf_str(&e->name));
        if (used) s->all[n++] = e;
        else forget(e);
    }
    s->n = n;
}

unsigned claw_secrets_stale(const struct claw_secrets *s)
{
    unsigned n = 0;
    for (size_t i = 0; i < s->n; i++) n += s->all[i]->there && s->all[i]->failed;
    return n;
}

/* ---- what ends by itself -------------------------------------------------------------------------------------- */

/* In how many seconds it is due. One that is over as it comes (this clock is wrong) is not asked for all the time. */
static int64_t due_in(const struct claw_secret *e)
{
    int64_t life = e->expires - e->got, at = life <= 0 ? e->got + AGAIN_MS / 1000 : life / 2 > EARLY_S ? e->expires - EARLY_S : e->got + life / 2;
    int64_t now = (int64_t)time(NULL);
    return now < e->got ? 0 : at - now; /* set back: nobody knows how long it is good still */
}

static bool is_due(const struct claw_secret *e) { return e->there && e->expires && due_in(e) <= 0; }

static bool has_token(const struct claw_conf_secrets *of)
{
    bool used = false;
    for (size_t i = 0; i < of->n; i++) used |= of->all[i].store == CLAW_CONF_VAULT;
    return used && of->vault.address.len && of->vault.token.len && !of->vault.token_file;
}

static uint64_t token_of(const struct claw_conf_secrets *of) { return claw_str_hash(of->vault.token, claw_str_hash(of->vault.name_space, claw_str_hash(of->vault.address, 1))); }

static bool token_is_due(const struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    return s->renews && has_token(of) && (s->vault.of != token_of(of) || s->vault.due_us <= (int64_t)claw_loop_clock_us());
}

void claw_secrets_renew(struct claw_secrets *s) { s->renews = true; }

int64_t claw_secrets_due_ms(const struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    int64_t ms = INT64_MAX, now = (int64_t)claw_loop_clock_us();
    for (size_t i = 0; i < of->n && !s->keeper.offline; i++) {
        const struct claw_secret *e = of->all[i].store == CLAW_CONF_AWS_ROLE ? find(s, of->all[i]) : NULL;
        if (!e || !e->there || !e->expires) continue;
        int64_t in = due_in(e);
        if (in * 1000 < ms) ms = in * 1000;
    }
    if (s->renews && has_token(of) && s->vault.of != token_of(of)) ms = 0;
    else if (s->renews && has_token(of) && s->vault.due_us != INT64_MAX && (s->vault.due_us - now) / 1000 < ms) ms = (s->vault.due_us - now) / 1000;
    return ms == INT64_MAX ? -1 : ms < SOON_MS ? SOON_MS : ms;
}

/* ---- a round -------------------------------------------------------------------------------------------------- */

static int keep_text(struct claw_arena *a, struct claw_str *s)
{
    s->ptr = claw_arena_dup(a, s->ptr ? s->ptr : "", s->len);
    return s->ptr ? 0 : CLAW_ENOMEM;
}

static int keep_path(struct claw_arena *a, const char **path)
{
    if (*path) *path = claw_arena_dup(a, *path, strlen(*path));
    return 0;
}

static int copy_settings(struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    struct claw_arena *a = &s->arena;
    struct claw_conf_secrets *c = &s->with.conf;
    *c = *of;
    c->all = NULL;
    struct claw_str *texts[] = {&c->vault.address, &c->vault.token, &c->vault.name_space, &c->vault.tls_server_name, &c->aws_sm.aws.id, &c->aws_sm.aws.secret,
                                &c->aws_sm.aws.token, &c->aws_sm.aws.region, &c->aws_sm.endpoint, &c->role.url, &c->role.arn, &c->role.session, &c->role.token};
    int rc = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && rc == 0; i++) rc = keep_text(a, texts[i]);
    if (rc == 0) rc = keep_path(a, &c->vault.token_file);
    if (rc == 0) rc = keep_path(a, &c->vault.tls_ca);
    if (rc == 0) rc = keep_path(a, &c->role.file);
    return rc;
}

/* An agent writes it anew now and then. */
static void read_token(struct claw_secrets *s)
{
    struct claw_buf b;
    s->with.token = s->with.conf.vault.token;
    if (!s->with.conf.vault.token_file) return;
    claw_buf_init(&b, TOKEN_BYTES);
    s->with.token = CLAW_STR("");
    if (claw_buf_add_file(&b, s->with.conf.vault.token_file) == 0) {
        struct claw_str text = claw_buf_str(&b);
        while (text.len && (text.ptr[text.len - 1] == '\n' || text.ptr[text.len - 1] == '\r')) text.len--;
        if (claw_h1_is_value(text) && keep_text(&s->arena, &text) == 0) s->with.token = text;
    }
    claw_buf_fini(&b);
    claw_log_secret_lend(&s->lent, s->with.token);
}

static void open_tls(struct claw_secrets *s)
{
    struct claw_conf_url url;
    const char *why;
    struct claw_secret_settings *w = &s->with;
    if (!w->conf.vault.address.len || !claw_conf_url_parse(w->conf.vault.address, &url, &why) || !url.tls) return;
    w->tls = (struct claw_fetch_tls){NULL, w->conf.vault.tls_ca, w->conf.vault.tls_verify, w->conf.vault.tls_server_name};
    if (claw_tls_client_new(w->tls.ca, w->tls.verify, &w->tls.context, w->tls_error, sizeof w->tls_error) != 0 && !w->tls_error[0])
        snprintf(w->tls_error, sizeof w->tls_error, "no root certificates on this system (install ca-certificates)");
}

static void close_round(struct claw_secrets *s)
{
    s->busy = false;
    claw_tls_client_unref(s->with.tls.context);
    claw_log_secret_return(&s->lent);
    claw_arena_reset(&s->arena);
    s->with = (struct claw_secret_settings){.token = CLAW_STR("")};
}

static void count(struct claw_secrets *s, const struct claw_secret *e, const char *outcome)
{
    struct claw_str labels[2] = {claw_str_of(claw_conf_store_word(e->store)), claw_str_of(outcome)};
    if (s->metrics) claw_metrics_add(s->metrics, CLAW_METRIC_SECRET_FETCHES, 1, 2, labels);
}

/* What can no longer be had stays what it was, unless it was another place's. */
static void settle(struct claw_secrets *s, struct claw_secret *e)
{
    uint64_t origin = origin_of(&s->with.conf, e->store);
    e->wanted = false;
    e->stale = false;
    if (e->failed && e->origin != origin) e->there = false;
    if (!e->failed) {
        e->there = true;
        e->origin = origin;
    } else if (e->there) {
        char name[256];
        snprintf(name, sizeof name, "%.*s", CLAW_STR_FMT(claw_buf_str(&e->name)));
        claw_log_event(CLAW_LOG_WARN, "a secret could not be fetched again: its last value stays", "store", claw_conf_store_word(e->store), "name", name,
                       "error", e->why, NULL);
    }
}

static void refuse(struct claw_secrets *s, struct claw_secret *e, const char *why)
{
    e->failed = true;
    snprintf(e->why, sizeof e->why, "%s", why);
    count(s, e, "not_asked");
    settle(s, e);
}

static void on_turn(struct claw_deferred *d);

static void on_fetched(struct claw_fetch *f)
{
    struct slot *slot = f->arg;
    slot->over = true;
    claw_loop_defer(slot->owner->loop, &slot->owner->turn, on_turn);
}

/* Those who sign with the role's credentials may be asked. */
static void use_role(struct claw_secrets *s)
{
    static const char *const fields[] = {"AccessKeyId", "SecretAccessKey", "Token"};
    struct claw_conf_aws *aws = &s->with.conf.aws_sm.aws;
    struct claw_str *to[] = {&aws->id, &aws->secret, &aws->token};
    const struct claw_secret *e = find(s, (struct claw_conf_secret){CLAW_CONF_AWS_ROLE, CLAW_CONF_ROLE_NAME});
    char why[256];
    if (!s->with.conf.aws_sm.role || aws->id.len || !e || !e->there || e->wanted) return;
    for (unsigned i = 0; i < 3; i++) {
        if (claw_secret_field(e, claw_str_of(fields[i]), &s->arena, to[i], why, sizeof why) != 0) *to[i] = CLAW_STR("");
        claw_log_secret(*to[i]);
    }
}

/* Vault's token is good for longer, or is not. */
static void take_renewal(struct claw_secrets *s)
{
    char why[256];
    bool denied;
    int64_t seconds = claw_secret_take_renewal(s->vault.fetch, why, sizeof why, &denied), now = (int64_t)claw_loop_clock_us();
    claw_fetch_free(s->vault.fetch);
    s->vault.fetch = NULL;
    s->vault.over = false;
    if (seconds < 0 && !s->vault.warned) {
        claw_log_event(CLAW_LOG_WARN, denied ? "Vault's token cannot be renewed: it ends when its time is over" : "Vault's token was not renewed", "error", why, NULL);
        claw_log_flush();
    }
    s->vault.warned = seconds < 0;
    if (seconds > 0) s->vault.due_us = now + (seconds < 86400 * 365 ? seconds : 86400 * 365) * 500000;
    else s->vault.due_us = seconds == 0 || denied ? INT64_MAX : now + AGAIN_MS * 1000ll;
}

static void on_renewed(struct claw_fetch *f)
{
    struct claw_secrets *s = f->arg;
    s->vault.over = true;
    claw_loop_defer(s->loop, &s->turn, on_turn);
}

static void renew_token(struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    if (!token_is_due(s, of)) return;
    if (s->vault.of != token_of(of)) s->vault.warned = false;
    s->vault.of = token_of(of);
    s->vault.due_us = (int64_t)claw_loop_clock_us() + AGAIN_MS * 1000ll;
    const char *why = claw_secret_ask_renewal(s->fetcher, &s->with, of->timeout_ms, on_renewed, s, &s->vault.fetch);
    if (why) claw_log_event(CLAW_LOG_WARN, "Vault's token was not renewed", "error", why, NULL);
}

static void take(struct claw_secrets *s, struct slot *slot)
{
    struct claw_secret *e = slot->of;
    char status[8];
    snprintf(status, sizeof status, "%d", slot->fetch->code == CLAW_OK ? slot->fetch->head->status : 0);
    bool role = e->store == CLAW_CONF_AWS_ROLE, more = role && claw_secret_take_role(&s->with, e, slot->fetch);
    if (!role) claw_secret_take(e, slot->fetch);
    count(s, e, slot->fetch->code == CLAW_OK ? status : claw_err_kind(slot->fetch->code));
    claw_fetch_free(slot->fetch);
    *slot = (struct slot){.owner = s};
    if (more) return;
    if (role && !e->failed) e->got = (int64_t)time(NULL);
    settle(s, e);
    if (role) use_role(s);
}

static struct claw_secret *next_wanted(const struct claw_secrets *s)
{
    const struct claw_secret *role = s->with.conf.aws_sm.role ? find(s, (struct claw_conf_secret){CLAW_CONF_AWS_ROLE, CLAW_CONF_ROLE_NAME}) : NULL;
    for (size_t i = 0; i < s->n; i++) {
        bool asked = false;
        if (s->all[i]->store == CLAW_CONF_AWS_SM && role && role->wanted) continue; /* they are signed with its credentials */
        for (unsigned k = 0; k < AT_ONCE; k++) asked |= s->slots[k].of == s->all[i];
        if (s->all[i]->wanted && !asked) return s->all[i];
    }
    return NULL;
}

/* One asked for, or refused at once. */
static void begin(struct claw_secrets *s, struct slot *slot, struct claw_secret *e)
{
    uint64_t now = claw_loop_now_ms(s->loop);
    if (now >= s->end_ms) {
        refuse(s, e, "secrets.timeout_seconds were over before it was its turn");
        return;
    }
    slot->of = e;
    const char *why = claw_secret_ask(s->fetcher, &s->with, e, (unsigned)(s->end_ms - now), on_fetched, slot, &slot->fetch);
    if (!why) return;
    *slot = (struct slot){.owner = s};
    refuse(s, e, why);
}

static void on_turn(struct claw_deferred *d)
{
    struct claw_secrets *s = (struct claw_secrets *)((char *)d - offsetof(struct claw_secrets, turn));
    struct claw_secret *e;
    bool open = false;
    if (!s->busy) return; /* cancelled */
    for (unsigned i = 0; i < AT_ONCE; i++)
        if (s->slots[i].of && s->slots[i].over) take(s, &s->slots[i]);
    if (s->vault.over) take_renewal(s);
    for (unsigned i = 0; i < AT_ONCE; i++)
        while (!s->slots[i].of && (e = next_wanted(s))) begin(s, &s->slots[i], e);
    for (unsigned i = 0; i < AT_ONCE; i++) open |= s->slots[i].of != NULL;
    if (open || s->vault.fetch) return;
    close_round(s);
    s->done(s->arg);
}

int claw_secrets_fetch(struct claw_secrets *s, struct claw_loop *loop, struct claw_fetcher *x, const struct claw_conf_secrets *of, bool all,
                       void (*done)(void *arg), void *arg)
{
    CLAW_ASSERT(!s->busy);
    s->loop = loop;
    s->fetcher = x;
    s->done = done;
    s->arg = arg;
    claw_arena_init(&s->arena, NULL, 0, SETTINGS_BYTES);
    int rc = copy_settings(s, of);
    for (size_t i = 0; i < of->n && rc == 0; i++) {
        struct claw_secret *e = find_or_add(s, of->all[i]);
        if (!e) rc = CLAW_ENOMEM;
        else e->wanted = (all && e->store != CLAW_CONF_AWS_ROLE) || !fits(e, of) || is_due(e);
    }
    if (rc != 0) {
        claw_arena_reset(&s->arena);
        return rc;
    }
    for (unsigned i = 0; i < AT_ONCE; i++) s->slots[i] = (struct slot){.owner = s};
    s->busy = true;
    s->end_ms = claw_loop_now_ms(loop) + of->timeout_ms;
    read_token(s);
    open_tls(s);
    use_role(s);
    renew_token(s, of);
    claw_loop_defer(loop, &s->turn, on_turn);
    return 0;
}

bool claw_secrets_busy(const struct claw_secrets *s) { return s->busy; }

void claw_secrets_cancel(struct claw_secrets *s)
{
    if (!s->busy) return;
    for (unsigned i = 0; i < AT_ONCE; i++)
        if (s->slots[i].of) claw_fetch_free(s->slots[i].fetch);
    for (size_t i = 0; i < s->n; i++) s->all[i]->wanted = false;
    if (s->vault.fetch) claw_fetch_free(s->vault.fetch);
    s->vault.fetch = NULL;
    s->vault.over = false;
    close_round(s);
}

/* ---- with a loop of its own ----------------------------------------------------------------------------------- */

static void on_alone(void *arg) { claw_loop_stop(arg); }

int claw_secrets_fetch_now(struct claw_secrets *s, const struct claw_conf_secrets *of)
{
    struct claw_loop *loop = calloc(1, sizeof *loop);
    struct claw_pool *pool = NULL;
    struct claw_fetcher *x = NULL;
    int rc = loop ? claw_loop_init(loop) : CLAW_ENOMEM;
    if (rc != 0) {
        free(loop);
        return rc;
    }
    rc = claw_pool_new(loop, s->metrics, &pool);
    if (rc == 0) rc = claw_fetcher_new(loop, pool, s->metrics, &x);
    if (rc == 0) rc = claw_secrets_fetch(s, loop, x, of, false, on_alone, loop);
    if (rc == 0) claw_loop_run(loop);
    claw_fetcher_free(x);
    if (pool) claw_pool_free(pool);
    int left = claw_loop_fini(loop, true);
    free(loop);
    return rc == 0 && left ? CLAW_EIO : rc;
}
