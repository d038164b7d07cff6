/* retry_after: what heads say, in every form, and what is no form. */
#include "proxy/retry_after.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW 1767225600 /* 2026-01-01T00:00:00Z */

static int64_t told(int status, const char *const (*fields)[2], size_t n)
{
    struct claw_header headers[8];
    for (size_t i = 0; i < n; i++) {
        struct claw_str name = claw_str_of(fields[i][0]);
        headers[i] = (struct claw_header){name, claw_str_of(fields[i][1]), claw_header_id_of(name)};
    }
    return claw_retry_after_ms(&(struct claw_head){.status = status, .headers = headers, .n = n}, NOW);
}

#define TOLD(status, ...) told(status, (const char *const[][2]){__VA_ARGS__}, sizeof((const char *const[][2]){__VA_ARGS__}) / sizeof(const char *[2]))

static void retry_after(void **state)
{
    static const struct { const char *value; int64_t ms; } rows[] = {
        {"0", 0}, {"7", 7000}, {"1.5", 1500}, {"86400", 86400000}, {"99999999", 86400000}, {"999999999999999999999999", -1}, {"", -1}, {"-1", -1}, {"7s", -1}, {"soon", -1},
        {"Thu, 01 Jan 2026 00:00:30 GMT", 30000}, {"Wed, 31 Dec 2025 00:00:00 GMT", 0}, {"Thu, 01 Jan 2099 00:00:00 GMT", 86400000}, {"1e9", -1}, {".", -1}, {"nan", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t ms = TOLD(503, {"Retry-After", rows[i].value});
        if (ms != rows[i].ms) fail_msg("%s: %lld", rows[i].value, (long long)ms);
    }
    assert_int_equal(TOLD(429, {"retry-after", "9"}, {"retry-after-ms", "40"}), 40);
    assert_int_equal(TOLD(429, {"retry-after", "9"}, {"retry-after-ms", "forty"}), 9000);
    assert_int_equal(TOLD(429, {"x-other", "9"}), -1);
}

static void resets(void **state)
{
    static const struct { const char *value; int64_t ms; } rows[] = {
        {"1s", 1000}, {"6m0s", 360000}, {"1m30.5s", 90500}, {"40ms", 40}, {"1h", 3600000}, {"2d", 86400000}, {"59.7", 59700}, {"2025-12-31T00:00:00Z", 0},
        {"2026-01-01T00:00:12Z", 12000}, {"", -1}, {"1x", -1}, {"s", -1}, {"1s2", -1}, {"-1s", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t ms = TOLD(429, {"x-ratelimit-remaining-tokens", "0"}, {"x-ratelimit-reset-tokens", rows[i].value});
        if (ms != rows[i].ms) fail_msg("%s: %lld", rows[i].value, (long long)ms);
    }
}

static void the_empty_ones_count(void **state)
{
    assert_int_equal(TOLD(429, {"x-ratelimit-remaining-requests", "3"}, {"x-ratelimit-reset-requests", "9s"}, {"X-RateLimit-Remaining-Tokens", "0"}, {"X-RateLimit-Reset-Tokens", "2s"}), 2000);
    assert_int_equal(TOLD(429, {"x-ratelimit-remaining-requests", "0"}, {"x-ratelimit-reset-requests", "9s"}, {"x-ratelimit-remaining-tokens", "0"}, {"x-ratelimit-reset-tokens", "2s"}), 9000);
    assert_int_equal(TOLD(429, {"anthropic-ratelimit-input-tokens-remaining", "0"}, {"anthropic-ratelimit-input-tokens-reset", "2026-01-01T00:01:00Z"}), 60000);
    assert_int_equal(TOLD(429, {"x-ratelimit-remaining-requests", "0"}, {"x-ratelimit-reset-requests", "9s"}, {"retry-after", "1"}), 1000);
    assert_int_equal(TOLD(500, {"x-ratelimit-remaining-requests", "0"}, {"x-ratelimit-reset-requests", "9s"}), -1);
    assert_int_equal(TOLD(429, {"x-ratelimit-reset-requests", "9s"}), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_after),
        cmocka_unit_test(resets),
        cmocka_unit_test(the_empty_ones_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
