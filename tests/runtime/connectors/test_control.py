"""Connector `vastar`: what it tells and to whom."""

import os
from typing import Any

import msgspec
import pytest
import trio

from tests.support.http_calls import ORIGIN, json_of
from tests.support.running import http_request, running
from tests.support.sessions import request
from vastar_client.wire import ErrorClass, ExecuteResponse
from vastar_runtime import _version
from vastar_runtime.calls import Call, Caller
from vastar_runtime.config import ConfigError, Problem
from vastar_runtime.connectors.control import ControlConnector
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply
from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.runtime_state import RuntimeState
from vastar_runtime.workers.team import Team, TeamError


class Told:
    """A runtime that says what a test wants to hear."""

    available_credits = 256

    def __init__(self, fault: ConfigError | None = None) -> None:
        self.fault = fault
        self.reloads = 0

    def listening_on(self) -> list[str]:
        return ["unix:/run/x.sock"]

    def pools(self) -> list[dict[str, Any]]:
        return [{"tenant": "acme"}]

    def databases(self) -> list[dict[str, Any]]:
        return [{"source": "orders"}]

    def policies(self) -> dict[str, Any]:
        return {"pipeline": ["deadline"], "tenants": [{"tenant": "acme", "calls": 3}]}

    async def metrics(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"vastar_up 1\n"

    def longest_drain_s(self) -> float:
        return 600.0

    def reload(self) -> dict[str, Any]:
        self.reloads += 1
        if self.fault is not None:
            raise self.fault
        return {"applied": ["log.level"], "needs_restart": []}


async def ask(
    state: RuntimeState,
    operation: str,
    uid: int | None,
    payload: bytes = b"",
    *,
    told: Told | None = None,
    team: Team | None = None,
) -> Outcome:
    connector = ControlConnector(state, told or Told(), team)
    deadline = Deadline(trio.current_time() + 1, 1, Limit.DEFAULT)
    message = request(1, operation, payload=payload)
    return await connector.execute(Call(message, Caller(1, uid), deadline, 1000))


async def answer_of(payload: bytes, operation: str = "status") -> dict[str, Any]:
    outcome = await ask(RuntimeState(0.0, calls_in_flight=1), operation, os.geteuid(), payload)
    assert isinstance(outcome, Reply)
    return msgspec.json.decode(outcome.payload)  # type: ignore[arg-type,no-any-return]


async def test_status_says_more_on_demand(autojump_clock):
    plain = await answer_of(b"{}")
    assert not {"metrics", "pipeline"} & set(plain)
    assert (await answer_of(b'{"metrics":true}'))["metrics"] == "vastar_up 1\n"
    assert (await answer_of(b'{"verbose":true}'))["pipeline"] == ["deadline"]


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b'{"metrics":1}', b"\xff", b'{"x":' + b"[" * 100_000]
)
async def test_options_that_are_none_are_refused_by_name(payload, autojump_clock):
    outcome = await ask(RuntimeState(0.0), "status", os.geteuid(), payload)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.INVALID_REQUEST
    assert outcome.message.startswith("Invalid options of status: ")
    assert outcome.message.endswith("known are metrics and verbose, true or false")


class Tired(Team):
    """A team that cannot be asked."""

    async def status(self, *, verbose: bool) -> dict[str, Any]:
        raise TeamError("the supervisor does not answer")


async def test_tenants_are_told_alone(autojump_clock):
    assert await answer_of(b"", "tenants") == {"tenants": [{"tenant": "acme", "calls": 3}]}
    outcome = await ask(RuntimeState(0.0), "tenants", os.geteuid(), team=Tired())
    assert outcome == Failure(FailureKind.OVERLOADED, "the supervisor does not answer")


async def test_reload_tells_what_changed(autojump_clock):
    assert await answer_of(b"", "reload") == {"applied": ["log.level"], "needs_restart": []}


async def test_a_configuration_that_cannot_be_used_is_refused_with_its_problems(autojump_clock):
    fault = ConfigError([Problem("x.toml", "log.level", '"loud" is not known', "give one of ...")])
    told = Told(fault)
    outcome = await ask(RuntimeState(0.0), "reload", os.geteuid(), told=told)
    assert outcome == Failure(
        FailureKind.INVALID_REQUEST,
        "the new configuration is refused and the old one holds:\n"
        'x.toml: log.level: "loud" is not known; give one of ...',
    )
    assert told.reloads == 1


@pytest.mark.parametrize("uid", [0, os.geteuid()])
async def test_its_own_user_and_root_are_told_how_it_is(uid, autojump_clock):
    state = RuntimeState(trio.current_time(), calls_in_flight=3, connections=2, calls_accepted=9)
    await trio.sleep(12.3456)
    outcome = await ask(state, "status", uid)
    assert isinstance(outcome, Reply)
    assert msgspec.json.decode(outcome.payload) == {  # type: ignore[arg-type]
        "pid": os.getpid(),
        "version": _version.__version__,
        "uptime_s": 12.346,
        "draining": False,
        "in_flight": 2,
        "connections": 2,
        "calls_accepted": 9,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "available_credits": 256,
        "listeners": ["unix:/run/x.sock"],
        "pools": [{"tenant": "acme"}],
        "databases": [{"source": "orders"}],
    }


async def test_what_is_refused_or_changes_something_is_audited(autojump_clock, monkeypatch):
    said: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "vastar_runtime.connectors.control.audit",
        lambda event, *, operation, **_: said.append((event, operation)),
    )
    for uid in (os.geteuid(), os.geteuid() + 1):
        for operation in ("status", "reload", "drain", "nothing"):
            await ask(RuntimeState(0.0), operation, uid)
    assert said == [
        ("control", "reload"),
        ("control", "drain"),
        *(("control_refused", name) for name in ("status", "reload", "drain", "nothing")),
    ]


