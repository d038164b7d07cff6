/* ledger_db: the ledger in SQLite. One thread at a time: the writer's, after opening. */
#include "proxy/ledger_part.h"

#include "base/log.h"
#include "proxy/spend.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BUSY_MS 1000
#define AHEAD_S (31 * 86400) /* a period that begins later is a clock's that was wrong once: its budgets would stay shut until then */
#define FORM 1 /* of the tables, in the file's user_version */

struct claw_ledger_db {
    sqlite3 *db;
    sqlite3_stmt *add_hour, *add_spend;
    char why[200];
};

static const char tables[] =
    "CREATE TABLE IF NOT EXISTS hours(hour INTEGER, client TEXT, route TEXT, upstream TEXT, model TEXT,"
    " requests INTEGER, failed INTEGER, estimated INTEGER, input INTEGER, cached INTEGER, written INTEGER, output INTEGER,"
    " reasoning INTEGER, cost_micros INTEGER, PRIMARY KEY(hour, client, route, upstream, model)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS spend(client TEXT, per TEXT, start INTEGER, cost_micros INTEGER,"
    " PRIMARY KEY(client, per, start)) WITHOUT ROWID;"
    "PRAGMA user_version=1;";

static const char add_hour[] =
    "INSERT INTO hours VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)"
    " ON CONFLICT DO UPDATE SET requests=requests+?6, failed=failed+?7, estimated=estimated+?8, input=input+?9, cached=cached+?10,"
    " written=written+?11, output=output+?12, reasoning=reasoning+?13, cost_micros=cost_micros+?14";
static const char add_spend[] =
    "INSERT INTO spend VALUES(?1,?2,?3,?4) ON CONFLICT DO UPDATE SET cost_micros=cost_micros+?4";

static int fail(struct claw_ledger_db *db)
{
    snprintf(db->why, sizeof db->why, "%s", db->db ? sqlite3_errmsg(db->db) : "out of memory");
    return CLAW_EIO;
}

const char *claw_ledger_db_why(struct claw_ledger_db *db) { return db->why; }

static int do_all(struct claw_ledger_db *db, const char *sql) { return sqlite3_exec(db->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(db); }

static int form_of(struct claw_ledger_db *db, int *form)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db->db, "PRAGMA user_version", -1, &s, NULL) != SQLITE_OK) return fail(db);
    int rc = sqlite3_step(s) == SQLITE_ROW ? 0 : fail(db);
    if (rc == 0) *form = sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    return rc;
}

static int begin(struct claw_ledger_db *db, const char *path)
{
    int form = 0, flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path ? path : ":memory:", &db->db, flags, NULL) != SQLITE_OK) return fail(db);
    sqlite3_busy_timeout(db->db, BUSY_MS);
    int rc = do_all(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;");
    if (rc == 0) rc = form_of(db, &form);
    if (rc == 0 && form > FORM) {
        snprintf(db->why, sizeof db->why, "it was written by a newer version");
        return CLAW_EIO;
    }
    if (rc == 0) rc = do_all(db, tables);
    if (rc == 0 && sqlite3_prepare_v2(db->db, add_hour, -1, &db->add_hour, NULL) != SQLITE_OK) rc = fail(db);
    if (rc == 0 && sqlite3_prepare_v2(db->db, add_spend, -1, &db->add_spend, NULL) != SQLITE_OK) rc = fail(db);
    return rc;
}

int claw_ledger_db_open(const char *path, struct claw_ledger_db **out, char *why, size_t why_size)
{
    struct claw_ledger_db *db = calloc(1, sizeof *db);
    if (!db) return CLAW_ENOMEM;
    int rc = begin(db, path);
    if (rc != 0) {
        snprintf(why, why_size, "%s", db->why);
        claw_ledger_db_close(db);
    } else {
        *out = db;
    }
    return rc;
}

void claw_ledger_db_close(struct claw_ledger_db *db)
{
    if (!db) return;
    sqlite3_finalize(db->add_hour);
    sqlite3_finalize(db->add_spend);
    sqlite3_close(db->db);
    free(db);
}

static struct claw_str column(sqlite3_stmt *s, int i)
{
    const char *p = (const char *)sqlite3_column_text(s, i);
    return p ? (struct claw_str){p, (size_t)sqlite3_column_bytes(s, i)} : CLAW_STR("");
}

