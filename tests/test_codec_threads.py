"""The codecs in several threads: each has its own, or they share one, which must stay whole.

It shows most on CPython without a GIL; `tests/interpreters` runs it there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType

from codec_helpers import feed_all, receive_all
from vectors import TEXT, frame

THREADS = 4


def side_by_side(work: Callable[[int], None]) -> None:
    """Run it in several threads, which begin at once; raise what one of them raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            barrier.wait(30)
            work(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def test_each_has_its_own(codec: ModuleType) -> None:
    """Messages, long ones too, whose memory is used again, go from an encoder to a decoder unchanged."""

    def work(number: int) -> None:
        encoder, decoder = codec.Encoder(mask=True), codec.Decoder(masked=True)
        for i in range(40):
            messages = [f"{number} {i}" * 30, b"%d" % number * (20000 + 1000 * i), "ä" * (9000 + i), bytes([number])]
            for message in messages:
                encoder.message(message)
            stream = encoder.take()
            assert feed_all(decoder, [stream[:70_000], stream[70_000:]]) == messages

    side_by_side(work)


def test_no_two_frames_have_the_same_key(codec: ModuleType) -> None:
    keys: list[list[bytes]] = [[] for _ in range(THREADS)]

    def work(number: int) -> None:
        encoder = codec.Encoder(mask=True)
        for _ in range(3000):
            encoder.message(b"")
        taken = encoder.take()
        keys[number] += [taken[at + 2 : at + 6] for at in range(0, len(taken), 6)]

    side_by_side(work)
    drawn = [key for some in keys for key in some]
    # Of 12,000 random keys, a pair is the same once in 60 runs, two pairs once in 7,000.
    assert len(drawn) - len(set(drawn)) < 4


def test_an_encoder_that_is_shared(codec: ModuleType) -> None:
    """Each frame is whole, and in the order of its thread."""
    encoder = codec.Encoder()
    taken: list[bytes] = []

    def work(number: int) -> None:
        for i in range(1000):
            encoder.message(f"{number} {i} " + "x" * (i % 300))
            if number == 0 and not i % 50:
                taken.append(encoder.take())

    if codec.__name__.endswith("_py"):
        lock, message = threading.Lock(), encoder.message

        class Locked:
            """The Python twin promises this of no more than the calls of built-in types."""

            def message(self, data: str) -> None:
                with lock:
                    message(data)

            def take(self) -> bytes:
                with lock:
                    data: bytes = unlocked.take()
                    return data

        unlocked, encoder = encoder, Locked()
    side_by_side(work)
    taken.append(encoder.take())
    messages = feed_all(codec.Decoder(masked=False), taken)
    assert len(messages) == THREADS * 1000
    for number in range(THREADS):
        own = [int(message.split()[1]) for message in messages if message.startswith(f"{number} ")]
        assert own == list(range(1000))


def test_a_decoder_that_is_shared(codec: ModuleType) -> None:
    """What whole frames each thread feeds come out, by one call or another; a call that meets another is refused."""
    if codec.__name__.endswith("_py"):
        return  # it may lose or fail, but has no memory that it could spoil
    decoder = codec.Decoder(masked=False)
    seen = [0] * THREADS
    refused = [0] * THREADS

    def work(number: int) -> None:
        stream = frame(TEXT, b"x" * 100) * 10 + frame(TEXT, b"y" * 30_000)
        for _ in range(200):
            try:
                seen[number] += len(decoder.feed(stream))
            except RuntimeError:
                refused[number] += 1

    side_by_side(work)
    assert sum(seen) == (THREADS * 200 - sum(refused)) * 11


def test_an_encoder_that_changes_threads(codec: ModuleType) -> None:
    """Memory that another thread made is not CPython's to resize; what was gathered is kept all the same."""
    encoder = codec.Encoder()
    encoder.message(b"a" * 20_000)

    def work(number: int) -> None:
        if number == 0:
            encoder.message(b"b" * 50_000)

    side_by_side(work)
    encoder.message("c")
    assert feed_all(codec.Decoder(masked=False), [encoder.take()]) == [b"a" * 20_000, b"b" * 50_000, "c"]


def test_a_message_that_is_received_in_two_threads(codec: ModuleType) -> None:
    """The second half of a large message comes to another thread, which delivers it."""
    decoder = codec.Decoder(masked=False, max_size=None)
    stream = frame(TEXT, b"0123456789" * 20_000)
    delivered = []
    assert receive_all(decoder, [stream[:100_000]]) == []

    def work(number: int) -> None:
        if number == 0:
            delivered.extend(receive_all(decoder, [stream[100_000:]]))

    side_by_side(work)
    assert delivered == ["0123456789" * 20_000]
