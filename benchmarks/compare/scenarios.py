"""What is measured: scenarios, the servers and clients that take part, and the targets that are held up to them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["METRICS", "PEERS", "SCENARIOS", "TARGETS", "Metric", "Peer", "Scenario", "Target"]


@dataclass(frozen=True)
class Metric:
    """A figure of a measurement; `better` is "low" or "high"."""

    key: str
    title: str
    better: str = "low"
    digits: int = 2


METRICS = {
    metric.key: metric
    for metric in (
        Metric("cpu_us", "CPU µs"),
        Metric("msgs_s", "messages/s", "high", 0),
        Metric("per_s", "handshakes/s", "high", 0),
        Metric("per_cpu_s", "handshakes per CPU s", "high", 0),
        Metric("p50_us", "p50 µs", digits=1),
        Metric("p99_us", "p99 µs", digits=1),
        Metric("kb_per_conn", "KB per connection"),
        Metric("idle_cpu_ms_per_s", "idle CPU ms/s"),
    )
}


@dataclass(frozen=True)
class Peer:
    """A program that is measured.

    Args:
        name: implementation, API and event loop: "picows/uvloop".
        command: its words; {python}, {uws}, {here}, {port}, {size} are filled in.
        kind: what it needs to run: "wsfast", "python", "uws" (C), "uws-node" or "node".
        raw: a plain echo without WebSocket.
        client: a client, measured against `wsload -m serve`.
    """

    name: str
    command: str
    kind: str = "python"
    raw: bool = False
    client: bool = False


def _peers() -> Iterator[Peer]:
    server = "{python} -m benchmarks.compare.servers."
    client = "{python} -m benchmarks.compare.clients."
    for loop in ("uvloop", "asyncio"):
        for form in ("listener", "message"):
            yield Peer(f"wsfast-{form}/{loop}", f"{server}wsfast_lib {{port}} {loop} --form {form}", "wsfast")
        yield Peer(f"wsfast-websockets/{loop}", f"{server}wsfast_websockets {{port}} {loop}", "wsfast")
        yield Peer(f"raw/{loop}", f"{server}raw {{port}} {loop}", raw=True)
        yield Peer(f"raw-aiofastnet/{loop}", f"{server}raw {{port}} {loop} --form aiofastnet", raw=True)
        yield Peer(f"picows/{loop}", f"{server}picows_core {{port}} {loop}")
        yield Peer(f"picows-ws/{loop}", f"{server}picows_ws {{port}} {loop}")
        yield Peer(f"websockets/{loop}", f"{server}websockets_lib {{port}} {loop}")
        yield Peer(f"aiohttp/{loop}", f"{server}aiohttp_lib {{port}} {loop}")
    for loop in ("uvloop", "asyncio"):
        for ws in ("wsfast", "wsfast-http", "sansio", "wsproto"):
            for app in ("bare", "fastapi", "bare-shared", "fastapi-shared"):
                if not app.endswith("shared") or ws.startswith("wsfast"):
                    command = f"{server}asgi_lib {{port}} {loop} --form {ws}:{app}"
                    yield Peer(f"{app}:{ws}/{loop}", command, "wsfast" if ws.startswith("wsfast") else "python")
    yield Peer("uws/c", "{uws} {port}", "uws")
    yield Peer("uws/node", "node {here}/servers/uws.js {port}", "uws-node")
    yield Peer("ws/node", "node {here}/servers/node_ws.js {port}", "node")
    for loop in ("uvloop", "asyncio"):
        for form in ("listener", "message"):
            yield Peer(
                f"client:wsfast-{form}/{loop}",
                f"{client}wsfast_lib {{port}} {loop} --size {{size}} --form {form}",
                "wsfast",
                client=True,
            )
        command = f"{client}wsfast_websockets {{port}} {loop} --size {{size}}"
        yield Peer(f"client:wsfast-websockets/{loop}", command, "wsfast", client=True)
        for name, module in (
            ("picows", "picows_core"),
            ("picows-ws", "picows_ws"),
            ("websockets", "websockets_lib"),
            ("aiohttp", "aiohttp_lib"),
        ):
            command = f"{client}{module} {{port}} {loop} --size {{size}}"
            yield Peer(f"client:{name}/{loop}", command, client=True)


PEERS = {peer.name: peer for peer in _peers()}

_WSFAST = ("wsfast-listener/uvloop", "wsfast-message/uvloop")
_WSFAST_ASYNCIO = ("wsfast-listener/asyncio", "wsfast-message/asyncio")
_PYTHON = ("picows/uvloop", "picows-ws/uvloop", "websockets/uvloop", "aiohttp/uvloop")
_OTHERS = ("uws/c", "uws/node", "ws/node")
_DROP_IN = "wsfast-websockets/uvloop"
_USUAL = (*_WSFAST, _DROP_IN, "raw/uvloop", *_PYTHON, *_OTHERS)
_ASYNCIO = (
    *_WSFAST_ASYNCIO,
    "wsfast-websockets/asyncio",
    "raw/asyncio",
    "picows/asyncio",
    "picows-ws/asyncio",
    "websockets/asyncio",
    "aiohttp/asyncio",
)
_CLIENTS = tuple(f"client:{name}" for name in (*_WSFAST, _DROP_IN, *_PYTHON))


@dataclass(frozen=True)
class Scenario:
    """One kind of load.

    Args:
        name: how it is called on the command line.
        title: how the report calls it.
        args: arguments for wsload.
        peers: who takes part unless --servers says otherwise.
        metrics: columns of the report; the first is the one that is compared and drawn.
        server_args: further arguments for the servers.
        tls: needs TLS.
        reference: whom the ratios refer to; the best, where it was not measured.
    """

    name: str
    title: str
    args: str
    peers: tuple[str, ...] = _USUAL
    metrics: tuple[str, ...] = ("cpu_us", "msgs_s", "p50_us", "p99_us")
    server_args: str = ""
    tls: bool = False
    reference: str = "raw/uvloop"


_KINDS = (("", "binary", "binary"), ("-text", "ascii", "ASCII text"), ("-utf8", "bmp", "non-ASCII text"))


def _scenarios() -> Iterator[Scenario]:
    for suffix, kind, title in _KINDS:
        yield Scenario(
            f"pipelined-64{suffix}",
            f"64 B {title}, 10 connections with 64 in flight",
            f"-s 64 -c 10 -k 64 -t {kind}",
            reference="uws/c",
        )
    for suffix, kind, title in _KINDS:
        yield Scenario(f"pingpong-64{suffix}", f"64 B {title} ping-pong, 100 connections", f"-s 64 -c 100 -t {kind}")
    yield Scenario(
        "pingpong-64-asyncio",
        "64 B binary ping-pong, 100 connections, stock asyncio",
        "-s 64 -c 100 -t binary",
        _ASYNCIO,
        reference="raw/asyncio",
    )
    for suffix, kind, title in _KINDS[1:]:
        yield Scenario(
            f"pingpong-64{suffix}-asyncio",
            f"64 B {title} ping-pong, 100 connections, stock asyncio",
            f"-s 64 -c 100 -t {kind}",
            _ASYNCIO,
            reference="raw/asyncio",
        )
    for suffix, kind, title in _KINDS:
        yield Scenario(f"pingpong-4k{suffix}", f"4 KiB {title} ping-pong, 50 connections", f"-s 4096 -c 50 -t {kind}")
    for suffix, kind, title in _KINDS:
        yield Scenario(f"large-64k{suffix}", f"64 KiB {title} echo, 4 connections", f"-s 65536 -c 4 -t {kind}")
    for suffix, kind, title in _KINDS:
        yield Scenario(f"large-1m{suffix}", f"1 MiB {title} echo, 2 connections", f"-s 1048576 -c 2 -t {kind}")
    tls_peers = (*_WSFAST, _DROP_IN, "raw/uvloop", "raw-aiofastnet/uvloop", *_PYTHON, *_OTHERS)
    yield Scenario("tls-64", "TLS 1.3, 64 B ping-pong, 100 connections", "-s 64 -c 100 -T", tls_peers, tls=True)
    yield Scenario("tls-64k", "TLS 1.3, 64 KiB echo, 4 connections", "-s 65536 -c 4 -T", tls_peers, tls=True)
    handshake = ("per_cpu_s", "cpu_us", "per_s", "p50_us", "p99_us")
    yield Scenario(
        "handshake",
        "handshakes: connect, upgrade, one echo, close",
        "-m connect -s 64 -c 20",
        metrics=handshake,
    )
    yield Scenario(
        "handshake-browser",
        "handshakes with a browser's headers",
        "-m connect -s 64 -c 20 -B",
        metrics=handshake,
    )
    memory = ("kb_per_conn", "idle_cpu_ms_per_s")
    idle = (*_USUAL, "wsfast-listener/asyncio", "wsfast-message/asyncio", "raw/asyncio")
    yield Scenario("idle", "memory per idle connection, 2,000 open", "-m idle -c 2000", idle, metrics=memory)
    yield Scenario(
        "idle-used",
        "memory per idle connection after one 64 B echo on each, 2,000 open",
        "-m idle -s 64 -c 2000 -e",
        idle,
        metrics=memory,
    )
    yield Scenario(
        "broadcast",
        "broadcast of 64 B to 1,000 connections, per delivery",
        "-m broadcast -s 64 -c 1000",
        (*_WSFAST, *_PYTHON, *_OTHERS),
        server_args="--broadcast",
        reference="uws/c",
    )
    for name, who, connections, topics, counts in (
        ("topics", "one topic of 1,000 connections", "-c 1000", "1 1", (1, 10, 100)),
        ("topics-many", "10,000 connections with 10 of 1,000 topics", "-c 10000 -r 100", "1000 10", (1, 100, 1000)),
    ):
        for count in counts:
            yield Scenario(
                f"{name}-{count}",
                f"{who}, {count} publishes of 64 B at once, per delivery",
                f"-m broadcast -s 64 {connections} -k {count}",
                (_WSFAST[0], "uws/c"),
                server_args=f"--topics {topics}",
                reference="uws/c",
            )
    for name, size, title in (("64", 64, "64 B"), ("64k", 65536, "64 KiB")):
        yield Scenario(
            f"client-{name}",
            f"client: {title}, one connection, one in flight",
            f"-m serve -s {size}",
            _CLIENTS,
            reference="client:picows/uvloop",
        )


def _asgi_scenarios() -> Iterator[Scenario]:
    """ASGI applications under uvicorn: by wsfast, and by uvicorn's own `websockets-sansio`."""
    metrics = Scenario.metrics
    handshake = ("cpu_us", "per_cpu_s", "per_s", "p50_us", "p99_us")
    for app in ("bare", "fastapi"):
        usual = (f"{app}:wsfast/uvloop", f"{app}:sansio/uvloop")
        with_http = (usual[0], f"{app}:wsfast-http/uvloop", usual[1])
        for name, args, more, peers, shown, title in (
            ("pingpong-64", "-s 64 -c 100", "", usual, metrics, "64 B ping-pong, 100 connections"),
            ("pipelined-64", "-s 64 -c 10 -k 64", "", usual, metrics, "64 B, 10 connections with 64 in flight"),
            ("pingpong-4k", "-s 4096 -c 50", "", usual, metrics, "4 KiB ping-pong, 50 connections"),
            ("large-64k", "-s 65536 -c 4", "", usual, metrics, "64 KiB echo, 4 connections"),
            (
                "broadcast",
                "-m broadcast -s 64 -c 1000",
                "--broadcast",
                (usual[0], f"{app}-shared:wsfast/uvloop", usual[1]),
                metrics,
                "64 B to 1,000 connections, per delivery",
            ),
            ("handshake", "-m connect -s 64 -c 20", "", with_http, handshake, "connect, upgrade, one echo, close"),
            ("idle", "-m idle -c 2000", "", with_http, ("kb_per_conn", "idle_cpu_ms_per_s"), "memory when idle"),
            (
                "idle-browser",
                "-m idle -c 2000 -B",
                "",
                with_http,
                ("kb_per_conn", "idle_cpu_ms_per_s"),
                "memory when idle, compression offered",
            ),
        ):
            yield Scenario(f"asgi-{app}-{name}", f"ASGI, {app}: {title}", args, peers, shown, more, reference=usual[1])


