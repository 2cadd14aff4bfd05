"""How many connections there may be: in all, and of one user or address.

A guest for each user over Unix sockets, and for each address over TCP (of IPv6 the /64, which one
host has all of). Who is one too many is closed at once, before a byte is read or a task begun, and
told to the audit log: a caller that opens thousands costs others nothing. What else is limited of
all that one has is counted on its guest.
"""

import ipaddress
import math

import attrs

from vastar_runtime.audit import audit
from vastar_runtime.config import ServerConfig
from vastar_runtime.identity.guests import Guest

__all__ = ["Doors", "name_of"]


@attrs.define(eq=False)
class Doors:
    """The counts.

    Attributes:
        max_in_all: of this process.
        max_per_user: of it, of one user or address.
        max_held_bytes: in memory of this process, for one user or address.
    """

    max_in_all: int
    max_per_user: int
    max_held_bytes: float = math.inf
    _inside: dict[str, Guest] = attrs.field(factory=dict)
    _in_all: int = 0

    @classmethod
    def of(cls, server: ServerConfig) -> "Doors":
        """With the limits of a configuration."""
        return cls(
            server.max_connections,
            server.max_connections_per_user,
            server.max_held_bytes_per_user,
        )

    def configure(self, server: ServerConfig) -> None:
        """Take up other limits; who is inside stays."""
        self.max_in_all = server.max_connections
        self.max_per_user = server.max_connections_per_user
        self.max_held_bytes = server.max_held_bytes_per_user
        for guest in self._inside.values():
            guest.max_held_bytes = self.max_held_bytes

    def enter(self, who: str) -> Guest | None:
        """Let one in, who has to `leave` again; None where there is no room."""
        guest = self._inside.get(who)
        inside = 0 if guest is None else guest.connections
        if inside >= self.max_per_user or self._in_all >= self.max_in_all:
            whose = "of this caller" if inside >= self.max_per_user else "in all"
            reason = f"{inside} of its own, {self._in_all} in all"
            audit("connection_refused", who=who, rule=f"connections:{whose}", reason=reason)
            return None
        if guest is None:
            guest = self._inside[who] = Guest(self.max_held_bytes)
        guest.connections += 1
        self._in_all += 1
        return guest

    def leave(self, who: str) -> None:
        """One who was let in is gone."""
        self._in_all -= 1
        guest = self._inside[who]
        guest.connections -= 1
        if not guest.connections:
            del self._inside[who]


def name_of(uid: int | None, address: str | None) -> str:
    """Whose connection it is, as the doors count."""
    if uid is not None:
        return f"uid {uid}"
    if address is None:
        return "unknown"
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return f"network {ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"
    return f"address {parsed}"
