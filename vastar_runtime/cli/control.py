"""Speak to a running runtime: HealthCheck, and the reserved connector `vastar` (PROTOCOL.md 6).

A blocking socket and the sans-IO connection, nothing else: a command that asks one question needs
no event loop, and `status` starts in a fraction of the time.
"""

import errno
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Connection,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    ProtocolError,
    Role,
)
from vastar_runtime.config import Address, UnixAddress
from vastar_runtime.listeners import PeerCredentials, peer_credentials

__all__ = ["ControlClient", "ControlError", "NotRunningError", "RefusedError"]

CONNECTOR: Final = "vastar"
_RECEIVE_BYTES: Final = 65_536

_Answer = TypeVar("_Answer", ExecuteResponse, HealthResponse)


class ControlError(Exception):
    """The runtime could not be asked; the message says why."""


class NotRunningError(ControlError):
    """Nobody listens at the address."""


class RefusedError(ControlError):
    """The runtime answered, and the answer is no."""


class ControlClient:
    """One connection to a runtime. Each question is bounded by `timeout_s` in all.

    Args:
        address: where the runtime listens.
        timeout_s: for connecting and for each answer.

    Raises:
        NotRunningError: nobody listens there.
        ControlError: it cannot be reached.
    """

    def __init__(self, address: Address, timeout_s: float = 5.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._connection = Connection(Role.CLIENT)
        self._next_id = 1
        try:
            self._socket = _connect(address, timeout_s)
        except (ConnectionRefusedError, FileNotFoundError):
            raise NotRunningError(f"no runtime listens on {address}") from None
        except TimeoutError:
            raise ControlError(f"{address}: takes no connection in {timeout_s:g} s") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if error.errno == errno.EACCES:
                reason += "; the runtime belongs to another user"
            raise ControlError(f"{address}: {reason}") from None

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
        self._socket.close()

    @property
    def peer(self) -> PeerCredentials | None:
        """The process that listens, as the kernel says; None over TCP."""
        return peer_credentials(self._socket)

    def health(self) -> HealthResponse:
        """Ask how it is.

        Raises:
            ControlError: no answer.
        """
        self._send(HealthCheck())
        return self._receive(HealthResponse)

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
        self._send(request)
        answer = self._receive(ExecuteResponse)
        if answer.error_class is not ErrorClass.SUCCESS:
            told = answer.error_message or answer.error_class.name
            raise RefusedError(f"{self._address}: {operation}: {told}")
        payload = answer.payload
        try:
            # A decoded message holds one buffer; only those to be sent may hold several.
            assert payload is None or isinstance(payload, bytes | bytearray | memoryview)
            return msgspec.json.decode(payload or b"{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ControlError(f"{self._address}: {operation}: bad answer: {error}") from None

    def _send(self, message: HealthCheck | ExecuteRequest) -> None:
        try:
            for buffer in self._connection.send(message):
                self._socket.sendall(buffer)
        except OSError as error:
            raise self._lost(error) from None

    def _receive(self, wanted: type[_Answer]) -> _Answer:
        deadline_s = time.monotonic() + self._timeout_s
        try:
            while True:
                event = self._connection.next_event()
                if isinstance(event, wanted):
                    return event
                if event is END_OF_STREAM:
                    raise ControlError(f"{self._address}: closed the connection without an answer")
                if event is NEED_DATA:
                    self._socket.settimeout(max(0.001, deadline_s - time.monotonic()))
                    self._connection.receive_data(self._socket.recv(_RECEIVE_BYTES))
        except ProtocolError as error:
            raise ControlError(f"{self._address}: is no Vastar runtime ({error})") from None
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> ControlError:
        if isinstance(error, TimeoutError):
            return ControlError(f"{self._address}: no answer in {self._timeout_s:g} s")
        reason = (error.strerror or str(error)).lower()
        return ControlError(f"{self._address}: connection lost ({reason})")


def _connect(address: Address, timeout_s: float) -> socket.socket:
    if not isinstance(address, UnixAddress):
        return socket.create_connection((address.host, address.port), timeout_s)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(address.path)
    except BaseException:
        sock.close()
        raise
    return sock
