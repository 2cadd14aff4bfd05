"""Connector `vastar`: what it tells and to whom."""

import os

import msgspec
import pytest
import trio

from tests.support.http_calls import ORIGIN, json_of
from tests.support.running import http_request, running
from tests.support.sessions import request
from vastar_client.wire import ErrorClass, ExecuteResponse
from vastar_runtime import _version
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.control import ControlConnector
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply
from vastar_runtime.policy import Deadline, Limit
from vastar_runtime.runtime_state import RuntimeState


async def ask(state: RuntimeState, operation: str, uid: int | None) -> Outcome:
    connector = ControlConnector(
        state,
        listeners=lambda: ["unix:/run/x.sock"],
        pools=lambda: [{"tenant": "acme"}],
        available_credits=256,
    )
    deadline = Deadline(trio.current_time() + 1, 1, Limit.DEFAULT)
    return await connector.execute(Call(request(1, operation), Caller(1, uid), deadline, 1000))


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
        "available_credits": 256,
        "listeners": ["unix:/run/x.sock"],
        "pools": [{"tenant": "acme"}],
    }


@pytest.mark.parametrize("operation", ["status", "drain", "nothing"])
@pytest.mark.parametrize("uid", [None, os.geteuid() + 1, -1, 65534])
async def test_nobody_else_is_told_or_obeyed(uid, operation, autojump_clock):
    state = RuntimeState(0.0)
    outcome = await ask(state, operation, uid)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.INVALID_REQUEST
    assert outcome.message.startswith("not allowed: ")
    assert outcome.refused_by == "control"
    assert not state.drain_requested.is_set()


async def test_drain_asks_the_server_to_leave(autojump_clock):
    state = RuntimeState(0.0)
    outcome = await ask(state, "drain", 0)
    assert isinstance(outcome, Reply)
    assert msgspec.json.decode(outcome.payload) == {  # type: ignore[arg-type]
        "pid": os.getpid(),
        "draining": True,
    }
    assert state.drain_requested.is_set()


async def test_other_operations_are_named_beside_the_known_ones(autojump_clock):
    outcome = await ask(RuntimeState(0.0), "x" * 1000, 0)
    assert outcome == Failure(
        FailureKind.INVALID_REQUEST,
        f"Unknown operation of connector vastar: {'x' * 100}; known are drain, status",
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
