"""The peers: psycopg and sqlite3 called directly, in their own process.

    python -m benchmarks._sql_peers SPEC     (a PeerSpec as JSON; prints a Sample as JSON)

So many connections, each with one query under way; each answer is checked. psycopg in threads is
how most programs use it, on asyncio it serves many from one thread; both prepare what comes often,
as they do by default.
"""

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec
import psycopg

from benchmarks._load import WrongAnswer, sample_of
from benchmarks._report import Sample
from benchmarks._sql_load import EXPECTED, POINT

__all__ = ["PeerSpec", "Way"]

Way: TypeAlias = Literal["psycopg threads", "psycopg asyncio", "sqlite3"]


class PeerSpec(msgspec.Struct, frozen=True):
    """What to do: `concurrent` queries under way for so long; `where` is a URL or a path."""

    way: Way
    where: str
    concurrent: int
    seconds: float
    warm_s: float


def _check(row: Any) -> None:
    if row is None or tuple(row) != EXPECTED:
        raise WrongAnswer(f"{row}")


class _Clock:
    """When to count and when to stop, and what was counted."""

    def __init__(self, spec: PeerSpec) -> None:
        self._count_from_s = time.perf_counter() + spec.warm_s
        self._end_s = self._count_from_s + spec.seconds
        self._seconds = spec.seconds
        self._cpu_at_s = 0.0
        self.waits_ns: list[int] = []

    def goes_on(self, began_ns: int) -> bool:
        """One is done; whether there shall be another."""
        now_ns = time.perf_counter_ns()
        now_s = now_ns / 1e9
        if now_s >= self._count_from_s:
            self._cpu_at_s = self._cpu_at_s or time.process_time()
            self.waits_ns.append(now_ns - began_ns)
        return now_s < self._end_s

    def sample(self) -> Sample:
        """Of all."""
        return sample_of(self.waits_ns, self._seconds, time.process_time() - self._cpu_at_s)


def _in_threads(spec: PeerSpec, connect: Callable[[], Callable[[], Any]]) -> Sample:
    asks = [connect() for _ in range(spec.concurrent)]
    clock = _Clock(spec)
    failures: list[Exception] = []

    def loop(ask: Callable[[], Any]) -> None:
        try:
            goes_on = True
            while goes_on:
                began_ns = time.perf_counter_ns()
                _check(ask())
                goes_on = clock.goes_on(began_ns)
        except (WrongAnswer, psycopg.Error, sqlite3.Error) as error:
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return clock.sample()


def _psycopg(url: str) -> Callable[[], Any]:
    connection = psycopg.connect(url, autocommit=True)
    return lambda: connection.execute(f"{POINT}%s", [7]).fetchone()


def _sqlite(path: str) -> Callable[[], Any]:
    connection = sqlite3.connect(path, check_same_thread=False)
    return lambda: connection.execute(f"{POINT}?", [7]).fetchone()


async def _on_asyncio(spec: PeerSpec) -> Sample:
    connect = psycopg.AsyncConnection.connect
    connections = [await connect(spec.where, autocommit=True) for _ in range(spec.concurrent)]
    clock = _Clock(spec)

    async def loop(connection: psycopg.AsyncConnection[Any]) -> None:
        goes_on = True
        while goes_on:
            began_ns = time.perf_counter_ns()
            cursor = await connection.execute(f"{POINT}%s", [7])
            _check(await cursor.fetchone())
            goes_on = clock.goes_on(began_ns)

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(loop(connection))
    return clock.sample()


def main() -> None:
    """Run the peer of the first argument."""
    spec = msgspec.json.decode(sys.argv[1], type=PeerSpec)
    if spec.way == "psycopg asyncio":
        sample = asyncio.run(_on_asyncio(spec))
    elif spec.way == "psycopg threads":
        sample = _in_threads(spec, lambda: _psycopg(spec.where))
    else:
        sample = _in_threads(spec, lambda: _sqlite(spec.where))
    print(msgspec.json.encode(sample).decode())


if __name__ == "__main__":
    main()
