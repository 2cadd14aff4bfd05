"""The text of an OpenAI-shaped event stream, under the published SDK's names.

Built on the WHATWG decoder, with one leniency that the published line-based parser has: an event
that the body ends in the middle of still counts when its JSON is whole, so `parse_chunk` takes
one event without the blank line behind it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import msgspec

from vastar_client.response import HTTPResponse
from vastar_client.wire.sse import SSEDecoder

__all__ = ["SSEParser", "content_of"]

SSESource: TypeAlias = str | bytes | HTTPResponse | Iterable[str | bytes]


class SSEParser:
    """Content deltas of chat completion events; `[DONE]` and everything else is skipped.

    Each method takes the event text as str or bytes or as the answer that carries it; the
    generator also takes an iterable of chunks, cut anywhere.
    """

    @staticmethod
    def parse_stream(sse_data: SSESource) -> str:
        """The whole text of a stream.

        Raises:
            SSELimitError: a line is over 1 MiB or an event over 4 MiB.
        """
        return "".join(SSEParser.parse_stream_generator(sse_data))

    @staticmethod
    def parse_chunk(sse_chunk: SSESource) -> str | None:
        """The text of one event, None when it has none (`[DONE]`, a role, a comment)."""
        return SSEParser.parse_stream(sse_chunk) or None

    @staticmethod
    def parse_stream_generator(sse_data: SSESource) -> Iterator[str]:
        """The text of each event that has one, in order.

        Raises:
            SSELimitError: a line is over 1 MiB or an event over 4 MiB.
        """
        decoder = SSEDecoder()
        for chunk in _ended(sse_data):
            for event in decoder.feed(chunk):
                content = content_of(event.data)
                if content:
                    yield content
        decoder.finish()


def _ended(source: SSESource) -> Iterator[bytes]:
    """The chunks of `source`, then what makes a last unfinished event whole."""
    yield from _chunks(source)
    yield b"\n\n"


def _chunks(source: SSESource) -> Iterator[bytes]:
    if isinstance(source, HTTPResponse):
        yield source.body
    elif isinstance(source, str | bytes):
        yield source.encode() if isinstance(source, str) else source
    else:
        for chunk in source:
            yield chunk.encode() if isinstance(chunk, str) else chunk


def content_of(data: str) -> str | None:
    """`choices[0].delta.content`, or `delta.content` as the published guide shows it."""
    if data.startswith("["):  # [DONE], without the cost of failing to decode it
        return None
    try:
        event: Any = msgspec.json.decode(data)
        choices = event.get("choices") or [event]
        content = choices[0]["delta"]["content"]
    except (msgspec.DecodeError, RecursionError, AttributeError, LookupError, TypeError):
        return None
    return content if isinstance(content, str) else None
