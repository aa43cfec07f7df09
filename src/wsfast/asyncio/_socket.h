/* Sending on a socket beside the transport that owns it. */

#ifndef WSFAST_SOCKET_H
#define WSFAST_SOCKET_H

#include <string.h>

#ifdef _WIN32
static inline Py_ssize_t wsf_send(int fd, const char *data, Py_ssize_t n, int last) { return -1; }
static inline Py_ssize_t wsf_send2(int fd, const char *head, Py_ssize_t n, const char *data, Py_ssize_t m) { return -1; }
static inline int wsf_nothing_unread(int fd) { return 0; }
#else
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <errno.h>
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef MSG_MORE
#define MSG_MORE 0
#endif
/* `last`: the socket is closed right afterwards, and the FIN goes in the same segment. */
static inline Py_ssize_t wsf_send(int fd, const char *data, Py_ssize_t n, int last)
{
    return send(fd, data, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT | (last ? MSG_MORE : 0));
}
static inline Py_ssize_t wsf_send2(int fd, const char *head, Py_ssize_t n, const char *data, Py_ssize_t m)
{
    struct iovec parts[2] = {{(void *)head, (size_t)n}, {(void *)data, (size_t)m}};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}
static inline int wsf_nothing_unread(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}
#endif

#endif
