/* cold: what many requests at once that all need a new TLS connection do to one that needs none.
 *
 *   cold -p PORT -c REQUESTS -n BURSTS
 *
 * One process (this one) sends a small request each millisecond over one keep-alive connection and notes how long each
 * answer took. Another, of the lowest priority, opens REQUESTS connections and then sends a request for the model "cold"
 * on each of them, as fast as it can, BURSTS times. Prints one line of JSON: milliseconds, calm (before) and in bursts.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 4096, SAMPLES_MAX = 1 << 20, CALM = 1000 };

static int port;
static volatile int *bursting, *failed; /* shared by the two */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int dial(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval most = {.tv_sec = 30};
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        perror("cold: connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    return fd;
}

static void ask(int fd, const char *model)
{
    char body[128], all[512];
    int n = snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}", model);
    n = snprintf(all, sizeof all, "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", n, body);
    if (send(fd, all, (size_t)n, MSG_NOSIGNAL) != n) *failed += 1;
}

/* The whole answer, whose length its head tells. */
static void answer(int fd)
{
    char got[8192];
    size_t have = 0, want = 0;
    while (!want || have < want) {
        ssize_t n = recv(fd, got + have, sizeof got - 1 - have, 0);
        if (n <= 0) break;
        have += (size_t)n;
        got[have] = 0;
        char *end = strstr(got, "\r\n\r\n"), *length = strcasestr(got, "\r\ncontent-length:");
        if (end && length) want = (size_t)(end + 4 - got) + strtoul(length + 17, NULL, 10);
        if (end && !length) break;
    }
    if (!want || have < want || strncmp(got, "HTTP/1.1 200", 12) != 0) *failed += 1;
}

static void burst(int requests, int times)
{
    static int fd[CONNECTIONS_MAX];
    setpriority(PRIO_PROCESS, 0, 19);
    for (int t = 0; t < times; t++) {
        for (int i = 0; i < requests; i++) fd[i] = dial();
        usleep(50000); /* they are accepted, and quiet is back */
        *bursting = 1;
        for (int i = 0; i < requests; i++) ask(fd[i], "cold");
        for (int i = 0; i < requests; i++) answer(fd[i]);
        *bursting = 0;
        for (int i = 0; i < requests; i++) close(fd[i]);
        usleep(50000);
    }
}

static double took[2][SAMPLES_MAX];
static size_t count[2];

static void ping(int fd, double *next, int kind)
{
    while (now_ms() < *next) {
        struct timespec t = {.tv_nsec = 50000};
        nanosleep(&t, NULL);
    }
    double start = now_ms();
    ask(fd, "ping");
    answer(fd);
    double end = now_ms();
    if (count[kind] < SAMPLES_MAX) took[kind][count[kind]++] = end - start;
    *next = end > *next + 1 ? end : *next + 1;
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static double at(int kind, double share)
{
    size_t n = count[kind];
    return n ? took[kind][(size_t)((double)(n - 1) * share)] : 0;
}

int main(int argc, char **argv)
{
    int requests = 200, bursts = 5, status = 0;
    for (int o; (o = getopt(argc, argv, "p:c:n:")) != -1;) {
        if (o == 'p') port = atoi(optarg);
        else if (o == 'c') requests = atoi(optarg);
        else if (o == 'n') bursts = atoi(optarg);
        else return 2;
    }
    if (port <= 0 || requests <= 0 || requests > CONNECTIONS_MAX || bursts <= 0) return 2;
    volatile int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bursting = shared, failed = shared + 16;
    int fd = dial();
    double next = now_ms();
    for (int i = 0; i < CALM; i++) ping(fd, &next, 0);
    pid_t child = fork();
    if (child == 0) {
        close(fd);
        burst(requests, bursts);
        _exit(0);
    }
    while (waitpid(child, &status, WNOHANG) == 0) {
        int before = *bursting;
        ping(fd, &next, before ? 1 : 0);
        if (!before && *bursting && count[0] > 0) took[1][count[1]++] = took[0][--count[0]]; /* the one it began beside */
    }
    for (int k = 0; k < 2; k++) qsort(took[k], count[k], sizeof took[k][0], by_size);
    printf("{\"pings\":%zu,\"errors\":%d,\"calm_p50\":%.3f,\"calm_p99\":%.3f,\"calm_worst\":%.3f,\"p50\":%.3f,\"p99\":%.3f,\"worst\":%.3f}\n", count[1],
           *failed, at(0, .5), at(0, .99), at(0, 1), at(1, .5), at(1, .99), at(1, 1));
    return status ? 1 : 0;
}
