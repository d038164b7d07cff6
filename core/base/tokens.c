/* Weights in thousandths of a token, fitted to counts of o200k_base over English, code, JSON, Chinese, Japanese, Russian
 * and German texts. */
#include "base/tokens.h"

#include "base/json.h"

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

#define TURN 4000 /* around each turn */
#define KEY 1000 /* of what stands around a name in a schema */
#define PICTURE (CLAW_TOKENS_PICTURE * 1000)
#define BASE 3 /* tokens before the answer begins */

#define WINDOW 256u /* bytes of a text that are looked at in a row, where not all of it is */
#define CUT 24u     /* of a window's ends are left out, where they cut a word */
#define INSIDE 8u   /* bytes inside a string are as soon walked over as one outside */

enum class { NOTHING_YET, /* also of a tally that is all zero */
             LOWER, UPPER, DIGIT, PUNCT, LINE_END, BLANK, CJK, OTHER };

/* What only the end of a run tells. */
static void end_run(struct claw_tokens_tally *c)
{
    if (c->last == DIGIT) c->milli += DIGITS * (int64_t)((c->run + 2) / 3);
    else if (c->last == BLANK && c->run > 1) c->milli += INDENT;
    else if ((c->last == UPPER || c->last == LOWER) && c->capitals == c->run && c->run > 2) c->milli += CAPITAL * (int64_t)(c->run / 2);
    c->run = c->capitals = 0;
}

static const uint8_t classes[128] = {
    [0 ... '\t'] = BLANK, ['\n'] = LINE_END, [11 ... 12] = BLANK, ['\r'] = LINE_END, [14 ... ' '] = BLANK, [127] = BLANK, ['!' ... '/'] = PUNCT, ['0' ... '9'] = DIGIT,
    [':' ... '@'] = PUNCT, ['A' ... 'Z'] = UPPER, ['[' ... '`'] = PUNCT, ['a' ... 'z'] = LOWER, ['{' ... '~'] = PUNCT,
};

/* Behind the small letters at p, which go on with a word: most of a text is that. */
static const unsigned char *add_lower(struct claw_tokens_tally *c, const unsigned char *p, const unsigned char *end)
{
    const unsigned char *from = p;
    while (p < end && (unsigned)(*p - 'a') < 26) p++;
    uint32_t n = (uint32_t)(p - from), before = c->run;
    c->run += n;
    if (c->run > 6) c->milli += LONG_LETTER * (int64_t)(before < 6 ? c->run - 6 : n);
    c->last = n ? LOWER : c->last;
    return p;
}

static void add_ascii(struct claw_tokens_tally *c, unsigned char b)
{
    enum class k = (enum class)classes[b];
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
    c->last = (uint8_t)k;
}

static void add_other(struct claw_tokens_tally *c, uint32_t cp)
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

static void add_text(struct claw_tokens_tally *c, struct claw_str s)
{
    const unsigned char *p = (const unsigned char *)s.ptr, *end = p + s.len;
    while (p < end) {
        unsigned n = 1;
        if (*p < 0x80) add_ascii(c, *p);
        else add_other(c, decode(p, end, &n));
        p += n;
        if (c->last == LOWER || c->last == UPPER) p = add_lower(c, p, end);
    }
}

static void end_text(struct claw_tokens_tally *c)
{
    end_run(c);
    c->last = NOTHING_YET;
}

static int64_t whole(int64_t milli) { return (milli + 500) / 1000; }

