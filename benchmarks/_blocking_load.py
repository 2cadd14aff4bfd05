"""Blocking callers: one thread with its clients in turn, or many threads that share one client.

    python -m benchmarks._blocking_load SPEC     (a TurnsSpec or ThreadsSpec as JSON, with "type")

Calls are made as a program makes them: `client.get(url)` with the defaults of each client, the
garbage collector on. Each answer's status and body are checked.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import httpx
import msgspec
import requests

from benchmarks._load import WrongAnswer, sample_of
from benchmarks._report import Sample
from benchmarks._upstream import SMALL_BODY
from vastar_client import RuntimeClient, RuntimeConfig

__all__ = ["Client", "ThreadsSpec", "TurnsSample", "TurnsSpec"]

_OK: Final = 200
_TURN_CALLS: Final = 50
"""Calls of one client before the next one has its turn: enough that its caches are warm."""

Client: TypeAlias = Literal["runtime", "requests", "requests, no environment", "httpx"]
_Get: TypeAlias = Callable[[], tuple[int, bytes]]


class TurnsSpec(msgspec.Struct, frozen=True, tag="turns"):
    """One thread: GETs of `url`, straight by the peers and through the runtime, in turn."""

    url: str
    socket_path: str
    seconds: float
    warm_s: float


class TurnsSample(msgspec.Struct, frozen=True):
    """Latency in us, by client."""

    p50_us: dict[Client, float]
    p99_us: dict[Client, float]


class ThreadsSpec(msgspec.Struct, frozen=True, tag="threads"):
    """So many threads, each with one call of one shared client under way all the time."""

    url: str
    socket_path: str
    threads: int
    seconds: float
    warm_s: float


def _checked(status: int, body: bytes) -> None:
    if status != _OK or body != SMALL_BODY:
        raise WrongAnswer(f"status {status} with {len(body)} bytes")


def _config(socket_path: str) -> RuntimeConfig:
    return RuntimeConfig(socket_path=socket_path, use_environment=False)


def take_turns(spec: TurnsSpec) -> TurnsSample:
    """Warm up, then count."""
    with (
        RuntimeClient(_config(spec.socket_path)) as client,
        requests.Session() as session,
        requests.Session() as faster,
        httpx.Client() as other,
    ):
        faster.trust_env = False  # it looks for no proxies, and for no .netrc, with every call

        def through_runtime() -> tuple[int, bytes]:
            response = client.get(spec.url)
            return response.status_code, response.body

        def by_requests() -> tuple[int, bytes]:
            response = session.get(spec.url)
            return response.status_code, response.content

        def by_faster() -> tuple[int, bytes]:
            response = faster.get(spec.url)
            return response.status_code, response.content

        def by_httpx() -> tuple[int, bytes]:
            response = other.get(spec.url)
            return response.status_code, response.content

        ways: dict[Client, _Get] = {
            "runtime": through_runtime,
            "requests": by_requests,
            "requests, no environment": by_faster,
            "httpx": by_httpx,
        }
        _turns(ways, spec.warm_s)
        waits_ns = _turns(ways, spec.seconds)
    for each in waits_ns.values():
        each.sort()
    return TurnsSample(
        {name: each[len(each) // 2] / 1000 for name, each in waits_ns.items()},
        {name: each[len(each) * 99 // 100] / 1000 for name, each in waits_ns.items()},
    )


def _turns(ways: dict[Client, _Get], seconds: float) -> dict[Client, list[int]]:
    """The latencies of each way, in ns; at least one turn of each."""
    waits_ns: dict[Client, list[int]] = {name: [] for name in ways}
    end_s = time.perf_counter() + seconds
    while True:
        for name, get in ways.items():
            own_ns = waits_ns[name]
            for _ in range(_TURN_CALLS):
                began_ns = time.perf_counter_ns()
                status, body = get()
                own_ns.append(time.perf_counter_ns() - began_ns)
                _checked(status, body)
        if time.perf_counter() >= end_s:
            return waits_ns


def share(spec: ThreadsSpec) -> Sample:
    """Warm up, then count. CPU time is that of this process, all of whose threads are callers."""
    waits_ns: list[int] = []
    failures: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            while not ended.is_set():
                began_ns = time.perf_counter_ns()
                response = client.get(spec.url)
                waits_ns.append(time.perf_counter_ns() - began_ns)
                _checked(response.status_code, response.body)
        except BaseException as error:  # noqa: BLE001 - raised where the threads are joined
            failures.append(error)

    with RuntimeClient(_config(spec.socket_path)) as client:
        threads = [threading.Thread(target=work) for _ in range(spec.threads)]
        for thread in threads:
            thread.start()
        time.sleep(spec.warm_s)
        waits_ns.clear()
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        time.sleep(spec.seconds)
        took_s, spent_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
        counted = waits_ns.copy()
        ended.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return sample_of(counted, took_s, spent_s)


def main() -> None:
    """Do what the argument says; print the sample."""
    spec = msgspec.json.decode(sys.argv[1], type=TurnsSpec | ThreadsSpec)
    sample = take_turns(spec) if isinstance(spec, TurnsSpec) else share(spec)
    print(msgspec.json.encode(sample).decode())


if __name__ == "__main__":
    main()
