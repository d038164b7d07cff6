#include "net/resolve.h"

#include <stdlib.h>
#include <string.h>

#define KEEP_MS 30000u
#define KEEP_FAILURE_MS 1000u
#define KEEP_STALE_MS 600000u
#define NAMES_MAX 256u
#define BUCKETS 256u
#define NAME_MAX_BYTES 253u /* RFC 1035 2.3.4, as text */

struct entry;

/* A look-up on the pool. It outlives the resolver when that is freed first: entry is NULL then. */
struct lookup {
    uv_getaddrinfo_t req;
    struct claw_resolver *resolver;
    struct entry *entry;
};

struct entry {
    struct entry *chain;             /* same bucket */
    struct entry *newer, *older;     /* by use */
    struct lookup *lookup;           /* under way, or NULL */
    struct claw_resolve waiting;     /* head of a circle; only its links are used */
    struct claw_addresses good;      /* n 0: none yet; ports are 0 */
    uint64_t good_ms, bad_ms;        /* when the last answer and the last failure came */
    const char *why;                 /* of the last failure; NULL: the last look-up went well */
    uint64_t hash;
    size_t len;
    char name[NAME_MAX_BYTES + 1];   /* lower case */
};

struct claw_resolver {
    struct claw_loop *loop;
    struct entry *buckets[BUCKETS];
    struct entry *newest, *oldest;
    unsigned n;
    struct claw_resolve answering; /* head of the questions an answer is being told to right now */
    bool telling, freed;           /* freed while telling: the memory goes when the telling ends */
};

/* ---- questions -------------------------------------------------------------------------------------------- */

static void circle_init(struct claw_resolve *head) { head->prev = head->next = head; }

static void question_unlink(struct claw_resolve *q)
{
    q->prev->next = q->next;
    q->next->prev = q->prev;
    q->prev = q->next = NULL;
    q->resolver = NULL;
    q->entry = NULL;
}

void claw_resolve_cancel(struct claw_resolve *q)
{
    if (q->resolver) question_unlink(q);
}

static void set_port(struct claw_addresses *list, uint16_t port)
{
    for (unsigned i = 0; i < list->n; i++) {
        if (list->at[i].ss_family == AF_INET)
            ((struct sockaddr_in *)&list->at[i])->sin_port = htons(port);
        else
            ((struct sockaddr_in6 *)&list->at[i])->sin6_port = htons(port);
    }
}

/* The list is a copy: the callback may do anything, also free the resolver. */
static void answer(struct claw_resolve *q, const struct claw_addresses *list, const char *why)
{
    struct claw_addresses mine;

    if (why) {
        q->on_done(q, CLAW_EDNS, NULL, why);
        return;
    }
    mine = *list;
    set_port(&mine, q->port);
    q->on_done(q, 0, &mine, NULL);
}

/* ---- the cache -------------------------------------------------------------------------------------------- */

static void use_unlink(struct claw_resolver *r, struct entry *e)
{
    *(e->newer ? &e->newer->older : &r->newest) = e->older;
    *(e->older ? &e->older->newer : &r->oldest) = e->newer;
}

static void use_first(struct claw_resolver *r, struct entry *e)
{
    e->newer = NULL;
    e->older = r->newest;
    *(r->newest ? &r->newest->newer : &r->oldest) = e;
    r->newest = e;
}

static void entry_free(struct claw_resolver *r, struct entry *e)
{
    struct entry **at = &r->buckets[e->hash % BUCKETS];

    while (*at != e) at = &(*at)->chain;
    *at = e->chain;
    use_unlink(r, e);
    r->n--;
    free(e);
}

static struct entry *entry_get(struct claw_resolver *r, const char *name, size_t len)
{
    uint64_t hash = claw_str_hash((struct claw_str){name, len}, 0);
    struct entry *e = r->buckets[hash % BUCKETS];

    while (e && !(e->hash == hash && e->len == len && memcmp(e->name, name, len) == 0)) e = e->chain;
    if (e) {
        use_unlink(r, e);
        use_first(r, e);
        return e;
    }
    if (r->n >= NAMES_MAX) {
        for (e = r->oldest; e && e->lookup; e = e->newer) continue;
        if (!e) return NULL;
        entry_free(r, e);
    }
    e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->hash = hash;
    e->len = len;
    memcpy(e->name, name, len);
    circle_init(&e->waiting);
    e->chain = r->buckets[hash % BUCKETS];
    r->buckets[hash % BUCKETS] = e;
    use_first(r, e);
    r->n++;
    return e;
}

static void take_addresses(struct claw_addresses *to, const struct addrinfo *from)
{
    to->n = 0;
    for (; from && to->n < CLAW_RESOLVE_MAX; from = from->ai_next) {
        if (from->ai_family != AF_INET && from->ai_family != AF_INET6) continue;
        if (from->ai_addrlen > sizeof to->at[0]) continue;
        memset(&to->at[to->n], 0, sizeof to->at[0]);
        memcpy(&to->at[to->n++], from->ai_addr, from->ai_addrlen);
    }
}

/* After a failure the last good answer serves on for a while: a resolver that is down is no reason to be. */
static const char *entry_why(const struct entry *e, uint64_t now)
{
    return e->why && !(e->good.n && now - e->good_ms < KEEP_STALE_MS) ? e->why : NULL;
}

