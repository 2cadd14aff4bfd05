"""The blocking client: what most connectors use.

Shape: a thin front of `AsyncRuntimeClient`, which runs in the one background thread of the
process (`_loop_thread`). All clients share the thread, each has a connection of its own, and all
threads of a program may share one client: their calls run side by side on its connection.

A unary call takes the short way: the calling thread makes its message and reads its answer, and
between them no task runs for it (`_thread_calls`). Everything else runs as a task in the loop.

Opening is lazy and repeats: a call on a client that was never connected, was closed, or came
through a fork opens a connection first. Only then is Trio imported, which takes longer than all the
rest of this package: a program that only defines connectors should not pay for it.
"""

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, Unpack, overload

import anyio
from anyio.abc import ByteStream

from vastar_client._calls import Outgoing, has_short_body
from vastar_client._dialing import dial as dial_configured
from vastar_client._link import Dial
from vastar_client._payload import http_response
from vastar_client._reconnecting import Reconnect, event_plan, event_request
from vastar_client.async_client import AsyncRuntimeClient, ConnectorAnswer, connector_answer
from vastar_client.blocking_databases import BlockingSqlCalls
from vastar_client.blocking_events import EventSource
from vastar_client.blocking_streaming import Stream, StreamResponse
from vastar_client.config import RuntimeConfig, check_config, check_timeout_ms
from vastar_client.errors import ConnectionClosed, RuntimeUnavailable, VastarError
from vastar_client.request import (
    HTTPRequest,
    RequestOptions,
    build_request,
    request_of,
    timeout_ms_of,
)
from vastar_client.response import HTTPResponse
from vastar_client.wire import Disposition, ExecuteResponse, HealthResponse

if TYPE_CHECKING:
    from vastar_client._loop_thread import Job, LoopThread

__all__ = ["RuntimeClient"]

_T = TypeVar("_T")

_LIVENESS_CHECK_S: Final = 1.0

