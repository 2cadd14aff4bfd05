"""What is refused is in the audit log: each limit once, whoever is refused a hundred times."""

import gzip
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.support.running import UPSTREAM_PORT, URL, http_request, running
from tests.support.sessions import CallerEnd, answer
from tests.support.token_server import credentials
from vastar_client.wire import ErrorClass
from vastar_runtime.audit import AuditLog, use
from vastar_runtime.calls import Caller
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.identity import Guest
from vastar_runtime.transport import StreamChannel
from vastar_runtime.transport.memory import MemoryChannel


class Lines:
    """The audit log so far."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def told(self, *names: str) -> list[tuple[Any, ...]]:
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [tuple(line.get(name) for name in names) for line in lines]


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Lines]:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path))
    before = use(log)
    yield Lines(path)
    use(before)
    log.close()


def config(**policies: Any) -> RuntimeConfig:
    made = RuntimeConfig()
    return msgspec.structs.replace(
        made, defaults=msgspec.structs.replace(made.defaults, **policies)
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"method": "TRACE"}, "TRACE has"), ({"headers": {"Host": "evil.test"}}, "another site")],
)
async def test_who_would_lead_a_credential_elsewhere_is_told(
    asked: dict[str, Any], words: str, audited: Lines, tmp_path: Path, autojump_clock: object
) -> None:
    (tmp_path / "key").write_text("planted-key")
    async with running(credentials(tmp_path, {"value": "Bearer ${file:key}"})) as runtime:
        got = await runtime.http({"url": f"{URL}/small", **asked})
    assert got.error_class is ErrorClass.INVALID_REQUEST
    ((event, tenant, rule, reason),) = audited.told("event", "tenant", "rule", "reason")
    assert (event, tenant, rule) == ("credential_refused", "acme", "credentials:origin")
    assert words in reason


async def test_a_flood_that_a_limit_refuses_is_one_line(
    audited: Lines, autojump_clock: object
) -> None:
    base = config()
    bulkhead = msgspec.structs.replace(base.defaults.bulkhead, max_per_tenant=1)
    queue = msgspec.structs.replace(base.defaults.queue, max_waiting_per_tenant=0)
    async with running(config(bulkhead=bulkhead, queue=queue)) as runtime:
        caller = runtime.caller()
        slow = {"url": f"{URL}/sleep?ms=1000"}
        for number in range(1, 101):
            await caller.send(http_request(number, slow))
        for _ in range(100):
            answer(await caller.receive())
        await caller.close()
    ((event, tenant, rule),) = audited.told("event", "tenant", "rule")
    assert (event, tenant, rule) == ("limit_refused", "acme", "bulkhead:tenant")


async def test_memory_that_is_full_is_told(audited: Lines, autojump_clock: object) -> None:
    guest = Guest(max_held_bytes=1 << 20)
    async with running() as runtime, trio.open_nursery() as nursery:
        stream, other = trio.testing.memory_stream_pair()
        nursery.start_soon(
            partial(runtime.runtime.serve, StreamChannel(stream), caller=Caller(1, 7), guest=guest)
        )
        caller = CallerEnd(other, trio.Event())
        slow = {"url": f"{URL}/sleep?ms=1000", "method": "POST", "body": "x" * (2 << 20)}
        await caller.send(http_request(1, slow))
        await trio.sleep(0.1)
        for number in range(2, 9):
            await caller.send(http_request(number, {"url": f"{URL}/small"}))
        for _ in range(8):
            answer(await caller.receive())
        await caller.close()
    assert audited.told("event", "rule", "uid") == [("limit_refused", "memory:user", 7)]


@pytest.mark.parametrize("ends", ["whole", "too late", "cut short", "caller gone"])
async def test_answers_count_while_they_are_collected(
    ends: str, audited: Lines, autojump_clock: object
) -> None:
    guest = Guest(max_held_bytes=1 << 20)

    async def handle(channel: MemoryChannel) -> None:
        await channel.receive_some()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 << 20)
        await channel.send_buffers((head, bytes((2 << 20) - 1)))
        await trio.sleep(10 if ends == "too late" else 2)
        if ends == "whole":
            await channel.send_buffers((b"x",))

    async with running() as runtime, trio.open_nursery() as nursery:
        runtime.network.handlers[UPSTREAM_PORT] = handle
        stream, other = trio.testing.memory_stream_pair()
        nursery.start_soon(
            partial(runtime.runtime.serve, StreamChannel(stream), caller=Caller(1, 7), guest=guest)
        )
        caller = CallerEnd(other, trio.Event())
        await caller.send(http_request(1, {"url": f"{URL}/x", "timeout_ms": 5000}))
        await trio.sleep(1)
        assert guest.held_bytes > 2 << 20
        await caller.send(http_request(2, {"url": f"{URL}/x"}))
        assert answer(await caller.receive()).refused_by == "memory:user"
        if ends != "caller gone":
            answer(await caller.receive())
        await caller.close()
    assert guest.held_bytes == 0
    assert audited.told("event", "rule", "uid") == [("limit_refused", "memory:user", 7)]


async def test_a_decompression_bomb_is_told(audited: Lines, autojump_clock: object) -> None:
    bomb = gzip.compress(b"") * 100_000  # members that bring nothing

    async def handle(channel: MemoryChannel) -> None:
        await channel.receive_some()
        head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(
            bomb
        )
        await channel.send_buffers((head, bomb))

    async with running(config()) as runtime:
        runtime.network.handlers[UPSTREAM_PORT] = handle
        got = await runtime.http({"url": f"{URL}/x"})
    assert got.error_class is ErrorClass.PERMANENT
    assert audited.told("event", "rule", "origin") == [
        ("limit_refused", "decompression:runtime", URL)
    ]


async def test_a_frame_that_never_ends_is_told(audited: Lines, autojump_clock: object) -> None:
    async with running(config()) as runtime:
        caller = runtime.caller()
        await caller.send_bytes(b"\0\0\1\0")
        assert "no byte" in (answer(await caller.receive()).error_message or "")
        await caller.close()
    assert audited.told("event", "rule") == [("limit_refused", "frame:connection")]
