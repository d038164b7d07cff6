#include "app/admin_part.h"

#include "proxy/sync.h"

#include <stdio.h>

#define COOL_SECONDS 60u
#define COOL_MOST 86400u

static const char *why_of(const struct claw_breaker *b)
{
    const char *why = atomic_load_explicit(&b->why, memory_order_relaxed);
    return why ? why : "";
}

/* Its members, without braces: "state":…, and when it is set aside why and for how long. */
static int add_state(struct claw_buf *b, struct claw_breaker *of, uint64_t now)
{
    uint64_t until = atomic_load_explicit(&of->until_ms, memory_order_relaxed);
    int rc = claw_buf_add_fmt(b, "\"state\":\"%s\"", claw_breaker_key_word(of, now));
    if (rc == 0 && until) rc = claw_buf_add_fmt(b, ",\"why\":\"%s\"", why_of(of));
    if (rc == 0 && until && until != CLAW_BREAKER_NEVER) rc = claw_buf_add_fmt(b, ",\"for_ms\":%llu", until > now ? (unsigned long long)(until - now) : 0ull);
    unsigned share = claw_breaker_share(of, now);
    return rc == 0 && share < 1000 ? claw_buf_add_fmt(b, ",\"share\":0.%03u", share) : rc;
}

static int add_models(struct claw_buf *b, struct claw_cooling *c, uint64_t now)
{
    char name[64];
    unsigned at = 0;
    struct claw_breaker *m;
    const char *before = "";
    int rc = claw_buf_add_z(b, ",\"models\":[");
    while (rc == 0 && (m = claw_cooling_next_model(c, &at, name))) {
        rc = claw_buf_add_fmt(b, "%s{\"model\":", before);
        if (rc == 0) rc = claw_buf_add_json(b, claw_str_of(name));
        if (rc == 0) rc = claw_buf_add_z(b, ",");
        if (rc == 0) rc = add_state(b, m, now);
        if (rc == 0) rc = claw_buf_add_z(b, "}");
        before = ",";
    }
    return rc == 0 ? claw_buf_add_z(b, "]") : rc;
}

static int add_keys(struct claw_buf *b, const struct claw_generation_upstream *up, uint64_t now)
{
    int rc = claw_buf_add_z(b, ",\"keys\":[");
    for (size_t k = 0; k < up->keys_n && rc == 0; k++) {
        rc = claw_buf_add_fmt(b, "%s{\"key\":%zu,\"masked\":\"%s\",", k ? "," : "", k, up->keys[k]->tail);
        if (rc == 0) rc = add_state(b, &up->keys[k]->breaker, now);
        if (rc == 0) rc = claw_buf_add_z(b, "}");
    }
    return rc == 0 ? claw_buf_add_z(b, "]}") : rc;
}

static int write_upstreams(struct claw_control *c, struct claw_buf *b)
{
    uint64_t now = claw_loop_now_ms(&c->loop);
    int rc = claw_buf_add_z(b, "{\"shared\":");
    if (rc == 0) rc = claw_state_write(c->current->conf, b);
    if (rc == 0) rc = claw_buf_add_z(b, ",\"upstreams\":[");
    for (size_t i = 0; i < c->current->conf->upstreams_n && rc == 0; i++) {
        const struct claw_generation_upstream *up = &c->current->upstreams[i];
        struct claw_upstream_facts f;
        claw_upstream_stats_get(up->stats, CLAW_STR(""), now, &f);
        rc = claw_buf_add_z(b, i ? ",\n{\"name\":" : "\n{\"name\":");
        if (rc == 0) rc = claw_buf_add_json(b, up->conf->name);
        if (rc == 0) rc = claw_buf_add_z(b, ",");
        if (rc == 0) rc = add_state(b, &up->cooling->breaker, now);
        if (rc == 0) rc = claw_buf_add_fmt(b, ",\"outstanding\":%lld", (long long)f.outstanding);
        double ttfb = claw_upstream_stats_recent_ms(up->stats);
        if (rc == 0 && ttfb >= 0) rc = claw_buf_add_fmt(b, ",\"ttfb_ms\":%.1f", ttfb);
        if (rc == 0) rc = add_models(b, up->cooling, now);
        if (rc == 0) rc = add_keys(b, up, now);
    }
    return rc == 0 ? claw_buf_add_z(b, "]}\n") : rc;
}

void claw_admin_upstreams(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    claw_admin_answer_json(c, write_upstreams(control, &q->out));
}

/* ?seconds=N; 0: it is none. */
static uint64_t seconds_of(struct claw_str query)
{
    uint64_t n = COOL_SECONDS;
    if (query.len == 0) return n;
    if (!claw_str_starts(query, CLAW_STR("seconds="))) return 0;
    return claw_str_u64((struct claw_str){query.ptr + 8, query.len - 8}, COOL_MOST, &n) == 0 ? n : 0;
}

static const struct claw_generation_upstream *named(struct claw_control *c, struct claw_str name)
{
    for (size_t i = 0; i < c->current->conf->upstreams_n; i++)
        if (claw_str_eq(c->current->upstreams[i].conf->name, name)) return &c->current->upstreams[i];
    return NULL;
}

static bool cut_end(struct claw_str *s, struct claw_str end)
{
    if (s->len <= end.len || memcmp(s->ptr + s->len - end.len, end.ptr, end.len) != 0) return false;
    s->len -= end.len;
    return true;
}

void claw_admin_change_upstream(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct claw_str name = {q->head->path.ptr + 11, q->head->path.len - 11};
    bool cools = cut_end(&name, CLAW_STR("/cool")), restores = !cools && cut_end(&name, CLAW_STR("/restore"));
    char text_name[CLAW_ADMIN_VALUE];
    const struct claw_generation_upstream *up = claw_admin_decode_name(name, text_name, &name) ? named(control, name) : NULL;
    uint64_t seconds = seconds_of(q->head->query), now = claw_loop_now_ms(&control->loop);
    if (!up || !(cools || restores)) {
        claw_admin_answer_error(c, 404, "No such upstream or action; POST /upstreams/NAME/cool or /restore.", "not_found");
        return;
    }
    if (cools && seconds == 0) {
        claw_admin_answer_error(c, 400, "Expected ?seconds=1 to 86400.", "bad_request");
        return;
    }
    if (restores) claw_cooling_restore(up->cooling, now);
    else claw_breaker_cool(&up->cooling->breaker, now, now + seconds * 1000, "admin");
    claw_sync_tell(CLAW_SYNC_UPSTREAM, name, CLAW_STR(""), restores ? CLAW_SYNC_RESTORED : CLAW_SYNC_HELD, restores ? 0 : seconds * 1000);
    char text[100];
    snprintf(text, sizeof text, "%.*s", (int)(name.len < 99 ? name.len : 99), name.ptr);
    claw_log_event(CLAW_LOG_WARN, restores ? "restored by admin" : "set aside by admin", "upstream", text, NULL);
    int rc = claw_buf_add_z(&q->out, "{\"upstream\":");
    if (rc == 0) rc = claw_buf_add_json(&q->out, name);
    if (rc == 0) rc = claw_buf_add_fmt(&q->out, ",\"state\":\"%s\"}\n", claw_breaker_word(claw_breaker_state(&up->cooling->breaker, now)));
    claw_admin_answer(c, rc == 0 ? 200 : 503, "application/json");
}
