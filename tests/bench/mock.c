/* mock: an upstream for benches. One thread, epoll, keep-alive.
 *
 *   mock -p PORT [-e EVENTS] [-d MICROSECONDS]
 *
 * A request whose body holds "stream":true gets EVENTS server-sent events, the first at once and each next one
 * MICROSECONDS later; each event carries the monotonic time it was sent at in nanoseconds ("t":…), so that a client
 * on the same machine knows how long it was on its way. Asked at /v1/messages they are Anthropic's: what begins and ends a
 * message comes with its first and last piece of text, whose text is the time (" t=…"), to outlive a translation. Any other request gets a completion of some 300 bytes.
 * Streams wait in one queue: as all have the same pace, its head is always the next one due.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IN_MAX = 1 << 20 };

struct conn {
    int fd;
    size_t have, need; /* bytes of the request so far; head and body together, 0: head not complete */
    size_t head;
    int event;         /* next one to send, -1: no stream under way */
    int messages;      /* the stream is Anthropic's */
    unsigned serial;   /* of the use of this slot: a queue entry of an older one is void */
    char *in;
    size_t cap;
};
struct due { unsigned fd, serial; long long at; };

static struct conn *conns[65536];
static struct due *queue;
static size_t queue_head, queue_tail, queue_cap = 1 << 18;
static int ep, events = 20;
static long long delay_ns;

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void forget(struct conn *c)
{
    c->serial++;
    c->event = -1;
    c->have = c->need = 0;
    close(c->fd);
}

static int put(struct conn *c, const char *p, size_t n)
{
    while (n) {
        ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);
        if (w < 0) {
            if (errno == EAGAIN || errno == EINTR) continue; /* answers are small beside a socket's buffer */
            forget(c);
            return -1;
        }
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

static int messages_event(struct conn *c, char *e, size_t size, int last)
{
    static const char begin[] =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_bench\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"bench\","
        "\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\n"
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    static const char end[] =
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":7}}\n\n"
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    return snprintf(e, size,
                    "%sevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" t=%lld\"}}\n\n%s",
                    c->event == 0 ? begin : "", now_ns(), last ? end : "");
}

static int chat_event(char *e, size_t size, int last)
{
    return snprintf(e, size,
                    "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\"t\":%lld,"
                    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n%s",
                    now_ns(), last ? "data: [DONE]\n\n" : "");
}

static void send_event(struct conn *c)
{
    char e[1536], out[1664];
    int last = c->event + 1 == events;
    int n = c->messages ? messages_event(c, e, sizeof e, last) : chat_event(e, sizeof e, last);
    int m = snprintf(out, sizeof out, "%x\r\n%s\r\n%s", (unsigned)n, e, last ? "0\r\n\r\n" : "");
    if (put(c, out, (size_t)m) != 0) return;
    if (last) {
        c->event = -1;
        return;
    }
    c->event++;
    queue[queue_tail++ % queue_cap] = (struct due){(unsigned)c->fd, c->serial, now_ns() + delay_ns};
}

static void answer(struct conn *c)
{
    static const char body[] =
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"Hello there.\"},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}";
    static char out[1024];
    static int n;
    if (memmem(c->in + c->head, c->need - c->head, "\"stream\":true", 13)) {
        static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        c->event = 0;
        c->messages = strstr(c->in, " /v1/messages ") != NULL; /* the head ends with a zero */
        if (put(c, head, sizeof head - 1) == 0) send_event(c);
        return;
    }
    if (!n)
        n = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", sizeof body - 1, body);
    put(c, out, (size_t)n);
}

static void take(struct conn *c)
{
    for (;;) {
        if (!c->need) {
            char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
            if (!end) return;
            *end = 0;
            char *length = strcasestr(c->in, "\r\ncontent-length:");
            c->head = (size_t)(end + 4 - c->in);
            c->need = c->head + (length ? strtoul(length + 17, NULL, 10) : 0);
        }
        if (c->have < c->need) return;
        size_t used = c->need;
        unsigned serial = c->serial;
        answer(c);
        if (c->serial != serial) return;
        memmove(c->in, c->in + used, c->have - used);
        c->have -= used;
        c->need = 0;
        if (!c->have) return;
    }
}

static void readable(struct conn *c)
{
    for (;;) {
        if (c->have == c->cap) {
            if (c->cap >= IN_MAX) {
                forget(c);
                return;
            }
            c->cap *= 2;
            c->in = realloc(c->in, c->cap + 1);
        }
        ssize_t n = recv(c->fd, c->in + c->have, c->cap - c->have, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            forget(c);
            return;
        }
        if (n < 0) break;
        c->have += (size_t)n;
        if (c->have < c->cap) break;
    }
    take(c);
}

static void welcome(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
        if (fd < 0) return;
        if (fd >= 65536) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct conn *c = conns[fd];
        if (!c) {
            c = conns[fd] = calloc(1, sizeof *c);
            c->cap = 4096;
            c->in = malloc(c->cap + 1);
        }
        c->fd = fd;
        c->have = c->need = 0;
        c->event = -1;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int argc, char **argv)
{
    int port = 9000, one = 1;
    for (int o; (o = getopt(argc, argv, "p:e:d:")) != -1;) {
        if (o == 'p') port = atoi(optarg);
        else if (o == 'e') events = atoi(optarg);
        else if (o == 'd') delay_ns = atoll(optarg) * 1000;
        else return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    queue = malloc(queue_cap * sizeof *queue);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, 4096) != 0) {
        perror("mock");
        return 1;
    }
    ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, got[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        long long wait = -1;
        if (queue_head != queue_tail) {
            wait = (queue[queue_head % queue_cap].at - now_ns()) / 1000000;
            if (wait < 0) wait = 0;
        }
        int n = epoll_wait(ep, got, 256, (int)wait);
        for (int i = 0; i < n; i++) {
            if (got[i].data.fd == listener) welcome(listener);
            else readable(conns[got[i].data.fd]);
        }
        while (queue_head != queue_tail && queue[queue_head % queue_cap].at <= now_ns()) {
            struct due d = queue[queue_head++ % queue_cap];
            struct conn *c = conns[d.fd];
            if (c->serial == d.serial && c->event >= 0) send_event(c);
        }
    }
}
