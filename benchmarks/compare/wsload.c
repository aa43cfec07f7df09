/* wsload: load at C speed for WebSocket servers and clients, over TCP or TLS 1.3, on Linux.
 *
 * wsload -m MODE -p PORT [options]; prints one line of JSON; anything wrong is a line on stderr and exit code 1.
 *
 *   echo       each of -c connections keeps -k messages of -s bytes in flight: one write carries the whole window, and
 *              the next is sent when every message has come back. Frames are parsed, contents compared.
 *   raw        the same bytes without WebSocket: the ceiling that a plain echo of the event loop sets
 *   connect    connect, upgrade, one echo, close handshake, end of stream; -c at a time, over and over
 *   rawconnect connect, echo one message's bytes, end of stream
 *   idle       memory of process -P per open connection (-e: after one echo each); rawidle: without WebSocket
 *   broadcast  connection 0 sends -k messages at once, the server sends each to every connection, connection 0 included;
 *              or to -r connections, whichever they are
 *   check      no timing: is what comes back what was sent, over sizes, kinds, bursts; fragments, bad UTF-8
 *   serve      an echo server for measuring clients: they connect to /?pid=THEIR_PID and keep one message of -s bytes
 *              in flight
 *   cert       writes cert.pem and key.pem (P-256, localhost and 127.0.0.1) to the directory -C
 *
 * Options: -c connections -s bytes -k messages in flight -d seconds -w seconds of warming up -P pid to measure
 *   -r connections that a broadcast message reaches (all)
 *   -t binary|ascii|latin|bmp|emoji (what text is made of) -T (TLS 1.3) -V (compare every byte of messages over 4 KiB
 *   too, not only of the first window) -B (send a browser's headers) -e
 * Build: cc -O2 wsload.c -o wsload, with TLS: cc -O2 -DWSLOAD_TLS wsload.c -o wsload -lssl -lcrypto
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WSLOAD_TLS
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

#define STALL 15.0 /* seconds without progress that count as a failure */

static int port, conns = 1, pipeline = 1, reached, pid, tls, verify_all, browser, echo_first;
static long size = 64;
static double secs = 1, warm = 0.3;
static const char *mode = "echo", *kind = "binary", *dir = ".";

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    fputs("wsload: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static void *need(void *p) {
    if (!p) die("out of memory");
    return p;
}

/* ---- time, CPU, memory ---- */

static double clock_s(clockid_t id) {
    struct timespec t;
    return clock_gettime(id, &t) ? 0 : t.tv_sec + t.tv_nsec * 1e-9;
}
static double now(void) { return clock_s(CLOCK_MONOTONIC); }

/* User and system time of the whole process, its helper threads included, in nanoseconds rather than ticks. */
static double proc_cpu(int p) {
    clockid_t id;
    return p > 0 && clock_getcpuclockid(p, &id) == 0 ? clock_s(id) : 0;
}

static long proc_rss_kb(int p) {
    char path[64], line[256];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", p);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
    fclose(f);
    return kb;
}

/* ---- latencies: 32 steps to each power of two: any quantile is right to 3 %, however many there are ---- */

static uint64_t hist[64 * 64], hist_n;

static void hist_add(double s) {
    uint64_t ns = s > 0 ? (uint64_t)(s * 1e9) : 0;
    int e = ns < 64 ? 0 : 63 - __builtin_clzll(ns) - 5;
    hist[e * 64 + (ns >> e)]++; /* ns >> e is below 64 for e = 0 and in 32..63 beyond */
    hist_n++;
}
static void hist_clear(void) { memset(hist, 0, sizeof hist), hist_n = 0; }
static double hist_us(double q) {
    uint64_t seen = 0;
    for (int i = 0; i < 64 * 64; i++)
        if ((seen += hist[i]) && seen >= q * hist_n) return ((uint64_t)(i % 64) << (i / 64)) * 1e-3;
    return 0;
}

/* ---- random numbers (the same in every run) and payloads ---- */

