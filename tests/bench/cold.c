/* cold: what many requests at once that all need a new TLS connection do to one that needs none.
 *
 *   cold -p PORT -c REQUESTS -n BURSTS [-k CPU] [-m PID]
 *
 * One process (this one) sends a small request each millisecond over one keep-alive connection and notes how long each
 * answer took. It and the upstream that answers it (PID) stand for other machines, so they do not wait for a CPU where the
 * system permits that (SCHED_FIFO). Another process, of the lowest priority, opens REQUESTS connections and then sends a request
 * for the model "cold" on each of them, as fast as it can, BURSTS times.
 *
 * Three times are told apart: calm, before and between the bursts; bursts; and control, after each: nothing is cold, but for as
 * long as the burst took the CPUs are as busy, this one and CPU (the proxy's), with strangers' threads of the priority of the
 * proxy's handshakes. What control shows the machine does, not the proxy.
 * Prints one line of JSON, in milliseconds.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
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
enum { CALM_PINGS, BURST_PINGS, CONTROL_PINGS, KINDS };
#define BOUND_MS 5.0

static int port;
static volatile int *go, *bursting, *failed; /* shared by the two */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static bool set_policy(pid_t pid, int policy, int priority)
{
    struct sched_param p = {.sched_priority = priority};
    return sched_setscheduler(pid, policy, &p) == 0;
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

/* One burst each time it is told to go. */
static void burst(int requests, int times)
{
    static int fd[CONNECTIONS_MAX];
    setpriority(PRIO_PROCESS, 0, 19);
    for (int t = 0; t < times; t++) {
        while (!*go) usleep(500);
        for (int i = 0; i < requests; i++) fd[i] = dial();
        usleep(50000); /* they are accepted, and quiet is back */
        *bursting = 1;
        for (int i = 0; i < requests; i++) ask(fd[i], "cold");
        for (int i = 0; i < requests; i++) answer(fd[i]);
        *bursting = 0;
        for (int i = 0; i < requests; i++) close(fd[i]);
        usleep(50000);
        *go = 0;
    }
}

static double took[KINDS][SAMPLES_MAX];
static size_t count[KINDS];

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

static int over(int kind)
{
    int n = 0;
    for (size_t i = 0; i < count[kind]; i++) n += took[kind][i] > BOUND_MS;
    return n;
}

static pid_t busy_child(int cpu)
{
    pid_t child = fork();
    if (child != 0) return child;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    set_policy(0, SCHED_BATCH, 0);
    setpriority(PRIO_PROCESS, 0, 19);
    sched_setaffinity(0, sizeof one, &one);
    for (;;) continue;
}

/* The load of the bursts without them: the same pings, for `ms`. */
static void control(int fd, double *next, double ms, int cpu)
{
    pid_t busy[2] = {busy_child(sched_getcpu()), busy_child(cpu)};
    double end = now_ms() + ms;
    while (now_ms() < end) ping(fd, next, CONTROL_PINGS);
    for (int i = 0; i < 2; i++) {
        kill(busy[i], SIGKILL);
        waitpid(busy[i], NULL, 0);
    }
}

static void print_kind(const char *name, int kind)
{
    printf("\"%s\":{\"pings\":%zu,\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"worst\":%.3f,\"over\":%d},", name, count[kind], at(kind, .5), at(kind, .99),
           at(kind, .999), at(kind, 1), over(kind));
}

int main(int argc, char **argv)
{
    int requests = 200, bursts = 5, status = 0, cpu = -1;
    pid_t upstream = 0;
    for (int o; (o = getopt(argc, argv, "p:c:n:k:m:")) != -1;) {
        if (o == 'p') port = atoi(optarg);
        else if (o == 'c') requests = atoi(optarg);
        else if (o == 'n') bursts = atoi(optarg);
        else if (o == 'k') cpu = atoi(optarg);
        else if (o == 'm') upstream = atoi(optarg);
        else return 2;
    }
    if (port <= 0 || requests <= 0 || requests > CONNECTIONS_MAX || bursts <= 0) return 2;
    volatile int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bursting = shared, failed = shared + 16, go = shared + 32;
    int fd = dial();
    pid_t child = fork();
    if (child == 0) {
        close(fd);
        burst(requests, bursts);
        _exit(0);
    }
    bool ahead = set_policy(0, SCHED_FIFO, 1) && (!upstream || set_policy(upstream, SCHED_FIFO, 1));
    double next = now_ms();
    for (int i = 0; i < CALM; i++) ping(fd, &next, CALM_PINGS);
    for (int t = 0; t < bursts; t++) {
        double ms = 0;
        for (*go = 1; *go && waitpid(child, &status, WNOHANG) == 0;) {
            double start = now_ms();
            int before = *bursting;
            ping(fd, &next, before ? BURST_PINGS : CALM_PINGS);
            if (before) ms += now_ms() - start;
            if (!before && *bursting) took[BURST_PINGS][count[BURST_PINGS]++] = took[CALM_PINGS][--count[CALM_PINGS]]; /* the one it began beside */
        }
        if (cpu >= 0) control(fd, &next, ms, cpu);
    }
    kill(child, SIGKILL); /* it has nothing more to do */
    waitpid(child, NULL, 0);
    if (upstream) set_policy(upstream, SCHED_OTHER, 0);
    for (int k = 0; k < KINDS; k++) qsort(took[k], count[k], sizeof took[k][0], by_size);
    printf("{");
    print_kind("calm", CALM_PINGS);
    print_kind("bursts", BURST_PINGS);
    if (cpu >= 0) print_kind("control", CONTROL_PINGS);
    printf("\"errors\":%d,\"ahead\":%s}\n", *failed, ahead ? "true" : "false");
    return status ? 1 : 0;
}
