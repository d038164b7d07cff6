#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64], moved[80];

static void open_to(int to, bool text)
{
    struct claw_log_conf conf = {.level = CLAW_LOG_INFO, .to = to, .path = to ? NULL : path, .text = text};
    assert_int_equal(claw_log_open(&conf), 0);
}

/* The file's text, NUL-terminated; the caller frees. */
static char *text_of(const char *file)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_file(&b, file), 0);
    assert_int_equal(claw_buf_add(&b, "", 1), 0);
    return b.data;
}

/* Close, take the file's text, remove it. */
static char *finish(void)
{
    claw_log_close(10000);
    char *text = text_of(path);
    unlink(path);
    return text;
}

static unsigned count(const char *text, const char *part)
{
    unsigned n = 0;
    for (; (text = strstr(text, part)); text += strlen(part)) n++;
    return n;
}

static void raw(const char *text)
{
    struct claw_buf *b = claw_log_begin(CLAW_LOG_INFO);
    assert_non_null(b);
    assert_int_equal(claw_buf_add_z(b, text), 0);
    assert_int_equal(claw_buf_add_z(b, "\n"), 0);
    claw_log_end(b);
}

static void test_before_open(void **state)
{
    int saved = dup(2), fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, 2);
    claw_log_event(CLAW_LOG_ERROR, "early", NULL);
    claw_log_event(CLAW_LOG_DEBUG, "hidden", NULL);
    dup2(saved, 2);
    close(saved);
    close(fd);
    assert_int_equal(claw_log_waiting(), 0);
    char *text = text_of(path);
    assert_non_null(strstr(text, "\"level\":\"error\",\"msg\":\"early\"}\n"));
    assert_null(strstr(text, "hidden"));
    free(text);
    unlink(path);
    struct claw_log_conf conf = {.to = 2};
    assert_int_equal(claw_log_set(&conf), CLAW_EINVAL);
    claw_log_flush();
    claw_log_close(0);
}

static void test_events(void **state)
{
    open_to(0, false);
    assert_false(claw_log_on(CLAW_LOG_DEBUG));
    assert_null(claw_log_begin(CLAW_LOG_DEBUG));
    claw_log_event(CLAW_LOG_INFO, "a\n\"b\"", "name", "v\x01\xFF", "count#", "12", "none", NULL, "n#", NULL, NULL);
    struct claw_log_conf conf = {.level = CLAW_LOG_WARN, .path = path, .text = true};
    assert_int_equal(claw_log_set(&conf), 0);
    claw_log_event(CLAW_LOG_INFO, "hidden", NULL);
    claw_log_event(CLAW_LOG_WARN, "two words\n", "k", "bare", "q", "a b", "e", "", "c#", "7", "z", NULL, NULL);
    assert_true(claw_log_waiting() > 0);
    char *text = finish();
    assert_int_equal(claw_log_waiting(), 0);
    char *second = strchr(text, '\n');
    assert_non_null(second);
    assert_memory_equal(text, "{\"time\":\"20", 11);
    assert_memory_equal(text + 32, "Z\",\"", 4);
    *second++ = 0;
    assert_string_equal(text + 34, ",\"level\":\"info\",\"msg\":\"a\\n\\\"b\\\"\",\"name\":\"v\\u0001\xEF\xBF\xBD\","
                                   "\"count\":12,\"none\":null,\"n\":null}");
    assert_int_equal(second[23], 'Z');
    assert_string_equal(second + 24, " warn two words\\n k=bare q=\"a b\" e=\"\" c=7 z=null\n");
    free(text);
}

static void test_time(void **state)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    time_t before = time(NULL);
    for (int i = 0; i < 3; i++) {
        struct tm tm = {0};
        claw_buf_clear(&b);
        assert_int_equal(claw_log_add_time(&b), 0);
        assert_int_equal(claw_buf_size(&b), 24);
        assert_int_equal(claw_buf_add(&b, "", 1), 0);
        int ms;
        assert_int_equal(sscanf(b.data, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
                                &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms), 7);
        tm.tm_year -= 1900;
        tm.tm_mon--;
        assert_in_range(timegm(&tm), before, time(NULL));
    }
    claw_buf_fini(&b);
}

