"""The tests of websockets 17.0.1 that do not pass on `wsfast.websockets`, each with the reason."""

from __future__ import annotations

__all__ = ["EXPECTED", "LEFT_OUT"]

_INSIDE = "it is about how websockets works inside"
_OLD = "it is about the implementation that websockets has left behind"

LEFT_OUT = {
    "asyncio.test_messages": _INSIDE,
    "sync.test_messages": _INSIDE,
    "sync.test_utils": _INSIDE,
    "trio.test_messages": _INSIDE,
    "trio.test_utils": _INSIDE,
    "test_cli": "it is about websockets' command line; wsfast has its own",
    "legacy.test_auth": _OLD,
    "legacy.test_client_server": _OLD,
    "legacy.test_framing": _OLD,
    "legacy.test_handshake": _OLD,
    "legacy.test_http": _OLD,
    "legacy.test_protocol": _OLD,
}
"""Whole files, which are not run."""

_QUEUE = "looks at recv_messages, which is websockets' queue; tests/test_websockets_queue.py has what the peer sees"
_KEEPALIVE = "makes the task of keepalive fail; wsfast has none"
_RANDOM = "replaces random.getrandbits; the data of pings come from the operating system here"
_REPLACED = "replaces methods of Protocol, which moves no bytes here"
_LATER = "ends the sending side of a transport that is not wsfast's; it writes later, not within the call"
_MOCKED = "counts the calls of a mocked transport"
_SOCKET = "replaces the connection's socket, or methods of its class"
_THREAD = "looks at websockets' threads"

_CONNECTION = {
    "test_backpressure": _QUEUE,
    "test_keepalive_reports_errors": _KEEPALIVE,
    "test_ping": _RANDOM,
    "test_unexpected_failure_in_data_received": _REPLACED,
    "test_unexpected_failure_in_recv_events": _REPLACED,
    "test_unexpected_failure_in_send_context": _REPLACED,
}

_MAX_QUEUE = dict.fromkeys(("test_max_queue", "test_max_queue_none", "test_max_queue_tuple"), _QUEUE)

_REDIRECT = "wants a redirect not to be followed, which websockets 17.4 follows as this does"
_CONNECT = "wants prepare_connect_request, which is how websockets works inside"
_USERINFO = "wants an escaped user name to stay escaped, which websockets 17.4 unescapes as this does"
_TEXT = "wants a text that websockets 17.4 has changed"
_WINDOW = "wants a window of 8 bits, which websockets 17.4 refuses as this does"

EXPECTED = {
    "asyncio.test_connection": {
        **_CONNECTION,
        "test_broadcast_reports_connection_failing_to_send": _LATER,
        "test_broadcast_skips_connection_failing_to_send": _LATER,
        "test_writing_in_send_context_fails": _LATER,
        "test_remote_address": _MOCKED,
        "test_write_limit": _MOCKED,
        "test_write_limits": _MOCKED,
    },
    "extensions.test_permessage_deflate": {"test_init": _WINDOW, "test_init_error": _WINDOW},
    "sync.test_connection": {
        **_CONNECTION,
        **_MAX_QUEUE,
        "test_broadcast_reports_connection_failing_to_send": _SOCKET,
        "test_broadcast_skips_connection_failing_to_send": _SOCKET,
        "test_writing_in_recv_events_fails": _SOCKET,
        "test_writing_in_send_context_fails": _SOCKET,
        "test_local_address": _SOCKET,
        "test_remote_address": _SOCKET,
        "test_close_expected_during_connecting": _THREAD,
    },
    "sync.test_router": {
        "test_force_redirect_server_name": _REDIRECT,
        "test_force_secure_redirect": _REDIRECT,
        "test_redirect": _REDIRECT,
        "test_secure_redirect": _REDIRECT,
    },
    "test_proxy": {
        "test_prepare_connect_request": _CONNECT,
        "test_prepare_connect_request_with_user_agent": _CONNECT,
        "test_parse_proxy_user_info": _USERINFO,
        "test_parse_valid_proxies": _USERINFO,
    },
    "test_uri": {"test_parse_user_info": _USERINFO, "test_parse_valid_uris": _USERINFO},
    "test_http11": {
        "test_parse_body_with_chunked_transfer_encoding_and_chunk_way_too_large": _TEXT,
        "test_parse_body_with_content_length_and_body_way_too_large": _TEXT,
    },
    "trio.test_connection": {
        **_CONNECTION,
        **_MAX_QUEUE,
        "test_broadcast_reports_connection_failing_to_send": _LATER,
        "test_broadcast_skips_connection_failing_to_send": _LATER,
        "test_writing_in_recv_events_fails": _LATER,
        "test_writing_in_send_context_fails": _LATER,
    },
    "trio.test_server": {
        "test_context_manager_closes_server": "looks at handlers_waiter, which is websockets' inside",
    },
}
"""For each file, the tests that do not pass, by their names without the class."""
