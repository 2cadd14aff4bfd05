"""The supervisor with processes that are no runtimes: how each end, and each silence, is met.

Runtimes as workers are in `tests/end_to_end/test_workers.py`.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from vastar_runtime.config import RuntimeConfig, UnixAddress
from vastar_runtime.listeners import Listener
from vastar_runtime.policy.backoff import BackoffSettings
from vastar_runtime.workers.counts import Counts, page_bytes
from vastar_runtime.workers.fleet import Fleet, FleetSettings
from vastar_runtime.workers.place import WorkerPlace
from vastar_runtime.workers.spawning import shared_file
from vastar_runtime.workers.supervisor import Given, Supervisor

SPEAKS = """
import json, os, socket, struct, sys
sock = socket.socket(fileno=int(sys.argv[1]))
def hear():
    (length,) = struct.unpack("!I", sock.recv(4, socket.MSG_WAITALL))
    return json.loads(sock.recv(length, socket.MSG_WAITALL))["type"]
def say(**message):
    body = json.dumps(message).encode()
    sock.sendall(struct.pack("!I", len(body)) + body)
assert hear() == "begin"
"""
READY = SPEAKS + "say(type='ready'); assert hear() == 'go'\n"
DRAINS = READY + "assert hear() == 'drain'\n"
SETTINGS = FleetSettings(
    backoff=BackoffSettings(base_s=0.001, cap_s=0.001), grace_s=0.05, drain_s=0.1
)


class Log:
    """A journal that remembers, and does what a test wants on an event."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.on: dict[str, Callable[[], None]] = {}

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))
        self.on.get(event, lambda: None)()

    warning = error = info

    def told(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.lines if name == event]


@attrs.define
class Shared:
    """Counts what is reclaimed."""

    fd: int
    bells: tuple[tuple[int, int], ...] = ()
    reclaimed: list[int] = attrs.field(factory=list)

    def reclaim(self, index: int) -> None:
        self.reclaimed.append(index)


@attrs.define
class World:
    supervisor: Supervisor
    log: Log
    shared: Shared
    listening: socket.socket


def argv_of(program: str) -> Callable[[WorkerPlace], list[str]]:
    return lambda place: [sys.executable, "-S", "-E", "-c", program, str(place.control_fd)]


@pytest.fixture
def make(tmp_path):
    fd = shared_file("test", page_bytes(2))
    counts = Counts(fd, 2)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "x"))
    listening.listen()

    def made(
        argv: Callable[[WorkerPlace], list[str]], count: int = 1, start_s: float = 20
    ) -> World:
        log, shared = Log(), Shared(fd)
        listener = Listener(UnixAddress(str(tmp_path / "x")), listening)
        supervisor = Supervisor(
            Fleet(count, attrs.evolve(SETTINGS, start_s=start_s), time.monotonic()),
            RuntimeConfig(),
            RuntimeConfig,
            given=Given([listener], None, fd, counts, shared),
            journal=log,  # type: ignore[arg-type]
            environ=dict(os.environ),
            argv=argv,
        )
        return World(supervisor, log, shared, listening)

    before = signal.getsignal(signal.SIGTERM)
    yield made
    assert signal.getsignal(signal.SIGTERM) is before
    listening.close()
    counts.close()
    os.close(fd)


def stop_us(number: int = signal.SIGTERM) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_a_program_that_is_not_there_ends_all(make):
    world = make(lambda _: ["/nowhere/python"], 2)
    assert world.supervisor.run() == 1
    assert len(world.log.told("a worker cannot be started")) >= 1


def test_the_exit_code_of_one_that_cannot_start_is_ours(make):
    world = make(argv_of(SPEAKS + "say(type='refused', words='no certificate'); sys.exit(2)"), 2)
    assert world.supervisor.run() == 2
    assert world.supervisor.refusal == "no certificate"
    assert world.shared.reclaimed.count(0) == 1


def test_one_that_never_gets_ready_is_killed(make):
    world = make(argv_of(SPEAKS + "hear()"), start_s=0.3)
    assert world.supervisor.run() == 1
    assert world.log.told("worker ended")[0]["reason"] == "SIGKILL"


def test_a_drain_is_said_and_waited_for(make, capfd):
    world = make(argv_of(DRAINS), 2)
    world.log.on["ready"] = stop_us()
    assert world.supervisor.run() == 0
    assert [each["reason"] for each in world.log.told("worker ended")] == ["exit code 0"] * 2
    assert world.listening.fileno() == -1
    assert " ready on unix:" in capfd.readouterr().out


def test_what_a_dead_worker_held_is_reclaimed_before_it_is_replaced(make):
    world = make(argv_of(READY + "sys.exit(7)"))
    at_start: list[int] = []
    world.log.on["worker started"] = lambda: at_start.append(len(world.shared.reclaimed))
    world.log.on["worker restarts"] = lambda: (
        stop_us()() if len(world.shared.reclaimed) == 3 else None
    )
    assert world.supervisor.run() == 0
    # The fourth may have been begun when the signal came.
    assert at_start[:3] == [0, 1, 2]
    assert set(world.shared.reclaimed) == {0}
    ends = [each["reason"] for each in world.log.told("worker ended")]
    assert ends[:3] == ["exit code 7"] * 3


def test_one_that_does_not_drain_in_time_is_killed(make, monkeypatch):
    world = make(argv_of(READY + "hear(); import time; time.sleep(60)"))
    monkeypatch.setattr("vastar_runtime.workers.supervisor._LAST_WORDS_S", -599.9)
    world.log.on["ready"] = stop_us()
    assert world.supervisor.run() == 0
    assert world.log.told("worker ended")[0]["reason"] == "SIGKILL"


def test_a_second_signal_cuts_and_who_ignores_that_is_killed(make):
    world = make(argv_of(READY + "hear(); say(type='ready'); import time; time.sleep(60)"))
    world.log.on["ready"] = stop_us()
    world.log.on["stopping"] = stop_us(signal.SIGINT)
    assert world.supervisor.run() == SETTINGS.forced_code
    assert world.log.told("stopping at once: calls in flight are cut") == [{"signal": "SIGINT"}]
    assert world.log.told("worker ended")[0]["reason"] == "SIGKILL"


def test_one_that_has_lost_its_socket_is_of_no_use(make):
    world = make(argv_of(READY + "sock.close(); import time; time.sleep(60)"))
    world.log.on["worker restarts"] = stop_us()
    assert world.supervisor.run() == 0
    assert world.log.told("worker ended")[0]["reason"] == "SIGKILL"


def test_it_leaves_nobody_behind_when_it_fails_itself(make):
    world = make(argv_of(DRAINS), 2)
    pids: list[int] = []

    def fail() -> None:
        pids.extend(each["worker_pid"] for each in world.log.told("worker started"))
        raise ZeroDivisionError

    world.log.on["ready"] = fail
    with pytest.raises(ZeroDivisionError):
        world.supervisor.run()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_hangup_is_a_reload(make):
    asks = READY + "assert hear() == 'ask'; say(type='answer', number=1, fault='no'); hear()"
    world = make(argv_of(asks))
    world.log.on["ready"] = stop_us(signal.SIGHUP)
    refused = "the new configuration is refused, the old one holds"
    world.log.on[refused] = stop_us()
    assert world.supervisor.run() == 0
    (told,) = world.log.told(refused)
    assert told["problems"][0].endswith(": no")
