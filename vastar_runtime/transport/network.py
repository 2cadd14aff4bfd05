"""The way to the network: looking up names and opening TCP connections.

`Network` is the seam at which a test puts `fake.FakeNetwork`. `SystemNetwork` is the real one. It
looks names up in threads of its own, so that slow lookups cannot occupy the threads that other
parts of the runtime need, with a cap per tenant, so that one tenant's dead name server cannot
occupy all of them. A cancelled lookup is abandoned: its thread ends when the resolver gives up, and
keeps its place under both caps until then.
"""

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import trio

from vastar_runtime.transport.channel import Channel, SocketChannel

__all__ = ["Address", "Network", "SystemNetwork", "is_numeric", "is_own_address"]

_DISCARD_PORT = 9


class Address(NamedTuple):
    """Where to connect: a family (`socket.AF_INET`, ...) and the address tuple of that family."""

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def ip(self) -> str:
        """The numeric address, without an IPv6 scope."""
        return str(self.sockaddr[0]).partition("%")[0]


class Network(Protocol):
    """Lookups and connections."""

    async def resolve(self, host: str, port: int, *, tenant: str) -> Sequence[Address]:
        """The addresses of a host, best first, at least one.

        Raises:
            OSError: it has none (`socket.gaierror`).
            UnicodeError: it is no valid name.
        """
        ...

    async def connect(self, address: Address) -> Channel:
        """A connection to one address.

        Raises:
            OSError: it could not be made.
        """
        ...


class SystemNetwork:
    """The network of this host.

    Args:
        lookup_threads: most name lookups running at once.
        lookup_threads_per_tenant: most of them for one tenant.
    """

    def __init__(self, *, lookup_threads: int = 32, lookup_threads_per_tenant: int = 8) -> None:
        self._limiter = trio.CapacityLimiter(lookup_threads)
        self._per_tenant = lookup_threads_per_tenant
        self._tenants: dict[str, _TenantLimiter] = {}

    async def resolve(self, host: str, port: int, *, tenant: str) -> Sequence[Address]:
        """See `Network.resolve`. A numeric address costs no thread."""
        family = _numeric_family(host)
        if family is not None:
            await trio.lowlevel.checkpoint()
            return [Address(family, (host, port))]
        limiter = self._tenants.get(tenant)
        if limiter is None:
            limiter = _TenantLimiter(self._tenants, tenant, self._per_tenant, self._limiter)
        try:
            return await trio.to_thread.run_sync(
                _look_up,
                host,
                port,
                abandon_on_cancel=True,
                limiter=limiter,  # type: ignore[arg-type]  # Trio asks only for its two methods
            )
        finally:
            limiter.forget_if_unused()  # it was cancelled before it had a place

    async def connect(self, address: Address) -> Channel:
        """See `Network.connect`."""
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            failure = sock.connect_ex(address.sockaddr)
            if failure == errno.EINPROGRESS:
                await trio.lowlevel.wait_writable(sock)
                failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except BaseException:
            sock.close()
            raise
        if failure:
            sock.close()
            raise OSError(failure, os.strerror(failure))
        return SocketChannel(sock)


class _TenantLimiter:
    """The cap of one tenant, then the common one: what `trio.to_thread` needs of a limiter.

    Both places are held until the thread has ended, also when its caller has left.
    """

    def __init__(
        self,
        tenants: "dict[str, _TenantLimiter]",
        tenant: str,
        own_total: int,
        common: trio.CapacityLimiter,
    ) -> None:
        self._tenants = tenants
        self._tenant = tenant
        self._own = trio.CapacityLimiter(own_total)
        self._common = common
        tenants[tenant] = self

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._own.acquire_on_behalf_of(borrower)
        try:
            await self._common.acquire_on_behalf_of(borrower)
        except BaseException:
            self._own.release_on_behalf_of(borrower)
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        self._common.release_on_behalf_of(borrower)
        self._own.release_on_behalf_of(borrower)
        self.forget_if_unused()

    def forget_if_unused(self) -> None:
        """Callers name tenants as they like: keep nothing for those that are not looking up."""
        if not self._own.borrowed_tokens:
            self._tenants.pop(self._tenant, None)


def is_numeric(host: str) -> bool:
    """Whether a host is an address, and not a name."""
    return _numeric_family(host) is not None


def is_own_address(ip: str) -> bool:
    """Whether a numeric address is one of this host's.

    The kernel is asked for the way there: from such an address it is the address itself. Nothing is
    sent.
    """
    family = _numeric_family(ip)
    if family is None:
        return False
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((ip, _DISCARD_PORT))
        except OSError:
            return False  # there is no way there
        source = str(sock.getsockname()[0]).partition("%")[0]
    return socket.inet_pton(family, source) == socket.inet_pton(family, ip)


def _numeric_family(host: str) -> int | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family
    return None


def _look_up(host: str, port: int) -> list[Address]:
    # The trailing dot of an absolute name is DNS notation; getaddrinfo takes it.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found]
