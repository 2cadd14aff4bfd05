"""The load on the runtime: a closed loop over plain sockets, in its own process.

    python -m benchmarks._load SPEC     (a LoadSpec as JSON; prints a Sample as JSON)

Every connection keeps `depth` calls in flight: for each answer that comes one new call goes out.
It is made to cost as little as it can, so that the runtime is the bottleneck: all request frames
are made before the first call; of an answer only frame length, type, request id and error class are
read. Every 64th is decoded whole, and must be the upstream's own answer. Against an echo in a
process of its own it made 16,000 calls/s one at a time for 27 us of CPU time each, most of which is
falling asleep and being woken; 110,000 on 16 connections (5 us) and 230,000 on one 64 deep (2 us).
"""

import gc
import select
import socket
import sys
import time
from collections.abc import Callable
from struct import Struct
from typing import Self, TypeAlias

import msgspec

from benchmarks._processes import family_cpu_s
from benchmarks._report import Sample
from benchmarks._upstream import SMALL_BODY
from vastar_client.wire import (
    Connection,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HttpRequest,
    MessageType,
    PayloadFormat,
    Role,
    decode_http_response,
    encode_http_request,
)

__all__ = [
    "MARK_ID",
    "Link",
    "LoadSpec",
    "Template",
    "WrongAnswer",
    "answer_fields",
    "check_answer",
    "decoded_answer",
    "sample_of",
]

_U32 = Struct("<I")
_I32 = Struct("<i")
_U64 = Struct("<Q")
_VTABLE_START = Struct("<HHHH")
_HEADER = Struct(">IB")
_HEADER_BYTES = _HEADER.size
_EXECUTE_RESPONSE = int(MessageType.EXECUTE_RESPONSE)
_READ_BYTES = 65_536
"""Below what the allocator maps and unmaps for every read."""
_DECODED_EVERY = 64
MARK_ID = 0x1122_3344_5566_7788
_OK = 200

Check: TypeAlias = Callable[[bytes], None]
"""Looks at a whole frame of an answer. Raises WrongAnswer."""


class LoadSpec(msgspec.Struct, frozen=True):
    """What to do.

    Attributes:
        warm_s: time before the counting starts.
        watched_pid: whose CPU time to measure over the counted time, with that of its children.
        json_payload: say it in the published JSON format instead of the native one.
    """

    socket_path: str
    url: str
    connections: int
    depth: int
    seconds: float
    warm_s: float
    watched_pid: int
    json_payload: bool = False


class WrongAnswer(Exception):  # noqa: N818 - what happened
    """The runtime answered something else than was asked."""


class Template:
    """A request frame with room for an id."""

    def __init__(self, url: str, *, json_payload: bool = False, tenant: str = "default") -> None:
        native = b"".join(encode_http_request(HttpRequest(url)))
        published = msgspec.json.encode({"method": "GET", "url": url})
        request = ExecuteRequest(
            request_id=MARK_ID,
            tenant_id=tenant,
            connector_name="http",
            operation="request",
            payload=published if json_payload else native,
            payload_format=PayloadFormat.JSON if json_payload else PayloadFormat.NATIVE,
        )
        self._take(request)

    @classmethod
    def of(cls, request: ExecuteRequest) -> Self:
        """The template of any call, whose id is `MARK_ID`."""
        made = cls("")
        made._take(request)
        return made

    def _take(self, request: ExecuteRequest) -> None:
        self._frame = bytearray(b"".join(Connection(Role.CLIENT).send(request)))
        self._id_at = self._frame.index(_U64.pack(MARK_ID))

    def frame(self, request_id: int) -> bytes:
        """The frame of a call with this id."""
        _U64.pack_into(self._frame, self._id_at, request_id)
        return bytes(self._frame)


def answer_fields(data: bytes, at: int) -> tuple[int, int]:
    """Request id and error class of the ExecuteResponse whose FlatBuffer begins at `at`."""
    table_at = at + _U32.unpack_from(data, at)[0]
    vtable_at = table_at - _I32.unpack_from(data, table_at)[0]
    _, _, id_slot, class_slot = _VTABLE_START.unpack_from(data, vtable_at)
    request_id: int = _U64.unpack_from(data, table_at + id_slot)[0] if id_slot else 0
    return request_id, data[table_at + class_slot] if class_slot else 0


