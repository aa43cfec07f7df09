"""Connecting a client to a server: addresses, proxies, TLS and reconnecting."""

from __future__ import annotations

__all__ = ()
