"""Stages of a call in tight loops, one at a time, on real objects; a process of its own.

    python -m benchmarks._stage_loops TURNS     (as JSON; prints a Taken as JSON)

Only what a stage offers to the rest of the runtime is called, so that its inside may change. What a
loop cannot have alone is a difference, such as the policies: a call with all of them less one
without. Stages that need an upstream have no loop here (`transport_cost` has them).
"""

import gc
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from benchmarks import _pipeline_calls
from benchmarks._pipeline_calls import NO_POLICIES, WHOLE, Turns
from benchmarks._report import median
from benchmarks._upstream import SMALL_BODY
from vastar_client.wire import (
    Connection,
    ExecuteRequest,
    ExecuteResponse,
    HttpRequest,
    HttpResponse,
    PayloadFormat,
    Role,
    decode_http_request,
    encode_http_request,
    encode_http_response,
)
from vastar_runtime import logs
from vastar_runtime.calls import Call, Caller
from vastar_runtime.dispatch import Dispatcher
from vastar_runtime.metrics import Meters
from vastar_runtime.outcomes import Reply
from vastar_runtime.pipeline import Pipeline
from vastar_runtime.transport import SocketChannel

__all__ = ["Taken", "Turns", "measure"]

BATCH: Final = 500
_URL: Final = "http://api.test/small"
_PAYLOAD: Final = b"".join(encode_http_request(HttpRequest(_URL)))
_RESPONSE: Final = HttpResponse(200, body=SMALL_BODY, http_version="1.1", url=_URL)
_REQUEST: Final = ExecuteRequest(
    request_id=1,
    tenant_id="default",
    connector_name="http",
    operation="request",
    payload=_PAYLOAD,
    payload_format=PayloadFormat.NATIVE,
)

_Loop = Callable[[], Awaitable[None]]


class Taken(msgspec.Struct):
    """CPU microseconds of one call, by stage."""

    us: dict[str, float]


class _AtOnce:
    """A connector that has its answer already."""

    can_stream = False

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def execute(self, _call: Call) -> Reply:
        return self._reply


def _loops() -> dict[str, _Loop]:
    """What is timed. Each makes a batch."""
    return {**_wire_loops(), **_call_loops(), "turn": _turn, "spawn": _spawn}


def _wire_loops() -> dict[str, _Loop]:
    request = b"".join(Connection(Role.CLIENT).send(_REQUEST))
    payload = encode_http_response(_RESPONSE)
    answer = ExecuteResponse(1, payload=payload, payload_format=PayloadFormat.NATIVE, attempts=1)
    wire = Connection(Role.RUNTIME)

    async def decode() -> None:
        for _ in range(BATCH):
            wire.receive_data(request)
            message = wire.next_event()
            assert isinstance(message, ExecuteRequest)
            asked = message.payload
            assert isinstance(asked, bytes | memoryview)
            decode_http_request(asked)

    async def encode() -> None:
        for _ in range(BATCH):
            encode_http_response(_RESPONSE)
            wire.send(answer)

    return {"decode": decode, "encode": encode}


def _call_loops() -> dict[str, _Loop]:
    meters = Meters(("http",))
    reply = Reply(b"".join(encode_http_response(_RESPONSE)), PayloadFormat.NATIVE)
    dispatcher = Dispatcher(
        pipeline=Pipeline({"http": _AtOnce(reply)}),
        meters=meters,
        wall_clock_ms=lambda: time.time() * 1000,
        default_timeout_s=30.0,
        stream_timeout_s=600.0,
        max_answer_bytes=1 << 20,
    )
    caller = Caller()

    async def serve() -> None:
        for _ in range(BATCH):
            await dispatcher.serve(dispatcher.accept(_REQUEST, caller))

    async def metrics() -> None:
        for _ in range(BATCH):
            meters.call_ended(
                *("http", "SUCCESS", "COMPLETED", "upstream"),
                duration_s=0.13,
                first_byte_s=0.12,
                attempts=1,
            )

    return {"serve": serve, "metrics": metrics}


async def _turn() -> None:
    for _ in range(BATCH):
        await trio.lowlevel.checkpoint()


async def _spawn() -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(BATCH):
            nursery.start_soon(_nothing)
            await trio.lowlevel.checkpoint()


async def _nothing() -> None:
    pass


async def _sockets_us(*, sending: bool) -> float:
    """One small write to a Unix socket, or one read of it, each of what is there."""
    frame = b"".join(Connection(Role.CLIENT).send(_REQUEST))
    pairs = [trio.socket.socketpair(socket.AF_UNIX) for _ in range(BATCH // 10)]
    channels = [(SocketChannel(_plain(one)), SocketChannel(_plain(other))) for one, other in pairs]
    spent_ns = 0
    for _ in range(10):
        began_ns = time.process_time_ns()
        for one, _other in channels:
            await one.send_buffers([frame], stall_timeout_s=1.0)
        sent_ns = time.process_time_ns()
        for _one, other in channels:
            await other.receive_some()
        read_ns = time.process_time_ns()
        spent_ns += sent_ns - began_ns if sending else read_ns - sent_ns
    for one, other in channels:
        one.abort()
        other.abort()
    return spent_ns / (10 * len(channels)) / 1000


def _plain(sock: trio.socket.SocketType) -> socket.socket:
    """The standard socket of a Trio one."""
    return socket.socket(fileno=sock.detach())


async def _batch_us(loop: _Loop) -> float:
    gc.collect(1)
    began_ns = time.process_time_ns()
    await loop()
    return (time.process_time_ns() - began_ns) / BATCH / 1000


async def measure(turns: Turns) -> Taken:
    """The medians over the rounds, of which the first is not counted."""
    loops = _loops()
    calls = {
        each.name: each.calls
        for each in _pipeline_calls.contestants()
        if each.name in (WHOLE, NO_POLICIES)
    }
    us: dict[str, list[float]] = {}
    for _ in range(turns.rounds + 1):
        for name, loop in loops.items():
            us.setdefault(name, []).append(await _batch_us(loop))
        for name, each in calls.items():
            us.setdefault(name, []).append(await each.cpu_us())
        us.setdefault("read", []).append(await _sockets_us(sending=False))
        us.setdefault("write", []).append(await _sockets_us(sending=True))
    return Taken(_stages({name: median(values[1:]) for name, values in us.items()}))


def _stages(us: dict[str, float]) -> dict[str, float]:
    return {
        "read": us["read"],
        "decode": us["decode"],
        "dispatch": us["serve"] - us["metrics"],  # and the log line, which needs a call around it
        "spawn": us["spawn"] - us["turn"],
        "policy": us[WHOLE] - us[NO_POLICIES],
        "encode": us["encode"],
        "write": us["write"],
        "metrics": us["metrics"],
        "scheduler": us["turn"],
    }


def main() -> None:
    """Take the turns of the first argument."""
    logs.configure("info", "json", os.open(os.devnull, os.O_WRONLY))
    taken = trio.run(measure, msgspec.json.decode(sys.argv[1], type=Turns))
    print(msgspec.json.encode(taken).decode())


if __name__ == "__main__":
    main()
