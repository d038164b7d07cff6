/* answer: what is read of an upstream's answer before anybody has looked whether it is JSON: usage, errors, tokens.
 *
 * Input: events, apart by 0xff 0xff. Each lies in memory of its own size, so that a byte beyond it is found.
 */
#include "base/tokens.h"
#include "proxy/envelope.h"
#include "proxy/said.h"
#include "proxy/usage.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_one(struct claw_str s, struct claw_usage *u, struct claw_said **said, bool deltas)
{
    claw_usage_read(s, u);
    claw_usage_read_ollama(s, u);
    claw_usage_only(s);
    claw_envelope_raw_is_error(s);
    claw_envelope_is_error(CLAW_STR(""), s);
    claw_said_add(said, s, deltas);
    struct claw_tokens_tally t = {0};
    claw_tokens_add_answer(&t, s, deltas);
    if (claw_tokens_tallied(&t) < 0 || claw_tokens_of_text(s) < 0 || claw_tokens_of_request(s) < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct claw_said *said = NULL;
    struct claw_usage u = {.input = -1, .output = -1, .cached = -1, .reasoning = -1, .written = -1};
    const char *at = (const char *)data, *end = at + size;
    for (bool deltas = false; at < end; deltas = !deltas) {
        const char *to = memmem(at, (size_t)(end - at), "\xff\xff", 2);
        size_t n = (size_t)((to ? to : end) - at);
        char *copy = malloc(n ? n : 1);
        memcpy(copy, at, n);
        read_one((struct claw_str){copy, n}, &u, &said, deltas);
        free(copy);
        at = to ? to + 2 : end;
    }
    if (claw_said_tokens(said) < 0 || u.input < -1 || u.output < -1 || u.input > CLAW_USAGE_MOST * 4 || u.output > CLAW_USAGE_MOST * 4) abort();
    claw_said_free(said);
    return 0;
}
