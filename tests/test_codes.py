"""`wsfast.codes`: the numbers of RFC 6455."""

from __future__ import annotations

import pytest
from vectors import ACCEPTED_CLOSE_CODES

from wsfast import codes
from wsfast.codes import CloseCause, CloseCode, Opcode


def test_opcodes() -> None:
    """RFC 6455, 11.8."""
    assert {opcode.name: int(opcode) for opcode in Opcode} == {
        "CONT": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


def test_close_codes() -> None:
    """RFC 6455, 7.4.1, and the registry that 11.7 founds."""
    assert {code.name: int(code) for code in CloseCode} == {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RCVD": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
        "TLS_HANDSHAKE": 1015,
    }


def test_all_but_three_close_codes_may_be_sent() -> None:
    assert set(CloseCode) - ACCEPTED_CLOSE_CODES == {1005, 1006, 1015}


def test_names_are_those_of_websockets() -> None:
    """So that people can switch by an import."""
    frames = pytest.importorskip("websockets.frames")
    assert {o.name: int(o) for o in Opcode} == {o.name: int(o) for o in frames.Opcode}
    assert {c.name: int(c) for c in CloseCode} == {c.name: int(c) for c in frames.CloseCode}


def test_numbers_are_integers() -> None:
    assert int(Opcode.PING) == 9
    assert f"{CloseCode.GOING_AWAY}" == "1001"
    assert CloseCode(1000) is CloseCode.NORMAL_CLOSURE


def test_causes_read_as_text() -> None:
    assert str(CloseCause.KEEPALIVE) == "keepalive timeout"
    assert len({str(cause) for cause in CloseCause}) == len(CloseCause)


def test_public_names() -> None:
    assert codes.__all__ == ["Close", "CloseCause", "CloseCode", "Opcode"]
