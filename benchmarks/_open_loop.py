"""Load that does not wait: calls leave at set times, answered or not, from a process of its own.

    python -m benchmarks._open_loop SPEC     (an OpenSpec as JSON; prints an OpenSample as JSON)

A closed loop sends less while answers are slow, and so leaves out the worst of what it measures
(coordinated omission). Here the times of all calls are drawn before the first (Poisson, by seed),
and a latency counts from the time that was set, not from when the call got out. How late this
process itself was is told: while that is small beside a latency, the latency is the runtime's.

It is kept lean as `_load` is. The wait for the next call is `select`, which counts microseconds;
epoll in Python rounds up to milliseconds.
"""

import gc
import random
import select
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from struct import Struct
from typing import Final, Protocol

import msgspec

from benchmarks._load import Template, WrongAnswer, answer_fields, check_answer, decoded_answer
from vastar_client.wire import ErrorClass, MessageType

__all__ = [
    "DRAIN_S",
    "Generator",
    "Line",
    "Noted",
    "OpenSample",
    "OpenSpec",
    "sample_of",
    "schedule_s",
]

_U32_BE: Final = Struct(">I")
_HEADER_BYTES: Final = 5
_DECODED_EVERY: Final = 64
DRAIN_S: Final = 5.0
"""Behind the last call, before its answer counts as lost."""
_TURN_CALLS: Final = 64
"""Sent in a row before answers are looked for: a late start is not made worse."""
_LONGEST_WAIT_S: Final = 0.5


class OpenSpec(msgspec.Struct, frozen=True):
    """What to do.

    Attributes:
        calls_per_s: the mean; times between calls are exponential.
        connections: the calls take turns on so many.
        begin_at_s: when to begin on the monotonic clock, which all processes share (Linux).
        warm_s: time from there on whose calls are not counted.
        seconds: counted time behind it.
    """

    socket_path: str
    url: str
    tenant: str
    calls_per_s: float
    connections: int
    begin_at_s: float
    warm_s: float
    seconds: float
    seed: int


class OpenSample(msgspec.Struct, frozen=True):
    """What became of the calls whose time lay in the counted time.

    Attributes:
        calls: how many there were.
        answered: with the upstream's answer.
        refused: by the runtime, by error class.
        p50_us, p99_us, p999_us: of those answered, from the set time to the answer.
        achieved_per_s: answers that came within the counted time, over that time.
        late_p99_us: how long behind its time a call was handed to the socket.
        held_back: calls that the socket had no room for at once; they are late beyond that.
        cores: CPU time of this process over the time it took.
    """

    calls: int
    answered: int
    refused: dict[str, int]
    p50_us: float
    p99_us: float
    late_p99_us: float
    held_back: int
    cores: float
    p999_us: float = 0.0
    achieved_per_s: float = 0.0


def schedule_s(spec: OpenSpec) -> list[float]:
    """The times of all calls, from the beginning on."""
    chance = random.Random(spec.seed)
    times_s: list[float] = []
    at_s = chance.expovariate(spec.calls_per_s)
    while at_s < spec.warm_s + spec.seconds:
        times_s.append(at_s)
        at_s += chance.expovariate(spec.calls_per_s)
    return times_s


