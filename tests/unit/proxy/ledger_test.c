/* ledger: what was added is in the file, once, whatever happens between; questions get sums. */
#include "proxy/ledger.h"

#include "proxy/spend.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define T0 1764072000 /* 2025-11-25T12:00:00Z */
#define KEEP_DAYS 36500

static char path[64];
static struct claw_loop loop;

static int set_up(void **state)
{
    snprintf(path, sizeof path, "build/ledger_test_%d.db", (int)getpid());
    return claw_loop_init(&loop);
}

static int tear_down(void **state)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    return claw_loop_fini(&loop, true);
}

static struct claw_ledger *open_at(const char *where)
{
    struct claw_ledger *l;
    char why[200];
    assert_int_equal(claw_ledger_open(where, KEEP_DAYS, &l, why, sizeof why), 0);
    return l;
}

static void add(struct claw_ledger_page *p, const char *client, const char *model, int64_t micros, int64_t now)
{
    const struct claw_ledger_entry e = {.client = claw_str_of(client), .route = CLAW_STR("r"), .upstream = CLAW_STR("u"), .model = claw_str_of(model),
                                        .input = 10, .output = 2, .cost_micros = micros};
    claw_ledger_add(p, &e, now);
}

static bool answered;
static void on_answer(struct claw_ledger_question *q) { answered = true; }

/* The answer's text; the caller frees it. */
static char *ask(struct claw_ledger *l, struct claw_ledger_question q)
{
    q.loop = &loop;
    q.done = on_answer;
    if (!q.to) q.to = INT64_C(1) << 36;
    claw_buf_init(&q.out, 0);
    answered = false;
    claw_ledger_ask(l, &q);
    while (!answered) claw_loop_turn(&loop, true);
    assert_int_equal(q.rc, 0);
    struct claw_str s = claw_buf_str(&q.out);
    char *text = strndup(s.ptr, s.len);
    claw_buf_fini(&q.out);
    return text;
}

static void expect(struct claw_ledger *l, struct claw_ledger_question q, const char *rows)
{
    char *text = ask(l, q);
    if (q.csv) assert_string_equal(text, rows);
    else if (!strstr(text, rows)) fail_msg("%s is not in %s", rows, text);
    free(text);
}

static void sums(void **state)
{
    struct claw_ledger *l = open_at(NULL);
    struct claw_ledger_page *p = claw_ledger_page_of(l, 1), *o = claw_ledger_page_of(l, 2);
    assert_ptr_equal(p, claw_ledger_page_of(l, 1));
    assert_ptr_not_equal(p, o);
    add(p, "ann", "gpt", 100, T0);
    add(p, "ann", "gpt", 50, T0 + 3599);
    add(o, "ann", "gpt", 7, T0 + 3600);
    add(o, "bob", "claude", 1000000, T0);
    expect(l, (struct claw_ledger_question){.by = CLAW_LEDGER_CLIENT, .csv = true},
           "client,requests,failed,estimated,input_tokens,cached_input_tokens,cache_write_tokens,output_tokens,reasoning_tokens,cost_usd\r\n"
           "\"ann\",3,0,0,30,0,0,6,0,0.000157\r\n\"bob\",1,0,0,10,0,0,2,0,1\r\n");
    expect(l, (struct claw_ledger_question){.step = 3600, .only = {CLAW_STR("ann")}, .csv = true},
           "begin,requests,failed,estimated,input_tokens,cached_input_tokens,cache_write_tokens,output_tokens,reasoning_tokens,cost_usd\r\n"
           "2025-11-25T12:00:00Z,2,0,0,20,0,0,4,0,0.00015\r\n2025-11-25T13:00:00Z,1,0,0,10,0,0,2,0,0.000007\r\n");
    expect(l, (struct claw_ledger_question){.from = T0 + 3600, .by = CLAW_LEDGER_MODEL}, "[\n{\"model\":\"gpt\",\"requests\":1,");
    expect(l, (struct claw_ledger_question){.only = {CLAW_STR("nobody")}}, "\"rows\":[],\"complete\":true}");
    claw_ledger_close(l);
}

