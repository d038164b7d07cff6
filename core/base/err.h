/* err: every way an operation can fail, in one table.
 *
 * Fallible functions return 0 or a negative CLAW_E* code. The table gives each code its failure
 * kind (the word used in `retry.on`, logs, metrics and Lua), the HTTP status a client is shown
 * when nothing was sent yet, the envelope's `type`, whether another try can help, and a text.
 * Thread: pure, any.
 */
#ifndef CLAW_BASE_ERR_H
#define CLAW_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLAW_MUSTCHECK __attribute__((warn_unused_result))
#define CLAW_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/*   code                    number kind                  status type                     again text */
#define CLAW_ERR_MAP(X)                                                                            \
    X(EAGAIN,               -1,  "again",              500, "api_error",             false, "not finished yet")                               \
    X(ENOMEM,               -2,  "memory",             503, "overloaded_error",      false, "out of memory")                                  \
    X(EINVAL,               -3,  "invalid",            400, "invalid_request_error", false, "invalid argument")                               \
    X(EIO,                  -4,  "io",                 500, "api_error",             false, "input/output error")                             \
    X(ECANCELED,            -5,  "canceled",           499, "api_error",             false, "canceled")                                       \
    X(ECLIENT_GONE,         -6,  "client_gone",        499, "api_error",             false, "the client went away")                           \
    X(EDNS,                 -10, "connect",            502, "upstream_error",        true,  "the upstream's name did not resolve")            \
    X(ECONNECT,             -11, "connect",            502, "upstream_error",        true,  "could not connect to the upstream")              \
    X(ECONNECT_TIMEOUT,     -12, "connect",            504, "upstream_error",        true,  "connecting to the upstream timed out")           \
    X(ETLS,                 -13, "tls",                502, "upstream_error",        true,  "TLS with the upstream failed")                   \
    X(ETLS_VERIFY,          -14, "tls",                502, "upstream_error",        false, "the upstream's certificate was refused")         \
    X(EFIRST_BYTE_TIMEOUT,  -15, "timeout_first_byte", 504, "upstream_error",        true,  "the upstream sent no answer in time")            \
    X(ESTALL,               -16, "stall",              504, "upstream_error",        false, "the upstream stopped sending")                   \
    X(EUPSTREAM_EOF,        -17, "eof",                502, "upstream_error",        true,  "the upstream closed before its answer was complete") \
    X(EBAD_RESPONSE,        -18, "bad_response",       502, "upstream_error",        false, "the upstream's answer is not valid")             \
    X(ESTREAM_ERROR,        -19, "stream_error",       502, "upstream_error",        true,  "the upstream's stream began with an error")      \
    X(ETOKEN,               -21, "auth",               502, "upstream_error",        true,  "no access token for the upstream could be had") \
    X(EDEADLINE,            -20, "deadline",           504, "timeout_error",         false, "the request's total time is used up")            \
    X(EBAD_REQUEST,         -30, "bad_request",        400, "invalid_request_error", false, "malformed HTTP request")                         \
    X(EBAD_JSON,            -31, "bad_json",           400, "invalid_request_error", false, "the request body is not valid JSON")             \
    X(EHEAD_TOO_LARGE,      -32, "head_too_large",     431, "invalid_request_error", false, "the request head is too large")                  \
    X(ETARGET_TOO_LONG,     -67, "target_too_long",    414, "invalid_request_error", false, "the request target is too long")                 \
    X(EBODY_TOO_LARGE,      -33, "body_too_large",     413, "invalid_request_error", false, "the request body is too large")                  \
    X(EHEAD_TIMEOUT,        -34, "head_timeout",       408, "timeout_error",         false, "the request head did not arrive in time")        \
    X(EBODY_TIMEOUT,        -35, "body_timeout",       408, "timeout_error",         false, "the request body did not arrive in time")        \
    X(ESEND_STALL,          -36, "send_stall",         499, "api_error",             false, "the client stopped reading")                     \
    X(EMETHOD,              -37, "method",             405, "invalid_request_error", false, "method not allowed")                             \
    X(EVERSION,             -38, "http_version",       505, "invalid_request_error", false, "HTTP version not supported")                     \
    X(ENOT_IMPLEMENTED,     -39, "not_implemented",    501, "invalid_request_error", false, "not supported")                                  \
    X(EEXPECT,              -40, "expectation",        417, "invalid_request_error", false, "expectation not supported")                      \
    X(ENO_ROUTE,            -50, "no_route",           404, "invalid_request_error", false, "no route matches the request")                   \
    X(EMODEL_NOT_FOUND,     -51, "model_not_found",    404, "invalid_request_error", false, "no upstream of the route lists the model")       \
    X(ENO_UPSTREAM,         -52, "no_upstream",        503, "overloaded_error",      false, "No upstream available")                          \
    X(EPOLICY,              -53, "policy_error",       500, "api_error",             false, "a policy failed")                                \
    X(EDENIED,              -54, "denied",             403, "permission_error",      false, "refused by a policy")                            \
    X(EREQ_MEM,             -55, "request_memory",     413, "invalid_request_error", false, "the request needs more memory than it may have") \
    X(EDRAINING,            -56, "draining",           503, "overloaded_error",      false, "the server is shutting down")                     \
    X(EOUTLIVED,            -57, "outlived",           504, "timeout_error",         false, "the request outlived its generation (policies.drain_max_seconds)") \
    X(EUNTRANSLATABLE,      -58, "untranslatable",     400, "invalid_request_error", false, "the upstream cannot be asked for this in its protocol") \
    X(EUNAUTHORIZED,        -60, "invalid_api_key",    401, "authentication_error",  false, "no known API key came with the request")         \
    X(EIP_DENIED,           -61, "ip_not_allowed",     403, "permission_error",      false, "requests from this address are not taken")       \
    X(EMODEL_DENIED,        -62, "model_not_allowed",  403, "permission_error",      false, "the client may not use this model")              \
    X(EROUTE_DENIED,        -63, "route_not_allowed",  403, "permission_error",      false, "the client may not use this route")              \
    X(EBUDGET,              -64, "insufficient_quota", 429, "insufficient_quota",    false, "the client's budget is spent")                   \
    X(ERATE_LIMITED,        -65, "rate_limit_exceeded", 429, "rate_limit_error",     false, "a rate limit is reached")                        \
    X(ECODING,              -66, "content_coding",     415, "invalid_request_error", false, "the request body is compressed; send it as it is") \
    X(ETRANSLATION,         -59, "translation",        500, "api_error",             false, "translating between two protocols failed")

enum claw_err_code {
    CLAW_OK = 0,
#define CLAW_ERR_ENUM(code, number, kind, status, type, again, text) CLAW_##code = number,
    CLAW_ERR_MAP(CLAW_ERR_ENUM)
#undef CLAW_ERR_ENUM
};

/* The symbol without its prefix, e.g. "EFIRST_BYTE_TIMEOUT"; "EUNKNOWN" for a number not in the table. */
const char *claw_err_name(int code);
/* The failure kind, e.g. "timeout_first_byte". */
const char *claw_err_kind(int code);
/* One plain sentence without a full stop. */
const char *claw_err_text(int code);
/* The HTTP status a client is shown, 500 for a number not in the table. */
int claw_err_status(int code);
/* The envelope's `type`, e.g. "invalid_request_error". */
const char *claw_err_type(int code);
/* Whether another candidate or another try can help. */
bool claw_err_again(int code);

/* An invariant is broken: print where, abort. On in release builds too. */
#define CLAW_ASSERT(cond)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) claw_err_panic(__FILE__, __LINE__, #cond);                \
    } while (0)
_Noreturn void claw_err_panic(const char *file, int line, const char *what);

#endif