class Link:
    """One connection: its calls in flight, and what of an answer has come so far.

    The ids are 1 to `depth`, each taken again by the call that follows its answer: so all frames
    are made before the first call, and what a call costs here is little but its system calls.
    """

    def __init__(
        self, path: str, template: Template, depth: int, check: Check | None = None
    ) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self._frames = [template.frame(request_id) for request_id in range(depth + 1)]
        self._sent_at_ns = [0] * (depth + 1)
        self._answers = 0
        self._check = check or check_answer
        self._rest = b""

    def ask(self, request_ids: list[int]) -> None:
        """Make calls of these ids, none of which is in flight, in one write."""
        now_ns = time.perf_counter_ns()
        for request_id in request_ids:
            self._sent_at_ns[request_id] = now_ns
        frames = self._frames
        self.socket.sendall(
            frames[request_ids[0]]
            if len(request_ids) == 1
            else b"".join([frames[request_id] for request_id in request_ids])
        )

    def take(self, waits_ns: list[int]) -> list[int]:
        """Receive once; the ids of the answers that completed. Their latencies go to `waits_ns`."""
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise WrongAnswer("the runtime closed the connection")
        now_ns = time.perf_counter_ns()
        if self._rest:
            data = self._rest + data
        answered: list[int] = []
        length, at = len(data), 0
        while length - at >= _HEADER_BYTES:
            size_bytes, kind = _HEADER.unpack_from(data, at)
            end = at + 4 + size_bytes
            if end > length:
                break
            request_id, error_class = answer_fields(data, at + _HEADER_BYTES)
            if kind != _EXECUTE_RESPONSE or error_class:
                raise WrongAnswer(_told(data[at:end]))
            sent_at_ns = self._sent_at_ns[request_id]
            if not sent_at_ns:
                raise WrongAnswer(f"a second answer to call {request_id}")
            self._sent_at_ns[request_id] = 0
            waits_ns.append(now_ns - sent_at_ns)
            if not self._answers % _DECODED_EVERY:
                self._check(data[at:end])
            self._answers += 1
            answered.append(request_id)
            at = end
        self._rest = data[at:]
        return answered


def decoded_answer(frame: bytes) -> ExecuteResponse:
    """The answer in a frame, read by the codec."""
    connection = Connection(Role.CLIENT)
    connection.receive_data(frame)
    message = connection.next_event()
    if not isinstance(message, ExecuteResponse):
        raise WrongAnswer(f"{message!r}")
    return message


def _told(frame: bytes) -> str:
    answer = decoded_answer(frame)
    return f"{ErrorClass(answer.error_class).name}: {answer.error_message}"


def check_answer(frame: bytes) -> None:
    """Read every field of an answer; the body must be the upstream's."""
    payload = decoded_answer(frame).payload
    assert isinstance(payload, memoryview)
    if bytes(payload[:1]) == b"{":
        fields = msgspec.json.decode(payload)
        status, body = fields["status_code"], fields["body"].encode()
    else:
        response = decode_http_response(payload)
        assert isinstance(response.body, memoryview)
        status, body = response.status_code, bytes(response.body)
    if status != _OK or body != SMALL_BODY:
        raise WrongAnswer(f"status {status} with {len(body)} bytes")


def sample_of(
    waits_ns: list[int], took_s: float, cpu_spent_s: float, load_cpu_s: float = 0.0
) -> Sample:
    """The sample in the latencies of one run."""
    if not waits_ns:
        raise WrongAnswer("no answer in the counted time")
    waits_ns.sort()
    count = len(waits_ns)
    return Sample(
        requests_per_s=count / took_s,
        p50_us=waits_ns[count // 2] / 1000,
        p99_us=waits_ns[count * 99 // 100] / 1000,
        cpu_us=cpu_spent_s / count * 1e6,
        load_cpu_us=load_cpu_s / count * 1e6,
    )


def _pump(
    links: dict[int, Link], poller: select.epoll, seconds: float, waits_ns: list[int]
) -> None:
    """Keep every connection's depth for so long."""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for descriptor, _ in poller.poll(1.0):
            link = links[descriptor]
            if answered := link.take(waits_ns):
                link.ask(answered)


def run(spec: LoadSpec, template: Template | None = None, check: Check | None = None) -> Sample:
    """Warm up, then count; by default it is GETs of `url` that are sent and checked."""
    template = template or Template(spec.url, json_payload=spec.json_payload)
    links: dict[int, Link] = {}
    with select.epoll() as poller:
        for _ in range(spec.connections):
            link = Link(spec.socket_path, template, spec.depth, check)
            links[link.socket.fileno()] = link
            poller.register(link.socket, select.EPOLLIN)
            link.ask(list(range(1, spec.depth + 1)))
        _pump(links, poller, spec.warm_s, [])
        waits_ns: list[int] = []
        began_s, cpu_began_s = time.perf_counter(), family_cpu_s(spec.watched_pid)
        own_began_s = time.process_time()
        _pump(links, poller, spec.seconds, waits_ns)
        own_s = time.process_time() - own_began_s
        spent_s = family_cpu_s(spec.watched_pid) - cpu_began_s
        return sample_of(waits_ns, time.perf_counter() - began_s, spent_s, own_s)


def main() -> None:
    """Run the load of the first argument."""
    gc.disable()
    spec = msgspec.json.decode(sys.argv[1], type=LoadSpec)
    print(msgspec.json.encode(run(spec)).decode())


if __name__ == "__main__":
    main()
