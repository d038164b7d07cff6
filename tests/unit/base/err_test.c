#include "base/err.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const int codes[] = {
#define CODE(code, number, kind, status, type, again, text) CLAW_##code,
    CLAW_ERR_MAP(CODE)
#undef CODE
};
#define COUNT (sizeof codes / sizeof *codes)

static void test_rows(void **state)
{
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(codes[i] < 0);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(codes[i], codes[j]);
            assert_string_not_equal(claw_err_name(codes[i]), claw_err_name(codes[j]));
        }
        int status = claw_err_status(codes[i]);
        assert_in_range(status, 400, 599);
        assert_true(claw_err_name(codes[i])[0] == 'E');
        assert_null(strpbrk(claw_err_kind(codes[i]), " ABCDEFGHIJKLMNOPQRSTUVWXYZ-"));
        const char *text = claw_err_text(codes[i]);
        assert_true(strlen(text) > 0 && text[strlen(text) - 1] != '.');
        /* What another candidate can mend is never the client's fault. */
        if (claw_err_again(codes[i])) assert_true(status >= 500);
    }
}

static void test_known(void **state)
{
    assert_string_equal(claw_err_name(CLAW_EFIRST_BYTE_TIMEOUT), "EFIRST_BYTE_TIMEOUT");
    assert_string_equal(claw_err_kind(CLAW_EFIRST_BYTE_TIMEOUT), "timeout_first_byte");
    assert_int_equal(claw_err_status(CLAW_EFIRST_BYTE_TIMEOUT), 504);
    assert_string_equal(claw_err_type(CLAW_EFIRST_BYTE_TIMEOUT), "upstream_error");
    assert_true(claw_err_again(CLAW_EFIRST_BYTE_TIMEOUT));
    assert_false(claw_err_again(CLAW_ETLS_VERIFY));
    assert_int_equal(claw_err_status(CLAW_EREQ_MEM), 413);
}

static void test_unknown(void **state)
{
    static const int odd[] = {1, -9999, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        assert_string_equal(claw_err_name(odd[i]), "EUNKNOWN");
        assert_int_equal(claw_err_status(odd[i]), 500);
        assert_string_equal(claw_err_type(odd[i]), "api_error");
        assert_false(claw_err_again(odd[i]));
        assert_non_null(claw_err_text(odd[i]));
    }
    assert_string_equal(claw_err_name(0), "OK");
}

static void test_panic(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        close(2);
        signal(SIGABRT, SIG_DFL);
        CLAW_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CLAW_ASSERT(1 + 1 == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_panic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