int claw_ledger_db_restore(struct claw_ledger_db *db, int64_t now)
{
    sqlite3_stmt *s;
    int step;
    bool ahead = false;
    if (sqlite3_prepare_v2(db->db, "SELECT client, per, start, cost_micros FROM spend", -1, &s, NULL) != SQLITE_OK) return fail(db);
    while ((step = sqlite3_step(s)) == SQLITE_ROW) {
        enum claw_spend_per per;
        int64_t start = sqlite3_column_int64(s, 2);
        if (!claw_spend_per_of(column(s, 1), &per) || start < claw_spend_start(per, now) || start > now + AHEAD_S) continue;
        ahead |= start > claw_spend_start(per, now); /* the clock was set back: the later period stays */
        struct claw_spend *spend = claw_spend_of(column(s, 0));
        if (spend) claw_spend_restore(spend, per, start, sqlite3_column_int64(s, 3));
    }
    int rc = step == SQLITE_DONE ? 0 : fail(db);
    sqlite3_finalize(s);
    if (ahead) claw_log_event(CLAW_LOG_WARN, "the clock is behind the ledger: budgets stay in the later period", NULL);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

static int done(struct claw_ledger_db *db, sqlite3_stmt *s)
{
    int rc = sqlite3_step(s) == SQLITE_DONE ? 0 : fail(db);
    sqlite3_reset(s);
    return rc;
}

static void put(sqlite3_stmt *s, int at, struct claw_str text) { sqlite3_bind_text(s, at, text.ptr, (int)text.len, SQLITE_STATIC); }

static int write_hour(struct claw_ledger_db *db, const struct claw_ledger_sum *sum)
{
    const int64_t numbers[] = {sum->requests, sum->failed, sum->estimated, sum->input, sum->cached, sum->written, sum->output, sum->reasoning, sum->cost_micros};
    sqlite3_bind_int64(db->add_hour, 1, sum->hour);
    for (int i = 0; i < 4; i++) put(db->add_hour, 2 + i, sum->words[i]);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) sqlite3_bind_int64(db->add_hour, 6 + (int)i, numbers[i]);
    return done(db, db->add_hour);
}

static int write_spend(struct claw_ledger_db *db, const struct claw_ledger_sum *sum)
{
    int rc = 0;
    if (sum->words[0].len == 0 || sum->cost_micros <= 0) return 0;
    for (int per = 0; per < CLAW_SPEND_PERIODS && rc == 0; per++) {
        put(db->add_spend, 1, sum->words[0]);
        put(db->add_spend, 2, claw_str_of(claw_spend_per_name((enum claw_spend_per)per)));
        sqlite3_bind_int64(db->add_spend, 3, claw_spend_start((enum claw_spend_per)per, sum->hour));
        sqlite3_bind_int64(db->add_spend, 4, sum->cost_micros);
        rc = done(db, db->add_spend);
    }
    return rc;
}

int claw_ledger_db_write(struct claw_ledger_db *db, const struct claw_ledger_table *t)
{
    int rc = do_all(db, "BEGIN IMMEDIATE");
    if (rc != 0) return rc;
    for (unsigned i = 0; i < CLAW_LEDGER_BUCKETS; i++) {
        for (const struct claw_ledger_sum *s = t->buckets[i]; s && rc == 0; s = s->next) {
            rc = write_hour(db, s);
            if (rc == 0) rc = write_spend(db, s);
        }
    }
    if (rc == 0) rc = do_all(db, "COMMIT");
    if (rc != 0) sqlite3_exec(db->db, "ROLLBACK", NULL, NULL, NULL); /* what went wrong is told already */
    return rc;
}

int claw_ledger_db_forget(struct claw_ledger_db *db, int64_t before)
{
    static const char *const all[] = {"DELETE FROM hours WHERE hour < ?1", "DELETE FROM spend WHERE per <> 'total' AND start < ?1"};
    int rc = 0;
    for (unsigned i = 0; i < sizeof all / sizeof *all && rc == 0; i++) {
        sqlite3_stmt *s;
        if (sqlite3_prepare_v2(db->db, all[i], -1, &s, NULL) != SQLITE_OK) return fail(db);
        sqlite3_bind_int64(s, 1, before);
        rc = done(db, s);
        sqlite3_finalize(s);
    }
    return rc;
}

