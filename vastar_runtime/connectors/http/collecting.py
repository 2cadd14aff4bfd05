"""From an upstream's response to one whole answer: the body read, decoded and bounded.

The pieces are kept as they come and never joined: the native answer sends them one behind
another. A body is given up as soon as it is longer than an answer can be. Decoding and looking for
events take time in proportion to what they read, so others get a turn in between.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final, Protocol

import trio

from vastar_client.wire.sse import SSEDecoder, SSELimitError
from vastar_runtime.calls import Call
from vastar_runtime.connectors.http.answer import HttpAnswer, header_text
from vastar_runtime.connectors.http.decoding import ContentDecoder, codings_of, decoder_for
from vastar_runtime.transport.errors import BodyTooLarge, TransportError
from vastar_runtime.transport.messages import header_values, is_event_stream
from vastar_runtime.transport.response import UpstreamResponse

__all__ = ["AnswerTooLarge", "Turns", "Witness", "collect", "content_decoder", "discard"]

_DISCARDED_BYTES: Final = 64 * 1024
_DISCARD_S: Final = 0.1
_STEP_BYTES: Final = 64 * 1024
_TURN_BYTES: Final = 256 * 1024
"""Decoded before others get a turn: about a millisecond."""
_EVENTS_STEP_BYTES: Final = 16 * 1024
_EVENTS_COST: Final = 16
"""Reading a byte of events takes so many times as long as decoding one, at worst."""
_DONE: Final = "[DONE]"
_END_GRACE_S: Final = 0.005
"""Against a new TLS handshake for the next call, which costs ten times as much."""


class Witness(Protocol):
    """Who is told of an answer's body as it passes; neither may take long."""

    def saw(self, data: bytes) -> None:
        """A piece of the body, decoded, was read."""

    def saw_event(self, data: str) -> None:
        """The data of an event of the body's event stream."""


class AnswerTooLarge(Exception):  # noqa: N818 - what happened, and to what
    """The body is longer than the answer to the caller may be."""


async def discard(call: Call, response: UpstreamResponse) -> None:
    """Read a short body to its end, so that its connection can be kept; leave others."""
    # The head was all that was wanted; a connection that fails now is not kept, that is all.
    with trio.move_on_after(_DISCARD_S), suppress(BodyTooLarge, TransportError):
        call.received_bytes += len(await response.read_all(_DISCARDED_BYTES))


async def collect(
    call: Call,
    response: UpstreamResponse,
    url: str,
    witness: Witness,
    *,
    decode_content: bool,
) -> HttpAnswer:
    """The whole answer in `response`.

    Args:
        call: counts what is received; says how long an answer may be.
        response: closed by the caller.
        url: where it comes from, as the answer tells it.
        witness: told of the body as it passes.
        decode_content: undo the Content-Encoding, where it is known.

    Raises:
        AnswerTooLarge: the decoded body is longer than the answer may be.
        BadContent: it does not decode.
        TransportError: it did not arrive whole.
    """
    decoder = content_decoder(response) if decode_content else None
    is_events = is_event_stream(response.headers)
    received_before = call.received_bytes
    body = await _read_body(call, response, decoder, witness, is_events=is_events)
    headers: list[tuple[bytes, bytes]] = response.headers
    if decoder is not None and call.received_bytes > received_before:
        headers = _without_encoding(headers, sum(map(len, body)))
    return HttpAnswer(
        status_code=response.status,
        headers=headers,
        body=body,
        http_version=response.http_version,
        url=url,
        is_streaming=is_events,
    )


async def _read_body(
    call: Call,
    response: UpstreamResponse,
    decoder: ContentDecoder | None,
    witness: Witness,
    *,
    is_events: bool,
) -> list[bytes]:
    limit_bytes = call.max_answer_bytes
    turns = Turns()
    done = _DoneDetector(turns, witness) if is_events else None
    pieces: list[bytes] = []
    total_bytes = 0
    while data := await response.read_some():
        call.received_bytes += len(data)
        decoded: Iterable[bytes] = (data,) if decoder is None else decoder.decode(data)
        for piece in decoded:
            total_bytes += len(piece)
            if total_bytes > limit_bytes:
                raise AnswerTooLarge
            if piece:
                pieces.append(piece)
                call.collects(len(piece))
                witness.saw(piece)
            if decoder is not None:
                await turns.spent(len(piece) or _STEP_BYTES)
            if done is not None and await done.sees(piece):
                await _await_end(response)
                call.progress.completed = True  # for the caller this is the end
                return pieces
    if decoder is not None:
        decoder.finish()
    return pieces


class Turns:
    """Lets the other tasks run, and the deadline strike, once per so much work."""

    def __init__(self) -> None:
        self._work_bytes = 0

    async def spent(self, work_bytes: int) -> None:
        """`work_bytes` more were worked through."""
        self._work_bytes += work_bytes
        if self._work_bytes >= _TURN_BYTES:
            self._work_bytes = 0
            await trio.lowlevel.checkpoint()


async def _await_end(response: UpstreamResponse) -> None:
    """Give a stream that said `[DONE]` a moment to end, so that its connection can be kept.

    Most send the end of the body right behind; for the others the caller is not made to wait.
    """
    with trio.move_on_after(_END_GRACE_S), suppress(TransportError):
        await response.read_some()


class _DoneDetector:
    """Looks for the `[DONE]` event with which OpenAI-shaped streams end."""

    def __init__(self, turns: Turns, witness: Witness) -> None:
        self._events: SSEDecoder | None = SSEDecoder()
        self._turns = turns
        self._witness = witness

    async def sees(self, data: bytes) -> bool:
        """Whether `data` completed the event."""
        for at in range(0, len(data), _EVENTS_STEP_BYTES):
            step = data[at : at + _EVENTS_STEP_BYTES]
            if self._sees_now(step):
                return True
            if self._events is not None:
                await self._turns.spent(len(step) * _EVENTS_COST)
        return False

    def _sees_now(self, data: bytes) -> bool:
        if self._events is None:
            return False
        try:
            for event in self._events.feed(data):
                if event.data.strip() == _DONE:
                    return True
                self._witness.saw_event(event.data)
        except SSELimitError:
            self._events = None  # no such stream: it is collected to its end
        return False


def content_decoder(response: UpstreamResponse) -> ContentDecoder | None:
    """What undoes the Content-Encoding of `response`, where it has one that is known."""
    values = header_values(response.headers, b"content-encoding")
    if not values:
        return None
    return decoder_for(codings_of(", ".join(map(header_text, values))))


def _without_encoding(
    headers: Iterable[tuple[bytes, bytes]], body_bytes: int
) -> list[tuple[bytes, bytes]]:
    """`headers` as they would be had the body never been encoded."""
    length = b"%d" % body_bytes
    return [
        (name, length if name == b"content-length" else value)
        for name, value in headers
        if name != b"content-encoding"
    ]
