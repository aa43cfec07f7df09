"""A charging station and its central system by ocpp, which is given the connections of websockets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.enums import Action, RegistrationStatus

told: list[Any] = []


class Central(ChargePoint):  # type: ignore[misc]
    @on(Action.boot_notification)  # type: ignore[untyped-decorator]
    def on_boot(self, **kwargs: Any) -> Any:
        now = datetime.now(UTC).isoformat()
        return call_result.BootNotification(current_time=now, interval=10, status=RegistrationStatus.accepted)


class Station(ChargePoint):  # type: ignore[misc]
    @on(Action.reset)  # type: ignore[untyped-decorator]
    def on_reset(self, **kwargs: Any) -> Any:
        return call_result.Reset(status="Accepted")


async def central(ws: websockets.ServerConnection) -> None:
    assert ws.subprotocol == "ocpp1.6"
    assert ws.request is not None
    station = Central(ws.request.path.strip("/"), ws)
    listening = asyncio.create_task(station.start())
    told.append(await station.call(call.Reset(type="Hard")))
    await ws.close(1001, "restart")
    try:
        await listening
    except websockets.exceptions.ConnectionClosed as exc:
        told.append(str(exc))


async def main() -> None:
    subprotocols: Any = ["ocpp2.0.1", "ocpp1.6"]
    async with (
        asyncio.timeout(20),
        websockets.serve(central, "127.0.0.1", 0, subprotocols=subprotocols[1:]) as server,
    ):
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/CP_1"
        async with websockets.connect(uri, subprotocols=subprotocols) as ws:
            station = Station("CP_1", ws)
            listening = asyncio.create_task(station.start())
            answer = await station.call(call.BootNotification(charge_point_model="m", charge_point_vendor="v"))
            assert answer.status == "Accepted", answer
            try:
                await listening
            except websockets.exceptions.ConnectionClosedOK as exc:
                assert str(exc) == "received 1001 (going away) restart; then sent 1001 (going away) restart", exc
            else:
                raise AssertionError("the station's loop returned")
    assert told[0].status == "Accepted", told
    assert told[1] == "sent 1001 (going away) restart; then received 1001 (going away) restart", told


assert websockets.__name__ == "wsfast.websockets"
asyncio.run(main())
