/* admin_spend: GET /spend, the ledger's sums.
 *
 *   by      client, route, upstream, model, with commas between; not given: everything in one row
 *   per     hour or day (UTC); not given: not by time
 *   from to RFC 3339 ("2026-11-25T00:00:00Z"), a date, or Unix seconds; the last 24 hours unless given
 *   client route upstream model   only this one
 *   format  json, or csv
 */
#include "app/admin_part.h"

#include "proxy/ledger.h"

#include <stdlib.h>
#include <time.h>

#define HOUR 3600

struct wait {
    struct claw_ledger_question q;
    struct claw_conn *conn; /* NULL: the client left */
    char words[4][CLAW_ADMIN_VALUE];
};

static const char *const words[4] = {"client", "route", "upstream", "model"};

static bool read_time(struct claw_str s, int64_t *out)
{
    char text[40];
    struct tm tm = {0};
    uint64_t seconds;
    if (claw_str_u64(s, 1ull << 40, &seconds) == 0) {
        *out = (int64_t)seconds;
        return true;
    }
    if (s.len >= sizeof text) return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    if (rest && *rest) rest = strptime(rest, "T%H:%M:%SZ", &tm);
    if (!rest || *rest) return false;
    *out = (int64_t)timegm(&tm);
    return true;
}

static bool read_by(struct claw_str s, unsigned *by)
{
    while (s.len) {
        const char *comma = memchr(s.ptr, ',', s.len);
        struct claw_str one = {s.ptr, comma ? (size_t)(comma - s.ptr) : s.len};
        int i = 0;
        while (i < 4 && !claw_str_eqz(one, words[i])) i++;
        if (i == 4) return false;
        *by |= 1u << i;
        s.ptr += one.len + (comma != NULL);
        s.len -= one.len + (comma != NULL);
    }
    return true;
}

/* NULL: understood; else what is wrong. */
static const char *read_one(struct wait *w, struct claw_str name, struct claw_str value)
{
    struct claw_ledger_question *q = &w->q;
    if (claw_str_eqz(name, "by")) return read_by(value, &q->by) ? NULL : "by is client, route, upstream, model, with commas between.";
    if (claw_str_eqz(name, "from")) return read_time(value, &q->from) ? NULL : "from is a date, 2026-11-25T00:00:00Z, or Unix seconds.";
    if (claw_str_eqz(name, "to")) return read_time(value, &q->to) ? NULL : "to is a date, 2026-11-25T00:00:00Z, or Unix seconds.";
    if (claw_str_eqz(name, "per")) {
        q->step = claw_str_eqz(value, "hour") ? HOUR : claw_str_eqz(value, "day") ? 24 * HOUR : 0;
        return q->step ? NULL : "per is hour or day.";
    }
    if (claw_str_eqz(name, "format")) {
        q->csv = claw_str_eqz(value, "csv");
        return q->csv || claw_str_eqz(value, "json") ? NULL : "format is json or csv.";
    }
    for (int i = 0; i < 4; i++) {
        if (!claw_str_eqz(name, words[i])) continue;
        memcpy(w->words[i], value.ptr, value.len);
        q->only[i] = (struct claw_str){w->words[i], value.len};
        return NULL;
    }
    return "/spend knows by, per, from, to, client, route, upstream, model, format.";
}

static const char *read_query(struct wait *w, struct claw_str query)
{
    struct claw_h1_parameter one;
    while (claw_h1_next_parameter(&query, &one)) {
        char text[CLAW_ADMIN_VALUE];
        struct claw_str value;
        const char *why;
        if (!claw_admin_decode(one.value, text, &value)) return "A value is not well-formed, or too long.";
        if (one.whole.len && (why = read_one(w, one.name, value))) return why;
    }
    return NULL;
}

static void on_answer(struct claw_ledger_question *q)
{
    struct wait *w = (struct wait *)q;
    struct claw_conn *c = w->conn;
    if (c) {
        struct claw_admin_question *asked = c->request;
        asked->on_gone = NULL;
        if (q->rc == 0) {
            asked->out = q->out;
            claw_buf_init(&q->out, 0);
            claw_admin_answer(c, 200, q->csv ? "text/csv; charset=utf-8; header=present" : "application/json");
        } else {
            claw_admin_answer_error(c, 503, "The ledger cannot be read.", "ledger");
        }
    }
    claw_buf_fini(&q->out);
    free(w);
}

static void on_gone(void *waits)
{
    struct wait *w = waits;
    w->conn = NULL;
}

void claw_admin_spend(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *asked = c->request;
    if (!control->ledger) {
        claw_admin_answer_error(c, 404, "There is no ledger: set state.path.", "no_ledger");
        return;
    }
    struct wait *w = calloc(1, sizeof *w);
    if (!w) {
        claw_conn_abort(c);
        return;
    }
    int64_t now = (int64_t)time(NULL);
    w->q.loop = &control->loop;
    w->q.done = on_answer;
    w->q.to = now + 1;
    w->q.from = INT64_MIN;
    const char *why = read_query(w, asked->head->query);
    if (why) {
        free(w);
        claw_admin_answer_error(c, 400, why, "bad_query");
        return;
    }
    if (w->q.from == INT64_MIN) w->q.from = w->q.to - 24 * HOUR;
    claw_buf_init(&w->q.out, 64u << 20);
    w->conn = c;
    asked->on_gone = on_gone;
    asked->waits = w;
    claw_ledger_ask(control->ledger, &w->q);
}
