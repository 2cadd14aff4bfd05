"""The client side of the Vastar connector runtime: what connector authors import.

from vastar_client import RuntimeClient

with RuntimeClient() as client:
    print(client.get("https://example.com/").text)

The names are loaded when they are first asked for (PEP 562): the runtime imports
`vastar_client.wire`, and with it this file, but must not pay for the clients (65 ms) or load them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vastar_client._headers import Headers
    from vastar_client._reconnecting import Reconnect
    from vastar_client.async_client import AsyncRuntimeClient, ConnectorAnswer
    from vastar_client.blocking import RuntimeClient
    from vastar_client.blocking_events import EventSource
    from vastar_client.blocking_streaming import Stream, StreamResponse
    from vastar_client.config import RuntimeConfig
    from vastar_client.databases import AsyncDatabase, AsyncRowStream, Database, RowStream
    from vastar_client.errors import (
        CallTimeout,
        ConnectionClosed,
        ConnectorException,
        HTTPStatusError,
        RuntimeUnavailable,
        VastarError,
        WrongThreadError,
    )
    from vastar_client.event_source import AsyncEventSource
    from vastar_client.helpers import HTTPResponseHelper
    from vastar_client.request import (
        DELETE,
        GET,
        HEAD,
        OPTIONS,
        PATCH,
        POST,
        PUT,
        HTTPRequest,
    )
    from vastar_client.response import HTTPResponse
    from vastar_client.retry import retry_with_backoff, retry_with_backoff_async
    from vastar_client.sql import (
        DatabaseError,
        DataError,
        IntegrityError,
        InterfaceError,
        InternalError,
        Json,
        NotSupportedError,
        OperationalError,
        ProgrammingError,
        QueryTimeout,
        Rows,
    )
    from vastar_client.sse_parser import SSEParser
    from vastar_client.streaming import AsyncStream, AsyncStreamResponse
    from vastar_client.wire.enums import Disposition, ErrorClass
    from vastar_client.wire.messages import HealthResponse
    from vastar_client.wire.sse import SSEDecoder, SSEEvent, SSELimitError

__all__ = [
    "DELETE",
    "GET",
    "HEAD",
    "OPTIONS",
    "PATCH",
    "POST",
    "PUT",
    "AsyncDatabase",
    "AsyncEventSource",
    "AsyncRowStream",
    "AsyncRuntimeClient",
    "AsyncStream",
    "AsyncStreamResponse",
    "CallTimeout",
    "ConnectionClosed",
    "ConnectorAnswer",
    "ConnectorException",
    "DataError",
    "Database",
    "DatabaseError",
    "Disposition",
    "ErrorClass",
    "EventSource",
    "HTTPRequest",
    "HTTPResponse",
    "HTTPResponseHelper",
    "HTTPStatusError",
    "Headers",
    "HealthResponse",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "Json",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "QueryTimeout",
    "Reconnect",
    "RowStream",
    "Rows",
    "RuntimeClient",
    "RuntimeConfig",
    "RuntimeUnavailable",
    "SSEDecoder",
    "SSEEvent",
    "SSELimitError",
    "SSEParser",
    "Stream",
    "StreamResponse",
    "VastarError",
    "WrongThreadError",
    "retry_with_backoff",
    "retry_with_backoff_async",
]

_MODULE_OF = {
    name: module
    for module, names in {
        "_headers": "Headers",
        "_reconnecting": "Reconnect",
        "async_client": "AsyncRuntimeClient ConnectorAnswer",
        "blocking": "RuntimeClient",
        "blocking_events": "EventSource",
        "blocking_streaming": "Stream StreamResponse",
        "config": "RuntimeConfig",
        "databases": "AsyncDatabase AsyncRowStream Database RowStream",
        "errors": "CallTimeout ConnectionClosed ConnectorException HTTPStatusError "
        "RuntimeUnavailable VastarError WrongThreadError",
        "event_source": "AsyncEventSource",
        "helpers": "HTTPResponseHelper",
        "request": "DELETE GET HEAD OPTIONS PATCH POST PUT HTTPRequest",
        "response": "HTTPResponse",
        "retry": "retry_with_backoff retry_with_backoff_async",
        "sql": "DataError DatabaseError IntegrityError InterfaceError InternalError Json "
        "NotSupportedError OperationalError ProgrammingError QueryTimeout Rows",
        "sse_parser": "SSEParser",
        "streaming": "AsyncStream AsyncStreamResponse",
        "wire.enums": "Disposition ErrorClass",
        "wire.messages": "HealthResponse",
        "wire.sse": "SSEDecoder SSEEvent SSELimitError",
    }.items()
    for name in names.split()
}


def __getattr__(name: str) -> object:
    """The public name `name`, loaded now and kept."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    """What there is, loaded or not."""
    return sorted({*globals(), *__all__})