class Line:
    """One connection: bytes that wait to be sent, and a piece of an answer."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.unsent = b""
        self._rest = b""

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def send(self, data: bytes) -> bool:
        """Send, or keep behind what is kept already; whether all of it went."""
        self.unsent += data
        if len(self.unsent) > len(data):
            return False
        self.flush()
        return not self.unsent

    def flush(self) -> None:
        """Send of what was kept what there is room for."""
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]

    def frames(self) -> list[bytes]:
        """The whole frames that have come."""
        received = self.socket.recv(65_536)
        if not received:
            raise WrongAnswer("the runtime closed the connection")
        data = self._rest + received
        found = []
        at = 0
        while len(data) - at >= _HEADER_BYTES:
            end = at + 4 + _U32_BE.unpack_from(data, at)[0]
            if end > len(data):
                break
            found.append(data[at:end])
            at = end
        self._rest = data[at:]
        return found


class Generator:
    """Sends every call at its time and notes what became of it. Ids count from 1.

    Attributes:
        lines: the connections.
        waits_s: seconds from the set time to the answer, by call; -1 where none has come.
        late_s: seconds from the set time to the sending, by call.
        refusals: the error class, by the call's number.
        held_back: calls that had to wait for room in the socket.
    """

    def __init__(self, spec: OpenSpec, times_s: list[float]) -> None:
        template = Template(spec.url, tenant=spec.tenant)
        self._frames = [template.frame(nth + 1) for nth in range(len(times_s))]
        self.lines = [Line(spec.socket_path) for _ in range(spec.connections)]
        self._times_s = [spec.begin_at_s + at_s for at_s in times_s]
        self._sent = 0
        self._open = len(times_s)
        self.waits_s = [-1.0] * len(times_s)
        self.late_s = [0.0] * len(times_s)
        self.refusals: dict[int, ErrorClass] = {}
        self.held_back = 0

    def run(self) -> None:
        """Send all of them, then wait for what is still open."""
        end_s = (self._times_s[-1] if self._times_s else 0.0) + DRAIN_S
        while self._open and (now_s := time.monotonic()) < end_s:
            self.send_due(now_s)
            wait_s = _LONGEST_WAIT_S
            if self._sent < len(self._times_s):
                wait_s = max(0.0, self._times_s[self._sent] - time.monotonic())
            full = [line for line in self.lines if line.unsent]
            readable, writable, _ = select.select(self.lines, full, (), wait_s)
            for line in writable:
                line.flush()
            for line in readable:
                self.take(line, time.monotonic())
        for line in self.lines:
            line.socket.close()

    def send_due(self, now_s: float) -> None:
        """Send the calls whose time has come, so many as are sent in one turn."""
        times_s = self._times_s
        nth, most = self._sent, min(len(times_s), self._sent + _TURN_CALLS)
        while nth < most and times_s[nth] <= now_s:
            self.late_s[nth] = time.monotonic() - times_s[nth]
            if not self.lines[nth % len(self.lines)].send(self._frames[nth]):
                self.held_back += 1
            nth += 1
        self._sent = nth

    def take(self, line: Line, now_s: float) -> None:
        """Note the answers that have come on `line`."""
        for frame in line.frames():
            request_id, error_class = answer_fields(frame, _HEADER_BYTES)
            nth = request_id - 1
            if frame[4] != MessageType.EXECUTE_RESPONSE or self.waits_s[nth] >= 0:
                raise WrongAnswer(f"{decoded_answer(frame)!r}")
            self.waits_s[nth] = now_s - self._times_s[nth]
            self._open -= 1
            if error_class:
                self.refusals[nth] = ErrorClass(error_class)
            elif not request_id % _DECODED_EVERY or request_id == 1:
                check_answer(frame)


class Noted(Protocol):
    """What a load noted of its calls; see `Generator`."""

    waits_s: list[float]
    late_s: list[float]
    refusals: dict[int, ErrorClass]
    held_back: int


def sample_of(spec: OpenSpec, times_s: list[float], load: Noted, cores: float) -> OpenSample:
    """The sample in one run."""
    counted = [nth for nth, at_s in enumerate(times_s) if at_s >= spec.warm_s]
    end_s = spec.warm_s + spec.seconds
    in_time = sum(
        spec.warm_s <= at_s + wait_s <= end_s
        for nth, (at_s, wait_s) in enumerate(zip(times_s, load.waits_s, strict=True))
        if wait_s >= 0 and nth not in load.refusals
    )
    refused = Counter(load.refusals[nth].name for nth in counted if nth in load.refusals)
    waits_s = sorted(
        load.waits_s[nth] for nth in counted if load.waits_s[nth] >= 0 and nth not in load.refusals
    )
    late_s = sorted(load.late_s[nth] for nth in counted)
    if not waits_s:
        raise WrongAnswer(f"no answer in the counted time: {dict(refused)}")
    return OpenSample(
        calls=len(counted),
        answered=len(waits_s),
        refused=dict(refused),
        p50_us=waits_s[len(waits_s) // 2] * 1e6,
        p99_us=waits_s[len(waits_s) * 99 // 100] * 1e6,
        late_p99_us=late_s[len(late_s) * 99 // 100] * 1e6,
        held_back=load.held_back,
        cores=cores,
        p999_us=waits_s[len(waits_s) * 999 // 1000] * 1e6,
        achieved_per_s=in_time / spec.seconds,
    )


def run(spec: OpenSpec) -> OpenSample:
    """Make the load of `spec`."""
    times_s = schedule_s(spec)
    load = Generator(spec, times_s)
    time.sleep(max(0.0, spec.begin_at_s - time.monotonic()))
    began_s, own_began_s = time.monotonic(), time.process_time()
    load.run()
    cores = (time.process_time() - own_began_s) / (time.monotonic() - began_s)
    return sample_of(spec, times_s, load, cores)


def main() -> None:
    """Run the load of the first argument."""
    gc.disable()
    spec = msgspec.json.decode(sys.argv[1], type=OpenSpec)
    print(msgspec.json.encode(run(spec)).decode())


if __name__ == "__main__":
    main()
