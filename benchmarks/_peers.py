"""The peers: an httpx and an aiohttp client that call the upstream directly, in their own process.

    python -m benchmarks._peers SPEC     (a PeerSpec as JSON; prints a Sample as JSON)

The same closed loop as `_load`: so many tasks of one client, each with one call in flight, on
connections that are kept alive and never waited for. Each answer's status and body are checked.
Their CPU time holds the cost of the load loop, which for a client is part of using it.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Literal, TypeAlias

import aiohttp
import httpx
import msgspec

from benchmarks._load import WrongAnswer, sample_of
from benchmarks._report import Sample
from benchmarks._upstream import SMALL_BODY

__all__ = ["Client", "PeerSpec"]

_OK = 200
_TIMEOUT_S = 30.0
Client: TypeAlias = Literal["httpx", "aiohttp"]
_Get: TypeAlias = Callable[[], Awaitable[tuple[int, bytes]]]


class PeerSpec(msgspec.Struct, frozen=True):
    """What to do: `concurrent` calls in flight for so long."""

    client: Client
    url: str
    concurrent: int
    seconds: float
    warm_s: float


async def _open_httpx(stack: AsyncExitStack, spec: PeerSpec) -> _Get:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = await stack.enter_async_context(
        httpx.AsyncClient(limits=limits, timeout=_TIMEOUT_S, trust_env=False)
    )

    async def get() -> tuple[int, bytes]:
        response = await client.get(spec.url)
        return response.status_code, response.content

    return get


async def _open_aiohttp(stack: AsyncExitStack, spec: PeerSpec) -> _Get:
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        )
    )

    async def get() -> tuple[int, bytes]:
        async with session.get(spec.url) as response:
            return response.status, await response.read()

    return get


async def _worker(get: _Get, waits_ns: list[int]) -> None:
    while True:
        began_ns = time.perf_counter_ns()
        status, body = await get()
        if status != _OK or body != SMALL_BODY:
            raise WrongAnswer(f"status {status} with {len(body)} bytes")
        waits_ns.append(time.perf_counter_ns() - began_ns)


async def run(spec: PeerSpec) -> Sample:
    """Warm up, then count."""
    async with AsyncExitStack() as stack:
        open_client = _open_httpx if spec.client == "httpx" else _open_aiohttp
        get = await open_client(stack, spec)
        waits_ns: list[int] = []
        workers = [asyncio.create_task(_worker(get, waits_ns)) for _ in range(spec.concurrent)]
        await asyncio.sleep(spec.warm_s)
        waits_ns.clear()
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        await asyncio.sleep(spec.seconds)
        took_s, spent_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
        counted = waits_ns.copy()
        for worker in workers:
            worker.cancel()
        for ended in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        return sample_of(counted, took_s, spent_s)


def main() -> None:
    """Run the peer of the first argument."""
    spec = msgspec.json.decode(sys.argv[1], type=PeerSpec)
    print(msgspec.json.encode(asyncio.run(run(spec))).decode())


if __name__ == "__main__":
    main()