static uint64_t seed = 0x9E3779B97F4A7C15u;
static uint64_t rnd(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

static int is_text(const char *k) { return strcmp(k, "binary") != 0; }

/* Fill p with n bytes: random ones, or whole characters of the kind asked for, ended by ASCII where none fits. */
static void fill(uint8_t *p, long n, const char *k) {
    const char *source = !strcmp(k, "ascii")   ? "The quick brown fox jumps over the lazy dog. "
                         : !strcmp(k, "latin") ? "Gr\u00fc\u00dfe aus K\u00f6ln, d\u00e9j\u00e0 vu \u00e0 la cr\u00e8me. "
                         : !strcmp(k, "bmp")   ? "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440. "
                                                 "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002"
                         : !strcmp(k, "emoji") ? "\u041f\u0440\u0438\u0432\u0435\u0442 \U0001F389 \u65e5\u672c \U0001F44B! "
                                               : NULL;
    if (!source) {
        if (is_text(k)) die("no such kind of text: %s", k);
        for (long i = 0; i < n; i++) p[i] = (uint8_t)(rnd() >> 32);
        return;
    }
    long length = strlen(source), at = 0, i = 0;
    for (long skip = rnd() % 8; skip--;) /* so that messages differ */
        do at++;
        while ((source[at] & 0xC0) == 0x80);
    while (i < n) {
        long w = 1;
        while (at + w < length && (source[at + w] & 0xC0) == 0x80) w++;
        if (i + w > n) {
            p[i++] = 'x';
            continue;
        }
        memcpy(p + i, source + at, w);
        i += w, at = (at + w) % length;
    }
}

/* ---- frames ---- */

static int put_header(uint8_t *h, int fin, int op, uint64_t n, int masked) {
    int k = 0, m = masked ? 0x80 : 0;
    h[k++] = (fin ? 0x80 : 0) | op;
    if (n < 126) h[k++] = m | n;
    else if (n < 65536) h[k++] = m | 126, h[k++] = n >> 8, h[k++] = n;
    else {
        h[k++] = m | 127;
        for (int i = 7; i >= 0; i--) h[k++] = n >> (8 * i);
    }
    return k;
}

static void mask_bytes(uint8_t *p, long n, const uint8_t key[4], unsigned at) {
    uint8_t turned[8];
    for (int i = 0; i < 8; i++) turned[i] = key[(at + i) & 3];
    uint64_t word, wide;
    memcpy(&wide, turned, 8);
    long i = 0;
    for (; i + 8 <= n; i += 8) memcpy(&word, p + i, 8), word ^= wide, memcpy(p + i, &word, 8);
    for (; i < n; i++) p[i] ^= turned[i & 7];
}

/* One masked frame to out (room for n + 14); returns its length. */
static long put_frame(uint8_t *out, int fin, int op, const uint8_t *payload, long n) {
    int k = put_header(out, fin, op, n, 1);
    uint32_t key = (uint32_t)rnd();
    memcpy(out + k, &key, 4);
    memcpy(out + k + 4, payload, n);
    mask_bytes(out + k + 4, n, out + k, 0);
    return k + 4 + n;
}

/* ---- connections ---- */

typedef struct {
    int fd, out_wanted, in_payload, header_n, op, fin, message_op, control_n, pong_n, awaited, open;
    uint8_t header[10], control[125], pong[125];
    uint64_t left, message_n, raw_got;
    long sent, windows;
    double t0;
#ifdef WSLOAD_TLS
    SSL *ssl;
#endif
} conn;

static uint8_t *payload, *window, *rbuf;
static long window_n;
static const long RBUF = 1 << 20;
#ifdef WSLOAD_TLS
static SSL_CTX *ctx;
#endif

static ssize_t io_read(conn *c, void *p, size_t n) {
#ifdef WSLOAD_TLS
    if (c->ssl) {
        size_t got;
        ERR_clear_error();
        int r = SSL_read_ex(c->ssl, p, n, &got);
        if (r == 1) return got;
        switch (SSL_get_error(c->ssl, r)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
        case SSL_ERROR_ZERO_RETURN: return 0;
        case SSL_ERROR_SSL: /* an end of the stream without close_notify is an end all the same */
            if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return 0;
            die("TLS: %s", ERR_reason_error_string(ERR_peek_error()));
        default: return errno ? -1 : 0;
        }
    }
#endif
    return read(c->fd, p, n);
}

static ssize_t io_write(conn *c, const void *p, size_t n) {
#ifdef WSLOAD_TLS
    if (c->ssl) {
        size_t put;
        ERR_clear_error();
        int r = SSL_write_ex(c->ssl, p, n, &put);
        if (r == 1) return put;
        int e = SSL_get_error(c->ssl, r);
        if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
            errno = EAGAIN;
            return -1;
        }
        if (e == SSL_ERROR_SSL) die("TLS: %s", ERR_reason_error_string(ERR_peek_error()));
        return -1;
    }
#endif
    return write(c->fd, p, n);
}

static void write_all(conn *c, const void *p, size_t n) {
    while (n) {
        ssize_t w = io_write(c, p, n);
        if (w <= 0) die("write: %s", strerror(errno));
        p = (const char *)p + w, n -= w;
    }
}

static void read_exact(conn *c, void *p, size_t n) {
    while (n) {
        ssize_t r = io_read(c, p, n);
        if (r <= 0) die("read: %s", r ? strerror(errno) : "the server closed the connection");
        p = (char *)p + r, n -= r;
    }
}

