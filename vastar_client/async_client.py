"""The client for programs with an event loop, on Trio or asyncio (through anyio).

Shape: `_calls` turns requests into messages, this module answers into values; `_link` keeps the
connection. Every call is built first (what fails there is the caller's mistake) and then exchanged
(`_exchange`: what fails there is an answer).
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, Unpack, overload

import anyio
import msgspec
from anyio.abc import ByteStream

from vastar_client import _payload
from vastar_client._calls import CallMaker, Outgoing
from vastar_client._dialing import dial as dial_configured
from vastar_client._link import Dial, Link
from vastar_client._reconnecting import Reconnect, event_plan, event_request
from vastar_client._streams import LiveStream
from vastar_client.config import RuntimeConfig, check_config
from vastar_client.databases import AsyncSqlCalls
from vastar_client.errors import ConnectorException, VastarError
from vastar_client.event_source import AsyncEventSource
from vastar_client.request import (
    HTTPRequest,
    RequestOptions,
    build_request,
    request_of,
    timeout_ms_of,
)
from vastar_client.response import HTTPResponse
from vastar_client.sql import Asked, Rows, database_error, results_of
from vastar_client.streaming import AsyncStream, AsyncStreamResponse
from vastar_client.wire import (
    Disposition,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    PayloadFormat,
    StreamStart,
)
from vastar_client.wire.limits import MAX_IN_FLIGHT_REQUESTS

__all__ = ["AsyncRuntimeClient", "ConnectorAnswer", "connector_answer"]


class ConnectorAnswer(msgspec.Struct, frozen=True):
    """What `execute()` got back from a connector.

    Attributes:
        payload: as the connector wrote it.
        duration_us, queued_us, backoff_us: microseconds: in the runtime, in its lines, between
            attempts.
        attempts, disposition, refused_by, retry_after_ms: as on `HTTPResponse`.
    """

    request_id: int
    payload: bytes
    payload_format: PayloadFormat
    duration_us: int
    attempts: int
    disposition: Disposition
    queued_us: int = 0
    backoff_us: int = 0
    refused_by: str | None = None
    retry_after_ms: int = 0

    def json(self) -> Any:
        """The payload as JSON.

        Raises:
            ValueError: it is none.
        """
        return msgspec.json.decode(self.payload)


def connector_answer(answer: ExecuteResponse) -> ConnectorAnswer:
    """What is in a successful `answer`."""
    return ConnectorAnswer(
        answer.request_id,
        bytes(_payload.payload_view(answer)),
        answer.payload_format,
        answer.duration_us,
        answer.attempts,
        answer.disposition,
        answer.queued_us,
        answer.backoff_us,
        answer.refused_by,
        answer.retry_after_ms,
    )


class AsyncRuntimeClient(AsyncSqlCalls):
    """Calls through the runtime, any number at once on one connection.

    Use it as `async with AsyncRuntimeClient() as client:`; entering connects.

    Args:
        config: where the runtime is, and defaults of the calls.
        dial: opens the byte stream instead of `config`; a test gives `FakeRuntime.dial`.

    Raises (on entering):
        RuntimeUnavailable: there is no runtime at the address.
    """

    def __init__(self, config: RuntimeConfig | None = None, *, dial: Dial | None = None) -> None:
        self.config = check_config(config)
        self._link = Link(dial or self._dial, sends_cancel=self.config.payload_format == "native")
        self._calls = CallMaker(self.config)
        self._entered = False

    async def _dial(self) -> ByteStream:
        return await dial_configured(self.config)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("an AsyncRuntimeClient can be entered once: make a new one")
        self._entered = True
        await self._link.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._link.close()

    async def _exchange(self, outgoing: Outgoing) -> ExecuteResponse:
        """The successful answer to one call."""
        assert outgoing.timeout_s is not None, "only a stream may go without"
        answer = await self._link.exchange(outgoing.message, outgoing.timeout_s, outgoing.source)
        return _payload.succeeded(answer)

    async def execute(
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
        """Call any connector of the runtime, with a JSON payload.

        Args:
            connector: its name, such as "http".
            operation: what it shall do.
            payload: bytes or text as they are, anything else as JSON.
            timeout_s: the deadline, by default the client's.
            tenant_id: on whose behalf, by default the client's.
            workspace_id: as above.
            trace_id: goes into every log line of the call.
            idempotency_key: declares a repeat harmless.

        Raises:
            ConnectorException: the call failed.
        """
        outgoing = self._calls.json_call(
            connector,
            operation,
            payload,
            timeout_ms=None if timeout_s is None else timeout_ms_of(timeout_s),
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            trace_id=trace_id,
            idempotency_key=idempotency_key,
        )
        return connector_answer(await self._exchange(outgoing))

    async def execute_http(self, request: HTTPRequest) -> HTTPResponse:
        """Make an HTTP request through the runtime. Every HTTP status is an answer.

        Raises:
            ConnectorException: there is no answer; its class and disposition say what to do.
        """
        return _payload.http_response(await self._exchange(self._calls.http(request)))

    def for_threads(self) -> tuple[CallMaker, Link]:
        """For the blocking client: what makes calls, in any thread, and what takes them in here."""
        return self._calls, self._link

    @overload
    def stream(self, request: HTTPRequest, /) -> AsyncStream: ...

    @overload
    def stream(
        self, request: str, url: str, /, **options: Unpack[RequestOptions]
    ) -> AsyncStream: ...

    def stream(
        self,
        request: HTTPRequest | str,
        url: str | None = None,
        /,
        **options: Unpack[RequestOptions],
    ) -> AsyncStream:
        """Make an HTTP request whose answer is read while it comes.

        `async with client.stream("GET", url) as response:` enters with the head of the answer;
        leaving the block before the end cancels the call, upstream too. Without a timeout of its
        own the call has no deadline; the runtime's limits for streams hold.

        Args:
            request: an `HTTPRequest` alone, or a method.
            url: behind a method.
            options: as for `get`.

        Raises (on entering):
            ConnectorException: there is no answer; its class and disposition say what to do.
        """
        made = request_of(request, url, **options)
        return AsyncStream(lambda: self._open_response(made))

    def events(
        self,
        request: HTTPRequest | str,
        /,
        *,
        reconnect: Reconnect | bool = True,
        last_event_id: str = "",
        **options: Unpack[RequestOptions],
    ) -> AsyncEventSource:
        """The server-sent events of a stream that is connected to again whenever it ends.

        Args:
            request: a URL, for a GET; or an `HTTPRequest` alone.
            reconnect: how often and how fast; False: the first end is the end.
            last_event_id: where to begin, as an earlier source said it.
            options: as for `get`; a timeout bounds each connection.

        Raises (while iterating):
            ConnectorException: a repeat cannot help, or was tried often enough.
            SSELimitError: a line is over 1 MiB or an event over 4 MiB.
        """
        made = event_request(request, options)
        return AsyncEventSource(event_plan(made, reconnect, last_event_id), self.stream)

    async def _open_response(self, request: HTTPRequest) -> AsyncStreamResponse:
        return AsyncStreamResponse(*await self.open_stream(request), repr(request))

    async def open_stream(self, request: HTTPRequest) -> tuple[LiveStream, StreamStart]:
        """For the blocking client: a streamed call and its head; whoever gets it closes it.

        Raises:
            ConnectorException: there is no answer.
        """
        return await self._open(self._calls.http(request, stream=True))

    async def open_rows(self, call: Asked) -> LiveStream:
        """For streams of rows: one whose head has come. Raises ConnectorException."""
        return (await self._open(call.outgoing(self._calls, call.own_timeout_ms())))[0]

    async def database_call(self, call: Asked) -> list[Rows]:
        """For calls to databases. Raises DatabaseError."""
        try:
            return results_of(
                await self._exchange(call.outgoing(self._calls, call.own_timeout_ms()))
            )
        except ConnectorException as error:
            raise database_error(error) from None

    async def _open(self, outgoing: Outgoing) -> tuple[LiveStream, StreamStart]:
        live = await self._link.open_stream(
            outgoing.message,
            outgoing.timeout_s,
            outgoing.source,
            patience_s=self.config.timeout_ms / 1000,
        )
        try:
            return live, await live.head()
        except Exception:
            await live.aclose()
            raise
        except BaseException:
            live.close()
            raise

    async def execute_many(
        self, requests: Iterable[HTTPRequest]
    ) -> list[HTTPResponse | VastarError]:
        """Make all `requests` side by side; the answers in their order, failures as values.

        A request that cannot be built (its URL is no text, say) is a value too: a
        `ConnectorException` of class INVALID_REQUEST, whose `__cause__` is the error that
        `execute_http` raises for it. At most 256 run at once; the deadline of each counts from its
        own start.
        """
        all_requests = list(requests)
        waiting = enumerate(all_requests)
        results: dict[int, HTTPResponse | VastarError] = {}

        async def work() -> None:
            for index, request in waiting:
                results[index] = await self._outcome(request)

        async with anyio.create_task_group() as tasks:
            for _ in range(min(len(all_requests), MAX_IN_FLIGHT_REQUESTS)):
                tasks.start_soon(work)
        return [results[index] for index in range(len(all_requests))]

    async def _outcome(self, request: HTTPRequest) -> HTTPResponse | VastarError:
        """What came of `request`. A bug of ours while it is under way is raised."""
        try:
            outgoing = self._calls.http(request)
        except VastarError as error:
            return error
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this request's
            return _payload.unsendable(error)
        try:
            return _payload.http_response(await self._exchange(outgoing))
        except VastarError as error:
            return error
        except Exception as error:
            if outgoing.source is None or outgoing.source.error is not error:
                raise
            return _payload.unsendable(error, Disposition.SENT_NO_RESPONSE)

    async def health(self, timeout_s: float = 5.0) -> HealthResponse:
        """How the runtime is.

        Raises:
            RuntimeUnavailable: there is none.
            CallTimeout: no answer in time.
            ValueError: the timeout is not above 0.
        """
        answer = await self._link.exchange(HealthCheck(), timeout_ms_of(timeout_s) / 1000)
        assert isinstance(answer, HealthResponse)
        return answer

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """GET `url`; the options are those of `HTTPRequest`, and `timeout_s`."""
        return await self.execute_http(build_request("GET", url, **options))

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """POST to `url`; options as for `get`."""
        return await self.execute_http(build_request("POST", url, **options))

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """PUT to `url`; options as for `get`."""
        return await self.execute_http(build_request("PUT", url, **options))

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """PATCH `url`; options as for `get`."""
        return await self.execute_http(build_request("PATCH", url, **options))

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """DELETE `url`; options as for `get`."""
        return await self.execute_http(build_request("DELETE", url, **options))

    async def head(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """HEAD of `url`; options as for `get`."""
        return await self.execute_http(build_request("HEAD", url, **options))

    async def options(self, url: str, **options: Unpack[RequestOptions]) -> HTTPResponse:
        """OPTIONS of `url`; options as for `get`."""
        return await self.execute_http(build_request("OPTIONS", url, **options))
