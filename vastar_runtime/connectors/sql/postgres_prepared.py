"""Which statements of a connection are prepared, and under what name; nothing here does I/O.

What is used the third time is prepared: a statement that comes once or twice would cost a round
trip more, and room in the server. Of those that are, the one not used for the longest makes room.
"""

from collections import OrderedDict
from typing import Final, TypeAlias

__all__ = ["Key", "PreparedStatements"]

Key: TypeAlias = tuple[bytes, tuple[int, ...]]
"""A text as it is sent, and the types of its parameters, of which each has a plan of its own."""

_MAX_TEXT_BYTES: Final = 16_384


class PreparedStatements:
    """Those of one connection.

    Args:
        most: prepared at once; 0 prepares nothing.
        uses: how often a statement has come when it is prepared.
    """

    def __init__(self, most: int, uses: int = 3) -> None:
        self._most = most
        self._uses = uses
        self._names: OrderedDict[Key, bytes] = OrderedDict()
        self._counts: OrderedDict[Key, int] = OrderedDict()
        self._made = 0

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, key: Key) -> bytes | None:
        """Its name, where it is prepared; that is a use of it."""
        name = self._names.get(key)
        if name is not None:
            self._names.move_to_end(key)
        return name

    def is_due(self, key: Key) -> bool:
        """Count a use of one that is not prepared: whether it now should be."""
        if not self._most or len(key[0]) > _MAX_TEXT_BYTES:
            return False
        count = self._counts.pop(key, 0) + 1
        if count >= self._uses:
            return True
        self._counts[key] = count
        if len(self._counts) > self._most:
            self._counts.popitem(last=False)
        return False

    def new_name(self) -> bytes:
        """One that was never used on this connection."""
        self._made += 1
        return f"vastar_{self._made}".encode()

    def keep(self, key: Key, name: bytes) -> bytes | None:
        """It is prepared now. Gives the name of one that shall not be any more."""
        self._names[key] = name
        if len(self._names) <= self._most:
            return None
        return self._names.popitem(last=False)[1]

    def forget(self) -> list[bytes]:
        """The server knows none any more, or shall not: the names that there were."""
        names = list(self._names.values())
        self._names.clear()
        return names
