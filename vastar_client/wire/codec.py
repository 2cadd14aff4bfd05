"""Messages to FlatBuffers and back; the decoder is the verifier.

`decode_message` raises `RemoteProtocolError` and nothing else for any bytes whatever; its cost
is linear in them. Byte vectors of a decoded message are views of the received buffer.
"""

from typing import Final

from vastar_client.wire._reading import MalformedError, TableReader
from vastar_client.wire._tables import HTTP_REQUEST, HTTP_RESPONSE, TABLES
from vastar_client.wire._writing import TableWriter, buffers_bytes, one_buffer, payload_bytes
from vastar_client.wire.enums import MessageType
from vastar_client.wire.messages import Buffer, HealthCheck, HttpRequest, HttpResponse, Message

__all__ = [
    "MalformedError",
    "buffers_bytes",
    "decode_http_request",
    "decode_http_response",
    "decode_message",
    "encode_http_request",
    "encode_http_response",
    "encode_message",
    "one_buffer",
    "payload_bytes",
]

_READERS: Final = {type_: TableReader(table) for type_, table in TABLES.items()}
_WRITERS: Final = {type_: TableWriter(table) for type_, table in TABLES.items()}
_HTTP_REQUEST_READER: Final = TableReader(HTTP_REQUEST)
_HTTP_REQUEST_WRITER: Final = TableWriter(HTTP_REQUEST)
_HTTP_RESPONSE_READER: Final = TableReader(HTTP_RESPONSE)
_HTTP_RESPONSE_WRITER: Final = TableWriter(HTTP_RESPONSE)


def decode_message(message_type: MessageType, flatbuffer: Buffer) -> Message:
    """The message in the FlatBuffer of a frame of `message_type`; bytes behind it are ignored.

    Raises:
        MalformedError: the buffer is not a valid FlatBuffer of that type's table.
    """
    if message_type is MessageType.HEALTH_CHECK:
        return HealthCheck()
    message: Message = _READERS[message_type].read(memoryview(flatbuffer))
    return message


def encode_message(message: Message) -> list[Buffer]:
    """The FlatBuffer of `message` as buffers to send one after another, body last, uncopied.

    Raises:
        LocalProtocolError: a field cannot be written (a number out of range, a lone surrogate).
    """
    if message.TYPE is MessageType.HEALTH_CHECK:
        return []
    return _WRITERS[message.TYPE].write(message)


def decode_http_request(payload: Buffer) -> HttpRequest:
    """The native payload of operation `request` of connector `http`.

    Raises:
        MalformedError: it is not a valid HttpRequest.
    """
    request: HttpRequest = _HTTP_REQUEST_READER.read(memoryview(payload))
    return request


def encode_http_request(request: HttpRequest) -> list[Buffer]:
    """The buffers of a native HTTP request, body last, uncopied.

    Raises:
        LocalProtocolError: a field cannot be written.
    """
    return _HTTP_REQUEST_WRITER.write(request)


def decode_http_response(payload: Buffer) -> HttpResponse:
    """The native payload of an HTTP answer.

    Raises:
        MalformedError: it is not a valid HttpResponse.
    """
    response: HttpResponse = _HTTP_RESPONSE_READER.read(memoryview(payload))
    return response


def encode_http_response(response: HttpResponse) -> list[Buffer]:
    """The buffers of a native HTTP answer, body last, uncopied.

    Raises:
        LocalProtocolError: a field cannot be written.
    """
    return _HTTP_RESPONSE_WRITER.write(response)
