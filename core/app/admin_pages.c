/* admin_pages: files that are in the binary: the dashboard, and what the admin port says of itself (core/app/pages). */
#include "app/admin_part.h"

#include "script/vm.h"

static const char *type_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    if (strcmp(dot, ".html") == 0) return "text/html; charset=utf-8";
    if (strcmp(dot, ".js") == 0) return "text/javascript; charset=utf-8";
    if (strcmp(dot, ".css") == 0) return "text/css; charset=utf-8";
    return "application/json";
}

/* Browsers say "gzip, deflate, br"; who rules it out (RFC 9110 12.5.3: "gzip;q=0") gets the file as it is, as does who says nothing. */
static bool takes_packed(const struct claw_head *h)
{
    const struct claw_header *f = claw_head_find_name(h, CLAW_STR("accept-encoding"));
    return f && claw_str_find(f->value, CLAW_STR("gzip")) >= 0 && claw_str_find(f->value, CLAW_STR("gzip;q=0")) < 0;
}

void claw_admin_file(struct claw_conn *c, struct claw_control *control)
{
    struct claw_admin_question *q = c->request;
    struct claw_str name = {q->head->path.ptr + 1, q->head->path.len - 1};
    (void)control;
    if (name.len == 0 || claw_str_eqz(name, "dashboard")) name = CLAW_STR("dashboard.html");
    const struct claw_embedded *e = claw_embedded_pages;
    while (e->name && !claw_str_eqz(name, e->name)) e++;
    if (!e->name) {
        claw_admin_answer_error(c, 404, "This file is not in the binary.", "not_found");
        return;
    }
    const char *type = type_of(e->name);
    q->packed = takes_packed(q->head) && e[1].name && strncmp(e[1].name, e->name, name.len) == 0 && strcmp(e[1].name + name.len, ".gz") == 0;
    if (q->packed) e++;
    int rc = claw_buf_add(&q->out, e->data, e->size);
    claw_admin_answer(c, rc == 0 ? 200 : 503, type);
}
