"""What supervisor and worker say to each other: JSON messages, each behind its length.

Bytes to messages and back, without a socket. Both ends are the same program, and each socket has
one writer, so anything that does not fit is a bug or a torn end: a `FrameError`, after which the
connection is of no use.

A question (`Ask`) goes either way and has a number of the asker's; its `Answer` names that number.
Nobody has to answer: whoever asks has a deadline.
"""

import struct
from typing import Any, Final, TypeAlias

import msgspec

from vastar_runtime.config import RuntimeConfig

__all__ = [
    "CHECK",
    "DRAIN",
    "HEAD",
    "MAX_FRAME_BYTES",
    "METRICS",
    "RELOAD",
    "STATUS",
    "TAKE_UP",
    "Answer",
    "Ask",
    "Begin",
    "Cut",
    "Drain",
    "FrameError",
    "FrameReader",
    "Go",
    "Message",
    "Ready",
    "Refused",
    "decode",
    "encode",
]

STATUS: Final = "status"
METRICS: Final = "metrics"
RELOAD: Final = "reload"
DRAIN: Final = "drain"
CHECK: Final = "check"
TAKE_UP: Final = "take_up"
"""What can be asked; `check` and `take_up` of workers only, `reload` and `drain` of the supervisor
only."""

HEAD: Final = struct.Struct("!I")
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""Metrics are capped (some MB at the very most), and so is what `status` tells."""


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """The supervisor's first word: what to serve with."""

    config: RuntimeConfig


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The worker's: it could serve."""


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The worker's: it cannot serve with this, in words for people."""

    words: str


class Go(msgspec.Struct, tag="go", frozen=True):
    """Accept callers."""


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """Refuse new calls, finish those under way, end."""


class Cut(msgspec.Struct, tag="cut", frozen=True):
    """End now."""


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """A question or an order that wants an answer.

    Attributes:
        number: the asker's own.
        what: which one.
        about: what goes with it.
    """

    number: int
    what: str
    about: Any = None


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """What came of an `Ask`: a value, or a fault in words."""

    number: int
    value: Any = None
    fault: str | None = None


Message: TypeAlias = Begin | Ready | Refused | Go | Drain | Cut | Ask | Answer

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Message)


class FrameError(Exception):
    """What came is no message; the other end is broken."""


def encode(message: Message) -> bytes:
    """One frame.

    Raises:
        FrameError: it is longer than the other end takes.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is too long")
    return HEAD.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """The message in a frame without its head.

    Raises:
        FrameError: it is none.
    """
    try:
        message: Message = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(f"no message: {error}") from None
    return message


class FrameReader:
    """Messages out of pieces of a stream."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes.

        Raises:
            FrameError: there is one that is none.
        """
        held = self._held
        held += data
        found: list[Message] = []
        while len(held) >= HEAD.size:
            (length,) = HEAD.unpack_from(held)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a message of {length} bytes is too long")
            end = HEAD.size + length
            if len(held) < end:
                break
            found.append(decode(bytes(held[HEAD.size : end])))
            del held[:end]
        return found
