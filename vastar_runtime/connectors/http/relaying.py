"""From an upstream's response to a caller's stream: each piece handed on as it comes.

What came is sent before more is read, and sending waits for the caller's credit: so a caller that
reads slowly slows its own upstream, and at most a window of a body is held. The body is decoded on
the way; events are read only where somebody counts their tokens. The silence that is bounded is the
upstream's: the time that the caller takes is its own.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import trio

from vastar_client.wire import LocalProtocolError
from vastar_client.wire.limits import MAX_ANSWER_FRAME_BYTES, MAX_HEADER_PAIRS
from vastar_client.wire.sse import SSEDecoder, SSELimitError
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.answer import header_text
from vastar_runtime.connectors.http.collecting import Turns, Witness, content_decoder
from vastar_runtime.connectors.http.decoding import ContentDecoder
from vastar_runtime.outcomes import Streamed
from vastar_runtime.transport.errors import TransportError
from vastar_runtime.transport.messages import Headers, is_event_stream
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["Listener", "relay"]

_MAX_HEADER_BYTES: Final = MAX_ANSWER_FRAME_BYTES // 3
"""Latin-1 may become twice as long as UTF-8, and each header has its place in a table."""
_OF_THE_CODING: Final = frozenset({b"content-encoding", b"content-length"})


class Listener(Witness, Protocol):
    """A witness that may not care for events."""

    @property
    def wants_events(self) -> bool:
        """Whether `saw_event` is of any use."""


async def relay(
    call: Call,
    response: UpstreamResponse,
    listener: Listener,
    *,
    decode_content: bool,
    idle_timeout_s: float,
) -> Streamed:
    """Hand `response` on to the stream of `call`, to its end.

    Args:
        call: has a stream; counts what is received.
        response: closed by the caller.
        listener: told of the body as it passes.
        decode_content: undo the Content-Encoding, where it is known.
        idle_timeout_s: the longest silence of the upstream.

    Raises:
        BadContent: the body does not decode.
        LocalProtocolError: the head, or what trails the body, does not fit into a frame.
        TransportError: it did not arrive whole, or not in time.
    """
    stream = call.stream
    assert stream is not None
    decoder = content_decoder(response) if decode_content else None
    is_events = is_event_stream(response.headers)
    headers = response.headers
    if decoder is not None:
        headers = [pair for pair in headers if pair[0] not in _OF_THE_CODING]
    await stream.start(response.status, _texts(headers), is_sse=is_events)
    reader = _EventReader(listener) if is_events and listener.wants_events else None
    turns = Turns()
    while data := await _read(call, response, idle_timeout_s):
        call.received_bytes += len(data)
        for piece in _decoded(decoder, data):
            if not piece:
                await turns.spent(len(data))
                continue
            listener.saw(piece)
            if reader is not None:
                await reader.feed(piece, turns)
            await stream.send(piece)
            if decoder is not None:
                await turns.spent(len(piece))
    if decoder is not None:
        decoder.finish()
    return Streamed(response.status, _texts(response.trailers))


async def _read(call: Call, response: UpstreamResponse, idle_timeout_s: float) -> bytes:
    with trio.move_on_after(idle_timeout_s):
        return await response.read_some()
    raise TransportError.at(
        call.progress, call.origin, f"no byte for {idle_timeout_s:g} s", timed_out=True
    )


def _decoded(decoder: ContentDecoder | None, data: bytes) -> Iterable[bytes]:
    return (data,) if decoder is None else decoder.decode(data)


def _texts(headers: Headers) -> Sequence[tuple[str, str]]:
    """As they are sent; what no frame can hold is refused here, while there is somebody to tell."""
    size_bytes = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADER_PAIRS or size_bytes > _MAX_HEADER_BYTES:
        words = f"{len(headers)} headers of {size_bytes} bytes, more than a frame may hold"
        raise LocalProtocolError(words)
    return [(header_text(name), header_text(value)) for name, value in headers]


class _EventReader:
    """Reads the events that pass, for whoever counts what they say."""

    _STEP_BYTES: Final = 16 * 1024
    _COST: Final = 16

    def __init__(self, listener: Listener) -> None:
        self._events: SSEDecoder | None = SSEDecoder()
        self._listener = listener

    async def feed(self, data: bytes, turns: Turns) -> None:
        for at in range(0, len(data), self._STEP_BYTES):
            if self._events is None:
                return
            step = data[at : at + self._STEP_BYTES]
            try:
                for event in self._events.feed(step):
                    self._listener.saw_event(event.data)
            except SSELimitError:
                self._events = None  # no such stream: settled by its length
            await turns.spent(len(step) * self._COST)
