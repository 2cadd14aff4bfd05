"""The load of somebody who speaks the protocol himself, and records every frame that comes.

Each round is a connection of its own: some calls side by side, plain and streamed, some of them
cancelled, health checks between them. Every frame goes through the client's own end of the
protocol, which refuses what the state of the connection does not allow, and final frames are
counted by id. In other rounds the frames are wrong: there the runtime has to bear it, no more.
"""

import json
import random
import time
from collections import Counter
from contextlib import suppress
from typing import Final

import attrs
import trio

from tools.soak._async_load import Orders
from tools.soak._diary import Diary
from tools.soak._mix import Planned
from tools.soak._words import Spec
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Cancel,
    Connection,
    CreditUpdate,
    Disposition,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    Message,
    RemoteProtocolError,
    Role,
    StreamChunk,
    StreamEnd,
)

__all__ = ["RawLoad"]

_RECEIVE_BYTES: Final = 65_536
_DEADLINE_MS: Final = 4_000
_PATIENCE_S: Final = 40.0
_SURPLUS_S: Final = 0.05
_AGAIN_S: Final = 0.1
_WRONG_SHARE: Final = 0.2
_LEFT_SHARE: Final = 0.1
_MOST_CALLS: Final = 12
_WRONG: Final = (
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff\x00garbage",
    b"\x00\x00\x00\x05\x00abcd",
    b"\x00\x00\x00\x09\x63whatever",
    b"\x00\x00\x00\x02\x01x",
    b"\x00\x10\x00\x00\x00half a frame",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
)


@attrs.define(eq=False)
class _Round:
    """The calls of one connection."""

    calls: dict[int, Planned] = attrs.field(factory=dict)
    finals: Counter[int] = attrs.field(factory=Counter)
    bodies: dict[int, bytearray] = attrs.field(factory=dict)

    @property
    def is_over(self) -> bool:
        return len(self.finals) == len(self.calls)


