#include "net/offload.h"
#include "net/tls_part.h"

#include <stdio.h>
#include <stdlib.h>

#define IN_MAX (256u << 10) /* fed and not yet decrypted; the stream feeds 64 KB at a time */

enum { RECORD_CCS = 20, RECORD_ALERT = 21, RECORD_HANDSHAKE = 22 };
enum { MESSAGE_SERVER_HELLO = 2, MESSAGE_NEW_SESSION_TICKET = 4 };

enum verdict { UNKNOWN, FULL, RESUMED };

/* Follows the records of one direction. Whether a TLS 1.2 session is resumed shows in the clear, and mbedTLS's
 * public API does not tell: behind ServerHello comes Certificate (full), or NewSessionTicket or
 * ChangeCipherSpec (resumed). */
struct scan {
    uint8_t head[5], have;
    uint8_t type;
    uint16_t left;     /* of the record */
    uint8_t msg_head[4], msg_have;
    uint32_t msg_left; /* of the handshake message */
    uint8_t alert;
    bool hello, ccs, whole; /* whole: a record was completed since the engine last looked */
    enum verdict verdict;
};

struct claw_tls {
    mbedtls_ssl_context ssl;
    struct claw_tls_server *server;
    struct claw_tls_client *client;
    struct claw_tls_name name;
    struct claw_buf in, out;
    struct scan from_peer, to_peer;
    bool started, ended, offered, done, closed;
    int failed; /* CLAW_E*, 0 */
    char error[320];
};

static void scan_messages(struct scan *s, const uint8_t *p, size_t n)
{
    while (n > 0 && s->verdict == UNKNOWN) {
        if (s->msg_left > 0) {
            size_t k = n < s->msg_left ? n : s->msg_left;
            p += k, n -= k, s->msg_left -= (uint32_t)k;
            continue;
        }
        s->msg_head[s->msg_have++] = *p++, n--;
        if (s->msg_have < sizeof s->msg_head) continue;
        s->msg_have = 0;
        s->msg_left = (uint32_t)s->msg_head[1] << 16 | (uint32_t)s->msg_head[2] << 8 | s->msg_head[3];
        if (s->hello) s->verdict = s->msg_head[0] == MESSAGE_NEW_SESSION_TICKET ? RESUMED : FULL;
        if (s->msg_head[0] == MESSAGE_SERVER_HELLO) s->hello = true;
    }
}

static void scan_head(struct scan *s)
{
    s->have = 0;
    s->type = s->head[0];
    s->left = (uint16_t)(s->head[3] << 8 | s->head[4]);
    if (s->left == 0) s->whole = true;
    if (s->type != RECORD_CCS) return;
    s->ccs = true;
    if (s->hello && s->verdict == UNKNOWN) s->verdict = RESUMED;
}

static void scan(struct scan *s, const uint8_t *p, size_t n)
{
    while (n > 0) {
        if (s->left == 0) {
            s->head[s->have++] = *p++, n--;
            if (s->have == sizeof s->head) scan_head(s);
            continue;
        }
        size_t k = n < s->left ? n : s->left;
        if (s->type == RECORD_HANDSHAKE) scan_messages(s, p, k);
        if (s->type == RECORD_ALERT && !s->ccs) s->alert = p[k - 1];
        p += k, n -= k, s->left = (uint16_t)(s->left - k);
        if (s->left == 0) s->whole = true;
    }
}

/* ---- the two buffers -------------------------------------------------------------------------------------- */

static int on_send(void *arg, const unsigned char *data, size_t n)
{
    struct claw_tls *t = arg;

    if (claw_buf_add(&t->out, data, n) != 0) return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    if (!t->done) scan(&t->to_peer, data, n);
    return n > INT32_MAX ? INT32_MAX : (int)n;
}

static int on_recv(void *arg, unsigned char *to, size_t n)
{
    struct claw_tls *t = arg;
    struct claw_str in = claw_buf_str(&t->in);

    if (in.len == 0) return MBEDTLS_ERR_SSL_WANT_READ;
    if (n > in.len) n = in.len;
    memcpy(to, in.ptr, n);
    claw_buf_take(&t->in, n);
    return (int)n;
}

int claw_tls_feed(struct claw_tls *t, const char *data, size_t n)
{
    if (n == 0) return 0;
    int rc = claw_buf_add(&t->in, data, n);
    if (rc == 0 && !t->done) scan(&t->from_peer, (const uint8_t *)data, n);
    return rc;
}

