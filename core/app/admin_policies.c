/* admin_policies: which policies there are, what failed in them and where, and their text; and a new text for one. */
#include "app/admin_part.h"

#include "script/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLAMES 64u
#define TEXT_MAX (1u << 20)

/* ---- GET /policies ----------------------------------------------------------------------------------------------------------- */

struct list { struct claw_buf *out; int rc; unsigned n; };

static void add_one(void *arg, const struct claw_policy_text *t)
{
    struct list *l = arg;
    if (l->rc == 0) l->rc = claw_buf_add_z(l->out, l->n++ ? ",\n{\"name\":" : "\n{\"name\":");
    if (l->rc == 0) l->rc = claw_buf_add_json(l->out, t->name);
    if (l->rc == 0) l->rc = claw_buf_add_z(l->out, ",\"file\":");
    if (l->rc == 0) l->rc = claw_buf_add_json(l->out, t->file);
    if (l->rc == 0) l->rc = claw_buf_add_fmt(l->out, ",\"builtin\":%s,\"bytes\":%zu}", t->builtin ? "true" : "false", t->text.len);
}

static int add_failures(struct claw_buf *b, const struct claw_generation *g, struct claw_tally_blame *all, bool *any)
{
    unsigned n = claw_tally_blames(atomic_load(&((struct claw_generation *)g)->tallies), all, 0, BLAMES);
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        rc = claw_buf_add_fmt(b, "%s{\"generation\":%llu,\"policy\":", *any ? ",\n" : "\n", (unsigned long long)g->id);
        if (rc == 0) rc = claw_buf_add_json(b, claw_str_of(all[i].policy));
        if (rc == 0) rc = claw_buf_add_z(b, ",\"hook\":");
        if (rc == 0) rc = claw_buf_add_json(b, claw_str_of(all[i].hook));
        if (rc == 0) rc = claw_buf_add_fmt(b, ",\"count\":%lld,\"last_message\":", (long long)all[i].n);
        if (rc == 0) rc = claw_buf_add_json(b, claw_str_of(all[i].message));
        if (rc == 0) rc = claw_buf_add_z(b, "}");
        *any = true;
    }
    return rc;
}

void claw_admin_policies(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct claw_tally_blame *all = claw_arena_alloc(&q->arena, BLAMES * sizeof *all);
    struct list l = {&q->out, all ? 0 : CLAW_ENOMEM, 0};
    bool any = false;
    if (l.rc == 0) l.rc = claw_buf_add_fmt(&q->out, "{\"writable\":%s,\"policies\":[", control->current->conf->admin.allow_policy_write ? "true" : "false");
    claw_policies_each(control->current->policies, add_one, &l);
    if (l.rc == 0) l.rc = claw_buf_add_z(&q->out, "],\"errors\":[");
    for (const struct claw_lineage_entry *e = control->lineage.first; e && l.rc == 0; e = e->next) l.rc = add_failures(&q->out, e->gen, all, &any);
    if (l.rc == 0) l.rc = claw_buf_add_z(&q->out, "]}\n");
    if (l.rc == 0) claw_log_redact(&q->out);
    claw_admin_answer_json(c, l.rc);
}

/* ---- GET /policies/NAME -------------------------------------------------------------------------------------------------------- */

struct search { struct claw_str name; struct claw_policy_text found; };

static void compare(void *arg, const struct claw_policy_text *t)
{
    struct search *s = arg;
    if (claw_str_eq(t->name, s->name)) s->found = *t;
}

void claw_admin_policy(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct search s = {.name = {q->head->path.ptr + 10, q->head->path.len - 10}};
    claw_policies_each(control->current->policies, compare, &s);
    if (!s.found.name.ptr) {
        claw_admin_answer_error(c, 404, "There is no policy of that name.", "not_found");
        return;
    }
    struct claw_buf text; /* who saved what is masked here would save the mask */
    claw_buf_init(&text, 0);
    int rc = claw_buf_add_str(&text, s.found.text);
    if (rc == 0) claw_log_redact(&text);
    bool masked = !claw_str_eq(claw_buf_str(&text), s.found.text);
    if (rc == 0) rc = claw_buf_add_z(&q->out, "{\"name\":");
    if (rc == 0) rc = claw_buf_add_json(&q->out, s.found.name);
    if (rc == 0) rc = claw_buf_add_z(&q->out, ",\"file\":");
    if (rc == 0) rc = claw_buf_add_json(&q->out, s.found.file);
    if (rc == 0) rc = claw_buf_add_fmt(&q->out, ",\"builtin\":%s,\"masked\":%s,\"text\":", s.found.builtin ? "true" : "false", masked ? "true" : "false");
    if (rc == 0) rc = claw_buf_add_json(&q->out, claw_buf_str(&text));
    if (rc == 0) rc = claw_buf_add_z(&q->out, "}\n");
    claw_buf_fini(&text);
    claw_admin_answer_json(c, rc);
}

