#include "proxy/transcript.h"

#include "base/log.h"

/* As much is kept behind what is shown, so that a secret is whole when it is looked for, and none is shown that the bound cuts. Longer
 * ones than that there are not but in theory. */
#define BEHIND CLAW_TRANSCRIPT_BYTES
#define KEPT (CLAW_TRANSCRIPT_BYTES + BEHIND)

struct claw_transcript {
    char *asked; /* KEPT bytes at most */
    size_t asked_n, answered_n;
    char answered[KEPT];
};

void claw_transcript_begin(struct claw_req *r)
{
    struct claw_str body = claw_buf_str(&r->body);
    if (!claw_req_conf(r)->log_bodies || r->transcript) return;
    struct claw_transcript *t = claw_arena_alloc(&r->arena, sizeof *t);
    if (!t) return;
    t->asked_n = t->answered_n = 0;
    r->transcript = t;
    size_t n = body.len < KEPT ? body.len : KEPT;
    if (n == 0 || !(t->asked = claw_arena_alloc(&r->arena, n))) return;
    memcpy(t->asked, body.ptr, n); /* the body itself may be gone by then, or changed */
    t->asked_n = n;
}

void claw_transcript_said(struct claw_req *r, const uv_buf_t *pieces, unsigned n)
{
    struct claw_transcript *t = r->transcript;
    for (unsigned i = 0; i < n && t->answered_n < KEPT; i++) {
        size_t more = pieces[i].len < KEPT - t->answered_n ? pieces[i].len : KEPT - t->answered_n;
        if (more) memcpy(t->answered + t->answered_n, pieces[i].base, more);
        t->answered_n += more;
    }
}

/* Control characters that no text has tell of audio, images, compression. */
static struct claw_str shown(char *text, size_t *kept)
{
    struct claw_buf b = {.data = text, .len = *kept};
    if (*kept == 0) return CLAW_STR("");
    bool cut = *kept == KEPT;
    claw_log_redact(&b);
    struct claw_str s = {text, cut ? b.len > BEHIND ? b.len - BEHIND : 0 : b.len};
    *kept = s.len = s.len < CLAW_TRANSCRIPT_BYTES ? s.len : CLAW_TRANSCRIPT_BYTES;
    const uint32_t fine = 1u << '\t' | 1u << '\n' | 1u << '\r';
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 && !(fine >> s.ptr[i] & 1)) return CLAW_STR("");
    size_t at = s.len, inside = 0; /* a character that the bound cut */
    while (at && inside < 3 && ((unsigned char)s.ptr[at - 1] & 0xc0) == 0x80) at--, inside++;
    unsigned char lead = at ? (unsigned char)s.ptr[at - 1] : 0;
    if (lead >= 0xc0 && inside < (lead >= 0xf0 ? 3u : lead >= 0xe0 ? 2u : 1u)) s.len = at - 1;
    return s;
}

struct claw_str claw_transcript_asked(const struct claw_req *r)
{
    return r->transcript ? shown(r->transcript->asked, &r->transcript->asked_n) : CLAW_STR("");
}

struct claw_str claw_transcript_answered(const struct claw_req *r)
{
    return r->transcript ? shown(r->transcript->answered, &r->transcript->answered_n) : CLAW_STR("");
}
