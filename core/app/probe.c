#include "app/probe.h"

#include "base/conf_tree.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TREE_CAP (64u << 20)
#define ANSWER_BYTES 1024u

/* ---- where ------------------------------------------------------------------------------------------------------------------------- */

/* The port of a section, its default where none is given; false: what is given is no port. */
static bool find_port(const struct claw_conf_node *section, uint16_t fallback, uint16_t *out)
{
    const struct claw_conf_node *n = claw_conf_get(section, "listen_port");
    *out = fallback;
    if (!n || n->type == CLAW_CONF_NULL) return true;
    if ((n->type != CLAW_CONF_NUMBER && n->type != CLAW_CONF_STRING) || !n->text.len) return false;
    char *end;
    unsigned long v = strtoul(n->text.ptr, &end, 10); /* NUL behind it */
    if (*end || n->text.ptr[0] == '-' || v > 65535) return false;
    *out = (uint16_t)v;
    return true;
}

static bool find_address(const struct claw_conf_node *section, const char *fallback, struct claw_probe *p)
{
    const struct claw_conf_node *n = claw_conf_get(section, "listen_address");
    const char *s = n && n->type == CLAW_CONF_STRING ? n->text.ptr : fallback;
    unsigned char ip[16];
    if (strcmp(s, "localhost") == 0 || strcmp(s, "0.0.0.0") == 0) s = "127.0.0.1";
    if (strcmp(s, "::") == 0) s = "::1";
    bool ok = inet_pton(strchr(s, ':') ? AF_INET6 : AF_INET, s, ip) == 1;
    if (ok) snprintf(p->address, sizeof p->address, "%s", s);
    return ok;
}

static void find(const struct claw_conf_node *root, struct claw_probe *p)
{
    const struct claw_conf_node *admin = claw_conf_get(root, "admin"), *server = claw_conf_get(root, "server");
    if (!find_port(admin, 9090, &p->port) || !find_address(admin, "127.0.0.1", p)) {
        snprintf(p->doubt, sizeof p->doubt, "admin.listen_address and admin.listen_port are not both known here");
        snprintf(p->address, sizeof p->address, "127.0.0.1");
        p->port = 9090;
    } else if (p->port == 0) {
        p->connects = true;
        if (!find_port(server, 8080, &p->port) || !find_address(server, "0.0.0.0", p)) p->port = 0;
    }
}

static const char *variable(const char *name) { return getenv(name); }

void claw_probe_find(const char *config, struct claw_probe *p)
{
    struct claw_buf text;
    struct claw_arena arena;
    struct claw_conf_problems problems;
    struct claw_conf_report report;
    char *dir = strdup(config), *slash = dir ? strrchr(dir, '/') : NULL;
    memset(p, 0, sizeof *p);
    if (slash) slash[slash == dir] = '\0';
    claw_buf_init(&text, CLAW_CONF_BYTES);
    claw_arena_init(&arena, NULL, 0, TREE_CAP);
    claw_conf_problems_init(&problems, &arena);
    claw_conf_report_init(&report, config, &problems);
    struct claw_conf_expand x = {.arena = &arena, .dir = slash ? dir : ".", .get_env = variable};
    const struct claw_conf_node *root = NULL;
    if (claw_buf_add_file(&text, config) != 0) snprintf(p->doubt, sizeof p->doubt, "cannot read %s: %s", config, strerror(errno));
    else if (!(root = claw_conf_tree_read(claw_buf_str(&text), &x, &report)))
        snprintf(p->doubt, sizeof p->doubt, "%s", problems.first ? problems.first->text : "out of memory");
    find(root, p); /* without a tree: the defaults */
    claw_buf_fini(&text);
    claw_arena_reset(&arena);
    free(dir);
}

