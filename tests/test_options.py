"""Options that are not known are refused at once, and the error names what was meant."""

from __future__ import annotations

from typing import Any

import pytest

import wsfast
import wsfast.sync


@pytest.mark.parametrize("connect", [wsfast.connect, wsfast.sync.connect], ids=["asyncio", "sync"])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ssl_foo", None),
        ("ssl_context", "'ssl'"),
        ("server_hostnam", "'server_hostname'"),
        ("proxy_foo", "'proxy_ssl'"),
        ("proxy_sl", "'proxy_ssl'"),
        ("ssl_handshake_timeot", "'ssl_handshake_timeout'"),
        ("local_adr", "'local_addr'"),
        ("unixx", "'unix'"),
        ("nonsense_xyz", None),
    ],
)
def test_options_for_the_way(connect: Any, name: str, meant: str | None) -> None:
    for uri in ("ws://h/", "wss://h/"):
        with pytest.raises(TypeError, match=rf"connect\(\) got an unexpected keyword argument '{name}'") as info:
            connect(uri, **{name: 1})
        if meant is not None:
            assert str(info.value).endswith(f": did you mean {meant}?")
        assert "create_connection" not in str(info.value)
