"""Readers of streams, straight from the upstream and through a runtime, in a process of their own.

    python -m benchmarks._stream_load SPEC     (one of the specs as JSON, with its "type")

Three tasks. First events: one stream after another, straight and through the runtime in turn, and
the time to the first event of each. Events: many streams of events at once, and how long each event
was under way since its upstream sent it; all streams of a runtime share one connection, and one
more may be among them that nobody reads. A body: a large download, by httpx, by our client, or by
hand.
"""

import gc
import select
import statistics
import sys
import time
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx
import msgspec

from benchmarks._load import WrongAnswer
from benchmarks._stream_lines import STALLED_ID, Direct, RuntimeLine
from vastar_client import RuntimeClient, RuntimeConfig
from vastar_client.wire import StreamChunk, StreamEnd

__all__ = [
    "BodySample",
    "BodySpec",
    "EventsSample",
    "EventsSpec",
    "FirstSample",
    "FirstSpec",
]

_EVENT: Final = b"data: "


class FirstSpec(msgspec.Struct, frozen=True, tag="first"):
    """How often to read a short stream of `url` in each way."""

    url: str
    socket_path: str
    pairs: int
    skip: int


class FirstSample(msgspec.Struct, frozen=True):
    """Medians in ms, from the request to the first event, and what each way added in its pair."""

    direct_ms: float
    by_hand_ms: float
    client_ms: float
    by_hand_added_ms: float
    client_added_ms: float


class EventsSpec(msgspec.Struct, frozen=True, tag="events"):
    """What to read: `streams` streams of `count` events each, from `upstream`, at once.

    The streams begin together, and their events come evenly spread over the interval.

    Attributes:
        socket_path: of the runtime; None goes straight to the upstream.
        stalled_url: a body that is asked for first and never read.
        skip: events at the beginning of each stream that do not count.
    """

    upstream: str
    streams: int
    count: int
    interval_us: int
    skip: int
    socket_path: str | None = None
    stalled_url: str | None = None

    def path(self, number: int) -> str:
        """Of a stream, counted from 0."""
        first_us = self.interval_us + self.interval_us * number // self.streams
        return f"/events/{self.count}/{self.interval_us}/{first_us}"


class EventsSample(msgspec.Struct, frozen=True):
    """How late events were, in ms since they were sent; `upstream_late_p99_ms` since they were due.

    Attributes:
        cores: CPU time of the load over the time it took.
    """

    events: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    upstream_late_p99_ms: float
    cores: float


class BodySpec(msgspec.Struct, frozen=True, tag="body"):
    """A download of `size_bytes` from `url`."""

    who: Literal["httpx", "client", "by hand"]
    url: str
    size_bytes: int
    socket_path: str


class BodySample(msgspec.Struct, frozen=True):
    """How long it took."""

    seconds: float


