/* h1: HTTP/1.1 messages as bytes in, events out (RFC 9110, 9112). No sockets, no clocks.
 *
 * llhttp (strict, every leniency off) finds the syntax; this wrapper keeps the head, enforces the limits and
 * refuses what llhttp lets through and a proxy must not: see the list in h1.c. The head's bytes are copied once
 * into the message's arena; slices point there. One parser reads message after message; it stops behind each one
 * so that pipelined bytes stay with the caller.
 */
#ifndef CLAW_HTTP_H1_H
#define CLAW_HTTP_H1_H

#include "base/arena.h"
#include "base/buf.h"

#include <llhttp.h>

enum claw_h1_kind { CLAW_H1_REQUEST, CLAW_H1_RESPONSE };

/* Header names the proxy itself reads or rewrites; everything else is CLAW_H_OTHER. */
#define CLAW_HEADER_MAP(X)                                                                         \
    X(HOST, "host") X(CONNECTION, "connection") X(CONTENT_LENGTH, "content-length")                \
    X(TRANSFER_ENCODING, "transfer-encoding") X(CONTENT_TYPE, "content-type")                      \
    X(CONTENT_ENCODING, "content-encoding") X(EXPECT, "expect") X(TE, "te") X(TRAILER, "trailer")  \
    X(UPGRADE, "upgrade") X(KEEP_ALIVE, "keep-alive") X(PROXY_CONNECTION, "proxy-connection")      \
    X(PROXY_AUTHENTICATE, "proxy-authenticate") X(PROXY_AUTHORIZATION, "proxy-authorization")      \
    X(AUTHORIZATION, "authorization") X(X_API_KEY, "x-api-key") X(API_KEY, "api-key")              \
    X(X_GOOG_API_KEY, "x-goog-api-key") X(COOKIE, "cookie") X(SET_COOKIE, "set-cookie")            \
    X(ACCEPT_ENCODING, "accept-encoding") X(FORWARDED, "forwarded")                                \
    X(X_FORWARDED_FOR, "x-forwarded-for") X(X_FORWARDED_HOST, "x-forwarded-host")                  \
    X(X_FORWARDED_PROTO, "x-forwarded-proto") X(X_REAL_IP, "x-real-ip")                            \
    X(RETRY_AFTER, "retry-after") X(RETRY_AFTER_MS, "retry-after-ms") X(TRACEPARENT, "traceparent") \
    X(TRACESTATE, "tracestate") X(DATE, "date")

enum claw_header_id {
    CLAW_H_OTHER = 0,
#define CLAW_HEADER_ENUM(id, name) CLAW_H_##id,
    CLAW_HEADER_MAP(CLAW_HEADER_ENUM)
#undef CLAW_HEADER_ENUM
    CLAW_H_COUNT
};
/* The id of a name in any case. */
enum claw_header_id claw_header_id_of(struct claw_str name);

struct claw_header {
    struct claw_str name; /* as it came */
    struct claw_str value; /* without the white space around it */
    enum claw_header_id id;
};

struct claw_head {
    /* requests */
    struct claw_str method;  /* "POST" */
    struct claw_str target;  /* origin-form: path with query; an absolute-form target is reduced to it */
    struct claw_str path;    /* target up to '?' */
    struct claw_str query;   /* behind '?', or empty */
    struct claw_str host;    /* Host's value (of absolute-form: the target's authority, RFC 9112 3.2.2) */
    bool expect_continue;
    /* responses */
    int status;
    /* both */
    int minor;               /* HTTP/1.minor: 0 or 1 */
    struct claw_header *headers;
    size_t n;
    int64_t content_length;  /* -1: none */
    bool chunked;
    bool keep_alive;         /* the connection may be used again after this message */
    bool until_close;        /* responses: the body ends with the connection */
    bool plain_connection;   /* each Connection, if there is one, says just "close" or just "keep-alive" */
};
/* The first header with this id / name in any case; NULL when there is none. */
const struct claw_header *claw_head_find(const struct claw_head *h, enum claw_header_id id);
const struct claw_header *claw_head_find_name(const struct claw_head *h, struct claw_str name);
/* Is this header hop-by-hop: one of RFC 9110 7.6.1's, or named by this head's Connection? */
bool claw_head_hop(const struct claw_head *h, const struct claw_header *one);

struct claw_h1_limits {
    size_t head_bytes;  /* request or status line and fields together */
    size_t target_bytes;
    unsigned fields;    /* number of header fields */
    int64_t body_bytes; /* -1: unbounded; decoded, not counting chunk framing */
    size_t trailer_bytes;   /* trailers are read and dropped */
    size_t chunk_line_bytes; /* one chunk's size line with extensions */
};
extern const struct claw_h1_limits claw_h1_defaults; /* 32 KB, 8 KB, 100, -1, 8 KB, 1 KB */

