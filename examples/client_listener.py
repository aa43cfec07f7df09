"""Measure 1000 round trips with callbacks, which have the least latency: python client_listener.py URI"""

import asyncio
import sys
import time

import wsfast

COUNT = 1000


class Rounds(wsfast.Listener):
    def on_open(self) -> None:
        self.times: list[float] = []
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.ws.send_nowait("round")

    def on_message(self, message: str | bytes) -> None:
        self.times.append(time.perf_counter() - self.sent)
        if len(self.times) < COUNT:
            self.send()
        else:
            self.ws.close_nowait()


async def main(uri: str) -> None:
    async with wsfast.connect_listener(Rounds, uri) as rounds:
        await rounds.ws.wait_closed()
    print(f"{COUNT} round trips, half of them within {sorted(rounds.times)[COUNT // 2] * 1e6:.0f} us")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
