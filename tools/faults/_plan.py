"""Which faults meet which connection: values, made from texts or drawn from a seed.

A plan is asked once per connection and direction, and answers with a `Link`: all that the proxy
has to know. Chance comes from the plan's seed, the number of the connection and the direction, so
the same plan spoils the same bytes again, whatever else runs beside it.
"""

import math
import random
import re
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import attrs

__all__ = ["BadFaultError", "Direction", "Ending", "Fault", "Link", "Plan"]


class BadFaultError(ValueError):
    """A text that names no fault; the message says what would be one."""


class Direction(Enum):
    """Which way the bytes go."""

    UP = "up"
    """From the caller to the target."""
    DOWN = "down"


class Ending(Enum):
    """What ends a direction, or all."""

    RESET = "reset"
    """Both sides are reset."""
    CLOSE = "close"
    """Both sides are closed."""
    HALF_CLOSE = "halfclose"
    """This direction ends as if the sender had ended its half; the other goes on."""
    BLACK_HOLE = "blackhole"
    """From here on bytes vanish, and nobody is told."""


_AMOUNTS: Final = ("latency", "jitter", "bandwidth", "slice", "corrupt")
_ENDINGS: Final = {ending.value: ending for ending in Ending}
_TEXT: Final = re.compile(
    r"(?:(?P<connection>\d+):)?(?:(?P<direction>up|down):)?(?P<kind>[a-z]+)"
    r"(?:=(?P<amount>[0-9.]+)(?P<unit>[kM]?))?(?:@(?P<at>[0-9.]+)(?P<seconds>s?))?"
)
_UNITS: Final = {"": 1, "k": 1000, "M": 1_000_000}
_FORM: Final = (
    "expected [CONNECTION:][up:|down:]KIND with KIND one of latency=SECONDS, jitter=SECONDS, "
    "bandwidth=BYTES_PER_S, slice=BYTES, corrupt=RATIO, corrupt@BYTE, and reset, close, halfclose "
    "or blackhole with @BYTE, @SECONDSs or neither: at once"
)


