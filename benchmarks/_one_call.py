"""One call at a time on blocking sockets, in its own process: the shortest way that there is.

    python -m benchmarks._one_call SPEC     (an OneCallSpec as JSON; prints OneCallTimes as JSON)

`health` asks the runtime for its health, `get` makes a GET through it, `direct` makes the same GET
on a raw socket to the upstream. Each is `count` round trips on one connection after `warm` that do
not count. `first` makes a GET through the runtime for a workspace that has made none, and so has no
connection: `count` times, and then, as `warm_us`, as many again for those same workspaces. Frames
are made before the clock runs; every answer is checked after it has stopped.
"""

import gc
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from benchmarks._load import WrongAnswer, check_answer
from benchmarks._upstream import SMALL_BODY
from vastar_client.wire import (
    Connection,
    ExecuteRequest,
    HealthCheck,
    HealthResponse,
    HttpRequest,
    Message,
    PayloadFormat,
    Role,
    encode_http_request,
)

__all__ = ["Kind", "OneCallSpec", "OneCallTimes"]

Kind: TypeAlias = Literal["health", "get", "direct", "first"]
_RoundTrip: TypeAlias = Callable[[], bytes]
_LENGTH_BYTES: Final = 4
_READ_BYTES: Final = 65_536


class OneCallSpec(msgspec.Struct, frozen=True):
    """What to do, how often."""

    kind: Kind
    socket_path: str
    url: str
    count: int
    warm: int = 200


class OneCallTimes(msgspec.Struct, frozen=True):
    """The time of each round trip, in the order they were made."""

    us: list[float]
    warm_us: list[float] = []


def _frame(message: Message) -> bytes:
    return b"".join(Connection(Role.CLIENT).send(message))


def _get(url: str, workspace: str = "") -> bytes:
    return _frame(
        ExecuteRequest(
            request_id=1,
            tenant_id="default",
            workspace_id=workspace or None,
            connector_name="http",
            operation="request",
            payload=b"".join(encode_http_request(HttpRequest(url))),
            payload_format=PayloadFormat.NATIVE,
        )
    )


def _exchange(sock: socket.socket, frame: bytes) -> bytes:
    """Send a frame and receive one."""
    sock.sendall(frame)
    data = sock.recv(_READ_BYTES)
    while len(data) < _LENGTH_BYTES or len(data) < _LENGTH_BYTES + int.from_bytes(data[:4]):
        more = sock.recv(_READ_BYTES)
        if not more:
            raise WrongAnswer("the runtime closed the connection")
        data += more
    return data


def _exchange_next(sock: socket.socket, frames: Iterator[bytes]) -> bytes:
    return _exchange(sock, next(frames))


def _runtime_socket(spec: OneCallSpec) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(spec.socket_path)
    return sock


def _timed(count: int, make: _RoundTrip, check: Callable[[bytes], None]) -> list[float]:
    taken_us = []
    for _ in range(count):
        began_ns = time.perf_counter_ns()
        answer = make()
        taken_us.append((time.perf_counter_ns() - began_ns) / 1000)
        check(answer)
    return taken_us


def _check_health(frame: bytes) -> None:
    connection = Connection(Role.CLIENT)
    connection.send(HealthCheck())  # an answer belongs to a question
    connection.receive_data(frame)
    if not isinstance(message := connection.next_event(), HealthResponse):
        raise WrongAnswer(f"{message!r}")


def _check_direct(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(SMALL_BODY):
        raise WrongAnswer(f"{answer!r}")


def _direct(spec: OneCallSpec) -> list[float]:
    """On a raw socket; the upstream's answers are small enough to come in one piece."""
    where = urlsplit(spec.url)
    head = f"GET {where.path} HTTP/1.1\r\nhost: {where.netloc}\r\n\r\n".encode()
    assert where.hostname is not None
    with socket.create_connection((where.hostname, where.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def round_trip() -> bytes:
            sock.sendall(head)
            return sock.recv(_READ_BYTES)

        _timed(spec.warm, round_trip, _check_direct)
        return _timed(spec.count, round_trip, _check_direct)


def _through(spec: OneCallSpec) -> list[float]:
    """Through the runtime, or no further than to it."""
    healthy = spec.kind == "health"
    frame = _frame(HealthCheck()) if healthy else _get(spec.url)
    check = _check_health if healthy else check_answer
    with _runtime_socket(spec) as sock:
        _timed(spec.warm, lambda: _exchange(sock, frame), check)
        return _timed(spec.count, lambda: _exchange(sock, frame), check)


def _first_and_warm(spec: OneCallSpec) -> OneCallTimes:
    frames = [_get(spec.url, f"workspace-{number}") for number in range(spec.count)]
    with _runtime_socket(spec) as sock:
        _timed(1, lambda: _exchange(sock, _get(spec.url)), check_answer)  # the process's very first
        rounds = []
        for _ in range(2):
            left = iter(frames)
            rounds.append(_timed(spec.count, partial(_exchange_next, sock, left), check_answer))
    return OneCallTimes(*rounds)


def run(spec: OneCallSpec) -> OneCallTimes:
    """Make the calls of `spec`."""
    if spec.kind == "first":
        return _first_and_warm(spec)
    return OneCallTimes(_direct(spec) if spec.kind == "direct" else _through(spec))


def main() -> None:
    """Run the spec of the first argument."""
    gc.disable()
    spec = msgspec.json.decode(sys.argv[1], type=OneCallSpec)
    print(msgspec.json.encode(run(spec)).decode())


if __name__ == "__main__":
    main()
