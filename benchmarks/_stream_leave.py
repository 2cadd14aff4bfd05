"""Streams that are left after their first event, in a process of their own: when does it end?

    python -m benchmarks._stream_leave SPEC     (a LeaveSpec as JSON)

The upstream is a thread of this process, so that both ends are timed by one clock: from the `break`
that leaves the loop over the events to the instant at which the upstream finds itself left.
"""

import gc
import socket
import statistics
import sys
import threading
import time
from queue import SimpleQueue
from typing import Final

import msgspec

from vastar_client import RuntimeClient, RuntimeConfig

__all__ = ["LeaveSample", "LeaveSpec", "leave"]

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
_EVENT: Final = b"data: x\n\n"
_PATIENCE_S: Final = 30.0
_READ_BYTES: Final = 65_536


class LeaveSpec(msgspec.Struct, frozen=True):
    """How often to leave a stream."""

    socket_path: str
    times: int
    skip: int


class LeaveSample(msgspec.Struct, frozen=True):
    """Ms from leaving the loop to the upstream's end."""

    median_ms: float
    worst_ms: float


def leave(spec: LeaveSpec) -> LeaveSample:
    """Begin and leave one stream after another."""
    ends_ns: SimpleQueue[int] = SimpleQueue()
    config = RuntimeConfig(socket_path=spec.socket_path, use_environment=False)
    taken_ms: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, RuntimeClient(config) as client:
        count = spec.skip + spec.times
        upstream = threading.Thread(target=_serve, args=(listener, count, ends_ns), daemon=True)
        upstream.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        for _ in range(count):
            left_ns = 0
            for _event in client.stream("GET", url):
                left_ns = time.monotonic_ns()
                break
            taken_ms.append((ends_ns.get(timeout=_PATIENCE_S) - left_ns) / 1e6)
        upstream.join(_PATIENCE_S)
    counted = taken_ms[spec.skip :]
    return LeaveSample(statistics.median(counted), max(counted))


def _serve(listener: socket.socket, count: int, ends_ns: "SimpleQueue[int]") -> None:
    """Give each connection one event and no end, and note when it is closed."""
    for _ in range(count):
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(_READ_BYTES)
            accepted.sendall(_HEAD + _EVENT)
            try:
                while accepted.recv(_READ_BYTES):
                    pass
            except ConnectionResetError:
                pass  # an end like any other
            ends_ns.put(time.monotonic_ns())


def main() -> None:
    """Do what the argument says; print the sample."""
    gc.disable()
    spec = msgspec.json.decode(sys.argv[1], type=LeaveSpec)
    print(msgspec.json.encode(leave(spec)).decode())


if __name__ == "__main__":
    main()