/* ---- PUT /policies/NAME -------------------------------------------------------------------------------------------------------- */

static bool is_name(struct claw_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= 'a' && s.ptr[i] <= 'z') || (s.ptr[i] >= '0' && s.ptr[i] <= '9') || s.ptr[i] == '_')) return false;
    return s.len > 0 && s.len <= 64;
}

static bool write_all(int fd, struct claw_str s)
{
    while (s.len) {
        ssize_t n = write(fd, s.ptr, s.len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        s.ptr += n;
        s.len -= (size_t)n;
    }
    return fsync(fd) == 0;
}

/* Whoever reads the folder sees the old text or the new one, never a part. False: errno says why. */
static bool save(const char *dir, struct claw_str name, struct claw_str text)
{
    char *to = NULL, *beside = NULL;
    bool done = false;
    if (asprintf(&to, "%s/%.*s.lua", dir, CLAW_STR_FMT(name)) < 0) return false;
    if (asprintf(&beside, "%s/.%.*s.lua.new", dir, CLAW_STR_FMT(name)) < 0) {
        free(to);
        return false;
    }
    unlink(beside); /* of one who died in between */
    int fd = mkdir(dir, 0755) == 0 || errno == EEXIST ? open(beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) {
        done = write_all(fd, text);
        done = close(fd) == 0 && done && rename(beside, to) == 0;
        int why = errno;
        if (!done) unlink(beside);
        errno = why;
    }
    free(to);
    free(beside);
    return done;
}

static void answer_report(struct claw_conn *c, bool saved, const char *result, struct claw_str report)
{
    struct claw_admin_question *q = c->request;
    int rc = claw_buf_add_fmt(&q->out, "{\"saved\":%s,\"result\":\"%s\",\"report\":", saved ? "true" : "false", result);
    if (rc == 0) rc = claw_buf_add_json(&q->out, report);
    if (rc == 0) rc = claw_buf_add_z(&q->out, "}\n");
    if (rc != 0) claw_admin_answer_json(c, rc);
    else claw_admin_answer(c, saved ? 200 : 422, "application/json");
}

static const char *refusal(struct claw_control *control, struct claw_str name, struct claw_str text, int *status)
{
    *status = 403;
    if (!control->current->conf->admin.allow_policy_write) return "Policies are not written here: admin.allow_policy_write is false.";
    *status = 400;
    if (!is_name(name)) return "A policy's name is made of a to z, digits and _, at most 64.";
    if (text.len == 0 || text.len > TEXT_MAX) return "The body is the policy's text, of 1 byte to 1 MB.";
    *status = 409;
    return control->current->conf->policies.dir ? NULL : "There is no policies.dir.";
}

/* What would be refused on disk is not saved. */
void claw_admin_put_policy(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct claw_control_draft draft = {{q->head->path.ptr + 10, q->head->path.len - 10}, claw_buf_str(&q->body)};
    struct claw_generation *tried = NULL;
    struct claw_buf report;
    int status;
    const char *why = refusal(control, draft.name, draft.text, &status);
    if (why) {
        claw_admin_answer_error(c, status, why, status == 403 ? "forbidden" : "bad_policy");
        return;
    }
    claw_buf_init(&report, 1u << 20);
    if (claw_control_build_draft(control, &draft, &tried, &report) != 0) {
        answer_report(c, false, "refused", claw_buf_str(&report));
    } else if (!save(tried->conf->policies.dir, draft.name, draft.text)) {
        claw_admin_answer_error(c, 500, strerror(errno), "not_written");
    } else {
        static const char *const words[] = {"published", "unchanged", "refused", "waits"};
        char name[65];
        snprintf(name, sizeof name, "%.*s", CLAW_STR_FMT(draft.name));
        claw_log_event(CLAW_LOG_WARN, "policy written by admin", "policy", name, NULL);
        enum claw_load done = claw_control_reload_policies(control, "policy written");
        answer_report(c, true, words[done], done == CLAW_LOAD_REFUSED ? claw_buf_str(&control->last_error) : CLAW_STR(""));
    }
    if (tried) claw_generation_unref(tried);
    claw_buf_fini(&report);
}
