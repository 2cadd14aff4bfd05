"""How many connections there may be: in all, and of one user or address.

A count for each user over Unix sockets, and for each address over TCP (of IPv6 the /64, which one
host has all of). Who is one too many is closed at once, before a byte is read or a task begun, and
told to the audit log: a caller that opens thousands costs others nothing.
"""

import ipaddress

import attrs

from vastar_runtime.audit import audit
from vastar_runtime.config import ServerConfig

__all__ = ["Doors", "name_of"]


@attrs.define(eq=False)
class Doors:
    """The counts.

    Attributes:
        max_in_all: of this process.
        max_per_user: of it, of one user or address.
    """

    max_in_all: int
    max_per_user: int
    _inside: dict[str, int] = attrs.field(factory=dict)
    _in_all: int = 0

    @classmethod
    def of(cls, server: ServerConfig) -> "Doors":
        """With the limits of a configuration."""
        return cls(server.max_connections, server.max_connections_per_user)

    def configure(self, server: ServerConfig) -> None:
        """Take up other limits; who is inside stays."""
        self.max_in_all = server.max_connections
        self.max_per_user = server.max_connections_per_user

    def enter(self, who: str) -> bool:
        """Let one in, who has to `leave` again; False where there is no room."""
        inside = self._inside.get(who, 0)
        if inside >= self.max_per_user or self._in_all >= self.max_in_all:
            whose = "of this caller" if inside >= self.max_per_user else "in all"
            reason = f"{inside} of its own, {self._in_all} in all"
            audit("connection_refused", who=who, rule=f"connections:{whose}", reason=reason)
            return False
        self._inside[who] = inside + 1
        self._in_all += 1
        return True

    def leave(self, who: str) -> None:
        """One who was let in is gone."""
        self._in_all -= 1
        inside = self._inside[who] - 1
        if inside:
            self._inside[who] = inside
        else:
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
