"""The daemon over real sockets: who is served, what ends it, and how a caller's end is seen."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import msgspec
import pytest
import trio

from tests.support.running import http_request
from tests.support.sessions import CallerEnd, answer
from tests.support.upstream import Upstream, serve_upstream
from vastar_client.wire import (
    END_OF_STREAM,
    CreditUpdate,
    ErrorClass,
    ExecuteRequest,
    Goaway,
    HealthCheck,
    HealthResponse,
)
from vastar_runtime import audit, server
from vastar_runtime.config import ConfigError, Problem, RuntimeConfig, TcpAddress
from vastar_runtime.listeners import close_listeners, open_listeners

LONG_MS = 60_000


@attrs.define
class Daemon:
    """A daemon in this process."""

    socket_path: str
    tcp_port: int
    endings: list[server.Ending] = attrs.field(factory=list)
    was_stopped: bool = False

    def signal(self, number: int) -> None:
        """One that stops it, unless it is SIGHUP; the block's end then sends no other."""
        self.was_stopped = self.was_stopped or number != signal.SIGHUP
        os.kill(os.getpid(), number)

    async def connect(self) -> CallerEnd:
        return CallerEnd(await trio.open_unix_socket(self.socket_path), trio.Event())

    async def connect_tcp(self) -> CallerEnd:
        return CallerEnd(await trio.open_tcp_stream("127.0.0.1", self.tcp_port), trio.Event())


@asynccontextmanager
async def daemon(
    tmp_path: Path,
    *,
    drain_s: float = 10,
    load: Callable[[RuntimeConfig], RuntimeConfig] | None = None,
) -> AsyncIterator[Daemon]:
    """A daemon on a socket and a TCP port of its own; asked to end when the block does."""
    path = str(tmp_path / "runtime.sock")
    config = msgspec.structs.replace(
        RuntimeConfig(),
        server=msgspec.structs.replace(
            RuntimeConfig().server, socket_path=path, tcp_also=("127.0.0.1:0",), drain_s=drain_s
        ),
    )
    listeners = open_listeners(config.server)
    tcp = listeners[1].address
    assert isinstance(tcp, TcpAddress)
    running = Daemon(path, tcp.port)

    async def serve() -> None:
        reload = None if load is None else (lambda: load(config))
        running.endings.append(await server.serve_listeners(config, listeners, load=reload))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield running
            if not (running.endings or running.was_stopped):
                running.signal(signal.SIGTERM)
    finally:
        close_listeners(listeners)


async def test_it_serves_unix_and_tcp_callers_side_by_side(tmp_path, capfd):
    async with serve_upstream() as upstream, daemon(tmp_path) as running:
        for caller in (await running.connect(), await running.connect_tcp()):
            await caller.send(http_request(1, {"url": f"http://127.0.0.1:{upstream.port}/small"}))
            got = answer(await caller.receive())
            assert got.error_class is ErrorClass.SUCCESS
            await caller.close()
    assert running.endings == [server.Ending.DRAINED]
    lines = capfd.readouterr().out.splitlines()
    ready = [line for line in lines if " ready on " in line]
    assert len(ready) == 1
    assert running.socket_path in ready[0]


async def _slow_call(caller: CallerEnd, upstream: Upstream, request_id: int, sleep_ms: int) -> None:
    url = f"http://127.0.0.1:{upstream.port}/sleep?ms={sleep_ms}&tag={request_id}"
    await caller.send(http_request(request_id, {"url": url, "timeout_ms": LONG_MS}))
    await upstream.wait_for("sleep_start", tag=str(request_id))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(number, tmp_path):
    async with serve_upstream() as upstream, daemon(tmp_path) as running:
        old, idle, credited = [await running.connect() for _ in range(3)]
        await credited.send(CreditUpdate())
        assert isinstance(await credited.receive(), CreditUpdate)
        await _slow_call(old, upstream, 1, 300)
        running.signal(number)
        goaway = await credited.receive()
        assert isinstance(goaway, Goaway)
        assert goaway.drain_ms == 10_000
        # Nobody new is let in, those who are in are told, and what was begun is finished.
        with pytest.raises(OSError, match="refused"):
            await running.connect()
        await idle.send(http_request(2, {"url": f"http://127.0.0.1:{upstream.port}/small"}))
        refused = answer(await idle.receive())
        assert (refused.error_class, refused.request_id) == (ErrorClass.TRANSIENT, 2)
        assert (refused.error_message or "").startswith("draining")
        finished = answer(await old.receive())
        assert (finished.error_class, finished.request_id) == (ErrorClass.SUCCESS, 1)
        for caller in (old, idle, credited):
            assert await caller.receive() is END_OF_STREAM
            await caller.close()
    assert running.endings == [server.Ending.DRAINED]


async def test_a_second_signal_ends_it_at_once_and_closes_the_upstream(tmp_path):
    async with serve_upstream() as upstream, daemon(tmp_path) as running:
        caller = await running.connect()
        url = f"http://127.0.0.1:{upstream.port}/sleep?ms={LONG_MS}&watch=1"
        await caller.send(http_request(1, {"url": url, "timeout_ms": LONG_MS}))
        await upstream.wait_for("sleep_start")
        await caller.send(CreditUpdate())
        assert isinstance(await caller.receive(), CreditUpdate)
        running.signal(signal.SIGTERM)
        assert isinstance(await caller.receive(), Goaway)
        running.signal(signal.SIGTERM)
        assert await caller.receive() is END_OF_STREAM
        await upstream.wait_for("client_closed_while_busy")
        await caller.close()
    assert running.endings == [server.Ending.FORCED]


