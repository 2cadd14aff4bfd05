"""Calls to databases from plain threads, over the connection of a `RuntimeClient`."""

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

from vastar_client._calls import CallMaker, Outgoing
from vastar_client._streams import LiveStream
from vastar_client.async_client import AsyncRuntimeClient
from vastar_client.databases import SqlCalls
from vastar_client.errors import ConnectorException
from vastar_client.request import timeout_ms_of
from vastar_client.sql import Asked, Rows, database_error, results_of
from vastar_client.wire import ExecuteResponse

if TYPE_CHECKING:
    from vastar_client._loop_thread import LoopThread

__all__ = ["BlockingSqlCalls"]


class _Connected(Protocol):
    """A connection that is open."""

    @property
    def loop(self) -> "LoopThread":
        """The thread that it lives in."""

    @property
    def calls(self) -> CallMaker:
        """Makes its messages."""

    @property
    def client(self) -> AsyncRuntimeClient:
        """To be used in its thread."""

    def call(self, outgoing: Outgoing) -> ExecuteResponse:
        """The successful answer. Raises ConnectorException."""


class BlockingSqlCalls(SqlCalls):
    """What a `RuntimeClient` is, as far as databases go."""

    @abstractmethod
    def _opened(self, timeout_s: float) -> tuple[_Connected, float]:
        """The connection, opened, and what is left of the time."""

    @abstractmethod
    def _timeout_ms(self, timeout_ms: int | None) -> int:
        """The time of a call that asks for `timeout_ms`."""

    def database_call(self, call: Asked) -> list[Rows]:
        """The results of `call`. Raises DatabaseError."""
        connected, left_s = self._opened(self._timeout_ms(call.own_timeout_ms()) / 1000)
        try:
            answer = connected.call(call.outgoing(connected.calls, timeout_ms_of(left_s)))
        except ConnectorException as error:
            raise database_error(error) from None
        return results_of(answer)

    def open_rows(self, call: Asked) -> LiveStream:
        """The stream of `call`, whose head has come. Raises ConnectorException."""
        timeout_s = call.timeout_s
        connected, _ = self._opened(math.inf if timeout_s is None else timeout_s)
        self._rows_loop = connected.loop
        return connected.loop.submit(lambda: connected.client.open_rows(call)).wait()

    def take_rows(self, live: LiveStream) -> list[bytes]:
        """What has come of it; none at its end. Raises ConnectorException."""
        return self._rows_loop.submit(live.take_all).wait()

    def close_rows(self, live: LiveStream) -> None:
        """Leave it: the statement is stopped where it has not ended."""
        if self._rows_loop.alive:
            self._rows_loop.submit(live.aclose).wait()