/* Blocking, with a limit on every read and write, so that a server that hangs is a failure and not a wait. */
static void dial(conn *c) {
    static unsigned source;
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    int one = 1;
    struct timeval limit = {.tv_sec = (long)STALL};
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    /* From many source addresses: one has only 28,000 ports, and a closed connection keeps its port for a minute. */
    setsockopt(c->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    from.sin_addr.s_addr = htonl(0x7F000002u + source++ % 200), to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(c->fd, (void *)&from, sizeof from)) die("bind: %s", strerror(errno));
    if (connect(c->fd, (void *)&to, sizeof to)) die("connect: %s", strerror(errno));
#ifdef WSLOAD_TLS
    if (tls) {
        c->ssl = need(SSL_new(ctx));
        SSL_set_fd(c->ssl, c->fd);
        if (SSL_connect(c->ssl) != 1) die("TLS handshake: %s", ERR_reason_error_string(ERR_peek_error()));
    }
#endif
    c->open = 1;
}

static void hang_up(conn *c) {
#ifdef WSLOAD_TLS
    if (c->ssl) SSL_free(c->ssl);
    c->ssl = NULL;
#endif
    close(c->fd);
    c->open = 0;
}

static char request[2048];
static int request_n;

static void make_request(void) {
    const char *extra = "";
    if (browser) /* what Chrome 140 sends */
        extra = "Pragma: no-cache\r\nCache-Control: no-cache\r\n"
                "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
                "Safari/537.36\r\n"
                "Origin: http://127.0.0.1:8000\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
                "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7\r\n"
                "Cookie: session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0; theme=dark\r\n"
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    request_n = snprintf(request, sizeof request,
                         "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s"
                         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                         port, extra);
}

/* Read the response; nothing may follow it, since nothing was sent yet that asks for more. */
static void read_response(conn *c) {
    char b[4096];
    int n = 0;
    while (n < 4 || memcmp(b + n - 4, "\r\n\r\n", 4)) {
        if (n >= (int)sizeof b) die("handshake: no end of the response in 4 KiB: %.*s", n, b);
        ssize_t r = io_read(c, b + n, sizeof b - n);
        if (r <= 0) die("handshake: %s after: %.*s", r ? strerror(errno) : "closed", n, b);
        n += r;
    }
    if (strncmp(b, "HTTP/1.1 101", 12)) die("handshake refused: %.*s", n, b);
    if (!memmem(b, n, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28)) die("wrong Sec-WebSocket-Accept: %.*s", n, b);
}

static int raw_mode(void) { return !strncmp(mode, "raw", 3); }

static void upgrade(conn *c) {
    if (raw_mode()) return;
    write_all(c, request, request_n);
    read_response(c);
}

static void build(void) {
    payload = need(malloc(size + 1)), window = need(malloc((size + 14) * pipeline)), rbuf = need(malloc(RBUF));
    fill(payload, size, kind);
    for (int i = 0; i < pipeline; i++) window_n += put_frame(window + window_n, 1, is_text(kind) ? 1 : 2, payload, size);
}

/* ---- receiving: parses what a server sends; anything but whole, unmasked, equal messages ends the run ---- */

static void fail_frame(conn *c, const char *what) {
    die("bad answer: %s (opcode %d, %llu bytes of the frame left, %llu of the message read)", what, c->op,
        (unsigned long long)c->left, (unsigned long long)c->message_n);
}

/* Returns the number of messages that ended in these n bytes. */
static int feed(conn *c, const uint8_t *p, long n) {
    int ended = 0;
    int compare = size <= 4096 || verify_all || c->windows == 0;
    while (n > 0) {
        if (!c->in_payload) {
            int h = c->header_n;
            int full = h < 2 ? 2 : 2 + (c->header[1] == 126 ? 2 : c->header[1] == 127 ? 8 : 0);
            if (h < full) {
                c->header[c->header_n++] = *p++, n--;
                if (c->header_n < 2) continue;
                full = 2 + (c->header[1] == 126 ? 2 : c->header[1] == 127 ? 8 : 0);
                if (c->header_n < full) continue;
            }
            c->op = c->header[0] & 15, c->fin = c->header[0] >> 7, c->header_n = 0, c->left = c->header[1] & 127;
            if (c->header[0] & 0x70) fail_frame(c, "a reserved bit is set");
            if (c->header[1] & 0x80) fail_frame(c, "a masked frame");
            if (full > 2) {
                c->left = 0;
                for (int i = 2; i < full; i++) c->left = c->left << 8 | c->header[i];
            }
            if (c->op < 3) {
                if (c->op == 0 ? !c->message_op : c->message_op) fail_frame(c, "fragments out of order");
                if (c->op) c->message_op = c->op, c->message_n = 0;
                if (c->message_op != (is_text(kind) ? 1 : 2)) fail_frame(c, "text for binary or the reverse");
                if (c->left > (uint64_t)size - c->message_n) fail_frame(c, "longer than what was sent");
            } else {
                if (c->op < 8 || c->op > 10) fail_frame(c, "unknown opcode");
                if (c->left > 125 || !c->fin) fail_frame(c, "bad control frame");
                c->control_n = 0;
            }
            c->in_payload = 1;
        }
        uint64_t take = c->left < (uint64_t)n ? c->left : (uint64_t)n;
        if (c->op < 3) {
            if (compare && memcmp(p, payload + c->message_n, take)) fail_frame(c, "contents differ");
            c->message_n += take;
        } else memcpy(c->control + c->control_n, p, take), c->control_n += take;
        p += take, n -= take, c->left -= take;
        if (c->left) return ended;
        c->in_payload = 0;
        if (c->op == 8) fail_frame(c, "the server sent a close frame");
        if (c->op == 9) memcpy(c->pong, c->control, c->control_n), c->pong_n = c->control_n + 1;
        if (c->op < 3 && c->fin) {
            if (c->message_n != (uint64_t)size) fail_frame(c, "shorter than what was sent");
            c->message_op = 0, ended++;
        }
    }
    return ended;
}