static void redacts(const char *in, const char *want)
{
    struct claw_buf b;
    claw_buf_init(&b, 0);
    assert_int_equal(claw_buf_add_z(&b, "taken"), 0);
    assert_int_equal(claw_buf_add_z(&b, in), 0);
    claw_buf_take(&b, 5);
    claw_log_redact(&b);
    assert_int_equal(claw_buf_size(&b), strlen(want));
    assert_memory_equal(claw_buf_str(&b).ptr, want, strlen(want));
    claw_buf_fini(&b);
}

static void test_lent_secrets(void **state)
{
    struct claw_log_lent first = {.secret = {NULL, 0}}, second = first, brief = first;
    redacts("a token-1111 b", "a token-1111 b");
    claw_log_secret_lend(&first, CLAW_STR("token-1111"));
    claw_log_secret_lend(&second, CLAW_STR("token-22222222"));
    claw_log_secret_lend(&brief, CLAW_STR("brief"));
    redacts("a token-1111 b token-22222222token-1111", "a *** b ******");
    redacts("token-1111", "***");
    redacts("token-111 brief", "token-111 brief");
    claw_log_secret_return(&first);
    claw_log_secret_return(&brief);
    redacts("token-1111 token-22222222 token-22222222", "token-1111 *** ***");
    claw_log_secret_lend(&first, CLAW_STR("token-3333"));
    claw_log_secret_return(&second);
    redacts("token-22222222 token-3333", "token-22222222 ***");
    open_to(0, false);
    claw_log_event(CLAW_LOG_INFO, "m", "k", "Bearer token-3333", NULL);
    raw("token-3333");
    char *text = finish();
    assert_null(strstr(text, "3333"));
    assert_int_equal(count(text, "***"), 2);
    free(text);
    claw_log_secret_return(&first);
    claw_log_secret_return(&first);
}

static void test_secrets(void **state)
{
    redacts("sk-test-secret-1", "sk-test-secret-1");
    claw_log_secret(CLAW_STR("short"));
    claw_log_secret(CLAW_STR("sk-test-secret-1"));
    claw_log_secret(CLAW_STR("sk-test-secret-1"));
    claw_log_secret(CLAW_STR("sk-test"));           /* begins another one */
    claw_log_secret(CLAW_STR("ret-1-tail"));        /* overlaps its end */
    claw_log_secret(CLAW_STR("quo\"ted\\secret\n")); /* differs inside JSON */
    redacts("short", "short");
    redacts("sk-test", "***");
    redacts("sk-tes", "sk-tes");
    redacts("asksk-test-secret-1sk-testsk-", "ask******sk-");
    redacts("xsk-test-secret-1-tailx", "x***x");
    redacts("sk-test-secret-", "***-secret-");
    redacts("sk-test sk-test-secret-1 sk-test", "*** *** ***");
    redacts("quo\"ted\\secret\n!", "***!");
    redacts("quo\\\"ted\\\\secret\\n!", "***!");
    struct claw_buf none;
    claw_buf_init(&none, 0);
    claw_log_redact(&none);

    open_to(0, false);
    claw_log_event(CLAW_LOG_INFO, "m sk-test-secret-1", "k", "Bearer sk-test-secret-1.", "n#", "\"sk-test-secret-1\"",
                   "sk-test-secret-1", "v", "esc", "quo\"ted\\secret\n", NULL);
    raw("{\"raw\":\"sk-test-secret-1\"}");
    raw("sk-test-secret-1");
    raw("quo\"ted\\secret"); /* with the line's own newline it looks like the secret */
    struct claw_log_conf conf = {.level = CLAW_LOG_INFO, .path = path, .text = true};
    assert_int_equal(claw_log_set(&conf), 0);
    claw_log_event(CLAW_LOG_INFO, "sk-test-secret-1", "k", "sk-test-secret-1", "e", "quo\"ted\\secret\n", NULL);
    char *text = finish();
    assert_null(strstr(text, "secret-1"));
    assert_null(strstr(text, "\\\\secret\\n"));
    assert_non_null(strstr(text, "\"msg\":\"m ***\",\"k\":\"Bearer ***.\",\"n\":\"***\",\"***\":\"v\",\"esc\":\"***\"}\n"));
    assert_non_null(strstr(text, "{\"raw\":\"***\"}\n***\nquo\"ted\\secret\n"));
    assert_non_null(strstr(text, " *** k=*** e=\"***\"\n"));
    assert_int_equal(count(text, "\n"), 5);
    free(text);
}

