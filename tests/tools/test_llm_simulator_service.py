"""The simulator on real sockets, as a program, and many streams at once."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.tools.simulator_client import CHAT, Answer, Client, asking, connect
from tools.llm_simulator import Knobs, Simulator
from tools.llm_simulator._ticker import Ticker

ROOT = Path(__file__).parents[2]
STREAM = asking("Count for me", stream=True)
MANY = 200


async def open_client(simulator: Simulator) -> Client:
    return Client(await trio.open_tcp_stream(simulator.host, simulator.port))


async def test_running_gives_an_address_and_leaves_nothing() -> None:
    """Open connections end with the block."""
    async with Simulator().running() as simulator:
        assert simulator.url == f"http://127.0.0.1:{simulator.port}"
        client = await open_client(simulator)
        assert (await client.ask("POST", CHAT, STREAM)).complete
        assert simulator.stats.connections_open == 1
    assert simulator.stats.connections_open == 0
    assert await client.stream.receive_some() == b""
    await client.leave()


async def test_serve_in_a_nursery_starts_with_its_port(nursery: trio.Nursery) -> None:
    simulator = Simulator()
    port = await nursery.start(simulator.serve)
    assert port == simulator.port
    client = await open_client(simulator)
    assert (await client.ask("GET", "/health")).status == 200
    await client.leave()
    nursery.cancel_scope.cancel()


async def test_many_streams_at_once_on_sockets() -> None:
    """All side by side: each is begun before any ends, and each says the same."""
    async with Simulator(Knobs(seed=1, event_delay_s=0.005)).running() as simulator:
        bodies: list[bytes] = []

        async def one() -> None:
            client = await open_client(simulator)
            await client.send("POST", CHAT, STREAM)
            first = await client.receive(parts=1)
            began[0] += 1
            if began[0] == MANY:
                all_began.set()
            await all_began.wait()
            assert simulator.stats.active_streams > 0
            rest = await client.receive()
            assert rest.complete
            bodies.append(first.body + rest.body)
            await client.leave()

        began, all_began = [0], trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(one)
        await simulator.wait_for(lambda stats: stats.active_requests == 0)
        assert simulator.stats.streams_finished == MANY
        assert simulator.stats.cut_by_client == 0
    assert len(bodies) == MANY
    assert len(set(bodies)) == 1


async def test_many_paced_streams_keep_their_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """200 streams of one event a second each: every event of each is on the second."""
    simulator = Simulator(Knobs(event_delay_s=1, seed=1))
    answers: list[Answer] = []
    start_s = trio.current_time()

    async def one() -> None:
        answers.append(await connect(nursery, simulator).ask("POST", CHAT, STREAM))

    async with trio.open_nursery() as clients:
        for _ in range(MANY):
            clients.start_soon(one)
    assert len(answers) == MANY
    for answer in answers:
        times = [at_s - start_s for at_s, _ in answer.parts]
        assert times == pytest.approx(range(len(answer.events)))


async def test_many_disconnects_are_all_counted() -> None:
    """On sockets, half of them with a reset; nothing goes on for anybody."""
    async with Simulator(Knobs(event_delay_s=60)).running() as simulator:
        clients = [await open_client(simulator) for _ in range(40)]
        for client in clients:
            await client.send("POST", CHAT, STREAM)
        for client in clients:
            await client.receive(parts=1)
        assert simulator.stats.active_streams == len(clients)
        for number, client in enumerate(clients):
            if number % 2:
                linger = b"\1\0\0\0\0\0\0\0"  # on, 0 s: close() sends a reset
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await client.leave()
        await simulator.wait_for(lambda stats: stats.active_requests == 0)
        assert simulator.stats.streams_cut_by_client == len(clients)


async def test_ticker_wakes_in_order_and_on_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Also when a shorter sleep comes after a longer one, and when a sleeper is cancelled."""
    ticker = Ticker()
    nursery.start_soon(ticker.run)
    await trio.testing.wait_all_tasks_blocked()
    start_s = trio.current_time()
    woken: list[tuple[float, float]] = []

    async def sleep(duration_s: float) -> None:
        await ticker.until(start_s + duration_s)
        woken.append((duration_s, trio.current_time() - start_s))

    async with trio.open_nursery() as sleepers:
        for duration_s in (5, 1, 3, 1, 0, -1, 2):
            sleepers.start_soon(sleep, duration_s)
        with trio.move_on_after(0.5):
            await sleep(4)
    assert sorted(duration_s for duration_s, _ in woken) == [-1, 0, 1, 1, 2, 3, 5]
    assert [at_s for _, at_s in woken] == pytest.approx([0, 0, 1, 1, 2, 3, 5], abs=1e-6)
    assert [max(0, duration_s) for duration_s, _ in woken] == [0, 0, 1, 1, 2, 3, 5]
    nursery.cancel_scope.cancel()


async def test_ticker_that_does_not_run_lets_each_sleep_alone(autojump_clock: MockClock) -> None:
    start_s = trio.current_time()
    await Ticker().until(start_s + 7)
    assert trio.current_time() - start_s == pytest.approx(7)


@contextmanager
def program(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The simulator as a process, and its ready line."""
    command = [sys.executable, "-m", "tools.llm_simulator", *flags]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_stops_at_once_in_the_middle_of_a_stream(number: signal.Signals) -> None:
    """One ready line with the URL; the signal ends it with 0 though a stream hangs."""
    with program("--port", "0", "--hang-after-events", "1") as (process, ready):
        port = re.fullmatch(r"LLM simulator ready on http://127\.0\.0\.1:(\d+)\n", ready)
        with socket.create_connection(("127.0.0.1", int(port[1]))) as link:
            link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
            assert link.recv(1000).startswith(b"HTTP/1.1 200 OK")
            process.send_signal(number)
            assert process.wait(5) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""


def test_program_says_when_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program("--port", str(port)) as (process, ready):
            assert (ready, process.wait(5)) == ("", 1)
            said = process.stderr.read()
    assert f"cannot listen on 127.0.0.1 port {port}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "flags", [("--status", "200"), ("--head-delay-s", "soon"), ("--port", "x")]
)
def test_program_refuses_bad_flags(flags: tuple[str, str]) -> None:
    with program(*flags) as (process, ready):
        assert (ready, process.wait(5)) == ("", 2)
        assert flags[0].strip("-").replace("-", "_") in process.stderr.read()
