"""From an origin to a connected channel: lookup, happy eyeballs, proxy, TLS, under one time limit.

`Dialer.dial` leaves nothing behind when it fails or is cancelled. Phases and timings go into the
call's `Progress`; every foreign exception becomes a `TransportError` here.
"""

import ssl
from collections.abc import Callable, Sequence
from functools import partial

import attrs
import trio

from vastar_runtime.transport.channel import Channel
from vastar_runtime.transport.errors import (
    FaultKind,
    LocalFault,
    TransportError,
    fault_kind,
    reason,
)
from vastar_runtime.transport.messages import Headers, Origin
from vastar_runtime.transport.network import Address, Network, is_numeric
from vastar_runtime.transport.progress import Phase, Progress
from vastar_runtime.transport.proxy import Proxy
from vastar_runtime.transport.settings import TlsSettings, TransportSettings
from vastar_runtime.transport.tls import TlsContexts, start_tls
from vastar_runtime.transport.tunnel import ProxyFailure, open_tunnel

__all__ = ["AddressCheck", "Dialer", "Line", "ProxyAddressCheck", "Scope", "passed"]

Scope = tuple[str, str]
"""(tenant, workspace) on whose behalf a call is made."""

AddressCheck = Callable[[Scope, Origin, str], None]
"""Called with each numeric address that is about to be connected to; raises to forbid it.

Whatever it raises forbids. A `LocalFault` is the cause of the `TransportError`, and its words reach
the caller; of others only the type.
"""

ProxyAddressCheck = Callable[[Scope, str], None]
"""The same of an address that a proxy listens on."""


@attrs.frozen
class Line:
    """An open line to an origin.

    Attributes:
        channel: ready for the first request.
        target_prefix, extra_headers: what a plain HTTP proxy on the way needs in every request.
    """

    channel: Channel
    target_prefix: bytes = b""
    extra_headers: Headers = attrs.field(factory=list, repr=False)


class Dialer:
    """Opens lines.

    Args:
        settings: the time limit and the stagger of happy eyeballs.
        network: lookups and connections.
        check_address: asked before each connection to an upstream's own address; the call fails
            when no other address is left. Behind a proxy that looks names up itself it is asked of
            origins that are addresses.
        check_proxy_address: asked before each connection to a proxy.
    """

    def __init__(
        self,
        settings: TransportSettings,
        network: Network,
        check_address: AddressCheck | None,
        check_proxy_address: ProxyAddressCheck | None = None,
    ) -> None:
        self._settings = settings
        self._network = network
        self._check_address = check_address
        self._check_proxy_address = check_proxy_address
        self._contexts = TlsContexts()

    async def dial(
        self,
        scope: Scope,
        origin: Origin,
        proxy: Proxy | None,
        tls: TlsSettings,
        progress: Progress,
    ) -> Line:
        """Open a line to `origin`.

        Raises:
            TransportError: it cannot be had, or not within `connect_timeout_s`.
        """
        limit_s = self._settings.connect_timeout_s
        try:
            with trio.move_on_after(limit_s):
                if proxy is None:
                    return await self._direct(scope, origin, tls, progress)
                return await self._through(scope, origin, proxy, tls, progress)
        except (OSError, UnicodeError, trio.BrokenResourceError, LocalFault) as error:
            kind = fault_kind(error, progress.phase)
            raise self._error(progress, origin, proxy, reason(error), kind) from error
        except ProxyFailure as error:
            raise self._error(progress, origin, proxy, str(error), FaultKind.CONNECT) from error
        cause = f"timed out after {limit_s:g} s"
        raise self._error(progress, origin, proxy, cause, FaultKind.CONNECT, timed_out=True)

    @staticmethod
    def _error(
        progress: Progress,
        origin: Origin,
        proxy: Proxy | None,
        cause: str,
        kind: FaultKind,
        *,
        timed_out: bool = False,
    ) -> TransportError:
        if progress.phase is Phase.PROXY and proxy is not None:
            cause = f"{proxy.address}: {cause}"
        return TransportError.at(progress, origin.address, cause, kind=kind, timed_out=timed_out)

    async def _direct(
        self, scope: Scope, origin: Origin, tls: TlsSettings, progress: Progress
    ) -> Line:
        progress.phase = Phase.DNS
        addresses = await self._addresses(scope, origin, progress)
        progress.phase = Phase.CONNECT
        started_s = trio.current_time()
        channel = await self._connect_any(addresses)
        progress.connect_us = _since_us(started_s)
        return Line(await self._secure(channel, origin, tls, progress))

    async def _addresses(self, scope: Scope, origin: Origin, progress: Progress) -> list[Address]:
        """The addresses of an origin that may be connected to, best first."""
        started_s = trio.current_time()
        found = await self._network.resolve(origin.host, origin.port, tenant=scope[0])
        progress.dns_us = _since_us(started_s)
        check = self._check_address
        return passed(found, None if check is None else partial(check, scope, origin))

    async def _through(
        self, scope: Scope, origin: Origin, proxy: Proxy, tls: TlsSettings, progress: Progress
    ) -> Line:
        progress.phase = Phase.PROXY
        started_s = trio.current_time()
        host = origin.host
        if proxy.scheme == "socks5":  # names are looked up on this side
            progress.phase = Phase.DNS
            host = (await self._addresses(scope, origin, progress))[0].ip
            progress.phase = Phase.PROXY
        elif self._check_address is not None and is_numeric(host):
            literal = Address(0, (host, origin.port))
            passed([literal], partial(self._check_address, scope, origin))
        found = await self._network.resolve(proxy.host, proxy.port, tenant=scope[0])
        check = self._check_proxy_address
        addresses = passed(found, None if check is None else partial(check, scope))
        channel = await self._connect_any(addresses)
        try:
            if proxy.scheme == "https":
                channel = await start_tls(channel, self._context(tls), proxy.host)
            if origin.scheme == "http" and not proxy.is_socks:
                progress.connect_us = _since_us(started_s)
                return Line(channel, f"http://{origin.authority}".encode(), proxy.headers)
            await open_tunnel(channel, proxy, origin, host)
        except BaseException:
            channel.abort()
            raise
        progress.connect_us = _since_us(started_s)
        return Line(await self._secure(channel, origin, tls, progress))

    async def _secure(
        self, channel: Channel, origin: Origin, tls: TlsSettings, progress: Progress
    ) -> Channel:
        if origin.scheme != "https":
            return channel
        progress.phase = Phase.TLS
        started_s = trio.current_time()
        try:
            channel = await start_tls(channel, self._context(tls), origin.host)
        except BaseException:
            channel.abort()
            raise
        progress.tls_us = _since_us(started_s)
        return channel

    def _context(self, tls: TlsSettings) -> "ssl.SSLContext":
        try:
            return self._contexts.get(tls)
        except OSError as error:  # of our own files
            raise LocalFault(reason(error)) from error

    async def _connect_any(self, addresses: Sequence[Address]) -> Channel:
        """Connect to the first address that answers (RFC 8305, section 5).

        Raises:
            OSError: all failed; it is the failure of the first.
        """
        if len(addresses) == 1:
            return await self._network.connect(addresses[0])
        race = _Race(self._network, self._settings.happy_eyeballs_delay_s)
        return await race.run(addresses)