/* Random secrets over a small alphabet against the plain definition: no known secret is left, and what is
 * not part of one stays. */
static void test_many_secrets(void **state)
{
    static char known[300][24];
    unsigned rnd = 42;
    for (size_t i = 0; i < 300; i++) {
        size_t n = 6 + i % 14;
        for (size_t j = 0; j < n; j++) {
            rnd = rnd * 1103515245 + 12345;
            known[i][j] = "pqr"[(rnd >> 16) % 3];
        }
        claw_log_secret(claw_str_of(known[i]));
    }
    for (int round = 0; round < 2000; round++) {
        char in[65] = {0}, want[65], covered[64] = {0};
        for (size_t j = 0; j < 64; j++) {
            rnd = rnd * 1103515245 + 12345;
            in[j] = "pqrz"[(rnd >> 16) % 13 % 4];
        }
        if (round & 1) memcpy(in + round % 40, known[round % 300], strlen(known[round % 300]));
        for (size_t i = 0; i < 300; i++)
            for (const char *p = in; (p = strstr(p, known[i])); p++)
                memset(covered + (p - in), 1, strlen(known[i]));
        /* A run of covered bytes may be several secrets side by side: then there are several stars. */
        struct claw_buf b;
        claw_buf_init(&b, 0);
        assert_int_equal(claw_buf_add_z(&b, in), 0);
        claw_log_redact(&b);
        assert_int_equal(claw_buf_add(&b, "", 1), 0);
        size_t at = 0, n = 0;
        for (size_t j = 0; j < 64; j++)
            if (!covered[j]) want[n++] = in[j];
        want[n] = 0;
        for (char *p = b.data; *p; p++)
            if (*p != '*') assert_int_equal(*p, want[at++]);
        assert_int_equal(at, n);
        assert_int_equal(count(b.data, "***") > 0, n < 64);
        claw_buf_fini(&b);
    }
}

/* Keys of many clients, and such that are rotated for years: all are kept back, past the bound the latest ones. */
static void test_late_secrets(void **state)
{
    char text[64], line[80];
    unsigned late = CLAW_LOG_SECRETS / 2 + 100; /* each is two: as it is, and as JSON writes it */
    for (unsigned i = 0; i < late; i++) {
        snprintf(text, sizeof text, "rotated-%u\"", i);
        claw_log_secret(claw_str_of(text));
        snprintf(line, sizeof line, "a rotated-%u\" b", i);
        if (i % 5000 == 0 || i > late - 100) redacts(line, "a *** b");
    }
    for (unsigned i = 0; i < CLAW_LOG_SECRETS / 2 - 1000; i += 501) {
        snprintf(line, sizeof line, "rotated-%u\\\" rotated-%u", i, i);
        snprintf(text, sizeof text, "*** rotated-%u", i);
        redacts(line, text);
    }
    snprintf(line, sizeof line, "rotated-%u\\\"", late - 1);
    redacts(line, "***");
}

static void test_lines(void **state)
{
    static char big[70000];
    uint64_t before = claw_log_dropped();
    open_to(0, false);
    memset(big, 'x', sizeof big);
    big[65535] = 0;
    raw(big); /* 64 KB with its newline */
    assert_int_equal(claw_log_waiting(), 65536);
    raw(big); /* 128 KB are handed over unasked */
    assert_int_equal(claw_log_waiting(), 0);
    assert_int_equal(claw_log_dropped(), before);
    big[65535] = 'x';
    big[65536] = 0;
    raw("before");
    raw(big);
    assert_int_equal(claw_log_dropped(), before + 1);
    struct claw_buf *b = claw_log_begin(CLAW_LOG_INFO);
    assert_int_equal(claw_buf_add_z(b, "no newline"), 0);
    claw_log_end(b);
    assert_int_equal(claw_log_dropped(), before + 2);
    claw_log_end(claw_log_begin(CLAW_LOG_INFO)); /* nothing appended: no line, no drop */
    claw_log_event(CLAW_LOG_INFO, big, NULL);
    assert_int_equal(claw_log_dropped(), before + 3);
    raw("after");
    assert_int_equal(claw_log_waiting(), 13);
    big[1023] = 0;
    for (size_t i = 0; i < 127; i++) raw(big);
    assert_int_equal(claw_log_waiting(), 13 + 127 * 1024);
    raw(big);
    assert_int_equal(claw_log_waiting(), 0); /* handed over at 128 KB */
    char *text = finish();
    assert_non_null(strstr(text, "x\nbefore\nafter\nx"));
    assert_int_equal(count(text, "\n"), 2 + 2 + 128);
    free(text);
}