class _Latenesses:
    """The times of all events, as they come."""

    def __init__(self, skip: int) -> None:
        self._skip = skip
        self._seen: dict[int, int] = {}
        self.sent_ns: list[int] = []
        self.due_ns: list[int] = []

    def add(self, stream: int, data: bytes, now_ns: int) -> None:
        """Note the events in `data`, which came at `now_ns`."""
        for event in data.split(_EVENT)[1:]:
            count = self._seen[stream] = self._seen.get(stream, 0) + 1
            if count > self._skip:
                due, sent, _ = event.split(b" ", 2)
                self.sent_ns.append(now_ns - int(sent))
                self.due_ns.append(int(sent) - int(due))

    def sample(self, cores: float) -> EventsSample:
        """The figures."""
        late = sorted(self.sent_ns)
        due = sorted(self.due_ns)
        return EventsSample(
            events=len(late),
            p50_ms=late[len(late) // 2] / 1e6,
            p99_ms=late[len(late) * 99 // 100] / 1e6,
            worst_ms=late[-1] / 1e6,
            upstream_late_p99_ms=due[len(due) * 99 // 100] / 1e6,
            cores=cores,
        )


def read_firsts(spec: FirstSpec) -> FirstSample:
    """Read so many streams in each way, in turn, on connections that are kept."""
    path = urlsplit(spec.url).path
    direct, line = Direct(spec.url), RuntimeLine(spec.socket_path)
    config = RuntimeConfig(socket_path=spec.socket_path, use_environment=False)
    took_ms: list[tuple[float, float, float]] = []
    with RuntimeClient(config) as client:
        for number in range(spec.pairs + spec.skip):
            firsts = (
                _first_direct(direct, path),
                _first_by_hand(line, number + 1, spec.url),
                _first_by_client(client, spec.url),
            )
            if number >= spec.skip:
                took_ms.append(firsts)
    direct.socket.close()
    line.socket.close()
    direct_ms, by_hand_ms, client_ms = map(statistics.median, zip(*took_ms, strict=True))
    return FirstSample(
        direct_ms,
        by_hand_ms,
        client_ms,
        statistics.median(hand - straight for straight, hand, _ in took_ms),
        statistics.median(ours - straight for straight, _, ours in took_ms),
    )


def _first_direct(direct: Direct, path: str) -> float:
    began_s, first_s = time.perf_counter(), 0.0
    direct.ask(path)
    has_ended = False
    while not has_ended:
        data, has_ended = direct.take()
        if not first_s and _EVENT in data:
            first_s = time.perf_counter()
    return (first_s - began_s) * 1000


def _first_by_hand(line: RuntimeLine, request_id: int, url: str) -> float:
    began_s, first_s = time.perf_counter(), 0.0
    line.ask(request_id, url)
    while True:
        for frame in line.take():
            if isinstance(frame, StreamEnd):
                return (first_s - began_s) * 1000
            first_s = first_s or time.perf_counter()


def _first_by_client(client: RuntimeClient, url: str) -> float:
    began_s, first_s = time.perf_counter(), 0.0
    with client.stream("GET", url) as response:
        for _ in response.events():
            first_s = first_s or time.perf_counter()
    return (first_s - began_s) * 1000


def read_events(spec: EventsSpec) -> EventsSample:
    """Read all streams to their ends."""
    found = _Latenesses(spec.skip)
    began_s, cpu_s = time.monotonic(), time.process_time()
    if spec.socket_path is None:
        _read_directly(spec, found)
    else:
        _read_through(spec, spec.socket_path, found)
    return found.sample((time.process_time() - cpu_s) / (time.monotonic() - began_s))


def _read_directly(spec: EventsSpec, found: _Latenesses) -> None:
    streams = {}
    for number in range(spec.streams):
        stream = Direct(spec.upstream)
        stream.ask(spec.path(number))
        streams[stream.socket] = (number, stream)
    while streams:
        for ready in select.select(list(streams), [], [])[0]:
            number, stream = streams[ready]
            data, has_ended = stream.take()
            found.add(number, data, time.monotonic_ns())
            if has_ended:
                streams.pop(ready)[1].socket.close()


def _read_through(spec: EventsSpec, path: str, found: _Latenesses) -> None:
    line = RuntimeLine(path)
    if spec.stalled_url is not None:
        line.ask(STALLED_ID, spec.stalled_url)
    for number in range(spec.streams):
        line.ask(number + 1, spec.upstream + spec.path(number))
    rests = dict.fromkeys(range(1, spec.streams + 1), b"")
    while rests:
        for frame in line.take():
            if frame.request_id == STALLED_ID:
                continue
            if isinstance(frame, StreamEnd):
                del rests[frame.request_id]
                continue
            data = rests[frame.request_id] + bytes(_buffer(frame))
            whole, end, rests[frame.request_id] = data.rpartition(b"\n\n")
            found.add(frame.request_id, whole + end, line.received_ns)
    line.socket.close()


def _buffer(chunk: StreamChunk) -> bytes | bytearray | memoryview:
    return b"" if chunk.data is None else chunk.data


def download(spec: BodySpec) -> BodySample:
    """Read one body to its end.

    Raises:
        WrongAnswer: it was not all there.
    """
    began_s = time.perf_counter()
    size_bytes = {"httpx": _by_httpx, "client": _by_client, "by hand": _by_hand}[spec.who](spec)
    took_s = time.perf_counter() - began_s
    if size_bytes != spec.size_bytes:
        raise WrongAnswer(f"{size_bytes} bytes came, and not {spec.size_bytes}")
    return BodySample(took_s)


def _by_httpx(spec: BodySpec) -> int:
    with (
        httpx.Client(trust_env=False, timeout=60.0) as client,
        client.stream("GET", spec.url) as response,
    ):
        return sum(map(len, response.iter_bytes()))


def _by_client(spec: BodySpec) -> int:
    config = RuntimeConfig(socket_path=spec.socket_path, use_environment=False)
    with RuntimeClient(config) as client, client.stream("GET", spec.url) as response:
        return sum(map(len, response.iter_bytes()))


def _by_hand(spec: BodySpec) -> int:
    line = RuntimeLine(spec.socket_path)
    line.ask(1, spec.url)
    size_bytes = 0
    while True:
        for frame in line.take():
            if isinstance(frame, StreamEnd):
                line.socket.close()
                return size_bytes
            size_bytes += len(_buffer(frame))


def main() -> None:
    """Do what the argument says; print the sample."""
    gc.disable()
    spec = msgspec.json.decode(sys.argv[1], type=FirstSpec | EventsSpec | BodySpec)
    sample: FirstSample | EventsSample | BodySample
    match spec:
        case FirstSpec():
            sample = read_firsts(spec)
        case EventsSpec():
            sample = read_events(spec)
        case BodySpec():
            sample = download(spec)
    print(msgspec.json.encode(sample).decode())


if __name__ == "__main__":
    main()
