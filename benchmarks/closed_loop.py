"""Small GETs through the runtime, beside httpx and aiohttp calling the same upstream directly.

Peers: httpx and aiohttp on asyncio, one client with its limits raised, each in its own process. On
machines that have nginx and wrk the runtime is held against these too, driven directly, in the same
run.

Load shape: closed loops of 16 connections with one call each, one connection with 64 calls in
flight, and one call at a time; a client has as many tasks as there are calls in flight. Native
payloads, 27 bytes of answer, keep-alive.

Read it so: "CPU us" is what one request costs the measured process, all in, and what noise moves
least: policies, metrics and the access log are on, as users have them. The runtime's tells what a
call through it costs the host beside the caller's own cost of the frame ("load CPU us" is a lower
bound of that); a client's is what it costs the program that uses it. "x httpx" is the median over
the rounds of this contestant's requests/s over httpx's in the same round. The claims on requests/s
are absolute, and meant for 2 cores where nginx driven by wrk does 130,000.

Cheating would be: a runtime with policies, metrics or the log off; a log that goes to nowhere; more
calls in flight on one side than on the other; answers that nobody checks; the best round.
"""

from typing import Final

import attrs

from benchmarks._load import LoadSpec
from benchmarks._nginx import missing, requests_per_s, running_nginx
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
_WARM_S: Final = 0.5
_RUNTIME: Final = "runtime"
_PEERS: Final[tuple[Client, ...]] = ("httpx", "aiohttp")


@attrs.frozen
class Shape:
    """So many connections with so many calls in flight on each.

    Attributes:
        wanted_per_s: requests/s, at least; 0 is no goal.
        stretch_per_s: what would be fine.
        wanted_cpu_us: of the runtime for a request, at most.
        wanted_ratio: of the requests/s that nginx gives wrk directly.
    """

    name: str
    connections: int
    depth: int
    wanted_per_s: float = 0.0
    stretch_per_s: float = 0.0
    wanted_cpu_us: float = 0.0
    wanted_ratio: float = 0.0


SHAPES: Final = (
    Shape("16 x 1 deep", 16, 1, 9_000, 12_000, 115, 0.07),
    Shape("1 x 64 deep", 1, 64, 13_000, 18_000, 75, 0.10),
    Shape("1 x 1 deep", 1, 1),
)


def run(options: Options) -> Report:
    """Measure every shape."""
    report = Report("closed_loop", [])
    where = cores(pin=options.pin)
    with watch_others(report), running_upstream(core=where.other) as upstream:
        for shape in SHAPES:
            samples = _measure(shape, f"{upstream}/small", options, where)
            report.rows += [_row(shape, name, samples) for name in samples]
            if shape.wanted_per_s:
                _judge(report, shape, samples[_RUNTIME])
        _judge_ratio(report, options)
    return report


def _judge(report: Report, shape: Shape, samples: list[Sample]) -> None:
    """Hold the runtime against what is wanted of it."""
    rate = median([sample.requests_per_s for sample in samples])
    cpu_us = median([sample.cpu_us for sample in samples])
    name = shape.name
    report.claims += (
        Claim(f"CPU us a request, {name}", cpu_us, shape.wanted_cpu_us, at_most=True),
        Claim(f"requests/s of the runtime, {name}", rate, shape.wanted_per_s, at_most=False),
    )
    stretch = Claim(f"stretch goal, {name}", rate, shape.stretch_per_s, at_most=False)
    report.notes.append(str(stretch))


def _judge_ratio(report: Report, options: Options) -> None:
    """Hold the runtime against nginx driven by wrk, where both are here."""
    if absent := missing():
        report.notes.append(f"not held against nginx driven by wrk: no {absent} on this machine")
        return
    rates = {row["shape"]: row["requests/s"] for row in report.rows if row["who"] == _RUNTIME}
    with running_nginx() as url:
        for shape in SHAPES:
            if shape.wanted_ratio:
                at_once = shape.connections * shape.depth
                ceiling = median(
                    [requests_per_s(url, at_once, options.seconds) for _ in range(options.rounds)]
                )
                report.notes.append(f"nginx and wrk, {at_once} at once: {ceiling:,.0f} requests/s")
                ratio = float(rates[shape.name]) / ceiling
                text = f"requests/s over those of nginx and wrk, {shape.name}"
                report.claims.append(Claim(text, ratio, shape.wanted_ratio, at_most=False))


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
