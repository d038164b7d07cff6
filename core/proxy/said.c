#include "proxy/said.h"

#include "base/tokens.h"

#include <stddef.h>
#include <stdlib.h>

#define CLASSES 10 /* by the bits of a length below CLAW_SAID_LONG */

/* Before and after what is kept of an event stands what the class's first one begins and ends with. */
struct kept { uint32_t nth; uint16_t class, before, len, after; };

struct alike { uint16_t before, after; };

struct claw_said {
    struct claw_tokens_tally counted; /* of long ones */
    uint64_t bytes[CLASSES];          /* of all events of the class */
    uint32_t n[CLASSES];              /* of events */
    uint32_t first[CLASSES];          /* where it is in the room */
    struct alike alike[CLASSES];      /* with it was the event before */
    uint32_t used, every;             /* every: a power of two */
    uint32_t cap;                     /* of room, which grows: most streams that are open at once are short */
    bool deltas;
    char room[];                      /* a struct kept, its bytes; and so on */
};

#define ROOM_FIRST 1280u

static struct kept kept_at(const char *p)
{
    struct kept k;
    memcpy(&k, p, sizeof k);
    return k;
}

static void thin(struct claw_said *s)
{
    uint32_t to = 0, size;
    s->every *= 2;
    for (uint32_t at = 0; at < s->used; at += size) {
        struct kept k = kept_at(s->room + at);
        size = (uint32_t)sizeof k + k.len;
        if (k.nth % s->every) continue;
        if (k.nth == 0) s->first[k.class] = to;
        memmove(s->room + to, s->room + at, size);
        to += size;
    }
    s->used = to;
}

static unsigned alike_before(const char *a, const char *b, unsigned most)
{
    unsigned n = 0;
    while (n < most && a[n] == b[n]) n++;
    return n;
}

/* a and b are ends. */
static unsigned alike_after(const char *a, const char *b, unsigned most)
{
    unsigned n = 0;
    while (n < most && *--a == *--b) n++;
    return n;
}

/* What of the event is to be kept. As much is alike as was the last time, or it is found out. */
static void compare(struct claw_said *s, struct kept *k, struct claw_str event)
{
    struct alike *as = &s->alike[k->class];
    const char *first = s->room + s->first[k->class] + sizeof *k, *end = event.ptr + event.len;
    unsigned of = kept_at(s->room + s->first[k->class]).len, most = of < event.len ? of : (unsigned)event.len;
    if (!as->before || as->before > most || memcmp(event.ptr, first, as->before) != 0) as->before = (uint16_t)alike_before(event.ptr, first, most);
    most -= as->before;
    if (!as->after || as->after > most || memcmp(end - as->after, first + of - as->after, as->after) != 0)
        as->after = (uint16_t)alike_after(end, first + of, most);
    k->before = as->before;
    k->after = as->after;
    k->len = (uint16_t)(event.len - k->before - k->after);
}

/* More room, up to the bound. False: no memory. */
static bool grow(struct claw_said **said, size_t more)
{
    uint32_t cap = (*said)->cap;
    while (cap < (*said)->used + more && cap < CLAW_SAID_BYTES) cap = cap * 2 < CLAW_SAID_BYTES ? cap * 2 : CLAW_SAID_BYTES;
    struct claw_said *s = cap == (*said)->cap ? *said : realloc(*said, sizeof *s + cap);
    if (!s) return false;
    s->cap = cap;
    *said = s;
    return true;
}

static void keep(struct claw_said **said, struct kept k, struct claw_str event)
{
    size_t size = sizeof k + k.len;
    while (k.nth % (*said)->every == 0) { /* ends: the first ones of all classes have room */
        if (!grow(said, size)) {
            claw_said_clear(*said);
            return;
        }
        struct claw_said *s = *said;
        if (s->used + size <= s->cap) {
            if (k.nth == 0) s->first[k.class] = s->used;
            memcpy(s->room + s->used, &k, sizeof k);
            memcpy(s->room + s->used + sizeof k, event.ptr + k.before, k.len);
            s->used += (uint32_t)size;
            return;
        }
        thin(s);
    }
}

static struct claw_said *said_of(struct claw_said **said, bool deltas)
{
    if (*said || !(*said = malloc(sizeof **said + ROOM_FIRST))) return *said;
    (*said)->deltas = deltas;
    (*said)->cap = ROOM_FIRST;
    claw_said_clear(*said);
    return *said;
}

void claw_said_add(struct claw_said **said, struct claw_str event, bool deltas)
{
    struct claw_said *s = said_of(said, deltas);
    if (!s || event.len == 0) return;
    if (event.len >= CLAW_SAID_LONG) {
        claw_tokens_add_answer(&s->counted, event, deltas);
        claw_tokens_break(&s->counted);
        return;
    }
    unsigned class = 31u - (unsigned)__builtin_clz((unsigned)event.len);
    struct kept k = {s->n[class]++, (uint16_t)class, 0, (uint16_t)event.len, 0};
    s->bytes[class] += event.len;
    if (k.nth & (s->every - 1)) return; /* most of a long stream */
    if (k.nth) compare(s, &k, event);
    keep(said, k, event);
}

void claw_said_clear(struct claw_said *s)
{
    if (!s) return;
    bool deltas = s->deltas;
    uint32_t cap = s->cap;
    memset(s, 0, offsetof(struct claw_said, room));
    s->deltas = deltas;
    s->cap = cap;
    s->every = 1;
}

void claw_said_free(struct claw_said *s) { free(s); }

/* The event as it came. */
static struct claw_str whole(const struct claw_said *s, uint32_t at, char *out)
{
    struct kept k = kept_at(s->room + at), first = kept_at(s->room + s->first[k.class]);
    const char *p = s->room + s->first[k.class] + sizeof first;
    memcpy(out, p, k.before);
    memcpy(out + k.before, s->room + at + sizeof k, k.len);
    memcpy(out + k.before + k.len, p + first.len - k.after, k.after);
    return (struct claw_str){out, (size_t)k.before + k.len + k.after};
}

int64_t claw_said_tokens(const struct claw_said *s)
{
    char event[CLAW_SAID_LONG];
    struct claw_tokens_tally t = {0};
    uint64_t seen[CLASSES] = {0};
    struct kept k;
    uint32_t at;
    if (!s) return 0;
    for (at = 0; at < s->used; at += (uint32_t)sizeof k + k.len) {
        k = kept_at(s->room + at);
        seen[k.class] += (uint64_t)k.before + k.len + k.after;
    }
    double milli = (double)s->counted.milli;
    for (at = 0; at < s->used; at += (uint32_t)sizeof k + k.len) {
        int64_t before = t.milli;
        k = kept_at(s->room + at);
        claw_tokens_add_answer(&t, whole(s, at, event), s->deltas);
        if (s->every > 1 || at + sizeof k + k.len == s->used) claw_tokens_break(&t);
        milli += (double)(t.milli - before) * (double)s->bytes[k.class] / (double)seen[k.class];
    }
    t.milli = (int64_t)milli;
    return claw_tokens_tallied(&t);
}