async def test_the_drain_time_is_kept(tmp_path):
    async with serve_upstream() as upstream, daemon(tmp_path, drain_s=0.1) as running:
        caller = await running.connect()
        await _slow_call(caller, upstream, 1, LONG_MS)
        running.signal(signal.SIGTERM)
        cut = answer(await caller.receive())
        assert (cut.error_class, cut.request_id) == (ErrorClass.TRANSIENT, 1)
        assert await caller.receive() is END_OF_STREAM
        await caller.close()
    assert running.endings == [server.Ending.DRAIN_TIME_OVER]


async def test_a_hangup_has_the_configuration_read_anew(tmp_path, monkeypatch):
    loads: list[float] = []
    told: list[str] = []
    monkeypatch.setattr(audit, "audit", lambda event, **_: told.append(event))
    read = trio.Event()

    def load(old: RuntimeConfig) -> RuntimeConfig:
        loads.append(len(loads))
        read.set()
        if len(loads) == 1:
            raise ConfigError([Problem("x.toml", "http.max_redirects", "is bad", "mend it")])
        return msgspec.structs.replace(old, http=msgspec.structs.replace(old.http, max_redirects=0))

    async with serve_upstream() as upstream, daemon(tmp_path, load=load) as running:
        caller = await running.connect()
        url = f"http://127.0.0.1:{upstream.port}/redir?to=/small"

        async def follows() -> bool:
            await caller.send(http_request(1, {"url": url}))
            return answer(await caller.receive()).error_class is ErrorClass.SUCCESS

        assert await follows()
        running.signal(signal.SIGHUP)
        await read.wait()
        assert await follows()  # a bad one is refused whole, and the old one holds
        read = trio.Event()
        running.signal(signal.SIGHUP)
        await read.wait()
        assert not await follows()
        await caller.close()
    assert running.endings == [server.Ending.DRAINED]
    assert told == ["reloaded", "draining"], "a signal has no caller, and is told all the same"


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_half_close_gets_its_answers(transport, tmp_path):
    async with serve_upstream() as upstream, daemon(tmp_path) as running:
        caller = await (running.connect() if transport == "unix" else running.connect_tcp())
        await _slow_call(caller, upstream, 1, 150)
        assert isinstance(caller.stream, trio.SocketStream)
        await caller.stream.send_eof()
        assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
        assert await caller.receive() is END_OF_STREAM
        await caller.close()


async def test_a_full_close_of_a_unix_caller_closes_the_upstream_at_once(tmp_path):
    async with serve_upstream() as upstream, daemon(tmp_path) as running:
        caller = await running.connect()
        url = f"http://127.0.0.1:{upstream.port}/sleep?ms={LONG_MS}&watch=1"
        await caller.send(http_request(1, {"url": url, "timeout_ms": LONG_MS}))
        await upstream.wait_for("sleep_start")
        closed_at_s = trio.current_time()
        await caller.close()
        await upstream.wait_for("client_closed_while_busy")
        # Far below any timeout that could have ended it; no measure of speed.
        assert trio.current_time() - closed_at_s < 5


async def test_a_reset_of_a_tcp_caller_closes_the_upstream_at_once(tmp_path):
    async with serve_upstream() as upstream, daemon(tmp_path) as running:
        caller = await running.connect_tcp()
        url = f"http://127.0.0.1:{upstream.port}/sleep?ms={LONG_MS}&watch=1"
        await caller.send(http_request(1, {"url": url, "timeout_ms": LONG_MS}))
        await upstream.wait_for("sleep_start")
        assert isinstance(caller.stream, trio.SocketStream)
        linger_zero = b"\x01\0\0\0\0\0\0\0"
        caller.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        await caller.close()
        await upstream.wait_for("client_closed_while_busy")


async def test_control_answers_to_the_own_user_over_the_socket_and_to_nobody_over_tcp(tmp_path):
    status = ExecuteRequest(1, "", "vastar", "status")
    async with daemon(tmp_path) as running:
        caller = await running.connect()
        await caller.send(status)
        told = msgspec.json.decode(answer(await caller.receive()).payload or b"")
        assert told["pid"] == os.getpid()
        assert told["connections"] == 1
        assert told["in_flight"] == 0
        stranger = await running.connect_tcp()
        await stranger.send(status)
        refused = answer(await stranger.receive())
        assert refused.error_class is ErrorClass.INVALID_REQUEST
        assert (refused.error_message or "").startswith("not allowed")
        await caller.close()
        await stranger.close()


async def test_drain_through_control_ends_the_daemon(tmp_path):
    async with daemon(tmp_path) as running:
        caller = await running.connect()
        await caller.send(ExecuteRequest(1, "", "vastar", "drain"))
        assert answer(await caller.receive()).error_class is ErrorClass.SUCCESS
        assert await caller.receive() is END_OF_STREAM
        await caller.close()
        while not running.endings:
            await trio.lowlevel.checkpoint()
    assert running.endings == [server.Ending.DRAINED]


async def test_many_connections_come_and_go(tmp_path):
    async with daemon(tmp_path) as running:

        async def come_and_go() -> None:
            for _ in range(10):
                caller = await running.connect()
                await caller.send(HealthCheck())
                assert isinstance(await caller.receive(), HealthResponse)
                await caller.close()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(come_and_go)


async def test_systemd_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        async with daemon(tmp_path) as running:
            caller = await running.connect()
            await caller.send(HealthCheck())
            assert isinstance(await caller.receive(), HealthResponse)
            await caller.close()
            assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"STOPPING=1"