SCENARIOS = {scenario.name: scenario for scenario in (*_scenarios(), *_asgi_scenarios())}


@dataclass(frozen=True)
class Target:
    """What wsfast is to reach: `metric` of `ours` at most `ratio` times that of the best of `peers`, plus `plus`.

    Without peers it is at most `plus`. For a metric of which more is better it is at least `ratio` times. `strict`:
    equal is not enough ("ahead of").
    """

    scenario: str
    ours: str
    peers: tuple[str, ...]
    ratio: float = 1.0
    plus: float = 0.0
    strict: bool = False
    metric: str = "cpu_us"
    text: str = field(default="", compare=False)


def _targets() -> Iterator[Target]:
    listener, message = _WSFAST
    either = ("picows/uvloop", "picows-ws/uvloop")
    for suffix, _, _ in _KINDS:
        name = f"pipelined-64{suffix}"
        yield Target(name, listener, ("uws/c", "uws/node"), 2, text="<= 2x uWebSockets")
        yield Target(name, listener, ("picows/uvloop",), 1 / 12, text="<= 1/12 of picows core")
        yield Target(name, message, either, 1 / 6, text="<= 1/6 of the better picows API")
    for suffix, _, _ in _KINDS:
        name = f"pingpong-64{suffix}"
        yield Target(name, listener, ("raw/uvloop",), 1.15, text="<= 1.15x raw uvloop echo")
        yield Target(name, listener, ("picows/uvloop",), 1, text="not above picows core")
        yield Target(name, message, ("picows-ws/uvloop",), 0.85, text="<= 0.85x picows' websockets API")
        name += "-asyncio"
        yield Target(name, _WSFAST_ASYNCIO[0], ("picows/asyncio",), 1, text="not above picows core")
        yield Target(name, _WSFAST_ASYNCIO[1], ("picows-ws/asyncio",), 0.85, text="<= 0.85x picows' websockets API")
    for suffix, _, _ in _KINDS:
        name = f"pingpong-4k{suffix}"
        yield Target(name, listener, ("raw/uvloop",), 1.25, text="<= 1.25x raw uvloop echo")
        yield Target(name, listener, ("picows/uvloop",), 0.9, text="<= 0.9x picows core")
        yield Target(name, message, ("picows-ws/uvloop",), 0.85, text="<= 0.85x picows' websockets API")
    for size in ("large-64k", "large-1m"):
        for suffix, _, _ in _KINDS:
            name = size + suffix
            yield Target(name, listener, ("raw/uvloop",), 1.3, text="<= 1.3x raw uvloop echo")
            yield Target(name, listener, either, strict=True, text="ahead of picows")
            yield Target(name, message, ("raw/uvloop",), 1.5, text="<= 1.5x raw uvloop echo")
            yield Target(name, message, _PYTHON, strict=True, text="ahead of every Python peer")
    for name in ("pipelined-64", "pingpong-64", "pingpong-4k", "large-64k", "tls-64"):
        yield Target(name, _DROP_IN, (message,), 1.03, text="<= 1.03x the same by wsfast's own names")
    for name in ("tls-64", "tls-64k"):
        yield Target(name, listener, ("picows/uvloop",), strict=True, text="ahead of picows core")
        yield Target(name, message, ("picows-ws/uvloop",), strict=True, text="ahead of picows' websockets API")
    for name in ("handshake", "handshake-browser"):
        for ours in _WSFAST:
            yield Target(name, ours, either, 1.5, metric="per_cpu_s", text=">= 1.5x picows (the better API)")
    for name in ("idle", "idle-used"):
        for loop in ("uvloop", "asyncio"):
            for form, plus in (("listener", 1.5), ("message", 4)):
                yield Target(
                    name,
                    f"wsfast-{form}/{loop}",
                    (f"raw/{loop}",),
                    plus=plus,
                    metric="kb_per_conn",
                    text=f"<= raw transport + {plus:g} KB",
                )
    yield Target("broadcast", listener, _PYTHON, 0.5, text="<= 0.5x the best Python peer")
    for name, ratio in (("1", 1), ("10", 1), ("100", 0.28), ("many-1", 0.93), ("many-100", 1.02), ("many-1000", 1.02)):
        yield Target(f"topics-{name}", listener, ("uws/c",), ratio, text=f"<= {ratio:g}x uWebSockets")
    for name in ("client-64", "client-64k"):
        yield Target(name, f"client:{listener}", ("client:picows/uvloop",), strict=True, text="ahead of picows core")
        yield Target(
            name,
            f"client:{message}",
            ("client:picows-ws/uvloop",),
            strict=True,
            text="ahead of picows' websockets API",
        )


