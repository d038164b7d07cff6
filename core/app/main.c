/* openclaw-proxy: the command line (SPEC 1). */
#include "app/control.h"
#include "app/probe.h"
#include "app/shown.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PROBLEMS_CAP (1u << 20)

static const char help[] =
    "usage: openclaw-proxy -config FILE [-check [-offline] [-diff OLD.yaml] | -explain REQUEST.json | -replay LOG.jsonl | -health | -ready]\n"
    "       openclaw-proxy -schema | -reference | -version | -help\n"
    "\n"
    "  -config FILE    (also -c, --config) run the proxy on this openclaw.yaml; policies/*.lua beside it are live\n"
    "  -check          validate the file and its policies (their selftests run), print every problem with its place, and exit;\n"
    "                  secrets from Vault and AWS are fetched, but with -offline\n"
    "  -diff FILE      with -check: what changes against this file, an older one, and which of it a reload brings and which a restart\n"
    "  -explain FILE   print what is decided for this request, what each policy does with it, and why, without any network;\n"
    "                  FILE is JSON: a request body, or {\"method\",\"path\",\"headers\",\"body\"}; - is standard input\n"
    "  -replay FILE    decide the requests of a logging.decisions file anew, without any network, and print what would change;\n"
    "                  exit 0 when nothing would, 1 when something would\n"
    "  -health         is the proxy that runs on this file alive? Asks its admin port; exit 0 when it is, 1 when not (within 3 s)\n"
    "  -ready          the same: does it take requests?\n"
    "  -schema         print the JSON Schema of openclaw.yaml\n"
    "  -reference      print the configuration reference (Markdown)\n"
    "  -version, -help\n"
    "\n"
    "signals: SIGHUP reload, SIGTERM and SIGINT drain and stop (again: at once), SIGUSR1 reopen log files\n"
    "exit: 0 clean, 1 configuration, 2 cannot listen, 3 other\n";

struct arguments {
    const char *config, *explain, *replay, *diff;
    bool check, offline, health, ready, schema, reference, version, help;
};

static bool is(const char *arg, const char *word)
{
    if (*arg == '-') arg++;
    if (*arg == '-') arg++;
    return strcmp(arg, word) == 0;
}

static int parse(int argc, char **argv, struct arguments *a)
{
    for (int i = 1; i < argc; i++) {
        const char *s = argv[i];
        const char **value = NULL;
        if (s[0] != '-') value = NULL;
        else if (is(s, "config") || is(s, "c")) value = &a->config;
        else if (is(s, "explain")) value = &a->explain;
        else if (is(s, "diff")) value = &a->diff;
        else if (is(s, "replay")) value = &a->replay;
        else if (is(s, "check")) { a->check = true; continue; }
        else if (is(s, "offline")) { a->offline = true; continue; }
        else if (is(s, "health")) { a->health = true; continue; }
        else if (is(s, "ready")) { a->ready = true; continue; }
        else if (is(s, "schema")) { a->schema = true; continue; }
        else if (is(s, "reference")) { a->reference = true; continue; }
        else if (is(s, "version") || is(s, "v")) { a->version = true; continue; }
        else if (is(s, "help") || is(s, "h")) { a->help = true; continue; }
        if (!value) {
            fprintf(stderr, "openclaw-proxy: unknown argument \"%s\" (see -help)\n", s);
            return CLAW_EINVAL;
        }
        if (i + 1 == argc) {
            fprintf(stderr, "openclaw-proxy: %s wants a file (see -help)\n", s);
            return CLAW_EINVAL;
        }
        *value = argv[++i];
    }
    return 0;
}

static int print(int rc, struct claw_buf *b)
{
    struct claw_str s = claw_buf_str(b);
    fwrite(s.ptr, 1, s.len, stdout);
    claw_buf_fini(b);
    return rc == 0 && fflush(stdout) == 0 ? 0 : 3;
}

/* claw_control_build, with secrets of its own. */
static int build(const char *config, bool offline, struct claw_generation **out, struct claw_buf *report)
{
    struct claw_secrets *secrets;
    int rc = claw_secrets_new(offline, NULL, &secrets);
    if (rc != 0) return rc;
    rc = claw_control_build(config, 1, secrets, out, report);
    claw_secrets_free(secrets);
    return rc;
}

/* Print what is different from the file `old`: the exit status. Nothing of the old one but its text counts: neither its policies nor
 * its secrets are read. */
