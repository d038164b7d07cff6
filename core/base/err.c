#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

struct row {
    int code;
    const char *name, *kind, *type, *text;
    int status;
    bool again;
};

static const struct row rows[] = {
#define ROW(code, number, kind, status, type, again, text)                                         \
    {number, #code, kind, type, text, status, again},
    CLAW_ERR_MAP(ROW)
#undef ROW
};

static const struct row unknown = {0, "EUNKNOWN", "unknown", "api_error", "unknown error", 500, false};

static const struct row *row_of(int code)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].code == code) return &rows[i];
    return &unknown;
}

const char *claw_err_name(int code) { return code == 0 ? "OK" : row_of(code)->name; }
const char *claw_err_kind(int code) { return row_of(code)->kind; }
const char *claw_err_text(int code) { return row_of(code)->text; }
const char *claw_err_type(int code) { return row_of(code)->type; }
int claw_err_status(int code) { return row_of(code)->status; }
bool claw_err_again(int code) { return row_of(code)->again; }

_Noreturn void claw_err_panic(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, what);
    abort();
}
