#include "app/watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A folder with openclaw.yaml and policies/, in which one.lua is a link to a file elsewhere: no event tells of that file. */
static char home[64], file[96], policies[96], target[96];
static struct claw_loop loop;
static struct claw_watch *watch;
static struct claw_conf conf;
static int changes, wanted;

static void write_to(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* As a load does: the files are read, and what came of it is published. */
static void on_change(void *arg)
{
    claw_watch_mark(watch);
    if (++changes < wanted) {
        write_to(target, "longest");
        claw_watch_set(watch, &conf);
    } else {
        claw_loop_stop(&loop);
    }
}

static void on_late(struct claw_timer *t) { claw_loop_stop(&loop); }

static int open_watch(void **state)
{
    char link[112];
    strcpy(home, "/tmp/claw-watch-XXXXXX");
    assert_non_null(mkdtemp(home));
    snprintf(file, sizeof file, "%s/openclaw.yaml", home);
    snprintf(policies, sizeof policies, "%s/policies", home);
    snprintf(target, sizeof target, "%s/elsewhere", home);
    snprintf(link, sizeof link, "%s/one.lua", policies);
    write_to(file, "x");
    write_to(target, "x");
    assert_int_equal(mkdir(policies, 0755), 0);
    assert_int_equal(symlink(target, link), 0);
    conf = (struct claw_conf){.path = file, .dir = home, .policies.dir = policies};
    changes = 0;
    assert_int_equal(claw_loop_init(&loop), 0);
    assert_int_equal(claw_watch_new(&loop, on_change, NULL, &watch), 0);
    claw_watch_set(watch, &conf);
    return 0;
}

static int close_watch(void **state)
{
    char command[96];
    claw_watch_free(watch);
    assert_int_equal(claw_loop_fini(&loop, true), 0);
    snprintf(command, sizeof command, "rm -r %s", home);
    return system(command);
}

static void change_until(int n)
{
    struct claw_timer late;
    wanted = n;
    claw_timer_init(&late, on_late, NULL);
    claw_timer_start(&loop, &late, 20000);
    write_to(target, "longer");
    claw_loop_run(&loop);
    claw_timer_stop(&loop, &late);
    assert_int_equal(changes, n);
}

static void finds_what_no_event_tells(void **state) { change_until(1); }

/* Between the reading of the files and the generation that is made of them. */
static void finds_what_changes_while_it_is_read(void **state) { change_until(2); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_what_no_event_tells, open_watch, close_watch),
        cmocka_unit_test_setup_teardown(finds_what_changes_while_it_is_read, open_watch, close_watch),
    };

    alarm(120);
    return cmocka_run_group_tests_name("app/watch", tests, NULL, NULL);
}
