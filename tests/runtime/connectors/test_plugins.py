"""Plug-ins harm nobody but their own callers."""

from importlib.metadata import EntryPoint

import pytest
import trio

from tests.support.log_lines import log_lines
from tests.support.plugins import Blocks, Shout, plugin_call
from vastar_client.wire import Disposition, ErrorClass
from vastar_runtime.connectors.interface import ENTRY_POINT_GROUP, PluginAnswer, PluginError
from vastar_runtime.connectors.plugins import PluginConnector, UnknownPlugin, find_plugins
from vastar_runtime.outcomes import Failure, FailureKind, Reply

HERE = EntryPoint("shout", "tests.support.plugins:Shout", ENTRY_POINT_GROUP)


class Says:
    """Returns or raises whatever it is told."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def execute(self, call: object) -> object:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def says(answer: object, threads: int = 4) -> PluginConnector:
    return PluginConnector("says", lambda: lambda: Says(answer), threads)


async def test_found_by_entry_point_and_answers():
    connector = find_plugins(["shout"], 4, [HERE])["shout"]
    call = plugin_call()
    assert await connector.execute(call) == Reply(b'{"text":"HI"}')
    assert (call.origin, call.attempts) == ("plugin:shout", 1)
    assert call.disposition is Disposition.COMPLETED


def test_what_nobody_offers_is_told():
    assert find_plugins([], 4) == {}
    with pytest.raises(UnknownPlugin, match="connector nope; offered: shout"):
        find_plugins(["nope"], 4, [HERE])
    with pytest.raises(UnknownPlugin, match="offered: none"):
        find_plugins(["nope"], 4)


@pytest.mark.parametrize("raised", [RuntimeError("pw=hunter2"), SystemExit(3), KeyboardInterrupt()])
async def test_what_it_raises_is_its_callers_alone(raised, tmp_path):
    with log_lines(tmp_path) as lines:
        outcome = await says(raised).execute(plugin_call())
        (line,) = lines()
    assert "in execute" in str(line["traceback"])  # where, for its author
    assert str(line["traceback"]).endswith(type(raised).__name__)
    assert "hunter2" not in str(line)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.UPSTREAM_PERMANENT
    assert type(raised).__name__ in outcome.message
    assert "hunter2" not in outcome.message


@pytest.mark.parametrize("answer", [None, b"bytes", PluginAnswer(b""), PluginAnswer("text")])  # type: ignore[arg-type]
async def test_an_answer_that_is_none(answer):
    outcome = await says(answer).execute(plugin_call())
    assert isinstance(outcome, Failure)
    assert "gave no PluginAnswer" in outcome.message


async def test_its_errors_are_handed_on():
    error = PluginError(
        "slow down",
        ErrorClass.RATE_LIMITED,
        retry_after_ms=70,
        disposition=Disposition.NOT_SENT,
    )
    outcome = await says(error).execute(plugin_call())
    assert outcome == Failure(
        FailureKind.RATE_LIMITED,
        "slow down",
        retry_after_ms=70,
        disposition=Disposition.NOT_SENT,
    )


async def test_too_large_an_answer():
    outcome = await says(PluginAnswer(bytes(1 << 20))).execute(plugin_call())
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize("module", ["no_such_module_at_all:X", "tests.support.plugins:plugin_call"])
async def test_one_that_cannot_be_loaded_says_so_each_time(module):
    broken = EntryPoint("broken", module, ENTRY_POINT_GROUP)
    connector = find_plugins(["broken"], 4, [broken])["broken"]
    for _ in range(2):
        outcome = await connector.execute(plugin_call())
        assert isinstance(outcome, Failure)
        assert "connector broken cannot be loaded" in outcome.message
        assert outcome.disposition is Disposition.NOT_SENT


async def test_a_coroutine_is_no_plain_method():
    class Wrong:
        async def execute(self, call: object) -> None: ...

    outcome = await PluginConnector("wrong", lambda: Wrong, 1).execute(plugin_call())
    assert isinstance(outcome, Failure)
    assert "has no plain method execute" in outcome.message


async def test_one_that_blocks_holds_nobody_but_its_own_callers():
    blocks = Blocks()
    connector = PluginConnector("blocks", lambda: lambda: blocks, 2)
    other = PluginConnector("shout", lambda: Shout, 2)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(connector.execute, plugin_call())
            for _ in range(2):
                await trio.to_thread.run_sync(blocks.begun.acquire)
            refused = await connector.execute(plugin_call())
            assert isinstance(refused, Failure)
            assert (refused.kind, refused.refused_by) == (
                FailureKind.OVERLOADED,
                "plugin:threads",
            )
            assert isinstance(await other.execute(plugin_call()), Reply)
            nursery.cancel_scope.cancel()  # its callers leave at once
    finally:
        blocks.let_go.set()
    while connector._threads.borrowed_tokens:  # the threads return when they can
        await trio.to_thread.run_sync(lambda: None)
    assert blocks.saw_end == [True, True]


async def test_the_types_of_what_was_raised_before_are_told(tmp_path):
    raised = ValueError("hunter2")
    raised.__cause__ = KeyError("hunter2")
    with log_lines(tmp_path) as lines:
        await says(raised).execute(plugin_call())
        (line,) = lines()
    assert str(line["traceback"]).endswith("ValueError from KeyError")


async def test_one_that_does_not_come_back_is_named_in_the_log(tmp_path):
    blocks = Blocks()
    connector = PluginConnector("slow", lambda: lambda: blocks, 3)
    try:
        with log_lines(tmp_path) as lines:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connector.execute, plugin_call())
                await trio.to_thread.run_sync(blocks.begun.acquire)
                nursery.cancel_scope.cancel()
            (line,) = lines()
        assert line["event"] == "a plug-in goes on after its call's end"
        told = (line["plugin"], line["operation"], line["busy_threads"], line["threads"])
        assert told == ("slow", "shout", 1, 3)
    finally:
        blocks.let_go.set()
    while connector._threads.borrowed_tokens:
        await trio.to_thread.run_sync(lambda: None)
