"""Any frames in any order: each request has one final frame, credit is kept, nothing is left."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sessions import CallerEnd, limits, request, session_with
from tests.support.streamed_sessions import script
from vastar_client.wire import (
    END_OF_STREAM,
    Cancel,
    CreditUpdate,
    ErrorClass,
    ExecuteResponse,
    HealthCheck,
    KeepAlive,
    RequestChunk,
    StreamChunk,
    StreamEnd,
    StreamStart,
)

WINDOW = 65_536
SHARED = 1_048_576
IDS = st.integers(0, 4)
SIZES = st.sampled_from([0, 1, 5000, 40_000, 65_536])

REQUESTS = st.one_of(
    st.tuples(
        st.just("stream"), IDS, st.sampled_from(["head x", "1 head x70000 20 x", "head x300000"])
    ),
    st.tuples(st.just("call"), IDS, st.sampled_from(["0", "1", "40"])),
    st.tuples(st.just("body"), IDS, st.sampled_from(["all", "take 1 all", "0", "3 take"])),
    st.tuples(
        st.just("both"), IDS, st.sampled_from(["all head x9", "take head x99999 all", "head 2 all"])
    ),
)
POLITE = st.one_of(
    REQUESTS,
    st.tuples(st.just("chunk"), IDS, SIZES, st.booleans()),
    st.tuples(st.just("cancel"), IDS),
    st.tuples(st.just("credit"), IDS, st.sampled_from([0, 1, 10_000, 100_000])),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.5, 1.0, 16.0])),
    st.tuples(st.just("health")),
)
RUDE = st.one_of(
    POLITE,
    st.tuples(st.just("raw chunk"), IDS, st.integers(0, 3), SIZES, st.booleans()),
    st.tuples(st.just("credit"), IDS, st.just(2**31 - 1)),
    st.tuples(st.just("shared credit"), st.sampled_from([0, 1, SHARED, 2**31 - 1])),
    st.tuples(
        st.just("junk"), st.sampled_from([b"\0\0\0\0", b"\0\0\0\x02\x07\0", b"\0\0\0\x01\x0a"])
    ),
)
Actions = Sequence[tuple[Any, ...]]


class AnyCaller:
    """Does what it is told, and counts what comes back."""

    def __init__(self, end: CallerEnd) -> None:
        self._end = end
        self.asked: Counter[int] = Counter()
        self.finals: Counter[int] = Counter()
        self.complaints: list[str] = []
        self.data_bytes = 0
        self.granted_bytes = SHARED
        self.body_credit: Counter[int] = Counter()
        self.shared_credit = SHARED
        self.sequences: Counter[int] = Counter()
        self.begun: set[int] = set()

    async def receive(self) -> None:
        while (frame := await self._end.receive()) is not END_OF_STREAM:
            match frame:
                case StreamEnd() | ExecuteResponse():
                    self._final(frame)
                case StreamStart():
                    assert frame.request_id not in self.begun
                    self.begun.add(frame.request_id)
                case StreamChunk():
                    assert frame.request_id in self.begun
                    self.data_bytes += len(frame.data or b"")
                    assert self.data_bytes <= self.granted_bytes
                case CreditUpdate():
                    self.body_credit[frame.request_id] += frame.credit_delta
                    self.shared_credit += frame.connection_bytes
                case KeepAlive():
                    assert self.finals[frame.request_id] < self.asked[frame.request_id]

    def _final(self, frame: StreamEnd | ExecuteResponse) -> None:
        assert frame.error_message != "internal error"
        if not frame.request_id and frame.error_class is ErrorClass.INVALID_REQUEST:
            self.complaints.append(frame.error_message or "")
        self.finals[frame.request_id] += 1
        if isinstance(frame, StreamEnd) and "in flight" not in (frame.error_message or ""):
            self.begun.discard(frame.request_id)

    async def act(self, action: tuple[Any, ...]) -> None:
        match action:
            case ("sleep", seconds):
                await trio.sleep(seconds)
            case ("health",):
                await self._end.send(HealthCheck())
            case ("junk", data):
                await self._end.send_bytes(data)
            case ("cancel", request_id):
                await self._end.send(Cancel(request_id))
            case ("credit", request_id, delta):
                if request_id:
                    await self._end.send(CreditUpdate(credit_delta=delta, request_id=request_id))
            case ("shared credit", delta):
                self.granted_bytes += delta
                await self._end.send(CreditUpdate(connection_bytes=delta))
            case ("raw chunk", request_id, sequence, size, last):
                self.shared_credit -= size
                await self._end.send(RequestChunk(request_id, sequence, bytes(size), last))
            case ("chunk", request_id, size, last):
                await self._chunk(request_id, size, last)
            case (what, request_id, words):
                await self._ask(what, request_id, words)

    async def _ask(self, what: str, request_id: int, words: str) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if self.asked[request_id] == self.finals[request_id]:
            self.body_credit[request_id], self.sequences[request_id] = WINDOW, 0
        self.asked[request_id] += 1
        flags = {"stream": what in {"stream", "both"}, "body_follows": what in {"body", "both"}}
        await self._end.send(request(request_id, words, **flags))

    async def _chunk(self, request_id: int, size: int, last: bool) -> None:
        await trio.testing.wait_all_tasks_blocked()
        size = min(size, self.body_credit[request_id], self.shared_credit)
        if self.asked[request_id] != self.finals[request_id]:
            self.body_credit[request_id] -= size
        self.shared_credit -= size
        sequence = self.sequences[request_id]
        self.sequences[request_id] += 1
        await self._end.send(RequestChunk(request_id, sequence, bytes(size), last))


async def _run(actions: Actions, *, polite: bool) -> None:
    async with (
        trio.open_nursery() as nursery,
        session_with({"test": script}, limits(max_in_flight=3)) as (end, state),
    ):
        caller = AnyCaller(end)
        nursery.start_soon(caller.receive)
        await trio.testing.wait_all_tasks_blocked()
        for action in actions:
            try:
                await caller.act(action)
            except trio.BrokenResourceError:
                assert not polite
                break
        if state.connections:
            await end.half_close()
        await trio.sleep(50)
        await trio.testing.wait_all_tasks_blocked()
        assert state.calls_in_flight == 0
        assert state.connections == 0, "a half-closed caller is not waited for once it has all"
        if polite:
            assert caller.finals == +caller.asked
        else:
            for request_id in range(1, 5):
                assert caller.finals[request_id] <= caller.asked[request_id]
        nursery.cancel_scope.cancel()


def _in_virtual_time(actions: Actions, *, polite: bool) -> None:
    async def main() -> None:
        await _run(actions, polite=polite)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@given(st.lists(POLITE, min_size=5, max_size=50))
def test_each_request_of_a_caller_that_keeps_the_rules_has_one_final_frame(actions):
    _in_virtual_time(actions, polite=True)


@given(st.lists(RUDE, min_size=5, max_size=50))
def test_one_that_breaks_them_harms_only_itself(actions):
    _in_virtual_time(actions, polite=False)
