"""What the bytes of a stream mean, sans-IO: text, lines, events, the text of a language model.

Shape: a decoder takes data in any chunking and gives the items that it completes; `finish` gives
what the end completes. `Reading` joins one to a response: the items that were made and not taken
yet stay there, so that an iteration that was left can be taken up again.
"""

import codecs
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from vastar_client.errors import ConnectorException
from vastar_client.sse_parser import content_of
from vastar_client.wire.enums import Disposition, ErrorClass
from vastar_client.wire.sse import SSEDecoder, SSEEvent

__all__ = [
    "MAX_LINE_CHARACTERS",
    "BytesDecoder",
    "Decoder",
    "DeltaDecoder",
    "EventDecoder",
    "LineDecoder",
    "Reading",
    "TextDecoder",
    "too_long",
]

MAX_LINE_CHARACTERS: Final = 10_485_760
"""Longest line that `iter_lines` gives; about what an answer that is no stream may have in all."""

_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class Decoder(Protocol):
    """Makes items of data."""

    def feed(self, data: bytes) -> Sequence[Any]:
        """The items that `data` completes."""

    def finish(self) -> Sequence[Any]:
        """The items that the end completes."""


class BytesDecoder:
    """Data as it comes."""

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The data itself."""
        return (data,)

    def finish(self) -> Sequence[bytes]:
        """Nothing."""
        return ()


class TextDecoder:
    """Text in any charset; what cannot be decoded becomes U+FFFD. It never fails.

    Args:
        charset: the name that the answer gives; UTF-8 where it gives none, or one that is unknown
            or no text.
    """

    def __init__(self, charset: str | None) -> None:
        name = charset or "utf-8"
        try:
            b"\xff".decode(name, "replace")
        except (LookupError, ValueError):
            name = "utf-8"
        self._decoder = codecs.getincrementaldecoder(name)("replace")

    def feed(self, data: bytes) -> Sequence[str]:
        """The text that is complete, where there is any."""
        text = self._decoder.decode(data)
        return (text,) if text else ()

    def finish(self) -> Sequence[str]:
        """What is left of a character that was cut."""
        text = self._decoder.decode(b"", final=True)
        return (text,) if text else ()


class LineDecoder:
    """Lines without their ends, which are LF, CRLF or CR, also across chunks.

    Only these: what else Unicode ends lines with is part of many a JSON text.

    Args:
        charset: as for `TextDecoder`.
        max_characters: longest line.
        fault: makes the error for one that is longer.
    """

    def __init__(
        self, charset: str | None, max_characters: int, fault: Callable[[str], Exception]
    ) -> None:
        self._text = TextDecoder(charset)
        self._max_characters = max_characters
        self._fault = fault
        self._after_cr = False
        self._begun: list[str] = []
        self._begun_characters = 0

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` ends.

        Raises:
            Exception: that of `fault`.
        """
        lines: list[str] = []
        for text in self._text.feed(data):
            self._cut(text, lines)
        return lines

    def _cut(self, text: str, lines: list[str]) -> None:
        if self._after_cr:
            text = text.removeprefix("\n")
        *ended, rest = _LINE_END.split(text)
        self._after_cr = text.endswith("\r")
        for part in ended:
            self._begin(part)
            lines.append("".join(self._begun))
            self._begun.clear()
            self._begun_characters = 0
        if rest:
            self._begin(rest)

    def _begin(self, part: str) -> None:
        self._begun.append(part)
        self._begun_characters += len(part)
        if self._begun_characters > self._max_characters:
            raise self._fault(f"a line of more than {self._max_characters} characters")

    def finish(self) -> list[str]:
        """A last line that nothing ends."""
        lines: list[str] = []
        for text in self._text.finish():
            self._cut(text, lines)
        if self._begun:
            lines.append("".join(self._begun))
        return lines


class EventDecoder:
    """Server-sent events.

    Args:
        last_event_id: as for `SSEDecoder`, which it is but for its `finish`.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.sse = SSEDecoder(last_event_id=last_event_id)

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that `data` completes.

        Raises:
            SSELimitError: a line is over 1 MiB or an event over 4 MiB.
        """
        return self.sse.feed(data)

    def finish(self) -> Sequence[SSEEvent]:
        """Nothing: an unfinished event is discarded.

        Raises:
            SSELimitError: as above, where no call has said so yet.
        """
        self.sse.finish()
        return ()


class DeltaDecoder:
    """The text in chat completion events; see `SSEParser`, which has the same leniency at the end.

    Attributes:
        done: whether `[DONE]` has come, after which there is none.
    """

    def __init__(self) -> None:
        self.done = False
        self._sse = SSEDecoder()

    def feed(self, data: bytes) -> list[str]:
        """The text of each event that has one.

        Raises:
            SSELimitError: a line is over 1 MiB or an event over 4 MiB.
        """
        deltas: list[str] = []
        for event in self._sse.feed(data):
            self.done = self.done or event.data.startswith("[DONE]")
            content = None if self.done else content_of(event.data)
            if content:
                deltas.append(content)
        return deltas

    def finish(self) -> list[str]:
        """The text of an event that the stream ends in the middle of."""
        return self.feed(b"\n\n")


class Reading:
    """The iteration over one response: its decoder, and what that has made ahead.

    Attributes:
        ready: the items that were not taken yet.
    """

    def __init__(self) -> None:
        self.ready: deque[Any] = deque()
        self._what = ""
        self._decoder: Decoder | None = None
        self._has_ended = False

    @property
    def has_begun(self) -> bool:
        """Whether anything may have been taken."""
        return bool(self._what)

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing behind what is `ready`."""
        return self._has_ended

    @property
    def is_done(self) -> bool:
        """Whether what comes now says nothing any more, though the stream goes on."""
        return isinstance(self._decoder, DeltaDecoder) and self._decoder.done

    @property
    def sse(self) -> SSEDecoder | None:
        """The decoder of events, where it is read as such."""
        return self._decoder.sse if isinstance(self._decoder, EventDecoder) else None

    def begin(self, what: str, make: Callable[[], Decoder]) -> None:
        """Read it as `what`, from now on.

        Raises:
            RuntimeError: it is being read as something else, which has read ahead.
        """
        if not self._what:
            self._what = what
            self._decoder = make()
        elif self._what != what:
            raise RuntimeError(
                f"the response is being read by {self._what}(): what that has read ahead is not "
                f"there for {what}()"
            )

    def feed(self, data: bytes) -> None:
        """Take the next data; none is the end."""
        assert self._decoder is not None, "`begin` comes first"
        if data:
            self.ready.extend(self._decoder.feed(data))
        else:
            self._has_ended = True
            self.ready.extend(self._decoder.finish())

    def stop(self) -> None:
        """There is no need for the rest."""
        self._has_ended = True


def too_long(what: str, request_id: int) -> ConnectorException:
    """The error for more than a reader wants to keep at once."""
    return ConnectorException(
        f"the response has {what}",
        ErrorClass.PERMANENT,
        request_id,
        disposition=Disposition.RESPONSE_STARTED,
    )
