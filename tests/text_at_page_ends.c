/* The loops over text of _codec_utf8.h where memory ends: no page before or behind may be touched.
 *
 * Random texts, whole and broken, stand at the start and at the end of mapped pages, and so does what is made of them;
 * it must be what the plain loops make. The argument is the level: 0 plain, 1 AVX2 or NEON, 2 AVX-512.
 */
#include "_codec_utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ROOM = 4 * 4096, PAGE = 4096, MOST = 1000 };

static uint8_t *mapped(void)
{
    uint8_t *all = mmap(NULL, ROOM + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all, PAGE, PROT_NONE) || mprotect(all + PAGE + ROOM, PAGE, PROT_NONE))
        exit(2);
    return all + PAGE;
}

static uint32_t below(uint32_t n)
{
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % n;
}

static uint32_t character(int bytes)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000}, end[] = {0x80, 0x800, 0x10000, 0x110000};
    const uint32_t c = least[bytes] + below(end[bytes] - least[bytes]);
    return (c & ~0x7FFu) == 0xD800 ? 0xFFFF : c;
}

static void expect(int holds, const char *what, size_t n)
{
    if (!holds) {
        printf("%s, text of %zu\n", what, n);
        exit(1);
    }
}

int main(int count, char **arguments)
{
    static const uint8_t odd[] = {0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2,
                                  0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF};
    static uint8_t utf8[4 * MOST];
    static uint32_t characters[MOST];
    uint8_t *pages[4] = {mapped(), mapped(), mapped(), mapped()};
    const int level = count > 1 ? atoi(arguments[1]) : 0;
    int round, i;
    for (round = 0; round < 20000; round++) {
        const size_t length = below(round % 8 ? 200 : MOST);
        const int kinds[2] = {(int)below(4), (int)below(4)}, runs = 1 + (int)below(80), at_end = round & 1;
        uint32_t widest = 0;
        wsf_checked checked, plain;
        uint8_t *in, *text, *decoded, *encoded;
        size_t k, n, width;
        int kind = 0, wrong;
        for (k = 0; k < length; k++) {
            kind ^= !below((uint32_t)runs);
            characters[k] = character(kinds[kind]);
            widest = characters[k] > widest ? characters[k] : widest;
        }
        width = widest < 0x100 ? 1 : widest < 0x10000 ? 2 : 4;
        n = wsf_utf8_length4(characters, length);
        wsf_utf8_encode4(utf8, characters, length);
        in = pages[0] + (at_end ? ROOM - n : 0);
        text = pages[1] + (at_end ? ROOM - length * width : 0);
        decoded = pages[2] + (at_end ? ROOM - length * width : 0);
        encoded = pages[3] + (at_end ? ROOM - n : 0);
        memcpy(in, utf8, n);
        for (k = 0; k < length; k++)
            memcpy(text + k * width, characters + k, width); /* little-endian, as all that have vector code */
        memset(decoded, 0, length * width);
        memset(encoded, 0, n);
        wsf_choose(level);
        expect(!wsf_utf8_check(in, n, &checked) && checked.bytes == n && checked.length == length, "check", n);
        wsf_utf8_decode(decoded, (int)width, in, n);
        expect(!memcmp(decoded, text, length * width), "decode", n);
        expect(wsf_utf8_length(text, (int)width, length) == n, "length", n);
        wsf_utf8_encode(encoded, text, (int)width, length);
        expect(!memcmp(encoded, utf8, n), "encode", n);
        for (i = 0; i < 4 && n; i++) {
            in[below((uint32_t)n)] = odd[below(sizeof odd)];
            wsf_choose(0);
            wrong = wsf_utf8_check(in, n, &plain);
            wsf_choose(level);
            expect(wsf_utf8_check(in, n, &checked) == wrong, "verdict", n);
            expect(checked.bytes == plain.bytes && checked.length == plain.length, "place", n);
            expect(wsf_utf8_widest(checked.largest) == wsf_utf8_widest(plain.largest), "largest", n);
        }
    }
    return 0;
}
