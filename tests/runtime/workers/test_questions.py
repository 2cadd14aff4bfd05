"""What workers and supervisor ask of each other, with workers that say what a test wants."""

import os
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest

from vastar_runtime.config import ConfigError, Problem, RuntimeConfig
from vastar_runtime.workers import questions as under_test
from vastar_runtime.workers.fleet import Ended, Fleet, FleetSettings, Phase
from vastar_runtime.workers.frames import (
    MAX_FRAME_BYTES,
    TAKE_UP,
    Answer,
    Ask,
    FrameError,
    Message,
)
from vastar_runtime.workers.gathering import MAX_GATHERINGS
from vastar_runtime.workers.questions import Questions

TEXT = "# HELP vastar_x_total x\n# TYPE vastar_x_total counter\nvastar_x_total %d.0\n"


def config_with(timeout_s: float) -> RuntimeConfig:
    http = msgspec.structs.replace(RuntimeConfig().http, default_timeout_s=timeout_s)
    return msgspec.structs.replace(RuntimeConfig(), http=http)


class Log:
    """A journal that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def configure(self, level: str, style: str) -> None:
        self.lines.append(("configured", {"level": level, "style": style}))


@attrs.define(eq=False)
class World:
    """A supervisor's questions, and workers that answer what `answers` says (or nothing)."""

    fleet: Fleet
    answers: dict[int, Callable[[Ask], Any]]
    now_s: float = 0.0
    load: Callable[[], RuntimeConfig] = RuntimeConfig
    sent: list[tuple[int, Message]] = attrs.field(factory=list)
    drains: int = 0
    log: Log = attrs.field(factory=Log)
    under_test: Questions = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.under_test = Questions(
            fleet=self.fleet,
            config=RuntimeConfig(),
            load=lambda: self.load(),  # noqa: PLW0108 - it changes
            send=self._send,
            drain=self._drain,
            journal=self.log,  # type: ignore[arg-type]
            started_at_s=0.0,
        )

    def _drain(self) -> None:
        self.drains += 1

    def _send(self, index: int, message: Message) -> bool:
        if isinstance(message, Answer) and len(str(message.value)) > MAX_FRAME_BYTES:
            raise FrameError("too long")
        self.sent.append((index, message))
        return True

    def deliver(self) -> None:
        """Have the workers answer what they were asked, until nothing is left to say."""
        while asked := [(i, m) for i, m in self.sent if isinstance(m, Ask)]:
            self.sent = [(i, m) for i, m in self.sent if not isinstance(m, Ask)]
            for index, ask in asked:
                if index in self.answers:
                    said = self.answers[index](ask)
                    if not isinstance(said, Answer):
                        said = Answer(ask.number, said)
                    self.under_test.hear(index, said)

    def ask(self, what: str, about: Any = None) -> list[Answer]:
        """Worker 0 asks; the answers to it until now."""
        self.under_test.hear(0, Ask(7, what, about))
        self.deliver()
        return self.told()

    def told(self) -> list[Answer]:
        return [m for i, m in self.sent if i == 0 and isinstance(m, Answer)]

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.under_test.tick(self.now_s)


@pytest.fixture
def world(monkeypatch) -> World:
    fleet = Fleet(2, FleetSettings(), 0.0)
    for index in range(2):
        fleet.started(index, 100 + index, 0.0)
        fleet.ready(index, 0.0)
    made = World(fleet, {})
    monkeypatch.setattr(under_test.time, "monotonic", lambda: made.now_s)
    return made


def account(index: int) -> Callable[[Ask], Any]:
    def answer(ask: Ask) -> Any:
        if ask.what == "metrics":
            return TEXT % (index + 1)
        if ask.what == "status":
            return {"uptime_s": 1.5, "in_flight": index, "connections": 1, "calls_accepted": 5}
        return None

    return answer


def test_status_is_of_all(world):
    world.answers = {0: account(0), 1: account(1)}
    world.now_s = 12.0
    (answer,) = world.ask("status", True)
    told = answer.value
    assert (answer.number, answer.fault) == (7, None)
    assert (told["pid"], told["uptime_s"], told["draining"]) == (os.getpid(), 12.0, False)
    assert (told["in_flight"], told["connections"], told["calls_accepted"]) == (1, 2, 10)
    assert told["workers"][1] == {
        "worker": 1,
        "pid": 101,
        "state": "serving",
        "uptime_s": 1.5,
        "restarts": 0,
        "connections": 1,
        "in_flight": 1,
        "calls_accepted": 5,
    }