def _asgi_targets() -> Iterator[Target]:
    for app, ratios in (
        ("bare", {"pingpong-64": 0.47, "pipelined-64": 1 / 20, "pingpong-4k": 0.45, "large-64k": 0.5}),
        ("fastapi", {"pingpong-64": 0.55, "pipelined-64": 1 / 7, "pingpong-4k": 0.5, "large-64k": 0.5}),
    ):
        ours, stock = f"{app}:wsfast/uvloop", (f"{app}:sansio/uvloop",)
        for name, ratio in ratios.items():
            yield Target(f"asgi-{app}-{name}", ours, stock, ratio, text=f"<= {ratio:.2f}x uvicorn's")
        own, shared = (0.75, 0.6) if app == "bare" else (0.6, 0.5)
        yield Target(f"asgi-{app}-broadcast", ours, stock, own, text=f"<= {own}x uvicorn's")
        yield Target(
            f"asgi-{app}-broadcast", f"{app}-shared:wsfast/uvloop", stock, shared, text=f"<= {shared}x uvicorn's"
        )
        through = 0.5 if app == "bare" else 0.62
        yield Target(f"asgi-{app}-handshake", ours, stock, through, text=f"<= {through}x uvicorn's")
        for name, most in (("idle", 7.5), ("idle-browser", 10)) if app == "bare" else (("idle-browser", 20),):
            yield Target(f"asgi-{app}-{name}", ours, (), plus=most, metric="kb_per_conn", text=f"<= {most:g} KB")
    yield Target(
        "asgi-bare-handshake", "bare:wsfast-http/uvloop", ("bare:sansio/uvloop",), 0.38, text="<= 0.38x uvicorn's"
    )


TARGETS = (*_targets(), *_asgi_targets())