static int ep;

/* Write what is left of the window; a pong goes between windows, never into one. */
static void pump(conn *c, uint32_t index) {
    while (c->sent < window_n) {
        if (c->sent == 0 && c->pong_n) {
            uint8_t b[139];
            long k = put_frame(b, 1, 10, c->pong, c->pong_n - 1);
            c->pong_n = 0;
            write_all(c, b, k);
        }
        ssize_t w = io_write(c, window + c->sent, window_n - c->sent);
        if (w < 0) {
            if (errno == EAGAIN) break;
            die("write: %s", strerror(errno));
        }
        c->sent += w;
    }
    int wanted = c->sent < window_n;
    if (wanted != c->out_wanted) {
        struct epoll_event ev = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.u32 = index};
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
        c->out_wanted = wanted;
    }
}

static conn *open_all(int n) {
    conn *cs = need(calloc(n, sizeof *cs));
    for (int i = 0; i < n; i++) {
        dial(&cs[i]);
        upgrade(&cs[i]);
        fcntl(cs[i].fd, F_SETFL, O_NONBLOCK);
        struct epoll_event ev = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, cs[i].fd, &ev)) die("epoll: %s", strerror(errno));
    }
    return cs;
}

static void report(const char *unit, uint64_t messages, double elapsed, double cpu, double own) {
    printf("{\"mode\":\"%s\",\"conns\":%d,\"size\":%ld,\"pipeline\":%d,\"%s\":%.1f,\"mb_s\":%.2f,\"p50_us\":%.2f,"
           "\"p99_us\":%.2f,\"cpu_us\":%.4f,\"busy\":%.3f,\"load_busy\":%.3f,\"rss_kb\":%ld}\n",
           mode, conns, size, pipeline, unit, messages / elapsed, messages * (double)size / elapsed / 1e6, hist_us(0.5),
           hist_us(0.99), messages && pid ? cpu / messages * 1e6 : 0, cpu / elapsed, own / elapsed,
           pid ? proc_rss_kb(pid) : 0);
}