static int diff(const char *old, const struct claw_conf *conf)
{
    struct claw_arena arena;
    struct claw_conf_problems problems;
    struct claw_secrets *secrets;
    struct claw_conf *was = NULL;
    struct claw_buf out;
    struct claw_shown_diff d = {.out = &out};
    int code = 1;
    if (claw_secrets_new(true, NULL, &secrets) != 0) return 3;
    claw_arena_init(&arena, NULL, 0, PROBLEMS_CAP);
    claw_conf_problems_init(&problems, &arena);
    claw_buf_init(&out, 0);
    int rc = claw_conf_load_with(old, NULL, claw_secrets_keeper(secrets), &was, &problems);
    if (rc == 0 && was) {
        rc = claw_shown_diff(&d, was, conf);
        if (rc == 0 && d.n == 0) rc = claw_buf_add_fmt(&out, "%s: no change\n", old);
        else if (rc == 0) rc = claw_buf_add_fmt(&out, "%zu changed, %zu of it at a restart\n", d.n, d.sealed);
        code = print(rc, &out);
    } else {
        if (problems.n == 0) fprintf(stderr, "%s: %s\n", old, claw_err_text(rc));
        rc = 0;
        for (struct claw_conf_problem *p = problems.first; p && rc == 0; p = p->next) rc = claw_buf_add_fmt(&out, "%s\n", p->text);
        claw_log_redact(&out); /* a message may quote a value */
        fprintf(stderr, "%.*s", CLAW_STR_FMT(claw_buf_str(&out)));
    }
    claw_buf_fini(&out);
    if (was) claw_conf_free(was);
    claw_arena_reset(&arena);
    claw_secrets_free(secrets);
    return code;
}

static int check(const char *config, bool offline, const char *old)
{
    int code = 1;
    struct claw_buf report;
    struct claw_generation *gen;
    claw_buf_init(&report, 0);
    int rc = build(config, offline, &gen, &report);
    if (rc == 0) {
        printf("%s: ok (%zu upstreams, %zu routes)\n", config, gen->conf->upstreams_n, gen->conf->routes_n);
        if (offline && gen->conf->secrets.n) printf("%s: note: %zu secrets from elsewhere were not fetched\n", config, gen->conf->secrets.n);
        code = old ? diff(old, gen->conf) : 0;
        claw_generation_unref(gen);
    } else {
        fprintf(stderr, "%.*s", CLAW_STR_FMT(claw_buf_str(&report)));
    }
    claw_buf_fini(&report);
    return code;
}

/* -explain, or -replay, of a text: the exit status. */
static int decide_text(struct claw_generation *gen, struct claw_str text, bool replay)
{
    struct claw_policy_vm *vm;
    struct claw_buf out;
    bool changed = false;
    char *why = NULL;
    if (claw_policy_vm_new(gen, &vm, &why) != 0) {
        fprintf(stderr, "%s\n", why ? why : "out of memory");
        free(why);
        return 1;
    }
    claw_buf_init(&out, 0);
    int rc = replay ? claw_policy_replay(vm, text, &out, &changed) : claw_policy_explain(vm, text, &out);
    claw_log_redact(&out);
    claw_policy_vm_free(vm);
    return print(0, &out) == 0 && rc == 0 && !changed ? 0 : 1;
}

static int decide(const char *config, const char *file, bool replay)
{
    struct claw_buf report, text;
    struct claw_generation *gen;
    int code = 1;
    claw_buf_init(&report, 0);
    claw_buf_init(&text, replay ? (size_t)1 << 30 : (size_t)64 << 20);
    if (build(config, true, &gen, &report) != 0) {
        fprintf(stderr, "%.*s", CLAW_STR_FMT(claw_buf_str(&report)));
    } else {
        int fd = strcmp(file, "-") == 0 ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && claw_buf_add_fd(&text, fd, -1) == 0) {
            code = decide_text(gen, claw_buf_str(&text), replay);
        } else {
            fprintf(stderr, "openclaw-proxy: cannot read %s\n", file);
            code = 3;
        }
        if (fd > STDERR_FILENO) close(fd);
        claw_generation_unref(gen);
    }
    claw_buf_fini(&text);
    claw_buf_fini(&report);
    return code;
}

/* Whoever started us may have closed them: then a socket would get their number, and the log would be written into it. */
static void open_standard_files(void)
{
    int fd;
    do fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) close(fd);
}

int main(int argc, char **argv)
{
    open_standard_files();
    struct arguments a = {0};
    struct claw_buf b;
    claw_buf_init(&b, 0);
    if (parse(argc, argv, &a) != 0) return 1;
    if (a.help) {
        fputs(help, stdout);
        return 0;
    }
    if (a.version) {
        printf("openclaw-proxy %s\n", CLAW_VERSION);
        return 0;
    }
    if (a.schema) return print(claw_conf_schema_write(&b), &b);
    if (a.reference) return print(claw_conf_reference_write(&b), &b);
    if (!a.config) {
        fputs(help, stderr);
        return 1;
    }
    if (a.diff && !a.check) {
        fputs("openclaw-proxy: -diff wants -check beside it (see -help)\n", stderr);
        return 1;
    }
    if (a.check) return check(a.config, a.offline, a.diff);
    if (a.health || a.ready) return claw_probe_run(a.config, a.ready ? "/readyz" : "/healthz");
    if (a.explain || a.replay) return decide(a.config, a.explain ? a.explain : a.replay, !a.explain);
    return claw_control_run(a.config);
}
