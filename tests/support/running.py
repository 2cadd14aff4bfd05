"""The whole runtime in a test: real connectors and transport over memory streams, virtual time.

`running()` gives callers of a runtime whose only network is `Upstream` on 127.0.0.1:4600; every
other port refuses.
"""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import msgspec
import trio
import trio.testing

from tests.support.sessions import WALL_START_MS, CallerEnd
from tests.support.upstream import Upstream
from vastar_client.wire import ExecuteRequest, ExecuteResponse
from vastar_runtime.assembly import Clocks, Runtime
from vastar_runtime.calls import Caller
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.transport import Address, Channel, StreamChannel
from vastar_runtime.transport.memory import MemoryChannel, memory_channel_pair

UPSTREAM_PORT = 4600
URL = f"http://127.0.0.1:{UPSTREAM_PORT}"

Handler = Callable[[MemoryChannel], Awaitable[None]]


class PortNetwork:
    """A network of one host whose ports are handled by functions; the others refuse.

    Attributes:
        names: the addresses that a name is looked up to; a list of answers gives one after
            another, the last one for ever. Other names, and addresses, are their own address.
        own_addresses: those that the runtime takes for its own host's.
        lookups: what was looked up, in order.
        connected: the addresses that were connected to, in order, whether or not they refused.
    """

    def __init__(self, nursery: trio.Nursery, handlers: Mapping[int, Handler]) -> None:
        self._nursery = nursery
        self.handlers = dict(handlers)
        self.channels: list[MemoryChannel] = []
        self.names: dict[str, list[Sequence[str]]] = {}
        self.own_addresses: set[str] = set()
        self.lookups: list[str] = []
        self.connected: list[str] = []

    def is_own_address(self, ip: str) -> bool:
        return ip in self.own_addresses

    async def resolve(self, host: str, port: int, *, tenant: str) -> Sequence[Address]:
        await trio.lowlevel.checkpoint()
        self.lookups.append(host)
        answers = self.names.get(host, [(host,)])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [Address(10 if ":" in ip else 2, (ip, port)) for ip in found]

    async def connect(self, address: Address) -> Channel:
        await trio.lowlevel.checkpoint()
        self.connected.append(address.ip)
        handler = self.handlers.get(address.sockaddr[1])
        if handler is None:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        ours, theirs = memory_channel_pair(65536)
        self.channels.append(ours)
        self._nursery.start_soon(_unharmed, handler, theirs)
        return ours


async def _unharmed(handler: Handler, channel: MemoryChannel) -> None:
    """An upstream goes on when the runtime leaves it in the middle of an answer."""
    try:
        await handler(channel)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        channel.abort()


@attrs.define
class Running:
    """A running runtime and what it talks to."""

    runtime: Runtime
    upstream: Upstream
    network: PortNetwork
    _nursery: trio.Nursery

    def caller(
        self,
        *,
        uid: int | None = None,
        streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    ) -> CallerEnd:
        """A new connection to the runtime, through `streams` or memory without bounds."""
        ours, theirs = streams or trio.testing.memory_stream_pair()
        hangup = trio.Event()
        channel = StreamChannel(ours, hangup=hangup)

        async def serve() -> None:
            await self.runtime.serve(channel, caller=Caller(0, uid))

        self._nursery.start_soon(serve)
        return CallerEnd(theirs, hangup)

    def start(self, run: Callable[[], Awaitable[None]]) -> None:
        """Have a task run beside the runtime, until the end at most."""
        self._nursery.start_soon(run)

    async def http(self, payload: object, **fields: object) -> ExecuteResponse:
        """The answer to one HTTP call with that JSON payload, on a connection of its own."""
        caller = self.caller()
        await caller.send(http_request(1, payload, **fields))
        answer = await caller.receive()
        assert isinstance(answer, ExecuteResponse)
        await caller.close()
        return answer


def http_request(request_id: int, payload: object, **fields: object) -> ExecuteRequest:
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return ExecuteRequest(
        request_id,
        **{
            "tenant_id": "acme",
            "connector_name": "http",
            "operation": "request",
            "payload": data,
            **fields,
        },  # type: ignore[arg-type]
    )


@asynccontextmanager
async def running(config: RuntimeConfig | None = None) -> AsyncIterator[Running]:
    """A runtime in this event loop; at the end no call and no upstream connection may be left."""
    async with trio.open_nursery() as nursery:
        upstream = Upstream()
        network = PortNetwork(nursery, {UPSTREAM_PORT: upstream.handle})
        started_at_s = trio.current_time()
        runtime = Runtime(
            config or RuntimeConfig(),
            network=network,
            clocks=Clocks(
                wall_clock_ms=lambda: WALL_START_MS + (trio.current_time() - started_at_s) * 1000,
                random_u64=lambda: 0xABCDEF,
                random_ratio=lambda: 0.5,
            ),
        )
        nursery.start_soon(runtime.run)
        yield Running(runtime, upstream, network, nursery)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert runtime.state.calls_in_flight == 0
    assert all(channel.closed for channel in network.channels)