/* The entry is not looked at once the first callback ran: it may have been pushed out by new names. */
static void tell_all(struct claw_resolver *r, struct entry *e)
{
    struct claw_addresses list = e->good;
    const char *why = entry_why(e, claw_loop_now_ms(r->loop));
    struct claw_resolve *head = &r->answering;

    if (e->waiting.next == &e->waiting) return;
    head->prev = e->waiting.prev;
    head->next = e->waiting.next;
    head->prev->next = head->next->prev = head;
    circle_init(&e->waiting);
    r->telling = true;
    while (head->next != head) {
        struct claw_resolve *q = head->next;
        question_unlink(q);
        answer(q, &list, why);
    }
    r->telling = false;
    if (r->freed) free(r);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct lookup *l = (struct lookup *)req;
    struct claw_resolver *r = l->resolver;
    struct entry *e = l->entry;

    free(l);
    if (!e) {
        uv_freeaddrinfo(res);
        return;
    }
    uint64_t now = claw_loop_now_ms(r->loop);
    struct claw_addresses got = {0};
    if (status == 0) take_addresses(&got, res);
    uv_freeaddrinfo(res);
    e->lookup = NULL;
    if (got.n) {
        e->good = got;
        e->good_ms = now;
        e->why = NULL;
    } else {
        e->why = status == 0 ? "the name has no address" : uv_strerror(status);
        e->bad_ms = now;
    }
    tell_all(r, e);
}

static int lookup_start(struct claw_resolver *r, struct entry *e)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct lookup *l = malloc(sizeof *l);

    if (!l) return UV_ENOMEM;
    l->resolver = r;
    l->entry = e;
    int rc = uv_getaddrinfo(&r->loop->uv, &l->req, on_resolved, e->name, NULL, &hints);
    if (rc != 0)
        free(l);
    else
        e->lookup = l;
    return rc;
}

/* ---- the resolver ----------------------------------------------------------------------------------------- */

int claw_resolver_new(struct claw_loop *loop, struct claw_resolver **out)
{
    struct claw_resolver *r = calloc(1, sizeof *r);

    if (!r) return CLAW_ENOMEM;
    r->loop = loop;
    circle_init(&r->answering);
    *out = r;
    return 0;
}

static void forget_all(struct claw_resolve *head)
{
    while (head->next != head) question_unlink(head->next);
}

void claw_resolver_free(struct claw_resolver *r)
{
    forget_all(&r->answering);
    while (r->newest) {
        struct entry *e = r->newest;
        forget_all(&e->waiting);
        if (e->lookup) {
            e->lookup->entry = NULL;
            uv_cancel((uv_req_t *)&e->lookup->req); /* may fail: it ends by itself */
        }
        entry_free(r, e);
    }
    r->freed = true;
    if (!r->telling) free(r);
}

static bool literal(const char *name, struct claw_addresses *list)
{
    *list = (struct claw_addresses){.n = 1};
    return uv_ip4_addr(name, 0, (struct sockaddr_in *)&list->at[0]) == 0 ||
           uv_ip6_addr(name, 0, (struct sockaddr_in6 *)&list->at[0]) == 0;
}

/* localhost and what ends in it are the loopback's, whatever a hosts file or a server says (RFC 6761 6.3). IPv6 first, as
 * getaddrinfo has it: nobody there is told at once, and the address that mostly answers has all the time that is left. */
static bool loopback(const char *name, size_t n, struct claw_addresses *list)
{
    static const char local[] = "localhost";
    size_t k = sizeof local - 1;

    if (n > 0 && name[n - 1] == '.') n--;
    if (n < k || memcmp(name + n - k, local, k) != 0 || (n > k && name[n - k - 1] != '.')) return false;
    *list = (struct claw_addresses){.n = 2};
    uv_ip6_addr("::1", 0, (struct sockaddr_in6 *)&list->at[0]);
    uv_ip4_addr("127.0.0.1", 0, (struct sockaddr_in *)&list->at[1]);
    return true;
}

void claw_resolve_start(struct claw_resolver *r, struct claw_resolve *q, struct claw_str host, uint16_t port)
{
    uint64_t now = claw_loop_now_ms(r->loop);
    struct claw_addresses list;
    char name[NAME_MAX_BYTES + 1];

    CLAW_ASSERT(!q->resolver);
    q->port = port;
    if (host.len == 0 || host.len > NAME_MAX_BYTES || memchr(host.ptr, 0, host.len)) {
        answer(q, NULL, "not a valid host name");
        return;
    }
    for (size_t i = 0; i < host.len; i++)
        name[i] = host.ptr[i] >= 'A' && host.ptr[i] <= 'Z' ? (char)(host.ptr[i] | 0x20) : host.ptr[i];
    name[host.len] = 0;
    if (literal(name, &list) || loopback(name, host.len, &list)) {
        answer(q, &list, NULL);
        return;
    }
    struct entry *e = entry_get(r, name, host.len);
    if (!e) {
        answer(q, NULL, "too many names are being looked up");
        return;
    }
    if (!e->lookup) {
        bool fresh = e->why ? now - e->bad_ms < KEEP_FAILURE_MS : e->good.n && now - e->good_ms < KEEP_MS;
        int rc = fresh ? 0 : lookup_start(r, e);
        if (rc != 0) {
            e->why = uv_strerror(rc);
            e->bad_ms = now;
        }
        if (fresh || rc != 0) {
            answer(q, &e->good, entry_why(e, now));
            return;
        }
    }
    q->resolver = r;
    q->entry = e;
    q->prev = e->waiting.prev;
    q->next = &e->waiting;
    q->prev->next = q->next->prev = q;
}
