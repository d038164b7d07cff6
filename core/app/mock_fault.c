/* mock_fault: how the mock is asked to misbehave. */
#include "app/mock_part.h"

static const struct {
    const char *key;
    size_t at;
    bool flag; /* needs no value */
    unsigned min, max;
} fault_keys[] = {
#define KEY(name, flag, min, max) {#name, offsetof(struct claw_mock_faults, name), flag, min, max}
    KEY(status, false, 200, 599),           KEY(retry_after, false, 0, 1000000), KEY(error_event, true, 0, 1),
    KEY(error_after, false, 0, 1000000),    KEY(stall_after, false, 0, 1000000), KEY(reset_after, false, 0, 1000000),
    KEY(cut_after, false, 0, 1000000),      KEY(split_utf8, true, 0, 1),         KEY(slow, false, 0, 600000),
    KEY(first_ms, false, 0, 600000),        KEY(garbage, true, 0, 1),            KEY(html, true, 0, 1),
    KEY(empty, true, 0, 1),                 KEY(tokens, false, 0, 100000),
#undef KEY
};

int claw_mock_fault_set(struct claw_mock_faults *f, struct claw_str key, struct claw_str value)
{
    for (size_t i = 0; i < sizeof fault_keys / sizeof *fault_keys; i++) {
        if (!claw_str_eqz(key, fault_keys[i].key)) continue;
        uint64_t n = 1;
        if (value.ptr ? claw_str_u64(value, fault_keys[i].max, &n) != 0 || n < fault_keys[i].min : !fault_keys[i].flag)
            return CLAW_EINVAL;
        *(int64_t *)((char *)f + fault_keys[i].at) = (int64_t)n;
        return 0;
    }
    return CLAW_EINVAL;
}

/* Take what stands before the next `by` off *s. */
static struct claw_str cut_piece(struct claw_str *s, char by)
{
    const char *at = s->len ? memchr(s->ptr, by, s->len) : NULL;
    struct claw_str piece = {s->ptr, at ? (size_t)(at - s->ptr) : s->len};
    size_t gone = piece.len + (at ? 1 : 0);
    *s = (struct claw_str){s->ptr + gone, s->len - gone};
    return piece;
}

int claw_mock_faults_of_header(struct claw_mock_faults *f, struct claw_str list, struct claw_str *bad)
{
    while (list.len) {
        struct claw_str value = claw_str_trim(cut_piece(&list, ','));
        if (value.len == 0) continue;
        *bad = value;
        bool given = memchr(value.ptr, '=', value.len) != NULL;
        struct claw_str key = claw_str_trim(cut_piece(&value, '='));
        value = claw_str_trim(value);
        if (claw_mock_fault_set(f, key, given ? value : (struct claw_str){NULL, 0}) != 0) return CLAW_EINVAL;
    }
    return 0;
}

void claw_mock_faults_of_model(struct claw_mock_faults *f, struct claw_str model)
{
    if (!claw_str_starts(model, CLAW_STR("mock-"))) return;
    struct claw_str rest = {model.ptr + 5, model.len - 5};
    while (rest.len) {
        struct claw_str key = cut_piece(&rest, '-'), after = rest, value = cut_piece(&after, '-');
        bool given = value.len && value.ptr[0] >= '0' && value.ptr[0] <= '9';
        if (given) rest = after;
        if (claw_mock_fault_set(f, key, given ? value : (struct claw_str){NULL, 0}) != 0) return;
    }
}