def test_a_hung_worker_is_told_of_and_not_waited_for(world):
    world.answers = {0: account(0)}
    assert world.ask("status") == []
    world.pass_s(under_test.STATUS_S)
    (answer,) = world.told()
    assert [row["state"] for row in answer.value["workers"]] == ["serving", "not answering"]
    assert answer.value["connections"] == 1


def test_nobody_answers_and_there_still_is_an_account(world):
    world.ask("status")
    assert world.under_test.next_due_s() == under_test.STATUS_S
    world.pass_s(under_test.STATUS_S)
    (answer,) = world.told()
    assert {row["state"] for row in answer.value["workers"]} == {"not answering"}


def counted(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("vastar_x_total ")]
    return line.split()[1]


def test_metrics_count_the_silent_and_the_dead(world):
    world.answers = {0: account(0), 1: account(1)}
    (answer,) = world.ask("metrics")
    assert counted(answer.value) == "3.0"
    assert 'vastar_workers{state="serving"} 2.0\n' in answer.value
    del world.answers[1]
    world.sent.clear()
    world.ask("metrics")
    world.pass_s(under_test.METRICS_S)
    (answer,) = world.told()
    assert counted(answer.value) == "3.0"
    assert 'vastar_workers{state="not answering"} 1.0\n' in answer.value
    world.fleet.ended(1, Ended(-9), world.now_s, 0.5)
    world.under_test.gone(1)
    world.sent.clear()
    (answer,) = world.ask("metrics")
    assert counted(answer.value) == "3.0"
    assert 'vastar_workers{state="restarting"} 1.0\n' in answer.value
    assert "vastar_worker_restarts_total 1.0\n" in answer.value


def test_a_fault_in_place_of_a_text_is_left_out(world):
    world.answers = {0: account(0), 1: lambda ask: Answer(ask.number, fault="broken")}
    (answer,) = world.ask("metrics")
    assert counted(answer.value) == "1.0"
    (answer,) = [each for each in world.ask("status") if isinstance(each.value, dict)]
    assert [row["state"] for row in answer.value["workers"]] == ["serving", "not answering"]


def test_drain_is_answered_before_it_begins(world):
    (answer,) = world.ask("drain")
    assert answer.value == {"pid": os.getpid(), "draining": True, "drain_s": 600.0}
    assert world.drains == 1


def test_what_nobody_knows_and_too_many_questions_are_refused(world):
    (answer,) = world.ask("dance")
    assert answer.fault == "nobody knows what dance is"
    for _ in range(MAX_GATHERINGS):
        world.ask("status")
    world.sent.clear()
    (answer,) = world.ask("status")
    assert "too many" in str(answer.fault)
    (answer,) = world.ask("reload")[1:]
    assert "too many" in str(answer.fault)


def test_an_account_too_long_for_a_frame_is_a_fault(world):
    world.answers = {0: lambda _: {"version": "x" * (MAX_FRAME_BYTES + 1), "pools": "x"}}
    world.answers[0] = lambda _: {"listeners": ["x" * (MAX_FRAME_BYTES + 1)]}
    world.ask("status")
    world.pass_s(under_test.STATUS_S)
    (answer,) = world.told()
    assert answer.fault == "too long"


class Taker:
    """A worker that tries and takes up configurations."""

    def __init__(self, **faults: str) -> None:
        self.faults = faults
        self.heard: list[str] = []

    def __call__(self, ask: Ask) -> Any:
        self.heard.append(ask.what)
        return Answer(ask.number, {}, self.faults.get(ask.what))


def test_all_try_and_then_all_take_up(world):
    takers = world.answers = {0: Taker(), 1: Taker()}
    world.load = lambda: config_with(6)
    (answer,) = world.ask("reload")
    assert answer.value == {"applied": ("http.default_timeout_s",), "needs_restart": ()}
    assert [taker.heard for taker in takers.values()] == [["check", "take_up"]] * 2
    assert world.under_test.config.http.default_timeout_s == 6
    assert world.fleet.next_due_s() is None