struct claw_buf *claw_tls_out(struct claw_tls *t) { return &t->out; }

/* No buffer is held while nothing is in it. */
static void release_in(struct claw_tls *t)
{
    if (t->in.cap && claw_buf_size(&t->in) == 0) claw_buf_fini(&t->in);
}

/* ---- a connection ----------------------------------------------------------------------------------------- */

/* The engine's buffers (twice 16 KB) and its keys are made with the first step of the handshake: a connection that never
 * comes up, or a client that says nothing, costs none of it. */
static int start(struct claw_tls *t)
{
    t->started = true;
    if (mbedtls_ssl_setup(&t->ssl, t->server ? &t->server->conf : &t->client->conf) != 0) return CLAW_ENOMEM;
    mbedtls_ssl_set_bio(&t->ssl, t, on_send, on_recv, NULL);
    if (!t->client) return 0;
    /* Called in every case: from 3.6.3 on forgetting it is an error, NULL says that it was not forgotten. */
    bool sni = t->name.text[0] && t->name.ip_len == 0;
    if (mbedtls_ssl_set_hostname(&t->ssl, sni ? t->name.text : NULL) != 0) return CLAW_ENOMEM;
    if (t->client->verify) mbedtls_ssl_set_verify(&t->ssl, claw_tls_verify, &t->name);
    t->offered = claw_tls_session_offer(t->client, t->name.text, &t->ssl);
    return 0;
}

int claw_tls_new(struct claw_tls_server *server, struct claw_tls_client *client, struct claw_str server_name,
                 struct claw_tls **out)
{
    CLAW_ASSERT(!server != !client);
    struct claw_tls_name name;
    int rc = claw_tls_name_parse(client ? server_name : CLAW_STR(""), &name);

    if (rc != 0) return rc;
    if (client && client->verify && !name.text[0]) return CLAW_EINVAL;
    struct claw_tls *t = calloc(1, sizeof *t);
    if (!t) return CLAW_ENOMEM;
    t->name = name;
    t->server = server ? claw_tls_server_ref(server) : NULL;
    t->client = client ? claw_tls_client_ref(client) : NULL;
    claw_buf_init(&t->in, IN_MAX);
    claw_buf_init(&t->out, 0);
    mbedtls_ssl_init(&t->ssl);
    *out = t;
    return 0;
}

void claw_tls_end(struct claw_tls *t)
{
    if (!t->ended) mbedtls_ssl_free(&t->ssl);
    t->ended = true;
}

void claw_tls_free(struct claw_tls *t)
{
    if (!t) return;
    claw_tls_end(t);
    claw_buf_fini(&t->in);
    claw_buf_fini(&t->out);
    claw_tls_server_unref(t->server);
    claw_tls_client_unref(t->client);
    free(t);
}

static int failed(struct claw_tls *t, int rc)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    const int bad_certificate = MBEDTLS_ERR_SSL_BAD_CERTIFICATE;
#else
    const int bad_certificate = MBEDTLS_ERR_SSL_BAD_HS_CERTIFICATE;
#endif
    const uint32_t usage = MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE |
                           MBEDTLS_X509_BADCERT_BAD_KEY;
    uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);

    t->failed = CLAW_ETLS;
    if (rc == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED ||
        (rc == bad_certificate && flags != UINT32_MAX && (flags & usage))) {
        t->failed = CLAW_ETLS_VERIFY;
        claw_tls_verify_text(flags, t->name.text, t->error, sizeof t->error);
    } else if (rc == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE && !t->done) {
        snprintf(t->error, sizeof t->error, "the peer refused the handshake: %s",
                 claw_tls_alert_text(t->from_peer.alert));
    } else {
        claw_tls_error_text(rc, t->error, sizeof t->error);
    }
    return t->failed;
}

#if MBEDTLS_VERSION_MAJOR >= 3
static bool is_over(const struct claw_tls *t) { return mbedtls_ssl_is_handshake_over((mbedtls_ssl_context *)&t->ssl); }

static int step(struct claw_tls *t) { return mbedtls_ssl_handshake_step(&t->ssl); }
#else
static bool is_over(const struct claw_tls *t) { return t->ssl.state == MBEDTLS_SSL_HANDSHAKE_OVER; }

