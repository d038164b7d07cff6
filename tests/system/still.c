/* still: while the file STILL_FILE is there, no thread but the first comes out of its wait for events. To be preloaded. */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int epoll_wait(int fd, struct epoll_event *events, int n, int ms)
{
    static int (*real)(int, struct epoll_event *, int, int);
    if (!real) real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    int rc = real(fd, events, n, ms);
    if (syscall(SYS_gettid) != getpid())
        while (access(getenv("STILL_FILE"), F_OK) == 0) usleep(10000);
    return rc;
}
