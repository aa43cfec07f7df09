/* A shim of the system calls of a TCP socket, to be preloaded: calls fail, are cut short or come too early, at random.
 *
 * WSFAST_FAULTS is a seed. What it does loses nothing: EAGAIN, EINTR, ENOBUFS, and a part of what was asked for. By
 * `faulty_arm` one more fault is ordered: the n-th call of a kind from then on fails with an error; and by `faulty_accept`
 * so many calls of accept.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

static unsigned seed;
static int active = -1;
static int armed_kind = -1, armed_count, armed_errno; /* 0 recv, 1 send */
static int accepts, accept_errno;
static long faults;
static int kinds = 4;

void faulty_arm(int kind, int count, int number) { armed_kind = kind; armed_count = count; armed_errno = number; }
void faulty_accept(int count, int number) { accepts = count; accept_errno = number; }
long faulty_count(void) { return faults; }

static unsigned next(void)
{
    seed = seed * 1103515245 + 12345;
    return seed >> 16 & 0x7fff;
}

/* Whether the call is to be bothered: only that of a stream socket of the Internet, the loop has others of its own. */
static int concerned(int fd)
{
    int domain = 0;
    socklen_t size = sizeof domain;
    int kept = errno, got;
    if (active < 0) {
        const char *given = getenv("WSFAST_FAULTS");
        active = given != NULL;
        seed = given == NULL ? 0 : (unsigned)atoi(given);
        if (getenv("WSFAST_NO_ENOBUFS") != NULL)
            kinds = 3; /* trio takes it for the end of a connection */
    }
    got = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    errno = kept;
    return got == 0 && domain == AF_INET;
}

/* Return 0 if the call is to fail, else how much of n it may do. */
static size_t fate(int kind, size_t n)
{
    static const int benign[] = {EAGAIN, EINTR, EAGAIN, ENOBUFS};
    if (armed_kind == kind && --armed_count == 0) {
        armed_kind = -1;
        errno = armed_errno;
        faults++;
        return 0;
    }
    if (!active || n == 0)
        return n;
    switch (next() % 6) {
    case 0:
        errno = benign[next() % kinds];
        faults++;
        return 0;
    case 1:
        faults++;
        return 1;
    case 2:
        faults++;
        return 1 + next() % n;
    }
    return n;
}

ssize_t recv(int fd, void *data, size_t n, int flags)
{
    static ssize_t (*real)(int, void *, size_t, int);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "recv");
    if (!(flags & MSG_PEEK) && concerned(fd) && (n = fate(0, n)) == 0)
        return -1;
    return real(fd, data, n, flags);
}

ssize_t send(int fd, const void *data, size_t n, int flags)
{
    static ssize_t (*real)(int, const void *, size_t, int);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "send");
    if (concerned(fd) && (n = fate(1, n)) == 0)
        return -1;
    return real(fd, data, n, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    struct msghdr less = *message;
    struct iovec parts[256];
    size_t n = 0, left, i;
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "sendmsg");
    if (!concerned(fd) || message->msg_iovlen > 256)
        return real(fd, message, flags);
    for (i = 0; i < message->msg_iovlen; i++) {
        parts[i] = message->msg_iov[i];
        n += parts[i].iov_len;
    }
    if ((left = fate(1, n)) == 0)
        return -1;
    less.msg_iov = parts;
    for (i = 0; i < less.msg_iovlen; i++) {
        if (parts[i].iov_len >= left) {
            parts[i].iov_len = left;
            less.msg_iovlen = i + 1;
        }
        left -= parts[i].iov_len;
    }
    return real(fd, &less, flags);
}

static int refuse_accept(int fd)
{
    if (accepts > 0 && concerned(fd)) {
        accepts--;
        errno = accept_errno;
        return 1;
    }
    return 0;
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "accept4");
    return refuse_accept(fd) ? -1 : real(fd, address, size, flags);
}

int accept(int fd, struct sockaddr *address, socklen_t *size)
{
    static int (*real)(int, struct sockaddr *, socklen_t *);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "accept");
    return refuse_accept(fd) ? -1 : real(fd, address, size);
}