int64_t claw_tokens_of_text(struct claw_str text)
{
    struct claw_tokens_tally c = {0};
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

/* The text between a JSON string's quotes; what it ends with may go on. */
static void add_piece(struct claw_tokens_tally *c, const char *p, const char *end)
{
    while (p < end) {
        const char *from = p;
        p = memchr(p, '\\', (size_t)(end - p));
        if (!p) p = end;
        add_text(c, (struct claw_str){from, (size_t)(p - from)});
        if (end - p < 2) break;
        char e = p[1];
        if ((unsigned char)e >= 0x80) { /* no escape, in a text that nobody has checked */
            p++;
            continue;
        }
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
}

/* Behind the string whose text begins at p; *s is that text. One that is cut ends with the end. */
static const char *take_string(const char *p, const char *end, struct claw_str *s)
{
    const char *to = p < end ? memchr(p, '"', (size_t)(end - p)) : NULL;
    to = to && (to == p || to[-1] != '\\') ? to + 1 : claw_json_string_end(p, end); /* most have no quote within */
    *s = (struct claw_str){p, (size_t)(to - p) - (to > p && to[-1] == '"')};
    return to;
}

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

static bool is_binary(const char *p, size_t n)
{
    if (n < CLAW_TOKENS_BINARY) return false;
    for (size_t i = 0; i + 1 < CLAW_TOKENS_BINARY; i++) {
        char c = p[i];
        bool base64 = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '+' && c <= ';') || c == '=' || c == '_' || c == ',';
        if (!base64 && !(c == '\\' && p[i + 1] != 'u')) return false; /* a slash may be escaped, and a line's end */
    }
    return true;
}

/* What of a value is counted. */
enum part { SETTING, TEXTS, ALL };

static bool one_of(struct claw_str key, const char *const *names)
{
    for (; key.len && *names; names++)
        if (**names == *key.ptr && claw_str_eqz(key, *names)) return true;
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
    struct claw_tokens_prompt *prompt;
    struct level levels[CLAW_TOKENS_DEPTH];
    unsigned depth;
    enum part next; /* of the value that comes */
};

/* The sample is full: every second window of it goes. */
static void thin(struct claw_tokens_prompt *p)
{
    for (size_t i = 1; i < CLAW_TOKENS_SAMPLE / WINDOW / 2; i++) memcpy(p->kept + i * WINDOW, p->kept + i * 2 * WINDOW, WINDOW);
    p->len = CLAW_TOKENS_SAMPLE / 2;
    p->every *= 2;
}

static void sample(struct claw_tokens_prompt *p, struct claw_str s)
{
    while (s.len) {
        size_t in = p->bytes % WINDOW, at = (size_t)(p->bytes / WINDOW / p->every) * WINDOW + in, n = WINDOW - in;
        bool kept = p->bytes / WINDOW % p->every == 0;
        if (kept && at == CLAW_TOKENS_SAMPLE) {
            thin(p);
            continue;
        }
        if (!kept) n = (size_t)(WINDOW * p->every - p->bytes % (WINDOW * p->every));
        if (n > s.len) n = s.len;
        if (kept) {
            memcpy(p->kept + at, s.ptr, n);
            p->len = (uint32_t)(at + n);
        }
        p->bytes += n;
        s = (struct claw_str){s.ptr + n, s.len - n};
    }
}

static void take_sample(struct claw_tokens_prompt *p, struct claw_str raw)
{
    sample(p, raw);
    sample(p, CLAW_STR("\""));
}

static void take_key(struct walk *w, struct claw_str key)
{
    static const char *const pictures[] = {"image_url", "inlineData", "inline_data", "fileData", "file_data", NULL};
    struct level *at = &w->levels[w->depth - 1];
    w->next = w->depth == 1 ? part_of_top(key) : part_of(key, at->part);
    if (at->part == TEXTS && claw_str_eqz(key, "role")) w->prompt->milli += TURN;
    if (at->part == TEXTS && one_of(key, pictures)) {
        w->prompt->milli += PICTURE;
        w->next = SETTING;
    }
    if (at->part == ALL) {
        take_sample(w->prompt, key);
        w->prompt->milli += KEY;
    }
}

static void take_text(struct walk *w, struct claw_str raw)
{
    if (w->next == SETTING) return;
    if (is_binary(raw.ptr, raw.len)) w->prompt->milli += PICTURE;
    else take_sample(w->prompt, raw);
}

static void open_level(struct walk *w, bool object)
{
    if (w->depth < CLAW_TOKENS_DEPTH) w->levels[w->depth] = (struct level){(uint8_t)w->next, object};
    w->depth++;
}

/* Where the walk ended: the end, unless there was too much. */
static const char *walk(struct walk *w, const char *p, const char *end)
{
    size_t left = CLAW_TOKENS_SCANNED;
    for (; p < end && left; left -= left > 0) {
        struct level *at = w->depth && w->depth <= CLAW_TOKENS_DEPTH ? &w->levels[w->depth - 1] : NULL;
        char ch = *p++;
        if (ch == '{' || ch == '[') {
            open_level(w, ch == '{');
        } else if (ch == '}' || ch == ']') {
            if (w->depth) w->depth--;
        } else if (ch == ',' && at) {
            w->next = (enum part)at->part;
        } else if (ch == '"') {
            struct claw_str s;
            p = skip_blanks(take_string(p, end, &s), end);
            left -= s.len / INSIDE < left ? s.len / INSIDE : left;
            if (at && at->object && p < end && *p == ':') take_key(w, s);
            else take_text(w, s);
        } else if (w->next == ALL && (ch == '-' || (ch >= '0' && ch <= '9'))) {
            while (p < end && (*p == '.' || (*p >= '0' && *p <= '9'))) p++;
            w->prompt->milli += WORD;
        }
    }
    return p;
}

void claw_tokens_take_request(struct claw_tokens_prompt *prompt, struct claw_str body)
{
    struct walk w = {.prompt = prompt, .next = SETTING};
    prompt->milli = 0;
    prompt->bytes = 0;
    prompt->len = 0;
    prompt->every = 1;
    const char *to = walk(&w, body.ptr, body.ptr + body.len);
    prompt->any = prompt->milli || prompt->bytes;
    if (!prompt->any) sample(prompt, body); /* no dialect that is known */
    prompt->part = to == body.ptr + body.len || !prompt->any ? 1 : (double)(to - body.ptr) / (double)body.len;
}

static bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }
static bool is_inside(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

/* A window without the words and characters that it cuts. */
static struct claw_str uncut(const char *p, size_t n)
{
    size_t from = 0, to = n, most = n < CUT ? n : CUT;
    while (from < most && (is_ascii_letter(p[from]) || is_inside(p[from]))) from++;
    while (to > n - most && to > from && is_ascii_letter(p[to - 1])) to--;
    while (to > from && is_inside(p[to - 1])) to--;
    if (to > from && ((unsigned char)p[to - 1] >= 0xc0 || p[to - 1] == '\\')) to--;
    return (struct claw_str){p + from, to - from};
}

static void count_strings(struct claw_tokens_tally *c, struct claw_str s)
{
    for (const char *p = s.ptr, *end = p + s.len; p < end;) {
        p = take_string(p, end, &s);
        add_piece(c, s.ptr, s.ptr + s.len);
        end_text(c);
    }
}

int64_t claw_tokens_of_prompt(const struct claw_tokens_prompt *p)
{
    struct claw_tokens_tally c = {0};
    size_t seen = 0;
    for (size_t at = 0, n; at < p->len; at += n) {
        n = p->every == 1 ? p->len : p->len - at < WINDOW ? p->len - at : WINDOW;
        struct claw_str s = p->every == 1 ? (struct claw_str){p->kept + at, n} : uncut(p->kept + at, n);
        seen += s.len;
        if (p->any) count_strings(&c, s);
        else add_text(&c, s);
        end_text(&c);
    }
    double texts = p->every == 1 ? (double)c.milli : seen ? (double)c.milli * (double)p->bytes / (double)seen : 0;
    int64_t n = whole((int64_t)((texts + (double)p->milli) / p->part));
    return p->any ? n + BASE : n > 0 ? n : 1;
}

int64_t claw_tokens_of_request(struct claw_str body)
{
    struct claw_tokens_prompt p;
    claw_tokens_take_request(&p, body);
    return claw_tokens_of_prompt(&p);
}

/* ---- an answer --------------------------------------------------------------------------------------------------------- */

struct name { struct claw_str key; enum part part; };
#define NAME(key, part) {{key, sizeof(key) - 1}, part}
/* The names the dialects have for what a model says, and for the arguments of its calls. */
static const struct name said[] = {
    NAME("content", TEXTS), NAME("text", TEXTS), NAME("arguments", TEXTS), NAME("partial_json", TEXTS), NAME("thinking", TEXTS),
    NAME("reasoning_content", TEXTS), NAME("reasoning", TEXTS), NAME("refusal", TEXTS), NAME("name", TEXTS), NAME("response", TEXTS),
    NAME("tool_plan", TEXTS), NAME("input", ALL), NAME("args", ALL),
};
#undef NAME

static enum part part_of_said(struct claw_str key)
{
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (said[i].key.len == key.len && memcmp(said[i].key.ptr, key.ptr, key.len) == 0) return said[i].part;
    return SETTING;
}

/* Only the first text of a piece goes on with what came before. */
static void say(struct claw_tokens_tally *t, struct claw_str s, bool *first)
{
    if (!*first) end_text(t);
    *first = false;
    add_piece(t, s.ptr, s.ptr + s.len);
}

/* Count what is said in the object or array at p, and where that ends; of one that ends early all there is. */
static const char *add_said(struct claw_tokens_tally *t, const char *p, const char *end, bool *first)
{
    unsigned depth = 0, all = 0, skipped = 0; /* the depths from which on everything, and nothing, counts */
    while (p < end) {
        char ch = *p++;
        if (ch == '{' || ch == '[') {
            depth++;
        } else if (ch == '}' || ch == ']') {
            if (depth <= 1) return p;
            if (--depth < all) all = 0;
            if (depth < skipped) skipped = 0;
        } else if (ch == '"') {
            struct claw_str s;
            p = skip_blanks(take_string(p, end, &s), end);
            bool is_key = p < end && *p == ':';
            if (skipped) continue;
            if (all) say(t, s, first);
            if (all || !is_key) continue;
            enum part part = part_of_said(s);
            p = skip_blanks(p + 1, end);
            if (p < end && *p == '"' && part != SETTING) {
                p = take_string(p + 1, end, &s);
                say(t, s, first);
            } else if (p < end && (*p == '{' || *p == '[')) {
                if (part == ALL) all = depth + 1;
                else if (claw_str_eqz(s, "reasoning_details")) skipped = depth + 1; /* OpenRouter says it twice */
            }
        }
    }
    return end;
}

void claw_tokens_add_answer(struct claw_tokens_tally *t, struct claw_str json, bool deltas)
{
    const char *p = json.ptr, *end = json.ptr + json.len;
    bool any = false, first = true;
    for (;;) {
        struct claw_str rest = {p, (size_t)(end - p)}, key = CLAW_STR("\"delta\"");
        ptrdiff_t at = claw_str_find(rest, key);
        if (at < 0) break;
        p = skip_blanks(p + at + key.len, end);
        if (p == end || *p != ':') continue;
        any = true;
        p = skip_blanks(p + 1, end);
        struct claw_str s;
        if (p < end && *p == '"') {
            p = take_string(p + 1, end, &s);
            say(t, s, &first);
        } else if (p < end && *p == '{') {
            p = add_said(t, p, end, &first);
        }
    }
    if (any || deltas) return;
    for (p = json.ptr; p < end;) { /* of an answer's tail there are several */
        if (*p == '{' || *p == '[') p = add_said(t, p, end, &first);
        else p++;
    }
}

void claw_tokens_break(struct claw_tokens_tally *t) { end_text(t); }

int64_t claw_tokens_tallied(const struct claw_tokens_tally *t)
{
    struct claw_tokens_tally c = *t;
    end_run(&c);
    return c.milli > 0 && c.milli < 500 ? 1 : whole(c.milli);
}
