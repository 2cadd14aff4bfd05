"""What a connector is, for those that the runtime brings and for plug-ins.

Two shapes of one thing. A `Connector` runs on the runtime's event loop: it takes a `Call`, gives an
`Outcome`, and must never block; `http`, `sqlite` and `postgres` are such, and only code that is
part of the runtime may be. A `BlockingConnector` is a plug-in's: a plain function of a `PluginCall`
that runs in a thread of its own pool, so that one that raises, blocks or leaks harms only its own
calls; the runtime turns it into a `Connector` (`plugins`).

A package offers one with an entry point:

```toml
[project.entry-points."vastar.connectors"]
shout = "my_package:Shout"
```

and an operator takes it up by name, `[plugins] load = ["shout"]`: what is merely installed does
not run. `contract.ConnectorContract` is the test that its author runs.
"""

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

import msgspec

from vastar_client.wire.enums import Disposition, ErrorClass, PayloadFormat
from vastar_runtime.calls import Call
from vastar_runtime.outcomes import Outcome

__all__ = [
    "ENTRY_POINT_GROUP",
    "BlockingConnector",
    "Connector",
    "PluginAnswer",
    "PluginCall",
    "PluginError",
]

ENTRY_POINT_GROUP: Final = "vastar.connectors"


class Connector(Protocol):
    """What answers the calls to one connector name.

    Attributes:
        can_stream: whether it takes bodies and gives answers piece by piece, where that is asked.
    """

    can_stream: bool

    async def execute(self, call: Call) -> Outcome:
        """Answer `call`. Raises nothing but cancellation; anything else is a bug."""


class PluginCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, as a plug-in gets it.

    Attributes:
        operation: what to do; the connector's own words.
        payload: as the caller sent it, in `payload_format`.
        tenant_id, workspace_id: on whose behalf.
        trace_id: to be handed on, empty where there is none.
        idempotency_key: the caller declares a repeat harmless.
        time_left_s: until the deadline, when the call was handed over.
        is_over: whether nobody waits for the answer any more; cheap, for long loops to ask.
    """

    operation: str
    payload: bytes
    tenant_id: str
    workspace_id: str = ""
    trace_id: str = ""
    idempotency_key: str | None = None
    payload_format: PayloadFormat = PayloadFormat.JSON
    time_left_s: float = 30.0
    is_over: Callable[[], bool] = lambda: False

    def __repr__(self) -> str:
        """Nothing of the payload: it may hold secrets."""
        return f"PluginCall(operation={self.operation!r}, tenant_id={self.tenant_id!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """The same, for `rich`."""
        return [("operation", self.operation), ("tenant_id", self.tenant_id)]


class PluginAnswer(msgspec.Struct, frozen=True):
    """What a plug-in answers.

    Attributes:
        payload: not empty: published SDKs cannot take an empty one.
    """

    payload: bytes
    payload_format: PayloadFormat = PayloadFormat.JSON

    def __repr__(self) -> str:
        """Nothing of the payload: it may hold secrets."""
        return f"PluginAnswer({len(self.payload)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, int]]:
        """The same, for `rich`."""
        return [("payload_bytes", len(self.payload))]


class PluginError(Exception):
    """A plug-in's way to say that a call failed; anything else that it raises is a bug of its own.

    Args:
        message: for a person, with cause and place, without secrets.
        error_class: what its caller may do about it; SUCCESS is none.
        retry_after_ms: when it makes sense to come back; 0 is unknown.
        disposition: how far the call got; what is not known is SENT_NO_RESPONSE.
    """

    def __init__(
        self,
        message: str,
        error_class: ErrorClass = ErrorClass.PERMANENT,
        *,
        retry_after_ms: int = 0,
        disposition: Disposition = Disposition.SENT_NO_RESPONSE,
    ) -> None:
        if error_class is ErrorClass.SUCCESS:
            raise ValueError("an error has no class SUCCESS: return a PluginAnswer")
        super().__init__(message)
        self.message = message
        self.error_class = error_class
        self.retry_after_ms = retry_after_ms
        self.disposition = disposition


@runtime_checkable
class BlockingConnector(Protocol):
    """What an entry point of the group makes, called without arguments."""

    def execute(self, call: PluginCall) -> PluginAnswer:
        """Answer `call`; from several threads at once.

        Raises:
            PluginError: it failed.
        """
