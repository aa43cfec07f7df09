/* The system calls of `_socket.pyx`. None of them waits, and none raises SIGPIPE. */

#ifndef WSFAST_SOCKET_H
#define WSFAST_SOCKET_H

#include <string.h>

#ifdef _WIN32
/* The transport is not used there (`sockets.py`); this is for it to compile. */
typedef struct { void *iov_base; size_t iov_len; } wsf_part;
typedef struct { int family; } wsf_address;
static inline Py_ssize_t wsf_recv(int fd, char *data, Py_ssize_t n) { return -1; }
static inline Py_ssize_t wsf_send(int fd, const char *data, Py_ssize_t n, int last) { return -1; }
static inline Py_ssize_t wsf_sendv(int fd, wsf_part *parts, int count) { return -1; }
static inline int wsf_nothing_unread(int fd) { return 0; }
static inline int wsf_accept(int fd, wsf_address *peer) { return -1; }
static inline void wsf_peer(int fd, wsf_address *peer) { peer->family = 0; }
static inline void wsf_local(int fd, wsf_address *local) { local->family = 0; }
static inline int wsf_text(const wsf_address *peer, char *text, int *port, unsigned *flow, unsigned *scope) { return 0; }
static inline int wsf_has_text(const wsf_address *peer) { return 0; }
static inline long wsf_unacknowledged(int fd) { return 0; }
static inline int wsf_end_sending(int fd) { return -1; }
static inline void wsf_close(int fd) { }
static inline int wsf_again(int number) { return 0; }
static inline int wsf_later(int number) { return 0; }
static inline int wsf_nobody(int number) { return 0; }
#else
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef MSG_MORE
#define MSG_MORE 0
#endif

typedef struct iovec wsf_part;

/* What is kept of an address: that of the Internet; of others only the family. */
typedef union {
    struct sockaddr any;  /* its `sa_family` comes first on Linux, and behind a length on BSD and macOS */
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} wsf_address_of_family;
typedef struct { wsf_address_of_family at; } wsf_address;  /* of at most 32 bytes, see `_socket.pxd` */

static inline Py_ssize_t wsf_recv(int fd, char *data, Py_ssize_t n)
{
    Py_ssize_t got;
    do {
        got = recv(fd, data, (size_t)n, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* Some systems refuse more than an int holds at once, in one piece or in all, instead of taking a part of it. */
enum { WSF_MOST_SENT = 1 << 30 };

/* `last`: the socket is closed right afterwards, and the FIN goes in the same segment. */
static inline Py_ssize_t wsf_send(int fd, const char *data, Py_ssize_t n, int last)
{
    Py_ssize_t sent;
    do {
        sent = send(fd, data, n < WSF_MOST_SENT ? (size_t)n : WSF_MOST_SENT, MSG_NOSIGNAL | MSG_DONTWAIT | (last ? MSG_MORE : 0));
    } while (sent < 0 && errno == EINTR);
    return sent;
}

static inline Py_ssize_t wsf_sendv(int fd, wsf_part *parts, int count)
{
    struct msghdr message;
    Py_ssize_t sent;
    size_t left = WSF_MOST_SENT;
    int i;
    for (i = 0; i < count; i++) {
        if (parts[i].iov_len >= left) {
            parts[i].iov_len = left;
            count = i + 1;
        }
        left -= parts[i].iov_len;
    }
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = count;
    do {
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

static inline int wsf_nothing_unread(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

static inline int wsf_again(int number) { return number == EAGAIN || number == EWOULDBLOCK; }

/* Whether the call may be tried again later: nothing is there, there is no room, or the system is short of memory. */
static inline int wsf_later(int number) { return wsf_again(number) || number == ENOBUFS || number == ENOMEM; }

/* Whether `accept` failed because of the one connection, which has ended by now; accept(2) has the list. */
static inline int wsf_nobody(int number)
{
    switch (number) {
    case ECONNABORTED: case EINTR: case EPERM: case ENETDOWN: case EPROTO: case ENOPROTOOPT: case EHOSTDOWN:
    case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case ETIMEDOUT:
#ifdef ENONET
    case ENONET:
#endif
        return 1;
    }
    return 0;
}

static inline int wsf_accept(int fd, wsf_address *peer)
{
    socklen_t length = sizeof peer->at;
    int got;
    memset(peer, 0, sizeof *peer);
#ifdef __linux__
    got = accept4(fd, (struct sockaddr *)&peer->at, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    got = accept(fd, (struct sockaddr *)&peer->at, &length);
    if (got >= 0) {
        fcntl(got, F_SETFL, fcntl(got, F_GETFL) | O_NONBLOCK);
        fcntl(got, F_SETFD, FD_CLOEXEC);
    }
#endif
    return got;
}

static inline void wsf_peer(int fd, wsf_address *peer)
{
    socklen_t length = sizeof peer->at;
    memset(peer, 0, sizeof *peer);
    if (getpeername(fd, (struct sockaddr *)&peer->at, &length) < 0)
        peer->at.any.sa_family = AF_UNSPEC;
}

static inline void wsf_local(int fd, wsf_address *local)
{
    socklen_t length = sizeof local->at;
    memset(local, 0, sizeof *local);
    if (getsockname(fd, (struct sockaddr *)&local->at, &length) < 0)
        local->at.any.sa_family = AF_UNSPEC;
}

/* Whether `wsf_text` can write an address: one of the Internet, without a scope, whose name Python writes behind it. */
static inline int wsf_has_text(const wsf_address *peer)
{
    sa_family_t family = peer->at.any.sa_family;
    return family == AF_INET || (family == AF_INET6 && peer->at.v6.sin6_scope_id == 0);
}

/* Write an address as text, of up to 46 characters; return 4 or 6, or 0 where it has none. */
static inline int wsf_text(const wsf_address *peer, char *text, int *port, unsigned *flow, unsigned *scope)
{
    if (peer->at.any.sa_family == AF_INET) {
        *port = ntohs(peer->at.v4.sin_port);
        return inet_ntop(AF_INET, &peer->at.v4.sin_addr, text, INET6_ADDRSTRLEN) == NULL ? 0 : 4;
    }
    if (peer->at.any.sa_family == AF_INET6) {
        *port = ntohs(peer->at.v6.sin6_port);
        *flow = ntohl(peer->at.v6.sin6_flowinfo);
        *scope = peer->at.v6.sin6_scope_id;
        if (*scope != 0)
            return 0;
        return inet_ntop(AF_INET6, &peer->at.v6.sin6_addr, text, INET6_ADDRSTRLEN) == NULL ? 0 : 6;
    }
    return 0;
}

/* Bytes that the operating system holds and the peer's has not acknowledged; 0 if it does not tell. */
static inline long wsf_unacknowledged(int fd)
{
#ifdef SIOCOUTQ
    int waiting = 0;
    return ioctl(fd, SIOCOUTQ, &waiting) < 0 ? 0 : waiting;
#else
    return 0;
#endif
}

static inline int wsf_end_sending(int fd) { return shutdown(fd, SHUT_WR); }
static inline void wsf_close(int fd) { close(fd); }
#endif

#endif