static void await_size(int watch, const char *file, off_t size)
{
    struct stat st;
    char events[4096];
    while (stat(file, &st) == 0 && st.st_size < size) assert_true(read(watch, events, sizeof events) > 0);
}

static void test_reopen(void **state)
{
    open_to(0, false);
    int watch = inotify_init1(IN_CLOEXEC);
    inotify_add_watch(watch, path, IN_MODIFY);
    raw("first");
    claw_log_flush();
    await_size(watch, path, 6);
    assert_int_equal(rename(path, moved), 0);
    raw("still the old file");
    claw_log_flush();
    await_size(watch, moved, 25);
    assert_int_equal(claw_log_reopen(), 0);
    raw("second");
    char *text = finish(), *old = text_of(moved);
    assert_string_equal(text, "second\n");
    assert_string_equal(old, "first\nstill the old file\n");
    free(text);
    free(old);
    close(watch);
    unlink(moved);
}

static void test_set_fails(void **state)
{
    struct claw_log_conf conf = {.path = "log_test_missing/x"};
    assert_int_equal(claw_log_open(&conf), CLAW_EIO);
    assert_int_equal(errno, ENOENT);
    conf.path = NULL;
    assert_int_equal(claw_log_open(&conf), CLAW_EINVAL);
    open_to(0, false);
    assert_int_equal(claw_log_open(&conf), CLAW_EINVAL);
    conf = (struct claw_log_conf){.level = CLAW_LOG_DEBUG, .path = "log_test_missing/x"};
    assert_int_equal(claw_log_set(&conf), CLAW_EIO);
    assert_false(claw_log_on(CLAW_LOG_DEBUG));
    raw("stays");
    char *text = finish();
    assert_string_equal(text, "stays\n");
    free(text);
}

static int saved_out, pipe_out;

/* stdout becomes a pipe; pipe_out is its reading end. */
static void pipe_begin(void)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    fflush(stdout);
    saved_out = dup(1);
    dup2(fds[1], 1);
    close(fds[1]);
    pipe_out = fds[0];
}

static void pipe_end(void)
{
    dup2(saved_out, 1);
    close(saved_out);
}

static void flood(uint64_t lines)
{
    static char line[1000];
    if (!line[0]) memset(line, 'f', sizeof line - 1);
    for (uint64_t i = 0; i < lines; i++) raw(line);
    claw_log_flush();
}

static unsigned drain(int fd)
{
    char block[65536];
    unsigned lines = 0;
    ssize_t n;
    while ((n = read(fd, block, sizeof block)) > 0)
        for (ssize_t i = 0; i < n; i++) lines += block[i] == '\n';
    return lines;
}

static void test_nobody_reads(void **state)
{
    pipe_begin();
    open_to(1, false);
    uint64_t before = claw_log_dropped();
    flood(20000); /* 20 MB through 8 MB */
    uint64_t lost = claw_log_dropped() - before;
    assert_in_range(lost, 10000, 13000);
    claw_log_close(1);
    pipe_end();
    open_to(0, false); /* joins the writer that was left behind */
    lost = claw_log_dropped() - before;
    assert_int_equal(drain(pipe_out) + lost, 20000);
    close(pipe_out);
    raw("works again");
    char *text = finish();
    assert_string_equal(text, "works again\n");
    free(text);
}

