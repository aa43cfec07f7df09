"""systemd: takes the sockets that it opened, and reports to it. Without it, nothing happens."""

from __future__ import annotations

import contextlib
import os
import socket
import time

__all__ = ["activated_sockets", "notify", "watchdog_interval"]


def activated_sockets() -> list[socket.socket]:
    """Return the listening sockets that were passed to this process (sd_listen_fds); call it once."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for fd in range(3, 3 + int(count)):
        os.set_inheritable(fd, False)
        sockets.append(socket.socket(fileno=fd))
    return sockets


def notify(**state: object) -> bool:
    """Tell the service manager something (sd_notify): ``notify(READY=1, STATUS="4 workers")``; tell whether it was."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    if path.startswith("@"):
        path = "\0" + path[1:]
    if state.get("RELOADING"):
        state["MONOTONIC_USEC"] = time.monotonic_ns() // 1000
    text = "\n".join(f"{name}={value}" for name, value in state.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(text.encode(), path)
        return True
    return False


def watchdog_interval() -> float | None:
    """Return the seconds between two signs of life that the service manager wants, or None."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) <= 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000
