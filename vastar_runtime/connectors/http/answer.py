"""The answer's payload: the JSON object that the published SDKs read, or the native table.

JSON: `headers` has lower-case names and text values, repeated ones joined by ", " (Set-Cookie by
a newline, as commas occur inside it) with `headers_list` of pairs beside it; a body that is not
UTF-8 is there twice, as text with U+FFFD in the gaps and exact in `body_base64`.
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import Final, cast

import msgspec

from vastar_client.wire import Buffer, HttpResponse, PayloadFormat, encode_http_response
from vastar_client.wire.messages import KeyValues
from vastar_runtime.outcomes import Reply

__all__ = ["HttpAnswer", "header_text"]


class HttpAnswer(msgspec.Struct, frozen=True):
    """A whole HTTP answer, before it is written in either format.

    Attributes:
        headers: in order, repeats kept, names in lower case.
        body: pieces in order.
        url: where it came from, after redirects, without secrets of the userinfo.
        is_streaming: it was an event stream, collected.
    """

    status_code: int
    headers: Sequence[tuple[bytes, bytes]]
    body: Sequence[Buffer]
    http_version: str
    url: str
    is_streaming: bool = False

    def reply(self, payload_format: PayloadFormat) -> Reply:
        """This answer as the payload of a reply."""
        native = payload_format is PayloadFormat.NATIVE
        payload = _native(self) if native else _json(self)
        return Reply(payload, payload_format, self.status_code)


class _JsonAnswer(msgspec.Struct, omit_defaults=True):
    body: str
    headers: dict[str, str]
    is_streaming: bool
    status_code: int
    success: bool
    body_base64: str | None = None
    headers_list: list[tuple[str, str]] | None = None


_JSON_ENCODER: Final = msgspec.json.Encoder()


def header_text(data: bytes) -> str:
    """A header's bytes as text: UTF-8 where they are that, else Latin-1 (RFC 9110 5.5)."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _pairs(answer: HttpAnswer) -> list[tuple[str, str]]:
    return [(header_text(name), header_text(value)) for name, value in answer.headers]


def _raw_pairs(answer: HttpAnswer) -> KeyValues:
    """The headers as they are, where they are UTF-8 already: nearly always."""
    for name, value in answer.headers:
        if not value.isascii() or not name.isascii():
            return _pairs(answer)
    return cast("KeyValues", answer.headers)  # the encoder takes either


def _native(answer: HttpAnswer) -> Sequence[Buffer]:
    return encode_http_response(
        HttpResponse(
            status_code=answer.status_code,
            headers=_raw_pairs(answer),
            body=answer.body,
            http_version=answer.http_version,
            url=answer.url,
        )
    )


def _json(answer: HttpAnswer) -> bytes:
    data = answer.body[0] if len(answer.body) == 1 else b"".join(answer.body)
    body_base64 = None
    try:
        body = str(data, "utf-8")
    except UnicodeDecodeError:
        body = str(data, "utf-8", "replace")
        body_base64 = b64encode(data).decode()
    pairs = _pairs(answer)
    headers = dict(pairs)
    repeats = len(headers) != len(pairs)
    return _JSON_ENCODER.encode(
        _JsonAnswer(
            body=body,
            headers=_joined(pairs) if repeats else headers,
            is_streaming=answer.is_streaming,
            status_code=answer.status_code,
            success=True,
            body_base64=body_base64,
            headers_list=pairs if repeats else None,
        )
    )


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """One value per name: RFC 9110 section 5.2 for all but Set-Cookie (section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        if name in headers:
            headers[name] += ("\n" if name == "set-cookie" else ", ") + value
        else:
            headers[name] = value
    return headers
