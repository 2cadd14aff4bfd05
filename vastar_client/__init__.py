"""The client side of the Vastar connector runtime: what connector authors import.

from vastar_client import RuntimeClient

with RuntimeClient() as client:
    print(client.get("https://example.com/").text)
"""

from vastar_client._headers import Headers
from vastar_client.async_client import AsyncRuntimeClient, ConnectorAnswer
from vastar_client.blocking import RuntimeClient
from vastar_client.config import RuntimeConfig
from vastar_client.errors import (
    CallTimeout,
    ConnectionClosed,
    ConnectorException,
    HTTPStatusError,
    RuntimeUnavailable,
    VastarError,
    WrongThreadError,
)
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
from vastar_client.retry import retry_with_backoff
from vastar_client.sse_parser import SSEParser
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
    "AsyncRuntimeClient",
    "CallTimeout",
    "ConnectionClosed",
    "ConnectorAnswer",
    "ConnectorException",
    "Disposition",
    "ErrorClass",
    "HTTPRequest",
    "HTTPResponse",
    "HTTPResponseHelper",
    "HTTPStatusError",
    "Headers",
    "HealthResponse",
    "RuntimeClient",
    "RuntimeConfig",
    "RuntimeUnavailable",
    "SSEDecoder",
    "SSEEvent",
    "SSELimitError",
    "SSEParser",
    "VastarError",
    "WrongThreadError",
    "retry_with_backoff",
]
