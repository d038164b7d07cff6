#include "app/lineage.h"

#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static struct claw_tally *tallies(const struct claw_lineage_entry *e) { return atomic_load(&e->gen->tallies); }

static void leave(struct claw_lineage_entry *e, enum claw_lineage_state state, uint64_t now_ms)
{
    e->state = state;
    e->left_ms = now_ms;
    e->cut = false;
}

static void arrive(struct claw_lineage *l, struct claw_lineage_entry *e, const char *reason, int64_t now, uint64_t now_ms)
{
    l->current = e;
    e->state = CLAW_LINEAGE_CURRENT;
    e->since = now;
    e->since_ms = now_ms;
    snprintf(e->reason, sizeof e->reason, "%s", reason);
}

/* Has the one on probation shown so much already that it may be returned to? */
static bool proven(const struct claw_lineage *l)
{
    struct claw_tally_sum s = claw_tally_add(tallies(l->current), 0);
    return !l->probation || (s.failed == 0 && s.ended >= (int64_t)l->current->gen->conf->policies.rollback.errors);
}

int claw_lineage_publish(struct claw_lineage *l, struct claw_generation *gen, const char *reason, int64_t now, uint64_t now_ms)
{
    struct claw_lineage_entry *e = calloc(1, sizeof *e), *old = l->current;
    if (!e) return CLAW_ENOMEM;
    e->gen = gen;
    if (old) {
        if (!l->good || proven(l)) l->good = old;
        leave(old, CLAW_LINEAGE_DRAINING, now_ms);
    }
    e->next = l->first;
    l->first = e;
    arrive(l, e, reason, now, now_ms);
    l->refused = false;
    l->probation = gen->conf->policies.rollback.on;
    if (!l->probation) l->good = NULL;
    claw_lineage_tidy(l);
    return 0;
}

void claw_lineage_settle(struct claw_lineage *l)
{
    l->probation = false;
    l->good = NULL;
    claw_lineage_tidy(l);
}

enum claw_lineage_verdict claw_lineage_judge(struct claw_lineage *l, uint64_t now_ms)
{
    if (!l->probation) return CLAW_LINEAGE_FINE;
    const struct claw_conf *conf = l->current->gen->conf;
    struct claw_tally_sum s = claw_tally_add(tallies(l->current), 0);
    bool over = s.failed >= (int64_t)conf->policies.rollback.errors && (double)s.failed * 100 >= conf->policies.rollback.percent * (double)s.begun;
    if (now_ms - l->current->since_ms > conf->policies.rollback.window_ms) {
        claw_lineage_settle(l);
        return CLAW_LINEAGE_FINE;
    }
    if (!over) return CLAW_LINEAGE_FINE;
    if (l->good) return CLAW_LINEAGE_RETURN;
    claw_lineage_settle(l);
    return CLAW_LINEAGE_NOWHERE;
}

void claw_lineage_return(struct claw_lineage *l, int64_t now, uint64_t now_ms)
{
    struct claw_lineage_entry *bad = l->current;
    CLAW_ASSERT(l->good && l->good != bad);
    l->last.at = now;
    l->last.from = bad->gen->id;
    l->last.to = l->good->gen->id;
    l->last.sum = claw_tally_add(tallies(bad), 0);
    claw_tally_worst(tallies(bad), &l->last.worst);
    l->refused = true;
    l->refused_hash = bad->gen->hash;
    leave(bad, CLAW_LINEAGE_ROLLED_BACK, now_ms);
    arrive(l, l->good, "rollback", now, now_ms);
    claw_lineage_settle(l);
}

void claw_lineage_tidy(struct claw_lineage *l)
{
    for (struct claw_lineage_entry **at = &l->first, *e; (e = *at);) {
        /* With the lineage's reference the last one, nobody can take another but this thread. */
        if (e == l->current || e == l->good || atomic_load(&e->gen->refs) > 1) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        claw_generation_unref(e->gen);
        free(e);
    }
}

