"""From bytes to structured input: each choice takes its bytes from the front.

Our own layout rather than atheris's data provider, so that inputs mean the same where there is no
atheris, and so that a corpus line can be read: choices first, then what is free, as it is.
When the bytes are used up all choices are 0: every input is a whole one.
"""

import itertools
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Input", "cut"]

T = TypeVar("T")
_MOST_CUTS = 6
_ONE_BYTE_EACH = 7


class Input:
    """Bytes that are read as choices."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def has_more(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        """The next bytes, at most so many."""
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def number(self, width_bytes: int = 1) -> int:
        """A number of so many bytes, little-endian."""
        return int.from_bytes(self.take(width_bytes), "little")

    def pick(self, choices: Sequence[T]) -> T:
        """One of at most 256."""
        return choices[self.number() % len(choices)]

    def chance(self) -> bool:
        """Yes or no."""
        return bool(self.number() & 1)

    def blob(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.number())

    def text(self) -> str:
        """Text behind its length in bytes; what is not UTF-8 is replaced."""
        return self.blob().decode("utf-8", "replace")

    def cuts(self) -> tuple[int, ...] | None:
        """Where to cut what comes later (see `cut`): up to six places, or everywhere (None)."""
        count = self.number() % (_ONE_BYTE_EACH + 1)
        if count == _ONE_BYTE_EACH:
            return None
        return tuple(self.number(2) for _ in range(min(count, _MOST_CUTS)))


def cut(data: bytes, cuts: tuple[int, ...] | None) -> list[bytes]:
    """`data` in pieces, none of them empty."""
    if cuts is None:
        return [data[at : at + 1] for at in range(len(data))]
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]
