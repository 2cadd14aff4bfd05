"""The contract passes a good plug-in, and finds what is wrong with a bad one."""

from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from tests.support.plugins import Shout
from vastar_client.wire import ErrorClass
from vastar_runtime.connectors.contract import ConnectorContract
from vastar_runtime.connectors.interface import PluginAnswer, PluginCall, PluginError


class TestShout(ConnectorContract):
    make = Shout
    operation = "shout"
    payload = b'{"text": "hi"}'


class TestMadeByFunction(TestShout):
    make = staticmethod(Shout)


def _contract(answer) -> ConnectorContract:
    class Made:
        def execute(self, call: PluginCall) -> object:
            return answer(call)

    class Held(ConnectorContract):
        make = Made

    return Held()


def _raise(error: Exception):
    def answer(call: PluginCall) -> object:
        raise error

    return answer


@pytest.mark.parametrize(
    ("test", "answer"),
    [
        ("test_a_good_call_is_answered", lambda _: None),
        ("test_a_good_call_is_answered", lambda _: PluginAnswer(b"")),
        ("test_an_unknown_operation_is_the_callers_fault", lambda _: PluginAnswer(b"x")),
        ("test_an_unknown_operation_is_the_callers_fault", _raise(PluginError("no"))),
        ("test_junk_raises_nothing_but_plugin_errors", lambda _: "text"),
        (
            "test_junk_raises_nothing_but_plugin_errors",
            _raise(PluginError("", ErrorClass.INVALID_REQUEST)),
        ),
        ("test_calls_from_many_threads_are_answered", lambda _: None),
        ("test_a_call_that_nobody_waits_for_ends", _raise(ValueError("bug"))),
    ],
)
def test_finds_what_is_wrong(test, answer):
    with pytest.raises((AssertionError, FutureTimeout)):
        getattr(_contract(answer), test)()


def test_finds_coroutines_and_what_is_no_connector():
    class Coroutine:
        async def execute(self, call: PluginCall) -> None: ...

    class Held(ConnectorContract):
        make = Coroutine

    with pytest.raises(AssertionError):
        Held().test_execute_is_a_plain_method()

    class Nothing(ConnectorContract):
        make = object

    with pytest.raises(AssertionError, match="no method execute"):
        Nothing().test_execute_is_a_plain_method()
