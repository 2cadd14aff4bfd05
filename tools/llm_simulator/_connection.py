"""One connection: requests in, answers out, one after another.

An answer that can go out at once is one send. One that takes time (a stream, a delay, a hang)
runs beside a watcher that goes on reading: the moment the client's side ends, the answer is
cancelled and counted. So a half-close counts as leaving, as it does with most HTTP servers.
"""

import os
import random
from collections.abc import Iterator

import attrs
import trio
from trio.lowlevel import ParkingLot

from tools.llm_simulator import _http
from tools.llm_simulator._http import BadRequestError, Request, RequestReader
from tools.llm_simulator._knobs import Knobs
from tools.llm_simulator._replies import Reply
from tools.llm_simulator._stats import Stats
from tools.llm_simulator._ticker import Ticker

_RECEIVE_BYTES = 65_536
_BATCH_BYTES = 16_384
_MOST_WAITING = 64  # pipelined requests read ahead; beyond, only a failed send shows a lost client


class CutError(Exception):
    """The answer was broken off on purpose; the connection has to go."""


@attrs.frozen
class Plan:
    """A request's answer, and the knobs for the way it is sent. `counted` ones appear in Stats."""

    reply: Reply
    knobs: Knobs
    counted: bool

    @property
    def takes_time(self) -> bool:
        """Whether the client can leave while the answer is under way."""
        return self.reply.events is not None or self.knobs.waits


