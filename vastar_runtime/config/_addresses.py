"""Where a runtime listens: values and the one parser of `[HOST:]PORT`.

Two small value types rather than strings, so that a listener, `status` and the ready line print
and compare the same thing.
"""

import ipaddress
from typing import Final, TypeAlias

import attrs

__all__ = [
    "DEFAULT_SOCKET_PATH",
    "DEFAULT_TCP_HOST",
    "MAX_PORT",
    "Address",
    "TcpAddress",
    "UnixAddress",
    "is_loopback",
    "parse_tcp_address",
]

DEFAULT_SOCKET_PATH: Final = "/tmp/vastar-connector-runtime.sock"  # noqa: S108  # as the SDKs have it
DEFAULT_TCP_HOST: Final = "127.0.0.1"
MAX_PORT: Final = 65_535


@attrs.frozen
class UnixAddress:
    """A Unix socket file."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@attrs.frozen
class TcpAddress:
    """A TCP host and port; port 0 lets the kernel choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


Address: TypeAlias = UnixAddress | TcpAddress


def parse_tcp_address(text: str) -> TcpAddress:
    """`PORT`, `HOST:PORT` or `[IPV6]:PORT` as a value.

    Raises:
        ValueError: it is none of them; the message says what would be right.
    """
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else DEFAULT_TCP_HOST
    if not (port.isascii() and port.isdigit() and int(port) <= MAX_PORT) or not host:
        raise ValueError(
            f'"{text}" is no TCP address; give PORT, HOST:PORT or [IPV6]:PORT with a port from 0 '
            f"to {MAX_PORT}, for example 5000 or 127.0.0.1:5000"
        )
    return TcpAddress(host, int(port))


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine alone; of names only localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