/* A name is data, in SQL, in JSON and in a spreadsheet. */
static void hostile_names(void **state)
{
    struct claw_ledger *l = open_at(NULL);
    add(claw_ledger_page_of(l, 1), "x'); DROP TABLE hours;--", "=1+1\",\"\n", 1, T0);
    expect(l, (struct claw_ledger_question){.by = CLAW_LEDGER_CLIENT | CLAW_LEDGER_MODEL},
           "{\"client\":\"x'); DROP TABLE hours;--\",\"model\":\"=1+1\\\",\\\"\\n\",");
    char *text = ask(l, (struct claw_ledger_question){.by = CLAW_LEDGER_MODEL, .csv = true});
    assert_non_null(strstr(text, "\r\n\"'=1+1\"\",\"\"\n\",1,"));
    free(text);
    claw_ledger_close(l);
}

static void outlives_the_process(void **state)
{
    int64_t now = (int64_t)time(NULL);
    struct claw_spend *s = claw_spend_of(CLAW_STR("outlives"));
    struct claw_ledger *l = open_at(path);
    add(claw_ledger_page_of(l, 1), "outlives", "m", 300, now);
    claw_ledger_close(l);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_MONTH, now), 300);
    l = open_at(path); /* in this process it was known already; in another one it would not be */
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_MONTH, now), 600);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_TOTAL, now), 600);
    add(claw_ledger_page_of(l, 1), "outlives", "m", 1, now);
    expect(l, (struct claw_ledger_question){.only = {CLAW_STR("outlives")}}, "\"cost_usd\":0.000301}");
    claw_ledger_close(l);
}

/* A clock that was set back over a restart: the later period's money is not given a second time. */
static void outlives_a_clock_set_back(void **state)
{
    int64_t now = (int64_t)time(NULL), later = now + 2 * 86400;
    struct claw_spend *s = claw_spend_of(CLAW_STR("back"));
    struct claw_ledger *l = open_at(path);
    add(claw_ledger_page_of(l, 1), "back", "m", 300, later);
    claw_ledger_close(l);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, now), 300);
    l = open_at(path); /* known in this process already, so that it counts twice */
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, now), 600);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, later + 86400), 0);
    claw_ledger_close(l);
}

/* A clock that was years ahead once does not shut budgets until then. */
static void forgets_a_clock_far_ahead(void **state)
{
    int64_t now = (int64_t)time(NULL);
    struct claw_spend *s = claw_spend_of(CLAW_STR("ahead"));
    struct claw_ledger *l = open_at(path);
    add(claw_ledger_page_of(l, 1), "far", "m", 300, now + 40 * 86400); /* another's: this process has its own memory of it */
    claw_ledger_close(l);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE spend SET client = 'ahead'", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    l = open_at(path);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_DAY, now), 0);
    assert_int_equal(claw_spend_in(s, CLAW_SPEND_TOTAL, now), 300);
    claw_ledger_close(l);
}

/* Killed in mid-load: never more than was added, never less than what was added a moment before. */
static void killed(void **state)
{
    int told[2];
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        struct claw_ledger *l;
        char why[200];
        if (claw_ledger_open(path, KEEP_DAYS, &l, why, sizeof why) != 0) _exit(1);
        struct claw_ledger_page *p = claw_ledger_page_of(l, 1);
        for (int64_t n = 1;; n++) {
            add(p, "killed", "m", 1, T0);
            int64_t line[2] = {n, (int64_t)claw_loop_clock_us()};
            if (n % 64 == 0 && write(told[1], line, sizeof line) != sizeof line) _exit(1);
            if (n % 64 == 0) usleep(500);
        }
    }
    close(told[1]);
    int64_t line[2], seen[4096][2];
    unsigned n = 0;
    while (n < 400 && read(told[0], line, sizeof line) == sizeof line) memcpy(seen[n++], line, sizeof line);
    kill(child, SIGKILL);
    int64_t end = (int64_t)claw_loop_clock_us();
    while (n < 4096 && read(told[0], line, sizeof line) == sizeof line) memcpy(seen[n++], line, sizeof line);
    waitpid(child, NULL, 0);
    close(told[0]);
    struct claw_ledger *l = open_at(path);
    char *text = ask(l, (struct claw_ledger_question){.only = {CLAW_STR("killed")}}), *at = strstr(text, "\"requests\":");
    assert_non_null(at);
    int64_t got = strtoll(at + 11, NULL, 10), least = 0;
    for (unsigned i = 0; i < n; i++)
        if (seen[i][1] < end - 1000000) least = seen[i][0]; /* a second: this machine may be busy */
    assert_true(got >= least);
    assert_true(got <= seen[n - 1][0] + 64);
    free(text);
    claw_ledger_close(l);
}