def test_one_that_refuses_is_named_and_nobody_takes_up(world):
    takers = world.answers = {0: Taker(), 1: Taker(check="no such file")}
    world.load = lambda: config_with(6)
    (answer,) = world.ask("reload")
    assert answer.fault == "worker 1, pid 101: no such file"
    assert takers[0].heard == ["check"]
    assert world.under_test.config == RuntimeConfig()


def test_one_that_hangs_is_named(world):
    world.answers = {0: Taker()}
    world.ask("reload")
    world.pass_s(under_test.RELOAD_STEP_S)
    (answer,) = world.told()
    assert answer.fault == "worker 1, pid 101: it does not answer"


def test_a_file_that_cannot_be_used_troubles_no_worker(world):
    def load() -> RuntimeConfig:
        raise ConfigError([Problem("x.toml", "", "is not valid TOML", "mend it")])

    world.load = load
    (answer,) = world.ask("reload")
    assert "is not valid TOML" in str(answer.fault)
    assert not [m for _, m in world.sent if isinstance(m, Ask)]
    # A signal is answered by the log alone.
    world.under_test.reload(None)
    assert [event for event, _ in world.log.lines] == [
        "the new configuration is refused, the old one holds"
    ] * 2


@pytest.mark.parametrize("hangs", [False, True])
def test_one_that_does_not_take_up_is_replaced(world, hangs):
    broken = Taker(take_up="a bug")
    world.answers = {0: Taker(), 1: broken}
    world.load = lambda: config_with(6)
    if hangs:
        world.under_test.hear(0, Ask(7, "reload"))
        checks = [(i, m) for i, m in world.sent if isinstance(m, Ask)]
        for index, ask in checks:
            world.sent.remove((index, ask))
            world.under_test.hear(index, Answer(ask.number))
        del world.answers[1]
        world.deliver()
        world.pass_s(under_test.RELOAD_STEP_S)
    else:
        world.ask("reload")
    (answer,) = world.told()
    assert answer.fault is None
    assert world.fleet.workers[1].due_s == world.now_s
    assert world.fleet.workers[0].due_s is None


def test_who_asks_meanwhile_shares_the_next_one(world):
    world.load = lambda: config_with(6)
    world.under_test.hear(0, Ask(1, "reload"))
    world.under_test.hear(0, Ask(2, "reload"))
    world.under_test.reload(None)
    world.answers = {0: Taker(), 1: Taker()}
    world.deliver()
    assert [(each.number, each.value["applied"]) for each in world.told()] == [
        (1, ("http.default_timeout_s",)),
        (2, ()),
    ]
    assert [event for event, _ in world.log.lines].count("configuration reloaded") == 2


def test_there_is_an_end_to_those_who_wait_for_a_reload(world):
    for number in range(MAX_GATHERINGS + 3):
        world.under_test.hear(0, Ask(number, "reload"))
    world.under_test.reload(None)
    assert len([each for each in world.told() if each.fault]) == 2


def test_a_reload_that_meets_the_end_changes_nothing(world):
    world.load = lambda: config_with(6)
    world.under_test.hear(0, Ask(1, "reload"))
    world.fleet.drain(0.0)
    world.answers = {0: Taker(), 1: Taker()}
    world.deliver()
    (answer,) = world.told()
    assert answer.fault == "the runtime is about to stop"


def test_a_worker_that_was_starting_meanwhile_is_brought_up_to_date(world):
    world.fleet.ended(1, Ended(-9), 0.0, 0.0)
    world.fleet.started(1, 201, 0.0)
    world.under_test.begun(1)
    world.answers = {0: Taker(), 1: Taker()}
    world.load = lambda: config_with(6)
    world.ask("reload")
    assert world.fleet.workers[1].phase is Phase.STARTING
    assert world.answers[1].heard == []
    world.sent.clear()
    for _ in range(2):
        world.under_test.bring_up_to_date(1)
    assert world.sent == [(1, Ask(0, TAKE_UP, config_with(6)))]
    world.under_test.hear(1, Answer(0))  # nobody waits for it
