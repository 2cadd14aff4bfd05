"""Small GETs through the runtime, beside httpx and aiohttp calling the same upstream directly.

Peers: httpx and aiohttp on asyncio, one client with its limits raised, each in its own process.

Load shape: closed loops of 16 connections with one call each, one connection with 64 calls in
flight, and one call at a time; a client has as many tasks as there are calls in flight. Native
payloads, 27 bytes of answer, keep-alive.

Read it so: "CPU us" is what one request costs the measured process, all in: the runtime's tells
what a call through it costs the host beside the caller's own cost of the frame ("load CPU us" is a
lower bound of that); a client's is what it costs the program that uses it. "x httpx" is the median
over the rounds of this contestant's requests/s over httpx's in the same round.

Cheating would be: a runtime with policies, metrics or the log off; a log that goes to nowhere; more
calls in flight on one side than on the other; answers that nobody checks; the best round.
"""

from typing import Final

import attrs

from benchmarks._load import LoadSpec
from benchmarks._peers import Client, PeerSpec
from benchmarks._processes import (
    Cores,
    cores,
    run_json,
    running_runtime,
    running_upstream,
)
from benchmarks._report import Claim, Options, Report, Row, Sample, median, watch_others

__all__ = ["SUMMARY", "run"]

SUMMARY: Final = "small GETs: requests/s, p50, p99, CPU us; the runtime beside httpx and aiohttp"
WANTED_REQUESTS_PER_S: Final = 6_000.0
_WARM_S: Final = 0.5
_RUNTIME: Final = "runtime"
_PEERS: Final[tuple[Client, ...]] = ("httpx", "aiohttp")


@attrs.frozen
class Shape:
    """So many connections with so many calls in flight on each; `claimed`: the goal holds here."""

    name: str
    connections: int
    depth: int
    claimed: bool = True


SHAPES: Final = (
    Shape("16 x 1 deep", 16, 1),
    Shape("1 x 64 deep", 1, 64),
    Shape("1 x 1 deep", 1, 1, claimed=False),
)


def run(options: Options) -> Report:
    """Measure every shape."""
    report = Report("closed_loop", [])
    where = cores(pin=options.pin)
    with watch_others(report), running_upstream(core=where.other) as upstream:
        for shape in SHAPES:
            samples = _measure(shape, f"{upstream}/small", options, where)
            report.rows += [_row(shape, name, samples) for name in samples]
            if shape.claimed:
                rate = median([sample.requests_per_s for sample in samples[_RUNTIME]])
                text = f"requests/s of the runtime, {shape.name}"
                report.claims.append(Claim(text, rate, WANTED_REQUESTS_PER_S, at_most=False))
    return report


def _measure(shape: Shape, url: str, options: Options, where: Cores) -> dict[str, list[Sample]]:
    """The contestants in turn, round after round."""
    samples: dict[str, list[Sample]] = {_RUNTIME: [], **{name: [] for name in _PEERS}}
    for _ in range(options.rounds):
        samples[_RUNTIME].append(_run_runtime(shape, url, options.seconds, where))
        for name in _PEERS:
            samples[name].append(_run_peer(name, shape, url, options.seconds, where))
    return samples


def _run_runtime(shape: Shape, url: str, seconds: float, where: Cores) -> Sample:
    """One run of a fresh runtime under the load."""
    with running_runtime(core=where.measured) as runtime:
        spec = LoadSpec(
            socket_path=runtime.socket_path,
            url=url,
            connections=shape.connections,
            depth=shape.depth,
            seconds=seconds,
            warm_s=_WARM_S,
            watched_pid=runtime.pid,
        )
        return run_json("benchmarks._load", spec, Sample, core=where.other)


def _run_peer(name: Client, shape: Shape, url: str, seconds: float, where: Cores) -> Sample:
    concurrent = shape.connections * shape.depth
    spec = PeerSpec(client=name, url=url, concurrent=concurrent, seconds=seconds, warm_s=_WARM_S)
    return run_json("benchmarks._peers", spec, Sample, core=where.measured)


def _row(shape: Shape, name: str, samples: dict[str, list[Sample]]) -> Row:
    own = samples[name]
    row: Row = {
        "shape": shape.name,
        "who": name,
        "requests/s": median([sample.requests_per_s for sample in own]),
        "p50 us": median([sample.p50_us for sample in own]),
        "p99 us": median([sample.p99_us for sample in own]),
        "CPU us": median([sample.cpu_us for sample in own]),
        "load CPU us": median([sample.load_cpu_us for sample in own]),
    }
    for peer in _PEERS:
        ratios = [
            mine.requests_per_s / theirs.requests_per_s
            for mine, theirs in zip(own, samples[peer], strict=True)
        ]
        row[f"x {peer}"] = median(ratios)
    return row