@attrs.frozen
class Link:
    """What one direction of one connection suffers.

    Attributes:
        latency_s, jitter_s: each piece comes so much later, and up to so much more.
        bytes_per_s: no faster than that.
        slice_bytes: in pieces of at most so many bytes, each of random length; 0: as it came.
        corrupt_ratio: of the bytes, a bit of each turned over.
        corrupt_at: offsets of bytes of which a bit is turned over.
        ending: what happens, and where: behind `end_at_bytes`, or `end_at_s` after the connection
            began, whichever comes first.
        seed: of all chance in it.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = math.inf
    slice_bytes: int = 0
    corrupt_ratio: float = 0.0
    corrupt_at: tuple[int, ...] = ()
    ending: Ending | None = None
    end_at_bytes: float = math.inf
    end_at_s: float = math.inf
    seed: str = "0"


@attrs.frozen
class Fault:
    """One fault, and whom it meets.

    Attributes:
        kind: as in its text.
        amount: seconds, bytes, bytes per second or a ratio; 0 where the kind takes none.
        at_bytes, at_s: of those that happen once; infinite where not given.
        connection: the number of the one connection, from 1; None: all.
        direction: None: both.
    """

    kind: str
    amount: float = 0.0
    at_bytes: float = math.inf
    at_s: float = math.inf
    connection: int | None = None
    direction: Direction | None = None

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """The fault that `text` names, such as `latency=0.05`, `2:down:reset@1000`, `close@1.5s`.

        Raises:
            BadFaultError: none; the message says what would be right.
        """
        found = _TEXT.fullmatch(text)
        kind = found["kind"] if found else ""
        if found is None or kind not in {*_AMOUNTS, *_ENDINGS}:
            raise BadFaultError(f"{text!r} is no fault: {_FORM}")
        try:
            amount = float(found["amount"] or 0) * _UNITS[found["unit"] or ""]
            at = float(found["at"]) if found["at"] else math.inf
        except ValueError:
            raise BadFaultError(f"{text!r} has a number that is none: {_FORM}") from None
        has_place = found["at"] is not None
        is_ending = kind in _ENDINGS
        if is_ending == (found["amount"] is not None) and not (kind == "corrupt" and has_place):
            raise BadFaultError(f"{text!r}: {_FORM}")
        if has_place and not is_ending and (kind != "corrupt" or found["seconds"]):
            raise BadFaultError(f"{text!r}: only endings and corrupt have a place: {_FORM}")
        if not is_ending and not has_place and amount <= 0:
            raise BadFaultError(f"{text!r}: the amount must be above 0")
        return cls(
            kind,
            amount,
            at_bytes=math.inf if found["seconds"] else (at if has_place else 0.0),
            at_s=at if found["seconds"] else math.inf,
            connection=int(found["connection"]) if found["connection"] else None,
            direction=Direction(found["direction"]) if found["direction"] else None,
        )

    def meets(self, connection: int, direction: Direction) -> bool:
        """Whether it is for that direction of that connection."""
        return self.connection in {None, connection} and self.direction in {None, direction}

    def laid_on(self, link: Link) -> Link:
        """`link` with this fault as well."""
        if self.kind in _ENDINGS:
            return attrs.evolve(
                link, ending=_ENDINGS[self.kind], end_at_bytes=self.at_bytes, end_at_s=self.at_s
            )
        if self.kind == "corrupt" and not self.amount:
            return attrs.evolve(link, corrupt_at=(*link.corrupt_at, int(self.at_bytes)))
        name = {
            "latency": "latency_s",
            "jitter": "jitter_s",
            "bandwidth": "bytes_per_s",
            "slice": "slice_bytes",
            "corrupt": "corrupt_ratio",
        }[self.kind]
        changed: dict[str, Any] = {name: self.amount}
        if self.kind == "slice":
            changed[name] = int(self.amount)
        return attrs.evolve(link, **changed)


@attrs.frozen
class Plan:
    """What happens to the connections of a proxy.

    Attributes:
        faults: written down; each is laid on every link that it meets, later ones over earlier.
        seed: of all chance.
        share: of the connections that get faults drawn by chance as well, 0 to 1.
    """

    faults: tuple[Fault, ...] = ()
    seed: int = 0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str, *, seed: int = 0, share: float = 0.0) -> "Plan":
        """A plan from texts of faults with spaces between.

        Raises:
            BadFaultError: one of them is none.
        """
        return cls(tuple(map(Fault.parse, text.split())), seed, share)

    def link(self, connection: int, direction: Direction) -> Link:
        """What that direction of the connection with that number, from 1, suffers."""
        link = Link(seed=f"{self.seed}:{connection}:{direction.value}")
        for fault in (*self._drawn(connection), *self.faults):
            if fault.meets(connection, direction):
                link = fault.laid_on(link)
        return link

    def _drawn(self, connection: int) -> Sequence[Fault]:
        """Faults by chance: mild ones often, one ending in half of the cases."""
        chance = random.Random(f"{self.seed}:{connection}")  # noqa: S311 - no secret
        if chance.random() >= self.share:
            return ()
        mild = [
            Fault("latency", chance.uniform(0.001, 0.1)),
            Fault("jitter", chance.uniform(0.001, 0.05)),
            Fault("bandwidth", chance.uniform(2_000, 200_000)),
            Fault("slice", chance.randint(1, 100)),
        ]
        drawn = chance.sample(mild, chance.randint(0, 2))
        way = chance.choice(list(Direction))
        if chance.random() < 0.5 or not drawn:  # noqa: PLR2004 - every other one
            at_bytes = float(int(10 ** chance.uniform(0, 5)))
            kind = chance.choice([*_ENDINGS, "corrupt"])
            drawn.append(Fault(kind, 0.0, at_bytes, direction=way))
        return drawn
