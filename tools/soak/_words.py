"""What the clients, the upstream and the one who judges them say to each other.

Paths: `/WHAT/ID/AMOUNT`; ID names one call of the whole run, as `CLIENT-NUMBER`. An answer's body
is a line `ID BYTES CRC REQUEST_BYTES REQUEST_CRC` and then that many bytes of filling, so that a
client knows whether it is whole, whose it is, and whether the upstream got what was sent.

Lines of a client's journal are JSON. It writes one before a call begins and one behind its end,
each at once and in one piece: a client that is killed leaves a true account.
"""

import zlib
from typing import Final

import msgspec

from vastar_client.wire import Disposition

__all__ = [
    "Began",
    "Ended",
    "Journal",
    "Rested",
    "Spec",
    "Wrong",
    "answer_body",
    "event_data",
    "filling",
    "journal_line",
    "wrong_with_answer",
    "wrong_with_events",
]

_FILLING: Final = bytes(value * 7 % 251 for value in range(251))
_WORDS: Final = 5


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a client process is told.

    Attributes:
        name: begins the ids of its calls; another one for each life.
        kind: "async", "blocking" or "raw".
        seed: of everything that it draws.
        socket_path: of the runtime.
        steady, faulty, hostile, refusing, silent: URLs of upstreams, without a path.
        has_database: whether the data source `soak` is there.
        at_once: calls under way at most.
        calls_per_s: of all of them together, about.
    """

    name: str
    kind: str
    seed: int
    socket_path: str
    steady: str
    faulty: str
    hostile: str
    refusing: str
    silent: str
    has_database: bool
    at_once: int
    calls_per_s: float


class Began(msgspec.Struct, frozen=True, tag="b"):
    """A call begins.

    Attributes:
        id: of the call.
        kind: of the load.
        at_s: on the clock that all processes share.
        is_counted: the upstream that counts is meant.
        is_once: it may not act twice: no idempotency key, and a method that may not be repeated.
        timeout_s: until its deadline.
    """

    id: str
    kind: str
    at_s: float
    is_counted: bool = False
    is_once: bool = False
    timeout_s: float = 10.0


class Ended(msgspec.Struct, frozen=True, tag="e"):
    """It ended.

    Attributes:
        id, at_s: as above.
        how: "answer", "left" (by the client's own will), "lost" (the connection to the runtime
            ended), "absent" (there was none), "draining", or the name of an error class.
        disposition: as told; None where nobody was to tell: the client left.
        attempts: as told; 0 where nobody did.
        late_s: behind its deadline.
    """

    id: str
    at_s: float
    how: str
    disposition: Disposition | None = None
    attempts: int = 0
    late_s: float = 0.0


class Rested(msgspec.Struct, frozen=True, tag="r"):
    """The client has no call under way and no connection, as it was asked."""

    at_s: float


class Wrong(msgspec.Struct, frozen=True, tag="w"):
    """Something that must not be, as the client saw it."""

    what: str
    at_s: float


Journal = Began | Ended | Rested | Wrong


def journal_line(said: Journal) -> bytes:
    """One line. It stays below 4096 bytes, so that a pipe takes it whole."""
    return msgspec.json.encode(said) + b"\n"


def filling(count: int) -> bytes:
    """So many bytes, whose period is prime to all sizes of pieces: one out of place shows."""
    return (_FILLING * (count // len(_FILLING) + 1))[:count]


def answer_body(call_id: str, amount: int, received: bytes) -> bytes:
    """The body of an answer with `amount` bytes of filling."""
    rest = filling(amount)
    numbers = f"{len(rest)} {zlib.crc32(rest)} {len(received)} {zlib.crc32(received)}"
    return f"{call_id} {numbers}\n".encode() + rest


def wrong_with_answer(body: bytes, call_id: str, sent: bytes) -> str | None:
    """Why that is no answer to this call; None where it is one."""
    line, _, rest = body.partition(b"\n")
    words = line.decode("latin1").split(" ")
    if len(words) != _WORDS or not all(word.isdecimal() for word in words[1:]):
        return f"the answer to {call_id} is none of the upstream's: {line[:60]!r}"
    if words[0] != call_id:
        return f"the answer to {call_id} is that of {words[0]}"
    size, crc, sent_size, sent_crc = map(int, words[1:])
    if (len(rest), zlib.crc32(rest)) != (size, crc):
        return f"the answer to {call_id} has {len(rest)} bytes, not the {size} that were sent"
    if (len(sent), zlib.crc32(sent)) != (sent_size, sent_crc):
        return f"the upstream got {sent_size} bytes from {call_id}, not the {len(sent)} of it"
    return None


def event_data(call_id: str, index: int, count: int) -> str:
    """The data of an event of a stream of `count`."""
    return f"{call_id} {index} {count}"


def wrong_with_events(data: list[str], call_id: str, count: int, *, is_whole: bool) -> str | None:
    """Why these are no events of this call; `is_whole`: all must be there."""
    wanted = [event_data(call_id, index, count) for index in range(len(data))]
    for got, due in zip(data, wanted, strict=True):
        if got != due:
            return f"an event {got!r} came where {due!r} was due"
    if is_whole and len(data) != count:
        return f"the stream of {call_id} ended well behind {len(data)} of {count} events"
    return None
