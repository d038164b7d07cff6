/* Weights in thousandths of a token, fitted to counts of o200k_base over English, code, JSON, Chinese, Japanese, Russian
 * and German texts. */
#include "base/tokens.h"

#define WORD 974
#define LONG_LETTER 230  /* each behind the sixth */
#define CAPITAL 318      /* a capital within a word; every second one of a word in capitals */
#define DIGITS 1500      /* each three */
#define PUNCTUATION 655  /* a run */
#define MORE_PUNCTUATION 66
#define LINE 485         /* a run of line ends */
#define INDENT 858       /* a run of two blanks or more */
#define IDEOGRAPH 758
#define OTHER_WORD 1000  /* letters of other scripts */
#define OTHER_LETTER 220
#define EMOJI 2000

#define TURN 4 /* tokens around each turn */
#define KEY 1000 /* of what stands around a name in a schema */
#define BASE 3 /* before the answer begins */

enum class { NOTHING_YET, LOWER, UPPER, DIGIT, PUNCT, LINE_END, BLANK, CJK, OTHER };

struct count {
    int64_t milli;
    enum class last;
    unsigned run, capitals; /* of the present word, number or run */
};

/* What only the end of a run tells. */
static void end_run(struct count *c)
{
    if (c->last == DIGIT) c->milli += DIGITS * (int64_t)((c->run + 2) / 3);
    else if (c->last == BLANK && c->run > 1) c->milli += INDENT;
    else if ((c->last == UPPER || c->last == LOWER) && c->capitals == c->run && c->run > 2) c->milli += CAPITAL * (int64_t)(c->run / 2);
    c->run = c->capitals = 0;
}

static void add_ascii(struct count *c, unsigned char b)
{
    enum class k = b >= 'a' && b <= 'z' ? LOWER : b >= 'A' && b <= 'Z' ? UPPER : b >= '0' && b <= '9' ? DIGIT
                   : b == '\n' || b == '\r' ? LINE_END : b <= ' ' || b == 127 ? BLANK : PUNCT;
    bool letter = k <= UPPER, same = letter ? c->last == LOWER || c->last == UPPER : c->last == k;
    if (!same) {
        end_run(c);
        c->milli += letter ? WORD : k == PUNCT ? PUNCTUATION : k == LINE_END ? LINE : 0;
    } else if (letter) {
        if (c->run >= 6) c->milli += LONG_LETTER;
        if (k == UPPER && c->last == LOWER) c->milli += CAPITAL;
    } else if (k == PUNCT) {
        c->milli += MORE_PUNCTUATION;
    }
    c->run++;
    c->capitals += k == UPPER;
    c->last = k;
}

static void add_other(struct count *c, uint32_t cp)
{
    bool cjk = cp >= 0x2e80 && cp < 0x10000, emoji = cp >= 0x10000;
    if (c->last != OTHER || cjk || emoji) end_run(c);
    if (emoji) c->milli += EMOJI;
    else if (cjk) c->milli += IDEOGRAPH;
    else c->milli += OTHER_LETTER + (c->last == OTHER ? 0 : OTHER_WORD);
    c->last = cjk || emoji ? CJK : OTHER;
}

/* The code point at p, which is no ASCII; *n its bytes. Bytes that are no UTF-8 are taken as letters. */
static uint32_t decode(const unsigned char *p, const unsigned char *end, unsigned *n)
{
    unsigned len = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
    uint32_t cp = *p & (0xffu >> (len + 1));
    *n = 1;
    if (*p < 0xc0 || (size_t)(end - p) < len) return *p;
    for (unsigned i = 1; i < len; i++) cp = cp << 6 | (p[i] & 0x3f);
    *n = len;
    return cp;
}

static void add_text(struct count *c, struct claw_str s)
{
    const unsigned char *p = (const unsigned char *)s.ptr, *end = p + s.len;
    while (p < end) {
        unsigned n = 1;
        if (*p < 0x80) add_ascii(c, *p);
        else add_other(c, decode(p, end, &n));
        p += n;
    }
}

static void end_text(struct count *c)
{
    end_run(c);
    c->last = NOTHING_YET;
}

static int64_t whole(int64_t milli) { return (milli + 500) / 1000; }

int64_t claw_tokens_of_text(struct claw_str text)
{
    struct count c = {0, NOTHING_YET, 0, 0};
    struct claw_str seen = text;
    if (seen.len > CLAW_TOKENS_SCANNED) seen.len = CLAW_TOKENS_SCANNED;
    add_text(&c, seen);
    end_text(&c);
    if (seen.len < text.len) c.milli = (int64_t)((double)c.milli * (double)text.len / (double)seen.len);
    int64_t n = whole(c.milli);
    return n == 0 && text.len ? 1 : n;
}

/* ---- a request's body ---------------------------------------------------------------------------------------------- */

static unsigned hex(const char *p)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++) v = v << 4 | (unsigned)(p[i] <= '9' ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    return v;
}

/* The text between a JSON string's quotes. */
static void add_string(struct count *c, const char *p, const char *end)
{
    while (p < end) {
        const char *from = p;
        while (p < end && *p != '\\') p++;
        add_text(c, (struct claw_str){from, (size_t)(p - from)});
        if (end - p < 2) break;
        char e = p[1];
        p += 2;
        if (e == 'u' && end - p >= 4) {
            uint32_t cp = hex(p);
            p += 4;
            if (cp >= 0xd800 && cp < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
                cp = 0x10000;
                p += 6;
            }
            if (cp < 0x80) add_ascii(c, (unsigned char)cp);
            else add_other(c, cp);
        } else {
            add_ascii(c, e == 'n' || e == 'r' ? '\n' : e == 't' || e == 'b' || e == 'f' ? ' ' : (unsigned char)e);
        }
    }
    end_text(c);
}