static void run_echo(void) {
    int broadcast = !strcmp(mode, "broadcast"), raw = raw_mode();
    long deliveries = (long)(reached ? reached : conns) * pipeline, waiting = deliveries;
    conn *cs = open_all(conns);
    if (broadcast) usleep(300000); /* a server may count a connection in only after it has answered the upgrade */
    struct epoll_event evs[256];
    uint64_t messages = 0;
    double start = now(), from = start, last = start, cpu = 0, own = 0;
    int counting = 0;
    for (int i = 0; i < conns; i++) {
        cs[i].awaited = pipeline, cs[i].t0 = start;
        if (!broadcast || i == 0) pump(&cs[i], i);
        else cs[i].sent = window_n;
    }
    for (;;) {
        double t = now();
        if (!counting && t - start >= warm) {
            counting = 1, messages = 0, from = t, cpu = proc_cpu(pid), own = clock_s(CLOCK_PROCESS_CPUTIME_ID);
            hist_clear();
        }
        if (counting && t - from >= secs && messages) break;
        if (t - last > STALL) die("no answer for %.0f s, %d messages awaited", STALL, cs[0].awaited);
        int n = epoll_wait(ep, evs, 256, 1000);
        for (int i = 0; i < n; i++) {
            conn *c = &cs[evs[i].data.u32];
            if (evs[i].events & EPOLLOUT) pump(c, evs[i].data.u32);
            if (!(evs[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
            for (;;) { /* TLS holds records back where epoll does not see them: read until it has none */
                ssize_t r = io_read(c, rbuf, RBUF);
                if (r < 0 && errno == EAGAIN) break;
                if (r <= 0) die("read: %s", r ? strerror(errno) : "the server closed the connection");
                int ended = 0;
                if (raw) {
                    if (c->windows == 0 && (c->raw_got + r > (uint64_t)window_n || memcmp(rbuf, window + c->raw_got, r)))
                        die("raw: contents differ");
                    if ((c->raw_got += r) >= (uint64_t)window_n) {
                        if (c->raw_got > (uint64_t)window_n) die("more came back than was sent");
                        ended = pipeline, c->raw_got = 0;
                    }
                } else ended = feed(c, rbuf, r);
                if (ended) {
                    if ((c->awaited -= ended) < 0 || (waiting -= ended) < 0 && broadcast)
                        die("more messages came back than were sent");
                    messages += ended;
                    if (broadcast ? waiting == 0 : c->awaited == 0) {
                        double e = now();
                        last = e;
                        c->windows++;
                        if (!broadcast) {
                            hist_add(e - c->t0);
                            c->awaited = pipeline, c->sent = 0, c->t0 = e;
                            pump(c, evs[i].data.u32);
                        } else {
                            hist_add(e - cs[0].t0);
                            waiting = deliveries;
                            for (int k = 0; k < conns; k++) cs[k].awaited = pipeline;
                            cs[0].sent = 0, cs[0].t0 = e;
                            pump(&cs[0], 0);
                        }
                    }
                }
                if (!tls) break;
            }
        }
    }
    double elapsed = now() - from;
    report("msgs_s", messages, elapsed, proc_cpu(pid) - cpu, clock_s(CLOCK_PROCESS_CPUTIME_ID) - own);
}

static void run_connect(void) {
    conn *cs = need(calloc(conns, sizeof *cs));
    uint8_t bye[8] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8}; /* close 1000, masked by a key of zeros */
    int raw = raw_mode(), counting = 0;
    double start = now(), from = start, cpu = 0, own = 0;
    uint64_t done = 0;
    for (;;) {
        double t = now();
        if (!counting && t - start >= warm) {
            counting = 1, done = 0, from = t, cpu = proc_cpu(pid), own = clock_s(CLOCK_PROCESS_CPUTIME_ID);
            hist_clear();
        }
        if (counting && t - from >= secs && done) break;
        for (int i = 0; i < conns; i++) {
            double begin = now();
            dial(&cs[i]);
            cs[i].t0 = begin;
            if (!raw) write_all(&cs[i], request, request_n);
        }
        for (int i = 0; i < conns; i++) {
            if (!raw) read_response(&cs[i]);
            hist_add(now() - cs[i].t0);
            write_all(&cs[i], window, window_n);
        }
        for (int i = 0; i < conns; i++) {
            if (raw) {
                read_exact(&cs[i], rbuf, window_n);
                shutdown(cs[i].fd, SHUT_WR);
                continue;
            }
            for (int got = 0; !got;) {
                ssize_t r = io_read(&cs[i], rbuf, RBUF);
                if (r <= 0) die("read: %s", r ? strerror(errno) : "closed before the echo");
                got = feed(&cs[i], rbuf, r);
            }
            write_all(&cs[i], bye, sizeof bye);
        }
        for (int i = 0; i < conns; i++, done++) {
            ssize_t r, n = 0;
            while ((r = io_read(&cs[i], rbuf + n, RBUF - n)) > 0) n += r;
            if (r < 0 && errno == EAGAIN) die("the server did not close the connection");
            if (!raw && (n < 2 || rbuf[0] != 0x88)) die("no close frame came back");
            hang_up(&cs[i]);
        }
    }
    double elapsed = now() - from;
    report("per_s", done, elapsed, proc_cpu(pid) - cpu, clock_s(CLOCK_PROCESS_CPUTIME_ID) - own);
}

static void run_idle(void) {
    /* The first connections load code and grow pools once for all: they are opened before the first look. */
    int first = conns / 10 > 50 ? conns / 10 : 50, total = first + conns;
    conn *cs = need(calloc(total, sizeof *cs));
    long rss = 0;
    for (int i = 0; i < total; i++) {
        if (i == first) usleep(300000), rss = proc_rss_kb(pid);
        dial(&cs[i]);
        upgrade(&cs[i]);
        if (!echo_first) continue;
        write_all(&cs[i], window, window_n);
        if (raw_mode()) {
            read_exact(&cs[i], rbuf, window_n);
            continue;
        }
        for (int got = 0; !got;) {
            ssize_t r = io_read(&cs[i], rbuf, RBUF);
            if (r <= 0) die("read: %s", r ? strerror(errno) : "closed");
            got = feed(&cs[i], rbuf, r);
        }
    }
    usleep(500000);
    long after = proc_rss_kb(pid);
    double cpu = proc_cpu(pid), t = now();
    usleep((useconds_t)(secs * 1e6));
    printf("{\"mode\":\"%s\",\"conns\":%d,\"rss_kb\":%ld,\"kb_per_conn\":%.3f,\"idle_cpu_ms_per_s\":%.3f}\n", mode, conns,
           after, (after - rss) / (double)conns, (proc_cpu(pid) - cpu) / (now() - t) * 1e3);
}

/* ---- check ---- */

/* Read one frame; returns its opcode, or -1 at the end of the stream or after the time limit. */
static int read_frame(conn *c, uint8_t *out, uint64_t room, uint64_t *n, int *fin) {
    uint8_t h[10];
    size_t have = 0, full = 2;
    while (have < full) {
        ssize_t r = io_read(c, h + have, full - have);
        if (r <= 0) return -1;
        have += r;
        if (have >= 2) full = 2 + ((h[1] & 127) == 126 ? 2 : (h[1] & 127) == 127 ? 8 : 0);
    }
    if (h[0] & 0x70 || h[1] & 0x80) die("check: a reserved bit or a mask in an answer: %02x %02x", h[0], h[1]);
    *fin = h[0] >> 7, *n = h[1];
    if (full > 2) {
        *n = 0;
        for (size_t i = 2; i < full; i++) *n = *n << 8 | h[i];
    }
    if (*n > room) die("check: an answer of %llu bytes, at most %llu were sent", (unsigned long long)*n, (unsigned long long)room);
    read_exact(c, out, *n);
    return h[0] & 15;
}

static void expect_message(conn *c, int op, const uint8_t *want, uint64_t n, uint8_t *room) {
    uint64_t got = 0, k;
    int fin = 0, first = 1;
    while (!fin) {
        int o = read_frame(c, room + got, n - got > 125 ? n - got : 125, &k, &fin);
        if (o < 0) die("check: no answer to a message of %llu bytes", (unsigned long long)n);
        if (o >= 8) {
            if (o == 8) die("check: closed by the server after a message of %llu bytes, opcode %d", (unsigned long long)n, op);
            fin = 0;
            continue;
        }
        if (o != (first ? op : 0)) die("check: opcode %d came back for %d", o, op);
        got += k, first = 0;
    }
    if (got != n || memcmp(room, want, n)) die("check: the echo of %llu bytes differs", (unsigned long long)n);
}

static void run_check(void) {
    static const long sizes[] = {0, 1, 125, 126, 127, 4096, 65535, 65536, 70000, 262145, 1048576};
    static const char *kinds[] = {"binary", "ascii", "latin", "bmp", "emoji"};
    long most = 1 << 20;
    uint8_t *data = need(malloc(most)), *room = need(malloc(most + 128)), *out = need(malloc(most + 14));
    int messages = 0;
    conn c;
    dial(&c);
    upgrade(&c);
    for (unsigned k = 0; k < 5; k++)
        for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++, messages++) {
            fill(data, sizes[s], kinds[k]);
            write_all(&c, out, put_frame(out, 1, is_text(kinds[k]) ? 1 : 2, data, sizes[s]));
            expect_message(&c, is_text(kinds[k]) ? 1 : 2, data, sizes[s], room);
        }
    /* A burst of unlike messages in one write: order and borders between them. */
    struct { long at, n; int op; } burst[200];
    long at = 0, end = 0;
    for (int i = 0; i < 200; i++) {
        const char *k = kinds[rnd() % 5];
        burst[i].at = at, burst[i].n = rnd() % 300, burst[i].op = is_text(k) ? 1 : 2;
        fill(data + at, burst[i].n, k);
        end += put_frame(out + end, 1, burst[i].op, data + at, burst[i].n);
        at += burst[i].n;
    }
    write_all(&c, out, end);
    for (int i = 0; i < 200; i++, messages++) expect_message(&c, burst[i].op, data + burst[i].at, burst[i].n, room);
    hang_up(&c);

    /* What follows is told, not demanded: some peers' APIs hand out frames, not messages. */
    struct timeval limit = {.tv_sec = 2};
    uint64_t n;
    int fin, op, fragments = 0, utf8 = 0, got_pong = 0;
    dial(&c);
    upgrade(&c);
    setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    end = put_frame(out, 0, 1, (const uint8_t *)"Hel", 3);
    end += put_frame(out + end, 1, 9, (const uint8_t *)"ping", 4);
    end += put_frame(out + end, 1, 0, (const uint8_t *)"lo", 2);
    write_all(&c, out, end);
    for (int i = 0; i < 4 && (op = read_frame(&c, room, most, &n, &fin)) >= 0; i++) {
        if (op == 10 && n == 4 && !memcmp(room, "ping", 4)) got_pong = 1;
        if (op == 1 && fin && n == 5 && !memcmp(room, "Hello", 5)) fragments = 1;
        if (op == 8 || (fragments && got_pong)) break;
    }
    hang_up(&c);
    dial(&c);
    upgrade(&c);
    setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    write_all(&c, out, put_frame(out, 1, 1, (const uint8_t *)"a\xff", 2));
    op = read_frame(&c, room, most, &n, &fin);
    if (op == 8) utf8 = 1;
    else if (op < 0) { /* dropped without a close frame is a refusal too; silence is not */
        errno = 0;
        ssize_t r = io_read(&c, room, 1);
        utf8 = r == 0 || (r < 0 && errno != EAGAIN);
    }
    hang_up(&c);
    printf("{\"mode\":\"check\",\"messages\":%d,\"fragments\":%s,\"pong\":%s,\"utf8\":%s}\n", messages,
           fragments ? "true" : "false", got_pong ? "true" : "false", utf8 ? "true" : "false");
}

/* ---- serve: an echo server for clients ---- */

static uint32_t rol(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1(const uint8_t *p, size_t n, uint8_t out[20]) { /* n <= 119: two blocks */
    uint8_t b[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0}, w[80];
    size_t blocks = n + 9 > 64 ? 2 : 1;
    memcpy(b, p, n), b[n] = 0x80;
    for (int i = 0; i < 8; i++) b[blocks * 64 - 1 - i] = (uint8_t)((uint64_t)n * 8 >> (8 * i));
    for (size_t block = 0; block < blocks; block++) {
        for (int i = 0; i < 16; i++) {
            const uint8_t *q = b + block * 64 + i * 4;
            w[i] = (uint32_t)q[0] << 24 | q[1] << 16 | q[2] << 8 | q[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], bb = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (bb & c) | (~bb & d) : i < 40 ? bb ^ c ^ d : i < 60 ? (bb & c) | (bb & d) | (c & d) : bb ^ c ^ d;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t t = rol(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rol(bb, 30), bb = a, a = t;
        }
        h[0] += a, h[1] += bb, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = h[i / 4] >> (24 - 8 * (i % 4));
}

static void accept_key(const char *key, char out[29]) {
    static const char table[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char joined[61];
    uint8_t d[21] = {0};
    snprintf(joined, sizeof joined, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    sha1((uint8_t *)joined, 60, d);
    for (int i = 0, o = 0; i < 21; i += 3) {
        uint32_t v = d[i] << 16 | d[i + 1] << 8 | d[i + 2];
        for (int k = 18; k >= 0; k -= 6) out[o++] = table[v >> k & 63];
    }
    out[27] = '=', out[28] = 0;
}

static void run_serve(void) {
    int lfd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(lfd, (void *)&a, sizeof a) || listen(lfd, 16)) die("listen: %s", strerror(errno));
    struct timeval limit = {.tv_sec = 30}; /* time for a Python client to start and import */
    setsockopt(lfd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    conn c;
    memset(&c, 0, sizeof c);
    c.fd = accept(lfd, NULL, NULL);
    if (c.fd < 0) die("no client came: %s", strerror(errno));
    limit.tv_sec = (long)STALL;
    setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char head[8192], answer[256], accept[29];
    int n = 0;
    while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4)) { /* a client sends nothing before the answer */
        if (n >= (int)sizeof head - 1) die("the request is too long");
        ssize_t r = read(c.fd, head + n, sizeof head - 1 - n);
        if (r <= 0) die("the client's handshake ended early");
        n += r;
    }
    head[n] = 0;
    const char *key = strcasestr(head, "\r\nsec-websocket-key:"), *who = strstr(head, "pid=");
    if (!key || !who) die("no key or no pid in the client's request: %s", head);
    key += 20;
    while (*key == ' ') key++;
    pid = atoi(who + 4);
    accept_key(key, accept);
    write_all(&c, answer,
              snprintf(answer, sizeof answer,
                       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Accept: %s\r\n\r\n", accept));

    long room = size + 14, have = 0;
    uint8_t *b = need(malloc(room + 1)), *out = need(malloc(room)), *first = need(malloc(size + 1));
    uint64_t messages = 0, all = 0;
    double start = now(), from = start, cpu = 0, own = 0, sent_at = 0;
    int counting = 0, closing = 0;
    for (;;) {
        ssize_t r = read(c.fd, b + have, room - have);
        if (r <= 0) {
            if (closing) break;
            die("the client %s", r ? "sends nothing" : "closed the connection");
        }
        have += r;
        for (;;) {
            if (have < 6) break;
            long len = b[1] & 127, h = 2;
            if (!(b[1] & 0x80)) die("the client sent an unmasked frame");
            if (b[0] & 0x70 || !(b[0] & 0x80)) die("a fragment or a reserved bit from the client: %02x", b[0]);
            if (len == 126) len = b[2] << 8 | b[3], h = 4;
            else if (len == 127) {
                if (have < 10) break;
                uint64_t wide = 0;
                for (int i = 2; i < 10; i++) wide = wide << 8 | b[i];
                if (wide > (uint64_t)size) die("the client sent %llu bytes, expected %ld", (unsigned long long)wide, size);
                len = (long)wide, h = 10;
            }
            if (len > size && len > 125) die("the client sent %ld bytes, expected %ld", len, size);
            if (have < h + 4 + len) break;
            int op = b[0] & 15;
            mask_bytes(b + h + 4, len, b + h, 0);
            if (op == 8) {
                if (!closing) die("the client sent a close frame");
                hang_up(&c);
                return;
            }
            double t = now();
            if (op == 1 || op == 2) {
                if (len != size) die("the client sent %ld bytes, expected %ld", len, size);
                if (all == 0) memcpy(first, b + h + 4, len);
                else if (memcmp(first, b + h + 4, len)) die("the client's messages differ");
                if (!counting && t - start >= warm) {
                    counting = 1, messages = 0, from = t, cpu = proc_cpu(pid), own = clock_s(CLOCK_PROCESS_CPUTIME_ID);
                    hist_clear();
                } else {
                    if (all) hist_add(t - sent_at);
                    messages++;
                }
                all++;
            }
            if (!closing && op != 10) {
                int k = put_header(out, 1, op == 9 ? 10 : op, len, 0);
                memcpy(out + k, b + h + 4, len);
                write_all(&c, out, k + len);
                sent_at = now();
            }
            have -= h + 4 + len;
            memmove(b, b + h + 4 + len, have);
            if (!closing && counting && t - from >= secs && messages) {
                double elapsed = t - from;
                report("msgs_s", messages, elapsed, proc_cpu(pid) - cpu, clock_s(CLOCK_PROCESS_CPUTIME_ID) - own);
                fflush(stdout);
                uint8_t bye[4] = {0x88, 2, 0x03, 0xE8};
                write_all(&c, bye, 4);
                closing = 1;
                limit.tv_sec = 2;
                setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
            }
        }
    }
}

/* ---- TLS ---- */

#ifdef WSLOAD_TLS
static void setup_tls(void) {
    ctx = need(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    /* One cipher, so that no server is measured with a cheaper one than the others. */
    if (!SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256")) die("no TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_read_ahead(ctx, 1);
}

static void make_cert(void) {
    char path[4096];
    EVP_PKEY *key = need(EVP_EC_gen("P-256"));
    X509 *x = need(X509_new());
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3650L * 86400);
    X509_set_pubkey(x, key);
    X509_NAME *name = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(x, name);
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    if (!names || !X509_add_ext(x, names, -1) || !X509_sign(x, key, EVP_sha256())) die("could not make a certificate");
    snprintf(path, sizeof path, "%s/key.pem", dir);
    FILE *f = fopen(path, "w");
    if (!f || !PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL)) die("could not write %s", path);
    fclose(f);
    snprintf(path, sizeof path, "%s/cert.pem", dir);
    f = fopen(path, "w");
    if (!f || !PEM_write_X509(f, x)) die("could not write %s", path);
    fclose(f);
    puts("{\"mode\":\"cert\"}");
}
#else
static void setup_tls(void) { die("built without TLS (OpenSSL's headers were missing: libssl-dev)"); }
static void make_cert(void) { setup_tls(); }
#endif

int main(int argc, char **argv) {
    int o;
    while ((o = getopt(argc, argv, "m:p:c:s:k:r:d:w:P:t:C:TVBe")) != -1) switch (o) {
        case 'm': mode = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'c': conns = atoi(optarg); break;
        case 's': size = atol(optarg); break;
        case 'k': pipeline = atoi(optarg); break;
        case 'r': reached = atoi(optarg); break;
        case 'd': secs = atof(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 'P': pid = atoi(optarg); break;
        case 't': kind = optarg; break;
        case 'C': dir = optarg; break;
        case 'T': tls = 1; break;
        case 'V': verify_all = 1; break;
        case 'B': browser = 1; break;
        case 'e': echo_first = 1; break;
        default: return 2;
        }
    if (conns < 1 || pipeline < 1 || size < 0) die("-c and -k must be positive, -s not negative");
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    if (!strcmp(mode, "cert")) return make_cert(), 0;
    if (tls) setup_tls();
    build();
    make_request();
    ep = epoll_create1(0);
    if (!strcmp(mode, "echo") || !strcmp(mode, "raw") || !strcmp(mode, "broadcast")) run_echo();
    else if (!strcmp(mode, "connect") || !strcmp(mode, "rawconnect")) run_connect();
    else if (!strcmp(mode, "idle") || !strcmp(mode, "rawidle")) run_idle();
    else if (!strcmp(mode, "check")) run_check();
    else if (!strcmp(mode, "serve")) run_serve();
    else die("no such mode: %s", mode);
    return 0;
}
