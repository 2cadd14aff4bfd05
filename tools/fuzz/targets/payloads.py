"""Payloads from outside as their readers take them: a value, or the error that is promised.

Input: which reader; then the payload. The readers are those that look into bytes of a caller, of an
upstream or of a peer without a decoder of ours between: they must raise nothing else.
"""

import json
from types import SimpleNamespace
from typing import Any, Final, cast

from tools.fuzz.targets._inputs import Input
from vastar_client._payload import http_response
from vastar_client.errors import ConnectorException
from vastar_client.sse_parser import content_of
from vastar_client.wire import ExecuteRequest, ExecuteResponse, PayloadFormat
from vastar_runtime.connectors.http.errors import InvalidCall
from vastar_runtime.connectors.http.payload import parse_payload
from vastar_runtime.connectors.sql.errors import SqlError
from vastar_runtime.connectors.sql.jobs import OPERATIONS, job_of

__all__ = ["check"]

_FORMATS: Final = (PayloadFormat.JSON, PayloadFormat.NATIVE)


def check(data: bytes) -> bool:
    """Have one payload read; whether it said something.

    Raises:
        AssertionError: what was read cannot be.
        Exception: any that the reader does not promise.
    """
    source = Input(data)
    return source.pick((_database_call, _http_call, _http_answer, _event))(source)


def _database_call(source: Input) -> bool:
    message = ExecuteRequest(
        *(1, "t", "db", source.pick(OPERATIONS)),
        payload_format=source.pick(_FORMATS),
        payload=source.rest(),
    )
    try:
        job = job_of(cast("Any", SimpleNamespace(request=message)))
    except SqlError:
        return False
    assert job.statements
    assert job.timeout_ms >= 0
    return True


def _http_call(source: Input) -> bool:
    try:
        call = parse_payload(source.rest(), PayloadFormat.JSON)
    except InvalidCall:
        return False
    assert call.timeout_ms >= 0
    assert isinstance(call.url, str)
    return True


def _http_answer(source: Input) -> bool:
    format_ = source.pick(_FORMATS)
    answer = ExecuteResponse(1, payload=source.rest(), payload_format=format_)
    try:
        response = http_response(answer)
    except ConnectorException:
        return False
    assert isinstance(response.body, bytes)
    assert isinstance(response.text, str)
    return True


def _event(source: Input) -> bool:
    """The text of a chunk of a chat, as the json module finds it."""
    text = source.rest().decode("utf-8", "replace")
    found = content_of(text)
    try:
        content = json.loads(text)["choices"][0]["delta"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return found is not None
    if isinstance(content, str) and content.isascii() and text.isascii() and "NaN" not in text:
        assert found == content or "Infinity" in text, (found, content)
    return found is not None