static bool is_binary(const char *p, size_t n)
{
    if (n < CLAW_TOKENS_BINARY) return false;
    for (size_t i = 0; i < CLAW_TOKENS_BINARY; i++) {
        char c = p[i];
        bool base64 = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '+' && c <= ';') || c == '=' || c == '_' || c == '\\' || c == ',';
        if (!base64) return false;
    }
    return true;
}

/* What of a value is counted. */
enum part { SETTING, TEXTS, ALL };

static bool one_of(struct claw_str key, const char *const *names)
{
    for (; *names; names++)
        if (claw_str_eqz(key, *names)) return true;
    return false;
}

/* The names that the dialects have for what the model reads. */
static enum part part_of_top(struct claw_str key)
{
    static const char *const texts[] = {"messages", "input", "contents", "content", "system", "instructions", "prompt", "suffix", "systemInstruction",
                                        "system_instruction", "message", "documents", "inputText", "texts", "requests", NULL};
    static const char *const all[] = {"tools", "functions", "response_format", "toolConfig", "output_config", "output_format", "text", "format", NULL};
    return one_of(key, texts) ? TEXTS : one_of(key, all) ? ALL : SETTING;
}

static enum part part_of(struct claw_str key, enum part outer)
{
    static const char *const settings[] = {"role", "type", "id", "tool_call_id", "tool_use_id", "toolUseId", "call_id", "media_type", "mime_type",
                                           "mimeType", "detail", "cache_control", "cachePoint", "signature", "status", "encrypted_content",
                                           "thoughtSignature", "thought_signature", "format", "file_id", "model", NULL};
    static const char *const all[] = {"args", "response", NULL}; /* Gemini's calls and results; Anthropic's and Bedrock's input */
    if (outer == ALL || outer == SETTING) return outer;
    return one_of(key, settings) ? SETTING : one_of(key, all) || claw_str_eqz(key, "input") ? ALL : TEXTS;
}

struct level { uint8_t part; bool object; };

struct walk {
    struct count c;
    int64_t whole; /* tokens beside what c counts */
    struct level levels[CLAW_TOKENS_DEPTH];
    unsigned depth;
    enum part next; /* of the value that comes */
};

static void take_key(struct walk *w, struct claw_str key)
{
    static const char *const pictures[] = {"image_url", "inlineData", "inline_data", "fileData", "file_data", NULL};
    struct level *at = &w->levels[w->depth - 1];
    w->next = w->depth == 1 ? part_of_top(key) : part_of(key, at->part);
    if (at->part == TEXTS && claw_str_eqz(key, "role")) w->whole += TURN;
    if (at->part == TEXTS && one_of(key, pictures)) {
        w->whole += CLAW_TOKENS_PICTURE;
        w->next = SETTING;
    }
    if (at->part == ALL) {
        add_string(&w->c, key.ptr, key.ptr + key.len);
        w->c.milli += KEY;
    }
}

static void take_text(struct walk *w, struct claw_str raw)
{
    if (w->next == SETTING) return;
    if (is_binary(raw.ptr, raw.len)) w->whole += CLAW_TOKENS_PICTURE;
    else add_string(&w->c, raw.ptr, raw.ptr + raw.len);
}

static void open_level(struct walk *w, bool object)
{
    if (w->depth < CLAW_TOKENS_DEPTH) w->levels[w->depth] = (struct level){(uint8_t)w->next, object};
    w->depth++;
}

int64_t claw_tokens_of_request(struct claw_str body)
{
    struct walk w = {.next = SETTING};
    const char *p = body.ptr, *end = p + body.len;
    if (body.len > CLAW_TOKENS_SCANNED) end = p + CLAW_TOKENS_SCANNED;
    const char *seen = end;
    while (p < end) {
        struct level *at = w.depth && w.depth <= CLAW_TOKENS_DEPTH ? &w.levels[w.depth - 1] : NULL;
        char ch = *p++;
        if (ch == '{' || ch == '[') {
            open_level(&w, ch == '{');
        } else if (ch == '}' || ch == ']') {
            if (w.depth) w.depth--;
        } else if (ch == ',' && at) {
            w.next = (enum part)at->part;
        } else if (ch == '"') {
            const char *from = p;
            while (p < end && *p != '"') p += *p == '\\' ? 2 : 1;
            if (p > end) p = end;
            struct claw_str s = {from, (size_t)(p - from)};
            const char *after = p < end ? p + 1 : end;
            while (after < end && (*after == ' ' || *after == '\n' || *after == '\r' || *after == '\t')) after++;
            p = after;
            if (at && at->object && after < end && *after == ':') take_key(&w, s);
            else take_text(&w, s);
        } else if (w.next == ALL && (ch == '-' || (ch >= '0' && ch <= '9'))) {
            while (p < end && (*p == '.' || (*p >= '0' && *p <= '9'))) p++;
            w.c.milli += WORD;
        }
    }
    int64_t milli = w.c.milli + w.whole * 1000;
    if (milli == 0) return claw_tokens_of_text(body); /* no dialect that is known */
    if (seen < body.ptr + body.len) milli = (int64_t)((double)milli * (double)body.len / (double)CLAW_TOKENS_SCANNED);
    return whole(milli) + BASE;
}