@pytest.mark.parametrize("operation", ["status", "drain", "reload", "nothing"])
@pytest.mark.parametrize("uid", [None, os.geteuid() + 1, -1, 65534])
async def test_nobody_else_is_told_or_obeyed(uid, operation, autojump_clock):
    state = RuntimeState(0.0)
    outcome = await ask(state, operation, uid)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.INVALID_REQUEST
    assert outcome.message.startswith("not allowed: ")
    assert outcome.refused_by == "control:user"
    assert not state.drain_requested.is_set()


async def test_drain_asks_the_server_to_leave(autojump_clock):
    state = RuntimeState(0.0)
    outcome = await ask(state, "drain", 0)
    assert isinstance(outcome, Reply)
    assert msgspec.json.decode(outcome.payload) == {  # type: ignore[arg-type]
        "pid": os.getpid(),
        "draining": True,
        "drain_s": 600.0,
    }
    assert state.drain_requested.is_set()


async def test_other_operations_are_named_beside_the_known_ones(autojump_clock):
    outcome = await ask(RuntimeState(0.0), "x" * 1000, 0)
    assert outcome == Failure(
        FailureKind.INVALID_REQUEST,
        f"Unknown operation of connector vastar: {'x' * 100}; known are drain, reload, status, "
        "tenants",
    )


async def test_through_the_whole_runtime_it_shows_pools(autojump_clock):
    async with running() as runtime:
        json_of(await runtime.http({"url": f"{ORIGIN}/small"}, workspace_id="shop"))
        caller = runtime.caller(uid=os.geteuid())
        await caller.send(http_request(1, {}, connector_name="vastar", operation="status"))
        answer = await caller.receive()
        assert isinstance(answer, ExecuteResponse)
        status = json_of(answer)
        assert status["pools"] == [
            {
                "tenant": "acme",
                "workspace": "shop",
                "origin": ORIGIN,
                "idle": 1,
                "active": 0,
                "waiting": 0,
            }
        ]
        assert (status["in_flight"], status["calls_accepted"]) == (0, 2)
        await caller.close()
        answer = await runtime.http({}, connector_name="vastar", operation="status")  # no uid
        assert answer.error_class is ErrorClass.INVALID_REQUEST


class Others:
    """A team of this process and another one."""

    def __init__(self, fault: str | None = None) -> None:
        self.fault = fault
        self.heard: list[str] = []

    async def _tell(self, what: str, value: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.heard.append(what)
        if self.fault is not None:
            raise TeamError(self.fault)
        return value

    async def status(self, *, verbose: bool) -> dict[str, Any]:
        rows = [{"pid": os.getpid(), "in_flight": 2}, {"pid": 1, "in_flight": 3}, {"pid": 2}]
        told = {"pid": 7, "in_flight": 5, "workers": rows, "verbose": verbose}
        got: dict[str, Any] = await self._tell("status", told)
        return got

    async def metrics(self) -> bytes:
        got: bytes = await self._tell("metrics", b"vastar_up 2\n")
        return got

    async def reload(self) -> dict[str, Any]:
        got: dict[str, Any] = await self._tell("reload", {"applied": ["x"]})
        return got

    async def drain(self) -> dict[str, Any]:
        got: dict[str, Any] = await self._tell("drain", {"pid": 7})
        return got


async def ask_team(
    team: Others, operation: str, payload: bytes = b"", told: Told | None = None
) -> Outcome:
    state = RuntimeState(0.0, calls_in_flight=1)
    outcome = await ask(state, operation, os.geteuid(), payload, told=told, team=team)
    assert not state.drain_requested.is_set()
    return outcome


def value_of(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Reply)
    return msgspec.json.decode(outcome.payload)  # type: ignore[arg-type,no-any-return]


async def test_of_several_workers_the_team_tells_and_the_asking_call_is_not_counted(
    autojump_clock,
):
    told = value_of(await ask_team(Others(), "status", b'{"metrics":true,"verbose":true}'))
    assert (told["pid"], told["in_flight"], told["verbose"]) == (7, 4, True)
    assert [row.get("in_flight") for row in told["workers"]] == [1, 3, None]
    assert told["metrics"] == "vastar_up 2\n"
    assert "alone" not in told


async def test_reload_and_drain_are_the_teams(autojump_clock):
    team, own = Others(), Told()
    assert value_of(await ask_team(team, "reload", told=own)) == {"applied": ["x"]}
    assert value_of(await ask_team(team, "drain", told=own)) == {"pid": 7}
    assert team.heard == ["reload", "drain"]
    assert own.reloads == 0


async def test_a_worker_that_reaches_nobody_tells_its_own_account_and_says_so(autojump_clock):
    team = Others("nobody answers")
    told = value_of(await ask_team(team, "status", b'{"metrics":true}'))
    assert (told["pid"], told["in_flight"]) == (os.getpid(), 0)
    assert told["alone"] == "nobody answers: this is the account of one worker"
    assert told["metrics"] == "vastar_up 1\n"
    for operation, kind in (
        ("reload", FailureKind.INVALID_REQUEST),
        ("drain", FailureKind.OVERLOADED),
    ):
        outcome = await ask_team(team, operation)
        assert isinstance(outcome, Failure)
        assert outcome.kind is kind
        assert "nobody answers" in outcome.message


async def test_metrics_that_the_team_cannot_tell_are_a_failure(autojump_clock):
    class Half(Others):
        async def metrics(self) -> bytes:
            raise TeamError("too many questions")

    outcome = await ask_team(Half(), "status", b'{"metrics":true}')
    assert isinstance(outcome, Failure)
    assert outcome.message == "too many questions"