@attrs.define(eq=False)
class Connection:
    """Sends what it is told to over one stream, and keeps the counters."""

    _stream: trio.abc.Stream
    _stats: Stats
    _ticker: Ticker
    _news: ParkingLot
    """Where those wait who want to see the counters change."""
    _reader: RequestReader = attrs.field(factory=RequestReader)
    _client_left: bool = False

    async def next_request(self) -> Request | None:
        """The next request, or None once the client has closed.

        Raises:
            BadRequestError: what came is no HTTP request.
            trio.BrokenResourceError: the connection was reset.
        """
        while not self._reader.ready:
            if not await self._receive():
                return None
            if self._reader.body_awaited:
                self._reader.body_awaited = False
                await self._stream.send_all(_http.CONTINUE)
        return self._reader.ready.popleft()

    async def refuse(self, error: BadRequestError) -> None:
        """Answer bytes that are no request, as far as the client still listens."""
        await self._stream.send_all(_http.head(error.status, content_length=0, close=True))

    async def answer(self, request: Request, plan: Plan) -> bool:
        """Send one answer; whether the connection can take another request."""
        self._stats.requests += plan.counted
        self._stats.active_requests += plan.counted
        self._news.unpark_all()
        try:
            if not plan.takes_time:
                await self._send_whole(request, plan.reply)
            elif not await self._send_watched(request, plan):
                return False
            self._stats.finished += plan.counted
        except trio.BrokenResourceError:
            self._stats.cut_by_client += plan.counted
            raise
        finally:
            self._stats.active_requests -= plan.counted
            self._news.unpark_all()
        return request.keep_alive

    async def _receive(self) -> bool:
        data = await self._stream.receive_some(_RECEIVE_BYTES)
        if data:
            self._reader.feed(data)
        return bool(data)

    async def _send_watched(self, request: Request, plan: Plan) -> bool:
        finished = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                if plan.reply.events is None:
                    await self._send_slowly(request, plan)
                else:
                    await self._send_stream(request, plan.reply, plan.knobs)
                finished = True
            except trio.BrokenResourceError:
                self._client_left = True
            except CutError:
                self._stats.cut_by_knob += 1
            nursery.cancel_scope.cancel()
        if not finished:
            self._stats.cut_by_client += self._client_left
        return finished

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Read ahead, to see the end of the client's side as it comes."""
        try:
            while len(self._reader.ready) < _MOST_WAITING:
                if not await self._receive():
                    break
            else:
                return
        except (trio.BrokenResourceError, BadRequestError):
            pass
        self._client_left = True
        scope.cancel()

    async def _send_whole(self, request: Request, reply: Reply) -> None:
        await self._stream.send_all(_whole(request, reply))

    async def _send_slowly(self, request: Request, plan: Plan) -> None:
        """A body of known length, after its delay, and only half of it where it is to break."""
        knobs = plan.knobs
        await _wait_for_head(knobs)
        data = _whole(request, plan.reply)
        if not knobs.breaks_body:
            await self._stream.send_all(data)
            return
        await self._stream.send_all(data[: len(data) - (len(plan.reply.body) + 1) // 2])
        await _break(knobs)

    async def _send_stream(self, request: Request, reply: Reply, knobs: Knobs) -> None:
        assert reply.events is not None
        await _wait_for_head(knobs)
        head = _http.head(
            reply.status,
            content_type=reply.content_type,
            headers=reply.headers,
            chunked=request.chunked_ok,
            close=not request.keep_alive,
        )
        self._stats.active_streams += 1
        self._news.unpark_all()
        try:
            await self._stream.send_all(head)
            await self._send_events(reply.events, request, knobs)
            self._stats.streams_finished += 1
        except (trio.Cancelled, trio.BrokenResourceError) as error:
            # Cancelled by the watcher, or by the simulator's own end, which is nobody's leaving.
            left = self._client_left or isinstance(error, trio.BrokenResourceError)
            self._stats.streams_cut_by_client += left
            raise
        finally:
            self._stats.active_streams -= 1

    async def _send_events(self, events: Iterator[bytes], request: Request, knobs: Knobs) -> None:
        frame = _http.chunk if request.chunked_ok else bytes
        last = _last_event(knobs)
        delayed = knobs.event_delay_s > 0
        pacer = _Pacer(knobs, self._ticker)
        batch: list[bytes] = []
        size = 0
        if last == 0:
            await _break(knobs)
        for count, event in enumerate(events, 1):
            if delayed and count > 1:
                await pacer.wait()
            batch.append(frame(event))
            size += len(event)
            if delayed or size >= _BATCH_BYTES or count == last:
                await self._flush(batch, waited=delayed)
                size = 0
            if count == last:
                await _break(knobs)
        if request.chunked_ok:
            await self._flush(batch, _http.LAST_CHUNK)
        else:
            await self._flush(batch)

    async def _flush(self, batch: list[bytes], last: bytes = b"", *, waited: bool = False) -> None:
        data = b"".join((*batch, last))
        # After a wait no other checkpoint is due, and a direct write saves a fifth of the CPU.
        sent_bytes = _write_now(self._stream, data) if waited else 0
        if sent_bytes < len(data):
            await self._stream.send_all(data[sent_bytes:])
        self._stats.events_sent += len(batch)
        self._news.unpark_all()
        batch.clear()


class _Pacer:
    """Waits between events: due times follow from the start, so that slow sends do not add up."""

    def __init__(self, knobs: Knobs, ticker: Ticker) -> None:
        self._ticker = ticker
        self._delay_s = knobs.event_delay_s
        self._jitter_ratio = knobs.jitter_ratio
        self._chance = _chance(knobs)
        self._due_s = trio.current_time()

    async def wait(self) -> None:
        self._due_s += _jittered(self._delay_s, self._jitter_ratio, self._chance)
        await self._ticker.until(self._due_s)


def _write_now(stream: trio.abc.Stream, data: bytes) -> int:
    """What the kernel takes at once, in bytes; a failure is for `send_all` to meet and name."""
    if not isinstance(stream, trio.SocketStream):
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


def _whole(request: Request, reply: Reply) -> bytes:
    close = not request.keep_alive
    return (
        _http.head(
            reply.status,
            content_type=reply.content_type,
            headers=reply.headers,
            content_length=len(reply.body),
            close=close,
        )
        + reply.body
    )


async def _wait_for_head(knobs: Knobs) -> None:
    if knobs.hang_before_head:
        await trio.sleep_forever()
    if knobs.head_delay_s:
        chance = _chance(knobs)
        await trio.sleep(_jittered(knobs.head_delay_s, knobs.jitter_ratio, chance))


async def _break(knobs: Knobs) -> None:
    """Never come back: go silent, or have the connection cut, whichever was to come first."""
    cut, hang = knobs.cut_after_events, knobs.hang_after_events
    if hang is not None and (cut is None or hang < cut):
        await trio.sleep_forever()
    raise CutError


def _last_event(knobs: Knobs) -> int:
    """The number of events after which to break, or -1."""
    told = [n for n in (knobs.cut_after_events, knobs.hang_after_events) if n is not None]
    return min(told, default=-1)


def _chance(knobs: Knobs) -> random.Random:
    return random.Random(knobs.seed)  # noqa: S311 - jitter


def _jittered(delay_s: float, ratio: float, chance: random.Random) -> float:
    return delay_s * chance.uniform(1 - ratio, 1 + ratio) if ratio else delay_s
