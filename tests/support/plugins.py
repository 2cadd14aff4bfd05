"""Plug-ins for tests: a good one, and all kinds of bad ones."""

import threading

import msgspec
import trio

from tests.support.sessions import request
from vastar_client.wire import ErrorClass
from vastar_runtime.calls import Call, Caller
from vastar_runtime.connectors.interface import PluginAnswer, PluginCall, PluginError
from vastar_runtime.policy import Deadline, Limit

__all__ = ["Blocks", "Shout", "plugin_call"]


class _Asked(msgspec.Struct):
    text: str


class Shout:
    """Answers a text in capitals."""

    def execute(self, call: PluginCall) -> PluginAnswer:
        if call.operation != "shout":
            raise PluginError(f"unknown operation {call.operation}", ErrorClass.INVALID_REQUEST)
        try:
            asked = msgspec.json.decode(call.payload, type=_Asked)
        except msgspec.MsgspecError as error:
            raise PluginError(f"bad payload: {error}", ErrorClass.INVALID_REQUEST) from None
        return PluginAnswer(msgspec.json.encode({"text": asked.text.upper()}))


class Blocks:
    """Answers nothing until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.saw_end: list[bool] = []

    def execute(self, call: PluginCall) -> PluginAnswer:
        self.begun.release()
        self.let_go.wait(20)
        self.saw_end.append(call.is_over())
        return PluginAnswer(b"late")


def plugin_call(
    operation: str = "shout",
    payload: bytes = b'{"text": "hi"}',
    time_s: float = 10.0,
    **fields: object,
) -> Call:
    deadline = Deadline(trio.current_time() + time_s, time_s, Limit.DEFAULT)
    made = request(1, operation, payload=payload, **fields)
    return Call(made, Caller(), deadline, 1 << 20)