struct claw_h1;
struct claw_h1_events {
    /* Each may return a negative code: feed stops at once and returns it. A callback that frees the parser's
     * owner must return CLAW_ECANCELED. */
    int (*on_head)(struct claw_h1 *p, struct claw_head *h); /* h lives in the message's arena */
    int (*on_body)(struct claw_h1 *p, const char *data, size_t n); /* decoded, a slice of what was fed */
    int (*on_done)(struct claw_h1 *p); /* the message is complete */
};

struct claw_h1 {
    llhttp_t ll;
    const struct claw_h1_events *on;
    void *arg; /* the user's */
    const struct claw_h1_limits *limits;
    struct claw_arena *arena; /* the message's */
    struct claw_head *head;   /* complete once on_head ran; filled as far as it was read after an error */
    /* private from here */
    char *raw;             /* the head's bytes, in the arena */
    size_t raw_len, raw_cap;
    struct claw_str piece; /* of a chunked body: found, not yet handed up */
    int64_t left;          /* of a body with a length */
    int64_t body_seen;
    size_t head_seen, extra_seen, line; /* bytes: of this head; beside head and body; of the line under way */
    unsigned lines;                     /* complete ones of this head */
    uint8_t kind, state, event, interim;
    bool cr, in_chunk, last_chunk, trailers_end;
    bool opened; /* this run of llhttp read the size line of a chunk and went on */
    bool no_body; /* responses: the request was HEAD */
    int failed;
    const char *error;
};

/* A parser for one side of a connection; `limits` and `on` must outlive it. claw_h1_begin follows. */
void claw_h1_init(struct claw_h1 *p, enum claw_h1_kind kind, const struct claw_h1_limits *limits,
                  const struct claw_h1_events *on, void *arg);
/* Be ready for the next message, whose head goes into `arena`. `no_body`: responses to HEAD. */
void claw_h1_begin(struct claw_h1 *p, struct claw_arena *arena, bool no_body);
/* Read up to the end of the message. *used tells how much was taken; it is less than n when the message ended
 * inside (the rest belongs to the next one). Errors: CLAW_EBAD_REQUEST, CLAW_EHEAD_TOO_LARGE, CLAW_ETARGET_TOO_LONG, CLAW_EBODY_TOO_LARGE,
 * CLAW_EVERSION, CLAW_EMETHOD (CONNECT, TRACE), CLAW_ENOT_IMPLEMENTED (a transfer coding), CLAW_EEXPECT,
 * CLAW_EREQ_MEM, for responses CLAW_EBAD_RESPONSE; or what a callback returned. claw_h1_error says why. Responses:
 * 1xx heads are swallowed (101 is an error). */
int claw_h1_feed(struct claw_h1 *p, const char *data, size_t n, size_t *used) CLAW_MUSTCHECK;
/* The connection ended. 0: between messages, or a body that ends with the connection is now complete (on_done is
 * called); CLAW_EUPSTREAM_EOF (responses) or CLAW_EBAD_REQUEST: in the midst of one. */
int claw_h1_finish(struct claw_h1 *p) CLAW_MUSTCHECK;
/* Has any byte of the present message been seen? Is it complete? */
bool claw_h1_started(const struct claw_h1 *p);
bool claw_h1_complete(const struct claw_h1 *p);
const char *claw_h1_error(const struct claw_h1 *p); /* never NULL */

/* The standard reason phrase, "" when unknown. */
const char *claw_h1_reason(int status);
/* Is it a token (RFC 9110 5.6.2) / a field value without CR, LF, NUL and other controls but HTAB? What scripts and
 * configuration set is checked with these before it is written. */
bool claw_h1_is_token(struct claw_str s);
bool claw_h1_is_value(struct claw_str s);
/* Is it host [ ":" port ] (RFC 9110 7.2) with a host that is not empty and has no comma: a name, IPv4 or [IPv6]? */
bool claw_h1_is_host(struct claw_str s);
/* A query's name=value, as they came: percent-encoded. */
struct claw_h1_parameter { struct claw_str whole, name, value; };
/* The next one, taken off the query; false: there is none. */
bool claw_h1_next_parameter(struct claw_str *query, struct claw_h1_parameter *out);
/* Has the path (up to a '?') a segment "." or "..", also percent-encoded, between slashes that may be encoded or turned, or with
 * parameters ("..;x")? Behind a base_url it could leave base_url's prefix, with our key on it, at an upstream that reads paths so. */
bool claw_h1_has_dots(struct claw_str path);
/* Is `token` (in any case) a member of the comma-separated `list`? */
bool claw_h1_has_token(struct claw_str list, struct claw_str token);
/* "size-in-hex CRLF" of a chunk into `to` (at least 20 bytes); the length written. */
size_t claw_h1_chunk_line(char *to, size_t n);

#endif
