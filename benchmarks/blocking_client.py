"""The blocking client: a GET beside `requests` and httpx, and calls/s of 16 threads that share one.

Peers: `requests.Session().get` and `httpx.Client.get` straight to the same upstream, connections
kept, by the same thread of the same process, 50 calls of one and then 50 of the next; the runtime
is a process more on the way. `requests` is used as its guide shows it, and looks for proxies and a
.netrc with every call then; a session that is told not to is a row of its own, and not the claim's.

Load shape: one thread with one call at a time for the latency. For calls/s 16 threads share one
client and so one connection, each with one call under way all the time; they reach a wire echo
server, which shows the client alone, and the upstream through the real runtime. "CPU us" is that of
the process of the callers for one call, building the request and reading the answer included.

What would be cheating: an echo server that is the bottleneck. So the row "wire echo, raw load" says
what it alone gives at the same depth, and at 64 deep; where the raw rate is not well above that of
the client, the client's is not the client's. The runtime runs with everything on, and the interval
at which Python takes the interpreter from a thread is left as it is.
"""

from typing import Final

from benchmarks._blocking_load import ThreadsSpec, TurnsSample, TurnsSpec
from benchmarks._load import LoadSpec
from benchmarks._processes import Cores, cores, run_json, running_runtime, running_upstream
from benchmarks._report import Claim, Options, Report, Row, Sample, median, watch_others

__all__ = ["OPTIONS", "SUMMARY", "run"]

SUMMARY: Final = (
    "blocking calls: p50 beside requests and httpx; calls/s of 16 threads on one client"
)
OPTIONS: Final = Options(seconds=3.0, rounds=5)
THREADS: Final = 16
WANTED_RATIO: Final = 0.7
WANTED_ECHO_PER_S: Final = 12_000.0
WANTED_HTTP_PER_S: Final = 6_000.0
_WARM_S: Final = 0.5
_LOAD: Final = "benchmarks._blocking_load"
_ECHO: Final = "benchmarks._wire_echo"
_NO_HOST: Final = "http://127.0.0.1:1/small"


def run(options: Options) -> Report:
    """Measure latency, the client on the echo server, and the client on the runtime, in turn."""
    report = Report("blocking_client", [])
    where = cores(pin=options.pin)
    turns: list[TurnsSample] = []
    rates: dict[str, list[Sample]] = {}
    with watch_others(report), running_upstream(core=where.other) as upstream:
        url = f"{upstream}/small"
        for _ in range(options.rounds):
            turns.append(_turns(url, options, where))
            for name, sample in _rates(url, options, where).items():
                rates.setdefault(name, []).append(sample)
    for client in turns[0].p50_us:
        report.rows.append(
            _row(
                f"1 thread, {client}",
                p50_us=median([sample.p50_us[client] for sample in turns]),
                p99_us=median([sample.p99_us[client] for sample in turns]),
            )
        )
    report.rows += [_rate_row(name, samples) for name, samples in rates.items()]
    ratio = median([sample.p50_us["runtime"] / sample.p50_us["requests"] for sample in turns])
    report.claims.append(
        Claim("p50 of a blocking GET over that of requests", ratio, WANTED_RATIO, at_most=True)
    )
    for name, wanted in (
        (f"{THREADS} threads, wire echo", WANTED_ECHO_PER_S),
        (f"{THREADS} threads, runtime", WANTED_HTTP_PER_S),
    ):
        rate = median([sample.requests_per_s for sample in rates[name]])
        report.claims.append(Claim(f"calls/s, {name}", rate, wanted, at_most=False))
    return report


def _turns(url: str, options: Options, where: Cores) -> TurnsSample:
    with running_runtime(core=where.measured) as runtime:
        spec = TurnsSpec(url, runtime.socket_path, options.seconds, _WARM_S)
        return run_json(_LOAD, spec, TurnsSample, core=where.other)


def _rates(url: str, options: Options, where: Cores) -> dict[str, Sample]:
    """Calls/s, by who makes them and to whom."""
    samples: dict[str, Sample] = {}
    with running_upstream(module=_ECHO, core=where.other) as path:
        for name, depth in (
            (f"{THREADS} deep, wire echo, raw load", THREADS),
            ("64 deep, wire echo, raw load", 64),
        ):
            # Nobody's CPU time is of interest there; a process must be named all the same.
            load = LoadSpec(path, _NO_HOST, 1, depth, options.seconds / 2, _WARM_S, watched_pid=1)
            samples[name] = run_json("benchmarks._load", load, Sample, core=where.measured)
        spec = ThreadsSpec(_NO_HOST, path, THREADS, options.seconds, _WARM_S)
        samples[f"{THREADS} threads, wire echo"] = run_json(
            _LOAD, spec, Sample, core=where.measured
        )
    with running_runtime(core=where.measured) as runtime:
        spec = ThreadsSpec(url, runtime.socket_path, THREADS, options.seconds, _WARM_S)
        samples[f"{THREADS} threads, runtime"] = run_json(_LOAD, spec, Sample, core=where.other)
    return samples


def _row(
    who: str, *, calls_per_s: float = 0.0, p50_us: float, p99_us: float, cpu_us: float = 0.0
) -> Row:
    """A line of the table; what was not measured is told as a dash."""
    return {
        "who": who,
        "calls/s": calls_per_s or "-",
        "p50 us": p50_us,
        "p99 us": p99_us,
        "CPU us": cpu_us or "-",
    }


def _rate_row(name: str, samples: list[Sample]) -> Row:
    raw = name.endswith("raw load")
    return _row(
        name,
        calls_per_s=median([sample.requests_per_s for sample in samples]),
        p50_us=median([sample.p50_us for sample in samples]),
        p99_us=median([sample.p99_us for sample in samples]),
        cpu_us=median([sample.load_cpu_us if raw else sample.cpu_us for sample in samples]),
    )