class _Race:
    """Connection attempts, each started when the one before has failed or had its head start."""

    def __init__(self, network: Network, delay_s: float) -> None:
        self._network = network
        self._delay_s = delay_s
        self._winner: Channel | None = None
        self._failures: dict[Address, OSError] = {}

    async def run(self, addresses: Sequence[Address]) -> Channel:
        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    failed = trio.Event()
                    nursery.start_soon(self._attempt, address, failed, nursery.cancel_scope)
                    with trio.move_on_after(self._delay_s):
                        await failed.wait()
        except BaseException:
            if self._winner is not None:
                self._winner.abort()
            raise
        if self._winner is None:
            raise self._failures[addresses[0]]
        return self._winner

    async def _attempt(self, address: Address, failed: trio.Event, race: trio.CancelScope) -> None:
        try:
            channel = await self._network.connect(address)
        except OSError as error:
            self._failures[address] = error
            failed.set()
            return
        if self._winner is None:
            self._winner = channel
            race.cancel()
        else:
            channel.abort()


def passed(found: Sequence[Address], check: Callable[[str], None] | None) -> list[Address]:
    """Those that `check` has nothing against, best first.

    Raises:
        LocalFault: there are none.
    """
    if check is None:
        return _interleaved(found)
    allowed: list[Address] = []
    refusal: Exception | None = None
    for address in found:
        try:
            check(address.ip)
        except Exception as error:  # noqa: BLE001 - the check's own: whatever it is forbids
            refusal = error
        else:
            allowed.append(address)
    if refusal is not None and not allowed:
        if isinstance(refusal, LocalFault):
            raise refusal
        raise LocalFault(reason(refusal)) from refusal
    return _interleaved(allowed)


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Families take turns, the resolver's first choice leading (RFC 8305, section 4)."""
    if len(addresses) == 1:
        return [*addresses]
    lead = addresses[0].family
    first = [a for a in addresses if a.family == lead]
    second = [a for a in addresses if a.family != lead]
    paired = [a for pair in zip(first, second, strict=False) for a in pair]
    return paired + first[len(second) :] + second[len(first) :]


def _since_us(started_s: float) -> int:
    return round((trio.current_time() - started_s) * 1e6)
