"""Two worker processes against one: requests/s and CPU time a request on 16 sockets.

Peer: the same runtime with `--workers 1`, in the same round.

Load shape: a closed loop of 16 connections with one call each, small GETs, native payloads,
keep-alive; policies, metrics and the access log are on, and limits hold over all workers together.

Read it so: load and upstream share the machine's cores with the workers, and a second worker can
only have what they leave; "load cores" and "upstream cores" are what they took, and a note tells
what would be possible at most if every core worked all the time. "busiest worker" is its share of
the workers' CPU time: connections stay with the worker that accepted them, and 0.5 is even.

Cheating would be: limits that each worker keeps for itself; connections handed out by hand, so that
both have eight; a first worker held back by a pin to the load's core.
"""

import os
from typing import Final

import attrs

from benchmarks._load import LoadSpec
from benchmarks._processes import (
    Upstream,
    cpu_s,
    family,
    run_json,
    running_runtime,
    watched_upstream,
)
from benchmarks._report import Claim, Options, Report, Row, Sample, median, watch_others

__all__ = ["SUMMARY", "Outcome", "possible", "run"]

SUMMARY: Final = "requests/s and CPU us with 1 and 2 workers on 16 sockets"
WANTED_RATIO: Final = 1.5
WORKERS: Final = (1, 2)
_CONNECTIONS: Final = 16
_WARM_S: Final = 0.5


@attrs.frozen
class Outcome:
    """One run.

    Attributes:
        upstream_us: CPU time of the upstream a request.
        busiest_ratio: of the workers' CPU time, that of the busiest of them.
    """

    sample: Sample
    upstream_us: float
    busiest_ratio: float

    @property
    def total_us(self) -> float:
        """CPU time a request of everything that takes part."""
        return self.sample.cpu_us + self.sample.load_cpu_us + self.upstream_us


def run(options: Options) -> Report:
    """Measure both in turn, round after round. Nothing is pinned: two workers need two cores."""
    report = Report("workers", [])
    outcomes: dict[int, list[Outcome]] = {workers: [] for workers in WORKERS}
    with watch_others(report), watched_upstream() as upstream:
        for _ in range(options.rounds):
            for workers in WORKERS:
                outcomes[workers].append(_measure(workers, upstream, options.seconds))
    one, two = (outcomes[workers] for workers in WORKERS)
    ratios = {
        workers: median(
            [
                mine.sample.requests_per_s / single.sample.requests_per_s
                for mine, single in zip(outcomes[workers], one, strict=True)
            ]
        )
        for workers in WORKERS
    }
    report.rows = [_row(workers, outcomes[workers], ratios[workers]) for workers in WORKERS]
    text = "requests/s of 2 workers over those of 1"
    report.claims.append(Claim(text, ratios[2], WANTED_RATIO, at_most=False))
    report.notes.append(_note(one, two))
    return report


def possible(cores: int, one: Outcome, two: Outcome) -> float:
    """The ratio that all cores together could reach, at what a request costs with two workers."""
    return cores * 1e6 / two.total_us / one.sample.requests_per_s


def _note(one: list[Outcome], two: list[Outcome]) -> str:
    cores = os.cpu_count() or 1
    taken = median([(each.total_us - each.sample.cpu_us) * _rate(each) / 1e6 for each in two])
    most = median([possible(cores, *pair) for pair in zip(one, two, strict=True)])
    return (
        f"with 2 workers load and upstream took {taken:.2f} of the {cores} cores: a ratio of "
        f"{most:.2f} is the most that this machine could show, with nothing else on it"
    )


def _rate(outcome: Outcome) -> float:
    return outcome.sample.requests_per_s


def _measure(workers: int, upstream: Upstream, seconds: float) -> Outcome:
    """One run of a fresh runtime under the load."""
    with running_runtime("--workers", str(workers)) as runtime:
        spec = LoadSpec(
            socket_path=runtime.socket_path,
            url=f"{upstream.url}/small",
            connections=_CONNECTIONS,
            depth=1,
            seconds=seconds,
            warm_s=_WARM_S,
            watched_pid=runtime.pid,
        )
        before = {pid: cpu_s(pid) for pid in family(runtime.pid)}
        upstream_began_s = cpu_s(upstream.pid)
        sample = run_json("benchmarks._load", spec, Sample, core=None)
        upstream_s = cpu_s(upstream.pid) - upstream_began_s
        spent_s = [cpu_s(pid) - before.get(pid, 0.0) for pid in family(runtime.pid)]
    # The upstream is watched from the first call on, warming up included.
    requests = sample.requests_per_s * (seconds + _WARM_S)
    return Outcome(sample, upstream_s / requests * 1e6, max(spent_s) / sum(spent_s))


def _row(workers: int, outcomes: list[Outcome], ratio: float) -> Row:
    samples = [outcome.sample for outcome in outcomes]
    return {
        "workers": str(workers),
        "requests/s": median([sample.requests_per_s for sample in samples]),
        "p50 us": median([sample.p50_us for sample in samples]),
        "p99 us": median([sample.p99_us for sample in samples]),
        "CPU us": median([sample.cpu_us for sample in samples]),
        "x 1 worker": ratio,
        "busiest worker": median([outcome.busiest_ratio for outcome in outcomes]),
        "runtime cores": median([s.cpu_us * s.requests_per_s / 1e6 for s in samples]),
        "load cores": median([s.load_cpu_us * s.requests_per_s / 1e6 for s in samples]),
        "upstream cores": median([each.upstream_us * _rate(each) / 1e6 for each in outcomes]),
    }