/* ---- answering ----------------------------------------------------------------------------------------------------------- */

static const char *const words[4] = {"client", "route", "upstream", "model"};
static const char *const sums[] = {"requests", "failed", "estimated", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens",
                                   "reasoning_tokens", "cost_usd"};
static const char *const columns[] = {"requests", "failed", "estimated", "input", "cached", "written", "output", "reasoning", "cost_micros"};
#define SUMS (sizeof sums / sizeof *sums)

static int add_sql(struct claw_buf *sql, const struct claw_ledger_question *q)
{
    int rc = claw_buf_add_z(sql, "SELECT ");
    if (rc == 0) rc = q->step ? claw_buf_add_fmt(sql, "hour - hour %% %u AS begin", q->step) : claw_buf_add_z(sql, "0 AS begin");
    for (int i = 0; i < 4 && rc == 0; i++)
        if (q->by & 1u << i) rc = claw_buf_add_fmt(sql, ",%s", words[i]);
    for (unsigned i = 0; i < SUMS && rc == 0; i++) rc = claw_buf_add_fmt(sql, ",sum(%s)", columns[i]);
    if (rc == 0) rc = claw_buf_add_z(sql, " FROM hours WHERE hour >= ?1 AND hour < ?2");
    for (int i = 0; i < 4 && rc == 0; i++)
        if (q->only[i].ptr) rc = claw_buf_add_fmt(sql, " AND %s = ?%d", words[i], 3 + i);
    if (rc == 0) rc = claw_buf_add_z(sql, " GROUP BY begin");
    for (int i = 0; i < 4 && rc == 0; i++)
        if (q->by & 1u << i) rc = claw_buf_add_fmt(sql, ",%s", words[i]);
    if (rc == 0) rc = claw_buf_add_z(sql, " HAVING sum(requests) > 0 ORDER BY begin");
    for (int i = 0; i < 4 && rc == 0; i++)
        if (q->by & 1u << i) rc = claw_buf_add_fmt(sql, ",%s", words[i]);
    return rc == 0 ? claw_buf_add_fmt(sql, " LIMIT %u", CLAW_LEDGER_ROWS + 1) : rc;
}

/* A field that a spreadsheet would take for a formula is kept from being one; all is quoted (RFC 4180). */
static int add_csv_text(struct claw_buf *b, struct claw_str s)
{
    int rc = claw_buf_add_z(b, "\"");
    if (rc == 0 && s.len && strchr("=+-@\t\r", s.ptr[0])) rc = claw_buf_add_z(b, "'");
    for (size_t i = 0; i < s.len && rc == 0; i++) {
        if (s.ptr[i] == '"') rc = claw_buf_add_z(b, "\"");
        if (rc == 0) rc = claw_buf_add(b, &s.ptr[i], 1);
    }
    return rc == 0 ? claw_buf_add_z(b, "\"") : rc;
}

static int add_time(struct claw_buf *b, int64_t t, bool quoted)
{
    char text[32];
    time_t seconds = (time_t)t;
    struct tm tm;
    if (!gmtime_r(&seconds, &tm)) return claw_buf_add_fmt(b, "%lld", (long long)t); /* the year has no number in an int */
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return claw_buf_add_fmt(b, quoted ? "\"%s\"" : "%s", text);
}

static int add_head_csv(struct claw_buf *b, const struct claw_ledger_question *q)
{
    int rc = q->step ? claw_buf_add_z(b, "begin,") : 0;
    for (int i = 0; i < 4 && rc == 0; i++)
        if (q->by & 1u << i) rc = claw_buf_add_fmt(b, "%s,", words[i]);
    for (unsigned i = 0; i < SUMS && rc == 0; i++) rc = claw_buf_add_fmt(b, "%s%s", sums[i], i + 1 < SUMS ? "," : "\r\n");
    return rc;
}