/* Past the page's end models are not told apart, and nothing is lost. */
static void many_models(void **state)
{
    struct claw_ledger *l = open_at(NULL);
    struct claw_ledger_page *p = claw_ledger_page_of(l, 1);
    char model[32];
    for (int i = 0; i < 3 * (int)CLAW_LEDGER_PAGE; i++) {
        snprintf(model, sizeof model, "m%d", i);
        add(p, "c", model, 1, T0);
    }
    expect(l, (struct claw_ledger_question){0}, "\"requests\":12288,");
    assert_int_equal(claw_ledger_measure(l).lost, 0);
    char *text = ask(l, (struct claw_ledger_question){.by = CLAW_LEDGER_MODEL});
    assert_true(strlen(text) < 4u << 20);
    free(text);
    claw_ledger_close(l);
}

/* What cannot be written is kept, and written when it can be. */
static void a_database_that_is_locked(void **state)
{
    struct claw_ledger *l = open_at(path);
    sqlite3 *other;
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    add(claw_ledger_page_of(l, 1), "locked", "m", 5, T0);
    while (claw_ledger_measure(l).errors == 0) usleep(1000);
    add(claw_ledger_page_of(l, 1), "locked", "m", 5, T0);
    while (claw_ledger_measure(l).waiting != 1) usleep(1000);
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(other);
    expect(l, (struct claw_ledger_question){.only = {CLAW_STR("locked")}}, "\"requests\":2,");
    assert_int_equal(claw_ledger_measure(l).waiting, 0);
    assert_int_equal(claw_ledger_measure(l).written, 2);
    claw_ledger_close(l);
}

/* Hours past keep_days go, and the spend of periods; the total stays. */
static void forgets(void **state)
{
    struct claw_ledger *l = open_at(path);
    int64_t now = (int64_t)time(NULL);
    add(claw_ledger_page_of(l, 1), "old", "m", 5, now - 20 * 86400);
    add(claw_ledger_page_of(l, 1), "old", "m", 7, now);
    claw_ledger_close(l);
    char why[200];
    assert_int_equal(claw_ledger_open(path, 10, &l, why, sizeof why), 0);
    free(ask(l, (struct claw_ledger_question){0})); /* it looks for what is old behind the first answer */
    expect(l, (struct claw_ledger_question){.only = {CLAW_STR("old")}}, "\"requests\":1,");
    claw_ledger_close(l);
    sqlite3 *db;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT sum(cost_micros) FROM spend WHERE client='old' AND per='total'", -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(s, 0), 12);
    sqlite3_finalize(s);
    sqlite3_close(db);
}

static void refuses(void **state)
{
    struct claw_ledger *l;
    char why[200];
    assert_int_equal(claw_ledger_open("build/no/such/folder/x.db", KEEP_DAYS, &l, why, sizeof why), CLAW_EIO);
    assert_string_equal(why, "unable to open database file");
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 200; i++) fputs("this is no database\n", f);
    fclose(f);
    assert_int_equal(claw_ledger_open(path, KEEP_DAYS, &l, why, sizeof why), CLAW_EIO);
    assert_string_equal(why, "file is not a database");
}

static struct claw_ledger_page *pages[4];
static void *adds(void *arg)
{
    for (int i = 0; i < 20000; i++) add(pages[(intptr_t)arg], "t", i % 3 ? "a" : "b", 1, T0);
    return NULL;
}

static void from_many_threads(void **state)
{
    struct claw_ledger *l = open_at(NULL);
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pages[i] = claw_ledger_page_of(l, (unsigned)i + 1);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, adds, (void *)(intptr_t)i), 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    expect(l, (struct claw_ledger_question){0}, "\"requests\":80000,");
    claw_ledger_close(l);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(sums), TEST(hostile_names), TEST(outlives_the_process), TEST(outlives_a_clock_set_back), TEST(forgets_a_clock_far_ahead), TEST(killed), TEST(many_models), TEST(a_database_that_is_locked),
        TEST(forgets), TEST(refuses), TEST(from_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
