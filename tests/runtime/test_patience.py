"""Silence and slowness within a frame, idleness between frames."""

import pytest
import trio
import trio.testing

from tests.support.sessions import request
from vastar_client.wire import NEED_DATA, Connection, RemoteProtocolError, Role
from vastar_runtime.patience import MIN_BYTES_PER_S, Idle, Patience
from vastar_runtime.transport import StreamChannel

FRAME = b"".join(Connection(Role.CLIENT).send(request(1, payload=b"x" * 3_000_000)))


class Pair:
    """A connection's two ends, and the patience of its reader."""

    def __init__(self, silence_s: float = 30, idle_s: float = 0) -> None:
        ours, self.theirs = trio.testing.memory_stream_pair()
        self.channel = StreamChannel(ours)
        self.wire = Connection(Role.RUNTIME)
        self.patience = Patience(silence_s, idle_s)
        self.is_busy = False

    async def receive(self) -> None:
        while self.wire.next_event() is NEED_DATA:
            await self.patience.receive(self.channel, self.wire, lambda: self.is_busy)

    async def send_at(self, bytes_per_s: int) -> None:
        for start in range(0, len(FRAME), bytes_per_s):
            await self.theirs.send_all(FRAME[start : start + bytes_per_s])
            await trio.sleep(1)


async def test_a_frame_at_the_least_speed_arrives(autojump_clock: trio.abc.Clock) -> None:
    pair = Pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.send_at, MIN_BYTES_PER_S)
        await pair.receive()


async def test_a_slower_one_does_not_though_it_is_never_silent(
    autojump_clock: trio.abc.Clock,
) -> None:
    pair = Pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.send_at, MIN_BYTES_PER_S // 4)
        with pytest.raises(RemoteProtocolError, match="too slowly") as caught:
            await pair.receive()
        nursery.cancel_scope.cancel()
    assert caught.value.closes
    assert 35 < trio.current_time() < 45


async def test_idleness_is_limited_where_that_is_asked_for_and_no_call_is_under_way(
    autojump_clock: trio.abc.Clock,
) -> None:
    pair = Pair(idle_s=100)
    pair.is_busy = True
    with trio.move_on_after(1000):
        await pair.receive()
    assert trio.current_time() >= 1000
    pair.is_busy = False
    with pytest.raises(Idle):
        await pair.receive()
    assert trio.current_time() < 1101