/* ---- asking ------------------------------------------------------------------------------------------------------------------------ */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait until the socket can go on. 0, or an errno. */
static int await(int fd, short events, int64_t until)
{
    struct pollfd p = {fd, events, 0};
    for (;;) {
        int64_t left = until - now_ms();
        int rc = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (rc > 0) return 0;
        if (rc == 0) return ETIMEDOUT;
        if (errno != EINTR) return errno;
    }
}

static int reach(int fd, const struct claw_probe *p, int64_t until)
{
    union { struct sockaddr any; struct sockaddr_in four; struct sockaddr_in6 six; } to;
    socklen_t size = strchr(p->address, ':') ? sizeof to.six : sizeof to.four;
    memset(&to, 0, sizeof to);
    to.any.sa_family = size == sizeof to.six ? AF_INET6 : AF_INET;
    inet_pton(to.any.sa_family, p->address, size == sizeof to.six ? (void *)&to.six.sin6_addr : (void *)&to.four.sin_addr);
    if (size == sizeof to.six) to.six.sin6_port = htons(p->port);
    else to.four.sin_port = htons(p->port);
    if (connect(fd, &to.any, size) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    int why = await(fd, POLLOUT, until);
    socklen_t n = sizeof why;
    if (why == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n) != 0) why = errno;
    return why;
}

/* The whole answer, as far as there is room, in `answer` as a text. 0, or an errno. */
static int converse(int fd, const char *page, int64_t until, char answer[ANSWER_BYTES])
{
    char ask[256];
    size_t n = 0;
    int len = snprintf(ask, sizeof ask, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", page);
    if (send(fd, ask, (size_t)len, MSG_NOSIGNAL) != len) return errno; /* a new socket takes so much at once */
    for (;;) {
        int why = await(fd, POLLIN, until);
        if (why) return why;
        ssize_t got = recv(fd, answer + n, ANSWER_BYTES - 1 - n, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (got < 0) return errno;
        n += (size_t)got;
        answer[n] = '\0';
        if (got == 0 || n == ANSWER_BYTES - 1) return 0;
    }
}

int claw_probe_ask(const struct claw_probe *p, const char *page, unsigned ms, char *said, size_t said_size)
{
    int64_t until = now_ms() + ms;
    char answer[ANSWER_BYTES] = "";
    int six = strchr(p->address, ':') != NULL;
    if (p->port == 0) {
        snprintf(said, said_size, "the admin port is off, and server does not say which port it listens on");
        return CLAW_EIO;
    }
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int why = fd < 0 ? errno : reach(fd, p, until);
    if (why == 0 && !p->connects) why = converse(fd, page, until, answer);
    if (fd >= 0) close(fd);
    const char *open = six ? "[" : "", *close_ = six ? "]" : "", *body = strstr(answer, "\r\n\r\n");
    if (why) {
        snprintf(said, said_size, "%s%s%s:%u%s: %s", open, p->address, close_, p->port, p->connects ? "" : page, strerror(why));
        return CLAW_EIO;
    }
    if (p->connects) {
        snprintf(said, said_size, "%s%s%s:%u takes connections (the admin port is off)", open, p->address, close_, p->port);
        return 0;
    }
    int status = 0;
    bool ok = sscanf(answer, "HTTP/1.1 %d", &status) == 1 && status == 200;
    body = body ? body + 4 : "no HTTP answer";
    snprintf(said, said_size, "%.*s", (int)strcspn(body, "\r\n"), body);
    return ok ? 0 : CLAW_EIO;
}

int claw_probe_run(const char *config, const char *page)
{
    struct claw_probe p;
    char said[256];
    claw_probe_find(config, &p);
    int rc = claw_probe_ask(&p, page, CLAW_PROBE_MS, said, sizeof said);
    if (rc == 0) puts(said);
    else fprintf(stderr, "openclaw-proxy: %s\n", said);
    if (rc != 0 && p.doubt[0]) fprintf(stderr, "openclaw-proxy: asked where it is by default: %s\n", p.doubt);
    return rc == 0 && fflush(stdout) == 0 ? 0 : 1;
}