/* The step that verifies the peer's certificate is taken under the lock of the trusted ones (tls_part.h). */
static int step(struct claw_tls *t)
{
    struct claw_tls_roots *roots = t->client ? t->client->roots : t->server->client_ca;
    bool lock = roots && t->ssl.state == (t->client ? MBEDTLS_SSL_SERVER_CERTIFICATE : MBEDTLS_SSL_CLIENT_CERTIFICATE);

    if (lock) pthread_mutex_lock(&roots->verifying);
    int rc = mbedtls_ssl_handshake_step(&t->ssl);
    if (lock) pthread_mutex_unlock(&roots->verifying);
    return rc;
}
#endif

static int go_on(struct claw_tls *t)
{
    int rc = 0;

    while (rc == 0 && !is_over(t)) {
        rc = step(t);
        claw_offload_yield();
    }
    return rc;
}

static void handshake_done(struct claw_tls *t)
{
    t->done = true;
    if (!t->client) return;
    atomic_fetch_add_explicit(&t->client->handshakes, 1, memory_order_relaxed);
    if (claw_tls_resumed(t)) atomic_fetch_add_explicit(&t->client->resumed, 1, memory_order_relaxed);
    claw_tls_session_keep(t->client, t->name.text, &t->ssl, claw_tls_resumed(t));
}

int claw_tls_handshake(struct claw_tls *t)
{
    if (t->done) return 0;
    if (t->failed) return t->failed;
    if (!t->started && start(t) != 0) {
        snprintf(t->error, sizeof t->error, "%s", claw_err_text(CLAW_ENOMEM));
        return t->failed = CLAW_ENOMEM;
    }
    t->from_peer.whole = false;
    int rc = go_on(t);
    if (rc == 0) {
        handshake_done(t);
        return 0;
    }
    if (rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE) return CLAW_EAGAIN;
    if (t->offered) claw_tls_session_drop(t->client, t->name.text);
    return failed(t, rc);
}

bool claw_tls_started(const struct claw_tls *t) { return t->started; }

bool claw_tls_lacks_bytes(const struct claw_tls *t) { return t->started && !t->from_peer.whole; }

bool claw_tls_heavy(const struct claw_tls *t)
{
    if (t->done || t->failed || !t->from_peer.whole) return false;
    if (t->client) return t->from_peer.verdict == FULL && !t->from_peer.ccs;
    return t->to_peer.verdict != RESUMED;
}

bool claw_tls_resumed(const struct claw_tls *t)
{
    return t->done && (t->client ? t->from_peer.verdict : t->to_peer.verdict) == RESUMED;
}

const char *claw_tls_error(const struct claw_tls *t) { return t->error[0] ? t->error : "no error"; }

ptrdiff_t claw_tls_read(struct claw_tls *t, char *to, size_t cap)
{
    size_t n = 0;

    CLAW_ASSERT(t->done && cap > 0);
    while (n < cap && !t->closed && !t->failed) {
        int rc = mbedtls_ssl_read(&t->ssl, (unsigned char *)to + n, cap - n);
        if (rc >= 0) { /* 0: an empty record; mbedTLS bounds how many may follow each other */
            n += (size_t)rc;
        } else if (rc == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
            t->closed = true;
        } else if (rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE) {
            break;
        } else {
            failed(t, rc);
        }
    }
    release_in(t);
    if (n > 0) return (ptrdiff_t)n;
    return t->closed ? 0 : t->failed ? CLAW_ETLS : CLAW_EAGAIN;
}

int claw_tls_write(struct claw_tls *t, const char *data, size_t n)
{
    CLAW_ASSERT(t->done);
    if (t->failed) return CLAW_ETLS;
    for (size_t at = 0; at < n;) {
        int rc = mbedtls_ssl_write(&t->ssl, (const unsigned char *)data + at, n - at);
        if (rc == MBEDTLS_ERR_SSL_ALLOC_FAILED) return CLAW_ENOMEM;
        if (rc <= 0) return failed(t, rc);
        at += (size_t)rc;
    }
    return 0;
}

int claw_tls_shutdown(struct claw_tls *t)
{
    int rc = mbedtls_ssl_close_notify(&t->ssl);

    if (rc == MBEDTLS_ERR_SSL_ALLOC_FAILED) return CLAW_ENOMEM;
    return rc == 0 ? 0 : CLAW_ETLS;
}
