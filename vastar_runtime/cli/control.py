"""Speak to a running runtime: HealthCheck, and the reserved connector `vastar` (PROTOCOL.md 6).

Shape: questions and their answers over a `_line.Line`, one at a time.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from vastar_client.wire import (
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
)
from vastar_runtime.cli._line import ControlError, Line, NotRunningError
from vastar_runtime.config import Address, TcpAddress
from vastar_runtime.listeners import PeerCredentials

if TYPE_CHECKING:
    import ssl

__all__ = ["ControlClient", "ControlError", "NotRunningError", "RefusedError"]

CONNECTOR: Final = "vastar"
_REFUSED: Final = "not allowed"


class RefusedError(ControlError):
    """The runtime answered, and the answer is no."""


class ControlClient:
    """One connection to a runtime. Each question is bounded by `timeout_s` in all.

    Args:
        address: where the runtime listens.
        timeout_s: for connecting and for each answer.
        tls: what to trust over TCP, in place of what the environment names.

    Raises:
        NotRunningError: nobody listens there.
        ControlError: it cannot be reached.
    """

    def __init__(
        self, address: Address, timeout_s: float = 5.0, *, tls: "ssl.SSLContext | None" = None
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._line = Line(address, timeout_s, tls=tls)
        self._next_id = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    @property
    def peer(self) -> PeerCredentials | None:
        """The process that listens, as the kernel says; None over TCP."""
        return self._line.peer

    def health(self, timeout_s: float | None = None) -> HealthResponse:
        """Ask how it is; `timeout_s` where the connection's own is too long.

        Raises:
            ControlError: no answer.
        """
        self._line.put(HealthCheck())
        return self._line.receive(
            HealthResponse, self._timeout_s if timeout_s is None else timeout_s
        )

    def call(self, operation: str, argument: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Run an operation of the connector `vastar`; its JSON answer.

        Raises:
            RefusedError: the runtime says no (another user's, an unknown operation).
            ControlError: no answer.
        """
        request = ExecuteRequest(
            request_id=self._next_id,
            tenant_id="",
            connector_name=CONNECTOR,
            operation=operation,
            payload=msgspec.json.encode(argument or {}),
        )
        self._next_id += 1
        self._line.put(request)
        answer = self._line.receive(ExecuteResponse, self._timeout_s)
        if answer.error_class is not ErrorClass.SUCCESS:
            told = answer.error_message or answer.error_class.name
            if isinstance(self._address, TcpAddress) and _REFUSED in told:
                told += "; over TCP nobody may, only the runtime's own user over its Unix socket"
            raise RefusedError(f"{self._address}: {operation}: {told}")
        payload = answer.payload
        try:
            # A decoded message holds one buffer; only those to be sent may hold several.
            assert payload is None or isinstance(payload, bytes | bytearray | memoryview)
            return msgspec.json.decode(payload or b"{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ControlError(f"{self._address}: {operation}: bad answer: {error}") from None
