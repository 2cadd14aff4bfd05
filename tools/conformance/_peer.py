"""A caller of the implementation under test: frames out, frames in, each checked as it comes.

What arrives goes through the client's own end of the protocol, which refuses everything that the
connection's state does not allow: a frame nobody asked for breaks whatever rule is being played.
"""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import msgspec
import trio

from tools.conformance._rules import BrokenRuleError, NotSupportedError, must
from tools.conformance._world import World
from vastar_client.wire import (
    END_OF_STREAM,
    NEED_DATA,
    Connection,
    ErrorClass,
    ExecuteRequest,
    ExecuteResponse,
    Message,
    RemoteProtocolError,
    Role,
    Signal,
)

__all__ = ["JSON", "Peer", "calling", "check_shape", "http_call", "json_of"]

_RECEIVE_BYTES: Final = 65_536
_QUIET_S: Final = 0.3
TENANT: Final = "conformance"
_Kind = TypeVar("_Kind")
JSON = dict[str, object]


def http_call(request_id: int, payload: object, **fields: object) -> ExecuteRequest:
    """An HTTP call with that payload, which becomes JSON where it is no bytes."""
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    named: JSON = {"tenant_id": TENANT, "connector_name": "http", "operation": "request"}
    return ExecuteRequest(request_id, **{**named, "payload": data, **fields})  # type: ignore[arg-type]  # fields of the struct


def check_shape(answer: ExecuteResponse) -> ExecuteResponse:
    """`answer`, whose parts must fit together."""
    has_payload = bool(len(answer.payload or b""))
    if answer.error_class is ErrorClass.SUCCESS:
        must(has_payload, "a success without a payload: published SDKs crash on it")
    else:
        must(answer.payload is None, f"a failure ({answer.error_class.name}) with a payload")
        must(answer.error_message, f"a failure ({answer.error_class.name}) without a message")
    return answer


def json_of(answer: ExecuteResponse) -> JSON:
    """The JSON payload of a success.

    Raises:
        BrokenRuleError: it is none.
    """
    words = f"{answer.error_class.name} {answer.error_message!r} instead of a success"
    must(answer.error_class is ErrorClass.SUCCESS, words)
    try:
        return msgspec.json.decode(bytes(answer.payload or b""), type=JSON)  # type: ignore[arg-type]  # one buffer
    except msgspec.DecodeError as error:
        raise BrokenRuleError(f"the payload is no JSON object: {error}") from None


class Peer:
    """One connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self._wire = Connection(Role.CLIENT)

    async def send(self, *messages: Message) -> None:
        """Send frames in one write."""
        await self.send_bytes(self.encoded(*messages))

    def encoded(self, *messages: Message) -> bytes:
        """The frames; the connection takes them for sent."""
        buffers = (buffer for message in messages for buffer in self._wire.send(message))
        return b"".join(map(bytes, buffers))

    async def send_bytes(self, data: bytes) -> None:
        """Send whatever it is; a connection that has been closed is told by `receive`."""
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(data)

    async def half_close(self) -> None:
        """End the own half."""
        await self._stream.send_eof()

    async def receive(self) -> Message | Signal:
        """The next frame, or END_OF_STREAM.

        Raises:
            BrokenRuleError: what came is not allowed here.
        """
        try:
            while (event := self._wire.next_event()) is NEED_DATA:
                data = b""
                with suppress(trio.BrokenResourceError):
                    data = bytes(await self._stream.receive_some(_RECEIVE_BYTES))
                self._wire.receive_data(data)
        except RemoteProtocolError as error:
            raise BrokenRuleError(f"a frame that may not come here: {error}") from None
        return check_shape(event) if isinstance(event, ExecuteResponse) else event

    async def expect(self, kind: type[_Kind]) -> _Kind:
        """The next frame, which must be of that kind.

        Raises:
            BrokenRuleError: it is another, or the connection ended.
            NotSupportedError: it is an answer of one who does not know the extension.
        """
        event = await self.receive()
        if isinstance(event, kind):
            return event
        if isinstance(event, ExecuteResponse):
            is_refusal = event.error_class is ErrorClass.INVALID_REQUEST and not event.request_id
            if is_refusal or event.error_class is ErrorClass.SUCCESS:
                said = event.error_message or "executed as a plain call"
                raise NotSupportedError(f"answered with type 1: {said}")
        what = "the end" if event is END_OF_STREAM else repr(event)
        raise BrokenRuleError(f"{what} where a {kind.__name__} was due")

    async def answer(self) -> ExecuteResponse:
        """The next frame, which must be the answer to a call."""
        event = await self.receive()
        if not isinstance(event, ExecuteResponse):
            what = "the end" if event is END_OF_STREAM else repr(event)
            raise BrokenRuleError(f"{what} where an ExecuteResponse was due")
        return event

    async def call(self, request: ExecuteRequest) -> ExecuteResponse:
        """Make a call; its answer, whose id must be that of the call."""
        await self.send(request)
        answer = await self.answer()
        asked, got = request.request_id, answer.request_id
        must(asked == got, f"the answer to {asked} has the id {got}")
        return answer

    async def lives(self, world: World) -> None:
        """The connection must still serve calls."""
        answer = await self.call(http_call(990_001, {"url": world.url()}))
        json_of(answer)

    async def refused(self, words: str = "", request_id: int = 0) -> None:
        """The next frame must be InvalidRequest, with that id and opening words."""
        answer = await self.answer()
        said = answer.error_message or ""
        is_it = answer.error_class is ErrorClass.INVALID_REQUEST
        must(is_it, f"{answer.error_class.name} {said!r} where InvalidRequest was due")
        must(answer.request_id == request_id, f"the id {answer.request_id}, not {request_id}")
        must(said.startswith(words), f"{said!r} does not begin with {words!r}")

    async def closed(self) -> None:
        """The connection must end, after at most one InvalidRequest."""
        event = await self.receive()
        if isinstance(event, ExecuteResponse):
            is_it = event.error_class is ErrorClass.INVALID_REQUEST
            must(is_it, f"{event.error_class.name} where InvalidRequest was due")
            event = await self.receive()
        must(event is END_OF_STREAM, f"{event!r} where the connection was to be closed")

    async def silent(self) -> None:
        """Nothing must come for a while."""
        with trio.move_on_after(_QUIET_S):
            event = await self.receive()
            raise BrokenRuleError(f"{event!r} came unasked")

    async def vanish(self) -> None:
        """Leave in a way that cannot be taken for a half close: on TCP by a reset."""
        if isinstance(self._stream, trio.SocketStream):
            linger = struct.pack("ii", 1, 0)
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await self.aclose()

    async def aclose(self) -> None:
        """Leave."""
        await trio.aclose_forcefully(self._stream)


@asynccontextmanager
async def calling(world: World) -> AsyncIterator[Peer]:
    """A connection of its own while the block runs."""
    peer = Peer(await world.connect())
    try:
        yield peer
    finally:
        await peer.aclose()
