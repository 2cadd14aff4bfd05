"""The test that an author of a plug-in runs: what the runtime relies on, as methods of pytest.

```python
from vastar_runtime.connectors.contract import ConnectorContract

class TestShout(ConnectorContract):
    make = Shout                   # what the entry point names
    operation = "shout"            # one that works ...
    payload = b'{"text": "hi"}'    # ... with this
```

It needs no pytest itself, and opens nothing: what the plug-in talks to is its author's to fake.
"""

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

from vastar_client.wire.enums import ErrorClass, PayloadFormat
from vastar_runtime.connectors.interface import (
    BlockingConnector,
    PluginAnswer,
    PluginCall,
    PluginError,
)

__all__ = ["ConnectorContract"]

_AT_ONCE: Final = 8
_JUNK: Final = (b"", b"\x00\xff", b"[]", b"null", b'{"unknown": 1}', b"{" * 64)
_PATIENCE_S: Final = 30.0


class ConnectorContract:
    """Derive from it, and name what is to be tested.

    Attributes:
        make: what the entry point names: called without arguments, makes the connector.
        operation, payload: a call that succeeds.
    """

    make: ClassVar[Callable[[], Any]]
    operation: ClassVar[str] = "request"
    payload: ClassVar[bytes] = b"{}"

    def _made(self) -> BlockingConnector:
        # From the class: a function found there must not become a method.
        made = inspect.getattr_static(type(self), "make")
        connector = (made.__func__ if isinstance(made, staticmethod) else made)()
        assert isinstance(connector, BlockingConnector), "it has no method execute(call)"
        return connector

    def _call(self, **changed: Any) -> PluginCall:
        fields = {"operation": self.operation, "payload": self.payload, "tenant_id": "acme"}
        return PluginCall(**(fields | changed))

    def test_execute_is_a_plain_method(self) -> None:
        """A coroutine would run on nobody's loop."""
        assert not inspect.iscoroutinefunction(self._made().execute)

    def test_making_it_twice_gives_two_that_work(self) -> None:
        """A reload makes it anew."""
        for connector in (self._made(), self._made()):
            _check(connector.execute(self._call()))

    def test_a_good_call_is_answered(self) -> None:
        """With bytes, and not with none: published SDKs cannot take an empty payload."""
        _check(self._made().execute(self._call()))

    def test_an_unknown_operation_is_the_callers_fault(self) -> None:
        """INVALID_REQUEST, in words that name the operation."""
        error = _error_of(self._made(), self._call(operation="no-such-operation"))
        assert error is not None, "an unknown operation was answered"
        assert error.error_class is ErrorClass.INVALID_REQUEST, error.error_class
        assert "no-such-operation" in error.message, "say which operation is unknown"

    def test_junk_raises_nothing_but_plugin_errors(self) -> None:
        """Callers send anything."""
        connector = self._made()
        for payload in _JUNK:
            error = _error_of(connector, self._call(payload=payload))
            assert error is None or error.message, "an error says what is wrong"

    def test_calls_from_many_threads_are_answered(self) -> None:
        """As the runtime makes them, with tenants side by side."""
        connector, start = self._made(), threading.Barrier(_AT_ONCE)

        def one(number: int) -> PluginAnswer:
            start.wait(_PATIENCE_S)
            return connector.execute(self._call(tenant_id=f"tenant-{number}"))

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for answer in threads.map(one, range(_AT_ONCE), timeout=_PATIENCE_S):
                _check(answer)

    def test_a_call_that_nobody_waits_for_ends(self) -> None:
        """It may answer or raise, but returns."""
        connector = self._made()
        with ThreadPoolExecutor(1) as threads:
            asked = self._call(is_over=lambda: True, time_left_s=0.0)
            error = threads.submit(connector.execute, asked).exception(_PATIENCE_S)
        assert error is None or isinstance(error, PluginError), repr(error)


def _error_of(connector: BlockingConnector, call: PluginCall) -> PluginError | None:
    """What `call` fails with, None where it is answered as it should be."""
    try:
        _check(connector.execute(call))
    except PluginError as error:
        return error
    return None


def _check(answer: object) -> None:
    assert isinstance(answer, PluginAnswer), f"execute gave {type(answer).__name__}"
    assert isinstance(answer.payload, bytes), "the payload is bytes"
    assert answer.payload, "the payload is not empty"
    assert isinstance(answer.payload_format, PayloadFormat)
