/* One epoll(7) below the one of an event loop, for `_poller.pxi`. Where the system has none, `wsf_poller` returns -1. */

#ifndef WSFAST_POLLER_H
#define WSFAST_POLLER_H

enum { WSF_BATCH = 256 };  /* descriptors that are asked for at a time */

#ifdef __linux__
#include <errno.h>
#include <sys/epoll.h>

static inline int wsf_poller(void) { return epoll_create1(EPOLL_CLOEXEC); }

static inline int wsf_poll(int poller, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static inline void wsf_poll_no_more(int poller, int fd)
{
    struct epoll_event unused = {0};  /* not looked at, but old kernels want one */
    epoll_ctl(poller, EPOLL_CTL_DEL, fd, &unused);
}

/* Write the descriptors that have something to read, an end or an error; return how many. */
static inline int wsf_polled(int poller, int fds[WSF_BATCH])
{
    struct epoll_event events[WSF_BATCH];
    int i, n;
    do {
        n = epoll_wait(poller, events, WSF_BATCH, 0);
    } while (n < 0 && errno == EINTR);
    for (i = 0; i < n; i++)
        fds[i] = events[i].data.fd;
    return n;
}
#else
static inline int wsf_poller(void) { return -1; }
static inline int wsf_poll(int poller, int fd) { return -1; }
static inline void wsf_poll_no_more(int poller, int fd) { }
static inline int wsf_polled(int poller, int fds[WSF_BATCH]) { return 0; }
#endif

#endif