struct claw_lineage_entry *claw_lineage_overdue(struct claw_lineage *l, unsigned max_ms, uint64_t now_ms)
{
    for (struct claw_lineage_entry *e = l->first; e; e = e->next) {
        if (e == l->current || e->cut || now_ms - e->left_ms < max_ms) continue;
        struct claw_tally_sum s = claw_tally_add(tallies(e), 0);
        if (s.begun == s.ended) continue;
        e->cut = true;
        return e;
    }
    return NULL;
}

static int write_entry(const struct claw_lineage *l, const struct claw_lineage_entry *e, unsigned workers, uint64_t now_ms, struct claw_buf *out)
{
    static const char *const states[] = {"current", "draining", "rolled_back"};
    const struct claw_generation *g = e->gen;
    struct claw_tally_sum s = claw_tally_add(tallies(e), 0);
    int rc = claw_buf_add_fmt(out, "{\"id\":%llu,\"hash\":\"%016llx\",\"state\":\"%s\",\"reason\":\"%s\",\"loaded_at\":%lld,\"since\":%lld,"
                              "\"on_probation\":%s,\"kept\":%s,\"requests\":%lld,\"policy_errors\":%lld,\"in_flight\":%lld,\"in_flight_by_worker\":[",
                              (unsigned long long)g->id, (unsigned long long)g->hash, states[e->state], e->reason, (long long)g->loaded_at, (long long)e->since,
                              e == l->current && l->probation ? "true" : "false", e == l->good ? "true" : "false", (long long)s.begun,
                              (long long)s.failed, (long long)(s.begun - s.ended));
    for (unsigned i = 1; i <= workers && rc == 0; i++) {
        s = claw_tally_add(tallies(e), i);
        rc = claw_buf_add_fmt(out, "%s%lld", i > 1 ? "," : "", (long long)(s.begun - s.ended));
    }
    if (rc == 0 && e == l->current) return claw_buf_add_z(out, "]}");
    return rc == 0 ? claw_buf_add_fmt(out, "],\"draining_ms\":%llu}", (unsigned long long)(now_ms - e->left_ms)) : rc;
}

static int write_last(const struct claw_lineage_return *r, struct claw_buf *out)
{
    if (!r->at) return claw_buf_add_z(out, "null");
    struct claw_buf message;
    claw_buf_init(&message, 0);
    int rc = claw_buf_add_fmt(out, "{\"at\":%lld,\"from\":%llu,\"to\":%llu,\"requests\":%lld,\"policy_errors\":%lld,\"policy\":", (long long)r->at,
                              (unsigned long long)r->from, (unsigned long long)r->to, (long long)r->sum.begun, (long long)r->sum.failed);
    if (rc == 0) rc = claw_buf_add_json(out, claw_str_of(r->worst.policy));
    if (rc == 0) rc = claw_buf_add_z(out, ",\"hook\":");
    if (rc == 0) rc = claw_buf_add_json(out, claw_str_of(r->worst.hook));
    if (rc == 0) rc = claw_buf_add_z(out, ",\"message\":");
    if (rc == 0) rc = claw_buf_add_z(&message, r->worst.message);
    if (rc == 0) {
        claw_log_redact(&message);
        rc = claw_buf_add_json(out, claw_buf_str(&message));
    }
    claw_buf_fini(&message);
    return rc == 0 ? claw_buf_add_z(out, "}") : rc;
}

int claw_lineage_write(struct claw_lineage *l, unsigned workers, uint64_t now_ms, struct claw_buf *out)
{
    int rc = claw_buf_add_z(out, "\"generations\":[");
    for (const struct claw_lineage_entry *e = l->first; e && rc == 0; e = e->next) {
        rc = write_entry(l, e, workers, now_ms, out);
        if (rc == 0 && e->next) rc = claw_buf_add_z(out, ",");
    }
    if (rc == 0) rc = claw_buf_add_z(out, "],\"last_rollback\":");
    return rc == 0 ? write_last(&l->last, out) : rc;
}

void claw_lineage_fini(struct claw_lineage *l)
{
    l->current = l->good = NULL;
    while (l->first) {
        struct claw_lineage_entry *e = l->first;
        l->first = e->next;
        claw_generation_unref(e->gen);
        free(e);
    }
}