static int add_row_csv(struct claw_buf *b, const struct claw_ledger_question *q, sqlite3_stmt *s)
{
    int rc = 0, at = 1;
    if (q->step && (rc = add_time(b, sqlite3_column_int64(s, 0), false)) == 0) rc = claw_buf_add_z(b, ",");
    for (int i = 0; i < 4 && rc == 0; i++)
        if (q->by & 1u << i && (rc = add_csv_text(b, column(s, at++))) == 0) rc = claw_buf_add_z(b, ",");
    for (unsigned i = 0; i < SUMS && rc == 0; i++) {
        int64_t n = sqlite3_column_int64(s, at++);
        rc = i + 1 < SUMS ? claw_buf_add_fmt(b, "%lld,", (long long)n) : claw_buf_add_micros(b, n);
    }
    return rc == 0 ? claw_buf_add_z(b, "\r\n") : rc;
}

static int add_row_json(struct claw_buf *b, const struct claw_ledger_question *q, sqlite3_stmt *s, bool first)
{
    int rc = claw_buf_add_z(b, first ? "\n{" : ",\n{"), at = 1;
    if (rc == 0 && q->step && (rc = claw_buf_add_z(b, "\"begin\":")) == 0 && (rc = add_time(b, sqlite3_column_int64(s, 0), true)) == 0)
        rc = claw_buf_add_z(b, ",");
    for (int i = 0; i < 4 && rc == 0; i++) {
        if (!(q->by & 1u << i)) continue;
        rc = claw_buf_add_fmt(b, "\"%s\":", words[i]);
        if (rc == 0) rc = claw_buf_add_json(b, column(s, at++));
        if (rc == 0) rc = claw_buf_add_z(b, ",");
    }
    for (unsigned i = 0; i < SUMS && rc == 0; i++) {
        int64_t n = sqlite3_column_int64(s, at++);
        rc = claw_buf_add_fmt(b, "\"%s\":", sums[i]);
        if (rc == 0) rc = i + 1 < SUMS ? claw_buf_add_fmt(b, "%lld,", (long long)n) : claw_buf_add_micros(b, n);
    }
    return rc == 0 ? claw_buf_add_z(b, "}") : rc;
}

static int add_head_json(struct claw_buf *b, const struct claw_ledger_question *q)
{
    int rc = claw_buf_add_z(b, "{\"from\":");
    if (rc == 0) rc = add_time(b, q->from, true);
    if (rc == 0) rc = claw_buf_add_z(b, ",\"to\":");
    if (rc == 0) rc = add_time(b, q->to, true);
    return rc == 0 ? claw_buf_add_z(b, ",\"rows\":[") : rc;
}

static int add_rows(struct claw_ledger_db *db, struct claw_ledger_question *q, sqlite3_stmt *s)
{
    unsigned n = 0;
    int step = SQLITE_DONE, rc = q->csv ? add_head_csv(&q->out, q) : add_head_json(&q->out, q);
    while (rc == 0 && (step = sqlite3_step(s)) == SQLITE_ROW && n < CLAW_LEDGER_ROWS) {
        rc = q->csv ? add_row_csv(&q->out, q, s) : add_row_json(&q->out, q, s, n == 0);
        n++;
    }
    if (rc == 0 && step != SQLITE_DONE && step != SQLITE_ROW) return fail(db);
    if (rc == 0 && !q->csv) rc = claw_buf_add_fmt(&q->out, "],\"complete\":%s}\n", step == SQLITE_DONE ? "true" : "false");
    return rc;
}

int claw_ledger_db_answer(struct claw_ledger_db *db, struct claw_ledger_question *q)
{
    struct claw_buf sql;
    sqlite3_stmt *s = NULL;
    claw_buf_init(&sql, 0);
    int rc = add_sql(&sql, q);
    struct claw_str text = claw_buf_str(&sql);
    if (rc == 0 && sqlite3_prepare_v2(db->db, text.ptr, (int)text.len, &s, NULL) != SQLITE_OK) rc = fail(db);
    if (rc == 0) {
        sqlite3_bind_int64(s, 1, q->from);
        sqlite3_bind_int64(s, 2, q->to);
        for (int i = 0; i < 4; i++)
            if (q->only[i].ptr) put(s, 3 + i, q->only[i]);
        rc = add_rows(db, q, s);
    }
    sqlite3_finalize(s);
    claw_buf_fini(&sql);
    return rc;
}