class RawLoad:
    """Rounds of calls.

    Args:
        spec: of the client.
        diary: told of each call.
        orders: when to rest.
    """

    def __init__(self, spec: Spec, diary: Diary, orders: Orders) -> None:
        self._spec = spec
        self._diary = diary
        self._orders = orders
        self._chance = random.Random(f"{spec.seed}/{spec.name}")  # noqa: S311 - no secret
        self._made = 0

    async def run(self) -> None:
        """Make rounds while the orders are to go."""
        while True:
            if await self._orders.next() == "rest":
                self._diary.rested()
            while not self._orders.resting.is_set():
                count = self._chance.randint(1, _MOST_CALLS)
                with suppress(OSError, trio.BrokenResourceError):
                    if self._chance.random() < _WRONG_SHARE:
                        await self._wrong_frames()
                    else:
                        await self._round(count)
                pause_s = max(count / self._spec.calls_per_s, _AGAIN_S)
                with trio.move_on_after(pause_s * self._chance.uniform(0.5, 1.5)):
                    await self._orders.resting.wait()

    async def _wrong_frames(self) -> None:
        async with await trio.open_unix_socket(self._spec.socket_path) as stream:
            await stream.send_all(self._chance.choice(_WRONG))
            with trio.move_on_after(self._chance.uniform(0, 0.1)):
                while await stream.receive_some(_RECEIVE_BYTES):
                    pass

    async def _round(self, count: int) -> None:
        stream = await trio.open_unix_socket(self._spec.socket_path)
        wire = Connection(Role.CLIENT)
        now = _Round()
        requests = [self._request(now, number) for number in range(1, count + 1)]
        frames: list[Message] = []
        for request in requests:
            frames.append(request)
            if self._chance.random() < _LEFT_SHARE:
                frames.append(Cancel(request.request_id))
            if self._chance.random() < _LEFT_SHARE:
                frames.append(HealthCheck())
        for call in now.calls.values():
            self._diary.began(call)
        async with stream:
            with suppress(trio.BrokenResourceError):
                sent = (buffer for frame in frames for buffer in wire.send(frame))
                await stream.send_all(b"".join(map(bytes, sent)))
            with trio.move_on_after(_PATIENCE_S):
                await self._receive(stream, wire, now)
            if now.is_over and not self._orders.resting.is_set():
                with trio.move_on_after(_SURPLUS_S):
                    await self._receive(stream, wire, now, is_surplus=True)
        self._close(now)

    def _request(self, now: _Round, number: int) -> ExecuteRequest:
        chance = self._chance
        self._made += 1
        call_id = f"{self._spec.name}-{self._made}"
        what = chance.choice(["ok", "ok", "ok", "slow", "events", "busy"])
        amount = chance.randint(0, 50)
        is_post = what != "events" and chance.random() < 0.5  # noqa: PLR2004 - every other one
        url = f"{self._spec.steady}/{what}/{call_id}/{amount}"
        is_streamed = what == "events" or chance.random() < _LEFT_SHARE
        call = Planned(
            call_id,
            "raw stream" if is_streamed else "raw",
            "POST" if is_post else "GET",
            url,
            _DEADLINE_MS / 1000,
            chance.choice(["acme", "globex"]),
            "",
            is_streamed=is_streamed,
            amount=amount,
        )
        now.calls[number] = call
        now.bodies[number] = bytearray()
        return ExecuteRequest(
            number,
            call.tenant,
            "http",
            "request",
            payload=json.dumps({"url": url, "method": call.method}).encode(),
            deadline_at_ms=int(time.time() * 1000) + _DEADLINE_MS,
            stream=is_streamed,
        )

    async def _receive(
        self,
        stream: trio.SocketStream,
        wire: Connection,
        now: _Round,
        *,
        is_surplus: bool = False,
    ) -> None:
        """Take frames until all have ended, or the connection does."""
        try:
            while is_surplus or not now.is_over:
                event = wire.next_event()
                if event is END_OF_STREAM:
                    return
                if event is NEED_DATA:
                    data = b""
                    with suppress(trio.BrokenResourceError):
                        data = bytes(await stream.receive_some(_RECEIVE_BYTES))
                    wire.receive_data(data)
                elif isinstance(event, StreamChunk):
                    data = bytes(event.data or b"")
                    now.bodies.setdefault(event.request_id, bytearray()).extend(data)
                    credit = CreditUpdate(
                        len(data), request_id=event.request_id, connection_bytes=len(data)
                    )
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(b"".join(map(bytes, wire.send(credit))))
                elif isinstance(event, ExecuteResponse | StreamEnd):
                    self._final(event, now)
        except RemoteProtocolError as error:
            # Half a frame at the end of a runtime that was killed is its right.
            if not str(error).count("inside a frame") and now.calls:
                self._diary.look(f"a frame that may not come here: {error}")

    def _final(self, final: ExecuteResponse | StreamEnd, now: _Round) -> None:
        number = final.request_id
        call = now.calls.get(number)
        now.finals[number] += 1
        if call is None:
            self._diary.look(f"a final frame for {number}, which nobody asked for")
            return
        if now.finals[number] > 1:
            self._diary.look(f"{call.id} got {now.finals[number]} final frames")
            return
        if final.error_class is ErrorClass.SUCCESS:
            self._look_at(final, call, now)
            self._diary.ended(call, "answer", final.disposition, final.attempts)
            return
        how = "draining" if final.refused_by == "drain:runtime" else final.error_class.name
        self._diary.ended(call, how, final.disposition, final.attempts)

    def _look_at(self, final: ExecuteResponse | StreamEnd, call: Planned, now: _Round) -> None:
        if isinstance(final, StreamEnd):
            body = now.bodies[final.request_id].decode("latin1")
        else:
            body = json.loads(bytes(final.payload or b"{}")).get("body", "")  # type: ignore[arg-type]  # one buffer
        if call.id not in body and call.amount:
            self._diary.look(f"the answer to {call.id} is that of another: {body[:60]!r}")

    def _close(self, now: _Round) -> None:
        """Calls without a final frame: the connection ended under them."""
        for number, call in now.calls.items():
            if not now.finals[number]:
                self._diary.ended(call, "lost", Disposition.UNKNOWN)
