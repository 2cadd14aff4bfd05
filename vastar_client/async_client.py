"""The client for programs with an event loop, on Trio or asyncio (through anyio).

Shape: this module turns requests into messages and answers into values; `_link` keeps the
connection. Every call is built first (`_message`: what fails there is the caller's mistake)
and then exchanged (`_exchange`: what fails there is an answer).
"""

import itertools
import secrets
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

import anyio
import msgspec
from anyio.abc import ByteStream

from vastar_client import _payload
from vastar_client._dialing import dial as dial_configured
from vastar_client._link import Dial, Link
from vastar_client.config import RuntimeConfig, check_config, check_timeout_ms
from vastar_client.errors import VastarError
from vastar_client.request import HTTPRequest, RequestOptions, build_request, timeout_ms_of
from vastar_client.response import HTTPResponse
from vastar_client.wire import (
    Buffer,
    Disposition,
    ExecuteRequest,
    ExecuteResponse,
    HealthCheck,
    HealthResponse,
    PayloadFormat,
)
from vastar_client.wire.limits import MAX_IN_FLIGHT_REQUESTS

__all__ = ["AsyncRuntimeClient", "ConnectorAnswer"]

_Outgoing: TypeAlias = tuple[ExecuteRequest, float]
"""A message and the seconds until its deadline."""


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


class AsyncRuntimeClient:
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
        self._ids = itertools.count(secrets.randbits(31) << 32 | 1)
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

    def _message(
        self,
        connector: str,
        operation: str,
        payload: Buffer | Sequence[Buffer],
        payload_format: PayloadFormat,
        *,
        timeout_ms: int | None,
        tenant_id: str | None,
        workspace_id: str | None,
        trace_id: str | None,
        idempotency_key: str | None,
    ) -> _Outgoing:
        """One call, its time running from now.

        Raises:
            TypeError, ValueError: a field is of the wrong type, or the timeout is none.
        """
        if timeout_ms is None:
            timeout_ms = self.config.timeout_ms
        check_timeout_ms("timeout_ms", timeout_ms)
        message = ExecuteRequest(
            request_id=next(self._ids),
            tenant_id=_text("tenant_id", self.config.tenant_id if tenant_id is None else tenant_id),
            workspace_id=_text("workspace_id", workspace_id or self.config.workspace_id) or None,
            trace_id=None if trace_id is None else _text("trace_id", trace_id),
            connector_name=_text("connector", connector),
            operation=_text("operation", operation),
            deadline_at_ms=int(time.time() * 1000) + timeout_ms,
            payload=payload,
            payload_format=payload_format,
            idempotency_key=(
                None if idempotency_key is None else _text("idempotency_key", idempotency_key)
            ),
        )
        return message, timeout_ms / 1000

    def _http_message(self, request: HTTPRequest) -> _Outgoing:
        payload, payload_format = _payload.http_request_payload(request, self.config.payload_format)
        return self._message(
            "http",
            "request",
            payload,
            payload_format,
            timeout_ms=request.timeout_ms,
            tenant_id=request.tenant_id,
            workspace_id=request.workspace_id,
            trace_id=request.trace_id,
            idempotency_key=request.idempotency_key,
        )

    async def _exchange(self, outgoing: _Outgoing) -> ExecuteResponse:
        """The successful answer to one call."""
        answer = await self._link.exchange(*outgoing)
        assert isinstance(answer, ExecuteResponse)
        error = _payload.error_of(answer)
        if error is not None:
            raise error
        return answer

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
        outgoing = self._message(
            connector,
            operation,
            _payload.payload_bytes({} if payload is None else payload),
            PayloadFormat.JSON,
            timeout_ms=None if timeout_s is None else timeout_ms_of(timeout_s),
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            trace_id=trace_id,
            idempotency_key=idempotency_key,
        )
        answer = await self._exchange(outgoing)
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

    async def execute_http(self, request: HTTPRequest) -> HTTPResponse:
        """Make an HTTP request through the runtime. Every HTTP status is an answer.

        Raises:
            ConnectorException: there is no answer; its class and disposition say what to do.
        """
        return _payload.http_response(await self._exchange(self._http_message(request)))

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
            outgoing = self._http_message(request)
        except VastarError as error:
            return error
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this request's
            return _payload.unsendable(error)
        try:
            return _payload.http_response(await self._exchange(outgoing))
        except VastarError as error:
            return error

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


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__}: it must be str")
    return value