static void test_few_lines_keep_fitting(void **state)
{
    pipe_begin();
    open_to(1, false);
    uint64_t before = claw_log_dropped();
    flood(100); /* more than the pipe holds: the writer stalls */
    for (unsigned i = 0; i < 20000; i++) { /* handed over one by one, 160 KB in all */
        raw("1234567");
        claw_log_flush();
    }
    assert_int_equal(claw_log_dropped(), before);
    /* A stalled writer goes on at a new target with a whole line. */
    struct claw_log_conf conf = {.level = CLAW_LOG_INFO, .path = path};
    assert_int_equal(claw_log_set(&conf), 0);
    char *text = finish();
    pipe_end();
    assert_true(text[0] == 'f' && strchr(text, '\n') - text == 999);
    assert_int_equal(count(text, "\n1234567"), 20000);
    unsigned in_pipe = drain(pipe_out);
    assert_int_equal(in_pipe + count(text, "\n"), 20100);
    assert_int_equal(claw_log_dropped(), before);
    close(pipe_out);
    free(text);
}

static void *drain_thread(void *arg)
{
    *(unsigned *)arg = drain(pipe_out);
    return NULL;
}

static void test_reader_keeps_up(void **state)
{
    unsigned got = 0;
    pthread_t reader;
    pipe_begin();
    open_to(1, false);
    uint64_t before = claw_log_dropped();
    pthread_create(&reader, NULL, drain_thread, &got);
    flood(5000);
    claw_log_close(10000);
    pipe_end();
    pthread_join(reader, NULL);
    assert_int_equal(got, 5000);
    assert_int_equal(claw_log_dropped(), before);
    close(pipe_out);
}

static void test_reader_gone(void **state)
{
    pipe_begin();
    open_to(1, false);
    uint64_t before = claw_log_dropped();
    close(pipe_out);
    flood(100);
    claw_log_close(10000);
    pipe_end();
    assert_int_equal(claw_log_dropped(), before + 100);
}

static void test_disk_full(void **state)
{
    struct claw_log_conf conf = {.level = CLAW_LOG_INFO, .path = "/dev/full"};
    if (access(conf.path, W_OK) != 0) {
        print_message("skipped: no %s\n", conf.path);
        skip();
    }
    assert_int_equal(claw_log_open(&conf), 0);
    uint64_t before = claw_log_dropped();
    flood(100);
    claw_log_close(10000);
    assert_int_equal(claw_log_dropped(), before + 100);
}

static pthread_barrier_t both;

static void *worker(void *arg)
{
    bool plain_end = arg != NULL;
    pthread_barrier_wait(&both);
    for (int i = 0; i < 3000; i++) {
        claw_log_event(CLAW_LOG_INFO, "from a thread", "key", "sk-test-secret-1", NULL);
        if (i % 7 == 0) claw_log_flush();
    }
    if (!plain_end) claw_log_thread_end(); /* else the thread's own end does it */
    return NULL;
}

static void *lingerer(void *arg)
{
    raw("gathered by a live thread");
    assert_true(claw_log_waiting() > 0);
    pthread_barrier_wait(&both);
    pthread_barrier_wait(&both); /* the log is closed meanwhile */
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t one, two;
    uint64_t before = claw_log_dropped();
    open_to(0, false);
    pthread_barrier_init(&both, NULL, 3);
    pthread_create(&one, NULL, worker, NULL);
    pthread_create(&two, NULL, worker, &both);
    pthread_barrier_wait(&both);
    for (int i = 0; i < 200; i++) {
        claw_log_event(CLAW_LOG_INFO, "from the first", NULL);
        if (i % 50 == 0) assert_int_equal(claw_log_reopen(), 0);
        char secret[32];
        snprintf(secret, sizeof secret, "another-secret-%d", i);
        claw_log_secret(claw_str_of(secret));
    }
    pthread_join(one, NULL);
    pthread_join(two, NULL);
    pthread_barrier_destroy(&both);
    char *text = finish();
    assert_int_equal(claw_log_dropped(), before);
    assert_int_equal(count(text, "\"from a thread\",\"key\":\"***\"}\n"), 6000);
    assert_int_equal(count(text, "\n{\"time\":\""), 6199);
    assert_int_equal(count(text, "\n"), 6200);
    free(text);
}

