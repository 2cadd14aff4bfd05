"""The load of an `AsyncRuntimeClient`: some callers on one connection, each one call at a time."""

import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio

from tools.soak._diary import Diary
from tools.soak._mix import Mix, Planned
from tools.soak._words import Spec
from vastar_client import AsyncRuntimeClient, ConnectorException, RuntimeConfig, RuntimeUnavailable

__all__ = ["Orders", "options_of", "run_async"]

_PIECE_BYTES = 16_384
_AGAIN_S = 0.1


@attrs.define(eq=False)
class Orders:
    """What the client was told: each order is carried out, also where they come faster than that.

    Attributes:
        resting: set once the calls that began with the last `go` are to end.
    """

    resting: trio.Event = attrs.field(factory=trio.Event)
    _given: deque[str] = attrs.field(factory=deque)
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def rest(self) -> None:
        """Finish what is under way and begin nothing."""
        self.resting.set()
        self._give("rest")

    def go(self) -> None:
        """Call again."""
        self.resting = trio.Event()
        self._give("go")

    def _give(self, order: str) -> None:
        self._given.append(order)
        self._news.unpark_all()

    async def next(self) -> str:
        """The next order: "go" or "rest"."""
        while not self._given:
            await self._news.park()
        return self._given.popleft()


def options_of(call: Planned) -> dict[str, Any]:
    """What both clients take as options of the request, but for the body."""
    return {
        "timeout_s": call.timeout_s,
        "tenant_id": call.tenant,
        "workspace_id": call.workspace,
        "idempotency_key": call.key,
    }


async def run_async(spec: Spec, diary: Diary, orders: Orders) -> None:
    """Make calls while the orders are to go; with a new client behind every rest."""
    mix = Mix(spec)
    config = RuntimeConfig(socket_path=spec.socket_path, use_environment=False)
    while True:
        if await orders.next() == "rest":
            diary.rested()
        while not orders.resting.is_set():
            async with contextlib.AsyncExitStack() as stack:
                client = AsyncRuntimeClient(config)
                try:
                    await stack.enter_async_context(client)
                except RuntimeUnavailable:
                    await trio.sleep(_AGAIN_S)
                    continue
                async with trio.open_nursery() as callers:
                    for _ in range(spec.at_once):
                        callers.start_soon(_caller, client, mix, diary, orders)


async def _caller(client: AsyncRuntimeClient, mix: Mix, diary: Diary, orders: Orders) -> None:
    while not orders.resting.is_set():
        call = mix.next()
        diary.began(call)
        try:
            await _make(client, call, diary)
        except ConnectorException as error:
            diary.failed(call, error)
        with trio.move_on_after(mix.pause_s()):
            await orders.resting.wait()


async def _make(client: AsyncRuntimeClient, call: Planned, diary: Diary) -> None:
    """Make a call to its end. Raises ConnectorException."""
    if call.kind == "health":
        diary.told_health(call, await client.health(call.timeout_s))
    elif call.kind == "sql":
        rows = await client.query(
            "select ?, 1", [call.id], source="soak", tenant_id="acme", timeout_s=call.timeout_s
        )
        diary.told_row(call, rows[0][0])
    elif call.is_streamed:
        await _read(client, call, diary)
    else:
        await _plain(client, call, diary)


async def _plain(client: AsyncRuntimeClient, call: Planned, diary: Diary) -> None:
    options = options_of(call)
    if call.method == "POST":
        options["body"] = _pieces(call.body) if call.is_upload else call.body
    send = client.post if call.method == "POST" else client.get
    with trio.move_on_after(math.inf if call.leaves_after is None else call.leaves_after) as scope:
        response = await send(call.url, **options)
    if scope.cancelled_caught:
        diary.ended(call, "left")
    else:
        diary.answered(call, response.body, response.disposition, response.attempts)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


async def _read(client: AsyncRuntimeClient, call: Planned, diary: Diary) -> None:
    """A stream, read to its end or left."""
    async with client.stream(call.method, call.url, **options_of(call)) as response:
        if response.is_sse:
            data: list[str] = []
            async for event in response.events():
                data.append(event.data)
                if _is_enough(call, len(data)):
                    break
            left = _is_enough(call, len(data))
            diary.look_at_events(call, data, is_whole=not left)
        else:
            parts: list[bytes] = []
            async for part in response.iter_bytes():
                parts.append(part)
                if _is_enough(call, len(parts)):
                    break
            left = _is_enough(call, len(parts))
    if left:
        diary.ended(call, "left")
    elif response.is_sse:
        diary.ended(call, "answer", response.disposition, response.attempts)
    else:
        diary.answered(call, b"".join(parts), response.disposition, response.attempts)


def _is_enough(call: Planned, count: int) -> bool:
    return call.leaves_after is not None and count >= call.leaves_after