_process_lock: Final = threading.RLock()
"""Held while Trio is imported, the background thread started, or a connection replaced, and by a
fork: in the middle of those it would give the child a module or a lock that a thread of its parent
is busy with, for ever. Reentrant, since a signal handler may come back in the same thread."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_process_lock.acquire,
        after_in_parent=_process_lock.release,
        after_in_child=_process_lock.release,
    )

_log = logging.getLogger("vastar_client")


class _Connected:
    """An `AsyncRuntimeClient` inside the loop thread, from its opening to its end."""

    def __init__(self, loop: "LoopThread", config: RuntimeConfig, dial: Dial | None) -> None:
        self.loop = loop
        from vastar_client import _loop_thread, _thread_calls  # noqa: PLC0415  # they bring Trio

        self.client = AsyncRuntimeClient(config, dial=dial or self._dial)
        self.ended = False
        self.calls, self._link = self.client.for_threads()
        self._make_call = _thread_calls.ThreadCall
        self._refuse_loop_thread = _loop_thread.refuse_loop_thread
        self._config = config
        self._error: Exception | None = ConnectionClosed(
            "the client was closed, or its background thread ended, before it was connected",
            disposition=Disposition.NOT_SENT,
        )
        self._opened = threading.Event()
        self._stopping = False
        self._scope: anyio.CancelScope | None = None
        self._serving = loop.submit(self._serve)

    async def _dial(self) -> ByteStream:
        stream = await dial_configured(self._config)
        self.loop.remember(stream)
        return stream

    async def _serve(self) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                if self._stopping:
                    self._scope.cancel()
                async with self.client:
                    self._error = None
                    self._opened.set()
                    await anyio.sleep_forever()
        except Exception as error:  # noqa: BLE001  # it is raised in the opening threads
            if self._opened.is_set():
                _log.exception("the connection to the runtime ended by a bug of the client")
            self._error = error
        finally:
            self.ended = True
            self._opened.set()

    @property
    def is_ready(self) -> bool:
        """Whether it is open, in this process, as far as one can know."""
        return self._error is None and not self.ended and self.loop.alive

    def call(self, outgoing: Outgoing) -> ExecuteResponse:
        """The successful answer to one call, whose body is in its message.

        Raises:
            ConnectorException: it failed.
            WrongThreadError: this is a thread that must not wait for it.
        """
        self._refuse_loop_thread()
        return self._make_call(self.loop, self._link, outgoing).wait()

    def wait_opened(self, timeout_s: float = math.inf) -> float:
        """Wait until it is connected.

        Returns:
            The seconds that it took.

        Raises:
            RuntimeUnavailable: it could not connect, or not within `timeout_s`.
        """
        if self._opened.is_set() and self._error is None:
            return 0.0
        begin_s = time.monotonic()
        left_s = timeout_s
        while not self._opened.wait(min(max(left_s, 0), _LIVENESS_CHECK_S)):
            if not self.loop.alive:
                break
            left_s = begin_s + timeout_s - time.monotonic()
            if left_s <= 0:
                raise RuntimeUnavailable(
                    f"no connection to the runtime within {timeout_s:g} s, the time of this call",
                    disposition=Disposition.NOT_SENT,
                )
        if self._error is not None:
            raise self._error
        return time.monotonic() - begin_s

    def stop_soon(self) -> None:
        """Begin to close it; from any thread, also from the garbage collector."""
        self.loop.call_soon(self._stop_now)

    def _stop_now(self) -> None:
        self._stopping = True
        if self._scope is not None:
            self._scope.cancel()

    def close(self) -> None:
        """Close it, and wait until it is closed unless that would stop the loop that does it."""
        self.stop_soon()
        if self.loop.alive and not self.loop.is_current_thread:
            self._serving.wait()


class RuntimeClient(BlockingSqlCalls):
    """Blocking calls through the runtime. Thread-safe: threads may share one client.

    Use it as a context manager, or call `close()`. It connects on first use, and again after a
    `close()` or in a forked child. KeyboardInterrupt while a call waits cancels that call.

    Args:
        config: where the runtime is, and defaults of the calls.
        dial: opens the byte stream instead of `config`; a test gives `FakeRuntime.dial`.

    Raises (by every method that makes a call):
        ConnectorException: the call failed; its class and disposition say what to do.
        RuntimeUnavailable: there is no runtime; the message says what to run.
        WrongThreadError: called inside a Trio loop, which it would stop.
    """

    def __init__(self, config: RuntimeConfig | None = None, *, dial: Dial | None = None) -> None:
        self.config = check_config(config)
        self._dial = dial
        self._connected: _Connected | None = None
        self._finalizer: weakref.finalize[..., RuntimeClient] | None = None

    def connect(self) -> None:
        """Connect now, rather than with the first call. Does nothing when connected.

        Raises:
            RuntimeUnavailable: there is no runtime at the address.
        """
        self._connection().wait_opened()

    def close(self) -> None:
        """Close the connection; calls of other threads that are in flight fail. May be repeated."""
        with _process_lock:
            connected, self._connected = self._connected, None
            finalizer, self._finalizer = self._finalizer, None
        if finalizer is not None:
            finalizer.detach()
        if connected is not None:
            connected.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _connection(self) -> _Connected:
        """The connection that counts in this process, begun to be opened if need be."""
        with _process_lock:
            from vastar_client import _loop_thread  # noqa: PLC0415  # see the module's text

            _loop_thread.refuse_loop_thread()
            loop = _loop_thread.current_loop()
            connected = self._connected
            if connected is None or connected.ended or connected.loop is not loop:
                if self._finalizer is not None:
                    self._finalizer.detach()
                connected = self._connected = _Connected(loop, self.config, self._dial)
                self._finalizer = weakref.finalize(self, connected.stop_soon)
                self._finalizer.atexit = False
        return connected

    def _call(
        self,
        function: Callable[[AsyncRuntimeClient, float], Awaitable[_T]],
        timeout_s: float = math.inf,
    ) -> _T:
        """The outcome of `function`, run with the connected client in the loop thread.

        Args:
            function: is told what is left of `timeout_s`: opening the connection takes time too.
            timeout_s: bounds the opening, beside `connect_timeout_ms`.
        """
        connected, left_s = self._opened(timeout_s)
        return connected.loop.submit(lambda: function(connected.client, left_s)).wait()

    def _opened(self, timeout_s: float) -> tuple[_Connected, float]:
        """The connection, opened, and what is left of `timeout_s`."""
        connected = self._connected
        if connected is not None and connected.is_ready:
            return connected, timeout_s
        connected = self._connection()
        # The runtime counts in milliseconds, and has less than one left at the very end.
        return connected, max(timeout_s - connected.wait_opened(timeout_s), 0.001)

    def execute_http(self, request: HTTPRequest) -> HTTPResponse:
        """Make an HTTP request. Every HTTP status is an answer, not an error."""
        own_ms = getattr(request, "timeout_ms", None)
        timeout_ms = self._timeout_ms(own_ms)
        timeout_s = timeout_ms / 1000
        connected, left_s = self._opened(timeout_s)
        is_short = has_short_body(request)
        if left_s != timeout_s and timeout_ms_of(left_s) != timeout_ms and (is_short or own_ms):
            request = request.with_timeout(timeout_ms_of(left_s))
        if is_short:
            return http_response(connected.call(connected.calls.http(request)))
        return connected.loop.submit(lambda: connected.client.execute_http(request)).wait()

    def _timeout_ms(self, timeout_ms: int | None) -> int:
        """The time of a call that asks for `timeout_ms`."""
        return check_timeout_ms(
            "timeout_ms", self.config.timeout_ms if timeout_ms is None else timeout_ms
        )

    @overload
    def stream(self, request: HTTPRequest, /) -> Stream: ...

    @overload
    def stream(self, request: str, url: str, /, **options: Unpack[RequestOptions]) -> Stream: ...

    def stream(
        self,
        request: HTTPRequest | str,
        url: str | None = None,
        /,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """Make an HTTP request whose answer is read while it comes.

        `with client.stream("GET", url) as response:` enters with the head of the answer; leaving
        the block before the end cancels the call, upstream too. As `AsyncRuntimeClient.stream`.
        """
        made = request_of(request, url, **options)
        return Stream(lambda: self._begin_stream(made))

    def events(
        self,
        request: HTTPRequest | str,
        /,
        *,
        reconnect: Reconnect | bool = True,
        last_event_id: str = "",
        **options: Unpack[RequestOptions],
    ) -> EventSource:
        """The server-sent events of a stream that is connected to again whenever it ends.

        As `AsyncRuntimeClient.events` does.
        """
        made = event_request(request, options)
        return EventSource(event_plan(made, reconnect, last_event_id), self.stream)

    def _begin_stream(self, request: HTTPRequest) -> "Job[StreamResponse]":
        timeout_ms = request.timeout_ms
        connected, left_s = self._opened(math.inf if timeout_ms is None else timeout_ms / 1000)
        if timeout_ms is not None and timeout_ms != timeout_ms_of(left_s):
            request = request.with_timeout(timeout_ms_of(left_s))

        async def open_response() -> StreamResponse:
            live, head = await connected.client.open_stream(request)
            return StreamResponse(connected.loop, self, live, head, repr(request))

        return connected.loop.submit(open_response)

    def execute_many(self, requests: Iterable[HTTPRequest]) -> list[HTTPResponse | VastarError]:
        """Make all `requests` side by side; the answers in their order, failures as values.

        As `AsyncRuntimeClient.execute_many` does: a request that cannot be built is a value too.
        """
        all_requests = list(requests)  # in this thread: it may be a generator that does anything
        return self._call(lambda client, _: client.execute_many(all_requests))

    def execute(
        self,
        connector: str,
        operation: str,
        payload: object = None,
        *,
        timeout_s: float | None = None,
        tenant_id: str | None = None,
        workspace_id: str | None = None,
        trace_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ConnectorAnswer:
        """Call any connector of the runtime, as `AsyncRuntimeClient.execute` does."""
        timeout_ms = self._timeout_ms(None if timeout_s is None else timeout_ms_of(timeout_s))
        connected, left_s = self._opened(timeout_ms / 1000)
        outgoing = connected.calls.json_call(
            connector,
            operation,
            payload,
            timeout_ms=timeout_ms_of(left_s),
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            trace_id=trace_id,
            idempotency_key=idempotency_key,
        )
        return connector_answer(connected.call(outgoing))

    def health(self, timeout_s: float = 5.0) -> HealthResponse:
        """How the runtime is."""
        return self._call(
            lambda client, left_s: client.health(left_s), timeout_ms_of(timeout_s) / 1000
        )

    def get(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """GET `url`; the options are those of `HTTPRequest`, and `timeout_s`."""
        return self.execute_http(build_request("GET", url, **options))

    def post(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """POST to `url`; options as for `get`."""
        return self.execute_http(build_request("POST", url, **options))

    def put(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """PUT to `url`; options as for `get`."""
        return self.execute_http(build_request("PUT", url, **options))

    def patch(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """PATCH `url`; options as for `get`."""
        return self.execute_http(build_request("PATCH", url, **options))

    def delete(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """DELETE `url`; options as for `get`."""
        return self.execute_http(build_request("DELETE", url, **options))

    def head(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """HEAD of `url`; options as for `get`."""
        return self.execute_http(build_request("HEAD", url, **options))

    def options(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """OPTIONS of `url`; options as for `get`."""
        return self.execute_http(build_request("OPTIONS", url, **options))