static void test_close_collects(void **state)
{
    pthread_t one;
    open_to(0, false);
    pthread_barrier_init(&both, NULL, 2);
    pthread_create(&one, NULL, lingerer, NULL);
    pthread_barrier_wait(&both);
    char *text = finish();
    pthread_barrier_wait(&both);
    pthread_join(one, NULL);
    pthread_barrier_destroy(&both);
    assert_string_equal(text, "gathered by a live thread\n");
    free(text);
}

static void decision(const char *text, size_t padding)
{
    struct claw_buf *b = claw_log_begin_decision();
    assert_non_null(b);
    assert_int_equal(claw_buf_add_z(b, text), 0);
    while (padding-- > 0) assert_int_equal(claw_buf_add_z(b, "x"), 0);
    assert_int_equal(claw_buf_add_z(b, "\n"), 0);
    claw_log_end(b);
}

static void test_decisions_have_a_file_of_their_own(void **state)
{
    char apart[80];
    snprintf(apart, sizeof apart, "%s.decisions", path);
    assert_false(claw_log_decisions_on());
    assert_null(claw_log_begin_decision());
    claw_log_secret(CLAW_STR("decision-secret-1"));
    struct claw_log_conf conf = {.level = CLAW_LOG_ERROR, .to = 0, .path = path, .decisions = apart};
    assert_int_equal(claw_log_open(&conf), 0);
    assert_true(claw_log_decisions_on());
    uint64_t before = claw_log_dropped();
    claw_log_event(CLAW_LOG_ERROR, "first", NULL);
    decision("one decision-secret-1", 0);
    claw_log_event(CLAW_LOG_ERROR, "second", NULL);
    decision("long ", 100000); /* past what a line of the log may have */
    decision("too long ", 200000);
    assert_int_equal(claw_log_dropped() - before, 1);
    claw_log_flush();
    conf.decisions = NULL;
    assert_int_equal(claw_log_set(&conf), 0);
    assert_null(claw_log_begin_decision());
    char *text = finish();
    assert_int_equal(count(text, "\n"), 2);
    assert_non_null(strstr(text, "first"));
    assert_non_null(strstr(text, "second"));
    free(text);
    unlink(apart);
}

static void test_decisions_are_redacted_and_whole(void **state)
{
    char apart[80];
    snprintf(apart, sizeof apart, "%s.decisions", path);
    claw_log_secret(CLAW_STR("decision-secret-1"));
    struct claw_log_conf conf = {.level = CLAW_LOG_ERROR, .to = 0, .path = path, .decisions = apart};
    assert_int_equal(claw_log_open(&conf), 0);
    decision("one decision-secret-1", 0);
    claw_log_event(CLAW_LOG_ERROR, "between", NULL);
    decision("long ", 100000);
    claw_log_close(10000);
    assert_false(claw_log_decisions_on());
    char *text = text_of(path), *decisions = text_of(apart);
    assert_int_equal(count(text, "\n"), 1);
    assert_int_equal(strncmp(decisions, "one ***\nlong xxx", 16), 0);
    assert_int_equal(strlen(decisions), 8 + 5 + 100000 + 1);
    free(text);
    free(decisions);
    unlink(path);
    unlink(apart);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    alarm(120); /* nothing here may block */
    snprintf(path, sizeof path, "build/log_test_%d.log", (int)getpid());
    snprintf(moved, sizeof moved, "%s.1", path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_open),     cmocka_unit_test(test_events),
        cmocka_unit_test(test_time),            cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_lent_secrets),
        cmocka_unit_test(test_lines),           cmocka_unit_test(test_reopen),
        cmocka_unit_test(test_set_fails),       cmocka_unit_test(test_nobody_reads),
        cmocka_unit_test(test_few_lines_keep_fitting), cmocka_unit_test(test_reader_keeps_up),
        cmocka_unit_test(test_reader_gone),     cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_threads),         cmocka_unit_test(test_close_collects),
        cmocka_unit_test(test_decisions_have_a_file_of_their_own), cmocka_unit_test(test_decisions_are_redacted_and_whole),
        cmocka_unit_test(test_many_secrets), /* last: its secrets are everywhere */
        cmocka_unit_test(test_late_secrets), /* and these fill the room */
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    claw_log_thread_end();
    return r;
}
