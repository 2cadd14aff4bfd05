"""What upstreams do: reactions to one request, and the moods that choose among them.

A `Reaction` is a value, drawn when a request has arrived, so that the event log and the invariants
know what was meant before anything of it happens. A `Mood` is how an upstream is for a while. The
moods are the faults of the field: slow, refusing, unreachable, silent, resetting, garbling, cutting
bodies short, 5xx with and without a hint, 429 with every kind of hint, flapping, metered, leading
elsewhere.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final, TypeAlias

import attrs

__all__ = ["MOODS", "WELL", "Connect", "Draw", "Ending", "Mood", "Reaction"]


class Connect(Enum):
    """What becomes of a connection that is asked for."""

    OPENS = auto()
    REFUSED = auto()
    HANGS = auto()
    NO_SUCH_NAME = auto()


class Ending(Enum):
    """What follows the answer, or what there is of it."""

    KEEP = auto()
    """The next request may come."""
    CLOSE = auto()
    RESET = auto()
    SILENCE = auto()
    """Nothing, for ever."""


@attrs.frozen
class Reaction:
    """What an upstream does about one request.

    Attributes:
        name: for the event log.
        status: of the answer; 0 where there is no head at all.
        headers: beside those of the framing.
        asks_s: how long the answer asks to be left alone, as it should be understood.
        asks_until_s: until when, on the wall clock, where it says that instead.
        after_s: before the head.
        raw: is sent in place of an answer.
        body_bytes: how long the body is, beside what it always says.
        sent_ratio: how much of it is sent.
        pieces, gap_s: in how many pieces, and how far apart.
        ending: what follows.
        leads_to: the Location's origin, where it redirects.
    """

    name: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    asks_s: float | None = None
    asks_until_s: float | None = None
    after_s: float = 0.0
    raw: bytes = b""
    body_bytes: int = 0
    sent_ratio: float = 1.0
    pieces: int = 1
    gap_s: float = 0.0
    ending: Ending = Ending.KEEP
    leads_to: str = ""


@attrs.frozen
class Draw:
    """What a reaction may be made of.

    Attributes:
        wall_s: the wall clock, for dates in headers.
        origins: where redirects may lead.
    """

    chance: random.Random
    wall_s: float
    origins: tuple[str, ...]


Maker: TypeAlias = Callable[[Draw], Reaction]


def _fine(draw: Draw) -> Reaction:
    chance = draw.chance
    return Reaction(
        "fine",
        chance.choice((200, 200, 200, 201, 204)),
        after_s=chance.choice((0.0, 0.005, 0.02, 0.1)),
        body_bytes=chance.choice((0, 100, 3000)),
        ending=chance.choice((Ending.KEEP,) * 9 + (Ending.CLOSE,)),
    )


def _told(draw: Draw) -> Reaction:
    """Fine, with words about a limit."""
    left = draw.chance.randrange(4)
    names = draw.chance.choice((_openai_words, _ietf_words))
    return attrs.evolve(_fine(draw), name="told", status=200, headers=names(left))


def _openai_words(left: int) -> tuple[tuple[str, str], ...]:
    return (
        ("x-ratelimit-limit-requests", "20"),
        ("x-ratelimit-remaining-requests", str(left)),
        ("x-ratelimit-reset-requests", "1s"),
    )


def _ietf_words(left: int) -> tuple[tuple[str, str], ...]:
    return (("ratelimit", f'"r";r={left};t=2'), ("ratelimit-policy", '"r";q=20;w=2'))


def _slow(draw: Draw) -> Reaction:
    return Reaction("slow", after_s=draw.chance.uniform(0.3, 4.0))


def _drip(draw: Draw) -> Reaction:
    chance = draw.chance
    return Reaction("drip", body_bytes=2000, pieces=8, gap_s=chance.uniform(0.05, 1.0))


def _client_error(draw: Draw) -> Reaction:
    return Reaction("client_error", draw.chance.choice((400, 401, 404, 409, 422)))


def _server_error(draw: Draw) -> Reaction:
    chance = draw.chance
    status = chance.choice((500, 500, 501, 502, 503, 504, 408))
    hinting = _hinting(draw) if chance.random() < 0.2 else Reaction("")  # noqa: PLR2004 - a share
    pieces, gap_s = chance.choice(((1, 0.0), (1, 0.0), (1, 0.0), (4, 0.2), (4, 2.0)))
    return attrs.evolve(
        hinting,
        name="server_error",
        status=status,
        after_s=chance.choice((0.0, 0.01, 0.5)),
        pieces=pieces,
        gap_s=gap_s,
    )


def _throttled(draw: Draw) -> Reaction:
    chance = draw.chance
    hinting = _hinting(draw) if chance.random() < 0.7 else Reaction("")  # noqa: PLR2004
    words = _openai_words(0) if chance.random() < 0.3 else ()  # noqa: PLR2004
    return attrs.evolve(
        hinting,
        name="throttled",
        status=429,
        headers=(*hinting.headers, *words),
        after_s=chance.choice((0.0, 0.02)),
    )


def _hinting(draw: Draw) -> Reaction:
    """A Retry-After in one of its forms, and what it means."""
    chance = draw.chance
    form = chance.randrange(6)
    if form == 0:
        asked_ms = chance.choice((40, 250, 1500))
        headers = (("retry-after-ms", str(asked_ms)), ("retry-after", "7"))
        return Reaction("", headers=headers, asks_s=asked_ms / 1000)
    if form == 1:
        at_s = int(draw.wall_s) + chance.choice((1, 2, 5))
        date = datetime.fromtimestamp(at_s, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return Reaction("", headers=(("retry-after", date),), asks_until_s=at_s)
    if form == 2:  # noqa: PLR2004 - one of six
        return Reaction("", headers=(("retry-after", chance.choice(("soon", "-3", "0", ""))),))
    asked_s = chance.choice((0.2, 1, 1, 2, 3, 150))
    return Reaction("", headers=(("retry-after", str(asked_s)),), asks_s=float(asked_s))


def _reset(draw: Draw) -> Reaction:
    """Before the head, inside it, or inside the body."""
    chance = draw.chance
    after_s = chance.choice((0.0, 0.05))
    where = chance.randrange(3)
    if where == 0:
        return Reaction("reset", 0, after_s=after_s, ending=Ending.RESET)
    if where == 1:
        head = b"HTTP/1.1 200 OK\r\ncontent-"
        return Reaction("reset", 0, after_s=after_s, raw=head, ending=Ending.RESET)
    return Reaction("reset", body_bytes=500, sent_ratio=0.5, gap_s=0.05, ending=Ending.RESET)


def _garbage(draw: Draw) -> Reaction:
    raw = draw.chance.choice((b"\x16\x03\x01\x02\x00", b"HTTP/2 200\r\n\r\n", b"hello\r\n\r\n"))
    return Reaction("garbage", 0, raw=raw, ending=Ending.CLOSE)


def _cut(draw: Draw) -> Reaction:
    ratio = draw.chance.choice((0.0, 0.5))
    return Reaction("cut", body_bytes=500, sent_ratio=ratio, gap_s=0.05, ending=Ending.CLOSE)


def _silent(draw: Draw) -> Reaction:
    """A black hole: from the start, behind the head, or in the middle of the body."""
    where = draw.chance.randrange(3)
    if where == 0:
        return Reaction("silent", 0, ending=Ending.SILENCE)
    return Reaction("silent", body_bytes=500, sent_ratio=(where - 1) / 2, ending=Ending.SILENCE)


def _leads_away(draw: Draw) -> Reaction:
    chance = draw.chance
    status = chance.choice((301, 302, 303, 307, 308))
    return Reaction("leads_away", status, leads_to=chance.choice(draw.origins))


@attrs.frozen
class Mood:
    """How an upstream is for a while.

    Attributes:
        reactions: each with its weight.
        connect: what becomes of new connections.
        connect_s: after how long.
        flaps_every_s: turns into well and back so often; 0 is never.
        limit: requests that it takes a second before it throttles; 0 is any number.
    """

    name: str
    reactions: tuple[tuple[Maker, int], ...] = ((_fine, 1),)
    connect: Connect = Connect.OPENS
    connect_s: float = 0.001
    flaps_every_s: float = 0.0
    limit: int = 0

    def draw(self, draw: Draw) -> Reaction:
        """What it does about a request."""
        makers, weights = zip(*self.reactions, strict=True)
        maker: Maker = draw.chance.choices(makers, weights)[0]
        return maker(draw)

    def throttle(self, draw: Draw) -> Reaction:
        """What it does about a request over its limit."""
        return _throttled(draw)


WELL: Final = Mood("well", ((_fine, 9), (_client_error, 1)))

MOODS: Final = (
    WELL,
    WELL,
    Mood("slow", ((_slow, 3), (_drip, 1))),
    Mood("refusing", connect=Connect.REFUSED),
    Mood("unreachable", connect=Connect.HANGS),
    Mood("nameless", connect=Connect.NO_SUCH_NAME),
    Mood("far", connect_s=1.5),
    Mood("silent", ((_silent, 1),)),
    Mood("resetting", ((_reset, 1),)),
    Mood("garbling", ((_garbage, 1),)),
    Mood("cutting", ((_cut, 1), (_fine, 1))),
    Mood("failing", ((_server_error, 1),)),
    Mood("half_failing", ((_server_error, 1), (_fine, 1))),
    Mood("throttling", ((_throttled, 1),)),
    Mood("half_throttling", ((_throttled, 1), (_fine, 2))),
    Mood("telling", ((_told, 1),)),
    Mood("flapping", connect=Connect.REFUSED, flaps_every_s=1.0),
    Mood("flapping_500", ((_server_error, 1),), flaps_every_s=3.0),
    Mood("metered", limit=5),
    Mood("leading", ((_leads_away, 1), (_fine, 3))),
    Mood(
        "mixed",
        tuple(
            (maker, 1)
            for maker in (_fine, _slow, _drip, _server_error, _throttled, _reset, _cut, _silent)
        ),
    ),
)
