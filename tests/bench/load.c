/* load: a client of many streams at once. One thread, epoll.
 *
 *   load -p PORT -c STREAMS -s SECONDS [-o]     -o: each connection does one stream, then stays open and silent
 *
 * Keeps STREAMS streams running, each on a connection of its own, for SECONDS (the streams then under way are left).
 * Prints one line of JSON: streams and events that came, errors, microseconds to the first event and of an event's way
 * from the mock ("t" in the event, or in its text) to here, at the median and at p99, and the same of events that are not the first.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 4096, SAMPLES = 1 << 21 };

struct conn {
    int fd, first;
    long long asked;
    size_t have;
    char line[LINE];
};

static struct conn *conns;
static int ep, port, once;
static char request[512];
static size_t request_n;
static unsigned *ttfb, *way;
static size_t ttfb_n, way_n, streams, events, errors;

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void ask(struct conn *c)
{
    c->asked = now_ns();
    c->first = 1;
    c->have = 0;
    if (send(c->fd, request, request_n, MSG_NOSIGNAL) != (ssize_t)request_n) errors++;
}

static void open_one(struct conn *c)
{
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0) {
        perror("load: connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    ask(c);
}

static void add(unsigned *to, size_t *n, long long ns)
{
    if (*n < SAMPLES) to[(*n)++] = ns > 0 ? (unsigned)(ns / 1000) : 0;
}

static void line(struct conn *c, long long now)
{
    char *l = c->line, *t;
    if (strncmp(l, "data: {", 7) == 0 && ((t = strstr(l, "\"t\":")) || (t = strstr(l, "\" t=")))) {
        events++;
        if (c->first) add(ttfb, &ttfb_n, now - c->asked);
        else add(way, &way_n, now - atoll(t + 4));
        c->first = 0;
    } else if (strncmp(l, "HTTP/1.1 ", 9) == 0 && strncmp(l + 9, "200", 3) != 0) {
        errors++;
    }
}

/* Lines are looked at whatever chunks they came in: chunk sizes are lines of their own that mean nothing here. */
static void readable(struct conn *c)
{
    char in[65536];
    ssize_t n = recv(c->fd, in, sizeof in, MSG_DONTWAIT);
    long long now = now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        errors++;
        close(c->fd);
        c->fd = -1;
        open_one(c);
        return;
    }
    int done = 0;
    for (ssize_t i = 0; i < n; i++) {
        if (in[i] != '\n') {
            if (c->have < LINE - 1) c->line[c->have++] = in[i];
            continue;
        }
        c->line[c->have] = 0;
        if (strcmp(c->line, "data: [DONE]") == 0) done = 1;
        else line(c, now);
        c->have = 0;
        if (done == 1 && memmem(in + i, (size_t)(n - i), "0\r\n\r\n", 5)) done = 2;
    }
    if (done == 1 || (n == 5 && memcmp(in, "0\r\n\r\n", 5) == 0 && !c->first)) { /* the last chunk may come by itself */
        static const struct timeval soon = {.tv_sec = 1};
        if (done == 1) {
            setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
            char rest[16];
            if (recv(c->fd, rest, 5, MSG_WAITALL) != 5) errors++;
        }
        done = 2;
    }
    if (done == 2) {
        streams++;
        if (!once) ask(c);
    }
}

static int by_size(const void *a, const void *b) { return *(const unsigned *)a < *(const unsigned *)b ? -1 : *(const unsigned *)a > *(const unsigned *)b; }

static unsigned at(unsigned *v, size_t n, double q)
{
    return n ? v[(size_t)((double)(n - 1) * q)] : 0;
}

int main(int argc, char **argv)
{
    int n = 100;
    double seconds = 3;
    for (int o; (o = getopt(argc, argv, "p:c:s:o")) != -1;) {
        if (o == 'p') port = atoi(optarg);
        else if (o == 'c') n = atoi(optarg);
        else if (o == 's') seconds = atof(optarg);
        else if (o == 'o') once = 1;
        else return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    static const char body[] = "{\"model\":\"gpt-4\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Tell me something.\"}]}";
    request_n = (size_t)snprintf(request, sizeof request,
                                 "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                                 sizeof body - 1, body);
    conns = calloc((size_t)n, sizeof *conns);
    ttfb = malloc(SAMPLES * sizeof *ttfb);
    way = malloc(SAMPLES * sizeof *way);
    ep = epoll_create1(0);
    for (int i = 0; i < n; i++) open_one(&conns[i]);
    long long end = now_ns() + (long long)(seconds * 1e9);
    struct epoll_event got[256];
    for (long long left; (left = end - now_ns()) > 0;) {
        int k = epoll_wait(ep, got, 256, (int)(left / 1000000) + 1);
        for (int i = 0; i < k; i++) readable(got[i].data.ptr);
    }
    qsort(ttfb, ttfb_n, sizeof *ttfb, by_size);
    qsort(way, way_n, sizeof *way, by_size);
    printf("{\"streams\":%zu,\"events\":%zu,\"errors\":%zu,\"ttfb_p50\":%u,\"ttfb_p99\":%u,\"event_p50\":%u,\"event_p99\":%u}\n", streams, events, errors,
           at(ttfb, ttfb_n, 0.5), at(ttfb, ttfb_n, 0.99), at(way, way_n, 0.5), at(way, way_n, 0.99));
    return 0;
}
