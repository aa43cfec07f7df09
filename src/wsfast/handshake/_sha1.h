/* SHA-1 (RFC 3174) of a Sec-WebSocket-Key and the GUID of RFC 6455, 1.3: always 60 bytes, so of two blocks.
 *
 * No secret hangs on it. OpenSSL's takes two to three times as many instructions for so little data, most of them to find
 * the algorithm and to make and free its state. */

#ifndef WSFAST_SHA1_H
#define WSFAST_SHA1_H

#include <stdint.h>
#include <string.h>

#define WSF_KEY_SIZE 24
#define WSF_TOKEN_SIZE 28

static const char wsf_guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
static const char wsf_base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static inline uint32_t wsf_rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static inline uint32_t wsf_load32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* RFC 3174, 6.1, five rounds at a time, after which the five words stand where they stood. */
#define WSF_ROUND(a, b, c, d, e, f, k, t) \
    e += wsf_rotate(a, 5) + f(b, c, d) + w[t] + k; \
    b = wsf_rotate(b, 30);
#define WSF_ROUNDS(from, to, f, k) \
    for (i = from; i < to; i += 5) { \
        WSF_ROUND(a, b, c, d, e, f, k, i) \
        WSF_ROUND(e, a, b, c, d, f, k, i + 1) \
        WSF_ROUND(d, e, a, b, c, f, k, i + 2) \
        WSF_ROUND(c, d, e, a, b, f, k, i + 3) \
        WSF_ROUND(b, c, d, e, a, f, k, i + 4) \
    }
#define WSF_CHOICE(b, c, d) (d ^ (b & (c ^ d)))
#define WSF_PARITY(b, c, d) (b ^ c ^ d)
#define WSF_MAJORITY(b, c, d) ((b & c) | (d & (b | c)))

static void wsf_sha1_block(uint32_t h[5], const uint8_t *block)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    int i;
    for (i = 0; i < 16; i++)
        w[i] = wsf_load32(block + 4 * i);
    for (; i < 80; i++)
        w[i] = wsf_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    WSF_ROUNDS(0, 20, WSF_CHOICE, 0x5A827999)
    WSF_ROUNDS(20, 40, WSF_PARITY, 0x6ED9EBA1)
    WSF_ROUNDS(40, 60, WSF_MAJORITY, 0x8F1BBCDC)
    WSF_ROUNDS(60, 80, WSF_PARITY, 0xCA62C1D6)
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
}

/* Write the 28 characters that answer the 24 of a key. */
static void wsf_accept_token(const char *key, char *token)
{
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t data[128] = {0}, digest[21];
    int i;
    memcpy(data, key, WSF_KEY_SIZE);
    memcpy(data + WSF_KEY_SIZE, wsf_guid, 36);
    data[60] = 0x80;
    data[126] = 60 * 8 >> 8;
    data[127] = 60 * 8 & 0xFF;
    wsf_sha1_block(h, data);
    wsf_sha1_block(h, data + 64);
    for (i = 0; i < 20; i++)
        digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
    digest[20] = 0;
    for (i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
        token[4 * i] = wsf_base64[three >> 18];
        token[4 * i + 1] = wsf_base64[three >> 12 & 63];
        token[4 * i + 2] = wsf_base64[three >> 6 & 63];
        token[4 * i + 3] = wsf_base64[three & 63];
    }
    token[27] = '=';
}

#endif
