"""Connectors that exist in name: existing programs know their answer."""

import trio

from tests.support.sessions import request
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.unimplemented import DATABASE_NAMES, NotImplementedConnector
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.policy import Deadline, Limit


async def test_databases_are_not_run_yet(autojump_clock):
    assert DATABASE_NAMES == ("db", "postgres", "mysql")
    deadline = Deadline(trio.current_time() + 1, 1, Limit.DEFAULT)
    outcome = await NotImplementedConnector().execute(Call(request(1), Caller(), deadline, 1000))
    assert outcome == Failure(FailureKind.NOT_SUPPORTED, "DB execution not yet implemented")
