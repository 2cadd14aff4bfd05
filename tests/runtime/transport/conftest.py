"""A transport over a fake network, and requests for it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.support.upstream import Upstream
from vastar_runtime.transport import (
    HttpTransport,
    Origin,
    Progress,
    TransportSettings,
    UpstreamRequest,
    UpstreamResponse,
)
from vastar_runtime.transport.fake import Behaviour, FakeNetwork, Serve


def _run_in_virtual_time(
    test: Callable[[], Awaitable[None]], *, clock: None, instruments: Sequence[Any]
) -> None:
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every test that takes a `house` in virtual time.

    pytest-trio finds a clock only among the arguments of the test itself, not of its fixtures.
    """
    for item in items:
        here = item.path.is_relative_to(Path(__file__).parent)
        if here and "house" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=_run_in_virtual_time), append=False)


SCOPE = ("tenant", "workspace")


def make_request(
    target: str = "/small",
    *,
    method: bytes = b"GET",
    host: str = "api.test",
    port: int = 80,
    scheme: str = "http",
    **fields: Any,
) -> UpstreamRequest:
    origin = Origin(scheme, host, port)
    headers = [(b"host", origin.authority.encode()), *fields.pop("headers", [])]
    return UpstreamRequest(
        method=method, origin=origin, target=target.encode(), headers=headers, **fields
    )


@attrs.define
class House:
    """A transport, what it connects to, and the means to look at both."""

    network: FakeNetwork
    upstream: Upstream
    nursery: trio.Nursery
    transport: HttpTransport = attrs.field(init=False)
    progress: Progress = attrs.field(factory=Progress)
    made: list[HttpTransport] = attrs.field(factory=list)

    def make(self, settings: TransportSettings | None = None, **more: Any) -> HttpTransport:
        """The transport, again with other settings."""
        self.transport = HttpTransport(settings, self.network, environ={}, **more)
        self.made.append(self.transport)
        return self.transport

    async def ask(self, target: str = "/small", **more: Any) -> UpstreamResponse:
        """Send a request; what became of it is in `progress`."""
        self.progress = Progress()
        scope = more.pop("scope", SCOPE)
        return await self.transport.request(scope, make_request(target, **more), self.progress)

    async def fetch(self, target: str = "/small", **more: Any) -> tuple[int, bytes]:
        """Status and body of a whole call."""
        async with await self.ask(target, **more) as response:
            return response.status, await response.read_all()

    @property
    def counts(self) -> tuple[int, int, int]:
        """(busy, idle, waiting) over all keys."""
        stats = self.transport.stats()
        return (
            sum(s.busy for s in stats),
            sum(s.idle for s in stats),
            sum(s.waiting for s in stats),
        )

    def check_nothing_is_left(self) -> None:
        """No call is under way, and the open connections are exactly the idle ones."""
        self.transport._pool.check()
        busy, idle, waiting = self.counts
        assert (busy, waiting) == (0, 0)
        assert not self.transport._busy
        assert len(self.network.open_channels) == idle


@pytest.fixture
async def house(nursery: trio.Nursery) -> AsyncIterator[House]:
    """A house, in virtual time; `api.test` is the test upstream."""
    upstream = Upstream()
    network = FakeNetwork(nursery)
    network.add_host("api.test", Serve(upstream.handle))
    made = House(network, upstream, nursery)
    made.make()
    yield made
    for transport in made.made:
        await transport.aclose()
    await trio.sleep(1)  # of virtual time: a proxy closes its own connections
    assert not network.open_channels


@pytest.fixture
def serve(house: House) -> Callable[..., None]:
    """Put behaviours behind a host name, `other.test` unless told."""

    def add(*behaviours: Behaviour, name: str = "other.test", **more: Any) -> None:
        house.network.add_host(name, *behaviours, **more)

    return add
